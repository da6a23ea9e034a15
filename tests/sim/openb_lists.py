"""Small lists in the format `openb`, and where the public ones are, if they are."""

from __future__ import annotations

import os
from pathlib import Path

NODE_HEAD = "sn,cpu_milli,memory_mib,gpu,model\n"
POD_HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\n"


def nodes(folder: Path, rows: str = "n0,64000,262144,4,A\nn1,32000,262144,2,B\n") -> Path:
    path = folder / "nodes.csv"
    path.write_text(NODE_HEAD + rows, "utf-8")
    return path


def pods(folder: Path, rows: str = "p0,8000,1024,1,1000,\np1,4000,1024,1,470,A|B\n") -> Path:
    path = folder / "pods.csv"
    path.write_text(POD_HEAD + rows, "utf-8")
    return path


def shared_traces() -> Path | None:
    """The folder of public traces: from `DUSUAN_SHARED`, or beside the checkout."""
    beside = Path(__file__).parents[2].parent / "shared"
    folder = Path(os.environ.get("DUSUAN_SHARED", beside)) / "traces"
    return folder if folder.is_dir() else None
