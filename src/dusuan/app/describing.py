"""From a job file's description to a workload, and from the pool to the devices it may run on."""

from __future__ import annotations

import json as plain_json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

from dusuan.app import matching
from dusuan.app.context import Platform, Refused
from dusuan.core.catalog.accelerators import Accelerator, Catalogue, Figure
from dusuan.core.planning import grid
from dusuan.core.planning.grid import Models, Option
from dusuan.core.scheduling.model import Request
from dusuan.core.workload import description, estimate, gguf, safetensors, vision
from dusuan.core.workload.describe import Asked, Kind, Model, Work, describe
from dusuan.core.workload.flops import Finetune
from dusuan.core.workload.hfconfig import from_config
from dusuan.core.workload.jobspec import JobSpec, Problem, Resources, Workload
from dusuan.facts.library import library
from dusuan.store.rows import DeviceRow

HEADER_BYTES_MAX = 64 * 2**20
DISAGREE = 0.25  # relative: what a file's own count and `params` may differ by
WHAT_IF_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192)
_FILES = (".json", ".safetensors", ".gguf")


def work_of(platform: Platform, spec: JobSpec, upload_id: str | None) -> Work:
    """The workload that a job file describes. Raises `Refused` invalid, saying what is missing."""
    work = spec.workload
    model = None if work.model is None else _model(platform, work, upload_id)
    if isinstance(model, Problem):
        raise Refused("invalid", model)
    asked = _asked(work, model)
    found = asked if isinstance(asked, Problem) else describe(asked)
    if isinstance(found, Problem):
        raise Refused("invalid", found)
    return found


def _asked(work: Workload, model: Model | None) -> Asked | Problem:
    if model is not None and work.params is not None:
        total = model.params_total
        if abs(total / work.params - 1) > DISAGREE:
            words = f"{model.name} has {total:.3g} parameters, and `params` says {work.params:.3g}"
            return Problem("contradiction", words, remedy="leave out one of the two")
    amount = description.amount(work)
    if amount is None:
        return Problem("amount_missing", "the description does not say how much is computed")
    units = amount.units
    return Asked(
        model=model,
        params=None if model is not None else work.params,
        active_params=work.active_params,
        kind=Kind(work.kind),
        tokens=units if amount.unit == "tokens" else None,
        images=units if amount.unit == "images" else None,
        requests=units if amount.unit == "requests" else None,
        seq=work.seq_len,
        batch=work.batch,
        finetune=None if work.method is None else Finetune(work.method),
        rank=work.rank,
        prompt=work.prompt_tokens,
        output=work.output_tokens,
        precision=work.precision or "bf16",
    )


# --- the model ----------------------------------------------------------------------------------


def _model(platform: Platform, work: Workload, upload_id: str | None) -> Model | Problem:
    """A file of the work directory, or a name."""
    name = str(work.model)
    if PurePosixPath(name).suffix.lower() in _FILES:
        return _from_file(platform, name, upload_id)
    seen = vision.named(name, work.image_size)
    return library().models.find(name) if seen is None else seen


def _from_file(platform: Platform, name: str, upload_id: str | None) -> Model | Problem:
    if upload_id is None:
        words = f"`model: {name}` is a file, and the job has no workdir that could hold it"
        return Problem("no_such_file", words, remedy="add `workdir:`, or give a model's name")
    data = _member(platform.uploads / f"{upload_id}.tar.gz", name)
    if isinstance(data, Problem):
        return data
    read = _READERS[PurePosixPath(name).suffix.lower()]
    return read(data, PurePosixPath(name).stem)


def _member(archive: Path, name: str) -> bytes | Problem:
    """The beginning of one file of the work directory: headers are all that is read."""
    wanted = PurePosixPath(name)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.isfile() and PurePosixPath(member.name) == wanted:
                    file = tar.extractfile(member)
                    return b"" if file is None else file.read(HEADER_BYTES_MAX)
    except (OSError, tarfile.TarError, EOFError) as error:
        return Problem("unreadable_file", f"the work directory cannot be read: {error}")
    words = f"there is no file {name!r} in the workdir"
    return Problem("no_such_file", words, remedy="give its path relative to the workdir")


def _config(data: bytes, name: str) -> Model | Problem:
    try:
        document = plain_json.loads(data)
    except (ValueError, RecursionError) as error:
        return Problem("wrong_format", f"{name}.json is not JSON: {error}")
    if not isinstance(document, Mapping):
        return Problem("wrong_format", f"{name}.json holds no keys and values")
    return from_config(document, name)


_READERS: Mapping[str, Callable[[bytes, str], Model | Problem]] = {
    ".json": _config,
    ".safetensors": safetensors.from_safetensors,
    ".gguf": gguf.from_gguf,
}


# --- the devices ----------------------------------------------------------------------------------


@cache
def models() -> Models:
    """The fitted models that ship with the platform."""
    facts = library()
    return Models(estimate.Models(facts.runs, facts.serving, facts.power), facts.steps)


def options(
    resources: Resources,
    devices: Sequence[DeviceRow],
    sustained: Mapping[str, tuple[float, float, float]],
    *,
    known: Catalogue,
    what_if: bool,
) -> list[Option]:
    """Every device type of the pool, and with `what_if` of the catalogue besides.

    `sustained`: what devices of a model were seen to sustain on such work, by the model's name.
    `known`: the catalogue with the operator's figures in place.
    """
    usable = {d.model for d in matching.usable(resources, devices)}
    rows = {d.model: d for d in devices if d.model in usable}
    own = [_own(row, devices, resources, sustained.get(row.model), known) for row in rows.values()]
    if not what_if:
        return own
    names = {option.device.name for option in own}
    return own + [_could_have(d, resources) for d in known.devices if d.name not in names]


def _own(
    row: DeviceRow,
    devices: Sequence[DeviceRow],
    resources: Resources,
    sustained: tuple[float, float, float] | None,
    known: Catalogue,
) -> Option:
    """A model of the pool: what it was rated at here, and what the catalogue knows besides."""
    rating = matching.rating_of(row.model, devices)
    gflops = rating[0] if rating else 0
    most = matching.largest_gang(Request(1, row.kind, row.model), devices)
    counts = (resources.count,) if resources.count else _doubling(most)
    if row.kind == "cpu" and not resources.count:
        counts = (1,)  # nothing tells how other work than a probe scales over cores
    device = _accelerator(row, gflops, known)
    excluded = "" if sustained is not None else _unsized(row, device)
    return Option(device, row.kind, gflops, counts, True, sustained, excluded)


def _unsized(row: DeviceRow, device: Accelerator) -> str:
    if row.kind == "cpu":
        return (
            "unmeasured: what it sustains on such work is not known; the operator runs: "
            "dusuan calibrate --class train_step"
        )
    return grid.unquotable(device)


def _doubling(most: int) -> tuple[int, ...]:
    counts = {1 << i for i in range(most.bit_length()) if 1 << i <= most}
    return tuple(sorted(counts | {most}))


def _accelerator(row: DeviceRow, gflops: int, known: Catalogue) -> Accelerator:
    """The catalogue's entry for a device of the pool, or one made of what was measured here."""
    found = known.choose(f"{row.make} {row.model}") if row.kind != "cpu" else None
    if found is not None and not isinstance(found, Problem):
        return found.device
    said = {"bf16_tflops": gflops / 1_000}
    if row.memory_mib is not None:
        said["memory_gb"] = row.memory_mib / 1_024
    figures = {name: Figure(value, "calibration", "operator") for name, value in said.items()}
    return Accelerator(
        row.model, row.make, row.kind, None, "", (), figures, "operator", "calibration"
    )


def _could_have(device: Accelerator, resources: Resources) -> Option:
    """A card of the catalogue that the pool does not have."""
    excluded = grid.unquotable(device)
    wanted = (resources.device or "").lower()
    if resources.origin == "domestic" and device.origin != "domestic":
        excluded = f"origin: {device.make} is no domestic make, and the job asks for one"
    elif wanted not in ("", "gpu") and wanted not in device.name.lower():
        excluded = f"not named: the job asks for {resources.device}"
    counts = (resources.count,) if resources.count else WHAT_IF_COUNTS
    return Option(device, "gpu", device.rating_gflops or 1, counts, False, None, excluded)
