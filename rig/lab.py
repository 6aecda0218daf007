"""The real thing behind a run: a kernel of rig.toml, its image, compiled suites, QEMU machines."""

from __future__ import annotations

import contextlib
import functools
import re
import shlex
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rig import decode, image, kbuild, kconfig, manifest, process, ramroot, splat, suite
from rig.config import BoardConfig, Config, KernelConfig, MachineConfig
from rig.errors import BootError, HangError, InfrastructureError, UsageError
from rig.guest import Guest, Modules
from rig.image import Image
from rig.kbuild import Kernel
from rig.machine import claim, deploy, knowngood, labgrid, snapshot
from rig.machine.baremetal import BaremetalMachine, Board
from rig.machine.qemu import QemuMachine
from rig.machine.snapshot import Snapshot
from rig.progress import QUIET, Progress
from rig.ramroot import RamRoot
from rig.record import FIRST, Record
from rig.results import BOOT_FAILED, Run, Splat
from rig.shelf import Shelf
from rig.store import Store, open_store
from rig.suite import BuiltSuite, Suite

_SNAPSHOT = "snapshot"  # the kind, in the store
_EXPLAINING_S = 300.0  # of a run, for decoding traces: one of a new title takes up to 30 s


class _NoSnapshotError(Exception):
    """The state of this machine is none to begin from; says why."""


class KernelLab:
    """The real Lab: a kernel of rig.toml, its image, and QEMU machines."""

    def __init__(
        self,
        config: Config,
        kernel: KernelConfig,
        machine: MachineConfig | BoardConfig,
        store: Store,
        progress: Progress = QUIET,
        *,
        cold: bool = False,
    ) -> None:
        """cold: machines begin from power-on; else from a snapshot of the ready machine, which the
        first boot of this kernel, image and machine saves."""
        self._config, self._kernel_config, self._machine_config = config, kernel, machine
        self._store, self._progress = store, progress
        self._kernel: Kernel | None = None
        self._image: Image | None = None
        self._machine: QemuMachine | BaremetalMachine | None = None
        self._cold = cold
        self._snapshot: Snapshot | None = None
        self._snapshots = threading.Lock()
        self._notices: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._shelf: Shelf | None = None
        self._live = weakref.WeakSet[QemuMachine]()
        self._titles, self._explaining = set[str](), threading.Lock()
        self._lines: dict[str, str] = {}  # of functions in traces
        self._explained_s = 0.0
        self._boot_failed = ""
        self._cut = False

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

        The kernel as rig.toml has it, and as its machine needs it, is taken where it already has
        what the fragments ask for, so that most suites need no kernel of their own.
        """
        hardware = self._hardware()
        self._kernel = self._build(hardware)
        if not all(_satisfied(path, self._kernel) for path in fragments):
            self._kernel = self._build((*hardware, *fragments))
        return self._kernel

    def _hardware(self) -> tuple[Path, ...]:
        """Fragments that the machine needs in its kernel."""
        return ()

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
        process.prepare()
        self.build([*fragments, *(found.config for found in suites if found.config)])
        recipe = self._config.root / "images" / self._machine_config.image
        arch = self._machine_config.arch
        self._image = image.build(recipe, self._store, arch=arch, progress=self._progress)
        built = [suite.compile(one, self.kernel, self._store, self._progress) for one in suites]
        self._shelf = Shelf(built) if built else None
        return built

    def machine(
        self,
        directory: Path,
        *,
        number: int = 0,
        append: str = "",
        gdb: bool = False,
        cold: bool = False,
    ) -> QemuMachine | BaremetalMachine:
        """A machine that is not booted yet; its console and logs go to directory.

        It will be restored from a snapshot, unless cold or a debugger or more words for the kernel
        are asked for. The first one is made now: raises BootError.
        """
        return self._emulated(directory, number=number, append=append, gdb=gdb, cold=cold)

    def _emulated(
        self,
        directory: Path,
        *,
        number: int = 0,
        append: str = "",
        gdb: bool = False,
        cold: bool = False,
    ) -> QemuMachine:
        make = self._maker(directory, number)
        shelf = self._shelf.descriptor if self._shelf else None
        if cold or self._cold or append or gdb:
            machine = make(append=append, gdb=gdb, shelf=shelf)
        else:
            machine = make(snapshot=self._ready(make), shelf=shelf)
        self._machine = machine
        return machine

    def _maker(self, directory: Path, number: int) -> Callable[..., QemuMachine]:
        assert isinstance(self._machine_config, MachineConfig)
        made = functools.partial(
            QemuMachine,
            self._machine_config,
            self.kernel,
            self.image,
            results=directory,
            number=number,
            accel_cache=self._store.root / "kvm.json",
        )

        def make(**wishes: Any) -> QemuMachine:
            machine = made(**wishes)
            with self._lock:
                self._live.add(machine)
                if self._cut:
                    machine.cut()
            return machine

        return make

    def _ready(self, make: Callable[..., QemuMachine]) -> Snapshot | None:
        """The snapshot of this kernel, image and machine; None where there can be none."""
        with self._snapshots:
            if self._snapshot is None and not self._cold:
                self._snapshot = self._saved(make)
            return self._snapshot

    def _saved(self, make: Callable[..., QemuMachine]) -> Snapshot | None:
        """Out of the store, or saved now; not when its console shows a splat, since every verdict
        has to see that one anew, nor when the kernel has no port to be renewed over.
        """
        key = snapshot.key(make().plan, self.kernel.key, self.image.key)
        try:
            place = self._store.publish(
                _SNAPSHOT,
                key,
                lambda directory: self._save(make, directory),
                uses=[f"kernel/{self.kernel.key}", f"image/{self.image.key}"],
            )
        except _NoSnapshotError as error:
            self._cold = True
            self._say((f"booted from power-on: no snapshot is kept, {error}",))
            return None
        return snapshot.load(key, place, lambda: self._discard(key))

    def _save(self, make: Callable[..., QemuMachine], directory: Path) -> None:
        self._progress.stage(f"first boot of {self.kernel.name}, to be saved")
        with contextlib.closing(make(saving=directory)) as machine:
            self._machine = machine
            machine.boot()
            if splats := machine.console.splats(unfinished=True):
                raise _NoSnapshotError(f"its boot shows a splat: {splats[0].title}")
            if machine.lineless:
                raise _NoSnapshotError("its kernel has no virtio port")
            machine.save()

    def _discard(self, key: str) -> None:
        """Forget a snapshot that could not be restored; the next one is saved anew."""
        with self._snapshots:
            self._snapshot = None
            self._store.discard(_SNAPSHOT, key)

    def boot(self, number: int, record: Record) -> Guest:
        """Boot and log in; BootError when the kernel does not get that far."""
        self._progress.stage(f"boot {self.kernel.name} {self.kernel.release} ({number + 1})")
        try:
            machine = self._emulated(record.directory, number=number)
        except BootError as error:
            for recorded in sorted(record.directory.glob(f"console-{number}.*log")):
                record.console(recorded)
            self.check_store(error)
            raise
        try:
            machine.boot()
            session = machine.connect()
        except BaseException as error:
            machine.close()
            if isinstance(error, BootError):
                self.check_store(error)
            raise
        finally:
            for recorded in machine.consoles:
                record.console(recorded)
            self._say(machine.notices)
        return Guest(machine, session, self._shelf, self.modules)

    @property
    def modules(self) -> Modules | None:
        """What a machine that runs this kernel has to be given; None where it has none."""
        if self.kernel.modules is None:
            return None
        return Modules(self.kernel.modules, f"/lib/modules/{self.kernel.release}")

    def check_store(self, after: BootError) -> None:
        """InfrastructureError where the image or the kernel is not what it was when it was made: no
        boot of those says anything of a kernel.
        """
        if self._cut:  # which has ended the boot
            return
        self._progress.stage("is what was booted still what was made?")
        for kind, place in (("image", self.image.disk.parent), ("kernel", self.kernel.directory)):
            known = manifest.read(place)
            reasons = manifest.examine(place, known) if known else []
            if reasons:
                raise InfrastructureError(
                    f"{kind} {place.name[:12]} in the store is damaged: {'; '.join(reasons)}",
                    hint="`rig store verify --repair` removes it, and the next run makes it again",
                    output=after.output,
                    reproduce="rig store verify",
                ) from after

    def explain(self, splats: Sequence[Splat]) -> tuple[Splat, ...]:
        """As Lab.explain: the first of each title, until that has taken its time."""
        return tuple(self._explained(one) for one in splats)

    def _explained(self, one: Splat) -> Splat:
        with self._explaining:
            if not self._kernel or one.title in self._titles:
                return one
            self._titles.add(one.title)
            if self._explained_s > _EXPLAINING_S:
                self._say((f"not decoded, after {_EXPLAINING_S:.0f} s of it: {one.title}",))
                return one
            self._progress.stage(f"decoding: {one.title}")
            began = time.monotonic()
            try:
                return decode.decode(one, self._kernel, self._lines)
            except InfrastructureError as error:
                self._say((f"a trace could not be decoded: {error.message}",))
                return one
            finally:
                self._explained_s += time.monotonic() - began

    def last_words(self, error: BootError, number: int, record: Record) -> None:
        """Put on record what there is of a boot that failed: the facts, why, and what the kernel
        reported; not what it was made to say.
        """
        heard = error.heard if isinstance(error, HangError) else None
        found: list[Splat] = []
        for name in (f"console-{number}.log", f"early-console-{number}.log"):
            path = record.directory / name
            found += splat.scan(path.read_bytes()[:heard]) if path.exists() else []
        with self._lock:
            self._boot_failed = error.message
        record.update(self.describe)
        record.add((), self.explain(found), FIRST)

    def _say(self, notices: Sequence[str]) -> None:
        """Keep what every verdict must say; of all machines, since several may be there."""
        with self._lock:
            self._notices = (*self._notices, *notices)

    def cut(self) -> None:
        """Pull the plug of every machine that was made, and of those that will be."""
        with self._lock:
            self._cut = True
            for machine in self._live:
                machine.cut()

    def close(self) -> None:
        """Give back what is held for as long as the lab is used; idempotent."""

    def describe(self, run: Run) -> Run:
        """Facts of what is known so far."""
        if self._kernel:
            run = replace(run, kernel=dict(self._kernel.facts))
        if self._image:
            run = replace(run, image=dict(self._image.facts))
        if self._machine:
            with self._lock:
                notices = tuple(dict.fromkeys((*run.notices, *self._notices)))
            run = replace(run, machine=dict(self._machine.facts), notices=notices)
        if self._boot_failed:
            run = replace(run, machine={**run.machine, BOOT_FAILED: self._boot_failed})
        return run


class BoardLab(KernelLab):
    """The Lab of a board: one machine at a time, and nobody else's meanwhile."""

    def __init__(
        self,
        config: Config,
        kernel: KernelConfig,
        board: BoardConfig,
        store: Store,
        progress: Progress = QUIET,
    ) -> None:
        deploy.check(board, config.root)
        knowngood.check_key(board, config.root)
        super().__init__(config, kernel, board, store, progress, cold=True)
        self._board_config = board
        self._board: Board | None = None
        self._root: RamRoot | None = None
        self._held = contextlib.ExitStack()

    def _hardware(self) -> tuple[Path, ...]:
        # What systemd-boot begins is a program of the firmware's.
        by_firmware = ("efi",) if self._board_config.deploy == "systemd-boot" else ()
        names = ("board", *by_firmware, *self._board_config.configs)
        return tuple(kbuild.fragment(self._config.root, name) for name in names)

    def prepare(
        self, suites: Sequence[Suite], fragments: Sequence[Path] = ()
    ) -> Sequence[BuiltSuite]:
        """As of any lab; suites are copied over the session, for a board has no second disk."""
        built = super().prepare(suites, fragments)
        self._shelf = None
        self._root = ramroot.build(self.image, self._config.root, self._store, self._progress)
        return built

    def machine(
        self,
        directory: Path,
        *,
        number: int = 0,
        append: str = "",
        gdb: bool = False,
        cold: bool = False,
    ) -> BaremetalMachine:
        """The board with this kernel, not booted yet. Waits until nobody else has it."""
        if gdb:
            raise UsageError(f"{self._board_config.name} is a board: no debugger can wait there")
        assert self._root is not None
        self._machine = machine = BaremetalMachine(
            self._ours(directory),
            self.kernel,
            self.image,
            self._root,
            results=directory,
            number=number,
            append=append,
        )
        return machine

    def _ours(self, directory: Path, keep: Callable[[Path], object] = lambda _path: None) -> Board:
        """The board, held from now until close(). keep: told of recordings of its system."""
        if self._board is None:
            config, tell = self._board_config, self._progress.note
            what = shlex.join(["rig", *sys.argv[1:]])
            hold = self._held.enter_context(claim.claimed(config, what, tell))
            hold.tidy = hold.left is None  # whoever left it is told of until it is back
            config = labgrid.with_system(config)
            if hold.left:
                words = f"{config.name} was left as it was by a run that did not come to its end"
                tell(f"{words}: {hold.left.words}")
                self._say((f"{words}: {hold.left.words}",))
            board = Board(
                config,
                self._config.root,
                directory,
                tell,
                lambda words: self._say((words,)),
                keep,
                hold.held,
                away=hold.left is not None,  # until it is seen in its own system
            )
            self._board, hold.tidy = board, False

            def over() -> None:
                board.close()
                hold.tidy = not board.away

            self._held.callback(over)
        return self._board

    def boot(self, number: int, record: Record) -> Guest:
        """As of any lab; what goes wrong on the way leaves the board in its own system."""
        self._progress.stage(f"boot {self.kernel.name} {self.kernel.release} ({number + 1})")
        self._ours(record.directory, record.console)
        machine = self.machine(record.directory, number=number)
        try:
            machine.boot()
            session = machine.connect()
        except BaseException as error:
            self._bring_back(machine, error)
            raise
        finally:
            for recorded in machine.consoles:
                record.console(recorded)
            self._say(machine.notices)
        return Guest(machine, session, modules=self.modules)

    def _bring_back(self, machine: BaremetalMachine, after: BaseException) -> None:
        try:
            machine.close()
        except InfrastructureError as lost:
            lost.message += f" (after: {after})"
            raise lost from after

    def cut(self) -> None:
        """The machine there is is gone for who uses it, and none is booted any more."""
        with self._lock:
            self._cut = True
            if isinstance(self._machine, BaremetalMachine):
                self._machine.cut()

    def close(self) -> None:
        """Give the board back; the next boot claims it anew."""
        self._held.close()
        self._board = None


def open_lab(
    config: Config,
    kernel: KernelConfig,
    machine: str | None,
    progress: Progress = QUIET,
    *,
    cold: bool = False,
) -> KernelLab:
    """The lab of a kernel and a [machine.NAME] (None: the default one), on the user's store."""
    return lab_of(config, kernel, config.machine(machine), open_store(), progress, cold=cold)


def lab_of(
    config: Config,
    kernel: KernelConfig,
    machine: MachineConfig | BoardConfig,
    store: Store,
    progress: Progress = QUIET,
    *,
    cold: bool = False,
) -> KernelLab:
    """The lab of a kernel and a machine, of whatever kind that is."""
    if isinstance(machine, BoardConfig):
        return BoardLab(config, kernel, machine, store, progress)
    return KernelLab(config, kernel, machine, store, progress, cold=cold)


def _satisfied(fragment: Path, kernel: Kernel) -> bool:
    """Whether a built kernel has every value a fragment asks for, y or m for m."""
    got = kconfig.values(kernel.config.read_text(encoding="utf-8"))
    try:
        asked = kconfig.parse(fragment.read_text(encoding="utf-8"), fragment.name)
    except (OSError, UnicodeDecodeError, kconfig.FragmentError):
        return False  # kbuild says what is wrong with it
    return all(
        got.get(one.symbol, "n") in (("y", "m") if one.value == "m" else (one.value,))
        for one in asked
    )


def _built_in(fragment: Path, directory: Path) -> Path:
    """The fragment, or a copy of it with =y for =m: the tree's own selftests ask for modules, which
    most kernels have not, and what a machine needs has to be there before one can be sent.

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
