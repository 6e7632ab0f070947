from __future__ import annotations

import json
import pathlib

import pyarrow as pa
import pytest
from pyarrow import parquet
from read_files import read_file

from electramed_jax.common.errors import UserError

ROWS = [
    {"PMID": 99_000_001, "Title": "One, first", "Abstract": 'Kinases "bind".\nTwice, in mice.', "journal": "J"},
    {"PMID": 99_000_002, "Title": "Two", "Abstract": "Receptors; others.", "journal": "J"},
]


def write_table(folder, ending: str) -> str:
    path = folder / f"a.{ending}"
    columns = list(ROWS[0])
    if ending in ("csv", "tsv"):
        separator = "," if ending == "csv" else "\t"

        def quoted(value: object) -> str:
            return '"' + str(value).replace('"', '""') + '"'

        lines = [separator.join(map(quoted, columns))]
        lines += [separator.join(quoted(row[name]) for name in columns) for row in ROWS]
        path.write_text("\n".join(lines) + "\n")
    elif ending == "json":
        path.write_text(json.dumps(ROWS, indent=1))
    elif ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif ending == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=1)
    else:
        table = pa.Table.from_pylist(ROWS)
        opened = pa.ipc.new_stream if ending == "stream" else pa.ipc.new_file
        with pa.OSFile(str(path), "wb") as file, opened(file, table.schema) as writer:
            writer.write_table(table)
    return str(path)


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet", "arrow", "stream"])
def test_common_names_of_fields_are_found(tmp_path, ending):
    (first, second), drops = read_file(write_table(tmp_path, ending))
    assert first.text.split() == 'One, first Kinases "bind". Twice, in mice.'.split()
    assert [document.pmid for document in (first, second)] == [99_000_001, 99_000_002]
    assert second.title == "Two" and drops == {}


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet", "arrow"])
def test_fields_can_be_named_and_the_error_lists_those_that_exist(tmp_path, ending):
    path = write_table(tmp_path, ending)
    (first, _), _ = read_file(path, text_field="Title", title_field="journal", id_field="PMID")
    assert (first.id, first.title, first.sections[0][1]) == ("99000001", "J", "One, first")
    with pytest.raises(UserError, match=r"no field 'body' for --text_field; it has PMID, Title, Abstract, journal"):
        read_file(path, text_field="body")


def test_abstract_and_body_are_sections_in_this_order(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"full_text": "The body.", "abstract": "The abstract."}) + "\n")
    (document,), _ = read_file(tmp_path / "a.jsonl")
    assert [text for _, text in document.sections] == ["The abstract.", "The body."]


def test_a_table_without_text_is_an_error_that_lists_its_fields(tmp_path):
    (tmp_path / "a.csv").write_text("name,value\nx,1\n")
    with pytest.raises(UserError, match=r"a\.csv: no field with a common name for text; it has name, value; name it"):
        read_file(tmp_path / "a.csv")


def test_rows_with_other_numbers_of_fields_are_counted(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\n1,One text\n2,Two,texts\n3\n4,Four texts\n")
    found, drops = read_file(tmp_path / "a.csv")
    assert [document.id for document in found] == ["1", "4"] and drops == {"bad_row": 2}


def test_a_long_field_is_read(tmp_path):
    (tmp_path / "a.csv").write_text(f'id,text\n1,"{"word " * 60_000}"\n2,short\n')
    found, drops = read_file(tmp_path / "a.csv")
    assert [len(document.text.split()) for document in found] == [60_000, 1] and drops == {}


def test_prose_with_commas_is_no_table(tmp_path):
    (tmp_path / "a.txt").write_text("The abstract, the text.\nIt goes on, and ends.\n\nAnother text, of another.\n")
    found, _ = read_file(tmp_path / "a.txt")
    assert len(found) == 2


def test_a_damaged_parquet_file_is_counted(tmp_path):
    path = write_table(tmp_path, "parquet")
    data = pathlib.Path(path).read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[: len(data) // 2])
    assert read_file(tmp_path / "b.parquet") == ([], {"damaged_table": 1})
