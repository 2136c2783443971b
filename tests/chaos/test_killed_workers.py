"""Workers killed with SIGKILL at random moments leave exactly what an undisturbed run leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from supabase import Client, ClientOptions, create_client

from narwhal.local.state import StackState, read_state
from tests.conftest import ROOT, clean_environment, narwhal

SAMPLES = ROOT / "scripts" / "samples"
SETTLED = {"ready", "failed", "skipped", "rejected"}
PASSWORD = "correct horse battery staple"

# What a user's files came to, without anything that differs between two runs (ids, times).
OUTCOME = """
select jsonb_build_object(
    'name', n.name, 'status', n.status, 'is_head', n.head_version_id = v.id, 'no', v.no,
    'sha256', v.sha256, 'format', v.format, 'error', v.error_code, 'language', v.language,
    'pages', (
        select jsonb_agg(jsonb_build_array(p.page, md5(p.text), p.layout) order by p.page)
        from public.pages as p where p.version_id = v.id
    ),
    'chunks', (
        select jsonb_agg(
            jsonb_build_array(
                c.idx, c.page, c.content, c.char_start, c.char_end, c.heading, c.language, c.bboxes,
                (
                    select jsonb_agg(jsonb_build_array(t.lexeme, e) order by t.lexeme)
                    from private.indexed_files as f
                    inner join private.chunk_terms as t on t.file_id = f.file_id
                    cross join unnest(t.entries) as e
                    where f.version_id = v.id and e >> 40 = c.idx
                ),
                (
                    select md5(e.embedding::text)
                    from private.chunk_vectors as e where e.chunk_id = c.id
                )
            ) order by c.idx
        )
        from public.chunks as c where c.version_id = v.id
    ),
    'jobs', (
        select jsonb_agg(jsonb_build_array(j.stage, j.state, j.attempts) order by j.stage)
        from public.ingest_jobs as j where j.version_id = v.id
    )
)
from public.nodes as n
inner join public.file_versions as v on v.file_id = n.id
where n.owner_id = %s
order by n.name, v.no
"""

STATISTICS = """
select jsonb_build_object(
    'terms', (
        select jsonb_agg(jsonb_build_array(t.lexeme, t.chunk_count) order by t.lexeme)
        from (
            select t.lexeme, sum(cardinality(t.entries)) as chunk_count
            from private.chunk_terms as t where t.owner_id = %(owner)s group by t.lexeme
        ) as t
    ),
    'size', (
        select jsonb_build_array(s.chunk_count, s.total_length)
        from private.owner_statistics as s where s.owner_id = %(owner)s
    ),
    'used', (select o.storage_used from public.owners as o where o.id = %(owner)s),
    'reserved', (select o.storage_reserved from public.owners as o where o.id = %(owner)s)
)
"""


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, StackState]]:
    """A stack with short leases and no workers: the test runs them, and kills them."""
    home = tmp_path_factory.mktemp("chaos")
    try:
        narwhal("up", "--detach", "--port", "0", "--workers", "0", "--home", str(home))
        state = read_state(home)
        assert state is not None
        with psycopg.connect(state.database_url) as connection:
            connection.execute("update private.settings set value = '3' where key = 'jobs.lease_s'")
            connection.execute(
                "update private.settings set value = '1' where key = 'jobs.heartbeat_s'"
            )
            connection.execute(
                "update private.settings set value = '1000' where key = 'jobs.max_lease_losses'"
            )
        yield home, state
    finally:
        narwhal("down", "--home", str(home))


def test_killed_workers_leave_what_an_undisturbed_run_leaves(
    own_stack: tuple[Path, StackState],
) -> None:
    check(own_stack, files=20, kills=30)


@pytest.mark.long
def test_a_hundred_kills_over_forty_files(own_stack: tuple[Path, StackState]) -> None:
    check(own_stack, files=40, kills=100)


def check(own_stack: tuple[Path, StackState], files: int, kills: int) -> None:
    home, stack = own_stack
    seed = int(os.environ.get("NARWHAL_TEST_SEED", "7"))
    chance = random.Random(seed)
    undisturbed = sign_up(stack, f"calm-{files}@example.test")
    disturbed = sign_up(stack, f"stormy-{files}@example.test")

    upload(undisturbed, files)
    worker = start_worker(home, drain=True)
    assert worker.wait(timeout=400) == 0
    expected = outcome(stack, undisturbed)
    assert len(expected) == files
    assert {row["status"] for row in expected} == {"ready"}

    upload(disturbed, files)
    workers = [start_worker(home), start_worker(home)]
    started = time.monotonic()
    done = 0
    try:
        while not settled(disturbed):
            assert time.monotonic() - started < 500, f"stuck (seed {seed}, {done} kills)"
            time.sleep(chance.uniform(0.1, 0.7))  # a worker needs about 0.5 s to start
            if done < kills:
                victim = chance.randrange(2)
                os.kill(workers[victim].pid, signal.SIGKILL)
                workers[victim].wait()
                workers[victim] = start_worker(home)
                done += 1
    finally:
        for process in workers:
            process.terminate()
        for process in workers:
            process.wait(timeout=60)

    assert done == kills, f"the run was over after {done} kills"
    found = outcome(stack, disturbed)
    for one, other in zip(found, expected, strict=True):
        assert one == other, f"{one['name']} differs (seed {seed})"
    assert statistics(stack, disturbed) == statistics(stack, undisturbed)


def test_a_file_purged_while_it_is_ingested_leaves_nothing(
    own_stack: tuple[Path, StackState],
) -> None:
    home, stack = own_stack
    client = sign_up(stack, "purger@example.test")
    chance = random.Random(11)
    worker = start_worker(home)
    try:
        for turn in range(6):
            ticket = send(client, SAMPLES / "diving-handbook.docx", f"handbook {turn}.docx")
            time.sleep(chance.uniform(0, 1.5))
            client.rpc("purge_nodes", {"ids": [ticket["file_id"]]}).execute()
        kept = send(client, SAMPLES / "kelp-nursery.md", "kept.md")
        deadline = time.monotonic() + 120
        while not settled(client):
            assert time.monotonic() < deadline
            time.sleep(0.3)
        with psycopg.connect(stack.database_url) as connection:
            while connection.execute(
                "select (select count(*) from public.nodes where purged_at is not null)"
                " + (select count(*) from private.object_deletions)"
            ).fetchone() != (0,):
                assert time.monotonic() < deadline, "purged files were not removed"
                time.sleep(0.3)
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


# Helpers ------------------------------------------------------------------------------------------


def sign_up(stack: StackState, email: str) -> Client:
    client = create_client(stack.api_url, stack.anon_key, ClientOptions(auto_refresh_token=False))
    client.auth.sign_up({"email": email, "password": PASSWORD})
    client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    return client


def user_id(client: Client) -> str:
    user = client.auth.get_user()
    assert user is not None
    return user.user.id


def upload(client: Client, count: int) -> None:
    """Upload `count` files: every sample once, then copies that differ in name only."""
    samples = sorted(
        path
        for path in SAMPLES.iterdir()
        if path.name not in ("README.md", "make.py") and path.stat().st_size < 6 * 2**20
    )
    for i in range(count):
        path = samples[i % len(samples)]
        send(client, path, f"{i:02} {path.name}")


def send(client: Client, path: Path, name: str) -> Any:
    ticket: Any = (
        client.rpc("begin_upload", {"name": name, "size": path.stat().st_size}).execute().data
    )
    client.storage.from_(ticket["bucket"]).upload(ticket["key"], path)
    return ticket


def settled(client: Client) -> bool:
    rows: Any = client.table("nodes").select("status").execute().data
    return all(row["status"] in SETTLED for row in rows)


def start_worker(home: Path, *, drain: bool = False) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "narwhal", "worker", "--home", str(home)]
    return subprocess.Popen(
        command + ["--drain"] * drain,
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def outcome(stack: StackState, client: Client) -> list[Any]:
    with psycopg.connect(stack.database_url) as connection:
        return [row[0] for row in connection.execute(OUTCOME, (user_id(client),)).fetchall()]


def statistics(stack: StackState, client: Client) -> Any:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(STATISTICS, {"owner": user_id(client)}).fetchone()
        assert row is not None
        return row[0]
