"""A board's serial line, by the real servers that stand in front of one, and across a gap."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import socket
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import emulated_bmc
import pytest
from emulated_bmc import PASSWORD, USER

from rig import config
from rig.config import BoardConfig, ConsoleConfig, PowerConfig
from rig.console import Console
from rig.errors import InfrastructureError, UsageError
from rig.machine import wire
from rig.machine.wire import Negotiation, Wire

ROOT = Path(__file__).parents[1]
PANIC = b"[    1.000000] Kernel panic - not syncing: out of ideas\r\n"


class Port:
    """A serial port of this host with a board at its other end; name: of the port."""

    def __init__(self) -> None:
        self.board, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.name = os.ttyname(self._slave)

    def say(self, data: bytes) -> None:
        os.write(self.board, data)

    def hears(self) -> bytes:
        return os.read(self.board, 4096)

    def close(self) -> None:
        os.close(self.board)
        os.close(self._slave)


@pytest.fixture
def port() -> Iterator[Port]:
    with contextlib.closing(Port()) as one:
        yield one


def of(root: Path, **words: object) -> Wire:
    told = ConsoleConfig(**words)  # type: ignore[arg-type]
    power = PowerConfig("command", on="true", off="true", status="true")
    return wire.of(BoardConfig("board1", power, told), root)


@contextlib.contextmanager
def heard_by(line: Wire, directory: Path) -> Iterator[Console]:
    with contextlib.closing(line):
        ours = line.open()
        with contextlib.closing(Console(ours, directory / "console.log")) as console:
            yield console
            line.close()
            assert console.wait_closed(5)


def both_ways(line: Wire, port: Port, directory: Path) -> str:
    """Says something on the board's side, types something on ours; all that was heard."""
    with heard_by(line, directory) as console:
        port.say(b"Linux version 6\r\n")
        assert console.expect("Linux version 6\r\n", 20)
        console.send(b"login\r")
        assert re.match(rb"login\r\0?", port.hears())
        port.say(b"a\xffb\r\n")
        console.expect("b\r\n", 20)
        return console.text()


# -- servers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def ser2net(port: Port, directory: Path, *, telnet: bool) -> Iterator[int]:
    emulated_bmc.wanted("ser2net")
    number = emulated_bmc.free_port()
    how = "telnet(rfc2217),tcp" if telnet else "tcp"
    text = (
        f"connection: &board\n  accepter: {how},127.0.0.1,{number}\n"
        f"  connector: serialdev,{port.name},115200n81,local\n"
    )
    (directory / "ser2net.yaml").write_text(text)
    log = directory / "ser2net.log"
    words = ["ser2net", "-n", "-u", "-c", str(directory / "ser2net.yaml")]
    with emulated_bmc.running(words, log) as started:
        emulated_bmc.wait_for_listener(number, started, log)
        yield number


@pytest.mark.parametrize("telnet", [True, False])
def test_a_port_behind_ser2net(port: Port, tmp_path: Path, telnet: bool) -> None:
    with ser2net(port, tmp_path, telnet=telnet) as number:
        kind = "telnet" if telnet else "tcp"
        line = of(tmp_path, kind=kind, address="127.0.0.1", port=number)
        text = both_ways(line, port, tmp_path)
    assert text.startswith("Linux version 6")  # and nothing of the negotiation


def test_a_break_over_telnet(port: Port, tmp_path: Path) -> None:
    with ser2net(port, tmp_path, telnet=True) as number:
        line = of(tmp_path, kind="telnet", address="127.0.0.1", port=number)
        with heard_by(line, tmp_path) as console:
            port.say(b"up\r\n")
            console.expect("up", 20)
            line.send_break()  # a pseudo-terminal has none to show; ser2net took the command
            console.send(b"t")
            assert b"t" in port.hears()


@contextlib.contextmanager
def conserver(directory: Path) -> Iterator[int]:
    emulated_bmc.wanted("conserver", "console")
    number, base = emulated_bmc.free_port(), emulated_bmc.free_port()
    text = (
        "config * {\n}\ndefault full {\n\trw *;\n}\n"
        "access * {\n\ttrusted 127.0.0.1;\n\tallowed 127.0.0.1;\n}\n"
        "console board {\n\tmaster localhost;\n\tinclude full;\n\ttype exec;\n"
        "\texec \"sh -c 'echo it is up; stty raw -echo; exec cat'\";\n}\n"
    )
    (directory / "conserver.cf").write_text(text)
    log = directory / "conserver.log"
    words = ["conserver", "-C", "conserver.cf", "-p", str(number), "-b", str(base)]
    with emulated_bmc.running([*words, "-M", "127.0.0.1"], log) as started:
        emulated_bmc.wait_for_listener(number, started, log)
        yield number


def test_a_console_of_conserver(tmp_path: Path) -> None:
    with conserver(tmp_path) as number:
        words = {"kind": "conserver", "address": "127.0.0.1", "port": number}
        line = of(tmp_path, name="board", **words)
        with heard_by(line, tmp_path) as console:
            deadline = time.monotonic() + 20
            while "abc" not in console.text() and time.monotonic() < deadline:
                console.send(b"abc\r\n")
                console.wait_news(console.size(), 1.0)
            assert "abc" in console.text()
            line.send_break()
            console.expect(re.escape("[halt sent]"), 20)
        with pytest.raises(InfrastructureError, match="console other of the conserver") as caught:
            of(tmp_path, name="other", **words).open()
        assert "not found" in caught.value.output


def test_serial_over_lan(port: Port, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_PASSWORD", PASSWORD)
    monkeypatch.setenv("BMC_WRONG", "not-that-one")
    with (
        ser2net(port, tmp_path, telnet=False) as number,
        emulated_bmc.ipmi(tmp_path, sol=f"tcp:127.0.0.1:{number}") as bmc,
    ):
        words = {
            "kind": "ipmi",
            "address": "127.0.0.1",
            "port": bmc.port,
            "user": USER,
            "cipher": 3,
        }
        line = of(tmp_path, password="env:BMC_PASSWORD", **words)
        with heard_by(line, tmp_path) as console:
            port.say(b"Linux version 6\r\n")
            console.expect("Linux version 6", 30)
            console.send(b"login\r")
            assert b"login" in port.hears()
        with pytest.raises(InfrastructureError, match=r"the BMC of board1 at .* is dead") as caught:
            of(tmp_path, password="env:BMC_WRONG", **words).open()
        assert "not-that-one" not in caught.value.output


def test_what_an_escape_has_to_follow_is_sent_before_it(tmp_path: Path) -> None:
    """ipmitool sends the break of what it reads at once before the rest of that."""
    reads = (
        "import os\nprint('up', flush=True)\nwhile one := os.read(0, 99): print([one], flush=True)"
    )
    one = wire.Program([sys.executable, "-c", reads], "x", break_keys=(b"\r", b"~B"), carried=b"up")
    with contextlib.closing(one):
        one.send_break()
        deadline, said = time.monotonic() + 20, b""
        while b"~B" not in said and time.monotonic() < deadline:
            said += one.read() or b""
    assert said.index(rb"[b'\r']") < said.index(b"[b'~B']")


def test_a_port_of_this_host(port: Port, tmp_path: Path) -> None:
    both_ways(of(tmp_path, kind="serial", device=port.name), port, tmp_path)
    with pytest.raises(InfrastructureError, match=r"/dev/not-there is dead: .*No such file"):
        of(tmp_path, kind="serial", device="/dev/not-there").open()


def test_any_program(tmp_path: Path) -> None:
    line = of(tmp_path, kind="command", command="sh -c 'echo it is up; exec cat'")
    with heard_by(line, tmp_path) as console:
        console.expect("it is up", 20)
        console.send(b"abc\n")
        console.expect("abc", 20)
        with pytest.raises(InfrastructureError, match="carries no break: nobody has said how"):
            line.send_break()
    line = of(tmp_path, kind="command", command="echo no such board >&2; exit 1")
    with pytest.raises(InfrastructureError, match="is dead") as caught:
        line.open()
    assert caught.value.output == "no such board"


# -- a gap ----------------------------------------------------------------------------------------


class Server:
    """A console server that comes and goes. port: where it listens, now or again."""

    def __init__(self) -> None:
        self.port = emulated_bmc.free_port()
        self.taken: socket.socket | None = None
        self.start()

    def start(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self.port))

    def take(self) -> socket.socket:
        self._listening.settimeout(20)
        self.taken, _ = self._listening.accept()
        return self.taken

    def stop(self) -> None:
        self._listening.close()
        if self.taken:
            self.taken.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


def test_a_gap_is_seen_and_ended(server: Server, tmp_path: Path) -> None:
    line = of(tmp_path, kind="tcp", address="127.0.0.1", port=server.port)
    with heard_by(line, tmp_path) as console:
        server.take().sendall(b"before\r\n")
        console.expect("before", 20)
        server.stop()
        console.expect(re.escape("[rig: the console was lost: "), 20)
        with pytest.raises(InfrastructureError, match="is down"):
            line.send_break()
        time.sleep(1.0)
        server.start()
        server.take().sendall(PANIC)
        console.expect(r"\[rig: it is back after \d+\.\d s\]", 20)
        console.expect("out of ideas", 20)
        assert line.lost == 1
        # What comes behind a gap is scanned as all the rest.
        assert [one.title for one in console.splats(unfinished=True)] == [
            "kernel panic: out of ideas"
        ]


def test_a_dead_console_is_one_clear_error(server: Server, tmp_path: Path) -> None:
    server.stop()
    words = f"the console of board1 at 127.0.0.1:{server.port} is dead: .*refused"
    with pytest.raises(InfrastructureError, match=words):
        of(tmp_path, kind="tcp", address="127.0.0.1", port=server.port).open()


def test_who_hangs_up_leaves_nothing(server: Server, tmp_path: Path) -> None:
    before = threading.active_count()
    line = of(tmp_path, kind="tcp", address="127.0.0.1", port=server.port)
    with heard_by(line, tmp_path):
        far = server.take()
    assert far.recv(1) == b""
    assert threading.active_count() == before
    line.close()


def test_hanging_up_in_a_gap_takes_no_time(server: Server, tmp_path: Path) -> None:
    line = of(tmp_path, kind="tcp", address="127.0.0.1", port=server.port)
    with heard_by(line, tmp_path) as console:
        server.take()
        server.stop()
        console.expect("was lost", 20)
        began = time.monotonic()
        line.close()
    assert time.monotonic() - began < 8


def test_a_line_that_is_back_when_it_was_hung_up_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has the board by then would be cut off, or listened to."""
    ours, theirs = socket.socketpair()
    entered, let_in, closed = threading.Event(), threading.Event(), list[bool]()

    class Slow:
        said = b""

        def __init__(self, line: socket.socket) -> None:
            self._line = line

        def fileno(self) -> int:
            return self._line.fileno()

        def read(self) -> bytes:
            return self._line.recv(100)

        def write(self, data: bytes) -> None: ...

        def send_break(self) -> None: ...

        def close(self) -> None:
            closed.append(True)
            self._line.close()

    made = list[Slow]()

    def connect() -> Slow:
        if made:
            entered.set()
            let_in.wait(30)
        made.append(Slow(theirs if not made else socket.socketpair()[0]))
        return made[-1]

    line = wire.Wire(connect, "a slow line")
    heard = line.open()
    ours.close()  # the line goes down, and is taken up again slowly
    assert entered.wait(20)
    monkeypatch.setattr(wire, "_CONNECT_S", 0.1)
    monkeypatch.setattr(wire, "_BORN_S", 0.1)
    line.close()  # which does not wait for it for ever
    let_in.set()
    line._pump.join(20)
    heard.close()
    assert closed == [True] * len(made)
    assert line.down


# -- telnet ---------------------------------------------------------------------------------------

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240


@pytest.mark.parametrize(
    ("stream", "data", "answer"),
    [
        (b"abc", b"abc", b""),
        (bytes((97, IAC, IAC, 98)), b"a\xffb", b""),
        (bytes((IAC, WILL, 1, 97)), b"a", bytes((IAC, DO, 1))),
        (bytes((IAC, DO, 24)), b"", bytes((IAC, WONT, 24))),
        (bytes((IAC, DO, 0)), b"", bytes((IAC, WILL, 0))),
        (bytes((IAC, WILL, 44)), b"", bytes((IAC, DONT, 44))),
        # Once is enough, or two would answer each other for ever.
        (bytes((IAC, WILL, 1, IAC, WILL, 1)), b"", bytes((IAC, DO, 1))),
        (bytes((IAC, WONT, 1, IAC, DONT, 3)), b"", b""),
        (bytes((IAC, WILL, 1, IAC, WONT, 1)), b"", bytes((IAC, DO, 1, IAC, DONT, 1))),
        (bytes((97, IAC, SB, 24, 1, IAC, IAC, 2, IAC, SE, 98)), b"ab", b""),
        (bytes((97, IAC, 241, 98)), b"ab", b""),
        (b"a\r\0b\r\nc", b"a\rb\r\nc", b""),
    ],
)
def test_what_of_telnet_is_data(stream: bytes, data: bytes, answer: bytes) -> None:
    assert Negotiation().feed(stream) == (data, answer)
    one, got, said = Negotiation(), b"", b""
    for byte in stream:
        more, reply = one.feed(bytes((byte,)))
        got, said = got + more, said + reply
    assert (got, said) == (data, answer)


# -- rig.toml, and the verb -----------------------------------------------------------------------

BOARD = """
[default]
kernel = "k"
machine = "default"
[kernel.k]
[machine.default]
[machine.board1]
kind = "baremetal"
[machine.board1.power]
kind = "command"
on = "true"
off = "true"
status = "true"
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], config.Config]:
    def loaded(text: str) -> config.Config:
        path = tmp_path / "rig.toml"
        path.write_text(BOARD + text)
        return config.load(path)

    return loaded


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "telnet"\naddress = "x"\n', "has no port"),
        ('kind = "telnt"\n', "kind is 'telnt'"),
        ('kind = "serial"\ndevice = "/dev/x"\nport = 7\n', "has port, which serial does not know"),
        ('kind = "ipmi"\n', "has no address"),
        ('kind = "ipmi"\naddress = "x"\n', "has no user"),
        ('kind = "ipmi"\naddress = "x"\nuser = "u"\npassword = "hunter2"\n', "is no reference"),
        ('kind = "serial"\ndevise = "/dev/x"\n', "unknown key 'devise'"),
    ],
)
def test_what_a_console_is_told_wrong(
    load: Callable[[str], config.Config], text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load(f"[machine.board1.console]\n{text}")
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


def test_a_board_without_a_console_says_so(load: Callable[[str], config.Config]) -> None:
    found = load("")
    with pytest.raises(UsageError, match="board1 has no console"):
        wire.of(found.board("board1"), found.root)


def test_the_verb(load: Callable[[str], config.Config], server: Server, tmp_path: Path) -> None:
    load(f'[machine.board1.console]\nkind = "tcp"\naddress = "127.0.0.1"\nport = {server.port}\n')
    toml = tmp_path / "rig.toml"
    own = f'kind = "baremetal"\nlock = "{tmp_path}"'
    toml.write_text(toml.read_text().replace('kind = "baremetal"', own, 1))

    def rig() -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-m", "rig", "console", "board1", "--for", "3"]
        both = subprocess.PIPE
        return subprocess.Popen(argv, cwd=tmp_path, env=env, stdout=both, stderr=both, text=True)

    running = rig()
    server.take().sendall(b"Linux version 6\r\n" + PANIC)
    said, told = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "out of ideas" in said
    assert "splat: kernel panic: out of ideas" in told
    (path,) = (tmp_path / "results").glob("*-board1-console/console-0.log")
    assert str(path) in told
    assert path.read_bytes().endswith(PANIC)
    server.stop()
    server.taken = None
    dead = rig()
    _, told = dead.communicate(timeout=60)
    assert dead.returncode == 3
    assert "is dead" in told
    assert "Traceback" not in told


def test_a_line_is_handed_on_without_a_byte_lost(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = of(tmp_path, kind="tcp", address="127.0.0.1", port=server.getsockname()[1])
        with contextlib.closing(line):
            first = Console(line.open(), tmp_path / "first.log")
            board, _ = server.accept()
            with board:
                board.sendall(b"before\n")
                first.expect("before\n", 10)
                stop = threading.Event()

                def talk() -> None:
                    number = 0
                    while not stop.is_set():
                        board.sendall(b"%d\n" % number)
                        number += 1

                talker = threading.Thread(target=talk)
                talker.start()
                second = Console(line.handed_on(), tmp_path / "second.log")
                assert first.wait_closed(10)
                first.close()
                second.expect("\n", 10)
                stop.set()
                talker.join()
                board.sendall(b"after\n")
                second.expect("after\n", 10)
                second.send(b"typed")
                assert board.recv(5) == b"typed"
                assert line.lost == 0
            said = first.text() + second.text().partition("after")[0]
            numbers = [int(word) for word in said.split()[1:]]
            assert numbers == list(range(len(numbers)))
            line.close()
            assert second.wait_closed(10)
            second.close()
