"""Moving: what goes where, who may, and what it leaves alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.invariants import PATHS_ARE_WRONG, UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import versions_of


def right(db: Database) -> None:
    """Assert that all books are right."""
    for query in (PATHS_ARE_WRONG, UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(query) == [], query


def folder(drive: Drive, user: uuid.UUID, name: str, parent: str | None = None) -> str:
    """Make a folder and return its id."""
    return str(drive.rpc(user, "create_folder", name=name, parent=parent)["id"])


def move(drive: Drive, user: uuid.UUID, node: str, target: str | None, **more: Any) -> Any:
    """Move one node and return its item."""
    (item,) = drive.rpc(user, "move_nodes", ids=[node], target=target, **more)["items"]
    return item


def path_of(drive: Drive, user: uuid.UUID, node: str) -> str:
    """Return the names from the root, as a user sees them."""
    return str(drive.rpc(user, "file_details", file_id=node)["path"])


def workspace(db: Database, limit: int = 10**6, **members: str) -> tuple[uuid.UUID, str]:
    """Make a workspace with members {id: level}; its id and its root folder."""
    owner = db.one(
        "insert into public.owners (id, kind, storage_limit)"
        " values (gen_random_uuid(), 'workspace', %s) returning id",
        limit,
    )
    root = uuid.uuid4()
    db.all(
        "insert into public.nodes (id, kind, name, owner_id, path)"
        " values (%s, 'folder', 'Team', %s, array[%s]::uuid[])",
        root,
        owner,
        root,
    )
    db.all("insert into public.workspaces (id, root_id) values (%s, %s)", owner, root)
    for user, level in members.items():
        db.all(
            "insert into public.workspace_members (workspace_id, user_id, level)"
            " values (%s, %s, %s)",
            owner,
            user,
            level,
        )
    return owner, str(root)


# Where things go ---------------------------------------------------------------------------------


def test_a_moved_folder_takes_everything_along(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a = folder(drive, owner, "a")
    b = folder(drive, owner, "b", a)
    file = drive.upload(owner, "c.txt", folder_id=b)["file_id"]
    trashed = drive.upload(owner, "d.txt", folder_id=b)["file_id"]
    drive.rpc(owner, "trash_nodes", ids=[trashed])
    target = folder(drive, owner, "target")
    before = db.one("select updated_at from public.nodes where id = %s", file)
    item = move(drive, owner, a, target)
    assert (item["id"], item["name"], item["parent_id"]) == (a, "a", target)
    assert (item["skipped"], item["replaced_id"], item["version_of"]) == (False, None, None)
    assert path_of(drive, owner, file) == "/target/a/b/c.txt"
    assert db.one("select updated_at from public.nodes where id = %s", file) == before
    move(drive, owner, b, None)
    assert path_of(drive, owner, file) == "/b/c.txt"
    assert db.one("select parent_id from public.nodes where id = %s", b) is None
    right(db)


def test_a_move_touches_no_object_and_queues_nothing(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a, target = folder(drive, owner, "a"), folder(drive, owner, "target")
    drive.file(owner, "c.txt", "some words", folder_id=a)
    looks = (
        "select string_agg(o::text, ' ' order by name) from storage.objects as o",
        "select string_agg(b::text, ' ' order by id) from private.blobs as b",
        "select string_agg(j::text, ' ' order by id) from public.ingest_jobs as j",
        "select string_agg(t.xmin || t::text, ' ' order by lexeme) from private.chunk_terms as t",
        "select string_agg(v.chunk_id::text || v.xmin, ' ' order by chunk_id)"
        " from private.chunk_vectors as v",
    )
    before = [db.one(look) for look in looks]  # type: ignore[arg-type]
    move(drive, owner, a, target)
    assert [db.one(look) for look in looks] == before  # type: ignore[arg-type]
    assert None not in before
    assert drive.search(owner, "words")["hits"][0]["path"] == "/target/a/c.txt"


def test_a_folder_does_not_go_into_itself(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a = folder(drive, owner, "a")
    b = folder(drive, owner, "b", a)
    c = folder(drive, owner, "c", b)
    for target in (a, b, c):
        with refused("CYCLE", id=a, target=target):
            move(drive, owner, a, target)
    move(drive, owner, c, a)  # control: up is fine
    assert path_of(drive, owner, c) == "/a/c"
    right(db)


def test_where_something_is_already_it_stays(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a = folder(drive, owner, "a")
    file = drive.upload(owner, "c.txt", folder_id=a)["file_id"]
    before = db.all("select n::text from public.nodes as n order by id")
    for policy in ("fail", "rename", "version", "replace", "skip"):
        item = move(drive, owner, file, a, on_conflict=policy)
        assert (item["name"], item["parent_id"], item["skipped"]) == ("c.txt", a, False)
        assert item["replaced_id"] is None
        assert move(drive, owner, a, None, on_conflict=policy)["id"] == a
    assert db.all("select n::text from public.nodes as n order by id") == before


def test_each_id_of_a_batch_goes_to_the_target_once(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a, target = folder(drive, owner, "a"), folder(drive, owner, "target")
    b = folder(drive, owner, "b", a)
    file = drive.upload(owner, "c.txt", folder_id=b)["file_id"]
    items = drive.rpc(owner, "move_nodes", ids=[a, b, file, b], target=target)["items"]
    assert [item["id"] for item in items] == [a, b, file]
    paths = [path_of(drive, owner, node) for node in (a, b, file)]
    assert paths == ["/target/a", "/target/b", "/target/c.txt"]
    assert drive.rpc(owner, "move_nodes", ids=[], target=target) == {"items": []}
    right(db)


def test_a_path_has_an_end(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("update private.settings set value = '4' where key = 'drive.max_depth'")
    a = folder(drive, owner, "a")
    b = folder(drive, owner, "b", a)
    x = folder(drive, owner, "x")
    y = folder(drive, owner, "y", x)
    move(drive, owner, x, b)  # a/b/x/y
    for refusal in (
        lambda: folder(drive, owner, "z", y),
        lambda: drive.ticket(owner, "z.txt", folder_id=y),
        lambda: move(drive, owner, folder(drive, owner, "top"), y),
        lambda: drive.rpc(owner, "copy_nodes", ids=[x], target=x),
    ):
        with refused("INVALID_ARGUMENT", field="depth", depth=5, limit=4):
            refusal()
    assert db.one("select count(*) from public.nodes where cardinality(path) > 4") == 0
    right(db)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("on_conflict", {"on_conflict": "overwrite"}),
        ("on_conflict", {"on_conflict": None}),
        ("ids", {"ids": None}),
        ("ids", {"ids": [None]}),
        ("ids", {"ids": [str(uuid.uuid4()) for _ in range(1001)]}),
    ],
)
@pytest.mark.parametrize("function", ["move_nodes", "copy_nodes"])
def test_a_batch_that_cannot_be_meant_is_refused(
    db: Database, drive: Drive, function: str, field: str, arguments: dict[str, Any]
) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, function, **{"ids": [folder(drive, owner, "a")]} | arguments)


def test_only_a_folder_is_a_target(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    file = drive.upload(owner, "c.txt")["file_id"]
    with refused("INVALID_ARGUMENT", field="target"):
        move(drive, owner, a, file)
    theirs = folder(drive, stranger, "theirs")
    with refused("NOT_FOUND", id=theirs):
        move(drive, owner, a, theirs)
    with refused("NOT_FOUND", id=a):
        move(drive, stranger, a, theirs)
    drive.rpc(owner, "trash_nodes", ids=[a])
    with refused("NOT_FOUND", id=a):
        move(drive, owner, file, a)
    with refused("NOT_FOUND", id=a):
        move(drive, owner, a, None)
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "move_nodes", ids=[file])


# Names that are taken ----------------------------------------------------------------------------


@pytest.fixture
def clash(db: Database, drive: Drive) -> tuple[uuid.UUID, str, Any, Any]:
    """Two files of the same name, one in a folder, ingested."""
    owner = db.create_user()
    target = folder(drive, owner, "target")
    there = drive.file(owner, "A.txt", "old words", folder_id=target)
    return owner, target, there, drive.file(owner, "a.txt", "new words", size=20)


Clash = tuple[uuid.UUID, str, Any, Any]


def test_fail_names_what_is_in_the_way(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, there, mine = clash
    with refused("CONFLICT_NAME", existing_id=there["file_id"], suggested="a (2).txt") as found:
        move(drive, owner, mine["file_id"], target)
    assert [item["id"] for item in found["items"]] == [mine["file_id"]]
    assert found["items"][0]["error"] == "CONFLICT_NAME"
    assert path_of(drive, owner, mine["file_id"]) == "/a.txt"


@pytest.mark.parametrize("policy", ["rename", "keep_both"])
def test_rename_finds_a_free_name(db: Database, drive: Drive, clash: Clash, policy: str) -> None:
    owner, target, there, mine = clash
    item = move(drive, owner, mine["file_id"], target, on_conflict=policy)
    assert (item["id"], item["name"]) == (mine["file_id"], "a (2).txt")
    assert path_of(drive, owner, there["file_id"]) == "/target/A.txt"
    right(db)


def test_skip_leaves_both(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, there, mine = clash
    other = folder(drive, owner, "other")
    items = drive.rpc(
        owner, "move_nodes", ids=[mine["file_id"], other], target=target, on_conflict="skip"
    )["items"]
    assert [(item["skipped"], item["parent_id"]) for item in items] == [
        (True, None),
        (False, target),
    ]
    assert path_of(drive, owner, mine["file_id"]) == "/a.txt"
    assert path_of(drive, owner, there["file_id"]) == "/target/A.txt"


def test_replace_sends_what_is_there_to_the_trash(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, there, mine = clash
    item = move(drive, owner, mine["file_id"], target, on_conflict="replace")
    assert item["replaced_id"] == there["file_id"]
    assert path_of(drive, owner, mine["file_id"]) == "/target/a.txt"
    assert (
        db.one(
            "select trash_root_id::text from public.nodes where id = %s and trashed_at is not null",
            there["file_id"],
        )
        == there["file_id"]
    )
    assert [hit["file_id"] for hit in drive.search(owner, "words")["hits"]] == [mine["file_id"]]
    right(db)


def test_replace_spares_whatever_holds_what_is_moved(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    outer = folder(drive, owner, "x")
    inner = folder(drive, owner, "x", folder(drive, owner, "between", outer))
    with refused("CONFLICT_NAME", existing_id=outer):
        move(drive, owner, inner, None, on_conflict="replace")
    elsewhere = folder(drive, owner, "elsewhere")
    twin = folder(drive, owner, "x", elsewhere)
    with refused("CONFLICT_NAME", existing_id=outer):  # itself one of the batch
        drive.rpc(owner, "move_nodes", ids=[outer, twin], on_conflict="replace")
    assert db.one("select count(*) from public.nodes where trashed_at is not null") == 0


def test_version_continues_the_file_that_is_there(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, there, mine = clash
    calls = db.one("select count(*) from public.ingest_jobs where state <> 'done'")
    item = move(drive, owner, mine["file_id"], target, on_conflict="version")
    assert item["version_of"] == there["file_id"]
    assert (item["name"], item["parent_id"]) == ("A.txt", target)
    assert versions_of(drive, owner, there) == [2, 1]
    details = drive.rpc(owner, "file_details", file_id=there["file_id"])
    assert (details["head_version_id"], details["size"]) == (item["version_id"], 20)
    with refused("NOT_FOUND"):
        drive.rpc(owner, "file_details", file_id=mine["file_id"])
    assert [hit["file_id"] for hit in drive.search(owner, "new")["hits"]] == [there["file_id"]]
    assert drive.search(owner, "old", embedding=None)["hits"] == []
    assert db.one("select count(*) from public.ingest_jobs where state <> 'done'") == calls
    right(db)


def test_a_folder_has_no_versions(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    target = folder(drive, owner, "target")
    there = folder(drive, owner, "a", target)
    file = drive.upload(owner, "a")["file_id"]
    with refused("CONFLICT_NAME", existing_id=there):
        move(drive, owner, file, target, on_conflict="version")
    drive.rpc(owner, "trash_nodes", ids=[file])
    with refused("CONFLICT_NAME", existing_id=there):
        move(drive, owner, folder(drive, owner, "a"), target, on_conflict="version")
    waiting = drive.ticket(owner, "b.txt")["file_id"]
    drive.upload(owner, "b.txt", folder_id=target)
    with refused("CONFLICT_STATE", id=waiting):
        move(drive, owner, waiting, target, on_conflict="version")


def test_a_batch_moves_all_or_nothing(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, there, mine = clash
    good, missing = folder(drive, owner, "good"), str(uuid.uuid4())
    ids = [good, mine["file_id"], missing, target]
    with refused("CONFLICT_NAME", existing_id=there["file_id"]) as found:
        drive.rpc(owner, "move_nodes", ids=ids, target=target)
    errors = [(item["id"], item["error"]) for item in found["items"]]
    assert errors == [
        (mine["file_id"], "CONFLICT_NAME"),
        (missing, "NOT_FOUND"),
        (target, "CYCLE"),
    ]
    assert all(item["message"] for item in found["items"])
    assert path_of(drive, owner, good) == "/good"


# Who may -----------------------------------------------------------------------------------------


def test_moving_needs_edit_at_both_ends(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    b, c = folder(drive, owner, "b", a), folder(drive, owner, "c", a)
    drive.share(a, peer, "view")
    with refused("FORBIDDEN", id=b, required="edit"):
        move(drive, peer, c, b)
    drive.share(b, peer, "edit")
    with refused("FORBIDDEN", id=c, required="edit"):
        move(drive, peer, c, b)
    drive.share(c, peer, "edit")
    move(drive, peer, c, b)
    assert path_of(drive, owner, c) == "/a/b/c"


def test_out_of_a_share_one_carries_only_what_one_manages(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    a, other = folder(drive, owner, "a"), folder(drive, owner, "other")
    b = folder(drive, owner, "b", a)
    file = drive.upload(owner, "c.txt", folder_id=b)["file_id"]
    drive.share(a, peer, "edit")
    drive.share(other, peer, "edit")
    move(drive, peer, file, a)  # within the share
    for target in (other, None):
        with refused("FORBIDDEN", id=file, required="manage"):
            move(drive, peer, file, target)
    db.all("update public.shares set level = 'manage' where node_id = %s", a)
    move(drive, peer, file, other)
    assert path_of(drive, owner, file) == "/other/c.txt"
    move(drive, owner, file, a)  # the owner needs no share
    # what is shared alone has no place to go within its share
    alone = drive.upload(owner, "alone.txt", folder_id=folder(drive, owner, "hidden"))["file_id"]
    drive.share(alone, peer, "edit")
    with refused("FORBIDDEN", id=alone, required="manage"):
        move(drive, peer, alone, other)


def test_moving_out_of_a_share_ends_it_and_into_one_begins_it(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    shared = folder(drive, owner, "shared")
    file = drive.file(owner, "c.txt", "secret words", folder_id=shared)["file_id"]
    drive.share(shared, peer)
    assert drive.search(peer, "secret")["hits"]
    move(drive, owner, file, None)
    assert drive.search(peer, "secret")["hits"] == []
    with refused("NOT_FOUND"):
        drive.rpc(peer, "file_details", file_id=file)
    move(drive, owner, file, shared)
    assert drive.search(peer, "secret")["hits"]


def test_an_upload_ends_where_its_right_does(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    shared = folder(drive, owner, "shared")
    inner = folder(drive, owner, "inner", shared)
    drive.share(shared, peer, "edit")
    theirs = drive.ticket(peer, "a.txt", 30, folder_id=inner)
    mine = drive.ticket(owner, "b.txt", 40, folder_id=inner)
    state = "select state from public.uploads where id = %s"
    move(drive, owner, inner, folder(drive, owner, "other", shared))
    assert db.one(state, theirs["upload_id"]) == "open"  # control: within the share
    move(drive, owner, inner, None)
    assert db.one(state, theirs["upload_id"]) == "aborted"
    assert db.one(state, mine["upload_id"]) == "open"
    assert db.one("select storage_reserved from public.owners where id = %s", owner) == 40
    right(db)


def test_a_workspace_is_moved_within_by_its_editors(db: Database, drive: Drive) -> None:
    editor, manager, viewer = (db.create_user() for _ in range(3))
    levels = {str(editor): "edit", str(manager): "manage", str(viewer): "view"}
    _, root = workspace(db, **levels)
    a, b = folder(drive, editor, "a", root), folder(drive, editor, "b", root)
    move(drive, editor, a, b)
    assert path_of(drive, viewer, a) == "/Team/b/a"
    with refused("FORBIDDEN", required="manage"):
        move(drive, editor, a, None)
    with refused("FORBIDDEN", required="edit"):
        move(drive, viewer, a, root)
    for user in (editor, manager):
        with refused("CONFLICT_STATE", id=root):
            move(drive, user, root, folder(drive, user, f"mine {user}"))
    with refused("FORBIDDEN", required="manage"):
        drive.rpc(editor, "rename_node", id=root, name="Other")
    assert drive.rpc(manager, "rename_node", id=root, name="Other")["name"] == "Other"
    move(drive, manager, a, None)
    assert path_of(drive, manager, a) == "/a"
    with refused("NOT_FOUND"):
        drive.rpc(editor, "file_details", file_id=a)
    right(db)


# To another owner --------------------------------------------------------------------------------


def served(db: Database, owner: uuid.UUID) -> dict[str, Any]:
    """All that a search reads of an owner, ids aside."""
    return {
        "vectors": db.all(
            "select c.content, v.space_id, v.embedding::text from private.chunk_vectors as v"
            " join public.chunks as c on c.id = v.chunk_id where v.owner_id = %s order by 1, 2",
            owner,
        ),
        "terms": db.all(
            "select c.content, t.lexeme, t.part, e & ((1::bigint << 40) - 1)"
            " from private.chunk_terms as t join private.indexed_files as f using (file_id)"
            " cross join unnest(t.entries) as e"
            " join public.chunks as c on c.version_id = f.version_id and c.idx = e >> 40"
            " where t.owner_id = %s and f.owner_id = t.owner_id order by 1, 2",
            owner,
        ),
        "statistics": db.all(
            "select chunk_count, total_length, languages from private.owner_statistics"
            " where owner_id = %s and chunk_count > 0",
            owner,
        ),
        "texts": db.all(
            "select text_hash, space_id, embedding::text from private.text_vectors"
            " where owner_id = %s order by 1, 2",
            owner,
        ),
    }


def scores(drive: Drive, user: uuid.UUID, query: str) -> dict[str, tuple[float, float]]:
    """What both legs say of each passage; ranks are left out, since ties are broken by id."""
    return {
        hit["snippet"]: (hit["parts"]["keyword_score"], hit["parts"]["vector_score"])
        for hit in drive.search(user, query)["hits"]
    }


WORDS = ["quick brown fox", "lazy dogs sleep " * 5]


def test_with_another_owner_it_is_as_if_uploaded_there(db: Database, drive: Drive) -> None:
    owner, peer, control = db.create_user(), db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    ticket = drive.file(owner, "c.txt", *WORDS, size=30, folder_id=a)
    drive.file(owner, "stays.txt", "quick words that stay", size=7)
    drive.file(peer, "before.txt", "lazy words before", size=5)
    drive.file(control, "before.txt", "lazy words before", size=5)
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    jobs = db.all("select j::text from public.ingest_jobs as j order by id")
    objects = db.all("select o::text from storage.objects as o order by id")
    move(drive, owner, a, theirs)
    assert db.all("select j::text from public.ingest_jobs as j order by id") == jobs
    assert db.all("select o::text from storage.objects as o order by id") == objects
    assert path_of(drive, peer, ticket["file_id"]) == "/theirs/a/c.txt"
    assert db.all(
        "select distinct owner_id from public.nodes where path @> array[%s::uuid]", a
    ) == [peer]
    # control uploads what the peer was given
    drive.file(control, "c.txt", *WORDS, size=30)
    assert served(db, peer) == served(db, control)
    assert served(db, owner)["vectors"] != []
    for query in ("quick fox", "lazy", "words"):
        found, expected = scores(drive, peer, query), scores(drive, control, query)
        assert found == expected
        assert any(keyword for keyword, _ in found.values())
    used = dict(db.all("select id, storage_used from public.owners"))
    assert (used[owner], used[peer], used[control]) == (7, 35, 35)
    right(db)


def test_what_is_left_behind_is_as_if_it_had_never_been_there(db: Database, drive: Drive) -> None:
    owner, peer, control = db.create_user(), db.create_user(), db.create_user()
    file = drive.file(owner, "a.txt", "quick brown fox", "lazy fox")["file_id"]
    drive.file(owner, "b.txt", "lazy fox", "stays")
    drive.file(control, "b.txt", "lazy fox", "stays")
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    move(drive, owner, file, theirs)
    mine, expected = served(db, owner), served(db, control)
    for what in ("vectors", "terms", "texts", "statistics"):
        assert mine[what] == expected[what], what
    right(db)


def test_the_new_owner_pays(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    drive.upload(owner, "b.txt", 60, folder_id=a)
    drive.upload(owner, "c.txt", 50, folder_id=a)
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    db.all("update public.owners set storage_limit = 100 where id = %s", peer)
    with refused("QUOTA_EXCEEDED", used=0, limit=100, requested=110) as found:
        move(drive, owner, a, theirs)
    assert [item["id"] for item in found["items"]] == [a]
    db.all("update public.owners set storage_limit = 110 where id = %s", peer)
    move(drive, owner, a, theirs)
    used = dict(db.all("select id, storage_used from public.owners"))
    assert (used[owner], used[peer]) == (0, 110)
    assert db.all(
        "select owner_id, sum(used) from private.quota_ledger where reason = 'transfer'"
        " group by owner_id order by 2"
    ) == [(owner, -110), (peer, 110)]
    right(db)


def test_bytes_that_stay_in_use_belong_to_both(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    first = drive.file(owner, "a.txt", "one", size=30)
    (sha,) = db.all("select sha256 from private.blobs")
    drive.ticket(owner, "b.txt", 30, sha256=sha)
    drive.ingest("one")
    assert db.one("select count(*) from private.blobs") == 1
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    move(drive, owner, first["file_id"], theirs)
    rows = db.all("select owner_id, key, size from private.blobs order by owner_id")
    assert rows == sorted((user, first["key"], 30) for user in (owner, peer))
    used = dict(db.all("select id, storage_used from public.owners"))
    assert (used[owner], used[peer]) == (30, 30)
    right(db)
    # and back: the same bytes are paid for once
    drive.rpc(peer, "move_nodes", ids=[first["file_id"]], target=None)
    mine = folder(drive, owner, "mine")
    drive.share(mine, peer, "edit")
    move(drive, peer, first["file_id"], mine)
    assert db.all("select owner_id, key from private.blobs") == [(owner, first["key"])]
    right(db)


def test_an_open_upload_keeps_its_owner(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    ticket = drive.ticket(owner, "b.txt", folder_id=a)
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    with refused("CONFLICT_STATE", id=a):
        move(drive, owner, a, theirs)
    drive.rpc(owner, "abort_upload", upload_id=ticket["upload_id"])
    move(drive, owner, a, theirs)
    right(db)


def test_versions_and_trash_go_along_to_the_new_owner(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    file = drive.file(owner, "c.txt", "first words", size=10, folder_id=a)
    drive.upload(owner, "c.txt", 20, file_id=file["file_id"])
    drive.ingest("second words")
    trashed = drive.file(owner, "d.txt", "trashed words", size=40, folder_id=a)["file_id"]
    drive.rpc(owner, "trash_nodes", ids=[trashed])
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "manage")
    move(drive, owner, a, theirs)
    used = dict(db.all("select id, storage_used from public.owners"))
    assert (used[owner], used[peer]) == (0, 70)
    assert versions_of(drive, peer, file) == [2, 1]
    right(db)


def test_pictures_go_along_with_what_they_show(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    ticket = drive.file(owner, "a.txt", "words", size=10)
    drive.rendition(ticket["version_id"])
    drive.rendition(ticket["version_id"], page=1)
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    drive.rpc(owner, "copy_nodes", ids=[ticket["file_id"]], target=theirs)
    used = "select id, storage_used from public.owners"
    assert dict(db.all(used))[peer] == dict(db.all(used))[owner] == 16
    move(drive, owner, ticket["file_id"], theirs, on_conflict="rename")
    assert (dict(db.all(used))[owner], dict(db.all(used))[peer]) == (0, 16)
    owners = db.all("select owner_id, count(*) from private.blobs group by owner_id")
    assert owners == [(peer, 3)]
    assert db.one("select count(*) from public.renditions") == 4
    right(db)
    drive.rpc(peer, "purge_nodes", ids=[ticket["file_id"]])
    assert dict(db.all(used))[peer] == 16  # the copy has them
    drive.rpc(peer, "purge_nodes", ids=[theirs])
    assert dict(db.all(used))[peer] == 0
    drive.clean_up()
    assert db.all("select key from private.blobs") == []
    right(db)


def test_ingestion_goes_on_with_the_new_owner(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    drive.upload(owner, "a.txt")
    theirs = folder(drive, peer, "theirs")
    drive.share(theirs, owner, "edit")
    (job,) = drive.claim()
    file = job["file_id"]
    move(drive, owner, file, theirs)
    drive.run_stage(job, ["late words"])
    drive.ingest("late words")
    assert [hit["file_id"] for hit in drive.search(peer, "late")["hits"]] == [file]
    right(db)


def test_a_version_for_another_owners_file(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    theirs = folder(drive, peer, "theirs")
    there = drive.file(peer, "a.txt", "old words", folder_id=theirs)
    drive.share(theirs, owner, "edit")
    mine = drive.file(owner, "a.txt", "new words", size=20)["file_id"]
    item = move(drive, owner, mine, theirs, on_conflict="version")
    assert item["version_of"] == there["file_id"]
    assert versions_of(drive, peer, there) == [2, 1]
    assert drive.search(peer, "new")["hits"]
    right(db)


def test_large_batches_are_one_transaction(connect: Callable[[], Drive]) -> None:
    """10,000 nodes below a folder; 100,000 are measured by scripts/bench."""
    drive = connect()
    owner = drive.db.create_user()
    a, target = folder(drive, owner, "a"), folder(drive, owner, "target")
    drive.db.all(
        "insert into public.nodes (id, kind, name, parent_id, owner_id, path)"
        " select i.id, 'folder', i.no::text, %s, %s, array[%s, i.id] from"
        " (select gen_random_uuid() as id, no from generate_series(1, 100) as no) as i",
        a,
        owner,
        a,
    )
    drive.db.all(
        "insert into public.nodes (id, kind, name, parent_id, owner_id, path)"
        " select i.id, 'file', i.no::text, n.id, n.owner_id, n.path || i.id"
        " from public.nodes as n cross join lateral (select gen_random_uuid() as id, no"
        " from generate_series(1, 100) as no where n.id is not null) as i"
        " where n.parent_id = %s",
        a,
    )
    move(drive, owner, a, target)
    assert drive.db.all(PATHS_ARE_WRONG) == []
    assert (
        drive.db.one("select count(*) from public.nodes where path[1] = %s::uuid", target) > 10000
    )
    assert drive.db.one("select count(*) from public.ingest_jobs") == 0
