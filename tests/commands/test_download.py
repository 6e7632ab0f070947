"""`electramed download`: options, summary and exit code."""

from __future__ import annotations

import json

import pubmed_server as faults
import pytest
from pubmed_server import NAME, PubMedServer, content

from electramed_jax import cli


@pytest.fixture
def server():
    with PubMedServer(updates=(4,)).running() as running:
        yield running


def download(server, folder, *options: str) -> int:
    return cli.main(["download", "--output", str(folder), "--mirror", server.url, *options])


@pytest.mark.parametrize(
    ("options", "numbers"),
    [([], (1, 2, 3)), (["--updates"], (4,)), (["--baseline", "--updates"], (1, 2, 3, 4)), (["--files", "1,3"], (1, 3))],
)
def test_the_options_select_the_files(server, tmp_path, options, numbers):
    assert download(server, tmp_path, *options) == 0
    assert sorted(path.name for path in tmp_path.glob("*.xml.gz")) == [NAME.format(number) for number in numbers]


def test_the_summary_is_one_line_of_json_and_the_next_command_is_printed(server, tmp_path, capsys):
    assert download(server, tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["files"], result["bytes"], result["missing"]) == (3, 150_000, {})
    assert (
        f"{tmp_path}: 3 files complete, 150,000 bytes; 3 fetched (150,000 bytes), 0 already present, 0 retries" in err
    )
    assert err.splitlines()[-1] == f"next: electramed prepare --input '{tmp_path}/*.xml.gz' --output documents"


def test_missing_files_are_listed_and_the_command_exits_with_2_after_fetching_the_others(server, tmp_path, capsys):
    server.faults[f"/baseline/{NAME.format(2)}"] = [faults.corrupt] * 9
    assert download(server, tmp_path, "--json") == 2
    out, err = capsys.readouterr()
    assert list(json.loads(out)["missing"]) == [NAME.format(2)]
    assert err.splitlines()[-1].startswith(
        f"missing 1: {NAME.format(2)}; run the same command again to fetch only these"
    )
    assert (tmp_path / NAME.format(3)).read_bytes() == content(3)


def test_a_wrong_range_of_files_is_one_line_and_sends_no_request(server, tmp_path, capsys):
    assert download(server, tmp_path / "new", "--files", "20-1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("electramed download: --files 20-1: got '20-1', wanted a number or an increasing range")
    assert server.requests == [] and not (tmp_path / "new").exists()
