"""Reference bands: the metrics of healthy runs, drawn behind the curves of a report.

Published curves are of general text and were read off plots. Text that is easier to predict, such as PubMed's, has a
lower generator loss and fewer replacements. Curves are compared by tokens seen, so that a run with larger batches is
compared with the later steps of a reference run.

  small  ELECTRA-Small's own run (google-research/electra issue 3; its first steps also issue 81), widened to the final
         values of other runs of that size: a re-implementation (rc2020_electra) and mrm8488's Spanish ConvBERT-small
  base   total loss of stefan-it's Turkish ELECTRA-Base, and the final value of mrm8488's Spanish ConvBERT-base
  tiny   one run of this code: configs/pretrain_tiny.py, 31 M words of abstracts and full texts; pretrain/README.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from electramed_jax.config.pretrain import Config

Point = tuple[int, float, float]  # step, low, high


@dataclasses.dataclass(frozen=True)
class Reference:
    """The bands of one model size.

    Attributes:
      name: label of the bands.
      source: where the values come from.
      tokens_per_step: padding included.
      bands: (step, low, high) by metric.
    """

    name: str
    source: str
    tokens_per_step: int
    bands: Mapping[str, Sequence[Point]]


def _around(curve: Mapping[int, float], below: float, above: float) -> tuple[Point, ...]:
    return tuple((step, value - below, value + above) for step, value in curve.items())


def _scaled(curve: Mapping[int, float], low: float, high: float) -> tuple[Point, ...]:
    return tuple((step, value * low, value * high) for step, value in curve.items())


# The factors cover the ratio between the final values of ELECTRA-Small and of the other runs, and a few per cent of
# reading error.
_SMALL = Reference(
    name="ELECTRA-Small",
    source="published runs of its size, general text",
    tokens_per_step=128 * 128,
    bands={
        "loss": (
            (1_500, 24.0, 28.0),
            *_scaled(
                {
                    5_000: 24.5,
                    50_000: 14.5,
                    200_000: 13.1,
                    400_000: 12.4,
                    600_000: 12.0,
                    800_000: 11.6,
                    1_000_000: 11.1,
                },
                0.82,
                1.05,
            ),
        ),
        "generator_loss": _scaled(
            {5_000: 6.8, 50_000: 3.7, 200_000: 3.42, 400_000: 3.36, 600_000: 3.32, 800_000: 3.28, 1_000_000: 3.25},
            0.71,
            1.05,
        ),
        "generator_accuracy": _scaled(
            {200_000: 0.432, 400_000: 0.439, 600_000: 0.445, 800_000: 0.449, 1_000_000: 0.455}, 0.97, 1.19
        ),
        "sampled_accuracy": _scaled(
            {200_000: 0.328, 400_000: 0.335, 600_000: 0.341, 800_000: 0.346, 1_000_000: 0.350}, 0.97, 1.26
        ),
        "discriminator_loss": (
            (1_500, 0.33, 0.45),
            *_scaled(
                {
                    5_000: 0.355,
                    50_000: 0.22,
                    200_000: 0.195,
                    400_000: 0.182,
                    600_000: 0.174,
                    800_000: 0.167,
                    1_000_000: 0.158,
                },
                0.86,
                1.05,
            ),
        ),
        "discriminator_accuracy": _around(
            {5_000: 0.867, 200_000: 0.929, 400_000: 0.934, 600_000: 0.937, 800_000: 0.940, 1_000_000: 0.942},
            0.005,
            0.01,
        ),
        "discriminator_auc": _around(
            {
                5_000: 0.69,
                50_000: 0.87,
                200_000: 0.90,
                400_000: 0.915,
                600_000: 0.922,
                800_000: 0.929,
                1_000_000: 0.935,
            },
            0.015,
            0.01,
        ),
        "discriminator_precision": _around(
            {5_000: 0.75, 200_000: 0.74, 400_000: 0.75, 600_000: 0.76, 800_000: 0.77, 1_000_000: 0.783}, 0.02, 0.03
        ),
    },
)
_BASE = Reference(
    name="ELECTRA-Base",
    source="published runs of its size, general text",
    tokens_per_step=256 * 512,
    bands={
        "loss": (
            (100_000, 10.3, 11.3),
            (200_000, 9.0, 10.5),
            (400_000, 7.9, 10.0),
            (800_000, 7.5, 9.8),
            (1_000_000, 7.5, 9.8),
        )
    },
)
_TINY_STEPS = (500, 1_500, 2_500, 3_500, 4_500, 5_500, 7_300)
_TINY = Reference(
    name="pretrain_tiny.py",
    source="a run of this code on biomedical text",
    tokens_per_step=16 * 128,
    bands={
        "generator_loss": _around(
            dict(zip(_TINY_STEPS, (6.92, 6.34, 6.19, 6.08, 6.02, 5.97, 5.92), strict=True)), 0.4, 0.3
        ),
        "discriminator_auc": _around(
            dict(zip(_TINY_STEPS, (0.544, 0.561, 0.633, 0.664, 0.693, 0.696, 0.714), strict=True)), 0.04, 0.04
        ),
    },
)
_BY_MAX_WIDTH = ((128, _TINY), (512, _SMALL), (896, _BASE))


def reference_for(config: Config) -> Reference | None:
    """Returns the reference of the nearest model size.

    It is None for larger models, for other objectives and for runs that start from a trained model.
    """
    if config.objective.kind != "electra" or config.init:
        return None
    return next((reference for width, reference in _BY_MAX_WIDTH if config.model.hidden_size <= width), None)
