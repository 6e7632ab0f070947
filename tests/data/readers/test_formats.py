"""Recognition of formats by content, compression and archives."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections import Counter

import pyarrow as pa
import pytest
from invented_pubmed import HEAD, TAIL, article
from read_files import read_file

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import formats, reader

PUBMED = HEAD + article() + TAIL
JSONL = '{"text": "Some text."}\n'


COMPRESSIONS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("keep_name", [True, False], ids=["named", "without the ending"])
def test_compressed_files_are_recognized_by_their_bytes(tmp_path, ending, keep_name):
    path = tmp_path / ("a.jsonl" + (ending if keep_name else ""))
    path.write_bytes(COMPRESSIONS[ending](JSONL.encode()))
    (document,), drops = read_file(path)
    assert document.text == "Some text." and drops == {}


@pytest.mark.parametrize("ending", [".bz2", ".xz"])
def test_truncated_compression_is_counted(tmp_path, ending):
    lines = "".join(f'{{"text": "{number} {number**9}"}}\n' for number in range(30_000))
    data = COMPRESSIONS[ending](lines.encode())
    (tmp_path / f"a.jsonl{ending}").write_bytes(data[: len(data) * 3 // 4])
    found, drops = read_file(tmp_path / f"a.jsonl{ending}")
    assert drops == {f"truncated_{ {'.bz2': 'bzip2', '.xz': 'xz'}[ending] }": 1}
    assert 0 < len(found) < 30_000


def test_zstd_is_read_and_a_cut_file_is_counted(tmp_path):
    lines = "".join(f'{{"text": "{number} {number**9}"}}\n' for number in range(3000)).encode()
    data = pa.compress(lines, "zstd", asbytes=True)
    (tmp_path / "a.jsonl.zst").write_bytes(data + data)
    assert len(read_file(tmp_path / "a.jsonl.zst")[0]) == 6000
    (tmp_path / "b.jsonl.zst").write_bytes(data[: len(data) // 2])
    assert read_file(tmp_path / "b.jsonl.zst")[1] == {"truncated_zstd": 1}


def test_the_content_decides_and_a_name_of_another_format_is_reported(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(PUBMED)
    counts: Counter = Counter()
    (document,), _ = read_file(tmp_path / "a.jsonl", counts=counts)
    assert document.pmid == 99_000_001 and counts == {"pubmed_xml": 1}
    assert "the name is that of jsonl, the content is pubmed_xml" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "b.xml").write_text(PUBMED)
    read_file(tmp_path / "b.xml")
    assert capsys.readouterr().err == ""


def test_a_given_format_replaces_the_recognition(tmp_path):
    (tmp_path / "a.data").write_text(JSONL)
    (document,), _ = read_file(tmp_path / "a.data", format="text")
    assert document.text == JSONL.strip()
    with pytest.raises(UserError, match=r"format='pdf': wanted one of pubmed_xml, jats, .*--list_formats"):
        read_file(tmp_path / "a.data", format="pdf")


def test_every_format_has_an_importable_reader_and_is_listed():
    names = [row.name for row in formats.FORMATS]
    assert len(set(names)) == len(names) > 15
    assert all(name in formats.list_formats() for name in names)


def tar_of(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def zip_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


MEMBERS = {
    "a/records.xml": PUBMED.encode(),
    "a/lines.jsonl.gz": gzip.compress(JSONL.encode()),
    "a/README.txt": b"Not a document.",
    "a/picture.png": b"\x89PNG\0\0",
    "../outside.txt": b"A text with a path outside.",
    "inner.tar.gz": b"",
    "unknown.bin": b"\0\1\2",
}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tgz", "a.zip"])
def test_archives_are_read_member_by_member_and_others_are_counted(tmp_path, name):
    mode = {"a.tar": "w", "a.tar.bz2": "w:bz2"}.get(name, "w:gz")
    (tmp_path / name).write_bytes(zip_of(MEMBERS) if name == "a.zip" else tar_of(MEMBERS, mode))
    counts: Counter = Counter()
    found, drops = read_file(tmp_path / name, counts=counts)
    assert [document.id for document in found][:1] == ["PMID99000001"] and found[1].text == "Some text."
    assert counts == {"pubmed_xml": 1, "jsonl": 1}
    assert drops == {"unsafe_member": 1, "nested_archive": 1, "unknown_member": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == [name], "nothing is unpacked"


def test_links_in_an_archive_are_not_followed(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(member)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert read_file(tmp_path / "a.tar") == ([], {"special_member": 1})


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of({"a.txt": b"\n" * (80 << 20)}))
    assert read_file(tmp_path / "a.zip") == ([], {"expands_too_far": 1})


def test_a_cut_archive_gives_the_members_before_the_cut(tmp_path):
    data = tar_of({f"{n}.jsonl": f'{{"text": "Text {n} {n**99}"}}\n'.encode() for n in range(99)})
    (tmp_path / "a.tar.gz").write_bytes(data[: len(data) // 2])
    found, drops = read_file(tmp_path / "a.tar.gz")
    assert 10 < len(found) < 90 and drops == {"truncated_gzip": 1}


def test_markdown_is_one_document_with_its_headings(tmp_path):
    text = "---\na: b\n---\n# A *title*\n\nSome **bold** text with a [link](http://a.b).\nMore.\n\n## Methods\n\n- one\n- two\n"
    (tmp_path / "a.md").write_text(text + "\n```\ncode\n```\n")
    (document,), _ = read_file(tmp_path / "a.md")
    assert document.title == "A title"
    assert document.sections == ((None, "Some bold text with a link. More."), ("Methods", "one\ntwo"))


@pytest.mark.parametrize("data", [b"%PDF-1.7\n\0\1", b"\x7fELF\0\0\0"])
def test_an_unknown_format_lists_the_known_ones(tmp_path, data):
    (tmp_path / "a.pdf").write_bytes(data)
    unusable: list[str] = []
    assert not list(reader.read_documents(str(tmp_path / "a.pdf"), Counter(), unusable=unusable))
    assert "unknown file format; wanted one of pubmed_xml, jats, " in unusable[0] and "--format" in unusable[0]
    with pytest.raises(UserError, match=r"a\.pdf: unknown file format; wanted one of pubmed_xml, jats, .*--format"):
        list(reader.read_documents(str(tmp_path / "a.pdf"), Counter(), strict=True))


def test_a_damaged_member_of_a_zip_affects_only_itself(tmp_path):
    data = zip_of({f"{n}.jsonl": f'{{"text": "Text {n} {n**99}"}}\n'.encode() for n in range(1, 6)})
    damaged = bytearray(data)
    place = data.index(b"3.jsonl") + 12
    damaged[place : place + 8] = b"\xff" * 8
    (tmp_path / "a.zip").write_bytes(damaged)
    found, drops = read_file(tmp_path / "a.zip")
    assert [document.text.split()[1] for document in found] == ["1", "2", "4", "5"] and drops == {"damaged_member": 1}


def test_a_damaged_tar_does_not_end_in_a_traceback(tmp_path):
    data = tar_of({f"{n}.jsonl": f'{{"text": "Text {n}"}}\n'.encode() * 99 for n in range(5)}, "w")
    (tmp_path / "a.tar").write_bytes(data[:5000])
    found, drops = read_file(tmp_path / "a.tar")
    assert found and drops == {"damaged_archive": 1}
