-- Page vectors: what pages and images look like. A picture of a page has many vectors, one a patch (late interaction);
-- an image has one. They are kept by content, so that no picture is embedded twice, and served for head versions only.

create table private.page_pictures (
    version_id uuid not null references public.file_versions on delete cascade,
    page integer not null check (page > 0),
    file_id uuid not null references public.nodes on delete cascade,
    picture_hash bytea not null,
    primary key (version_id, page)
);
comment on table private.page_pictures is
'Which picture stands on which page of a version: sha256 of what was embedded.';
create index page_pictures_file_id_idx on private.page_pictures (file_id);
create index page_pictures_picture_hash_idx on private.page_pictures (picture_hash);
alter table private.page_pictures enable row level security;

create table private.picture_vectors (
    space_id smallint not null references public.embedding_spaces on delete cascade,
    owner_id uuid not null references public.owners on delete cascade,
    picture_hash bytea not null,
    id bigint generated always as identity,
    vectors extensions.halfvec[] not null,
    grid_columns smallint check (grid_columns > 0),
    grid_rows smallint check (grid_rows > 0),
    positions smallint[],
    primary key (owner_id, picture_hash, space_id),
    unique (id, space_id),
    check ((grid_columns is null) = (grid_rows is null)),
    check (cardinality(positions) = cardinality(vectors))
) partition by list (space_id);
-- 64 KB that do not compress are read faster plain
alter table private.picture_vectors alter column vectors set storage external;
comment on table private.picture_vectors is
'Every vector ever computed for an owner''s pictures, by content, unit length. Per owner, so that a hash tells nobody
about others.';
comment on column private.picture_vectors.grid_columns is
'The picture was cut into grid_columns * grid_rows patches, in reading order; null when its vectors have no place.';
comment on column private.picture_vectors.positions is
'Which patch each vector stands for, from 0; null: all of them, in order.';
alter table private.picture_vectors enable row level security;

create table private.page_vectors (
    space_id smallint not null references public.embedding_spaces on delete cascade,
    owner_id uuid not null,
    -- by file: a cascade runs once per parent row
    file_id uuid not null references public.nodes on delete cascade,
    page integer not null,
    version_id uuid not null,
    vector_id bigint not null,
    codebook_id integer,
    signature extensions.sparsevec,
    embedding extensions.halfvec,
    primary key (file_id, page, space_id)
) partition by list (space_id);
comment on table private.page_vectors is
'The pages and images that search looks at: of head versions, one partition a space.';
comment on column private.page_vectors.vector_id is 'Its row of picture_vectors.';
comment on column private.page_vectors.signature is
'Near which centroids of the codebook its patches lie, by private.page_signature; null before there is a codebook.';
comment on column private.page_vectors.embedding is 'The vector itself where a picture has one: spaces of kind image.';
alter table private.page_vectors enable row level security;

-- Codebooks ------------------------------------------------------------------------------------

create table private.page_codebooks (
    id integer generated always as identity primary key,
    space_id smallint not null references public.embedding_spaces on delete cascade,
    state text not null default 'building' check (state in ('building', 'active')),
    centroid_count integer not null check (centroid_count > 0),
    picture_count integer not null default 0,
    created_at timestamptz not null default now(),
    unique (space_id, state)
);
comment on table private.page_codebooks is
'Centroids of a page space, trained from a sample of its vectors; a newer one is built beside the active one.';
comment on column private.page_codebooks.picture_count is 'Pictures there were when it became active.';
alter table private.page_codebooks enable row level security;

create table private.page_regions (
    codebook_id integer not null references private.page_codebooks on delete cascade,
    number smallint not null check (number > 0),
    center extensions.halfvec not null,
    primary key (codebook_id, number)
);
comment on table private.page_regions is
'Where centroids lie close together: what is next to a vector is found in the few regions next to it, so that most
centroids need not be looked at.';
alter table private.page_regions enable row level security;

create table private.page_centroids (
    codebook_id integer not null,
    number smallint not null check (number > 0),
    region smallint not null,
    centroid extensions.halfvec not null,
    primary key (codebook_id, number),
    foreign key (codebook_id, region) references private.page_regions on delete cascade
);
comment on table private.page_centroids is 'The centroids of codebooks, unit length, numbered from 1.';
create index page_centroids_codebook_id_region_idx on private.page_centroids (codebook_id, region);
alter table private.page_centroids enable row level security;

create table private.picture_signatures (
    codebook_id integer not null references private.page_codebooks on delete cascade,
    vector_id bigint not null,
    space_id smallint not null,
    centroids smallint[] not null,
    counts smallint[] not null,
    primary key (codebook_id, vector_id),
    foreign key (vector_id, space_id) references private.picture_vectors (id, space_id) on delete cascade,
    check (cardinality(centroids) = cardinality(counts))
);
comment on table private.picture_signatures is
'Near which centroids the vectors of a picture lie: at most 250, those with the most patches.';
comment on column private.picture_signatures.counts is 'How many patches are nearest to each of the centroids.';
create index picture_signatures_vector_id_space_id_idx on private.picture_signatures (vector_id, space_id);
alter table private.picture_signatures enable row level security;

create function private.sign_picture(
    vectors extensions.halfvec[], codebook_id integer, out centroids smallint[], out counts smallint[]
)
language sql stable
security invoker
set search_path = ''
-- by region: without statistics the planner would read all centroids for each vector
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    select coalesce(array_agg(s.number order by s.number), '{}'), coalesce(array_agg(s.count order by s.number), '{}')
    from (
        select n.number, count(*)::smallint as count
        from unnest(sign_picture.vectors) as u (v)
        cross join lateral (
            select c.number
            from (
                select r.number
                from private.page_regions as r
                where r.codebook_id = sign_picture.codebook_id
                order by r.center operator(extensions.<#>) u.v, r.number
                limit 2
            ) as r
            inner join private.page_centroids as c
                on c.codebook_id = sign_picture.codebook_id and c.region = r.number
            order by c.centroid operator(extensions.<#>) u.v, c.number
            limit 1
        ) as n
        group by n.number
        order by count(*) desc, n.number
        limit 250
    ) as s;
$$;
comment on function private.sign_picture(extensions.halfvec[], integer) is
'The signature of a picture by a codebook: the centroids that are nearest to its vectors, within two regions, and to how
many of them each is.';

create function private.page_signature(centroids smallint[], counts smallint[], codebook_id integer)
returns extensions.sparsevec
language sql stable
security invoker
set search_path = ''
as $$
    select (
        '{'
        || coalesce((
            select string_agg(s.number || ':' || sqrt(s.count)::real, ',' order by s.number)
            from unnest(page_signature.centroids, page_signature.counts) as s (number, count)
        ), '')
        || '}/' || b.centroid_count
    )::extensions.sparsevec
    from private.page_codebooks as b
    where b.id = page_signature.codebook_id;
$$;
comment on function private.page_signature(smallint[], smallint[], integer) is
'A signature as search multiplies it: the root of the count for each centroid, as the best of many patches is nearer to
a question than that of few, though not by as much. Null without a codebook.';

create function private.create_picture_tables(space public.embedding_spaces) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_pictures text := 'picture_vectors_' || (space).id;
    v_pages text := 'page_vectors_' || (space).id;
begin
    execute format(
        'create table private.%I partition of private.picture_vectors for values in (%s)', v_pictures, (space).id
    );
    execute format('comment on table private.%I is %L', v_pictures, format('Pictures in the space %s.', (space).name));
    execute format('alter table private.%I enable row level security', v_pictures);
    execute format(
        'alter table private.%I add check (private.have_dimension(vectors, %s))', v_pictures, (space).dimension
    );
    execute format(
        'create table private.%I partition of private.page_vectors for values in (%s)', v_pages, (space).id
    );
    execute format('comment on table private.%I is %L', v_pages, format('Pages served in the space %s.', (space).name));
    execute format('alter table private.%I enable row level security', v_pages);
    if (space).kind = 'page' then
        -- In the row itself, and in no index: the pages of a file stand together, so that a scan of one owner's range
        -- finds them in a few blocks, without the visibility map, which others' writes clear.
        execute format('alter table private.%I set (toast_tuple_target = 8160)', v_pages);
        execute format('alter table private.%I alter signature set storage plain', v_pages);
        execute format('create index on private.%I (owner_id, file_id)', v_pages);
        return;
    end if;
    -- covering: a scan of one owner's range scores without touching the table
    execute format(
        'create index on private.%I (owner_id, file_id) include (page, version_id, %s)', v_pages,
        case when (space).dimension <= 1200 then 'embedding' else 'vector_id' end
    );
end;
$$;
comment on function private.create_picture_tables(public.embedding_spaces) is
'Makes the partitions of a space of pages or images.';

create function private.have_dimension(vectors extensions.halfvec[], dimension integer) returns boolean
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(bool_and(extensions.vector_dims(u.v) = have_dimension.dimension), true)
    from unnest(vectors) as u (v);
$$;
comment on function private.have_dimension(extensions.halfvec[], integer) is 'Whether each of these has this length.';
