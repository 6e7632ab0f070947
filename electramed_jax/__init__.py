"""ELECTRAMed in JAX: pre-trains and fine-tunes biomedical ELECTRA models on PubMed text.

The Python interface; its names are stable:

    prepare, train_vocab, pack     text to packed rows
    pretrain, finetune, export     the commands of these names; each returns its result
    Predictor                      predictions of a fine-tuned model
    load_dataset                   a packed dataset: its manifest, number of rows and vocabulary

`examples/text_to_entities.py` uses all of them. Importing the package imports neither jax nor any other library; a
name is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `as` re-exports the names to type checkers
    from electramed_jax.api.exporting import export as export
    from electramed_jax.api.finetuning import finetune as finetune
    from electramed_jax.api.pretraining import pretrain as pretrain
    from electramed_jax.data.corpus.build import prepare as prepare
    from electramed_jax.data.dataset.dataset import open_dataset
    from electramed_jax.data.packing.build import pack as pack
    from electramed_jax.data.tokenizer.train_vocab import train_vocab as train_vocab
    from electramed_jax.finetune.predictor import Predictor as Predictor

    load_dataset = open_dataset

__version__ = "0.1.0"

# Public name -> module and name there.
_PLACES = {
    "Predictor": ("finetune.predictor", "Predictor"),
    "export": ("api.exporting", "export"),
    "finetune": ("api.finetuning", "finetune"),
    "load_dataset": ("data.dataset.dataset", "open_dataset"),
    "pack": ("data.packing.build", "pack"),
    "prepare": ("data.corpus.build", "prepare"),
    "pretrain": ("api.pretraining", "pretrain"),
    "train_vocab": ("data.tokenizer.train_vocab", "train_vocab"),
}
# Functions that have the name of a subpackage: the subpackage is callable, `electramed_jax.pretrain(...)`.
_SUBPACKAGES = ("finetune", "pretrain")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = importlib.import_module(f"{__name__}.{name}") if name in _SUBPACKAGES else _load(name)
    globals()[name] = value  # the next use does not call this function
    return value


def _load(name: str) -> Any:
    module, attribute = _PLACES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


class _CallablePackage(types.ModuleType):
    """A subpackage that can be called as the function of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _load(self.__name__.rpartition(".")[2])(*args, **kwargs)


def make_callable(subpackage: str) -> None:
    """Makes a subpackage callable; called in its `__init__.py`."""
    sys.modules[subpackage].__class__ = _CallablePackage
