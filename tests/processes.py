"""Is a process gone?"""

from __future__ import annotations

import os
import time
from pathlib import Path


def is_gone(pid: int, within_s: float = 10.0) -> bool:
    """True once no process has this pid (or it is a zombie somebody else must reap)."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        os.sched_yield()
    return False
