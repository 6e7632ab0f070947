"""results.json and results.md: scores that carry their data, seeds and settings with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax import __version__
from electramed_jax.common.markdown import table
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune import published
from electramed_jax.finetune.task import metrics
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import DEV, TEST, Task
from electramed_jax.finetune.training import workdir
from electramed_jax.finetune.training.loop import SECONDARY_METRICS

Results = dict[str, Any]


def gather_results(
    config: FinetuneConfig, task: Task, start: InitEncoder, done: Sequence[Mapping[str, Any]]
) -> Results:
    """What results.json holds.

    Args:
      done: the scores of the seeds that are (see `loop.run_seed`).
    """
    splits = [split for split in (DEV, TEST) if split in task.splits]
    data = dict(task.data_summary())
    variant = published.find_variant({split: file.get("sha256") for split, file in data["files"].items()})
    return {
        "task": task.kind,
        "variant": published.variant_name(variant),
        "published": [score._asdict() for score in published.comparable_scores(variant)],
        "data": data,
        "encoder": start.source,
        "primary": task.primary,
        "seeds": [scores["seed"] for scores in done],
        "seeds_wanted": config.seeds,
        "scores": {split: _over_seeds([scores[split] for scores in done]) for split in splits},
        "runs": [dict(scores) for scores in done],
        "config": dataclasses.asdict(config),
        "code": f"electramed_jax {__version__}",
    }


def _over_seeds(each: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    found = {}
    for name in each[0]:
        mean, deviation = metrics.mean_and_std([scores[name] for scores in each])
        found[name] = {"mean": mean, "standard_deviation": deviation}
    return found


def write_results(folder: str, found: Results) -> None:
    files.write_json(files.join(folder, workdir.RESULTS_FILE), found)
    files.write_text(files.join(folder, workdir.TABLE_FILE), to_markdown(found))


def summary_lines(found: Results) -> list[str]:
    """Lines for a person at the end of a run."""
    return [
        f"{split}: {found['primary']} {_shown(scores[found['primary']], len(found['seeds']))}"
        for split, scores in found["scores"].items()
    ]


def to_markdown(found: Results) -> str:
    """The same as tables."""
    seeds = len(found["seeds"])
    splits = list(found["scores"])
    lines = [
        f"# {found['task']}",
        "",
        f"Corpus: {found['variant']}.",
        "",
        f"Encoder: {found['encoder']}. Seeds: {', '.join(map(str, found['seeds']))}; mean ± standard deviation. "
        f"Test scores are of the checkpoint that dev chose by {found['primary']}, measured once.",
        "",
        f"| score | {' | '.join(splits)} |",
        f"|---|{'---|' * len(splits)}",
    ]
    names = [found["primary"], *(name for scores in found["scores"].values() for name in scores)]
    for name in dict.fromkeys(names):
        cells = " | ".join(_shown(found["scores"][split].get(name), seeds) for split in splits)
        lines.append(f"| {name} | {cells} |")
    if found["published"] and TEST in splits:
        lines += ["", "Published on the same files:", "", "| model | score | test | source |", "|---|---|---|---|"]
        ours = _shown(found["scores"][TEST][found["primary"]], seeds)
        lines.append(f"| this one | {found['primary']} | {ours} | |")
        for score in found["published"]:
            lines.append(f"| {score['model']} | {score['metric']} | {score['value']:.2f} | {score['source']} |")
    lines += ["", "| split | file | SHA-256 | sizes |", "|---|---|---|---|"]
    for split, sizes in found["data"]["sizes"].items():
        file = found["data"]["files"].get(split, {})
        several = any(name.startswith(f"{split} ") for name in found["data"]["files"])
        said = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sizes.items() if count)
        path = file.get("path", "" if several else "held out of the training file")
        lines.append(f"| {split} | {path} | {file.get('sha256', '')[:16]} | {said} |")
    for name, file in found["data"]["files"].items():  # of a split in several files
        if name not in found["data"]["sizes"]:
            lines.append(f"| {name} | {file['path']} | {file['sha256'][:16]} | |")
    return "\n".join(lines) + "\n"


def card_data(found: Results, run: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What a model card tells of one of the runs: its data, its recipe and its scores."""
    data = {"task": found["task"], "variant": found["variant"]}
    for split, sizes in found["data"]["sizes"].items():
        data[split] = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    for split, file in found["data"]["files"].items():
        data[f"SHA-256 of {split}"] = file["sha256"]
    config = found["config"]
    recipe = {
        "code": found["code"],
        "encoder": found["encoder"],
        "seed": run["seed"],
        "epochs": f"{run['best_epoch']:.2f}, the best on dev of {config['epochs']:g}",
        "batch": f"{config['batch_size']} examples",
        "learning rate": config["optimizer"]["learning_rate"],
        "layer-wise decay": config["optimizer"]["layerwise_lr_decay"],
    }
    scores = {
        f"{split} {name}": value
        for split in (DEV, TEST)
        for name, value in run.get(split, {}).items()
        if not name.startswith("f1/")
    }
    over = found["scores"].get(TEST, found["scores"][DEV])[found["primary"]]
    scores[f"{found['primary']} over {len(found['seeds'])} seeds"] = _shown(over, len(found["seeds"]))
    return data, recipe, scores


def dev_curve(found: Results, run: Mapping[str, Any]) -> str:
    """Dev scores of one of the runs, from its first epoch to its last, as Markdown."""
    names = [name for name in dict.fromkeys((found["primary"], *SECONDARY_METRICS)) if name in run["history"][0]]
    rows = [
        [f"{scores['epoch']:.2f}", f"{scores['step']:,}", *(f"{scores[name]:.2f}" for name in names)]
        for scores in run["history"]
    ]
    return table(["epoch", "step", *(f"dev {name}" for name in names)], rows)


def _shown(value: Mapping[str, float] | None, seeds: int) -> str:
    if value is None:
        return ""
    deviation = f" ± {value['standard_deviation']:.2f}" if seeds > 1 else ""
    return f"{value['mean']:.2f}{deviation}"
