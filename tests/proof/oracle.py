"""The rule of who may see and do what, as the specification says it, in plain Python.

Nothing here knows how the database does it. Levels are view < comment < edit < manage < owner.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.proof.world import Caller, Group, Link, Named, Node, Person, Ticket, Workspace, World

LEVELS = ["view", "comment", "edit", "manage", "owner"]
PERMISSIONS = {
    "viewer": {"query", "view_documents"},
    "user": {"query", "view_documents", "edit_documents"},
    "admin": {
        "query",
        "view_documents",
        "edit_documents",
        "delete_documents",
        "view_analytics",
        "manage_users",
        "admin",
    },
}


def rank(level: str | None) -> int:
    """Order of the levels; 0 for none."""
    return LEVELS.index(level) + 1 if level else 0


def highest(levels: list[str]) -> str | None:
    """Return the highest of some levels; None when there is none."""
    return max(levels, key=rank, default=None)


def is_allowed(person: Person | None, permission: str) -> bool:
    """Whether an active account's role has a permission."""
    return bool(person and person.is_active and permission in PERMISSIONS[person.role])


def means(named: Named, person: Person) -> bool:
    """Whether a row means somebody: by id when it has one, else by confirmed address."""
    if named.person:
        return named.person is person
    if not named.address or not person.is_confirmed:
        return False
    return named.address.lower() == person.email.lower()


@dataclass
class Oracle:
    """Answers about one world."""

    world: World

    # What somebody has by themselves --------------------------------------------------------------

    def groups_of(self, person: Person) -> list[Group]:
        """Return the groups that somebody is in."""
        return [g for g in self.world.groups if any(means(m, person) for m in g.members)]

    def workspaces_of(self, person: Person) -> list[Workspace]:
        """Return the workspaces that somebody is a member of."""
        return [w for w in self.world.workspaces if any(means(m, person) for m, _ in w.members)]

    def owner_ids(self, caller: Caller) -> set[str]:
        """Return whose files a caller reads as of right."""
        person = caller.person
        if person is None or not is_allowed(person, "view_documents"):
            return set()
        own = {person.id} if person in self.world.people else set()
        return own | {workspace.id for workspace in self.workspaces_of(person)}

    def share_ids(self, person: Person) -> set[str]:
        """Return the shares that open something to somebody now."""
        groups = self.groups_of(person)
        return {
            share.id
            for share in self.world.shares
            if not share.is_expired
            and (share.to in groups if isinstance(share.to, Group) else means(share.to, person))
        }

    def own_level(self, person: Person | None, node: Node) -> str | None:
        """Return somebody's level by ownership, membership and shares, trashed or not."""
        if person is None or not is_allowed(person, "view_documents"):
            return None
        levels = []
        if node.owner is person:
            levels.append("owner")
        if isinstance(node.owner, Workspace):
            levels += [level for member, level in node.owner.members if means(member, person)]
        mine = self.share_ids(person)
        levels += [s.level for s in self.world.shares if s.id in mine and s.node in node.above]
        return highest(levels)

    def managed_owner_ids(self, caller: Caller) -> set[str]:
        """Return the owners on all of whose files a caller has level manage."""
        person = caller.person
        found = self.owner_ids(caller)
        return {
            id_
            for id_ in found
            if (person and id_ == person.id)
            or any(
                w.id == id_ and means(m, person) and rank(level) >= rank("manage")
                for w in self.world.workspaces
                for m, level in w.members
                if person
            )
        }

    def manages(self, person: Person | None, node: Node) -> bool:
        """Whether somebody may share a node, trashed or not."""
        return not node.is_purged and rank(self.own_level(person, node)) >= rank("manage")

    def sees_in_trash(self, caller: Caller, node: Node) -> bool:
        """Whether the list of the trash has a node: what was trashed where somebody writes.

        That is, in their own drive or a workspace where they have level edit, and whatever they
        trashed themselves while they still have level edit on it.
        """
        person = caller.person
        if not person or not self.is_known(caller) or node.is_purged:
            return False
        if node.trashed_with is not node:
            return False
        levels = ["owner"] if node.owner is person else []
        if isinstance(node.owner, Workspace):
            levels += [level for member, level in node.owner.members if means(member, person)]
        if rank(highest(levels)) >= rank("edit"):
            return True
        mine = self.level(caller, node, even_trashed=True)
        return node.trashed_by is person and rank(mine) >= rank("edit")

    # What a link adds -----------------------------------------------------------------------------

    def is_good(self, link: Link) -> bool:
        """Whether a link opens anything; it is worth what its maker may still give."""
        if link.is_expired or link.is_revoked or link.node.trashed_with:
            return False
        return rank(self.own_level(link.maker, link.node)) >= rank("manage")

    def link_of(self, caller: Caller) -> Link | None:
        """Return the good link whose grant a caller sends."""
        grant = caller.grant
        if grant is None or grant.is_expired or not self.is_good(grant.link):
            return None
        return None if caller.person and not caller.person.is_active else grant.link

    # Both -----------------------------------------------------------------------------------------

    def level(self, caller: Caller, node: Node, *, even_trashed: bool = False) -> str | None:
        """Return a caller's level on a node; None when it does not exist for them."""
        if node.is_purged or (node.trashed_with and not even_trashed):
            return None
        own = self.own_level(caller.person, node)
        levels = [own] if own else []
        link = self.link_of(caller)
        if link and link.node in node.above:
            levels.append(link.level if caller.person else "view")
        return highest(levels)

    def reads(self, caller: Caller, node: Node) -> bool:
        """Whether a node exists for a caller."""
        return self.level(caller, node) is not None

    def downloads(self, caller: Caller, node: Node) -> bool:
        """Whether a caller gets the bytes of a file: a link that is used up only shows it."""
        link = self.link_of(caller)
        if link and link.is_used_up:
            caller = Caller(caller.person)
        return self.reads(caller, node)

    def is_known(self, caller: Caller) -> bool:
        """Whether a caller is signed in to an active account."""
        return bool(caller.person and caller.person.is_active)

    # What is asked of a node ----------------------------------------------------------------------

    def answer_to_reading(self, caller: Caller, node: Node) -> str:
        """Return ok, or the error that reading a node must give."""
        if not self.is_known(caller) and not (caller.person is None and self.link_of(caller)):
            return "NOT_AUTHENTICATED"
        return "ok" if self.reads(caller, node) else "NOT_FOUND"

    def answer_to_writing(
        self, caller: Caller, node: Node, level: str, *, even_trashed: bool = False
    ) -> str:
        """Return ok, or the error that an operation needing this level must give."""
        if caller.person is None and self.link_of(caller):
            return "FORBIDDEN"  # anonymous holders only look
        if not self.is_known(caller):
            return "NOT_AUTHENTICATED"
        if not is_allowed(caller.person, "edit_documents"):
            return "FORBIDDEN"  # a viewer never writes
        mine = self.level(caller, node, even_trashed=even_trashed)
        if mine is None:
            return "NOT_FOUND"
        return "ok" if rank(mine) >= rank(level) else "FORBIDDEN"

    def uploads(self, caller: Caller, ticket: Ticket) -> bool:
        """Whether Storage lets a caller send the bytes of a ticket."""
        if ticket.holder is not caller.person:
            return False
        if not is_allowed(caller.person, "edit_documents"):
            return False  # a viewer never writes
        if ticket.state == "completed":
            return True  # meets Storage's own 409
        if ticket.state not in ("open", "uploading") or ticket.is_overdue:
            return False
        return self.answer_to_writing(caller, ticket.file, "edit") == "ok"
