"""Pages and images as tests see them: spaces, and a worker whose pictures are made of numbers."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg.types.json import Jsonb

from tests.database import Database
from tests.db.conftest import Drive

Floats = NDArray[np.float64]
DIMENSION = 8


def make_space(db: Database, kind: str = "page", state: str = "active", name: str = "") -> int:
    """Register a space of small vectors; return its id."""
    return int(
        db.one(
            "select private.create_space(%s, 'test', 'test', %s, %s, %s, 1)",
            name or f"{kind}-test",
            DIMENSION,
            kind,
            state,
        )
    )


def draw(rng: np.random.Generator, patches: int = 6, near: Floats | None = None) -> Floats:
    """Draw a picture's vectors, each of unit length; near those of another picture if given."""
    vectors = rng.normal(size=(patches, DIMENSION))
    if near is not None:
        vectors = near[rng.integers(0, len(near), patches)] + 0.1 * vectors
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def hash_of(picture: Floats) -> str:
    """Return the name of a picture: what it looks like, and nothing else."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def store(
    drive: Drive, job: Any, pictures: dict[int, Floats], grid: Sequence[int] | None = None
) -> Any:
    """Store pages of a job as its worker; return what is missing."""
    rows = [
        {"page": page, "hash": hash_of(picture), "vectors": picture.tolist(), "grid": grid}
        for page, picture in pictures.items()
    ]
    return drive.work("store_page_vectors", job, rows)


def ingest(drive: Drive, pictures: Sequence[Floats], mime: str = "application/pdf") -> None:
    """Run every job there is; each file gets these pages, without any text."""
    while jobs := drive.claim():
        for job in jobs:
            run_stage(drive, job, pictures, mime)


def run_stage(
    drive: Drive, job: Any, pictures: Sequence[Floats], mime: str = "application/pdf"
) -> None:
    """Run one job of a file with these pages."""
    if job["stage"] == "detect":
        digest = uuid.UUID(job["version_id"]).hex * 2
        drive.work("finish_detect", job, digest, mime, mime.split("/")[1], None)
    elif job["stage"] == "extract":
        pages = [
            {"page": i + 1, "text": "", "source": "ocr", "layout": {}} for i in range(len(pictures))
        ]
        drive.work("finish_extract", job, None, True, pages)
    elif job["stage"] == "chunk":
        drive.work("finish_chunk", job, [])
    elif job["stage"] == "render":
        drive.work("finish_render", job)
    elif job["stage"] == "embed_pages":
        while missing := drive.work("job_page_pictures", job, 2)["pages"]:
            store(drive, job, {p["page"]: pictures[p["page"] - 1] for p in missing})
        drive.work("finish_embed_pages", job)
    else:
        raise AssertionError(job["stage"])


def paint(
    drive: Drive, user: uuid.UUID, name: str, *pictures: Floats, mime: str = "", **more: object
) -> Any:
    """Upload and ingest a file with these pages; return its ticket."""
    ticket = drive.upload(user, name, **more)
    ingest(drive, pictures, mime or "application/pdf")
    return ticket


def max_sim(question: Floats, picture: Floats) -> float:
    """Late interaction, written down a second time; half precision is what is stored."""
    half = picture.astype(np.float16).astype(np.float64)
    return float((question.astype(np.float16).astype(np.float64) @ half.T).max(axis=1).sum())


def look(drive: Drive, user: uuid.UUID | None, question: Floats, **more: Any) -> Any:
    """Search pages; return the answer."""
    for key in ("filters", "options"):
        if key in more:
            more[key] = Jsonb(more[key])
    return drive.rpc(user, "search_pages", vectors=Jsonb(question.tolist()), **more)


def see(drive: Drive, user: uuid.UUID | None, vector: Floats, **more: Any) -> Any:
    """Search images; return the answer."""
    for key in ("filters", "options"):
        if key in more:
            more[key] = Jsonb(more[key])
    return drive.rpc(user, "search_images", embedding=Jsonb(vector.tolist()), **more)
