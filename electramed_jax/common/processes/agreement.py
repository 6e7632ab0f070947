"""Comparison of the processes of a run before its first step: settings, versions, data, devices and clocks.

Processes that differ would train different replicas of the model without an error, or wait for each other for ever. The
comparison uses the key-value store of jax's coordination service: collectives need equal programs and devices.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

import electramed_jax
from electramed_jax.common.errors import UserError
from electramed_jax.common.processes import distributed
from electramed_jax.common.versions import code_commit, package_versions

# Difference of a clock from that of process 0 above which a run does not start. Locks of a workdir expire after 75
# seconds by the clock of the storage, and the logs of the hosts are compared by time. NTP keeps milliseconds.
MAX_CLOCK_SECONDS = 60.0
TIMEOUT_SECONDS = 600  # of a process that waits for the slowest; each opens its dataset before
MAX_DIFFERENCES = 3  # of one process that are named
MAX_VALUE_CHARS = 80
CLOCK = "clock"


class Difference(NamedTuple):
    """A field in which a process differs from process 0.

    Attributes:
      process: its number.
      host: its host name.
      field: name, such as "config.batch_size" or "jax".
      got: value in the process.
      wanted: value in process 0.
      main_host: host name of process 0.
    """

    process: int
    host: str
    field: str
    got: str
    wanted: str
    main_host: str

    def __str__(self) -> str:
        process, main = f"process {self.process} ({self.host})", f"process 0 ({self.main_host})"
        if self.field == CLOCK:
            return f"{process}: the clock is {self.got} that of {main}; wanted {self.wanted}"
        return f"{process}: {self.field} is {self.got}; wanted {self.wanted}, as in {main}"


def environment_fields() -> dict[str, Any]:
    """Returns the versions of packages and code, and the devices of this process, by name."""
    commit = code_commit()
    return {name.replace("-", "_"): version for name, version in package_versions().items()} | {
        electramed_jax.__name__: electramed_jax.__version__ + (f" ({commit})" if commit else ""),
        "device kind": jax.local_devices()[0].device_kind,
        "local device count": jax.local_device_count(),
    }


def check_agreement(fields: Mapping[str, Any]) -> None:
    """Checks that all processes have the fields and the clock of process 0. All processes must call it.

    Args:
      fields: values of this process by name; they are compared as JSON.

    Raises:
      UserError: in every process, with the host, the field, and both values.
    """
    if differences := find_differences(fields):
        first, *others = differences
        more = f" ({len(others)} more: {', '.join(f'{one.field} of process {one.process}' for one in others)})"
        raise UserError(
            f"{first}{more if others else ''}; start all processes with the same command, code and environment"
        )


def find_differences(fields: Mapping[str, Any]) -> list[Difference]:
    """Returns, in every process alike, at most `MAX_DIFFERENCES` of each process that differs from process 0.

    Args:
      fields: values of this process by name, which JSON can hold.
    """
    count, number = jax.process_count(), jax.process_index()
    if count == 1:
        return []
    client, folder, host = distributed.coordination_client(), "electramed/agreement", socket.gethostname()
    timeout = TIMEOUT_SECONDS * 1000
    values = {name: json.dumps(value, sort_keys=True) for name, value in fields.items()}
    round_number = client.key_value_increment(f"{folder}/calls/{number}", 1)  # the same in all processes
    folder = f"{folder}/{round_number}"
    client.wait_at_barrier(f"{folder}/clock", timeout)  # released in all processes at once, up to the network's delay
    clock = time.time()
    if number == 0:
        client.key_value_set(f"{folder}/main", json.dumps([host, clock, values]))
    else:
        main_host, main_clock, wanted = json.loads(client.blocking_key_value_get(f"{folder}/main", timeout))
        different = _compare(values, wanted)
        if (skew := clock - main_clock) and abs(skew) > MAX_CLOCK_SECONDS:
            way = "ahead of" if skew > 0 else "behind"
            different.append((CLOCK, f"{abs(skew):.0f} s {way}", f"at most {MAX_CLOCK_SECONDS:g} s"))
        if different:
            lines = [Difference(number, host, *each, main_host) for each in different[:MAX_DIFFERENCES]]
            client.key_value_set(f"{folder}/differences/{number}", json.dumps(lines))
    client.wait_at_barrier(f"{folder}/compared", timeout)
    entries = {int(key.rpartition("/")[2]): value for key, value in client.key_value_dir_get(f"{folder}/differences/")}
    return [Difference(*each) for _, text in sorted(entries.items()) for each in json.loads(text)]


def _compare(values: Mapping[str, str], wanted: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Returns (field, got, wanted) of each difference, in the order of the fields."""
    names: Sequence[str] = [*wanted, *(name for name in values if name not in wanted)]
    pairs = [(name, values.get(name, "missing"), wanted.get(name, "missing")) for name in names]
    return [(name, _shorten(got), _shorten(want)) for name, got, want in pairs if got != want]


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
