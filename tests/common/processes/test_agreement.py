"""All processes of a run agree on settings, versions, data, devices and time, or it does not start."""

from __future__ import annotations

import json
import socket
import time

import pod
import pytest

from electramed_jax.common.processes import agreement, distributed

HOST = socket.gethostname()
FIELDS = {"config.batch_size": 8, "jax": "0.10.2", "device kind": "TPU v4"}


class Store:
    """The key-value store of jax's coordination service; its barriers do not wait."""

    def __init__(self):
        self.values: dict[str, str] = {}

    def key_value_increment(self, key: str, by: int) -> int:
        return by

    def key_value_set(self, key: str, value: str) -> None:
        self.values[key] = value

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        return self.values[key]

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.values.items() if key.startswith(folder)]

    def wait_at_barrier(self, name: str, milliseconds: int) -> None:
        pass


@pytest.mark.parametrize(
    ("changed", "seconds", "message"),
    [
        ({}, 59, ""),
        (
            {"config.batch_size": 16},
            0,
            f"process 1 ({HOST}): config.batch_size is 16; wanted 8, as in process 0 ({HOST})",
        ),
        ({"jax": "0.12.0"}, 0, f'process 1 ({HOST}): jax is "0.12.0"; wanted "0.10.2", as in process 0 ({HOST})'),
        ({"cache": 1}, 0, f"process 1 ({HOST}): cache is 1; wanted missing, as in process 0 ({HOST})"),
        ({}, -61, f"process 1 ({HOST}): the clock is 61 s behind that of process 0 ({HOST}); wanted at most 60 s"),
    ],
    ids=["equal", "setting", "version", "missing", "clock"],
)
def test_a_difference_names_host_field_and_both_values(monkeypatch, changed, seconds, message):
    store, now = Store(), time.time()
    monkeypatch.setattr(distributed, "coordination_client", lambda: store)
    monkeypatch.setattr("jax.process_count", lambda: 2)
    found = []
    for number, fields, clock in ((0, FIELDS, now), (1, FIELDS | changed, now + seconds)):
        monkeypatch.setattr("jax.process_index", lambda number=number: number)
        monkeypatch.setattr(agreement.time, "time", lambda clock=clock: clock)
        found = agreement.find_differences(fields)
    assert "; ".join(map(str, found)) == message


@pytest.mark.slow
@pytest.mark.multiprocess
def test_doctor_finds_a_setting_that_differs_between_hosts():
    words = ("doctor", "--multihost", "--config=configs/pretrain_tiny.py", "--config.seed={process}", "--json")
    with pod.start_processes(2, 1, *words) as processes:
        assert [process.wait() for process in processes] == [2, 2]
    wrong = [check for check in json.loads(processes[0].stdout.splitlines()[-1])["checks"] if check["state"] == "wrong"]
    assert [check["detail"] for check in wrong] == [
        f"process 1 ({HOST}): config.seed is 1; wanted 0, as in process 0 ({HOST})"
    ]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_run_with_two_learning_rates_is_refused_by_all_processes(packed, tmp_path):
    words = ("pretrain", *pod.quick_run.settings(packed), "--config.optimizer.learning_rate=0.0{process}1")
    with pod.start_processes(2, 1, *words, f"--workdir={tmp_path / 'run'}") as processes:
        assert [process.wait() for process in processes] == [2, 2]
    for process in processes:
        wanted = f"process 1 ({HOST}): config.optimizer.learning_rate is 0.011; wanted 0.001, as in process 0"
        assert wanted in process.stderr and "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()
