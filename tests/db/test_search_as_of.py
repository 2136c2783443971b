"""options.as_of: what the caller could find then, of what they can still read now."""

from __future__ import annotations

import itertools
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, holding_link, refused
from tests.proof.mutations import Loosened

EVERYTHING: dict[str, Any] = {"top_k": 100, "candidates": 1000}


@dataclass
class Past:
    """A drive whose every call commits, so that there are moments to look back to."""

    drive: Drive
    owner: uuid.UUID
    peer: uuid.UUID
    ids: dict[str, str] = field(default_factory=dict)

    def now(self) -> str:
        """The moment before whatever comes next."""
        moment: str = self.drive.db.one("select to_json(clock_timestamp()) #>> '{}'")
        return moment

    def file(self, name: str, *texts: str, **more: object) -> str:
        """Make a file of the owner, or a version of one; return the file's id."""
        ticket = self.drive.file(self.owner, name, *texts, **more)
        self.ids[ticket["version_id"]] = name
        return str(ticket["file_id"])

    def head(self, file: str) -> str:
        """The version that a file has now."""
        head: str = self.drive.db.one(
            "select head_version_id::text from public.nodes where id = %s", file
        )
        return head

    def folder(self, name: str, parent: str | None = None) -> str:
        """Make a folder of the owner."""
        return str(self.drive.rpc(self.owner, "create_folder", name=name, parent=parent)["id"])

    def search(
        self, user: uuid.UUID, query: str, as_of: str | None = None, **more: Any
    ) -> list[dict[str, Any]]:
        """The hits of a search as of a moment."""
        options = more.pop("options", {}) | ({"as_of": as_of} if as_of else {})
        answer = self.drive.search(user, query, **EVERYTHING | {"options": options} | more)
        hits: list[dict[str, Any]] = answer["hits"]
        return hits

    def found(self, user: uuid.UUID, query: str, as_of: str | None = None, **more: Any) -> set[str]:
        """The files that a search finds."""
        return {hit["file_id"] for hit in self.search(user, query, as_of, **more)}


@pytest.fixture
def past(connect: Callable[[], Drive]) -> Past:
    drive = connect()
    return Past(drive, drive.db.create_user(), drive.db.create_user())


ONE_LEG = [
    {"weights": {"vector": 0, "name": 0}},
    {"weights": {"keyword": 0, "name": 0}},
    {},
    {"fusion": "convex"},
    {"group_by": "file"},
]

# Versions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ONE_LEG, ids=str)
def test_texts_are_those_of_the_versions_of_then(past: Past, options: dict[str, Any]) -> None:
    file = past.file("a.txt", "the walrus swims", "a page of seals")
    first, then = past.head(file), past.now()
    past.file("a.txt", "the walrus has gone to sleep", file_id=file)
    second = past.head(file)
    assert first != second

    (hit, *_) = past.search(past.owner, "walrus swims", then, options=options)
    assert (hit["version_id"], hit["is_head"], hit["page"]) == (first, False, 1)
    assert hit["snippet"] == "the walrus swims"
    (hit, *_) = past.search(past.owner, "walrus swims", options=options)
    assert (hit["version_id"], hit["is_head"]) == (second, True)
    assert hit["snippet"] == "the walrus has gone to sleep"
    # as of now it is the same as without
    assert past.search(past.owner, "walrus swims", past.now(), options=options) == past.search(
        past.owner, "walrus swims", options=options
    )


def test_words_that_no_head_has_any_more_are_found(past: Past) -> None:
    file = past.file("a.txt", "ISO-27001 and the ringed seals", "eine Seite", "海豹在冰上")
    then = past.now()
    past.file("a.txt", "nothing of it is left", file_id=file)
    options = {"weights": {"vector": 0, "name": 0}}
    for query in ("iso-27001", "seal", '"ringed seals"', "ring*", "海豹在", "seals -walrus"):
        assert past.found(past.owner, query, then, options=options) == {file}, query
        assert past.found(past.owner, query, options=options) == set(), query
    for query in ('"seals ringed"', "ringed -seals", "walr*"):
        assert past.found(past.owner, query, then, options=options) == set(), query


def test_a_score_is_what_the_index_would_give(past: Past) -> None:
    """Chunks of then and of now are ranked together, so they are weighed alike."""
    texts = ["the walrus swims", "walrus walrus seal", "a seal on the ice", "ice"]
    kept, changed = past.file("a.txt", *texts), past.file("b.txt", *texts)
    then = past.now()
    past.file("b.txt", "something else altogether", file_id=changed)
    for options in ONE_LEG[:2]:
        hits = past.search(
            past.owner, "walrus on ice", then, options=options | {"dedup": False, "threshold": 0.01}
        )
        by_file: dict[str, dict[int, tuple[float, float]]] = {kept: {}, changed: {}}
        for hit in hits:
            by_file[hit["file_id"]][hit["page"]] = (
                hit["parts"]["keyword_score"] or 0,
                hit["parts"]["vector_score"] or 0,
            )
        assert len(by_file[kept]) == 4, by_file
        for page, scores in by_file[kept].items():
            assert scores == pytest.approx(by_file[changed][page], rel=1e-5)


def test_what_came_later_is_not_found(past: Past) -> None:
    before = past.now()
    file = past.file("walrus.txt", "the walrus swims")
    assert past.found(past.owner, "walrus", before) == set()
    assert past.found(past.owner, "walrus", past.now()) == {file}


def test_a_file_without_text_then_is_not_found(past: Past) -> None:
    ticket = past.drive.upload(past.owner, "walrus.txt")
    then = past.now()
    past.drive.ingest("the walrus swims")
    assert past.found(past.owner, "walrus", then) == set()
    assert past.found(past.owner, "walrus", past.now()) == {ticket["file_id"]}


def test_a_name_finds_the_version_of_then(past: Past) -> None:
    file = past.file("walrus.txt", "alpha")
    first, then = past.head(file), past.now()
    past.file("walrus.txt", "bravo", file_id=file)
    options = {"weights": {"keyword": 0, "vector": 0, "name": 1}}
    (hit,) = past.search(past.owner, "walrus", then, options=options)
    assert (hit["version_id"], hit["is_head"], hit["snippet"]) == (first, False, "alpha")
    (hit,) = past.search(past.owner, "walrus", options=options)
    assert (hit["is_head"], hit["snippet"]) == (True, "bravo")


def test_a_restored_version_is_another_one(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    first, then = past.head(file), past.now()
    past.file("a.txt", "nothing", file_id=file)
    later = past.now()
    past.drive.rpc(past.owner, "restore_version", file_id=file, version_id=first)
    options = {"weights": {"vector": 0}}
    assert [h["version_id"] for h in past.search(past.owner, "walrus", then, options=options)] == [
        first
    ]
    assert past.search(past.owner, "walrus", later, options=options) == []
    (hit,) = past.search(past.owner, "walrus", options=options)
    assert hit["is_head"] and hit["version_id"] not in (first,)


def test_a_purged_version_is_gone(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    first, then = past.head(file), past.now()
    past.file("a.txt", "the walrus sleeps", file_id=file)
    past.drive.rpc(past.owner, "purge_version", file_id=file, version_id=first)
    assert past.found(past.owner, "walrus", then) == set()
    assert past.found(past.owner, "walrus") == {file}


def test_filters_hold_for_passages_of_then(past: Past) -> None:
    folder = past.folder("f")
    file = past.file("a.txt", "walrus one", "walrus two", folder_id=folder)
    then = past.now()
    past.file("a.txt", "nothing", file_id=file)

    def pages(**filters: Any) -> list[int]:
        hits = past.search(
            past.owner, "walrus", then, filters=filters, options={"weights": {"vector": 0}}
        )
        return sorted(hit["page"] for hit in hits)

    assert pages() == [1, 2]
    assert pages(page_from=2) == [2]
    assert pages(languages=["de"]) == []
    assert pages(folder_id=folder, file_ids=[file]) == [1, 2]
    assert pages(file_ids=[str(uuid.uuid4())]) == []


def test_so_many_passages_are_read_and_explain_tells(past: Past) -> None:
    past.drive.db.all("select private.change_setting('search.history_chunks', '3')")
    files = [past.file(f"{i}.txt", "walrus one", "walrus two") for i in range(3)]
    then = past.now()
    for i, file in enumerate(files):
        past.file(f"{i}.txt", "nothing", file_id=file)
    answer = past.drive.search(past.owner, "walrus", explain=True, options={"as_of": then})
    told = answer["explain"]["as_of"]
    assert (told["past_versions"], told["passages"], told["is_cut"]) == (3, 3, True)
    # the last that changed, and some of the one before it
    assert [hit["file_id"] for hit in answer["hits"]].count(files[2]) == 2
    assert {hit["file_id"] for hit in answer["hits"]} == set(files[1:])
    past.drive.db.all("select private.change_setting('search.history_chunks', '1000')")
    answer = past.drive.search(past.owner, "walrus", explain=True, options={"as_of": then})
    assert not answer["explain"]["as_of"]["is_cut"] and len(answer["hits"]) == 6


# Access -------------------------------------------------------------------------------------------


def test_access_that_came_later_does_not_reach_back(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    before = past.now()
    past.drive.share(file, past.peer)
    assert past.found(past.peer, "walrus", before) == set()
    assert past.found(past.peer, "walrus", past.now()) == {file}
    assert past.found(past.owner, "walrus", before) == {file}


def test_access_that_was_taken_away_stays_taken_away(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    share = past.drive.share(file, past.peer)
    then = past.now()
    assert past.found(past.peer, "walrus", then) == {file}
    past.drive.rpc(past.owner, "unshare_node", share_id=share)
    assert past.search(past.peer, "walrus", then) == []
    # nor does a share that replaces it hide that there was one
    past.drive.share(file, past.peer)
    assert past.found(past.peer, "walrus", then) == {file}


def test_a_stranger_finds_nothing_at_any_moment(past: Past) -> None:
    moments = [past.now()]
    file = past.file("walrus.txt", "the walrus swims")
    moments.append(past.now())
    past.file("walrus.txt", "the walrus sleeps", file_id=file)
    moments.append(past.now())
    assert past.found(past.owner, "walrus", moments[1]) == {file}  # control
    for moment in moments:
        answer = past.drive.search(past.peer, "walrus", explain=True, options={"as_of": moment})
        assert answer["hits"] == []
        assert answer["explain"]["as_of"]["past_versions"] == 0
        assert file not in json.dumps(answer)


def test_a_file_carried_into_a_shared_folder_was_not_shared_before(past: Past) -> None:
    shared, closed = past.folder("shared"), past.folder("closed")
    past.drive.share(shared, past.peer)
    inner = past.folder("inner", closed)
    file = past.file("a.txt", "the walrus swims", folder_id=inner)
    before = past.now()
    past.drive.rpc(past.owner, "move_nodes", ids=[inner], target=shared)
    between = past.now()
    assert past.found(past.peer, "walrus", before) == set()
    assert past.found(past.peer, "walrus", between) == {file}
    past.drive.rpc(past.owner, "move_nodes", ids=[inner], target=closed)
    assert past.found(past.peer, "walrus", between) == set()
    past.drive.rpc(past.owner, "move_nodes", ids=[file], target=shared)
    assert past.found(past.peer, "walrus", before) == set()
    assert past.found(past.peer, "walrus", between) == {file}


def test_a_folder_given_to_another_owner_was_not_theirs_before(past: Past) -> None:
    folder = past.folder("f")
    file = past.file("a.txt", "the walrus swims", folder_id=folder)
    before = past.now()
    workspace = past.drive.rpc(past.owner, "create_workspace", name="w")
    past.drive.rpc(
        past.owner, "add_workspace_member", workspace_id=workspace["id"],
        member={"user_id": str(past.peer)},
    )  # fmt: skip
    joined = past.now()
    past.drive.rpc(past.owner, "move_nodes", ids=[folder], target=workspace["root_id"])
    after = past.now()
    for moment, expected in ((before, set()), (joined, set()), (after, {file})):
        assert past.found(past.peer, "walrus", moment) == expected
        assert past.found(past.owner, "walrus", moment) == {file}


def test_members_of_teams_find_what_was_there_while_they_were_in(past: Past) -> None:
    group = past.drive.rpc(past.owner, "create_group", name="g")["id"]
    workspace = past.drive.rpc(past.owner, "create_workspace", name="w")
    mine = past.file("a.txt", "the walrus swims")
    theirs = past.file("b.txt", "the walrus sleeps", folder_id=workspace["root_id"])
    past.drive.rpc(past.owner, "share_node", node=mine, grantee={"group_id": group})
    member = {"user_id": str(past.peer)}
    outside, inside, again = [], [], []

    def join() -> tuple[str, str]:
        return (
            past.drive.rpc(past.owner, "add_group_member", group_id=group, member=member)["id"],
            past.drive.rpc(
                past.owner, "add_workspace_member", workspace_id=workspace["id"], member=member
            )["id"],
        )

    outside.append(past.now())
    one, other = join()
    inside.append(past.now())
    past.drive.rpc(past.owner, "remove_group_member", id=one)
    past.drive.rpc(past.owner, "remove_workspace_member", id=other)
    outside.append(past.now())
    for moment in inside:
        assert past.found(past.peer, "walrus", moment) == set()  # out is out
    join()
    again.append(past.now())
    for moment in outside:
        assert past.found(past.peer, "walrus", moment) == set()
    for moment in inside + again:
        assert past.found(past.peer, "walrus", moment) == {mine, theirs}


def test_a_share_of_a_group_that_is_gone_is_remembered(past: Past) -> None:
    group = past.drive.rpc(past.owner, "create_group", name="g")["id"]
    past.drive.rpc(
        past.owner, "add_group_member", group_id=group, member={"user_id": str(past.peer)}
    )
    file = past.file("a.txt", "the walrus swims")
    past.drive.rpc(past.owner, "share_node", node=file, grantee={"group_id": group})
    then = past.now()
    past.drive.rpc(past.owner, "delete_group", id=group)
    after = past.now()
    past.drive.share(file, past.peer)
    assert past.found(past.peer, "walrus", then) == {file}
    assert past.found(past.peer, "walrus", after) == set()


def test_a_share_counts_until_it_expired_then(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    soon = past.drive.db.one("select now() + interval '0.4 s'")
    past.drive.share(file, past.peer, expires_at=soon)
    open_then = past.now()
    time.sleep(0.5)
    closed_then = past.now()
    assert past.found(past.peer, "walrus", open_then) == set()  # it is over
    past.drive.share(file, past.peer)
    assert past.found(past.peer, "walrus", open_then) == {file}
    assert past.found(past.peer, "walrus", closed_then) == set()
    assert past.found(past.peer, "walrus", past.now()) == {file}


def test_an_address_counts_from_when_it_was_confirmed(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    past.drive.rpc(past.owner, "share_node", node=file, grantee={"email": "new@example.test"})
    before = past.now()
    new = past.drive.db.create_user("new@example.test")
    after = past.now()
    assert past.found(new, "walrus", before) == set()
    assert past.found(new, "walrus", after) == {file}


# The trash ----------------------------------------------------------------------------------------


def test_what_was_in_the_trash_then_is_not_found(past: Past) -> None:
    outer = past.folder("outer")
    inner = past.folder("inner", outer)
    files = {past.file(f"{i}.txt", "walrus", folder_id=inner) for i in range(2)}
    one = min(files)
    living = past.now()
    past.drive.rpc(past.owner, "trash_nodes", ids=[one])
    without_one = past.now()
    past.drive.rpc(past.owner, "trash_nodes", ids=[outer])
    without_any = past.now()
    for moment in (living, without_one, without_any):
        assert past.found(past.owner, "walrus", moment) == set()  # nor is it readable now
    past.drive.rpc(past.owner, "restore_nodes", ids=[outer])
    assert past.found(past.owner, "walrus", living) == files - {one}
    past.drive.rpc(past.owner, "restore_nodes", ids=[one])
    assert past.found(past.owner, "walrus", living) == files
    assert past.found(past.owner, "walrus", without_one) == files - {one}
    assert past.found(past.owner, "walrus", without_any) == set()
    assert past.found(past.owner, "walrus", past.now()) == files


def test_what_came_back_alone_was_in_the_trash_with_its_folder(past: Past) -> None:
    folder = past.folder("f")
    file = past.file("a.txt", "the walrus swims", folder_id=folder)
    past.drive.rpc(past.owner, "trash_nodes", ids=[folder])
    then = past.now()
    past.drive.rpc(past.owner, "restore_nodes", ids=[file])
    assert past.found(past.owner, "walrus", then) == set()
    assert past.found(past.owner, "walrus", past.now()) == {file}


def test_what_is_purged_leaves_no_past(past: Past) -> None:
    folder = past.folder("f")
    file = past.file("a.txt", "the walrus swims", folder_id=folder)
    then = past.now()
    past.file("a.txt", "the walrus sleeps", file_id=file)
    share = past.drive.share(folder, past.peer)
    past.drive.rpc(past.owner, "unshare_node", share_id=share)
    past.drive.share(folder, past.peer)
    past.drive.rpc(past.owner, "rename_node", id=file, name="b.txt")
    past.drive.rpc(past.owner, "move_nodes", ids=[file], target=None)
    kept = past.drive.db.one(
        "select (select count(*) from private.past_nodes),"
        " (select count(*) from private.past_shares)"
    )
    assert min(kept) > 0  # control
    past.drive.rpc(past.owner, "purge_nodes", ids=[folder, file])
    assert past.found(past.owner, "walrus", then) == set()
    past.drive.clean_up()
    for table in ("past_nodes", "past_shares"):
        assert past.drive.db.all(f"select * from private.{table}") == [], table  # type: ignore[arg-type]


def test_a_file_outlives_the_folder_that_it_was_in(past: Past) -> None:
    folder = past.folder("f")
    file = past.file("a.txt", "the walrus swims", folder_id=folder)
    past.drive.share(folder, past.peer)
    then = past.now()
    past.drive.rpc(past.owner, "move_nodes", ids=[file], target=None)
    past.drive.share(file, past.peer)
    assert past.found(past.peer, "walrus", then) == {file}
    past.drive.rpc(past.owner, "purge_nodes", ids=[folder])
    past.drive.clean_up()
    assert past.found(past.owner, "walrus", then) == {file}
    assert past.found(past.peer, "walrus", then) == set()  # how they could is gone


def test_an_account_takes_its_past_along(past: Past) -> None:
    group = past.drive.rpc(past.owner, "create_group", name="g")["id"]
    member = past.drive.rpc(
        past.owner, "add_group_member", group_id=group, member={"user_id": str(past.peer)}
    )
    past.drive.rpc(past.owner, "remove_group_member", id=member["id"])
    file = past.file("a.txt", "the walrus swims")
    past.drive.rpc(past.owner, "unshare_node", share_id=past.drive.share(file, past.peer))
    mine = past.drive.rpc(past.peer, "create_folder", name="mine")["id"]
    past.drive.share(mine, past.owner, "manage")
    theirs = past.folder("theirs")
    past.drive.share(theirs, past.peer, "manage")
    past.drive.rpc(past.peer, "move_nodes", ids=[mine], target=theirs)

    def mentions(user: uuid.UUID) -> int:
        count: int = past.drive.db.one(
            "select (select count(*) from private.past_nodes as t where strpos(t::text, %s) > 0)"
            " + (select count(*) from private.past_shares as t where strpos(t::text, %s) > 0)"
            " + (select count(*) from private.past_members as t where strpos(t::text, %s) > 0)",
            *[str(user)] * 3,
        )
        return count

    assert mentions(past.peer) >= 3
    past.drive.db.all("delete from auth.users where id = %s", past.peer)
    assert mentions(past.peer) == 0
    past.drive.db.all("delete from auth.users where id = %s", past.owner)
    assert mentions(past.owner) == 0


# Around it ----------------------------------------------------------------------------------------


def test_kept_answers_are_as_of_their_moment(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    other = past.file("b.txt", "the walrus dives")
    past.drive.share(file, past.peer)
    share = past.drive.share(other, past.peer)
    then = past.now()
    first = past.search(past.peer, "walrus", then)
    assert past.search(past.peer, "walrus", then) == first
    assert past.drive.db.all("select cached from public.query_analytics order by created_at") == [
        False,
        True,
    ]
    past.drive.rpc(past.owner, "unshare_node", share_id=share)
    assert past.found(past.peer, "walrus", then) == {file}
    past.file("a.txt", "the walrus sleeps", file_id=file)
    (hit,) = past.search(past.peer, "walrus", then)
    assert hit["is_head"] is False and hit["snippet"] == "the walrus swims"
    (hit,) = past.search(past.peer, "walrus", past.now())
    assert hit["is_head"] is True and hit["snippet"] == "the walrus sleeps"


def test_a_replay_shows_the_moment_and_its_versions(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    first, then = past.head(file), past.now()
    past.file("a.txt", "the walrus sleeps", file_id=file)
    answer = past.drive.rpc(past.owner, "hybrid_search", query="walrus", options={"as_of": then})
    replay = past.drive.rpc(past.owner, "search_replay", search_id=answer["search_id"])
    assert replay["options"] == {"as_of": then}
    (hit,) = replay["hits"]
    assert (hit["version_id"], hit["is_head"]) == (first, False)
    assert hit["snippet"] == "the walrus swims"


def test_copies_and_context_are_those_of_then(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims", "then it sleeps")
    copy = past.file("b.txt", "the walrus swims", "then it sleeps")
    then = past.now()
    past.file("a.txt", "nothing", file_id=file)
    hits = past.search(
        past.owner, "walrus swims", then,
        options={"dedup": True, "context": "neighbours", "weights": {"vector": 0}},
    )  # fmt: skip
    (hit,) = hits
    assert {hit["file_id"], *(f["file_id"] for f in hit["copies"]["files"])} == {file, copy}
    assert "then it sleeps" in hit["context"]["after"]


@pytest.mark.parametrize(
    "value",
    [
        *("", "now", "today", "yesterday", "infinity", "-infinity", "epoch", "2026", "2026-02-30"),
        *("2026-01-01T25:00:00Z", "2026-01-01T00:00:00 Europe/Berlin", "0000-01-01", "allballs"),
        *("2026-01-01 BC", "2026-W01", "99999-01-01", "9999-12-31T23:59:59Z", "1999-01-01", "'"),
        *(0, 1767225600, True, [], {}, ["2026-01-01"]),
    ],
    ids=str,
)
def test_anything_else_is_refused(db: Database, drive: Drive, value: object) -> None:
    user = db.create_user()
    with refused("INVALID_ARGUMENT", field="options.as_of"):
        drive.search(user, "walrus", options={"as_of": value})


def test_the_future_is_refused_and_null_is_now(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    soon = past.drive.db.one("select to_json(clock_timestamp() + interval '1 minute') #>> '{}'")
    with refused("INVALID_ARGUMENT", field="options.as_of"):
        past.search(past.owner, "walrus", soon)
    assert past.found(past.owner, "walrus", options={"as_of": None}) == {file}
    # UTC, unless it says otherwise
    utc = past.drive.db.one(
        "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US')"
    )
    past.drive.db.all("set timezone = 'Asia/Tokyo'")
    assert past.found(past.owner, "walrus", utc) == {file}


def test_it_looks_back_as_far_as_there_is_a_past(past: Past) -> None:
    file = past.file("a.txt", "the walrus swims")
    then = past.now()
    past.file("a.txt", "the walrus sleeps", file_id=file)
    rows = past.drive.db.one("select count(*) from private.past_nodes")
    assert rows > 0
    assert past.drive.db.one("select private.run_task('prune_history')") == 0
    past.drive.db.all("update private.past_nodes set until = until - interval '400 days'")
    old = past.drive.db.one("select to_json(now() - interval '366 days') #>> '{}'")
    with refused("INVALID_ARGUMENT", field="options.as_of"):
        past.search(past.owner, "walrus", old)
    assert past.drive.db.one("select private.run_task('prune_history')") == rows
    (hit,) = past.search(past.owner, "walrus", then)
    assert hit["is_head"]  # what was before is not known any more
    past.drive.db.all("select private.change_setting('search.keep_history_days', 'null')")
    assert past.search(past.owner, "walrus", old) == []  # it was not there yet


def test_holders_of_a_link_cannot_look_back(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.file(owner, "a.txt", "the walrus swims")
    with holding_link(db, ticket["file_id"], owner):
        assert drive.search(None, "walrus")["hits"]
        with refused("INVALID_ARGUMENT", field="options.as_of"):
            drive.search(None, "walrus", options={"as_of": "2026-01-01"})
        # whoever is signed in looks back as themselves
        then = db.one("select to_json(clock_timestamp()) #>> '{}'")
        user = db.create_user()
        assert drive.search(user, "walrus")["hits"]
        assert drive.search(user, "walrus", options={"as_of": then})["hits"] == []


@pytest.mark.parametrize("function", ["search_pages", "related_documents", "search_files"])
def test_other_searches_know_no_such_option(db: Database, function: str) -> None:
    arguments: str = db.one(
        "select pg_get_function_arguments(oid) from pg_proc where proname = %s"
        " and pronamespace = 'public'::regnamespace",
        function,
    )
    assert "as_of" not in arguments


# The rule -----------------------------------------------------------------------------------------


class Story:
    """A small world that changes at random, and what everybody could find after each change."""

    def __init__(self, drive: Drive) -> None:
        self.drive, self.chance = drive, random.Random()
        self.users = [drive.db.create_user() for _ in range(3)]
        self.numbers = itertools.count()
        self.teams: list[tuple[str, Any]] = []
        self.made: list[Any] = []
        self.moments: list[tuple[str, dict[uuid.UUID, dict[str, str]]]] = []

    def rehearse(self) -> None:
        """Let everything happen once that the rule must tell apart."""
        a, b, c = self.users
        for function, user, arguments in self._script(*map(str, (b, c))):
            made = self.drive.rpc({"a": a, "b": b}[user], function, **arguments)
            self.made.append(made["id"] if isinstance(made, dict) and "id" in made else None)
            self._remember()

    def _script(self, b: str, c: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """What a and b do; `made` has the ids of what came out of it."""
        made, (owner, other, _) = self.made, self.users
        yield "create_folder", "a", {"name": "f"}
        yield "create_folder", "a", {"name": "g"}
        outer, inner = made[-2:]
        self.drive.file(owner, "x.txt", "walrus", folder_id=inner)
        (file,) = self._nodes(owner, "kind = 'file'")
        peer = {"node": file, "grantee": {"user_id": c}}
        for _ in range(2):
            yield "share_node", "a", peer
            yield "unshare_node", "a", {"share_id": made[-1]}
        yield "share_node", "a", peer
        yield "create_group", "a", {"name": "team"}
        group = made[-1]
        yield "share_node", "a", {"node": outer, "grantee": {"group_id": group}}
        yield "move_nodes", "a", {"ids": [inner], "target": outer}
        for _ in range(2):
            yield "add_group_member", "a", {"group_id": group, "member": {"user_id": b}}
            yield "remove_group_member", "a", {"id": made[-1]}
        yield "add_group_member", "a", {"group_id": group, "member": {"user_id": b}}
        for _ in range(2):
            self.drive.file(owner, "x.txt", f"walrus {len(made)}", file_id=file)
            yield "create_folder", "a", {"name": f"h{len(made)}"}
        for node in (file, inner):
            yield "trash_nodes", "a", {"ids": [node]}
            yield "restore_nodes", "a", {"ids": [node]}
        yield "create_workspace", "b", {"name": "w"}
        space = made[-1]
        root = self.drive.db.one("select root_id::text from public.workspaces where id = %s", space)
        self.drive.file(other, "y.txt", "walrus", folder_id=root)
        member = {"workspace_id": space, "member": {"user_id": c}}
        for _ in range(2):
            yield "add_workspace_member", "b", member
            yield "remove_workspace_member", "b", {"id": made[-1]}
        yield "add_workspace_member", "b", member
        yield (
            "add_workspace_member",
            "b",
            {**member, "member": {"user_id": str(owner)}, "level": "edit"},
        )
        yield "move_nodes", "a", {"ids": [inner], "target": root}

    def tell(self, changes: int) -> None:
        """Let so many changes happen at random, one transaction each."""
        a, b, _ = self.users
        group = self.drive.rpc(a, "create_group", name="g")
        workspace = self.drive.rpc(b, "create_workspace", name="w")
        self.teams = [("group", group["id"]), ("workspace", workspace["id"])]
        for user in (a, a, b):
            self._folder(user)
            self._file(user)
        self._remember()
        acts = [
            *(self._folder, self._file, self._version, self._restore_version),
            *(self._move, self._move, self._trash, self._restore, self._share),
            *[self._unshare] * 2,
            *[self._join] * 3,
            *[self._leave] * 2,
        ]
        while len(self.moments) < changes:
            with suppress(psycopg.Error):  # not everybody may do everything
                if self.chance.choice(acts)(self.chance.choice(self.users)) is not False:
                    self._remember()

    def readable(self, user: uuid.UUID) -> dict[str, str]:
        """What somebody reads now: files and their heads."""
        with self.drive.db.as_user(user):
            return dict(
                self.drive.db.all(
                    "select id::text, head_version_id::text from public.nodes"
                    " where kind = 'file' and head_version_id is not null"
                )
            )

    def _remember(self) -> None:
        now = self.drive.db.one("select to_json(clock_timestamp()) #>> '{}'")
        self.moments.append((now, {user: self.readable(user) for user in self.users}))

    def _nodes(self, user: uuid.UUID, condition: str = "true") -> list[str]:
        with self.drive.db.as_user(user):
            return self.drive.db.all(
                f"select id::text from public.nodes where {condition} order by created_at, id"  # type: ignore[arg-type]
            )

    def _any(self, ids: list[Any]) -> Any:
        if not ids:
            raise psycopg.Error
        return self.chance.choice(ids)

    def _place(self, user: uuid.UUID) -> str | None:
        return self.chance.choice([None, *self._nodes(user, "kind = 'folder'")])

    def _folder(self, user: uuid.UUID) -> None:
        name = f"f{next(self.numbers)}"
        self.drive.rpc(user, "create_folder", name=name, parent=self._place(user))

    def _file(self, user: uuid.UUID) -> None:
        number = next(self.numbers)
        self.drive.file(user, f"n{number}.txt", f"walrus t{number}", folder_id=self._place(user))

    def _version(self, user: uuid.UUID) -> None:
        file = self._any(self._nodes(user, "kind = 'file'"))
        self.drive.file(user, "v.txt", f"walrus t{next(self.numbers)}", file_id=file)

    def _restore_version(self, user: uuid.UUID) -> None:
        file, version = self._any(
            self.drive.db.all(
                "select file_id, id from public.file_versions order by created_at, id"
            )
        )
        self.drive.rpc(user, "restore_version", file_id=file, version_id=version)

    def _move(self, user: uuid.UUID) -> None:
        node = self._any(self._nodes(user))
        self.drive.rpc(user, "move_nodes", ids=[node], target=self._place(user))

    def _share(self, user: uuid.UUID) -> None:
        person = {"user_id": str(self.chance.choice(self.users))}
        grantee = self.chance.choice([{"group_id": self.teams[0][1]}, person])
        node = self._any(self._nodes(user))
        self.drive.rpc(user, "share_node", node=node, grantee=grantee, level="manage")

    def _unshare(self, user: uuid.UUID) -> None:
        share = self._any(self.drive.db.all("select id::text from public.shares order by id"))
        self.drive.rpc(user, "unshare_node", share_id=share)

    def _trash(self, user: uuid.UUID) -> None:
        self.drive.rpc(user, "trash_nodes", ids=[self._any(self._nodes(user))])

    def _restore(self, user: uuid.UUID) -> None:
        node = self._any(
            self.drive.db.all(
                "select id::text from public.nodes where trashed_at is not null order by id"
            )
        )
        self.drive.rpc(user, "restore_nodes", ids=[node], on_conflict="rename")

    def _join(self, user: uuid.UUID) -> None:
        kind, id_ = self.chance.choice(self.teams)
        member = {"user_id": str(self.chance.choice(self.users))}
        more = {"level": "manage"} if kind == "workspace" else {}
        self.drive.rpc(user, f"add_{kind}_member", **{f"{kind}_id": id_}, member=member, **more)

    def _leave(self, user: uuid.UUID) -> None:
        kind = self.chance.choice(self.teams)[0]
        member = self._any(
            self.drive.db.all(f"select id::text from public.{kind}_members order by id")  # type: ignore[arg-type]
        )
        self.drive.rpc(user, f"remove_{kind}_member", id=member)

    def wrong_rule(self) -> list[str]:
        """Every moment at which the rule gives somebody anything but what they could read."""
        now = {user: self.readable(user) for user in self.users}
        return [
            f"{moment} {user} could read {got}, not {expected}"
            for (moment, then), user in itertools.product(self.moments, self.users)
            if (got := self._read_then(user, moment, list(now[user])))
            != (expected := {f: v for f, v in then[user].items() if f in now[user]})
        ]

    def wrong_answers(self, count: int) -> list[str]:
        """Of so many searches those that find anything but what somebody could, and still can."""
        found = []
        now = {user: self.readable(user) for user in self.users}
        for _ in range(count):
            (moment, then), user = self.chance.choice(self.moments), self.chance.choice(self.users)
            expected = {f: v for f, v in then[user].items() if f in now[user]}
            options = self.chance.choice(ONE_LEG[:1] + ONE_LEG[2:]) | {"as_of": moment}
            hits = self.drive.search(user, "walrus", **EVERYTHING, options=options)["hits"]
            got = {hit["file_id"]: hit["version_id"] for hit in hits}
            heads = {h["file_id"] for h in hits if h["is_head"]}
            if got != expected or len(hits) != len(got):
                found.append(f"{moment} {user} finds {got}, not {expected}")
            elif heads != {f for f, v in expected.items() if now[user][f] == v}:
                found.append(f"{moment} {user}: wrong heads {heads}")
        return found

    def _read_then(self, user: uuid.UUID, moment: str, files: list[str]) -> dict[str, str]:
        return dict(
            self.drive.db.all(
                "select file_id::text, version_id::text from private.files_then("
                "%s::uuid[], private.team_ids_then(%s, %s) || %s::uuid,"
                " private.roots_then(%s, %s), %s)",
                *(files, user, moment, user, user, moment, moment),
            )
        )


@pytest.fixture
def story(connect: Callable[[], Drive]) -> Story:
    drive = connect()
    drive.db.all("select private.change_setting('search.per_minute', '1000000')")
    return Story(drive)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 4))]
)
def test_at_every_moment_everybody_finds_what_they_could(story: Story, seed: int) -> None:
    story.chance.seed(seed)
    story.tell(60)
    views = {json.dumps(sorted(then[u].items())) for _, then in story.moments for u in story.users}
    assert len(views) > 10  # control
    assert story.wrong_rule() == []
    assert story.wrong_answers(60) == []


WRONG = [
    Loosened("team_ids_then", "m.created_at <= moment", "true"),
    Loosened("team_ids_then", "and m.until > moment"),
    Loosened("team_ids_then", "m.user_id = team_ids_then.user_id and m.until > moment", "false"),
    Loosened("roots_then", "s.created_at <= moment and"),
    Loosened("roots_then", "s.user_id = roots_then.user_id and s.until > moment", "false"),
    Loosened("roots_then", "s.user_id = roots_then.user_id and s.until > moment", "true"),
    Loosened("nodes_then", "and p.until > moment", "and false"),
    Loosened("nodes_then", "and p.until > moment"),
    Loosened("nodes_then", "order by p.until", "order by p.until desc"),
    Loosened("files_then", "f.is_trash_root or "),
    Loosened("files_then", "or coalesce(w.is_trashed, false)"),
    Loosened("files_then", "w.is_open or "),
    Loosened("files_then", "a.owner_id = any(files_then.owner_ids)", "true"),
]


def test_a_rule_that_is_wrong_is_noticed(story: Story) -> None:
    story.rehearse()
    assert story.wrong_answers(20) == []
    assert story.wrong_rule() == []
    db = story.drive.db
    unseen = []
    for mutation in WRONG:
        right = db.one(
            "select pg_get_functiondef(oid) from pg_proc where proname = %s"
            " and pronamespace = 'private'::regnamespace",
            mutation.function,
        )
        mutation.apply(db)
        if not story.wrong_rule():
            unseen.append(str(mutation))
        db.connection.execute(right)
    assert not unseen, "\n".join(unseen)
