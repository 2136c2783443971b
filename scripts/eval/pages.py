"""Whether questions find the page that answers them, by text search over all files together.

Takes a folder with pages.jsonl (_id, path, page, has_text_layer), queries.jsonl (_id, text) and
qrels/test.tsv. Starts a stack of its own, uploads every file with the official client, waits until
it is ingested, and asks `ai/search`; pages count in the order of their best chunks.

Example: scripts/eval/run pages path/to/page_retrieval --json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from supabase import Client

from narwhal.evaluation.manifest import path_of
from scripts.eval.stack import running, sign_up, upload, wait

DEPTHS = (1, 3, 5)
CHUNKS = 40  # of which the pages are taken
Place = tuple[str, int]  # path, page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", default="hybrid", choices=["hybrid", "keyword", "semantic"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit-s", type=int, default=1800, help="longest wait for ingestion")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    pages = {row["_id"]: row for row in _lines(options.folder / "pages.jsonl")}
    passwords = {
        row["path"]: row["password"]
        for row in _lines(options.folder.parent / "documents" / "manifest.jsonl")
        if row.get("password")
    }
    with running(options.workers) as home:
        client = sign_up(home)
        started = time.monotonic()
        files = {
            upload(client, options.folder, _entry(options.folder, path, passwords)): path
            for path in sorted({str(page["path"]) for page in pages.values()})
        }
        nodes = wait(client, options.limit_s)
        seconds = time.monotonic() - started
        rows = [
            _judge(client, question, answers, files, options.mode)
            for question, answers in _questions(options.folder, pages)
        ]
    unread = sorted(files[id_] for id_, node in nodes.items() if node["status"] != "ready")
    _report(rows, unread, seconds, as_json=options.json)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _entry(folder: Path, path: str, passwords: dict[str, str]) -> dict[str, Any]:
    # passwords are told by the manifest, whose paths begin below its own folder or above
    for name, password in passwords.items():
        if path_of(folder, {"path": path}).name == Path(name).name:
            return {"path": path, "mime": "application/pdf", "password": password}
    return {"path": path, "mime": "application/pdf" if path.endswith(".pdf") else None}


def _questions(
    folder: Path, pages: dict[str, dict[str, Any]]
) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    answers: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, page, score = line.split("\t")
        if int(score) > 0:
            answers.setdefault(query, []).append(pages[page])
    questions = {row["_id"]: row for row in _lines(folder / "queries.jsonl")}
    return [(questions[query], found) for query, found in answers.items()]


def _judge(
    client: Client,
    question: dict[str, Any],
    answers: list[dict[str, Any]],
    files: dict[str, str],
    mode: str,
) -> dict[str, Any]:
    wanted = {(str(page["path"]), int(page["page"])) for page in answers}
    found = _search(client, question["text"], mode, files)
    ranks = [rank for rank, place in enumerate(found, start=1) if place in wanted]
    return {
        "id": question["_id"],
        "question": question["text"],
        "wanted": sorted(wanted),
        "is_scan": not all(page["has_text_layer"] for page in answers),
        "rank": min(ranks, default=None),
        "found": found[: max(DEPTHS)],
    }


def _search(client: Client, question: str, mode: str, files: dict[str, str]) -> list[Place]:
    answer: Any = client.functions.invoke(
        "ai/search",
        {"body": {"query": question, "mode": mode, "top_k": CHUNKS}, "responseType": "json"},
    )
    if isinstance(answer, bytes):
        answer = json.loads(answer)
    places = [(files[hit["file_id"]], hit["page"] or 1) for hit in answer["hits"]]
    return list(dict.fromkeys(places))


def _report(
    rows: list[dict[str, Any]], unread: list[str], seconds: float, *, as_json: bool
) -> None:
    shares = {
        f"top_{depth}": sum(row["rank"] is not None and row["rank"] <= depth for row in rows)
        for depth in DEPTHS
    }
    if as_json:
        found = {"questions": len(rows), **shares, "unread": unread, "seconds": round(seconds, 1)}
        print(json.dumps({**found, "rows": rows}, indent=2, ensure_ascii=False))
        return
    for name, count in shares.items():
        print(f"{name}: {count} of {len(rows)} ({count / max(len(rows), 1):.1%})")
    for row in rows:
        if row["rank"] is None or row["rank"] > 3:
            print("missed:", row["question"], row["wanted"], "rank", row["rank"], row["found"][:3])
    for path in unread:
        print("not read:", path)
    print(f"ingested in {seconds:.0f} s")


if __name__ == "__main__":
    main()
