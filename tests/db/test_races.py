"""People and workers at the same moment on the same things: the books and the rule hold.

Races of the tree are in test_tree_races.py, of trash and versions in test_trash_races.py.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Any

import pytest

from tests.db.conftest import Drive
from tests.db.invariants import PATHS_ARE_WRONG, UNBALANCED, UNEQUAL, UNNEEDED
from tests.db.test_tree_races import at_once, outcome

LONG = pytest.param(600, marks=pytest.mark.long)


@pytest.fixture(params=[120, LONG], ids=["short", "long"])
def rounds(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def in_order(drive: Drive) -> None:
    """Hold the books, the paths and the statistics."""
    for query in (UNBALANCED, PATHS_ARE_WRONG, UNEQUAL, UNNEEDED):
        assert drive.db.all(query) == []


@contextmanager
def holding(drive: Drive, grant: str, operation: str = "") -> Iterator[None]:
    """Send a link's grant, as anon."""
    with drive.db.as_user(None):
        drive.db.all(
            "select set_config('request.headers', %s, true),"
            " set_config('storage.operation', %s, true)",
            json.dumps({"x-share-grant": grant}),
            operation,
        )
        yield


def test_uploads_at_the_edge_of_the_quota(connect: Callable[[], Drive], rounds: int) -> None:
    """Of four who ask, as many are told yes as fit; what is sent, given up and purged adds up."""
    drives = [connect() for _ in range(4)]
    first = drives[0]
    owner = first.db.create_user()
    for number in range(rounds):
        room = number % 4
        first.db.all(
            "update public.owners set storage_limit = storage_used + storage_reserved + %s"
            " where id = %s",
            room * 10 + 9,
            owner,
        )
        results = at_once(
            *(
                lambda i=i: drives[i].ticket(owner, f"{number}-{i}.txt", 10)  # type: ignore[misc]  # noqa: B023
                for i in range(4)
            )
        )
        assert Counter(results) == Counter(
            ["done"] * room + ["PT413 QUOTA_EXCEEDED"] * (4 - room)
        ), results
        open_ = first.db.all("select id::text, key from public.uploads where state = 'open'")
        stored = first.db.all(
            "select id::text from public.nodes where status = 'queued' and purged_at is null"
        )
        # one is sent, one is given up, what was there goes, and somebody asks for the room
        acts: list[Callable[[], object]] = [
            lambda: drives[3].ticket(owner, f"{number}-late.txt", 10),  # noqa: B023
            *(
                [lambda: drives[0].store(owner, open_[0][1], 10)]  # noqa: B023
                if open_
                else []
            ),
            *(
                [lambda: drives[1].rpc(owner, "abort_upload", upload_id=open_[1][0])]  # noqa: B023
                if len(open_) > 1
                else []
            ),
            *(
                [lambda: drives[2].rpc(owner, "purge_nodes", ids=stored[:1])]  # noqa: B023
                if stored
                else []
            ),
        ]
        results = at_once(*acts)
        assert set(results) <= {"done", "PT413 QUOTA_EXCEEDED"}, results
        assert first.db.all(UNBALANCED) == []
        if number % 5 == 4:
            first.db.all("update public.uploads set expires_at = now() where state = 'open'")
            with first.db.as_role("narwhal_worker"):
                first.db.one("select private.expire_uploads()")
    first.clean_up()
    in_order(first)


def test_share_against_unshare(connect: Callable[[], Drive], rounds: int) -> None:
    """Whoever was unshared keeps no open ticket and no link, whatever they began meanwhile."""
    drives = [connect() for _ in range(4)]
    first = drives[0]
    owner, peer = first.db.create_user(), first.db.create_user()
    folder = first.rpc(owner, "create_folder", name="f")["id"]
    grantee = {"user_id": str(peer)}
    seen = Counter[str]()
    for number in range(rounds):
        level = "manage" if number % 2 else "edit"
        share = first.rpc(owner, "share_node", node=folder, grantee=grantee, level=level)["id"]
        results = at_once(
            lambda: drives[0].rpc(owner, "unshare_node", share_id=share),  # noqa: B023
            lambda: drives[1].rpc(owner, "share_node", node=folder, grantee=grantee, level="view"),
            lambda: drives[2].ticket(peer, f"{number}.txt", 10, folder_id=folder),  # noqa: B023
            lambda: drives[3].rpc(peer, "create_share_link", node=folder),
        )
        seen.update(f"{i}: {result}" for i, result in enumerate(results))
        # both may have had their way: the second changed the share, or made it anew
        assert set(results[:2]) <= {"done"}, results
        assert set(results[2:]) <= {"done", "PT403 FORBIDDEN", "PT404 NOT_FOUND"}, results
        left = first.db.all("select level from public.shares where node_id = %s", folder)
        assert left in ([], ["view"])
        assert (
            first.db.one("select count(*) from public.uploads where state in ('open', 'uploading')")
            == 0
        )
        living = "select count(*) from public.share_links where revoking_at is null"
        assert first.db.one(living) == 0
        visible = "select count(*) from public.nodes"
        with first.db.as_user(peer):
            assert (first.db.one(visible) > 0) == bool(left)
        first.db.all("delete from public.shares where node_id = %s", folder)
        assert first.db.all(UNBALANCED) == []
    in_order(first)
    assert {"2: done", "2: PT404 NOT_FOUND"} & seen.keys(), seen


def test_a_link_at_its_last_download(connect: Callable[[], Drive], rounds: int) -> None:
    drives = [connect() for _ in range(4)]
    first = drives[0]
    owner = first.db.create_user()
    file = first.upload(owner, "a.txt")

    def download(drive: Drive, grant: str) -> int:
        with holding(drive, grant, "storage.object.get_authenticated"):
            return int(
                drive.db.one("select count(*) from storage.objects where name = %s", file["key"])
            )

    for number in range(rounds):
        most = 1 + number % 3
        link = first.rpc(owner, "create_share_link", node=file["file_id"], max_downloads=most)
        opened = first.rpc(None, "open_share_link", token=link["token"])
        with ThreadPoolExecutor(len(drives)) as pool:
            found = list(pool.map(lambda drive: download(drive, opened["grant"]), drives))  # noqa: B023
        assert sum(found) == most, found
        assert (
            first.db.one("select downloads from public.share_links where id = %s", link["id"])
            == most
        )
    assert first.db.all(UNBALANCED) == []


def test_a_removed_member_reads_nothing_any_more(connect: Callable[[], Drive], rounds: int) -> None:
    """Readers never fail while they lose access, and see nothing from the commit on."""
    drives = [connect() for _ in range(3)]
    first = drives[0]
    owner, peer = first.db.create_user(), first.db.create_user()
    folder = first.rpc(owner, "create_folder", name="f")["id"]
    first.file(owner, "a.txt", "alpha bravo", folder_id=folder)
    group = first.rpc(owner, "create_group", name="g")["id"]
    first.rpc(owner, "share_node", node=folder, grantee={"group_id": group})

    def looks(drive: Drive) -> set[int]:
        with drive.db.as_user(peer):
            return {
                drive.db.one("select count(*) from public.nodes"),
                drive.db.one("select count(*) from public.chunks"),
                drive.db.one("select count(*) from storage.objects"),
                drive.db.one("select jsonb_array_length(public.hybrid_search('alpha') -> 'hits')"),
            }

    for _ in range(rounds // 2):
        member = first.rpc(
            owner, "add_group_member", group_id=group, member={"user_id": str(peer)}
        )["id"]
        assert 0 not in looks(first)
        is_gone, reading = Event(), Event()

        def read(drive: Drive) -> int:
            count = 0
            while True:
                was_gone = is_gone.is_set()  # noqa: B023
                seen = looks(drive)
                reading.set()  # noqa: B023
                if was_gone:
                    assert seen == {0}
                    return count
                count += 1

        with ThreadPoolExecutor(2) as pool:
            readers = [pool.submit(read, drive) for drive in drives[1:]]
            reading.wait(10)
            first.rpc(owner, "remove_group_member", id=member)
            is_gone.set()
            assert all(reader.result(30) > 0 for reader in readers)


def test_everybody_does_everything_at_once(connect: Callable[[], Drive], rounds: int) -> None:
    """Two owners, a group, holders of links and workers, on the same few nodes."""
    first = connect()
    first.db.all("update private.settings set value = '0.5' where key = 'jobs.lease_s'")
    users = [first.db.create_user() for _ in range(3)]
    first.db.all("update public.owners set storage_limit = 2000 where kind = 'user'")
    roots = [first.rpc(user, "create_folder", name="root")["id"] for user in users[:2]]
    group = first.rpc(users[0], "create_group", name="g")["id"]
    for user in users[1:]:
        first.rpc(users[0], "add_group_member", group_id=group, member={"user_id": str(user)})
    first.rpc(users[0], "share_node", node=roots[0], grantee={"group_id": group}, level="manage")
    first.rpc(
        users[1], "share_node", node=roots[1], grantee={"user_id": str(users[0])}, level="edit"
    )
    seen = Counter[str]()

    def play(party: tuple[uuid.UUID | None, Drive, int]) -> None:
        user, mine, seed = party
        chance = random.Random(seed)
        for _ in range(rounds):
            name, act = _worked(mine, chance) if user is None else _done(mine, user, roots, chance)
            result = outcome(act)
            seen[result] += 1
            if result == "done":
                seen[name] += 1

    parties: list[tuple[uuid.UUID | None, Drive, int]] = [
        (user, connect(), seed) for seed, user in enumerate([*users, *users, None, None])
    ]
    with ThreadPoolExecutor(len(parties)) as pool:
        list(pool.map(play, parties))
    assert {name for name in seen if name not in EXPECTED} == set(), seen
    while first.claim():  # what was begun by a worker that went away
        pass
    first.clean_up()
    in_order(first)
    assert {"upload", "share", "link", "trash", "purge", "restore", "move", "copy"} <= seen.keys()


EXPECTED = {
    *("done", "upload", "version", "share", "unshare", "link", "revoke", "trash", "purge"),
    *(
        "restore",
        "move",
        "copy",
        "comment",
        "tag",
        "ingest",
        "sweep",
        "rename",
        "download",
        "folder",
    ),
    *("PT404 NOT_FOUND", "PT403 FORBIDDEN", "PT409 CONFLICT_NAME", "PT409 CONFLICT_STATE"),
    *("PT409 CYCLE", "PT423 LOCKED", "PT413 QUOTA_EXCEEDED", "PT422 INVALID_ARGUMENT", "42501"),
}


def _worked(drive: Drive, chance: random.Random) -> tuple[str, Callable[[], Any]]:
    def ingest() -> None:
        for job in drive.claim(2):
            drive.run_stage(job, [f"common words {chance.randrange(5)}"])

    def sweep() -> None:
        with drive.db.as_role("narwhal_worker"):
            drive.db.one("select private.purge_batch(20)")  # each batch in its own transaction

    return ("ingest", ingest) if chance.random() < 0.7 else ("sweep", sweep)


def _done(
    drive: Drive, user: uuid.UUID, roots: list[str], chance: random.Random
) -> tuple[str, Callable[[], Any]]:
    living = drive.db.all(
        "select id::text, kind from public.nodes where trashed_at is null"
        " and cardinality(path) between 2 and 6 order by id limit 40"
    )
    trashed = drive.db.all(
        "select id::text from public.nodes where trash_root_id = id and purged_at is null limit 20"
    )
    files = [id_ for id_, kind in living if kind == "file"]
    folders = [*roots, *(id_ for id_, kind in living if kind == "folder")]
    node = chance.choice([id_ for id_, _ in living] or roots)
    folder = chance.choice(folders)
    policy = chance.choice(["fail", "rename", "version", "replace", "skip"])
    shares = drive.db.all(
        "select id::text from public.shares where node_id <> all(%s::uuid[])", roots
    )
    links = drive.db.all("select id::text from public.share_links where revoking_at is null")
    nobody = str(uuid.uuid4())

    def upload() -> None:
        ticket = drive.ticket(
            user, f"{chance.randrange(6)}.txt", 10, folder_id=folder, on_conflict="version"
        )
        drive.store(user, ticket["key"], 10)

    def version() -> None:
        ticket = drive.ticket(user, size=10, file_id=chance.choice(files or [nobody]))
        if chance.random() < 0.8:
            drive.store(user, ticket["key"], 10)

    def call(function: str, **arguments: object) -> Callable[[], Any]:
        return lambda: drive.rpc(user, function, **arguments)

    acts: dict[str, tuple[int, Callable[[], Any]]] = {
        "upload": (6, upload),
        "version": (3, version),
        "folder": (
            2,
            call("create_folder", name=chance.choice("abc"), parent=folder),
        ),
        "rename": (1, call("rename_node", id=node, name=chance.choice("abcdef"))),
        "move": (3, call("move_nodes", ids=[node], target=folder, on_conflict=policy)),
        "copy": (2, call("copy_nodes", ids=[node], target=folder, on_conflict="rename")),
        "trash": (2, call("trash_nodes", ids=[node])),
        "restore": (
            3,
            call(
                "restore_nodes", ids=[chance.choice(trashed or [nobody])], on_conflict="keep_both"
            ),
        ),
        "purge": (1, call("purge_nodes", ids=[chance.choice(trashed or [node])])),
        "share": (
            2,
            call(
                "share_node",
                node=node,
                grantee={"email": f"{chance.randrange(3)}@example.test"},
                level=chance.choice(["view", "edit"]),
            ),
        ),
        "unshare": (2, call("unshare_node", share_id=chance.choice(shares or [nobody]))),
        "link": (1, call("create_share_link", node=node)),
        "revoke": (
            1,
            call(
                "revoke_share_link",
                id=chance.choice(links or [nobody]),
                hard=chance.random() < 0.5,
            ),
        ),
        "comment": (1, call("add_comment", node=node, body="a comment")),
        "tag": (1, call("tag_nodes", ids=[node], add=[chance.choice("xyz")])),
        "download": (1, call("begin_download", file_id=chance.choice(files or [nobody]))),
    }
    name = chance.choices(list(acts), [weight for weight, _ in acts.values()])[0]
    return name, acts[name][1]
