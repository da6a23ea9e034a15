"""Lists that cannot be used are told by file and line; what can be is read as it is meant."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from tests.sim import openb_lists

from dusuan.core.scheduling.arrays import ANY_TYPE
from dusuan.core.workload.jobspec import Problem
from dusuan.sim import openb


def test_lists_are_read_plain_and_packed(tmp_path: Path) -> None:
    plain = openb_lists.nodes(tmp_path, "b,64000,1024,4,T4\na,8000.0,512,2,A10\nc,8000,9,0,\n")
    packed = tmp_path / "nodes.data"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (plain, packed):
        found = openb.read_nodes(path)
        assert isinstance(found, openb.NodeList)
        assert found.names == ("b", "a", "c") and found.models == ("", "A10", "T4")
        assert found.hosts.type.tolist() == [2, 1, 0]
        assert found.hosts.devices.tolist() == [4, 2, 0]
        assert found.hosts.cpu_milli.tolist() == [64_000, 8_000, 8_000]
        assert found.hosts.capacity_milli == 6_000


def test_pods_become_kinds(tmp_path: Path) -> None:
    rows = "p0,8,1,1,1000,\np1,4,1,1,470,B|X\np2,8,1,1,1000,\np3,9,1,0,0,\np4,2,1,2,1000,X\n"
    found = openb.read_pods(openb_lists.pods(tmp_path, rows), ("A", "B"))
    assert isinstance(found, openb.PodList)
    assert found.requests["cpu_milli"].tolist() == [2, 4, 8, 9], "in the published order"
    assert found.pods.tolist() == [2, 1, 2, 3, 0]
    assert found.requests["types"].tolist() == [0, 0b10, ANY_TYPE, ANY_TYPE], "X is no model here"
    assert found.milli.tolist() == [2000, 470, 1000, 0]
    assert found.pods.dtype == np.int64


def test_pods_larger_than_any_node_are_named(tmp_path: Path) -> None:
    nodes = openb.read_nodes(openb_lists.nodes(tmp_path))
    rows = "big,8000,1024,8,1000,\nfits,1,1,4,1000,\nmodel,1,1,1,1000,Z\nhungry,65000,1,1,10,\n"
    assert isinstance(nodes, openb.NodeList)
    pods = openb.read_pods(openb_lists.pods(tmp_path, rows), nodes.models)
    assert isinstance(pods, openb.PodList)
    assert list(openb.unplaceable(nodes, pods)) == ["big", "model", "hungry"]


NODE = "n0,64000,262144,4,A\n"


@pytest.mark.parametrize(
    ("rows", "code", "line", "says"),
    [
        ("", "no_nodes", None, "no nodes"),
        (NODE + "n1,64000,262", "bad_row", 3, "fewer values"),
        (NODE + "n1,64000,262144,4,A,9\n", "bad_row", 3, "more values"),
        (NODE + "n0,1,1,1,A\n", "duplicate", 3, "also in line 2"),
        ("n0,x,1,1,A\n", "bad_value", 2, "cpu_milli is 'x'"),
        ("n0,-1,1,1,A\n", "bad_value", 2, "cpu_milli is '-1'"),
        ("n0,nan,1,1,A\n", "bad_value", 2, "cpu_milli is 'nan'"),
        ("n0,1,1,65,A\n", "bad_value", 2, "gpu is '65'"),
        ("n0,1,1,1.5,A\n", "bad_value", 2, "gpu is '1.5'"),
        ("n0,64000,262144,0,A\n", "no_devices", None, "no node"),
        ("".join(f"n{i},1,1,1,m{i}\n" for i in range(63)), "too_many_models", None, "63 models"),
    ],
)
def test_bad_node_lists(tmp_path: Path, rows: str, code: str, line: int | None, says: str) -> None:
    found = openb.read_nodes(openb_lists.nodes(tmp_path, rows))
    assert isinstance(found, Problem)
    assert (found.code, found.line) == (code, line) and says in found.text
    assert "nodes.csv" in found.text


@pytest.mark.parametrize(
    ("rows", "code", "line"),
    [
        ("", "no_pods", None),
        ("p,1,1,1,0,\n", "bad_share", 2),
        ("p,1,1,2,500,\n", "bad_share", 2),
        ("p,1,1,1,1001,\n", "bad_value", 2),
        ("p,1,1\n", "bad_row", 2),
    ],
)
def test_bad_pod_lists(tmp_path: Path, rows: str, code: str, line: int | None) -> None:
    found = openb.read_pods(openb_lists.pods(tmp_path, rows), ("A",))
    assert isinstance(found, Problem) and (found.code, found.line) == (code, line)


def test_columns_missing_and_unknown(tmp_path: Path) -> None:
    path = tmp_path / "n.csv"
    path.write_text("sn,cpu_milli,memory_mb,gpu,model,color\nn0,1,1,1,A,red\n", "utf-8")
    found = openb.read_nodes(path)
    assert isinstance(found, Problem)
    assert found.code == "missing_column" and found.remedy == "did you mean `memory_mb`?"
    path.write_text("sn,cpu_milli,memory_mib,gpu,model,color\nn0,1,1,1,A,red\n", "utf-8")
    found = openb.read_nodes(path)
    assert isinstance(found, openb.NodeList)
    assert found.notes == (f"{path}: column 'color' is unknown and not used",)


@pytest.mark.parametrize("content", [gzip.compress(b"sn,cpu" * 99)[:-9], b"\xff\xfe\x00\x01\x80"])
def test_files_that_are_cut_off_or_no_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.csv"
    path.write_bytes(content)
    found = openb.read_nodes(path)
    assert isinstance(found, Problem) and found.code in {"unreadable", "not_csv"} and found.remedy


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "none", "no_such_file"), (tmp_path, "unreadable")):
        found = openb.read_nodes(path)
        assert isinstance(found, Problem) and found.code == code
