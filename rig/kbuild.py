"""A kernel out of a patched tree: configured as asked or refused, compiled, reproducible."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig import kconfig, process, series, source, upkeep
from rig.config import Config, KernelConfig
from rig.errors import BuildError, InfrastructureError, RigError, UsageError
from rig.progress import QUIET, Progress
from rig.series import Tree
from rig.store import WORK_MARK, Store, digest, file_identity

_RECIPE = "3"  # raise when the way a kernel is built changes
_FRAGMENTS = "kernel-configs"
_TOOLS = ("gcc", "ld", "as", "make")
# Make's variable -> the program, and the symbol that needs it. Kconfig writes the versions of what
# it finds into every .config, so the program is hidden from a kernel that does not ask for that.
_OPTIONAL = {
    "RUSTC": ("rustc", "RUST"),
    "BINDGEN": ("bindgen", "RUST"),
    "PAHOLE": ("pahole", "DEBUG_INFO_BTF"),
}
_SCRATCH = ".rig-tmp"
_MODULES, _DEBUG = "modules", "modules-debug"  # in an entry: as they are sent, and with DWARF
_COMPILE_TIMEOUT_S = 3 * 3600
# Where the tree seems to lie in debug information, whatever directory it was built in.
VIRTUAL_TREE = "/usr/src/linux"
_STEP = re.compile(r"^  ([A-Z][A-Z0-9_+.]*)(?: \[M\])? +(\S+)")
_NO_ROOM_MIB = 4
_COMPILER_ERROR = re.compile(
    r"^(?P<file>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: (?P<why>.*)"
)
# Make's own complaint, after "make[5]: *** ". The first is of the command that failed, the others
# are of the makes above it; "Waiting for unfinished jobs" only says that -j goes on.
_MAKE_ERROR = re.compile(r"^make(?:\[\d+\])?: \*\*\* (?P<why>(?!Waiting for)\S.*)")
_WARNING = re.compile(r"^\S+:\d+(?::\d+)?: warning: .*")
# What configuring reads or runs, as git pathspecs.
_CONFIG_INPUTS = (
    ":(glob)**/Kconfig*", "scripts", "Makefile", ":(glob)arch/*/Makefile",
    ":(glob)arch/*/configs/**", ":(glob)arch/*/tools/**", "kernel/configs",
)  # fmt: skip
# In a build tree: what .config was made of; that a make has begun and not ended.
_CONFIGURED, _UNFINISHED = ".rig-configured", ".rig-unfinished"
_SRCARCH = {"x86_64": "x86", "arm64": "arm64", "riscv64": "riscv"}
_MAKE_ARCH = {"x86_64": "x86_64", "arm64": "arm64", "riscv64": "riscv"}
_BOOT_IMAGE = {
    "x86_64": "arch/x86/boot/bzImage",
    "arm64": "arch/arm64/boot/Image",
    "riscv64": "arch/riscv/boot/Image",
}


class _NoListError(InfrastructureError):
    """Nothing finds a module without a list of what needs what, and make only warns of that."""


@dataclass(frozen=True)
class Kernel:
    """A built kernel in the store.

    release: what `uname -r` says. image: bzImage or Image. vmlinux: with DWARF. boot: what QEMU
    is given (x86_64: vmlinux without symbols, started through its PVH note). headers: holds
    include/. checkout: makes the patched worktree and says where it is. parts: git's hash over
    each top-level directory of the tree. cached: nothing was made this time. patch_of: the patch
    that a commit of the tree was made of, "" for the pristine source. modules: what belongs into
    /lib/modules/RELEASE, None for a kernel that has none; debug: the same with DWARF.
    """

    name: str
    key: str
    directory: Path
    arch: str
    release: str
    image: Path
    vmlinux: Path
    boot: Path
    config: Path
    headers: Path
    checkout: Callable[[], Path]
    metadata: Path
    cached: bool
    facts: dict[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    patch_of: Callable[[str], str] = lambda commit: ""
    modules: Path | None = None
    debug: Path | None = None

    @functools.cached_property
    def tree(self) -> Path:
        """The patched worktree, checked out when this is asked for the first time: a kernel from
        the store needs none."""
        return self.checkout()

    @functools.cached_property
    def headers_digest(self) -> str:
        """A hash over the headers, equal for kernels with the same interface."""
        files = sorted(path for path in self.headers.rglob("*") if path.is_file())
        return digest(*(part for p in files for part in (str(p.relative_to(self.headers)), p)))


@dataclass(frozen=True)
class _Plan:
    """What is to be built, decided before anything is made."""

    kernel: KernelConfig
    tree: Tree
    asked: dict[str, kconfig.Asked]
    toolchain: dict[str, str]
    directory: Path  # the build tree, beside which nothing else lives
    ccache: Path | None

    @property
    def settings(self) -> str:
        """What is asked of Kconfig, as text."""
        return json.dumps(sorted((one.symbol, one.value) for one in self.asked.values()))

    @property
    def key(self) -> str:
        make = [f"make {one}" for one in self.kernel.make]
        # Of tinyconfig nothing is loaded later, unless that is asked for.
        if self.kernel.base != "tinyconfig" or _is_asked(self.asked, "MODULES"):
            make.append(_MODULES)
        parts = (self.tree.tree, self.kernel.arch, self.kernel.base, self.settings, *make)
        return digest(*parts, json.dumps(self.toolchain, sort_keys=True), _RECIPE)[:32]


def build(
    config: Config,
    kernel: KernelConfig,
    store: Store,
    *,
    extra_configs: Sequence[Path] = (),
    progress: Progress = QUIET,
) -> Kernel:
    """The kernel [kernel.<name>] describes, out of the store when it was built before.

    extra_configs are fragments merged after the kernel's own (what suites need). BuildError
    (exit 4) when a patch does not apply, a symbol was dropped or it does not compile.
    """
    asked = _asked(config.root, kernel, extra_configs)
    pristine = source.fetch(kernel, config.root, store, progress)
    _notice_version(kernel, pristine.release, progress)
    patches = series.read_all(config.root, kernel.patches)
    tree = series.apply(pristine, patches, _tree_slot(config, kernel), store, progress)
    slot = _build_slot(tree, kernel)
    ccache = store.root / "ccache" / "objects" if shutil.which("ccache") else None
    tools = _toolchain(kernel.arch, store) | _optional_tools(asked)
    plan = _Plan(kernel, tree, asked, tools, store.root / "build" / slot, ccache)
    made: list[Path] = []

    def make(directory: Path) -> None:
        _compile(plan, directory, store, progress)
        made.append(directory)

    entry = store.publish("kernel", plan.key, make)
    if made:
        upkeep.keep_to_budget(store, progress)
    return _load(plan, entry, not made, store, progress)


def _tree_slot(config: Config, kernel: KernelConfig) -> str:
    """One worktree for all flavours of one series on one source, a checkout of the rig its own."""
    series_path = str(config.root / kernel.series) if kernel.series else ""
    return digest(str(config.root), kernel.source, kernel.package, series_path)[:16]


def _build_slot(tree: Tree, kernel: KernelConfig) -> str:
    """One build tree for a flavour on a worktree: two that take turns would compile everything
    each time. What its fragments say may change, and what suites ask for beside them: then the
    build goes on where one was, and compiles what sees another symbol."""
    parts = (tree.directory.parent.name, kernel.arch, kernel.base, *kernel.configs, *kernel.make)
    return f"{kernel.name}-{digest(*parts)[:12]}"


def _notice_version(kernel: KernelConfig, release: str, progress: Progress) -> None:
    if kernel.series and kernel.accepted and kernel.accepted != release:
        accepted = f"{kernel.series} was last accepted on {kernel.accepted}"
        progress.note(f"notice: the source is {release}; {accepted}")


# --- configuration -----------------------------------------------------------------------------


def _asked(root: Path, kernel: KernelConfig, extra: Sequence[Path]) -> dict[str, kconfig.Asked]:
    fragments = []
    for path in (*(fragment(root, name) for name in kernel.configs), *extra):
        try:
            fragments.append(kconfig.parse(path.read_text(encoding="utf-8"), path.name))
        except OSError as error:
            raise UsageError(f"config fragment {path}: {error.strerror}") from error
        except (kconfig.FragmentError, UnicodeDecodeError) as error:
            raise UsageError(f"config fragment {path}: {error}") from error
    return kconfig.merge(fragments)


def fragment(root: Path, name: str) -> Path:
    """A fragment by its name under kernel-configs/, or by path; UsageError when there is none."""
    if "/" in name or name.endswith(".config"):
        return root / Path(name).expanduser()
    path = root / _FRAGMENTS / f"{name}.config"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.config")))
        raise UsageError(f"no config fragment {name!r} in {path.parent}", hint=f"known: {known}")
    return path


def _configure(plan: _Plan, log: Path, progress: Progress) -> None:
    """.config as asked, every symbol verified; the one that is there where nothing changed."""
    target, record = plan.directory / ".config", plan.directory / _CONFIGURED
    wanted = _configuration_key(plan)
    if target.exists() and record.exists():
        if record.read_text() == f"{wanted} {digest(target)}":
            return
        record.unlink()
    progress.stage("configuring")
    _make_target(plan, [plan.kernel.base], log)
    with target.open("a") as file:
        file.write(kconfig.render(plan.asked.values()))
    _make_target(plan, ["olddefconfig"], log)
    got = kconfig.values(target.read_text())
    missing = kconfig.dropped(plan.asked.values(), got, _explainer(plan, got))
    if missing:
        raise BuildError(
            f"{len(missing)} config symbol(s) did not come out as asked",
            hint="mend the fragment: set what the symbol depends on, or drop it",
            output="\n".join(map(str, missing)),
        )
    record.write_text(f"{wanted} {digest(target)}")


def _configuration_key(plan: _Plan) -> str:
    """A hash over all that .config is made of, every Kconfig file of the tree among it."""
    repository = plan.tree.directory / ".git"
    # The index is that of the commit: the worktree was checked out just now.
    inputs = source.git("ls-files", "-s", "--", *_CONFIG_INPUTS, repository=repository).output
    toolchain = json.dumps(plan.toolchain, sort_keys=True)
    return digest(plan.settings, plan.kernel.arch, plan.kernel.base, toolchain, inputs)


def _explainer(plan: _Plan, got: Mapping[str, str]) -> Callable[[str, str], str]:
    symbols: dict[str, kconfig.Symbol] = {}

    def read(path: str) -> str | None:
        file = plan.tree.directory / path
        return file.read_text(errors="replace") if file.is_file() else None

    def explain(symbol: str, value: str) -> str:
        if not symbols:
            symbols.update(kconfig.read_symbols(read, _SRCARCH[plan.kernel.arch]))
        return kconfig.explain(symbol, value, symbols, got)

    return explain


# --- make --------------------------------------------------------------------------------------


def _toolchain(arch: str, store: Store) -> dict[str, str]:
    """First line of --version of everything whose version can change the kernel; asked again when
    another file answers."""
    names = {tool: tool if tool == "make" else _cross(arch) + tool for tool in _TOOLS}
    files = (shutil.which(name) or name for name in names.values())
    key = digest(*(file_identity(Path(file)) for file in files))[:32]
    known = store.recall("toolchain", key)
    if known is None:
        known = {tool: _first_line(name) for tool, name in names.items()}
        store.remember("toolchain", key, known)
    return dict(known)


def _optional_tools(asked: Mapping[str, kconfig.Asked]) -> dict[str, str]:
    """The same of what only some kernels need. Not kept: rustc is often a launcher that stays the
    same while what it launches changes."""
    wanted = {name for name, symbol in _OPTIONAL.values() if _is_asked(asked, symbol)}
    return {name: _first_line(name) for name in sorted(wanted) if shutil.which(name)}


def _is_asked(asked: Mapping[str, kconfig.Asked], symbol: str) -> bool:
    return symbol in asked and asked[symbol].value == "y"


def _first_line(tool: str) -> str:
    return process.run([tool, "--version"], timeout_s=20).output.splitlines()[0]


def _cross(arch: str) -> str:
    native = {"x86_64": "x86_64", "aarch64": "arm64", "riscv64": "riscv64"}[os.uname().machine]
    prefixes = {"x86_64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64"}
    return "" if arch == native else f"{prefixes[arch]}-linux-gnu-"


def _make_argv(plan: _Plan, targets: Sequence[str]) -> list[str]:
    cross = _cross(plan.kernel.arch)
    compiler = f"ccache {cross}gcc" if plan.ccache else f"{cross}gcc"
    maps = (f"{plan.tree.directory}/={VIRTUAL_TREE}/", f"{plan.directory}={VIRTUAL_TREE}/build")
    # Debug information only: __FILE__ is made relative to the tree by the kernel's own Makefile.
    flags = " ".join(f"-fdebug-prefix-map={one}" for one in maps)
    hidden = [
        f"{variable}=none"
        for variable, (_, symbol) in _OPTIONAL.items()
        if not _is_asked(plan.asked, symbol)
    ]
    return [
        "make", "-C", str(plan.tree.directory), f"O={plan.directory}", f"-j{os.cpu_count()}",
        f"ARCH={_MAKE_ARCH[plan.kernel.arch]}", f"CROSS_COMPILE={cross}", f"CC={compiler}",
        # An empty LOCALVERSION keeps a "+" for "not at a tag" out of the release.
        "LOCALVERSION=", f"KCFLAGS={flags}", f"KAFLAGS={flags}", *hidden, *plan.kernel.make,
        *targets,
    ]  # fmt: skip


def _make_env(plan: _Plan) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "CCACHE_DISABLE")}
    fixed = {
        # A compiler that is killed leaves its temporary files: here the next build removes them.
        "TMPDIR": str(plan.directory / _SCRATCH),
        "LC_ALL": "C",
        "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
        "KBUILD_BUILD_USER": "rig",
        "KBUILD_BUILD_HOST": "rig",
        "KBUILD_BUILD_VERSION": "1",
        "SOURCE_DATE_EPOCH": "0",
    }
    if plan.ccache:
        fixed |= {"CCACHE_DIR": str(plan.ccache), "CCACHE_NOHASHDIR": "1"}
        # No CCACHE_BASEDIR: it makes paths relative, past the prefix maps, and so into the kernel.
        fixed |= {"CCACHE_COMPILERCHECK": "content", "CCACHE_MAXSIZE": "4G"}
        fixed["CCACHE_SLOPPINESS"] = "time_macros"
    return kept | fixed


def _make_target(
    plan: _Plan, targets: Sequence[str], log: Path, on_line: Callable[[str], None] | None = None
) -> None:
    scratch = plan.directory / _SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    done = process.run(
        _make_argv(plan, targets),
        timeout_s=_COMPILE_TIMEOUT_S,
        env=_make_env(plan),
        log=log,
        on_line=on_line,
        check=False,
    )
    if done.returncode:
        raise _make_failed(plan, targets, done.output)


def _make_failed(plan: _Plan, targets: Sequence[str], output: str) -> RigError:
    # What is installed goes into an entry that is not there any more.
    into = plan.directory / "installed"
    targets = [re.sub(r"^(INSTALL_\w+_PATH=).*", rf"\g<1>{into}", word) for word in targets]
    lines = output.splitlines()
    if "No space left on device" in output:
        return _disk_is_full(plan, output)
    for number, line in enumerate(lines):
        if match := _COMPILER_ERROR.match(line):
            where = _in_tree(plan, match["file"])
            return BuildError(
                f"{where}:{match['line']}: {match['why']}",
                hint=_blame(plan.tree, where, int(match["line"])),
                output="\n".join(lines[max(0, number - 3) : number + 12]),
                reproduce=_by_hand(plan, targets),
            )
    if any(_free_mib(path) < _NO_ROOM_MIB for path in _written(plan)):
        return _disk_is_full(plan, output)
    number, why = next(
        ((at, match["why"]) for at, line in enumerate(lines) if (match := _MAKE_ERROR.match(line))),
        (len(lines), f"make {' '.join(targets)} failed"),
    )
    return BuildError(
        why,
        output="\n".join(lines[max(0, number - 30) : number + 10]),
        reproduce=_by_hand(plan, targets),
    )


def _written(plan: _Plan) -> list[Path]:
    """Where make and the compiler write to."""
    return [plan.directory, Path(tempfile.gettempdir())]


def _free_mib(path: Path) -> int:
    return shutil.disk_usage(path).free >> 20


def _disk_is_full(plan: _Plan, output: str) -> InfrastructureError:
    """What make and the compiler say of it differs by who meets it, down to "Error 1" alone."""
    least = min(_written(plan), key=_free_mib)
    return InfrastructureError(
        f"the disk is full: {_free_mib(least)} MiB are left where {least} is",
        hint="`rig store list` shows what rig keeps, `rig store gc` frees some of it",
        output="\n".join(output.splitlines()[-30:]),
    )


def _in_tree(plan: _Plan, file: str) -> str:
    """A compiler's file name relative to the tree."""
    path = Path(os.path.normpath(plan.directory / file))
    return (
        str(path.relative_to(plan.tree.directory))
        if path.is_relative_to(plan.tree.directory)
        else file
    )


def _blame(tree: Tree, file: str, line: int) -> str:
    words = ("blame", "--porcelain", "-L", f"{line},{line}", tree.commit, "--", file)
    done = source.git(*words, repository=tree.directory / ".git", check=False, timeout_s=120)
    patch = tree.patch_of(done.output.split(" ", 1)[0])
    if done.returncode:
        return f"{file} is not a file of the tree: look at what generates it"
    return f"line last touched by {patch}" if patch else "line unchanged from the pristine source"


def _by_hand(plan: _Plan, targets: Sequence[str]) -> str:
    kept = ("PATH", "HOME", "TMPDIR")
    env = [f"{k}={v}" for k, v in sorted(_make_env(plan).items()) if k not in kept]
    return shlex.join(["env", *env, *_make_argv(plan, targets)])


# --- the flow ----------------------------------------------------------------------------------


@dataclass
class _Meter:
    """Counts make's lines for the progress bar and keeps the warnings."""

    progress: Progress
    done: int = 0
    warnings: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        if match := _STEP.match(text):
            self.done += 1
            self.progress.step(match[2], self.done)
        elif _WARNING.match(text):
            self.warnings.append(text)


def _compile(plan: _Plan, entry: Path, store: Store, progress: Progress) -> None:
    """Make the kernel in its build tree, from its worktree; both are ours alone meanwhile."""
    slot, uses = plan.directory.name, (f"tree/{plan.tree.directory.parent.name}",)
    store.scratch("build", slot, uses=uses)
    if plan.ccache:
        store.scratch("ccache", plan.ccache.name)
    with (
        store.lock("build", slot),
        series.held(plan.tree, store, progress),
        _whole(plan.directory, progress),
    ):
        _make(plan, entry, progress)


@contextlib.contextmanager
def _whole(directory: Path, progress: Progress) -> Iterator[None]:
    """A build tree that no killed make has left: half an object file may be in such a one, newer
    than its source, and make would take it for whole. Then all is compiled again, out of ccache."""
    mark = directory / _UNFINISHED
    if mark.exists():
        progress.note("notice: the last build here was killed; its build tree is made anew")
        for path in directory.iterdir():
            if path.name not in (_UNFINISHED, WORK_MARK):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    mark.touch()
    try:
        yield
    except (BuildError, _NoListError):
        mark.unlink()  # make ended by itself, and has removed what it could not finish
        raise
    mark.unlink()


def _make(plan: _Plan, entry: Path, progress: Progress) -> None:
    """Build into the entry directory: the store publishes it when this returns."""
    started = time.monotonic()
    log = entry / "build.log"
    _configure(plan, log, progress)
    configured = time.monotonic()
    meter = _Meter(progress)
    targets = [Path(_BOOT_IMAGE[plan.kernel.arch]).name, "vmlinux"]
    symbols = kconfig.values((plan.directory / ".config").read_text())
    modular = symbols.get("MODULES") == "y"
    if modular:
        targets.append("modules")
        _check_depmod(plan)
    steps = plan.directory / ".rig-steps"
    # How many steps it takes to go on from an earlier build, nobody knows.
    from_nothing = not (plan.directory / "vmlinux").exists()
    progress.stage("compiling", _expected_steps(plan, steps) if from_nothing else None)
    # One call for all: make takes seconds to find out what is to be done.
    headers = ["headers_install", f"INSTALL_HDR_PATH={entry / 'usr'}"]
    _make_target(plan, [*targets, *headers], log, meter.line)
    compiled = time.monotonic()
    _collect(plan, entry)
    if modular:
        _install_modules(plan, entry, log)
    if from_nothing:
        steps.write_text(str(meter.done))
    seconds = {
        "configure_s": round(configured - started, 1),
        "compile_s": round(compiled - configured, 1),
        "total_s": round(time.monotonic() - started, 1),
    }
    _describe(plan, entry, targets, meter, seconds)


def _expected_steps(plan: _Plan, steps: Path) -> int:
    """Steps of the last full build here, else an estimate from the number of symbols set."""
    try:
        return max(1, int(steps.read_text()))
    except (OSError, ValueError):
        symbols = kconfig.values((plan.directory / ".config").read_text())
        # Measured: 1,977 steps for the default configuration, which sets 726 symbols to y.
        return int(2.7 * sum(value == "y" for value in symbols.values()))


def _collect(plan: _Plan, entry: Path) -> None:
    image = plan.directory / _BOOT_IMAGE[plan.kernel.arch]
    vmlinux = plan.directory / "vmlinux"
    for path in (image, vmlinux):
        if not path.is_file():
            raise BuildError(f"make said it succeeded, but {path} is not there")
    shutil.copy2(image, entry / image.name)
    # The linker never writes into a file that is there, it makes a new one: a second name will do.
    (entry / "vmlinux").hardlink_to(vmlinux)
    shutil.copy2(plan.directory / ".config", entry / "config")
    shutil.copy2(plan.directory / "System.map", entry / "System.map")
    strip = _cross(plan.kernel.arch) + "strip"
    process.run([strip, "-o", entry / "vmlinux.boot", vmlinux], timeout_s=120)
    release = (plan.directory / "include/config/kernel.release").read_text()
    (entry / "release").write_text(release)


def _check_depmod(plan: _Plan) -> None:
    places = f"{_make_env(plan).get('PATH', os.defpath)}:/sbin:/usr/sbin"  # as scripts/depmod.sh
    named = [one.partition("=")[2] for one in plan.kernel.make if one.startswith("DEPMOD=")]
    program = named[-1] if named else "depmod"
    if not shutil.which(program, path=places):
        raise _NoListError(
            f"kernel {plan.kernel.name} has modules, and there is no {program} to list them",
            hint="install kmod (`rig doctor` says how)",
        )


def _install_modules(plan: _Plan, entry: Path, log: Path) -> None:
    """Twice: as a machine gets them, and with what tells the lines of their traces."""
    release = (entry / "release").read_text().strip()
    for name, strip in ((_MODULES, ["INSTALL_MOD_STRIP=1"]), (_DEBUG, [])):
        place = entry / f"{name}.part"
        _make_target(plan, ["modules_install", f"INSTALL_MOD_PATH={place}", *strip], log)
        made = place / "lib/modules" / release
        if not (made / "modules.dep").is_file():
            raise _NoListError(
                f"make modules_install has made no list of what needs what (modules.dep) in {made}",
                hint="depmod of kmod makes it: what it has said is in the build's log",
            )
        for link in ("build", "source"):  # into directories of this host
            (made / link).unlink(missing_ok=True)
        made.rename(entry / name)
        shutil.rmtree(place)


def _describe(
    plan: _Plan, entry: Path, targets: list[str], meter: _Meter, seconds: dict[str, float]
) -> None:
    tree, kernel = plan.tree, plan.kernel
    files = {name: digest(entry / name) for name in ("vmlinux", "config", "vmlinux.boot")}
    value = {
        "recipe": _RECIPE,
        "key": plan.key,
        "release": (entry / "release").read_text().strip(),
        "source": {
            "origin": tree.source.origin,
            "version": tree.source.version,
            "release": tree.source.release,
            "sha256": tree.source.sha256,
            "tree": tree.source.tree,
        },
        "series": {
            "path": " + ".join(kernel.patches),
            "tree": tree.tree,
            "patches": [
                {"name": p.name, "subject": p.subject, "commit": p.commit} for p in tree.patches
            ],
        },
        "config": {
            "base": kernel.base,
            "fragments": list(kernel.configs),
            "make": list(kernel.make),
            "asked": {one.symbol: one.value for one in plan.asked.values()},
        },
        "toolchain": plan.toolchain,
        "ccache": bool(plan.ccache),
        "sha256": files,
        "warnings": meter.warnings,
        "steps": meter.done,
        "timings": seconds,
        "by_hand": _recipe_by_hand(plan, targets),
    }
    (entry / "metadata.json").write_text(json.dumps(value, indent=1) + "\n")


def _recipe_by_hand(plan: _Plan, targets: list[str]) -> list[str]:
    """The exact commands that make this kernel without the rig."""
    tree = plan.tree
    settings = kconfig.render(plan.asked.values())
    return [
        f"git -C {shlex.quote(str(tree.directory))} checkout --detach {tree.commit}",
        _by_hand(plan, [plan.kernel.base]),
        f"printf %s {shlex.quote(settings)} >> {shlex.quote(str(plan.directory / '.config'))}",
        _by_hand(plan, ["olddefconfig"]),
        _by_hand(plan, targets),
    ]


def _load(plan: _Plan, entry: Path, cached: bool, store: Store, progress: Progress) -> Kernel:
    try:
        metadata = json.loads((entry / "metadata.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"{entry}: damaged store entry: {error}", hint=f"remove it: rm -r {entry}"
        ) from error
    kernel, tree = plan.kernel, plan.tree

    def checkout() -> Path:
        series.check_out(tree, store, progress)
        return tree.directory

    facts = {
        "name": kernel.name,
        "release": metadata["release"],
        "arch": kernel.arch,
        "source": tree.source.origin,
        "series": " + ".join(kernel.patches) or "none",
        "tree": tree.tree,
        "config": metadata["sha256"]["config"],
        "compiler": plan.toolchain["gcc"],
        "key": plan.key,
        "warnings": str(len(metadata["warnings"])),
    }
    modules, debug = entry / _MODULES, entry / _DEBUG
    if modular := modules.is_dir():
        facts["modules"] = str(sum(1 for _ in modules.rglob("*.ko*")))
    return Kernel(
        name=kernel.name,
        key=plan.key,
        directory=entry,
        arch=kernel.arch,
        release=metadata["release"],
        image=entry / Path(_BOOT_IMAGE[kernel.arch]).name,
        vmlinux=entry / "vmlinux",
        boot=entry / ("vmlinux.boot" if kernel.arch == "x86_64" else "Image"),
        config=entry / "config",
        headers=entry / "usr",
        checkout=checkout,
        metadata=entry / "metadata.json",
        cached=cached,
        facts=facts,
        parts=tree.parts,
        patch_of=tree.patch_of,
        modules=modules if modular else None,
        debug=debug if modular else None,
    )
