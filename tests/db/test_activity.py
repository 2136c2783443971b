"""Favourites, what was opened last, views and downloads: one's own state, everybody's counters."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, denied, holding_link, refused


def _names(drive: Drive, user: uuid.UUID, function: str) -> list[str]:
    return [item["name"] for item in drive.rpc(user, function)["items"]]


def _states(db: Database, user: uuid.UUID | None) -> list[str]:
    with db.as_user(user):
        return db.all("select node_id::text from public.node_user_state order by 1")


def _folder(drive: Drive, user: uuid.UUID, name: str, parent: str | None = None) -> str:
    return str(drive.rpc(user, "create_folder", name=name, parent=parent)["id"])


def _age(db: Database) -> None:
    """Make what happened so far a minute older: a test is one transaction, with one time."""
    db.all(
        "update public.node_user_state set favourited_at = favourited_at - interval '1 minute',"
        " last_opened_at = last_opened_at - interval '1 minute'"
    )


# Favourites ---------------------------------------------------------------------------------------


def test_favourites_are_listed_newest_first_and_are_nobody_elses(
    db: Database, drive: Drive
) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    top = _folder(drive, owner, "top")
    drive.share(top, peer)
    for name in ("a", "b", "c"):
        made = _folder(drive, owner, name, top)
        _age(db)
        state = drive.rpc(owner, "set_favourite", node=made, is_favourite=True)
        assert (state["node_id"], state["is_favourite"]) == (made, True)
    assert _names(drive, owner, "list_favourites") == ["c", "b", "a"]
    for other in (peer, stranger):
        assert _names(drive, other, "list_favourites") == []
        assert _states(db, other) == []
    drive.rpc(peer, "set_favourite", node=top)
    assert _names(drive, peer, "list_favourites") == ["top"]
    assert _names(drive, owner, "list_favourites") == ["c", "b", "a"]


def test_marking_twice_keeps_the_place_and_unmarking_takes_it_off(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    first, second = _folder(drive, owner, "first"), _folder(drive, owner, "second")
    drive.rpc(owner, "set_favourite", node=first)
    _age(db)
    drive.rpc(owner, "set_favourite", node=second)
    drive.rpc(owner, "set_favourite", node=first)
    assert _names(drive, owner, "list_favourites") == ["second", "first"]
    state = drive.rpc(owner, "set_favourite", node=second, is_favourite=False)
    assert (state["is_favourite"], state["favourited_at"]) == (False, None)
    assert _names(drive, owner, "list_favourites") == ["first"]


def test_favourites_come_back_from_the_trash_and_go_with_a_purge(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    folder = _folder(drive, owner, "folder")
    drive.rpc(owner, "set_favourite", node=folder)
    drive.rpc(owner, "trash_nodes", ids=[folder])
    assert _names(drive, owner, "list_favourites") == []
    assert _states(db, owner) == []
    with refused("NOT_FOUND", id=folder):
        drive.rpc(owner, "set_favourite", node=folder, is_favourite=False)
    drive.rpc(owner, "restore_nodes", ids=[folder])
    assert _names(drive, owner, "list_favourites") == ["folder"]
    drive.rpc(owner, "purge_nodes", ids=[folder])
    assert _names(drive, owner, "list_favourites") == _states(db, owner) == []
    assert db.one("select private.purge_batch(100)") == 1
    assert db.one("select count(*) from public.node_user_state") == 0


def test_what_is_no_longer_shared_is_no_longer_listed(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    top = _folder(drive, owner, "top")
    inner = _folder(drive, owner, "inner", top)
    drive.share(top, peer)
    drive.rpc(peer, "set_favourite", node=inner)
    drive.rpc(peer, "record_view", node=inner)
    db.all("delete from public.shares")
    assert _names(drive, peer, "list_favourites") == _names(drive, peer, "list_recent") == []
    assert _states(db, peer) == []
    with refused("NOT_FOUND"):
        drive.rpc(peer, "set_favourite", node=inner)
    drive.share(top, peer)  # and it is as it was
    assert _names(drive, peer, "list_favourites") == ["inner"]


def test_the_role_viewer_may_mark_favourites_which_are_its_own(db: Database, drive: Drive) -> None:
    owner, viewer = db.create_user(), db.create_user()
    top = _folder(drive, owner, "top")
    drive.share(top, viewer, "edit")
    db.all("update public.user_profiles set role = 'viewer' where id = %s", viewer)
    drive.rpc(viewer, "set_favourite", node=top)
    drive.rpc(viewer, "record_view", node=top)
    assert _names(drive, viewer, "list_favourites") == ["top"]
    with refused("FORBIDDEN", permission="edit_documents"):
        drive.rpc(viewer, "create_folder", name="x", parent=top)


def test_state_is_only_written_through_the_functions(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.rpc(owner, "set_favourite", node=_folder(drive, owner, "a"))
    for statement in (
        "update public.node_user_state set last_opened_at = now()",
        "delete from public.node_user_state",
        "insert into public.node_user_state (user_id, node_id) select user_id, node_id"
        " from public.node_user_state",
        "update public.node_stats set views = 1000",
        "insert into public.node_stats (node_id) select node_id from public.node_user_state",
        "delete from public.node_stats",
    ):
        with denied(), db.as_user(owner):
            db.connection.execute(statement)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", ["list_favourites", "list_recent"])
def test_pages_have_no_gaps_and_no_doubles(db: Database, drive: Drive, function: str) -> None:
    owner, peer = db.create_user(), db.create_user()
    made = [_folder(drive, owner, f"{i}") for i in range(7)]
    hidden = _folder(drive, peer, "hidden")
    drive.share(hidden, owner)
    for node in [*made, hidden]:  # all at the same time, as in one transaction
        drive.rpc(owner, "set_favourite", node=node)
        drive.rpc(owner, "record_view", node=node)
    db.all("delete from public.shares")
    seen: list[str] = []
    cursor = None
    for _ in range(4):
        page = drive.rpc(owner, function, page_size=2, cursor=cursor)
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        assert "path" not in page["items"][0]
        if cursor is None:
            break
    assert cursor is None
    assert sorted(seen) == sorted(made)


@pytest.mark.parametrize("function", ["list_favourites", "list_recent"])
@pytest.mark.parametrize("cursor", ["", "x", "W10=", "WyJhIiwgImIiXQ==", "AAAA"])
def test_a_forged_cursor_is_refused(db: Database, drive: Drive, function: str, cursor: str) -> None:
    user = db.create_user()
    with refused("INVALID_ARGUMENT", field="cursor"):
        drive.rpc(user, function, cursor=cursor)
    for page_size in (0, 1001, None):
        with refused("INVALID_ARGUMENT", field="page_size"):
            drive.rpc(user, function, page_size=page_size)


def test_a_cursor_is_good_for_its_own_list_only(db: Database, drive: Drive) -> None:
    user = db.create_user()
    for name in "ab":
        drive.rpc(user, "set_favourite", node=_folder(drive, user, name))
    cursor = drive.rpc(user, "list_favourites", page_size=1)["next_cursor"]
    assert drive.rpc(user, "list_favourites", cursor=cursor)["items"]  # control
    with refused("INVALID_ARGUMENT", field="cursor"):
        drive.rpc(user, "list_recent", cursor=cursor)


def test_null_is_no_answer_to_whether_it_is_a_favourite(db: Database, drive: Drive) -> None:
    user = db.create_user()
    with refused("INVALID_ARGUMENT", field="is_favourite"):
        drive.rpc(user, "set_favourite", node=_folder(drive, user, "a"), is_favourite=None)


# Recent, and counters -----------------------------------------------------------------------------


def test_what_was_opened_last_comes_first_for_who_opened_it(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    top = _folder(drive, owner, "top")
    drive.share(top, peer)
    file = drive.upload(owner, "a.txt", folder_id=top)["file_id"]
    assert drive.rpc(peer, "record_view", node=top)["last_opened_at"] is not None
    _age(db)
    drive.rpc(peer, "begin_download", file_id=file)
    assert _names(drive, peer, "list_recent") == ["a.txt", "top"]
    _age(db)
    drive.rpc(peer, "record_view", node=top)
    assert _names(drive, peer, "list_recent") == ["top", "a.txt"]
    assert _names(drive, owner, "list_recent") == []
    with refused("NOT_FOUND"):
        drive.rpc(stranger, "record_view", node=top)
    assert _names(drive, stranger, "list_recent") == []


def test_views_and_downloads_are_counted_and_read_by_readers(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    file = drive.upload(owner, "a.txt")["file_id"]
    drive.share(file, peer)
    query = "select views, downloads, last_accessed_at is not null from public.node_stats"
    drive.rpc(owner, "record_view", node=file)
    drive.rpc(peer, "record_view", node=file)
    drive.rpc(peer, "begin_download", file_id=file)
    for function, argument in (("record_view", "node"), ("begin_download", "file_id")):
        with refused("NOT_FOUND"):
            drive.rpc(stranger, function, **{argument: file})
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(None, function, **{argument: file})
    for reader in (owner, peer):
        with db.as_user(reader):
            assert db.all(query) == [(2, 1, True)]
    with db.as_user(stranger):
        assert db.all(query) == []
    with denied(), db.as_user(None):
        db.all(query)


def test_a_closed_account_has_no_favourites_and_opens_nothing(db: Database, drive: Drive) -> None:
    user = db.create_user()
    file = drive.upload(user, "a.txt")["file_id"]
    drive.rpc(user, "set_favourite", node=file)
    drive.rpc(user, "record_view", node=file)
    db.all("update public.user_profiles set is_active = false where id = %s", user)
    for table in ("node_user_state", "node_stats"):
        with db.as_user(user):
            assert db.all("select * from public." + table) == []  # type: ignore[operator]
    for function, arguments in (
        ("list_favourites", {}),
        ("list_recent", {}),
        ("set_favourite", {"node": file}),
        ("record_view", {"node": file}),
        ("begin_download", {"file_id": file}),
    ):
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(user, function, **arguments)


# Downloads ----------------------------------------------------------------------------------------


def test_a_download_is_told_where_the_bytes_are(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", "alpha", size=10)
    answer = drive.rpc(owner, "begin_download", file_id=first["file_id"])
    assert answer | {"mime": None, "sha256": None} == {
        "bucket": "files",
        "key": first["key"],
        "name": "a.txt",
        "size": 10,
        "mime": None,
        "sha256": None,
        "version_id": first["version_id"],
    }
    assert len(answer["sha256"]) == 64
    with db.as_user(owner):
        assert db.all("select name from storage.objects") == [answer["key"]]
    assert db.all(
        "select actor_id, node_id::text, details from public.audit_logs where action = 'download'"
    ) == [(owner, first["file_id"], {"version_id": first["version_id"]})]


def test_the_head_is_downloaded_unless_a_version_is_named(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.txt", size=10)
    file = first["file_id"]

    def downloaded(version: str | None = None) -> Any:
        return drive.rpc(owner, "begin_download", file_id=file, version_id=version)["version_id"]

    assert downloaded() == first["version_id"]  # nobody has read it yet
    drive.ingest("alpha")
    second = drive.upload(owner, "a.txt", file_id=file)
    assert downloaded() == first["version_id"]  # until the new one is read
    assert downloaded(second["version_id"]) == second["version_id"]
    drive.ingest("bravo")
    assert downloaded() == second["version_id"]
    assert downloaded(first["version_id"]) == first["version_id"]


def test_what_cannot_be_downloaded_says_why(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = drive.upload(owner, "a.txt")
    other = drive.upload(owner, "b.txt")
    with refused("INVALID_ARGUMENT", field="file_id"):
        drive.rpc(owner, "begin_download", file_id=_folder(drive, owner, "f"))
    for version in (uuid.uuid4(), other["version_id"]):
        with refused("NOT_FOUND", version_id=str(version)):
            drive.rpc(owner, "begin_download", file_id=file["file_id"], version_id=version)
    ticket = drive.ticket(owner, "c.txt")
    with refused("CONFLICT_STATE", status="uploading"):
        drive.rpc(owner, "begin_download", file_id=ticket["file_id"])
    db.all("update public.file_versions set blob_id = null where id = %s", file["version_id"])
    with refused("CONFLICT_STATE", version_id=file["version_id"]):
        drive.rpc(owner, "begin_download", file_id=file["file_id"])
    drive.rpc(owner, "trash_nodes", ids=[other["file_id"]])
    with refused("NOT_FOUND"):
        drive.rpc(owner, "begin_download", file_id=other["file_id"])
    with db.as_user(owner):
        assert db.all("select * from public.node_stats") == []


def test_who_holds_a_link_downloads_and_is_counted_without_an_account(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    top = _folder(drive, owner, "top")
    file = drive.upload(owner, "a.txt", folder_id=top)["file_id"]
    beside = drive.upload(owner, "b.txt")["file_id"]
    drive.rpc(owner, "tag_nodes", ids=[file], add=["q3"])
    drive.rpc(owner, "add_comment", node=file, body="For us only.")
    with holding_link(db, top, owner, "edit"):
        assert drive.rpc(None, "begin_download", file_id=file)["name"] == "a.txt"
        assert drive.rpc(None, "record_view", node=file) is None
        for function, argument in (("record_view", "node"), ("begin_download", "file_id")):
            with refused("NOT_FOUND"):
                drive.rpc(None, function, **{argument: beside})
        # the rest is for people
        for function, arguments in (
            ("set_favourite", {"node": file}),
            ("list_favourites", {}),
            ("list_recent", {}),
            ("list_tags", {}),
        ):
            with refused("NOT_AUTHENTICATED"):
                drive.rpc(None, function, **arguments)
        for function, arguments in (
            ("tag_nodes", {"ids": [file], "add": ["x"]}),
            ("add_comment", {"node": file, "body": "x"}),
        ):
            with refused("FORBIDDEN"):
                drive.rpc(None, function, **arguments)
        for table in ("node_stats", "node_tags", "comments", "node_user_state"):
            with denied(), db.as_user(None):
                db.all("select * from public." + table)  # type: ignore[operator]
        (audit,) = db.all(
            "select actor like 'link:%' from public.audit_logs where action = 'download'"
        )
        assert audit
    assert db.all("select views, downloads from public.node_stats") == [(1, 1)]
    assert db.all("select * from public.node_user_state") == []


def test_of_many_downloads_at_once_each_is_counted(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner, peer = drive.db.create_user(), drive.db.create_user()
    file = drive.upload(owner, "a.txt")["file_id"]
    drive.share(file, peer)

    def download(party: tuple[Drive, uuid.UUID, bool]) -> None:
        mine, user, looks_first = party
        for _ in range(25):
            if looks_first:
                mine.rpc(user, "record_view", node=file)
            mine.rpc(user, "begin_download", file_id=file)

    parties = [(connect(), user, i % 2 == 0) for i, user in enumerate([owner, peer, peer] * 2)]
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(download, parties))
    query = "select views, downloads from public.node_stats"
    assert drive.db.all(query) == [(75, 150)]
    assert drive.db.one("select count(*) from public.node_user_state") == 2


def test_counting_while_it_is_trashed_and_purged_meets_no_deadlock(
    connect: Callable[[], Drive],
) -> None:
    drive = connect()
    owner, peer = drive.db.create_user(), drive.db.create_user()
    folder = _folder(drive, owner, "f")
    drive.share(folder, peer, "manage")
    needed = {"record_view", "begin_download", "set_favourite", "add_comment", "tag_nodes"}
    outcomes: set[str] = set()
    ended = Event()

    def open_them(mine: Drive) -> None:
        while not ended.is_set():
            for node in mine.db.all(
                "select id from public.nodes where kind = 'file' and purged_at is null limit 2"
            ):
                for function, arguments in (
                    ("record_view", {"node": node}),
                    ("begin_download", {"file_id": node}),
                    ("set_favourite", {"node": node}),
                    ("add_comment", {"node": node, "body": "Ah."}),
                    ("tag_nodes", {"ids": [node], "add": ["t"]}),
                ):
                    try:
                        mine.rpc(peer, function, **arguments)
                        outcomes.add(function)
                    except Exception as error:
                        outcomes.add(str(getattr(error, "sqlstate", error)))

    def purge_them(mine: Drive) -> None:
        end = time.monotonic() + 60
        for i in count():
            # on a busy machine some things take longer to happen
            if (i >= 40 and needed <= outcomes) or time.monotonic() > end:
                break
            file = mine.upload(owner, f"{i}.txt", folder_id=folder)["file_id"]
            if i % 2:
                mine.rpc(owner, "trash_nodes", ids=[file])
            time.sleep(0.02)
            mine.rpc(owner, "purge_nodes", ids=[file])

    with ThreadPoolExecutor(3) as pool:
        opening = [pool.submit(open_them, connect()) for _ in range(2)]
        try:
            pool.submit(purge_them, connect()).result()
        finally:
            ended.set()
        for job in opening:
            job.result()
    # gone, or nothing stored yet
    assert outcomes - {"PT404", "PT409"} == needed
