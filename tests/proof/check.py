"""Every surface and every call, asked by every caller of a world, against the oracle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg

from tests.database import Database
from tests.proof.calls import READS, WRITES, Call
from tests.proof.oracle import Oracle
from tests.proof.surfaces import SURFACES, Surface, oneself, people_of
from tests.proof.world import Caller, Node, World

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
-- a project's own bucket and policy, beside ours
insert into storage.buckets (id, name) values ('other', 'other');
insert into storage.objects (bucket_id, name) values ('other', 'public.txt');
create policy everybody_signed_in on storage.objects for select to authenticated
using (bucket_id = 'other');
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


def check(db: Database, world: World, counts: Counter[str], writes: int = 1) -> Iterator[str]:
    """Compare all that every caller sees and may do with the oracle; give the differences.

    Writing takes the longest, so each caller tries it on each so many nodes only.
    """
    oracle = Oracle(world)
    for no, caller in enumerate(world.callers):
        with acting(db, caller):
            for surface in SURFACES:
                yield from _compare(db, oracle, caller, surface, counts)
            yield from _ask(db, oracle, caller, READS, world.nodes, counts)
            yield from _ask(db, oracle, caller, WRITES, world.nodes[no % writes :: writes], counts)
            yield from _send(db, oracle, caller, counts)
            yield from _change_all(db, oracle, caller, counts)


def _compare(
    db: Database, oracle: Oracle, caller: Caller, surface: Surface, counts: Counter[str]
) -> Iterator[str]:
    things = surface.things(oracle.world)
    found = set()
    refusal = ""
    try:
        with db.connection.transaction(force_rollback=True):
            found = {row[0] for row in db.connection.execute(surface.query).fetchall()}
    except psycopg.Error as error:
        refusal = str(error.sqlstate)
    expected = ""
    if surface.refused and surface.refused(oracle, caller):
        expected = "PT401"
    elif surface.signed_in_only and not caller.person:
        expected = "42501"
    if refusal != expected:
        yield f"{surface.name} tells {caller} {refusal or 'something'}, not {expected or 'that'}"
    counts[surface.name] += max(1, len(things))
    if surface.is_of_all:
        found &= things.keys()
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
        counts["sending bytes elsewhere"] += 1
        with (
            suppress(psycopg.errors.InsufficientPrivilege),
            db.connection.transaction(force_rollback=True),
        ):
            db.connection.execute(
                "insert into storage.objects (bucket_id, name) values ('other', %s)", (ticket.key,)
            )
            yield f"{caller} may write into another bucket"
        if may != oracle.uploads(caller, ticket):
            yield f"{caller} {'may' if may else 'may not'} send bytes for {ticket.file.path}"


def _change_all(
    db: Database, oracle: Oracle, caller: Caller, counts: Counter[str]
) -> Iterator[str]:
    """Change or remove everything: only one's own goes."""
    for name, change, left in CHANGES:
        counts[name] += len(oracle.world.people)
        changed: set[str] = set()
        with (
            suppress(psycopg.errors.InsufficientPrivilege),
            db.connection.transaction(force_rollback=True),
        ):
            db.all(change)
            db.all("reset session authorization")  # the rollback undoes this too
            changed = set(db.all(left)) & people_of(oracle.world).keys()
        if changed != oneself(oracle, caller):
            yield f"{caller}, {name}, changes what {len(changed)} people have"


CHANGES: list[tuple[str, LiteralString, LiteralString]] = [
    (
        "changing profiles",
        "update public.user_profiles set full_name = 'changed'",
        "select id::text from public.user_profiles where full_name = 'changed'",
    ),
    (
        "removing notifications",
        "delete from public.notifications",
        "select p.id::text from public.user_profiles as p where not exists ("
        " select from public.notifications as n where n.user_id = p.id and n.data ? 'proof')",
    ),
]
