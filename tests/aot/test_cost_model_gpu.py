"""A step for a GPU, lowered where there is none: `kernels=auto` does not quietly fall back to the plain form."""

from __future__ import annotations

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
import small
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from electramed_jax.pretrain.state import init_state
from electramed_jax.pretrain.step import train_step
from electramed_jax.training import sharding

LAYERS, ROWS, LENGTH = 2, 4, 64
A_GPU = AbstractDevice("NVIDIA H200", 132, "gpu")


def kernels_of_a_step(
    devices: tuple[int, int, int] = (1, 1, 1), device: AbstractDevice = A_GPU, **settings: object
) -> dict[str, int]:
    """How often each kernel is called in a training step, of a generator and a discriminator of LAYERS each."""
    sizes = dict(hidden_size=64, num_heads=2, intermediate_size=256, num_layers=LAYERS, generator_num_layers=LAYERS)
    generator = dict(generator_hidden_size=32, generator_num_heads=1, generator_intermediate_size=256)
    fast = dict(kernels="auto", compute_dtype="bfloat16", scan_layers=False, remat="none")
    config = small.config(LENGTH, **sizes | generator | fast | settings)
    config = dataclasses.replace(config, batch_size=ROWS)
    batch = {"input_ids": jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)}
    mesh = AbstractMesh(devices, sharding.MESH_AXES, (AxisType.Auto,) * 3, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(train_step(config)).trace(jax.eval_shape(lambda: init_state(config)), batch)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return collections.Counter(re.findall(r'name = "(\w+?)_(?:forward|backward)', text))


@pytest.mark.parametrize("attention_dropout", [0.0, 0.1])
def test_every_layer_of_both_networks_is_made_of_kernels(attention_dropout):
    layers = 2 * LAYERS
    found = kernels_of_a_step(attention_dropout=attention_dropout)
    # There and back; attention comes back in two.
    assert found == {"attention": 3 * layers, "norm": 2 * 2 * layers, "gelu": 2 * layers}


@pytest.mark.parametrize("devices", [(2, 1, 1), (1, 2, 1), (2, 2, 2)])
def test_so_is_it_on_several_devices(devices):
    in_two = dict(
        intermediate_size=512, generator_hidden_size=64, generator_num_heads=2, generator_intermediate_size=512
    )
    assert kernels_of_a_step(devices, **in_two) == kernels_of_a_step()


def test_without_them_there_are_none():
    assert not kernels_of_a_step(kernels="none")


def test_nor_on_a_gpu_of_another_maker():
    assert not kernels_of_a_step(device=AbstractDevice("AMD Instinct MI300X", 304, "gpu"))


def test_in_float32_gelu_is_not_left_to_a_polynomial_of_16_bits_accuracy():
    assert set(kernels_of_a_step(compute_dtype="float32")) == {"attention", "norm"}
