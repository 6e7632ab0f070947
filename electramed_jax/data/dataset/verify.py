"""Checks that the shards of a packed dataset are those that its manifest describes, before and during a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.dataset.manifest import MANIFEST_FILE, Shard
from electramed_jax.data.tokenizer.vocab import VOCAB_FILE

READ_THREADS = 16  # for the ends of shards, which may be in remote storage


def verify_ends(dataset: Dataset, part: int = 0, parts: int = 1) -> None:
    """Compares the first and last 64 KiB of every shard with the manifest; shards without a record are skipped.

    Args:
      dataset: the packed folders.
      part, parts: checks every `parts`-th shard, beginning with number `part`: one part a process.

    Raises:
      UserError: names the first shard that differs, with its checksum and the one in the manifest.
    """
    recorded = [(path, shard) for path, shard in _shards(dataset, part, parts) if shard.ends_sha256]
    with futures.ThreadPoolExecutor(READ_THREADS, "verify-ends") as pool:
        digests = pool.map(lambda pair: _hash(tfrecord.hash_ends, pair[0], pair[1].ends_sha256), recorded)
        for (path, shard), got in zip(recorded, digests, strict=True):
            if got != shard.ends_sha256:
                raise _differs(path, "the SHA-256 of its first and last 64 KiB", got, shard.ends_sha256)


def verify_shards(dataset: Dataset, part: int = 0, parts: int = 1, stop: threading.Event | None = None) -> None:
    """Reads every shard completely and compares its SHA-256 with the manifest.

    Args:
      dataset, part, parts: as for `verify_ends`.
      stop: ends the comparison before the next shard when it is set.

    Raises:
      UserError: names the first shard that differs.
    """
    for path, shard in _shards(dataset, part, parts):
        if stop is not None and stop.is_set():
            return
        if (got := _hash(files.sha256, path, shard.sha256)) != shard.sha256:
            raise _differs(path, "its SHA-256", got, shard.sha256)


class BackgroundVerifier:
    """Runs `verify_shards` in a thread during the training. A context manager.

    Attributes:
      error: the mismatch that was found, or None.
    """

    def __init__(self, dataset: Dataset, part: int = 0, parts: int = 1):
        self.error: UserError | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(dataset, part, parts), name="verify", daemon=True)

    def wait(self) -> None:
        """Waits until all shards are verified."""
        self._thread.join()

    def __enter__(self) -> BackgroundVerifier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()  # a shard that is being read is read to its end by the daemon thread

    def _run(self, dataset: Dataset, part: int, parts: int) -> None:
        try:
            verify_shards(dataset, part, parts, self._stop)
        except UserError as error:
            self.error = error


class DatasetWatch:
    """Notices that the files of a dataset were replaced or written after it was opened."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        self._versions = _versions(dataset)

    def check(self) -> None:
        """Lists the folders again; files that were replaced by equal ones, such as by a copy, are accepted.

        Raises:
          UserError: a file is missing or its content differs from that at the start.
        """
        now = _versions(self._dataset)
        if now == self._versions:
            return
        for folder, manifest in zip(self._dataset.folders, self._dataset.manifests, strict=True):
            before, after = self._versions[folder], now[folder]
            expected = {VOCAB_FILE: manifest.vocab_sha256}
            expected |= {shard.file: shard.sha256 for split in manifest.splits.values() for shard in split.shards}
            for name in [name for name in before if before[name] != after.get(name)]:
                path = files.join(folder, name)
                if name not in after:
                    raise UserError(f"{path}: removed while the run trains on it; put it back, then {_RESUME}")
                if name == MANIFEST_FILE:
                    continue  # its shards and vocabulary are compared
                if (got := _hash(files.sha256, path, expected[name])) != expected[name]:
                    raise _differs(path, "replaced while the run trains on it: its SHA-256", got, expected[name])
        self._versions = now


_RESUME = "run the same command again"


def _hash(hash_file: Callable[[str], str], path: str, wanted: str) -> str:
    """Returns the hash of a file. Reads it again if it is not the wanted one, because a network can flip bits."""
    got = hash_file(path)
    return got if got == wanted else hash_file(path)


def _shards(dataset: Dataset, part: int, parts: int) -> Iterator[tuple[str, Shard]]:
    """Yields the path and the record of every `parts`-th shard."""
    shards = [
        (files.join(folder, shard.file), shard)
        for folder, manifest in zip(dataset.folders, dataset.manifests, strict=True)
        for split in manifest.splits.values()
        for shard in split.shards
    ]
    yield from shards[part::parts]


def _versions(dataset: Dataset) -> dict[str, dict[str, str]]:
    """Returns {folder: {file: version}} of the manifests, vocabularies and shards."""
    versions = {}
    for folder, manifest in zip(dataset.folders, dataset.manifests, strict=True):
        shards = {shard.file for split in manifest.splits.values() for shard in split.shards}
        found = files.versions(folder)
        versions[folder] = {name: found[name] for name in found if name in {MANIFEST_FILE, VOCAB_FILE} | shards}
    return versions


def _differs(path: str, what: str, got: str, wanted: str) -> UserError:
    return UserError(
        f"{path}: damaged or replaced: {what} is {got[:16]}…, wanted {wanted[:16]}… of {MANIFEST_FILE}; copy the "
        f"original back or pack again, then {_RESUME}"
    )
