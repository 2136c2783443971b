"""hybrid_search against oracles: BM25, cosine and fusion written down a second time."""

from __future__ import annotations

import math
import random
import uuid
from collections import Counter
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, embed
from tests.db.invariants import UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import (
    hits_of,
)

# words that no stemmer changes and no stop list holds
WORDS = [
    first + vowel + last for first in "bdfgklmnprt" for vowel in "aou" for last in ("rk", "mp")
]


def test_made_up_words_are_their_own_stems(db: Database) -> None:
    text = " ".join(WORDS)
    lexemes = db.all("select lexeme from private.lexemes(%s, 'en')", text)
    assert sorted(lexemes) == sorted(WORDS)


# BM25 --------------------------------------------------------------------------------------------


def bm25(query: str, texts: list[str]) -> dict[str, float]:
    """Score each text that has a word of the query.

    The formula of 20261121000800_keyword_index.sql: k1 = 1.2, b = 0.75, idf as in Lucene, the
    query's own frequencies counted.
    """
    k1, b = 1.2, 0.75
    documents = [Counter(text.split()) for text in texts]
    average = sum(sum(document.values()) for document in documents) / len(documents)
    scores = {}
    for text, document in zip(texts, documents, strict=True):
        length, score = sum(document.values()), 0.0
        for word, asked in Counter(query.split()).items():
            df = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            tf = document[word]
            score += asked * idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average))
        if score:
            scores[text] = score
    return scores


def _texts(chance: random.Random, count: int, longest: int = 60) -> list[str]:
    weights = [1 / (rank + 1) for rank in range(len(WORDS))]
    # a number in front keeps the texts apart, and is a word like any other
    return [
        f"n{chance.randrange(10**9)} "
        + " ".join(chance.choices(WORDS, weights, k=chance.randrange(3, longest)))
        for _ in range(count)
    ]


QUERIES = ["bark", "bark tump", "bark bark bark tump", "bark dork lump tump rark", WORDS[-1]]


def _keyword_scores(drive: Drive, user: uuid.UUID, query: str, **more: Any) -> dict[str, float]:
    hits = hits_of(drive, user, query, embedding=None, top_k=100, candidates=1000, **more)
    content = dict(drive.db.all("select id::text, content from public.chunks"))
    return {content[hit["chunk_id"]]: hit["parts"]["keyword_score"] for hit in hits}


def test_keyword_scores_of_ones_own_files_are_bm25(db: Database, drive: Drive) -> None:
    chance = random.Random(1)
    owner = db.create_user()
    texts = []
    for number in range(10):
        texts += (more := _texts(chance, chance.randrange(1, 6)))
        drive.file(owner, f"{number}.txt", *more)
    for query in QUERIES:
        found = _keyword_scores(drive, owner, query)
        assert found == pytest.approx(bm25(query, texts), rel=1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert found


def test_a_chunk_of_many_words_is_scored_as_one(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    words = [f"w{number}k" for number in range(600)]
    texts = [" ".join(words), "w1k w599k", "bark"]
    drive.file(owner, "a.txt", *texts)
    query = "w1k w300k w599k"
    found = _keyword_scores(drive, owner, query)
    assert found == pytest.approx(bm25(query, texts), rel=1e-4)
    assert len(found) == 2


def test_shared_files_are_scored_among_what_is_shared(db: Database, drive: Drive) -> None:
    chance = random.Random(2)
    owner, other, peer = db.create_user(), db.create_user(), db.create_user()
    shared = []
    for sharer in (owner, other):
        folder = drive.rpc(sharer, "create_folder", name="shared")["id"]
        drive.share(folder, peer)
        for number in range(3):
            shared += (texts := _texts(chance, 4))
            drive.file(sharer, f"{number}.txt", *texts, folder_id=folder)
        drive.file(sharer, "private.txt", *_texts(chance, 5))
    mine = _texts(chance, 4)
    drive.file(peer, "mine.txt", *mine)
    for query in QUERIES:
        expected = bm25(query, mine) | bm25(query, shared)
        assert _keyword_scores(drive, peer, query) == pytest.approx(expected, rel=1e-4)


def test_scores_tell_nothing_about_text_that_is_not_shared(db: Database, drive: Drive) -> None:
    chance = random.Random(3)
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer)
    drive.file(owner, "shared.txt", *_texts(chance, 8), folder_id=folder)
    before = [drive.search(peer, query) for query in QUERIES]
    assert all(answer["hits"] for answer in before)
    # as many words as it takes to move every statistic of the owner
    drive.file(owner, "private.txt", *(text * 20 for text in _texts(chance, 12)))
    assert [drive.search(peer, query) for query in QUERIES] == before
    # control: shared as well, it does count
    drive.file(owner, "more.txt", *_texts(chance, 8), folder_id=folder)
    assert [drive.search(peer, query) for query in QUERIES] != before


@pytest.mark.parametrize("seed", range(2))
def test_statistics_stay_what_a_recount_gives(db: Database, drive: Drive, seed: int) -> None:
    chance = random.Random(seed)
    owners = [db.create_user(), db.create_user()]
    files: list[tuple[uuid.UUID, str]] = []
    done = Counter[str]()
    for number in range(40):
        action = chance.choice(["new", "new", "version", "again", "purge", "trash"])
        texts = _texts(chance, chance.randrange(4), 30)
        owner, file = chance.choice(files or [(owners[0], "")])
        if action == "new" or not file:
            owner = chance.choice(owners)
            files.append((owner, drive.file(owner, f"{number}.txt", *texts)["file_id"]))
        elif action == "version":
            drive.file(owner, "x.txt", *texts, file_id=file)
        elif action == "again":
            drive.rpc(owner, "retry_ingest", file_id=file, from_stage="chunk")
            drive.ingest(*texts)
        else:
            drive.rpc(owner, f"{action}_nodes", ids=[file])
            files.remove((owner, file))
            drive.clean_up(chance.randrange(2))  # sometimes what was purged is still there
        done[action] += 1
        if number % 3 == 0:
            assert db.all(UNEQUAL) + db.all(UNNEEDED) + db.all(UNSERVED) == [], done
    assert db.all(UNEQUAL) + db.all(UNNEEDED) + db.all(UNSERVED) == []
    assert len(done) == 5, done
    count = "select count(*) from private.chunk_terms"
    assert db.one(count) > 0
    for owner in owners:
        with db.as_role("postgres"):
            nodes = db.all(
                "select id from public.nodes where owner_id = %s and purged_at is null", owner
            )
        drive.rpc(owner, "purge_nodes", ids=nodes)
    drive.clean_up()
    assert db.one(count) == 0
    assert set(db.all("select chunk_count + total_length from private.owner_statistics")) == {0}


# The dense leg and fusion ------------------------------------------------------------------------


def _corpus(drive: Drive, seed: int = 4) -> tuple[uuid.UUID, list[str]]:
    chance = random.Random(seed)
    owner = drive.db.create_user()
    texts = _texts(chance, 40, 12)
    for number in range(4):
        drive.file(owner, f"{number}.txt", *texts[number * 10 : number * 10 + 10])
    return owner, texts


def _cosine(first: str, second: str) -> float:
    return sum(x * y for x, y in zip(embed(first), embed(second), strict=True))


def test_vector_scores_are_cosines_and_exact(db: Database, drive: Drive) -> None:
    owner, texts = _corpus(drive)
    query = "bark dork lump"
    hits = hits_of(drive, owner, query, top_k=100, options={"weights": {"keyword": 0}})
    content = dict(db.all("select id::text, content from public.chunks"))
    found = {content[hit["chunk_id"]]: hit["parts"]["vector_score"] for hit in hits}
    expected = {text: _cosine(query, text) for text in texts}
    assert found == pytest.approx(expected, abs=2e-3)  # half precision
    assert len(found) == len(texts)
    assert [hit["parts"]["vector_rank"] for hit in hits] == list(range(1, len(texts) + 1))
    assert {hit["parts"]["keyword_rank"] for hit in hits} == {None}
    # its length does not matter, only its direction
    longer = Jsonb([x * 7 for x in embed(query)])
    again = hits_of(
        drive, owner, query, top_k=100, options={"weights": {"keyword": 0}}, embedding=longer
    )
    assert [hit["chunk_id"] for hit in again] == [hit["chunk_id"] for hit in hits]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weights": {"keyword": 0.2, "vector": 2}},
        {"fusion": "rrf"},
        {"rrf_k": 60},
        {"fusion": "rrf", "weights": {"keyword": 3, "vector": 0.5}},
    ],
)
@pytest.mark.parametrize("candidates", [50, 5])
def test_the_order_is_that_of_the_fusion_formula(
    db: Database, drive: Drive, options: dict[str, Any], candidates: int
) -> None:
    owner, _ = _corpus(drive)
    query = "bark dork lump"
    is_rrf = "rrf_k" in options or options.get("fusion") == "rrf"
    even = {"keyword": 1, "vector": 1}
    weights = (even if is_rrf else {"keyword": 0.2, "vector": 0.8}) | options.get("weights", {})
    k = options.get("rrf_k", 10)
    legs = {}
    for leg, other in (("keyword", "vector"), ("vector", "keyword")):
        alone = {"weights": {leg: 1, other: 0}}
        hits = hits_of(drive, owner, query, top_k=100, candidates=candidates, options=alone)
        legs[leg] = {hit["chunk_id"]: hit["parts"][f"{leg}_score"] for hit in hits}
        assert len(hits) <= candidates
    expected = dict.fromkeys(legs["keyword"] | legs["vector"], 0.0)
    for leg, scores in legs.items():
        ranks = {chunk: rank for rank, chunk in enumerate(scores, 1)}
        least = {"keyword": 0, "vector": -1}[leg]
        is_full = leg == "vector" or len(scores) == candidates
        rest = min(scores.values()) if is_full else least
        for chunk in expected:
            if is_rrf:
                part = 1 / (k + ranks[chunk]) if chunk in ranks else 0
            else:
                part = (scores.get(chunk, rest) - least) / (max(scores.values()) - least)
            expected[chunk] += weights[leg] * part
    hits = hits_of(drive, owner, query, top_k=100, candidates=candidates, options=options)
    assert {hit["chunk_id"]: hit["score"] for hit in hits} == pytest.approx(expected, rel=1e-5)

    def place(hit: dict[str, Any]) -> tuple[Any, ...]:
        ranks = [hit["parts"][f"{leg}_rank"] or candidates + 1 for leg in ("vector", "keyword")]
        return (-hit["score"], *ranks, hit["chunk_id"])

    order = sorted(hits, key=place)
    assert hits == order
    assert all(hit["parts"]["fused"] == hit["score"] for hit in hits)


def test_the_order_does_not_depend_on_how_many_are_asked_for(db: Database, drive: Drive) -> None:
    owner, _ = _corpus(drive)
    whole = hits_of(drive, owner, "bark dork", top_k=100)
    for top_k in (1, 2, 5, 20):
        assert hits_of(drive, owner, "bark dork", top_k=top_k) == whole[:top_k]
    assert len(whole) > 20
    assert hits_of(drive, owner, "bark dork") == whole[:8]


def test_a_boost_counts(db: Database, drive: Drive) -> None:
    owner, _ = _corpus(drive)
    last = hits_of(drive, owner, "bark dork", top_k=100)[-1]
    db.all("update public.chunks set boost = 100 where id = %s", last["chunk_id"])
    first = hits_of(drive, owner, "bark dork")[0]
    assert first["chunk_id"] == last["chunk_id"]
    assert first["parts"]["boost"] == 100
    assert first["score"] == pytest.approx(100 * last["score"])


def test_a_threshold_drops_what_is_not_near(db: Database, drive: Drive) -> None:
    owner, texts = _corpus(drive)
    query = texts[0]
    near = {text for text in texts if _cosine(query, text) >= 0.5}
    hits = hits_of(
        drive, owner, query, top_k=100, options={"threshold": 0.5, "weights": {"keyword": 0}}
    )
    assert len(hits) == len(near)
    assert 0 < len(near) < len(texts)


def test_without_an_embedding_keywords_answer_and_say_so(db: Database, drive: Drive) -> None:
    owner, _ = _corpus(drive)
    answer = drive.search(owner, "bark", embedding=None)
    assert answer["degraded"] is True
    assert answer["hits"]
    assert {hit["parts"]["vector_rank"] for hit in answer["hits"]} == {None}
    assert drive.search(owner, "bark", embedding=Jsonb(None))["degraded"] is True
    assert drive.search(owner, "bark")["degraded"] is False
    only = Jsonb({"weights": {"vector": 0}})  # asked for, so nothing is missing
    assert drive.search(owner, "bark", embedding=None, options=only)["degraded"] is False
