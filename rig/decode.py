"""A trace with source lines, by the tree's decode_stacktrace.sh, and whose line it is."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path

from rig import culprits, process, source
from rig.errors import InfrastructureError
from rig.kbuild import VIRTUAL_TREE, Kernel
from rig.results import Splat

_SCRIPT = Path("scripts/decode_stacktrace.sh")
_TIMEOUT_S, _BLAME_S = 120.0, 60.0
_MOST = 60  # functions of one trace that are looked up: half a second each

# A function with offset and size (lib/vsprintf.c %pS), of a module with that behind it, and with
# %pSb with what its build is called.
_TOKEN = re.compile(
    r"\b(?P<func>[A-Za-z_][\w.]*)\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}\b"
    r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]{8,64})?\])?",
    re.ASCII,
)
# What it says of a module's ends with the module; a line that is several pieces of code has
# "(discriminator 2)" behind it.
_PLACE = re.compile(r"\((?P<places>(?:[^()]|\([^()]*\))*)\)(?: [\w-]+)?\s*$")
_LINE = re.compile(r"(?P<file>[\w./+-]+):(?P<line>\d+)", re.ASCII)


def decode(one: Splat, kernel: Kernel, known: MutableMapping[str, str] | None = None) -> Splat:
    """The splat with decoded, place and patch filled in, as far as they are known.

    known: source lines of this kernel's functions, as they stand in a trace, "" where there is
    none; what is not in it is looked up, which takes half a second each, and is put there.
    InfrastructureError when the script cannot be run.
    """
    tokens = [one for one in wanted(one.text) if kernel.debug or not one.endswith("]")]
    if not tokens:
        return one
    known = {} if known is None else known
    if fresh := [token for token in tokens if token not in known]:
        found = _places(fresh, kernel)
        known.update({token: found.get(token, "") for token in fresh})
    places = {token: known[token] for token in tokens if known[token]}
    where = place_of(one, places)
    return replace(
        one,
        decoded=with_places(one.text, places),
        place=where,
        patch=_patch(where, kernel) if where else "",
    )


def wanted(text: str) -> list[str]:
    """The functions of a report as they stand there, once each. Pure."""
    return list(dict.fromkeys(found[0] for found in _TOKEN.finditer(text)))[:_MOST]


def _places(tokens: Sequence[str], kernel: Kernel) -> dict[str, str]:
    """Source lines by function as it stands in the trace.

    The script does arithmetic on what it reads, and a shell's arithmetic runs commands: so it is
    given nothing but names and numbers, a line each, and never a guest's own words.
    """
    script = kernel.tree / _SCRIPT
    if not script.is_file():
        raise InfrastructureError(f"the tree has no {_SCRIPT}")
    with tempfile.TemporaryFile() as words:
        words.write("".join(f" {token}\n" for token in tokens).encode())
        words.seek(0)
        done = process.run(
            [
                "bash",
                script,
                kernel.vmlinux,
                VIRTUAL_TREE,
                *([kernel.debug] if kernel.debug else []),
            ],
            timeout_s=_TIMEOUT_S,
            stdin=words,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            separate=True,
        )
    return paired(tokens, done.output.splitlines())


def paired(tokens: Sequence[str], lines: Sequence[str]) -> dict[str, str]:
    """What the script said of each: "file:line", those of what was inlined first. Pure.

    Raises InfrastructureError where it is not a line for each.
    """
    if len(lines) != len(tokens):
        raise InfrastructureError(
            f"decode_stacktrace.sh answered {len(tokens)} functions with {len(lines)} lines"
        )
    found = {}
    for token, line in zip(tokens, lines, strict=True):
        match = _PLACE.search(line)
        known = _LINE.findall(match["places"]) if match else []
        if known:
            found[token] = " ".join(f"{_relative(file)}:{number}" for file, number in known)
    return found


def _relative(file: str) -> str:
    """A path within the tree: what is generated lies in the build directory beside it."""
    return os.path.normpath(file.removeprefix(f"{VIRTUAL_TREE}/"))


def with_places(text: str, places: Mapping[str, str]) -> str:
    """The text with its source line behind each function. Pure."""

    def told(found: re.Match[str]) -> str:
        known = places.get(found[0])
        return f"{found[0]} ({known})" if known else found[0]

    return _TOKEN.sub(told, text)


def place_of(one: Splat, places: Mapping[str, str]) -> str:
    """Where the culprit was: the line itself of its first mention, not what it inlines. Pure."""
    for found in _TOKEN.finditer(one.text):
        if culprits.function(found["func"]) == one.frame and found[0] in places:
            return places[found[0]].split()[-1]
    return ""


def _patch(where: str, kernel: Kernel) -> str:
    """The patch of the series that touched a line last; "" for the pristine source's."""
    file, _, line = where.rpartition(":")
    if not (kernel.tree / file).is_file():
        return ""  # what is generated
    words = ("blame", "--porcelain", "-L", f"{line},{line}", "HEAD", "--", file)
    repository = kernel.tree / ".git"
    done = source.git(*words, repository=repository, check=False, timeout_s=_BLAME_S)
    return kernel.patch_of(done.output.split(" ", 1)[0]) if not done.returncode else ""
