"""Filters, refusals, what people type, and who finds what."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive, chunk_rows, refused
from tests.db.looks import (
    hits_of,
)


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
    db.all("update private.indexed_files set languages = '{de}' where file_id = %s", ids["txt"])
    noted = {"client": {"name": "Acme", "ids": [1, 2]}, "year": 2026}
    drive.rpc(owner, "set_metadata", file_id=ids["pdf"], metadata=noted, source="crm")
    drive.rpc(other, "set_metadata", file_id=ids["shared"], metadata={"year": 2026}, source="web")
    drive.rpc(other, "set_metadata", file_id=ids["secret"], metadata=noted, source="web")
    db.all("update public.nodes set mime = 'image/png' where id = %s", ids["shared"])
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
        ({"kinds": ["text"]}, {"pdf", "txt"}),
        ({"kinds": ["image"]}, {"shared"}),
        ({"kinds": ["text", "image"]}, {"pdf", "txt", "shared"}),
        ({"kinds": ["audio", "video"]}, set()),
        ({"kinds": []}, set()),
        ({"tags": []}, {"pdf", "txt", "shared"}),
        ({"tags": ["q3"]}, set()),
        ({"source": "web"}, {"shared"}),
        ({"source": "crm"}, {"pdf"}),
        ({"source": "none"}, set()),
        ({"metadata": {}}, {"pdf", "txt", "shared"}),
        ({"metadata": {"a": 1}}, set()),
        ({"metadata": {"year": 2026}}, {"pdf", "shared"}),
        ({"metadata": {"year": "2026"}}, set()),
        ({"metadata": {"client": {"ids": [2]}}}, {"pdf"}),
        ({"metadata": {"client": {"name": "Acme"}}, "types": ["txt"]}, set()),
        ({"folder_id": "reports", "source": "crm", "kinds": ["text"]}, {"pdf"}),
        ({"folder_id": "reports", "file_ids": ["txt"]}, set()),
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
        hits = hits_of(drive, library["owner"], "budget", filters=filters, **more)
        assert {hit["file_id"] for hit in hits} == {library[name] for name in names}
        if "page_from" in filters:
            assert all(hit["page"] >= filters["page_from"] for hit in hits)
        if "page_to" in filters:
            assert all(hit["page"] <= filters["page_to"] for hit in hits)


def _mixed_files(drive: Drive, user: uuid.UUID, chance: random.Random, **more: object) -> list[str]:
    """Files of several languages and lengths, with words in common; some have no pages."""
    files = []
    for number in range(12):
        ticket = drive.upload(user, f"{uuid.uuid4()}.txt", **more)
        files.append(ticket["file_id"])
        has_pages, languages = number % 4 > 0, chance.choice([["en"], ["en"], ["de"], ["en", "de"]])
        texts = [
            " ".join(chance.choices(["bark", "dork", "lump", "tump", "rark"], k=6))
            for _ in range(chance.choice([1, 2, 2, 9]))
        ]
        rows = [
            row | {"page": i // 2 + 1 if has_pages else None, "language": chance.choice(languages)}
            for i, row in enumerate(chunk_rows(texts))
        ]
        while jobs := drive.claim():
            for job in jobs:
                if job["stage"] == "chunk":
                    drive.work("finish_chunk", job, rows)
                else:
                    drive.run_stage(job, texts)
    return files


@pytest.mark.parametrize("seed", range(2))
def test_filters_on_passages_find_by_word_what_is_left_without_the_others(
    db: Database, drive: Drive, seed: int
) -> None:
    """Files that cannot pass are left out before anything is scored: it changes no result."""
    chance = random.Random(seed)
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="shared")["id"]
    drive.share(folder, peer)
    files = _mixed_files(drive, owner, chance) + _mixed_files(
        drive, owner, chance, folder_id=folder
    )
    _mixed_files(drive, peer, chance)
    # copies are served without being read
    drive.rpc(owner, "copy_nodes", ids=files[:3], target=folder)
    pages = dict(db.all("select id, coalesce(page, 0) from public.chunks"))
    languages = dict(db.all("select id, language from public.chunks"))
    file_of = dict(db.all("select id, file_id::text from public.chunks"))
    filters: list[dict[str, Any]] = [
        *({"page_from": page} for page in (1, 2, 4, 5, 6)),
        *({"page_to": page} for page in (1, 3)),
        *({"languages": names} for names in (["de"], ["en"], ["fr"], ["fr", "de"], ["en", "de"])),
        {"page_from": 2, "page_to": 3, "languages": ["de"]},
        {"page_from": 3, "file_ids": files[::2]},
        {"languages": ["de"], "file_ids": files[::3]},
    ]
    narrowed = set()
    for user in (owner, peer):
        with db.as_user(user):
            claims = db.one("select current_setting('request.jwt.claims')")
        db.all("select set_config('request.jwt.claims', %s, true)", claims)

        def found(query: str, asked: dict[str, Any], limit: int) -> list[Any]:
            return db.all(
                "select chunk_id, score from"
                " private.search_keyword(%s, private.search_scope(%s), %s)",
                query,
                Jsonb(asked),
                limit,
            )

        for query in ("bark", "dork lump", "tump*", '"bark dork"', "rark -lump"):
            everything = found(query, {}, 10000)
            for asked in filters:
                expected = [
                    (chunk, score)
                    for chunk, score in everything
                    if (pages[chunk] or -1) >= asked.get("page_from", -1)
                    and ("page_to" not in asked or 0 < pages[chunk] <= asked["page_to"])
                    and languages[chunk] in asked.get("languages", [languages[chunk]])
                    and file_of[chunk] in asked.get("file_ids", [file_of[chunk]])
                ]
                assert found(query, asked, 10000) == expected, (query, asked)
                best = found(query, asked, 2)
                # two of the caller's own, two of what is shared
                assert set(best) <= set(expected)
                assert len(best) >= min(2, len(expected))
        for asked in filters:
            narrowed.add(
                db.one(
                    "select cardinality(private.narrowed_files(private.search_scope(%s)))"
                    " is distinct from cardinality((private.search_scope(%s)).file_ids)",
                    Jsonb(asked),
                    Jsonb(asked),
                )
            )
    assert narrowed == {True, False}  # control: both ways were taken


def test_a_folder_that_is_not_visible_cannot_be_searched(
    drive: Drive, library: dict[str, Any]
) -> None:
    for folder in (str(uuid.uuid4()), library["secret"]):
        with refused("NOT_FOUND", id=folder):
            hits_of(drive, library["owner"], "budget", filters={"folder_id": folder})


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
        ("filters.metadata", {"filters": {"metadata": "{}"}}),
        ("filters.kinds", {"filters": {"kinds": ["picture"]}}),
        ("filters.kinds", {"filters": {"kinds": [None]}}),
        ("filters.tags", {"filters": {"tags": [1]}}),
        ("filters.types", {"filters": {"types": [["pdf"]]}}),
        ("filters.source", {"filters": {"source": ["web"]}}),
        ("filters.file_ids", {"filters": {"file_ids": [str(uuid.uuid4())] * 10_001}}),
        ("filters.languages", {"filters": {"languages": ["x" * 1_000_001]}}),
        ("filters.page_from", {"filters": {"page_from": 1e300}}),
        ("filters.page_to", {"filters": {"page_to": 10**12}}),
        ("filters.date_to", {"filters": {"date_to": "999999-01-01"}}),
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
        ("options.rrf_k", {"options": {"rrf_k": "many"}}),
        ("options.rrf_k", {"options": {"rrf_k": 1e300}}),
        ("options.threshold", {"options": {"threshold": "high"}}),
        ("options.threshold", {"options": {"threshold": 1.5}}),
        ("options.group_by", {"options": {"group_by": "folder"}}),
        ("options.group_by", {"options": {"group_by": ["file"]}}),
        ("options.per_file", {"options": {"per_file": 0}}),
        ("options.context", {"options": {"context": "all"}}),
        ("options.dedup", {"options": {"dedup": "yes"}}),
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
        "languages": ["en"],
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
    hits = hits_of(drive, owner, query, embedding=None)
    assert all(hit["snippet"] for hit in hits)
    if "budget" in query:
        assert hits
    assert hits_of(drive, owner, "budget", embedding=None)  # nothing was dropped
    assert hits_of(drive, owner, query)


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
    (hit,) = hits_of(drive, owner, query, embedding=None)
    assert hit["snippet"]
    assert hits_of(drive, owner, other, embedding=None) == []


def test_a_snippet_shows_the_words_that_were_asked_for(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.file(owner, "a.txt", "filler words here. " * 40 + "The penguins swim. " + "more. " * 40)
    (hit,) = hits_of(drive, owner, "swimming penguin", embedding=None)
    assert "penguins swim" in hit["snippet"]
    assert len(hit["snippet"]) < 500


# Who finds what ----------------------------------------------------------------------------------


def test_what_is_in_the_trash_is_never_found(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.file(owner, "gone.txt", "budget one", folder_id=folder)
    drive.file(owner, "kept.txt", "budget two")
    drive.share(folder, peer)
    assert len(hits_of(drive, peer, "budget")) == 1
    drive.rpc(owner, "trash_nodes", ids=[folder])
    for user, names in ((owner, ["kept.txt"]), (peer, [])):
        for more in ({}, {"embedding": None}, {"filters": {"types": ["txt"]}}):
            assert [hit["name"] for hit in hits_of(drive, user, "budget", **more)] == names


def test_what_is_shared_is_found_under_the_path_that_is_visible(db: Database, drive: Drive) -> None:
    owner, peer = db.create_user(), db.create_user()
    top = drive.rpc(owner, "create_folder", name="Secret top")["id"]
    middle = drive.rpc(owner, "create_folder", name="Project", parent=top)["id"]
    low = drive.rpc(owner, "create_folder", name="Drafts", parent=middle)["id"]
    file = drive.file(owner, "Plan.txt", "the budget", folder_id=low)["file_id"]
    drive.share(middle, peer)
    later = drive.file(owner, "Later.txt", "the budget", folder_id=middle)["file_id"]
    paths = {hit["file_id"]: hit["path"] for hit in hits_of(drive, peer, "budget")}
    assert paths == {file: "/Project/Drafts/Plan.txt", later: "/Project/Later.txt"}
    assert drive.rpc(peer, "file_details", file_id=file)["path"] == "/Project/Drafts/Plan.txt"
    paths = {hit["file_id"]: hit["path"] for hit in hits_of(drive, owner, "budget")}
    assert paths[file] == "/Secret top/Project/Drafts/Plan.txt"
    db.all("update public.shares set expires_at = now()")
    assert hits_of(drive, peer, "budget") == []
    db.all("update public.shares set expires_at = now() + interval '1 h'")
    assert len(hits_of(drive, peer, "budget")) == 2
    db.all("delete from public.shares")
    assert hits_of(drive, peer, "budget") == []


def test_explain_says_how_it_was_answered(drive: Drive, library: dict[str, Any]) -> None:
    filters = Jsonb({"types": ["txt"]})
    answer = drive.search(library["owner"], "budget", explain=True, filters=filters)
    explain = answer["explain"]
    assert explain["plan"] == "exact"
    assert (explain["owners"], explain["shared_files"], explain["filtered_files"]) == (1, 1, 2)
    assert explain["candidates"] == 50
    assert "explain" not in drive.search(library["owner"], "budget")
