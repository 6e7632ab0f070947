"""`electramed prepare`: counts by split and by reason."""

from __future__ import annotations

import json

from run_command import run_command, run_pipeline


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
