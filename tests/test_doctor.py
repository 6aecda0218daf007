"""The doctor on made-up hosts: nothing installed, old tools, an ordinary user, other families."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import doctor
from rig.doctor import Check, Report

ROOT = Path(__file__).parent.parent
APT = "apt-get update && apt-get install -y --no-install-recommends"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host whose PATH is one empty directory; programs put there are all it has."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setattr(doctor, "find_command", lambda name: _there(place / name))
    doctor.forget()
    yield place
    doctor.forget()


def _there(path: Path) -> str | None:
    return str(path) if path.is_file() else None


def program(place: Path, name: str, words: str) -> None:
    (place / name).write_text(f"#!/bin/sh\necho '{words}'\n")
    (place / name).chmod(0o755)


def named(report: Report, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def test_nothing_installed_is_all_missing(bare: Path) -> None:
    report = Report(doctor.host_checks(), "debian", root=False)
    missing = {check.name for check in report.missing}
    assert {"gcc", "qemu-system-x86_64", "mke2fs", "newuidmap", "ccache"} <= missing
    assert report.exit_code == 3
    line = report.mend("debian")
    assert line.startswith("sudo apt-get update && sudo apt-get install -y ")
    assert "\n" not in line
    assert {"gcc", "libc6-dev", "qemu-system-x86", "e2fsprogs", "uidmap"} <= set(line.split())


@pytest.mark.parametrize(
    ("family", "start", "package"),
    [
        ("debian", f"{APT} ", "libelf-dev"),
        ("fedora", "dnf install -y ", "elfutils-libelf-devel"),
        ("arch", "pacman -S --needed --noconfirm ", "libelf"),
    ],
)
def test_every_family_has_its_line(family: str, start: str, package: str) -> None:
    packages = next(need.packages for need in doctor.needs() if need.name == "libelf headers")
    report = Report((Check("libelf headers", ok=False, packages=packages),), family, root=True)
    assert report.mend(family) == start + package


def test_a_tool_that_is_too_old_is_missing(bare: Path) -> None:
    program(bare, "ccache", "ccache version 3.7.7")
    program(bare, "bison", "bison (GNU Bison) 3.8.2")
    report = Report(doctor.host_checks(), "debian", root=True)
    assert named(report, "bison").ok
    assert not named(report, "ccache").ok
    assert named(report, "ccache").found == "3.7.7"
    assert "too old" in named(report, "ccache").note
    assert "ccache" in report.packages("debian")


def test_a_tool_that_says_nothing_is_not_taken(bare: Path) -> None:
    program(bare, "bison", "")
    found = named(Report(doctor.host_checks(), "debian", root=True), "bison")
    assert not found.ok
    assert found.found == "version unknown"


def test_a_tool_that_cannot_be_run_is_not_taken(bare: Path) -> None:
    (bare / "flex").write_text("no program")
    assert not named(Report(doctor.host_checks(), "", root=True), "flex").ok


def test_without_versions_no_tool_is_run(bare: Path) -> None:
    program(bare, "flex", "")
    assert named(Report(doctor.host_checks(versions=False), "", root=True), "flex").ok


@pytest.mark.parametrize(
    ("words", "version"),
    [
        ("GNU ld (GNU Binutils for Debian) 2.40", "2.40"),
        ("flex 2.6.4", "2.6.4"),
        ("12.2.0", "12.2.0"),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)", "7.2.22"),
        ("mke2fs 1.47.0 (5-Feb-2023)", "1.47.0"),
        ("git version 2.39.5", "2.39.5"),
        ("bc 1.07.1\nCopyright 1991-1994, 1997", "1.07.1"),
        ("nothing at all", ""),
    ],
)
def test_a_version_is_found_in_a_programs_words(words: str, version: str) -> None:
    assert doctor.version_in(words) == version


def test_versions_are_compared_as_numbers() -> None:
    assert doctor.newer("2.40", "2.5.35")
    assert doctor.newer("4.0.1", "4.0")
    assert doctor.newer("1.07.1", "1.06.95")
    assert not doctor.newer("3.9", "3.10")
    assert not doctor.newer("", "1.0")


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian"),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "debian"),
        ("ID=fedora\n", "fedora"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"),
        ("ID=manjaro\nID_LIKE=arch\n", "arch"),
        ("ID=nixos\nVARIANT_ID=debian\n", ""),
    ],
)
def test_the_family_is_read_from_os_release(text: str, family: str) -> None:
    assert doctor.family_of(text) == family


def test_the_table_has_names_for_every_family() -> None:
    for need in doctor.needs():
        kinds = need.command, need.header, need.library, need.module
        assert sum(map(bool, kinds)) == 1, need.name
        assert need.why, need.name
        wanted = ("debian",) if need.only else doctor.FAMILIES
        assert all(need.packages[family] for family in wanted), need.name
        assert bool(need.version) == bool(need.minimum), need.name


def test_what_the_tests_need_is_asked_of_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "host_family", lambda: "debian")
    alone = {one.name for one in doctor.needs() if one.only == "tests"}
    assert "ipmi_sim" in alone
    assert not alone & {one.name for one in doctor.host_checks(versions=False)}
    assert alone <= {one.name for one in doctor.host_checks(versions=False, tests=True)}
    # Arch has no package of it: nobody is told to install what there is not.
    monkeypatch.setattr(doctor, "host_family", lambda: "arch")
    named = {one.name for one in doctor.host_checks(versions=False, tests=True)}
    assert "ipmitool" in named
    assert "ipmi_sim" not in named


def test_headers_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_include_directories", lambda: (tmp_path,))
    checks = {check.name: check for check in doctor.host_checks(versions=False)}
    assert not checks["openssl headers"].ok
    (tmp_path / "openssl").mkdir()
    (tmp_path / "openssl/ssl.h").touch()
    checks = {check.name: check for check in doctor.host_checks(versions=False)}
    assert checks["openssl headers"].ok


def test_libraries_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {check.name: check for check in doctor.host_checks(versions=False)}
    assert checks["static C library"].found.endswith("/libc.a")
    monkeypatch.setattr(doctor, "_words", lambda argv: "libc.a\n")  # as gcc says where it is not
    checks = {check.name: check for check in doctor.host_checks(versions=False)}
    assert not checks["static C library"].ok
    assert "libc6-dev" in checks["static C library"].packages["debian"]


def test_package_lists_are_looked_for(tmp_path: Path) -> None:
    check = doctor._check_apt_lists(tmp_path)
    report = Report((check,), "debian", root=False)
    assert report.mend("debian") == "sudo apt-get update"
    gcc = Check("gcc", ok=False, packages={"debian": ("gcc",)})
    assert Report((check, gcc), "debian", root=True).mend("debian").count("update") == 1
    (tmp_path / "archive_main_Packages.lz4").touch()
    assert doctor._check_apt_lists(tmp_path).ok


def test_subordinate_ids() -> None:
    text = "# comment\nann:100000:65536\nbob:165536:1000\n1003:166536:64536\nbroken\n"
    assert doctor.subids(text, ("ann", "1001")) == 65536
    assert doctor.subids(text, ("bob", "1003")) == 65536
    assert doctor.subids(text, ("eve",)) == 0
    assert doctor.free_subids([text, ""]) == "231072-296607"
    assert doctor.free_subids([]) == "100000-165535"


def test_an_ordinary_user_without_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "is_root", lambda: False)
    monkeypatch.setattr(doctor, "_user_name", lambda: "ann")
    (tmp_path / "subuid").write_text("ann:100000:65536\n")
    check = doctor._check_subids(tmp_path)
    assert not check.ok  # subgid is missing
    line = Report((check,), "debian", root=False).mend("debian")
    assert line == "sudo usermod --add-subuids 165536-231071 --add-subgids 165536-231071 ann"
    (tmp_path / "subgid").write_text("ann:100000:65536\n")
    assert doctor._check_subids(tmp_path).ok


def test_a_full_disk_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 3 * 2**30

    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage)
    store = tmp_path / "not" / "there" / "yet"
    assert not doctor._check_disk(store).ok
    (store / "kernel" / "abc").mkdir(parents=True)
    assert doctor._check_disk(store).ok  # what is built already needs no second room


def test_little_memory_is_seen(tmp_path: Path) -> None:
    info = tmp_path / "meminfo"
    info.write_text("MemTotal:        2011111 kB\nMemFree: 1 kB\n")
    assert not doctor._check_memory(info).ok
    info.write_text("MemTotal:        4011111 kB\n")
    assert doctor._check_memory(info).ok


def test_what_is_said_of_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = tmp_path / "kvm"
    assert "emulated by TCG" in doctor.device_note(device)
    device.touch()
    assert "writable;" in doctor.device_note(device)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not writable for you" in doctor.device_note(device)


def test_missing_modules_are_mended_by_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MODULES", ("json", "no_such_package.module", "no_such_module"))
    (check,) = doctor._check_modules(Path("/checkout of mine"))
    assert check.wanted == "no_such_package.module, no_such_module"
    report = Report((check,), "debian", root=False)
    assert report.mend("debian") == "make -C '/checkout of mine' setup"


def test_the_rendered_report_ends_with_the_line_to_run() -> None:
    gcc = Check("gcc", ok=False, wanted="5.1", packages={"debian": ("gcc",), "arch": ("gcc",)})
    good = Check("git", ok=True, found="2.39.5")
    text = doctor.render(Report((gcc, good), "debian", root=True))
    assert "MISSING gcc  - (wanted: 5.1)" in text
    assert text.endswith("  apt-get update && apt-get install -y --no-install-recommends gcc\n")
    text = doctor.render(Report((gcc,), "", root=True))
    assert "Mend it with (arch):\n  pacman" in text
    assert doctor.render(Report((good,), "", root=True)).endswith("Nothing is missing.\n")


def test_json_has_the_line_of_every_family() -> None:
    gcc = Check("gcc", ok=False, packages={"fedora": ("gcc",)})
    value = json.loads(Report((gcc,), "fedora", root=True).to_json())
    assert value["ok"] is False
    assert value["mend"]["fedora"] == "dnf install -y gcc"
    assert value["checks"][0]["name"] == "gcc"


def test_this_host_is_examined_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RIG_STORE", str(tmp_path))
    report = doctor.examine(ROOT)
    names = [check.name for check in report.checks]
    assert len(set(names)) == len(names)
    assert {"python", "gcc", "disk", "memory", "accelerator", "user namespaces"} <= set(names)
    assert named(report, "python modules").ok
    assert named(report, "python").found.startswith(f"{sys.version_info.major}.")


def test_the_store_is_where_the_store_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from rig.store import open_store

    for name, value in (("RIG_STORE", "/x/y"), ("XDG_CACHE_HOME", "/z"), ("HOME", "/home/ann")):
        assert doctor.store_root() == open_store().root
        monkeypatch.setenv(name, value)
        assert doctor.store_root() == open_store().root
        monkeypatch.delenv("RIG_STORE", raising=False)
