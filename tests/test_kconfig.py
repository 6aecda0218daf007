"""Kconfig as a value, and the reason a symbol was dropped."""

from __future__ import annotations

import pytest

from rig import kconfig

TREE = {
    "Kconfig": 'mainmenu "x"\nsource "lib/Kconfig"\nsource "arch/$(SRCARCH)/Kconfig"\n',
    "lib/Kconfig": """\
menu "Library"
\tdepends on BLOCK

config PLAIN
\tbool "Plain"
\tdepends on NET && \\
\t\t(SMP || !64BIT)
\tselect CHOSEN
\thelp
\t  if this line were read as Kconfig, the menu would end here:
\t  endmenu

config CHOSEN
\tbool

config EXPERT_ONLY
\tbool "For experts" if EXPERT
\tdefault y

endmenu

choice
\tprompt "Speed"
config SLOW
\tbool "Slow"
config FAST
\tbool "Fast"
endchoice

if LEVEL = 3
config DEEP
\ttristate "Deep"
endif
""",
    "arch/x86/Kconfig": 'config PVH\n\tbool "PVH"\n\tdepends on GUEST\n',
}


@pytest.fixture(scope="module")
def symbols() -> dict[str, kconfig.Symbol]:
    return kconfig.read_symbols(TREE.get, "x86")


def test_parse_merge_render() -> None:
    one = kconfig.parse('# why\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_S="x y"\n', "one")
    two = kconfig.parse("CONFIG_B=y\n", "two")
    merged = kconfig.merge([one, two])
    assert [(a.symbol, a.value, a.where) for a in merged.values()] == [
        ("A", "y", "one:2"),
        ("B", "y", "two:1"),
        ("S", '"x y"', "one:4"),
    ]
    assert kconfig.render(one) == 'CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_S="x y"\n'


def test_a_line_that_is_no_setting() -> None:
    with pytest.raises(kconfig.FragmentError, match="frag:2"):
        kconfig.parse("CONFIG_A=y\nCONFIGB=y\n", "frag")


def test_everything_asked_is_compared() -> None:
    asked = kconfig.parse("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=3\n", "f")
    got = kconfig.values("CONFIG_A=y\nCONFIG_B=y\n# CONFIG_C is not set\nCONFIG_D=4\n")
    missing = kconfig.dropped(asked, got, lambda symbol, _value: f"because {symbol}")
    assert [(d.asked.symbol, d.got, d.reason) for d in missing] == [
        ("B", "y", "because B"),
        ("C", "n", "because C"),
        ("D", "4", "because D"),
    ]
    assert str(missing[0]) == "CONFIG_B: asked n (f:2), got y: because B"


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("A", []),
        ("B", ["B (=n)"]),
        ("A && B", ["B (=n)"]),
        ("!A", ["!A"]),
        ("B || A", []),
        ("B || !A", ["(B (=n) or !A)"]),
        ("(B || C) && A", ["(B (=n) or C (=n))"]),
        ('S = "x"', []),
        ("N >= 4", ["N >= 4"]),
        ("A != y", ["A != y"]),
        ("M", []),
    ],
)
def test_unmet_terms(expression: str, terms: list[str]) -> None:
    assert kconfig.unmet(expression, {"A": "y", "S": '"x"', "N": "3", "M": "m"}) == terms


@pytest.mark.parametrize(
    ("symbol", "value", "reason"),
    [
        ("NOPE", "y", "the tree has no such symbol"),
        ("PLAIN", "y", "unmet dependency: BLOCK (=n) and NET (=n) and (SMP (=n) or !64BIT)"),
        ("CHOSEN", "y", "unmet dependency: BLOCK (=n)"),
        ("SLOW", "y", "another member of its choice was set (lib/Kconfig:24)"),
        ("DEEP", "y", "unmet dependency: LEVEL = 3"),
        ("PVH", "y", "unmet dependency: GUEST (=n)"),
        ("EXPERT_ONLY", "n", "its prompt shows only with EXPERT (=n) (lib/Kconfig:16)"),
    ],
)
def test_explain(symbols: dict[str, kconfig.Symbol], symbol: str, value: str, reason: str) -> None:
    assert kconfig.explain(symbol, value, symbols, {"64BIT": "y"}) == reason


def test_explain_a_module_without_modules(symbols: dict[str, kconfig.Symbol]) -> None:
    reason = kconfig.explain("DEEP", "m", symbols, {"LEVEL": "3"})
    assert reason == "MODULES is not set, so nothing can be a module"


def test_explain_what_only_select_sets(symbols: dict[str, kconfig.Symbol]) -> None:
    got = {"BLOCK": "y"}
    assert "set only by select, from PLAIN" in kconfig.explain("CHOSEN", "y", symbols, got)
    selected = {"BLOCK": "y", "PLAIN": "y", "CHOSEN": "y"}
    assert kconfig.explain("CHOSEN", "n", symbols, selected) == "it is selected by PLAIN"
