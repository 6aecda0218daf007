"""What a benchmark prints, to values."""

from __future__ import annotations

import pytest

from rig import rows
from rig.rows import Row, RowError

ROW = b'{"name": "pread, 64: submit", "value": 128, "unit": "ns", "calls": 64, "paths": {"a": 1}}'


def test_a_row_and_what_is_none() -> None:
    found = rows.parse(b"words\n" + ROW + b"\n  {indented\n\n")
    assert found == (Row("pread, 64: submit", 128, "ns", calls=64, paths={"a": 1}),)
    assert found[0].each == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "line 2 is no measurement"),
        (b'{"name": "x", "unit": "ns"}', "missing required field `value`"),
        (b'{"name": "x", "value": "1", "unit": "ns"}', "Expected `float`"),
        (ROW[:-4], "no measurement"),
    ],
)
def test_a_figure_is_never_lost_silently(line: bytes, words: str) -> None:
    with pytest.raises(RowError, match=words):
        rows.parse(b"first\n" + line + b"\n")


def test_of_one_name_the_least_is_kept() -> None:
    found = rows.by_name([Row("a", 3, "ns"), Row("b", 1, "ns"), Row("a", 2, "ns")])
    assert {name: row.value for name, row in found.items()} == {"a": 2, "b": 1}
    assert list(found) == ["a", "b"]


def test_of_one_name_and_two_units() -> None:
    with pytest.raises(RowError, match="a is in ns and in bytes"):
        rows.by_name([Row("a", 3, "ns"), Row("a", 3, "bytes")])
