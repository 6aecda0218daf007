"""How long programs took in earlier runs, so that side by side the longest can begin first."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

# Beside the runs they were seen in.
DURATIONS = ".durations.json"

_log = logging.getLogger(__name__)


class Durations:
    """Seconds of each program (suite/program), the newest known; any thread may use it.

    They only decide an order, so a file that is missing or damaged is as good as an empty one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._new: dict[str, float] = {}

    def known(self) -> dict[str, float]:
        """Of earlier runs."""
        if self._path is None:
            return {}
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, float])
        except (OSError, msgspec.MsgspecError):
            return {}

    def note(self, name: str, seconds: float) -> None:
        """A program took so long now."""
        with self._lock:
            self._new[name] = round(seconds, 3)

    def save(self) -> None:
        """Keep what was noted, beside what is known of others; warn when that cannot be."""
        with self._lock:
            new, self._new = self._new, {}
        if self._path is None or not new:
            return
        partial = self._path.with_name(f".{self._path.name}.{threading.get_native_id()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(msgspec.json.encode(self.known() | new))
            partial.rename(self._path)
        except OSError as error:
            _log.warning("cannot keep how long programs took: %s", error)
