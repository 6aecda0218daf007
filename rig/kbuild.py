"""A kernel out of a patched tree: configured as asked or refused, compiled, reproducible."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig import kconfig, process, series, source, upkeep
from rig.config import Config, KernelConfig
from rig.errors import BuildError, InfrastructureError, UsageError
from rig.progress import QUIET, Progress
from rig.series import Tree
from rig.store import Store, digest

_RECIPE = "2"  # raise when the way a kernel is built changes
_FRAGMENTS = "kernel-configs"
_COMPILE_TIMEOUT_S = 3 * 3600
# Where the tree seems to lie in debug information, whatever directory it was built in.
_VIRTUAL_TREE = "/usr/src/linux"
_STEP = re.compile(r"^  ([A-Z][A-Z0-9_+.]*)(?: \[M\])? +(\S+)")
_COMPILER_ERROR = re.compile(
    r"^(?P<file>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: (?P<why>.*)"
)
_WARNING = re.compile(r"^\S+:\d+(?::\d+)?: warning: .*")
_SRCARCH = {"x86_64": "x86", "arm64": "arm64", "riscv64": "riscv"}
_MAKE_ARCH = {"x86_64": "x86_64", "arm64": "arm64", "riscv64": "riscv"}
_BOOT_IMAGE = {
    "x86_64": "arch/x86/boot/bzImage",
    "arm64": "arch/arm64/boot/Image",
    "riscv64": "arch/riscv/boot/Image",
}


@dataclass(frozen=True)
class Kernel:
    """A built kernel in the store.

    release: what `uname -r` says. image: bzImage or Image. vmlinux: with DWARF. boot: what QEMU
    is given (x86_64: vmlinux without symbols, started through its PVH note). headers: holds
    include/. tree: the patched worktree. cached: nothing was made this time.
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
    tree: Path
    metadata: Path
    cached: bool
    facts: dict[str, str] = field(default_factory=dict)


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
    def key(self) -> str:
        settings = sorted((one.symbol, one.value) for one in self.asked.values())
        parts = (self.tree.tree, self.kernel.arch, self.kernel.base, json.dumps(settings))
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
    patches = series.read(config.root / kernel.series) if kernel.series else ()
    home = digest(str(config.root))[:8]
    tree = series.prepare(pristine, patches, _slot(home, kernel), store, progress)
    slot = f"{kernel.name}-{home}"
    ccache = store.scratch("ccache", "objects") if shutil.which("ccache") else None
    place = store.scratch("build", slot)
    plan = _Plan(kernel, tree, asked, _toolchain(kernel.arch), place, ccache)
    entry = store.entry("kernel", plan.key)
    cached = entry is not None
    if entry is None:
        with store.lock("build", slot), series.held(tree, store):
            entry = store.publish("kernel", plan.key, lambda made: _make(plan, made, progress))
        upkeep.keep_to_budget(store, progress)
    return _load(plan, entry, cached)


def _slot(home: str, kernel: KernelConfig) -> str:
    """One worktree for all flavours of one series on one source."""
    return digest(home, kernel.source, kernel.package, kernel.series)[:16]


def _notice_version(kernel: KernelConfig, release: str, progress: Progress) -> None:
    if kernel.series and kernel.accepted and kernel.accepted != release:
        accepted = f"{kernel.series} was last accepted on {kernel.accepted}"
        progress.note(f"notice: the source is {release}; {accepted}")


# --- configuration -----------------------------------------------------------------------------


def _asked(root: Path, kernel: KernelConfig, extra: Sequence[Path]) -> dict[str, kconfig.Asked]:
    fragments = []
    for path in (*(_fragment(root, name) for name in kernel.configs), *extra):
        try:
            fragments.append(kconfig.parse(path.read_text(encoding="utf-8"), path.name))
        except OSError as error:
            raise UsageError(f"config fragment {path}: {error.strerror}") from error
        except (kconfig.FragmentError, UnicodeDecodeError) as error:
            raise UsageError(f"config fragment {path}: {error}") from error
    return kconfig.merge(fragments)


def _fragment(root: Path, name: str) -> Path:
    """A fragment by its name under kernel-configs/, or by path."""
    if "/" in name or name.endswith(".config"):
        return root / Path(name).expanduser()
    path = root / _FRAGMENTS / f"{name}.config"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.config")))
        raise UsageError(f"no config fragment {name!r} in {path.parent}", hint=f"known: {known}")
    return path


def _configure(plan: _Plan, log: Path, progress: Progress) -> None:
    """.config as asked, every symbol verified."""
    progress.stage("configuring")
    target = plan.directory / ".config"
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


def _toolchain(arch: str) -> dict[str, str]:
    """First line of --version of everything whose version can change the kernel."""
    found = {}
    for tool in ("gcc", "ld", "as", "make"):
        done = process.run(
            [_cross(arch) + tool if tool != "make" else tool, "--version"], timeout_s=20
        )
        found[tool] = done.output.splitlines()[0]
    return found


def _cross(arch: str) -> str:
    native = {"x86_64": "x86_64", "aarch64": "arm64", "riscv64": "riscv64"}[os.uname().machine]
    prefixes = {"x86_64": "x86_64", "arm64": "aarch64", "riscv64": "riscv64"}
    return "" if arch == native else f"{prefixes[arch]}-linux-gnu-"


def _make_argv(plan: _Plan, targets: Sequence[str]) -> list[str]:
    cross = _cross(plan.kernel.arch)
    compiler = f"ccache {cross}gcc" if plan.ccache else f"{cross}gcc"
    maps = (f"{plan.tree.directory}/={_VIRTUAL_TREE}/", f"{plan.directory}={_VIRTUAL_TREE}/build")
    # Debug information only: __FILE__ is made relative to the tree by the kernel's own Makefile.
    flags = " ".join(f"-fdebug-prefix-map={one}" for one in maps)
    return [
        "make", "-C", str(plan.tree.directory), f"O={plan.directory}", f"-j{os.cpu_count()}",
        f"ARCH={_MAKE_ARCH[plan.kernel.arch]}", f"CROSS_COMPILE={cross}", f"CC={compiler}",
        # An empty LOCALVERSION keeps a "+" for "not at a tag" out of the release.
        "LOCALVERSION=", f"KCFLAGS={flags}", f"KAFLAGS={flags}", *targets,
    ]  # fmt: skip


def _make_env(plan: _Plan) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "CCACHE_DISABLE", "TMPDIR")
    }
    fixed = {
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


def _make_failed(plan: _Plan, targets: Sequence[str], output: str) -> BuildError:
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if match := _COMPILER_ERROR.match(line):
            where = _in_tree(plan, match["file"])
            return BuildError(
                f"{where}:{match['line']}: {match['why']}",
                hint=_blame(plan.tree, where, int(match["line"])),
                output="\n".join(lines[max(0, number - 3) : number + 12]),
                reproduce=_by_hand(plan, targets),
            )
    return BuildError(
        f"make {' '.join(targets)} failed",
        output="\n".join(lines[-40:]),
        reproduce=_by_hand(plan, targets),
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


def _make(plan: _Plan, entry: Path, progress: Progress) -> None:
    """Build into the entry directory: the store publishes it when this returns."""
    started = time.monotonic()
    plan.directory.mkdir(parents=True, exist_ok=True)
    log = entry / "build.log"
    _configure(plan, log, progress)
    configured = time.monotonic()
    meter = _Meter(progress)
    targets = [Path(_BOOT_IMAGE[plan.kernel.arch]).name, "vmlinux"]
    progress.stage("compiling", _expected_steps(plan))
    _make_target(plan, targets, log, meter.line)
    compiled = time.monotonic()
    _make_target(plan, ["headers_install", f"INSTALL_HDR_PATH={entry / 'usr'}"], log)
    _collect(plan, entry)
    (plan.directory / ".rig-steps").write_text(str(meter.done))
    seconds = {
        "configure_s": round(configured - started, 1),
        "compile_s": round(compiled - configured, 1),
        "total_s": round(time.monotonic() - started, 1),
    }
    _describe(plan, entry, targets, meter, seconds)


def _expected_steps(plan: _Plan) -> int:
    """Steps of the last full build here, else an estimate from the number of symbols set."""
    try:
        return max(1, int((plan.directory / ".rig-steps").read_text()))
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
    shutil.copy2(vmlinux, entry / "vmlinux")
    shutil.copy2(plan.directory / ".config", entry / "config")
    shutil.copy2(plan.directory / "System.map", entry / "System.map")
    strip = _cross(plan.kernel.arch) + "strip"
    process.run([strip, "-o", entry / "vmlinux.boot", vmlinux], timeout_s=120)
    release = (plan.directory / "include/config/kernel.release").read_text()
    (entry / "release").write_text(release)


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
            "path": kernel.series,
            "tree": tree.tree,
            "patches": [
                {"name": p.name, "subject": p.subject, "commit": p.commit} for p in tree.patches
            ],
        },
        "config": {
            "base": kernel.base,
            "fragments": list(kernel.configs),
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


def _load(plan: _Plan, entry: Path, cached: bool) -> Kernel:
    try:
        metadata = json.loads((entry / "metadata.json").read_bytes())
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"{entry}: damaged store entry: {error}", hint=f"remove it: rm -r {entry}"
        ) from error
    kernel, tree = plan.kernel, plan.tree
    facts = {
        "name": kernel.name,
        "release": metadata["release"],
        "arch": kernel.arch,
        "source": tree.source.origin,
        "series": kernel.series or "none",
        "tree": tree.tree,
        "config": metadata["sha256"]["config"],
        "compiler": plan.toolchain["gcc"],
        "key": plan.key,
        "warnings": str(len(metadata["warnings"])),
    }
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
        tree=tree.directory,
        metadata=entry / "metadata.json",
        cached=cached,
        facts=facts,
    )
