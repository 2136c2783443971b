"""save_document: text becomes a file without its client ever speaking to Storage."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, refused, refused_by_storage
from tests.db.invariants import UNBALANCED
from tests.db.looks import quota_of


def save(drive: Drive, user: uuid.UUID, title: str = "Log", **more: Any) -> Any:
    return drive.rpc(user, "save_document", **{"title": title, "content": "the walrus"} | more)


def read(drive: Drive, content: str) -> None:
    """Ingest what was written; the bytes hash to what was promised."""
    (job,) = drive.claim()
    digest = hashlib.sha256(content.encode()).hexdigest()
    drive.work("finish_detect", job, digest, "text/plain", "text", None)
    drive.ingest(content)


def test_a_text_becomes_a_file_that_is_read_and_found(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    saved = save(drive, owner, content="der Walroß", metadata=Jsonb({"project": "north"}))
    assert saved["name"] == "Log.txt"
    details = drive.rpc(owner, "file_details", file_id=saved["file_id"])
    assert (details["status"], details["metadata"]) == ("uploading", {"project": "north"})
    assert quota_of(db, owner)[:2] == (0, 11)  # bytes of UTF-8

    assert drive.write_documents() == 1
    read(drive, "der Walroß")
    details = drive.rpc(owner, "file_details", file_id=saved["file_id"])
    assert (details["status"], details["mime"]) == ("ready", "text/plain")
    assert details["head_version_id"] == saved["version_id"]
    assert details["created_by"] == str(owner)
    assert quota_of(db, owner)[:2] == (11, 0)
    assert len(drive.search(owner, "walroß")["hits"]) == 1
    assert db.one("select count(*) from private.saved_documents") == 0
    assert db.all(UNBALANCED) == []
    with db.as_user(owner):
        assert db.all("select name from storage.objects") == [details["key"]]


@pytest.mark.parametrize(
    ("title", "name", "mime"),
    [
        ("Plan", "Plan.txt", "text/plain"),
        ("Plan.md", "Plan.md", "text/markdown"),
        ("v1.2", "v1.2.txt", "text/plain"),
        ("a.JSON", "a.JSON", "application/json"),
        ("setup.exe", "setup.exe.txt", "text/plain"),
    ],
)
def test_the_title_becomes_the_name(
    db: Database, drive: Drive, title: str, name: str, mime: str
) -> None:
    owner = db.create_user()
    saved = save(drive, owner, title)
    assert saved["name"] == name
    assert db.one("select mime from public.nodes where id = %s", saved["file_id"]) == mime


def test_a_name_that_is_taken_is_met_as_an_upload_meets_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = save(drive, owner, metadata=Jsonb({"a": 1}))
    drive.write_documents()
    read(drive, "the walrus")
    with refused("CONFLICT_NAME", existing_id=first["file_id"]):
        save(drive, owner, content="other")
    assert save(drive, owner, content="other", on_conflict="skip")["skipped"]
    assert save(drive, owner, content="o", on_conflict="rename")["name"] == "Log (2).txt"
    second = save(drive, owner, content="other", on_conflict="version")
    drive.write_documents()
    assert second["file_id"] == first["file_id"]
    details = drive.rpc(owner, "file_details", file_id=first["file_id"])
    assert [version["no"] for version in details["versions"]] == [2, 1]
    assert details["metadata"] == {"a": 1}
    assert db.all(UNBALANCED) == []


def test_what_the_owner_has_already_is_not_written_again(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    save(drive, owner)
    drive.write_documents()
    read(drive, "the walrus")
    assert save(drive, owner, "Again")["deduplicated"]
    assert drive.write_documents() == 0


def test_texts_that_cannot_be_saved(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    for field, arguments in (
        ("title", {"title": " "}),
        ("name", {"title": "a/b"}),
        ("content", {"content": None}),
        ("metadata", {"metadata": Jsonb([])}),
        ("on_conflict", {"on_conflict": "perhaps"}),
    ):
        with refused("INVALID_ARGUMENT", field=field):
            save(drive, owner, **arguments)
    db.all("update private.settings set value = '10' where key = 'documents.max_bytes'")
    save(drive, owner, "short", content="x" * 10)
    with refused("FILE_TOO_LARGE", limit=10, requested=12):
        save(drive, owner, content="ß" * 6)
    db.all("update public.owners set storage_limit = 15 where id = %s", owner)
    with refused("QUOTA_EXCEEDED", requested=6, reserved=10):
        save(drive, owner, content="y" * 6)
    folder = drive.rpc(owner, "create_folder", name="Mine")["id"]
    with refused("NOT_FOUND"):
        save(drive, stranger, folder_id=folder)
    drive.share(folder, stranger, "view")
    with refused("FORBIDDEN"):
        save(drive, stranger, folder_id=folder)
    with refused("NOT_AUTHENTICATED"):
        save(drive, None)  # type: ignore[arg-type]


def test_it_is_written_again_until_storage_has_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    save(drive, owner)
    claim = "select private.claim_documents(9)"
    with db.as_role("narwhal_worker"):
        assert len(db.all(claim)) == 1
        assert db.all(claim) == []
    db.all("update private.saved_documents set run_after = now()")
    assert drive.write_documents() == 1
    db.all("update private.saved_documents set run_after = now()")
    assert drive.write_documents() == 0


def write_late(drive: Drive, key: str) -> None:
    """As a worker that has claimed the document before."""
    with drive.db.as_service():
        drive.db.all(
            "insert into storage.objects (bucket_id, name, version, metadata)"
            " values ('files', %s, '2', '{\"size\": 10}')",
            key,
        )


def test_in_the_trash_it_waits_and_restored_it_is_written(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    saved = save(drive, owner)
    key = db.one("select key from public.uploads where version_id = %s", saved["version_id"])
    drive.rpc(owner, "trash_nodes", ids=[saved["file_id"]])
    assert drive.write_documents() == 0
    with refused_by_storage("NO_TICKET"):
        write_late(drive, key)
    assert quota_of(db, owner)[:2] == (0, 10)
    drive.rpc(owner, "restore_nodes", ids=[saved["file_id"]])
    assert drive.write_documents() == 1
    read(drive, "the walrus")
    assert len(drive.search(owner, "walrus")["hits"]) == 1
    assert db.all(UNBALANCED) == []


def test_purged_before_it_was_written_it_is_gone(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    saved, trashed = save(drive, owner), save(drive, owner, "Other", content="the whale")
    drive.rpc(owner, "trash_nodes", ids=[trashed["file_id"]])
    drive.rpc(owner, "purge_nodes", ids=[saved["file_id"], trashed["file_id"]])
    assert db.one("select count(*) from private.saved_documents") == 0
    assert drive.write_documents() == 0
    assert quota_of(db, owner)[:2] == (0, 0)
    drive.clean_up()
    assert db.one("select count(*) from public.nodes") == 0
    assert db.all(UNBALANCED) == []


def test_nobody_but_the_service_writes_a_saved_document(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    saved = save(drive, owner)
    key = db.one("select key from public.uploads where version_id = %s", saved["version_id"])
    for user in (stranger, None):
        with pytest.raises(Exception, match=r"row-level security|NO_TICKET"):
            drive.probe(user, key, 10)
