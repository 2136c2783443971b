"""Codebooks of page spaces: centroids that choose which pages are compared in full.

`train` learns them from a sample of the stored vectors (spherical k-means), signs every picture
and puts the codebook in use. It can be interrupted: signatures are stored as they are made, and
the next run goes on with the codebook that was being built.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray

from narwhal.errors import NarwhalError

Floats = NDArray[np.float32]

ITERATIONS = 8
VECTORS_A_CENTROID = 48  # of the sample: more change the centroids little
MAX_CENTROIDS = 4096
MAX_SIGNATURE = 250  # as private.sign_picture: what an index tuple holds
ARRAY_HEADER = 20  # of one dimension, in PostgreSQL's binary format
BATCH = 200


@dataclass(frozen=True)
class Codebook:
    """What a training has made."""

    id: int
    space: str
    centroids: int
    pictures: int


def train(
    connection: psycopg.Connection[Any],
    space: str,
    *,
    centroids: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Codebook:
    """Train the codebook of a page space and put it in use.

    `centroids` follows the number of stored vectors unless given. Raises NarwhalError NOT_FOUND
    for a space that is not of kind page, CONFLICT_STATE for one without any vectors.
    """
    row = _one(connection, "select * from private.codebook_work(%s)", space)
    if row is None:
        raise NarwhalError(
            f'There is no page space "{space}".', "See: narwhal spaces list", error="NOT_FOUND"
        )
    space_id, building, pictures = row
    if building is None:
        sample, count = _sample(connection, space_id, pictures, centroids)
        if count < 1:
            raise NarwhalError(
                f'The space "{space}" has no pictures to learn from.',
                "Upload something that has pages, and let a worker embed it.",
                error="CONFLICT_STATE",
            )
        means = k_means(sample, count, np.random.default_rng(space_id))
        texts = [str([float(f"{x:.4g}") for x in mean]) for mean in means]
        (building,) = _one(
            connection,
            "select private.begin_codebook(%s::smallint, %s::extensions.halfvec[])",
            space_id,
            texts,
        ) or (0,)
    means = _centroids(connection, building)
    done = 0
    for batch in _unsigned(connection, building):
        signatures = [sign(vectors, means) for _, vectors in batch]
        connection.execute(
            "select private.store_signatures(%s, %s::bigint[], %s::extensions.sparsevec[])",
            (building, [number for number, _ in batch], signatures),
        )
        done += len(batch)
        if progress:
            progress(done, pictures)
    connection.execute("select private.activate_codebook(%s)", (building,))
    return Codebook(building, space, len(means), pictures)


def k_means(vectors: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return `count` centroids of unit length; vectors have unit length, too."""
    means = vectors[rng.choice(len(vectors), count, replace=False)]
    for _ in range(ITERATIONS):
        labels = nearest(vectors, means)
        order = np.argsort(labels, kind="stable")
        used, starts = np.unique(labels[order], return_index=True)
        # a centroid that nothing is near starts again somewhere
        means = vectors[rng.choice(len(vectors), count, replace=False)]
        means[used] = np.add.reduceat(vectors[order], starts, axis=0)
        norms = np.linalg.norm(means, axis=1, keepdims=True)
        means = (means / np.where(norms > 0, norms, 1)).astype(np.float32)
    return means


def nearest(vectors: Floats, means: Floats) -> NDArray[np.intp]:
    """Return which centroid is nearest to each vector."""
    found = np.empty(len(vectors), dtype=np.intp)
    for start in range(0, len(vectors), 4096):
        part = slice(start, start + 4096)
        found[part] = (vectors[part] @ means.T).argmax(axis=1)
    return found


def sign(vectors: Floats, means: Floats) -> str:
    """Return the signature of a picture, as private.sign_picture does."""
    numbers, counts = np.unique(nearest(vectors, means), return_counts=True)
    kept = np.sort(numbers[np.argsort(-counts, kind="stable")[:MAX_SIGNATURE]])
    return "{" + ",".join(f"{number + 1}:1" for number in kept) + f"}}/{len(means)}"


def read_vectors(array: bytes) -> Floats:
    """Read a halfvec[] in PostgreSQL's binary format."""
    if len(array) < ARRAY_HEADER:
        return np.empty((0, 0), dtype=np.float32)
    count = int.from_bytes(array[12:16], "big")
    size = int.from_bytes(array[ARRAY_HEADER : ARRAY_HEADER + 4], "big")
    rows = np.frombuffer(array, dtype=np.uint8, offset=ARRAY_HEADER).reshape(count, 4 + size)
    # each has its length in bytes, its dimension and two bytes that are not used, then its numbers
    return np.ascontiguousarray(rows[:, 8:]).view(">f2").astype(np.float32)


def _one(connection: psycopg.Connection[Any], query: Any, *arguments: object) -> Any:
    return connection.execute(query, arguments).fetchone()


def _count(patches: float) -> int:
    # 16 * sqrt(n), as PLAID; a power of two
    return min(MAX_CENTROIDS, int(2 ** round(math.log2(16 * math.sqrt(max(patches, 1))))))


def _sample(
    connection: psycopg.Connection[Any], space_id: int, pictures: int, centroids: int | None
) -> tuple[Floats, int]:
    """Vectors to learn from, and how many centroids."""
    sample: list[Floats] = []
    taken, wanted = 0, VECTORS_A_CENTROID * (centroids or MAX_CENTROIDS)
    cursor = connection.cursor(binary=True)
    # a picture has a hundred vectors and more, as a rule
    cursor.execute(
        "select s.vectors from private.sample_pictures(%s::smallint, %s) as s",
        (space_id, wanted // 100 + 100),
    )
    for (array,) in cursor:
        sample.append(read_vectors(array))
        taken += len(sample[-1])
        if taken >= wanted:
            break
    if not taken:
        return np.empty((0, 0), dtype=np.float32), 0
    count = centroids or _count(taken / len(sample) * pictures)
    return np.concatenate([vectors for vectors in sample if len(vectors)]), min(count, taken)


def _centroids(connection: psycopg.Connection[Any], codebook_id: int) -> Floats:
    rows = connection.cursor(binary=True).execute(
        "select private.codebook_centroids(%s)", (codebook_id,)
    )
    return read_vectors(rows.fetchone()[0])  # type: ignore[index]


def _unsigned(
    connection: psycopg.Connection[Any], codebook_id: int
) -> Iterator[list[tuple[int, Floats]]]:
    while True:
        rows = (
            connection.cursor(binary=True)
            .execute(
                "select id, vectors from private.unsigned_pictures(%s, %s)", (codebook_id, BATCH)
            )
            .fetchall()
        )
        if not rows:
            return
        yield [(number, read_vectors(array)) for number, array in rows]
