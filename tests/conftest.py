"""What every test of the tool shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig import config, history, image, kbuild
from rig.image import Image
from rig.kbuild import Kernel
from rig.store import Store, open_store
from rig.terminal import TerminalProgress

pytest_plugins = ["skip_gate"]

ROOT = Path(__file__).parents[1]

# A shell that starts us in the background has us ignore SIGINT, and all that we start as well;
# some tests interrupt what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """What a night asks for."""
    words = "every row of the fault drill, not only those that belong to CI"
    parser.addoption("--whole-drill", action="store_true", help=words)


@pytest.fixture(scope="session", autouse=True)
def own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tests run is not to be remembered on this host."""
    before, path = os.environ.get(history.FILE), tmp_path_factory.mktemp("history") / "h.sqlite"
    os.environ[history.FILE] = str(path)
    yield path
    if before is None:
        del os.environ[history.FILE]
    else:
        os.environ[history.FILE] = before


@pytest.fixture(scope="session")
def rig_config() -> config.Config:
    """The project's own rig.toml."""
    return config.load(ROOT / config.FILE_NAME)


@pytest.fixture(scope="session")
def user_store() -> Store:
    """The store of whoever runs the tests: a real kernel is built once, not once a session."""
    return open_store()


@pytest.fixture(scope="session")
def built_kernel(rig_config: config.Config, user_store: Store) -> Kernel:
    """The default kernel, for real."""
    with TerminalProgress() as progress:
        return kbuild.build(rig_config, rig_config.kernel(), user_store, progress=progress)


@pytest.fixture(scope="session")
def built_image(rig_config: config.Config, user_store: Store) -> Image:
    """The default machine's image, for real."""
    recipe = ROOT / "images" / rig_config.machine().image
    with TerminalProgress() as progress:
        return image.build(recipe, user_store, progress=progress)
