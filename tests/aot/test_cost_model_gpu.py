"""A train step lowered for a GPU, without one: `kernels` names the hand-written kernels."""

from __future__ import annotations

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
import small
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from electramed_jax.config.pretrain import ALL_KERNELS
from electramed_jax.pretrain.state import init_state
from electramed_jax.pretrain.step import train_step
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow

LAYERS, ROWS, LENGTH = 2, 4, 64
A_GPU = AbstractDevice("NVIDIA H200", 132, "gpu")


def kernels_of_a_step(
    devices: tuple[int, int, int] = (1, 1, 1), device: AbstractDevice = A_GPU, **settings: object
) -> dict[str, int]:
    """Returns the calls of each kernel in a train step with LAYERS layers in generator and discriminator."""
    sizes = dict(hidden_size=64, num_heads=2, intermediate_size=256, num_layers=LAYERS, generator_num_layers=LAYERS)
    generator = dict(generator_hidden_size=32, generator_num_heads=1, generator_intermediate_size=256)
    fast = dict(kernels=ALL_KERNELS, compute_dtype="bfloat16", scan_layers=False, remat="none")
    config = small.config(LENGTH, **sizes | generator | fast | settings)
    config = dataclasses.replace(config, batch_size=ROWS)
    batch = {"input_ids": jax.ShapeDtypeStruct((ROWS, LENGTH), jnp.int32)}
    mesh = AbstractMesh(devices, sharding.MESH_AXES, (AxisType.Auto,) * 3, abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(train_step(config)).trace(jax.eval_shape(lambda: init_state(config)), batch)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    return collections.Counter(re.findall(r'name = "(\w+?)_(?:forward|backward)', text))


@pytest.mark.parametrize("attention_dropout", [0.0, 0.1])
def test_every_layer_of_both_networks_uses_the_kernels(attention_dropout):
    layers = 2 * LAYERS
    found = kernels_of_a_step(attention_dropout=attention_dropout)
    # One forward and one backward kernel; attention has two backward kernels.
    assert found == {"attention": 3 * layers, "norm": 2 * 2 * layers, "gelu": 2 * layers}


@pytest.mark.parametrize("devices", [(2, 1, 1), (1, 2, 1), (2, 2, 2)])
def test_layers_on_several_devices_use_the_kernels(devices):
    sizes = dict(
        intermediate_size=512, generator_hidden_size=64, generator_num_heads=2, generator_intermediate_size=512
    )
    assert kernels_of_a_step(devices, **sizes) == kernels_of_a_step()


def test_kernels_none_uses_no_kernel():
    assert not kernels_of_a_step(kernels="none")


def test_a_gpu_of_another_vendor_uses_no_kernel():
    assert not kernels_of_a_step(device=AbstractDevice("AMD Instinct MI300X", 304, "gpu"))


def test_float32_does_not_use_the_gelu_kernel_which_has_16_bit_accuracy():
    assert set(kernels_of_a_step(compute_dtype="float32")) == {"attention", "norm"}
