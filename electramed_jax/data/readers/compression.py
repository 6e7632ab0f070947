"""Decompression of gzip, bzip2, xz and zstd, recognized by the first bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import Any, BinaryIO, cast

GZIP, BZIP2, XZ, ZSTD = "gzip", "bzip2", "xz", "zstd"
ENDINGS = {".gz": GZIP, ".bz2": BZIP2, ".xz": XZ, ".zst": ZSTD, ".zstd": ZSTD}
DAMAGE = (gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError, ValueError)  # raised while damaged data is read

_MAGIC = {b"\x1f\x8b": GZIP, b"BZh": BZIP2, b"\xfd7zXZ\x00": XZ, b"\x28\xb5\x2f\xfd": ZSTD}
_XZ_MEMORY = 256 << 20  # bytes of the dictionary that the data may need


def strip_ending(name: str) -> str:
    """Returns a file name without the ending of a compression."""
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return f"{name[:-4]}.tar" if name.lower().endswith((".tgz", ".tbz")) else name


def find_kind(start: bytes, name: str) -> str:
    """Returns the compression of a file from its first bytes, or else from its name; "" for none.

    A file that is named .gz and is not gzip is damaged: reading it as gzip reports that.
    """
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    return next((kind for ending, kind in ENDINGS.items() if start and name.lower().endswith(ending)), "")


def has_magic(start: bytes) -> bool:
    """Returns whether the first bytes are those of compressed data."""
    return start.startswith(tuple(_MAGIC))


def open_stream(raw: BinaryIO, kind: str) -> Any:
    """Opens a decompressed stream: `read1` returns the bytes before damage, then raises EOFError or one of DAMAGE."""
    if kind == GZIP:
        return gzip.GzipFile(fileobj=raw)
    if kind == BZIP2:
        return bz2.BZ2File(raw)
    if kind == XZ:
        return _Stream(raw, lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY))
    if kind == ZSTD:
        return _ZstdStream(raw)
    return raw


def join(start: bytes, raw: BinaryIO) -> BinaryIO:
    """Returns a stream of bytes that were taken from `raw`, then of the rest of `raw`."""
    return cast(BinaryIO, _Joined(start, raw))


class _Joined(io.RawIOBase):
    """Reads the bytes that were taken from a stream, then the stream."""

    def __init__(self, start: bytes, raw: BinaryIO):
        self._start, self._raw, self._position = start, raw, 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self._start:
            data, self._start = (self._start, b"") if size < 0 else (self._start[:size], self._start[size:])
            if size < 0:
                data += self._raw.read()
        else:
            data = self._raw.read(size)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Stream:
    """Decompresses pieces of bounded size with an object of `bz2` or `lzma`; several streams may follow each other."""

    def __init__(self, raw: BinaryIO, make: Any):
        self._raw, self._make, self._decompressor, self._rest = raw, make, make(), b""

    def read1(self, size: int) -> bytes:
        """Returns at most `size` bytes; b"" at the end.

        Raises:
          EOFError: the data ends early.
          lzma.LZMAError: the data is damaged, or needs more memory than is allowed.
        """
        while True:
            if self._decompressor.eof:
                self._rest = self._decompressor.unused_data.lstrip(b"\0") or self._raw.read(size).lstrip(b"\0")
                if not self._rest:
                    return b""
                self._decompressor = self._make()
            elif self._decompressor.needs_input and not self._rest:
                self._rest = self._raw.read(size)
                if not self._rest:
                    raise EOFError("compressed data ends early")
            data, self._rest = self._decompressor.decompress(self._rest, size), b""
            if data:
                return data


class _ZstdStream:
    """Decompresses zstd with pyarrow."""

    def __init__(self, raw: BinaryIO):
        import pyarrow as pa

        self._stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        self._buffer = bytearray()

    def read1(self, size: int) -> bytes:
        """Returns at most `size` bytes; b"" at the end.

        Raises:
          EOFError: the data ends early.
          OSError: the data is damaged.
        """
        try:
            # A `read` of pyarrow that fails does not free the bytes that it allocated for the result.
            if len(self._buffer) != size:
                self._buffer = bytearray(size)
            return bytes(memoryview(self._buffer)[: self._stream.readinto(self._buffer)])
        except OSError as error:
            if "Truncated" in str(error):
                raise EOFError("compressed data ends early") from error
            raise
