-- Embeddings: vectors of text by space. A store keyed by content feeds the serving table, so unchanged text is never
-- embedded twice; the serving table holds head versions only.

create table private.text_vectors (
    owner_id uuid not null references public.owners on delete cascade,
    space_id smallint not null references public.embedding_spaces on delete cascade,
    text_hash bytea not null,
    embedding extensions.halfvec not null,
    primary key (owner_id, space_id, text_hash)
);
comment on table private.text_vectors is
'Every vector ever computed for an owner''s text, by content. Per owner, so that a hash tells nobody about others.';
create index text_vectors_space_id_idx on private.text_vectors (space_id);
alter table private.text_vectors enable row level security;

create table private.chunk_vectors (
    space_id smallint not null references public.embedding_spaces on delete cascade,
    owner_id uuid not null,
    -- by file, not by chunk: a cascade runs once per parent row
    file_id uuid not null references public.nodes on delete cascade,
    chunk_id uuid not null,
    embedding extensions.halfvec not null,
    primary key (chunk_id, space_id)
) partition by list (space_id);
comment on table private.chunk_vectors is
'The vectors in service: chunks of head versions, unit length, one partition a space.';
create index chunk_vectors_file_id_idx on private.chunk_vectors (file_id);
alter table private.chunk_vectors enable row level security;

-- Exact search takes one page a step instead of one vector: about 2.5 times as fast as a covering index of single
-- vectors, in less space, for vectors of any width, and without the visibility map, which others' writes clear.
create table private.vector_blocks (
    space_id smallint not null references public.embedding_spaces on delete cascade,
    owner_id uuid not null,
    file_id uuid not null,
    id bigint generated always as identity,
    chunk_ids uuid[] not null,
    embeddings extensions.halfvec[] not null,
    marks integer[] not null,
    primary key (owner_id, file_id, id, space_id),
    check (cardinality(chunk_ids) = cardinality(embeddings) and cardinality(chunk_ids) = cardinality(marks))
) partition by list (space_id);
comment on table private.vector_blocks is
'What exact search reads: chunk_vectors once more, as many vectors of one file in a row as fit a page.
Written only by the triggers of chunk_vectors and chunks.';
comment on column private.vector_blocks.chunk_ids is 'Ascending, so that of equal distances the first is the first.';
comment on column private.vector_blocks.embeddings is 'Of the chunks in chunk_ids, in the same order.';
comment on column private.vector_blocks.marks is
'chunk_mark of the chunks in chunk_ids, in the same order: filters on chunks are tested here.';
alter table private.vector_blocks enable row level security;

create function private.block_size(dimension integer) returns integer
language sql immutable parallel safe
return greatest(1, least(16, 8000 / (2 * dimension + 28)));
comment on function private.block_size(integer) is
'How many vectors a row of vector_blocks holds: half precision, a chunk id and a mark each, in a page of 8 KiB; at most
16.';

create function private.language_code(language text) returns integer
language sql immutable parallel safe
return case
    when language ~ '^[a-z]{2,3}$'
        then
            (ascii(substr(language, 1, 1)) - 96) * 729
            + (ascii(substr(language, 2, 1)) - 96) * 27
            + greatest(ascii(substr(language, 3, 1)) - 96, 0)
    else 0
end;
comment on function private.language_code(text) is
'A language of two or three letters as a number below 2^15; 0 for all others.';

create function private.chunk_mark(page integer, language text) returns integer
language sql immutable parallel safe
return least(greatest(coalesce(page, 0), 0), 65535) << 15 | private.language_code(language);
comment on function private.chunk_mark(integer, text) is
'Page and language of a chunk in one number: the page (0 for none, at most 65535) times 2^15, and language_code.';

create function private.vector_table(space_id smallint) returns text
language sql immutable parallel safe
return 'chunk_vectors_' || space_id;
comment on function private.vector_table(smallint) is 'Name of the partition of chunk_vectors that holds a space.';

create function private.block_table(space_id smallint) returns text
language sql immutable parallel safe
return 'vector_blocks_' || space_id;
comment on function private.block_table(smallint) is 'Name of the partition of vector_blocks that holds a space.';

create function private.create_space(
    name text, model text, revision text, dimension integer, kind text, state text, max_tokens integer,
    languages text[] default null
) returns smallint
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_id smallint;
    v_table text;
begin
    insert into public.embedding_spaces (name, model, revision, dimension, kind, state, max_tokens, languages)
    values (
        create_space.name, create_space.model, create_space.revision, create_space.dimension,
        create_space.kind, create_space.state, create_space.max_tokens, create_space.languages
    )
    returning id into v_id;
    if kind <> 'text' then
        perform private.create_picture_tables(s) from public.embedding_spaces as s where s.id = v_id;
        return v_id;
    end if;
    v_table := private.vector_table(v_id);
    execute format('create table private.%I partition of private.chunk_vectors for values in (%s)', v_table, v_id);
    execute format('comment on table private.%I is %L', v_table, format('Vectors of the space %s.', name));
    execute format('alter table private.%I enable row level security', v_table);
    execute format(
        'alter table private.%I add check (extensions.vector_dims(embedding) = %s)', v_table, dimension
    );
    v_table := private.block_table(v_id);
    execute format('create table private.%I partition of private.vector_blocks for values in (%s)', v_table, v_id);
    execute format('comment on table private.%I is %L', v_table, format('Blocks of vectors of the space %s.', name));
    execute format('alter table private.%I enable row level security', v_table);
    -- in the row itself: a vector that has to be fetched from elsewhere takes longer to fetch than to score
    if 2 * dimension + 24 <= 8000 then
        execute format('alter table private.%I set (toast_tuple_target = 8160)', v_table);
        execute format('alter table private.%I alter embeddings set storage plain', v_table);
    end if;
    return v_id;
end;
$$;
comment on function private.create_space(text, text, text, integer, text, text, integer, text[]) is
'Registers an embedding space and makes its partitions; returns its id.';

create function private.packing(source text) returns text
language sql immutable
set search_path = ''
as $$
    select format(
        $statement$
            insert into private.vector_blocks (space_id, owner_id, file_id, chunk_ids, embeddings, marks)
            select
                v.space_id, v.owner_id, v.file_id,
                array_agg(v.chunk_id order by v.chunk_id), array_agg(v.embedding order by v.chunk_id),
                array_agg(v.mark order by v.chunk_id)
            from (
                select
                    s.*, private.chunk_mark(c.page, c.language) as mark,
                    (row_number() over (partition by s.space_id, s.owner_id, s.file_id order by s.chunk_id) - 1)
                    / private.block_size(extensions.vector_dims(s.embedding)) as block
                from %s as s
                left join public.chunks as c on c.id = s.chunk_id
            ) as v
            group by v.space_id, v.owner_id, v.file_id, v.block
        $statement$,
        source
    );
$$;
comment on function private.packing(text) is
'The statement that packs vectors of a source, with the columns of chunk_vectors, into new blocks.';

create function private.tg_chunk_vectors__pack() returns trigger
language plpgsql volatile
security definer -- runs for whoever adds, moves or deletes
set search_path = ''
as $$
declare
    v_gone record;
begin
    if tg_op <> 'INSERT' then
        for v_gone in
            select r.space_id, r.owner_id, r.file_id, array_agg(r.chunk_id) as chunk_ids
            from removed as r
            group by r.space_id, r.owner_id, r.file_id
            order by r.space_id, r.owner_id, r.file_id
        loop
            -- "unnest", so that the ids are hashed: a file may have thousands
            delete from private.vector_blocks as b
            where b.space_id = v_gone.space_id and b.owner_id = v_gone.owner_id and b.file_id = v_gone.file_id
                and not exists (
                    select 1 from unnest(b.chunk_ids) as c (id) where c.id not in (select unnest(v_gone.chunk_ids))
                );
            -- in place, so that of two who each take a chunk out of one block neither undoes the other's
            update private.vector_blocks as b
            set (chunk_ids, embeddings, marks) = (
                select
                    coalesce(array_agg(c.id order by c.id), '{}'),
                    coalesce(array_agg(c.embedding order by c.id), '{}'),
                    coalesce(array_agg(c.mark order by c.id), '{}')
                from unnest(b.chunk_ids, b.embeddings, b.marks) as c (id, embedding, mark)
                where c.id not in (select unnest(v_gone.chunk_ids))
            )
            where b.space_id = v_gone.space_id and b.owner_id = v_gone.owner_id and b.file_id = v_gone.file_id
                and exists (
                    select 1 from unnest(b.chunk_ids) as c (id) where c.id in (select unnest(v_gone.chunk_ids))
                );
        end loop;
    end if;
    if tg_op <> 'DELETE' then
        execute private.packing('added');
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_chunk_vectors__pack() is
'Keeps the blocks equal to the vectors in service, whatever inserts, moves or deletes, cascades included.';

create trigger _500_pack_inserted
after insert on private.chunk_vectors
referencing new table as added
for each statement execute function private.tg_chunk_vectors__pack();

create trigger _500_pack_updated
after update on private.chunk_vectors
referencing old table as removed new table as added
for each statement execute function private.tg_chunk_vectors__pack();

create trigger _500_pack_deleted
after delete on private.chunk_vectors
referencing old table as removed
for each statement execute function private.tg_chunk_vectors__pack();

create function private.tg_chunks__mark() returns trigger
language plpgsql volatile
security definer -- runs for whoever changes a chunk
set search_path = ''
as $$
begin
    update private.vector_blocks as b
    set marks[array_position(b.chunk_ids, new.id)] = private.chunk_mark(new.page, new.language)
    from public.nodes as n
    where n.id = new.file_id and b.owner_id = n.owner_id and b.file_id = n.id and new.id = any(b.chunk_ids);
    return null; -- after trigger
end;
$$;
comment on function private.tg_chunks__mark() is 'Keeps the marks equal to the chunks'' pages and languages.';

create trigger _500_mark
after update of page, language on public.chunks
for each row
when ((old.page, old.language) is distinct from (new.page, new.language))
execute function private.tg_chunks__mark();

create function private.repack_vectors(space_id smallint) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    lock table private.chunk_vectors in share row exclusive mode; -- what is added meanwhile would be packed twice
    execute format('truncate private.%I', private.block_table(space_id));
    execute private.packing(format('private.%I', private.vector_table(space_id)));
end;
$$;
comment on function private.repack_vectors(smallint) is
'Packs all vectors of a space anew: after they were loaded with triggers off, or in very small statements.
Nothing is added or removed, and exact search waits, until it is done.';

select private.create_space(
    'minilm-l6-v2', 'sentence-transformers/all-MiniLM-L6-v2', '53aa51172d14', 384, 'text', 'active', 256, '{en}'
);

create function private.find_space(space text, kind text) returns public.embedding_spaces
language plpgsql stable
security definer -- also asked on behalf of anon, who gets our error and not a refusal
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
begin
    select s.* into v_space
    from public.embedding_spaces as s
    where s.kind = find_space.kind
        and case when find_space.space = 'active' then s.state = 'active' else s.name = find_space.space end
        and s.state <> 'retiring';
    if v_space.id is null then
        perform private.raise_invalid(
            'space',
            format('There is no %s space "%s" to search.', kind, space),
            jsonb_build_object('expected', (
                select coalesce(jsonb_agg(s.name), '[]')
                from public.embedding_spaces as s
                where s.kind = find_space.kind and s.state <> 'retiring'
            ))
        );
    end if;
    return v_space;
end;
$$;
comment on function private.find_space(text, text) is
'A space by name, or the active one by ''active''. Raises INVALID_ARGUMENT (field space, expected names).';
grant execute on function private.find_space(text, text) to anon, authenticated, service_role;

create function public.embedding_space(space text default 'active', kind text default 'text') returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    perform private.require_reader();
    return to_jsonb(private.find_space(space, kind)) - '{id,created_at,retired_at}'::text[];
end;
$$;
comment on function public.embedding_space(text, text) is
'Which model to embed a query with: {name, model, revision, dimension, kind, state, max_tokens, languages}.

space: a name, or ''active''. Raises INVALID_ARGUMENT (field space) for an unknown or retired one.';
grant execute on function public.embedding_space(text, text) to anon, authenticated;

create function private.forget_texts(owner_ids uuid[], hashes bytea[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    delete from private.text_vectors as t
    where t.owner_id = any(owner_ids)
        and t.text_hash = any(hashes)
        and not exists (
            select 1
            from public.chunks as c inner join public.nodes as n on n.id = c.file_id
            where c.text_hash = t.text_hash and n.owner_id = t.owner_id
        )
        and not exists (
            select 1
            from private.draft_chunks as c inner join public.nodes as n on n.id = c.file_id
            where c.text_hash = t.text_hash and n.owner_id = t.owner_id
        );
$$;
comment on function private.forget_texts(uuid[], bytea[]) is
'Drops the stored vectors of these texts that no chunk of these owners has any more.';

-- The stage embed_text -------------------------------------------------------------------------

create function private.job_texts(job_id uuid, lease_token uuid, max_texts integer) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return (
        with missing as (
            select c.text_hash, min(c.idx) as idx, min(private.embedded_text(c.content, c.context)) as content
            from private.chunks_in_work(v_job.version_id) as c
            inner join public.nodes as n on n.id = c.file_id
            where not exists (
                select 1 from private.text_vectors as t
                where t.owner_id = n.owner_id and t.space_id = v_job.space_id and t.text_hash = c.text_hash
            )
            group by c.text_hash
        )
        select jsonb_build_object(
            'total', (select count(*) from private.text_hashes(array[v_job.version_id])),
            'missing', (select count(*) from missing),
            'texts', coalesce((
                select jsonb_agg(jsonb_build_object('hash', encode(m.text_hash, 'hex'), 'content', m.content))
                from (select missing.* from missing order by missing.idx limit max_texts) as m
            ), '[]')
        )
    );
end;
$$;
comment on function private.job_texts(uuid, uuid, integer) is
'Texts of the job''s version that have no vector in its space yet: {total, missing, texts: [{hash, content}]}.';

create function private.store_vectors(job_id uuid, lease_token uuid, vectors jsonb) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
    select n.owner_id, v_job.space_id, decode(r.hash, 'hex'), r.embedding::text::extensions.halfvec
    from jsonb_to_recordset(store_vectors.vectors) as r (hash text, embedding jsonb)
    inner join public.nodes as n on n.id = v_job.file_id
    order by r.hash -- workers with the same texts must not wait for one another in a circle
    on conflict do nothing;
end;
$$;
comment on function private.store_vectors(uuid, uuid, jsonb) is
'Keeps vectors [{hash, embedding: [numbers]}]; what is stored survives the worker, so another goes on from here.';

create function private.finish_embed_text(job_id uuid, lease_token uuid) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    if exists (
        select 1
        from private.text_hashes(array[v_job.version_id]) as c (text_hash)
        inner join public.nodes as n on n.id = v_job.file_id
        where not exists (
            select 1 from private.text_vectors as t
            where t.owner_id = n.owner_id and t.space_id = v_job.space_id and t.text_hash = c.text_hash
        )
    ) then
        perform private.raise_error('CONFLICT_STATE', 'Some chunks have no vector yet.');
    end if;
    perform private.finish_job(job_id);
    perform private.advance_version(v_job.version_id);
end;
$$;
comment on function private.finish_embed_text(uuid, uuid) is
'Ends the stage when every chunk has its vector, and puts them in service.';

grant execute on function
private.job_texts(uuid, uuid, integer),
private.store_vectors(uuid, uuid, jsonb),
private.finish_embed_text(uuid, uuid)
to narwhal_worker;
