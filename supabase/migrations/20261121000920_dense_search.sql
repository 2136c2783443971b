-- The dense leg of search: cosine over what the caller may read.

create function private.nearest_statement(block_size integer, source text, has_chunk_filters boolean) returns text
language sql immutable
set search_path = ''
as $$
    -- The blocks with the nearest vectors, then their vectors: a block is among the first n when one of its vectors is.
    -- Of equal products the smallest chunk id counts, in both steps, so that the result is exactly the n first.
    -- Filters on chunks are asked in the order of the result, until enough have passed.
    -- "offset 0" keeps steps apart: each product is computed once, and no filter moves inwards.
    select format(
        case when has_chunk_filters then
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
        else
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
        end,
        string_agg(format('t.embeddings[%1$s] operator(extensions.<#>) $2 as p%1$s', i), ', ' order by i),
        source,
        string_agg(format('b.p%s', i), ', ' order by i),
        string_agg(format('when b.p%1$s then b.chunk_ids[%1$s]', i), ' ' order by i)
    )
    from generate_series(1, block_size) as i;
$$;
comment on function private.nearest_statement(integer, text, boolean) is
'A query for the nearest chunks among the blocks t of a source. Parameters: $2 the vector, $5 the scope, $6 the least
cosine or null, $7 how many; the others are the source''s.';

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
    v_has_chunk_filters boolean := private.has_chunk_filters(scope);
    v_clause text := private.file_clause(scope);
    v_table text := format('private.%I', private.block_table(space_id));
begin
    if cardinality((scope).owner_ids) > 0 then
        return query execute private.nearest_statement(
            v_block_size, format('%s as t where t.owner_id = any($1) %s', v_table, v_clause), v_has_chunk_filters
        ) using (scope).owner_ids, v_query, (scope).file_ids, (scope).hidden_file_ids, scope, threshold, max_hits;
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
            v_has_chunk_filters
        ) using (scope).shared_file_ids, v_query, (scope).file_ids, (scope).hidden_file_ids, scope, threshold, max_hits,
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
