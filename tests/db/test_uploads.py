"""The ticket contract: what begin_upload and Storage's two writes decide."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, denied, refused, refused_by_storage
from tests.db.looks import (
    quota_of,
    versions_of,
)

MIB = 2**20


def test_a_ticket_says_where_and_how(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    small = drive.ticket(owner, "small.pdf", 6 * MIB, mime="application/pdf")
    large = drive.ticket(owner, "large.pdf", 6 * MIB + 1)
    assert (small["mode"], large["mode"]) == ("standard", "tus")
    assert large["chunk_size"] == 6 * MIB
    assert small["bucket"] == "files"
    assert small["key"] == f"{owner}/{small['file_id']}/{small['version_id']}"
    assert small["mime"] == "application/pdf"
    assert small["deduplicated"] is False
    with db.as_user(owner):
        state = db.one(
            "select state, bytes_received from public.uploads where id = %s", small["upload_id"]
        )
    assert state == ("open", 0)
    empty = drive.upload(owner, "empty.txt", 0)
    assert drive.rpc(owner, "file_details", file_id=empty["file_id"])["status"] == "queued"


# Who may ask -------------------------------------------------------------------------------------


def test_levels_decide_who_may_upload_where(db: Database, drive: Drive) -> None:
    owner, peer, stranger = db.create_user(), db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    file = drive.upload(owner, "a.pdf", folder_id=folder)["file_id"]

    for arguments in ({"folder_id": folder}, {"file_id": file}):
        with refused("NOT_FOUND"):
            drive.ticket(stranger, "b.pdf", **arguments)
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(None, "begin_upload", name="b.pdf", size=1, **arguments)
    with refused("NOT_FOUND"):
        drive.ticket(stranger, "b.pdf", folder_id=uuid.uuid4())

    drive.share(folder, peer, "view")
    for arguments in ({"folder_id": folder}, {"file_id": file}):
        with refused("FORBIDDEN", level="view", required="edit"):
            drive.ticket(peer, "b.pdf", **arguments)

    db.all("update public.shares set level = 'edit' where grantee_id = %s", peer)
    ticket = drive.upload(peer, "b.pdf", 100, folder_id=folder)
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert details["owner_id"] == str(owner)  # the folder's owner pays
    assert details["created_by"] == str(peer)
    assert details["quota"]["used"] == 110
    assert quota_of(db, peer)[:2] == (0, 0)


def test_a_viewer_and_a_closed_account_get_no_ticket(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.ticket(owner)
    db.all("update public.user_profiles set role = 'viewer' where id = %s", owner)
    with refused("FORBIDDEN", role="viewer"):
        drive.ticket(owner, "b.pdf")
    db.all("update public.user_profiles set role = 'user' where id = %s", owner)
    assert drive.ticket(owner, "b.pdf")["upload_id"]
    assert drive.probed(owner, ticket["key"], 10)

    db.all("update public.user_profiles set is_active = false where id = %s", owner)
    with refused("NOT_AUTHENTICATED"):
        drive.ticket(owner, "c.pdf")
    with refused_by_storage("NO_TICKET"):
        drive.probe(owner, ticket["key"], 10)
    with refused_by_storage("NO_TICKET"):
        drive.store(owner, ticket["key"], 10)


# What Storage may write --------------------------------------------------------------------------


def test_nothing_is_stored_without_an_open_ticket_of_ones_own(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    mine, expired, aborted = (drive.ticket(owner, f"{i}.txt") for i in range(3))
    db.all("update public.uploads set expires_at = now() where id = %s", expired["upload_id"])
    drive.rpc(owner, "abort_upload", upload_id=aborted["upload_id"])
    own_prefix = f"{stranger}/{uuid.uuid4()}/{uuid.uuid4()}"

    for user, key in (
        (owner, "free.txt"),
        (stranger, mine["key"]),
        (stranger, own_prefix),
        (None, mine["key"]),
        (owner, expired["key"]),
        (owner, aborted["key"]),
    ):
        with refused_by_storage("NO_TICKET"):
            drive.probe(user, key, 10)
        if user:
            with refused_by_storage("NO_TICKET"):
                drive.store(user, key, 10)
    assert drive.probed(owner, mine["key"], 10)
    drive.store(owner, mine["key"], 10)


def test_another_bucket_is_not_ours_to_open(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    key = drive.ticket(owner)["key"]
    db.all("insert into storage.buckets (id, name) values ('other', 'other')")
    with denied(), db.as_user(owner):
        db.all("insert into storage.objects (bucket_id, name) values ('other', %s)", key)
    assert drive.probed(owner, key, 10)


def test_more_bytes_than_promised_are_refused_at_the_door_and_at_the_end(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    ticket = drive.ticket(owner, size=1000)
    assert drive.probed(owner, ticket["key"], 1000 + 65536)  # the envelope of a form
    with refused_by_storage("FILE_TOO_LARGE"):
        drive.probe(owner, ticket["key"], 1000 + 65537)
    with refused_by_storage("FILE_TOO_LARGE"):
        drive.store(owner, ticket["key"], 1001)
    assert quota_of(db, owner)[:2] == (0, 1000)
    drive.store(owner, ticket["key"], 999)  # fewer are kept as they are
    assert quota_of(db, owner)[:2] == (999, 0)
    assert drive.rpc(owner, "file_details", file_id=ticket["file_id"])["size"] == 999


def test_a_file_above_the_limit_gets_no_ticket(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("update private.settings set value = '1000' where key = 'uploads.max_size'")
    with refused("FILE_TOO_LARGE", limit=1000, requested=1001):
        drive.ticket(owner, size=1001)
    assert drive.ticket(owner, size=1000)["upload_id"]


def test_a_repeated_upload_meets_storages_own_conflict(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    ticket = drive.upload(owner)
    with denied("23505"):
        drive.probe(owner, ticket["key"], 10)
    with refused_by_storage("NO_TICKET"):
        drive.probe(stranger, ticket["key"], 10)
    assert versions_of(drive, owner, ticket) == [1]


def test_the_second_of_two_uploads_with_one_ticket_changes_nothing(
    db: Database, drive: Drive
) -> None:
    """Both passed the permission test while the ticket was open; Storage's real write upserts."""
    owner = db.create_user()
    ticket = drive.upload(owner, size=10)
    before = db.all("select version, metadata from storage.objects")
    with refused_by_storage("CONFLICT_STATE"):
        drive.store(owner, ticket["key"], 9)
    assert db.all("select version, metadata from storage.objects") == before
    assert len(before) == 1
    with db.as_service():  # control: a worker may move an object to another key
        db.all("update storage.objects set name = 'elsewhere', version = 'moved'")


def test_of_two_uploads_that_end_at_once_one_wins(connect: Callable[[], Drive]) -> None:
    drives = [connect() for _ in range(8)]
    first = drives[0]
    owner = first.db.create_user()
    start = Barrier(len(drives))
    for number in range(5):
        ticket = first.ticket(owner, f"{number}.txt", 100)

        def end(place: int, key: str = ticket["key"]) -> tuple[int, str]:
            start.wait()
            try:
                drives[place].store(owner, key, place)
            except psycopg.Error as error:
                return place, str(error.diag.message_primary).split(":")[0]
            return place, "stored"

        with ThreadPoolExecutor(len(drives)) as pool:
            answers = list(pool.map(end, range(len(drives))))
        (winner,) = (place for place, answer in answers if answer == "stored")
        assert {answer for _, answer in answers} == {"stored", "narwhal/CONFLICT_STATE"}
        size = "select (metadata ->> 'size')::int from storage.objects where name = %s"
        assert first.db.one(size, ticket["key"]) == winner
        size = "select size from private.blobs where key = %s"
        assert first.db.one(size, ticket["key"]) == winner


def test_clients_can_neither_replace_nor_remove_an_object(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner)
    with db.as_user(owner):
        assert db.all("update storage.objects set metadata = '{}' returning id") == []
        assert len(db.all("select id from storage.objects")) == 1
    with denied(), db.as_user(owner):  # an upsert
        db.all(
            "insert into storage.objects (bucket_id, name, metadata) values"
            " ('files', %s, '{\"contentLength\": 1}')"
            " on conflict (name, bucket_id) do update set metadata = excluded.metadata",
            ticket["key"],
        )
    with db.as_user(owner):
        db.all("select set_config('storage.allow_delete_query', 'true', true)")
        assert (
            db.all("delete from storage.objects where name = %s returning id", ticket["key"]) == []
        )


def test_an_upload_ends_when_its_folder_goes_to_the_trash(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    new = drive.ticket(owner, "new.txt", 100, folder_id=folder)
    old = drive.upload(owner, "old.txt", 7, folder_id=folder)
    version = drive.ticket(owner, "old.txt", 50, file_id=old["file_id"])
    assert quota_of(db, owner)[:2] == (7, 150)
    drive.rpc(owner, "trash_nodes", ids=[folder])
    assert quota_of(db, owner)[:2] == (7, 0)
    for ticket in (new, version):
        with refused_by_storage("NO_TICKET"):
            drive.probe(owner, ticket["key"], 10)
        with refused_by_storage("NO_TICKET"):
            drive.store(owner, ticket["key"], 10)
    assert (
        db.one("select state from public.uploads where id = %s", version["upload_id"]) == "aborted"
    )


def test_an_uploader_who_lost_the_right_is_stopped(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "edit")
    ticket = drive.ticket(peer, "a.txt", folder_id=folder)
    assert drive.probed(peer, ticket["key"], 10)
    db.all("update public.shares set level = 'view'")
    with refused_by_storage("FORBIDDEN"):
        drive.probe(peer, ticket["key"], 10)


# The same bytes again ----------------------------------------------------------------------------


def test_bytes_that_the_owner_has_need_no_upload(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.txt", 10)
    claimed = uuid.UUID(first["version_id"]).hex * 2  # what the tests' worker will compute
    early = drive.ticket(owner, "b.txt", 10, sha256=claimed)
    assert early["deduplicated"] is False  # nobody has verified it yet
    drive.ingest("hello there")

    again = drive.ticket(owner, "c.txt", 10, sha256=claimed)
    assert again["deduplicated"] is True
    assert again["file_id"] not in (first["file_id"], early["file_id"])
    assert "key" not in again
    details = drive.rpc(owner, "file_details", file_id=again["file_id"])
    assert details["key"] == first["key"]
    assert (details["status"], details["size"], details["quota"]["used"]) == ("queued", 10, 10)
    drive.ingest("hello there")
    assert {hit["name"] for hit in drive.search(owner, "hello there")["hits"]} == {"a.txt", "c.txt"}
    with db.as_user(owner):
        assert len(db.all("select name from storage.objects")) == 1

    for other in ({"size": 11, "sha256": claimed}, {"size": 10, "sha256": "0" * 64}):
        assert drive.ticket(owner, "d.txt", **other, on_conflict="rename")["deduplicated"] is False


def test_a_hash_opens_nothing_of_other_owners(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    first = drive.file(owner, "a.txt", "hello there", size=10)
    known = uuid.UUID(first["version_id"]).hex * 2
    assert drive.ticket(stranger, "b.txt", 10, sha256=known)["deduplicated"] is False
    assert drive.ticket(owner, "b.txt", 10, sha256=known)["deduplicated"] is True


def test_a_hash_opens_no_unshared_file_to_an_editor_of_another_folder(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    secret = drive.file(owner, "secret.txt", "hello there", size=10)
    known = uuid.UUID(secret["version_id"]).hex * 2
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer, "edit")
    ticket = drive.ticket(peer, "b.txt", 10, sha256=known, folder_id=folder)
    assert ticket["deduplicated"] is False
    # control: what the peer can read anyway needs no upload
    drive.share(secret["file_id"], peer, "view")
    ticket = drive.ticket(peer, "c.txt", 10, sha256=known, folder_id=folder)
    assert ticket["deduplicated"] is True


def test_a_blob_lives_as_long_as_one_version_uses_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.txt", "hello there", size=10)
    known = uuid.UUID(first["version_id"]).hex * 2
    second = drive.ticket(owner, "b.txt", 10, sha256=known)
    drive.rpc(owner, "purge_nodes", ids=[first["file_id"]])
    assert quota_of(db, owner)[:2] == (10, 0)
    drive.clean_up()
    assert db.all("select name from storage.objects") == [first["key"]]
    assert drive.rpc(owner, "file_details", file_id=second["file_id"])["key"] == first["key"]
    drive.rpc(owner, "purge_nodes", ids=[second["file_id"]])
    assert quota_of(db, owner)[:2] == (0, 0)
    # what is on its way out is nobody's any more
    assert drive.ticket(owner, "c.txt", 10, sha256=known)["deduplicated"] is False
    drive.clean_up()
    assert db.all("select name from storage.objects") == []


def test_a_promise_that_the_bytes_break_fails_the_version(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, sha256="0" * 64)
    drive.ingest("x")
    problem = drive.rpc(owner, "file_details", file_id=ticket["file_id"])["problem"]
    assert problem["error_code"] == "corrupt"


@pytest.mark.parametrize("end", ["abort", "trash", "expire"])
def test_a_ticket_that_ended_without_bytes_still_says_how(
    db: Database, drive: Drive, end: str
) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="inbox")
    ticket = drive.ticket(owner, folder_id=folder["id"])
    if end == "abort":
        drive.rpc(owner, "abort_upload", upload_id=ticket["upload_id"])
    elif end == "trash":
        drive.rpc(owner, "trash_nodes", ids=[folder["id"]])
    else:
        db.all("update public.uploads set expires_at = now() - interval '1 s'")
        db.all("select private.expire_uploads()")

    with db.as_user(owner):
        assert db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == (
            "expired" if end == "expire" else "aborted"
        )
        assert db.one("select id from public.nodes where id = %s", ticket["file_id"]) is None
