-- Scanning: where clamd is configured, every version is looked at by it before anything else reads it.

insert into private.settings (key, value, description) values
(
    'scanner.address', 'null',
    'Where clamd listens, tcp://host:3310 or unix:/path; null: files are not scanned for viruses.'
),
('scanner.max_bytes', '26214400', 'Longer files are not scanned; at most StreamMaxLength of clamd.'),
('scanner.timeout_s', '120', 'So long, in seconds, clamd may take for a file before it counts as not there.');

create function private.first_stage() returns text
language sql stable
security invoker
set search_path = ''
as $$ select case when private.setting('scanner.address') = 'null' then 'detect' else 'scan' end; $$;
comment on function private.first_stage() is
'The stage that a version begins with: scan where a scanner is configured, else detect.';

create function private.finish_scan(job_id uuid, lease_token uuid) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    perform private.finish_job(job_id);
    perform private.enqueue(v_job.version_id, 'detect');
end;
$$;
comment on function private.finish_scan(uuid, uuid) is
'Nothing was found: queues detect. What is found is told by fail_job, as infected: the version is rejected, its bytes
are purged.';
grant execute on function private.finish_scan(uuid, uuid) to narwhal_worker;
