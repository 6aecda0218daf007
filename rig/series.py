"""A patch series on a pristine source: checked, applied one commit a patch, checked out."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from rig.errors import BuildError, UsageError
from rig.process import Completed
from rig.progress import QUIET, Progress
from rig.source import Source, git
from rig.store import Store, digest

_RECIPE = "2"  # raise when the way patches become commits changes
_DIFF = re.compile(rb"diff --git (?:\"?a/)(.+?)\"? \"?b/(.+?)\"?$")
_NAMED = re.compile(rb"(?:---|\+\+\+|(?:rename|copy) (?:from|to)) (.+)$")
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_FAILED = re.compile(r"error: patch failed: (.+):(\d+)")
_ERROR = re.compile(r"error: (.+)")


@dataclass(frozen=True)
class Patch:
    """One patch file: name as the series gives it, strip the -p level, data its bytes."""

    name: str
    data: bytes
    strip: int = 1


@dataclass(frozen=True)
class Applied:
    """One patch as a commit of the tree's private repository."""

    name: str
    subject: str
    commit: str


@dataclass(frozen=True)
class Tree:
    """A patched kernel tree.

    directory: the private worktree, there once check_out or held has seen to it; its repository
    is directory/.git. tree: git's hash over every file, equal for equal content wherever it was
    made. parts: the same of each file and directory at the top.
    """

    directory: Path
    commit: str
    tree: str
    patches: tuple[Applied, ...]
    source: Source
    series: tuple[Patch, ...] = ()
    parts: Mapping[str, str] = field(default_factory=dict)

    def patch_of(self, commit: str) -> str:
        """The patch that made this commit, or "" for the pristine source."""
        return next((patch.name for patch in self.patches if patch.commit == commit), "")


def read(path: Path) -> tuple[Patch, ...]:
    """The patches of a quilt directory (`series` + files) or of an mbox, in order.

    UsageError when it is neither or empty, BuildError when a patch would leave the tree.
    """
    patches = tuple(_quilt(path) if path.is_dir() else _mbox(path))
    if not patches:
        raise UsageError(f"{path}: the series has no patches", hint="an unpatched kernel has none")
    for patch in patches:
        _refuse_escapes(patch)
    return patches


def read_all(root: Path, paths: Sequence[str]) -> tuple[Patch, ...]:
    """The patches of each of these paths, seen from root, one series after the other."""
    return tuple(patch for path in paths for patch in read(root / path))


def apply(
    source: Source, patches: tuple[Patch, ...], slot: str, store: Store, progress: Progress = QUIET
) -> Tree:
    """Apply the patches to the source, without a worktree; what was applied before is known.

    slot names the worktree that check_out will use. BuildError names patch, file and hunk of a
    reject.
    """
    known = store.recall("series", _key(source, patches))
    if known is None:
        known = _apply_all(source, patches, store, progress)
        store.remember("series", _key(source, patches), known)
    return Tree(
        directory=store.root / "tree" / slot / "linux",
        commit=known["commit"],
        tree=known["tree"],
        patches=tuple(Applied(**one) for one in known["patches"]),
        source=source,
        series=patches,
        parts=known["parts"],
    )


def prepare(
    source: Source, patches: tuple[Patch, ...], slot: str, store: Store, progress: Progress = QUIET
) -> Tree:
    """Apply the patches to the source and check the result out in the slot's worktree."""
    tree = apply(source, patches, slot, store, progress)
    check_out(tree, store, progress)
    return tree


def check_out(tree: Tree, store: Store, progress: Progress = QUIET) -> None:
    """Bring the worktree to the tree's commit.

    It is used again by later series of the same origin: files whose content stays keep their
    mtime, so that a build tree beside it stays valid.
    """
    with held(tree, store, progress):
        pass


@contextlib.contextmanager
def held(tree: Tree, store: Store, progress: Progress = QUIET) -> Iterator[None]:
    """The tree checked out, and no other rig changes it meanwhile."""
    slot = tree.directory.parent.name
    repository = _repository(tree.source, store)
    store.scratch("tree", slot, uses=(f"applied/{_home(tree.source)}",))
    with store.lock("tree", slot):
        if not _has(repository, tree.commit):
            # It was remembered; where it was kept has gone since.
            _apply_all(tree.source, tree.series, store, progress)
        _check_out(tree.directory, repository, tree.commit, progress)
        yield


# --- reading -----------------------------------------------------------------------------------


def _quilt(path: Path) -> Iterator[Patch]:
    listing = path / "series"
    if not listing.is_file():
        raise UsageError(f"{path}: no `series` file", hint="a quilt directory lists its patches")
    for number, line in enumerate(listing.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        where = f"{listing}:{number}"
        try:
            data = (path / words[0]).read_bytes()
        except OSError as error:
            raise UsageError(f"{where}: {words[0]}: {error.strerror}") from error
        yield Patch(words[0], data, _strip_level(words[1:], where))


def _strip_level(words: list[str], where: str) -> int:
    level = 1
    for word in words:
        if not re.fullmatch(r"-p\d", word):
            raise UsageError(f"{where}: unknown option {word!r}", hint="quilt's -pN is known")
        level = int(word[2:])
    return level


def _mbox(path: Path) -> Iterator[Patch]:
    if not path.is_file():
        raise UsageError(f"{path}: no such series", hint="a quilt directory or an mbox file")
    with path.open("rb") as file:
        if not file.read(5) == b"From ":
            raise UsageError(
                f"{path} is not an mbox: it does not begin with a 'From ' line",
                hint="give a quilt directory (`series` + patches) or `git format-patch` output",
            )
    with tempfile.TemporaryDirectory(prefix="rig-mbox-") as directory:
        git("mailsplit", f"-o{directory}", path.absolute(), repository=Path(directory))
        for mail in sorted(Path(directory).iterdir()):
            data = mail.read_bytes()
            # A cover letter has a subject and no diff.
            if re.search(rb"^(diff --git |--- \S)", data, re.MULTILINE):
                yield Patch(f"{path.name}#{int(mail.name)}", data)


def _refuse_escapes(patch: Patch) -> None:
    for number, line in enumerate(patch.data.split(b"\n"), 1):
        for name in _paths_in(line.rstrip(b"\r")):
            if problem := _leaves_tree(name, patch.strip):
                raise BuildError(
                    f"{patch.name}:{number}: the path {name!r} {problem}",
                    hint="a patch may only touch files inside the kernel tree",
                )
    _refuse_symlinks(patch)


def _paths_in(line: bytes) -> Iterator[str]:
    if match := _DIFF.match(line):
        for group in match.groups():
            yield "a/" + group.decode(errors="replace")
    elif match := _NAMED.match(line):
        renamed = line.startswith((b"rename", b"copy"))
        name = match[1].split(b"\t")[0].strip(b'"').decode(errors="replace")
        yield f"a/{name}" if renamed else name


def _leaves_tree(name: str, strip: int) -> str:
    parts = name.split("/")
    if name == "/dev/null":
        return ""
    if name.startswith("/") or parts[strip : strip + 1] == [""]:
        return "is absolute"
    if ".." in parts:
        return "leaves the tree"
    if any(part.lower() == ".git" for part in parts):
        return "is inside .git"
    return ""


def _refuse_symlinks(patch: Patch) -> None:
    """Refuse a symbolic link whose target leaves the tree; git refuses paths through one."""
    blocks = re.split(rb"^(?=diff --git )", patch.data, flags=re.MULTILINE)
    for block in blocks:
        if not re.search(rb"^(new file mode|new mode|index \S+) 120000", block, re.MULTILINE):
            continue
        named = re.search(rb"^\+\+\+ (?:b/)?(\S+)", block, re.MULTILINE)
        target = re.search(rb"^\+(?!\+\+ )(.*)$", block, re.MULTILINE)
        link = named[1].decode(errors="replace") if named else "?"
        text = target[1].decode(errors="replace") if target else ""
        depth = len(PurePosixPath(link).parts) - 1
        for part in PurePosixPath(text).parts:
            depth += -1 if part == ".." else 1
            if depth < 0 or part == "/":
                raise BuildError(
                    f"{patch.name}: the symbolic link {link} -> {text} leaves the tree",
                    hint="a patch may only touch files inside the kernel tree",
                )


# --- applying ----------------------------------------------------------------------------------


def _key(source: Source, patches: tuple[Patch, ...]) -> str:
    names = (f"{patch.strip} {patch.name}" for patch in patches)
    return digest(source.commit, _RECIPE, *names, *(patch.data for patch in patches))[:32]


def _repository(source: Source, store: Store) -> Path:
    """The repository of every series on a source: it borrows the source's objects, and worktrees
    borrow its own. The source itself is never written."""
    home = _home(source)
    repository = store.scratch("applied", home, uses=(source.home,)) / "linux.git"
    with store.lock("applied", home):
        if not (repository / "HEAD").exists():
            git("init", "-q", "--bare", repository, repository=repository)
        _borrow(repository, source.repository)
    return repository


def _home(source: Source) -> str:
    """One repository for all snapshots of a directory, too."""
    return source.home.partition("/")[2]


def _open_worktree(directory: Path, lender: Path) -> None:
    repository = directory / ".git"
    if not (repository / "HEAD").exists():
        directory.mkdir(parents=True, exist_ok=True)
        git("init", "-q", "--initial-branch=series", directory, repository=repository)
    _borrow(repository, lender)


def _borrow(repository: Path, lender: Path) -> None:
    """Let a repository use another's objects."""
    wanted = f"{lender / 'objects'}\n"
    alternates = repository / "objects" / "info" / "alternates"
    if not alternates.exists() or alternates.read_text() != wanted:
        alternates.write_text(wanted)


def _has(repository: Path, commit: str) -> bool:
    words = ("cat-file", "-e", f"{commit}^{{tree}}")
    return git(*words, repository=repository, check=False).returncode == 0


def _apply_all(
    source: Source, patches: tuple[Patch, ...], store: Store, progress: Progress
) -> dict[str, Any]:
    """Commit each patch; what is to be remembered of the series."""
    repository = _repository(source, store)
    progress.stage("applying the series", len(patches))
    with tempfile.TemporaryDirectory(prefix="rig-series-") as work:
        known = _commit_each(repository, source, patches, store, Path(work), progress)
    if patches and known["tree"] == source.tree:
        raise BuildError(
            "the series changes nothing: the tree after it equals the pristine source",
            hint="is it already part of this source?",
        )
    listed = git("ls-tree", known["tree"], repository=repository).output.splitlines()
    parts = {name: words.split()[2] for words, name in (line.split("\t", 1) for line in listed)}
    return {**known, "parts": parts}


def _commit_each(
    repository: Path,
    source: Source,
    patches: tuple[Patch, ...],
    store: Store,
    work: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Commit the patches that no series before this one began with; each prefix is remembered."""
    known = _longest_known(repository, source, patches, store)
    env = {"GIT_INDEX_FILE": str(work / "index")}
    done = len(known["patches"])
    if done < len(patches):
        git("read-tree", known["commit"], repository=repository, env=env)
    for number, patch in enumerate(patches[done:], done + 1):
        progress.step(patch.name, number)
        one = _commit(repository, patch, known, env, work)
        known = {**one, "patches": [*known["patches"], *one["patches"]]}
        store.remember("prefix", _key(source, patches[:number]), known)
    return known


def _longest_known(
    repository: Path, source: Source, patches: tuple[Patch, ...], store: Store
) -> dict[str, Any]:
    """What is remembered of the longest beginning of the series whose commits are still there."""
    for length in range(len(patches), 0, -1):
        known = store.recall("prefix", _key(source, patches[:length]))
        if known and _has(repository, known["commit"]):
            return dict(known)
    return {"commit": source.commit, "tree": source.tree, "patches": []}


def _commit(
    repository: Path, patch: Patch, before: dict[str, Any], env: dict[str, str], work: Path
) -> dict[str, Any]:
    """Apply one patch to the index and commit it."""
    body = work / "patch"
    message, author = _split(patch, body, work)
    _apply_one(repository, patch, body, env)
    tree = git("write-tree", repository=repository, env=env).output.strip()
    if tree == before["tree"]:
        raise BuildError(f"{patch.name} changes nothing", hint="is it already in the source?")
    words = ("commit-tree", "-p", before["commit"], "-F", message, tree)
    commit = git(*words, repository=repository, env={**env, **author}).output.strip()
    subject = message.read_text(errors="replace").split("\n", 1)[0]
    applied = Applied(patch.name, subject, commit)
    return {"commit": commit, "tree": tree, "patches": [asdict(applied)]}


def _split(patch: Patch, body: Path, work: Path) -> tuple[Path, dict[str, str]]:
    """Write the diff to body; the file with the commit message, and the author for git."""
    message = work / "message"
    if not re.match(rb"(From |From: |Subject: |Return-Path: |Received: )", patch.data):
        body.write_bytes(patch.data)
        message.write_text(f"{patch.name}\n")
        return message, {}
    mail = work / "mail"
    mail.write_bytes(patch.data)
    text = work / "text"
    with mail.open("rb") as file:
        words = ("mailinfo", "--encoding=UTF-8", text, body)
        info = git(*words, repository=work, stdin=file).output
    found: dict[str, str] = dict(re.findall(r"^(Author|Email|Subject|Date): (.*)$", info, re.M))
    subject = found.get("Subject", patch.name)
    message.write_text(f"{subject}\n\n{text.read_text(errors='replace')}")
    author = {
        "GIT_AUTHOR_NAME": found.get("Author", "unknown"),
        "GIT_AUTHOR_EMAIL": found.get("Email", "unknown"),
        "GIT_AUTHOR_DATE": found.get("Date", "@0 +0000"),
    }
    return message, author


def _apply_one(repository: Path, patch: Patch, body: Path, env: dict[str, str]) -> None:
    words = ("apply", "--cached", "--whitespace=nowarn", f"-p{patch.strip}", body)
    done = git(*words, repository=repository, env=env, check=False)
    if done.returncode == 0:
        return
    rejects = [_reject(patch.data, m[1], int(m[2])) for m in _FAILED.finditer(done.errors)]
    reasons = rejects or [m[1] for m in _ERROR.finditer(done.errors)]
    raise BuildError(
        f"{patch.name} does not apply: {'; '.join(reasons) or 'git gave no reason'}",
        hint="refresh the patch against this source, or give the source it was made for",
        output=done.errors,
    )


def _reject(data: bytes, file: str, line: int) -> str:
    """ "hunk N of FILE (@@ ... @@)" for the hunk git says failed at this line of the old file."""
    current, number = b"", 0
    for text in data.split(b"\n"):
        if text.startswith((b"+++ ", b"--- ")) and text[4:] != b"/dev/null":
            current, number = text[4:].split(b"\t")[0].partition(b"/")[2], 0
        elif match := _HUNK.match(text):
            number += 1
            if current.decode(errors="replace") == file and int(match[1]) == line:
                return f"hunk {number} of {file} ({match[0].decode()})"
    return f"{file} at line {line}"


def _check_out(directory: Path, lender: Path, commit: str, progress: Progress) -> None:
    """Bring a worktree to a commit; anew from nothing where git cannot make sense of it."""
    if not (directory / ".git" / "HEAD").exists():
        progress.stage("checking out the tree")
    for last in (False, True):
        _open_worktree(directory, lender)
        # The slot's lock is held, so an index.lock is what a killed rig left behind.
        (directory / ".git" / "index.lock").unlink(missing_ok=True)
        words = ("checkout", "-q", "-f", "--detach", commit)
        if _in_tree(directory, *words, check=last).returncode == 0:
            break
        shutil.rmtree(directory)
    # What a person or a make in the wrong place left here is not part of the tree.
    _in_tree(directory, "clean", "-q", "-f", "-d", "-x")


def _in_tree(directory: Path, *words: str, check: bool = True) -> Completed:
    repository, env = directory / ".git", {"GIT_WORK_TREE": str(directory)}
    return git(*words, repository=repository, env=env, cwd=directory, timeout_s=900, check=check)
