-- Outside services: Storage, the scanner, encoders. One that does not answer is left alone for a while, and the jobs
-- that need it stay in the queue.

insert into private.settings (key, value, description) values
('breakers.failures', '5', 'Failures in a row after which jobs that need an outside service are left in the queue.'),
('breakers.open_s', '60', 'So long, in seconds; then one job tries it.');

create table private.service_breakers (
    service text primary key,
    failures integer not null default 0,
    last_error text,
    opened_at timestamptz,
    trying_until timestamptz
);
comment on table private.service_breakers is
'Services outside of the database that jobs need and that have failed lately. A row goes when one has answered again.';
comment on column private.service_breakers.failures is 'In a row.';
comment on column private.service_breakers.opened_at is
'Since when no job that needs it is given out; null while it has not failed often enough.';
comment on column private.service_breakers.trying_until is
'Until when one job has to try it, half-open; null when none does.';
alter table private.service_breakers enable row level security;

create function private.services_of(stage text, space_id smallint) returns text[]
language sql immutable parallel safe
return case
    when stage = 'scan' then array['storage', 'scanner']
    when stage in ('detect', 'extract', 'ocr', 'transcribe', 'render', 'unpack') then array['storage']
    when space_id is not null then array['encoder ' || space_id]
    else '{}'
end;
comment on function private.services_of(text, smallint) is 'The outside services that a job of this stage needs.';

create function private.closed_services() returns text[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(b.service), '{}')
    from private.service_breakers as b
    where b.trying_until > now()
        or b.opened_at > now() - make_interval(secs => (private.setting('breakers.open_s'))::double precision);
$$;
comment on function private.closed_services() is
'Services that no job may be sent to now: they failed too often a short while ago, or another job is trying.';

create function private.try_services(services text[]) returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_failed text[] := array(
        select b.service from private.service_breakers as b
        where b.service = any(services) and b.opened_at is not null
        order by b.service
    );
    v_count integer;
begin
    if v_failed = '{}' then
        return true;
    end if;
    with free as (
        select b.service from private.service_breakers as b
        where b.service = any(v_failed) and (b.trying_until is null or b.trying_until <= now())
        order by b.service
        for update skip locked
    )
    update private.service_breakers as b
    set trying_until = now() + make_interval(secs => (private.setting('jobs.lease_s'))::double precision)
    from free as f
    where b.service = f.service;
    get diagnostics v_count = row_count;
    return v_count = cardinality(v_failed);
end;
$$;
comment on function private.try_services(text[]) is
'Whether a job may use these services: of those whose break is over one job at a time.';

create function private.note_failure(service text, error_message text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    insert into private.service_breakers as b (service, failures, last_error)
    values (note_failure.service, 1, left(error_message, 1000))
    on conflict on constraint service_breakers_pkey do update
    set failures = b.failures + 1, last_error = excluded.last_error, trying_until = null;
    update private.service_breakers as b
    set opened_at = now()
    where b.service = note_failure.service
        and b.failures >= (private.setting('breakers.failures'))::integer;
end;
$$;
comment on function private.note_failure(text, text) is
'A service has failed: the last lock that a transaction takes.';

create function private.note_success(services text[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    delete from private.service_breakers as b
    where b.service in (
        select f.service from private.service_breakers as f
        where f.service = any(services)
        for update skip locked -- waiting here could deadlock; the next job says it again
    );
$$;
comment on function private.note_success(text[]) is 'These services have answered.';
