"""launch/tpu_vm.sh: the calls of gcloud and the behavior of the workers, from create to delete."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator

import pytest
from fake_cloud_tpu import FakeCloudTpu

SETTINGS = {"PROJECT": "my-project", "ZONE": "us-west4-a", "NAME": "electra", "TOPOLOGY": "v5e:4x4"}
FAST = {"POLL": "0", "PAUSE": "0"}
WHERE = ["--project=my-project", "--zone=us-west4-a"]
PRETRAIN = ["pretrain", "--config=configs/pretrain_base.py", "--workdir=gs://my-bucket/run"]
AWKWARD = ["pretrain", "two words", "it's", '"quoted"', "$HOME `id` $(id)", "*", "a;b&c|d", "", "two\nlines", "\\", "é"]


@pytest.fixture
def tpu_vm(programs, tmp_path):
    logs = {"LOGS": str(tmp_path / "logs")}

    def launch(*words: str, **settings: str):
        return programs.launch("tpu_vm.sh", *words, **SETTINGS | FAST | logs | settings)

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
    ("topology", "accelerator", "image"),
    [
        ("v4:2x2x4", "v4-32", "tpu-ubuntu2204-base"),
        ("v5e:4x4", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p:2x2x4", "v5p-32", "v2-alpha-tpuv5"),
        ("v6e:4x4", "v6e-16", "v2-alpha-tpuv6e"),
    ],
)
def test_create_requests_a_slice_with_the_image_of_its_generation(tpu_vm, programs, topology, accelerator, image):
    assert tpu_vm("create", TOPOLOGY=topology).returncode == 0
    resource = ["compute", "tpus", "queued-resources", "create", "electra", *WHERE, "--node-id=electra"]
    assert programs.calls("gcloud") == [[*resource, f"--accelerator-type={accelerator}", f"--runtime-version={image}"]]
    tpu_vm("create", TOPOLOGY=topology, RUNTIME_VERSION="another")
    assert programs.calls("gcloud")[1][-1] == "--runtime-version=another"


def test_create_passes_spot_the_service_account_and_options_of_gcloud(tpu_vm, programs):
    tpu_vm("create", "--valid-until-duration=6h", SPOT="1", SERVICE_ACCOUNT="train@my-project.iam.gserviceaccount.com")
    option = "--service-account=train@my-project.iam.gserviceaccount.com"
    assert programs.calls("gcloud")[0][-3:] == ["--spot", option, "--valid-until-duration=6h"]
    tpu_vm("create", SPOT="0")
    assert "--spot" not in programs.calls("gcloud")[1]


def test_several_slices_are_the_nodes_of_one_request(tpu_vm, programs):
    assert tpu_vm("create", SLICES="2").returncode == 0
    assert programs.calls("gcloud")[0][7:9] == ["--node-count=2", "--node-prefix=electra"]
    tpu_vm("logs", SLICES="2", SLICE="1", WORKER="3"), tpu_vm("stop", SLICES="2")
    logs, stop = programs.calls("gcloud")[1:]
    assert {"--node=1", "--worker=3"} <= set(logs) and {"--node=all", "--worker=all"} <= set(stop)


def test_flex_start_requests_capacity_for_some_hours(tpu_vm, programs):
    assert tpu_vm("create", FLEX_START_HOURS="24").returncode == 0
    (call,) = programs.calls("gcloud")
    assert call[:4] == ["alpha", "compute", "tpus", "queued-resources"]
    assert call[-2:] == ["--provisioning-model=flex-start", "--max-run-duration=24h"]


def test_a_generation_without_the_api_is_an_error(tpu_vm, programs):
    for settings, message in (
        ({"TOPOLOGY": "tpu7x:2x2x4", "API": "queue"}, "API=queue does not have tpu7x:2x2x4"),
        ({"TOPOLOGY": "v5e:4x4", "API": "compute"}, "API=compute does not have v5e:4x4"),
        ({"TOPOLOGY": "tpu7x:2x2x4", "SLICES": "2"}, "API=compute connects one slice, not SLICES=2"),
        ({"API": "grpc"}, "API=grpc: wanted queue or compute"),
    ):
        failed = tpu_vm("create", **settings)
        assert failed.returncode == 2 and message in failed.stderr and not programs.calls()


IN_PROJECT, IN_REGION = "--project=my-project", ["--project=my-project", "--region=us-west4"]


def test_a_tpu7x_slice_is_a_group_of_machines_with_a_workload_policy(tpu_vm, programs):
    assert tpu_vm("create", TOPOLOGY="tpu7x:2x2x4", SPOT="1").returncode == 0
    policy, template, group = programs.calls("gcloud")
    kind = ["--type=HIGH_THROUGHPUT", "--accelerator-topology=2x2x4"]
    assert policy == ["compute", "resource-policies", "create", "workload-policy", "electra", *IN_REGION, *kind]
    assert template[:6] == [
        "compute",
        "instance-templates",
        "create",
        "electra",
        IN_PROJECT,
        "--machine-type=tpu7x-standard-4t",
    ]
    assert {"--image-family=ubuntu-accel-2404-amd64-tpu-tpu7x", "--provisioning-model=SPOT"} <= set(template)
    assert group[:6] == ["compute", "instance-groups", "managed", "create", "electra", IN_PROJECT]
    policy_url = "projects/my-project/regions/us-west4/resourcePolicies/electra"
    assert {"--size=4", "--template=electra", f"--workload-policy={policy_url}"} <= set(group)
    tpu_vm("delete", TOPOLOGY="tpu7x:2x2x4")
    assert [[*call[1:3], call[-1]] for call in programs.calls("gcloud")[3:]] == [
        ["instance-groups", "managed", "--quiet"],
        ["instance-templates", "delete", "--quiet"],
        ["resource-policies", "delete", "--quiet"],
    ]


def test_flex_start_of_compute_engine_asks_for_all_machines_at_once(tpu_vm, programs):
    assert tpu_vm("create", TOPOLOGY="v6e:2x4", API="compute", FLEX_START_HOURS="5").returncode == 0
    _, template, group, resize = programs.calls("gcloud")
    assert {"--provisioning-model=FLEX_START", "--max-run-duration=5h"} <= set(template)
    assert {"--size=0", "--target-size-policy-mode=bulk"} <= set(group)
    assert resize[3:5] == ["resize", "electra"] and resize[-1] == "--size=2"


COMPUTE_ENGINE = """
if words[1:4] == ["instance-groups", "managed", "list"]:
    print({group!r})
elif words[1:4] == ["instance-groups", "managed", "list-instances"]:
    print({states!r} if "instanceStatus" in words[-1] else "electra-b\\nelectra-a")
elif words[1] == "ssh":
    print(words[2], words[-1])
    sys.exit({{"electra-b": 3}}.get(words[2], 0) if "fails" in words[-1] else 0)
"""


@pytest.mark.parametrize(
    ("group", "states", "code", "message"),
    [
        ("electra", "RUNNING\nRUNNING", 0, "ready"),
        ("", "", 2, "nothing is requested as electra"),
        ("electra", "RUNNING\nSTOPPED", 2, "was preempted, or its time is over"),
    ],
)
def test_wait_knows_the_states_of_compute_engine(tpu_vm, programs, group, states, code, message):
    programs.add("gcloud", COMPUTE_ENGINE.format(group=group, states=states))
    done = tpu_vm("wait", TOPOLOGY="tpu7x:2x2x2")
    assert done.returncode == code and message in done.stderr


def test_commands_run_on_every_machine_of_the_group(tpu_vm, programs, tmp_path):
    programs.add("gcloud", COMPUTE_ENGINE.format(group="electra", states="RUNNING\nRUNNING"))
    settings = {"TOPOLOGY": "tpu7x:2x2x2"}
    done = tpu_vm("run", *PRETRAIN, **settings)
    assert done.returncode == 0 and {line.split()[0] for line in done.stdout.splitlines()} == {"electra-a", "electra-b"}
    assert tpu_vm("logs", WORKER="1", **settings).stdout.startswith("electra-b ")
    assert tpu_vm("run", "fails", **settings).returncode == 3, "the first exit code that is not 0"
    assert tpu_vm("collect", LOGS=str(tmp_path / "logs"), **settings).returncode == 0
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"electra-a.log", "electra-b.log"}


def test_gclouds_exit_code_is_passed_on(tpu_vm, programs):
    programs.add("gcloud", "sys.exit(7)")
    for words in (["create"], ["wait"], ["setup"], ["run", "pretrain"], ["logs"], ["stop"], ["collect"], ["delete"]):
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
    verbs = ["create", "list", "list", "-czf", "scp", "ssh", "ssh", "ssh", "mkdir", "ssh"]
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
def test_babysit_requests_a_new_slice_after_preemption_and_resumes(cloud, programs, tmp_path):
    cloud.set_exit_codes("wait", 0)
    settings = SETTINGS | FAST | {"SPOT": "1", "DELETE_WHEN_DONE": "1", "LOGS": str(tmp_path / "logs")}
    with programs.start("tpu_vm.sh", "babysit", *AWKWARD, **settings) as babysitter:
        wait_until(lambda: cloud.starts(0) and cloud.starts(1))
        cloud.preempt()
        output = babysitter.communicate(timeout=60)[0]
    assert babysitter.returncode == 0, output
    requests = [call[3] for call in programs.calls("gcloud") if call[3] in ("create", "delete")]
    assert requests == ["create", "delete", "create", "delete"]
    for worker in (0, 1):
        first, second = cloud.starts(worker)
        assert first == second and first[1:] == AWKWARD


@pytest.mark.slow
def test_babysit_restarts_a_killed_command_and_collects_the_logs(cloud, programs, tmp_path):
    cloud.set_exit_codes("wait", 75, 137, 0)
    settings = SETTINGS | FAST | {"LOGS": str(tmp_path / "logs")}
    with programs.start("tpu_vm.sh", "babysit", *PRETRAIN, **settings) as babysitter:
        wait_until(lambda: cloud.starts(0) and cloud.starts(1))
        cloud.kill_workers()
        output = babysitter.communicate(timeout=60)[0]
    assert babysitter.returncode == 0 and "ended with exit code 0" in output, output
    assert [len(cloud.starts(worker)) for worker in (0, 1)] == [4, 4]
    logs = sorted((tmp_path / "logs" / "slice-0").iterdir())
    assert [log.name for log in logs] == ["0.log", "1.log"] and all("training" in log.read_text() for log in logs)


@pytest.mark.slow
def test_babysit_ends_after_an_error_and_after_the_maximum_of_restarts(cloud, tpu_vm):
    cloud.set_exit_codes(2, 137, 137, 137)
    done = tpu_vm("babysit", *PRETRAIN)
    assert done.returncode == 2 and "ended with exit code 2" in done.stderr, done.stderr
    assert "still costs money" in done.stderr
    done = tpu_vm("babysit", *PRETRAIN, RESTARTS="1")
    assert done.returncode == 1 and "ended again after 1 restart" in done.stderr, done.stderr
    assert len(cloud.starts(0)) == 3
