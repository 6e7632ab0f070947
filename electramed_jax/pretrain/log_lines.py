"""Console lines for the metrics of a pre-training run."""

from __future__ import annotations

from collections.abc import Mapping

from electramed_jax.common import step_timer

SHOWN = (  # metrics that the terminal display shows
    "loss",
    "generator_loss",
    "generator_accuracy",
    "discriminator_loss",
    "discriminator_auc",
    "discriminator_recall",
    "replaced_fraction",
    "gradient_norm",
    "learning_rate",
)


def entry_line(split: str, step: int, total_steps: int, metrics: Mapping[str, float]) -> str:
    """Returns the console line for one entry of metrics.jsonl."""
    if split == "train":
        return f"step {step:,}/{total_steps:,}  {metrics_line(metrics)}{_speed(metrics)}"
    return f"{split} at step {step:,}: {metrics_line(metrics)}"


def metrics_line(metrics: Mapping[str, float]) -> str:
    """Returns the main losses and accuracies as one line; missing metrics are left out."""
    shown = (
        ("loss", "loss {:.3f}"),
        ("generator_loss", "generator {:.3f}"),
        ("generator_accuracy", "(accuracy {:.3f})"),
        ("discriminator_loss", "discriminator {:.4f}"),
        ("discriminator_auc", "(AUC {:.3f})"),
        ("discriminator_recall", "recall {:.3f}"),
    )
    return "  ".join(form.format(metrics[name]) for name, form in shown if name in metrics)


def _speed(metrics: Mapping[str, float]) -> str:
    if "step_seconds" not in metrics:
        return ""
    utilization = metrics.get("model_flops_utilization")
    return (
        f"  {metrics['step_seconds']:.3f} s/step  {metrics['tokens_per_second']:,.0f} tokens/s"
        + (f"  MFU {utilization:.1%}" if utilization is not None else "")
        + f"  ETA {step_timer.format_duration(metrics['eta_seconds'])}"
    )
