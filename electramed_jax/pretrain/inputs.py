"""Checks before the first step: that all processes run the same, and that data and workdir allow the run to finish."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.folder_owner import FolderOwner
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.config.pretrain import Config, to_dict
from electramed_jax.data.dataset import verify
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.pretrain.state import abstract_state

# Settings that may differ between hosts: where each finds the data. Its content is compared.
HOST_SETTINGS = ("data.directory", "data.cache_directory", "data.cache_gigabytes")


def run_fields(config: Config, dataset: Dataset | None) -> dict[str, Any]:
    """Returns what all processes of a run must agree on, by name, for `agreement.check_agreement`."""
    settings = {name: value for name, value in config_io.flatten(to_dict(config)).items() if name not in HOST_SETTINGS}
    data = {} if dataset is None else dataset.fingerprint()
    return {f"config.{name}": value for name, value in settings.items()} | {
        f"dataset ({name})": value for name, value in data.items()
    }


class RunGuard:
    """Notices between steps that the run must stop: its workdir was taken over, or its data changed."""

    def __init__(self, owner: FolderOwner, watch: verify.DatasetWatch, verifier: verify.BackgroundVerifier | None):
        self._owner, self._watch, self._verifier = owner, watch, verifier

    def check(self) -> None:
        """Checks the lock, the files of the dataset and the background verification. A collective.

        Raises:
          UserError: in every process, if one of them finds a problem.
        """
        distributed.call_together(self._check, "the check of the workdir and the dataset")

    def _check(self) -> None:
        self._owner.check()
        if self._verifier is not None and self._verifier.error is not None:
            raise self._verifier.error
        if distributed.is_main():
            self._watch.check()


@contextlib.contextmanager
def guard_inputs(config: Config, dataset: Dataset, owner: FolderOwner) -> Iterator[RunGuard]:
    """Verifies the shards according to `config.data.verify_shards`, and yields the guard for the rest of the run.

    Each process verifies its own part of the shards. Remote shards with a disk cache are not downloaded again for
    the background verification; the rows that are read are verified by their CRCs.

    Raises:
      UserError: in every process, if a split has no rows or a shard differs from the manifest.
    """
    check_splits(config, dataset)
    watch = verify.DatasetWatch(dataset)
    part = jax.process_index(), jax.process_count()
    distributed.call_together(lambda: verify.verify_ends(dataset, *part), "the verification of the shards")
    if config.data.verify_shards == "first":
        log_main("verifying every shard before the first step")
        distributed.call_together(lambda: verify.verify_shards(dataset, *part), "the verification of the shards")
    is_cached = config.data.cache_directory and any(files.local_path(folder) is None for folder in dataset.folders)
    if config.data.verify_shards != "background" or is_cached:
        yield RunGuard(owner, watch, None)
        return
    with verify.BackgroundVerifier(dataset, *part) as verifier:
        yield RunGuard(owner, watch, verifier)


def check_splits(config: Config, dataset: Dataset) -> None:
    """Raises a UserError if the training or the validation split has no rows."""
    for split in ("train", "validation"):
        if not sum(dataset.num_rows(split)):
            raise UserError(
                f"{config.data.directory}: the {split} split has no rows; wanted at least one"
                + (f", for the validation every {config.eval_every:,} steps" if split == "validation" else "")
                + "; prepare the text again with a larger --validation, and pack it again"
            )


def check_space(config: Config, workdir: str, mesh: Mesh) -> None:
    """Raises a UserError in every process if a local workdir has no room for one more checkpoint."""
    shapes = jax.tree.leaves(abstract_state(config, mesh))
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in shapes)

    def check() -> None:
        if distributed.is_main():
            files.check_space(workdir, num_bytes, "a checkpoint")

    distributed.call_together(check, f"the check of the free space of {workdir}")
