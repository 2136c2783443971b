"""Spaces as collections of vecs."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pytest

from narwhal.errors import NarwhalError
from narwhal.spaces import Spaces
from narwhal.vectors import export_space, import_space, sqlalchemy_url
from tests.conftest import FreshDatabase
from tests.database import Database
from tests.db.conftest import Drive, embed


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://me:p%40ss@db.example.com:6543/drive?sslmode=require",
            "postgresql+psycopg2://me:p%40ss@/drive?host=db.example.com&port=6543&sslmode=require",
        ),
        (
            "postgresql://me:secret@/drive?host=/tmp/a%20b&port=5432",
            "postgresql+psycopg2://me:secret@/drive?host=%2Ftmp%2Fa%20b&port=5432",
        ),
    ],
)
def test_a_connection_string_is_written_as_vecs_wants_it(url: str, expected: str) -> None:
    found, _, rest = sqlalchemy_url(url).rpartition("&options=")
    assert sorted(found.replace("?", "&").split("&")) == sorted(
        expected.replace("?", "&").split("&")
    )
    assert rest == "-c%20search_path%3Dpublic%2Cextensions"


def test_without_the_extra_it_is_said_how_to_get_it(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "vecs", None)
    spaces = Spaces(fresh_database.url())
    with pytest.raises(NarwhalError) as error:
        export_space(fresh_database.url(), spaces, "minilm-l6-v2", "mine", None)
    spaces.close()
    assert (error.value.error, "narwhal[vecs]" in str(error.value.hint)) == ("NOT_INSTALLED", True)


@pytest.fixture
def world(fresh_database: FreshDatabase) -> Any:
    """Two owners, one with two files and one with one."""
    with fresh_database.connect("supabase_admin") as connection:
        drive = Drive(Database(connection))
        one, other = drive.db.create_user("one@x.test"), drive.db.create_user("other@x.test")
        drive.file(one, "a.txt", "seal tide", "storm bay")
        drive.file(one, "b.txt", "harbour wall")
        drive.file(other, "c.txt", "seal tide")
        yield fresh_database.url(), drive, one, other


def collection(url: str, name: str) -> Any:
    import vecs

    return vecs.create_client(sqlalchemy_url(url)).get_or_create_collection(name, dimension=384)


def test_a_space_goes_out_and_comes_back_as_another(world: Any) -> None:
    url, drive, one, _ = world
    spaces = Spaces(url)
    answer = export_space(url, spaces, "minilm-l6-v2", "everything", None)
    assert (answer["exported"], answer["dimension"]) == (4, 384)
    stored = collection(url, "everything")
    assert len(stored) == 4
    # what vecs finds nearest is what search finds nearest, with its text beside it
    [(chunk, data)] = stored.query(
        data=embed("harbour wall"), limit=1, include_metadata=True, measure="cosine_distance"
    )
    assert (data["file"], data["content"], data["page"]) == ("b.txt", "harbour wall", 1)
    assert chunk == drive.search(one, "harbour wall")["hits"][0]["chunk_id"]
    with pytest.raises(NarwhalError, match="There is a collection"):
        export_space(url, spaces, "minilm-l6-v2", "everything", None)

    made = import_space(url, spaces, "copy", "everything", "m", "1", None)
    assert (made["imported"], made["left_out"], made["missing_chunks"]) == (4, 0, 0)
    same = "select chunk_id, embedding::text from private.chunk_vectors where space_id = %s"
    assert sorted(drive.db.all(same, made["id"])) == sorted(drive.db.all(same, 1))
    before = [hit["chunk_id"] for hit in drive.search(one, "seal")["hits"]]
    assert spaces.activate("copy", 0, print)["changed"]
    after = drive.search(one, "seal")
    assert (after["space"], [hit["chunk_id"] for hit in after["hits"]]) == ("copy", before)
    spaces.close()


def test_one_owners_collection_holds_nothing_of_others(world: Any) -> None:
    url, _, one, _ = world
    spaces = Spaces(url)
    assert export_space(url, spaces, "minilm-l6-v2", "mine", "one@x.test")["exported"] == 3
    owners = {row.metadata["owner_id"] for row in _rows(url, "mine")}
    assert owners == {str(one)}
    made = import_space(url, spaces, "partly", "mine", "m", "1", "other@x.test")
    assert (made["imported"], made["left_out"], made["vectors"]) == (0, 3, 0)
    made = import_space(url, spaces, "mine", "mine", "m", "1", "one@x.test")
    assert (made["imported"], made["vectors"], made["missing_chunks"]) == (3, 3, 1)
    with pytest.raises(Exception, match="lacks 1 chunks of 1 files"):
        spaces.activate("mine", 0, print)
    spaces.close()


def _rows(url: str, name: str) -> list[Any]:
    import vecs

    client = vecs.create_client(sqlalchemy_url(url))
    table = client.get_or_create_collection(name, dimension=384).table
    with client.Session() as session:
        return [
            type("Row", (), {"id": row.id, "metadata": row._mapping["metadata"]})
            for row in session.execute(table.select())
        ]


def test_vectors_of_other_texts_and_of_no_chunk_are_left_out(world: Any) -> None:
    url, drive, _, _ = world
    spaces = Spaces(url)
    export_space(url, spaces, "minilm-l6-v2", "changed", None)
    rows = _rows(url, "changed")
    stored = collection(url, "changed")
    [wall] = [row for row in rows if row.metadata["content"] == "harbour wall"]
    vector = np.ones(384)  # of another length, too
    stored.upsert(
        [
            (wall.id, vector, wall.metadata | {"text_hash": "00"}),
            (str(uuid.uuid4()), vector, {}),
            ("not a chunk", vector, {}),
        ]
    )
    [tide] = [row for row in rows if row.metadata["content"] == "storm bay"]
    stored.upsert([(tide.id, vector, tide.metadata)])
    made = import_space(url, spaces, "changed", "changed", "m", "1", None)
    assert (made["imported"], made["left_out"]) == (3, 3)
    # a.txt and c.txt are complete; of b.txt nothing is known
    assert (made["vectors"], made["missing_files"]) == (3, 1)
    lengths = drive.db.all(
        "select extensions.l2_norm(embedding) from private.chunk_vectors where space_id = %s",
        made["id"],
    )
    assert lengths == pytest.approx([1, 1, 1], abs=1e-3)
    spaces.close()


def test_an_unknown_collection_is_not_found(world: Any) -> None:
    url, _, _, _ = world
    spaces = Spaces(url)
    with pytest.raises(NarwhalError, match="There is no collection"):
        import_space(url, spaces, "x", "nope", "m", "1", None)
    assert [space["name"] for space in spaces.all()] == ["minilm-l6-v2"]
    spaces.close()
