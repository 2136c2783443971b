"""Codebooks of page spaces: centroids that choose which pages are compared in full.

`train` learns them from a sample of the stored vectors (spherical k-means in two levels: regions,
and the centroids of each), signs every picture and puts the codebook in use. It can be interrupted:
signatures are stored as they are made, and the next run goes on with the codebook that was being
built. `train_due` does so for the spaces that have outgrown theirs, as Postgres says; workers call
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from narwhal.errors import NarwhalError

Floats = NDArray[np.float32]

ITERATIONS = 8
VECTORS_A_CENTROID = 48  # of the sample: more change the centroids little
MAX_CENTROIDS = 4096
MAX_SIGNATURE = 250  # as private.sign_picture
REGIONS_LOOKED_AT = 2  # as private.sign_picture
ARRAY_HEADER = 20  # of one dimension, in PostgreSQL's binary format
BATCH = 200


@dataclass(frozen=True)
class Codebook:
    """What a training has made."""

    id: int
    space: str
    centroids: int
    pictures: int


@dataclass(frozen=True)
class Centroids:
    """Vectors of unit length: regions, and centroids in the order of their regions."""

    centers: Floats
    centroids: Floats
    regions: NDArray[np.intp]

    def bounds(self) -> NDArray[np.intp]:
        """Return where the centroids of each region begin, and the last ones end."""
        return np.searchsorted(self.regions, np.arange(len(self.centers) + 1))


def train_due(
    connection: psycopg.Connection[Any], progress: Callable[[int, int], None] | None = None
) -> list[Codebook]:
    """Train what Postgres says is due; what somebody else is training is left to them."""
    made = []
    for (space,) in connection.execute("select d.space from private.due_codebooks() as d"):
        try:
            made.append(train(connection, space, progress=progress))
        except NarwhalError as error:
            if error.error not in ("LOCKED", "CONFLICT_STATE"):
                raise
    return made


def train(
    connection: psycopg.Connection[Any],
    space: str,
    *,
    centroids: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Codebook:
    """Train the codebook of a page space and put it in use.

    `centroids` follows the number of stored vectors unless given. Raises NarwhalError NOT_FOUND
    for a space that is not of kind page, CONFLICT_STATE for one without any vectors, LOCKED while
    somebody else is training it.
    """
    row = _one(connection, "select * from private.codebook_work(%s)", space)
    if row is None:
        raise NarwhalError(
            f'There is no page space "{space}".', "See: narwhal spaces list", error="NOT_FOUND"
        )
    space_id = row[0]
    if _one(connection, "select private.lock_codebook(%s::smallint)", space_id) != (True,):
        raise NarwhalError(
            f'The codebook of "{space}" is being trained.',
            "Wait until it has ended.",
            error="LOCKED",
            status=423,
        )
    try:
        return _train(connection, space, centroids, progress)
    finally:
        # in a failed transaction nothing can be said; the lock then ends with the session
        failed = connection.info.transaction_status == TransactionStatus.INERROR
        if not connection.broken and not failed:
            _one(connection, "select private.unlock_codebook(%s::smallint)", space_id)


def _train(
    connection: psycopg.Connection[Any],
    space: str,
    centroids: int | None,
    progress: Callable[[int, int], None] | None,
) -> Codebook:
    # read under the lock: somebody may have just ended
    space_id, building, pictures = _one(
        connection, "select * from private.codebook_work(%s)", space
    )
    if building is None:
        sample, count = _sample(connection, space_id, pictures, centroids)
        if count < 1:
            raise NarwhalError(
                f'The space "{space}" has no pictures to learn from.',
                "Upload something that has pages, and let a worker embed it.",
                error="CONFLICT_STATE",
            )
        learnt = learn(sample, count, np.random.default_rng(space_id))
        (building,) = _one(
            connection,
            "select private.begin_codebook(%s::smallint, %s::text[], %s::text[], %s::smallint[])",
            space_id,
            _texts(learnt.centers),
            _texts(learnt.centroids),
            [int(region) + 1 for region in learnt.regions],
        )
    book = _centroids(connection, building)
    done = 0
    for batch in _unsigned(connection, building):
        signatures = []
        for number, vectors in batch:
            numbers, counts = sign(vectors, book)
            signatures.append({"id": number, "centroids": numbers, "counts": counts})
        connection.execute("select private.store_signatures(%s, %s)", (building, Jsonb(signatures)))
        done += len(batch)
        if progress:
            progress(done, pictures)
    connection.execute("select private.activate_codebook(%s)", (building,))
    return Codebook(building, space, len(book.centroids), pictures)


def learn(vectors: Floats, count: int, rng: np.random.Generator) -> Centroids:
    """Learn `count` centroids, in about as many regions as each region has centroids."""
    centers = k_means(vectors, 2 ** round(math.log2(count) / 2), rng)
    labels = nearest(vectors, centers)
    used, sizes = np.unique(labels, return_counts=True)
    parts = []
    for region, share in zip(used, _shares(sizes, count), strict=True):
        parts.append(k_means(vectors[labels == region], share, rng))
    return Centroids(
        centers[used],
        np.concatenate(parts),
        np.repeat(np.arange(len(used)), [len(part) for part in parts]),
    )


def _shares(sizes: NDArray[np.intp], count: int) -> list[int]:
    """Divide `count`, by size: at least one each, and none more than its size."""
    shares = np.clip((sizes * count / sizes.sum()).astype(int), 1, sizes)
    while (left := count - shares.sum()) > 0:
        free = np.flatnonzero(shares < sizes)
        shares[free[np.argsort(-(sizes / shares)[free], kind="stable")[:left]]] += 1
    while shares.sum() > max(count, len(sizes)):
        shares[np.argmax(shares)] -= 1
    return [int(share) for share in shares]


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
    """Return which of `means` is nearest to each vector."""
    found = np.empty(len(vectors), dtype=np.intp)
    for start in range(0, len(vectors), 4096):
        part = slice(start, start + 4096)
        found[part] = (vectors[part] @ means.T).argmax(axis=1)
    return found


def nearest_centroids(vectors: Floats, book: Centroids) -> NDArray[np.intp]:
    """Return which centroid of the regions next to each vector is nearest to it."""
    regions = min(REGIONS_LOOKED_AT, len(book.centers))
    near = np.argsort(-(vectors @ book.centers.T), axis=1, kind="stable")[:, :regions]
    found = np.full(len(vectors), len(book.centroids), dtype=np.intp)
    closest = np.full(len(vectors), -np.inf, dtype=np.float32)
    bounds = book.bounds()
    for region in np.unique(near):
        rows = np.flatnonzero((near == region).any(axis=1))
        products = vectors[rows] @ book.centroids[bounds[region] : bounds[region + 1]].T
        best = products.argmax(axis=1)
        product = products[np.arange(len(rows)), best]
        # regions come in order, and so do centroids: of equal ones the first stays
        better = product > closest[rows]
        found[rows[better]] = best[better] + bounds[region]
        closest[rows[better]] = product[better]
    return found


def sign(vectors: Floats, book: Centroids) -> tuple[list[int], list[int]]:
    """Return the signature of a picture, as private.sign_picture does: centroids and counts."""
    if not len(vectors):
        return [], []
    numbers, counts = np.unique(nearest_centroids(vectors, book), return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_SIGNATURE])
    return (numbers[kept] + 1).tolist(), counts[kept].tolist()


def read_vectors(array: bytes) -> Floats:
    """Read a halfvec[] in PostgreSQL's binary format."""
    if len(array) < ARRAY_HEADER:
        return np.empty((0, 0), dtype=np.float32)
    count = int.from_bytes(array[12:16], "big")
    size = int.from_bytes(array[ARRAY_HEADER : ARRAY_HEADER + 4], "big")
    rows = np.frombuffer(array, dtype=np.uint8, offset=ARRAY_HEADER).reshape(count, 4 + size)
    # each has its length in bytes, its dimension and two bytes that are not used, then its numbers
    return np.ascontiguousarray(rows[:, 8:]).view(">f2").astype(np.float32)


def _texts(vectors: Floats) -> list[str]:
    return [str([float(f"{x:.4g}") for x in vector]) for vector in vectors]


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


def _centroids(connection: psycopg.Connection[Any], codebook_id: int) -> Centroids:
    rows = connection.cursor(binary=True).execute(
        "select * from private.codebook_centroids(%s)", (codebook_id,)
    )
    centers, centroids, regions = rows.fetchone()  # type: ignore[misc]
    return Centroids(read_vectors(centers), read_vectors(centroids), np.array(regions) - 1)


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
