"""Ratios, intervals and words: what is there is seen, what is not there is not."""

from __future__ import annotations

import math
import random

import pytest

from rig import stats
from rig.stats import Ratio, Word


def boots(times: float, spread: float, seed: int, count: int = 5) -> list[tuple[float, float]]:
    """Pairs whose second is so many times the first, both scattered."""
    source = random.Random(seed)

    def one() -> float:
        return 1000 * math.exp(source.gauss(0, spread))

    return [(one(), times * one()) for _ in range(count)]


def test_a_ratio_is_the_geometric_mean_of_the_boots() -> None:
    found = stats.ratio([(1, 2), (1, 8)])
    assert found.value == pytest.approx(4)
    assert [found.low, found.high] == pytest.approx([2, 8])
    assert found.boots == 2
    assert found.p == 1.0  # two boots tell nothing


def test_figures_that_are_all_the_same() -> None:
    same = stats.ratio([(10, 12)] * 5)
    assert [same.value, same.low, same.high] == pytest.approx([1.2] * 3)
    assert same.p == 0
    assert stats.ratio([(10, 10)] * 5).p == 1


def test_the_interval_is_the_same_each_time() -> None:
    pairs = boots(1.1, 0.02, seed=3)
    assert stats.ratio(pairs) == stats.ratio(pairs)


@pytest.mark.parametrize("pairs", [[], [(0, 1)], [(1, -1)]])
def test_what_has_no_ratio(pairs: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        stats.ratio(pairs)


@pytest.mark.parametrize(
    ("times", "word"),
    [(1.25, Word.SLOWER), (0.8, Word.FASTER), (1.02, Word.NONE), (1.0, Word.NONE)],
)
def test_a_change_is_seen_from_the_least_effect_on(times: float, word: Word) -> None:
    found = stats.judge({"it": stats.ratio(boots(times, 0.01, seed=1))})
    assert found == {"it": word}


def test_four_boots_do_not_tell() -> None:
    assert stats.judge({"it": stats.ratio(boots(2, 0.01, seed=1, count=4))}) == {"it": Word.NONE}


def test_nothing_is_seen_where_nothing_is() -> None:
    """Twenty sets of fifty figures of a noisy host, none of them changed."""
    wrong = 0
    for seed in range(20):
        pairs = {f"{n}": boots(1.0, 0.05, seed=1000 * seed + n) for n in range(50)}
        words = stats.judge({name: stats.ratio(those) for name, those in pairs.items()})
        wrong += any(word is not Word.NONE for word in words.values())
    assert wrong <= 1


def test_what_is_there_is_seen_among_much_that_is_not() -> None:
    pairs = {f"{n}": boots(1.0, 0.02, seed=n) for n in range(60)}
    pairs |= {f"slow {n}": boots(1.5, 0.02, seed=100 + n) for n in range(6)}
    words = stats.judge({name: stats.ratio(those) for name, those in pairs.items()})
    assert {name for name, word in words.items() if word is Word.SLOWER} == {
        f"slow {n}" for n in range(6)
    }


def test_no_figures() -> None:
    assert stats.judge({}) == {}


def test_more_may_be_better() -> None:
    assert [stats.flipped(word) for word in Word] == [Word.SLOWER, Word.FASTER, Word.NONE]


def test_a_ratio_that_does_not_tell_is_no_word() -> None:
    assert stats.judge({"a": Ratio(2.0, 1.0, 4.0, 0.2, 5)}) == {"a": Word.NONE}
