"""A collection in the database: an owner's files, some of them shared with readers."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from narwhal.errors import NarwhalError
from narwhal.evaluation.asking import User
from narwhal.evaluation.collection import Collection, File
from narwhal.evaluation.database import Database
from narwhal.evaluation.embeddings import EmbeddingCache
from narwhal.ingest.chunking import chunk, with_context
from narwhal.ingest.language import detect_language
from narwhal.ingest.pipeline import chunk_row, page_row
from narwhal.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILES_AT_ONCE = 50
PURGE_AT_ONCE = 500
# what each reader may read, in thousandths of the files: a smaller share lies within a larger one
SHARES = {"10 %": 100, "1 %": 10}

Report = Callable[[str, int, int], None]


@dataclass
class Library:
    """What was loaded: who can read which files, and the vector of every chunk."""

    owner: User
    readers: dict[str, User]
    file_ids: dict[str, uuid.UUID]
    readable: dict[str, frozenset[str]]
    languages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    chunk_files: list[str] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None

    @property
    def language(self) -> str:
        """The language of most chunks."""
        return max(self.languages, key=self.languages.__getitem__, default="und")


@contextmanager
def loaded(
    database: Database,
    settings: Settings | None,
    collection: Collection,
    space: dict[str, Any],
    embeddings: EmbeddingCache,
    report: Report,
    *,
    clean_up: bool = True,
) -> Iterator[Library]:
    """Load a collection for new accounts, as ingestion would.

    They are taken away in the end, unless `clean_up` is false: the database goes as a whole then.

    The rows of files are written directly, the chunks and vectors through the queue's functions,
    so that what is searched is what workers produce.
    """
    users: list[User] = []
    try:
        for _ in range(1 + len(SHARES)):
            users.append(_create_user(database, settings))
        library = Library(
            owner=users[0],
            readers=dict(zip(SHARES, users[1:], strict=True)),
            file_ids={file.id: uuid.uuid4() for file in collection.files},
            readable={
                name: frozenset(f.id for f in collection.files if _bucket(f) < limit)
                for name, limit in SHARES.items()
            },
        )
        folders = _make_folders(database, library)
        _load_files(database, collection.files, library, folders, space, embeddings, report)
        yield library
    finally:
        for user in users if clean_up else ():
            _remove_user(database, user)


def find_space(database: Database, name: str) -> dict[str, Any]:
    """Find a text space by name, or the active one by 'active'; raises NarwhalError NOT_FOUND."""
    rows = database.query("find_space", space=name)
    if not rows:
        raise NarwhalError(
            f"There is no text space {name!r} to search.",
            "See: narwhal spaces list",
            error="NOT_FOUND",
            status=404,
        )
    space: dict[str, Any] = rows[0]["space"]
    return space


def searched_text(row: dict[str, Any]) -> str:
    """What is embedded of a chunk."""
    return with_context(row["content"], row["context"])


def _bucket(file: File) -> int:
    """Give a file one of a thousand places, by its id alone."""
    return int.from_bytes(hashlib.sha256(file.id.encode()).digest()[:4], "big") % 1000


def _create_user(database: Database, settings: Settings | None) -> User:
    email, password = f"eval-{uuid.uuid4().hex[:16]}@example.invalid", secrets.token_urlsafe(24)
    if settings is None:
        return User(database.query("create_user", email=email)[0]["id"], email, password)
    from narwhal.session import admin_client

    made = admin_client(settings).auth.admin.create_user(
        {"email": email, "password": password, "email_confirm": True}
    )
    return User(uuid.UUID(made.user.id), email, password)


def _make_folders(database: Database, library: Library) -> list[tuple[int, uuid.UUID]]:
    """Make a folder for each ring of readers and share it; returns (upper bound, folder)."""
    folders = []
    for inner, limit in pairwise([0, *sorted(SHARES.values()), 1000]):
        name = f"{inner} to {limit}"
        made = database.rpc(library.owner.id, "create_folder", name=name, parent=None)
        folders.append((limit, uuid.UUID(made["id"])))
        for share, reader in library.readers.items():
            if SHARES[share] >= limit:
                database.rpc(
                    library.owner.id,
                    "share_node",
                    node=folders[-1][1],
                    grantee={"user_id": str(reader.id)},
                    level="view",
                )
    return folders


def _load_files(
    database: Database,
    files: Sequence[File],
    library: Library,
    folders: list[tuple[int, uuid.UUID]],
    space: dict[str, Any],
    embeddings: EmbeddingCache,
    report: Report,
) -> None:
    """Put the files in service: with chunks, and with vectors in the evaluated space."""
    import numpy as np

    chunks = {}
    for done, file in enumerate(files, 1):
        pieces = chunk(
            file.document,
            count_tokens=embeddings.encoder.count_tokens,
            max_tokens=embeddings.encoder.max_tokens,
        )
        chunks[file.id] = [chunk_row(piece) for piece in pieces]
        report("chunks", done, len(files))
    texts = list({searched_text(row) for rows in chunks.values() for row in rows})
    vectors = embeddings.encode(texts, lambda done, total: report("vectors", done, total))
    by_text = dict(zip(texts, vectors, strict=True))
    for start in range(0, len(files), FILES_AT_ONCE):
        batch = files[start : start + FILES_AT_ONCE]
        with database.connection.transaction():
            _load_batch(database, batch, library, folders, space, chunks, by_text)
        report("files", start + len(batch), len(files))
    ordered = [(file.id, row) for file in files for row in chunks[file.id]]
    for _, row in ordered:
        library.languages[row["language"] or "und"] += 1
    library.chunk_files = [name for name, _ in ordered]
    library.vectors = np.array([by_text[searched_text(row)] for _, row in ordered], np.float32)


def _load_batch(
    database: Database,
    files: Sequence[File],
    library: Library,
    folders: list[tuple[int, uuid.UUID]],
    space: dict[str, Any],
    chunks: dict[str, list[dict[str, Any]]],
    vectors: dict[str, Any],
) -> None:
    rows = [_file_row(file, library, folders) for file in files]
    of_version = {row["version_id"]: file.id for row, file in zip(rows, files, strict=True)}
    jobs = database.query("add_files", files=Jsonb(rows))
    database.work(
        "select private.finish_chunk(%s, %s, %s)",
        [
            (job["id"], job["lease_token"], Jsonb(chunks[of_version[str(job["version_id"])]]))
            for job in jobs
        ],
    )
    jobs = database.query("take_embedding", version_ids=list(of_version), space_id=space["id"])
    found = {}
    for job in jobs:
        texts = {searched_text(row) for row in chunks[of_version[str(job["version_id"])]]}
        found[job["id"]] = [
            {
                "hash": hashlib.sha256(text.encode()).hexdigest(),
                "embedding": [round(float(x), 6) for x in vectors[text]],
            }
            for text in texts
        ]
    database.work(
        "select private.store_vectors(%s, %s, %s)",
        [(job["id"], job["lease_token"], Jsonb(found[job["id"]])) for job in jobs],
    )
    database.work(
        "select private.finish_embed_text(%s, %s)",
        [(job["id"], job["lease_token"]) for job in jobs],
    )


def _file_row(file: File, library: Library, folders: list[tuple[int, uuid.UUID]]) -> dict[str, Any]:
    sample = "\n".join(page.text[:2000] for page in file.document.pages[:10])
    return {
        "id": str(library.file_ids[file.id]),
        "version_id": str(uuid.uuid4()),
        "folder_id": str(next(folder for limit, folder in folders if _bucket(file) < limit)),
        "name": file.name,
        "language": detect_language(sample),
        "is_paged": file.document.paged,
        "pages": [page_row(page) for page in file.document.pages],
    }


def _remove_user(database: Database, user: User) -> None:
    """Purge what a user owns, as the drive does, in batches; then the account."""
    roots = [
        uuid.UUID(node["id"]) for node in database.rpc(user.id, "list_folder", folder=None)["items"]
    ]
    if roots:
        database.rpc(user.id, "purge_nodes", ids=roots)
    while True:
        row = database.connection.execute(
            "select private.purge_batch(%s)", (PURGE_AT_ONCE,)
        ).fetchone()
        if not row or not row[0]:
            break
    database.query("delete_user", user_id=user.id)
