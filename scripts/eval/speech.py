"""How well recordings are heard, without a stack: word error rates against their transcripts.

Takes a folder with a manifest.jsonl; of entries with a recording and a `transcript`, what a worker
on this machine hears is compared with it, without case and marks. A recording whose transcript
tells only its `opening` (said in its note) is compared with as many words. In a language that the
recogniser does not know, words are worse than none: those are counted as invented.

Example: scripts/eval/run speech path/to/documents --json
"""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from narwhal.evaluation.manifest import is_heard, manifest, path_of
from narwhal.ingest.hearing import choose_recognizer, listen
from narwhal.ingest.limits import MIB, Limits

KNOWN = {"en"}
LEAST_CONFIDENCE = 0.45  # the setting transcribe.least_confidence


@dataclass(frozen=True)
class Row:
    """One recording; error is None where no words are expected."""

    path: str
    language: str | None
    seconds: float
    said: str
    heard: str
    error: float | None
    invented: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows = [
        _hear(options.folder, entry)
        for entry in manifest(options.folder)
        if is_heard(entry) and "transcript" in entry
    ]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], ensure_ascii=False, indent=2))
        return
    for row in rows:
        error = f"{row.error:5.2f}" if row.error is not None else "    -"
        print(f"{error}  {row.seconds:5.1f} s  {row.language}  {row.path}")
        print(f"       said:  {row.said}\n       heard: {row.heard}")


def _hear(folder: Path, entry: dict[str, Any]) -> Row:
    path = path_of(folder, entry)
    started = time.monotonic()
    stretches = listen(
        path, path.name, entry.get("mime"), 0, choose_recognizer(), Limits(600, 1024 * MIB)
    )
    segments = [segment for stretch in stretches for segment in stretch.segments]
    length = sum(s.end_ms - s.start_ms for s in segments)
    sure = sum((s.confidence or 1) * (s.end_ms - s.start_ms) for s in segments) / max(length, 1)
    heard = " ".join(s.text for s in segments) if sure >= LEAST_CONFIDENCE else ""
    said = _words(entry["transcript"])
    words = _words(heard)
    if "opening" in str(entry.get("note")):
        words = words[: len(said)]
    is_known = entry.get("lang") in KNOWN
    return Row(
        str(entry["path"]),
        entry.get("lang"),
        round(time.monotonic() - started, 1),
        entry["transcript"],
        heard,
        round(_distance(said, words) / len(said), 3) if is_known else None,
        0 if is_known else len(words),
    )


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.casefold())


def _distance(one: list[str], other: list[str]) -> int:
    """Words to insert, remove or replace (Levenshtein)."""
    row = list(range(len(other) + 1))
    for place, word in enumerate(one, start=1):
        before, row[0] = row[0], place
        for at, heard in enumerate(other, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != heard))
    return row[-1]


if __name__ == "__main__":
    main()
