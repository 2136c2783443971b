-- Steering: how people stop ingestion and start it again.

create function private.stop_work(node_ids uuid[], keep_documents boolean default false) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    perform private.abort_uploads(node_ids, keep_documents);
    update public.ingest_jobs as j
    set
        state = 'cancelled', lease_token = null, lease_expires_at = null, finished_at = now(),
        error_code = 'trashed', error_message = 'Its file was moved to the trash.'
    from public.nodes as n
    where n.path && node_ids and j.file_id = n.id and j.state in ('queued', 'running');
end;
$$;
comment on function private.stop_work(uuid[], boolean) is
'Ends uploads and ingestion under these nodes: the lease tokens are gone, so no worker can write there any more.
keep_documents: saved documents that are not written yet wait.';

create function private.resume_work(node_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    -- what a user cancelled before stays cancelled
    update public.ingest_jobs as j
    set
        state = 'queued', progress = 0, pages_done = 0, attempts = 0, lease_losses = 0,
        error_code = null, error_message = null, run_after = now(), started_at = null, finished_at = null,
        worker = null
    from public.nodes as n
    where n.path @> array[resume_work.node_id]
        and n.trashed_at is null
        and j.file_id = n.id
        and j.state = 'cancelled' and j.error_code = 'trashed';
    if found then
        perform pg_notify('narwhal_jobs', '');
    end if;
end;
$$;
comment on function private.resume_work(uuid) is 'Queues again the ingestion that the trash stopped below a node.';

create function private.cancel_ingest(file_id uuid) returns integer
language plpgsql volatile
security definer -- clients only read jobs
set search_path = ''
as $$
declare
    v_count integer;
    v_version_id uuid;
begin
    perform private.require_writer();
    perform from public.nodes as n where n.id = cancel_ingest.file_id for no key update;
    perform private.require_level(file_id, 'edit');
    update public.ingest_jobs as j
    set
        state = 'cancelled', lease_token = null, lease_expires_at = null, finished_at = now(),
        error_code = 'cancelled', error_message = 'Cancelled by a user.'
    where j.file_id = cancel_ingest.file_id and j.state in ('queued', 'running');
    get diagnostics v_count = row_count;
    if v_count > 0 then
        for v_version_id in
            select v.id from public.file_versions as v
            where v.file_id = cancel_ingest.file_id and v.status in ('queued', 'processing')
        loop
            perform private.set_version_status(v_version_id, 'failed', 'cancelled', 'Cancelled by a user.');
        end loop;
        perform private.write_audit('cancel_ingest', file_id, null, null, jsonb_build_object('jobs', v_count));
    end if;
    return v_count;
end;
$$;
comment on function private.cancel_ingest(uuid) is 'Behind public.cancel_ingest.';
grant execute on function private.cancel_ingest(uuid) to anon, authenticated;

create function public.cancel_ingest(file_id uuid) returns integer
language sql volatile
security invoker
set search_path = ''
as $$ select private.cancel_ingest(file_id); $$;
comment on function public.cancel_ingest(uuid) is
'Stop the ingestion of a file; returns how many jobs ended. Needs level edit. retry_ingest takes it up again. Raises
NOT_FOUND, FORBIDDEN.';
grant execute on function public.cancel_ingest(uuid) to anon, authenticated;

create function private.retry_version(version_id uuid, from_stage text default null) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_stage text := from_stage;
    v_job public.ingest_jobs;
    v_count integer := 0;
begin
    if v_stage is null then
        for v_job in
            select j.* from public.ingest_jobs as j
            where j.version_id = retry_version.version_id and j.state in ('failed', 'dead', 'cancelled')
        loop
            perform private.begin_reread(version_id, v_job.stage);
            perform private.enqueue(version_id, v_job.stage, v_job.space_id);
            v_count := v_count + 1;
        end loop;
    else
        -- later stages are queued again by their predecessors
        for v_job in
            select j.* from public.ingest_jobs as j
            where j.version_id = retry_version.version_id and j.stage = v_stage
        loop
            perform private.begin_reread(version_id, v_stage);
            perform private.enqueue(version_id, v_job.stage, v_job.space_id);
            v_count := v_count + 1;
        end loop;
    end if;
    if exists (
        select 1 from public.ingest_jobs as j
        where j.version_id = retry_version.version_id and j.state = 'queued' and private.is_required(j.stage, j.space_id)
    ) then
        perform private.set_version_status(version_id, 'processing');
    end if;
    return v_count;
end;
$$;
comment on function private.retry_version(uuid, text) is
'Queues the ended jobs of a version again, or one stage and so all after it; returns how many.';

create function private.retry_ingest(file_id uuid, from_stage text) returns integer
language plpgsql volatile
security definer -- clients only read jobs
set search_path = ''
as $$
declare
    v_version public.file_versions;
    v_count integer;
begin
    perform private.require_writer();
    perform from public.nodes as n where n.id = retry_ingest.file_id for no key update;
    perform private.require_level(file_id, 'edit');
    if from_stage <> all(private.stages()) then
        perform private.raise_invalid(
            'from_stage', 'Stages are ' || array_to_string(private.stages(), ', ') || '.'
        );
    end if;
    select v.* into v_version
    from public.file_versions as v
    where v.file_id = retry_ingest.file_id
    order by v.no desc
    limit 1;
    if v_version.id is null or v_version.status = 'rejected' or exists (
        select 1 from public.ingest_jobs as j
        where j.version_id = v_version.id
            and j.state in ('queued', 'running')
            -- pictures being drawn of a file that is ready keep nobody from reading it anew
            and (j.stage = from_stage or j.space_id is not null or private.is_required(j.stage, null))
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'There is nothing to retry now.', jsonb_build_object('status', v_version.status)
        );
    end if;
    v_count := private.retry_version(v_version.id, from_stage);
    if v_count > 0 then
        perform private.write_audit(
            'retry_ingest', file_id, null, null, jsonb_build_object('version_id', v_version.id, 'jobs', v_count)
        );
    end if;
    return v_count;
end;
$$;
comment on function private.retry_ingest(uuid, text) is 'Behind public.retry_ingest.';
grant execute on function private.retry_ingest(uuid, text) to anon, authenticated;

create function public.retry_ingest(file_id uuid, from_stage text default null) returns integer
language sql volatile
security invoker
set search_path = ''
as $$ select private.retry_ingest(file_id, from_stage); $$;
comment on function public.retry_ingest(uuid, text) is
'Run the failed, dead or cancelled jobs of a file''s newest version again, or everything from one stage on; returns how
many jobs were queued. Needs level edit. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT, CONFLICT_STATE while running.';
grant execute on function public.retry_ingest(uuid, text) to anon, authenticated;

create function private.retry_jobs(job_ids uuid[] default null, error_code text default null) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_version_id uuid;
    v_count integer := 0;
begin
    for v_version_id in
        select v.id
        from public.file_versions as v
        inner join public.nodes as n on n.id = v.file_id
        where v.status <> 'rejected'
            and n.trashed_at is null
            and exists (
                select 1 from public.ingest_jobs as j
                where j.version_id = v.id
                    and j.state in ('failed', 'dead', 'cancelled')
                    and (retry_jobs.job_ids is null or j.id = any(retry_jobs.job_ids))
                    and (retry_jobs.error_code is null or j.error_code = retry_jobs.error_code)
            )
        -- nodes before jobs; a file that somebody is changing is left alone
        for no key update of n skip locked
    loop
        v_count := v_count + private.retry_version(v_version_id);
    end loop;
    return v_count;
end;
$$;
comment on function private.retry_jobs(uuid[], text) is
'For the command line: retries ended jobs by id or by error code, all when both are null; how many were queued.';
