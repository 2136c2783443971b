"""Accounts are deleted while their owners, and those who share with them, are at work."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from itertools import cycle
from typing import Any

import psycopg

from tests.db.conftest import Drive
from tests.db.invariants import PATHS_ARE_WRONG, UNBALANCED

ROUNDS = 25


Steps = Generator[partial[Any], Any, None]  # what to do next; is sent what the last one answered


def play(steps: Steps, begin: threading.Barrier, gone: threading.Event, seen: list[str]) -> None:
    begin.wait()
    answer = None
    is_last = False
    while not is_last:
        is_last = gone.is_set()
        step = steps.send(answer)
        answer = None
        try:
            answer = step()
            seen.append("done")
        except psycopg.Error as error:
            seen.append(str(error.sqlstate))
            if error.sqlstate == "40P01":
                seen[-1] += f" {step.args} {error.diag.message_detail} {error.diag.context}"


def leaving(drive: Drive, leaver: uuid.UUID, targets: list[str]) -> Steps:
    call = partial(drive.rpc, leaver)
    for target in cycle(targets):
        name = str(uuid.uuid4())
        made = yield partial(call, "create_folder", name=name, parent=target)
        if made:
            yield partial(call, "rename_node", id=made["id"], name=f"{name}!")
        yield partial(drive.upload, leaver, name, 1, folder_id=target)
        yield partial(call, "set_favourite", node=target)
        yield partial(call, "add_comment", node=target, body="so")
        yield partial(call, "create_share_link", node=target, level="view")


def hosting(drive: Drive, owner: uuid.UUID, leaver: uuid.UUID, shared: str) -> Steps:
    call = partial(drive.rpc, owner)
    grantee = {"user_id": str(leaver)}
    while True:
        made = yield partial(call, "share_node", node=shared, grantee=grantee, level="edit")
        yield partial(call, "trash_nodes", ids=[shared])
        yield partial(call, "restore_nodes", ids=[shared])
        if made:
            yield partial(call, "unshare_node", share_id=made["id"])


def test_nobody_meets_a_deadlock(connect: Callable[[], Drive]) -> None:
    """Who is deleted acts in their own drive, in a shared folder and in their workspace."""
    host, admin = connect(), connect()
    hands = [connect() for _ in range(3)]
    owner = host.db.create_user()
    outcomes = Counter[str]()
    for _ in range(ROUNDS):
        leaver = host.db.create_user()
        shared, always = (
            host.rpc(owner, "create_folder", name=str(uuid.uuid4()))["id"] for _ in range(2)
        )
        host.share(shared, leaver, "edit")
        host.share(always, leaver, "manage")
        space = host.rpc(leaver, "create_workspace", name="team")["root_id"]
        own = host.rpc(leaver, "create_folder", name="own")["id"]
        targets = [own, shared, always, space]
        seen: list[str] = []
        begin, gone = threading.Barrier(len(hands) + 1), threading.Event()
        players = [
            threading.Thread(target=play, args=(steps, begin, gone, seen))
            for steps in (
                leaving(hands[0], leaver, targets),
                leaving(hands[1], leaver, targets[::-1]),
                hosting(hands[2], owner, leaver, shared),
            )
        ]
        for player in players:
            player.start()
        begin.wait()
        try:
            admin.db.all("select pg_sleep(0.02)")
            admin.db.all("delete from auth.users where id = %s", leaver)
            outcomes["deleted"] += 1
        except psycopg.Error as error:
            outcomes[f"admin: {error.sqlstate} {error.diag.message_detail}"] += 1
        gone.set()
        for player in players:
            player.join()
        outcomes.update(seen)
    assert outcomes["deleted"] == ROUNDS, outcomes
    assert outcomes["done"] > ROUNDS, outcomes
    expected = {"deleted", "done", "PT401", "PT403", "PT404", "PT409", "42501"}
    assert outcomes.keys() <= expected, outcomes
    assert host.db.all(UNBALANCED) + host.db.all(PATHS_ARE_WRONG) == []
