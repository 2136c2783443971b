"""How much of real documents can be found: phrases in the stored chunks, questions in `ai/search`.

Takes a folder with a manifest.jsonl, one file a line: path (relative to the folder or its parent),
tags, phrases [{text, page?}], questions [{qid, question, page?}]. Starts a stack of its own,
uploads every file with the official client, waits until it is ingested, and prints a table per
format.

Example: scripts/eval/run documents path/to/documents --json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supabase import Client

from narwhal.evaluation.manifest import fold, format_of, is_read, is_wordless, manifest
from scripts.eval.stack import running, sign_up, upload, wait

TOP = 5


@dataclass
class Tally:
    """Figures of one format."""

    files: int = 0
    phrases: int = 0
    found: int = 0
    on_page: int = 0
    questions: int = 0
    answered: int = 0
    misses: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", default="hybrid", choices=["hybrid", "keyword", "semantic"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit-s", type=int, default=1200, help="longest wait for ingestion")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    entries = [e for e in manifest(options.folder) if is_read(e) or is_wordless(e)]
    with running(options.workers) as home:
        client = sign_up(home)
        started = time.monotonic()
        files = {entry["path"]: upload(client, options.folder, entry) for entry in entries}
        nodes = wait(client, options.limit_s)
        seconds = time.monotonic() - started
        tallies = _judge(client, entries, files, nodes, options.mode)
    _report(tallies, seconds, as_json=options.json)


def _judge(
    client: Client,
    entries: list[dict[str, Any]],
    files: dict[str, str],
    nodes: dict[str, dict[str, Any]],
    mode: str,
) -> dict[str, Tally]:
    tallies: dict[str, Tally] = defaultdict(Tally)
    for entry in entries:
        tally, file_id = tallies[format_of(entry)], files[entry["path"]]
        tally.files += 1
        chunks = _chunks(client, file_id)
        if is_wordless(entry) and chunks:
            tally.misses.append(f"{entry['path']}: text where there is none: {chunks[0][1][:60]!r}")
        for phrase in entry["phrases"]:
            pages = {page for page, text in chunks if fold(phrase["text"]) in text}
            tally.phrases += 1
            tally.found += bool(pages)
            is_right = bool(pages) and (phrase.get("page") is None or phrase["page"] in pages)
            tally.on_page += is_right
            if not is_right:
                tally.misses.append(
                    f"{entry['path']} ({nodes[file_id]['status']}): {phrase['text']!r}"
                    f" on {phrase.get('page')}, found on {sorted(pages, key=str)}"
                )
        for question in entry["questions"]:
            hits = _search(client, question["question"], mode)
            tally.questions += 1
            tally.answered += file_id in hits
            if file_id not in hits:
                tally.misses.append(f"{entry['path']}: {question['question']}")
    return tallies


def _chunks(client: Client, file_id: str) -> list[tuple[int | None, str]]:
    chunks: list[tuple[int | None, str]] = []
    while True:
        rows: Any = (
            client.table("chunks")
            .select("page,content")
            .eq("file_id", file_id)
            .order("idx")
            .range(len(chunks), len(chunks) + 999)
            .execute()
            .data
        )
        chunks += [(row["page"], fold(row["content"])) for row in rows]
        if len(rows) < 1000:
            return chunks


def _search(client: Client, question: str, mode: str) -> list[str]:
    answer: Any = client.functions.invoke(
        "ai/search",
        {"body": {"query": question, "mode": mode, "top_k": TOP}, "responseType": "json"},
    )
    if isinstance(answer, bytes):
        answer = json.loads(answer)
    return [hit["file_id"] for hit in answer["hits"]]


def _report(tallies: dict[str, Tally], seconds: float, *, as_json: bool) -> None:
    total = Tally()
    for tally in tallies.values():
        for name in ("files", "phrases", "found", "on_page", "questions", "answered"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    if as_json:
        rows = {name: vars(tally) for name, tally in [*tallies.items(), ("all", total)]}
        print(json.dumps({"seconds": round(seconds, 1), "formats": rows}, indent=2))
        return
    print(
        f"{'format':8}{'files':>6}{'phrases':>9}{'found':>7}{'on page':>9}"
        f"{'questions':>11}{'top 5':>7}"
    )
    for name, tally in [*sorted(tallies.items()), ("all", total)]:
        print(
            f"{name:8}{tally.files:6}{tally.phrases:9}{tally.found:7}{tally.on_page:9}"
            f"{tally.questions:11}{tally.answered:7}"
        )
    for tally in tallies.values():
        for miss in tally.misses:
            print("missed:", miss)
    print(f"ingested in {seconds:.0f} s")


if __name__ == "__main__":
    main()
