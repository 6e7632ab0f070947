"""What a pipeline makes on Beam's own DirectRunner is what the pool of processes makes, byte for byte."""

from __future__ import annotations

import gzip
import pathlib

import pytest
from invented_literature import SENTENCE, literature, record, write_jsonl, write_xml

from electramed_jax.data import build, build_near_duplicates, build_rows, shuffle, token_files
from electramed_jax.data.build_beam import Beam

DIRECT = Beam("DirectRunner")


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[list[str], str]:
    """(inputs, an evaluation file): all that can befall a record, across files, in records damaged and sound."""
    folder = tmp_path_factory.mktemp("corpus")
    paths = literature(folder / "xml", count=8)
    cut = write_xml(folder / "xml" / "cut.xml", *(record(n) for n in range(91, 95)))
    data = pathlib.Path(cut).read_bytes()
    pathlib.Path(f"{cut}.gz").write_bytes(gzip.compress(data[: len(data) * 2 // 3], mtime=0))
    pathlib.Path(cut).unlink()
    many = [{"id": f"j{n}", "text": " ".join(SENTENCE.format(7 * n + m) for m in range(9))} for n in range(60)]
    many += [{"id": "short", "text": "Few words."}, {"id": "again", "text": many[0]["text"].upper()}, {"text": 3}]
    held_out = write_jsonl(folder / "held_out.jsonl", {"text": SENTENCE.format(42)})
    (folder / "empty.jsonl").write_text("")
    inputs = [*paths, f"{cut}.gz", write_jsonl(folder / "many.jsonl", *many), str(folder / "empty.jsonl")]
    return inputs, held_out


def test_documents_are_those_of_the_local_build_byte_for_byte(corpus, tmp_path, monkeypatch):
    inputs, held_out = corpus
    options = {"validation": 0.2, "test": 0.1, "exclude": [held_out], "near_duplicates": 0.8}
    account = build.prepare(inputs, str(tmp_path / "local"), workers=1, **options)
    monkeypatch.setattr(shuffle, "ROWS_AT_ONCE", 7)  # an input's keys in several pieces
    monkeypatch.setattr(build_near_duplicates, "_SIGNED_AT_ONCE", 5)
    assert build.prepare(inputs, str(tmp_path / "beam"), beam=DIRECT, **options) == account
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    everything = {"withdrawn", "superseded", "duplicate", "near_duplicate", "held_out", "too_short", "bad_record"}
    assert everything | {"truncated_xml"} == set(account["dropped"])
    assert len(files_of(tmp_path / "beam")) == 3 * len(inputs) + 1


@pytest.fixture(scope="module")
def documents(corpus, tmp_path_factory) -> tuple[str, str]:
    """(documents folder, vocabulary)."""
    folder = tmp_path_factory.mktemp("documents")
    wordless = write_jsonl(
        folder / "wordless.jsonl", *({"id": f"w{n}", "text": "\ue000 " * (40 + n)} for n in range(3))
    )
    build.prepare([*corpus[0], wordless], str(folder / "out"), validation=0.2, test=0, workers=1)
    build.train_vocab(str(folder / "out"), str(folder / "vocab.txt"), size=300)
    return str(folder / "out"), str(folder / "vocab.txt")


@pytest.mark.parametrize("format", ["packed", "electra"])
def test_rows_are_those_of_the_local_build_byte_for_byte(documents, tmp_path, monkeypatch, format):
    monkeypatch.setattr(build_rows, "WINDOW_ROWS", 30)  # several windows, over the borders of parts,
    monkeypatch.setattr(token_files, "BLOCK_TOKENS", 100)  # of blocks and of shards
    monkeypatch.setattr(token_files, "_TEXTS_AT_ONCE", 2)
    options = {"row_length": 64, "rows_per_shard": 40, "format": format}
    packed = build.pack(*documents, str(tmp_path / "local"), workers=1, **options)
    assert build.pack(*documents, str(tmp_path / "beam"), beam=DIRECT, **options) == packed
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    assert len(packed.splits["train"].shards) > 3 and packed.splits["validation"].rows > 30
    assert packed.splits["test"].shards == ()
    assert packed.dropped["no_tokens"] == 3
