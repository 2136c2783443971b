-- Serving pages: the stage embed_pages, and what is in service, goes out of it, and is repaired.

-- The stage embed_pages ------------------------------------------------------------------------

create function private.is_pictured(kind text, mime text) returns boolean
language sql immutable parallel safe
return mime <> 'image/svg+xml' and case kind
    when 'page' then mime = 'application/pdf' or mime like 'image/%' when 'image' then mime like 'image/%'
end;
comment on function private.is_pictured(text, text) is
'Whether files of a type have pictures for the spaces of a kind: pages of PDF, and images but drawings.';

create function private.enqueue_pictures(version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    select private.enqueue(v.id, 'embed_pages', s.id)
    from public.file_versions as v
    inner join public.embedding_spaces as s on s.state <> 'retiring' and private.is_pictured(s.kind, v.mime)
    where v.id = enqueue_pictures.version_id;
$$;
comment on function private.enqueue_pictures(uuid) is
'Queues embed_pages of a version for each space that its pages or its image belong to.';

create function private.pictured_pages(version_id uuid, kind text)
returns table (page integer, width real, height real)
language sql stable
security invoker
set search_path = ''
as $$
    select p.page, p.width, p.height
    from public.pages as p
    where p.version_id = pictured_pages.version_id and pictured_pages.kind = 'page'
    union all
    select 1, null, null
    where pictured_pages.kind = 'image'
        or not exists (select 1 from public.pages as p where p.version_id = pictured_pages.version_id);
$$;
comment on function private.pictured_pages(uuid, text) is
'The pages that a space of this kind has pictures of: every page, or the one image.';

create function private.missing_pages(job public.ingest_jobs)
returns table (page integer, width real, height real, picture_hash bytea)
language sql stable
security invoker
set search_path = ''
as $$
    select p.page, p.width, p.height, r.picture_hash
    from public.embedding_spaces as s
    inner join public.nodes as n on n.id = (job).file_id
    cross join lateral private.pictured_pages((job).version_id, s.kind) as p
    left join private.page_pictures as r on r.version_id = (job).version_id and r.page = p.page
    where s.id = (job).space_id
        and not exists (
            select 1
            from private.picture_vectors as x
            where x.owner_id = n.owner_id and x.picture_hash = r.picture_hash and x.space_id = s.id
        );
$$;
comment on function private.missing_pages(public.ingest_jobs) is
'Pages of a job that have no vectors in its space yet.';

create function private.job_page_pictures(job_id uuid, lease_token uuid, max_pages integer) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return (
        select jsonb_build_object(
            'total', (
                select count(*)
                from public.embedding_spaces as s
                cross join lateral private.pictured_pages(v_job.version_id, s.kind)
                where s.id = v_job.space_id
            ),
            'missing', count(*),
            'pages', coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'page', m.page, 'width', m.width, 'height', m.height, 'hash', encode(m.picture_hash, 'hex')
                    ) order by m.page
                ) filter (where m.position <= max_pages),
                '[]'
            )
        )
        from (select p.*, row_number() over (order by p.page) as position from private.missing_pages(v_job) as p) as m
    );
end;
$$;
comment on function private.job_page_pictures(uuid, uuid, integer) is
'Pages of the job''s version that have no vectors in its space yet: {total, missing, pages: [{page, width, height,
hash}]}, at most max_pages of them; hash is null until a picture of the page was named.';

create function private.store_page_vectors(job_id uuid, lease_token uuid, pictures jsonb) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_owner_id uuid := (select n.owner_id from public.nodes as n where n.id = v_job.file_id);
begin
    insert into private.page_pictures (version_id, page, file_id, picture_hash)
    select v_job.version_id, r.page, v_job.file_id, decode(r.hash, 'hex')
    from jsonb_to_recordset(store_page_vectors.pictures) as r (page integer, hash text)
    on conflict (version_id, page) do update set picture_hash = excluded.picture_hash;

    with made as (
        insert into private.picture_vectors (space_id, owner_id, picture_hash, vectors, grid_columns, grid_rows, positions)
        select
            v_job.space_id, v_owner_id, decode(r.hash, 'hex'),
            coalesce(v.vectors, '{}'), (r.grid ->> 0)::smallint, (r.grid ->> 1)::smallint,
            case when cardinality(v.positions) < jsonb_array_length(r.vectors) then coalesce(v.positions, '{}') end
        from jsonb_to_recordset(store_page_vectors.pictures) as r (page integer, hash text, vectors jsonb, grid jsonb)
        cross join lateral (
            -- patches that are all zero are padding: they would be as near to any question as nothing is
            select
                array_agg(extensions.l2_normalize(e.vector) order by e.position) as vectors,
                array_agg((e.position - 1)::smallint order by e.position) as positions
            from (
                select a.position, coalesce(a.element #>> '{}', a.element::text)::extensions.halfvec as vector
                from jsonb_array_elements(r.vectors) with ordinality as a (element, position)
            ) as e
            where extensions.l2_norm(e.vector) > 0
        ) as v
        where jsonb_typeof(r.vectors) = 'array'
        order by r.hash -- workers with the same pictures must not wait for one another in a circle
        on conflict do nothing
        returning id, space_id, vectors
    )
    insert into private.picture_signatures (codebook_id, vector_id, space_id, centroids, counts)
    select b.id, m.id, m.space_id, s.centroids, s.counts
    from made as m
    inner join private.page_codebooks as b on b.space_id = m.space_id
    cross join lateral private.sign_picture(m.vectors, b.id) as s;

    return (
        select jsonb_build_object('missing', coalesce(jsonb_agg(m.page order by m.page), '[]'))
        from private.missing_pages(v_job) as m
        where m.page in (select (r.value ->> 'page')::integer from jsonb_array_elements(pictures) as r)
    );
end;
$$;
comment on function private.store_page_vectors(uuid, uuid, jsonb) is
'Keeps pictures [{page, hash, vectors: [[numbers] or "[numbers]"], grid: [columns, rows]}] and returns {missing: pages
of these that have no vectors yet}. Without vectors it only names the picture: whoever knows the hashes first embeds
only what is missing. What is stored survives the worker.';

create function private.finish_embed_pages(job_id uuid, lease_token uuid) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    -- from here on nobody forgets pictures of this owner
    perform private.lock_statistics(n.owner_id) from public.nodes as n where n.id = v_job.file_id;
    if exists (select 1 from private.missing_pages(v_job)) then
        perform private.raise_error('CONFLICT_STATE', 'Some pages have no vectors yet.');
    end if;
    perform private.finish_job(job_id);
    perform private.advance_version(v_job.version_id);
end;
$$;
comment on function private.finish_embed_pages(uuid, uuid) is
'Ends the stage when every page has its vectors, and puts them in service.';

grant execute on function
private.job_page_pictures(uuid, uuid, integer),
private.store_page_vectors(uuid, uuid, jsonb),
private.finish_embed_pages(uuid, uuid)
to narwhal_worker;

-- In and out of service ------------------------------------------------------------------------

create function private.serve_pictures(version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.page_vectors (
        space_id, owner_id, file_id, page, version_id, vector_id, codebook_id, signature, embedding
    )
    select
        s.id, n.owner_id, n.id, p.page, p.version_id, x.id, b.id,
        coalesce(
            (
                select private.page_signature(g.centroids, g.counts, b.id)
                from private.picture_signatures as g
                where g.codebook_id = b.id and g.vector_id = x.id
            ),
            (
                select private.page_signature(g.centroids, g.counts, b.id)
                from private.sign_picture(x.vectors, b.id) as g
            )
        ),
        case s.kind when 'image' then x.vectors[1] end
    from public.ingest_jobs as j
    inner join public.embedding_spaces as s on s.id = j.space_id and s.state <> 'retiring'
    inner join public.nodes as n on n.id = j.file_id
    cross join lateral private.pictured_pages(j.version_id, s.kind) as w
    inner join private.page_pictures as p on p.version_id = j.version_id and p.page = w.page
    inner join private.picture_vectors as x
        on x.owner_id = n.owner_id and x.picture_hash = p.picture_hash and x.space_id = s.id
    left join private.page_codebooks as b on b.space_id = s.id and b.state = 'active'
    where j.version_id = serve_pictures.version_id and j.stage = 'embed_pages' and j.state = 'done'
    on conflict on constraint page_vectors_pkey do update
    set
        version_id = excluded.version_id, vector_id = excluded.vector_id, codebook_id = excluded.codebook_id,
        signature = excluded.signature, embedding = excluded.embedding
    where (page_vectors.version_id, page_vectors.vector_id, page_vectors.codebook_id)
        is distinct from (excluded.version_id, excluded.vector_id, excluded.codebook_id);
$$;
comment on function private.serve_pictures(uuid) is
'Puts the pages of a version into service in every space where they are finished.';

create function private.unserve_pictures(version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    delete from private.page_vectors as t
    using public.file_versions as v
    where v.id = unserve_pictures.version_id and t.file_id = v.file_id and t.version_id = v.id;
$$;
comment on function private.unserve_pictures(uuid) is 'Takes the pages of a version out of service.';

create function private.forget_pictures(owner_ids uuid[], hashes bytea[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    delete from private.picture_vectors as x
    where x.owner_id = any(owner_ids)
        and x.picture_hash = any(hashes)
        and not exists (
            select 1
            from private.page_pictures as p inner join public.nodes as n on n.id = p.file_id
            where p.picture_hash = x.picture_hash and n.owner_id = x.owner_id
        );
$$;
comment on function private.forget_pictures(uuid[], bytea[]) is
'Drops the stored vectors of these pictures that no page of these owners has any more. The caller holds the locks on
their statistics.';

create function private.hand_pictures(version_ids uuid[], from_owner_id uuid, to_owner_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    with made as (
        insert into private.picture_vectors (space_id, owner_id, picture_hash, vectors, grid_columns, grid_rows, positions)
        select x.space_id, to_owner_id, x.picture_hash, x.vectors, x.grid_columns, x.grid_rows, x.positions
        from private.picture_vectors as x
        inner join public.embedding_spaces as s on s.id = x.space_id and s.state <> 'retiring'
        where x.owner_id = from_owner_id
            and x.picture_hash in (
                select p.picture_hash from private.page_pictures as p where p.version_id = any(version_ids)
            )
        order by x.picture_hash -- as whoever stores vectors
        on conflict do nothing
        returning id, space_id, picture_hash
    )
    insert into private.picture_signatures (codebook_id, vector_id, space_id, centroids, counts)
    select g.codebook_id, m.id, m.space_id, g.centroids, g.counts
    from made as m
    inner join private.picture_vectors as x
        on x.owner_id = from_owner_id and x.picture_hash = m.picture_hash and x.space_id = m.space_id
    inner join private.picture_signatures as g on g.vector_id = x.id;
$$;
comment on function private.hand_pictures(uuid[], uuid, uuid) is
'Gives another owner the vectors of the pictures of these versions, which this one keeps.';

create function private.transfer_pictures(file_ids uuid[], from_owner_id uuid, to_owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_hashes bytea[] := array(
        select distinct p.picture_hash from private.page_pictures as p where p.file_id = any(file_ids)
    );
begin
    -- pictures that nobody else has change hands as they are: they are large
    update private.picture_vectors as x
    set owner_id = to_owner_id
    where x.owner_id = from_owner_id
        and x.picture_hash = any(v_hashes)
        and not exists (
            select 1
            from private.page_pictures as p inner join public.nodes as n on n.id = p.file_id
            where p.picture_hash = x.picture_hash and n.owner_id = from_owner_id
        )
        and not exists (
            select 1
            from private.picture_vectors as t
            where t.owner_id = to_owner_id and t.picture_hash = x.picture_hash and t.space_id = x.space_id
        );
    perform private.hand_pictures(
        array(select v.id from public.file_versions as v where v.file_id = any(file_ids)), from_owner_id, to_owner_id
    );
    update private.page_vectors as t
    set owner_id = to_owner_id, vector_id = x.id
    from private.page_pictures as p
    inner join private.picture_vectors as x on x.picture_hash = p.picture_hash
    where t.file_id = any(file_ids)
        and p.version_id = t.version_id
        and p.page = t.page
        and x.owner_id = to_owner_id
        and x.space_id = t.space_id;
    perform private.forget_pictures(array[from_owner_id], v_hashes);
end;
$$;
comment on function private.transfer_pictures(uuid[], uuid, uuid) is
'Makes the pages of these files another owner''s, whose files they are already. Embeds nothing.';

create function private.copy_pictures(source_version_id uuid, target_version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_source_owner_id uuid;
    v_owner_id uuid;
begin
    select n.owner_id into v_source_owner_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = source_version_id;
    select n.owner_id into v_owner_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = target_version_id;
    insert into private.page_pictures (version_id, page, file_id, picture_hash)
    select t.id, p.page, t.file_id, p.picture_hash
    from private.page_pictures as p cross join public.file_versions as t
    where p.version_id = source_version_id and t.id = target_version_id;
    if v_source_owner_id <> v_owner_id then
        perform private.hand_pictures(array[source_version_id], v_source_owner_id, v_owner_id);
    end if;
    -- a space that came since, or whose vectors are gone, is computed; no other
    perform private.enqueue_pictures(target_version_id);
    update public.ingest_jobs as j
    set state = 'done', progress = 1, started_at = now(), finished_at = now()
    where j.version_id = target_version_id
        and j.stage = 'embed_pages'
        and not exists (select 1 from private.missing_pages(j));
end;
$$;
comment on function private.copy_pictures(uuid, uuid) is
'Gives a version the pictures of another one with the same bytes, and their vectors. What has none yet is queued.';

-- Repairs --------------------------------------------------------------------------------------

create function private.reconcile_page_vectors(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_fixed integer := 0;
begin
    v_found := array(
        select t.file_id || ' ' || t.page || ' ' || t.space_id
        from private.page_vectors as t
        where not exists (
            select 1
            from public.nodes as n
            inner join private.page_pictures as p on p.version_id = n.head_version_id and p.page = t.page
            inner join private.picture_vectors as x
                on x.owner_id = n.owner_id and x.picture_hash = p.picture_hash and x.space_id = t.space_id
            where n.id = t.file_id
                and n.head_version_id = t.version_id
                and n.owner_id = t.owner_id
                and x.id = t.vector_id
        )
        order by 1
    );
    if fix then
        with free as (
            select t.file_id, t.page, t.space_id
            from private.page_vectors as t
            inner join unnest(v_found) as f (text)
                on t.file_id = split_part(f.text, ' ', 1)::uuid
                and t.page = split_part(f.text, ' ', 2)::integer
                and t.space_id = split_part(f.text, ' ', 3)::smallint
            for update of t skip locked
        )
        delete from private.page_vectors as t
        using free as f
        where t.file_id = f.file_id and t.page = f.page and t.space_id = f.space_id;
        get diagnostics v_fixed = row_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_page_vectors(boolean) is
'Pages in service that are not of a head version, or not with its owner''s vectors; taken out.';

create function private.reconcile_unserved_pages(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_version record;
    v_fixed integer := 0;
begin
    v_found := array(
        select distinct j.version_id::text
        from public.nodes as n
        inner join public.ingest_jobs as j on j.version_id = n.head_version_id
        inner join public.embedding_spaces as s on s.id = j.space_id and s.state <> 'retiring'
        cross join lateral private.pictured_pages(j.version_id, s.kind) as w
        left join private.page_codebooks as b on b.space_id = s.id and b.state = 'active'
        where n.purged_at is null
            and j.stage = 'embed_pages'
            and j.state = 'done'
            and not exists (
                select 1 from private.page_vectors as t
                where t.file_id = n.id
                    and t.page = w.page
                    and t.space_id = s.id
                    and t.codebook_id is not distinct from b.id
            )
        order by 1
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
            perform private.enqueue(v_version.id, 'embed_pages', j.space_id)
            from public.ingest_jobs as j
            where j.version_id = v_version.id
                and j.stage = 'embed_pages'
                and j.state = 'done'
                and exists (select 1 from private.missing_pages(j));
            perform private.serve_pictures(v_version.id);
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_unserved_pages(boolean) is
'Head versions with pages that search does not find though it should, or by an old codebook; put in service again.';

create function private.reconcile_pictures(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_owner_id uuid;
    v_hashes bytea[];
    v_fixed integer := 0;
begin
    v_found := array(
        select distinct x.owner_id || ' ' || encode(x.picture_hash, 'hex')
        from private.picture_vectors as x
        where not exists (
            select 1
            from private.page_pictures as p inner join public.nodes as n on n.id = p.file_id
            where p.picture_hash = x.picture_hash and n.owner_id = x.owner_id
        )
        order by 1
    );
    if fix then
        for v_owner_id, v_hashes in
            select split_part(f.text, ' ', 1)::uuid, array_agg(decode(split_part(f.text, ' ', 2), 'hex'))
            from unnest(v_found) as f (text)
            group by 1
            order by 1
        loop
            -- whoever finishes pages that need a picture holds the statistics
            continue when not private.lock_statistics_if_free(v_owner_id);
            perform private.forget_pictures(array[v_owner_id], v_hashes);
            v_fixed := v_fixed + cardinality(v_hashes);
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_pictures(boolean) is 'Stored vectors of pictures that no page has; deleted.';
