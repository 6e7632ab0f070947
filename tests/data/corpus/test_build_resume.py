"""A run that is killed with all its processes in every stage, and resumed, writes the bytes of an uninterrupted run."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from small_disk import fill, small_disk

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import build
from electramed_jax.data.corpus.filtering import FilterConfig

pytestmark = pytest.mark.slow

__all__ = ["small_disk"]  # a fixture

# (files that a stage writes to the output folder, number of them at which the run is killed)
STAGES = [
    (".work/counts-*", 3),
    (".work/losses-pmids-*", 1),
    (".work/losses-texts-*", 1),
    (".work/signed-*", 3),
    (".work/losses-near-*", 9),
    ("*/part-*", 5),
    (".work/written-*", 5),
]
FILES, DOCUMENTS = 6, 100
CONFIG = FilterConfig(validation=0.2, test=0.2)

RUN = """
import json, sys
from electramed_jax.data.corpus import build
from electramed_jax.data.corpus.filtering import FilterConfig

if __name__ == "__main__":
    build.DOCUMENTS_PER_GROUP = 400
    inputs, output = json.loads(sys.argv[1])
    build.prepare(inputs, output, FilterConfig(validation=0.2, test=0.2), workers=2, near_duplicates=0.8)
"""


def literature(folder: pathlib.Path) -> list[str]:
    draw = random.Random(0)
    words = [f"word{number}" for number in range(400)]
    paths = []
    for file in range(FILES):
        lines = []
        for _ in range(DOCUMENTS):
            pmid = draw.randrange(1, 500)
            text = draw.choices(words, k=60) if draw.random() < 0.9 else words[:59] + draw.choices(words, k=1)
            lines.append(json.dumps({"pmid": pmid, "source": "pubmed", "text": " ".join(text)}))
        paths.append(str(folder / f"{file}.jsonl"))
        pathlib.Path(paths[-1]).write_text("\n".join(lines))
    return paths


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def prepare(paths: list[str], output: pathlib.Path) -> dict:
    return build.prepare(paths, str(output), CONFIG, workers=1, near_duplicates=0.8)


def start(script: pathlib.Path, paths: list[str], output: pathlib.Path) -> subprocess.Popen:
    """Starts the script in a new session and process group."""
    arguments = json.dumps([paths, str(output)])
    return subprocess.Popen(
        [sys.executable, str(script), arguments], start_new_session=True, stderr=subprocess.PIPE, text=True
    )


def kill_when(process: subprocess.Popen, output: pathlib.Path, pattern: str, count: int) -> bool:
    """Kills the process group once `count` files exist; returns False if the process ended before."""
    while process.poll() is None:
        if len(list(output.glob(pattern))) >= count:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        time.sleep(0.001)
    return False


def test_a_run_killed_in_every_stage_writes_the_bytes_of_an_uninterrupted_one(tmp_path, monkeypatch):
    paths = literature(tmp_path)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    output = tmp_path / "killed"
    killed = [kill_when(start(script, paths, output), output, *stage) for stage in STAGES]
    assert sum(killed) >= len(STAGES) - 1  # the last stage may end before it is seen
    last = start(script, paths, output)
    assert "resuming an interrupted run" in last.communicate()[1] and last.returncode == 0
    monkeypatch.setattr(build, "DOCUMENTS_PER_GROUP", 400)
    info = prepare(paths, tmp_path / "uninterrupted")
    assert set(info["dropped"]) == {"superseded", "duplicate", "near_duplicate"}
    assert files_of(output) == files_of(tmp_path / "uninterrupted")
    assert len(files_of(output)) == 3 * FILES + 1


@pytest.mark.parametrize("leaving", [20_000, 150_000, 300_000])
def test_a_run_that_fills_the_disk_is_a_user_error_and_resumes_when_space_is_freed(tmp_path, small_disk, leaving):
    paths = literature(tmp_path)
    disk = small_disk(4_000_000)
    ballast = fill(disk, leaving=leaving)
    output = disk / "documents"
    with pytest.raises(UserError, match="disk full.*free some space and run it again"):
        prepare(paths, output)
    assert not (output / "documents.json").exists()
    ballast.unlink()
    prepare(paths, output)
    prepare(paths, tmp_path / "uninterrupted")
    assert files_of(output) == files_of(tmp_path / "uninterrupted")
