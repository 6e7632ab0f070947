"""Mutated files of every format: each ends as documents and counts, or as one clear error; never in a traceback.

The mutations are seeded: bytes changed, pieces removed, repeated and exchanged, files cut, signs of the formats put in.
Time and memory are bounded for all of them.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import json
import lzma
import pathlib
import random
import tarfile
import time
import tracemalloc
import zipfile

import pyarrow as pa
import pytest
from invented_pubmed import HEAD, TAIL, article
from pyarrow import parquet

from electramed_jax.common.errors import UserError
from electramed_jax.data.readers import formats, reader
from electramed_jax.data.readers.document import ReadOptions

MUTATIONS = 2000
MAX_SECONDS = 5.0
MAX_BYTES = 256 << 20

JATS = (
    '<article xmlns:mml="http://www.w3.org/1998/Math/MathML"><front><article-meta><article-id pub-id-type="pmc">1'
    "</article-id><title-group><article-title>A title</article-title></title-group><abstract><p>An abstract.</p></abstract>"
    '</article-meta></front><body><sec><title>Results</title><p>Text <sup><xref ref-type="bibr">1</xref></sup> and '
    "<mml:math><mml:msup><mml:mi>x</mml:mi><mml:mn>2</mml:mn></mml:msup></mml:math>, <tex-math>$y$</tex-math>.</p>"
    "<fig><label>1</label><caption><p>Caption.</p></caption></fig></sec></body>"
    "<sub-article><body><p>A letter.</p></body></sub-article></article>"
)
PASSAGES = [
    {"infons": {"type": "title"}, "offset": 0, "text": "A title", "sentences": [], "annotations": []},
    {"infons": {"section_type": "INTRO", "type": "paragraph"}, "offset": 8, "sentences": [{"text": "A sentence."}]},
]
PARAGRAPHS = [{"section": "Results", "text": "Some text [1].", "cite_spans": [{"start": 10, "end": 13}]}]
CONTENT = {"text": "A title. Some text.", "annotations": {"title": '[{"start": 0, "end": 8}]', "paragraph": None}}
TABLE = pa.table({"id": ["1", "2"], "title": ["One", "Two"], "text": ["Some text.", "Other text."]})


def to_bytes(write) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def stream(buffer: io.BytesIO) -> None:
    with pa.ipc.new_stream(buffer, TABLE.schema) as writer:
        writer.write_table(TABLE)


def tar(buffer: io.BytesIO) -> None:
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("a.nxml", JATS.encode()), ("b.jsonl", b'{"text": "Some text."}\n')):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def zipped(buffer: io.BytesIO) -> None:
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.nxml", JATS)
        archive.writestr("b.jsonl", '{"text": "Some text."}\n')


LINES = b'{"id": "1", "title": "A title", "text": "Some text.", "year": 1999}\n' * 4
SEEDS: dict[str, bytes] = {
    "pubmed_xml": (HEAD + article() + article(pmid=99_000_002) + TAIL).encode(),
    "jats": f"<pmc-articleset>{JATS}{JATS}</pmc-articleset>".encode(),
    "bioc_xml": b"<collection><source>s</source><document><id>12345</id><passage><infon key='type'>title</infon>"
    b"<offset>0</offset><text>A title</text></passage><passage><sentence><text>One.</text></sentence></passage>"
    b"</document></collection>",
    "bioc_json": json.dumps(
        {"source": "s", "infons": {}, "documents": [{"id": "1", "passages": PASSAGES}] * 2}
    ).encode(),
    "s2orc": (json.dumps({"paper_id": "a", "pdf_parse": {"body_text": PARAGRAPHS}}) + "\n").encode() * 2
    + json.dumps({"corpusid": 7, "content": CONTENT}).encode(),
    "europe_pmc": json.dumps(
        {"resultList": {"result": [{"source": "MED", "pmid": "7", "abstractText": "<h4>Aim</h4>Text &amp; more."}]}}
    ).encode(),
    "semantic_scholar": json.dumps(
        {"data": [{"paperId": "a", "title": "T", "abstract": "Text."}], "total": 1}
    ).encode(),
    "jsonl": LINES,
    "json": json.dumps([{"title": "T", "abstract": "Text."}] * 3, indent=1).encode(),
    "medline": b"PMID- 99000001\nOWN - NLM\nTI  - A title\n      goes on.\nAB  - Text.\nLR  - 20200101\n\nPMID- 7\nTI  - [T].\n",
    "ris": b"TY  - JOUR\nTI  - A title\nAB  - Text.\nDO  - 10.9999/x\nER  - \n" * 2,
    "pubtator": b"1234|t|A title.\n1234|a|Some text.\n1234\t0\t1\tA\tGene\t7\n\n" * 2,
    "parquet": to_bytes(lambda buffer: parquet.write_table(TABLE, buffer)),
    "arrow": to_bytes(stream),
    "tsv": b"id\ttext\n1\tSome text.\n2\tOther text.\n",
    "csv": b'id,title,text\n1,One,"Some, text."\n2,Two,Other text.\n',
    "tar": to_bytes(tar),
    "zip": to_bytes(zipped),
    "markdown": b"# A title\n\nSome *text*, [a link](http://a.b).\n\n## More\n\n- one\n",
    "text": b"Some text\nof two lines.\n\nOther text.\n",
}
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
