-- Related documents: what a file is like, by the middle of its vectors and by its key terms.

create function private.key_terms(version_id uuid, owner_ids uuid[], max_terms integer) returns text
language sql stable
security invoker -- called by related_documents, as its owner
set search_path = ''
as $$
    -- rare among the caller's own files; what else a sharer has must not show through
    with said as materialized (
        select l.lexeme, sum(ln(1 + l.frequency)) as weight
        from (
            select c.content, c.language
            from public.chunks as c
            where c.version_id = key_terms.version_id
            order by c.idx
            limit 64
        ) as p
        cross join lateral private.lexemes(p.content, p.language) as l
        where l.lexeme ~ '^[[:alnum:]].*[[:alnum:]]$' collate pg_c_utf8 and char_length(l.lexeme) <= 40
        group by l.lexeme
        order by weight desc, l.lexeme
        limit 150
    ), weighed as (
        select s.lexeme, s.weight / (1 + ln(1 + f.files)) as weight
        from said as s
        cross join lateral (
            select count(*) as files
            from (
                select 1
                from private.chunk_terms as t
                where t.owner_id = any(key_terms.owner_ids) and t.lexeme = s.lexeme
                limit 200 -- in so many files, it tells nothing
            ) as t
        ) as f
        order by weight desc, s.lexeme
        limit max_terms
    )
    select string_agg(w.lexeme, ' ' order by w.weight desc, w.lexeme) from weighed as w;
$$;
comment on function private.key_terms(uuid, uuid[], integer) is
'What a version is about: terms that it says often and few files of these owners have.';

create function private.file_vector(file_id uuid, space_id smallint) returns extensions.halfvec
language plpgsql stable
security invoker -- called by related_documents, as its owner
set search_path = ''
as $$
declare
    v_vector extensions.halfvec;
begin
    execute format(
        'select extensions.avg(t.embedding) from private.%I as t where t.file_id = $1', private.vector_table(space_id)
    ) into v_vector using file_id;
    return v_vector;
end;
$$;
comment on function private.file_vector(uuid, smallint) is
'The middle of a file''s vectors in a space; null when it has none.';

create function private.related_candidates(call private.search_call) returns table (
    file_id uuid, chunk_id uuid, score double precision,
    keyword_rank bigint, keyword_score real, vector_rank bigint, vector_score real
)
language sql stable rows 100
security invoker -- called by related_documents, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
as $$
    -- a file stands where its best passage does
    with legs as materialized (
        select * from private.ask_legs(related_candidates.call, (related_candidates.call).candidates, null)
    ), keyword as (
        select b.*, row_number() over (order by b.place) as file_place
        from (
            select distinct on (c.file_id) c.file_id, k.id, k.score, k.place
            from legs as l cross join unnest(l.keyword) as k inner join public.chunks as c on c.id = k.id
            order by c.file_id, k.place
        ) as b
    ), vector as (
        select b.*, row_number() over (order by b.place) as file_place
        from (
            select distinct on (c.file_id) c.file_id, d.id, d.score, d.place
            from legs as l cross join unnest(l.vector) as d inner join public.chunks as c on c.id = d.id
            order by c.file_id, d.place
        ) as b
    )
    select
        coalesce(d.file_id, k.file_id), coalesce(d.id, k.id),
        coalesce(1 / (10 + k.file_place)::double precision, 0) + coalesce(1 / (10 + d.file_place)::double precision, 0),
        k.file_place, k.score, d.file_place, d.score
    from keyword as k full join vector as d on d.file_id = k.file_id;
$$;
comment on function private.related_candidates(private.search_call) is
'Both legs as one ranking of files, by rank (k = 10).';

create function private.related_documents(file_id uuid, top_k integer) returns jsonb
language plpgsql volatile
security definer -- the legs need indexes that row security would take away; hits pass the predicate again
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_space public.embedding_spaces;
    v_call private.search_call;
    v_items jsonb;
begin
    perform private.require_permission('query');
    v_file := private.require_level(file_id, 'view');
    if v_file.kind <> 'file' then
        perform private.raise_invalid('file_id', 'Only files have related documents.');
    end if;
    if top_k is null or top_k not between 1 and 100 then
        perform private.raise_invalid('top_k', 'top_k must be between 1 and 100.');
    end if;
    perform private.check_search_rate();
    v_space := private.find_space('active', 'text');
    v_call.space_id := v_space.id;
    v_call.embedding := private.file_vector(v_file.id, v_space.id);
    v_call.options := private.search_options('{"weights": {"name": 0}}');
    v_call.scope := private.search_scope('{}');
    -- never itself
    v_call.scope.hidden_file_ids := (v_call.scope).hidden_file_ids || v_file.id;
    v_call.candidates := 200;
    v_call.query := private.key_terms(v_file.head_version_id, (v_call.scope).owner_ids, 40);
    v_call.parsed.words := v_call.query;
    if v_call.query is null then
        return jsonb_build_object('items', '[]'::jsonb, 'next_cursor', null, 'degraded', false, 'space', v_space.name);
    end if;

    select coalesce(jsonb_agg(i.item order by i.score desc, i.file_id), '[]') into v_items
    from (
        select
            r.score, r.file_id, jsonb_build_object(
                'file_id', n.id, 'version_id', c.version_id, 'name', n.name, 'path', private.path_name(n),
                'is_copy', coalesce(v.sha256 = o.sha256, false),
                'chunk_id', c.id, 'page', c.page, 'bboxes', c.bboxes, 'heading', c.heading,
                'snippet', left(c.content, 320),
                'score', r.score,
                'parts', jsonb_build_object(
                    'keyword_rank', r.keyword_rank, 'keyword_score', r.keyword_score,
                    'vector_rank', r.vector_rank, 'vector_score', r.vector_score
                )
            ) as item
        from private.related_candidates(v_call) as r
        inner join public.chunks as c on c.id = r.chunk_id
        inner join public.nodes as n on n.id = c.file_id
        inner join public.file_versions as v on v.id = n.head_version_id
        left join public.file_versions as o on o.id = v_file.head_version_id
        where private.is_readable(
            n.owner_id, n.path, n.trashed_at, (v_call.scope).owner_ids, (v_call.scope).roots
        )
        order by r.score desc, r.file_id
        limit top_k
    ) as i;
    return jsonb_build_object(
        'items', v_items, 'next_cursor', null, 'degraded', v_call.embedding is null, 'space', v_space.name
    );
end;
$$;
comment on function private.related_documents(uuid, integer) is 'Behind public.related_documents.';
grant execute on function private.related_documents(uuid, integer) to anon, authenticated;

create function public.related_documents(file_id uuid, top_k integer default 8) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.related_documents(file_id, top_k); $$;
comment on function public.related_documents(uuid, integer) is
'Files that are about the same as a file, by meaning and by its key terms, among all that you can read; never the file
itself: {items: [{file_id, version_id, name, path, is_copy, chunk_id, page, bboxes, heading, snippet, score, parts}],
next_cursor, degraded, space}.

The passage is the one that is most like the file. is_copy: the same bytes. degraded: the file has no vectors yet, so
words alone decide. A file without text has none. top_k: 1 to 100. Raises NOT_FOUND, INVALID_ARGUMENT (field file_id for
a folder, top_k), RATE_LIMITED, NOT_AUTHENTICATED.';
grant execute on function public.related_documents(uuid, integer) to anon, authenticated;
