"""Official Supabase clients for the command line: as a logged-in user, as anybody, as admin."""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from supabase import Client, create_client
from supabase.lib.client_options import SyncClientOptions
from supabase_auth import SyncSupportedStorage
from supabase_auth.errors import AuthApiError
from supabase_auth.types import Session

from narwhal.errors import NarwhalError
from narwhal.settings import Settings

CLIENT_SECONDS = 120  # a 6 MiB part over a slow line, or a cold model
LINK_ATTEMPTS = 8


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class SessionFile(SyncSupportedStorage):
    """Keeps the session of `narwhal login` in home/session.json, one per project."""

    def __init__(self, settings: Settings) -> None:
        self.path = settings.home / "session.json"
        self.project = settings.require("supabase_url")

    def get_item(self, key: str) -> str | None:
        """Return the stored session of this project as JSON text."""
        value = self._read().get(self.project, {}).get(key)
        return value if isinstance(value, str) else None

    def set_item(self, key: str, value: str) -> None:
        """Store a session."""
        sessions = self._read()
        sessions[self.project] = {**sessions.get(self.project, {}), key: value}
        write_private(self.path, json.dumps(sessions))

    def remove_item(self, key: str) -> None:
        """Forget the session."""
        sessions = self._read()
        if sessions.get(self.project, {}).pop(key, None) is not None:
            write_private(self.path, json.dumps(sessions))

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            value = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}


def admin_client(settings: Settings) -> Client:
    """Return a client with the service key: it skips Row Level Security."""
    key = settings.require("service_role_key")
    return create_client(settings.require("supabase_url"), key, _options())


def log_in(settings: Settings, email: str, password: str) -> Session:
    """Sign in and keep the session in home/session.json."""
    client = create_client(
        settings.require("supabase_url"),
        settings.require("anon_key"),
        _options(SessionFile(settings)),
    )
    answer = client.auth.sign_in_with_password({"email": email, "password": password})
    if answer.session is None:
        raise NarwhalError(f"no session for {email}", "Confirm the e-mail address first.")
    return answer.session


@contextlib.contextmanager
def user_client(settings: Settings, as_email: str | None = None) -> Iterator[Client]:
    """Give a client that acts as a user: the stored session, or `as_email` with the service key.

    The session for `as_email` comes from Auth itself (a sign-in link that is never sent), lives in
    memory and is signed out at the end. A link that the user has asked for and not used yet is void
    then: Auth keeps one at a time.
    """
    if as_email is None:
        yield _stored_session(settings)
        return
    client = _impersonate(settings, as_email)
    try:
        yield client
    finally:
        # the work is done; a session that outlives us expires by itself
        with contextlib.suppress(Exception):
            client.auth.sign_out({"scope": "local"})


def access_token(client: Client) -> str:
    """Return the user's access token, refreshed when it is about to expire."""
    session = client.auth.get_session()
    if session is None:
        raise _not_logged_in()
    return session.access_token


def refresh(client: Client) -> str:
    """Exchange the refresh token now and return the new access token."""
    answer = client.auth.refresh_session()
    if answer.session is None:
        raise _not_logged_in()
    return answer.session.access_token


def _stored_session(settings: Settings) -> Client:
    url, key = settings.require("supabase_url"), settings.require("anon_key")
    storage = SessionFile(settings)
    client = create_client(url, key, _options(storage))
    # create_client swallows a failed refresh; asking again raises it, with its reason
    session = client.auth.get_session()
    if session is None:
        raise _not_logged_in()
    return client


def _impersonate(settings: Settings, email: str) -> Client:
    admin = admin_client(settings)
    # generate_link creates the account when the address is unknown: a typo must not do that
    if find_user(admin, email) is None:
        raise NarwhalError(
            f"no user {email}", f"Create it: narwhal users create {email}", error="NOT_FOUND"
        )
    client = create_client(
        settings.require("supabase_url"), settings.require("anon_key"), _options()
    )
    for attempt in range(1, LINK_ATTEMPTS + 1):
        link = admin.auth.admin.generate_link({"type": "magiclink", "email": email})
        try:
            client.auth.verify_otp(
                {"token_hash": link.properties.hashed_token, "type": "magiclink"}
            )
        except AuthApiError as error:
            # Auth keeps one link a user: another command asked for a newer one meanwhile
            if error.code != "otp_expired" or attempt == LINK_ATTEMPTS:
                raise
            time.sleep(random.uniform(0, 0.2 * attempt))  # noqa: S311 - spreads the two
        else:
            break
    return client


def find_user(admin: Client, email: str) -> str | None:
    """Return the id of the account with this address, None when there is none."""
    wanted, page, size = email.lower(), 1, 1000
    while True:
        users = admin.auth.admin.list_users(page=page, per_page=size)
        for user in users:
            if (user.email or "").lower() == wanted:
                return user.id
        if len(users) < size:
            return None
        page += 1


def _options(storage: SyncSupportedStorage | None = None) -> SyncClientOptions:
    options = SyncClientOptions(
        # its timer thread keeps the process alive; access_token() refreshes instead
        auto_refresh_token=False,
        postgrest_client_timeout=CLIENT_SECONDS,
        storage_client_timeout=CLIENT_SECONDS,
        function_client_timeout=CLIENT_SECONDS,
    )
    if storage is not None:
        options.storage = storage
    return options


def _not_logged_in() -> NarwhalError:
    return NarwhalError(
        "nobody is logged in",
        "Log in: narwhal login EMAIL (or use --as EMAIL with the service key)",
        error="NOT_AUTHENTICATED",
        status=401,
    )
