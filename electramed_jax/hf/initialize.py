"""Initializes a pre-training run from a Hugging Face folder: checks that they fit, and loads the parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.main_console import log_main
from electramed_jax.common.storage import files
from electramed_jax.common.tree_rules import map_named, named_leaves
from electramed_jax.config.presets import PRESETS, encoder_sizes
from electramed_jax.config.pretrain import HF_FOLDER, Config
from electramed_jax.data.dataset.dataset import Dataset
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf import extend_embeddings
from electramed_jax.hf.convert import ImportedModel, import_folder
from electramed_jax.hf.format.mapping import DISCRIMINATOR
from electramed_jax.pretrain.state import init_params
from electramed_jax.training.state import Params

INIT_FILE = "init.json"  # in the workdir: the InitReport
MAX_NAMES_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class InitReport:
    """Names of the parameters that were loaded, initialized or ignored. Content of init.json.

    Attributes:
      init: the setting config.init.
      networks: networks in the folder.
      loaded: parameters from the folder.
      missing: parameters that are not in the folder and are initialized at random.
      unexpected: arrays of the folder that the run does not have; tensors without a name of ours by Hugging Face's.
      unused_rows: rows of the word table without a token in the folder's vocabulary; ignored.
      new_tokens: tokens that only the dataset's vocabulary has; their rows are the mean of the rows of their pieces.
    """

    init: str
    networks: list[str]
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    unused_rows: int
    new_tokens: list[str]

    def summary_lines(self) -> list[str]:
        """Returns the lines to log."""
        networks, folder = " and ".join(self.networks), self.init.removeprefix(HF_FOLDER)
        lines = [f"initialized from the {networks} in {folder}: {len(self.loaded)} arrays loaded"]
        if self.missing:
            lines.append(
                f"{len(self.missing)} arrays not in the folder, initialized at random: {_shorten(self.missing)}"
            )
        if self.unexpected:
            lines.append(f"{len(self.unexpected)} arrays of the folder not used: {_shorten(self.unexpected)}")
        if self.new_tokens:
            tokens = _shorten(self.new_tokens)
            lines.append(f"{len(self.new_tokens):,} new tokens initialized to the mean of their pieces: {tokens}")
        if self.unused_rows:
            lines.append(f"{self.unused_rows:,} rows of the word table not used, because they have no token")
        return lines


def init_params_from_hf(config: Config, dataset: Dataset, workdir: str) -> Params:
    """Returns the initial parameters of a run: those of the folder, and random ones for what it does not contain.

    Logs the `InitReport` and writes it to init.json.

    Args:
      config: resolved against the dataset; `config.init` is the folder.
      dataset: its vocabulary must be the folder's or extend it.
      workdir: of the run.

    Raises:
      UserError: as `import_folder`, or the folder differs from the run in sizes, tying, vocabulary or case. The message
        contains the settings to change.
    """
    params, report = load_params(config, dataset)
    for line in report.summary_lines():
        log_main(line)
    if distributed.is_main():
        files.write_json(files.join(workdir, INIT_FILE), dataclasses.asdict(report))
    return params


def load_params(config: Config, dataset: Dataset) -> tuple[Params, InitReport]:
    """Returns what `init_params_from_hf` returns, and the report, without logging or writing it."""
    folder = config.init.removeprefix(HF_FOLDER)
    imported = import_folder(folder, tying=config.model.tying, allow_headless=True)
    imported, new_tokens = fit_to_dataset(folder, imported, dataset)
    _check_sizes(folder, imported, config)
    loaded = named_leaves(imported.params)
    tree = jax.eval_shape(lambda: init_params(config))
    shapes = named_leaves(tree)
    missing = [name for name in shapes if name not in loaded]
    initialized = _init_leaves(config, set(missing)) if missing else {}
    params = map_named(lambda name, _: initialized[name] if name in initialized else loaded[name], tree)
    unused = [name for name in loaded if name not in shapes]  # such as a generator in a run without one
    return params, InitReport(
        init=config.init,
        networks=list(imported.networks),
        loaded=[name for name in shapes if name in loaded],
        missing=missing,
        unexpected=[*unused, *imported.unexpected],
        unused_rows=imported.unused_rows,
        new_tokens=new_tokens,
    )


def fit_to_dataset(folder: str, imported: ImportedModel, dataset: Dataset) -> tuple[ImportedModel, list[str]]:
    """Returns the model with the vocabulary of a packed dataset, and the tokens that are new in it.

    Args:
      folder: of the model, for error messages.
      imported: content of the folder.
      dataset: the packed folders.

    Raises:
      UserError: the vocabulary of the dataset is neither the folder's nor an extension of it, the two treat case or
        accents differently, or the rows of the dataset are longer than the model's position table.
    """
    packed_folders = ",".join(dataset.folders)
    tokens = vocab.read_vocab(dataset.vocab_path)
    old = imported.vocabulary or tokens[: imported.vocab_size]
    added = extend_embeddings.find_new_tokens(old, tokens) if len(old) == imported.vocab_size else None
    if added is None:
        raise UserError(
            f"{folder}: its vocabulary is not that of {packed_folders}, and is not extended by it; "
            "pack the text again with --vocab=VOCAB.TXT of the folder, or with one from electramed vocab --extend"
        )
    if imported.lower_case not in (None, dataset.manifest.lower_case):
        kinds = {True: "lower-cased", False: "cased"}
        raise UserError(
            f"{folder}: a model of {kinds[imported.lower_case]} text, but {packed_folders} is "
            f"{kinds[dataset.manifest.lower_case]}; pack the text again"
            f"{'' if imported.lower_case else ' with --cased'}"
        )
    if imported.lower_case and imported.keep_accents != dataset.manifest.keep_accents:
        kinds = {True: "keeps", False: "removes"}
        raise UserError(
            f"{folder}: its tokenizer {kinds[imported.keep_accents]} accents, but {packed_folders} was packed "
            f"{'with' if dataset.manifest.keep_accents else 'without'} --keep_accents; pack the text again "
            f"{'with' if imported.keep_accents else 'without'} it"
        )
    positions = min(one.max_positions for one in imported.sizes.values())
    if dataset.manifest.row_length > positions:
        raise UserError(
            f"{folder}: a model of {positions:,} positions, but {packed_folders} has rows of "
            f"{dataset.manifest.row_length:,} tokens; pack the text again with --max_seq_length {positions}"
        )
    if added:
        params = extend_embeddings.extend_params(imported.params, old, tokens, added)
        sizes = {name: dataclasses.replace(one, vocab_size=len(tokens)) for name, one in imported.sizes.items()}
        imported = dataclasses.replace(imported, params=params, sizes=sizes, vocabulary=tokens)
    return imported, [tokens[number] for number in added]


def select_preset(folder: str, imported: ImportedModel) -> tuple[str, dict[str, Any]]:
    """Returns (name of the preset nearest in width, fields of `ModelConfig` that differ from it).

    Without a generator in the folder, its sizes are the same fraction of the discriminator's as in the preset.

    Raises:
      UserError: the folder has no discriminator.
    """
    if DISCRIMINATOR not in imported.networks:
        raise UserError(f"{folder}: contains only a generator; wanted a discriminator to continue from")
    sizes = imported.sizes[DISCRIMINATOR]
    name = min(PRESETS, key=lambda name: abs(PRESETS[name].model.hidden_size - sizes.hidden_size))
    fraction = PRESETS[name].model.generator_hidden_size / PRESETS[name].model.hidden_size
    return name, encoder_sizes(sizes.hidden_size, sizes.num_layers, fraction) | imported.model_settings()


def _init_leaves(config: Config, names: set[str]) -> dict[str, jax.Array]:
    """Returns random parameters of these names; the compiler removes the computation of all others."""

    def init() -> dict[str, jax.Array]:
        leaves = named_leaves(init_params(config))
        return {name: leaf for name, leaf in leaves.items() if name in names}

    return jax.jit(init)()


def _check_sizes(folder: str, imported: ImportedModel, config: Config) -> None:
    fixes = [
        f"--config.model.{field}={value}"
        for field, value in imported.model_settings().items()
        if getattr(config.model, field) != value
    ]
    if fixes:
        raise UserError(
            f"{folder}: the sizes of its model differ from this run's; add {' '.join(fixes)}, or create the config "
            "file with electramed import"
        )


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES_SHOWN:,} more" if len(names) > MAX_NAMES_SHOWN else ""
    return ", ".join(names[:MAX_NAMES_SHOWN]) + more
