-- Reconcile, the drive: the search for what should not be there in tree, tickets, bytes and quota, and its repair.
--
-- No repair ever waits for a row: what somebody is changing is left for the next time.

insert into private.settings (key, value, description) values
(
    'reconcile.grace_s', '3600',
    'Objects and blobs younger than this are left alone by reconcile: somebody may still be at work on them.'
);

-- What may be wrong ----------------------------------------------------------------------------

create function private.finding(found text[], fixed integer) returns jsonb
language sql immutable parallel safe
return jsonb_build_object(
    'count', cardinality(found), 'fixed', fixed, 'samples', to_jsonb(found[1:10])
);
comment on function private.finding(text[], integer) is
'One kind of damage in a report: how many, how many of them were repaired, the first ten.';

create function private.grace_end() returns timestamptz
language sql stable
security invoker
set search_path = ''
as $$ select now() - make_interval(secs => (private.setting('reconcile.grace_s'))::double precision); $$;
comment on function private.grace_end() is 'What came before is old enough for reconcile to judge.';

create function private.lock_if_free(node_ids uuid[], owner_ids uuid[]) returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_nodes integer;
    v_owners integer;
begin
    perform from public.nodes as n where n.id = any(node_ids) order by n.id for no key update skip locked;
    get diagnostics v_nodes = row_count;
    perform from public.owners as o where o.id = any(owner_ids) order by o.id for no key update skip locked;
    get diagnostics v_owners = row_count;
    return v_nodes = cardinality(node_ids) and v_owners = cardinality(owner_ids);
end;
$$;
comment on function private.lock_if_free(uuid[], uuid[]) is
'Locks these nodes and owners; false, without waiting, when somebody holds any of them.';

create function private.lock_statistics_if_free(owner_id uuid) returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    insert into private.owner_statistics (owner_id)
    select o.id from public.owners as o where o.id = lock_statistics_if_free.owner_id
    on conflict do nothing;
    perform from private.owner_statistics as s
    where s.owner_id = lock_statistics_if_free.owner_id
    for update skip locked;
    return found;
end;
$$;
comment on function private.lock_statistics_if_free(uuid) is
'Locks an owner''s statistics; false, without waiting, when somebody is changing them.';

-- The tree -------------------------------------------------------------------------------------

create function private.reconcile_paths(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_owner_id uuid;
    v_fixed integer := 0;
begin
    v_found := array(
        select n.id::text
        from public.nodes as n left join public.nodes as p on p.id = n.parent_id
        where n.path <> coalesce(p.path, '{}') || n.id
        order by n.id
    );
    if fix then
        for v_owner_id in
            select distinct n.owner_id from public.nodes as n where n.id = any(v_found::uuid[]) order by 1
        loop
            -- as whoever moves, restores or copies
            continue when not pg_try_advisory_xact_lock(hashtextextended('tree:' || v_owner_id, 0));
            with recursive chain as (
                select n.id, array[n.id] as path
                from public.nodes as n
                where n.owner_id = v_owner_id and n.parent_id is null
                union all
                select n.id, c.path || n.id
                from chain as c inner join public.nodes as n on n.parent_id = c.id
            ), free as (
                select n.id, c.path
                from public.nodes as n inner join chain as c on c.id = n.id
                where n.path <> c.path
                order by n.id
                for no key update of n skip locked
            )
            update public.nodes as n
            set path = f.path
            from free as f
            where n.id = f.id;
        end loop;
        -- below a wrong path the right ones count as well, until it is right again
        select count(*) into v_fixed
        from public.nodes as n left join public.nodes as p on p.id = n.parent_id
        where n.id = any(v_found::uuid[]) and n.path = coalesce(p.path, '{}') || n.id;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_paths(boolean) is
'Nodes whose path is not their parents'' chain; repaired from the parents.';

-- Tickets --------------------------------------------------------------------------------------

create function private.reconcile_tickets(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_upload public.uploads;
    v_fixed integer := 0;
begin
    v_found := array(
        select u.id::text
        from public.uploads as u
        where u.state in ('open', 'uploading') and (private.is_overdue(u) or u.file_id is null)
        order by u.id
    );
    if fix then
        for v_upload in
            select u.* from public.uploads as u where u.id = any(v_found::uuid[]) order by u.id
        loop
            continue when not private.lock_if_free(
                array_remove(array[v_upload.file_id], null), array[v_upload.owner_id]
            );
            select u.* into v_upload
            from public.uploads as u
            where u.id = v_upload.id and u.state in ('open', 'uploading')
            for update skip locked;
            continue when not found;
            perform private.close_upload(v_upload, 'expired');
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_tickets(boolean) is
'Open tickets whose time is over, whose holder''s account is closed or whose file is gone; ended.';

create function private.reconcile_waiting_files(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_fixed integer := 0;
begin
    v_found := array(
        select n.id::text
        from public.nodes as n
        where n.status = 'uploading'
            and n.purged_at is null
            and not exists (select 1 from public.file_versions as v where v.file_id = n.id)
            and not exists (
                select 1 from public.uploads as u where u.file_id = n.id and u.state in ('open', 'uploading')
            )
        order by n.id
    );
    if fix then
        with free as (
            select n.id
            from public.nodes as n
            where n.id = any(v_found::uuid[])
                and n.status = 'uploading'
                and not exists (
                    select 1 from public.uploads as u where u.file_id = n.id and u.state in ('open', 'uploading')
                )
            order by n.id
            for update skip locked
        )
        delete from public.nodes as n using free as f where n.id = f.id;
        get diagnostics v_fixed = row_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_waiting_files(boolean) is
'Files that wait for the bytes of an upload that has ended; removed.';

-- Bytes ----------------------------------------------------------------------------------------

create function private.reconcile_lost_objects(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_blob_ids uuid[];
    v_blob private.blobs;
    v_version_id uuid;
    v_count integer;
    v_fixed integer := 0;
begin
    v_blob_ids := array(
        select b.id
        from private.blobs as b
        where b.released_at is null
            and b.created_at < private.grace_end()
            and not exists (select 1 from storage.objects as o where o.bucket_id = b.bucket and o.name = b.key)
            and exists (select 1 from private.blob_uses as u where u.blob_id = b.id)
        order by b.id
    );
    v_found := array(
        select v.id::text from public.file_versions as v where v.blob_id = any(v_blob_ids)
        union all
        select r.id::text from public.renditions as r where r.blob_id = any(v_blob_ids)
        order by 1
    );
    if fix then
        for v_blob in select b.* from private.blobs as b where b.id = any(v_blob_ids) order by b.id loop
            continue when not private.lock_if_free(
                array(select distinct u.file_id from private.blob_uses as u where u.blob_id = v_blob.id),
                array[v_blob.owner_id]
            );
            -- it may have been moved, or have come back
            continue when not exists (select 1 from private.blobs as b where b.id = v_blob.id and b.key = v_blob.key)
                or exists (
                    select 1 from storage.objects as o where o.bucket_id = v_blob.bucket and o.name = v_blob.key
                );
            select count(*) into v_count from public.renditions as r where r.blob_id = v_blob.id;
            for v_version_id in
                select v.id from public.file_versions as v where v.blob_id = v_blob.id order by v.id
            loop
                update public.ingest_jobs as j
                set
                    state = 'failed', lease_token = null, lease_expires_at = null, finished_at = now(),
                    error_code = 'missing_object', error_message = 'Its bytes are not in Storage any more.'
                where j.version_id = v_version_id and j.state in ('queued', 'running');
                perform private.set_version_status(
                    v_version_id, 'failed', 'missing_object', 'Its bytes are not in Storage any more.'
                );
                v_count := v_count + 1;
            end loop;
            -- nobody pays for what is not there; pictures go along, and can be made again
            delete from private.blobs as b where b.id = v_blob.id;
            v_fixed := v_fixed + v_count;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_lost_objects(boolean) is
'Versions and pictures whose bytes are not in Storage: their quota returns; versions are marked failed (missing_object)
and keep their text, pictures go.';

create function private.reconcile_unneeded_blobs(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_owner_id uuid;
    v_count integer;
    v_fixed integer := 0;
begin
    v_found := array(
        select b.id::text
        from private.blobs as b
        where not exists (select 1 from private.blob_uses as u where u.blob_id = b.id)
        order by b.id
    );
    if fix then
        for v_owner_id in
            select distinct b.owner_id from private.blobs as b where b.id = any(v_found::uuid[]) order by 1
        loop
            -- whoever takes a blob for another version holds the owner
            continue when not private.lock_if_free('{}', array[v_owner_id]);
            delete from private.blobs as b
            where b.owner_id = v_owner_id
                and b.id = any(v_found::uuid[])
                and not exists (select 1 from private.blob_uses as u where u.blob_id = b.id);
            get diagnostics v_count = row_count;
            v_fixed := v_fixed + v_count;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_unneeded_blobs(boolean) is
'Blobs that no version and no picture has; deleted, with their objects and quota.';

create function private.reconcile_stray_objects(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_fixed integer := 0;
begin
    v_found := array(
        select o.bucket_id || '/' || o.name
        from storage.objects as o
        where o.bucket_id in ('files', 'derived')
            and greatest(o.created_at, o.updated_at) < private.grace_end()
            and not exists (select 1 from private.blobs as b where b.bucket = o.bucket_id and b.key = o.name)
            and not exists (
                select 1 from public.uploads as u where u.key = o.name and u.state in ('open', 'uploading')
            )
            and not exists (
                select 1 from private.object_deletions as d where d.bucket = o.bucket_id and d.key = o.name
            )
        order by o.bucket_id, o.name
    );
    if fix then
        insert into private.object_deletions (bucket, key)
        select split_part(f.path, '/', 1), substr(f.path, strpos(f.path, '/') + 1)
        from unnest(v_found) as f (path);
        get diagnostics v_fixed = row_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_stray_objects(boolean) is
'Objects that no blob knows; queued for removal. Not young ones, nor those of an upload under way.';

create function private.reconcile_releases(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_blob private.blobs;
    v_fixed integer := 0;
begin
    v_found := array(
        select b.id::text
        from private.blobs as b
        where exists (select 1 from private.blob_uses as u where u.blob_id = b.id)
            and (b.released_at is null) <> exists (
                select 1
                from private.blob_uses as u inner join public.nodes as n on n.id = u.file_id
                where u.blob_id = b.id and n.purged_at is null
            )
        order by b.id
    );
    if fix then
        for v_blob in select b.* from private.blobs as b where b.id = any(v_found::uuid[]) order by b.id loop
            continue when not private.lock_if_free(
                array(select distinct u.file_id from private.blob_uses as u where u.blob_id = v_blob.id),
                array[v_blob.owner_id]
            );
            update private.blobs as b
            set released_at = case when not exists (
                select 1
                from private.blob_uses as u inner join public.nodes as n on n.id = u.file_id
                where u.blob_id = b.id and n.purged_at is null
            ) then now() end
            where b.id = v_blob.id;
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_releases(boolean) is
'Blobs that are paid for though only purged files have them, or the other way round; the quota follows.';

create function private.reconcile_purges(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_count integer;
    v_fixed integer := 0;
begin
    v_found := array(
        select q.node_id::text
        from private.purge_queue as q inner join public.nodes as n on n.id = q.node_id
        where n.purged_at is null
        union all
        select n.id::text
        from public.nodes as n left join public.nodes as p on p.id = n.parent_id
        where n.purged_at is not null
            and p.purged_at is null
            and not exists (select 1 from private.purge_queue as q where q.node_id = n.id)
        order by 1
    );
    if fix then
        delete from private.purge_queue as q
        using public.nodes as n
        where q.node_id = any(v_found::uuid[]) and n.id = q.node_id and n.purged_at is null;
        get diagnostics v_fixed = row_count;
        insert into private.purge_queue (node_id)
        select n.id from public.nodes as n where n.id = any(v_found::uuid[]) and n.purged_at is not null
        on conflict do nothing;
        get diagnostics v_count = row_count;
        v_fixed := v_fixed + v_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_purges(boolean) is
'Entries of the purge queue for what is not purged, and purged trees without one; removed, and added.';

-- Quota ----------------------------------------------------------------------------------------

create function private.reconcile_ledger(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_owner_id uuid;
    v_fixed integer := 0;
begin
    v_found := array(
        select o.id::text
        from public.owners as o
        left join (
            select b.owner_id, sum(b.size) as used
            from private.blobs as b
            where b.released_at is null
            group by b.owner_id
        ) as b on b.owner_id = o.id
        left join (
            select u.owner_id, sum(u.size) as reserved
            from public.uploads as u
            where u.state in ('open', 'uploading')
            group by u.owner_id
        ) as u on u.owner_id = o.id
        left join (
            select l.owner_id, sum(l.used) as used, sum(l.reserved) as reserved
            from private.quota_ledger as l
            group by l.owner_id
        ) as l on l.owner_id = o.id
        where (o.storage_used, o.storage_reserved) <> (coalesce(b.used, 0), coalesce(u.reserved, 0))
            or (o.storage_used, o.storage_reserved) <> (coalesce(l.used, 0), coalesce(l.reserved, 0))
        order by o.id
    );
    if fix then
        foreach v_owner_id in array v_found::uuid[] loop
            continue when not private.lock_if_free('{}', array[v_owner_id]);
            perform private.settle_account(v_owner_id);
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_ledger(boolean) is
'Owners whose sums, ledger and real blobs and tickets differ; the last are right, the ledger gets an entry.';

create function private.reconcile_profiles(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_fixed integer := 0;
begin
    v_found := array(
        select p.id::text
        from public.user_profiles as p inner join public.owners as o on o.id = p.id
        where (p.storage_used, p.storage_limit) <> (o.storage_used, o.storage_limit)
        order by p.id
    );
    if fix then
        with free as (
            select o.id, o.storage_used, o.storage_limit
            from public.owners as o
            where o.id = any(v_found::uuid[])
            order by o.id
            for no key update skip locked
        ), profile as (
            select p.id from public.user_profiles as p where p.id = any(v_found::uuid[]) for no key update skip locked
        )
        update public.user_profiles as p
        set storage_used = f.storage_used, storage_limit = f.storage_limit
        from free as f inner join profile as q on q.id = f.id
        where p.id = f.id;
        get diagnostics v_fixed = row_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_profiles(boolean) is
'Profiles that show another quota than their owner has; copied anew.';
