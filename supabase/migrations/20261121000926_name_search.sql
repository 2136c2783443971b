-- The name leg of search: files by the words of their names and of their titles, forgiving typos; and search_files.

create function private.similar_words(owner_id uuid, asked text) returns table (word text, likeness real)
language sql stable rows 10
security invoker
set search_path = ''
as $$
    select f.word, l.likeness
    from (
        select similar_words.asked as word
        union
        (
            select k.word from private.name_keys as k
            where k.owner_id = similar_words.owner_id
                and k.key >= '=' || similar_words.asked and k.key < '=' || similar_words.asked || e'\U0010ffff'
            limit 200
        )
        union
        select k.word
        from unnest(private.typo_keys(similar_words.asked)) as t (key)
        cross join lateral (
            select n.word from private.name_keys as n
            where n.owner_id = similar_words.owner_id and n.key = t.key
            limit 1000
        ) as k
        where char_length(similar_words.asked) >= case when t.key like '$%' then 9 else 4 end
    ) as f
    cross join lateral (select private.word_likeness(similar_words.asked, f.word) as likeness) as l
    where l.likeness > 0
    order by l.likeness desc, f.word
    limit 50;
$$;
comment on function private.similar_words(uuid, text) is
'The words of an owner that are like the one asked for, at most 50, the asked one among them.';

create function private.search_names(query text, scope private.search_scope, max_hits integer)
returns table (file_id uuid, score real)
language plpgsql stable rows 100
security invoker -- called by definers that have the scope from the one predicate
set search_path = ''
-- only ever the indexes that begin with an owner or a file, so that nobody's search reads another owner's rows
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
set enable_memoize = off -- each file is looked up once
set plan_cache_mode = force_generic_plan -- one plan for all: planning would take longer than most searches
as $$
declare
    v_max_files constant integer := 2000;
    v_is_small boolean := cardinality((scope).file_ids) <= v_max_files;
    -- what is shared, or few files, is read file by file
    v_listed uuid[] := case
        when v_is_small then array(
            select f.id from unnest((scope).file_ids) as f (id)
            except
            select f.id from unnest((scope).hidden_file_ids) as f (id)
        )
        when (scope).file_ids is null then (scope).shared_file_ids -- nobody's own, in the trash or not
        else array(
            select f.id from unnest((scope).shared_file_ids) as f (id)
            intersect
            select f.id from unnest((scope).file_ids) as f (id)
        )
    end;
begin
    return query
    with asked as materialized (
        select s.run, s.part, s.word, dense_rank() over (order by s.word collate "C") as no
        from private.split_words(query) as s
        where s.run <= 100
        limit 100
    ), words as materialized (
        select distinct
            a.no, a.word, char_length(a.word) as size, left(a.word, 2) as head, right(a.word, 2) as tail
        from asked as a
    ), filtered as materialized (
        select f.id from unnest((scope).file_ids) as f (id)
    ), hidden as materialized (
        select f.id from unnest((scope).hidden_file_ids) as f (id)
    ), listed as materialized (
        -- words that can be like those asked for; one array of files is read faster than one file after the other
        select n.file_id, n.word, n.weight, n.length
        from private.name_words as n
        where n.file_id = any(v_listed)
            and (
                left(n.word, 2) = any(array(select w.head from words as w))
                or right(n.word, 2) = any(array(select w.tail from words as w where w.size >= 4))
                or left(n.word, 1) = any(array(select w.head from words as w where w.size = 1 and w.word >= '぀'))
                or char_length(n.word) between (select min(w.size) - 2 from words as w where w.size >= 9)
                    and (select max(w.size) + 2 from words as w where w.size >= 9)
            )
    ), spellings as materialized (
        select d.word, left(d.word, 2) as head, right(d.word, 2) as tail, char_length(d.word) as size
        from (select distinct n.word from listed as n) as d
    ), listed_words as materialized (
        select c.no, c.word, l.likeness
        from (
            -- one typo leaves one of the ends as it is
            select w.no, w.word as asked, d.word, w.size, d.size as word_size
            from words as w inner join spellings as d on d.head = w.head
            union
            select w.no, w.word, d.word, w.size, d.size
            from words as w inner join spellings as d on d.tail = w.tail
            where w.size >= 4
            union
            select w.no, w.word, d.word, w.size, d.size
            from words as w inner join spellings as d on d.size between w.size - 2 and w.size + 2
            where w.size >= 9
            union
            select w.no, w.word, d.word, w.size, d.size
            from words as w inner join spellings as d on starts_with(d.word, w.word)
            where w.size = 1 and w.word >= '぀'
        ) as c
        cross join lateral (select private.word_likeness(c.asked, c.word) as likeness) as l
        where (
                starts_with(c.word, c.asked)
                or c.word_size between c.size - 2 and c.size + 2
                and extensions.levenshtein_less_equal(c.asked, c.word, 2) <= 2
            )
            and l.likeness > 0
    ), listed_found as materialized (
        select n.file_id, m.no, max(m.likeness * n.weight) as likeness, max(n.length) as length
        from listed as n inner join listed_words as m on m.word = n.word
        group by n.file_id, m.no
    ),
    -- of the caller's own, the files that have the rarest words
    own_words as materialized (
        select w.no, o.id as owner_id, s.word, s.likeness
        from words as w
        cross join unnest((scope).owner_ids) as o (id)
        cross join lateral private.similar_words(o.id, w.word) as s
        where not coalesce(v_is_small, false)
        order by s.likeness desc
    ), own_sizes as materialized (
        select c.no, c.files, c.entries, sum(c.entries) over by_size as entries_so_far,
            row_number() over by_size as place
        from (
            select w.no, l.entries, l.files
            from words as w
            cross join lateral (
                select count(*) as entries, count(distinct e.file_id) as files
                from (
                    select n.file_id
                    from own_words as m
                    inner join private.name_words as n on n.owner_id = m.owner_id and n.word = m.word
                    where m.no = w.no and n.file_id not in (select h.id from hidden as h)
                    limit v_max_files + 1
                ) as e
            ) as l
        ) as c
        where c.files > 0
        window by_size as (order by c.entries, c.no)
    ), own_files as materialized (
        select c.file_id
        from own_sizes as s
        cross join lateral (
            select n.file_id
            from own_words as m
            inner join private.name_words as n on n.owner_id = m.owner_id and n.word = m.word
            where m.no = s.no
                and ((scope).file_ids is null or n.file_id in (select i.id from filtered as i))
                and n.file_id not in (select h.id from hidden as h)
            limit case when s.entries > v_max_files then v_max_files / 2 else v_max_files end
        ) as c
        where s.entries_so_far <= v_max_files or s.place = 1
        union
        -- when all words are common, what has the two rarest, as far as it goes
        (
            select c.file_id
            from (
                select l.file_id, l.place
                from own_sizes as s
                cross join lateral (
                    select n.file_id, s.place
                    from own_words as m
                    inner join private.name_words as n on n.owner_id = m.owner_id and n.word = m.word
                    where m.no = s.no
                        and ((scope).file_ids is null or n.file_id in (select i.id from filtered as i))
                    limit 5 * v_max_files
                ) as l
                where s.place <= 2 and (select min(t.entries) from own_sizes as t) > v_max_files
            ) as c
            where c.file_id not in (select h.id from hidden as h)
            group by c.file_id
            having min(c.place) < max(c.place)
            limit v_max_files / 2
        )
    ), found as materialized (
        select n.file_id, m.no, max(m.likeness * n.weight) as likeness, max(n.length) as length
        from own_files as f
        inner join private.name_words as n on n.file_id = f.file_id
        inner join own_words as m on m.owner_id = n.owner_id and m.word = n.word
        group by n.file_id, m.no
        union all
        select l.file_id, l.no, l.likeness, l.length from listed_found as l
    ), rarity as materialized (
        -- only what the caller can read counts
        select w.no, 1 / (1 + ln(1 + coalesce(s.files, 0) + coalesce(l.files, 0)))::real as weight,
            coalesce(s.files, l.files, 0) > 0 as is_known
        from words as w
        left join own_sizes as s on s.no = w.no
        left join (
            select f.no, count(*) as files from listed_found as f group by f.no
        ) as l on l.no = w.no
    ), shares as materialized (
        -- a run counts as a whole or by its parts, whichever fits better
        select
            a.run, least(a.part, 1) as way, a.no, r.weight, r.is_known,
            1 / count(*) over (partition by a.run, least(a.part, 1))::real as share
        from asked as a
        inner join rarity as r on r.no = a.no
    ), total as (
        select sum(r.weight) as weight
        from (
            select w.run, coalesce(max(w.weight) filter (where w.is_known), max(w.weight)) as weight
            from (
                select s.run, s.way, sum(s.share * s.weight) as weight, bool_or(s.is_known) as is_known
                from shares as s
                group by s.run, s.way
            ) as w
            group by w.run
        ) as r
    )
    select r.file_id, (
        sum(r.weight) / (select t.weight from total as t)
        -- names that say little else come first
        * (0.75 + 0.25 * least(1, sum(r.words) / max(r.length)))
    )::real as score
    from (
        select w.file_id, w.run, max(w.weight) as weight, max(w.words) as words, max(w.length) as length
        from (
            select f.file_id, s.run, s.way, sum(s.share * s.weight * f.likeness) as weight, count(*) as words,
                max(f.length) as length
            from found as f
            inner join shares as s on s.no = f.no
            group by f.file_id, s.run, s.way
        ) as w
        group by w.file_id, w.run
    ) as r
    group by r.file_id
    order by score desc, r.file_id
    limit max_hits;
end;
$$;
comment on function private.search_names(text, private.search_scope, integer) is
'The files whose names or titles have words of the query, or words like them, at most max_hits. The score, 0 to 1, tells
how much of the query they have; rare words count more, rare among what the caller can read. Callers test the files
with is_readable once more.';

-- Finding files --------------------------------------------------------------------------------

create function private.files_found(query text, scope private.search_scope)
returns table (file_id uuid, score real, place numeric)
language plpgsql stable rows 1000
security invoker -- called by search_files, as its owner
set search_path = ''
set enable_seqscan = off -- whatever the size of the table: never over the rows of others
as $$
begin
    if query <> '' then
        return query
        select s.file_id, s.score, -s.score::numeric from private.search_names(query, scope, 1000) as s;
    elsif (scope).file_ids is not null then
        return query
        select n.id, null::real, -extract(epoch from n.updated_at)
        from unnest((scope).file_ids) as f (id) inner join public.nodes as n on n.id = f.id;
    else
        return query
        select n.id, null::real, -extract(epoch from n.updated_at)
        from public.nodes as n
        where n.owner_id = any((scope).owner_ids) and n.kind = 'file' and n.trashed_at is null
        union all
        select n.id, null::real, -extract(epoch from n.updated_at)
        from unnest((scope).shared_file_ids) as f (id) inner join public.nodes as n on n.id = f.id;
    end if;
end;
$$;
comment on function private.files_found(text, private.search_scope) is
'The files of a scope that are called like a query, or all of them; place orders them: the best, or the newest, first.';

create function private.search_files(query text, filters jsonb, page_size integer, cursor text) returns jsonb
language plpgsql volatile
security definer -- the leg needs indexes that row security would take away; files pass the predicate again
set search_path = ''
as $$
declare
    v_query text := coalesce(btrim(query, e' \t\r\n'), '');
    v_after jsonb := private.decode_cursor(cursor, 'search_files');
    v_scope private.search_scope;
    v_rows jsonb;
begin
    perform private.require_reader();
    if char_length(v_query) > 1000 then
        perform private.raise_invalid('query', 'A query has at most 1000 characters.');
    end if;
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    if v_after ->> 0 !~ '^-?\d{1,15}(\.\d{1,15})?$' then
        perform private.raise_invalid('cursor', 'This cursor is not one that search_files gave.');
    end if;
    perform private.check_filters(coalesce(filters, '{}'), private.filter_types() - '{page_from,page_to}'::text[]);
    perform private.check_search_rate();
    v_scope := private.search_scope(coalesce(filters, '{}'));

    -- one row more than asked tells whether there is a next page
    select coalesce(jsonb_agg(jsonb_build_object('file', p.file, 'place', p.place) order by p.place, p.id), '[]')
    into v_rows
    from (
        select n.id, f.place, to_jsonb(n) || jsonb_build_object(
            'path', private.readable_path(n, v_scope.owner_ids, v_scope.roots), 'score', f.score
        ) as file
        from private.files_found(v_query, v_scope) as f
        inner join public.nodes as n on n.id = f.file_id
        where (v_after is null or (f.place, n.id) > ((v_after ->> 0)::numeric, (v_after ->> 1)::uuid))
            and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
            and (v_scope.languages is null or exists (
                select 1 from public.file_versions as v
                where v.id = n.head_version_id and v.language = any(v_scope.languages)
            ))
        order by f.place, n.id
        limit page_size + 1
    ) as p;
    return jsonb_build_object(
        'items', jsonb_path_query_array(v_rows - page_size, '$[*].file'),
        'next_cursor', case when jsonb_array_length(v_rows) > page_size then replace(encode(convert_to(
            jsonb_build_array(
                v_rows -> (page_size - 1) -> 'place', v_rows -> (page_size - 1) -> 'file' -> 'id', 'search_files'
            )::text, 'UTF8'
        ), 'base64'), e'\n', '') end
    );
end;
$$;
comment on function private.search_files(text, jsonb, integer, text) is 'Behind public.search_files.';
grant execute on function private.search_files(text, jsonb, integer, text) to anon, authenticated;

create function public.search_files(
    query text default null,
    filters jsonb default null,
    page_size integer default 50,
    cursor text default null
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.search_files(query, filters, page_size, cursor); $$;
comment on function public.search_files(text, jsonb, integer, text) is
'Find files by what they are called and by what is noted about them, in all that you can read: {items, next_cursor}.

query: words of the name or of the title, at most 1000 characters; parts of words, typos and other spellings are found
too, the best first, at most 1000 files. Without a query all files that pass the filters, the newest first. filters:
folder_id, file_ids, types (extensions), tags, date_from, date_to (updated_at), owner_ids, languages, source, metadata
(what it contains), kinds (text, image, audio, video). page_size: 1 to 1000. cursor: the next_cursor of the page before.
An item is the file with path and score (0 to 1, how much of the query the name has; null without a query). What is in
files is found by hybrid_search, folders by list_folder. Raises INVALID_ARGUMENT (field query, filters.…, page_size or
cursor), NOT_FOUND for a folder that is not visible, RATE_LIMITED (limit, retry_after), NOT_AUTHENTICATED.';
grant execute on function public.search_files(text, jsonb, integer, text) to anon, authenticated;
