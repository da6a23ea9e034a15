"""The embedded server, for real: starts, restarts, crashes, users, long paths."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dusuan.store import _server_files as files
from dusuan.store.embedded import (
    EmbeddedPostgres,
    EmbeddedPostgresError,
    with_database,
    without_password,
)

HASTY = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}
NOBODY = 65534
SOURCE = Path(files.__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing user needs root")


@contextmanager
def serving(
    data_dir: Path, settings: dict[str, str] = HASTY, keep: bool = False
) -> Iterator[EmbeddedPostgres]:
    """A server that is stopped afterwards, its 40 MB removed unless they are to be kept."""
    server = EmbeddedPostgres(data_dir, settings=settings, timeout_s=30)
    try:
        yield server
    finally:
        server.stop()
        if not keep:
            shutil.rmtree(data_dir)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    with serving(tmp_path_factory.mktemp("embedded") / "pg") as running:
        running.start()
        yield running


def ask(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def do(url: str, statement: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())


def layout_of(server: EmbeddedPostgres) -> files.Layout:
    return server._layout


def pid_of(server: EmbeddedPostgres) -> int:
    pid = files.postmaster_pid(layout_of(server))
    assert pid is not None
    return pid


def kill_postmaster(server: EmbeddedPostgres) -> None:
    os.kill(pid_of(server), signal.SIGKILL)
    deadline = time.monotonic() + 20
    while server.running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.running()


def test_first_start_gives_a_database_of_our_own(tmp_path: Path) -> None:
    with serving(tmp_path / "new" / "pg", settings={}) as server:
        assert not server.running()
        url = server.start()
        assert server.running()
        assert ask(url, "select current_database() || current_user") == "dusuandusuan"
        assert ask(url, "show data_checksums") == "on"
        assert ask(url, "show synchronous_commit") == "on"
        assert ask(url, "show fsync") == "on"
        assert ask(url, "select lower('ÄÖ') || '度算'") == "äö度算"


def test_restart_keeps_data(server: EmbeddedPostgres) -> None:
    do(server.start(), "create table kept as select 42 as answer")
    server.stop()
    assert not server.running()
    server.stop()  # a second stop is not an error
    assert ask(server.start(), "select answer from kept") == 42


def test_second_start_uses_the_running_server(server: EmbeddedPostgres) -> None:
    first = server.start()
    other = EmbeddedPostgres(layout_of(server).root)
    assert other.running()
    assert other.start() == first
    assert ask(first, "show fsync") == "off"


def test_settings_are_renewed_at_the_next_start(server: EmbeddedPostgres) -> None:
    server.stop()
    renewed = EmbeddedPostgres(layout_of(server).root, settings={**HASTY, "work_mem": "7MB"})
    assert ask(renewed.start(), "show work_mem") == "7MB"
    with (
        psycopg.connect(renewed.start(), autocommit=True) as connection,
        pytest.raises(psycopg.errors.FeatureNotSupported, match="ALTER SYSTEM"),
    ):
        connection.execute("alter system set work_mem = '8MB'")


def test_stop_ends_open_transactions_and_every_process(server: EmbeddedPostgres) -> None:
    connection = psycopg.connect(server.start())
    connection.execute("create table lost (x int)")
    pid = pid_of(server)
    server.stop()
    connection.close()
    assert not files.is_postgres(pid)
    assert not layout_of(server).pid_file.exists()
    assert ask(server.start(), "select to_regclass('lost')") is None


def test_server_of_another_process_group_and_no_tcp(server: EmbeddedPostgres) -> None:
    url = server.start()
    pid = pid_of(server)
    assert ask(url, "show listen_addresses") == ""
    assert os.getsid(pid) != os.getsid(0), "Ctrl-C in our terminal would end the server"
    listening = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if Path(table).exists():
            listening |= {line.split()[9] for line in Path(table).read_text().splitlines()[1:]}
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except PermissionError:
        pytest.skip("the server's descriptors cannot be read here")
    assert not [link for link in links if link.startswith("socket:[") and link[8:-1] in listening]


def test_folders_of_the_server_are_private(server: EmbeddedPostgres) -> None:
    server.start()
    for folder in (layout_of(server).cluster, layout_of(server).root / "run"):
        assert folder.stat().st_mode & 0o077 == 0


def test_killed_server_recovers_what_was_committed(server: EmbeddedPostgres) -> None:
    do(server.start(), "create table survived as select 7 as x")
    kill_postmaster(server)
    assert ask(server.start(), "select x from survived") == 7


def test_left_over_pid_that_another_process_has_now(server: EmbeddedPostgres) -> None:
    server.start()
    kill_postmaster(server)
    user = layout_of(server).cluster.stat().st_uid
    other = subprocess.Popen(["sleep", "60"], user=user if os.geteuid() == 0 else None)
    try:
        lines = files.pid_file_lines(layout_of(server))
        layout_of(server).pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        sockets = layout_of(server).root / "run"
        (sockets / ".s.PGSQL.5432.lock").write_text(f"{other.pid}\n")
        assert ask(server.start(), "select 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_starts_at_the_same_time_give_one_server(tmp_path: Path) -> None:
    def start(_number: int) -> str:
        return EmbeddedPostgres(tmp_path / "pg", settings=HASTY).start()

    with serving(tmp_path / "pg") as server:
        with ThreadPoolExecutor(4) as pool:
            urls = set(pool.map(start, range(4)))
        assert len(urls) == 1
        assert ask(urls.pop(), "select 1") == 1
        assert server.running()


@pytest.mark.parametrize("after_s", [0.3, 0.6])
def test_launcher_killed_at_any_moment_heals(tmp_path: Path, after_s: float) -> None:
    code = (
        "import sys; from pathlib import Path; from dusuan.store.embedded import EmbeddedPostgres;"
        "EmbeddedPostgres(Path(sys.argv[1]), settings={'fsync': 'off'}).start()"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "pg")])
    time.sleep(after_s)
    launcher.kill()
    launcher.wait()
    with serving(tmp_path / "pg") as server:
        assert ask(server.start(), "select 1") == 1


def test_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    layout = files.Layout(tmp_path)
    layout.unfinished.mkdir()
    (layout.unfinished / "PG_VERSION").write_text("18\n")
    with serving(tmp_path) as server:
        assert ask(server.start(), "select 1") == 1
        assert not layout.unfinished.exists()


@pytest.mark.parametrize("name", ["d" * 120, "a b, c%'\"度\\"])
def test_path_that_no_socket_can_have(tmp_path: Path, name: str) -> None:
    with serving(tmp_path / name / "pg") as server:
        url = server.start()
        assert ask(url, "select 1") == 1
        folder = Path(str(psycopg.conninfo.conninfo_to_dict(url)["host"]))
        assert not folder.is_relative_to(tmp_path)
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.parent.exists()


def test_socket_folder_that_is_too_long_is_refused(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", socket_dir=tmp_path / ("s" * 100), settings=HASTY)
    with pytest.raises(EmbeddedPostgresError, match="107 bytes"):
        server.start()


def test_socket_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    server = EmbeddedPostgres(tmp_path / "pg", socket_dir=tmp_path / "open", settings=HASTY)
    with pytest.raises(EmbeddedPostgresError, match="alone"):
        server.start()


def test_data_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match="choose a data directory"):
        EmbeddedPostgres(tmp_path / "file" / "pg").start()
    with pytest.raises(EmbeddedPostgresError, match="choose a data directory"):
        EmbeddedPostgres(Path("/proc/dusuan")).start()


def test_failed_start_shows_the_end_of_the_server_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "pg", settings={**HASTY, "shared_buffers": "no size"})
    with pytest.raises(EmbeddedPostgresError) as caught:
        server.start()
    assert "shared_buffers" in caught.value.log_tail
    assert caught.value.where == tmp_path / "pg"
    assert "next:" in str(caught.value)
    assert not server.running()


def test_url_with_another_database() -> None:
    url = "postgresql://dusuan@/dusuan?host=%2Ftmp%2Fa%20b&port=5432"
    assert with_database(url, "t_1") == "postgresql://dusuan@/t_1?host=%2Ftmp%2Fa%20b&port=5432"


@as_root
def test_root_runs_it_as_nobody_below_a_folder_only_root_may_enter(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    with serving(tmp_path / "closed" / "pg") as server:
        assert ask(server.start(), "select 1") == 1
        status = Path(f"/proc/{pid_of(server)}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == {str(NOBODY)}
        assert int(fields["CapEff"], 16) == 1 << 1, "CAP_DAC_OVERRIDE and nothing else"
        assert layout_of(server).root.stat().st_uid == 0


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temp folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="dusuan-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@as_root
def test_the_user_of_the_server_may_not_connect_to_it(open_folder: Path) -> None:
    (open_folder / "pg").mkdir()
    (open_folder / "pg").chmod(0o711)
    with serving(open_folder / "pg") as server:
        url = server.start()
        psql = [str(files.binaries() / "psql"), url, "-c", "select 1"]
        try:
            refused = subprocess.run(
                psql, user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
            )
        except PermissionError:
            pytest.skip("the binaries are below a folder that nobody may enter")
        assert b"Peer authentication failed" in refused.stderr


def ordinary_python() -> list[str]:
    """A command for Python as user nobody with our packages, or a skip that says why not."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    packages = Path(psycopg.__file__).parents[1]
    for program in (sys.executable, shutil.which(f"python{version}", path="/usr/bin") or ""):
        command = ["env", "-i", f"PYTHONPATH={SOURCE}:{packages}", program, "-B"]
        if program and _as_nobody([*command, "-c", "import psycopg, dusuan"]).returncode == 0:
            return command
    pytest.skip("user nobody can reach no Python with these packages")


def _as_nobody(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


ORDINARY = """
import sys, os, psycopg
from pathlib import Path
from dusuan.store.embedded import EmbeddedPostgres, EmbeddedPostgresError
server = EmbeddedPostgres(Path(sys.argv[1]), settings={"fsync": "off"})
try:
    with psycopg.connect(server.start()) as connection:
        print(connection.execute("select 40 + 2").fetchone()[0], server.running())
except EmbeddedPostgresError as error:
    print("refused:", error)
finally:
    server.stop()
"""


@as_root
def test_ordinary_user(open_folder: Path) -> None:
    python = ordinary_python()
    home = open_folder / "home"
    home.mkdir(mode=0o700)
    os.chown(home, NOBODY, NOBODY)
    done = _as_nobody([*python, "-c", ORDINARY, str(home / "pg")])
    assert done.stdout == "42 True\n", done.stderr
    with serving(home / "pg", keep=True) as server:  # root goes on as the user it belongs to
        assert ask(server.start(), "select 1") == 1
    assert _as_nobody([*python, "-c", ORDINARY, str(home / "pg")]).stdout == "42 True\n"


@as_root
def test_folder_that_an_ordinary_user_may_not_write(open_folder: Path) -> None:
    done = _as_nobody([*ordinary_python(), "-c", ORDINARY, str(open_folder / "pg")])
    assert done.stdout.startswith("refused: embedded PostgreSQL: Permission denied"), done.stderr
    assert "choose a data directory" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; nobody is tested above")
def test_read_only_data_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EmbeddedPostgresError, match="choose a data directory"):
        EmbeddedPostgres(tmp_path).start()


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            "postgresql://ann:s3cret@db:5432/x?sslmode=require",
            "postgresql://ann@db:5432/x?sslmode=require",
        ),
        ("postgresql://ann:a%40b:c@db/x", "postgresql://ann@db/x"),
        ("postgresql:///x?host=/run/pg&password=s3cret", "postgresql:///x?host=/run/pg"),
        ("postgresql:///x?sslpassword=s3cret", "postgresql:///x"),
        ("postgresql://db/x", "postgresql://db/x"),
        ("host=db user=ann password='s3 cret' dbname=x", "user=ann dbname=x host=db"),
    ],
)
def test_a_password_is_not_shown(given: str, shown: str) -> None:
    assert without_password(given) == shown
