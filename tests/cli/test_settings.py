"""Where the settings of a command come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from narwhal.errors import NarwhalError
from narwhal.local.state import StackState, write_state
from narwhal.settings import VARIABLES, Settings, load_settings

STACK = StackState(
    state="running",
    api_url="http://127.0.0.1:5000",
    anon_key="stack-anon",
    service_role_key="stack-service",
    database_url="postgresql://postgres@/stack",
    worker_database_url="postgresql://narwhal_worker@/stack",
)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for names in VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("NARWHAL_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


def load(home: Path, state: StackState | None = STACK, **flags: str) -> Settings:
    if state is not None:
        write_state(home, state)
    return load_settings(home, **flags)


def test_a_flag_wins_over_the_environment_over_dotenv_over_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(tmp_path).database_url == STACK.database_url
    (tmp_path / ".env").write_text("DATABASE_URL=from-dotenv\n")
    assert load(tmp_path).database_url == "from-dotenv"
    monkeypatch.setenv("DATABASE_URL", "from-environment")
    assert load(tmp_path).database_url == "from-environment"
    monkeypatch.setenv("NARWHAL_DATABASE_URL", "from-our-own")
    assert load(tmp_path).database_url == "from-our-own"
    assert load(tmp_path, database_url="from-flag").database_url == "from-flag"


def test_the_home_comes_from_the_environment_when_it_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().home == Path("~/.narwhal").expanduser()
    monkeypatch.setenv("NARWHAL_HOME", str(tmp_path / "home"))
    assert load_settings().home == tmp_path / "home"


@pytest.mark.parametrize("state", ["stopped", "crashed"])
def test_a_stack_that_does_not_run_gives_nothing(tmp_path: Path, state: str) -> None:
    assert load(tmp_path).anon_key == "stack-anon"  # control
    settings = load(tmp_path, STACK.model_copy(update={"state": state}))
    assert settings.supabase_url is None
    assert settings.anon_key is None


def test_keys_of_the_stack_are_not_paired_with_another_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://hosted.example/")
    settings = load(tmp_path)
    assert settings.supabase_url == "https://hosted.example"
    assert settings.anon_key is None
    assert settings.service_role_key is None
    assert settings.database_url is None
    monkeypatch.setenv("SUPABASE_URL", STACK.api_url + "/")  # control: the stack's own URL
    assert load(tmp_path).service_role_key == "stack-service"


def test_the_worker_has_a_login_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tmp_path).worker_database_url == STACK.worker_database_url
    monkeypatch.setenv("DATABASE_URL", STACK.database_url)
    assert load(tmp_path).worker_database_url == STACK.worker_database_url
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/db")
    assert load(tmp_path).worker_database_url == "postgresql://elsewhere/db"
    monkeypatch.setenv("NARWHAL_WORKER_DATABASE_URL", "postgresql://worker@elsewhere/db")
    assert load(tmp_path).worker_database_url == "postgresql://worker@elsewhere/db"


def test_dotenv_is_read_as_a_shell_would(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment = not a value\n"
        "export SUPABASE_URL='https://a.example'\n"
        'SUPABASE_ANON_KEY="with # inside" # outside\n'
        "DATABASE_URL=postgresql://h/d?sslmode=require # why\n"
        "\nnonsense\n"
    )
    settings = load(tmp_path, None)
    assert settings.supabase_url == "https://a.example"
    assert settings.anon_key == "with # inside"
    assert settings.database_url == "postgresql://h/d?sslmode=require"


def test_a_missing_setting_is_named_by_its_variable(tmp_path: Path) -> None:
    with pytest.raises(NarwhalError, match="SUPABASE_SERVICE_ROLE_KEY") as error:
        load(tmp_path, None).require("service_role_key")
    assert "SUPABASE_SERVICE_ROLE_KEY" in (error.value.hint or "")


def test_no_secret_shows_in_a_repr(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert STACK.api_url in repr(settings)  # control
    for text in (repr(settings), str(settings)):
        assert "stack-service" not in text
        assert "narwhal_worker" not in text
        assert "stack-anon" not in text


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path).supabase_url = "https://b.example"  # type: ignore[misc]
