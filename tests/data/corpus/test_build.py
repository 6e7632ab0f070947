from __future__ import annotations

import gzip
import json
import os

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import build, corpus_dir
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.readers import reader


def write(path, *records) -> str:
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


def text(number: int) -> str:
    return f"Invented sentence number {number} of a text that is long enough."


def inputs(folder, count: int = 300) -> list[str]:
    records = [{"pmid": 90_000_000 + n, "text": text(n)} for n in range(count)]
    return [write(folder / f"{name}.jsonl.gz", *records[first::3]) for first, name in enumerate("abc")]


def splits_of(folder) -> dict[str, set[str]]:
    return {split: set(corpus_dir.Texts(str(folder), split)) for split in corpus_dir.SPLITS}


def snapshot(folder) -> dict[str, bytes]:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, folder)] = file.read()
    return found


def test_every_document_is_in_one_split_and_the_counts_add_up(tmp_path):
    info = prepare(inputs(tmp_path), str(tmp_path / "out"), FilterConfig(validation=0.2, test=0.1), workers=1)
    splits = splits_of(tmp_path / "out")
    assert set.union(*splits.values()) == {text(n) for n in range(300)}
    assert sum(map(len, splits.values())) == 300
    assert {name: len(texts) for name, texts in splits.items()} == {
        name: split["documents"] for name, split in info["splits"].items()
    }
    assert 40 < len(splits["validation"]) < 80 and 15 < len(splits["test"]) < 45
    assert [(i["file"], i["read"], i["kept"]) for i in info["inputs"]] == [
        (f"{name}.jsonl.gz", 100, 100) for name in "abc"
    ]
    assert corpus_dir.read_documents_info(str(tmp_path / "out")) == info
    assert ".work" not in os.listdir(tmp_path / "out")


def test_the_output_does_not_depend_on_the_number_of_processes(tmp_path):
    paths = inputs(tmp_path, count=30)
    prepare(paths, str(tmp_path / "one"), workers=1)
    prepare(paths[::-1], str(tmp_path / "two"), workers=2)
    one, two = snapshot(tmp_path / "one"), snapshot(tmp_path / "two")
    assert one == two
    assert len(one) == 10


def test_a_document_keeps_its_split_when_the_corpus_grows(tmp_path):
    paths = inputs(tmp_path)
    config = FilterConfig(validation=0.2, test=0.1)
    prepare(paths[:1], str(tmp_path / "small"), config, workers=1)
    prepare(paths, str(tmp_path / "large"), config, workers=1)
    small, large = splits_of(tmp_path / "small"), splits_of(tmp_path / "large")
    for split in corpus_dir.SPLITS:
        assert small[split] <= large[split]


def test_abstract_and_full_text_of_a_pmid_are_kept_and_share_their_split(tmp_path):
    pairs = [
        {"pmid": n, "text": f"{kind} of article {n}, long enough to be kept."}
        for n in range(1, 60)
        for kind in ("Abstract", "Full text")
    ]
    path = write(tmp_path / "a.jsonl", *pairs)
    prepare([path], str(tmp_path / "out"), FilterConfig(validation=0.3, test=0.3), workers=1)
    splits = splits_of(tmp_path / "out")
    assert sum(map(len, splits.values())) == len(pairs)
    for texts in splits.values():
        assert {t.replace("Abstract", "Full text") for t in texts if t.startswith("A")} == {
            t for t in texts if t.startswith("F")
        }


def test_of_equal_texts_the_first_in_the_order_of_the_inputs_is_kept(tmp_path):
    a = write(tmp_path / "a.jsonl", {"id": "a1", "text": text(1)}, {"id": "a2", "text": text(2)})
    b = write(
        tmp_path / "b.jsonl",
        {"id": "b2", "text": f"  {text(2)}\n"},
        {"id": "b3", "text": text(3)},
        {"id": "b3 again", "text": text(3)},
    )
    info = prepare([b, a], str(tmp_path / "out"), FilterConfig(validation=0, test=0), workers=1)
    kept = [
        document.id
        for number in range(2)
        for document in corpus_dir.read_part(corpus_dir.part_path(str(tmp_path / "out"), "train", number))
    ]
    assert kept == ["a1", "a2", "b3"]
    assert info["dropped"] == {"duplicate": 2}
    assert info["inputs"][1]["dropped"] == {"duplicate": 2}


def test_of_pubmed_records_of_one_pmid_the_newest_is_kept(tmp_path):
    for name, word in (("a", "first"), ("b", "second")):
        (tmp_path / f"{name}.xml").write_text(
            "<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>99000001</PMID><Article>"
            f"<Abstract><AbstractText>The {word} version of an abstract.</AbstractText></Abstract></Article>"
            "</MedlineCitation></PubmedArticle></PubmedArticleSet>"
        )
    info = prepare([str(tmp_path / "*.xml")], str(tmp_path / "out"), workers=1)
    texts = set.union(*splits_of(tmp_path / "out").values())
    assert texts == {"The second version of an abstract."}
    assert [row["dropped"] for row in info["inputs"]] == [{"superseded": 1}, {}]


def test_dropped_and_repaired_documents_are_counted_by_file_and_reason(tmp_path):
    path = tmp_path / "a.jsonl"
    write(path, {"text": text(1)}, {"text": " \u200b"}, {"text": "short"})
    with open(path, "ab") as file:
        file.write(b"{broken\n" + json.dumps({"text": text(2)}).encode()[:-2] + b'\x81"}\n')
    info = prepare([str(path)], str(tmp_path / "out"), workers=1)
    (counts,) = info["inputs"]
    assert (counts["read"], counts["kept"]) == (5, 2)
    assert counts["dropped"] == {"bad_json": 1, "empty": 1, "too_short": 1}
    assert counts["repaired"] == {"repaired_utf8": 1}


def test_strict_stops_at_damage_and_writes_no_documents_json(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": text(1)}) + "\n{broken\n")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not valid JSON"):
        prepare([str(path)], str(tmp_path / "out"), FilterConfig(strict=True), workers=1)
    with pytest.raises(UserError, match="electramed prepare did not finish"):
        corpus_dir.read_documents_info(str(tmp_path / "out"))


def test_an_error_in_a_worker_process_is_raised_in_the_main_process(tmp_path):
    paths = inputs(tmp_path, count=9)
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"b\.jsonl\.gz: gzip data is damaged"):
        prepare(paths, str(tmp_path / "out"), FilterConfig(strict=True), workers=2)


def test_an_interrupted_run_resumes_and_writes_the_same_bytes(tmp_path, monkeypatch):
    paths = inputs(tmp_path, count=60)
    prepare(paths, str(tmp_path / "uninterrupted"), workers=1)
    read_input = build._read_input
    tasks = []

    def stop_at_the_third(*task):
        tasks.append(task)
        if len(tasks) == 3:
            raise KeyboardInterrupt
        return read_input(*task)

    monkeypatch.setattr(build, "_read_input", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        prepare(paths, str(tmp_path / "out"), workers=1)
    work = tmp_path / "out" / ".work"
    (work / ".lines-00002.gz.1-2.tmp").write_bytes(b"half")
    (tmp_path / "out" / ".documents.json.1-2.tmp").write_bytes(b"half")
    read_paths = []

    def read_and_record(path, *rest, _read=reader.read_documents):
        read_paths.append(path)
        return _read(path, *rest)

    monkeypatch.setattr(reader, "read_documents", read_and_record)
    monkeypatch.setattr(build, "_read_input", read_input)
    prepare(paths, str(tmp_path / "out"), workers=1)
    assert read_paths == paths[2:]
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "uninterrupted")


def test_preparing_again_does_nothing_and_logs_it(tmp_path, capsys):
    paths = inputs(tmp_path, count=9)
    first = prepare(paths, str(tmp_path / "out"), workers=1)
    before = snapshot(tmp_path / "out")
    assert prepare(paths, str(tmp_path / "out"), workers=1) == first
    assert "already prepared" in capsys.readouterr().err
    assert snapshot(tmp_path / "out") == before


def test_another_request_into_the_same_folder_is_refused(tmp_path):
    paths = inputs(tmp_path, count=9)
    prepare(paths, str(tmp_path / "out"), workers=1)
    with pytest.raises(UserError, match="contains documents of another request"):
        prepare(paths, str(tmp_path / "out"), FilterConfig(validation=0.5), workers=1)


def test_a_folder_with_other_contents_is_not_changed(tmp_path):
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "precious").write_text("mine")
    with pytest.raises(UserError, match="contains train, which is not from an interrupted run"):
        prepare(inputs(tmp_path, count=9), str(tmp_path / "out"), workers=1)
    assert (tmp_path / "out" / "train" / "precious").read_text() == "mine"


def test_an_empty_corpus_is_a_user_error_that_counts_the_dropped_documents(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": ""}, {"text": "short"})
    with pytest.raises(UserError, match=r"no document left of 1 files; dropped: .*'empty': 1"):
        prepare([path], str(tmp_path / "out"), workers=1)


@pytest.mark.parametrize("fractions", [(-0.1, 0.1), (0.5, 0.5), (0.1, 2.0), (float("nan"), 0.1)])
def test_invalid_fractions_are_rejected(tmp_path, fractions):
    with pytest.raises(UserError, match="wanted fractions from 0 with a sum below 1"):
        prepare(inputs(tmp_path, 3), str(tmp_path / "o"), FilterConfig(validation=fractions[0], test=fractions[1]))


def test_a_damaged_or_missing_part_is_named_in_the_error(tmp_path):
    prepare(inputs(tmp_path, count=30), str(tmp_path / "out"), FilterConfig(validation=0, test=0), workers=1)
    part = corpus_dir.part_path(str(tmp_path / "out"), "train", 1)
    with open(part, "r+b") as file:
        file.truncate(os.path.getsize(part) - 12)
    with pytest.raises(UserError, match=r"part-00001\.jsonl\.gz: damaged .*prepare the documents"):
        list(corpus_dir.Texts(str(tmp_path / "out")))
    os.remove(part)
    with pytest.raises(UserError, match=r"part-00001\.jsonl\.gz: missing"):
        corpus_dir.read_documents_info(str(tmp_path / "out"))
