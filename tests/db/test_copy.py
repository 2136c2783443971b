"""Copying: the same content again, without its bytes, its reading or its past."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.looks import versions_of
from tests.db.test_move import WORDS, folder, path_of, right, scores, served, workspace


def copy(drive: Drive, user: uuid.UUID, node: str, target: str | None, **more: Any) -> Any:
    """Copy one node and return its item."""
    (item,) = drive.rpc(user, "copy_nodes", ids=[node], target=target, **more)["items"]
    return item


def tree(db: Database, top: str) -> list[tuple[Any, ...]]:
    """Names, kinds and contents of what lives below a node, by path."""
    return db.all(  # type: ignore[no-any-return]
        "select (select string_agg(case when a.id = %s::uuid then '' else a.name end, '/'"
        " order by cardinality(a.path)) from public.nodes as a"
        " where a.id = any(n.path) and a.path @> array[%s::uuid]) as place,"
        " n.kind, n.size, n.status, b.key from public.nodes as n"
        " left join public.file_versions as v on v.id = n.head_version_id"
        " left join private.blobs as b on b.id = v.blob_id"
        " where n.path @> array[%s::uuid] and n.trashed_at is null order by 1",
        top,
        top,
        top,
    )


def test_a_copy_is_found_like_its_source_and_costs_nothing(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a, target = folder(drive, owner, "a"), folder(drive, owner, "target")
    b = folder(drive, owner, "b", a)
    file = drive.file(owner, "c.txt", *WORDS, size=30, folder_id=b)
    unread = drive.upload(owner, "unread.bin", 5, folder_id=a)["file_id"]
    db.all("update public.ingest_jobs set state = 'done' where file_id = %s", unread)
    objects = db.all("select o::text from storage.objects as o order by id")
    jobs = db.one("select count(*) from public.ingest_jobs where state = 'queued'")
    item = copy(drive, owner, b, target)
    assert item["source_id"] == b != item["id"]
    assert (item["name"], item["parent_id"], item["skipped"]) == ("b", target, False)
    (_, found) = tree(db, item["id"])
    assert found == ("/c.txt", "file", 30, "ready", file["key"])
    assert db.one("select count(*) from public.ingest_jobs where state = 'queued'") == jobs
    assert db.all("select o::text from storage.objects as o order by id") == objects
    assert db.one("select storage_used from public.owners where id = %s", owner) == 35
    hits = drive.search(owner, "quick fox")["hits"]
    assert {"/a/b/c.txt", "/target/b/c.txt"} <= {hit["path"] for hit in hits}
    assert db.one("select count(distinct created_by) from public.nodes") == 1
    right(db)


def test_a_copy_has_no_past_and_no_shares(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    file = drive.file(owner, "a.txt", "first words")
    drive.upload(owner, "a.txt", 20, file_id=file["file_id"])
    drive.ingest("second words")
    drive.share(file["file_id"], peer)
    item = copy(drive, owner, file["file_id"], None, on_conflict="rename")
    assert item["name"] == "a (2).txt"
    details = drive.rpc(owner, "file_details", file_id=item["id"])
    assert [(v["no"], v["size"]) for v in details["versions"]] == [(1, 20)]
    assert details["shares"] == []
    assert versions_of(drive, owner, file) == [2, 1]
    assert len(drive.search(owner, "second")["hits"]) == 2
    assert drive.search(owner, "first", embedding=None)["hits"] == []
    with refused("NOT_FOUND"):
        drive.rpc(peer, "file_details", file_id=item["id"])
    # they are apart from now on
    drive.upload(owner, "a.txt", 40, file_id=item["id"])
    drive.ingest("third words")
    assert versions_of(drive, owner, file) == [2, 1]
    assert db.one("select storage_used from public.owners where id = %s", owner) == 70
    right(db)


def test_a_folder_copied_into_itself_holds_what_it_held(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a = folder(drive, owner, "a")
    b = folder(drive, owner, "b", a)
    drive.file(owner, "c.txt", "words", folder_id=b)
    before = tree(db, a)
    item = copy(drive, owner, a, b)
    assert tree(db, item["id"]) == before
    assert db.one("select count(*) from public.nodes") == 6
    assert path_of(drive, owner, item["id"]) == "/a/b/a"
    with refused("CONFLICT_NAME"):
        copy(drive, owner, b, a)
    assert copy(drive, owner, b, a, on_conflict="rename")["name"] == "b (2)"
    right(db)


def test_only_what_lives_and_has_content_is_copied(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a, target = folder(drive, owner, "a"), folder(drive, owner, "target")
    gone = drive.file(owner, "gone.txt", "gone words", folder_id=a)["file_id"]
    drive.rpc(owner, "trash_nodes", ids=[gone])
    waiting = drive.ticket(owner, "waiting.txt", folder_id=a)["file_id"]
    queued = drive.upload(owner, "queued.txt", 7, folder_id=a)
    item = copy(drive, owner, a, target)
    assert [place for place, *_ in tree(db, item["id"])] == ["", "/queued.txt"]
    assert db.one("select count(*) from public.ingest_jobs where state = 'queued'") == 2
    drive.ingest("late words")
    assert len(drive.search(owner, "late")["hits"]) == 2
    with refused("CONFLICT_STATE", id=waiting):
        copy(drive, owner, waiting, target)
    with refused("NOT_FOUND", id=gone):
        copy(drive, owner, gone, target)
    assert versions_of(drive, owner, queued) == [1]
    right(db)


def test_a_reader_copies_and_pays(db: Database, drive: Drive) -> None:
    owner, peer, control = db.create_user(), db.create_user(), db.create_user()
    a = folder(drive, owner, "a")
    file = drive.file(owner, "c.txt", *WORDS, size=30, folder_id=a)
    with refused("NOT_FOUND", id=a):
        copy(drive, peer, a, None)
    drive.share(a, peer)
    with refused("FORBIDDEN", id=a, required="edit"):
        copy(drive, peer, file["file_id"], a, on_conflict="rename")
    db.all("update public.owners set storage_limit = 29 where id = %s", peer)
    with refused("QUOTA_EXCEEDED", requested=30, limit=29):
        copy(drive, peer, a, None)
    db.all("update public.owners set storage_limit = 30 where id = %s", peer)
    item = copy(drive, peer, a, None)
    copy(drive, peer, file["file_id"], None)  # the same bytes are paid for once
    used = dict(db.all("select id, storage_used from public.owners"))
    assert (used[owner], used[peer]) == (30, 30)
    assert db.all("select key from private.blobs where owner_id = %s", peer) == [file["key"]]
    copied = db.one("select id::text from public.nodes where parent_id = %s", item["id"])
    drive.rpc(peer, "purge_nodes", ids=[copied])
    drive.clean_up()
    drive.file(control, "c.txt", *WORDS, size=30)
    for what, rows in served(db, control).items():
        assert served(db, peer)[what] == rows, what
    drive.rpc(owner, "purge_nodes", ids=[a])
    drive.clean_up()
    assert scores(drive, peer, "quick fox") == scores(drive, control, "quick fox")
    assert db.all("select owner_id from private.blobs where key = %s", file["key"]) == [peer]
    assert db.one("select count(*) from storage.objects where name = %s", file["key"]) == 1
    right(db)


def test_a_copy_in_a_workspace_is_the_workspaces(db: Database, drive: Drive) -> None:
    editor = db.create_user()
    team, root = workspace(db, **{str(editor): "edit"})
    file = drive.file(editor, "a.txt", "words", size=9)["file_id"]
    item = copy(drive, editor, file, root)
    assert db.one("select owner_id from public.nodes where id = %s", item["id"]) == team
    assert db.one("select storage_used from public.owners where id = %s", team) == 9
    back = copy(drive, editor, root, None)  # the whole of it
    assert path_of(drive, editor, back["id"]) == "/Team"
    right(db)


Clash = tuple[uuid.UUID, str, Any, Any]


@pytest.fixture
def clash(db: Database, drive: Drive) -> Clash:
    """Two files of the same name, one in a folder, ingested."""
    owner = db.create_user()
    target = folder(drive, owner, "target")
    there = drive.file(owner, "A.txt", "old words", folder_id=target)
    return owner, target, there, drive.file(owner, "a.txt", "new words", size=20)


def test_a_taken_name_is_handled_as_asked(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, there, mine = clash
    with refused("CONFLICT_NAME", existing_id=there["file_id"], suggested="a (2).txt"):
        copy(drive, owner, mine["file_id"], target)
    item = copy(drive, owner, mine["file_id"], target, on_conflict="skip")
    assert (item["id"], item["skipped"]) == (None, True)
    item = copy(drive, owner, mine["file_id"], target, on_conflict="rename")
    assert (item["name"], item["parent_id"]) == ("a (2).txt", target)
    item = copy(drive, owner, mine["file_id"], target, on_conflict="version")
    assert (item["id"], item["version_of"]) == (there["file_id"], there["file_id"])
    assert versions_of(drive, owner, there) == [2, 1]
    assert path_of(drive, owner, mine["file_id"]) == "/a.txt"
    right(db)
    item = copy(drive, owner, mine["file_id"], target, on_conflict="replace")
    assert item["replaced_id"] == there["file_id"]
    assert path_of(drive, owner, item["id"]) == "/target/a.txt"
    with refused("NOT_FOUND"):
        drive.rpc(owner, "file_details", file_id=there["file_id"])
    right(db)


@pytest.mark.parametrize("policy", ["replace", "version", "fail"])
def test_nothing_is_copied_over_itself(
    db: Database, drive: Drive, clash: Clash, policy: str
) -> None:
    owner, _, _, mine = clash
    with refused("CONFLICT_NAME", existing_id=mine["file_id"]):
        copy(drive, owner, mine["file_id"], None, on_conflict=policy)
    assert copy(drive, owner, mine["file_id"], None, on_conflict="skip")["skipped"]


def test_a_batch_copies_all_or_nothing(db: Database, drive: Drive, clash: Clash) -> None:
    owner, target, _, mine = clash
    missing = str(uuid.uuid4())
    with refused("CONFLICT_NAME") as found:
        drive.rpc(
            owner,
            "copy_nodes",
            ids=[folder(drive, owner, "fine"), mine["file_id"], missing],
            target=target,
        )
    assert [(item["id"], item["error"]) for item in found["items"]] == [
        (mine["file_id"], "CONFLICT_NAME"),
        (missing, "NOT_FOUND"),
    ]
    assert db.one("select count(*) from public.nodes where parent_id = %s", target) == 1
