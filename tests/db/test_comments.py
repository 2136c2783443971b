"""Comments: who writes, who reads, what stays of a thread."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive, denied, refused


@dataclass
class Room:
    """A folder with a file in it, and people of each level on it."""

    drive: Drive
    owner: uuid.UUID
    manager: uuid.UUID
    editor: uuid.UUID
    talker: uuid.UUID
    reader: uuid.UUID
    stranger: uuid.UUID
    folder: str
    file: str

    def say(self, user: uuid.UUID | None, body: str = "So?", reply_to: Any = None) -> str:
        """Comment on the file; returns the comment's id."""
        made = self.drive.rpc(user, "add_comment", node=self.file, body=body, reply_to=reply_to)
        return str(made["id"])

    def heard(self, user: uuid.UUID | None) -> list[str | None]:
        """The bodies of all comments that somebody sees."""
        with self.drive.db.as_user(user):
            return self.drive.db.all("select body from public.comments order by created_at, body")


@pytest.fixture
def room(db: Database, drive: Drive) -> Room:
    people = [db.create_user() for _ in range(6)]
    folder = drive.rpc(people[0], "create_folder", name="f")["id"]
    for user, level in zip(people[1:5], ("manage", "edit", "comment", "view"), strict=True):
        drive.share(folder, user, level)
    file = drive.upload(people[0], "a.txt", folder_id=folder)["file_id"]
    return Room(drive, *people, folder, file)


# Writing and reading ------------------------------------------------------------------------------


def test_level_comment_writes_and_all_readers_see(room: Room) -> None:
    for who in ("owner", "manager", "editor", "talker"):
        room.say(getattr(room, who), who)
    with refused("FORBIDDEN", required="comment", level="view"):
        room.say(room.reader)
    with refused("NOT_FOUND", id=room.file):
        room.say(room.stranger)
    with refused("NOT_AUTHENTICATED"):
        room.say(None)
    for who in ("owner", "manager", "editor", "talker", "reader"):
        assert room.heard(getattr(room, who)) == ["editor", "manager", "owner", "talker"]
    assert room.heard(room.stranger) == []
    with denied():
        room.heard(None)


def test_a_comment_tells_who_said_it_and_when(room: Room) -> None:
    made = room.drive.rpc(room.talker, "add_comment", node=room.folder, body=" Well…\n字 ")
    assert made["body"] == " Well…\n字 "
    assert (made["node_id"], made["author_id"]) == (room.folder, str(room.talker))
    assert made["created_at"] is not None
    assert [made[key] for key in ("parent_id", "edited_at", "deleted_at", "resolved_at")] == (
        [None] * 4
    )


@pytest.mark.parametrize("body", ["", " \n\t", "\u200b", None, "x" * 10001])
def test_a_comment_says_something_and_is_no_novel(room: Room, body: Any) -> None:
    said = room.say(room.owner, "字" * 10000)
    with refused("INVALID_ARGUMENT", field="body"):
        room.say(room.owner, body)
    with refused("INVALID_ARGUMENT", field="body"):
        room.drive.rpc(room.owner, "edit_comment", id=said, body=body)


def test_the_role_viewer_reads_and_says_nothing(db: Database, room: Room) -> None:
    said = room.say(room.talker, "mine")
    db.all("update public.user_profiles set role = 'viewer' where id = %s", room.talker)
    assert room.heard(room.talker) == ["mine"]
    for function, arguments in (
        ("add_comment", {"node": room.file, "body": "x"}),
        ("edit_comment", {"id": said, "body": "x"}),
        ("delete_comment", {"id": said}),
        ("resolve_comment", {"id": said}),
    ):
        with refused("FORBIDDEN", permission="edit_documents"):
            room.drive.rpc(room.talker, function, **arguments)


def test_comments_are_only_written_through_the_functions(room: Room) -> None:
    room.say(room.owner)
    for statement in (
        "update public.comments set body = 'x'",
        "delete from public.comments",
        "insert into public.comments (node_id, body) select node_id, 'x' from public.comments",
    ):
        with denied(), room.drive.db.as_user(room.owner):
            room.drive.db.connection.execute(statement)  # type: ignore[arg-type]


def test_a_closed_account_neither_reads_nor_writes(db: Database, room: Room) -> None:
    said = room.say(room.talker)
    db.all("update public.user_profiles set is_active = false where id = %s", room.talker)
    assert room.heard(room.talker) == []
    for function, arguments in (
        ("add_comment", {"node": room.file, "body": "x"}),
        ("edit_comment", {"id": said, "body": "x"}),
        ("delete_comment", {"id": said}),
        ("resolve_comment", {"id": said}),
    ):
        with refused("NOT_AUTHENTICATED"):
            room.drive.rpc(room.talker, function, **arguments)


def test_comments_follow_the_node_to_trash_and_back_and_end_with_it(
    db: Database, room: Room
) -> None:
    said = room.say(room.talker, "still here")
    room.drive.rpc(room.owner, "trash_nodes", ids=[room.folder])
    for user in (room.owner, room.talker):
        assert room.heard(user) == []
        with refused("NOT_FOUND", id=said):
            room.drive.rpc(user, "delete_comment", id=said)
    room.drive.rpc(room.owner, "restore_nodes", ids=[room.folder])
    assert room.heard(room.talker) == ["still here"]
    room.drive.rpc(room.owner, "purge_nodes", ids=[room.folder])
    assert room.heard(room.talker) == []
    assert db.one("select private.purge_batch(100)") == 2
    assert db.all("select * from public.comments") == []


def test_what_somebody_said_stays_without_them(db: Database, room: Room) -> None:
    room.say(room.talker, "remember me")
    db.all("delete from auth.users where id = %s", room.talker)
    with db.as_user(room.owner):
        assert db.all("select author_id, body from public.comments") == [(None, "remember me")]


# Threads ------------------------------------------------------------------------------------------


def test_answers_are_one_level_deep(db: Database, room: Room) -> None:
    first = room.say(room.owner, "one")
    second = room.say(room.talker, "two", reply_to=first)
    third = room.say(room.owner, "three", reply_to=second)  # joins the others
    with db.as_user(room.reader):
        assert db.all(
            "select id::text from public.comments where parent_id = %s order by body desc", first
        ) == [second, third]


def test_an_answer_is_to_something_that_stands_here(room: Room) -> None:
    elsewhere = room.drive.rpc(room.owner, "add_comment", node=room.folder, body="x")["id"]
    with refused("INVALID_ARGUMENT", field="reply_to"):
        room.say(room.talker, reply_to=elsewhere)
    hidden = room.drive.upload(room.owner, "hidden.txt")["file_id"]
    unseen = room.drive.rpc(room.owner, "add_comment", node=hidden, body="x")["id"]
    deleted = room.say(room.owner)
    room.say(room.talker, reply_to=deleted)
    room.drive.rpc(room.owner, "delete_comment", id=deleted)
    for nothing in (uuid.uuid4(), unseen, deleted):
        with refused("NOT_FOUND", id=str(nothing)):
            room.say(room.talker, reply_to=nothing)


def test_a_comment_with_answers_leaves_its_place_until_they_go(db: Database, room: Room) -> None:
    first = room.say(room.talker, "one")
    answers = [room.say(room.owner, body, reply_to=first) for body in ("two", "three")]
    room.drive.rpc(room.talker, "delete_comment", id=first)
    assert room.heard(room.reader) == ["three", "two", None]
    with db.as_user(room.reader):
        assert db.one("select deleted_at is not null from public.comments where id = %s", first)
    for function, more in (("delete_comment", {}), ("edit_comment", {"body": "x"})):
        with refused("NOT_FOUND", id=first):
            room.drive.rpc(room.talker, function, id=first, **more)
    room.drive.rpc(room.owner, "delete_comment", id=answers[0])
    assert room.heard(room.reader) == ["three", None]
    room.drive.rpc(room.owner, "delete_comment", id=answers[1])
    assert db.all("select * from public.comments") == []


def test_a_comment_without_answers_is_gone(db: Database, room: Room) -> None:
    first = room.say(room.owner, "one")
    second = room.say(room.talker, "two", reply_to=first)
    room.drive.rpc(room.talker, "delete_comment", id=second)
    assert room.heard(room.owner) == ["one"]  # one that stands stays without answers
    room.drive.rpc(room.owner, "delete_comment", id=first)
    assert db.all("select * from public.comments") == []


# Changing -----------------------------------------------------------------------------------------


def test_only_its_author_changes_a_comment(room: Room) -> None:
    said = room.say(room.talker, "one")
    changed = room.drive.rpc(room.talker, "edit_comment", id=said, body="two")
    assert changed["body"] == "two"
    assert changed["edited_at"] is not None
    for user in (room.owner, room.manager, room.editor, room.reader):
        with refused("FORBIDDEN"):
            room.drive.rpc(user, "edit_comment", id=said, body="three")
    with refused("NOT_FOUND", id=said):
        room.drive.rpc(room.stranger, "edit_comment", id=said, body="three")
    assert room.heard(room.owner) == ["two"]


@pytest.mark.parametrize(
    ("who", "outcome"),
    [
        ("owner", None),
        ("manager", None),
        ("talker", None),  # its author
        ("editor", "FORBIDDEN"),
        ("reader", "FORBIDDEN"),
        ("stranger", "NOT_FOUND"),
    ],
)
def test_its_author_or_a_manager_deletes_a_comment(
    room: Room, who: str, outcome: str | None
) -> None:
    said = room.say(room.talker)
    if outcome is None:
        room.drive.rpc(getattr(room, who), "delete_comment", id=said)
        assert room.heard(room.owner) == []
    else:
        with refused(outcome):
            room.drive.rpc(getattr(room, who), "delete_comment", id=said)
        assert room.heard(room.owner) == ["So?"]


def test_who_may_only_look_by_now_takes_back_but_does_not_change(db: Database, room: Room) -> None:
    said = room.say(room.talker)
    db.all("update public.shares set level = 'view' where grantee_id = %s", room.talker)
    with refused("FORBIDDEN", required="comment"):
        room.drive.rpc(room.talker, "edit_comment", id=said, body="x")
    room.drive.rpc(room.talker, "delete_comment", id=said)
    said = room.say(room.editor)
    db.all("delete from public.shares where grantee_id = %s", room.editor)
    for function, more in (("delete_comment", {}), ("edit_comment", {"body": "x"})):
        with refused("NOT_FOUND", id=said):
            room.drive.rpc(room.editor, function, id=said, **more)
    assert room.heard(room.editor) == []


def test_a_matter_is_settled_and_opened_again(room: Room) -> None:
    said = room.say(room.owner)
    answer = room.say(room.owner, reply_to=said)
    done = room.drive.rpc(room.talker, "resolve_comment", id=said)
    assert (done["resolved_by"], done["resolved_at"] is None) == (str(room.talker), False)
    again = room.drive.rpc(room.owner, "resolve_comment", id=said)
    assert again["resolved_by"] == str(room.talker)  # who did it first
    opened = room.drive.rpc(room.talker, "resolve_comment", id=said, is_resolved=False)
    assert (opened["resolved_by"], opened["resolved_at"]) == (None, None)
    with refused("INVALID_ARGUMENT", field="id"):
        room.drive.rpc(room.owner, "resolve_comment", id=answer)
    with refused("INVALID_ARGUMENT", field="is_resolved"):
        room.drive.rpc(room.owner, "resolve_comment", id=said, is_resolved=None)
    with refused("FORBIDDEN", required="comment"):
        room.drive.rpc(room.reader, "resolve_comment", id=said)
    with refused("NOT_FOUND"):
        room.drive.rpc(room.stranger, "resolve_comment", id=said)


def test_threads_stay_whole_while_people_answer_and_delete_at_once(
    connect: Callable[[], Drive],
) -> None:
    drive = connect()
    db = drive.db
    owner, peer = db.create_user(), db.create_user()
    file = drive.upload(owner, "a.txt")["file_id"]
    drive.share(file, peer, "manage")
    outcomes: set[str] = set()

    def talk(party: tuple[Drive, uuid.UUID, int]) -> None:
        mine, user, seed = party
        for i in range(60):
            try:
                said = mine.db.all("select id from public.comments order by md5(id::text || %s)", i)
                if i % 3 == 0 or not said:
                    mine.rpc(user, "add_comment", node=file, body="x")
                elif (i + seed) % 3 == 1:
                    mine.rpc(user, "add_comment", node=file, body="x", reply_to=said[0])
                else:
                    mine.rpc(user, "delete_comment", id=said[0])
                outcomes.add("done")
            except psycopg.Error as error:
                outcomes.add(str(error.sqlstate))

    parties = [(connect(), user, i) for i, user in enumerate([owner, peer, peer, owner])]
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(talk, parties))
    assert outcomes <= {"done", "PT404"}
    assert (
        db.all(
            "select c.id from public.comments as c where c.deleted_at is not null and not exists"
            " (select from public.comments as r where r.parent_id = c.id)"
        )
        == []
    )
