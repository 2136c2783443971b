-- Page search: by what pages look like, and images by what they show, in what the caller may read.
--
-- Late interaction: score(q, p) = sum over the vectors of the question of its largest cosine to a vector of the page
-- (MaxSim; Khattab and Zaharia, ColBERT, 2020; Faysse et al., ColPali, 2024). Two stages, as in PLAID (Santhanam et
-- al., 2022): the centroids next to the question's vectors choose candidates, whose score is then computed exactly.

create function private.page_tokens(vectors jsonb, space public.embedding_spaces) returns extensions.halfvec[]
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_vector jsonb;
    v_token extensions.halfvec;
    v_tokens extensions.halfvec[] := '{}';
begin
    -- bounded: each vector becomes a part of the statement
    if jsonb_typeof(vectors) is distinct from 'array' or jsonb_array_length(vectors) not between 1 and 64 then
        perform private.raise_invalid(
            'vectors',
            'A question has 1 to 64 vectors.',
            jsonb_build_object(
                'expected', (space).dimension, 'max_vectors', 64,
                'got', case when jsonb_typeof(vectors) = 'array' then jsonb_array_length(vectors) end
            )
        );
    end if;
    for v_vector in select e.value from jsonb_array_elements(vectors) as e loop
        -- PostgREST hands vectors inside arrays over as strings
        if jsonb_typeof(v_vector) = 'string' then
            begin
                v_vector := (v_vector #>> '{}')::jsonb;
            exception when data_exception then
                v_vector := null;
            end;
        end if;
        if jsonb_typeof(v_vector) is distinct from 'array' or jsonb_array_length(v_vector) <> (space).dimension then
            perform private.raise_invalid(
                'vectors',
                format('Each vector of the space %s has %s numbers.', (space).name, (space).dimension),
                jsonb_build_object(
                    'expected', (space).dimension,
                    'got', case when jsonb_typeof(v_vector) = 'array' then jsonb_array_length(v_vector) end
                )
            );
        end if;
        begin
            if exists (select 1 from jsonb_array_elements(v_vector) as n where jsonb_typeof(n) <> 'number') then
                perform private.raise_invalid(
                    'vectors', 'Vectors must consist of finite numbers.',
                    jsonb_build_object('expected', (space).dimension)
                );
            end if;
            v_token := extensions.l2_normalize(v_vector::text::extensions.halfvec);
        exception when data_exception then
            perform private.raise_invalid(
                'vectors', 'A vector has numbers that are too large.', jsonb_build_object('expected', (space).dimension)
            );
        end;
        -- padding asks for nothing, and keeps its place
        v_tokens := v_tokens || case when extensions.l2_norm(v_token) > 0 then v_token end;
    end loop;
    if num_nonnulls(variadic v_tokens) = 0 then
        perform private.raise_invalid(
            'vectors', 'The vectors are all zero.', jsonb_build_object('expected', (space).dimension)
        );
    end if;
    return v_tokens;
end;
$$;
comment on function private.page_tokens(jsonb, public.embedding_spaces) is
'A JSON array of vectors as the vectors of a question, unit length, null for padding. Raises INVALID_ARGUMENT (field
vectors, expected dimension).';

create function private.page_query(tokens extensions.halfvec[], codebook_id integer) returns extensions.sparsevec
language sql stable
security invoker
set search_path = ''
as $$
    -- what a page gains for each centroid that it is near: by how much that is nearer than the best one left out
    select ('{' || string_agg(g.number || ':' || g.gain, ',' order by g.number) || '}/' || g.centroid_count)
        ::extensions.sparsevec
    from (
        select b.centroid_count, n.number, sum(n.gain)::real as gain
        from private.page_codebooks as b
        cross join unnest(page_query.tokens) as q (v)
        cross join lateral (
            select c.number, c.similarity - min(c.similarity) over () as gain
            from (
                select c.number, -(c.centroid operator(extensions.<#>) q.v) as similarity
                from (
                    select r.number
                    from private.page_regions as r
                    where r.codebook_id = b.id
                    order by r.center operator(extensions.<#>) q.v, r.number
                    limit 8
                ) as r
                inner join private.page_centroids as c on c.codebook_id = b.id and c.region = r.number
                order by similarity desc, c.number
                limit 17
            ) as c
        ) as n
        where b.id = page_query.codebook_id and q.v is not null and n.gain > 0
        group by b.centroid_count, n.number
    ) as g
    group by g.centroid_count;
$$;
comment on function private.page_query(extensions.halfvec[], integer) is
'The question''s side of signatures: which centroids it is near, and how much each is worth.';

create function private.page_clause(scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    select concat(
        case when (scope).file_ids is not null then ' and t.file_id = any($3)' end,
        case when cardinality((scope).hidden_file_ids) > 0 then ' and not t.file_id = any($4)' end,
        case when (scope).page_from is not null then ' and t.page >= ($5).page_from' end,
        case when (scope).page_to is not null then ' and t.page <= ($5).page_to' end,
        case when (scope).languages is not null then
            ' and exists (select 1 from public.file_versions as v'
            || ' where v.id = t.version_id and v.language = any(($5).languages))'
        end
    );
$$;
comment on function private.page_clause(private.search_scope) is
'The conditions of a scope on a page t in service, as constant SQL text. Parameters: $3 file_ids, $4 hidden_file_ids,
$5 the scope.';

create function private.page_places(space_id smallint, scope private.search_scope, columns text) returns text
language sql immutable
set search_path = ''
as $$
    -- the partition by name: through its parent the condition on space_id would rule out an index-only scan of images
    select coalesce(string_agg(
        format('select %s from %s %s', columns, format(s.source, 'page_vectors_' || page_places.space_id),
            private.page_clause(scope)),
        ' union all '
    ), format('select %s from private.%I as t where false', columns, 'page_vectors_' || page_places.space_id))
    from (
        select 'private.%I as t where t.owner_id = any($1)' as source
        where cardinality((scope).owner_ids) > 0
        union all
        select 'unnest($6, $2) as f (file_id, owner_id) '
            || 'inner join private.%I as t on t.owner_id = f.owner_id and t.file_id = f.file_id where true'
        where cardinality((scope).shared_file_ids) > 0
    ) as s;
$$;
comment on function private.page_places(smallint, private.search_scope, text) is
'The pages in service that a scope holds, as SQL text: own ones by owner, shared ones by owner and file. Parameters as
page_clause, and $1 owner_ids, $2 shared_owner_ids, $6 shared_file_ids.';

create type private.page_plan as (
    plan text, pages integer, codebook_id integer, centroids integer
);
comment on type private.page_plan is
'How pages are searched: exact or two_stage, how many pages there are (counted up to 501), by which codebook.';

create function private.plan_pages(space_id smallint, scope private.search_scope) returns private.page_plan
language plpgsql stable
security invoker -- called by search_pages, as its owner
set search_path = ''
-- only ever by owner and file, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
    v_plan private.page_plan;
begin
    execute format('select count(*) from (%s limit 501) as p', private.page_places(space_id, scope, '1'))
    into v_plan.pages
    using (scope).owner_ids, (scope).shared_owner_ids, (scope).file_ids, (scope).hidden_file_ids, scope,
        (scope).shared_file_ids;
    select b.id, b.centroid_count into v_plan.codebook_id, v_plan.centroids
    from private.page_codebooks as b
    where b.space_id = plan_pages.space_id and b.state = 'active';
    v_plan.plan := case when v_plan.pages <= 500 or v_plan.codebook_id is null then 'exact' else 'two_stage' end;
    return v_plan;
end;
$$;
comment on function private.plan_pages(smallint, private.search_scope) is
'Exact up to 500 pages, and while there is no codebook.';

create function private.max_sim(tokens extensions.halfvec[]) returns text
language sql immutable
set search_path = ''
as $$
    -- one aggregate a vector over one pass: four times as fast as grouping by vector
    select '-(' || string_agg(
        format(
            'min(u.v operator(extensions.<#>) %L::extensions.halfvec(%s))', q.v::text, extensions.vector_dims(q.v)
        ), ' + ' order by q.position
    ) || ')'
    from unnest(max_sim.tokens) with ordinality as q (v, position)
    where q.v is not null;
$$;
comment on function private.max_sim(extensions.halfvec[]) is
'MaxSim of a question over vectors u (v), as the text of one SQL expression.';

create function private.find_pages(
    space_id smallint, tokens extensions.halfvec[], scope private.search_scope, max_pages integer, candidates integer
)
returns table (file_id uuid, page integer, version_id uuid, vector_id bigint, score real)
language plpgsql stable rows 100
security invoker -- called by search_pages, as its owner
set search_path = ''
-- only ever by owner and file, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
    v_plan private.page_plan := private.plan_pages(space_id, scope);
    -- pages that have no signature by this codebook are always looked at; "offset 0": each product computed once
    v_candidates text := $statement$
        select c.file_id, c.page, c.version_id, c.vector_id
        from (
            select p.file_id, p.page, p.version_id, p.vector_id, case
                when p.codebook_id = $8 then p.signature operator(extensions.<#>) $7
                else '-infinity'
            end as product
            from (%s) as p
            offset 0
        ) as c
        order by c.product, c.file_id, c.page
        limit %s
    $statement$;
    v_statement text := $statement$
        select p.file_id, p.page, p.version_id, p.vector_id, m.score::real
        from (%s) as p
        inner join private.%I as x on x.id = p.vector_id
        cross join lateral (select %s as score from (select unnest(x.vectors) as v) as u) as m
        where m.score is not null -- a picture without any patch is like nothing
        order by m.score desc, p.file_id, p.page
        limit %s
    $statement$;
    v_places text := private.page_places(
        space_id, scope, 't.file_id, t.page, t.version_id, t.vector_id, t.codebook_id, t.signature'
    );
    v_query extensions.sparsevec;
begin
    if v_plan.plan = 'two_stage' then
        v_query := private.page_query(tokens, v_plan.codebook_id);
    end if;
    if v_query is not null then
        v_places := format(v_candidates, v_places, find_pages.candidates);
    end if;
    return query execute format(
        v_statement, v_places, 'picture_vectors_' || space_id, private.max_sim(tokens), max_pages
    ) using (scope).owner_ids, (scope).shared_owner_ids, (scope).file_ids, (scope).hidden_file_ids, scope,
        (scope).shared_file_ids, v_query, v_plan.codebook_id;
end;
$$;
comment on function private.find_pages(smallint, extensions.halfvec[], private.search_scope, integer, integer) is
'The pages with the highest MaxSim, as plan_pages says.';

create function private.page_heat(vector_id bigint, space_id smallint, tokens extensions.halfvec[]) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_agg(
        jsonb_build_object(
            'vector', b.token,
            'score', b.similarity::real,
            'box', jsonb_build_array(
                round((b.patch % b.grid_columns)::numeric / b.grid_columns, 4),
                round((b.patch / b.grid_columns)::numeric / b.grid_rows, 4),
                round((b.patch % b.grid_columns + 1)::numeric / b.grid_columns, 4),
                round((b.patch / b.grid_columns + 1)::numeric / b.grid_rows, 4)
            )
        ) order by b.token
    )
    from (
        select distinct on (q.token)
            q.token, x.grid_columns::integer, x.grid_rows::integer, s.similarity,
            coalesce(x.positions[u.position], u.position - 1)::integer as patch
        from private.picture_vectors as x
        cross join lateral unnest(x.vectors) with ordinality as u (v, position)
        cross join unnest(tokens) with ordinality as q (v, token)
        cross join lateral (select -(u.v operator(extensions.<#>) q.v) as similarity) as s
        where x.id = page_heat.vector_id and x.space_id = page_heat.space_id and x.grid_columns is not null
            and q.v is not null
        order by q.token, s.similarity desc, u.position
    ) as b;
$$;
comment on function private.page_heat(bigint, smallint, extensions.halfvec[]) is
'Where each vector of a question is found best on a page: [{vector (from 1), score, box [x0, y0, x1, y1], 0..1 from the
top left}]; null when the picture''s vectors stand for no place.';

create function private.page_hit(
    node public.nodes, version_id uuid, page integer, score real, parts jsonb, heat jsonb default null
) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'file_id', (node).id, 'version_id', page_hit.version_id,
        'is_head', page_hit.version_id is not distinct from (node).head_version_id,
        'name', (node).name, 'path', private.path_name(node), 'page', page_hit.page,
        'width', p.width, 'height', p.height, 'mime', (node).mime,
        'thumbnail_bucket', r.bucket, 'thumbnail_key', r.key,
        'score', page_hit.score, 'parts', parts, 'heat', heat
    )
    from (select 1) as one
    left join public.pages as p on p.version_id = page_hit.version_id and p.page = page_hit.page
    left join lateral (
        select b.bucket, b.key
        from public.renditions as r inner join private.blobs as b on b.id = r.blob_id
        where r.version_id = page_hit.version_id and (r.page = page_hit.page or r.kind = 'thumbnail')
        order by r.kind = 'page' desc, r.width
        limit 1
    ) as r on true;
$$;
comment on function private.page_hit(public.nodes, uuid, integer, real, jsonb, jsonb) is 'A page as clients see it.';

create function private.check_page_options(options jsonb, known text[]) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_unknown text;
begin
    if jsonb_typeof(options) <> 'object' then
        perform private.raise_invalid('options', 'options must be an object.');
    end if;
    select min(o.key) into v_unknown from jsonb_object_keys(options) as o (key) where o.key <> all(known);
    if v_unknown is not null then
        perform private.raise_invalid(
            'options.' || v_unknown, format('There is no option "%s".', v_unknown),
            jsonb_build_object('expected', to_jsonb(known))
        );
    end if;
    if coalesce(jsonb_typeof(options -> 'heat'), 'null') not in ('boolean', 'null') then
        perform private.raise_invalid('options.heat', 'heat must be true or false.');
    end if;
    if coalesce(jsonb_typeof(options -> 'threshold'), 'null') not in ('number', 'null') then
        perform private.raise_invalid('options.threshold', 'threshold must be a number.');
    end if;
end;
$$;
comment on function private.check_page_options(jsonb, text[]) is 'Raises INVALID_ARGUMENT naming the option.';

create function private.search_pages(
    vectors jsonb, pooled jsonb, top_k integer, candidates integer, filters jsonb, space text, options jsonb,
    explain boolean
) returns jsonb
language plpgsql volatile
security definer -- the stages need indexes that row security would take away; hits pass the predicate again
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
    v_tokens extensions.halfvec[];
    v_scope private.search_scope;
    v_hits jsonb;
    v_freshness jsonb;
begin
    perform private.require_permission('query');
    if top_k is null or top_k not between 1 and 100 then
        perform private.raise_invalid('top_k', 'top_k must be between 1 and 100.');
    end if;
    if candidates is null or candidates not between 1 and 1000 then
        perform private.raise_invalid('candidates', 'candidates must be between 1 and 1000.');
    end if;
    perform private.check_filters(coalesce(filters, '{}'));
    perform private.check_page_options(coalesce(options, '{}'), array['heat']);
    v_space := private.find_space(coalesce(space, 'active'), 'page');
    v_tokens := private.page_tokens(vectors, v_space);
    perform private.check_search_rate();
    v_scope := private.search_scope(coalesce(filters, '{}'));

    -- one statement sees one moment: what is found and what is still pending belong together
    select coalesce(jsonb_agg(h.hit order by h.score desc, h.file_id, h.page), '[]'), private.freshness(v_scope)
    into v_hits, v_freshness
    from (
        select f.score, f.file_id, f.page, private.page_hit(
            n, f.version_id, f.page, f.score,
            jsonb_build_object('max_sim', f.score, 'mean', f.score / num_nonnulls(variadic v_tokens)),
            case when (options ->> 'heat')::boolean then private.page_heat(f.vector_id, v_space.id, v_tokens) end
        ) as hit
        from private.find_pages(
            v_space.id, v_tokens, v_scope, search_pages.top_k, greatest(search_pages.candidates, search_pages.top_k)
        ) as f
        inner join public.nodes as n on n.id = f.file_id
        where private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
    ) as h;

    return jsonb_build_object('hits', v_hits, 'degraded', false, 'space', v_space.name) || v_freshness
        || case when explain then jsonb_build_object(
            'explain', to_jsonb(private.plan_pages(v_space.id, v_scope)) - 'codebook_id' || jsonb_build_object(
                'vectors', num_nonnulls(variadic v_tokens),
                'candidates', candidates,
                'owners', cardinality(v_scope.owner_ids),
                'shared_files', cardinality(v_scope.shared_file_ids),
                'filtered_files', cardinality(v_scope.file_ids)
            )
        ) else '{}' end;
end;
$$;
comment on function private.search_pages(jsonb, jsonb, integer, integer, jsonb, text, jsonb, boolean) is
'Behind public.search_pages.';
grant execute on function private.search_pages(jsonb, jsonb, integer, integer, jsonb, text, jsonb, boolean)
to anon, authenticated;

create function public.search_pages(
    vectors jsonb,
    pooled jsonb default null,
    top_k integer default 8,
    candidates integer default 200,
    filters jsonb default null,
    space text default 'active',
    options jsonb default null,
    explain boolean default false
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.search_pages(vectors, pooled, top_k, candidates, filters, space, options, explain); $$;
comment on function public.search_pages(jsonb, jsonb, integer, integer, jsonb, text, jsonb, boolean) is
'Find pages by what they look like (late interaction, MaxSim), with or without any text on them, in all that the caller
can read: {hits, degraded, space, pending_files, index_lag}.

vectors: 1 to 64 vectors of the question in that space, an array of JSON arrays (or of strings "[…]"). Those of a text
and of a picture may stand together (a picture''s pooled to as many as shall count beside the words): the score is that
of the one and that of the other put together. Vectors of zeros are padding and ask for nothing. pooled: not needed, and ignored. candidates: how many pages the first stage keeps,
1 to 1000; up to 500 readable pages are all compared. top_k: 1 to 100. filters: as for hybrid_search. options: heat
(adds where each vector of the question is found best on the page). explain: adds how it was answered. A hit: file_id,
version_id, is_head, name, path, page, width, height, mime, thumbnail_bucket, thumbnail_key, score (the sum of the
largest cosines), parts {max_sim, mean}, heat [{vector (which of those of the question, from 1), score, box [x0, y0, x1,
y1]}]. Raises INVALID_ARGUMENT (field,
expected), NOT_FOUND for a folder that is not visible, RATE_LIMITED (limit, retry_after), NOT_AUTHENTICATED.';
grant execute on function public.search_pages(jsonb, jsonb, integer, integer, jsonb, text, jsonb, boolean)
to anon, authenticated;

-- Images ---------------------------------------------------------------------------------------

create function private.image_query(embedding jsonb, space public.embedding_spaces) returns extensions.halfvec
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_sum extensions.halfvec;
    v_vector jsonb;
    v_one extensions.halfvec;
begin
    if jsonb_typeof(embedding) is distinct from 'array' then
        perform private.raise_invalid(
            'embedding', format('The space %s takes %s numbers.', (space).name, (space).dimension),
            jsonb_build_object('expected', (space).dimension, 'got', null)
        );
    end if;
    if jsonb_typeof(embedding -> 0) is distinct from 'array' then
        return extensions.l2_normalize(private.query_vector(embedding, space));
    end if;
    if jsonb_array_length(embedding) > 8 then
        perform private.raise_invalid(
            'embedding', 'A question is made of 1 to 8 vectors.', jsonb_build_object('expected', (space).dimension)
        );
    end if;
    for v_vector in select e.value from jsonb_array_elements(embedding) as e loop
        v_one := extensions.l2_normalize(private.query_vector(v_vector, space));
        if v_one is null then
            perform private.raise_invalid(
                'embedding', 'The embedding must consist of finite numbers.',
                jsonb_build_object('expected', (space).dimension)
            );
        end if;
        v_sum := case when v_sum is null then v_one else v_sum operator(extensions.+) v_one end;
    end loop;
    return extensions.l2_normalize(v_sum);
end;
$$;
comment on function private.image_query(jsonb, public.embedding_spaces) is
'One vector, or several as the direction of their sum. Raises INVALID_ARGUMENT (field embedding, expected dimension).';

create function private.find_images(
    space_id smallint, embedding extensions.halfvec, scope private.search_scope, max_images integer, threshold real
)
returns table (file_id uuid, page integer, version_id uuid, score real)
language plpgsql stable rows 100
security invoker -- called by search_images, as its owner
set search_path = ''
-- only ever by owner and file, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
    v_statement text := $statement$
        select p.file_id, p.page, p.version_id, (-p.product)::real
        from (
            select p.file_id, p.page, p.version_id, p.embedding operator(extensions.<#>) $7 as product
            from (%s) as p
            offset 0
        ) as p
        where $8 is null or -p.product >= $8
        order by p.product, p.file_id, p.page
        limit %s
    $statement$;
begin
    return query execute format(
        v_statement, private.page_places(space_id, scope, 't.file_id, t.page, t.version_id, t.embedding'), max_images
    ) using (scope).owner_ids, (scope).shared_owner_ids, (scope).file_ids, (scope).hidden_file_ids, scope,
        (scope).shared_file_ids, embedding, threshold;
end;
$$;
comment on function private.find_images(smallint, extensions.halfvec, private.search_scope, integer, real) is
'The nearest images by cosine, exact.';

create function private.search_images(
    embedding jsonb, top_k integer, filters jsonb, space text, options jsonb, explain boolean
) returns jsonb
language plpgsql volatile
security definer -- the scan needs an index that row security would take away; hits pass the predicate again
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
    v_vector extensions.halfvec;
    v_scope private.search_scope;
    v_hits jsonb;
    v_freshness jsonb;
begin
    perform private.require_permission('query');
    if top_k is null or top_k not between 1 and 100 then
        perform private.raise_invalid('top_k', 'top_k must be between 1 and 100.');
    end if;
    perform private.check_filters(coalesce(filters, '{}'));
    perform private.check_page_options(coalesce(options, '{}'), array['threshold']);
    v_space := private.find_space(coalesce(space, 'active'), 'image');
    v_vector := private.image_query(embedding, v_space);
    perform private.check_search_rate();
    v_scope := private.search_scope(coalesce(filters, '{}'));

    -- one statement sees one moment: what is found and what is still pending belong together
    select coalesce(jsonb_agg(h.hit order by h.score desc, h.file_id, h.page), '[]'), private.freshness(v_scope)
    into v_hits, v_freshness
    from (
        select f.score, f.file_id, f.page, private.page_hit(
            n, f.version_id, f.page, f.score, jsonb_build_object('cosine', f.score)
        ) - 'heat' as hit
        from private.find_images(
            v_space.id, v_vector, v_scope, search_images.top_k, (options ->> 'threshold')::real
        ) as f
        inner join public.nodes as n on n.id = f.file_id
        where private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
    ) as h;

    return jsonb_build_object('hits', v_hits, 'degraded', false, 'space', v_space.name) || v_freshness
        || case when explain then jsonb_build_object('explain', jsonb_build_object(
            'plan', 'exact',
            'owners', cardinality(v_scope.owner_ids),
            'shared_files', cardinality(v_scope.shared_file_ids),
            'filtered_files', cardinality(v_scope.file_ids)
        )) else '{}' end;
end;
$$;
comment on function private.search_images(jsonb, integer, jsonb, text, jsonb, boolean) is
'Behind public.search_images.';
grant execute on function private.search_images(jsonb, integer, jsonb, text, jsonb, boolean) to anon, authenticated;

create function public.search_images(
    embedding jsonb,
    top_k integer default 10,
    filters jsonb default null,
    space text default 'active',
    options jsonb default null,
    explain boolean default false
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.search_images(embedding, top_k, filters, space, options, explain); $$;
comment on function public.search_images(jsonb, integer, jsonb, text, jsonb, boolean) is
'Find images by what they show, in all that the caller can read: {hits, degraded, space, pending_files, index_lag}.

embedding: the vector of a picture or of a text in that space, a JSON array; or an array of up to 8 of them, which are
asked for together (a picture and words, say). top_k: 1 to 100. filters: as for hybrid_search. options: threshold (least
cosine). explain: adds how it was answered. A hit: file_id, version_id, is_head, name, path, page, width, height, mime,
thumbnail_bucket, thumbnail_key, score (cosine), parts {cosine}. Raises INVALID_ARGUMENT (field, expected), NOT_FOUND
for a folder that is not visible, RATE_LIMITED (limit, retry_after), NOT_AUTHENTICATED.';
grant execute on function public.search_images(jsonb, integer, jsonb, text, jsonb, boolean) to anon, authenticated;
