from __future__ import annotations

import dataclasses

from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.readers.document import Document

PLAIN = Document("a", None, "", ((None, "A plain text without any other known value."),), None, "notes")
KNOWN = Document(
    "99000001",
    99_000_001,
    "A title of a structured abstract",
    (("METHODS", "Kinase inhibitors were given to mice."), (None, "It was well tolerated.")),
    1999,
    "pubmed",
    language="eng",
    version=2,
    revised=20_240_229,
)


def test_a_line_is_read_back_as_the_same_document(tmp_path):
    several = [PLAIN, KNOWN, dataclasses.replace(KNOWN, id="b", sections=(), language=None, revised=None)]
    (tmp_path / "part.jsonl").write_bytes(b"".join(map(corpus_dir.to_line, several)))
    assert list(corpus_dir.read_part(str(tmp_path / "part.jsonl"))) == several


def test_hugging_face_datasets_reads_a_documents_folder_with_missing_values_in_the_first_part(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    for number, document in enumerate([PLAIN, KNOWN, dataclasses.replace(PLAIN, id="c", title="Another title")]):
        (tmp_path / f"{number}.jsonl").write_bytes(corpus_dir.to_line(document))
    prepare([str(tmp_path / "*.jsonl")], str(tmp_path / "out"), FilterConfig(validation=0, test=0), workers=1)
    found = datasets.load_dataset(
        "json",
        data_files=str(tmp_path / "out" / "train" / "*.jsonl.gz"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    texts = []
    for row in found:
        lines = [f"{label}: {text}" if label else text for label, text in row["sections"]]
        texts.append("\n".join([row["title"], *lines] if row["title"] else lines))
    assert texts == list(corpus_dir.Texts(str(tmp_path / "out")))
    assert found["pmid"][:] == [0, 99_000_001, 0] and found["language"][:] == ["", "eng", ""]
