"""One world that has every case at once, so that each mutation of the rule meets what shows it."""

from __future__ import annotations

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


def fixed_world() -> World:
    """Ann's drive and a workspace, opened to the others in each way that there is."""
    ann, fay, gus = Person("ann"), Person("fay"), Person("gus")
    bob, cem = Person("bob", role="viewer"), Person("cem", role="admin")
    dee, eve = Person("dee", is_active=False), Person("eve", is_confirmed=False)
    world = World([ann, fay, gus, bob, cem, dee, eve])

    def folder(name: str, parent: Node | None, owner: Person | Workspace = ann) -> Node:
        world.nodes.append(Node("folder", name, parent.owner if parent else owner, parent))
        return world.nodes[-1]

    def file(name: str, parent: Node | None, owner: Person | Workspace = ann) -> Node:
        node = Node("file", name, parent.owner if parent else owner, parent)
        node.head = Version(Blob(node.owner.id, new_id()))
        node.versions = [Version(Blob(node.owner.id, new_id())), node.head]
        world.nodes.append(node)
        return node

    def share(node: Node, level: str, to: Person | str | Named | Group, **more: bool) -> None:
        if isinstance(to, Person):
            to = Named(to)
        elif isinstance(to, str):
            to = Named(address=to.lower())
        world.shares.append(Share(node, level, to, **more))

    def link(node: Node, level: str, maker: Person = ann, **more: bool) -> Link:
        world.links.append(Link(node, level, maker, **more))
        return world.links[-1]

    def trash(node: Node, by: Person, *, is_purged: bool = False) -> None:
        for other in world.nodes:
            if node in other.above and not other.trashed_with:
                other.trashed_with, other.trashed_by, other.is_purged = node, by, is_purged

    def ask(link: Link, *people: Person | None, is_expired: bool = False) -> None:
        grant = Grant(link, is_expired)
        world.grants.append(grant)
        world.callers += [Caller(person, grant) for person in people]

    world.callers = [Caller(p) for p in [*world.people, None, Person("ghost", is_active=False)]]

    # groups and a workspace name people in each way
    team = Group("team", [Named(fay), Named(address=gus.email.lower())])
    team.members += [Named(address=eve.email.lower()), Named(cem, bob.email.lower()), Named(dee)]
    empty = Group("empty")
    world.groups = [team, empty]
    space = Workspace(
        "space", [(Named(ann), "owner"), (Named(fay), "edit"), (Named(bob), "manage")]
    )
    space.members += [(Named(address=gus.email.lower()), "view"), (Named(dee), "manage")]
    space.members += [
        (Named(address=eve.email.lower()), "owner"),
        (Named(cem, fay.email.lower()), "comment"),
    ]
    space.members += [(Named(gus), "comment")]
    world.workspaces = [space]
    root = folder("space", None, space)
    file("plan.txt", folder("inner", root))
    trash(file("old.txt", root), fay)

    # shares at each level, in each way, living and expired
    a = folder("a", None)
    b = folder("b", a)
    deep = file("deep.txt", b)
    file("top.txt", a)
    share(a, "view", fay)
    share(b, "manage", fay.email)
    share(b, "view", gus)
    share(deep, "comment", gus)
    share(deep, "edit", bob)
    share(deep, "view", dee)
    by_id, by_address, by_group = (folder(name, None) for name in ("id", "address", "group"))
    for shared in (by_id, by_address, by_group):
        file("one.txt", shared)
    share(by_id, "edit", gus, is_expired=True)
    share(by_address, "edit", gus.email, is_expired=True)
    share(by_group, "edit", team, is_expired=True)
    teams, unconfirmed, both = (folder(name, None) for name in ("teams", "unconfirmed", "both"))
    for shared in (teams, unconfirmed, both):
        file("two.txt", shared)
    share(teams, "edit", team)
    share(teams, "view", empty)
    share(unconfirmed, "manage", eve.email)
    share(both, "manage", Named(fay, gus.email.lower()))

    # trash of one's own, of others, and what is being purged
    c = folder("c", None)
    share(c, "edit", fay)
    share(c, "view", gus)
    trash(file("mine.txt", c), ann)
    trash(file("theirs.txt", c), fay)
    trash(file("seen.txt", c), gus)  # had edit then
    trash(file("gone.txt", c), fay, is_purged=True)
    trash(folder("going", None), ann, is_purged=True)
    binned = folder("binned", None)
    kept = file("kept.txt", binned)
    share(binned, "manage", fay)
    share(kept, "view", gus)
    thrown = link(kept, "edit")
    trash(binned, ann)

    # links: good, ended in each way, of somebody who may not give any more
    open_ = folder("open", None)
    opened = file("opened.txt", open_)
    share(opened, "view", gus)
    share(open_, "edit", fay)
    everybody: list[Person | None] = [None, *world.people]
    ask(link(open_, "comment"), *everybody)
    ask(link(open_, "edit"), None, gus, bob)
    ask(world.links[-1], None, gus, is_expired=True)
    ask(link(open_, "view", fay), None, gus)
    ask(link(open_, "view", gus), None, bob)
    ask(link(open_, "edit", is_expired=True), None, bob)
    ask(link(open_, "edit", is_revoked=True), None, bob)
    ask(thrown, None, bob)
    used = link(open_, "view", is_used_up=True)
    ask(used, None, bob, gus)
    ask(link(b, "view", fay), None, cem)

    # bytes: the same for two files, for two owners; tickets in each state
    opened.versions[0] = Version(deep.versions[0].blob)
    theirs = file("theirs.txt", None, gus)
    theirs.versions[0] = Version(Blob(gus.id, kept.versions[0].blob.key))
    waiting = file("waiting.txt", None, fay)
    waiting.versions[1].status, waiting.head = "processing", waiting.versions[0]
    for holder, where in ((ann, deep), (fay, deep), (bob, deep), (gus, deep), (dee, deep)):
        world.tickets.append(Ticket(where, holder))
    for state in ("uploading", "completed", "aborted", "expired", "refused"):
        world.tickets.append(Ticket(deep, ann, state))
    world.tickets.append(Ticket(deep, ann, is_overdue=True))
    world.tickets.append(Ticket(deep, gus, "completed", is_overdue=True))
    world.tickets.append(Ticket(kept, ann, "completed"))
    return world
