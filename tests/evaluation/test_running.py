"""Evaluations of a small collection on a real database: figures, readers, the gate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from narwhal.evaluation.collection import load_collection
from narwhal.evaluation.library import SHARES, _bucket
from narwhal.evaluation.running import ALL, evaluate
from narwhal.settings import VARIABLES
from tests.conftest import FreshDatabase

TOPICS = {
    "whales": "Humpback whales sing long songs under water and migrate every year.",
    "bread": "Sourdough bread rises slowly because wild yeast ferments the dough.",
    "trains": "Express trains run on electrified tracks between the two capitals.",
    "stars": "A neutron star is the collapsed core of a massive supergiant.",
    "tax": "The tax office sends a notice of assessment within ninety days.",
}
QUERIES = {
    "whales": "what do humpback whales sing",
    "bread": "why does sourdough rise",
    "trains": "electrified express railway",
    "stars": "collapsed core of a giant star",
    "tax": "when does the tax notice arrive",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection of files, ten in a hundred of which a reader may read."""
    place = tmp_path / "small"
    (place / "qrels").mkdir(parents=True)
    documents = [
        {"_id": f"{topic}-{number}", "title": f"Note {number}", "text": text}
        for number in (*range(8), 41, 50)  # two of them within every share
        for topic, text in TOPICS.items()
    ]
    judged = [
        (topic, document["_id"])
        for document in documents
        for topic in TOPICS
        if document["_id"].startswith(topic)
    ]
    _lines(place / "corpus.jsonl", documents)
    _lines(
        place / "queries.jsonl",
        [{"_id": topic, "text": text} for topic, text in QUERIES.items()]
        + [{"_id": "unjudged", "text": "nobody judged this"}],
    )
    rows = "".join(f"{query}\t{document}\t1\n" for query, document in judged)
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return place


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_every_mode_is_measured_for_every_reader(
    folder: Path, fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    evaluation = evaluate(
        load_collection(folder),
        database_url=fresh_database.url(),
        settings=None,
        cache=tmp_path / "cache",
    )
    figures = evaluation.figures
    files = {file.id: file for file in load_collection(folder).files}
    readable = {ALL: set(files)} | {
        share: {name for name, file in files.items() if _bucket(file) < limit}
        for share, limit in SHARES.items()
    }
    assert readable[ALL] > readable["10 %"] > readable["1 %"] > set()
    assert set(figures["shares"]) == set(readable)
    for share, modes in evaluation.tallies.items():
        assert figures["shares"][share]["files"] == len(readable[share])
        assert set(modes) == {"keyword", "dense", "hybrid"}
        for tally in modes.values():
            assert all(set(ranking) <= readable[share] for ranking in tally.rankings.values())
        # control: a reader of a part finds all of it
        assert "bread" in modes["hybrid"].rankings
        assert all(set(found) == readable[share] for found in modes["hybrid"].rankings.values())
        dense = figures["shares"][share]["modes"]["dense"]
        assert dense["recall_of_brute_force"] == 1
        assert len(modes["dense"].exact) == figures["shares"][share]["questions"]
        assert dense["p95_ms"] >= dense["p50_ms"] > 0
    whole = figures["shares"][ALL]
    assert whole["questions"] == len(QUERIES)  # the unjudged one was not asked
    assert {name: len(group) for name, group in whole["languages"].items()} == {"en": 2}
    assert whole["modes"]["hybrid"]["hit_at_5"] == 1
    assert whole["modes"]["keyword"]["ndcg_at_10"] > 0.7
    # nothing of it stays
    with fresh_database.connect() as connection:
        for table in (
            "auth.users",
            "public.nodes",
            "public.chunks",
            "private.chunk_terms",
            "private.chunk_vectors",
            "public.ingest_jobs",
        ):
            assert connection.execute(f"select count(*) from {table}").fetchone() == (0,), table


def _narwhal(
    database: FreshDatabase, home: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    ours = {name for names in VARIABLES.values() for name in names} | {"NARWHAL_HOME"}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-m", "narwhal", "eval", "run", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        cwd=home,
        env=clean | {"DATABASE_URL": database.url()},
        timeout=120,
    )


def test_a_run_that_is_terminated_leaves_no_server(folder: Path, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir(mode=0o755)
    run = subprocess.Popen(
        [sys.executable, "-m", "narwhal", "eval", "run", folder, "--scratch", "--home", tmp_path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    try:
        started = time.monotonic()
        while not (servers := list(temporary.glob("*/data/postmaster.pid"))):
            assert run.poll() is None and time.monotonic() - started < 60
            time.sleep(0.05)
        server = psutil.Process(int(servers[0].read_text().split()[0]))
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
        assert not server.is_running()
        assert list(temporary.iterdir()) == []
    finally:
        run.kill()


def test_a_sample_has_as_many_questions_of_each_language_and_another_name(folder: Path) -> None:
    whole = load_collection(folder)
    assert whole.sampled(len(QUERIES)) is whole
    (one,) = whole.sampled(1).queries  # all are in one language, or in none that is told
    assert one in whole.queries
    sample = whole.sampled(1)
    assert sample.name == "small-1"
    assert sample.files == whole.files
    assert sample.judgments == {one.id: whole.judgments[one.id]}
    assert sample.fingerprint != whole.fingerprint
    assert sample == whole.sampled(1)


def test_the_gate_fails_when_search_gets_worse(
    fresh_database: FreshDatabase, folder: Path, tmp_path: Path
) -> None:
    baseline = str(tmp_path / "baseline.json")
    arguments = (str(folder), "--baseline", baseline, "--no-shares")
    missing = _narwhal(fresh_database, tmp_path, *arguments, "--gate")
    assert missing.returncode == 1
    assert "NOT_FOUND" in missing.stderr
    stored = _narwhal(fresh_database, tmp_path, *arguments, "--update-baseline", "--json")
    assert stored.returncode == 0, stored.stderr
    assert json.loads(stored.stdout)["losses"] == []
    same = _narwhal(fresh_database, tmp_path, *arguments, "--gate")
    assert same.returncode == 0, same.stderr
    assert "HYBRID" not in same.stdout
    assert "hybrid" in same.stdout

    with fresh_database.connect() as connection:  # a dense leg that finds nothing
        signature = connection.execute(
            "select pg_get_function_arguments(oid), pg_get_function_result(oid)"
            " from pg_proc where oid = 'private.search_dense'::regproc"
        ).fetchone()
        assert signature is not None
        connection.execute(
            f"create or replace function private.search_dense({signature[0]})"
            f" returns {signature[1]} language plpgsql stable as 'begin end'"
        )
    worse = _narwhal(fresh_database, tmp_path, *arguments, "--gate")
    assert worse.returncode == 1
    assert "lost: 100 %, dense, ndcg_at_10: 0.0000" in worse.stderr

    # and the space remembers it, for the gate of its activation
    with fresh_database.connect() as connection:
        kept = connection.execute(
            "select s.name, e.collection, e.has_passed, e.query_count, e.ndcg > 0.5"
            " from private.space_evaluations as e"
            " inner join public.embedding_spaces as s on s.id = e.space_id order by e.id"
        ).fetchall()
    assert kept == [
        ("minilm-l6-v2", "small", passed, len(QUERIES), True) for passed in (True, True, False)
    ]


def test_a_folder_that_is_no_collection_is_refused_in_two_lines(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    refused = _narwhal(fresh_database, tmp_path, str(tmp_path))
    assert refused.returncode == 1
    assert "INVALID_ARGUMENT" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 2
