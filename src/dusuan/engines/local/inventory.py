"""What this host has: NVIDIA devices through NVML, else the cores this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dusuan.engines.base import Device

_CPU_MAKES = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "Zhaoxin",
    "  Shanghai  ": "Zhaoxin",
    "0x41": "Arm",
    "0x48": "Huawei",
    "0x70": "Phytium",
    "0xc0": "Ampere",
}
# What every process of the NVIDIA runtime opens, whichever card it uses.
_NVIDIA_SHARED = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
)


@dataclass(frozen=True, slots=True)
class Found:
    """A device and how it is reached: its name for the make's runtime, and its device files."""

    device: Device
    visible: str
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """Make and model of a processor as the customer reads them."""

    make: str
    model: str


def discover(node: str) -> tuple[Found, ...]:
    """The devices of this host, in a stable order; `node` is the host's name in the pool."""
    return nvidia_devices(node) or cpu_devices(
        node,
        os.sched_getaffinity(0),
        Path("/proc/cpuinfo").read_text(errors="replace"),
        Path("/proc/meminfo").read_text(),
    )


def cpu_devices(node: str, cores: Iterable[int], cpuinfo: str, meminfo: str) -> tuple[Found, ...]:
    """One device per core; each is given an equal share of the host's memory."""
    indexes = sorted(cores)
    facts = parse_cpuinfo(cpuinfo)
    memory_mib = parse_memory_mib(meminfo)
    share_mib = None if memory_mib is None else memory_mib // max(1, len(indexes))
    return tuple(
        Found(
            Device(f"cpu:{index}", node, facts.make, facts.model, "cpu", index, share_mib),
            visible=str(index),
        )
        for index in indexes
    )


def parse_cpuinfo(text: str) -> CpuFacts:
    """Make and model from the text of /proc/cpuinfo (x86 and Arm); "unknown" when not there."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value[1:] if value.startswith(" ") else value)
    vendor = fields.get("vendor_id", fields.get("CPU implementer", "")).rstrip("\n")
    make = _CPU_MAKES.get(vendor) or _CPU_MAKES.get(vendor.strip()) or vendor.strip() or "unknown"
    model = fields.get("model name") or fields.get("Model Name") or fields.get("Hardware") or ""
    return CpuFacts(make, model.strip() or "unknown")


def parse_memory_mib(meminfo: str) -> int | None:
    """MemTotal from the text of /proc/meminfo, in MiB."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def nvidia_devices(node: str) -> tuple[Found, ...]:
    """NVIDIA devices in bus order; none when there is no driver."""
    try:
        import pynvml  # loads the driver's library, so only where devices are asked for
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_nvidia(pynvml, node, index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def _nvidia(nvml: Any, node: str, index: int) -> Found:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory_mib = int(nvml.nvmlDeviceGetMemoryInfo(handle).total) // (1 << 20)
    model = nvidia_model(_text(nvml.nvmlDeviceGetName(handle)))
    minor = int(nvml.nvmlDeviceGetMinorNumber(handle))
    return Found(
        Device(f"gpu:{index}", node, "NVIDIA", model, "gpu", index, memory_mib),
        # By UUID: a sandbox that shows one card renumbers it, and an index would miss it.
        visible=_text(nvml.nvmlDeviceGetUUID(handle)),
        paths=(f"/dev/nvidia{minor}", *_NVIDIA_SHARED),
    )


def nvidia_model(name: str) -> str:
    """The card's name without its maker's: "NVIDIA H100 80GB HBM3" -> "H100 80GB HBM3"."""
    return name.removeprefix("NVIDIA ").strip()


def _text(value: Any) -> str:
    """NVML answers bytes or text, by its version."""
    return value.decode() if isinstance(value, bytes) else str(value)
