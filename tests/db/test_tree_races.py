"""Moves, copies, names and trash at the same time: no loop, no deadlock, no name twice."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.db.conftest import Drive
from tests.db.invariants import PATHS_ARE_WRONG, UNBALANCED, UNEQUAL, UNNEEDED
from tests.db.test_move import folder, move

ROUNDS = 150


def outcome(act: Callable[[], object]) -> str:
    """Return done, or the SQLSTATE and the code of the refusal."""
    try:
        act()
    except psycopg.Error as error:
        detail = error.diag.message_detail or ""
        if '"error": "' in detail:
            return f"{error.sqlstate} " + detail.split('"error": "')[1].split('"')[0]
        # Storage's refusals have no details; whatever else this is, it should not be
        return f"{error.sqlstate} {error.diag.context if detail else ''}".strip()
    return "done"


def at_once(*acts: Callable[[], object]) -> list[str]:
    """Start all of them together and return their outcomes."""
    barrier = threading.Barrier(len(acts))

    def start(act: Callable[[], object]) -> str:
        barrier.wait()
        return outcome(act)

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(start, acts))


def test_of_opposite_moves_one_succeeds(connect: Callable[[], Drive]) -> None:
    one, other = connect(), connect()
    owner = one.db.create_user()
    a, b = folder(one, owner, "a"), folder(one, owner, "b")
    inner = {a: folder(one, owner, "in a", a), b: folder(one, owner, "in b", b)}
    seen = Counter[tuple[str, ...]]()
    for _ in range(ROUNDS):
        results = at_once(
            lambda: move(one, owner, a, inner[b]), lambda: move(other, owner, b, inner[a])
        )
        seen[tuple(sorted(results))] += 1
        assert one.db.all(PATHS_ARE_WRONG) == []
        one.rpc(owner, "move_nodes", ids=[a], target=None)
        one.rpc(owner, "move_nodes", ids=[b], target=None)
    assert seen == {("PT409 CYCLE", "done"): ROUNDS}


def test_a_circle_of_three_moves_stays_open(connect: Callable[[], Drive]) -> None:
    drives = [connect() for _ in range(3)]
    first = drives[0]
    owner = first.db.create_user()
    ids = [folder(first, owner, name) for name in "abc"]
    for _ in range(ROUNDS // 3):
        results = at_once(
            *(
                lambda i=i: move(drives[i], owner, ids[i], ids[(i + 1) % 3])  # type: ignore[misc]
                for i in range(3)
            )
        )
        assert sorted(results) == ["PT409 CYCLE", "done", "done"]
        assert first.db.all(PATHS_ARE_WRONG) == []
        for node in ids:
            move(first, owner, node, None)


@pytest.mark.parametrize("what", ["create", "begin", "rename", "trash", "copy"])
def test_what_happens_inside_while_a_folder_moves(connect: Callable[[], Drive], what: str) -> None:
    one, other = connect(), connect()
    owner = one.db.create_user()
    one.db.all("update public.owners set storage_limit = 10^9")
    top, target = folder(one, owner, "top"), folder(one, owner, "target")
    inside = folder(one, owner, "inside", top)
    for i in range(20):
        folder(one, owner, f"sibling {i}", top)
    acts: dict[str, Callable[[int], object]] = {
        "create": lambda i: folder(other, owner, f"new {i}", inside),
        "begin": lambda i: other.ticket(owner, f"new {i}.txt", folder_id=inside),
        "rename": lambda i: other.rpc(owner, "rename_node", id=inside, name=f"renamed {i}"),
        "trash": lambda i: other.rpc(owner, "trash_nodes", ids=[folder(other, owner, "x", inside)]),
        "copy": lambda i: (
            other.rpc(owner, "copy_nodes", ids=[inside], target=top, on_conflict="rename")
            if i < 20
            else None
        ),
    }
    seen = Counter[tuple[str, ...]]()
    for i in range(ROUNDS // 3):
        place = target if i % 2 == 0 else None
        seen[
            tuple(at_once(lambda: move(one, owner, top, place), lambda: acts[what](i)))  # noqa: B023
        ] += 1
        assert one.db.all(PATHS_ARE_WRONG) == []
    # whoever comes second to what is new may be asked to try again; nothing else goes wrong
    assert seen.keys() <= {("done", "done"), ("PT423 LOCKED", "done"), ("done", "PT423 LOCKED")}
    assert seen["done", "done"] > ROUNDS // 6, seen
    assert one.db.all(UNBALANCED) == []


def test_one_name_is_given_out_once(connect: Callable[[], Drive]) -> None:
    drives = [connect() for _ in range(4)]
    first = drives[0]
    owner = first.db.create_user()
    target = folder(first, owner, "target")
    for i in range(ROUNDS // 3):
        sources = [folder(first, owner, f"source {n}") for n in range(2)]
        moved = folder(first, owner, "a", sources[0])
        renamed = folder(first, owner, "b", target)
        copied = folder(first, owner, "A", sources[1])
        results = at_once(
            lambda: move(drives[0], owner, moved, target),  # noqa: B023
            lambda: drives[1].rpc(owner, "rename_node", id=renamed, name="a"),  # noqa: B023
            lambda: drives[2].rpc(owner, "copy_nodes", ids=[copied], target=target),  # noqa: B023
            lambda: folder(drives[3], owner, "a", target),
        )
        assert sorted(results) == [*["PT409 CONFLICT_NAME"] * 3, "done"], i
        first.rpc(owner, "trash_nodes", ids=[*sources, *first.db.all(CHILDREN, target)])


CHILDREN = "select id::text from public.nodes where parent_id = %s and trashed_at is null"


def test_nobody_meets_a_deadlock_in_a_tree(connect: Callable[[], Drive]) -> None:
    """Two owners, each with the other's leave, do everything to the same few nodes."""
    drive = connect()
    users = [drive.db.create_user() for _ in range(2)]
    drive.db.all("update public.owners set storage_limit = 10^9")
    roots = [folder(drive, user, "root") for user in users]
    for root, user in zip(roots, reversed(users), strict=True):
        drive.share(root, user, "manage")
        for name in "abc":
            folder(drive, users[roots.index(root)], name, root)
    drive.file(users[0], "file.txt", "some words", "more words", folder_id=roots[0])
    seen = Counter[str]()

    def play(party: tuple[uuid.UUID, Drive, int]) -> None:
        user, mine, seed = party
        chance = random.Random(seed)
        for _ in range(80):
            name, act = _act(mine, user, roots, chance)
            result = outcome(act)
            seen[result] += 1
            if result == "done":
                seen[name] += 1

    parties = [(users[seed % 2], connect(), seed) for seed in range(6)]
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(play, parties))
    assert {name for name in seen if name not in EXPECTED} == set(), seen
    assert {"move", "copy", "create", "rename", "trash", "begin", "restore"} <= seen.keys(), seen
    for query in (PATHS_ARE_WRONG, UNBALANCED, UNEQUAL, UNNEEDED):
        assert drive.db.all(query) == [], query


EXPECTED = {
    *("done", "move", "copy", "create", "rename", "trash", "begin", "store", "restore", "purge"),
    *("PT404 NOT_FOUND", "PT409 CYCLE", "PT409 CONFLICT_NAME", "PT409 CONFLICT_STATE"),
    *("PT422 INVALID_ARGUMENT", "PT423 LOCKED", "PT403 FORBIDDEN", "42501"),
}


def _act(
    drive: Drive, user: uuid.UUID, roots: list[str], chance: random.Random
) -> tuple[str, Callable[[], object]]:
    nodes = drive.db.all(
        "select id::text, kind from public.nodes"
        " where trashed_at is null and cardinality(path) between 2 and 6 order by id limit 60"
    )
    trashed = drive.db.all(
        "select id::text from public.nodes where trash_root_id = id and purged_at is null limit 20"
    )
    folders = [*roots, *(node for node, kind in nodes if kind == "folder")]
    node = chance.choice([node for node, _ in nodes] or roots)
    target = chance.choice(folders)
    policy = chance.choice(["fail", "rename", "version", "replace", "skip"])
    acts: dict[str, Callable[[], Any]] = {
        "move": lambda: move(drive, user, node, target, on_conflict=policy),
        "copy": lambda: drive.rpc(
            user, "copy_nodes", ids=[node], target=chance.choice(roots), on_conflict=policy
        ),
        "create": lambda: folder(drive, user, chance.choice("abcdef"), target),
        "rename": lambda: drive.rpc(user, "rename_node", id=node, name=chance.choice("abcdef")),
        "trash": lambda: drive.rpc(user, "trash_nodes", ids=[node]),
        "restore": lambda: drive.rpc(
            user,
            "restore_nodes",
            ids=[chance.choice(trashed)],
            on_conflict=chance.choice(["keep_both", "replace", "skip"]),
        ),
        "purge": lambda: drive.rpc(user, "purge_nodes", ids=[chance.choice(trashed)]),
        "begin": lambda: drive.ticket(
            user, f"{chance.choice('abc')}.txt", folder_id=target, on_conflict=policy
        ),
        "store": lambda: [
            drive.store(holder, key, 10)
            for key, holder in drive.db.all(
                "select key, created_by from public.uploads where state = 'open' limit 1"
            )
        ],
    }
    # much moving, little growing
    often = dict.fromkeys(acts, 3) | {"move": 12, "copy": 2, "purge": 1 if trashed else 0}
    name = chance.choices(list(acts), [often[name] for name in acts])[0]
    if name == "restore" and not trashed:
        name = "move"
    return name, acts[name]
