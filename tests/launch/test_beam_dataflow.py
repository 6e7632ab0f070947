"""What the launcher has Dataflow do: options that Beam knows and accepts, and the command word for word."""

from __future__ import annotations

import importlib.metadata
import re
import shlex

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner

from electramed_jax.common.errors import UserError
from electramed_jax.data.parallel.beam_runner import BeamRunner

SETTINGS = {"PROJECT": "my-project", "REGION": "us-west4", "BUCKET": "my-bucket"}
PREPARE = ["prepare", "--input", "gs://my-bucket/*.xml.gz", "--output=gs://my-bucket/documents"]
AWKWARD = ["two words", "it's", '"quoted"', "$HOME `id`", "", "a\nb", "é"]


@pytest.fixture
def dataflow(programs):
    def launch(*words: str, **settings: str):
        return programs.launch("beam_dataflow.sh", *words, **SETTINGS | settings)

    return launch


@pytest.fixture
def options_of(dataflow, programs):
    """Runs the launcher; returns the options that it gives to the runner."""

    def run(**settings: str) -> list[str]:
        done = dataflow(*PREPARE, **settings)
        assert done.returncode == 0, done.stderr
        ((*words, runner, options),) = programs.calls("electramed")
        assert (words, runner) == (PREPARE, "--runner=DataflowRunner")
        assert options.startswith("--beam_options=")
        return shlex.split(options.removeprefix("--beam_options="))

    return run


def assert_accepted(options: list[str]) -> dict[str, object]:
    """By the parser and the validator that Beam has for jobs of Dataflow's."""
    parsed = PipelineOptions([*options, "--runner=DataflowRunner", "--dry_run=True"])  # dry: asks Google nothing
    known = parsed.get_all_options(drop_default=True)
    assert parsed.get_all_options(drop_default=True, retain_unknown_options=True) == known
    assert PipelineOptionsValidator(parsed, DataflowRunner()).validate() == []
    return known


def test_beam_knows_and_accepts_the_options(options_of, repository):
    known = assert_accepted(options_of())
    assert known["project"] == "my-project" and known["region"] == "us-west4"
    assert known["temp_location"] == "gs://my-bucket/dataflow"
    assert known["job_name"] == "electramed-prepare"
    assert known["setup_file"] == str(repository / "setup.py")
    assert known["number_of_worker_harness_threads"] == 1


def test_settings_arrive(options_of):
    settings = {"NAME": "pubmed-2026", "MAX_WORKERS": "8", "MACHINE_TYPE": "e2-standard-4", "DISK_GB": "80"}
    more = "--subnetwork=regions/us-west4/subnetworks/a --no_use_public_ips --labels='key=two words'"
    known = assert_accepted(
        options_of(
            **settings, SERVICE_ACCOUNT="a@b.iam.gserviceaccount.com", IMAGE="docker.pkg.dev/a:1", BEAM_OPTIONS=more
        )
    )
    assert [known[name] for name in ("job_name", "max_num_workers", "machine_type", "disk_size_gb")] == [
        "pubmed-2026",
        8,
        "e2-standard-4",
        80,
    ]
    assert known["service_account_email"] == "a@b.iam.gserviceaccount.com"
    assert known["sdk_container_image"] == "docker.pkg.dev/a:1" and "setup_file" not in known
    assert known["use_public_ips"] is False and known["labels"] == ["key=two words"]


def test_workers_install_what_the_extras_say(repository):
    text = (repository / "launch" / "beam_requirements.txt").read_text()
    listed = {line for line in text.splitlines() if not line.startswith("#")}
    wanted = [
        requirement.partition(";")[0].strip()
        for requirement in importlib.metadata.requires("electramed_jax")
        if re.search(r"extra == .(gcs|dedup).", requirement)
    ]
    assert listed == set(wanted) and len(listed) == 2


def test_the_command_arrives_word_for_word(dataflow, programs):
    assert dataflow("pack", *AWKWARD).returncode == 0
    ((command, *words, _, _),) = programs.calls("electramed")
    assert [command, *words] == ["pack", *AWKWARD]


def test_a_dry_run_prints_what_would_be_run(dataflow, programs):
    (line,) = dataflow("--dry-run", *PREPARE).stdout.splitlines()
    assert not programs.calls()
    dataflow(*PREPARE)
    assert [shlex.split(line)] == programs.calls()


@pytest.mark.parametrize(
    ("words", "settings", "complaint"),
    [
        (["pretrain"], {}, "pretrain is nothing that Dataflow does; give prepare or pack"),
        (["pack", "--runner=DirectRunner"], {}, "--runner is this launcher's to give; set BEAM_OPTIONS"),
        (["pack", "--beam_options", "--x"], {}, "--beam_options is this launcher's to give"),
        (PREPARE, {"NAME": "PubMed"}, "NAME=PubMed is not a name for a job"),
        (PREPARE, {"MAX_WORKERS": "many"}, "MAX_WORKERS=many is not a whole number"),
    ],
)
def test_a_mistake_is_refused_in_one_line(dataflow, programs, words, settings, complaint):
    refused = dataflow(*words, **settings)
    assert refused.returncode == 2 and not programs.calls()
    (line,) = refused.stderr.splitlines()
    assert complaint in line


def test_the_exit_code_is_passed_on(dataflow, programs):
    programs.add("electramed", "sys.exit(9)")
    assert dataflow(*PREPARE).returncode == 9


def test_what_workers_cannot_reach_is_refused_before_anything_is_started():
    with pytest.raises(UserError, match="documents: Dataflow's workers cannot reach it; .* begins with gs://"):
        BeamRunner("DataflowRunner").check(["gs://my-bucket/a", "documents"])
