"""The constants of TPU generations are consistent; topology names are parsed, and wrong ones get a suggestion."""

from __future__ import annotations

import pytest

from electramed_jax.aot import chips
from electramed_jax.common.errors import UserError

# GB of memory, from cloud.google.com/tpu/docs
DATA_SHEET_GB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32, "tpu7x": 192 / 2}


@pytest.mark.parametrize("chip", chips.CHIPS.values(), ids=lambda chip: chip.name)
def test_the_available_memory_is_nearly_that_of_the_data_sheet(chip):
    assert 0.95 < chip.hbm_bytes / (DATA_SHEET_GB[chip.name] * chips.GIB) < 1.01


@pytest.mark.parametrize(
    ("name", "gigahertz"), [("v4", 1.05), ("v5e", 1.5), ("v5p", 1.75), ("v6e", 1.75), ("tpu7x", 2.2)]
)
def test_clocks_are_those_of_the_data_sheet(name, gigahertz):
    assert chips.CHIPS[name].clock == pytest.approx(gigahertz * 1e9, rel=0.005)


@pytest.mark.parametrize("chip", chips.CHIPS.values(), ids=lambda chip: chip.name)
def test_shapes_are_ordered_one_for_each_number_of_chips(chip):
    counts = [chips.chip_count(shape) for shape in chip.shapes]
    assert counts == sorted(set(counts)) and {4, 8, 16, 32, 64, 128, 256} <= set(counts)
    for sides in (list(map(int, shape.split("x"))) for shape in chip.shapes if chips.chip_count(shape) > 64):
        assert sides == sorted(sides) and all(side % 4 == 0 for side in sides), "whole cubes of 4 chips a side"


@pytest.mark.parametrize("name", ["v5e:4x4", "v6e:16x16", "v4:2x2x2", "v5p:4x4x8", "tpu7x:8x8x16", "v5e:1x1"])
def test_a_topology_gives_its_chip(name):
    chip, shape = chips.parse_topology(name)
    assert f"{chip.name}:{shape}" == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5litepod-16", "v5litepod-16 is v5e:4x4"),
        ("v5e-256", "v5e-256 is v5e:16x16"),
        ("v6e-8", "v6e-8 is v6e:2x4"),
        ("v4-32", "v4-32 is v4:2x2x4"),  # counts cores, two per chip
        ("v5p-8", "v5p-8 is v5p:2x2x1"),
        ("tpu7x-32", "tpu7x-32 is tpu7x:2x2x4"),  # counts cores, two per chip
        ("v5e-17", "such as v4:2x4x4, v5e:4x4"),
        ("v5e:3x4", "no such slice; the nearest: v5e:2x4, v5e:4x4"),
        ("v5e:4x4x4", "no such slice; the nearest: v5e:8x8, v5e:8x16"),
        ("v5p:4x4", "no such slice; the nearest: v5p:2x2x4, v5p:2x4x4"),
        ("v6e:32x32", "no such slice; the nearest: v6e:16x16"),
        ("v4:large", "no such slice; the nearest: v4:2x2x1"),
        ("v9:4x4", "wanted a generation and the chips along each side, such as v4:2x4x4, v5e:4x4"),
        ("4x4", "such as v4:2x4x4, v5e:4x4, v5p:2x4x4, v6e:4x4, tpu7x:2x2x4"),
        ("", "such as v4:2x4x4"),
    ],
)
def test_an_invalid_name_is_rejected_with_a_suggestion(name, message):
    with pytest.raises(UserError) as caught:
        chips.parse_topology(name)
    assert message in str(caught.value) and repr(name) in str(caught.value)
