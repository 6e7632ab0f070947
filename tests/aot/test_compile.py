"""Ahead-of-time compilation with the real TPU compiler, the batch-size search and the time estimate."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest
import small

from electramed_jax.aot import chips, compile, cost_model
from electramed_jax.common.errors import UserError
from electramed_jax.config import pretrain as config_lib
from electramed_jax.config.presets import PRESETS
from electramed_jax.config.pretrain import MeshConfig
from electramed_jax.model.automatic import plain_model
from electramed_jax.pretrain import automatic
from electramed_jax.pretrain.state import init_params
from electramed_jax.training import sharding

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
GIB = chips.GIB


EIGHT = compile.Topology("v5e:2x4", chips.CHIPS["v5e"], jax.devices(), 1)


@pytest.fixture(scope="module")
def compiler() -> None:
    """Skips the test if the TPU compiler is not installed; it needs no TPU."""
    pytest.importorskip("libtpu", reason="needs the TPU compiler: pip install -e '.[tpu]'")


PLAIN_FORM = [
    "--config.mesh.fsdp=1", "--config.model.compute_dtype=float32", "--config.model.kernels=none",
    "--config.model.remat=full", "--config.model.scan_layers=True",
]  # fmt: skip


def electramed_compile(*arguments: str, automatic: bool = False) -> subprocess.CompletedProcess:
    """Runs `electramed compile` in a subprocess, without the environment of this process.

    With `automatic` it chooses the form of the step; otherwise it compiles `PLAIN_FORM`, which arguments may change.
    """
    arguments = arguments if automatic else (*PLAIN_FORM, *arguments)
    environment = {name: value for name, value in os.environ.items() if name not in chips.ENVIRONMENT}
    command = [sys.executable, "-m", "electramed_jax.cli", "compile", "--json", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=REPOSITORY, env=environment)


# ---- compilation ----------------------------------------------------------------------------


@pytest.mark.slow
def test_tiny_compiles_ahead_of_time_for_eight_virtual_devices(quick_compilation):
    """Runs the same code with the CPU compiler, without the TPU compiler."""
    config = config_lib.resolve(
        PRESETS["tiny"], vocab_size=600, max_seq_length=64, special=PRESETS["tiny"].data.special
    )
    config = dataclasses.replace(config, model=dataclasses.replace(plain_model(config.model), remat="full"))
    topology = dataclasses.replace(EIGHT, devices=jax.devices()[:8])
    compiled = compile.compile_step(dataclasses.replace(config, mesh=MeshConfig(2, 4, 1)), topology)
    assert compiled.fits and compiled.peak_bytes > 3 * compiled.parameter_bytes / 4
    assert 1.1 < compiled.cost.flops / compiled.model_flops < 1.34
    assert {"all-reduce", "all-gather"} <= compiled.cost.collectives.keys()


@pytest.fixture(scope="module")
def tiny(compiler) -> tuple[dict, str]:
    """Returns the JSON result and the console output for pretrain_tiny.py on four chips."""
    done = electramed_compile("--config=configs/pretrain_tiny.py", "--topology=v5e:2x2", "--max_seq_length=128")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_tiny_compiles_for_four_chips_and_fits(tiny):
    result, console = tiny
    assert (result["chips"], result["mesh"]) == (4, {"data": 4, "fsdp": 1, "tensor": 1})
    assert result["fits"] and 0 < result["peak_bytes"] < 0.05 * result["available_bytes"]
    assert "fits: peak of 0." in console and "utilization" in console


@pytest.mark.slow
def test_the_operations_are_those_of_the_model_and_of_recomputation(tiny):
    """Layers run forward twice: at most a third more, and less than that because the heads run once."""
    result, _ = tiny
    assert 1.1 < result["program_flops"] / result["model_flops"] < 1.34
    assert result["unknown_loops"] == []


@pytest.mark.slow
def test_data_parallel_chips_exchange_only_gradients(tiny):
    """Slightly more than the 19.9 MB of the parameters: sums and norms. Some gradients are sent in bfloat16."""
    result, _ = tiny
    assert result["collectives"].keys() == {"all-reduce"}
    assert 0.9 < result["collectives"]["all-reduce"]["bytes"] / 20.2e6 < 1.1


@pytest.mark.slow
def test_without_further_settings_the_fast_form_is_compiled(compiler):
    done = electramed_compile(
        "--config=configs/pretrain_tiny.py", "--topology=v5e:2x2", "--max_seq_length=128", "--quick", automatic=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    chosen = {name: one["value"] for name, one in result["automatic_settings"].items()}
    assert chosen == {
        "mesh.fsdp": 4, "model.compute_dtype": "bfloat16", "model.kernels": "attention,residual_norm",
        "model.remat": "none", "model.scan_layers": False, "model.attention_dropout_hash": "paired",
    }  # fmt: skip
    assert result["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    assert "automatic setting model.remat=none: the fastest form that fits" in done.stderr


@pytest.mark.slow
def test_fsdp_gathers_every_parameter_and_scatters_every_gradient_once(compiler):
    """The parameters have 19.9 MB. A second gather of the kernels for the gradients would add 5 MB. An all-reduce of the
    gradients would send twice the bytes of a reduce-scatter."""
    done = electramed_compile(
        "--config=configs/pretrain_tiny.py",
        "--topology=v5e:2x2",
        "--max_seq_length=128",
        "--quick",
        "--config.mesh.fsdp=4",
    )
    assert done.returncode == 0, done.stderr
    collectives = json.loads(done.stdout)["collectives"]
    assert 0.95 < collectives["all-gather"]["bytes"] / 20.2e6 < 1.05
    assert collectives["reduce-scatter"]["bytes"] == pytest.approx(collectives["all-gather"]["bytes"], rel=1e-3)
    assert collectives["all-reduce"]["bytes"] < 0.2e6, "biases, norms and sums"


@pytest.mark.slow
def test_every_group_except_dropout_has_a_time(tiny):
    result, _ = tiny
    seconds = result["estimated_seconds"]
    assert {name for name, value in seconds.items() if value == 0} == {"dropout random bits"}
    assert seconds["rest"] < 0.2 * result["estimated_step_seconds"]
    assert result["estimated_step_seconds"] == pytest.approx(sum(seconds.values()))
    assert result["estimated_utilization"] == pytest.approx(
        result["model_flops"] / result["estimated_step_seconds"] / 197e12
    )


@pytest.mark.slow
def test_log_messages_of_the_compiler_are_not_shown(tiny):
    assert not re.search(r"WARNING|libtpu|INVALID|hostname", tiny[1])


@pytest.mark.slow
def test_hand_written_kernels_compile_and_their_time_is_that_of_their_code(compiler):
    sizes = ["--config.model.num_layers=1", "--config.model.generator_num_layers=1"]
    done = electramed_compile(
        "--config=configs/pretrain_tiny.py", "--topology=v5e:2x2", "--max_seq_length=128", *sizes,
        "--config.model.kernels=attention,residual_norm", "--config.model.attention_dropout=0.1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("attention_forward", "attention_backward", "norm_forward", "norm_backward"):
        assert re.search(rf"{name}\S*, .* counted by its code, [\d,]+ cycles", done.stderr), done.stderr


@pytest.mark.slow
def test_base_fits_sixteen_v5e_chips_at_the_batch_size_of_its_config(compiler):
    done = electramed_compile(
        "--config=configs/pretrain_base.py", "--topology=v5e:4x4", "--quick", "--config.model.compute_dtype=bfloat16"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["batch_size"], result["rows_per_chip"], result["row_length"]) == (256, 16, 512)
    assert result["fits"]
    assert 1.2 < result["program_flops"] / result["model_flops"] < 1.34


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_reported_with_the_missing_memory(compiler):
    sizes = ["--config.model.num_layers=1", "--config.model.generator_num_layers=1", "--config.model.remat=none"]
    done = electramed_compile(
        "--config=configs/pretrain_base.py", "--topology=v5e:2x2", "--quick", "--batch=2000", *sizes
    )
    assert done.returncode == 2
    result = json.loads(done.stdout)
    assert not result["fits"] and result["peak_bytes"] > result["available_bytes"]
    assert "does not fit: needs" in done.stderr and "too much" in done.stderr


@pytest.mark.slow
def test_slices_exchange_only_gradients_and_fsdp_stays_inside_a_slice(compiler):
    done = electramed_compile(
        "--config=configs/pretrain_tiny.py", "--topology=v5e:2x2", "--num_slices=2", "--quick", "--max_seq_length=64",
        "--config.mesh.fsdp=4", "--config.model.num_layers=1", "--config.model.generator_num_layers=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["chips"], result["mesh"]) == (8, {"data": 2, "fsdp": 4, "tensor": 1})
    assert {kind for kind in result["collectives"] if "slices" in kind} == {"between slices: all-reduce"}
    within = {kind for kind in result["collectives"] if "slices" not in kind}
    assert within & {"all-gather", "collective-permute"}, "the parameters are gathered"
    assert 1.0 < result["program_flops"] / result["model_flops"] < 1.34, "unrolled loops are counted correctly"
    assert result["unknown_loops"] == []


# ---- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v5litepod-16"], "v5litepod-16 is v5e:4x4"),
        (["--topology=v5e:4x4", "--num_slices=0"], "num_slices=0: wanted 1 or more"),
        (["--topology=v5e:4x4", "--batch=0"], "batch=0: wanted 1 row a chip or more"),
        (["--topology=v5e:4x4", "--config.mesh.tensor=3"], "does not cover 16 devices"),
        (["--topology=v5e:4x4", "--config.batch_size=20"], "is not divisible by data"),
        (["--topology=v5e:4x4", "--max_seq_length=1024"], "rows of 1024 tokens need config.model.max_positions"),
        (["--topology=v5p:2x2x5x1"], "no such slice; the nearest: v5p:2x2x4, v5p:2x4x4"),
        (["--topology=v5e:2x2", "--num_slices=2", "--config.mesh.fsdp=8"], "does not divide over 2 slices"),
    ],
)
def test_a_user_error_is_one_line_with_a_remedy(arguments, message, compiler, repository, capsys, monkeypatch):
    from electramed_jax import cli

    for name in (*chips.ENVIRONMENT, "LIBTPU_INIT_ARGS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # restored after the command has set them
    assert cli.main(["compile", f"--config={repository / 'configs' / 'pretrain_tiny.py'}", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *_, last = captured.err.splitlines()
    assert last.startswith("electramed compile: ") and message in last


def test_the_error_without_the_compiler_names_the_extra_to_install(monkeypatch):
    from jax.experimental import topologies

    def absent(*_, **__):
        raise RuntimeError("JAX TPU support not installed; cannot generate TPU topology.")

    monkeypatch.setattr(topologies, "get_topology_desc", absent)
    with pytest.raises(UserError, match=r"pip install 'electramed_jax\[tpu\]'"):
        compile.get_topology("v5e:4x4")


@pytest.mark.parametrize(
    ("message", "gib"),
    [
        ("RESOURCE_EXHAUSTED: ... for HLO temporaries (18.50G) exceeds available HBM (15.75G).", 18.5),
        ("Ran out of memory in memory space hbm. Used 16.25G of 15.75G hbm. Exceeded hbm capacity by 512M.", 16.25),
        ("... temporaries (1536.00M) exceeds available HBM (1.00G).", 1.5),
        ("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem. Used 20.00M of 16.00M vmem.", None),
        ("INTERNAL: something else", None),
    ],
)
def test_the_out_of_memory_error_of_the_compiler_is_parsed(message, gib):
    assert automatic.parse_out_of_memory(message) == (None if gib is None else int(gib * GIB))


# ---- the largest batch that fits ---------------------------------------------------------------------------


def fake_compiler(peak_bytes, *, extra_bytes=0):
    """Returns a `compile_step` that needs `peak_bytes(rows per chip)`, plus `extra_bytes` if not quick, and its calls."""
    calls = []

    def compile_step(config, topology, *, quick=False, bundle_sizes=None):
        rows = config.batch_size // 8
        calls.append((rows, quick))
        size = int(peak_bytes(rows) + (0 if quick else extra_bytes))
        fits = size <= topology.chip.hbm_bytes
        cost = cost_model.ProgramCost() if fits else None
        return compile.CompiledStep(config, topology, {}, size, fits, {}, 1, 0.0, cost)

    return compile_step, calls


@pytest.mark.parametrize("start", [1, 16, 500])
@pytest.mark.parametrize(
    ("peak_bytes", "largest"),
    [
        (lambda rows: 3 * GIB + rows * GIB / 16, 204),
        (
            lambda rows: 3 * GIB + rows * GIB / 16 + (rows > 100) * GIB,
            188,
        ),  # a jump, as if the compiler changed its plan
        (lambda rows: 2 * GIB + rows**1.2 * GIB / 10, 60),
        (lambda rows: 15 * GIB + rows * GIB / 4, 3),
    ],
)
def test_the_largest_batch_is_found_in_few_compilations(peak_bytes, largest, start, monkeypatch):
    compile_step, calls = fake_compiler(peak_bytes)
    monkeypatch.setattr(compile, "compile_step", compile_step)
    found = compile.find_batch(dataclasses.replace(PRESETS["base"], batch_size=8 * start), EIGHT)
    rows = found.config.batch_size // 8
    assert found.fits and largest - max(1, largest // 32) <= rows <= largest
    assert len(calls) <= 8
    assert calls[-1] == (rows, False), "the result is compiled fully"


def test_if_not_even_one_row_fits_the_result_does_not_fit(monkeypatch):
    compile_step, calls = fake_compiler(lambda rows: 16 * GIB + rows)
    monkeypatch.setattr(compile, "compile_step", compile_step)
    found = compile.find_batch(PRESETS["base"], EIGHT)
    assert not found.fits and found.config.batch_size == 8
    assert len(calls) <= 8


def test_a_batch_that_fits_only_with_a_quick_compilation_is_reduced(monkeypatch):
    monkeypatch.setattr(
        compile, "compile_step", fake_compiler(lambda rows: 3 * GIB + rows * GIB / 16, extra_bytes=GIB)[0]
    )
    found = compile.find_batch(PRESETS["base"], EIGHT)
    assert found.fits and 180 <= found.config.batch_size // 8 <= 188


# ---- sharding and time -----------------------------------------------------------------------------------


def unsharded_names(mesh: MeshConfig, **model: object) -> set[str]:
    devices = jax.devices()[: mesh.data * mesh.fsdp * mesh.tensor]
    config = small.config(**model)
    params = jax.eval_shape(lambda: init_params(config))
    return set(sharding.unsharded_bytes(params, sharding.make_mesh(mesh, devices)))


def test_with_only_data_parallelism_no_parameter_could_be_sharded():
    assert unsharded_names(MeshConfig(8, 1, 1)) == set()


def test_kernels_of_heads_that_the_tensor_axis_does_not_divide_are_unsharded():
    """Two heads over four chips are unsharded, four heads are sharded."""
    assert "discriminator/layers/attention/out/kernel" in unsharded_names(MeshConfig(1, 1, 4))
    assert "discriminator/layers/attention/out/kernel" not in unsharded_names(MeshConfig(1, 1, 4), num_heads=4)


def test_a_parameter_sharded_over_fsdp_counts_as_unsharded_if_tensor_could_shard_it_too():
    """The width of qkv is sharded over fsdp and its heads over tensor."""
    names = unsharded_names(MeshConfig(1, 2, 2), num_heads=4)
    assert "discriminator/layers/attention/qkv/kernel" not in names
    assert "discriminator/head/dense/kernel" in names, "sharded over fsdp, not over tensor"


def test_the_time_estimate_includes_cycles_bytes_links_and_kernels():
    chip = chips.CHIPS["v5e"]
    cost = cost_model.analyze(
        "ENTRY %main (h: bf16[8,128]) -> bf16[8,128] {\n"
        "  %h = f32[1000,819]{1,0} parameter(0)\n"
        '  %a = f32[4]{0} add(%h, %h), metadata={op_name="attention/add"}, backend_config={"estimated_cycles":"3006"}\n'
        '  %b = f32[1000,819]{1,0} sort(%h), metadata={op_name="masking/sort"}\n'
        "  %c = f32[1000,819]{1,0} all-reduce(%h), channel_id=1, replica_groups=[1,4]<=[4]\n"
        '  %d = f32[1000,819]{1,0} custom-call(%h), custom_call_target="tpu_custom_call", '
        'metadata={op_name="feed_forward/kernel"}, backend_config={"cost_estimate":{"flops":"197000000000"}}\n'
        "}\n"
    )
    config = dataclasses.replace(small.config(), batch_size=8)
    topology = dataclasses.replace(EIGHT, devices=jax.devices()[:4])
    found = compile.estimate_time(compile.CompiledStep(config, topology, {}, 1, True, {}, 1, 0.0, cost))
    array = 1000 * 819 * 4
    assert found.seconds["attention"] == pytest.approx(3006 / chip.clock)
    assert found.seconds["embedding and sampling"] == pytest.approx(2 * array / 819e9)
    assert found.seconds["feed-forward"] == pytest.approx(1e-3), "bound by operations, not bytes"
    assert found.seconds["collectives"] == pytest.approx(array * 2 * 3 / 4 / 200e9)
    assert found.bandwidth_seconds == pytest.approx(found.step_seconds - 3006 / chip.clock)


@pytest.mark.parametrize(("name", "cores"), [("v4", 2), ("v5e", 1), ("v5p", 2), ("v6e", 1), ("tpu7x", 1)])
def test_the_cores_of_a_device_share_the_grid_of_a_kernel(name, cores):
    chip = chips.CHIPS[name]
    cost = cost_model.ProgramCost()
    cost.kernels.append(cost_model.Kernel("attention_forward", "attention", 1, 0, None, 1_000_000))
    topology = dataclasses.replace(EIGHT, chip=chip)
    config = dataclasses.replace(small.config(), batch_size=8)
    found = compile.estimate_time(compile.CompiledStep(config, topology, {}, 1, True, {}, 1, 0.0, cost))
    assert found.seconds["attention"] == pytest.approx(1_000_000 / chip.clock / cores)


def test_a_refusal_of_the_compiler_without_a_text_is_named_by_its_type(monkeypatch):
    from jax.experimental import topologies

    def refuse(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(topologies, "get_topology_desc", refuse)
    with pytest.raises(UserError, match=r"rejected by the compiler \(RuntimeError\)"):
        compile.get_topology("v5e:4x4")
