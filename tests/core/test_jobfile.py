"""Job files: what is understood, what is refused, and on which line."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dusuan.core.workload.document import from_document, to_document
from dusuan.core.workload.jobfile import parse_job
from dusuan.core.workload.jobspec import (
    Checkpoint,
    Goal,
    JobSpec,
    Parsed,
    Problem,
    Resources,
    Workload,
)

FULL = """\
name: digits
workdir: .
setup: |
  echo ready
run: |
  python train.py
envs:
  SEED: 7
  RATE: 1e-3
  FLAG: no
  EMPTY: ""
num_nodes: 1
resources:
  accelerators: A100:4
  memory: 32+
  network: true
  origin: domestic
workload: {kind: train, steps: 1500}
goal: {deadline: 90s, budget: ¥20.5, tier: spot}
checkpoint: {signal: usr1, grace: 2s}
wall_time: 1h30m
priority: -3
"""


def spec_of(text: str) -> JobSpec:
    parsed = parse_job(text)
    assert isinstance(parsed, Parsed), parsed
    return parsed.spec


def problem_of(text: str) -> Problem:
    problem = parse_job(text)
    assert isinstance(problem, Problem), problem
    assert problem.text
    return problem


def run_with(line: str) -> str:
    """A job whose second line is `line`."""
    return f"run: echo\n{line}\n"


def test_every_key_is_read() -> None:
    assert parse_job(FULL) == Parsed(
        JobSpec(
            name="digits",
            workdir=".",
            setup="echo ready\n",
            run="python train.py\n",
            envs={"SEED": "7", "RATE": "1e-3", "FLAG": "no", "EMPTY": ""},
            num_nodes=1,
            resources=Resources("A100", 4, 32.0, "domestic", True),
            workload=Workload("train", 1500.0),
            goal=Goal(90.0, 2050, "spot"),
            checkpoint=Checkpoint("SIGUSR1", 2.0),
            wall_time_s=5400.0,
            priority=-3,
        )
    )


def test_defaults_and_the_callers_name() -> None:
    assert parse_job("run: echo", name="mine") == Parsed(JobSpec(name="mine", run="echo"))
    assert spec_of("argv: [python, t.py, 5]").argv == ("python", "t.py", "5")
    assert spec_of("run: echo\nresources:\ngoal: null\nname:\n") == JobSpec(name="job", run="echo")
    assert spec_of("\ufeffrun: echo\r\n").run == "echo"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("1.5 hours", 5400.0),
        ("500ms", 0.5),
        ("45", 45.0),
        ("0.25", 0.25),
        ("'45'", 45.0),
        ("1w", 604800.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert spec_of(run_with(f"goal: {{deadline: {text}}}")).goal.deadline_s == seconds
    assert spec_of(run_with(f"wall_time: {text}")).wall_time_s == seconds


@pytest.mark.parametrize(
    ("text", "fen"),
    [
        ("¥20", 2000),
        ("￥20", 2000),
        ("20.5 yuan", 2050),
        ("20", 2000),
        ("0.07", 7),
        ("20元", 2000),
        ("CNY 1.10", 110),
        ("9007199254740.93", 900719925474093),
    ],
)
def test_budgets_are_exact_fen(text: str, fen: int) -> None:
    assert spec_of(run_with(f"goal: {{budget: {text}}}")).goal.budget_fen == fen


@pytest.mark.parametrize(
    ("text", "device", "count"),
    [
        ("A100:4", "A100", 4),
        ("A100", "A100", 1),
        ("{A100: 4}", "A100", 4),
        ("{A100: 4.0}", "A100", 4),
        ("{A100:1}", "A100", 1),
        ("{A100: }", "A100", 1),
        ("['A100:2']", "A100", 2),
        ("cpu:2", "cpu", 2),
        ("GPU:1", "gpu", 1),
        ("昇腾910B:8", "昇腾910B", 8),
    ],
)
def test_accelerators(text: str, device: str, count: int) -> None:
    found = spec_of(run_with(f"resources: {{accelerators: {text}}}")).resources
    assert (found.device, found.count) == (device, count)


@pytest.mark.parametrize(
    ("text", "gib"), [("4", 4.0), ("4+", 4.0), ("4GB", 4.0), ("512MB", 0.5), ("1.5T", 1536.0)]
)
def test_memory(text: str, gib: float) -> None:
    assert spec_of(run_with(f"resources: {{memory: {text}}}")).resources.memory_gib == gib


def test_cpus_are_cpu_devices() -> None:
    assert spec_of(run_with("resources: {cpus: 2+}")).resources == Resources("cpu", 2)
    both = "resources: {cpus: 2, accelerators: 'cpu:2'}"
    assert spec_of(run_with(both)).resources == Resources("cpu", 2)
    assert problem_of(run_with("resources: {cpus: 2, accelerators: A100}")).code == "unsupported"


def test_origin_any_is_no_limit() -> None:
    assert spec_of(run_with("resources: {origin: any}")).resources == Resources()


RESOURCES_NOT_ACTED_ON = [
    "cloud",
    "region",
    "zone",
    "infra",
    "instance_type",
    "disk_size",
    "disk_tier",
    "use_spot",
    "ports",
    "image_id",
    "any_of",
    "ordered",
    "job_recovery",
    "autostop",
    "labels",
    "accelerator_args",
    "network_tier",
    "local_disk",
    "volumes",
]
TASK_NOT_ACTED_ON = [
    "file_mounts",
    "storage_mounts",
    "secrets",
    "service",
    "config",
    "volumes",
    "experimental",
    "event_callback",
    "inputs",
    "outputs",
    "file_mounts_mapping",
    "volume_mounts",
    "pool",
]


@pytest.mark.parametrize("key", RESOURCES_NOT_ACTED_ON)
def test_skypilot_resources_warn(key: str) -> None:
    parsed = parse_job(f"run: echo\nresources:\n  {key}: [1]\n")
    assert isinstance(parsed, Parsed)
    (warning,) = parsed.warnings
    assert (warning.code, warning.line) == ("not_acted_on", 3)
    assert "SkyPilot knows this key" in warning.text


@pytest.mark.parametrize("key", TASK_NOT_ACTED_ON)
def test_skypilot_task_keys_warn(key: str) -> None:
    parsed = parse_job(run_with(f"{key}: {{a: b}}"))
    assert isinstance(parsed, Parsed)
    assert [(w.code, w.line) for w in parsed.warnings] == [("not_acted_on", 2)]


# code, line, text
BAD = [
    ("empty", None, ""),
    ("empty", None, "# nothing\n"),
    ("not_a_mapping", 2, "\n- run\n"),
    ("not_a_mapping", 1, "just words"),
    ("key_not_text", 2, "run: a\n1: b\n"),
    ("key_not_text", 2, "run: a\non: b\n"),
    ("key_not_text", 2, "run: a\n? [x]\n: b\n"),
    ("duplicate_key", 3, "run: a\nname: x\nrun: b\n"),
    ("duplicate_key", 4, "run: a\nenvs:\n  A: 1\n  A: 2\n"),
    ("many_documents", 2, "run: a\n---\nrun: b\n"),
    ("alias", 3, "run: a\nenvs: &e {A: x}\nsecrets: *e\n"),
    ("bad_tag", 1, "run: !!python/object/apply:os.system [ls]\n"),
    ("bad_tag", 1, "run: !mine x\n"),
    ("too_deep", 2, "run: a\nconfig: " + "[" * 5000 + "]" * 5000),
    ("too_deep", 2, "run: a\nconfig: " + "{a: " * 40 + "}" * 40),
    ("too_large", None, "run: " + "x" * (1 << 20)),
    ("too_large", None, "run: " + "度" * ((1 << 20) // 3)),
    ("bad_character", 2, "run: a\nname: b\x00\n"),
    ("bad_character", 2, 'run: a\nname: "b\\0"\n'),
    ("bad_character", 2, "run: a\nname: b\ud800\n"),
    ("bad_yaml", 2, "run: a\nname: 'x\n"),
    ("bad_yaml", 2, "run: a\n\tname: x\n"),
    ("unknown_key", 2, "run: a\nnmae: x\n"),
    ("unknown_key", 3, "run: a\ngoal:\n  deadlin: 3\n"),
    ("unknown_key", 4, "run: a\n\nresources:\n  acelerators: A100\n"),
    ("unknown_key", 2, "run: a\ndeadline: 3\n"),
    ("nothing_to_run", 1, "name: x\n"),
    ("nothing_to_run", 2, "name: x\nargv: []\n"),
    ("nothing_to_run", 1, "run:\n"),
    ("two_commands", 2, "run: a\nargv: [b]\n"),
    ("wrong_type", 1, "run: [a]\n"),
    ("wrong_type", 1, "run: 5\n"),
    ("wrong_value", 1, "run: ''\n"),
    ("wrong_type", 1, "argv: python x.py\n"),
    ("wrong_type", 2, "argv:\n- {a: b}\n"),
    ("wrong_type", 2, run_with("name: 5")),
    ("wrong_value", 2, run_with("name: ''")),
    ("wrong_value", 2, run_with('name: "a\\nb"')),
    ("wrong_type", 2, run_with("num_nodes: two")),
    ("wrong_type", 2, run_with("num_nodes: true")),
    ("wrong_type", 2, run_with("num_nodes: '1'")),
    ("wrong_type", 2, run_with("num_nodes: 1.5")),
    ("unsupported", 2, run_with("num_nodes: 2")),
    ("out_of_range", 2, run_with("num_nodes: 0")),
    ("out_of_range", 2, run_with("num_nodes: -1")),
    ("wrong_type", 2, run_with("envs: [A]")),
    ("wrong_type", 3, run_with("envs:\n  A:")),
    ("wrong_type", 3, run_with("envs:\n  A: [1]")),
    ("wrong_value", 3, run_with("envs:\n  A-B: 1")),
    ("reserved_name", 3, run_with("envs:\n  DUSUAN_REPORT: /tmp/x")),
    ("wrong_type", 2, run_with("goal: cheap")),
    ("out_of_range", 2, run_with("goal: {deadline: 0}")),
    ("out_of_range", 2, run_with("goal: {deadline: -5s}")),
    ("out_of_range", 2, run_with("goal: {deadline: 0s}")),
    ("out_of_range", 2, run_with("goal: {deadline: 1e99}")),
    ("out_of_range", 2, run_with("goal: {deadline: 1e-99}")),
    ("not_finite", 2, run_with("goal: {deadline: .nan}")),
    ("not_finite", 2, run_with("goal: {deadline: .inf}")),
    ("wrong_value", 2, run_with("goal: {deadline: soon}")),
    ("wrong_value", 2, run_with("goal: {deadline: 5 parsecs}")),
    ("wrong_type", 2, run_with("goal: {deadline: yes}")),
    ("wrong_type", 2, run_with("goal: {deadline: [1]}")),
    ("out_of_range", 2, run_with("goal: {budget: -1}")),
    ("out_of_range", 2, run_with("goal: {budget: 0}")),
    ("wrong_value", 2, run_with("goal: {budget: 20.505}")),
    ("wrong_value", 2, run_with("goal: {budget: $20}")),
    ("not_finite", 2, run_with("goal: {budget: .nan}")),
    ("unknown_value", 2, run_with("goal: {tier: gold}")),
    ("unknown_value", 2, run_with("workload: {kind: trian}")),
    ("wrong_type", 2, run_with("workload: {steps: many}")),
    ("wrong_type", 2, run_with("workload: {steps: true}")),
    ("out_of_range", 2, run_with("workload: {steps: -4}")),
    ("not_finite", 2, run_with("workload: {steps: .nan}")),
    ("unknown_value", 2, run_with("checkpoint: {signal: SIGKILL}")),
    ("unknown_value", 2, run_with("checkpoint: {signal: STOP}")),
    ("unknown_value", 2, run_with("checkpoint: {signal: SIGUSER1}")),
    ("out_of_range", 2, run_with("checkpoint: {grace: 2h}")),
    ("wrong_type", 2, run_with("priority: high")),
    ("out_of_range", 2, run_with("priority: 99999999")),
    ("wrong_value", 2, run_with("wall_time: 5 fortnights")),
    ("out_of_range", 2, run_with("resources: {accelerators: {A100: -1}}")),
    ("wrong_value", 2, run_with("resources: {accelerators: {A100: 0.5}}")),
    ("wrong_type", 2, run_with("resources: {accelerators: 5}")),
    ("wrong_type", 2, run_with("resources: {accelerators: {A100: many}}")),
    ("unsupported", 2, run_with("resources: {accelerators: {A100: 1, V100: 1}}")),
    ("unsupported", 2, run_with("resources: {accelerators: ['A100', 'V100']}")),
    ("out_of_range", 2, run_with("resources: {memory: 0}")),
    ("wrong_value", 2, run_with("resources: {memory: lots}")),
    ("wrong_type", 2, run_with("resources: {network: maybe}")),
    ("unknown_value", 2, run_with("resources: {origin: foreign}")),
]


@pytest.mark.parametrize(("code", "line", "text"), BAD, ids=lambda value: repr(value)[:40])
def test_bad_files_name_the_fault_and_its_line(code: str, line: int | None, text: str) -> None:
    problem = problem_of(text)
    assert (problem.code, problem.line) == (code, line), problem
    assert problem.remedy or code == "out_of_range" or problem.code == "wrong_type"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("nmae: x", "did you mean `name`?"),
        ("deadline: 5", "`deadline` belongs under `goal`"),
        ("resources: {acelerators: A100}", "did you mean `accelerators`?"),
        ("resources: {name: x}", "`name` belongs at the top level"),
        ("goal: {tier: spott}", "did you mean `spot`?"),
        ("checkpoint: {signal: SIGUSER1}", "did you mean `SIGUSR1`?"),
    ],
)
def test_the_nearest_known_word_is_named(text: str, remedy: str) -> None:
    assert problem_of(run_with(text)).remedy == remedy


def test_a_wrong_type_says_what_was_expected_and_what_came() -> None:
    problem = problem_of(run_with("num_nodes: two"))
    assert problem.text == "num_nodes: expected a whole number, got the text 'two'"


def test_an_alias_bomb_costs_nothing() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
    )
    assert problem_of(bomb).code == "alias"


def test_a_flood_of_keys_is_refused() -> None:
    flood = "envs:\n" + "".join(f"  K{n}: v\n" for n in range(60_000))
    assert problem_of(flood).code == "too_large"


# Batch scripts

SCRIPT = """\
#!/bin/bash -l
#SBATCH --job-name=mpi-test -t 1-02:03:04  # a comment
#SBATCH -n 4
#SBATCH -c 2
#SBATCH --mem=4G --signal=B:USR1@30
#SBATCH --partition=debug
# plain comment

#SBATCH -D "/tmp/my dir"
srun hostname
#SBATCH --time=1
"""


def script(options: str, command: str = "hostname") -> str:
    return f"#!/bin/bash\n#SBATCH {options}\n{command}\n"


def test_a_batch_script() -> None:
    parsed = parse_job(SCRIPT)
    assert isinstance(parsed, Parsed), parsed
    spec = parsed.spec
    assert spec.name == "mpi-test"
    assert spec.wall_time_s == 86_400 + 2 * 3_600 + 3 * 60 + 4
    assert spec.resources == Resources("cpu", 8, 4.0)
    assert spec.checkpoint == Checkpoint("SIGUSR1", 30.0)
    assert spec.workdir == "/tmp/my dir"
    assert spec.run is not None
    assert spec.run.splitlines() == ["set +e", *SCRIPT.splitlines()[1:]]
    assert [(w.code, w.line) for w in parsed.warnings] == [
        ("not_acted_on", 6),
        ("not_acted_on", 11),
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800.0),
        ("30:15", 1815.0),
        ("1:30:15", 5415.0),
        ("2-3", 183600.0),
        ("2-3:30", 185400.0),
        ("2-3:30:10", 185410.0),
        ("0", None),
        ("UNLIMITED", None),
    ],
)
def test_slurm_times(text: str, seconds: float | None) -> None:
    assert spec_of(script(f"--time={text}")).wall_time_s == seconds
    assert spec_of(script(f"-t {text}")).wall_time_s == seconds
    assert spec_of(script(f"-t{text}")).wall_time_s == seconds


@pytest.mark.parametrize(
    ("options", "device", "count"),
    [
        ("--gres=gpu:2", "gpu", 2),
        ("--gres=gpu", "gpu", 1),
        ("--gres=gpu:a100:4", "a100", 4),
        ("--gres=gpu:a100:4(S:0)", "a100", 4),
        ("--gres=lustre:1,gpu:2", "gpu", 2),
        ("--gpus=3", "gpu", 3),
        ("-G v100:2", "v100", 2),
        ("--gpus-per-node=2", "gpu", 2),
        ("--ntasks=3", "cpu", 3),
        ("-c4", "cpu", 4),
        ("--gpus=1 -c 4", "gpu", 1),
        ("-N 1", None, None),
        ("-N 1-4", None, None),
    ],
)
def test_slurm_devices(options: str, device: str | None, count: int | None) -> None:
    found = spec_of(script(options)).resources
    assert (found.device, found.count) == (device, count)


def test_other_slurm_options() -> None:
    assert spec_of(script("--mem=512")).resources.memory_gib == 0.5
    assert spec_of(script("--mem=0")).resources.memory_gib is None
    assert spec_of(script("--nice=10")).priority == -10
    assert spec_of(script("--nice")).priority == -100
    assert spec_of(script("--priority=7")).priority == 7
    assert spec_of(script("--signal=10")).checkpoint == Checkpoint("SIGUSR1", 60.0)
    assert spec_of(script("--job=prefix")).name == "prefix"
    assert spec_of("#!/usr/bin/env bash\nhostname\n").run == "set +e\nhostname\n"
    assert spec_of("#!/bin/sh -eu\nhostname\n").run == "set +e -eu\nhostname\n"
    assert spec_of("#!/bin/bash\r\n#SBATCH -J a\r\nls\r\n").name == "a"


@pytest.mark.parametrize("option", ["--array=1-9", "-p x", "--exclusive", "-o out", "--gres=nic:1"])
def test_sbatch_options_not_acted_on_warn(option: str) -> None:
    parsed = parse_job(script(option))
    assert isinstance(parsed, Parsed)
    assert [(w.code, w.line) for w in parsed.warnings] == [("not_acted_on", 2)]


@pytest.mark.parametrize(
    ("code", "line", "text"),
    [
        ("unknown_option", 2, script("--tiem=5")),
        ("unknown_option", 2, script("-Z")),
        ("bad_script", 2, script("words")),
        ("bad_script", 2, script("--job-name='x")),
        ("wrong_value", 2, script("--time")),
        ("wrong_value", 2, script("--time=soon")),
        ("wrong_value", 2, script("--hold=5")),
        ("wrong_value", 2, script("--nice=x")),
        ("wrong_value", 2, script("--mem=lots")),
        ("wrong_value", 2, script("--gres=gpu:x:y")),
        ("out_of_range", 2, script("-n 0")),
        ("unsupported", 2, script("--nodes=2")),
        ("unsupported", 2, script("--gres=gpu:a:1,gpu:b:1")),
        ("unknown_value", 2, script("--signal=KILL")),
        ("bad_script", 1, "#!/usr/bin/python3\nprint()\n"),
        ("bad_script", 1, "#SBATCH -n 1\nhostname\n"),
        ("nothing_to_run", None, "#!/bin/bash\n#SBATCH -n 1\n"),
        ("bad_character", 2, "#!/bin/bash\nls \x00\n"),
        ("too_large", None, "#!/bin/bash\n" + "x" * (1 << 20)),
    ],
)
def test_bad_scripts(code: str, line: int | None, text: str) -> None:
    problem = problem_of(text)
    assert (problem.code, problem.line) == (code, line), problem


def test_the_nearest_option_is_named() -> None:
    assert problem_of(script("--tiem=5")).remedy == "did you mean `--time`?"


# Round trip and fuzz

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
FLOATS = st.floats(min_value=0.001, max_value=1e12, allow_nan=False)
SPECS = st.builds(
    JobSpec,
    name=TEXT,
    run=st.none() | TEXT,
    argv=st.none() | st.lists(TEXT, max_size=4).map(tuple),
    setup=st.none() | TEXT,
    workdir=st.none() | TEXT,
    envs=st.dictionaries(TEXT, TEXT, max_size=4),
    resources=st.builds(
        Resources,
        device=st.none() | TEXT,
        count=st.none() | st.integers(1, 10**6),
        memory_gib=st.none() | FLOATS,
        origin=st.none() | st.just("domestic"),
        network=st.booleans(),
    ),
    workload=st.builds(Workload, kind=TEXT, steps=st.none() | FLOATS),
    goal=st.builds(
        Goal, deadline_s=st.none() | FLOATS, budget_fen=st.none() | st.integers(1), tier=TEXT
    ),
    checkpoint=st.none() | st.builds(Checkpoint, signal=TEXT, grace_s=FLOATS),
    wall_time_s=st.none() | FLOATS,
    priority=st.integers(),
)


@given(SPECS)
def test_a_spec_survives_json(spec: JobSpec) -> None:
    assert from_document(json.loads(json.dumps(to_document(spec)))) == spec


def test_a_parsed_file_survives_json_and_old_documents_are_read() -> None:
    spec = spec_of(FULL)
    assert from_document(json.loads(json.dumps(to_document(spec)))) == spec
    assert from_document({"name": "x", "run": "y"}) == JobSpec(name="x", run="y")
    with pytest.raises(TypeError):
        from_document({"name": "x", "ran": "y"})


def is_answer(text: str) -> bool:
    answer = parse_job(text)
    if isinstance(answer, Parsed):
        json.dumps(to_document(answer.spec)).encode()
    return isinstance(answer, Parsed | Problem)


@settings(max_examples=300)
@given(st.text(max_size=200))
def test_any_text_gets_an_answer(text: str) -> None:
    assert is_answer(text)


@settings(max_examples=300)
@given(st.text(st.sampled_from(":{}[]&*!|>'\"%@`#-?, \n\t\\0aé\x85\u2028.~<"), max_size=60))
def test_any_punctuation_gets_an_answer(text: str) -> None:
    assert is_answer(text)
    assert is_answer("run: " + text)


KEYS = st.sampled_from(
    [
        "name",
        "run",
        "argv",
        "envs",
        "num_nodes",
        "resources.accelerators",
        "resources.memory",
        "resources.cpus",
        "resources.network",
        "resources.origin",
        "goal.deadline",
        "goal.budget",
        "goal.tier",
        "workload.kind",
        "workload.steps",
        "checkpoint.signal",
        "checkpoint.grace",
        "wall_time",
        "priority",
        "setup",
        "workdir",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.text(string.digits + ".:+-eE¥GBsmhd ", max_size=10)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=400)
@given(KEYS, VALUES)
def test_any_value_under_a_key_gets_an_answer(key: str, value: object) -> None:
    section, _, name = key.rpartition(".")
    entry = f"{name}: {json.dumps(value)}"
    assert is_answer(f"{section}: {{{entry}}}\nrun: a" if section else entry)


@settings(max_examples=300)
@given(st.text(max_size=60), st.sampled_from(["-t ", "--time=", "--gres=", "--mem=", "-n ", "--"]))
def test_any_script_gets_an_answer(text: str, option: str) -> None:
    assert is_answer(script(option + text))
    assert is_answer("#!" + text)
