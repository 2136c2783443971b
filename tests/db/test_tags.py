"""Tags: who puts them on what, how they are spelled, how they are found."""

from __future__ import annotations

import json
import unicodedata
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, denied, holding_link, refused


def _folder(drive: Drive, user: uuid.UUID, name: str, parent: str | None = None) -> str:
    return str(drive.rpc(user, "create_folder", name=name, parent=parent)["id"])


def _tag(drive: Drive, user: uuid.UUID, node: str, *tags: str) -> None:
    drive.rpc(user, "tag_nodes", ids=[node], add=list(tags))


def _tags(db: Database, user: uuid.UUID) -> list[str]:
    with db.as_user(user):
        return db.all("select tag from public.node_tags order by tag_key")


def _counts(drive: Drive, user: uuid.UUID) -> dict[str, int]:
    return {item["tag"]: item["count"] for item in drive.rpc(user, "list_tags")["items"]}


# Putting them on ----------------------------------------------------------------------------------


def test_tags_are_put_on_many_and_taken_off_at_once(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    a, b = sorted(_folder(drive, owner, name) for name in "ab")
    answer = drive.rpc(owner, "tag_nodes", ids=[b, a, a], add=["q3", "Draft"])
    assert answer == {"items": [{"id": node, "tags": ["Draft", "q3"]} for node in (a, b)]}
    answer = drive.rpc(owner, "tag_nodes", ids=[a], add=["final"], remove=["DRAFT", "unknown"])
    assert answer == {"items": [{"id": a, "tags": ["final", "q3"]}]}
    assert _counts(drive, owner) == {"q3": 2, "Draft": 1, "final": 1}
    with db.as_user(owner):
        assert db.all("select distinct created_by, owner_id from public.node_tags") == [
            (owner, owner)
        ]


def test_one_tag_has_one_spelling_on_a_node(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    node = _folder(drive, owner, "a")
    _tag(drive, owner, node, "Café", "\u3000 café\t", unicodedata.normalize("NFD", "CAFÉ"))
    assert _tags(db, owner) == ["Café"]
    # taking it off first changes the spelling
    drive.rpc(owner, "tag_nodes", ids=[node], add=["CAFÉ"], remove=["café"])
    assert _tags(db, owner) == ["CAFÉ"]
    for spelling in ("CAFÉ", "café"):
        with db.as_user(owner):  # a frontend's own filter
            assert db.all("select tag from public.node_tags where tag_key = 'café'") == ["CAFÉ"]
        drive.rpc(owner, "tag_nodes", ids=[node], remove=[spelling])
        assert _tags(db, owner) == []
        _tag(drive, owner, node, "CAFÉ")


def test_a_list_of_tags_shows_the_spelling_that_most_have(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for name, tag in (("a", "todo"), ("b", "Todo"), ("c", "Todo"), ("d", "zebra")):
        _tag(drive, owner, _folder(drive, owner, name), tag)
    assert drive.rpc(owner, "list_tags") == {
        "items": [{"tag": "Todo", "count": 3}, {"tag": "zebra", "count": 1}],
        "next_cursor": None,
    }


@pytest.mark.parametrize(
    "tag", ["", "  ", "\u200b", "x" * 65, "a\nb", "a\u0007", "\u202egnp.exe", None]
)
@pytest.mark.parametrize("field", ["add", "remove"])
def test_what_is_no_tag_is_refused(db: Database, drive: Drive, tag: str | None, field: str) -> None:
    owner = db.create_user()
    node = _folder(drive, owner, "a")
    with refused("INVALID_ARGUMENT", field=field):
        drive.rpc(owner, "tag_nodes", ids=[node], **{field: ["fine", tag]})
    assert _tags(db, owner) == []
    _tag(drive, owner, node, "字" * 64, "a, b", "-- ' drop")
    assert len(_tags(db, owner)) == 3


@pytest.mark.parametrize("ids", [[], None, [str(uuid.uuid4())] * 1001])
def test_a_batch_names_something_and_not_everything(
    db: Database, drive: Drive, ids: list[str] | None
) -> None:
    with refused("INVALID_ARGUMENT", field="ids"):
        drive.rpc(db.create_user(), "tag_nodes", ids=ids, add=["x"])


def test_a_node_has_at_most_fifty(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    full, free = _folder(drive, owner, "full"), _folder(drive, owner, "free")
    _tag(drive, owner, full, *(f"t{i}" for i in range(50)))
    with refused("INVALID_ARGUMENT", field="add", limit=50, id=full) as found:
        drive.rpc(owner, "tag_nodes", ids=[free, full], add=["one", "t1"])
    assert [item["id"] for item in found["items"]] == [full]
    assert len(_tags(db, owner)) == 50  # nothing on the other one either
    drive.rpc(owner, "tag_nodes", ids=[full], add=["one"], remove=["t1"])
    assert len(_tags(db, owner)) == 50


def test_a_batch_is_all_or_nothing_and_lists_what_was_wrong(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    mine = _folder(drive, peer, "mine")
    seen, hidden = _folder(drive, owner, "seen"), _folder(drive, owner, "hidden")
    drive.share(seen, peer, "comment")
    with refused("FORBIDDEN" if seen < hidden else "NOT_FOUND") as found:
        drive.rpc(peer, "tag_nodes", ids=[mine, hidden, seen], add=["x"])
    assert {item["id"]: item["error"] for item in found["items"]} == {
        seen: "FORBIDDEN",
        hidden: "NOT_FOUND",
    }
    assert _tags(db, peer) == []


def test_level_edit_tags_and_readers_see(db: Database, drive: Drive) -> None:
    owner, editor, reader, stranger = (db.create_user() for _ in range(4))
    node = _folder(drive, owner, "a")
    drive.share(node, editor, "edit")
    drive.share(node, reader, "comment")
    _tag(drive, editor, node, "q3")
    with db.as_user(owner):
        assert db.all("select created_by, owner_id from public.node_tags") == [(editor, owner)]
    with refused("FORBIDDEN", required="edit"):
        _tag(drive, reader, node, "x")
    with refused("NOT_FOUND"):
        _tag(drive, stranger, node, "x")
    for user, tags in ((owner, ["q3"]), (reader, ["q3"]), (stranger, [])):
        assert _tags(db, user) == tags
        assert list(_counts(drive, user)) == tags
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "list_tags")
    for statement in (
        "delete from public.node_tags",
        "update public.node_tags set tag = 'x'",
        "insert into public.node_tags (node_id, tag, owner_id) select node_id, 'x', owner_id"
        " from public.node_tags",
    ):
        with denied(), db.as_user(owner):
            db.connection.execute(statement)  # type: ignore[arg-type]
    db.all("update public.user_profiles set is_active = false where id = %s", owner)
    assert _tags(db, owner) == []
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(owner, "list_tags")


def test_tags_follow_the_node_to_trash_and_back_and_end_with_it(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    node = _folder(drive, owner, "a")
    _tag(drive, owner, node, "q3")
    drive.rpc(owner, "trash_nodes", ids=[node])
    assert (_tags(db, owner), _counts(drive, owner)) == ([], {})
    with refused("NOT_FOUND"):
        _tag(drive, owner, node, "x")
    drive.rpc(owner, "restore_nodes", ids=[node])
    assert (_tags(db, owner), _counts(drive, owner)) == (["q3"], {"q3": 1})
    drive.rpc(owner, "purge_nodes", ids=[node])
    assert (_tags(db, owner), _counts(drive, owner)) == ([], {})
    assert db.one("select private.purge_batch(100)") == 1
    assert db.all("select * from public.node_tags") == []


def test_tags_go_with_a_node_to_another_owner(db: Database, drive: Drive) -> None:
    owner, other = db.create_user(), db.create_user()
    file = drive.file(owner, "a.txt", "budget one")["file_id"]
    _tag(drive, owner, file, "q3")
    folder = _folder(drive, other, "theirs")
    drive.share(folder, owner, "edit")
    drive.rpc(owner, "move_nodes", ids=[file], target=folder)
    db.all("delete from public.shares")
    assert _counts(drive, other) == {"q3": 1}
    assert _counts(drive, owner) == {}
    assert db.all("select owner_id from public.node_tags") == [other]


def test_two_who_tag_at_once_never_pass_the_limit(connect: Callable[[], Drive]) -> None:
    drive = connect()
    owner, peer = drive.db.create_user(), drive.db.create_user()
    nodes = [_folder(drive, owner, name) for name in "ab"]
    for node in nodes:
        drive.share(node, peer, "edit")
    outcomes: list[str] = []

    def tag(party: tuple[Drive, uuid.UUID, list[str]]) -> None:
        mine, user, order = party
        for i in range(40):
            try:
                mine.rpc(user, "tag_nodes", ids=order, add=[f"{user} {i}"])
                outcomes.append("done")
            except psycopg.Error as error:
                outcomes.append(str(error.sqlstate))

    parties = [(connect(), owner, nodes), (connect(), peer, nodes[::-1])]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(tag, parties))
    counts = drive.db.all("select count(*) from public.node_tags group by node_id")
    assert counts == [50, 50]
    assert sorted(outcomes) == ["PT422"] * 30 + ["done"] * 50


# Finding by them ----------------------------------------------------------------------------------


@pytest.fixture
def library(db: Database, drive: Drive) -> dict[str, Any]:
    """Files of an owner and of another, with tags on both."""
    owner, other = db.create_user(), db.create_user()
    folder = _folder(drive, owner, "folder")
    files = {
        "a": drive.file(owner, "a.txt", "budget one", folder_id=folder)["file_id"],
        "b": drive.file(owner, "b.pdf", "budget two")["file_id"],
        "c": drive.file(owner, "c.txt", "budget three")["file_id"],
        "shared": drive.file(other, "shared.txt", "budget four")["file_id"],
        "secret": drive.file(other, "secret.txt", "budget five")["file_id"],
    }
    drive.share(files["shared"], owner)
    _tag(drive, owner, files["a"], "Q3", "plan")
    _tag(drive, owner, files["b"], "q4", "plan")
    _tag(drive, owner, folder, "box")
    for name in ("shared", "secret"):
        _tag(drive, other, files[name], "q3", "own")
    return {"owner": owner, "other": other, "folder": folder} | files


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"tags": ["q3"]}, {"a", "shared"}),
        ({"tags": [" Q3 "]}, {"a", "shared"}),
        ({"tags": ["q3", "q4"]}, {"a", "b", "shared"}),  # any of them
        ({"tags": ["own"]}, {"shared"}),
        ({"tags": ["unknown"]}, set()),
        ({"tags": ["unknown", "plan"]}, {"a", "b"}),
        ({"tags": ["box"]}, set()),  # a folder's tag is its own
        ({"tags": [""]}, set()),
        ({"tags": []}, {"a", "b", "c", "shared"}),
        ({"tags": None}, {"a", "b", "c", "shared"}),
        ({"tags": ["plan"], "types": ["pdf"]}, {"b"}),
        ({"tags": ["plan"], "folder_id": "folder"}, {"a"}),
    ],
)
def test_a_search_by_tags_finds_what_has_any_of_them(
    drive: Drive, library: dict[str, Any], filters: dict[str, Any], names: set[str]
) -> None:
    filters = {k: library["folder"] if k == "folder_id" else v for k, v in filters.items()}
    for more in ({}, {"embedding": None}, {"options": {"weights": {"keyword": 0}}}):
        hits = drive.search(library["owner"], "budget", filters=Jsonb(filters), **more)["hits"]
        assert {hit["file_id"] for hit in hits} == {library[name] for name in names}


@pytest.mark.parametrize(
    ("tags", "names"),
    [
        (["PLAN"], ["a.txt", "b.pdf"]),
        (["q3", "box"], ["a.txt", "folder"]),
        (["own"], []),  # shared, but not in there
        (["unknown"], []),
        ([], ["a.txt", "b.pdf", "c.txt", "folder"]),
        (None, ["a.txt", "b.pdf", "c.txt", "folder"]),
    ],
)
def test_a_folder_is_listed_by_tags(
    drive: Drive, library: dict[str, Any], tags: list[str] | None, names: list[str]
) -> None:
    page = drive.rpc(library["owner"], "list_folder", recursive=True, filters=Jsonb({"tags": tags}))
    assert [item["name"] for item in page["items"]] == names
    with refused("INVALID_ARGUMENT", field="filters.tags"):
        drive.rpc(library["owner"], "list_folder", filters=Jsonb({"tags": "q3"}))


def test_a_shared_folder_is_listed_by_tags_but_not_without_an_account(
    db: Database, drive: Drive, library: dict[str, Any]
) -> None:
    filters = Jsonb({"tags": ["q3"]})
    page = {"folder": library["folder"], "filters": filters}
    with refused("NOT_FOUND"):
        drive.rpc(library["other"], "list_folder", **page)
    drive.share(library["folder"], library["other"])
    items = drive.rpc(library["other"], "list_folder", **page)["items"]
    assert [item["name"] for item in items] == ["a.txt"]
    with holding_link(db, library["folder"], library["owner"]):
        items = drive.rpc(None, "list_folder", folder=library["folder"])["items"]
        assert [item["name"] for item in items] == ["a.txt"]  # control
        with refused("NOT_AUTHENTICATED"):
            drive.rpc(None, "list_folder", **page)


def test_tags_tell_nobody_of_files_they_cannot_read(
    db: Database, drive: Drive, library: dict[str, Any]
) -> None:
    stranger = db.create_user()
    assert drive.search(stranger, "budget", filters=Jsonb({"tags": ["q3"]}))["hits"] == []
    assert _counts(drive, stranger) == {}
    # the one that is shared counts, the other one does not
    assert _counts(drive, library["owner"]) == {"plan": 2, "Q3": 2, "q4": 1, "own": 1, "box": 1}
    assert _counts(drive, library["other"]) == {"q3": 2, "own": 2}
    db.all("delete from public.shares")
    assert _counts(drive, library["owner"]) == {"plan": 2, "Q3": 1, "q4": 1, "box": 1}


def test_neither_search_nor_list_reads_other_owners_tags(db: Database, drive: Drive) -> None:
    owner, peer, sharer = (db.create_user() for _ in range(3))
    mine = _folder(drive, owner, "mine")
    _tag(drive, owner, mine, "q3")
    shared = _folder(drive, sharer, "shared")
    _tag(drive, sharer, shared, "q3")
    drive.share(shared, owner)
    # as many of others as make a difference, half of them the sharer's
    db.all(
        "with made as (select gen_random_uuid() as id, i from generate_series(1, 20000) as i)"
        ", stored as (insert into public.nodes (id, kind, name, owner_id, path)"
        " select id, 'folder', 'other ' || i, case when i %% 2 = 0 then %s::uuid else %s end,"
        " array[id] from made) select",
        peer,
        sharer,
    )
    db.all(
        "insert into public.node_tags (node_id, tag, owner_id)"
        " select n.id, 'q3', n.owner_id from public.nodes as n where starts_with(n.name, 'other')"
    )
    db.all("analyze public.node_tags, public.nodes")
    for query in (
        "select public.list_tags()",
        'select public.list_folder(filters => \'{"tags": ["q3"]}\')',
        "select public.hybrid_search('budget', filters => '{\"tags\": [\"q3\"]}')",
    ):
        before = _reads(db)
        with db.as_user(owner):
            db.all(query)
        assert _reads(db) - before <= 20, query
    with db.as_user(peer):
        db.all("select public.list_tags()")
    assert _reads(db) - before > 10000  # control


def _reads(db: Database) -> int:
    """Rows of node_tags that this transaction has read so far."""
    return int(
        db.one(
            "select pg_stat_get_xact_tuples_returned(c.oid)"
            " + pg_stat_get_xact_tuples_fetched(c.oid)"
            " + coalesce(sum(pg_stat_get_xact_tuples_returned(i.indexrelid)), 0)"
            " from pg_class as c join pg_index as i on i.indrelid = c.oid"
            " where c.oid = 'public.node_tags'::regclass group by c.oid"
        )
    )


def test_more_tags_than_anybody_reads_are_cut_off(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    nodes = [_folder(drive, owner, f"{i}") for i in range(21)]
    for i, node in enumerate(nodes):
        _tag(drive, owner, node, *(f"t{i * 50 + j}" for j in range(50)))
    drive.rpc(owner, "tag_nodes", ids=nodes, remove=["t1049"])
    items = drive.rpc(owner, "list_tags")["items"]
    assert len(items) == 1000
    assert len(json.dumps(items)) < 100_000
