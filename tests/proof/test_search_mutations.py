"""Whatever part of a search is loosened, the comparison with brute force notices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import psycopg
import pytest

from tests.database import Database
from tests.proof.contents import Contents
from tests.proof.draw import Chance, draw_world
from tests.proof.load import load
from tests.proof.mutations import SEARCHES, Mutation
from tests.proof.test_search import ask_the_index, searches

SEEDS = range(4)
SIZE = 30
SAMPLE = 8


@pytest.fixture
def difference(db: Database) -> Callable[[], str | None]:
    """Some worlds side by side; what differs first in them from brute force."""
    made = []
    for seed in SEEDS:
        world = draw_world(Chance(seed), SIZE)
        Contents(seed).fill(world)
        load(db, world)
        made.append(world)
    ask_the_index(db)

    def compare() -> str | None:
        for seed, world in enumerate(made):
            contents = Contents(seed)  # whose subjects are those of the world
            try:
                with db.connection.transaction(force_rollback=True):
                    for found in searches(db, world, contents, Counter()):
                        return found
            except (psycopg.Error, AssertionError) as error:
                return repr(error)
        return None

    return compare


def _unnoticed(
    db: Database, difference: Callable[[], str | None], mutations: list[Mutation]
) -> list[str]:
    found = []
    for mutation in mutations:
        with db.connection.transaction(force_rollback=True):
            mutation.apply(db)
            noticed = difference()
        if noticed is None:
            found.append(str(mutation))
            print("UNNOTICED", mutation, flush=True)
    return found


def test_the_worlds_are_right_as_they_are(difference: Callable[[], str | None]) -> None:
    assert difference() is None


def test_every_mutation_of_searches_still_fits(db: Database) -> None:
    wrong = []
    for mutation in SEARCHES:
        try:
            with db.connection.transaction(force_rollback=True):
                mutation.apply(db)
        except (LookupError, psycopg.Error) as error:
            wrong.append(f"{mutation}: {error}")
    assert wrong == [], "\n".join(wrong)


def test_loosening_a_part_of_a_search_is_noticed(
    db: Database, difference: Callable[[], str | None]
) -> None:
    some = random.Random(len(SEARCHES)).sample(SEARCHES, SAMPLE)
    assert _unnoticed(db, difference, list(some)) == []


@pytest.mark.long
def test_loosening_any_part_of_a_search_is_noticed(
    db: Database, difference: Callable[[], str | None]
) -> None:
    assert _unnoticed(db, difference, list(SEARCHES)) == []
