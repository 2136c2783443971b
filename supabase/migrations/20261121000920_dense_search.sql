-- The dense leg of search: cosine over what the caller may read.

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
