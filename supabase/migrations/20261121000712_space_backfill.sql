-- Filling a space with what is there already: a back-fill, which workers do after what users wait for, what it will
-- take, and the import of vectors that were computed elsewhere.

insert into private.settings (key, value, description) values
(
    'spaces.chunks_per_minute', '800',
    'What a back-fill is estimated with until the space has a rate of its own: chunks a worker embeds in a minute.'
),
('spaces.pages_per_minute', '60', 'The same for spaces of pages and images: pages a worker embeds in a minute.'),
('spaces.price_per_hour', '0.8', 'What a back-fill is estimated with: price of an hour of a worker, in US dollars.');

create function private.space_stage(kind text) returns text
language sql immutable parallel safe
return case kind when 'text' then 'embed_text' else 'embed_pages' end;
comment on function private.space_stage(text) is 'The stage of ingestion that fills spaces of a kind.';

create function private.lock_backfill(name text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces := private.space_named(name);
    v_other record;
begin
    if v_space.state = 'retiring' then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" is retired.', name), jsonb_build_object('state', v_space.state)
        );
    end if;
    if not pg_try_advisory_xact_lock(hashtextextended('narwhal.backfill', 0)) then
        perform private.raise_error(
            'LOCKED', 'A back-fill is running.', jsonb_build_object('space', name), 'Wait until it has ended.'
        );
    end if;
    select s.name, count(*) as jobs into v_other
    from public.ingest_jobs as j inner join public.embedding_spaces as s on s.id = j.space_id
    where j.priority = 3 and j.state in ('queued', 'running') and s.id <> v_space.id and s.state <> 'retiring'
    group by s.name
    limit 1;
    if v_other.name is not null then
        perform private.raise_error(
            'LOCKED', format('The space "%s" is being back-filled.', v_other.name),
            jsonb_build_object('space', v_other.name, 'jobs', v_other.jobs), 'Wait until it has ended, or retire it.'
        );
    end if;
    return to_jsonb(v_space);
end;
$$;
comment on function private.lock_backfill(text) is
'Whoever back-fills keeps the transaction of this call open; it ends with the process, however that ends. One of a space
whose jobs are queued is taken up again. Raises NOT_FOUND, CONFLICT_STATE, LOCKED while another one is running.';

create function private.queue_backfill(space_id smallint, after uuid default null, max_files integer default 1000)
returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
    v_ids uuid[];
    v_count integer;
begin
    perform private.hold_spaces();
    select s.* into v_space from public.embedding_spaces as s where s.id = space_id and s.state <> 'retiring';
    if v_space.id is null then
        perform private.raise_error(
            'CONFLICT_STATE', 'The space was retired.', jsonb_build_object('space_id', space_id)
        );
    end if;
    -- what somebody is purging is passed over; it need not be waited for
    v_ids := array(
        select v.id
        from public.file_versions as v
        inner join public.nodes as n on n.id = v.file_id
        left join public.file_versions as h on h.id = n.head_version_id
        where (after is null or v.id > after)
            and n.purged_at is null
            and (h.id is null or v.no >= h.no)
            and case v_space.kind
                when 'text' then exists (select 1 from public.chunks as c where c.version_id = v.id)
                else private.is_pictured(v_space.kind, v.mime) and exists (
                    select 1 from public.ingest_jobs as o
                    where o.version_id = v.id and o.stage = 'chunk' and o.state = 'done'
                )
            end
            and not exists (
                select 1 from public.ingest_jobs as j
                where j.version_id = v.id
                    and j.space_id = queue_backfill.space_id
                    and (
                        j.state in ('queued', 'running')
                        or (j.state = 'done' and (
                            h.id is distinct from v.id
                            or v_space.kind = 'text' and not exists (
                                select 1 from public.chunks as c
                                where c.version_id = v.id and not exists (
                                    select 1 from private.chunk_vectors as e
                                    where e.space_id = v_space.id and e.chunk_id = c.id
                                )
                            )
                            or v_space.kind <> 'text' and not exists (
                                select 1 from private.pictured_pages(v.id, v_space.kind) as p
                                where not exists (
                                    select 1 from private.page_vectors as e
                                    where e.space_id = v_space.id and e.file_id = n.id and e.page = p.page
                                        and e.version_id = v.id
                                )
                            )
                        ))
                    )
            )
        order by v.id
        limit max_files
        for key share of v, n skip locked
    );
    insert into public.ingest_jobs (file_id, version_id, stage, space_id, priority)
    select v.file_id, v.id, private.space_stage(v_space.kind), v_space.id, 3
    from public.file_versions as v
    where v.id = any(v_ids)
    order by v.id
    on conflict on constraint ingest_jobs_version_id_stage_space_id_key do update
    set
        state = 'queued', priority = 3, progress = 0, pages_done = 0, attempts = 0, lease_losses = 0,
        error_code = null, error_message = null, run_after = now(),
        started_at = null, finished_at = null, worker = null, lease_token = null, lease_expires_at = null;
    get diagnostics v_count = row_count;
    perform pg_notify('narwhal_jobs', '');
    return jsonb_build_object('queued', v_count, 'last', v_ids[cardinality(v_ids)]);
end;
$$;
comment on function private.queue_backfill(smallint, uuid, integer) is
'Queues a space''s stage for files that lack it, also where it failed or was cancelled: {queued, last}. Call again with
last until it is null. Versions that are not the head are left out, unless they are newer. Raises CONFLICT_STATE.';

create function private.backfill_rate(space_id smallint) returns real
language sql stable
security invoker
set search_path = ''
as $$
    select case when count(*) >= 10 then (60 * sum(j.texts) / nullif(sum(j.seconds), 0))::real end
    from (
        select
            extract(epoch from d.finished_at - d.started_at) as seconds,
            case d.stage
                when 'embed_text' then (
                    select count(distinct c.text_hash) from public.chunks as c where c.version_id = d.version_id
                )
                else greatest(1, (select count(*) from public.pages as p where p.version_id = d.version_id))
            end as texts
        from public.ingest_jobs as d
        where d.space_id = backfill_rate.space_id and d.state = 'done' and d.finished_at > d.started_at
        order by d.finished_at desc
        limit 200
    ) as j;
$$;
comment on function private.backfill_rate(smallint) is
'Chunks (or pages) a minute of one worker, from the jobs that were done last; null before there are ten.';

create function private.estimate_backfill(
    space_id smallint, chunks_per_minute real default null, price_per_hour real default null, workers integer default 1
) returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
    v_measured real := private.backfill_rate(space_id);
    v_rate real := coalesce(chunks_per_minute, v_measured);
    v_price real := coalesce(price_per_hour, (private.setting('spaces.price_per_hour'))::real);
    v_texts bigint;
    v_minutes numeric;
begin
    select s.* into v_space from public.embedding_spaces as s where s.id = space_id;
    v_rate := coalesce(v_rate, (private.setting(
        case v_space.kind when 'text' then 'spaces.chunks_per_minute' else 'spaces.pages_per_minute' end
    ))::real);
    if v_rate <= 0 or v_price < 0 or workers < 1 then
        perform private.raise_invalid('rate', 'Rate and workers must be above 0, and the price 0 or more.');
    end if;
    if v_space.kind = 'text' then
        select count(*) into v_texts
        from (
            select distinct n.owner_id, c.text_hash
            from public.nodes as n
            inner join public.chunks as c on c.version_id = n.head_version_id
            where n.purged_at is null
                and not exists (
                    select 1 from private.text_vectors as t
                    where t.owner_id = n.owner_id and t.space_id = v_space.id and t.text_hash = c.text_hash
                )
        ) as m;
    else
        v_texts := private.space_gaps(v_space) -> 'missing_chunks';
    end if;
    v_minutes := v_texts / v_rate::numeric;
    return jsonb_build_object(
        'space', v_space.name,
        'files', private.space_gaps(v_space) -> 'missing_files',
        'chunks', private.space_gaps(v_space) -> 'missing_chunks',
        'to_embed', v_texts,
        'chunks_per_minute', v_rate,
        'rate_from', case
            when chunks_per_minute is not null then 'argument' when v_measured is not null then 'jobs' else 'setting'
        end,
        'workers', workers,
        'minutes', round(v_minutes / workers, 2),
        'worker_minutes', round(v_minutes, 2),
        'price_per_hour', v_price,
        'cost_usd', round(v_minutes / 60 * v_price::numeric, 4)
    );
end;
$$;
comment on function private.estimate_backfill(smallint, real, real, integer) is
'What a back-fill will take: {space, files, chunks, to_embed (equal texts of an owner count once), chunks_per_minute,
rate_from, workers, minutes, worker_minutes, price_per_hour, cost_usd}. The rate is the argument, else that of the
space''s last jobs, else the setting.';

create function private.complete_backfill(space_id smallint) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
    v_gaps jsonb;
begin
    select s.* into v_space from public.embedding_spaces as s where s.id = space_id;
    v_gaps := private.space_gaps(v_space, private.active_space_id(v_space.kind));
    if v_space.state = 'building' and v_gaps ->> 'missing_chunks' = '0' then
        perform private.claim_spaces();
        update public.embedding_spaces as s
        set state = 'shadow'
        where s.id = space_id and s.state = 'building'
        returning s.* into v_space;
    end if;
    return private.describe_space(v_space);
end;
$$;
comment on function private.complete_backfill(smallint) is
'After a back-fill: the space is shadow once it has all that is in service in the active one. Returns it.';

-- Importing ------------------------------------------------------------------------------------

create function private.import_vectors(space_id smallint, owner_id uuid, vectors jsonb) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_count integer;
begin
    perform private.hold_spaces();
    if not exists (
        select 1 from public.embedding_spaces as s
        where s.id = space_id and s.kind = 'text' and s.state = 'building'
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'Vectors are imported into a new text space only.',
            jsonb_build_object('space_id', space_id)
        );
    end if;
    with given as materialized (
        select
            r.chunk_id, r.text_hash,
            extensions.l2_normalize(r.embedding::text::extensions.vector)::extensions.halfvec as embedding
        from jsonb_to_recordset(vectors) as r (chunk_id text, embedding jsonb, text_hash text)
    ), fitting as materialized (
        select distinct on (n.owner_id, c.text_hash) n.owner_id, c.text_hash, g.embedding
        from given as g
        inner join public.chunks as c on c.id::text = g.chunk_id
        inner join public.nodes as n on n.id = c.file_id and n.purged_at is null
        where (import_vectors.owner_id is null or n.owner_id = import_vectors.owner_id)
            and (g.text_hash is null or g.text_hash = encode(c.text_hash, 'hex'))
        order by n.owner_id, c.text_hash
    ), stored as (
        insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
        select f.owner_id, import_vectors.space_id, f.text_hash, f.embedding
        from fitting as f
        order by f.text_hash -- as whoever stores vectors
        on conflict do nothing
    )
    select count(*) into v_count
    from given as g
    inner join public.chunks as c on c.id::text = g.chunk_id
    inner join fitting as f on f.text_hash = c.text_hash
    inner join public.nodes as n on n.id = c.file_id and n.owner_id = f.owner_id;
    return v_count;
end;
$$;
comment on function private.import_vectors(smallint, uuid, jsonb) is
'Stores vectors [{chunk_id, embedding, text_hash}] that were computed elsewhere, of one owner or of all (null), at unit
length; how many fitted a chunk whose text is still that. Raises CONFLICT_STATE but for a text space that is building.';

create function private.serve_imported(space_id smallint, after uuid default null, max_files integer default 200)
returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_ids uuid[];
begin
    perform private.hold_spaces();
    v_ids := array(
        select v.id
        from public.file_versions as v
        inner join public.nodes as n on n.id = v.file_id and n.head_version_id = v.id
        where (after is null or v.id > after)
            and n.purged_at is null
            and exists (select 1 from public.chunks as c where c.version_id = v.id)
            and not exists (
                select 1 from public.chunks as c
                where c.version_id = v.id and not exists (
                    select 1 from private.text_vectors as t
                    where t.owner_id = n.owner_id
                        and t.space_id = serve_imported.space_id
                        and t.text_hash = c.text_hash
                )
            )
        order by v.id
        limit max_files
        for no key update of n skip locked
    );
    insert into public.ingest_jobs (
        file_id, version_id, stage, space_id, priority, state, progress, started_at, finished_at
    )
    select v.file_id, v.id, 'embed_text', serve_imported.space_id, 3, 'done', 1, now(), now()
    from public.file_versions as v
    where v.id = any(v_ids)
    on conflict do nothing;
    insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)
    select t.space_id, n.owner_id, n.id, c.id, t.embedding
    from public.file_versions as v
    inner join public.nodes as n on n.id = v.file_id
    inner join public.chunks as c on c.version_id = v.id
    inner join private.text_vectors as t
        on t.owner_id = n.owner_id and t.space_id = serve_imported.space_id and t.text_hash = c.text_hash
    where v.id = any(v_ids)
    on conflict do nothing;
    return v_ids[cardinality(v_ids)];
end;
$$;
comment on function private.serve_imported(smallint, uuid, integer) is
'Puts files in service in a space for which vectors were imported, where none is missing; returns the last version that
was looked at: call again with it until it is null.';
