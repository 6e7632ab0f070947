"""results.json and results.md: scores with their data, seeds and settings."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax import __version__
from electramed_jax.common import config_io, markdown
from electramed_jax.common.markdown import table
from electramed_jax.common.storage import files
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.finetune import card_scores, published
from electramed_jax.finetune.task import metrics
from electramed_jax.finetune.task.init_encoder import InitEncoder
from electramed_jax.finetune.task.task import DEV, TEST, Task
from electramed_jax.finetune.training import workdir

Results = dict[str, Any]
CLASS_MEASURES = ("precision", "recall", "f1")  # "f1/LABEL" and so on
MERGED = "merged_"  # begins the names of scores with all types of entities merged into one


def gather_results(
    config: FinetuneConfig, task: Task, encoder: InitEncoder, finished: Sequence[Mapping[str, Any]]
) -> Results:
    """Returns the content of results.json.

    Args:
      finished: scores of the finished seeds, from `loop.run_seed`.
    """
    splits = [split for split in (DEV, TEST) if all(split in scores for scores in finished)]
    data = dict(task.data_summary())
    variant = published.find_variant({split: file.get("sha256") for split, file in data["files"].items()})
    return {
        "task": task.kind,
        "variant": published.variant_name(variant),
        "published": [score._asdict() for score in published.comparable_scores(variant)],
        "data": data,
        "encoder": encoder.source,
        "primary": task.primary,
        "seeds": [scores["seed"] for scores in finished],
        "seeds_wanted": config.seeds,
        "scores": {split: _over_seeds([scores[split] for scores in finished]) for split in splits},
        "warnings": [
            *task.data_warnings(),
            *(f"seed {scores['seed']}: {warning}" for scores in finished for warning in scores.get("warnings", ())),
        ],
        "runs": [dict(scores) for scores in finished],
        "config": dataclasses.asdict(config),
        "code": f"electramed_jax {__version__}",
    }


def _over_seeds(each: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    summary = {}
    for name in (name for name in each[0] if all(name in scores for scores in each)):
        mean, deviation = metrics.mean_and_std([scores[name] for scores in each])
        summary[name] = {"mean": mean, "standard_deviation": deviation}
    return summary


def write_results(run_folder: str, results: Results) -> None:
    """Writes results.json and results.md."""
    files.write_json(files.join(run_folder, workdir.RESULTS_FILE), results)
    files.write_text(files.join(run_folder, workdir.TABLE_FILE), to_markdown(results))


def summary_lines(results: Results) -> list[str]:
    """Returns the lines logged at the end of a run."""
    return [
        f"{split}: {results['primary']} {_format_mean(scores[results['primary']], len(results['seeds']))}"
        for split, scores in results["scores"].items()
    ]


def to_markdown(results: Results) -> str:
    """Returns the text of results.md."""
    seeds = len(results["seeds"])
    splits = list(results["scores"])
    lines = [
        f"# {markdown.escape(results['task'])}",
        "",
        f"Corpus: {markdown.escape(results['variant'])}.",
        "",
        f"Encoder: {markdown.escape(results['encoder'])}. Seeds: {', '.join(map(str, results['seeds']))}; mean ± "
        "standard deviation. Test scores are of the checkpoint that dev chose by "
        f"{markdown.escape(results['primary'])}, measured once.",
        *_negative_lines(results),
        *_warning_lines(results),
        "",
        f"| score | {' | '.join(splits)} |",
        f"|---|{'---|' * len(splits)}",
    ]
    names = [results["primary"], *(name for scores in results["scores"].values() for name in scores)]
    for name in dict.fromkeys(name for name in names if "/" not in name or name == results["primary"]):
        cells = " | ".join(_format_mean(results["scores"][split].get(name), seeds) for split in splits)
        lines.append(f"| {markdown.cell(name)} | {cells} |")
    lines += _class_lines(results, splits)
    if results["published"] and TEST in splits:
        ours = _format_mean(results["scores"][TEST][results["primary"]], seeds)
        rows = [["this one", results["primary"], ours, ""]]
        rows += [[one["model"], one["metric"], f"{one['value']:.2f}", one["source"]] for one in results["published"]]
        lines += ["", "Published on the same files:", "", table(["model", "score", "test", "source"], rows)]
    lines += ["", table(["split", "file", "SHA-256", "sizes"], _file_rows(results))]
    return "\n".join(lines) + "\n"


def _file_rows(results: Results) -> list[list[Any]]:
    """Returns a row per split with its file, hash and sizes, then a row per file of a split with several files."""
    rows = []
    sizes_of, file_of = results["data"]["sizes"], results["data"]["files"]
    for split, sizes in sizes_of.items():
        file = file_of.get(split, {})
        several = any(name.startswith(f"{split} ") for name in file_of)
        counts = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sizes.items() if count)
        path = file.get("path", "" if several else "held out of the training file")
        rows.append([split, path, file.get("sha256", "")[:16], counts])
    rows += [[name, file["path"], file["sha256"][:16], ""] for name, file in file_of.items() if name not in sizes_of]
    return rows


def _negative_lines(results: Results) -> list[str]:
    """Returns the line that names the label of relations that is not scored; [] for other tasks."""
    if not (negative := results["data"].get("negative")):
        return []
    counted = ", ".join(map(markdown.escape, results["data"]["counted"]))
    return ["", f"Scored labels: {counted}. Not scored, because it means no relation: {markdown.escape(negative)}."]


def _warning_lines(results: Results) -> list[str]:
    """Returns the list of warnings about the data; [] if there are none."""
    if not (warnings := results.get("warnings")):  # version 0.1 has none
        return []
    return ["", "What limits these scores:", "", *(f"- {markdown.escape(warning)}" for warning in warnings)]


def _class_lines(results: Results, splits: Sequence[str]) -> list[str]:
    """Returns a table of the scores of single classes, such as "f1/LABEL", a row per class; [] if there are none."""
    scores, seeds = results["scores"], len(results["seeds"])
    names = dict.fromkeys(name for split in splits for name in scores[split] if "/" in name)
    if not names:
        return []
    measures = [name for name in CLASS_MEASURES if any(one.startswith(f"{name}/") for one in names)]
    counts = results["data"].get("labels")  # a list of tags in NER
    counted = isinstance(counts, dict)
    head, rows = ["class"], []
    for split in splits:
        head += [f"{split} examples"] * counted + [f"{split} {measure}" for measure in measures]
    for label in sorted({name.partition("/")[2] for name in names}):
        row: list[Any] = [label]
        for split in splits:
            row += [counts[split].get(label, 0)] if counted else []
            row += [_format_mean(scores[split].get(f"{measure}/{label}"), seeds) for measure in measures]
        rows.append(row)
    return ["", table(head, rows)]


def _without_folders(source: str) -> str:
    """Returns "small, step 100 of 100" for "/home/user/runs/small, step 100 of 100": a card has no local path."""
    path, comma, rest = source.partition(",")
    return posixpath.basename(path.rstrip("/")) + comma + rest


def card_data(results: Results, run: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns data, recipe and scores of one seed for its model card."""
    data = {"task": results["task"], "variant": results["variant"]}
    for split, sizes in results["data"]["sizes"].items():
        data[split] = ", ".join(f"{count:,} {name}" for name, count in sizes.items())
    if warnings := card_scores.listed_warnings(results):
        data["limits of the scores"] = "; ".join(warnings)
    for split, file in results["data"]["files"].items():
        data[f"SHA-256 of {split}"] = file["sha256"]
    config = config_io.from_saved(FinetuneConfig, results["config"], "results.json: config")
    recipe = {
        "code": results["code"],
        "encoder": card_scores.names_alone(_without_folders(results["encoder"]), [config.qa.pretrain_stage.train]),
        "seed": run["seed"],
        "epochs": f"{run['best_epoch']:.2f}, the best on dev of {config.epochs:g}",
        "batch": f"{config.batch_size} examples",
        "learning rate": config.optimizer.learning_rate,
        "layer-wise decay": config.optimizer.layerwise_lr_decay,
    }
    scores = {
        f"{split} {name}": value
        for split in (DEV, TEST)
        for name, value in run.get(split, {}).items()
        if name == results["primary"] or not ("/" in name or name.startswith(MERGED))
    }
    over = results["scores"].get(TEST, results["scores"][DEV])[results["primary"]]
    scores[f"{results['primary']} over {len(results['seeds'])} seeds"] = _format_mean(over, len(results["seeds"]))
    return data, recipe, scores


def dev_curve(results: Results, run: Mapping[str, Any]) -> str:
    """Returns a Markdown table of the dev scores of one seed, by epoch."""
    names = [
        name for name in dict.fromkeys((results["primary"], *metrics.SECONDARY_METRICS)) if name in run["history"][0]
    ]
    rows = [
        [f"{scores['epoch']:.2f}", f"{int(scores['step']):,}", *(f"{scores[name]:.2f}" for name in names)]
        for scores in run["history"]
    ]
    return table(["epoch", "step", *(f"dev {name}" for name in names)], rows)


def _format_mean(value: Mapping[str, float] | None, seeds: int) -> str:
    if value is None:
        return ""
    deviation = f" ± {value['standard_deviation']:.2f}" if seeds > 1 else ""
    return f"{value['mean']:.2f}{deviation}"
