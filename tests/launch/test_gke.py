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
        ({"TOPOLOGY": "v5litepod-16"}, "unknown generation 'v5litepod-16'; wanted v4, v5e, v5p or v6e"),
        ({"TOPOLOGY": "v5e:16"}, "has no shape"),
        ({"TOPOLOGY": "v5e:2x3"}, "6 chips of TOPOLOGY=v5e:2x3 do not divide into hosts of CHIPS_PER_HOST=4"),
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
