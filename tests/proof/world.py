"""A drive as plain data: who there is, what they have, what is opened to whom."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field


def new_id() -> str:
    """Make an id."""
    return str(uuid.uuid4())


@dataclass
class Person:
    """An account."""

    name: str
    role: str = "user"
    is_active: bool = True
    is_confirmed: bool = True
    id: str = field(default_factory=new_id)

    @property
    def email(self) -> str:
        """The address, spelt as the account has it."""
        return f"{self.name}.{self.id[:8]}@Example.test"


@dataclass
class Named:
    """How a row names somebody: by id, by address, or by both."""

    person: Person | None = None
    address: str | None = None

    def __str__(self) -> str:
        return " alias ".join(
            ([self.person.name] if self.person else [])
            + ([self.address.split(".")[0] + "@"] if self.address else [])
        )


@dataclass
class Group:
    """People to share with at once."""

    name: str
    members: list[Named] = field(default_factory=list)
    id: str = field(default_factory=new_id)


@dataclass
class Workspace:
    """An owner that several people share."""

    name: str
    members: list[tuple[Named, str]] = field(default_factory=list)
    id: str = field(default_factory=new_id)


@dataclass
class Blob:
    """Bytes somewhere."""

    owner_id: str
    key: str
    id: str = field(default_factory=new_id)


@dataclass
class Passage:
    """A piece of a version's text, on a page of its own; without a vector it points everywhere."""

    text: str = "walrus"
    vector: list[float] | None = None
    id: str = field(default_factory=new_id)


@dataclass
class Version:
    """One content of a file."""

    blob: Blob
    status: str = "ready"
    id: str = field(default_factory=new_id)
    passages: list[Passage] = field(default_factory=lambda: [Passage()])
    patches: list[list[float]] = field(default_factory=list)  # of its only picture; none: any
    page_id: str = field(default_factory=new_id)
    job_id: str = field(default_factory=new_id)
    image_id: str = field(default_factory=new_id)
    picture: Blob = field(default_factory=lambda: Blob("", new_id()))  # a rendition

    @property
    def chunk_id(self) -> str:
        """The first passage."""
        return self.passages[0].id


@dataclass
class Node:
    """A file or a folder."""

    kind: str
    name: str
    owner: Person | Workspace
    parent: Node | None = None
    versions: list[Version] = field(default_factory=list)
    head: Version | None = None
    trashed_with: Node | None = None  # the node whose trashing took it along
    trashed_by: Person | None = None
    is_purged: bool = False
    id: str = field(default_factory=new_id)
    comment_id: str = field(default_factory=new_id)

    @property
    def above(self) -> Iterator[Node]:
        """The node itself and everything above it."""
        node: Node | None = self
        while node:
            yield node
            node = node.parent

    @property
    def path(self) -> str:
        """Names from the root."""
        return "/".join(reversed([node.name for node in self.above]))


@dataclass
class Share:
    """A node opened to a person or a group."""

    node: Node
    level: str
    to: Named | Group
    is_expired: bool = False
    expires: bool = False
    id: str = field(default_factory=new_id)


@dataclass
class Link:
    """A node opened to whoever holds a token."""

    node: Node
    level: str
    maker: Person
    is_expired: bool = False
    is_revoked: bool = False
    is_used_up: bool = False  # has had as many downloads as it may
    id: str = field(default_factory=new_id)


@dataclass
class Grant:
    """What opening a link gave to somebody."""

    link: Link
    is_expired: bool = False
    token: str = field(default_factory=new_id)


@dataclass
class Ticket:
    """The right to upload the bytes of a file."""

    file: Node
    holder: Person
    state: str = "open"
    is_overdue: bool = False
    id: str = field(default_factory=new_id)
    key: str = field(default_factory=new_id)


@dataclass
class Caller:
    """Who asks: an account or nobody, perhaps with what a link gave them."""

    person: Person | None
    grant: Grant | None = None

    def __str__(self) -> str:
        name = self.person.name if self.person else "anon"
        return f"{name} (with the link to {self.grant.link.node.path})" if self.grant else name


@dataclass(repr=False)
class World:
    """All of it."""

    people: list[Person] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    workspaces: list[Workspace] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    tickets: list[Ticket] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)

    @property
    def files(self) -> list[Node]:
        """The nodes that are files."""
        return [node for node in self.nodes if node.kind == "file"]

    @property
    def folders(self) -> list[Node]:
        """The nodes that are folders."""
        return [node for node in self.nodes if node.kind == "folder"]

    def __repr__(self) -> str:
        """Keep Hypothesis from telling it twice."""
        return f"<{len(self.nodes)} nodes>"

    def __str__(self) -> str:
        """Tell the world in words."""
        lines = []
        for person in self.people:
            traits = [person.role] * (person.role != "user")
            traits += ["deactivated"] * (not person.is_active)
            traits += ["address not confirmed"] * (not person.is_confirmed)
            lines.append(f"{person.name} is a {', '.join(traits) or 'user'}")
        for group in self.groups:
            lines.append(f"group {group.name}: {', '.join(map(str, group.members)) or 'nobody'}")
        for workspace in self.workspaces:
            members = ", ".join(f"{who} ({level})" for who, level in workspace.members)
            lines.append(f"workspace {workspace.name}: {members or 'nobody'}")
        for node in self.nodes:
            state = ", purged" if node.is_purged else ""
            if node.trashed_with:
                state += f", trashed with {node.trashed_with.path}"
                state += f" by {node.trashed_by.name}" if node.trashed_by else ""
            if node.kind == "file":
                state += f", {len(node.versions)} versions" + ", no head" * (node.head is None)
            lines.append(f"{node.kind} {node.path} of {node.owner.name}{state}")
        for share in self.shares:
            to = f"group {share.to.name}" if isinstance(share.to, Group) else str(share.to)
            lines.append(
                f"{share.node.path} is shared with {to}: {share.level}"
                + ", expired" * share.is_expired
            )
        for link in self.links:
            lines.append(
                f"link of {link.maker.name} to {link.node.path}: {link.level}"
                + ", expired" * link.is_expired
                + ", revoked" * link.is_revoked
                + ", used up" * link.is_used_up
            )
        for grant in self.grants:
            lines.append(
                f"a grant of the link to {grant.link.node.path}" + ", expired" * grant.is_expired
            )
        for ticket in self.tickets:
            lines.append(
                f"ticket of {ticket.holder.name} for {ticket.file.path}: {ticket.state}"
                + ", overdue" * ticket.is_overdue
            )
        return "\n".join(lines)
