"""Rigs at once on one store, killed at random: for some seconds here, for minutes in acceptance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

# No real kernel, but too long for the quick tier.
pytestmark = pytest.mark.kernel

STRESS = Path(__file__).parent / "store_stress.py"


def test_rigs_at_once_that_are_killed_leave_the_store_sound() -> None:
    words = [sys.executable, str(STRESS), "--seconds", "20", "--rigs", "8"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["faults"] == [], told
    assert done.returncode == 0
    # A stress in which nothing happened would prove nothing.
    assert told["killed"] > 0
    assert sum(told["ended"].values()) > 0
