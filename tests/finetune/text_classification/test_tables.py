"""Tables and JSON lines as they are found, and one-line errors that name file and line."""

from __future__ import annotations

import json

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.text_classification import tables
from electramed_jax.finetune.text_classification.tables import Columns


def read(tmp_path, name: str, text: str, columns: Columns = tables.DEFAULT_COLUMNS):
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    return tables.read_table(str(path), columns)


def test_blue_is_separated_by_tabs_whatever_its_name_and_quotes_nothing(tmp_path):
    rows = ["\ufeffindex\tsentence\tlabel", '1\tThe "@GENE$ of, x\tCPR:3', "", "2\tb @GENE$.\tfalse", ""]
    (first, second), columns = read(tmp_path, "train.csv", "\r\n".join(rows))
    assert (first.text, first.label, first.line) == ('The "@GENE$ of, x', "CPR:3", 2)
    assert (second.text, second.label, second.line) == ("b @GENE$.", "false", 4)
    assert columns == Columns("sentence", "", "label")


def test_commas_separate_and_quote_where_no_tab_does(tmp_path):
    (record,), _ = read(tmp_path, "train.csv", 'sentence1,sentence2,score\n"a, b",c,3.5\n')
    assert (record.text, record.second, record.label) == ("a, b", "c", "3.5")


def test_json_lines_may_have_lists_of_labels_and_a_second_text(tmp_path):
    rows = [
        {"question": "Is it?", "context": "It is.", "label": "yes"},
        {"question": "So?", "context": "No.", "label": "no"},
    ]
    (record, _), columns = read(tmp_path, "train.jsonl", "\n".join(map(json.dumps, rows)))
    assert (record.text, record.second, record.label) == ("Is it?", "It is.", "yes")
    assert columns == Columns("question", "context", "label")
    (record,), _ = read(tmp_path, "train.jsonl", json.dumps({"text": "a", "labels": ["x", "y"]}))
    assert record.label == ["x", "y"]


def test_columns_can_be_named(tmp_path):
    chosen = Columns("abstract", "", "hallmark")
    (record,), _ = read(tmp_path, "train.tsv", "abstract\tlabel\thallmark\nA b\tno\tyes\n", chosen)
    assert (record.text, record.label) == ("A b", "yes")


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.csv", "sentence\tlabel\nx\tyes\nonly\n", "a.csv, line 3: 1 columns; the header has 2"),
        ("a.csv", "sentence\tlabel\nx\ty\tyes\n", "a.csv, line 2: 3 columns"),
        ("a.csv", "sentence\tlabel\n\tyes\n", "a.csv, line 2: sentence is ''"),
        ("a.tsv", "satz\tlabel\nx\tyes\n", "a.tsv, line 2: no column one of sentence, text.*got satz, label"),
        ("a.tsv", "sentence\tlabel\n", "a.tsv, line 1: only a header"),
        ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": "x"}\n', "a.jsonl, line 2: no label"),
        ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": \n', "a.jsonl, line 2, column 10: not valid JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl, line 1: 1; wanted an object"),
        ("a.jsonl", "\n", "a.jsonl: empty"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, text)


# ---- tables without a header ---------------------------------------------------------------------


def test_in_a_table_without_a_header_the_first_line_is_an_example(tmp_path):
    """GAD of BioBERT: sentence, label."""
    text = (
        "A @GENE$ variant in @DISEASE$ was found.\t1\nNo link of @GENE$ to @DISEASE$ here.\t0\nAn @GENE$ one too.\t1\n"
    )
    records, columns = read(tmp_path, "train.tsv", text)
    assert [(one.label, one.line) for one in records] == [("1", 1), ("0", 2), ("1", 3)]
    assert records[0].text.startswith("A @GENE$ variant") and columns == Columns("1", "", "2")


def test_identifiers_and_a_second_text_are_told_from_the_label(tmp_path):
    """BioASQ of BLURB: id, question, passage, answer."""
    text = "5c1\tIs it a gene or not?\tIt is a gene.\tyes\n5c2\tIs this a drug or not?\tIt is no drug.\tno\n5c3\tIs a b c?\tNo it is not.\tno\n"
    records, columns = read(tmp_path, "train.tsv", text)
    assert columns == Columns("2", "3", "4")
    assert (records[0].text, records[0].second, records[0].label) == ("Is it a gene or not?", "It is a gene.", "yes")


def test_a_number_is_a_label_but_the_number_of_a_line_is_not(tmp_path):
    rows = [f"{number}\tA first sentence {number}.\tA second sentence.\t{number / 7:.2f}" for number in range(1, 9)]
    records, columns = read(tmp_path, "train.tsv", "\n".join(rows))
    assert columns == Columns("2", "3", "4") and records[6].label == "1.00"


def test_columns_without_a_header_can_be_chosen_by_number(tmp_path):
    text = "a b c\tx\tp\nd e f\ty\tq\n"
    records, _ = read(tmp_path, "train.tsv", text, Columns(label="2"))
    assert [one.label for one in records] == ["x", "y"]
    with pytest.raises(UserError, match="train.tsv, line 1: no column kind.*columns are 1, 2, 3"):
        read(tmp_path, "train.tsv", text, Columns(label="kind"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b c\td e f\tg h i\tx\nj k l\tm n o\tp q r\tx\n", "the texts cannot be derived from the columns"),
        ("a b c\td e f\nj k l\tm n o\n", "the label cannot be derived from the columns"),
        ("a\tx\nb\ty\n", "the text cannot be derived"),
        ("satz\tart\na b c d e f g\tx\nh i j k l m n\tx\n", "satz, art looks like a header without a known name"),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "train.tsv", text)


# ---- JSON and folders ----------------------------------------------------------------------------

PUBMEDQA = {
    "101": {
        "QUESTION": "Does it help?",
        "CONTEXTS": ["It was tried. ", "It helped."],
        "LABELS": ["METHODS", "RESULTS"],
        "LONG_ANSWER": "It helps.",
        "final_decision": "yes",
    },
    "102": {"QUESTION": "So?", "CONTEXTS": ["No."], "LABELS": [], "LONG_ANSWER": "Not so.", "final_decision": "maybe"},
}


@pytest.mark.parametrize(("second", "wanted"), [("", "It was tried. It helped."), ("long_answer", "It helps.")])
def test_pubmedqa_as_its_authors_distribute_it(tmp_path, second, wanted):
    records, columns = read(tmp_path, "train.json", json.dumps(PUBMEDQA, indent=4), Columns(second=second))
    assert columns == Columns("question", second or "context", "final_decision")
    assert [(one.text, one.label, one.line) for one in records] == [("Does it help?", "yes", 2), ("So?", "maybe", 15)]
    assert records[0].second == wanted


def test_pubmedqa_as_datasets_nests_it(tmp_path):
    rows = [
        {
            "pubid": 101,
            "question": "Does it help?",
            "context": {"contexts": ["It was tried.", "It helped."], "labels": ["METHODS", "RESULTS"], "meshes": ["A"]},
            "long_answer": "It helps.",
            "final_decision": "yes",
        }
    ]
    (record,), _ = read(tmp_path, "train.json", json.dumps(rows[0]))
    assert (record.text, record.second, record.label) == ("Does it help?", "It was tried. It helped.", "yes")


def test_yes_no_questions_of_bioasq_have_all_their_snippets(tmp_path):
    questions = [
        {"id": "a", "type": "factoid", "body": "Which?", "exact_answer": [["x"]], "snippets": [{"text": "x"}]},
        {
            "id": "b",
            "type": "yesno",
            "body": "Is it?",
            "exact_answer": "Yes",
            "snippets": [{"text": "It"}, {"text": "is."}],
        },
        {"id": "c", "type": "yesno", "body": "So?", "exact_answer": ["no"], "snippets": [{"text": "No."}]},
    ]
    records, columns = read(tmp_path, "train.json", json.dumps({"questions": questions}, indent=1))
    assert columns == Columns("question", "context", "label")
    assert [(one.text, one.second, one.label) for one in records] == [("Is it?", "It is.", "yes"), ("So?", "No.", "no")]
    with pytest.raises(UserError, match="no question of type yesno"):
        read(tmp_path, "train.json", json.dumps({"questions": questions[:1]}))


def test_genuine_yes_no_questions_in_the_form_of_squad(shared_data):
    path = shared_data / "eval" / "qa" / "BioASQ-7b" / "huggingBioASQ" / "test" / "BioASQ-test-yesno.json"
    records, columns = tables.read_table(str(path))
    assert columns == Columns("question", "context", "label")
    assert {one.label for one in records} == {"yes", "no"} and len(records) > 100


@pytest.mark.slow
def test_genuine_yes_no_questions_of_bioasq(shared_data):
    path = shared_data / "eval" / "qa" / "BioASQ-7b" / "rebuilt" / "training7b-reconstructed.json.gz"
    records, _ = tables.read_table(str(path))
    assert {one.label for one in records} == {"yes", "no"} and len(records) > 500


def test_linkberts_json_has_a_row_per_line(tmp_path):
    rows = [{"id": "0", "sentence": "a @GENE$ b", "label": "CPR:3"}, {"id": "1", "sentence": "c", "label": "0"}]
    records, _ = read(tmp_path, "train.json", "\n".join(map(json.dumps, rows)))
    assert [(one.text, one.label, one.line) for one in records] == [("a @GENE$ b", "CPR:3", 1), ("c", "0", 2)]


@pytest.mark.parametrize("label", [[0, 1, 0, 1], "[0, 1, 0, 1]", "[0 1 0 1]", [False, True, False, True]])
def test_a_list_of_zeros_and_ones_names_the_places_of_the_ones(tmp_path, label):
    text = "\n".join(json.dumps({"sentence": "a b", "label": one}) for one in (label, [0, 0, 0, 0]))
    first, second = read(tmp_path, "train.json", text)[0]
    assert (first.label, second.label) == (["1", "3"], [])


def test_mednli_has_a_gold_label(tmp_path):
    row = {"sentence1": "No fever.", "pairID": "23eb", "sentence2": "He has fever.", "gold_label": "contradiction"}
    (record,), columns = read(tmp_path, "mli_train_v1.jsonl", json.dumps(row))
    assert columns == Columns("sentence1", "sentence2", "gold_label") and record.label == "contradiction"


def test_a_quoted_text_may_have_several_lines_and_any_length(tmp_path):
    long = "word " * 100_000
    rows, _ = read(tmp_path, "train.csv", f'text,label\n"two\nlines",x\n"{long}",y\n')
    assert [(row.text, row.line) for row in rows] == [("two\nlines", 2), (long.strip(), 4)]


def test_a_line_over_the_limit_is_an_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(split_files, "MAX_LINE_BYTES", 20)
    with pytest.raises(UserError, match=r"a\.tsv, line 2: longer than .* MiB; wanted one record per line"):
        read(tmp_path, "a.tsv", "text\tlabel\n" + "x" * 30 + "\ty\n")


def test_a_quotation_mark_without_an_end_does_not_swallow_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 200)
    with pytest.raises(UserError, match=r"a\.csv, line 3: field larger .*; look for a quotation mark without an end"):
        read(tmp_path, "a.csv", 'text,label\nx,y\n"z,y\n' + "long,y\n" * 100)


@pytest.mark.parametrize(
    "data", ["text\tlabel\ncaf\xe9\tx\n".encode("latin-1"), "text\tlabel\nx\ty\n".encode("utf-16")]
)
def test_a_table_in_another_encoding_is_an_error_that_names_the_line(tmp_path, data):
    (tmp_path / "a.tsv").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tsv, line [12]: not UTF-8 text \(byte \d of the line\); convert it"):
        tables.read_table(str(tmp_path / "a.tsv"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, "line 2: lists and objects are nested more than 100 deep"),
        (
            '{"text": "x", "label": ' + "9" * 5000 + "}",
            "line 2: not valid JSON .it has a whole number of thousands of digits",
        ),
    ],
    ids=["nested", "huge"],
)
def test_json_that_python_does_not_parse_is_an_error_that_names_the_line(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, "a.jsonl", '{"text": "x", "label": "y"}\n' + line)


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    row = r'{"text": "gene \ud83e\uddec \ud800 \\ud800", "label": "\udfffy"}'
    (record,), _ = read(tmp_path, "a.jsonl", row)
    assert (record.text, record.label) == ("gene \U0001f9ec \ufffd \\ud800", "\ufffdy")


def write_hoc(folder):
    for name in ("text", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "text" / "11.txt").write_text("Cells grew .\nThey moved .\nNo more .\n")
    (folder / "labels" / "11.txt").write_text(
        "< Resisting cell death--Apoptosis ANDCellular energetics--<Resisting cell death--< "
    )
    (folder / "text" / "12.txt").write_text("A method .\n")
    (folder / "labels" / "12.txt").write_text("< ")
    return folder


def test_the_folders_of_hoc_give_a_record_per_abstract(tmp_path):
    records, columns = tables.read_table(str(write_hoc(tmp_path / "train")))
    assert columns == Columns("text", "", "labels")
    assert [one.label for one in records] == [["cellular energetics", "resisting cell death"], []]
    assert records[0].text == "Cells grew . They moved . No more ."


def test_labels_of_another_number_of_sentences_are_named_by_their_file(tmp_path):
    folder = write_hoc(tmp_path / "train")
    (folder / "labels" / "12.txt").write_text("< < ")
    with pytest.raises(UserError, match=r"labels/12.txt, line 1: labels of 2 sentences; text/12.txt has 1"):
        tables.read_table(str(folder))
    with pytest.raises(UserError, match=r"a folder; wanted a file, or a folder with text/ and labels/"):
        tables.read_table(str(tmp_path))
