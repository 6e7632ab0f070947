"""The verdict on a pre-training run: whether it can be judged yet, and what its newest metrics show.

Most alerts are for networks that should have learned by then (`alerts.settled_step`). In a shorter run their absence
means nothing, so the verdict is "too short to judge", with the reason, and compares the newest metrics with what is
reached without learning.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from electramed_jax.config.pretrain import Config
from electramed_jax.data.dataset.manifest import Manifest
from electramed_jax.pretrain import alerts as alerts_lib
from electramed_jax.pretrain.alerts import Alert, Entry

TOO_SHORT, ALERTS, WEAK, HEALTHY = KINDS = ("too_short", "alerts", "weak", "healthy")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of judging a run by its metrics.

    Attributes:
      kind: "too_short": the run cannot be judged yet; "alerts": alerts were raised; "weak": none was raised, but a
        metric is near what is reached without learning; "healthy": neither.
      step: the newest step with metrics.
      reason: why the run is too short to judge; "" if it is not.
      weak: metrics near what is reached without learning.
      learned: metrics better than that.
      alerts: kinds of the alerts, each once.
    """

    kind: str
    step: int
    reason: str
    weak: tuple[str, ...]
    learned: tuple[str, ...]
    alerts: tuple[str, ...]

    @property
    def title(self) -> str:
        """The verdict in a few words."""
        if self.kind == TOO_SHORT:
            return "too short to judge"
        if self.kind == ALERTS:
            return f"{len(self.alerts)} kind{'s' if len(self.alerts) > 1 else ''} of alerts"
        return "no alert, but weak" if self.kind == WEAK else "no alert"

    @property
    def sentences(self) -> list[str]:
        """The reason, the metrics and the alerts, a clause each."""
        parts = [self.reason] if self.reason else []
        parts += [f"not better than without learning: {', '.join(self.weak)}"] if self.weak else []
        parts += [f"better than without learning: {', '.join(self.learned)}"] if self.learned else []
        if self.alerts:
            parts.append(f"alerts: {', '.join(self.alerts)}")
        elif self.kind == TOO_SHORT and self.step:
            parts.append(
                "no alert among the checks that need no training (finite values, first losses, padding, speed)"
            )
        return parts

    def __str__(self) -> str:
        """The verdict in one line of a log; the report has all `sentences`."""
        parts = [f"verdict at step {self.step:,}: {self.title}"]
        parts += [self.reason.partition(" (")[0]] if self.reason else []
        parts += [f"not better than without learning: {', '.join(self.weak)}"] if self.weak else []
        compared = len(self.weak) + len(self.learned)
        parts += [f"{len(self.learned)} of {compared} metrics better than without learning"] if self.learned else []
        parts += [f"alerts: {', '.join(self.alerts)}"] if self.alerts else []
        return "; ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the verdict for --json."""
        return dataclasses.asdict(self)


def judge(entries: Sequence[Entry], config: Config, manifest: Manifest, alerts: Sequence[Alert]) -> Verdict:
    """Returns the verdict on a run.

    Args:
      entries: lines of metrics.jsonl, in order.
      config: the resolved config.
      manifest: of the training dataset.
      alerts: those raised by the entries.
    """
    step = max((entry["step"] for entry in entries), default=0)
    kinds = tuple(dict.fromkeys(alert.kind for alert in alerts))
    reason = _too_short(entries, step, config)
    weak, learned = _compare_with_no_learning(_newest(entries), config, manifest)
    kind = TOO_SHORT if reason else ALERTS if kinds else WEAK if weak else HEALTHY
    return Verdict(kind, step, reason, tuple(weak), tuple(learned), kinds)


def _too_short(entries: Sequence[Entry], step: int, config: Config) -> str:
    """Returns why a run cannot be judged yet; "" if it can."""
    if not entries:
        return "no metrics are logged yet"
    settled = alerts_lib.settled_step(config)
    if step <= settled:
        ends = "; the run ends before" if config.total_steps <= settled else ""
        return (
            f"networks should have learned after step {settled:,} (the largest of {alerts_lib.MIN_STEPS:,}, the "
            f"warm-up of {config.optimizer.warmup_steps:,} steps and a twentieth of the run){ends}"
        )
    averaged = [entry for entry in entries if entry["split"] == "train" and entry["step"] > 1]
    if len(averaged) < alerts_lib.WINDOW:
        return f"{len(averaged)} training entries (log_every); metrics are averaged over {alerts_lib.WINDOW}"
    if not any(entry["split"] == "validation" and entry["step"] > settled for entry in entries):
        return f"no validation after step {settled:,} (eval_every), on which AUC and generator loss are judged"
    return ""


def _newest(entries: Sequence[Entry]) -> Entry:
    """Returns the newest validation metrics, and training metrics for those that no validation has."""
    newest: dict[str, Any] = {}
    for split in ("train", "validation"):
        for entry in entries:
            if entry["split"] == split:
                newest |= entry
    return newest


def _compare_with_no_learning(
    metrics: Mapping[str, Any], config: Config, manifest: Manifest
) -> tuple[list[str], list[str]]:
    """Returns (metrics near what is reached without learning, metrics better than that)."""

    def of(name: str) -> float:
        return float(metrics.get(name, math.nan))

    found: list[tuple[bool, str]] = []  # (whether it is weak, description)
    auc, recall = of("discriminator_auc"), of("discriminator_recall")
    accuracy, replaced, loss = of("discriminator_accuracy"), of("replaced_fraction"), of("generator_loss")
    if math.isfinite(auc):
        found.append((auc < alerts_lib.MIN_AUC, f"discriminator_auc {auc:.3f} (0.500 is chance)"))
    if math.isfinite(recall):
        found.append((recall < alerts_lib.MIN_RECALL, f"discriminator_recall {recall:.1%} of the replaced tokens"))
    if math.isfinite(accuracy + replaced):
        is_weak = accuracy <= 1 - (1 - alerts_lib.MIN_ACCURACY_GAIN) * replaced
        found.append((is_weak, f"discriminator_accuracy {accuracy:.4f} (all original: {1 - replaced:.4f})"))
    if math.isfinite(loss) and config.objective.kind != "uniform" and "validation" in manifest.splits:
        floor = manifest.splits["validation"].unigram_cross_entropy
        found.append((loss >= floor, f"generator_loss {loss:.2f} (token frequencies alone: {floor:.2f})"))
    return [text for is_weak, text in found if is_weak], [text for is_weak, text in found if not is_weak]
