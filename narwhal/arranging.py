"""Moving and copying as `mv` and `cp` do: into a folder that exists, else to a new name."""

from __future__ import annotations

from typing import Any, Literal

from narwhal.drive import Drive
from narwhal.errors import NarwhalError
from narwhal.places import as_id, same_name, split_path

Json = dict[str, Any]


def arrange(
    drive: Drive,
    function: Literal["move_nodes", "copy_nodes"],
    sources: list[str],
    target: str,
    on_conflict: str,
) -> list[Json]:
    """Move or copy what is at some places to another one; all of it or nothing.

    A single source may get a new name on the way: where `target` is no folder yet, its last part is
    the name. That takes two steps, the move (or copy) and the renaming.
    """
    nodes = [drive.node(source) for source in sources]
    folder, name = _destination(drive, target, nodes)
    if name and function == "move_nodes" and nodes[0]["parent_id"] == folder:
        return [drive.call("rename_node", {"id": nodes[0]["id"], "name": name})]
    if name and not same_name(name, str(nodes[0]["name"])):
        on_conflict = "rename"  # the old name is only passed through; the new one was free
    ids = [str(node["id"]) for node in nodes]
    answer = drive.call(function, {"ids": ids, "target": folder, "on_conflict": on_conflict})
    items: list[Json] = answer["items"]
    if name and items[0]["name"] != name and not items[0].get("skipped"):
        renamed = drive.call("rename_node", {"id": items[0]["id"], "name": name})
        items[0]["name"] = renamed["name"]
    return items


def _destination(drive: Drive, target: str, nodes: list[Json]) -> tuple[str | None, str | None]:
    """Return the folder that a target means, and the new name when its last part is one."""
    if as_id(target) or not split_path(target):
        return drive.folder_id(target), None
    *above, last = split_path(target)
    parent = drive.folder_id("/".join(above))
    there = drive.child(parent, last)
    # a change of case alone is a new name for the folder itself
    itself = there is not None and there["id"] == nodes[0]["id"]
    if there is not None and there["kind"] == "folder" and not itself:
        return str(there["id"]), None
    if there is not None and not itself and not same_name(last, str(nodes[0]["name"])):
        raise NarwhalError(
            f"there is a {last!r} already",
            "Move it away first: narwhal rm",
            error="CONFLICT_NAME",
            status=409,
            details={"existing_id": there["id"]},
        )
    if len(nodes) > 1:
        raise NarwhalError(
            f"{target!r} is not a folder; several items need one",
            f"Create it first: narwhal mkdir {target}",
            error="INVALID_ARGUMENT",
            status=422,
        )
    return parent, last
