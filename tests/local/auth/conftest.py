"""A migrated database of its own, and Auth servers in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from narwhal.local.postgres import SUPERUSER
from tests.conftest import Cluster, copied
from tests.local.auth.serving import AuthServer


@pytest.fixture(scope="session")
def auth_database(cluster: Cluster, migrated: Any) -> Iterator[str]:
    """Copy the template once; users of different tests do not meet. Give its name."""
    with copied(cluster, migrated.template_dbname, "narwhal_auth") as name:
        yield name


@pytest.fixture(scope="session")
def auth_url(cluster: Cluster, auth_database: str) -> str:
    """Return the URL with which the API logs in."""
    return cluster.url("supabase_auth_admin", auth_database)


@pytest.fixture(scope="session")
def server(auth_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    """Serve with autoconfirm on, as `narwhal up` does."""
    with AuthServer(tmp_path_factory.mktemp("auth"), auth_url) as served:
        yield served


@pytest.fixture(scope="session")
def confirming(auth_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthServer]:
    """Serve with addresses that have to be confirmed."""
    folder = tmp_path_factory.mktemp("confirming")
    with AuthServer(folder, auth_url, autoconfirm=False) as served:
        yield served


@pytest.fixture
def superuser(cluster: Cluster, auth_database: str) -> Iterator[psycopg.Connection[Any]]:
    """Look at the database behind the API's back; every statement commits."""
    url = cluster.url(SUPERUSER, auth_database)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
