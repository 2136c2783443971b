-- Kept answers: the hits of a search, for the one person who searched, as long as nothing has changed.
--
-- A kept answer is found again only by the same user for the same request, while what they can read (owners, granted
-- roots) is the same and the epoch of everything that concerns them is. Whether files are still being read is never
-- kept.

insert into private.settings (key, value, description) values
('search.cache_ttl_s', '3600', 'How long hits are kept for the same search of the same person, in seconds; 0: never.'),
('search.cache_mb', '64', 'Space for kept hits, in MiB; the oldest go first.');

-- names are found by words that are not only the nodes' own
create trigger _800_advance_inserted
after insert on private.name_words
referencing new table as inserted
for each statement execute function private.tg__advance_owners();

create trigger _800_advance_deleted
after delete on private.name_words
referencing old table as deleted
for each statement execute function private.tg__advance_owners();

create trigger _800_advance_updated
after update on private.name_words
referencing old table as deleted new table as inserted
for each statement execute function private.tg__advance_owners();

create unlogged table private.kept_hits (
    user_id uuid not null,
    key bytea not null,
    scope_ids uuid[] not null,
    epoch bigint not null,
    state bytea not null,
    hits jsonb not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (user_id, key)
);
comment on table private.kept_hits is 'The latest hits of a search by one person. Unlogged: a crash empties it.';
comment on column private.kept_hits.key is 'sha256 of what was asked: text, vector, space, filters, options.';
comment on column private.kept_hits.scope_ids is 'Whose changes concern it.';
comment on column private.kept_hits.epoch is 'Their epoch when it was computed.';
comment on column private.kept_hits.state is 'sha256 of what the user could read then: owners and granted roots.';
create index kept_hits_created_at_idx on private.kept_hits (created_at);
alter table private.kept_hits enable row level security;

create function private.readable_state(owner_ids uuid[], roots uuid[], scope_ids uuid[]) returns bytea
language sql immutable
set search_path = ''
as $$
    select sha256(convert_to(
        array(select distinct o.id from unnest(readable_state.owner_ids) as o (id) order by o.id)::text
        || array(select distinct r.id from unnest(readable_state.roots) as r (id) order by r.id)::text
        || array(select distinct s.id from unnest(readable_state.scope_ids) as s (id) order by s.id)::text,
        'UTF8'
    ));
$$;
comment on function private.readable_state(uuid[], uuid[], uuid[]) is
'A short name for what somebody can read, and for whose changes concern them; the same in any order.';

create function private.open_request(
    query text, mode text, space text, is_degraded boolean, embedding jsonb, asked jsonb, explain boolean
) returns private.search_request
language plpgsql stable -- one moment: what can be read, its epoch and what was kept belong together
security invoker -- called by the searches, as their owner
set search_path = ''
as $$
declare
    v_request private.search_request;
    v_user_id uuid := auth.uid();
    v_ttl double precision := (private.setting('search.cache_ttl_s'))::double precision;
    v_owner_ids uuid[];
    v_roots uuid[];
begin
    v_request.started_at := clock_timestamp();
    v_request.query := query;
    v_request.mode := mode;
    v_request.space := space;
    v_request.is_degraded := is_degraded;
    v_request.asked := asked;
    if explain or v_user_id is null or v_ttl = 0 or pg_is_in_recovery()
        or asked #> '{options,cache}' = 'false' then
        return v_request;
    end if;
    v_owner_ids := private.my_owner_ids();
    v_roots := private.granted_roots();
    v_request.scope_ids := array['00000000-0000-0000-0000-000000000000', v_user_id]
        || v_owner_ids
        || private.group_ids_of(v_user_id)
        || array(select distinct n.owner_id from public.nodes as n where n.id = any(v_roots));
    v_request.epoch := private.epoch(v_request.scope_ids);
    v_request.state := private.readable_state(v_owner_ids, v_roots, v_request.scope_ids);
    v_request.key := sha256(convert_to(
        jsonb_build_array(
            query, mode, space, embedding, asked #- '{options,technique}' #- '{options,record}'
        )::text, 'UTF8'
    ));
    select k.hits into v_request.hits
    from private.kept_hits as k
    where k.user_id = v_user_id
        and k.key = v_request.key
        and k.epoch = v_request.epoch
        and k.state = v_request.state
        and k.created_at > clock_timestamp() - make_interval(secs => v_ttl);
    return v_request;
end;
$$;
comment on function private.open_request(text, text, text, boolean, jsonb, jsonb, boolean) is
'Begins a search, once everything about it was checked: looks for its hits among those that are kept. Not for anonymous
callers, nor when it is to be explained.';

create function private.is_current(request private.search_request) returns boolean
language sql stable
security invoker
set search_path = ''
as $$ select private.epoch((request).scope_ids) = (request).epoch; $$;
comment on function private.is_current(private.search_request) is
'Whether nothing that concerns a search has changed since it began; null when it is not kept. Ask in the statement that
finds the hits.';

create function private.keep_hits(
    request private.search_request, scope private.search_scope, hits jsonb
) returns void
language plpgsql volatile
security invoker -- called by the searches, as their owner
set search_path = ''
as $$
begin
    if private.is_read_only()
        or pg_column_size(hits) > 262144
        -- in older snapshots two equal searches would make one of them fail
        or current_setting('transaction_isolation') <> 'read committed'
        -- grants can end between two statements, too
        or (request).state <> private.readable_state((scope).owner_ids, (scope).roots, (request).scope_ids)
        -- two equal searches at once: one of them keeps, and neither waits
        or not pg_try_advisory_xact_lock(hashtextextended(auth.uid() || encode((request).key, 'hex'), 0)) then
        return;
    end if;
    insert into private.kept_hits (user_id, key, scope_ids, epoch, state, hits)
    values (auth.uid(), (request).key, (request).scope_ids, (request).epoch, (request).state, keep_hits.hits)
    on conflict on constraint kept_hits_pkey do update
    set
        scope_ids = excluded.scope_ids, epoch = excluded.epoch, state = excluded.state, hits = excluded.hits,
        created_at = excluded.created_at;
end;
$$;
comment on function private.keep_hits(private.search_request, private.search_scope, jsonb) is
'Keeps the hits of a search for its caller. Only of one during which is_current held.';

create function private.kept_answer(request private.search_request, scope private.search_scope) returns jsonb
language plpgsql volatile
security invoker -- called by the searches, as their owner
set search_path = ''
as $$
declare
    v_freshness jsonb;
begin
    if (request).hits is null then
        return null;
    end if;
    -- still true, and of the same moment as what is pending
    select private.freshness(scope) into v_freshness where private.is_current(request);
    if v_freshness is null then
        return null;
    end if;
    return private.hits_answer(
        request, request.hits, v_freshness, private.record_query(request, (request).hits, true)
    );
end;
$$;
comment on function private.kept_answer(private.search_request, private.search_scope) is
'The answer of a search whose hits were kept and are still true; null when they have to be found.';

create function private.hits_answer(
    request private.search_request, hits jsonb, freshness jsonb, search_id uuid
) returns jsonb
language sql immutable
set search_path = ''
as $$
    select jsonb_build_object(
        'hits', hits, 'degraded', (request).is_degraded, 'space', (request).space, 'search_id', search_id
    ) || freshness;
$$;
comment on function private.hits_answer(private.search_request, jsonb, jsonb, uuid) is
'What a search answers: {hits, degraded, space, search_id, pending_files, index_lag}.';

create function private.close_request(
    request private.search_request, scope private.search_scope, hits jsonb, freshness jsonb, is_current boolean
) returns jsonb
language plpgsql volatile
security invoker -- called by the searches, as their owner
set search_path = ''
as $$
begin
    if is_current then
        perform private.keep_hits(request, scope, hits);
    end if;
    return private.hits_answer(request, hits, freshness, private.record_query(request, hits, false));
end;
$$;
comment on function private.close_request(
    private.search_request, private.search_scope, jsonb, jsonb, boolean
) is
'Ends a search whose hits had to be found: keeps and records them; returns its answer. is_current: whether nothing had
changed when they were found.';

create function private.tidy_kept_hits() returns bigint
language sql volatile
security invoker
set search_path = ''
as $$
    with sized as (
        select
            k.user_id, k.key, k.epoch, k.scope_ids, k.created_at,
            sum(pg_column_size(k.hits) + 200) over (order by k.created_at desc, k.user_id, k.key) as size
        from private.kept_hits as k
    ), free as (
        select k.user_id, k.key
        from sized as s
        inner join private.kept_hits as k on k.user_id = s.user_id and k.key = s.key
        where s.epoch <> private.epoch(s.scope_ids)
            or s.size > (private.setting('search.cache_mb'))::bigint * 1048576
            or s.created_at < clock_timestamp()
            - make_interval(secs => (private.setting('search.cache_ttl_s'))::double precision)
        for update of k skip locked -- what a search is writing stays for the next time
    ), gone as (
        delete from private.kept_hits as k
        using free as f
        where k.user_id = f.user_id and k.key = f.key
        returning k.user_id
    )
    select count(*) from gone;
$$;
comment on function private.tidy_kept_hits() is
'Removes kept hits that are not true any more, too old, or too many; returns how many.';
