"""An invented workdir of `electramed finetune` for entities: two seeds, and the records of their predictions on dev."""

from __future__ import annotations

import json
import pathlib
from typing import Any

WORDS = "Severe chronic gastritis after atenolol and <b>aspirin</b> was treated with water and lithium".split()
GOLD = [[0, 3, "Disease"], [4, 5, "Chemical"], [6, 7, "Chemical"], [12, 13, "Chemical"]]
RIGHT = {"line": 1, "words": WORDS, "gold": GOLD, "predicted": GOLD}
# A border, a type, a missed and a spurious entity; one is right.
WRONG = RIGHT | {
    "line": 14,
    "predicted": [[1, 3, "Disease"], [4, 5, "Disease"], [6, 7, "Chemical"], [10, 11, "Chemical"]],
}
MISSED = {"line": 27, "words": ["Fever", "and", "pain"], "gold": [[0, 1, "Disease"]], "predicted": []}


def write(folder: pathlib.Path) -> str:
    """Writes the files that the report reads; seed 4 is the better one on dev."""
    folder.mkdir()
    score = {"mean": 70.0, "standard_deviation": 1.0}
    names = [f"{measure}/{kind}" for kind in ("Chemical", "Disease") for measure in ("precision", "recall", "f1")]
    results: dict[str, Any] = {
        "task": "ner",
        "variant": "invented",
        "published": [],
        "data": {"files": {}, "sizes": {"dev": {"sentences": 3}}},
        "encoder": "runs/small",
        "primary": "f1",
        "seeds": [3, 4],
        "seeds_wanted": 2,
        "scores": {"dev": dict.fromkeys(("f1", *names), score)},
        "runs": [
            {"seed": seed, "best_step": 20, "best_epoch": 2.0, "dev": {"f1": 66.0 + seed}, "history": history(seed)}
            for seed in (3, 4)
        ],
        "config": {},
        "code": "test",
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "task.json").write_text("{}")
    for seed, records in ((3, [MISSED, MISSED, MISSED]), (4, [RIGHT, WRONG, MISSED])):
        (folder / f"seed-{seed}").mkdir()
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"seed-{seed}" / "records-dev.jsonl").write_text(lines)
    return str(folder)


def history(seed: int) -> list[dict[str, float]]:
    """Returns the dev scores of a seed."""
    return [{"step": 10 * n, "epoch": float(n), "f1": 50.0 + 8 * n + seed} for n in (1, 2)]
