"""Starting a run from a Hugging Face folder: whether the two fit, what is taken, and what has to be fresh."""

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
from electramed_jax.data.dataset import dataset as datasets
from electramed_jax.data.tokenizer import vocab
from electramed_jax.hf import extend_embeddings
from electramed_jax.hf.convert import ImportedModel, import_folder
from electramed_jax.hf.format.mapping import DISCRIMINATOR
from electramed_jax.pretrain.state import init_params
from electramed_jax.training.state import Params

INIT_FILE = "init.json"  # in the workdir: the account of a start
NAMES_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class InitReport:
    """What became of every array, by our names, those of the folder that we have none for by Hugging Face's.

    Attributes:
      init: the setting.
      networks: that the folder holds.
      loaded: taken from the folder.
      missing: not in the folder, hence fresh.
      unexpected: in the folder, but nothing in this run.
      unused_rows: rows of the word table that no token of the folder's vocabulary stands for; left out.
      new_tokens: that only the dataset's vocabulary has; their rows begin as the mean of their pieces'.
    """

    init: str
    networks: list[str]
    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    unused_rows: int
    new_tokens: list[str]

    def lines(self) -> list[str]:
        """For a person."""
        held = " and ".join(self.networks)
        told = [f"starting from the {held} in {self.init.removeprefix(HF_FOLDER)}: {len(self.loaded)} arrays loaded"]
        for names, what in ((self.missing, "missing there, hence fresh"), (self.unexpected, "not wanted, left out")):
            told += [f"{len(names)} arrays {what}: {_shorten(names)}"] if names else []
        if self.new_tokens:
            tokens = _shorten(self.new_tokens)
            told.append(f"{len(self.new_tokens):,} new tokens begin as the mean of their pieces: {tokens}")
        if self.unused_rows:
            told.append(f"{self.unused_rows:,} rows of the word table left out, which no token stands for")
        return told


def init_params_from_hf(config: Config, workdir: str) -> Params:
    """Parameters to start a run from: the folder's, and fresh ones for what it does not hold.

    What became of each is told, and written to init.json.

    Args:
      config: resolved against its dataset, whose vocabulary has to be the folder's, or to extend it; `config.init`
        names the folder.
      workdir: of the run.

    Raises:
      UserError: as `import_folder`, or the folder's sizes, tying, vocabulary or case are not those
        of the run; says which settings to change.
    """
    params, account = load_params(config)
    for line in account.lines():
        log_main(line)
    if distributed.is_main():
        files.write_json(files.join(workdir, INIT_FILE), dataclasses.asdict(account))
    return params


def load_params(config: Config) -> tuple[Params, InitReport]:
    """As `init_params_from_hf`, untold."""
    folder = config.init.removeprefix(HF_FOLDER)
    imported = import_folder(folder, tying=config.model.tying, allow_headless=True)
    imported, new_tokens = fit_to_dataset(folder, imported, config.data.directory)
    _check_sizes(folder, imported, config)
    taken = named_leaves(imported.params)
    tree = jax.eval_shape(lambda: init_params(config))
    shapes = named_leaves(tree)
    missing = [name for name in shapes if name not in taken]
    fresh = _init_leaves(config, set(missing)) if missing else {}
    params = map_named(lambda name, _: fresh[name] if name in fresh else taken[name], tree)
    unwanted = [name for name in taken if name not in shapes]  # a run may want less than the folder holds
    return params, InitReport(
        init=config.init,
        networks=list(imported.networks),
        loaded=[name for name in shapes if name in taken],
        missing=missing,
        unexpected=[*unwanted, *imported.unexpected],
        unused_rows=imported.unused_rows,
        new_tokens=new_tokens,
    )


def fit_to_dataset(folder: str, imported: ImportedModel, dataset: str) -> tuple[ImportedModel, list[str]]:
    """What `folder` held in the words of the packed `dataset`, and the tokens that are new.

    Raises:
      UserError: the dataset speaks another language, neither the folder's nor one that extends it.
    """
    packed = datasets.open_dataset(dataset)
    tokens = vocab.read_vocab(packed.vocab_path)
    old = imported.vocabulary or tokens[: imported.vocab_size]
    added = extend_embeddings.find_new_tokens(old, tokens) if len(old) == imported.vocab_size else None
    if added is None:
        raise UserError(
            f"{folder}: its vocabulary is not that of {dataset}, nor its beginning; "
            "pack the text again with --vocab and the folder's vocab.txt, or one made by electramed vocab --extend"
        )
    if imported.lower_case not in (None, packed.manifest.lower_case):
        kinds = {True: "lower-cased", False: "cased"}
        raise UserError(
            f"{folder}: a model of {kinds[imported.lower_case]} text, but {dataset} is "
            f"{kinds[packed.manifest.lower_case]}; pack the text again"
            f"{'' if imported.lower_case else ' with --cased'}"
        )
    if added:
        params = extend_embeddings.extend_params(imported.params, old, tokens, added)
        sizes = {name: dataclasses.replace(one, vocab_size=len(tokens)) for name, one in imported.sizes.items()}
        imported = dataclasses.replace(imported, params=params, sizes=sizes, vocabulary=tokens)
    return imported, [tokens[number] for number in added]


def select_preset(folder: str, imported: ImportedModel) -> tuple[str, dict[str, Any]]:
    """The preset nearest in width, and the sizes to replace its own by.

    Where the folder has no generator, its sizes follow the discriminator's as in that preset.
    """
    if DISCRIMINATOR not in imported.networks:
        raise UserError(f"{folder}: holds a generator alone; wanted a discriminator to train on from")
    sizes = imported.sizes[DISCRIMINATOR]
    name = min(PRESETS, key=lambda name: abs(PRESETS[name].model.hidden_size - sizes.hidden_size))
    fraction = PRESETS[name].model.generator_hidden_size / PRESETS[name].model.hidden_size
    return name, encoder_sizes(sizes.hidden_size, sizes.num_layers, fraction) | imported.model_settings()


def _init_leaves(config: Config, names: set[str]) -> dict[str, jax.Array]:
    """Freshly drawn parameters of these names; the compiler drops the drawing of all others."""

    def draw() -> dict[str, jax.Array]:
        leaves = named_leaves(init_params(config))
        return {name: leaf for name, leaf in leaves.items() if name in names}

    return jax.jit(draw)()


def _check_sizes(folder: str, imported: ImportedModel, config: Config) -> None:
    fixes = [
        f"--config.model.{field}={value}"
        for field, value in imported.model_settings().items()
        if getattr(config.model, field) != value
    ]
    if fixes:
        raise UserError(
            f"{folder}: a model of other sizes than this run's; add {' '.join(fixes)}, or let electramed import write "
            "the config file"
        )


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN:,} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
