-- How often somebody may search: counted per person without a row that their searches queue on.

insert into private.settings (key, value, description) values
(
    'search.per_minute',
    -- the local stack is for one person, and for tests
    case when to_regnamespace('narwhal_local') is null then '60' else '100000' end::jsonb,
    'Searches that one person may make a minute.'
);

create unlogged table private.search_rates (
    caller_id uuid not null,
    slot bigint not null,
    pid integer not null,
    calls integer not null,
    primary key (caller_id, slot, pid)
);
comment on table private.search_rates is
'Searches of a person, or through a link, in five seconds by one connection: only that connection writes the row, so
nobody waits for it.';
comment on column private.search_rates.slot is 'Seconds since 1970 / 5.';
alter table private.search_rates enable row level security;

create function private.caller_id() returns uuid
language sql stable
security invoker
set search_path = ''
as $$ select coalesce(auth.uid(), (private.my_link()).id); $$;
comment on function private.caller_id() is 'Who searches: the signed-in user, or the link that somebody else came by.';

create function private.is_read_only() returns boolean
language sql stable
security invoker
set search_path = ''
as $$ select current_setting('transaction_read_only')::boolean; $$;
comment on function private.is_read_only() is 'Whether nothing can be written now: a GET, or a replica.';

create function private.check_search_rate() returns void
language plpgsql volatile
security invoker -- called by the searches, as their owner
set search_path = ''
as $$
declare
    v_limit integer := (private.setting('search.per_minute'))::integer;
    v_caller_id uuid := private.caller_id();
    v_now double precision := extract(epoch from clock_timestamp());
    v_slot bigint := floor(v_now / 5);
    v_free_slot bigint;
begin
    if pg_is_in_recovery() then
        return; -- unlogged tables are not there
    end if;
    -- the slot that has to pass before the calls after it are fewer than the limit
    select max(s.slot) into v_free_slot
    from (
        select r.slot, sum(sum(r.calls)) over (order by r.slot desc) as calls
        from private.search_rates as r
        where r.caller_id = v_caller_id and r.slot > v_slot - 12
        group by r.slot
    ) as s
    where s.calls >= v_limit;
    if v_limit = 0 or v_free_slot is not null then
        perform private.raise_error(
            'RATE_LIMITED',
            format('At most %s searches a minute.', v_limit),
            jsonb_build_object(
                'limit', v_limit,
                'retry_after', greatest(1, ceil((coalesce(v_free_slot, v_slot) + 12) * 5 - v_now))::integer
            ),
            'Wait as many seconds as retry_after says.'
        );
    end if;
    if not private.is_read_only() then
        -- alone in its transaction, a search does not wait for the disk: losing its record in a crash does no harm
        if current_setting('request.method', true) <> '' and pg_current_xact_id_if_assigned() is null then
            perform set_config('synchronous_commit', 'off', true);
        end if;
        insert into private.search_rates (caller_id, slot, pid, calls)
        values (v_caller_id, v_slot, pg_backend_pid(), 1)
        on conflict on constraint search_rates_pkey do update set calls = search_rates.calls + 1;
    -- a read-only request cannot be counted: one at a time
    elsif not pg_try_advisory_xact_lock(hashtextextended('search:' || v_caller_id, 0)) then
        perform private.raise_error(
            'RATE_LIMITED', 'One read-only search at a time.', '{"retry_after": 1}', 'Use POST, or wait.'
        );
    end if;
end;
$$;
comment on function private.check_search_rate() is
'Counts a search of the caller. Raises RATE_LIMITED (limit, retry_after in seconds) at search.per_minute searches in the
last minute. A search that fails is not counted.';

create function private.tidy_search_rates() returns bigint
language sql volatile
security invoker
set search_path = ''
as $$
    with gone as (
        delete from private.search_rates as r
        where r.slot <= floor(extract(epoch from clock_timestamp()) / 5)::bigint - 12
        returning r.slot
    )
    select count(*) from gone;
$$;
comment on function private.tidy_search_rates() is 'Forgets searches of more than a minute ago; returns how many rows.';
