"""Measure what nights must hold, and write ci/acceptance/nightly.json.

Run by `make accept WHAT=nightly`; some two hours on an idle host, with Slurm (`apt install
slurmctld slurmd slurm-client munge`) and a browser (`apt install chromium chromium-driver`,
`.venv/bin/pip install selenium`). A step that passed is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).absolute().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import emulated_slurm  # noqa: E402
from accept_handover import at_most  # noqa: E402
from accept_loop import Here, at_least, exactly, notices, opened, whole  # noqa: E402
from acceptance import Acceptance, Figure, Place, Step, leftovers, say  # noqa: E402
from emulated_bmc import free_port  # noqa: E402

from rig import afterwards, cells, history, nightly, process, report, splat  # noqa: E402
from rig.errors import InfrastructureError  # noqa: E402
from rig.night import End, Level, Night, Outcome, Part, summary  # noqa: E402
from rig.results import Case, Measurement, Run, Status  # noqa: E402

NIGHTS, RESULTS = 1000, 5000
AGAIN = "rig boot-and-test --case abi/p3::c1"
OPENS_S, ANSWERS_S = 2.0, 0.5
CELLS = 12
LIMIT_S = 5400.0
MATRIX = """
[[cells]]
kernels = ["async"]
machines = ["single", "default", "quad"]
suites = ["abi", "shim", "python", "stress"]

[slurm]
hours = 2
build_cpus = 2
build_mib = 2048
"""
# Ten instructions more for each getppid(), and nothing else.
SLOWER = """\
From: Rig <rig@localhost>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH] sys: ten instructions more for getppid()

Injected by ci/accept_nightly.py.

Signed-off-by: Rig <rig@localhost>
---
 kernel/sys.c | 1 +
 1 file changed, 1 insertion(+)

--- a/kernel/sys.c
+++ b/kernel/sys.c
@@ -996,4 +996,5 @@ SYSCALL_DEFINE0(getppid)
 {
 \tint pid;
~
+\tasm volatile(".rept 10; nop; .endr");
 \trcu_read_lock();
"""
PLAN = '''\
budget_h = 2.0

[[part]]
name = "matrix"
run = "rig matrix run --matrix small.toml --results {place}"
reads = "matrix"

[[part]]
name = "exact"
run = """rig bench async --exact --only syscall.c --explain 0 --results {place} \
    --json {place}/bench.json"""
reads = "bench"

[mail]
to = ["list@localhost"]
from = "rig@localhost"
'''
SMALL = """
[[cells]]
kernels = ["async"]
machines = ["default"]
suites = ["python"]
"""
BROKEN = '''#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Fails on purpose: injected by ci/accept_nightly.py."""

import sys

from ktap import Suite, true

suite = Suite()


@suite.case
def injected() -> None:
    true(False, "injected on purpose")


if __name__ == "__main__":
    sys.exit(suite.run())
'''
MEASURED = (
    *("rig", "rig.toml", "images", "kernel-configs", "patches", "guest-tests"),
    *("tests/emulated_slurm.py", "ci/accept_nightly.py", "ci/accept_loop.py", "ci/acceptance.py"),
)


# -- a lost node ----------------------------------------------------------------------------------


def slurm(place: Place) -> list[Figure]:
    """Twelve cells on two nodes, one of which is killed in the middle: nothing is lost."""
    here = opened(place)
    (here.clone / "twelve.toml").write_text(MATRIX)
    cluster_place = here.temporary / "slurm"
    cluster_place.mkdir()
    results = here.temporary / "results"
    with emulated_slurm.cluster(cluster_place, cpus=4) as cluster:
        env = {**here.environment(), "SLURM_CONF": str(cluster.env["SLURM_CONF"])}
        words = ["matrix", "run", "--on", "slurm", "--matrix", "twelve.toml"]
        argv = [str(here.clone / ".venv/bin/rig"), *words, "--results", str(results), "--json"]
        log = here.temporary / "matrix.log"
        with log.open("wb") as said:
            started = process.spawn(
                argv, cwd=here.clone, env=env, stdout=subprocess.PIPE, stderr=said
            )
            killed: list[str] = []
            killer = threading.Thread(target=_kill_in_the_middle, args=(cluster, results, killed))
            killer.start()
            try:
                output, _ = started.communicate(timeout=LIMIT_S)
            finally:
                process.end(started)
                killer.join()
    state = cells.load(results)
    if started.returncode:
        say(log.read_text(errors="replace")[-3000:])
    again = [told for told in state.cells if told.tries > 1]
    passed = [told for told in state.cells if told.end is cells.End.PASS]
    how = f"rig matrix run --on slurm, n1 killed with {', '.join(killed) or 'nothing'} on it"
    return [
        exactly("slurm_cells_that_pass", len(passed), "cells", CELLS, how),
        exactly("slurm_exit_code", int(started.returncode), "exit code", 0, how),
        at_least("slurm_cells_tried_again", len(again), "cells", 1, how),
        exactly("slurm_json", int(bool(json.loads(output or b"{}").get("cells"))), "yes", 1, how),
        leftovers(place),
    ]


def _kill_in_the_middle(cluster: emulated_slurm.Cluster, results: Path, killed: list[str]) -> None:
    """Once some cells have ended and others run on it."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        time.sleep(2)
        with contextlib.suppress(InfrastructureError):
            done = sum(told.final for told in cells.load(results).cells)
            on_it = cluster.said("squeue", "-h", "-t", "R", "-w", "n1", "-o", "%i").split()
            if done >= 3 and on_it:
                killed += on_it
                cluster.kill("n1")
                return


# -- two nights -----------------------------------------------------------------------------------


def nights(place: Place) -> list[Figure]:
    """Two nights, with a failure and ten instructions injected into the second: a mail and a page
    name both first.
    """
    here = opened(place)
    results = here.temporary / "results"
    (here.clone / "small.toml").write_text(SMALL)
    with _mails() as (mails, port):
        plan = here.clone / "plan.toml"
        plan.write_text(f'{PLAN}smtp = "127.0.0.1:{port}"\n')
        words = ("nightly", "--plan", "plan.toml", "--results", str(results))
        first = here.rig(*words)
        _inject(here)
        second = here.rig(*words)
    if first.returncode or second.returncode != 1:
        say((first.output + second.output)[-4000:])
    body = mails[-1].get_content().splitlines() if len(mails) == 2 else []
    page = (results / "nights/index.html").read_text()
    named = [line for line in body if "test_injected" in line][:1]
    cost = [line for line in body if re.search(r"getppid .*: [\d,]+ -> [\d,]+ instructions", line)]
    headings = [line for line in body if line.endswith(":") and not line.startswith(" ")]
    sections = re.findall(r'<section id="(\w+)">', page)
    moved = re.findall(r"([\d,]+) -> ([\d,]+) instructions", "\n".join(cost))
    more = [float(two.replace(",", "")) - float(one.replace(",", "")) for one, two in moved]
    how = f"two rig nightly, {SMALL.split()[-1]} and syscall.c: {named} {cost[:1]}"
    return [
        exactly("night_that_is_well", first.returncode, "exit code", 0, how),
        exactly("night_that_is_not", second.returncode, "exit code", 1, how),
        exactly("mails", len(mails), "mails", 2, how),
        exactly("failure_named_in_the_mail", len(named), "lines", 1, how),
        at_least("regression_named_in_the_mail", len(cost), "lines", 1, how),
        at_least("regression_in_instructions", max(more, default=0.0), "instructions", 10, how),
        exactly("both_first_in_the_mail", int(headings[:2] == ["New failures:", "Regressions:"]),
                "yes", 1, f"{how}: {headings[:3]}"),
        exactly("both_first_on_the_page", int(sections[:2] == ["new", "regressions"]),
                "yes", 1, f"{how}: {sections[:3]}"),
        leftovers(place),
    ]  # fmt: skip


def _inject(here: Here) -> None:
    """A test that fails and a call that costs more, committed in the clone."""
    suite = here.clone / "guest-tests/python"
    program, makefile = suite / "test_injected.py", suite / "Makefile"
    program.write_text(BROKEN)
    program.chmod(0o755)
    text = makefile.read_text()
    makefile.write_text(text.replace("TEST_PROGS := ", "TEST_PROGS := test_injected.py ", 1))
    on_top = here.clone / "tests/injected"
    on_top.mkdir()
    (on_top / "0001-slower.patch").write_text(SLOWER.replace("~\n", " \n"))
    (on_top / "series").write_text("0001-slower.patch\n")
    toml = here.clone / "rig.toml"
    text = toml.read_text()
    head, mark, tail = text.partition("[kernel.async]\n")
    toml.write_text(f'{head}{mark}on_top = "tests/injected"\n{tail}')


@contextlib.contextmanager
def _mails() -> Iterator[tuple[list[Any], int]]:
    """A mail server, and what it is sent."""
    import aiosmtpd.controller

    found: list[Any] = []

    class Kept:
        async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
            found.append(message_from_bytes(envelope.content, policy=policy.default))
            return "250 fine"

    port = free_port()
    server = aiosmtpd.controller.Controller(Kept(), hostname="127.0.0.1", port=port)
    server.start()
    try:
        yield found, port
    finally:
        server.stop()


# -- a thousand nights ----------------------------------------------------------------------------


def site(place: Place) -> list[Figure]:
    """The pages of 1,000 nights of 5,000 results, in a browser, and by real clicks."""
    here = opened(place)
    results = here.temporary / "results"
    seen = _thousand(results)
    began = time.monotonic()
    page = afterwards.conclude(seen, nightly.Plan((), keep=2 * NIGHTS, keep_gib=1e3), results,
                               here.clone, say)  # fmt: skip
    written_s = time.monotonic() - began
    with _browser(here.temporary) as browser:
        times = [_opened_s(browser, page) for _ in range(5)]
        others = {
            name: max(_opened_s(browser, page.parent / f"{name}.html") for _ in range(3))
            for name in ("cases-abi", "figures", "all")
        }
        clicked = _clicked(browser, page) | _looked_at(browser, here.temporary)
    shutil.rmtree(results)
    how = f"chromium --headless, {NIGHTS} nights of {RESULTS} results, {page.name}"
    return [
        at_most("site_opens", sorted(times)[len(times) // 2], "s", OPENS_S, f"{how}: median of 5"),
        *(
            at_most(f"site_opens_{name}", took, "s", OPENS_S, f"{name}.html: the slowest of 3")
            for name, took in others.items()
        ),
        at_most("site_written", written_s, "s", 120.0, "the pages of the last night"),
        *(
            exactly(f"site_{name}", int(fine), "yes", 1, "by real clicks and keys")
            for name, fine in clicked.items()
        ),
        leftovers(place),
    ]


def _thousand(results: Path) -> nightly.Seen:
    nights_ = results / nightly.PLACE
    good = {f"abi/p{n // 10}::c{n % 10} [async, m{n % 4}]": Outcome(Status.PASS)
            for n in range(RESULTS)}  # fmt: skip
    bad = "abi/p3::c1 [async, m3]"
    night = None
    for number in range(NIGHTS):
        name = f"{2023 + number // 336}{number // 28 % 12 + 1:02}{number % 28 + 1:02}-220000"
        began = f"{name[:4]}-{name[4:6]}-{name[6:8]}T22:00:00+00:00"
        own = dict(good)
        if number % 50 == 49 or number == NIGHTS - 1:
            own[bad] = Outcome(Status.FAIL, "<i>it broke</i>", AGAIN)
        figures = {f"figure {n} [async, exact]": Level(n * 100 + number // 333, "instructions")
                   for n in range(300)}  # fmt: skip
        night = Night(name, began, parts=(Part("matrix", End.DONE),), results=own, figures=figures,
                      good=bad not in own or own[bad].status.good)  # fmt: skip
        (nights_ / name).mkdir(parents=True)
        nightly.save(night, nights_ / name)
    assert night is not None
    before = nightly.beside(results, night.name)
    return nightly.Seen(night, summary(night, before), nights_ / night.name, before)


@contextlib.contextmanager
def _browser(place: Path) -> Iterator[Any]:
    try:
        from selenium import webdriver
    except ImportError as error:
        raise InfrastructureError(
            "no selenium", hint=".venv/bin/pip install selenium; apt install chromium-driver"
        ) from error
    options = webdriver.ChromeOptions()
    profile = place / "browser"
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking",
                 "disable-component-update", "disable-sync", "no-first-run", "disable-quic",
                 f"user-data-dir={profile}", "window-size=1200,1000"):  # fmt: skip
        options.add_argument(f"--{word}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options, service)
    try:
        yield browser
    finally:
        browser.quit()


def _opened_s(browser: Any, page: Path) -> float:
    """Until all of it is there and laid out, as the browser tells it."""
    browser.get("about:blank")
    browser.get(page.as_uri())
    script = "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd;"
    return float(browser.execute_script(script)) / 1000


def _clicked(browser: Any, page: Path) -> dict[str, bool]:
    """What works by hand."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    found: dict[str, bool] = {}
    browser.get(page.as_uri())
    cards = browser.find_elements(By.CSS_SELECTOR, "#new .card")
    found["shows_the_failure"] = len(cards) == 1 and "<i>it broke</i>" in cards[0].text
    button = cards[0].find_element(By.CSS_SELECTOR, ".copy")
    button.click()
    deadline = time.monotonic() + 1.0  # it says so for a second and a half
    while button.text != "copied" and time.monotonic() < deadline:
        time.sleep(0.02)
    said = button.text
    browser.find_element(By.TAG_NAME, "body").send_keys("n")
    found["goes_to_the_next_failure"] = (
        browser.switch_to.active_element.tag_name.lower() == "summary"
    )
    browser.find_element(By.LINK_TEXT, "abi").click()
    rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
    found["has_a_strip_a_case"] = len(rows) == RESULTS
    browser.find_element(By.TAG_NAME, "body").send_keys("/")
    browser.switch_to.active_element.send_keys(Keys.CONTROL, "v")
    pasted = browser.switch_to.active_element.get_attribute("value")
    found["copies_the_command"] = (said, pasted) == ("copied", AGAIN)
    browser.switch_to.active_element.send_keys(Keys.CONTROL, "a")
    browser.switch_to.active_element.send_keys("p3::c1")
    shown = browser.execute_script(
        "return document.querySelectorAll('tbody tr:not([hidden])').length"
    )
    found["filters"] = 0 < shown < 50
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    mark = browser.find_elements(By.CSS_SELECTOR, ".strip a.fail")[-1]
    night = mark.get_attribute("title").partition(":")[0]
    mark.click()
    found["leads_to_the_night"] = night in browser.title
    browser.set_window_size(400, 800)
    browser.get(page.as_uri())
    width = browser.execute_script("return document.documentElement.scrollWidth")
    found["fits_a_small_screen"] = width <= 400
    return found


def _looked_at(browser: Any, temporary: Path) -> dict[str, bool]:
    """The report of a run whose kernel has panicked, and how the pages are by night."""
    from selenium.webdriver.common.by import By

    log = (ROOT / "tests/data/console/panic-sysrq-crash.log").read_bytes()
    case = Case("abi", "stress", "", Status.CRASH, reproduce=AGAIN)
    run = Run("r", "2026-01-01T00:00:00+00:00", "rig", {"name": "async"}, {"name": "m"},
              cases=(case,), splats=tuple(splat.scan(log)), consoles=("console-0.log",),
              complete=True)  # fmt: skip
    place = temporary / "run"
    place.mkdir()
    (place / "console-0.log").write_bytes(log)
    report.write(run, place)
    (one,) = run.splats
    found: dict[str, bool] = {}
    browser.set_window_size(1200, 1000)
    browser.get((place / "report.html").as_uri())
    color = "return getComputedStyle(arguments[0]).backgroundColor"
    lines = browser.find_elements(By.CSS_SELECTOR, ".console .log > div[id]")
    hits = [line for line in lines if "hit" in line.get_attribute("class").split()]
    found["console_shows_the_splat"] = len(hits) == one.end - one.start and (
        browser.execute_script(color, hits[0]) != browser.execute_script(color, lines[0])
    )
    link = hits[0].find_element(By.TAG_NAME, "a")
    link.click()
    there = browser.current_url
    found["console_lines_are_links"] = there.endswith(f"#console-0.log-{one.start + 1}")
    browser.get("about:blank")
    browser.get(there)
    shown = "const box = document.querySelector(':target').getBoundingClientRect();"
    shown += "return box.height > 0 && box.top >= 0 && box.bottom <= innerHeight"
    found["console_opens_at_a_link"] = bool(browser.execute_script(shown))
    body = browser.find_element(By.TAG_NAME, "body")
    schemes = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        schemes.append(browser.execute_script(color, body))
    found["is_dark_by_night"] = len(set(schemes)) == 2
    return found


def remembered(place: Place) -> list[Figure]:
    """rig history of 1,000 nights of 5,000 results."""
    here = opened(place)
    path = here.temporary / "history.sqlite"
    began = time.monotonic()
    with history.History(path) as known:
        for number in range(NIGHTS):
            known.add(_a_run(number))
    say(f"{NIGHTS} runs kept in {time.monotonic() - began:.0f} s")
    times: dict[str, float] = {}
    for name, words in {"overview": (), "case": ("abi/p3::c1",), "figure": ("figure 7",)}.items():
        took = []
        for _ in range(3):
            began = time.monotonic()
            done = here.rig("history", *words, RIG_HISTORY=str(path))
            took.append(time.monotonic() - began)
            if done.returncode not in (0, 1) or not done.output:
                raise InfrastructureError("rig history failed", output=done.output)
        times[name] = sorted(took)[1]
    path.unlink()
    how = f"rig history on {NIGHTS} runs of {RESULTS} results: median of 3, Python's start in it"
    return [at_most(f"history_{name}", took, "s", ANSWERS_S, how)
            for name, took in times.items()]  # fmt: skip


def _a_run(number: int) -> Run:
    began = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(1.7e9 + 86400 * number))
    cases = tuple(
        Case("abi", f"p{n // 10}", f"c{n % 10}",
             Status.FAIL if n == 31 and number % 50 == 49 else Status.PASS)
        for n in range(RESULTS)
    )  # fmt: skip
    measurements = tuple(
        Measurement(f"figure {n}", 100.0 * n + number // 333, "instructions") for n in range(100)
    )
    kernel, machine = {"name": "async", "release": "6.12"}, {"name": "m"}
    return Run(f"r{number}", began, "rig", kernel, machine, cases=cases,
               measurements=measurements, complete=True)  # fmt: skip


STEPS: dict[str, Callable[[Place], list[Figure]]] = {
    "site": site,
    "history": remembered,
    "nights": nights,
    "slurm": slurm,
}


def main(argv: Sequence[str]) -> int:
    """Measure; 0 when every bar was held, else 1."""

    def place(work: Path, name: str, commit: str) -> Place:
        return Here(ROOT, work, name, commit)

    steps: dict[str, Step] = {name: whole(step) for name, step in STEPS.items()}
    about = "measure the must-hold list of nights"
    measure = Acceptance("nightly", about, ROOT, steps, place, notices, MEASURED)
    return measure.main(list(argv))


if __name__ == "__main__":
    os.environ.pop(history.FILE, None)
    sys.exit(main(sys.argv[1:]))
