"""Starting a run from a Hugging Face folder: whether the two fit, and what has to be fresh."""

from __future__ import annotations

from typing import Any

import jax

from electramed_jax.common.errors import UserError
from electramed_jax.common.trees import map_named, named_leaves
from electramed_jax.config import PRESETS, Config, encoder_sizes
from electramed_jax.data import dataset as datasets
from electramed_jax.data import vocab
from electramed_jax.hf.convert import Imported, import_folder
from electramed_jax.hf.mapping import DISCRIMINATOR
from electramed_jax.training.report import tell
from electramed_jax.training.state import init_params


def params_for(config: Config, folder: str) -> dict[str, Any]:
    """Parameters to start a run from: the folder's, and fresh ones for what it does not hold.

    Args:
      config: resolved against its dataset, whose vocabulary has to be the folder's.
      folder: as for `import_folder`.

    Raises:
      UserError: as `import_folder`, or the folder's sizes, tying, vocabulary or case are not those
        of the run; says which settings to change.
    """
    imported = import_folder(folder, tying=config.model.tying)
    check_vocabulary(folder, imported, config.data.directory)
    _check_dimensions(folder, imported, config)
    taken = named_leaves(imported.params)
    shapes = jax.eval_shape(lambda: init_params(config))  # a run may want less than the folder holds
    missing = {name for name in named_leaves(shapes) if name not in taken}
    fresh = _fresh(config, missing) if missing else {}
    held = " and ".join(imported.networks)
    tell(f"starting from the {held} in {folder}; {len(missing)} arrays are fresh")
    return map_named(lambda name, _: fresh[name] if name in missing else taken[name], shapes)


def check_vocabulary(folder: str, imported: Imported, dataset: str) -> None:
    """Raises UserError unless the packed `dataset` speaks the language of what `folder` held."""
    packed = datasets.read(dataset)
    tokens = vocab.read(packed.vocab_path)
    same_size = len(tokens) == imported.dimensions["vocab_size"]
    if not same_size or imported.vocabulary not in (None, tokens):
        raise UserError(
            f"{folder}: its vocabulary is not that of {dataset}; "
            "pack the text again with --vocab and the folder's vocab.txt"
        )
    if imported.lower_case not in (None, packed.manifest.lower_case):
        kinds = {True: "lower-cased", False: "cased"}
        raise UserError(
            f"{folder}: a model of {kinds[imported.lower_case]} text, but {dataset} is "
            f"{kinds[packed.manifest.lower_case]}; pack the text again"
            f"{'' if imported.lower_case else ' with --cased'}"
        )


def model_settings(folder: str, imported: Imported) -> tuple[str, dict[str, Any]]:
    """The preset nearest in width, and the sizes to replace its own by.

    Where the folder has no generator, its sizes follow the discriminator's as in that preset.
    """
    if DISCRIMINATOR not in imported.networks:
        raise UserError(f"{folder}: holds a generator alone; wanted a discriminator to train on from")
    width, depth = imported.dimensions["hidden_size"], imported.dimensions["num_layers"]
    size = min(PRESETS, key=lambda name: abs(PRESETS[name].model.hidden_size - width))
    fraction = PRESETS[size].model.generator_hidden_size / PRESETS[size].model.hidden_size
    return size, encoder_sizes(width, depth, fraction) | imported.dimensions


def _fresh(config: Config, names: set[str]) -> dict[str, jax.Array]:
    """Freshly drawn parameters of these names; the compiler drops the drawing of all others."""

    def draw() -> dict[str, jax.Array]:
        leaves = named_leaves(init_params(config))
        return {name: leaf for name, leaf in leaves.items() if name in names}

    return jax.jit(draw)()


def _check_dimensions(folder: str, imported: Imported, config: Config) -> None:
    fixes = [
        f"--config.model.{field}={value}"
        for field, value in imported.dimensions.items()
        if getattr(config.model, field) != value
    ]
    if fixes:
        raise UserError(f"{folder}: a model of other sizes than this run's; add {' '.join(fixes)}")
