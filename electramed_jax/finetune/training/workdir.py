"""What a fine-tuning folder holds.

workdir/config.json            the settings
workdir/task.json              what the model is: its head, sizes, special ids, and the encoder it began as
workdir/vocab.txt              its vocabulary
workdir/data.json              the corpus: files with their SHA-256, sizes of the splits
workdir/results.json, .md      scores, of each seed and over all
workdir/seed-0/scores.json     a finished run's; its best parameters are in best/checkpoints
workdir/seed-0/metrics.jsonl   the way there
workdir/seed-0/starts.json     when it was begun or went on, and on what
workdir/seed-0/checkpoints     while it is on that way
"""

from __future__ import annotations

import dataclasses
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import RUNTIME_SETTINGS, FinetuneConfig
from electramed_jax.data.tokenizer import vocab
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import Task

CONFIG_FILE, TASK_FILE, DATA_FILE = "config.json", "task.json", "data.json"
RESULTS_FILE, TABLE_FILE, SCORES_FILE = "results.json", "results.md", "scores.json"


def seed_folder(workdir: str, seed: int) -> str:
    return files.join(workdir, f"seed-{seed}")


def is_finetuned(workdir: str) -> bool:
    """Whether a folder is one of these."""
    return files.exists(files.join(workdir, TASK_FILE))


def read_model_spec(workdir: str) -> ModelSpec:
    return ModelSpec.from_json(files.read_json(files.join(workdir, TASK_FILE)))


def init_workdir(workdir: str, config: FinetuneConfig, described: ModelSpec, start: InitEncoder, task: Task) -> None:
    """Writes the files that explain the run, or checks those of an earlier start.

    Raises:
      UserError, in every process: the folder holds a run of other settings or of other files.
    """
    held = {
        CONFIG_FILE: dataclasses.asdict(config),
        TASK_FILE: described.to_json(),
        DATA_FILE: dict(task.account()),
    }
    earlier = {name: files.read_json(path) for name, path in _paths(workdir, held) if files.exists(path)}
    if earlier:
        if CONFIG_FILE in earlier:
            earlier[CONFIG_FILE] = config_io.rename_settings(earlier[CONFIG_FILE])
        changed = [line for name, values in earlier.items() for line in _differences(name, values, held[name])]
        if changed:
            raise UserError(
                f"{workdir} holds a run that was started otherwise ({'; '.join(changed[:4])}); use a new --workdir, or "
                "start it as it was"
            )
    elif files.exists(workdir) and files.list_dir(workdir):
        raise UserError(f"{workdir}: not empty, and no fine-tuning run; use a new --workdir")
    distributed.check_shared(workdir)  # nobody writes before all have looked
    if distributed.is_main():
        vocab.write_vocab(files.join(workdir, vocab.VOCAB_FILE), start.tokens)
        for name, path in _paths(workdir, held):
            files.write_json(path, held[name])


def _paths(workdir: str, held: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, files.join(workdir, name)) for name in held]


def _differences(name: str, earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [
        f"{name.removesuffix('.json')}.{key}: {old!r} -> {new!r}"
        for key, (old, new) in config_io.diff_settings(earlier, now).items()
        if not key.removeprefix("model.").startswith(RUNTIME_SETTINGS)
    ]
