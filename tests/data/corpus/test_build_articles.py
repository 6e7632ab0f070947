"""Full texts and abstracts of the same article: deduplication by identifiers, `full_text`, lines of one form."""

from __future__ import annotations

import gzip
import json
import pathlib
import re

import pytest
from invented_literature import SENTENCE, record, write_jsonl, write_xml

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.readers.document import Document, ReadOptions

JATS = (
    """<article xmlns:xlink="http://www.w3.org/1999/xlink"><front><article-meta>{ids}
<title-group><article-title>Full title {n}.</article-title></title-group>
<permissions><license xlink:href="http://creativecommons.org/licenses/by/4.0/"/></permissions>
<abstract><p>Abstract of the full text {n}.</p></abstract></article-meta></front>
<body><p>"""
    + SENTENCE
    + """ Body {n} of a full text.</p></body></article>"""
)
IDENTIFIERS = '<PubmedData><ArticleIdList><ArticleId IdType="{}">{}</ArticleId></ArticleIdList></PubmedData>'
PUBMED_DATA = '<PubmedData><ArticleIdList><ArticleId IdType="pubmed">1</ArticleId></ArticleIdList></PubmedData>'


def full_text(number: int, **ids: str) -> str:
    elements = "".join(f'<article-id pub-id-type="{kind}">{value}</article-id>' for kind, value in ids.items())
    return JATS.format(number, ids=elements, n=number)


@pytest.fixture
def inputs(tmp_path) -> list[str]:
    """PubMed records 11 to 15; full texts of 12 by PMID, 13 by PMCID, without an abstract, 14 by DOI, 19 without a record,
    and one again.
    """
    records = [
        record(11),
        record(12),
        record(13).replace(PUBMED_DATA, IDENTIFIERS.format("pmc", "PMC13")),
        record(14).replace(PUBMED_DATA, IDENTIFIERS.format("doi", "10.9999/X.14")),
        record(15),
    ]
    articles = [
        full_text(12, pmid="99000012"),
        re.sub("<abstract>.*</abstract>", "", full_text(13, pmc="13")),
        full_text(14, doi="10.9999/x.14"),
        full_text(19, pmc="19", doi="10.9999/x.19"),
    ]
    abstract = {"paperId": "a", "externalIds": {"PubMed": "99000015"}, "abstract": SENTENCE.format(15) + " Again."}
    (tmp_path / "b.xml").write_text(f"<pmc-articleset>{''.join(articles)}</pmc-articleset>")
    (tmp_path / "c.nxml").write_text(full_text(29, doi="10.9999/x.19"))
    (tmp_path / "d.json").write_text(json.dumps([abstract]))
    plain = write_jsonl(tmp_path / "e.jsonl", {"id": "plain", "pmid": 99_000_012, "text": SENTENCE.format(77)})
    pubmed = write_xml(tmp_path / "a.xml", *records)
    return [pubmed, *(str(tmp_path / name) for name in ("b.xml", "c.nxml", "d.json")), plain]


def build(inputs: list[str], output: pathlib.Path, rule: str, **how: object) -> tuple[list[Document], dict]:
    config = FilterConfig(validation=0, test=0, read_options=ReadOptions(full_text=rule))
    info = prepare(inputs, str(output), config, **(how or {"workers": 1}))
    parts = [corpus_dir.part_path(str(output), "train", number) for number in range(len(info["inputs"]))]
    return [document for part in parts for document in corpus_dir.read_part(part)], info


RECORDS = [f"PMID990000{number}" for number in range(11, 16)]


@pytest.mark.parametrize(
    ("rule", "wanted", "dropped"),
    [
        ("both", [*RECORDS, "PMID99000012", "PMC13", "doi:10.9999/x.14", "PMC19", "plain"], {"same_article": 2}),
        (
            "replace",
            [RECORDS[0], RECORDS[4], "PMID99000012", "PMC13", "doi:10.9999/x.14", "PMC19", "plain"],
            {"has_full_text": 3, "same_article": 2},
        ),
        (
            "append",
            [RECORDS[0], RECORDS[2], RECORDS[4], "PMID99000012", "PMC13", "doi:10.9999/x.14", "PMC19", "plain"],
            {"has_full_text": 2, "same_article": 2},
        ),
    ],
)
def test_an_article_is_found_by_each_of_its_identifiers(inputs, tmp_path, rule, wanted, dropped):
    found, info = build(inputs, tmp_path / "out", rule)
    assert [document.id for document in found] == wanted
    assert info["dropped"] == dropped
    for row in info["inputs"]:
        assert row["read"] == row["kept"] + sum(row["dropped"].values())
    texts = {document.id: document.text for document in found if document.kind == "full_text"}
    assert {name for name, text in texts.items() if "Abstract of the full text" not in text} == {"PMC13"}
    assert {name for name, text in texts.items() if "Full title" not in text} == (
        {"PMC13"} if rule == "append" else set()
    )
    assert all("Body" in text for text in texts.values())


def test_formats_and_licences_are_counted(inputs, tmp_path):
    _, info = build(inputs, tmp_path / "out", "both")
    assert [row["formats"] for row in info["inputs"]] == [
        {"pubmed_xml": 5},
        {"jats": 4},
        {"jats": 1},
        {"semantic_scholar": 1},
        {"jsonl": 1},
    ]
    assert [row["licenses"] for row in info["inputs"]] == [{"": 5}, {"CC BY 4.0": 4}, {}, {}, {"": 1}]


def test_all_lines_of_a_folder_with_full_texts_have_the_same_keys(inputs, tmp_path):
    build(inputs, tmp_path / "out", "both")
    lines = [
        json.loads(line)
        for part in sorted((tmp_path / "out" / "train").iterdir())
        for line in gzip.decompress(part.read_bytes()).splitlines()
    ]
    assert {tuple(line) for line in lines} == {tuple(lines[0])} and "license" in lines[0]
    build(inputs[:1], tmp_path / "records", "both")
    line = gzip.decompress((tmp_path / "records" / "train" / "part-00000.jsonl.gz").read_bytes()).splitlines()[0]
    assert "license" not in json.loads(line), "as before, if there is no full text"


def test_a_prepared_folder_keeps_the_identifiers(inputs, tmp_path):
    build(inputs[1:], tmp_path / "first", "both")
    found, info = build([str(tmp_path / "first"), inputs[0]], tmp_path / "second", "replace")
    assert info["dropped"] == {"has_full_text": 3, "same_article": 1}
    assert {d.license for d in found if d.kind == "full_text"} == {"CC BY 4.0"}


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["both", "replace", "append"])
def test_a_beam_pipeline_and_several_processes_write_the_same_bytes(inputs, tmp_path, rule):
    def files(folder: str, **how: object) -> dict[str, bytes]:
        build(inputs, tmp_path / folder, rule, **how)
        return {str(p.relative_to(tmp_path / folder)): p.read_bytes() for p in (tmp_path / folder).rglob("*.*")}

    local = files("local", workers=1)
    assert files("pool", workers=2) == local
    assert files("beam", beam=BeamRunner("DirectRunner")) == local


def test_an_unknown_rule_lists_the_known_ones():
    with pytest.raises(UserError, match=r"full_text='all': wanted one of both, replace, append"):
        ReadOptions(full_text="all")
