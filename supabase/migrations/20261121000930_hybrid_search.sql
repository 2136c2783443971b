-- Hybrid search: both legs fused by rank, and the hits that clients see.

create type private.search_options as (
    fusion text, keyword_weight real, vector_weight real, rrf_k real, threshold real
);
comment on type private.search_options is 'Checked options of hybrid_search.';

create function private.search_options(options jsonb) returns private.search_options
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_options private.search_options;
    v_unknown text;
    v_weights jsonb := coalesce(nullif(options -> 'weights', 'null'), '{}');
begin
    if jsonb_typeof(options) <> 'object' then
        perform private.raise_invalid('options', 'options must be an object.');
    end if;
    select min(o.key) into v_unknown
    from jsonb_object_keys(options) as o (key)
    where o.key not in ('fusion', 'weights', 'rrf_k', 'threshold');
    if v_unknown is not null then
        perform private.raise_invalid(
            'options.' || v_unknown, format('There is no option "%s".', v_unknown),
            '{"expected": ["fusion", "weights", "rrf_k", "threshold"]}'
        );
    end if;
    v_options.fusion := coalesce(options ->> 'fusion', 'rrf');
    if jsonb_typeof(v_weights) <> 'object' or v_weights - '{keyword,vector}'::text[] <> '{}' then
        perform private.raise_invalid('options.weights', 'weights must be an object with keyword and vector.');
    end if;
    v_options.keyword_weight := coalesce((v_weights ->> 'keyword')::real, 1);
    v_options.vector_weight := coalesce((v_weights ->> 'vector')::real, 1);
    v_options.rrf_k := coalesce((options ->> 'rrf_k')::real, 10);
    v_options.threshold := (options ->> 'threshold')::real;
    if v_options.fusion not in ('rrf', 'convex') then
        perform private.raise_invalid('options.fusion', 'fusion must be rrf or convex.');
    end if;
    if not (v_options.keyword_weight between 0 and 1000 and v_options.vector_weight between 0 and 1000)
        or v_options.keyword_weight + v_options.vector_weight = 0 then
        perform private.raise_invalid('options.weights', 'weights must be 0 to 1000, and one of them above 0.');
    end if;
    if v_options.rrf_k not between 1 and 1000 then
        perform private.raise_invalid('options.rrf_k', 'rrf_k must be between 1 and 1000.');
    end if;
    return v_options;
exception when data_exception then
    perform private.raise_invalid('options', 'An option has a value that cannot be read.');
end;
$$;
comment on function private.search_options(jsonb) is 'Options with their defaults. Raises INVALID_ARGUMENT.';

create function private.snippet(content text, query text, language text) returns text
language sql stable
security invoker
set search_path = ''
as $$
    select ts_headline(
        private.text_config(snippet.language),
        snippet.content,
        replace(plainto_tsquery(private.text_config(snippet.language), snippet.query)::text, ' & ', ' | ')::tsquery,
        'StartSel="", StopSel="", MinWords=25, MaxWords=50'
    );
$$;
comment on function private.snippet(text, text, text) is
'The words of a chunk around what the query asks for, plain text.';

create function private.fuse(
    query text, space_id smallint, embedding extensions.halfvec, scope private.search_scope,
    options private.search_options, max_candidates integer
)
returns table (
    chunk_id uuid, fused double precision,
    keyword_rank bigint, keyword_score real, vector_rank bigint, vector_score real
)
language sql stable rows 100 -- so that hits are looked up, instead of reading all chunks of an owner
security invoker
set search_path = ''
as $$
    with keyword as (
        select
            k.chunk_id, k.score, row_number() over (order by k.score desc, k.chunk_id) as place,
            max(k.score) over () as best
        from private.search_keyword(fuse.query, fuse.scope, fuse.max_candidates) as k
        where (fuse.options).keyword_weight > 0
        order by place
        limit fuse.max_candidates
    ), dense as (
        select
            d.chunk_id, d.score, row_number() over (order by d.score desc, d.chunk_id) as place,
            max(d.score) over () as best
        from private.search_dense(
            fuse.space_id, fuse.embedding, fuse.scope, fuse.max_candidates, (fuse.options).threshold
        ) as d
        where (fuse.options).vector_weight > 0 and fuse.embedding is not null
        order by place
        limit fuse.max_candidates
    )
    select
        coalesce(k.chunk_id, d.chunk_id),
        case (fuse.options).fusion
            when 'rrf' then
                coalesce((fuse.options).keyword_weight / ((fuse.options).rrf_k + k.place), 0)
                + coalesce((fuse.options).vector_weight / ((fuse.options).rrf_k + d.place), 0)
            else
                coalesce((fuse.options).keyword_weight * k.score / nullif(k.best, 0), 0)
                + coalesce((fuse.options).vector_weight * d.score / nullif(d.best, 0), 0)
        end,
        k.place, k.score, d.place, d.score
    from keyword as k
    full join dense as d on d.chunk_id = k.chunk_id;
$$;
comment on function private.fuse(
    text, smallint, extensions.halfvec, private.search_scope, private.search_options, integer
) is
'Both legs as one ranking. rrf: sum of weight / (k + rank), Cormack et al. 2009; convex: sum of weight * score / best.';

create function private.hybrid_search(
    query text, embedding jsonb, space text, filters jsonb, top_k integer, candidates integer, options jsonb,
    explain boolean
) returns jsonb
language plpgsql volatile
security definer -- the legs need indexes that row security would take away; hits pass the predicate again
set search_path = ''
as $$
declare
    v_query text := btrim(query, e' \t\r\n');
    v_space public.embedding_spaces;
    v_vector extensions.halfvec;
    v_scope private.search_scope;
    v_options private.search_options;
    v_request private.search_request;
    v_answer jsonb;
    v_hits jsonb;
    v_freshness jsonb;
    v_is_current boolean;
begin
    perform private.require_permission('query');
    if v_query is null or char_length(v_query) not between 3 and 1000 then
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
    v_options := private.search_options(coalesce(options, '{}') - '{cache,technique}'::text[]);
    v_space := private.find_space(coalesce(space, 'active'), 'text');
    v_vector := private.query_vector(embedding, v_space);
    perform private.check_search_rate();
    v_request := private.open_request(
        v_query,
        case
            when v_vector is null or v_options.vector_weight = 0 then 'keyword'
            when v_options.keyword_weight = 0 then 'semantic'
            else 'hybrid'
        end,
        v_space.name, v_vector is null and v_options.vector_weight > 0, embedding,
        jsonb_build_object('filters', filters, 'top_k', top_k, 'candidates', candidates, 'options', options),
        explain
    );
    v_scope := private.search_scope(coalesce(filters, '{}'));
    v_answer := private.kept_answer(v_request, v_scope);
    if v_answer is not null then
        return v_answer;
    end if;

    -- one statement sees one moment: what is found and what is still pending belong together
    select coalesce(jsonb_agg(h.hit order by h.fused desc, h.chunk_id), '[]'), private.freshness(v_scope),
        private.is_current(v_request)
    into v_hits, v_freshness, v_is_current
    from (
        select
            c.id as chunk_id,
            f.fused * c.boost as fused,
            jsonb_build_object(
                'chunk_id', c.id, 'file_id', n.id, 'version_id', c.version_id,
                'is_head', c.version_id is not distinct from n.head_version_id,
                'name', n.name, 'path', private.path_name(n), 'page', c.page, 'bboxes', c.bboxes,
                'heading', c.heading,
                'time_range_ms', case when c.time_range_ms is not null
                    then jsonb_build_array(lower(c.time_range_ms), upper(c.time_range_ms)) end,
                'snippet', private.snippet(c.content, v_query, c.language),
                'score', f.fused * c.boost,
                'parts', jsonb_build_object(
                    'keyword_rank', f.keyword_rank, 'keyword_score', f.keyword_score,
                    'vector_rank', f.vector_rank, 'vector_score', f.vector_score,
                    'fused', f.fused, 'boost', c.boost
                )
            ) as hit
        from private.fuse(v_query, v_space.id, v_vector, v_scope, v_options, candidates) as f
        inner join public.chunks as c on c.id = f.chunk_id
        inner join public.nodes as n on n.id = c.file_id
        where private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
        order by f.fused * c.boost desc, c.id
        limit top_k
    ) as h;

    v_answer := private.close_request(v_request, v_scope, v_hits, v_freshness, v_is_current);
    return v_answer || case when explain then jsonb_build_object('explain', jsonb_build_object(
        'plan', (private.plan_dense(v_space.id, v_scope)).plan,
        'legs', jsonb_build_object('dense', private.explain_dense(v_space.id, v_scope)),
        'fusion', to_jsonb(v_options),
        'candidates', candidates,
        'owners', cardinality(v_scope.owner_ids),
        'shared_files', cardinality(v_scope.shared_file_ids),
        'filtered_files', cardinality(v_scope.file_ids),
        'trashed_files', cardinality(v_scope.hidden_file_ids)
    )) else '{}' end;
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
'Find passages by keyword (BM25), by meaning (cosine), or both, in all that the caller can read:
{hits, degraded, space, search_id, pending_files, index_lag}.

query: 3 to 1000 characters. embedding: the query''s vector in that space, a JSON array; null searches by keyword only
and says degraded. filters: folder_id, file_ids, types (extensions), tags, date_from, date_to (updated_at), owner_ids,
languages, source, metadata, page_from, page_to, kinds. top_k: 1 to 100. candidates: how many of each leg are fused,
1 to 1000; the order does not depend on top_k. options: fusion (rrf, convex), weights {keyword, vector}, rrf_k (10),
threshold (least cosine), cache (false: never the hits kept of an equal search), technique (noted in the history).
search_id: for search_replay; null when the search is not in the history. explain: adds how it was answered. A hit: chunk_id, file_id, version_id, is_head, name, path,
page, bboxes, heading, time_range_ms, snippet, score, parts. Raises INVALID_ARGUMENT (field, expected), NOT_FOUND for a
folder that is not visible, RATE_LIMITED (limit, retry_after), NOT_AUTHENTICATED.';
grant execute on function public.hybrid_search(text, jsonb, text, jsonb, integer, integer, jsonb, boolean)
to anon, authenticated;
