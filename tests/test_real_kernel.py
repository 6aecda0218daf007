"""The default kernel for real: built once, found again, refused when a symbol is dropped."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from rig import kbuild, kconfig
from rig.config import Config
from rig.errors import BuildError
from rig.kbuild import Kernel
from rig.store import Store

pytestmark = pytest.mark.kernel

# A symbol is looked at before anything is compiled; the measured time is some 10 s.
_SECONDS_TO_REFUSE = 60.0


def test_every_symbol_came_out(built_kernel: Kernel) -> None:
    asked = json.loads(built_kernel.metadata.read_text())["config"]["asked"]
    got = kconfig.values(built_kernel.config.read_text())
    assert len(asked) > 50
    assert {name: got.get(name, "n") for name in asked} == asked


def test_nothing_of_this_host_is_in_it(built_kernel: Kernel, user_store: Store) -> None:
    shown = subprocess.run(
        ["readelf", "--debug-dump=line", "--debug-dump=str", built_kernel.vmlinux],
        capture_output=True,
        check=True,
    )
    assert b"/usr/src/linux" in shown.stdout
    for secret in (str(user_store.root), built_kernel.tree.parent.name):
        assert secret.encode() not in shown.stdout
        assert secret.encode() not in built_kernel.boot.read_bytes()


def test_the_same_again_does_not_run_make(
    built_kernel: Kernel, rig_config: Config, user_store: Store
) -> None:
    before = built_kernel.metadata.stat().st_mtime_ns
    again = kbuild.build(rig_config, rig_config.kernel(), user_store)
    assert again.cached
    assert again.metadata.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("CONFIG_NO_SUCH_SYMBOL=y", "got n: the tree has no such symbol"),
        ("CONFIG_XFS_FS=m", "got y: MODULES is not set"),
        ("CONFIG_USB_STORAGE=y", "unmet dependency: "),
        ("CONFIG_CRC32_SELFTEST=y\n# CONFIG_MMU is not set", "CONFIG_MMU: asked n"),
    ],
)
def test_a_dropped_symbol_is_refused_in_seconds(
    built_kernel: Kernel,
    rig_config: Config,
    user_store: Store,
    tmp_path: Path,
    line: str,
    words: str,
) -> None:
    fragment = tmp_path / "wish.config"
    fragment.write_text(f"{line}\n")
    started = time.monotonic()
    with pytest.raises(BuildError) as caught:
        kbuild.build(rig_config, rig_config.kernel(), user_store, extra_configs=[fragment])
    assert time.monotonic() - started < _SECONDS_TO_REFUSE
    assert words in caught.value.output
    assert "wish.config:" in caught.value.output
