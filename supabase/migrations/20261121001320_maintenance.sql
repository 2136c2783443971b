-- Maintenance: all that reconcile looks for, and what must be done again and again.
--
-- Each task runs in a transaction of its own, so that none holds the locks of another.

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
('prune_queries', '1 day'),
('prune_history', '1 day');

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
        when name = 'prune_history' then to_jsonb(private.prune_history())
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
