"""What is remembered of searches, for whom; how often somebody may search; statistics."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, embed, refused
from tests.db.looks import hits_of
from tests.db.pictures import DIMENSION as PATCH
from tests.db.pictures import make_space

HISTORY = (
    "select to_jsonb(q) from public.query_analytics as q where user_id = %s order by created_at, id"
)


@pytest.fixture
def owner(db: Database, drive: Drive) -> uuid.UUID:
    user = db.create_user()
    drive.file(user, "fox.txt", "the quick walrus", "the slow walrus")
    return user


def set_limit(db: Database, limit: int) -> None:
    db.all("select private.change_setting('search.per_minute', to_jsonb(%s))", limit)


# The history -------------------------------------------------------------------------------------


def test_a_search_is_remembered_by_ids_for_who_made_it(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    filters, options = {"types": ["txt"]}, {"technique": "hyde+rerank", "rrf_k": 20}
    hits = hits_of(drive, owner, " quick walrus ", filters=filters, options=options, top_k=5)
    drive.search(owner, "slow walrus", embedding=None)
    drive.search(owner, "nothing", options=Jsonb({"weights": {"keyword": 0}}), embedding=None)
    first, second, third = db.all(HISTORY, owner)
    assert first["query"] == "quick walrus"
    assert (first["mode"], first["technique"], first["space"]) == (
        "hybrid", "hyde+rerank", "minilm-l6-v2",
    )  # fmt: skip
    assert first["request"] == {
        "filters": filters, "top_k": 5, "candidates": 50, "options": {"rrf_k": 20},
    }  # fmt: skip
    assert [hit["chunk_id"] for hit in first["hits"]] == [hit["chunk_id"] for hit in hits]
    assert set(first["hits"][0]) == {"chunk_id", "file_id", "version_id", "score"}
    assert first["file_ids"] == [hits[0]["file_id"]]
    assert first["hit_count"] == len(hits) == 2
    assert 0 < first["latency_ms"] < 60_000
    assert "walrus" not in str(first | {"query": ""})
    assert (first["degraded"], first["cached"]) == (False, False)
    assert (second["mode"], second["degraded"], second["hit_count"]) == ("keyword", True, 2)
    assert (third["hit_count"], third["hits"]) == (0, [])
    other = db.create_user()
    with db.as_user(other):
        assert db.one("select count(*) from public.query_analytics") == 0
    with db.as_user(owner):  # control
        assert db.one("select count(*) from public.query_analytics") == 3


def test_nobody_writes_the_history_by_hand(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    drive.search(owner, "walrus")
    for statement in (
        "update public.query_analytics set cost_usd = 1",
        "delete from public.query_analytics",
        "insert into public.query_analytics (query) values ('x')",
    ):
        with pytest.raises(psycopg.Error) as error, db.as_user(owner):
            db.connection.execute(statement)  # type: ignore[arg-type]
        assert error.value.sqlstate == "42501"


def test_who_does_not_want_a_history_has_none(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    change = "update public.user_profiles set preferences = preferences || %s where id = %s"
    with db.as_user(owner):
        db.all(change, Jsonb({"searchHistory": False}), owner)
    answer = drive.rpc(owner, "hybrid_search", query="walrus")
    assert answer["hits"]
    assert answer["search_id"] is None
    assert db.all(HISTORY, owner) == []
    with refused("INVALID_ARGUMENT", field="preferences.searchHistory"), db.as_user(owner):
        db.all(change, Jsonb({"searchHistory": "no"}), owner)
    with db.as_user(owner):
        db.all(change, Jsonb({"searchHistory": True}), owner)
    assert drive.rpc(owner, "hybrid_search", query="walrus")["search_id"]
    assert len(db.all(HISTORY, owner)) == 1


def test_a_search_may_ask_not_to_be_remembered(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    options = Jsonb({"record": False})
    answer = drive.rpc(owner, "hybrid_search", query="walrus", options=options)
    assert answer["hits"]
    assert answer["search_id"] is None
    assert db.all(HISTORY, owner) == []
    drive.search(owner, "walrus", options=Jsonb({"record": True}))
    assert len(db.all(HISTORY, owner)) == 1


def test_a_history_can_be_cleared_and_takes_the_kept_hits_along(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    other = db.create_user()
    for user in (owner, owner, other):
        drive.search(user, "walrus")
    kept = "select count(*) from private.kept_hits where user_id = %s"
    assert db.one(kept, owner) == 1
    assert drive.rpc(owner, "clear_query_history") == {"deleted": 2}
    assert db.all(HISTORY, owner) == []
    assert db.one(kept, owner) == 0
    assert len(db.all(HISTORY, other)) == 1
    assert db.one(kept, other) == 1


def test_old_searches_go(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    for _ in range(3):
        drive.search(owner, "walrus")
    db.all(
        "update public.query_analytics set created_at = now() - interval '366 days'"
        " where id = (select id from public.query_analytics limit 1)"
    )
    assert db.one("select private.run_task('prune_queries')") == 1
    assert len(db.all(HISTORY, owner)) == 2
    db.all("update public.query_analytics set created_at = now() - interval '10 years'")
    db.all("select private.change_setting('analytics.keep_days', 'null')")
    assert db.one("select private.run_task('prune_queries')") == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"cache": "no"}, "options.cache"),
        ({"record": 1}, "options.record"),
        ({"technique": "magic"}, "options.technique"),
        ({"technique": "hyde+"}, "options.technique"),
        ([], "options"),
    ],
)
def test_options_of_the_history_are_checked(
    drive: Drive, owner: uuid.UUID, options: Any, field: str
) -> None:
    with refused("INVALID_ARGUMENT", field=field):
        drive.search(owner, "walrus", options=Jsonb(options))


# Replay ------------------------------------------------------------------------------------------


def test_a_replay_shows_what_was_found_then(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    answer = drive.rpc(owner, "hybrid_search", query="walrus", embedding=Jsonb(embed("walrus")))
    found = [(hit["chunk_id"], hit["score"]) for hit in answer["hits"]]
    file = answer["hits"][0]["file_id"]
    drive.file(owner, "walrus.txt", "walrus walrus walrus")  # would be first today
    drive.rpc(owner, "rename_node", id=file, name="renamed.txt")
    replay = drive.rpc(owner, "search_replay", search_id=answer["search_id"])
    assert [(hit["chunk_id"], hit["score"]) for hit in replay["hits"]] == found
    assert {hit["name"] for hit in replay["hits"]} == {"renamed.txt"}
    assert replay["hits"][0]["snippet"] == answer["hits"][0]["snippet"]
    assert (replay["query"], replay["mode"], replay["not_readable"]) == ("walrus", "hybrid", 0)
    # another version: the passages are those of the old one
    drive.file(owner, "renamed.txt", "nothing of it", file_id=file)
    replay = drive.rpc(owner, "search_replay", search_id=answer["search_id"])
    assert [(hit["chunk_id"], hit["score"]) for hit in replay["hits"]] == found
    assert {hit["is_head"] for hit in replay["hits"]} == {False}


def test_a_replay_counts_what_is_not_readable_any_more_and_names_none_of_it(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    peer = db.create_user()
    file = str(db.one("select id from public.nodes where owner_id = %s", owner))
    share = drive.share(file, peer)
    drive.file(peer, "mine.txt", "my own walrus")
    answer = drive.rpc(peer, "hybrid_search", query="walrus")
    assert len(answer["hits"]) == 3
    drive.rpc(owner, "unshare_node", share_id=share)
    replay = drive.rpc(peer, "search_replay", search_id=answer["search_id"])
    assert [hit["name"] for hit in replay["hits"]] == ["mine.txt"]
    assert replay["not_readable"] == 2
    assert file not in str(replay)
    drive.rpc(peer, "trash_nodes", ids=[replay["hits"][0]["file_id"]])
    replay = drive.rpc(peer, "search_replay", search_id=answer["search_id"])
    assert (replay["hits"], replay["not_readable"]) == ([], 3)


def test_nobody_replays_anothers_search(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    search = drive.rpc(owner, "hybrid_search", query="walrus")["search_id"]
    for user in (db.create_user(), owner):
        if user == owner:
            assert drive.rpc(owner, "search_replay", search_id=search)["hits"]  # control
        else:
            with refused("NOT_FOUND"):
                drive.rpc(user, "search_replay", search_id=search)
    with refused("NOT_FOUND"):
        drive.rpc(owner, "search_replay", search_id=uuid.uuid4())


# What was shown in the end -----------------------------------------------------------------------


def test_a_replay_shows_what_was_shown_in_the_end(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    named = drive.upload(owner, "walrus.txt")["file_id"]  # found by its name alone
    answer = drive.rpc(owner, "hybrid_search", query="walrus", options={"technique": "rerank"})
    one, two = (hit for hit in answer["hits"] if hit["chunk_id"])
    shown = [{"file_id": named, "score": 0.5}, two | {"score": 3}, one | {"score": -1e-30}]
    told = {"search_id": answer["search_id"], "hits": Jsonb(shown)}
    assert drive.rpc(owner, "amend_search", **told, technique="fusion+rerank") == {
        "search_id": answer["search_id"], "hit_count": 3,
    }  # fmt: skip
    replay = drive.rpc(owner, "search_replay", search_id=answer["search_id"])
    assert replay["technique"] == "fusion+rerank"
    assert replay["not_readable"] == 0
    assert [(hit.get("chunk_id"), hit["score"]) for hit in replay["hits"]] == [
        (None, 0.5), (two["chunk_id"], 3), (one["chunk_id"], -1e-30),
    ]  # fmt: skip
    assert [hit["snippet"] for hit in replay["hits"]] == [None, two["snippet"], one["snippet"]]
    (row,) = db.all(HISTORY, owner)
    assert (row["hit_count"], len(row["file_ids"])) == (3, 2)
    assert set(row["hits"][1]) == {"chunk_id", "file_id", "version_id", "score"}  # and no text
    # fewer, and the technique as it was
    drive.rpc(owner, "amend_search", search_id=answer["search_id"], hits=Jsonb([two]))
    replay = drive.rpc(owner, "search_replay", search_id=answer["search_id"])
    assert [hit["chunk_id"] for hit in replay["hits"]] == [two["chunk_id"]]
    assert (replay["technique"], replay["not_readable"]) == ("fusion+rerank", 0)


def test_only_hits_that_can_be_read_were_shown(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    """Whoever names what they cannot read is told no more than of what is not there."""
    peer = db.create_user()
    mine = drive.file(peer, "mine.txt", "my own walrus")
    theirs = drive.rpc(owner, "hybrid_search", query="walrus")["hits"][0]
    share = drive.share(theirs["file_id"], peer)
    answer = drive.rpc(peer, "hybrid_search", query="walrus")
    search = answer["search_id"]

    def amend(*hits: Any) -> Any:
        return drive.rpc(peer, "amend_search", search_id=search, hits=Jsonb(hits))

    own = next(hit for hit in answer["hits"] if hit["file_id"] == mine["file_id"])
    assert amend(own, theirs)["hit_count"] == 2  # control
    # a passage of another file, although both can be read
    crossed = {"file_id": mine["file_id"], "chunk_id": theirs["chunk_id"]}
    refusals = []
    for hits in ([own, crossed], [{"file_id": str(uuid.uuid4())}]):
        with refused("NOT_FOUND") as details:
            amend(*hits)
        refusals.append(details)
    drive.rpc(owner, "unshare_node", share_id=share)
    for hits in ([theirs], [own, theirs], [{"file_id": theirs["file_id"]}]):
        with refused("NOT_FOUND") as details:
            amend(*hits)
        refusals.append(details)
    assert all(details == refusals[0] for details in refusals)
    drive.rpc(peer, "trash_nodes", ids=[mine["file_id"]])
    with refused("NOT_FOUND"):
        amend(own)
    folder = drive.rpc(peer, "create_folder", name="folder")["id"]
    with refused("NOT_FOUND"):
        amend({"file_id": folder})
    # what was told before stands
    assert db.all(HISTORY, peer)[0]["hit_count"] == 2


def test_nobody_amends_anothers_search(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    search = drive.rpc(owner, "hybrid_search", query="walrus")["search_id"]
    other = db.create_user()
    for user, code in ((other, "NOT_FOUND"), (None, "NOT_AUTHENTICATED")):
        with refused(code):
            drive.rpc(user, "amend_search", search_id=search, hits=Jsonb([]))
    with refused("NOT_FOUND"):
        drive.rpc(owner, "amend_search", search_id=uuid.uuid4(), hits=Jsonb([]))
    assert db.all(HISTORY, owner)[0]["hit_count"] == 2
    drive.rpc(owner, "amend_search", search_id=search, hits=Jsonb([]))  # control
    assert db.all(HISTORY, owner)[0]["hit_count"] == 0
    db.all("update public.user_profiles set is_active = false where id = %s", owner)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(owner, "amend_search", search_id=search, hits=Jsonb([]))


def test_a_search_that_is_over_stays_as_it_was(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    search = drive.rpc(owner, "hybrid_search", query="walrus")["search_id"]
    age = "update public.query_analytics set created_at = now() - %s * interval '1 s'"
    db.all(age, 50)
    drive.rpc(owner, "amend_search", search_id=search, hits=Jsonb([]))
    db.all(age, 61)
    with refused("CONFLICT_STATE", seconds=60):
        drive.rpc(owner, "amend_search", search_id=search, hits=Jsonb([]))


@pytest.mark.parametrize(
    ("hits", "field"),
    [
        (None, "hits"),
        ({}, "hits"),
        ([{"file_id": str(uuid.UUID(int=no))} for no in range(101)], "hits"),
        (
            [{"file_id": str(uuid.UUID(int=10))}, {"file_id": str(uuid.UUID(int=10)).upper()}],
            "hits",
        ),
        (["x"], "hits.0"),
        ([{}], "hits.0"),
        ([{"file_id": 5}], "hits.0"),
        ([{"file_id": "x"}], "hits.0"),
        ([{"file_id": str(uuid.UUID(int=1))}, {"file_id": None}], "hits.1"),
        ([{"file_id": str(uuid.UUID(int=1)), "chunk_id": "x"}], "hits.0"),
        ([{"file_id": str(uuid.UUID(int=1)), "score": "high"}], "hits.0"),
    ],
)
def test_hits_that_are_none_are_refused(
    drive: Drive, owner: uuid.UUID, hits: Any, field: str
) -> None:
    search = drive.rpc(owner, "hybrid_search", query="walrus")["search_id"]
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, "amend_search", search_id=search, hits=Jsonb(hits))
    with refused("INVALID_ARGUMENT", field="options.technique"):
        drive.rpc(owner, "amend_search", search_id=search, hits=Jsonb([]), technique="magic")


# How often ---------------------------------------------------------------------------------------


def test_more_searches_a_minute_than_the_setting_allows_are_refused(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    other = db.create_user()
    set_limit(db, 3)
    for _ in range(3):
        drive.search(owner, "walrus")
    with refused("RATE_LIMITED", limit=3) as details:
        drive.search(owner, "walrus")
    assert 1 <= details["retry_after"] <= 60
    assert drive.search(other, "walrus")["hits"] == []  # each has their own
    # who waits as long as told may go on
    db.all(
        "update private.search_rates set slot = slot - 12 - %s where caller_id = %s",
        details["retry_after"] // 5 - 11,
        owner,
    )
    assert drive.search(owner, "walrus")["hits"]


def test_every_kind_of_search_counts(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    for kind in ("page", "image"):
        make_space(db, kind)
    file = db.one("select id::text from public.nodes where owner_id = %s", owner)
    look = Jsonb([1.0] * PATCH)
    searches: dict[str, dict[str, object]] = {
        "hybrid_search": {"query": "walrus"},
        "search_files": {"query": "fox"},
        "related_documents": {"file_id": file},
        "search_pages": {"vectors": Jsonb([[1.0] * PATCH])},
        "search_images": {"embedding": look},
    }
    for made, (function, arguments) in enumerate(searches.items()):
        set_limit(db, made + 1)
        drive.rpc(owner, function, **arguments)
        for other, more in searches.items():
            with refused("RATE_LIMITED", limit=made + 1):
                drive.rpc(owner, other, **more)


def test_time_frees_one_search_after_the_other(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    set_limit(db, 2)
    drive.search(owner, "walrus")
    db.all("update private.search_rates set slot = slot - 6")  # half a minute ago
    drive.search(owner, "walrus")
    with refused("RATE_LIMITED") as details:
        drive.search(owner, "walrus")
    assert 20 <= details["retry_after"] <= 30
    db.all("update private.search_rates set slot = slot - 6")
    drive.search(owner, "walrus")
    with refused("RATE_LIMITED"):
        drive.search(owner, "walrus")


def test_what_is_refused_or_fails_does_not_count(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    set_limit(db, 1)
    for _ in range(3):
        with refused("INVALID_ARGUMENT", field="query"):
            drive.search(owner, "ab")
    drive.search(owner, "walrus")
    for _ in range(3):
        with refused("RATE_LIMITED"):
            drive.search(owner, "walrus")
    assert db.all("select calls from private.search_rates") == [1]


def test_old_counts_go(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    drive.search(owner, "walrus")
    db.one("select private.run_task('tidy_searches')")
    assert db.one("select count(*) from private.search_rates") == 1
    db.all("update private.search_rates set slot = slot - 12")
    assert db.one("select private.run_task('tidy_searches')")["rates"] == 1
    assert db.one("select count(*) from private.search_rates") == 0


def test_searches_of_one_person_do_not_wait_for_one_another(
    connect: Callable[[], Drive],
) -> None:
    first, second = connect(), connect()
    user = first.db.create_user()
    first.file(user, "a.txt", "walrus")
    second.db.all("set lock_timeout = '2s'")
    with first.db.connection.transaction():
        first.search(user, "walrus")
        # the same search, while the other is not committed: no row of it is waited for
        assert second.search(user, "walrus")["hits"]
        assert second.search(user, "walrus")["hits"]
    assert first.db.one("select sum(calls) from private.search_rates") == 3
    assert first.db.one("select count(*) from private.search_rates") == 2


def test_a_read_only_request_is_answered_and_leaves_nothing(
    connect: Callable[[], Drive],
) -> None:
    drive, other = connect(), connect()
    user = drive.db.create_user()
    drive.file(user, "a.txt", "walrus")
    drive.db.all("set default_transaction_read_only = on")
    answer = drive.rpc(user, "hybrid_search", query="walrus")
    assert answer["hits"]
    assert answer["search_id"] is None
    drive.db.all("set default_transaction_read_only = off")
    for table in ("public.query_analytics", "private.search_rates", "private.kept_hits"):
        assert drive.db.one(f"select count(*) from {table}") == 0  # type: ignore[arg-type]
    # nor does it get around the limit: it sees what was counted, and runs alone
    set_limit(drive.db, 1)
    other.search(user, "walrus")
    drive.db.all("set default_transaction_read_only = on")
    with refused("RATE_LIMITED"):
        drive.search(user, "walrus")
    drive.db.all("set default_transaction_read_only = off")
    set_limit(drive.db, 100)
    other.db.all("set default_transaction_read_only = on")
    drive.db.all("set default_transaction_read_only = on")
    with drive.db.connection.transaction():
        drive.search(user, "walrus")
        with refused("RATE_LIMITED", retry_after=1):
            other.search(user, "walrus")
    assert other.search(user, "walrus")["hits"]


# Statistics --------------------------------------------------------------------------------------


@pytest.fixture
def analyst(db: Database) -> uuid.UUID:
    """Somebody who may see statistics, and nothing else of administration."""
    user = db.create_user()
    db.all("insert into private.role_permissions values ('viewer', 'view_analytics')")
    db.all("update public.user_profiles set role = 'viewer' where id = %s", user)
    return user


def test_statistics_are_counts_and_averages_over_everybody(
    db: Database, drive: Drive, owner: uuid.UUID, analyst: uuid.UUID
) -> None:
    other = db.create_user()
    for user, query in ((owner, "walrus"), (owner, "walrus"), (owner, "absent"), (other, "walrus")):
        drive.search(user, query, embedding=None)
    db.all("update public.query_analytics set latency_ms = hit_count")
    found = drive.rpc(analyst, "admin_analytics")
    assert {
        key: found[key]
        for key in (
            "active_users", "total_queries", "avg_latency_ms", "avg_hits", "queries_without_hits",
            "degraded_queries", "cached_queries", "queries_by_mode", "queries_by_technique",
        )
    } == {
        "active_users": 2,
        "total_queries": 4,
        "avg_latency_ms": 1.0,
        "avg_hits": 1.0,
        "queries_without_hits": 2,
        "degraded_queries": 4,
        "cached_queries": 1,
        "queries_by_mode": {"keyword": 4},
        "queries_by_technique": {"plain": 4},
    }  # fmt: skip
    assert [day["queries"] for day in found["queries_by_day"]] == [4]
    assert [(top["user_id"], top["queries"]) for top in found["top_users"]] == [
        (str(owner), 3), (str(other), 1),
    ]  # fmt: skip
    assert "walrus" not in str(found)
    file = db.one("select id from public.nodes where owner_id = %s", owner)
    assert str(file) not in str(found)


def test_statistics_are_of_the_time_that_is_asked_for(
    db: Database, drive: Drive, owner: uuid.UUID, analyst: uuid.UUID
) -> None:
    for days in range(4):
        drive.search(owner, "walrus")
        db.all(
            "update public.query_analytics set created_at = timestamptz '2026-01-10 12:00+00'"
            " - %s * interval '1 day' where created_at > '2026-02-01'",
            days,
        )
    # from is included, to is not
    call = {"from": "2026-01-08 12:00+00", "to": "2026-01-10 12:00+00"}
    found = drive.rpc(analyst, "admin_analytics", **call)
    assert [day["day"] for day in found["queries_by_day"]] == ["2026-01-08", "2026-01-09"]
    nothing = drive.rpc(analyst, "admin_analytics", **{"from": "2020-01-01", "to": "2020-02-01"})
    assert (nothing["total_queries"], nothing["avg_latency_ms"]) == (0, None)
    assert (nothing["queries_by_day"], nothing["top_users"]) == ([], [])
    with refused("INVALID_ARGUMENT", field="to"):
        drive.rpc(analyst, "admin_analytics", **{"from": "2026-01-02", "to": "2026-01-01"})


def test_statistics_need_the_permission(
    db: Database, drive: Drive, owner: uuid.UUID, analyst: uuid.UUID
) -> None:
    with refused("FORBIDDEN"):
        drive.rpc(owner, "admin_analytics")
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "admin_analytics")
    db.all("update public.user_profiles set is_active = false where id = %s", analyst)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(analyst, "admin_analytics")
    db.all("update public.user_profiles set role = 'admin' where id = %s", owner)
    assert drive.rpc(owner, "admin_analytics")["total_queries"] == 0
    # an administrator reads nobody's searches
    drive.search(db.create_user(), "walrus")
    with db.as_user(owner):
        assert db.one("select count(*) from public.query_analytics") == 0


def test_counting_is_cheap(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    """A thousand searches a minute are a row for each connection and five seconds."""
    started = time.monotonic()
    with db.as_user(owner):
        db.all("reset session authorization")
        db.all("select private.check_search_rate() from generate_series(1, 1000)")
    assert db.one("select sum(calls) from private.search_rates") == 1000
    assert (
        db.one("select count(*) from private.search_rates") <= 2 + (time.monotonic() - started) // 5
    )
