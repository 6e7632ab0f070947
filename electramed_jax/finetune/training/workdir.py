"""Files of a fine-tuning workdir.

workdir/config.json            settings
workdir/task.json              `ModelSpec`: head, sizes, special ids, words, and the encoder that the run started from
workdir/vocab.txt              vocabulary
workdir/data.json              files of the corpus with their SHA-256, sizes of the splits
workdir/results.json, .md      scores of each seed, and their mean
workdir/seed-0/scores.json     written when the seed is finished; its best parameters are in best/checkpoints
workdir/seed-0/predictions-test.txt  predictions in the format of the corpus; also of dev
workdir/seed-0/records-test.jsonl    the same with the texts, one example a line (`Task.records`); also of dev
workdir/seed-0/metrics.jsonl   metrics during training
workdir/seed-0/history.jsonl   settings, versions, hosts and steps of each start of the seed (training/starts.py)
workdir/seed-0/checkpoints     removed when the seed is finished
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from electramed_jax.common import config_io
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files
from electramed_jax.common.storage.folder_lock import LOCK_FILE
from electramed_jax.config.finetune import FILE, RUNTIME_SETTINGS, FinetuneConfig
from electramed_jax.data.tokenizer import vocab
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import Task

CONFIG_FILE, TASK_FILE, DATA_FILE = "config.json", "task.json", "data.json"
RESULTS_FILE, TABLE_FILE, SCORES_FILE = "results.json", "results.md", "scores.json"
CHANGES_SHOWN = 4  # changed settings named in an error
# Values of settings that a config.json of an earlier version does not have, where they are not the defaults of today.
EARLIER_VALUES = {"ner": {"words": FILE}}
# Settings that are compared by their effect: data.json lists the counted labels. Up to version 0.1 "false" was part of
# the negative label's name; now it is the whole name, and "" finds DDI-2013's "DDI-false" too.
COMPARED_BY_EFFECT = ("text.negative",)


def seed_folder(workdir: str, seed: int) -> str:
    """Returns the folder of one seed."""
    return files.join(workdir, f"seed-{seed}")


def predictions_file(split: str) -> str:
    """Returns the name of the file with the predictions of a split, in the folder of a seed."""
    return f"predictions-{split}.txt"


def records_file(split: str) -> str:
    """Returns the name of the file with the records of a split, in the folder of a seed."""
    return f"records-{split}.jsonl"


def is_finetuned(workdir: str) -> bool:
    """Returns whether the folder is a fine-tuning workdir."""
    return files.exists(files.join(workdir, TASK_FILE))


def read_model_spec(workdir: str) -> ModelSpec:
    """Reads task.json.

    Raises:
      UserError: the file is damaged.
    """
    path = files.join(workdir, TASK_FILE)
    return ModelSpec.from_json(files.read_json(path), path)


def read_config(workdir: str) -> dict[str, Any]:
    """Reads config.json with the names of today; {} if there is none.

    A setting that the version of the run did not have is added, with the value that describes what that version did.

    Raises:
      UserError: the file is damaged; names the setting.
    """
    path = files.join(workdir, CONFIG_FILE)
    if not files.exists(path):
        return {}
    saved = config_io.rename_settings(files.read_json(path, dict[str, Any]))
    for values in (EARLIER_VALUES, dataclasses.asdict(FinetuneConfig())):
        saved = _add_missing(saved, values)
    return dataclasses.asdict(config_io.from_saved(FinetuneConfig, saved, f"{path}: config"))


def keep_earlier_words(config: FinetuneConfig, workdir: str) -> FinetuneConfig:
    """Returns the config with config.ner.words of the run in the workdir if an earlier version started it.

    Such a run can then be resumed with its command, which does not name the setting.
    """
    path = files.join(workdir, CONFIG_FILE)
    if not files.exists(path) or "words" in files.read_json(path, dict[str, Any]).get("ner", {}):
        return config
    return dataclasses.replace(config, ner=dataclasses.replace(config.ner, words=FILE))


def _add_missing(values: dict[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested values with those of `others` that it lacks."""
    added = {name: other for name, other in others.items() if name not in values}
    nested = {
        name: _add_missing(value, others[name])
        for name, value in values.items()
        if isinstance(value, dict) and isinstance(others.get(name), Mapping)
    }
    return values | nested | added


def init_workdir(workdir: str, config: FinetuneConfig, spec: ModelSpec, encoder: InitEncoder, task: Task) -> None:
    """Writes the files that describe the run, or checks those of an earlier start.

    Raises:
      UserError: in every process, if the folder holds a run with other settings or other files.
    """
    contents = {
        CONFIG_FILE: dataclasses.asdict(config),
        TASK_FILE: spec.to_json(),
        DATA_FILE: dict(task.data_summary()),
    }
    paths = {name: files.join(workdir, name) for name in contents}
    earlier = {name: files.read_json(path, dict[str, Any]) for name, path in paths.items() if files.exists(path)}
    if earlier:
        if CONFIG_FILE in earlier:
            earlier[CONFIG_FILE] = read_config(workdir)
        for name in (TASK_FILE, DATA_FILE):  # an earlier version recorded less
            if name in earlier:
                earlier[name] = _add_missing(earlier[name], contents[name])
        changes = [line for name, values in earlier.items() for line in _changes(name, values, contents[name])]
        if changes:
            raise UserError(
                f"{workdir} holds a run with other settings or data ({'; '.join(changes[:CHANGES_SHOWN])}); use a new "
                "--workdir, or the settings and files that it was started with"
            )
    elif files.exists(workdir) and set(files.list_dir(workdir)) - {LOCK_FILE}:
        raise UserError(f"{workdir}: not empty, and not a fine-tuning run; use a new --workdir")
    distributed.check_shared(workdir)  # no process writes before all have read
    if distributed.is_main():
        vocab.write_vocab(files.join(workdir, vocab.VOCAB_FILE), encoder.tokens)
        for name, path in paths.items():
            files.write_json(path, contents[name])


def _changes(name: str, earlier: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Returns "config.batch_size: 4 -> 2" for every value that differs and may not."""
    return [
        f"{name.removesuffix('.json')}.{key}: {old!r} -> {new!r}"
        for key, (old, new) in config_io.diff_settings(earlier, now).items()
        if not key.removeprefix("model.").startswith(RUNTIME_SETTINGS) and key not in COMPARED_BY_EFFECT
    ]
