-- The dense leg of search: cosine over what the caller may read.
--
-- Exact over the blocks of vectors, which costs what the caller can read and nothing else. An HNSW index over all
-- vectors of a space pays only for whoever reads very much of them: the smaller the share, the more of what it finds is
-- not theirs, until it finds nothing of theirs at all. So it is asked above search.exact_chunks chunks and
-- search.index_share of all, without filters, and never believed when it finds too little.

insert into private.settings (key, value, description) values
('search.exact_chunks', '500000', 'Up to so many readable chunks vector search is exact, whatever indexes there are.'),
('search.index_share', '0.5', 'Smallest share of all chunks that one must own for an HNSW index to be asked.');

create function private.mark_clause(scope private.search_scope, mark text) returns text
language sql immutable
set search_path = ''
as $$
    select concat_ws(
        ' and ',
        case when (scope).languages is not null then format('%s & 32767 = any($9)', mark) end,
        case when num_nonnulls((scope).page_from, (scope).page_to) > 0
            then format('%s >> 15 between $10 and $11', mark) end
    );
$$;
comment on function private.mark_clause(private.search_scope, text) is
'The filters of a scope on chunks, as constant SQL text about a mark; empty without. Parameters: $9 language codes, $10
and $11 the first and the last page.';

create function private.are_marks_enough(scope private.search_scope) returns boolean
language sql immutable
set search_path = ''
as $$
    select coalesce((scope).page_from, 1) <= 65535
        and coalesce((scope).page_to, 1) < 65535
        and coalesce((
            select bool_and(private.language_code(l) > 0) from unnest((scope).languages) as l
        ), true);
$$;
comment on function private.are_marks_enough(private.search_scope) is
'Whether mark_clause alone decides, or what passes it must pass passes_chunk_filters, too.';

create function private.nearest_statement(block_size integer, source text, scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    -- The blocks with the nearest vectors, then their vectors: a block is among the first n when one of its vectors is.
    -- Of equal products the smallest chunk id counts, in both steps, so that the result is exactly the n first.
    -- Where marks are not enough, chunks are asked in the order of the result, until enough have passed.
    -- "offset 0" keeps steps apart: each product is computed once, and no filter moves inwards.
    select format(
        case when private.are_marks_enough(nearest_statement.scope) then
            $statement$
                select u.chunk_id, (-u.product)::real as score
                from (
                    select b.*
                    from (select t.chunk_ids, %1$s from %2$s offset 0) as b
                    order by least(%3$s), case least(%3$s) %4$s end
                    limit $7
                ) as b
                cross join lateral unnest(b.chunk_ids, array[%3$s]) as u (chunk_id, product)
                where u.product is not null and ($6 is null or -u.product >= $6)
                order by u.product, u.chunk_id
                limit $7
            $statement$
        else
            $statement$
                select c.chunk_id, (-c.product)::real as score
                from (
                    select u.chunk_id, u.product
                    from (select t.chunk_ids, %1$s from %2$s offset 0) as b
                    cross join lateral unnest(b.chunk_ids, array[%3$s]) as u (chunk_id, product)
                    where u.product is not null and ($6 is null or -u.product >= $6)
                    order by u.product, u.chunk_id
                    offset 0
                ) as c
                where private.passes_chunk_filters(c.chunk_id, $5)
                order by c.product, c.chunk_id
                limit $7
            $statement$
        end,
        string_agg(format(
            case when private.has_chunk_filters(nearest_statement.scope)
                then 'case when %2$s then t.embeddings[%1$s] operator(extensions.<#>) $2 end as p%1$s'
                else 't.embeddings[%1$s] operator(extensions.<#>) $2 as p%1$s'
            end,
            i, private.mark_clause(nearest_statement.scope, format('t.marks[%s]', i))
        ), ', ' order by i),
        source,
        string_agg(format('b.p%s', i), ', ' order by i),
        string_agg(format('when b.p%1$s then b.chunk_ids[%1$s]', i), ' ' order by i)
    )
    from generate_series(1, block_size) as i;
$$;
comment on function private.nearest_statement(integer, text, private.search_scope) is
'A query for the nearest chunks among the blocks t of a source. Parameters: $2 the vector, $5 the scope, $6 the least
cosine or null, $7 how many, and those of mark_clause; the others are the source''s.';

create function private.vector_index(space_id smallint) returns text
language sql stable
security invoker
set search_path = ''
as $$
    select c.relname
    from pg_catalog.pg_index as i
    inner join pg_catalog.pg_class as c on c.oid = i.indexrelid
    inner join pg_catalog.pg_am as m on m.oid = c.relam
    where i.indrelid = to_regclass(format('private.%I', private.vector_table(space_id)))
        and m.amname = 'hnsw'
        and i.indisvalid
    limit 1;
$$;
comment on function private.vector_index(smallint) is 'The HNSW index of a space that searches may use; null without.';

create function private.vector_index_statement(space_id smallint) returns text
language sql stable
security invoker
set search_path = ''
as $$
    -- recall@10 of 150,000 clustered vectors of 384 dimensions, on and off the reader's topics: .993 and .930 with
    -- pgvector's defaults (m 16, ef_construction 64), 1.0 and .990 with these
    select format(
        'create index concurrently %I on private.%I using hnsw ((embedding::extensions.halfvec(%s)) '
        || 'extensions.halfvec_ip_ops) with (m = 24, ef_construction = 200)',
        private.vector_table(s.id) || '_hnsw', private.vector_table(s.id), s.dimension
    )
    from public.embedding_spaces as s
    where s.id = vector_index_statement.space_id;
$$;
comment on function private.vector_index_statement(smallint) is
'What builds the HNSW index of a space while it is searched and written; it runs outside of transactions, so no function
can.';

create function private.describe_index(space_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'index', i.name,
        'is_valid', i.is_valid,
        'chunks', c.count,
        'largest_owner_chunks', o.count,
        'pays', o.count > (private.setting('search.exact_chunks'))::bigint
            and o.count >= (private.setting('search.index_share'))::float8 * c.count
    )
    from (
        select count(*) as count from private.chunk_vectors as v where v.space_id = describe_index.space_id
    ) as c
    cross join (select coalesce(max(s.chunk_count), 0) as count from private.owner_statistics as s) as o
    left join lateral (
        select format('private.%I', n.relname) as name, x.indisvalid as is_valid
        from pg_catalog.pg_index as x
        inner join pg_catalog.pg_class as n on n.oid = x.indexrelid
        inner join pg_catalog.pg_am as m on m.oid = n.relam
        where x.indrelid = to_regclass(format('private.%I', private.vector_table(space_id))) and m.amname = 'hnsw'
        order by x.indisvalid desc
        limit 1
    ) as i on true;
$$;
comment on function private.describe_index(smallint) is
'What speaks for an HNSW index of a space: {index, is_valid, chunks, largest_owner_chunks, pays}. index is null without
one; is_valid is false while it is built, or when that was broken off. pays: there is an owner for whom it would be asked.';

create type private.dense_plan as (plan text, reason text, readable_chunks bigint, all_chunks bigint);
comment on type private.dense_plan is
'exact or hnsw, why, and the counts that decided. What is shared is always searched exactly, and not counted.';

create function private.plan_dense(space_id smallint, scope private.search_scope) returns private.dense_plan
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_plan private.dense_plan;
begin
    select coalesce(sum(s.chunk_count), 0) into v_plan.readable_chunks
    from private.owner_statistics as s
    where s.owner_id = any((scope).owner_ids);
    -- an estimate is enough, and as it may be old, no less than what is known
    select greatest(c.reltuples, v_plan.readable_chunks) into v_plan.all_chunks
    from pg_catalog.pg_class as c
    where c.oid = to_regclass(format('private.%I', private.vector_table(space_id)));
    v_plan.reason := case
        when (scope).file_ids is not null or private.has_chunk_filters(scope) then 'filters'
        when v_plan.readable_chunks <= (private.setting('search.exact_chunks'))::bigint then 'few_chunks'
        when v_plan.readable_chunks < (private.setting('search.index_share'))::float8 * v_plan.all_chunks
            then 'small_share'
        when private.vector_index(space_id) is null then 'no_index'
        else 'large_share'
    end;
    v_plan.plan := case v_plan.reason when 'large_share' then 'hnsw' else 'exact' end;
    return v_plan;
end;
$$;
comment on function private.plan_dense(smallint, private.search_scope) is
'How search_dense looks through what the caller owns. Reasons for exact: filters, few_chunks, small_share, no_index.';

create function private.explain_dense(space_id smallint, scope private.search_scope) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    -- not how many chunks there are of others
    select jsonb_build_object(
        'plan', p.plan, 'reason', p.reason, 'own_chunks', p.readable_chunks,
        'shared_files', coalesce(cardinality((scope).shared_file_ids), 0)
    )
    from private.plan_dense(space_id, scope) as p;
$$;
comment on function private.explain_dense(smallint, private.search_scope) is
'How search_dense would go about a scope, for people: {plan, reason, own_chunks, shared_files}.';

create function private.search_hnsw(
    space_id smallint, query extensions.halfvec, scope private.search_scope, max_hits integer,
    out chunk_ids uuid[], out scores real[]
) returns record
language plpgsql stable
security invoker
set search_path = ''
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off -- but by the index
set max_parallel_workers_per_gather = 0
as $$
begin
    -- goes on, nearly in order, until enough of what it finds is the caller's, or so many vectors were looked at
    perform set_config('hnsw.iterative_scan', 'relaxed_order', true);
    perform set_config('hnsw.max_scan_tuples', '20000', true);
    perform set_config('hnsw.scan_mem_multiplier', '8', true); -- of work_mem, or it would end before that
    -- as far as it goes: queries apart from all clusters need it
    perform set_config('hnsw.ef_search', '1000', true);
    execute format(
        $statement$
            with near as materialized (
                select t.chunk_id, t.embedding::extensions.halfvec(%1$s) operator(extensions.<#>) $2 as product
                from private.%2$I as t
                where t.owner_id = any($1) %3$s
                order by t.embedding::extensions.halfvec(%1$s) operator(extensions.<#>) $2
                limit $5
            )
            -- + 0, or the planner would take what the scan says about its order for true
            select array_agg(n.chunk_id order by n.product + 0, n.chunk_id),
                array_agg((-n.product)::real order by n.product + 0, n.chunk_id)
            from near as n
        $statement$,
        extensions.vector_dims(query), private.vector_table(space_id), private.file_clause(scope)
    )
    into chunk_ids, scores
    using (scope).owner_ids, query, (scope).file_ids, (scope).hidden_file_ids, max_hits;
end;
$$;
comment on function private.search_hnsw(smallint, extensions.halfvec, private.search_scope, integer) is
'The chunks of the caller''s own that an HNSW index finds, the nearest first; fewer than max_hits when it gave up.';

create function private.search_dense(
    space_id smallint, embedding extensions.halfvec, scope private.search_scope, max_hits integer, threshold real
)
returns table (chunk_id uuid, score real)
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
-- only ever by owner and file, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
as $$
declare
    v_query extensions.halfvec := extensions.l2_normalize(embedding); -- as are the vectors: the product is the cosine
    v_block_size integer := private.block_size(extensions.vector_dims(embedding));
    v_languages integer[] := array(select private.language_code(l) from unnest((scope).languages) as l);
    v_page_from integer := least(greatest(coalesce((scope).page_from, 1), 1), 65535);
    v_page_to integer := least(coalesce((scope).page_to, 65535), 65535);
    v_clause text := private.file_clause(scope);
    v_table text := format('private.%I', private.block_table(space_id));
    v_near record;
    v_is_found boolean := false;
begin
    if (private.plan_dense(space_id, scope)).plan = 'hnsw' then
        -- many more, since what is apart from all clusters is found out of order: of 300,000 clustered vectors of 384
        -- dimensions, ten of ten on a topic of theirs, and off all of them .93 among 20, .94 to .97 among 2,000, .975
        -- among these. That costs as much as 400,000 exact ones.
        v_near := private.search_hnsw(space_id, v_query, scope, greatest(2 * max_hits, 4000));
        v_is_found := coalesce(cardinality(v_near.chunk_ids), 0) >= 2 * max_hits;
        if v_is_found then
            return query
            select n.chunk_id, n.score
            from unnest(v_near.chunk_ids, v_near.scores) with ordinality as n (chunk_id, score, place)
            where n.place <= max_hits and (threshold is null or n.score >= threshold);
        end if;
    end if;
    if cardinality((scope).owner_ids) > 0 and not v_is_found then
        return query execute private.nearest_statement(
            v_block_size, format('%s as t where t.owner_id = any($1) %s', v_table, v_clause), scope
        ) using (scope).owner_ids, v_query, (scope).file_ids, (scope).hidden_file_ids, scope, threshold, max_hits,
            null::uuid[], v_languages, v_page_from, v_page_to;
    end if;
    if cardinality((scope).shared_file_ids) > 0 then
        return query execute private.nearest_statement(
            v_block_size,
            format(
                $source$
                    unnest($1, $8) as f (file_id, owner_id)
                    cross join lateral (
                        select b.* from %s as b where b.owner_id = f.owner_id and b.file_id = f.file_id offset 0
                    ) as t
                    where true %s
                $source$,
                v_table, v_clause
            ),
            scope
        ) using (scope).shared_file_ids, v_query, (scope).file_ids, (scope).hidden_file_ids, scope, threshold, max_hits,
            (scope).shared_owner_ids, v_languages, v_page_from, v_page_to;
    end if;
end;
$$;
comment on function private.search_dense(smallint, extensions.halfvec, private.search_scope, integer, real) is
'The nearest chunks by cosine, at most max_hits of the caller''s own and of what is shared. Exact, unless plan_dense
says hnsw.';

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
