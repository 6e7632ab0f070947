"""Bytes and lines of input files: bounded memory, decompression bombs, encodings, web pages."""

from __future__ import annotations

import gzip
import json
import re
import tracemalloc
from collections import Counter

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import decompression
from electramed_jax.data.readers import byte_stream, jsonl, plain_text, reader
from electramed_jax.data.readers.document import ReadErrors

LINES = ["plain", "", "caf\u00e9 \u03b1\u03b2", "x" * 40, "last"]


def read(path, strict: bool = False):
    drops: Counter = Counter()
    return [document.text for document in reader.read_documents(str(path), drops, strict)], dict(drops)


def jsonl_bytes(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("end", ["", "\n"])
def test_lines_do_not_depend_on_where_the_chunks_of_the_file_end(tmp_path, monkeypatch, chunk_bytes, end):
    monkeypatch.setattr(byte_stream, "_CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "a.txt"
    path.write_text("\n".join(LINES) + end, encoding="utf-8")
    errors = ReadErrors(str(path), Counter(), strict=True, max_line_bytes=40)
    assert list(byte_stream.read_lines(errors)) == [(number, line, "") for number, line in enumerate(LINES, 1)]


@pytest.mark.parametrize("chunk_bytes", [5, 1 << 20])
def test_a_line_over_the_limit_is_counted_and_the_others_are_used(tmp_path, monkeypatch, chunk_bytes):
    monkeypatch.setattr(byte_stream, "_CHUNK_BYTES", chunk_bytes)
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl_bytes("first", "x" * 100, "third", "y" * 100))
    errors = ReadErrors(str(path), Counter(), strict=False, max_line_bytes=99)
    assert [document.text for document in jsonl.read(errors)] == ["first", "third"]
    assert errors.drops == {"long_line": 2}
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: longer than .* MiB; wanted one document per line"):
        list(jsonl.read(ReadErrors(str(path), Counter(), strict=True, max_line_bytes=99)))


@pytest.mark.slow
def test_a_line_of_any_length_is_skipped_in_bounded_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(jsonl_bytes("first") + b'{"text": "')
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n' + jsonl_bytes("last"))
    tracemalloc.start()
    try:
        assert read(path) == (["first", "last"], {"long_line": 1})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20


def test_a_text_without_blank_lines_is_divided_at_a_line_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one two\nthree\nfour\n\nfive\n")
    errors = ReadErrors(str(path), Counter(), strict=False, max_line_bytes=14)
    assert [document.text for document in plain_text.read(errors)] == ["one two\nthree", "four", "five"]
    assert errors.drops == {"repaired_long_text": 1}


def test_a_decompression_bomb_is_stopped_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(decompression, "MIN_EXPANDED_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl.gz"
    bomb = jsonl_bytes("first") + b"x" * (64 << 20)
    path.write_bytes(gzip.compress(bomb))
    errors = ReadErrors(str(path), Counter(), strict=False, max_line_bytes=1 << 20)
    assert [document.text for document in jsonl.read(errors)] == ["first"]
    assert errors.drops == {"expands_too_far": 1}  # and no line that is too long
    assert errors.bytes_read < 32 << 20
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: [\d,]+ bytes expand to more than [\d,]+, over 200 times"):
        read(path, strict=True)


def test_files_that_are_read_whole_have_the_same_rule(tmp_path, monkeypatch):
    monkeypatch.setattr(decompression, "MIN_EXPANDED_BYTES", 1 << 20)
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b" " * (16 << 20)))
    with pytest.raises(UserError, match="as in a decompression bomb"):
        decompression.read_whole(path)
    path.write_bytes(gzip.compress(b"[1]"))
    assert decompression.read_whole(path) == b"[1]"
    path.write_bytes(gzip.compress(b"[1]")[:-4])
    with pytest.raises(UserError, match="gzip data is damaged"):
        decompression.read_whole(path)
    monkeypatch.setattr(decompression, "MAX_WHOLE_BYTES", 2)
    path.write_bytes(b"[1]")
    with pytest.raises(UserError, match="too large to be read whole"):
        decompression.read_whole(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_utf16_and_utf32_are_recognised_and_their_documents_counted(tmp_path, encoding, suffix):
    text = "The alpha subunit \u03b1 and an emoji \U0001f9ec.\n\nA second text.\n"
    data = text.encode(encoding)
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    found, drops = read(path, strict=True)
    assert found == ["The alpha subunit \u03b1 and an emoji \U0001f9ec.", "A second text."]
    assert drops == ({} if encoding == "utf-8-sig" else {"repaired_encoding": 2})


def test_windows_1252_is_recognised_by_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("na\u00efve T cells \u2013 10 \u00b5g\n\nplain".encode("windows-1252"))
    assert read(path) == (["na\u00efve T cells \u2013 10 \u00b5g", "plain"], {"repaired_encoding": 1})
    with pytest.raises(UserError, match=r"line 2: bytes that are not UTF-8"):
        read(path, strict=True)


@pytest.mark.parametrize(
    "data",
    [
        "\u03b1-synuclein\n\n".encode() + b"caf\xe9",  # the file has UTF-8
        b"abc \xce\xb1 caf\xe9",  # the line has UTF-8
        "\u0444\u0430\u043a\u0442\u043e\u0440 \u0440\u043e\u0441\u0442\u0430".encode("cp1251"),  # another alphabet
        b"undefined byte \x81",
    ],
)
def test_other_bytes_that_are_not_utf8_are_replaced(tmp_path, data):
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    found, drops = read(path)
    assert "\ufffd" in found[-1] and drops == {"repaired_utf8": 1}


PAGE = b"<!DOCTYPE html>\n<html><head><title>503</title></head><body>Try later. &nbsp; It is busy.</body></html>"


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gz", "a.jsonl", "a.jsonl.gz", "a.txt", "a.txt.gz"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf \n", b'<?xml version="1.0"?><!-- x -->'])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_web_page_under_the_name_of_a_data_file_is_named(tmp_path, name, start, compressed):
    path = tmp_path / name
    data = start + PAGE
    path.write_bytes(gzip.compress(data) if compressed and name.endswith(".gz") else data)
    unusable: list[str] = []
    drops: Counter = Counter()
    assert list(reader.read_documents(str(path), drops, unusable=unusable)) == []
    assert drops == {"html_page": 1}
    assert unusable == [
        "nothing in it can be used: a web page (HTML), not a data file; download it again (html_page: 1)"
    ]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.txt", b"", "empty"),
        ("a.txt.gz", gzip.compress(b"", mtime=0), "empty"),
        ("a.txt", b" \n\n", "nothing in it can be used: no text in this format"),
        ("a.txt.gz", b"no gzip", r"nothing in it can be used: gzip data is damaged \(.*\) \(damaged_gzip: 1\)"),
        ("a.jsonl", b"{\n{\n", r"nothing in it can be used: not valid JSON \(bad_json: 2\)"),
        (
            "a.jsonl",
            jsonl_bytes("a few words") + b"x" * 9000,
            r"only 0\.25% of it can be used: line 2: not valid JSON \(bad_json: 1\)",
        ),
        (
            "a.xml",
            b"<PubmedArticleSet/>",
            r"nothing in it can be used: contains no PubMed record \(not_pubmed_xml: 1\)",
        ),
    ],
)
def test_a_file_that_yields_almost_nothing_is_unusable_for_a_reason(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    unusable: list[str] = []
    list(reader.read_documents(str(tmp_path / name), Counter(), unusable=unusable))
    (found,) = unusable
    assert re.fullmatch(reason, found), found


def test_a_gzip_file_that_is_damaged_at_its_start_is_unusable(tmp_path):
    # Digits of growing numbers compress badly, so the damage is at 0.7 % of the file.
    data = bytearray(gzip.compress(jsonl_bytes(*(f"{number} {number**9}" for number in range(100_000)))))
    data[17_000:18_000] = bytes(1000)
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(data)
    unusable: list[str] = []
    documents = list(reader.read_documents(str(path), Counter(), unusable=unusable))
    assert documents
    assert "gzip" in unusable[0] and unusable[0].startswith("only 0.")


def test_a_file_with_more_annotations_than_text_is_usable(tmp_path):
    marks = [{"id": str(number), "infons": {}, "text": "x", "locations": []} for number in range(2000)]
    passage = {"offset": 0, "infons": {}, "text": "A short text.", "annotations": marks}
    collection = {"source": "x", "documents": [{"id": "1", "passages": [passage]}]}
    (tmp_path / "a.json").write_text(json.dumps(collection))
    unusable: list[str] = []
    assert len(list(reader.read_documents(str(tmp_path / "a.json"), Counter(), unusable=unusable))) == 1
    assert unusable == []


def test_a_first_line_of_any_length_does_not_change_the_format(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_bytes(jsonl_bytes("word " * 100_000, "second"))
    counts: Counter = Counter()
    assert len(list(reader.read_documents(str(tmp_path / "a.jsonl"), Counter(), counts=counts))) == 2
    assert counts == {"jsonl": 2} and capsys.readouterr().err == ""


def test_a_usable_file_has_no_reason(tmp_path):
    unusable: list[str] = []
    (tmp_path / "a.jsonl").write_bytes(jsonl_bytes("one text", "another text"))
    list(reader.read_documents(str(tmp_path / "a.jsonl"), Counter(), unusable=unusable))
    assert unusable == []


def test_half_a_surrogate_pair_is_replaced_in_every_field(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"id": "\\ud800x", "title": "T\\udfff", "text": "gene \\ud83e\\uddec \\ud800", "source": "\\ud800"}'
    )
    (document,) = reader.read_documents(str(path), Counter(), strict=True)
    assert (document.id, document.title, document.source) == ("\ufffdx", "T\ufffd", "\ufffd")
    assert document.sections == ((None, "gene \U0001f9ec \ufffd"),)


@pytest.mark.slow
def test_no_genuine_file_is_unusable(shared_data):
    folders = ("formats/**/*.*", "pubmed_xml/*/*.xml*", "corpus/*.jsonl.gz")
    paths = [path for pattern in folders for path in sorted(shared_data.glob(pattern)) if path.suffix != ".md"]
    assert len(paths) > 200
    for path in paths:
        unusable: list[str] = []
        list(reader.read_documents(str(path), Counter(), unusable=unusable))
        assert unusable == [], path
