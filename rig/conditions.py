"""What a machine's times depend on: put on record, and made even where its kernel lets us."""

from __future__ import annotations

from collections.abc import Mapping

# What is changed here is of the running kernel alone: the next boot knows nothing of it.
SCRIPT = r"""
say() { name=$1; shift; printf '%s\t%s\n' "$name" "$*"; }
cd /sys/devices/system/cpu || exit 1
for one in cpufreq/policy*/scaling_governor; do
    [ -e "$one" ] && echo performance >"$one" 2>/dev/null
done
[ -e intel_pstate/no_turbo ] && echo 1 >intel_pstate/no_turbo 2>/dev/null
for one in cpufreq/boost cpufreq/policy*/boost; do
    [ -e "$one" ] && echo 0 >"$one" 2>/dev/null
done
say cpus_online "$(getconf _NPROCESSORS_ONLN)"
say governor "$(cat cpufreq/policy*/scaling_governor 2>/dev/null | sort -u | xargs)"
turbo=
[ -e intel_pstate/no_turbo ] && turbo=$((1 - $(cat intel_pstate/no_turbo)))
for one in cpufreq/boost cpufreq/policy*/boost; do
    [ -z "$turbo" ] && [ -e "$one" ] && turbo=$(cat "$one")
done
say turbo "$turbo"
say isolated "$(cat isolated 2>/dev/null)"
say smt "$(cat smt/active 2>/dev/null)"
say microcode "$(sed -n 's/^microcode[^:]*: *//p' /proc/cpuinfo | sort -u | xargs)"
say clocksource "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
for one in vulnerabilities/*; do
    [ -e "$one" ] || continue
    read -r words <"$one"
    case $words in "Not affected"*) ;; *) say "mitigation ${one#*/}" "$words" ;; esac
done
"""


_OF_A_BOOT = {"cpus_online"}  # it is asked for


def understood(said: str) -> dict[str, str]:
    """Facts for a report, of what SCRIPT said; what the machine has not is left out. Pure."""
    told = dict(line.split("\t", 1) for line in said.splitlines() if "\t" in line)
    found = {name: value for name, value in told.items() if value}
    if "turbo" in found:
        found["turbo"] = "on" if found["turbo"] == "1" else "off"
    return found


def uneven(facts: Mapping[str, str]) -> tuple[str, ...]:
    """Why times of a machine with these facts may differ by themselves, in words. Pure."""
    why = []
    governor = facts.get("governor", "")
    if not governor:
        why.append("nobody can tell its clock rate (no cpufreq)")
    elif governor != "performance":
        why.append(f"its governor is {governor}")
    if facts.get("turbo") == "on":
        why.append("its clock rate depends on its temperature (turbo)")
    if facts.get("smt") == "1":
        why.append("two CPUs share a core (SMT)")
    return tuple(why)


def differing(each: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """What was not the same for all that are compared, in words. each: facts by kernel. Pure."""
    names = sorted({name for facts in each.values() for name in facts} - _OF_A_BOOT)
    found = []
    for name in names:
        values = {kernel: facts.get(name, "") for kernel, facts in each.items()}
        if len(set(values.values())) > 1:
            told = ", ".join(
                f"{value or 'nothing'} on {kernel}" for kernel, value in values.items()
            )
            found.append(f"{name}: {told}")
    return tuple(found)


__all__ = ["SCRIPT", "differing", "understood", "uneven"]
