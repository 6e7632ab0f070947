"""Members of tar and zip archives, read one after the other without unpacking them to disk.

Reasons, for the members that are not used: `unsafe_member` (its path is absolute or leaves the archive),
`special_member` (a link or a device), `nested_archive`, `expands_too_far` (a decompression bomb), `encrypted_member`,
`damaged_member` (of a zip archive), `damaged_archive` (the rest of the archive is not used). Pictures, PDF files and
other files that hold no text for a reader are passed over; a member of unknown format is an `unknown_member`.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import decompression
from electramed_jax.data.readers import byte_stream, compression
from electramed_jax.data.readers.document import ReadErrors

TAR, ZIP = "tar", "zip"
# Errors of the libraries for damaged archives and members. UserError is a ValueError too and is not damage.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)
MEMBER_MARK = "!"  # between the name of an archive and that of its member

_NOT_TEXT = (
    ".jpg", ".jpeg", ".gif", ".png", ".tif", ".tiff", ".bmp", ".eps", ".svg", ".ico", ".pdf", ".ps", ".doc", ".docx",
    ".xls", ".xlsx", ".ppt", ".pptx", ".mov", ".mp3", ".mp4", ".avi", ".wmv", ".mpg", ".mpeg", ".wav", ".flv", ".swf",
    ".css", ".js", ".html", ".htm", ".dtd", ".xsd", ".ent", ".rng", ".md5", ".sha256", ".exe", ".dll", ".so", ".py",
    ".sh", ".pl", ".r",
)  # fmt: skip
_NOT_DOCUMENTS = re.compile(
    r"(?:^|/)(?:licen[cs]e|readme|changes|changelog|manifest|copying|notice)(?:\.\w{1,4})?$|(?:^|/)(?:\.|__MACOSX/)",
    re.IGNORECASE,
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".7z", ".rar")


def read_members(errors: ReadErrors, kind: str) -> Iterator[tuple[str, BinaryIO]]:
    """Yields (name, stream of its bytes) of each file in the archive `errors.path` that may hold text.

    Args:
      errors: the archive; members that are not used are counted here.
      kind: TAR or ZIP.

    Raises:
      UserError: damage, if `errors` is strict.
    """
    try:
        yield from _tar_members(errors) if kind == TAR else _zip_members(errors)
    except UserError:
        raise
    except DAMAGE as error:
        report_damage(errors, error)


def report_damage(errors: ReadErrors, error: Exception) -> None:
    """Counts an archive that cannot be read on, unless its compression was already counted as damaged.

    Raises:
      UserError: if `errors` is strict.
    """
    if not errors.truncated:
        errors.truncated = True
        errors.report_damaged("damaged_archive", 0, f"the archive is damaged ({first_line(error)})")


def _tar_members(errors: ReadErrors) -> Iterator[tuple[str, BinaryIO]]:
    stream = cast(Any, _ChunkStream(byte_stream.read_chunks(errors)))
    with tarfile.open(fileobj=stream, mode="r|", ignore_zeros=False) as archive:
        for member in archive:
            if member.isdir():
                continue
            if not member.isfile():
                errors.report_damaged("special_member", 0, f"member {member.name!r} is a link or a device")
            elif _is_wanted(member.name, errors) and (file := archive.extractfile(member)):
                yield member.name, cast(BinaryIO, file)
            # The list of members would grow with the archive; a stream does not go back to them.
            archive.members = []  # type: ignore[attr-defined]


def _zip_members(errors: ReadErrors) -> Iterator[tuple[str, BinaryIO]]:
    with errors.open() as raw:
        file = raw if raw.seekable() else io.BytesIO(raw.read())
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            expanded, stored = (sum(getattr(m, name) for m in members) for name in ("file_size", "compress_size"))
            # Members of a bomb may share their compressed bytes, so the archive itself is the measure.
            size = min(stored, file.seek(0, io.SEEK_END))
            if decompression.expands_too_far(size, expanded, errors.max_expansion):
                detail = f"{size:,} bytes expand to {expanded:,}; unpack it if it is not a decompression bomb"
                errors.report_damaged("expands_too_far", 0, detail)
                return
            for member in members:
                if member.is_dir():
                    continue
                if (member.external_attr >> 16) & 0o170000 == 0o120000:
                    errors.report_damaged("special_member", 0, f"member {member.filename!r} is a link")
                elif member.flag_bits & 1:
                    errors.report_damaged("encrypted_member", 0, f"member {member.filename!r} is encrypted")
                elif _is_wanted(member.filename, errors):
                    with archive.open(member) as stream:
                        yield member.filename, cast(BinaryIO, stream)


def _is_wanted(name: str, errors: ReadErrors) -> bool:
    lower = name.lower()
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in re.split(r"[/\\]", name):
        errors.report_damaged("unsafe_member", 0, f"member {name!r} has a path outside of the archive")
        return False
    if lower.endswith(_ARCHIVES):
        errors.report_damaged("nested_archive", 0, f"member {name!r} is an archive itself; unpack it")
        return False
    return not (compression.strip_ending(lower).endswith(_NOT_TEXT) or _NOT_DOCUMENTS.search(name))


class _ChunkStream(io.RawIOBase):
    """Reads chunks of bytes as a file that cannot seek."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks, self._rest = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        pieces, length = [self._rest], len(self._rest)
        while size < 0 or length < size:
            chunk = next(self._chunks, b"")
            if not chunk:
                break
            pieces.append(chunk)
            length += len(chunk)
        data = b"".join(pieces)
        size = len(data) if size < 0 else size
        self._rest = data[size:]
        return data[:size]
