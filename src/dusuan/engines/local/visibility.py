"""Which environment variable tells a make's runtime which of its devices a process may use."""

from __future__ import annotations

from collections.abc import Sequence

from dusuan.engines.local.inventory import Found

# Runtimes of several makes present themselves as CUDA and read its variable too.
_VARIABLES: dict[str, tuple[str, ...]] = {
    "nvidia": ("CUDA_VISIBLE_DEVICES",),
    "amd": ("HIP_VISIBLE_DEVICES",),
    "huawei": ("ASCEND_RT_VISIBLE_DEVICES",),
    "cambricon": ("MLU_VISIBLE_DEVICES",),
    "kunlunxin": ("XPU_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),  # older and newer runtimes
    "hygon": ("HIP_VISIBLE_DEVICES",),
    "moore threads": ("MUSA_VISIBLE_DEVICES",),
    "metax": ("MACA_VISIBLE_DEVICES",),
    "enflame": ("TOPS_VISIBLE_DEVICES",),
    "iluvatar": ("CUDA_VISIBLE_DEVICES",),
    "biren": ("SUPA_VISIBLE_DEVICES",),
    "t-head": ("CUDA_VISIBLE_DEVICES",),
}


def visibility(placement: Sequence[Found]) -> dict[str, str]:
    """The variables for a placement; with no GPU in it, CUDA programs are to see none."""
    chips = [found for found in placement if found.device.kind != "cpu"]
    if not chips:
        return {"CUDA_VISIBLE_DEVICES": ""}
    # In ascending order: some runtimes (Ascend's) accept nothing else.
    ordered = sorted(chips, key=lambda found: found.device.index)
    value = ",".join(found.visible for found in ordered)
    names = _VARIABLES.get(chips[0].device.make.lower(), ("CUDA_VISIBLE_DEVICES",))
    variables = dict.fromkeys(names, value)
    if "CUDA_VISIBLE_DEVICES" in variables:
        # By default CUDA numbers the fastest device first; everything else numbers by bus.
        variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return variables
