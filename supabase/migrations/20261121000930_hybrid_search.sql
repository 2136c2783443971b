-- Hybrid search: the legs fused, and the hits that clients see.

create type private.search_options as (
    fusion text,
    keyword_weight real,
    vector_weight real,
    name_weight real,
    rrf_k real,
    threshold real,
    group_by text,
    per_file integer,
    context text,
    dedup boolean
);
comment on type private.search_options is 'Checked options of hybrid_search.';

create function private.option_number(options jsonb, field text, least_value real, most real, default_value real)
returns real
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_value jsonb := options #> string_to_array(field, '.');
begin
    if coalesce(v_value, 'null') = 'null' then
        return default_value;
    end if;
    -- as numeric, since a JSON number may be larger than any other type holds
    if jsonb_typeof(v_value) <> 'number' or not v_value::numeric between least_value::numeric and most::numeric then
        perform private.raise_invalid(
            'options.' || split_part(field, '.', 1),
            format('%s must be a number from %s to %s.', field, least_value, most)
        );
    end if;
    return v_value::real;
end;
$$;
comment on function private.option_number(jsonb, text, real, real, real) is
'A number among options, by its dotted name. Raises INVALID_ARGUMENT naming the option.';

create function private.option_choice(options jsonb, field text, variadic choices text[]) returns text
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_value jsonb := options -> field;
begin
    if coalesce(v_value, 'null') = 'null' then
        return choices[1];
    end if;
    if jsonb_typeof(v_value) <> 'string' or not v_value #>> '{}' = any(choices) then
        perform private.raise_invalid(
            'options.' || field, format('%s must be one of: %s.', field, array_to_string(choices, ', ')),
            jsonb_build_object('expected', choices)
        );
    end if;
    return v_value #>> '{}';
end;
$$;
comment on function private.option_choice(jsonb, text, text[]) is
'A word among options, the first choice when there is none. Raises INVALID_ARGUMENT naming it.';

create function private.search_options(options jsonb) returns private.search_options
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_known constant text[] := '{fusion,weights,rrf_k,threshold,group_by,per_file,context,dedup}';
    v_options private.search_options;
    v_unknown text;
    v_fusion text;
begin
    if jsonb_typeof(options) <> 'object' then
        perform private.raise_invalid('options', 'options must be an object.');
    end if;
    select min(o.key) into v_unknown from jsonb_object_keys(options - v_known) as o (key);
    if v_unknown is not null then
        perform private.raise_invalid(
            'options.' || v_unknown, format('There is no option "%s".', v_unknown),
            jsonb_build_object('expected', v_known || '{as_of,cache,record,technique}'::text[])
        );
    end if;
    if jsonb_typeof(coalesce(nullif(options -> 'weights', 'null'), '{}')) <> 'object'
        or coalesce(nullif(options -> 'weights', 'null'), '{}') - '{keyword,vector,name}'::text[] <> '{}' then
        perform private.raise_invalid('options.weights', 'weights must be an object with keyword, vector and name.');
    end if;
    if jsonb_typeof(coalesce(options -> 'dedup', 'null')) not in ('null', 'boolean') then
        perform private.raise_invalid('options.dedup', 'dedup must be true or false.');
    end if;
    v_fusion := private.option_choice(options, 'fusion', 'convex', 'rrf');
    if options ->> 'fusion' is null and options ->> 'rrf_k' is not null then
        v_fusion := 'rrf'; -- what else it would be a constant of
    end if;
    v_options := (
        v_fusion,
        -- convex: .8 of meaning for any collection (Bruch et al. 2023)
        private.option_number(options, 'weights.keyword', 0, 1000, case v_fusion when 'rrf' then 1 else 0.2 end),
        private.option_number(options, 'weights.vector', 0, 1000, case v_fusion when 'rrf' then 1 else 0.8 end),
        null,
        private.option_number(options, 'rrf_k', 1, 1000, 10),
        private.option_number(options, 'threshold', -1, 1, null),
        private.option_choice(options, 'group_by', 'none', 'file'),
        private.option_number(options, 'per_file', 1, 10, 3),
        private.option_choice(options, 'context', 'none', 'neighbours', 'section'),
        (options ->> 'dedup')::boolean
    );
    -- a name matches by its words
    v_options.name_weight := private.option_number(options, 'weights.name', 0, 1000, v_options.keyword_weight);
    if v_options.keyword_weight + v_options.vector_weight + v_options.name_weight = 0 then
        perform private.raise_invalid('options.weights', 'One of the weights must be above 0.');
    end if;
    return v_options;
end;
$$;
comment on function private.search_options(jsonb) is 'Options with their defaults. Raises INVALID_ARGUMENT.';

create type private.search_call as (
    query text,
    parsed private.search_query,
    space_id smallint,
    embedding extensions.halfvec,
    scope private.search_scope,
    options private.search_options,
    top_k integer,
    candidates integer,
    explain boolean
);
comment on type private.search_call is 'What hybrid_search looks for, once it was checked.';

-- Fusion ---------------------------------------------------------------------------------------

create type private.leg_hit as (id uuid, score real, place integer);
comment on type private.leg_hit is 'A chunk, or a file, that a leg of search finds, and its place from 1.';

create type private.leg_hits as (
    keyword private.leg_hit [], vector private.leg_hit [], name private.leg_hit [],
    keyword_rest real, vector_rest real, languages text [], plan jsonb
);
comment on type private.leg_hits is
'What the legs of search find, best first, and how. keyword_rest and vector_rest: the most that any other passage has;
languages: those that the model of the vectors was made for, null for any.';

create function private.ask_legs(
    request private.search_call, max_hits integer, past private.leg_hits
) returns private.leg_hits
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
declare
    v_options private.search_options := (request).options;
    v_hits private.leg_hits;
    v_times timestamptz[] := array[clock_timestamp()];
begin
    if v_options.keyword_weight > 0 then
        v_hits.keyword := array(
            select (k.chunk_id, k.score, row_number() over (order by k.score desc, k.chunk_id))::private.leg_hit
            from private.search_keyword((request).query, (request).scope, max_hits) as k
            order by k.score desc, k.chunk_id
            limit max_hits
        );
        v_hits.keyword := private.with_past(v_hits.keyword, (past).keyword, max_hits);
    end if;
    v_times := v_times || clock_timestamp();
    if v_options.vector_weight > 0 and (request).embedding is not null then
        v_hits.vector := array(
            select (d.chunk_id, d.score, row_number() over (order by d.score desc, d.chunk_id))::private.leg_hit
            from private.search_dense(
                (request).space_id, (request).embedding, (request).scope, max_hits, v_options.threshold
            ) as d
            order by d.score desc, d.chunk_id
            limit max_hits
        );
        v_hits.vector := private.with_past(v_hits.vector, (past).vector, max_hits);
    end if;
    v_times := v_times || clock_timestamp();
    if v_options.name_weight > 0 then
        v_hits.name := array(
            select (s.file_id, s.score, row_number() over (order by s.score desc, s.file_id))::private.leg_hit
            from private.search_names(
                ((request).parsed).words, private.name_scope((request).scope), max_hits
            ) as s
            where s.score >= 0.5 -- names that have most of what is asked for; a common word makes no name a hit
            order by s.score desc, s.file_id
            limit max_hits
        );
    end if;
    v_times := v_times || clock_timestamp();
    -- a leg that has enough leaves out what is hardly worse; else what has none of the words is left
    v_hits.keyword_rest := case
        when cardinality(v_hits.keyword) >= max_hits then v_hits.keyword[max_hits].score else 0
    end;
    v_hits.vector_rest := v_hits.vector[cardinality(v_hits.vector)].score;
    v_hits.languages := (select s.languages from public.embedding_spaces as s where s.id = (request).space_id);
    v_hits.plan := (
        select jsonb_object_agg(l.leg, jsonb_build_object(
            'found', coalesce(l.found, 0),
            'ms', round(1000 * extract(epoch from v_times[l.no + 1] - v_times[l.no]), 1)
        ))
        from (values
            (1, 'keyword', cardinality(v_hits.keyword)),
            (2, 'dense', cardinality(v_hits.vector)),
            (3, 'name', cardinality(v_hits.name))
        ) as l (no, leg, found)
    );
    return v_hits;
end;
$$;
comment on function private.ask_legs(private.search_call, integer, private.leg_hits) is
'Asks every leg that counts, at most max_hits of each, with what ask_past has found.';

create function private.foreign_weight(
    language text, legs private.leg_hits, options private.search_options
) returns double precision
language sql immutable
security invoker
set search_path = ''
as $$
    select case
        when language <> all((legs).languages) and cardinality((legs).vector) > 0 and (options).keyword_weight > 0
            then (options).vector_weight / 2::double precision
        else 0
    end;
$$;
comment on function private.foreign_weight(text, private.leg_hits, private.search_options) is
'How much of the weight of meaning counts for words instead, in a passage of that language: half, where the model was
not made for it and knows little more than its alphabet. XQuAD in 12 languages by an English model, nDCG@10: .94 instead of
.93 (convex), .91 instead of .76 (rrf).';

create function private.fused_score(
    keyword private.leg_hit, vector private.leg_hit, foreign_weight double precision, legs private.leg_hits,
    options private.search_options
) returns double precision
language sql immutable
security invoker
set search_path = ''
as $$
    select case (options).fusion
        when 'rrf' then
            coalesce(((options).keyword_weight + foreign_weight) / ((options).rrf_k + (keyword).place), 0)
            + coalesce(((options).vector_weight - foreign_weight) / ((options).rrf_k + (vector).place), 0)
        else coalesce(
            ((options).keyword_weight + foreign_weight) * coalesce((keyword).score, (legs).keyword_rest)
            / nullif((legs).keyword[1].score, 0), 0
        ) + coalesce(
            ((options).vector_weight - foreign_weight) * (1 + coalesce((vector).score, (legs).vector_rest))
            / nullif(1 + (legs).vector[1].score, 0), 0
        )
    end;
$$;
comment on function private.fused_score(
    private.leg_hit, private.leg_hit, double precision, private.leg_hits, private.search_options
) is
'What a passage scores that the legs found there, null for one that did not find it. convex: sum of weight * score, each
from its least possible (0 of BM25, -1 of a cosine) to its best one, TM2C2 of Bruch et al. 2023. rrf: sum of weight /
(k + place), Cormack et al. 2009. foreign_weight goes from meaning to words.';

create function private.find_candidates(request private.search_call, legs private.leg_hits)
returns private.candidate[]
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    v_options private.search_options := (request).options;
    v_scope private.search_scope := (request).scope;
    v_query private.search_query := (request).parsed;
    v_has_conditions boolean := v_query.phrases || v_query.excluded <> '{}' or v_query.words = '';
begin
    return array(
        select (
            r.chunk_id, r.file_id, r.text_hash, r.fused, r.boost, r.keyword_rank, r.keyword_score, r.vector_rank,
            r.vector_score, r.name_rank, r.name_score, null, r.fused * r.boost
        )::private.candidate
        from (
            select
                coalesce(t.id, o.id) as chunk_id, n.id as file_id, coalesce(t.text_hash, o.text_hash) as text_hash,
                coalesce(t.boost, o.boost, 1) as boost, t.keyword_rank, t.keyword_score, t.vector_rank, t.vector_score,
                m.place as name_rank, m.score as name_score,
                -- a name tells of its file, so only the best passage of the file takes it; and as far as it matches
                coalesce(t.fused, private.fused_score(
                    null, null, private.foreign_weight(o.language, legs, v_options), legs, v_options
                ))
                + coalesce(v_options.name_weight * m.score::double precision / case
                    when v_options.fusion = 'rrf' then v_options.rrf_k + m.place else 1 end, 0) as fused
            from (
                select
                    f.*, row_number() over (
                        partition by f.file_id order by f.fused * f.boost desc, f.vector_rank, f.keyword_rank, f.id
                    ) = 1 as is_best
                from (
                    select
                        c.id, c.file_id, c.text_hash, c.boost, c.content, c.language,
                        k.place as keyword_rank, k.score as keyword_score,
                        d.place as vector_rank, d.score as vector_score,
                        private.fused_score(k, d, w.foreign_weight, legs, v_options) as fused
                    from unnest((legs).keyword) as k
                    full join unnest((legs).vector) as d on d.id = k.id
                    inner join public.chunks as c on c.id = coalesce(k.id, d.id)
                    cross join lateral (
                        select private.foreign_weight(c.language, legs, v_options) as foreign_weight offset 0
                    ) as w
                    offset 0 -- the score once
                ) as f
            ) as t
            full join unnest((legs).name) as m on m.id = case when t.is_best then t.file_id end
            inner join public.nodes as n on n.id = coalesce(t.file_id, m.id)
            left join lateral ( -- found by its name only: it begins with this
                select c.id, c.text_hash, c.boost, c.content, c.language
                from public.chunks as c
                where t.id is null and c.version_id = private.version_then(v_scope, n.id, n.head_version_id) and (
                    num_nonnulls(v_scope.languages, v_scope.page_from, v_scope.page_to) = 0
                    or private.passes_chunk_filters(c.id, v_scope)
                )
                order by c.idx
                limit 1
            ) as o on true
            where private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
                and (
                    t.id is not null or o.id is not null
                    or n.head_version_id is not null
                    and num_nonnulls(v_scope.languages, v_scope.page_from, v_scope.page_to) = 0
                )
                and (not v_has_conditions or private.passes_query(
                    concat(case when m.id is not null then n.name || e'\n' end, coalesce(t.content, o.content)),
                    coalesce(t.language, o.language), v_query
                ))
        ) as r
        -- equal sums are common (third and fifth, fifth and third): meaning decides, not chance
        order by r.fused * r.boost desc, r.vector_rank, r.keyword_rank, r.chunk_id, r.file_id
    );
end;
$$;
comment on function private.find_candidates(private.search_call, private.leg_hits) is
'What the legs find as one ranking, best first: only what is readable and meets the conditions of the query.';

create function private.rank_candidates(request private.search_call, out pool private.candidate[], out plan jsonb)
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
declare
    -- whoever wants the best of each file wants to see several files
    v_limit integer := case ((request).options).group_by
        when 'file' then least((request).candidates * 4, greatest((request).candidates, 1000))
        else (request).candidates
    end;
    v_past private.leg_hits := private.ask_past(request);
    v_legs private.leg_hits;
    v_copies integer := 0;
begin
    loop
        v_legs := private.ask_legs(request, v_limit, v_past);
        pool := private.find_candidates(request, v_legs);
        if ((request).options).dedup is distinct from false then
            pool := private.mark_copies(pool);
            v_copies := (select count(*) from unnest(pool) as u where u.copy_of is not null);
        end if;
        -- copies must not fill the list: when they are most of what was found, there is more to look for
        exit when v_limit >= 1000
            or v_copies * 2 <= cardinality(pool)
            or greatest(cardinality(v_legs.keyword), cardinality(v_legs.vector), 0) < v_limit;
        v_limit := 1000;
    end loop;
    plan := jsonb_build_object(
        'legs', v_legs.plan, 'candidates', v_limit, 'passages', cardinality(pool), 'copies', v_copies,
        'as_of', v_past.plan
    );
end;
$$;
comment on function private.rank_candidates(private.search_call) is
'The passages that may become hits, those that repeat an earlier one marked; and how they were found. Nothing in it
depends on top_k, so that a longer list begins with the shorter one.';

create function private.placed(pool private.candidate[], request private.search_call)
returns table (candidate private.candidate, place bigint, place_in_file bigint)
language sql immutable
security invoker
set search_path = ''
as $$
    select
        u.*::private.candidate,
        row_number() over (order by u.score desc, u.vector_rank, u.keyword_rank, u.chunk_id, u.file_id),
        row_number() over (
            partition by u.file_id order by u.score desc, u.vector_rank, u.keyword_rank, u.chunk_id
        )
    from unnest(placed.pool) as u
    where u.copy_of is null or ((placed.request).options).dedup is null;
$$;
comment on function private.placed(private.candidate[], private.search_call) is
'The candidates that are shown, and the place of each among all and among those of its file.';

-- Hits -----------------------------------------------------------------------------------------

create function private.passages_json(candidates private.candidate[], request private.search_call)
returns table (place bigint, file_id uuid, chunk_id uuid, version_id uuid, passage jsonb)
language sql stable rows 100
security invoker -- called by search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    with shown as materialized (
        select u.*, c
        from unnest(passages_json.candidates) with ordinality as u
        left join public.chunks as c on c.id = u.chunk_id
    ), asked as materialized (
        -- the same words for all chunks of a language
        select l.language, t.config, private.any_word((passages_json.request).parsed, t.config) as words
        from (select distinct (s.c).language from shown as s) as l
        cross join lateral (select private.text_config(l.language) as config) as t
    )
    select
        s.ordinality, s.file_id, s.chunk_id, (s.c).version_id,
        jsonb_build_object(
            'chunk_id', (s.c).id, 'page', (s.c).page, 'bboxes', (s.c).bboxes, 'heading', (s.c).heading,
            'char_start', (s.c).char_start, 'char_end', (s.c).char_end,
            'time_range_ms', case when (s.c).time_range_ms is not null
                then jsonb_build_array(lower((s.c).time_range_ms), upper((s.c).time_range_ms)) end,
            'snippet', h.snippet -> 'text', 'highlights', h.snippet -> 'highlights',
            'snippet_start', h.snippet -> 'start', 'snippet_end', h.snippet -> 'end',
            'snippet_bboxes', case when (s.c).bboxes <> '[]' then private.line_boxes(
                (s.c).version_id, coalesce((s.c).page, 1),
                (s.c).char_start + (h.snippet -> 'start')::integer, (s.c).char_start + (h.snippet -> 'end')::integer
            ) else '[]' end,
            'score', s.score,
            'parts', jsonb_build_object(
                'keyword_rank', s.keyword_rank, 'keyword_score', s.keyword_score,
                'vector_rank', s.vector_rank, 'vector_score', s.vector_score,
                'name_rank', s.name_rank, 'name_score', s.name_score,
                'fused', s.fused, 'boost', s.boost, 'copy_of', s.copy_of
            )
        ) || case when ((passages_json.request).options).context <> 'none' then jsonb_build_object(
            'context', private.chunk_context(s.c, ((passages_json.request).options).context)
        ) else '{}' end
    from shown as s
    inner join asked as a on a.language is not distinct from (s.c).language
    cross join lateral (
        select case when (s.c).id is not null then
            private.snippet((s.c).content, (passages_json.request).parsed, a.words, a.config)
        end as snippet
        offset 0 -- once
    ) as h;
$$;
comment on function private.passages_json(private.candidate[], private.search_call) is
'The fields of hits that are about their passages, in the order of the candidates; null where a file was found by its
name only.';

create function private.copies_json(chunk_id uuid, pool private.candidate[]) returns jsonb
language sql stable
security invoker -- called by search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    select jsonb_build_object('count', count(*), 'files', coalesce((
        select jsonb_agg(jsonb_build_object('file_id', n.id, 'name', n.name) order by n.name, n.id)
        from (
            select n.id, n.name
            from public.nodes as n
            where n.id in (
                select u.file_id from unnest(copies_json.pool) as u where u.copy_of = copies_json.chunk_id
            )
            order by n.name, n.id
            limit 20
        ) as n
    ), '[]'))
    from unnest(copies_json.pool) as u
    where u.copy_of = copies_json.chunk_id;
$$;
comment on function private.copies_json(uuid, private.candidate[]) is
'How many other passages of the pool say the same, and in which files, at most 20 of them: {count, files: [{file_id,
name}]}.';

create function private.access_json(node_id uuid) returns jsonb
language sql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
    select coalesce(case when auth.uid() is not null then private.why_access(null, node_id) -> 'chain' end, '[]')
        || coalesce((
            select jsonb_build_array(jsonb_build_object('via', 'link', 'node', private.visible_name(l.node_id)))
            from private.my_link() as l
            inner join public.nodes as n on n.id = access_json.node_id and l.node_id = any(n.path)
        ), '[]');
$$;
comment on function private.access_json(uuid) is
'Every way by which the caller can read a node: owner, workspace, share, link.';

create function private.hits_json(
    candidates private.candidate[], passages private.candidate[], pool private.candidate[], request private.search_call
) returns jsonb
language sql stable
security invoker -- called by search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    with passages as materialized (
        select p.* from private.passages_json(hits_json.passages, hits_json.request) as p
    ), copied as materialized (
        select array_agg(u.copy_of) as ids from unnest(hits_json.pool) as u
    )
    select coalesce(jsonb_agg(
        p.passage || jsonb_build_object(
            'file_id', n.id,
            'version_id', v.id,
            'is_head', v.id is not distinct from n.head_version_id,
            'name', n.name,
            'path', ( -- from the highest ancestor that the caller can see
                select '/' || string_agg(a.name, '/' order by cardinality(a.path))
                from public.nodes as a
                where a.id = any(n.path) and private.is_readable(
                    a.owner_id, a.path, a.trashed_at,
                    ((hits_json.request).scope).owner_ids, ((hits_json.request).scope).roots
                )
            )
        ) || case when ((hits_json.request).options).dedup is distinct from false then jsonb_build_object(
            'copies', case when h.chunk_id = any(c.ids) then private.copies_json(h.chunk_id, hits_json.pool)
                else '{"count": 0, "files": []}' end
        ) else '{}' end || case when ((hits_json.request).options).group_by = 'file' then jsonb_build_object(
            'passages', (
                select jsonb_agg(o.passage order by o.place) from passages as o where o.file_id = n.id
            )
        ) else '{}' end || case when (hits_json.request).explain then jsonb_build_object(
            'access', private.access_json(n.id)
        ) else '{}' end
        order by h.ordinality
    ), '[]')
    from unnest(hits_json.candidates) with ordinality as h
    cross join copied as c
    inner join passages as p on p.file_id = h.file_id and p.chunk_id is not distinct from h.chunk_id
    inner join public.nodes as n on n.id = h.file_id
    cross join lateral (
        select coalesce(
            p.version_id, private.version_then((hits_json.request).scope, n.id, n.head_version_id)
        ) as id
    ) as v;
$$;
comment on function private.hits_json(
    private.candidate[], private.candidate[], private.candidate[], private.search_call
) is
'Candidates as clients see them: with their passages, or those of their files, and what repeats them in the pool.';

create function private.find_hits(request private.search_call, out hits jsonb, out plan jsonb)
language plpgsql stable -- so that all of it sees one moment
security invoker -- called by hybrid_search, as its owner
set search_path = ''
set plan_cache_mode = force_generic_plan -- look-ups by key: to plan them takes longer than to run them
as $$
declare
    v_options private.search_options := (request).options;
    v_pool private.candidate[];
    v_shown private.candidate[];
    v_passages private.candidate[];
begin
    select r.pool, r.plan into v_pool, plan from private.rank_candidates(request) as r;
    v_shown := array(
        select p.candidate
        from private.placed(v_pool, request) as p
        where v_options.group_by = 'none' or p.place_in_file = 1
        order by p.place
        limit (request).top_k
    );
    v_passages := case v_options.group_by when 'file' then array(
        select p.candidate
        from private.placed(v_pool, request) as p
        where p.place_in_file <= v_options.per_file
            and (p.candidate).file_id in (select s.file_id from unnest(v_shown) as s)
        order by p.place
    ) else v_shown end;
    hits := private.hits_json(v_shown, v_passages, v_pool, request);
end;
$$;
comment on function private.find_hits(private.search_call) is
'The best top_k hits, or files with their best passages; and how they were found.';

create function private.explain_json(request private.search_call, plan jsonb) returns jsonb
language sql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
    select jsonb_build_object(
        'plan', (private.plan_dense((request).space_id, (request).scope)).plan,
        'conditions', to_jsonb((request).parsed) - 'words',
        'options', to_jsonb((request).options),
        'owners', cardinality(((request).scope).owner_ids),
        'shared_files', cardinality(((request).scope).shared_file_ids),
        'filtered_files', cardinality(((request).scope).file_ids),
        'trashed_files', case when ((request).scope).as_of is null
            then cardinality(((request).scope).hidden_file_ids) end
    ) || plan || jsonb_build_object('legs', jsonb_build_object(
        'keyword', plan #> '{legs,keyword}'
        || (private.explain_keyword((request).query, (request).scope) - 'parsed'),
        'dense', plan #> '{legs,dense}' || private.explain_dense((request).space_id, (request).scope),
        'name', plan #> '{legs,name}'
    ));
$$;
comment on function private.explain_json(private.search_call, jsonb) is
'How a search was answered: options with their defaults, what the filters left, what each leg found in how long.';

create function private.hybrid_search(
    query text, embedding jsonb, space text, filters jsonb, top_k integer, candidates integer, options jsonb,
    explain boolean
) returns jsonb
language plpgsql volatile
security definer -- the legs need indexes that row security would take away; hits pass the predicate again
set search_path = ''
as $$
declare
    v_request private.search_request;
    v_call private.search_call;
    v_moment timestamptz;
    v_space public.embedding_spaces;
    v_answer jsonb;
    v_hits jsonb;
    v_plan jsonb;
    v_freshness jsonb;
    v_is_current boolean;
begin
    perform private.require_permission('query');
    v_call.query := btrim(query, e' \t\r\n');
    if v_call.query is null or char_length(v_call.query) not between 3 and 1000 then
        perform private.raise_invalid('query', 'A question has 3 to 1000 characters.');
    end if;
    if top_k is null or top_k not between 1 and 100 then
        perform private.raise_invalid('top_k', 'top_k must be between 1 and 100.');
    end if;
    if candidates is null or candidates not between 1 and 1000 then
        perform private.raise_invalid('candidates', 'candidates must be between 1 and 1000.');
    end if;
    perform private.check_filters(coalesce(filters, '{}'));
    perform private.check_query_options(options);
    v_call.options := private.search_options(coalesce(options, '{}') - '{as_of,cache,record,technique}'::text[]);
    v_moment := private.past_moment(options);
    v_space := private.find_space(coalesce(space, 'active'), 'text');
    v_call.space_id := v_space.id;
    v_call.embedding := private.query_vector(embedding, v_space);
    v_call.parsed := private.parse_query(v_call.query);
    v_call.top_k := top_k;
    v_call.candidates := candidates;
    v_call.explain := explain;
    perform private.check_search_rate();
    v_request := private.open_request(
        v_call.query,
        case
            when v_call.embedding is null or (v_call.options).vector_weight = 0 then 'keyword'
            when (v_call.options).keyword_weight = 0 then 'semantic'
            else 'hybrid'
        end,
        v_space.name, v_call.embedding is null and (v_call.options).vector_weight > 0, embedding,
        jsonb_build_object('filters', filters, 'top_k', top_k, 'candidates', candidates, 'options', options),
        explain
    );
    v_call.scope := private.search_scope(coalesce(filters, '{}'));
    if v_moment is not null then
        v_call.scope := private.scope_then(v_call.scope, v_moment);
    end if;
    v_answer := private.kept_answer(v_request, v_call.scope);
    if v_answer is not null then
        return v_answer;
    end if;

    -- one statement sees one moment: what is found and what is still pending belong together
    select f.hits, f.plan, private.freshness(v_call.scope), private.is_current(v_request)
    into v_hits, v_plan, v_freshness, v_is_current
    from private.find_hits(v_call) as f;

    v_answer := private.close_request(v_request, v_call.scope, v_hits, v_freshness, v_is_current);
    return v_answer || case when explain then jsonb_build_object(
        'explain', private.explain_json(v_call, v_plan)
    ) else '{}' end;
end;
$$;
comment on function private.hybrid_search(text, jsonb, text, jsonb, integer, integer, jsonb, boolean) is
'Behind public.hybrid_search.';
grant execute on function private.hybrid_search(text, jsonb, text, jsonb, integer, integer, jsonb, boolean)
to anon, authenticated;

create function public.hybrid_search(
    query text,
    embedding jsonb default null,
    space text default 'active',
    filters jsonb default null,
    top_k integer default 8,
    candidates integer default 50,
    options jsonb default null,
    explain boolean default false
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$
    select private.hybrid_search(query, embedding, space, filters, top_k, candidates, options, explain);
$$;
comment on function public.hybrid_search(text, jsonb, text, jsonb, integer, integer, jsonb, boolean) is
'Find passages by keyword (BM25), by meaning (cosine) and by the names of files, in all that the caller can read:
{hits, degraded, space, search_id, pending_files, index_lag}.

query: 3 to 1000 characters; "a phrase" must occur (it is looked for in the 10,000 best passages with all of its words;
two share them), -word must not, word* is the beginning of one (in the 3,000 best passages; more than 8 -words are a
list and exclude nothing). Words as common as "the" or "to be" are not indexed: a query of nothing else is answered by
meaning and by names alone, and a phrase of them is looked for in what the rest of the query finds. embedding: the
query''s vector in that space, a JSON array; null searches without it and says degraded. filters: folder_id, file_ids,
types (extensions), tags, date_from, date_to (updated_at), owner_ids, languages, source, metadata, page_from, page_to,
kinds. top_k: 1 to 100; a longer list begins with the shorter one. candidates: how many of each leg are fused, 1 to
1000. options: fusion (convex, rrf), weights {keyword, vector, name} (.2 and .8, or 1 of rrf; name as keyword; in
languages that the model of the space was not made for, words count more), rrf_k (10; asks for rrf), threshold (least
cosine of what is found by meaning), group_by (none, file: one hit a file with its best passages, at most per_file),
context (none, neighbours, section: the text before and after), dedup (passages that say what a better one says: by
default they come last, true leaves them out, false lets them be), cache (false: never the hits kept of an equal
search), record (false: not in the history), technique (noted there), as_of (a moment such as 2026-05-03T12:00:00Z: what
you could find then, of what you can still read, in the texts of then, is_head false where the file has others now;
names, paths and what filters look at are today''s, what a link opens and what was purged is not among it; explain tells
when there was more than it reads; not without signing in). search_id: for search_replay; null when the search is not in
the history. explain: adds how it was answered, and why the caller can read each hit. A hit: chunk_id, file_id,
version_id, is_head, name, path, page, bboxes, heading, time_range_ms, char_start, char_end (on its page), snippet,
highlights ([[start, end], …] in the snippet), snippet_start, snippet_end (in the chunk), snippet_bboxes, score, parts,
copies {count, files}; a file without text that is found by its name has no passage. Raises INVALID_ARGUMENT (field,
expected), NOT_FOUND for a folder that is not visible, RATE_LIMITED (limit, retry_after), NOT_AUTHENTICATED.';
grant execute on function public.hybrid_search(text, jsonb, text, jsonb, integer, integer, jsonb, boolean)
to anon, authenticated;
