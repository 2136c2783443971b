"""Figures that an earlier version reached, and what counts as a loss against them.

A baseline is a small JSON: only figures of quality, which do not depend on the machine. A figure
is lost when it is lower by more than the tolerance, or, where few questions were asked, by more
than one question's worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from narwhal.errors import NarwhalError

TOLERANCE = 0.005
GATED = ("ndcg_at_10", "recall_at_100", "mrr_at_10", "hit_at_5", "recall_of_brute_force")


@dataclass(frozen=True)
class Loss:
    """A figure that is lower than it was."""

    where: str
    was: float
    now: float
    tolerance: float

    def __str__(self) -> str:
        return f"{self.where}: {self.now:.4f}, was {self.was:.4f} (tolerance {self.tolerance:.4f})"


def shipped(collection: str) -> Path:
    """Where the baseline of a collection is kept: beside this module, in the repository."""
    return Path(str(resources.files("narwhal.evaluation"))) / "baselines" / f"{collection}.json"


def read_baseline(path: Path) -> dict[str, Any]:
    """Read a baseline; raises NarwhalError NOT_FOUND when there is none."""
    try:
        baseline: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NarwhalError(
            f"There is no baseline {path}.",
            "Store the figures of this run: narwhal eval run FOLDER --update-baseline",
            error="NOT_FOUND",
            status=404,
        ) from None
    except ValueError as error:
        raise NarwhalError(f"The baseline {path} cannot be read: {error}.") from error
    return baseline


def write_baseline(path: Path, figures: dict[str, Any]) -> None:
    """Store the figures of quality of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(quality_of(figures), indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def quality_of(figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures without those of time."""
    if isinstance(figures, dict):
        return {
            name: quality_of(value) for name, value in figures.items() if not name.endswith("_ms")
        }
    return figures


def losses(
    baseline: dict[str, Any], figures: dict[str, Any], tolerance: float = TOLERANCE
) -> list[Loss]:
    """What is lower than in the baseline; a figure that is missing now counts as 0.

    Raises NarwhalError CONFLICT_STATE when the baseline is of other data or another model.
    """
    for name in ("collection", "fingerprint"):
        if baseline.get(name) != figures.get(name):
            raise NarwhalError(
                f"The baseline is of other data: its {name} is {baseline.get(name)}, "
                f"here it is {figures.get(name)}.",
                "Evaluate the same collection, or store a new baseline with --update-baseline.",
                error="CONFLICT_STATE",
                status=409,
            )
    now = {where: value for where, value, _ in _gated(figures)}
    found = []
    for where, was, questions in _gated(baseline):
        allowed = max(tolerance, 1 / max(questions, 1))
        if was - now.get(where, 0.0) > allowed + 1e-9:
            found.append(Loss(where, was, now.get(where, 0.0), allowed))
    return found


def _gated(figures: dict[str, Any]) -> Iterator[tuple[str, float, int]]:
    """Walk over the gated figures: (place, value, number of questions)."""
    for share, of_share in figures["shares"].items():
        groups = {share: of_share} | {
            f"{share}, {language}": group
            for language, group in of_share.get("languages", {}).items()
        }
        for group, entry in groups.items():
            for mode, values in entry["modes"].items():
                for name in GATED:
                    if name in values:
                        yield f"{group}, {mode}, {name}", values[name], entry["questions"]
