"""Accounts: `narwhal users …` and `narwhal login`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from narwhal.cli.database import execute
from narwhal.cli.options import AsJson, Home, PasswordStdin, read_password
from narwhal.output import say, show, show_json
from narwhal.settings import load_settings

users_app = typer.Typer(no_args_is_help=True, help="Create and list accounts (service key).")
PAGE = 1000


def register(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(users_app, name="users")
    app.command("login")(login)


@users_app.command("create")
def create(
    email: Annotated[str, typer.Argument(help="The address to log in with.")],
    password_stdin: PasswordStdin = False,
    role: Annotated[str, typer.Option(help="Role of the new account.")] = "user",
    as_json: AsJson = False,
    home: Home = None,
) -> None:
    r"""Create an account whose address counts as confirmed.

    Example: printf '%s\n' "$PASSWORD" | narwhal users create ada@example.com --password-stdin
    """
    password = read_password(password_stdin, confirm=True)
    settings = load_settings(home)
    # the API cannot change a role: it is asked for before the account exists, not after
    database_url = settings.require("database_url") if role != "user" else ""
    from narwhal.session import admin_client

    user = (
        admin_client(settings)
        .auth.admin.create_user({"email": email, "password": password, "email_confirm": True})
        .user
    )
    if role != "user":
        execute(database_url, "users_set_role", {"user_id": user.id, "role": role})
    row = {"id": user.id, "email": user.email, "role": role}
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


def _profiles(admin: Any, ids: list[str]) -> dict[str, dict[str, Any]]:
    """Read the profiles of some accounts, a few hundred ids at a time (they go in the URL)."""
    columns = "id,role,is_active,storage_used,storage_limit"
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(ids), 100):
        some = ids[start : start + 100]
        answer = admin.table("user_profiles").select(columns).in_("id", some).execute()
        found.update({row["id"]: row for row in answer.data})
    return found
