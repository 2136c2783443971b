-- The index of names: the words of files' names and titles, so that they are found in spite of typos.
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
