"""When codebooks of pages are trained, by whom, and that search goes on meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg.conninfo import make_conninfo

from narwhal.codebooks import Centroids, learn, nearest_centroids, sign, train, train_due
from narwhal.errors import NarwhalError
from narwhal.ingest import worker
from narwhal.settings import Settings
from tests.conftest import FreshDatabase
from tests.database import Database
from tests.db.conftest import Drive
from tests.db.pictures import Floats, draw, look, make_space, paint


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def _due(db: Database) -> list[Any]:
    return db.all("select d.space, d.pictures, d.trained_for from private.due_codebooks() as d")


def _set(db: Database, **values: str) -> None:
    for key, value in values.items():
        db.all("update private.settings set value = %s where key = %s", value, f"pages.{key}")


def test_a_codebook_is_due_when_a_space_has_outgrown_it(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    make_space(db, "page")
    owner = db.create_user()
    _set(db, codebook_from="3", codebook_growth="2")
    paint(drive, owner, "a.pdf", *(draw(rng) for _ in range(3)))
    assert _due(db) == []
    assert train_due(db.connection) == []
    paint(drive, owner, "b.pdf", draw(rng))
    assert _due(db) == [("page-test", 4, None)]
    with db.as_role("narwhal_worker"):  # who does it when a stack runs
        (made,) = train_due(db.connection)
    assert (made.space, made.pictures) == ("page-test", 4)
    assert _due(db) == []
    paint(drive, owner, "c.pdf", *(draw(rng) for _ in range(3)))
    assert _due(db) == []
    paint(drive, owner, "d.pdf", draw(rng))
    assert _due(db) == [("page-test", 8, 4)]

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_due(db.connection, interrupt)
    _set(db, codebook_growth="100")
    assert _due(db) == [("page-test", 8, 4)]  # what was begun is ended
    (again,) = train_due(db.connection)
    assert again.pictures == 8
    assert _due(db) == []
    _set(db, codebook_growth="1")
    db.all("update public.embedding_spaces set state = 'retiring' where kind = 'page'")
    assert _due(db) == []


def test_search_goes_on_and_finds_new_pages_while_a_codebook_is_trained(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    make_space(db, "page")
    owner = db.create_user()
    _set(db, codebook_from="3", codebook_growth="2")
    pictures = [draw(rng) for _ in range(4)]
    paint(drive, owner, "a.pdf", *pictures)
    train_due(db.connection)
    later = [draw(rng) for _ in range(4)]
    paint(drive, owner, "b.pdf", *later)
    before = look(drive, owner, pictures[0])["hits"]
    seen = []

    def check(_done: int, _total: int) -> None:
        assert look(drive, owner, pictures[0])["hits"] == before
        # a page that comes meanwhile is signed by both codebooks
        paint(drive, owner, "c.pdf", picture := draw(rng))
        assert look(drive, owner, picture)["hits"][0]["name"] == "c.pdf"
        seen.append(picture)

    (made,) = train_due(db.connection, check)
    assert len(seen) == 1
    assert look(drive, owner, seen[0])["hits"][0]["name"] == "c.pdf"
    after = look(drive, owner, pictures[0], top_k=9)["hits"]
    assert [hit for hit in after if hit["name"] != "c.pdf"] == before
    assert db.all("select distinct codebook_id from private.page_vectors") == [made.id]
    count = "select count(*) from private.picture_signatures where codebook_id = %s"
    assert db.one(count, made.id) == 9


def test_only_one_trains_a_space_at_a_time(
    fresh_database: FreshDatabase, rng: np.random.Generator
) -> None:
    with (
        fresh_database.connect("supabase_admin") as connection,
        fresh_database.connect() as other,
    ):
        db = Database(connection)
        drive = Drive(db)
        space = make_space(db, "page")
        _set(db, codebook_from="1")
        paint(drive, db.create_user(), "a.pdf", draw(rng), draw(rng))
        other.execute("select private.lock_codebook(%s::smallint)", (space,))
        with pytest.raises(NarwhalError) as error:
            train(connection, "page-test")
        assert error.value.error == "LOCKED"
        assert train_due(connection) == []
        other.execute("select private.unlock_codebook(%s::smallint)", (space,))
        assert len(train_due(connection)) == 1
        # and whoever has ended holds nothing
        assert other.execute("select private.lock_codebook(%s::smallint)", (space,)).fetchone() == (
            True,
        )


def test_a_worker_trains_by_itself(
    fresh_database: FreshDatabase,
    rng: np.random.Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fresh_database.connect("supabase_admin") as connection:
        db = Database(connection)
        make_space(db, "page")
        _set(db, codebook_from="1")
        paint(Drive(db), db.create_user(), "a.pdf", draw(rng), draw(rng))
        settings = Settings(
            home=tmp_path,
            supabase_url="http://127.0.0.1:9",
            service_role_key="none",
            worker_database_url=make_conninfo(
                fresh_database.url("supabase_admin"), options="-c role=narwhal_worker"
            ),
        )
        monkeypatch.setattr(worker, "TRAIN_EVERY_S", 0.05)
        one = worker.Worker(settings, tmp_path)
        thread = threading.Thread(target=one._keep_trained)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while _due(db) and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            one.stopping.set()
            thread.join(10)
        assert not thread.is_alive()
        trained = "select state, picture_count from private.page_codebooks"
        assert db.all(trained) == [("active", 2)]


# What is learnt ----------------------------------------------------------------------------------


def _brute(vectors: Floats, book: Centroids) -> list[int]:
    return [int(np.argmax(book.centroids @ vector)) for vector in vectors]


def test_centroids_are_as_many_as_asked_for_and_stand_by_region(rng: np.random.Generator) -> None:
    vectors = draw(rng, 500).astype(np.float32)
    for count in (1, 2, 7, 64, 500):
        book = learn(vectors, count, rng)
        assert len(book.centroids) == count
        assert (np.diff(book.regions) >= 0).all()
        assert set(book.regions) == set(range(len(book.centers)))
        assert np.linalg.norm(book.centroids, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_nearest_centroid_is_found_in_two_regions_nearly_always(
    rng: np.random.Generator,
) -> None:
    subjects = draw(rng, 40)
    vectors = draw(rng, 3000, subjects).astype(np.float32)
    book = learn(vectors[:2000], 64, rng)
    found = nearest_centroids(vectors, book)
    agreed = found == np.array(_brute(vectors, book))
    assert agreed.mean() >= 0.95
    numbers, counts = sign(vectors[:50], book)
    assert numbers == sorted(numbers)
    assert sum(counts) == 50
    assert sign(vectors[:0], book) == ([], [])
