"""Ratios over boots, their intervals, and what may be said of many of them at once."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
FALSE_DISCOVERIES = 0.01
LEAST_EFFECT = 0.03
LEAST_BOOTS = 5

_RESAMPLES = 9999
_SEED = 20070201  # one interval for the same figures, always


class Word(enum.StrEnum):
    """What is said of a change. Not seeing a difference is not the same as there being none."""

    FASTER = "faster"
    SLOWER = "slower"
    NONE = "no difference seen"


@dataclass(frozen=True)
class Ratio:
    """How many times as much the second is, over boots in which both were measured.

    value: geometric mean of the boots' ratios. low, high: its bootstrap interval of 95 %.
    p: probability of a mean as far outside of 1 +- LEAST_EFFECT, if it were at its edge. 1.0 with
    fewer boots than can tell.
    """

    value: float
    low: float
    high: float
    p: float
    boots: int


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """The ratio of pairs (first, second), one a boot, all above zero. Pure.

    Raises ValueError where there is none, or one is not above zero.
    """
    if not pairs or any(one <= 0 or other <= 0 for one, other in pairs):
        raise ValueError("a ratio needs pairs of figures above zero")
    logs = [math.log(second / first) for first, second in pairs]
    mean = math.fsum(logs) / len(logs)
    low, high = _interval(logs)
    return Ratio(math.exp(mean), math.exp(low), math.exp(high), _p_value(logs, mean), len(logs))


def _interval(logs: Sequence[float]) -> tuple[float, float]:
    if len(set(logs)) == 1:
        return logs[0], logs[0]
    import numpy  # late: these two take longer to load than most commands take
    from scipy import stats

    found = stats.bootstrap(
        (numpy.array(logs),),
        numpy.mean,
        confidence_level=CONFIDENCE,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=numpy.random.default_rng(_SEED),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _p_value(logs: Sequence[float], mean: float) -> float:
    """Of the test that the mean is not farther from nothing than the least effect, both sides."""
    if len(logs) < LEAST_BOOTS:
        return 1.0
    border = math.copysign(math.log(1 + LEAST_EFFECT), mean)
    if abs(mean) <= abs(border):
        return 1.0
    if max(logs) - min(logs) < 1e-12:
        return 0.0
    from scipy import stats

    side = "greater" if mean > 0 else "less"
    p = float(stats.ttest_1samp(logs, border, alternative=side).pvalue)
    return min(1.0, 2 * p)


def judge(ratios: Mapping[str, Ratio]) -> dict[str, Word]:
    """What is said of each, the whole set in view. Pure.

    Of the changes that are called so, one in a hundred is expected to be none (Benjamini and
    Hochberg, 1995).
    """
    if not ratios:
        return {}
    from scipy import stats

    names = list(ratios)
    adjusted = stats.false_discovery_control([ratios[name].p for name in names])
    return {name: _word(ratios[name], float(p)) for name, p in zip(names, adjusted, strict=True)}


def _word(one: Ratio, p: float) -> Word:
    if p > FALSE_DISCOVERIES:
        return Word.NONE
    return Word.SLOWER if one.value > 1 else Word.FASTER


def flipped(word: Word) -> Word:
    """The word for a figure of which more is better."""
    return {Word.FASTER: Word.SLOWER, Word.SLOWER: Word.FASTER}.get(word, word)
