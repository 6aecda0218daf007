"""ci/each_patch.py: which programs have to pass after which patch."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from rig import config, series

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))
each_patch = importlib.import_module("each_patch")


def test_more_has_to_pass_with_each_patch() -> None:
    kernel = config.load(ROOT / config.FILE_NAME).kernel("async")
    names = [patch.name for patch in series.read(ROOT / kernel.series)]
    wanted = [each_patch.programs(names[:count]) for count in range(1, len(names) + 1)]
    assert wanted[:2] == [None, None]
    assert all("not handover " in words for words in wanted[2:9])
    # From here on every patch lets more pass than the one before, until all does.
    assert [words.count("not ") for words in wanted[9:]] == [8, 6, 5, 4, 2, 1, 1, 0, 0, 0]


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
