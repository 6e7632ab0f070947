"""launch/until_done.sh: restarts after exit code 42, and not after other codes or a signal."""

from __future__ import annotations

import signal

import pytest

COUNT = """
count = sum(json.loads(line)[0] == name for line in open({log!r}))
sys.exit({codes}[count - 1])
"""
SAVES = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("training", flush=True)
signal.sigwait([signal.SIGTERM])
time.sleep(0.3)
print("saved", flush=True)
sys.exit(42)
"""


@pytest.fixture
def ends_with(programs):
    """Makes `electramed` exit with these codes, one after the other."""

    def install(*codes: int) -> None:
        programs.add("electramed", COUNT.format(log=str(programs.folder / "calls.jsonl"), codes=codes))

    return install


@pytest.mark.parametrize("last", [0, 1, 2, 134])
def test_a_command_is_restarted_after_42_until_another_code(programs, ends_with, last):
    ends_with(42, 42, last, 0)
    done = programs.launch("until_done.sh", "electramed", "two words", "it's", "", PAUSE="0")
    assert done.returncode == last
    assert programs.calls("electramed") == [["two words", "it's", ""]] * 3
    assert done.stderr.count("restarting") == 2


def test_the_number_of_restarts_can_be_limited(programs, ends_with):
    ends_with(42, 42, 42, 0)
    assert programs.launch("until_done.sh", "electramed", PAUSE="0", RESTARTS="1").returncode == 42
    assert len(programs.calls("electramed")) == 2


def test_after_sigterm_it_waits_for_the_save_and_does_not_restart(programs, tmp_path):
    programs.add("electramed", SAVES)
    with programs.start("until_done.sh", "electramed", PAUSE="0", STATE=str(tmp_path)) as process:
        assert process.stdout.readline() == "training\n"
        assert int((tmp_path / "pid").read_text()) == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "saved\n"
        assert process.wait(timeout=10) == 42
    assert (tmp_path / "exit_code").read_text() == "42\n"
    assert len(programs.calls("electramed")) == 1


def test_after_sigterm_between_two_starts_it_stops_at_once(programs, ends_with):
    ends_with(42, 0)
    with programs.start("until_done.sh", "electramed", PAUSE="60") as process:
        assert "restarting" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 42
    assert len(programs.calls("electramed")) == 1


def test_local_processes_that_all_saved_are_restarted_together(programs, repository):
    body = COUNT.format(log=str(programs.folder / "calls.jsonl"), codes=(42, 42, 0, 0))
    programs.add("electramed", body)
    script = str(repository / "launch" / "local_processes.sh")
    done = programs.launch("until_done.sh", script, "pretrain", PROCESSES="2", PAUSE="0")
    assert done.returncode == 0
    assert programs.calls("electramed") == [["pretrain"]] * 4


def test_a_signal_reaches_all_local_processes_and_their_save_completes(programs):
    programs.add("electramed", SAVES)
    with programs.start("local_processes.sh", "pretrain", PROCESSES="3") as process:
        assert [process.stdout.readline() for _ in range(3)] == ["training\n"] * 3
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "saved\n" * 3
        assert process.wait(timeout=10) == 42
