"""A patch series on a pristine source: checked, applied one commit a patch, checked out."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from rig.errors import BuildError, UsageError
from rig.progress import QUIET, Progress
from rig.source import Source, git
from rig.store import Store, digest

_RECIPE = "1"  # raise when the way patches become commits changes
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
    """A patched kernel tree, checked out.

    directory: the private worktree; its repository is directory/.git. tree: git's hash over
    every file, equal for equal content wherever it was made.
    """

    directory: Path
    commit: str
    tree: str
    patches: tuple[Applied, ...]
    source: Source

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


def prepare(
    source: Source, patches: tuple[Patch, ...], slot: str, store: Store, progress: Progress = QUIET
) -> Tree:
    """Apply the patches to the source and check the result out in the slot's worktree.

    slot names a worktree that is used again by later series of the same origin: files whose
    content stays keep their mtime, so that a build tree beside it stays valid. BuildError
    names patch, file and hunk of a reject.
    """
    place = store.scratch("tree", slot, uses=(f"source/{source.key}",))
    with store.lock("tree", slot):
        directory = place / "linux"
        _open_repository(directory, source)
        tree = _apply_all(directory, source, patches, progress)
        _check_out(directory, tree.commit, progress)
    return tree


@contextlib.contextmanager
def held(tree: Tree, store: Store) -> Iterator[None]:
    """No other rig changes the tree meanwhile; checked out anew if one did before."""
    with store.lock("tree", tree.directory.parent.name):
        _check_out(tree.directory, tree.commit, QUIET)
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


def _open_repository(directory: Path, source: Source) -> None:
    """A repository that borrows the source's objects; the source itself is never written."""
    repository = directory / ".git"
    if not (repository / "HEAD").exists():
        directory.mkdir(parents=True, exist_ok=True)
        git("init", "-q", "--initial-branch=series", directory, repository=repository)
    wanted = f"{source.repository / 'objects'}\n"
    alternates = repository / "objects" / "info" / "alternates"
    if not alternates.exists() or wanted not in alternates.read_text():
        with alternates.open("a") as file:
            file.write(wanted)


def _apply_all(
    directory: Path, source: Source, patches: tuple[Patch, ...], progress: Progress
) -> Tree:
    repository = directory / ".git"
    key = digest(
        source.commit, _RECIPE, *(f"{p.strip}" for p in patches), *(p.data for p in patches)
    )
    record = repository / f"rig-series-{key[:32]}.json"
    if record.exists():
        known = json.loads(record.read_text())
        applied = tuple(Applied(**one) for one in known["patches"])
        return Tree(directory, known["commit"], known["tree"], applied, source)
    progress.stage("applying the series", len(patches))
    with tempfile.TemporaryDirectory(prefix="rig-series-") as work:
        tree = _commit_each(directory, source, patches, Path(work), progress)
    if patches and tree.tree == source.tree:
        raise BuildError(
            "the series changes nothing: the tree after it equals the pristine source",
            hint="is it already part of this source?",
        )
    value = {"commit": tree.commit, "tree": tree.tree, "patches": [asdict(p) for p in tree.patches]}
    scratch = record.with_suffix(".new")
    scratch.write_text(json.dumps(value, indent=1))
    scratch.rename(record)
    return tree


def _commit_each(
    directory: Path, source: Source, patches: tuple[Patch, ...], work: Path, progress: Progress
) -> Tree:
    repository = directory / ".git"
    env = {"GIT_INDEX_FILE": str(work / "index")}
    git("read-tree", source.commit, repository=repository, env=env)
    commit, tree, applied = source.commit, source.tree, []
    for number, patch in enumerate(patches, 1):
        progress.step(patch.name, number)
        body = work / "patch"
        message, author = _split(patch, body, work)
        _apply_one(repository, patch, body, env)
        after = git("write-tree", repository=repository, env=env).output.strip()
        if after == tree:
            raise BuildError(f"{patch.name} changes nothing", hint="is it already in the source?")
        tree = after
        words = ("commit-tree", "-p", commit, "-F", message, tree)
        commit = git(*words, repository=repository, env={**env, **author}).output.strip()
        subject = message.read_text(errors="replace").split("\n", 1)[0]
        applied.append(Applied(patch.name, subject, commit))
    return Tree(directory, commit, tree, tuple(applied), source)


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


def _check_out(directory: Path, commit: str, progress: Progress) -> None:
    repository = directory / ".git"
    env = {"GIT_WORK_TREE": str(directory)}
    head = git("rev-parse", "-q", "--verify", "HEAD", repository=repository, check=False)
    if head.returncode:
        progress.stage("checking out the tree")
    # The slot's lock is held, so an index.lock is what a killed rig left behind.
    (repository / "index.lock").unlink(missing_ok=True)
    words = ("checkout", "-q", "-f", "--detach", commit)
    git(*words, repository=repository, env=env, cwd=directory, timeout_s=900)
    # What a person or a make in the wrong place left here is not part of the tree.
    git("clean", "-q", "-f", "-d", "-x", repository=repository, env=env, cwd=directory)
