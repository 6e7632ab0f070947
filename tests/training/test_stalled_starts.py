"""Starts in succession that are killed before they save are counted, and the run refuses to start after the limit."""

from __future__ import annotations

import contextlib
import json

import pytest

from electramed_jax.common.errors import PeerLostError, UserError
from electramed_jax.training.stalled_starts import STALLED_STARTS_FILE, limit_stalled_starts


def die(workdir, step: int, limit: int = 3) -> None:
    """Starts and loses another process: the collective that waits for it fails."""
    with pytest.raises(RuntimeError, match="connection closed"), limit_stalled_starts(str(workdir), step, limit):
        raise RuntimeError("UNKNOWN: Gloo all-reduce failed: connection closed by peer")


def test_starts_that_died_before_a_save_are_limited_and_the_error_says_how_to_go_on(tmp_path):
    for _ in range(3):
        die(tmp_path, 40)
    with pytest.raises(
        UserError, match=r"the last 3 starts all began at step 40 .*max_stalled_starts.*delete "
    ) as error:
        die(tmp_path, 40)
    assert not isinstance(error.value, PeerLostError), "launchers would restart it"
    (tmp_path / STALLED_STARTS_FILE).unlink()
    die(tmp_path, 40)


def test_a_lost_process_that_has_a_name_counts_too(tmp_path):
    with pytest.raises(PeerLostError), limit_stalled_starts(str(tmp_path), 40, 3):
        raise PeerLostError("process 1 ended")
    assert json.loads((tmp_path / STALLED_STARTS_FILE).read_text())["starts"] == 1


def test_a_save_between_two_starts_begins_a_new_count(tmp_path):
    for step in (0, 0, 40, 40, 80, 80):
        die(tmp_path, step)
    assert json.loads((tmp_path / STALLED_STARTS_FILE).read_text()) == {"step": 80, "starts": 2}


@pytest.mark.parametrize("error", [UserError("a loss is not finite"), KeyboardInterrupt(), None])
def test_a_start_that_ends_by_itself_is_not_counted(tmp_path, error):
    for _ in range(5):
        die(tmp_path, 40, limit=0)
    outcome = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with outcome, limit_stalled_starts(str(tmp_path), 40, 6):
        assert json.loads((tmp_path / STALLED_STARTS_FILE).read_text())["starts"] == 6
        if error:
            raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"step": 40}', '{"step": 40, "starts": 1' + "0" * 400 + "}", '{"step": 40, "starts": "9"}', "{" * 5000],
)
def test_a_damaged_count_blocks_nothing(tmp_path, content):
    (tmp_path / STALLED_STARTS_FILE).write_text(content)
    with limit_stalled_starts(str(tmp_path), 40, 1):
        pass
