"""Sessions: what is run is quoted and numbered right; a real guest; a server that misbehaves."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import paramiko.common as ssh
import pexpect
import pytest

from rig import process
from rig import session as session_module
from rig.config import MachineConfig
from rig.errors import InfrastructureError
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine.qemu import QemuMachine
from rig.session import ConnectionLost, Endpoint, Line, Session, SessionTimeout, wrapped

# ---------------------------------------------------------------- the wrapper, in a local shell

Local = Callable[..., "subprocess.CompletedProcess[bytes]"]


def compiled_runner(directory: Path) -> Path:
    """The runner of our images, for this host."""
    runner = directory / "run"
    source = Path(__file__).parents[1] / "images/debian/run.c"
    words: list[str | Path] = [
        "gcc",
        "-Wall",
        "-Wextra",
        "-Werror",
        f'-DSELF="{runner}"',
        "-o",
        runner,
        source,
    ]
    subprocess.run(words, check=True)
    return runner


@pytest.fixture(scope="module", params=["shell", "runner", "login shell"])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Local:
    """Runs a wrapped command here: by the shell's words, by the runner, and by it as sshd does."""
    place = tmp_path_factory.mktemp("runner")
    runner = place / "run" if request.param == "shell" else compiled_runner(place)
    shell = str(runner) if request.param == "login shell" else "sh"

    def run(argv: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        tag = f"test-{os.getpid()}"
        command = wrapped(argv, tag, runner=str(runner), **options)  # type: ignore[arg-type]
        words = [shell, "-c", command]
        # The first of a session of its own, as what an sshd starts is.
        done = subprocess.run(
            words, capture_output=True, timeout=20, check=False, start_new_session=True
        )
        Path(f"/run/rig-{tag}").unlink(missing_ok=True)
        return done

    return run


def test_arguments_arrive_as_they_are(local: Local) -> None:
    words = ["a b", "'", '"', "$HOME", "*", "", "-n", "--", "ä\n"]
    done = local([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words])
    assert done.stdout.decode().strip() == repr(words)


def test_exit_codes(local: Local) -> None:
    assert local(["sh", "-c", "exit 7"]).returncode == 7
    assert local(["true"]).returncode == 0
    missing = local(["/no/such/program"])
    assert missing.returncode == 127
    assert b"/no/such/program: " in missing.stderr
    assert local(["/etc/passwd"]).returncode == 126


@pytest.mark.parametrize("name", ["SEGV", "KILL", "TERM", "ABRT"])
def test_death_by_a_signal(local: Local, name: str) -> None:
    done = local(["sh", "-c", f"kill -s {name} $$"])
    assert done.returncode == 128 + signal.Signals[f"SIG{name}"]
    assert done.stdout == b""
    assert done.stderr == b""


def test_directory_and_environment(local: Local) -> None:
    done = local(["sh", "-c", "pwd; echo $A"], cwd="/usr", env={"A": "1 '2'", "B": "x=y"})
    assert done.stdout == b"/usr\n1 '2'\n"
    assert local(["true"], cwd="/no/such").returncode == 126


def test_a_group_and_a_session_of_its_own(local: Local) -> None:
    kept_in = f"/run/rig-test-{os.getpid()}"
    shown = f"ps -o pgid=,sid= -p $$; cat {kept_in} /proc/self/oom_score_adj; echo $HOME"
    group, session, kept, protection, home = local(["sh", "-c", shown]).stdout.decode().split()
    assert group == session == kept
    assert int(group) != os.getpgrp()
    assert (protection, home) == ("0", "/root")


# ------------------------------------------------------------------- the runner as a login shell


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_runner(tmp_path_factory.mktemp("runner"))


# Much of it looks like what a session sends. Each has to do what it does in a shell.
COMMANDS = [
    "echo $((1 + 1)) | tr 2 3; exit 4",
    'printf \'%s \' "$0" "$SHELL"',
    "[ -x RUN ] && exec RUN tag '' -- echo $HOME; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo a*; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo a >/dev/null; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo \"$HOME\"; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo \\n; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo 'no end; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo the end",
    "[ -x RUN ] && exec RUN tag '' -- echo a && echo b; echo no",
    "[ -x RUN ] && exec RUN tag '' -- echo  a ; echo no",
    "[ -x RUN ] && exec RUN tag '' -- printf '%s-' a '' b",
    "",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_no_session_sent_is_the_shells(runner: Path, command: str) -> None:
    line = command.replace("RUN", str(runner))
    environment = {**os.environ, "SHELL": "/bin/sh"}

    def done(shell: str) -> tuple[int, bytes, bytes]:
        ran = subprocess.run(
            [shell, "-c", line],
            executable="/bin/sh" if shell == "sh" else shell,
            env=environment,
            capture_output=True,
            timeout=20,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr

    assert done(str(runner)) == done("sh")
    Path("/run/rig-tag").unlink(missing_ok=True)


def test_a_login_without_a_command_is_a_login_shell(runner: Path) -> None:
    words = {"input": b"echo $0 $SHELL", "capture_output": True, "timeout": 20}
    done = subprocess.run(["-run"], executable=runner, check=True, **words)  # type: ignore[call-overload]
    assert done.stdout == b"-sh /bin/sh\n"


# ------------------------------------------------------------------- a server that misbehaves


def make_key(path: Path, kind: str = "ed25519") -> str:
    process.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], timeout_s=60)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


class Server(paramiko.ServerInterface):
    """Lets one key in and hangs up on every command.

    But "tail COUNT PAUSE" is one that ends at once and whose output comes late, and whose
    channel is held open by something for two seconds more.
    """

    def __init__(self, client: str) -> None:
        self._client = client

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        known = key.get_base64() == self._client.split()[1]
        return int(ssh.AUTH_SUCCESSFUL if known else ssh.AUTH_FAILED)

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(ssh.OPEN_SUCCEEDED)

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if late := re.search(rb"tail (\d+) ([\d.]+)", command):
            slow = (channel, int(late[1]), float(late[2]))
            threading.Thread(target=self._dribble, args=slow, daemon=True).start()
            return True
        channel.sendall(b"begun\n")
        threading.Timer(0.1, channel.get_transport().close).start()
        return True

    @staticmethod
    def _dribble(channel: paramiko.Channel, count: int, pause_s: float) -> None:
        with contextlib.suppress(OSError):
            channel.send_exit_status(0)
            for number in range(count):
                time.sleep(pause_s)
                channel.sendall(b"%d\n" % number)
            time.sleep(2)
            channel.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Endpoint]:
    """An SSH server on loopback; the endpoint knows its key and has the right one itself."""
    host_key, client = make_key(tmp_path / "host"), make_key(tmp_path / "client")
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    transport = paramiko.Transport(listener.accept()[0])
                    stack.callback(transport.close)
                    transport.add_server_key(
                        paramiko.Ed25519Key.from_private_key_file(str(tmp_path / "host"))
                    )
                    transport.start_server(event=threading.Event(), server=Server(client))

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        yield Endpoint("127.0.0.1", port, "root", tmp_path / "client", host_key)
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=["ed25519", "rsa"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Endpoint, Line]]:
    """The same on a line of its own, where it has said its version already; with keys of ours."""
    host_key = make_key(tmp_path / "host")
    client = make_key(tmp_path / "client", request.param)
    near, far = socket.socketpair()
    transport = paramiko.Transport(far)
    transport.add_server_key(paramiko.Ed25519Key.from_private_key_file(str(tmp_path / "host")))
    transport.start_server(event=threading.Event(), server=Server(client))
    with contextlib.closing(near):
        near.settimeout(10)
        heard = near.recv(4096)
        yield Endpoint("nowhere", 0, "root", tmp_path / "client", host_key), Line(near, heard)
    transport.close()


def with_key(endpoint: Endpoint, *, host_key: str = "", client_key: Path | None = None) -> Endpoint:
    return Endpoint(
        endpoint.host,
        endpoint.port,
        endpoint.user,
        client_key or endpoint.client_key,
        host_key or endpoint.host_key,
    )


def test_another_host_key_is_refused(server: Endpoint, tmp_path: Path) -> None:
    other = with_key(server, host_key=make_key(tmp_path / "other"))
    with pytest.raises(InfrastructureError, match="not the machine it should be"):
        Session(other, connect_timeout_s=10)


def test_our_key_is_refused(server: Endpoint, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    with pytest.raises(InfrastructureError, match="not the machine it should be"):
        Session(with_key(server, client_key=tmp_path / "other"), connect_timeout_s=10)


def test_a_line_goes_on_where_it_was_heard_last(line: tuple[Endpoint, Line]) -> None:
    endpoint, near = line
    assert near.heard.startswith(b"SSH-2.0-")
    with Session(endpoint, connect_timeout_s=10, line=near) as session:
        assert session.run(["tail", "1", "0"], timeout_s=60).stdout == b"0\n"


def test_what_was_heard_comes_first_and_whole() -> None:
    near, far = socket.socketpair()
    far.sendall(b"new")
    with far, session_module._Continued(Line(near, b"0123456789")) as continued:
        continued.settimeout(5)
        assert [continued.recv(4) for _ in range(4)] == [b"0123", b"4567", b"89", b"new"]
    assert near.fileno() == -1  # it was taken over


def test_a_line_that_was_misheard_is_no_session(line: tuple[Endpoint, Line]) -> None:
    endpoint, near = line
    misheard = Line(near.socket, near.heard.replace(b"2.0-", b"2.0-another"))
    with pytest.raises(ConnectionLost, match="no SSH login"):
        Session(endpoint, connect_timeout_s=10, line=misheard)


def test_a_line_has_to_show_the_host_key_too(line: tuple[Endpoint, Line], tmp_path: Path) -> None:
    endpoint, near = line
    other = with_key(endpoint, host_key=make_key(tmp_path / "other"))
    with pytest.raises(InfrastructureError, match="its host key is SHA256:"):
        Session(other, connect_timeout_s=10, line=near)


def test_nobody_logs_in_before_what_has_to_be_done_is_done(line: tuple[Endpoint, Line]) -> None:
    endpoint, near = line
    threads: list[paramiko.Transport] = []

    def meanwhile() -> None:
        threads.extend(one for one in threading.enumerate() if isinstance(one, paramiko.Transport))
        deadline = time.monotonic() + 10
        while not all(one.initial_kex_done for one in threads) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(one.is_authenticated() for one in threads)
        raise InfrastructureError("it was not renewed")

    with pytest.raises(InfrastructureError, match="it was not renewed"):
        Session(endpoint, connect_timeout_s=10, line=near, meanwhile=meanwhile)
    assert len(threads) >= 2  # ours and the server's
    assert not any(one.is_authenticated() for one in threads)


@pytest.mark.parametrize("content", [None, b"no key"])
def test_a_key_that_cannot_be_read_is_ours_to_mend(
    server: Endpoint, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "none"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InfrastructureError, match=f"{path} is no key"):
        Session(with_key(server, client_key=path), connect_timeout_s=10)


def test_connection_lost_in_mid_command_keeps_the_output(server: Endpoint) -> None:
    with Session(server, connect_timeout_s=10) as session:
        started = time.monotonic()
        with pytest.raises(ConnectionLost) as caught:
            session.run(["sleep", "60"], timeout_s=60)
        assert caught.value.stdout == b"begun\n"
        assert time.monotonic() - started < 10
        with pytest.raises(ConnectionLost):
            session.run(["true"], timeout_s=60)


def test_output_that_comes_after_the_end_is_listened_to(
    server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_LINGER_S", 0.3)
    with Session(server, connect_timeout_s=10) as session:
        done = session.run(["tail", "6", "0.1"], timeout_s=60)
    assert done.stdout == b"0\n1\n2\n3\n4\n5\n"
    assert done.duration_s < 1.9  # 0.6 s of output, 0.3 s of silence, and not the open channel


def test_a_slow_machine_is_listened_to_for_longer(
    server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_LINGER_S", 0.05)
    with Session(server, connect_timeout_s=10, slowdown=20) as session:
        assert session.run(["tail", "1", "0.7"], timeout_s=60).stdout == b"0\n"


def test_what_is_left_behind_and_writes_for_ever_is_not(
    server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "_LINGER_MAX_S", 0.5)
    with Session(server, connect_timeout_s=10) as session:
        done = session.run(["tail", "1000", "0.05"], timeout_s=60)
    assert done.stdout.startswith(b"0\n1\n")
    assert done.duration_s < 10


def test_nobody_listens(server: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    nobody = Endpoint("127.0.0.1", port, "root", server.client_key, server.host_key)
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="no SSH answer"):
        Session(nobody, connect_timeout_s=0.5)
    assert time.monotonic() - started < 5


def test_nobody_waits_for_a_machine_that_is_gone(server: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = Endpoint("127.0.0.1", port, "root", server.client_key, server.host_key)
    answers = [True, True, False]
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="went away before it let us in"):
        Session(gone, connect_timeout_s=60, alive=lambda: answers.pop(0))
    assert answers == []
    assert time.monotonic() - started < 20


def test_a_listener_that_says_nothing(server: Endpoint) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        mute = Endpoint("127.0.0.1", port, "root", server.client_key, server.host_key)
        started = time.monotonic()
        with pytest.raises(ConnectionLost):
            Session(mute, connect_timeout_s=1.0)
        assert time.monotonic() - started < 10


# ---------------------------------------------------------------------------- the real guest


@pytest.fixture(scope="module")
def machine(
    built_kernel: Kernel, built_image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[QemuMachine]:
    results = tmp_path_factory.mktemp("results")
    machine = QemuMachine(MachineConfig("test"), built_kernel, built_image, results=results)
    machine.boot()
    yield machine
    machine.close()


@pytest.fixture(scope="module")
def session(machine: QemuMachine) -> Iterator[Session]:
    with machine.connect() as session:
        yield session


@pytest.mark.kernel
def test_streams_and_code(session: Session) -> None:
    done = session.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=30)
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert 0 < done.duration_s < 30


@pytest.mark.kernel
def test_guest_signal_is_128_and_its_number(session: Session) -> None:
    done = session.run(["sh", "-c", "kill -SEGV $$"], timeout_s=30)
    assert (done.exit_code, done.stderr) == (139, b"")


@pytest.mark.kernel
def test_standard_input_and_its_end(session: Session) -> None:
    data = bytes(range(256)) * 1000
    assert session.run(["cat"], timeout_s=60, stdin=data).stdout == data
    assert session.run(["cat"], timeout_s=60, stdin=io.BytesIO(data)).stdout == data
    assert session.run(["cat"], timeout_s=60).stdout == b""


@pytest.mark.kernel
def test_input_nobody_reads(session: Session) -> None:
    assert session.run(["true"], timeout_s=60, stdin=b"x" * 5_000_000).exit_code == 0


@pytest.mark.kernel
def test_time_out_ends_the_whole_process_group(session: Session) -> None:
    looked: list[bytes] = []

    def look() -> None:
        looked.append(session.run(["pgrep", "-c", "sleep"], timeout_s=30).stdout)

    before = int(session.run(["pgrep", "-c", "sleep"], timeout_s=30).stdout)
    started = time.monotonic()
    script = "echo begun; sleep 1000 & sleep 1000"
    with pytest.raises(SessionTimeout) as caught:
        session.run(["sh", "-c", script], timeout_s=1, on_timeout=look)
    assert time.monotonic() - started < 30
    assert caught.value.stdout == b"begun\n"
    assert int(looked[0]) == before + 2
    assert int(session.run(["pgrep", "-c", "sleep"], timeout_s=30).stdout) == before


@pytest.mark.kernel
def test_a_process_left_behind_is_not_waited_for(session: Session) -> None:
    started = time.monotonic()
    done = session.run(["sh", "-c", "sleep 1000 & echo done"], timeout_s=100)
    assert (done.exit_code, done.stdout) == (0, b"done\n")
    assert time.monotonic() - started < 15
    session.run(["pkill", "-x", "-n", "sleep"], timeout_s=30)


@pytest.mark.kernel
def test_large_output_is_passed_on_and_not_kept(session: Session, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, Path(os.devnull).open("rb") as nothing:
        code = session.stream(["head", "-c", "30000000", "/dev/zero"], nothing, out, out)
    assert code == 0
    assert (tmp_path / "out").stat().st_size == 30_000_000


@pytest.mark.kernel
def test_output_comes_as_it_is_written(session: Session) -> None:
    came: list[tuple[float, str, bytes]] = []
    started = time.monotonic()

    def note(stream: str, data: bytes) -> None:
        came.append((time.monotonic() - started, stream, data))

    session.run(["sh", "-c", "echo a; sleep 2; echo b"], timeout_s=60, on_output=note)
    assert [(stream, data) for _, stream, data in came] == [("stdout", b"a\n"), ("stdout", b"b\n")]
    assert came[1][0] - came[0][0] > 1


@pytest.mark.kernel
def test_tree_there_and_back(session: Session, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for number in range(300):
        (tree / f"file {number}").write_bytes(os.urandom(100))
    (tree / "sub" / "program").write_text("#!/bin/sh\necho works\n")
    (tree / "sub" / "program").chmod(0o755)
    session.put(tree, "/opt/made/here")
    assert session.run(["./sub/program"], timeout_s=30, cwd="/opt/made/here").stdout == b"works\n"
    assert session.run(["stat", "-c", "%u", "/opt/made/here"], timeout_s=30).stdout == b"0\n"
    session.get("/opt/made/here", tmp_path / "back")
    subprocess.run(["diff", "-r", tree, tmp_path / "back"], check=True)
    assert os.access(tmp_path / "back" / "sub" / "program", os.X_OK)


@pytest.mark.kernel
def test_one_file_there_and_back(session: Session, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    session.put(tmp_path / "a", "/opt/one/b")
    session.get("/opt/one/b", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "text"
    with pytest.raises(InfrastructureError, match="cannot copy"):
        session.get("/no/such", tmp_path / "d")


@pytest.mark.kernel
def test_hundreds_of_sessions(machine: QemuMachine) -> None:
    for number in range(40):
        with machine.connect() as session:
            done = session.run(["echo", str(number)], timeout_s=30)
            assert done.stdout == f"{number}\n".encode()


@pytest.mark.kernel
def test_memory_exhausted_by_a_test_does_not_cost_sshd(
    built_kernel: Kernel, built_image: Image, tmp_path: Path
) -> None:
    config = MachineConfig("small", memory_mib=256)
    machine = QemuMachine(config, built_kernel, built_image, results=tmp_path)
    script = "a = []\nwhile True: a.append(b'x' * (1 << 24))"
    with contextlib.closing(machine):
        machine.boot()
        with machine.connect() as session:
            assert session.run(["python3", "-c", script], timeout_s=200).exit_code == 137
            assert session.run(["true"], timeout_s=60).exit_code == 0
    assert [splat.type for splat in machine.console.splats()] in ([], ["other"])


# ------------------------------------------------------------------------------ a terminal

INTERACTIVE = """
import sys
from pathlib import Path
from rig.session import Endpoint, Session
host, port, user, key, host_key, *argv = sys.argv[1:]
with Session(Endpoint(host, int(port), user, Path(key), host_key), connect_timeout_s=30) as s:
    code = s.interactive(argv or None)
print(f"code={code}")
"""


def interactive(machine: QemuMachine, *argv: str) -> list[str]:
    end = machine.endpoint
    words = [end.host, str(end.port), end.user, str(end.client_key), end.host_key]
    return [sys.executable, "-c", INTERACTIVE, *words, *argv]


@pytest.mark.kernel
def test_shell_on_a_terminal(machine: QemuMachine) -> None:
    program, *words = interactive(machine)
    child = pexpect.spawn(program, words, encoding="utf-8", timeout=60)
    child.expect("# ")
    child.sendline("tty; echo $((6 * 7))")
    child.expect("/dev/pts/")
    child.expect("42")
    child.setwinsize(40, 120)
    child.expect("# ")
    child.sendline("stty size")
    child.expect("40 120")
    child.sendline("exit 5")
    child.expect("code=5")
    child.close()


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_terminal_is_restored_whatever_happens(
    machine: QemuMachine, number: signal.Signals
) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    child = subprocess.Popen(
        interactive(machine, "sh", "-c", "echo begun; sleep 1000"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    try:
        seen = b""
        while b"begun" not in seen:
            assert select.select([ours], [], [], 60)[0]
            seen += os.read(ours, 1000)
        assert not termios.tcgetattr(theirs)[3] & termios.ECHO
        child.send_signal(number)
        assert child.wait(30) != 0
        assert termios.tcgetattr(theirs) == before
    finally:
        child.kill()
        child.wait()
        os.close(ours)
        os.close(theirs)
