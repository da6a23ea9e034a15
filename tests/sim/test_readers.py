"""Readers of traces: every format, and everything that can be wrong with a file."""

from __future__ import annotations

import gzip
import json
import resource
from pathlib import Path

import pytest

from dusuan.core.scheduling.arrays import FOREVER_MS
from dusuan.core.workload.jobspec import Problem
from dusuan.sim.readers import FORMATS, read
from dusuan.sim.trace import Rated, Site, Trace, read_cluster

SWF = "{id} {at} -1 {run} {n} -1 -1 {n} {asked} -1 1 {user} 1 -1 -1 -1 -1 -1"
HOURS = "arrival_time,length,cpus\n"
HEAD = "timestamp,duration,num_gpus,gpu_time,cluster\n"


def swf(*rows: tuple[float, ...]) -> str:
    keys = ("id", "at", "run", "n", "asked", "user")
    return "; a comment\n" + "".join(
        SWF.format(**dict(zip(keys, row, strict=True))) + "\n" for row in rows
    )


def loaded(folder: Path, text: str | bytes, form: str) -> Trace | Problem:
    path = folder / "trace"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path, form)


def good(folder: Path, text: str | bytes, form: str) -> Trace:
    found = loaded(folder, text, form)
    assert isinstance(found, Trace), found
    return found


def bad(folder: Path, text: str | bytes, form: str) -> Problem:
    found = loaded(folder, text, form)
    assert isinstance(found, Problem), found
    assert found.text
    return found


EXAMPLES = {
    "swf": swf((7, 100, 60, 4, 120, 3)),
    "philly-csv": HEAD + "2017-10-09 07:01:40,60,4,240,vc1\n",
    "helios": "job_id,user,gpu_num,cpu_num,submit_time,duration,vc\n"
    "a,u,4,8,2020-04-01 00:00:00,60,v\n",
    "arrivals": "arrival_time,length,cpus\n0.5,0.0166666666666667,4\n",
    "azure-llm": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:01:51.0,8000,2360\n",
    "openb": "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,creation_time,"
    "deletion_time,scheduled_time\np,1000,10,4,1000,,LS,5,75,15\n",
    "journal": json.dumps(
        {"kind": "submit", "job": "a", "submit_ms": 5000, "run_ms": 60_000, "devices": 4}
    )
    + "\n"
    + json.dumps({"kind": "start", "job": "a"})
    + "\n",
}


@pytest.mark.parametrize("nothing", ["", "None", "NULL", "nan"])
def test_jobs_that_were_cancelled_before_they_ran_are_left_out(
    tmp_path: Path, nothing: str
) -> None:
    cancelled = f"b,u,1,2,2020-04-01 00:00:01,{nothing},v\n"
    trace = good(tmp_path, (EXAMPLES["helios"] + cancelled).encode(), "helios")
    assert (trace.names, trace.rejected) == (("a",), 1)
    assert "rejected 1 job with a negative run time or none, the first is b" in trace.notes
    spoilt = (EXAMPLES["helios"] + cancelled.replace(nothing, "long", 1)).encode()
    if nothing:
        assert bad(tmp_path, spoilt, "helios").code == "bad_value"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_format_is_read_plain_and_packed(tmp_path: Path, form: str, packed: bool) -> None:
    text = EXAMPLES[form].encode()
    trace = good(tmp_path, gzip.compress(text) if packed else text, form)
    (job,) = trace.jobs
    assert job["submit_ms"] == 0, "time begins with the first submission"
    assert job["run_ms"] == 60_000
    assert job["devices"] == (1 if form == "azure-llm" else 4)
    assert trace.rejected == 0


def test_what_swf_says_of_users_and_estimates(tmp_path: Path) -> None:
    trace = good(tmp_path, swf((1, 0, 5, 2, 60, 9), (2, 1, 5, 2, -1, 9), (3, 2, 5, 4, 9, 9)), "swf")
    assert trace.jobs["estimate_ms"].tolist() == [60_000, -1, 9_000]
    assert trace.accounts == ("u9",)
    groups = trace.jobs["group"].tolist()
    assert groups[0] == groups[1] != groups[2], "similar is: of one user, as many devices"
    assert not trace.jobs["preemptible"].any()


def test_jobs_come_in_the_order_of_submission(tmp_path: Path) -> None:
    trace = good(tmp_path, swf((1, 50, 5, 1, 9, 1), (2, 10, 6, 1, 9, 1)), "swf")
    assert trace.names == ("2", "1")
    assert trace.jobs["submit_ms"].tolist() == [0, 40_000]
    assert any("not in the order" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((2, 1, -1, 1, 9, 1), "negative run time"),
        ((2, 1, 5, 0, 9, 1), "number of devices"),
        ((1, 1, 5, 1, 9, 1), "id that was used before"),
    ],
)
def test_rows_that_cannot_be_used_are_counted(
    tmp_path: Path, row: tuple[float, ...], says: str
) -> None:
    trace = good(tmp_path, swf((1, 0, 5, 1, 9, 1), row), "swf")
    assert (len(trace.jobs), trace.rejected) == (1, 1)
    assert any(says in note for note in trace.notes), trace.notes


def test_a_run_time_of_zero_is_one(tmp_path: Path) -> None:
    assert good(tmp_path, swf((1, 0, 0, 1, 9, 1)), "swf").jobs["run_ms"].tolist() == [0]


def test_unknown_columns_are_noted(tmp_path: Path) -> None:
    head = HEAD.strip() + ",colour\n"
    trace = good(tmp_path, head + "2017-10-09 07:01:40,60,4,240,vc1,red\n", "philly-csv")
    assert any("'colour'" in note for note in trace.notes)


@pytest.mark.parametrize(
    ("form", "text", "code", "line"),
    [
        ("swf", "1 2 3\n", "bad_row", 1),
        ("swf", swf((1, 0, 5, 1, 9, 1)) + "2 5 -1 6", "bad_row", 3),
        ("swf", swf((1, 0, 5, 1, 9, 1)).replace(" 5 ", " five "), "bad_value", 2),
        ("swf", swf((1, 0, 1e30, 1, 9, 1)), "bad_value", 2),
        ("swf", "; nothing else\n", "no_jobs", None),
        ("swf", "", "no_jobs", None),
        ("philly-csv", HEAD, "no_jobs", None),
        ("philly-csv", HEAD + "2017-10-09 07:01:40,60,4\n", "bad_row", 2),
        ("philly-csv", HEAD + "yesterday,60,4,240,vc1\n", "bad_value", 2),
        ("philly-csv", HEAD + "2017-10-09 07:01:40,nan,4,240,vc1\n", "bad_value", 2),
        ("philly-csv", "timestamp,duratoin,num_gpus\n", "missing_column", 1),
        ("journal", '{"kind": "submit", "job": "a"}\n', "bad_value", 1),
        ("journal", '{"kind": "submit", "jo', "bad_row", 1),
        ("journal", "[]\n", "bad_row", 1),
        ("swf", b"\x80\x81\xff\n", "not_text", None),
        ("swf", gzip.compress(swf((1, 0, 5, 1, 9, 1)).encode())[:-9], "unreadable", None),
        ("swff", "", "unknown_format", None),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_line(
    tmp_path: Path, form: str, text: str | bytes, code: str, line: int | None
) -> None:
    found = bad(tmp_path, text, form)
    assert (found.code, found.line) == (code, line), found
    assert found.remedy or found.line


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    found = read(tmp_path / "none", "swf")
    assert isinstance(found, Problem)
    assert found.code == "no_such_file"


def test_a_hundred_thousand_rows_take_less_than_a_kilobyte_each(tmp_path: Path) -> None:
    """A million took 627 MiB in all when this was written; the same per row."""
    rows = 100_000
    lines = "".join(f"{i * 0.01},0.5,{1 + i % 8}\n" for i in range(rows))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trace = good(tmp_path, HOURS + lines, "arrivals")
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert len(trace.jobs) == rows
    assert grown_kb < 1.5 * rows


def rate(name: str) -> Rated | Problem:
    return Rated(312_000, 400.0) if name == "A100" else Problem("unknown", f"no {name}")


def test_a_cluster_in_a_word() -> None:
    site = read_cluster("80x8:A100,2x4:A100", rate)
    assert isinstance(site, Site)
    assert (len(site.nodes), site.devices, site.models) == (82, 648, ("A100",))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("0x8", "no_devices"),
        ("8x0", "no_devices"),
        ("80", "bad_cluster"),
        ("-1x8", "bad_cluster"),
        ("2000000x8", "bad_cluster"),
        ("1x65", "bad_cluster"),
        ("1x8:B100", "unknown"),
    ],
)
def test_a_cluster_that_cannot_be(text: str, code: str) -> None:
    found = read_cluster(text, rate)
    assert isinstance(found, Problem)
    assert found.code == code


def test_all_that_a_job_can_ask_for_is_read_from_a_log(tmp_path: Path) -> None:
    asked = {
        **{"milli": 1000, "cpu_milli": 5, "memory_mib": 6, "types": 3, "rating_gflops": 7},
        **{"gflops": 56, "tier": 2, "priority": -1, "preemptible": 0, "topology": 2},
        **{"earliest_ms": 9_000, "deadline_ms": 99_000},
    }
    line = {"kind": "submit", "job": "a", "submit_ms": 5_000, "run_ms": 1, "devices": 8}
    first = {"kind": "submit", "job": "b", "submit_ms": 1_000, "run_ms": 1, "devices": 1}
    text = json.dumps(first) + "\n" + json.dumps(line | asked) + "\n"
    plain, job = good(tmp_path, text, "journal").jobs
    assert (plain["earliest_ms"], plain["deadline_ms"]) == (0, FOREVER_MS)
    moments = {"earliest_ms": 8_000, "deadline_ms": 98_000}  # the trace begins at 1,000
    assert {name: job[name] for name in asked} == asked | moments


@pytest.mark.parametrize(
    "wrong",
    [{"topology": 4}, {"preemptible": 2}, {"tier": -1}, {"gflops": -8}, {"earliest_ms": -1}],
)
def test_a_log_that_asks_for_what_cannot_be(tmp_path: Path, wrong: dict[str, int]) -> None:
    line = {"kind": "submit", "job": "a", "submit_ms": 0, "run_ms": 1, "devices": 8} | wrong
    problem = bad(tmp_path, json.dumps(line) + "\n", "journal")
    assert (problem.code, problem.line) == ("bad_value", 1)
    assert problem.remedy.startswith("give 0")
