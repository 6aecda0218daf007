"""A lab without hardware: labgrid's coordinator, one place, and an exporter of its resources."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from emulated_bmc import free_port, running, wait_for_port

PLACE = "b1"
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
READY_S = 60.0


def program(name: str) -> str:
    """One of labgrid's."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise RuntimeError(f"{name} is not installed")
    return found


def client(coordinator: str, *words: str, user: str = "", host: str = "") -> str:
    """What labgrid's client says. user, host: whose, else ours."""
    env = {**os.environ, **({"LG_USERNAME": user} if user else {})}
    env |= {"LG_HOSTNAME": host} if host else {}
    argv = [program("labgrid-client"), "-x", coordinator, *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@contextlib.contextmanager
def outlet(switch: Callable[[bool], object], is_on: Callable[[], bool]) -> Iterator[str]:
    """The address of an outlet that labgrid's simplerest can switch."""

    class Outlet(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.count("/") == 3:
                switch(self.path.endswith("1"))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"1" if is_on() else b"0")

        def log_message(self, format: str, *args: object) -> None:
            pass

    web = http.server.HTTPServer(("127.0.0.1", 0), Outlet)
    serves = threading.Thread(target=web.serve_forever, daemon=True)
    serves.start()
    try:
        yield f"http://127.0.0.1:{web.server_address[1]}/outlet/{{index}}/{{value}}"
    finally:
        web.shutdown()
        web.server_close()
        serves.join()


@contextlib.contextmanager
def standing(directory: Path, resources: str) -> Iterator[str]:
    """The coordinator's address, once its place has what is in the group "board" of an exporter's
    resources (YAML); ended with the test.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    exported = directory / "exporter.yaml"
    exported.write_text(resources)
    with contextlib.ExitStack() as stack:
        log = directory / "coordinator.log"
        words = [program("labgrid-coordinator"), "-l", coordinator]
        # Both keep what they know where they stand.
        started = stack.enter_context(running(words, log))
        wait_for_port(int(coordinator.rpartition(":")[2]), started, log)
        words = [program("labgrid-exporter"), "-c", coordinator, "-n", "e"]
        words += ["--hostname", "127.0.0.1", str(exported)]
        stack.enter_context(running(words, directory / "exporter.log"))
        client(coordinator, "-p", PLACE, "create")
        client(coordinator, "-p", PLACE, "add-match", "*/board/*")
        deadline = time.monotonic() + READY_S
        while "NetworkPowerPort" not in client(coordinator, "resources"):
            if time.monotonic() > deadline:
                raise RuntimeError((directory / "exporter.log").read_text())
            time.sleep(0.2)
        yield coordinator
