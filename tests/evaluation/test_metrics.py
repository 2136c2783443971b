"""Measures against figures worked out by hand, as trec_eval defines them."""

from __future__ import annotations

import math

import pytest

from narwhal.evaluation.metrics import Quality, judge, mean, ndcg, percentile


def test_graded_gains_are_discounted_by_the_logarithm_of_the_rank() -> None:
    # gains 3, 0, 2, 1 at ranks 1 to 4; best possible order 3, 2, 1
    found = 3 / 1 + 2 / 2 + 1 / math.log2(5)
    best = 3 / 1 + 2 / math.log2(3) + 1 / 2
    judgments = {"a": 3, "b": 2, "c": 1}
    assert ndcg(["a", "x", "b", "c"], judgments, 10) == pytest.approx(found / best)
    assert found / best == pytest.approx(0.93038, abs=1e-4)


def test_the_example_of_jarvelin_and_kekalainen_with_linear_gains() -> None:
    # gains 3 2 3 0 1 2, ideal 3 3 2 2 1 0: DCG 6.861, IDCG 7.141 (log2(rank + 1))
    judgments = {"d1": 3, "d2": 2, "d3": 3, "d5": 1, "d6": 2}
    assert ndcg(["d1", "d2", "d3", "d4", "d5", "d6"], judgments, 6) == pytest.approx(
        6.86113 / 7.14100, abs=1e-5
    )


def test_what_is_missing_from_the_ranking_lowers_the_figure() -> None:
    judgments = dict.fromkeys("abcd", 1)
    found = judge(["a", "x", "y", "b"], judgments)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, 5))
    assert found is not None
    assert found.ndcg_at_10 == pytest.approx((1 + 1 / math.log2(5)) / ideal)
    assert found.recall_at_100 == 0.5


def test_only_the_first_ten_count_and_the_ideal_has_ten_too() -> None:
    judgments = {f"r{i}": 1 for i in range(20)}
    assert ndcg([f"r{i}" for i in range(20)], judgments, 10) == 1
    late = [f"x{i}" for i in range(10)] + list(judgments)
    figures = judge(late, judgments)
    assert figures == Quality(ndcg_at_10=0.0, recall_at_100=1.0, mrr_at_10=0.0, hit_at_5=0.0)


def test_what_was_not_judged_or_judged_negative_gains_nothing() -> None:
    judgments = {"a": 1, "bad": -1, "none": 0}
    assert ndcg(["bad", "none", "unknown", "a"], judgments, 10) == pytest.approx(1 / math.log2(5))
    found = judge(["bad", "none", "unknown", "a"], judgments)
    assert found is not None
    assert (found.mrr_at_10, found.recall_at_100) == (0.25, 1.0)


def test_a_question_without_relevant_documents_has_no_figures() -> None:
    assert judge(["a", "b"], {}) is None
    assert judge(["a", "b"], {"a": 0, "b": -1}) is None


def test_the_first_relevant_document_decides_the_reciprocal_rank_and_the_hit() -> None:
    def at(rank: int) -> Quality:
        figures = judge([f"x{i}" for i in range(1, rank)] + ["a"], {"a": 1})
        assert figures is not None
        return figures

    assert [at(rank).mrr_at_10 for rank in (1, 2, 5, 10, 11)] == [1, 0.5, 0.2, 0.1, 0]
    assert [at(rank).hit_at_5 for rank in (1, 5, 6)] == [1, 1, 0]
    assert [at(rank).recall_at_100 for rank in (100, 101)] == [1, 0]


def test_an_empty_ranking_finds_nothing() -> None:
    assert judge([], {"a": 1}) == Quality(0.0, 0.0, 0.0, 0.0)


def test_a_ranking_with_a_document_twice_is_refused() -> None:
    # it would count a document's gain twice, and could exceed 1
    with pytest.raises(ValueError, match="once"):
        judge(["a", "a"], {"a": 1})


def test_documents_of_equal_gain_may_stand_in_any_order() -> None:
    judgments = {"a": 2, "b": 2, "c": 1}
    assert ndcg(["a", "b", "c"], judgments, 10) == ndcg(["b", "a", "c"], judgments, 10) == 1
    assert ndcg(["c", "a", "b"], judgments, 10) < 1


def test_means_are_over_questions() -> None:
    first, second = Quality(1, 0.5, 1, 1), Quality(0, 1, 0.5, 0)
    assert mean([first, second]) == Quality(0.5, 0.75, 0.75, 0.5)


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(i) for i in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.95)) == (50, 95)
    assert percentile([7.0], 0.95) == 7
