"""One embedded Postgres for the whole run, migrated once; a database or a stack for a test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from pytest_postgresql import factories

from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import LOGIN_ROLES, PORT, SUPERUSER, EmbeddedPostgres
from tests.database import Database


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


# a template with the hosted roles and our schema; every database of a test is a copy of it
migrated = factories.postgresql_noproc(depends_on="cluster", dbname="narwhal_tests", load=[_load])

# a database of its own, for tests that commit or need several connections
fresh_database = factories.postgresql("migrated", dbname="narwhal_fresh")


@pytest.fixture(scope="session")
def shared_database(cluster: Cluster, migrated: Any) -> Iterator[str]:
    """Copy the template once for all tests that roll back; give its name."""
    from pytest_postgresql.janitor import DatabaseJanitor

    with DatabaseJanitor(
        user=cluster.user,
        host=cluster.host,
        port=cluster.port,
        password=cluster.password,
        dbname="narwhal_shared",
        template_dbname=migrated.template_dbname,
    ):
        yield "narwhal_shared"


@pytest.fixture
def db(cluster: Cluster, shared_database: str) -> Iterator[Database]:
    """Open a transaction that is rolled back after the test."""
    with psycopg.connect(cluster.url(SUPERUSER, shared_database)) as connection:
        yield Database(connection)
        connection.rollback()
