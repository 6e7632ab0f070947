"""`electramed prepare`: counts by split and by reason."""

from __future__ import annotations

import gzip
import json

from run_command import run_command, run_pipeline

from electramed_jax import cli


def test_prepare_counts_the_documents_of_each_split(tmp_path):
    result = run_pipeline(tmp_path)["prepare"]
    assert sum(counts["documents"] for counts in result["splits"].values()) == 40
    assert result["splits"]["validation"]["documents"] > 0 and result["files"] == 1


def test_prepare_applies_the_filters_and_prints_what_they_dropped(tmp_path, capsys):
    words = [" ".join(f"word{n}x{m}" for m in range(60)) for n in range(4)]
    records = [
        {"text": words[0], "language": "eng"},
        {"text": f"other {words[0]}", "language": "eng"},
        {"text": words[1], "language": "fre"},
        {"text": words[2]},
        {"text": words[3]},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "test.txt").write_text("\n".join(f"{word} O" for word in words[2].split()))
    inputs = ("--input", tmp_path / "in.jsonl", "--output", tmp_path / "out", "--workers", 1)
    options = ("--decontaminate", tmp_path / "*.txt", "--near_duplicates", 0.8, "--languages", "eng", "ger")
    result = run_command("prepare", *inputs, *options)
    assert result["dropped"] == {"held_out": 1, "language": 1, "near_duplicate": 1}
    assert sum(counts["documents"] for counts in result["splits"].values()) == 2
    assert 10_000_000 < result["peak_process_bytes"] < 10_000_000_000
    shown = capsys.readouterr().err
    assert "near_duplicate: 1" in shown
    assert "dropped for test.txt: 0 by PMID, 1 by sentence" in shown


LONG = "an invented sentence that is long enough to be kept"


def write_inputs(folder) -> None:
    (folder / "good.jsonl").write_text(json.dumps({"text": f"First {LONG}."}))
    (folder / "page.xml.gz").write_text("<!DOCTYPE html><html><body>Not found</body></html>")
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("short\n\ntext\n")


def test_unusable_inputs_are_named_with_their_reason_and_the_exit_code_is_3(tmp_path, capsys):
    write_inputs(tmp_path)
    command = ["prepare", "--input", f"{tmp_path}/*.*", "--output", f"{tmp_path}/out", "--workers=1", "--quiet"]
    for _ in ("built", "already built"):
        assert cli.main(command) == 3
        shown = capsys.readouterr().err.splitlines()
        assert shown[:-1] == [
            "empty.txt: empty",
            "page.xml.gz: nothing in it can be used: a web page (HTML), not a data file; download it again "
            "(html_page: 1)",
            "short.txt: nothing in it can be used: no text of 32 characters or more (too_short: 2)",
        ]
        assert shown[-1].startswith("3 of 4 files were unusable")
    assert cli.main([*command, "--allow_unusable"]) == 0
    info = json.loads((tmp_path / "out" / "documents.json").read_text())
    assert [row["file"] for row in info["inputs"] if "unusable" in row] == ["empty.txt", "page.xml.gz", "short.txt"]


def test_a_file_that_ends_early_is_named_and_what_comes_before_is_kept(tmp_path, capsys):
    def records(name: str) -> str:
        return json.dumps([{"text": f"{name} {number} {LONG}."} for number in range(300)])

    compressed = gzip.compress(records("compressed").encode())
    (tmp_path / "cut.json").write_text(records("cut")[:10_000])
    (tmp_path / "key.json").write_text(records("key").rpartition("text")[0])
    (tmp_path / "cut.json.gz").write_bytes(compressed[: len(compressed) // 2])
    (tmp_path / "whole.json").write_text(records("whole"))
    command = ["prepare", "--input", f"{tmp_path}/*.*", "--output", f"{tmp_path}/out", "--workers=1", "--quiet"]
    assert cli.main(command) == 0
    lost = "the text before the damage is kept, what follows is lost"
    assert capsys.readouterr().err.splitlines() == [
        f"cut.json: incomplete (truncated_json); {lost}",
        f"cut.json.gz: incomplete (truncated_gzip); {lost}",
        f"key.json: incomplete (truncated_json); {lost}",
    ]


def test_without_any_document_the_line_names_the_first_unusable_file(tmp_path, capsys):
    write_inputs(tmp_path)
    (tmp_path / "good.jsonl").unlink()
    assert cli.main(["prepare", "--input", f"{tmp_path}/p*", "--output", f"{tmp_path}/out", "--workers=1"]) == 2
    assert "first unusable file: page.xml.gz: nothing in it can be used: a web page" in capsys.readouterr().err


def test_a_copy_and_a_link_of_an_input_are_named_and_cost_nothing(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": f"First {LONG}."}))
    (tmp_path / "copy.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    command = ["prepare", "--input", f"{tmp_path}/*.jsonl", "--output", f"{tmp_path}/out", "--workers=1"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().err
    assert f"{tmp_path}/link.jsonl: the same file as {tmp_path}/a.jsonl; it is read once" in shown
    assert "copy.jsonl: nothing kept (duplicate: 1)" in shown


def test_files_whose_records_were_left_out_by_choice_are_usable(tmp_path):
    records = [{"text": f"{word} {LONG}.", "language": language} for word, language in (("A", "eng"), ("B", "fre"))]
    for name, record in zip(("english", "french"), records, strict=True):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
    result = run_command(
        *("prepare", "--input", tmp_path / "*.jsonl", "--output", tmp_path / "out", "--workers", 1),
        *("--languages", "eng"),
    )
    assert result["dropped"] == {"language": 1}
    assert result["unusable"] == {} and result["exit_code"] == 0


def test_the_formats_are_listed_and_counted(tmp_path, capsys):
    assert cli.main(["prepare", "--list_formats"]) == 0
    listed = capsys.readouterr().out
    assert "jats" in listed and ".nxml" in listed and "hf:NAME" in listed
    assert cli.main(["prepare", "--input", "a.jsonl"]) == 2
    assert "required: --input and --output" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("1234|t|An invented title about kinases.\n1234|a|They bind receptors in mice.\n")
    assert cli.main(["prepare", "--input", f"{tmp_path}/a.txt", "--output", f"{tmp_path}/out", "--workers", "1"]) == 0
    assert "read: pubtator 1" in capsys.readouterr().err
