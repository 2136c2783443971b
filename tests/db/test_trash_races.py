"""Deleting and restoring while others do the same, or something else, to the same files."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest

from tests.db.conftest import Drive
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import STAGES, TEXTS, quota_of, read_until

ROUNDS = 30
Together = Callable[..., list[str]]


@pytest.fixture
def together(connect: Callable[[], Drive]) -> Iterator[Together]:
    """Run functions at the same moment, each on a connection of its own.

    What comes back is ok, or the SQLSTATE of the refusal, by function.
    """
    drives = [connect() for _ in range(3)]

    def attempt(function: Callable[[Drive], Any], drive: Drive, start: Barrier) -> str:
        start.wait()
        try:
            function(drive)
        except psycopg.Error as error:
            return str(error.sqlstate)
        return "ok"

    with ThreadPoolExecutor(len(drives)) as pool:

        def run(*functions: Callable[[Drive], Any]) -> list[str]:
            start = Barrier(len(functions))
            running = [
                pool.submit(attempt, function, drive, start)
                for function, drive in zip(functions, drives, strict=False)
            ]
            return [one.result() for one in running]

        yield run


def balanced(drive: Drive) -> None:
    for query in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert drive.db.all(query) == []


def calling(user: uuid.UUID, function: str, **arguments: Any) -> Callable[[Drive], Any]:
    """Call a public function as a user, on whichever connection."""
    return lambda drive: drive.rpc(user, function, **arguments)


def test_purge_against_restore(connect: Callable[[], Drive], together: Together) -> None:
    drive = connect()
    owner = drive.db.create_user()
    seen = Counter[tuple[str, ...]]()
    for number in range(ROUNDS):
        folder = drive.rpc(owner, "create_folder", name=f"{number}")["id"]
        file = drive.file(owner, "a.txt", *TEXTS, folder_id=folder)["file_id"]
        drive.rpc(owner, "trash_nodes", ids=[folder])
        # now the folder, now what is inside of it
        back = file if number % 2 else folder
        outcome = together(
            calling(owner, "purge_nodes", ids=[folder]),
            calling(owner, "restore_nodes", ids=[back], on_conflict="rename"),
            lambda mine: mine.clean_up(1),
        )
        seen[tuple(outcome[:2])] += 1
        assert outcome[2] == "ok"
        assert drive.db.one(
            "select count(*) from public.nodes where id = %s and purged_at is null", folder
        ) == (1 if outcome[0] != "ok" else 0)
    # whoever came second found it gone, locked, or back again: both may have had their way
    assert {outcome for pair in seen for outcome in pair} <= {"ok", "PT404", "PT423"}, seen
    drive.clean_up()
    balanced(drive)
    living = drive.db.one("select count(*) from public.nodes")
    assert living == drive.db.one("select count(*) from public.nodes where kind = 'file'")
    assert quota_of(drive.db, owner)[0] == 10 * living


def test_trash_against_a_worker(connect: Callable[[], Drive], together: Together) -> None:
    drive = connect()
    owner = drive.db.create_user()
    seen = Counter[tuple[str, ...]]()
    for number in range(ROUNDS):
        ticket, job = read_until(drive, owner, STAGES[number % 4])
        file = ticket["file_id"]
        outcome = together(
            calling(owner, "trash_nodes", ids=[file]),
            lambda mine, job=job: mine.run_stage(job, TEXTS),
        )
        seen[tuple(outcome)] += 1
        # whatever the worker managed to write, nothing runs and nothing is seen
        states = "select state from public.ingest_jobs where file_id = %s"
        assert set(drive.db.all(states, file)) <= {"done", "cancelled"}
        assert drive.claim() == []
        assert drive.search(owner, "alpha")["hits"] == []
        if number % 3:
            drive.rpc(owner, "purge_nodes", ids=[file])
        else:
            drive.rpc(owner, "restore_nodes", ids=[file])
            drive.ingest(*TEXTS)
            assert drive.rpc(owner, "file_details", file_id=file)["status"] == "ready"
            assert drive.search(owner, "alpha")["hits"]
            drive.rpc(owner, "purge_nodes", ids=[file])
        drive.clean_up()
    assert {one for pair in seen for one in pair} <= {"ok", "PT409"}, seen
    assert {first for first, _ in seen} == {"ok"}
    balanced(drive)
    assert quota_of(drive.db, owner)[:2] == (0, 0)


def test_two_purges_of_what_has_the_same_bytes(
    connect: Callable[[], Drive], together: Together
) -> None:
    drive = connect()
    owner, other = drive.db.create_user(), drive.db.create_user()
    for number in range(ROUNDS):
        shared = drive.rpc(owner, "create_folder", name=f"{number}")["id"]
        drive.share(shared, other)
        first = drive.file(owner, "a.txt", *TEXTS, folder_id=shared)["file_id"]
        second = drive.rpc(owner, "copy_nodes", ids=[first])["items"][0]["id"]
        third = drive.rpc(other, "copy_nodes", ids=[first])["items"][0]["id"]
        assert drive.db.one("select count(distinct key) from private.blobs") == 1
        outcome = together(
            calling(owner, "purge_nodes", ids=[first]),
            calling(owner, "purge_nodes", ids=[second]),
            calling(other, "purge_nodes", ids=[third]),
        )
        assert outcome == ["ok"] * 3
        assert quota_of(drive.db, owner)[0] == quota_of(drive.db, other)[0] == 0
        assert together(*[lambda mine: mine.clean_up(1)] * 3) == ["ok"] * 3
        drive.clean_up()
        assert drive.db.one("select count(*) from private.blobs") == 0
        # none is left behind, and none was taken from under somebody
        assert drive.db.one("select count(*) from storage.objects") == 0
    balanced(drive)


@pytest.mark.parametrize("what", ["folder", "ticket", "rename", "move", "restore"])
def test_restore_against_what_takes_the_name(
    connect: Callable[[], Drive], together: Together, what: str
) -> None:
    drive = connect()
    owner = drive.db.create_user()
    seen = Counter[tuple[str, ...]]()
    for number in range(ROUNDS // 3):
        name = f"{number}.txt"
        folder = drive.rpc(owner, "create_folder", name=f"{number}")["id"]
        old = drive.upload(owner, name, folder_id=folder)["file_id"]
        drive.rpc(owner, "trash_nodes", ids=[old])
        spare = drive.upload(owner, f"spare {number}", folder_id=folder)["file_id"]
        same = drive.upload(owner, name.upper())["file_id"]
        rival: Callable[[Drive], Any] = {
            "folder": calling(owner, "create_folder", name=name, parent=folder),
            "ticket": lambda d, n=name, f=folder: d.ticket(owner, n, 5, folder_id=f),
            "rename": calling(owner, "rename_node", id=spare, name=name),
            "move": calling(owner, "move_nodes", ids=[same], target=folder),
            "restore": calling(owner, "restore_nodes", ids=[old], on_conflict="fail"),
        }[what]
        outcome = together(
            calling(owner, "restore_nodes", ids=[old], on_conflict="fail"),
            rival,
        )
        seen[tuple(outcome)] += 1
        assert sorted(outcome) == ["PT409", "ok"], outcome
        count = (
            "select count(*) from public.nodes where parent_id = %s and trashed_at is null"
            " and lower(name) = %s"
        )
        assert drive.db.one(count, folder, name) == 1
    assert sum(seen.values()) == ROUNDS // 3
    balanced(drive)


def test_of_two_versions_with_one_base_one_wins(
    connect: Callable[[], Drive], together: Together
) -> None:
    drive = connect()
    owner, peer = drive.db.create_user(), drive.db.create_user()
    file = drive.file(owner, "a.txt", *TEXTS)
    drive.share(file["file_id"], peer, "edit")
    base = file["version_id"]
    for number in range(ROUNDS):
        begin = [
            calling(
                user,
                "begin_upload",
                file_id=file["file_id"],
                size=10,
                base_version=base,
                mime="a/b",
            )
            for user in (owner, peer)
        ]
        if number % 2:  # both have asked before either sends
            tickets = [one(drive) for one in begin]
            outcome = together(
                *[
                    lambda mine, user=user, ticket=ticket: mine.store(user, ticket["key"], 10)
                    for user, ticket in zip((owner, peer), tickets, strict=True)
                ]
            )
            assert sorted(outcome) == ["42501", "ok"], outcome
        else:  # each asks and sends at once

            def ask_and_send(mine: Drive, user: uuid.UUID, base: str = base) -> None:
                ticket = mine.ticket(user, size=10, file_id=file["file_id"], base_version=base)
                mine.store(user, ticket["key"], 10)

            outcome = together(
                lambda mine: ask_and_send(mine, owner), lambda mine: ask_and_send(mine, peer)
            )
            assert sorted(outcome) in (["42501", "ok"], ["PT409", "ok"]), outcome
        drive.ingest(f"text {number}")
        newest = drive.db.all(
            "select id::text from public.file_versions where file_id = %s order by no desc",
            file["file_id"],
        )
        assert len(newest) == number + 2
        base = newest[0]
        assert drive.rpc(owner, "file_details", file_id=file["file_id"])["head_version_id"] == base
        # what was refused gives its reservation back
        drive.db.all("update public.uploads set expires_at = now() where state = 'open'")
        with drive.db.as_role("narwhal_worker"):
            drive.db.one("select private.expire_uploads()")
    balanced(drive)


def test_an_account_is_deleted_while_its_files_are_purged(
    connect: Callable[[], Drive], together: Together
) -> None:
    drive = connect()
    seen = Counter[str]()
    for _ in range(ROUNDS):
        owner = drive.db.create_user()
        files = [drive.file(owner, f"{i}.txt", *TEXTS)["file_id"] for i in range(4)]
        drive.rpc(owner, "purge_nodes", ids=files[:2])
        outcome = together(
            lambda mine, owner=owner: mine.db.all("delete from auth.users where id = %s", owner),
            calling(owner, "purge_nodes", ids=files[2:]),
            lambda mine: mine.clean_up(1),
        )
        seen.update(outcome)
        assert outcome[0] == "ok", outcome
        drive.clean_up()
        for table in ("public.nodes", "private.blobs", "storage.objects", "private.purge_queue"):
            assert drive.db.one(f"select count(*) from {table}") == 0, table  # type: ignore[arg-type]
    assert seen.keys() <= {"ok", "PT401", "PT404"}, seen
    balanced(drive)
