"""Is everything here that a run needs? Each check looks at one thing, and names the command that mends it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.storage import files

OK, WARNING, WRONG = "ok", "warning", "wrong"
PACKAGE = "electramed_jax"

LITTLE_MEMORY = 4 * 2**30  # bytes; a packing process and a training host want about as much
LITTLE_DISK = 10 * 2**30  # bytes; a checkpoint of ELECTRA-Base and its moments is 1.5 GB, and some are kept
CLOCK_SECONDS = 5.0  # between two clocks; what is beyond makes logs of several hosts hard to read
CLOCK_LIMIT_SECONDS = 300.0  # beyond which signed requests to storage are refused
CONNECT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and what to do where it is not well."""

    name: str
    state: str
    detail: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.state:<7}  {self.name:<12}  {self.detail}" + (f"; {self.fix}" if self.fix else "")

    def to_json(self) -> dict[str, str]:
        """Returns the fields by name; `found` and `mend` are the earlier names of `detail` and `fix`."""
        return dataclasses.asdict(self) | {"found": self.detail, "mend": self.fix}


# ---- what is installed -----------------------------------------------------------------------------------------------


def check_python(version: tuple[int, ...] = sys.version_info[:3], system: str = platform.platform()) -> Check:
    found = f"{'.'.join(map(str, version))} on {system}"
    if version >= (3, 11):
        return Check("python", OK, found)
    return Check("python", WRONG, found, "3.11 or newer is wanted: python3.11 -m venv ENV, and install there")


def check_packages(requirements: Iterable[str] | None = None, installed: Callable[[str], str] | None = None) -> Check:
    """Whether what is installed is within the ranges this program asks for, extras left out."""
    from packaging.requirements import Requirement

    installed = installed or importlib.metadata.version
    if requirements is None:
        try:
            requirements = importlib.metadata.requires(PACKAGE) or []
        except importlib.metadata.PackageNotFoundError:
            return Check(
                "packages", WARNING, f"{PACKAGE} itself is not installed", "pip install -e . where setup.py is"
            )
    wanted = [Requirement(text) for text in requirements]
    wanted = [one for one in wanted if one.marker is None]
    off, versions = [], {}
    for one in wanted:
        try:
            versions[one.name] = installed(one.name)
        except importlib.metadata.PackageNotFoundError:
            off.append((one, "missing"))
        else:
            if not one.specifier.contains(versions[one.name], prereleases=True):
                off.append((one, versions[one.name]))
    if off:
        found = ", ".join(f"{one.name} {version} (wanted {one.specifier})" for one, version in off)
        return Check("packages", WRONG, found, "pip install " + " ".join(f"'{one}'" for one, _ in off))
    shown = [f"{name} {versions[name]}" for name in ("jax", "flax", "optax", "orbax-checkpoint") if name in versions]
    return Check("packages", OK, ", ".join(shown or [f"{len(versions)} as wanted"]))


def check_jaxlib(installed: Callable[[str], str] | None = None) -> Check:
    """jax and jaxlib are released together; an older jaxlib may load, and fail later."""
    installed = installed or importlib.metadata.version
    jax, jaxlib = installed("jax"), installed("jaxlib")
    if jax == jaxlib:
        return Check("jaxlib", OK, jaxlib)
    return Check("jaxlib", WRONG, f"{jaxlib} beside jax {jax}", f"pip install 'jax=={jax}' 'jaxlib=={jax}'")


# ---- the machine -----------------------------------------------------------------------------------------------------


def check_devices(
    found: Callable[[], list[Any]] | None = None,
    *,
    tpu_chips: int | None = None,
    nvidia: bool | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Check:
    """The devices that jax computes on, and whether it passes an accelerator by.

    Args:
      found: gives jax's devices; None asks jax.
      tpu_chips, nvidia: what the machine has; None looks.
    """
    if tpu_chips is None or nvidia is None:
        from jax._src import hardware_utils

        tpu_chips = hardware_utils.num_available_tpu_chips_and_device_id()[0] if tpu_chips is None else tpu_chips
        nvidia = hardware_utils.has_visible_nvidia_gpu() if nvidia is None else nvidia
    try:
        if found is None:
            import jax

            found = jax.devices
        there = found()
    except Exception as error:  # of whichever backend
        first = str(error).strip().splitlines()[0][:300]
        mend = "see that no other process holds the device: sudo lsof -w /dev/accel* /dev/vfio/* /dev/nvidia*"
        return Check("devices", WRONG, f"jax finds none ({first})", mend)
    shown = f"{len(there)} × {there[0].device_kind}"
    if there[0].platform != "cpu" or not (tpu_chips or nvidia):
        return Check("devices", OK, shown)
    has = f"{tpu_chips} TPU chips" if tpu_chips else "an NVIDIA GPU"
    if environment.get("JAX_PLATFORMS") == "cpu":
        return Check("devices", WARNING, f"{shown}, though there is {has}", "unset JAX_PLATFORMS")
    extra = "tpu" if tpu_chips else "cuda"
    return Check("devices", WRONG, f"{shown}, though there is {has}", f"pip install '{PACKAGE}[{extra}]'")


def check_device_memory(device: Any) -> Check:
    """Memory of one device; another process that holds a GPU's shows here."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return Check("device RAM", OK, "the host's" if device.platform == "cpu" else "not told by this device")
    limit, used = stats["bytes_limit"], stats.get("bytes_in_use", 0)
    found = f"{_gib(limit - used)} free of {_gib(limit)} that jax may use on each"
    if used > limit / 10:
        return Check(
            "device RAM", WARNING, found, "look for the process that holds it: nvidia-smi, or lsof /dev/accel*"
        )
    return Check("device RAM", OK, found)


def check_libtpu(tpu_chips: int, installed: Callable[[str], str] | None = None) -> Check:
    """The TPU's compiler and runtime: wanted on a TPU host, and by `electramed compile`."""
    installed = installed or importlib.metadata.version
    versions = {}
    for name in ("libtpu", "libtpu-nightly"):
        try:
            versions[name] = installed(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(versions) == 2:
        return Check("libtpu", WRONG, "both libtpu and libtpu-nightly are installed", "pip uninstall libtpu-nightly")
    if versions:
        return Check("libtpu", OK, " ".join(next(iter(versions.items()))))
    mend = f"pip install '{PACKAGE}[tpu]'"
    if tpu_chips:
        return Check("libtpu", WRONG, f"not installed, on a host of {tpu_chips} TPU chips", mend)
    return Check("libtpu", OK, f"not installed; only electramed compile would want it here: {mend}")


def check_memory(total: int | None = None, available: int | None = None, cores: int | None = os.cpu_count()) -> Check:
    """The host's; of a container, what it may use."""
    if total is None or available is None:
        total, available = _memory()
    found = f"{_gib(available)} free of {_gib(total)}, {cores} cores"
    if available < LITTLE_MEMORY:
        return Check("host RAM", WARNING, found, "end other processes, or run prepare and pack with --workers 1")
    return Check("host RAM", OK, found)


def _memory() -> tuple[int, int]:
    """(total, available) bytes; where the system does not tell what is available, the total."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = total
    if os.path.exists("/proc/meminfo"):
        lines = dict(line.split(":") for line in open("/proc/meminfo", encoding="ascii"))
        available = int(lines["MemAvailable"].split()[0]) * 1024
    limit = "/sys/fs/cgroup/memory.max"
    if os.path.exists(limit) and (text := open(limit, encoding="ascii").read().strip()).isdecimal():
        used = int(open("/sys/fs/cgroup/memory.current", encoding="ascii").read())
        total, available = min(total, int(text)), min(available, int(text) - used)
    return total, available


# ---- storage, processes, clocks --------------------------------------------------------------------------------------


def check_storage(folder: str) -> list[Check]:
    """Writes a small file into `folder`, reads it, compares its time with the clock here, and removes it."""
    path = files.join(folder, f".electramed-doctor-{uuid.uuid4().hex}")
    name = "storage"
    try:
        ours = files.local_path(folder) is not None and not files.exists(folder)
        began = time.time()
        files.write_text(path, path)
        try:
            if files.read_text(path) != path:
                return [
                    Check(name, WRONG, f"{folder}: gives back other bytes than were written", "use another storage")
                ]
            skew = files.modified(path) - began
        finally:
            files.remove(folder if ours else path)
    except UserError as error:
        found, _, mend = str(error).rpartition("; ")
        return [Check(name, WRONG, found or str(error), mend if found else "check the path and your rights to it")]
    return [_space(folder, time.time() - began), check_clock(skew, f"the clock of {folder}")]


def _space(folder: str, seconds: float) -> Check:
    found = f"{folder}: written, read and removed in {seconds * 1e3:.0f} ms"
    local = files.local_path(folder)
    if local is None:
        return Check("storage", OK, found)
    while not os.path.exists(local):
        local = os.path.dirname(local) or "."
    free = shutil.disk_usage(local).free
    found += f", {_gib(free)} free"
    if free < LITTLE_DISK:
        return Check("storage", WARNING, found, "free some, or lower config.max_to_keep")
    return Check("storage", OK, found)


def check_clock(skew: float, whose: str) -> Check:
    """`skew`: seconds that the other clock is ahead."""
    mend = "sudo timedatectl set-ntp true, or sudo chronyc makestep"
    way = "ahead of" if skew > 0 else "behind"
    found = f"{whose} is {abs(skew):.1f} s {way} this host's" if abs(skew) > 1 else f"{whose} agrees with this host's"
    if abs(skew) > CLOCK_LIMIT_SECONDS:
        return Check("clock", WRONG, f"{found}; signed requests will be refused", mend)
    return Check("clock", WARNING if abs(skew) > CLOCK_SECONDS else OK, found, mend * (abs(skew) > CLOCK_SECONDS))


def check_coordinator(environment: Mapping[str, str] = os.environ) -> Check:
    """Whether the first process's host answers, where variables name one; nothing needs to listen there yet."""
    address = environment.get(distributed.COORDINATOR_ADDRESS)
    if not address:
        return Check(
            "coordinator",
            OK,
            f"{distributed.COORDINATOR_ADDRESS} is not set: one process, or a cluster that jax detects",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return Check(
            "coordinator", WRONG, f"{address!r} is no address", f"export {distributed.COORDINATOR_ADDRESS}=HOST:PORT"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return Check("coordinator", OK, f"{host} answers; nothing listens on {port} yet")
    except socket.gaierror as error:
        mend = f"export {distributed.COORDINATOR_ADDRESS} with the address of the first process's host: hostname -I"
        return Check("coordinator", WRONG, f"{host}: no such host ({error.strerror})", mend)
    except OSError as error:
        mend = f"let the hosts reach each other: open TCP port {port} in the network's firewall"
        return Check("coordinator", WRONG, f"{address} does not answer ({error})", mend)
    return Check("coordinator", OK, f"{address} answers")


def check_processes(folder: str | None) -> list[Check]:
    """What only several processes can find out, each of them in here: that they find each other, share the folder,
    have clocks that agree and devices of one kind. To be called inside `distributed.joined`.
    """
    import jax

    count = jax.process_count()
    checks = [Check("processes", OK, f"{count} have found each other, {jax.device_count()} devices in all")]
    if folder is not None:
        try:
            distributed.check_shared(folder)
            checks.append(Check("shared", OK, f"{folder} is one folder for all of them"))
        except UserError as error:
            checks.append(Check("shared", WRONG, str(error)))
    distributed.barrier("clocks are read")
    day = 24 * 3600 * 1000
    clocks = distributed.allgather(int(time.time() * 1000) % day)
    skews = [((other - clocks[0] + day // 2) % day - day // 2) / 1000 for other in clocks]
    worst = max(range(count), key=lambda number: abs(skews[number]))
    return [*checks, check_clock(skews[worst], f"the clock of process {worst}, the farthest from process 0's,")]


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
