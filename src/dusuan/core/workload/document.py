"""A `JobSpec` as a JSON document and back, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dusuan.core.workload.jobspec import Checkpoint, Goal, JobSpec, Progress, Resources, Workload


def to_document(spec: JobSpec) -> dict[str, Any]:
    """`spec` as values that JSON holds exactly: `from_document(to_document(spec)) == spec`."""
    document = asdict(replace(spec, envs=dict(spec.envs)))
    document["argv"] = None if spec.argv is None else list(spec.argv)
    return document


def from_document(document: Mapping[str, Any]) -> JobSpec:
    """The `JobSpec` that `to_document` wrote.

    Keys that are missing take their defaults, so documents stored before a field existed can
    still be read. Raises `TypeError` for a key that no `JobSpec` has.
    """
    fields = dict(document)
    argv, checkpoint = fields.pop("argv", None), fields.pop("checkpoint", None)
    progress = fields.pop("progress", None)
    return JobSpec(
        argv=None if argv is None else tuple(argv),
        envs=dict(fields.pop("envs", None) or {}),
        resources=Resources(**(fields.pop("resources", None) or {})),
        workload=Workload(**(fields.pop("workload", None) or {})),
        goal=Goal(**(fields.pop("goal", None) or {})),
        checkpoint=None if checkpoint is None else Checkpoint(**checkpoint),
        progress=None if progress is None else Progress(**progress),
        **fields,
    )
