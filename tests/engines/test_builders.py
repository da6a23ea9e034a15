"""What the local engine builds and parses, without running anything."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from dusuan.engines.base import Device, Lease, StartFailed, StartOrder
from dusuan.engines.local.archive import unpack
from dusuan.engines.local.calibration import (
    Calibration,
    Uncalibrated,
    calibrate,
    gemm_argv,
    parse_outcome,
)
from dusuan.engines.local.commands import job_argv, job_env, limits, order_problem, signal_number
from dusuan.engines.local.inventory import (
    CpuFacts,
    Found,
    cpu_devices,
    discover,
    nvidia_model,
    parse_cpuinfo,
    parse_memory_mib,
)
from dusuan.engines.local.layout import SANDBOXED, Layout
from dusuan.engines.local.sandbox import Host, Shown, sandbox_argv
from dusuan.engines.local.visibility import visibility

HOSTILE = ["a'; echo foo", '"; rm -rf / #', "$(id)", "--", "-c", "\n"]


def order(**changes: Any) -> StartOrder:
    given: dict[str, Any] = {"argv": ("true",), **changes}
    return StartOrder("job", "attempt", ("cpu:0",), Lease(1, 1), **given)


def card(make: str, index: int, visible: str = "") -> Found:
    device = Device(f"gpu:{index}", "n", make, "X", "gpu", index, None)
    return Found(device, visible or str(index))


# -- commands ------------------------------------------------------------------------------------


def test_arguments_are_never_joined_or_quoted() -> None:
    assert job_argv(order(argv=tuple(HOSTILE)), SANDBOXED) == HOSTILE


def test_a_script_is_named_and_never_quoted() -> None:
    found = job_argv(order(argv=None, script="a'; echo foo"), SANDBOXED)
    assert found == ["/bin/bash", "-e", "/dusuan/script"]


def test_the_platform_has_the_last_word_on_its_own_variables() -> None:
    env = job_env(order(env={"DUSUAN_ATTEMPT": "forged", "PATH": "/x"}), SANDBOXED, [], "/venv/bin")
    assert env["DUSUAN_ATTEMPT"] == "attempt"
    assert env["PATH"] == "/x"


def test_orders_are_checked() -> None:
    assert order_problem(order()) == ""
    assert "exactly one" in order_problem(order(script="x"))
    assert "NUL" in order_problem(order(argv=("a\0b",)))


def test_signals_have_names() -> None:
    assert signal_number("SIGUSR1") == signal_number("USR1") == 10
    for name in ("SIGKILL", "SIGSTOP", "SIG_DFL", "SIGNOPE", "", "9"):
        assert signal_number(name) is None


def test_root_is_not_limited_in_processes() -> None:
    assert "RLIMIT_NPROC" not in limits(None, True, 1)
    assert limits(5, False, 1)["RLIMIT_DATA"] == 5 << 20


@pytest.mark.parametrize(
    ("make", "names"),
    [
        ("NVIDIA", ["CUDA_VISIBLE_DEVICES"]),
        ("AMD", ["HIP_VISIBLE_DEVICES"]),
        ("Huawei", ["ASCEND_RT_VISIBLE_DEVICES"]),
        ("Cambricon", ["MLU_VISIBLE_DEVICES"]),
        ("Kunlunxin", ["CUDA_VISIBLE_DEVICES", "XPU_VISIBLE_DEVICES"]),
        ("Hygon", ["HIP_VISIBLE_DEVICES"]),
        ("Moore Threads", ["MUSA_VISIBLE_DEVICES"]),
        ("MetaX", ["MACA_VISIBLE_DEVICES"]),
        ("Enflame", ["TOPS_VISIBLE_DEVICES"]),
        ("Biren", ["SUPA_VISIBLE_DEVICES"]),
        ("Iluvatar", ["CUDA_VISIBLE_DEVICES"]),
        ("Someone New", ["CUDA_VISIBLE_DEVICES"]),
    ],
)
def test_every_make_has_its_variable(make: str, names: list[str]) -> None:
    found = visibility([card(make, 10), card(make, 2)])
    found.pop("CUDA_DEVICE_ORDER", None)
    assert found == dict.fromkeys(names, "2,10")


def test_cards_are_named_by_what_the_runtime_knows() -> None:
    assert visibility([card("NVIDIA", 0, "GPU-ab")])["CUDA_VISIBLE_DEVICES"] == "GPU-ab"


# -- the sandbox ---------------------------------------------------------------------------------


def host(**changes: Any) -> Host:
    given: dict[str, Any] = {
        "bwrap": "/usr/bin/bwrap",
        "as_root": True,
        "system": ("/usr", "/opt"),
        "system_links": (("/bin", "usr/bin"),),
        "readable": ("/home/a/venv",),
        "hidden": (),
        **changes,
    }
    return Host(**given)


def mounts(argv: list[str]) -> list[tuple[str, str]]:
    """(option, path) of everything that is shown or covered, in order."""
    wanted = ("--ro-bind", "--bind", "--tmpfs")
    steps = [(word, argv[i + 1]) for i, word in enumerate(argv) if word in wanted]
    return [step for step in steps if not step[1].startswith(("/tmp", "/var", "/dev", "/sys"))]


def test_the_longer_path_wins() -> None:
    found = host(
        readable=("/opt/data/venv", "/opt/app"), hidden=("/opt/data", "/opt/app/state", "/srv/x")
    )
    assert mounts(sandbox_argv(found, [], [], network=False)) == [
        ("--ro-bind", "/opt"),
        ("--ro-bind", "/usr"),
        ("--ro-bind", "/opt/app"),
        ("--tmpfs", "/opt/data"),
        ("--ro-bind", "/opt/data/venv"),
        ("--tmpfs", "/opt/app/state"),
    ]


def test_a_cover_within_a_cover_is_not_needed() -> None:
    found = host(readable=(), hidden=("/opt/data", "/opt/data/engine"))
    assert ("--tmpfs", "/opt/data/engine") not in mounts(sandbox_argv(found, [], [], False))


def test_network_and_rights_are_given_only_where_needed() -> None:
    closed = sandbox_argv(host(), [], [], network=False)
    opened = sandbox_argv(host(as_root=False), [], [], network=True)
    assert "--unshare-net" in closed
    assert "--unshare-net" not in opened
    assert closed.count("--cap-add") == 3
    assert "--cap-add" not in opened
    assert "--unshare-user" in opened


def test_hostile_paths_stay_one_argument() -> None:
    shown = [Shown(text, "/dusuan/work", True) for text in HOSTILE]
    argv = sandbox_argv(host(), shown, ["/dev/nvidia0"], network=False)
    for text in HOSTILE:
        assert argv[argv.index("--bind") :].count(text) >= 1
    assert argv[-1] == "--"
    assert argv[(at := argv.index("--dev-bind-try")) : at + 3] == [
        "--dev-bind-try",
        "/dev/nvidia0",
        "/dev/nvidia0",
    ]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "-a", ".a", "a\0", "a\n", "x" * 300])
def test_ids_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="id"):
        Layout(Path("/x")).attempt(name)
    with pytest.raises(ValueError, match="id"):
        Layout(Path("/x")).job(name)


# -- archives ------------------------------------------------------------------------------------


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **more: Any
) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    for key, value in more.items():
        setattr(found, key, value)
    return found


def packed(folder: Path, *members: tarfile.TarInfo) -> Path:
    path = folder / "files.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for item in members:
            file.addfile(item, io.BytesIO(b"x" * item.size) if item.isreg() else None)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "outer" / "target"
    folder.mkdir(parents=True)
    return folder.resolve()


def test_files_folders_and_links_are_unpacked(tmp_path: Path, target: Path) -> None:
    unpack(
        packed(
            tmp_path,
            member("./a/b/file", size=3, mode=0o6777),
            member("a/empty", tarfile.DIRTYPE),
            member("a/up", tarfile.SYMTYPE, "../a/b/file"),
            member("hard", tarfile.LNKTYPE, "a/b/file"),
            member("dangling", tarfile.SYMTYPE, "not/there"),
        ),
        target,
        1 << 20,
    )
    assert (target / "a/b/file").read_bytes() == b"xxx"
    assert (target / "a/b/file").stat().st_mode & 0o7022 == 0
    assert (target / "a/up").read_bytes() == b"xxx"
    assert (target / "hard").samefile(target / "a/b/file")
    assert (target / "a/empty").is_dir()


SYM, HARD, DIR = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil", size=1)],
        [member("/evil", size=1)],
        [member("a/../../evil", size=1)],
        [member("a/../evil", size=1)],
        [member("evil", SYM, "/etc/passwd")],
        [member("evil", SYM, "..")],
        [member("evil", SYM, "../x")],
        [member("a/evil", SYM, "../../x")],
        [member("evil", HARD, "/etc/passwd")],
        [member("evil", HARD, "../x")],
        [member("a", DIR), member("a/l", SYM, "."), member("a/l/evil", SYM, "..")],
        [member("p/q/s", SYM, "../.."), member("p/q/evil", SYM, "s/../etc")],
        [member("l", SYM, "."), member("l/evil", size=1)],
        [member("evil", tarfile.FIFOTYPE)],
        [member("evil", tarfile.CHRTYPE)],
        [member("evil", tarfile.BLKTYPE)],
        [member("a", size=600), member("b", size=600)],
    ],
)
def test_an_archive_that_would_escape_is_refused(
    tmp_path: Path, target: Path, members: list[tarfile.TarInfo]
) -> None:
    with pytest.raises(StartFailed):
        unpack(packed(tmp_path, *members), target, 1_000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files.tar.gz", "outer"]
    assert [path.name for path in (tmp_path / "outer").iterdir()] == ["target"]
    for path in target.rglob("*"):
        assert path.resolve().is_relative_to(target)


def header(kind: bytes, size: int, name: str = "h") -> bytes:
    """A header that says of itself whatever it likes."""
    info = member(name, kind)
    info.size = size
    return info.tobuf()


SPARSE = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
BOMBS = {
    "an extended header": header(tarfile.XHDTYPE, 1 << 33) + bytes(4 << 20),
    "a header for all": header(tarfile.XGLTYPE, 1 << 33) + bytes(4 << 20),
    "a long name": header(tarfile.GNUTYPE_LONGNAME, 1 << 33) + bytes(4 << 20),
    "a long link": header(tarfile.GNUTYPE_LONGLINK, 1 << 33) + bytes(4 << 20),
    "headers of headers": header(tarfile.XHDTYPE, 0) * 100_000,
    "a map of holes": header(tarfile.XHDTYPE, len(SPARSE))
    + SPARSE.ljust(512, b"\0")
    + header(tarfile.REGTYPE, 1 << 33)
    + b"1000000000\n"
    + b"0\n" * (2 << 20),
    "a folder with something in it": header(tarfile.DIRTYPE, 1 << 33) + bytes(4 << 20),
    "a size below nothing": header(tarfile.REGTYPE, -(1 << 33)) + bytes(4 << 20),
    "zeros": b"".join(header(tarfile.REGTYPE, 1_000, f"f{n}") + bytes(1_024) for n in range(200)),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_takes_no_memory_and_no_time(tmp_path: Path, target: Path, what: str) -> None:
    (tmp_path / "files").write_bytes(gzip.compress(BOMBS[what], 1))
    tracemalloc.start()
    with pytest.raises(StartFailed):
        unpack(tmp_path / "files", target, 100_000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 << 20
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= 100_000


@pytest.mark.parametrize("data", [b"", b"not an archive", b"\x1f\x8b\x08\0\0"])
def test_a_damaged_archive_is_refused(tmp_path: Path, target: Path, data: bytes) -> None:
    (tmp_path / "files").write_bytes(data)
    with pytest.raises(StartFailed, match="cannot be unpacked"):
        unpack(tmp_path / "files", target, 1_000)


def test_a_truncated_archive_is_refused(tmp_path: Path, target: Path) -> None:
    whole = packed(tmp_path, member("a", size=900_000)).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StartFailed):
        unpack(tmp_path / "cut", target, 1 << 30)


# -- inventory -----------------------------------------------------------------------------------

X86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) 8480+\n"
ARM = "processor\t: 0\nBogoMIPS\t: 200.00\nCPU implementer\t: 0x48\nCPU part\t: 0xd01\n"


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (X86 * 2, CpuFacts("Intel", "Intel(R) Xeon(R) 8480+")),
        (ARM, CpuFacts("Huawei", "unknown")),
        ("vendor_id\t: HygonGenuine\nmodel name\t: C86 7285\n", CpuFacts("Hygon", "C86 7285")),
        ("vendor_id\t:   Shanghai  \nmodel name\t: ZX\n", CpuFacts("Zhaoxin", "ZX")),
        ("", CpuFacts("unknown", "unknown")),
        ("garbage\n\n: :\n", CpuFacts("unknown", "unknown")),
    ],
)
def test_cpuinfo_is_understood(text: str, facts: CpuFacts) -> None:
    assert parse_cpuinfo(text) == facts


def test_cores_are_devices_in_order() -> None:
    found = cpu_devices("n1", {3, 0, 11}, X86, "MemTotal:  6291456 kB\nMemFree: 1 kB\n")
    assert [item.device.device for item in found] == ["cpu:0", "cpu:3", "cpu:11"]
    assert {item.device.memory_mib for item in found} == {2048}
    assert {item.device.node for item in found} == {"n1"}


def test_memory_may_be_untold() -> None:
    assert parse_memory_mib("nothing") is None


def test_models_do_not_repeat_their_make() -> None:
    assert nvidia_model("NVIDIA H100 80GB HBM3") == "H100 80GB HBM3"
    assert nvidia_model("Tesla V100-SXM2-16GB") == "Tesla V100-SXM2-16GB"


def test_this_host_has_devices() -> None:
    found = discover("here")
    assert found
    assert len({item.device.device for item in found}) == len(found)


# -- calibration ---------------------------------------------------------------------------------


def test_a_core_is_measured() -> None:
    found = [item for item in discover("here") if item.device.kind == "cpu"][:1]
    if not found:
        pytest.skip("this host has cards, and no core is a device")
    (measured,) = calibrate(found, windows=3, window_ms=20)
    assert isinstance(measured, Calibration)
    assert measured.precision == "fp32"
    assert 1 <= measured.gflops_median <= 1_000
    assert len(measured.samples) == 3
    assert min(measured.samples) - 1 <= measured.gflops_median <= max(measured.samples) + 1
    spread = (max(measured.samples) - min(measured.samples)) / sorted(measured.samples)[1]
    assert measured.spread == pytest.approx(spread)


def test_a_card_without_a_measurement_says_so() -> None:
    (found,) = calibrate([card("Cambricon", 0)])
    assert isinstance(found, Uncalibrated)
    assert gemm_argv(card("NVIDIA", 0, "GPU-x"), 1, 1, 0.0) is not None


@pytest.mark.parametrize(
    ("output", "complaints", "reason"),
    [
        (
            b"",
            b"Traceback\nImportError: no numpy\n",
            "the measurement failed: ImportError: no numpy",
        ),
        (b"", b"", "the measurement failed: no output"),
        (b'{"reason": "no torch"}', b"", "no torch"),
    ],
)
def test_a_measurement_that_failed_says_why(output: bytes, complaints: bytes, reason: str) -> None:
    assert parse_outcome("gpu:0", output, complaints) == Uncalibrated("gpu:0", reason)
