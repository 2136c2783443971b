"""Random worlds: drawn by Hypothesis, which makes them small again, or by a seed.

Of several possibilities the plainest comes first, since that is what a draw shrinks to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.proof.oracle import LEVELS
from tests.proof.world import (
    Blob,
    Caller,
    Grant,
    Group,
    Link,
    Named,
    Node,
    Person,
    Share,
    Ticket,
    Version,
    Workspace,
    World,
    new_id,
)

T = TypeVar("T")
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Chance:
    """Choices from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def number(self, most: int) -> int:
        """Return a number from 0 to `most`."""
        return self._random.randint(0, most)

    def some(self, most: int, make: Callable[[Chance], object]) -> None:
        """Make up to so many of something, and not few."""
        for _ in range(most // 2 + self.number(most - most // 2)):
            make(self)

    def one_of(self, things: Sequence[T]) -> T:
        """Return one of some things."""
        return things[self.number(len(things) - 1)]

    def rarely(self) -> bool:
        """Whether something happens that rarely does."""
        return self.number(5) == 5


class Drawn(Chance):
    """Choices of Hypothesis."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw

    def number(self, most: int) -> int:
        """Draw a number."""
        return int(self._draw(st.integers(0, most)))

    def some(self, most: int, make: Callable[[Chance], object]) -> None:
        """Make things, each in a draw of its own, so that shrinking can leave out any of them."""
        for _ in range(most):
            if self.number(most) == 0:
                break
            self._draw(_made(make))


@st.composite
def _made(draw: Draw, make: Callable[[Chance], object]) -> None:
    make(Drawn(draw))


@st.composite
def worlds(draw: Draw) -> World:
    """Worlds of Hypothesis."""
    return draw_world(Drawn(draw))


NAMES = ["ann", "bob", "cem", "dee", "eve", "fay"]


def draw_world(chance: Chance, size: int = 24) -> World:
    """Draw a world of up to `size` nodes."""
    world = World()
    world.people.append(Person(NAMES[0]))
    chance.some(len(NAMES) - 1, lambda c: _person(c, world))
    chance.some(3, lambda c: _group(c, world))
    chance.some(2, lambda c: _workspace(c, world))
    chance.some(size, lambda c: _node(c, world))
    if world.nodes:
        chance.some(4, lambda c: _trash(c, world))
        chance.some(size // 2, lambda c: _share(c, world))
        chance.some(4, lambda c: _link(c, world))
    if any(not file.is_purged for file in world.files):
        chance.some(5, lambda c: _ticket(c, world))
    ghost = Person("ghost", is_active=False)  # signed in, and deleted since
    world.callers = [Caller(person) for person in [*world.people, None, ghost]]
    for grant in world.grants:
        world.callers += [Caller(None, grant), Caller(chance.one_of(world.people), grant)]
        world.callers.append(Caller(chance.one_of(world.people), grant))
    return world


def _person(chance: Chance, world: World) -> None:
    person = Person(NAMES[len(world.people)])
    person.role = chance.one_of(["user", "user", "user", "viewer", "admin"])
    person.is_active, person.is_confirmed = not chance.rarely(), not chance.rarely()
    world.people.append(person)


def _group(chance: Chance, world: World) -> None:
    group = Group(f"g{len(world.groups)}")
    chance.some(3, lambda c: _add(group.members, _named(c, world)))
    world.groups.append(group)


def _workspace(chance: Chance, world: World) -> None:
    workspace = Workspace(f"w{len(world.workspaces)}")
    members: list[Named] = []
    chance.some(4, lambda c: _add(members, _named(c, world)))
    workspace.members = [(member, chance.one_of(LEVELS)) for member in members]
    world.workspaces.append(workspace)
    world.nodes.append(Node("folder", workspace.name, workspace))


def _named(chance: Chance, world: World) -> Named:
    person = chance.one_of(world.people)
    how = chance.number(4)
    if how <= 1:
        return Named(person)
    if how <= 3:
        return Named(address=person.email.lower())
    # the address is only how they were first called: the id decides
    return Named(person, chance.one_of(world.people).email.lower())


def _add(members: list[Named], member: Named) -> None:
    if member not in members:
        members.append(member)


def _node(chance: Chance, world: World) -> None:
    parent = chance.one_of([None, *world.folders])
    owner = parent.owner if parent else chance.one_of(world.people)
    no = len(world.nodes)
    if chance.number(1):
        world.nodes.append(Node("folder", f"d{no}", owner, parent))
        return
    node = Node("file", f"f{no}.txt", owner, parent)
    for _ in range(1 + chance.rarely()):
        node.versions.append(Version(_blob(chance, world, owner.id)))
    node.head = node.versions[-1]
    if chance.rarely():  # the newest is still being read
        node.head = node.versions[-2] if len(node.versions) > 1 else None
        node.versions[-1].status = "processing"
    world.nodes.append(node)


def _blob(chance: Chance, world: World, owner_id: str) -> Blob:
    known = [version.blob for file in world.files for version in file.versions]
    if known and chance.rarely():
        blob = chance.one_of(known)
        # the same bytes twice, or a copy that somebody else pays for
        return blob if blob.owner_id == owner_id else Blob(owner_id, blob.key)
    return Blob(owner_id, new_id())


def _trash(chance: Chance, world: World) -> None:
    node = chance.one_of(world.nodes)
    if node.trashed_with or (isinstance(node.owner, Workspace) and not node.parent):
        return
    is_purged = chance.rarely()
    person = node.owner if isinstance(node.owner, Person) else chance.one_of(world.people)
    if chance.rarely():
        person = chance.one_of(world.people)
    for other in world.nodes:
        if node in other.above:
            if not other.trashed_with:
                other.trashed_with, other.trashed_by = node, person
            other.is_purged = other.is_purged or is_purged


def _share(chance: Chance, world: World) -> None:
    to: Named | Group
    if world.groups and chance.number(3) == 3:
        to = chance.one_of(world.groups)
    else:
        to = _named(chance, world)
    share = Share(chance.one_of(world.nodes), chance.one_of(LEVELS[:4]), to)
    share.is_expired = chance.rarely()
    share.expires = share.is_expired or chance.rarely()
    if not any(s.node is share.node and s.to == share.to for s in world.shares):
        world.shares.append(share)


def _link(chance: Chance, world: World) -> None:
    node = chance.one_of(world.nodes)
    maker = node.owner if isinstance(node.owner, Person) else chance.one_of(world.people)
    if chance.rarely():
        maker = chance.one_of(world.people)
    link = Link(node, chance.one_of(LEVELS[:3]), maker)
    link.is_expired, link.is_revoked = chance.rarely(), chance.rarely()
    link.is_used_up = chance.rarely()
    world.links.append(link)
    world.grants.append(Grant(link, is_expired=chance.rarely()))


def _ticket(chance: Chance, world: World) -> None:
    file = chance.one_of([file for file in world.files if not file.is_purged])
    holder = file.owner if isinstance(file.owner, Person) else chance.one_of(world.people)
    if chance.rarely():
        holder = chance.one_of(world.people)
    state = chance.one_of(["open", "open", "uploading", "completed", "aborted"])
    if file.trashed_with and state in ("open", "uploading"):
        state = "aborted"  # trashing ends them
    world.tickets.append(Ticket(file, holder, state, is_overdue=chance.rarely()))
