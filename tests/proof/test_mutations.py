"""Whatever part of the rule is loosened, the comparison with the oracle notices."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from tests.database import Database
from tests.proof.check import ATTEMPT, check
from tests.proof.draw import Chance, draw_world
from tests.proof.fixed import fixed_world
from tests.proof.load import load
from tests.proof.mutations import FUNCTIONS, PARTS_OF_POLICIES, Mutation, policies
from tests.proof.world import World

SEEDS = range(2)
SIZE = 10
SAMPLE = 15


@dataclass
class Fixed:
    """Worlds that are the same in every run, side by side."""

    db: Database
    worlds: list[World]

    def difference(self) -> str | None:
        """Return the first thing that differs from the oracle."""
        for world in self.worlds:
            for difference in check(self.db, world, Counter(), 3):
                return difference
        return None

    def mutations(self) -> list[Mutation]:
        """Every policy, and every piece of the rule."""
        return [*policies(self.db), *PARTS_OF_POLICIES, *FUNCTIONS]

    def unnoticed(self, mutations: list[Mutation]) -> list[str]:
        """Return the mutations that change nothing that anybody sees or does."""
        found = []
        for mutation in mutations:
            with self.db.connection.transaction(force_rollback=True):
                mutation.apply(self.db)
                if self.difference() is None:
                    found.append(str(mutation))
                    print("UNNOTICED", mutation, flush=True)
        return found


@pytest.fixture
def fixed(db: Database) -> Iterator[Fixed]:
    db.connection.execute(ATTEMPT)
    worlds = [fixed_world(), *(draw_world(Chance(seed), SIZE) for seed in SEEDS)]
    for world in worlds:
        load(db, world)
    made = Fixed(db, worlds)
    yield made


def test_the_fixed_worlds_are_right_as_they_are(fixed: Fixed) -> None:
    assert fixed.difference() is None


def test_loosening_a_part_of_the_rule_is_noticed(fixed: Fixed) -> None:
    every = fixed.mutations()
    assert fixed.unnoticed(random.Random(len(every)).sample(every, SAMPLE)) == []


def test_every_helper_of_the_rule_is_mutated(db: Database) -> None:
    """Whatever a policy or the check of a level calls, and whatever that calls."""
    sources = dict(
        db.all(
            "select p.proname, string_agg(pg_get_functiondef(p.oid), ' ') from pg_proc as p"
            " where p.pronamespace = 'private'::regnamespace and p.prokind = 'f' group by 1"
        )
    )
    expressions = db.all(
        "select coalesce(qual, '') || coalesce(with_check, '') from pg_policies"
        " where schemaname = 'public' or policyname like 'narwhal\\_%%'"
    )
    to_read = [*expressions, sources["require_level"], sources["require_permission"]]
    helpers = {"require_level", "require_permission"}
    while to_read:
        called = set(re.findall(r"private\.(\w+)\(", to_read.pop())) & sources.keys() - helpers
        helpers |= called
        to_read += [sources[name] for name in called]
    mutated = {name for mutation in FUNCTIONS for name in mutation.functions}
    assert helpers - mutated == NO_PART_OF_THE_RULE


NO_PART_OF_THE_RULE = {
    *("raise_error", "error_status"),  # how it is said
    "hash_token",  # how a token is stored
    "hold_account",  # who stays until the end of a transaction
}


def test_every_mutation_still_fits(db: Database) -> None:
    wrong = []
    for mutation in [*policies(db), *PARTS_OF_POLICIES, *FUNCTIONS]:
        try:
            with db.connection.transaction(force_rollback=True):
                mutation.apply(db)
        except (LookupError, psycopg.Error) as error:
            wrong.append(f"{mutation}: {error}")
    assert wrong == [], "\n".join(wrong)


@pytest.mark.long
def test_loosening_any_part_of_the_rule_is_noticed(fixed: Fixed) -> None:
    assert fixed.unnoticed(fixed.mutations()) == []
