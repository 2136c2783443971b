-- The name leg of search: files by the words of their names and of their titles, forgiving typos.
--
-- Words stand under their owner, so that nobody's search reads another owner's entries; what is shared is read file by
-- file. Which words an owner has, and which differ from a mistyped one, is looked up by keys: what is left of the
-- beginning (and of the end) of a word when one letter is taken out. Two words that differ by one typo have such a key
-- in common, and so have long words that differ by two, since one of their ends has at most one of them.

create extension if not exists fuzzystrmatch with schema extensions;

create table private.name_words (
    file_id uuid not null,
    word text collate "C" not null,
    owner_id uuid not null,
    weight real not null,
    length smallint not null,
    primary key (file_id, word) include (owner_id, weight, length)
);
comment on table private.name_words is
'The words of the names and titles of files, also of those in the trash. Triggers on nodes keep it.';
comment on column private.name_words.weight is '1 in the name, 0.6 in the title only, 0.5 as the extension.';
comment on column private.name_words.length is 'How many words the name has.';
create index name_words_owner_id_word_idx on private.name_words (owner_id, word, file_id);
alter table private.name_words enable row level security;

create table private.name_keys (
    owner_id uuid not null references public.owners on delete cascade,
    key text collate "C" not null,
    word text collate "C" not null,
    id bigint generated always as identity,
    primary key (owner_id, key, word, id)
);
comment on table private.name_keys is
'Which words an owner''s names have, by what a mistyped word has in common with them. Rows may be double, and may stay
for a while when a word is gone: nobody who names a file waits for another.';
comment on column private.name_keys.key is
'"=" and the word; "^" and its first five letters without one of them; "$" and its last five without one of them.';
alter table private.name_keys enable row level security;

create table private.forgotten_words (
    owner_id uuid not null references public.owners on delete cascade,
    word text collate "C" not null,
    id bigint generated always as identity,
    primary key (owner_id, word, id)
);
comment on table private.forgotten_words is
'Words that names have lost: private.forget_names removes their keys when no other name of the owner has them.';
alter table private.forgotten_words enable row level security;

-- Words ----------------------------------------------------------------------------------------

create function private.fold_words(phrase text) returns text
language sql immutable parallel safe
set search_path = ''
as $$
    -- what is taken apart gets U+0001 between its parts, then case, accents and forms of the same letter go
    select replace(replace(replace(replace(translate(normalize(
        regexp_replace(
            normalize(lower(regexp_replace(
                normalize(left(phrase, 1000), nfc) collate pg_c_utf8,
                '(?<=[[:lower:]])(?=[[:upper:]])|(?<=[[:upper:]])(?=[[:upper:]][[:lower:]])'
                '|(?<=[[:alpha:]])(?=[[:digit:]])|(?<=[[:digit:]])(?=[[:alpha:]])',
                e'\u0001', 'g'
            )), nfkd),
            '[\u0300-\u036f]', '', 'g'
        ), nfc
    ), 'øłđıŀħ', 'oldilh'), 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe'), 'þ', 'th');
$$;
comment on function private.fold_words(text) is
'A phrase without case and accents, and U+0001 where a word can be taken apart: reportFinal, iso27001.';

create function private.split_words(phrase text) returns table (run integer, part integer, word text)
language sql immutable rows 8
set search_path = ''
as $$
    with runs as (
        select r.run, r.no::integer
        from regexp_split_to_table(
            -- scripts without spaces are words of their own
            regexp_replace(
                private.fold_words(split_words.phrase),
                '([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)', ' \1 ', 'g'
            ) collate pg_c_utf8,
            -- the marks of other scripts belong to their letters
            '[^[:alnum:]\u0001\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u1cff\u3099\u309a]+'
        ) with ordinality as r (run, no)
        where r.run <> ''
    )
    select r.no, 0, left(replace(r.run, e'\u0001', ''), 64)
    from runs as r
    where r.run !~ '^[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{3}'
        and r.run <> e'\u0001'
    union all
    select r.no, p.no::integer, left(p.part, 64)
    from runs as r
    cross join lateral string_to_table(r.run, e'\u0001') with ordinality as p (part, no)
    where strpos(r.run, e'\u0001') > 0 and p.part <> '' and r.run <> e'\u0001'
    union all
    select r.no, i, substr(r.run, i, 2)
    from runs as r
    cross join generate_series(1, char_length(r.run) - 1) as i
    where r.run ~ '^[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{3}';
$$;
comment on function private.split_words(text) is
'The words of a phrase: each run of letters and digits as a whole (part 0), and its parts where case or kind changes;
of scripts without spaces, pairs of characters.';

create function private.words_of_file(name text, title text) returns table (word text, weight real, length smallint)
language sql immutable rows 8
set search_path = ''
as $$
    select
        w.word, max(w.weight),
        greatest(sum(bool_or(w.is_counted)::integer) over (), 1)::smallint
    -- as split_name does
    from (
        select regexp_match(words_of_file.name, '^(.+?)(\.(?:tar\.)?[^.\s]{1,16})$') as parts
    ) as s
    cross join lateral (
        select n.word, 1::real as weight, n.part > 0 or count(*) over (partition by n.run) = 1 as is_counted
        from private.split_words(coalesce(s.parts[1], words_of_file.name)) as n
        union all
        select t.word, 0.6, false
        from private.split_words(left(words_of_file.title, 300)) as t
        where words_of_file.title is not null
        union all
        select e.word, 0.5, false
        from string_to_table(lower(s.parts[2]), '.') as e (word)
        where e.word <> ''
    ) as w
    group by w.word;
$$;
comment on function private.words_of_file(text, text) is 'What name_words has of a file, besides its ids.';

create function private.title_of(version_id uuid) returns text
language sql stable
security invoker
set search_path = ''
as $$
    -- the first heading of the first page
    select p.layout -> 'headings' -> 0 ->> 2
    from public.pages as p
    where p.version_id = title_of.version_id
    order by p.page
    limit 1;
$$;
comment on function private.title_of(uuid) is 'The title of a document: the first heading on its first page, or null.';

create function private.typo_keys(word text) returns text[]
language sql immutable parallel safe
-- of shorter words there is also the word itself
return case when char_length(word) < 3 or word ~ '\d' then '{}' else array[
    '^' || overlay(left(word, 5) placing '' from 1 for 1),
    '^' || overlay(left(word, 5) placing '' from 2 for 1),
    '^' || overlay(left(word, 5) placing '' from 3 for 1),
    '^' || overlay(left(word, 5) placing '' from 4 for 1),
    '^' || overlay(left(word, 5) placing '' from 5 for 1)
] || case when char_length(word) < 7 then '{}' else array[
    '$' || overlay(right(word, 5) placing '' from 1 for 1),
    '$' || overlay(right(word, 5) placing '' from 2 for 1),
    '$' || overlay(right(word, 5) placing '' from 3 for 1),
    '$' || overlay(right(word, 5) placing '' from 4 for 1),
    '$' || overlay(right(word, 5) placing '' from 5 for 1)
] end end;
comment on function private.typo_keys(text) is
'What a word has in common with those that are like it. A typo in a number makes another number.';

create function private.word_likeness(asked text, word text) returns real
language sql immutable parallel safe
set search_path = ''
as $$
    select case
        when asked = word then 1
        when starts_with(word, asked) and (char_length(asked) >= 3 or asked >= '぀')
            then 0.9 * sqrt(char_length(asked)::real / char_length(word))
        when char_length(asked) < 4 or asked ~ '\d' or word ~ '\d'
            or abs(char_length(asked) - char_length(word)) > 2 then 0
        else (
            select case
                when t.typos <= case when char_length(asked) < 9 then 1 else 2 end
                    then 0.9 * (1 - t.typos::real / greatest(char_length(asked), char_length(word)))
                else 0
            end
            from (
                select case
                    -- two letters in the wrong order are one typo
                    when l.distance = 2 and char_length(asked) = char_length(word) and exists (
                        select 1 from generate_series(1, char_length(asked) - 1) as i
                        where overlay(
                            asked placing reverse(substr(asked, i, 2)) from i for 2
                        ) = word
                    ) then 1
                    else l.distance
                end as typos
                from (select extensions.levenshtein_less_equal(asked, word, 2) as distance) as l
            ) as t
        )
    end;
$$;
comment on function private.word_likeness(text, text) is
'How much a word is what was asked for: 1 the same, below 0.9 when it begins so or is mistyped (one typo from 4 letters
on, two from 9 on), else 0.';

-- The index ------------------------------------------------------------------------------------

create function private.lock_names(file_ids uuid[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    select pg_advisory_xact_lock_shared(hashtextextended('names:' || o.owner_id, 0))
    from (
        select distinct n.owner_id from public.nodes as n where n.id = any(lock_names.file_ids) order by n.owner_id
    ) as o;
$$;
comment on function private.lock_names(uuid[]) is
'Keeps forget_names from the words of the owners of these files. Those who name files hold it side by side.';

create function private.add_name_keys(owner_ids uuid[], words text[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.name_keys (owner_id, key, word)
    select w.owner_id, k.key, w.word
    from (select distinct u.owner_id, u.word from unnest(owner_ids, words) as u (owner_id, word)) as w
    cross join lateral unnest(array['=' || w.word] || private.typo_keys(w.word)) as k (key)
    where not exists (
        select 1
        from private.name_keys as x
        where x.owner_id = w.owner_id and x.key = '=' || w.word and x.word = w.word
    );
$$;
comment on function private.add_name_keys(uuid[], text[]) is
'Makes words known among their owners'' words. The caller holds lock_names.';

create function private.remove_names(file_ids uuid[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    with gone as (
        delete from private.name_words as w where w.file_id = any(remove_names.file_ids)
        returning w.owner_id, w.word
    )
    insert into private.forgotten_words (owner_id, word)
    select distinct g.owner_id, g.word
    from gone as g
    inner join public.owners as o on o.id = g.owner_id; -- a deleted owner takes its words along
$$;
comment on function private.remove_names(uuid[]) is 'Takes files out of the index of names.';

create function private.index_names(file_ids uuid[]) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_ids uuid[];
    v_words text[];
begin
    perform private.lock_names(file_ids);
    with made as (
        insert into private.name_words (file_id, word, owner_id, weight, length)
        select n.id, w.word, n.owner_id, w.weight, w.length
        from public.nodes as n
        cross join lateral private.words_of_file(
            n.name, case when n.head_version_id is not null then private.title_of(n.head_version_id) end
        ) as w
        where n.id = any(file_ids) and n.kind = 'file'
        returning owner_id, word
    )
    select array_agg(m.owner_id), array_agg(m.word) into v_owner_ids, v_words from made as m;
    perform private.add_name_keys(v_owner_ids, v_words);
end;
$$;
comment on function private.index_names(uuid[]) is
'Puts files into the index of names that are not there, as they are called now.';

create function private.tg_nodes__index_names() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_ids uuid[];
begin
    if tg_op = 'DELETE' then
        perform private.remove_names(array(select g.id from gone as g where g.kind = 'file'));
    elsif tg_op = 'INSERT' then
        perform private.index_names(array(select m.id from made as m where m.kind = 'file'));
    else
        -- "except" looks each row up by hash, however many they are; mostly there is nothing
        v_ids := array(
            select c.id
            from (
                select m.id, m.owner_id from made as m where m.kind = 'file'
                except all
                select g.id, g.owner_id from gone as g
            ) as c
        );
        if v_ids <> '{}' then
            update private.name_words as w
            set owner_id = n.owner_id
            from public.nodes as n
            where w.file_id = any(v_ids) and n.id = w.file_id and n.owner_id <> w.owner_id;
            insert into private.forgotten_words (owner_id, word)
            select distinct g.owner_id, w.word
            from gone as g inner join private.name_words as w on w.file_id = g.id
            where g.id = any(v_ids);
            perform private.lock_names(v_ids);
            perform private.add_name_keys(array_agg(w.owner_id), array_agg(w.word))
            from private.name_words as w
            where w.file_id = any(v_ids);
        end if;
        v_ids := array(
            select c.id
            from (
                select m.id, m.name, m.head_version_id from made as m where m.kind = 'file'
                except all
                select g.id, g.name, g.head_version_id from gone as g
            ) as c
        );
        if v_ids <> '{}' then
            perform private.remove_names(v_ids);
            perform private.index_names(v_ids);
        end if;
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_nodes__index_names() is
'Keeps the index of names as files are made, renamed, given to others, read and deleted; moves and the trash leave it.';

create trigger _600_index_names_insert
after insert on public.nodes
referencing new table as made
for each statement execute function private.tg_nodes__index_names();

create trigger _600_index_names_update
after update on public.nodes
referencing old table as gone new table as made
for each statement execute function private.tg_nodes__index_names();

create trigger _600_index_names_delete
after delete on public.nodes
referencing old table as gone
for each statement execute function private.tg_nodes__index_names();

create function private.tg_pages__index_names() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    -- a head that is read again; of others the title comes when they become the head
    v_ids uuid[] := array(
        select distinct n.id
        from made as m inner join public.nodes as n on n.head_version_id = m.version_id
    );
begin
    if v_ids <> '{}' then
        perform private.remove_names(v_ids);
        perform private.index_names(v_ids);
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_pages__index_names() is 'Takes the title anew when a file is read again.';

create trigger _600_index_names
after insert on public.pages
referencing new table as made
for each statement execute function private.tg_pages__index_names();

create function private.forget_names(max_words integer) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_id uuid;
    v_words text[];
    v_count integer := 0;
begin
    select f.owner_id into v_owner_id from private.forgotten_words as f order by f.owner_id limit 1;
    -- who names something holds it, shared with others: then it is for the next time
    if v_owner_id is null or not pg_try_advisory_xact_lock(hashtextextended('names:' || v_owner_id, 0)) then
        return 0;
    end if;
    with gone as (
        delete from private.forgotten_words as f
        where f.owner_id = v_owner_id and f.id = any(array(
            select l.id from private.forgotten_words as l
            where l.owner_id = v_owner_id order by l.word limit max_words
        ))
        returning f.word
    )
    select array_agg(distinct g.word), count(*) into v_words, v_count from gone as g;
    delete from private.name_keys as k
    using (
        select u.word from unnest(v_words) as u (word)
        where not exists (
            select 1 from private.name_words as w where w.owner_id = v_owner_id and w.word = u.word
        )
    ) as f
    cross join lateral unnest(array['=' || f.word] || private.typo_keys(f.word)) as t (key)
    where k.owner_id = v_owner_id and k.key = t.key and k.word = f.word;
    return v_count;
end;
$$;
comment on function private.forget_names(integer) is
'Removes what is left of words that no name of their owner has any more; how many it looked at, of one owner.';

-- Search ---------------------------------------------------------------------------------------

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
