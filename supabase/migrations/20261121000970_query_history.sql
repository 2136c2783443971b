-- Query history: what somebody searched for, for themselves; counts and averages of it for administrators.

insert into private.settings (key, value, description) values
('analytics.keep_days', '365', 'How long searches stay in the history, in days; null: for ever.'),
('analytics.amend_s', '60', 'How long after a search its record can be told what was shown in the end, in seconds.');

create function private.is_technique(technique text) returns boolean
language sql immutable parallel safe
return technique ~ '^(plain|(fusion|hyde|rerank)([+](fusion|hyde|rerank))*)$';
comment on function private.is_technique(text) is
'plain, or what the service did around a search: fusion, hyde, rerank, joined by +.';

create table public.query_analytics (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references auth.users on delete cascade,
    query text not null,
    mode text not null check (mode in ('hybrid', 'keyword', 'semantic')),
    technique text not null default 'plain' check (private.is_technique(technique)),
    request jsonb not null,
    space text,
    hits jsonb not null,
    hit_count integer not null,
    file_ids uuid[] not null,
    latency_ms real not null,
    degraded boolean not null,
    cached boolean not null,
    tokens_used integer not null default 0,
    cost_usd numeric(12, 6) not null default 0,
    created_at timestamptz not null default clock_timestamp()
);
comment on table public.query_analytics is
'Searches of signed-in users, for themselves: nobody else reads a row. Not recorded for those whose preference
searchHistory is false. Of what was found it holds ids and scores, never text.';
comment on column public.query_analytics.technique is
'plain, or what the service did around it: fusion, hyde, rerank, joined by +.';
comment on column public.query_analytics.request is '{filters, top_k, candidates, options}.';
comment on column public.query_analytics.hits is '[{chunk_id, file_id, version_id, score}], best first.';
comment on column public.query_analytics.file_ids is 'The files among the hits, each once.';
comment on column public.query_analytics.cached is 'Whether the hits were kept from the same search before.';
create index query_analytics_user_id_created_at_idx on public.query_analytics (user_id, created_at desc, id);
create index query_analytics_created_at_idx on public.query_analytics (created_at);

alter table public.query_analytics enable row level security;

create policy users_can_select on public.query_analytics
for select to authenticated
using (user_id = (select auth.uid()) and (select private.is_active()));

grant select on public.query_analytics to authenticated, service_role;

create function private.check_query_options(options jsonb) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if jsonb_typeof(options) <> 'object' then
        perform private.raise_invalid('options', 'options must be an object.');
    end if;
    if jsonb_typeof(coalesce(nullif(options -> 'cache', 'null'), 'true')) <> 'boolean' then
        perform private.raise_invalid('options.cache', 'cache must be true or false.');
    end if;
    if jsonb_typeof(coalesce(nullif(options -> 'record', 'null'), 'true')) <> 'boolean' then
        perform private.raise_invalid('options.record', 'record must be true or false.');
    end if;
    if not private.is_technique(coalesce(options ->> 'technique', 'plain')) then
        perform private.raise_invalid(
            'options.technique', 'technique must be plain, or some of fusion, hyde, rerank joined by +.'
        );
    end if;
end;
$$;
comment on function private.check_query_options(jsonb) is
'The options of a search that do not change what it finds: cache, record and technique. Raises INVALID_ARGUMENT.';

create function private.found_ids(hits jsonb) returns jsonb
language sql immutable
set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
        'chunk_id', h.hit -> 'chunk_id',
        'file_id', h.hit -> 'file_id',
        'version_id', h.hit -> 'version_id',
        'score', h.hit -> 'score'
    )) order by h.place), '[]')
    from jsonb_array_elements(hits) with ordinality as h (hit, place);
$$;
comment on function private.found_ids(jsonb) is 'What is remembered of hits: ids and scores, best first.';

create function private.record_query(request private.search_request, hits jsonb, is_cached boolean) returns uuid
language plpgsql volatile
security invoker -- called by the searches, as their owner
set search_path = ''
as $$
declare
    v_user_id uuid := auth.uid();
    v_id uuid;
begin
    if v_user_id is null
        or private.is_read_only()
        or (request).asked #> '{options,record}' = 'false'
        or exists (
            select 1 from public.user_profiles as p
            where p.id = v_user_id and p.preferences -> 'searchHistory' = 'false'
        ) then
        return null;
    end if;
    insert into public.query_analytics (
        user_id, query, mode, technique, request, space, hits, hit_count, file_ids, latency_ms, degraded, cached
    )
    values (
        v_user_id, (request).query, (request).mode,
        coalesce((request).asked #>> '{options,technique}', 'plain'), (request).asked #- '{options,technique}',
        (request).space, private.found_ids(record_query.hits), jsonb_array_length(record_query.hits),
        array(select distinct (h ->> 'file_id')::uuid from jsonb_array_elements(record_query.hits) as h),
        extract(epoch from clock_timestamp() - (request).started_at) * 1000, (request).is_degraded,
        record_query.is_cached
    )
    returning id into v_id;
    return v_id;
end;
$$;
comment on function private.record_query(private.search_request, jsonb, boolean) is
'Remembers a search for its caller; returns its id. null for anonymous callers, for those who do not want it, and for a
read-only request.';

create function private.find_search(search_id uuid, user_id uuid) returns public.query_analytics
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_search public.query_analytics;
begin
    select q.* into v_search
    from public.query_analytics as q
    where q.id = find_search.search_id and q.user_id = find_search.user_id;
    if v_search.id is null then
        perform private.raise_error(
            'NOT_FOUND', 'No such search.', jsonb_build_object('id', search_id),
            'Your searches are in query_analytics, as long as you let them be recorded.'
        );
    end if;
    return v_search;
end;
$$;
comment on function private.find_search(uuid, uuid) is
'A recorded search of this user. Raises NOT_FOUND, also for those of others.';

create function private.search_replay(search_id uuid) returns jsonb
language plpgsql stable -- one moment: rights, names and text belong together
security definer -- says how many hits are not readable any more, which the caller cannot count
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_user();
    v_search public.query_analytics;
    v_owner_ids uuid[];
    v_roots uuid[];
    v_hits jsonb;
begin
    perform private.require_permission('query');
    v_search := private.find_search(search_id, v_user_id);
    v_owner_ids := private.my_owner_ids();
    v_roots := private.granted_roots();
    select coalesce(jsonb_agg(h.hit || jsonb_build_object(
        'name', n.name,
        'path', private.path_name(n),
        'is_head', (h.hit ->> 'version_id')::uuid is not distinct from n.head_version_id,
        'page', c.page,
        'snippet', case when c.id is not null
                then private.snippet(c.content, private.parse_query(v_search.query), c.language) -> 'text' end,
        'is_text_kept', c.id is not null
    ) order by h.place), '[]')
    into v_hits
    from jsonb_array_elements(v_search.hits) with ordinality as h (hit, place)
    inner join public.nodes as n on n.id = (h.hit ->> 'file_id')::uuid
    left join public.chunks as c on c.id = (h.hit ->> 'chunk_id')::uuid and c.file_id = n.id
    where private.is_readable(n.owner_id, n.path, n.trashed_at, v_owner_ids, v_roots);
    return v_search.request || jsonb_build_object(
        'search_id', v_search.id,
        'query', v_search.query,
        'mode', v_search.mode,
        'technique', v_search.technique,
        'space', v_search.space,
        'degraded', v_search.degraded,
        'searched_at', v_search.created_at,
        'hits', v_hits,
        'not_readable', v_search.hit_count - jsonb_array_length(v_hits)
    );
end;
$$;
comment on function private.search_replay(uuid) is 'Behind public.search_replay.';
grant execute on function private.search_replay(uuid) to anon, authenticated;

create function public.search_replay(search_id uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.search_replay(search_id); $$;
comment on function public.search_replay(uuid) is
'Show what one of your searches found then: {search_id, query, mode, technique, filters, top_k, candidates, options,
space, degraded, searched_at, hits, not_readable}.

The same passages in the same order, whatever has changed since; name and path are today''s. A hit: chunk_id, file_id,
version_id, score (then), name, path, is_head, page, snippet, is_text_kept (false once that version is gone, then there
is no snippet). What you cannot read any more is counted in not_readable, and not named. search_id: from the answer of
a search, or of a row of query_analytics. Raises NOT_FOUND, NOT_AUTHENTICATED, FORBIDDEN.';
grant execute on function public.search_replay(uuid) to anon, authenticated;

create function private.check_shown_hits(hits jsonb) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_place bigint;
begin
    if hits is null or jsonb_typeof(hits) <> 'array' or jsonb_array_length(hits) > 100 then
        perform private.raise_invalid('hits', 'hits must be a list of at most 100.');
    end if;
    select h.place - 1 into v_place
    from jsonb_array_elements(hits) with ordinality as h (hit, place)
    where (
        jsonb_typeof(h.hit) = 'object'
        and jsonb_typeof(h.hit -> 'file_id') = 'string'
        and pg_input_is_valid(h.hit ->> 'file_id', 'uuid')
        and coalesce(jsonb_typeof(h.hit -> 'chunk_id'), 'null') in ('string', 'null')
        and pg_input_is_valid(coalesce(h.hit ->> 'chunk_id', h.hit ->> 'file_id'), 'uuid')
        and coalesce(jsonb_typeof(h.hit -> 'score'), 'null') in ('number', 'null')
        and pg_input_is_valid(coalesce(h.hit ->> 'score', '0'), 'float8')
    ) is not true
    order by h.place
    limit 1;
    if v_place is not null then
        perform private.raise_invalid(
            'hits.' || v_place, 'A hit has a file_id, and may have a chunk_id (both UUIDs) and a score, a number.'
        );
    end if;
    if (
        select count(distinct ((h ->> 'file_id')::uuid, (h ->> 'chunk_id')::uuid))
        from jsonb_array_elements(hits) as h
    ) < jsonb_array_length(hits) then
        perform private.raise_invalid('hits', 'A hit is shown once.');
    end if;
end;
$$;
comment on function private.check_shown_hits(jsonb) is
'Raises INVALID_ARGUMENT for what are not hits, naming the first by its place: hits.0.';

create function private.readable_hits(hits jsonb) returns jsonb
language sql stable -- one moment: rights and passages belong together
security invoker -- called by amend_search, as its owner
set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'chunk_id', c.id,
        'file_id', n.id,
        'version_id', coalesce(c.version_id, n.head_version_id),
        'score', (h.hit ->> 'score')::double precision
    ) order by h.place), '[]')
    from jsonb_array_elements(hits) with ordinality as h (hit, place)
    inner join public.nodes as n on n.id = (h.hit ->> 'file_id')::uuid and n.kind = 'file'
    left join public.chunks as c on c.id = (h.hit ->> 'chunk_id')::uuid and c.file_id = n.id
    where private.is_readable(
        n.owner_id, n.path, n.trashed_at, (select private.my_owner_ids()), (select private.granted_roots())
    )
    and (c.id is not null or h.hit ->> 'chunk_id' is null);
$$;
comment on function private.readable_hits(jsonb) is
'Of hits, those that the caller can read now, with their versions; in their order.';

create function private.amend_search(search_id uuid, hits jsonb, technique text) returns jsonb
language plpgsql volatile
security definer -- clients only read the history
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_user();
    v_seconds double precision := (private.setting('analytics.amend_s'))::double precision;
    v_search public.query_analytics;
    v_hits jsonb;
begin
    perform private.require_permission('query');
    perform private.check_shown_hits(hits);
    perform private.check_query_options(jsonb_build_object('technique', technique));
    v_search := private.find_search(search_id, v_user_id);
    if v_search.created_at < clock_timestamp() - make_interval(secs => v_seconds) then
        perform private.raise_error(
            'CONFLICT_STATE', 'This search is over.', jsonb_build_object('id', search_id, 'seconds', v_seconds),
            'What was shown is told right after the search.'
        );
    end if;
    v_hits := private.readable_hits(hits);
    if jsonb_array_length(v_hits) < jsonb_array_length(hits) then
        perform private.raise_error(
            'NOT_FOUND', 'Some of these hits are not there.', hint => 'Only what you can read can have been shown.'
        );
    end if;
    update public.query_analytics as q
    set
        hits = private.found_ids(v_hits),
        hit_count = jsonb_array_length(v_hits),
        file_ids = array(select distinct (h ->> 'file_id')::uuid from jsonb_array_elements(v_hits) as h),
        technique = coalesce(amend_search.technique, q.technique)
    where q.id = v_search.id;
    return jsonb_build_object('search_id', v_search.id, 'hit_count', jsonb_array_length(v_hits));
end;
$$;
comment on function private.amend_search(uuid, jsonb, text) is 'Behind public.amend_search.';
grant execute on function private.amend_search(uuid, jsonb, text) to anon, authenticated;

create function public.amend_search(search_id uuid, hits jsonb, technique text default null) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.amend_search(search_id, hits, technique); $$;
comment on function public.amend_search(uuid, jsonb, text) is
'Tell one of your searches what was shown of it in the end, after several phrasings were merged or a model has judged
the hits, so that search_replay shows the same: {search_id, hit_count}.

hits: at most 100, best first, each once; of each, file_id, chunk_id (null where a file was found by its name) and score
are kept. technique: what was done, as in the options of hybrid_search; null leaves it. Possible for a minute after the
search (the setting analytics.amend_s). Raises NOT_FOUND for a search that is not yours and for a hit that you cannot
read, CONFLICT_STATE (id, seconds) when it is too late, INVALID_ARGUMENT (field hits, hits.N, options.technique),
NOT_AUTHENTICATED, FORBIDDEN.';
grant execute on function public.amend_search(uuid, jsonb, text) to anon, authenticated;

create function private.clear_query_history() returns jsonb
language plpgsql volatile
security definer -- clients only read the history
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_user();
    v_count bigint;
begin
    delete from public.query_analytics as q where q.user_id = v_user_id;
    get diagnostics v_count = row_count;
    delete from private.kept_hits as k where k.user_id = v_user_id;
    return jsonb_build_object('deleted', v_count);
end;
$$;
comment on function private.clear_query_history() is 'Behind public.clear_query_history.';
grant execute on function private.clear_query_history() to anon, authenticated;

create function public.clear_query_history() returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.clear_query_history(); $$;
comment on function public.clear_query_history() is
'Delete all of your recorded searches: {deleted}.

To have none recorded, set the preference searchHistory to false. Raises NOT_AUTHENTICATED.';
grant execute on function public.clear_query_history() to anon, authenticated;

-- For administrators ---------------------------------------------------------------------------

create function private.query_statistics("from" timestamptz, "to" timestamptz) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    with searches as materialized (
        select
            q.user_id, q.mode, q.technique, q.hit_count, q.latency_ms, q.degraded, q.cached, q.tokens_used,
            q.cost_usd, (q.created_at at time zone 'utc')::date as day
        from public.query_analytics as q
        where q.created_at >= "from" and q.created_at < "to"
    )
    select jsonb_build_object(
        'from', "from",
        'to', "to",
        'total_users', (select count(*) from public.user_profiles as p where p.created_at < "to"),
        'active_users', count(distinct s.user_id),
        'total_queries', count(*),
        'avg_latency_ms', round(avg(s.latency_ms)::numeric, 2),
        'p95_latency_ms', round(percentile_cont(0.95) within group (order by s.latency_ms)::numeric, 2),
        'avg_hits', round(avg(s.hit_count), 2),
        'queries_without_hits', count(*) filter (where s.hit_count = 0),
        'degraded_queries', count(*) filter (where s.degraded),
        'cached_queries', count(*) filter (where s.cached),
        'total_tokens', coalesce(sum(s.tokens_used), 0),
        'total_cost', coalesce(sum(s.cost_usd), 0),
        'queries_by_mode', (
            select coalesce(jsonb_object_agg(m.mode, m.queries), '{}')
            from (select s.mode, count(*) as queries from searches as s group by s.mode) as m
        ),
        'queries_by_technique', (
            select coalesce(jsonb_object_agg(t.technique, t.queries), '{}')
            from (select s.technique, count(*) as queries from searches as s group by s.technique) as t
        ),
        'queries_by_day', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'day', d.day, 'queries', d.queries, 'users', d.users, 'avg_latency_ms', d.latency
            ) order by d.day), '[]')
            from (
                select
                    s.day, count(*) as queries, count(distinct s.user_id) as users,
                    round(avg(s.latency_ms)::numeric, 2) as latency
                from searches as s
                group by s.day
            ) as d
        ),
        'top_users', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'user_id', u.user_id, 'queries', u.queries, 'avg_latency_ms', u.latency
            ) order by u.queries desc, u.user_id), '[]')
            from (
                select s.user_id, count(*) as queries, round(avg(s.latency_ms)::numeric, 2) as latency
                from searches as s
                group by s.user_id
                order by queries desc, s.user_id
                limit 10
            ) as u
        )
    )
    from searches as s;
$$;
comment on function private.query_statistics(timestamptz, timestamptz) is
'Counts and averages of the recorded searches of a time; also for the command line.';

create function private.admin_analytics("from" timestamptz, "to" timestamptz) returns jsonb
language plpgsql stable
security definer -- sums over rows that only their users read
set search_path = ''
as $$
begin
    perform private.require_user();
    perform private.require_permission('view_analytics');
    if "to" <= "from" then
        perform private.raise_invalid('to', 'to must be later than from.');
    end if;
    return private.query_statistics(
        coalesce("from", coalesce("to", now()) - interval '30 days'), coalesce("to", clock_timestamp())
    );
end;
$$;
comment on function private.admin_analytics(timestamptz, timestamptz) is 'Behind public.admin_analytics.';
grant execute on function private.admin_analytics(timestamptz, timestamptz) to anon, authenticated;

create function public.admin_analytics("from" timestamptz default null, "to" timestamptz default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.admin_analytics("from", "to"); $$;
comment on function public.admin_analytics(timestamptz, timestamptz) is
'Count and average the recorded searches of everybody between two times; by default the last 30 days.

{from, to, total_users, active_users, total_queries, avg_latency_ms, p95_latency_ms, avg_hits, queries_without_hits,
degraded_queries, cached_queries, total_tokens, total_cost, queries_by_mode, queries_by_technique, queries_by_day,
top_users}; days are UTC. What was searched for, and what was found, is not shown; searches of those who do not want
them recorded do not count. Needs the permission view_analytics. Raises FORBIDDEN, INVALID_ARGUMENT (field to).';
grant execute on function public.admin_analytics(timestamptz, timestamptz) to anon, authenticated;

-- The schedule ---------------------------------------------------------------------------------

create function private.tidy_searches() returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'kept_hits', private.tidy_kept_hits(),
        'rates', private.tidy_search_rates(),
        'epochs', private.fold_epochs()
    );
$$;
comment on function private.tidy_searches() is 'Keeps small what searches leave behind; returns what went.';

create function private.prune_queries() returns bigint
language sql volatile
security invoker
set search_path = ''
as $$
    with gone as (
        delete from public.query_analytics as q
        where q.created_at < now() - make_interval(
            days => nullif(private.setting('analytics.keep_days'), 'null')::integer
        )
        returning q.id
    )
    select count(*) from gone;
$$;
comment on function private.prune_queries() is
'Deletes recorded searches older than analytics.keep_days; returns how many.';
