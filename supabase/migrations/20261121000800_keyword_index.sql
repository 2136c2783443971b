-- Keyword index: for each word of an owner, which of their chunks in service have it, kept in the same transaction as
-- the chunks.
--
-- score(q, d) = sum over t in q of qtf(t) * idf(t) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average))
-- with idf(t) = ln(1 + (n - df + 0.5) / (df + 0.5)), k1 = 1.2, b = 0.75: Robertson and Zaragoza, The Probabilistic
-- Relevance Framework (2009); idf and parameters as in Lucene. Those of Anserini (0.9, 0.4) lose 0.01 to 0.03 of
-- nDCG@10 on CISI, Cranfield and ADI, and win 0.006 on Vaswani.
--
-- Postings by (owner, word, file), in a covering index. A search reads the entries of its own words and nothing else:
-- at 100,000 chunks of one owner half the time of a scan over a sparse vector per chunk, at 1,000,000 far less. They
-- hold frequencies and lengths instead of weights, so scores are exact whatever the average length has become, nothing
-- is ever renewed, document frequencies are counted from what is scored, and beginnings of words are ranges.

create function private.text_config(language text) returns regconfig
language sql immutable parallel safe
return case language
    when 'ar' then 'pg_catalog.arabic' when 'ca' then 'pg_catalog.catalan' when 'da' then 'pg_catalog.danish'
    when 'de' then 'pg_catalog.german' when 'el' then 'pg_catalog.greek' when 'en' then 'pg_catalog.english'
    when 'es' then 'pg_catalog.spanish' when 'eu' then 'pg_catalog.basque' when 'fi' then 'pg_catalog.finnish'
    when 'fr' then 'pg_catalog.french' when 'ga' then 'pg_catalog.irish' when 'hi' then 'pg_catalog.hindi'
    when 'hu' then 'pg_catalog.hungarian' when 'hy' then 'pg_catalog.armenian' when 'id' then 'pg_catalog.indonesian'
    when 'it' then 'pg_catalog.italian' when 'lt' then 'pg_catalog.lithuanian' when 'nb' then 'pg_catalog.norwegian'
    when 'ne' then 'pg_catalog.nepali' when 'nl' then 'pg_catalog.dutch' when 'nn' then 'pg_catalog.norwegian'
    when 'no' then 'pg_catalog.norwegian' when 'pt' then 'pg_catalog.portuguese'
    when 'ro' then 'pg_catalog.romanian' when 'ru' then 'pg_catalog.russian' when 'sr' then 'pg_catalog.serbian'
    when 'sv' then 'pg_catalog.swedish' when 'ta' then 'pg_catalog.tamil' when 'tr' then 'pg_catalog.turkish'
    when 'yi' then 'pg_catalog.yiddish'
    else 'pg_catalog.simple'
end::regconfig;
comment on function private.text_config(text) is
'PostgreSQL''s own stemmer for a language (ISO 639-1), simple where there is none.';

create function private.stemmer(language text) returns regdictionary
language sql immutable parallel safe
return case language
    when 'ar' then 'pg_catalog.arabic_stem' when 'ca' then 'pg_catalog.catalan_stem'
    when 'da' then 'pg_catalog.danish_stem' when 'de' then 'pg_catalog.german_stem'
    when 'el' then 'pg_catalog.greek_stem' when 'en' then 'pg_catalog.english_stem'
    when 'es' then 'pg_catalog.spanish_stem' when 'eu' then 'pg_catalog.basque_stem'
    when 'fi' then 'pg_catalog.finnish_stem' when 'fr' then 'pg_catalog.french_stem'
    when 'ga' then 'pg_catalog.irish_stem' when 'hi' then 'pg_catalog.hindi_stem'
    when 'hu' then 'pg_catalog.hungarian_stem' when 'hy' then 'pg_catalog.armenian_stem'
    when 'id' then 'pg_catalog.indonesian_stem' when 'it' then 'pg_catalog.italian_stem'
    when 'lt' then 'pg_catalog.lithuanian_stem' when 'nb' then 'pg_catalog.norwegian_stem'
    when 'ne' then 'pg_catalog.nepali_stem' when 'nl' then 'pg_catalog.dutch_stem'
    when 'nn' then 'pg_catalog.norwegian_stem' when 'no' then 'pg_catalog.norwegian_stem'
    when 'pt' then 'pg_catalog.portuguese_stem' when 'ro' then 'pg_catalog.romanian_stem'
    when 'ru' then 'pg_catalog.russian_stem' when 'sr' then 'pg_catalog.serbian_stem'
    when 'sv' then 'pg_catalog.swedish_stem' when 'ta' then 'pg_catalog.tamil_stem'
    when 'tr' then 'pg_catalog.turkish_stem' when 'yi' then 'pg_catalog.yiddish_stem'
    else 'pg_catalog.simple'
end::regdictionary;
comment on function private.stemmer(text) is 'The dictionary of text_config for words in the language''s own script.';

create function private.stems(word text, language text) returns text[]
language sql immutable parallel safe
return ts_lexize(
    case
        -- Latin words in these are English, as PostgreSQL's own configurations have it
        when language in ('hi', 'ru') and word ~ '^[a-z]' then 'pg_catalog.english_stem'
        else private.stemmer(language)
    end,
    word
);
comment on function private.stems(text, text) is
'What a dictionary says of a folded word: its stem, null where it does not know the word, {} for a stop word.';

create function private.stem(word text, language text) returns text
language sql immutable parallel safe
return coalesce((ts_lexize(private.stemmer(language), word))[1], word);
comment on function private.stem(text, text) is 'The stem of a folded word; of words too common to index, themselves.';

create function private.fold(content text) returns text
language sql immutable parallel safe
set search_path = ''
as $$
    -- what nobody sees or types: soft hyphens, tatweel, joiners, marks of direction, control characters but white space
    select case
        -- in ASCII only the last of it can be; it takes a quarter of the time
        when octet_length(fold.content) = char_length(fold.content) then regexp_replace(
            lower(fold.content collate pg_c_utf8), '[\u0001-\u0008\u000e-\u001f\u007f]+', '', 'g'
        )
        else regexp_replace(
            translate(
                lower(
                    -- most text is normal already, and to see that takes a third of the time
                    case when fold.content is nfkc normalized then fold.content else normalize(fold.content, nfkc) end
                    collate pg_c_utf8
                ),
                '‐‑‒–−’', '-----'''
            ),
            '[\u00ad\u0640\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u0001-\u0008\u000e-\u001f\u007f]+',
            '', 'g'
        )
    end;
$$;
comment on function private.fold(text) is
'A text for comparison: compatibility forms, letter case and hyphens made one, invisible characters dropped. The same
in every locale.';

create function private.unspaced_class(script text default null) returns text
language sql immutable parallel safe
return '['
|| case when script is distinct from 'east' then '\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff' else '' end
|| case when script is distinct from 'south' then '\u3005-\u3007\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf' else '' end
|| case when script is distinct from 'south' then '\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff' else '' end
|| ']';
comment on function private.unspaced_class(text) is
'Characters of writing that does not keep words apart, for a regular expression: east (Chinese, Japanese, Korean),
south (Thai, Lao, Burmese, Khmer), or both.';

create function private.grams(run text, is_query boolean) returns setof text
language sql immutable parallel safe
set search_path = ''
as $$
    -- a run ends in shorter pieces, so that each of its characters begins one: a range of the index finds a query
    -- that is shorter than a piece
    select substr(grams.run, i, n.length)
    from (select case when grams.run ~ ('^' || private.unspaced_class('east')) then 2 else 3 end as length) as n
    cross join lateral generate_series(
        1,
        case
            when grams.is_query then greatest(char_length(grams.run) - n.length + 1, 1)
            else char_length(grams.run)
        end
    ) as i;
$$;
comment on function private.grams(text, boolean) is
'Overlapping pieces of a run of unspaced writing: pairs of Chinese, Japanese and Korean, three characters otherwise.';

create function private.lexemes(content text, language text, is_query boolean default false)
returns table (lexeme text, frequency integer)
language sql immutable parallel safe
set search_path = ''
as $$
    with folded as materialized (
        select private.fold(lexemes.content) as text
    ), spaced as (
        -- not PostgreSQL's parser, whose words depend on the locale: it breaks "ISO-27001" and long words of Hindi
        select regexp_replace(f.text, '[[:space:][:punct:][:cntrl:]$+<=>^`|~]+' collate pg_c_utf8, ' ', 'g') as text
        from folded as f
    ), separated as (
        select case
            when s.text ~ private.unspaced_class() then regexp_replace(
                s.text, format('(%s+|%s+)', private.unspaced_class('east'), private.unspaced_class('south')), ' \1 ', 'g'
            )
            else s.text
        end as text
        from spaced as s
    ), words as (
        select w.word, count(*) as frequency, w.word ~ ('^' || private.unspaced_class()) as is_unspaced
        from separated as s cross join lateral string_to_table(s.text, ' ') as w (word)
        where w.word <> ''
        group by w.word
    ), found as (
        select coalesce(d.stems[1], w.word) as lexeme, w.frequency
        from words as w
        cross join lateral (
            select private.stems(w.word, lexemes.language) as stems
        ) as d
        where not w.is_unspaced and d.stems is distinct from '{}' -- a stop word
        union all
        select g.gram, w.frequency
        from words as w cross join lateral private.grams(w.word, lexemes.is_query) as g (gram)
        where w.is_unspaced
        union all
        -- names and identifiers as written, beside their parts
        select m[1], 1
        from folded as f
        cross join lateral regexp_matches(
            f.text,
            '([[:alnum:]]+(?:(?:[-_./@:+#&\\]+|,(?=[0-9]))[[:alnum:]]+)+|[[:alnum:]]+(?:\+\+|#))' collate pg_c_utf8,
            'g'
        ) as m
    )
    select left(f.lexeme, 128), sum(f.frequency)::integer from found as f group by 1;
$$;
comment on function private.lexemes(text, text, boolean) is
'The terms of a text and how often each occurs: stems by language, pieces of writing without spaces, and whatever is
joined by - _ . / @ : + # & also as written.';

create table private.owner_statistics (
    owner_id uuid primary key references public.owners on delete cascade,
    chunk_count bigint not null default 0,
    total_length bigint not null default 0,
    languages text[] not null default '{}'
);
comment on table private.owner_statistics is 'Size of an owner''s keyword index: the sums of indexed_files.';
comment on column private.owner_statistics.total_length is 'Terms in all chunks in service, repetitions counted.';
comment on column private.owner_statistics.languages is
'Languages that chunks in service have or had, '''' where it is unknown: a query is stemmed in each.';
alter table private.owner_statistics enable row level security;

create table private.indexed_files (
    file_id uuid primary key references public.nodes on delete cascade,
    owner_id uuid not null,
    version_id uuid not null,
    chunk_count integer not null,
    total_length bigint not null,
    languages text[] not null,
    last_page integer,
    sketches integer[] not null
);
comment on table private.indexed_files is 'Files in the keyword index, with the version that is in service.';
comment on column private.indexed_files.version_id is
'An entry of chunk_terms means the chunk of this version with its idx.';
comment on column private.indexed_files.chunk_count is 'Chunks that have terms.';
comment on column private.indexed_files.last_page is
'The highest page of its chunks, 0 when they have none; null: unknown.';
comment on column private.indexed_files.sketches is
'Six numbers a chunk, from 6 * idx + 1: the three smallest and the three largest hashes of its terms, ascending. Chunks
with nearly the same words have nearly the same.';
-- what filters on chunks need to know of files, without their sketches
create index indexed_files_owner_id_idx on private.indexed_files (owner_id)
include (file_id, languages, last_page);
alter table private.indexed_files enable row level security;

create table private.chunk_terms (
    owner_id uuid not null,
    lexeme text not null collate "C",
    file_id uuid not null,
    part smallint not null check (part >= 0),
    entries bigint[] not null,
    primary key (owner_id, lexeme, file_id, part) include (entries)
);
comment on table private.chunk_terms is
'The keyword index: the chunks of a file that have a term. Written together with indexed_files, and gone with its row.';
comment on column private.chunk_terms.part is 'idx / 128: an index tuple holds about 300 entries.';
comment on column private.chunk_terms.entries is
'One number a chunk, ascending: idx * 2^40 + frequency of the term in it * 2^24 + terms of the chunk altogether.';
-- in the tuple itself, not compressed
alter table private.chunk_terms alter entries set storage plain;
-- a search reads the index alone where the visibility map allows it
alter table private.chunk_terms set (autovacuum_vacuum_insert_scale_factor = 0.05);
-- For those who want all of a file, and say part >= 0, which is always so. Searches do not say it: for a range of an
-- owner's files a planner with old statistics could read this index, and with it what others have between.
create index chunk_terms_file_id_idx on private.chunk_terms (file_id) where part >= 0;
alter table private.chunk_terms enable row level security;

create function private.lock_statistics(owner_id uuid) returns private.owner_statistics
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_statistics private.owner_statistics;
begin
    -- changes of one owner's index queue up here, so postings are never locked in two orders
    insert into private.owner_statistics (owner_id) values (lock_statistics.owner_id) on conflict do nothing;
    select s.* into v_statistics
    from private.owner_statistics as s
    where s.owner_id = lock_statistics.owner_id
    for update;
    return v_statistics;
end;
$$;
comment on function private.lock_statistics(uuid) is 'An owner''s statistics, locked until the transaction ends.';

create function private.index_chunks(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_id uuid;
    v_file_id uuid;
begin
    select n.owner_id, n.id into v_owner_id, v_file_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = index_chunks.version_id;
    perform private.lock_statistics(v_owner_id);

    with found as materialized (
        select c.idx, c.language, c.page, l.lexeme, least(l.frequency, 65535) as frequency
        from public.chunks as c
        cross join lateral private.lexemes(concat_ws(e'\n', c.context, c.content), c.language) as l
        where c.version_id = index_chunks.version_id
    ), chunks as materialized (
        select
            f.idx, f.language, f.page, least(sum(f.frequency), 16777215) as length,
            array_agg(hashtext(f.lexeme) order by hashtext(f.lexeme)) as hashes
        from found as f
        group by f.idx, f.language, f.page
    ), served as (
        insert into private.indexed_files (
            file_id, owner_id, version_id, chunk_count, total_length, languages, last_page, sketches
        )
        select
            v_file_id, v_owner_id, index_chunks.version_id, count(c.idx), coalesce(sum(c.length), 0),
            coalesce(array_agg(distinct coalesce(c.language, '')), '{}'),
            coalesce(max(c.page), 0),
            coalesce((
                select array_agg(s.hash order by i, s.position)
                from (select max(m.idx) as last from chunks as m) as m
                cross join lateral generate_series(0, m.last) as i
                left join chunks as t on t.idx = i
                cross join lateral (values
                    (1, t.hashes[1]), (2, t.hashes[2]), (3, t.hashes[3]),
                    (4, t.hashes[cardinality(t.hashes) - 2]), (5, t.hashes[cardinality(t.hashes) - 1]),
                    (6, t.hashes[cardinality(t.hashes)])
                ) as s (position, hash)
            ), '{}')
        from chunks as c
    )
    insert into private.chunk_terms (owner_id, lexeme, file_id, part, entries)
    select
        v_owner_id, f.lexeme, v_file_id, f.idx / 128,
        array_agg(((f.idx::bigint << 40) | (f.frequency::bigint << 24) | c.length::bigint) order by f.idx)
    from found as f inner join chunks as c on c.idx = f.idx
    group by f.lexeme, f.idx / 128
    order by f.lexeme collate "C"; -- neighbours in the index
end;
$$;
comment on function private.index_chunks(uuid) is 'Puts the chunks of a version into the keyword index.';

create function private.tg_indexed_files__count() returns trigger
language plpgsql volatile
security definer -- runs for whoever adds or deletes
set search_path = ''
as $$
declare
    v_change record;
begin
    if tg_op = 'DELETE' then
        if not exists (select 1 from gone) then
            return null; -- a version that was not in service
        end if;
        delete from private.chunk_terms as t using gone as g where t.file_id = g.file_id and t.part >= 0;
    end if;
    for v_change in execute format(
        $statement$
            select
                c.owner_id, sum(c.sign * c.chunk_count) as chunk_count, sum(c.sign * c.total_length) as total_length,
                array(
                    select distinct l
                    from %1$s as x cross join lateral unnest(x.languages) as l
                    where x.owner_id = c.owner_id
                ) as languages
            from (%2$s) as c
            inner join public.owners as o on o.id = c.owner_id -- a deleted owner takes its statistics along
            group by c.owner_id
            order by c.owner_id
        $statement$,
        case tg_op when 'DELETE' then 'gone' else 'added' end,
        case tg_op
            when 'INSERT' then 'select 1 as sign, a.* from added as a'
            when 'DELETE' then 'select -1 as sign, g.* from gone as g'
            else 'select 1 as sign, a.* from added as a union all select -1, g.* from gone as g'
        end
    ) loop
        perform private.lock_statistics(v_change.owner_id);
        update private.owner_statistics as s
        set
            chunk_count = s.chunk_count + v_change.chunk_count,
            total_length = s.total_length + v_change.total_length,
            languages = array(select distinct l from unnest(s.languages || v_change.languages) as l order by l)
        where s.owner_id = v_change.owner_id;
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_indexed_files__count() is
'Keeps the statistics equal to what is in service, whatever inserts or deletes, cascades included.';

create trigger _500_count_inserted
after insert on private.indexed_files
referencing new table as added
for each statement execute function private.tg_indexed_files__count();

create trigger _500_count_updated
after update on private.indexed_files
referencing old table as gone new table as added
for each statement execute function private.tg_indexed_files__count();

create trigger _500_count_deleted
after delete on private.indexed_files
referencing old table as gone
for each statement execute function private.tg_indexed_files__count();

-- In and out of service ------------------------------------------------------------------------

create function private.serve_version(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if not exists (
        select 1
        from public.file_versions as v inner join private.indexed_files as f on f.file_id = v.file_id
        where v.id = serve_version.version_id and f.version_id = v.id
    ) then
        perform private.index_chunks(version_id);
    end if;
    insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)
    select j.space_id, n.owner_id, n.id, c.id, t.embedding
    from public.ingest_jobs as j
    inner join public.nodes as n on n.id = j.file_id
    inner join public.chunks as c on c.version_id = j.version_id
    inner join private.text_vectors as t
        on t.owner_id = n.owner_id and t.space_id = j.space_id and t.text_hash = c.text_hash
    inner join public.embedding_spaces as s on s.id = j.space_id and s.state <> 'retiring'
    where j.version_id = serve_version.version_id and j.stage = 'embed_text' and j.state = 'done'
    on conflict do nothing;
    perform private.serve_pictures(version_id);
end;
$$;
comment on function private.serve_version(uuid) is
'Puts a version''s chunks into the keyword index, and its vectors of every finished space into the serving table.';

create function private.unserve_version(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    -- statistics before the rest, as whoever indexes
    perform private.lock_statistics(n.owner_id)
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = unserve_version.version_id;
    delete from private.indexed_files as f
    using public.file_versions as v
    where v.id = unserve_version.version_id and f.file_id = v.file_id and f.version_id = v.id;
    delete from private.chunk_vectors as e
    using public.chunks as c
    where c.version_id = unserve_version.version_id and e.chunk_id = c.id;
    perform private.unserve_pictures(version_id);
end;
$$;
comment on function private.unserve_version(uuid) is 'Takes a version out of both legs of search.';

create function private.advance_version(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_version public.file_versions;
    v_head public.file_versions;
    v_is_complete boolean;
    v_is_empty boolean;
    v_is_silent boolean;
begin
    select v.* into v_version from public.file_versions as v where v.id = advance_version.version_id;
    select h.* into v_head
    from public.nodes as n inner join public.file_versions as h on h.id = n.head_version_id
    where n.id = v_version.file_id;
    v_is_complete := not exists (
        select 1 from public.ingest_jobs as j
        where j.version_id = v_version.id and j.state <> 'done' and private.is_required(j.stage, j.space_id)
    );

    if v_is_complete and private.is_reread(version_id) then
        perform private.finish_reread(version_id);
    end if;

    -- the first version serves by keyword as soon as it has chunks, a later one only when nothing is missing
    if v_head.id is null or v_head.id = v_version.id or (v_is_complete and v_version.no > v_head.no) then
        if v_head.id <> v_version.id then
            perform private.unserve_version(v_head.id);
        end if;
        update public.nodes as n
        set head_version_id = v_version.id
        where n.id = v_version.file_id and n.head_version_id is distinct from v_version.id;
        perform private.serve_version(v_version.id);
    end if;
    if v_is_complete then
        v_is_empty := not exists (select 1 from public.chunks as c where c.version_id = v_version.id)
            and not exists (select 1 from private.page_vectors as t where t.file_id = v_version.file_id);
        v_is_silent := v_is_empty
            and exists (select 1 from public.transcripts as t where t.version_id = v_version.id);
        perform private.set_version_status(
            v_version.id, 'ready',
            case when v_is_silent then 'no_speech' when v_is_empty then 'no_text' end,
            case
                when v_is_silent then 'Nobody is understood in this recording.'
                when v_is_empty then 'There is no text in this file.'
            end
        );
    end if;
end;
$$;
comment on function private.advance_version(uuid) is
'After a stage: makes the version the head, and ready, when it may be. One transaction, so search never sees half.';

create function private.serve_unread(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_version public.file_versions;
    v_head public.file_versions;
begin
    select v.* into v_version from public.file_versions as v where v.id = serve_unread.version_id;
    select h.* into v_head
    from public.nodes as n inner join public.file_versions as h on h.id = n.head_version_id
    where n.id = v_version.file_id;
    if v_head.no > v_version.no then
        return; -- a later version was faster
    end if;
    if v_head.id is not null then
        perform private.unserve_version(v_head.id);
    end if;
    update public.nodes as n set head_version_id = v_version.id where n.id = v_version.file_id;
end;
$$;
comment on function private.serve_unread(uuid) is
'Makes a version that nothing can read the head: it is what the file holds now, found by name only.';
