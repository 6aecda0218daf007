#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Programs of others do the same with all of their calls asynchronous as without.

Each is run by itself and then with async_shim.so. What it prints has to be the same, and so has its
exit code, or where two runs of the program differ by themselves, the results it prints. The image
"programs" has them all (images/programs); a case whose program is missing is skipped.

Environment: PROGRAMS="busybox_* python_os" runs only these; SHIM_REPORT=DIRECTORY keeps there what
the shim has counted in each.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHIM = HERE / "async_shim.so"
LIMIT_S = 900
EXIT_PASS, EXIT_FAIL, EXIT_SKIP = 0, 1, 4
SHARE, ENOUGH = 0.9, 50
"""How many of the calls that slept have to have been handed over, where it is enough to tell."""

Results = Mapping[str, str]


@dataclass(frozen=True)
class Done:
    """What became of a program."""

    code: int
    output: str
    seconds: float


@dataclass(frozen=True)
class Case:
    """A program: its words, and how to read what it prints; None to compare it as it is."""

    name: str
    words: tuple[str, ...]
    results: Callable[[str], Results] | None = None
    program: str = ""

    @property
    def missing(self) -> str:
        """What it cannot be run without, and is not there."""
        wanted = self.program or self.words[0]
        there = Path(wanted).exists() if wanted.startswith("/") else shutil.which(wanted)
        return "" if there else wanted


def run(case: Case, report: Path | None) -> Done:
    """Run it in an empty directory; with a report, with the shim."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/root", "LC_ALL": "C", "TZ": "UTC"}
    if report:
        environment |= {"LD_PRELOAD": str(SHIM), "ASYNC_SHIM_REPORT": str(report)}
    # The same name every time: it may be printed.
    place = Path("/var/tmp/shim_programs")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    started = time.monotonic()
    try:
        done = subprocess.run(
            case.words, cwd=place, env=environment, stdin=subprocess.DEVNULL, timeout=LIMIT_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode(errors="replace")
        return Done(-1, f"{text}\n(no end in {LIMIT_S} s)", LIMIT_S)
    text = done.stdout.decode(errors="replace")
    return Done(done.returncode, text, time.monotonic() - started)


# -- what they print ------------------------------------------------------------------------------


def unittests(output: str) -> Results:
    """`test_x (module.Class.test_x) ... ok`: name -> result.

    The first line of its documentation, and whatever the test prints, may be in between.
    """
    found: dict[str, str] = {}
    name = ""
    for line in output.splitlines():
        if match := re.match(r"(test\w+ \([\w.]+\))", line):
            name = match[1]
        end = re.search(r"\b(ok|FAIL|ERROR|skipped .*|expected failure|unexpected success)$", line)
        if name and end:
            # Why it was skipped may name a file, with a process id in it.
            found[name] = end[1].split()[0]
            name = ""
    return found


def stressors(output: str) -> Results:
    """What stress-ng says at its end, and what failed or was left out before."""
    found: dict[str, str] = {}
    for kind, words in re.findall(r"^stress-ng: (\w+): +\[\d+\] (.*)", output, re.MULTILINE):
        if end := re.match(r"(?:un)?successful run completed", words):
            found["run"] = end[0].split()[0]
        elif kind in ("fail", "error") or "skipp" in words:
            found[re.sub(r"\d+", "N", words)] = kind
    return found


# -- what is run ----------------------------------------------------------------------------------

# One after the other in one shell, so that what one leaves is there for the next.
BUSYBOX = {
    "files": """
        mkdir -p a/b/c; echo one >a/1; echo two >a/b/2; ln -s ../1 a/b/link; ln a/1 a/hard
        cp -a a copy; mv copy/b copy/moved; find . | sort; rm -r copy; ls -R a
        stat -c '%n %s %h' a/1
        chmod 640 a/1; stat -c %a a/1; touch -d @0 a/1; stat -c %Y a/1; readlink a/b/link
        dd if=/dev/zero of=zero bs=1k count=64 2>/dev/null; wc -c zero; truncate -s 100 zero
        wc -c zero
        du -a a/b | wc -l; cmp a/1 a/hard && echo same; cmp a/1 a/b/2; mkfifo f; ls -F f
        rmdir a; echo $?
    """,
    "text": """
        seq 1 1000 >n; sort -rn n | head -3; tail -2 n; sed -n '5,7s/^/x/p' n
        awk '{s+=$1} END {print s}' n
        grep -c 7 n; cut -c1-2 n | uniq -c | tail -1; tr 0-9 a-j <n | md5sum; paste n n | tail -1
        split -l 300 n part; wc -l part* | tail -1; cat part* | cmp - n && echo whole
        rev n | tail -1
        od -c n | head -2; base64 n | head -1; sha256sum n; diff n part* | head -1
        comm -12 n n | wc -l
    """,
    "archives": """
        seq 1 5000 >n; mkdir d; cp n d/m; tar cf t.tar n d; tar tf t.tar
        tar xf t.tar -O n | md5sum
        gzip -k n; zcat n.gz | cmp - n && echo gzip; bzip2 -k n
        bzcat n.bz2 | cmp - n && echo bzip2
        xz -dc nothing; cpio -o -H newc <<.  2>/dev/null | cpio -t 2>/dev/null
n
.
    """,
    "pipes": """
        yes | head -100000 | wc -l; seq 1 50000 | sort -n | uniq | tail -1
        cat /dev/zero | head -c 1000000 | wc -c; seq 1 300 | xargs -n 7 echo | wc -l
        seq 1 20 | xargs -n 1 -P 4 sh -c 'echo $((2 * $0))' | sort -n | tail -1
        mkfifo f; (seq 1 10 >f) & cat f; wait; echo done | tee x y | cat; cat x y
        (sleep 0.1; echo late) | while read word; do echo got $word; done; cat nothing; echo $?
        set -o pipefail; false | true; echo $?; (exit 7) | cat; echo $?
    """,
    "jobs": """
        sleep 0.2 & wait $!; echo $?; (exit 3) & wait $!; echo $?
        timeout 0.2 sleep 10; echo $?; timeout -s KILL 0.2 sleep 10; echo $?
        trap 'echo usr1' USR1; kill -USR1 $$; sleep 0.1; trap 'echo end' EXIT
        sh -c 'kill -TERM $$'; echo $?; sh -c 'trap "" TERM; kill -TERM $$; echo alive'; echo $?
        (trap 'echo term; exit 5' TERM; while :; do sleep 0.05; done) & sleep 0.3; kill $!
        wait $!; echo $?
        flock lock sh -c 'echo locked'; (flock 9; sleep 0.2; echo first) 9>lock &
        sleep 0.1; (flock 9; echo second) 9>lock; wait; time -p true 2>/dev/null
        nice -n 5 nice; ulimit -n
    """,
    "network": """
        nc -l -p 7007 >got & sleep 0.3; echo through | nc 127.0.0.1 7007; wait; cat got
        hostname; ip link show lo | head -1 | cut -c1-20; ping -c 2 127.0.0.1 | tail -2 | head -1
        (echo HTTP/1.0 200 OK; echo; echo body) >page; nc -l -p 7008 <page >request & sleep 0.3
        wget -q -O - http://127.0.0.1:7008/; wait; head -1 request
    """,
    "shell": """
        f() { echo "$1"; [ $1 -le 0 ] || f $(($1 - 1)); }; f 5; echo $(echo $(echo deep))
        for i in 1 2 3; do case $i in 2) echo two;; *) echo other;; esac; done; i=0
        while [ $i -lt 200 ]; do i=$((i + 1)); x=$(echo $i); done; echo $x; read a b <<.
first second third
.
        echo "$b"; exec 5>file; echo five >&5; exec 5>&-; cat file; set -- a b c; shift
        echo "$@" $#
        expr 6 '*' 7; printf '%05d|%-5s|\\n' 42 ab; test -e file && echo there; env -i A=1 env
        umask 27; umask
        cd /; pwd; cd "$OLDPWD"; eval 'echo evaluated'; (cd /tmp; pwd); command -v busybox
        unset x; echo ${x:-none}
    """,
}

PYTHON = {
    "os": "test_os",
    "posix": "test_posix",
    "signals": "test_signal",
    "interrupts": "test_eintr",
    "children": "test_fork1 test_wait3 test_wait4 test_popen test_pipes",
    "subprocesses": "test_subprocess",
    "threads": "test_thread test_threading_local test_queue test_threadsignals",
    "events": "test_fcntl test_select test_selectors test_poll test_epoll",
    "terminals": "test_openpty test_pty",
    "files": "test_file test_fileio test_largefile test_tempfile test_mmap test_glob",
    "sockets": "test_socket test_socketserver",
    "others": "test_grp test_pwd test_resource test_syslog test_time test_timeout test_uuid",
}

STRESS = """
    access affinity af-alg aio chdir chmod chown clock clone close context copy-file
    cyclic dentry dir dirdeep dup enosys epoll eventfd exec fallocate fault fcntl fiemap
    fifo file-ioctl filename flock fork fp-error fpunch fstat full futex get getdent
    getrandom handle hrtimers inotify inode-flags io itimer kill klog lease link locka
    lockf lockofd loop madvise memfd mincore mmap mq msg msync munmap nanosleep nop open
    personality pidfd pipe pipeherd poll procfs pthread pty rename rlimit
    schedpolicy seal seek sem sem-sysv sendfile set shm shm-sysv sigabrt sigchld sigfd
    sigfpe sigio signal signest sigpending sigpipe sigq sigrt sigsegv sigsuspend sigtrap
    sleep sock sockabuse sockdiag sockfd sockpair softlockup splice stack switch symlink
    sync-file sysinfo tee timer timerfd tlb-shootdown udp urandom userfaultfd utime
    vfork vm-splice wait yield zombie
"""

STRESSORS = tuple(STRESS.split())


def cases() -> list[Case]:
    """All of them."""
    found = [
        Case(f"busybox_{name}", ("busybox", "sh", "-c", script)) for name, script in BUSYBOX.items()
    ]
    for name, modules in PYTHON.items():
        words = ("python3", "-W", "ignore", "-m", "test", "-v", *modules.split())
        where = "/usr/lib/python3.11/test/test_os.py"
        found.append(Case(f"python_{name}", words, unittests, where))
    for name in STRESSORS:
        words = ("stress-ng", "--no-rand-seed", "--timeout", "5", "--verify",
                 f"--{name}", "2", f"--{name}-ops", "200")  # fmt: skip
        found.append(Case(f"stress_{name.replace('-', '_')}", words, stressors))
    wanted = os.environ.get("PROGRAMS", "").split() or ["*"]
    return [one for one in found if any(fnmatch.fnmatch(one.name, word) for word in wanted)]


# -- how it is judged -----------------------------------------------------------------------------


def differences(case: Case, before: Done, after: Done, loose: Set[str] = frozenset()) -> list[str]:
    """What is not the same; empty when all is. loose: results that say nothing."""
    found = []
    if before.code != after.code and not loose:
        found.append(f"exit code {before.code} without, {after.code} with the shim")
    if case.results is None:
        one, other = (done.output.splitlines() for done in (before, after))
        for number in range(max(len(one), len(other))):
            pair = [lines[number] if number < len(lines) else "(nothing)" for lines in (one, other)]
            if pair[0] != pair[1]:
                found.append(f"line {number + 1}: {pair[0]!r} without, {pair[1]!r} with the shim")
        return found
    first, second = case.results(before.output), case.results(after.output)
    if not first:
        found.append(f"no results in: {before.output[-1500:]}")
    for name in [name for name in {**first, **second} if name not in loose]:
        pair = [results.get(name, "(no result)") for results in (first, second)]
        if pair[0] != pair[1]:
            found.append(f"{name}: {pair[0]} without, {pair[1]} with the shim")
    if found:
        found.append(after.output[-3000:])
    return found


def counted(report: Path) -> dict[str, int]:
    """The head of what shim_report prints."""
    done = subprocess.run(
        [HERE / "shim_report", report], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return {}
    return {
        name: int(value)
        for name, value in re.findall(r"^([\w ]+): (\d+)$", done.stdout, re.MULTILINE)
    }


def unsteady(case: Case, one: Done, other: Done) -> set[str]:
    """Results that are not the same twice in a row without the shim."""
    if case.results is None:
        return set()
    first, second = case.results(one.output), case.results(other.output)
    return {name for name in {**first, **second} if first.get(name) != second.get(name)}


def judge(case: Case, report: Path) -> tuple[list[str], str]:
    """Run it both ways: what was wrong, and a line on how it went."""
    before = run(case, None)
    after = run(case, report)
    wrong, loose = differences(case, before, after), set[str]()
    if wrong:
        loose = unsteady(case, before, run(case, None))
        wrong = differences(case, before, after, loose)
    numbers = counted(report)
    if not numbers.get("programs"):
        wrong.append("the shim was not loaded")
    slept, over = numbers.get("outstanding", 0), numbers.get("handed_over", 0)
    if before.code < 0 or (case.results and before.code and not loose and not wrong):
        wrong.append(f"without the shim it ends with {before.code}: {before.output[-1500:]}")
    if slept >= ENOUGH and over < SHARE * slept:
        wrong.append(f"of {slept} calls that slept only {over} were handed over")
    results = f", {len(case.results(before.output))} results" if case.results else ""
    words = (
        f"{before.seconds:.1f} s without, {after.seconds:.1f} s with the shim{results}; "
        f"{numbers.get('calls', 0)} calls, {slept} slept, {over} handed over"
    )
    if loose:
        words += f"; not the same twice without it: {', '.join(sorted(loose))}"
    return wrong, words


def say(line: str) -> None:
    """One line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run them all; KTAP on standard output."""
    chosen = cases()
    kept = os.environ.get("SHIM_REPORT")
    bad = skipped = slept = over = 0
    say(f"TAP version 13\n1..{len(chosen)}")
    with tempfile.TemporaryDirectory(prefix="shim.") as scratch:
        place = Path(kept or scratch)
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
        for number, case in enumerate(chosen, 1):
            if case.missing:
                skipped += 1
                say(f"ok {number} {case.name} # SKIP no {case.missing} in this image")
                continue
            report = place / f"{case.name}.report"
            # Also for those who have given up the right to make it.
            report.write_bytes(b"")
            report.chmod(0o666)
            wrong, words = judge(case, report)
            numbers = counted(report)
            slept += numbers.get("outstanding", 0)
            over += numbers.get("handed_over", 0)
            bad += bool(wrong)
            for line in "\n".join(wrong).splitlines():
                say(f"# {line}")
            say(f"# {words}")
            say(f"{'not ok' if wrong else 'ok'} {number} {case.name}")
    say(f"# {slept} calls slept, {over} were handed over")
    if skipped == len(chosen):
        return EXIT_SKIP
    return EXIT_FAIL if bad else EXIT_PASS


if __name__ == "__main__":
    sys.exit(main())
