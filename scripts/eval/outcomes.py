"""What became of hostile files: the floor that each must keep, and what was expected of each."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from narwhal.evaluation.manifest import path_of
from narwhal.ingest.document import ReadError
from narwhal.ingest.limits import Limits, read_in_sandbox

MOST_SECONDS, MOST_MIB = 30.0, 512.0


@dataclass(frozen=True)
class Outcome:
    """What reading one file came to, in how long, and with how much memory at most."""

    path: str
    expect: str
    outcome: str
    seconds: float
    mib: float
    keeps_the_floor: bool
    is_as_expected: bool


def measure(folder: Path, entry: dict[str, Any], limits: Limits) -> Outcome:
    """Read one file in the sandbox, from a process of its own that knows what it cost."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(receive)
            answer = json.dumps(_read(folder, entry, limits)).encode()
            with os.fdopen(send, "wb") as pipe:
                pipe.write(answer)
            code = 0
        finally:
            os._exit(code)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status or not answer:
        return Outcome(entry["path"], entry["expect"], "the caller died", 0, 0, False, False)
    found = json.loads(answer)
    return Outcome(
        path=entry["path"],
        expect=entry["expect"],
        outcome=found["outcome"],
        seconds=round(found["seconds"], 2),
        mib=round(found["mib"], 1),
        keeps_the_floor=found["seconds"] < MOST_SECONDS and found["mib"] < MOST_MIB,
        is_as_expected=is_as_expected(entry["expect"], found["error"], found["text"]),
    )


def _read(folder: Path, entry: dict[str, Any], limits: Limits) -> dict[str, Any]:
    path = path_of(folder, entry)
    started = time.monotonic()
    error, text = None, ""
    try:
        document = read_in_sandbox(path, path.name, None, limits)
        text = " ".join(" ".join(page.text.split()) for page in document.pages)
        cut = f", cut by {document.truncated_by}" if document.truncated_by else ""
        outcome = f"{len(document.pages)} pages{cut}: {text[:60]!r}"
    except ReadError as failure:
        error = outcome = failure.code
    return {
        "outcome": outcome,
        "error": error,
        "text": text,
        "seconds": time.monotonic() - started,
        "mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }


def is_as_expected(expect: str, error: str | None, text: str) -> bool:
    """Whether an error, or else a text, is what a manifest's sentence allows.

    Words in quotation marks after `extract` must be in the text; `root:` never may.
    """
    may_fail = bool(re.search(r"reject|clear status", expect))
    must_fail = bool(re.match(r"(?:reject|clear status)\b", expect)) and not re.search(
        r"\bor\b|-or-", expect
    )
    if error is not None:
        return may_fail
    if must_fail and text:
        return False
    wanted = re.findall(r'"([^"]+)"', expect.partition(";")[0])
    # a text without words says no more than an error would
    return "root:" not in text and (all(word in text for word in wanted) or (may_fail and not text))


def report(rows: list[Outcome], *, as_json: bool) -> bool:
    """Print the table; return whether every file keeps the floor."""
    kept = sum(row.keeps_the_floor for row in rows)
    expected = sum(row.is_as_expected for row in rows)
    if as_json:
        counts = {"floor": kept, "as_expected": expected, "of": len(rows)}
        print(json.dumps({**counts, "files": [asdict(row) for row in rows]}, indent=2))
        return kept == len(rows)
    print(f"{'file':44}{'seconds':>8}{'MiB':>7}  {'floor':6}{'expected':9}outcome")
    for row in rows:
        marks = "yes" if row.keeps_the_floor else "NO", "yes" if row.is_as_expected else "NO"
        print(
            f"{Path(row.path).name[:43]:44}{row.seconds:8.2f}{row.mib:7.0f}"
            f"  {marks[0]:6}{marks[1]:9}{row.outcome[:70]}"
        )
    counted = Counter(row.outcome.split(":")[0].split()[-1] for row in rows)
    print(
        f"floor {kept} of {len(rows)}, as expected {expected} of {len(rows)}; slowest"
        f" {max(row.seconds for row in rows):.2f} s, most memory"
        f" {max(row.mib for row in rows):.0f} MiB: {dict(counted)}"
    )
    return kept == len(rows)
