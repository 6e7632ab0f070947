"""metrics.jsonl and starts.json of a synthetic run without problems, with a vocabulary of about 90 tokens."""

from __future__ import annotations

import json
import pathlib

LOG_EVERY, STEPS = 100, 3000


def entries(**changed: float) -> list[dict]:
    """Returns entries in the format of a run; `changed` replaces metrics in all of them."""
    result = []
    for step in (1, *range(LOG_EVERY, STEPS + 1, LOG_EVERY)):
        metrics = {
            "loss": 20 + 25 / step,
            "generator_loss": 3 + 1.5 / step,
            "generator_accuracy": 0.3,
            "sampled_accuracy": 0.2,
            "fill_fraction": 0.5,
            "discriminator_loss": 0.3 + 0.39 / step,
            "discriminator_accuracy": 0.9,
            "discriminator_precision": 0.7,
            "discriminator_recall": 0.3,
            "replaced_fraction": 0.12,
        }
        if step % 1000 == 0:
            auc = {"discriminator_auc": 0.7 + step / 1e5}
            result.append({"step": step, "split": "validation"} | metrics | auc | changed)
        speed = {} if step == 1 else {"step_seconds": 0.5, "tokens_per_second": 4000.0, "eta_seconds": 60.0}
        rates = {"gradient_norm": 1.5, "learning_rate": 1e-4, "host_memory_bytes": 3 * 2**30}
        rates |= {"device_memory_bytes": 2**30, "device_memory_peak_bytes": 2**31}
        result.append({"step": step, "split": "train"} | metrics | rates | speed | changed)
    return result


def write(workdir: pathlib.Path, **changed: float) -> None:
    """Writes both files to a workdir: a run that was resumed at step 2,000 on more devices."""
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries(**changed)))
    start = {"time": "2026-01-02T03:04:05+00:00", "device_kind": "TPU v4", "processes": 1, "version": "0", "jax": "0"}
    starts = [start | {"step": 0, "devices": 4}, start | {"step": 2000, "devices": 8, "processes": 2}]
    (workdir / "starts.json").write_text(json.dumps(starts))
