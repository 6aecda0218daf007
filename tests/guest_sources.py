"""Where the cases of a guest program are written down."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
SERIES = ROOT / "patches/async-submit/6.12"


def source(suite: str, program: str) -> str:
    """The text that has to name the program's cases: its own, or the series' for unit tests."""
    place = ROOT / "guest-tests" / suite
    text = next(place.glob(f"{program}.c"), place / program).read_text()
    if "/debug/kunit/" not in text:
        return text
    return "".join(patch.read_text() for patch in sorted(SERIES.glob("*KUn*.patch")))
