"""Ratios over boots, their intervals, what may be said of many of them; rates and trends."""

from __future__ import annotations

import enum
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
FALSE_DISCOVERIES = 0.01
LEAST_EFFECT = 0.03
LEAST_BOOTS = 5
_Z = 1.959963984540054  # two-sided 95 %
# A level has to last for so many runs, where figures are not the same from one to the next.
_LEAST_LEVEL = 3

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


def wilson(bad: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a rate seen `bad` times in `total` (Wilson, 1927). Pure."""
    if not total:
        return 0.0, 1.0
    rate, scale = bad / total, 1 + _Z**2 / total
    middle = (rate + _Z**2 / (2 * total)) / scale
    half = _Z * math.sqrt(rate * (1 - rate) / total + _Z**2 / (4 * total**2)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def median(values: Sequence[float]) -> float:
    """Of at least one. Pure."""
    return statistics.median(values)


def steps(values: Sequence[float]) -> tuple[int, ...]:
    """Where another level begins: places in values, in order. Pure.

    Of figures that mostly repeat to the last digit each change is one. Of others: where halves
    differ by more than their noise would (binary segmentation, Scott and Knott 1974, with a penalty
    of 3 log n variances for each level more). The noise is that from one figure to the next, of
    which levels themselves are hardly a part.
    """
    leaps = sorted(abs(after - before) for before, after in itertools.pairwise(values))
    if not leaps:
        return ()
    noise = statistics.median(leaps) / (math.sqrt(2) * 0.6745)
    if not noise:
        return tuple(at for at in range(1, len(values)) if values[at] != values[at - 1])
    penalty = 3 * math.log(len(values)) * noise**2
    sums = [0.0, *itertools.accumulate(values)]
    found: list[int] = []
    parts = [(0, len(values))]
    while parts:
        start, end = parts.pop()
        gain, at = _best_cut(sums, start, end)
        if gain > penalty:
            found.append(at)
            parts += [(start, at), (at, end)]
    return tuple(sorted(found))


def _best_cut(sums: Sequence[float], start: int, end: int) -> tuple[float, int]:
    """By how much the squared error falls with a cut between the two, and where."""
    whole = (sums[end] - sums[start]) ** 2 / (end - start)
    best, where = 0.0, start
    for at in range(start + _LEAST_LEVEL, end - _LEAST_LEVEL + 1):
        left, right = sums[at] - sums[start], sums[end] - sums[at]
        gain = left**2 / (at - start) + right**2 / (end - at) - whole
        if gain > best:
            best, where = gain, at
    return best, where
