"""What each model of asynchronous calls needed in the kernel: files of its own, lines elsewhere.

Run as `python ci/code_paths.py [KERNEL] [--json]`, a kernel with the series. A model's own files
are those that would not be there without it. Lines elsewhere are those that name something of it:
what somebody had to write into a file system, a driver or the core so that the model works there.
Of our series they are the lines it adds to files that were there before. Blank lines and comments
are not counted, and neither are documentation, tests and tools.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, str(ROOT))

from rig import config as configuration  # noqa: E402
from rig import kbuild  # noqa: E402
from rig.errors import InfrastructureError, RigError  # noqa: E402
from rig.store import open_store  # noqa: E402

CODE = (".c", ".h", ".S", ".tbl")
NOT_KERNEL = ("Documentation/", "tools/", "samples/", "scripts/", "LICENSES/")
TIMEOUT_S = 300


@dataclass(frozen=True)
class Model:
    """own: paths of its files, as git knows patterns. names: what a line elsewhere mentions."""

    name: str
    own: tuple[str, ...]
    names: str


MODELS = (
    Model(
        "Linux AIO",
        ("fs/aio.c", "include/linux/aio.h", "include/uapi/linux/aio_abi.h"),
        # Its requests; a plain kiocb is what every read and write has, since before there was AIO.
        r"\bIOCB_AIO_RW\b|\bkiocb_set_cancel_fn\b|\bis_sync_kiocb\b|\bki_complete\b"
        r"|\bexit_aio\b|\bioctx_table\b|\bioctx_lock\b|\baio_(?:nr|max_nr)\b|\bkioctx\b"
        r"|\bIOCB_CMD_\w+|\blookup_ioctx\b|\bio_(?:submit|setup|destroy|getevents|pgetevents)\b",
    ),
    Model(
        "io_uring",
        ("io_uring/*", "include/linux/io_uring*", "include/uapi/linux/io_uring*",
         "include/trace/events/io_uring.h"),
        # Without its flags for trying without to wait, its reads of files would be a thread each.
        r"\bio_uring\w*|\bIORING_\w+|\bIO_URING_\w+|\bCONFIG_IO_URING\b|\bPF_IO_WORKER\b"
        r"|\bIOCB_(?:NOWAIT|WAITQ|ALLOC_CACHE|DIO_CALLER_COMP)\b|\bFMODE_NOWAIT\b"
        r"|\bFOP_(?:BUFFER_RASYNC|BUFFER_WASYNC|IOPOLL)\b|\buring_cmd\w*|\bio_wq_\w+",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """Lines of code. files: of its own. others: elsewhere, in so many other_files. by_directory:
    of the lines elsewhere."""

    name: str
    lines: int
    files: int
    others: int
    other_files: int
    by_directory: dict[str, int]


def code_lines(text: str) -> list[str]:
    """The lines of a C file that are neither blank nor a comment. Pure.

    Comment marks within strings are taken for comments: the kernel has next to none.
    """
    bare = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    bare = re.sub(r"//[^\n]*", "", bare)
    return [line for line in bare.split("\n") if line.strip()]


def git(tree: Path, *words: str) -> str:
    """git's answer in the tree."""
    argv = ["git", "-C", str(tree), *words]
    done = subprocess.run(
        argv, capture_output=True, text=True, errors="replace", timeout=TIMEOUT_S, check=False
    )
    # 1 is git grep's that found nothing.
    if done.returncode > 1:
        raise InfrastructureError(f"git {words[0]} failed", output=done.stderr[-1000:])
    return done.stdout


def is_code(path: str) -> bool:
    """Whether a path is code of the kernel itself."""
    return path.endswith(CODE) and not path.startswith(NOT_KERNEL)


def share(tree: Path, base: str, model: Model) -> Share:
    """What a model that is upstream takes of the tree without the series."""
    listed = git(tree, "ls-tree", "-r", "--name-only", base).splitlines()
    patterns = [re.compile(one.replace(".", r"\.").replace("*", ".*")) for one in model.own]
    own = [path for path in listed if is_code(path) and any(p.fullmatch(path) for p in patterns)]
    lines = sum(len(code_lines(git(tree, "show", f"{base}:{path}"))) for path in own)
    names = re.compile(model.names)
    mentioned = git(tree, "grep", "-lIP", model.names, base, "--", "*.[chS]", "*.tbl").splitlines()
    others = Counter[str]()
    for path in (one.partition(":")[2] for one in mentioned):
        if is_code(path) and path not in own:
            text = git(tree, "show", f"{base}:{path}")
            others[path] = sum(bool(names.search(line)) for line in code_lines(text))
    return _share(model.name, lines, len(own), others)


def ours(tree: Path, base: str) -> Share:
    """What the series adds: files it makes, and lines in files that were there."""
    new = git(tree, "diff", "--name-only", "--diff-filter=A", base, "HEAD").splitlines()
    old = git(tree, "diff", "--name-only", "--diff-filter=M", base, "HEAD").splitlines()
    own = [path for path in new if is_code(path)]
    lines = sum(len(code_lines(git(tree, "show", f"HEAD:{path}"))) for path in own)
    others = Counter[str]()
    for path in filter(is_code, old):
        diff = git(tree, "diff", "-U0", base, "HEAD", "--", path).splitlines()
        added = "\n".join(line[1:] for line in diff if re.match(r"\+(?!\+\+ )", line))
        others[path] = len([line for line in code_lines(added) if not _within_comment(line)])
    return _share("async_submit", lines, len(own), others)


def _within_comment(line: str) -> bool:
    """A line of a comment whose begin the series does not add."""
    return bool(re.match(r"\s*\*(?:\s|/|$)", line))


def _share(name: str, lines: int, files: int, others: Counter[str]) -> Share:
    found = {path: count for path, count in others.items() if count}
    directories = Counter[str]()
    for path, count in found.items():
        directories[path.split("/")[0]] += count
    return Share(
        name, lines, files, sum(found.values()), len(found), dict(directories.most_common())
    )


def table(shares: Iterable[Share]) -> str:
    """For a terminal, and for docs/debate.md."""
    rows = ["| model | own files | own lines | lines elsewhere | in files | most of them in |"]
    rows.append("| --- | ---: | ---: | ---: | ---: | --- |")
    for one in shares:
        most = ", ".join(f"{name} {count}" for name, count in list(one.by_directory.items())[:4])
        cells = (one.name, one.files, f"{one.lines:,}", f"{one.others:,}", one.other_files, most)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def main(argv: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kernel", nargs="?", help="a kernel of rig.toml with the series")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args(argv)
    config = configuration.load(ROOT / configuration.FILE_NAME)
    try:
        built = kbuild.build(config, config.kernel(arguments.kernel), open_store())
        base = git(built.tree, "rev-list", "--max-parents=0", "HEAD").strip()
        shares = [*(share(built.tree, base, one) for one in MODELS), ours(built.tree, base)]
    except RigError as error:
        sys.stderr.write(f"{error.message}\n{error.output}\n{error.hint}\n")
        return error.exit_code
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(one) for one in shares], indent=1) + "\n")
    else:
        sys.stdout.write(table(shares) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
