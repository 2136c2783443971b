"""Listing, making folders, details."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["name", "updated_at", "created_at", "size"])
@pytest.mark.parametrize("page_size", [1, 3, 100])
def test_pages_of_a_folder_have_no_gaps_and_no_doubles(
    db: Database, drive: Drive, sort: str, descending: bool, page_size: int
) -> None:
    chance = random.Random(5)
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    names = ["b", "B2", "Ä", "a", "z.txt", "10", "9", "字", "é"]
    for name in names:
        drive.upload(owner, name, chance.randrange(3), folder_id=folder)
    db.all(  # ties in all of them
        "update public.nodes set updated_at = now() - (size || ' min')::interval,"
        " created_at = now() - (octet_length(name) || ' min')::interval"
    )
    order = f"-{sort}" if descending else sort
    seen: list[Any] = []
    cursor = None
    while True:
        page = drive.rpc(
            owner, "list_folder", folder=folder, sort=order, page_size=page_size, cursor=cursor
        )
        assert len(page["items"]) <= page_size
        seen += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        # somebody adds files meanwhile: those that are new may appear, the others stay
        if page_size == 3:
            drive.rpc(owner, "create_folder", name=f"new {len(seen)}", parent=folder)
    found = [item["name"] for item in seen]
    assert len(found) == len(set(found))
    assert set(names) <= set(found)
    keys = [item["name"].lower() if sort == "name" else item[sort] for item in seen]
    assert keys == sorted(keys, reverse=descending)


def test_a_root_lists_ones_own_and_a_shared_folder_what_it_holds(
    db: Database, drive: Drive
) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    file = drive.upload(owner, "a.txt", folder_id=folder)["file_id"]
    drive.share(folder, peer)
    assert [item["id"] for item in drive.rpc(owner, "list_folder")["items"]] == [folder]
    assert drive.rpc(peer, "list_folder")["items"] == []
    for user in (owner, peer):
        assert [i["id"] for i in drive.rpc(user, "list_folder", folder=folder)["items"]] == [file]
    drive.rpc(owner, "trash_nodes", ids=[file])
    assert drive.rpc(owner, "list_folder", folder=folder) == {"items": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("sort", {"sort": "colour"}),
        ("sort", {"sort": None}),
        ("sort", {"sort": "--name"}),
        ("page_size", {"page_size": 0}),
        ("page_size", {"page_size": 1001}),
        ("page_size", {"page_size": None}),
        ("cursor", {"cursor": "not base64!"}),
        ("cursor", {"cursor": "bm9wZQ=="}),
        ("cursor", {"cursor": "e30="}),  # {}
        ("cursor", {"cursor": "WzEsMl0="}),  # [1,2]
        ("cursor", {"cursor": "W10="}),  # []
        ("cursor", {"cursor": ""}),
    ],
)
def test_a_listing_that_cannot_be_meant_is_refused_by_name(
    db: Database, drive: Drive, field: str, arguments: dict[str, Any]
) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, "list_folder", **arguments)
    assert drive.rpc(owner, "list_folder")["items"] == []


def test_a_cursor_is_good_for_the_order_it_came_from(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for name in ("a", "b", "c"):
        drive.rpc(owner, "create_folder", name=name)
    cursor = drive.rpc(owner, "list_folder", page_size=1)["next_cursor"]
    with refused("INVALID_ARGUMENT", field="cursor"):
        drive.rpc(owner, "list_folder", sort="-size", cursor=cursor)
    assert len(drive.rpc(owner, "list_folder", cursor=cursor)["items"]) == 2


def test_a_folder_is_made_where_one_may_write(db: Database, drive: Drive) -> None:
    owner, peer, stranger = db.create_user(), db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="Projects")
    assert (folder["kind"], folder["status"], folder["size"]) == ("folder", "ready", 0)
    assert folder["path"] == [folder["id"]]
    with refused("CONFLICT_NAME", existing_id=folder["id"], suggested="PROJECTS (2)"):
        drive.rpc(owner, "create_folder", name="PROJECTS")
    with refused("NOT_FOUND"):
        drive.rpc(stranger, "create_folder", name="x", parent=folder["id"])
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "create_folder", name="x")
    drive.share(folder["id"], peer)
    with refused("FORBIDDEN", required="edit"):
        drive.rpc(peer, "create_folder", name="x", parent=folder["id"])
    db.all("update public.shares set level = 'edit'")
    made = drive.rpc(peer, "create_folder", name="x", parent=folder["id"])
    assert (made["owner_id"], made["created_by"]) == (str(owner), str(peer))
    assert made["path"] == [folder["id"], made["id"]]
    file = drive.upload(owner)["file_id"]
    with refused("INVALID_ARGUMENT", field="parent"):
        drive.rpc(owner, "create_folder", name="x", parent=file)


def test_details_show_to_each_what_is_theirs_to_know(db: Database, drive: Drive) -> None:
    owner, peer, manager = db.create_user(), db.create_user(), db.create_user()
    ticket = drive.upload(owner, "a.txt", 10)
    drive.share(ticket["file_id"], peer)
    drive.share(ticket["file_id"], manager, "manage")
    shown = {
        user: drive.rpc(user, "file_details", file_id=ticket["file_id"])
        for user in (owner, peer, manager)
    }
    assert [details["level"] for details in shown.values()] == ["owner", "view", "manage"]
    assert [len(details["shares"]) for details in shown.values()] == [2, 0, 2]
    assert [details["quota"] is None for details in shown.values()] == [False, True, True]
    assert shown[owner]["quota"]["used"] == 10
    assert {details["key"] for details in shown.values()} == {ticket["key"]}
    assert {details["bucket"] for details in shown.values()} == {"files"}
    for details in shown.values():
        (version,) = details["versions"]
        assert (version["id"], version["no"], version["size"]) == (ticket["version_id"], 1, 10)
        assert "blob_id" not in version
    waiting = drive.ticket(owner, "b.txt")
    details = drive.rpc(owner, "file_details", file_id=waiting["file_id"])
    assert (details["status"], details["versions"], details["key"]) == ("uploading", [], None)
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    assert drive.rpc(owner, "file_details", file_id=folder)["kind"] == "folder"
    for user, error in ((db.create_user(), "NOT_FOUND"), (None, "NOT_AUTHENTICATED")):
        with refused(error):
            drive.rpc(user, "file_details", file_id=ticket["file_id"])


# All below a folder ------------------------------------------------------------------------------


def names(drive: Drive, user: Any, **arguments: Any) -> list[str]:
    """The names that a listing gives, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = drive.rpc(user, "list_folder", cursor=cursor, **arguments)
        found += [item["name"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.fixture
def nested(db: Database, drive: Drive) -> tuple[Any, dict[str, str]]:
    """a/b/c.txt, a/B.PDF, d.txt, and something trashed; ids by name."""
    owner = db.create_user()
    ids = {"a": drive.rpc(owner, "create_folder", name="a")["id"]}
    ids["b"] = drive.rpc(owner, "create_folder", name="b", parent=ids["a"])["id"]
    ids["c.txt"] = drive.upload(owner, "c.txt", 3, folder_id=ids["b"])["file_id"]
    ids["X.PDF"] = drive.upload(owner, "X.PDF", 20, folder_id=ids["a"])["file_id"]
    ids["d.txt"] = drive.upload(owner, "d.txt", 100)["file_id"]
    gone = drive.upload(owner, "gone.txt", 1000, folder_id=ids["b"])["file_id"]
    drive.rpc(owner, "trash_nodes", ids=[gone])
    return owner, ids


@pytest.mark.parametrize("sort", ["name", "-name", "size", "-updated_at"])
@pytest.mark.parametrize("page_size", [1, 2, 100])
def test_a_recursive_listing_has_all_below_once(
    drive: Drive, nested: tuple[Any, dict[str, str]], sort: str, page_size: int
) -> None:
    owner, ids = nested
    more: Any = {"recursive": True, "sort": sort, "page_size": page_size}
    below = names(drive, owner, folder=ids["a"], **more)
    assert sorted(below) == ["X.PDF", "b", "c.txt"]
    everything = names(drive, owner, **more)
    assert sorted(everything) == ["X.PDF", "a", "b", "c.txt", "d.txt"]
    if sort == "name":
        assert below == ["b", "c.txt", "X.PDF"]
        assert everything == ["a", "b", "c.txt", "d.txt", "X.PDF"]


def test_a_recursive_listing_honours_shares(
    db: Database, drive: Drive, nested: tuple[Any, dict[str, str]]
) -> None:
    _, ids = nested
    peer = db.create_user()
    assert names(drive, peer, recursive=True) == []
    drive.share(ids["b"], peer)
    assert names(drive, peer, folder=ids["b"], recursive=True) == ["c.txt"]
    assert names(drive, peer, recursive=True) == []  # not one's own
    with refused("NOT_FOUND", id=ids["a"]):
        names(drive, peer, folder=ids["a"], recursive=True)
    db.all("update public.shares set expires_at = now() - interval '1 s'")
    with refused("NOT_FOUND", id=ids["b"]):
        names(drive, peer, folder=ids["b"], recursive=True)


FILTERED = {
    "files": ({"kinds": ["file"]}, ["c.txt", "d.txt", "X.PDF"]),
    "folders": ({"kinds": ["folder"]}, ["a", "b"]),
    "no kind": ({"kinds": []}, []),
    "a type": ({"types": ["pdf"]}, ["X.PDF"]),
    "types": ({"types": [".TXT", "pdf"]}, ["c.txt", "d.txt", "X.PDF"]),
    "a part of the name": ({"name_contains": "x"}, ["c.txt", "d.txt", "X.PDF"]),
    "no wildcard": ({"name_contains": "%"}, []),
    "no SQL": ({"name_contains": "'x%1$s\\'", "types": ["'}"], "kinds": ["file'", '"}']}, []),
    "both": ({"name_contains": "X", "types": ["pdf"]}, ["X.PDF"]),
    "a status": ({"statuses": ["queued"]}, ["c.txt", "d.txt", "X.PDF"]),
    "another status": ({"statuses": ["failed"]}, []),
    "from": ({"updated_from": "2020-01-01", "kinds": ["folder"]}, ["b"]),
    "to": ({"updated_to": "2020-01-01T00:00:00Z"}, ["a"]),
    "nothing": ({}, ["a", "b", "c.txt", "d.txt", "X.PDF"]),
    "nulls": ({"kinds": None, "name_contains": None}, ["a", "b", "c.txt", "d.txt", "X.PDF"]),
}


@pytest.mark.parametrize("what", FILTERED)
@pytest.mark.parametrize("page_size", [1, 100])
def test_a_listing_is_filtered(
    db: Database, drive: Drive, nested: tuple[Any, dict[str, str]], what: str, page_size: int
) -> None:
    owner, ids = nested
    db.all("update public.nodes set updated_at = '2001-01-01' where id = %s", ids["a"])
    filters, expected = FILTERED[what]
    assert names(drive, owner, recursive=True, filters=filters, page_size=page_size) == expected
    directly = {"a", "d.txt"} & set(expected)
    assert set(names(drive, owner, filters=filters, page_size=page_size)) == directly


@pytest.mark.parametrize(
    ("field", "filters"),
    [
        ("filters.owner", {"owner": "x"}),
        ("filters.kinds", {"kinds": "file"}),
        ("filters.types", {"types": {}}),
        ("filters.name_contains", {"name_contains": ["x"]}),
        ("filters.updated_from", {"updated_from": "yesterday-ish"}),
        ("filters.updated_to", {"updated_to": 5}),
    ],
)
def test_a_filter_that_cannot_be_meant_is_named(
    db: Database, drive: Drive, field: str, filters: dict[str, Any]
) -> None:
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(db.create_user(), "list_folder", filters=filters)


def test_filters_are_an_object(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="filters"), db.as_user(owner):
        db.one("select public.list_folder(filters => '[]')")
    with refused("INVALID_ARGUMENT", field="recursive"):
        drive.rpc(owner, "list_folder", recursive=None)


def test_a_folder_says_how_much_is_in_it(
    db: Database, drive: Drive, nested: tuple[Any, dict[str, str]]
) -> None:
    owner, ids = nested
    peer = db.create_user()
    drive.share(ids["a"], peer)
    items = {i["name"]: i for i in drive.rpc(owner, "list_folder")["items"]}
    assert (items["a"]["child_count"], items["a"]["total_size"]) == (2, 23)
    assert "child_count" not in items["d.txt"]
    for user in (owner, peer):
        details = drive.rpc(user, "file_details", file_id=ids["a"])
        assert (details["child_count"], details["total_size"]) == (2, 23)
        (item,) = drive.rpc(user, "list_folder", folder=ids["a"], filters={"kinds": ["folder"]})[
            "items"
        ]
        assert (item["child_count"], item["total_size"]) == (1, 3)
    assert "child_count" not in drive.rpc(owner, "file_details", file_id=ids["c.txt"])
    empty = drive.rpc(owner, "create_folder", name="empty")["id"]
    details = drive.rpc(owner, "file_details", file_id=empty)
    assert (details["child_count"], details["total_size"]) == (0, 0)


def test_a_large_folder_is_added_up_in_its_details_only(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    insert = (
        "insert into public.nodes (id, kind, name, parent_id, owner_id, path, size)"
        " select i.id, 'file', i.no::text, %s, %s, array[%s, i.id], 2 from"
        " (select gen_random_uuid() as id, no from generate_series(%s::int, %s::int) as no) as i"
    )
    db.all(insert, folder, owner, folder, 1, 1000)
    (item,) = drive.rpc(owner, "list_folder")["items"]
    assert (item["child_count"], item["total_size"]) == (1000, 2000)
    db.all(insert, folder, owner, folder, 1001, 1001)
    (item,) = drive.rpc(owner, "list_folder")["items"]
    assert (item["child_count"], item["total_size"]) == (1001, None)
    details = drive.rpc(owner, "file_details", file_id=folder)
    assert (details["child_count"], details["total_size"]) == (1001, 2002)
