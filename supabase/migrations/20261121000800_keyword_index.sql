-- Keyword index: BM25 weights per chunk as sparse vectors, with the statistics of each owner, kept in the same
-- transaction as the chunks in service.
--
-- score(q, d) = sum over t in q of qtf(t) * idf(t) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average))
-- with idf(t) = ln(1 + (n - df + 0.5) / (df + 0.5)), k1 = 0.9, b = 0.4: Robertson and Zaragoza, The Probabilistic
-- Relevance Framework (2009); idf as in Lucene; parameters of Anserini.

create function private.text_config(language text) returns regconfig
language sql immutable parallel safe
return case language
    when 'ar' then 'pg_catalog.arabic' when 'da' then 'pg_catalog.danish' when 'de' then 'pg_catalog.german'
    when 'el' then 'pg_catalog.greek' when 'en' then 'pg_catalog.english' when 'es' then 'pg_catalog.spanish'
    when 'eu' then 'pg_catalog.basque' when 'fi' then 'pg_catalog.finnish' when 'fr' then 'pg_catalog.french'
    when 'ga' then 'pg_catalog.irish' when 'hi' then 'pg_catalog.hindi' when 'hu' then 'pg_catalog.hungarian'
    when 'hy' then 'pg_catalog.armenian' when 'id' then 'pg_catalog.indonesian' when 'it' then 'pg_catalog.italian'
    when 'lt' then 'pg_catalog.lithuanian' when 'ne' then 'pg_catalog.nepali' when 'nl' then 'pg_catalog.dutch'
    when 'no' then 'pg_catalog.norwegian' when 'nb' then 'pg_catalog.norwegian' when 'pt' then 'pg_catalog.portuguese'
    when 'ro' then 'pg_catalog.romanian' when 'ru' then 'pg_catalog.russian' when 'sr' then 'pg_catalog.serbian'
    when 'sv' then 'pg_catalog.swedish' when 'ta' then 'pg_catalog.tamil' when 'tr' then 'pg_catalog.turkish'
    when 'ca' then 'pg_catalog.catalan' when 'yi' then 'pg_catalog.yiddish'
    else 'pg_catalog.simple'
end::regconfig;
comment on function private.text_config(text) is
'PostgreSQL''s own stemmer for a language (ISO 639-1), simple where there is none.';

create function private.unspaced_class() returns text
language sql immutable parallel safe
return
    '[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\u9fff'
    '\uac00-\ud7af\U00020000-\U0003ffff]';
comment on function private.unspaced_class() is
'Characters of writing without spaces between words (Korean counts as such), for a regular expression.';

create function private.stem(word text, language text) returns text
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(d.lexemes[1], stem.word)
    from (
        select ts_lexize((
            case private.text_config(stem.language)::text
                when 'simple' then 'simple' else private.text_config(stem.language)::text || '_stem'
            end
        )::regdictionary, stem.word) as lexemes
    ) as d;
$$;
comment on function private.stem(text, text) is 'The stem of a folded word; of words too common to index, themselves.';

create function private.lexemes(content text, language text) returns table (lexeme text, frequency integer)
language sql immutable
set search_path = ''
as $$
    -- Chinese, Japanese and Korean have no spaces that the parser could use: runs become overlapping pairs
    select t.lexeme, coalesce(cardinality(t.positions), 1)
    from unnest(to_tsvector(
        private.text_config(lexemes.language),
        regexp_replace(
            normalize(lexemes.content, nfkc), '[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+', ' ', 'g'
        )
    )) as t
    union all
    select p.pair, count(*)::integer
    from regexp_matches(
        normalize(lexemes.content, nfkc), '[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+', 'g'
    ) as run (m)
    cross join lateral (
        select substr(run.m[1], i, 2) as pair
        from generate_series(1, greatest(char_length(run.m[1]) - 1, 1)) as i
    ) as p
    group by p.pair;
$$;
comment on function private.lexemes(text, text) is
'The terms of a text and how often each occurs: stems by language, pairs of characters for CJK.';

create function private.term_id(lexeme text) returns integer
language sql immutable parallel safe
return (('x' || left(md5(lexeme), 8))::bit(32)::integer & 536870911) + 1;
comment on function private.term_id(text) is 'Dimension of a term, 1 to 2^29. Collisions are rare and harmless.';

create table private.owner_terms (
    owner_id uuid not null references public.owners on delete cascade,
    term integer not null,
    chunk_count integer not null,
    primary key (owner_id, term)
);
comment on table private.owner_terms is 'Document frequency: how many of an owner''s chunks in service have a term.';
alter table private.owner_terms enable row level security;

create table private.owner_statistics (
    owner_id uuid primary key references public.owners on delete cascade,
    chunk_count bigint not null default 0,
    total_length bigint not null default 0,
    weighted_average real not null default 0,
    languages text[] not null default '{}'
);
comment on table private.owner_statistics is 'Size of an owner''s keyword index.';
comment on column private.owner_statistics.total_length is 'Terms in all chunks in service, repetitions counted.';
comment on column private.owner_statistics.weighted_average is
'The average length that the stored weights were computed with; they are renewed when it drifts by a fifth.';
comment on column private.owner_statistics.languages is
'Languages that chunks in service have or had: a query is stemmed in each.';
alter table private.owner_statistics enable row level security;

create table private.chunk_terms (
    chunk_id uuid not null,
    part smallint not null,
    owner_id uuid not null,
    -- by file, not by chunk: a cascade runs once per parent row
    file_id uuid not null references public.nodes on delete cascade,
    language text,
    length integer not null,
    terms integer[] not null,
    frequencies smallint[] not null,
    weights extensions.sparsevec not null,
    primary key (chunk_id, part)
);
comment on table private.chunk_terms is
'Terms of the chunks in service. A chunk with many terms has several rows, since an index tuple holds about 300.';
comment on column private.chunk_terms.length is 'Terms of the whole chunk, repetitions counted.';
comment on column private.chunk_terms.frequencies is 'How often each of terms occurs, in the same order.';
comment on column private.chunk_terms.weights is 'The document side of BM25: dimension = term, value = weight.';
create index chunk_terms_owner_id_file_id_idx on private.chunk_terms (owner_id, file_id) include (chunk_id, weights);
create index chunk_terms_file_id_idx on private.chunk_terms (file_id);
alter table private.chunk_terms enable row level security;

create function private.bm25_weights(terms integer[], frequencies smallint[], length integer, average real)
returns extensions.sparsevec
language sql immutable parallel safe
set search_path = ''
as $$
    select (
        '{' || string_agg(
            t.term || ':' || (
                t.frequency * 1.9 / (t.frequency + 0.9 * (0.6 + 0.4 * bm25_weights.length / bm25_weights.average))
            )::real, ',' order by t.term
        ) || '}/536870912'
    )::extensions.sparsevec
    from unnest(bm25_weights.terms, bm25_weights.frequencies) as t (term, frequency);
$$;
comment on function private.bm25_weights(integer[], smallint[], integer, real) is
'The document side of BM25 for some terms of a chunk; k1 = 0.9, b = 0.4.';

create function private.lock_statistics(owner_id uuid) returns private.owner_statistics
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_statistics private.owner_statistics;
begin
    -- changes of one owner's index queue up here, so term rows are never locked in two orders
    insert into private.owner_statistics (owner_id) values (lock_statistics.owner_id) on conflict do nothing;
    select s.* into v_statistics
    from private.owner_statistics as s
    where s.owner_id = lock_statistics.owner_id
    for update;
    return v_statistics;
end;
$$;
comment on function private.lock_statistics(uuid) is 'An owner''s statistics, locked until the transaction ends.';

create function private.average_length(owner_id uuid, more_chunks bigint default 0, more_length bigint default 0)
returns real
language sql stable
security invoker
set search_path = ''
as $$
    -- "greatest", so that damaged statistics stop no file from being read
    select (
        (greatest(sum(s.total_length), 0) + more_length)::real
        / nullif(greatest(sum(s.chunk_count), 0) + more_chunks, 0)
    )::real
    from private.owner_statistics as s
    where s.owner_id = average_length.owner_id;
$$;
comment on function private.average_length(uuid, bigint, bigint) is
'Average length of an owner''s chunks in service, in terms, once some more are among them; null when there are none.';

create function private.index_chunks(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_id uuid;
begin
    select n.owner_id into v_owner_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = index_chunks.version_id;
    perform private.lock_statistics(v_owner_id);

    with found as materialized (
        -- on a collision of two terms the more frequent one counts
        select c.id as chunk_id, c.file_id, c.language, private.term_id(l.lexeme) as term,
            least(max(l.frequency), 32767)::smallint as frequency
        from public.chunks as c
        cross join lateral private.lexemes(c.content, c.language) as l
        where c.version_id = index_chunks.version_id
        group by c.id, c.file_id, c.language, private.term_id(l.lexeme)
    ), lengths as materialized (
        select f.chunk_id, sum(f.frequency)::integer as length from found as f group by f.chunk_id
    ), average as (
        select private.average_length(v_owner_id, count(*), sum(s.length)) as length
        from lengths as s
    ), parts as (
        select f.*, ((row_number() over (partition by f.chunk_id order by f.term) - 1) / 250)::smallint as part
        from found as f
    )
    insert into private.chunk_terms (
        chunk_id, part, owner_id, file_id, language, length, terms, frequencies, weights
    )
    select
        p.chunk_id, p.part, v_owner_id, p.file_id, p.language, s.length,
        array_agg(p.term order by p.term), array_agg(p.frequency order by p.term),
        private.bm25_weights(
            array_agg(p.term order by p.term), array_agg(p.frequency order by p.term), s.length, a.length
        )
    from parts as p
    inner join lengths as s on s.chunk_id = p.chunk_id
    cross join average as a
    group by p.chunk_id, p.part, p.file_id, p.language, s.length, a.length;

    perform private.renew_weights(v_owner_id);
end;
$$;
comment on function private.index_chunks(uuid) is 'Puts the chunks of a version into the keyword index.';

create function private.renew_weights(owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_statistics private.owner_statistics := private.lock_statistics(owner_id);
    v_average real := private.average_length(owner_id);
begin
    -- average length hardly moves once there are some files, so this is rare when it is expensive
    if coalesce(v_average, 0) <= 0
        or v_average between v_statistics.weighted_average / 1.2 and v_statistics.weighted_average * 1.2 then
        return;
    end if;
    update private.chunk_terms as t
    set weights = private.bm25_weights(t.terms, t.frequencies, t.length, v_average)
    where t.owner_id = renew_weights.owner_id;
    update private.owner_statistics as s
    set weighted_average = v_average
    where s.owner_id = renew_weights.owner_id;
end;
$$;
comment on function private.renew_weights(uuid) is
'Computes an owner''s weights anew when the average length has moved by more than a fifth since they were computed.';

create function private.count_terms(owner_id uuid, terms integer[], sign integer) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.owner_terms (owner_id, term, chunk_count)
    select count_terms.owner_id, t.term, sign * count(*)
    from unnest(count_terms.terms) as t (term)
    group by t.term
    on conflict on constraint owner_terms_pkey do update
    set chunk_count = owner_terms.chunk_count + excluded.chunk_count;
    -- words that are gone leave no trace
    delete from private.owner_terms as t
    where t.owner_id = count_terms.owner_id
        and t.term = any(count_terms.terms)
        and t.chunk_count = 0
        and count_terms.sign < 0;
$$;
comment on function private.count_terms(uuid, integer[], integer) is
'Adds (sign 1) or takes away (sign -1) terms from an owner''s document frequencies.';

create function private.tg_chunk_terms__count() returns trigger
language plpgsql volatile
security definer -- runs for whoever adds or deletes
set search_path = ''
as $$
declare
    v_sign integer := case tg_op when 'INSERT' then 1 else -1 end;
    v_change record;
begin
    for v_change in
        select
            c.owner_id,
            count(*) filter (where c.part = 0) as chunk_count,
            coalesce(sum(c.length) filter (where c.part = 0), 0) as total_length,
            array_remove(array_agg(distinct c.language), null) as languages
        from changed as c
        inner join public.owners as o on o.id = c.owner_id -- a deleted owner takes its statistics along
        group by c.owner_id
        order by c.owner_id
    loop
        perform private.lock_statistics(v_change.owner_id);
        update private.owner_statistics as s
        set
            chunk_count = s.chunk_count + v_sign * v_change.chunk_count,
            total_length = s.total_length + v_sign * v_change.total_length,
            languages = array(select distinct l from unnest(s.languages || v_change.languages) as l order by l)
        where s.owner_id = v_change.owner_id;
        perform private.count_terms(v_change.owner_id, t.terms, v_sign)
        from (
            select array_agg(u.term) as terms
            from changed as c cross join lateral unnest(c.terms) as u (term)
            where c.owner_id = v_change.owner_id
        ) as t;
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_chunk_terms__count() is
'Keeps the statistics equal to what is in service, whatever inserts or deletes, cascades included.';

create trigger _500_count_inserted
after insert on private.chunk_terms
referencing new table as changed
for each statement execute function private.tg_chunk_terms__count();

create trigger _500_count_deleted
after delete on private.chunk_terms
referencing old table as changed
for each statement execute function private.tg_chunk_terms__count();

-- In and out of service ------------------------------------------------------------------------

create function private.serve_version(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if not exists (
        select 1
        from public.chunks as c inner join private.chunk_terms as t on t.chunk_id = c.id
        where c.version_id = serve_version.version_id
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
    -- statistics before terms, as whoever renews the weights of all files
    perform private.lock_statistics(n.owner_id)
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = unserve_version.version_id;
    delete from private.chunk_terms as t
    using public.chunks as c
    where c.version_id = unserve_version.version_id and t.chunk_id = c.id;
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
begin
    select v.* into v_version from public.file_versions as v where v.id = advance_version.version_id;
    select h.* into v_head
    from public.nodes as n inner join public.file_versions as h on h.id = n.head_version_id
    where n.id = v_version.file_id;
    v_is_complete := not exists (
        select 1 from public.ingest_jobs as j
        where j.version_id = v_version.id and j.state <> 'done' and private.is_required(j.space_id)
    );

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
        perform private.set_version_status(
            v_version.id, 'ready',
            case when v_is_empty then 'no_text' end, case when v_is_empty then 'There is no text in this file.' end
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
