"""A storm of kills, failures and changes leaves exactly what an undisturbed run leaves.

NARWHAL_TEST_SEED chooses the storm, NARWHAL_TEST_STORM_S how long the long one blows.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from narwhal.local.state import StackState, read_state
from tests.chaos.faults import unreliable_storage
from tests.chaos.mixture import SAMPLES
from tests.chaos.storm import (
    Storm,
    assert_nothing_is_left_over,
    outcome,
    send,
    send_anew,
    sign_up,
    start_worker,
    statistics,
    user_id,
    wait_until_settled,
)
from tests.conftest import narwhal

SETTINGS = {
    "jobs.lease_s": "3",
    "jobs.heartbeat_s": "1",
    "jobs.max_lease_losses": "1000",
    "jobs.backoff_s": "0.2",
    "render.pages": "3",
    "breakers.open_s": "1",
}


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, StackState]]:
    """A stack with short leases and no workers: the test runs them, and kills them."""
    home = tmp_path_factory.mktemp("chaos")
    try:
        narwhal("up", "--detach", "--port", "0", "--workers", "0", "--home", str(home))
        state = read_state(home)
        assert state is not None
        with psycopg.connect(state.database_url) as connection:
            for key, value in SETTINGS.items():
                connection.execute(
                    "update private.settings set value = %s where key = %s", (value, key)
                )
        yield home, state
    finally:
        narwhal("down", "--home", str(home))


def test_a_storm_leaves_what_an_undisturbed_run_leaves(own_stack: tuple[Path, StackState]) -> None:
    check(own_stack, files=60, seconds=15, seed=int(os.environ.get("NARWHAL_TEST_SEED", "7")))


@pytest.mark.long
def test_a_long_storm(own_stack: tuple[Path, StackState]) -> None:
    seconds = float(os.environ.get("NARWHAL_TEST_STORM_S", "180"))
    seed = int(os.environ.get("NARWHAL_TEST_SEED", "0")) or random.SystemRandom().randrange(10**6)
    check(own_stack, files=200, seconds=seconds, seed=seed)


def check(own_stack: tuple[Path, StackState], *, files: int, seconds: float, seed: int) -> None:
    home, stack = own_stack
    print(f"seed {seed}")  # pytest shows it when something fails
    chance = random.Random(seed)
    stormy = sign_up(stack, f"stormy-{files}@example.test")
    calm = sign_up(stack, f"calm-{files}@example.test")
    with unreliable_storage(stack.api_url, seed) as storage:
        storm = Storm(home, stack, storage, chance, seconds, files, stormy)
        storm.blow()
    print(storm.kills, "kills,", storm.cuts, "cuts,", storage.failures, "failures,", storm.done)
    assert_nothing_is_left_over(stack, home)

    send_anew(calm, storm.files)
    worker = start_worker(stack, stack.api_url, "--drain", "--concurrency", "2")
    assert worker.wait(timeout=400) == 0
    wait_until_settled(stack)
    found, expected = outcome(stack, stormy), outcome(stack, calm)
    assert {row["name"] for row in expected if row["parent"] not in storm.files} == set(storm.files)
    assert {row["status"] for row in expected} == {"ready", "failed", "skipped", "rejected"}
    for one, other in zip(found, expected, strict=True):
        assert one == other, one["name"]
    assert statistics(stack, stormy) == statistics(stack, calm)


def test_a_file_purged_while_it_is_ingested_leaves_nothing(
    own_stack: tuple[Path, StackState],
) -> None:
    _, stack = own_stack
    client = sign_up(stack, "purger@example.test")
    chance = random.Random(11)
    worker = start_worker(stack, stack.api_url)
    try:
        for turn in range(6):
            ticket = send(
                client, f"handbook {turn}.docx", (SAMPLES / "diving-handbook.docx").read_bytes()
            )
            time.sleep(chance.uniform(0, 1.5))
            client.rpc("purge_nodes", {"ids": [ticket["file_id"]]}).execute()
        kept = send(client, "kept.md", (SAMPLES / "kelp-nursery.md").read_bytes())
        wait_until_settled(stack)
    finally:
        worker.terminate()
        worker.wait(timeout=60)

    owner = user_id(client)
    with psycopg.connect(stack.database_url) as connection:
        for table, column in (
            ("public.nodes", "id"),
            ("public.file_versions", "file_id"),
            ("public.pages", "file_id"),
            ("public.chunks", "file_id"),
            ("public.ingest_jobs", "file_id"),
            ("private.chunk_terms", "file_id"),
            ("private.indexed_files", "file_id"),
            ("private.chunk_vectors", "file_id"),
        ):
            rows = connection.execute(
                f"select distinct {column}::text from {table} where {column} in"  # type: ignore[arg-type]
                " (select id from public.nodes where owner_id = %s)"
                f" or {column} not in (select id from public.nodes)",
                (owner,),
            ).fetchall()
            assert rows == [(kept["file_id"],)], table
        objects = connection.execute(
            "select name from storage.objects where name like %s", (f"{owner}/%",)
        ).fetchall()
        assert objects == [(kept["key"],)]
