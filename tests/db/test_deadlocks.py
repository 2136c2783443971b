"""Everybody does everything to the same few files at once."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from tests.db.conftest import Drive
from tests.db.invariants import UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED
from tests.db.looks import (
    STAGES,
    beat,
)


def test_nobody_meets_a_deadlock(connect: Callable[[], Drive]) -> None:
    """People and workers do everything to the same few files for some seconds."""
    drive = connect()
    drive.db.all("update private.settings set value = '0.5' where key = 'jobs.lease_s'")
    drive.db.all("update private.settings set value = '0.01' where key = 'jobs.backoff_s'")
    drive.db.all("update private.settings set value = '3' where key = 'versions.keep_count'")
    drive.db.all("update private.settings set value = '0' where key = 'trash.keep_days'")
    owner, peer = drive.db.create_user(), drive.db.create_user()
    folder = drive.rpc(owner, "create_folder", name="f")["id"]
    drive.share(folder, peer, "manage")
    needed = {f"worker: {stage}" for stage in STAGES} | {f"person: {name}" for name in ACTIONS}
    seen = Counter[str]()
    start = time.monotonic()

    def going_on() -> bool:
        # on a busy machine some things take longer to happen
        return time.monotonic() < start + (5 if needed <= seen.keys() else 120)

    def play(party: tuple[str, uuid.UUID, Drive, int]) -> None:
        kind, user, mine, seed = party
        chance = random.Random(seed)
        while going_on():
            action = (_work if kind == "worker" else _meddle)(mine, user, folder, chance)
            try:
                name = action()
            except psycopg.Error as error:
                name = str(error.sqlstate)
                if name == "40P01":
                    name = f"{name} {error.diag.message_detail} {error.diag.context}"
            seen[f"{kind}: {name}"] += 1

    parties = [
        (kind, user, connect(), seed)
        for seed, (kind, user) in enumerate(
            [("worker", owner), ("worker", owner), *[("person", owner), ("person", peer)] * 2]
        )
    ]
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(play, parties))
    outcomes = dict(seen)
    assert {name for name in outcomes if name.split(": ", 1)[1] not in EXPECTED} == set(), outcomes
    assert needed <= outcomes.keys(), outcomes  # control: all of it happened
    for query in (UNBALANCED, UNEQUAL, UNNEEDED, UNSERVED):
        assert drive.db.all(query) == []


ACTIONS = {
    *("begin", "store", "trash", "purge", "cancel", "retry", "abort", "create", "operator"),
    *("restore", "restore version", "purge version", "empty"),
}
EXPECTED = {
    *STAGES,
    *ACTIONS,
    "expire",
    "beat",
    "clean",
    "age",
    "PT404",
    "PT409",
    "PT413",
    "PT422",
    "PT423",
    "42501",
}


def _meddle(drive: Drive, user: uuid.UUID, folder: str, chance: random.Random) -> Callable[[], str]:
    name = f"{chance.randrange(4)}.txt"
    files = drive.db.all("select id from public.nodes where parent_id = %s", folder)
    file = str(chance.choice(files or [uuid.uuid4()]))

    def begin() -> str:
        arguments: dict[str, Any] = {"folder_id": folder, "on_conflict": "version"}
        if chance.random() < 0.3:
            arguments = {"file_id": file}
        known = drive.db.all("select sha256 from private.blobs where sha256 is not null limit 3")
        if known and chance.random() < 0.3:
            arguments["sha256"] = chance.choice(known)
        drive.ticket(user, name, 10, **arguments)
        return "begin"

    def store() -> str:
        tickets = drive.db.all("select key, created_by from public.uploads where state = 'open'")
        if tickets:
            key, holder = chance.choice(tickets)
            drive.store(holder, key, 10)
        return "store"

    def abort() -> str:
        tickets = drive.db.all(
            "select id from public.uploads where state = 'open' and created_by = %s", user
        )
        if tickets:
            drive.rpc(user, "abort_upload", upload_id=chance.choice(tickets))
        return "abort"

    def create() -> str:
        drive.rpc(user, "create_folder", name=name, parent=folder)
        return "create"

    def trash() -> str:
        drive.rpc(user, "trash_nodes", ids=files if chance.random() < 0.2 else [file])
        return "trash"

    def purge() -> str:
        drive.rpc(user, "purge_nodes", ids=chance.sample(files, min(len(files), 2)))
        return "purge"

    def cancel() -> str:
        drive.rpc(user, "cancel_ingest", file_id=file)
        return "cancel"

    def retry() -> str:
        drive.rpc(user, "retry_ingest", file_id=file, from_stage=chance.choice([None, *STAGES]))
        return "retry"

    def operator() -> str:
        drive.db.all("select private.retry_jobs()")
        return "operator"

    def restore() -> str:
        trashed = drive.db.all("select id from public.nodes where trashed_at is not null")
        policy = chance.choice(["fail", "rename", "skip", "replace"])
        ids = chance.sample(trashed, min(len(trashed), chance.randrange(1, 4)))
        if drive.rpc(user, "restore_nodes", ids=ids, on_conflict=policy)["items"]:
            return "restore"
        return "create"

    def restore_version() -> str:
        drive.rpc(user, "restore_version", **version())
        return "restore version"

    def purge_version() -> str:
        drive.rpc(user, "purge_version", **version())
        return "purge version"

    def empty() -> str:
        drive.rpc(user, "empty_trash")
        return "empty"

    def version() -> dict[str, Any]:
        found = drive.db.all(
            "select v.file_id, v.id from public.file_versions as v"
            " join public.nodes as n on n.id = v.file_id where n.trashed_at is null"
            " order by v.no desc, random() limit 8"
        )
        file_id, version_id = chance.choice(found or [(uuid.uuid4(), uuid.uuid4())])
        return {"file_id": file_id, "version_id": version_id}

    usual = [begin, store]
    rare = [abort, create, trash, purge, cancel, retry, operator]
    rare += [restore, restore, restore_version, purge_version, empty]
    return chance.choice(usual if chance.random() < 0.8 else rare)


def _work(drive: Drive, user: uuid.UUID, folder: str, chance: random.Random) -> Callable[[], str]:
    def work() -> str:
        if chance.random() < 0.1:
            with drive.db.as_role("narwhal_worker"):
                drive.db.one("select private.expire_uploads()")
            return "expire"
        if chance.random() < 0.2:
            drive.clean_up(3)
            return "clean"
        if chance.random() < 0.05:
            drive.db.one("select private.expire_trash(3)")
            drive.db.one("select private.expire_versions(3)")
            return "age"
        for job in (jobs := drive.claim(3)):
            texts = [f"common words {chance.randrange(5)}", "of all " * chance.randrange(1, 40)]
            if chance.random() < 0.1:
                continue  # this worker is lost
            if chance.random() < 0.05:
                drive.work("fail_job", job, "magic_mismatch", "It is a program.", True)
                continue
            beat(drive, job, 0.5, 1, 2)
            drive.run_stage(job, texts)
        if not jobs:
            time.sleep(0.002)
        return jobs[-1]["stage"] if jobs else "beat"

    return work
