"""What hybrid_search is asked for beside words: fusion, names, copies, grouping, conditions."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, embed
from tests.db.looks import hits_of

FILLER = "the quick brown fox jumps over the lazy dog while seven wizards boil plain water slowly"


def _names(hits: list[Any]) -> list[str]:
    return [hit["name"] for hit in hits]


# Fusion ------------------------------------------------------------------------------------------


def test_convex_fusion_keeps_the_order_of_what_points_away(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "alpha bravo", "charlie delta")
    away = Jsonb([-x for x in embed("alpha bravo")])
    options = {"fusion": "convex", "weights": {"keyword": 0, "vector": 1}}
    hits = hits_of(drive, owner, "alpha", embedding=away, options=options)
    cosines = [hit["parts"]["vector_score"] for hit in hits]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[1] == pytest.approx(-1, abs=2e-3)
    assert [hit["score"] for hit in hits] == pytest.approx([1, 0], abs=2e-3)


def test_convex_fusion_ranks_a_file_that_is_found_by_its_name(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "handbook.txt", *(f"{FILLER} {word}" for word in ("one", "two", "three")))
    drive.file(owner, "other.txt", *(f"{FILLER} {word}" for word in ("four", "five", "six")))
    hits = hits_of(drive, owner, "handbook", candidates=2, options={"fusion": "convex"})
    # as far as a leg knows it is no worse than the last that the leg took
    assert hits[0]["name"] == "handbook.txt"
    assert hits[0]["parts"]["name_rank"] == 1


@pytest.mark.parametrize(
    "options", [{}, {"fusion": "rrf"}, {"weights": {"keyword": 1, "vector": 3}}]
)
def test_words_count_more_in_languages_that_the_model_was_not_made_for(
    db: Database, drive: Drive, options: dict[str, Any]
) -> None:
    owner = db.create_user()
    drive.file(owner, "one.bin", "alpha bravo", "alpha charlie delta", "echo foxtrot golf")
    db.all("update public.chunks set language = case idx when 1 then 'de' else 'en' end")

    def found(languages: list[str] | None, **more: Any) -> dict[str, Any]:
        db.all("update public.embedding_spaces set languages = %s where kind = 'text'", languages)
        hits = hits_of(drive, owner, "alpha golf", options=options | {"cache": False}, **more)
        return {hit["snippet"]: hit for hit in hits}

    own, foreign = found(["en", "de"]), found(["en"])
    text = "alpha charlie delta"
    assert own == found(None)
    assert {**foreign, text: None} == {**own, text: None}
    # each part of a score goes with its weight: half of that of meaning went to words
    is_rrf = options.get("fusion") == "rrf"
    weights = {"keyword": 1, "vector": 1} if is_rrf else {"keyword": 0.2, "vector": 0.8}
    weights |= options.get("weights", {})
    parts = own[text]["parts"]
    if is_rrf:
        words, meaning = 1 / (10 + parts["keyword_rank"]), 1 / (10 + parts["vector_rank"])
    else:
        words = parts["keyword_score"] / max(h["parts"]["keyword_score"] or 0 for h in own.values())
        meaning = (1 + parts["vector_score"]) / (
            1 + max(h["parts"]["vector_score"] for h in own.values())
        )
    for hits, moved in ((own, 0), (foreign, weights["vector"] / 2)):
        assert hits[text]["score"] == pytest.approx(
            (weights["keyword"] + moved) * words + (weights["vector"] - moved) * meaning, rel=1e-5
        )
    # without a vector there is no weight to move, and without words nowhere to move it
    assert found(["en"], embedding=None) == found(None, embedding=None)
    options = options | {"weights": {"keyword": 0, "vector": 1}}
    assert found(["en"]) == found(None)


def test_a_threshold_is_about_meaning_only(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "alpha " + FILLER, "alpha", "bravo")
    hits = hits_of(drive, owner, "alpha", options={"threshold": 0.9})
    found = {hit["page"]: hit["parts"] for hit in hits}
    assert found.keys() == {1, 2}
    assert found[1]["vector_rank"] is None and found[1]["keyword_rank"] == 2
    assert found[2]["vector_rank"] == 1


# Names -------------------------------------------------------------------------------------------


def test_a_file_is_found_by_its_name_and_begins_with_its_first_passage(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    drive.file(owner, "Quarterly budget.txt", "alpha bravo", "charlie delta")
    drive.file(owner, "other.txt", "echo foxtrot")
    (hit, *_) = hits_of(drive, owner, "quarterly budget", embedding=None)
    assert (hit["name"], hit["page"], hit["snippet"]) == ("Quarterly budget.txt", 1, "alpha bravo")
    assert hit["parts"]["name_rank"] == 1
    assert hit["parts"]["keyword_rank"] is None
    for weights in ({"name": 0}, {"keyword": 0, "vector": 1}):
        found = hits_of(
            drive, owner, "quarterly budget", embedding=None, options={"weights": weights}
        )
        assert found == []


def test_a_name_lifts_the_best_passage_of_its_file_only(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "budget.txt", "budget one two", "budget and more of it " + FILLER)
    hits = hits_of(drive, owner, "budget", embedding=None)
    assert [hit["parts"]["name_rank"] for hit in hits] == [1, None]
    alone = hits_of(drive, owner, "budget", embedding=None, options={"weights": {"name": 0}})
    assert hits[0]["score"] == pytest.approx(
        alone[0]["score"] + 0.2 * hits[0]["parts"]["name_score"]
    )
    assert hits[1]["score"] == alone[1]["score"]


def test_a_file_without_text_is_found_by_its_name(db: Database, drive: Drive) -> None:
    owner, stranger = db.create_user(), db.create_user()
    drive.file(owner, "walrus.txt")
    (hit,) = hits_of(drive, owner, "walrus")
    assert (hit["name"], hit["chunk_id"], hit["snippet"]) == ("walrus.txt", None, None)
    assert hit["version_id"] and hit["is_head"]
    assert hits_of(drive, stranger, "walrus") == []
    # pages are asked for, and it has none
    assert hits_of(drive, owner, "walrus", filters={"page_from": 1}) == []
    drive.upload(owner, "walrus 2.txt")  # nothing of it can be opened yet
    assert len(hits_of(drive, owner, "walrus")) == 1


# Conditions --------------------------------------------------------------------------------------


def test_phrases_and_excluded_words_hold_for_all_legs(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    texts = ["budget plan of march", "plan the budget", "budget plan draft", "lunch menu"]
    drive.file(owner, "a.txt", *texts)
    drive.file(owner, "budget plan draft.txt", "nothing of the kind")

    def found(query: str) -> set[str]:
        return {hit["snippet"] for hit in hits_of(drive, owner, query)}

    nothing = "nothing of the kind"
    assert found("budget plan") == {*texts, nothing}
    assert found('"budget plan"') == {texts[0], texts[2], nothing}  # that one by its name
    assert found("budget -draft") == {texts[0], texts[1], texts[3]}
    assert found('budget -"budget plan"') == {texts[1], texts[3]}


# Copies ------------------------------------------------------------------------------------------


@pytest.fixture
def copied(db: Database, drive: Drive) -> uuid.UUID:
    """Somebody with a passage in three files, nearly the same in a fourth, and others."""
    owner = db.create_user()
    passage = f"alpha bravo charlie {FILLER} {' '.join(reversed(FILLER.split()))} and that is all"
    for number in range(3):
        drive.file(owner, f"{number}.txt", passage)
    drive.file(owner, "near.txt", passage.replace("seven wizards", "eight wizards"))
    drive.file(owner, "invoice 1.txt", f"{passage} pay 100")
    drive.file(owner, "invoice 2.txt", f"{passage} pay 200")
    drive.file(owner, "other.txt", "alpha and quite different words altogether")
    return owner


def test_what_says_the_same_comes_last_and_is_named(drive: Drive, copied: uuid.UUID) -> None:
    hits = hits_of(drive, copied, "alpha bravo")
    assert len(hits) == 7
    first = [hit for hit in hits if hit["parts"]["copy_of"] is None]
    assert hits[: len(first)] == first
    # a number makes a passage another one
    assert len({hit["name"] for hit in first} & {"invoice 1.txt", "invoice 2.txt"}) == 2
    assert len(first) == 4
    (same,) = [hit for hit in first if hit["copies"]["count"]]
    others = {"0.txt", "1.txt", "2.txt", "near.txt"} - {same["name"]}
    assert same["copies"]["count"] == 3
    assert {file["name"] for file in same["copies"]["files"]} == others
    assert {hit["parts"]["copy_of"] for hit in hits[4:]} == {same["chunk_id"]}
    assert hits == sorted(hits, key=lambda hit: (-hit["score"], hit["chunk_id"]))


def test_copies_are_left_out_or_let_be_when_asked(drive: Drive, copied: uuid.UUID) -> None:
    left_out = hits_of(drive, copied, "alpha bravo", options={"dedup": True})
    assert left_out == hits_of(drive, copied, "alpha bravo")[:4]
    let_be = hits_of(drive, copied, "alpha bravo", options={"dedup": False})
    assert len(let_be) == 7
    assert "copies" not in let_be[0]
    assert {hit["parts"]["copy_of"] for hit in let_be} == {None}


def test_copies_that_cannot_be_read_are_not_told_of(
    db: Database, drive: Drive, copied: uuid.UUID
) -> None:
    peer = db.create_user()
    with db.as_user(copied):
        ids = dict(db.connection.execute("select name, id::text from public.nodes").fetchall())
    drive.share(ids["0.txt"], peer)
    (hit,) = hits_of(drive, peer, "alpha bravo")
    assert hit["copies"] == {"count": 0, "files": []}
    drive.share(ids["1.txt"], peer)
    hits = hits_of(drive, peer, "alpha bravo")
    assert hits[0]["copies"]["count"] == 1
    assert {_names(hits)[0], hits[0]["copies"]["files"][0]["name"]} == {"0.txt", "1.txt"}


def test_many_copies_do_not_hide_the_rest(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    for number in range(12):
        drive.file(owner, f"{number}.txt", "alpha bravo charlie")
    drive.file(owner, "other.txt", "alpha and quite different words altogether")
    hits = hits_of(drive, owner, "alpha bravo", candidates=5, top_k=2)
    assert [hit["name"] == "other.txt" for hit in hits] == [False, True]
    assert hits[0]["copies"]["count"] == 11


# Grouping ----------------------------------------------------------------------------------------


def test_hits_are_grouped_by_file_with_the_best_passages_of_each(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    drive.file(owner, "many.txt", *(f"alpha bravo {word}" for word in FILLER.split()))
    drive.file(owner, "one.txt", f"alpha {FILLER}")
    flat = hits_of(drive, owner, "alpha bravo", top_k=100)
    hits = hits_of(drive, owner, "alpha bravo", options={"group_by": "file"})
    assert _names(hits) == ["many.txt", "one.txt"]
    assert [len(hit["passages"]) for hit in hits] == [3, 1]
    assert [hit["chunk_id"] for hit in hits[0]["passages"]] == [hit["chunk_id"] for hit in flat[:3]]
    assert hits[0]["passages"][0]["snippet"] == hits[0]["snippet"]
    (more,) = hits_of(
        drive, owner, "alpha bravo", top_k=1, options={"group_by": "file", "per_file": 5}
    )
    assert len(more["passages"]) == 5
    assert more["passages"][:3] == hits[0]["passages"]


@pytest.mark.parametrize(
    "options", [{}, {"group_by": "file"}, {"dedup": True}, {"dedup": False}, {"fusion": "convex"}]
)
def test_a_longer_list_begins_with_the_shorter_one(
    drive: Drive, copied: uuid.UUID, options: dict[str, Any]
) -> None:
    whole = hits_of(drive, copied, "alpha bravo", top_k=100, options=options)
    assert len(whole) > 3
    for top_k in range(1, len(whole)):
        assert hits_of(drive, copied, "alpha bravo", top_k=top_k, options=options) == whole[:top_k]
