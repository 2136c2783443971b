"""The unpack stage: attachments become files inside of their mail, and share its fate."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, refused, refused_by_storage
from tests.db.invariants import UNBALANCED
from tests.db.looks import quota_of, status_of

MEMBERS = "select n.name from public.nodes as n where n.parent_id = %s order by n.name"


def run_mail(drive: Drive, text: str = "alpha") -> Any:
    """Run all that waits, as if every file were a mail; returns the unpack job that comes."""
    while jobs := drive.claim():
        (job,) = jobs
        if job["stage"] == "detect":
            digest = promised(drive, job) or uuid.UUID(job["version_id"]).hex * 2
            is_mail = job["name"].endswith(".eml")
            drive.work(
                "finish_detect", job, digest, *(
                    ("message/rfc822", "eml", None) if is_mail else ("text/plain", "text", None)
                ),
            )  # fmt: skip
        elif job["stage"] == "extract":
            page = {"page": 1, "text": text, "source": "text", "layout": {}}
            drive.work("finish_extract", job, "en", False, [page])
        elif job["stage"] == "chunk":
            drive.work("finish_chunk", job, chunk_rows([text]))
        elif job["stage"] == "unpack":
            return job
        else:
            drive.run_stage(job, [text])
    return None


def promised(drive: Drive, job: Any) -> Any:
    rows = drive.db.all(
        "select sha256 from public.uploads where version_id = %s", job["version_id"]
    )
    return rows[0] if rows else None


def begin(drive: Drive, job: Any, name: str, data: bytes = b"tide", **more: str) -> Any:
    return drive.work(
        "begin_member",
        job,
        more.get("member", name),
        name,
        len(data),
        "text/plain",
        hashlib.sha256(data).hexdigest(),
    )


def write(drive: Drive, place: Any, size: int = 4) -> None:
    """Storage's real write for the service: the object names nobody."""
    with drive.db.as_service():
        drive.db.all(
            "insert into storage.objects (bucket_id, name, version, metadata)"
            " values (%s, %s, '1', jsonb_build_object('size', %s::int))",
            place["bucket"],
            place["key"],
            size,
        )


def take(drive: Drive, job: Any, name: str, data: bytes = b"tide", **more: str) -> Any:
    """Take a member out as a worker does; returns where it was written, if anywhere."""
    place = begin(drive, job, name, data, **more)
    if place is not None:
        write(drive, place, len(data))
    return place


def mail(drive: Drive, owner: uuid.UUID, *names: str, **more: object) -> Any:
    """Upload a mail with these attachments and ingest them all; returns its id."""
    ticket = drive.upload(owner, "a.eml", **more)
    job = run_mail(drive)
    for name in names:
        take(drive, job, name, name.encode())
    drive.work("finish_unpack", job)
    assert run_mail(drive, "walrus") is None
    return ticket["file_id"]


def names(drive: Drive, owner: uuid.UUID, file: str) -> list[str]:
    return [m["name"] for m in drive.rpc(owner, "file_details", file_id=file)["members"]]


def test_attachments_are_files_inside_of_their_mail(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = mail(drive, owner, "plan.txt", "tide.txt")
    details = drive.rpc(owner, "file_details", file_id=file)
    assert [(m["name"], m["size"], m["status"]) for m in details["members"]] == [
        ("plan.txt", 8, "ready"),
        ("tide.txt", 8, "ready"),
    ]
    inside = drive.rpc(owner, "file_details", file_id=details["members"][0]["id"])
    assert (inside["path"], inside["created_by"]) == ("/a.eml/plan.txt", str(owner))
    hits = drive.search(owner, "walrus", embedding=None)["hits"]
    assert {hit["name"] for hit in hits} == {"plan.txt", "tide.txt"}
    assert quota_of(db, owner)[:2] == (26, 0)
    assert db.all(UNBALANCED) == []


def test_the_mail_is_ready_without_what_cannot_be_taken_out(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "a.eml")
    job = run_mail(drive)
    assert status_of(drive, owner, ticket) == "ready"
    for code, name in (("TYPE_NOT_ALLOWED", "run.exe"), ("INVALID_ARGUMENT", "a/b.txt")):
        with refused(code):
            begin(drive, job, name)
    db.all("update public.owners set storage_limit = 12 where id = %s", owner)
    with refused("QUOTA_EXCEEDED", requested=4):
        begin(drive, job, "a.txt")
    drive.work("finish_unpack", job, None, "These stay inside: run.exe")
    assert status_of(drive, owner, ticket) == "ready"
    with db.as_user(owner):
        row = (
            "select state, error_code, error_message from public.ingest_jobs where stage = 'unpack'"
        )
        assert db.one(row) == ("done", "members_refused", "These stay inside: run.exe")
    assert db.all(MEMBERS, ticket["file_id"]) == []


@pytest.mark.parametrize("how", ["killed before it wrote", "killed after it wrote"])
def test_a_lost_worker_doubles_and_loses_nothing(db: Database, drive: Drive, how: str) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "a.eml")
    lost = run_mail(drive)
    place = begin(drive, lost, "plan.txt")
    if how == "killed after it wrote":
        write(drive, place)
    db.all("update public.ingest_jobs set lease_expires_at = now() - interval '1 s'")
    job = run_mail(drive)
    with refused("CONFLICT_STATE", lease="lost"):
        begin(drive, lost, "late.txt")
    assert begin(drive, job, "plan.txt") == (place if how == "killed before it wrote" else None)
    if how == "killed before it wrote":
        write(drive, place)
    drive.work("finish_unpack", job)
    run_mail(drive)
    assert db.all(MEMBERS, ticket["file_id"]) == ["plan.txt"]
    assert quota_of(db, owner)[:2] == (14, 0)
    assert db.all(UNBALANCED) == []


def test_reading_it_again_leaves_alone_what_people_did(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = mail(drive, owner, "a.txt", "b.txt", "c.txt", "d.txt")
    ids = {m["name"]: m["id"] for m in drive.rpc(owner, "file_details", file_id=file)["members"]}
    drive.rpc(owner, "rename_node", id=ids["a.txt"], name="mine.txt")
    drive.rpc(owner, "trash_nodes", ids=[ids["b.txt"]])
    drive.rpc(owner, "move_nodes", ids=[ids["c.txt"]], target=None)
    drive.rpc(owner, "reprocess_file", file_id=file)
    job = run_mail(drive)
    assert [take(drive, job, name, name.encode()) for name in ids] == [None] * 4
    drive.work("finish_unpack", job)
    assert names(drive, owner, file) == ["d.txt", "mine.txt"]
    assert len(db.all("select id from public.nodes")) == 5
    # into a file nothing else comes
    with refused("INVALID_ARGUMENT", field="target"):
        drive.rpc(owner, "move_nodes", ids=[ids["c.txt"]], target=file)
    with refused("INVALID_ARGUMENT", field="folder_id"):
        drive.ticket(owner, "e.txt", folder_id=file)


def test_versions_of_the_mail_give_versions_of_what_is_inside(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = mail(drive, owner, "a.txt", "b.txt")
    first = db.one("select head_version_id from public.nodes where id = %s", file)
    drive.upload(owner, file_id=file, name=None)
    job = run_mail(drive)
    take(drive, job, "a.txt", b"changed")
    drive.work("finish_unpack", job)
    run_mail(drive)
    (inside,) = db.all("select id from public.nodes where name = 'a.txt'")
    sizes = "select v.size from public.file_versions as v where v.file_id = %s order by v.no"
    assert db.all(sizes, inside) == [5, 7]
    assert db.all(MEMBERS, file) == ["a.txt", "b.txt"]

    drive.rpc(owner, "restore_version", file_id=file, version_id=first)
    job = run_mail(drive)
    assert take(drive, job, "a.txt", b"a.txt") is None  # the owner has these bytes
    assert take(drive, job, "b.txt", b"b.txt") is None
    drive.work("finish_unpack", job)
    run_mail(drive)
    assert db.all(sizes, inside) == [5, 7, 5]
    assert db.all(UNBALANCED) == []


def test_what_the_mail_has_no_more_goes_to_the_trash(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = mail(drive, owner, "a.txt", "b.txt", "c.txt", "d.txt")
    ids = dict(db.all("select name, id from public.nodes where parent_id = %s", file))
    drive.upload(owner, file_id=str(ids["c.txt"]), name=None)  # somebody works on it
    drive.rpc(owner, "move_nodes", ids=[ids["d.txt"]], target=None)
    run_mail(drive)
    first = db.one("select head_version_id from public.nodes where id = %s", file)
    drive.upload(owner, file_id=file, name=None)
    job = run_mail(drive)
    take(drive, job, "a.txt", b"a.txt")
    assert drive.work("job_members", job)  # control: the lease is good
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work("finish_unpack", job | {"lease_token": str(uuid.uuid4())}, "{a.txt}")
    assert "b.txt" in db.all(MEMBERS, file)
    drive.work("finish_unpack", job, "{a.txt}")
    assert names(drive, owner, file) == ["a.txt", "c.txt"]
    (trashed,) = drive.rpc(owner, "list_trash")["items"]
    assert (trashed["name"], trashed["path"]) == ("b.txt", "/a.eml/b.txt")

    drive.rpc(owner, "restore_version", file_id=file, version_id=first)
    job = run_mail(drive)
    for name in ids:
        assert take(drive, job, name, name.encode()) is None
    drive.work("finish_unpack", job, f"{{{','.join(ids)}}}")
    run_mail(drive)
    assert names(drive, owner, file) == ["a.txt", "b.txt", "c.txt"]
    assert db.all(UNBALANCED) == []


def test_an_older_version_is_not_taken_apart(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "a.eml")
    job = run_mail(drive)
    assert drive.work("job_members", job) is True
    place = begin(drive, job, "a.txt", b"old")
    drive.upload(owner, file_id=ticket["file_id"], name=None)
    assert drive.work("job_members", job) is False
    drive.work("finish_unpack", job)
    job = run_mail(drive)
    take(drive, job, "a.txt", b"newer")
    with refused_by_storage("NO_TICKET"):  # the first worker comes too late
        write(drive, place, 3)
    drive.work("finish_unpack", job)
    run_mail(drive)
    assert db.all("select size from public.nodes where name = 'a.txt'") == [5]
    assert quota_of(db, owner)[1] == 0
    assert db.all(UNBALANCED) == []


def test_they_share_the_fate_of_their_mail(db: Database, drive: Drive) -> None:
    owner, peer, stranger = db.create_user(), db.create_user(), db.create_user()
    file = mail(drive, owner, "a.txt")
    (inside,) = drive.rpc(owner, "file_details", file_id=file)["members"]
    share = drive.share(file, peer)
    assert drive.rpc(peer, "file_details", file_id=inside["id"])["level"] == "view"
    with refused("NOT_FOUND"):
        drive.rpc(stranger, "file_details", file_id=inside["id"])
    drive.rpc(owner, "unshare_node", share_id=share)
    with refused("NOT_FOUND"):
        drive.rpc(peer, "file_details", file_id=inside["id"])

    drive.rpc(owner, "trash_nodes", ids=[file])
    assert drive.search(owner, "walrus", embedding=None)["hits"] == []
    drive.rpc(owner, "restore_nodes", ids=[file])
    assert [hit["name"] for hit in drive.search(owner, "walrus", embedding=None)["hits"]] == [
        "a.txt"
    ]
    folder = drive.rpc(owner, "create_folder", name="Mail")["id"]
    drive.rpc(owner, "move_nodes", ids=[file], target=folder)
    assert drive.rpc(owner, "file_details", file_id=inside["id"])["path"] == "/Mail/a.eml/a.txt"
    totals = drive.rpc(owner, "file_details", file_id=folder)
    assert (totals["child_count"], totals["total_size"]) == (1, 15)
    drive.rpc(owner, "trash_nodes", ids=[file])
    drive.rpc(owner, "purge_nodes", ids=[file])
    assert quota_of(db, owner)[:2] == (0, 0)
    drive.clean_up()
    assert db.all("select name from public.nodes") == ["Mail"]
    assert db.one("select count(*) from storage.objects") == 0
    assert db.all(UNBALANCED) == []


def test_trashed_on_its_way_it_comes_when_the_mail_is_back(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, "a.eml")
    job = run_mail(drive)
    place = begin(drive, job, "a.txt")
    drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]])
    with refused_by_storage("NO_TICKET"):
        write(drive, place)
    assert quota_of(db, owner)[1] == 0
    drive.rpc(owner, "restore_nodes", ids=[ticket["file_id"]])
    job = run_mail(drive)
    take(drive, job, "a.txt")
    drive.work("finish_unpack", job)
    run_mail(drive)
    assert db.all(MEMBERS, ticket["file_id"]) == ["a.txt"]
    assert db.all(UNBALANCED) == []


def test_a_copy_has_them_once(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    file = mail(drive, owner, "a.txt", "b.txt")
    (made,) = drive.rpc(owner, "copy_nodes", ids=[file], on_conflict="rename")["items"]
    job = run_mail(drive)
    assert job["file_id"] == made["id"]
    assert [take(drive, job, name, name.encode()) for name in ("a.txt", "b.txt")] == [None, None]
    drive.work("finish_unpack", job)
    assert run_mail(drive) is None
    assert db.all(MEMBERS, made["id"]) == ["a.txt", "b.txt"]
    assert quota_of(db, owner)[:2] == (20, 0)
    assert db.all(UNBALANCED) == []


def test_mail_in_mail_is_taken_apart_to_a_depth(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.upload(owner, "0.eml")
    for depth in range(1, 4):
        job = run_mail(drive)
        take(drive, job, f"{depth}.eml", b"mail %d" % depth)
        drive.work("finish_unpack", job)
    assert run_mail(drive) is None
    (deepest,) = db.all("select id from public.nodes where name = '3.eml'")
    assert drive.rpc(owner, "file_details", file_id=deepest)["path"] == "/0.eml/1.eml/2.eml/3.eml"


def test_whoever_lost_the_right_to_write_leaves_it_to_the_owner(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="Mail")["id"]
    share = drive.share(folder, peer, "edit")
    drive.upload(peer, "a.eml", folder_id=folder)
    job = run_mail(drive)
    take(drive, job, "a.txt")
    drive.rpc(owner, "unshare_node", share_id=share)
    take(drive, job, "b.txt", b"ebb")
    assert db.all(
        "select created_by from public.nodes where name in ('a.txt', 'b.txt') order by name"
    ) == [
        peer,
        owner,
    ]
