"""search_pages and search_images against MaxSim and cosine written down a second time."""

from __future__ import annotations

import random
import uuid
from typing import Any

import numpy as np
import pytest
from psycopg.types.json import Jsonb

from narwhal.codebooks import train
from narwhal.errors import NarwhalError
from tests.database import Database
from tests.db.conftest import Drive, refused
from tests.db.pictures import (
    DIMENSION,
    Floats,
    draw,
    hash_of,
    ingest,
    look,
    make_space,
    max_sim,
    paint,
    run_stage,
    see,
    store,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def pages(db: Database) -> int:
    """The space that pages are searched in."""
    return make_space(db, "page")


@pytest.fixture
def images(db: Database) -> int:
    """The space that images are searched in."""
    return make_space(db, "image")


def _found(answer: Any) -> list[tuple[str, int]]:
    return [(hit["file_id"], hit["page"]) for hit in answer["hits"]]


def _expected(question: Floats, shown: dict[tuple[str, int], Floats]) -> dict[Any, float]:
    scores = {place: max_sim(question, picture) for place, picture in shown.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


# Scores ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pages")
def test_pages_are_ranked_by_max_sim(db: Database, drive: Drive, rng: np.random.Generator) -> None:
    owner = db.create_user()
    shown = {}
    for number in range(4):
        pictures = [draw(rng, int(rng.integers(1, 9))) for _ in range(3)]
        file = paint(drive, owner, f"{number}.pdf", *pictures)["file_id"]
        shown |= {(file, page): picture for page, picture in enumerate(pictures, 1)}
    for tokens in (1, 5, 64):
        question = draw(rng, tokens)
        answer = look(drive, owner, question, top_k=100, explain=True)
        expected = _expected(question, shown)
        found = {(hit["file_id"], hit["page"]): hit["score"] for hit in answer["hits"]}
        assert found == pytest.approx(expected, abs=2e-3 * tokens)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert answer["explain"]["plan"] == "exact"
        assert answer["explain"]["pages"] == len(shown)
        for top_k in (1, 3, 8):
            again = look(drive, owner, question, top_k=top_k)
            assert again["hits"] == answer["hits"][:top_k]
        assert look(drive, owner, question)["hits"] == answer["hits"][:8]  # the default


@pytest.mark.usefixtures("pages")
def test_a_page_without_text_is_found_and_its_file_is_ready(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    picture = draw(rng)
    ticket = paint(drive, owner, "scan.pdf", picture)
    details = drive.rpc(owner, "file_details", file_id=ticket["file_id"])
    assert (details["status"], details["problem"]) == ("ready", None)
    (hit,) = look(drive, owner, picture)["hits"]
    assert hit["file_id"] == ticket["file_id"]
    assert hit["version_id"] == ticket["version_id"]
    assert (hit["name"], hit["path"], hit["page"]) == ("scan.pdf", "/scan.pdf", 1)
    assert hit["is_head"] is True
    assert hit["score"] == pytest.approx(len(picture), abs=0.02)
    assert hit["thumbnail_key"] is None
    rendition = drive.rendition(ticket["version_id"], page=1)
    key = db.one(
        "select b.key from public.renditions as r inner join private.blobs as b on b.id = r.blob_id"
        " where r.id = %s",
        rendition,
    )
    (hit,) = look(drive, owner, picture)["hits"]
    assert (hit["thumbnail_bucket"], hit["thumbnail_key"]) == ("derived", key)


@pytest.mark.usefixtures("pages")
def test_padding_counts_for_nothing(db: Database, drive: Drive, rng: np.random.Generator) -> None:
    owner = db.create_user()
    picture = -np.abs(draw(rng, 4))  # every cosine to the question is below 0, that of padding
    question = np.abs(draw(rng, 3))
    padded = np.vstack([picture, np.zeros((3, DIMENSION))])
    file = paint(drive, owner, "a.pdf", padded, np.zeros((5, DIMENSION)), np.zeros((0, DIMENSION)))
    answer = look(drive, owner, np.vstack([question, np.zeros((2, DIMENSION))]))
    # pages that are nothing but padding are like nothing
    assert _found(answer) == [(file["file_id"], 1)]
    assert answer["hits"][0]["score"] == pytest.approx(max_sim(question, picture), abs=0.01)
    assert answer["hits"][0]["score"] < 0


@pytest.mark.usefixtures("pages")
def test_heat_shows_where_each_vector_is_found(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    picture = draw(rng, 6)
    picture[2] = 0  # padding keeps its place
    ticket = drive.upload(owner, "a.pdf")
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "embed_pages":
                store(drive, job, {1: picture}, grid=[3, 2])
            run_stage(drive, job, [picture])
    (hit,) = look(drive, owner, picture[[5, 0, 3]], options={"heat": True})["hits"]
    assert [(spot["vector"], spot["box"]) for spot in hit["heat"]] == [
        (1, [0.6667, 0.5, 1, 1]),
        (2, [0, 0, 0.3333, 0.5]),
        (3, [0, 0.5, 0.3333, 1]),
    ]
    assert [spot["score"] for spot in hit["heat"]] == pytest.approx([1, 1, 1], abs=0.01)
    assert look(drive, owner, picture[:1])["hits"][0]["heat"] is None
    # without a grid a vector stands for no place
    paint(drive, owner, "b.pdf", other := draw(rng))
    top = look(drive, owner, other, options={"heat": True})["hits"][0]
    assert (top["name"], top["heat"]) == ("b.pdf", None)
    assert ticket["file_id"] == hit["file_id"]


@pytest.mark.usefixtures("pages")
def test_a_text_and_a_picture_together_are_found_where_both_are(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    """Neither finds the page alone; a question of both is the sum of both."""
    owner = db.create_user()
    axes = np.eye(DIMENSION)
    text, picture = axes[:2], axes[4:7]  # as two encoders of one space give them
    shown = {
        "text.pdf": np.vstack([text, axes[2:4]]),
        "picture.pdf": np.vstack([picture, axes[2:4]]),
        "both.pdf": np.vstack([0.8 * text + 0.6 * axes[3], 0.9 * picture + 0.43589 * axes[3]]),
        "neither.pdf": draw(rng, 4) * [0, 0, 1, 1, 0, 0, 0, 1] + 0.01,
    }
    for name, page in shown.items():
        paint(drive, owner, name, page)

    def asked(question: Floats) -> dict[str, float]:
        return {hit["name"]: hit["score"] for hit in look(drive, owner, question)["hits"]}

    by_text, by_picture = asked(text), asked(picture)
    assert next(iter(by_text)) == "text.pdf"
    assert next(iter(by_picture)) == "picture.pdf"
    together = asked(np.vstack([text, picture]))
    assert list(together)[:3] == ["both.pdf", "picture.pdf", "text.pdf"]
    assert together == pytest.approx({n: by_text[n] + by_picture[n] for n in shown}, abs=0.01)
    # the order of both, and padding between them, change nothing
    padding = np.zeros((3, DIMENSION))
    assert asked(np.vstack([picture, text])) == pytest.approx(together, abs=1e-6)
    padded = look(drive, owner, np.vstack([text, padding, picture, padding]), explain=True)
    assert {hit["name"]: hit["score"] for hit in padded["hits"]} == pytest.approx(together)
    best = padded["hits"][0]
    assert best["parts"]["mean"] == pytest.approx(best["score"] / 5)
    assert padded["explain"]["vectors"] == 5


@pytest.mark.usefixtures("pages")
def test_heat_of_a_text_and_a_picture_names_the_vectors_as_they_were_sent(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    patches = np.eye(DIMENSION)[:6]
    drive.upload(owner, "a.pdf")
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "embed_pages":
                store(drive, job, {1: patches}, grid=[3, 2])
            run_stage(drive, job, [patches])
    # words, padding up to a batch's length, then a picture's vectors
    text, padding, picture = patches[[1, 4]], np.zeros((3, DIMENSION)), patches[[5, 0]]
    (hit,) = look(
        drive, owner, np.vstack([text, padding, picture, padding]), options={"heat": True}
    )["hits"]
    assert [(spot["vector"], spot["box"]) for spot in hit["heat"]] == [
        (1, [0.3333, 0, 0.6667, 0.5]),
        (2, [0.3333, 0.5, 0.6667, 1]),
        (6, [0.6667, 0.5, 1, 1]),
        (7, [0, 0, 0.3333, 0.5]),
    ]
    assert [spot["score"] for spot in hit["heat"]] == pytest.approx([1] * 4, abs=0.01)


def test_the_same_image_comes_first(
    db: Database, drive: Drive, images: int, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    pictures = [draw(rng, 1) for _ in range(12)]
    files = [
        paint(drive, owner, f"{number}.png", picture, mime="image/png")["file_id"]
        for number, picture in enumerate(pictures)
    ]
    for number, picture in enumerate(pictures):
        answer = see(drive, owner, picture[0] * 3)
        assert answer["hits"][0]["file_id"] == files[number]
        assert answer["hits"][0]["score"] == pytest.approx(1, abs=2e-3)
        expected = sorted((float(picture[0] @ p[0]) for p in pictures), reverse=True)[:10]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx(expected, abs=2e-3)
    # a picture and words together: the direction between both
    both = see(drive, owner, np.vstack([pictures[0], pictures[1]]))["hits"]
    assert {hit["file_id"] for hit in both[:2]} == set(files[:2])
    near = see(drive, owner, pictures[0][0], options={"threshold": 0.99})
    assert _found(near) == [(files[0], 1)]
    assert db.one("select count(*) from private.page_vectors where space_id = %s", images) == 12


# What is asked wrongly ---------------------------------------------------------------------------

GOOD = [0.5] * DIMENSION
WRONG: list[Any] = [
    None,
    [],
    {},
    "x",
    7,
    GOOD,
    [GOOD, GOOD[1:]],
    [[*GOOD, 1]],
    [[]],
    [None],
    [GOOD, "[1,2"],
    [GOOD, "[" + "NaN," * (DIMENSION - 1) + "1]"],
    [["NaN"] * DIMENSION],
    [[None] * DIMENSION],
    [[1e30] * DIMENSION],
    [["1); drop table public.nodes; --"] * DIMENSION],
    [GOOD] * 65,
    [[0] * DIMENSION],
]


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize("number", range(len(WRONG)))
def test_vectors_that_are_none_are_refused(db: Database, drive: Drive, number: int) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="vectors", expected=DIMENSION):
        drive.rpc(owner, "search_pages", vectors=Jsonb(WRONG[number]))


@pytest.mark.usefixtures("pages")
def test_vectors_may_be_strings(db: Database, drive: Drive, rng: np.random.Generator) -> None:
    owner = db.create_user()
    paint(drive, owner, "a.pdf", picture := draw(rng))
    texts = Jsonb([str(vector.tolist()) for vector in picture])
    assert drive.rpc(owner, "search_pages", vectors=texts) == look(drive, owner, picture)


@pytest.mark.parametrize("wrong", [None, {}, "x", GOOD[1:], [*GOOD, 1], ["1"] * 8, [GOOD] * 9, []])
@pytest.mark.usefixtures("images")
def test_an_embedding_that_is_none_is_refused(db: Database, drive: Drive, wrong: Any) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="embedding"):
        drive.rpc(owner, "search_images", embedding=Jsonb(wrong))


@pytest.mark.usefixtures("pages", "images")
def test_other_arguments_are_checked(db: Database, drive: Drive, rng: np.random.Generator) -> None:
    owner = db.create_user()
    question = draw(rng)
    for name, value in (("top_k", 0), ("top_k", 101), ("candidates", 0), ("candidates", 1001)):
        with refused("INVALID_ARGUMENT", field=name):
            look(drive, owner, question, **{name: value})
    for name in ("options", "filters"):
        with refused("INVALID_ARGUMENT", field=f"{name}.colour"):
            look(drive, owner, question, **{name: {"colour": 1}})
        with refused("INVALID_ARGUMENT", field=f"{name}.colour"):
            see(drive, owner, question[0], **{name: {"colour": 1}})
    with refused("INVALID_ARGUMENT", field="options.heat"):
        look(drive, owner, question, options={"heat": "much"})
    with refused("INVALID_ARGUMENT", field="space", expected=["page-test"]):
        look(drive, owner, question, space="minilm-l6-v2")
    with refused("NOT_AUTHENTICATED"):
        look(drive, None, question)


def test_without_a_space_there_is_nothing_to_ask(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    with refused("INVALID_ARGUMENT", field="space", expected=[]):
        look(drive, owner, draw(rng))


# What is filtered --------------------------------------------------------------------------------


@pytest.mark.usefixtures("pages")
def test_filters_narrow_what_is_looked_at(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    folder = drive.rpc(owner, "create_folder", name="in here")["id"]
    question = draw(rng)
    first = paint(drive, owner, "a.pdf", *(draw(rng) for _ in range(4)), folder_id=folder)
    second = paint(drive, owner, "b.png", question, mime="image/png")
    assert len(look(drive, owner, question)["hits"]) == 5
    inside = {(first["file_id"], page) for page in range(1, 5)}
    assert set(_found(look(drive, owner, question, filters={"folder_id": folder}))) == inside
    some = look(drive, owner, question, filters={"folder_id": folder, "page_from": 2, "page_to": 3})
    assert set(_found(some)) == {(first["file_id"], 2), (first["file_id"], 3)}
    only = [(second["file_id"], 1)]
    assert _found(look(drive, owner, question, filters={"types": ["png"]})) == only
    assert _found(look(drive, owner, question, filters={"file_ids": [second["file_id"]]})) == only
    assert look(drive, owner, question, filters={"file_ids": [str(uuid.uuid4())]})["hits"] == []


# The stage ---------------------------------------------------------------------------------------


def test_no_job_while_no_space_wants_pictures(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    paint(drive, owner, "a.pdf", draw(rng))
    assert db.one("select count(*) from public.ingest_jobs where stage = 'embed_pages'") == 0


@pytest.mark.usefixtures("pages", "images")
def test_only_what_has_pictures_is_embedded(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "some words")
    paint(drive, owner, "a.pdf", draw(rng))
    paint(drive, owner, "a.png", draw(rng), mime="image/png")
    jobs = db.all(
        "select n.name, s.kind from public.ingest_jobs as j"
        " inner join public.nodes as n on n.id = j.file_id"
        " inner join public.embedding_spaces as s on s.id = j.space_id"
        " where j.stage = 'embed_pages' order by 1, 2"
    )
    assert jobs == [("a.pdf", "page"), ("a.png", "image"), ("a.png", "page")]


def _job(drive: Drive, owner: uuid.UUID, pictures: list[Floats], name: str = "a.pdf") -> Any:
    """A file up to its job embed_pages, which is claimed."""
    drive.upload(owner, name)
    while jobs := drive.claim():
        for job in jobs:
            if job["stage"] == "embed_pages":
                return job
            run_stage(drive, job, pictures)
    raise AssertionError


@pytest.mark.usefixtures("pages")
def test_what_is_pending_is_told_and_not_found(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    pictures = [draw(rng), draw(rng)]
    job = _job(drive, owner, pictures)
    store(drive, job, {1: pictures[0]})
    answer = look(drive, owner, pictures[0])
    assert (answer["hits"], answer["pending_files"]) == ([], 1)
    with refused("CONFLICT_STATE"):  # one page is missing
        drive.work("finish_embed_pages", job)
    run_stage(drive, job, pictures)
    answer = look(drive, owner, pictures[0])
    assert (len(answer["hits"]), answer["pending_files"]) == (2, 0)


@pytest.mark.usefixtures("pages")
def test_what_was_stored_survives_its_worker(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    pictures = [draw(rng), draw(rng)]
    job = _job(drive, owner, pictures)
    assert store(drive, job, {1: pictures[0]}) == {"missing": []}
    db.all("update public.ingest_jobs set lease_expires_at = now() - interval '1 s'")
    (again,) = drive.claim()
    assert again["id"] == job["id"]
    left = drive.work("job_page_pictures", again, 10)
    assert (left["total"], left["missing"]) == (2, 1)
    assert [page["page"] for page in left["pages"]] == [2]
    with refused("CONFLICT_STATE", lease="lost"):
        store(drive, job, {2: pictures[1]})
    with refused("CONFLICT_STATE", lease="lost"):
        drive.work("finish_embed_pages", job)


@pytest.mark.usefixtures("pages")
def test_the_same_picture_is_not_embedded_twice(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner, other = db.create_user(), db.create_user()
    picture = draw(rng)
    paint(drive, owner, "a.pdf", picture)
    named = [{"page": 1, "hash": hash_of(picture)}]
    job = _job(drive, owner, [picture], "b.pdf")
    assert drive.work("store_page_vectors", job, named) == {"missing": []}
    drive.work("finish_embed_pages", job)
    assert len(look(drive, owner, picture)["hits"]) == 2
    assert db.one("select count(*) from private.picture_vectors") == 1
    # that another owner has it tells nothing
    job = _job(drive, other, [picture])
    assert drive.work("store_page_vectors", job, named) == {"missing": [1]}


def test_vectors_of_another_length_are_not_stored(
    db: Database, drive: Drive, pages: int, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    job = _job(drive, owner, [draw(rng)])
    with pytest.raises(Exception, match="violates check constraint"):
        store(drive, job, {1: draw(rng)[:, 1:]})
    assert db.one("select count(*) from private.picture_vectors where space_id = %s", pages) == 0


# Versions, moves, trash --------------------------------------------------------------------------


def _state(db: Database) -> tuple[int, int, int]:
    return (
        db.one("select count(*) from private.page_vectors"),
        db.one("select count(*) from private.picture_vectors"),
        db.one("select count(*) from private.page_pictures"),
    )


def _problems(db: Database) -> list[Any]:
    kinds = ("page_vectors_without_page", "pages_not_served", "pictures_without_page")
    return [
        found
        for kind in kinds
        if (found := db.one("select private.reconcile_kind(%s, false)", kind))["count"]
    ]


@pytest.mark.usefixtures("pages")
def test_a_new_version_replaces_the_pages_and_a_restored_one_brings_them_back(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    old, new = [draw(rng), draw(rng), draw(rng)], [draw(rng)]
    ticket = paint(drive, owner, "a.pdf", *old)
    file = ticket["file_id"]
    second = drive.upload(owner, "a.pdf", size=20, file_id=file)
    assert len(look(drive, owner, old[0])["hits"]) == 3  # until the new one is complete
    ingest(drive, new)
    (hit,) = look(drive, owner, old[0])["hits"]
    assert hit["version_id"] == second["version_id"]
    drive.rpc(owner, "restore_version", file_id=file, version_id=ticket["version_id"])
    assert drive.claim() == []  # nothing is embedded again
    assert len(look(drive, owner, old[0])["hits"]) == 3
    assert _state(db) == (3, 4, 7)
    drive.rpc(owner, "purge_version", file_id=file, version_id=second["version_id"])
    assert _state(db) == (3, 3, 6)
    assert _problems(db) == []


@pytest.mark.usefixtures("pages", "images")
def test_copies_and_moves_take_their_pages_along(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner, peer = db.create_user(), db.create_user()
    theirs = drive.rpc(peer, "create_folder", name="theirs")["id"]
    drive.share(theirs, owner, "manage")
    both, single = draw(rng, 1), draw(rng, 1)
    first = paint(drive, owner, "a.png", both, mime="image/png")["file_id"]
    twin = paint(drive, owner, "twin.png", both, mime="image/png")["file_id"]
    alone = paint(drive, owner, "b.png", single, mime="image/png")["file_id"]
    assert _state(db) == (6, 4, 3)
    (copied,) = drive.rpc(owner, "copy_nodes", ids=[first], target=theirs)["items"]
    assert drive.claim() == []
    assert _state(db) == (8, 6, 4)  # the peer's own two
    found = {file for file, _ in _found(look(drive, peer, both))}
    assert found == {copied["id"]}
    drive.rpc(owner, "move_nodes", ids=[twin, alone], target=theirs)
    assert drive.claim() == []
    for search in (lambda user: look(drive, user, both), lambda user: see(drive, user, both[0])):
        assert {f for f, _ in _found(search(peer))} == {copied["id"], twin, alone}
        assert {f for f, _ in _found(search(owner))} == {copied["id"], twin, alone, first}
    assert db.one("select count(*) from private.picture_vectors where owner_id = %s", owner) == 2
    assert _state(db) == (8, 6, 4)
    assert _problems(db) == []


@pytest.mark.usefixtures("pages")
def test_what_is_trashed_is_gone_at_once_and_comes_back(
    db: Database, drive: Drive, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    picture = draw(rng)
    ticket = paint(drive, owner, "a.pdf", picture)
    keep = paint(drive, owner, "b.pdf", draw(rng))["file_id"]
    drive.rpc(owner, "trash_nodes", ids=[ticket["file_id"]])
    assert _found(look(drive, owner, picture)) == [(keep, 1)]
    drive.rpc(owner, "restore_nodes", ids=[ticket["file_id"]])
    assert len(look(drive, owner, picture)["hits"]) == 2
    assert drive.claim() == []
    drive.rpc(owner, "purge_nodes", ids=[ticket["file_id"]])
    assert _found(look(drive, owner, picture)) == [(keep, 1)]
    drive.clean_up()
    assert _state(db) == (1, 1, 1)


@pytest.mark.usefixtures("pages")
def test_reading_again_serves_again(db: Database, drive: Drive, rng: np.random.Generator) -> None:
    owner = db.create_user()
    picture = draw(rng)
    ticket = paint(drive, owner, "a.pdf", picture)
    drive.rpc(owner, "retry_ingest", file_id=ticket["file_id"], from_stage="extract")
    for stage in ("extract", "chunk"):
        (job,) = drive.claim()
        assert job["stage"] == stage
        run_stage(drive, job, [picture])
    (job,) = drive.claim()
    assert drive.work("job_page_pictures", job, 9) == {"total": 1, "missing": 0, "pages": []}
    drive.work("finish_embed_pages", job)
    assert len(look(drive, owner, picture)["hits"]) == 1


DAMAGES = [
    ("page_vectors_without_page", "update private.page_vectors set version_id = gen_random_uuid()"),
    ("page_vectors_without_page", "update private.page_vectors set vector_id = -1"),
    ("pages_not_served", "delete from private.page_vectors"),
    ("pages_not_served", "delete from private.picture_vectors; delete from private.page_vectors"),
    ("pictures_without_page", "delete from private.page_pictures"),
]


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(("kind", "damage"), DAMAGES)
def test_damage_is_found_and_repaired(
    db: Database, drive: Drive, rng: np.random.Generator, kind: str, damage: Any
) -> None:
    owner = db.create_user()
    picture = draw(rng)
    paint(drive, owner, "a.pdf", picture)
    assert _problems(db) == []
    for statement in damage.split("; "):
        db.all(statement)
    assert db.one("select private.reconcile_kind(%s, false)", kind)["count"] == 1
    for each in ("page_vectors_without_page", "pages_not_served", "pictures_without_page"):
        db.one("select private.reconcile_kind(%s, true)", each)
    ingest(drive, [picture])
    for each in ("page_vectors_without_page", "pages_not_served", "pictures_without_page"):
        db.one("select private.reconcile_kind(%s, true)", each)
    assert _problems(db) == []
    if "page_pictures" not in damage:
        assert len(look(drive, owner, picture)["hits"]) == 1


# The readable set --------------------------------------------------------------------------------


@pytest.mark.usefixtures("pages", "images")
@pytest.mark.parametrize("seed", range(2))
def test_everybody_finds_what_they_may_read_and_nothing_else(
    db: Database, drive: Drive, seed: int
) -> None:
    chance, rng = random.Random(seed), np.random.default_rng(seed)
    people = [db.create_user() for _ in range(4)]
    stranger = db.create_user()
    folders = [
        (owner, drive.rpc(owner, "create_folder", name=f"{number}")["id"])
        for owner in people
        for number in range(2)
    ]
    for _ in range(4):
        owner, folder = chance.choice(folders)
        peer = chance.choice([person for person in people if person != owner])
        drive.share(folder, peer)
    shown: dict[str, Floats] = {}
    files = []
    for number in range(16):
        owner, folder = chance.choice(folders)
        shown_as = draw(rng, 1)
        file = paint(drive, owner, f"{number}.png", shown_as, mime="image/png", folder_id=folder)[
            "file_id"
        ]
        shown[file] = shown_as
        files.append((owner, file))
    for owner, file in chance.sample(files, 6):
        action = chance.choice(["trash", "version", "purge"])
        if action == "version":
            drive.upload(owner, "x.png", size=20, file_id=file)
            shown[file] = draw(rng, 1)
            ingest(drive, [shown[file]], "image/png")
        else:
            drive.rpc(owner, f"{action}_nodes", ids=[file])
    for person in [*people, stranger]:
        with db.as_user(person):
            readable = set(db.all("select id::text from public.nodes where kind = 'file'"))
        readable &= set(
            db.all("select id::text from public.nodes where trashed_at is null and kind = 'file'")
        )
        for _ in range(3):
            question = draw(rng, 4)
            expected = _expected(question, {(f, 1): shown[f] for f in readable})
            answer = look(drive, person, question, top_k=100)
            found = {(hit["file_id"], hit["page"]): hit["score"] for hit in answer["hits"]}
            assert found == pytest.approx(expected, abs=0.01)
            answer = see(drive, person, question[0], top_k=100)
            found = {(hit["file_id"], hit["page"]): hit["score"] for hit in answer["hits"]}
            single = _expected(question[:1], {(f, 1): shown[f] for f in readable})
            assert found == pytest.approx(single, abs=0.01)
    assert look(drive, stranger, question)["hits"] == []


# Two stages --------------------------------------------------------------------------------------


def _fill(drive: Drive, owner: uuid.UUID, space: int, files: dict[str, list[Floats]]) -> None:
    """Put pages of files into service, as their jobs would."""
    db = drive.db
    for file, pictures in files.items():
        version = db.one("select head_version_id from public.nodes where id = %s", file)
        for page, picture in enumerate(pictures, 1):
            db.all(
                "insert into private.page_pictures values (%s, %s, %s, decode(%s, 'hex'))",
                version,
                page,
                file,
                hash_of(picture),
            )
            db.all(
                "with x as (insert into private.picture_vectors"
                " (space_id, owner_id, picture_hash, vectors)"
                " values (%s, %s, decode(%s, 'hex'), %s::extensions.halfvec[]) returning id)"
                " insert into private.page_vectors"
                " (space_id, owner_id, file_id, page, version_id, vector_id)"
                " select %s, %s, %s, %s, %s, x.id from x",
                space,
                owner,
                hash_of(picture),
                [str(vector.tolist()) for vector in picture],
                space,
                owner,
                file,
                page,
                version,
            )


def test_a_codebook_finds_what_full_comparison_finds(
    db: Database, drive: Drive, pages: int, rng: np.random.Generator
) -> None:
    owner, peer = db.create_user(), db.create_user()
    subjects = [draw(rng, 12) for _ in range(30)]
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer)
    shown: dict[tuple[str, int], Floats] = {}
    shared = set()
    for number in range(40):
        where = {"folder_id": folder} if number % 2 else {}
        file = drive.file(owner, f"{number}.pdf", **where)["file_id"]
        pictures = [draw(rng, 20, subjects[rng.integers(0, 30)]) for _ in range(27)]
        _fill(drive, owner, pages, {file: pictures})
        shown |= {(file, page): picture for page, picture in enumerate(pictures, 1)}
        if number % 2:
            shared.add(file)
    extra = draw(rng, 20, subjects[0])
    late = paint(drive, peer, "late.pdf", extra)["file_id"]

    plan = "select (private.plan_pages(%s, private.search_scope('{}'))).plan"
    with db.as_user(owner):
        claims = db.one("select current_setting('request.jwt.claims')")
    db.all("select set_config('request.jwt.claims', %s, true)", claims)
    assert db.one(plan, pages) == "exact"  # there is no codebook yet

    book = train(db.connection, "active", centroids=256)
    assert (book.centroids, book.pictures) == (256, len(shown) + 1)
    assert db.one(plan, pages) == "two_stage"
    assert _problems(db) == []
    # what SQL signs, and what the training does, is the same
    assert db.one(
        "select bool_and((s.centroids, s.counts) = (g.centroids, g.counts))"
        " and bool_and((select sum(c) from unnest(s.counts) as c) = cardinality(x.vectors))"
        " from private.picture_signatures as s inner join private.picture_vectors as x"
        " on x.id = s.vector_id"
        " cross join lateral private.sign_picture(x.vectors, s.codebook_id) as g"
    )

    theirs = {place: shown[place] for place in shown if place[0] in shared} | {(late, 1): extra}
    for user, mine in ((owner, shown), (peer, theirs)):
        recall = []
        for _ in range(10):
            question = draw(rng, 6, subjects[rng.integers(0, 30)])
            answer = look(drive, user, question, top_k=10, candidates=150, explain=True)
            assert answer["explain"]["plan"] == "two_stage"
            assert answer["explain"]["centroids"] == 256
            best = list(_expected(question, mine).items())[:10]
            found = {(hit["file_id"], hit["page"]): hit["score"] for hit in answer["hits"]}
            assert set(found) <= set(mine)
            recall.append(len(found.keys() & dict(best).keys()) / 10)
            scores = {place: max_sim(question, mine[place]) for place in found}
            assert found == pytest.approx(scores, abs=0.02)
        assert sum(recall) / len(recall) >= 0.95, recall
    # every page is looked at when all are candidates
    question = draw(rng, 6, subjects[1])
    answer = look(drive, peer, question, top_k=10, candidates=1000)
    assert _found(answer) == list(_expected(question, theirs))[:10]
    # words of one subject and a picture of another, with padding between them
    both = np.vstack([question, np.zeros((9, DIMENSION)), draw(rng, 40, subjects[2])])
    answer = look(drive, owner, both, top_k=10, candidates=150, explain=True)
    assert (answer["explain"]["plan"], answer["explain"]["vectors"]) == ("two_stage", 46)
    best = list(_expected(both, shown).items())[:10]
    assert len(set(_found(answer)) & dict(best).keys()) >= 9
    assert (
        look(drive, owner, both[[*range(6), *range(15, 55)]], candidates=150)["hits"]
        == (answer["hits"][:8])
    )


def test_training_goes_on_where_it_was_interrupted(
    db: Database, drive: Drive, pages: int, rng: np.random.Generator
) -> None:
    owner = db.create_user()
    first = paint(drive, owner, "a.pdf", *(draw(rng) for _ in range(5)))["file_id"]
    made = train(db.connection, "page-test", centroids=8)
    # pages that come later are signed as they are stored
    paint(drive, owner, "b.pdf", later := draw(rng))
    count = "select count(*) from private.picture_signatures where codebook_id = %s"
    assert db.one(count, made.id) == 6
    assert db.one("select count(distinct codebook_id) from private.page_vectors") == 1

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(db.connection, "page-test", centroids=16, progress=interrupt)
    building = db.one("select id from private.page_codebooks where state = 'building'")
    assert db.one(count, building) == 6
    before = look(drive, owner, later)["hits"]
    with refused("CONFLICT_STATE", missing=1):
        db.all(
            "delete from private.picture_signatures where codebook_id = %s and vector_id ="
            " (select min(vector_id) from private.picture_signatures)",
            building,
        )
        with db.connection.transaction():
            db.all("select private.activate_codebook(%s)", building)
    again = train(db.connection, "page-test")
    assert (again.id, again.centroids) == (building, 16)
    assert db.all("select id, state from private.page_codebooks") == [(building, "active")]
    assert db.all("select distinct codebook_id from private.page_vectors") == [building]
    assert look(drive, owner, later)["hits"] == before
    # a page that has no signature by the codebook is looked at all the same
    db.all("update private.page_vectors set codebook_id = null, signature = null")
    assert look(drive, owner, later)["hits"] == before
    assert first in {hit["file_id"] for hit in before}


def test_there_is_nothing_to_train_without_pages(db: Database, pages: int) -> None:
    with pytest.raises(NarwhalError, match="no pictures"):
        train(db.connection, "page-test")
    with pytest.raises(NarwhalError, match="no page space"):
        train(db.connection, "minilm-l6-v2")
    assert pages


def test_what_others_have_is_not_read(
    db: Database, drive: Drive, pages: int, rng: np.random.Generator
) -> None:
    owner, other, peer = (db.create_user() for _ in range(3))
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer)

    def add(user: uuid.UUID, count: int, folder: str | None = None) -> None:
        for _ in range(count):
            name = f"{uuid.uuid4()}.pdf"
            file = drive.file(user, name, **({"folder_id": folder} if folder else {}))["file_id"]
            _fill(drive, user, pages, {file: [draw(rng, 6) for _ in range(30)]})

    add(owner, 2, folder)
    add(owner, 2)
    add(peer, 1)
    add(other, 15)  # the indexes have their depth
    train(db.connection, "active", centroids=16)
    question = [str(vector.tolist()) for vector in draw(rng, 3)]

    def buffers(user: uuid.UUID) -> int:
        with db.as_user(user):
            claims = db.one("select current_setting('request.jwt.claims')")
        db.all("select set_config('request.jwt.claims', %s, true)", claims)
        for _ in range(2):  # the catalogues are read once
            plan = db.one(
                "explain (analyze, buffers, timing off, format json) select * from"
                " private.find_pages(%s::smallint, %s::extensions.halfvec[],"
                " private.search_scope('{}'), 10, 20)",
                pages,
                question,
            )[0]["Plan"]
        assert plan["Actual Rows"] == 10
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    # indexes may grow by a level; to read what the others add would take several hundred
    level = 60
    before = {user: buffers(user) for user in (owner, peer)}
    add(other, 15)
    after = {user: buffers(user) for user in (owner, peer)}
    for user, least in before.items():
        assert after[user] <= least + level, before
    add(owner, 10)  # not shared
    assert buffers(peer) <= after[peer] + level
    assert buffers(owner) >= after[owner] + 300  # control: all of these are compared
