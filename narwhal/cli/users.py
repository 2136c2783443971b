"""Accounts: `narwhal users …` and `narwhal login`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home, PasswordStdin, parse_size, read_password
from narwhal.errors import NarwhalError
from narwhal.output import human_size, say, show, show_json
from narwhal.settings import Settings, load_settings

users_app = typer.Typer(no_args_is_help=True, help="Create, list and change accounts.")
PAGE = 1000
FOR_GOOD = "876000h"  # a hundred years; Auth has no ban without an end
Email = Annotated[str, typer.Argument(help="The address of the account.")]


class Role(StrEnum):
    """What an account may do at all."""

    viewer = "viewer"
    user = "user"
    admin = "admin"


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(users_app, name="users")
    app.command("login")(login)


@users_app.command("create")
def create(
    email: Annotated[str, typer.Argument(help="The address to log in with.")],
    password_stdin: PasswordStdin = False,
    role: Annotated[Role, typer.Option(help="Role of the new account.")] = Role.user,
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    r"""Create an account whose address counts as confirmed.

    Example: printf '%s\n' "$PASSWORD" | narwhal users create ada@example.com --password-stdin
    """
    password = read_password(password_stdin, confirm=True)
    settings = load_settings(home)
    # the API cannot change a role: it is asked for before the account exists, not after
    database_url = settings.require("database_url") if role != Role.user else ""
    from narwhal.session import admin_client

    user = (
        admin_client(settings)
        .auth.admin.create_user({"email": email, "password": password, "email_confirm": True})
        .user
    )
    if role != Role.user:
        execute(database_url, "users_set_role", {"user_id": user.id, "role": role.value})
    row = {"id": user.id, "email": user.email, "role": role.value}
    if as_json:
        show_json(row)
    else:
        print(f"{user.email}  {user.id}")


@users_app.command("list")
def list_users(as_json: AsJson = False, home: Home = None) -> None:
    """List accounts with their role and how much they store.

    Example: narwhal users list --json | jq -r '.[].email'
    """
    from narwhal.session import admin_client

    admin = admin_client(load_settings(home))
    rows: list[dict[str, Any]] = []
    page = 1
    while True:
        users = admin.auth.admin.list_users(page=page, per_page=PAGE)
        ids = [user.id for user in users]
        profiles = _profiles(admin, ids)
        for user in users:
            profile = profiles.get(user.id, {})
            rows.append(
                {
                    "id": user.id,
                    "email": user.email,
                    "role": profile.get("role"),
                    "is_active": profile.get("is_active"),
                    "storage_used": profile.get("storage_used"),
                    "storage_limit": profile.get("storage_limit"),
                    "created_at": user.created_at,
                    "last_sign_in_at": user.last_sign_in_at,
                }
            )
        if len(users) < PAGE:
            break
        page += 1
    columns = ["email", "role", "is_active", "storage_used", "storage_limit", "id"]
    show(rows, columns, as_json=as_json)


@users_app.command("role")
def role(
    email: Email,
    new_role: Annotated[Role, typer.Argument(metavar="ROLE", help="viewer, user or admin.")],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Give an account another role. The last active administrator keeps theirs.

    A viewer reads and never writes. Takes effect at once.

    Example: narwhal users role ada@example.com viewer
    """
    account = _change(load_settings(home), "users_role", email, role=new_role.value)
    _show_account(account, f"{email} is {account['role']}", as_json)


@users_app.command("quota")
def quota(
    email: Email,
    storage_limit: Annotated[
        int, typer.Argument(metavar="SIZE", parser=parse_size, help="Such as 500MB or 50GiB.")
    ],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Set how much an account may store. Below what it stores already nothing is lost.

    Example: narwhal users quota ada@example.com 50GiB
    """
    account = _change(load_settings(home), "users_quota", email, storage_limit=storage_limit)
    used, limit = human_size(account["storage_used"]), human_size(account["storage_limit"])
    _show_account(account, f"{email} uses {used} of {limit}", as_json)


@users_app.command("plan")
def plan(
    email: Email,
    new_plan: Annotated[str, typer.Argument(metavar="PLAN", help="Its name in the table plans.")],
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    """Give an account another plan, and its limits.

    Example: narwhal users plan ada@example.com free
    """
    account = _change(load_settings(home), "users_plan", email, plan=new_plan)
    _show_account(account, f"{email} has the plan {account['plan']}", as_json)


@users_app.command("deactivate")
def deactivate(email: Email, as_json: AsJson = False, home: Home = None) -> None:
    """Close an account: it reaches nothing any more, from its next request on.

    Its uploads under way end, Auth lets it in no more. Its files stay; `users activate` opens it
    again. The last active administrator stays.

    Example: narwhal users deactivate ada@example.com
    """
    account = _set_active(load_settings(home), email, is_active=False)
    _show_account(account, f"{email} is closed", as_json)


@users_app.command("activate")
def activate(email: Email, as_json: AsJson = False, home: Home = None) -> None:
    """Open a closed account again.

    Example: narwhal users activate ada@example.com
    """
    account = _set_active(load_settings(home), email, is_active=True)
    _show_account(account, f"{email} is open", as_json)


def login(
    email: Annotated[str, typer.Argument(help="The address of your account.")],
    password_stdin: PasswordStdin = False,
    home: Home = None,
) -> None:
    """Log in and keep the session for upload, ls and search.

    The session is kept in session.json under the home folder, readable by you alone.

    Example: narwhal login ada@example.com
    """
    password = read_password(password_stdin)
    from narwhal.session import log_in

    session = log_in(load_settings(home), email, password)
    say(f"logged in as {session.user.email}")


def _change(settings: Settings, query: str, email: str, **arguments: object) -> dict[str, Any]:
    """Run one of the change_… functions for an address; return the account."""
    url = settings.require("database_url")
    rows = execute(url, query, {"email": email, **arguments})
    if not rows:
        raise NarwhalError(
            f"no user {email}", "See the accounts: narwhal users list", error="NOT_FOUND"
        )
    account: dict[str, Any] = rows[0]["account"]
    return account


def _set_active(settings: Settings, email: str, *, is_active: bool) -> dict[str, Any]:
    from narwhal.session import admin_client

    admin = admin_client(settings)  # a missing key is said before anything changes
    account = _change(settings, "users_active", email, is_active=is_active)
    # the rows decide at once; the ban keeps Auth from handing out tokens that open nothing
    ban = "none" if is_active else FOR_GOOD
    admin.auth.admin.update_user_by_id(account["id"], {"ban_duration": ban})
    return account


def _show_account(account: dict[str, Any], line: str, as_json: bool) -> None:
    if as_json:
        show_json(account)
    else:
        print(line)


def _profiles(admin: Any, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Read the profiles of some accounts, a few hundred ids at a time (they go in the URL)."""
    columns = "id,role,is_active,storage_used,storage_limit"
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), 100):
        some = ids[start : start + 100]
        answer = admin.table("user_profiles").select(columns).in_("id", some).execute()
        found.update({row["id"]: row for row in answer.data})
    return found
