"""A bootstrapped database with policies and triggers to meet, and servers in front of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import sql

from narwhal.local.bootstrap import bootstrap
from narwhal.local.postgres import LOGIN_ROLES, SUPERUSER
from tests.local.storage.serving import ThreadServer, bearer, token

# What an application's migrations would bring. Buckets are told apart by their first letters:
# own-…: everybody in a folder named by their user id; drop-…: insert only, for signed-in users.
POLICIES = """
create policy own_select on storage.objects for select to authenticated
using (bucket_id like 'own-%' and (storage.foldername(name))[1] = (select auth.uid())::text);
create policy own_insert on storage.objects for insert to authenticated
with check (bucket_id like 'own-%' and (storage.foldername(name))[1] = (select auth.uid())::text);
create policy own_update on storage.objects for update to authenticated
using (bucket_id like 'own-%' and (storage.foldername(name))[1] = (select auth.uid())::text);
create policy own_delete on storage.objects for delete to authenticated
using (bucket_id like 'own-%' and (storage.foldername(name))[1] = (select auth.uid())::text);
create policy drop_insert on storage.objects for insert to authenticated
with check (bucket_id like 'drop-%');
create policy grant_select on storage.objects for select to anon
using (
    bucket_id like 'own-%'
    and current_setting('request.headers', true)::jsonb ->> 'x-share-grant' = 'open sesame'
);

create schema app;
create table app.seen (at timestamptz default clock_timestamp(), name text, version text,
    role text, subject text, operation text, metadata jsonb);
grant usage on schema app to public;

-- refuses as the drive's guards do; by the name's words, either in the test or at the end
create function app.tg_objects__refuse() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    if new.name like '%no-ticket%' and not new.metadata ? 'size' then
        raise exception using errcode = '42501', message = 'narwhal/NO_TICKET: no ticket';
    elsif new.name like '%over-quota%' and new.metadata ? 'size' then
        raise exception using errcode = '42501', message = 'narwhal/QUOTA_EXCEEDED: no room';
    elsif new.name like '%odd-code%' then
        raise exception using errcode = 'PT413', message = 'this text is lost';
    elsif new.name like '%away%' and new.metadata ? 'size'
        and exists (select from app.away) then
        raise exception using errcode = '57P01', message = 'shutting down';
    end if;
    return new;
end;
$$;
create trigger _100_refuse before insert or update on storage.objects
for each row execute function app.tg_objects__refuse();
create table app.away ();

-- commits what the statements were run as, even of a probe, so that tests can see it
create function app.tg_objects__seen() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
    if new.name like '%watched%' then
        insert into app.seen (name, version, role, subject, operation, metadata) values (
            new.name, new.version, current_setting('request.jwt.claim.role', true),
            current_setting('request.jwt.claim.sub', true), storage.operation(), new.metadata);
    end if;
    return null;
end;
$$;
create trigger _900_seen after insert or update on storage.objects
for each row execute function app.tg_objects__seen();
"""


@pytest.fixture(scope="session")
def storage_database(cluster: Any) -> Iterator[str]:
    """Make a database with what a new project has, and POLICIES; give its name."""
    name = "storage_tests"
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        bootstrap(cluster.url(SUPERUSER, name), {role: f"test-{role}" for role in LOGIN_ROLES})
        with psycopg.connect(cluster.url(SUPERUSER, name)) as inside:
            inside.execute(POLICIES)
        yield name
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def storage_url(cluster: Any, storage_database: str) -> str:
    """Return the URL with which the API logs in."""
    return str(cluster.url("supabase_storage_admin", storage_database))


@pytest.fixture
def superuser(cluster: Any, storage_database: str) -> Iterator[psycopg.Connection[Any]]:
    """Look at the database behind the API's back; every statement commits."""
    url = cluster.url(SUPERUSER, storage_database)
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def server(storage_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThreadServer]:
    """Serve the API for the whole run, with a limit of 40 MB a file."""
    folder = tmp_path_factory.mktemp("storage")
    with ThreadServer(folder, storage_url, max_file_size=40_000_000) as served:
        yield served


@pytest.fixture
def http(server: ThreadServer) -> Iterator[httpx.Client]:
    """Talk to the server with no key at all."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def service(server: ThreadServer) -> Iterator[httpx.Client]:
    """Talk to the server with the service key."""
    with httpx.Client(
        base_url=server.url, timeout=30, headers=bearer(token("service_role"))
    ) as client:
        yield client


@pytest.fixture
def make_bucket(service: httpx.Client) -> Callable[..., str]:
    """Return a function that makes a bucket with a fresh name."""

    def make(prefix: str = "plain", **options: Any) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        service.post("/bucket", json={"name": name} | options).raise_for_status()
        return name

    return make


@pytest.fixture
def user() -> str:
    """Return the id of somebody who is signed in."""
    return str(uuid.uuid4())
