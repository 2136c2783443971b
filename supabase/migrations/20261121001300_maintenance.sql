-- Maintenance: what must be done again and again, and the search for what should not be there.
--
-- Each task runs in a transaction of its own, so that none holds the locks of another, and no repair ever waits for a
-- row: what somebody is changing is left for the next time.

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

-- The index ------------------------------------------------------------------------------------

create function private.reconcile_vectors(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_fixed integer := 0;
begin
    v_found := array(
        select e.chunk_id::text
        from private.chunk_vectors as e
        where not exists (
            select 1
            from public.chunks as c
            inner join public.nodes as n on n.id = c.file_id and n.head_version_id = c.version_id
            where c.id = e.chunk_id and n.id = e.file_id and n.owner_id = e.owner_id
        )
        order by e.chunk_id
    );
    if fix then
        with free as (
            select e.chunk_id, e.space_id
            from private.chunk_vectors as e
            where e.chunk_id = any(v_found::uuid[])
            for update skip locked
        )
        delete from private.chunk_vectors as e
        using free as f
        where e.chunk_id = f.chunk_id and e.space_id = f.space_id;
        get diagnostics v_fixed = row_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_vectors(boolean) is
'Vectors in service whose chunk is gone, or not of a head version; deleted.';

create function private.reconcile_blocks(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found uuid[] := array(
        select distinct coalesce(v.file_id, b.file_id)
        from (
            select e.space_id, e.owner_id, e.file_id, array_agg(e.chunk_id order by e.chunk_id) as chunk_ids
            from private.chunk_vectors as e
            group by e.space_id, e.owner_id, e.file_id
        ) as v
        full join (
            select p.space_id, p.owner_id, p.file_id, array_agg(c order by c) as chunk_ids
            from private.vector_blocks as p
            cross join lateral unnest(p.chunk_ids) as c
            group by p.space_id, p.owner_id, p.file_id
        ) as b on b.space_id = v.space_id and b.owner_id = v.owner_id and b.file_id = v.file_id
        where b.chunk_ids is distinct from v.chunk_ids
        order by 1
    );
    v_file_id uuid;
    v_fixed integer := 0;
begin
    if fix then
        foreach v_file_id in array v_found loop
            -- whoever deletes one of them meanwhile finds the new blocks
            perform from private.chunk_vectors as e where e.file_id = v_file_id order by e.chunk_id for update;
            delete from private.vector_blocks as b where b.file_id = v_file_id;
            execute private.packing(
                format('(select * from private.chunk_vectors as e where e.file_id = %L)', v_file_id)
            );
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found::text[], v_fixed);
end;
$$;
comment on function private.reconcile_blocks(boolean) is
'Files whose blocks do not hold exactly their vectors in service, so that exact search misses some; packed anew.';

create function private.reconcile_terms(fix boolean) returns jsonb
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
        select x.file_id::text
        from (
            select f.file_id, f.owner_id, f.version_id from private.indexed_files as f
            union all
            select t.file_id, t.owner_id, f.version_id
            from (select distinct p.file_id, p.owner_id from private.chunk_terms as p) as t
            left join private.indexed_files as f on f.file_id = t.file_id
        ) as x
        where not exists (
            select 1 from public.nodes as n
            where n.id = x.file_id and n.owner_id = x.owner_id and n.head_version_id = x.version_id
        )
        group by x.file_id
        order by 1
    );
    if fix then
        for v_owner_id in
            select f.owner_id from private.indexed_files as f where f.file_id = any(v_found::uuid[])
            union
            select t.owner_id from private.chunk_terms as t where t.file_id = any(v_found::uuid[])
            order by 1
        loop
            -- whoever owned it may be gone
            continue when not private.lock_statistics_if_free(v_owner_id)
                and exists (select 1 from public.owners as o where o.id = v_owner_id);
            with gone as (
                delete from private.chunk_terms as t
                where t.owner_id = v_owner_id and t.file_id = any(v_found::uuid[])
                returning t.file_id
            ), unlisted as (
                delete from private.indexed_files as f
                where f.owner_id = v_owner_id and f.file_id = any(v_found::uuid[])
                returning f.file_id
            )
            select count(*) into v_count
            from (select g.file_id from gone as g union select u.file_id from unlisted as u) as x;
            v_fixed := v_fixed + v_count;
        end loop;
    end if;
    return private.finding(v_found, least(v_fixed, cardinality(v_found)));
end;
$$;
comment on function private.reconcile_terms(boolean) is
'Files in the keyword index that are gone, with another version than their head, or as another owner''s; taken out.';

create function private.reconcile_unserved(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_version record;
    v_fixed integer := 0;
begin
    -- a file of punctuation has no terms, rightly
    v_found := array(
        select v.id::text
        from public.nodes as n
        inner join public.file_versions as v on v.id = n.head_version_id
        where n.purged_at is null
            and (
                exists (select 1 from public.chunks as c where c.version_id = v.id)
                and not exists (
                    select 1
                    from private.indexed_files as f
                    where f.file_id = n.id
                        and f.version_id = v.id
                        and (
                            f.chunk_count = 0
                            or exists (select 1 from private.chunk_terms as t where t.file_id = f.file_id)
                        )
                )
                or exists (
                    select 1
                    from public.ingest_jobs as j
                    inner join public.embedding_spaces as s on s.id = j.space_id and s.state <> 'retiring'
                    inner join public.chunks as c on c.version_id = j.version_id
                    where j.version_id = v.id
                        and j.stage = 'embed_text'
                        and j.state = 'done'
                        and not exists (
                            select 1 from private.chunk_vectors as e
                            where e.chunk_id = c.id and e.space_id = j.space_id
                        )
                )
            )
        order by v.id
    );
    if fix then
        for v_version in
            select v.id, v.file_id, n.owner_id
            from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
            where v.id = any(v_found::uuid[])
            order by n.id
        loop
            continue when not private.lock_if_free(array[v_version.file_id], '{}')
                or not private.lock_statistics_if_free(v_version.owner_id);
            -- vectors that are lost for good are computed again
            perform private.enqueue(v_version.id, 'embed_text', j.space_id)
            from public.ingest_jobs as j
            where j.version_id = v_version.id
                and j.stage = 'embed_text'
                and j.state = 'done'
                and exists (
                    select 1
                    from public.chunks as c
                    where c.version_id = v_version.id
                        and not exists (
                            select 1 from private.text_vectors as t
                            where t.owner_id = v_version.owner_id
                                and t.space_id = j.space_id
                                and t.text_hash = c.text_hash
                        )
                );
            perform private.unserve_version(v_version.id);
            perform private.serve_version(v_version.id);
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_unserved(boolean) is
'Head versions with chunks that a leg of search does not find though it should; put in service again.';

create function private.count_statistics(owner uuid)
returns table (owner_id uuid, chunk_count bigint, total_length bigint)
language sql stable
security invoker
set search_path = ''
as $$
    select f.owner_id, sum(f.chunk_count), sum(f.total_length)::bigint
    from private.indexed_files as f
    where count_statistics.owner is null or f.owner_id = count_statistics.owner
    group by f.owner_id;
$$;
comment on function private.count_statistics(uuid) is
'Size of the keyword index, counted anew, of one owner or of all.';

create function private.miscounted_files() returns table (file_id uuid, owner_id uuid, version_id uuid)
language sql stable
security invoker
set search_path = ''
as $$
    select f.file_id, f.owner_id, f.version_id
    from private.indexed_files as f
    inner join ( -- one without any is not served, which is another finding
        select t.file_id, count(distinct e >> 40) as chunk_count, sum((e >> 24) & 65535) as total_length
        from private.chunk_terms as t cross join lateral unnest(t.entries) as e
        group by t.file_id
    ) as c on c.file_id = f.file_id
    where (f.chunk_count, f.total_length) <> (c.chunk_count, c.total_length);
$$;
comment on function private.miscounted_files() is
'Files whose size in the keyword index is not what their entries add up to.';

create function private.reconcile_statistics(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_owner_id uuid;
    v_version_id uuid;
    v_fixed integer := 0;
begin
    v_found := array(
        select coalesce(c.owner_id, s.owner_id)::text
        from private.count_statistics(null) as c
        full join private.owner_statistics as s on s.owner_id = c.owner_id
        where (coalesce(c.chunk_count, 0), coalesce(c.total_length, 0))
            is distinct from (coalesce(s.chunk_count, 0), coalesce(s.total_length, 0))
        union
        select m.owner_id::text from private.miscounted_files() as m
        order by 1
    );
    if fix then
        foreach v_owner_id in array v_found::uuid[] loop
            continue when not private.lock_statistics_if_free(v_owner_id);
            for v_version_id in
                select m.version_id from private.miscounted_files() as m where m.owner_id = v_owner_id
            loop
                perform private.unserve_version(v_version_id);
                perform private.serve_version(v_version_id);
            end loop;
            update private.owner_statistics as s
            set
                chunk_count = coalesce((select c.chunk_count from private.count_statistics(v_owner_id) as c), 0),
                total_length = coalesce((select c.total_length from private.count_statistics(v_owner_id) as c), 0)
            where s.owner_id = v_owner_id;
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_statistics(boolean) is
'Owners the size of whose keyword index is not that of the terms in service; counted anew.';

create function private.reconcile_texts(fix boolean) returns jsonb
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
        select distinct t.owner_id || ' ' || encode(t.text_hash, 'hex')
        from private.text_vectors as t
        where not exists (
            select 1
            from public.chunks as c inner join public.nodes as n on n.id = c.file_id
            where c.text_hash = t.text_hash and n.owner_id = t.owner_id
        )
        order by 1
    );
    if fix then
        for v_owner_id in
            select distinct split_part(f.text, ' ', 1)::uuid from unnest(v_found) as f (text) order by 1
        loop
            -- whoever adds chunks that need a text holds the statistics
            continue when not private.lock_statistics_if_free(v_owner_id);
            with gone as (
                delete from private.text_vectors as t
                where t.owner_id = v_owner_id
                    and t.text_hash in (
                        select decode(split_part(f.text, ' ', 2), 'hex') from unnest(v_found) as f (text)
                    )
                    and not exists (
                        select 1
                        from public.chunks as c inner join public.nodes as n on n.id = c.file_id
                        where c.text_hash = t.text_hash and n.owner_id = t.owner_id
                    )
                returning t.text_hash
            )
            select count(distinct g.text_hash) into v_count from gone as g;
            v_fixed := v_fixed + v_count;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_texts(boolean) is 'Stored vectors of texts that no chunk has; deleted.';

-- All of it ------------------------------------------------------------------------------------

create function private.reconcile_kinds() returns text[]
language sql immutable parallel safe
return array[
    'path_differences',
    'ledger_differences', -- first of those that charge: sums that are too small would refuse what others return
    'expired_tickets',
    'files_without_upload',
    'purge_leftovers',
    'versions_without_object',
    'blobs_without_version',
    'release_differences',
    'objects_without_version',
    'profile_differences',
    'vectors_without_chunk',
    'terms_without_chunk',
    'statistics_differences', -- before what serves: weights are computed from them
    'versions_not_served',
    'block_differences', -- after what puts vectors in service
    'texts_without_chunk',
    'page_vectors_without_page',
    'pages_not_served',
    'pictures_without_page'
];
comment on function private.reconcile_kinds() is
'What reconcile looks for, in the order in which repairs lead to others.';

create function private.reconcile_kind(kind text, fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    return case kind
        when 'path_differences' then private.reconcile_paths(fix)
        when 'expired_tickets' then private.reconcile_tickets(fix)
        when 'files_without_upload' then private.reconcile_waiting_files(fix)
        when 'purge_leftovers' then private.reconcile_purges(fix)
        when 'release_differences' then private.reconcile_releases(fix)
        when 'versions_without_object' then private.reconcile_lost_objects(fix)
        when 'blobs_without_version' then private.reconcile_unneeded_blobs(fix)
        when 'objects_without_version' then private.reconcile_stray_objects(fix)
        when 'ledger_differences' then private.reconcile_ledger(fix)
        when 'profile_differences' then private.reconcile_profiles(fix)
        when 'vectors_without_chunk' then private.reconcile_vectors(fix)
        when 'block_differences' then private.reconcile_blocks(fix)
        when 'terms_without_chunk' then private.reconcile_terms(fix)
        when 'statistics_differences' then private.reconcile_statistics(fix)
        when 'versions_not_served' then private.reconcile_unserved(fix)
        when 'texts_without_chunk' then private.reconcile_texts(fix)
        when 'page_vectors_without_page' then private.reconcile_page_vectors(fix)
        when 'pages_not_served' then private.reconcile_unserved_pages(fix)
        when 'pictures_without_page' then private.reconcile_pictures(fix)
    end;
end;
$$;
comment on function private.reconcile_kind(text, boolean) is
'Looks for one kind of damage, and repairs it when fix: {count, fixed, samples}. null for an unknown kind.';

create function private.reconcile(fix boolean default false) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_kind text;
    v_findings jsonb := '{}';
begin
    foreach v_kind in array private.reconcile_kinds() loop
        v_findings := v_findings || jsonb_build_object(v_kind, private.reconcile_kind(v_kind, fix));
    end loop;
    return (
        select jsonb_build_object(
            'found', sum((f.value ->> 'count')::integer),
            'fixed', sum((f.value ->> 'fixed')::integer),
            'findings', v_findings
        )
        from jsonb_each(v_findings) as f (kind, value)
    );
end;
$$;
comment on function private.reconcile(boolean) is
'Looks for everything that should not be there, and repairs it when fix: {found, fixed, findings: {kind: {count, fixed,
samples}}}. A second run right after finds nothing. It runs beside any number of workers; what they hold is left for the
next time. The command line and the schedule take one kind a transaction instead.';

-- The schedule ---------------------------------------------------------------------------------

create table private.tasks (
    name text primary key,
    every interval not null check (every > '0'),
    due_at timestamptz not null default now(),
    last_run_at timestamptz,
    last_result jsonb,
    last_error text
);
comment on table private.tasks is
'What private.sweep does, and when. Whoever calls it, workers or pg_cron, a task that is due runs once.';
comment on column private.tasks.due_at is
'The next time is a whole number of periods later, so that nights stay nights.';
comment on column private.tasks.last_error is 'Why the last run did nothing; null when it went well.';
alter table private.tasks enable row level security;

insert into private.tasks (name, every) values
('expire_uploads', '1 minute'),
('tidy_searches', '1 minute'),
('expire_link_grants', '10 minutes'),
('record_usage', '10 minutes'),
('expire_trash', '1 hour'),
('expire_versions', '1 hour'),
('expire_notifications', '1 hour'),
('forget_names', '10 minutes'),
('prune_audit', '1 day'),
('prune_queries', '1 day');

-- at night (UTC), one kind a transaction
insert into private.tasks (name, every, due_at)
select
    'reconcile ' || k.kind as name,
    interval '1 day' as every,
    date_trunc('day', now() at time zone 'utc') at time zone 'utc'
    + interval '1 day 2 hours' + k.position * interval '1 minute' as due_at
from unnest(private.reconcile_kinds()) with ordinality as k (kind, position);

create function private.run_task(name text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    return case
        when name = 'expire_uploads' then to_jsonb(private.expire_uploads())
        when name = 'expire_link_grants' then to_jsonb(private.expire_link_grants())
        when name = 'record_usage' then to_jsonb(private.record_usage())
        when name = 'expire_trash' then to_jsonb(private.expire_trash(10000))
        when name = 'expire_versions' then to_jsonb(private.expire_versions(1000))
        when name = 'expire_notifications' then to_jsonb(private.expire_notifications())
        when name = 'forget_names' then to_jsonb(private.forget_names(10000))
        when name = 'prune_audit' then to_jsonb(private.prune_audit())
        when name = 'tidy_searches' then private.tidy_searches()
        when name = 'prune_queries' then to_jsonb(private.prune_queries())
        when name like 'reconcile %' then private.reconcile_kind(substr(name, 11), true)
    end;
end;
$$;
comment on function private.run_task(text) is 'Does one task, due or not; returns what it did.';

create function private.sweep() returns jsonb
language plpgsql volatile
security definer -- called by workers for everybody
set search_path = ''
as $$
declare
    v_task private.tasks;
    v_result jsonb;
    v_error text;
begin
    -- never two at once, whoever calls
    if not pg_try_advisory_xact_lock(hashtextextended('narwhal.sweep', 0)) then
        return null;
    end if;
    select t.* into v_task from private.tasks as t where t.due_at <= now() order by t.due_at, t.name limit 1;
    if v_task.name is null then
        return null;
    end if;
    begin
        v_result := private.run_task(v_task.name);
    exception when others then
        v_error := format('%s: %s', sqlstate, sqlerrm); -- the next task has its turn all the same
    end;
    update private.tasks as t
    set
        last_run_at = now(), last_result = v_result, last_error = v_error,
        due_at = case
            -- these do a part at a time: again, after the others
            when t.name in ('expire_trash', 'expire_versions', 'forget_names', 'record_usage') and v_result > '0' then now()
            else v_task.due_at + v_task.every * (1 + floor(
                extract(epoch from now() - v_task.due_at) / extract(epoch from v_task.every)
            ))
        end
    where t.name = v_task.name;
    return jsonb_build_object('task', v_task.name, 'result', v_result, 'error', v_error);
end;
$$;
comment on function private.sweep() is
'Does the task that is due longest, in its own transaction: {task, result, error}; null when nothing is due, or another
sweep is under way. Call it again until it answers null.';
grant execute on function private.sweep() to narwhal_worker;

create function private.schedule_maintenance() returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if to_regprocedure('cron.schedule(text, text, text)') is null then
        return false; -- workers sweep anyhow
    end if;
    perform cron.schedule('narwhal_sweep', '10 seconds', 'select private.sweep()');
    -- pg_cron keeps a row of each run for ever
    perform cron.schedule(
        'narwhal_prune', '17 * * * *',
        $command$delete from cron.job_run_details where end_time < now() - interval '1 day'$command$
    );
    return true;
end;
$$;
comment on function private.schedule_maintenance() is
'Makes the jobs narwhal_… of pg_cron, anew if they exist; false where there is no pg_cron.';

do $$
begin
    if exists (select 1 from pg_available_extensions as e where e.name = 'pg_cron')
        and not exists (select 1 from pg_extension as e where e.extname = 'pg_cron') then
        create extension pg_cron with schema pg_catalog;
    end if;
    perform private.schedule_maintenance();
exception when others then
    raise notice 'no schedule by pg_cron (%); workers sweep', sqlerrm;
end;
$$;
