"""Alerts on the metrics of a pre-training run: what was observed, what it means and what to try.

Alerts are a pure function of the run's metrics: the same history raises the same alerts in the run, after a restart
and in a later report. An alert is raised when its condition begins to hold, and again only after the condition has not
held for `COOLDOWN_ENTRIES` entries, because metrics near a threshold fluctuate.

The thresholds follow ELECTRA-Small's published curves (google-research/electra issue 3: AUC 0.70 at step 5,000 and 0.90
at 200,000, discriminator accuracy 0.929 with 9 % of the tokens replaced) and runs of this code. In the first steps the
generator is poor, its replacements are easy to detect, and discriminator loss and AUC fluctuate (up to step 10,000 in
those curves): no alert is raised for that. A run without alerts may therefore be too short to judge: see `verdict.py`.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.manifest import Manifest

Entry = Mapping[str, Any]  # a line of metrics.jsonl: "step", "split" and the metrics by name

TRANSIENT_STEPS = 10_000  # AUC and discriminator loss fluctuate until this step
MIN_STEPS = 5_000  # from this step, and a twentieth of the run, a network is expected to have learned
WINDOW = 5  # entries that a training metric is averaged over
THROUGHPUT_WINDOW = 20  # entries that the newest throughput is compared with
COOLDOWN_ENTRIES = {"train": 10, "validation": 3}  # entries without the condition before an alert may be raised again

MAX_FIRST_GENERATOR_ERROR = 1.0  # nats from ln V at step 0; logits of standard deviation 1 add half a nat
# Nats at step 0, expected ln 2 = 0.69. Logits of standard deviation 2 raise it to 1.1; logits that all favor "original"
# lower it to 0.42 at best.
FIRST_DISCRIMINATOR_RANGE = (0.4, 1.2)
MIN_ACCURACY_GAIN = 0.01  # over predicting "original" for every token, as a fraction of the replaced tokens
MIN_RECALL = 0.1
MIN_AUC = 0.6  # ELECTRA-Small 0.70 at step 5,000; pretrain_tiny.py 0.63 at 2,500
MAX_GENERATOR_ACCURACY = 0.65  # ELECTRA-Small reaches 0.46, runs on easily predicted text 0.6
MAX_AUC_DROP = 0.02  # below the best so far
MAX_GENERATOR_RISE = 0.5  # nats above the best so far
MAX_FILL_DROP = 0.02  # below the manifest's fill fraction
MIN_THROUGHPUT_RATIO = 0.7  # of the earlier throughput
TOO_STRONG = (
    "the generator is too strong: it replaces few tokens, with words as plausible as the originals",
    "a narrower generator (model.generator_hidden_size a quarter to a third of hidden_size), a higher "
    "objective.mask_probability, or objective.temperature above 1",
)


def settled_step(config: Config) -> int:
    """Returns the step after which networks should have learned: warm-up, a twentieth of the run, or `MIN_STEPS`."""
    return math.floor(max(config.optimizer.warmup_steps, config.total_steps / 20, MIN_STEPS))


@dataclasses.dataclass(frozen=True)
class Alert:
    """An alert; each text is one clause of a line.

    Attributes:
      kind: name of the check in `CHECKS`.
      step: step of the entry that raised it.
      observation: the metrics that raised it.
      explanation: what they mean.
      suggestion: what to try.
    """

    kind: str
    step: int
    observation: str
    explanation: str
    suggestion: str

    def __str__(self) -> str:
        return f"alert at step {self.step:,}: {self.observation}: {self.explanation}; try: {self.suggestion}"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Alert:
        """Returns the alert that `to_json` wrote."""
        return cls(values["kind"], values["step"], values["seen"], values["means"], values["advice"])

    def to_json(self) -> dict[str, Any]:
        """Returns the alert for --json, with the keys of earlier versions."""
        return {
            "kind": self.kind,
            "step": self.step,
            "seen": self.observation,
            "means": self.explanation,
            "advice": self.suggestion,
        }


@dataclasses.dataclass(frozen=True)
class _Window:
    """The history of a run up to its newest entry.

    Attributes:
      config: the resolved config.
      manifest: of the training dataset.
      process_start: the step from which the process that wrote the newest entry started.
      train: training entries without that of step 1, which measures the initial parameters.
      validation: validation entries.
      newest: the newest entry of either split.
    """

    config: Config
    manifest: Manifest
    process_start: int
    train: Sequence[Entry]
    validation: Sequence[Entry]
    newest: Entry

    @property
    def step(self) -> int:
        """The step of the newest entry."""
        return self.newest["step"]

    @property
    def is_past_warmup(self) -> bool:
        """Whether the run is past `settled_step`."""
        return self.step > settled_step(self.config)

    @property
    def is_past_transient(self) -> bool:
        """Whether AUC and discriminator loss should be stable."""
        return self.is_past_warmup and self.step > TRANSIENT_STEPS

    def recent_mean(self, name: str) -> float | None:
        """Returns the mean of a training metric over the last `WINDOW` entries; None if there are fewer."""
        values = [entry[name] for entry in self.train[-WINDOW:] if name in entry]
        return statistics.fmean(values) if len(values) == WINDOW else None


class AlertMonitor:
    """Checks the entries of metrics.jsonl one by one, in order.

    Attributes:
      raised: all alerts so far, in order.
    """

    def __init__(self, config: Config, manifest: Manifest, entries: Iterable[Entry] = (), starts: Sequence[int] = (0,)):
        """Starts after the entries of earlier processes.

        Args:
          config: the resolved config.
          manifest: of the training dataset.
          entries: entries of the run so far, in order.
          starts: the steps from which its processes started.
        """
        self._config, self._manifest, self._starts = config, manifest, sorted(starts)
        self._train: list[Entry] = []
        self._validation: list[Entry] = []
        self._entries_since_held: dict[str, int] = {}  # by alert kind, of the alerts that may not be raised again yet
        self.raised: list[Alert] = []
        for entry in entries:
            self.update(entry)

    def update(self, entry: Entry) -> list[Alert]:
        """Checks the next entry; returns the alerts that it raises."""
        split, step = entry["split"], entry["step"]
        if split == "train" and step > 1:
            self._train.append(entry)
        elif split == "validation":
            self._validation.append(entry)
        process_start = max((start for start in self._starts if start < step), default=0)
        window = _Window(self._config, self._manifest, process_start, self._train, self._validation, entry)
        new = []
        for kind, check in CHECKS.get(split, {}).items():
            try:
                finding = check(window)
            except KeyError:  # the entry lacks a metric, such as a line that was edited by hand
                continue
            if finding and kind not in self._entries_since_held:
                new.append(Alert(kind, step, *finding))
            if finding:
                self._entries_since_held[kind] = 0
            elif kind in self._entries_since_held:
                self._entries_since_held[kind] += 1
                if self._entries_since_held[kind] == COOLDOWN_ENTRIES[split]:
                    del self._entries_since_held[kind]
        self.raised += new
        return new


def find_alerts(
    entries: Iterable[Entry], config: Config, manifest: Manifest, starts: Sequence[int] = (0,)
) -> list[Alert]:
    """Returns all alerts of a run, in the order of its steps.

    Args:
      entries: lines of metrics.jsonl, in order.
      config: the resolved config.
      manifest: of the training dataset.
      starts: the steps from which the run was started or resumed.
    """
    return AlertMonitor(config, manifest, entries, starts).raised


# ---- checks: each returns (observation, explanation, suggestion), or None ------------------------------------------

Finding = tuple[str, str, str] | None


def _not_finite(window: _Window) -> Finding:
    bad = [name for name, value in window.newest.items() if isinstance(value, float) and not math.isfinite(value)]
    if not bad:
        return None
    return (
        f"{window.newest['split']} {', '.join(bad)} not finite",
        "the run has diverged",
        "a lower optimizer.learning_rate or longer warmup_steps, from a checkpoint before this step",
    )


def _first_loss(window: _Window) -> Finding:
    """Compares the losses of step 1 with ln V (generator) and ln 2 (discriminator), the losses of a uniform guess."""
    entry, config = window.newest, window.config
    if entry["step"] != 1 or config.init:
        return None
    expected = math.log(max(1, config.model.vocab_size))
    low, high = FIRST_DISCRIMINATOR_RANGE
    discriminator = entry.get("discriminator_loss", math.log(2))
    generator_is_off = (
        config.objective.kind != "uniform" and abs(entry["generator_loss"] - expected) > MAX_FIRST_GENERATOR_ERROR
    )
    if not generator_is_off and low <= discriminator <= high:
        return None
    return (
        f"generator_loss {entry['generator_loss']:.2f}, discriminator_loss {discriminator:.3f} before the first update",
        f"untrained networks have losses of ln V = {expected:.2f} and ln 2 = 0.693, or slightly higher",
        "model.kernel_stddev=0.02 if the losses are far higher; if they are lower, check the rows with electramed "
        "inspect: the text may be repetitive, or use few tokens of the vocabulary",
    )


def _all_original(window: _Window) -> Finding:
    accuracy, replaced = window.recent_mean("discriminator_accuracy"), window.recent_mean("replaced_fraction")
    if (
        not window.is_past_warmup
        or accuracy is None
        or replaced is None
        or accuracy > 1 - (1 - MIN_ACCURACY_GAIN) * replaced
    ):
        return None
    return (
        f"discriminator_accuracy {accuracy:.4f}; predicting original for every token gives {1 - replaced:.4f}",
        "the discriminator does not yet distinguish replacements from originals",
        "another optimizer.learning_rate (lower if the losses fluctuate, higher if they hardly change); in narrow "
        "models model.kernel_stddev near 1/sqrt(width)",
    )


def _low_recall(window: _Window) -> Finding:
    recall = window.recent_mean("discriminator_recall")
    if not window.is_past_warmup or recall is None or recall >= MIN_RECALL:
        return None
    accuracy = window.recent_mean("generator_accuracy")
    if accuracy is not None and accuracy > MAX_GENERATOR_ACCURACY:  # from the start; see also _strong_generator
        return (f"generator_accuracy {accuracy:.3f} and discriminator_recall {recall:.3f}", *TOO_STRONG)
    return (
        f"discriminator_recall {recall:.3f}",
        "the discriminator predicts original for nearly every replacement; normal only during the warm-up",
        "waiting if discriminator_auc rises; otherwise a lower optimizer.learning_rate, or a smaller generator",
    )


def _unigram(window: _Window) -> Finding:
    loss = window.newest["generator_loss"]
    floor = window.manifest.splits["validation"].unigram_cross_entropy
    if not window.is_past_warmup or window.config.objective.kind == "uniform" or loss < floor:
        return None
    return (
        f"validation generator_loss {loss:.2f}; token frequencies alone give {floor:.2f}",
        "the generator does not use the context",
        "a longer optimizer.warmup_steps, or another learning_rate (lower if the losses fluctuate, higher if they "
        "hardly change); check the rows with electramed inspect",
    )


def _generator_rises(window: _Window) -> Finding:
    losses = [entry["generator_loss"] for entry in window.validation]
    if len(losses) < 2 or losses[-1] - min(losses) <= MAX_GENERATOR_RISE:
        return None
    return (
        f"validation generator_loss {losses[-1]:.2f}, up from {min(losses):.2f}",
        "the run is diverging",
        "resuming from a checkpoint before the rise with a lower optimizer.learning_rate",
    )


def _auc_drop(window: _Window) -> tuple[float, float] | None:
    """Returns (best, newest) AUC if both of the last two validations are below the best; else None."""
    curve = [
        e["discriminator_auc"] for e in window.validation if e["step"] > TRANSIENT_STEPS and "discriminator_auc" in e
    ]
    if not window.is_past_transient or len(curve) < 3 or max(curve[-2:]) > max(curve) - MAX_AUC_DROP:
        return None
    return max(curve), curve[-1]


def _falling_auc(window: _Window) -> Finding:
    drop = _auc_drop(window)
    if drop is None or window.newest["generator_accuracy"] > MAX_GENERATOR_ACCURACY:
        return None
    return (
        f"discriminator_auc {drop[1]:.3f}, down from {drop[0]:.3f}",
        "the discriminator is getting worse, after the fluctuations of the first steps",
        "a lower optimizer.learning_rate from an earlier checkpoint; compare that checkpoint on downstream tasks",
    )


def _low_auc(window: _Window) -> Finding:
    curve = [entry["discriminator_auc"] for entry in window.validation[-2:] if "discriminator_auc" in entry]
    if not window.is_past_transient or len(curve) < 2 or max(curve) >= MIN_AUC:
        return None
    return (
        f"discriminator_auc {curve[-1]:.3f}; 0.5 is chance",
        "the discriminator hardly distinguishes replacements from originals",
        "another optimizer.learning_rate (lower if the losses fluctuate, higher if they hardly change); a narrower "
        "generator if generator_accuracy is above 0.6",
    )


def _strong_generator(window: _Window) -> Finding:
    drop = _auc_drop(window)
    accuracy = window.newest["generator_accuracy"]
    if drop is None or accuracy <= MAX_GENERATOR_ACCURACY:
        return None
    return (
        f"generator_accuracy {accuracy:.3f} and discriminator_auc {drop[1]:.3f}, down from {drop[0]:.3f}",
        *TOO_STRONG,
    )


def _low_fill(window: _Window) -> Finding:
    fill, expected = window.recent_mean("fill_fraction"), window.manifest.splits["train"].fill_fraction
    if fill is None or window.config.data.weights:  # the manifest has the unweighted mean
        return None
    rows = max(1, (window.step - window.train[-WINDOW]["step"]) * window.config.batch_size)
    # A row's fill is in [0, 1], so its standard deviation is at most 1/2. Three standard errors of the mean are noise.
    if fill >= expected - max(MAX_FILL_DROP, 3 * 0.5 / math.sqrt(rows)):
        return None
    return (
        f"fill_fraction {fill:.3f}; the dataset's manifest gives {expected:.3f}",
        "the rows hold more padding than the packed rows: the files were replaced or are damaged",
        f"electramed inspect {window.config.data.directory} --verify, and packing again",
    )


def _slow(window: _Window) -> Finding:
    rates = [
        e["tokens_per_second"]
        for e in window.train[-THROUGHPUT_WINDOW - 3 :]
        if e["step"] > window.process_start and "tokens_per_second" in e
    ]
    if len(rates) < THROUGHPUT_WINDOW // 2 + 3:
        return None
    now, before = statistics.median(rates[-3:]), statistics.median(rates[:-3])
    if now >= MIN_THROUGHPUT_RATIO * before:
        return None
    return (
        f"{now:,.0f} tokens/s, down from {before:,.0f}",
        "steps take longer than before",
        "looking for another process on the machine, a throttled device or slow storage (data.cache_directory caches "
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
        "low_auc": _low_auc,
        "strong_generator": _strong_generator,
        "falling_auc": _falling_auc,
    },
}
