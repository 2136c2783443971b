"""One embedded Postgres for the whole run, migrated once; a database or a stack for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories
from pytest_postgresql.janitor import DatabaseJanitor

from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import LOGIN_ROLES, PORT, SUPERUSER, EmbeddedPostgres
from narwhal.local.state import StackState, read_state
from tests.books import assert_balanced
from tests.database import Database

ROOT = Path(__file__).parent.parent


@dataclass
class Cluster:
    """The server of this run, in the words of pytest-postgresql."""

    server: EmbeddedPostgres
    host: str
    password: str
    port: int = PORT
    user: str = SUPERUSER
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str = "template1"

    def url(self, role: str, database: str) -> str:
        """Return the URL of a database for one of the login roles."""
        return self.server.url(role, database)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start an empty cluster; nothing in it outlives the run."""
    home = tmp_path_factory.mktemp("pg")
    passwords = {role: f"test-{role}" for role in LOGIN_ROLES}
    server = EmbeddedPostgres(home / "data", passwords, durable=False)
    server.init()
    server.start()
    try:
        yield Cluster(server, str(server.socket_dir), passwords[SUPERUSER])
    finally:
        server.stop()


def _load(**connection: Any) -> None:
    connection.pop("autocommit", None)
    superuser = make_conninfo(**connection)
    passwords = {role: f"test-{role}" for role in LOGIN_ROLES}
    bootstrap(superuser, passwords)
    migrate(make_conninfo(superuser, user="postgres", password=passwords["postgres"]))
    with psycopg.connect(superuser) as connection:  # a job of each text, that few tests are about
        connection.execute(
            "update private.settings set value = 'false' where key = 'insights.automatic'"
        )


# a template with the hosted roles and our schema; every database of a test is a copy of it
migrated = factories.postgresql_noproc(depends_on="cluster", dbname="narwhal_tests", load=[_load])


@contextmanager
def copied(cluster: Cluster, template: str, name: str) -> Iterator[str]:
    """Copy a database, owned by `postgres` as on a hosted project; give its name."""
    with DatabaseJanitor(
        user=cluster.user,
        host=cluster.host,
        port=cluster.port,
        password=cluster.password,
        dbname=name,
        template_dbname=template,
    ) as janitor:
        with janitor.cursor() as cursor:
            cursor.execute(f"alter database {name} owner to postgres")
        yield name


@dataclass
class FreshDatabase:
    """A migrated database of one test, for tests that commit or need several connections."""

    cluster: Cluster
    name: str

    def url(self, role: str = "postgres") -> str:
        """Return its URL for one of the login roles."""
        return self.cluster.url(role, self.name)

    def connect(self, role: str = "postgres") -> psycopg.Connection[Any]:
        """Open a connection that commits each statement."""
        return psycopg.connect(self.url(role), autocommit=True)


@pytest.fixture
def fresh_database(cluster: Cluster, migrated: Any) -> Iterator[FreshDatabase]:
    """Copy the template for one test (about 50 ms)."""
    with copied(cluster, migrated.template_dbname, "narwhal_fresh") as name:
        yield FreshDatabase(cluster, name)


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster, migrated: Any) -> Iterator[str]:
    """Copy the template once for all tests that roll back; give its name."""
    with copied(cluster, migrated.template_dbname, "narwhal_shared") as name:
        yield name


@pytest.fixture
def db(cluster: Cluster, shared_database: str) -> Iterator[Database]:
    """Open a transaction that is rolled back after the test."""
    with psycopg.connect(cluster.url(SUPERUSER, shared_database)) as connection:
        yield Database(connection)
        connection.rollback()


@pytest.fixture(scope="session")
def stack_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the stack of this run."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def stack(stack_home: Path) -> Iterator[StackState]:
    """Start the whole stack once, as a user does, on a free port; check its books after the run."""
    home = stack_home
    try:
        narwhal("up", "--detach", "--port", "0", "--home", str(home))
        state = read_state(home)
        assert state is not None
        yield state
        assert_balanced(state.database_url, home)
    finally:
        narwhal("down", "--home", str(home))


def clean_environment() -> dict[str, str]:
    """Return the environment without the settings of whoever runs the tests."""
    settings = ("NARWHAL_", "SUPABASE_", "DATABASE_URL")
    return {
        name: value
        for name, value in os.environ.items()
        # the operator's choice of PostgREST is no setting of a project
        if not name.startswith(settings) or name == "NARWHAL_POSTGREST"
    }


def narwhal(*arguments: str) -> str:
    """Run the `narwhal` command, without the caller's own project in sight; return its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "narwhal", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=clean_environment(),
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
