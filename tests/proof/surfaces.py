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
from tests.db.pictures import DIMENSION as PATCH
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
    is_of_all: bool = False  # some see what other worlds have, too
    refused: Callable[[Oracle, Caller], bool] | None = None  # whom a function answers with 401


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


def _self(oracle: Oracle, caller: Caller) -> set[str]:
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


def _people(world: World) -> Names:
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
    Surface("user_profiles", "select id::text from public.user_profiles", _people, _self),
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
        _people,
        _self,
        signed_in_only=True,
    ),
    Surface(
        "query_analytics",
        "select user_id::text from public.query_analytics where query = 'proof'",
        _people,
        _self,
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


# Asking about one node ----------------------------------------------------------------------------


def _details(oracle: Oracle, caller: Caller, node: Node) -> str:
    answer = oracle.answer_to_reading(caller, node)
    return f"ok {oracle.level(caller, node)}" if answer == "ok" else answer


def _amending(oracle: Oracle, caller: Caller, node: Node) -> str:
    """Telling that a file was shown: one's own search, and what can be read."""
    if not caller.person or not oracle.is_known(caller):
        return "NOT_AUTHENTICATED"
    if not is_allowed(caller.person, "query"):
        return "FORBIDDEN"
    return "ok" if oracle.reads(caller, node) else "NOT_FOUND"


def _listing(oracle: Oracle, caller: Caller, node: Node) -> str:
    answer = oracle.answer_to_reading(caller, node)
    children = (n.id for n in oracle.world.nodes if n.parent is node and not n.trashed_with)
    return " ".join(["ok", *sorted(children)]) if answer == "ok" else answer


def _writing(level: str, *, even_trashed: bool = False) -> Callable[[Oracle, Caller, Node], str]:
    def answer(oracle: Oracle, caller: Caller, node: Node) -> str:
        return oracle.answer_to_writing(caller, node, level, even_trashed=even_trashed)

    return answer


def _managing(oracle: Oracle, caller: Caller, node: Node) -> str:
    """Looking at what only managers see: no matter which role."""
    if not oracle.is_known(caller):
        return "NOT_AUTHENTICATED"
    level = oracle.level(caller, node)
    if level is None:
        return "NOT_FOUND"
    return "ok" if rank(level) >= rank("manage") else "FORBIDDEN"


def _purging(oracle: Oracle, caller: Caller, node: Node) -> str:
    """Purging needs manage, or edit and the permission delete_documents."""
    may = is_allowed(caller.person, "delete_documents")
    level = "edit" if may else "manage"
    answer = oracle.answer_to_writing(caller, node, level, even_trashed=True)
    return _or_locked(oracle, caller, node, answer)


def _purging_version(oracle: Oracle, caller: Caller, node: Node) -> str:
    """The same, of a file that is not in the trash."""
    may = is_allowed(caller.person, "delete_documents")
    answer = oracle.answer_to_writing(caller, node, "edit" if may else "manage")
    return _or_locked(oracle, caller, node, answer)


def _restoring(oracle: Oracle, caller: Caller, node: Node) -> str:
    """Restoring needs edit, also on another place that it comes back to."""
    answer = oracle.answer_to_writing(caller, node, "edit", even_trashed=True)
    living = [above for above in node.above if above is not node and not above.trashed_with]
    if answer == "ok" and (living[0] if living else None) is not node.parent:
        if living:
            may = oracle.answer_to_writing(caller, living[0], "edit") == "ok"
            return "ok" if may else "FORBIDDEN"
        return "ok" if node.owner is caller.person else "FORBIDDEN"
    return _or_locked(oracle, caller, node, answer)


def _new_version(oracle: Oracle, caller: Caller, node: Node) -> str:
    return _or_locked(oracle, caller, node, oracle.answer_to_writing(caller, node, "edit"))


def _or_locked(oracle: Oracle, caller: Caller, node: Node, answer: str) -> str:
    """Tell that something is being purged to those who could have purged it."""
    if answer == "NOT_FOUND" and node.is_purged:
        is_told = rank(oracle.own_level(caller.person, node)) >= rank("manage")
        return "LOCKED" if is_told else answer
    return answer


def _copying(oracle: Oracle, caller: Caller, node: Node) -> str:
    """A copy could be downloaded without end, so a link that counts does not let one copy."""
    answer = oracle.answer_to_writing(caller, node, "view")
    link = oracle.link_of(caller)
    counts = link is not None and link.is_used_up and not oracle.own_level(caller.person, node)
    return "FORBIDDEN" if answer == "ok" and counts else answer


def _renaming(oracle: Oracle, caller: Caller, node: Node) -> str:
    return oracle.answer_to_writing(caller, node, "manage" if _is_root(node) else "edit")


def _leaving(oracle: Oracle, caller: Caller, node: Node) -> str:
    level = "edit" if node.owner is caller.person else "manage"
    return oracle.answer_to_writing(caller, node, level)


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
        "record_view",
        "record_view",
        lambda n: "left((public.record_view('{}'))::text, 0)",
        lambda o, c, n: o.answer_to_reading(c, n),
    ),
    Call(
        "begin_download",
        "begin_download",
        lambda n: "left(public.begin_download('{}')::text, 0)",
        lambda o, c, n: o.answer_to_reading(c, n),
        lambda n: n.head is not None,
    ),
    Call(
        "effective_access",
        "effective_access",
        lambda n: "public.effective_access('{}') ->> 'level'",
        _details,
    ),
    Call(
        "list_shares",
        "list_shares",
        lambda n: "left(public.list_shares('{}')::text, 0)",
        _managing,
    ),
    Call(
        "list_share_links",
        "list_share_links",
        lambda n: "left(public.list_share_links('{}')::text, 0)",
        _managing,
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
        "amend_search",
        "amend_search",
        lambda n: """public.amend_search(auth.uid(), '[{"file_id": "{}"}]') -> 'hit_count'""",
        _amending,
        lambda n: n.kind == "file",
    ),
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
    Call("rename_node", "rename_node", lambda n: "public.rename_node('{}', 'new')", _renaming),
    Call(
        "moving to one's own root",
        "move_nodes",
        lambda n: "public.move_nodes(array['{}']::uuid[])",
        _leaving,
        lambda n: not _is_root(n),
    ),
    Call(
        "tag_nodes",
        "tag_nodes",
        lambda n: "public.tag_nodes(array['{}']::uuid[], array['new'])",
        _writing("edit"),
    ),
    Call(
        "add_comment",
        "add_comment",
        lambda n: "public.add_comment('{}', 'new')",
        _writing("comment"),
    ),
    Call(
        "trash_nodes",
        "trash_nodes",
        lambda n: "public.trash_nodes(array['{}']::uuid[])",
        _writing("edit"),
        lambda n: not _is_root(n),
    ),
    Call(
        "purge_nodes",
        "purge_nodes",
        lambda n: "public.purge_nodes(array['{}']::uuid[])",
        _purging,
        lambda n: not _is_root(n),
    ),
    Call(
        "restore_nodes",
        "restore_nodes",
        lambda n: "public.restore_nodes(array['{}']::uuid[])",
        _restoring,
        lambda n: n.trashed_with is not None,
    ),
    Call(
        "restore_version",
        "restore_version",
        lambda n: f"public.restore_version('{{}}', '{n.versions[0].id}')",
        _new_version,
        lambda n: n.kind == "file",
    ),
    Call(
        "purge_version",
        "purge_version",
        lambda n: f"public.purge_version('{{}}', '{n.versions[0].id}')",
        _purging_version,
        lambda n: n.kind == "file",
    ),
    Call(
        "copying to one's own root",
        "copy_nodes",
        lambda n: "public.copy_nodes(array['{}']::uuid[])",
        _copying,
    ),
    Call(
        "share_node",
        "share_node",
        lambda n: """public.share_node('{}', '{"email": "new@example.test"}')""",
        _writing("manage"),
    ),
    Call(
        "create_share_link",
        "create_share_link",
        lambda n: "public.create_share_link('{}')",
        _writing("manage"),
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
            changed = set(db.all(left)) & _people(oracle.world).keys()
        if changed != _self(oracle, caller):
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
