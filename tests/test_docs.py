"""What the documents claim that a program can check: words, tables, links, examples."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from rig import errors
from rig.config import KernelConfig
from rig.results import Status
from rig.splat import RULES

ROOT = Path(__file__).parent.parent
MEASURED = tuple(f"ci/acceptance/{what}.json" for what in ("spine", "loop", "series"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(page: str, title: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> set[str]:
    """Every `word` in the first column of a section's tables."""
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {word for row in rows for word in re.findall(r"`([^`]+)`", row)}


def test_the_glossary_has_every_splat_type() -> None:
    told = first_cells(section("docs/glossary.md", "Splat types"))
    assert {rule.type for rule in RULES} - told == set()


def test_the_glossary_has_every_status() -> None:
    assert first_cells(section("docs/glossary.md", "Statuses")) == {str(s) for s in Status}


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_the_exit_codes_are_the_errors(page: str) -> None:
    rows = re.findall(r"(?m)^\| (\d) \| (.*)$", section(page, "Exit codes"))
    classes = [kind for kind in errors.RigError.__subclasses__() if kind.__module__ == "rig.errors"]
    kinds = {kind.__name__: kind.exit_code for kind in classes}
    assert {int(code) for code, _ in rows} == {0, 1, *kinds.values()}
    for name, code in kinds.items() if page.startswith("docs") else ():
        assert f"`{name}`" in dict(rows)[str(code)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?s)<!--.*?-->", "", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert "://" in link or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_files_and_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:rig|ci|tests|docs|kernel-configs)/[\w./-]+\w)`", text):
        assert (ROOT / name).exists() or name in MEASURED, name
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?m)(?:`|^)make ([a-z-]+)(?:`| {2,}|$| WHAT)", text):
        assert f"\n{target}:" in makefile, target


def test_the_kernel_example_is_a_kernel() -> None:
    text = (ROOT / "docs/add-a-kernel.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"(?s)```toml\n(.*?)```", text)
    table = tomllib.loads(example)["kernel"]["mine"]
    kernel = msgspec.convert({**table, "name": "mine"}, KernelConfig)
    assert set(table) <= set(KernelConfig.__dataclass_fields__)
    for name in kernel.configs:
        assert (ROOT / "kernel-configs" / f"{name}.config").is_file()


@pytest.mark.parametrize("name", ["README.md", "docs/add-a-suite.md"])
def test_the_example_of_a_suite_is_one(name: str, tmp_path: Path) -> None:
    from rig import suite

    text = (ROOT / name).read_text(encoding="utf-8")
    (makefile,) = re.findall(r"(?s)```make\n(.*?)```", text)
    (tmp_path / "Makefile").write_text(makefile)
    for program in re.findall(r"(?m)^TEST_(?:GEN_)?PROGS := (.*)$", makefile):
        (tmp_path / program).touch()
    listed = suite.programs(suite.discover(tmp_path))
    assert [program.name for program in listed]


def test_no_page_names_a_place_of_its_author() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(work|root|tmp)/", text), page
