"""What a night is told as: plain text, as a kernel list has it, a mail, JUnit, KCIDB."""

from __future__ import annotations

import email.utils
import re
import smtplib
import socket
import ssl
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from email import policy
from email.message import EmailMessage
from pathlib import Path

from rig import credential, report
from rig.errors import InfrastructureError
from rig.night import Change, Moved, Night, Outcome, Summary
from rig.nightly import Mail
from rig.results import Status

_WIDTH = 72
_MOST = 25  # of a kind; the site has all
_LINE = 500  # octets; a mail server takes 998
_SMTP_S = 60.0
_HEADER = 900
_KCIDB = {"major": 4, "minor": 3}
_STATUS = {
    Status.PASS: "PASS", Status.FAIL: "FAIL", Status.CRASH: "FAIL", Status.TIMEOUT: "FAIL",
    Status.ERROR: "ERROR", Status.SKIP: "SKIP", Status.FLAKY: "FAIL",
}  # fmt: skip


def text(night: Night, said: Summary) -> str:
    """All of it, what is worst first."""
    lines = [f"rig nightly {night.name}: {said.because}", ""]
    for title, body in _sections(said):
        lines += [title, *body, ""]
    lines += [*_tail(night, said)]
    return "\n".join(_line(one) for one in lines) + "\n"


def _line(words: str) -> str:
    """What a terminal and a mail take: a guest may have called its case anything."""
    return report.clean(words).encode()[:_LINE].decode(errors="ignore")


def _sections(said: Summary) -> Iterator[tuple[str, list[str]]]:
    changes = (
        ("New failures", said.new),
        ("New warnings of kernels", said.warnings),
        ("Flaky", said.flaky),
        ("Still failing", said.still),
        ("Failed, and may", said.allowed),
        ("Skipped, and not before", said.skipped),
    )
    moves = (("Regressions", said.regressions), ("Better", said.better))
    order: list[tuple[str, list[str]]] = [
        (changes[0][0], _of_changes(changes[0][1])),
        (moves[0][0], _of_moves(moves[0][1])),
        *((title, _of_changes(those)) for title, those in changes[1:4]),
        ("Not run", _listed(said.left)),
        ("Gone since the last good night", _listed(said.gone)),
        (changes[5][0], _of_changes(changes[5][1])),
        ("Fixed", _listed([one.what for one in said.fixed])),
        (moves[1][0], _of_moves(moves[1][1])),
        (changes[4][0], _of_changes(changes[4][1])),
        ("Not run, and need not be", _listed(said.may)),
    ]
    for title, body in order:
        if body:
            yield f"{title}:", body


def _of_changes(those: Sequence[Change]) -> list[str]:
    lines: list[str] = []
    for one in those[:_MOST]:
        was = f" (it was {one.before})" if one.now.status is Status.SKIP and one.before else ""
        lines.append(f"  {one.now.status.upper()} {one.what}{was}")
        if one.now.words:
            lines += textwrap.wrap(
                one.now.words, _WIDTH, initial_indent="    ", subsequent_indent="    ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        if one.now.allowed:
            lines.append(f"    may fail: {one.now.allowed}")
        since = f"since {one.since}" if one.since else ""
        before = f"was {one.before}" if one.before and not (one.since or was) else since
        if before:
            lines.append(f"    {before}")
        if one.now.again:
            lines.append(f"    {one.now.again}")
    return [*lines, *_more(those)]


def _of_moves(those: Sequence[Moved]) -> list[str]:
    """Each in a line; below those of one command that command."""
    lines: list[str] = []
    shown = those[:_MOST]
    for at, one in enumerate(shown):
        lines.append(f"  {one.words}")
        if one.again and (at + 1 == len(shown) or shown[at + 1].again != one.again):
            lines.append(f"    {one.again}")
    return [*lines, *_more(those)]


def _listed(those: Sequence[str]) -> list[str]:
    return [*(f"  {one}" for one in those[:_MOST]), *_more(those)]


def _more(those: Sequence[object]) -> list[str]:
    return [f"  ... and {len(those) - _MOST} more"] if len(those) > _MOST else []


def _tail(night: Night, said: Summary) -> list[str]:
    skipped = sum(one.status is Status.SKIP for one in night.results.values())
    good = sum(not one.bad for one in night.results.values()) - skipped
    lines = [
        f"{good} of {len(night.results)} results good, {skipped} skipped, "
        f"{len(night.figures)} figures, "
        f"{night.seconds / 3600:.1f} h",
        f"commit: {night.commit or 'unknown'}",
    ]
    lines += [f"kernel: {name} {release}".rstrip() for name, release in night.kernels.items()]
    for part in night.parts:
        lines.append(f"part:   {part.name}, {part.end}, {part.seconds / 60:.1f} min")
    lines.append(f"compared with {said.base}" if said.base else "there is no good night before it")
    return lines


# -- mail -----------------------------------------------------------------------------------------


def message(night: Night, said: Summary, mail: Mail) -> EmailMessage:
    """The mail of a night, not sent yet."""
    kernels = ", ".join(dict.fromkeys(one for one in night.kernels.values() if one))
    subject = f"[rig] {kernels or 'nightly'}: {said.because} ({night.began[:10]})"
    return _mail(subject, text(night, said), f"rig.{night.name}", mail)


def broken_off(why: str, mail: Mail) -> EmailMessage:
    """The mail of a night that could not begin, or broke off, not sent yet."""
    return _mail(f"[rig] nightly: no night: {why}", no_night(why), "rig", mail)


def no_night(why: str) -> str:
    """What is said instead of a summary."""
    where = socket.gethostname()
    return f"rig nightly on {where} could not begin, or broke off:\n\n  {_line(why)}\n"


def _mail(subject: str, words: str, name: str, mail: Mail) -> EmailMessage:
    # A subject is one line: some readers take a folded one for two.
    found = EmailMessage(policy.SMTP.clone(max_line_length=_HEADER))
    found["Subject"] = " ".join(report.clean(subject).split())
    found["From"] = mail.sender
    found["To"] = ", ".join(mail.to)
    found["Date"] = email.utils.formatdate()
    found["Message-ID"] = email.utils.make_msgid(name, domain=_domain(mail.sender))
    found["Auto-Submitted"] = "auto-generated"
    found.set_content(words, charset="utf-8", cte="8bit")
    return found


def _domain(sender: str) -> str:
    _, address = email.utils.parseaddr(sender)
    return address.partition("@")[2] or socket.getfqdn()


def send(found: EmailMessage, mail: Mail, root: Path) -> None:
    """Hand it to the server; InfrastructureError where that does not take it."""
    host, _, port = mail.smtp.rpartition(":") if ":" in mail.smtp else (mail.smtp, "", "25")
    secret = credential.read(mail.password, root)
    try:
        with smtplib.SMTP(host, int(port), timeout=_SMTP_S) as server:
            if mail.starttls:
                server.starttls(context=ssl.create_default_context())
            if mail.user:
                server.login(mail.user, secret.value)
            server.send_message(found)
    except (OSError, ValueError, smtplib.SMTPException) as error:
        raise InfrastructureError(
            f"the mail could not be sent by {mail.smtp}: {secret.hidden_in(str(error))}",
            hint="[mail] of ci/nightly.toml; the summary is in the night's directory",
        ) from error


# -- for programs ---------------------------------------------------------------------------------


def junit(night: Night, said: Summary) -> bytes:
    """JUnit XML: a testcase for each result, part, warning, regression, and what is gone; a night
    that is not good has a failure or an error in it.
    """
    root = ET.Element("testsuites", name=f"rig nightly {night.name}")
    suite = ET.SubElement(root, "testsuite", name="results", timestamp=night.began)
    still = {one.what for one in said.still if one.now.status is Status.SKIP}
    for what, one in night.results.items():
        case = ET.SubElement(suite, "testcase", classname="night", name=_clean(what))
        if what in still:  # skipped by now, and nothing has mended it
            words = f"it failed when it was last run; skipped now: {one.words}"
            ET.SubElement(case, "failure", message=_clean(words)).text = _clean(one.again)
        elif one.status is Status.SKIP or (one.bad and one.allowed):
            ET.SubElement(case, "skipped", message=_clean(one.allowed or one.words))
        elif one.bad:
            kind = "error" if one.status is Status.ERROR else "failure"
            ET.SubElement(case, kind, message=_clean(one.words)).text = _clean(one.again)
    for what, one in night.warnings.items():
        case = ET.SubElement(suite, "testcase", classname="kernel", name=_clean(what))
        if not one.allowed:
            ET.SubElement(case, "failure", message=_clean(one.words))
    for part in night.parts:
        case = ET.SubElement(suite, "testcase", classname="part", name=_clean(part.name))
        if part.end != "done" or part.left:
            words = "; ".join([f"{part.end} {part.why}".strip(), *part.left])
            ET.SubElement(case, "error", message=_clean(words))
    for moved in said.regressions:
        case = ET.SubElement(suite, "testcase", classname="figure", name=_clean(moved.what))
        ET.SubElement(case, "failure", message=_clean(moved.words))
    for what in said.gone:
        case = ET.SubElement(suite, "testcase", classname="gone", name=_clean(what))
        ET.SubElement(case, "error", message="it was there in an earlier night")
    for change in said.skipped:
        case = ET.SubElement(suite, "testcase", classname="skipped", name=_clean(change.what))
        ET.SubElement(case, "error", message=_clean(f"it was run before: {change.now.words}"))
    for mark, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"*/{mark}"))))
    suite.set("tests", str(len(suite)))
    ET.indent(root, " ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def kcidb(night: Night, origin: str = "rig") -> dict[str, object]:
    """The same as kernelci's database takes it (kcidb-io, schema 4.3)."""
    checkout = f"{origin}:{night.name}"
    builds = {name: f"{checkout}-{_word(name)}" for name in _kernels(night)}
    tests = [
        {
            "id": f"{checkout}-{number}",
            "build_id": builds[_parts(what)[1]],
            "origin": origin,
            "path": _path(_parts(what)[0]),
            "status": _STATUS[one.status],
            "start_time": night.began,
            "environment": {"comment": _parts(what)[2] or "unknown"},
            "misc": {"what": what, "message": one.words},
        }
        for number, (what, one) in enumerate(_of_kernels(night).items())
    ]
    return {
        "version": _KCIDB,
        "checkouts": [
            {
                "id": checkout,
                "origin": origin,
                "start_time": night.began,
                "valid": True,
                "misc": {"rig": night.commit},
            }
        ],
        "builds": [
            {
                "id": key,
                "checkout_id": checkout,
                "origin": origin,
                "config_name": name,
                "valid": True,
                "misc": {"release": night.kernels.get(name, "")},
            }
            for name, key in builds.items()
        ]
        + [
            {
                "id": f"{checkout}-unbuilt-{_word(name)}",
                "checkout_id": checkout,
                "origin": origin,
                "config_name": name,
                "valid": False,
                "misc": {"why": why},
            }
            for name, why in night.unbuilt.items()
        ],
        "tests": tests,
    }


_NAMED = re.compile(r"(?P<what>.*) \[(?P<kernel>[^,\]]*), (?P<machine>[^\]]*)\]$")


def _of_kernels(night: Night) -> Mapping[str, Outcome]:
    return {what: one for what, one in night.results.items() if _NAMED.match(what)}


def _kernels(night: Night) -> list[str]:
    return [*dict.fromkeys(_parts(what)[1] for what in _of_kernels(night))]


def _parts(what: str) -> tuple[str, str, str]:
    """Case, kernel, machine."""
    match = _NAMED.match(what)
    assert match is not None
    return match["what"], match["kernel"], match["machine"]


def _path(case: str) -> str:
    """Of letters, digits, dots, dashes and underscores, by the schema."""
    return ".".join(_word(part) for part in re.split(r"/|::", case) if part)


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text)


def _clean(words: str) -> str:
    """What XML takes."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", words)


__all__ = ["junit", "kcidb", "message", "send", "text"]
