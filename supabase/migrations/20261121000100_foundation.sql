-- Foundation: the schemas, privileges that start at nothing, the error catalogue, settings.

create schema private;
comment on schema private is
'Everything that is not the API: definer helpers, trigger functions, the queue, settings. Never exposed.';

-- hosted projects may have it already, in the same schema
create extension if not exists vector with schema extensions;

-- PUBLIC's execute is a global default, so a per-schema revoke would do nothing
alter default privileges revoke execute on functions from public;
alter default privileges in schema public revoke all on tables from anon, authenticated, service_role;
alter default privileges in schema public revoke all on sequences from anon, authenticated, service_role;
alter default privileges in schema public revoke all on functions from anon, authenticated, service_role;

-- policies call helpers in `private`; each helper is granted on its own
grant usage on schema private to anon, authenticated, service_role;

do $$
begin
    -- roles belong to the cluster, migrations to one of its databases
    if not exists (select from pg_roles where rolname = 'narwhal_worker') then
        create role narwhal_worker login noinherit;
    end if;
end;
$$;
comment on role narwhal_worker is
'Ingestion workers. May call the queue functions in private and nothing else; its password is set per deployment.';
alter role narwhal_worker set statement_timeout = '60s';
grant usage on schema private to narwhal_worker;

-- Errors ---------------------------------------------------------------------------------------

create function private.error_status(error text) returns integer
language sql immutable parallel safe
return case error
    when 'NOT_AUTHENTICATED' then 401
    when 'FORBIDDEN' then 403
    when 'NOT_FOUND' then 404
    when 'CONFLICT_NAME' then 409
    when 'CONFLICT_STATE' then 409
    when 'CYCLE' then 409
    when 'GONE' then 410
    when 'QUOTA_EXCEEDED' then 413
    when 'FILE_TOO_LARGE' then 413
    when 'TYPE_NOT_ALLOWED' then 415
    when 'INVALID_ARGUMENT' then 422
    when 'LOCKED' then 423
    when 'RATE_LIMITED' then 429
    when 'SERVICE_UNAVAILABLE' then 503
end;
comment on function private.error_status(text) is
'The error catalogue: stable code to HTTP status; null for a code that is not in it.';

create function private.raise_error(
    error text,
    message text,
    details jsonb default '{}',
    hint text default null
) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_status integer := private.error_status(error);
begin
    if v_status is null then
        raise exception 'error code % is not in the catalogue', error;
    end if;
    raise exception using
        errcode = 'PT' || v_status,
        message = message,
        detail = (jsonb_build_object('error', error) || details)::text,
        hint = coalesce(hint, '');
end;
$$;
comment on function private.raise_error(text, text, jsonb, text) is
'Raises one error of the catalogue. PostgREST turns SQLSTATE PTnnn into HTTP nnn; details is JSON text whose
`error` is the stable code that clients branch on.';
grant execute on function private.error_status(text) to anon, authenticated, service_role;
grant execute on function private.raise_error(text, text, jsonb, text) to anon, authenticated, service_role;

create function private.raise_storage_error(error text, message text) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    -- Storage keeps only the message of 42501, and only when it does not mention row-level security
    raise exception using errcode = '42501', message = format('narwhal/%s: %s', error, message);
end;
$$;
comment on function private.raise_storage_error(text, text) is
'Raises an error from a trigger that the Storage API fires; clients see the text `narwhal/CODE: sentence`.';

create function private.raise_invalid(field text, message text, details jsonb default '{}') returns void
language sql stable
security invoker
set search_path = ''
as $$
    select private.raise_error('INVALID_ARGUMENT', message, jsonb_build_object('field', field) || details);
$$;
comment on function private.raise_invalid(text, text, jsonb) is
'Raises INVALID_ARGUMENT naming the field that is wrong.';
grant execute on function private.raise_invalid(text, text, jsonb) to anon, authenticated, service_role;

-- Settings -------------------------------------------------------------------------------------

create table private.settings (
    key text primary key,
    value jsonb not null,
    description text not null,
    updated_at timestamptz not null default now()
);
comment on table private.settings is
'Limits, rates, defaults: configuration that hosted projects cannot keep in a GUC. Never secrets.';
alter table private.settings enable row level security;

create function private.setting(key text) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select s.value from private.settings as s where s.key = setting.key;
$$;
comment on function private.setting(text) is 'The value of one setting; null when there is none.';

insert into private.settings (key, value, description) values
('drive.max_depth', '64', 'Most folders and files on one path, the last one included.'),
('owners.storage_limit', '5368709120', 'Quota of a new personal owner, in bytes (5 GiB).'),
('uploads.max_size', '5368709120', 'Largest file, in bytes (5 GiB).'),
('uploads.tus_threshold', '6291456', 'Above this size, in bytes, a ticket says mode tus (6 MiB, also the part size).'),
('uploads.ticket_ttl_s', '86400', 'Life of an upload ticket, in seconds.'),
(
    'uploads.blocked_extensions',
    '["exe", "com", "scr", "pif", "bat", "cmd", "msi", "msp", "dll", "cpl", "vbs", "vbe", "jse", "wsf", "wsh",
      "ps1", "hta", "lnk", "reg", "jar", "app", "dmg", "apk", "elf"]',
    'Executables, by extension; everything else is stored, and skipped when it cannot be read.'
),
('jobs.lease_s', '60', 'A claimed job belongs to its worker for this long after a heartbeat, in seconds.'),
('jobs.heartbeat_s', '15', 'How often a worker renews a lease, in seconds.'),
('jobs.backoff_s', '60', 'Base of the delay after an error: base * 2^(attempt - 1) seconds.'),
('jobs.max_attempts', '3', 'Errors raised by the work itself before a job is dead.'),
('jobs.max_lease_losses', '10', 'Workers lost during one job before it is dead.'),
('chunks.size', '1000', 'Longest chunk, in characters.'),
('chunks.overlap', '200', 'Characters that neighbouring chunks share.'),
('ingest.time_limit_s', '28', 'Wall time, and CPU time, for reading one file, in seconds.'),
('ingest.time_limit_per_mb_s', '2', 'What a file''s size adds to ingest.time_limit_s, in seconds a MiB.'),
('ingest.memory_limit_mb', '512', 'Memory for reading one file, in MiB.'),
('ocr.time_limit_s', '60', 'Wall time, and CPU time, for reading one page by OCR, in seconds.'),
('ocr.memory_limit_mb', '1536', 'Memory for reading pages by OCR, the models included, in MiB.'),
('insights.automatic', 'true', 'Whether insights are found of every text, unless its owner does not want it.'),
('transcribe.time_limit_s', '600', 'Wall time, and CPU time, for listening to two minutes of a recording, in seconds.'),
('transcribe.memory_limit_mb', '1024', 'Memory for listening to a recording, the model included, in MiB.'),
('transcribe.least_confidence', '0.45', 'Of 1: less sure on the whole, a transcript of low quality is not kept.'),
('ingest.output_limit_chars', '20000000', 'Text that one file may give, in characters.');
