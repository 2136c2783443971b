-- Trash and purge, and the bytes that nothing refers to any more.

-- Trash and purge ------------------------------------------------------------------------------

create function private.trash_nodes(ids uuid[]) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_id uuid;
    v_count integer;
begin
    perform private.require_writer();
    for v_id in select distinct unnest(ids) order by 1 loop
        perform private.require_level(v_id, 'edit');
    end loop;
    -- nodes, owners, jobs: the order in which everything locks
    perform from public.nodes as n where n.path && ids order by n.id for update;
    perform from public.owners as o
    where o.id in (select n.owner_id from public.nodes as n where n.path && ids)
    order by o.id for no key update;
    update public.nodes as n
    set trashed_at = now(), trashed_by = auth.uid(), trash_root_id = (
        select r.id from unnest(n.path) with ordinality as r (id, depth) where r.id = any(ids) order by r.depth limit 1
    )
    where n.path && ids and n.trashed_at is null;
    get diagnostics v_count = row_count;
    perform private.stop_work(ids);
    return v_count;
end;
$$;
comment on function private.trash_nodes(uuid[]) is 'Behind public.trash_nodes.';
grant execute on function private.trash_nodes(uuid[]) to anon, authenticated;

create function public.trash_nodes(ids uuid[]) returns integer
language sql volatile
security invoker
set search_path = ''
as $$ select private.trash_nodes(ids); $$;
comment on function public.trash_nodes(uuid[]) is
'Move files and folders, with all below them, to the trash; returns how many nodes. All or nothing.

From the commit on nothing returns them; uploads and ingestion under way are stopped. Needs level edit. Raises
NOT_FOUND, FORBIDDEN.';
grant execute on function public.trash_nodes(uuid[]) to anon, authenticated;

create function private.purge_nodes(ids uuid[]) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_id uuid;
    v_count integer;
    v_owner_ids uuid[];
    v_texts bytea[];
begin
    perform private.require_writer();
    for v_id in select distinct unnest(ids) order by 1 loop
        perform private.require_level(v_id, 'manage', true);
    end loop;
    -- nodes, owners, jobs, statistics: the order in which everything locks
    perform from public.nodes as n where n.path && ids order by n.id for update;
    get diagnostics v_count = row_count;
    v_owner_ids := array(select distinct n.owner_id from public.nodes as n where n.path && ids);
    -- two purges at once must not each leave a shared blob to the other
    perform from public.owners as o where o.id = any(v_owner_ids) order by o.id for no key update;
    perform private.stop_work(ids);
    foreach v_id in array array(select o.id from unnest(v_owner_ids) as o (id) order by o.id) loop
        perform private.lock_statistics(v_id);
    end loop;
    v_texts := array(
        select distinct c.text_hash
        from public.nodes as n inner join public.chunks as c on c.file_id = n.id
        where n.path && ids
    );
    -- tickets outlive files that never came, not files that are purged
    delete from public.uploads as u
    using public.nodes as n
    where n.path && ids and u.file_id = n.id;
    delete from public.nodes as n where n.id = any(ids);
    perform private.forget_texts(v_owner_ids, v_texts);
    return v_count;
end;
$$;
comment on function private.purge_nodes(uuid[]) is 'Behind public.purge_nodes.';
grant execute on function private.purge_nodes(uuid[]) to anon, authenticated;

create function public.purge_nodes(ids uuid[]) returns integer
language sql volatile
security invoker
set search_path = ''
as $$ select private.purge_nodes(ids); $$;
comment on function public.purge_nodes(uuid[]) is
'Delete files and folders for good, trashed or not, with all below them; returns how many nodes. All or nothing.

Rows, text and vectors go and the quota returns in the same transaction; the objects follow through a worker. Needs
level manage. Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.purge_nodes(uuid[]) to anon, authenticated;

-- Bytes that nothing refers to any more ---------------------------------------------------------

create table private.object_deletions (
    id bigint generated always as identity primary key,
    bucket text not null,
    key text not null,
    attempts integer not null default 0,
    run_after timestamptz not null default now()
);
comment on table private.object_deletions is
'Objects that a worker must remove through the Storage API, since SQL may not delete from storage.objects.';
create index object_deletions_run_after_idx on private.object_deletions (run_after);
alter table private.object_deletions enable row level security;

create function private.tg_file_versions__delete_blobs() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    delete from private.blobs as b
    using gone as g
    where b.id = g.blob_id
        and not exists (select 1 from public.file_versions as v where v.blob_id = b.id);
    return null; -- after trigger
end;
$$;
comment on function private.tg_file_versions__delete_blobs() is 'Deletes blobs whose last version went.';

create trigger _500_delete_blobs
after delete on public.file_versions
referencing old table as gone
for each statement execute function private.tg_file_versions__delete_blobs();

create function private.tg_blobs__release() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    insert into private.object_deletions (bucket, key) select g.bucket, g.key from gone as g;
    return null; -- after trigger
end;
$$;
comment on function private.tg_blobs__release() is 'Queues the objects of deleted blobs.';

create trigger _500_release
after delete on private.blobs
referencing old table as gone
for each statement execute function private.tg_blobs__release();
