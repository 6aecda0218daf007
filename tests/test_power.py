"""A board's power by what switches real ones, and secrets that stay where they are."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import emulated_bmc
import keyring
import keyring.backend
import keyring.errors
import pytest
from emulated_bmc import PASSWORD, USER, Emulated

from rig import config, credential
from rig.config import BoardConfig, PowerConfig
from rig.credential import Secret
from rig.errors import InfrastructureError, UsageError
from rig.machine import power
from rig.machine.power import Power

ROOT = Path(__file__).parents[1]


@pytest.fixture
def ipmi(tmp_path: Path) -> Iterator[Emulated]:
    with emulated_bmc.ipmi(tmp_path) as one:
        yield one


@pytest.fixture
def redfish(tmp_path: Path) -> Iterator[Emulated]:
    with emulated_bmc.redfish(tmp_path) as one:
        yield one


@pytest.fixture
def pdudaemon(tmp_path: Path) -> Iterator[Emulated]:
    with emulated_bmc.pdudaemon(tmp_path) as one:
        yield one


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BMC_PASSWORD", PASSWORD)
    monkeypatch.setenv("BMC_WRONG", "not-that-one")


def of(root: Path, **words: object) -> Power:
    told = PowerConfig(**{"takes_s": 10.0, "rest_s": 0.0, **words})  # type: ignore[arg-type]
    return power.of(BoardConfig("board1", told), root)


def by_ipmi(one: Emulated, **words: object) -> Power:
    told = {
        "kind": "ipmi", "address": "127.0.0.1", "port": one.port, "user": USER,
        "password": "env:BMC_PASSWORD", "cipher": 3, **words,
    }  # fmt: skip
    return of(one.directory, **told)


def by_redfish(one: Emulated, **words: object) -> Power:
    told = {
        "kind": "redfish", "address": "127.0.0.1", "port": one.port, "user": USER,
        "password": "env:BMC_PASSWORD", "certificate": "bmc.pem", "takes_s": 40.0, **words,
    }  # fmt: skip
    return of(one.directory, **told)


def goes_on_and_off(one: Power) -> None:
    assert one.status() is False
    assert one.set(True).seen
    assert one.status() is True
    done = one.cycle()
    assert (done.on, done.seen, one.status()) == (True, True, True)
    assert one.set(False).seen
    assert one.status() is False
    assert one.set(False).seen  # once more is no news


# -- IPMI -----------------------------------------------------------------------------------------


def test_ipmi_goes_on_and_off(ipmi: Emulated) -> None:
    goes_on_and_off(by_ipmi(ipmi))
    asked = (ipmi.directory / "asked").read_text()
    assert asked.count("set power 0") >= 2  # the cycle was an off and an on
    assert not ipmi.powered


def test_a_board_that_does_not_go_on_is_an_error_in_time(ipmi: Emulated) -> None:
    (ipmi.directory / "stuck").touch()
    began = time.monotonic()
    words = rf"board1 did not go on: the BMC of board1 at 127.0.0.1:{ipmi.port} says off 2 s after"
    with pytest.raises(InfrastructureError, match=words):
        by_ipmi(ipmi, takes_s=2.0).set(True)
    assert time.monotonic() - began < 15


def test_a_password_that_ipmitool_finds_elsewhere_is_not_the_one(
    ipmi: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPMITOOL_PASSWORD", "not-that-one")
    assert by_ipmi(ipmi).status() is False


def test_without_a_cipher_suite_they_agree_on_one(ipmi: Emulated) -> None:
    assert by_ipmi(ipmi, cipher=-1).status() is False


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ("Using best available cipher suite 17\nRAKP 2 HMAC is invalid", "refuses the password"),
        ("Using best available cipher suite 17\nsomething else", ""),
        ("Error in open session response message : invalid role", "does not let that user"),
        ("RAKP 2 message indicates an error : unauthorized role or privilege", "does not let"),
        ("Set Chassis Power Control to Up/On failed: Insufficient privilege level", "does not let"),
        ("Error in open session: no matching cipher suite", "does not know the cipher suite"),
    ],
)
def test_what_ipmitool_means(said: str, what: str) -> None:
    found = power.refusal(said)
    assert bool(found) == bool(what)
    assert not found or what in found[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"password": "env:BMC_WRONG"}, "refuses the password"),
        ({"user": "nobody"}, "knows no such user"),
        ({"port": 9}, "does not answer"),
    ],
)
def test_ipmi_says_what_is_wrong(ipmi: Emulated, words: dict[str, object], said: str) -> None:
    with pytest.raises(InfrastructureError, match=said) as caught:
        by_ipmi(ipmi, **words).set(True)
    assert caught.value.hint
    assert "not-that-one" not in caught.value.output + caught.value.reproduce
    assert not ipmi.powered


def test_the_password_is_in_no_process_list(ipmi: Emulated) -> None:
    seen, over = [], threading.Event()

    def look() -> None:
        while not over.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(entry.read_bytes())
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        by_ipmi(ipmi).cycle()
    finally:
        over.set()
        thread.join()
    assert any(b"ipmitool" in line for line in seen)
    assert not [line for line in seen if PASSWORD.encode() in line]


# -- Redfish --------------------------------------------------------------------------------------


def test_redfish_goes_on_and_off(redfish: Emulated) -> None:
    """What it is asked for takes 1 to 11 s there, as on hardware."""
    one = by_redfish(redfish)
    assert one.status() is False
    done = one.set(True)
    assert (done.seen, one.status()) == (True, True)
    assert one.set(True).seen  # once more is no news
    assert one.set(False).seen
    assert one.status() is False


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"password": "env:BMC_WRONG"}, r"refuses user rig \(401\)"),
        ({"certificate": ""}, "cannot be trusted: self-signed certificate"),
        ({"port": 9}, "does not answer: "),
        ({"address": "a..b"}, "does not answer: "),
        ({"address": "a b"}, "does not answer: "),
        ({"system": "other"}, "has 1 systems, none 'other'"),
    ],
)
def test_redfish_says_what_is_wrong(redfish: Emulated, words: dict[str, object], said: str) -> None:
    with pytest.raises(InfrastructureError, match=said) as caught:
        by_redfish(redfish, **words).status()
    assert "not-that-one" not in caught.value.output


def test_a_bmc_of_two_boards_is_told_which(tmp_path: Path) -> None:
    with emulated_bmc.redfish(tmp_path, ("left", "right")) as one:
        with pytest.raises(InfrastructureError, match="has 2 systems") as caught:
            by_redfish(one).status()
        assert caught.value.hint.startswith("system = one of ")
        right, left = by_redfish(one, system="right"), by_redfish(one, system="left")
        assert right.set(True).seen
        assert (left.status(), right.status()) == (False, True)
        by_its_id = "00000002-0000-4000-8000-000000000000"
        assert by_redfish(one, system=by_its_id).status() is True


def test_a_certificate_of_another_is_not_trusted(redfish: Emulated, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    pem, _ = emulated_bmc.certificate(other)
    with pytest.raises(InfrastructureError, match="it shows another certificate"):
        by_redfish(redfish, certificate=str(pem)).status()
    for wrong in ("not-there.pem", "users", "~nobody-of-that-name/x"):
        with pytest.raises(InfrastructureError, match="cannot be used"):
            by_redfish(redfish, certificate=wrong)


class Busy:
    """A switch that cannot be asked now and then, as a BMC just after a change."""

    where, tells = "it", True

    def __init__(self, *looks: bool | InfrastructureError | None) -> None:
        self._looks = list(looks)

    def set(self, on: bool) -> None: ...

    def is_on(self) -> bool | None:
        found = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(found, InfrastructureError):
            raise found
        return found


def test_a_bmc_that_is_busy_just_now_is_asked_again() -> None:
    busy = InfrastructureError("busy")
    assert Power("b", Busy(busy, None, busy, True), 30.0, 0.0).set(True).seen
    with pytest.raises(InfrastructureError, match="busy"):
        Power("b", Busy(busy), 1.0, 0.0).set(True)


def test_a_bmc_that_does_not_answer_just_now_is_asked_to_switch_again() -> None:
    """Else a board stays in the kernel under test, or off, for one answer that was lost."""

    class Away(Busy):
        def __init__(self, *answers: Exception | None) -> None:
            super().__init__(True, True, True)
            self._answers = list(answers)

        def set(self, on: bool) -> None:
            if answer := self._answers.pop(0):
                raise answer

    away, no = power.AwayError("it does not answer"), InfrastructureError("refuses the password")
    assert Power("b", Away(away, away, None), 30.0, 0.0).set(True).seen
    with pytest.raises(InfrastructureError, match="refuses"):  # at once: it locks users out
        Power("b", Away(no, None), 30.0, 0.0).set(True)
    with pytest.raises(power.AwayError):
        Power("b", Away(*[away] * 99), 1.0, 0.0).set(True)


# -- pdudaemon, and anything else -----------------------------------------------------------------


def by_pdudaemon(one: Emulated, **words: object) -> Power:
    told = {
        "kind": "pdudaemon", "address": "127.0.0.1", "port": one.port, "pdu": "rack1",
        "outlet": "7", **words,
    }  # fmt: skip
    return of(one.directory, **told)


def test_pdudaemon_with_something_that_tells(pdudaemon: Emulated) -> None:
    told = f'test "$(cat {pdudaemon.directory}/power)" = 1'
    goes_on_and_off(by_pdudaemon(pdudaemon, status=told))


def test_a_daemon_that_does_not_answer_just_now_is_asked_again() -> None:
    config = PowerConfig(
        "pdudaemon", address="127.0.0.1", port=emulated_bmc.free_port(), pdu="a", outlet="1"
    )
    one = power.Power("board1", power.Pdudaemon(config), takes_s=0.5, rest_s=0)
    began = time.monotonic()
    with pytest.raises(InfrastructureError, match="does not answer"):
        one.set(True)
    assert time.monotonic() - began >= 0.5


def test_pdudaemon_alone_cannot_tell(pdudaemon: Emulated) -> None:
    one = by_pdudaemon(pdudaemon)
    assert one.status() is None
    assert not one.set(True).seen
    deadline = time.monotonic() + 10
    while not pdudaemon.powered and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pdudaemon.powered


def test_pdudaemon_does_not_know_that_pdu(pdudaemon: Emulated) -> None:
    with pytest.raises(InfrastructureError, match=r"refuses rack9, outlet 7 \(500\)"):
        by_pdudaemon(pdudaemon, pdu="rack9").set(True)
    with pytest.raises(InfrastructureError, match="does not answer"):
        by_pdudaemon(pdudaemon, port=9).set(True)


def by_command(directory: Path, **words: object) -> Power:
    file = directory / "power"
    told = {
        "kind": "command", "on": f"echo 1 >{file}", "off": f"echo 0 >{file}",
        "status": f'test "$(cat {file})" = 1', **words,
    }  # fmt: skip
    return of(directory, **told)


def test_any_command(tmp_path: Path) -> None:
    (tmp_path / "power").write_text("0")
    goes_on_and_off(by_command(tmp_path))
    with pytest.raises(InfrastructureError, match="exit code 3"):
        by_command(tmp_path, on="exit 3").set(True)
    with pytest.raises(InfrastructureError, match="ended with 2"):
        by_command(tmp_path, status="exit 2").set(True)
    (tmp_path / "power").write_text("0")
    with pytest.raises(InfrastructureError, match="did not go on"):
        by_command(tmp_path, on="true", takes_s=1.0).set(True)


# -- what rig.toml says of it ---------------------------------------------------------------------

BOARD = """
[default]
kernel = "k"
machine = "default"
[kernel.k]
[machine.default]
[machine.board1]
kind = "baremetal"
[machine.board1.power]
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], config.Config]:
    def loaded(text: str) -> config.Config:
        path = tmp_path / "rig.toml"
        path.write_text(BOARD + text)
        return config.load(path)

    return loaded


IPMI = 'kind = "ipmi"\naddress = "192.0.2.7"\nuser = "u"\npassword = "env:P"\n'


def test_a_board_of_rig_toml(load: Callable[[str], config.Config]) -> None:
    found = load(IPMI + "cipher = 17\n")
    board = found.board("board1")
    assert (board.power.address, board.power.cipher) == ("192.0.2.7", 17)
    with pytest.raises(UsageError, match=r"\[machine.board1\] has no console"):
        found.machine("board1")
    with pytest.raises(UsageError, match="default is no board"):
        found.board("default")
    with pytest.raises(UsageError, match="no board 'board'"):
        found.board("board")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "impi"\n', "kind is 'impi'"),
        ('kind = "ipmi"\nuser = "u"\npassword = "env:P"\n', "has no address"),
        (IPMI + 'pdu = "x"\n', "has pdu, which ipmi does not know"),
        (IPMI + "cyper = 3\n", "unknown key 'cyper'"),
        (IPMI + "port = 70000\n", "port is 70000"),
        (IPMI + "takes_s = 0\n", "takes_s is 1 to 3600"),
        ('kind = "command"\non = "x"\noff = "y"\n', "has no status"),
    ],
)
def test_what_a_board_is_told_wrong(
    load: Callable[[str], config.Config], text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        load(text)


def test_a_password_that_stands_there_itself_is_refused_and_not_shown(
    load: Callable[[str], config.Config],
) -> None:
    with pytest.raises(UsageError, match="password is no reference to a secret") as caught:
        load(IPMI.replace("env:P", "hunter2"))
    assert "hunter2" not in f"{caught.value.message}{caught.value.hint}"


# -- secrets --------------------------------------------------------------------------------------


def test_a_secret_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("abc\nsecond line\n")
    file.chmod(0o640)
    with pytest.raises(UsageError, match=r"others may read it \(mode 0640\)") as caught:
        credential.read("file:secret", tmp_path)
    assert caught.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    assert credential.read("file:secret", tmp_path).value == "abc"
    file.write_text("\n")
    with pytest.raises(UsageError, match="its first line is empty"):
        credential.read("file:secret", tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        credential.read("file:other", tmp_path)
    with pytest.raises(UsageError, match="home"):
        credential.read("file:~nobody-of-that-name/x", tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_somebody_else(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("abc\n")
    file.chmod(0o600)
    os.chown(file, 12345, 12345)
    with pytest.raises(UsageError, match=r"belongs to somebody else \(uid 12345\)"):
        credential.read("file:secret", tmp_path)


def test_a_secret_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(UsageError, match=r"there is no \$NOT_THERE"):
        credential.read("env:NOT_THERE", tmp_path)
    assert credential.read("", tmp_path) == credential.NOTHING


def test_a_secret_is_not_shown_by_accident() -> None:
    one = Secret("abc")
    assert "abc" not in f"{one} {one!r}"
    assert one.hidden_in("x abc y") == "x ... y"
    assert Secret("").hidden_in("x") == "x"


class Kept(keyring.backend.KeyringBackend):
    """A keyring with one secret."""

    priority = 1

    def get_password(self, service: str, username: str) -> str | None:
        if service == "locked":
            raise keyring.errors.KeyringLocked("it is locked")
        return {("bmc", "root"): "s3cret"}.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        raise NotImplementedError

    def delete_password(self, service: str, username: str) -> None:
        raise NotImplementedError


def test_a_secret_of_a_keyring(tmp_path: Path) -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(Kept())  # type: ignore[no-untyped-call]
    try:
        found = credential.read("keyring:bmc/root", tmp_path)
        assert (found.value, str(found)) == ("s3cret", "...")
        with pytest.raises(UsageError, match="keyring:bmc/nobody: the keyring has none"):
            credential.read("keyring:bmc/nobody", tmp_path)
        with pytest.raises(UsageError, match="keyring:locked/root: it is locked"):
            credential.read("keyring:locked/root", tmp_path)
    finally:
        keyring.set_keyring(before)


def test_a_keyring_that_is_not_there_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UsageError, match="not installed") as caught:
        credential.read("keyring:bmc/root", tmp_path)
    assert "install keyring" in caught.value.hint
    with pytest.raises(UsageError, match="whose"):
        credential.read("keyring:bmc", tmp_path)


# -- the verb -------------------------------------------------------------------------------------


def test_the_verb(ipmi: Emulated) -> None:
    text = (
        f'kind = "ipmi"\naddress = "127.0.0.1"\nport = {ipmi.port}\nuser = "{USER}"\n'
        'password = "env:BMC_PASSWORD"\ncipher = 3\nrest_s = 0.1\n'
    )
    own = f'kind = "baremetal"\nlock = "{ipmi.directory}"'
    (ipmi.directory / "rig.toml").write_text(BOARD.replace('kind = "baremetal"', own, 1) + text)

    def rig(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        argv = [sys.executable, "-m", "rig", "-q", "power", *words]
        return subprocess.run(
            argv, cwd=ipmi.directory, env=env, capture_output=True, text=True, check=False
        )

    assert rig("board1").stdout == "board1: off\n"
    assert rig("board1", "cycle").stdout.startswith("board1: on, after ")
    assert '"on": true' in rig("board1", "status", "--json").stdout
    wrong = rig("board2", "on")
    assert (wrong.returncode, "no board 'board2'" in wrong.stderr) == (2, True)
