"""What somebody tries who means harm: ways around a level, a limit or a refusal."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused, refused_by_storage
from tests.db.invariants import PATHS_ARE_WRONG, UNBALANCED


def folder(drive: Drive, user: uuid.UUID, name: str, parent: str | None = None) -> str:
    """Make a folder and return its id."""
    return str(drive.rpc(user, "create_folder", name=name, parent=parent)["id"])


def open_link(drive: Drive, owner: uuid.UUID, node: str, **more: object) -> str:
    """Make a link and open it as nobody; return the grant."""
    link = drive.rpc(owner, "create_share_link", node=node, **more)
    return str(drive.rpc(None, "open_share_link", token=link["token"])["grant"])


# Around a level ----------------------------------------------------------------------------------


def test_a_folder_shared_beforehand_brings_nobody_in(db: Database, drive: Drive) -> None:
    owner, editor, accomplice = (db.create_user() for _ in range(3))
    theirs = folder(drive, owner, "theirs")
    drive.share(theirs, editor, "edit")
    planted = folder(drive, editor, "planted")
    deeper = folder(drive, editor, "deeper", planted)
    drive.share(planted, accomplice, "manage")
    drive.share(deeper, accomplice, "view")
    drive.rpc(editor, "move_nodes", ids=[planted], target=theirs)
    secret = drive.upload(owner, "secret.txt", folder_id=planted)["file_id"]
    with refused("NOT_FOUND"):
        drive.rpc(accomplice, "file_details", file_id=secret)
    with refused("NOT_FOUND"):
        drive.rpc(accomplice, "file_details", file_id=deeper)
    assert db.one("select count(*) from public.shares where node_id <> %s", theirs) == 0


def test_shares_go_along_where_the_mover_may_share(db: Database, drive: Drive) -> None:
    owner, manager, guest = (db.create_user() for _ in range(3))
    theirs = folder(drive, owner, "theirs")
    drive.share(theirs, manager, "manage")
    mine = folder(drive, manager, "mine")
    drive.share(mine, guest, "view")
    drive.rpc(manager, "move_nodes", ids=[mine], target=theirs)
    assert drive.rpc(guest, "file_details", file_id=mine)["level"] == "view"
    # and back to the own root, where everybody may
    drive.rpc(manager, "move_nodes", ids=[mine], target=None)
    assert drive.rpc(guest, "file_details", file_id=mine)["level"] == "view"


def test_reading_a_workspace_is_no_right_to_carry_out_of_a_share(
    db: Database, drive: Drive
) -> None:
    owner, member = db.create_user(), db.create_user()
    team = drive.rpc(owner, "create_workspace", name="team")
    drive.rpc(
        owner,
        "add_workspace_member",
        workspace_id=team["id"],
        member={"user_id": str(member)},
        level="view",
    )
    one, other = (folder(drive, owner, name, team["root_id"]) for name in ("one", "other"))
    for node in (one, other):
        drive.rpc(owner, "share_node", node=node, grantee={"user_id": str(member)}, level="edit")
    inside = folder(drive, owner, "inside", one)
    with refused("FORBIDDEN", level="edit", required="manage"):
        drive.rpc(member, "move_nodes", ids=[inside], target=other)
    drive.rpc(member, "move_nodes", ids=[inside], target=folder(drive, member, "beside", one))


def test_a_share_that_has_expired_does_not_end_an_upload_well(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    theirs = folder(drive, owner, "theirs")
    share = drive.share(theirs, peer, "edit")
    ticket = drive.ticket(peer, "a.txt", folder_id=theirs)
    again = drive.ticket(peer, "b.txt", folder_id=theirs)
    drive.store(peer, again["key"], 10)  # control
    db.all("update public.shares set expires_at = now() where id = %s", share)
    # with a signed upload URL only the service writes, without asking as the uploader
    with refused_by_storage("FORBIDDEN"):
        drive.store(peer, ticket["key"], 10)


def test_what_began_through_a_link_ends_while_the_link_is_good(db: Database, drive: Drive) -> None:
    owner, guest = db.create_user(), db.create_user()
    theirs = folder(drive, owner, "theirs")
    link = drive.rpc(owner, "create_share_link", node=theirs, level="edit")
    grant = drive.rpc(guest, "open_share_link", token=link["token"])["grant"]
    with drive.holding(grant):
        one, two = (drive.ticket(guest, name, folder_id=theirs) for name in ("a.txt", "b.txt"))
    drive.store(guest, one["key"], 10)  # the grant is not sent when the service writes
    db.all("update public.share_links set expires_at = now()")
    with refused_by_storage("FORBIDDEN"):
        drive.store(guest, two["key"], 10)


def test_the_name_of_an_invisible_neighbour_is_not_told(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    hidden = folder(drive, owner, "hidden")
    neighbour = folder(drive, owner, "Merger", hidden)
    shared = folder(drive, owner, "shared", hidden)
    drive.share(shared, peer, "edit")
    with refused("CONFLICT_NAME", existing_id=None) as found:
        drive.rpc(peer, "rename_node", id=shared, name="merger")
    assert "Merger" not in str(found)
    with refused("CONFLICT_NAME", existing_id=neighbour):  # control: the owner sees it
        drive.rpc(owner, "rename_node", id=shared, name="merger")


# Around a limit ----------------------------------------------------------------------------------


def test_a_link_that_limits_downloads_is_not_copied_from(db: Database, drive: Drive) -> None:
    owner, guest = db.create_user(), db.create_user()
    file = drive.file(owner, "a.txt", "words")["file_id"]
    with (
        drive.holding(open_link(drive, owner, file, max_downloads=1)),
        refused("FORBIDDEN", id=file),
    ):
        drive.rpc(guest, "copy_nodes", ids=[file], target=None)
    with drive.holding(open_link(drive, owner, file)):  # control: without a limit
        drive.rpc(guest, "copy_nodes", ids=[file], target=None)
    # neither does the link take away what somebody may do without it
    drive.share(file, guest, "view")
    with drive.holding(open_link(drive, owner, file, max_downloads=1)):
        drive.rpc(guest, "copy_nodes", ids=[file], target=None, on_conflict="rename")
    assert db.all(UNBALANCED) == []


def test_a_plan_holds_for_new_names_too(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("insert into public.plans (name, blocked_extensions) values ('plain', '{mp4}')")
    old = drive.file(owner, "old.mp4", "words")["file_id"]
    db.one("select private.change_plan(%s, 'plain')", owner)
    file = drive.file(owner, "a.txt", "words")["file_id"]
    with refused("TYPE_NOT_ALLOWED", extension="mp4"):
        drive.rpc(owner, "rename_node", id=file, name="a.mp4")
    drive.rpc(owner, "rename_node", id=old, name="older.mp4")  # what was there may stay


@pytest.mark.parametrize("mime", ["x" * 256, "text/plain\nx: y"])
def test_a_media_type_is_no_place_for_data(db: Database, drive: Drive, mime: str) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="mime"):
        drive.ticket(owner, mime=mime)


# Errors that are in no catalogue -----------------------------------------------------------------


@pytest.mark.parametrize("function", ["move_nodes", "copy_nodes", "trash_nodes", "restore_nodes"])
def test_ids_are_one_list(db: Database, drive: Drive, function: str) -> None:
    owner = db.create_user()
    one, other = (folder(drive, owner, name) for name in ("one", "other"))
    with refused("INVALID_ARGUMENT", field="ids"):
        drive.rpc(owner, function, ids=[[one], [other]])


# Two at once -------------------------------------------------------------------------------------


def test_opening_a_link_while_its_file_is_purged_is_no_deadlock(
    connect: Callable[[], Drive],
) -> None:
    drive, visitor = connect(), connect()
    owner = drive.db.create_user()
    file = drive.upload(owner, "a.txt")["file_id"]
    link = drive.rpc(owner, "create_share_link", node=file, password="s3cret")
    outcomes: list[str] = []

    def visit() -> None:
        try:
            visitor.rpc(None, "open_share_link", token=link["token"], password="s3cret")
            outcomes.append("opened")
        except psycopg.Error as error:
            outcomes.append(str(error.sqlstate))

    # the visitor waits for the link, which the purge holds: it must not hold the secret meanwhile
    with drive.db.connection.transaction():
        drive.db.all("select from public.share_links where id = %s for update", link["id"])
        thread = threading.Thread(target=visit)
        thread.start()
        time.sleep(1)
        drive.rpc(owner, "purge_nodes", ids=[file])
    thread.join(30)
    assert outcomes == ["PT404"]
    assert drive.db.all(PATHS_ARE_WRONG) == []
