"""What is made of the live scenarios' rounds: quartiles, ratios of the same round, percentiles and histograms.

Owns that, on plain numbers. Must not run anything.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import goals as aims

from multicast.bench import Spread, spread

PER_DECADE = 20  # bins of a histogram, from one power of ten to the next


def quartiles(values: Iterable[float]) -> Spread:
    """Return median and quartiles, also of a single round."""
    values = list(values)
    return spread(values * 2 if len(values) == 1 else values)


def ratio(own: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return one contender's figure where another's of the same round is 1."""
    return quartiles(mine / his for mine, his in zip(own, theirs, strict=True))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of an ordered sequence does not exceed."""
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def histogram(values: Iterable[float]) -> dict[str, Any]:
    """Count values above 0 by logarithmic bins: bin i begins at 10 ** (i / per_decade)."""
    counts = collections.Counter(math.floor(math.log10(max(1, value)) * PER_DECADE) for value in values)
    first, last = min(counts), max(counts)
    return {"per_decade": PER_DECADE, "first": first, "counts": [counts[at] for at in range(first, last + 1)]}


def edges(found: Mapping[str, Any]) -> list[float]:
    """Return where the bins of a histogram begin, and where the last one ends."""
    first, count = found["first"], len(found["counts"])
    return [10 ** (at / found["per_decade"]) for at in range(first, first + count + 1)]


def missing(title: str, text: str, result: Mapping[str, Any], *names: str) -> aims.Goal | None:
    """Return the goal as not measured, where one of its contenders did not run; None where all did."""
    for name in names:
        if name not in result["found"]:
            return aims.unmeasured(title, text, f"{name}: {result['absent'].get(name, 'was not to run')}")
    return None
