"""A storm over a drive: what users do meanwhile, what goes wrong, and what must be left of it.

All choices come from one seed. What happens when is up to the machine, so a run with the same seed
is alike, not equal.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from postgrest.exceptions import APIError
from supabase import Client, ClientOptions, create_client

from narwhal.local.state import StackState
from narwhal.local.storage.files import FileStore
from tests.books import assert_balanced
from tests.chaos.faults import UnreliableStorage
from tests.chaos.mixture import another, mixture, sentence
from tests.conftest import ROOT, clean_environment

PASSWORD = "correct horse battery staple"
# another call had the file, or its state has changed since: users try again, or not
PASSING = ("LOCKED", "CONFLICT_STATE", "CONFLICT_NAME")

# What the living files of a user came to, without anything that differs between two runs.
OUTCOME = """
select jsonb_build_object(
    'name', n.name, 'parent', p.name, 'status', n.status, 'is_head', n.head_version_id = v.id,
    'sha256', v.sha256, 'format', v.format, 'error', v.error_code, 'language', v.language,
    'has_bytes', v.blob_id is not null,
    'pages', (
        select jsonb_agg(jsonb_build_array(p.page, md5(p.text), p.source, p.layout) order by p.page)
        from public.pages as p where p.version_id = v.id
    ),
    'pictures', (
        select jsonb_agg(
            jsonb_build_array(r.kind, r.page, r.width, r.height, b.size, o.metadata -> 'size')
            order by r.kind, r.page
        )
        from public.renditions as r
        inner join private.blobs as b on b.id = r.blob_id
        left join storage.objects as o on o.bucket_id = b.bucket and o.name = b.key
        where r.version_id = v.id
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
        select jsonb_agg(jsonb_build_array(j.stage, j.state) order by j.stage)
        from public.ingest_jobs as j where j.version_id = v.id
    )
)
from public.nodes as n
inner join lateral (
    select * from public.file_versions as l where l.file_id = n.id order by l.no desc limit 1
) as v on true
left join public.nodes as p on p.id = n.parent_id
where n.owner_id = %s and n.trashed_at is null
order by p.name nulls first, n.name
"""

STATISTICS = """
select jsonb_build_array(
    (
        select jsonb_agg(jsonb_build_array(t.lexeme, t.chunk_count) order by t.lexeme)
        from (
            select t.lexeme, sum(cardinality(t.entries)) as chunk_count
            from private.chunk_terms as t where t.owner_id = %(owner)s group by t.lexeme
        ) as t
    ),
    (
        select jsonb_build_array(s.chunk_count, s.total_length)
        from private.owner_statistics as s where s.owner_id = %(owner)s
    ),
    (select o.storage_reserved from public.owners as o where o.id = %(owner)s)
)
"""


@dataclass
class Expected:
    """What a living file holds in the end."""

    file_id: str
    data: bytes
    parent: str | None = None


@dataclass
class Storm:
    """One user's files in a storm of `seconds`."""

    home: Path
    stack: StackState
    storage: UnreliableStorage
    chance: random.Random
    seconds: float
    count: int
    client: Client
    files: dict[str, Expected] = field(default_factory=dict)
    folder_id: str = ""
    kills: int = 0
    cuts: int = 0
    done: dict[str, int] = field(default_factory=dict)

    def blow(self) -> None:
        """Upload, change and delete while workers are killed; then let it calm down."""
        self.folder_id = (
            self.client.rpc("create_folder", {"name": "Elsewhere"}).execute().data["id"]
        )
        to_send = mixture(self.chance, self.count)
        self.chance.shuffle(to_send)
        workers = [self._start(), self._start()]
        try:
            end = time.monotonic() + self.seconds
            kill_at = [time.monotonic() + self.chance.uniform(0.5, 4) for _ in workers]
            while time.monotonic() < end or to_send or not self._has_struck():
                for name, data in [to_send.pop() for _ in range(min(len(to_send), 3))]:
                    ticket = send(self.client, name, data)
                    self.files[name] = Expected(ticket["file_id"], data)
                for _ in range(1 if to_send else 2):
                    self._change_something()
                for n, worker in enumerate(workers):
                    if time.monotonic() >= kill_at[n]:
                        os.kill(worker.pid, signal.SIGKILL)
                        worker.wait()
                        workers[n] = self._start()
                        kill_at[n] = time.monotonic() + self.chance.uniform(0.5, 4)
                        self.kills += 1
                if self.chance.random() < 0.1:
                    self._cut_connections()
                time.sleep(self.chance.uniform(0, 0.15))
            self._calm_down(workers)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait(timeout=60)

    def _has_struck(self) -> bool:
        """Whether enough has gone wrong; on a slow machine that takes longer."""
        return self.kills >= self.seconds / 4 and self.storage.failures > 0

    def _start(self) -> subprocess.Popen[bytes]:
        return start_worker(self.stack, self.storage.url, encoder_seed=self.chance.randrange(2**31))

    def _cut_connections(self) -> None:
        with psycopg.connect(self.stack.database_url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'narwhal worker' and pid <> pg_backend_pid()"
            )
        self.cuts += 1

    def _change_something(self) -> None:
        """One user action at random on a living file; the ones that lose a race are let be."""
        if not self.files:
            return
        name = self.chance.choice(sorted(self.files))
        change = self.chance.choice(CHANGES)
        try:
            change(self, name)
        except APIError as error:
            if not any(code in str(error.details) for code in PASSING):
                raise
        else:
            key = change.__name__.strip("_")
            self.done[key] = self.done.get(key, 0) + 1

    def _call(self, function: str, **arguments: Any) -> Any:
        return self.client.rpc(function, arguments).execute().data

    def _insist(self, function: str, **arguments: Any) -> None:
        """Call until nobody else is at it: nothing may be refused for longer than that."""
        while True:
            try:
                self._call(function, **arguments)
                return
            except APIError as error:
                if "LOCKED" not in str(error.details):
                    raise

    def _new_version(self, name: str) -> None:
        expected = self.files[name]
        nodes = self.client.table("nodes").select("status").eq("id", expected.file_id)
        rows: Any = nodes.execute().data
        if rows[0]["status"] == "uploading":
            return  # versions stand in the order in which they were written, a saved one later
        data = another(name, self.chance)
        ticket = send(self.client, name, data, file_id=expected.file_id)
        assert ticket["file_id"] == expected.file_id
        expected.data = data

    def _save_document(self, name: str) -> None:
        title, content = (
            f"{self.chance.randrange(10**6)}.md",
            f"# Saved\n\n{sentence(self.chance)}\n",
        )
        saved = self._call("save_document", title=title, content=content)
        self.files[title] = Expected(saved["file_id"], content.encode())

    def _trash(self, name: str) -> None:
        self._call("trash_nodes", ids=[self.files[name].file_id])
        del self.files[name]

    def _trash_and_restore(self, name: str) -> None:
        self._call("trash_nodes", ids=[self.files[name].file_id])
        time.sleep(self.chance.uniform(0, 0.5))
        self._insist("restore_nodes", ids=[self.files[name].file_id])

    def _purge(self, name: str) -> None:
        self._call("purge_nodes", ids=[self.files[name].file_id])
        del self.files[name]

    def _cancel(self, name: str) -> None:
        self._call("cancel_ingest", file_id=self.files[name].file_id)

    def _read_again(self, name: str) -> None:
        stage = self.chance.choice(["detect", "extract", "chunk", None])
        self._call("retry_ingest", file_id=self.files[name].file_id, from_stage=stage)

    def _rename(self, name: str) -> None:
        expected = self.files[name]
        new_name = f"{self.chance.randrange(10**6)} {name}"
        self._call("rename_node", id=expected.file_id, name=new_name)
        self.files[new_name] = self.files.pop(name)

    def _move(self, name: str) -> None:
        expected = self.files[name]
        self._call("move_nodes", ids=[expected.file_id], target=self.folder_id)
        expected.parent = "Elsewhere"

    def _copy(self, name: str) -> None:
        expected = self.files[name]
        made = self._call("copy_nodes", ids=[expected.file_id], on_conflict="rename")["items"][0]
        copy_name = made["name"]
        if copy_name in self.files:  # what was moved away leaves its name free here
            copy_name = f"{self.chance.randrange(10**6)} {copy_name}"
            self._insist("rename_node", id=made["id"], name=copy_name)
        self.files[copy_name] = Expected(made["id"], expected.data)

    def _restore_first_version(self, name: str) -> None:
        expected = self.files[name]
        rows = self.client.table("file_versions").select("id,no").eq("file_id", expected.file_id)
        versions: Any = rows.order("no").execute().data
        if len(versions) < 2:
            return
        first = versions[0]["id"]
        self._call("restore_version", file_id=expected.file_id, version_id=first)
        with psycopg.connect(self.stack.database_url) as connection:
            row = connection.execute(
                "select o.name, o.version from public.file_versions as v"
                " inner join private.blobs as b on b.id = v.blob_id"
                " inner join storage.objects as o on o.bucket_id = b.bucket and o.name = b.key"
                " where v.id = %s",
                (first,),
            ).fetchone()
        assert row is not None
        expected.data = FileStore(self.home / "storage").path("files", *row).read_bytes()

    def _calm_down(self, workers: list[subprocess.Popen[bytes]]) -> None:
        """Nothing fails any more; whatever was given up is taken up again, once."""
        self.storage.fails = False
        for n, worker in enumerate(workers):
            worker.terminate()
            worker.wait(timeout=60)
            workers[n] = start_worker(self.stack, self.storage.url)
        wait_until_settled(self.stack)
        with psycopg.connect(self.stack.database_url) as connection:
            connection.execute("select private.retry_jobs()")
        wait_until_settled(self.stack)
        self._call("empty_trash")  # what is in the trash counts in the statistics of words
        wait_until_settled(self.stack)


CHANGES = [
    Storm._new_version,
    Storm._new_version,
    Storm._save_document,
    Storm._trash,
    Storm._trash_and_restore,
    Storm._trash_and_restore,
    Storm._purge,
    Storm._cancel,
    Storm._read_again,
    Storm._rename,
    Storm._move,
    Storm._copy,
    Storm._restore_first_version,
]


def send_anew(client: Client, files: dict[str, Expected]) -> None:
    """Upload what a storm has left, each file as it is in the end."""
    folder = client.rpc("create_folder", {"name": "Elsewhere"}).execute().data
    for name, expected in sorted(files.items()):
        send(client, name, expected.data, folder_id=folder["id"] if expected.parent else None)


# Around it ----------------------------------------------------------------------------------------


def sign_up(stack: StackState, email: str) -> Client:
    client = create_client(stack.api_url, stack.anon_key, ClientOptions(auto_refresh_token=False))
    client.auth.sign_up({"email": email, "password": PASSWORD})
    client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    return client


def user_id(client: Client) -> str:
    user = client.auth.get_user()
    assert user is not None
    return user.user.id


def send(client: Client, name: str, data: bytes, **more: Any) -> Any:
    arguments = {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ticket: Any = client.rpc("begin_upload", arguments | more).execute().data
    if not ticket["deduplicated"]:
        client.storage.from_(ticket["bucket"]).upload(ticket["key"], data)
    return ticket


def start_worker(
    stack: StackState, api_url: str, *options: str, encoder_seed: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a worker that reaches Storage at `api_url`, with an encoder that fails for a seed."""
    if encoder_seed is None:
        command = [sys.executable, "-m", "narwhal"]
    else:
        command = [sys.executable, "-m", "tests.chaos.faults", str(encoder_seed)]
    return subprocess.Popen(
        [*command, "worker", *options],
        cwd=ROOT,
        env=clean_environment()
        | {
            "NARWHAL_SUPABASE_URL": api_url,
            "NARWHAL_SERVICE_ROLE_KEY": stack.service_role_key,
            "NARWHAL_WORKER_DATABASE_URL": stack.worker_database_url,
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


UNSETTLED = """
select 'job', j.stage || ' ' || j.state from public.ingest_jobs as j
where j.state in ('queued', 'running')
union all
select 'file', n.status from public.nodes as n
where n.trashed_at is null and n.status not in ('ready', 'failed', 'skipped', 'rejected')
union all
select 'purged', n.id::text from public.nodes as n where n.purged_at is not null
union all
select 'object', d.key from private.object_deletions as d
"""


def wait_until_settled(stack: StackState, timeout_s: float = 240) -> None:
    """Wait until workers have nothing left to do."""
    deadline = time.monotonic() + timeout_s
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        while left := connection.execute(UNSETTLED).fetchall():
            assert time.monotonic() < deadline, f"never ends: {left[:10]}"
            # what waits longer and longer for its turn need not be waited for; but pictures are
            # promised before they are written, and go when nobody records them
            connection.execute(
                "update private.object_deletions set run_after = now() where attempts > 0"
                " or not exists (select 1 from public.ingest_jobs where state = 'running')"
            )
            time.sleep(0.3)


def outcome(stack: StackState, client: Client) -> list[Any]:
    with psycopg.connect(stack.database_url) as connection:
        return [row[0] for row in connection.execute(OUTCOME, (user_id(client),)).fetchall()]


def statistics(stack: StackState, client: Client) -> Any:
    with psycopg.connect(stack.database_url) as connection:
        row = connection.execute(STATISTICS, {"owner": user_id(client)}).fetchone()
        assert row is not None
        return row[0]


def assert_nothing_is_left_over(stack: StackState, home: Path) -> None:
    """Every count, sum, vector and object is of something that is there; no lease is open."""
    assert_balanced(stack.database_url, home)
    with psycopg.connect(stack.database_url) as connection:
        connection.execute(
            "update private.settings set value = '0' where key = 'reconcile.grace_s'"
        )
        row = connection.execute("select private.reconcile()").fetchone()
        connection.rollback()
        assert row is not None
        wrong = {kind: found for kind, found in row[0]["findings"].items() if found["count"]}
        assert not wrong, wrong
        leases = connection.execute(
            "select stage, state from public.ingest_jobs"
            " where lease_token is not null or state in ('queued', 'running')"
            " and file_id in (select id from public.nodes where trashed_at is null)"
        ).fetchall()
        assert leases == []
        for table, column, target in (
            connection.execute(REFERENCES).fetchall()  # by name: also where no foreign key says so
        ):
            orphans = connection.execute(
                f"select count(*) from {table} where {column} is not null"
                f" and {column} not in (select id from {target})"  # type: ignore[arg-type]
            ).fetchone()
            assert orphans == (0,), f"{table}.{column}"


REFERENCES = """
select c.oid::regclass::text, a.attname,
    case a.attname when 'version_id' then 'public.file_versions' when 'file_id' then 'public.nodes'
        else 'public.chunks' end
from pg_class as c
inner join pg_namespace as n on n.oid = c.relnamespace and n.nspname in ('public', 'private')
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind in ('r', 'p') and not c.relispartition
    and a.attname in ('file_id', 'version_id', 'chunk_id')
    -- they remember what was
    and c.relname not in ('audit_logs', 'uploads', 'query_analytics', 'kept_hits', 'activity_log')
"""
