"""Change one sign at a time in the rules and see whether a test notices: `make mutants`.

Each mutant is one operator, comparison, min/max or small constant changed in `core/ledger`,
`core/metering` or `core/units.py`, in a copy of the sources; the core's tests run against the
copy. Prints every mutant that survives, and exits 1 if there is one that is not listed as
equivalent (it changes nothing that can be observed) with its reason.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = ("core/ledger", "core/metering", "core/units.py")
TESTS = ("test_units.py", "test_metering.py", "test_ledger.py")

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.USub: ast.UAdd,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Not: ast.UAdd,
}

# file:line text -> why no test can see the change.
EQUIVALENT = {
    "balances.py: if limit is not None and limit < most:": "at equality both give the same",
    "lots.py: if lot.expires_ms is None or lot.expires_ms > now_ms or most <= 0:": (
        "of nothing, nothing is taken"
    ),
    'usage.py: kind = "gap" if interval.from_ms > end_ms else "overlap"': (
        "reached only where the two differ"
    ),
}


def sites(tree: ast.AST) -> Iterator[tuple[ast.AST, str, int | None]]:
    """Every place to change: (node, attribute, index in it)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.UnaryOp | ast.BoolOp | ast.AugAssign):
            yield node, "op", None
        elif isinstance(node, ast.Compare):
            for i in range(len(node.ops)):
                yield node, "ops", i
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("min", "max"):
            yield node, "func", None


def mutate(node: ast.AST, attribute: str, index: int | None) -> bool:
    """Change one place; False when there is nothing to change it to."""
    if attribute == "func":
        node.func.id = "max" if node.func.id == "min" else "min"
        return True
    old = getattr(node, attribute) if index is None else node.ops[index]
    new = SWAPS.get(type(old))
    if new is None:
        return False
    if index is None:
        setattr(node, attribute, new())
    else:
        node.ops[index] = new()
    return True


def mutants(file: Path) -> Iterator[tuple[int, str]]:
    """Every mutant of a file: the line changed and the whole new source."""
    source = file.read_text()
    for number in range(len(list(sites(ast.parse(source))))):
        tree = ast.parse(source)
        node, attribute, index = list(sites(tree))[number]
        if mutate(node, attribute, index):
            yield node.lineno, ast.unparse(tree)


def survives(copy: Path) -> bool:
    """Whether the tests pass on the mutated copy."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header"]
    command += ["--timeout", "120", *(str(ROOT / "tests/core" / name) for name in TESTS)]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
    return done.returncode == 0


def main() -> int:
    """Try every mutant; the number of unexplained survivors decides the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        shutil.copytree(ROOT / "src/dusuan", copy / "dusuan")
        files = [f for rule in RULES for f in sorted((copy / "dusuan").glob(f"{rule}*/*.py"))]
        files += [copy / "dusuan/core/units.py"]
        tried, alive = 0, 0
        for file in files:
            original = file.read_text()
            lines = original.splitlines()
            for line, source in mutants(file):
                file.write_text(source)
                tried += 1
                text = f"{file.name}: {lines[line - 1].strip()}"
                if survives(copy) and text not in EQUIVALENT:
                    alive += 1
                    print(f"survived: {file.relative_to(copy)}:{line}: {lines[line - 1].strip()}")
                file.write_text(original)
        print(f"{tried} mutants, {alive} survived unexplained")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
