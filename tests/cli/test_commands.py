"""The shape of the command line: help, misuse, failures. What commands do is tested on a stack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from narwhal.cli import app
from narwhal.settings import VARIABLES

READING = [
    "ls",
    "search",
    "users list",
    "jobs list",
    "settings list",
    "settings get",
    "reconcile",
    "audit",
    "status",
    "db status",
    "find",
    "du",
    "download",
    "trash list",
    "versions list",
    "share list",
    "link list",
    "eval run",
]
DESTRUCTIVE = ["rm", "trash empty", "versions purge", "db reset"]


def commands() -> dict[str, object]:
    found: dict[str, object] = {}

    def visit(prefix: str, group: object) -> None:
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if hasattr(command, "commands"):
                visit(f"{prefix}{name} ", command)
            else:
                found[prefix + name] = command

    visit("", typer.main.get_command(app))
    return found


COMMANDS = commands()


def narwhal(
    *arguments: str, cwd: Path, stdin: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    ours = {name for names in VARIABLES.values() for name in names} | {"NARWHAL_HOME"}
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [sys.executable, "-m", "narwhal", *arguments],
        cwd=cwd,
        env=clean | {"HOME": str(cwd)} | environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_teaches_with_an_example(name: str) -> None:
    text = COMMANDS[name].help or ""  # type: ignore[attr-defined]
    assert f"narwhal {name}" in text.partition("Example:")[2], text
    for parameter in COMMANDS[name].params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None) or parameter.name == "help", parameter.name


@pytest.mark.parametrize("name", READING)
def test_every_reading_command_prints_json_when_asked(name: str) -> None:
    options = [option for p in COMMANDS[name].params for option in p.opts]  # type: ignore[attr-defined]
    assert "--json" in options


@pytest.mark.parametrize("name", DESTRUCTIVE)
def test_what_deletes_for_good_can_be_tried_and_confirmed(name: str) -> None:
    options = {option for p in COMMANDS[name].params for option in p.opts}  # type: ignore[attr-defined]
    assert options >= {"--yes", "--dry-run"}


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_no_command_takes_a_secret_as_a_flag(name: str) -> None:
    options = {option for p in COMMANDS[name].params for option in p.opts}  # type: ignore[attr-defined]
    assert not options & {"--password", "--service-role-key", "--key", "--token", "--database-url"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["ls", "--nonsense"],
        ["search"],
        ["search", "query", "--mode", "psychic"],
        ["search", "query", "--top-k", "0"],
        ["jobs", "retry", "not-a-uuid"],
        ["worker", "--concurrency", "0"],
        ["upload", "missing.pdf"],
        ["upload", "."],
        ["users", "role", "a@example.com", "root"],
        ["users", "quota", "a@example.com", "lots"],
        ["users", "quota", "a@example.com", "5 iB"],
        ["users", "create", "a@example.com", "--role", "root", "--password-stdin"],
        ["users", "create", "a@example.com"],  # no terminal to ask for the password
        ["users", "create", "a@example.com", "--password-stdin"],  # nothing on stdin
    ],
)
def test_misuse_exits_with_2_and_says_why(arguments: list[str], tmp_path: Path) -> None:
    done = narwhal(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (["ls"], "SUPABASE_URL"),
        (["search", "a question"], "SUPABASE_URL"),
        (["users", "list"], "SUPABASE_SERVICE_ROLE_KEY"),
        (["login", "a@example.com", "--password-stdin"], "SUPABASE_URL"),
        (["jobs", "list"], "DATABASE_URL"),
        (["users", "role", "a@example.com", "user"], "DATABASE_URL"),
        (["users", "deactivate", "a@example.com"], "SUPABASE_SERVICE_ROLE_KEY"),
        (["settings", "list"], "DATABASE_URL"),
        (["reconcile"], "DATABASE_URL"),
    ],
)
def test_without_a_project_the_missing_variable_is_named(
    arguments: list[str], variable: str, tmp_path: Path
) -> None:
    done = narwhal(*arguments, cwd=tmp_path, stdin="secret\n")
    assert done.returncode == 1
    assert done.stdout == ""
    what, hint = done.stderr.splitlines()
    assert what.startswith("error")
    assert variable in what
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    "arguments", [["users", "list"], ["jobs", "list"], ["ls", "--as", "a@example.com"]]
)
def test_a_project_that_does_not_answer_is_two_lines_without_secrets(
    arguments: list[str], tmp_path: Path
) -> None:
    done = narwhal(
        *arguments,
        cwd=tmp_path,
        SUPABASE_URL="http://127.0.0.1:9",
        SUPABASE_ANON_KEY="anon-hunter2",
        SUPABASE_SERVICE_ROLE_KEY="service-hunter2",
        DATABASE_URL="postgresql://postgres:hunter2@127.0.0.1:9/postgres",
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2, done.stderr
    assert "hunter2" not in done.stderr + done.stdout


def test_nobody_logged_in_is_told_how(tmp_path: Path) -> None:
    done = narwhal("ls", cwd=tmp_path, SUPABASE_URL="http://127.0.0.1:9", SUPABASE_ANON_KEY="anon")
    assert done.returncode == 1
    assert "narwhal login" in done.stderr


def test_the_version_is_printed(tmp_path: Path) -> None:
    done = narwhal("--version", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.strip() == "0.1.0"
