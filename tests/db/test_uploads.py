"""The ticket contract: what begin_upload, Storage's two writes and the sweep decide."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, denied, refused, refused_by_storage
from tests.db.invariants import UNBALANCED

MIB = 2**20

ACCEPTED = {
    "plain": "plain.pdf",
    "Arabic": "تقرير.pdf",
    "Devanagari": "रिपोर्ट.pdf",
    "a drive letter": "C:",
    "a name reserved by Windows": "nul.txt",
    "a dotfile": ".htaccess",
    "a trailing dot and space": "trailing. ",
    "SQL": "a'; DROP TABLE files;--.pdf",
    "a shell's": "$(id).pdf",
    "backticks": "`id`.pdf",
    "percent signs": "%2e%2e%2fetc%2fpasswd",
    "a URL's": "a?b#c&d=e.pdf",
    "wildcards": "a:b*c|d.pdf",
    "only an extension": ".pdf",
    "a logger's": "${jndi:ldap:}.pdf",
    "a formula": "=cmd|calc.csv",
    "255 bytes": "字" * 83 + "ab.pdf",
    "an emoji": "👩‍👩‍👧.txt",
}
REFUSED = {
    "nothing": "",
    "a space": " ",
    "spaces that look like none": "\u00a0\u3000\u200b",
    "dot": ".",
    "dotdot": "..",
    "traversal": "../../etc/passwd",
    "Windows' traversal": "..\\..\\windows\\win.ini",
    "a slash": "a/b.pdf",
    "two slashes": "a//b.pdf",
    "CRLF": "a\r\nSet-Cookie: x=1.pdf",
    "ANSI": "a\u001b[31m.pdf",
    "a C1 control": "a\u0085b.pdf",
    "a right-to-left override": "invoice\u202efdp.exe",
    "an isolate": "invoice\u2067fdp.exe",
    "a line separator": "a\u2028b.pdf",
    "304 bytes": "字" * 100 + ".pdf",
    "5000 bytes": "x" * 4996 + ".pdf",
}


@pytest.mark.parametrize("why", ACCEPTED)
def test_a_name_is_kept_as_given(db: Database, drive: Drive, why: str) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, ACCEPTED[why])
    assert ticket["name"] == ACCEPTED[why]
    assert drive.rpc(owner, "file_details", file_id=ticket["file_id"])["name"] == ACCEPTED[why]
    assert ticket["key"].isascii()


@pytest.mark.parametrize("why", REFUSED)
def test_a_name_that_misleads_is_refused(db: Database, drive: Drive, why: str) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="name"):
        drive.ticket(owner, REFUSED[why])
    with refused("INVALID_ARGUMENT", field="name"):
        drive.rpc(owner, "create_folder", name=REFUSED[why])
    assert drive.ticket(owner, "fine.pdf")["file_id"]


@pytest.mark.parametrize(
    "name",
    [
        "setup.exe",
        "SETUP.EXE",
        "setup.exe.",
        "setup.exe. . ",
        "setup.exe\u00a0",
        "setup.exe\u200b",
        "setup.\uff45\uff58\uff45",
        "report.pdf.scr",
        "a.tar.exe",
        "a b.com",
        ".exe",
        "mal.ps1",
        "archive.jar",
    ],
)
def test_an_executable_is_refused_however_it_is_written(
    db: Database, drive: Drive, name: str
) -> None:
    owner = db.create_user()
    with refused("TYPE_NOT_ALLOWED"):
        drive.ticket(owner, name)
    assert drive.ticket(owner, name + ".txt")["file_id"]  # control: as text it is only a name
    assert drive.ticket(owner, "exe")["file_id"]


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("size", {"size": None}),
        ("size", {"size": -1}),
        ("sha256", {"sha256": "abc"}),
        ("sha256", {"sha256": "A" * 64}),
        ("on_conflict", {"on_conflict": "replace"}),
        ("on_conflict", {"on_conflict": None}),
    ],
)
def test_an_argument_that_cannot_be_meant_is_named(
    db: Database, drive: Drive, field: str, arguments: dict[str, Any]
) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, "begin_upload", **{"name": "a.txt", "size": 1} | arguments)
    assert drive.rpc(owner, "begin_upload", name="a.txt", size=1)["upload_id"]


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


# Names that exist --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "suggested"),
    [
        ("a.pdf", "a.pdf", "a (2).pdf"),
        ("Résumé 简历.pdf", "Résumé 简历.pdf", "Résumé 简历 (2).pdf"),
        ("r\u00e9sum\u00e9.pdf", "re\u0301sume\u0301.pdf", "re\u0301sume\u0301 (2).pdf"),
        ("File.PDF", "file.pdf", "file (2).pdf"),
        ("ÄÖ.txt", "äö.txt", "äö (2).txt"),
        ("a (2).pdf", "a (2).pdf", "a (3).pdf"),
        ("backup.tar.gz", "backup.tar.gz", "backup (2).tar.gz"),
        ("noextension", "noextension", "noextension (2)"),
        (".pdf", ".pdf", ".pdf (2)"),
        ("字" * 83 + "ab.pdf", "字" * 83 + "ab.pdf", "字" * 82 + " (2).pdf"),
    ],
)
def test_a_taken_name_gets_a_suggestion_that_rename_gives(
    db: Database, drive: Drive, first: str, second: str, suggested: str
) -> None:
    owner = db.create_user()
    taken = drive.upload(owner, first)
    if first == "a (2).pdf":
        drive.upload(owner, "a.pdf")  # so that the plain name is not free
    with refused("CONFLICT_NAME", existing_id=taken["file_id"], suggested=suggested):
        drive.ticket(owner, second)
    assert drive.ticket(owner, second, on_conflict="rename")["name"] == suggested
    again = drive.ticket(owner, second, on_conflict="keep_both")["name"]  # an alias
    assert again not in (first, second, suggested)
    assert "(2) (" not in again  # suffixes never stack


def test_a_folder_and_a_file_share_one_namespace(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="Plans")
    for on_conflict in ("fail", "version"):
        with refused("CONFLICT_NAME", existing_id=folder["id"], suggested="plans (2)"):
            drive.ticket(owner, "plans", on_conflict=on_conflict)
    drive.ticket(owner, "plans", on_conflict="rename")
    with refused("CONFLICT_NAME", suggested="PLANS (3)"):
        drive.rpc(owner, "create_folder", name="PLANS")
    # elsewhere the name is free: in the folder, and in another drive
    assert drive.ticket(owner, "plans", folder_id=folder["id"])["name"] == "plans"
    assert drive.ticket(db.create_user(), "plans")["name"] == "plans"


def test_a_ligature_is_not_its_letters(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.upload(owner, "file.pdf")
    assert drive.ticket(owner, "\ufb01le.pdf")["name"] == "\ufb01le.pdf"


def test_a_name_in_the_trash_is_free(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.upload(owner, "a.pdf")
    drive.rpc(owner, "trash_nodes", ids=[first["file_id"]])
    assert drive.upload(owner, "a.pdf")["file_id"] != first["file_id"]


def test_version_adds_to_the_file_that_has_the_name(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.pdf", "one")
    second = drive.upload(owner, "A.pdf", on_conflict="version")
    assert second["file_id"] == first["file_id"]
    assert _versions(drive, owner, first) == [2, 1]
    by_id = drive.upload(owner, "whatever.pdf", file_id=first["file_id"])
    assert _versions(drive, owner, by_id) == [3, 2, 1]
    assert drive.rpc(owner, "file_details", file_id=first["file_id"])["name"] == "a.pdf"
    new = drive.upload(owner, "b.pdf", on_conflict="version")  # nothing there: a new file
    assert _versions(drive, owner, new) == [1]


def test_a_stale_base_version_is_refused_with_the_head(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.file(owner, "a.pdf", "one")
    base = {"file_id": first["file_id"], "base_version": first["version_id"]}
    second = drive.upload(owner, "a.pdf", **base)  # control: the head is no stale base
    drive.ingest("two")
    with refused("CONFLICT_STATE", head=second["version_id"], base_version=first["version_id"]):
        drive.ticket(owner, "a.pdf", **base)
    with refused("CONFLICT_STATE", head=second["version_id"]):
        drive.ticket(owner, "a.pdf", on_conflict="version", base_version=first["version_id"])
    base["base_version"] = second["version_id"]
    assert drive.ticket(owner, "a.pdf", **base)["file_id"] == first["file_id"]


def test_only_a_file_has_versions_and_only_a_folder_contains(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    file = drive.upload(owner, "a.pdf")["file_id"]
    with refused("INVALID_ARGUMENT", field="file_id"):
        drive.ticket(owner, "a.pdf", file_id=folder)
    with refused("INVALID_ARGUMENT", field="folder_id"):
        drive.ticket(owner, "b.pdf", folder_id=file)
    assert drive.ticket(owner, "b.pdf", folder_id=folder)["upload_id"]
    assert drive.ticket(owner, "a.pdf", file_id=file)["upload_id"]


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
    assert _owner(db, peer)[:2] == (0, 0)


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
    assert _owner(db, owner)[:2] == (0, 1000)
    drive.store(owner, ticket["key"], 999)  # fewer are kept as they are
    assert _owner(db, owner)[:2] == (999, 0)
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
    assert _versions(drive, owner, ticket) == [1]


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
    assert _owner(db, owner)[:2] == (7, 150)
    drive.rpc(owner, "trash_nodes", ids=[folder])
    assert _owner(db, owner)[:2] == (7, 0)
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
    assert _owner(db, owner)[:2] == (10, 0)
    assert db.all("select key from private.object_deletions") == []
    assert drive.rpc(owner, "file_details", file_id=second["file_id"])["key"] == first["key"]
    drive.rpc(owner, "purge_nodes", ids=[second["file_id"]])
    assert _owner(db, owner)[:2] == (0, 0)
    assert db.all("select key from private.object_deletions") == [first["key"]]
    assert drive.ticket(owner, "c.txt", 10, sha256=known)["deduplicated"] is False


def test_a_promise_that_the_bytes_break_fails_the_version(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, sha256="0" * 64)
    drive.ingest("x")
    problem = drive.rpc(owner, "file_details", file_id=ticket["file_id"])["problem"]
    assert problem["error_code"] == "corrupt"


# Ends --------------------------------------------------------------------------------------------


def test_an_aborted_upload_returns_its_reservation_and_its_name(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    ticket = drive.ticket(owner, "a.txt", 100)
    assert _owner(db, owner)[:2] == (0, 100)
    for user in (stranger, None):
        with refused("NOT_FOUND" if user else "NOT_AUTHENTICATED"):
            drive.rpc(user, "abort_upload", upload_id=ticket["upload_id"])
    drive.rpc(owner, "abort_upload", upload_id=ticket["upload_id"])
    assert _owner(db, owner)[:2] == (0, 0)
    assert drive.ticket(owner, "a.txt", 1)["name"] == "a.txt"
    done = drive.upload(owner, "b.txt")
    with refused("CONFLICT_STATE", state="completed"):
        drive.rpc(owner, "abort_upload", upload_id=done["upload_id"])


def test_an_abandoned_upload_returns_its_reservation_when_it_expires(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    old, new = drive.ticket(owner, "old.txt", 100), drive.ticket(owner, "new.txt", 10)
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_uploads()") == 0
    db.all(
        "update public.uploads set expires_at = now() - interval '1 s' where id = %s",
        old["upload_id"],
    )
    with db.as_role("narwhal_worker"):
        assert db.one("select private.expire_uploads()") == 1
    assert _owner(db, owner)[:2] == (0, 10)
    assert drive.rpc(owner, "list_folder")["items"][0]["name"] == "new.txt"
    # asking for another ticket sweeps one's own first
    db.all(
        "update public.uploads set expires_at = now() - interval '1 s' where id = %s",
        new["upload_id"],
    )
    drive.ticket(owner, "new.txt", 5)
    assert _owner(db, owner)[:2] == (0, 5)


def test_two_tickets_of_one_new_file_end_one_by_one(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.ticket(owner, "a.txt", 100)
    second = drive.ticket(owner, "a.txt", 10, on_conflict="version")
    assert second["file_id"] == first["file_id"]
    drive.rpc(owner, "abort_upload", upload_id=first["upload_id"])
    assert _owner(db, owner)[:2] == (0, 10)
    drive.store(owner, second["key"], 10)
    assert _owner(db, owner)[:2] == (10, 0)
    assert _versions(drive, owner, second) == [1]


def test_a_ticket_for_a_file_that_expires_on_the_way_is_refused(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    first = drive.ticket(owner, "a.txt", 100)
    db.all("update public.uploads set expires_at = now() - interval '1 s'")
    with refused("NOT_FOUND"):
        drive.ticket(owner, "a.txt", 10, file_id=first["file_id"])
    assert drive.ticket(owner, "a.txt", 10)["name"] == "a.txt"


def test_the_uploads_of_a_deleted_account_return_what_they_reserved_elsewhere(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "edit")
    drive.ticket(peer, "a.txt", 100, folder_id=folder)
    kept = drive.upload(peer, "b.txt", 10, folder_id=folder)
    db.all("delete from auth.users where id = %s", peer)
    assert _owner(db, owner)[:2] == (10, 0)
    names = [item["name"] for item in drive.rpc(owner, "list_folder", folder=folder)["items"]]
    assert names == ["b.txt"]
    assert drive.rpc(owner, "file_details", file_id=kept["file_id"])["created_by"] is None


def test_trash_and_purge_return_the_reservation(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for function in ("trash_nodes", "purge_nodes"):
        ticket = drive.ticket(owner, "a.txt", 100)
        assert _owner(db, owner)[1] == 100
        drive.rpc(owner, function, ids=[ticket["file_id"]])
        assert _owner(db, owner)[1] == 0


# Quota -------------------------------------------------------------------------------------------


def test_the_quota_is_checked_at_the_ticket_to_the_byte(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.all("update public.owners set storage_limit = 1000 where id = %s", owner)
    drive.upload(owner, "a.txt", 300)
    drive.ticket(owner, "b.txt", 500)
    with refused("QUOTA_EXCEEDED", used=300, reserved=500, limit=1000, requested=201):
        drive.ticket(owner, "c.txt", 201)
    assert drive.ticket(owner, "c.txt", 200)["upload_id"]
    with refused("QUOTA_EXCEEDED", requested=1):
        drive.ticket(owner, "d.txt", 1)
    assert drive.ticket(owner, "d.txt", 0)["upload_id"]


def test_a_quota_that_shrank_meanwhile_refuses_completion(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.ticket(owner, "a.txt", 100)
    db.all("update public.owners set storage_limit = 99 where id = %s", owner)
    with refused_by_storage("QUOTA_EXCEEDED"):
        drive.store(owner, ticket["key"], 100)
    assert _owner(db, owner)[:2] == (0, 100)  # until the sweep, at the latest at expiry
    db.all("update public.uploads set expires_at = now() - interval '1 s'")
    with db.as_role("narwhal_worker"):
        db.one("select private.expire_uploads()")
    assert _owner(db, owner)[:2] == (0, 0)


def test_purging_returns_the_quota_and_the_profile_shows_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    ticket = drive.upload(owner, size=100)
    drive.upload(owner, size=50, file_id=ticket["file_id"])
    with db.as_user(owner):
        assert db.one("select storage_used from public.user_profiles") == 150
    drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]])
    assert _owner(db, owner)[0] == 150  # the trash counts
    drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
    with db.as_user(owner):
        assert db.one("select storage_used from public.user_profiles") == 0
    assert len(db.all("select key from private.object_deletions")) == 2


def test_fifty_tickets_at_once_never_exceed_the_quota(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    drive.db.all("update public.owners set storage_limit = 1000 where id = %s", owner)
    drive.upload(owner, "there already.txt", 300)
    drives = [connect() for _ in range(50)]
    start = Barrier(len(drives))

    def ask(number: int) -> str:
        start.wait()
        try:
            drives[number].ticket(owner, f"{number % 40}.txt", 30, on_conflict="rename")
        except psycopg.Error as error:
            return str(error.sqlstate)
        return "given"

    with ThreadPoolExecutor(len(drives)) as pool:
        answers = Counter(pool.map(ask, range(len(drives))))
    assert answers == {"given": 23, "PT413": 27}  # 700 bytes were free
    assert _owner(drive.db, owner) == (300, 690, 1000)
    assert drive.db.one("select count(*) from public.uploads where state = 'open'") == 23
    assert drive.ticket(owner, "the last.txt", 10)["upload_id"]


@pytest.mark.parametrize("seed", range(3))
def test_the_books_balance_after_whatever_happens(db: Database, drive: Drive, seed: int) -> None:
    walk = Walk(drive, random.Random(seed))
    for _ in range(150):
        walk.step()
        assert db.all(UNBALANCED) == [], walk.history
    assert {action.__name__ for action in walk.actions} == set(walk.history)
    assert {"PT404", "PT409", "PT413"} <= set(walk.refusals), walk.refusals
    db.all("delete from auth.users")
    assert db.one("select count(*) from public.nodes") == 0
    assert db.one("select count(*) from private.blobs") == 0


class Walk:
    """Two people, one of whom may write in the other's folder, doing anything at random."""

    def __init__(self, drive: Drive, chance: random.Random) -> None:
        self.drive, self.db, self.chance = drive, drive.db, chance
        self.people = [self.db.create_user(), self.db.create_user()]
        self.db.all("update public.owners set storage_limit = 120")
        self.folder = drive.rpc(self.people[0], "create_folder", name="shared")["id"]
        drive.share(self.folder, self.people[1], "edit")
        self.tickets: list[tuple[uuid.UUID, Any]] = []
        self.history = Counter[str]()
        self.refusals = Counter[str]()
        self.actions = [
            self.ask,
            self.ask,
            self.ask,
            self.store,
            self.store,
            self.store,
            self.again,
            self.abort,
            self.expire,
            self.read,
            self.reject,
            self.trash,
            self.purge,
            self.cancel,
        ]

    def step(self) -> None:
        action = self.chance.choice(self.actions)
        try:
            with self.db.connection.transaction():
                action()
        except psycopg.Error as error:
            assert str(error.sqlstate)[:2] in ("PT", "42"), error
            self.refusals[str(error.sqlstate)] += 1
        else:
            self.history[action.__name__] += 1

    def ask(self, **more: Any) -> None:
        user = self.chance.choice(self.people)
        if self.chance.random() < 0.5:
            more["folder_id"] = self.folder
        if self.chance.random() < 0.2 and self.tickets:
            more = {"file_id": self.chance.choice(self.tickets)[1]["file_id"]}
        name = f"{self.chance.randrange(6)}.txt"
        on_conflict = self.chance.choice(["fail", "rename", "version"])
        size = more.pop("size", self.chance.randrange(60))
        ticket = self.drive.ticket(user, name, size, on_conflict=on_conflict, **more)
        if not ticket["deduplicated"]:
            self.tickets.append((user, ticket))

    def again(self) -> None:
        blob = self.chance.choice(
            self.db.all("select size, sha256 from private.blobs where sha256 is not null")
            or [(1, "0" * 64)]
        )
        self.ask(size=blob[0], sha256=blob[1])

    def some(self) -> tuple[uuid.UUID, Any]:
        return self.chance.choice(self.tickets or [(self.people[0], self.nothing())])

    def nothing(self) -> Any:
        return dict.fromkeys(("upload_id", "file_id", "version_id", "key"), uuid.UUID(int=0).hex)

    def store(self) -> None:
        user, ticket = self.some()
        size = self.db.one("select size from public.uploads where id = %s", ticket["upload_id"])
        self.drive.store(user, ticket["key"], self.chance.randrange((size or 0) + 2))

    def abort(self) -> None:
        user, ticket = self.some()
        self.drive.rpc(user, "abort_upload", upload_id=ticket["upload_id"])

    def expire(self) -> None:
        self.db.all(
            "update public.uploads set expires_at = now() - interval '1 s' where id = %s",
            self.some()[1]["upload_id"],
        )
        with self.db.as_role("narwhal_worker"):
            self.db.one("select private.expire_uploads()")

    def read(self) -> None:
        self.drive.ingest("some text")

    def reject(self) -> None:
        for job in self.drive.claim():
            self.drive.work("fail_job", job, "magic_mismatch", "It is a program.", True)

    def trash(self) -> None:
        user, ticket = self.some()
        self.drive.rpc(user, "trash_nodes", ids=[ticket["file_id"]])

    def purge(self) -> None:
        _, ticket = self.some()
        self.drive.rpc(self.people[0], "purge_nodes", ids=[ticket["file_id"]])

    def cancel(self) -> None:
        user, ticket = self.some()
        self.drive.rpc(user, "cancel_ingest", file_id=ticket["file_id"])


def _versions(drive: Drive, user: uuid.UUID, ticket: Any) -> list[int]:
    details = drive.rpc(user, "file_details", file_id=ticket["file_id"])
    return [version["no"] for version in details["versions"]]


def _owner(db: Database, owner: uuid.UUID) -> tuple[int, int, int]:
    return db.one(  # type: ignore[no-any-return]
        "select storage_used, storage_reserved, storage_limit from public.owners where id = %s",
        owner,
    )
