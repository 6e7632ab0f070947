"""Locks of output folders: one owner at a time, on disk, in Google Cloud Storage and in other storage."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest
from small_disk import fill, small_disk

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, folder_lock
from electramed_jax.common.storage.folder_lock import LOCK_FILE, lock_folder

__all__ = ["small_disk"]  # a fixture

HOLD = """
import sys
from electramed_jax.common.storage.folder_lock import lock_folder
with lock_folder(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Starts a process that holds the lock of a folder until its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()


def write_lock(folder: str, **changed: object) -> None:
    owner = dataclasses.asdict(folder_lock.current_owner()) | changed
    files.write_text(files.join(folder, LOCK_FILE), json.dumps(owner))


def test_a_second_process_is_refused_and_learns_who_holds_the_folder_since_when(tmp_path, holder):
    with pytest.raises(UserError) as caught, lock_folder(tmp_path / "run"):
        pass
    assert f"in use by process {holder.pid} of " in str(caught.value)
    assert "started 20" in str(caught.value) and "stop it first" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_takeover_does_not_steal_the_lock_of_a_live_process_on_this_host(tmp_path, holder):
    with pytest.raises(UserError, match="in use by"), lock_folder(tmp_path / "run", takeover=True):
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    with lock_folder(tmp_path / "run"):
        owner = json.loads((tmp_path / "run" / LOCK_FILE).read_text())
        assert owner["pid"] == os.getpid()


def test_the_lock_ends_with_its_owner_and_not_with_a_process_that_it_forked(tmp_path):
    folder = tmp_path / "run"
    with lock_folder(folder):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        with lock_folder(folder):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_released_folder_contains_no_lock_file_and_a_folder_that_stayed_empty_is_gone(tmp_path):
    with lock_folder(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    assert os.listdir(tmp_path / "used") == ["file"]
    with lock_folder(tmp_path / "unused"):
        pass
    assert not (tmp_path / "unused").exists()


def test_a_block_inside_a_block_of_the_same_process_shares_the_lock(tmp_path):
    with lock_folder(tmp_path) as outer:
        with lock_folder(f"{tmp_path}/.") as inner:
            assert inner is outer
        assert (tmp_path / LOCK_FILE).exists()


def test_a_lock_of_another_host_is_waited_for_and_taken_over_if_it_is_not_renewed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder_lock, "EXPIRY_SECONDS", 0.2)
    write_lock(str(tmp_path), host="elsewhere", machine="another", pid=1)
    with lock_folder(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
    printed = capsys.readouterr().err
    assert "locked by process 1 of" in printed and "has not renewed it" in printed


@pytest.mark.parametrize("kind", ["local", "gs", "memory"])
def test_a_lock_that_its_owner_renews_is_refused(folder_in, kind, monkeypatch):
    folder = folder_in(kind)
    monkeypatch.setattr(folder_lock, "EXPIRY_SECONDS", 30.0)
    write_lock(folder, host="elsewhere", machine="another")
    renewals = iter(range(1, 1000))
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(0.02):
            write_lock(folder, host="elsewhere", machine="another", renewals=next(renewals))

    monkeypatch.setattr(folder_lock, "POLL_SECONDS", 0.1)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(UserError, match="in use by .* on elsewhere.*--takeover"), lock_folder(folder):
            pass
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("kind", ["gs", "memory"])
def test_takeover_does_not_wait_and_the_earlier_owner_notices(folder_in, kind, monkeypatch):
    folder = folder_in(kind)
    monkeypatch.setattr(folder_lock, "RENEW_SECONDS", 0.05)
    with lock_folder(folder) as lock:
        write_lock(folder, host="elsewhere", machine="another")  # what another process writes that takes over
        lock._thread.join(timeout=10)
        assert lock.is_lost
        with pytest.raises(UserError, match="taken over by .* on elsewhere"):
            lock.check()
    assert files.exists(files.join(folder, LOCK_FILE)), "the lock of the other process stays"
    folder_lock._held.clear()
    with lock_folder(folder, takeover=True) as lock:
        lock.check()


@pytest.mark.parametrize("kind", ["gs", "memory"])
def test_of_two_starts_at_the_same_moment_one_gets_the_lock(folder_in, kind):
    folder = folder_in(kind)
    places = [folder_lock._RemoteObject(files.join(folder, LOCK_FILE)) for _ in range(2)]
    assert [place.open() for place in places] == [None, None]
    first = folder_lock.current_owner()
    second = dataclasses.replace(first, pid=first.pid + 1)
    assert [places[0].write(first), places[1].write(second)] == [True, False]
    assert places[1].read() == first


def test_a_write_whose_response_was_lost_counts_as_written(gcs):
    place = folder_lock._RemoteObject(f"gs://bucket/{LOCK_FILE}")
    place.open()
    gcs.objects[f"bucket/{LOCK_FILE}"] = folder_lock._render(folder_lock.current_owner())
    assert place.write(folder_lock.current_owner()), "the object has this content: the first attempt arrived"


@pytest.mark.parametrize("content", ["", "garbage", "[1]", '{"host": 1}'])
def test_a_damaged_lock_file_of_a_dead_process_does_not_block(tmp_path, content, monkeypatch):
    monkeypatch.setattr(folder_lock, "EXPIRY_SECONDS", 0.1)
    (tmp_path / LOCK_FILE).write_text(content)
    with lock_folder(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file is in the place of a folder"), lock_folder(tmp_path / "file" / "run"):
        pass
    (tmp_path / "run" / LOCK_FILE).mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be written"), lock_folder(pathlib.Path(tmp_path / "run")):
        pass


def test_a_full_disk_leaves_no_lock_and_no_folder(small_disk):
    disk = small_disk(1 << 20)
    ballast = fill(disk)
    with (
        pytest.raises(OSError, match=f"No space left on device: '{disk}/run/.electramed.lock'"),
        lock_folder(disk / "run"),
    ):
        pass
    assert not (disk / "run").exists()
    ballast.unlink()
    with lock_folder(disk / "run"):
        pass
