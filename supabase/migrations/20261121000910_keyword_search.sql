-- The keyword leg of search: BM25 over what the caller may read.

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
