"""What a machine's times depend on: asked of the files that a kernel has, by a real shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from rig import conditions

PLACE = "/sys/devices/system/cpu"


def asked(cpus: Path) -> dict[str, str]:
    script = conditions.SCRIPT.replace(PLACE, str(cpus))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return conditions.understood(done.stdout)


def written(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def test_the_script_touches_nothing_else_than_its_place() -> None:
    """Tests run it on a tree of their own; every path that it writes to is relative to that."""
    for target in re.findall(r">\s*\"?([^\s;\"]+)", conditions.SCRIPT):
        assert target.startswith(("$one", "intel_pstate/", "cpufreq/", "/dev/null", "&")), target


def test_what_is_not_the_same_for_two_kernels_is_told() -> None:
    """Times of one that has a mitigation, beside those of one that has not, compare that."""
    one = {"governor": "performance", "mitigation mds": "Mitigation: Clear", "cpus_online": "1"}
    two = {"governor": "performance", "mitigation mds": "Vulnerable", "cpus_online": "4"}
    assert conditions.differing({"a": one, "b": one}) == ()
    assert conditions.differing({"a": one}) == ()
    (told,) = conditions.differing({"a": one, "b": two})
    assert told == "mitigation mds: Mitigation: Clear on a, Vulnerable on b"
    assert conditions.differing({"a": one, "b": two, "c": {"governor": "performance"}}) == (
        "mitigation mds: Mitigation: Clear on a, Vulnerable on b, nothing on c",
    )


def test_a_server_is_made_even_and_said_to_be(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "cpufreq/policy0/scaling_governor": "powersave",
            "cpufreq/policy1/scaling_governor": "powersave",
            "intel_pstate/no_turbo": "0",
            "smt/active": "0",
            "vulnerabilities/meltdown": "Not affected",
            "vulnerabilities/spectre_v2": "Mitigation: Retpolines; IBPB: conditional",
            "vulnerabilities/mds": "Vulnerable: Clear CPU buffers attempted, no microcode",
        },
    )
    facts = asked(tmp_path)
    assert (tmp_path / "cpufreq/policy1/scaling_governor").read_text() == "performance\n"
    assert (tmp_path / "intel_pstate/no_turbo").read_text() == "1\n"
    assert facts["governor"] == "performance"
    assert facts["turbo"] == "off"
    assert facts["smt"] == "0"
    assert facts["mitigation spectre_v2"] == "Mitigation: Retpolines; IBPB: conditional"
    assert facts["mitigation mds"].startswith("Vulnerable")
    assert "mitigation meltdown" not in facts
    assert facts["clocksource"]
    assert int(facts["cpus_online"]) >= 1
    assert conditions.uneven(facts) == ()


def test_a_machine_of_amds_is_as_well(tmp_path: Path) -> None:
    written(tmp_path, {"cpufreq/policy0/scaling_governor": "ondemand", "cpufreq/boost": "1"})
    facts = asked(tmp_path)
    assert (facts["governor"], facts["turbo"]) == ("performance", "off")


def test_one_without_any_of_it_says_why_its_times_differ(tmp_path: Path) -> None:
    facts = asked(tmp_path)
    assert not {"governor", "turbo", "smt"} & facts.keys()
    assert conditions.uneven(facts) == ("nobody can tell its clock rate (no cpufreq)",)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"governor": "powersave"}, "its governor is powersave"),
        ({"governor": "performance powersave"}, "its governor is performance powersave"),
        ({"governor": "performance", "turbo": "on"}, "turbo"),
        ({"governor": "performance", "smt": "1"}, "SMT"),
    ],
)
def test_what_could_not_be_fixed_is_said(facts: dict[str, str], words: str) -> None:
    (why,) = conditions.uneven(facts)
    assert words in why


def test_a_boost_that_each_policy_has(tmp_path: Path) -> None:
    """As amd_pstate has it from 6.11 on; and CPUs that are kept for nothing else."""
    policies = {f"cpufreq/policy{one}/scaling_governor": "performance" for one in (0, 1)}
    policies |= {f"cpufreq/policy{one}/boost": "1" for one in (0, 1)}
    written(tmp_path, {**policies, "isolated": "1-3"})
    facts = asked(tmp_path)
    assert (tmp_path / "cpufreq/policy1/boost").read_text() == "0\n"
    assert (facts["turbo"], facts["isolated"]) == ("off", "1-3")
