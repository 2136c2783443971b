"""The drive at size: what people do in one with NODES nodes, and again with a tenth of them.

Loads a thousandth as many users and a fiftieth as many shares, folders up to 19 deep and a chunk
or two a file into a database of its own, then times the RPCs as an ordinary user. What the policies
cost is taken from the same queries, in the same run, by the tables' owner with the readable roots
given.

Example: scripts/bench/run drive --nodes 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import LOGIN_ROLES, SUPERUSER, EmbeddedPostgres
from scripts.bench.report import machine, write

BUILD = Path(__file__).with_suffix(".sql").read_bytes()
LOADED = [
    "public.nodes",
    "private.blobs",
    "public.file_versions",
    "public.chunks",
    "private.chunk_terms",
    "private.indexed_files",
    "public.shares",
]
VECTOR = [1.0, 0.5, 0.2, 0.1, 0.3, -0.4, 0.7, -0.2]

Connection = psycopg.Connection[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1_000_000)
    options = parser.parse_args()
    small, large = (measured(nodes) for nodes in (options.nodes // 10, options.nodes))
    write(
        "drive",
        {
            "machine": machine(),
            "small": small,
            "large": large,
            "growth": {
                what: round(figure["p50_ms"] / small["times"][what]["p50_ms"], 2)
                for what, figure in large["times"].items()
            },
        },
    )


def measured(nodes: int) -> dict[str, Any]:
    """Build a drive of that size in a cluster of its own and measure it."""
    with tempfile.TemporaryDirectory(prefix="narwhal-bench-") as folder:
        passwords = dict.fromkeys(LOGIN_ROLES, "bench")
        server = EmbeddedPostgres(Path(folder) / "data", passwords, durable=False)
        server.init()
        server.start()
        try:
            bootstrap(server.url(SUPERUSER), passwords)
            migrate(server.url("postgres"))
            with psycopg.connect(server.url(SUPERUSER), autocommit=True) as connection:
                # the same questions are asked again and again: each is to be answered anew
                connection.execute(
                    "update private.settings set value = '0' where key = 'search.cache_ttl_s'"
                )
                return Bench(connection, nodes).run()
        finally:
            server.stop()


class Bench:
    """One drive: owner 1 has a tenth of it in one tree, 2 a wide folder, 3 is an ordinary user."""

    def __init__(self, connection: Connection, nodes: int) -> None:
        self.connection = connection
        self.nodes = nodes
        self.users = [uuid.uuid4() for _ in range(max(10, nodes // 1000))]
        self.deep, self.wide, self.modest = self.users[:3]
        self.times: dict[str, dict[str, float]] = {}

    def run(self) -> dict[str, Any]:
        """Build, then measure."""
        started = time.perf_counter()
        self._build()
        load_s = round(time.perf_counter() - started)
        self._people()
        self._trees()
        ratios = self._policies()
        count = "select count(*) from {}"
        return {
            "nodes": self._one(count.format("public.nodes")),
            "users": len(self.users),
            "shares": self._one(count.format("public.shares")),
            "chunks": self._one(count.format("public.chunks")),
            "deepest": self._one("select max(cardinality(path)) from public.nodes"),
            "load_s": load_s,
            "times": self.times,
            "policy / the tables' owner with the roots given": ratios,
        }

    # Building -------------------------------------------------------------------------------------

    def _build(self) -> None:
        run = self.connection.execute
        run(
            "select private.create_space('bench', 'bench', 'bench', 8, 'text', 'shadow', 256)",
        )
        run(
            "insert into auth.users"
            " (id, aud, role, email, email_confirmed_at, created_at, updated_at)"
            " select id, 'authenticated', 'authenticated', id || '@example.test', now(), now(),"
            " now()"
            " from unnest(%s::uuid[]) as u (id)",
            (self.users,),
        )
        run(
            "create temporary table bench_owners as"
            " select no::integer as no, id, ceil(nodes / 10.0)::integer as folders,"
            " (nodes - 1 - ceil(nodes / 10.0))::integer as files from ("
            "     select no, id, case no when 1 then %(nodes)s / 10 when 2 then 10002"
            "     when 3 then 1000 else (%(nodes)s - %(nodes)s / 10 - 11002)"
            "     / (cardinality(%(users)s) - 3) end as nodes"
            "     from unnest(%(users)s::uuid[]) with ordinality as u (id, no)"
            " ) as o",
            {"nodes": self.nodes, "users": self.users},
        )
        run("update bench_owners set folders = 1, files = 10000 where no = 2")
        run("select set_config('bench.nodes', %s, false)", (str(self.nodes),))
        run("set session_replication_role = 'replica'")
        run("set maintenance_work_mem = '1GB'")
        indexes = [
            index
            for table in LOADED
            for index in run(
                "select i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)"
                " from pg_index as i where i.indrelid = %s::regclass and not exists ("
                "     select from pg_constraint as c where c.conindid = i.indexrelid)",
                (table,),
            ).fetchall()
        ]
        for name, _ in indexes:
            run(f"drop index {name}")
        run(BUILD)
        for _, definition in indexes:
            run(definition)
        run("set session_replication_role = 'origin'")
        run("vacuum analyze")

    # Asking ---------------------------------------------------------------------------------------

    def _one(self, query: str, *arguments: object) -> Any:
        row = self.connection.execute(query, arguments or None).fetchone()  # type: ignore[arg-type]
        return row[0] if row else None

    def _id(self, kind: str, owner: int, no: int) -> uuid.UUID:
        found: uuid.UUID = self._one("select bench_id(%s, %s, %s)", kind, owner, no)
        return found

    @contextmanager
    def _as(self, user: uuid.UUID | None, role: str = "authenticated") -> Iterator[None]:
        claims = json.dumps({"sub": str(user), "role": role})
        self.connection.execute("select set_config('request.jwt.claims', %s, false)", (claims,))
        self.connection.execute(f"set role {role}")  # type: ignore[arg-type]
        try:
            yield
        finally:
            self.connection.execute("reset role")

    def _time(self, what: str, times: int, ask: Callable[[int], object]) -> None:
        self.times[what] = timed(times, ask)

    # What people do -------------------------------------------------------------------------------

    def _people(self) -> None:
        folder = self._id("d", 2, 1)
        with self._as(self.wide):
            listing = "select public.list_folder(%s, page_size => %s, cursor => %s)"
            cursor = None
            for _ in range(9):
                cursor = self._one(listing, folder, 1000, cursor)["next_cursor"]
            self._time(
                "list a folder of 10,000, first page of 100",
                50,
                lambda _: self._one(listing, folder, 100, None),
            )
            self._time(
                "list it from the 9,000th on",
                50,
                lambda _: self._one(listing, folder, 100, cursor),
            )
        files = [self._id("f", 1, 1 + 17 * no) for no in range(200)]
        with self._as(self.deep):
            self._time(
                "open details, 19 deep",
                100,
                lambda no: self._one("select public.file_details(%s)", files[no % len(files)]),
            )
        shared = [
            row[0]
            for row in self.connection.execute(
                "select f.id from public.shares as s"
                " join public.nodes as f on f.parent_id = s.node_id and f.kind = 'file'"
                " where s.grantee_id = %s limit 200",
                (self.modest,),
            ).fetchall()
        ]
        with self._as(self.modest):
            self._time(
                "open details of what is shared",
                100,
                lambda no: self._one("select public.file_details(%s)", shared[no % len(shared)]),
            )
            self._time(
                "shared_with_me, 100 shares",
                30,
                lambda _: self._one("select public.shared_with_me()"),
            )

    def _trees(self) -> None:
        """Work on a tenth of everything at once, each time in a transaction that commits."""
        root = self._id("d", 1, 0)
        with self._as(self.deep):
            target = self._one("select (public.create_folder('target')).id")
            self._time(
                "move a tree of a tenth of all nodes",
                6,
                lambda no: self._one(
                    "select public.move_nodes(%s, %s)", [root], None if no % 2 else target
                ),
            )
            trash, restore = [], []
            for _ in range(4):
                trash.append(clocked(lambda: self._one("select public.trash_nodes(%s)", [root])))
                restore.append(
                    clocked(lambda: self._one("select public.restore_nodes(%s)", [root]))
                )
        self.times["trash it"] = quantiles(trash)
        self.times["restore it"] = quantiles(restore)
        self.connection.execute("vacuum analyze public.nodes")

    # What the policies cost -----------------------------------------------------------------------

    def _policies(self) -> dict[str, Any]:
        with self._as(self.modest):
            owners = self._one("select private.my_owner_ids()")
            roots = self._one("select private.granted_roots()")
        given = {"owners": owners, "roots": roots}
        readable = "n.trashed_at is null and (n.owner_id = any(%(owners)s) or n.path && %(roots)s)"
        files = [
            row[0]
            for row in self.connection.execute(
                f"select n.id from public.nodes as n where n.kind = 'file' and {readable}"  # type: ignore[arg-type]
                " order by n.id",
                given,
            ).fetchall()
        ]
        found: dict[str, Any] = {"readable_files": len(files)}
        folder = self._id("d", 3, 1)
        queries: dict[str, tuple[str, str, int]] = {
            "count all that is readable": (
                "select count(*) from public.nodes as n",
                f"select count(*) from public.nodes as n where {readable}",
                20,
            ),
            "look up a node": (
                "select * from public.nodes as n where n.id = %(file)s",
                f"select * from public.nodes as n where n.id = %(file)s and {readable}",
                300,
            ),
            "list a folder": (
                "select * from public.nodes as n where n.parent_id = %(folder)s",
                f"select * from public.nodes as n where n.parent_id = %(folder)s and {readable}",
                300,
            ),
            "versions of 50 files": (
                "select * from public.file_versions as v where v.file_id = any(%(files)s)",
                "select v.* from public.file_versions as v"
                " join public.nodes as n on n.id = v.file_id"
                f" where v.file_id = any(%(files)s) and {readable}",
                100,
            ),
            "chunks of 50 files": (
                "select * from public.chunks as c where c.file_id = any(%(files)s)",
                "select c.* from public.chunks as c join public.nodes as n on n.id = c.file_id"
                f" where c.file_id = any(%(files)s) and {readable}",
                100,
            ),
        }
        for what, (query, explicit, times) in queries.items():
            found[what] = self._ratio(
                lambda no, q=query: self._rows(q, files, folder, given, no),
                lambda no, q=explicit: self._rows(q, files, folder, given, no),
                times,
            )
        searches = {
            "keyword search": ("select public.hybrid_search('alpha', candidates => 100)", ()),
            "hybrid search": (
                "select public.hybrid_search('alpha', %s, 'bench', candidates => 100)",
                (Jsonb(VECTOR),),
            ),
        }
        for what, (query, arguments) in searches.items():
            with self._as(self.modest):
                assert self._one(query, *arguments)["hits"]
                self._time(f"{what} over all chunks", 30, lambda _: self._one(query, *arguments))  # noqa: B023
            found[what] = self._against_given(owners, roots, query, arguments)
        return found

    def _rows(
        self, query: str, files: list[Any], folder: uuid.UUID, given: dict[str, Any], no: int
    ) -> int:
        start = no * 50 % max(1, len(files) - 50)
        parameters = {
            **given,
            "folder": folder,
            "file": files[no * 7 % len(files)],
            "files": files[start : start + 50],
        }
        return len(self.connection.execute(query, parameters).fetchall())  # type: ignore[arg-type]

    def _ratio(
        self, ask: Callable[[int], int], ask_explicitly: Callable[[int], int], times: int
    ) -> dict[str, Any]:
        """Ask in turns, so that whatever else the machine does meets both."""
        mine, theirs = [], []
        ways = [("authenticated", ask, mine), ("postgres", ask_explicitly, theirs)]
        for no in range(times):
            with self._as(self.modest):
                rows = ask(no)  # whichever comes first would pay for reading the pages
            for role, way, spent in ways if no % 2 else reversed(ways):
                with self._as(self.modest, role):
                    clock = time.perf_counter()
                    assert way(no) == rows
                    spent.append((time.perf_counter() - clock) * 1000)
        return compared(mine, theirs)

    def _against_given(
        self, owners: list[uuid.UUID], roots: list[uuid.UUID], query: str, arguments: Any
    ) -> dict[str, Any]:
        """Ask a function as it is, and as if the caller's grants were constants in it."""
        mine, theirs = [], []
        for no in range(-2, 20):
            spent = []
            for constant in (False, True):
                with self.connection.transaction(force_rollback=True):
                    if constant:
                        self._give("my_owner_ids", owners)
                        self._give("granted_roots", roots)
                    with self._as(self.modest):
                        self._one(query, *arguments)
                        spent.append(clocked(lambda: self._one(query, *arguments)))
            if no >= 0:
                mine.append(spent[0])
                theirs.append(spent[1])
        return compared(mine, theirs)

    def _give(self, function: str, ids: list[uuid.UUID]) -> None:
        constant = "{" + ",".join(map(str, ids)) + "}"
        self.connection.execute(
            f"create or replace function private.{function}() returns uuid[] language sql stable"  # type: ignore[arg-type]
            f" as $$ select '{constant}'::uuid[] $$"
        )


def clocked(ask: Callable[[], object]) -> float:
    """Return the milliseconds that something takes."""
    clock = time.perf_counter()
    ask()
    return (time.perf_counter() - clock) * 1000


def timed(times: int, ask: Callable[[int], object]) -> dict[str, float]:
    """Ask a few times to warm up where it is quick, then for the figures."""
    for no in range(3 if times > 10 else 0):
        ask(no)
    return quantiles([clocked(lambda: ask(no)) for no in range(times)])  # noqa: B023


def quantiles(times: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile; the longest when there are few."""
    longest = statistics.quantiles(times, n=20)[-1] if len(times) >= 20 else max(times)
    return {"p50_ms": round(statistics.median(times), 2), "p95_ms": round(longest, 2)}


def compared(mine: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return both medians and their ratio."""
    policy, explicit = statistics.median(mine), statistics.median(theirs)
    return {
        "policy_p50_ms": round(policy, 2),
        "explicit_p50_ms": round(explicit, 2),
        "ratio": round(policy / explicit, 2),
    }


if __name__ == "__main__":
    main()
