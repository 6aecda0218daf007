"""How many machines a host may have: cores, memory, and what is said when there are too few."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import budget
from rig.budget import AUTO, Budget, Host
from rig.config import MachineConfig
from rig.errors import UsageError

SINGLE = MachineConfig("single", cpus=1, memory_mib=1024)
DOUBLE = MachineConfig("default", cpus=2, memory_mib=1024)
SMALL, LARGE = Host(2, 24 * 1024), Host(16, 64 * 1024)


@pytest.mark.parametrize(
    ("machine", "asked", "host", "machines", "boots_at_once", "spares", "load"),
    [
        (SINGLE, 1, SMALL, 1, 2, 1, 1.0),
        (SINGLE, 2, SMALL, 2, 2, 0, 1.0),
        (DOUBLE, 1, SMALL, 1, 1, 1, 1.5),
        (DOUBLE, 1, Host(1, 8192), 1, 1, 0, 1.0),
        (DOUBLE, 1, Host(2, 2048), 1, 1, 0, 1.0),
        (DOUBLE, 2, SMALL, 2, 1, 0, 2.0),
        (SINGLE, 5, SMALL, 5, 2, 0, 2.5),
        (DOUBLE, 3, LARGE, 3, 8, 3, 1.0),
        (SINGLE, AUTO, SMALL, 2, 2, 0, 1.0),
        (DOUBLE, AUTO, SMALL, 1, 1, 1, 1.5),
        (DOUBLE, AUTO, LARGE, 8, 8, 0, 1.0),
        (SINGLE, AUTO, Host(16, 6 * 1024), 4, 16, 0, 1.0),
        # One machine runs wherever it is asked for, as ever.
        (DOUBLE, 1, Host(1, 512), 1, 1, 0, 1.0),
        (DOUBLE, AUTO, Host(1, 512), 1, 1, 0, 1.0),
    ],
)
def test_what_a_host_allows(
    machine: MachineConfig,
    asked: int,
    host: Host,
    machines: int,
    boots_at_once: int,
    spares: int,
    load: float,
) -> None:
    found = budget.budget(machine, asked, ahead=True, host=host)
    notices = found.notices
    assert found == Budget(machines, boots_at_once, spares, load, notices)
    assert bool(notices) == (load > 1 and machines > 1)


def test_nothing_is_booted_ahead_where_it_is_of_no_use() -> None:
    assert budget.budget(DOUBLE, 1, host=SMALL) == Budget(1, 1, spares=0, load=1.0)


def test_too_few_cores_are_said() -> None:
    (notice,) = budget.budget(DOUBLE, 2, host=SMALL).notices
    assert notice == ("2 machines of 2 vCPU(s) share 2 core(s): deadlines are 2 times as long")


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(
        UsageError, match="4 machines of 1024 MiB need 5496 MiB, and 4096"
    ) as caught:
        budget.budget(SINGLE, 4, host=Host(8, 4096))
    assert "-n 2 fits" in caught.value.hint
    assert budget.budget(SINGLE, 2, host=Host(8, 4096)).machines == 2


@pytest.mark.parametrize(("words", "number"), [("1", 1), ("16", 16), ("auto", AUTO)])
def test_n_is_a_number_or_auto(words: str, number: int) -> None:
    assert budget.parse(words) == number


@pytest.mark.parametrize("words", ["0", "-1", "two", "", "1.5", "100000", "²"])
def test_n_that_is_neither_is_a_usage_error(words: str) -> None:
    with pytest.raises(UsageError, match="not a number of machines"):
        budget.parse(words)


def test_this_host_has_something() -> None:
    host = budget.this_host()
    assert host.cores >= 1
    assert host.memory_mib > 64


def test_a_control_group_allows_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_GROUPS", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(budget, "_available_mib", lambda: 32768)
    assert budget.this_host() == Host(16, 32768)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert budget.this_host() == Host(16, 32768)
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    (tmp_path / "memory.max").write_text(f"{4096 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{3072 << 20}\n")
    (tmp_path / "memory.stat").write_text(
        f"anon 5\ninactive_file {1024 << 20}\nactive_file {512 << 20}\nfile {4096 << 20}\n"
    )
    assert budget.this_host() == Host(2, 4096 - 3072 + 1024 + 512)
