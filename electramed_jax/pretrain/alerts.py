"""The sanity watch: a pure function from a run's metrics to what a person should be told, and what to try.

An alert is raised where it begins to hold, and again only after it has not held for some time, since figures that
stand at a threshold go back and forth: the same history gives the same alerts, in a run, after its restart and in a
report long after it.

What a healthy run looks like is taken from ELECTRA-Small's published curves (google-research/electra issue 3: AUC 0.70
at step 5,000 and 0.90 at 200,000, discriminator accuracy 0.929 where 9 % of the tokens are replaced) and from runs of
this code. Early on the generator is poor, its replacements are easy to find, and discriminator loss and AUC dip and
jump (up to step 10,000 in those curves): that is no alert.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.manifest import Manifest

Entry = Mapping[str, Any]  # a line of metrics.jsonl: "step", "split" and figures by name

TRANSIENT_STEPS = 10_000  # before which AUC and discriminator loss come and go
MIN_STEPS = 5_000  # after which, and a twentieth of the run, a network has learnt something or has not
WINDOW = 5  # entries that a training figure is averaged over
THROUGHPUT_WINDOW = 20  # entries that a throughput is compared with

COOLDOWN_ENTRIES = {"train": 10, "validation": 3}  # entries in a row after which an alert may be raised again

GENERATOR_SCATTER = 1.0  # nats around ln V at step 0; logits of standard deviation 1 add half a nat
# Nats at step 0: logits of standard deviation 2 make 1.1 of ln 2 = 0.69; ones that all lean to "original" 0.42 at best.
DISCRIMINATOR_RANGE = (0.4, 1.2)
NO_GAIN = 0.01  # of the replaced tokens, that accuracy lies above "all original"
LOW_RECALL = 0.1
STRONG_GENERATOR = 0.65  # generator accuracy; ELECTRA-Small reaches 0.46, runs on text easy to predict 0.6
AUC_LOSS = 0.02  # below the best so far
GENERATOR_RISE = 0.5  # nats above the best so far
FILL_LOSS = 0.02
SLOW = 0.7  # of the throughput before
TOO_STRONG = (
    "the generator is too strong: few tokens are replaced, and by words as good as the originals",
    "a narrower generator (model.generator_hidden_size a quarter to a third of hidden_size), a higher "
    "objective.mask_probability, or objective.temperature above 1",
)


@dataclasses.dataclass(frozen=True)
class Alert:
    """What was seen at a step, what it means and what to try, each a clause of one line."""

    kind: str
    step: int
    seen: str
    means: str
    advice: str

    def __str__(self) -> str:
        return f"alert at step {self.step:,}: {self.seen}: {self.means}; try: {self.advice}"


@dataclasses.dataclass(frozen=True)
class _Window:
    """The history up to its newest entry, and whose it is."""

    config: Config
    manifest: Manifest
    started: int  # the step that this process, or the one of that time, began after
    train: Sequence[Entry]  # the one at step 1 left out: it measures the initial parameters
    validation: Sequence[Entry]
    newest: Entry

    @property
    def step(self) -> int:
        return self.newest["step"]

    @property
    def settled(self) -> bool:
        config = self.config
        return self.step > max(config.optimizer.warmup_steps, config.total_steps / 20, MIN_STEPS)

    @property
    def past_transient(self) -> bool:
        return self.settled and self.step > TRANSIENT_STEPS

    def recent(self, name: str) -> float | None:
        """Mean of a training figure over the last entries; None before there are enough."""
        values = [entry[name] for entry in self.train[-WINDOW:] if name in entry]
        return statistics.fmean(values) if len(values) == WINDOW else None


class AlertMonitor:
    """Looks at one entry after the other."""

    def __init__(self, config: Config, manifest: Manifest, entries: Iterable[Entry] = (), starts: Sequence[int] = (0,)):
        """`entries`: those of the run so far, in order; `starts`: the steps that its processes began after."""
        self._config, self._manifest, self._starts = config, manifest, sorted(starts)
        self._train: list[Entry] = []
        self._validation: list[Entry] = []
        self._calm: dict[str, int] = {}  # entries since an alert last held, of those that may not be raised again yet
        self.raised: list[Alert] = []  # so far, in order
        for entry in entries:
            self.see(entry)

    def see(self, entry: Entry) -> list[Alert]:
        """What the newest entry gives rise to."""
        split, step = entry["split"], entry["step"]
        if split == "train" and step > 1:
            self._train.append(entry)
        elif split == "validation":
            self._validation.append(entry)
        started = max((start for start in self._starts if start < step), default=0)
        view = _Window(self._config, self._manifest, started, self._train, self._validation, entry)
        new = []
        for kind, check in CHECKS[split].items():
            found = check(view)
            if found and kind not in self._calm:
                new.append(Alert(kind, step, *found))
            if found:
                self._calm[kind] = 0
            elif kind in self._calm:
                self._calm[kind] += 1
                if self._calm[kind] == COOLDOWN_ENTRIES[split]:
                    del self._calm[kind]
        self.raised += new
        return new


def alerts(entries: Iterable[Entry], config: Config, manifest: Manifest, starts: Sequence[int] = (0,)) -> list[Alert]:
    """Everything that was wrong in a run, in the order of its steps.

    Args:
      entries: of metrics.jsonl, in order.
      config: resolved.
      manifest: of the dataset trained on.
      starts: the steps after which the run was started or went on.
    """
    return AlertMonitor(config, manifest, entries, starts).raised


# ---- the checks: (what was seen, what it means, what to try), or None ----------------------------------------------

Finding = tuple[str, str, str] | None


def _not_finite(view: _Window) -> Finding:
    bad = [name for name, value in view.newest.items() if isinstance(value, float) and not math.isfinite(value)]
    if not bad:
        return None
    return (
        f"{view.newest['split']} {', '.join(bad)} not finite",
        "the run has diverged",
        "a lower optimizer.learning_rate or longer warmup_steps, from a checkpoint before this step",
    )


def _first_loss(view: _Window) -> Finding:
    """ln V for the generator and ln 2 for the discriminator, plus what the scatter of the fresh logits adds."""
    entry, config = view.newest, view.config
    if entry["step"] != 1 or config.init:
        return None
    chance = math.log(config.model.vocab_size)
    low, high = DISCRIMINATOR_RANGE
    discriminator = entry.get("discriminator_loss", math.log(2))
    generator_off = config.objective.kind != "uniform" and abs(entry["generator_loss"] - chance) > GENERATOR_SCATTER
    if not generator_off and low <= discriminator <= high:
        return None
    return (
        f"generator_loss {entry['generator_loss']:.2f}, discriminator_loss {discriminator:.3f} before the first update",
        f"networks that know nothing stand at ln V = {chance:.2f} and ln 2 = 0.693, or a little above",
        "model.kernel_stddev=0.02 if they are far above; if below, look at the rows with electramed inspect: "
        "a text that repeats itself, or a vocabulary of few tokens in use",
    )


def _all_original(view: _Window) -> Finding:
    accuracy, replaced = view.recent("discriminator_accuracy"), view.recent("replaced_fraction")
    if not view.settled or accuracy is None or replaced is None or accuracy > 1 - (1 - NO_GAIN) * replaced:
        return None
    return (
        f"discriminator_accuracy {accuracy:.4f} where calling every token original gives {1 - replaced:.4f}",
        "the discriminator has not begun to tell replacements from originals",
        "another optimizer.learning_rate (lower if the losses jump, higher if they hardly move); in narrow models "
        "model.kernel_stddev near 1/sqrt(width)",
    )


def _low_recall(view: _Window) -> Finding:
    recall = view.recent("discriminator_recall")
    if not view.settled or recall is None or recall >= LOW_RECALL:
        return None
    accuracy = view.recent("generator_accuracy")
    if accuracy is not None and accuracy > STRONG_GENERATOR:  # from the start; later its AUC falls
        return (f"generator_accuracy {accuracy:.3f} and discriminator_recall {recall:.3f}", *TOO_STRONG)
    return (
        f"discriminator_recall {recall:.3f}",
        "it calls nearly every replacement original; usual only before the warm-up ends",
        "patience if discriminator_auc rises; else a lower optimizer.learning_rate, or a smaller generator",
    )


def _unigram(view: _Window) -> Finding:
    loss = view.newest["generator_loss"]
    floor = view.manifest.splits["validation"].unigram_cross_entropy
    if not view.settled or view.config.objective.kind == "uniform" or loss < floor:
        return None
    return (
        f"validation generator_loss {loss:.2f}, and {floor:.2f} by the words' frequencies alone",
        "the generator makes no use of context",
        "a longer optimizer.warmup_steps, or another learning_rate (lower if the losses jump, higher if they hardly "
        "move); check the rows with electramed inspect",
    )


def _generator_rises(view: _Window) -> Finding:
    losses = [entry["generator_loss"] for entry in view.validation]
    if len(losses) < 2 or losses[-1] - min(losses) <= GENERATOR_RISE:
        return None
    return (
        f"validation generator_loss {losses[-1]:.2f}, after {min(losses):.2f}",
        "the run is diverging",
        "going on from a checkpoint before the rise with a lower optimizer.learning_rate",
    )


def _auc_fall(view: _Window) -> tuple[float, float] | None:
    """(best, newest) where the AUC, past the transient, has fallen at two validations in a row."""
    curve = [
        e["discriminator_auc"] for e in view.validation if e["step"] > TRANSIENT_STEPS and "discriminator_auc" in e
    ]
    if not view.past_transient or len(curve) < 3 or max(curve[-2:]) > max(curve) - AUC_LOSS:
        return None
    return max(curve), curve[-1]


def _falling_auc(view: _Window) -> Finding:
    fallen = _auc_fall(view)
    if fallen is None or view.newest["generator_accuracy"] > STRONG_GENERATOR:
        return None
    return (
        f"discriminator_auc {fallen[1]:.3f}, after {fallen[0]:.3f}",
        "the discriminator gets worse at its task, past the ups and downs of the start",
        "a lower optimizer.learning_rate from an earlier checkpoint; compare that checkpoint downstream",
    )


def _strong_generator(view: _Window) -> Finding:
    fallen = _auc_fall(view)
    accuracy = view.newest["generator_accuracy"]
    if fallen is None or accuracy <= STRONG_GENERATOR:
        return None
    return (
        f"generator_accuracy {accuracy:.3f} and discriminator_auc {fallen[1]:.3f}, after {fallen[0]:.3f}",
        *TOO_STRONG,
    )


def _low_fill(view: _Window) -> Finding:
    fill, expected = view.recent("fill_fraction"), view.manifest.splits["train"].fill_fraction
    if fill is None or view.config.data.weights:  # weights change the mean, and the manifest is that of all folders
        return None
    rows = (view.step - view.train[-WINDOW]["step"]) * view.config.batch_size
    # A row's fill is in [0, 1], so its standard deviation is 1/2 at most: three of the mean's are chance.
    if fill >= expected - max(FILL_LOSS, 3 * 0.5 / math.sqrt(rows)):
        return None
    return (
        f"fill_fraction {fill:.3f}, and {expected:.3f} by the dataset's manifest",
        "the rows are emptier than those that were packed: other files, or damaged ones",
        f"electramed inspect {view.config.data.directory} --verify, and packing again",
    )


def _slow(view: _Window) -> Finding:
    paces = [
        e["tokens_per_second"]
        for e in view.train[-THROUGHPUT_WINDOW - 3 :]
        if e["step"] > view.started and "tokens_per_second" in e
    ]
    if len(paces) < THROUGHPUT_WINDOW // 2 + 3:
        return None
    now, before = statistics.median(paces[-3:]), statistics.median(paces[:-3])
    if now >= SLOW * before:
        return None
    return (
        f"{now:,.0f} tokens/s, after {before:,.0f}",
        "steps take longer than they did",
        "looking for another process on the machine, a throttled device, slow storage (data.cache_directory keeps "
        "remote rows on disk)",
    )


CHECKS: dict[str, dict[str, Callable[[_Window], Finding]]] = {
    "train": {
        "not_finite": _not_finite,
        "first_loss": _first_loss,
        "all_original": _all_original,
        "low_recall": _low_recall,
        "low_fill": _low_fill,
        "slow": _slow,
    },
    "validation": {
        "not_finite_validation": _not_finite,
        "unigram": _unigram,
        "generator_rises": _generator_rises,
        "strong_generator": _strong_generator,
        "falling_auc": _falling_auc,
    },
}
