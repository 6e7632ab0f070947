from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pubmed_server as faults
import pytest
from pubmed_server import NAME, PubMedServer, content
from small_disk import fill, small_disk  # noqa: F401

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.common.storage.folder_lock import LOCK_FILE
from electramed_jax.common.storage.http_client import RetryPolicy
from electramed_jax.data.download import download
from electramed_jax.data.download.download_dir import RECORD

QUICK = RetryPolicy(max_retries=3, timeout_seconds=20, initial_backoff_seconds=0.01, max_backoff_seconds=0.02)


@pytest.fixture
def server():
    with PubMedServer(updates=(4, 5)).running() as running:
        yield running


def fetch(server, folder, **options):
    return download.download(str(folder), mirror=server.url, retry_policy=options.pop("retry_policy", QUICK), **options)


def path(number: int) -> str:
    return f"/baseline/{NAME.format(number)}"


def files_of(folder) -> dict[str, bytes]:
    """Returns the contents of the folder without download.json."""
    return {
        name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if name not in (RECORD, LOCK_FILE)
    }


def complete(*numbers: int) -> dict[str, bytes]:
    return {NAME.format(number): content(number) for number in numbers}


def test_every_file_of_the_baseline_is_downloaded_and_nothing_else(server, tmp_path):
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert summary["missing"] == {} and summary["exit_code"] == 0
    assert {
        key: summary[key] for key in ("year", "files", "bytes", "fetched", "fetched_bytes", "skipped", "retried")
    } == {
        "year": 2026,
        "files": 3,
        "bytes": 150_000,
        "fetched": 3,
        "fetched_bytes": 150_000,
        "skipped": 0,
        "retried": 0,
    }


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"numbers": {2}}, (2,)),
        ({"collections": ["updates"]}, (4, 5)),
        ({"collections": ["baseline", "updates"], "numbers": {3, 4}}, (3, 4)),
    ],
)
def test_only_the_selected_files_are_downloaded(server, tmp_path, options, numbers):
    fetch(server, tmp_path, **options)
    assert files_of(tmp_path) == complete(*numbers)


def test_the_newest_year_is_selected_and_logged_if_the_server_has_several(server, tmp_path, capsys):
    server.put("/baseline/pubmed25n0001.xml.gz", b"of last year")
    fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert "the server has 1 files of 2025 and 3 files of 2026; selecting 2026" in capsys.readouterr().err
    fetch(server, tmp_path, year=2025)
    assert files_of(tmp_path) == {"pubmed25n0001.xml.gz": b"of last year"} | complete(1, 2, 3)
    assert f"{tmp_path}: also contains files of 2026" in capsys.readouterr().err


def test_requests_have_the_user_agent_of_the_project(server, tmp_path):
    fetch(server, tmp_path)
    assert all(headers["User-Agent"].startswith("electramed_jax/") for _, headers in server.requests)


def test_verified_files_are_not_requested_again(server, tmp_path):
    fetch(server, tmp_path)
    server.requests.clear()
    summary = fetch(server, tmp_path)
    assert [requested for requested, _ in server.requests] == ["/baseline/"]
    assert (summary["files"], summary["bytes"], summary["fetched"], summary["skipped"]) == (3, 150_000, 0, 3)


def test_a_dry_run_logs_the_plan_and_changes_nothing(server, tmp_path, capsys):
    summary = fetch(server, tmp_path / "new", dry_run=True)
    assert not (tmp_path / "new").exists() and [requested for requested, _ in server.requests] == ["/baseline/"]
    assert list(summary["missing"]) == list(complete(1, 2, 3)) and summary["exit_code"] == 0
    assert f"PubMed 2026, files 1-3 into {tmp_path / 'new'}: 0 verified before, 3 to fetch" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["shorter", "other bytes", "deleted"])
def test_a_file_that_changed_locally_is_downloaded_again(server, tmp_path, damage):
    fetch(server, tmp_path)
    damaged = tmp_path / NAME.format(2)
    if damage == "deleted":
        damaged.unlink()
    else:
        damaged.write_bytes(content(2)[:1000] if damage == "shorter" else bytes(50_000))
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert (summary["fetched"], summary["skipped"]) == (1, 2)


def test_verify_finds_damage_that_did_not_change_size_and_time(server, tmp_path):
    fetch(server, tmp_path)
    damaged = tmp_path / NAME.format(2)
    before = damaged.stat()
    damaged.write_bytes(bytes(50_000))
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetch(server, tmp_path)["fetched"] == 0
    summary = fetch(server, tmp_path, verify=True)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert (summary["fetched"], summary["skipped"]) == (1, 2)


def test_files_of_another_program_are_verified_and_incomplete_ones_completed(server, tmp_path):
    (tmp_path / NAME.format(1)).write_bytes(content(1))
    (tmp_path / NAME.format(2)).write_bytes(content(2)[:20_000])
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert server.request_headers(path(1)) == []
    assert [headers.get("Range") for headers in server.request_headers(path(2))] == ["bytes=20000-"]
    assert (summary["fetched"], summary["fetched_bytes"]) == (2, 80_000)


def test_a_file_that_the_server_replaced_is_downloaded_again_and_the_old_one_kept_until_then(server, tmp_path):
    fetch(server, tmp_path)
    server.put(path(2), content(20, 60_000))
    server.faults[path(2)] = [faults.respond(404)]
    assert list(fetch(server, tmp_path)["missing"]) == [NAME.format(2)]
    assert files_of(tmp_path) == complete(1, 2, 3)
    fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3) | {NAME.format(2): content(20, 60_000)}


def test_a_closed_connection_is_resumed_at_its_last_byte(server, tmp_path):
    server.faults[path(2)] = [faults.close_after(20_000)]
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert [headers.get("Range") for headers in server.request_headers(path(2))] == [None, "bytes=20000-"]
    tag = hashlib.sha1(content(2)).hexdigest()
    assert [headers.get("If-Range") for headers in server.request_headers(path(2))] == [None, f'"{tag}"']
    assert (summary["retried"], summary["fetched_bytes"]) == (1, 150_000)


def test_a_stalled_connection_times_out_and_is_resumed(server, tmp_path, capsys):
    server.faults[path(2)] = [faults.stall_after(0)]
    short_timeout = dataclasses.replace(QUICK, timeout_seconds=0.2, max_retries=50)
    assert fetch(server, tmp_path, retry_policy=short_timeout)["retried"] >= 1
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert "no data for 0.2 s; again in" in capsys.readouterr().err


def test_a_file_is_restarted_if_the_server_ignores_the_range(server, tmp_path):
    server.faults[path(2)] = [faults.close_after(20_000), faults.ignore_range]
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert summary["fetched_bytes"] == 170_000


def test_a_file_that_changes_between_two_attempts_ends_as_the_new_version(server, tmp_path):
    new = content(20, 60_000)

    def close_and_change(handler, data):
        faults.close_after(20_000)(handler, data)
        server.put(path(2), new)

    server.faults[path(2)] = [close_and_change]
    fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3) | {NAME.format(2): new}


def test_corrupted_bytes_are_downloaded_again(server, tmp_path, capsys):
    server.faults[path(2)] = [faults.corrupt]
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3) and summary["exit_code"] == 0
    assert f"{NAME.format(2)}: got MD5 " in capsys.readouterr().err


def test_a_file_that_stays_corrupt_is_reported_and_the_others_are_complete(server, tmp_path, capsys):
    server.faults[path(2)] = [faults.corrupt] * 10
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 3)
    assert summary["exit_code"] == 2 and list(summary["missing"]) == [NAME.format(2)]
    bad = hashlib.md5(content(2)[:-1] + bytes([content(2)[-1] ^ 1])).hexdigest()
    good = hashlib.md5(content(2)).hexdigest()
    line = f"{NAME.format(2)}: got MD5 {bad}, wanted {good}, 3 times; it is damaged on the server or in transit: "
    assert line in capsys.readouterr().err
    assert len(server.request_headers(path(2))) == download.MAX_MD5_ATTEMPTS
    assert fetch(server, tmp_path)["missing"], "download.json does not list missing files"


@pytest.mark.parametrize("digest", [None, b"<html>later</html>", b"MD5(pubmed26n0009.xml.gz)= " + b"0" * 32])
def test_a_file_without_a_valid_md5_is_not_downloaded(server, tmp_path, digest):
    if digest is None:
        del server.files[f"{path(2)}.md5"]
    else:
        server.files[f"{path(2)}.md5"] = digest
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 3) and server.request_headers(path(2)) == []
    assert summary["exit_code"] == 2
    assert f"{NAME.format(2)}.md5" in summary["missing"][NAME.format(2)]


def test_the_run_stops_after_several_unreachable_files(tmp_path, capsys):
    with PubMedServer(range(1, 41)).running() as server:
        for number in range(1, 41):
            server.faults[f"{path(number)}.md5"] = [faults.respond(503)] * 9
        summary = fetch(server, tmp_path)
    assert len(summary["missing"]) == 40 and files_of(tmp_path) == {}
    assert len({requested for requested, _ in server.requests}) < 15
    assert "5 files in a row without a response: stopping" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1_000])
def test_a_killed_download_resumes_at_its_last_byte(server, tmp_path, size):
    server.faults[path(2)] = [faults.stall_after(size)]
    command = [
        sys.executable,
        "-m",
        "electramed_jax.cli",
        "download",
        "--output",
        str(tmp_path),
        "--mirror",
        server.url,
    ]
    with subprocess.Popen([*command, "--files=2"], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while sum(map(len, files_of(tmp_path).values())) < size or not server.request_headers(path(2)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert NAME.format(2) not in files_of(tmp_path)
    summary = fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert server.request_headers(path(2))[1].get("Range") == (f"bytes={size}-" if size else None)
    assert summary["fetched_bytes"] == 150_000 - size


def test_a_download_killed_after_its_last_byte_receives_no_more_bytes(server, tmp_path):
    digest = hashlib.md5(content(2)).hexdigest()
    (tmp_path / f".{NAME.format(2)}.{digest}.part").write_bytes(content(2))
    fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3) and server.request_headers(path(2)) == []


def test_a_partial_file_of_another_version_is_not_resumed(server, tmp_path):
    (tmp_path / f".{NAME.format(2)}.{'0' * 32}.part").write_bytes(b"of another version")
    fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)
    assert [headers.get("Range") for headers in server.request_headers(path(2))] == [None]


def test_a_partial_file_longer_than_the_file_is_restarted(server, tmp_path):
    digest = hashlib.md5(content(2)).hexdigest()
    (tmp_path / f".{NAME.format(2)}.{digest}.part").write_bytes(content(2) + b"and more")
    fetch(server, tmp_path)
    assert files_of(tmp_path) == complete(1, 2, 3)


def test_ctrl_c_ends_at_once_and_the_download_can_be_resumed(server, tmp_path):
    server.faults[path(3)] = [faults.stall_after(20_000)]
    command = [
        sys.executable,
        "-m",
        "electramed_jax.cli",
        "download",
        "--output",
        str(tmp_path),
        "--mirror",
        server.url,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while sum(map(len, files_of(tmp_path).values())) < 120_000:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "electramed download: interrupted; run the same command again to resume"
    assert set(json.loads((tmp_path / RECORD).read_text())["files"]) == set(complete(1, 2))
    assert fetch(server, tmp_path)["fetched_bytes"] == 30_000
    assert files_of(tmp_path) == complete(1, 2, 3)


def test_a_second_process_in_the_same_folder_is_an_error(server, tmp_path):
    errors = []

    def start_another(handler, data):
        with pytest.raises(UserError) as error:
            fetch(server, tmp_path)
        errors.append(str(error.value))
        handler.whole_or_range(data)

    server.faults[path(2)] = [start_another]
    fetch(server, tmp_path)
    assert errors[0].startswith(f"{tmp_path}: another electramed download is running in it; wait")
    assert files_of(tmp_path) == complete(1, 2, 3)


def test_a_full_disk_is_a_user_error_and_the_same_command_resumes(server, small_disk, tmp_path):  # noqa: F811
    disk = small_disk(1 << 20)
    ballast = fill(disk, leaving=90_000)
    with pytest.raises(UserError, match=r"disk full; complete files and partial files are kept; free"):
        fetch(server, disk / "pubmed")
    for name, data in files_of(disk / "pubmed").items():
        assert name.startswith(".") or data == complete(1, 2, 3)[name]
    ballast.unlink()
    assert fetch(server, disk / "pubmed")["exit_code"] == 0
    assert files_of(disk / "pubmed") == complete(1, 2, 3)


def test_remote_storage_gets_complete_files_and_download_json(server):
    folder = f"memory://{uuid.uuid4().hex}/pubmed"
    server.faults[path(2)] = [faults.close_after(20_000), faults.corrupt]
    server.faults[path(3)] = [faults.corrupt] * 10
    assert list(fetch(server, folder)["missing"]) == [NAME.format(3)]
    assert files.list_dir(folder) == [RECORD, NAME.format(1), NAME.format(2)]
    assert files.read_bytes(files.join(folder, NAME.format(2))) == content(2)
    server.faults.clear()
    summary = fetch(server, folder)
    assert (summary["fetched"], summary["skipped"], summary["bytes"]) == (1, 2, 150_000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parallel": 0}, "--parallel 0: wanted 1 to 8"),
        ({"parallel": 50}, "--parallel 50: wanted 1 to 8"),
        ({"retry_policy": RetryPolicy(max_retries=-1)}, "--retries -1 "),
        ({"retry_policy": RetryPolicy(timeout_seconds=float("inf"))}, "--stall_seconds inf: wanted"),
        ({"retry_policy": RetryPolicy(timeout_seconds=0)}, "--stall_seconds 0: wanted"),
        ({"numbers": {3, 4}}, "--files 3-4: the server has no 4 of 2026; wanted numbers in 1-3"),
        ({"year": 2020}, "--year 2020: not on the server, which has 2026"),
    ],
)
def test_options_out_of_range_are_rejected_before_anything_is_written(server, tmp_path, options, message):
    with pytest.raises(UserError) as error:
        fetch(server, tmp_path / "new", **options)
    assert message in str(error.value) and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "mirror", ["ftp://server.example/pubmed", "server.example", "https://", "https://a.example/?x=1"]
)
def test_a_mirror_that_is_not_an_http_folder_is_rejected(tmp_path, mirror):
    with pytest.raises(UserError, match=r"wanted https://HOST/FOLDER"):
        download.download(str(tmp_path), mirror=mirror)


def test_a_password_in_the_mirror_url_is_rejected_and_not_printed(tmp_path):
    with pytest.raises(UserError, match="netrc") as error:
        download.download(str(tmp_path), mirror="https://me:secret@server.example/pubmed")
    assert "secret" not in str(error.value)


def test_a_download_json_of_another_program_is_not_overwritten(server, tmp_path):
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(UserError, match=rf"{RECORD}: not a download record with format_version 1"):
        fetch(server, tmp_path)
    assert (tmp_path / RECORD).read_text() == "[]"
