"""Job file text to a checked YAML tree: every node keeps its line, nothing is constructed.

Only the safe loader is used, and only to compose nodes: no tag makes an object. Aliases are
refused outright, so no text can grow in memory, and so are deep nesting and a flood of nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from dusuan.core.workload.jobspec import Problem

TEXT_BYTES_MAX = 1 << 20
DEPTH_MAX = 32
EVENTS_MAX = 50_000

# libyaml where the wheel has it: about ten times faster, the same safe schema.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE = "tag:yaml.org,2002:"
_TAGS = {None, "!"} | {
    _CORE + name for name in ("str", "int", "float", "bool", "null", "map", "seq")
}
# What YAML 1.1 allows in a stream, less the byte order mark inside it. Lone surrogates are out.
_BAD_CHARACTER = re.compile(
    "[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
_BAD_IN_VALUE = re.compile("[\x00\ud800-\udfff]")


def text_problem(text: str) -> Problem | None:
    """Why `text` cannot be any kind of job file: too large, or characters no text file holds."""
    if len(text) > TEXT_BYTES_MAX or len(text.encode("utf-8", "surrogatepass")) > TEXT_BYTES_MAX:
        return Problem(
            "too_large",
            f"the job file is larger than {TEXT_BYTES_MAX} bytes",
            remedy="put data and code into the work directory",
        )
    bad = _BAD_CHARACTER.search(text)
    if bad is None:
        return None
    return Problem(
        "bad_character",
        f"the character U+{ord(bad.group()):04X} cannot stand in a job file",
        line=text.count("\n", 0, bad.start()) + 1,
        remedy="save the file as plain UTF-8 text",
    )


def compose_mapping(text: str) -> MappingNode | Problem:
    """The one mapping that `text` holds, with unique string keys at every level."""
    try:
        problem = _stream_problem(text)
        root = None if problem else yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        return _syntax_problem(error)
    if problem is not None:
        return problem
    if not isinstance(root, MappingNode):
        return _not_a_mapping(root)
    return next(_key_problems(root), None) or root


def line_of(node: Node) -> int:
    """The 1-based line on which `node` begins."""
    return _mark_line(node.start_mark) or 1


def _mark_line(mark: Any) -> int | None:
    return None if mark is None else int(mark.line) + 1


def is_null(node: Node) -> bool:
    """Whether the value was left out (`key:`) or is null."""
    return isinstance(node, ScalarNode) and node.tag == _CORE + "null"


def is_text(node: Node) -> bool:
    """Whether YAML reads the node as a string."""
    return isinstance(node, ScalarNode) and node.tag == _CORE + "str"


def is_bool(node: Node) -> bool:
    """Whether YAML reads the node as a boolean."""
    return isinstance(node, ScalarNode) and node.tag == _CORE + "bool"


def is_plain(node: Node) -> bool:
    """Whether the node is a scalar without quotes."""
    return isinstance(node, ScalarNode) and not node.style


def describe(node: Node) -> str:
    """What stands there, in words, for "expected ..., got ..."."""
    if isinstance(node, SequenceNode):
        return "a list"
    if isinstance(node, MappingNode):
        return "a mapping"
    if is_null(node):
        return "nothing"
    kind = str(node.tag).removeprefix(_CORE)
    names = {"str": "the text", "bool": "the boolean", "int": "the number", "float": "the number"}
    return f"{names.get(kind, 'the ' + kind)} {shown(node.value)}"


def shown(value: str) -> str:
    """`value` quoted and shortened for a message."""
    return repr(value if len(value) <= 60 else value[:57] + "...")


def _stream_problem(text: str) -> Problem | None:
    """Walk the events, which needs no stack, before anything recursive sees the text."""
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        documents += isinstance(event, yaml.DocumentStartEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        problem = _event_problem(event, documents, depth, count)
        if problem is not None:
            code, words, remedy = problem
            return Problem(code, words, _mark_line(event.start_mark), remedy)
    return None


def _event_problem(
    event: yaml.Event, documents: int, depth: int, count: int
) -> tuple[str, str, str] | None:
    if documents > 1:
        return "many_documents", "a job file holds one document", "put each job in its own file"
    if isinstance(event, yaml.AliasEvent):
        return "alias", f"the alias *{event.anchor} is not accepted", "write the value out"
    if depth > DEPTH_MAX:
        return "too_deep", f"nested more than {DEPTH_MAX} levels", "flatten the file"
    if count > EVENTS_MAX:
        return "too_large", f"more than {EVENTS_MAX} YAML events", "move data out of the job file"
    tag = getattr(event, "tag", None)
    if tag not in _TAGS:
        return "bad_tag", f"the tag {shown(str(tag))} is not accepted", "remove the tag"
    if isinstance(event, yaml.ScalarEvent) and _BAD_IN_VALUE.search(event.value):
        return "bad_character", "a value holds a NUL or half a character", "remove the escape"
    return None


def _syntax_problem(error: yaml.YAMLError) -> Problem:
    words = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    mark = getattr(error, "problem_mark", None)
    if mark is None or "end of stream" in words:  # then the fault is where the open piece began
        mark = getattr(error, "context_mark", None) or mark
    return Problem(
        "bad_yaml",
        f"not valid YAML: {words}",
        line=_mark_line(mark),
        remedy="check indentation, quotes and brackets around this line",
    )


def _not_a_mapping(root: Node | None) -> Problem:
    if root is None:
        return Problem("empty", "the job file is empty", remedy="give at least `run:`")
    return Problem(
        "not_a_mapping",
        f"expected keys and values, got {describe(root)}",
        line_of(root),
        "write `run: COMMAND`",
    )


def _key_problems(node: Node) -> Iterator[Problem]:
    """Problems with the keys of `node` and of everything below it."""
    if isinstance(node, SequenceNode):
        for child in node.value:
            yield from _key_problems(child)
    if isinstance(node, MappingNode):
        first_line: dict[str, int] = {}
        for key, value in node.value:
            yield from _one_key(key, first_line)
            yield from _key_problems(value)


def _one_key(key: Node, first_line: dict[str, int]) -> Iterator[Problem]:
    line = line_of(key)
    if not is_text(key):
        yield Problem("key_not_text", f"a key must be text, got {describe(key)}", line, "quote it")
    elif key.value in first_line:
        words = f"{shown(key.value)} was already given on line {first_line[key.value]}"
        yield Problem("duplicate_key", words, line, "keep one of the two")
    else:
        first_line[key.value] = line
