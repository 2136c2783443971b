-- Search: keyword and dense legs over what the caller may read, fused by rank.
--
-- Both legs run in definer functions over covering indexes, because under row security `@@`, `&&` and distances lose
-- theirs. What is readable comes from the same predicate as the policies, never from an argument, and the hits are
-- checked against it once more before they are shown.

create type private.search_scope as (
    owner_ids uuid [],
    roots uuid [],
    shared_owner_ids uuid [],
    shared_file_ids uuid [],
    file_ids uuid [],
    hidden_file_ids uuid [],
    languages text [],
    page_from integer,
    page_to integer
);
comment on type private.search_scope is
'What one search may look at: the caller''s owners and granted roots, files shared with them (and, in the same order,
whose they are), the files that pass the filters (null: all), their own files in the trash, and filters on chunks (null: none).';

create function private.check_filters(filters jsonb) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_key text;
    v_value jsonb;
    v_kind text;
begin
    if jsonb_typeof(filters) <> 'object' then
        perform private.raise_invalid('filters', 'filters must be an object.');
    end if;
    for v_key, v_value in select f.key, f.value from jsonb_each(filters) as f loop
        v_kind := case
            when v_key in ('file_ids', 'types', 'tags', 'owner_ids', 'languages', 'kinds') then 'array'
            when v_key in ('folder_id', 'date_from', 'date_to', 'source') then 'string'
            when v_key in ('page_from', 'page_to') then 'number'
            when v_key = 'metadata' then 'object'
        end;
        if v_kind is null then
            perform private.raise_invalid(
                'filters.' || v_key,
                format('There is no filter "%s".', v_key),
                '{"expected": ["folder_id", "file_ids", "types", "tags", "date_from", "date_to", "owner_ids", "languages",
                  "source", "metadata", "page_from", "page_to", "kinds"]}'
            );
        end if;
        if v_value <> 'null' and jsonb_typeof(v_value) <> v_kind then
            perform private.raise_invalid('filters.' || v_key, format('%s must be null or a JSON %s.', v_key, v_kind));
        end if;
        begin
            if v_key in ('file_ids', 'owner_ids') then
                perform private.json_texts(v_value)::uuid[];
            elsif v_key = 'folder_id' then
                perform (filters ->> v_key)::uuid;
            elsif v_key in ('date_from', 'date_to') then
                perform (filters ->> v_key)::timestamptz;
            elsif v_key in ('page_from', 'page_to') then
                perform (filters ->> v_key)::integer;
            end if;
        exception when data_exception then
            perform private.raise_invalid('filters.' || v_key, format('%s has a value that cannot be read.', v_key));
        end;
    end loop;
end;
$$;
comment on function private.check_filters(jsonb) is
'Raises INVALID_ARGUMENT naming the filter that is unknown or malformed.';

create function private.json_texts(value jsonb) returns text[]
language sql immutable
set search_path = ''
as $$
    select case when jsonb_typeof(value) = 'array' then array(select jsonb_array_elements_text(value)) end;
$$;
comment on function private.json_texts(jsonb) is 'A JSON array as text[]; null for null.';

create function private.search_scope(filters jsonb) returns private.search_scope
language plpgsql stable
security definer -- collects files through the one predicate, which row security would apply without indexes
set search_path = ''
as $$
declare
    v_scope private.search_scope;
    v_types text[] := case when jsonb_typeof(filters -> 'types') = 'array' then
        array(select lower(ltrim(t, '.')) from jsonb_array_elements_text(filters -> 'types') as t)
    end;
    v_file_ids uuid[] := private.json_texts(filters -> 'file_ids')::uuid[];
    v_owner_ids uuid[] := private.json_texts(filters -> 'owner_ids')::uuid[];
    v_folder_id uuid := (filters ->> 'folder_id')::uuid;
    v_date_from timestamptz := (filters ->> 'date_from')::timestamptz;
    v_date_to timestamptz := (filters ->> 'date_to')::timestamptz;
    v_tags text[] := nullif(private.json_texts(filters -> 'tags'), '{}');
    v_tagged_ids uuid[];
    -- no file carries a source or metadata so far, and all that is searched is text
    v_asks_for_more boolean := filters ->> 'source' is not null
        or coalesce(nullif(filters -> 'metadata', 'null'), '{}') <> '{}'
        or not coalesce(nullif(filters -> 'kinds', 'null') ? 'text', true);
begin
    v_scope.owner_ids := private.my_owner_ids();
    v_scope.roots := private.granted_roots();
    v_scope.languages := private.json_texts(filters -> 'languages');
    v_scope.page_from := (filters ->> 'page_from')::integer;
    v_scope.page_to := (filters ->> 'page_to')::integer;
    select coalesce(array_agg(n.owner_id), '{}'), coalesce(array_agg(n.id), '{}')
    into v_scope.shared_owner_ids, v_scope.shared_file_ids
    from public.nodes as n
    where n.path && v_scope.roots
        and not n.owner_id = any(v_scope.owner_ids)
        and n.kind = 'file'
        and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots);
    v_scope.hidden_file_ids := array(
        select n.id from public.nodes as n
        where n.owner_id = any(v_scope.owner_ids) and n.trashed_at is not null and n.kind = 'file'
    );
    if v_folder_id is not null then
        perform private.require_level(v_folder_id, 'view');
    end if;
    if v_tags is not null then -- any of them
        v_tagged_ids := private.tagged_ids(v_tags, v_scope.owner_ids, v_scope.shared_file_ids);
    end if;
    if num_nonnulls(v_types, v_file_ids, v_owner_ids, v_folder_id, v_date_from, v_date_to, v_tags) > 0
        or v_asks_for_more then
        v_scope.file_ids := array(
            select n.id from public.nodes as n
            where n.kind = 'file'
                and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
                and (v_folder_id is null or n.path && array[v_folder_id])
                and (v_file_ids is null or n.id = any(v_file_ids))
                and (v_tags is null or n.id = any(v_tagged_ids))
                and (v_owner_ids is null or n.owner_id = any(v_owner_ids))
                and (v_types is null or lower(substring(n.name from '\.([^.]+)$')) = any(v_types))
                and (v_date_from is null or n.updated_at >= v_date_from)
                and (v_date_to is null or n.updated_at <= v_date_to)
                and not v_asks_for_more
        );
    end if;
    return v_scope;
end;
$$;
comment on function private.search_scope(jsonb) is
'The scope of a search by the caller. Raises NOT_FOUND for a folder that is not visible.';

create function private.passes_chunk_filters(chunk_id uuid, scope private.search_scope) returns boolean
language sql stable
security invoker
set search_path = ''
as $$
    select exists (
        select 1 from public.chunks as c
        where c.id = passes_chunk_filters.chunk_id
            and ((scope).languages is null or c.language = any((scope).languages))
            and ((scope).page_from is null or c.page >= (scope).page_from)
            and ((scope).page_to is null or c.page <= (scope).page_to)
    );
$$;
comment on function private.passes_chunk_filters(uuid, private.search_scope) is 'Language and page filters.';

-- The keyword leg ------------------------------------------------------------------------------

create function private.query_terms(query text, languages text[]) returns table (term integer, frequency integer)
language sql stable rows 20 -- so that each term is looked up, instead of reading all of an owner's
security invoker
set search_path = ''
as $$
    -- each chunk was stemmed in its own language, so the query is stemmed in every language there is
    select private.term_id(l.lexeme), max(l.frequency)
    from (select unnest(query_terms.languages) union select null) as t (language)
    cross join lateral private.lexemes(query_terms.query, t.language) as l
    group by private.term_id(l.lexeme);
$$;
comment on function private.query_terms(text, text[]) is 'The terms of a query in these languages and unstemmed.';

create function private.own_query(query text, owner_id uuid) returns extensions.sparsevec
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_languages text[];
    v_count bigint;
    v_weights text;
begin
    select s.languages, s.chunk_count into v_languages, v_count
    from private.owner_statistics as s
    where s.owner_id = own_query.owner_id;
    select string_agg(q.term || ':' || (q.frequency * i.idf)::real, ',' order by q.term) into v_weights
    from private.query_terms(query, v_languages) as q
    inner join private.owner_terms as t
        on t.owner_id = own_query.owner_id and t.term = q.term and t.chunk_count > 0
    -- "greatest", so that damaged statistics cost order and not the answer
    cross join lateral (
        select ln(1 + (greatest(v_count, t.chunk_count) - t.chunk_count + 0.5) / (t.chunk_count + 0.5)) as idf
    ) as i;
    return ('{' || v_weights || '}/536870912')::extensions.sparsevec;
end;
$$;
comment on function private.own_query(text, uuid) is
'The query side of BM25, term frequency * idf, with the statistics of one owner; null when none of its terms occurs.';

create function private.shared_query(
    query text, file_ids uuid[], out terms integer[], out weights real[], out average real
) returns record
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_languages text[];
    v_count bigint;
begin
    -- what is shared counts by itself, so that no score tells anything about rows that are not
    select
        array_agg(distinct t.language),
        count(*) filter (where t.part = 0),
        avg(t.length) filter (where t.part = 0)
    into v_languages, v_count, average
    from private.chunk_terms as t
    where t.file_id = any(shared_query.file_ids);
    select array_agg(q.term), array_agg((q.frequency * i.idf)::real) into terms, weights
    from private.query_terms(query, v_languages) as q
    inner join lateral (
        select count(*) as chunk_count
        from private.chunk_terms as t
        where t.file_id = any(shared_query.file_ids) and q.term = any(t.terms)
    ) as d on d.chunk_count > 0
    cross join lateral (select ln(1 + (v_count - d.chunk_count + 0.5) / (d.chunk_count + 0.5)) as idf) as i;
end;
$$;
comment on function private.shared_query(text, uuid[]) is
'The query side of BM25, term frequency * idf, with the statistics of some files, and the average length of their
chunks; terms is null when none of the query occurs.';

create function private.scope_clause(scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    select concat(
        case when (scope).file_ids is not null then ' and t.file_id = any($3)' end,
        case when cardinality((scope).hidden_file_ids) > 0 then ' and not t.file_id = any($4)' end,
        case when num_nonnulls((scope).languages, (scope).page_from, (scope).page_to) > 0
            then ' and private.passes_chunk_filters(t.chunk_id, $5)' end
    );
$$;
comment on function private.scope_clause(private.search_scope) is
'The conditions of a scope on a serving table t, as constant SQL text; only those that are needed, so that each plan
uses its index. Parameters: $3 file_ids, $4 hidden_file_ids, $5 the scope.';

create function private.search_keyword(query text, scope private.search_scope, max_hits integer)
returns table (chunk_id uuid, score real)
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
-- only ever the covering index, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
as $$
declare
    -- "offset 0" computes the products in the scan, so that only numbers are grouped
    v_statement text := $statement$
        select p.chunk_id, (-sum(p.product))::real as score
        from (
            select t.chunk_id, t.weights operator(extensions.<#>) $2 as product
            from %s %s
            offset 0
        ) as p
        where p.product < 0
        group by p.chunk_id
        order by score desc, p.chunk_id
        limit %s
    $statement$;
    -- the stored weights know the owner's average length, which is not the caller's to know
    v_shared_statement text := $statement$
        select p.chunk_id, sum(p.score)::real as score
        from (
            select t.chunk_id, (
                select sum(
                    q.weight * u.frequency * 1.9::float8
                    / (u.frequency + 0.9::float8 * (0.6::float8 + 0.4::float8 * t.length / $8))
                )
                from unnest(t.terms, t.frequencies) as u (term, frequency)
                inner join unnest($2, $7) as q (term, weight) on q.term = u.term
            ) as score
            from unnest($1, $6) as f (file_id, owner_id)
            inner join private.chunk_terms as t on t.owner_id = f.owner_id and t.file_id = f.file_id
            where t.terms && $2 %s
            offset 0
        ) as p
        group by p.chunk_id
        order by score desc, p.chunk_id
        limit %s
    $statement$;
    v_owner_id uuid;
    v_query extensions.sparsevec;
    v_shared record;
begin
    foreach v_owner_id in array (scope).owner_ids loop
        v_query := private.own_query(query, v_owner_id);
        continue when v_query is null;
        return query execute format(
            v_statement, 'private.chunk_terms as t where t.owner_id = $1', private.scope_clause(scope), max_hits
        ) using v_owner_id, v_query, (scope).file_ids, (scope).hidden_file_ids, scope;
    end loop;
    if cardinality((scope).shared_file_ids) > 0 then
        v_shared := private.shared_query(query, (scope).shared_file_ids);
        if v_shared.terms is not null then
            return query execute format(v_shared_statement, private.scope_clause(scope), max_hits)
            using (scope).shared_file_ids, v_shared.terms, (scope).file_ids, (scope).hidden_file_ids, scope,
                (scope).shared_owner_ids, v_shared.weights, v_shared.average::float8;
        end if;
    end if;
end;
$$;
comment on function private.search_keyword(text, private.search_scope, integer) is
'The best chunks by BM25, at most max_hits of each owner and of what is shared.';

-- The dense leg --------------------------------------------------------------------------------

create function private.search_dense(
    space_id smallint, embedding extensions.halfvec, scope private.search_scope, max_hits integer, threshold real
)
returns table (chunk_id uuid, score real)
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
-- only ever the covering index, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
as $$
declare
    -- "offset 0": exact, and each product computed once; the vectors have unit length, so it is the cosine
    v_statement text := $statement$
        select p.chunk_id, (-p.product)::real as score
        from (
            select t.chunk_id, t.embedding operator(extensions.<#>) $2 as product
            from %s %s
            offset 0
        ) as p
        where $6 is null or -p.product >= $6
        order by p.product, p.chunk_id
        limit %s
    $statement$;
    v_query extensions.halfvec := extensions.l2_normalize(embedding);
    -- the partition by name: through its parent the condition on space_id would rule out an index-only scan
    v_table text := format('private.%I', private.vector_table(space_id));
begin
    if cardinality((scope).owner_ids) > 0 then
        return query execute format(
            v_statement,
            format('%s as t where t.owner_id = any($1)', v_table), private.scope_clause(scope), max_hits
        ) using (scope).owner_ids, v_query, (scope).file_ids, (scope).hidden_file_ids, scope, threshold;
    end if;
    if cardinality((scope).shared_file_ids) > 0 then
        return query execute format(
            v_statement,
            format(
                $from$
                    unnest($1, $7) as f (file_id, owner_id)
                    inner join %s as t on t.owner_id = f.owner_id and t.file_id = f.file_id
                    where true
                $from$,
                v_table
            ),
            private.scope_clause(scope), max_hits
        ) using (scope).shared_file_ids, v_query, (scope).file_ids, (scope).hidden_file_ids, scope, threshold,
            (scope).shared_owner_ids;
    end if;
end;
$$;
comment on function private.search_dense(smallint, extensions.halfvec, private.search_scope, integer, real) is
'The nearest chunks by cosine, exact, at most max_hits of the caller''s own and of what is shared.';

create function private.query_vector(embedding jsonb, space public.embedding_spaces) returns extensions.halfvec
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if jsonb_typeof(embedding) = 'null' then
        return null;
    end if;
    if jsonb_typeof(embedding) <> 'array' or jsonb_array_length(embedding) <> (space).dimension then
        perform private.raise_invalid(
            'embedding',
            format('The space %s takes %s numbers.', (space).name, (space).dimension),
            jsonb_build_object(
                'expected', (space).dimension,
                'got', case when jsonb_typeof(embedding) = 'array' then jsonb_array_length(embedding) end
            )
        );
    end if;
    if exists (select 1 from jsonb_array_elements(embedding) as e where jsonb_typeof(e) <> 'number') then
        perform private.raise_invalid('embedding', 'The embedding must consist of finite numbers.');
    end if;
    return embedding::text::extensions.halfvec;
exception when data_exception then
    perform private.raise_invalid('embedding', 'The embedding has numbers that are too large.');
end;
$$;
comment on function private.query_vector(jsonb, public.embedding_spaces) is
'A JSON array as a vector of a space. Raises INVALID_ARGUMENT (field embedding, expected dimension).';

-- Fusion ---------------------------------------------------------------------------------------

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

create function private.freshness(scope private.search_scope) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'pending_files', count(*),
        'index_lag', coalesce(extract(epoch from now() - min(v.created_at)), 0)
    )
    from public.nodes as n
    left join lateral (
        select max(f.created_at) as created_at from public.file_versions as f where f.file_id = n.id
    ) as v on true
    where n.status in ('queued', 'processing')
        and n.trashed_at is null
        and (n.owner_id = any((scope).owner_ids) or n.id = any((scope).shared_file_ids));
$$;
comment on function private.freshness(private.search_scope) is
'{pending_files: readable files that are not fully searchable yet, index_lag: age of the oldest of them in seconds}.';

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
    v_hits jsonb;
    v_freshness jsonb;
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
    v_options := private.search_options(coalesce(options, '{}'));
    v_space := private.find_space(coalesce(space, 'active'), 'text');
    v_vector := private.query_vector(embedding, v_space);
    v_scope := private.search_scope(coalesce(filters, '{}'));

    -- one statement sees one moment: what is found and what is still pending belong together
    select coalesce(jsonb_agg(h.hit order by h.fused desc, h.chunk_id), '[]'), private.freshness(v_scope)
    into v_hits, v_freshness
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

    return jsonb_build_object(
        'hits', v_hits,
        'degraded', v_vector is null and v_options.vector_weight > 0,
        'space', v_space.name
    ) || v_freshness || case when explain then jsonb_build_object('explain', jsonb_build_object(
        'plan', 'exact',
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
{hits, degraded, space, pending_files, index_lag}.

query: 3 to 1000 characters. embedding: the query''s vector in that space, a JSON array; null searches by keyword only
and says degraded. filters: folder_id, file_ids, types (extensions), tags, date_from, date_to (updated_at), owner_ids,
languages, source, metadata, page_from, page_to, kinds. top_k: 1 to 100. candidates: how many of each leg are fused,
1 to 1000; the order does not depend on top_k. options: fusion (rrf, convex), weights {keyword, vector}, rrf_k (10),
threshold (least cosine). explain: adds how it was answered. A hit: chunk_id, file_id, version_id, is_head, name, path,
page, bboxes, heading, time_range_ms, snippet, score, parts. Raises INVALID_ARGUMENT (field, expected), NOT_FOUND for a
folder that is not visible, NOT_AUTHENTICATED.';
grant execute on function public.hybrid_search(text, jsonb, text, jsonb, integer, integer, jsonb, boolean)
to anon, authenticated;
