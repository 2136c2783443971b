"""Measures of a ranking, as trec_eval defines them.

A ranking is a list of ids, best first, each once; judgments map ids to gains. What was not judged
gains nothing. A question without a relevant document has no figures: there is nothing to find.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Quality:
    """Figures of one question, or their means over some."""

    ndcg_at_10: float
    recall_at_100: float
    mrr_at_10: float
    hit_at_5: float


def judge(ranking: Sequence[str], judgments: Mapping[str, int]) -> Quality | None:
    """Judge one ranking; None when no document is relevant to its question."""
    relevant = {name for name, gain in judgments.items() if gain > 0}
    if not relevant:
        return None
    if len(set(ranking)) != len(ranking):
        raise ValueError("a ranking names each document once")
    first = next((place for place, name in enumerate(ranking, 1) if name in relevant), math.inf)
    return Quality(
        ndcg_at_10=ndcg(ranking, judgments, 10),
        recall_at_100=len(relevant.intersection(ranking[:100])) / len(relevant),
        mrr_at_10=1 / first if first <= 10 else 0.0,
        hit_at_5=float(first <= 5),
    )


def ndcg(ranking: Sequence[str], judgments: Mapping[str, int], depth: int) -> float:
    """Normalised discounted cumulative gain: sum of gain / log2(rank + 1), over the best possible.

    Gains count as they are (not 2^gain - 1), negative ones as none.
    """
    best = sorted(judgments.values(), reverse=True)
    ideal = _gain(best[:depth])
    return _gain(judgments.get(name, 0) for name in ranking[:depth]) / ideal if ideal else 0.0


def mean(figures: Sequence[Quality]) -> Quality:
    """The mean of each figure over the questions that have any."""
    return Quality(
        *(
            math.fsum(getattr(one, field.name) for one in figures) / len(figures)
            for field in fields(Quality)
        )
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _gain(gains: Iterable[int]) -> float:
    return math.fsum(max(gain, 0) / math.log2(place + 1) for place, gain in enumerate(gains, 1))
