"""Evaluations of a small collection on a real database: figures, readers, the gate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from narwhal.errors import NarwhalError
from narwhal.evaluation.baseline import losses, quality_of
from narwhal.evaluation.collection import load_collection
from narwhal.evaluation.library import SHARES, _bucket
from narwhal.evaluation.running import ALL, Evaluation, evaluate
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
        for number in range(80)
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


@pytest.fixture
def evaluation(fresh_database: FreshDatabase, folder: Path, tmp_path: Path) -> Evaluation:
    return evaluate(
        load_collection(folder),
        database_url=fresh_database.url(),
        settings=None,
        cache=tmp_path / "cache",
    )


def test_every_mode_is_measured_for_every_reader(
    evaluation: Evaluation, folder: Path, fresh_database: FreshDatabase
) -> None:
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
        assert set(modes["hybrid"].rankings["whales"]) == readable[share]
        dense = figures["shares"][share]["modes"]["dense"]
        assert dense["recall_of_brute_force"] == 1
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


def test_a_reader_gets_what_brute_force_over_their_files_gets(evaluation: Evaluation) -> None:
    for share in SHARES:
        assert evaluation.tallies[share]["dense"].exact
        assert set(evaluation.tallies[share]["dense"].exact) == {1.0}


def test_a_lower_figure_is_a_loss_and_a_higher_one_is_none(evaluation: Evaluation) -> None:
    figures = evaluation.figures
    before = json.loads(json.dumps(quality_of(figures)))
    assert losses(before, figures) == []
    assert "p50_ms" not in json.dumps(before)
    mode = before["shares"][ALL]["modes"]["hybrid"]
    before["shares"][ALL]["questions"] = 1000
    mode["ndcg_at_10"] = figures["shares"][ALL]["modes"]["hybrid"]["ndcg_at_10"] + 0.004
    assert losses(before, figures) == []
    mode["ndcg_at_10"] += 0.003
    (loss,) = losses(before, figures)
    assert loss.where == "100 %, hybrid, ndcg_at_10"
    assert losses(before, figures, tolerance=0.01) == []
    mode["ndcg_at_10"] = 0.0
    assert losses(before, figures) == []
    # one of five questions is worth .2: less is chance
    before["shares"][ALL]["questions"] = 5
    mode["ndcg_at_10"] = figures["shares"][ALL]["modes"]["hybrid"]["ndcg_at_10"] + 0.19
    assert losses(before, figures) == []
    # a reader or a mode that is gone is a loss
    gone = json.loads(json.dumps(figures))
    del gone["shares"][ALL]["modes"]["dense"]
    assert {loss.now for loss in losses(quality_of(figures), gone)} == {0.0}


def test_figures_of_other_data_are_not_compared(evaluation: Evaluation) -> None:
    other = quality_of(evaluation.figures) | {"fingerprint": "0123456789abcdef"}
    with pytest.raises(NarwhalError) as error:
        losses(other, evaluation.figures)
    assert error.value.error == "CONFLICT_STATE"


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
        definition = connection.execute(
            "select pg_get_functiondef('private.search_dense'::regproc)"
        ).fetchone()
        assert definition is not None
        damaged = definition[0].replace("limit %s", "limit 0 * %s")
        assert damaged != definition[0]
        connection.execute(damaged)
    worse = _narwhal(fresh_database, tmp_path, *arguments, "--gate")
    assert worse.returncode == 1
    assert "lost: 100 %, dense, ndcg_at_10: 0.0000" in worse.stderr


def test_a_folder_that_is_no_collection_is_refused_in_two_lines(
    fresh_database: FreshDatabase, tmp_path: Path
) -> None:
    refused = _narwhal(fresh_database, tmp_path, str(tmp_path))
    assert refused.returncode == 1
    assert "INVALID_ARGUMENT" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 2
