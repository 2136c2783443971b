"""Live messages: what is sent where, who may listen, and that no write depends on it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from narwhal.local.bootstrap import bootstrap
from narwhal.local.migrate import migrate
from narwhal.local.postgres import SUPERUSER
from tests.conftest import FreshDatabase
from tests.database import Database
from tests.db.conftest import Drive, RolledBackError
from tests.db.looks import beat
from tests.db.surfaces import SECRET, calls, gather
from tests.db.test_audit import tree
from tests.db.test_isolation import make_world

REALTIME = (Path(__file__).parent / "realtime.sql").read_bytes()
POLICIES = {
    "narwhal_inactive_cannot",
    "narwhal_watchers_can_insert",
    "narwhal_watchers_can_select",
}


class LiveDrive(Drive):
    """A drive that commits, on a database with Realtime."""

    def sent(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What was sent since this was last asked: topic, event, payload."""
        self.db.connection.execute("reset session authorization")
        found = self.db.all(
            "with gone as (delete from realtime.messages returning *)"
            " select topic, event, payload - 'id', private, extension from gone"
            " order by topic, event"
        )
        self.db.connection.execute("set session authorization postgres")
        assert all(row[3] and row[4] == "broadcast" for row in found)
        return [row[:3] for row in found]

    def heard(self) -> set[tuple[str, str]]:
        """The topics and events of what was sent since."""
        return {(topic, event) for topic, event, _ in self.sent()}


@pytest.fixture(scope="module")
def live_database(cluster: Any) -> Iterator[str]:
    """A database that had Realtime before our migrations, as hosted projects do."""
    name = "narwhal_live"
    with psycopg.connect(cluster.url(SUPERUSER, "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        bootstrap(cluster.url(SUPERUSER, name), cluster.server.passwords)
        with psycopg.connect(cluster.url(SUPERUSER, name)) as inside:
            inside.execute(REALTIME)
        migrate(cluster.url("postgres", name))
        with psycopg.connect(
            cluster.url(SUPERUSER, name)
        ) as inside:  # as in the template of all other tests
            inside.execute(
                "update private.settings set value = 'false' where key = 'insights.automatic'"
            )
        yield name
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def live(cluster: Any, live_database: str) -> Iterator[LiveDrive]:
    with psycopg.connect(cluster.url(SUPERUSER, live_database), autocommit=True) as connection:
        drive = LiveDrive(Database(connection))
        drive.sent()
        yield drive


@pytest.fixture
def owner(live: LiveDrive) -> uuid.UUID:
    user = live.db.create_user()
    live.sent()
    return user


def folder(live: LiveDrive, owner: uuid.UUID, name: str = "walrus", **more: object) -> str:
    """Make a folder, unheard."""
    made = live.rpc(owner, "create_folder", name=name, **more)["id"]
    live.sent()
    return made  # type: ignore[no-any-return]


# What is sent -------------------------------------------------------------------------------------


def test_folders_hear_what_is_made_in_them(live: LiveDrive, owner: uuid.UUID) -> None:
    parent = live.rpc(owner, "create_folder", name="walrus")["id"]
    node = {"node_id": parent, "kind": "folder", "status": "ready"}
    assert live.sent() == [(f"user:{owner}", "created", {"nodes": [node], "count": 1})]
    child = live.rpc(owner, "create_folder", name="walrus", parent=parent)["id"]
    node = {"node_id": child, "kind": "folder", "status": "ready"}
    assert live.sent() == [(f"node:{parent}", "created", {"nodes": [node], "count": 1})]


def test_renames_moves_trash_and_restores_are_heard_there_and_in_the_folder(
    live: LiveDrive, owner: uuid.UUID
) -> None:
    one, other = folder(live, owner, "one"), folder(live, owner, "other")
    child = folder(live, owner, "child", parent=one)
    live.rpc(owner, "rename_node", id=child, name="Child")
    assert live.heard() == {(f"node:{child}", "renamed"), (f"node:{one}", "renamed")}
    live.rpc(owner, "move_nodes", ids=[child], target=other)
    assert live.heard() == {
        (f"node:{child}", "moved"),
        (f"node:{one}", "moved"),
        (f"node:{other}", "moved"),
    }
    live.rpc(owner, "trash_nodes", ids=[child])
    assert live.heard() == {(f"node:{child}", "trashed"), (f"node:{other}", "trashed")}
    with live.db.connection.transaction():
        live.db.all(
            "update public.nodes set trashed_at = null, trash_root_id = null where id = %s", child
        )
    assert live.heard() == {(f"node:{child}", "restored"), (f"node:{other}", "restored")}
    live.rpc(owner, "purge_nodes", ids=[child])
    assert (f"node:{other}", "purged") in live.heard()


def test_uploads_tell_status_version_stages_and_quota(live: LiveDrive, owner: uuid.UUID) -> None:
    parent = folder(live, owner)
    ticket = live.ticket(owner, "walrus.txt", folder_id=parent)
    assert live.heard() == {(f"node:{parent}", "created"), (f"user:{owner}", "quota")}
    file = ticket["file_id"]
    live.store(owner, ticket["key"], 10)
    heard = live.heard()
    assert heard >= {
        (f"node:{file}", "status"),
        (f"node:{parent}", "status"),
        (f"file:{file}", "ingest"),
        (f"user:{owner}", "quota"),
    }
    live.ingest("the walrus swims", "alpha")
    sent = live.sent()
    assert (f"node:{file}", "version") in {row[:2] for row in sent}
    stages = [p for topic, event, p in sent if (topic, event) == (f"file:{file}", "ingest")]
    assert {(p["stage"], p["state"]) for p in stages} >= {
        (stage, state)
        for stage in ("detect", "extract", "chunk", "embed_text")
        for state in ("running", "done")
    }
    assert all(p["version_id"] == ticket["version_id"] for p in stages)
    last_status = [
        p["nodes"][0]["status"] for t, e, p in sent if (t, e) == (f"node:{file}", "status")
    ]
    assert "ready" in last_status
    assert "walrus" not in json.dumps(sent)


def test_progress_is_heard_at_heartbeats_and_a_mere_renewal_is_not(
    live: LiveDrive, owner: uuid.UUID
) -> None:
    file = live.upload(owner, "a.txt")["file_id"]
    (job,) = live.claim()
    live.sent()
    beat(live, job, 0.5, 1, 2)
    ((topic, event, payload),) = live.sent()
    assert (topic, event) == (f"file:{file}", "ingest")
    assert payload == {
        "job_id": job["id"],
        "version_id": job["version_id"],
        "stage": "detect",
        "space_id": None,
        "state": "running",
        "progress": 0.5,
        "pages_done": 1,
        "pages_total": 2,
        "error_code": None,
    }
    beat(live, job, 0.5, 1, 2)
    assert live.sent() == []
    live.work("fail_job", job, "infected", "A virus called walrus.", True)
    assert "walrus" not in json.dumps(live.sent())


def test_people_hear_of_shares_and_of_notifications_that_they_want(
    live: LiveDrive, owner: uuid.UUID
) -> None:
    peer, quiet = live.db.create_user(), live.db.create_user()
    live.db.all(
        "update public.user_profiles set preferences = jsonb_set(preferences,"
        " '{notifications,desktop}', 'false') where id = %s",
        quiet,
    )
    node = folder(live, owner)
    live.share(node, peer)
    live.share(node, quiet)
    sent = {(topic, event): payload for topic, event, payload in live.sent()}
    assert sent.keys() == {
        (f"user:{peer}", "shared"),
        (f"user:{peer}", "notification"),
        (f"user:{quiet}", "shared"),
    }
    assert sent[f"user:{peer}", "shared"].keys() == {"share_id", "node_id", "level"}
    assert sent[f"user:{peer}", "notification"].keys() == {"notification_id", "kind", "node_id"}
    live.db.all("update public.shares set level = 'edit' where grantee_id = %s", peer)
    assert (f"user:{peer}", "share_changed") in live.heard()
    live.db.all("delete from public.shares where grantee_id = %s", peer)
    assert (f"user:{peer}", "unshared") in live.heard()


def test_a_share_by_address_is_heard_by_whoever_confirmed_it_and_by_nobody_else(
    live: LiveDrive, owner: uuid.UUID
) -> None:
    peer = live.db.create_user("Walrus.Peer@example.test")
    node = folder(live, owner)
    live.db.all(
        "insert into public.shares (node_id, grantee_email, level) values"
        " (%s, 'walrus.peer@example.test', 'view'), (%s, 'nobody@example.test', 'view')",
        *(node, node),
    )
    sent = live.sent()
    assert {topic for topic, event, _ in sent if event == "shared"} == {f"user:{peer}"}
    assert "example.test" not in json.dumps(sent)


def test_comments_are_heard_without_what_they_say(live: LiveDrive, owner: uuid.UUID) -> None:
    node = folder(live, owner)
    comment = live.rpc(owner, "add_comment", node=node, body="the walrus swims")["id"]
    sent = live.sent()
    assert [(topic, event) for topic, event, _ in sent] == [(f"node:{node}", "comment")]
    assert sent[0][2]["comment_id"] == comment
    assert "walrus" not in json.dumps(sent)


def test_quota_is_heard_once_a_transaction(live: LiveDrive, owner: uuid.UUID) -> None:
    for _ in range(2):
        with live.db.connection.transaction():
            for size in range(1, 20):
                live.db.all(
                    "update public.owners set storage_limit = storage_limit + %s where id = %s",
                    *(size, owner),
                )
        assert live.sent() == [(f"user:{owner}", "quota", {"owner_id": str(owner)})]


def test_no_call_of_the_api_sends_a_name_or_a_word_of_text(
    cluster: Any, live_database: str
) -> None:
    heard = set()
    with psycopg.connect(cluster.url(SUPERUSER, live_database)) as connection:
        db = Database(connection)
        drive = Drive(db)
        world = make_world(db, drive)
        admin = db.create_user()
        db.all("update public.user_profiles set role = 'admin' where id = %s", admin)
        for call, arguments in calls().items():
            caller = admin if call in gather("PRIVILEGED") else world.owner
            try:
                with connection.transaction():
                    drive.rpc(caller, call.split()[0], **arguments(world))
                    raise RolledBackError
            except RolledBackError:
                pass
        drive.upload(world.owner, f"{SECRET} again.txt", folder_id=world.folder)
        # as if made in an earlier transaction: what nobody could have seen is not told
        db.all("update public.nodes set created_at = now() - interval '1 s'")
        drive.ingest(f"the {SECRET} dives")
        drive.rpc(world.owner, "rename_node", id=world.file, name=f"{SECRET} renamed.txt")
        drive.rpc(world.owner, "add_comment", node=world.file, body=f"the {SECRET} swims")
        drive.rpc(world.owner, "trash_nodes", ids=[world.folder])
        connection.execute("reset session authorization")
        for event, payload in db.all("select event, payload::text from realtime.messages"):
            assert SECRET not in payload, event
            assert "@" not in payload, event
            heard.add(event)
        connection.rollback()
    assert heard >= {"created", "ingest", "version", "renamed", "comment", "trashed", "shared"}


def test_what_is_rolled_back_is_never_heard(live: LiveDrive, owner: uuid.UUID) -> None:
    with pytest.raises(psycopg.Error), live.db.as_user(owner):
        live.db.one("select (public.create_folder('a')).id")
        live.db.one("select 1 / 0")
    assert live.sent() == []
    live.rpc(owner, "create_folder", name="a")  # control
    assert len(live.sent()) == 1


@pytest.mark.parametrize("count", [10, 20_000])
def test_a_tree_of_any_size_sends_the_same_few_messages(
    live: LiveDrive, owner: uuid.UUID, count: int
) -> None:
    parent = folder(live, owner)
    live.db.all("set statement_timeout = '60s'")
    with live.db.connection.transaction():
        _, inner = tree(live.db, owner, count)  # in two statements
    assert live.heard() == {(f"user:{owner}", "created"), (f"node:{inner}", "created")}
    live.rpc(owner, "move_nodes", ids=[inner], target=parent)
    assert len(live.sent()) == 3
    live.rpc(owner, "trash_nodes", ids=[parent])
    assert live.heard() == {(f"node:{parent}", "trashed"), (f"user:{owner}", "trashed")}
    live.rpc(owner, "purge_nodes", ids=[parent])
    assert len(live.sent()) <= 3


def test_many_nodes_of_one_folder_share_a_message(live: LiveDrive, owner: uuid.UUID) -> None:
    _, inner = tree(live.db, owner, 300)
    ids = live.db.all("select id::text from public.nodes where parent_id = %s", inner)
    live.sent()
    live.rpc(owner, "trash_nodes", ids=ids)
    sent = live.sent()
    assert len(sent) == 200
    (message,) = [payload for topic, _, payload in sent if topic == f"node:{inner}"]
    assert (message["count"], len(message["nodes"])) == (300, 100)


def test_a_copy_is_one_message_whatever_is_in_it(live: LiveDrive, owner: uuid.UUID) -> None:
    source = folder(live, owner)
    for no in range(3):
        live.file(owner, f"{no}.txt", "alpha", folder_id=source)
    live.sent()
    target = folder(live, owner, "target")
    live.rpc(owner, "copy_nodes", ids=[source], target=target)
    assert live.heard() - {(f"user:{owner}", "quota")} == {(f"node:{target}", "created")}


# Writes do not depend on it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "harm",
    [
        "create or replace function realtime.send(payload jsonb, event text, topic text,"
        " private boolean default true) returns void language plpgsql"
        " as $$ begin raise exception 'down'; end; $$",
        "drop table realtime.messages_now",
        "revoke execute on function realtime.send from public, postgres;"
        " alter function realtime.send owner to supabase_admin",
        "drop function realtime.send",
        "revoke usage on schema realtime from postgres",
        "drop schema realtime cascade",
    ],
)
def test_a_broken_realtime_breaks_no_write(live: LiveDrive, owner: uuid.UUID, harm: str) -> None:
    class UndoneError(Exception):
        pass

    with pytest.raises(UndoneError), live.db.connection.transaction():
        live.db.connection.execute("reset session authorization")
        live.db.connection.execute(harm)  # type: ignore[call-overload]
        live.db.connection.execute("set session authorization postgres")
        made = live.rpc(owner, "create_folder", name="a")["id"]
        live.rpc(owner, "trash_nodes", ids=[made])
        assert live.db.one("select trashed_at is not null from public.nodes where id = %s", made)
        raise UndoneError


def test_without_realtime_nothing_is_missing(db: Database) -> None:
    assert db.one("select private.is_live()") is False
    db.all("select private.broadcast('node:x', 'created', '{}')")
    assert db.one("select private.create_live_policies()") == 0


def test_realtime_may_come_later(fresh_database: FreshDatabase) -> None:
    with fresh_database.connect(SUPERUSER) as connection:
        connection.execute(REALTIME)
        live = LiveDrive(Database(connection))
        owner = live.db.create_user()
        live.sent()
        live.rpc(owner, "create_folder", name="a")
        assert live.heard() == {(f"user:{owner}", "created")}
        assert live.db.one("select private.create_live_policies()") == len(POLICIES)
        assert live.db.one("select private.create_live_policies()") == 0
        assert can_listen(live, owner, f"user:{owner}") == {"broadcast", "presence"}
        assert can_listen(live, live.db.create_user(), f"user:{owner}") == set()


# Who may listen -----------------------------------------------------------------------------------


@contextmanager
def _joining(live: LiveDrive, user: uuid.UUID | None, topic: str) -> Iterator[None]:
    """As Realtime asks: in a transaction that is rolled back, under the caller's role."""
    with live.db.connection.transaction(force_rollback=True):
        live.db.connection.execute("reset session authorization")
        for extension in ("broadcast", "presence"):
            live.db.all(
                "insert into realtime.messages (topic, extension) values (%s, %s)",
                *(topic, extension),
            )
        with live.db.as_user(user):
            live.db.all("select set_config('realtime.topic', %s, true)", topic)
            yield


def can_listen(live: LiveDrive, user: uuid.UUID | None, topic: str) -> set[str]:
    """The extensions that a user may listen to on a channel."""
    with _joining(live, user, topic):
        return set(live.db.all("select extension from realtime.messages"))


def can_send(live: LiveDrive, user: uuid.UUID | None, topic: str) -> set[str]:
    """The extensions that a user may write to on a channel."""
    allowed = set()
    with _joining(live, user, topic):
        for extension in ("broadcast", "presence"):
            try:
                with live.db.connection.transaction():
                    live.db.all(
                        "insert into realtime.messages (topic, extension) values (%s, %s)",
                        *(topic, extension),
                    )
                allowed.add(extension)
            except psycopg.errors.InsufficientPrivilege:
                pass
    return allowed


BOTH = {"broadcast", "presence"}


def test_our_policies_came_with_the_migrations(live: LiveDrive) -> None:
    found = live.db.all("select policyname from pg_policies where schemaname = 'realtime'")
    assert set(found) == POLICIES


def test_readers_of_a_node_listen_to_it_and_nobody_else_does(
    live: LiveDrive, owner: uuid.UUID
) -> None:
    peer, stranger = live.db.create_user(), live.db.create_user()
    node = folder(live, owner)
    file = live.upload(owner, "a.txt", folder_id=node)["file_id"]
    live.share(node, peer)
    for topic in (f"node:{node}", f"node:{file}", f"file:{file}"):
        for reader in (owner, peer):
            assert can_listen(live, reader, topic) == BOTH
            assert can_send(live, reader, topic) == {"presence"}
        for other in (stranger, None, uuid.uuid4()):
            assert can_listen(live, other, topic) == set()
            assert can_send(live, other, topic) == set()
    assert can_listen(live, owner, f"file:{node}") == set()  # a folder has no ingestion
    live.db.all("delete from public.shares where grantee_id = %s", peer)
    assert can_listen(live, peer, f"file:{file}") == set()
    live.rpc(owner, "trash_nodes", ids=[node])
    assert can_listen(live, owner, f"node:{file}") == set()


def test_a_users_channel_is_their_own(live: LiveDrive, owner: uuid.UUID) -> None:
    other = live.db.create_user()
    assert can_listen(live, owner, f"user:{owner}") == BOTH
    assert can_listen(live, other, f"user:{owner}") == set()
    assert can_listen(live, None, f"user:{owner}") == set()
    assert can_send(live, owner, f"user:{owner}") == set()


def test_an_account_that_is_closed_hears_nothing(live: LiveDrive, owner: uuid.UUID) -> None:
    node = folder(live, owner)
    live.db.all("update public.user_profiles set is_active = false where id = %s", owner)
    for topic in (f"node:{node}", f"user:{owner}"):
        assert can_listen(live, owner, topic) == set()
        assert can_send(live, owner, topic) == set()


def test_a_projects_own_channels_stay_its_own_but_not_for_the_closed(
    live: LiveDrive, owner: uuid.UUID
) -> None:
    with live.db.connection.transaction(force_rollback=True):
        live.db.connection.execute("reset session authorization")
        live.db.connection.execute(
            "create policy theirs on realtime.messages for select to authenticated"
            " using (realtime.topic() = 'lobby')"
        )
        live.db.connection.execute("set session authorization postgres")
        assert can_listen(live, owner, "lobby") == BOTH
        live.db.all("update public.user_profiles set is_active = false where id = %s", owner)
        assert can_listen(live, owner, "lobby") == set()


@pytest.mark.parametrize(
    "topic", ["", "lobby", "node:", "node:1", "node:%s:x", "nodes:%s", "NODE:%s", "user:", "x:%s"]
)
def test_channels_that_are_not_ours_are_closed(
    live: LiveDrive, owner: uuid.UUID, topic: str
) -> None:
    node = folder(live, owner)
    assert can_listen(live, owner, topic.replace("%s", node)) == set()


def test_only_messages_of_the_channel_itself_are_seen(live: LiveDrive, owner: uuid.UUID) -> None:
    node, other = folder(live, owner), live.db.create_user()
    with _joining(live, other, f"user:{other}"):
        live.db.connection.execute("reset session authorization")
        live.db.all(
            "insert into realtime.messages (topic, extension) values (%s, 'broadcast')",
            f"node:{node}",
        )
        with live.db.as_user(other):
            live.db.all("select set_config('realtime.topic', %s, true)", f"user:{other}")
            seen = set(live.db.all("select topic from realtime.messages"))
    assert seen == {f"user:{other}"}
