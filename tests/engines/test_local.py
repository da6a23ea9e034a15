"""What real processes do to an engine, and what it does to them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_harness import (
    SAVING,
    STUBBORN,
    Driver,
    LocalHarness,
    Program,
    exits,
    host_devices,
    running,
    wait_for,
)

from dusuan.core.metering.journal import EndReason, Exit, Record
from dusuan.engines.base import Action, Device, Lease, StartFailed
from dusuan.engines.local import LocalEngine, Settings, lock
from dusuan.engines.local.isolation import JOB_USER, Isolation
from dusuan.sim.engine import Behaviour

NOTHING = Behaviour()
SOURCE = Path(__file__).parents[2] / "src"


def script(text: str) -> Program:
    return Program(textwrap.dedent(text), NOTHING)


def run(local: LocalHarness, program: Program | None = None, **changes: Any) -> tuple[Record, str]:
    """Run to the end: the end record and the log."""
    driver = Driver(local)
    if program is None:
        changes.setdefault("script", None)
    story = driver.finished(driver.start(program or exits(0), **changes))
    log = local.engine.read_log(story.attempt_id, 0, 1 << 20)
    return story.end, log.decode()


def exit_of(record: Record) -> Exit:
    assert record.exit is not None
    return record.exit


# -- the tree of processes -----------------------------------------------------------------------

# A daemon as the books teach it: fork, new session, fork again, close everything.
DAEMON = """
import os, sys, time
if os.fork():
    sys.exit(0)
os.setsid()
if os.fork():
    sys.exit(0)
for descriptor in range(0, 64):
    try:
        os.close(descriptor)
    except OSError:
        pass
os.execvp("sleep", ["sleep", sys.argv[1]])
"""


def nap(number: int) -> str:
    """Seconds that no other sleep on this host sleeps, so that one can be told from all others."""
    return f"{100_000 + os.getpid()}.{number}"


def daemon_script(seconds: str, then: str) -> Program:
    return script(f"python -c '{DAEMON}' {seconds}\n{then}\n")


def test_a_daemon_does_not_outlive_its_job(local: LocalHarness) -> None:
    end, _ = run(local, daemon_script(nap(11), "sleep 0.1; exit 4"))
    assert exit_of(end) == Exit(EndReason.EXIT, code=4)
    assert running("sleep", nap(11)) == []


def test_the_whole_tree_dies_with_its_shepherd(local: LocalHarness) -> None:
    driver = Driver(local)
    story = driver.started(
        driver.start(daemon_script(nap(12), f"trap '' TERM HUP; sleep {nap(13)}"))
    )
    wait_for(lambda: running("sleep", nap(12)) and running("sleep", nap(13)), "the tree")
    local.kill_shepherd(story.attempt_id)
    # Before anyone looks: it is the keeper that clears up, and not the engine.
    wait_for(lambda: not running("sleep", nap(12)) + running("sleep", nap(13)), "its death")
    assert driver.finished(story).lost
    assert running("sleep", nap(12)) + running("sleep", nap(13)) == []


def test_a_killed_keeper_ends_the_attempt_truthfully(local: LocalHarness) -> None:
    driver = Driver(local)
    story = driver.started(
        driver.start(daemon_script(nap(14), f"trap '' TERM HUP; sleep {nap(15)}"))
    )
    wait_for(lambda: running("sleep", nap(14)) and running("sleep", nap(15)), "the tree")
    os.kill(keeper_pid(local, story.attempt_id), signal.SIGKILL)
    end = driver.finished(story).end
    assert (exit_of(end).reason, exit_of(end).code) == (EndReason.LOST, None)
    assert "keeper" in exit_of(end).text
    assert running("sleep", nap(14)) + running("sleep", nap(15)) == []


def test_shepherd_and_keeper_killed_together_leave_nothing(local: LocalHarness) -> None:
    driver = Driver(local)
    story = driver.started(
        driver.start(daemon_script(nap(16), f"trap '' TERM HUP; sleep {nap(17)}"))
    )
    wait_for(lambda: running("sleep", nap(16)) and running("sleep", nap(17)), "the tree")
    pids = [local.shepherd_pid(story.attempt_id), keeper_pid(local, story.attempt_id)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # so that neither can clear up after the other
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert driver.finished(story).lost
    assert running("sleep", nap(16)) + running("sleep", nap(17)) == []


def keeper_pid(local: LocalHarness, attempt_id: str) -> int:
    """The process below the shepherd that runs keeper.py itself, not bwrap around it."""
    waiting = [local.shepherd_pid(attempt_id)]
    while waiting:
        pid = waiting.pop()
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if argv[3:4] and argv[3].endswith(b"keeper.py"):
            return pid
        for task in Path(f"/proc/{pid}/task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    raise AssertionError("no keeper")


def test_a_host_that_shuts_down_stops_its_jobs_in_order(local: LocalHarness) -> None:
    driver = Driver(local)
    story = driver.ready(driver.start(SAVING, grace_ms=5_000))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(local.shepherd_pid(story.attempt_id), number)
    ended = exit_of(driver.finished(story).end)
    assert (ended.reason, ended.code) == (EndReason.STOPPED, 7)
    assert "shutting down" in ended.text


def test_a_fork_bomb_is_cleared(local: LocalHarness) -> None:
    bomb = script(f"for i in $(seq 60); do (while :; do sleep {nap(18)} & wait; done) & done; wait")
    driver = Driver(local)
    story = driver.started(driver.start(bomb))
    wait_for(lambda: len(running("sleep", nap(18))) >= 60, "the bomb")
    local.engine.signal(story.attempt_id, Action.KILL)
    driver.finished(story)
    assert running("sleep", nap(18)) == []


def test_every_process_of_a_command_gets_the_checkpoint_signal(local: LocalHarness) -> None:
    code = textwrap.dedent("""
        import os, signal, time
        name = "parent" if os.fork() else "child"
        if name == "child":
            os.setsid()
        def save(*_):
            open(os.environ["DUSUAN_OUTPUT_DIR"] + "/" + name, "w").close()
            if name == "parent":
                os.wait()
            os._exit(0)
        signal.signal(signal.SIGUSR1, save)
        open(os.environ["DUSUAN_OUTPUT_DIR"] + "/ready." + name, "w").close()
        while name == "child" or len(os.listdir(os.environ["DUSUAN_OUTPUT_DIR"])) < 3:
            time.sleep(0.01)
        time.sleep(60)
    """)
    driver = Driver(local)
    argv = ("python", "-c", code)
    changes = {"script": None, "argv": argv, "checkpoint_signal": "SIGUSR1", "grace_ms": 5_000}
    story = driver.started(driver.start(exits(0), **changes))
    wait_for(lambda: len(local.engine.outputs("job1")) == 2, "both processes")
    local.engine.signal(story.attempt_id, Action.STOP)
    assert driver.finished(story).end.exit == Exit(EndReason.STOPPED, code=0)
    assert {name for name, _ in local.engine.outputs("job1")} >= {"parent", "child"}


# -- starting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("no-such-program", "x"), "command not found: no-such-program"),
        (("./missing",), "command not found: ./missing"),
        (("/etc/passwd",), "not allowed to run: /etc/passwd"),
        (("/",), "not allowed to run: /"),
    ],
)
def test_a_command_that_cannot_run_says_why(
    local: LocalHarness, argv: tuple[str, ...], text: str
) -> None:
    end, _ = run(local, argv=argv)
    assert exit_of(end).reason is EndReason.START_FAILED
    assert text in exit_of(end).text
    assert end.held_ms == 0
    assert end.n == 1


HOSTILE = ["a'; echo foo", '"; touch x #', "$(id)", "`id`", "-x", "*", "\n", "\\", "度算", " ", ""]


def test_hostile_arguments_arrive_as_they_are(local: LocalHarness) -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    _, log = run(local, argv=("python", "-c", code, *HOSTILE))
    assert json.loads(log) == HOSTILE


def test_hostile_environment_arrives_as_it_is(local: LocalHarness) -> None:
    env = {f"V{i}": text for i, text in enumerate(HOSTILE)} | {"a'; echo foo": "odd name"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    _, log = run(local, argv=("python", "-c", code), env=env)
    assert json.loads(log).items() >= env.items()


def test_hostile_scripts_are_only_scripts(local: LocalHarness) -> None:
    end, log = run(local, script('echo "a\'; echo foo"\necho 度算\nfalse\necho not reached'))
    assert log == "a'; echo foo\n度算\n"
    assert exit_of(end).code == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"job_id": "../x"},
        {"attempt_id": "a/b"},
        {"attempt_id": ".."},
        {"attempt_id": ""},
        {"argv": ("x",)},
        {"script": None},
        {"env": {"A=B": "x"}},
        {"env": {"A": "x\0y"}},
        {"checkpoint_signal": "SIGNOPE"},
        {"checkpoint_signal": "SIGKILL"},
        {"devices": ()},
        {"devices": ("cpu:a", "cpu:a")},
    ],
)
def test_orders_that_make_no_sense_are_refused(
    make_local: Callable[..., LocalHarness], changes: dict[str, Any]
) -> None:
    local = make_local("process")
    with pytest.raises(StartFailed):
        Driver(local).start(exits(0), **changes)
    assert list((local.root / "attempts").iterdir()) == []


def test_a_crash_between_folder_and_shepherd_heals(
    make_local: Callable[..., LocalHarness],
) -> None:
    local = make_local("process")
    attempt = local.root / "attempts" / "attempt1"
    attempt.mkdir()
    (attempt / "shepherd.lock").touch()
    (attempt / ".spec.json.new").write_text("{half")
    (local.root / "jobs" / "job1" / "work.new").mkdir(parents=True)
    (local.root / "jobs" / "job1" / "work.new" / "half").touch()
    end, log = run(local, script("ls -A"))
    assert exit_of(end).code == 0
    assert log == ""


def test_an_attempt_whose_shepherd_never_came_up_is_lost(
    make_local: Callable[..., LocalHarness],
) -> None:
    local = make_local("process")
    (local.root / "attempts" / "attempt1").mkdir()
    (news,) = local.engine.observe({"attempt1": 0})
    assert news.lost


def test_a_shepherd_at_its_end_holds_no_device(make_local: Callable[..., LocalHarness]) -> None:
    """Between its end record and its last breath another attempt may already start."""
    local = make_local("process")
    driver = Driver(local)
    driver.finished(driver.start(exits(0)))
    path = local.root / "attempts" / "attempt1" / "shepherd.lock"
    wait_for(lambda: not lock.is_held(path), "the shepherd's last breath")
    held = lock.take(path)
    assert held is not None
    local.restart()
    assert local.engine.adopt() == []
    again = driver.start(exits(0), attempt_id="attempt2", job_id="job2")
    assert exit_of(driver.finished(again).end).code == 0
    os.close(held)


def test_an_older_lease_does_not_even_reach_the_file(
    make_local: Callable[..., LocalHarness],
) -> None:
    """The shepherd may not have seen the newer one yet."""
    local = make_local("process")
    driver = Driver(local)
    story = driver.started(driver.start(STUBBORN))
    local.engine.set_lease(story.attempt_id, Lease(5, 7_000_000))
    local.engine.set_lease(story.attempt_id, Lease(4, 1_000))
    lease = json.loads((local.root / "attempts" / "attempt1" / "lease.json").read_text())
    assert lease == {"seq": 5, "held_ms_max": 7_000_000}


def test_a_start_returns_before_the_job_runs(local: LocalHarness) -> None:
    driver = Driver(local)
    began = time.perf_counter()
    story = driver.start(STUBBORN)
    assert time.perf_counter() - began < 0.2
    driver.started(story)


def test_news_wakes_the_service(local: LocalHarness) -> None:
    driver = Driver(local)
    story = driver.started(driver.start(script("sleep 0.3")))
    local.engine.drain()
    began = time.perf_counter()
    local.pass_ms(10)  # returns early when nudged, so go on until there is an end
    driver.finished(story)
    assert time.perf_counter() - began < 2


# -- the service dies ----------------------------------------------------------------------------


def test_the_service_killed_in_the_middle(
    make_local: Callable[..., LocalHarness], tmp_path: Path
) -> None:
    """A service of its own process group, killed with SIGKILL, leaves its job running."""
    code = f"""
    import os, sys, time
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from pathlib import Path
    from engine_harness import Driver, LocalHarness, Program
    from dusuan.sim.engine import Behaviour
    local = LocalHarness(Path({str(tmp_path / "engine")!r}), "process")
    driver = Driver(local)
    program = Program("for i in $(seq 10); do echo $i; sleep 0.05; done", Behaviour())
    story = driver.started(driver.start(program))
    print(story.cursor, flush=True)
    os.killpg(0, 9)
    """
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    died = subprocess.run(argv, start_new_session=True, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    local = make_local("process", tmp_path / "engine")
    assert local.engine.adopt() == ["attempt1"]
    driver = Driver(local)
    story = driver.start(exits(0))  # the same attempt: no second start
    story.cursor = int(died.stdout)
    assert driver.finished(story).records[0].n == 2
    assert local.engine.read_log("attempt1", 0, 100).split() == [b"%d" % i for i in range(1, 11)]


def test_a_reboot_means_lost(make_local: Callable[..., LocalHarness]) -> None:
    local = make_local("process")
    driver = Driver(local)
    story = driver.started(driver.start(STUBBORN))
    local.kill_shepherd(story.attempt_id)
    wait_for(lambda: local.engine.adopt() == [], "the keeper's clearing up")
    spec = local.root / "attempts" / "attempt1" / "spec.json"
    spec.write_text(spec.read_text().replace(json.loads(spec.read_text())["boot_id"], "before"))
    local.restart()
    assert driver.finished(story).lost


# -- the log -------------------------------------------------------------------------------------


def test_a_gigabyte_of_log_is_taken_quickly_and_cut(
    make_local: Callable[..., LocalHarness],
) -> None:
    cap = 1 << 20
    local = make_local("process", settings=Settings(log_bytes_max=cap))
    began = time.perf_counter()
    end, _ = run(local, script("head -c 1073741824 /dev/zero; echo done >&2"))
    assert time.perf_counter() - began < 15
    assert exit_of(end).code == 0
    assert end.log_bytes == (1 << 30) + 5
    log = (local.root / "attempts" / "attempt1" / "log").read_bytes()
    notice = log[cap:].decode()
    assert log[:cap] == bytes(cap)
    assert str((1 << 30) + 5 - cap) in notice
    assert notice.count("\n") == 2
    assert local.engine.read_log("attempt1", cap, 1000) == log[cap:]


def test_a_job_that_closes_its_output_costs_nothing(local: LocalHarness) -> None:
    end, log = run(local, script("echo before; exec >&- 2>&-; sleep 0.3"))
    assert (log, exit_of(end).code) == ("before\n", 0)


def test_the_log_is_read_while_the_job_runs_and_in_pieces(local: LocalHarness) -> None:
    driver = Driver(local)
    story = driver.started(driver.start(script("printf abcdef; sleep 60")))
    wait_for(lambda: local.engine.read_log("attempt1", 0, 100) == b"abcdef", "the log")
    assert local.engine.read_log("attempt1", 2, 3) == b"cde"
    assert local.engine.read_log("attempt1", 6, 3) == b""
    assert local.engine.read_log("nope", 0, 3) == b""
    local.engine.signal(story.attempt_id, Action.KILL)
    driver.finished(story)
    assert local.engine.read_log("attempt1", 0, 100) == b"abcdef"


# -- the report ----------------------------------------------------------------------------------


def test_a_report_reaches_the_journal(local: LocalHarness) -> None:
    text = """
    echo '{"flop": 5, "progress": [1, 4], "result": {"loss": 2.5}}' >> $DUSUAN_REPORT
    sleep 0.3
    echo '{"flop": 9, "progress": [4, 4], "result": {"accuracy": 0.97}}' >> $DUSUAN_REPORT
    """
    driver = Driver(local)
    story = driver.finished(driver.start(script(text)))
    assert any(record.flop == 5 and record.exit is None for record in story.records)
    assert story.end.flop == 9
    assert story.end.progress == (4.0, 4.0)
    assert story.end.result == {"loss": 2.5, "accuracy": 0.97}


@pytest.mark.parametrize(
    "damage",
    [
        'rm "$DUSUAN_REPORT"; mkfifo "$DUSUAN_REPORT"',
        'rm "$DUSUAN_REPORT"; ln -s /dev/zero "$DUSUAN_REPORT"',
        'rm "$DUSUAN_REPORT"; mkdir "$DUSUAN_REPORT"',
        'head -c 20000000 /dev/urandom > "$DUSUAN_REPORT"',
        'head -c 20000000 /dev/zero > "$DUSUAN_REPORT"',
    ],
)
def test_a_damaged_report_harms_nobody(
    make_local: Callable[..., LocalHarness], damage: str
) -> None:
    local = make_local("process")
    end, _ = run(local, script(f"{damage}; sleep 0.2; exit 3"))
    assert exit_of(end) == Exit(EndReason.EXIT, code=3)
    assert end.flop is None


# -- what a job sees -----------------------------------------------------------------------------

SEES = """
import json, os, sys
print(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(),
    "cpus": sorted(os.sched_getaffinity(0)),
    "descriptors": sorted(int(d) for d in os.listdir("/proc/self/fd"))}))
"""


def seen(local: LocalHarness, **changes: Any) -> Any:
    _, log = run(local, argv=("python", "-c", SEES), **changes)
    return json.loads(log)


def test_nothing_of_the_service_leaks_into_a_job(
    local: LocalHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"DUSUAN_API_KEY": "k", "DATABASE_URL": "postgres://x", "SOME_TOKEN": "t"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    leak = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leak, True)
    found = seen(local)
    os.close(leak)
    assert not secrets.keys() & found["env"].keys()
    assert [d for d in found["descriptors"] if d > 2] == [3]  # the one that lists them


def test_a_job_is_told_where_it_is(local: LocalHarness) -> None:
    found = seen(local, env={"HOME": "/tmp", "DUSUAN_JOB_ID": "forged"})
    env = found["env"]
    assert env["DUSUAN_JOB_ID"] == "job1"
    assert env["DUSUAN_ATTEMPT"] == "attempt1"
    assert env["DUSUAN_DEVICES"] == "cpu:a"
    assert env["HOME"] == "/tmp"
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert env["OMP_NUM_THREADS"] == env["OPENBLAS_NUM_THREADS"] == env["MKL_NUM_THREADS"] == "1"
    assert env["PATH"].startswith(str(Path(sys.prefix).resolve() / "bin") + ":")
    assert found["cwd"] == env["DUSUAN_WORK_DIR"]
    assert found["cpus"] == [host_devices()[0].index]


def test_a_second_attempt_finds_what_the_first_left(local: LocalHarness) -> None:
    for name in ("WORK", "CHECKPOINT", "OUTPUT"):
        run(local, script(f"echo x > $DUSUAN_{name}_DIR/{name}"), attempt_id=f"write.{name}")
        end, log = run(local, script(f"cat $DUSUAN_{name}_DIR/{name}"), attempt_id=f"read.{name}")
        assert (log, exit_of(end).code) == ("x\n", 0)


def test_memory_beyond_the_limit_is_refused(local: LocalHarness) -> None:
    end, log = run(local, argv=("python", "-c", "bytearray(1 << 30)"), memory_mib=256)
    assert exit_of(end).code == 1
    assert "MemoryError" in log


def test_gpus_of_any_make_are_named_in_its_own_variable(
    make_local: Callable[..., LocalHarness],
) -> None:
    cards = [Device(f"npu:{i}", "n", "Huawei", "910B", "gpu", i, 65_536) for i in range(4)]
    local = make_local("process", devices=cards)
    env = seen(local, devices=("npu:3", "npu:1"))["env"]
    assert env["ASCEND_RT_VISIBLE_DEVICES"] == "1,3"
    assert env["DUSUAN_DEVICES"] == "npu:3,npu:1"
    assert "OMP_NUM_THREADS" not in env


# -- the sandbox ---------------------------------------------------------------------------------


@pytest.fixture
def boxed(make_local: Callable[..., LocalHarness]) -> LocalHarness:
    return make_local("bubblewrap")


def test_a_sandboxed_job_sees_no_one_elses_data(boxed: LocalHarness, tmp_path: Path) -> None:
    run(boxed, script("echo secret > mine"), job_id="other", attempt_id="other")
    (tmp_path / "operator.key").write_text("secret")
    places = [boxed.root, boxed.root / "jobs", tmp_path, tmp_path / "operator.key", Path.home()]
    for place in places:
        end, log = run(
            boxed, argv=("/bin/ls", str(place)), attempt_id=f"look.{places.index(place)}"
        )
        assert exit_of(end).code != 0 or "secret" not in log, log
        assert "other" not in log
        assert "attempts" not in log
        assert "operator.key" not in log or "No such file" in log


def test_data_below_a_system_folder_is_covered(
    make_local: Callable[..., LocalHarness],
) -> None:
    """An engine whose root is below a folder that the sandbox shows."""
    try:
        folder = Path(tempfile.mkdtemp(dir="/opt"))
    except OSError:
        pytest.skip("this user may not write below /opt")
    try:
        boxed = make_local("bubblewrap", folder / "engine", hidden=(folder,))
        (folder / "operator.key").touch()
        end, log = run(boxed, argv=("/bin/ls", "-A", str(folder)))
        assert (exit_of(end).code, log) == (0, "")
    finally:
        shutil.rmtree(folder)


def test_a_sandboxed_job_has_its_own_process_namespace(boxed: LocalHarness) -> None:
    _, log = run(boxed, script("echo $$; ls /proc | grep -c '^[0-9]'"))
    pid, count = log.split()
    assert int(pid) < 10
    assert int(count) < 10


def test_a_sandboxed_job_cannot_kill_its_keeper(boxed: LocalHarness) -> None:
    end, _ = run(boxed, script("kill -9 1; kill -INT 1; kill -TERM 1; sleep 0.2; exit 6"), env={})
    assert exit_of(end).code in (1, 6)  # as another user it is not even allowed to try


def test_a_sandboxed_job_has_no_network_unless_it_asks(boxed: LocalHarness) -> None:
    code = "print(open('/proc/net/dev').read())"
    _, alone = run(boxed, argv=("python", "-c", code), attempt_id="alone")
    _, connected = run(boxed, argv=("python", "-c", code), attempt_id="net", network=True)
    interfaces = [line.split(":")[0].strip() for line in alone.splitlines() if ":" in line]
    assert interfaces == ["lo"]
    host = [n for n in Path("/proc/net/dev").read_text().splitlines() if ":" in n]
    assert len([line for line in connected.splitlines() if ":" in line]) == len(host)


def test_a_sandboxed_job_writes_only_where_it_may(boxed: LocalHarness) -> None:
    code = """
import os
for folder in ("/", "/usr", "/etc", "/dusuan", "/proc/sys/kernel", os.path.dirname(os.__file__)):
    try:
        open(folder + "/x", "w")
        print("wrote", folder)
    except OSError:
        pass
for name in ("WORK", "CHECKPOINT", "OUTPUT"):
    open(os.environ[f"DUSUAN_{name}_DIR"] + "/x", "w")
for folder in ("/tmp", "/dev/shm", "/var/tmp"):
    open(folder + "/x", "w")
"""
    end, log = run(boxed, argv=("python", "-c", code))
    assert (log, exit_of(end).code) == ("", 0)
    assert not Path("/tmp/x").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")
def test_a_sandboxed_job_is_never_root(boxed: LocalHarness) -> None:
    code = "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"
    status = (
        "print([l for l in open('/proc/self/status') if l[:6] in ('CapEff', 'CapPrm', 'CapInh')])"
    )
    _, log = run(boxed, argv=("python", "-c", f"{code}; {status}"))
    assert log.startswith("(60987, 60987, 60987) (60987, 60987, 60987) []")
    assert log.count("0000000000000000") == 3
    assert "unprivileged user" in boxed.engine.capabilities().isolation


def test_the_interpreter_and_its_packages_are_there(boxed: LocalHarness) -> None:
    code = "import numpy, sys; print(sys.prefix)"
    end, log = run(boxed, argv=("python", "-c", code))
    assert (log.strip(), exit_of(end).code) == (str(Path(sys.prefix).resolve()), 0)


# -- other users ---------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to drop")
def test_plain_processes_of_root_become_nobody_where_nobody_can_go(
    make_local: Callable[..., LocalHarness],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        local = make_local("process", Path(name) / "engine")
        local.engine._isolation = Isolation(None, JOB_USER, "")
        for folder in (local.root, local.root / "jobs"):
            folder.chmod(0o711)
        text = "id -u; id -G; echo x > $DUSUAN_OUTPUT_DIR/x; echo '{\"flop\": 1}' >> $DUSUAN_REPORT"
        end, log = run(local, script(text))
        assert log.split() == ["60987", "60987"]
        assert exit_of(end).code == 0
        assert end.flop == 1
        assert local.engine.outputs("job1") == [("x", 2)]


ORDINARY = """
import sys, time
from pathlib import Path
from dusuan.engines.base import Lease, StartOrder
from dusuan.engines.local import LocalEngine
engine = LocalEngine(Path(sys.argv[1]) / "engine", isolation=sys.argv[2])
script = "id -u; echo x > $DUSUAN_OUTPUT_DIR/x; kill -9 $1; sleep 0.1; exit 5"
argv = ("bash", "-c", script, "bash", "1" if sys.argv[2] == "bubblewrap" else "999999999")
devices = (engine.inventory()[0].device,)
engine.start(StartOrder("j", "a", devices, Lease(1, 60000), argv=argv))
cursor, records = 0, []
while not (records and records[-1].exit):
    time.sleep(0.02)
    for news in engine.observe({"a": cursor}):
        assert not news.lost
        cursor, records = news.cursor, records + list(news.records)
print(records[-1].exit.reason, records[-1].exit.code)
print(engine.read_log("a", 0, 5))
print(engine.outputs("j"))
print(engine.capabilities().isolation)
"""


def python_for_nobody() -> str | None:
    """An interpreter that an unprivileged user can run, new enough for dusuan."""
    check = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            subprocess.run(
                [python, "-c", check], user=65534, group=65534, check=True, capture_output=True
            )
        except (OSError, subprocess.SubprocessError):
            continue
        return python
    return None


@pytest.mark.skipif(os.geteuid() != 0, reason="as an ordinary user every other test is this one")
@pytest.mark.parametrize("isolation", ["process", "bubblewrap"])
def test_an_ordinary_user_can_run_the_engine(
    isolation: str, request: pytest.FixtureRequest
) -> None:
    if isolation == "bubblewrap":
        request.getfixturevalue("bubblewrap")
    python = python_for_nobody()
    if python is None:
        pytest.skip("no interpreter that an ordinary user can reach")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        sources = Path(folder) / "sources"  # the checkout may be where root alone may enter
        shutil.copytree(SOURCE / "dusuan", sources / "dusuan")
        done = subprocess.run(
            [python, "-B", "-c", ORDINARY, folder, isolation],
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PYTHONPATH": str(sources), "PATH": "/usr/bin:/bin"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
        )
    if isolation == "bubblewrap" and "IsolationUnavailable" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])  # some hosts forbid users their namespaces
    assert done.returncode == 0, done.stderr
    ended, log, outputs, sentence = done.stdout.splitlines()
    assert ended.split() == ["exit", "5"]
    assert log == "b'65534'"
    assert outputs == "[('x', 2)]"
    assert ("bubblewrap" in sentence) == (isolation == "bubblewrap")


# -- outputs -------------------------------------------------------------------------------------


def test_outputs_are_listed_and_opened_without_following_links(local: LocalHarness) -> None:
    text = """
    cd $DUSUAN_OUTPUT_DIR
    mkdir -p deep/er; echo hello > deep/er/file; echo top > top
    ln -s /etc/passwd link; ln -s / out; ln -s deep/er shortcut; mkfifo pipe
    """
    run(local, script(text))
    engine = local.engine
    assert engine.outputs("job1") == [("deep/er/file", 6), ("top", 4)]
    with engine.open_output("job1", "deep/er/file") as file:
        assert file.read() == b"hello\n"
    refused = ["link", "out/etc/passwd", "shortcut/file", "pipe", "deep", "../output/top", "", "."]
    for relative in [*refused, "/etc/passwd", "nope", "deep/../top", "a\0b"]:
        with pytest.raises(FileNotFoundError):
            engine.open_output("job1", relative)
    with pytest.raises(FileNotFoundError):
        engine.open_output("../job1", "top")
    assert engine.outputs("nope") == []


# -- limits of paths -----------------------------------------------------------------------------


def test_an_engine_works_below_a_very_long_path(
    make_local: Callable[..., LocalHarness], tmp_path: Path
) -> None:
    local = make_local("process", tmp_path / ("x" * 100) / ("y" * 100) / "engine")
    driver = Driver(local)
    story = driver.start(exits(0))
    descriptor = local.engine.fileno()
    assert descriptor is not None
    time.sleep(0.3)
    local.engine.drain()  # would raise if the socket were broken
    assert exit_of(driver.finished(story).end).code == 0


def test_an_unknown_isolation_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="isolation"):
        LocalEngine(tmp_path, isolation="docker")


def test_the_lease_binds_while_no_service_is_there(make_local: Callable[..., LocalHarness]) -> None:
    local = make_local("process")
    driver = Driver(local)
    story = driver.started(driver.start(STUBBORN, lease=Lease(1, 700), grace_ms=200))
    local.engine.close()
    time.sleep(1.0)
    local.restart()
    assert exit_of(driver.finished(story).end).reason is EndReason.LEASE
    assert story.end.held_ms <= 700
