"""What becomes of hostile files: each must settle, and the worker must live.

Takes a folder with a manifest.jsonl (path, class, expect), uploads every file with the official
client to a stack of its own, and prints what each came to. Ends with 1 when a file did not settle
or a worker had to be restarted.

Example: scripts/eval/run hostile path/to/hostile --json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from narwhal.evaluation.manifest import manifest
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
        restarts = sum(
            service.restarts for service in state_of(home).services if "worker" in service.name
        )
    stuck = [row for row in rows if row["status"] not in SETTLED]
    if options.json:
        print(
            json.dumps({"seconds": round(seconds), "restarts": restarts, "files": rows}, indent=2)
        )
    else:
        for row in rows:
            print(
                f"{row['name']:50} {row['status']:9} {row['error_code'] or '':18} {row['expect']}"
            )
        print(f"{len(stuck)} stuck, {restarts} worker restarts, {seconds:.0f} s")
    sys.exit(bool(stuck or restarts))


def _row(client: Any, file_id: str, node: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    versions = client.table("file_versions").select("error_code").eq("file_id", file_id).execute()
    chunks = client.table("chunks").select("id", count="exact").eq("file_id", file_id).execute()
    return {
        "name": node["name"],
        "class": entry["class"],
        "status": node["status"],
        "error_code": versions.data[0]["error_code"] if versions.data else None,
        "chunks": chunks.count,
        "expect": entry["expect"],
    }


if __name__ == "__main__":
    main()
