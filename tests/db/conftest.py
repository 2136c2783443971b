"""The drive as tests drive it: Storage's two writes, and a worker without a model."""

from __future__ import annotations

import base64
import json
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from narwhal.local.postgres import SUPERUSER
from tests.conftest import FreshDatabase
from tests.database import Database

DIMENSION = 384


class Drive:
    """Uploads and ingests through the functions that Storage and workers call."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def rpc(self, user: uuid.UUID | None, function: str, /, **arguments: object) -> Any:
        """Call a public function as a user, as PostgREST does."""
        named = ", ".join(f'"{key}" => %s' for key in arguments)
        values = [
            Jsonb(value) if isinstance(value, dict) else value for value in arguments.values()
        ]
        with self.db.as_user(user):
            return self.db.one(f"select to_jsonb(public.{function}({named}))", *values)  # type: ignore[arg-type]

    def ticket(self, user: uuid.UUID, name: str = "a.txt", size: int = 10, **more: object) -> Any:
        """Ask for an upload ticket."""
        return self.rpc(user, "begin_upload", name=name, size=size, **more)

    def probe(self, user: uuid.UUID | None, key: str, size: int) -> None:
        """Storage's permission test: an insert as the caller, rolled back."""
        with self.db.as_user(user):
            self.db.all(
                "insert into storage.objects (bucket_id, name, owner, owner_id, version, metadata)"
                " values ('files', %s, %s, %s, '1', %s)",
                key,
                user,
                str(user) if user else None,
                json.dumps({"mimetype": "text/plain", "contentLength": size}),
            )
            raise RolledBackError

    def probed(self, user: uuid.UUID | None, key: str, size: int) -> bool:
        """Whether the permission test passes; it leaves nothing behind."""
        with pytest.raises(RolledBackError):
            self.probe(user, key, size)
        return True

    def store(self, user: uuid.UUID, key: str, size: int) -> None:
        """Storage's real write: an upsert, as the service, with the size."""
        with self.db.as_service():
            self.db.all(
                "insert into storage.objects (bucket_id, name, owner, owner_id, version, metadata)"
                " values ('files', %s, %s, %s, %s, %s) on conflict (name, bucket_id) do update"
                " set version = excluded.version, metadata = excluded.metadata",
                key,
                user,
                str(user),
                str(uuid.uuid4()),
                json.dumps({"mimetype": "text/plain", "size": size, "contentLength": size}),
            )

    def write_documents(self) -> int:
        """Write saved documents to Storage, as a worker does: the object names nobody."""
        with self.db.as_role("narwhal_worker"):
            documents = self.db.all("select private.claim_documents(100)")
        for document in documents:
            size = len(base64.b64decode(document["content"]))
            with self.db.as_service():
                self.db.all(
                    "insert into storage.objects (bucket_id, name, version, metadata)"
                    " values (%s, %s, %s, %s)",
                    document["bucket"],
                    document["key"],
                    str(uuid.uuid4()),
                    json.dumps({"mimetype": document["mime"], "size": size}),
                )
        return len(documents)

    def upload(self, user: uuid.UUID, name: str = "a.txt", size: int = 10, **more: object) -> Any:
        """Upload a file; returns its ticket."""
        ticket = self.ticket(user, name, size, **more)
        self.store(user, ticket["key"], size)
        return ticket

    def claim(self, count: int = 1) -> list[Any]:
        """Claim jobs as a worker."""
        with self.db.as_role("narwhal_worker"):
            return self.db.all("select private.claim_jobs('test', %s)", count)

    def work(self, function: str, job: Any, *arguments: object) -> Any:
        """Call one of the queue's functions as the worker that holds the job."""
        places = "".join(", %s" for _ in arguments)
        values = [Jsonb(a) if isinstance(a, list | dict) else a for a in arguments]
        with self.db.as_role("narwhal_worker"):
            return self.db.one(
                f"select private.{function}(%s, %s{places})",  # type: ignore[arg-type]
                job["id"],
                job["lease_token"],
                *values,
            )

    def run_stage(self, job: Any, texts: list[str]) -> None:
        """Run one job; `texts` are the chunks that the file has, each on a page of its own."""
        if job["stage"] == "detect":
            digest = uuid.UUID(job["version_id"]).hex * 2
            self.work("finish_detect", job, digest, "text/plain", "text", None)
        elif job["stage"] == "extract":
            pages = [
                {"page": i + 1, "text": text, "source": "text", "layout": {}}
                for i, text in enumerate(texts)
            ]
            self.work("finish_extract", job, "en", True, pages)
        elif job["stage"] == "chunk":
            self.work("finish_chunk", job, chunk_rows(texts))
        elif job["stage"] in ("render", "unpack"):
            self.work(f"finish_{job['stage']}", job)
        else:
            missing = self.work("job_texts", job, 1000)["texts"]
            vectors = [{"hash": t["hash"], "embedding": embed(t["content"])} for t in missing]
            self.work("store_vectors", job, vectors)
            self.work("finish_embed_text", job)

    def ingest(self, *texts: str) -> None:
        """Run every job there is; each file gets these chunks."""
        while jobs := self.claim():
            for job in jobs:
                self.run_stage(job, list(texts))

    def file(self, user: uuid.UUID, name: str, *texts: str, **more: object) -> Any:
        """Upload and ingest a file with these chunks; returns its ticket."""
        ticket = self.upload(user, name, **more)
        self.ingest(*texts)
        return ticket

    def clean_up(self, max_nodes: int = 200) -> int:
        """Remove the rows of purged nodes and their objects, as a worker does; how many nodes."""
        count = 0
        with self.db.as_role("narwhal_worker"):
            while removed := self.db.one("select private.purge_batch(%s)", max_nodes):
                count += removed
            objects = self.db.all("select private.claim_object_deletions(1000000)")
            self.db.all(
                "select private.finish_object_deletions(%s::bigint[])", [o["id"] for o in objects]
            )
        with self.db.as_service():
            self.db.all("select set_config('storage.allow_delete_query', 'true', true)")
            for o in objects:
                self.db.all(
                    "delete from storage.objects where bucket_id = %s and name = %s",
                    o["bucket"],
                    o["key"],
                )
        return count

    def search(self, user: uuid.UUID | None, query: str, **arguments: object) -> Any:
        """Search both legs, with the test's own embedding."""
        if "embedding" not in arguments:
            arguments["embedding"] = Jsonb(embed(query))
        answer = self.rpc(user, "hybrid_search", query=query, **arguments)
        answer.pop("search_id")  # each has its own
        return answer

    def share(
        self, node: str, user: uuid.UUID, level: str = "view", expires_at: object = None
    ) -> str:
        """Share a node as its owner; return the id of the share."""
        owner = self.db.one("select owner_id from public.nodes where id = %s", node)
        made = self.rpc(
            owner,
            "share_node",
            node=node,
            grantee={"user_id": str(user)},
            level=level,
            expires_at=expires_at,
        )
        return str(made["id"])

    def rendition(self, version: str, page: int | None = None) -> uuid.UUID:
        """Give a version a picture, as a worker will; return its id."""
        key = f"{uuid.uuid4()}.webp"
        with self.db.as_service():
            self.db.all(
                "insert into storage.objects (bucket_id, name, version, metadata)"
                " values ('derived', %s, '1', '{\"size\": 3}')",
                key,
            )
        made: uuid.UUID = self.db.one(
            "select private.add_rendition(%s, %s, %s, %s, 3, 320, 200)",
            version,
            "page" if page else "thumbnail",
            page,
            key,
        )
        return made

    @contextmanager
    def holding(self, grant: str, **headers: str) -> Iterator[None]:
        """Send the grant of a link with every request, and more headers."""
        sent = json.dumps({"x-share-grant": grant, **headers})
        before = self.db.one("select current_setting('request.headers', true)")
        self.db.all("select set_config('request.headers', %s, false)", sent)
        try:
            yield
        finally:
            self.db.all("select set_config('request.headers', %s, false)", before or "")


class RolledBackError(Exception):
    """Ends a block whose work is to be undone."""


@contextmanager
def refused(code: str, **details: object) -> Iterator[dict[str, Any]]:
    """Expect one error of the catalogue, with these details; the block's dict gets all of them."""
    found: dict[str, Any] = {}
    with pytest.raises(psycopg.Error) as error:
        yield found
    diagnosis = error.value.diag
    assert str(error.value.sqlstate).startswith("PT"), error.value
    found.update(json.loads(diagnosis.message_detail or "{}"))
    assert found["error"] == code, error.value
    assert "\n" not in (diagnosis.message_primary or "\n")
    assert {key: found.get(key) for key in details} == details


@contextmanager
def refused_by_storage(code: str) -> Iterator[None]:
    """Expect an error that Storage passes on: 42501 with the code in its text."""
    with pytest.raises(psycopg.Error) as error:
        yield
    assert error.value.sqlstate == "42501"
    message = error.value.diag.message_primary or ""
    assert message.startswith(f"narwhal/{code}: "), message
    assert "row-level security" not in message


@contextmanager
def denied(sqlstate: str = "42501") -> Iterator[None]:
    """Expect Postgres' own refusal: a missing right, or a constraint."""
    with pytest.raises(psycopg.Error) as error:
        yield
    assert error.value.sqlstate == sqlstate, error.value
    assert not (error.value.diag.message_primary or "").startswith("narwhal/"), error.value


@contextmanager
def holding_link(db: Database, node: str, maker: uuid.UUID, level: str = "view") -> Iterator[None]:
    """Send the grant of a link to this node with each call."""
    grant = uuid.uuid4().hex
    db.all(
        "with link as (insert into public.share_links (node_id, level, created_by)"
        " values (%s, %s, %s) returning id) insert into private.link_grants"
        " (grant_hash, link_id, expires_at) select sha256(convert_to(%s, 'UTF8')), id,"
        " now() + interval '15 minutes' from link",
        node,
        level,
        maker,
        grant,
    )
    headers = json.dumps({"x-share-grant": grant})
    db.all("select set_config('request.headers', %s, true)", headers)
    yield
    db.all("select set_config('request.headers', '', true)")


def chunk_rows(texts: list[str]) -> list[dict[str, Any]]:
    """One chunk a text, as the chunk stage would store it."""
    return [
        {
            "idx": i,
            "page": i + 1,
            "content": text,
            "char_start": 0,
            "char_end": len(text),
            "bboxes": [],
            "heading": None,
            "language": "en",
        }
        for i, text in enumerate(texts)
    ]


def embed(text: str) -> list[float]:
    """A bag of hashed words, of length 1: texts that share words are near."""
    vector = [0.0] * DIMENSION
    for word in text.lower().split():
        vector[int.from_bytes(word.encode(), "big") % DIMENSION] += 1.0
    norm = math.sqrt(sum(x * x for x in vector)) or 1.0
    return [x / norm for x in vector]


@pytest.fixture
def drive(db: Database) -> Drive:
    """A drive in a transaction that is rolled back."""
    return Drive(db)


@pytest.fixture
def connect(fresh_database: FreshDatabase) -> Iterator[Callable[[], Drive]]:
    """Drives on one database, each with a connection of its own; every call commits."""
    with ExitStack() as opened:
        yield lambda: Drive(Database(opened.enter_context(fresh_database.connect(SUPERUSER))))
