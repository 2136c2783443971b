"""One evaluation: every question asked by keyword, by meaning and both, by each reader."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from narwhal.evaluation.asking import Asker, asking
from narwhal.evaluation.collection import Collection, Query
from narwhal.evaluation.database import Database
from narwhal.evaluation.embeddings import EmbeddingCache
from narwhal.evaluation.library import Library, Report, find_space, loaded
from narwhal.evaluation.metrics import Quality, judge, mean, percentile
from narwhal.ingest.pipeline import space_encoder
from narwhal.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALL = "100 %"
MODES: dict[str, dict[str, Any]] = {
    "keyword": {"weights": {"vector": 0, "name": 0}},
    "dense": {"weights": {"keyword": 0, "name": 0}},
    "hybrid": {},
}
# judgments are of files, so are the places; a kept answer would tell nothing of the search
ASKED_FOR = {"group_by": "file", "per_file": 1, "cache": False}
DEPTH = 100  # files that recall looks at
CANDIDATES = 100
EXACT_DEPTH = 10
HALF_PRECISION = 1e-3  # cosines nearer than this may change places in half precision


@dataclass
class Tally:
    """What one mode found for one reader, by question."""

    qualities: dict[str, Quality] = field(default_factory=dict)
    rankings: dict[str, list[str]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    exact: list[float] = field(default_factory=list)


@dataclass
class Evaluation:
    """The figures of one run, and the rankings they come from."""

    figures: dict[str, Any]
    tallies: dict[str, dict[str, Tally]]


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


def evaluate(
    collection: Collection,
    *,
    database_url: str,
    settings: Settings | None,
    cache: Path,
    space: str = "active",
    shares: bool = True,
    clean_up: bool = True,
    report: Report = silent,
) -> Evaluation:
    """Load a collection, ask its questions as its owner and as readers of a part, and measure.

    `settings` name the project whose PostgREST is asked; None asks the database directly. What was
    loaded is removed, unless `clean_up` is false: then the database goes as a whole.
    """
    database = Database(database_url)
    try:
        row = find_space(database, space)
        embeddings = EmbeddingCache(space_encoder(row), cache)
        try:
            with loaded(
                database, settings, collection, row, embeddings, report, clean_up=clean_up
            ) as library:
                database.connection.execute("analyze")
                vectors = embeddings.encode([query.text for query in collection.queries])
                return _measure(
                    collection, library, vectors, row, database_url, settings, shares, report
                )
        finally:
            embeddings.close()
    finally:
        database.close()


def _measure(
    collection: Collection,
    library: Library,
    vectors: NDArray[np.float32],
    space: dict[str, Any],
    database_url: str,
    settings: Settings | None,
    shares: bool,
    report: Report,
) -> Evaluation:
    everything = frozenset(library.file_ids)
    readers = {ALL: (library.owner, everything)}
    if shares:
        for name, reader in library.readers.items():
            readers[name] = (reader, library.readable[name])
    tallies: dict[str, dict[str, Tally]] = {}
    for name, (user, readable) in readers.items():
        judgments = {
            query.id: {
                file: gain
                for file, gain in collection.judgments[query.id].items()
                if file in readable
            }
            for query in collection.queries
        }
        asked = [
            (query, vector)
            for query, vector in zip(collection.queries, vectors, strict=True)
            if any(gain > 0 for gain in judgments[query.id].values())
        ]
        if not asked:
            continue  # a small collection: nothing to find in this share
        with asking(database_url, settings, user) as asker:
            tallies[name] = _ask_all(
                asker,
                asked,
                judgments,
                library,
                readable,
                space["name"],
                partial(report, f"questions, {name}"),
            )
    return Evaluation(_figures(collection, library, space, tallies, readers), tallies)


def _ask_all(
    asker: Asker,
    asked: list[tuple[Query, NDArray[np.float32]]],
    judgments: dict[str, dict[str, int]],
    library: Library,
    readable: frozenset[str],
    space: str,
    report: Callable[[int, int], None],
) -> dict[str, Tally]:
    names = {str(file_id): name for name, file_id in library.file_ids.items()}
    brute = BruteForce(library, readable)
    tallies = {mode: Tally() for mode in MODES}
    for done, (query, vector) in enumerate(asked, 1):
        for mode, options in MODES.items():
            arguments = {
                "query": query.text,
                "embedding": None if mode == "keyword" else [round(float(x), 6) for x in vector],
                "space": space,
                "top_k": DEPTH,
                "candidates": CANDIDATES,
                "options": options | ASKED_FOR,
            }
            answer, seconds = asker.ask(arguments)
            ranking = list(dict.fromkeys(names[hit["file_id"]] for hit in answer["hits"]))
            tally = tallies[mode]
            tally.seconds.append(seconds)
            tally.rankings[query.id] = ranking
            quality = judge(ranking, judgments[query.id])
            assert quality is not None  # only questions with something to find are asked
            tally.qualities[query.id] = quality
            if mode == "dense":
                tally.exact.append(brute.recall(vector, ranking[:EXACT_DEPTH]))
        report(done, len(asked))
    return tallies


class BruteForce:
    """Cosine with every chunk that a reader may read: what an exact search must find."""

    def __init__(self, library: Library, readable: frozenset[str]) -> None:
        import numpy as np

        assert library.vectors is not None
        chosen = [i for i, name in enumerate(library.chunk_files) if name in readable]
        self.vectors = library.vectors[chosen].astype(np.float16).astype(np.float32)
        self.files = [library.chunk_files[i] for i in chosen]

    def recall(self, vector: NDArray[np.float32], ranking: list[str]) -> float:
        """How much of the nearest files a ranking holds; equal distances count as equal."""
        best: dict[str, float] = {}
        for name, score in zip(self.files, self.vectors @ vector, strict=True):
            best[name] = max(best.get(name, -1.0), float(score))
        nearest = sorted(best.values(), reverse=True)[:EXACT_DEPTH]
        if not nearest:
            return 1.0
        right = sum(best.get(name, -1.0) >= nearest[-1] - HALF_PRECISION for name in ranking)
        return min(1.0, right / len(nearest))


def _figures(
    collection: Collection,
    library: Library,
    space: dict[str, Any],
    tallies: dict[str, dict[str, Tally]],
    readers: dict[str, Any],
) -> dict[str, Any]:
    languages = {query.id: query.language or library.language for query in collection.queries}
    return {
        "collection": collection.name,
        "fingerprint": collection.fingerprint,
        "space": space["name"],
        "revision": space["revision"],
        "files": len(collection.files),
        "chunks": len(library.chunk_files),
        "shares": {
            share: {
                "files": len(readers[share][1]),
                "questions": len(modes["hybrid"].qualities),
                "modes": {mode: _mode_figures(tally) for mode, tally in modes.items()},
                "languages": _by_language(modes, languages),
            }
            for share, modes in tallies.items()
        },
    }


def _mode_figures(tally: Tally) -> dict[str, Any]:
    figures: dict[str, Any] = _rounded(mean(list(tally.qualities.values())))
    if tally.exact:
        figures["recall_of_brute_force"] = round(sum(tally.exact) / len(tally.exact), 4)
    milliseconds = [1000 * seconds for seconds in tally.seconds]
    figures["p50_ms"] = round(percentile(milliseconds, 0.5), 1)
    figures["p95_ms"] = round(percentile(milliseconds, 0.95), 1)
    return figures


def _by_language(modes: dict[str, Tally], languages: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mode, tally in modes.items():
        groups: dict[str, list[Quality]] = defaultdict(list)
        for query_id, quality in tally.qualities.items():
            groups[languages[query_id]].append(quality)
        for language, qualities in sorted(groups.items()):
            entry = found.setdefault(language, {"questions": len(qualities), "modes": {}})
            entry["modes"][mode] = _rounded(mean(qualities))
    return found


def _rounded(quality: Quality) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(quality).items()}
