"""A Cloud TPU on this machine: its workers are folders, and what gcloud has them do really runs, each in its own home.

Slices are asked for, granted after a while, taken away and given back. Only installing is pretended: `uv` brings an `electramed`
that writes down its words and ends with the next of the codes given (or waits for SIGTERM, to exit 42).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal

from stand_ins import Programs

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
    shutil.copy(folder / "fate.json", states)
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
    chosen = homes if options["worker"] == "all" else [homes[int(options["worker"])]]
    codes = []
    for home in chosen:
        if verb == "scp":
            source, target = rest[:2]
            shutil.copy(source, home / target.split(":")[1])
        else:
            environment = os.environ | {{"HOME": str(home)}}
            codes.append(subprocess.run(["bash", "-c", options["command"]], cwd=home, env=environment).returncode)
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


class PretendCloud:
    """See the module. `homes` are the workers'."""

    def __init__(self, programs: Programs, folder: pathlib.Path, workers: int = 2) -> None:
        folder.mkdir()
        self.programs = programs
        self.homes = [folder / f"worker{i}" for i in range(workers)]
        self._states, self._fate = folder / "states.json", folder / "fate.json"
        self.requests_become("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
        programs.add("gcloud", GCLOUD.format(folder=str(folder), workers=workers))
        programs.add("uv", UV.format(electramed=str(programs.folder / "electramed")))
        self.ends_with(0)

    def ends_with(self, *codes: int | str) -> None:
        """What `electramed` does on its first start on a worker, on its second, ...: an exit code, or "wait"."""
        self.programs.add("electramed", ELECTRAMED.format(codes=codes))

    def requests_become(self, *states: str) -> None:
        """What becomes of a request for a slice: one state after the other, each time that somebody looks."""
        self._fate.write_text(json.dumps(states))

    def starts(self, worker: int) -> list[list[str]]:
        """For each start of `electramed` on that worker: the folder it ran in, and its words."""
        log = self.homes[worker].parent / f"{self.homes[worker].name}.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def preempt(self) -> None:
        """Takes the slice away: everything on it is killed."""
        self._states.write_text(json.dumps(["SUSPENDING", "SUSPENDED"]))
        self.kill_workers()

    def kill_workers(self) -> None:
        """SIGKILL to what runs on the workers."""
        for home in self.homes:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.killpg(int((home / "electramed" / "pid").read_text()), signal.SIGKILL)

    def close(self) -> None:
        self.kill_workers()
        shutil.rmtree(self.homes[0].parent)
