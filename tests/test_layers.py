"""docs/architecture.md's layer table, stated: who may import whom, and who alone may use what."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Module (or package) of rig/ -> layer. A module imports lower layers only.
LAYERS = {
    "errors": 0,
    "process": 0,
    "results": 0,
    "progress": 0,
    "manifest": 0,
    "headings": 0,
    "wordings": 0,
    "consoleline": 0,
    "culprits": 0,
    "kconfig": 1,
    "ktap": 1,
    "splat": 1,
    "cpio": 1,
    "elf": 1,
    "profile": 1,
    "rows": 1,
    "stats": 1,
    "plots": 1,
    "config": 2,
    "store": 2,
    "verdict": 2,
    "record": 2,
    "durations": 2,
    "expected": 3,
    "history": 3,
    "matrix": 3,
    "night": 3,
    "conditions": 3,
    "noise": 3,
    "cells": 4,
    "board": 2,
    "report": 2,
    "baseline": 2,
    "benchset": 3,
    "upkeep": 3,
    "source": 3,
    "series": 3,
    "kbuild": 3,
    "image": 3,
    "credential": 3,
    "console": 3,
    "session": 3,
    "machine": 3,
    "suite": 3,
    "budget": 3,
    "initramfs": 3,
    "ramroot": 3,
    "shelf": 3,
    "guest": 4,
    "vigil": 3,
    "lab": 4,
    "supply": 4,
    "rack": 4,
    "logfile": 2,
    "fleet": 4,
    "outcome": 4,
    "against": 4,
    "again": 4,
    "boot": 4,
    "listen": 4,
    "kunit": 4,
    "runner": 4,
    "exact": 4,
    "explain": 4,
    "watch": 4,
    "doctor": 4,
    "fio": 4,
    "decode": 4,
    "slurm": 5,
    "nightly": 5,
    "nightmail": 5,
    "site": 5,
    "afterwards": 5,
    "exactset": 5,
    "counted": 5,
    "timed": 5,
    "benchpage": 5,
    "bench": 5,
    "mutants": 5,
    "repro": 5,
    "pytest_plugin": 5,
    "terminal": 5,
    "cli": 6,
    "__main__": 7,
}

# Within a layer: a stage may take the value type of the stage just before it.
WITHIN = {
    ("process", "errors"),
    ("results", "errors"),
    ("series", "source"),
    ("kbuild", "source"),
    ("kbuild", "upkeep"),
    ("kbuild", "series"),
    ("suite", "kbuild"),
    ("shelf", "suite"),
    ("shelf", "machine"),
    ("machine", "kbuild"),
    ("machine", "image"),
    ("machine", "console"),
    ("machine", "session"),
    ("machine", "credential"),
    ("machine", "ramroot"),
    ("ramroot", "image"),
    ("ramroot", "initramfs"),
    ("supply", "guest"),
    ("rack", "guest"),
    ("rack", "supply"),
    ("fleet", "rack"),
    ("fleet", "supply"),
    ("lab", "guest"),
    ("lab", "decode"),
    ("lab", "rack"),
    ("against", "outcome"),
    ("again", "outcome"),
    ("boot", "lab"),
    ("boot", "guest"),
    ("kunit", "lab"),
    ("kunit", "outcome"),
    ("kunit", "against"),
    ("explain", "exact"),
    ("runner", "lab"),
    ("runner", "supply"),
    ("runner", "rack"),
    ("runner", "fleet"),
    ("runner", "outcome"),
    ("runner", "against"),
    ("nightmail", "nightly"),
    ("site", "nightly"),
    ("afterwards", "nightly"),
    ("afterwards", "nightmail"),
    ("afterwards", "site"),
    ("counted", "exactset"),
    ("timed", "counted"),
    ("benchpage", "counted"),
    ("bench", "counted"),
    ("benchpage", "exactset"),
    ("benchpage", "timed"),
    ("bench", "exactset"),
    ("bench", "timed"),
    ("bench", "benchpage"),
}

# What only one module may import.
ALONE = {
    "pexpect": {"console"},
    "paramiko": {"session"},
    "jinja2": {"report"},
    "ahocorasick_rs": {"splat"},
    "watchfiles": {"watch"},
    "argparse": {"cli"},
    "subprocess": {"process"},
}

# What rig.process hands out has subprocess's types; naming them elsewhere starts nothing.
HARMLESS = {"subprocess"}

STARTS = re.compile(
    r"subprocess\.|os\.(system|popen|fork|forkpty|exec|spawn|posix_spawn)|pty\.spawn"
)
PURE = {
    "headings",
    "consoleline",
    "culprits",
    "kconfig",
    "ktap",
    "splat",
    "cpio",
    "elf",
    "profile",
    "rows",
    "stats",
    "plots",
}
IMPURE = {"os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "threading"}


def unit_of(path: Path, package: Path) -> str:
    """The name in the table: a file of rig/, or the directory in rig/ that holds it."""
    parts = path.relative_to(package).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere in a file, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # Under another name its calls would not be recognised: "NAME as OTHER" fits nothing.
            yield from (
                (node.lineno, f"{a.name}.as.{a.asname}" if a.asname else a.name) for a in node.names
            )
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "<relative>"
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every plain call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def faults(package: Path) -> list[str]:
    """Every place in the package that breaks the table, as "file:line: what"."""
    found = []
    for path in sorted(package.rglob("*.py")):
        unit = unit_of(path, package)
        if path == package / "__init__.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        here = path.relative_to(package.parent)
        if unit not in LAYERS:
            found.append(f"{here}:1: {unit} is not in the layer table")
            continue
        found += [f"{here}:{line}: {what}" for line, what in _import_faults(unit, tree)]
        found += [f"{here}:{line}: {what}" for line, what in _call_faults(unit, tree)]
    return found


def _import_faults(unit: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    for line, name in imports(tree):
        top, _, rest = name.partition(".")
        if name == "<relative>":
            yield line, "a relative import; write rig.NAME"
        elif unit not in ALONE.get(top, {unit}) and name not in HARMLESS:
            yield line, f"{unit} imports {top}; only {', '.join(sorted(ALONE[top]))} may"
        elif unit in PURE and top in IMPURE:
            yield line, f"{unit} is pure, it may not import {top}"
        elif top == "rig":
            other = rest.partition(".")[0]
            if not other.startswith("__") and not may_import(unit, other):
                yield line, f"{unit} may not import {other}"


def may_import(unit: str, other: str) -> bool:
    """The rule itself."""
    if other == unit or (unit, other) in WITHIN:
        return True
    return other in LAYERS and LAYERS[other] < LAYERS[unit]


def _call_faults(unit: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    if unit in ("cli", "__main__"):
        return
    for line, name in calls(tree):
        if name in ("print", "exit", "quit", "sys.exit", "os._exit"):
            yield line, f"{name}() outside cli"
        if STARTS.match(name) and unit != "process":
            yield line, f"{name}() outside process"


def test_the_rig_keeps_to_its_layers() -> None:
    assert faults(ROOT / "rig") == []


def test_the_table_names_nothing_that_is_gone() -> None:
    units = {unit_of(path, ROOT / "rig") for path in (ROOT / "rig").rglob("*.py")}
    assert set(LAYERS) - units == set()


def test_the_table_is_the_one_in_the_documents() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    section = text.split("## Layers")[1].split("\n## ")[0]
    rows = [row.split("|") for row in section.splitlines() if row.startswith("| ")]
    told = {
        row[2].strip("` ").removesuffix(".py").removesuffix("/"): int(row[1])
        for row in rows
        if row[1].strip().isdigit()
    }
    assert told == LAYERS


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("ktap.py", "from rig.config import Config", "ktap may not import config"),
        ("ktap.py", "import rig.runner", "ktap may not import runner"),
        ("ktap.py", "from pathlib import Path", "ktap is pure, it may not import pathlib"),
        ("session.py", "from rig.console import Console", "session may not import console"),
        ("suite.py", "from rig.machine.qemu import QemuMachine", "suite may not import machine"),
        ("report.py", "def f():\n    from rig.cli import main", "report may not import cli"),
        ("report.py", "from rig import cli", "report may not import cli"),
        ("runner.py", "import pexpect", "runner imports pexpect; only console may"),
        ("machine/qemu.py", "from paramiko import Transport", "machine imports paramiko"),
        ("machine/cmdline.py", "import jinja2", "machine imports jinja2; only report may"),
        ("machine/x.py", "from subprocess import Popen", "machine imports subprocess"),
        ("machine/y/x.py", "import subprocess\nsubprocess.run([])", "subprocess.run() outside"),
        ("machine/x.py", "import subprocess as s", "machine imports subprocess"),
        ("kbuild.py", "print('x')", "print() outside cli"),
        ("kbuild.py", "import sys\nsys.exit(1)", "sys.exit() outside cli"),
        ("kbuild.py", "import os\nos.system('x')", "os.system() outside process"),
        ("kbuild.py", "from . import config", "a relative import"),
        ("surprise.py", "", "surprise is not in the layer table"),
    ],
)
def test_a_breach_is_seen(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / "rig" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    found = faults(tmp_path / "rig")
    assert len(found) == 1
    assert fault in found[0]
    assert found[0].startswith(f"rig/{name}:")


def test_what_is_allowed_is_not_a_breach(tmp_path: Path) -> None:
    package = tmp_path / "rig" / "machine"
    package.mkdir(parents=True)
    (package / "qemu.py").write_text(
        "from rig.kbuild import Kernel\nfrom rig.machine import Machine\nfrom rig import errors\n"
    )
    (package.parent / "cli.py").write_text("import sys, argparse\nprint(1)\nsys.exit(0)\n")
    assert faults(tmp_path / "rig") == []
