-- What a hit shows beside its place: the words around the match, where they stand on the page, what is around them,
-- and which other hits say the same.

-- Highlights -----------------------------------------------------------------------------------

create function private.any_word(q private.search_query, config regconfig) returns tsquery
language sql immutable parallel safe
set search_path = ''
as $$
    select (
        select replace(plainto_tsquery(any_word.config, (any_word.q).words)::text, ' & ', ' | ')::tsquery
    ) || coalesce((
        select string_agg(quote_literal(replace(p.word, '\', '\\')) || ':*', ' | ')::tsquery
        from unnest((any_word.q).prefixes) as p (word)
    ), '');
$$;
comment on function private.any_word(private.search_query, regconfig) is
'Any of the words of a query, stemmed, or of the beginnings of words.';

create function private.word_marks(content text, words tsquery, config regconfig) returns int4range[]
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    -- two code points that no text may hold mark the words, and every other character stays
    v_open constant text := chr(64976);
    v_close constant text := chr(64977);
    v_marked text := ts_headline(
        config, content, words, format('HighlightAll=true, StartSel="%s", StopSel="%s"', v_open, v_close)
    );
    v_marks int4range[];
    v_piece text;
    v_at integer; -- characters of the content before the piece
begin
    if translate(v_marked, v_open || v_close, '') <> content then
        return null;
    end if;
    -- a piece but the first is a marked word, the closing mark and what follows
    foreach v_piece in array string_to_array(v_marked, v_open) loop
        if v_at is not null then
            v_marks := v_marks || int4range(v_at, v_at + strpos(v_piece, v_close) - 1);
        end if;
        v_at := coalesce(v_at - 1, 0) + char_length(v_piece);
    end loop;
    return v_marks;
end;
$$;
comment on function private.word_marks(text, tsquery, regconfig) is
'Where the words of a query stand in a text: characters from 0, the end excluded.';

create function private.pair_marks(content text, words text) returns int4range[]
language sql immutable
security invoker
set search_path = ''
as $$
    with asked as materialized (
        select array_agg(substr(r.m[1], i, 2)) as pairs
        from regexp_matches(pair_marks.words, '(' || private.unspaced_class() || '+)', 'g') as r (m)
        cross join lateral generate_series(1, char_length(r.m[1]) - 1) as i
    ), found as (
        select u.no
        from asked as a
        cross join lateral (
            select c.no::integer as no, c.sign || lead(c.sign) over (order by c.no) as pair
            from unnest(string_to_array(pair_marks.content, null)) with ordinality as c (sign, no)
        ) as u
        where u.pair = any(a.pairs)
    ), runs as (
        -- pairs that overlap are one mark
        select int4range((min(r.no) - 1)::integer, (max(r.no) + 1)::integer) as mark
        from (select f.no, f.no - row_number() over (order by f.no) as run from found as f) as r
        group by r.run
    )
    select array_agg(r.mark order by r.mark) from runs as r;
$$;
comment on function private.pair_marks(text, text) is
'As word_marks, for scripts without spaces: wherever two neighbouring characters of the query stand.';

create function private.best_mark(content text, marks int4range[], width integer) returns integer
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_words text[] := array(
        select substr(content, lower(u.mark) + 1, upper(u.mark) - lower(u.mark)) from unnest(marks) as u (mark)
    );
    v_seen text[];
    v_most integer := 0;
    v_best integer;
    v_next integer;
begin
    for v_first in 1 .. least(cardinality(marks), 50) loop
        v_seen := '{}';
        v_next := v_first;
        while v_next <= cardinality(marks) and upper(marks[v_next]) <= lower(marks[v_first]) + width loop
            if not v_words[v_next] = any(v_seen) then
                v_seen := v_seen || v_words[v_next];
            end if;
            v_next := v_next + 1;
        end loop;
        if cardinality(v_seen) > v_most then
            v_most := cardinality(v_seen);
            v_best := lower(marks[v_first]);
        end if;
        exit when v_next > cardinality(marks); -- what begins later has only less
    end loop;
    return v_best;
end;
$$;
comment on function private.best_mark(text, int4range[], integer) is
'Where the stretch of this width begins that has most different words; null without marks.';

create function private.snippet(content text, q private.search_query, words tsquery, config regconfig) returns jsonb
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_length constant integer := 320; -- characters, at most
    v_lead constant integer := 60; -- of them before the first mark
    v_marks int4range[] := private.word_marks(content, words, config);
    v_start integer := 0;
    v_text text := content;
    v_spaced text;
begin
    if (q).words ~ private.unspaced_class() then
        v_marks := array(
            select u.mark from unnest(v_marks || private.pair_marks(content, (q).words)) as u (mark) order by u.mark
        );
    end if;
    if char_length(content) > v_length then
        v_start := least(
            greatest(coalesce(private.best_mark(content, v_marks, v_length - 2 * v_lead), 0) - v_lead, 0),
            char_length(content) - v_length
        );
        -- whole words, where there are spaces
        v_spaced := translate(content, e'\t\n\r', '   ');
        if v_start > 0 then
            v_start := v_start + greatest(strpos(substr(v_spaced, v_start, v_lead), ' ') - 1, 0);
        end if;
        v_text := substr(content, v_start + 1, v_length);
        if v_start + v_length < char_length(content) then
            v_text := left(v_text, v_length - strpos(
                reverse(substr(v_spaced, v_start + v_length - v_lead + 1, v_lead)), ' '
            ));
        end if;
    end if;
    return jsonb_build_object(
        'text', v_text, 'start', v_start, 'end', v_start + char_length(v_text),
        'highlights', (
            select coalesce(jsonb_agg(jsonb_build_array(lower(u.mark) - v_start, upper(u.mark) - v_start)), '[]')
            from unnest(v_marks) as u (mark)
            where lower(u.mark) >= v_start and upper(u.mark) <= v_start + char_length(v_text)
        )
    );
end;
$$;
comment on function private.snippet(text, private.search_query, tsquery, regconfig) is
'The part of a chunk that has most of what a query asks for: {text, start, end, highlights}. start and end are offsets
in the chunk, highlights [[start, end], …] in the text; characters from 0, ends excluded. words is any_word of the query
under the configuration of the chunk''s language.';

create function private.snippet(content text, q private.search_query, language text) returns jsonb
language sql immutable
set search_path = ''
as $$
    select private.snippet(snippet.content, snippet.q, private.any_word(snippet.q, t.config), t.config)
    from (select private.text_config(snippet.language) as config) as t;
$$;
comment on function private.snippet(text, private.search_query, text) is 'The same for a chunk of a language.';

create function private.line_boxes(version_id uuid, page integer, start_at integer, end_at integer) returns jsonb
language sql stable
security invoker -- called by search, as its owner
set search_path = ''
as $$
    select coalesce(
        jsonb_agg(jsonb_build_array(l.line -> 2, l.line -> 3, l.line -> 4, l.line -> 5) order by l.no), '[]'
    )
    from public.pages as p
    cross join lateral jsonb_array_elements(p.layout -> 'lines') with ordinality as l (line, no)
    where p.version_id = line_boxes.version_id
        and p.page = line_boxes.page
        and jsonb_typeof(p.layout -> 'lines') = 'array'
        and (l.line ->> 0)::integer < line_boxes.end_at
        and (l.line ->> 1)::integer > line_boxes.start_at;
$$;
comment on function private.line_boxes(uuid, integer, integer, integer) is
'The boxes of the lines of a page that have some of its characters: [[x0, y0, x1, y1], …].';

-- Context --------------------------------------------------------------------------------------

create function private.chunk_context(chunk public.chunks, kind text) returns jsonb
language sql stable
security invoker -- called by search, as its owner
set search_path = ''
as $$
    -- what follows one another under the same heading (without one, on the same page), or one chunk to each side
    with around as (
        select a.idx, a.page, a.char_start, a.char_end, a.idx - row_number() over (order by a.idx) as run
        from public.chunks as a
        where a.version_id = (chunk_context.chunk).version_id
            and a.idx between (chunk_context.chunk).idx - 20 and (chunk_context.chunk).idx + 20
            and case chunk_context.kind
                when 'neighbours' then a.idx between (chunk_context.chunk).idx - 1 and (chunk_context.chunk).idx + 1
                else a.heading is not distinct from (chunk_context.chunk).heading
                    and (a.heading is not null or a.page is not distinct from (chunk_context.chunk).page)
            end
    ), pieces as (
        select
            p.page,
            -- chunks overlap, so the text comes from the pages
            case when p.page <= coalesce((chunk_context.chunk).page, 1) then substr(
                p.text, w.char_start + 1,
                case when p.page = coalesce((chunk_context.chunk).page, 1)
                    then (chunk_context.chunk).char_start else w.char_end end - w.char_start
            ) end as before,
            case when p.page >= coalesce((chunk_context.chunk).page, 1) then substr(
                p.text,
                1 + case when p.page = coalesce((chunk_context.chunk).page, 1)
                    then (chunk_context.chunk).char_end else w.char_start end,
                w.char_end - case when p.page = coalesce((chunk_context.chunk).page, 1)
                    then (chunk_context.chunk).char_end else w.char_start end
            ) end as after
        from (
            select coalesce(a.page, 1) as page, min(a.char_start) as char_start, max(a.char_end) as char_end
            from around as a
            where a.run = (select o.run from around as o where o.idx = (chunk_context.chunk).idx)
            group by coalesce(a.page, 1)
        ) as w
        inner join public.pages as p on p.version_id = (chunk_context.chunk).version_id and p.page = w.page
    )
    select jsonb_build_object(
        'kind', chunk_context.kind,
        'heading', (chunk_context.chunk).heading,
        'before', right(coalesce(string_agg(nullif(p.before, ''), e'\n' order by p.page), ''), 2000),
        'after', left(coalesce(string_agg(nullif(p.after, ''), e'\n' order by p.page), ''), 2000)
    )
    from pieces as p;
$$;
comment on function private.chunk_context(public.chunks, text) is
'The text before and after a chunk in its version, at most 2000 characters each: {kind, heading, before, after}. kind:
neighbours (a chunk to each side) or section (what stands under the same heading).';

-- Copies ---------------------------------------------------------------------------------------

create type private.candidate as (
    chunk_id uuid,
    file_id uuid,
    text_hash bytea,
    fused double precision,
    boost real,
    keyword_rank integer,
    keyword_score real,
    vector_rank integer,
    vector_score real,
    name_rank integer,
    name_score real,
    copy_of uuid,
    score double precision
);
comment on type private.candidate is
'A passage that may become a hit; copy_of is a better one that says the same, null when there is none.';

create function private.is_same_passage(content text, other text) returns boolean
language plpgsql immutable parallel safe
security invoker
set search_path = ''
as $$
declare
    v_content text := translate(lower(content), e' \t\n\r', '');
    v_other text := translate(lower(other), e' \t\n\r', '');
begin
    return char_length(v_content) between 0.8 * char_length(v_other) and char_length(v_other) / 0.8
        -- 20 samples from its beginning to its end
        and (
            select count(*)
            from generate_series(0, 19) as i
            where strpos(v_other, substr(v_content, 1 + i * greatest(char_length(v_content) - 16, 0) / 19, 16)) > 0
        ) >= 16
        -- passages that differ in a number say different things, however alike they are
        and regexp_replace(v_content, '\D+', ' ', 'g') = regexp_replace(v_other, '\D+', ' ', 'g');
end;
$$;
comment on function private.is_same_passage(text, text) is
'Whether two texts have the same numbers and at least four of five stretches of the one are in the other, whatever their
case and line breaks.';

create function private.likely_copies(pool private.candidate[]) returns table (place integer, others integer[])
language sql stable
security invoker -- called by search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    with placed as (
        select
            c.file_id, c.version_id, c.idx, u.ordinality::integer as place,
            min(u.ordinality) over (partition by hashtextextended(c.content, 0))::integer as first
        from unnest(likely_copies.pool) with ordinality as u
        inner join public.chunks as c on c.id = u.chunk_id -- a file without text is a copy of none
    ), sketches as materialized (
        select p.place, f.sketches[6 * p.idx + 1:6 * p.idx + 6] as sketch
        from placed as p
        inner join private.indexed_files as f on f.file_id = p.file_id and f.version_id = p.version_id
        where p.place = p.first
    ), bands as (
        -- the outermost hashes of a chunk's terms: the same in texts with the same words
        select s.place, s.sketch[b.at]::bigint * 4294967296 + s.sketch[b.at + 1] as pair
        from sketches as s
        cross join (values (1), (2), (4), (5)) as b (at)
    )
    select p.place, array[p.first] from placed as p where p.first < p.place
    union all
    select f.place, array_agg(f.other order by f.other)
    from (
        select b.place, b.other
        from (select a.place, min(a.place) over (partition by a.pair) as other from bands as a) as b
        where b.other < b.place
        group by b.place, b.other
        having count(*) > 1 -- one pair is easily shared by chance
    ) as f
    group by f.place;
$$;
comment on function private.likely_copies(private.candidate[]) is
'By place in the pool, the places before it that have the same text or likely the same words.';

create function private.mark_copies(pool private.candidate[]) returns private.candidate[]
language plpgsql stable
security invoker -- called by search, as its owner
set search_path = ''
as $$
declare
    v_likely record;
    v_other integer;
    v_first integer[] := array_fill(null::integer, array[cardinality(pool)]); -- what each is a copy of
begin
    for v_likely in select l.place, l.others from private.likely_copies(pool) as l order by l.place loop
        foreach v_other in array v_likely.others loop
            v_other := coalesce(v_first[v_other], v_other);
            if pool[v_other].text_hash = pool[v_likely.place].text_hash or private.is_same_passage(
                (select c.content from public.chunks as c where c.id = pool[v_other].chunk_id),
                (select c.content from public.chunks as c where c.id = pool[v_likely.place].chunk_id)
            ) then
                v_first[v_likely.place] := v_other;
                pool[v_likely.place].copy_of := pool[v_other].chunk_id;
                -- behind all that says something else
                pool[v_likely.place].score := pool[v_likely.place].score / 1000;
                exit;
            end if;
        end loop;
    end loop;
    return pool;
end;
$$;
comment on function private.mark_copies(private.candidate[]) is
'Marks the candidates that say what a better one says, and lets them count a thousandth. The pool is in order, best
first.';
