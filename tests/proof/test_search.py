"""Every search gives what comparing all that is readable gives, in whatever world.

The readable files are those of the oracle; the scores are written down a second time in brute.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine

from tests.database import Database
from tests.proof.brute import EVERYTHING, Brute, Narrowing
from tests.proof.check import acting
from tests.proof.contents import Contents, documents
from tests.proof.draw import Chance, draw_world, worlds
from tests.proof.load import load
from tests.proof.oracle import Oracle, is_allowed
from tests.proof.world import Caller, World

SEEDS, SIZE, CALLERS, LEAST = 8, 40, 5, 200
WORLDS, LEAST_OF_WORLDS = 150, 1_500
MOST = 100

MODES: dict[str, dict[str, float]] = {
    "keyword": {"vector": 0, "name": 0},
    "dense": {"keyword": 0, "name": 0},
    "names": {"keyword": 0, "vector": 0, "name": 1},
    "hybrid": {},
    "weighted": {"keyword": 0.5, "vector": 2, "name": 3},
}


@dataclass
class Seen:
    """What a caller sees, and brute force among it."""

    brute: Brute
    folders: dict[str, frozenset[str]]  # and the files in them
    paths: dict[str, str]  # of files
    pending: int  # files that are still being read

    def told(self, answer: Any) -> Iterator[str]:
        """Compare what an answer tells beside scores."""
        for hit in answer["hits"]:
            if hit["path"] != self.paths.get(hit["file_id"]):
                yield f"{hit['name']} is at {hit['path']}, not {self.paths.get(hit['file_id'])}"
        if answer["pending_files"] != self.pending:
            yield f"{answer['pending_files']} files are pending, not {self.pending}"


def ask(db: Database, function: str, **arguments: Any) -> Any:
    """Call a search as whoever is acting; what is not a number or text goes as JSON."""
    values = [json.dumps(v) if isinstance(v, dict | list) else v for v in arguments.values()]
    named = ", ".join(f"{key} => %s" for key in arguments)
    return db.one(f"select public.{function}({named})", *values)  # type: ignore[arg-type]


def answers(caller: Caller, oracle: Oracle) -> bool:
    """Whether this caller gets answers at all."""
    if caller.person is None:
        return oracle.link_of(caller) is not None
    return oracle.is_known(caller) and is_allowed(caller.person, "query")


def searches(
    db: Database, world: World, contents: Contents, counts: Counter[str], most: int = 1000
) -> Iterator[str]:
    """Compare the searches of so many callers; give the differences."""
    oracle = Oracle(world)
    everything = documents(world)
    callers = [caller for caller in world.callers if answers(caller, oracle)]
    for caller in contents.chance.sample(callers, min(most, len(callers))):
        files = [f for f in world.files if oracle.reads(caller, f)]
        seen = Seen(
            Brute(everything, {f.id for f in files}, oracle.owner_ids(caller)),
            {
                folder.id: frozenset(f.id for f in world.files if folder in f.above)
                for folder in world.folders
                if oracle.reads(caller, folder)
            },
            {
                file.id: "/"
                + "/".join(reversed([n.name for n in file.above if oracle.reads(caller, n)]))
                for file in files
            },
            sum(f.versions[-1].status == "processing" for f in files),
        )
        with acting(db, caller):
            for problem in _of_caller(db, world, contents, seen, counts):
                yield f"{caller}: {problem}"


def _of_caller(
    db: Database,
    world: World,
    contents: Contents,
    seen: Seen,
    counts: Counter[str],
) -> Iterator[str]:
    brute = seen.brute
    chance = contents.chance
    for mode, weights in MODES.items():
        query, vector = contents.question(is_elsewhere=chance.random() < 0.3)
        if mode == "names":
            query = contents.names()
        filters, narrowing = _narrow(world, seen, contents)
        candidates = chance.choice([1000, 1000, 3])
        fusion = chance.choice(["convex", "rrf"])
        call = {
            "query": query,
            "embedding": None if mode == "keyword" else vector,
            "filters": filters,
            "candidates": candidates,
            "options": {"weights": weights, "cache": False, "fusion": fusion},
        }
        answer = ask(db, "hybrid_search", **call, top_k=MOST, explain=mode == "dense")
        hits = answer["hits"]
        if mode == "dense":
            counts[f"plan {answer['explain']['plan']}"] += 1
        yield from seen.told(answer)
        counts[mode] += 1
        counts[f"hits of {mode}"] += len(hits)
        assert len(hits) < MOST
        for problem in brute.problems(
            hits, query, call["embedding"], fusion, weights, candidates, narrowing
        ):
            yield f"{mode} by {fusion} {query!r} {filters}: {problem}"
        if mode != "hybrid":
            continue
        few = ask(db, "hybrid_search", **call, top_k=2)["hits"]
        if few != hits[:2]:
            yield f"{mode} {query!r}: the first two are others when only two are asked for"
        by_file = ask(
            db, "hybrid_search", **call | {"options": call["options"] | {"group_by": "file"}},
            top_k=MOST,
        )["hits"]  # fmt: skip
        if candidates == 1000 and [h["file_id"] for h in by_file] != list(
            dict.fromkeys(h["file_id"] for h in hits)
        ):
            yield f"{mode} {query!r}: other files by file"
    filters, narrowing = _narrow(world, seen, contents)
    look = contents.look()
    for what, call in {
        "search_pages": {"vectors": look},
        "search_images": {"embedding": look[0]},
    }.items():
        answer = ask(db, what, **call, top_k=MOST, filters=filters)
        hits = answer["hits"]
        yield from seen.told(answer)
        found = {hit["file_id"]: hit["score"] for hit in hits}
        if len(found) != len(hits):
            yield f"{what}: something is there twice"
        if ask(db, what, **call, top_k=1, filters=filters)["hits"] != hits[:1]:
            yield f"{what}: the first is another when only one is asked for"
        ranks = (
            brute.pages(look, narrowing)  # type: ignore[arg-type]
            if what == "search_pages"
            else brute.images(look[0], narrowing)
        )
        counts[what] += 1
        counts[f"hits of {what}"] += len(hits)
        yield from brute.listing_problems(f"{what} {filters}", ranks, found, MOST)
    query = contents.names()
    filters, narrowing = _narrow(world, seen, contents, with_pages=False)
    items = ask(db, "search_files", query=query, page_size=1000, filters=filters)["items"]
    found = {item["id"]: item["score"] for item in items}
    counts["search_files"] += 1
    counts["hits of search_files"] += len(items)
    for item in items:
        if item["path"] != seen.paths.get(item["id"]):
            yield f"search_files: {item['name']} is at {item['path']}"
    yield from brute.listing_problems("search_files", brute.called(query, narrowing), found, 1000)
    every = {i["id"] for i in ask(db, "search_files", page_size=1000)["items"]}
    if every != brute.names.keys():
        yield f"search_files lists {len(every)} files of {len(brute.names)}"
    heads = [d for d in brute.readable if d.pieces]
    for document in chance.sample(heads, min(2, len(heads))):
        items = ask(db, "related_documents", file_id=document.id, top_k=MOST)["items"]
        counts["related_documents"] += 1
        counts["hits of related_documents"] += len(items)
        yield from brute.related_problems(document.id, items)
    hidden = [file.id for file in world.files if file.id not in seen.paths]
    for file_id in chance.sample(hidden, min(1, len(hidden))):
        told = None
        try:
            with db.connection.transaction():
                ask(db, "related_documents", file_id=file_id)
        except psycopg.Error as error:
            told = error.sqlstate
        if told != "PT404":
            yield f"related_documents of what cannot be read tells {told}"


def _narrow(
    world: World,
    seen: Seen,
    contents: Contents,
    *,
    with_pages: bool = True,
) -> tuple[dict[str, Any], Narrowing]:
    """Draw filters, and what they leave of the readable files."""
    chance = contents.chance
    how = chance.randrange(10)
    readable = {d.id for d in seen.brute.readable}
    if how == 0:  # also some that cannot be read, or are none
        ids = chance.sample([n.id for n in world.nodes], len(world.nodes) // 2)
        return {"file_ids": ids}, Narrowing(frozenset(ids))
    if how == 1 and seen.folders:
        folder = chance.choice(sorted(seen.folders))
        return {"folder_id": folder}, Narrowing(seen.folders[folder])
    if how == 2:
        owners = chance.sample([o.id for o in [*world.people, *world.workspaces]], 1)
        left = {d.id for d in seen.brute.readable if d.owner_id in owners}
        return {"owner_ids": owners}, Narrowing(frozenset(left))
    if how == 3:
        return {"types": ["txt"]}, Narrowing(frozenset(readable))
    if how == 4:
        return {"types": ["pdf"]}, Narrowing(frozenset())
    if how == 5 and with_pages:
        return {"page_from": 2}, Narrowing(page_from=2)
    return {}, EVERYTHING


def ask_the_index(db: Database) -> None:
    """Build the HNSW index, and have it asked wherever it can be."""
    statement = db.one("select private.vector_index_statement(1::smallint)")
    db.connection.execute(statement.replace("concurrently", ""))
    db.all(
        "update private.settings set value = '0'"
        " where key in ('search.exact_chunks', 'search.index_share')"
    )


def _difference(
    db: Database, world: World, seed: int, counts: Counter[str], callers: int
) -> str | None:
    contents = Contents(seed)
    contents.fill(world)
    with db.connection.transaction(force_rollback=True):
        load(db, world)
        if seed % 2:
            ask_the_index(db)
        difference = next(searches(db, world, contents, counts, callers), None)
    return f"{difference}\n\nin this world:\n{world}" if difference else None


def _is_proof(counts: Counter[str], least: int) -> None:
    """Check that enough was asked, and found: searches without hits prove nothing."""
    assert sum(counts[mode] for mode in MODES) >= least, counts
    assert min(counts["plan exact"], counts["plan hnsw"]) >= least / 40, counts
    for what in [*MODES, "search_pages", "search_images", "search_files", "related_documents"]:
        assert counts[what] >= least / 10, counts
        assert counts[f"hits of {what}"] >= least / 20, counts


def test_searches_are_those_of_brute_force(db: Database) -> None:
    counts = Counter[str]()
    for seed in range(SEEDS):
        world = draw_world(Chance(seed), SIZE)
        if difference := _difference(db, world, seed, counts, CALLERS):
            pytest.fail(difference, pytrace=False)
    _is_proof(counts, LEAST)


@pytest.mark.long
def test_searches_are_those_of_brute_force_in_many_worlds(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 60)
    counts = Counter[str]()

    @settings(
        max_examples=WORLDS,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(worlds(), st.integers(0, 10**6))
    def holds(world: World, seed: int) -> None:
        if difference := _difference(db, world, seed, counts, callers=1000):
            pytest.fail(difference, pytrace=False)

    holds()
    _is_proof(counts, LEAST_OF_WORLDS)
