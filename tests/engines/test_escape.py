"""Attempts to get out of a sandbox, each by a real job in bubblewrap; docs/security.md lists them.

A job runs a small Python program that tries one thing. It says `got …` when it succeeded, which is
the failure of the test; that the attempt itself was made is told by `tried`.

What is tried here would ruin the machine that runs it if the sandbox were broken. So every program
begins with `GUARD`: it compares its namespaces, user and rights with those of the test, and where
it is not kept apart it says `NOT ISOLATED` and ends before it tries anything. That too fails the
test. Programs that take too much of something stop by themselves at an amount that hurts nobody.
Never run one of them without its guard.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_harness import Driver, LocalHarness, Program, running

from dusuan.core.metering.journal import EndReason, Exit
from dusuan.engines.local import Settings
from dusuan.sim.engine import Behaviour

MakeLocal = Callable[..., LocalHarness]
SETTINGS = Settings(processes_max=64)


@pytest.fixture
def local(make_local: MakeLocal) -> LocalHarness:
    return make_local("bubblewrap", settings=SETTINGS)


# The namespaces of which a job has its own; the network's is its own unless it asked for one.
NAMESPACES = ("pid", "mnt", "ipc", "uts", *(["user"] if os.getuid() else []))
GUARD = """
def guard(outer):
    import os
    def status(name):
        with open("/proc/self/status") as file:
            return next(line.split()[1] for line in file if line.startswith(name + ":"))
    try:
        same = [kind for kind in outer if os.readlink("/proc/self/ns/" + kind) == outer[kind]]
        rights = [n for n in ("CapInh", "CapPrm", "CapEff", "CapAmb") if int(status(n), 16)]
        free = [] if status("NoNewPrivs") == "1" else ["NoNewPrivs"]
        user = ["root"] if os.geteuid() == 0 or os.getuid() == 0 else []
        shown = [] if int(status("NSpid")) == os.getpid() else ["the host's /proc"]
        problems = same + rights + free + user + shown
    except BaseException as error:
        problems = [repr(error)]
    if problems:
        print("NOT ISOLATED", *problems, flush=True)
        os._exit(0)
"""


def guarded(code: str) -> str:
    """`code` as a program that does nothing unless it is kept apart from this process."""
    outer = {kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in NAMESPACES}
    return f"{GUARD}\nguard({outer!r})\n{textwrap.dedent(code)}"


def attempt(local: LocalHarness, code: str, name: str = "attempt1", **changes: object) -> str:
    """Run `code` as a job to its end; its log."""
    program = guarded(code) + "\nprint('tried', flush=True)\n"
    driver = Driver(local)
    job = {
        "job_id": f"job-{name}",
        "attempt_id": name,
        "argv": (sys.executable, "-c", program),
        "script": None,
    }
    assert local.engine._isolation.sandbox is not None, "never without a sandbox"
    story = driver.finished(driver.start(Program("", Behaviour()), **{**job, **changes}))
    local.last = story.end.exit  # type: ignore[attr-defined] # for `ended`
    log = local.engine.read_log(name, 0, 1 << 20).decode()
    assert "NOT ISOLATED" not in log, log
    return log


def ended(local: LocalHarness) -> Exit:
    """How the last attempt ended."""
    found: Exit = local.last  # type: ignore[attr-defined] # set by `attempt`
    return found


def refused(log: str) -> None:
    assert "tried" in log, log
    assert "got" not in log, log


def test_the_guard_stops_what_is_not_kept_apart() -> None:
    """Here, outside of any sandbox, only the word after the guard is at stake."""
    done = subprocess.run(
        [sys.executable, "-c", guarded("print('went on')")], capture_output=True, text=True
    )
    words = done.stdout.split()
    assert words[:2] == ["NOT", "ISOLATED"], done
    assert {*NAMESPACES, "NoNewPrivs"} <= {*words}
    assert "went on" not in done.stdout


def test_the_guard_lets_a_job_go_on(local: LocalHarness) -> None:
    assert attempt(local, "print('went on')") == "went on\ntried\n"


PRELUDE = """
import ctypes, errno, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    return libc.syscall(number, *args)
def attempt(what, function):
    try:
        value = function()
    except (OSError, ValueError) as error:
        return print("refused", what, error)
    if value == -1:
        return print("refused", what, errno.errorcode.get(ctypes.get_errno()))
    print("got", what, value)
"""


# Files


def test_another_jobs_files(local: LocalHarness) -> None:
    attempt(local, "open('secret', 'w').write('theirs')", "first")
    root = str(local.root)
    log = attempt(
        local,
        PRELUDE
        + f"""
for path in ("{root}", "{root}/jobs", os.path.join("{root}/jobs/job-first", "work", "secret"),
             "{root}/attempts", "{root}/attempts/first/journal"):
    attempt(path, lambda: os.listdir(path) if not path.endswith(("secret", "journal"))
            else open(path).read())
for folder in ("/dusuan", os.path.join("/dusuan", "work", ".."), "/tmp", "/var/tmp", "/dev/shm"):
    for name in os.listdir(folder):
        if "first" in name or "secret" in name:
            print("got", folder, name)
""",
        "second",
    )
    refused(log)


def test_the_platforms_data_and_its_keys(make_local: MakeLocal, tmp_path: Path) -> None:
    """Its whole data directory is hidden, wherever it lies: below /opt, in the interpreter."""
    data = tmp_path / "data"
    (data / "postgres").mkdir(parents=True)
    (data / "operator.key").write_text("dk_secret")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(data / "postgres/.s.PGSQL.5432"))
    local = make_local("bubblewrap", root=data / "engine", hidden=[data])
    log = attempt(
        local,
        PRELUDE
        + f"""
attempt("key", lambda: open("{data}/operator.key").read())
attempt("data", lambda: os.listdir("{data}"))
attempt("socket", lambda: socket.socket(socket.AF_UNIX).connect("{data}/postgres/.s.PGSQL.5432"))
for name, value in os.environ.items():
    if "dk_" in value or "postgres" in value or name in ("DATABASE_URL", "DUSUAN_API_KEY"):
        print("got", name)
""",
    )
    server.close()
    refused(log)


def test_lease_and_journal_cannot_be_written(local: LocalHarness) -> None:
    log = attempt(
        local,
        PRELUDE
        + f"""
for name in ("lease.json", "journal", "control.json", "spec.json", "shepherd.lock"):
    attempt(name, lambda: open("{local.root}/attempts/attempt1/" + name, "a"))
for number in range(3, 256):  # and no descriptor of the platform's was left open
    try:
        print("got descriptor", number, os.readlink(f"/proc/self/fd/{{number}}")) \\
            if os.fstat(number) and "/proc" not in os.readlink(f"/proc/self/fd/{{number}}") else 0
    except OSError:
        pass
""",
    )
    refused(log)


def test_what_is_the_systems_stays_as_it_is(local: LocalHarness) -> None:
    log = attempt(
        local,
        PRELUDE
        + """
for path in ("/etc/x", "/usr/x", "/x", "/dusuan/x", "/proc/sys/kernel/core_pattern", "/sys/x",
             "/proc/sysrq-trigger", "/dusuan/script", "/run/x"):
    attempt(path, lambda: os.open(path, os.O_WRONLY | os.O_CREAT))  # to open it says enough
for path in ("/etc/shadow", os.path.expanduser("~root") + "/.ssh/id_rsa", "/proc/1/environ",
             "/proc/kcore", "/dev/mem", "/dev/vda", "/dev/kmsg"):
    attempt(path, lambda: open(path, "rb").read(1))
""",
    )
    refused(log)


# Rights


def test_rights_cannot_be_had(local: LocalHarness) -> None:
    log = attempt(
        local,
        PRELUDE
        + """
attempt("setuid", lambda: os.setuid(0))
attempt("setgroups", lambda: os.setgroups([0]))
attempt("mount", lambda: libc.mount(b"x", b"/tmp", b"tmpfs", 0, None))
attempt("remount", lambda: libc.mount(None, b"/", None, 32, None))
attempt("umount", lambda: libc.umount2(b"/proc", 2))
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("device", lambda: os.mknod("/tmp/sda", 0o60666, os.makedev(8, 0)))
attempt("device in work", lambda: os.mknod("null", 0o20666, os.makedev(1, 3)))
attempt("hostname", lambda: libc.sethostname(b"x", 1))
attempt("reboot", lambda: libc.reboot(0))
attempt("module", lambda: call(175, b"", 0, b""))
attempt("clock", lambda: time.clock_settime(0, time.time()))
attempt("priority", lambda: os.nice(-5))
attempt("owner", lambda: os.chown("/usr/bin/env", 0, 0))
print("caps", [l for l in open("/proc/self/status") if l.startswith("CapEff")][0].split()[1])
import shutil, subprocess
shutil.copy("/usr/bin/id", "id")
os.chmod("id", 0o4755)  # of ourselves: harmless, and without effect
for program in ("su", "sudo", "mount", "passwd"):
    found = shutil.which(program)
    if found and os.stat(found).st_mode & 0o4000:
        code = "import os,sys; sys.exit(0)"
        done = subprocess.run([found, "--version"], capture_output=True)
status = open("/proc/self/status").read()
if "NoNewPrivs:\\t1" not in status: print("got new privileges")
""",
    )
    refused(log)
    assert "caps 0000000000000000" in log


def test_a_namespace_of_its_own_gives_no_hold_on_the_host(local: LocalHarness) -> None:
    """A new user namespace, where the kernel allows one, has no rights over what is outside."""
    log = attempt(
        local,
        PRELUDE
        + """
if os.geteuid() == 0: print("got root")
made = libc.unshare(0x10000000 | 0x00020000)
print("unshare", made)
attempt("host etc", lambda: open("/etc/passwd", "a"))
attempt("mount proc over", lambda: os.open("/proc/sys/kernel/hostname", os.O_WRONLY))
attempt("device", lambda: os.mknod("/tmp/vda", 0o60666, os.makedev(254, 0)))
""",
    )
    refused(log)


# Processes


def test_processes_of_others(local: LocalHarness) -> None:
    other = subprocess.Popen(["sleep", "60"])
    log = attempt(
        local,
        PRELUDE
        + f"""
attempt("signal", lambda: os.kill({other.pid}, 0))
attempt("signal the service", lambda: os.kill({os.getpid()}, 0))
attempt("environ", lambda: open("/proc/{os.getpid()}/environ").read())
others = [p for p in os.listdir("/proc") if p.isdigit() and int(p) not in (1, os.getpid())]
if others: print("got processes", others)
attempt("keeper's memory", lambda: open("/proc/1/mem", "rb"))
attempt("keeper's files", lambda: os.listdir("/proc/1/fd"))
attempt("keeper's root", lambda: os.listdir("/proc/1/root"))
attempt("ptrace of the keeper", lambda: libc.ptrace(16, 1, None, None))
if os.geteuid() != os.stat("/proc/1").st_uid:
    attempt("kill the keeper", lambda: os.kill(1, 0))
""",
    )
    assert other.poll() is None
    other.kill()
    other.wait()
    refused(log)


def test_killing_everything_ends_only_the_job(local: LocalHarness) -> None:
    log = attempt(local, PRELUDE + "attempt('all', lambda: os.kill(-1, 0) or -1)")
    refused(log)
    attempt(local, "import os; os.kill(-1, 9)", "second")
    assert "tried" in attempt(local, "pass", "third")


def test_the_terminal_the_keyrings_and_shared_memory(local: LocalHarness) -> None:
    log = attempt(
        local,
        PRELUDE
        + """
import fcntl, termios
attempt("terminal", lambda: os.open("/dev/tty", os.O_RDWR))
attempt("TIOCSTI", lambda: fcntl.ioctl(0, termios.TIOCSTI, b"x"))
attempt("console", lambda: os.open("/dev/console", os.O_RDWR))
for line in open("/proc/keys") if os.access("/proc/keys", os.R_OK) else ():
    if "dusuan" in line: print("got key", line)
for name in ("shm", "sem", "msg"):
    rows = open(f"/proc/sysvipc/{name}").read().splitlines()[1:]
    if rows: print("got", name, rows)
""",
    )
    refused(log)


# Network


@pytest.fixture
def listener() -> Iterator[int]:
    """Someone who listens on loopback, as the API does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_no_network_at_all(local: LocalHarness, listener: int) -> None:
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0dusuan-test-{os.getpid()}")
    abstract.listen()
    log = attempt(
        local,
        PRELUDE
        + f"""
attempt("the API", lambda: socket.create_connection(("127.0.0.1", {listener}), 2))
attempt("outside", lambda: socket.create_connection(("192.0.2.1", 80), 2))
attempt("name", lambda: socket.getaddrinfo("example.org", 80))
attempt("datagram", lambda: socket.socket(type=2).sendto(b"x", ("192.0.2.1", 53)))
name = "\\0dusuan-test-{os.getpid()}"
attempt("abstract socket", lambda: socket.socket(socket.AF_UNIX).connect(name) or "connected")
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
links = [l.split(":")[0].strip() for l in open("/proc/net/dev").read().splitlines()[2:]]
if links != ["lo"]: print("got links", links)
""",
    )
    abstract.close()
    refused(log)


def test_with_a_network_it_still_gets_no_key(local: LocalHarness, listener: int) -> None:
    """Asked for, the network is the host's; what protects the API then is its key."""
    log = attempt(
        local,
        f"import socket; socket.create_connection(('127.0.0.1', {listener}), 2); print('reached')",
        network=True,
    )
    assert "reached" in log


# Too much of something


def test_too_much_memory(local: LocalHarness) -> None:
    """Over all its processes, of which none alone passes its own limit."""
    code = """
    import os, time
    for _ in range(4):
        if os.fork() == 0:
            kept = b'x' * (60 << 20)
            time.sleep(30)
    time.sleep(30)
    """
    attempt(local, code, memory_mib=150)
    assert (ended(local).reason, ended(local).text) == (
        EndReason.LIMIT,
        "it used more than 150 MiB of memory",
    )


@pytest.mark.parametrize(
    "place",
    [
        "open('/dev/shm/a', 'wb')",
        "open('/tmp/a', 'wb')",
        "open(os.memfd_create('a'), 'wb')",
    ],
)
def test_memory_that_is_no_processs_own(local: LocalHarness, place: str) -> None:
    code = f"""
    import os, time
    f = {place}
    for _ in range(200): f.write(b"x" * (1 << 20))
    f.flush()
    time.sleep(30)
    """
    attempt(local, code, memory_mib=100)
    assert ended(local).reason is EndReason.LIMIT, ended(local)


def test_shared_memory_counts_once(local: LocalHarness) -> None:
    code = """
    import mmap, os, time
    shared = mmap.mmap(-1, 60 << 20)
    shared.write(b'x' * (60 << 20))
    for _ in range(4):
        if os.fork() == 0:
            shared.seek(0); shared.read(60 << 20)[0]; time.sleep(1.2); os._exit(0)
    time.sleep(1.0)
    """
    # Five that look at the same 60 MiB are no 300; each read makes a copy for a moment, though.
    attempt(local, code.replace("shared.read(60 << 20)[0]", "sum(shared[::4096])"), memory_mib=150)
    assert ended(local).reason is EndReason.EXIT, ended(local)


def test_too_many_processes(local: LocalHarness) -> None:
    code = """
    import os, time
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(20)
            os._exit(0)
    time.sleep(20)
    """
    attempt(local, code)
    assert ended(local).reason is EndReason.LIMIT
    assert ended(local).text == "it had more than 64 processes"


@pytest.mark.parametrize("trick", ["plain", "many", "deleted"])
def test_too_much_disk(make_local: MakeLocal, trick: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what is free, here 16 MiB: in one file, in many, in a file that has no name."""
    local = make_local("bubblewrap", settings=Settings(disk_share=1e-9))
    code = {
        "plain": """
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            try:
                with open("a", "wb") as f:
                    for _ in range(64): f.write(b"x" * (1 << 20))
                print("got it all")
            except OSError as error: print("refused", error)
            """,
        "many": """
            import time
            for n in range(40):
                open(f"/dusuan/output/{n}", "wb").write(b"x" * (1 << 20)); time.sleep(0.01)
            time.sleep(30)
            """,
        "deleted": """
            import os, time
            kept = []
            for n in range(40):
                kept.append(open("gone", "wb")); os.unlink("gone")
                kept[-1].write(b"x" * (1 << 20)); kept[-1].flush()
            time.sleep(30)
            """,
    }[trick]
    log = attempt(local, code)
    if trick == "plain":  # the kernel's own limit: no file larger than that
        refused(log)
    else:
        assert ended(local).reason is EndReason.LIMIT, ended(local)
        assert ended(local).text == "its files took more than 16 MiB of disk"


def test_too_much_log(make_local: MakeLocal) -> None:
    local = make_local("bubblewrap", settings=Settings(log_bytes_max=100_000))
    attempt(local, "print('x' * 5_000_000)")
    kept = (local.root / "attempts/attempt1/log").stat().st_size
    assert 100_000 <= kept < 100_200


def test_too_many_open_files_and_threads(local: LocalHarness) -> None:
    log = attempt(
        local,
        """
        import os, resource
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try: resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1)); print("got more")
        except (ValueError, OSError): pass
        for name in ("CORE", "RTPRIO"):
            if resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1]: print("got", name)
        """,
    )
    refused(log)


def test_a_job_that_is_stopped_is_gone_with_all_it_started(local: LocalHarness) -> None:
    """Daemons, double forks and new sessions end with it."""
    mark = f"{time.time_ns()}"
    code = f"""
    import os, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "77{mark}"])
        os._exit(0)
    time.sleep(0.3)
    """
    attempt(local, code)
    assert not running("sleep", f"77{mark}")


# What of the platform shows


def seen_of(process: Path) -> tuple[bytes, bytes]:
    """Arguments, which everyone sees, and environment of a process."""
    try:
        return (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
    except OSError:
        return b"", b""  # it has ended


def test_nothing_secret_shows_in_processes(
    make_local: MakeLocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither arguments nor environments of what the platform starts hold keys or addresses."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:hunter2@db/x")
    monkeypatch.setenv("DUSUAN_API_KEY", "dk_very-secret")
    local = make_local("bubblewrap")
    found: list[tuple[bytes, bytes]] = []

    def look() -> None:
        time.sleep(0.4)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and entry.name != str(os.getpid()):
                shown = seen_of(entry)
                if b"attempt1" in shown[0] or b"JOB_MARK" in shown[1]:
                    found.append(shown)

    looker = threading.Thread(target=look)
    looker.start()
    attempt(local, "import time; time.sleep(0.8)", env={"JOB_MARK": "customer-secret"})
    looker.join()
    assert len(found) >= 2  # its shepherd, and the job itself
    assert any(b"customer-secret" in environ for _, environ in found)  # the job's own
    for argv, environ in found:
        assert b"customer-secret" not in argv
        assert b"hunter2" not in argv + environ
        assert b"dk_very-secret" not in argv + environ
    kept = b"".join(p.read_bytes() for p in (local.root / "attempts/attempt1").glob("*[!n]"))
    assert b"hunter2" not in kept
    assert b"dk_very-secret" not in kept
    journal = (local.root / "attempts/attempt1/journal").read_bytes()
    assert b"customer-secret" not in journal
