"""Cost model: a synthetic program in the format of the TPU compiler, and real programs of the CPU compiler."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from electramed_jax.aot import cost_model, hlo

# The loop runs one layer 12 times: a product (fused with random bits), an all-reduce, and an all-gather that is split over
# two fusions. Before it, an update of a table in HBM; after it, a kernel and a transfer between slices.
TPU = """HloModule jit_step, is_scheduled=true, entry_computation_layout={(bf16[8,128]{1,0:T(8,128)})->bf16[8,128]{1,0}}

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%fused_product (p0: bf16[8,128], p1: bf16[128,64]) -> bf16[8,64] {
  %p0 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %p1 = bf16[128,64]{1,0:T(8,128)(2,1)} parameter(1)
  %product = bf16[8,64]{1,0} convolution(%p0, %p1), dim_labels=bf_io->bf, metadata={op_name="jit(step)/jvp()/while/body/closed_call/attention/dot_general" stack_frame_id=3}
  %bits = u32[8,64]{1,0} iota(), iota_dimension=0
  %mixed.1 = u32[8,64]{1,0} xor(%bits, %bits), metadata={op_name="jit(step)/jvp()/while/body/closed_call/attention/dropout_bits/xor"}
  %mixed.2 = u32[8,64]{1,0} add(%mixed.1, %bits), metadata={op_name="jit(step)/jvp()/while/body/closed_call/attention/dropout_bits/add"}
  ROOT %kept = bf16[8,64]{1,0} select(%mixed.2, %product, %product), metadata={op_name="jit(step)/jvp()/while/body/closed_call/attention/select"}
}

%async_collective_fusion.1 (p: bf16[16,8]) -> bf16[16,128] {
  %p = bf16[16,8]{1,0} parameter(0)
  ROOT %gathered.1 = bf16[16,128]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=16,'axis_1'=1] {'axis_0'}, dimensions={1}, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
}

%async_collective_fusion.2 (p: bf16[16,8]) -> bf16[16,128] {
  %p = bf16[16,8]{1,0} parameter(0)
  ROOT %gathered.2 = bf16[16,128]{1,0} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=16,'axis_1'=1] {'axis_0'}, dimensions={1}, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%all-reduce-scatter.3 (p: f32[4,128]) -> f32[8,128] {
  %p = f32[4,128]{1,0} parameter(0)
  %padded = f32[64,128]{1,0} pad(%p, %p), padding=0_60x0_0
  %whole = f32[64,128]{1,0} all-reduce(%padded), channel_id=12, replica_groups=[2,8]<=[16], to_apply=%add
  ROOT %mine = f32[8,128]{1,0} dynamic-slice(%whole, %p, %p), dynamic_slice_sizes={8,128}
}

%body (state: (s32[], bf16[8,128], bf16[12,128,64])) -> (s32[], bf16[8,128], bf16[12,128,64]) {
  %state = (s32[]{:T(128)}, bf16[8,128]{1,0}, /*index=2*/bf16[12,128,64]{2,1,0}) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%state), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%turn, %one)
  %h = bf16[8,128]{1,0} get-tuple-element(%state), index=1
  %w = bf16[128,64]{1,0} get-tuple-element(%state), index=2
  %fusion.1 = bf16[8,64]{1,0:T(8,128)(2,1)S(1)} fusion(%h, %w), kind=kOutput, calls=%fused_product, metadata={op_name="jit(step)/jvp()/while/body/closed_call/attention/dot_general"}, backend_config={"window_config":{"estimated_cycles":"1000","iteration_bounds":["1"]},"note":"a ) in a string"}
  %fusion.2 = bf16[16,128]{1,0} fusion(%h), kind=kCustom, calls=%async_collective_fusion.1
  %fusion.3 = bf16[16,128]{1,0} fusion(%h), kind=kOutput, calls=%async_collective_fusion.2
  %reduced = (f32[100]{0:T(128)S(1)}, f32[20]{0}) all-reduce(%g.1, %g.2), channel_id=9, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %out = (s32[], bf16[8,128], bf16[12,128,64]) tuple(%next, %h, %w)
}

%condition (state: (s32[], bf16[8,128], bf16[12,128,64])) -> pred[] {
  %state = (s32[], bf16[8,128], bf16[12,128,64]) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %end = s32[] constant(14)
  ROOT %less = pred[]{:T(512)} compare(%turn, %end), direction=LT
}

ENTRY %main (h: bf16[8,128], w: bf16[12,128,64]) -> bf16[8,128] {
  %h = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %w = bf16[12,128,64]{2,1,0} parameter(1)
  %rows = f32[4,128]{1,0} parameter(2)
  %table = f32[1000,128]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %zero = s32[] constant(0)
  %updated = f32[1000,128]{1,0} dynamic-update-slice(%table, %rows, %zero, %zero), metadata={op_name="jit(step)/transpose(jvp(embedding))/scatter"}
  %first = s32[] constant(2)
  %begin = s32[] copy(%first)
  %start = (s32[], bf16[8,128]{1,0}, bf16[12,128,64]{2,1,0}) tuple(%begin, %h, %w)
  %loop = (s32[], bf16[8,128]{1,0}, bf16[12,128,64]{2,1,0}) while(%start), condition=%condition, body=%body
  %moments = f32[1000]{0} fusion(%table), kind=kLoop, calls=%add, metadata={op_name="jit(step)/optimizer/add"}, backend_config={"window_config":{"estimated_cycles":"500"}}
  %splash = bf16[8,128]{1,0} custom-call(%h), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 128, \\"q_layout\\": 1}"
}}, metadata={op_name="jit(step)/jvp(attention)/pallas_call"}, backend_config={"custom_call_config":{"body":"x","cost_estimate":{"flops":"4096","bytes_accessed":"8"}}}
  %token = token[] after-all()
  %sent = (f32[4,128]{1,0}, u32[], token[]) send(%rows, %token), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %started = (bf16[8,128]{1,0}, bf16[8,1024]{1,0}) all-gather-start(%h), channel_id=11, replica_groups=[2,8]<=[16], dimensions={1}
  %done = bf16[8,1024]{1,0} all-gather-done(%started)
  %another = bf16[16,64]{1,0} all-gather(%h), channel_id=7, replica_groups=[2,8]<=[16], dimensions={1}
  %part = f32[8,128]{1,0} fusion(%rows), kind=kCustom, calls=%all-reduce-scatter.3
  ROOT %answer = bf16[8,128]{1,0} get-tuple-element(%loop), index=1
}
"""
# The operands of the all-reduce in the loop are needed only for their bytes.
TPU = TPU.replace("  %reduced =", "  %g.1 = f32[100]{0} bitcast(%h)\n  %g.2 = f32[20]{0} bitcast(%h)\n  %reduced =")


@pytest.fixture(scope="module")
def tpu() -> cost_model.ProgramCost:
    return cost_model.analyze(TPU)


def test_a_product_in_a_loop_counts_once_per_iteration(tpu):
    """The counter runs from 2 up to 14."""
    assert tpu.flops == 12 * 2 * 8 * 128 * 64 + 4096, "including the kernel"
    assert tpu.unknown_loops == []


@pytest.mark.parametrize(("increment", "trip_count"), [(2, 6), (5, 3)])
def test_a_larger_increment_of_the_counter_gives_fewer_iterations(increment, trip_count):
    """The compiler unrolls loops this way."""
    text = TPU.replace("%one = s32[] constant(1)", f"%one = s32[] constant({increment})")
    assert cost_model.analyze(text).flops == trip_count * 2 * 8 * 128 * 64 + 4096


def test_a_loop_of_unknown_length_is_counted_once_and_named():
    text = TPU.replace("%first = s32[] constant(2)", "%first = s32[] parameter(3)")
    found = cost_model.analyze(text)
    assert found.unknown_loops == ["loop"]
    assert found.flops == 2 * 8 * 128 * 64 + 4096


def test_the_trip_count_of_the_compiler_has_priority():
    text = TPU.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}')
    assert cost_model.analyze(text).flops == 3 * 2 * 8 * 128 * 64 + 4096


def test_cycles_of_a_fusion_are_divided_by_the_work_of_its_instructions(tpu):
    """The product has 2·8·128·64 operations at 32 per lane, the select 512 elements, the bits twice 512."""
    attention, bits = 2 * 8 * 128 * 64 / 32 + 512, 2 * 512
    assert tpu.cycles["attention"] == pytest.approx(12 * 1000 * attention / (attention + bits))
    assert tpu.cycles["dropout random bits"] == pytest.approx(12 * 1000 * bits / (attention + bits))
    assert tpu.cycles["optimizer"] == 500
    assert sum(tpu.cycles.values()) == pytest.approx(12_500)


def test_a_collective_split_over_fusions_counts_once_and_is_hidden(tpu):
    gather = tpu.collectives["all-gather"]
    assert gather.count == 12 + 1 + 1
    assert gather.bytes == 12 * 16 * 128 * 2 + 8 * 1024 * 2 + 16 * 64 * 2
    assert gather.exposed_link_bytes == 16 * 64 * 2 * 7 / 8, "of another collective with the same channel"
    assert gather.hidden_link_bytes == 12 * 16 * 128 * 2 * 15 / 16 + 8 * 1024 * 2 * 7 / 8


def test_an_all_reduce_sends_its_bytes_twice_except_for_the_part_of_the_chip(tpu):
    reduce = tpu.collectives["all-reduce"]
    assert (reduce.count, reduce.bytes) == (12, 12 * 480)
    assert reduce.exposed_link_bytes == 12 * 480 * 2 * 3 / 4


def test_a_fusion_that_keeps_a_part_of_an_all_reduce_is_a_reduce_scatter(tpu):
    scatter = tpu.collectives["reduce-scatter"]
    assert (scatter.count, scatter.bytes, scatter.exposed_link_bytes) == (1, 64 * 128 * 4, 64 * 128 * 4 * 7 / 8)


def test_transfers_between_slices_are_listed_separately(tpu):
    between = tpu.collectives["between slices: all-reduce"]
    assert (between.count, between.bytes) == (1, 4 * 128 * 4)


def test_an_update_in_place_moves_the_bytes_of_the_update_not_of_the_table(tpu):
    assert tpu.unestimated_bytes["embedding and sampling"] == 2 * 4 * 128 * 4


def test_a_hand_written_kernel_counts_with_its_declared_cost(tpu):
    assert tpu.kernels == [cost_model.Kernel("splash", "attention", 1, 2 * 8 * 128 * 2, 4096, None)]
    silent = cost_model.analyze(TPU.replace('"cost_estimate":{"flops":"4096","bytes_accessed":"8"}', ""))
    assert silent.kernels[0].flops is None


def test_the_cycles_of_a_kernel_are_its_code_length_times_its_declared_grid_steps():
    program = TPU.replace('\\"block_q\\": 128', '\\"turns\\": \\"6\\"')
    assert cost_model.analyze(program, {"splash": 700}).kernels[0].cycles == 4200
    assert cost_model.analyze(program).kernels[0].cycles is None, "the code length is unknown"
    assert cost_model.analyze(TPU, {"splash": 700}).kernels[0].cycles is None, "the number of grid steps is unknown"


def test_identical_kernels_share_one_code_length():
    """libtpu compiles one of them, and the dump has the name of that one."""
    program = TPU.replace('\\"block_q\\": 128', '\\"turns\\": \\"6\\"')
    splash = program[program.index("  %splash =") : program.index("  %token =")]
    again = splash.replace("%splash", "%splash.4").replace("{1,0} custom-call", "{1,0:S(1)} custom-call")
    wider = splash.replace("%splash = bf16[8,128]", "%splash.5 = bf16[8,256]")
    kernels = cost_model.analyze(program.replace(splash, splash + again + wider), {"splash.4": 700}).kernels
    assert [kernel.cycles for kernel in kernels] == [4200, 4200, None]
    assert {kernel.base_name for kernel in kernels} == {"splash"}


def test_text_without_a_program_is_rejected():
    with pytest.raises(ValueError, match="not the text of a compiled program"):
        cost_model.analyze("HloModule nothing\n")


@pytest.mark.parametrize(
    ("attributes", "chips"),
    [
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2,'axis_2'=8] {'axis_0','axis_2'}, x=1", 32),
        ("replica_groups=[4,8]<=[8,4]T(1,0), x=1", 8),
        ("replica_groups={{0,4,8},{1,5,9}}, x=1", 3),
        ("source_target_pairs={{0,1},{1,0}}", 2),
    ],
)
def test_the_group_size_of_a_collective_is_parsed_from_every_format(attributes, chips):
    assert cost_model.group_size(attributes) == chips


# ---- real programs -----------------------------------------------------------------------------------


CONVOLUTIONS = [
    {"window_strides": (1, 1), "padding": [(0, 0), (0, 0)]},
    {"window_strides": (2, 3), "padding": [(2, 1), (0, 4)]},
    {"window_strides": (1, 2), "padding": [(1, 1), (3, 3)], "lhs_dilation": (2, 3)},
    {"window_strides": (1, 1), "padding": [(5, 5), (1, 0)], "rhs_dilation": (2, 2)},
    {"window_strides": (3, 1), "padding": [(0, 0), (2, 2)], "lhs_dilation": (4, 1), "rhs_dilation": (1, 3)},
    {"window_strides": (1, 1), "padding": [(1, 1), (1, 1)], "feature_group_count": 2},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS)
def test_operations_of_a_convolution_equal_those_of_xla(settings):
    features = 6 // settings.get("feature_group_count", 1)
    left, right = jax.ShapeDtypeStruct((4, 6, 9, 11), np.float32), jax.ShapeDtypeStruct((8, features, 3, 2), np.float32)
    compiled = jax.jit(lambda x, k: jax.lax.conv_general_dilated(x, k, **settings)).lower(left, right).compile()
    module = hlo.parse(compiled.as_text())
    instructions = [(c, i) for c in module.computations.values() for i in c.values()]
    counted = sum(cost_model.product_flops(c, i) for c, i in instructions)
    assert counted == pytest.approx(compiled.cost_analysis()["flops"]) and counted > 0


@pytest.mark.parametrize("equation", ["ij,jk->ik", "bij,bkj->bik", "btnh,bsnh->bnts"])
def test_operations_of_a_dot_equal_those_of_xla(equation):
    sizes = dict(zip("ijkbtnhs", (3, 5, 7, 2, 4, 6, 8, 9), strict=True))
    shapes = [jax.ShapeDtypeStruct([sizes[a] for a in side], np.float32) for side in equation.split("->")[0].split(",")]
    compiled = jax.jit(lambda x, y: jnp.einsum(equation, x, y)).lower(*shapes).compile()
    products = 2 * np.prod([sizes[a] for a in set("".join(itertools.takewhile(lambda c: c != "-", equation))) - {","}])
    assert cost_model.analyze(compiled.as_text()).flops == products


def test_a_scan_over_eight_devices_counts_products_and_all_reduces_in_every_iteration():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def layer(x, w):
        with jax.named_scope("feed_forward"):
            return jax.lax.psum(jnp.tanh(x @ w), "data"), None

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=(P("data"), P()), out_specs=P(), check_vma=False)
    def run(x, w):
        return jax.lax.scan(layer, x, w)[0]

    text = run.lower(jnp.ones((16, 32)), jnp.ones((5, 32, 32))).compile().as_text()
    found = cost_model.analyze(text)
    assert found.flops == 5 * 2 * 2 * 32 * 32
    assert (found.collectives["all-reduce"].count, found.collectives["all-reduce"].bytes) == (5, 5 * 2 * 32 * 4)
    groups = {cost_model.group_of(i) for c in hlo.parse(text).computations.values() for i in c.values()}
    assert groups == {"feed-forward", "rest"}


@pytest.mark.parametrize("name", ["norm_forward", "norm_forward.2", "norm_forward.48.x", "norm_forward.3.1"])
def test_the_name_of_a_kernel_is_found_in_the_names_of_its_instructions(name):
    """libtpu 0.0.50 adds ".x" to the first of several identical kernels."""
    assert cost_model.base_name(name) == "norm_forward"
    assert cost_model.base_name("norm.forward") == "norm.forward"
