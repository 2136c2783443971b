"""Sharing with people and groups: who may, what it opens, and what ends with it (J8)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.looks import is_found

LEVELS = ["view", "comment", "edit", "manage"]
EMAIL = "peer@example.test"


@dataclass
class Place:
    """An owner's folder with a folder and a file in it, and somebody to share it with."""

    owner: uuid.UUID
    peer: uuid.UUID
    outer: str
    inner: str
    file: str
    key: str


@pytest.fixture
def place(db: Database, drive: Drive) -> Place:
    owner, peer = db.create_user(full_name="Ola"), db.create_user(EMAIL, full_name="Pia")
    outer = drive.rpc(owner, "create_folder", name="outer")["id"]
    inner = drive.rpc(owner, "create_folder", name="inner", parent=outer)["id"]
    ticket = drive.file(owner, "plan.txt", "the launch budget", folder_id=inner)
    return Place(owner, peer, outer, inner, ticket["file_id"], ticket["key"])


def _share(drive: Drive, by: uuid.UUID, node: str, grantee: Any, **more: object) -> Any:
    if isinstance(grantee, uuid.UUID):
        grantee = {"user_id": str(grantee)}
    return drive.rpc(by, "share_node", node=node, grantee=grantee, **more)


def _sees(drive: Drive, user: uuid.UUID, place: Place) -> bool:
    """Whether a user sees the file, on every surface alike."""
    with drive.db.as_user(user):
        found = {
            "row": bool(drive.db.all("select 1 from public.nodes where id = %s", place.file)),
            "object": bool(
                drive.db.all("select 1 from storage.objects where name = %s", place.key)
            ),
        }
    found["search"] = is_found(drive, user, "launch")
    assert len(set(found.values())) == 1, found
    return found["row"]


def test_a_share_opens_the_tree_with_what_is_added_later(drive: Drive, place: Place) -> None:
    assert not _sees(drive, place.peer, place)
    share = _share(drive, place.owner, place.outer, {"email": EMAIL}, level="view")
    assert share["grantee"] == {"email": EMAIL}
    assert (share["level"], share["expires_at"], share["node_id"]) == ("view", None, place.outer)
    assert _sees(drive, place.peer, place)
    later = drive.upload(place.owner, "later.txt", folder_id=place.inner)
    assert drive.rpc(place.peer, "file_details", file_id=later["file_id"])["level"] == "view"
    assert drive.rpc(place.owner, "unshare_node", share_id=share["id"]) == {
        "revoked": True,
        "links_revoked": 0,
    }
    assert not _sees(drive, place.peer, place)
    with refused("NOT_FOUND"):
        drive.rpc(place.owner, "unshare_node", share_id=share["id"])


def test_sharing_again_changes_level_and_expiry(db: Database, drive: Drive, place: Place) -> None:
    expiry = db.one("select now() + interval '1 day'")
    first = _share(drive, place.owner, place.outer, place.peer, expires_at=expiry)
    again = _share(drive, place.owner, place.outer, place.peer, level="edit")
    assert (again["id"], again["level"], again["expires_at"]) == (first["id"], "edit", None)
    assert first["expires_at"] is not None
    assert len(drive.rpc(place.owner, "list_shares", node=place.outer)["items"]) == 1


@pytest.mark.parametrize("level", LEVELS)
def test_only_managers_share_and_nobody_above_their_own_level(
    db: Database, drive: Drive, place: Place, level: str
) -> None:
    _share(drive, place.owner, place.outer, place.peer, level=level)
    third = db.create_user()
    for wanted in [*LEVELS, "owner"]:
        if level == "manage" and wanted != "owner":
            assert _share(drive, place.peer, place.inner, third, level=wanted)["level"] == wanted
        else:
            with refused("FORBIDDEN"):
                _share(drive, place.peer, place.inner, third, level=wanted)
    with refused("INVALID_ARGUMENT", field="level"):
        _share(drive, place.owner, place.inner, third, level="owner")


def test_what_makes_no_sense_is_refused(db: Database, drive: Drive, place: Place) -> None:
    past = db.one("select now() - interval '1 second'")
    email = db.one("select email from auth.users where id = %s", place.owner)
    for field, arguments in [
        ("level", {"grantee": {"email": EMAIL}, "level": "king"}),
        ("level", {"grantee": {"email": EMAIL}, "level": None}),
        ("expires_at", {"grantee": {"email": EMAIL}, "expires_at": past}),
        ("grantee.email", {"grantee": {"email": "not an address"}}),
        ("grantee", {"grantee": {}}),
        ("grantee", {"grantee": {"user_id": str(place.owner)}}),
        ("grantee", {"grantee": {"email": email.upper()}}),
        ("grantee.group_id", {"grantee": {"group_id": "x"}}),
    ]:
        with refused("INVALID_ARGUMENT", field=field):
            drive.rpc(place.owner, "share_node", node=place.outer, **arguments)
    # nor does a manager share with the owner, or with themself to outlive their own share
    _share(drive, place.owner, place.outer, place.peer, level="manage")
    for grantee in ({"user_id": str(place.owner)}, {"user_id": str(place.peer)}, {"email": EMAIL}):
        with refused("INVALID_ARGUMENT", field="grantee"):
            _share(drive, place.peer, place.outer, grantee)


def test_a_group_is_shared_with_by_its_members_only(
    db: Database, drive: Drive, place: Place
) -> None:
    group = drive.rpc(place.peer, "create_group", name="team")["id"]
    for unknown in (group, str(uuid.uuid4())):
        with refused("NOT_FOUND"):
            _share(drive, place.owner, place.outer, {"group_id": unknown})
    drive.rpc(place.peer, "add_group_member", group_id=group, member={"user_id": str(place.owner)})
    share = _share(drive, place.owner, place.outer, {"group_id": group})
    assert share["grantee"] == {"group_id": group, "name": "team"}
    assert _sees(drive, place.peer, place)
    # a member leaves the group, not the group's share
    with refused("FORBIDDEN"):
        drive.rpc(place.peer, "unshare_node", share_id=share["id"])


def test_an_unknown_address_is_answered_alike_and_opens_once_it_is_confirmed(
    db: Database, drive: Drive, place: Place
) -> None:
    answers = []
    for email in (EMAIL, "nobody@example.test"):
        answers.append(_share(drive, place.owner, place.outer, {"email": email.upper()}))
        assert answers[-1]["grantee"] == {"email": email}
    assert len({tuple(sorted(a)) for a in answers}) == 1
    listed = drive.rpc(place.owner, "list_shares", node=place.outer)["items"]
    with db.as_user(place.owner):
        rows = db.all("select grantee_id from public.shares")
    assert rows == [None, None]
    assert not any(str(place.peer) in str(item) for item in listed)

    newcomer = db.create_user("nobody@example.test")
    assert _sees(drive, newcomer, place)
    db.all("update auth.users set email_confirmed_at = null where id = %s", newcomer)
    assert not _sees(drive, newcomer, place)


def test_an_expired_share_is_no_share(db: Database, drive: Drive, place: Place) -> None:
    soon = db.one("select now() + interval '1 hour'")
    share = _share(drive, place.owner, place.outer, place.peer, expires_at=soon)
    assert _sees(drive, place.peer, place)
    db.all(
        "update public.shares set expires_at = now() - interval '1 s' where id = %s", share["id"]
    )
    assert not _sees(drive, place.peer, place)
    assert drive.rpc(place.peer, "shared_with_me")["items"] == []
    (listed,) = drive.rpc(place.owner, "list_shares", node=place.outer)["items"]
    assert listed["is_expired"]


def test_a_grantee_may_leave_and_nobody_else_unshares(
    db: Database, drive: Drive, place: Place
) -> None:
    share = _share(drive, place.owner, place.outer, {"email": EMAIL})
    other = db.create_user()
    with refused("NOT_FOUND"):
        drive.rpc(other, "unshare_node", share_id=share["id"])
    _share(drive, place.owner, place.outer, other, level="edit")
    with refused("FORBIDDEN"):
        drive.rpc(other, "unshare_node", share_id=share["id"])
    db.all("update public.user_profiles set role = 'viewer' where id = %s", place.peer)
    assert drive.rpc(place.peer, "unshare_node", share_id=share["id"])["revoked"]
    assert not _sees(drive, place.peer, place)


def test_links_and_uploads_of_the_grantee_end_with_the_share(
    db: Database, drive: Drive, place: Place
) -> None:
    share = _share(drive, place.owner, place.outer, place.peer, level="manage")
    link = drive.rpc(place.peer, "create_share_link", node=place.inner)
    own_link = drive.rpc(place.owner, "create_share_link", node=place.inner)
    ticket = drive.ticket(place.peer, "late.txt", folder_id=place.inner)
    elsewhere = drive.ticket(place.peer, "own.txt")
    owners_ticket = drive.ticket(place.owner, "owners.txt", folder_id=place.inner)
    answer = drive.rpc(place.owner, "unshare_node", share_id=share["id"])
    assert answer == {"revoked": True, "links_revoked": 1}
    with refused("GONE", reason="revoked"):
        drive.rpc(None, "open_share_link", token=link["token"])
    assert drive.rpc(None, "open_share_link", token=own_link["token"])["grant"]
    states = dict(db.all("select id::text, state from public.uploads"))
    assert states[ticket["upload_id"]] == "aborted"
    assert states[elsewhere["upload_id"]] == "open"
    assert states[owners_ticket["upload_id"]] == "open"
    # given again, the share does not bring the link back
    _share(drive, place.owner, place.outer, place.peer, level="manage")
    with refused("GONE", reason="revoked"):
        drive.rpc(None, "open_share_link", token=link["token"])


def test_a_lower_level_ends_what_it_does_not_allow(
    db: Database, drive: Drive, place: Place
) -> None:
    _share(drive, place.owner, place.outer, place.peer, level="manage")
    link = drive.rpc(place.peer, "create_share_link", node=place.inner)
    ticket = drive.ticket(place.peer, "late.txt", folder_id=place.inner)
    _share(drive, place.owner, place.outer, place.peer, level="edit")
    assert db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "open"
    with refused("GONE"):
        drive.rpc(None, "open_share_link", token=link["token"])
    _share(drive, place.owner, place.outer, place.peer, level="comment")
    assert (
        db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "aborted"
    )
    assert drive.probed(place.owner, drive.ticket(place.owner, "x.txt")["key"], 1)  # control


def test_another_way_to_the_same_level_keeps_the_upload(
    db: Database, drive: Drive, place: Place
) -> None:
    share = _share(drive, place.owner, place.outer, place.peer, level="edit")
    _share(drive, place.owner, place.inner, {"email": EMAIL}, level="edit")
    ticket = drive.ticket(place.peer, "late.txt", folder_id=place.inner)
    drive.rpc(place.owner, "unshare_node", share_id=share["id"])
    assert db.one("select state from public.uploads where id = %s", ticket["upload_id"]) == "open"


def test_moving_in_and_out_of_a_shared_folder_opens_and_closes(drive: Drive, place: Place) -> None:
    _share(drive, place.owner, place.inner, place.peer)
    assert _sees(drive, place.peer, place)
    drive.rpc(place.owner, "move_nodes", ids=[place.file], target=place.outer)
    assert not _sees(drive, place.peer, place)
    drive.rpc(place.owner, "move_nodes", ids=[place.file], target=place.inner)
    assert _sees(drive, place.peer, place)


def test_shares_of_a_folder_name_where_they_come_from(drive: Drive, place: Place) -> None:
    above = _share(drive, place.owner, place.outer, {"email": "above@example.test"})
    own = _share(drive, place.owner, place.inner, place.peer, level="manage")
    listed = drive.rpc(place.owner, "list_shares", node=place.inner)["items"]
    assert [(i["id"], i["inherited_from"]) for i in listed] == [
        (own["id"], None),
        (above["id"], {"id": place.outer, "name": "outer"}),
    ]
    # a manager of the inner folder does not learn the name of the outer one
    listed = drive.rpc(place.peer, "list_shares", node=place.inner)["items"]
    assert listed[1]["inherited_from"] == {"id": place.outer, "name": None}
    with refused("NOT_FOUND"):
        drive.rpc(place.peer, "list_shares", node=place.outer)


def test_shared_with_me_lists_the_topmost_in_pages(
    db: Database, drive: Drive, place: Place
) -> None:
    shared = []
    for no in range(5):
        folder = drive.rpc(place.owner, "create_folder", name=f"folder {no}")["id"]
        share = _share(drive, place.owner, folder, place.peer, level=LEVELS[no % 4])
        db.all(
            "update public.shares set created_at = now() + %s * interval '1 s' where id = %s",
            no,
            share["id"],
        )
        shared.append(folder)
    _share(drive, place.owner, place.outer, place.peer)
    _share(drive, place.owner, place.inner, place.peer, level="edit")  # below what is shared
    group = drive.rpc(place.owner, "create_group", name="team")["id"]
    drive.rpc(place.owner, "add_group_member", group_id=group, member={"email": EMAIL})
    _share(drive, place.owner, place.outer, {"group_id": group}, level="comment")  # twice, higher

    found: list[Any] = []
    cursor = None
    while True:
        page = drive.rpc(place.peer, "shared_with_me", page_size=2, cursor=cursor)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["items"]) == 2
    assert len({item["id"] for item in found}) == len(found) == 6
    assert [item["id"] for item in found][:4] == shared[:0:-1]
    outer = next(item for item in found if item["id"] == place.outer)
    assert (outer["level"], outer["kind"], outer["name"]) == ("comment", "folder", "outer")
    assert outer["shared_by"] == {"id": str(place.owner), "full_name": "Ola", "avatar_url": None}
    assert drive.rpc(place.owner, "shared_with_me")["items"] == []
    for bad in ({"page_size": 0}, {"cursor": "x"}):
        with refused("INVALID_ARGUMENT"):
            drive.rpc(place.peer, "shared_with_me", **bad)  # type: ignore[arg-type]
    drive.rpc(place.owner, "trash_nodes", ids=[place.outer])
    assert place.outer not in str(drive.rpc(place.peer, "shared_with_me"))


def test_effective_access_lists_everybody_once_with_the_highest_level(
    db: Database, drive: Drive, place: Place
) -> None:
    _share(drive, place.owner, place.outer, place.peer, level="manage")
    _share(drive, place.owner, place.inner, place.peer, level="view")
    _share(drive, place.owner, place.inner, {"email": "pending@example.test"})
    group = drive.rpc(place.owner, "create_group", name="team")["id"]
    _share(drive, place.owner, place.file, {"group_id": group}, level="edit")
    access = drive.rpc(place.owner, "effective_access", node=place.file)
    assert access["level"] == "owner"
    items = [
        (i.get("user", {}).get("full_name") or i.get("email") or i["group"]["name"], i["level"])
        for i in access["items"]
    ]
    assert items == [
        ("Ola", "owner"),
        ("Pia", "manage"),
        ("team", "edit"),
        ("pending@example.test", "view"),
    ]
    viewer = db.create_user()
    _share(drive, place.owner, place.file, viewer)
    assert drive.rpc(viewer, "effective_access", node=place.file) == {"level": "view"}
    with refused("NOT_FOUND"):
        drive.rpc(db.create_user(), "effective_access", node=place.file)


def test_why_access_explains_the_chain(db: Database, drive: Drive, place: Place) -> None:
    above = _share(drive, place.owner, place.outer, {"email": EMAIL}, level="view")
    group = drive.rpc(place.owner, "create_group", name="team")["id"]
    drive.rpc(place.owner, "add_group_member", group_id=group, member={"email": EMAIL})
    by_group = _share(drive, place.owner, place.inner, {"group_id": group}, level="edit")
    for asking in (place.owner, place.peer):
        why = drive.rpc(asking, "why_access", user=place.peer, node=place.file)
        assert (why["level"], why["user"]["full_name"]) == ("edit", "Pia")
        assert [(w["via"], w["level"], w["share_id"]) for w in why["chain"]] == [
            ("share", "edit", by_group["id"]),
            ("share", "view", above["id"]),
        ]
        assert why["chain"][0]["grantee"] == {"group_id": group, "name": "team"}
        assert why["chain"][1]["node"] == {"id": place.outer, "name": "outer"}
        assert why["chain"][1]["is_inherited"]
    own = drive.rpc(place.owner, "why_access", user=place.owner, node=place.file)
    assert [w["via"] for w in own["chain"]] == ["owner", "share"]  # they are in the group, too
    stranger = db.create_user(full_name="Sam")
    nothing = drive.rpc(place.owner, "why_access", user=stranger, node=place.file)
    assert nothing == {
        "user": {"id": str(stranger)},
        "node_id": place.file,
        "level": None,
        "chain": [],
    }
    with refused("FORBIDDEN"):
        drive.rpc(place.peer, "why_access", user=place.owner, node=place.file)
    with refused("NOT_FOUND"):
        drive.rpc(stranger, "why_access", user=stranger, node=place.file)


def test_people_are_known_to_those_who_share_something(
    db: Database, drive: Drive, place: Place
) -> None:
    mate, third = db.create_user(full_name="Mat"), db.create_user(full_name="Tea")
    everybody = [place.owner, place.peer, mate, third, uuid.uuid4()]

    def known(user: uuid.UUID) -> list[str]:
        items = drive.rpc(user, "people", ids=everybody)["items"]
        return [item["full_name"] for item in items]

    assert known(place.owner) == ["Ola"]
    share = _share(drive, place.owner, place.outer, {"email": EMAIL})
    _share(drive, place.owner, place.inner, third)
    group = drive.rpc(place.owner, "create_group", name="team")["id"]
    drive.rpc(place.owner, "add_group_member", group_id=group, member={"user_id": str(mate)})
    assert known(place.owner) == ["Mat", "Ola", "Pia", "Tea"]
    assert known(place.peer) == ["Ola", "Pia", "Tea"]
    assert known(mate) == ["Mat", "Ola"]
    drive.rpc(place.owner, "unshare_node", share_id=share["id"])
    assert known(place.peer) == ["Pia"]
    with refused("INVALID_ARGUMENT", field="ids"):
        drive.rpc(place.peer, "people", ids=[uuid.uuid4() for _ in range(201)])


def test_a_changed_address_keeps_its_shares_and_leaves_none_behind(
    db: Database, drive: Drive, place: Place
) -> None:
    _share(drive, place.owner, place.outer, {"email": EMAIL})
    for address in ("second@example.test", EMAIL, "third@example.test"):
        db.all("update auth.users set email = %s where id = %s", address, place.peer)
        assert _sees(drive, place.peer, place)
    heir = db.create_user(EMAIL)
    assert not _sees(drive, heir, place)
    # the owner invites the address anew, and its holder changes it as well
    _share(drive, place.owner, place.outer, {"email": EMAIL}, level="edit")
    assert _sees(drive, heir, place)
    db.all("update auth.users set email = 'fourth@example.test' where id = %s", heir)
    assert _sees(drive, heir, place)
    assert _sees(drive, place.peer, place)


def test_a_pinned_share_gives_way_to_a_newer_one_of_the_same_address(
    db: Database, drive: Drive, place: Place
) -> None:
    _share(drive, place.owner, place.outer, {"email": EMAIL}, level="view")
    db.all("update auth.users set email = 'second@example.test' where id = %s", place.peer)
    _share(drive, place.owner, place.outer, {"email": EMAIL}, level="edit")
    db.all("update auth.users set email = %s where id = %s", EMAIL, place.peer)
    db.all("update auth.users set email = 'second@example.test' where id = %s", place.peer)
    assert db.all("select level from public.shares") == ["edit"]
    assert _sees(drive, place.peer, place)


def test_a_viewer_reads_what_is_shared_and_shares_nothing(
    db: Database, drive: Drive, place: Place
) -> None:
    _share(drive, place.owner, place.outer, place.peer, level="manage")
    db.all("update public.user_profiles set role = 'viewer' where id = %s", place.peer)
    assert _sees(drive, place.peer, place)
    assert drive.rpc(place.peer, "list_shares", node=place.outer)["items"]
    with refused("FORBIDDEN", permission="edit_documents"):
        _share(drive, place.peer, place.outer, {"email": "x@example.test"})


def test_shares_of_thousands_are_read_in_sets(db: Database, drive: Drive, place: Place) -> None:
    """A function asked row by row would take seconds."""
    db.all(
        "insert into public.shares (node_id, grantee_email, level)"
        " select %s, 'guest' || i || '@example.test', 'view' from generate_series(1, 20000) as i",
        place.outer,
    )
    db.all("analyze public.shares")
    db.all("set local statement_timeout = '2s'")
    with db.as_user(place.owner):
        assert db.one("select count(*) from public.shares") == 20000
    with db.as_user(place.peer):
        assert db.one("select count(*) from public.shares") == 0
