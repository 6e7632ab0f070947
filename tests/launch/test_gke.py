"""launch/gke.sh: the JobSet matches its schema, reacts to exit codes as documented, and passes the command unchanged."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api import models

SETTINGS = {"NAME": "electra", "IMAGE": "us-docker.pkg.dev/my-project/images/electramed:1", "TOPOLOGY": "v5e:4x4"}
PRETRAIN = ["pretrain", "--config=configs/pretrain_base.py", "--workdir=gs://my-bucket/run"]
AWKWARD = [
    "two words",
    "it's",
    '"quoted"',
    "$HOME $(HOME) $$(x) `id`",
    "${IMAGE} & \\1 \\",
    "# no: comment",
    "",
    "a\nb\tc",
    "é",
]


@pytest.fixture
def gke(programs):
    programs.add("kubectl", f"open({str(programs.folder / 'manifest')!r}, 'w').write(sys.stdin.read())")

    def launch(*words: str, **settings: str):
        return programs.launch("gke.sh", *words, **SETTINGS | settings)

    return launch


@pytest.fixture
def created(gke, programs):
    """Runs a command; returns the manifest that kubectl received."""

    def run(*words: str, **settings: str) -> dict[str, Any]:
        done = gke("run", *words, **settings)
        assert done.returncode == 0, done.stderr
        assert programs.calls() == [["kubectl", "create", "--filename=-"]]
        return yaml.safe_load(text(programs))

    return run


def text(programs) -> str:
    return (programs.folder / "manifest").read_text()


def job_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (job,) = manifest["spec"]["replicatedJobs"]
    return job


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return job_of(manifest)["template"]["spec"]["template"]["spec"]


def assert_contains(known: Any, ours: Any, path: str = "") -> None:
    """Checks that every field of `ours` is in `known` with the same value."""
    if isinstance(ours, dict):
        for name, value in ours.items():
            assert name in known, f"the schema has no {path}.{name}"
            assert_contains(known[name], value, f"{path}.{name}")
    elif isinstance(ours, list):
        assert len(known) == len(ours), path
        for number, (one, other) in enumerate(zip(known, ours, strict=True)):
            assert_contains(one, other, f"{path}[{number}]")
    else:
        assert known == ours, path


@pytest.mark.parametrize("spot", ["", "1"])
def test_the_manifest_is_a_jobset_by_its_schema(created, programs, spot):
    # The models are generated from the OpenAPI schemas of JobSet and Kubernetes: strict types, unknown fields are dropped.
    manifest = created(*PRETRAIN, SPOT=spot)
    assert_contains(models.JobsetV1alpha2JobSet.from_dict(manifest).to_dict(), manifest)
    assert ("cloud.google.com/gke-spot" in pod_of(manifest)["nodeSelector"]) == bool(spot)
    assert "${" not in text(programs)  # a placeholder without a setting


@pytest.mark.parametrize(
    ("settings", "accelerator", "topology", "hosts", "chips"),
    [
        ({"TOPOLOGY": "v5e:4x4"}, "tpu-v5-lite-podslice", "4x4", 4, 4),
        ({"TOPOLOGY": "v5e:16x16"}, "tpu-v5-lite-podslice", "16x16", 64, 4),
        ({"TOPOLOGY": "v5e:2x4", "CHIPS_PER_HOST": "8"}, "tpu-v5-lite-podslice", "2x4", 1, 8),
        ({"TOPOLOGY": "v6e:1x1"}, "tpu-v6e-slice", "1x1", 1, 1),
        ({"TOPOLOGY": "tpu7x:2x2x4"}, "tpu7x", "2x2x4", 4, 4),
        ({"TOPOLOGY": "v4:2x2x4"}, "tpu-v4-podslice", "2x2x4", 4, 4),
        ({"TOPOLOGY": "v5p:4x4x4"}, "tpu-v5p-slice", "4x4x4", 16, 4),
    ],
)
def test_a_topology_becomes_node_labels_and_one_pod_per_host(created, settings, accelerator, topology, hosts, chips):
    manifest = created(*PRETRAIN, **settings)
    assert pod_of(manifest)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": accelerator,
        "cloud.google.com/gke-tpu-topology": topology,
    }
    job = job_of(manifest)["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (hosts, hosts, "Indexed")
    assert pod_of(manifest)["containers"][0]["resources"]["limits"] == {"google.com/tpu": chips}


def test_slices_are_replicas_and_the_other_settings_are_filled_in(created):
    settings = {"NAMESPACE": "research", "SERVICE_ACCOUNT": "trainer", "GRACE_SECONDS": "900", "MAX_RESTARTS": "3"}
    manifest = created(*PRETRAIN, SLICES="2", **settings)
    assert job_of(manifest)["replicas"] == 2
    assert manifest["metadata"]["namespace"] == "research"
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 3
    pod = pod_of(manifest)
    assert (pod["serviceAccountName"], pod["terminationGracePeriodSeconds"]) == ("trainer", 900)
    assert pod["containers"][0]["image"] == SETTINGS["IMAGE"]


def test_the_command_reaches_the_container_unchanged(created):
    arguments = pod_of(created("pretrain", *AWKWARD))["containers"][0]["args"]
    # Kubernetes replaces $(NAME) by the variable of that name, and $$ by $.
    assert not any(re.search(r"(?<!\$)(\$\$)*\$\(", word) for word in arguments)
    assert [word.replace("$$", "$") for word in arguments] == ["pretrain", *AWKWARD]


def action_after(manifest: dict[str, Any], exit_code: int = 0, disrupted: bool = False) -> str:
    """Returns the action of JobSet after a pod has ended, by the rules of Kubernetes' job controller and of JobSet.

    Kubernetes applies the first rule that matches. FailJob sets the reason PodFailurePolicy and a message with the exit
    code or the condition. Any other end is counted, and backoffLimit 0 sets the reason BackoffLimitExceeded.
    (k8s.io/kubernetes/pkg/controller/job/pod_failure_policy.go; sigs.k8s.io/jobset/pkg/controllers/failure_policy.go)
    """
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    assert job_of(manifest)["template"]["spec"]["backoffLimit"] == 0
    for index, rule in enumerate(job_of(manifest)["template"]["spec"]["podFailurePolicy"]["rules"]):
        if "onPodConditions" in rule:
            matches, what = disrupted, "Pod default/electra-slice-0-1-xyzab has condition DisruptionTarget"
        else:
            among = exit_code in rule["onExitCodes"]["values"]
            matches = bool(exit_code) and among == (rule["onExitCodes"]["operator"] == "In")
            what = f"Container electramed for pod default/electra-slice-0-1-xyzab failed with exit code {exit_code}"
        if matches:
            if rule["action"] == "FailJob":
                reason, message = "PodFailurePolicy", f"{what} matching FailJob rule at index {index}"
            break
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_preemption_restarts_without_limit_an_error_fails_and_a_kill_restarts_with_a_limit(created):
    manifest = created(*PRETRAIN)
    assert action_after(manifest, 42) == "RestartJobSetAndIgnoreMaxRestarts"
    assert action_after(manifest, 137, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    assert {action_after(manifest, code) for code in (1, 2, 41, 43, 139)} == {"FailJobSet"}
    assert {action_after(manifest, code) for code in (75, 134, 137, 143)} == {"RestartJobSet"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"CHIPS_PER_HOST": "8"}, "CHIPS_PER_HOST=8: a host of v5e:4x4 has 4 chips"),
        ({"TOPOLOGY": "v5e:2x2", "SLICES": "2"}, "GKE connects slices of several hosts; v5e:2x2 has one"),
        ({"SLICES": "two"}, "SLICES=two: wanted a whole number"),
        ({"SPOT": "yes"}, "SPOT=yes: wanted 1 or 0"),
        ({"NAME": "Electra"}, "NAME=Electra is not a valid Kubernetes name"),
        ({"IMAGE": "a\nb: c"}, "contains an invalid character"),
        ({"SERVICE_ACCOUNT": "x, y: z"}, "contains an invalid character"),
    ],
)
def test_a_wrong_setting_is_one_line(gke, programs, settings, message):
    failed = gke("run", *PRETRAIN, **settings)
    assert failed.returncode == 2 and message in failed.stderr
    assert not programs.calls()


def test_a_dry_run_prints_the_manifest(gke, programs):
    lines = gke("--dry-run", "run", *PRETRAIN).stdout.splitlines(keepends=True)
    assert not programs.calls()
    gke("run", *PRETRAIN)
    assert "".join(lines[1:-1]) == text(programs)
    assert lines[0] == "kubectl create --filename=- <<'END'\n" and lines[-1] == "END\n"


IN_CLUSTER = ["--project=p", "--cluster=c", "--location=us-west4"]
CLUSTER = {"PROJECT": "p", "CLUSTER": "c", "REGION": "us-west4", "ZONE": "us-west4-a"}


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"TOPOLOGY": "v5e:2x2"}, ["--machine-type=ct5lp-hightpu-4t", "--num-nodes=1"]),
        (
            {"TOPOLOGY": "v6e:4x4", "SPOT": "1"},
            ["--machine-type=ct6e-standard-4t", "--num-nodes=4", "--spot", "--tpu-topology=4x4"],
        ),
        ({"TOPOLOGY": "v5e:2x4", "CHIPS_PER_HOST": "8"}, ["--machine-type=ct5lp-hightpu-8t", "--num-nodes=1"]),
    ],
)
def test_a_node_pool_has_the_machines_of_its_slice(gke, programs, settings, options):
    assert gke("create-pools", **CLUSTER | settings).returncode == 0
    create = ["container", "node-pools", "create", "electra-0", *IN_CLUSTER, "--node-locations=us-west4-a"]
    assert programs.calls("gcloud") == [[*create, *options]]


def test_slices_of_tpu7x_have_a_placement_policy_instead_of_a_topology(gke, programs):
    settings = CLUSTER | {"TOPOLOGY": "tpu7x:2x2x4", "SLICES": "2"}
    assert gke("create-pools", **settings).returncode == 0
    calls = programs.calls("gcloud")
    assert [call[1] for call in calls] == ["resource-policies", "node-pools"] * 2
    assert calls[2][4:] == [
        "electra-1",
        "--project=p",
        "--region=us-west4",
        "--type=HIGH_THROUGHPUT",
        "--accelerator-topology=2x2x4",
    ]
    assert calls[3][3] == "electra-1" and calls[3][-1] == "--placement-policy=electra-1"
    assert not any(word.startswith("--tpu-topology") for call in calls for word in call)
    assert gke("delete-pools", **settings).returncode == 0
    assert [call[1:3] for call in programs.calls("gcloud")[4:]] == [
        ["node-pools", "delete"],
        ["resource-policies", "delete"],
    ] * 2


def test_flex_start_nodes_start_when_there_is_room_and_pods_ask_for_them(gke, programs):
    assert gke("create-pools", FLEX_START_HOURS="24", **CLUSTER).returncode == 0
    (call,) = programs.calls("gcloud")
    assert {"--flex-start", "--max-run-duration=24h", "--num-nodes=0", "--total-max-nodes=4"} <= set(call)
    assert gke("run", *PRETRAIN, FLEX_START_HOURS="24").returncode == 0
    selector = pod_of(yaml.safe_load(text(programs)))["nodeSelector"]
    assert selector["cloud.google.com/gke-flex-start"] == "true" and "cloud.google.com/gke-spot" not in selector


def test_logs_of_all_hosts_are_collected(gke, programs, tmp_path):
    programs.add("kubectl", "print('pod/a\\npod/b' if words[0] == 'get' else f'log of {words[2]}')")
    assert gke("collect", LOGS=str(tmp_path / "logs")).returncode == 0
    assert {path.name: path.read_text() for path in (tmp_path / "logs").iterdir()} == {
        "a.log": "log of pod/a\n",
        "b.log": "log of pod/b\n",
    }


def test_logs_status_and_delete_select_this_jobset_only(gke, programs):
    for words in (["logs"], ["status"], ["delete"]):
        assert shlex.split(gke("--dry-run", *words).stdout)[0] == "kubectl"
    assert not programs.calls()
    gke("logs", HOST="3"), gke("logs", HOST="all"), gke("status"), gke("delete")
    logs, all_logs, jobset, pods, deleted = programs.calls("kubectl")
    label = "--selector=jobset.sigs.k8s.io/jobset-name=electra"
    host = ",jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=3"
    assert label + host in logs and "--follow" in logs
    assert label in all_logs and "--prefix" in all_logs
    assert jobset[:3] == ["get", "jobset", "electra"] and label in pods
    assert deleted == ["delete", "jobset", "electra", "--namespace=default"]


def test_kubectls_exit_code_is_passed_on(gke, programs):
    programs.add("kubectl", "sys.stdin.read() if words[0] == 'create' else None; sys.exit(9)")
    for words in (["run", *PRETRAIN], ["logs"], ["status"], ["delete"]):
        assert gke(*words).returncode == 9, words
