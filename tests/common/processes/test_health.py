"""Tests of the environment checks: each fault is provoked, and reported with the command that fixes it."""

from __future__ import annotations

import importlib.metadata
import json
import socket
import types

import pod
import pytest

from electramed_jax import cli
from electramed_jax.common.processes import health
from electramed_jax.common.processes.distributed import COORDINATOR_ADDRESS
from electramed_jax.common.processes.health import OK, WARNING, WRONG


def installed(**versions: str):
    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    return version


def device(platform: str = "cpu", kind: str = "cpu", **stats: int):
    return types.SimpleNamespace(platform=platform, device_kind=kind, memory_stats=lambda: stats)


def test_an_old_python_is_wrong():
    assert health.check_python((3, 11, 0)).state == OK
    assert health.check_python((3, 10, 9)).state == WRONG


def test_a_missing_or_incompatible_package_is_named_with_its_pip_command():
    wanted = ["jax<0.12,>=0.10.2", "flax>=0.12.8", "torch>=2; extra == 'parity'"]
    assert health.check_packages(wanted, installed(jax="0.11.0", flax="0.12.9")).state == OK
    check = health.check_packages(wanted, installed(jax="0.9.0"))
    assert check.state == WRONG
    assert "jax 0.9.0 (wanted <0.12,>=0.10.2)" in check.detail and "flax missing" in check.detail
    assert check.fix == "pip install 'jax<0.12,>=0.10.2' 'flax>=0.12.8'"


def test_jax_and_jaxlib_of_different_releases_are_wrong():
    check = health.check_jaxlib(installed(jax="0.11.0", jaxlib="0.10.2"))
    assert (check.state, check.fix) == (WRONG, "pip install 'jax==0.11.0' 'jaxlib==0.11.0'")


@pytest.mark.parametrize(
    ("chips", "gpu", "variables", "state", "fix"),
    [
        (0, False, {}, OK, ""),
        (4, False, {}, WRONG, "pip install 'electramed_jax[tpu]'"),
        (0, True, {}, WRONG, "pip install 'electramed_jax[cuda]'"),
        (0, True, {"JAX_PLATFORMS": "cpu"}, WARNING, "unset JAX_PLATFORMS"),
    ],
)
def test_an_accelerator_that_jax_does_not_use_is_reported(chips, gpu, variables, state, fix):
    check = health.check_devices(lambda: [device()], tpu_chips=chips, nvidia=gpu, environment=variables)
    assert (check.state, check.fix) == (state, fix)


def test_a_backend_that_fails_is_wrong_in_one_line():
    def fails():
        raise RuntimeError("The TPU is already in use by process 7\nmore")

    check = health.check_devices(fails, tpu_chips=4, nvidia=False)
    assert check.state == WRONG and "already in use by process 7" in check.detail and "\n" not in str(check)


def test_device_memory_used_by_another_process_is_reported():
    free = health.check_device_memory(device("gpu", "H100", bytes_limit=80 << 30, bytes_in_use=1 << 20))
    used = health.check_device_memory(device("gpu", "H100", bytes_limit=80 << 30, bytes_in_use=40 << 30))
    assert (free.state, used.state) == (OK, WARNING)
    assert "40.0 GiB free of 80.0 GiB" in used.detail


def test_a_tpu_host_without_libtpu_or_with_two_is_wrong():
    assert health.check_libtpu(0, installed()).state == OK
    assert health.check_libtpu(4, installed()).state == WRONG
    assert health.check_libtpu(4, installed(libtpu="0.0.42")).state == OK
    both = health.check_libtpu(4, installed(**{"libtpu": "1", "libtpu-nightly": "2"}))
    assert (both.state, both.fix) == (WRONG, "pip uninstall libtpu-nightly")


def test_little_memory_is_a_warning():
    assert health.check_memory(64 << 30, 32 << 30, 8).state == OK
    assert health.check_memory(64 << 30, 1 << 30, 8).state == WARNING


@pytest.mark.parametrize("kind", ["local", "gs"])
def test_storage_is_checked_and_left_unchanged(kind, folder_in):
    folder = f"{folder_in(kind)}/runs/new"
    space, clock = health.check_storage(folder)
    assert clock.state == OK and "written, read and removed" in space.detail
    assert not health.files.exists(folder)


def test_a_folder_that_cannot_be_written_is_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    (check,) = health.check_storage(str(tmp_path / "file" / "below"))
    assert check.state == WRONG and str(tmp_path) in check.detail


@pytest.mark.parametrize(("skew", "state"), [(0.2, OK), (-30, WARNING), (400, WRONG)])
def test_a_wrong_clock_is_reported_with_its_skew(skew, state):
    check = health.check_clock(skew, "the other")
    assert check.state == state
    assert (f"{abs(skew):.1f} s" in check.detail) == (state != OK)


def test_the_coordinator_is_contacted_if_its_address_is_set():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert health.check_coordinator({COORDINATOR_ADDRESS: address}).detail == f"{address} answers"
    closed = health.check_coordinator({COORDINATOR_ADDRESS: address})
    assert closed.state == OK and "nothing listens" in closed.detail
    assert health.check_coordinator({}).state == OK
    assert health.check_coordinator({COORDINATOR_ADDRESS: "here"}).state == WRONG
    nowhere = health.check_coordinator({COORDINATOR_ADDRESS: "no-such-host.invalid:1234"})
    assert nowhere.state == WRONG and "no such host" in nowhere.detail


def test_the_json_of_a_check_has_the_earlier_keys_too():
    check = health.Check("jaxlib", WRONG, "0.10.2 with jax 0.11.0", "pip install")
    values = {"name": "jaxlib", "state": WRONG, "detail": "0.10.2 with jax 0.11.0", "fix": "pip install"}
    assert check.to_json() == values | {"found": values["detail"], "mend": values["fix"]}


def test_the_command_exits_with_2_if_a_check_fails(tmp_path, capsys):
    assert cli.main(["doctor", f"--workdir={tmp_path}", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["wrong"] == [] and {"packages", "devices", "storage"} <= {c["name"] for c in result["checks"]}
    assert cli.main(["doctor", f"--data={tmp_path}"]) == 2
    assert f"wrong    dataset       {tmp_path}: no manifest.json" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_find_each_other_and_compare_their_clocks(tmp_path):
    with pod.start_processes(2, 1, "doctor", f"--workdir={tmp_path}", "--multihost", "--json") as (first, second):
        assert (first.wait(), second.wait()) == (0, 0)
        names = [check["name"] for check in json.loads(first.stdout.splitlines()[-1])["checks"]]
        assert names[-4:] == ["processes", "agreement", "shared", "clock"]
        assert "2 found each other" in first.stderr
        assert "checks" not in second.stdout and "processes" not in second.stderr, "only the main process prints"
