-- Embedding spaces over their life: added (building), filled beside the active one (shadow), compared, activated in one
-- statement, rolled back, retired. Searches run throughout: each reads its space once and stays in it.
--
-- All of it belongs to whoever holds the database: the command line calls these functions, clients none.

insert into private.settings (key, value, description) values
(
    'spaces.chunks_per_minute', '800',
    'What a back-fill is estimated with until the space has a rate of its own: chunks a worker embeds in a minute.'
),
('spaces.pages_per_minute', '60', 'The same for spaces of pages and images: pages a worker embeds in a minute.'),
('spaces.price_per_hour', '0.8', 'What a back-fill is estimated with: price of an hour of a worker, in US dollars.'),
(
    'spaces.gate_tolerance', '0.01',
    'How much less nDCG@10 than the active space, on the same collection, a space may have to be activated.'
),
(
    'spaces.retire_grace_s', '10',
    'How long the vectors of a retired space are kept, for searches under way, in seconds; none takes longer.'
);

create table private.space_flips (
    id bigint generated always as identity primary key,
    kind text not null,
    from_space_id smallint references public.embedding_spaces on delete cascade,
    to_space_id smallint not null references public.embedding_spaces on delete cascade,
    flipped_at timestamptz not null default now(),
    rolled_back_at timestamptz
);
comment on table private.space_flips is 'Which space was activated after which: what a rollback goes back along.';
create index space_flips_from_space_id_idx on private.space_flips (from_space_id);
create index space_flips_to_space_id_idx on private.space_flips (to_space_id);
alter table private.space_flips enable row level security;

create table private.space_evaluations (
    id bigint generated always as identity primary key,
    space_id smallint not null references public.embedding_spaces on delete cascade,
    collection text not null check (collection <> ''),
    ndcg real not null check (ndcg between 0 and 1),
    recall real check (recall between 0 and 1),
    mrr real check (mrr between 0 and 1),
    query_count integer not null check (query_count > 0),
    has_passed boolean not null default true,
    details jsonb not null default '{}',
    created_at timestamptz not null default clock_timestamp()
);
comment on table private.space_evaluations is
'What evaluations found, per space and collection; the latest of each counts when a space is activated.';
comment on column private.space_evaluations.ndcg is 'nDCG@10 through hybrid search.';
comment on column private.space_evaluations.recall is 'recall@100.';
comment on column private.space_evaluations.has_passed is 'False when it lost against the stored baseline.';
create index space_evaluations_space_id_idx on private.space_evaluations (space_id, collection, created_at);
alter table private.space_evaluations enable row level security;

-- What there is --------------------------------------------------------------------------------

create function private.space_named(name text) returns public.embedding_spaces
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
begin
    select s.* into v_space from public.embedding_spaces as s where s.name = space_named.name;
    if v_space.id is null then
        perform private.raise_error(
            'NOT_FOUND', format('There is no space "%s".', name),
            jsonb_build_object('space', name, 'spaces', (
                select coalesce(jsonb_agg(s.name order by s.name), '[]') from public.embedding_spaces as s
            )),
            'See them all: narwhal spaces list'
        );
    end if;
    return v_space;
end;
$$;
comment on function private.space_named(text) is 'A space in any state. Raises NOT_FOUND (spaces: their names).';

create function private.record_evaluation(
    space text, collection text, ndcg real, recall real, mrr real, query_count integer,
    has_passed boolean default true, details jsonb default '{}'
) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.space_evaluations (
        space_id, collection, ndcg, recall, mrr, query_count, has_passed, details
    )
    values (
        (private.space_named(space)).id, record_evaluation.collection, record_evaluation.ndcg,
        record_evaluation.recall, record_evaluation.mrr, record_evaluation.query_count,
        coalesce(record_evaluation.has_passed, true), coalesce(record_evaluation.details, '{}')
    );
$$;
comment on function private.record_evaluation(text, text, real, real, real, integer, boolean, jsonb) is
'Keeps what an evaluation found for a space. has_passed: false when it lost against the stored baseline. Raises
NOT_FOUND.';

create function private.latest_evaluations(space_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(e.collection, jsonb_build_object(
        'ndcg', e.ndcg, 'recall', e.recall, 'mrr', e.mrr, 'query_count', e.query_count, 'has_passed', e.has_passed,
        'details', e.details, 'created_at', e.created_at
    )), '{}')
    from (
        select distinct on (v.collection) v.*
        from private.space_evaluations as v
        where v.space_id = latest_evaluations.space_id
        order by v.collection, v.created_at desc, v.id desc
    ) as e;
$$;
comment on function private.latest_evaluations(smallint) is
'The latest evaluation of a space of each collection: {collection: {ndcg, recall, mrr, query_count, has_passed,
details, created_at}}.';

create function private.lost_evaluations(space_id smallint, active_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'collection', e.key, 'ndcg', e.value -> 'ndcg', 'active', a.value -> 'ndcg',
        'has_passed', e.value -> 'has_passed'
    ) order by e.key), '[]')
    from jsonb_each(private.latest_evaluations(lost_evaluations.space_id)) as e (key, value)
    left join jsonb_each(private.latest_evaluations(lost_evaluations.active_id)) as a (key, value)
        on a.key = e.key
            -- a collection of the same name may have been changed
            and a.value #> '{details,fingerprint}' is not distinct from e.value #> '{details,fingerprint}'
    where not (e.value ->> 'has_passed')::boolean
        or (e.value ->> 'ndcg')::float8
        < (a.value ->> 'ndcg')::float8 - (private.setting('spaces.gate_tolerance'))::float8;
$$;
comment on function private.lost_evaluations(smallint, smallint) is
'Collections on which a space failed its gate, or is worse than the active one by more than spaces.gate_tolerance:
[{collection, ndcg, active, has_passed}].';

create function private.active_space_id(kind text) returns smallint
language sql stable
security invoker
set search_path = ''
as $$
    select s.id from public.embedding_spaces as s where s.kind = active_space_id.kind and s.state = 'active';
$$;
comment on function private.active_space_id(text) is 'The active space of a kind; null when there is none.';

create function private.space_stage(kind text) returns text
language sql immutable parallel safe
return case kind when 'text' then 'embed_text' else 'embed_pages' end;
comment on function private.space_stage(text) is 'The stage of ingestion that fills spaces of a kind.';

create function private.space_gaps(space public.embedding_spaces, beside smallint default null) returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_files bigint;
    v_chunks bigint;
begin
    if (space).kind = 'text' then
        select count(distinct c.file_id), count(*) into v_files, v_chunks
        from public.nodes as n
        inner join public.chunks as c on c.version_id = n.head_version_id
        where n.purged_at is null
            and not exists (
                select 1 from private.chunk_vectors as e where e.space_id = (space).id and e.chunk_id = c.id
            )
            and (
                beside is null
                or exists (select 1 from private.chunk_vectors as b where b.space_id = beside and b.chunk_id = c.id)
            );
    else
        select count(distinct n.id), count(*) into v_files, v_chunks
        from public.nodes as n
        inner join public.file_versions as v
            on v.id = n.head_version_id and private.is_pictured((space).kind, v.mime)
        -- what was never read, such as a broken file, has no pictures
        inner join public.ingest_jobs as j on j.version_id = v.id and j.stage = 'chunk' and j.state = 'done'
        cross join lateral private.pictured_pages(v.id, (space).kind) as p
        where n.purged_at is null
            and not exists (
                select 1 from private.page_vectors as e
                where e.space_id = (space).id and e.file_id = n.id and e.page = p.page and e.version_id = v.id
            )
            and (
                beside is null
                or exists (
                    select 1 from private.page_vectors as b
                    where b.space_id = beside and b.file_id = n.id and b.page = p.page and b.version_id = v.id
                )
            );
    end if;
    return jsonb_build_object('missing_files', v_files, 'missing_chunks', v_chunks);
end;
$$;
comment on function private.space_gaps(public.embedding_spaces, smallint) is
'What a space lacks of the head versions: {missing_files, missing_chunks} (pages, for other kinds than text). beside:
only what is in service in that space. Files in the trash count: they may be restored.';

create function private.space_tables(space_id smallint) returns setof regclass
language sql stable
security invoker
set search_path = ''
as $$
    -- all that refers to a space but its history; a partitioned table by the partition of that space
    select coalesce(p.inhrelid, k.conrelid)::regclass
    from pg_catalog.pg_constraint as k
    inner join pg_catalog.pg_class as c on c.oid = k.conrelid
    left join lateral (
        select i.inhrelid
        from pg_catalog.pg_inherits as i inner join pg_catalog.pg_class as l on l.oid = i.inhrelid
        where i.inhparent = c.oid
            and pg_get_expr(l.relpartbound, l.oid) = format('FOR VALUES IN (''%s'')', space_tables.space_id)
    ) as p on true
    where k.contype = 'f'
        and k.confrelid = 'public.embedding_spaces'::regclass
        and not c.relispartition
        and (c.relkind = 'r' or p.inhrelid is not null)
        and k.conrelid not in ('private.space_flips'::regclass, 'private.space_evaluations'::regclass);
$$;
comment on function private.space_tables(smallint) is 'The tables and partitions that hold what belongs to a space.';

create function private.space_jobs(space_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'queued', count(*) filter (where j.state = 'queued'),
        'running', count(*) filter (where j.state = 'running'),
        'failed', count(*) filter (where j.state in ('failed', 'dead', 'cancelled')),
        'done', count(*) filter (where j.state = 'done')
    )
    from public.ingest_jobs as j
    where j.space_id = space_jobs.space_id;
$$;
comment on function private.space_jobs(smallint) is 'A space''s jobs by state: {queued, running, failed, done}.';

create function private.space_counts(space public.embedding_spaces) returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if (space).kind = 'text' then
        return jsonb_build_object(
            'vectors', (select count(*) from private.chunk_vectors as e where e.space_id = (space).id),
            'texts', (select count(*) from private.text_vectors as t where t.space_id = (space).id)
        );
    end if;
    return jsonb_build_object(
        'vectors', (select count(*) from private.page_vectors as e where e.space_id = (space).id),
        'texts', (select count(*) from private.picture_vectors as t where t.space_id = (space).id)
    );
end;
$$;
comment on function private.space_counts(public.embedding_spaces) is
'What a space holds: {vectors, texts}: chunks in service and texts embedded, or pages and pictures.';

create function private.describe_space(space public.embedding_spaces) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select to_jsonb(space)
        || private.space_gaps(space)
        || private.space_counts(space)
        || jsonb_build_object(
            'bytes', (
                select coalesce(sum(pg_total_relation_size(t.name)), 0)
                from private.space_tables((space).id) as t (name)
                inner join pg_catalog.pg_class as c on c.oid = t.name and c.relispartition
            ),
            'jobs', private.space_jobs((space).id),
            'evaluations', private.latest_evaluations((space).id),
            'flips', (
                select coalesce(jsonb_agg(jsonb_build_object(
                    'activated_at', f.flipped_at, 'rolled_back_at', f.rolled_back_at,
                    'before', (select s.name from public.embedding_spaces as s where s.id = f.from_space_id)
                ) order by f.id), '[]')
                from private.space_flips as f where f.to_space_id = (space).id
            )
        );
$$;
comment on function private.describe_space(public.embedding_spaces) is
'All about a space: its columns, vectors in service, texts embedded (or pictures), missing_files, missing_chunks (or
pages), bytes of what search reads, jobs, evaluations, flips.';

create function private.list_spaces() returns setof jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select private.describe_space(s) from public.embedding_spaces as s order by s.kind, s.id;
$$;
comment on function private.list_spaces() is 'All spaces, as describe_space shows them.';

-- Adding ---------------------------------------------------------------------------------------

create function private.claim_spaces() returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_key bigint := hashtextextended('narwhal.spaces', 0);
begin
    -- tried and never queued for: whoever holds spaces may wait for others of its kind, which must not wait for us
    for v_try in 1..500 loop
        if pg_try_advisory_xact_lock(v_key) then
            return;
        end if;
        perform pg_sleep(0.01);
    end loop;
    perform private.raise_error(
        'LOCKED', 'Files are being finished all the time; there was no moment between them.', '{}', 'Try again.'
    );
end;
$$;
comment on function private.claim_spaces() is
'The other side of hold_spaces: until the transaction ends no file is finished, so that a change of spaces sees all
files or none of them. Whoever holds it waits for nothing. Raises LOCKED after five seconds.';

create function private.check_space(
    name text, model text, revision text, dimension integer, kind text, max_tokens integer
) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if name is null or name !~ '^[a-z0-9][a-z0-9._-]{0,62}$' or name = 'active' then
        perform private.raise_invalid(
            'name', 'A name has 1 to 63 of a-z, 0-9, ".", "_", "-", starts with a letter or digit, and is not "active".'
        );
    end if;
    if coalesce(model, '') = '' then
        perform private.raise_invalid('model', 'The model must be named.');
    end if;
    if coalesce(revision, '') = '' then
        perform private.raise_invalid('revision', 'The revision of the weights must be pinned.');
    end if;
    if dimension is null or dimension not between 1 and 4000 then
        perform private.raise_invalid(
            'dimension', 'The dimension must be between 1 and 4000.', '{"expected": {"min": 1, "max": 4000}}'
        );
    end if;
    if kind is null or kind not in ('text', 'page', 'image') then
        perform private.raise_invalid(
            'kind', 'kind must be text, page or image.', '{"expected": ["text", "page", "image"]}'
        );
    end if;
    if max_tokens is null or max_tokens < 1 then
        perform private.raise_invalid('max_tokens', 'max_tokens must be at least 1.');
    end if;
end;
$$;
comment on function private.check_space(text, text, text, integer, text, integer) is
'Raises INVALID_ARGUMENT (field, expected) for what no space can have.';

create function private.add_space(
    name text, model text, revision text, dimension integer, kind text default 'text', max_tokens integer default 512
) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
begin
    perform private.check_space(name, model, revision, dimension, kind, max_tokens);
    perform private.claim_spaces();
    select s.* into v_space from public.embedding_spaces as s where s.name = add_space.name;
    if v_space.state = 'retiring' and not private.holds_rows(v_space.id) then
        delete from public.embedding_spaces as s where s.id = v_space.id; -- gone but for its name
    elsif v_space.id is not null then
        perform private.raise_error(
            'CONFLICT_NAME', format('There is a space "%s".', name),
            jsonb_build_object('space', name, 'state', v_space.state), 'Choose another name, or retire that one.'
        );
    end if;
    -- a partition is locked against all who search and write: rather give up than let them queue behind us
    perform set_config('lock_timeout', '200ms', true);
    begin
        perform private.create_space(name, model, revision, dimension, kind, 'building', max_tokens);
    exception when lock_not_available or deadlock_detected then
        perform private.raise_error(
            'LOCKED', 'The tables of vectors are in use.', jsonb_build_object('space', name), 'Try again.'
        );
    end;
    select s.* into v_space from public.embedding_spaces as s where s.name = add_space.name;
    perform private.write_audit('add_space', null, null, to_jsonb(v_space));
    return private.describe_space(v_space);
end;
$$;
comment on function private.add_space(text, text, text, integer, text, integer) is
'Registers a space: from now on new and changed files are embedded in it too; a back-fill brings the others. Raises
INVALID_ARGUMENT (field), CONFLICT_NAME, LOCKED while its tables cannot be made.';

-- Back-filling ---------------------------------------------------------------------------------

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
    where j.priority = 2 and j.state in ('queued', 'running') and s.id <> v_space.id and s.state <> 'retiring'
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
    select v.file_id, v.id, private.space_stage(v_space.kind), v_space.id, 2
    from public.file_versions as v
    where v.id = any(v_ids)
    order by v.id
    on conflict on constraint ingest_jobs_version_id_stage_space_id_key do update
    set
        state = 'queued', priority = 2, progress = 0, pages_done = 0, attempts = 0, lease_losses = 0,
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
    select v.file_id, v.id, 'embed_text', serve_imported.space_id, 2, 'done', 1, now(), now()
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

-- Comparing ------------------------------------------------------------------------------------

create function private.nearest_chunks(space_id smallint, owner_id uuid, embedding extensions.halfvec, top_k integer)
returns uuid[]
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    return array(
        select d.chunk_id
        from private.search_dense(
            space_id, embedding,
            jsonb_populate_record(
                null::private.search_scope,
                jsonb_build_object(
                    'owner_ids', jsonb_build_array(owner_id), 'roots', '[]'::jsonb, 'shared_owner_ids', '[]'::jsonb,
                    'shared_file_ids', '[]'::jsonb, 'hidden_file_ids', '[]'::jsonb
                )
            ),
            top_k, null
        ) as d
        order by d.score desc, d.chunk_id
        limit top_k
    );
end;
$$;
comment on function private.nearest_chunks(smallint, uuid, extensions.halfvec, integer) is
'An owner''s chunks nearest to a vector of a space, the nearest first.';

create function private.compare_spaces(
    space_id smallint, other_id smallint, max_samples integer default 100, top_k integer default 10
) returns jsonb
language plpgsql volatile -- another sample each time
security invoker
set search_path = ''
as $$
declare
    v_answer jsonb;
begin
    if max_samples not between 1 and 10000 or top_k not between 1 and 100 then
        perform private.raise_invalid('samples', 'Samples are 1 to 10000, and top_k is 1 to 100.');
    end if;
    if exists (
        select 1 from public.embedding_spaces as s where s.id in (space_id, other_id) and s.kind <> 'text'
    ) then
        perform private.raise_invalid('space', 'Only text spaces are compared by the neighbours of their passages.');
    end if;
    with samples as materialized (
        select e.chunk_id, e.owner_id, e.embedding, o.embedding as other_embedding
        from private.chunk_vectors as e
        inner join private.chunk_vectors as o on o.chunk_id = e.chunk_id and o.space_id = other_id
        where e.space_id = compare_spaces.space_id
        order by random()
        limit max_samples
    ), found as (
        select
            array_remove(
                private.nearest_chunks(compare_spaces.space_id, s.owner_id, s.embedding, top_k + 1), s.chunk_id
            ) as ids,
            array_remove(private.nearest_chunks(other_id, s.owner_id, s.other_embedding, top_k + 1), s.chunk_id)
            as other_ids
        from samples as s
    ), shared as (
        select
            cardinality(array(select unnest(f.ids[:top_k]) intersect select unnest(f.other_ids[:top_k])))::float8
            / nullif(least(top_k, cardinality(f.ids), cardinality(f.other_ids)), 0) as part,
            f.ids[1] = f.other_ids[1] as is_same_first
        from found as f
    )
    select jsonb_build_object(
        'samples', count(h.part),
        'top_k', top_k,
        'overlap', round(avg(h.part)::numeric, 4),
        'least', round(min(h.part)::numeric, 4),
        'same_first', round(avg(h.is_same_first::integer)::numeric, 4)
    )
    into v_answer
    from shared as h;
    return v_answer;
end;
$$;
comment on function private.compare_spaces(smallint, smallint, integer, integer) is
'How far two spaces agree, without any model: passages picked at random ask for the nearest others of their owner in
both: {samples, top_k, overlap (mean share of the top_k that both find), least, same_first}.';

-- Activating -----------------------------------------------------------------------------------

create function private.refuse_gaps(space public.embedding_spaces) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_gaps jsonb := private.space_gaps(space, private.active_space_id((space).kind));
begin
    if v_gaps ->> 'missing_chunks' <> '0' then
        perform private.raise_error(
            'CONFLICT_STATE',
            format(
                'The space "%s" lacks %s chunks of %s files.',
                (space).name, v_gaps ->> 'missing_chunks', v_gaps ->> 'missing_files'
            ),
            v_gaps || jsonb_build_object('space', (space).name),
            format('Fill it first: narwhal spaces backfill %s', (space).name)
        );
    end if;
end;
$$;
comment on function private.refuse_gaps(public.embedding_spaces) is
'Raises CONFLICT_STATE (missing_files, missing_chunks) when a space lacks something that the active one has.';

create function private.flip_space(from_id smallint, to_id smallint) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    update public.embedding_spaces as s
    set state = case when s.id = to_id then 'active' else 'shadow' end
    where s.id in (from_id, to_id);
$$;
comment on function private.flip_space(smallint, smallint) is
'The flip, in one statement: searches before it are answered from one space, those after it from the other.';

create function private.activate_space(name text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces := private.space_named(name);
    v_active_id smallint := private.active_space_id(v_space.kind);
    v_lost jsonb := private.lost_evaluations(v_space.id, v_active_id);
begin
    if v_space.state = 'active' then
        return jsonb_build_object('space', name, 'previous', null, 'changed', false);
    end if;
    if v_space.state = 'retiring' then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" is retired.', name), jsonb_build_object('state', v_space.state)
        );
    end if;
    perform private.refuse_gaps(v_space);
    if v_lost <> '[]' then
        perform private.raise_error(
            'CONFLICT_STATE',
            format('The space "%s" finds worse on %s collections.', name, jsonb_array_length(v_lost)),
            jsonb_build_object('space', name, 'failed', jsonb_array_length(v_lost), 'evaluations', v_lost),
            'See what it lost: narwhal spaces show ' || name
        );
    end if;
    -- again, now that no file can be finished meanwhile
    perform private.claim_spaces();
    v_space := private.space_named(name);
    v_active_id := private.active_space_id(v_space.kind);
    if v_space.state in ('active', 'retiring') then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" was changed meanwhile.', name),
            jsonb_build_object('state', v_space.state)
        );
    end if;
    perform private.refuse_gaps(v_space);
    perform private.flip_space(v_active_id, v_space.id);
    insert into private.space_flips (kind, from_space_id, to_space_id)
    values (v_space.kind, v_active_id, v_space.id);
    perform private.write_audit(
        'activate_space', null, jsonb_build_object('space_id', v_active_id), jsonb_build_object('space_id', v_space.id)
    );
    return jsonb_build_object(
        'space', name, 'changed', true,
        'previous', (select s.name from public.embedding_spaces as s where s.id = v_active_id)
    );
end;
$$;
comment on function private.activate_space(text) is
'Makes a space the one that is searched: {space, previous, changed}. The one before stays written, so that a rollback
finds it complete. Raises NOT_FOUND, CONFLICT_STATE (missing_files, missing_chunks) while its back-fill is incomplete,
CONFLICT_STATE (failed, evaluations) when its evaluations are worse, LOCKED.';

create function private.rollback_space(kind text default 'text') returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_flip private.space_flips;
    v_before public.embedding_spaces;
    v_active public.embedding_spaces;
begin
    perform private.claim_spaces();
    select s.* into v_active
    from public.embedding_spaces as s
    where s.kind = rollback_space.kind and s.state = 'active';
    select f.* into v_flip
    from private.space_flips as f
    where f.kind = rollback_space.kind and f.rolled_back_at is null
    order by f.id desc
    limit 1;
    select s.* into v_before from public.embedding_spaces as s where s.id = v_flip.from_space_id;
    if v_before.id is null or v_before.state = 'retiring' then
        perform private.raise_error(
            'CONFLICT_STATE', format('There is no earlier %s space to go back to.', kind),
            jsonb_build_object('active', v_active.name, 'before', v_before.name),
            'Activate one instead: narwhal spaces activate NAME'
        );
    end if;
    perform private.flip_space(v_active.id, v_before.id);
    update private.space_flips as f set rolled_back_at = now() where f.id = v_flip.id;
    perform private.write_audit(
        'rollback_space', null, jsonb_build_object('space_id', v_active.id), jsonb_build_object('space_id', v_before.id)
    );
    return jsonb_build_object('space', v_before.name, 'previous', v_active.name, 'changed', true)
        || private.space_gaps(v_before, v_active.id);
end;
$$;
comment on function private.rollback_space(text) is
'Undoes the last activation: {space, previous, changed, missing_files, missing_chunks}. The space that was active before
it is searched again, at once and without a gate; the other stays written. Raises CONFLICT_STATE when there is none.';

create function private.settle_space(space_id smallint, max_files integer default 1000) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_version record;
    v_count integer := 0;
begin
    update public.ingest_jobs as j
    set priority = 0
    where j.id = any(array(
        select q.id from public.ingest_jobs as q
        where q.space_id = settle_space.space_id and q.state = 'queued' and q.priority > 0
        limit max_files
        for update skip locked
    ));
    for v_version in
        select v.id, v.status, exists (
            select 1 from public.ingest_jobs as j
            where j.version_id = v.id and j.state <> 'done' and private.is_required(j.space_id)
        ) as is_waiting
        from public.ingest_jobs as o
        inner join public.file_versions as v on v.id = o.version_id
        inner join public.nodes as n on n.id = v.file_id
        where o.space_id = settle_space.space_id
            and (
                (o.state = 'done' and v.status in ('processing', 'failed'))
                or (o.state in ('queued', 'running') and v.status = 'ready')
            )
        limit max_files
        for no key update of n skip locked
    loop
        if v_version.is_waiting and v_version.status = 'ready' then
            perform private.set_version_status(v_version.id, 'processing');
            v_count := v_count + 1;
        elsif not v_version.is_waiting and v_version.status <> 'ready' then
            perform private.hold_spaces();
            perform private.advance_version(v_version.id);
            v_count := v_count + 1;
        end if;
    end loop;
    return v_count;
end;
$$;
comment on function private.settle_space(smallint, integer) is
'After a flip, in a transaction of its own: files that waited only for the space before are ready, files that the new
one still lacks are processing and come first; how many were changed. Call again until it is 0.';

-- Retiring -------------------------------------------------------------------------------------

create function private.retire_space(name text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces := private.space_named(name);
begin
    perform private.claim_spaces();
    v_space := private.space_named(name);
    if v_space.state = 'active' then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" is active.', name), jsonb_build_object('state', v_space.state),
            'Activate another one first, or roll back.'
        );
    end if;
    if v_space.state <> 'retiring' then
        update public.embedding_spaces as s
        set state = 'retiring', retired_at = clock_timestamp()
        where s.id = v_space.id
        returning s.* into v_space;
        perform private.write_audit('retire_space', null, null, jsonb_build_object('space_id', v_space.id));
    end if;
    return to_jsonb(v_space) || jsonb_build_object(
        'wait_s', greatest(0, extract(
            epoch from v_space.retired_at
            + make_interval(secs => (private.setting('spaces.retire_grace_s'))::float8) - clock_timestamp()
        ))
    );
end;
$$;
comment on function private.retire_space(text) is
'Takes a space out of use for good: nothing is written to it any more and no search can name it. Its vectors go with
empty_space, after wait_s seconds. Raises NOT_FOUND, CONFLICT_STATE for the active one, LOCKED.';

create function private.empty_space(space_id smallint, max_rows integer default 10000) returns bigint
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_table regclass;
    v_count bigint;
    v_total bigint := 0;
begin
    if not exists (
        select 1 from public.embedding_spaces as s
        where s.id = space_id
            and s.state = 'retiring'
            and s.retired_at + make_interval(secs => (private.setting('spaces.retire_grace_s'))::float8)
            <= clock_timestamp()
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'Only a space that was retired a while ago is emptied.',
            jsonb_build_object('space_id', space_id)
        );
    end if;
    for v_table in select t.name from private.space_tables(space_id) as t (name) order by t.name::oid desc loop
        execute format(
            $statement$
                delete from %s
                where ctid = any(array(
                    select ctid from %s where space_id = $1 limit $2 for update skip locked
                ))
            $statement$, v_table, v_table
        ) using space_id, max_rows - v_total;
        get diagnostics v_count = row_count;
        v_total := v_total + v_count;
        exit when v_total >= max_rows;
    end loop;
    return v_total;
end;
$$;
comment on function private.empty_space(smallint, integer) is
'Deletes at most so many rows of a retired space, its jobs among them; how many. Call again until holds_rows says no:
what somebody has locked is left for the next time. Raises CONFLICT_STATE while searches may still be under way in it.';

create function private.holds_rows(space_id smallint) returns boolean
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_table regclass;
    v_found boolean;
begin
    for v_table in select t.name from private.space_tables(space_id) as t (name) loop
        execute format('select exists (select from %s where space_id = $1)', v_table) into v_found using space_id;
        if v_found then
            return true;
        end if;
    end loop;
    return false;
end;
$$;
comment on function private.holds_rows(smallint) is 'Whether anything is left of what belongs to a space.';

create function private.shrink_space(space_id smallint) returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_table regclass;
begin
    if private.holds_rows(space_id) or not exists (
        select 1 from public.embedding_spaces as s where s.id = space_id and s.state = 'retiring'
    ) then
        return false;
    end if;
    -- Emptied partitions stay: to drop one locks nodes against everybody. One a call, and rather give up than let
    -- others queue behind us.
    perform set_config('lock_timeout', '200ms', true);
    for v_table in
        select t.name
        from private.space_tables(space_id) as t (name)
        inner join pg_catalog.pg_class as c on c.oid = t.name and c.relispartition
        where pg_table_size(t.name) + pg_indexes_size(t.name) > 65536
            and not exists ( -- those cannot be truncated
                select 1 from pg_catalog.pg_constraint as k where k.contype = 'f' and k.confrelid = t.name
            )
    loop
        begin
            execute format('truncate %s', v_table);
            return true;
        exception when lock_not_available or deadlock_detected then
            null; -- vacuum will do
        end;
    end loop;
    return false;
end;
$$;
comment on function private.shrink_space(smallint) is
'Gives back the disk of one emptied partition of a retired space; false when there is nothing to give back.';
