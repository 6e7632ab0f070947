"""Documents that `prepare` drops, and their counts: across files, across runs, with any number of groups."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import pytest
from invented_literature import SENTENCE, literature, record, withdrawal, write_jsonl, write_xml
from invented_pubmed import article

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import build, build_near_duplicates, corpus_dir, minhash, stages
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.parallel import shuffle_files
from electramed_jax.data.readers.document import ReadOptions


def ids(folder: pathlib.Path) -> list[str]:
    """Returns the ids of the training documents, part by part."""
    info = corpus_dir.read_documents_info(str(folder))
    parts = [corpus_dir.part_path(str(folder), "train", number) for number in range(len(info["inputs"]))]
    return [document.id.removeprefix("PMID990000") for part in parts for document in corpus_dir.read_part(part)]


def parts_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/part-*"))}


def drops(info: dict) -> list[dict[str, int]]:
    """Returns the counts of dropped records of each input, and checks their sum."""
    for row in info["inputs"]:
        assert row["read"] == row["kept"] + sum(row["dropped"].values())
    return [row["dropped"] for row in info["inputs"]]


def prepare_train(
    inputs: list[str],
    output: pathlib.Path,
    evaluation_files: Sequence[str] = (),
    near_duplicates: float | None = None,
    **config: object,
) -> dict:
    """Prepares documents with all of them in the training split; `config` has other fields of FilterConfig."""
    return prepare(
        inputs,
        str(output),
        FilterConfig(validation=0, test=0, **config),
        workers=1,
        evaluation_files=evaluation_files,
        near_duplicates=near_duplicates,
    )


def test_an_update_replaces_and_withdraws_records_of_earlier_files(tmp_path):
    paths = [
        write_xml(tmp_path / "a.xml", record(11, revised=3), record(12), record(13), record(14)),
        write_xml(tmp_path / "b.xml", record(11, "A later text, though with an earlier date.", revised=2)),
        write_xml(tmp_path / "c.xml", record(12, "The text of number twelve as revised."), withdrawal(13, 14)),
        write_xml(tmp_path / "d.xml", record(14)),
    ]
    info = prepare_train(paths, tmp_path / "out")
    assert ids(tmp_path / "out") == ["11", "12", "14"]
    assert drops(info) == [{"withdrawn": 2, "superseded": 1}, {"superseded": 1}, {}, {}]


def test_a_superseded_record_makes_no_equal_text_a_duplicate(tmp_path):
    same = "A text that is the same word for word in two records of the invented literature."
    old = article(99_000_011, "T.", f"<AbstractText>{same}</AbstractText>")
    other = article(99_000_012, "T.", f"<AbstractText>{same}</AbstractText>")
    paths = [write_xml(tmp_path / "a.xml", old, other), write_xml(tmp_path / "b.xml", record(11))]
    info = prepare_train(paths, tmp_path / "out")
    assert ids(tmp_path / "out") == ["12", "11"]
    assert drops(info) == [{"superseded": 1}, {}]


def test_other_abstracts_are_kept_and_dropped_together_with_their_article(tmp_path):
    other = '<OtherAbstract Language="fre"><AbstractText>Un autre texte, assez long pour rester.</AbstractText>'
    paths = [
        write_xml(
            tmp_path / "a.xml",
            *(record(n, other=f"{other}</OtherAbstract>".replace("Un", f"Un {n}")) for n in (11, 12)),
        ),
        write_xml(tmp_path / "b.xml", record(12, "The text of number twelve as revised.")),
    ]
    info = prepare_train(paths, tmp_path / "out", read_options=ReadOptions(other_abstracts="fre"))
    assert ids(tmp_path / "out") == ["11", "11.fre", "12"]
    assert drops(info) == [{"superseded": 2}, {}]


def test_texts_that_differ_only_in_case_and_punctuation_are_duplicates(tmp_path):
    records = [{"id": "a", "text": SENTENCE.format(1)}, {"id": "b", "text": SENTENCE.format("  1,\n").upper()}]
    info = prepare_train([write_jsonl(tmp_path / "a.jsonl", *records)], tmp_path / "out")
    assert ids(tmp_path / "out") == ["a"]
    assert info["dropped"] == {"duplicate": 1}


@pytest.mark.slow
def test_the_output_does_not_depend_on_the_number_of_groups_and_processes(tmp_path, monkeypatch):
    paths = literature(tmp_path / "in")
    prepare_train(paths, tmp_path / "one", near_duplicates=0.8)
    prepare(paths, str(tmp_path / "two"), FilterConfig(validation=0, test=0), workers=2, near_duplicates=0.8)
    monkeypatch.setattr(build, "DOCUMENTS_PER_GROUP", 60)
    monkeypatch.setattr(shuffle_files, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(stages, "_BATCH_KEYS", 3)
    info = prepare_train(paths, tmp_path / "many", near_duplicates=0.8)
    assert set(info["dropped"]) == {"withdrawn", "superseded", "duplicate", "near_duplicate"}
    assert all(info["dropped"][reason] > 2 for reason in info["dropped"])
    drops(info)
    for other in ("one", "two"):
        assert parts_of(tmp_path / other) == parts_of(tmp_path / "many")
        assert (tmp_path / other / corpus_dir.FILE).read_bytes() == (tmp_path / "many" / corpus_dir.FILE).read_bytes()


def updates(folder: pathlib.Path) -> tuple[list[str], list[str]]:
    """Returns (files, later files that revise and withdraw some of their articles); all texts differ."""
    older = [write_xml(folder / f"{n}.xml", *(record(10 * n + m) for m in range(10))) for n in range(1, 5)]
    older.append(write_xml(folder / "5.xml", record(11, "Number eleven, revised for the first time."), withdrawal(12)))
    newer = [
        write_xml(folder / "6.xml", record(11, "Number eleven, revised again."), record(50), withdrawal(13, 50)),
        write_xml(folder / "7.xml", record(12), record(21, "Number twenty-one, revised."), record(51)),
    ]
    return older, newer


def test_updating_a_folder_gives_the_documents_of_reading_everything_at_once(tmp_path):
    older, newer = updates(tmp_path)
    config = FilterConfig(validation=0.2, test=0.2)
    prepare(older, str(tmp_path / "first"), config, workers=1)
    info = prepare([*newer, str(tmp_path / "first")], str(tmp_path / "second"), config, workers=1)
    prepare(older + newer, str(tmp_path / "at_once"), config, workers=1)
    assert parts_of(tmp_path / "second") == parts_of(tmp_path / "at_once")
    assert len(parts_of(tmp_path / "second")) == 21
    assert [row["file"] for row in info["inputs"]][4:] == ["first/part-00004", "6.xml", "7.xml"]
    assert info["dropped"] == {"withdrawn": 2, "superseded": 2}


def test_a_duplicate_dropped_by_an_earlier_run_is_not_restored_when_the_kept_one_is_withdrawn(tmp_path):
    """Reading everything at once keeps it; the docstring of `build` documents the difference."""
    same = "A text that is the same word for word in two records of the invented literature."
    records = [article(99_000_000 + n, "T.", f"<AbstractText>{same}</AbstractText>") for n in (11, 12)]
    older = [write_xml(tmp_path / "a.xml", *records, record(13))]
    newer = [write_xml(tmp_path / "b.xml", record(14), withdrawal(11))]
    prepare_train(older, tmp_path / "first")
    prepare_train([str(tmp_path / "first"), *newer], tmp_path / "second")
    prepare_train(older + newer, tmp_path / "at_once")
    assert ids(tmp_path / "at_once") == ["12", "13", "14"]
    assert ids(tmp_path / "second") == ["13", "14"]


def test_a_damaged_part_of_an_input_folder_is_an_error(tmp_path):
    older, newer = updates(tmp_path)
    prepare_train(older, tmp_path / "first")
    part = pathlib.Path(corpus_dir.part_path(str(tmp_path / "first"), "train", 2))
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"part-00002\.jsonl\.gz: damaged .*prepare the documents again"):
        prepare_train([str(tmp_path / "first"), *newer], tmp_path / "second")


def test_a_folder_without_finished_documents_is_not_an_input(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is a folder; wanted files"):
        prepare_train([str(tmp_path / "empty")], tmp_path / "out")


def near_copy(text: str) -> str:
    return text.replace("lowered", "reduced", 1)


def test_near_duplicates_are_dropped_only_if_enabled_and_counted_for_their_input(tmp_path):
    long = [" ".join(SENTENCE.format(10 * n + m) for m in range(10)) for n in range(6)]
    a = write_jsonl(tmp_path / "a.jsonl", *({"id": f"a{n}", "text": text} for n, text in enumerate(long)))
    b = write_jsonl(
        tmp_path / "b.jsonl", *({"id": f"b{n}", "text": near_copy(text)} for n, text in enumerate(long[:3]))
    )
    prepare_train([a, b], tmp_path / "all")
    assert len(ids(tmp_path / "all")) == 9
    info = prepare_train([a, b], tmp_path / "few", near_duplicates=0.8)
    assert ids(tmp_path / "few") == ["a0", "a1", "a2", "a3", "a4", "a5"]
    assert drops(info) == [{}, {"near_duplicate": 3}]


def test_all_near_duplicates_in_a_group_larger_than_a_batch_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(minhash, "MAX_COMPARED", 3)
    monkeypatch.setattr(build_near_duplicates, "_COMPARE_BATCH", 2)
    texts = [" ".join([SENTENCE] * times) for times in range(2, 12)]  # different texts with the same shingles
    path = write_jsonl(tmp_path / "a.jsonl", *({"id": str(n), "text": text} for n, text in enumerate(texts)))
    info = prepare_train([path], tmp_path / "out", near_duplicates=0.8)
    assert ids(tmp_path / "out") == ["0"]
    assert info["dropped"] == {"near_duplicate": 9}


def test_documents_in_another_language_are_dropped_and_those_of_unknown_language_are_kept(tmp_path):
    records = [
        {"id": f"{language}", "language": language, "text": SENTENCE.format(language)}
        for language in ("eng", "fre", None)
    ]
    path = write_jsonl(tmp_path / "a.jsonl", *records)
    info = prepare_train([path], tmp_path / "out", languages=("eng", "ger"))
    assert ids(tmp_path / "out") == ["eng", "None"]
    assert info["dropped"] == {"language": 1}
    with pytest.raises(UserError, match="language 'English': wanted three lower-case letters"):
        prepare_train([path], tmp_path / "other", languages=("English",))


def test_documents_that_match_evaluation_files_are_dropped_and_counted_for_each_file(tmp_path):
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
    info = prepare_train(
        paths, tmp_path / "out", evaluation_files=[str(tmp_path / "golden.json"), str(tmp_path / "*.txt")]
    )
    assert ids(tmp_path / "out") == ["13", "14"]
    assert drops(info) == [{"held_out": 3}, {}]
    assert [(e["file"], e["pmids"], e["sentences"], e["held_out"]) for e in info["exclude"]] == [
        ("golden.json", 2, 0, {"pmid": 2, "sentence": 0}),
        ("test.txt", 0, 1, {"pmid": 0, "sentence": 2}),
    ]
    assert all(len(e["sha256"]) == 64 for e in info["exclude"])


def test_a_held_out_version_supersedes_older_ones(tmp_path):
    (tmp_path / "test.txt").write_text(SENTENCE.format(99))
    paths = [
        write_xml(tmp_path / "a.xml", record(11), record(12)),
        write_xml(tmp_path / "b.xml", record(11, SENTENCE.format(99))),
    ]
    info = prepare_train(paths, tmp_path / "out", evaluation_files=[str(tmp_path / "test.txt")])
    assert ids(tmp_path / "out") == ["12"]
    assert drops(info) == [{"superseded": 1}, {"held_out": 1}]


def test_changed_evaluation_files_are_another_request(tmp_path):
    path = write_xml(tmp_path / "a.xml", record(11), record(12))
    (tmp_path / "test.txt").write_text(SENTENCE.format(11))
    options = {"evaluation_files": [str(tmp_path / "test.txt")]}
    prepare_train([path], tmp_path / "out", **options)
    assert prepare_train([path], tmp_path / "out", **options)["dropped"] == {"held_out": 1}
    (tmp_path / "test.txt").write_text(SENTENCE.format(12))
    with pytest.raises(UserError, match="contains documents of another request"):
        prepare_train([path], tmp_path / "out", **options)
