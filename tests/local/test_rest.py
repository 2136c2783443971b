"""Which PostgREST is taken, and that the pinned one cannot be anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from narwhal.errors import NarwhalError
from narwhal.local import rest


def fake(folder: Path, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "postgrest"
    path.write_text(f"#!/bin/sh\necho 'PostgREST {version}'\n")
    path.chmod(0o755)
    return path


def test_the_named_one_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path, named = fake(tmp_path / "path", "13.0"), fake(tmp_path / "named", "12.2.3")
    monkeypatch.setenv("PATH", f"{on_path.parent}:/usr/bin:/bin")
    monkeypatch.delenv("NARWHAL_POSTGREST", raising=False)
    assert rest.find_postgrest(tmp_path) == on_path

    monkeypatch.setenv("NARWHAL_POSTGREST", str(named))
    assert rest.find_postgrest(tmp_path) == named


@pytest.mark.parametrize("version", ["11.2.2", "9.0"])
def test_an_old_one_by_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("NARWHAL_POSTGREST", str(fake(tmp_path / "named", version)))

    with pytest.raises(NarwhalError, match=f"version {version[:4].rstrip('.')}") as error:
        rest.find_postgrest(tmp_path)

    assert error.value.error == "POSTGREST_MISSING"


def test_a_name_that_does_not_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NARWHAL_POSTGREST", str(tmp_path / "nothing"))

    with pytest.raises(NarwhalError, match="does not run"):
        rest.find_postgrest(tmp_path)


def test_an_old_one_on_the_path_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake(tmp_path / "path", "10.1.1")
    node = tmp_path / "package"
    pinned = node / "node_modules" / rest._package()
    pinned.parent.mkdir(parents=True)
    fake(pinned, "12.0.2")
    monkeypatch.delenv("NARWHAL_POSTGREST", raising=False)
    monkeypatch.setenv("PATH", f"{old.parent}:/usr/bin:/bin")
    monkeypatch.setattr(rest, "NODE_FOLDER", node)

    assert rest.find_postgrest(tmp_path) == pinned / "postgrest"


def test_without_npm_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "package"
    node.mkdir()
    (node / "package.json").write_text(f'{{"optionalDependencies": {{"{rest._package()}": "1"}}}}')
    (node / "package-lock.json").write_text("{}")
    monkeypatch.delenv("NARWHAL_POSTGREST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(rest, "NODE_FOLDER", node)

    with pytest.raises(NarwhalError, match="npm") as error:
        rest.find_postgrest(tmp_path)

    assert "Node 20" in (error.value.hint or "")
    assert "NARWHAL_POSTGREST" in (error.value.hint or "")


def test_the_lock_pins_hashes_and_names_no_registry() -> None:
    packages = json.loads((rest.NODE_FOLDER / "package-lock.json").read_text())["packages"]
    installed = {name: package for name, package in packages.items() if name}

    assert installed
    for package in installed.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_postgrest_is_told_everything_and_listens_on_its_socket_only() -> None:
    settings = rest.environment(
        database_url="postgresql://a@/b",
        socket=Path("/run/rest.sock"),
        jwt_secret="s" * 32,
        public_url="http://127.0.0.1:1/rest/v1",
    )

    assert settings["PGRST_SERVER_UNIX_SOCKET"] == "/run/rest.sock"
    assert settings["PGRST_DB_ANON_ROLE"] == "anon"
    assert settings["PGRST_DB_SCHEMAS"] == "public"
    assert settings["PGRST_DB_PRE_REQUEST"] == "private.pre_request"
