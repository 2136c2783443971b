"""Reservations and quota: how tickets end, and books that always balance."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, LiteralString

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, denied, refused, refused_by_storage
from tests.db.invariants import UNBALANCED
from tests.db.looks import (
    quota_of,
    versions_of,
)

# Ends --------------------------------------------------------------------------------------------


def test_an_aborted_upload_returns_its_reservation_and_its_name(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    ticket = drive.ticket(owner, "a.txt", 100)
    assert quota_of(db, owner)[:2] == (0, 100)
    for user in (stranger, None):
        with refused("NOT_FOUND" if user else "NOT_AUTHENTICATED"):
            drive.rpc(user, "abort_upload", upload_id=ticket["upload_id"])
    drive.rpc(owner, "abort_upload", upload_id=ticket["upload_id"])
    assert quota_of(db, owner)[:2] == (0, 0)
    assert drive.ticket(owner, "a.txt", 1)["name"] == "a.txt"
    done = drive.upload(owner, "b.txt")
    with refused("CONFLICT_STATE", state="completed"):
        drive.rpc(owner, "abort_upload", upload_id=done["upload_id"])


def test_an_abandoned_upload_returns_its_reservation_when_it_expires(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    old, new = drive.ticket(owner, "old.txt", 100), drive.ticket(owner, "new.txt", 10)
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_uploads()") == 0
    db.all(
        "update public.uploads set expires_at = now() - interval '1 s' where id = %s",
        old["upload_id"],
    )
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_uploads()") == 1
    assert quota_of(db, owner)[:2] == (0, 10)
    assert drive.rpc(owner, "list_folder")["items"][0]["name"] == "new.txt"
    # asking for another ticket sweeps one's own first
    db.all(
        "update public.uploads set expires_at = now() - interval '1 s' where id = %s",
        new["upload_id"],
    )
    drive.ticket(owner, "new.txt", 5)
    assert quota_of(db, owner)[:2] == (0, 5)


def test_two_tickets_of_one_new_file_end_one_by_one(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.ticket(owner, "a.txt", 100)
    second = drive.ticket(owner, "a.txt", 10, on_conflict="version")
    assert second["file_id"] == first["file_id"]
    drive.rpc(owner, "abort_upload", upload_id=first["upload_id"])
    assert quota_of(db, owner)[:2] == (0, 10)
    drive.store(owner, second["key"], 10)
    assert quota_of(db, owner)[:2] == (10, 0)
    assert versions_of(drive, owner, second) == [1]


def test_a_ticket_for_a_file_that_expires_on_the_way_is_refused(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.ticket(owner, "a.txt", 100)
    db.all("update public.uploads set expires_at = now() - interval '1 s'")
    with refused("NOT_FOUND"):
        drive.ticket(owner, "a.txt", 10, file_id=first["file_id"])
    assert drive.ticket(owner, "a.txt", 10)["name"] == "a.txt"


def test_the_uploads_of_a_deleted_account_return_what_they_reserved_elsewhere(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "edit")
    drive.ticket(peer, "a.txt", 100, folder_id=folder)
    kept = drive.upload(peer, "b.txt", 10, folder_id=folder)
    db.all("delete from auth.users where id = %s", peer)
    assert quota_of(db, owner)[:2] == (10, 0)
    names = [item["name"] for item in drive.rpc(owner, "list_folder", folder=folder)["items"]]
    assert names == ["b.txt"]
    assert drive.rpc(owner, "file_details", file_id=kept["file_id"])["created_by"] is None


def test_trash_and_purge_return_the_reservation(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for function in ("trash_nodes", "purge_nodes"):
        ticket = drive.ticket(owner, "a.txt", 100)
        assert quota_of(db, owner)[1] == 100
        drive.rpc(owner, function, ids=[ticket["file_id"]])
        assert quota_of(db, owner)[1] == 0


# Quota -------------------------------------------------------------------------------------------


def test_the_quota_is_checked_at_the_ticket_to_the_byte(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("update public.owners set storage_limit = 1000 where id = %s", owner)
    drive.upload(owner, "a.txt", 300)
    drive.ticket(owner, "b.txt", 500)
    with refused("QUOTA_EXCEEDED", used=300, reserved=500, limit=1000, requested=201):
        drive.ticket(owner, "c.txt", 201)
    assert drive.ticket(owner, "c.txt", 200)["upload_id"]
    with refused("QUOTA_EXCEEDED", requested=1):
        drive.ticket(owner, "d.txt", 1)
    assert drive.ticket(owner, "d.txt", 0)["upload_id"]


def test_a_quota_that_shrank_meanwhile_refuses_completion(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.ticket(owner, "a.txt", 100)
    db.all("update public.owners set storage_limit = 99 where id = %s", owner)
    with refused_by_storage("QUOTA_EXCEEDED"):
        drive.store(owner, ticket["key"], 100)
    assert quota_of(db, owner)[:2] == (0, 100)  # until the sweep, at the latest at expiry
    db.all("update public.uploads set expires_at = now() - interval '1 s'")
    with db.as_role("narwhal_worker"):
        db.one("select private.expire_uploads()")
    assert quota_of(db, owner)[:2] == (0, 0)


def test_purging_returns_the_quota_and_the_profile_shows_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, size=100)
    drive.upload(owner, size=50, file_id=ticket["file_id"])
    with db.as_user(owner):
        assert db.one("select storage_used from public.user_profiles") == 150
    drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]])
    assert quota_of(db, owner)[0] == 150  # the trash counts
    drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
    with db.as_user(owner):
        assert db.one("select storage_used from public.user_profiles") == 0
    assert db.one("select count(*) from storage.objects") == 2
    drive.clean_up()
    assert db.one("select count(*) from storage.objects") == 0


def test_fifty_tickets_at_once_never_exceed_the_quota(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    drive.db.all("update public.owners set storage_limit = 1000 where id = %s", owner)
    drive.upload(owner, "there already.txt", 300)
    drives = [connect() for _ in range(50)]
    start = Barrier(len(drives))

    def ask(number: int) -> str:
        start.wait()
        try:
            drives[number].ticket(owner, f"{number % 40}.txt", 30, on_conflict="rename")
        except psycopg.Error as error:
            return str(error.sqlstate)
        return "given"

    with ThreadPoolExecutor(len(drives)) as pool:
        answers = Counter(pool.map(ask, range(len(drives))))
    assert answers == {"given": 23, "PT413": 27}  # 700 bytes were free
    assert quota_of(drive.db, owner) == (300, 690, 1000)
    assert drive.db.one("select count(*) from public.uploads where state = 'open'") == 23
    assert drive.ticket(owner, "the last.txt", 10)["upload_id"]


def test_uploads_at_the_edge_of_the_quota_never_exceed_it(connect: Callable[[], Drive]) -> None:
    """Fifty people at once ask, store, give up and purge where little room is left."""
    drive = connect()
    owner = drive.db.create_user()
    drive.db.all("update public.owners set storage_limit = 500 where id = %s", owner)
    drives = [connect() for _ in range(50)]
    start = Barrier(len(drives))
    outcomes = Counter[str]()

    def go(number: int) -> Counter[str]:
        mine, chance, seen = drives[number], random.Random(number), Counter[str]()
        start.wait()
        for round_ in range(4):
            try:
                ticket = mine.ticket(owner, f"{number}-{round_}.txt", chance.randrange(10, 60))
                seen["given"] += 1
                if chance.random() < 0.6:
                    size = chance.randrange(ticket_size(mine, ticket) + 1)
                    mine.store(owner, ticket["key"], size)
                    seen["stored"] += 1
                    if chance.random() < 0.7:
                        mine.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
                        seen["purged"] += 1
                elif chance.random() < 0.7:
                    mine.rpc(owner, "abort_upload", upload_id=ticket["upload_id"])
                    seen["aborted"] += 1
            except psycopg.Error as error:
                seen[str(error.sqlstate)] += 1
        return seen

    with ThreadPoolExecutor(len(drives)) as pool:
        for seen in pool.map(go, range(len(drives))):
            outcomes += seen
    assert drive.db.all(UNBALANCED) == []
    assert set(outcomes) == {"given", "stored", "purged", "aborted", "PT413"}, outcomes
    used, reserved, limit = quota_of(drive.db, owner)
    assert used + reserved <= limit
    assert outcomes["PT413"] > 10, outcomes  # it was a race for room


def ticket_size(drive: Drive, ticket: Any) -> int:
    return drive.db.one(  # type: ignore[no-any-return]
        "select size from public.uploads where id = %s", ticket["upload_id"]
    )


# Plans -------------------------------------------------------------------------------------------


def plan(db: Database, name: str, **columns: Any) -> None:
    """Make a plan."""
    db.connection.execute(
        f"insert into public.plans (name, {', '.join(columns)})"  # type: ignore[arg-type]
        f" values (%s{', %s' * len(columns)})",
        (name, *columns.values()),
    )


def test_a_plan_limits_all_one_and_the_kinds_of_files(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    default = quota_of(db, owner)[2]
    plan(db, "texts", storage_limit=1000, max_file_size=100, allowed_extensions=["txt", "md"])
    plan(db, "pictures", blocked_extensions=["txt"])
    assert db.one("select private.change_plan(%s, 'texts')", owner)["storage_limit"] == 1000
    assert drive.upload(owner, "A.TXT", 100)["file_id"]
    with refused("FILE_TOO_LARGE", used=100, reserved=0, limit=100, requested=101):
        drive.ticket(owner, "b.txt", 101)
    for name in ("c.pdf", "c", "c.txt.pdf", "c.", "txt"):
        with refused("TYPE_NOT_ALLOWED", plan="texts", allowed=["txt", "md"]):
            drive.ticket(owner, name, 1)
    with refused("TYPE_NOT_ALLOWED"):
        drive.ticket(owner, "c.exe", 1)  # the settings still count
    for number in range(9):
        drive.upload(owner, f"{number}.md", 100)
    with refused("QUOTA_EXCEEDED", used=1000, limit=1000):
        drive.ticket(owner, "more.txt", 1)

    # a new version of what is there already is a new file as well
    db.one("select private.change_plan(%s, 'pictures')", owner)
    assert quota_of(db, owner)[2] == default
    file_id = db.one("select id from public.nodes where name = 'A.TXT'")
    with refused("TYPE_NOT_ALLOWED", extension="txt"):
        drive.ticket(owner, "A.TXT", 1, file_id=file_id)
    assert drive.ticket(owner, "more.pdf", 10**6)["upload_id"]
    with refused("INVALID_ARGUMENT", field="plan"):
        db.one("select private.change_plan(%s, 'gold')", owner)


def test_a_plan_never_allows_more_than_the_service(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    plan(db, "big", max_file_size=10**15, storage_limit=10**15)
    db.one("select private.change_plan(%s, 'big')", owner)
    limit = db.one("select value::bigint from private.settings where key = 'uploads.max_size'")
    with refused("FILE_TOO_LARGE", limit=limit):
        drive.ticket(owner, "a.txt", limit + 1)


def test_the_plan_of_who_owns_the_folder_counts(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    plan(db, "small", max_file_size=10)
    db.one("select private.change_plan(%s, 'small')", owner)
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "edit")
    with refused("FILE_TOO_LARGE", limit=10):
        drive.ticket(peer, "a.txt", 11, folder_id=folder)
    assert drive.ticket(peer, "a.txt", 11)["upload_id"]
    db.all("update public.user_profiles set subscription = '{}'")
    assert drive.ticket(peer, "a.txt", 11, folder_id=folder)["upload_id"]  # no plan, no limit


@pytest.mark.parametrize("how", ["move_nodes", "copy_nodes"])
def test_the_plan_of_the_new_owner_counts(db: Database, drive: Drive, how: str) -> None:
    owner, peer = db.create_user(), db.create_user()
    plan(db, "notes", max_file_size=10, blocked_extensions=["md"])
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "edit")
    db.one("select private.change_plan(%s, 'notes')", owner)
    tree = drive.rpc(peer, "create_folder", name="tree")["id"]
    large = drive.upload(peer, "a.txt", 11, folder_id=tree)["file_id"]
    with refused("FILE_TOO_LARGE", limit=10, requested=11):
        drive.rpc(peer, how, ids=[tree], target=folder)
    drive.rpc(peer, "trash_nodes", ids=[large])
    text = drive.upload(peer, "b.md", 5, folder_id=tree)["file_id"]
    with refused("TYPE_NOT_ALLOWED", extension="md"):
        drive.rpc(peer, how, ids=[tree], target=folder)
    drive.rpc(peer, "rename_node", id=text, name="b.txt")
    assert drive.rpc(peer, how, ids=[tree], target=folder)["items"][0]["parent_id"] == folder


def test_a_new_account_gets_the_limit_of_its_plan(db: Database) -> None:
    db.all("update public.plans set storage_limit = 777 where name = 'free'")
    assert quota_of(db, db.create_user())[2] == 777


# What it is used for -----------------------------------------------------------------------------


def usage(drive: Drive, user: uuid.UUID, **arguments: object) -> dict[str, int]:
    """The breakdown, whose parts always add up."""
    found: dict[str, int] = drive.rpc(user, "storage_usage", **arguments)
    assert found["live"] + found["versions"] + found["trash"] + found["derived"] == found["used"]
    return {key: value for key, value in found.items() if key != "limit" and value}


def test_the_breakdown_adds_up_and_counts_shared_bytes_once(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    assert usage(drive, owner) == {}
    first = drive.file(owner, "a.txt", "one", size=100)
    assert usage(drive, owner) == {"used": 100, "live": 100}
    second = drive.upload(owner, size=30, file_id=first["file_id"])
    # until it is read, the earlier one is what a download gives
    assert usage(drive, owner) == {"used": 130, "live": 100, "versions": 30}
    drive.ingest("two")
    assert usage(drive, owner) == {"used": 130, "live": 30, "versions": 100}
    other = drive.file(owner, "b.txt", "three", size=5)
    drive.rpc(owner, "trash_nodes", ids=[other["file_id"]])
    assert usage(drive, owner) == {"used": 135, "live": 30, "versions": 100, "trash": 5}
    # the same bytes in the trash and alive count as alive
    db.all(
        "update public.file_versions set blob_id = (select blob_id from public.file_versions"
        " where id = %s) where id = %s",
        second["version_id"],
        other["version_id"],
    )
    db.all("delete from private.blobs where size = 5")
    assert usage(drive, owner) == {"used": 130, "live": 30, "versions": 100}
    db.all(
        "insert into private.blobs (owner_id, bucket, key, size) values (%s, 'derived', 'x', 7)",
        owner,
    )
    drive.ticket(owner, "c.txt", 50)
    assert usage(drive, owner) == {
        "used": 137,
        "reserved": 50,
        "live": 30,
        "versions": 100,
        "derived": 7,
    }


def test_strangers_learn_nothing_about_what_is_stored(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    drive.upload(owner, size=100)
    assert usage(drive, owner, owner=str(owner))["used"] == 100
    for who in (str(owner), str(uuid.uuid4())):
        with refused("NOT_FOUND"):
            drive.rpc(stranger, "storage_usage", owner=who)


def test_each_day_is_written_down_once(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    drive.upload(owner, size=100)
    assert db.one("select private.record_usage()") == 2
    drive.upload(owner, "b.txt", size=50)
    assert db.one("select private.record_usage()") == 0
    db.all("update public.usage_daily set day = day - 1")
    assert db.one("select private.record_usage(1)") == 1
    assert db.one("select private.record_usage()") == 1
    with db.as_user(owner):
        assert db.all("select used from public.usage_daily order by day") == [100, 150]
    with db.as_user(stranger):
        assert db.all("select used from public.usage_daily order by day") == [0, 0]


# The ledger --------------------------------------------------------------------------------------


def ledger(db: Database, owner: uuid.UUID) -> list[tuple[int, int, str]]:
    """What was charged to an owner, in order."""
    return db.all(
        "select used, reserved, reason from private.quota_ledger where owner_id = %s order by id",
        owner,
    )


def test_the_ledger_tells_the_story_of_every_byte(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.ticket(owner, "a.txt", 100)
    drive.store(owner, ticket["key"], 90)
    drive.rpc(owner, "abort_upload", upload_id=drive.ticket(owner, "b.txt", 50)["upload_id"])
    assert ledger(db, owner) == [
        (0, 100, "reserve"),
        (90, 0, "store"),
        (0, -100, "settle"),
        (0, 50, "reserve"),
        (0, -50, "release"),
    ]
    references = db.all("select distinct reference from private.quota_ledger")
    known = db.all("select id from public.uploads union select id from private.blobs")
    assert set(references) == set(known)


def test_used_follows_the_rows_of_blobs(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    drive.upload(owner, "a.txt", 100)
    drive.upload(owner, "b.txt", 20)
    db.all("update private.blobs set released_at = now() where size = 100")
    assert quota_of(db, owner)[0] == 20
    db.all("update private.blobs set released_at = now() - interval '1 h' where size = 100")
    assert quota_of(db, owner)[0] == 20
    db.all("update private.blobs set released_at = null where size = 100")
    assert quota_of(db, owner)[0] == 120
    db.all("update private.blobs set owner_id = %s where size = 20", peer)
    assert (quota_of(db, owner)[0], quota_of(db, peer)[0]) == (100, 20)
    db.all(
        "insert into private.blobs (owner_id, key, size)"
        " select b.owner_id, b.key || n, b.size from private.blobs as b, generate_series(1, 3) as n"
    )
    assert (quota_of(db, owner)[0], quota_of(db, peer)[0]) == (400, 80)
    db.all("delete from private.blobs")
    assert (quota_of(db, owner)[0], quota_of(db, peer)[0]) == (0, 0)
    assert [reason for _, _, reason in ledger(db, owner)][-5:] == [
        "purge",
        "restore",
        "transfer",
        "store",
        "delete",
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "update private.quota_ledger set used = 0",
        "delete from private.quota_ledger",
        "truncate private.quota_ledger",
    ],
)
def test_the_ledger_only_grows(db: Database, drive: Drive, statement: LiteralString) -> None:
    drive.upload(db.create_user(), size=100)
    with refused("FORBIDDEN"):
        db.all(statement)


def test_clients_neither_read_nor_write_the_ledger(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.upload(owner, size=100)
    for user in (owner, None):
        with denied(), db.as_user(user):
            db.all("select * from private.quota_ledger")
        with denied(), db.as_user(user):
            db.all("select private.charge(%s, -1, 0, 'reconcile')", owner)


@pytest.mark.parametrize("seed", range(3))
def test_the_books_balance_after_whatever_happens(db: Database, drive: Drive, seed: int) -> None:
    walk = Walk(drive, random.Random(seed))
    for _ in range(150):
        walk.step()
        assert db.all(UNBALANCED) == [], walk.history
    assert {action.__name__ for action in walk.actions} == set(walk.history)
    assert {"PT404", "PT409", "PT413"} <= set(walk.refusals), walk.refusals
    db.all("delete from auth.users")
    assert db.one("select count(*) from public.nodes") == 0
    assert db.one("select count(*) from private.blobs") == 0


class Walk:
    """Two people, one of whom may write in the other's folder, doing anything at random."""

    def __init__(self, drive: Drive, chance: random.Random) -> None:
        self.drive, self.db, self.chance = drive, drive.db, chance
        self.people = [self.db.create_user(), self.db.create_user()]
        self.db.all("update public.owners set storage_limit = 120")
        self.folder = drive.rpc(self.people[0], "create_folder", name="shared")["id"]
        drive.share(self.folder, self.people[1], "edit")
        self.tickets: list[tuple[uuid.UUID, Any]] = []
        self.history = Counter[str]()
        self.refusals = Counter[str]()
        self.actions = [
            self.ask,
            self.ask,
            self.ask,
            self.store,
            self.store,
            self.store,
            self.again,
            self.abort,
            self.expire,
            self.read,
            self.reject,
            self.trash,
            self.purge,
            self.cancel,
        ]

    def step(self) -> None:
        action = self.chance.choice(self.actions)
        try:
            with self.db.connection.transaction():
                action()
        except psycopg.Error as error:
            assert str(error.sqlstate)[:2] in ("PT", "42"), error
            self.refusals[str(error.sqlstate)] += 1
        else:
            self.history[action.__name__] += 1

    def ask(self, **more: Any) -> None:
        user = self.chance.choice(self.people)
        if self.chance.random() < 0.5:
            more["folder_id"] = self.folder
        if self.chance.random() < 0.2 and self.tickets:
            more = {"file_id": self.chance.choice(self.tickets)[1]["file_id"]}
        name = f"{self.chance.randrange(6)}.txt"
        on_conflict = self.chance.choice(["fail", "rename", "version"])
        size = more.pop("size", self.chance.randrange(60))
        ticket = self.drive.ticket(user, name, size, on_conflict=on_conflict, **more)
        if not ticket["deduplicated"]:
            self.tickets.append((user, ticket))

    def again(self) -> None:
        blob = self.chance.choice(
            self.db.all("select size, sha256 from private.blobs where sha256 is not null")
            or [(1, "0" * 64)]
        )
        self.ask(size=blob[0], sha256=blob[1])

    def some(self) -> tuple[uuid.UUID, Any]:
        return self.chance.choice(self.tickets or [(self.people[0], self.nothing())])

    def nothing(self) -> Any:
        return dict.fromkeys(("upload_id", "file_id", "version_id", "key"), uuid.UUID(int=0).hex)

    def store(self) -> None:
        user, ticket = self.some()
        size = self.db.one("select size from public.uploads where id = %s", ticket["upload_id"])
        self.drive.store(user, ticket["key"], self.chance.randrange((size or 0) + 2))

    def abort(self) -> None:
        user, ticket = self.some()
        self.drive.rpc(user, "abort_upload", upload_id=ticket["upload_id"])

    def expire(self) -> None:
        self.db.all(
            "update public.uploads set expires_at = now() - interval '1 s' where id = %s",
            self.some()[1]["upload_id"],
        )
        with self.db.as_role("narwhal_worker"):
            self.db.one("select private.expire_uploads()")

    def read(self) -> None:
        self.drive.ingest("some text")

    def reject(self) -> None:
        for job in self.drive.claim():
            self.drive.work("fail_job", job, "magic_mismatch", "It is a program.", True)

    def trash(self) -> None:
        user, ticket = self.some()
        self.drive.rpc(user, "trash_nodes", ids=[ticket["file_id"]])

    def purge(self) -> None:
        _, ticket = self.some()
        self.drive.rpc(self.people[0], "purge_nodes", ids=[ticket["file_id"]])

    def cancel(self) -> None:
        user, ticket = self.some()
        self.drive.rpc(user, "cancel_ingest", file_id=ticket["file_id"])
