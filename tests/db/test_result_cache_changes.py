"""Kept answers: whatever a client or the schedule changes, the next search is right."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, LiteralString

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db import test_spaces as life
from tests.db.conftest import Drive
from tests.db.test_result_cache import ask, create_owner, fresh, node


@dataclass
class Scene:
    """Two people, what one shares with the other in several ways, and how to change it."""

    drive: Drive
    owner: uuid.UUID
    peer: uuid.UUID
    ids: dict[str, str] = field(default_factory=dict)
    made: Any = None  # what was made ready for a change

    def act(self, user: uuid.UUID, function: str, **arguments: Any) -> Any:
        """Call a function as somebody."""
        return self.drive.rpc(user, function, **arguments)

    def sql(self, statement: LiteralString) -> None:
        """Run a statement as the schedule or the command line does; {} are ids."""
        self.drive.db.connection.execute(statement.format(**self.ids))  # type: ignore[arg-type]


@pytest.fixture
def scene(db: Database, drive: Drive) -> Scene:
    owner = create_owner(drive)
    peer = db.create_user("peer@example.test")
    made = Scene(drive, owner, peer)
    ids = made.ids
    ids["owner"], ids["peer"] = str(owner), str(peer)
    ids["folder"], ids["a"], ids["b"] = (
        node(drive, owner, name) for name in ("folder", "a.txt", "b.txt")
    )
    ids["share"] = drive.share(ids["folder"], peer)
    group = made.act(owner, "create_group", name="group")
    ids["group"] = group["id"]
    ids["member"] = made.act(
        owner, "add_group_member", group_id=group["id"], member={"user_id": str(peer)}
    )["id"]
    ids["group share"] = made.act(
        owner, "share_node", node=ids["b"], grantee={"group_id": group["id"]}, level="view"
    )["id"]
    workspace = made.act(owner, "create_workspace", name="space")
    ids["workspace"], ids["root"] = workspace["id"], workspace["root_id"]
    drive.file(owner, "w.txt", "bark in the workspace", folder_id=ids["root"])
    ids["w"] = node(drive, uuid.UUID(workspace["id"]), "w.txt")
    ids["workspace member"] = made.act(
        owner, "add_workspace_member", workspace_id=workspace["id"],
        member={"user_id": str(peer)}, level="edit",
    )["id"]  # fmt: skip
    return made


Do = Callable[[Scene], Any]


@dataclass
class Change:
    """What is made ready, what happens then, and whose next search must be a miss."""

    concerned: str
    happen: Do
    before: Do = lambda s: None


# whose searches a change concerns
BOTH, PEER, OWNER, NOBODY = "owner peer", "peer", "owner", ""


def _sql(statement: LiteralString) -> Do:
    return lambda s: s.sql(statement)


def _act(function: str, **arguments: Any) -> Do:
    """Call a function as the owner; what begins with @ is an id."""

    def happen(scene: Scene) -> Any:
        def named(value: Any) -> Any:
            if isinstance(value, list):
                return [named(one) for one in value]
            if value == "@made":
                return scene.made["id"]
            is_name = isinstance(value, str) and value.startswith("@")
            return scene.ids[value[1:]] if is_name else value

        return scene.act(
            scene.owner, function, **{key: named(value) for key, value in arguments.items()}
        )

    return happen


def _admin(function: str, **arguments: Any) -> Do:
    """Call a function about the peer as an administrator."""
    return lambda s: s.act(s.made, function, **{"user_id": s.peer} | arguments)


def _an_admin(s: Scene) -> Any:
    admin = s.drive.db.create_user()
    s.drive.db.all("update public.user_profiles set role = 'admin' where id = %s", admin)
    return admin


def _a_new_version(s: Scene) -> Any:
    s.drive.file(s.owner, "a.txt", "mark", file_id=s.ids["a"])
    return s.drive.db.one(
        "select id::text from public.file_versions where file_id = %s and no = 1", s.ids["a"]
    )


def _a_file_of_a_group(s: Scene) -> Any:
    """A file that is shared with a group, which the peer is not in."""
    file = s.drive.file(s.owner, "g.txt", "bark dork group")["file_id"]
    group = s.act(s.owner, "create_group", name="other")
    s.act(s.owner, "share_node", node=file, grantee={"group_id": group["id"]}, level="view")
    return group


def _another_workspace(s: Scene) -> Any:
    made = s.act(s.owner, "create_workspace", name="other")
    s.drive.file(s.owner, "o.txt", "bark dork other", folder_id=made["root_id"])
    return made


def _a_queued_file(s: Scene) -> Any:
    return s.drive.upload(s.owner, "q.txt")


def _a_cancelled_file(s: Scene) -> Any:
    ticket = _a_queued_file(s)
    s.act(s.owner, "cancel_ingest", file_id=ticket["file_id"])
    return ticket


def _a_comment(s: Scene) -> Any:
    return s.act(s.owner, "add_comment", node=s.ids["a"], body="bark")


def _flip(s: Scene) -> Any:
    life.fill(s.drive)


# by function, and what tells changes by the same one apart
WRITES: dict[str, Change] = {
    "rename_node": Change(BOTH, _act("rename_node", id="@a", name="c.txt")),
    "rename_node of a folder above": Change(BOTH, _act("rename_node", id="@folder", name="other")),
    "begin_upload": Change(BOTH, lambda s: s.drive.file(s.owner, "n.txt", "bark dork mark")),
    "save_document": Change(
        NOBODY, lambda s: s.act(s.owner, "save_document", title="n", content="bark")
    ),
    "begin_upload of a version": Change(
        BOTH, lambda s: s.drive.file(s.owner, "a.txt", "mark", file_id=s.ids["a"])
    ),
    "abort_upload": Change(
        NOBODY,
        lambda s: s.act(s.owner, "abort_upload", upload_id=s.made["upload_id"]),
        lambda s: s.drive.ticket(s.owner, "bark.txt"),
    ),
    "cancel_ingest": Change(
        NOBODY,
        lambda s: s.act(s.owner, "cancel_ingest", file_id=s.made["file_id"]),
        _a_queued_file,
    ),
    "retry_ingest": Change(
        BOTH,
        lambda s: (
            s.act(s.owner, "retry_ingest", file_id=s.made["file_id"]),
            s.drive.ingest("bark dork again"),
        ),
        _a_cancelled_file,
    ),
    "reprocess_file": Change(
        BOTH,
        lambda s: (
            s.act(s.owner, "reprocess_file", file_id=s.ids["b"], options={}),
            s.drive.ingest("bark dork again"),
        ),
    ),
    "move_nodes": Change(BOTH, _act("move_nodes", ids=["@b"], target="@folder")),
    "move_nodes to another owner": Change(BOTH, _act("move_nodes", ids=["@b"], target="@root")),
    "copy_nodes": Change(BOTH, _act("copy_nodes", ids=["@b"], target="@folder")),
    "create_folder": Change(NOBODY, _act("create_folder", name="bark")),
    "trash_nodes": Change(BOTH, _act("trash_nodes", ids=["@a"])),
    "restore_nodes": Change(
        BOTH, _act("restore_nodes", ids=["@a"]), _act("trash_nodes", ids=["@a"])
    ),
    "purge_nodes": Change(BOTH, _act("purge_nodes", ids=["@a"])),
    "purge_nodes and what is left of them": Change(
        BOTH, lambda s: (s.act(s.owner, "purge_nodes", ids=[s.ids["a"]]), s.drive.clean_up())
    ),
    "empty_trash": Change(BOTH, _act("empty_trash"), _act("trash_nodes", ids=["@a"])),
    "restore_version": Change(
        BOTH,
        lambda s: (
            s.act(s.owner, "restore_version", file_id=s.ids["a"], version_id=s.made),
            s.drive.ingest("bark dork", "bark lump"),
        ),
        _a_new_version,
    ),
    "purge_version": Change(
        NOBODY,
        lambda s: s.act(s.owner, "purge_version", file_id=s.ids["a"], version_id=s.made),
        _a_new_version,
    ),
    "tag_nodes": Change(BOTH, _act("tag_nodes", ids=["@a"], add=["new"])),
    "set_metadata": Change(BOTH, _act("set_metadata", file_id="@a", metadata={"bark": 1})),
    "share_node": Change(
        PEER,
        lambda s: s.drive.share(s.made["file_id"], s.peer),
        lambda s: s.drive.file(s.owner, "s.txt", "bark dork"),
    ),
    "share_node with an address": Change(
        PEER,
        lambda s: s.act(
            s.owner, "share_node", node=s.made["file_id"], level="view",
            grantee={"email": "peer@example.test"},
        ),
        lambda s: s.drive.file(s.owner, "s.txt", "bark dork"),
    ),
    "share_node with a group": Change(
        PEER,
        lambda s: s.act(
            s.owner, "share_node", node=s.made["file_id"], level="view",
            grantee={"group_id": s.ids["group"]},
        ),
        lambda s: s.drive.file(s.owner, "s.txt", "bark dork"),
    ),
    "unshare_node": Change(PEER, _act("unshare_node", share_id="@share")),
    "unshare_node with a group": Change(PEER, _act("unshare_node", share_id="@group share")),
    "create_group": Change(NOBODY, _act("create_group", name="bark")),
    "rename_group": Change(NOBODY, _act("rename_group", id="@group", name="bark")),
    "delete_group": Change(PEER, _act("delete_group", id="@group")),
    "add_group_member": Change(
        PEER,
        lambda s: s.act(
            s.owner, "add_group_member", group_id=s.made["id"], member={"user_id": str(s.peer)}
        ),
        _a_file_of_a_group,
    ),
    "remove_group_member": Change(PEER, _act("remove_group_member", id="@member")),
    "create_workspace": Change(OWNER, _act("create_workspace", name="bark")),
    "delete_workspace": Change(BOTH, _act("delete_workspace", id="@workspace")),
    "add_workspace_member": Change(
        PEER,
        lambda s: s.act(
            s.owner, "add_workspace_member", workspace_id=s.made["id"],
            member={"user_id": str(s.peer)},
        ),
        _another_workspace,
    ),
    "remove_workspace_member": Change(
        PEER, _act("remove_workspace_member", id="@workspace member")
    ),
    "update_workspace_member": Change(
        PEER, _act("update_workspace_member", id="@workspace member", level="view")
    ),
    "create_share_link": Change(OWNER, _act("create_share_link", node="@a")),
    "revoke_share_link": Change(
        OWNER, _act("revoke_share_link", id="@made"), _act("create_share_link", node="@a")
    ),
    "open_share_link": Change(
        NOBODY,
        lambda s: s.act(s.peer, "open_share_link", token=s.made["token"]),
        _act("create_share_link", node="@a"),
    ),
    "set_user_role": Change(PEER, _admin("set_user_role", role="viewer"), _an_admin),
    "set_user_active": Change(
        PEER,
        lambda s: [_admin("set_user_active", is_active=active)(s) for active in (False, True)],
        _an_admin,
    ),
    "set_user_quota": Change(NOBODY, _admin("set_user_quota", storage_limit=1000), _an_admin),
    "add_comment": Change(NOBODY, _act("add_comment", node="@a", body="bark")),
    "edit_comment": Change(NOBODY, _act("edit_comment", id="@made", body="dork"), _a_comment),
    "resolve_comment": Change(NOBODY, _act("resolve_comment", id="@made"), _a_comment),
    "delete_comment": Change(NOBODY, _act("delete_comment", id="@made"), _a_comment),
    "set_favourite": Change(NOBODY, _act("set_favourite", node="@a")),
    "record_view": Change(NOBODY, _act("record_view", node="@a")),
    "begin_download": Change(NOBODY, _act("begin_download", file_id="@a")),
    "mark_notifications_read": Change(NOBODY, _act("mark_notifications_read")),
    "amend_search": Change(
        NOBODY,
        lambda s: s.act(s.owner, "amend_search", search_id=s.made["search_id"], hits=Jsonb([])),
        lambda s: s.act(s.owner, "hybrid_search", query="bark lump"),
    ),
    "clear_query_history": Change(OWNER, _act("clear_query_history")),
}  # fmt: skip

# they count and keep, and change nothing that is found
SEARCHES = {
    "hybrid_search",
    "search_pages",
    "search_images",
    "search_files",
    "related_documents",
}

# what the schedule, the command line, workers and Auth do
EVENTS: dict[str, Change] = {
    "end of a share": Change(
        PEER,
        _sql("update public.shares set expires_at = now() - interval '1 s' where id = '{share}'"),
    ),
    "another role": Change(
        PEER, _sql("update public.user_profiles set role = 'viewer' where id = '{peer}'")
    ),
    "another address": Change(
        PEER, _sql("update auth.users set email = 'other@example.test' where id = '{peer}'")
    ),
    "what a role may do": Change(
        BOTH, _sql("insert into private.role_permissions values ('viewer', 'view_analytics')")
    ),
    "a setting": Change(
        BOTH, _sql("update private.settings set value = '5' where key = 'reconcile.grace_s'")
    ),
    "a space": Change(BOTH, _sql("update public.embedding_spaces set max_tokens = 128")),
    "a flip": Change(BOTH, _sql("select private.activate_space('next')"), _flip),
    "a flip back": Change(
        BOTH,
        _sql("select private.rollback_space()"),
        lambda s: (_flip(s), s.sql("select private.activate_space('next')")),
    ),
    "a boost": Change(BOTH, _sql("update public.chunks set boost = 3 where file_id = '{a}'")),
    "lost vectors": Change(
        BOTH, _sql("delete from private.chunk_vectors where file_id = '{a}'")
    ),
    "renewed statistics": Change(
        BOTH,
        _sql("update private.owner_statistics set chunk_count = 9 where owner_id = '{owner}'"),
    ),
    "what is known of a version": Change(
        BOTH, _sql("update public.file_versions set language = 'de' where file_id = '{a}'")
    ),
    "words of names": Change(
        BOTH, _sql("update private.name_words set weight = 0.1 where file_id = '{a}'")
    ),
}  # fmt: skip

ALL = WRITES | EVENTS


def test_every_function_that_writes_is_listed(db: Database) -> None:
    writing = db.all(
        "select distinct p.proname from pg_proc as p"
        " where p.pronamespace = 'public'::regnamespace and p.provolatile = 'v'"
        " and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype"
    )
    assert set(writing) == {key.split()[0] for key in WRITES} | SEARCHES


def _asked(scene: Scene, user: uuid.UUID, cached: bool | None) -> Any:
    """Search in the space of now, as a client does."""
    space = scene.drive.rpc(user, "embedding_space")["name"]
    more = {} if space == "minilm-l6-v2" else {"embedding": Jsonb(life.turned("bark dork"))}
    answer = ask(scene.drive, user, **more)
    assert cached is None or answer["cached"] is cached
    assert answer["hits"] == fresh(scene.drive, user, **more)["hits"]
    return answer


@pytest.mark.parametrize("change", ALL)
def test_after_any_change_the_next_search_is_a_miss_and_right(scene: Scene, change: str) -> None:
    what = ALL[change]
    people = {"owner": scene.owner, "peer": scene.peer}
    scene.made = what.before(scene)
    kept = {}
    for name, user in people.items():
        _asked(scene, user, cached=None)
        kept[name] = _asked(scene, user, cached=True)["hits"]
    what.happen(scene)
    for name, user in people.items():
        answer = _asked(scene, user, cached=False if name in what.concerned.split() else None)
        # whom it does not concern finds what they found
        assert name in what.concerned.split() or answer["hits"] == kept[name], name
        _asked(scene, user, cached=True)


def test_grants_that_end_with_time_end_what_was_kept(connect: Callable[[], Drive]) -> None:
    """Nobody writes anything when a share, or what a link gave, comes to its end."""
    drive = connect()
    owner = create_owner(drive)
    by_id, by_group, *by_link = (drive.db.create_user() for _ in range(4))
    a, b = node(drive, owner, "a.txt"), node(drive, owner, "b.txt")
    group = drive.rpc(owner, "create_group", name="group")["id"]
    drive.rpc(owner, "add_group_member", group_id=group, member={"user_id": str(by_group)})
    end = drive.db.one("select now() + interval '2 s'")
    share = {"node": a, "level": "view", "expires_at": end}
    drive.rpc(owner, "share_node", **share, grantee={"user_id": str(by_id)})
    drive.rpc(owner, "share_node", **share, grantee={"group_id": group})
    link = drive.rpc(owner, "create_share_link", node=a, expires_at=end)
    other = drive.rpc(owner, "create_share_link", node=b)
    grants = [
        drive.rpc(holder, "open_share_link", token=made["token"])["grant"]
        for holder, made in zip(by_link, (link, other), strict=True)
    ]
    drive.db.all(  # what the second gave ends before the link does
        "update private.link_grants set expires_at = %s where link_id = %s", end, other["id"]
    )

    def asked(cached: bool | None) -> list[list[str]]:
        answers = [ask(drive, by_id), ask(drive, by_group)]
        for holder, grant in zip(by_link, grants, strict=True):
            with drive.holding(grant):
                answers.append(ask(drive, holder))
        assert cached is None or {answer["cached"] for answer in answers} == {cached}
        return [sorted({hit["name"] for hit in answer["hits"]}) for answer in answers]

    there = [["a.txt"], ["a.txt"], ["a.txt"], ["b.txt"]]
    assert asked(None) == there
    assert asked(cached=True) == there
    before = drive.db.one("select sum(edits) from private.epochs")
    while drive.db.one("select clock_timestamp() <= %s", end):
        time.sleep(0.05)
    assert asked(None) == [[], [], [], []]
    assert drive.db.one("select sum(edits) from private.epochs") == before  # control


def test_a_revoked_link_ends_what_was_kept_for_who_holds_it(scene: Scene) -> None:
    drive, holder = scene.drive, scene.drive.db.create_user()
    made = scene.act(scene.owner, "create_share_link", node=scene.ids["a"])
    grant = scene.act(holder, "open_share_link", token=made["token"])["grant"]
    with drive.holding(grant):
        ask(drive, holder)
        assert ask(drive, holder)["cached"] is True
        assert {hit["name"] for hit in ask(drive, holder)["hits"]} == {"a.txt"}
        scene.act(scene.owner, "revoke_share_link", id=made["id"])
        answer = ask(drive, holder)
        assert (answer["cached"], answer["hits"]) == (False, [])


def test_others_changes_are_no_concern(db: Database, drive: Drive, scene: Scene) -> None:
    stranger = db.create_user()
    for user in (scene.owner, scene.peer):
        ask(drive, user)
    drive.file(stranger, "s.txt", "bark dork")
    mine = drive.rpc(stranger, "create_folder", name="s")["id"]
    drive.share(mine, db.create_user())
    for user in (scene.owner, scene.peer):
        assert ask(drive, user)["cached"] is True


def test_undone_changes_are_undone_for_what_is_kept(
    db: Database, drive: Drive, scene: Scene
) -> None:
    ask(drive, scene.owner)
    try:
        with db.connection.transaction():
            drive.rpc(scene.owner, "trash_nodes", ids=[scene.ids["a"]])
            inside = ask(drive, scene.owner)
            assert inside["cached"] is False
            raise InterruptedError
    except InterruptedError:
        pass
    answer = ask(drive, scene.owner)
    assert answer["hits"] == fresh(drive, scene.owner)["hits"] != inside["hits"]


# A trigger less, and it is noticed ---------------------------------------------------------------

MISSED = {
    "public.nodes": "rename_node of a folder above",
    "public.chunks": "a boost",
    "private.chunk_vectors": "lost vectors",
}


@pytest.mark.parametrize("table", MISSED)
def test_without_its_triggers_a_table_would_make_answers_wrong(
    db: Database, drive: Drive, scene: Scene, table: str
) -> None:
    for name in ("_800_advance_inserted", "_800_advance_updated", "_800_advance_deleted"):
        db.connection.execute(f"alter table {table} disable trigger {name}")  # type: ignore[arg-type]
    ask(drive, scene.owner)
    ALL[MISSED[table]].happen(scene)
    answer = ask(drive, scene.owner)
    assert answer["cached"] is True
    assert answer["hits"] != fresh(drive, scene.owner)["hits"]


def test_without_the_triggers_of_tags_a_filter_would_be_wrong(
    db: Database, drive: Drive, scene: Scene
) -> None:
    tagged = Jsonb({"tags": ["new"]})
    for enabled in (True, False):
        if not enabled:
            db.all("alter table public.node_tags disable trigger user")
        assert ask(drive, scene.owner, filters=tagged)["hits"] == []
        drive.rpc(scene.owner, "tag_nodes", ids=[scene.ids["a"]], add=["new"])
        answer = ask(drive, scene.owner, filters=tagged)
        assert answer["cached"] is not enabled
        assert bool(answer["hits"]) is enabled
        drive.rpc(scene.owner, "tag_nodes", ids=[scene.ids["a"]], remove=["new"])
