"""How well files are read, without a stack: phrases in their chunks, and what hostile files do.

Takes a folder with a manifest.jsonl, one file a line. Entries with `phrases` [{text, page?}] are
judged by them: each must stand whole in one chunk, on the stated page. Entries with `expect` are
only read in the sandbox, and listed with the time and the greatest memory: whether each keeps the
floor (30 s, 512 MiB, an answer), and whether what came of it is what was expected.

Example: scripts/eval/run reading path/to/documents --json
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from narwhal.encoders import load_text_encoder
from narwhal.evaluation.manifest import WITHOUT_TEXT, fold, is_heard, manifest, path_of
from narwhal.ingest.chunking import chunk
from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import Limits, read_in_sandbox
from scripts.eval.outcomes import measure, report


@dataclass
class Tally:
    """Figures of one format."""

    files: int = 0
    chunks: int = 0
    characters: int = 0
    seconds: float = 0.0
    phrases: int = 0
    found: int = 0
    on_page: int = 0
    problems: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=1000, help="characters of a chunk")
    parser.add_argument("--overlap", type=int, default=200, help="characters that chunks share")
    parser.add_argument("--limit-s", type=float, default=28, help="seconds for one file")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    entries = manifest(options.folder)
    limits = Limits(seconds=options.limit_s)
    if any("expect" in entry for entry in entries):
        rows = [measure(options.folder, entry, limits) for entry in entries]
        if not report(rows, as_json=options.json):
            raise SystemExit(1)
    else:
        _report_tallies(_judge(options, entries, limits), options.json)


def _judge(
    options: argparse.Namespace, entries: list[dict[str, Any]], limits: Limits
) -> dict[str, Tally]:
    encoder = load_text_encoder()
    tallies: dict[str, Tally] = defaultdict(Tally)
    for entry in entries:
        path = path_of(options.folder, entry)
        if (WITHOUT_TEXT - {"no-text"}) & set(entry["tags"]) or is_heard(entry):
            continue
        tally = tallies[path.suffix[1:].lower()]
        started = time.monotonic()
        try:
            document = read_in_sandbox(path, path.name, entry.get("mime"), limits)
        except ReadError as error:
            tally.problems.append(f"{entry['path']}: {error.code}: {error.message}")
            if error.code == "unsupported_media":
                continue  # a format that is read by other means, or not yet
            chunks = []
        else:
            chunks = chunk(
                document,
                size=options.size,
                overlap=options.overlap,
                count_tokens=encoder.count_tokens,
                max_tokens=encoder.max_tokens,
            )
            tally.characters += sum(len(page.text) for page in document.pages)
        tally.seconds += time.monotonic() - started
        tally.files += 1
        tally.chunks += len(chunks)
        folded = [(piece.page, fold(piece.content)) for piece in chunks]
        for phrase in entry["phrases"]:
            pages = {page for page, text in folded if fold(phrase["text"]) in text}
            is_right = bool(pages) and (
                phrase.get("page") is None or pages & {phrase["page"], None}
            )
            tally.phrases += 1
            tally.found += bool(pages)
            tally.on_page += bool(is_right)
            if not is_right:
                tally.problems.append(
                    f"{entry['path']}: {phrase['text']!r} on {phrase.get('page')}, found on {pages}"
                )
        if "no-text" in entry["tags"] and chunks:
            tally.problems.append(f"{entry['path']}: text where there is none")
    return tallies


def _report_tallies(tallies: dict[str, Tally], as_json: bool) -> None:
    total = Tally()
    for tally in tallies.values():
        for name in ("files", "chunks", "characters", "seconds", "phrases", "found", "on_page"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    rows = [*sorted(tallies.items()), ("all", total)]
    if as_json:
        print(json.dumps({name: vars(tally) for name, tally in rows}, indent=2))
        return
    print(
        f"{'format':8}{'files':>6}{'chunks':>8}{'seconds':>9}"
        f"{'phrases':>9}{'found':>7}{'on page':>9}"
    )
    for name, tally in rows:
        if tally.files:
            print(
                f"{name:8}{tally.files:6}{tally.chunks:8}{tally.seconds:9.2f}"
                f"{tally.phrases:9}{tally.found:7}{tally.on_page:9}"
            )
    for tally in tallies.values():
        for problem in tally.problems:
            print("note:", problem)


if __name__ == "__main__":
    main()
