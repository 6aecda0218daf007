"""Kconfig as a value: fragments, what came out of olddefconfig, and why a symbol was dropped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_SET = re.compile(r"CONFIG_(\w+)=(.*)")
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Asked:
    """One line of a fragment: symbol without CONFIG_, value ("n" for not set), FILE:LINE."""

    symbol: str
    value: str
    where: str


@dataclass(frozen=True)
class Dropped:
    """A symbol that did not come out as asked; reason names the unmet dependency."""

    asked: Asked
    got: str
    reason: str

    def __str__(self) -> str:
        head = f"CONFIG_{self.asked.symbol}: asked {self.asked.value} ({self.asked.where})"
        return f"{head}, got {self.got}: {self.reason}"


class FragmentError(ValueError):
    """A line of a fragment that is neither a setting nor a comment."""


def parse(text: str, name: str) -> tuple[Asked, ...]:
    """The settings of a fragment or .config, in order; FragmentError names FILE:LINE."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        if match := _SET.fullmatch(line.strip()):
            found.append(Asked(match[1], match[2].strip(), where))
        elif match := _UNSET.fullmatch(line.strip()):
            found.append(Asked(match[1], "n", where))
        elif line.strip() and not line.lstrip().startswith("#"):
            raise FragmentError(f"{where}: not a Kconfig setting: {line.strip()[:60]!r}")
    return tuple(found)


def merge(fragments: Iterable[Sequence[Asked]]) -> dict[str, Asked]:
    """All fragments as one; a later line replaces an earlier one of the same symbol."""
    merged: dict[str, Asked] = {}
    for fragment in fragments:
        for asked in fragment:
            merged[asked.symbol] = asked
    return merged


def render(settings: Iterable[Asked]) -> str:
    """Settings as .config text."""
    return "".join(
        f"# CONFIG_{asked.symbol} is not set\n"
        if asked.value == "n"
        else f"CONFIG_{asked.symbol}={asked.value}\n"
        for asked in settings
    )


def values(config_text: str) -> dict[str, str]:
    """A .config as symbol -> value; a symbol that is absent is not set."""
    return {asked.symbol: asked.value for asked in parse(config_text, ".config")}


def dropped(
    asked: Iterable[Asked], got: Mapping[str, str], explain: Callable[[str, str], str]
) -> list[Dropped]:
    """Every symbol whose value differs from the one asked; explain(symbol, value) says why."""
    return [
        Dropped(one, got.get(one.symbol, "n"), explain(one.symbol, one.value))
        for one in asked
        if got.get(one.symbol, "n") != one.value
    ]


# --- the tree's Kconfig files, read to explain a dropped symbol -------------------------------


@dataclass
class Symbol:
    """What the tree says of a symbol; a symbol defined twice has two entries in `depends`."""

    name: str
    type: str = ""
    prompt: bool = False
    prompt_if: str = ""
    choice: bool = False
    depends: list[list[str]] = field(default_factory=list)
    selected_by: list[str] = field(default_factory=list)
    where: str = ""


_BLOCKS = {"if", "menu", "choice"}
_TYPES = {"bool", "tristate", "string", "int", "hex", "def_bool", "def_tristate"}
_SOURCES = {"source", "rsource", "osource", "orsource"}


class _Reader:
    """Walks the Kconfig files from the top one, keeping the stack of enclosing conditions."""

    def __init__(self, read: Callable[[str], str | None], arch: str) -> None:
        self._read, self._arch = read, arch
        self.symbols: dict[str, Symbol] = {}
        self._stack: list[tuple[str, list[str]]] = []
        self._symbol: Symbol | None = None
        self._open: list[str] | None = None

    def file(self, path: str) -> None:
        for number, line in _logical_lines(self._read(path) or ""):
            self._line(line, f"{path}:{number}")

    def _line(self, line: str, where: str) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word in ("config", "menuconfig"):
            self._begin(rest, where)
        elif word in _SOURCES:
            self._include(rest.strip('"'))
        elif word in _BLOCKS:
            self._open = [rest] if word == "if" else []
            self._stack.append((word, self._open))
            self._symbol = None
        elif word in ("endif", "endmenu", "endchoice"):
            if self._stack:
                self._stack.pop()
            self._symbol = None
        elif word == "comment":
            self._symbol, self._open = None, []
        else:
            self._property(word, rest)

    def _begin(self, name: str, where: str) -> None:
        symbol = self.symbols.setdefault(name, Symbol(name))
        symbol.where = symbol.where or where
        symbol.choice = symbol.choice or any(kind == "choice" for kind, _ in self._stack)
        conditions = [text for _, block in self._stack for text in block]
        symbol.depends.append(conditions)
        self._symbol, self._open = symbol, conditions

    def _property(self, word: str, rest: str) -> None:
        if word == "depends" and self._open is not None:
            self._open.append(rest.removeprefix("on").strip())
        elif self._symbol is None:
            return
        elif word in _TYPES:
            self._symbol.type = self._symbol.type or word.removeprefix("def_")
            if rest.startswith(('"', "'")):
                self._prompt(self._symbol, rest)
        elif word == "prompt":
            self._prompt(self._symbol, rest)
        elif word == "select" and (match := _NAME.match(rest)):
            target = self.symbols.setdefault(match[0], Symbol(match[0]))
            target.selected_by.append(self._symbol.name)

    @staticmethod
    def _prompt(symbol: Symbol, rest: str) -> None:
        symbol.prompt = True
        after = rest[rest.rfind(rest[0]) + 1 :].strip()
        symbol.prompt_if = after.removeprefix("if").strip()

    def _include(self, path: str) -> None:
        for variable in ("$(SRCARCH)", "$SRCARCH"):
            path = path.replace(variable, self._arch)
        self.file(path)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """(line number, line): continuations joined, no comments or help texts, spaces folded."""
    help_indent: int | None = None
    in_help = False
    for number, line in _joined(text.expandtabs()):
        bare = line.strip()
        indent = len(line) - len(line.lstrip())
        if in_help:
            if not bare:
                continue
            help_indent = indent if help_indent is None else help_indent
            if indent >= help_indent and indent > 0:
                continue
            in_help = False
        if bare in ("help", "---help---"):
            in_help, help_indent = True, None
        elif bare and not bare.startswith("#"):
            yield number, " ".join(bare.split())


def _joined(text: str) -> Iterator[tuple[int, str]]:
    held, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if held else number
        held += line.removesuffix("\\")
        if not line.endswith("\\"):
            yield start, held
            held = ""


def read_symbols(read: Callable[[str], str | None], arch: str) -> dict[str, Symbol]:
    """Every symbol of a tree; read(path) gives a Kconfig file's text or None, arch is SRCARCH."""
    reader = _Reader(read, arch)
    reader.file("Kconfig")
    return {name: symbol for name, symbol in reader.symbols.items() if symbol.depends}


_TOKEN = re.compile(r'"[^"]*"|\$\([^)]*\)|[A-Za-z0-9_]+|&&|\|\||!=|[=()!<>]+?(?=[^=]|$)|\S')
_LEVEL = {"n": 0, "m": 1, "y": 2}


class _Expression:
    """A Kconfig expression over the values of a .config: `unmet` names the terms that fail it."""

    def __init__(self, text: str, values_: Mapping[str, str]) -> None:
        self._tokens = _TOKEN.findall(text)
        self._values = values_
        self._at = 0

    def unmet(self) -> tuple[bool, list[str]]:
        """(holds, failing terms)."""
        return self._either()

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1] if self._at <= len(self._tokens) else ""

    def _either(self) -> tuple[bool, list[str]]:
        parts = [self._both()]
        while self._peek() == "||":
            self._take()
            parts.append(self._both())
        if any(holds for holds, _ in parts):
            return True, []
        sides = [" and ".join(terms) for _, terms in parts]
        return False, [f"({' or '.join(sides)})" if len(sides) > 1 else sides[0]]

    def _both(self) -> tuple[bool, list[str]]:
        parts = [self._unary()]
        while self._peek() == "&&":
            self._take()
            parts.append(self._unary())
        return all(h for h, _ in parts), [t for h, terms in parts if not h for t in terms]

    def _unary(self) -> tuple[bool, list[str]]:
        if self._peek() == "!":
            self._take()
            start = self._at
            holds, _ = self._unary()
            inner = "".join(self._tokens[start : self._at])
            return not holds, [] if not holds else [f"!{inner}"]
        if self._peek() == "(":
            self._take()
            inside = self._either()
            self._take()
            return inside
        return self._comparison()

    def _comparison(self) -> tuple[bool, list[str]]:
        left = self._take()
        if self._peek() in ("=", "!=", "<", ">", "<=", ">="):
            operator, right = self._take(), self._take()
            holds = _compare(self._value(left), operator, self._value(right))
            return holds, [] if holds else [f"{left} {operator} {right}"]
        holds = _LEVEL.get(self._value(left), 0) > 0
        return holds, [] if holds else [f"{left} (={self._value(left)})"]

    def _value(self, word: str) -> str:
        if word.startswith('"'):
            return word.strip('"')
        if word in _LEVEL or word.isdigit():
            return word
        return self._values.get(word, "n").strip('"')


def _compare(left: str, operator: str, right: str) -> bool:
    if operator in ("=", "!="):
        return (left == right) is (operator == "=")
    if not (left.isdigit() and right.isdigit()):
        return False
    return {
        "<": int(left) < int(right),
        ">": int(left) > int(right),
        "<=": int(left) <= int(right),
        ">=": int(left) >= int(right),
    }[operator]


def unmet(expression: str, config_values: Mapping[str, str]) -> list[str]:
    """The terms of a Kconfig expression that keep it from holding; [] when it holds."""
    return _Expression(expression, config_values).unmet()[1]


def explain(symbol: str, value: str, symbols: Mapping[str, Symbol], got: Mapping[str, str]) -> str:
    """One line why `symbol` did not become `value` under the configuration that came out."""
    known = symbols.get(symbol)
    if known is None:
        return "the tree has no such symbol"
    hidden = unmet(known.prompt_if, got) if known.prompt_if else []
    if hidden:
        return f"its prompt shows only with {' and '.join(hidden)} ({known.where})"
    if value == "n":
        selectors = [name for name in known.selected_by if got.get(name, "n") != "n"]
        if selectors:
            return f"it is selected by {', '.join(selectors[:4])}"
        return f"it has no prompt or a default that wins ({known.where})"
    missing = [[term for text in block for term in unmet(text, got)] for block in known.depends]
    if all(missing):
        return f"unmet dependency: {' or '.join(' and '.join(one) for one in missing)}"
    if value == "m" and got.get("MODULES", "n") == "n":
        return "MODULES is not set, so nothing can be a module"
    if known.choice:
        return f"another member of its choice was set ({known.where})"
    if not known.prompt:
        names = ", ".join(known.selected_by[:4])
        by = f"is set only by select, from {names}" if names else "is set by its default"
        return f"it has no prompt and {by} ({known.where})"
    return f"its type is {known.type or 'unknown'}, or a range or a later line forbids it"
