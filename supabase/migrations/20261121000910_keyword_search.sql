-- The keyword leg of search: what a query asks for, and BM25 over what the caller may read.
--
-- Plain words rank. "a phrase", -word and -"a phrase" are conditions that every hit meets, whichever leg found it;
-- word* ranks what begins so. Operators of tsquery and SQL are text like any other.

create type private.search_query as (words text, phrases text [], excluded text [], prefixes text []);
comment on type private.search_query is
'A query taken apart: the text to rank by (words of phrases among it), phrases that must occur, words and phrases that
must not, and beginnings of words. All but the first are folded.';

create function private.parse_query(query text) returns private.search_query
language plpgsql immutable parallel safe
security invoker
set search_path = ''
as $$
declare
    -- quotes that open after white space and close before none of a word: 19" is not one
    v_quoted constant text := '(^|[\s(\[,;:])(-?)"([^"]+)"(?![[:alnum:]])';
    -- of the ends of a quotation the sentence around it may be part
    v_ends constant text := e' \t\n\r\f\v.,;:!?';
    v_query private.search_query;
    v_rest text := translate(query, '“”„‟«»＂', '"""""""');
    v_token text;
    v_words text[] := '{}';
    v_match text[];
begin
    v_query.phrases := '{}';
    v_query.excluded := '{}';
    v_query.prefixes := '{}';
    -- so long a text is prose, pasted: its quotes and dashes are punctuation
    if cardinality(regexp_split_to_array(btrim(query), '\s+')) > 32 then
        v_query.words := query;
        return v_query;
    end if;

    for v_match in select m from regexp_matches(v_rest, v_quoted, 'g') as m loop
        v_token := btrim(private.fold(v_match[3]), v_ends);
        continue when v_token !~ '[^[:space:][:punct:]]' collate pg_c_utf8;
        if v_match[2] = '-' then
            v_query.excluded := v_query.excluded || v_token;
        else
            v_query.phrases := v_query.phrases || v_token;
            v_words := v_words || v_match[3];
        end if;
    end loop;
    v_rest := replace(regexp_replace(v_rest, v_quoted, '\1 ', 'g'), '"', ' ');
    foreach v_token in array regexp_split_to_array(btrim(v_rest), '\s+') loop
        if v_token ~ '^-[[:alnum:]]' collate pg_c_utf8 then
            v_query.excluded := v_query.excluded || btrim(private.fold(v_token), v_ends || '-*');
        elsif v_token ~ '^[[:alnum:]].*[[:alnum:]]\*$' collate pg_c_utf8 then
            v_query.prefixes := v_query.prefixes || btrim(private.fold(v_token), '*');
        else
            v_words := v_words || v_token;
        end if;
    end loop;
    -- so many are the dashes of a list
    if cardinality(v_query.excluded) > 8 then
        v_words := v_words || v_query.excluded;
        v_query.excluded := '{}';
    end if;
    v_query.words := array_to_string(v_words, ' ');
    return v_query;
end;
$$;
comment on function private.parse_query(text) is
'Takes "phrases", -excluded words and prefix* out of a query. A text of more than 32 words is prose and has none; more
than 8 words with a dash are a list.';

create function private.word_pattern(word text, is_beginning boolean default false) returns text
language sql immutable parallel safe
set search_path = ''
as $$
    -- writing without spaces has no ends of words to respect
    select concat(
        case when word_pattern.word ~ '^[[:alnum:]]' collate pg_c_utf8
            and word_pattern.word !~ ('^' || private.unspaced_class()) then '(?<![[:alnum:]])' end,
        regexp_replace(
            regexp_replace(word_pattern.word, '([\\^$.|?*+()\[\]{}])', '\\\1', 'g'), '\s+', '\\s+', 'g'
        ),
        case when not word_pattern.is_beginning
            and word_pattern.word ~ '[[:alnum:]]$' collate pg_c_utf8
            and word_pattern.word !~ (private.unspaced_class() || '$') then '(?![[:alnum:]])' end
    );
$$;
comment on function private.word_pattern(text, boolean) is
'A regular expression for a folded word or phrase in folded text, not inside of longer words.';

create function private.has_word(content text, language text, word text) returns boolean
language sql immutable parallel safe
set search_path = ''
as $$
    select has_word.content ~ private.word_pattern(has_word.word) collate pg_c_utf8
        or exists ( -- another form of it
            select 1
            from private.stem(has_word.word, has_word.language) as s
            cross join lateral (
                select distinct m[1] as form
                from regexp_matches(
                    has_word.content,
                    '(' || private.word_pattern(left(s, greatest(char_length(s) - 1, 2)), true) || '[[:alnum:]]*)'
                        collate pg_c_utf8,
                    'g'
                ) as m
            ) as f
            where has_word.word ~ '^[[:alnum:]]+$' collate pg_c_utf8
                and private.stem(f.form, has_word.language) = s
        );
$$;
comment on function private.has_word(text, text, text) is
'Whether folded text of a language has a folded word, in any of its forms, or a folded phrase.';

create function private.passes_query(content text, language text, q private.search_query) returns boolean
language plpgsql immutable parallel safe
security invoker
set search_path = ''
as $$
declare
    v_content text;
    v_part text;
    v_stem text;
    v_asks_for_a_beginning boolean := (q).words = '' and cardinality((q).prefixes) > 0;
begin
    if (q).phrases = '{}' and (q).excluded = '{}' and not v_asks_for_a_beginning then
        return true;
    end if;
    v_content := private.fold(content);
    foreach v_part in array (q).phrases loop
        if strpos(v_content, substring(v_part from '^\S+')) = 0
            or v_content !~ private.word_pattern(v_part) collate pg_c_utf8 then
            return false;
        end if;
    end loop;
    foreach v_part in array (q).excluded loop
        -- most texts have not even the beginning of it, or of a form of it
        v_stem := private.stem(v_part, language);
        if (
                strpos(v_content, substring(v_part from '^\S+')) > 0
                or strpos(v_content, left(v_stem, greatest(char_length(v_stem) - 1, 2))) > 0
            )
            and private.has_word(v_content, language, v_part) then
            return false;
        end if;
    end loop;
    return not v_asks_for_a_beginning or exists (
        select 1 from unnest((q).prefixes) as p (word)
        where v_content ~ private.word_pattern(p.word, true) collate pg_c_utf8
    );
end;
$$;
comment on function private.passes_query(text, text, private.search_query) is
'Whether a chunk meets the conditions of a query: it has all phrases, none of the excluded words in any form, and, when
beginnings of words are all that is asked for, one of them.';

create function private.is_short_run(lexeme text) returns boolean
language sql immutable parallel safe
return case char_length(lexeme)
    when 1 then lexeme ~ private.unspaced_class()
    when 2 then lexeme ~ private.unspaced_class('south')
    else false
end;
comment on function private.is_short_run(text) is
'Whether it is a run of unspaced writing too short to be a piece of the index: pieces that begin with it are meant.';

create function private.phrase_units(phrase text) returns setof text
language sql immutable parallel safe
set search_path = ''
as $$
    select distinct l.lexeme
    from private.lexemes(phrase_units.phrase, 'simple', true) as l
    where l.lexeme ~ '[[:alnum:]]' collate pg_c_utf8
        and not private.is_short_run(l.lexeme)
        and l.lexeme !~ '[-_./@:+#&\\,]|^[a-z0-9]$'; -- its parts will do; single letters may not be asked for
$$;
comment on function private.phrase_units(text) is 'The words of a phrase, each of which a chunk with the phrase has.';

create function private.query_terms(q private.search_query, languages text[])
returns table (lexeme text, weight real, is_beginning boolean, term text, bits integer)
language sql immutable
set search_path = ''
as $$
    -- each chunk was stemmed in its own language, so the query is stemmed in every language there is
    with asked as materialized (
        select min(t.language) as language
        from unnest(query_terms.languages) as t (language)
        group by private.stemmer(t.language)
    ), tokens as materialized (
        select t.token, t.position, btrim(private.fold(t.token), '.,;:!?()[]"') as word
        from string_to_table(regexp_replace((query_terms.q).words, '\s+', ' ', 'g'), ' ')
            with ordinality as t (token, position)
    ), common as materialized (
        -- the language of the query is the one that has most of its words as stop words: elsewhere they are rare, and
        -- would rank foreign text first
        select array_agg(t.word) as words
        from asked as a
        inner join tokens as t on ts_lexize(private.stemmer(a.language), t.word) = '{}'
        group by a.language
        order by count(*) desc, a.language
        limit 1
    ), ranking as materialized (
        select
            string_agg(t.token, ' ' order by t.position)
                filter (where not t.word = any(coalesce((select c.words from common as c), '{}'))) as words,
            count(*) > 8 as is_long
        from tokens as t
    ), units as (
        -- a word that is too common to index in one of the languages may be missing in its chunks
        select u.lexemes, (1 << (row_number() over ())::integer - 1) as bit
        from (
            select array_agg(l.lexeme) as lexemes
            from unnest((query_terms.q).phrases) as p (phrase)
            cross join lateral private.phrase_units(p.phrase) as w (word)
            cross join asked as a
            left join lateral private.lexemes(w.word, a.language, true) as l on true
            group by p.phrase, w.word
            having count(l.lexeme) = count(*)
            limit 30
        ) as u
    ), words as materialized (
        select
            l.lexeme as word,
            -- an identifier weighs as much as all of its parts, so that they never outrank it
            l.frequency * case
                when l.lexeme ~ '[-_./@:+#&\\,]' and l.lexeme ~ '[0-9_@+#&]'
                    then cardinality(regexp_split_to_array(l.lexeme, '[-_./@:+#&\\,]+'))
                else 1
            end as weight,
            l.lexeme !~ '[-_./@:+#&\\,]' and l.lexeme !~ private.unspaced_class() as has_stems
        from ranking as r
        cross join lateral private.lexemes(r.words, 'simple', true) as l
        -- "vitamin c" means it; in a longer question single letters are initials and variables
        where not r.is_long or l.lexeme !~ '^[a-z0-9]$'
    ), stemmed as (
        -- the stems of a word are one term: what few chunks are in another language, or in none that is known, must
        -- not make a common word rare in them
        select w.word, w.weight, w.word as lexeme from words as w where not w.has_stems
        union
        select w.word, w.weight, coalesce(s.stems[1], w.word)
        from words as w
        cross join asked as a
        cross join lateral (select private.stems(w.word, a.language) as stems) as s
        where w.has_stems and s.stems is distinct from '{}' -- a stop word
    )
    select
        w.lexeme, w.weight::real, private.is_short_run(w.lexeme), w.word,
        coalesce((select bit_or(u.bit) from units as u where w.lexeme = any(u.lexemes)), 0)
    from stemmed as w
    union all
    select p.word, 1::real, true, p.word || '*', 0
    from unnest((query_terms.q).prefixes) as p (word)
    union all
    -- stems may be shorter than the beginning: universit* means univers
    select distinct s.stem, 1::real, false, p.word || '*', 0
    from unnest((query_terms.q).prefixes) as p (word)
    cross join lateral (
        select left(p.word, -k) as stem from generate_series(1, 4) as k where char_length(p.word) - k >= 3
        union
        select private.stem(p.word, a.language) from asked as a
    ) as s
    where not starts_with(s.stem, p.word);
$$;
comment on function private.query_terms(private.search_query, text[]) is
'What to look up for a query, stemmed in these languages: each lexeme, or all that begin with it, under
the term of the query that it stands for; bits are set for the words of phrases, all of which a chunk must have.';

create function private.find_terms(
    q private.search_query, languages text[], owner_id uuid, owner_ids uuid[], file_ids uuid[]
)
returns table (lexeme text, weight real, term text, bits integer, chunk_count bigint)
language plpgsql stable
security invoker
set search_path = ''
-- only ever the indexes, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
    v_last constant text := u&'\+10ffff';
begin
    if owner_id is not null then
        return query
        select f.lexeme, a.weight, a.term, a.bits, f.chunk_count
        from private.query_terms(find_terms.q, languages) as a
        cross join lateral (
            select a.lexeme, sum(cardinality(t.entries)) as chunk_count
            from private.chunk_terms as t
            where not a.is_beginning and t.owner_id = find_terms.owner_id and t.lexeme = a.lexeme
            having count(*) > 0
            union all
            select b.* from (
                select t.lexeme, sum(cardinality(t.entries)) as chunk_count
                from private.chunk_terms as t
                where a.is_beginning
                    and t.owner_id = find_terms.owner_id and t.lexeme >= a.lexeme and t.lexeme < a.lexeme || v_last
                group by t.lexeme
                order by 2 desc, 1
                limit 1000
            ) as b
        ) as f;
    else
        -- what is shared counts by itself, so that no score tells anything about rows that are not
        return query
        select f.lexeme, a.weight, a.term, a.bits, f.chunk_count
        from private.query_terms(find_terms.q, languages) as a
        cross join lateral (
            select a.lexeme, sum(t.chunk_count) as chunk_count
            from (select distinct o.id from unnest(owner_ids) as o (id)) as s (owner_id)
            cross join lateral (
                select cardinality(t.entries) as chunk_count
                from private.chunk_terms as t
                where not a.is_beginning
                    and t.owner_id = s.owner_id and t.lexeme = a.lexeme
                    and t.file_id = any((select find_terms.file_ids)::uuid[])
                offset 0 -- one scan that goes from file to file: any other order reads what is not shared
            ) as t
            having count(*) > 0
            union all
            select b.* from (
                select t.lexeme, sum(t.chunk_count) as chunk_count
                from unnest(file_ids) as s (file_id)
                cross join lateral (
                    select t.lexeme, cardinality(t.entries) as chunk_count
                    from private.chunk_terms as t
                    where a.is_beginning
                        and t.file_id = s.file_id and t.part >= 0
                        and t.lexeme >= a.lexeme and t.lexeme < a.lexeme || v_last
                    offset 0
                ) as t
                group by t.lexeme
                order by 2 desc, 1
                limit 1000
            ) as b
        ) as f;
    end if;
end;
$$;
comment on function private.find_terms(private.search_query, text[], uuid, uuid[], uuid[]) is
'The lexemes of a query that occur, and in how many chunks: of one owner, or of files with their owners.';

create type private.weighted_query as (
    lexemes text [], weights float8 [], bits integer [], mask integer,
    chunk_count bigint, average float8, entries bigint, parts integer
);
comment on type private.weighted_query is
'The query side of BM25 by lexeme, query frequency * idf * (k1 + 1); the bits that a chunk must have; the number and the
average length of the chunks that count; how many entries there are to score, and in how many parts that is done best.
lexemes is null when none occurs.';

create function private.weigh_query(
    q private.search_query, owner_id uuid, owner_ids uuid[] default null, file_ids uuid[] default null
) returns private.weighted_query
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_weighted private.weighted_query;
    v_languages text[];
    v_length numeric;
begin
    if owner_id is not null then
        select s.languages, s.chunk_count, s.total_length into v_languages, v_weighted.chunk_count, v_length
        from private.owner_statistics as s
        where s.owner_id = weigh_query.owner_id;
    else
        select
            (
                select array_agg(distinct l)
                from private.indexed_files as f cross join lateral unnest(f.languages) as l
                where f.file_id = any(weigh_query.file_ids)
            ),
            sum(f.chunk_count), sum(f.total_length)
        into v_languages, v_weighted.chunk_count, v_length
        from private.indexed_files as f
        where f.file_id = any(weigh_query.file_ids);
    end if;
    -- "greatest", so that damaged statistics cost order and not the answer
    v_weighted.chunk_count := greatest(v_weighted.chunk_count, 1);
    v_weighted.average := greatest(v_length / v_weighted.chunk_count, 1);

    with found as materialized (
        select f.* from private.find_terms(q, v_languages, owner_id, owner_ids, file_ids) as f
    ), terms as (
        select f.term, sum(f.chunk_count) as chunk_count from found as f group by f.term
    )
    select
        array_agg(x.lexeme), array_agg(x.weight), array_agg(x.bits), 0, sum(x.chunk_count),
        -- parts of about 3000 entries, and more where there are so many lexemes that to look each up takes longer
        1 << least(log(2, sum(x.chunk_count) / greatest(3000, 100 * count(*)) + 1)::integer, 10)
    into v_weighted.lexemes, v_weighted.weights, v_weighted.bits, v_weighted.mask, v_weighted.entries,
        v_weighted.parts
    from (
        -- a lexeme may stand for several terms
        select
            f.lexeme, sum(f.weight * i.idf * 2.2) as weight, bit_or(f.bits) as bits,
            max(f.chunk_count) as chunk_count
        from found as f
        inner join terms as t on t.term = f.term
        cross join lateral (
            select least(t.chunk_count, v_weighted.chunk_count)::float8 as df
        ) as d
        cross join lateral (select ln(1 + (v_weighted.chunk_count - d.df + 0.5) / (d.df + 0.5)) as idf) as i
        group by f.lexeme
    ) as x;
    -- words of phrases that do not occur at all are asked for, too
    if (q).phrases <> '{}' then
        v_weighted.mask := (select bit_or(t.bits) from private.query_terms(q, v_languages) as t);
    end if;
    return v_weighted;
end;
$$;
comment on function private.weigh_query(private.search_query, uuid, uuid[], uuid[]) is
'A query with the statistics of one owner, or of files with their owners.';

create function private.scoring(scope private.search_scope, is_shared boolean, parts integer, ending text) returns text
language sql immutable
set search_path = ''
as $$
    -- some files after the other, so that the sums stay in the processor's cache: ranges of ids, or parts of a list
    with parts as (
        select
            s.is_list,
            format(
                case when s.is_list then $statement$
                    select array_agg(t.file_id) as file_ids
                    from unnest($11) as t (file_id)
                    where true %2$s
                    group by uuid_hash(t.file_id) & (%1$s - 1)
                $statement$
                else $statement$
                    select
                        (lpad(to_hex((i << 32) / %1$s), 8, '0') || repeat('0', 24))::uuid as first_id,
                        (lpad(to_hex((i + 1 << 32) / %1$s - 1), 8, '0') || repeat('f', 24))::uuid as last_id
                    from generate_series(0::bigint, %1$s - 1) as i
                $statement$ end,
                scoring.parts, private.file_clause(scoring.scope)
            ) as statement
        from (
            select scoring.is_shared or coalesce(cardinality((scoring.scope).file_ids) <= 5000, false) as is_list
        ) as s
    )
    select format(
        $statement$
            select s.*
            from (%1$s offset 0) as p
            cross join lateral (
                select e.file_id, e.idx, sum(e.score) as score
                from (
                    select
                        u.file_id, (u.entry >> 40)::integer as idx, u.bits, u.weight
                        / (1 + (0.3::float8 + (u.entry & 16777215)::float8 * $8) / ((u.entry >> 24) & 65535)::float8)
                        as score
                    from (
                        -- term by term, and from file to file: any other order reads what is not readable
                        select t.file_id, q.weight, q.bits, unnest(t.entries) as entry
                        from unnest($1, $2, $6) as q (lexeme, weight, bits)
                        %2$s
                        cross join lateral (
                            select t.file_id, t.entries
                            from private.chunk_terms as t
                            where %3$s and t.lexeme = q.lexeme %4$s
                            offset 0
                        ) as t
                    ) as u
                ) as e
                group by e.file_id, e.idx
                %5$s
            ) as s
        $statement$,
        p.statement,
        case when scoring.is_shared then
            'cross join (select distinct o.id from unnest($10) as o (id)) as s (owner_id)' end,
        case when scoring.is_shared then 't.owner_id = s.owner_id' else 't.owner_id = $9' end,
        case
            when p.is_list then 'and t.file_id = any(p.file_ids)'
            else concat(
                -- not of all files: there is an index of them alone, which old statistics could prefer
                case when scoring.parts > 1 then 'and t.file_id between p.first_id and p.last_id' end,
                private.file_clause(scoring.scope)
            )
        end,
        scoring.ending
    )
    from parts as p;
$$;
comment on function private.scoring(private.search_scope, boolean, integer, text) is
'The statement that scores chunks: file_id, idx, score; in so many parts, a power of two. The ending of each part says
which of its chunks, with e for an entry. Parameters: $1 lexemes, $2 their weights, $6 their bits, $8 k1 * b / the
average length; $9 an owner, or $10 owners; $11 the only files, where they are listed; those of file_clause.';

create function private.narrowed_files(scope private.search_scope) returns uuid[]
language plpgsql stable
security invoker -- called by search_keyword, as its owner
set search_path = ''
-- only ever the indexes, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
as $$
declare
    v_count bigint;
    v_ids uuid[];
begin
    if not private.has_chunk_filters(scope) then
        return (scope).file_ids;
    end if;
    select
        count(*),
        coalesce(array_agg(f.file_id) filter (
            where ((scope).languages is null or f.languages && (scope).languages)
                and coalesce((scope).page_from <= f.last_page, true)
        ), '{}')
    into v_count, v_ids
    from (
        select i.file_id, i.languages, i.last_page
        from private.indexed_files as i
        where i.owner_id = any((scope).owner_ids)
        union all
        select i.file_id, i.languages, i.last_page
        from unnest((scope).shared_file_ids) as s (id) inner join private.indexed_files as i on i.file_id = s.id
    ) as f;
    -- where most pass, hits are found soon enough
    if 2 * cardinality(v_ids) > v_count then
        return (scope).file_ids;
    end if;
    if (scope).file_ids is not null then
        v_ids := array(select unnest(v_ids) intersect select unnest((scope).file_ids));
    end if;
    return v_ids;
end;
$$;
comment on function private.narrowed_files(private.search_scope) is
'The files of a scope, without those none of whose chunks can pass its filters on chunks; null for all. Else a word that
only they have would cost a look at all of their chunks.';

create function private.search_keyword(query text, scope private.search_scope, max_hits integer)
returns table (chunk_id uuid, score real)
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
-- only ever the indexes, so that nobody's search reads, or waits for, another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set max_parallel_workers_per_gather = 0
set work_mem = '64MB' -- groups are small: a million of them fit
as $$
declare
    -- conditions are looked at in order of score, until there are enough hits; of very many chunks, in the best only
    v_statement text := $statement$
        select t.chunk_id, t.score::real
        from (
            select c.id as chunk_id, s.file_id, s.idx, s.score, c.content, c.language
            from (select r.* from (%s) as r %s) as s
            cross join lateral (
                select c.id, c.content, c.language
                from public.chunks as c
                where c.idx = s.idx
                    and c.version_id = (select f.version_id from private.indexed_files as f where f.file_id = s.file_id)
                    %s
                offset 0
            ) as c
            order by s.score desc, s.file_id, s.idx
            limit %s
        ) as t
        where true %s
        order by t.score desc, t.file_id, t.idx
        limit %s
    $statement$;
    v_query private.search_query := private.parse_query(query);
    v_is_conditional boolean := v_query.phrases <> '{}' or v_query.excluded <> '{}'
        or v_query.words = '' and v_query.prefixes <> '{}';
    v_scope private.search_scope := scope;
    v_is_narrowed boolean := private.has_chunk_filters(scope);
    v_order text := format(
        'order by score desc, file_id, idx %s',
        case when not (v_is_conditional or v_is_narrowed) then format('limit %s', max_hits) end
    );
    v_most_examined integer;
    v_weighted private.weighted_query;
    v_owner_id uuid;
begin
    v_scope.file_ids := private.narrowed_files(scope);
    foreach v_owner_id in array (scope).owner_ids || null::uuid loop
        if v_owner_id is not null then
            v_weighted := private.weigh_query(v_query, v_owner_id);
        else
            continue when cardinality((scope).shared_file_ids) = 0;
            v_weighted := private.weigh_query(v_query, null, (scope).shared_owner_ids, (scope).shared_file_ids);
        end if;
        continue when v_weighted.lexemes is null;
        -- to read a text for excluded words takes half a millisecond, for a phrase whose words it has a tenth of that:
        -- bounded, so that no question takes longer than clients wait
        v_most_examined := greatest(500, case
            when v_weighted.mask <> 0 and v_query.excluded = '{}' then 10000 / cardinality(v_query.phrases)
            else 3000
        end / greatest(cardinality((scope).owner_ids), 1));
        return query execute format(
            v_statement,
            private.scoring(
                v_scope, v_owner_id is null, v_weighted.parts,
                concat(case when v_weighted.mask <> 0 then 'having bit_or(e.bits) & $7 = $7 ' end, v_order)
            ),
            v_order,
            private.chunk_clause(scope),
            case when v_is_conditional then v_most_examined else max_hits end,
            case when v_is_conditional then 'and private.passes_query(t.content, t.language, $12)' end,
            max_hits
        ) using v_weighted.lexemes, v_weighted.weights, v_scope.file_ids, (scope).hidden_file_ids, scope,
            v_weighted.bits, v_weighted.mask, 0.9 / v_weighted.average, v_owner_id,
            (scope).shared_owner_ids,
            case when v_owner_id is null then (scope).shared_file_ids else v_scope.file_ids end, v_query;
    end loop;
end;
$$;
comment on function private.search_keyword(text, private.search_scope, integer) is
'The best chunks by BM25, at most max_hits of each owner and of what is shared. A phrase is looked for in the best
10,000 chunks that have all of its words (several share them), excluded words and mere beginnings in the best 3,000: of
all owners together, and of what is shared.';

create function private.explain_keyword(query text, scope private.search_scope) returns jsonb
language sql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
    select jsonb_build_object(
        'plan', 'postings',
        'parsed', to_jsonb(private.parse_query(explain_keyword.query)),
        'own', coalesce((
            select jsonb_agg(jsonb_build_object(
                'owner_id', o.id, 'chunks', w.chunk_count, 'terms', to_jsonb(w.lexemes), 'entries', w.entries
            ))
            from unnest((scope).owner_ids) as o (id)
            cross join lateral private.weigh_query(private.parse_query(explain_keyword.query), o.id) as w
        ), '[]'),
        'shared', case when cardinality((scope).shared_file_ids) > 0 then (
            select jsonb_build_object('chunks', w.chunk_count, 'terms', to_jsonb(w.lexemes), 'entries', w.entries)
            from private.weigh_query(
                private.parse_query(explain_keyword.query), null, (scope).shared_owner_ids, (scope).shared_file_ids
            ) as w
        ) end
    );
$$;
comment on function private.explain_keyword(text, private.search_scope) is
'How search_keyword answers: the parsed query, the terms that occur, and how many entries of the index it scores.';
