"""Embedding spaces: added, filled, flipped, rolled back, retired; searched all the while."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db import pictures
from tests.db.conftest import Drive, embed, refused
from tests.db.invariants import UNEQUAL, UNNEEDED, UNSERVED

WORDS = ["alpha", "bravo", "carol", "delta", "echo"]


def turned(text: str) -> list[float]:
    """A second model: longer words weigh more, at other places."""
    vector = [0.0] * 16
    for word in text.lower().split():
        vector[sum(word.encode()) % 16] += float(len(word))
        vector[len(word) % 16] += 1.0
    norm = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / norm for x in vector]


MODELS: dict[str, Callable[[str], list[float]]] = {"minilm-l6-v2": embed, "next": turned}


def add(db: Database, name: str = "next", dimension: int = 16, **more: object) -> Any:
    """Register a space as the command line does: again, while the server's vacuum is at work."""
    named = {"model": "m", "revision": "1"} | more
    for attempt in range(20):
        try:
            with db.connection.transaction():
                return db.one(
                    "select private.add_space(name => %s, dimension => %s, model => %s,"
                    " revision => %s, kind => %s)",
                    name,
                    dimension,
                    named["model"],
                    named["revision"],
                    named.get("kind", "text"),
                )
        except psycopg.Error as error:
            if attempt == 19 or '"LOCKED"' not in (error.diag.message_detail or ""):
                raise
    raise AssertionError


def show(db: Database, name: str = "next") -> Any:
    return db.one("select private.describe_space(private.space_named(%s))", name)


def queue_all(db: Database, name: str = "next", at_once: int = 1000) -> int:
    """Queue a back-fill in batches; return how many files were queued."""
    space, last, count = show(db, name)["id"], None, 0
    while True:
        batch = db.one(
            "select private.queue_backfill(%s::smallint, %s::uuid, %s)", space, last, at_once
        )
        count += batch["queued"]
        last = batch["last"]
        if last is None:
            return count


def embed_all(drive: Drive, limit: int = 1000) -> list[Any]:
    """Run the jobs of embed_text that are due with the model of their space; return them."""
    done: list[Any] = []
    while len(done) < limit and (jobs := drive.claim()):
        (job,) = jobs
        assert job["stage"] == "embed_text"
        finish(drive, job)
        done.append(job)
    return done


def finish(drive: Drive, job: Any) -> None:
    model = MODELS[job["space"]["name"]]
    texts = drive.work("job_texts", job, 1000)["texts"]
    vectors = [{"hash": t["hash"], "embedding": model(t["content"])} for t in texts]
    drive.work("store_vectors", job, vectors)
    drive.work("finish_embed_text", job)


def fill(drive: Drive, name: str = "next") -> None:
    """Add a space and back-fill it."""
    add(drive.db, name)
    queue_all(drive.db, name)
    embed_all(drive)


def upload_text(drive: Drive, user: uuid.UUID, name: str, *texts: str) -> Any:
    """Upload a file and run every job of it, in each space with its own model."""
    ticket = drive.upload(user, name)
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "embed_text":
                finish(drive, job)
            else:
                drive.run_stage(job, list(texts))
    return ticket


def ask(drive: Drive, user: uuid.UUID, query: str, space: str = "active") -> Any:
    """Search by meaning only, as a client does: embed for the space, then search in it."""
    name = drive.rpc(user, "embedding_space", space=space)["name"]
    return drive.search(
        user,
        query,
        embedding=Jsonb(MODELS[name](query)),
        space=name,
        top_k=50,
        options={"weights": {"keyword": 0, "vector": 1}},
    )


def order(answer: Any) -> list[tuple[str, float]]:
    return [(hit["chunk_id"], hit["score"]) for hit in answer["hits"]]


@pytest.fixture
def owner(db: Database, drive: Drive) -> uuid.UUID:
    """Somebody with three files of five chunks."""
    user = db.create_user()
    for number in range(3):
        texts = [f"{word} {WORDS[number]} {'x' * number}y" for word in WORDS]
        drive.file(user, f"{number}.txt", *texts)
    return user


# Added -------------------------------------------------------------------------------------------


def test_a_new_space_is_building_and_lacks_everything(db: Database, owner: uuid.UUID) -> None:
    made = add(db)
    assert (made["name"], made["state"], made["dimension"]) == ("next", "building", 16)
    assert (made["vectors"], made["missing_files"], made["missing_chunks"]) == (0, 3, 15)
    names = [s["name"] for s in db.all("select private.list_spaces()")]
    assert names == ["minilm-l6-v2", "next"]
    assert show(db, "minilm-l6-v2")["missing_chunks"] == 0


@pytest.mark.parametrize("dimension", [1, 384, 1201, 4000])
def test_a_space_may_have_any_dimension(
    db: Database, drive: Drive, owner: uuid.UUID, dimension: int
) -> None:
    add(db, "wide", dimension)
    queue_all(db, "wide")
    while jobs := drive.claim():
        (job,) = jobs
        for text in drive.work("job_texts", job, 1000)["texts"]:
            vector = [float(len(text["content"]) + i % 7) for i in range(dimension)]
            length = math.sqrt(sum(x * x for x in vector))
            unit = [x / length for x in vector]
            drive.work("store_vectors", job, [{"hash": text["hash"], "embedding": unit}])
        drive.work("finish_embed_text", job)
    assert db.one("select private.activate_space('wide')")["changed"]
    answer = drive.search(owner, "anything", embedding=Jsonb([1.0] * dimension), space="wide")
    assert answer["space"] == "wide"
    assert len(answer["hits"]) == 8
    with refused("INVALID_ARGUMENT", field="embedding", expected=dimension):
        drive.search(owner, "anything", embedding=Jsonb([1.0] * (dimension + 1)), space="wide")


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("dimension", {"dimension": 0}),
        ("dimension", {"dimension": 4001}),
        ("name", {"name": "Über"}),
        ("name", {"name": "active"}),
        ("model", {"model": ""}),
        ("revision", {"revision": ""}),
        ("kind", {"kind": "sound"}),
    ],
)
def test_what_no_space_can_have_is_refused(db: Database, field: str, more: Any) -> None:
    with refused("INVALID_ARGUMENT", field=field), db.as_role("postgres"):
        add(db, **more)


def test_a_name_is_taken_once(db: Database) -> None:
    add(db)
    with refused("CONFLICT_NAME", space="next", state="building"), db.as_role("postgres"):
        add(db)


# Filled ------------------------------------------------------------------------------------------


def test_a_back_fill_goes_through_the_queue_in_batches(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    add(db)
    assert queue_all(db, at_once=2) == 3
    assert queue_all(db) == 0  # they are queued
    assert show(db)["jobs"] == {"queued": 3, "running": 0, "failed": 0, "done": 0}
    assert len(embed_all(drive)) == 3
    assert (show(db)["vectors"], show(db)["missing_chunks"]) == (15, 0)
    assert queue_all(db) == 0
    assert db.one(
        "select private.complete_backfill(id) ->> 'state' from public.embedding_spaces"
        " where name = 'next'"
    ) == ("shadow")
    for query in (UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(query) == []


def test_files_in_the_trash_are_filled_too(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    file = db.one("select id::text from public.nodes where name = '1.txt'")
    drive.rpc(owner, "trash_nodes", ids=[file])
    fill(drive)
    assert show(db)["missing_chunks"] == 0
    db.one("select private.activate_space('next')")
    assert len(ask(drive, owner, "alpha")["hits"]) == 10
    drive.rpc(owner, "restore_nodes", ids=[file])
    assert len(ask(drive, owner, "alpha")["hits"]) == 15


def test_a_back_fill_disturbs_no_file(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    states = "select id, status, updated_at, head_version_id from public.nodes order by id"
    before = db.all(states)
    add(db)
    queue_all(db)
    job = drive.claim()[0]
    for _ in range(3):  # the new model breaks on it
        drive.work("fail_job", job, "internal", "No such model.", False)
        db.all("update public.ingest_jobs set run_after = now() where state = 'queued'")
        job = next((j for j in drive.claim(9) if j["id"] == job["id"]), job)
    assert show(db)["jobs"]["failed"] == 1
    assert db.all(states) == before
    assert drive.search(owner, "alpha")["pending_files"] == 0


def test_what_a_file_needs_comes_before_a_back_fill(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    add(db)
    queue_all(db)
    drive.upload(owner, "new.txt")
    stages = []
    while jobs := drive.claim():
        (job,) = jobs
        stages.append((job["stage"], (job["space"] or {}).get("name"), job["name"] == "new.txt"))
        if job["stage"] == "embed_text":
            finish(drive, job)
        else:
            drive.run_stage(job, ["zulu"])
    assert stages == [
        ("detect", None, True),
        ("extract", None, True),
        ("chunk", None, True),
        ("embed_text", "minilm-l6-v2", True),
        ("embed_text", "next", True),
        *[("embed_text", "next", False)] * 3,
    ]


def test_new_and_changed_files_are_embedded_in_every_space_that_lives(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    add(db, "old")
    db.one("select private.retire_space('old')")
    upload_text(drive, owner, "new.txt", "zulu alpha")
    assert show(db)["missing_chunks"] == 0
    assert show(db, "minilm-l6-v2")["missing_chunks"] == 0
    assert show(db, "old")["jobs"]["done"] == show(db, "old")["vectors"] == 0
    file = db.one("select id::text from public.nodes where name = 'new.txt'")
    head = db.one("select head_version_id::text from public.nodes where name = 'new.txt'")
    drive.upload(owner, "new.txt", size=12, file_id=file, on_conflict="version", base_version=head)
    upload_text(drive, owner, "more.txt", "yankee alpha")
    assert show(db)["missing_chunks"] == show(db, "minilm-l6-v2")["missing_chunks"] == 0


def test_a_file_is_ready_without_the_spaces_on_trial(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    drive.upload(owner, "new.txt")
    while (job := drive.claim()[0])["stage"] != "embed_text":
        drive.run_stage(job, ["zulu"])
    assert job["space"]["name"] == "minilm-l6-v2"
    finish(drive, job)
    assert db.one("select status from public.nodes where name = 'new.txt'") == "ready"
    assert show(db)["missing_files"] == 1
    with refused("CONFLICT_STATE", missing_files=1, missing_chunks=1), db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    embed_all(drive)
    assert db.one("select private.activate_space('next')")["changed"]


def test_an_estimate_counts_equal_texts_once_and_states_its_rate(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    drive.file(owner, "again.txt", *(f"{word} alpha y" for word in WORDS))  # as 0.txt
    space = add(db)["id"]
    estimate = db.one("select private.estimate_backfill(%s::smallint, 30, 2.4, 2)", space)
    assert estimate == {
        "space": "next",
        "files": 4,
        "chunks": 20,
        "to_embed": 15,
        "chunks_per_minute": 30,
        "rate_from": "argument",
        "workers": 2,
        "minutes": 0.25,
        "worker_minutes": 0.5,
        "price_per_hour": 2.4,
        "cost_usd": 0.02,
    }
    assert db.one("select private.estimate_backfill(%s::smallint)", space)["rate_from"] == "setting"
    queue_all(db)
    embed_all(drive)
    done = db.one("select private.estimate_backfill(%s::smallint)", space)
    assert (done["to_embed"], done["minutes"], done["cost_usd"]) == (0, 0, 0)


def test_the_rate_of_an_estimate_is_that_of_the_last_jobs(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    for number in range(10):
        drive.file(owner, f"more {number}.txt", f"one {number}", f"two {number}")
    fill(drive)
    db.all(
        "update public.ingest_jobs set started_at = finished_at - interval '5 seconds'"
        " where space_id = %s",
        show(db)["id"],
    )
    estimate = db.one("select private.estimate_backfill(%s::smallint)", show(db)["id"])
    # 35 texts in 13 jobs of five seconds
    assert estimate["rate_from"] == "jobs"
    assert estimate["chunks_per_minute"] == pytest.approx(60 * 35 / 65, rel=1e-4)


# Flipped -----------------------------------------------------------------------------------------


def test_a_space_that_lacks_something_is_not_activated(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    add(db)
    with refused("CONFLICT_STATE", missing_files=3, missing_chunks=15), db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    queue_all(db)
    embed_all(drive, limit=2)
    with refused("CONFLICT_STATE", missing_files=1, missing_chunks=5), db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    assert show(db)["state"] == "building"
    embed_all(drive)
    db.one("select private.activate_space('next')")
    assert (show(db)["state"], show(db, "minilm-l6-v2")["state"]) == ("active", "shadow")


def test_a_flip_changes_the_answers_and_a_rollback_restores_their_order(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    before = {word: ask(drive, owner, word) for word in WORDS}
    trial = {word: ask(drive, owner, word, "next") for word in WORDS}
    assert {a["space"] for a in before.values()} == {"minilm-l6-v2"}
    assert any(order(before[word]) != order(trial[word]) for word in WORDS)
    flipped = db.one("select private.activate_space('next')")
    assert flipped == {"space": "next", "previous": "minilm-l6-v2", "changed": True}
    assert {word: ask(drive, owner, word) for word in WORDS} == trial
    # whoever embedded for the space before is answered from it
    assert ask(drive, owner, "alpha", "minilm-l6-v2") == before["alpha"]
    assert not db.one("select private.activate_space('next')")["changed"]

    upload_text(drive, owner, "since.txt", "quebec")
    back = db.one("select private.rollback_space()")
    assert (back["space"], back["previous"], back["missing_chunks"]) == ("minilm-l6-v2", "next", 0)
    file = db.one("select id::text from public.nodes where name = 'since.txt'")
    assert len(ask(drive, owner, "quebec")["hits"]) == 16
    drive.rpc(owner, "trash_nodes", ids=[file])
    assert {word: order(ask(drive, owner, word)) for word in WORDS} == {
        word: order(before[word]) for word in WORDS
    }
    with refused("CONFLICT_STATE", active="minilm-l6-v2"), db.as_role("postgres"):
        db.one("select private.rollback_space()")


def test_rollbacks_go_back_one_flip_after_the_other(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    MODELS["third"] = turned
    fill(drive)
    fill(drive, "third")
    db.one("select private.activate_space('next')")
    db.one("select private.activate_space('third')")
    spaces = [db.one("select private.rollback_space() ->> 'space'") for _ in range(2)]
    assert spaces == ["next", "minilm-l6-v2"]
    assert [f["before"] for f in show(db, "third")["flips"]] == ["next"]
    assert show(db, "third")["flips"][0]["rolled_back_at"]


def test_two_spaces_of_a_kind_are_never_active(db: Database) -> None:
    add(db)
    with pytest.raises(psycopg.errors.ExclusionViolation):
        db.all("update public.embedding_spaces set state = 'active' where name = 'next'")


def test_files_that_waited_for_the_space_before_are_ready_after_a_flip(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    drive.upload(owner, "new.txt")
    while (job := drive.claim()[0])["stage"] != "embed_text":
        drive.run_stage(job, ["zulu"])
    status = "select status from public.nodes where name = 'new.txt'"
    drive.work("fail_job", job, "internal", "The old model is gone.", True)
    assert db.one(status) == "failed"
    embed_all(drive)
    assert db.one("select private.activate_space('next')")["changed"]
    settle = "select private.settle_space(private.active_space_id('text'))"
    assert db.one(settle) == 1
    assert db.one(status) == "ready"
    assert db.one(settle) == 0
    # and the other way round: the space before lacks it, and says so
    db.one("select private.rollback_space()")
    db.all(
        "update public.ingest_jobs set state = 'queued', run_after = now() where state = 'failed'"
    )
    assert db.one(settle) == 1
    assert db.one(status) == "processing"
    assert drive.search(owner, "alpha")["pending_files"] == 1
    embed_all(drive)
    assert db.one(status) == "ready"


# Compared ----------------------------------------------------------------------------------------


def test_spaces_are_compared_by_the_neighbours_that_both_find(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    MODELS["same"] = embed
    add(db, "same", 384)
    queue_all(db, "same")
    embed_all(drive)
    compare = "select private.compare_spaces(%s::smallint, 1::smallint, 100, 5)"
    same = db.one(compare, show(db, "same")["id"])
    assert same == {"samples": 15, "top_k": 5, "overlap": 1, "least": 1, "same_first": 1}
    other = db.one(compare, show(db)["id"])
    assert other["samples"] == 15
    assert 0 < other["overlap"] < 1
    # control: what both find, counted here
    first, second = (
        {
            chunk: [i for i in near if i != chunk][:5]
            for chunk, near in db.all(
                "select chunk_id, private.nearest_chunks(space_id, owner_id, embedding, 6)"
                " from private.chunk_vectors where space_id = %s",
                space,
            )
        }
        for space in (1, show(db)["id"])
    )
    expected = sum(len(set(first[c]) & set(second[c])) / 5 for c in first) / 15
    assert float(other["overlap"]) == pytest.approx(expected, abs=1e-4)


# Pages -------------------------------------------------------------------------------------------


def test_a_space_of_pages_has_the_same_life(db: Database, drive: Drive) -> None:
    rng = np.random.default_rng(5)
    owner = db.create_user()
    pictures.make_space(db)
    shown = [pictures.draw(rng) for _ in range(5)]
    pictures.paint(drive, owner, "a.pdf", *shown[:3])
    pictures.paint(drive, owner, "b.pdf", *shown[3:])
    before = pictures.look(drive, owner, shown[0])
    assert (before["space"], len(before["hits"])) == ("page-test", 5)

    made = add(db, dimension=pictures.DIMENSION, kind="page")
    assert (made["missing_files"], made["missing_chunks"], made["vectors"]) == (2, 5, 0)
    estimate = db.one("select private.estimate_backfill(%s::smallint, 10)", made["id"])
    assert (estimate["to_embed"], estimate["minutes"]) == (5, 0.5)
    with refused("CONFLICT_STATE", missing_chunks=5), db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    assert queue_all(db) == 2
    jobs = drive.claim(9)
    assert {(job["stage"], job["space"]["name"]) for job in jobs} == {("embed_pages", "next")}
    for job in jobs:
        turned_over = shown[:3] if job["name"] == "a.pdf" else shown[3:]
        pictures.run_stage(drive, job, [-picture for picture in turned_over])
    assert queue_all(db) == 0
    assert (show(db)["missing_chunks"], show(db)["vectors"], show(db)["texts"]) == (0, 5, 5)

    assert db.one("select private.activate_space('next') ->> 'previous'") == "page-test"
    after = pictures.look(drive, owner, shown[0])
    assert (after["space"], len(after["hits"])) == ("next", 5)
    assert [h["score"] for h in after["hits"]] != [h["score"] for h in before["hits"]]
    assert db.one("select private.rollback_space('page') ->> 'space'") == "page-test"
    assert pictures.look(drive, owner, shown[0]) == before
    assert retire(db, "next") == 5 + 5 + 2
    assert pictures.look(drive, owner, shown[0]) == before


# Gated -------------------------------------------------------------------------------------------


def record(db: Database, space: str, ndcg: float, passed: bool = True) -> None:
    db.one(
        "select private.record_evaluation(%s, 'scifact', %s::real, .9, .7, 300, %s)",
        space,
        ndcg,
        passed,
    )


def test_a_space_that_finds_worse_is_not_activated(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    record(db, "minilm-l6-v2", 0.74)
    record(db, "next", 0.70)
    with refused("CONFLICT_STATE", failed=1) as details, db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    (lost,) = details["evaluations"]
    assert (lost["collection"], lost["has_passed"]) == ("scifact", True)
    assert (lost["ndcg"], lost["active"]) == (pytest.approx(0.70), pytest.approx(0.74))
    record(db, "next", 0.735)  # within the tolerance; the latest counts
    assert db.one("select private.activate_space('next')")["changed"]


def test_a_space_that_failed_its_gate_is_not_activated(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    record(db, "next", 0.9, passed=False)
    with refused("CONFLICT_STATE", failed=1), db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    assert show(db)["evaluations"]["scifact"]["has_passed"] is False


# Retired -----------------------------------------------------------------------------------------


def retire(db: Database, name: str, at_once: int = 4) -> int:
    """Retire a space and remove what it holds; return how many rows went."""
    db.all("update private.settings set value = '0' where key = 'spaces.retire_grace_s'")
    space, count = db.one("select private.retire_space(%s)", name)["id"], 0
    empty = "select private.empty_space(%s::smallint, %s)"
    while gone := db.one(empty, space, at_once):
        assert gone <= at_once
        count += gone
    assert not db.one("select private.holds_rows(%s::smallint)", space)
    shrunk = 0
    while db.one("select private.shrink_space(%s::smallint)", space):
        shrunk += 1
        assert shrunk < 10
    return count


def _held(db: Database) -> int:
    tables = "text_vectors", "chunk_vectors", "vector_blocks", "ingest_jobs"
    space = show(db)["id"]
    return sum(
        db.one(
            "select count(*) from"
            f" {'public' if table == 'ingest_jobs' else 'private'}.{table} where space_id = %s",  # type: ignore[arg-type]
            space,
        )
        for table in tables
    )


def test_a_retired_space_is_emptied_in_batches_and_no_search_finds_it(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    before = ask(drive, owner, "alpha")
    assert _held(db) == 15 + 3 + 15 + 3
    assert retire(db, "next") == 15 + 3 + 15 + 3
    assert _held(db) == 0
    assert (show(db)["state"], show(db)["vectors"], show(db)["texts"]) == ("retiring", 0, 0)
    assert ask(drive, owner, "alpha") == before
    with refused("INVALID_ARGUMENT", field="space", expected=["minilm-l6-v2"]):
        drive.search(owner, "alpha", embedding=Jsonb(turned("alpha")), space="next")
    with refused("CONFLICT_STATE", state="retiring"), db.as_role("postgres"):
        db.one("select private.activate_space('next')")
    with refused("CONFLICT_STATE", state="retiring"), db.as_role("postgres"):
        db.one("select private.lock_backfill('next')")
    # the name is free again
    fill(drive)
    assert show(db)["missing_chunks"] == 0
    for query in (UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(query) == []


def test_the_active_space_is_not_retired(db: Database) -> None:
    with refused("CONFLICT_STATE", state="active"), db.as_role("postgres"):
        db.one("select private.retire_space('minilm-l6-v2')")


def test_searches_under_way_keep_their_vectors(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    retired = db.one("select private.retire_space('next')")
    assert 9 < retired["wait_s"] <= 10
    with refused("CONFLICT_STATE"), db.as_role("postgres"), db.as_role("postgres"):
        db.one("select private.empty_space(%s::smallint)", retired["id"])
    assert show(db)["vectors"] == 15


def test_a_worker_cannot_write_into_a_retired_space(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    add(db)
    queue_all(db)
    job = drive.claim()[0]
    retire(db, "next")
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work("job_texts", job, 10)
    # what is done for the others goes on
    upload_text(drive, owner, "new.txt", "zulu")
    assert db.one("select status from public.nodes where name = 'new.txt'") == "ready"


def test_a_rollback_to_a_retired_space_is_refused(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    fill(drive)
    db.one("select private.activate_space('next')")
    retire(db, "minilm-l6-v2")
    with refused("CONFLICT_STATE", active="next", before="minilm-l6-v2"), db.as_role("postgres"):
        db.one("select private.rollback_space()")
    assert len(ask(drive, owner, "alpha")["hits"]) == 15


@pytest.mark.parametrize(
    "call",
    [
        "select private.space_named('nope')",
        "select private.activate_space('nope')",
        "select private.retire_space('nope')",
        "select private.lock_backfill('nope')",
        "select private.record_evaluation('nope', 'c', .5, .5, .5, 1)",
    ],
)
def test_an_unknown_space_is_not_found(db: Database, call: Any) -> None:
    with refused("NOT_FOUND", space="nope", spaces=["minilm-l6-v2"]), db.as_role("postgres"):
        db.all(call)


def test_no_client_may_change_spaces(db: Database) -> None:
    functions = db.all(
        "select p.oid::regprocedure::text from pg_proc as p"
        " where p.pronamespace = 'private'::regnamespace and p.proname in ('add_space',"
        " 'activate_space', 'rollback_space', 'retire_space', 'empty_space', 'shrink_space',"
        " 'queue_backfill', 'lock_backfill', 'record_evaluation', 'settle_space')"
    )
    assert len(functions) == 10
    allowed = (
        "select r || ' ' || f from unnest(%s::text[]) as f,"
        " unnest(array['anon', 'authenticated', 'service_role', 'narwhal_worker']) as r"
        " where has_function_privilege(r, f, 'execute')"
    )
    assert db.all(allowed, functions) == []
    assert len(db.all(allowed, ["private.find_space(text, text)"])) == 3  # control
