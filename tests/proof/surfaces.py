"""Every place where the drive shows something or lets somebody do something.

A surface has a query that names what the caller sees, and what the oracle says they should see;
each thing that could have been seen is one check. A call is asked of each node by itself.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from tests.database import Database
from tests.db.conftest import DIMENSION
from tests.proof.oracle import Oracle, is_allowed, rank
from tests.proof.world import Caller, Node, Person, Version, World

Names = dict[str, str]  # id of a thing, and what to call it


@dataclass
class Surface:
    """What one query shows."""

    name: str
    query: LiteralString
    things: Callable[[World], Names]  # all that there is to see
    seen: Callable[[Oracle, Caller], set[str]]  # what this caller should see of it
    signed_in_only: bool = False  # anon has not even the right to ask


@dataclass
class Call:
    """What is asked of each node by itself; the answer is ok, or an error's code."""

    name: str
    function: str  # the public function that must exist
    call: Callable[[Node], str]  # SQL; {} in it is the node's id
    answer: Callable[[Oracle, Caller, Node], str]
    applies: Callable[[Node], bool] = lambda node: True


# Reading ------------------------------------------------------------------------------------------


def _nodes(world: World) -> Names:
    return {node.id: node.path for node in world.nodes}


def _readable(oracle: Oracle, caller: Caller) -> set[str]:
    return {node.id for node in oracle.world.nodes if oracle.reads(caller, node)}


def _versions(part: Callable[[Version], str]) -> Callable[[World], Names]:
    def things(world: World) -> Names:
        return {part(v): f.path for f in world.files for v in f.versions}

    return things


def _of_readable(part: Callable[[Version], str]) -> Callable[[Oracle, Caller], set[str]]:
    def seen(oracle: Oracle, caller: Caller) -> set[str]:
        return {part(v) for f in oracle.world.files for v in f.versions if oracle.reads(caller, f)}

    return seen


def _jobs(oracle: Oracle, caller: Caller) -> set[str]:
    return _of_readable(lambda v: v.job_id)(oracle, caller) if caller.person else set()


def _shares(oracle: Oracle, caller: Caller) -> set[str]:
    if not oracle.is_known(caller):
        return set()
    assert caller.person
    # who it names, and whoever may share the node themselves
    managed = {s.id for s in oracle.world.shares if oracle.manages(caller.person, s.node)}
    living = {s.id for s in oracle.world.shares if not s.node.trashed_with}
    return oracle.share_ids(caller.person) & living | managed


def _links(oracle: Oracle, caller: Caller) -> set[str]:
    if not oracle.is_known(caller):
        return set()
    return {
        link.id
        for link in oracle.world.links
        if link.maker is caller.person or oracle.manages(caller.person, link.node)
    }


def _tickets(oracle: Oracle, caller: Caller) -> set[str]:
    return {
        ticket.id
        for ticket in oracle.world.tickets
        if not ticket.file.trashed_with
        and (
            (ticket.holder is caller.person and oracle.is_known(caller))
            or ticket.file.owner.id in oracle.owner_ids(caller)
        )
    }


def _groups(oracle: Oracle, caller: Caller) -> set[str]:
    if not caller.person or not oracle.is_known(caller):
        return set()
    return {group.id for group in oracle.groups_of(caller.person)}


def _workspaces(oracle: Oracle, caller: Caller) -> set[str]:
    return oracle.owner_ids(caller) & {w.id for w in oracle.world.workspaces}


def _self(oracle: Oracle, caller: Caller) -> set[str]:
    return {caller.person.id} if caller.person and oracle.is_known(caller) else set()


def _found(oracle: Oracle, caller: Caller) -> set[str]:
    if caller.person and not is_allowed(caller.person, "query"):
        return set()
    return {f.head.chunk_id for f in oracle.world.files if f.head and oracle.reads(caller, f)}


def _owners(world: World) -> Names:
    return {owner.id: owner.name for owner in [*world.people, *world.workspaces]}


def _people(world: World) -> Names:
    return {person.id: person.name for person in world.people}


SEARCH = (
    "select hit ->> 'chunk_id' from jsonb_array_elements("
    "public.hybrid_search('walrus', {}, top_k => 100, candidates => 1000, options => '{}')"
    " -> 'hits') as hit"
)
VECTOR = json.dumps([1] * DIMENSION)

SURFACES = [
    Surface("nodes", "select id::text from public.nodes", _nodes, _readable),
    Surface(
        "file_versions",
        "select id::text from public.file_versions",
        _versions(lambda v: v.id),
        _of_readable(lambda v: v.id),
    ),
    Surface(
        "pages",
        "select id::text from public.pages",
        _versions(lambda v: v.page_id),
        _of_readable(lambda v: v.page_id),
    ),
    Surface(
        "chunks",
        "select id::text from public.chunks",
        _versions(lambda v: v.chunk_id),
        _of_readable(lambda v: v.chunk_id),
    ),
    Surface(
        "ingest_jobs",
        "select id::text from public.ingest_jobs",
        _versions(lambda v: v.job_id),
        _jobs,
        signed_in_only=True,
    ),
    Surface(
        "storage.objects",
        "select name from storage.objects",
        _versions(lambda v: v.blob.key),
        _of_readable(lambda v: v.blob.key),
    ),
    Surface(
        "signed URLs",
        "select o.name from set_config('storage.operation', 'storage.object.sign', true),"
        " storage.objects as o",
        _versions(lambda v: v.blob.key),
        _of_readable(lambda v: v.blob.key),
    ),
    Surface(
        "shares",
        "select id::text from public.shares",
        lambda w: {s.id: f"share of {s.node.path}" for s in w.shares},
        _shares,
        signed_in_only=True,
    ),
    Surface(
        "share_links",
        "select id::text from public.share_links",
        lambda w: {link.id: f"link to {link.node.path}" for link in w.links},
        _links,
        signed_in_only=True,
    ),
    Surface(
        "uploads",
        "select id::text from public.uploads",
        lambda w: {t.id: f"ticket for {t.file.path}" for t in w.tickets},
        _tickets,
        signed_in_only=True,
    ),
    Surface(
        "groups",
        "select id::text from public.groups",
        lambda w: {g.id: g.name for g in w.groups},
        _groups,
        signed_in_only=True,
    ),
    Surface(
        "group_members",
        "select distinct group_id::text from public.group_members",
        lambda w: {g.id: g.name for g in w.groups if g.members},
        lambda o, c: _groups(o, c) & {g.id for g in o.world.groups if g.members},
        signed_in_only=True,
    ),
    Surface(
        "workspaces",
        "select id::text from public.workspaces",
        lambda w: {one.id: one.name for one in w.workspaces},
        _workspaces,
        signed_in_only=True,
    ),
    Surface(
        "workspace_members",
        "select distinct workspace_id::text from public.workspace_members",
        lambda w: {one.id: one.name for one in w.workspaces},
        _workspaces,
        signed_in_only=True,
    ),
    Surface(
        "owners",
        "select id::text from public.owners",
        _owners,
        lambda o, c: o.owner_ids(c),
        signed_in_only=True,
    ),
    Surface("user_profiles", "select id::text from public.user_profiles", _people, _self),
    Surface(
        "embedding_spaces",
        "select name from public.embedding_spaces",
        lambda w: {"minilm-l6-v2": "the space"},
        lambda o, c: {"minilm-l6-v2"} if o.is_known(c) else set(),
        signed_in_only=True,
    ),
    Surface(
        "keyword search",
        SEARCH.replace("{}", "null", 1),  # type: ignore[arg-type]
        _versions(lambda v: v.chunk_id),
        _found,
    ),
    Surface(
        "dense search",
        SEARCH.replace("{}", f"'{VECTOR}'", 1).replace("'{}'", """'{"weights": {"keyword": 0}}'"""),  # type: ignore[arg-type]
        _versions(lambda v: v.chunk_id),
        _found,
    ),
]


# Asking about one node ----------------------------------------------------------------------------


def _details(oracle: Oracle, caller: Caller, node: Node) -> str:
    answer = oracle.answer_to_reading(caller, node)
    return f"ok {oracle.level(caller, node)}" if answer == "ok" else answer


def _listing(oracle: Oracle, caller: Caller, node: Node) -> str:
    answer = oracle.answer_to_reading(caller, node)
    children = (n.id for n in oracle.world.nodes if n.parent is node and not n.trashed_with)
    return " ".join(["ok", *sorted(children)]) if answer == "ok" else answer


def _writing(level: str, *, even_trashed: bool = False) -> Callable[[Oracle, Caller, Node], str]:
    def answer(oracle: Oracle, caller: Caller, node: Node) -> str:
        return oracle.answer_to_writing(caller, node, level, even_trashed=even_trashed)

    return answer


def _purging(oracle: Oracle, caller: Caller, node: Node) -> str:
    answer = oracle.answer_to_writing(caller, node, "manage", even_trashed=True)
    if answer == "FORBIDDEN" and is_allowed(caller.person, "delete_documents"):
        level = oracle.level(caller, node, even_trashed=True)
        return "ok" if rank(level) >= rank("edit") else answer
    return answer


def _is_root(node: Node) -> bool:
    return node.parent is None and not isinstance(node.owner, Person)


READS = [
    Call(
        "file_details",
        "file_details",
        lambda n: "public.file_details('{}') ->> 'level'",
        _details,
    ),
    Call(
        "list_folder",
        "list_folder",
        lambda n: (
            "array_to_string(array("
            "select item ->> 'id' from jsonb_array_elements("
            "public.list_folder('{}', page_size => 1000) -> 'items') as item"
            " order by item ->> 'id'), ' ')"
        ),
        _listing,
        lambda n: n.kind == "folder",
    ),
]

WRITES = [
    Call(
        "create_folder",
        "create_folder",
        lambda n: "public.create_folder('new', '{}')",
        _writing("edit"),
        lambda n: n.kind == "folder",
    ),
    Call(
        "begin_upload",
        "begin_upload",
        lambda n: "public.begin_upload('new.txt', '{}', 1)",
        _writing("edit"),
        lambda n: n.kind == "folder",
    ),
    Call(
        "begin_upload of a version",
        "begin_upload",
        lambda n: "public.begin_upload(size => 1, file_id => '{}')",
        _writing("edit"),
        lambda n: n.kind == "file",
    ),
    Call(
        "cancel_ingest",
        "cancel_ingest",
        lambda n: "public.cancel_ingest('{}')",
        _writing("edit"),
        lambda n: n.kind == "file",
    ),
    Call(
        "trash_nodes",
        "trash_nodes",
        lambda n: "public.trash_nodes(array['{}']::uuid[])",
        _writing("edit"),
        lambda n: not _is_root(n),
    ),
]


# Running them -------------------------------------------------------------------------------------

ATTEMPT = """
create schema proof;
grant usage on schema proof to public;
create function proof.attempt(call text) returns text language plpgsql as $$
declare
    v_answer text;
    v_detail text;
begin
    execute 'select ' || call into v_answer;
    raise exception using errcode = 'UNDON'; -- nothing of it stays
exception when others then
    get stacked diagnostics v_detail = pg_exception_detail;
    return case
        when sqlstate = 'UNDON' then rtrim('ok ' || coalesce(v_answer, ''))
        when sqlstate like 'PT%' then v_detail::jsonb ->> 'error'
        else sqlstate || ' ' || sqlerrm
    end;
end;
$$;
grant execute on function proof.attempt(text) to public;
"""
# what follows the check of who is asking, and so says that it was passed
PASSED = {"ok", "CONFLICT_NAME", "CONFLICT_STATE", "INVALID_ARGUMENT", "QUOTA_EXCEEDED", "LOCKED"}


@contextmanager
def acting(db: Database, caller: Caller) -> Iterator[None]:
    """Send requests as this caller, with the header of their grant."""
    db.all(
        "select set_config('request.headers', %s, true)",
        json.dumps({"x-share-grant": caller.grant.token} if caller.grant else {}),
    )
    with db.as_user(caller.person.id if caller.person else None):  # type: ignore[arg-type]
        yield


def check(
    db: Database,
    world: World,
    counts: Counter[str],
    writes: Callable[[list[Node]], list[Node]] = lambda nodes: nodes,
) -> Iterator[str]:
    """Compare all that every caller sees and may do with the oracle; give the differences.

    `writes` picks the nodes that writing is tried on, as it takes the longest.
    """
    oracle = Oracle(world)
    for caller in world.callers:
        with acting(db, caller):
            for surface in SURFACES:
                yield from _compare(db, oracle, caller, surface, counts)
            yield from _ask(db, oracle, caller, READS, world.nodes, counts)
            yield from _ask(db, oracle, caller, WRITES, writes(world.nodes), counts)
            yield from _send(db, oracle, caller, counts)
            yield from _change_profiles(db, oracle, caller, counts)


def _compare(
    db: Database, oracle: Oracle, caller: Caller, surface: Surface, counts: Counter[str]
) -> Iterator[str]:
    things = surface.things(oracle.world)
    found = set()
    try:
        with db.connection.transaction(force_rollback=True):
            found = {row[0] for row in db.connection.execute(surface.query).fetchall()}
    except psycopg.Error as error:
        refused = str(error.sqlstate)
        may_ask = caller.person or not surface.signed_in_only
        expected = "PT401" if may_ask else "42501"
        if refused != expected or oracle.is_known(caller):
            yield f"{caller} is refused {surface.name}: {error}"
    counts[surface.name] += max(1, len(things))
    expected_things = surface.seen(oracle, caller)
    for thing in found - expected_things:
        yield f"{caller} sees, but should not: {things.get(thing, thing)} in {surface.name}"
    for thing in expected_things - found:
        yield f"{caller} should see, but does not: {things[thing]} in {surface.name}"


def _ask(
    db: Database,
    oracle: Oracle,
    caller: Caller,
    calls: list[Call],
    nodes: list[Node],
    counts: Counter[str],
) -> Iterator[str]:
    asked = [(call, node) for call in calls for node in nodes if call.applies(node)]
    answers = db.all(
        "select proof.attempt(c) from unnest(%s::text[]) with ordinality as u (c, no) order by no",
        [call.call(node).replace("{}", node.id) for call, node in asked],
    )
    for (call, node), answer in zip(asked, answers, strict=True):
        counts[call.name] += 1
        expected = call.answer(oracle, caller, node)
        if answer != expected and not (expected == "ok" and answer.split()[0] in PASSED):
            yield f"{call.name} of {node.path} tells {caller} {answer}, not {expected}"


def _send(db: Database, oracle: Oracle, caller: Caller, counts: Counter[str]) -> Iterator[str]:
    """Storage's permission test for each ticket: an insert as the caller, undone."""
    for ticket in oracle.world.tickets:
        counts["sending bytes"] += 1
        may = True
        try:
            with db.connection.transaction(force_rollback=True):
                db.connection.execute(
                    "insert into storage.objects (bucket_id, name, version, metadata)"
                    " values ('files', %s, '1', '{\"contentLength\": 10}')",
                    (ticket.key,),
                )
        except psycopg.Error as error:
            may = False
            if error.sqlstate != "42501":
                yield f"sending bytes for {ticket.file.path}: {error}"
        if may != oracle.uploads(caller, ticket):
            yield f"{caller} {'may' if may else 'may not'} send bytes for {ticket.file.path}"


def _change_profiles(
    db: Database, oracle: Oracle, caller: Caller, counts: Counter[str]
) -> Iterator[str]:
    """Change everybody's name: only one's own does."""
    counts["changing profiles"] += len(oracle.world.people)
    changed: list[str] = []
    with (
        suppress(psycopg.errors.InsufficientPrivilege),
        db.connection.transaction(force_rollback=True),
    ):
        db.all("update public.user_profiles set full_name = 'changed'")
        db.all("reset session authorization")  # the rollback undoes this too
        changed = db.all("select id::text from public.user_profiles where full_name = 'changed'")
    if set(changed) != _self(oracle, caller):
        yield f"{caller} changes {len(changed)} profiles"
