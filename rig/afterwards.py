"""What follows a night: its files, its pages, a mail, a hook, and room for the next one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from rig import nightmail, process, site
from rig.errors import InfrastructureError, RigError
from rig.nightly import JUNIT, PLACE, Hook, Plan, Seen, thinned
from rig.results import to_json

SUMMARY, KCIDB = "summary.txt", "kcidb.json"
_HOOK_S = 600.0
_TAIL = 2000


def conclude(
    seen: Seen, plan: Plan, results: Path, root: Path, say: Callable[[str], object]
) -> Path:
    """All of it; the page to begin with. What of it fails is said, and changes nothing of what was
    seen; nobody is told of a night that a person has interrupted.
    """
    told = () if seen.interrupted else (_mail, _hook)
    for step in (_files, _pages, *told, _room):
        try:
            step(seen, plan, results, root, say)
        except RigError as error:
            say(error.message)
        except (OSError, ValueError, LookupError) as error:
            say(f"what follows a night is not complete: {error}")
    return results / PLACE / site.PAGE


def broken_off(error: Exception, plan: Plan, root: Path, say: Callable[[str], object]) -> None:
    """Tell whoever is told of nights that there is none; the error is raised by whoever has it."""
    why = error.message if isinstance(error, RigError) else str(error)
    mail, hook = plan.mail, plan.hook
    try:
        if mail is not None:
            nightmail.send(nightmail.broken_off(why, mail), mail, root)
            say(f"mail sent to {', '.join(mail.to)}")
    except (RigError, OSError, ValueError) as failed:
        say(f"nobody could be told by mail: {failed}")
    try:
        if hook is not None:
            with tempfile.TemporaryDirectory() as place:
                text = Path(place, SUMMARY)
                text.write_text(nightmail.no_night(why), encoding="utf-8")
                _run_hook(hook, text, Path(place, "hook.log"), "", good=False, root=root)
            say("the hook was run")
    except (RigError, OSError, ValueError) as failed:
        say(str(failed))


def _files(
    seen: Seen, _plan: Plan, _results: Path, _root: Path, _say: Callable[[str], object]
) -> None:
    night, said = seen.night, seen.summary
    (seen.place / SUMMARY).write_text(nightmail.text(night, said), encoding="utf-8")
    (seen.place / JUNIT).write_bytes(nightmail.junit(night, said))
    (seen.place / KCIDB).write_bytes(to_json(nightmail.kcidb(night)))


def _pages(
    seen: Seen, _plan: Plan, results: Path, _root: Path, _say: Callable[[str], object]
) -> None:
    site.write(seen, results)


def _mail(seen: Seen, plan: Plan, _results: Path, root: Path, say: Callable[[str], object]) -> None:
    mail = plan.mail
    if mail is None or (mail.when == "bad" and seen.summary.good):
        return
    nightmail.send(nightmail.message(seen.night, seen.summary, mail), mail, root)
    say(f"mail sent to {', '.join(mail.to)}")


def _hook(seen: Seen, plan: Plan, _results: Path, root: Path, say: Callable[[str], object]) -> None:
    hook = plan.hook
    if hook is None or (hook.when == "bad" and seen.summary.good):
        return
    text, log, night = seen.place / SUMMARY, seen.place / "hook.log", str(seen.place.absolute())
    _run_hook(hook, text, log, night, good=seen.summary.good, root=root)
    say("the hook was run")


def _run_hook(hook: Hook, text: Path, log: Path, night: str, *, good: bool, root: Path) -> None:
    """text: a file that it reads; log: one for what it says. InfrastructureError where it fails."""
    env = {**os.environ, "RIG_NIGHT": night, "RIG_NIGHT_GOOD": str(int(good))}
    with text.open("rb") as given, log.open("wb") as output:
        started = process.spawn(
            ["sh", "-c", hook.run],
            cwd=root, env=env, stdin=given, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = started.wait(_HOOK_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            process.end(started)
    if code:
        words = log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        how = f"ended with exit code {code}" if code > 0 else f"did not end in {_HOOK_S:.0f} s"
        raise InfrastructureError(f"the hook {how}: {words}")


def _room(seen: Seen, plan: Plan, results: Path, _root: Path, say: Callable[[str], object]) -> None:
    gone = [*seen.thinned, *thinned(results, plan.keep, plan.keep_gib)]
    site.rewritten(results, gone)
    if gone:
        say(f"logs of {len(gone)} old night(s) removed: {', '.join(gone)}")


__all__ = ["JUNIT", "KCIDB", "SUMMARY", "broken_off", "conclude"]
