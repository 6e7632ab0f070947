"""Tables and JSON lines as they are found, and one-line errors that name file and line."""

from __future__ import annotations

import json

import pytest

from electramed_jax.common.errors import UserError
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
        ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": \n', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", "\n", "a.jsonl: empty"),
    ],
)
def test_what_cannot_be_read_is_named_by_file_and_line(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, name, text)
