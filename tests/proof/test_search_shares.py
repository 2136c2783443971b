"""Searches are those of brute force however little of the table a caller reads."""

from __future__ import annotations

import json
import random
import uuid
from typing import Any

import numpy as np

from tests.database import Database
from tests.db.test_search import WORDS
from tests.proof.brute import Brute, Document, Piece, half_unit
from tests.proof.test_search import ask

DIMENSION, TOPICS, FILE = 32, 20, 50
# parts of the table; who is in the workspaces from one on reads that share of it, and less
PARTS = [1_800, 180, 18, 1, 1]


def _fill(db: Database, parts: list[int]) -> tuple[list[Document], list[Any], list[str]]:
    """Fill a workspace for each part; return the files, the topics and the workspaces."""
    rng, chance = np.random.default_rng(4), random.Random(4)
    topics = rng.normal(size=(TOPICS, DIMENSION))
    space = db.one(
        "select private.create_space('test', 'm', '1', %s, 'text', 'shadow', 10)::integer",
        DIMENSION,
    )
    owners = [str(uuid.uuid4()) for _ in parts]
    db.all(
        "insert into public.owners (id, kind, storage_limit)"
        " select id, 'workspace', 1000000000 from unnest(%s::uuid[]) as w (id)",
        owners,
    )
    db.all("insert into public.workspaces (id) select * from unnest(%s::uuid[])", owners)
    documents: list[Document] = []
    for owner, size in zip(owners, parts, strict=True):
        for at in range(0, size, FILE):
            pieces = []
            for _ in range(min(FILE, size - at)):
                # only the largest part has the second half of the topics
                topic = int(rng.integers(0, TOPICS if size == parts[0] else TOPICS // 2))
                words = chance.choices(WORDS[2 * topic : 2 * topic + 6], k=6)
                text = " ".join([f"n{chance.randrange(10**9)}", *words])
                vector = half_unit(topics[topic] + 0.5 * rng.normal(size=DIMENSION))
                pieces.append(Piece(str(uuid.uuid4()), text, tuple(vector.tolist())))
            documents.append(
                Document(str(uuid.uuid4()), f"{len(documents)}.txt", owner, tuple(pieces))
            )
    rows = [(d, i, p, str(uuid.UUID(int=uuid.UUID(d.id).int ^ 1))) for d in documents
            for i, p in enumerate(d.pieces)]  # fmt: skip
    db.connection.execute("reset session authorization")
    db.all("set session_replication_role = 'replica'")
    files = [
        (d.id, d.name, d.owner_id, str(uuid.UUID(int=uuid.UUID(d.id).int ^ 1))) for d in documents
    ]
    columns = [list(column) for column in zip(*files, strict=True)]
    db.all(
        "insert into public.nodes (id, kind, name, owner_id, path, head_version_id)"
        " select id, 'file', name, owner_id, array[id], version_id"
        " from unnest(%s::uuid[], %s::text[], %s::uuid[], %s::uuid[])"
        " as n (id, name, owner_id, version_id)",
        *columns,
    )
    db.all(
        "insert into public.file_versions (id, file_id, no, blob_id, size, status)"
        " select version_id, id, 1, id, 10, 'ready'"
        " from unnest(%s::uuid[], %s::uuid[]) as n (id, version_id)",
        columns[0],
        columns[3],
    )
    db.all(
        "insert into public.chunks (id, file_id, version_id, idx, page, content, char_start,"
        " char_end, language, text_hash)"
        " select id, file_id, version_id, idx, 1, content, 0, 1, 'en', sha256(content::bytea)"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::integer[], %s::text[])"
        " as c (id, file_id, version_id, idx, content)",
        [p.id for _, _, p, _ in rows],
        [d.id for d, _, _, _ in rows],
        [version for _, _, _, version in rows],
        [i for _, i, _, _ in rows],
        [p.text for _, _, p, _ in rows],
    )
    db.all("set session_replication_role = 'origin'")
    db.all("set session authorization postgres")
    db.all("select private.index_chunks(v) from unnest(%s::uuid[]) as v", columns[3])
    db.all(
        "insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
        " select %s, owner_id, file_id, id, v::extensions.halfvec"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[])"
        " as c (id, owner_id, file_id, v)",
        space,
        [p.id for _, _, p, _ in rows],
        [d.owner_id for d, _, _, _ in rows],
        [d.id for d, _, _, _ in rows],
        [json.dumps(p.vector) for _, _, p, _ in rows],
    )
    statement = db.one("select private.vector_index_statement(%s::smallint)", space)
    db.connection.execute(statement.replace("concurrently", ""))
    db.all("analyze private.chunk_vectors, private.chunk_terms, public.nodes, public.chunks")
    return documents, [*topics], owners


def _prove(db: Database, parts: list[int], questions: int) -> None:
    documents, topics, owners = _fill(db, parts)
    rng, chance = np.random.default_rng(5), random.Random(5)
    db.all(
        "update private.settings set value = %s::jsonb where key = 'search.exact_chunks'",
        str(parts[0] // 2),
    )
    plans = set()
    for number in range(len(parts)):
        mine = set(owners[number:])
        readable = {d.id for d in documents if d.owner_id in mine}
        member, guest = db.create_user(), db.create_user()
        db.all(
            "insert into public.workspace_members (workspace_id, user_id, level)"
            " select w, %s, 'view' from unnest(%s::uuid[]) as w",
            member,
            sorted(mine),
        )
        db.all(  # the same, by shares
            "insert into public.shares (node_id, grantee_id, level)"
            " select n, %s, 'view' from unnest(%s::uuid[]) as n",
            guest,
            sorted(readable),
        )
        for user, own in ((member, mine), (guest, set[str]())):
            brute = Brute(documents, readable, own)
            found: dict[str, list[float]] = {"keyword": [], "exact": [], "hnsw": []}
            for topic in chance.sample(range(TOPICS), questions):  # half of them are off
                query = " ".join(chance.choices(WORDS[2 * topic : 2 * topic + 6], k=2))
                vector = half_unit(topics[topic] + 0.5 * rng.normal(size=DIMENSION)).tolist()
                with db.as_user(user):
                    for leg, weights in {
                        "keyword": {"vector": 0, "name": 0},
                        "vector": {"keyword": 0, "name": 0},
                    }.items():
                        answer = ask(
                            db, "hybrid_search", query=query, embedding=vector, space="test",
                            top_k=10, candidates=100, explain=True,
                            options={"weights": weights, "dedup": False},
                        )  # fmt: skip
                        hits = answer["hits"]
                        plan = answer["explain"]["plan"] if leg == "vector" else leg
                        ranks = brute.keyword(query) if leg == "keyword" else brute.dense(vector)
                        found[plan].append(ranks.recall([h["chunk_id"] for h in hits], 10))
                        if plan != "hnsw":
                            for place, hit in enumerate(hits, 1):
                                score = hit["parts"][f"{leg}_score"]
                                problem = ranks.problem(hit["chunk_id"], place, score)
                                assert problem is None, (number, leg, problem)
            assert min(found["keyword"]) == 1.0, (number, found)
            assert min(found["exact"], default=1.0) == 1.0, (number, found)
            assert np.mean(found["hnsw"] or [1.0]) >= 0.95, (number, found)
            plans |= {plan for plan, recalls in found.items() if recalls}
    assert plans == {"keyword", "exact", "hnsw"}


def test_recall_at_every_share_of_two_thousand_chunks(db: Database) -> None:
    _prove(db, PARTS, 4)
