"""hybrid_search against oracles: BM25, cosine and fusion written down a second time, in Python."""

from __future__ import annotations

import math
import random
import uuid
from collections import Counter
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, embed, refused
from tests.db.invariants import UNEQUAL, UNNEEDED, UNSERVED

# words that no stemmer changes and no stop list holds
WORDS = [
    first + vowel + last for first in "bdfgklmnprt" for vowel in "aou" for last in ("rk", "mp")
]


def test_made_up_words_are_their_own_stems(db: Database) -> None:
    text = " ".join(WORDS)
    lexemes = db.all("select lexeme from private.lexemes(%s, 'en')", text)
    assert sorted(lexemes) == sorted(WORDS)
    assert len(set(db.all("select private.term_id(w) from unnest(%s::text[]) as w", WORDS))) == len(
        WORDS
    )


# BM25 --------------------------------------------------------------------------------------------


def bm25(query: str, texts: list[str]) -> dict[str, float]:
    """Score each text that has a word of the query.

    The formula of 20261121000800_keyword_index.sql: k1 = 0.9, b = 0.4, idf as in Lucene, the
    query's own frequencies counted.
    """
    k1, b = 0.9, 0.4
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
    hits = _hits(drive, user, query, embedding=None, top_k=100, candidates=1000, **more)
    content = dict(drive.db.all("select id::text, content from public.chunks"))
    return {content[hit["chunk_id"]]: hit["parts"]["keyword_score"] for hit in hits}


def _hits(drive: Drive, user: uuid.UUID | None, query: str, **more: Any) -> list[Any]:
    for key in ("filters", "options"):
        if key in more:
            more[key] = Jsonb(more[key])
    return drive.search(user, query, **more)["hits"]  # type: ignore[no-any-return]


def test_keyword_scores_of_ones_own_files_are_bm25(db: Database, drive: Drive) -> None:
    chance = random.Random(1)
    owner = db.create_user()
    texts = []
    for number in range(10):
        texts += (more := _texts(chance, chance.randrange(1, 6)))
        drive.file(owner, f"{number}.txt", *more)
    # weights are renewed when the average length has drifted by a fifth; until then they are near
    for query in QUERIES:
        assert _keyword_scores(drive, owner, query) == pytest.approx(bm25(query, texts), rel=0.1)
    _renew(db, owner)
    for query in QUERIES:
        found = _keyword_scores(drive, owner, query)
        assert found == pytest.approx(bm25(query, texts), rel=1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert found


def test_a_chunk_of_more_words_than_a_row_holds_is_scored_as_one(
    db: Database, drive: Drive
) -> None:
    owner = db.create_user()
    words = [f"w{number}k" for number in range(600)]
    texts = [" ".join(words), "w1k w599k", "bark"]
    drive.file(owner, "a.txt", *texts)
    assert db.one("select count(*) from private.chunk_terms") == 5
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
    _renew(db, peer)
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
        done[action] += 1
        if number % 3 == 0:
            assert db.all(UNEQUAL) + db.all(UNNEEDED) + db.all(UNSERVED) == [], done
    assert db.all(UNEQUAL) + db.all(UNNEEDED) + db.all(UNSERVED) == []
    assert len(done) == 5, done
    count = "select count(*) from private.owner_terms"
    assert db.one(count) > 0
    for owner in owners:
        with db.as_role("postgres"):
            nodes = db.all("select id from public.nodes where owner_id = %s", owner)
        drive.rpc(owner, "purge_nodes", ids=nodes)
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
    hits = _hits(drive, owner, query, top_k=100, options={"weights": {"keyword": 0}})
    content = dict(db.all("select id::text, content from public.chunks"))
    found = {content[hit["chunk_id"]]: hit["parts"]["vector_score"] for hit in hits}
    expected = {text: _cosine(query, text) for text in texts}
    assert found == pytest.approx(expected, abs=2e-3)  # half precision
    assert len(found) == len(texts)
    assert [hit["parts"]["vector_rank"] for hit in hits] == list(range(1, len(texts) + 1))
    assert {hit["parts"]["keyword_rank"] for hit in hits} == {None}
    # its length does not matter, only its direction
    longer = Jsonb([x * 7 for x in embed(query)])
    again = _hits(
        drive, owner, query, top_k=100, options={"weights": {"keyword": 0}}, embedding=longer
    )
    assert [hit["chunk_id"] for hit in again] == [hit["chunk_id"] for hit in hits]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rrf_k": 60},
        {"weights": {"keyword": 3, "vector": 0.5}},
        {"fusion": "convex"},
        {"fusion": "convex", "weights": {"keyword": 0.2, "vector": 2}},
    ],
)
@pytest.mark.parametrize("candidates", [50, 5])
def test_the_order_is_that_of_the_fusion_formula(
    db: Database, drive: Drive, options: dict[str, Any], candidates: int
) -> None:
    owner, _ = _corpus(drive)
    query = "bark dork lump"
    weights = {"keyword": 1, "vector": 1} | options.get("weights", {})
    k = options.get("rrf_k", 10)
    legs = {}
    for leg, other in (("keyword", "vector"), ("vector", "keyword")):
        alone = {"weights": {leg: 1, other: 0}}
        hits = _hits(drive, owner, query, top_k=100, candidates=candidates, options=alone)
        legs[leg] = {hit["chunk_id"]: hit["parts"][f"{leg}_score"] for hit in hits}
        assert len(hits) <= candidates
    expected: dict[str, float] = {}
    for leg, scores in legs.items():
        for rank, (chunk, score) in enumerate(scores.items(), 1):
            part = (
                1 / (k + rank)
                if options.get("fusion", "rrf") == "rrf"
                else (score / max(scores.values()))
            )
            expected[chunk] = expected.get(chunk, 0) + weights[leg] * part
    hits = _hits(drive, owner, query, top_k=100, candidates=candidates, options=options)
    assert {hit["chunk_id"]: hit["score"] for hit in hits} == pytest.approx(expected, rel=1e-5)
    order = sorted(hits, key=lambda hit: (-hit["score"], hit["chunk_id"]))
    assert hits == order
    assert all(hit["parts"]["fused"] == hit["score"] for hit in hits)


def test_the_order_does_not_depend_on_how_many_are_asked_for(db: Database, drive: Drive) -> None:
    owner, _ = _corpus(drive)
    whole = _hits(drive, owner, "bark dork", top_k=100)
    for top_k in (1, 2, 5, 20):
        assert _hits(drive, owner, "bark dork", top_k=top_k) == whole[:top_k]
    assert len(whole) > 20
    assert _hits(drive, owner, "bark dork") == whole[:8]


def test_a_boost_counts(db: Database, drive: Drive) -> None:
    owner, _ = _corpus(drive)
    last = _hits(drive, owner, "bark dork", top_k=100)[-1]
    db.all("update public.chunks set boost = 100 where id = %s", last["chunk_id"])
    first = _hits(drive, owner, "bark dork")[0]
    assert first["chunk_id"] == last["chunk_id"]
    assert first["parts"]["boost"] == 100
    assert first["score"] == pytest.approx(100 * last["score"])


def test_a_threshold_drops_what_is_not_near(db: Database, drive: Drive) -> None:
    owner, texts = _corpus(drive)
    query = texts[0]
    near = {text for text in texts if _cosine(query, text) >= 0.5}
    hits = _hits(
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


# Filters -----------------------------------------------------------------------------------------


@pytest.fixture
def library(db: Database, drive: Drive) -> dict[str, Any]:
    """A few files that differ in all that filters ask, and one that is shared with their owner."""
    owner, other = db.create_user(), db.create_user()
    reports = drive.rpc(owner, "create_folder", name="Reports")["id"]
    deep = drive.rpc(owner, "create_folder", name="2026", parent=reports)["id"]
    files = {
        "pdf": drive.file(owner, "Plan.PDF", "budget one", "budget two", folder_id=deep),
        "txt": drive.file(owner, "notes.txt", "budget three"),
        "shared": drive.file(other, "shared.txt", "budget four"),
        "secret": drive.file(other, "secret.txt", "budget five"),
    }
    drive.share(files["shared"]["file_id"], owner)
    ids = {name: ticket["file_id"] for name, ticket in files.items()}
    db.all("update public.chunks set language = 'de' where file_id = %s", ids["txt"])
    db.all("update public.nodes set updated_at = '2025-06-01' where id = %s", ids["txt"])
    return {"owner": owner, "other": other, "reports": reports, "deep": deep} | ids


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, {"pdf", "txt", "shared"}),
        ({"types": ["pdf"]}, {"pdf"}),
        ({"types": [".TXT", "docx"]}, {"txt", "shared"}),
        ({"types": ["docx"]}, set()),
        ({"types": []}, set()),
        ({"types": None}, {"pdf", "txt", "shared"}),
        ({"folder_id": "reports"}, {"pdf"}),
        ({"folder_id": "deep"}, {"pdf"}),
        ({"file_ids": ["pdf", "shared"]}, {"pdf", "shared"}),
        ({"file_ids": ["secret"]}, set()),
        ({"file_ids": []}, set()),
        ({"owner_ids": ["other"]}, {"shared"}),
        ({"owner_ids": ["owner"]}, {"pdf", "txt"}),
        ({"owner_ids": []}, set()),
        ({"languages": ["de"]}, {"txt"}),
        ({"languages": ["en", "fr"]}, {"pdf", "shared"}),
        ({"languages": ["fr"]}, set()),
        ({"date_from": "2026-01-01"}, {"pdf", "shared"}),
        ({"date_to": "2026-01-01T00:00:00Z"}, {"txt"}),
        ({"date_from": "2025-05-01", "date_to": "2025-07-01"}, {"txt"}),
        ({"page_from": 2}, {"pdf"}),
        ({"page_to": 1}, {"pdf", "txt", "shared"}),
        ({"page_from": 3}, set()),
        ({"kinds": ["text"]}, {"pdf", "txt", "shared"}),
        ({"kinds": ["image"]}, set()),
        ({"tags": []}, {"pdf", "txt", "shared"}),
        ({"tags": ["q3"]}, set()),
        ({"source": "web"}, set()),
        ({"metadata": {}}, {"pdf", "txt", "shared"}),
        ({"metadata": {"a": 1}}, set()),
        ({"types": ["txt"], "owner_ids": ["owner"]}, {"txt"}),
    ],
)
def test_a_filter_lets_through_what_it_names(
    drive: Drive, library: dict[str, Any], filters: dict[str, Any], names: set[str]
) -> None:
    filters = {
        key: [str(library.get(v, v)) for v in value]
        if key.endswith("_ids") and isinstance(value, list)
        else library[value]
        if key == "folder_id"
        else value
        for key, value in filters.items()
    }
    for more in ({}, {"embedding": None}, {"options": {"weights": {"keyword": 0}}}):
        hits = _hits(drive, library["owner"], "budget", filters=filters, **more)
        assert {hit["file_id"] for hit in hits} == {library[name] for name in names}
        if "page_from" in filters:
            assert all(hit["page"] >= filters["page_from"] for hit in hits)
        if "page_to" in filters:
            assert all(hit["page"] <= filters["page_to"] for hit in hits)


def test_a_folder_that_is_not_visible_cannot_be_searched(
    drive: Drive, library: dict[str, Any]
) -> None:
    for folder in (str(uuid.uuid4()), library["secret"]):
        with refused("NOT_FOUND", id=folder):
            _hits(drive, library["owner"], "budget", filters={"folder_id": folder})


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("query", {"query": ""}),
        ("query", {"query": "ab"}),
        ("query", {"query": "  ab \n"}),
        ("query", {"query": "x" * 1001}),
        ("query", {"query": None}),
        ("top_k", {"top_k": 0}),
        ("top_k", {"top_k": 101}),
        ("candidates", {"candidates": 0}),
        ("candidates", {"candidates": 1001}),
        ("space", {"space": "unknown"}),
        ("space", {"space": "pages"}),
        ("filters", {"filters": []}),
        ("filters.colour", {"filters": {"colour": "red"}}),
        ("filters.types", {"filters": {"types": "pdf"}}),
        ("filters.file_ids", {"filters": {"file_ids": ["no uuid"]}}),
        ("filters.owner_ids", {"filters": {"owner_ids": [1]}}),
        ("filters.folder_id", {"filters": {"folder_id": "x"}}),
        ("filters.date_from", {"filters": {"date_from": "next spring"}}),
        ("filters.page_from", {"filters": {"page_from": "1"}}),
        ("filters.page_to", {"filters": {"page_to": 1.5}}),
        ("filters.metadata", {"filters": {"metadata": []}}),
        ("options", {"options": []}),
        ("options", {"options": "rrf"}),
        ("options.sort", {"options": {"sort": "date"}}),
        ("options.fusion", {"options": {"fusion": "borda"}}),
        ("options.weights", {"options": {"weights": {"keyword": -1}}}),
        ("options.weights", {"options": {"weights": {"keyword": 0, "vector": 0}}}),
        ("options.weights", {"options": {"weights": {"keyword": "Infinity"}}}),
        ("options.weights", {"options": {"weights": {"dense": 2}}}),
        ("options.weights", {"options": {"weights": 2}}),
        ("options.rrf_k", {"options": {"rrf_k": 0}}),
        ("options", {"options": {"rrf_k": "many"}}),
        ("options", {"options": {"threshold": "high"}}),
        ("embedding", {"embedding": [1.0] * 383}),
        ("embedding", {"embedding": [1.0] * 1024}),
        ("embedding", {"embedding": []}),
        ("embedding", {"embedding": {"a": 1}}),
        ("embedding", {"embedding": "text"}),
        ("embedding", {"embedding": 1}),
        ("embedding", {"embedding": [None] + [1.0] * 383}),
        ("embedding", {"embedding": ["NaN"] + [1.0] * 383}),
        ("embedding", {"embedding": [[1.0]] + [1.0] * 383}),
        ("embedding", {"embedding": [1e300] + [1.0] * 383}),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    db: Database, drive: Drive, field: str, arguments: dict[str, Any]
) -> None:
    owner = db.create_user()
    db.one("select private.create_space('pages', 'm', '1', 8, 'page', 'active', 10)")
    arguments = {
        key: Jsonb(value) if key in ("filters", "options", "embedding") else value
        for key, value in arguments.items()
    }
    arguments = {"query": "a question", "embedding": None} | arguments
    with refused("INVALID_ARGUMENT", field=field) as details:
        drive.rpc(owner, "hybrid_search", **arguments)
    if field in ("embedding", "space") and "got" in details:
        assert details["expected"] == 384
    assert drive.search(owner, "a question")["hits"] == []


def test_a_retired_space_is_refused_and_the_others_named(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    db.one("select private.create_space('old', 'm', '1', 8, 'text', 'retiring', 10)")
    db.one("select private.create_space('next', 'm', '1', 8, 'text', 'shadow', 10)")
    with refused("INVALID_ARGUMENT", field="space") as details:
        drive.search(owner, "a question", space="old")
    assert sorted(details["expected"]) == ["minilm-l6-v2", "next"]
    with refused("INVALID_ARGUMENT", field="space"):
        drive.rpc(owner, "embedding_space", space="old")
    assert drive.rpc(owner, "embedding_space") == {
        "name": "minilm-l6-v2",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "revision": drive.db.one("select revision from public.embedding_spaces where id = 1"),
        "dimension": 384,
        "kind": "text",
        "state": "active",
        "max_tokens": 256,
    }
    with refused("NOT_AUTHENTICATED"):
        drive.rpc(None, "embedding_space")
    with refused("INVALID_ARGUMENT", field="embedding", expected=8, got=384):
        drive.search(owner, "a question", space="next")


# What people type --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "'; drop table nodes; --",
        "budget' or '1'='1",
        "bud:* & (get | !x) <-> y",
        "a & b | !c",
        "((((",
        "\\\\ \\' \\x00",
        "%s %(x)s {} $1 :name",
        "\u0000".replace("\u0000", "\u2400") + " null",
        "😀😀😀",
        "<b>budget</b> &amp;",
        "the of and",
        "https://a.test/x?y=1&z=2#f a@b.test /etc/passwd",
        "x" * 1000,
        "\u202ebudget\u202c",
        "- - -",
        '"budget plan"',
    ],
)
def test_whatever_is_typed_is_data(db: Database, drive: Drive, query: str) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "The budget plan.", query)
    hits = _hits(drive, owner, query, embedding=None)
    assert all(hit["snippet"] for hit in hits)
    if "budget" in query:
        assert hits
    assert _hits(drive, owner, "budget", embedding=None)  # nothing was dropped
    assert _hits(drive, owner, query)


@pytest.mark.parametrize(
    ("language", "text", "query", "other"),
    [
        ("zh", "第三季度的预算是四百万元。", "预算是", "企鹅会游泳吗"),
        ("ja", "四半期の予算は四百万円です。", "予算は", "ペンギン"),
        ("ko", "분기 예산은 사백만 원입니다.", "예산은", "펭귄이다"),
        ("de", "Die Häuser wurden größtenteils verkauft.", "Haus verkaufen", "Pinguine"),
        ("en", "The launches were budgeted.", "launching budgets", "penguins"),
        (None, "Kod 7F-312-B ja muuta", "7F-312-B", "9Z-888-A"),
        ("en", "Call +49 30 1234567 now", "1234567", "7654321"),
        ("fr", "Les budgets ont été approuvés", "budget approuvé", "manchots"),
        ("zh", "\uff37\uff29\uff24\uff25 letters \uff21\uff11", "wide A1", "B12 narrow"),
    ],
)
def test_languages_are_found_by_their_own_words(
    db: Database, drive: Drive, language: str | None, text: str, query: str, other: str
) -> None:
    owner = db.create_user()
    drive.upload(owner)
    for _ in range(2):
        drive.run_stage(drive.claim()[0], [text])
    (job,) = drive.claim()
    drive.work("finish_chunk", job, [row | {"language": language} for row in chunk_rows([text])])
    (hit,) = _hits(drive, owner, query, embedding=None)
    assert hit["snippet"]
    assert _hits(drive, owner, other, embedding=None) == []


def test_a_snippet_shows_the_words_that_were_asked_for(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "filler words here. " * 40 + "The penguins swim. " + "more. " * 40)
    (hit,) = _hits(drive, owner, "swimming penguin", embedding=None)
    assert "penguins swim" in hit["snippet"]
    assert len(hit["snippet"]) < 500


# Who finds what ----------------------------------------------------------------------------------


def test_what_is_in_the_trash_is_never_found(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.file(owner, "gone.txt", "budget one", folder_id=folder)
    drive.file(owner, "kept.txt", "budget two")
    drive.share(folder, peer)
    assert len(_hits(drive, peer, "budget")) == 1
    drive.rpc(owner, "trash_nodes", ids=[folder])
    for user, names in ((owner, ["kept.txt"]), (peer, [])):
        for more in ({}, {"embedding": None}, {"filters": {"types": ["txt"]}}):
            assert [hit["name"] for hit in _hits(drive, user, "budget", **more)] == names


def test_what_is_shared_is_found_under_the_path_that_is_visible(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    top = drive.rpc(owner, "create_folder", name="Secret top")["id"]
    middle = drive.rpc(owner, "create_folder", name="Project", parent=top)["id"]
    low = drive.rpc(owner, "create_folder", name="Drafts", parent=middle)["id"]
    file = drive.file(owner, "Plan.txt", "the budget", folder_id=low)["file_id"]
    drive.share(middle, peer)
    later = drive.file(owner, "Later.txt", "the budget", folder_id=middle)["file_id"]
    paths = {hit["file_id"]: hit["path"] for hit in _hits(drive, peer, "budget")}
    assert paths == {file: "/Project/Drafts/Plan.txt", later: "/Project/Later.txt"}
    assert drive.rpc(peer, "file_details", file_id=file)["path"] == "/Project/Drafts/Plan.txt"
    paths = {hit["file_id"]: hit["path"] for hit in _hits(drive, owner, "budget")}
    assert paths[file] == "/Secret top/Project/Drafts/Plan.txt"
    db.all("update public.shares set expires_at = now()")
    assert _hits(drive, peer, "budget") == []
    db.all("update public.shares set expires_at = now() + interval '1 h'")
    assert len(_hits(drive, peer, "budget")) == 2
    db.all("delete from public.shares")
    assert _hits(drive, peer, "budget") == []


def test_explain_says_how_it_was_answered(drive: Drive, library: dict[str, Any]) -> None:
    filters = Jsonb({"types": ["txt"]})
    answer = drive.search(library["owner"], "budget", explain=True, filters=filters)
    explain = answer["explain"]
    assert explain["plan"] == "exact"
    assert (explain["owners"], explain["shared_files"], explain["filtered_files"]) == (1, 1, 2)
    assert explain["candidates"] == 50
    assert "explain" not in drive.search(library["owner"], "budget")


# Folders and details -----------------------------------------------------------------------------


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


def _renew(db: Database, owner: uuid.UUID) -> None:
    """Compute the weights with today's average, as after a drift."""
    db.all("update private.owner_statistics set weighted_average = 0 where owner_id = %s", owner)
    db.all("select private.renew_weights(%s)", owner)
