"""What counts as a loss against stored figures."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from narwhal.errors import NarwhalError
from narwhal.evaluation.baseline import (
    losses,
    quality_of,
    read_baseline,
    shipped,
    write_baseline,
)

QUALITY = {"ndcg_at_10": 0.7, "recall_at_100": 0.9, "mrr_at_10": 0.65, "hit_at_5": 0.8}
FIGURES: dict[str, Any] = {
    "collection": "small",
    "fingerprint": "e25a6454b068bd64",
    "space": "minilm-l6-v2",
    "shares": {
        "100 %": {
            "files": 400,
            "questions": 1000,
            "modes": {
                "dense": QUALITY | {"recall_of_brute_force": 1.0, "p50_ms": 5.0, "p95_ms": 9.0},
                "hybrid": QUALITY | {"p50_ms": 7.0, "p95_ms": 12.0},
            },
            "languages": {"de": {"questions": 5, "modes": {"hybrid": dict(QUALITY)}}},
        }
    },
}


def changed(change: float, *, mode: str = "hybrid", name: str = "ndcg_at_10") -> dict[str, Any]:
    """The figures with one of them changed."""
    figures = copy.deepcopy(FIGURES)
    figures["shares"]["100 %"]["modes"][mode][name] += change
    return figures


def test_a_lower_figure_is_a_loss_and_a_higher_one_is_none() -> None:
    assert losses(FIGURES, FIGURES) == []
    assert losses(FIGURES, changed(0.2)) == []
    assert losses(FIGURES, changed(-0.004)) == []
    (loss,) = losses(FIGURES, changed(-0.006))
    assert loss.where == "100 %, hybrid, ndcg_at_10"
    assert str(loss) == "100 %, hybrid, ndcg_at_10: 0.6940, was 0.7000 (tolerance 0.0050)"
    assert losses(FIGURES, changed(-0.006), tolerance=0.01) == []
    assert losses(FIGURES, changed(-0.004), tolerance=0.001) != []


@pytest.mark.parametrize("name", [*QUALITY, "recall_of_brute_force"])
def test_every_figure_of_quality_is_gated(name: str) -> None:
    (loss,) = losses(FIGURES, changed(-0.05, mode="dense", name=name))
    assert loss.where == f"100 %, dense, {name}"


def test_latency_is_neither_stored_nor_gated(tmp_path: Path) -> None:
    assert losses(FIGURES, changed(1000.0, name="p50_ms")) == []
    write_baseline(tmp_path / "baselines" / "small.json", FIGURES)
    stored = read_baseline(tmp_path / "baselines" / "small.json")
    assert stored == quality_of(FIGURES)
    assert "_ms" not in json.dumps(stored)
    assert losses(stored, FIGURES) == []


def test_one_question_of_few_is_chance() -> None:
    worse = copy.deepcopy(FIGURES)
    german = worse["shares"]["100 %"]["languages"]["de"]["modes"]["hybrid"]
    german["hit_at_5"] -= 0.2
    assert losses(FIGURES, worse) == []
    german["hit_at_5"] -= 0.2
    (loss,) = losses(FIGURES, worse)
    assert loss.where == "100 %, de, hybrid, hit_at_5"


def test_what_is_not_measured_any_more_is_lost() -> None:
    gone = copy.deepcopy(FIGURES)
    del gone["shares"]["100 %"]["modes"]["dense"]
    assert {loss.now for loss in losses(FIGURES, gone)} == {0.0}
    assert len(losses(FIGURES, gone)) == 5


@pytest.mark.parametrize("name", ["collection", "fingerprint"])
def test_figures_of_other_data_are_not_compared(name: str) -> None:
    with pytest.raises(NarwhalError) as error:
        losses(FIGURES | {name: "other"}, FIGURES)
    assert error.value.error == "CONFLICT_STATE"


def test_a_missing_baseline_is_said() -> None:
    with pytest.raises(NarwhalError) as error:
        read_baseline(Path("nowhere.json"))
    assert error.value.error == "NOT_FOUND"


SHIPPED = sorted(shipped("any").parent.glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_baseline_of_the_repository_is_of_its_collection_and_gates_each_mode(path: Path) -> None:
    baseline = read_baseline(path)
    assert baseline["collection"] == path.stem
    assert quality_of(baseline) == baseline
    assert losses(baseline, baseline) == []
    for mode in ("keyword", "dense", "hybrid"):
        worse = copy.deepcopy(baseline)
        worse["shares"]["100 %"]["modes"][mode]["ndcg_at_10"] -= 0.03
        assert f"100 %, {mode}, ndcg_at_10" in {loss.where for loss in losses(baseline, worse)}


def test_the_repository_has_baselines() -> None:
    expected = {"adi", "cisi", "cranfield", "documents", "npl-vaswani", "scifact"}
    assert expected <= {path.stem for path in SHIPPED}
