"""One rule of who may see and do what: random worlds, every surface, against the oracle.

A check is one caller, one thing and one surface.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.internal.conjecture import engine

from tests.database import Database
from tests.proof.check import ATTEMPT, check
from tests.proof.draw import worlds
from tests.proof.load import load
from tests.proof.world import World

WORLDS, LEAST, EVERY = 25, 10_000, 4
ALL_WORLDS, ALL_LEAST, ALL_EVERY = 320, 1_000_000, 2


@pytest.fixture
def proving(db: Database) -> Iterator[Database]:
    """A transaction in which single calls can be tried."""
    db.connection.execute(ATTEMPT)
    yield db


def _prove(
    db: Database, count: int, least: int, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a failing run ends in time, too: the world that it shows may then be a little larger
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 60)
    counts = Counter[str]()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(worlds())
    def holds(world: World) -> None:
        with db.connection.transaction(force_rollback=True):
            load(db, world)
            difference = next(check(db, world, counts, every), None)
        if difference:
            pytest.fail(f"{difference}\n\nin this world:\n{world}", pytrace=False)

    holds()
    assert sum(counts.values()) >= least, counts


def test_every_surface_follows_the_rule(proving: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _prove(proving, WORLDS, LEAST, EVERY, monkeypatch)


@pytest.mark.long
def test_every_surface_follows_the_rule_a_million_times(
    proving: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _prove(proving, ALL_WORLDS, ALL_LEAST, ALL_EVERY, monkeypatch)
