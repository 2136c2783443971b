"""Into the trash, back again, and out of it for good."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, RolledBackError, refused
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import TEXTS, contents, is_found, mentions, quota_of, read_until, status_of
from tests.db.surfaces import SECRET, World
from tests.db.test_isolation import (
    CALLS,
    _call,
    _rows,
    _tables,
    world,  # noqa: F401
)


def folder(drive: Drive, user: uuid.UUID, name: str, parent: str | None = None) -> str:
    """Make a folder; return its id."""
    made: str = drive.rpc(user, "create_folder", name=name, parent=parent)["id"]
    return made


def trash(drive: Drive, user: uuid.UUID, *ids: str) -> int:
    count: int = drive.rpc(user, "trash_nodes", ids=list(ids))
    return count


def restore(drive: Drive, user: uuid.UUID, *ids: str, on_conflict: str = "fail") -> Any:
    """Restore nodes; return the item of the only one, or all of them."""
    items = drive.rpc(user, "restore_nodes", ids=list(ids), on_conflict=on_conflict)["items"]
    assert [item["id"] for item in items] == list(ids)
    return items[0] if len(items) == 1 else items


def listed(drive: Drive, user: uuid.UUID, **arguments: object) -> list[str]:
    """Return the ids that somebody finds in the trash."""
    return [item["id"] for item in drive.rpc(user, "list_trash", **arguments)["items"]]


def balanced(db: Database) -> None:
    for query in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(query) == []


def paths(db: Database, owner: uuid.UUID) -> set[str]:
    """Return the path names of all living nodes."""
    return set(
        db.all(
            "select (select string_agg(a.name, '/' order by cardinality(a.path))"
            " from public.nodes as a where a.id = any(n.path))"
            " from public.nodes as n where n.owner_id = %s and n.trashed_at is null",
            owner,
        )
    )


# There and back ----------------------------------------------------------------------------------


def test_a_folder_comes_back_as_it_was(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    top = folder(drive, owner, "top")
    inner = folder(drive, owner, "inner", top)
    first = drive.file(owner, "a.txt", *TEXTS, folder_id=inner)
    drive.file(owner, "a.txt", "echo foxtrot", file_id=first["file_id"])
    drive.rendition(first["version_id"])
    drive.share(top, peer)
    link = drive.rpc(owner, "create_share_link", node=first["file_id"])
    drive.rpc(peer, "set_favourite", node=first["file_id"])
    drive.rpc(peer, "record_view", node=first["file_id"])
    before = contents(db)
    assert trash(drive, owner, top) == 3
    for user in (owner, peer):
        assert not is_found(drive, user, "foxtrot")
        for node in (top, inner, first["file_id"]):
            with refused("NOT_FOUND"):
                drive.rpc(user, "file_details", file_id=node)
    item = restore(drive, owner, top)
    assert item == {
        "id": top,
        "name": "top",
        "parent_id": None,
        "skipped": False,
        "replaced_id": None,
        "moved": False,
    }
    after = contents(db)
    # searches of the past know that its top was in the trash; a subtree of any size is one row
    remembered = [c.pop("private.past_nodes") for c in (before, after)]
    assert [len(rows) for rows in remembered] == [2, 4]
    assert after == before
    assert drive.claim() == []  # nothing is read or embedded again
    for user in (owner, peer):
        assert is_found(drive, user, "foxtrot")
    assert drive.rpc(None, "open_share_link", token=link["token"])["node"]


def test_what_was_trashed_before_its_folder_stays_in_the_trash(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    top = folder(drive, owner, "top")
    inner = folder(drive, owner, "inner", top)
    file = drive.upload(owner, "a.txt", folder_id=inner)["file_id"]
    drive.upload(owner, "b.txt", folder_id=inner)
    assert trash(drive, owner, file) == 1
    assert trash(drive, owner, top) == 3
    assert set(listed(drive, owner)) == {file, top}
    restore(drive, owner, top)
    assert paths(db, owner) == {"top", "top/inner", "top/inner/b.txt"}
    assert listed(drive, owner) == [file]
    assert restore(drive, owner, file)["moved"] is False
    assert "top/inner/a.txt" in paths(db, owner)


def test_with_its_folder_gone_it_goes_to_the_nearest_that_lives(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    top = folder(drive, owner, "top")
    inner = folder(drive, owner, "inner", top)
    deep = folder(drive, owner, "deep", inner)
    file = drive.upload(owner, "a.txt", folder_id=deep)["file_id"]
    gone = drive.upload(owner, "b.txt", folder_id=deep)["file_id"]
    trash(drive, owner, gone)
    trash(drive, owner, deep)
    trash(drive, owner, inner)
    item = restore(drive, owner, deep)
    assert (item["moved"], item["parent_id"]) == (True, top)
    assert paths(db, owner) == {"top", "top/deep", "top/deep/a.txt"}
    # what was in the trash before has moved along, and is still there
    assert set(listed(drive, owner)) == {inner, gone}
    assert restore(drive, owner, gone)["parent_id"] == deep
    trash(drive, owner, file)
    trash(drive, owner, top)
    item = restore(drive, owner, file)
    assert (item["moved"], item["parent_id"]) == (True, None)
    assert paths(db, owner) == {"a.txt"}
    assert db.one("select path = array[id] from public.nodes where id = %s", file)
    assert restore(drive, owner, inner)["parent_id"] is None
    with drive.db.as_user(owner):
        assert drive.db.one("select count(*) from public.nodes where name = 'inner'") == 1


def test_something_inside_of_a_trashed_folder_comes_back_alone(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    top = folder(drive, owner, "top")
    inner = folder(drive, owner, "inner", top)
    file = drive.file(owner, "a.txt", *TEXTS, folder_id=inner)["file_id"]
    drive.upload(owner, "b.txt", folder_id=top)
    trash(drive, owner, top)
    assert listed(drive, owner) == [top]
    item = restore(drive, owner, inner)
    assert (item["moved"], item["parent_id"]) == (True, None)
    assert paths(db, owner) == {"inner", "inner/a.txt"}
    assert is_found(drive, owner, "alpha")
    assert drive.rpc(owner, "file_details", file_id=file)["path"] == "/inner/a.txt"
    # the rest goes on as before
    assert listed(drive, owner) == [top]
    restore(drive, owner, top)
    assert paths(db, owner) == {"inner", "inner/a.txt", "top", "top/b.txt"}
    balanced(db)


def test_a_batch_restores_folders_before_what_is_inside(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    top = folder(drive, owner, "top")
    early = drive.upload(owner, "a.txt", folder_id=top)["file_id"]
    along = drive.upload(owner, "b.txt", folder_id=top)["file_id"]
    trash(drive, owner, early)
    trash(drive, owner, top)
    items = restore(drive, owner, along, early, top)
    assert [item["moved"] for item in items] == [False] * 3
    assert [item["name"] for item in items] == ["b.txt", "a.txt", "top"]
    assert [item["parent_id"] for item in items] == [top, top, None]
    assert paths(db, owner) == {"top", "top/a.txt", "top/b.txt"}


@pytest.mark.parametrize("policy", ["fail", "rename", "keep_both", "skip", "replace"])
def test_when_the_name_is_taken(db: Database, drive: Drive, policy: str) -> None:
    owner = db.create_user()
    top = folder(drive, owner, "top")
    old = drive.file(owner, "Plan.txt", *TEXTS, folder_id=top)["file_id"]
    trash(drive, owner, old)
    new = drive.file(owner, "plan.TXT", "zulu", folder_id=top)["file_id"]
    if policy == "fail":
        with refused("CONFLICT_NAME", id=old, existing_id=new, suggested="Plan (2).txt") as found:
            restore(drive, owner, old)
        assert [item["id"] for item in found["items"]] == [old]
        assert listed(drive, owner) == [old]
        return
    item = restore(drive, owner, old, on_conflict=policy)
    assert (item["skipped"], item["replaced_id"]) == (
        policy == "skip",
        new if policy == "replace" else None,
    )
    living = {
        "rename": {"top", "top/plan.TXT", "top/Plan (2).txt"},
        "keep_both": {"top", "top/plan.TXT", "top/Plan (2).txt"},
        "skip": {"top", "top/plan.TXT"},
        "replace": {"top", "top/Plan.txt"},
    }[policy]
    assert paths(db, owner) == living
    assert item["name"] == ("Plan (2).txt" if policy in ("rename", "keep_both") else "Plan.txt")
    assert listed(drive, owner) == {"skip": [old], "replace": [new]}.get(policy, [])
    assert is_found(drive, owner, "zulu") == (policy != "replace")
    assert is_found(drive, owner, "alpha") == (policy != "skip")


def test_two_of_a_batch_do_not_replace_one_another(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.txt")["file_id"]
    trash(drive, owner, first)
    second = drive.upload(owner, "a.txt")["file_id"]
    trash(drive, owner, second)
    with refused("CONFLICT_NAME"):
        restore(drive, owner, first, second, on_conflict="replace")
    assert paths(db, owner) == set()
    items = restore(drive, owner, first, second, on_conflict="keep_both")
    assert [item["name"] for item in items] == ["a.txt", "a (2).txt"]


def test_all_or_nothing_is_restored(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    mine = drive.upload(owner)["file_id"]
    living = drive.upload(owner, "b.txt")["file_id"]
    theirs = drive.upload(stranger)["file_id"]
    trash(drive, owner, mine)
    trash(drive, stranger, theirs)
    with refused("NOT_FOUND", id=theirs) as found:
        restore(drive, owner, mine, theirs, living)
    assert [(item["id"], item["error"]) for item in found["items"]] == [
        (theirs, "NOT_FOUND"),
        (living, "CONFLICT_STATE"),
    ]
    assert listed(drive, owner) == [mine]
    for arguments in ({"ids": None}, {"ids": [mine], "on_conflict": "version"}):
        with refused("INVALID_ARGUMENT"):
            drive.rpc(owner, "restore_nodes", **arguments)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "restore_nodes", ids=[mine])
    assert drive.rpc(owner, "restore_nodes", ids=[]) == {"items": []}


def test_ingestion_goes_on_where_the_trash_stopped_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    stopped, job = read_until(drive, owner, "chunk")
    cancelled = drive.upload(owner, "b.txt")["file_id"]
    drive.rpc(owner, "cancel_ingest", file_id=cancelled)
    trash(drive, owner, stopped["file_id"], cancelled)
    with refused("CONFLICT_STATE"):
        drive.run_stage(job, TEXTS)
    assert drive.claim() == []
    restore(drive, owner, stopped["file_id"], cancelled)
    (job,) = drive.claim(9)  # not what the owner had cancelled
    assert (job["stage"], job["file_id"]) == ("chunk", stopped["file_id"])
    drive.run_stage(job, TEXTS)
    drive.ingest(*TEXTS)
    assert status_of(drive, owner, stopped) == "ready"
    assert status_of(drive, owner, {"file_id": cancelled}) == "failed"
    assert is_found(drive, owner, "alpha")


def test_a_file_without_bytes_does_not_come_back(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    top = folder(drive, owner, "top")
    ticket = drive.ticket(owner, "a.txt", 10, folder_id=top)
    kept = drive.file(owner, "b.txt", *TEXTS, folder_id=top)
    version = drive.ticket(owner, size=20, file_id=kept["file_id"])
    assert trash(drive, owner, top) == 3
    assert quota_of(db, owner)[:2] == (10, 0)  # nothing is promised any more
    for key in (ticket["key"], version["key"]):
        with pytest.raises(psycopg.Error, match="narwhal/NO_TICKET"):
            drive.store(owner, key, 10)
    with refused("NOT_FOUND"):
        restore(drive, owner, ticket["file_id"])
    restore(drive, owner, top)
    assert paths(db, owner) == {"top", "top/b.txt"}
    balanced(db)


# Who may -----------------------------------------------------------------------------------------


def test_who_may_trash_may_restore(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    top = folder(drive, owner, "top")
    inner = folder(drive, owner, "inner", top)
    file = drive.upload(owner, "a.txt", folder_id=inner)["file_id"]
    drive.share(inner, peer, "edit")
    trash(drive, peer, file)
    assert listed(drive, peer) == [file]
    assert listed(drive, owner) == [file]
    item = drive.rpc(peer, "list_trash")["items"][0]
    assert (item["path"], item["trashed_by"]) == ("/inner/a.txt", str(peer))
    assert drive.rpc(owner, "list_trash")["items"][0]["path"] == "/top/inner/a.txt"
    # with less than edit it is not theirs to see or to restore
    db.all("update public.shares set level = 'comment'")
    assert listed(drive, peer) == []
    with refused("FORBIDDEN", level="comment", required="edit"):
        restore(drive, peer, file)
    db.all("update public.shares set level = 'edit'")
    restore(drive, peer, file)
    # what the owner trashed, the peer does not see but may bring back
    trash(drive, owner, file)
    assert listed(drive, peer) == []
    restore(drive, peer, file)
    # into a folder that they may not write, or the owner's root, they may not
    trash(drive, peer, file)
    trash(drive, owner, inner)
    with refused("FORBIDDEN"):
        restore(drive, peer, file)
    trash(drive, owner, top)
    with refused("FORBIDDEN"):
        restore(drive, peer, file)
    assert restore(drive, owner, file)["parent_id"] is None


def test_what_was_shared_itself_returns_to_its_place(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    top = folder(drive, owner, "top")
    file = drive.upload(owner, "a.txt", folder_id=top)["file_id"]
    drive.share(file, peer, "edit")
    trash(drive, peer, file)
    assert drive.rpc(peer, "list_trash")["items"][0]["path"] == "/a.txt"
    assert restore(drive, peer, file)["moved"] is False
    assert paths(db, owner) == {"top", "top/a.txt"}


def test_who_may_purge(db: Database, drive: Drive) -> None:
    owner, peer, stranger = (db.create_user() for _ in range(3))
    files = [drive.upload(owner, f"{i}.txt")["file_id"] for i in range(3)]
    for file in files:
        drive.share(file, peer, "edit")
    trash(drive, owner, files[1])
    for file in files:
        with refused("FORBIDDEN", level="edit", required="manage"):
            drive.rpc(peer, "purge_nodes", ids=[file])
        with refused("NOT_FOUND"):
            drive.rpc(stranger, "purge_nodes", ids=[file])
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(None, "purge_nodes", ids=[file])
    # by level, or by the permission together with edit
    db.all("update public.shares set level = 'manage' where node_id = %s", files[0])
    assert drive.rpc(peer, "purge_nodes", ids=[files[0]]) == 1
    db.all("insert into private.role_permissions values ('user', 'delete_documents')")
    assert drive.rpc(peer, "purge_nodes", ids=[files[1]]) == 1
    db.all("update public.shares set level = 'comment' where node_id = %s", files[2])
    with refused("FORBIDDEN", level="comment", required="edit"):
        drive.rpc(peer, "purge_nodes", ids=[files[2]])


@pytest.mark.parametrize("moved", [False, True])
def test_what_was_purged_inside_of_a_trashed_folder_does_not_come_back_with_it(
    db: Database, drive: Drive, moved: bool
) -> None:
    owner = db.create_user()
    above = folder(drive, owner, "above")
    top = folder(drive, owner, "top", above)
    inner = folder(drive, owner, "inner", top)
    folder(drive, owner, "deep", inner)
    folder(drive, owner, "kept", top)
    trash(drive, owner, top)
    if moved:  # its folder is in the trash as well, so it returns elsewhere
        trash(drive, owner, above)
    assert drive.rpc(owner, "purge_nodes", ids=[inner]) == 2
    assert restore(drive, owner, top)["moved"] is moved
    root = set() if moved else {"above"}
    prefix = "" if moved else "above/"
    assert paths(db, owner) == root | {f"{prefix}top", f"{prefix}top/kept"}
    assert listed(drive, owner) == ([above] if moved else [])
    drive.clean_up()
    assert db.all("select name from public.nodes where name in ('inner', 'deep')") == []
    balanced(db)


def test_what_is_being_purged_is_locked_for_who_could_purge_it(db: Database, drive: Drive) -> None:
    owner, peer, manager = (db.create_user() for _ in range(3))
    top = folder(drive, owner, "top")
    drive.share(top, peer, "edit")
    drive.share(top, manager, "manage")
    file = drive.file(owner, "a.txt", *TEXTS, folder_id=top)
    assert drive.rpc(owner, "purge_nodes", ids=[file["file_id"]]) == 1
    calls: list[tuple[str, dict[str, Any]]] = [
        ("purge_nodes", {"ids": [file["file_id"]]}),
        ("restore_nodes", {"ids": [file["file_id"]]}),
        ("restore_version", file),
        ("purge_version", file),
    ]
    for function, arguments in calls:
        given = {k: v for k, v in arguments.items() if k in ("ids", "file_id", "version_id")}
        for user in (owner, manager):
            with refused("LOCKED", id=file["file_id"]):
                drive.rpc(user, function, **given)
        with refused("NOT_FOUND"):
            drive.rpc(peer, function, **given)
    # a folder with it inside goes as any other
    assert drive.rpc(owner, "purge_nodes", ids=[top]) == 1
    drive.clean_up()
    for user in (owner, peer, manager):
        with refused("NOT_FOUND"):
            drive.rpc(user, "purge_nodes", ids=[file["file_id"]])


def test_a_workspace_keeps_its_root_and_its_trash(db: Database, drive: Drive) -> None:
    owner, editor, viewer = (db.create_user() for _ in range(3))
    made = drive.rpc(owner, "create_workspace", name="team")
    space, root = made["id"], made["root_id"]
    for member, level in ((editor, "edit"), (viewer, "view")):
        db.all(
            "insert into public.workspace_members (workspace_id, user_id, level)"
            " values (%s, %s, %s)",
            space,
            member,
            level,
        )
    for function in ("trash_nodes", "purge_nodes"):
        with refused("CONFLICT_STATE", id=root):
            drive.rpc(owner, function, ids=[root])
    file = drive.upload(editor, "a.txt", folder_id=root)["file_id"]
    inner = folder(drive, editor, "inner", root)
    trash(drive, editor, file, inner)
    assert set(listed(drive, editor)) == set(listed(drive, owner)) == {file, inner}
    assert listed(drive, viewer) == []
    assert drive.rpc(owner, "list_trash")["items"][0]["path"].startswith("/team/")
    assert restore(drive, editor, inner)["parent_id"] == root
    with refused("FORBIDDEN", level="edit", required="manage"):
        drive.rpc(editor, "empty_trash", owner_id=space)
    with refused("NOT_FOUND"):
        drive.rpc(db.create_user(), "empty_trash", owner_id=space)
    assert drive.rpc(owner, "empty_trash") == 0  # one's own
    assert drive.rpc(owner, "empty_trash", owner_id=space) == 1
    drive.clean_up()
    assert quota_of(db, space)[:2] == (0, 0)
    assert db.one("select count(*) from public.nodes where owner_id = %s", space) == 2


# The list ----------------------------------------------------------------------------------------


def test_members_see_what_they_trashed_through_a_share(db: Database, drive: Drive) -> None:
    owner, member = db.create_user(), db.create_user()
    made = drive.rpc(owner, "create_workspace", name="team")
    db.all(
        "insert into public.workspace_members (workspace_id, user_id, level)"
        " values (%s, %s, 'comment')",
        made["id"],
        member,
    )
    mine, other = (
        drive.upload(owner, name, folder_id=made["root_id"])["file_id"] for name in ("a", "b")
    )
    grantee = {"user_id": str(member)}
    drive.rpc(owner, "share_node", node=mine, grantee=grantee, level="edit")
    trash(drive, member, mine)
    trash(drive, owner, other)
    assert listed(drive, member) == [mine]
    assert restore(drive, member, mine)["parent_id"] == made["root_id"]


def test_the_list_has_the_newest_first_page_by_page(db: Database, drive: Drive) -> None:
    owner, other, peer = (db.create_user() for _ in range(3))
    shared = folder(drive, other, "shared")
    drive.share(shared, owner, "edit")
    made = []
    for i in range(7):
        place = shared if i % 3 == 0 else None
        file = drive.upload(owner, f"{i}.txt", folder_id=place)["file_id"]
        trash(drive, owner, file)
        db.all(
            "update public.nodes set trashed_at = trashed_at - %s where id = %s",
            timedelta(hours=i),
            file,
        )
        made.append(file)
    assert listed(drive, owner) == made
    assert listed(drive, peer) == []
    assert set(listed(drive, other)) == {made[0], made[3], made[6]}
    found, cursor = [], None
    while True:
        page = drive.rpc(owner, "list_trash", page_size=2, cursor=cursor)
        found += [item["id"] for item in page["items"]]
        assert len(page["items"]) == (2 if page["next_cursor"] else 1)
        if not (cursor := page["next_cursor"]):
            break
        if len(found) == 2:  # what comes meanwhile makes no gap and no double
            trash(drive, owner, drive.upload(owner, "new.txt")["file_id"])
    assert found == made
    item = page["items"][0]
    assert datetime.fromisoformat(item["purge_at"]) == datetime.fromisoformat(
        item["trashed_at"]
    ) + timedelta(days=30)
    assert (item["name"], item["path"], item["kind"]) == ("6.txt", "/shared/6.txt", "file")
    db.all("update private.settings set value = 'null' where key = 'trash.keep_days'")
    assert drive.rpc(owner, "list_trash")["items"][0]["purge_at"] is None
    for arguments in ({"page_size": 0}, {"page_size": 1001}, {"cursor": "x"}, {"cursor": "e30="}):
        with refused("INVALID_ARGUMENT", field=next(iter(arguments))):
            drive.rpc(owner, "list_trash", **arguments)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "list_trash")


# Gone for good -----------------------------------------------------------------------------------


def _uploading(drive: Drive, owner: uuid.UUID) -> Any:
    return drive.ticket(owner, "new.txt")


def _queued(drive: Drive, owner: uuid.UUID) -> Any:
    return drive.upload(owner, "new.txt")


def _processing(drive: Drive, owner: uuid.UUID) -> Any:
    return read_until(drive, owner, "embed_text")[0]


def _failed(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = drive.upload(owner, "new.txt")
    drive.work("fail_job", drive.claim()[0], "corrupt", "It ends too early.", True)
    return ticket


def _rejected(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = drive.upload(owner, "new.txt")
    drive.work("fail_job", drive.claim()[0], "magic_mismatch", "It is a program.", True)
    return ticket


def _skipped(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = drive.upload(owner, "new.txt")
    drive.work("finish_detect", drive.claim()[0], "0" * 64, None, None, "Unknown type.")
    return ticket


def _ready(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = drive.file(owner, "new.txt", *TEXTS)
    drive.rendition(ticket["version_id"])
    return ticket


def _with_a_new_version(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = drive.file(owner, "new.txt", *TEXTS)
    drive.upload(owner, file_id=ticket["file_id"])
    drive.ticket(owner, file_id=ticket["file_id"])
    return ticket


def _trashed(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = drive.file(owner, "new.txt", *TEXTS)
    trash(drive, owner, ticket["file_id"])
    return ticket


def _restored(drive: Drive, owner: uuid.UUID) -> Any:
    ticket = read_until(drive, owner, "chunk")[0]
    trash(drive, owner, ticket["file_id"])
    restore(drive, owner, ticket["file_id"])
    return ticket


STATES = (
    _uploading,
    _queued,
    _processing,
    _failed,
    _rejected,
    _skipped,
    _ready,
    _with_a_new_version,
    _trashed,
    _restored,
)


@pytest.mark.parametrize("make", STATES)
def test_it_goes_from_every_state(
    db: Database, drive: Drive, make: Callable[[Drive, uuid.UUID], Any]
) -> None:
    owner = db.create_user()
    drive.file(owner, "kept.txt", "golf hotel")
    before = contents(db)
    ticket = make(drive, owner)
    assert mentions(db, ticket)  # control: the search for traces finds them
    assert drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]]) == 1
    assert quota_of(db, owner)[:2] == (10, 0)
    with db.as_user(owner):
        for table in ("nodes", "file_versions", "chunks", "pages", "ingest_jobs", "renditions"):
            key = "id" if table == "nodes" else "file_id"
            query = f"select count(*) from public.{table} where {key} = %s"
            assert db.one(query, ticket["file_id"]) == 0, table  # type: ignore[arg-type]
    assert drive.clean_up() == (0 if make is _uploading else 1)
    after = contents(db)
    if make is _uploading:  # the ticket of a file that never came tells how it ended
        assert db.all("select state from public.uploads where file_id is null") == ["aborted"]
        after["public.uploads"] = before["public.uploads"]
    assert after == before
    balanced(db)


def test_rows_go_children_first_and_it_goes_on_wherever_it_was_killed(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    before = contents(db)
    place = None
    for depth in range(4):
        place = folder(drive, owner, f"{depth}", place)
        drive.file(owner, "a.txt", f"text {depth}", *TEXTS, folder_id=place)
    top = db.one("select id::text from public.nodes where parent_id is null")
    assert drive.rpc(owner, "purge_nodes", ids=[top]) == 8
    assert quota_of(db, owner)[:2] == (0, 0)
    for left in range(8, 0, -1):
        assert db.one("select count(*) from private.purge_queue") == 1
        with pytest.raises(RolledBackError), db.as_role("narwhal_worker"):
            db.one("select private.purge_batch(3)")
            raise RolledBackError  # killed before the commit
        with db.as_role("narwhal_worker"):
            assert db.one("select private.purge_batch(1)") == 1
        assert db.one("select count(*) from public.nodes") == left - 1
        assert db.all("select id from public.nodes where parent_id is null and name <> '0'") == []
        balanced(db)
    with db.as_role("narwhal_worker"):
        assert db.one("select private.purge_batch(1)") == 0
    drive.clean_up()
    after = contents(db)
    for rows in (before, after):
        rows.pop("private.owner_statistics")  # counted to nothing, as balanced() has seen
    assert after == before


def test_a_long_file_does_not_make_a_long_transaction(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    long = [f"word {i}" for i in range(1000)]
    files = [drive.file(owner, f"{i}.txt", *long)["file_id"] for i in range(3)]
    drive.rpc(owner, "purge_nodes", ids=files)
    with db.as_role("narwhal_worker"):
        assert [db.one("select private.purge_batch(200)") for _ in range(3)] == [2, 1, 0]


def test_an_object_goes_with_the_last_owner_who_has_it(db: Database, drive: Drive) -> None:
    owner, other = db.create_user(), db.create_user()
    mine = drive.file(owner, "a.txt", *TEXTS, size=30)
    top = folder(drive, owner, "top")
    drive.rpc(owner, "move_nodes", ids=[mine["file_id"]], target=top)
    drive.share(top, other)
    copied = drive.rpc(other, "copy_nodes", ids=[mine["file_id"]])["items"][0]["id"]
    assert quota_of(db, other)[0] == 30
    drive.rpc(owner, "purge_nodes", ids=[top])
    drive.clean_up()
    assert (quota_of(db, owner)[0], quota_of(db, other)[0]) == (0, 30)
    assert db.one("select count(*) from storage.objects") == 1
    assert drive.rpc(other, "file_details", file_id=copied)["key"] == mine["key"]
    with db.as_user(other):
        assert db.one("select count(*) from storage.objects") == 1
    assert is_found(drive, other, "alpha")
    # an account that goes leaves nothing behind, what others still have apart
    again = db.create_user()
    drive.share(copied, again)
    drive.rpc(again, "copy_nodes", ids=[copied])
    db.all("delete from auth.users where id = %s", other)
    drive.clean_up()
    assert db.one("select count(*) from storage.objects") == 1
    balanced(db)
    db.all("delete from auth.users where id = %s", again)
    drive.clean_up()
    assert db.one("select count(*) from storage.objects") == 0


def test_an_account_goes_with_its_trash_and_what_is_being_purged(
    db: Database, drive: Drive
) -> None:
    drive.file(db.create_user(), "kept.txt", "golf hotel")
    before = contents(db)
    owner = db.create_user()
    for make in STATES:
        ticket = make(drive, owner)
        if make is not _trashed:
            drive.rpc(owner, "rename_node", id=ticket["file_id"], name=f"{make.__name__}.txt")
    files = db.all("select id::text from public.nodes where owner_id = %s order by id", owner)
    assert drive.rpc(owner, "purge_nodes", ids=files[::2]) == 5
    db.all("delete from auth.users where id = %s", owner)
    assert drive.clean_up() == 0
    after = contents(db)
    assert {t: rows for t, rows in after.items() if rows != before[t]} == {}


def test_the_same_content_may_come_again_after_the_trash(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", *TEXTS)
    known = uuid.UUID(first["version_id"]).hex * 2
    trash(drive, owner, first["file_id"])
    second = drive.ticket(owner, "a.txt", 10, sha256=known)
    assert second["deduplicated"] is True
    drive.ingest(*TEXTS)
    drive.rpc(owner, "empty_trash")
    drive.clean_up()
    assert is_found(drive, owner, "alpha")
    assert quota_of(db, owner)[:2] == (10, 0)
    balanced(db)


def test_the_trash_is_emptied_at_once_or_in_time(db: Database, drive: Drive) -> None:
    owner, other = db.create_user(), db.create_user()
    files = [drive.upload(owner, f"{i}.txt")["file_id"] for i in range(6)]
    kept = drive.upload(other)["file_id"]
    for file in files[:5]:
        trash(drive, owner, file)
    trash(drive, other, kept)
    with db.as_role("postgres"):
        assert db.one("select private.expire_trash(100)") == 0
        age = "update public.nodes set trashed_at = now() - %s where id = %s"
        for days, file in enumerate(files[:3]):
            db.all(age, timedelta(days=30 + days, seconds=1), file)
        db.all(age, timedelta(days=29), files[3])
        assert db.one("select private.expire_trash(2)") == 2
        assert db.one("select private.expire_trash(2)") == 1
        assert db.one("select private.expire_trash(2)") == 0
        assert set(listed(drive, owner)) == {files[3], files[4]}
        db.all("update private.settings set value = 'null' where key = 'trash.keep_days'")
        assert db.one("select private.expire_trash(2)") == 0
    assert drive.rpc(owner, "empty_trash") == 2
    assert drive.rpc(owner, "empty_trash") == 0
    assert listed(drive, owner) == []
    assert listed(drive, other) == [kept]
    assert quota_of(db, owner)[0] == 10
    assert drive.clean_up() == 5
    balanced(db)


# No ghosts ---------------------------------------------------------------------------------------

# what still mentions a node that is gone, and only to whom it says nothing new
REMEMBERED = {
    "trashed": {
        "public.audit_logs": "what was done, to whom did it",
        "public.share_links": "links stay on the list of who made them",
        "public.notifications": "what somebody was told",
        "public.query_analytics": "what somebody's own searches found, by id",
    },
    "purged": {
        "public.audit_logs": "what was done, to whom did it",
        "public.notifications": "what somebody was told",
        "public.query_analytics": "what somebody's own searches found, by id",
    },
}


@pytest.mark.parametrize("how", ["trashed", "purged"])
def test_no_surface_returns_it_any_more(
    db: Database,
    drive: Drive,
    world: World,  # noqa: F811
    how: str,
) -> None:
    db.all("update public.shares set level = 'manage' where node_id = %s", world.folder)
    gone = db.all(
        "select id::text from public.nodes where path && array[%s::uuid]"
        " and status <> 'uploading'"  # its ticket tells the holder how it ended
        " union select id::text from public.file_versions as v where exists ("
        "select from public.nodes as n where n.id = v.file_id and n.path && array[%s::uuid])",
        world.folder,
        world.folder,
    )
    keys = db.all("select key from private.blobs where owner_id = %s", world.owner)
    hidden = [*gone, *keys, f"{SECRET}.txt", f"{SECRET} folder", f"the {SECRET}"]
    people = {"owner": world.owner, "peer": world.peer, "stranger": world.stranger, "anon": None}

    def seen(user: uuid.UUID | None) -> set[str]:
        return {
            table
            for table in _tables(db)
            if any(secret in row for row in _rows(db, user, table) for secret in [*gone, *keys])
        }

    assert {"public.nodes", "public.chunks", "storage.objects"} <= seen(world.peer)  # control
    drive.rpc(world.owner, "purge_nodes" if how == "purged" else "trash_nodes", ids=[world.folder])
    for name, user in people.items():
        assert seen(user) - REMEMBERED[how].keys() == set(), name
        for call in CALLS:
            if call.split()[0] in ("list_audit", "list_notifications", "revoke_share_link"):
                continue  # as above
            if call in ("list_trash", "restore_nodes", "purge_nodes trashed") and how == "trashed":
                continue  # the ways back, and out
            answer = _call(drive, user, world, call)
            found = [secret for secret in hidden if secret in answer]
            assert answer.startswith("PT") or not found, (name, call, answer)
    if how == "purged":
        drive.clean_up()
        assert seen(world.owner) - REMEMBERED[how].keys() == set()
        assert json.dumps(listed(drive, world.owner)) == "[]"
