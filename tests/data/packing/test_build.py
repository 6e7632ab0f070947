"""Packed datasets from documents folders: rows, manifest, restarts, and errors before any work."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from small_disk import fill, small_disk

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage.tfrecord import RowFile
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.dataset import manifest, verify
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.data.packing import build as build_rows
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.data.tokenizer.train_vocab import train_vocab

__all__ = ["small_disk"]  # a fixture

WORDS = "kinase binds receptor cells protein gene drug tumour mice dose".split()


@pytest.fixture(scope="module")
def documents_dir(tmp_path_factory) -> str:
    """A documents folder of 400 short synthetic documents from four inputs, in three splits."""
    return prepared(tmp_path_factory.mktemp("documents"), "abcd")


def prepared(folder, names: str) -> str:
    """Prepares 100 documents for each letter of `names`; returns the documents folder."""
    rng = np.random.Generator(np.random.Philox(5))
    for name in names:
        with open(folder / f"{name}.jsonl", "w") as file:
            for number in range(100):
                sentences = [" ".join(rng.choice(WORDS, 9)) + f" {name}{number}." for _ in range(rng.integers(1, 12))]
                file.write(json.dumps({"id": f"{name}{number}", "text": " ".join(sentences)}) + "\n")
    output = str(folder / "out")
    prepare([str(folder / "*.jsonl")], output, FilterConfig(validation=0.1, test=0.1), workers=1)
    return output


@pytest.fixture(scope="module")
def vocab_path(documents_dir, tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("vocab") / "vocab.txt")
    train_vocab(documents_dir, path, size=150)
    return path


def pack(documents_dir, vocab_path, output, **options) -> manifest.Manifest:
    return build_rows.pack(documents_dir, vocab_path, str(output), **{"row_length": 64, "workers": 1, **options})


def rows_of(output, packed: manifest.Manifest, split: str) -> np.ndarray:
    return np.concatenate(
        [
            RowFile(os.path.join(output, shard.file), packed.row_length, packed.dtype)[:]
            for shard in packed.splits[split].shards
        ]
    )


def snapshot(folder) -> dict[str, bytes]:
    found = {}
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as file:
            found[name] = file.read()
    return found


def test_the_rows_hold_the_tokens_of_the_documents_and_the_manifest_counts_them(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path, rows_per_shard=40)
    assert manifest.read_manifest(str(tmp_path)) == packed
    tokenizer = Tokenizer(vocab_path)
    around = [packed.special.pad, packed.special.cls, packed.special.sep]
    for split in corpus_dir.SPLITS:
        entry = packed.splits[split]
        texts = list(corpus_dir.Texts(documents_dir, split))
        wanted = Counter(np.concatenate(tokenizer.encode_batch(texts)).tolist())
        rows = rows_of(tmp_path, packed, split)
        got = Counter(rows[~np.isin(rows, around)].tolist())
        assert got == wanted
        assert entry.documents == len(texts)
        assert entry.rows == len(rows)
        assert entry.tokens == (rows != packed.special.pad).sum()
        assert entry.fill_fraction == pytest.approx(entry.tokens / rows.size, abs=1e-6)
        assert all(shard.rows == 40 for shard in entry.shards[:-1])
    assert len(packed.splits["train"].shards) > 1
    assert sum(packed.length_histogram.values()) == 400
    verify.verify_shards(open_dataset(str(tmp_path)))


def test_unigram_cross_entropy_is_that_of_the_smoothed_training_counts(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path)
    tokenizer = Tokenizer(vocab_path)
    counts = {
        split: Counter(
            number
            for ids in tokenizer.encode_batch(list(corpus_dir.Texts(documents_dir, split)))
            for number in ids.tolist()
        )
        for split in ("train", "validation")
    }
    total = sum(counts["train"].values()) + packed.vocab_size - 3
    for split, of_split in counts.items():
        nats = -sum(count * math.log((counts["train"][number] + 1) / total) for number, count in of_split.items())
        wanted = nats / sum(of_split.values())
        assert packed.splits[split].unigram_cross_entropy == pytest.approx(wanted, abs=1e-5)


def test_the_dataset_does_not_depend_on_the_number_of_processes(documents_dir, vocab_path, tmp_path):
    pack(documents_dir, vocab_path, tmp_path / "one", rows_per_shard=50)
    pack(documents_dir, vocab_path, tmp_path / "two", rows_per_shard=50, workers=2)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")


def test_the_window_size_changes_only_how_full_the_rows_are(documents_dir, vocab_path, tmp_path, monkeypatch):
    whole = pack(documents_dir, vocab_path, tmp_path / "whole")
    monkeypatch.setattr(build_rows, "WINDOW_ROWS", 10)
    windows = pack(documents_dir, vocab_path, tmp_path / "windows")
    for split in corpus_dir.SPLITS:
        rows_of_each = (rows_of(tmp_path / "whole", whole, split), rows_of(tmp_path / "windows", windows, split))
        content = [np.sort(rows[rows > whole.special.mask]) for rows in rows_of_each]
        np.testing.assert_array_equal(*content)
        assert windows.splits[split].rows >= whole.splits[split].rows


def test_the_share_of_split_documents_and_the_lengths_are_in_the_manifest(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path)
    tokenizer = Tokenizer(vocab_path)
    lengths = [
        len(ids)
        for split in corpus_dir.SPLITS
        for ids in tokenizer.encode_batch(list(corpus_dir.Texts(documents_dir, split)))
    ]
    wanted = Counter(1 << math.ceil(math.log2(length)) for length in lengths)
    assert packed.length_histogram == {str(end): wanted[end] for end in sorted(wanted)}
    train = packed.splits["train"]
    assert train.split_fraction == pytest.approx(train.split_documents / train.documents, abs=1e-6)
    assert train.split_fraction > 0.1 and train.dropped_tokens == 0
    assert train.packed_fill_fraction == train.fill_fraction


@pytest.mark.slow
def test_rows_of_genuine_abstracts_are_full(shared_data, tmp_path):
    abstracts = str(shared_data / "corpus" / "abstracts-pmc-000.jsonl.gz")
    prepare([abstracts], str(tmp_path / "documents"), workers=1)
    vocabulary = str(shared_data / "vocab" / "scivocab-uncased.txt")
    packed = pack(str(tmp_path / "documents"), vocabulary, tmp_path / "rows", row_length=512)
    assert packed.splits["train"].fill_fraction >= 0.97
    assert packed.splits["train"].documents > 4000


def test_electras_format_has_one_example_a_row_and_reports_its_fill_and_that_of_packed_rows(
    documents_dir, vocab_path, tmp_path
):
    full = pack(documents_dir, vocab_path, tmp_path / "full")
    packed = pack(documents_dir, vocab_path, tmp_path / "out", format="electra")
    assert (full.format, manifest.read_manifest(str(tmp_path / "out")).format) == ("packed", "electra")
    for split in corpus_dir.SPLITS:
        rows, entry = rows_of(tmp_path / "out", packed, split), packed.splits[split]
        assert ((rows == packed.special.cls).sum(1) == 1).all() and (rows[:, 0] == packed.special.cls).all()
        assert entry.fill_fraction == pytest.approx((rows != packed.special.pad).mean(), abs=1e-6)
        assert entry.packed_fill_fraction == full.splits[split].fill_fraction > entry.fill_fraction + 0.05
        assert entry.documents == full.splits[split].documents
        texts = Tokenizer(vocab_path).encode_batch(list(corpus_dir.Texts(documents_dir, split)))
        content = np.isin(rows, [packed.special.pad, packed.special.cls, packed.special.sep], invert=True).sum()
        assert entry.dropped_tokens == sum(map(len, texts)) - content
    assert packed.splits["train"].dropped_tokens > 0
    assert packed.length_histogram == full.length_histogram


def test_segments_of_electras_format_end_where_sentences_do(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path, format="electra", row_length=128)
    rows = rows_of(tmp_path, packed, "train").astype(int)
    ends = (rows == packed.special.sep).cumsum(1) == 1
    of_pairs = (rows == packed.special.sep).sum(1) == 2
    stop = vocab.read_vocab(vocab_path).index(".")
    before = [row[np.argmax(end) - 1] for row, end in zip(rows[of_pairs], ends[of_pairs], strict=True)]
    assert len(before) > 50 and set(before) == {stop}


@pytest.mark.slow
def test_electras_format_depends_on_neither_processes_nor_windows(documents_dir, vocab_path, tmp_path, monkeypatch):
    pack(documents_dir, vocab_path, tmp_path / "one", format="electra")
    pack(documents_dir, vocab_path, tmp_path / "two", format="electra", workers=2)
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    monkeypatch.setattr(build_rows, "WINDOW_ROWS", 10)
    packed = pack(documents_dir, vocab_path, tmp_path / "windows", format="electra")
    for shard in packed.splits["train"].shards:
        assert (tmp_path / "one" / shard.file).read_bytes() == (tmp_path / "windows" / shard.file).read_bytes()


def test_about_nine_documents_in_ten_are_split_into_a_and_b(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path, row_length=512)
    rows = rows_of(tmp_path, packed, "train")
    pieces = (rows == packed.special.cls).sum()
    pairs = (rows == packed.special.sep).sum() - pieces
    one_sentence = sum(text.count(".") == 1 for text in corpus_dir.Texts(documents_dir))
    assert 0.84 < pairs / (pieces - one_sentence) < 0.96


@pytest.mark.slow
@pytest.mark.parametrize("format", ["packed", "electra"])
def test_tfds_reads_the_shards_row_for_row(documents_dir, vocab_path, tmp_path, format):
    import tensorflow_datasets as tfds

    packed = pack(documents_dir, vocab_path, tmp_path, rows_per_shard=50, format=format)
    builder = tfds.builder_from_directory(str(tmp_path))
    in_order = tfds.ReadConfig(interleave_cycle_length=1)  # one shard after the other
    for split in corpus_dir.SPLITS:
        dataset = builder.as_dataset(split=split, batch_size=100, read_config=in_order)
        rows = np.concatenate([batch["input_ids"] for batch in tfds.as_numpy(dataset)])
        assert rows.dtype == np.uint16
        np.testing.assert_array_equal(rows, rows_of(tmp_path, packed, split))
    assert len(packed.splits["train"].shards) > 1


def test_the_vocabulary_is_copied_and_its_sha256_recorded(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path)
    assert vocab.read_vocab(str(tmp_path / "vocab.txt")) == vocab.read_vocab(vocab_path)
    assert packed.vocab_sha256 == vocab.sha256(vocab_path)
    assert packed.vocab_size == 150 and packed.dtype == "uint16"


def test_sources_and_dropped_documents_are_in_the_manifest(tmp_path, vocab_path):
    good = {"text": "kinase binds receptor in cells of mice"}
    empty = {"text": "\ue000 " * 40}  # private-use characters, which the tokenizer drops
    with open(tmp_path / "a.jsonl", "w") as file:
        file.write("".join(json.dumps(record) + "\n" for record in (good, {"text": ""}, empty)))
    info = prepare([str(tmp_path / "a.jsonl")], str(tmp_path / "docs"), FilterConfig(validation=0, test=0), workers=1)
    packed = pack(str(tmp_path / "docs"), vocab_path, tmp_path / "out")
    assert packed.dropped == {"empty": 1, "no_tokens": 1}
    assert packed.sources == info["inputs"]
    assert packed.sources[0]["file"] == "a.jsonl" and packed.sources[0]["read"] == 3
    assert packed.splits["train"].documents == 1
    assert packed.splits["validation"] == manifest.Split((), 0, 0, 0, 0, 0.0, 0.0)


def test_packing_again_changes_nothing_and_reports_it(documents_dir, vocab_path, tmp_path, capsys):
    first = pack(documents_dir, vocab_path, tmp_path)
    before = snapshot(tmp_path)
    assert pack(documents_dir, vocab_path, tmp_path) == first
    assert "already packed" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_length": 128}, "row_length=64, not 128"),
        ({"lower_case": False}, "lower_case=True, not False"),
        ({"format": "electra"}, "format='packed', not 'electra'"),
        ({"vocab_path": True}, "vocab_sha256="),
        ({"documents_dir": True}, "other documents"),
    ],
)
def test_another_request_into_the_same_folder_is_refused(documents_dir, vocab_path, tmp_path, change, message):
    pack(documents_dir, vocab_path, tmp_path / "out")
    request = {"documents_dir": documents_dir, "vocab_path": vocab_path, **change}
    if change == {"vocab_path": True}:
        request["vocab_path"] = str(tmp_path / "other.txt")
        vocab.write_vocab(request["vocab_path"], [*vocab.read_vocab(vocab_path), "another"])
    if change == {"documents_dir": True}:
        request["documents_dir"] = str(tmp_path / "docs")
        (tmp_path / "a.jsonl").write_text(json.dumps({"text": "kinase " * 30}))
        prepare([str(tmp_path / "a.jsonl")], request["documents_dir"], FilterConfig(validation=0, test=0))
    before = snapshot(tmp_path / "out")
    with pytest.raises(UserError, match=f"holds another dataset .*{message}"):
        pack(output=tmp_path / "out", **request)
    assert snapshot(tmp_path / "out") == before


def test_an_interrupted_run_leaves_no_dataset_and_is_resumed(documents_dir, vocab_path, tmp_path, monkeypatch):
    whole = pack(documents_dir, vocab_path, tmp_path / "whole", rows_per_shard=50)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_rows.manifest, "write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        pack(documents_dir, vocab_path, tmp_path / "out", rows_per_shard=50)
    monkeypatch.undo()
    with pytest.raises(UserError, match="packing did not finish"):
        manifest.read_manifest(str(tmp_path / "out"))
    monkeypatch.setattr(Tokenizer, "encode_batch", stop)  # tokenized parts are not tokenized again
    assert pack(documents_dir, vocab_path, tmp_path / "out", rows_per_shard=50) == whole
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")


KILLED = """
import os, signal, sys
from electramed_jax.data.dataset import manifest
from electramed_jax.data.packing import build
import tensorflow_datasets.core.folder_dataset  # before the forks: the import takes a second

documents_dir, vocab_path, folder = sys.argv[1:]
replace = os.replace
os.fsync = lambda descriptor: None  # matters only after a power failure; here it costs seconds

def killed(output, at):  # packs, killed before file number `at` gets its final name; returns whether it was killed
    if not (child := os.fork()):
        left = iter(range(at - 1, -1, -1))
        os.replace = lambda *names: replace(*names) if next(left) else os.kill(os.getpid(), signal.SIGKILL)
        build.pack(documents_dir, vocab_path, output, row_length=64, rows_per_shard=50, workers=1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    if status and os.path.exists(os.path.join(output, manifest.MANIFEST_FILE)):
        print("complete although killed", output)
    return bool(status)

step, again = 1, os.path.join(folder, "again and again")
while killed(os.path.join(folder, str(step)), step):
    assert not killed(os.path.join(folder, str(step)), 1000)
    step += 1
for step in range(1, step + 1):
    killed(again, step)
print(step)
"""


@pytest.mark.slow
def test_killed_before_any_file_is_in_place_and_resumed_it_ends_with_the_same_bytes(vocab_path, tmp_path):
    documents_dir = prepared(tmp_path, "ab")
    pack(documents_dir, vocab_path, tmp_path / "whole", rows_per_shard=50)
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, documents_dir, vocab_path, str(killed)], check=True, stdout=subprocess.PIPE
    )
    steps = int(done.stdout)  # it prints no other line
    assert steps > 15
    wanted = snapshot(tmp_path / "whole")
    for name in ("again and again", *map(str, range(1, steps + 1))):
        assert snapshot(killed / name) == wanted, name


def test_a_full_disk_is_a_user_error_and_packing_resumes_with_more_space(
    documents_dir, vocab_path, tmp_path, small_disk
):
    whole = pack(documents_dir, vocab_path, tmp_path / "whole")
    disk, room, errors = small_disk(1 << 20), 4096, []
    while not (disk / "out" / "manifest.json").exists():  # each run has a little more space
        ballast = fill(disk, leaving=room)
        try:
            assert pack(documents_dir, vocab_path, disk / "out") == whole
        except UserError as error:
            errors.append(str(error))
        ballast.unlink()
        room += 8192
    assert room > 60_000 and all("disk full" in error for error in errors)
    assert snapshot(disk / "out") == snapshot(tmp_path / "whole")


def test_existing_shards_of_no_interrupted_run_are_not_touched(documents_dir, vocab_path, tmp_path):
    (tmp_path / "pubmed-train.tfrecord-00000-of-00001").write_text("mine")
    with pytest.raises(
        UserError, match="contains pubmed-train.tfrecord-00000-of-00001, which is not from an interrupted run"
    ):
        pack(documents_dir, vocab_path, tmp_path)
    assert (tmp_path / "pubmed-train.tfrecord-00000-of-00001").read_text() == "mine"


def test_a_vocabulary_beyond_65536_tokens_makes_rows_of_uint32(documents_dir, vocab_path, tmp_path):
    path = str(tmp_path / "large.txt")
    tokens = vocab.read_vocab(vocab_path)
    filler = [f"filler{number}" for number in range(70_000)]
    vocab.write_vocab(path, [*tokens[:5], *filler, *tokens[5:]])
    packed = pack(documents_dir, path, tmp_path / "out")
    small = pack(documents_dir, vocab_path, tmp_path / "small")
    assert packed.dtype == "uint32"
    rows = rows_of(tmp_path / "out", packed, "validation").astype(int)
    wanted = rows_of(tmp_path / "small", small, "validation").astype(int)
    np.testing.assert_array_equal(np.where(rows > 4, rows - 70_000, rows), wanted)


def test_a_training_split_without_text_is_a_user_error(tmp_path, vocab_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "\ue000 " * 40}))
    prepare([str(tmp_path / "a.jsonl")], str(tmp_path / "docs"), FilterConfig(validation=0, test=0), workers=1)
    with pytest.raises(UserError, match="no text to train on"):
        pack(str(tmp_path / "docs"), vocab_path, tmp_path / "out")


def test_wrong_arguments_are_reported_before_any_work(documents_dir, vocab_path, tmp_path):
    with pytest.raises(UserError, match="max_seq_length=8; wanted at least 32"):
        pack(documents_dir, vocab_path, tmp_path / "out", row_length=8)
    with pytest.raises(UserError, match="format='bert'; wanted one of packed, electra"):
        pack(documents_dir, vocab_path, tmp_path / "out", format="bert")
    with pytest.raises(UserError, match="not a documents folder, or electramed prepare did not finish"):
        pack(str(tmp_path), vocab_path, tmp_path / "out")
    with pytest.raises(UserError, match=r"absent\.txt: no such file"):
        pack(documents_dir, str(tmp_path / "absent.txt"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_another_kind_of_text_is_warned_of(documents_dir, vocab_path, tmp_path, capsys):
    pack(documents_dir, vocab_path, tmp_path / "trained")
    assert "[UNK]" not in capsys.readouterr().err
    vocab.write_vocab(str(tmp_path / "other.txt"), [*vocab.SPECIAL_TOKENS, "kinase", "receptor"])
    pack(documents_dir, str(tmp_path / "other.txt"), tmp_path / "out")
    assert "of the train tokens are [UNK]. Check that the vocabulary" in capsys.readouterr().err


def test_the_trained_vocabulary_is_reported(documents_dir, tmp_path):
    path = str(tmp_path / "vocab.txt")
    result = train_vocab(documents_dir, path, size=100_000, lower_case=False)
    assert result["size"] == len(vocab.read_vocab(path)) < result["wanted"] == 100_000
    assert result["sha256"] == vocab.sha256(path)


def test_the_manifest_is_plain_json(documents_dir, vocab_path, tmp_path):
    packed = pack(documents_dir, vocab_path, tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text()) == json.loads(json.dumps(dataclasses.asdict(packed)))
