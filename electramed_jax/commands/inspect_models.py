"""Shows workdirs, checkpoints and Hugging Face folders, for `electramed inspect`."""

from __future__ import annotations

import argparse
import math
import posixpath
from typing import Any

from electramed_jax.commands.inspect_data import say_facts, say_table
from electramed_jax.common import console
from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.storage import files

SHOWN_METRICS = (
    "loss", "generator_loss", "generator_accuracy", "discriminator_loss", "discriminator_auc", "discriminator_recall",
    "tokens_per_second",
)  # fmt: skip
LABELS_SHOWN = 12


def show_workdir_or_model(folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Shows a workdir of pre-training, or the Hugging Face folder of one model: both have a config.json."""
    config = files.read_json(files.join(folder, "config.json"), dict[str, Any])
    return show_models(folder, args) if "model_type" in config else show_workdir(folder)


def show_workdir(folder: str) -> dict[str, Any]:
    """Shows the recipe of a pre-training run by phases, its newest metrics, its checkpoints and its starts."""
    from electramed_jax.config.pretrain import to_dict
    from electramed_jax.hf.card import describe_recipe
    from electramed_jax.pretrain import history

    run = history.read_history(folder)
    phases = run.phases()
    recipe = {"steps": f"{run.step:,} of {run.config.total_steps:,}"}
    recipe |= history.describe_by_phase(phases, run.config, describe_recipe)
    steps = list_steps(files.join(folder, "checkpoints"))
    say_facts(recipe | {"checkpoints": ", ".join(f"{step:,}" for step in steps) or "none"})
    newest = {split: entries[-1] for split in ("train", "validation") if (entries := run.split(split))}
    names = [name for name in SHOWN_METRICS if any(name in entry for entry in newest.values())]
    say_table(
        ["newest metrics", "step", *names],
        [[split, entry["step"], *(entry.get(name, "") for name in names)] for split, entry in newest.items()],
    )
    for name, values in history.changed_during_run(phases).items():
        listed = "; ".join(f"{phase}: {value!r}" for phase, value in zip(phases, values, strict=True))
        console.say(f"changed during the run: {name}: {listed}")
    for start in run.starts:
        console.say(
            f"start after step {start['step']:,}, {start['time']}: {start['devices']} × {start['device_kind']}"
            + (f", ended at step {start['last_step']:,}: {start['end']}" if "end" in start else "")
        )
    console.say(f"all settings: {files.join(folder, 'config.json')}")
    settings = to_dict(run.config)
    return {
        "kind": "training",
        "config": settings,
        "step": run.step,
        "checkpoints": steps,
        "recipe": recipe,
        "starts": list(run.starts),
    }


def show_finetuning(folder: str, args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 the signature of FOLDERS
    """Shows task, encoder, files and scores of a fine-tuning run, and the seeds that are finished."""
    from electramed_jax.finetune.task import result_files
    from electramed_jax.finetune.training import workdir

    config, spec = workdir.read_config(folder), workdir.read_model_spec(folder)
    facts: dict[str, Any] = {"kind": spec.head.kind, "encoder": spec.source, "labels": _shorten(spec.head.labels)}
    data_path = files.join(folder, workdir.DATA_FILE)
    if files.exists(data_path):
        data = result_files.read_data_summary(data_path)
        facts |= {split: f"{file['path']}, {_sizes(data['sizes'].get(split))}" for split, file in data["files"].items()}
    path = files.join(folder, workdir.RESULTS_FILE)
    results = result_files.read_results(path) if files.exists(path) else {}
    facts["seeds"] = f"{len(results.get('seeds', ()))} of {config.get('seeds', 1)} finished"
    say_facts(facts)
    if results:
        _say_scores(results)
        console.say(f"all scores: {files.join(folder, workdir.TABLE_FILE)}")
    console.say(f"all settings: {files.join(folder, workdir.CONFIG_FILE)}")
    return {"kind": "training", "config": config, "task": facts, "scores": results.get("scores", {})}


def _say_scores(results: dict[str, Any]) -> None:
    splits = list(results["scores"])
    primary = results["primary"]
    say_table(
        [primary, *splits],
        [
            *([f"seed {run['seed']}", *(run[split][primary] for split in splits)] for run in results["runs"]),
            ["mean", *(results["scores"][split][primary]["mean"] for split in splits)],
        ],
    )


def _sizes(counts: dict[str, int] | None) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in (counts or {}).items())


def show_checkpoints(folder: str) -> dict[str, Any]:
    """Shows the steps of a folder of checkpoints."""
    steps = list_steps(folder)
    if not steps:
        raise UserError(f"{folder}: holds no complete checkpoint; electramed pretrain and finetune write them")
    say_facts({"checkpoints": ", ".join(f"{step:,}" for step in steps), "newest": files.join(folder, str(steps[-1]))})
    return {"kind": "checkpoints", "steps": steps}


def list_steps(folder: str) -> list[int]:
    """Returns the steps of the complete checkpoints in a folder, in order; [] if there is no folder."""
    if not files.is_dir(folder):
        return []
    names = [name for name in files.list_dir(folder) if name.isdecimal()]
    return sorted(int(name) for name in names if files.exists(files.join(folder, name, "_CHECKPOINT_METADATA")))


def show_checkpoint(folder: str, args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 the signature of FOLDERS
    """Shows the counters and the arrays of one checkpoint, by the first parts of their names; reads no array."""
    counters = files.read_json(files.join(folder, "clock", "metadata"), dict[str, Any])
    groups: dict[str, list[int]] = {}
    for name, size in _array_sizes(files.join(folder, "state")).items():
        groups.setdefault("/".join(name.split("/")[:2]), []).append(size)
    say_facts(
        {"checkpoint": folder} | {name: value for name, value in counters.items() if isinstance(value, int | float)}
    )
    say_table(["arrays", "number", "values"], [[name, len(sizes), sum(sizes)] for name, sizes in groups.items()])
    params = sum(sum(sizes) for name, sizes in groups.items() if name.startswith("params"))
    return {"kind": "checkpoint", "step": counters.get("step"), "parameters": params, "counters": counters}


def _array_sizes(folder: str) -> dict[str, int]:
    """Returns the number of values of each array in a checkpoint, by name, from its metadata."""
    import jax
    import orbax.checkpoint as ocp
    from etils import epath

    try:
        tree = ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder)).tree
    except Exception as error:
        raise UserError(f"{folder}: cannot be read ({first_line(error)}); choose another step") from error
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: hasattr(leaf, "shape"))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): math.prod(leaf.shape) for path, leaf in leaves}


def show_models(folder: str, args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 the signature of FOLDERS
    """Shows sizes, vocabulary and labels of each model in a Hugging Face folder, or in its subfolders."""
    from electramed_jax.hf.format import model_dir

    rows, models = [], []
    for path, _ in model_dir.find_networks(folder):
        models.append(_describe_model(path))
    names = list(dict.fromkeys(name for model in models for name in model))
    rows = [[name, *(model.get(name, "") for model in models)] for name in names]
    say_table(["", *(posixpath.basename(path) or path for path, _ in model_dir.find_networks(folder))], rows)
    return {"kind": "models", "models": models}


def _describe_model(folder: str) -> dict[str, Any]:
    from electramed_jax.hf.format import config_json, model_dir, weights

    path = files.join(folder, model_dir.CONFIG)
    config = model_dir.read_config(folder)
    sizes = config_json.from_config_json(config, path)
    tensors = weights.read_tensors(folder)
    labels = list((config.get("id2label") or {}).values())
    facts = {
        "class": ", ".join(config.get("architectures") or ["not stated"]),
        "parameters": f"{sum(tensor.size for tensor in tensors.values()):,}",
        "dtype": ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()})),
        "layers": sizes.num_layers,
        "width": sizes.hidden_size,
        "heads": sizes.num_heads,
        "embeddings": sizes.embedding_size,
        "vocabulary": f"{sizes.vocab_size:,}",
        "positions": sizes.max_positions,
    }
    if labels:
        facts["labels"] = _shorten(labels)
    missing = [name for name in ("vocab.txt", "tokenizer.json") if not files.exists(files.join(folder, name))]
    return facts | ({"lacks": ", ".join(missing)} if missing else {})


def _shorten(labels: Any) -> str:
    more = f", … {len(labels)} in all" if len(labels) > LABELS_SHOWN else ""
    return ", ".join(map(str, labels[:LABELS_SHOWN])) + more


def find_tensorflow_checkpoint(folder: str) -> dict[str, Any] | None:
    """Shows that a folder holds a checkpoint of TensorFlow 1; None if it does not."""
    from electramed_jax.hf.format import tf_checkpoint

    prefix = tf_checkpoint.find_checkpoint(folder)
    if prefix is None:
        return None
    console.say(f"{prefix}: a checkpoint of TensorFlow; electramed import --input={folder} --converted=DIR converts it")
    return {"kind": "tensorflow checkpoint", "prefix": prefix}
