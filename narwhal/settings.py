"""Where Narwhal finds its Supabase project: one frozen object, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from narwhal.errors import NarwhalError

# The variables of each setting, the first one that is set wins.
VARIABLES: dict[str, tuple[str, ...]] = {
    "supabase_url": ("NARWHAL_SUPABASE_URL", "SUPABASE_URL"),
    "anon_key": ("NARWHAL_ANON_KEY", "SUPABASE_ANON_KEY"),
    "service_role_key": ("NARWHAL_SERVICE_ROLE_KEY", "SUPABASE_SERVICE_ROLE_KEY"),
    "database_url": ("NARWHAL_DATABASE_URL", "DATABASE_URL"),
    "worker_database_url": ("NARWHAL_WORKER_DATABASE_URL",),
}
# Values that belong to one project: never taken from the local stack when the URL names another.
PROJECT_FIELDS = ("anon_key", "service_role_key", "database_url", "worker_database_url")


class Settings(BaseModel):
    """The settings of one command; secrets are kept out of its repr."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    supabase_url: str | None = None
    anon_key: str | None = Field(default=None, repr=False)
    service_role_key: str | None = Field(default=None, repr=False)
    database_url: str | None = Field(default=None, repr=False)
    worker_database_url: str | None = Field(default=None, repr=False)

    def require(self, name: str) -> str:
        """Return a setting that must be there, or say which variable would provide it."""
        value: str | None = getattr(self, name)
        if value:
            return value
        variable = VARIABLES[name][-1]
        raise NarwhalError(
            f"{variable} is not set and no local stack is running in {self.home}",
            f"Set {variable} (in the environment or in .env), or start a stack: narwhal up",
            error="NOT_CONFIGURED",
            details={"variable": variable},
        )


def default_home() -> Path:
    """Return the folder of the local stack: NARWHAL_HOME, else ~/.narwhal."""
    return Path(os.environ.get("NARWHAL_HOME") or "~/.narwhal").expanduser()


def load_settings(home: Path | None = None, **flags: str | None) -> Settings:
    """Read the settings: flag, environment, .env of the working folder, running local stack.

    `flags` are fields of `Settings`; None counts as not given. The stack fills gaps only when the
    URL is its own: the keys of one project are never sent to another one.
    """
    home = (home.expanduser() if home else default_home()).absolute()
    given = {name: value for name, value in flags.items() if value}
    dotenv = _read_dotenv(Path.cwd() / ".env")
    for name, variables in VARIABLES.items():
        if name not in given:
            value = _first(os.environ, variables) or _first(dotenv, variables)
            if value:
                given[name] = value
    if "supabase_url" in given:
        given["supabase_url"] = given["supabase_url"].rstrip("/")

    stack = _running_stack(home)
    if stack is not None:
        api_url = stack["supabase_url"].rstrip("/")
        if given.get("supabase_url", api_url) == api_url:
            given["supabase_url"] = api_url
            # an explicit database of somebody else's must not be paired with our worker's login
            own_database = given.get("database_url") in (None, stack["database_url"])
            for name in PROJECT_FIELDS:
                if name == "worker_database_url" and not own_database:
                    continue
                if stack[name]:
                    given.setdefault(name, stack[name])
    if "database_url" in given:
        given.setdefault("worker_database_url", given["database_url"])
    return Settings(home=home, **given)


def _first(values: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    return next((values[name] for name in names if values.get(name)), None)


def _read_dotenv(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines; `export`, quotes and comments as shells write them."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, IsADirectoryError):
        return {}
    values: dict[str, str] = {}
    for line in lines:
        key, separator, value = line.strip().removeprefix("export ").partition("=")
        key, value = key.strip(), value.strip()
        if not separator or not key or key.startswith("#"):
            continue
        if value[:1] in ("'", '"'):
            value = value[1:].partition(value[0])[0]
        else:
            value = value.partition(" #")[0].rstrip()
        values[key] = value
    return values


def _running_stack(home: Path) -> dict[str, Any] | None:
    """Return what the local stack of this home offers, None when none runs there."""
    try:
        from narwhal.local.state import read_state
    except ImportError:  # installed without the `local` extra
        return None
    state = read_state(home)
    if state is None or state.state in ("stopped", "crashed") or not state.api_url:
        return None
    return {
        "supabase_url": state.api_url,
        "anon_key": state.anon_key,
        "service_role_key": state.service_role_key,
        "database_url": state.database_url,
        "worker_database_url": state.worker_database_url,
    }
