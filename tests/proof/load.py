"""Puts a world into the database as rows, as if everything had happened already."""

from __future__ import annotations

from typing import LiteralString

from tests.database import Database
from tests.db.conftest import DIMENSION
from tests.db.pictures import DIMENSION as PATCH
from tests.db.pictures import make_space
from tests.proof.world import Blob, Group, Named, World

WORD = "walrus"
SIZE = 10


def load(db: Database, world: World) -> None:
    """Insert all of it."""
    _people(db, world)
    _tree(db, world)
    _content(db, world)
    _pictures(db, world)
    _access(db, world)
    _state(db, world)


def _insert(db: Database, statement: LiteralString, rows: list[tuple[object, ...]]) -> None:
    """Insert rows in one statement; the parameters of the statement are arrays, a column each."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        db.connection.execute(statement, columns)


def _people(db: Database, world: World) -> None:
    _insert(
        db,
        "insert into auth.users (id, aud, role, email, email_confirmed_at, raw_app_meta_data,"
        " raw_user_meta_data, created_at, updated_at)"
        " select id, 'authenticated', 'authenticated', email,"
        " case when is_confirmed then now() end, '{}', '{}', now(), now()"
        " from unnest(%s::uuid[], %s::text[], %s::boolean[]) as u (id, email, is_confirmed)",
        [(p.id, p.email, p.is_confirmed) for p in world.people],
    )
    _insert(
        db,
        "update public.user_profiles as p set role = u.role, is_active = u.is_active"
        " from unnest(%s::uuid[], %s::text[], %s::boolean[]) as u (id, role, is_active)"
        " where p.id = u.id",
        [(p.id, p.role, p.is_active) for p in world.people],
    )
    _insert(
        db,
        "insert into public.groups (id, name) select * from unnest(%s::uuid[], %s::text[])",
        [(g.id, g.name) for g in world.groups],
    )
    _insert(
        db,
        "insert into public.group_members (group_id, user_id, email)"
        " select * from unnest(%s::uuid[], %s::uuid[], %s::text[])",
        [(g.id, *_columns(m)) for g in world.groups for m in g.members],
    )
    _insert(
        db,
        "insert into public.owners (id, kind, storage_limit)"
        " select id, 'workspace', 1000000 from unnest(%s::uuid[]) as w (id)",
        [(w.id,) for w in world.workspaces],
    )
    _insert(
        db,
        "insert into public.workspaces (id) select * from unnest(%s::uuid[])",
        [(w.id,) for w in world.workspaces],
    )
    _insert(
        db,
        "insert into public.workspace_members (workspace_id, user_id, email, level)"
        " select * from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[])",
        [(w.id, *_columns(m), level) for w in world.workspaces for m, level in w.members],
    )


def _columns(named: Named) -> tuple[str | None, str | None]:
    return named.person.id if named.person else None, named.address


def _tree(db: Database, world: World) -> None:
    _insert(
        db,
        "insert into public.nodes (id, kind, name, parent_id, owner_id, path, size, status,"
        " trashed_at, trash_root_id, trashed_by, purged_at)"
        " select id, kind, name, parent_id, owner_id, path::uuid[], size, status,"
        " case when trash_root_id is not null then now() end, trash_root_id, trashed_by,"
        " case when is_purged then now() end"
        " from unnest(%s::uuid[], %s::text[], %s::text[], %s::uuid[], %s::uuid[], %s::text[],"
        " %s::bigint[], %s::text[], %s::uuid[], %s::uuid[], %s::boolean[])"
        " as n (id, kind, name, parent_id, owner_id, path, size, status, trash_root_id,"
        " trashed_by, is_purged)",
        [
            (
                n.id,
                n.kind,
                n.name,
                n.parent.id if n.parent else None,
                n.owner.id,
                "{" + ",".join(reversed([a.id for a in n.above])) + "}",
                SIZE if n.kind == "file" else 0,
                n.versions[-1].status if n.versions else "ready",
                n.trashed_with.id if n.trashed_with else None,
                n.trashed_by.id if n.trashed_by else None,
                n.is_purged,
            )
            for n in world.nodes
        ],
    )
    _insert(
        db,
        "update public.workspaces as w set root_id = r.root_id"
        " from unnest(%s::uuid[], %s::uuid[]) as r (id, root_id) where w.id = r.id",
        [
            (w.id, next(n.id for n in world.nodes if n.owner is w and not n.parent))
            for w in world.workspaces
        ],
    )


def _content(db: Database, world: World) -> None:
    versions = [
        (file, no, version) for file in world.files for no, version in enumerate(file.versions, 1)
    ]
    blobs: dict[str, Blob] = {v.blob.id: v.blob for _, _, v in versions}
    _insert(
        db,
        "insert into private.blobs (id, owner_id, key, size)"
        " select *, 10 from unnest(%s::uuid[], %s::uuid[], %s::text[])",
        [(b.id, b.owner_id, b.key) for b in blobs.values()],
    )
    _insert(
        db,
        "insert into private.blobs (id, owner_id, bucket, key, size)"
        " select id, owner_id, 'derived', key, 1"
        " from unnest(%s::uuid[], %s::uuid[], %s::text[]) as b (id, owner_id, key)",
        [(v.picture.id, f.owner.id, v.picture.key) for f, _, v in versions],
    )
    db.connection.execute("reset session authorization")
    # as if the tickets had been completed long ago
    db.connection.execute("set session_replication_role = 'replica'")
    _insert(
        db,
        "insert into storage.objects (bucket_id, name, metadata)"
        " select 'files', key, '{\"size\": 10}' from unnest(%s::text[]) as o (key)",
        [(key,) for key in {b.key: b for b in blobs.values()}],
    )
    _insert(
        db,
        "insert into storage.objects (bucket_id, name, metadata)"
        " select 'derived', key, '{\"size\": 1}' from unnest(%s::text[]) as o (key)",
        [(v.picture.key,) for _, _, v in versions],
    )
    db.connection.execute("set session_replication_role = 'origin'")
    db.connection.execute("set session authorization postgres")
    _insert(
        db,
        "insert into public.file_versions (id, file_id, no, blob_id, size, status)"
        " select id, file_id, no, blob_id, 10, status from unnest(%s::uuid[], %s::uuid[],"
        " %s::integer[], %s::uuid[], %s::text[]) as v (id, file_id, no, blob_id, status)",
        [(v.id, f.id, no, v.blob.id, v.status) for f, no, v in versions],
    )
    _insert(
        db,
        "insert into public.renditions (file_id, version_id, kind, blob_id, width, height)"
        " select file_id, version_id, 'thumbnail', blob_id, 1, 1"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[]) as r (file_id, version_id, blob_id)",
        [(f.id, v.id, v.picture.id) for f, _, v in versions],
    )
    _insert(
        db,
        "insert into public.transcripts (version_id, file_id, engine, revision, is_low_quality)"
        " select version_id, file_id, 'test', '1', false"
        " from unnest(%s::uuid[], %s::uuid[]) as t (version_id, file_id)",
        [(v.id, f.id) for f, _, v in versions],
    )
    _insert(
        db,
        "insert into public.transcript_segments (version_id, file_id, start_ms, end_ms, text)"
        " select version_id, file_id, 0, 1, 'walrus'"
        " from unnest(%s::uuid[], %s::uuid[]) as s (version_id, file_id)",
        [(v.id, f.id) for f, _, v in versions],
    )
    _insert(
        db,
        "insert into public.insights (version_id, file_id, kind, items, method, method_version)"
        " select version_id, file_id, 'category', '[]', 'test', '1'"
        " from unnest(%s::uuid[], %s::uuid[]) as i (version_id, file_id)",
        [(v.id, f.id) for f, _, v in versions],
    )
    _insert(
        db,
        "insert into public.images (id, file_id, version_id, idx, width, height, sha256)"
        " select *, 0, 1, 1, repeat('0', 64) from unnest(%s::uuid[], %s::uuid[], %s::uuid[])",
        [(v.image_id, f.id, v.id) for f, _, v in versions],
    )
    _insert(
        db,
        "insert into public.image_locations (image_id, file_id, latitude, longitude)"
        " select *, 0, 0 from unnest(%s::uuid[], %s::uuid[])",
        [(v.image_id, f.id) for f, _, v in versions],
    )
    heads = [(f.id, f.head.id) for f in world.files if f.head]
    _insert(
        db,
        "update public.nodes as n set head_version_id = h.version_id"
        " from unnest(%s::uuid[], %s::uuid[]) as h (file_id, version_id) where n.id = h.file_id",
        heads,
    )
    _insert(
        db,
        "insert into public.pages (id, file_id, version_id, page, text)"
        " select *, 1, 'walrus' from unnest(%s::uuid[], %s::uuid[], %s::uuid[])",
        [(v.page_id, f.id, v.id) for f, _, v in versions],
    )
    _insert(
        db,
        "insert into public.chunks (id, file_id, version_id, idx, page, content, char_start,"
        " char_end, language, text_hash)"
        " select id, file_id, version_id, idx, idx + 1, content, 0, length(content), 'en',"
        " sha256(convert_to(content, 'UTF8'))"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::integer[], %s::text[])"
        " as c (id, file_id, version_id, idx, content)",
        [(p.id, f.id, v.id, i, p.text) for f, _, v in versions for i, p in enumerate(v.passages)],
    )
    _insert(
        db,
        "insert into public.ingest_jobs (id, file_id, version_id, stage, state)"
        " select *, 'extract', 'done' from unnest(%s::uuid[], %s::uuid[], %s::uuid[])",
        [(v.job_id, f.id, v.id) for f, _, v in versions],
    )
    # in service: the heads, those in the trash as well
    _insert(
        db,
        "select private.index_chunks(h.version_id)"
        " from unnest(%s::uuid[], %s::uuid[]) as h (file_id, version_id)",
        heads,
    )
    _insert(
        db,
        "insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)"
        " select 1, owner_id, file_id, chunk_id,"
        " extensions.l2_normalize(embedding::extensions.halfvec)"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[])"
        " as c (owner_id, file_id, chunk_id, embedding)",
        [
            (f.owner.id, f.id, p.id, str(p.vector or [1.0] * DIMENSION))
            for f in world.files
            if f.head
            for p in f.head.passages
        ],
    )


def _pictures(db: Database, world: World) -> None:
    """Every head shows one page, and its first patch as an image, in spaces of their own."""
    for kind in ("page", "image"):
        space = db.one(
            "select id from public.embedding_spaces where kind = %s and state = 'active'", kind
        ) or make_space(db, kind)
        shown = [
            (f, f.head, f.head.patches or [[1.0] * PATCH])
            for f in world.files
            if f.head is not None
        ]
        _insert(
            db,
            "with heads as ("
            "select * from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[])"
            " as h (owner_id, file_id, version_id, patches)"
            "), made as ("
            "insert into private.picture_vectors (space_id, owner_id, picture_hash, vectors)"
            f" select {space}, owner_id, sha256(file_id::text::bytea),"  # type: ignore[arg-type]
            " array(select extensions.l2_normalize(p.patch::text::extensions.halfvec)"
            " from jsonb_array_elements(patches::jsonb) with ordinality as p (patch, no)"
            " order by no)"
            " from heads returning id, owner_id, picture_hash, vectors)"
            " insert into private.page_vectors"
            " (space_id, owner_id, file_id, page, version_id, vector_id, embedding)"
            f" select {space}, m.owner_id, h.file_id, 1, h.version_id, m.id, m.vectors[1]"
            " from made as m inner join heads as h"
            " on sha256(h.file_id::text::bytea) = m.picture_hash",
            [(f.owner.id, f.id, head.id, str(patches)) for f, head, patches in shown],
        )


def _access(db: Database, world: World) -> None:
    _insert(
        db,
        "insert into public.shares (id, node_id, grantee_id, grantee_email, group_id, level,"
        " expires_at)"
        " select id, node_id, grantee_id, grantee_email, group_id, level,"
        " now() + ends_in * interval '1 hour'"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::uuid[], %s::text[],"
        " %s::integer[])"
        " as s (id, node_id, grantee_id, grantee_email, group_id, level, ends_in)",
        [
            (
                s.id,
                s.node.id,
                *(_columns(s.to) if isinstance(s.to, Named) else (None, None)),
                s.to.id if isinstance(s.to, Group) else None,
                s.level,
                -1 if s.is_expired else 1 if s.expires else None,
            )
            for s in world.shares
        ],
    )
    _insert(
        db,
        "insert into public.share_links (id, node_id, level, created_by, expires_at, revoking_at,"
        " max_downloads, downloads)"
        " select id, node_id, level, created_by, now() + ends_in * interval '1 hour',"
        " case when is_revoked then now() end, case when is_used_up then 1 end,"
        " is_used_up::integer"
        " from unnest(%s::uuid[], %s::uuid[], %s::text[], %s::uuid[], %s::integer[], %s::boolean[],"
        " %s::boolean[])"
        " as l (id, node_id, level, created_by, ends_in, is_revoked, is_used_up)",
        [
            (
                li.id,
                li.node.id,
                li.level,
                li.maker.id,
                -1 if li.is_expired else 1,
                li.is_revoked,
                li.is_used_up,
            )
            for li in world.links
        ],
    )
    _insert(
        db,
        "insert into private.link_grants (grant_hash, link_id, expires_at)"
        " select sha256(convert_to(token, 'UTF8')), link_id, now() + ends_in * interval '1 hour'"
        " from unnest(%s::text[], %s::uuid[], %s::integer[]) as g (token, link_id, ends_in)",
        [(g.token, g.link.id, -1 if g.is_expired else 1) for g in world.grants],
    )
    _insert(
        db,
        "insert into public.uploads (id, owner_id, file_id, key, mode, size, state, created_by,"
        " expires_at)"
        " select id, owner_id, file_id, key, 'standard', 10, state, created_by,"
        " now() + ends_in * interval '1 hour'"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::uuid[],"
        " %s::integer[]) as u (id, owner_id, file_id, key, state, created_by, ends_in)",
        [
            (
                t.id,
                t.file.owner.id,
                t.file.id,
                t.key,
                t.state,
                t.holder.id,
                -1 if t.is_overdue else 1,
            )
            for t in world.tickets
        ],
    )
    _insert(
        db,
        "select private.charge(owner_id, 0, 10, 'reserve', id)"
        " from unnest(%s::uuid[], %s::uuid[]) as t (owner_id, id)",
        [(t.file.owner.id, t.id) for t in world.tickets if t.state in ("open", "uploading")],
    )


def _state(db: Database, world: World) -> None:
    nodes = [(n.id, n.owner.id, n.comment_id) for n in world.nodes]
    _insert(
        db,
        "insert into public.comments (node_id, id, body)"
        " select node_id, id, 'a comment' from unnest(%s::uuid[], %s::uuid[], %s::uuid[])"
        " as c (node_id, owner_id, id)",
        nodes,
    )
    _insert(
        db,
        "insert into public.node_tags (node_id, owner_id, tag)"
        " select node_id, owner_id, 'tag' from unnest(%s::uuid[], %s::uuid[])"
        " as t (node_id, owner_id)",
        [(node_id, owner_id) for node_id, owner_id, _ in nodes],
    )
    _insert(
        db,
        "insert into public.node_stats (node_id) select * from unnest(%s::uuid[])",
        [(node_id,) for node_id, _, _ in nodes],
    )
    _insert(
        db,
        "insert into public.node_user_state (user_id, node_id, favourited_at)"
        " select *, now() from unnest(%s::uuid[], %s::uuid[])",
        [(p.id, n.id) for p in world.people for n in world.nodes],
    )
    _insert(
        db,
        "insert into public.notifications (user_id, kind, data)"
        " select user_id, (private.notification_kinds())[1], '{\"proof\": true}'"
        " from unnest(%s::uuid[]) as n (user_id)",
        [(p.id,) for p in world.people],
    )
    _insert(
        db,
        "insert into public.query_analytics (id, user_id, query, mode, request, hits, hit_count,"
        " file_ids, latency_ms, degraded, cached, created_at)"
        " select id, id, 'proof', 'keyword', '{}', '[]', 0, '{}', 0, false, false,"
        " now() + interval '1 day'"  # can be amended as long as the test takes
        " from unnest(%s::uuid[]) as p (id)",
        [(p.id,) for p in world.people],
    )
    _insert(
        db,
        "insert into public.audit_logs (actor, action, actor_id, on_behalf_of, owner_id, details)"
        " select 'proof', 'proof', actor_id, on_behalf_of, owner_id,"
        " jsonb_build_object('thing', thing)"
        " from unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::text[])"
        " as a (actor_id, on_behalf_of, owner_id, thing)",
        [(p.id, None, None, f"by {p.id}") for p in world.people]
        + [(None, p.id, None, f"for {p.id}") for p in world.people]
        + [(None, None, o.id, f"on {o.id}") for o in [*world.people, *world.workspaces]],
    )
    _insert(
        db,
        "insert into public.usage_daily (owner_id, day, used, reserved, storage_limit, live,"
        " versions, trash, derived)"
        " select *, current_date, 0, 0, 0, 0, 0, 0, 0 from unnest(%s::uuid[])"
        " on conflict do nothing",
        [(o.id,) for o in [*world.people, *world.workspaces]],
    )
