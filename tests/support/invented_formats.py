"""A small invented file of each input format, by the name of the format."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile

import pyarrow as pa
from invented_pubmed import HEAD, TAIL, article
from pyarrow import parquet

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
