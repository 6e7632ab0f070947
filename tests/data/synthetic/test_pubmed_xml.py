"""Synthetic articles are valid PubMed XML and can be learned from; random rows are valid rows."""

from __future__ import annotations

import collections
import gzip
import hashlib
import pathlib
import re
from xml.etree import ElementTree

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from trained_vocab import train

from electramed_jax.common.errors import UserError
from electramed_jax.data.dataset import synthetic_loader
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import ReadOptions
from electramed_jax.data.synthetic import articles as synthetic
from electramed_jax.data.synthetic import pubmed_xml


def sharding_on(shape: tuple[int, int, int]) -> NamedSharding:
    mesh = jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


@pytest.fixture(scope="module")
def articles() -> list[synthetic.Article]:
    return [synthetic.generate_article(seed=0, number=number) for number in range(3000)]


ENROLLED = re.compile(r"(\d+) patients with [a-z ]+, of whom (\d+) were women and (\d+) were men")


def plain(article: synthetic.Article) -> str:
    text = " ".join([article.title, *(text for _, text in article.sections)])
    return re.sub(r"</?(i|sub)>", "", text).replace("&lt;", "<")


def test_the_reader_returns_every_synthetic_article_as_it_was_written(tmp_path):
    paths = pubmed_xml.write_pubmed_xml(str(tmp_path), articles=203, seed=4, num_files=3)
    assert [pathlib.Path(path).name for path in paths] == [
        "invented-0001.xml.gz",
        "invented-0002.xml.gz",
        "invented-0003.xml.gz",
    ]
    drops: collections.Counter = collections.Counter()
    options = ReadOptions(titles_alone=True)
    read = [document for path in paths for document in reader.read_documents(path, drops, strict=True, options=options)]
    assert not drops
    assert [document.pmid for document in read] == list(range(90_000_001, 90_000_204))
    for number, document in enumerate(read):
        written = synthetic.generate_article(seed=4, number=number)
        assert document.year == written.year
        assert document.title.rstrip(".") == re.sub("</?i>", "", written.title).rstrip(".")
        assert [label for label, _ in document.sections] == [label for label, _ in written.sections]
        text = " ".join([document.title, *(body for _, body in document.sections)])
        assert text == plain(written)


def test_the_files_have_the_elements_of_pubmed_in_the_order_of_its_dtd(tmp_path):
    (path,) = pubmed_xml.write_pubmed_xml(str(tmp_path), articles=40, num_files=1)
    root = ElementTree.fromstring(gzip.decompress(pathlib.Path(path).read_bytes()))
    assert root.tag == "PubmedArticleSet" and len(root) == 40
    for pubmed_article in root:
        assert [child.tag for child in pubmed_article] == ["MedlineCitation", "PubmedData"]
        tags = [child.tag for child in pubmed_article.find("MedlineCitation/Article")]
        assert [tag for tag in tags if tag != "Abstract"] == [
            "Journal",
            "ArticleTitle",
            "Pagination",
            "AuthorList",
            "Language",
            "PublicationTypeList",
        ]
        assert "Abstract" not in tags or tags[3] == "Abstract"


def test_the_same_arguments_write_the_same_bytes_and_another_seed_another_text(tmp_path):
    def digests(folder: str, seed: int) -> list[str]:
        paths = pubmed_xml.write_pubmed_xml(str(tmp_path / folder), 60, seed, num_files=2)
        packed = [pathlib.Path(path).read_bytes() for path in paths]
        assert all(head[3:8] == bytes(5) for head in packed)  # gzip: no file name, no time
        return [hashlib.sha256(each).hexdigest() for each in packed]

    first = digests("a", 0)
    assert digests("b", 0) == first
    assert set(digests("c", 1)).isdisjoint(first)


def test_the_text_is_the_same_on_every_machine():
    """The documented results of the quickstart were measured with this text; measure them again if it changes."""
    texts = "\n".join(plain(synthetic.generate_article(0, number)) for number in range(100))
    assert hashlib.sha256(texts.encode()).hexdigest() == (
        "e492bbec539bbbe48a2b2e49b6da3e1ad6b70a0f2af88709d63e8643d75adbc2"
    )


def test_the_number_of_files_does_not_change_the_articles(tmp_path):
    def pubmed_articles(num_files: int) -> list[bytes]:
        paths = pubmed_xml.write_pubmed_xml(str(tmp_path / str(num_files)), 10, 0, num_files)
        text = b"".join(gzip.decompress(pathlib.Path(path).read_bytes()) for path in paths)
        return re.findall(rb"<PubmedArticle>.*?</PubmedArticle>", text, re.DOTALL)

    assert len(pubmed_articles(1)) == 10
    assert pubmed_articles(3) == pubmed_articles(1)


@pytest.mark.parametrize("articles, num_files", [(0, 1), (3, 4), (3, 0)])
def test_files_without_articles_are_rejected(tmp_path, articles, num_files):
    with pytest.raises(UserError, match=f"articles={articles}, num_files={num_files}"):
        pubmed_xml.write_pubmed_xml(str(tmp_path), articles, num_files=num_files)


def test_all_slots_and_choices_of_the_patterns_are_filled(articles):
    for article in articles:
        assert not re.search(r"[\[\]{}|]|  ", plain(article)), article


def test_there_are_articles_without_abstract_and_abstracts_with_and_without_labels(articles):
    kinds = collections.Counter(
        "none" if not article.sections else "plain" if article.sections[0][0] is None else "labels"
        for article in articles
    )
    assert 0.01 < kinds["none"] / 3000 < 0.06
    assert 0.4 < kinds["plain"] / 3000 < 0.6
    assert 0.4 < kinds["labels"] / 3000 < 0.6


def test_every_name_is_used_once():
    names = [
        name
        for relation in synthetic.relations()
        for name in (
            relation.disease,
            relation.drug,
            relation.gene,
            relation.partner_gene,
            relation.organism.lower(),
        )
    ]
    assert len(set(names)) == len(names) == 5 * 6 * 16


def test_an_article_uses_one_relation(articles):
    """A model can learn that a drug determines its disease, its gene and its field."""
    owner = {
        name: relation
        for relation in synthetic.relations()
        for name in (relation.disease, relation.drug, relation.gene, relation.partner_gene)
    }
    for article in articles:
        words = re.findall(r"\w+", plain(article))
        named = {owner[name] for word in words for name in (word, word.lower()) if name in owner}
        assert len(named) == 1, article


def test_the_numbers_and_the_outcome_of_an_article_are_consistent(articles):
    praise = re.compile(r"\b(superior|safe and effective|promising)\b")
    blame = re.compile(r"\b(no better than|is not effective|Failure|No benefit|do not support)\b")
    praised = blamed = counted = 0
    for article in articles:
        text = plain(article)
        praised, blamed = praised + bool(praise.search(text)), blamed + bool(blame.search(text))
        assert not (praise.search(text) and blame.search(text)), text
        for n, women, men in ENROLLED.findall(text):
            assert int(n) == int(women) + int(men)
            counted += 1
    assert counted > 300
    assert praised > 500 and blamed > 300


@pytest.mark.slow
def test_the_articles_fill_a_vocabulary_of_2048_word_pieces():
    texts = [plain(synthetic.generate_article(seed=0, number=number)) for number in range(6000)]
    tokens = train(texts, 2048)
    assert len(tokens) == 2048
    words = collections.Counter(re.findall(r"[a-z]\w+", "\n".join(texts).lower()))
    assert min(words.values()) >= 5 and len(words) > 600  # frequent enough to be learned


@pytest.mark.parametrize("row_length, vocab_size", [(16, 6), (128, 2048), (512, 31_090)])
def test_random_rows_have_the_format_of_packed_rows(row_length, vocab_size):
    with synthetic_loader.SyntheticLoader(8, row_length, vocab_size, 1, sharding_on((8, 1, 1))) as batches:
        special = batches.manifest.special
        ids = np.concatenate([np.asarray(batches.at(step)["input_ids"]) for step in range(12)])
    assert ids.shape == (96, row_length) and ids.dtype == np.int32
    assert ids.min() == special.pad and ids.max() < vocab_size
    letters = {special.pad: "p", special.cls: "c", special.sep: "s"}
    assert not np.isin(ids, [special.mask, special.unk]).any()
    for row in ids:
        kinds = "".join(letters.get(int(id), "t") for id in row)
        assert re.fullmatch(r"(ct+s(t+s)?)+p{0,7}", kinds), kinds


def test_random_batches_are_a_function_of_seed_and_step_on_any_mesh():
    def batch(mesh: tuple[int, int, int], seed: int, step: int) -> np.ndarray:
        with synthetic_loader.SyntheticLoader(8, 64, 100, seed, sharding_on(mesh)) as batches:
            batches.at(step + 3)
            return np.asarray(batches.at(step)["input_ids"])

    np.testing.assert_array_equal(batch((8, 1, 1), 0, 5), batch((2, 2, 2), 0, 5))
    kinds = [batch((8, 1, 1), seed, step) for seed in range(2) for step in range(3)]
    assert len({row.tobytes() for ids in kinds for row in ids}) == 6 * 8


def test_invalid_arguments_for_random_rows_are_rejected():
    for row_length, vocab_size in ((15, 100), (64, 5)):
        with pytest.raises(UserError, match=f"row_length={row_length}, vocab_size={vocab_size}"):
            synthetic_loader.SyntheticLoader(8, row_length, vocab_size, 0, sharding_on((8, 1, 1)))
    with pytest.raises(UserError, match="batch_size=12 is not divisible by data×fsdp=8"):
        synthetic_loader.SyntheticLoader(12, 64, 100, 0, sharding_on((8, 1, 1)))
