"""Roles, groups, workspaces and links inside the one rule of who may read."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused


@contextmanager
def _with_grant(db: Database, grant: str) -> Iterator[None]:
    """As PostgREST passes the header on."""
    db.all("select set_config('request.headers', %s, true)", json.dumps({"x-share-grant": grant}))
    yield
    db.all("select set_config('request.headers', '', true)")


def _link(db: Database, node: str, maker: uuid.UUID, level: str = "view") -> str:
    """A link to a node that somebody has opened; returns the grant."""
    link = db.one(
        "insert into public.share_links (node_id, level, created_by) values (%s, %s, %s)"
        " returning id",
        node,
        level,
        maker,
    )
    grant = uuid.uuid4().hex
    db.all(
        "insert into private.link_grants values (%s, %s, now() + interval '15 min')",
        hashlib.sha256(grant.encode()).digest(),
        link,
    )
    return grant


def _names(db: Database, user: uuid.UUID | None) -> list[str]:
    with db.as_user(user):
        return db.all("select name from public.nodes order by name")


@pytest.fixture
def folder(db: Database, drive: Drive) -> tuple[uuid.UUID, str]:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.file(owner, "inside.txt", "the walrus swims", folder_id=folder)
    drive.file(owner, "outside.txt", "the walrus dives")
    return owner, folder


def test_a_link_shows_anybody_its_subtree_and_nothing_else(
    db: Database, drive: Drive, folder: tuple[uuid.UUID, str]
) -> None:
    owner, node = folder
    grant = _link(db, node, owner)
    assert _names(db, None) == []
    with _with_grant(db, grant):
        assert _names(db, None) == ["inside.txt", "shared"]
        found = drive.search(None, "walrus", embedding=None)["hits"]
        assert [hit["path"] for hit in found] == ["/shared/inside.txt"]
        listed = drive.rpc(None, "list_folder", folder=node)["items"]
        assert [item["name"] for item in listed] == ["inside.txt"]
        assert drive.rpc(None, "list_folder")["items"] == []
        with refused("FORBIDDEN"):
            drive.rpc(None, "create_folder", name="new", parent=node)
        with refused("FORBIDDEN"):
            drive.ticket(None, "new.txt", folder_id=node)  # type: ignore[arg-type]
    with _with_grant(db, "another"):
        assert _names(db, None) == []


@pytest.mark.parametrize(
    "change",
    [
        "update private.link_grants set expires_at = now()",
        "update public.share_links set expires_at = now()",
        "update public.share_links set revoking_at = now()",
        "update public.nodes set trashed_at = now(), trash_root_id = id",
        "update public.user_profiles set is_active = false",
    ],
)
def test_a_link_that_has_ended_shows_nothing(
    db: Database, folder: tuple[uuid.UUID, str], change: str
) -> None:
    owner, node = folder
    with _with_grant(db, _link(db, node, owner)):
        assert _names(db, None)
        db.all(change)  # type: ignore[arg-type]
        assert _names(db, None) == []


def test_a_link_dies_with_the_grant_of_its_maker(
    db: Database, drive: Drive, folder: tuple[uuid.UUID, str]
) -> None:
    _, node = folder
    peer = db.create_user()
    drive.share(node, peer, "manage")
    with _with_grant(db, _link(db, node, peer)):
        assert _names(db, None)
        db.all("update public.shares set level = 'edit'")
        assert _names(db, None) == []


def test_a_signed_in_holder_has_the_level_of_the_link(
    db: Database, drive: Drive, folder: tuple[uuid.UUID, str]
) -> None:
    owner, node = folder
    holder = db.create_user()
    with _with_grant(db, _link(db, node, owner, "edit")):
        assert drive.rpc(holder, "create_folder", name="new", parent=node)["owner_id"] == str(owner)
        with refused("FORBIDDEN", level="view"):
            drive.rpc(None, "create_folder", name="newer", parent=node)


def test_a_group_and_an_address_open_what_an_id_opens(
    db: Database, drive: Drive, folder: tuple[uuid.UUID, str]
) -> None:
    _, node = folder
    member, invited = db.create_user(), db.create_user("Invited@Example.test")
    group = db.one("insert into public.groups (name) values ('g') returning id")
    db.all("insert into public.group_members (group_id, user_id) values (%s, %s)", group, member)
    assert _names(db, member) == _names(db, invited) == []
    db.all(
        "insert into public.shares (node_id, group_id, level) values (%s, %s, 'view')", node, group
    )
    db.all(
        "insert into public.shares (node_id, grantee_email, level)"
        " values (%s, 'invited@example.test', 'view')",
        node,
    )
    assert _names(db, member) == _names(db, invited) == ["inside.txt", "shared"]
    db.all("update auth.users set email_confirmed_at = null where id = %s", invited)
    assert _names(db, invited) == []  # an address that nobody has confirmed is nobody's
    db.all("delete from public.group_members where user_id = %s", member)
    assert _names(db, member) == []


def test_members_of_a_workspace_have_their_level_on_all_of_it(db: Database, drive: Drive) -> None:
    viewer, editor, stranger = (db.create_user() for _ in range(3))
    workspace = db.one(
        "insert into public.owners (id, kind, storage_limit)"
        " values (gen_random_uuid(), 'workspace', 1000) returning id"
    )
    db.all("insert into public.workspaces (id) values (%s)", workspace)
    root = uuid.uuid4()
    db.all(
        "insert into public.nodes (id, kind, name, owner_id, path)"
        " values (%s, 'folder', 'team', %s, array[%s])",
        root,
        workspace,
        root,
    )
    for user, level in ((viewer, "view"), (editor, "edit")):
        db.all(
            "insert into public.workspace_members (workspace_id, user_id, level)"
            " values (%s, %s, %s)",
            workspace,
            user,
            level,
        )
    made = drive.rpc(editor, "create_folder", name="plans", parent=str(root))
    assert made["owner_id"] == str(workspace)
    assert _names(db, viewer) == _names(db, editor) == ["plans", "team"]
    assert _names(db, stranger) == []
    assert drive.rpc(viewer, "list_folder")["items"] == []  # the root of one's own drive
    with refused("FORBIDDEN", level="view", required="edit"):
        drive.rpc(viewer, "create_folder", name="more", parent=str(root))
    with refused("NOT_FOUND"):
        drive.rpc(stranger, "create_folder", name="more", parent=str(root))


def test_the_rows_of_a_role_decide(
    db: Database, drive: Drive, folder: tuple[uuid.UUID, str]
) -> None:
    owner, node = folder
    admin = db.create_user()
    db.all("update public.user_profiles set role = 'admin' where id = %s", admin)
    assert _names(db, admin) == []  # everything is allowed, nothing is open
    with refused("NOT_FOUND"):
        drive.rpc(admin, "create_folder", name="x", parent=node)
    db.all("delete from private.role_permissions where permission = 'edit_documents'")
    with refused("FORBIDDEN", permission="edit_documents", role="user"):
        drive.rpc(owner, "create_folder", name="x")
    assert drive.search(owner, "walrus", embedding=None)["hits"]
    db.all("delete from private.role_permissions where permission = 'query' and role = 'user'")
    with refused("FORBIDDEN", permission="query"):
        drive.search(owner, "walrus", embedding=None)
    assert _names(db, owner)
    db.all("delete from private.role_permissions where permission = 'view_documents'")
    assert _names(db, owner) == []
