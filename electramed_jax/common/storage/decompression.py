"""Files that are read whole, gzip or plain, with a bound on their size; the rule against decompression bombs."""

from __future__ import annotations

import gzip
import os
import zlib

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

# Bytes after decompression per byte of a file. Text has 3 to 20; one repeated byte has 1,032, the most in gzip.
MAX_EXPANSION = 200
MIN_EXPANDED_BYTES = 64 << 20  # the expansion is checked from this size on
MAX_WHOLE_BYTES = 1 << 30  # of a file that is read whole, after decompression

_GZIP_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 1 << 20


def expands_too_far(compressed: int, expanded: int, max_expansion: float = MAX_EXPANSION) -> bool:
    """Returns whether the ratio of expanded to compressed bytes is that of a decompression bomb."""
    return expanded > MIN_EXPANDED_BYTES and expanded > max_expansion * compressed


def read_whole(path: str | os.PathLike) -> bytes:
    """Returns the content of a file, decompressed if it is gzip.

    Raises:
      UserError: the file is missing, its gzip data is damaged, or it is too large to be read whole.
    """
    with files.open_read(path) as raw:
        is_gzip = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        raw.seek(0)
        stream = gzip.GzipFile(fileobj=raw) if is_gzip else raw
        chunks, size = [], 0
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                chunks.append(chunk)
                size += len(chunk)
                if is_gzip and expands_too_far(raw.tell(), size):
                    raise UserError(
                        f"{path}: {raw.tell():,} bytes expand to more than {size:,}, over {MAX_EXPANSION} times as "
                        "many, as in a decompression bomb; if the file is genuine, decompress it first"
                    )
                if size > MAX_WHOLE_BYTES:
                    raise UserError(
                        f"{path}: more than {MAX_WHOLE_BYTES >> 20:,} MiB, too large to be read whole; divide the file"
                    )
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: gzip data is damaged ({error}); download the file again") from error
    return b"".join(chunks)
