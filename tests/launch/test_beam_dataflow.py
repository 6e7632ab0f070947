"""launch/beam_dataflow.sh: passes options that Beam accepts, and the command unchanged."""

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
    """Runs the launcher; returns the options that it passes to the runner."""

    def run(**settings: str) -> list[str]:
        done = dataflow(*PREPARE, **settings)
        assert done.returncode == 0, done.stderr
        ((*words, runner, options),) = programs.calls("electramed")
        assert (words, runner) == (PREPARE, "--runner=DataflowRunner")
        assert options.startswith("--beam_options=")
        return shlex.split(options.removeprefix("--beam_options="))

    return run


def assert_accepted(options: list[str]) -> dict[str, object]:
    """Checks options with the parser and the validator of Beam's Dataflow runner; returns their values."""
    parsed = PipelineOptions(
        [*options, "--runner=DataflowRunner", "--dry_run=True"]
    )  # a dry run sends no request to Google
    known = parsed.get_all_options(drop_default=True)
    assert parsed.get_all_options(drop_default=True, retain_unknown_options=True) == known
    assert PipelineOptionsValidator(parsed, DataflowRunner()).validate() == []
    return known


def test_beam_accepts_the_options(options_of, repository):
    known = assert_accepted(options_of())
    assert known["project"] == "my-project" and known["region"] == "us-west4"
    assert known["temp_location"] == "gs://my-bucket/dataflow"
    assert known["job_name"] == "electramed-prepare"
    assert known["setup_file"] == str(repository / "setup.py")
    assert known["number_of_worker_harness_threads"] == 1


def test_settings_become_beam_options(options_of):
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


def test_the_requirements_of_workers_equal_the_extras(repository):
    text = (repository / "launch" / "beam_requirements.txt").read_text()
    listed = {line for line in text.splitlines() if not line.startswith("#")}
    wanted = [
        requirement.partition(";")[0].strip()
        for requirement in importlib.metadata.requires("electramed_jax")
        if re.search(r"extra == .(gcs|dedup).", requirement)
    ]
    assert listed == set(wanted) and len(listed) == 2


def test_the_command_is_passed_unchanged(dataflow, programs):
    assert dataflow("pack", *AWKWARD).returncode == 0
    ((command, *words, _, _),) = programs.calls("electramed")
    assert [command, *words] == ["pack", *AWKWARD]


def test_a_dry_run_prints_the_command(dataflow, programs):
    (line,) = dataflow("--dry-run", *PREPARE).stdout.splitlines()
    assert not programs.calls()
    dataflow(*PREPARE)
    assert [shlex.split(line)] == programs.calls()


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (["pretrain"], {}, "pretrain does not run on Dataflow; give prepare or pack"),
        (["pack", "--runner=DirectRunner"], {}, "--runner is set by this launcher; set BEAM_OPTIONS"),
        (["pack", "--beam_options", "--x"], {}, "--beam_options is set by this launcher"),
        (PREPARE, {"NAME": "PubMed"}, "NAME=PubMed is not a valid job name"),
        (PREPARE, {"MAX_WORKERS": "many"}, "MAX_WORKERS=many: wanted a whole number"),
    ],
)
def test_a_user_error_is_one_line(dataflow, programs, words, settings, message):
    failed = dataflow(*words, **settings)
    assert failed.returncode == 2 and not programs.calls()
    (line,) = failed.stderr.splitlines()
    assert message in line


def test_the_exit_code_is_passed_on(dataflow, programs):
    programs.add("electramed", "sys.exit(9)")
    assert dataflow(*PREPARE).returncode == 9


def test_a_path_that_workers_cannot_reach_is_an_error_before_the_job_starts():
    with pytest.raises(UserError, match="documents: Dataflow's workers cannot reach it; .* begins with gs://"):
        BeamRunner("DataflowRunner").check(["gs://my-bucket/a", "documents"])
