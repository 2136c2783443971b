"""Labelled collections: BEIR folders, and folders of files with questions about them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from narwhal.errors import NarwhalError
from narwhal.ingest.document import Document, Page

LONGEST_QUERY = 1000  # characters; hybrid_search refuses more


@dataclass(frozen=True)
class Query:
    """A question; `language` as the collection says, None where it does not."""

    id: str
    text: str
    language: str | None = None


@dataclass(frozen=True)
class File:
    """What becomes one file of the drive."""

    id: str
    name: str
    document: Document


@dataclass(frozen=True)
class Collection:
    """Files, the questions that have judgments, and the gain of each judged file by question."""

    name: str
    fingerprint: str
    files: tuple[File, ...]
    queries: tuple[Query, ...]
    judgments: dict[str, dict[str, int]]

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that the questions are said to be in."""
        return tuple(sorted({query.language for query in self.queries if query.language}))

    def sampled(self, most: int) -> Collection:
        """The same files with at most so many questions of each language, the same ones always."""
        by_language: dict[str | None, list[Query]] = defaultdict(list)
        for query in sorted(
            self.queries, key=lambda query: hashlib.sha256(query.id.encode()).digest()
        ):
            by_language[query.language].append(query)
        if all(len(queries) <= most for queries in by_language.values()):
            return self
        chosen = {query.id for queries in by_language.values() for query in queries[:most]}
        queries = tuple(query for query in self.queries if query.id in chosen)
        judgments = {name: found for name, found in self.judgments.items() if name in chosen}
        return Collection(
            f"{self.name}-{most}",
            fingerprint(self.files, queries, judgments),
            self.files,
            queries,
            judgments,
        )


def load_collection(folder: Path) -> Collection:
    """Read a folder: a BEIR layout, or files under a manifest.jsonl.

    Raises NarwhalError INVALID_ARGUMENT when it is neither.
    """
    if (folder / "manifest.jsonl").is_file():
        from narwhal.evaluation.documents import load_documents

        return load_documents(folder)
    try:
        return _load_beir(folder)
    except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise NarwhalError(
            f"{folder} is no collection: {error}.",
            "Give a folder with corpus.jsonl, queries.jsonl (or .jsonl.gz) and qrels/test.tsv, "
            "or one with a manifest.jsonl.",
            error="INVALID_ARGUMENT",
            status=422,
            details={"field": "folder"},
        ) from error


def _load_beir(folder: Path) -> Collection:
    judgments: dict[str, dict[str, int]] = defaultdict(dict)
    qrels = folder / "qrels" / "test.tsv"
    with qrels.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            judgments[row["query-id"]][row["corpus-id"]] = int(row["score"])
    queries = tuple(
        Query(row["_id"], shortened(row["text"]), (row.get("metadata") or {}).get("lang"))
        for row in _rows(folder / "queries.jsonl")
        if row["_id"] in judgments
    )
    files = tuple(
        File(row["_id"], f"{row['_id']}.txt", plain_document(row.get("title") or "", row["text"]))
        for row in _rows(folder / "corpus.jsonl")
    )
    repeated = [name for name, count in Counter(file.id for file in files).items() if count > 1]
    if repeated:
        raise ValueError(f"the document {repeated[0]} comes twice")
    return Collection(
        folder.resolve().name,
        fingerprint(files, queries, judgments),
        files,
        queries,
        dict(judgments),
    )


def fingerprint(
    files: tuple[File, ...], queries: tuple[Query, ...], judgments: dict[str, dict[str, int]]
) -> str:
    """Name the data by what it is, so that figures of different data are never compared."""
    digest = hashlib.sha256()
    for file in files:
        for page in file.document.pages:
            digest.update(json.dumps([file.id, page.number, page.text]).encode())
    for query in queries:
        digest.update(json.dumps([query.id, query.text, query.language]).encode())
    digest.update(json.dumps(judgments, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def plain_document(title: str, text: str) -> Document:
    """A text file as its reader gives it: the title is its first paragraph."""
    whole = "\n\n".join(part for part in (title.strip(), text.strip()) if part)
    return Document(pages=(Page(number=1, text=whole),) if whole else (), paged=False)


def shortened(text: str) -> str:
    """Cut a question to what search takes, after a whole word."""
    text = " ".join(text.split())
    if len(text) <= LONGEST_QUERY:
        return text
    return text[: LONGEST_QUERY + 1].rsplit(" ", 1)[0][:LONGEST_QUERY]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a .jsonl, or of the .jsonl.gz beside it."""
    packed = path.with_name(path.name + ".gz")
    with path.open("rb") if path.is_file() else gzip.open(packed) as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)
