"""What the exact set came to when somebody accepted it: ci/baselines/*.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rig.errors import InfrastructureError, UsageError
from rig.results import to_json
from rig.rows import Row

DIRECTORY = Path("ci/baselines")
SCHEMA = 1


@dataclass(frozen=True)
class Accepted:
    """A baseline.

    identity: kernel version, configuration, compilers and the machine's own; with another one
    nothing can be said. reasons: why it was accepted, the newest last, with commit and day.
    rows: value and unit by name.
    """

    kernel: str
    identity: dict[str, str]
    reasons: tuple[dict[str, str], ...]
    rows: dict[str, tuple[int, str]]
    schema: int = SCHEMA

    def as_rows(self) -> dict[str, Row]:
        """For a comparison with rows that were measured now."""
        return {name: Row(name, value, unit) for name, (value, unit) in self.rows.items()}


def place(root: Path, kernel: str, identity: Mapping[str, str]) -> Path:
    """Where the baseline of a kernel of rig.toml is kept: one for each version of it, configuration
    and compiler.
    """
    parts = (kernel, identity.get("release", ""), identity.get("config", "")[:8])
    return root / DIRECTORY / f"exact-{'-'.join(parts)}-{_brief(identity.get('compiler', ''))}.json"


def _brief(compiler: str) -> str:
    """gcc (Debian 12.2.0-14) 12.2.0 -> gcc-12.2.0"""
    name, *words = compiler.split() or [""]
    version = next((word for word in reversed(words) if word[:1].isdigit()), "")
    return re.sub(r"[^\w.-]", "", f"{name}-{version}")


def every(root: Path, kernel: str) -> dict[Path, Accepted]:
    """All that there are of a kernel of rig.toml, of whatever version; raises as load() does."""
    loaded = {path: load(path) for path in sorted((root / DIRECTORY).glob("exact-*.json"))}
    return {path: one for path, one in loaded.items() if one and one.kernel == kernel}


def load(path: Path) -> Accepted | None:
    """The baseline, or None when there is none yet; InfrastructureError for what is none."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Accepted)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise InfrastructureError(f"{path}: not a baseline: {error}") from error
    if found.schema != SCHEMA:
        raise InfrastructureError(f"{path}: schema {found.schema}, this rig reads {SCHEMA}")
    return found


def save(
    path: Path, kernel: str, identity: Mapping[str, str], rows: Mapping[str, Row],
    reason: Mapping[str, str],
) -> None:  # fmt: skip
    """Accept these figures for this reason; what was said before stays. UsageError for none."""
    if not reason.get("why", "").strip():
        raise UsageError("a baseline is accepted for a reason", hint="--accept 'WHY'")
    known = load(path)
    reasons = (*(known.reasons if known else ()), dict(reason))
    kept = {name: (int(row.value), row.unit) for name, row in sorted(rows.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_json(Accepted(kernel, dict(identity), reasons, kept)))


def foreign(known: Accepted, identity: Mapping[str, str]) -> list[str]:
    """What of the identity is not as it was, as sentences. Pure."""
    names = dict.fromkeys((*known.identity, *identity))
    return [
        f"{name} was {known.identity.get(name, 'nothing')}, is {identity.get(name, 'nothing')}"
        for name in names
        if known.identity.get(name) != identity.get(name)
    ]
