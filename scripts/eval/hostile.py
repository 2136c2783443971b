"""What becomes of hostile files: each must settle, and the worker must live.

Takes a folder with a manifest.jsonl (path, class, expect), uploads every file with the official
client to a stack of its own, and prints what each came to; and what became of the names in its
filenames.jsonl. Ends with 1 when a file did not settle, a worker had to be restarted, or an
accepted name did not come back as it was given.

Example: scripts/eval/run hostile path/to/hostile --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from postgrest.exceptions import APIError
from supabase import Client

from narwhal.evaluation.manifest import manifest
from scripts.eval.outcomes import is_as_expected
from scripts.eval.stack import SETTLED, running, sign_up, state_of, upload, wait


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit-s", type=int, default=900, help="longest wait for ingestion")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    entries = manifest(options.folder)
    with running(workers=1) as home:
        client = sign_up(home)
        started = time.monotonic()
        files = {upload(client, options.folder, entry): entry for entry in entries}
        nodes = wait(client, options.limit_s)
        seconds = time.monotonic() - started
        rows = [_row(client, file_id, nodes[file_id], entry) for file_id, entry in files.items()]
        names = _names(client, options.folder)
        restarts = sum(
            service.restarts for service in state_of(home).services if "worker" in service.name
        )
    stuck = [row for row in rows if row["status"] not in SETTLED]
    if options.json:
        print(
            json.dumps(
                {"seconds": round(seconds), "restarts": restarts, "files": rows, "names": names},
                indent=2,
            )
        )
    else:
        for row in rows:
            print(
                f"{row['name']:50} {row['status']:9} {row['error_code'] or '':18} {row['expect']}"
            )
        for name in names:
            print(f"{ascii(name['name'])[:50]:50} {name['outcome']:18} {name['why']}")
        as_expected = sum(row["as_expected"] for row in rows)
        print(f"{as_expected} of {len(rows)} as expected")
        print(f"{len(stuck)} stuck, {restarts} worker restarts, {seconds:.0f} s")
    sys.exit(bool(stuck or restarts or any(name["outcome"] == "changed" for name in names)))


def _names(client: Client, folder: Path) -> list[dict[str, str]]:
    """What becomes of each name: given back, changed, or the error that refuses it."""
    path = folder / "filenames.jsonl"
    found = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        entry = json.loads(line)
        arguments = {"name": entry["name"], "size": 1, "on_conflict": "rename"}
        try:
            ticket: Any = client.rpc("begin_upload", arguments).execute().data
        except APIError as error:
            try:
                outcome = str(json.loads(error.details or "")["error"])
            except (ValueError, KeyError, TypeError):
                outcome = str(error.code)
        else:
            nodes: Any = (
                client.table("nodes").select("name").eq("id", ticket["file_id"]).execute().data
            )
            given = nodes[0]["name"] in (entry["name"], ticket["name"])
            same = nodes[0]["name"] == entry["name"]
            outcome = "as given" if same else "renamed" if given else "changed"
        found.append({"name": entry["name"], "why": entry["why"], "outcome": outcome})
    return found


def _row(client: Any, file_id: str, node: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    versions = client.table("file_versions").select("error_code").eq("file_id", file_id).execute()
    chunks: Any = client.table("chunks").select("content").eq("file_id", file_id).execute()
    text = " ".join(" ".join(row["content"].split()) for row in chunks.data)
    error = versions.data[0]["error_code"] if versions.data else None
    return {
        "name": node["name"],
        "class": entry["class"],
        "status": node["status"],
        "error_code": error,
        "chunks": len(chunks.data),
        "expect": entry["expect"],
        "as_expected": is_as_expected(entry["expect"], None if text else error, text),
    }


if __name__ == "__main__":
    main()
