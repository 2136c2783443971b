"""Every search once more, the plain way: all that is readable is compared with the question.

An answer is compared up to ties: a rank is right when some order of what is equally good has it.
Distances and weights are in single precision there and in double here, so equal means nearly equal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.db.pictures import max_sim
from tests.db.test_name_search import expected as score_names
from tests.db.test_search import bm25

Floats = NDArray[np.float64]
NEAR = 2e-4  # of vectors in half precision
RRF_K = 10
LEAST_NAME = 0.5  # of a name to count beside passages
WEIGHTS = {"rrf": {"keyword": 1.0, "vector": 1.0}, "convex": {"keyword": 0.2, "vector": 0.8}}
LEAST = {"keyword": 0.0, "vector": -1.0}  # that a score can be


@dataclass(frozen=True)
class Piece:
    """A passage of a file, on the page after as many as there are before it."""

    id: str
    text: str
    vector: tuple[float, ...]


@dataclass(frozen=True)
class Document:
    """A file: what of it is in service."""

    id: str
    name: str
    owner_id: str
    pieces: tuple[Piece, ...] = ()
    patches: tuple[tuple[float, ...], ...] = ()
    has_head: bool = True


@dataclass(frozen=True)
class Narrowing:
    """What filters leave: files (None: all), and pages."""

    files: frozenset[str] | None = None
    page_from: int = 1
    page_to: int = 10**9


EVERYTHING = Narrowing()


@dataclass
class Ranks:
    """Scores, and between which ranks each may stand."""

    scores: dict[str, float]
    tolerance: float
    _sorted: Floats = field(init=False)

    def __post_init__(self) -> None:
        self._sorted = np.sort(np.array(list(self.scores.values())))

    def of(self, key: str) -> tuple[int, int]:
        """Return the first and the last rank that something may have."""
        score, count = self.scores[key], len(self.scores)
        better = count - int(np.searchsorted(self._sorted, score + self.tolerance, "right"))
        worse = int(np.searchsorted(self._sorted, score - self.tolerance, "left"))
        return better + 1, count - worse

    def surely(self, most: int) -> set[str]:
        """Return what is among the first so many in any order of what is equal."""
        return {key for key in self.scores if self.of(key)[1] <= most}

    def recall(self, found: Collection[str], most: int) -> float:
        """Return how many of the best were found; of equal ones each is as good as the others."""
        wanted = min(most, len(self.scores))
        good = sum(key in self.scores and self.of(key)[0] <= most for key in found)
        return min(good, wanted) / wanted if wanted else 1.0

    def problem(self, key: str, place: int, score: float) -> str | None:
        """Tell what is wrong with a rank and a score; None when they are right."""
        if key not in self.scores:
            return "should not be found"
        if abs(score - self.scores[key]) > self.tolerance:
            return f"has score {score}, not {self.scores[key]}"
        first, last = self.of(key)
        return None if first <= place <= last else f"has rank {place}, not {first} to {last}"


def _places(hit: dict[str, Any]) -> list[float]:
    """Return what decides between equal scores: the places by meaning, then by words."""
    places = [hit["parts"][f"{leg}_rank"] for leg in ("vector", "keyword")]
    return [np.inf if place is None else place for place in places]


@dataclass(frozen=True)
class Span:
    """Between which scores a leg found passages; what it left out counts as `rest`."""

    least: float
    rest: float
    best: float | None

    def part(self, score: float | None) -> float:
        """Return how near a score is to the best one, from 0 to 1."""
        if self.best is None:
            return 0.0
        return ((self.rest if score is None else score) - self.least) / (self.best - self.least)


def _span(hits: list[Any], leg: str, candidates: int) -> Span:
    scores = [h["parts"][f"{leg}_score"] for h in hits if h["parts"][f"{leg}_rank"] is not None]
    # a leg by words that is not full has left out only what has none of them
    is_full = leg == "vector" or len(scores) >= candidates
    rest = min(scores) if scores and is_full else LEAST[leg]
    return Span(LEAST[leg], rest, max(scores, default=None))


def half_unit(vector: Any) -> Floats:
    """Return a vector as it is stored: of unit length, in half precision."""
    half = np.asarray(vector, np.float16).astype(np.float64)
    return (half / np.linalg.norm(half)).astype(np.float16).astype(np.float64)


class Brute:
    """What one caller can find among some documents."""

    def __init__(
        self, documents: list[Document], readable: Collection[str], owner_ids: Collection[str]
    ) -> None:
        self.readable = [d for d in documents if d.id in set(readable)]
        # the words of an owner's files count whether in the trash or not; of what is shared, only
        # what can be read
        self.counted: list[list[Document]] = [
            [d for d in documents if d.owner_id == owner] for owner in owner_ids
        ]
        self.counted.append([d for d in self.readable if d.owner_id not in owner_ids])
        self.names = {d.id: d.name for d in self.readable}
        self.file_of = {p.id: d.id for d in self.readable for p in d.pieces}

    def _files(self, narrowing: Narrowing) -> list[Document]:
        if narrowing.files is None:
            return self.readable
        return [d for d in self.readable if d.id in narrowing.files]

    def _pieces(self, narrowing: Narrowing) -> Iterator[Piece]:
        for document in self._files(narrowing):
            yield from document.pieces[narrowing.page_from - 1 : narrowing.page_to]

    def keyword(self, query: str, narrowing: Narrowing = EVERYTHING) -> Ranks:
        """BM25 of the passages that have a word of the query."""
        scores: dict[str, float] = {}
        for documents in self.counted:
            if documents:
                by_text = bm25(query, [p.text for d in documents for p in d.pieces] or ["-"])
                scores |= {p.id: by_text[p.text] for d in documents for p in d.pieces
                           if p.text in by_text}  # fmt: skip
        wanted = {piece.id for piece in self._pieces(narrowing)}
        found = {id_: score for id_, score in scores.items() if id_ in wanted}
        return Ranks(found, 1e-5 * max(found.values(), default=0))

    def dense(self, vector: Any, narrowing: Narrowing = EVERYTHING) -> Ranks:
        """Cosines of all passages."""
        query = half_unit(vector)
        pieces = list(self._pieces(narrowing))
        if not pieces:
            return Ranks({}, NEAR)
        cosines = np.array([half_unit(p.vector) for p in pieces]) @ query
        return Ranks({p.id: float(c) for p, c in zip(pieces, cosines, strict=True)}, NEAR)

    def called(self, query: str, narrowing: Narrowing = EVERYTHING) -> Ranks:
        """Files by the words of their names."""
        names = {d.id: d.name for d in self._files(narrowing)}
        return Ranks(score_names(query, names), 1e-5)

    def pages(self, vectors: Floats, narrowing: Narrowing = EVERYTHING) -> Ranks:
        """Late interaction with the picture of each file."""
        question = np.array([half_unit(v) for v in vectors])
        shown = [d for d in self._files(narrowing) if d.patches and narrowing.page_from <= 1]
        return Ranks(
            {d.id: max_sim(question, np.array([half_unit(p) for p in d.patches])) for d in shown},
            NEAR * len(vectors),
        )

    def images(self, vector: Any, narrowing: Narrowing = EVERYTHING) -> Ranks:
        """Cosines of the first patches."""
        query = half_unit(vector)
        shown = [d for d in self._files(narrowing) if d.patches and narrowing.page_from <= 1]
        return Ranks({d.id: float(half_unit(d.patches[0]) @ query) for d in shown}, NEAR)

    # Comparing answers ----------------------------------------------------------------------------

    def problems(
        self,
        hits: list[Any],
        query: str,
        vector: Any,
        fusion: str,
        weights: dict[str, float],
        candidates: int,
        narrowing: Narrowing = EVERYTHING,
    ) -> Iterator[str]:
        """Compare all hits of a hybrid search; there must be fewer than top_k."""
        weights = WEIGHTS[fusion] | weights
        weights = {"name": weights["keyword"]} | weights
        spans = {leg: _span(hits, leg, candidates) for leg in LEAST}
        legs = {
            "keyword": self.keyword(query, narrowing) if weights["keyword"] else Ranks({}, 0),
            "vector": Ranks({}, 0),
            "name": Ranks({}, 0),
        }
        if weights["vector"] and vector is not None:
            legs["vector"] = self.dense(vector, narrowing)
        if weights["name"]:
            named = self.called(query, narrowing).scores
            legs["name"] = Ranks({f: s for f, s in named.items() if s >= LEAST_NAME - 1e-6}, 1e-5)
        passages = {piece.id for piece in self._pieces(narrowing)}
        fused: dict[str, float] = {}
        plain: dict[str, float] = {}
        named_files: list[str] = []
        for hit in hits:
            chunk, parts = hit["chunk_id"], hit["parts"]
            if chunk not in passages or self.file_of[chunk] != hit["file_id"]:
                yield f"{hit['name']} {chunk} is not for this caller"
                continue
            if chunk in fused:
                yield f"{chunk} is there twice"
            if not hit["is_head"]:
                yield f"{chunk} is not of a head"
            total = 0.0
            for leg, ranks in legs.items():
                place, score = parts[f"{leg}_rank"], parts[f"{leg}_score"]
                key = hit["file_id"] if leg == "name" else chunk
                if place is not None:
                    if problem := ranks.problem(key, place, score):
                        yield f"{leg}: {chunk} {problem}"
                    if place > candidates:
                        yield f"{leg}: rank {place} is not among {candidates}"
                elif leg != "name" and key in ranks.surely(candidates):
                    yield f"{leg} misses {chunk}"
                if leg == "name":
                    if place is None:
                        continue
                    part = score / (RRF_K + place) if fusion == "rrf" else score
                    named_files.append(key)
                elif fusion == "convex":
                    part = spans[leg].part(score)
                else:
                    part = 0.0 if place is None else 1 / (RRF_K + place)
                if leg != "name":
                    plain[chunk] = plain.get(chunk, 0.0) + weights[leg] * part
                total += weights[leg] * part
            if abs(total - parts["fused"]) > 1e-6:
                yield f"{chunk} has {parts['fused']}, not {total}"
            fused[chunk] = hit["score"]
        order = [(-hit["score"], *_places(hit), hit["chunk_id"]) for hit in hits]
        if order != sorted(order):
            yield "the hits are not in order"
        for leg in ("keyword", "vector"):
            for chunk in legs[leg].surely(candidates) - fused.keys():
                yield f"{leg} should find {chunk}, but it is not there"
        with_passage = {self.file_of[chunk] for chunk in passages}
        if sorted(named_files) != sorted(set(named_files)):
            yield "a name counts twice"
        sure = {f for f in legs["name"].surely(candidates) if legs["name"].scores[f] > LEAST_NAME}
        for file in (sure & with_passage) - set(named_files):
            yield f"the name {self.names[file]} should count, but does not"
        for hit in hits:  # it counts for the best passage of its file
            if hit["parts"]["name_rank"] is not None and any(
                plain.get(other, 0.0) > plain.get(hit["chunk_id"], 0.0) + 1e-9
                for other in fused
                if self.file_of.get(other) == hit["file_id"]
            ):
                yield f"the name of {hit['name']} counts for another passage than the best"

    def listing_problems(
        self, what: str, ranks: Ranks, found: dict[str, float], most: int
    ) -> Iterator[str]:
        """Compare a list by score with what it must be."""
        for place, (key, score) in enumerate(found.items(), 1):
            if problem := ranks.problem(key, place, score):
                yield f"{what}: {self.names.get(key, key)} {problem}"
        for key in ranks.surely(most) - found.keys():
            yield f"{what} should find {self.names.get(key, key)}, but does not"

    def related_problems(self, file_id: str, items: list[Any], words: int = 40) -> Iterator[str]:
        """Compare what is related to a file of at most so many words; all of it must be there."""
        (file,) = (d for d in self.readable if d.id == file_id)
        others = Narrowing(frozenset(d.id for d in self.readable if d.id != file_id))
        terms = dict.fromkeys(word for piece in file.pieces for word in piece.text.split())
        assert len(terms) <= words
        middle = np.mean([half_unit(p.vector) for p in file.pieces], axis=0)
        legs = {"keyword": self._by_file(self.keyword(" ".join(terms), others))}
        legs["vector"] = self._by_file(self.dense(middle, others))
        found = [item["file_id"] for item in items]
        if len(found) != len(set(found)):
            yield "a file is related twice"
        for item in items:
            total = 0.0
            for leg, ranks in legs.items():
                place, score = item["parts"][f"{leg}_rank"], item["parts"][f"{leg}_score"]
                if place is None:
                    if item["file_id"] in ranks.scores:
                        yield f"related by {leg}: {item['name']} is missed"
                    continue
                if problem := ranks.problem(item["file_id"], place, score):
                    yield f"related by {leg}: {item['name']} {problem}"
                total += 1 / (RRF_K + place)
            if abs(total - item["score"]) > 1e-6:
                yield f"related: {item['name']} has {item['score']}, not {total}"
        wanted = legs["keyword"].scores.keys() | legs["vector"].scores.keys()
        for missed in wanted - set(found):
            yield f"{self.names[missed]} is related, but not there"
        scores = [(-round(item["score"], 12), item["file_id"]) for item in items]
        if scores != sorted(scores):
            yield "what is related is not in order"

    def _by_file(self, ranks: Ranks) -> Ranks:
        best: dict[str, float] = {}
        for piece, score in ranks.scores.items():
            file = self.file_of[piece]
            best[file] = max(best.get(file, -np.inf), score)
        return Ranks(best, ranks.tolerance)
