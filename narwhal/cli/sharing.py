"""Who else may see it: `narwhal share …` for people and groups, `narwhal link …` for anybody."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from narwhal.cli.options import (
    AsJson,
    AsUser,
    Expires,
    Home,
    PasswordStdin,
    Place,
    moment,
    open_drive,
    read_password,
)
from narwhal.output import say, show, show_json

share_app = typer.Typer(no_args_is_help=True, help="Open files and folders to people and groups.")
link_app = typer.Typer(no_args_is_help=True, help="Open files and folders to holders of a link.")
SHARE_COLUMNS = ["grantee", "level", "through", "expires_at", "id"]
LINK_COLUMNS = ["level", "has_password", "expires_at", "downloads", "max_downloads", "state", "id"]


class Level(StrEnum):
    """What a share allows."""

    view = "view"
    comment = "comment"
    edit = "edit"
    manage = "manage"


class LinkLevel(StrEnum):
    """What a link allows."""

    view = "view"
    comment = "comment"
    edit = "edit"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(share_app, name="share")
    app.add_typer(link_app, name="link")


@share_app.command("list")
def list_shares(
    path: Place, as_user: AsUser = None, as_json: AsJson = False, home: Home = None
) -> None:
    """List who a file or folder is shared with, also through the folders above it.

    Example: narwhal share list Projects
    """
    with open_drive(home, as_user) as drive:
        rows = drive.shares(str(drive.node(path)["id"]))
    if not as_json:
        rows = [
            {
                **row,
                "grantee": next(text for text in reversed(row["grantee"].values()) if text),
                "through": (row["inherited_from"] or {}).get("name"),
            }
            for row in rows
        ]
    show(rows, SHARE_COLUMNS, as_json=as_json)


@share_app.command("add")
def add(
    path: Place,
    who: Annotated[str, typer.Argument(help="An e-mail address, or the id of a user or group.")],
    level: Annotated[Level, typer.Option(help="What they may do.")] = Level.view,
    group: Annotated[bool, typer.Option("--group", help="WHO is the id of a group.")] = False,
    expires: Expires = None,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Share a file, or a folder with all that is and will be in it. Sharing again changes it.

    Nobody learns whether an address has an account; it counts as soon as somebody confirms it.
    What they get is in their '/Shared with me'.

    Example: narwhal share add Projects ada@example.com --level edit --expires 30d
    """
    kind = "group_id" if group else "email" if "@" in who else "user_id"
    expires_at = moment(expires)
    with open_drive(home, as_user) as drive:
        row = drive.call(
            "share_node",
            {
                "node": drive.node(path)["id"],
                "grantee": {kind: who},
                "level": level.value,
                "expires_at": expires_at,
            },
        )
    if as_json:
        show_json(row)
    else:
        say(f"shared with {who}: {level.value}")


@share_app.command("remove")
def remove(
    path: Place,
    who: Annotated[str, typer.Argument(help="Who loses it: address, id, or the share's own id.")],
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Take a share back; it counts from the next thing that they do.

    Example: narwhal share remove Projects ada@example.com
    """
    with open_drive(home, as_user) as drive:
        from narwhal.lookups import share_with

        share = share_with(drive, path, who)
        drive.rpc("unshare_node", {"share_id": share["id"]})
    if as_json:
        show_json({"removed": share["id"]})
    else:
        say(f"no longer shared with {who}")


@link_app.command("create")
def create(
    path: Place,
    level: Annotated[LinkLevel, typer.Option(help="What holders who sign in may do.")] = (
        LinkLevel.view
    ),
    password: PasswordStdin = False,
    expires: Expires = None,
    max_downloads: Annotated[
        int | None, typer.Option(min=1, help="It is used up after so many downloads.")
    ] = None,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a link to a file or folder; its token is shown now and never again.

    Example: narwhal link create Projects/plan.pdf --expires 7d --max-downloads 5
    """
    arguments = {
        "level": level.value,
        "password": read_password(True) if password else None,
        "expires_at": moment(expires),
        "max_downloads": max_downloads,
    }
    with open_drive(home, as_user) as drive:
        row = drive.call("create_share_link", {"node": drive.node(path)["id"]} | arguments)
    if as_json:
        show_json(row)
    else:
        print(row["token"])


@link_app.command("list")
def list_links(
    path: Place, as_user: AsUser = None, as_json: AsJson = False, home: Home = None
) -> None:
    """List the links to a file or folder, ended ones included.

    Example: narwhal link list Projects/plan.pdf --json | jq -r '.[].id'
    """
    with open_drive(home, as_user) as drive:
        rows = drive.links(str(drive.node(path)["id"]))
    show(rows, LINK_COLUMNS, as_json=as_json)


@link_app.command("revoke")
def revoke(
    link: Annotated[str, typer.Argument(metavar="LINK", help="The id of the link.")],
    hard: Annotated[
        bool,
        typer.Option("--hard", help="Also end signed URLs made from it, within a minute."),
    ] = False,
    as_user: AsUser = None,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """End a link; it opens nothing from now on. There is no way back: make a new one.

    Example: narwhal link revoke 0b54e2f0-7c57-4c4c-9a4e-6e5a0b8a2f10 --hard
    """
    with open_drive(home, as_user) as drive:
        row = drive.call("revoke_share_link", {"id": link, "hard": hard})
    if as_json:
        show_json(row)
    else:
        say("revoking: every object moves to a new key" if row["revoked_at"] is None else "revoked")
