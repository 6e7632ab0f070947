"""Mutated files of every format: each ends as documents and counts, or as one clear error; never in a traceback.

The mutations are seeded: bytes changed, pieces removed, repeated and exchanged, files cut, signs of the formats put in.
Time and memory are bounded for all of them.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import lzma
import pathlib
import random
import time
import tracemalloc

import pyarrow as pa
import pytest
from invented_formats import LINES, SEEDS

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import formats, reader
from electramed_jax.data.readers.document import ReadOptions

MUTATIONS = 2000
MAX_SECONDS = 5.0
MAX_BYTES = 256 << 20

COMPRESSIONS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda d: pa.compress(d, "zstd", asbytes=True),
}
SIGNS = [b"<", b">", b"</article>", b"<!--", b"<![CDATA[", b"]]>", b"&x;", b'"', b"{", b"[", b"]", b"}", b",", b"\0", b"\xff",
         b"\xef\xbb\xbf", b"\n", b"\t", b"|", b"null", b"-1", b"9" * 400, b"1e999", b"PMID- ", b"ER  - ", b"\xed\xa0\x80"]  # fmt: skip


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Returns the data with one to four mutations."""
    for _ in range(rng.randint(1, 4)):
        first = rng.randrange(len(data) + 1)
        end = min(len(data), first + rng.choice((1, 2, 8, 40)))
        kind = rng.randrange(6)
        if kind == 0:
            data = data[:first] + bytes(rng.randrange(256) for _ in range(end - first)) + data[end:]
        elif kind == 1:
            data = data[:first] + data[end:]
        elif kind == 2:
            data = data[:first] + rng.choice(SIGNS) * rng.choice((1, 1, 3)) + data[first:]
        elif kind == 3:
            data = data[:first] + data[first:end] * rng.choice((2, 50)) + data[end:]
        elif kind == 4:
            data = data[:first]
        else:
            data = data[first:] + data[:first]
        if not data:
            return b""
    return data


def outcome(path: pathlib.Path, options: ReadOptions) -> str:
    """Returns how reading ends: "documents", "counted" (none left), "nothing", or "error" (a UserError of one line)."""
    drops: collections.Counter = collections.Counter()
    try:
        found = list(reader.read_documents(str(path), drops, options=options))
    except UserError as error:
        return "error" if "\n" not in str(error) and len(str(error)) < 2000 else "unclear error"
    for document in found:
        document.text.encode("utf-8", "surrogatepass")
    return "documents" if found else "counted" if drops else "nothing"


def check(name: str, data: bytes, tmp_path: pathlib.Path, mutations: int, format: str) -> collections.Counter[str]:
    rng = random.Random(name)
    outcomes: collections.Counter[str] = collections.Counter()
    tracemalloc.start()
    try:
        for number in range(mutations):
            path = tmp_path / f"a.{name}"
            path.write_bytes(mutate(data, rng))
            start = time.monotonic()
            # Half of the files go to the reader even if the mutation hides their format.
            options = ReadOptions(format=format * (number % 2), captions=True, sub_articles=True, full_text="replace")
            outcomes[outcome(path, options)] += 1
            assert time.monotonic() - start < MAX_SECONDS, f"mutation {number}"
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()
    return outcomes


def test_every_format_has_a_seed():
    assert set(SEEDS) == {row.name for row in formats.FORMATS}


@pytest.mark.parametrize("name", SEEDS)
def test_an_unchanged_seed_gives_documents(tmp_path, name):
    ending = "md" if name == "markdown" else "txt" if name == "text" else "dat"
    (tmp_path / f"a.{ending}").write_bytes(SEEDS[name])
    counts: collections.Counter = collections.Counter()
    found = list(reader.read_documents(str(tmp_path / f"a.{ending}"), collections.Counter(), counts=counts))
    assert found and (name in counts or name in ("tar", "zip"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files_end_in_documents_counts_or_one_clear_error(tmp_path, name, capsys):
    outcomes = check(name, SEEDS[name], tmp_path, MUTATIONS, name)
    capsys.readouterr()
    print(name, dict(outcomes))
    assert outcomes.total() == MUTATIONS and outcomes["documents"] > 0 and not outcomes["unclear error"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_mutated_compressed_files_end_in_documents_counts_or_one_clear_error(tmp_path, ending, capsys):
    outcomes = check(f"jsonl.{ending}", COMPRESSIONS[ending](LINES), tmp_path, MUTATIONS, "jsonl")
    capsys.readouterr()
    print(ending, dict(outcomes))
    assert outcomes.total() == MUTATIONS and not outcomes["unclear error"]
