"""The ground that the other tests stand on does what it says."""

from __future__ import annotations

import psycopg
import pytest

from tests.conftest import FreshDatabase
from tests.database import Database


def test_acting_as_somebody_sets_role_and_claims_and_gives_them_back(db: Database) -> None:
    user = db.create_user("somebody@example.test", full_name="Some Body")

    with db.as_user(user):
        assert db.one("select auth.uid()") == user
        assert db.one("select current_user::text") == "authenticated"
        with db.as_service():
            assert db.one("select current_user::text") == "service_role"
        assert db.one("select auth.uid()") == user
    with db.as_user(None):
        assert db.one("select current_user::text") == "anon"
        assert db.one("select auth.uid()") is None

    assert db.one("select current_user::text") == "postgres"
    assert db.one("select auth.uid()") is None
    assert db.one("select full_name from public.user_profiles where id = %s", user) == "Some Body"


def test_an_error_inside_undoes_the_block_and_the_test_goes_on(db: Database) -> None:
    db.connection.execute("create table public.marks (id int)")

    with pytest.raises(psycopg.errors.DivisionByZero), db.as_service():
        db.one("select 1 / 0")

    assert db.one("select current_user::text") == "postgres"
    assert db.one("select count(*) from public.marks") == 0


def test_nobody_keeps_the_rights_of_the_connection(db: Database) -> None:
    user = db.create_user()

    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        db.as_user(user),
    ):
        db.connection.execute("set role postgres")


@pytest.mark.parametrize("turn", [1, 2])
def test_what_a_test_writes_is_rolled_back(db: Database, turn: int) -> None:
    assert db.one("select count(*) from auth.users") == 0

    db.create_user()


@pytest.mark.parametrize("turn", [1, 2])
def test_a_fresh_database_is_empty_and_commits(fresh_database: FreshDatabase, turn: int) -> None:
    with fresh_database.connect() as connection:
        connection.execute("insert into auth.users (id, email) values (gen_random_uuid(), 'a@b.c')")
    with fresh_database.connect() as other:
        row = other.execute("select count(*) from public.user_profiles").fetchone()

    assert row == (1,)
