"""What `prepare` drops, and how it tells: across files, across runs, in however many groups it is decided."""

from __future__ import annotations

import json
import pathlib

import pytest
from invented_literature import SENTENCE, literature, record, withdrawal, write_jsonl, write_xml
from invented_pubmed import article

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import build as build_documents
from electramed_jax.data.corpus import build_near_duplicates, corpus_dir, stages
from electramed_jax.data.corpus import minhash as near_duplicates
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.parallel import shuffle_files


def ids(folder: pathlib.Path) -> list[str]:
    """Ids of the training documents, part by part."""
    account = corpus_dir.read_documents_info(str(folder))
    parts = [corpus_dir.part_path(str(folder), "train", number) for number in range(len(account["inputs"]))]
    return [document.id.removeprefix("PMID990000") for part in parts for document in corpus_dir.read_part(part)]


def parts_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/part-*"))}


def drops(account: dict) -> list[dict[str, int]]:
    for of_file in account["inputs"]:
        assert of_file["read"] == of_file["kept"] + sum(of_file["dropped"].values())
    return [of_file["dropped"] for of_file in account["inputs"]]


def whole(inputs: list[str], output: pathlib.Path, **options: object) -> dict:
    return prepare(inputs, str(output), validation=0, test=0, workers=1, **options)


def test_an_update_replaces_and_withdraws_what_earlier_files_hold(tmp_path):
    paths = [
        write_xml(tmp_path / "a.xml", record(11, revised=3), record(12), record(13), record(14)),
        write_xml(tmp_path / "b.xml", record(11, "A later text, though of an earlier day.", revised=2)),
        write_xml(tmp_path / "c.xml", record(12, "The text of number twelve as revised."), withdrawal(13, 14)),
        write_xml(tmp_path / "d.xml", record(14)),
    ]
    account = whole(paths, tmp_path / "out")
    assert ids(tmp_path / "out") == ["11", "12", "14"]
    assert drops(account) == [{"withdrawn": 2, "superseded": 1}, {"superseded": 1}, {}, {}]


def test_what_lost_to_a_newer_version_takes_no_other_text_with_it(tmp_path):
    same = "A text that stands word for word in two records of the invented literature."
    old = article(99_000_011, "T.", f"<AbstractText>{same}</AbstractText>")
    other = article(99_000_012, "T.", f"<AbstractText>{same}</AbstractText>")
    paths = [write_xml(tmp_path / "a.xml", old, other), write_xml(tmp_path / "b.xml", record(11))]
    account = whole(paths, tmp_path / "out")
    assert ids(tmp_path / "out") == ["12", "11"]
    assert drops(account) == [{"superseded": 1}, {}]


def test_further_abstracts_of_an_article_stay_beside_it_and_go_with_it(tmp_path):
    from electramed_jax.data.readers.document import PubmedOptions

    other = '<OtherAbstract Language="fre"><AbstractText>Un autre texte, assez long pour rester.</AbstractText>'
    paths = [
        write_xml(
            tmp_path / "a.xml",
            *(record(n, other=f"{other}</OtherAbstract>".replace("Un", f"Un {n}")) for n in (11, 12)),
        ),
        write_xml(tmp_path / "b.xml", record(12, "The text of number twelve as revised.")),
    ]
    account = whole(paths, tmp_path / "out", reading=PubmedOptions(other_abstracts="fre"))
    assert ids(tmp_path / "out") == ["11", "11.fre", "12"]
    assert drops(account) == [{"superseded": 2}, {}]


def test_texts_that_differ_in_case_and_punctuation_only_are_one(tmp_path):
    records = [{"id": "a", "text": SENTENCE.format(1)}, {"id": "b", "text": SENTENCE.format("  1,\n").upper()}]
    account = whole([write_jsonl(tmp_path / "a.jsonl", *records)], tmp_path / "out")
    assert ids(tmp_path / "out") == ["a"]
    assert account["dropped"] == {"duplicate": 1}


def test_the_number_of_groups_and_of_processes_changes_nothing(tmp_path, monkeypatch):
    paths = literature(tmp_path / "in")
    whole(paths, tmp_path / "one", near_duplicates=0.8)
    prepare(paths, str(tmp_path / "two"), validation=0, test=0, workers=2, near_duplicates=0.8)
    monkeypatch.setattr(build_documents, "DOCUMENTS_PER_GROUP", 60)
    monkeypatch.setattr(shuffle_files, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(stages, "_KEYS_AT_ONCE", 3)
    account = whole(paths, tmp_path / "many", near_duplicates=0.8)
    assert set(account["dropped"]) == {"withdrawn", "superseded", "duplicate", "near_duplicate"}
    assert all(account["dropped"][reason] > 2 for reason in account["dropped"])
    drops(account)
    for other in ("one", "two"):
        assert parts_of(tmp_path / other) == parts_of(tmp_path / "many")
        assert (tmp_path / other / corpus_dir.FILE).read_bytes() == (tmp_path / "many" / corpus_dir.FILE).read_bytes()


def updates(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """(files, later files that revise and withdraw some of their articles); no two articles of equal text."""
    older = [write_xml(folder / f"{n}.xml", *(record(10 * n + m) for m in range(10))) for n in range(1, 5)]
    older.append(write_xml(folder / "5.xml", record(11, "Number eleven, revised for the first time."), withdrawal(12)))
    newer = [
        write_xml(folder / "6.xml", record(11, "Number eleven, revised once more."), record(50), withdrawal(13, 50)),
        write_xml(folder / "7.xml", record(12), record(21, "Number twenty-one, revised."), record(51)),
    ]
    return older, newer


def test_a_folder_brought_up_to_date_holds_what_reading_everything_at_once_gives(tmp_path):
    older, newer = updates(tmp_path)
    options = {"validation": 0.2, "test": 0.2, "workers": 1}
    prepare(older, str(tmp_path / "first"), **options)
    account = prepare([*newer, str(tmp_path / "first")], str(tmp_path / "second"), **options)
    prepare(older + newer, str(tmp_path / "at_once"), **options)
    assert parts_of(tmp_path / "second") == parts_of(tmp_path / "at_once")
    assert len(parts_of(tmp_path / "second")) == 21
    assert [of_file["file"] for of_file in account["inputs"]][4:] == ["first/part-00004", "6.xml", "7.xml"]
    assert account["dropped"] == {"withdrawn": 2, "superseded": 2}


def test_a_text_whose_other_copy_was_dropped_in_an_earlier_run_goes_when_its_article_is_withdrawn(tmp_path):
    """The one thing that reading everything at once would keep: the docstring of `build_documents` says so."""
    same = "A text that stands word for word in two records of the invented literature."
    records = [article(99_000_000 + n, "T.", f"<AbstractText>{same}</AbstractText>") for n in (11, 12)]
    older = [write_xml(tmp_path / "a.xml", *records, record(13))]
    newer = [write_xml(tmp_path / "b.xml", record(14), withdrawal(11))]
    whole(older, tmp_path / "first")
    whole([str(tmp_path / "first"), *newer], tmp_path / "second")
    whole(older + newer, tmp_path / "at_once")
    assert ids(tmp_path / "at_once") == ["12", "13", "14"]
    assert ids(tmp_path / "second") == ["13", "14"]


def test_a_damaged_part_of_a_folder_stops_a_run_that_would_read_it(tmp_path):
    older, newer = updates(tmp_path)
    whole(older, tmp_path / "first")
    part = pathlib.Path(corpus_dir.part_path(str(tmp_path / "first"), "train", 2))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"part-00002\.jsonl\.gz: damaged .*prepare the documents again"):
        whole([str(tmp_path / "first"), *newer], tmp_path / "second")


def test_a_folder_that_is_no_finished_documents_folder_is_no_input(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a folder; wanted files"):
        whole([str(tmp_path / "empty")], tmp_path / "out")


def near_copy(text: str) -> str:
    return text.replace("lowered", "reduced", 1)


def test_near_duplicates_go_only_when_asked_and_are_counted_where_they_stood(tmp_path):
    long = [" ".join(SENTENCE.format(10 * n + m) for m in range(10)) for n in range(6)]
    a = write_jsonl(tmp_path / "a.jsonl", *({"id": f"a{n}", "text": text} for n, text in enumerate(long)))
    b = write_jsonl(
        tmp_path / "b.jsonl", *({"id": f"b{n}", "text": near_copy(text)} for n, text in enumerate(long[:3]))
    )
    whole([a, b], tmp_path / "all")
    assert len(ids(tmp_path / "all")) == 9
    account = whole([a, b], tmp_path / "few", near_duplicates=0.8)
    assert ids(tmp_path / "few") == ["a0", "a1", "a2", "a3", "a4", "a5"]
    assert drops(account) == [{}, {"near_duplicate": 3}]


def test_more_near_duplicates_of_one_text_than_are_compared_at_once_are_all_found(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "COMPARED", 3)
    monkeypatch.setattr(build_near_duplicates, "_COMPARED_AT_ONCE", 2)
    texts = [" ".join([SENTENCE] * times) for times in range(2, 12)]  # another text each time, of the same shingles
    path = write_jsonl(tmp_path / "a.jsonl", *({"id": str(n), "text": text} for n, text in enumerate(texts)))
    account = whole([path], tmp_path / "out", near_duplicates=0.8)
    assert ids(tmp_path / "out") == ["0"]
    assert account["dropped"] == {"near_duplicate": 9}


def test_documents_known_to_be_in_another_language_go_and_those_of_unknown_language_stay(tmp_path):
    records = [
        {"id": f"{language}", "language": language, "text": SENTENCE.format(language)}
        for language in ("eng", "fre", None)
    ]
    path = write_jsonl(tmp_path / "a.jsonl", *records)
    account = whole([path], tmp_path / "out", languages=["eng", "ger"])
    assert ids(tmp_path / "out") == ["eng", "None"]
    assert account["dropped"] == {"language": 1}
    with pytest.raises(UserError, match="language 'English': wanted three small letters"):
        whole([path], tmp_path / "other", languages=["English"])


def test_what_evaluation_files_hold_goes_and_each_file_tells_what_it_took(tmp_path):
    sentence = SENTENCE.format(12)
    tokens = tmp_path / "test.txt"
    tokens.write_text("\n".join(f"{token} O" for token in sentence.replace(",", " ,").split()) + "\n\nShort O\n")
    golden = tmp_path / "golden.json"
    question = {"documents": [f"http://www.ncbi.nlm.nih.gov/pubmed/{99_000_000 + n}" for n in (11, 12)]}
    golden.write_text(json.dumps({"questions": [question]}))
    paths = [
        write_xml(
            tmp_path / "a.xml", record(11), record(12), record(13), record(14, f"It began. {sentence} It ended.")
        ),
        write_xml(tmp_path / "b.xml", record(14, "Number fourteen without the sentence it had.")),
    ]
    account = whole(paths, tmp_path / "out", exclude=[str(tmp_path / "golden.json"), str(tmp_path / "*.txt")])
    assert ids(tmp_path / "out") == ["13", "14"]
    assert drops(account) == [{"held_out": 3}, {}]
    assert [(e["file"], e["pmids"], e["sentences"], e["held_out"]) for e in account["exclude"]] == [
        ("golden.json", 2, 0, {"pmid": 2, "sentence": 0}),
        ("test.txt", 0, 1, {"pmid": 0, "sentence": 2}),
    ]
    assert all(len(e["sha256"]) == 64 for e in account["exclude"])


def test_a_held_out_version_leaves_no_older_one_behind(tmp_path):
    (tmp_path / "test.txt").write_text(SENTENCE.format(99))
    paths = [
        write_xml(tmp_path / "a.xml", record(11), record(12)),
        write_xml(tmp_path / "b.xml", record(11, SENTENCE.format(99))),
    ]
    account = whole(paths, tmp_path / "out", exclude=[str(tmp_path / "test.txt")])
    assert ids(tmp_path / "out") == ["12"]
    assert drops(account) == [{"superseded": 1}, {"held_out": 1}]


def test_other_evaluation_files_are_another_request(tmp_path):
    path = write_xml(tmp_path / "a.xml", record(11), record(12))
    (tmp_path / "test.txt").write_text(SENTENCE.format(11))
    options = {"exclude": [str(tmp_path / "test.txt")]}
    whole([path], tmp_path / "out", **options)
    assert whole([path], tmp_path / "out", **options)["dropped"] == {"held_out": 1}
    (tmp_path / "test.txt").write_text(SENTENCE.format(12))
    with pytest.raises(UserError, match="holds documents of another request"):
        whole([path], tmp_path / "out", **options)
