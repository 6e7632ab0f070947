"""A fake Cloud TPU on this machine: each worker is a folder, and the commands sent by gcloud run in it as its home.

Slices are requested, granted after a while, preempted and deleted. Only the installation is fake: `uv` installs an
`electramed` that records its arguments and exits with the next of the given codes, or waits for SIGTERM and exits with 42.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal

from stub_programs import Programs

GCLOUD = """
import pathlib, shutil, signal
folder, workers = pathlib.Path({folder!r}), {workers}
states, homes = folder / "states.json", [folder / f"worker{{i}}" for i in range(workers)]
group, verb, rest = words[2], words[3], words[4:]
options = dict(word[2:].split("=", 1) for word in rest if word.startswith("--") and "=" in word)
left = json.loads(states.read_text()) if states.exists() else []
if (group, verb) == ("queued-resources", "create"):
    if left:
        sys.exit("ALREADY_EXISTS")
    shutil.copy(folder / "request_states.json", states)
    for home in homes:
        home.mkdir()
elif (group, verb) == ("queued-resources", "list"):
    if left:
        print(left[0])
        states.write_text(json.dumps(left[1:] or left))
elif (group, verb) == ("tpu-vm", "list"):
    if left == ["ACTIVE"]:
        print("READY")
elif (group, verb) == ("queued-resources", "delete"):
    states.unlink()
    for home in homes:
        shutil.rmtree(home)
else:
    assert left == ["ACTIVE"], "there is no slice"
    assert group == "queued-resources" and options["node"] in ("0", "all"), "there is one slice"
    chosen = homes if options["worker"] == "all" else [homes[int(options["worker"])]]
    codes = []
    for home in chosen:
        if verb == "scp":
            source, target = rest[:2]
            shutil.copy(source, home / target.split(":")[1])
        else:
            environment = os.environ | {{"HOME": str(home)}}
            output = None
            if "output-directory" in options:
                output = open(pathlib.Path(options["output-directory"]) / f"{{homes.index(home)}}.log", "w")
            command = ["bash", "-c", options["command"]]
            codes.append(subprocess.run(command, cwd=home, env=environment, stdout=output).returncode)
    sys.exit(next(filter(None, codes), 0))
"""

UV = """
import pathlib
if words[0] == "venv":
    pathlib.Path(words[-1], "bin").mkdir(parents=True, exist_ok=True)
else:
    python = pathlib.Path(words[words.index("--python") + 1])
    (python.parent / "electramed").symlink_to({electramed!r})
"""

ELECTRAMED = """
import pathlib, signal
if words == ["--version"]:
    sys.exit()
home = pathlib.Path(os.environ["HOME"])
with open(home.parent / f"{{home.name}}.jsonl", "a+") as starts:
    starts.seek(0)
    before = len(starts.readlines())
    starts.write(json.dumps([os.getcwd(), *words]) + "\\n")
code = {codes}[before]
if code == "wait":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("training", flush=True)
    signal.sigwait([signal.SIGTERM])
    sys.exit(42)
sys.exit(code)
"""


class FakeCloudTpu:
    """A project with at most one slice.

    Attributes:
      homes: home folders of the workers.
    """

    def __init__(self, programs: Programs, folder: pathlib.Path, workers: int = 2) -> None:
        folder.mkdir()
        self.programs = programs
        self.homes = [folder / f"worker{i}" for i in range(workers)]
        self._states, self._request_states = folder / "states.json", folder / "request_states.json"
        self.set_request_states("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
        programs.add("gcloud", GCLOUD.format(folder=str(folder), workers=workers))
        programs.add("uv", UV.format(electramed=str(programs.folder / "electramed")))
        self.set_exit_codes(0)

    def set_exit_codes(self, *codes: int | str) -> None:
        """Sets the exit codes of the successive starts of `electramed` on a worker; "wait" waits for SIGTERM."""
        self.programs.add("electramed", ELECTRAMED.format(codes=codes))

    def set_request_states(self, *states: str) -> None:
        """Sets the successive states of a slice request; each query advances to the next."""
        self._request_states.write_text(json.dumps(states))

    def starts(self, worker: int) -> list[list[str]]:
        """Returns, for each start of `electramed` on a worker, its working directory followed by its arguments."""
        log = self.homes[worker].parent / f"{self.homes[worker].name}.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def preempt(self) -> None:
        """Preempts the slice: kills all processes on it."""
        self._states.write_text(json.dumps(["SUSPENDING", "SUSPENDED"]))
        self.kill_workers()

    def kill_workers(self) -> None:
        """Sends SIGKILL to the processes of the workers."""
        for home in self.homes:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.killpg(int((home / "electramed" / "pid").read_text()), signal.SIGKILL)

    def close(self) -> None:
        """Kills the workers and removes their folders."""
        self.kill_workers()
        shutil.rmtree(self.homes[0].parent)
