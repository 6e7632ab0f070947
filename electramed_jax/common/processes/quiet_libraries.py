"""Keeps libtpu and TensorFlow from printing errors about devices that this machine does not have.

Imported at start-up; imports nothing slow.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import pathlib
from collections.abc import MutableMapping

GOOGLE_VENDOR, NETWORK_CARD = "0x1ae0", "0x0042"  # PCI ids; the second is gVNIC, in machines without a TPU too
NVIDIA_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")


def quiet_libraries(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets environment variables for libraries that this process has not imported yet; the user's values are kept.

    If libtpu is installed on a machine without a TPU, jax would start it, and libtpu prints four lines of errors: jax
    then gets JAX_PLATFORMS=cpu, unless there is a GPU. `electramed doctor` prints this.
    """
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings about the CPU and missing CUDA libraries
    if skips_libtpu():
        environment.setdefault("JAX_PLATFORMS", "cpu")


def skips_libtpu() -> bool:
    """Returns whether libtpu is installed although this machine has neither a TPU nor a GPU."""
    if importlib.util.find_spec("libtpu") is None or any(map(os.path.exists, NVIDIA_DEVICES)):
        return False
    return not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*") or _has_tpu_on_pci())


def _has_tpu_on_pci() -> bool:
    for vendor in glob.glob("/sys/bus/pci/devices/*/vendor"):
        device = pathlib.Path(vendor).with_name("device")
        if pathlib.Path(vendor).read_text().strip() == GOOGLE_VENDOR and device.read_text().strip() != NETWORK_CARD:
            return True
    return False
