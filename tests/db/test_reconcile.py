"""Reconcile and the schedule: each kind of damage, made on purpose, is found, repaired and gone."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest

from tests.database import Database
from tests.db.conftest import Drive
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import contents, hits_of, is_found, quota_of, status_of
from tests.db.test_page_search import DAMAGES as DAMAGES_OF_PAGES


def age(db: Database) -> None:
    """As if all bytes had been there for two hours more."""
    with db.as_role("supabase_admin"):
        db.all("set local session_replication_role = replica")  # Storage renews updated_at
        db.all(
            "update storage.objects set created_at = created_at - interval '2 h',"
            " updated_at = updated_at - interval '2 h'"
        )
        db.all("update private.blobs set created_at = created_at - interval '2 h'")
        db.all("set local session_replication_role = origin")


def reconcile(db: Database, *, fix: bool = False) -> dict[str, int]:
    """What is found, or repaired, by kind; nothing for the kinds that are as they should be."""
    report = db.one("select private.reconcile(%s)", fix)
    findings = report["findings"]
    assert report["found"] == sum(finding["count"] for finding in findings.values())
    assert report["fixed"] == sum(finding["fixed"] for finding in findings.values())
    for finding in findings.values():
        assert len(finding["samples"]) == min(finding["count"], 10)
    part = "fixed" if fix else "count"
    return {kind: finding[part] for kind, finding in findings.items() if finding[part]}


def assert_sound(db: Database) -> None:
    for invariant in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert db.all(invariant) == []


class World:
    """A drive with everything in it: read files, versions, trash, an upload under way."""

    def __init__(self, drive: Drive) -> None:
        db = drive.db
        self.owner = db.create_user()
        self.folder = drive.rpc(self.owner, "create_folder", name="f")["id"]
        self.inner = drive.rpc(self.owner, "create_folder", name="g", parent=self.folder)["id"]
        self.file = drive.file(
            self.owner, "a.txt", "the walrus swims", "and dives", size=100, folder_id=self.inner
        )
        self.other = drive.file(self.owner, "b.txt", "a heron waits", size=50)
        self.later = drive.upload(self.owner, size=30, file_id=self.other["file_id"])
        drive.ingest("two herons wait")
        trashed = drive.file(self.owner, "c.txt", "gulls cry", size=7)
        drive.rpc(self.owner, "trash_nodes", ids=[trashed["file_id"]])
        purged = drive.file(self.owner, "e.txt", "an auk was here", size=11)
        self.purged = purged["file_id"]
        drive.rpc(self.owner, "purge_nodes", ids=[self.purged])
        self.open = drive.ticket(self.owner, "d.txt", 20)
        age(db)


@pytest.fixture
def world(drive: Drive) -> World:
    return World(drive)


# kind: ways to make it, with what only a few of them need
DAMAGES: list[tuple[str, int, LiteralString]] = [
    ("path_differences", 2, "update public.nodes set path = array[id] where id = %(inner)s"),
    (
        "path_differences",
        1,
        "update public.nodes set path = path[1:1] || gen_random_uuid() || id where id = %(file)s",
    ),
    (
        "expired_tickets",
        1,
        "update public.uploads set expires_at = now() - interval '1 s' where id = %(open)s",
    ),
    ("expired_tickets", 1, "delete from public.nodes where name = 'd.txt'"),
    ("expired_tickets", 1, "update public.user_profiles set is_active = false"),
    (
        "files_without_upload",
        1,
        "insert into public.nodes (id, kind, name, owner_id, path, status)"
        " values (%(new)s, 'file', 'x.txt', %(owner)s, array[%(new)s]::uuid[], 'uploading')",
    ),
    ("versions_without_object", 1, "delete from storage.objects where name = %(key)s"),
    (
        "versions_without_object",
        4,
        "delete from storage.objects where name not like '%%/' || %(purged)s || '/%%'",
    ),
    ("purge_leftovers", 1, "delete from private.purge_queue"),
    ("purge_leftovers", 1, "insert into private.purge_queue (node_id) values (%(file)s)"),
    ("release_differences", 4, "update private.blobs set released_at = now()"),
    ("release_differences", 1, "update private.blobs set released_at = null"),
    (
        "blobs_without_version",
        1,
        "insert into private.blobs (owner_id, key, size) values (%(owner)s, 'p/q/r', 9)",
    ),
    (
        "blobs_without_version",
        1,
        "insert into private.blobs (owner_id, key, size, released_at)"
        " values (%(owner)s, 's/t/u', 9, now())",
    ),
    (
        "objects_without_version",
        1,
        "insert into storage.objects (bucket_id, name, created_at, updated_at) values"
        " ('files', 'x/y/z', now() - interval '2 h', now() - interval '2 h')",
    ),
    (
        "ledger_differences",
        1,
        "update public.owners set storage_used = storage_used + 5 where id = %(owner)s",
    ),
    (
        "ledger_differences",
        1,
        "update public.owners set storage_reserved = 0 where id = %(owner)s",
    ),
    (
        "ledger_differences",
        1,
        "insert into private.quota_ledger (owner_id, used, reserved, reason)"
        " values (%(owner)s, 3, -4, 'store')",
    ),
    ("ledger_differences", 1, "update private.blobs set size = size + 1 where key = %(key)s"),
    (
        "profile_differences",
        1,
        "update public.user_profiles set storage_used = storage_used - 1, storage_limit = 5",
    ),
    (
        "vectors_without_chunk",
        1,
        "insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
        " select space_id, owner_id, file_id, gen_random_uuid(), embedding"
        " from private.chunk_vectors limit 1",
    ),
    (
        "vectors_without_chunk",
        1,
        "insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
        " select t.space_id, t.owner_id, c.file_id, c.id, t.embedding from public.chunks as c"
        " inner join private.text_vectors as t on t.text_hash = c.text_hash"
        " where c.version_id = %(version)s",
    ),
    (
        "terms_without_chunk",
        1,
        "insert into private.chunk_terms (owner_id, lexeme, file_id, part, entries)"
        " select owner_id, lexeme, gen_random_uuid(), part, entries from private.chunk_terms"
        " where file_id <> %(file)s limit 1",
    ),
    (
        "terms_without_chunk",
        1,
        "update private.indexed_files set version_id = gen_random_uuid() where file_id = %(file)s",
    ),
    ("versions_not_served", 1, "delete from private.chunk_terms where file_id = %(file)s"),
    ("versions_not_served", 1, "delete from private.chunk_vectors where file_id = %(file)s"),
    (
        "versions_not_served",
        1,
        "delete from private.chunk_vectors where chunk_id ="
        " (select id from public.chunks where file_id = %(file)s limit 1)",
    ),
    ("block_differences", 1, "delete from private.vector_blocks where file_id = %(file)s"),
    (
        "block_differences",
        1,
        "update private.vector_blocks"
        " set chunk_ids = chunk_ids[2:], embeddings = embeddings[2:], marks = marks[2:]"
        " where file_id = %(file)s",
    ),
    ("statistics_differences", 1, "update private.indexed_files set total_length = 7"),
    ("versions_not_served", 1, "delete from private.indexed_files where file_id = %(file)s"),
    ("statistics_differences", 1, "delete from private.owner_statistics"),
    ("statistics_differences", 1, "update private.owner_statistics set total_length = 1"),
    (
        "statistics_differences",
        1,
        "delete from private.chunk_terms where file_id = %(file)s and lexeme ="
        " (select min(lexeme) from private.chunk_terms where file_id = %(file)s)",
    ),
    (
        "texts_without_chunk",
        1,
        "insert into private.text_vectors (owner_id, space_id, text_hash, embedding)"
        " select owner_id, space_id, sha256('x'), embedding from private.text_vectors limit 1",
    ),
]


def damage(drive: Drive, world: World, statement: LiteralString) -> None:
    """Do what nothing of ours would: past the triggers that keep the books."""
    db = drive.db
    with db.as_role("supabase_admin"):
        db.all("select set_config('storage.allow_delete_query', 'true', true)")
        replica = "quota_ledger" not in statement and "chunk_terms (" not in statement
        if replica and not statement.startswith(
            ("delete from public.nodes", "delete from private.chunk")
        ):
            db.all("set local session_replication_role = replica")
        db.connection.execute(
            statement,
            {
                "owner": world.owner,
                "inner": world.inner,
                "file": world.file["file_id"],
                "key": world.file["key"],
                "version": world.other["version_id"],
                "open": world.open["upload_id"],
                "new": uuid.uuid4(),
                "purged": world.purged,
            },
        )
        db.all("set local session_replication_role = origin")


def test_a_sound_drive_has_nothing_to_repair(db: Database, world: World) -> None:
    assert_sound(db)
    before = contents(db)
    assert reconcile(db) == {}
    assert reconcile(db, fix=True) == {}
    assert contents(db) == before


@pytest.mark.parametrize(("kind", "count", "statement"), DAMAGES)
def test_each_damage_is_found_and_repaired_once(
    db: Database, drive: Drive, world: World, kind: str, count: int, statement: LiteralString
) -> None:
    damage(drive, world, statement)
    assert reconcile(db).get(kind) == count, reconcile(db)
    before = contents(db)
    reconcile(db)
    assert contents(db) == before  # looking changes nothing
    assert reconcile(db, fix=True)[kind] == count
    assert reconcile(db) == {}
    assert reconcile(db, fix=True) == {}
    assert_sound(db)


def test_every_kind_is_tried(db: Database) -> None:
    tried = {kind for kind, _, _ in DAMAGES} | {kind for kind, _ in DAMAGES_OF_PAGES}
    assert set(db.one("select private.reconcile_kinds()")) == tried


def test_all_damages_at_once_are_repaired_in_one_run(
    db: Database, drive: Drive, world: World
) -> None:
    for kind, _, statement in DAMAGES:
        if "delete from storage.objects where name not" not in statement:
            damage(drive, world, statement)
        assert kind in reconcile(db), statement
    found = reconcile(db)
    assert set(found) == {kind for kind, _, _ in DAMAGES}
    reconcile(db, fix=True)
    assert reconcile(db) == {}
    assert_sound(db)


def test_a_version_that_lost_its_bytes_costs_nothing_and_says_so(
    db: Database, drive: Drive, world: World
) -> None:
    used = quota_of(db, world.owner)[0]
    damage(drive, world, "delete from storage.objects where name = %(key)s")
    reconcile(db, fix=True)
    details = drive.rpc(world.owner, "file_details", file_id=world.file["file_id"])
    assert details["status"] == "failed"
    assert details["problem"]["error_code"] == "missing_object"
    assert quota_of(db, world.owner)[0] == used - 100
    assert db.one("select count(*) from private.quota_ledger where reason = 'reconcile'") == 0


def test_an_earlier_version_that_lost_its_bytes_leaves_the_file_in_service(
    db: Database, drive: Drive, world: World
) -> None:
    world.file["key"] = world.other["key"]
    damage(drive, world, "delete from storage.objects where name = %(key)s")
    reconcile(db, fix=True)
    assert status_of(drive, world.owner, world.other) == "ready"
    assert is_found(drive, world.owner, "herons")


def test_what_was_put_back_is_found_again(db: Database, drive: Drive, world: World) -> None:
    damage(drive, world, "delete from private.chunk_vectors where file_id = %(file)s")
    damage(drive, world, "delete from private.chunk_terms where file_id = %(file)s")
    assert not is_found(drive, world.owner, "walrus")
    reconcile(db, fix=True)
    assert is_found(drive, world.owner, "walrus")
    hits = hits_of(drive, world.owner, "the walrus swims")
    assert hits[0]["name"] == "a.txt"
    assert hits[0]["parts"]["vector_rank"] == 1


def test_vectors_that_are_lost_for_good_are_computed_again(
    db: Database, drive: Drive, world: World
) -> None:
    damage(drive, world, "delete from private.chunk_vectors where file_id = %(file)s")
    db.all("delete from private.text_vectors")
    reconcile(db, fix=True)
    drive.ingest("not asked for")
    assert_sound(db)
    assert hits_of(drive, world.owner, "the walrus swims")[0]["parts"]["vector_rank"] == 1


def test_damaged_statistics_stop_no_file_from_being_read(
    db: Database, drive: Drive, world: World
) -> None:
    db.all("update private.owner_statistics set chunk_count = -1, total_length = -3")
    file = drive.file(world.owner, "f.txt", "a puffin digs")
    assert status_of(drive, world.owner, file) == "ready"
    assert is_found(drive, world.owner, "puffin")
    reconcile(db, fix=True)
    assert reconcile(db) == {}
    assert_sound(db)


def test_young_objects_and_blobs_are_left_alone(db: Database, drive: Drive, world: World) -> None:
    stray: LiteralString = "insert into storage.objects (bucket_id, name) values ('files', 'x/y/z')"
    damage(drive, world, stray)
    new = drive.upload(world.owner, "new.txt")
    with db.as_role("supabase_admin"):
        db.all("select set_config('storage.allow_delete_query', 'true', true)")
        db.all("delete from storage.objects where name = %s", new["key"])
    assert reconcile(db, fix=True) == {}
    age(db)
    assert reconcile(db) == {"versions_without_object": 1, "objects_without_version": 1}


def test_what_is_not_ours_is_left_alone(db: Database, world: World) -> None:
    db.all("insert into storage.buckets (id, name) values ('other', 'other')")
    db.all(
        "insert into storage.objects (bucket_id, name, created_at, updated_at)"
        " values ('other', 'x', now() - interval '1 day', now() - interval '1 day')"
    )
    assert reconcile(db) == {}


def test_a_stray_object_is_removed_by_a_worker_not_by_sql(
    db: Database, drive: Drive, world: World
) -> None:
    damage(drive, world, "insert into storage.objects (bucket_id, name) values ('files', 'a/b')")
    age(db)
    assert reconcile(db, fix=True) == {"objects_without_version": 1}
    with db.as_role("narwhal_worker"):
        (claimed,) = db.all("select private.claim_object_deletions(10)")
    assert (claimed["bucket"], claimed["key"]) == ("files", "a/b")
    assert db.one("select count(*) from storage.objects where name = 'a/b'") == 1


def test_clients_cannot_reconcile(db: Database, world: World) -> None:
    statements: list[LiteralString] = [
        "select private.reconcile(true)",
        "select private.reconcile_kind('ledger_differences', true)",
        "select private.sweep()",
        "select * from private.tasks",
    ]
    for statement in statements:
        for user in (world.owner, None):
            with pytest.raises(psycopg.Error) as error, db.as_user(user):
                db.all(statement)
            assert error.value.sqlstate == "42501", statement


def test_it_runs_beside_people_and_workers(connect: Callable[[], Drive]) -> None:
    """Nobody waits for it, nobody is hurt by it, and it finds nothing where nothing is wrong."""
    setup = connect()
    owners = [setup.db.create_user() for _ in range(2)]
    setup.db.all("update private.settings set value = '0' where key = 'reconcile.grace_s'")
    stop, errors, found = threading.Event(), list[str](), list[dict[str, int]]()

    def live(number: int, drive: Drive) -> None:
        chance, files = random.Random(number), list[Any]()
        owner = owners[number % 2]
        while not stop.is_set():
            try:
                match chance.randrange(5):
                    case 0:
                        name = f"{number}-{chance.randrange(20)}.txt"
                        files.append(drive.upload(owner, name, on_conflict="version"))
                    case 1:
                        for job in drive.claim(2):
                            drive.run_stage(job, [f"words {chance.randrange(30)}", "more of them"])
                    case 2 if files:
                        drive.rpc(owner, "trash_nodes", ids=[chance.choice(files)["file_id"]])
                    case 3 if files:
                        gone = files.pop(chance.randrange(len(files)))
                        drive.rpc(owner, "purge_nodes", ids=[gone["file_id"]])
                    case 4:
                        drive.ticket(owner, f"{number}-{chance.random()}.txt")
            except psycopg.Error as error:
                # purged by another, or a job lost to a purge
                if not str(error.sqlstate).startswith("PT"):
                    errors.append(str(error))

    def repair(drive: Drive) -> None:
        while not stop.is_set():
            for kind in drive.db.one("select private.reconcile_kinds()"):
                try:
                    finding = drive.db.one("select private.reconcile_kind(%s, true)", kind)
                except psycopg.Error as error:
                    errors.append(f"{kind}: {error}")
                else:
                    if finding["count"]:
                        found.append({kind: finding["samples"]})

    people = [threading.Thread(target=live, args=(n, connect())) for n in range(4)]
    menders = [threading.Thread(target=repair, args=(connect(),)) for _ in range(2)]
    for thread in [*people, *menders]:
        thread.start()
    stop.wait(6)
    stop.set()
    for thread in [*people, *menders]:
        thread.join()
    assert errors == []
    assert found == []
    drive = connect()
    drive.ingest("the rest")
    assert reconcile(drive.db) == {}
    assert_sound(drive.db)
    assert drive.db.one("select count(*) from public.nodes") > 10  # control


# The schedule ------------------------------------------------------------------------------------


def sweep(db: Database) -> dict[str, Any]:
    """Sweep until nothing is due; what each task answered."""
    done: dict[str, Any] = {}
    with db.as_role("narwhal_worker"):
        while answer := db.one("select private.sweep()"):
            assert answer["error"] is None, answer
            if answer["task"] in done:  # one that does a part at a time
                answer["result"] += done[answer["task"]]
            done[answer["task"]] = answer["result"]
    return done


def test_a_sweep_does_what_is_due_and_nothing_twice(db: Database, drive: Drive) -> None:
    owner = db.create_user()
    drive.ticket(owner, "a.txt", 100)
    db.all("update public.uploads set expires_at = now() - interval '1 s'")
    done = sweep(db)
    assert done["expire_uploads"] == 1
    assert done["record_usage"] == 1
    assert {task for task, result in done.items() if result is None} == set()
    assert quota_of(db, owner)[1] == 0
    assert not [task for task in done if task.startswith("reconcile")]  # not before night
    assert sweep(db) == {}
    db.all(
        "update private.tasks set due_at = now() - interval '90 s' where name = 'expire_uploads'"
    )
    assert sweep(db) == {"expire_uploads": 0}
    # a period later than it was due, not than it ran
    assert db.one(
        "select due_at - now() from private.tasks where name = 'expire_uploads'"
    ).total_seconds() == pytest.approx(30)


def test_every_night_everything_is_reconciled(db: Database, drive: Drive, world: World) -> None:
    nights = db.all("select due_at from private.tasks where name like 'reconcile %'")
    assert len(nights) == len(db.one("select private.reconcile_kinds()"))
    assert {night.astimezone(tz=None).utcoffset() is not None for night in nights} == {True}
    db.all("update public.owners set storage_used = 1")
    db.all("update private.tasks set due_at = now()")
    done = sweep(db)
    assert done["reconcile ledger_differences"]["fixed"] == 1
    assert_sound(db)
    assert sweep(db) == {}
    assert db.all("select distinct last_error from private.tasks") == [None]
    # each did something, if only to find nothing to do
    assert db.all("select name from private.tasks where last_result is null") == []


def test_a_task_that_fails_does_not_stop_the_others(db: Database, drive: Drive) -> None:
    db.create_user()
    db.all("alter table public.usage_daily add constraint full_disk check (false) not valid")
    answers = []
    with db.as_role("narwhal_worker"):
        while answer := db.one("select private.sweep()"):
            answers.append(answer)
    failed = [answer["task"] for answer in answers if answer["error"]]
    assert failed == ["record_usage"]
    assert len(answers) > 2
    assert "full_disk" in db.one("select last_error from private.tasks where name = 'record_usage'")


def test_two_sweeps_never_run_at_once(connect: Callable[[], Drive]) -> None:
    first, second = connect(), connect()
    first.db.all("begin")
    assert first.db.one("select private.sweep()") is not None
    assert second.db.one("select private.sweep()") is None
    first.db.all("commit")
    assert second.db.one("select private.sweep()") is not None


STUB: list[LiteralString] = [
    "create schema cron",
    "create table cron.job (jobid bigserial primary key, schedule text not null,"
    " command text not null, jobname text unique)",
    "create table cron.job_run_details (jobid bigint, runid bigserial primary key,"
    " end_time timestamptz)",
    # as pg_cron 1.6 does: a job of the same name is changed
    "create function cron.schedule(job_name text, schedule text, command text) returns bigint"
    " language sql as $$ insert into cron.job (schedule, command, jobname)"
    " values (schedule, command, job_name) on conflict (jobname) do update"
    " set schedule = excluded.schedule, command = excluded.command returning jobid $$",
]


def test_where_pg_cron_is_its_jobs_sweep_and_its_own_log_is_pruned(
    db: Database, drive: Drive
) -> None:
    assert db.one("select private.schedule_maintenance()") is False
    for statement in STUB:
        db.all(statement)
    assert db.one("select private.schedule_maintenance()") is True
    assert db.one("select private.schedule_maintenance()") is True
    jobs = dict(db.all("select jobname, command from cron.job"))
    assert set(jobs) == {"narwhal_sweep", "narwhal_prune"}
    db.all(
        "insert into cron.job_run_details (end_time)"
        " values (now()), (now() - interval '2 days'), (null)"
    )
    db.create_user()
    for command in jobs.values():
        db.connection.execute(command)
    assert db.one("select count(*) from cron.job_run_details") == 2
    assert db.one("select count(*) from private.tasks where last_run_at is not null") == 1
    assert json.dumps(sweep(db))


def test_a_picture_that_lost_its_bytes_goes(db: Database, drive: Drive, world: World) -> None:
    used = quota_of(db, world.owner)[0]
    db.one(
        "select private.add_rendition(%s, 'thumbnail', null, 'd/1', 5, 8, 8)",
        world.file["version_id"],
    )
    age(db)
    assert quota_of(db, world.owner)[0] == used + 5
    assert reconcile(db) == {"versions_without_object": 1}
    assert reconcile(db, fix=True) == {"versions_without_object": 1}
    assert reconcile(db) == {}
    assert quota_of(db, world.owner)[0] == used
    assert db.one("select count(*) from public.renditions") == 0
    assert status_of(drive, world.owner, world.file) == "ready"
