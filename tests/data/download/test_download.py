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

import pubmed_server as faulty
import pytest
from pubmed_server import NAME, PubMedServer, content
from small_disk import fill, small_disk  # noqa: F401

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
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


def held(folder) -> dict[str, bytes]:
    """What is in the folder; the record aside."""
    return {name: (folder / name).read_bytes() for name in sorted(os.listdir(folder)) if name != RECORD}


def whole(*numbers: int) -> dict[str, bytes]:
    return {NAME.format(number): content(number) for number in numbers}


def test_every_file_of_the_baseline_arrives_whole_and_nothing_else(server, tmp_path):
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert account["missing"] == {} and account["exit_code"] == 0
    assert {
        key: account[key] for key in ("year", "files", "bytes", "fetched", "fetched_bytes", "skipped", "retried")
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
def test_what_is_asked_for_is_what_comes(server, tmp_path, options, numbers):
    fetch(server, tmp_path, **options)
    assert held(tmp_path) == whole(*numbers)


def test_the_newest_year_is_taken_and_said_where_the_server_has_several(server, tmp_path, capsys):
    server.put("/baseline/pubmed25n0001.xml.gz", b"of last year")
    fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert "the server has 1 files of 2025 and 3 files of 2026; taking 2026" in capsys.readouterr().err
    fetch(server, tmp_path, year=2025)
    assert held(tmp_path) == {"pubmed25n0001.xml.gz": b"of last year"} | whole(1, 2, 3)
    assert f"{tmp_path}: also holds files of 2026" in capsys.readouterr().err


def test_requests_name_the_project(server, tmp_path):
    fetch(server, tmp_path)
    assert all(headers["User-Agent"].startswith("electramed_jax/") for _, headers in server.requests)


def test_what_was_verified_is_not_asked_for_again(server, tmp_path):
    fetch(server, tmp_path)
    server.requests.clear()
    account = fetch(server, tmp_path)
    assert [asked for asked, _ in server.requests] == ["/baseline/"]
    assert (account["files"], account["bytes"], account["fetched"], account["skipped"]) == (3, 150_000, 0, 3)


def test_a_dry_run_says_what_there_is_and_changes_nothing(server, tmp_path, capsys):
    account = fetch(server, tmp_path / "new", dry_run=True)
    assert not (tmp_path / "new").exists() and [asked for asked, _ in server.requests] == ["/baseline/"]
    assert list(account["missing"]) == list(whole(1, 2, 3)) and account["exit_code"] == 0
    assert f"PubMed 2026, files 1-3 into {tmp_path / 'new'}: 0 verified before, 3 to fetch" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["shorter", "other bytes", "gone"])
def test_a_file_that_changed_here_is_brought_back(server, tmp_path, damage):
    fetch(server, tmp_path)
    victim = tmp_path / NAME.format(2)
    if damage == "gone":
        victim.unlink()
    else:
        victim.write_bytes(content(2)[:1000] if damage == "shorter" else bytes(50_000))
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert (account["fetched"], account["skipped"]) == (1, 2)


def test_verify_finds_damage_that_left_size_and_time_as_they_were(server, tmp_path):
    fetch(server, tmp_path)
    victim = tmp_path / NAME.format(2)
    before = victim.stat()
    victim.write_bytes(bytes(50_000))
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetch(server, tmp_path)["fetched"] == 0
    account = fetch(server, tmp_path, verify=True)
    assert held(tmp_path) == whole(1, 2, 3)
    assert (account["fetched"], account["skipped"]) == (1, 2)


def test_files_that_another_program_brought_are_verified_and_half_ones_completed(server, tmp_path):
    (tmp_path / NAME.format(1)).write_bytes(content(1))
    (tmp_path / NAME.format(2)).write_bytes(content(2)[:20_000])
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert server.asked(path(1)) == []
    assert [headers.get("Range") for headers in server.asked(path(2))] == ["bytes=20000-"]
    assert (account["fetched"], account["fetched_bytes"]) == (2, 80_000)


def test_a_file_that_the_server_replaced_is_fetched_anew_and_the_old_one_stays_until_then(server, tmp_path):
    fetch(server, tmp_path)
    server.put(path(2), content(20, 60_000))
    server.faults[path(2)] = [faulty.answers(404)]
    assert list(fetch(server, tmp_path)["missing"]) == [NAME.format(2)]
    assert held(tmp_path) == whole(1, 2, 3)
    fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3) | {NAME.format(2): content(20, 60_000)}


def test_a_connection_cut_in_the_middle_goes_on_from_there(server, tmp_path):
    server.faults[path(2)] = [faulty.breaks_off_after(20_000)]
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert [headers.get("Range") for headers in server.asked(path(2))] == [None, "bytes=20000-"]
    tag = hashlib.sha1(content(2)).hexdigest()
    assert [headers.get("If-Range") for headers in server.asked(path(2))] == [None, f'"{tag}"']
    assert (account["retried"], account["fetched_bytes"]) == (1, 150_000)


def test_a_stalled_connection_is_given_up_and_taken_up_again(server, tmp_path, capsys):
    server.faults[path(2)] = [faulty.stalls_after(0)]
    impatient = dataclasses.replace(QUICK, timeout_seconds=0.2, max_retries=50)
    assert fetch(server, tmp_path, retry_policy=impatient)["retried"] >= 1
    assert held(tmp_path) == whole(1, 2, 3)
    assert "no data for 0.2 s; again in" in capsys.readouterr().err


def test_a_server_that_ignores_the_range_has_its_file_begun_anew(server, tmp_path):
    server.faults[path(2)] = [faulty.breaks_off_after(20_000), faulty.ignores_range]
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert account["fetched_bytes"] == 170_000


def test_a_file_that_changes_between_two_tries_ends_as_the_new_one(server, tmp_path):
    new = content(20, 60_000)

    def breaks_off_and_changes(handler, data):
        faulty.breaks_off_after(20_000)(handler, data)
        server.put(path(2), new)

    server.faults[path(2)] = [breaks_off_and_changes]
    fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3) | {NAME.format(2): new}


def test_corrupted_bytes_are_fetched_again(server, tmp_path, capsys):
    server.faults[path(2)] = [faulty.corrupts]
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3) and account["exit_code"] == 0
    assert f"{NAME.format(2)}: got MD5 " in capsys.readouterr().err


def test_a_file_that_stays_corrupt_is_named_and_the_others_are_whole(server, tmp_path, capsys):
    server.faults[path(2)] = [faulty.corrupts] * 10
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 3)
    assert account["exit_code"] == 2 and list(account["missing"]) == [NAME.format(2)]
    bad = hashlib.md5(content(2)[:-1] + bytes([content(2)[-1] ^ 1])).hexdigest()
    good = hashlib.md5(content(2)).hexdigest()
    line = f"{NAME.format(2)}: got MD5 {bad}, wanted {good}, 3 times; it is damaged on the server or on the way: "
    assert line in capsys.readouterr().err
    assert len(server.asked(path(2))) == download.MD5_TRIES
    assert fetch(server, tmp_path)["missing"], "the record does not hold what was missing"


@pytest.mark.parametrize("digest", [None, b"<html>later</html>", b"MD5(pubmed26n0009.xml.gz)= " + b"0" * 32])
def test_a_file_without_a_digest_of_its_own_is_not_taken(server, tmp_path, digest):
    if digest is None:
        del server.files[f"{path(2)}.md5"]
    else:
        server.files[f"{path(2)}.md5"] = digest
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 3) and server.asked(path(2)) == []
    assert account["exit_code"] == 2
    assert f"{NAME.format(2)}.md5" in account["missing"][NAME.format(2)]


def test_a_server_that_is_gone_is_not_asked_for_the_other_thousand_files(tmp_path, capsys):
    with PubMedServer(range(1, 41)).running() as server:
        for number in range(1, 41):
            server.faults[f"{path(number)}.md5"] = [faulty.answers(503)] * 9
        account = fetch(server, tmp_path)
    assert len(account["missing"]) == 40 and held(tmp_path) == {}
    assert len({asked for asked, _ in server.requests}) < 15
    assert "5 files in a row without an answer: stopping here" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1_000])
def test_a_killed_download_goes_on_where_it_was(server, tmp_path, size):
    server.faults[path(2)] = [faulty.stalls_after(size)]
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
        while sum(map(len, held(tmp_path).values())) < size or not server.asked(path(2)):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert NAME.format(2) not in held(tmp_path)
    account = fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert server.asked(path(2))[1].get("Range") == (f"bytes={size}-" if size else None)
    assert account["fetched_bytes"] == 150_000 - size


def test_a_download_killed_after_its_last_byte_needs_no_more_of_them(server, tmp_path):
    digest = hashlib.md5(content(2)).hexdigest()
    (tmp_path / f".{NAME.format(2)}.{digest}.part").write_bytes(content(2))
    fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3) and server.asked(path(2)) == []


def test_what_was_begun_of_another_version_is_not_continued(server, tmp_path):
    (tmp_path / f".{NAME.format(2)}.{'0' * 32}.part").write_bytes(b"of another version")
    fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)
    assert [headers.get("Range") for headers in server.asked(path(2))] == [None]


def test_a_partial_longer_than_the_file_is_begun_anew(server, tmp_path):
    digest = hashlib.md5(content(2)).hexdigest()
    (tmp_path / f".{NAME.format(2)}.{digest}.part").write_bytes(content(2) + b"and more")
    fetch(server, tmp_path)
    assert held(tmp_path) == whole(1, 2, 3)


def test_ctrl_c_ends_at_once_and_leaves_what_resumes(server, tmp_path):
    server.faults[path(3)] = [faulty.stalls_after(20_000)]
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
        while sum(map(len, held(tmp_path).values())) < 120_000:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "electramed download: interrupted; run the same command again to go on"
    assert set(json.loads((tmp_path / RECORD).read_text())["files"]) == set(whole(1, 2))
    assert fetch(server, tmp_path)["fetched_bytes"] == 30_000
    assert held(tmp_path) == whole(1, 2, 3)


def test_a_second_process_in_the_same_folder_is_refused(server, tmp_path):
    errors = []

    def starts_another(handler, data):
        with pytest.raises(UserError) as error:
            fetch(server, tmp_path)
        errors.append(str(error.value))
        handler.whole_or_range(data)

    server.faults[path(2)] = [starts_another]
    fetch(server, tmp_path)
    assert errors[0].startswith(f"{tmp_path}: another electramed download is at work in it; wait")
    assert held(tmp_path) == whole(1, 2, 3)


def test_a_full_disk_is_one_clear_error_and_the_same_command_goes_on(server, small_disk, tmp_path):  # noqa: F811
    disk = small_disk(1 << 20)
    ballast = fill(disk, leaving=90_000)
    with pytest.raises(
        UserError, match=r"disk full; the files that are whole and what was begun of others are kept; free"
    ):
        fetch(server, disk / "pubmed")
    for name, data in held(disk / "pubmed").items():
        assert name.startswith(".") or data == whole(1, 2, 3)[name]
    ballast.unlink()
    assert fetch(server, disk / "pubmed")["exit_code"] == 0
    assert held(disk / "pubmed") == whole(1, 2, 3)


def test_remote_storage_gets_whole_files_and_a_record_too(server):
    folder = f"memory://{uuid.uuid4().hex}/pubmed"
    server.faults[path(2)] = [faulty.breaks_off_after(20_000), faulty.corrupts]
    server.faults[path(3)] = [faulty.corrupts] * 10
    assert list(fetch(server, folder)["missing"]) == [NAME.format(3)]
    assert files.list_dir(folder) == [RECORD, NAME.format(1), NAME.format(2)]
    assert files.read_bytes(files.join(folder, NAME.format(2))) == content(2)
    server.faults.clear()
    account = fetch(server, folder)
    assert (account["fetched"], account["skipped"], account["bytes"]) == (1, 2, 150_000)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parallel": 0}, "--parallel 0: wanted 1 to 8"),
        ({"parallel": 50}, "--parallel 50: wanted 1 to 8"),
        ({"retry_policy": RetryPolicy(max_retries=-1)}, "--retries -1 "),
        ({"retry_policy": RetryPolicy(timeout_seconds=float("inf"))}, "--stall_seconds inf: wanted"),
        ({"retry_policy": RetryPolicy(timeout_seconds=0)}, "--stall_seconds 0: wanted"),
        ({"numbers": {3, 4}}, "--files 3-4: the server has no 4 of 2026; wanted numbers out of 1-3"),
        ({"year": 2020}, "--year 2020: not on the server, which has 2026"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_written(server, tmp_path, options, said):
    with pytest.raises(UserError) as error:
        fetch(server, tmp_path / "new", **options)
    assert said in str(error.value) and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "mirror", ["ftp://server.example/pubmed", "server.example", "https://", "https://a.example/?x=1"]
)
def test_a_mirror_that_is_no_folder_on_the_web_is_refused(tmp_path, mirror):
    with pytest.raises(UserError, match=r"wanted https://HOST/FOLDER"):
        download.download(str(tmp_path), mirror=mirror)


def test_a_password_in_the_mirrors_url_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(UserError, match="netrc") as error:
        download.download(str(tmp_path), mirror="https://me:secret@server.example/pubmed")
    assert "secret" not in str(error.value)


def test_a_record_of_another_program_is_not_overwritten(server, tmp_path):
    (tmp_path / RECORD).write_text("[]")
    with pytest.raises(UserError, match=rf"{RECORD}: got no record of format 1"):
        fetch(server, tmp_path)
    assert (tmp_path / RECORD).read_text() == "[]"
