-- Claiming: whose job is next. What somebody waits for comes before bulk work, and owners take turns.

insert into private.settings (key, value, description) values
(
    'jobs.interactive_files', '20',
    'So many files of an owner that wait to be read are taken before those of whoever sends thousands.'
);

create function private.tg_ingest_jobs__set_owner() returns trigger
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    select n.owner_id into new.owner_id from public.nodes as n where n.id = new.file_id;
    return new;
end;
$$;
comment on function private.tg_ingest_jobs__set_owner() is 'Notes whose turn a job takes.';

create trigger _100_set_owner
before insert on public.ingest_jobs
for each row when (new.owner_id is null)
execute function private.tg_ingest_jobs__set_owner();

create function private.job_priority(version_id uuid, stage text, space_id smallint) returns smallint
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_file record;
begin
    if not private.is_required(stage, space_id) then
        return 2;
    end if;
    select j.priority, j.owner_id into v_file
    from public.ingest_jobs as j
    where j.version_id = job_priority.version_id and j.stage in ('scan', 'detect') and j.stage <> job_priority.stage
    order by j.created_at
    limit 1;
    if v_file.owner_id is not null then
        return least(v_file.priority, 1);
    end if;
    select n.owner_id into v_file.owner_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = job_priority.version_id;
    return case when exists (
        select 1
        from public.ingest_jobs as j
        where j.state = 'queued'
            and j.priority = 0
            and j.stage = job_priority.stage
            and coalesce(j.space_id, 0) = 0
            and j.owner_id = v_file.owner_id
        offset (private.setting('jobs.interactive_files'))::integer - 1
    ) then 1 else 0 end;
end;
$$;
comment on function private.job_priority(uuid, text, smallint) is
'What a job is given, see ingest_jobs.priority: later stages of a file that of the first, which depends on how many
files of its owner wait already.';

create function private.claimable_kinds(
    space_ids smallint[], stages text[]
) returns table (stage text, space_id smallint, place bigint)
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    return query
    select k.stage, k.space_id, k.place
    from (
        select s.stage, e.id as space_id, s.place
        from unnest(private.stages()) with ordinality as s (stage, place)
        left join public.embedding_spaces as e on private.space_stage(e.kind) = s.stage
        where claimable_kinds.stages is null or s.stage = any(claimable_kinds.stages)
    ) as k
    where (claimable_kinds.space_ids is null or k.space_id is null or k.space_id = any(claimable_kinds.space_ids))
        -- chunks are cut to fit the active text space, which takes its model
        and (k.stage <> 'chunk' or claimable_kinds.space_ids is null or not exists (
            select 1 from public.embedding_spaces as e
            where e.kind = 'text' and e.state = 'active' and e.id <> all(claimable_kinds.space_ids)
        ))
        and not private.services_of(k.stage, k.space_id) && (select private.closed_services());
end;
$$;
comment on function private.claimable_kinds(smallint[], text[]) is
'The stages, with their spaces, that a worker with these models may be given now; place: which comes first in a file.';

create function private.next_turn(kinds jsonb, priority integer, after_owner uuid) returns uuid
language sql stable
security invoker
set search_path = ''
as $$
    -- one step into the index for each kind, however many jobs wait
    select q.owner_id
    from jsonb_to_recordset(kinds) as k (stage text, space_id integer)
    cross join lateral (
        select j.owner_id
        from public.ingest_jobs as j
        where j.state = 'queued'
            and j.priority = next_turn.priority
            and j.stage = k.stage
            and coalesce(j.space_id, 0) = k.space_id
            and j.owner_id > after_owner
        order by j.owner_id
        limit 1
    ) as q
    order by q.owner_id
    limit 1;
$$;
comment on function private.next_turn(jsonb, integer, uuid) is
'The next owner after another one, by id, for whom jobs of these kinds wait, due or not; null after the last.';

create function private.take_job(kinds jsonb, priority integer, owner_id uuid) returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_kind record;
    v_id uuid;
begin
    for v_kind in
        select k.stage, k.space_id
        from jsonb_to_recordset(kinds) as k (stage text, space_id integer, place integer)
        order by k.place desc -- what is begun is finished first: its bytes are at hand
    loop
        select j.id into v_id
        from public.ingest_jobs as j
        where j.state = 'queued'
            and j.priority = take_job.priority
            and j.stage = v_kind.stage
            and coalesce(j.space_id, 0) = v_kind.space_id
            and j.owner_id = take_job.owner_id
            and j.run_after <= now()
        order by j.run_after, j.created_at
        limit 1
        for update skip locked;
        if found and private.try_services(private.services_of(v_kind.stage, nullif(v_kind.space_id, 0)::smallint)) then
            return v_id;
        end if;
    end loop;
    return null;
end;
$$;
comment on function private.take_job(jsonb, integer, uuid) is
'Locks an owner''s next job that is due, of the latest stage, whose services may be used; null when there is none.';

create function private.choose_job(kinds jsonb) returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_zero uuid := '00000000-0000-0000-0000-000000000000';
    -- whose turn it was last: each worker goes around on its own, and starts anywhere
    v_last uuid := coalesce(nullif(current_setting('narwhal.turn', true), '')::uuid, gen_random_uuid());
    v_owner_id uuid;
    v_id uuid;
begin
    for v_priority in 0..3 loop
        v_owner_id := v_last;
        loop
            v_owner_id := private.next_turn(kinds, v_priority, v_owner_id);
            exit when v_owner_id is null;
            v_id := private.take_job(kinds, v_priority, v_owner_id);
            exit when v_id is not null;
        end loop;
        if v_id is null then
            v_owner_id := v_zero;
            loop
                v_owner_id := private.next_turn(kinds, v_priority, v_owner_id);
                exit when v_owner_id is null or v_owner_id > v_last;
                v_id := private.take_job(kinds, v_priority, v_owner_id);
                exit when v_id is not null;
            end loop;
        end if;
        if v_id is not null then
            perform set_config('narwhal.turn', v_owner_id::text, false);
            return v_id;
        end if;
    end loop;
    return null;
end;
$$;
comment on function private.choose_job(jsonb) is
'Locks the job that is next: of the first priority that has any, of the owner whose turn it is.';

create function private.claim_jobs(
    worker text, max_jobs integer, space_ids smallint[] default null, stages text[] default null
) returns setof jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_kinds jsonb;
    v_id uuid;
    v_job public.ingest_jobs;
begin
    perform private.reclaim_jobs();
    for v_number in 1..max_jobs loop
        select jsonb_agg(jsonb_build_object('stage', k.stage, 'space_id', coalesce(k.space_id, 0), 'place', k.place))
        into v_kinds
        from private.claimable_kinds(space_ids, stages) as k;
        v_id := private.choose_job(v_kinds);
        exit when v_id is null;
        update public.ingest_jobs as j
        set
            state = 'running', worker = claim_jobs.worker, lease_token = gen_random_uuid(),
            lease_expires_at = now() + make_interval(secs => (private.setting('jobs.lease_s'))::double precision),
            started_at = coalesce(j.started_at, now())
        where j.id = v_id
        returning j.* into v_job;
        if v_job.stage in ('scan', 'detect') then
            -- here the job is locked before its node: never wait for the node, or a trash could deadlock with it
            perform from public.nodes as n where n.id = v_job.file_id for no key update skip locked;
            if found then
                perform private.set_version_status(v_job.version_id, 'processing');
            end if;
        end if;
        return query
        select jsonb_build_object(
            'id', v_job.id, 'lease_token', v_job.lease_token, 'stage', v_job.stage,
            'file_id', v_job.file_id, 'version_id', v_job.version_id, 'attempts', v_job.attempts,
            'name', n.name, 'mime', v.mime, 'format', v.format, 'size', v.size,
            'bucket', b.bucket, 'key', b.key,
            'options', private.reading_options(v.reading, n.owner_id),
            'space', to_jsonb(s),
            'settings', (select jsonb_object_agg(t.key, t.value) from private.settings as t)
        )
        from public.file_versions as v
        inner join public.nodes as n on n.id = v.file_id
        left join private.blobs as b on b.id = v.blob_id
        left join public.embedding_spaces as s on s.id = v_job.space_id
        where v.id = v_job.version_id;
    end loop;
end;
$$;
comment on function private.claim_jobs(text, integer, smallint[], text[]) is
'Gives a worker up to max_jobs jobs, each with its lease token, its file''s place and the settings; reclaims lost ones.
space_ids: whose models the worker has; null: all. stages: those that it can run; null: all.';
grant execute on function private.claim_jobs(text, integer, smallint[], text[]) to narwhal_worker;
