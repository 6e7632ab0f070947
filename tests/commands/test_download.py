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
def test_the_options_say_which_files_come(server, tmp_path, options, numbers):
    assert download(server, tmp_path, *options) == 0
    assert sorted(path.name for path in tmp_path.glob("*.xml.gz")) == [NAME.format(number) for number in numbers]


def test_the_account_is_one_line_of_json_and_the_next_command_is_named(server, tmp_path, capsys):
    assert download(server, tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    account = json.loads(out)
    assert (account["files"], account["bytes"], account["missing"]) == (3, 150_000, {})
    assert f"{tmp_path}: 3 files whole, 150,000 bytes; 3 fetched (150,000 bytes), 0 were there, 0 retries" in err
    assert err.splitlines()[-1] == f"next: electramed prepare --input '{tmp_path}/*.xml.gz' --output documents"


def test_missing_files_are_listed_and_make_the_command_fail_after_the_others_are_whole(server, tmp_path, capsys):
    server.faults[f"/baseline/{NAME.format(2)}"] = [faults.corrupt] * 9
    assert download(server, tmp_path, "--json") == 2
    out, err = capsys.readouterr()
    assert list(json.loads(out)["missing"]) == [NAME.format(2)]
    assert err.splitlines()[-1].startswith(f"missing 1: {NAME.format(2)}; the same command tries them again")
    assert (tmp_path / NAME.format(3)).read_bytes() == content(3)


def test_a_mistake_in_the_numbers_is_one_line_and_nothing_is_asked(server, tmp_path, capsys):
    assert download(server, tmp_path / "new", "--files", "20-1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("electramed download: --files 20-1: got '20-1', wanted a number or an increasing range")
    assert server.requests == [] and not (tmp_path / "new").exists()
