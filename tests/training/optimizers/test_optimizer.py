"""Learning rate, weight decay, clipping, Adam and LAMB, against google-research/electra and optax."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle_numbers
import pytest
import quick
import small

from electramed_jax.common import tree_rules
from electramed_jax.config.pretrain import OptimizerConfig
from electramed_jax.pretrain.state import init_params
from electramed_jax.training.optimizers import optimizer

# ---- learning rate -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "settings", "total_steps"),
    [
        ("pretrain_1e-3_100_warmup2", dict(learning_rate=1e-3, warmup_steps=2), 100),
        ("pretrain_5e-4_1000000_warmup10000", dict(learning_rate=5e-4, warmup_steps=10_000), 1_000_000),
        ("pretrain_1e-3_100_warmup10_power2", dict(learning_rate=1e-3, warmup_steps=10, decay_power=2.0), 100),
        ("pretrain_1e-3_100_warmup0", dict(learning_rate=1e-3, warmup_steps=0), 100),
        ("finetune_1e-4_100_proportion0.1", dict(learning_rate=1e-4, warmup_steps=10), 100),
    ],
)
def test_learning_rates_equal_the_reference(shared_data, case, settings, total_steps):
    rates = oracle_numbers.read(shared_data / "oracle" / "lr.npz")
    steps, theirs = rates[f"{case}/steps"], rates[f"{case}/lr"].copy()
    if settings["warmup_steps"] == 0:
        assert np.isnan(theirs[0]), "0/0 in the reference; here the rate starts at the peak without warm-up"
        theirs[0] = settings["learning_rate"]
    learning_rate = optimizer.learning_rate_schedule(OptimizerConfig(**settings), total_steps)
    np.testing.assert_allclose(learning_rate(jnp.asarray(steps)), theirs, rtol=1e-6, atol=1e-12)


def test_the_rates_of_the_first_and_the_last_step_are_zero():
    learning_rate = optimizer.learning_rate_schedule(OptimizerConfig(learning_rate=1.0, warmup_steps=10), 100)
    assert learning_rate(0) == 0.0
    assert learning_rate(5) == pytest.approx(0.95 * 0.5)
    assert learning_rate(100) == learning_rate(250) == 0.0


# ---- whole steps ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=oracle_numbers.CASES)
def steps(request, shared_data):
    """Three steps from the weights of the reference, on its batch and random draws, with the result of each step."""
    oracle = oracle_numbers.load(shared_data, request.param)
    tx = optimizer.make_optimizer(oracle.config.optimizer, oracle.config.total_steps)

    @quick.jit
    def update(gradients, opt_state, params):
        updates, opt_state = tx.update(gradients, opt_state, params)
        return opt_state, optax.apply_updates(params, updates), optax.tree.norm(gradients)

    evaluate = oracle_numbers.evaluator(oracle)
    params = oracle.params()
    opt_state, done = tx.init(params), []
    for _ in range(3):
        evaluation = evaluate(params)
        opt_state, params, norm = update(evaluation.gradients, opt_state, params)
        done.append(types.SimpleNamespace(loss=evaluation.loss, norm=norm, params=params, opt_state=opt_state))
    return types.SimpleNamespace(oracle=oracle, done=done, loss_after=evaluate(params).loss)


@pytest.mark.slow
def test_parameters_after_one_two_and_three_steps_equal_the_reference(steps):
    compared = 0
    for number, done in enumerate(steps.done, start=1):
        if not (steps.oracle.folder / f"after{number}.npz").exists():
            continue
        theirs = tree_rules.named_leaves(steps.oracle.params(f"after{number}"))
        for name, leaf in tree_rules.named_leaves(done.params).items():
            # A step changes a parameter by about 1e-3. If the gradient is round-off, so is its direction.
            np.testing.assert_allclose(
                oracle_numbers.without_key_bias(name, leaf),
                oracle_numbers.without_key_bias(name, theirs[name]),
                atol=2e-6,
                rtol=0,
                err_msg=f"{name} after step {number}",
            )
            np.testing.assert_allclose(leaf, theirs[name], atol=5e-6, rtol=0, err_msg=name)
        compared += 1
    assert compared > 0


@pytest.mark.slow
def test_the_first_step_changes_nothing_because_its_rate_is_zero(steps):
    jax.tree.map(np.testing.assert_array_equal, steps.done[0].params, steps.oracle.params())


@pytest.mark.slow
def test_losses_and_gradient_norms_before_clipping_equal_the_reference(steps):
    scalars = steps.oracle.scalars
    norms = [done.norm for done in steps.done]
    np.testing.assert_allclose(norms, scalars["global_norm_steps"], rtol=1e-5)
    ours = [*[done.loss for done in steps.done], steps.loss_after]
    np.testing.assert_allclose(ours, scalars["total_loss_steps"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("steps", ["c1", "c2"], indirect=True)  # the reference data has none for the other cases
def test_moments_after_three_steps_equal_the_reference(steps):
    """The gradients had norms of 31 to 149, so clipping affects every entry."""
    slots = steps.oracle.variables("slots_after3")
    adam = next(part for part in steps.done[-1].opt_state if isinstance(part, optimizer.AdamState))
    for slot, ours in (("/adam_m", adam.mu), ("/adam_v", adam.nu)):
        variables = {name.removesuffix(slot): value for name, value in slots.items() if name.endswith(slot)}
        theirs = tree_rules.named_leaves(oracle_numbers.to_tree(variables, steps.oracle.config.model))
        for name, leaf in tree_rules.named_leaves(ours).items():
            expected = oracle_numbers.without_key_bias(name, theirs[name])
            np.testing.assert_allclose(
                oracle_numbers.without_key_bias(name, leaf),
                expected,
                atol=5e-5 * np.abs(expected).max(),
                rtol=0,
                err_msg=f"{name}{slot}",
            )


# ---- parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", oracle_numbers.CASES)
def test_the_same_parameters_decay_as_in_the_reference(shared_data, case):
    """In the reference, variables with "LayerNorm", "layer_norm" or "bias" in their name do not decay."""
    oracle = oracle_numbers.load(shared_data, case)
    decays = {
        name: np.full(value.shape, not any(part in name for part in ("LayerNorm", "layer_norm", "bias")))
        for name, value in oracle.variables().items()
    }
    theirs = oracle_numbers.to_tree(decays, oracle.config.model)
    for name, leaf in tree_rules.named_leaves(theirs).items():
        real = leaf[: oracle.config.model.vocab_size] if name.endswith(("word", "output_bias")) else leaf
        assert (real == optimizer.DECAY_RULES(name)).all(), name


@pytest.mark.parametrize("tying", ["embeddings", "none", "all", "gradient_disentangled"])
def test_every_parameter_has_exactly_one_decay_rule(tying):
    """RuleTable raises otherwise."""
    shapes = jax.eval_shape(lambda: init_params(small.config(tying=tying)))
    decaying = {name for name in tree_rules.named_leaves(shapes) if optimizer.DECAY_RULES(name)}
    assert all(name.endswith(("kernel", "word", "position", "token_type")) for name in decaying)


@pytest.mark.slow
def test_decay_shrinks_kernels_and_not_biases():
    """With a gradient of zero, a step changes a weight by rate · decay · weight."""
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=0, weight_decay=0.1)
    tx = optimizer.make_optimizer(config, total_steps=10)
    params = {"dense": {"kernel": jnp.full((2, 2), 8.0), "bias": jnp.full((2,), 8.0)}}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["dense"]["kernel"], -0.5 * 0.1 * 8.0, rtol=1e-6)
    np.testing.assert_array_equal(updates["dense"]["bias"], 0.0)


def test_a_gradient_below_the_clip_norm_is_not_changed():
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=0, weight_decay=0.0, clip_norm=1.0, epsilon=1e-3)
    tx = optimizer.make_optimizer(config, total_steps=10**6)
    params = {"bias": jnp.zeros(2)}

    def moment(gradient):
        _, opt_state = tx.update({"bias": jnp.asarray(gradient)}, tx.init(params), params)
        return next(part for part in opt_state if isinstance(part, optimizer.AdamState)).mu["bias"]

    np.testing.assert_allclose(moment([0.3, 0.4]), [0.03, 0.04], rtol=1e-6)
    np.testing.assert_allclose(moment([30.0, 40.0]), [0.06, 0.08], rtol=1e-6)


# ---- LAMB ----------------------------------------------------------------------------------------


def _one_array_per_matrix(params: dict) -> dict:
    """Returns the parameters with each layer's query, key, value and other kernels in separate arrays."""
    flat = {}
    for name, leaf in tree_rules.named_leaves(params).items():
        parts = {name: leaf}
        if name.split("/")[1:2] == ["layers"]:
            parts = {f"{name}/{layer}": leaf[layer] for layer in range(leaf.shape[0])}
        if name.endswith("qkv/kernel"):
            parts = {f"{part}/{q}": kernel[:, q] for part, kernel in parts.items() for q in range(3)}
        flat |= parts
    return flat


@pytest.mark.slow
def test_lamb_equals_optax_lamb_on_one_array_per_matrix():
    """Compares three steps. A mask excludes parameters without decay from the trust ratio of optax."""
    model = small.config()
    params = small.noisy_params(model)
    config = OptimizerConfig(kind="lamb", learning_rate=0.01, warmup_steps=0, decay_power=0.0, clip_norm=1e9)
    ours = optimizer.make_optimizer(config, total_steps=100)
    flat = _one_array_per_matrix(params)
    decays = {name: "kernel" in name or name.endswith(("word", "position", "token_type")) for name in flat}
    theirs = optax.chain(
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decays),
        optax.masked(optax.scale_by_trust_ratio(), decays),
        optax.scale_by_learning_rate(config.learning_rate),
    )

    def three_steps(tx, params):
        opt_state = tx.init(params)
        for _ in range(3):
            gradients = jax.tree.map(jnp.sin, params)
            updates, opt_state = tx.update(gradients, opt_state, params)
            params = optax.apply_updates(params, updates)
        return params

    expected = quick.jit(lambda: three_steps(theirs, flat))()
    got = _one_array_per_matrix(quick.jit(lambda: three_steps(ours, params))())
    assert got.keys() == expected.keys()
    for name, leaf in expected.items():
        np.testing.assert_allclose(got[name], leaf, rtol=2e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("tying", ["embeddings", "none", "all", "gradient_disentangled"])
def test_every_decaying_parameter_has_exactly_one_trust_ratio_rule(tying):
    shapes = jax.eval_shape(lambda: init_params(small.config(tying=tying)))
    for name, leaf in tree_rules.named_leaves(shapes).items():
        if optimizer.DECAY_RULES(name):
            assert all(leaf.shape[axis] in (2, 3) for axis in optimizer.STACKED_AXES(name)), name


# ---- bias correction -----------------------------------------------------------------------------


def adam_steps(bias_correction: bool, gradients: list[np.ndarray], config: OptimizerConfig) -> list[np.ndarray]:
    """Returns a kernel and a bias, stacked, after each step."""
    tx = optimizer.make_optimizer(config, 10**6, bias_correction=bias_correction)
    params = {"kernel": jnp.ones((3, 4)), "bias": jnp.ones((3, 4))}
    state, after = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(dict.fromkeys(params, jnp.asarray(gradient)), state, params)
        params = optax.apply_updates(params, updates)
        after.append(np.stack([params["kernel"], params["bias"]]))
    return after


@pytest.mark.slow
def test_with_bias_correction_the_steps_equal_those_of_torch_adamw():
    torch = pytest.importorskip("torch", reason="compares with torch: install electramed_jax[parity]")
    config = OptimizerConfig(
        learning_rate=1e-2, warmup_steps=0, decay_power=0.0, epsilon=1e-6, weight_decay=0.1, clip_norm=1e9
    )
    draw = np.random.default_rng(0)
    gradients = [draw.normal(size=(3, 4)).astype(np.float32) for _ in range(20)]
    kernel, bias = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    groups = [{"params": [kernel], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=1e-2, eps=1e-6)
    for step, ours in enumerate(adam_steps(True, gradients, config)):
        kernel.grad, bias.grad = (torch.tensor(gradients[step]) for _ in range(2))
        theirs.step()
        np.testing.assert_allclose(ours, np.stack([kernel.detach(), bias.detach()]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("step", "factor"), [(1, 3.2), (10, 6.5), (100, 3.2)])
def test_without_bias_correction_early_updates_are_larger(step, factor):
    config = OptimizerConfig(
        learning_rate=1e-3, warmup_steps=0, decay_power=0.0, epsilon=1e-12, weight_decay=0.0, clip_norm=1e9
    )
    gradients = [np.full((3, 4), 0.5, np.float32)] * step
    updates = []
    for bias_correction in (False, True):
        after = [np.ones((2, 3, 4)), *adam_steps(bias_correction, gradients, config)]
        updates.append(np.mean(after[-1] - after[-2]))
    assert updates[0] / updates[1] == pytest.approx(factor, abs=0.05)
