-- Reconcile, the index: what serves search against what it was made from.

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
            select t.owner_id from private.chunk_terms as t where t.file_id = any(v_found::uuid[]) and t.part >= 0
            order by 1
        loop
            -- whoever owned it may be gone
            continue when not private.lock_statistics_if_free(v_owner_id)
                and exists (select 1 from public.owners as o where o.id = v_owner_id);
            with gone as (
                delete from private.chunk_terms as t
                where t.owner_id = v_owner_id and t.file_id = any(v_found::uuid[]) and t.part >= 0
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
                            or exists (
                                select 1 from private.chunk_terms as t where t.file_id = f.file_id and t.part >= 0
                            )
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
        and not exists (
            select 1
            from private.draft_chunks as c inner join public.nodes as n on n.id = c.file_id
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
                    and not exists (
                        select 1
                        from private.draft_chunks as c inner join public.nodes as n on n.id = c.file_id
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
