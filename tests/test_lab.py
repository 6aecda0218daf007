"""When a suite's Kconfig fragment needs a kernel of its own, and when not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from rig import decode as decode_module
from rig import kbuild, manifest
from rig import lab as lab_module
from rig.config import Config, KernelConfig, MachineConfig
from rig.errors import BootError, HangError, InfrastructureError
from rig.guest import Modules
from rig.kbuild import Kernel
from rig.lab import KernelLab
from rig.record import Record
from rig.results import BOOT_FAILED, Splat
from rig.store import Store


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The fragments' texts of every build that was asked for; CONFIG_A and _B come out as y."""
    asked: list[list[str]] = []
    result = tmp_path / "config"
    result.write_text("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_M=m\n")

    def build(*_: object, extra_configs: Sequence[Path], progress: object) -> Kernel:
        asked.append([path.read_text() for path in extra_configs])
        fields = {field.name: tmp_path for field in dataclasses.fields(Kernel)}
        none = {"modules": None, "debug": None}
        return Kernel(**{**fields, **none, "config": result})  # type: ignore[arg-type]

    monkeypatch.setattr(kbuild, "build", build)
    return asked


@pytest.fixture
def lab(tmp_path: Path) -> KernelLab:
    config = Config(tmp_path, "k", "m")
    return KernelLab(config, KernelConfig("k"), MachineConfig("m"), Store(tmp_path / "store"))


def fragment(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "suite" / "config"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        *("CONFIG_A=y\n", "CONFIG_B=m\n", "CONFIG_M=m\n"),
        *("# CONFIG_C is not set\n", "CONFIG_UNKNOWN=n\n"),
    ],
)
def test_a_kernel_that_has_it_already_is_taken(
    tmp_path: Path, lab: KernelLab, built: list[list[str]], text: str
) -> None:
    lab.build([fragment(tmp_path, text)])
    assert built == [[]]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("CONFIG_C=y\n", "CONFIG_C=y\n"),
        ("CONFIG_A=n\n", "CONFIG_A=n\n"),
        ("CONFIG_A=y\nCONFIG_D=m\n", "CONFIG_A=y\nCONFIG_D=y\n"),
        ("CONFIG_UNKNOWN=y\n", "CONFIG_UNKNOWN=y\n"),
        ("nonsense\n", "nonsense\n"),
    ],
)
def test_a_kernel_that_lacks_it_is_built_with_it(
    tmp_path: Path, lab: KernelLab, built: list[list[str]], text: str, asked: str
) -> None:
    lab.build([fragment(tmp_path, text)])
    assert built == [[], [asked]]


def test_suites_of_one_directory_name_are_all_asked(
    tmp_path: Path, lab: KernelLab, built: list[list[str]]
) -> None:
    places = [fragment(tmp_path / name, f"CONFIG_{name}=m\n") for name in ("C", "D")]
    lab.build(places)
    assert built == [[], ["CONFIG_C=y\n", "CONFIG_D=y\n"]]


def test_what_a_board_needs_is_in_its_kernel_from_the_start(
    tmp_path: Path, lab: KernelLab, built: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware = fragment(tmp_path / "board", "CONFIG_N=m\n")
    monkeypatch.setattr(lab, "_hardware", lambda: (hardware,))
    lab.build([fragment(tmp_path, "CONFIG_A=y\n")])
    lab.build([fragment(tmp_path, "CONFIG_C=y\n")])
    own = "CONFIG_N=y\n"
    assert built == [[own], [own], [own, "CONFIG_C=y\n"]]


class _Machine:
    """Booted at once; its one session is the one that boot made."""

    def __init__(self, place: Path) -> None:
        self.session = object()
        self.closed = False
        self.notices = ()
        self.consoles = [place / "console-0.int3.log", place / "console-0.log"]

    def boot(self) -> None: ...

    def connect(self) -> object:
        return self.session

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("modular", [False, True])
def test_a_guest_is_given_the_session_of_the_boot_and_its_kernels_modules(
    tmp_path: Path,
    lab: KernelLab,
    built: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    modular: bool,
) -> None:
    machine = _Machine(tmp_path)
    monkeypatch.setattr(lab, "_emulated", lambda *_, **__: machine)
    monkeypatch.setattr(lab_module, "Guest", lambda *parts: parts)
    lab.build()
    modules = None
    if modular:
        object.__setattr__(lab.kernel, "modules", tmp_path / "modules")
        object.__setattr__(lab.kernel, "release", "6.12.1-fake")
        modules = Modules(tmp_path / "modules", "/lib/modules/6.12.1-fake")
    record = Record.begin(tmp_path / "results", "rig", "k")
    guest: object = lab.boot(0, record)
    assert guest == (machine, machine.session, None, modules)
    assert [Path(name).name for name in record.run.consoles] == [
        "console-0.int3.log",
        "console-0.log",
    ]
    assert not machine.closed


# -- what a kernel says of itself -----------------------------------------------------------------

PANIC = "[    1.000000] Kernel panic - not syncing: {}\n[    1.100000]  boots+0x1/0x2\n"


def decoded(lab: KernelLab, built: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lab with a kernel, whose traces take no time; the titles that were decoded."""
    titles: list[str] = []

    def decode(one: Splat, _kernel: Kernel, known: dict[str, str]) -> Splat:
        titles.append(one.title)
        known[one.title] = "a.c:1"
        return replace(one, place=" ".join(known.values()))

    lab.build()
    monkeypatch.setattr(decode_module, "decode", decode)
    object.__setattr__(lab.kernel, "facts", {"name": "k"})
    return titles


def test_a_boot_of_what_is_damaged_is_no_kernels_fault(
    lab: KernelLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("image", "kernel"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "disk.img").write_bytes(b"as it was made")
        manifest.write(tmp_path / kind)
    whole = SimpleNamespace(disk=tmp_path / "image/disk.img")
    monkeypatch.setattr(lab, "_image", whole)
    monkeypatch.setattr(lab, "_kernel", SimpleNamespace(directory=tmp_path / "kernel"))
    error = BootError("no login", output="its console")
    lab.check_store(error)
    for kind in ("kernel", "image"):
        (tmp_path / kind / "disk.img").write_bytes(b"as it is today")
        with pytest.raises(InfrastructureError, match=f"{kind} {kind} in the store is") as caught:
            lab.check_store(error)
        assert "disk.img has other bytes" in caught.value.message
        assert caught.value.output == "its console"
        assert "rig store verify --repair" in caught.value.hint
    lab.cut()
    lab.check_store(error)  # which has ended the boot itself


def test_each_title_is_decoded_once_until_that_has_taken_its_time(
    lab: KernelLab, built: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = decoded(lab, built, monkeypatch)
    those = [Splat("bug", f"t{n % 9}", 0, 1, "f", "text") for n in range(18)]
    found = lab.explain(those)
    assert titles == [f"t{n}" for n in range(9)]
    assert [len(one.place.split()) for one in found] == [*range(1, 10), *[0] * 9]
    monkeypatch.setattr(lab_module, "_EXPLAINING_S", 0.0)
    assert lab.explain([replace(those[0], title="late")])[0].place == ""
    assert "not decoded, after 0 s of it: late" in lab._notices


@pytest.mark.parametrize("error", [BootError("no login"), HangError("hangs", heard=120)])
def test_what_a_boot_that_failed_has_said_is_on_record(
    lab: KernelLab,
    built: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    error: BootError,
) -> None:
    decoded(lab, built, monkeypatch)
    record = Record.begin(tmp_path / "results", "rig", "k")
    first, second = PANIC.format("first").ljust(120), PANIC.format("second")
    (record.directory / "console-3.log").write_text(first + second)
    (record.directory / "console-4.log").write_text(PANIC.format("another's"))
    (record.directory / "early-console-3.log").write_text(PANIC.format("early"))
    lab.last_words(error, 3, record)
    run = record.run
    titles = [f"kernel panic: {word}" for word in ("first", "second", "early")]
    if isinstance(error, HangError):  # the second is what it was made to say
        titles.remove("kernel panic: second")
    assert [one.title for one in run.splats] == titles
    assert all(one.place for one in run.splats)
    assert run.machine[BOOT_FAILED] == error.message
    assert run.kernel == {"name": "k"}
