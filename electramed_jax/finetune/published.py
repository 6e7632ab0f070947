"""Known variants of the corpora, and the scores published on them.

Corpora with one name differ in splits, sentence breaks, and types kept or merged. A variant is identified by the
SHA-256 of its files. A published score is shown next to ours only if all files that its authors are known to have used
are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

UNKNOWN = "not one known here: no published score is shown"


class PublishedScore(NamedTuple):
    """A published score; `metric` is the name of the score here that it compares with."""

    model: str
    metric: str
    value: float
    source: str


@dataclasses.dataclass(frozen=True)
class CorpusVariant:
    """A corpus, identified by its files.

    Attributes:
      sha256: by split; "test 1" and so on for a split with several files.
      is_original: whether published scores were computed with these files. If some files are rebuilt, published scores
        do not compare.
    """

    name: str
    sha256: Mapping[str, str]
    scores: tuple[PublishedScore, ...] = ()
    is_original: bool = True


ELECTRAMED = "ELECTRAMed-base"
PAPER = "Miolo, Mantoan, Orsenigo 2021"  # as listed by paperswithcode.com and sotaverified.org
VARIANTS = (
    CorpusVariant(
        "BC5CDR as SciBERT has it: chemicals and diseases merged into one type, single words as a lone I-",
        {
            "train": "cc95011df5d0eba32a10ed201db448993183e465643c4eaf8dfc2987423e418f",
            "dev": "0ec1066941e69fec660ea503033127d8826ee237c12b319a421a4ccfe431179f",
            "test": "256b185cca1f096d12622c75f9c5ee0b0f2b8432a71170f4ea74778b99785894",
        },
        (PublishedScore(ELECTRAMED, "f1", 90.03, PAPER),),
    ),
    CorpusVariant(
        "BC5CDR of MTL-Bioinformatics-2016: chemicals and diseases, both types, IOB2",
        {
            "train": "b731361c0ed73afd04cc5fdad39afcdfd8f325d6e46c282339185a91d1af4c14",
            "dev": "b909de65c4f7e3c23bb09ad52d654cdc92e96db941abe1a5dcf6f6010c03cff5",
            "test": "e41a2843a5fff0cd8d1a88cb147968d61ae29336ca70cddc3d7fb8ff21dfa1e8",
        },
    ),
    CorpusVariant(
        "NCBI-disease as ELECTRAMed has it: MTL-Bioinformatics-2016's words and tags, over-long sentences split",
        {
            "train": "e8197dcd8d9d7bef03bbff8786d948f642aa83e83c6261e4e2b077a535106742",
            "dev": "9acfc0954164b27e5a4e33a825c05641920e7ca823ffbd6a7198f402484a388a",
            "test": "30c7944720f51be84dfc599a325a7a2577085fa00e084edec08c4e7cbdbf44dc",
        },
        (PublishedScore(ELECTRAMED, "f1", 87.54, PAPER),),
    ),
    CorpusVariant(
        "NCBI-disease of MTL-Bioinformatics-2016",
        {
            "train": "58379baf4614b8d757d93dd7a21b202849ca99f9b9d71b49185523ff5443300c",
            "dev": "b4e1e7efcc2a35047bf2f3d281648357470e674f555d4a26a0049ac37d59cc61",
            "test": "8f088ce45dc4746592188f9e69de3d89d87f3bb8f0ed8c4a287d018123fa148d",
        },
    ),
    CorpusVariant(
        "JNLPBA with its five types, dev and test as ELECTRAMed has them",
        {
            "dev": "0d1f382e4b1d52d2d18c0a66bdceb723f4e7efe2046951c025bb5a6363107803",
            "test": "1c4c18c2276ca522f1b8f0de67716e4bec219ff48f26411c99d9fb55b27efc16",
        },
        is_original=False,
    ),
    CorpusVariant(
        "ChemProt rebuilt in BLUE's form from the original annotations",
        {
            "train": "dc54b00f0ec2ef6be4826bf9ac0afef19305824a5a8a14809ae201bac454050c",
            "test": "d8647384541df91fe3ddffa8738841b8f00599dd8c86d01b8826dd84f3abd748",
        },
        is_original=False,
    ),
    CorpusVariant(
        "DDI-2013 in BLUE's form, dev and test as ELECTRAMed has them",
        {
            "dev": "350d725f5f6e001a5d40471828a5b7e0a177e4d0f4cbb08b37f9869aa347f2b4",
            "test": "9a67da1c6bb9c8a4109356f1275ceaae306a142d26beedc42ef636d07847c27b",
        },
        is_original=False,
    ),
    CorpusVariant(
        "BioASQ-7b factoid, the test passages full abstracts as ELECTRAMed has them",
        {
            "test 1": "c5fb7b98a79ef72cd9b7599fb367fc571aadabd8f0dc0e7ebd657701b4e6e345",
            "test 2": "6426e6863642e6d89948f108a0abcde29122c9a5493d5cb6415afdd250549087",
            "test 3": "6268b8f9313a17cd71a109459f9b112625df2dcf5f865871f06e339fe6a76c8b",
            "test 4": "3b592a61c4d60e2269eb7c47ff764a431fb233a19235fb116955c16e8c1f33ec",
            "test 5": "bb8950a6d480ace98e40f30886fc231f1e36703d36133f7b41bf5151b7ba9013",
            "gold 1": "4a1982648f96559a7daae4c58f2c3528b3301b5a06334220413367fd45271cb9",
            "gold 2": "86d745d419f2099101112d501abd5b4e9304c5a65484317fdf3994e8f885618d",
            "gold 3": "15596ea3dbbe4be8124db84b4c7c7c76fb3f1ce8a4bd7cc8f830727a4ec1c0ff",
            "gold 4": "2e6b4b710c70cd82f5a131a7a9c0acdebe918b5858cf0c33178bdf698b657b27",
            "gold 5": "857442af3d6e11d49abe37f0539785f56cc53e872a95c55d442d644c35fb0926",
        },
        is_original=False,
    ),
    CorpusVariant(
        "BioASQ-7b factoid, the test passages the organisers' snippets",
        {
            "test 1": "4a1982648f96559a7daae4c58f2c3528b3301b5a06334220413367fd45271cb9",
            "test 2": "86d745d419f2099101112d501abd5b4e9304c5a65484317fdf3994e8f885618d",
            "test 3": "15596ea3dbbe4be8124db84b4c7c7c76fb3f1ce8a4bd7cc8f830727a4ec1c0ff",
            "test 4": "2e6b4b710c70cd82f5a131a7a9c0acdebe918b5858cf0c33178bdf698b657b27",
            "test 5": "857442af3d6e11d49abe37f0539785f56cc53e872a95c55d442d644c35fb0926",
        },
        is_original=False,
    ),
)


def find_variant(sha256: Mapping[str, str]) -> CorpusVariant | None:
    """Returns the variant with these files, by split; None if it is unknown."""
    for variant in VARIANTS:
        if all(sha256.get(split) == wanted for split, wanted in variant.sha256.items()):
            return variant
    return None


def variant_name(variant: CorpusVariant | None) -> str:
    """Returns the name of a variant for results.json."""
    if variant is None:
        return UNKNOWN
    return variant.name + (
        "" if variant.is_original else "; the training file is rebuilt, so no published score is shown"
    )


def comparable_scores(variant: CorpusVariant | None) -> tuple[PublishedScore, ...]:
    """Returns the published scores that compare with scores on this variant."""
    return variant.scores if variant is not None else ()
