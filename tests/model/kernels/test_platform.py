"""Each Pallas backend is imported only for a program of its own platform, and may be missing from jax."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

WITHOUT_TRITON = """
    import sys

    sys.modules["jax.experimental.pallas.triton"] = None  # an import of it raises ModuleNotFoundError
"""
STEP_OF_A_MODEL = """
    import dataclasses

    import jax
    import jax.numpy as jnp
    import small
    from jax.sharding import AbstractDevice, AbstractMesh, AxisType

    from electramed_jax.config.pretrain import ALL_KERNELS
    from electramed_jax.pretrain.state import init_state
    from electramed_jax.pretrain.step import train_step
    from electramed_jax.training import sharding

    def lower(device, platform, **settings):
        sizes = dict(hidden_size=128, num_heads=2, num_layers=1, generator_hidden_size=128, generator_num_layers=1)
        config = dataclasses.replace(small.config(128, **sizes | settings), batch_size=2)
        batch = {"input_ids": jax.ShapeDtypeStruct((2, 128), jnp.int32)}
        mesh = AbstractMesh((1, 1, 1), sharding.MESH_AXES, (AxisType.Auto,) * 3, abstract_device=device)
        with jax.sharding.use_abstract_mesh(mesh):
            traced = jax.jit(train_step(config)).trace(jax.eval_shape(lambda: init_state(config)), batch)
            return traced.lower(lowering_platforms=(platform,)).as_text()
"""


def run_python(*parts: str) -> str:
    """Runs the code in a new process and returns what it prints."""
    code = "\n".join(map(textwrap.dedent, parts))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_cpu_trains_and_a_tpu_uses_its_kernels_if_jax_has_no_triton_backend():
    program = """
        config = dataclasses.replace(small.config(), batch_size=2)
        batch = {"input_ids": jnp.ones((2, 16), jnp.int32)}
        state, sums = jax.jit(train_step(config))(init_state(config), batch)
        assert int(state.step) == 1 and jnp.isfinite(sums["loss_sum"])
        text = lower(AbstractDevice("TPU v5 lite", None, "tpu"), "tpu", kernels=ALL_KERNELS)
        print("norm_forward" in text and "attention_forward" in text)
    """
    assert run_python(WITHOUT_TRITON, STEP_OF_A_MODEL, program) == "True\n"


@pytest.mark.slow
def test_a_gpu_runs_the_plain_form_if_jax_has_no_triton_backend():
    program = """
        text = lower(AbstractDevice("NVIDIA H200", 132, "gpu"), "cuda", kernels=ALL_KERNELS, compute_dtype="bfloat16")
        print("norm_forward" in text)
    """
    assert run_python(STEP_OF_A_MODEL, program) == "True\n"
    assert run_python(WITHOUT_TRITON, STEP_OF_A_MODEL, program) == "False\n"


def test_a_training_step_for_a_cpu_imports_no_pallas_backend():
    program = """
        import sys
        import electramed_jax.pretrain.loop
        print([name for name in sys.modules if name.startswith("jax.experimental.pallas")])
    """
    assert run_python(program) == "[]\n"
