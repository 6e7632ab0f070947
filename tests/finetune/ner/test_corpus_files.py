"""Entity corpora in the forms that their authors distribute: PubTator, brat, JNLPBA, JSON of `datasets`, numeric tags."""

from __future__ import annotations

import json
import pathlib

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.ner import corpus_files
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.ner.words import Span

PUBTATOR = """\
101|t|Atenolol-induced nephritis.
101|a|Two patients took atenolol. Chronic renal
101\t0\t8\tAtenolol\tChemical\tD001262
101\t17\t26\tnephritis\tDisease\tD009393
101\t46\t54\tatenolol\tChemical\tD001262
101\t64\t69\trenal\tDisease\tD007674
101\t56\t69\tChronic renal\tDisease\tD007674
101\tCID\tD001262\tD009393

102|t|A title | with a bar.
102|a|
"""


def read(path: pathlib.Path, text: str, labels: tuple[str, ...] = ()) -> list[Sentence]:
    path.write_bytes(text.encode("utf-8"))
    return corpus_files.read_sentences(str(path), labels)


def entities(sentence: Sentence) -> list[tuple[str, str]]:
    return [(sentence.text[start:stop], kind) for start, stop, kind in sentence.spans]


def test_pubtator_gives_titles_and_abstracts_with_their_entities(tmp_path):
    title, abstract, other = [one for one in read(tmp_path / "train.txt", PUBTATOR) if one.words]
    assert entities(title) == [("Atenolol", "Chemical"), ("nephritis", "Disease")]
    assert title.words == ("Atenolol", "-", "induced", "nephritis", ".")
    assert title.tags == ("B-Chemical", "O", "O", "B-Disease", "O")
    assert entities(abstract) == [("atenolol", "Chemical"), ("Chronic renal", "Disease"), ("renal", "Disease")]
    assert abstract.tags[-2:] == ("B-Disease", "I-Disease") and abstract.num_untaggable == 1
    assert other.text == "A title | with a bar." and (title.line, abstract.line, other.line) == (1, 2, 10)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("17\t26", "18\t27", "train.txt, line 4: the entity is 'nephritis', but the text has 'ephritis.'"),
        ("101\tCID\tD001262\tD009393", "what is this", "train.txt, line 8: 'what is this'"),
    ],
)
def test_damage_in_a_pubtator_file_is_named_by_its_line(tmp_path, old, new, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path / "train.txt", PUBTATOR.replace(old, new))


def write_brat(folder: pathlib.Path, text: str, annotations: str) -> str:
    folder.mkdir()
    (folder / "7.txt").write_bytes(text.encode("utf-8"))
    (folder / "7.ann").write_bytes(annotations.encode("utf-8"))
    return str(folder)


def test_a_folder_of_brat_gives_the_lines_of_its_texts(tmp_path):
    text = "α-Synuclein loss.\n\nAcute renal\nfailure, liver or lung cancer.\n"
    annotations = (
        "T1\tProtein 0 11\tα-Synuclein\nT2\tDisease 19 38\tAcute renal failure\nR1\tCauses Arg1:T1 Arg2:T2\t\n"
        "T3\tDisease 40 45;54 60\tliver cancer\n#1\tAnnotatorNotes T1\tsure\nA1\tNegated T2\n"
    )
    title, body = corpus_files.read_sentences(write_brat(tmp_path / "train", text, annotations))
    assert entities(title) == [("α-Synuclein", "Protein")] and title.line == 1
    assert entities(body) == [("Acute renal\nfailure", "Disease"), ("liver or lung cancer", "Disease")]
    assert body.tags[:3] == ("B-Disease", "I-Disease", "I-Disease") and body.line == 3


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ("T1\tDisease 1 6\tAcute\n", "7.ann, line 1: the entity is 'Acute', but the text has 'cute '"),
        ("T1 Disease 0 5 Acute\n", "7.ann, line 1: 'T1 Disease 0 5 Acute'; wanted T1, a tab"),
    ],
)
def test_damage_in_a_folder_of_brat_is_named_by_file_and_line(tmp_path, annotations, message):
    with pytest.raises(UserError, match=message):
        corpus_files.read_sentences(write_brat(tmp_path / "train", "Acute pain.\n", annotations))


def test_a_folder_of_brat_needs_its_texts(tmp_path):
    folder = write_brat(tmp_path / "train", "Acute pain.\n", "")
    (tmp_path / "train" / "7.txt").unlink()
    with pytest.raises(UserError, match=r"7.ann: no 7.txt next to it"):
        corpus_files.read_sentences(folder)
    with pytest.raises(UserError, match="a folder without .ann files"):
        corpus_files.read_sentences(str(tmp_path))


def test_the_document_marks_of_jnlpba_are_not_words(tmp_path):
    text = "###MEDLINE:95369245\n\nIL-2\tB-DNA\ngene\tI-DNA\n\n###MEDLINE:95333264\n\nThe\tO\n"
    first, second = read(tmp_path / "train.iob2", text)
    assert (first.words, first.tags, second.words) == (("IL-2", "gene"), ("B-DNA", "I-DNA"), ("The",))


@pytest.mark.parametrize("form", ["lines", "list", "data"])
def test_json_of_datasets_and_of_linkbert_is_read_whatever_its_form(tmp_path, form):
    rows = [
        {"id": "0", "tokens": ["Acute", "pain"], "ner_tags": ["B-Disease", "I-Disease"]},
        {"id": "1", "tokens": ["None"], "ner_tags": ["O"]},
    ]
    text = {
        "lines": "\n".join(map(json.dumps, rows)) + "\n",
        "list": json.dumps(rows, indent=1),
        "data": json.dumps({"version": "1", "data": rows}),
    }[form]
    first, second = read(tmp_path / "train.json", text)
    assert (first.words, first.tags, second.words) == (("Acute", "pain"), ("B-Disease", "I-Disease"), ("None",))
    assert (first.line, second.line) == {"lines": (1, 2), "list": (2, 13), "data": (1, 1)}[form]


def test_numbers_as_tags_are_named_by_the_setting(tmp_path):
    text = json.dumps({"tokens": ["Acute", "pain", "of", "IL-2"], "ner_tags": [1, 2, 0, 3]}) + "\n"
    with pytest.raises(UserError, match=r"numbers from 0 to 3; name them.*--config.ner.labels=O,B-TYPE,I-TYPE"):
        read(tmp_path / "train.json", text)
    (sentence,) = read(tmp_path / "train.json", text, ("O", "B-Disease", "I-Disease", "B-Gene", "I-Gene"))
    assert sentence.tags == ("B-Disease", "I-Disease", "O", "B-Gene")
    with pytest.raises(UserError, match="has the tag 3, but config.ner.labels has 2 names"):
        read(tmp_path / "train.json", text, ("O", "B-Disease"))


def test_the_numbers_of_ebm_nlp_are_types(tmp_path):
    text = "Sixty 3\nwomen 2\naged 0\n60 1\nyears 1\n\nwith 0\npain 4\n"
    first, second = read(tmp_path / "train.txt", text)
    assert (first.tags, second.tags) == (("I-3", "I-2", "O", "I-1", "I-1"), ("O", "I-4"))
    first, _ = read(tmp_path / "train.txt", text, ("O", "Age", "Sex", "Sample-size", "Condition"))
    assert first.tags == ("I-Sample-size", "I-Sex", "O", "I-Age", "I-Age")
    (spans,) = read(tmp_path / "train.txt", "Sixty 1\nwomen 1\naged 0\n")
    assert spans.spans == [Span(0, 11, "1")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"tokens": ["a"], "ner_tags": ["O", "O"]}\n', "line 1: 1 words and 2 tags"),
        (
            '{"tokens": ["a"], "ner_tags": ["O"]}\n{"tokens": ["a"], "tag": ["O"]}\n',
            "line 2: an object with tokens, tag",
        ),
        ('{"tokens": ["a"], "ner_tags": ["Disease"]}\n', "line 1: unknown tag 'Disease'"),
        ('{"tokens": [""], "ner_tags": ["O"]}\n', "line 1: a word is empty"),
        ('{"tokens": ["a"], "ner_tags": ["O"]}\n{"tokens"\n', "line 2, column 10: not valid JSON"),
        ("[1]\n", "line 1: 1; wanted an object"),
        ('{"a": 1,\n"b": 2}\n', "line 1: an object with a, b"),
    ],
)
def test_what_cannot_be_read_in_json_is_named_by_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path / "train.json", text)


def test_a_number_among_names_is_named_by_its_line(tmp_path):
    with pytest.raises(UserError, match="train.txt, line 2: the tag 1 is a number, those of other lines are not"):
        read(tmp_path / "train.txt", "a O\nb 1\n")


def test_genuine_pubtator_of_bc5cdr(shared_data):
    sentences = corpus_files.read_sentences(str(shared_data / "formats" / "pubtator" / "CDR_sample.txt"))
    assert len(sentences) == 2 * 50
    kinds = [span.type for sentence in sentences for span in sentence.spans]
    assert (kinds.count("Chemical"), kinds.count("Disease")) == (502, 423)
    assert sum(sentence.num_untaggable for sentence in sentences) < 10
