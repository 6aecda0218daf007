"""The program that the series ships as its sample: compiled against its headers, run in a guest."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from rig import initramfs
from rig.config import Config
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine.qemu import QemuMachine

pytestmark = pytest.mark.kernel

# Two pipes that are opened, written to and closed one after the other, beside a file: whoever read
# them in the order of the command line would sleep for ever.
SCRIPT = """
cd /tmp && chmod +x merge-lines && mkfifo one two && echo of the file >three || exit 1
(echo first >two; sleep 1; exec 3>one; echo second >&3; sleep 1; echo third >&3) &
timeout 60 ./merge-lines one two three /not/there
"""


def test_the_sample_merges_lines_as_they_come(
    built_kernel: Kernel, built_image: Image, rig_config: Config, tmp_path: Path
) -> None:
    source = built_kernel.tree / "samples/async_submit/merge-lines.c"
    program = initramfs.compile_program(source, tmp_path, built_kernel.headers, rig_config.root)
    machine = QemuMachine(
        rig_config.emulated(), built_kernel, built_image, results=tmp_path / "results"
    )
    with contextlib.closing(machine):
        machine.boot()
        with machine.connect() as session:
            session.put(program, f"/tmp/{program.name}")
            done = session.run(["sh", "-c", SCRIPT], timeout_s=60 * machine.slowdown)
        said = done.stdout.decode().splitlines()
        assert sorted(said) == ["first", "of the file", "second", "third"]
        assert said.index("first") < said.index("second") < said.index("third")
        assert done.stderr.decode() == "/not/there: No such file or directory\n"
        assert done.exit_code == 0
        assert machine.console.splats(unfinished=True) == []
