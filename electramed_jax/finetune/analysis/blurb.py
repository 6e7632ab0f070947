"""The BLURB benchmark: every data set at hand in one table, and the average over its six tasks.

Source: Gu et al. 2021, arXiv 2007.15779. The BLURB score is the mean over the tasks of the mean over their data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from electramed_jax.common import markdown
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.config import finetune as config_lib
from electramed_jax.finetune import stages
from electramed_jax.finetune.corpora import prepare
from electramed_jax.finetune.corpora.registry import find_corpus
from electramed_jax.finetune.corpora.spec import published_scores
from electramed_jax.finetune.init_from import load_init_encoder
from electramed_jax.finetune.task.task import TEST

TABLE_FILE, RESULTS_FILE = "blurb.md", "blurb.json"
# Data sets of each task, and the measure of BLURB by the name of its score here.
TASKS: dict[str, dict[str, str]] = {
    "NER": {"bc5-chemical": "f1", "bc5-disease": "f1", "ncbi-disease": "f1", "bc2gm": "f1", "jnlpba-merged": "f1"},
    "PICO": {"ebm-pico": "word_macro_f1"},
    "relations": {"chemprot": "f1", "ddi": "f1", "gad": "f1/1"},
    "similarity": {"biosses": "pearson"},
    "classification": {"hoc": "f1"},
    "questions": {"pubmedqa": "accuracy", "bioasq-yesno": "accuracy"},
}
RECIPES, OTHER_RECIPE = {"ner": "finetune_ner"}, "finetune_relations"  # by kind of the corpus
# Columns of the table, those with most scores.
MODELS = ("BERT-base uncased", "SciBERT uncased", "BioBERT v1.1", "PubMedBERT", "BioLinkBERT-base", "BioLinkBERT-large")
VARIANT = "BLURB's files"


class DataSet(NamedTuple):
    """A data set of BLURB."""

    name: str
    task: str
    measure: str


DATA_SETS = tuple(DataSet(name, task, measure) for task, names in TASKS.items() for name, measure in names.items())


def find_data_sets(data_folder: str) -> list[str]:
    """Returns the names of the data sets that are prepared in folders of their name.

    Raises:
      UserError: there is none.
    """
    found = [one.name for one in DATA_SETS if files.exists(files.join(data_folder, one.name, prepare.RECORD_FILE))]
    if not found:
        raise UserError(
            f"{data_folder}: no prepared data set of BLURB in it ({', '.join(one.name for one in DATA_SETS)}); run "
            f"electramed corpora prepare NAME --source FOLDER --output {data_folder}/NAME"
        )
    return found


def run_blurb(model: str, data_folder: str, arguments: Sequence[str], run_folder: str) -> dict[str, Any] | None:
    """Fine-tunes a model on each data set with the settings of its recipe, and writes blurb.md and blurb.json.

    Args:
      model: value of config.init.
      data_folder: holds a folder for each data set, see `find_data_sets`.
      arguments: settings for all data sets, `--config...`.
      run_folder: gets a workdir for each data set; finished ones are not trained again.

    Returns:
      The content of blurb.json; None if SIGTERM ended it, after a save.

    Raises:
      UserError: see `prepare.add_settings` and `stages.run_stages`.
    """
    results: dict[str, Mapping[str, Any]] = {}
    table: dict[str, Any] = {}
    found = find_data_sets(data_folder)
    configs = {}
    if any(argument.startswith("--config=") for argument in arguments):
        raise UserError("--config: each data set of BLURB has a recipe of its own; omit it, and change single settings")
    for name in found:  # all are checked before the first is trained
        recipe = RECIPES.get(find_corpus(name).kind, OTHER_RECIPE)
        data = files.join(data_folder, name)
        flags = [f"--config={recipe}", f"--config.task.corpus={name}", f"--config.task.data={data}"]
        configs[name] = config_lib.from_flags(prepare.add_settings([*flags, f"--config.init={model}", *arguments]))
    for number, (name, config) in enumerate(configs.items(), 1):
        log_main(f"data set {number} of {len(found)}: {name}")
        outcome = stages.run_stages(config, load_init_encoder(config), files.join(run_folder, name))
        if outcome.preempted:
            return None
        results[name] = outcome.results
        table = gather_table(model, results)
        if distributed.is_main():
            files.write_json(files.join(run_folder, RESULTS_FILE), table)
            files.write_text(files.join(run_folder, TABLE_FILE), to_markdown(table))
    return table


def gather_table(model: str, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the content of blurb.json.

    Args:
      results: contents of results.json by data set; a data set that is not at hand is missing.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in DATA_SETS:
        scores = results.get(one.name, {}).get("scores", {}).get(TEST, {})
        row: dict[str, Any] = {"task": one.task, "measure": one.measure}
        if one.measure in scores:
            row |= {**scores[one.measure], "seeds": len(results[one.name]["seeds"])}
            row["corpus"] = results[one.name]["variant"]
        rows[one.name] = row | {"published": _published(one)}
    missing = [name for name, row in rows.items() if "mean" not in row]
    return {
        "model": model,
        "rows": rows,
        "missing": missing,
        "score": macro_average({name: row["mean"] for name, row in rows.items() if "mean" in row}),
        "published": {
            name: macro_average({one: row["published"][name] for one, row in rows.items() if name in row["published"]})
            for name in MODELS
        },
    }


def macro_average(scores: Mapping[str, float]) -> float | None:
    """Returns the BLURB score: the mean over the six tasks of the mean over their data sets; None if one is missing."""
    if any(one.name not in scores for one in DATA_SETS):
        return None
    of_tasks = [sum(scores[name] for name in names) / len(names) for names in TASKS.values()]
    return sum(of_tasks) / len(of_tasks)


def _published(one: DataSet) -> dict[str, float]:
    """Returns the published scores of a data set by model: those on BLURB's files with BLURB's measure."""
    return {
        score.model: score.value
        for score in published_scores.scores_of(one.name)
        if score.measure == one.measure and score.variant == VARIANT and score.model in MODELS
    }


def to_markdown(table: Mapping[str, Any]) -> str:
    """Returns the text of blurb.md."""
    rows = []
    for name, row in table["rows"].items():
        ours = f"{row['mean']:.2f}" if "mean" in row else "not run"
        ours += f" ± {row['standard_deviation']:.2f}" if row.get("seeds", 1) > 1 else ""
        others = [f"{row['published'][model]:.2f}" if model in row["published"] else "" for model in MODELS]
        rows.append([name, row["task"], row["measure"], ours, row.get("seeds", ""), *others])
    averages = [table["score"], *(table["published"][model] for model in MODELS)]
    shown = [f"{value:.2f}" if value is not None else "" for value in averages]
    rows.append(["BLURB score", "mean of six tasks", "", shown[0] or "incomplete", "", *shown[1:]])
    missing = table["missing"]
    lines = [
        "# BLURB",
        "",
        f"Model: {markdown.escape(table['model'])}. Test scores; mean ± standard deviation over the seeds.",
        "",
        markdown.table(["data set", "task", "measure", "this model", "seeds", *MODELS], rows),
        "",
    ]
    if missing:
        lines += [f"Missing: {', '.join(missing)}. There is no BLURB score without them.", ""]
    lines += [
        "Published scores have the same measure and are of BLURB's own files (Gu et al. 2021, arXiv 2007.15779, table "
        "6; Yasunaga et al. 2022, arXiv 2203.15827, table 7). The files here are made from those of the corpora's "
        "authors: splits and sentences can differ, see `electramed corpora show NAME`. A score of other files compares "
        "with a published one only roughly.",
        "",
    ]
    return "\n".join(lines)
