"""Checks of the environment of a run, for `electramed doctor`. Each check names the command that fixes its finding."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from electramed_jax.common.errors import UserError, first_line
from electramed_jax.common.processes import distributed
from electramed_jax.common.processes.quiet_libraries import skips_libtpu
from electramed_jax.common.storage import files

OK, WARNING, WRONG = "ok", "warning", "wrong"
PACKAGE = "electramed_jax"

LITTLE_MEMORY = 4 * 2**30  # bytes; a packing process and a training host need about as much
LITTLE_DISK = 10 * 2**30  # bytes; a checkpoint of ELECTRA-Base with its moments is 1.5 GB, and several are kept
CLOCK_SECONDS = 5.0  # difference of two clocks above which logs of several hosts are hard to read
CLOCK_LIMIT_SECONDS = 300.0  # difference above which storage rejects signed requests
CONNECT_SECONDS = 5.0  # timeout of a connection to the coordinator


@dataclasses.dataclass(frozen=True)
class Check:
    """Result of one check.

    Attributes:
      name: subject of the check, such as "packages".
      state: OK, WARNING or WRONG.
      detail: the observation.
      fix: command or action that resolves it; empty if none is needed.
    """

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
    """Checks that Python is 3.11 or newer."""
    detail = f"{'.'.join(map(str, version))} on {system}"
    if version >= (3, 11):
        return Check("python", OK, detail)
    return Check("python", WRONG, detail, "3.11 or newer is wanted: python3.11 -m venv ENV, and install there")


def check_packages(requirements: Iterable[str] | None = None, installed: Callable[[str], str] | None = None) -> Check:
    """Checks that the installed packages are within the version ranges of this package, without its extras.

    Args:
      requirements: requirement strings; None reads those of this package.
      installed: returns the version of an installed package; None uses `importlib.metadata.version`.
    """
    from packaging.requirements import Requirement

    installed = installed or importlib.metadata.version
    if requirements is None:
        try:
            requirements = importlib.metadata.requires(PACKAGE) or []
        except importlib.metadata.PackageNotFoundError:
            return Check(
                "packages", WARNING, f"{PACKAGE} itself is not installed", "pip install -e . in the folder of setup.py"
            )
    wanted = [Requirement(text) for text in requirements]
    unmet, versions = [], {}
    for requirement in wanted:
        if requirement.marker is not None:  # of an extra
            continue
        try:
            version = versions[requirement.name] = installed(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            unmet.append((requirement, "missing"))
        else:
            if not requirement.specifier.contains(version, prereleases=True):
                unmet.append((requirement, version))
    if unmet:
        detail = ", ".join(f"{one.name} {version} (wanted {one.specifier})" for one, version in unmet)
        return Check("packages", WRONG, detail, "pip install " + " ".join(f"'{one}'" for one, _ in unmet))
    shown = [f"{name} {versions[name]}" for name in ("jax", "flax", "optax", "orbax-checkpoint") if name in versions]
    return Check("packages", OK, ", ".join(shown or [f"{len(versions)} as wanted"]))


def check_jaxlib(installed: Callable[[str], str] | None = None) -> Check:
    """Checks that jax and jaxlib have the same version; an older jaxlib may load, and fail later."""
    installed = installed or importlib.metadata.version
    jax, jaxlib = installed("jax"), installed("jaxlib")
    if jax == jaxlib:
        return Check("jaxlib", OK, jaxlib)
    return Check("jaxlib", WRONG, f"{jaxlib} with jax {jax}", f"pip install 'jax=={jax}' 'jaxlib=={jax}'")


# ---- the machine -----------------------------------------------------------------------------------------------------


def check_devices(
    list_devices: Callable[[], list[Any]] | None = None,
    *,
    tpu_chips: int | None = None,
    nvidia: bool | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Check:
    """Checks that jax uses the accelerator of the machine, if there is one.

    Args:
      list_devices: returns the devices of jax; None uses `jax.devices`.
      tpu_chips: number of TPU chips in the machine; None detects it.
      nvidia: whether the machine has an NVIDIA GPU; None detects it.
      environment: environment variables.
    """
    if tpu_chips is None or nvidia is None:
        from jax._src import hardware_utils

        tpu_chips = hardware_utils.num_available_tpu_chips_and_device_id()[0] if tpu_chips is None else tpu_chips
        nvidia = hardware_utils.has_visible_nvidia_gpu() if nvidia is None else nvidia
    try:
        if list_devices is None:
            import jax

            list_devices = jax.devices
        devices = list_devices()
    except Exception as error:  # noqa: BLE001 each backend raises its own
        fix = "check that no other process uses the device: sudo lsof -w /dev/accel* /dev/vfio/* /dev/nvidia*"
        return Check("devices", WRONG, f"jax finds none ({first_line(error, 300)})", fix)
    detail = f"{len(devices)} × {devices[0].device_kind}"
    if devices[0].platform != "cpu" or not (tpu_chips or nvidia):
        return Check("devices", OK, detail)
    detail += f", but the machine has {f'{tpu_chips} TPU chips' if tpu_chips else 'an NVIDIA GPU'}"
    if environment.get("JAX_PLATFORMS") == "cpu":
        return Check("devices", WARNING, detail, "unset JAX_PLATFORMS")
    extra = "tpu" if tpu_chips else "cuda"
    return Check("devices", WRONG, detail, f"pip install '{PACKAGE}[{extra}]'")


def check_device_memory(device: Any) -> Check:
    """Checks the free memory of one device, which is low if another process uses a GPU."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return Check("device RAM", OK, "the host's" if device.platform == "cpu" else "not reported by this device")
    limit, used = stats["bytes_limit"], stats.get("bytes_in_use", 0)
    detail = f"{_gib(limit - used)} free of {_gib(limit)} that jax may use on each"
    if used > limit / 10:
        return Check("device RAM", WARNING, detail, "find the process that uses it: nvidia-smi, or lsof /dev/accel*")
    return Check("device RAM", OK, detail)


def check_libtpu(tpu_chips: int, installed: Callable[[str], str] | None = None) -> Check:
    """Checks for libtpu, the compiler and runtime of TPUs: required on a TPU host and by `electramed compile`."""
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
        unused = "; no TPU here, so jax is started with JAX_PLATFORMS=cpu" if skips_libtpu() else ""
        return Check("libtpu", OK, " ".join(next(iter(versions.items()))) + unused)
    fix = f"pip install '{PACKAGE}[tpu]'"
    if tpu_chips:
        return Check("libtpu", WRONG, f"not installed, on a host of {tpu_chips} TPU chips", fix)
    return Check("libtpu", OK, f"not installed; only electramed compile needs it here: {fix}")


def check_memory(total: int | None = None, available: int | None = None, cores: int | None = os.cpu_count()) -> Check:
    """Checks the free memory of the host, or of the container.

    Args:
      total: bytes; None reads it from the system.
      available: bytes; None reads it from the system.
      cores: number of CPU cores.
    """
    if total is None or available is None:
        total, available = _read_memory()
    detail = f"{_gib(available)} free of {_gib(total)}, {cores} cores"
    if available < LITTLE_MEMORY:
        return Check("host RAM", WARNING, detail, "end other processes, or run prepare and pack with --workers 1")
    return Check("host RAM", OK, detail)


def _read_memory() -> tuple[int, int]:
    """Returns (total, available) bytes; the total twice if the system does not report the available memory."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = total
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():
        values = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        available = int(values["MemAvailable"].split()[0]) * 1024
    limit = pathlib.Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text(encoding="ascii").strip()).isdecimal():
        used = int(limit.with_name("memory.current").read_text(encoding="ascii"))
        total, available = min(total, int(text)), min(available, int(text) - used)
    return total, available


# ---- storage, processes, clocks --------------------------------------------------------------------------------------


def check_storage(folder: str) -> list[Check]:
    """Checks that a folder can be written to, and that its clock agrees with this host's.

    Writes a small file, reads it, compares its modification time with the clock, and removes it.
    """
    path = files.join(folder, f".electramed-doctor-{uuid.uuid4().hex}")
    name = "storage"
    try:
        is_new = files.local_path(folder) is not None and not files.exists(folder)
        began = time.time()
        files.write_text(path, path)
        try:
            if files.read_text(path) != path:
                detail = f"{folder}: the bytes that were read differ from those that were written"
                return [Check(name, WRONG, detail, "use another storage")]
            skew = files.modified(path) - began
        finally:
            files.remove(folder if is_new else path)
    except UserError as error:
        detail, _, fix = str(error).rpartition("; ")
        return [Check(name, WRONG, detail or str(error), fix if detail else "check the path and its permissions")]
    return [_check_space(folder, time.time() - began), check_clock(skew, f"the clock of {folder}")]


def _check_space(folder: str, seconds: float) -> Check:
    detail = f"{folder}: written, read and removed in {seconds * 1e3:.0f} ms"
    local = files.local_path(folder)
    if local is None:
        return Check("storage", OK, detail)
    while not os.path.exists(local):
        local = os.path.dirname(local) or "."
    free = shutil.disk_usage(local).free
    detail += f", {_gib(free)} free"
    if free < LITTLE_DISK:
        return Check("storage", WARNING, detail, "free some space, or lower config.max_to_keep")
    return Check("storage", OK, detail)


def check_clock(skew: float, other: str) -> Check:
    """Checks that another clock agrees with this host's.

    Args:
      skew: seconds by which the other clock is ahead.
      other: subject of the message, such as "the clock of process 1".
    """
    fix = "sudo timedatectl set-ntp true, or sudo chronyc makestep"
    way = "ahead of" if skew > 0 else "behind"
    detail = f"{other} is {abs(skew):.1f} s {way} this host's" if abs(skew) > 1 else f"{other} agrees with this host's"
    if abs(skew) > CLOCK_LIMIT_SECONDS:
        return Check("clock", WRONG, f"{detail}; storage will reject signed requests", fix)
    if abs(skew) > CLOCK_SECONDS:
        return Check("clock", WARNING, detail, fix)
    return Check("clock", OK, detail)


def check_coordinator(environment: Mapping[str, str] = os.environ) -> Check:
    """Checks that the host of the coordinator answers, if a variable names one; its port need not be open yet."""
    name, variable = "coordinator", distributed.COORDINATOR_ADDRESS
    address = environment.get(variable)
    if not address:
        return Check(name, OK, f"{variable} is not set: one process, or a cluster that jax detects")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return Check(name, WRONG, f"{address!r} is not an address", f"export {variable}=HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return Check(name, OK, f"{host} answers; nothing listens on {port} yet")
    except socket.gaierror as error:
        fix = f"export {variable} with the address of the first process's host: hostname -I"
        return Check(name, WRONG, f"{host}: no such host ({error.strerror})", fix)
    except OSError as error:
        fix = f"make the hosts reachable for each other: open TCP port {port} in the firewall of the network"
        return Check(name, WRONG, f"{address} does not answer ({error})", fix)
    return Check(name, OK, f"{address} answers")


def check_processes(folder: str | None, fields: Mapping[str, Any]) -> list[Check]:
    """Checks several processes together: they agree, share a folder, and have clocks that agree.

    Must be called in every process, inside `distributed.distributed_context`.

    Args:
      folder: workdir of a run; None: not checked.
      fields: what they must agree on, by name; see `agreement.check_agreement`.
    """
    import jax

    from electramed_jax.common.processes import agreement

    count = jax.process_count()
    checks = [Check("processes", OK, f"{count} found each other, {jax.device_count()} devices in total")]
    fix = "make the hosts equal: the same command, code, packages and data; sudo timedatectl set-ntp true"
    if differences := agreement.find_differences(fields):  # collectives may not work
        return [*checks, *(Check("agreement", WRONG, str(one), fix) for one in differences)]
    checks.append(Check("agreement", OK, f"{len(fields)} settings, versions, data and devices are equal"))
    if folder is not None:
        try:
            distributed.check_shared(folder)
            checks.append(Check("shared", OK, f"all processes see the same folder {folder}"))
        except UserError as error:
            checks.append(Check("shared", WRONG, str(error)))
    distributed.barrier("clocks are read")
    day = 24 * 3600 * 1000
    clocks = distributed.allgather(int(time.time() * 1000) % day)
    skews = [((other - clocks[0] + day // 2) % day - day // 2) / 1000 for other in clocks]
    worst = max(range(count), key=lambda process: abs(skews[process]))
    return [
        *checks,
        check_clock(skews[worst], f"the clock of process {worst}, the one that differs most from process 0,"),
    ]


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
