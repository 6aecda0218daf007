"""ci/each_patch.py: which programs have to pass after which patch."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from rig import config, series
from rig.errors import UsageError
from rig.store import digest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))
each_patch = importlib.import_module("each_patch")


def test_more_has_to_pass_with_each_patch() -> None:
    kernel = config.load(ROOT / config.FILE_NAME).kernel("async")
    names = [patch.name for patch in series.read(ROOT / kernel.series)]
    wanted = [each_patch.programs(names[:count]) for count in range(1, len(names) + 1)]
    assert wanted[:2] == [None, None]
    assert all("not handover " in words for words in wanted[2:9])
    # From here on every patch lets more pass than the one before, until all does. The last but one
    # is about time.
    left_out = [words.count("not ") for words in wanted[9:]]
    assert left_out == [10, 8, 7, 6, 4, 3, 3, *[2] * 7, 1, 1, 0]


def test_a_prefix_is_a_series(tmp_path: Path) -> None:
    kernel = config.load(ROOT / config.FILE_NAME).kernel("async")
    patches = series.read(ROOT / kernel.series)
    for count in (1, 3):
        directory = each_patch.prefix(patches[:count], tmp_path / "series")
        assert [patch.data for patch in series.read(directory)] == [
            patch.data for patch in patches[:count]
        ]


def test_the_project_without_debug_information(tmp_path: Path) -> None:
    place = each_patch.project(tmp_path / "project")
    ours, theirs = config.load(ROOT / config.FILE_NAME), config.load(place / config.FILE_NAME)
    before, after = (one.kernel("async").configs for one in (ours, theirs))
    assert [name for name in before if name != "debuginfo"] == list(after)
    assert "debuginfo" in before
    assert (theirs.root / "kernel-configs/base.config").is_file()


def test_what_passed_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    bad = {3}

    def boots(_kernel: str, directory: Path, *_rest: object) -> tuple[bool, str]:
        count = len(series.read(directory))
        seen.append(count)
        return count not in bad, "said"

    monkeypatch.setattr(each_patch, "boots", boots)
    whole = series.read(ROOT / config.load(ROOT / config.FILE_NAME).kernel("async").series)
    count = len(whole)
    words = ["async", "--place", str(tmp_path)]
    assert each_patch.main(words) == 1
    assert seen == list(range(1, count + 1))
    assert capsys.readouterr().out.count("ok  ") == count - 1
    seen.clear()
    bad.clear()
    assert each_patch.main(words) == 0
    assert seen == [3]
    assert capsys.readouterr().out.count("ok  ") == count
    seen.clear()
    monkeypatch.setattr(each_patch, "made_with", lambda _root: ["something else"])
    assert each_patch.main(words) == 0
    assert seen == list(range(1, count + 1))
    seen.clear()
    assert each_patch.main([*words, "--fresh", "--from", str(count)]) == 0
    assert seen == [count]


def test_two_do_not_work_in_one_place(tmp_path: Path) -> None:
    with each_patch.alone(tmp_path), pytest.raises(UsageError, match="at work"):
        each_patch.main(["async", "--place", str(tmp_path)])


def test_what_a_verdict_depends_on(tmp_path: Path) -> None:
    for name in (
        "kernel-configs/a.config",
        "guest-tests/abi/a.c",
        "images/x/recipe.toml",
        "rig/a.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("one")
    (tmp_path / config.FILE_NAME).write_text("")
    before = digest(*each_patch.made_with(tmp_path))
    (tmp_path / "rig/__pycache__").mkdir()
    (tmp_path / "rig/__pycache__/a.pyc").write_text("")
    assert digest(*each_patch.made_with(tmp_path)) == before
    (tmp_path / "guest-tests/abi/a.c").write_text("two")
    assert digest(*each_patch.made_with(tmp_path)) != before
