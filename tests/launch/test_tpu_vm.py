"""launch/tpu_vm.sh: the calls of gcloud and the behavior of the workers, from create to delete."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator

import pytest
from fake_cloud_tpu import FakeCloudTpu

SETTINGS = {"PROJECT": "my-project", "ZONE": "us-west4-a", "NAME": "electra", "ACCELERATOR_TYPE": "v5litepod-16"}
FAST = {"POLL": "0", "PAUSE": "0"}
WHERE = ["--project=my-project", "--zone=us-west4-a"]
PRETRAIN = ["pretrain", "--config=configs/pretrain_base.py", "--workdir=gs://my-bucket/run"]
AWKWARD = ["pretrain", "two words", "it's", '"quoted"', "$HOME `id` $(id)", "*", "a;b&c|d", "", "two\nlines", "\\", "é"]


@pytest.fixture
def tpu_vm(programs):
    def launch(*words: str, **settings: str):
        return programs.launch("tpu_vm.sh", *words, **SETTINGS | FAST | settings)

    return launch


@pytest.fixture
def cloud(programs, tmp_path) -> Iterator[FakeCloudTpu]:
    tpu_cloud = FakeCloudTpu(programs, tmp_path / "cloud")
    yield tpu_cloud
    tpu_cloud.close()


@pytest.fixture
def ready(cloud, tpu_vm) -> FakeCloudTpu:
    """The cloud with a slice on which the package is installed."""
    for subcommand in ("create", "wait", "setup"):
        done = tpu_vm(subcommand)
        assert done.returncode == 0, done.stderr
    return cloud


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the condition is still false after 30 s"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("accelerator", "image"),
    [
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-32", "v2-alpha-tpuv5"),
        ("v6e-16", "v2-alpha-tpuv6e"),
    ],
)
def test_create_requests_a_slice_with_the_image_of_its_accelerator(tpu_vm, programs, accelerator, image):
    assert tpu_vm("create", ACCELERATOR_TYPE=accelerator).returncode == 0
    resource = ["compute", "tpus", "queued-resources", "create", "electra", *WHERE, "--node-id=electra"]
    assert programs.calls("gcloud") == [[*resource, f"--accelerator-type={accelerator}", f"--runtime-version={image}"]]


def test_create_passes_spot_the_service_account_and_options_of_gcloud(tpu_vm, programs):
    tpu_vm("create", "--valid-until-duration=6h", SPOT="1", SERVICE_ACCOUNT="train@my-project.iam.gserviceaccount.com")
    option = "--service-account=train@my-project.iam.gserviceaccount.com"
    assert programs.calls("gcloud")[0][-3:] == ["--spot", option, "--valid-until-duration=6h"]
    tpu_vm("create", SPOT="0")
    assert "--spot" not in programs.calls("gcloud")[1]


def test_an_unknown_accelerator_is_an_error_unless_its_image_is_set(tpu_vm, programs):
    failed = tpu_vm("create", ACCELERATOR_TYPE="v5e-16")
    assert failed.returncode == 2 and "v5e-16: wanted v4-*, v5litepod-*" in failed.stderr
    assert not programs.calls()
    assert tpu_vm("create", ACCELERATOR_TYPE="v9-16", RUNTIME_VERSION="v2-alpha-tpuv9").returncode == 0
    assert "--runtime-version=v2-alpha-tpuv9" in programs.calls("gcloud")[0]


def test_gclouds_exit_code_is_passed_on(tpu_vm, programs):
    programs.add("gcloud", "sys.exit(7)")
    for words in (["create"], ["wait"], ["setup"], ["run", "pretrain"], ["logs"], ["stop"], ["delete"]):
        assert tpu_vm(*words).returncode == 7, words


@pytest.mark.parametrize("words", [["run", *AWKWARD], ["stop"], ["logs"], ["delete"], ["create", "--reserved"]])
def test_a_dry_run_prints_the_commands_and_runs_nothing(tpu_vm, programs, words):
    dry = tpu_vm("--dry-run", *words)
    assert dry.returncode == 0 and not programs.calls()
    assert tpu_vm(*words).returncode == 0
    assert shlex.split(dry.stdout) == [word for call in programs.calls() for word in call]


def test_a_dry_run_of_babysit_prints_every_step_and_runs_nothing(tpu_vm, programs):
    lines = tpu_vm("--dry-run", "babysit", *PRETRAIN).stdout.splitlines()
    assert not programs.calls()
    verbs = ["create", "list", "list", "-czf", "scp", "ssh", "ssh", "ssh"]
    assert [next(verb for verb in verbs if verb in shlex.split(line)) for line in lines] == verbs


@pytest.mark.slow
def test_the_command_reaches_every_worker_unchanged(ready, tpu_vm):
    assert tpu_vm("run", *AWKWARD).returncode == 0
    for worker, home in enumerate(ready.homes):
        wait_until(lambda worker=worker: len(ready.starts(worker)) == 1)
        assert ready.starts(worker) == [[str(home / "electramed" / "source"), *AWKWARD]]
        assert (home / "electramed" / "source" / "configs" / "pretrain_base.py").exists()


def test_before_setup_a_worker_reports_that_nothing_is_installed(cloud, tpu_vm):
    tpu_vm("create"), tpu_vm("wait")
    for words in (["run", *PRETRAIN], ["stop"], ["logs"]):
        failed = tpu_vm(*words)
        assert failed.returncode == 2 and "launch/tpu_vm.sh setup" in failed.stderr
    assert tpu_vm("status").stdout == "queue: ACTIVE\nslice: READY\nbare\nbare\n"


def test_wait_fails_without_a_request_or_after_a_refused_one(cloud, tpu_vm):
    absent = tpu_vm("wait")
    assert absent.returncode == 2 and "launch/tpu_vm.sh create" in absent.stderr
    cloud.set_request_states("WAITING_FOR_RESOURCES", "FAILED")
    tpu_vm("create")
    for words in (["wait"], ["babysit", *PRETRAIN]):
        failed = tpu_vm(*words)
        assert failed.returncode == 2 and "queued-resources describe electra" in failed.stderr


@pytest.mark.slow
def test_workers_restart_after_42_until_another_code(ready, tpu_vm):
    ready.set_exit_codes(42, 42, 3, 0)
    tpu_vm("run", *PRETRAIN)
    wait_until(lambda: tpu_vm("status").stdout.count("ended 3\n") == 2)
    assert [len(ready.starts(worker)) for worker in (0, 1)] == [3, 3]
    log = (ready.homes[1] / "electramed" / "log.txt").read_text()
    assert log.splitlines()[0].endswith("electramed " + " ".join(PRETRAIN)) and "(restart 2)" in log


@pytest.mark.slow
def test_stop_makes_the_workers_save_and_not_restart(ready, tpu_vm):
    ready.set_exit_codes("wait", 0)
    tpu_vm("run", *PRETRAIN)
    wait_until(lambda: all("training" in (home / "electramed" / "log.txt").read_text() for home in ready.homes))
    assert tpu_vm("status").stdout == "queue: ACTIVE\nslice: READY\nrunning\nrunning\n"
    assert tpu_vm("stop").stdout == "stopped\nstopped\n"
    assert [(home / "electramed" / "exit_code").read_text() for home in ready.homes] == ["42\n", "42\n"]
    assert [len(ready.starts(worker)) for worker in (0, 1)] == [1, 1]


@pytest.mark.slow
def test_setup_and_run_fail_while_a_command_is_running(ready, tpu_vm):
    ready.set_exit_codes("wait")
    tpu_vm("run", *PRETRAIN)
    for words in (["setup"], ["run", *PRETRAIN]):
        failed = tpu_vm(*words)
        assert failed.returncode == 2 and "stop" in failed.stderr
    assert tpu_vm("status").stdout.endswith("running\nrunning\n")


@pytest.mark.slow
def test_setup_installs_from_another_source(cloud, tpu_vm, programs):
    tpu_vm("create"), tpu_vm("wait")
    assert tpu_vm("setup", SOURCE="git+https://example.org/electramed.git@v1", EXTRAS="tpu").returncode == 0
    wanted = "electramed_jax[tpu] @ git+https://example.org/electramed.git@v1"
    assert [words[-1] for words in programs.calls("uv") if words[0] == "pip"] == [wanted] * 2
    assert not (cloud.homes[0] / "electramed" / "source" / "electramed_jax").exists()


@pytest.mark.slow
def test_babysit_requests_a_new_slice_after_preemption_and_resumes(cloud, programs):
    cloud.set_exit_codes("wait", 0)
    settings = SETTINGS | FAST | {"SPOT": "1", "DELETE_WHEN_DONE": "1"}
    with programs.start("tpu_vm.sh", "babysit", *AWKWARD, **settings) as babysitter:
        wait_until(lambda: cloud.starts(0) and cloud.starts(1))
        cloud.preempt()
        output = babysitter.communicate(timeout=60)[0]
    assert babysitter.returncode == 0, output
    requests = [call[3] for call in programs.calls("gcloud") if call[2] == "queued-resources" and call[3] != "list"]
    assert requests == ["create", "delete", "create", "delete"]
    for worker in (0, 1):
        first, second = cloud.starts(worker)
        assert first == second and first[1:] == AWKWARD


@pytest.mark.slow
def test_babysit_restarts_a_killed_command(cloud, programs):
    cloud.set_exit_codes("wait", 75, 137, 0)
    with programs.start("tpu_vm.sh", "babysit", *PRETRAIN, **SETTINGS | FAST) as babysitter:
        wait_until(lambda: cloud.starts(0) and cloud.starts(1))
        cloud.kill_workers()
        output = babysitter.communicate(timeout=60)[0]
    assert babysitter.returncode == 0 and "ended with exit code 0" in output, output
    assert [len(cloud.starts(worker)) for worker in (0, 1)] == [4, 4]


@pytest.mark.slow
def test_babysit_ends_after_an_error_and_after_the_maximum_of_restarts(cloud, tpu_vm):
    cloud.set_exit_codes(2, 137, 137, 137)
    done = tpu_vm("babysit", *PRETRAIN)
    assert done.returncode == 2 and "ended with exit code 2" in done.stderr, done.stderr
    assert "still costs money" in done.stderr
    done = tpu_vm("babysit", *PRETRAIN, RESTARTS="1")
    assert done.returncode == 1 and "ended again after 1 restart" in done.stderr, done.stderr
    assert len(cloud.starts(0)) == 3
