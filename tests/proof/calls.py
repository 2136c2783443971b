"""What can be asked of each node by itself, and what the answer must be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.proof.oracle import Oracle, is_allowed, rank
from tests.proof.world import Caller, Node, Person


@dataclass
class Call:
    """What is asked of each node by itself; the answer is ok, or an error's code."""

    name: str
    function: str  # the public function that must exist
    call: Callable[[Node], str]  # SQL; {} in it is the node's id
    answer: Callable[[Oracle, Caller, Node], str]
    applies: Callable[[Node], bool] = lambda node: True


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
        "save_document",
        "save_document",
        lambda n: "public.save_document('new', 'text', folder_id => '{}')",
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
