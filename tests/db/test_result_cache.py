"""Kept answers: equal to fresh ones whatever happens, and only for whom they were found."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, embed, holding_link
from tests.db.invariants import UNEQUAL, UNNEEDED, UNSERVED
from tests.db.test_name_search import UNNAMED

WORDS = ["bark", "dork", "lump", "tump", "fork", "mark"]
QUERY = "bark dork"


def ask(drive: Drive, user: uuid.UUID | None, **more: Any) -> Any:
    """Search as frontends do; the answer with what the history says about it under `cached`."""
    options = more.pop("options", {})
    answer = drive.rpc(
        user,
        "hybrid_search",
        query=more.pop("query", QUERY),
        embedding=more.pop("embedding", Jsonb(embed(QUERY))),
        top_k=100,
        options=Jsonb(options),
        **more,
    )
    answer["cached"] = drive.db.one(
        "select cached from public.query_analytics where id = %s", answer.pop("search_id")
    )
    return answer


def fresh(drive: Drive, user: uuid.UUID | None, **more: Any) -> Any:
    """Search without looking at what was kept, and without keeping anything."""
    return ask(drive, user, options={"cache": False}, **more)


def create_owner(drive: Drive) -> uuid.UUID:
    """Sign somebody up who has a file in a folder, and another beside it."""
    user = drive.db.create_user()
    folder = drive.rpc(user, "create_folder", name="folder")["id"]
    drive.file(user, "a.txt", "bark dork", "bark lump", folder_id=folder)
    drive.file(user, "b.txt", "dork tump", "fork")
    return user


@pytest.fixture
def owner(drive: Drive) -> uuid.UUID:
    return create_owner(drive)


def node(drive: Drive, owner: uuid.UUID, name: str) -> str:
    """Return the id of an owner's node."""
    found = drive.db.one(
        "select id from public.nodes where owner_id = %s and name = %s", owner, name
    )
    assert found, name
    return str(found)


# What is kept ------------------------------------------------------------------------------------


def test_the_same_search_is_answered_from_what_was_kept(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    first, second = ask(drive, owner), ask(drive, owner)
    assert (first.pop("cached"), second.pop("cached")) == (False, True)
    assert first == second
    assert first["hits"]
    # neither what is only noted nor blanks around the question make it another one
    assert ask(drive, owner, options={"technique": "hyde"})["cached"] is True
    assert ask(drive, owner, query=f" {QUERY} ")["cached"] is True


@pytest.mark.parametrize(
    "difference",
    [
        {"query": "bark lump"},
        {"top_k": 99},
        {"candidates": 49},
        {"filters": Jsonb({"types": ["txt"]})},
        {"options": Jsonb({"rrf_k": 20})},
        {"embedding": Jsonb(embed("lump"))},
        {"embedding": None},
    ],
)
def test_another_search_is_another_answer(
    db: Database, drive: Drive, owner: uuid.UUID, difference: dict[str, Any]
) -> None:
    call = {"query": QUERY, "embedding": Jsonb(embed(QUERY)), "options": Jsonb({})}
    cached = "select cached from public.query_analytics where id = %s"
    for arguments, expected in [(call, False), (call, True), (call | difference, False)]:
        search = drive.rpc(owner, "hybrid_search", **arguments)["search_id"]
        assert db.one(cached, search) is expected, arguments


def test_nobody_gets_what_was_kept_for_another(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    peer, stranger = db.create_user(), db.create_user()
    drive.share(node(drive, owner, "folder"), peer)
    for user in (owner, peer, stranger):
        assert ask(drive, user)["cached"] is False
    for user, names in ((owner, {"a.txt", "b.txt"}), (peer, {"a.txt"}), (stranger, set())):
        answer = ask(drive, user)
        assert answer["cached"] is True
        assert {hit["name"] for hit in answer["hits"]} == names


def test_who_comes_by_a_link_alone_has_nothing_kept(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    with holding_link(db, node(drive, owner, "folder"), owner):
        for _ in range(2):
            assert {h["name"] for h in drive.search(None, QUERY)["hits"]} == {"a.txt"}
    assert db.one("select count(*) from private.kept_hits") == 0


def test_setting_and_option_switch_it_off(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    ask(drive, owner)
    assert fresh(drive, owner)["cached"] is False
    assert ask(drive, owner, explain=True)["cached"] is False
    assert ask(drive, owner)["cached"] is True
    db.all("select private.change_setting('search.cache_ttl_s', '0')")
    for _ in range(2):
        assert ask(drive, owner)["cached"] is False


def test_kept_hits_grow_old(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    ask(drive, owner)
    db.all("update private.kept_hits set created_at = created_at - interval '3601 s'")
    assert ask(drive, owner)["cached"] is False
    assert ask(drive, owner)["cached"] is True


def test_freshness_is_never_kept(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    ask(drive, owner)
    assert ask(drive, owner)["pending_files"] == 0
    # as if a file were waiting, without anything that could be noticed
    with db.connection.transaction():
        db.all("alter table public.nodes disable trigger user")
        db.all("update public.nodes set status = 'processing' where name = 'b.txt'")
        db.all("alter table public.nodes enable trigger user")
    answer = ask(drive, owner)
    assert (answer["cached"], answer["pending_files"]) == (True, 1)
    assert answer["index_lag"] >= 0


def test_the_schedule_removes_what_is_stale_old_or_too_much(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    other = db.create_user()
    drive.file(other, "c.txt", "bark " * 500)
    count = "select count(*) from private.kept_hits"

    def tidy() -> Any:
        return db.one("select private.run_task('tidy_searches')")

    ask(drive, owner), ask(drive, other)
    assert (tidy()["kept_hits"], db.one(count)) == (0, 2)
    assert ask(drive, owner)["cached"] is True  # folding changes no sum
    drive.rpc(owner, "rename_node", id=node(drive, owner, "b.txt"), name="z.txt")
    assert (tidy()["kept_hits"], db.one(count)) == (1, 1)
    db.all("update private.kept_hits set created_at = created_at - interval '2 h'")
    assert (tidy()["kept_hits"], db.one(count)) == (1, 0)
    db.all(  # eight of 320 KB, the first the newest; they concern nobody's changes
        "insert into private.kept_hits (user_id, key, scope_ids, epoch, state, hits, created_at)"
        " select %s, decode('0' || n, 'hex'), '{}', 0, '', to_jsonb(string_agg(md5(random()::text),"
        " '')), clock_timestamp() - n * interval '1 s'"
        " from generate_series(1, 8) as n cross join generate_series(1, 10000) group by n",
        owner,
    )
    db.all("update private.settings set value = '1' where key = 'search.cache_mb'")
    assert tidy()["kept_hits"] == 5
    kept = db.all("select get_byte(key, 0) from private.kept_hits order by 1")
    assert kept == [1, 2, 3]


def test_folded_epochs_are_one_row_an_id_and_the_same_sum(
    db: Database, drive: Drive, owner: uuid.UUID
) -> None:
    sums = "select scope_id, sum(edits) from private.epochs group by scope_id order by scope_id"
    before = db.all(sums)
    assert len(before) >= 1
    db.all("update private.epochs set xid = (xid::text::bigint + 1000000)::text::xid8")
    drive.rpc(owner, "create_folder", name="more")
    changed = db.all(sums)
    assert changed != before
    db.one("select private.fold_epochs()")
    assert db.all(sums) == changed
    assert db.all("select distinct xid::text from private.epochs") == ["0"]
    drive.rpc(owner, "create_folder", name="and more")
    db.one("select private.fold_epochs()")
    assert db.all("select distinct xid::text from private.epochs") == ["0"]


def test_a_large_answer_is_not_kept(db: Database, drive: Drive, owner: uuid.UUID) -> None:
    long = "bark " + " ".join(uuid.uuid4().hex for _ in range(200))
    drive.file(owner, f"{'x' * 200}.txt", *(f"{long} {number}" for number in range(100)))
    db.all("update public.chunks set bboxes = (select jsonb_agg(random()) from"
           " generate_series(1, 300)) where length(content) > 1000")  # fmt: skip
    for _ in range(2):
        assert ask(drive, owner)["cached"] is False


# Random edits by several people ------------------------------------------------------------------


class Crowd:
    """Three people in one tree each, a group and a workspace, who do what comes to their minds."""

    def __init__(self, drive: Drive, seed: int) -> None:
        self.drive, self.chance = drive, random.Random(seed)
        self.people = [drive.db.create_user(f"p{seed}-{n}@example.test") for n in range(3)]
        first = self.people[0]
        self.group = drive.rpc(first, "create_group", name="g")["id"]
        space = drive.rpc(first, "create_workspace", name="w")
        self.workspace, self.root = space["id"], space["root_id"]
        self.count = 0
        for person in self.people:
            for _ in range(2):
                folder = drive.rpc(person, "create_folder", name=f"f{self.next()}")["id"]
                self.new_file(person, folder)
        self.new_file(first, self.root)

    def next(self) -> int:
        """Return a number that was not used yet."""
        self.count += 1
        return self.count

    def text(self) -> str:
        return " ".join(self.chance.choices(WORDS, k=4)) + f" n{self.next()}"

    def new_file(self, person: uuid.UUID, folder: str | None = None) -> None:
        texts = [self.text() for _ in range(self.chance.randrange(1, 3))]
        self.drive.file(person, f"{self.next()}.txt", *texts, folder_id=folder)

    def pick(self, query: LiteralString, *args: object) -> Any:
        rows = self.drive.db.all(query, *args)
        return self.chance.choice(sorted(rows, key=str)) if rows else None

    def edit(self) -> str:
        """Do something at random; what is refused counts as done."""
        person, other = self.chance.sample(self.people, 2)
        files = (
            "select id from public.nodes where parent_id is not null and trashed_at is null"
            " and owner_id = any(%s)"
        )
        owners = [*self.people, uuid.UUID(self.workspace)]
        mine = self.pick(files, [person]) or self.pick(files, owners)
        anything = self.pick(
            "select id from public.nodes where trashed_at is null and owner_id = %s", person
        )
        rpc, number = self.drive.rpc, self.next()
        share = self.pick("select id from public.shares")
        member = self.pick("select id from public.group_members where not is_manager")
        trashed = self.pick("select id from public.nodes where trash_root_id = id")
        colleague = self.pick("select id from public.workspace_members where level <> 'owner'")
        target = self.pick(
            "select id from public.nodes where kind = 'folder' and trashed_at is null"
            " and owner_id = any(%s)", owners,
        )  # fmt: skip
        first = self.people[0]
        doings: dict[str, Callable[[], Any]] = {
            "new": lambda: self.new_file(person, target),
            "version": lambda: self.drive.file(person, "v.txt", self.text(), file_id=mine),
            "rename": lambda: rpc(person, "rename_node", id=anything, name=f"r{number}"),
            "move": lambda: rpc(person, "move_nodes", ids=[mine], target=target),
            "copy": lambda: rpc(person, "copy_nodes", ids=[mine], target=target),
            "trash": lambda: rpc(person, "trash_nodes", ids=[mine]),
            "restore": lambda: rpc(person, "restore_nodes", ids=[trashed]),
            "purge": lambda: (rpc(person, "purge_nodes", ids=[trashed]), self.drive.clean_up()),
            "tag": lambda: rpc(
                person, "tag_nodes", ids=[mine],
                **{self.chance.choice(["add", "remove"]): ["red"]},
            ),
            "share": lambda: rpc(
                person, "share_node", node=anything, grantee={"user_id": str(other)}, level="edit"
            ),
            "share with the group": lambda: rpc(
                person, "share_node", node=anything, grantee={"group_id": self.group},
                level="view",
            ),
            "unshare": lambda: rpc(
                self.drive.db.one("select granted_by from public.shares where id = %s", share),
                "unshare_node", share_id=share,
            ),
            "expire": lambda: self.drive.db.all(
                "update public.shares set expires_at = clock_timestamp() where id = %s", share
            ),
            "join": lambda: rpc(
                first, "add_group_member", group_id=self.group, member={"user_id": str(other)}
            ),
            "leave": lambda: rpc(first, "remove_group_member", id=member),
            "hire": lambda: rpc(
                first, "add_workspace_member", workspace_id=self.workspace,
                member={"user_id": str(other)}, level="edit",
            ),
            "fire": lambda: rpc(first, "remove_workspace_member", id=colleague),
            "role": lambda: self.drive.db.all(
                "update public.user_profiles set role = case role when 'user' then 'viewer'"
                " else 'user' end where id = %s", other,
            ),
            "boost": lambda: self.drive.db.all(
                "update public.chunks set boost = %s where file_id = %s", number, mine
            ),
            "tidy": lambda: self.drive.db.all("select private.run_task('tidy_searches')"),
        }  # fmt: skip
        name = self.chance.choice(list(doings))
        try:
            with self.drive.db.connection.transaction():
                doings[name]()
        except psycopg.Error as error:
            assert str(error.sqlstate).startswith("PT"), error
            return f"{name} refused"
        return name


ASKED: list[dict[str, Any]] = [
    {},
    {"query": "lump tump", "filters": Jsonb({"tags": ["red"]})},
]


@pytest.mark.parametrize("seed", range(2))
def test_kept_answers_are_those_of_a_fresh_search_after_random_edits(
    db: Database, drive: Drive, seed: int
) -> None:
    crowd = Crowd(drive, seed)
    done: list[str] = []
    cached = 0
    for _ in range(40):
        while True:
            done.append(crowd.edit())
            if "refused" not in done[-1]:
                break
        for person in crowd.people:
            for question in ASKED:
                kept = ask(drive, person, **question)
                cached += kept["cached"]
                assert kept["hits"] == fresh(drive, person, **question)["hits"], done
    assert cached > 20, "nothing was kept"
    assert cached < 40 * 6 - 60, "nothing changed"
    assert len({name for name in done if "refused" not in name}) > 8, done
    for books in (UNEQUAL, UNNEEDED, UNSERVED, UNNAMED):
        assert db.all(books) == [], done


def test_kept_answers_are_those_of_a_fresh_search_while_others_edit(
    connect: Callable[[], Drive],
) -> None:
    """Both asked in one snapshot; the edits are committed by others all the while."""
    crowd = Crowd(connect(), 7)
    stop = threading.Event()
    failures: list[str] = []
    counts = {"edits": 0, "cached": 0, "compared": 0}

    def run(work: Callable[[Drive], None]) -> threading.Thread:
        drive = connect()

        def loop() -> None:
            try:
                while not stop.is_set():
                    work(drive)
            except Exception as error:
                failures.append(repr(error))
                stop.set()

        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    def search(drive: Drive) -> None:  # keeps what the others compare
        for person in crowd.people:
            ask(drive, person)

    def compare(drive: Drive) -> None:
        for person in crowd.people:
            with drive.db.connection.transaction():
                drive.db.all("set transaction isolation level repeatable read")
                kept = ask(drive, person)
                if kept["hits"] != fresh(drive, person)["hits"]:
                    failures.append(str(kept))
            counts["cached"] += kept["cached"]
            counts["compared"] += 1

    threads = [run(search), run(search), run(compare)]
    started = time.monotonic()
    try:
        while time.monotonic() - started < 8 and not failures:
            crowd.edit()
            counts["edits"] += 1
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert counts["edits"] > 10, counts
    assert counts["cached"] > 5, counts
    assert counts["compared"] > counts["cached"], counts
