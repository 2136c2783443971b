"""Real documents and hostile files, where NARWHAL_DATA names a folder with `documents`, `hostile`.

Each of the two holds a manifest.jsonl; scripts/eval/reading.py says what is in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("NARWHAL_DATA")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not DATA, reason="NARWHAL_DATA names no folder of files"),
]


def evaluate(folder: str) -> Any:
    run = subprocess.run(
        [sys.executable, "-m", "scripts.eval.reading", str(Path(str(DATA)) / folder), "--json"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return json.loads(run.stdout)


def test_phrases_stand_in_the_chunks_of_their_page() -> None:
    tallies = evaluate("documents")
    total = tallies["all"]
    assert total["phrases"] > 0
    assert total["on_page"] >= 0.98 * total["phrases"], [t["problems"] for t in tallies.values()]


def test_hostile_files_end_in_time_and_in_memory() -> None:
    report = evaluate("hostile")
    assert report["files"]
    for file in report["files"]:
        assert file["seconds"] <= 30, file
        if file["expect"] == "reject":
            assert "pages:" not in file["outcome"], file
    assert report["most_memory_mib"] <= 512
