"""What a run reads: one packed folder, or several that agree, as one dataset."""

from __future__ import annotations

import collections
import dataclasses
import posixpath
from collections.abc import Iterable, Sequence

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.dataset import manifest as manifests
from electramed_jax.data.dataset.manifest import Manifest, Split
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Packed folders, in the order named, and the manifest of each."""

    folders: tuple[str, ...]
    manifests: tuple[Manifest, ...]

    @property
    def vocab_path(self) -> str:
        """The vocabulary that all folders speak."""
        return files.join(self.folders[0], VOCAB_FILE)

    def num_rows(self, split: str) -> tuple[int, ...]:
        """Rows of a split in each folder; 0 where it has no such split."""
        return tuple(m.splits[split].rows if split in m.splits else 0 for m in self.manifests)

    def verify_shards(self) -> None:
        """As `manifest.verify_shards`, for every folder."""
        for folder, manifest in zip(self.folders, self.manifests, strict=True):
            manifests.verify_shards(folder, manifest)

    @property
    def manifest(self) -> Manifest:
        """One manifest for the whole: a folder's own, or the sums and lists of several.

        Its shards are then named by their full paths and its sources by folder, and a split's unigram cross-entropy
        is the folders' mean, weighted by their tokens, each under its own distribution.
        """
        if len(self.folders) == 1:
            return self.manifests[0]
        splits = {name: None for manifest in self.manifests for name in manifest.splits}
        pairs = list(zip(self.folders, self.manifests, strict=True))
        return dataclasses.replace(
            self.manifests[0],
            name=" + ".join(posixpath.basename(folder) for folder in self.folders),
            splits={name: _split_of_all(name, pairs) for name in splits},
            sources=[{"folder": folder, **source} for folder, manifest in pairs for source in manifest.sources],
            dropped=_sum(manifest.dropped for manifest in self.manifests),
            length_histogram=_sum(manifest.length_histogram for manifest in self.manifests),
            code_version=", ".join(sorted({manifest.code_version for manifest in self.manifests})),
        )


def open_dataset(directory: str) -> Dataset:
    """Reads and checks the packed folder of that name, or several with commas between.

    Raises:
      UserError: as `manifest.read`, a folder named twice, or two that differ in vocabulary, row length or casing.
    """
    names = parse_folders(directory)
    for number, name in enumerate(names):
        if name in names[:number]:
            raise UserError(f"{name} is named twice in {directory}; to see more of its rows give it a larger weight")
    dataset = Dataset(names, tuple(map(manifests.read_manifest, names)))
    for folder, manifest in zip(names[1:], dataset.manifests[1:]):
        _agree(names[0], dataset.manifests[0], folder, manifest)
    return dataset


def parse_folders(directory: str) -> tuple[str, ...]:
    """The folders that a setting names: one, or several with commas between."""
    return tuple(name for part in directory.split(",") if (name := part.strip().rstrip("/") or part.strip()))


def _agree(first: str, a: Manifest, folder: str, b: Manifest) -> None:
    differences = [
        ("vocabularies", a.vocab_sha256 == b.vocab_sha256, f"{a.vocab_size:,} and {b.vocab_size:,} tokens", "--vocab"),
        ("row lengths", a.row_length == b.row_length, f"{a.row_length} and {b.row_length} ids", "--max_seq_length"),
        ("casings", a.lower_case == b.lower_case, f"lower-cased: {a.lower_case} and {b.lower_case}", "--cased"),
    ]
    for what, same, both, flag in differences:
        if not same:
            raise UserError(
                f"{first} and {folder} have different {what} ({both}) and can't be mixed; "
                f"pack one of them again with the other's {flag}"
            )


def _split_of_all(name: str, pairs: Sequence[tuple[str, Manifest]]) -> Split:
    held = [(folder, manifest.splits[name]) for folder, manifest in pairs if name in manifest.splits]
    rows, tokens, documents, split_documents = (
        sum(getattr(split, figure) for _, split in held)
        for figure in ("rows", "tokens", "documents", "split_documents")
    )
    nats = sum(split.unigram_cross_entropy * split.tokens for _, split in held)
    return dataclasses.replace(
        held[0][1],
        shards=tuple(
            dataclasses.replace(shard, file=files.join(folder, shard.file))
            for folder, split in held
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
