"""The dataset of a run: one packed folder, or several with the same vocabulary, row length and casing."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import posixpath
from collections.abc import Iterable, Sequence

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.dataset import manifest as manifests
from electramed_jax.data.dataset.manifest import Manifest, Split
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Packed folders in the order of the setting, and the manifest of each."""

    folders: tuple[str, ...]
    manifests: tuple[Manifest, ...]

    @property
    def vocab_path(self) -> str:
        """The path of the vocabulary, which is the same in all folders."""
        return files.join(self.folders[0], VOCAB_FILE)

    def num_rows(self, split: str) -> tuple[int, ...]:
        """Returns the rows of a split in each folder; 0 for a folder without that split."""
        return tuple(m.splits[split].rows if split in m.splits else 0 for m in self.manifests)

    def fingerprint(self) -> dict[str, str]:
        """Returns {"vocabulary" and each split: SHA-256 of its content}, independent of the names of the files."""
        hashes = {
            name: "".join(
                shard.sha256 for m in self.manifests for shard in (m.splits[name].shards if name in m.splits else ())
            )
            for name in dict.fromkeys(name for m in self.manifests for name in m.splits)
        }
        splits = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in hashes.items()}
        return {"vocabulary": self.manifests[0].vocab_sha256} | splits

    @property
    def manifest(self) -> Manifest:
        """The manifest of the dataset: that of a single folder, or one with the sums and lists of several folders.

        For several folders, shards are named by their full paths and sources by folder. The unigram cross-entropy of a
        split is the mean over the folders, weighted by tokens, each under its own distribution.
        """
        if len(self.folders) == 1:
            return self.manifests[0]
        splits = {name: None for manifest in self.manifests for name in manifest.splits}
        pairs = list(zip(self.folders, self.manifests, strict=True))
        return dataclasses.replace(
            self.manifests[0],
            name=" + ".join(posixpath.basename(folder) for folder in self.folders),
            splits={name: _merge_splits(name, pairs) for name in splits},
            sources=[{"folder": folder, **source} for folder, manifest in pairs for source in manifest.sources],
            dropped=_sum(manifest.dropped for manifest in self.manifests),
            length_histogram=_sum(manifest.length_histogram for manifest in self.manifests),
            code_version=", ".join(sorted({manifest.code_version for manifest in self.manifests})),
            digest="",
        )


def open_dataset(directory: str) -> Dataset:
    """Opens the packed folders of the setting data.directory and checks their manifests.

    Raises:
      UserError: an error of `manifest.read_manifest`, a folder named twice, or folders that differ in vocabulary,
        row length or casing.
    """
    names = parse_folders(directory)
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(
                f"{name} is named twice in {directory}; give it a larger weight to train on its rows more often"
            )
    dataset = Dataset(names, tuple(map(manifests.read_manifest, names)))
    for folder, manifest in zip(names[1:], dataset.manifests[1:], strict=True):
        _check_same_format(names[0], dataset.manifests[0], folder, manifest)
    return dataset


def parse_folders(directory: str) -> tuple[str, ...]:
    """Splits the setting data.directory: one folder, or several with commas between."""
    return tuple(name for part in directory.split(",") if (name := part.strip().rstrip("/") or part.strip()))


def _check_same_format(first: str, a: Manifest, folder: str, b: Manifest) -> None:
    checks = [
        ("vocabularies", a.vocab_sha256 == b.vocab_sha256, f"{a.vocab_size:,} and {b.vocab_size:,} tokens", "--vocab"),
        ("row lengths", a.row_length == b.row_length, f"{a.row_length} and {b.row_length} ids", "--max_seq_length"),
        ("casings", a.lower_case == b.lower_case, f"lower-cased: {a.lower_case} and {b.lower_case}", "--cased"),
        (
            "accents",
            a.keep_accents == b.keep_accents,
            f"kept: {a.keep_accents} and {b.keep_accents}",
            "--keep_accents",
        ),
    ]
    for what, same, both, flag in checks:
        if not same:
            raise UserError(
                f"{first} and {folder} have different {what} ({both}) and can't be mixed; "
                f"pack one of them again with the other's {flag}"
            )


def _merge_splits(name: str, pairs: Sequence[tuple[str, Manifest]]) -> Split:
    splits = [(folder, manifest.splits[name]) for folder, manifest in pairs if name in manifest.splits]
    rows, tokens, documents, split_documents = (
        sum(getattr(split, field) for _, split in splits)
        for field in ("rows", "tokens", "documents", "split_documents")
    )
    nats = sum(split.unigram_cross_entropy * split.tokens for _, split in splits)
    return dataclasses.replace(
        splits[0][1],
        shards=tuple(
            dataclasses.replace(shard, file=files.join(folder, shard.file))
            for folder, split in splits
            for shard in split.shards
        ),
        rows=rows,
        tokens=tokens,
        documents=documents,
        split_documents=split_documents,
        fill_fraction=tokens / (rows * pairs[0][1].row_length) if rows else 0.0,
        unigram_cross_entropy=nats / tokens if tokens else 0.0,
    )


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for each in counts:
        total.update(each)
    return dict(total)
