"""Links: opening them, what their holders see, downloads that are counted, and revoking (J9)."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from narwhal.ingest.worker import move_objects
from tests.database import Database
from tests.db.conftest import Drive, denied, refused
from tests.db.looks import is_found

READ = "storage.object.get_authenticated"
SIGN = "storage.object.sign"
FREE = [
    "storage.object.list",
    "storage.object.list_v2",
    "object.get_authenticated_info",
    "object.head_authenticated_info",
]


@dataclass
class Place:
    """An owner's folder with a file in it, a file beside it, and a link to the folder."""

    owner: uuid.UUID
    folder: str
    file: str
    version: str
    key: str
    beside: str
    beside_key: str


@pytest.fixture
def place(db: Database, drive: Drive) -> Place:
    owner = db.create_user(full_name="Ola")
    folder = drive.rpc(owner, "create_folder", name="open")["id"]
    inside = drive.file(owner, "plan.txt", "the launch budget", folder_id=folder)
    beside = drive.file(owner, "secret.txt", "the launch secret")
    return Place(
        owner,
        folder,
        inside["file_id"],
        inside["version_id"],
        inside["key"],
        beside["file_id"],
        beside["key"],
    )


def _link(drive: Drive, place: Place, **more: object) -> Any:
    return drive.rpc(place.owner, "create_share_link", node=place.folder, **more)


def _open(drive: Drive, link: Any, user: uuid.UUID | None = None, **more: object) -> str:
    return str(drive.rpc(user, "open_share_link", token=link["token"], **more)["grant"])


def _read(
    drive: Drive,
    key: str,
    user: uuid.UUID | None = None,
    operation: str = READ,
    bucket: str = "files",
) -> bool:
    """Whether Storage finds the row, as it looks for it under the caller's role."""
    drive.db.all("select set_config('storage.operation', %s, true)", operation)
    try:
        with drive.db.as_user(user):
            return bool(
                drive.db.all(
                    "select id from storage.objects where bucket_id = %s and name = %s", bucket, key
                )
            )
    finally:
        drive.db.all("select set_config('storage.operation', '', true)")


def _downloads(db: Database, link: Any) -> int:
    return db.one("select downloads from public.share_links where id = %s", link["id"])  # type: ignore[no-any-return]


# Making and opening ------------------------------------------------------------------------------


def test_the_token_is_shown_once_and_stored_hashed(
    db: Database, drive: Drive, place: Place
) -> None:
    link = _link(drive, place, password="s3cret", max_downloads=5)
    assert len(link["token"]) == 64
    assert (link["level"], link["has_password"], link["max_downloads"], link["state"]) == (
        "view",
        True,
        5,
        "active",
    )
    opened = drive.rpc(None, "open_share_link", token=link["token"], password="s3cret")
    with db.as_user(place.owner):
        shown = json.dumps(drive.rpc(place.owner, "list_share_links", node=place.folder))
    assert link["id"] in shown
    stored = "".join(
        str(db.all(f"select t::text from {table} as t"))  # type: ignore[arg-type]
        for table in ("public.share_links", "private.link_secrets", "private.link_grants")
    )
    for secret in (link["token"], "s3cret", opened["grant"]):
        assert secret not in shown + stored


def test_opening_gives_a_grant_of_fifteen_minutes(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    opened = drive.rpc(None, "open_share_link", token=link["token"])
    assert (opened["node"]["id"], opened["node"]["kind"], opened["node"]["name"]) == (
        place.folder,
        "folder",
        "open",
    )
    assert opened["level"] == "view"
    assert "owner_id" not in opened["node"]
    left = db.one("select %s::timestamptz - now()", opened["expires_at"])
    assert left.total_seconds() == 900
    # never longer than the link
    soon = db.one("select now() + interval '1 minute'")
    short = drive.rpc(None, "open_share_link", token=_link(drive, place, expires_at=soon)["token"])
    assert db.one("select %s::timestamptz = %s", short["expires_at"], soon)
    with drive.holding(opened["grant"]):
        assert _read(drive, place.key)
        db.all("update private.link_grants set expires_at = now()")
        assert not _read(drive, place.key)
    assert db.one("select private.expire_link_grants()") == 2
    assert db.one("select private.expire_link_grants()") == 0


def test_what_makes_no_sense_is_refused(db: Database, drive: Drive, place: Place) -> None:
    past = db.one("select now()")
    for field, more in [
        ("level", {"level": "manage"}),
        ("level", {"level": "owner"}),
        ("level", {"level": None}),
        ("password", {"password": ""}),
        ("password", {"password": "x" * 201}),
        ("expires_at", {"expires_at": past}),
        ("max_downloads", {"max_downloads": 0}),
    ]:
        with refused("INVALID_ARGUMENT", field=field):
            _link(drive, place, **more)
    editor = db.create_user()
    drive.share(place.folder, editor, "edit")
    with refused("FORBIDDEN"):
        drive.rpc(editor, "create_share_link", node=place.folder)


def test_an_unknown_token_is_not_found(drive: Drive, place: Place) -> None:
    for token in ("", "x", uuid.uuid4().hex * 2, _link(drive, place)["token"].upper()):
        with refused("NOT_FOUND"):
            drive.rpc(None, "open_share_link", token=token)


def test_a_link_that_ended_is_gone_and_says_why(db: Database, drive: Drive, place: Place) -> None:
    def gone(link: Any, reason: str) -> None:
        with refused("GONE", reason=reason):
            _open(drive, link)

    expired = _link(drive, place)
    db.all("update public.share_links set expires_at = now() where id = %s", expired["id"])
    gone(expired, "expired")
    used = _link(drive, place, max_downloads=1)
    with drive.holding(_open(drive, used)):
        assert _read(drive, place.key)
    gone(used, "used_up")
    revoked = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=revoked["id"])
    gone(revoked, "revoked")
    manager = db.create_user()
    share = drive.share(place.folder, manager, "manage")
    theirs = drive.rpc(manager, "create_share_link", node=place.folder)
    grant = _open(drive, theirs)
    db.all("update public.shares set expires_at = now() where id = %s", share)
    gone(theirs, "not_permitted")
    with drive.holding(grant):
        assert not _read(drive, place.key)
    living = _link(drive, place)
    drive.rpc(place.owner, "trash_nodes", ids=[place.folder])
    gone(living, "trashed")
    listed = db.all("select id::text from public.share_links")
    assert len(listed) == 5  # all of them stay


def test_ended_links_stay_listed_with_their_state(db: Database, drive: Drive, place: Place) -> None:
    made = {state: _link(drive, place, max_downloads=1)["id"] for state in ("active", "expired")}
    db.all("update public.share_links set expires_at = now() where id = %s", made["expired"])
    used = _link(drive, place, max_downloads=1)
    with drive.holding(_open(drive, used)):
        _read(drive, place.key)
    made["used_up"] = used["id"]
    made["revoked"] = _link(drive, place)["id"]
    drive.rpc(place.owner, "revoke_share_link", id=made["revoked"])
    made["revoking"] = _link(drive, place)["id"]
    drive.rpc(place.owner, "revoke_share_link", id=made["revoking"], hard=True)
    items = drive.rpc(place.owner, "list_share_links", node=place.folder)["items"]
    assert {item["state"]: item["id"] for item in items} == made
    counted = next(item for item in items if item["state"] == "used_up")
    assert (counted["downloads"], counted["opens"]) == (1, 1)
    assert counted["created_by"]["full_name"] == "Ola"


def test_history_tells_what_happened(drive: Drive, place: Place) -> None:
    link = _link(drive, place, password="s3cret")
    drive.rpc(None, "open_share_link", token=link["token"], password="wrong")
    with drive.holding(_open(drive, link, password="s3cret")):
        _read(drive, place.key)
        _read(drive, place.key, operation=SIGN)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"])
    found: list[Any] = []
    cursor = None
    while True:
        page = drive.rpc(place.owner, "link_history", id=link["id"], page_size=4, cursor=cursor)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert [item["kind"] for item in found] == [
        "revoked",
        "signed",
        "downloaded",
        "opened",
        "refused",
        "created",
    ]
    assert found[2]["node"] == {"id": place.file, "name": "plan.txt"}


# Passwords ---------------------------------------------------------------------------------------


def _try(drive: Drive, link: Any, password: str | None) -> tuple[Any, str]:
    """The answer, and the HTTP status that PostgREST is told."""
    drive.db.all("select set_config('response.status', '', true)")
    answer = drive.rpc(None, "open_share_link", token=link["token"], password=password)
    return answer, drive.db.one("select current_setting('response.status', true)")


def test_a_wrong_password_is_refused_without_raising(drive: Drive, place: Place) -> None:
    link = _link(drive, place, password="s3cret")
    for password, reason in ((None, "password_required"), ("wrong", "wrong_password")):
        answer, status = _try(drive, link, password)
        assert status == "401"
        assert answer.keys() == {"code", "message", "details", "hint"}
        assert answer["code"] == "PT401"
        assert json.loads(answer["details"]) == {"error": "NOT_AUTHENTICATED", "reason": reason}
    answer, status = _try(drive, link, "s3cret")
    assert (status, "grant" in answer) == ("", True)


def test_too_many_wrong_passwords_close_the_link_for_a_while(
    db: Database, drive: Drive, place: Place
) -> None:
    link = _link(drive, place, password="s3cret")
    for _ in range(10):
        _try(drive, link, None)  # asking without one is no guess
    for _ in range(4):
        _try(drive, link, "wrong")
    assert "grant" in _try(drive, link, "s3cret")[0]  # and the count starts again
    for _ in range(5):
        assert _try(drive, link, "wrong")[1] == "401"
    for password in ("wrong", "s3cret", None):
        with refused("RATE_LIMITED") as details:
            _try(drive, link, password)
        assert 0 < details["retry_after"] <= 900
    db.all("update private.link_secrets set last_failure_at = now() - interval '15 min 1 s'")
    assert "grant" in _try(drive, link, "s3cret")[0]


def test_guesses_at_once_are_counted_one_by_one(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    folder = drive.rpc(owner, "create_folder", name="open")["id"]
    link = drive.rpc(owner, "create_share_link", node=folder, password="s3cret")
    answers: list[str] = []

    def guess(own: Drive) -> None:
        try:
            answer = own.rpc(None, "open_share_link", token=link["token"], password="wrong")
            answers.append(answer["code"])
        except psycopg.Error as error:
            answers.append(str(error.sqlstate))

    threads = [threading.Thread(target=guess, args=(connect(),)) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["PT401"] * 5 + ["PT429"] * 4


# What a holder sees ------------------------------------------------------------------------------


def test_an_anonymous_holder_sees_the_subtree_and_nothing_else(
    db: Database, drive: Drive, place: Place
) -> None:
    drive.share(place.folder, db.create_user())
    drive.ticket(place.owner, "open.txt", folder_id=place.folder)
    picture = drive.rendition(place.version)
    picture_key = db.one("select key from private.blobs where bucket = 'derived'")
    with drive.holding(_open(drive, _link(drive, place))):
        with db.as_user(None):
            names = set(db.all("select name from public.nodes"))
            assert names == {"open", "plan.txt", "open.txt"}
            assert db.all("select id::text from public.file_versions") == [place.version]
            assert db.all("select id from public.renditions") == [picture]
        for table in (
            "shares",
            "share_links",
            "uploads",
            "ingest_jobs",
            "owners",
            "user_profiles",
            "groups",
        ):
            # anon may look at profiles, and sees none
            with nullcontext() if table == "user_profiles" else denied(), db.as_user(None):
                assert db.all(f"select 1 from public.{table}") == []  # type: ignore[arg-type]
        listed = drive.rpc(None, "list_folder", folder=place.folder)["items"]
        assert {item["name"] for item in listed} == {"plan.txt", "open.txt"}
        details = drive.rpc(None, "file_details", file_id=place.file)
        assert (details["level"], details["quota"], details["shares"]) == ("view", None, [])
        assert details["key"] == place.key
        assert [h["file_id"] for h in drive.search(None, "launch")["hits"]] == [place.file]
        assert _read(drive, place.key)
        assert not _read(drive, place.beside_key)
        assert _read(drive, picture_key, bucket="derived")
        with refused("NOT_FOUND"):
            drive.rpc(None, "file_details", file_id=place.beside)
        for call, arguments in (
            ("begin_upload", {"name": "x", "size": 1, "folder_id": place.folder}),
            ("rename_node", {"id": place.file, "name": "x"}),
            ("trash_nodes", {"ids": [place.file]}),
            ("share_node", {"node": place.file, "grantee": {"email": "a@example.test"}}),
            ("create_share_link", {"node": place.file}),
        ):
            with refused("FORBIDDEN"):
                drive.rpc(None, call, **arguments)  # type: ignore[arg-type]
    with db.as_user(None):
        assert db.all("select id from public.nodes") == []
    with drive.holding("x"), db.as_user(None):
        assert db.all("select id from public.nodes") == []


def test_a_signed_in_holder_has_the_level_of_the_link(
    db: Database, drive: Drive, place: Place
) -> None:
    guest = db.create_user()
    link = _link(drive, place, level="edit")
    opened = drive.rpc(guest, "open_share_link", token=link["token"])
    assert opened["level"] == "edit"
    with drive.holding(opened["grant"]):
        ticket = drive.ticket(guest, "guest.txt", folder_id=place.folder)
        assert drive.probed(guest, ticket["key"], 10)
        with refused("FORBIDDEN"):
            drive.rpc(guest, "share_node", node=place.folder, grantee={"email": "a@example.test"})
        # leaving something else does not end what the link allows
        group = drive.rpc(place.owner, "create_group", name="team")["id"]
        row = drive.rpc(
            place.owner, "add_group_member", group_id=group, member={"user_id": str(guest)}
        )["id"]
        drive.rpc(guest, "remove_group_member", id=row)
        state = "select state from public.uploads where id = %s"
        assert db.one(state, ticket["upload_id"]) == "open"
        drive.rpc(place.owner, "revoke_share_link", id=link["id"])
        assert db.one(state, ticket["upload_id"]) == "aborted"
        with refused("NOT_FOUND"):
            drive.rpc(guest, "list_folder", folder=place.folder)


def test_a_closed_account_opens_nothing_by_a_link(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    guest = db.create_user()
    grant = _open(drive, link, guest)
    db.all("update public.user_profiles set is_active = false where id = %s", guest)
    with refused("NOT_AUTHENTICATED"):
        _open(drive, link, guest)
    with drive.holding(grant):
        assert not _read(drive, place.key, guest)
    # nor does the link of a closed account open anything
    db.all("update public.user_profiles set is_active = false where id = %s", place.owner)
    with refused("GONE", reason="not_permitted"):
        _open(drive, link)
    with drive.holding(grant):
        assert not _read(drive, place.key)


def test_a_new_version_keeps_the_link(drive: Drive, place: Place) -> None:
    link = drive.rpc(place.owner, "create_share_link", node=place.file)
    drive.file(place.owner, "plan.txt", "the new budget", file_id=place.file, on_conflict="version")
    with drive.holding(_open(drive, link)):
        assert is_found(drive, None, "new")
        assert drive.rpc(None, "file_details", file_id=place.file)["versions"][0]["no"] == 2


# Counting ----------------------------------------------------------------------------------------


def test_reads_of_bytes_are_counted_and_looks_are_not(
    db: Database, drive: Drive, place: Place
) -> None:
    link = _link(drive, place, max_downloads=3)
    with drive.holding(_open(drive, link)):
        for operation in FREE:
            assert _read(drive, place.key, operation=operation)
        assert _downloads(db, link) == 0
        assert _read(drive, place.key)
        assert _read(drive, place.key, operation=SIGN)
        assert _read(drive, place.key, operation="storage.something.new")  # rather one too many
        assert _downloads(db, link) == 3
        for operation in (READ, SIGN, "storage.object.sign_many", "storage.object.copy"):
            assert not _read(drive, place.key, operation=operation)
        for operation in FREE:
            assert _read(drive, place.key, operation=operation)
    assert _downloads(db, link) == 3


def test_a_link_without_a_maximum_counts_too(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    with drive.holding(_open(drive, link)):
        assert all(_read(drive, place.key) for _ in range(3))
    assert _downloads(db, link) == 3


@pytest.mark.parametrize(
    ("headers", "is_counted"),
    [
        ({"range": "bytes=5-9"}, False),
        ({"range": "bytes=5-"}, False),
        ({"range": "bytes=0-4"}, True),
        ({"range": "bytes=00005-"}, True),
        ({"range": "bytes=-5"}, True),
        ({"range": "bytes=5-9,0-4"}, True),
        ({"range": "items=5-9"}, True),
        ({"range": "bytes=5-", "if-range": '"other"'}, True),
        ({}, True),
    ],
)
def test_the_rest_of_a_download_is_not_another(
    db: Database, drive: Drive, place: Place, headers: dict[str, str], is_counted: bool
) -> None:
    link = _link(drive, place, max_downloads=2)
    grant = _open(drive, link)
    with drive.holding(grant):
        assert _read(drive, place.key)
    with drive.holding(grant, **headers):
        assert _read(drive, place.key)
        assert _downloads(db, link) == 1 + is_counted
        assert (
            _read(drive, place.key, operation=SIGN) != is_counted
        )  # the last one, if there is one


def test_a_rest_needs_a_beginning(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place, max_downloads=2)
    first, second = _open(drive, link), _open(drive, link)
    with drive.holding(first, range="bytes=1-"):
        assert _read(drive, place.key)
    with drive.holding(second, range="bytes=1-"):  # another grant
        assert _read(drive, place.key)
    assert _downloads(db, link) == 2
    with drive.holding(second, range="bytes=1-"):
        assert _read(drive, place.key)  # its rest, though the link is used up
    with drive.holding(first):
        assert not _read(drive, place.key)
    assert _downloads(db, link) == 2


def test_a_signed_url_is_no_beginning(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place, max_downloads=1)
    grant = _open(drive, link)
    with drive.holding(grant):
        assert _read(drive, place.key, operation=SIGN)
    with drive.holding(grant, range="bytes=1-"):
        assert not _read(drive, place.key)


def test_own_rights_are_not_counted(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place, max_downloads=1)
    peer, guest = db.create_user(), db.create_user()
    drive.share(place.folder, peer)
    with drive.holding(_open(drive, link)):
        for user in (place.owner, peer):
            assert all(_read(drive, place.key, user) for _ in range(2))
        assert _downloads(db, link) == 0
        assert _read(drive, place.key, guest)
        assert not _read(drive, place.key, guest)
        assert _read(drive, place.key, peer)


def test_of_many_readers_at_the_last_download_one_wins(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    ticket = drive.upload(owner)
    readers = [connect() for _ in range(8)]
    for round_ in range(10):
        link = drive.rpc(
            owner, "create_share_link", node=ticket["file_id"], max_downloads=1 + round_ % 3
        )
        grant = _open(drive, link)
        barrier = threading.Barrier(len(readers))
        won: list[bool] = []

        def read(own: Drive, grant: str, barrier: threading.Barrier, won: list[bool]) -> None:
            with own.holding(grant), own.db.connection.transaction():
                barrier.wait()
                won.append(_read(own, ticket["key"]))

        threads = [
            threading.Thread(target=read, args=(own, grant, barrier, won)) for own in readers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(won) == 1 + round_ % 3
        assert _downloads(drive.db, link) == 1 + round_ % 3


# Revoking ----------------------------------------------------------------------------------------


def _claim(db: Database) -> list[Any]:
    with db.as_role("narwhal_worker"):
        return db.all("select private.claim_key_rotations(100)")


def _move(db: Database, bucket: str, key: str, new_key: str) -> None:
    """What Storage's move does: a permission test, rolled back, then one update."""
    with db.as_service():
        db.all(
            "update storage.objects set name = %s, version = %s where bucket_id = %s and name = %s",
            new_key,
            str(uuid.uuid4()),
            bucket,
            key,
        )


def test_a_soft_revoke_ends_the_link_at_once(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    grant = _open(drive, link)
    revoked = drive.rpc(place.owner, "revoke_share_link", id=link["id"])
    assert (revoked["state"], revoked["revoking_at"]) == ("revoked", revoked["revoked_at"])
    with drive.holding(grant):
        assert not _read(drive, place.key)
    assert _claim(db) == []
    again = drive.rpc(place.owner, "revoke_share_link", id=link["id"])
    assert again["revoked_at"] == revoked["revoked_at"]


def test_a_hard_revoke_moves_every_object_below_the_node(
    db: Database, drive: Drive, place: Place
) -> None:
    drive.file(place.owner, "plan.txt", "two", file_id=place.file, on_conflict="version")
    drive.rendition(place.version, page=1)
    link = _link(drive, place)
    keys = set(db.all("select key from private.blobs")) - {place.beside_key}
    assert drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)["state"] == (
        "revoking"
    )
    claimed = _claim(db)
    assert {c["key"] for c in claimed} == keys
    assert len(keys) == 3
    assert _claim(db) == []  # for 30 seconds they are the worker's
    for no, claim in enumerate(claimed, start=1):
        _move(db, claim["bucket"], claim["key"], claim["new_key"])
        (item,) = drive.rpc(place.owner, "list_share_links", node=place.folder)["items"]
        assert item["state"] == ("revoked" if no == len(claimed) else "revoking")
    assert item["revoked_at"]
    moved = set(db.all("select key from private.blobs")) - {place.beside_key}
    assert moved == {c["new_key"] for c in claimed}
    assert not moved & keys
    details = drive.rpc(place.owner, "file_details", file_id=place.file)
    assert details["key"] in moved
    assert _read(drive, details["key"], place.owner)
    assert not _read(drive, place.key, place.owner)
    assert is_found(drive, place.owner, "two")
    assert len(details["versions"]) == 2


def test_a_permission_test_of_a_move_changes_nothing(
    db: Database, drive: Drive, place: Place
) -> None:
    link = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    (claim,) = _claim(db)
    with pytest.raises(ZeroDivisionError), db.as_service():
        db.all("update storage.objects set name = 'x' where name = %s", claim["key"])
        raise ZeroDivisionError
    assert db.one("select count(*) from private.key_rotations") == 1
    assert drive.rpc(place.owner, "file_details", file_id=place.file)["key"] == place.key


def test_what_fails_comes_again_with_another_key(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    (first,) = _claim(db)
    db.all("update private.key_rotations set run_after = now()")
    (second,) = _claim(db)
    assert first["key"] == second["key"]
    assert first["new_key"] != second["new_key"]


def test_a_worker_tries_until_storage_works_again(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner = drive.db.create_user()
    ticket = drive.upload(owner)
    link = drive.rpc(owner, "create_share_link", node=ticket["file_id"])
    drive.rpc(owner, "revoke_share_link", id=link["id"], hard=True)

    class Store:
        """Storage, which is down at first."""

        is_down = True

        def move(self, bucket: str, key: str, new_key: str) -> None:
            if self.is_down:
                raise ConnectionError
            _move(drive.db, bucket, key, new_key)

    store = Store()
    worker = connect().db.connection
    worker.execute("set session authorization narwhal_worker")
    assert move_objects(worker, store) == 0  # type: ignore[arg-type]
    store.is_down = False
    assert move_objects(worker, store) == 0  # type: ignore[arg-type]
    drive.db.all("update private.key_rotations set run_after = now()")  # 30 seconds later
    assert move_objects(worker, store) == 1  # type: ignore[arg-type]
    assert drive.rpc(owner, "list_share_links", node=ticket["file_id"])["items"][0]["revoked_at"]
    assert drive.rpc(owner, "file_details", file_id=ticket["file_id"])["key"] != ticket["key"]
    assert drive.db.one("select count(*) from private.key_rotations") == 0


def test_two_links_wait_for_one_object_and_end_with_it(
    db: Database, drive: Drive, place: Place
) -> None:
    links = [_link(drive, place), drive.rpc(place.owner, "create_share_link", node=place.file)]
    for link in links:
        drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    (claim,) = _claim(db)
    _move(db, claim["bucket"], claim["key"], claim["new_key"])
    assert db.all("select revoked_at is null from public.share_links") == [False, False]


def test_an_object_of_two_owners_moves_for_both(db: Database, drive: Drive, place: Place) -> None:
    other = db.create_user()
    db.all(
        "insert into private.blobs (owner_id, bucket, key, size) values (%s, 'files', %s, 10)",
        other,
        place.key,
    )
    link = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    (claim,) = _claim(db)
    _move(db, claim["bucket"], claim["key"], claim["new_key"])
    assert db.one("select count(*) from private.blobs where key = %s", claim["new_key"]) == 2


def test_what_was_purged_meanwhile_is_done(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    with db.as_service():
        db.all("select set_config('storage.allow_delete_query', 'true', true)")
        db.all("delete from storage.objects where name = %s", place.key)
    assert _claim(db) == []
    (item,) = drive.rpc(place.owner, "list_share_links", node=place.folder)["items"]
    assert item["state"] == "revoked"


def test_a_removal_follows_the_object_to_its_new_key(
    db: Database, drive: Drive, place: Place
) -> None:
    link = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    (claim,) = _claim(db)
    # a worker has the removal under the old key in hand when the object moves
    db.all("delete from private.object_deletions")
    db.all("insert into private.object_deletions (bucket, key) values ('files', %s)", claim["key"])
    held = db.one("select id from private.object_deletions")
    _move(db, claim["bucket"], claim["key"], claim["new_key"])
    db.all("select private.finish_object_deletions(%s)", [held])
    assert db.all("select key from private.object_deletions") == [claim["new_key"]]


def test_what_was_signed_moves_though_it_has_left_the_folder(
    db: Database, drive: Drive, place: Place
) -> None:
    link = _link(drive, place)
    with drive.holding(_open(drive, link)):
        assert _read(drive, place.key, operation=SIGN)
    drive.rpc(place.owner, "move_nodes", ids=[place.file], target=None)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)
    assert [c["key"] for c in _claim(db)] == [place.key]


def test_a_soft_revoke_can_be_made_hard(db: Database, drive: Drive, place: Place) -> None:
    link = _link(drive, place)
    drive.rpc(place.owner, "revoke_share_link", id=link["id"])
    assert drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)["state"] == (
        "revoking"
    )
    assert len(_claim(db)) == 1
    # and not soft again
    assert drive.rpc(place.owner, "revoke_share_link", id=link["id"])["state"] == "revoking"


def test_an_empty_folder_is_revoked_at_once(drive: Drive, place: Place) -> None:
    empty = drive.rpc(place.owner, "create_folder", name="empty")["id"]
    link = drive.rpc(place.owner, "create_share_link", node=empty)
    assert drive.rpc(place.owner, "revoke_share_link", id=link["id"], hard=True)["state"] == (
        "revoked"
    )


def test_managers_and_its_maker_revoke_a_link(db: Database, drive: Drive, place: Place) -> None:
    manager, viewer = db.create_user(), db.create_user()
    drive.share(place.folder, manager, "manage")
    drive.share(place.folder, viewer)
    link = _link(drive, place)
    with refused("FORBIDDEN"):
        drive.rpc(viewer, "revoke_share_link", id=link["id"])
    with refused("NOT_FOUND"):
        drive.rpc(db.create_user(), "revoke_share_link", id=link["id"])
    assert drive.rpc(manager, "revoke_share_link", id=link["id"])["state"] == "revoked"
    theirs = drive.rpc(manager, "create_share_link", node=place.folder)
    db.all("delete from public.shares where grantee_id = %s", manager)
    with refused("NOT_FOUND"):
        drive.rpc(manager, "revoke_share_link", id=theirs["id"], hard=True)
    assert drive.rpc(manager, "revoke_share_link", id=theirs["id"])["state"] == "revoked"


# Pictures ----------------------------------------------------------------------------------------


def test_pictures_belong_to_their_version_and_go_with_it(
    db: Database, drive: Drive, place: Place
) -> None:
    peer = db.create_user()
    drive.share(place.folder, peer)
    drive.rendition(place.version, page=1)
    drive.rendition(place.version)
    keys = db.all("select key from private.blobs where bucket = 'derived'")
    assert db.one("select storage_used from public.owners where id = %s", place.owner) == 26
    for key in keys:
        assert _read(drive, key, peer, bucket="derived")
        assert not _read(drive, key, db.create_user(), bucket="derived")
        assert not _read(drive, key, None, bucket="derived")
    drive.rpc(place.owner, "trash_nodes", ids=[place.file])
    assert not _read(drive, keys[0], place.owner, bucket="derived")
    db.all("delete from public.file_versions where file_id = %s", place.file)
    assert db.all("select key from private.blobs") == [place.beside_key]
    queued = db.all("select key from private.object_deletions where bucket = 'derived'")
    assert sorted(queued) == sorted(keys)
    assert db.one("select storage_used from public.owners where id = %s", place.owner) == 10


def test_a_picture_made_again_replaces_the_first(db: Database, drive: Drive, place: Place) -> None:
    drive.rendition(place.version)
    first = db.one("select key from private.blobs where bucket = 'derived'")
    drive.rendition(place.version)
    assert db.one("select key from private.blobs where bucket = 'derived'") != first
    assert db.all("select key from private.object_deletions") == [first]
