"""The real thing behind a run: a kernel of rig.toml, its image, compiled suites, QEMU machines."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rig import image, kbuild, kconfig, suite
from rig.config import Config, KernelConfig, MachineConfig
from rig.guest import Guest
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine.qemu import QemuMachine
from rig.progress import QUIET, Progress
from rig.record import Record
from rig.results import Run
from rig.store import Store, open_store
from rig.suite import BuiltSuite, Suite


class KernelLab:
    """The real Lab: a kernel of rig.toml, its image, and QEMU machines."""

    def __init__(
        self,
        config: Config,
        kernel: KernelConfig,
        machine: MachineConfig,
        store: Store,
        progress: Progress = QUIET,
    ) -> None:
        self._config, self._kernel_config, self._machine_config = config, kernel, machine
        self._store, self._progress = store, progress
        self._kernel: Kernel | None = None
        self._image: Image | None = None
        self._machine: QemuMachine | None = None

    @property
    def kernel(self) -> Kernel:
        """The built kernel; prepare() or build() comes first."""
        assert self._kernel is not None
        return self._kernel

    @property
    def image(self) -> Image:
        """The image; prepare() comes first."""
        assert self._image is not None
        return self._image

    def build(self, fragments: Sequence[Path] = ()) -> Kernel:
        """The kernel, every symbol of the fragments verified in it.

        The kernel as rig.toml has it is taken where it already has what the fragments ask for,
        so that most suites need no kernel of their own.
        """
        self._kernel = self._build(())
        if not all(_satisfied(path, self._kernel) for path in fragments):
            self._kernel = self._build(fragments)
        return self._kernel

    def _build(self, fragments: Sequence[Path]) -> Kernel:
        with tempfile.TemporaryDirectory(prefix="rig-fragments-") as directory:
            return kbuild.build(
                self._config,
                self._kernel_config,
                self._store,
                extra_configs=[
                    _built_in(path, Path(directory, str(number)))
                    for number, path in enumerate(fragments)
                ],
                progress=self._progress,
            )

    def prepare(
        self, suites: Sequence[Suite], fragments: Sequence[Path] = ()
    ) -> Sequence[BuiltSuite]:
        """Kernel with the fragments and what the suites' `config` files ask for, image, suites."""
        self.build([*fragments, *(found.config for found in suites if found.config)])
        recipe = self._config.root / "images" / self._machine_config.image
        arch = self._machine_config.arch
        self._image = image.build(recipe, self._store, arch=arch, progress=self._progress)
        return [suite.compile(one, self.kernel, self._store, self._progress) for one in suites]

    def machine(
        self, directory: Path, *, number: int = 0, append: str = "", gdb: bool = False
    ) -> QemuMachine:
        """A machine that is not booted yet; its console and logs go to directory."""
        self._machine = QemuMachine(
            self._machine_config,
            self.kernel,
            self.image,
            results=directory,
            append=append,
            gdb=gdb,
            number=number,
            accel_cache=self._store.root / "kvm.json",
        )
        return self._machine

    def boot(self, number: int, record: Record) -> Guest:
        """Boot and log in; BootError when the kernel does not get that far."""
        machine = self.machine(record.directory, number=number)
        self._progress.stage(f"boot {self.kernel.name} {self.kernel.release} ({number + 1})")
        try:
            machine.boot()
            session = machine.connect()
        except BaseException:
            machine.close()
            raise
        finally:
            for recorded in machine.consoles:
                record.console(recorded)
        return Guest(machine, session)

    def describe(self, run: Run) -> Run:
        """Facts of what is known so far."""
        if self._kernel:
            run = replace(run, kernel=dict(self._kernel.facts))
        if self._image:
            run = replace(run, image=dict(self._image.facts))
        if self._machine:
            notices = tuple(dict.fromkeys((*run.notices, *self._machine.notices)))
            run = replace(run, machine=dict(self._machine.facts), notices=notices)
        return run


def open_lab(
    config: Config, kernel: KernelConfig, machine: str | None, progress: Progress = QUIET
) -> KernelLab:
    """The lab of a kernel and a [machine.NAME] (None: the default one), on the user's store."""
    return KernelLab(config, kernel, config.machine(machine), open_store(), progress)


def _satisfied(fragment: Path, kernel: Kernel) -> bool:
    """Whether a built kernel has every value a fragment asks for, or y for m."""
    got = kconfig.values(kernel.config.read_text(encoding="utf-8"))
    try:
        asked = kconfig.parse(fragment.read_text(encoding="utf-8"), fragment.name)
    except (OSError, UnicodeDecodeError, kconfig.FragmentError):
        return False  # kbuild says what is wrong with it
    return all(
        got.get(one.symbol, "n") == ("y" if one.value == "m" else one.value) for one in asked
    )


def _built_in(fragment: Path, directory: Path) -> Path:
    """The fragment, or a copy of it with =y for =m: these kernels have no modules, and the
    tree's own selftests ask for some.

    directory is this fragment's alone, for two suites may be of one name.
    """
    text = fragment.read_text(encoding="utf-8", errors="replace")
    changed = re.sub(r"^(CONFIG_\w+)=m$", r"\1=y", text, flags=re.MULTILINE)
    if changed == text:
        return fragment
    directory.mkdir()
    copy = directory / f"{fragment.parent.name}-{fragment.name}"
    copy.write_text(changed, encoding="utf-8")
    return copy
