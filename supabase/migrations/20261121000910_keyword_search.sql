-- The keyword leg of search: what a query asks for, and BM25 over what the caller may read.
--
-- Plain words rank. "a phrase", -word and -"a phrase" are conditions that every hit meets, whichever leg found it;
-- word* ranks what begins so. Operators of tsquery and SQL are text like any other.

create type private.search_query as (words text, phrases text [], excluded text [], prefixes text []);
comment on type private.search_query is
'A query taken apart: the text to rank by (words of phrases among it), phrases that must occur, words and phrases that
must not, and beginnings of words. All but the first are folded.';

create function private.fold(content text) returns text
language sql immutable parallel safe
set search_path = ''
as $$
    -- what nobody sees or types: soft hyphens, tatweel, joiners, marks of direction, control characters but white space
    select regexp_replace(
        lower(normalize(fold.content, nfkc) collate pg_c_utf8),
        '[\u00ad\u0640\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u0001-\u0008\u000e-\u001f\u007f]+', '', 'g'
    );
$$;
comment on function private.fold(text) is
'A text for comparison: compatibility forms and letter case made one, invisible characters dropped. The same in every
locale.';

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
    v_query.words := array_to_string(v_words, ' ');
    return v_query;
end;
$$;
comment on function private.parse_query(text) is
'Takes "phrases", -excluded words and prefix* out of a query. A text of more than 32 words is prose and has none.';

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
    v_asks_for_a_beginning boolean := (q).words = '' and cardinality((q).prefixes) > 0;
begin
    if (q).phrases = '{}' and (q).excluded = '{}' and not v_asks_for_a_beginning then
        return true;
    end if;
    v_content := private.fold(content);
    foreach v_part in array (q).phrases loop
        if v_content !~ private.word_pattern(v_part) collate pg_c_utf8 then
            return false;
        end if;
    end loop;
    foreach v_part in array (q).excluded loop
        if private.has_word(v_content, language, v_part) then
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
