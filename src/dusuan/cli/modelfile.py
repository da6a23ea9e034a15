"""Finds the model that `--model` means: a file on disk, or a name.

Only headers are read of files with weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from dusuan.core.workload import gguf, safetensors, vision
from dusuan.core.workload.architecture import Architecture
from dusuan.core.workload.describe import Model
from dusuan.core.workload.hfconfig import from_config
from dusuan.core.workload.jobspec import Problem
from dusuan.facts import models

GGUF_READ_MAX = 64 * 2**20  # its vocabulary is in the header
CONFIG_MAX = 16 * 2**20


def load(text: str, side: int | None = None) -> Model | Problem:
    """The model that `text` names: config.json, a safetensors or GGUF file, a folder, or a name."""
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return _folder(path)
        if path.is_file():
            return _file(path)
    except OSError as error:
        words = f"{path} cannot be read: {error.strerror or error}"
        return Problem("unreadable_file", words, remedy="check its path and rights")
    if path.suffix in _READERS:
        words = f"there is no file {text}"
        return Problem("no_such_file", words, remedy="check its path, or give a model's name")
    seen = vision.named(text, side)
    return models().find(text) if seen is None else seen


def _folder(path: Path) -> Architecture | Problem:
    config = path / "config.json"
    if config.is_file():
        return _config(config)
    words = f"there is no config.json in {path}"
    return Problem("no_such_file", words, remedy="name the file with the model's config or weights")


def _file(path: Path) -> Architecture | Problem:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        words = f"{path.name} is none of config.json, .safetensors and .gguf"
        return Problem("wrong_format", words, remedy="give one of these, or a model's name")
    return reader(path)


def _config(path: Path) -> Architecture | Problem:
    if path.stat().st_size > CONFIG_MAX:
        words = f"{path.name} is too large for a config.json"
        return Problem("wrong_format", words, remedy="give the model's config.json")
    try:
        document = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        words = f"{path.name} is not JSON: {error}"
        return Problem("wrong_format", words, remedy="give the model's config.json")
    if not isinstance(document, Mapping):
        words = f"{path.name} holds no keys and values"
        return Problem("wrong_format", words, remedy="give the model's config.json")
    return from_config(document, path.parent.name if path.name == "config.json" else path.stem)


def _safetensors(path: Path) -> Architecture | Problem:
    with path.open("rb") as file:
        first = file.read(safetensors.LENGTH_BYTES)
        length = safetensors.header_length(first)
        if isinstance(length, Problem):
            return length
        return safetensors.from_safetensors(first + file.read(length), path.stem)


def _gguf(path: Path) -> Architecture | Problem:
    with path.open("rb") as file:
        return gguf.from_gguf(file.read(GGUF_READ_MAX), path.stem)


_READERS: Mapping[str, Callable[[Path], Architecture | Problem]] = {
    ".json": _config,
    ".safetensors": _safetensors,
    ".gguf": _gguf,
}
