-- Trash: into it, back again, and out of it for good.

insert into private.settings (key, value, description) values
('trash.keep_days', '30', 'Days until what is in the trash is purged; null keeps it for ever.');

create function private.is_trashed(node_id uuid) returns boolean
language sql stable
security definer -- policies ask it about nodes that their own policy hides
set search_path = ''
as $$
    select exists (select 1 from public.nodes as n where n.id = is_trashed.node_id and n.trashed_at is not null);
$$;
comment on function private.is_trashed(uuid) is 'Whether a node is in the trash, or purged.';
grant execute on function private.is_trashed(uuid) to authenticated;

-- Who may, and what is locked ------------------------------------------------------------------

create function private.require_unpurged(node_id uuid) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    -- to others it does not exist any more
    if exists (
        select 1 from public.nodes as n
        where n.id = require_unpurged.node_id
            and n.purged_at is not null
            and private.level_rank(private.user_level(auth.uid(), n)) >= private.level_rank('manage')
    ) then
        perform private.raise_error(
            'LOCKED', 'This is being deleted for good.', jsonb_build_object('id', node_id)
        );
    end if;
end;
$$;
comment on function private.require_unpurged(uuid) is
'Raises LOCKED for a node that is being purged, to those who have the level manage on it.';

create function private.require_trashed(node_id uuid) returns public.nodes
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_node public.nodes;
begin
    perform private.require_unpurged(node_id);
    v_node := private.require_level(node_id, 'edit', true);
    if v_node.trashed_at is null then
        perform private.raise_error(
            'CONFLICT_STATE', 'This is not in the trash.', jsonb_build_object('id', node_id),
            'list_trash shows what can be restored.'
        );
    end if;
    return v_node;
end;
$$;
comment on function private.require_trashed(uuid) is
'The node, when it is in the trash and the caller has the level edit on it. Raises CONFLICT_STATE, LOCKED, NOT_FOUND,
FORBIDDEN.';

create function private.require_purge(node_id uuid, include_trashed boolean default true) returns public.nodes
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    perform private.require_unpurged(node_id);
    return private.require_level(
        node_id, case when private.has_permission('delete_documents') then 'edit' else 'manage' end, include_trashed
    );
end;
$$;
comment on function private.require_purge(uuid, boolean) is
'The node, when the caller may purge it: with the level manage, or edit and the permission
delete_documents. Raises LOCKED, NOT_FOUND, FORBIDDEN.';

create function private.lock_subtrees(root_ids uuid[], ids uuid[] default '{}') returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_ids uuid[] := array(
        select distinct n.owner_id from public.nodes as n where n.id = any(root_ids) order by 1
    );
begin
    -- a deleted account is locked before its files: so is the caller's, which trashed_by will refer to
    perform from auth.users as u where u.id = auth.uid() for key share;
    perform private.lock_tree(v_owner_ids);
    perform private.lock_nodes(root_ids, ids);
    perform from public.owners as o where o.id = any(v_owner_ids) order by o.id for no key update;
    if exists (
        select 1 from public.nodes as n where n.id = any(root_ids) and n.owner_id <> all(v_owner_ids)
    ) then
        -- it changed hands meanwhile; locking another tree now would be out of order
        perform private.raise_error('LOCKED', 'Something in there is being moved.', '{}', 'Try again.');
    end if;
end;
$$;
comment on function private.lock_subtrees(uuid[], uuid[]) is
'Locks all that deleting or restoring these subtrees can change: the trees, the nodes below root_ids and ids themselves
in order of id, the owners. Read again after it. Raises LOCKED.';

create function private.steerable_ids(ids uuid[]) returns uuid[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(n.id order by n.id), '{}')
    from public.nodes as n
    where n.id = any(steerable_ids.ids)
        and private.level_rank(private.my_level(n, true)) >= private.level_rank('edit');
$$;
comment on function private.steerable_ids(uuid[]) is
'Those that the caller may at least trash or restore: nobody locks what they may not write.';

-- Into the trash -------------------------------------------------------------------------------

create function private.trash_trees(ids uuid[]) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_count integer;
begin
    -- what was trashed before keeps its own root
    update public.nodes as n
    set trashed_at = now(), trashed_by = auth.uid(), trash_root_id = (
        select r.id from unnest(n.path) with ordinality as r (id, depth) where r.id = any(ids) order by r.depth limit 1
    )
    where n.path && ids and n.trashed_at is null;
    get diagnostics v_count = row_count;
    perform private.stop_work(ids, true);
    return v_count;
end;
$$;
comment on function private.trash_trees(uuid[]) is
'Puts these nodes and all below them into the trash, whoever asks; how many nodes. The caller has locked them.';

create function private.trash_nodes(ids uuid[]) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_id uuid;
    v_errors jsonb[] := '{}';
    v_detail text;
begin
    perform private.require_writer();
    v_ids := private.check_ids(ids);
    perform private.lock_subtrees(private.steerable_ids(v_ids));
    foreach v_id in array v_ids loop
        begin
            perform private.require_not_root(private.require_level(v_id, 'edit'));
        exception when others then
            get stacked diagnostics v_detail = pg_exception_detail;
            v_errors := v_errors || private.batch_item(v_id, sqlstate, sqlerrm, v_detail);
        end;
    end loop;
    perform private.raise_batch(to_jsonb(v_errors));
    return private.trash_trees(v_ids);
end;
$$;
comment on function private.trash_nodes(uuid[]) is 'Behind public.trash_nodes.';
grant execute on function private.trash_nodes(uuid[]) to anon, authenticated;

create function public.trash_nodes(ids uuid[]) returns integer
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- a subtree of any size is one transaction
as $$ select private.trash_nodes(ids); $$;
comment on function public.trash_nodes(uuid[]) is
'Move files and folders, with all below them, to the trash; returns how many nodes. All or nothing.

From the commit on nothing returns them, list_trash apart; uploads and ingestion under way are stopped. Needs level
edit. Raises INVALID_ARGUMENT (field ids), NOT_FOUND, FORBIDDEN, CONFLICT_STATE (the root folder of a workspace),
LOCKED; details.items has every id that cannot be trashed.';
grant execute on function public.trash_nodes(uuid[]) to anon, authenticated;

-- What is in it --------------------------------------------------------------------------------

create function private.trash_roots(page_size integer, before_at timestamptz, before_id uuid)
returns setof public.nodes
language sql stable
security definer -- the policy of nodes hides what is in the trash
set search_path = ''
as $$
    with drives as materialized (
        -- those in which the caller writes everywhere
        select array(
            select o.id
            from unnest(private.my_owner_ids()) as o (id)
            where private.level_rank(private.owner_level(auth.uid(), o.id)) >= private.level_rank('edit')
        ) as owner_ids
    )
    select r.*
    from (
        select n.*
        from drives as d
        cross join unnest(d.owner_ids) as o (id)
        cross join lateral (
            select t.*
            from public.nodes as t
            where t.owner_id = o.id and t.trash_root_id = t.id and t.purged_at is null
                and (before_at is null or (t.trashed_at, t.id) < (before_at, before_id))
            order by t.trashed_at desc, t.id desc
            limit page_size
        ) as n
        union all
        (
            select t.*
            from public.nodes as t
            where t.trashed_by = auth.uid() and t.trash_root_id = t.id and t.purged_at is null
                and t.owner_id <> all((select d.owner_ids from drives as d)::uuid[])
                and private.level_rank(private.my_level(t, true)) >= private.level_rank('edit')
                and (before_at is null or (t.trashed_at, t.id) < (before_at, before_id))
            order by t.trashed_at desc, t.id desc
            limit page_size
        )
    ) as r
    order by r.trashed_at desc, r.id desc
    limit page_size;
$$;
comment on function private.trash_roots(integer, timestamptz, uuid) is
'What the caller may restore, newest first: of the owners that they may write for, and what they trashed elsewhere.';

create function private.list_trash(page_size integer, cursor text) returns jsonb
language plpgsql stable
security definer -- the policy of nodes hides what is in the trash
set search_path = ''
as $$
declare
    v_after jsonb;
    v_rows jsonb;
    v_owner_ids uuid[];
    v_roots uuid[];
    v_keep_days integer := (private.setting('trash.keep_days') #>> '{}')::integer;
begin
    perform private.require_user();
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    begin
        v_after := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
        if cursor is not null and num_nulls((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid) > 0 then
            raise data_exception;
        end if;
    exception when others then
        perform private.raise_invalid('cursor', 'This cursor is not one that list_trash gave.');
    end;
    v_owner_ids := private.my_owner_ids();
    v_roots := private.granted_roots();

    -- one row more than asked tells whether there is a next page
    select coalesce(jsonb_agg(
        to_jsonb(t) - 'trash_root_id' - 'purged_at' || jsonb_build_object(
            'path', (
                select '/' || string_agg(a.name, '/' order by cardinality(a.path))
                from public.nodes as a
                where a.id = any(t.path) and private.is_readable(a.owner_id, a.path, null, v_owner_ids, v_roots)
            ),
            'purge_at', t.trashed_at + make_interval(days => v_keep_days)
        ) order by t.trashed_at desc, t.id desc
    ), '[]') into v_rows
    from private.trash_roots(page_size + 1, (v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid) as t;

    return jsonb_build_object(
        'items', case when jsonb_array_length(v_rows) > page_size then v_rows - page_size else v_rows end,
        'next_cursor', case when jsonb_array_length(v_rows) > page_size then replace(encode(convert_to(
            jsonb_build_array(
                v_rows -> (page_size - 1) -> 'trashed_at', v_rows -> (page_size - 1) -> 'id'
            )::text, 'UTF8'
        ), 'base64'), e'\n', '') end
    );
end;
$$;
comment on function private.list_trash(integer, text) is 'Behind public.list_trash.';
grant execute on function private.list_trash(integer, text) to anon, authenticated;

create function public.list_trash(page_size integer default 100, cursor text default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_trash(page_size, cursor); $$;
comment on function public.list_trash(integer, text) is
'List what was trashed, newest first: {items, next_cursor}; what was trashed along with a folder is inside of it.

It has what is in your own trash and in that of workspaces where you have level edit, and what you trashed elsewhere
while you still have level edit there. An item is the node with path (names of the place it was in, as far as you may
see them), trashed_at, trashed_by and purge_at (when it will be deleted for good; null for never). page_size: 1 to 1000.
cursor: the next_cursor of the page before. Raises INVALID_ARGUMENT (field page_size or cursor).';
grant execute on function public.list_trash(integer, text) to anon, authenticated;

-- Back again -----------------------------------------------------------------------------------

create function private.trash_place(node public.nodes) returns public.nodes
language sql stable
security invoker
set search_path = ''
as $$
    select a.*
    from public.nodes as a
    where a.id = any((node).path) and a.id <> (node).id and a.trashed_at is null
    order by cardinality(a.path) desc
    limit 1;
$$;
comment on function private.trash_place(public.nodes) is
'The folder that a trashed node returns to: its own while that lives, else the nearest living one above; a null row for
the owner''s root.';

create function private.restored_over(ids uuid[]) returns uuid[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(s.id), '{}')
    from public.nodes as n
    cross join lateral private.trash_place(n) as p
    cross join lateral private.find_sibling(n.owner_id, p.id, n.name) as s
    where n.id = any(restored_over.ids) and n.trashed_at is not null and s.id is not null;
$$;
comment on function private.restored_over(uuid[]) is
'Living nodes that have the names of these trashed ones in the places where they return to.';

create function private.place_restored(node public.nodes, place public.nodes, name text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_is_moved boolean := (place).id is distinct from (node).parent_id;
begin
    -- what was trashed before it stays in the trash, and below it
    update public.nodes as n
    set
        path = coalesce((place).path, '{}') || n.path[cardinality((node).path):],
        trashed_at = case when n.trash_root_id <> (node).trash_root_id then n.trashed_at end,
        trashed_by = case when n.trash_root_id <> (node).trash_root_id then n.trashed_by end,
        trash_root_id = nullif(n.trash_root_id, (node).trash_root_id),
        parent_id = case when n.id = (node).id then (place).id else n.parent_id end,
        name = case when n.id = (node).id then place_restored.name else n.name end,
        updated_at = case
            when n.id = (node).id and (v_is_moved or n.name <> place_restored.name) then now() else n.updated_at
        end
    where n.path @> array[(node).id] and (v_is_moved or n.trash_root_id = (node).trash_root_id);
    perform private.resume_work((node).id);
end;
$$;
comment on function private.place_restored(public.nodes, public.nodes, text) is
'Brings back a node with what was trashed along with it, into a folder (a null row: the owner''s root) under a name.';

create function private.restore_node(node_id uuid, on_conflict text, ids uuid[]) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_node public.nodes;
    v_place public.nodes;
    v_level text;
    v_sibling public.nodes;
    v_name text;
    v_is_moved boolean := false;
    v_is_skipped boolean := false;
begin
    select n.* into v_node from public.nodes as n where n.id = node_id and n.trashed_at is null;
    if not exists (select 1 from unnest(v_node.path) as a (id) where a.id <> node_id and a.id = any(ids)) then
        v_node := private.require_trashed(node_id);
        v_place := private.trash_place(v_node);
        v_is_moved := v_place.id is distinct from v_node.parent_id;
        v_level := case
            when v_place.id is not null then private.my_level(v_place)
            when v_node.owner_id = auth.uid() then 'owner' -- of the root
        end;
        if v_is_moved and coalesce(private.level_rank(v_level), 0) < private.level_rank('edit') then
            perform private.raise_error(
                'FORBIDDEN', 'Its folder is in the trash too, and above it is none that you may write to.',
                jsonb_build_object('id', node_id, 'required', 'edit'), 'Ask the owner to restore it.'
            );
        end if;
        v_name := v_node.name;
        v_sibling := private.find_sibling(v_node.owner_id, v_place.id, v_name);
        if v_sibling.id is not null then
            if on_conflict = 'rename' then
                v_name := private.free_name(v_node.owner_id, v_place.id, v_name);
            elsif on_conflict = 'skip' then
                v_is_skipped := true;
            elsif on_conflict = 'replace' and not exists ( -- neither is what is restored, nor holds it
                select 1 from public.nodes as n where n.id = any(ids) and n.path @> array[v_sibling.id]
            ) then
                perform private.trash_nodes(array[v_sibling.id]);
            else
                perform private.raise_name_conflict(v_sibling, v_name);
            end if;
        end if;
        if not v_is_skipped then
            perform private.place_restored(v_node, v_place, v_name);
        end if;
    end if; -- else it came back with a folder of the same batch
    return jsonb_build_object(
        'id', node_id,
        'name', coalesce(v_name, v_node.name),
        'parent_id', case when v_is_moved and not v_is_skipped then v_place.id else v_node.parent_id end,
        'skipped', v_is_skipped,
        'replaced_id', case when on_conflict = 'replace' then v_sibling.id end,
        'moved', v_is_moved and not v_is_skipped
    );
end;
$$;
comment on function private.restore_node(uuid, text, uuid[]) is
'Restores one node of the batch ids, everything being locked; the item of the answer.';

create function private.restore_nodes(ids uuid[], on_conflict text) returns jsonb
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_policy text;
    v_ids uuid[];
    v_locked_ids uuid[];
    v_in_the_way uuid[] := '{}';
    v_id uuid;
    v_items jsonb := '{}';
    v_errors jsonb[] := '{}';
    v_detail text;
begin
    perform private.require_writer();
    if on_conflict = 'version' then
        perform private.raise_invalid('on_conflict', 'on_conflict must be fail, rename (keep_both), replace or skip.');
    end if;
    v_policy := private.check_conflict_policy(on_conflict);
    v_ids := private.check_ids(ids);
    v_locked_ids := private.steerable_ids(v_ids);
    perform private.lock_tree(array(select n.owner_id from public.nodes as n where n.id = any(v_locked_ids)));
    if v_policy = 'replace' then
        v_in_the_way := private.restored_over(v_locked_ids);
    end if;
    perform private.lock_subtrees(
        v_locked_ids || v_in_the_way,
        array(select unnest(n.path) from public.nodes as n where n.id = any(v_locked_ids)) -- where they return to
    );
    if v_policy = 'replace' and not private.restored_over(v_locked_ids) <@ v_in_the_way then
        perform private.raise_error('LOCKED', 'Something there was changed at the same time.', '{}', 'Try again.');
    end if;

    -- folders before what is inside of them
    for v_id in
        select i.id
        from unnest(v_ids) with ordinality as i (id, position)
        left join public.nodes as n on n.id = i.id
        order by cardinality(n.path), i.position
    loop
        begin
            v_items := v_items || jsonb_build_object(v_id, private.restore_node(v_id, v_policy, v_ids));
        exception when others then
            get stacked diagnostics v_detail = pg_exception_detail;
            v_errors := v_errors || private.batch_item(v_id, sqlstate, sqlerrm, v_detail);
        end;
    end loop;
    perform private.raise_batch(to_jsonb(v_errors));
    return jsonb_build_object('items', coalesce((
        select jsonb_agg(v_items -> i.id::text order by i.position)
        from unnest(v_ids) with ordinality as i (id, position)
    ), '[]'));
end;
$$;
comment on function private.restore_nodes(uuid[], text) is 'Behind public.restore_nodes.';
grant execute on function private.restore_nodes(uuid[], text) to anon, authenticated;

create function public.restore_nodes(ids uuid[], on_conflict text default 'fail') returns jsonb
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- a subtree of any size is one transaction
as $$ select private.restore_nodes(ids, on_conflict); $$;
comment on function public.restore_nodes(uuid[], text) is
'Bring files and folders back from the trash, with all that went along: {items: [{id, name, parent_id, skipped,
replaced_id, moved}]}. All or nothing.

They return to where they were, with shares, versions and text; into the nearest living folder above when theirs is gone
(moved, parent_id null for the owner''s root). What was trashed before its folder stays in the trash; something inside of
a trashed folder can be restored on its own. Ingestion that the trash stopped goes on; a file whose upload the trash
stopped does not come back. on_conflict, when the name is taken: fail, rename (keep_both), replace (what is there goes to
the trash, replaced_id) or skip. Needs level edit, and on the folder too when it is another one. Raises CONFLICT_NAME
{existing_id, suggested}, CONFLICT_STATE when it is not in the trash, INVALID_ARGUMENT (field ids or on_conflict),
NOT_FOUND, FORBIDDEN, LOCKED; details.items has every id that cannot be restored.';
grant execute on function public.restore_nodes(uuid[], text) to anon, authenticated;

-- Gone for good --------------------------------------------------------------------------------

create table private.purge_queue (
    node_id uuid primary key references public.nodes on delete cascade,
    purged_by uuid,
    created_at timestamptz not null default now()
);
comment on table private.purge_queue is
'What was purged and still has rows: a worker removes it and all below. An entry goes with its node, the last one.';
alter table private.purge_queue enable row level security;

create view private.blob_uses with (security_invoker = true) as
select
    v.blob_id,
    v.file_id
from public.file_versions as v
where v.blob_id is not null
union all
select
    r.blob_id,
    r.file_id
from public.renditions as r;
comment on view private.blob_uses is 'Which files have which blobs, as the bytes of a version or as a picture of it.';

create function private.purge_trees(ids uuid[]) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_file_ids uuid[];
    v_count integer;
begin
    v_file_ids := array(
        select n.id from public.nodes as n where n.path && ids and n.purged_at is null and n.kind = 'file'
    );
    update public.nodes as n
    set
        purged_at = now(), trashed_at = coalesce(n.trashed_at, now()), trashed_by = coalesce(n.trashed_by, auth.uid()),
        -- apart from what they were trashed with, which may still come back
        trash_root_id = (
            select r.id
            from unnest(n.path) with ordinality as r (id, depth)
            where r.id = any(ids)
            order by r.depth
            limit 1
        )
    where n.path && ids and n.purged_at is null;
    get diagnostics v_count = row_count;
    perform private.stop_work(ids);
    -- tickets outlive files that never came, not files that are purged
    delete from public.uploads as u where u.file_id = any(v_file_ids);
    delete from public.shares as s using public.nodes as n where n.path && ids and s.node_id = n.id;
    -- a link whose objects are still moving to other keys goes with its node
    delete from public.share_links as l
    using public.nodes as n
    where n.path && ids and l.node_id = n.id and (l.revoking_at is null or l.revoked_at is not null);
    -- their quota returns now; the rows and the objects follow
    update private.blobs as b
    set released_at = now()
    where b.released_at is null
        and b.id in (select u.blob_id from private.blob_uses as u where u.file_id = any(v_file_ids))
        and not exists (
            select 1
            from private.blob_uses as u inner join public.nodes as n on n.id = u.file_id
            where u.blob_id = b.id and n.purged_at is null
        );
    insert into private.purge_queue (node_id, purged_by)
    select n.id, auth.uid() from public.nodes as n where n.id = any(ids)
    on conflict do nothing;
    return v_count;
end;
$$;
comment on function private.purge_trees(uuid[]) is
'Deletes these nodes and all below them for good, whoever asks; how many nodes. From the commit on they are gone for
everybody and their quota is returned. The caller has called lock_subtrees.';

create function private.purge_nodes(ids uuid[]) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_id uuid;
    v_errors jsonb[] := '{}';
    v_detail text;
begin
    perform private.require_writer();
    v_ids := private.check_ids(ids);
    perform private.lock_subtrees(private.steerable_ids(v_ids));
    foreach v_id in array v_ids loop
        begin
            perform private.require_not_root(private.require_purge(v_id));
        exception when others then
            get stacked diagnostics v_detail = pg_exception_detail;
            v_errors := v_errors || private.batch_item(v_id, sqlstate, sqlerrm, v_detail);
        end;
    end loop;
    perform private.raise_batch(to_jsonb(v_errors));
    return private.purge_trees(v_ids);
end;
$$;
comment on function private.purge_nodes(uuid[]) is 'Behind public.purge_nodes.';
grant execute on function private.purge_nodes(uuid[]) to anon, authenticated;

create function public.purge_nodes(ids uuid[]) returns integer
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- a subtree of any size is one transaction
as $$ select private.purge_nodes(ids); $$;
comment on function public.purge_nodes(uuid[]) is
'Delete files and folders for good, trashed or not, with all below them; returns how many nodes. All or nothing.

From the commit on they are gone for everybody and the quota is returned; rows, vectors and objects follow through a
worker. Needs level manage, or level edit and the permission delete_documents. Raises INVALID_ARGUMENT (field ids),
NOT_FOUND, FORBIDDEN, CONFLICT_STATE (the root folder of a workspace), LOCKED while it is being purged already;
details.items has every id that cannot be purged.';
grant execute on function public.purge_nodes(uuid[]) to anon, authenticated;

create function private.purge_trash(
    owner_id uuid, before_at timestamptz default 'infinity', max_nodes bigint default null
) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_count integer := 0;
begin
    perform private.lock_tree(array[purge_trash.owner_id]);
    perform from public.nodes as n
    where n.owner_id = purge_trash.owner_id and n.trashed_at is not null and n.purged_at is null
    order by n.id for no key update;
    perform from public.owners as o where o.id = purge_trash.owner_id for no key update;
    loop
        -- in portions: comparing paths with many roots at once is slow
        v_ids := array(
            select n.id
            from public.nodes as n
            where n.owner_id = purge_trash.owner_id and n.trash_root_id = n.id and n.purged_at is null
                and n.trashed_at < before_at
            order by n.trashed_at, n.id
            limit least(max_nodes - v_count, 500)
        );
        exit when v_ids = '{}';
        v_count := v_count + private.purge_trees(v_ids);
    end loop;
    return v_count;
end;
$$;
comment on function private.purge_trash(uuid, timestamptz, bigint) is
'Purges what was trashed before a time in an owner''s trash, the oldest first, until about max_nodes are done; how many
nodes.';

create function private.empty_trash(owner_id uuid) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_owner_id uuid := coalesce(owner_id, v_user_id);
    v_level text := private.owner_level(v_user_id, v_owner_id);
begin
    if v_level is null then
        perform private.raise_error('NOT_FOUND', 'No such workspace.', jsonb_build_object('id', v_owner_id));
    elsif private.level_rank(v_level) < private.level_rank('manage') then
        perform private.raise_error(
            'FORBIDDEN', format('This needs the level manage; yours is %s.', v_level),
            jsonb_build_object('id', v_owner_id, 'level', v_level, 'required', 'manage')
        );
    end if;
    return private.purge_trash(v_owner_id);
end;
$$;
comment on function private.empty_trash(uuid) is 'Behind public.empty_trash.';
grant execute on function private.empty_trash(uuid) to anon, authenticated;

create function public.empty_trash(owner_id uuid default null) returns integer
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- a trash of any size is one transaction
as $$ select private.empty_trash(owner_id); $$;
comment on function public.empty_trash(uuid) is
'Delete all that is in your trash for good; returns how many nodes.

owner_id: a workspace whose trash to empty instead (level manage). Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.empty_trash(uuid) to anon, authenticated;

create function private.expire_trash(max_nodes integer) returns integer
language plpgsql volatile
security definer -- called by schedules for every owner
set search_path = ''
as $$
declare
    v_cutoff timestamptz := now() - make_interval(days => (private.setting('trash.keep_days') #>> '{}')::integer);
    v_owner_id uuid;
begin
    -- one owner a transaction: locks of several would have to be taken in order
    select n.owner_id into v_owner_id
    from public.nodes as n
    where n.trash_root_id = n.id and n.purged_at is null and n.trashed_at < v_cutoff
    order by n.trashed_at, n.id
    limit 1;
    return case when v_owner_id is null then 0 else private.purge_trash(v_owner_id, v_cutoff, max_nodes) end;
end;
$$;
comment on function private.expire_trash(integer) is
'Purges what has been in the trash for longer than trash.keep_days, of one owner and about max_nodes at once; how many
nodes. Call it until it returns 0.';

create function private.purge_batch(max_nodes integer) returns integer
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_owner_ids uuid[];
    v_owner_id uuid;
    v_texts bytea[];
    v_pictures bytea[];
begin
    -- one at a time, so that no two wait for one another's children
    if not pg_try_advisory_xact_lock(hashtextextended('purge', 0)) then
        return 0;
    end if;
    -- children before parents; what somebody else has locked comes next time
    v_ids := array(
        select n.id from public.nodes as n
        where n.purged_at is not null
        order by cardinality(n.path) desc, n.id
        limit max_nodes
        for update skip locked
    );
    -- a transaction stays short when files are long
    v_ids := array(
        select f.id
        from (
            select i.id, sum(c.count) over (order by i.position) - c.count as before
            from unnest(v_ids) with ordinality as i (id, position)
            cross join lateral (select count(*) as count from public.chunks as t where t.file_id = i.id) as c
            where not exists (
                select 1 from public.nodes as child where child.parent_id = i.id and child.id <> all(v_ids)
            )
        ) as f
        where f.before < 2000
    );
    if v_ids = '{}' then
        return 0;
    end if;
    v_owner_ids := array(select distinct n.owner_id from public.nodes as n where n.id = any(v_ids) order by 1);
    -- somebody may be taking over a blob of theirs
    perform from public.owners as o where o.id = any(v_owner_ids) order by o.id for no key update;
    foreach v_owner_id in array v_owner_ids loop
        perform private.lock_statistics(v_owner_id);
    end loop;
    v_texts := array(
        select private.text_hashes(array(select v.id from public.file_versions as v where v.file_id = any(v_ids)))
    );
    v_pictures := array(
        select distinct p.picture_hash from private.page_pictures as p where p.file_id = any(v_ids)
    );
    delete from private.indexed_files as f where f.file_id = any(v_ids);
    delete from private.chunk_vectors as e where e.file_id = any(v_ids);
    delete from public.nodes as n where n.id = any(v_ids);
    perform private.forget_texts(v_owner_ids, v_texts);
    perform private.forget_pictures(v_owner_ids, v_pictures);
    -- of a deleted workspace this was the last that was left
    delete from public.owners as o
    where o.id = any(v_owner_ids)
        and o.kind = 'workspace'
        and not exists (select 1 from public.workspaces as w where w.id = o.id)
        and not exists (select 1 from public.nodes as n where n.owner_id = o.id)
        and not exists (select 1 from private.blobs as b where b.owner_id = o.id);
    return cardinality(v_ids);
end;
$$;
comment on function private.purge_batch(integer) is
'Removes rows of purged nodes, the deepest first, in one short transaction: text, vectors, versions and blobs, whose
objects are queued for deletion; after the last of a deleted workspace, the owner too. Returns how many nodes; 0 when nothing is left, or another worker is at it.';
grant execute on function private.purge_batch(integer) to narwhal_worker;
