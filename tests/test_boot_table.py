"""ci/boot_table.py on two boots that were captured, and ci/compare_virtme_ng.py's sums."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rig.errors import InfrastructureError

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "ci"))
boot_table = importlib.import_module("boot_table")
compare = importlib.import_module("compare_virtme_ng")


def captured(name: str) -> Any:
    value = json.loads((ROOT / f"tests/data/boot-table/{name}.json").read_bytes())
    lines = {key: [(at, text) for at, text in value[key]] for key in ("console", "login")}
    return boot_table.Boot(end_s=value["end_s"], **lines)


def test_every_step_of_a_boot_is_found_in_its_order() -> None:
    boot = captured("plain")
    moments = boot.moments()
    names = [name for name, _ in (*boot_table.CONSOLE, *boot_table.LOGIN)]
    assert list(moments) == [*names, boot_table.COMMAND]
    assert list(moments.values()) == sorted(moments.values())
    assert moments[boot_table.COMMAND] == boot.end_s


def test_steps_add_up_to_the_whole() -> None:
    boot = captured("plain")
    steps = boot_table.steps([boot])
    assert sum(steps.values()) == pytest.approx(boot.end_s * 1000, abs=len(steps))
    assert boot_table.whole([boot]) == {"median": 1783, "minimum": 1783}


def test_a_step_without_its_line_belongs_to_the_next() -> None:
    boot = captured("plain")
    steps = boot_table.steps([boot])
    boot.console = [line for line in boot.console if "smp: Brought up" not in line[1]]
    fewer = boot_table.steps([boot])
    gone, after = steps["the other CPUs"], "ACPI and the PCI bus"
    assert "the other CPUs" not in fewer
    assert fewer[after] == pytest.approx(steps[after] + gone, abs=1)


def test_a_restored_machine_begins_with_its_state() -> None:
    cold = captured("plain")
    boot = boot_table.Boot(login=cold.login, end_s=cold.end_s, restored_s=0.2)
    steps = boot_table.steps([boot])
    assert list(steps) == [
        boot_table.RESTORED,
        *(name for name, _ in boot_table.LOGIN),
        boot_table.COMMAND,
    ]
    assert steps[boot_table.RESTORED] == 200


def test_initcalls_longest_first() -> None:
    found = boot_table.initcalls([captured("initcalls")], 8.0)
    assert next(iter(found)) == "acpi_init"
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert min(found.values()) >= 8.0
    assert "virtio_blk_init" in found


def test_what_was_done_beside_another_step_costs_nothing() -> None:
    boot = captured("plain")
    before = boot_table.steps([boot])
    early, exchange = boot.console[0][0], boot_table.LOGIN[1]
    boot.login = [(early if exchange[1] in text else at, text) for at, text in boot.login]
    steps = boot_table.steps([boot])
    assert steps[exchange[0]] == 0
    gained = steps[boot_table.LOGIN[2][0]] - before[boot_table.LOGIN[2][0]]
    assert gained == pytest.approx(before[exchange[0]], abs=1)


def test_table_with_a_column_of_before() -> None:
    text = boot_table.table({"before": {"a": 2, "gone": 1}, "after": {"a": 1.4}})
    assert text.splitlines() == [
        "| step | before | after |",
        "| --- | ---: | ---: |",
        "| a | 2 | 1 |",
        "| gone | 1 |  |",
    ]


# -- compare-virtme-ng --------------------------------------------------------------------------

STUB = "#!/bin/sh\n{0}\n"


def vng(tmp_path: Path, script: str) -> tuple[list[str], Path]:
    """A command that stands in for vng, and the clock it is to start QEMU by."""
    clock, program = tmp_path / "qemu", tmp_path / "bin/vng"
    program.parent.mkdir()
    for path, text in ((clock, compare.CLOCK), (program, STUB.format(script))):
        path.write_text(text)
        path.chmod(0o755)
    return [str(program)], clock


def test_qemu_is_timed_and_not_what_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare.shutil, "which", lambda _name: "/bin/sleep")
    words, clock = vng(tmp_path, 'sleep 0.4; "$2" 0.3')
    qemu_s, whole_s = compare.virtme_ng(words, clock)
    assert 0.3 <= qemu_s < whole_s - 0.35


@pytest.mark.parametrize("script", ["echo no root; exit 255", "exit 0"])
def test_a_vng_that_fails_or_never_starts_qemu_is_no_figure(tmp_path: Path, script: str) -> None:
    words, clock = vng(tmp_path, script)
    with pytest.raises(InfrastructureError, match="--exec true failed") as caught:
        compare.virtme_ng(words, clock)
    assert words[0] in caught.value.reproduce


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ('{"machine": {}}', 0, "no fact first_command_s"),
        ("nothing", 0, "no fact first_command_s"),
        ('{"machine": {"first_command_s": "0.4"}}', 5, "exit code 5"),
    ],
)
def test_a_rig_that_does_not_say_is_no_figure(
    tmp_path: Path, text: str, code: int, message: str
) -> None:
    program = tmp_path / "rig"
    program.write_text(STUB.format(f"echo '{text}'; exit {code}"))
    program.chmod(0o755)
    with pytest.raises(InfrastructureError, match=message):
        compare.rig([str(program)])


def test_a_host_without_udev_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "QEMU", "sh")
    monkeypatch.setattr(compare, "UDEVD", (str(tmp_path / "udevd"),))
    with pytest.raises(InfrastructureError, match="udevd") as caught:
        compare.check_host()
    assert "apt-get install" in caught.value.hint
    (tmp_path / "udevd").touch()
    compare.check_host()


def test_ratios_and_their_table(tmp_path: Path) -> None:
    sides = [compare.Side(name, lambda: (0.0, 0.0)) for name in ("a", "b", "c")]
    for side, values in zip(sides, ((9, 12, 10), (2, 2, 5), (0.5, 0.4, 0.6)), strict=True):
        side.qemu_s = list(map(float, values))
        side.whole_s = [value + 1 for value in side.qemu_s]
    theirs, cold, restored = (side.value for side in sides)
    found = {
        "rounds": 3,
        "virtme_ng": theirs,
        "rig_cold": cold,
        "rig_restored": restored,
        **compare.ratios(theirs, cold, restored),
    }
    assert (found["ratio_cold"], found["ratio_restored"]) == (5.0, 20.0)
    assert (found["ratio_cold_whole"], found["ratio_restored_whole"]) == (3.67, 7.33)
    lines = compare.table(found).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "median of 3 from QEMU whole",
        "virtme-ng 10.00 s 11.00 s",
        "rig, cold 2.00 s 5.0 x 3.00 s 3.7 x",
        "rig, restored 0.50 s 20.0 x 1.50 s 7.3 x",
    ]
