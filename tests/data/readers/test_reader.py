from __future__ import annotations

import gzip
import json
from collections import Counter

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, parse_positive_int


def read(path, strict: bool = False) -> tuple[list[Document], dict[str, int]]:
    drops: Counter = Counter()
    return list(reader.read_documents(str(path), drops, strict)), dict(drops)


def lines(*records) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_jsonl_record_becomes_a_document(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    record = {
        "id": "PMC1",
        "pmid": "123",
        "title": "A title",
        "text": "Some text.",
        "year": 1999,
        "source": "here",
    }
    data = lines(record)
    path.write_bytes(gzip.compress(data) if suffix else data)
    found, drops = read(path)
    assert found == [Document("PMC1", 123, "A title", ((None, "Some text."),), 1999, "here")]
    assert found[0].text == "A title\nSome text."
    assert drops == {}


def test_labelled_sections_are_read_and_are_part_of_the_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({"sections": [["AIM", "To see."], [None, "We saw."]], "title": "T"}))
    (document,), drops = read(path)
    assert document.sections == (("AIM", "To see."), (None, "We saw."))
    assert document.text == "T\nAIM: To see.\nWe saw."
    assert drops == {}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json\n", "bad_json"),
        (b'{"pmid": ' + b"9" * 5000 + b"}\n", "bad_json"),
        (b"[" * 100_000 + b"\n", "bad_json"),
        (b'"a string"\n', "bad_record"),
        (b'{"title": "no text"}\n', "bad_record"),
        (b'{"text": 5}\n', "bad_record"),
        (b'{"sections": [["a", 1]]}\n', "bad_record"),
        (b'{"sections": 7}\n', "bad_record"),
    ],
)
def test_a_bad_line_is_counted_and_the_other_lines_are_used(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines({"text": "first"}) + line + b"\n" + lines({"text": "second"}))
    found, drops = read(path)
    assert [document.text for document in found] == ["first", "second"]
    assert drops == {reason: 1}
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: "):
        read(path, strict=True)


def test_bytes_that_are_not_utf8_are_replaced_and_the_document_is_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "caf\xe9 au lait \xce\xb1"}\n')
    (document,), drops = read(path)
    assert document.text == "caf\ufffd au lait \u03b1"
    assert drops == {"repaired_utf8": 1}
    with pytest.raises(UserError, match=r"line 1: bytes that are not UTF-8"):
        read(path, strict=True)


def test_a_byte_order_mark_inside_a_joined_file_is_ignored(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines({"text": "a"}) + b"\xef\xbb\xbf" + lines({"text": "b"}))
    found, drops = read(tmp_path / "a.jsonl", strict=True)
    assert ([document.text for document in found], drops) == (["a", "b"], {})


def test_a_truncated_gzip_gives_the_documents_before_the_cut(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    # Digits of growing numbers compress badly, so a cut in the middle drops about half of the records.
    records = [{"text": f"{number} {number**9}"} for number in range(2000)]
    whole = gzip.compress(lines(*records))
    path.write_bytes(whole[: len(whole) // 2])
    found, drops = read(path)
    assert 500 < len(found) < 1500
    assert [document.text for document in found] == [r["text"] for r in records[: len(found)]]
    assert drops == {"truncated_gzip": 1}
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: gzip data ends early"):
        read(path, strict=True)


@pytest.mark.parametrize(
    "data",
    [b"this is not a gzip file", gzip.compress(b"x" * 999, mtime=0)[:-8] + b"8" * 8],
    ids=["not gzip", "checksum"],
)
def test_damaged_compression_is_counted(tmp_path, data):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(data)
    assert read(path)[1] == {"damaged_gzip": 1}


def test_blank_lines_separate_the_documents_of_a_text_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\n\none\r\ntwo\n \n\nthree\x81\nfour")
    found, drops = read(path)
    assert [[line.strip() for line in d.text.split("\n")] for d in found] == [
        ["one", "two"],
        ["three\ufffd", "four"],
    ]
    assert drops == {"repaired_utf8": 1}


def test_the_id_of_a_document_without_one_is_a_hash_of_its_text(tmp_path):
    (tmp_path / "a.txt").write_text("same text\n\nother text")
    (tmp_path / "b.jsonl").write_bytes(lines({"text": "same text"}))
    (same, other), _ = read(tmp_path / "a.txt")
    (again,), _ = read(tmp_path / "b.jsonl")
    assert same.id == again.id != other.id


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (12, 12),
        ("12", 12),
        (" 12 ", 12),
        (0, None),
        (-3, None),
        ("x", None),
        (True, None),
        (1.5, None),
        (None, None),
        ("²", None),
        ("9" * 40, None),
    ],
)
def test_only_positive_integers_are_accepted_as_pmids(value, wanted):
    assert parse_positive_int(value) == wanted


def test_an_empty_file_has_no_documents(tmp_path):
    for name in ("a.jsonl", "a.txt", "a.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
        assert read(tmp_path / name) == ([], {})


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "absent.jsonl")
