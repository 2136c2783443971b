"""Real files with questions about them, as a collection: a question's answer is its file."""

from __future__ import annotations

from pathlib import Path

from narwhal.evaluation.collection import Collection, File, Query, fingerprint, shortened
from narwhal.evaluation.manifest import has_text, manifest, path_of
from narwhal.ingest.document import Document, ReadError
from narwhal.ingest.limits import Limits, read_in_sandbox


def load_documents(folder: Path) -> Collection:
    """Read the files of a manifest.jsonl that have text, in the sandbox of ingestion.

    A file that cannot be read stays, empty: its questions are then not answered.
    """
    files: list[File] = []
    queries: list[Query] = []
    judgments: dict[str, dict[str, int]] = {}
    names: set[str] = set()
    for entry in manifest(folder):
        if not has_text(entry):
            continue
        path = path_of(folder, entry)
        name, number = path.name, 1
        while name.casefold() in names:  # siblings in the drive have different names
            number += 1
            name = f"{path.stem} ({number}){path.suffix}"
        names.add(name.casefold())
        files.append(File(str(entry["path"]), name, _read(path, entry.get("mime"))))
        for question in entry["questions"]:
            queries.append(
                Query(question["qid"], shortened(question["question"]), entry.get("lang"))
            )
            judgments[question["qid"]] = {str(entry["path"]): 1}
    return Collection(
        folder.resolve().name,
        fingerprint(tuple(files), tuple(queries), judgments),
        tuple(files),
        tuple(queries),
        judgments,
    )


def _read(path: Path, mime: str | None) -> Document:
    try:
        return read_in_sandbox(path, path.name, mime, Limits())
    except ReadError:
        return Document(pages=(), paged=False)
