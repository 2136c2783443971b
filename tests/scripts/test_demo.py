"""scripts/demo shows what it promises, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_the_demo_finds_everything_for_its_owner_and_nothing_for_a_stranger(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "demo.py", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )

    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["problems"] == []
    samples = {path.name for path in (SCRIPTS / "samples").iterdir()} - {"README.md", "make.py"}
    uploaded_as = {"white-dolphins.zh.md": "白海豚观察记录.md"}
    assert {file["name"] for file in summary["files"]} == {
        uploaded_as.get(name, name) for name in samples
    }
    assert {file["status"] for file in summary["files"]} == {"ready"}
    assert [file["name"] for file in summary["files"] if file["mode"] == "tus"] == [
        "seabed-atlas.pdf"
    ]
    assert "resumed there by a new client" in done.stderr
    assert [search["mode"] for search in summary["searches"]] == [
        *("keyword", "keyword", "semantic", "semantic", "hybrid", "hybrid")
    ]
    assert all(search["found"] for search in summary["searches"])
    assert {search["stranger_hits"] for search in summary["searches"]} == {0}
    assert list(tmp_path.iterdir()) == []
