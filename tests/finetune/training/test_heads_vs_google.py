"""Where google-research/electra's heads are ours, so are its logits, its losses and its training steps."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle_numbers
import pytest
import quick

from electramed_jax.common.tree_rules import named_leaves
from electramed_jax.config.finetune import FinetuneOptimizerConfig
from electramed_jax.config.special_tokens import SpecialIds
from electramed_jax.finetune.task.task import IGNORE, SOFTMAX, SQUARED, Head
from electramed_jax.finetune.training import losses, model
from electramed_jax.finetune.training.step import TrainSpec
from electramed_jax.hf.format.mapping import SPAN, TOKEN
from electramed_jax.model import masking
from electramed_jax.training.optimizers import optimizer

pytestmark = pytest.mark.slow

SPECIAL = SpecialIds(pad=0, unk=100, cls=101, sep=102, mask=103)
TOLERANCE = dict(rtol=2e-5, atol=2e-5)


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    oracle: oracle_numbers.Oracle
    features: dict
    heads: dict
    outputs: dict

    def params(self, head: dict) -> dict:
        ours = self.oracle.params()
        encoder = {name: part for name, part in ours["discriminator"].items() if name != "head"}
        return {"embeddings": ours["embeddings"], "encoder": encoder, "head": {"logit": head}}

    def head(self, case: str, task: str, *layers: str) -> dict:
        """Dense layers of one output each, side by side."""
        held = [
            {part: self.heads[f"{case}/task_specific/{task}/{layer}/{part}"] for part in ("kernel", "bias")}
            for layer in layers
        ]
        return {part: np.concatenate([one[part] for one in held], axis=-1) for part in ("kernel", "bias")}


@pytest.fixture(scope="module")
def reference(shared_data) -> Reference:
    folder = shared_data / "oracle" / "ft"
    read = [oracle_numbers.read(folder / f"{name}.npz") for name in ("features", "heads", "outputs")]
    return Reference(oracle_numbers.load(shared_data, "c1"), *read)


def at_cls(labels: np.ndarray, length: int) -> np.ndarray:
    """Labels of a token task at [CLS] only: Google's classification head is one dense layer."""
    placed = np.full((len(labels), length, *labels.shape[1:]), IGNORE, labels.dtype)
    placed[:, 0] = labels
    return placed


def logits_and_loss(reference: Reference, params: dict, head: Head, labels: np.ndarray) -> tuple:
    config = reference.oracle.config.model
    ids = jnp.asarray(reference.features["input_ids"])

    def compute(params):
        structure = masking.packed_segments(ids, SPECIAL)
        logits = model.merge_params(config, head, params).logits(ids, structure)
        batch = {"input_ids": ids, "labels": jnp.asarray(labels)}
        return logits, losses.task_loss(logits, batch, structure.segments_BT, head)

    return quick.jit(compute)(params)


def test_token_types_are_read_from_the_separators(reference):
    structure = masking.packed_segments(jnp.asarray(reference.features["input_ids"]), SPECIAL)
    np.testing.assert_array_equal(structure.token_types_BT, reference.features["segment_ids"])


def test_classification(reference):
    params = reference.params(reference.head("mnli", "mnli", "dense"))
    labels = at_cls(reference.features["mnli_label_ids"], 32)
    logits, (total, count) = logits_and_loss(reference, params, Head(TOKEN, ("a", "b", "c"), SOFTMAX), labels)
    np.testing.assert_allclose(logits[:, 0], reference.outputs["mnli/logits"], **TOLERANCE)
    assert (float(total), float(count)) == pytest.approx((float(reference.outputs["mnli/total_loss"]), 4), rel=1e-5)


def test_regression(reference):
    params = reference.params(reference.head("sts", "sts", "dense"))
    labels = at_cls(reference.features["sts_targets"][:, None], 32)
    logits, (total, _) = logits_and_loss(reference, params, Head(TOKEN, ("score",), SQUARED), labels)
    np.testing.assert_allclose(logits[:, 0, 0], reference.outputs["sts/predictions"], **TOLERANCE)
    assert float(total) == pytest.approx(float(reference.outputs["sts/total_loss"]), rel=1e-5)


def test_spans(reference):
    params = reference.params(reference.head("squadv1_simple", "squadv1", "dense", "dense_1"))
    labels = np.zeros((4, 32, 2), np.float32)
    ends = [reference.features[f"squadv1_{end}_positions"] for end in ("start", "end")]
    for column, places in enumerate(ends):
        labels[np.arange(4), places, column] = 1
    logits, (_, count) = logits_and_loss(reference, params, Head(SPAN, ("start", "end")), labels)
    real = reference.features["input_ids"] != 0
    for column, end in enumerate(("start", "end")):
        theirs = reference.outputs[f"squadv1_simple/{end}_logits"]
        compared = real & (theirs > -500)  # Google's code masks the tokens of the question
        assert compared.sum() > 20
        np.testing.assert_allclose(logits[..., column][compared], theirs[compared], **TOLERANCE)
    assert float(count) == 4


def test_three_steps_with_layer_wise_rates(reference, shared_data):
    """Google sums the loss over the batch; three steps on that sum, under its rule of decay, end at its weights."""
    config = FinetuneOptimizerConfig(
        learning_rate=1e-3, warmup_fraction=0.1, layerwise_lr_decay=0.8, layerwise_lr_decay_rule="google"
    )
    head = Head(TOKEN, ("a", "b", "c"), SOFTMAX)
    recipe = TrainSpec(reference.oracle.config.model, head, SPECIAL, config, total_steps=20)
    ids, labels = reference.features["input_ids"], at_cls(reference.features["mnli_label_ids"], 32)
    batch = {"input_ids": jnp.asarray(ids), "labels": jnp.asarray(labels)}
    tx = recipe.tx()

    def loss(params):
        structure = masking.packed_segments(batch["input_ids"], SPECIAL)
        logits = model.merge_params(recipe.model, head, params).logits(batch["input_ids"], structure)
        return losses.task_loss(logits, batch, structure.segments_BT, head)[0]

    @quick.jit
    def step(params, opt_state):
        value, gradients = jax.value_and_grad(loss)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    params = reference.params(reference.head("mnli", "mnli", "dense"))
    opt_state, seen = tx.init(params), []
    for _ in range(3):
        params, opt_state, value = step(params, opt_state)
        seen.append(float(value))
    wanted = oracle_numbers.read(shared_data / "oracle" / "ft" / "mnli_steps_scalars.npz")
    assert seen == pytest.approx(wanted["loss_steps"][:3].tolist(), rel=1e-5)

    after = oracle_numbers.read(shared_data / "oracle" / "ft" / "mnli_after3.npz")
    theirs = {name: value for name, value in after.items() if not name.startswith("task_specific")}
    # `to_tree` wants a whole discriminator: its head has no part in this.
    theirs |= {n: v for n, v in reference.oracle.variables().items() if n.startswith("discriminator_predictions")}
    tree = oracle_numbers.to_tree(theirs, reference.oracle.config.model)
    encoder = {name: part for name, part in tree["discriminator"].items() if name != "head"}
    logit = {part: after[f"task_specific/mnli/dense/{part}"] for part in ("kernel", "bias")}
    wanted = named_leaves({"embeddings": tree["embeddings"], "encoder": encoder, "head": {"logit": logit}})
    before = named_leaves(reference.params(reference.head("mnli", "mnli", "dense")))
    compare = functools.partial(np.testing.assert_allclose, rtol=0, atol=3e-6)
    for name, ours in named_leaves(params).items():
        without = oracle_numbers.without_key_bias
        compare(without(name, ours), without(name, wanted[name]), err_msg=name)
        assert np.abs(without(name, ours) - without(name, before[name])).max() > 1e-5, f"{name} has not moved"


def test_warm_up_is_a_fraction_of_the_run_and_need_not_be_whole_steps(shared_data):
    held = oracle_numbers.read(shared_data / "oracle" / "lr.npz")
    for total in (100, 37):
        schedule = optimizer.learning_rate_schedule(FinetuneOptimizerConfig(learning_rate=1e-4), total)
        case = f"finetune_1e-4_{total}_proportion0.1"
        ours = [float(schedule(step)) for step in held[f"{case}/steps"]]
        np.testing.assert_allclose(ours, held[f"{case}/lr"], rtol=2e-6, atol=1e-11)
