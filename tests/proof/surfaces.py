"""Every place where the drive shows something.

A surface has a query that names what the caller sees, and what the oracle says they should see;
each thing that could have been seen is one check.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

from tests.db.conftest import DIMENSION
from tests.db.pictures import DIMENSION as PATCH
from tests.proof.oracle import Oracle, is_allowed
from tests.proof.world import Caller, Version, World

Names = dict[str, str]  # id of a thing, and what to call it


@dataclass
class Surface:
    """What one query shows."""

    name: str
    query: LiteralString
    things: Callable[[World], Names]  # all that there is to see
    seen: Callable[[Oracle, Caller], set[str]]  # what this caller should see of it
    signed_in_only: bool = False  # anon has not even the right to ask
    is_of_all: bool = False  # some see what other worlds have, too
    refused: Callable[[Oracle, Caller], bool] | None = None  # whom a function answers with 401


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


def _photographed(oracle: Oracle, caller: Caller) -> set[str]:
    """Where photos were taken is for their owner, even of what others may read."""
    mine = oracle.owner_ids(caller)
    return {
        v.image_id
        for f in oracle.world.files
        for v in f.versions
        if f.owner.id in mine and oracle.reads(caller, f)
    }


def _jobs(oracle: Oracle, caller: Caller) -> set[str]:
    return _of_readable(lambda v: v.job_id)(oracle, caller) if caller.person else set()


def _shares(oracle: Oracle, caller: Caller) -> set[str]:
    if not caller.person or not oracle.is_known(caller):
        return set()
    # who it names, and whoever may share the node themselves
    named = oracle.share_ids(caller.person)
    return {
        s.id
        for s in oracle.world.shares
        if not s.node.trashed_with and (s.id in named or oracle.manages(caller.person, s.node))
    }


def _links(oracle: Oracle, caller: Caller) -> set[str]:
    if not caller.person or not oracle.is_known(caller):
        return set()
    return {
        link.id
        for link in oracle.world.links
        if link.maker is caller.person
        or (not link.node.trashed_with and oracle.manages(caller.person, link.node))
    }


def _trash(oracle: Oracle, caller: Caller) -> set[str]:
    return {n.id for n in oracle.world.nodes if oracle.sees_in_trash(caller, n)}


def _shared_with_me(oracle: Oracle, caller: Caller) -> set[str]:
    """Return the topmost of what shares open in other people's drives."""
    if not caller.person or not oracle.is_known(caller):
        return set()
    mine = oracle.share_ids(caller.person)
    roots = [s.node for s in oracle.world.shares if s.id in mine]
    return {
        n.id
        for n in roots
        if not n.trashed_with
        and n.owner.id not in oracle.owner_ids(caller)
        and not any(above in roots for above in n.above if above is not n)
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


def oneself(oracle: Oracle, caller: Caller) -> set[str]:
    return {caller.person.id} if caller.person and oracle.is_known(caller) else set()


def _found(oracle: Oracle, caller: Caller) -> set[str]:
    if caller.person and not is_allowed(caller.person, "query"):
        return set()
    return {f.head.chunk_id for f in oracle.world.files if f.head and oracle.reads(caller, f)}


def _shown(oracle: Oracle, caller: Caller) -> set[str]:
    if caller.person and not is_allowed(caller.person, "query"):
        return set()
    return {f.head.id for f in oracle.world.files if f.head and oracle.reads(caller, f)}


def _is_unknown(oracle: Oracle, caller: Caller) -> bool:
    return not oracle.is_known(caller)


def _has_no_access(oracle: Oracle, caller: Caller) -> bool:
    return not oracle.is_known(caller) and (
        caller.person is not None or oracle.link_of(caller) is None
    )


def _owners(world: World) -> Names:
    return {owner.id: owner.name for owner in [*world.people, *world.workspaces]}


def people_of(world: World) -> Names:
    return {person.id: person.name for person in world.people}


def _operation(operation: str, bucket: str) -> LiteralString:
    return (  # type: ignore[return-value]
        "select o.name from"
        f" set_config('storage.operation', 'storage.object.{operation}', true),"
        f" storage.objects as o where o.bucket_id = '{bucket}'"
    )


def _items(call: str) -> LiteralString:
    return f"select item ->> 'id' from jsonb_array_elements(({call}) -> 'items') as item"  # type: ignore[return-value]


SEARCH = (
    "select hit ->> 'chunk_id' from jsonb_array_elements("
    "public.hybrid_search('walrus', {}, top_k => 100, candidates => 1000, options => '{}')"
    " -> 'hits') as hit"
)
VECTOR = json.dumps([1] * DIMENSION)
LOOK = "select hit ->> 'version_id' from jsonb_array_elements({} -> 'hits') as hit"
PICTURE = json.dumps([1] * PATCH)
SPACES = {"minilm-l6-v2", "page-test", "image-test"}

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
        _operation("list", "files"),
        _versions(lambda v: v.blob.key),
        _of_readable(lambda v: v.blob.key),
    ),
    Surface(
        "signed URLs",
        _operation("sign", "files"),
        _versions(lambda v: v.blob.key),
        lambda o, c: {v.blob.key for f in o.world.files if o.downloads(c, f) for v in f.versions},
    ),
    Surface(
        "the bucket derived",
        _operation("sign", "derived"),
        _versions(lambda v: v.picture.key),
        _of_readable(lambda v: v.picture.key),
    ),
    Surface(
        "renditions",
        "select b.version_id::text from public.renditions as b",
        _versions(lambda v: v.id),
        _of_readable(lambda v: v.id),
    ),
    Surface(
        "insights",
        "select i.version_id::text from public.insights as i",
        _versions(lambda v: v.id),
        _of_readable(lambda v: v.id),
    ),
    Surface(
        "transcripts",
        "select t.version_id::text from public.transcripts as t",
        _versions(lambda v: v.id),
        _of_readable(lambda v: v.id),
    ),
    Surface(
        "transcript_segments",
        "select s.version_id::text from public.transcript_segments as s",
        _versions(lambda v: v.id),
        _of_readable(lambda v: v.id),
    ),
    Surface(
        "images",
        "select id::text from public.images",
        _versions(lambda v: v.image_id),
        _of_readable(lambda v: v.image_id),
    ),
    Surface(
        "image_locations",
        "select image_id::text from public.image_locations",
        _versions(lambda v: v.image_id),
        _photographed,
        signed_in_only=True,
    ),
    Surface(
        "another bucket",
        "select name from storage.objects where bucket_id = 'other'",
        lambda w: {"public.txt": "an object of the project's own"},
        lambda o, c: {"public.txt"} if o.is_known(c) else set(),
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
    Surface("user_profiles", "select id::text from public.user_profiles", people_of, oneself),
    Surface(
        "embedding_spaces",
        "select name from public.embedding_spaces",
        lambda w: {name: f"the space {name}" for name in SPACES},
        lambda o, c: SPACES if o.is_known(c) else set(),
        signed_in_only=True,
    ),
    Surface(
        "keyword search",
        SEARCH.replace("{}", "null", 1),  # type: ignore[arg-type]
        _versions(lambda v: v.chunk_id),
        _found,
        refused=_has_no_access,
    ),
    Surface(
        "dense search",
        SEARCH.replace("{}", f"'{VECTOR}'", 1).replace("'{}'", """'{"weights": {"keyword": 0}}'"""),  # type: ignore[arg-type]
        _versions(lambda v: v.chunk_id),
        _found,
        refused=_has_no_access,
    ),
    Surface(
        "page search",
        LOOK.replace("{}", f"public.search_pages('[{PICTURE}]', top_k => 100)"),  # type: ignore[arg-type]
        _versions(lambda v: v.id),
        _shown,
        refused=_has_no_access,
    ),
    Surface(
        "image search",
        LOOK.replace("{}", f"public.search_images('{PICTURE}', top_k => 100)"),  # type: ignore[arg-type]
        _versions(lambda v: v.id),
        _shown,
        refused=_has_no_access,
    ),
]


def _signed_in(
    seen: Callable[[Oracle, Caller], set[str]],
) -> Callable[[Oracle, Caller], set[str]]:
    return lambda oracle, caller: seen(oracle, caller) if caller.person else set()


def _comments(oracle: Oracle, caller: Caller) -> set[str]:
    return {node.comment_id for node in oracle.world.nodes if oracle.reads(caller, node)}


def _states(oracle: Oracle, caller: Caller) -> set[str]:
    if caller.person not in oracle.world.people:
        return set()
    return {f"{caller.person.id} {node_id}" for node_id in _readable(oracle, caller)}


def _audited(world: World) -> Names:
    return (
        {f"by {p.id}": f"an act of {p.name}" for p in world.people}
        | {f"for {p.id}": f"an act for {p.name}" for p in world.people}
        | {f"on {id_}": f"an act on {name}'s" for id_, name in _owners(world).items()}
    )


def _audit(oracle: Oracle, caller: Caller) -> set[str]:
    if not caller.person or not oracle.is_known(caller):
        return set()
    if is_allowed(caller.person, "view_analytics"):
        return set(_audited(oracle.world))
    own = {f"by {caller.person.id}", f"for {caller.person.id}"}
    return own | {f"on {id_}" for id_ in oracle.managed_owner_ids(caller)}


SURFACES += [
    Surface(
        "plans",
        "select name from public.plans",
        lambda w: {"free": "the plan"},
        lambda o, c: {"free"} if o.is_known(c) else set(),
        signed_in_only=True,
        is_of_all=True,
    ),
    Surface(
        "usage_daily",
        "select owner_id::text from public.usage_daily",
        _owners,
        lambda o, c: o.owner_ids(c),
        signed_in_only=True,
    ),
    Surface("list_trash", _items("public.list_trash(1000)"), _nodes, _trash, refused=_is_unknown),
    Surface(
        "shared_with_me",
        _items("public.shared_with_me(1000)"),
        _nodes,
        _shared_with_me,
        refused=_is_unknown,
    ),
    Surface(
        "list_favourites",
        _items("public.list_favourites(1000)"),
        _nodes,
        lambda o, c: _readable(o, c) if c.person in o.world.people else set(),
        refused=_is_unknown,
    ),
    Surface(
        "comments",
        "select id::text from public.comments",
        lambda w: {n.comment_id: n.path for n in w.nodes},
        _signed_in(_comments),
        signed_in_only=True,
    ),
    Surface(
        "node_tags",
        "select node_id::text from public.node_tags",
        _nodes,
        _signed_in(_readable),
        signed_in_only=True,
    ),
    Surface(
        "node_stats",
        "select node_id::text from public.node_stats",
        _nodes,
        _signed_in(_readable),
        signed_in_only=True,
    ),
    Surface(
        "node_user_state",
        "select user_id || ' ' || node_id from public.node_user_state",
        lambda w: {
            f"{p.id} {n.id}": f"{n.path} as {p.name} has it" for p in w.people for n in w.nodes
        },
        _states,
        signed_in_only=True,
    ),
    Surface(
        "notifications",
        "select user_id::text from public.notifications where data ? 'proof'",
        people_of,
        oneself,
        signed_in_only=True,
    ),
    Surface(
        "query_analytics",
        "select user_id::text from public.query_analytics where query = 'proof'",
        people_of,
        oneself,
        signed_in_only=True,
    ),
    Surface(
        "audit_logs",
        "select details ->> 'thing' from public.audit_logs where action = 'proof'",
        _audited,
        _audit,
        signed_in_only=True,
        is_of_all=True,
    ),
]
