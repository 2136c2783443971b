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

-- Training -------------------------------------------------------------------------------------

insert into private.settings (key, value, description) values
(
    'pages.codebook_from', '500',
    'A space of pages gets a codebook when it has more pictures than this. So many pages are all compared anyway.'
),
(
    'pages.codebook_growth', '4',
    'A codebook is trained anew when there are so many times the pictures that it was trained for.'
);

create function private.due_codebooks() returns table (space text, pictures bigint, trained_for integer)
language sql stable
security definer -- workers have no rights on tables
set search_path = ''
as $$
    select s.name, p.pictures, b.picture_count
    from public.embedding_spaces as s
    cross join lateral (
        select count(*) as pictures from private.picture_vectors as x where x.space_id = s.id
    ) as p
    left join private.page_codebooks as b on b.space_id = s.id and b.state = 'active'
    where s.kind = 'page'
        and s.state <> 'retiring'
        and p.pictures > (private.setting('pages.codebook_from'))::bigint
        and (
            b.id is null
            or p.pictures >= b.picture_count * (private.setting('pages.codebook_growth'))::float8
            -- a training that was interrupted
            or exists (select 1 from private.page_codebooks as o where o.space_id = s.id and o.state = 'building')
        )
    order by b.id nulls first, s.id;
$$;
comment on function private.due_codebooks() is
'Spaces of pages that want a codebook, or have outgrown theirs: whose pictures are pages.codebook_growth times those it
was trained for. Workers look now and then, and train; searches go by the old one meanwhile.';

create function private.lock_codebook(space_id smallint) returns boolean
language sql volatile
security invoker
set search_path = ''
as $$ select pg_try_advisory_lock(hashtextextended('narwhal.codebook', space_id)); $$;
comment on function private.lock_codebook(smallint) is
'Whoever trains holds this until unlock_codebook or the end of the session; false: somebody else is training.';

create function private.unlock_codebook(space_id smallint) returns boolean
language sql volatile
security invoker
set search_path = ''
as $$ select pg_advisory_unlock(hashtextextended('narwhal.codebook', space_id)); $$;
comment on function private.unlock_codebook(smallint) is 'The end of lock_codebook.';

create function private.codebook_work(space text, out space_id smallint, out building integer, out pictures bigint)
returns setof record
language sql stable
security definer -- workers have no rights on tables
set search_path = ''
as $$
    select
        s.id,
        (select b.id from private.page_codebooks as b where b.space_id = s.id and b.state = 'building'),
        (select count(*) from private.picture_vectors as x where x.space_id = s.id)
    from public.embedding_spaces as s
    where s.kind = 'page'
        and case when codebook_work.space = 'active' then s.state = 'active' else s.name = codebook_work.space end;
$$;
comment on function private.codebook_work(text) is
'What there is to train for a page space: its pictures, and the codebook whose training was interrupted.';

create function private.sample_pictures(space_id smallint, max_pictures integer)
returns table (vectors extensions.halfvec[])
language sql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
    select x.vectors
    from (
        select y.id from private.picture_vectors as y
        where y.space_id = sample_pictures.space_id
        order by random()
        limit max_pictures
    ) as s
    inner join private.picture_vectors as x on x.id = s.id and x.space_id = sample_pictures.space_id;
$$;
comment on function private.sample_pictures(smallint, integer) is 'Some pictures of a space, by chance.';

create function private.codebook_centroids(
    codebook_id integer, out centers extensions.halfvec[], out centroids extensions.halfvec[], out regions smallint[]
)
language sql stable
security definer -- workers have no rights on tables
set search_path = ''
as $$
    select
        (
            select array_agg(r.center order by r.number)
            from private.page_regions as r
            where r.codebook_id = codebook_centroids.codebook_id
        ),
        array_agg(c.centroid order by c.number),
        array_agg(c.region order by c.number)
    from private.page_centroids as c
    where c.codebook_id = codebook_centroids.codebook_id;
$$;
comment on function private.codebook_centroids(integer) is
'The regions of a codebook and its centroids, in order, with the region of each centroid.';

create function private.begin_codebook(
    space_id smallint, centers text[], centroids text[], regions smallint[]
) returns integer
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_id integer;
begin
    delete from private.page_codebooks as b where b.space_id = begin_codebook.space_id and b.state = 'building';
    insert into private.page_codebooks (space_id, centroid_count)
    values (begin_codebook.space_id, cardinality(centroids))
    returning id into v_id;
    insert into private.page_regions (codebook_id, number, center)
    select v_id, r.number, extensions.l2_normalize(r.center::extensions.halfvec)
    from unnest(centers) with ordinality as r (center, number);
    insert into private.page_centroids (codebook_id, number, region, centroid)
    select v_id, c.number, c.region, extensions.l2_normalize(c.centroid::extensions.halfvec)
    from unnest(centroids, regions) with ordinality as c (centroid, region, number)
    order by c.region, c.number; -- those of a region stand together
    return v_id;
end;
$$;
comment on function private.begin_codebook(smallint, text[], text[], smallint[]) is
'Starts a codebook, of vectors as text, beside the active one; whoever trains it stores the signatures of all
pictures, then activates it. One that was being built before is dropped.';

create function private.unsigned_pictures(codebook_id integer, max_pictures integer)
returns table (id bigint, vectors extensions.halfvec[])
language sql stable
security definer -- workers have no rights on tables
set search_path = ''
as $$
    select x.id, x.vectors
    from private.page_codebooks as b
    inner join private.picture_vectors as x on x.space_id = b.space_id
    where b.id = unsigned_pictures.codebook_id
        and not exists (
            select 1 from private.picture_signatures as s where s.codebook_id = b.id and s.vector_id = x.id
        )
    order by x.id
    limit max_pictures;
$$;
comment on function private.unsigned_pictures(integer, integer) is
'Pictures that a codebook has no signature of yet; an interrupted training goes on from here.';

create function private.store_signatures(codebook_id integer, signatures jsonb) returns void
language sql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
    insert into private.picture_signatures (codebook_id, vector_id, space_id, centroids, counts)
    select b.id, x.id, x.space_id, s.centroids, s.counts
    from private.page_codebooks as b
    cross join jsonb_to_recordset(store_signatures.signatures) as s (id bigint, centroids smallint[], counts smallint[])
    -- what was purged meanwhile needs none
    inner join private.picture_vectors as x on x.space_id = b.space_id and x.id = s.id
    where b.id = store_signatures.codebook_id
    on conflict do nothing;
$$;
comment on function private.store_signatures(integer, jsonb) is
'Keeps the signatures of pictures: [{id, centroids, counts}].';

create function private.activate_codebook(codebook_id integer) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_codebook private.page_codebooks;
    v_missing bigint;
begin
    select b.* into v_codebook from private.page_codebooks as b where b.id = activate_codebook.codebook_id for update;
    select count(*) into v_missing
    from private.picture_vectors as x
    where x.space_id = v_codebook.space_id
        and not exists (
            select 1 from private.picture_signatures as s
            where s.codebook_id = v_codebook.id and s.vector_id = x.id
        );
    if v_codebook.id is null or v_missing > 0 then
        perform private.raise_error(
            'CONFLICT_STATE', 'This codebook does not know all pictures yet.',
            jsonb_build_object('missing', v_missing), 'Train it to the end.'
        );
    end if;
    -- what somebody is changing keeps its old signature, and is then looked at in full
    with free as (
        select t.file_id, t.page, t.space_id
        from private.page_vectors as t
        where t.space_id = v_codebook.space_id
        for update skip locked
    )
    update private.page_vectors as t
    set codebook_id = v_codebook.id, signature = private.page_signature(s.centroids, s.counts, v_codebook.id)
    from free as f
    inner join private.page_vectors as p on p.file_id = f.file_id and p.page = f.page and p.space_id = f.space_id
    inner join private.picture_signatures as s on s.codebook_id = v_codebook.id and s.vector_id = p.vector_id
    where t.file_id = f.file_id and t.page = f.page and t.space_id = f.space_id;
    delete from private.page_codebooks as b where b.space_id = v_codebook.space_id and b.state = 'active';
    update private.page_codebooks as b
    set
        state = 'active',
        picture_count = (select count(*) from private.picture_vectors as x where x.space_id = v_codebook.space_id)
    where b.id = v_codebook.id;
end;
$$;
comment on function private.activate_codebook(integer) is
'Search goes by this codebook from the commit on. Raises CONFLICT_STATE {missing} while pictures have no signature.';

grant execute on function
private.due_codebooks(),
private.lock_codebook(smallint),
private.unlock_codebook(smallint),
private.codebook_work(text),
private.sample_pictures(smallint, integer),
private.codebook_centroids(integer),
private.begin_codebook(smallint, text[], text[], smallint[]),
private.unsigned_pictures(integer, integer),
private.store_signatures(integer, jsonb),
private.activate_codebook(integer)
to narwhal_worker;

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

-- The stage embed_pages ------------------------------------------------------------------------

create function private.is_pictured(kind text, mime text) returns boolean
language sql immutable parallel safe
return case kind when 'page' then mime = 'application/pdf' or mime like 'image/%' when 'image' then mime like 'image/%'
end;
comment on function private.is_pictured(text, text) is
'Whether files of a type have pictures for the spaces of a kind: pages of PDF, and images.';

create function private.enqueue_pictures(version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    select private.enqueue(v.id, 'embed_pages', s.id)
    from public.file_versions as v
    inner join public.embedding_spaces as s on s.state <> 'retiring' and private.is_pictured(s.kind, v.mime)
    where v.id = enqueue_pictures.version_id;
$$;
comment on function private.enqueue_pictures(uuid) is
'Queues embed_pages of a version for each space that its pages or its image belong to.';

create function private.pictured_pages(version_id uuid, kind text)
returns table (page integer, width real, height real)
language sql stable
security invoker
set search_path = ''
as $$
    select p.page, p.width, p.height
    from public.pages as p
    where p.version_id = pictured_pages.version_id and pictured_pages.kind = 'page'
    union all
    select 1, null, null
    where pictured_pages.kind = 'image'
        or not exists (select 1 from public.pages as p where p.version_id = pictured_pages.version_id);
$$;
comment on function private.pictured_pages(uuid, text) is
'The pages that a space of this kind has pictures of: every page, or the one image.';

create function private.missing_pages(job public.ingest_jobs)
returns table (page integer, width real, height real, picture_hash bytea)
language sql stable
security invoker
set search_path = ''
as $$
    select p.page, p.width, p.height, r.picture_hash
    from public.embedding_spaces as s
    inner join public.nodes as n on n.id = (job).file_id
    cross join lateral private.pictured_pages((job).version_id, s.kind) as p
    left join private.page_pictures as r on r.version_id = (job).version_id and r.page = p.page
    where s.id = (job).space_id
        and not exists (
            select 1
            from private.picture_vectors as x
            where x.owner_id = n.owner_id and x.picture_hash = r.picture_hash and x.space_id = s.id
        );
$$;
comment on function private.missing_pages(public.ingest_jobs) is
'Pages of a job that have no vectors in its space yet.';

create function private.job_page_pictures(job_id uuid, lease_token uuid, max_pages integer) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return (
        select jsonb_build_object(
            'total', (
                select count(*)
                from public.embedding_spaces as s
                cross join lateral private.pictured_pages(v_job.version_id, s.kind)
                where s.id = v_job.space_id
            ),
            'missing', count(*),
            'pages', coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'page', m.page, 'width', m.width, 'height', m.height, 'hash', encode(m.picture_hash, 'hex')
                    ) order by m.page
                ) filter (where m.position <= max_pages),
                '[]'
            )
        )
        from (select p.*, row_number() over (order by p.page) as position from private.missing_pages(v_job) as p) as m
    );
end;
$$;
comment on function private.job_page_pictures(uuid, uuid, integer) is
'Pages of the job''s version that have no vectors in its space yet: {total, missing, pages: [{page, width, height,
hash}]}, at most max_pages of them; hash is null until a picture of the page was named.';

create function private.store_page_vectors(job_id uuid, lease_token uuid, pictures jsonb) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_owner_id uuid := (select n.owner_id from public.nodes as n where n.id = v_job.file_id);
begin
    insert into private.page_pictures (version_id, page, file_id, picture_hash)
    select v_job.version_id, r.page, v_job.file_id, decode(r.hash, 'hex')
    from jsonb_to_recordset(store_page_vectors.pictures) as r (page integer, hash text)
    on conflict (version_id, page) do update set picture_hash = excluded.picture_hash;

    with made as (
        insert into private.picture_vectors (space_id, owner_id, picture_hash, vectors, grid_columns, grid_rows, positions)
        select
            v_job.space_id, v_owner_id, decode(r.hash, 'hex'),
            coalesce(v.vectors, '{}'), (r.grid ->> 0)::smallint, (r.grid ->> 1)::smallint,
            case when cardinality(v.positions) < jsonb_array_length(r.vectors) then coalesce(v.positions, '{}') end
        from jsonb_to_recordset(store_page_vectors.pictures) as r (page integer, hash text, vectors jsonb, grid jsonb)
        cross join lateral (
            -- patches that are all zero are padding: they would be as near to any question as nothing is
            select
                array_agg(extensions.l2_normalize(e.vector) order by e.position) as vectors,
                array_agg((e.position - 1)::smallint order by e.position) as positions
            from (
                select a.position, coalesce(a.element #>> '{}', a.element::text)::extensions.halfvec as vector
                from jsonb_array_elements(r.vectors) with ordinality as a (element, position)
            ) as e
            where extensions.l2_norm(e.vector) > 0
        ) as v
        where jsonb_typeof(r.vectors) = 'array'
        order by r.hash -- workers with the same pictures must not wait for one another in a circle
        on conflict do nothing
        returning id, space_id, vectors
    )
    insert into private.picture_signatures (codebook_id, vector_id, space_id, centroids, counts)
    select b.id, m.id, m.space_id, s.centroids, s.counts
    from made as m
    inner join private.page_codebooks as b on b.space_id = m.space_id
    cross join lateral private.sign_picture(m.vectors, b.id) as s;

    return (
        select jsonb_build_object('missing', coalesce(jsonb_agg(m.page order by m.page), '[]'))
        from private.missing_pages(v_job) as m
        where m.page in (select (r.value ->> 'page')::integer from jsonb_array_elements(pictures) as r)
    );
end;
$$;
comment on function private.store_page_vectors(uuid, uuid, jsonb) is
'Keeps pictures [{page, hash, vectors: [[numbers] or "[numbers]"], grid: [columns, rows]}] and returns {missing: pages
of these that have no vectors yet}. Without vectors it only names the picture: whoever knows the hashes first embeds
only what is missing. What is stored survives the worker.';

create function private.finish_embed_pages(job_id uuid, lease_token uuid) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    -- from here on nobody forgets pictures of this owner
    perform private.lock_statistics(n.owner_id) from public.nodes as n where n.id = v_job.file_id;
    if exists (select 1 from private.missing_pages(v_job)) then
        perform private.raise_error('CONFLICT_STATE', 'Some pages have no vectors yet.');
    end if;
    perform private.finish_job(job_id);
    perform private.advance_version(v_job.version_id);
end;
$$;
comment on function private.finish_embed_pages(uuid, uuid) is
'Ends the stage when every page has its vectors, and puts them in service.';

grant execute on function
private.job_page_pictures(uuid, uuid, integer),
private.store_page_vectors(uuid, uuid, jsonb),
private.finish_embed_pages(uuid, uuid)
to narwhal_worker;

-- In and out of service ------------------------------------------------------------------------

create function private.serve_pictures(version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.page_vectors (
        space_id, owner_id, file_id, page, version_id, vector_id, codebook_id, signature, embedding
    )
    select
        s.id, n.owner_id, n.id, p.page, p.version_id, x.id, b.id,
        coalesce(
            (
                select private.page_signature(g.centroids, g.counts, b.id)
                from private.picture_signatures as g
                where g.codebook_id = b.id and g.vector_id = x.id
            ),
            (
                select private.page_signature(g.centroids, g.counts, b.id)
                from private.sign_picture(x.vectors, b.id) as g
            )
        ),
        case s.kind when 'image' then x.vectors[1] end
    from public.ingest_jobs as j
    inner join public.embedding_spaces as s on s.id = j.space_id and s.state <> 'retiring'
    inner join public.nodes as n on n.id = j.file_id
    cross join lateral private.pictured_pages(j.version_id, s.kind) as w
    inner join private.page_pictures as p on p.version_id = j.version_id and p.page = w.page
    inner join private.picture_vectors as x
        on x.owner_id = n.owner_id and x.picture_hash = p.picture_hash and x.space_id = s.id
    left join private.page_codebooks as b on b.space_id = s.id and b.state = 'active'
    where j.version_id = serve_pictures.version_id and j.stage = 'embed_pages' and j.state = 'done'
    on conflict on constraint page_vectors_pkey do update
    set
        version_id = excluded.version_id, vector_id = excluded.vector_id, codebook_id = excluded.codebook_id,
        signature = excluded.signature, embedding = excluded.embedding
    where (page_vectors.version_id, page_vectors.vector_id, page_vectors.codebook_id)
        is distinct from (excluded.version_id, excluded.vector_id, excluded.codebook_id);
$$;
comment on function private.serve_pictures(uuid) is
'Puts the pages of a version into service in every space where they are finished.';

create function private.unserve_pictures(version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    delete from private.page_vectors as t
    using public.file_versions as v
    where v.id = unserve_pictures.version_id and t.file_id = v.file_id and t.version_id = v.id;
$$;
comment on function private.unserve_pictures(uuid) is 'Takes the pages of a version out of service.';

create function private.forget_pictures(owner_ids uuid[], hashes bytea[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    delete from private.picture_vectors as x
    where x.owner_id = any(owner_ids)
        and x.picture_hash = any(hashes)
        and not exists (
            select 1
            from private.page_pictures as p inner join public.nodes as n on n.id = p.file_id
            where p.picture_hash = x.picture_hash and n.owner_id = x.owner_id
        );
$$;
comment on function private.forget_pictures(uuid[], bytea[]) is
'Drops the stored vectors of these pictures that no page of these owners has any more. The caller holds the locks on
their statistics.';

create function private.hand_pictures(version_ids uuid[], from_owner_id uuid, to_owner_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    with made as (
        insert into private.picture_vectors (space_id, owner_id, picture_hash, vectors, grid_columns, grid_rows, positions)
        select x.space_id, to_owner_id, x.picture_hash, x.vectors, x.grid_columns, x.grid_rows, x.positions
        from private.picture_vectors as x
        inner join public.embedding_spaces as s on s.id = x.space_id and s.state <> 'retiring'
        where x.owner_id = from_owner_id
            and x.picture_hash in (
                select p.picture_hash from private.page_pictures as p where p.version_id = any(version_ids)
            )
        order by x.picture_hash -- as whoever stores vectors
        on conflict do nothing
        returning id, space_id, picture_hash
    )
    insert into private.picture_signatures (codebook_id, vector_id, space_id, centroids, counts)
    select g.codebook_id, m.id, m.space_id, g.centroids, g.counts
    from made as m
    inner join private.picture_vectors as x
        on x.owner_id = from_owner_id and x.picture_hash = m.picture_hash and x.space_id = m.space_id
    inner join private.picture_signatures as g on g.vector_id = x.id;
$$;
comment on function private.hand_pictures(uuid[], uuid, uuid) is
'Gives another owner the vectors of the pictures of these versions, which this one keeps.';

create function private.transfer_pictures(file_ids uuid[], from_owner_id uuid, to_owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_hashes bytea[] := array(
        select distinct p.picture_hash from private.page_pictures as p where p.file_id = any(file_ids)
    );
begin
    -- pictures that nobody else has change hands as they are: they are large
    update private.picture_vectors as x
    set owner_id = to_owner_id
    where x.owner_id = from_owner_id
        and x.picture_hash = any(v_hashes)
        and not exists (
            select 1
            from private.page_pictures as p inner join public.nodes as n on n.id = p.file_id
            where p.picture_hash = x.picture_hash and n.owner_id = from_owner_id
        )
        and not exists (
            select 1
            from private.picture_vectors as t
            where t.owner_id = to_owner_id and t.picture_hash = x.picture_hash and t.space_id = x.space_id
        );
    perform private.hand_pictures(
        array(select v.id from public.file_versions as v where v.file_id = any(file_ids)), from_owner_id, to_owner_id
    );
    update private.page_vectors as t
    set owner_id = to_owner_id, vector_id = x.id
    from private.page_pictures as p
    inner join private.picture_vectors as x on x.picture_hash = p.picture_hash
    where t.file_id = any(file_ids)
        and p.version_id = t.version_id
        and p.page = t.page
        and x.owner_id = to_owner_id
        and x.space_id = t.space_id;
    perform private.forget_pictures(array[from_owner_id], v_hashes);
end;
$$;
comment on function private.transfer_pictures(uuid[], uuid, uuid) is
'Makes the pages of these files another owner''s, whose files they are already. Embeds nothing.';

create function private.copy_pictures(source_version_id uuid, target_version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_source_owner_id uuid;
    v_owner_id uuid;
begin
    select n.owner_id into v_source_owner_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = source_version_id;
    select n.owner_id into v_owner_id
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = target_version_id;
    insert into private.page_pictures (version_id, page, file_id, picture_hash)
    select t.id, p.page, t.file_id, p.picture_hash
    from private.page_pictures as p cross join public.file_versions as t
    where p.version_id = source_version_id and t.id = target_version_id;
    if v_source_owner_id <> v_owner_id then
        perform private.hand_pictures(array[source_version_id], v_source_owner_id, v_owner_id);
    end if;
    -- a space that came since, or whose vectors are gone, is computed; no other
    perform private.enqueue_pictures(target_version_id);
    update public.ingest_jobs as j
    set state = 'done', progress = 1, started_at = now(), finished_at = now()
    where j.version_id = target_version_id
        and j.stage = 'embed_pages'
        and not exists (select 1 from private.missing_pages(j));
end;
$$;
comment on function private.copy_pictures(uuid, uuid) is
'Gives a version the pictures of another one with the same bytes, and their vectors. What has none yet is queued.';

-- Repairs --------------------------------------------------------------------------------------

create function private.reconcile_page_vectors(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_fixed integer := 0;
begin
    v_found := array(
        select t.file_id || ' ' || t.page || ' ' || t.space_id
        from private.page_vectors as t
        where not exists (
            select 1
            from public.nodes as n
            inner join private.page_pictures as p on p.version_id = n.head_version_id and p.page = t.page
            inner join private.picture_vectors as x
                on x.owner_id = n.owner_id and x.picture_hash = p.picture_hash and x.space_id = t.space_id
            where n.id = t.file_id
                and n.head_version_id = t.version_id
                and n.owner_id = t.owner_id
                and x.id = t.vector_id
        )
        order by 1
    );
    if fix then
        with free as (
            select t.file_id, t.page, t.space_id
            from private.page_vectors as t
            inner join unnest(v_found) as f (text)
                on t.file_id = split_part(f.text, ' ', 1)::uuid
                and t.page = split_part(f.text, ' ', 2)::integer
                and t.space_id = split_part(f.text, ' ', 3)::smallint
            for update of t skip locked
        )
        delete from private.page_vectors as t
        using free as f
        where t.file_id = f.file_id and t.page = f.page and t.space_id = f.space_id;
        get diagnostics v_fixed = row_count;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_page_vectors(boolean) is
'Pages in service that are not of a head version, or not with its owner''s vectors; taken out.';

create function private.reconcile_unserved_pages(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_version record;
    v_fixed integer := 0;
begin
    v_found := array(
        select distinct j.version_id::text
        from public.nodes as n
        inner join public.ingest_jobs as j on j.version_id = n.head_version_id
        inner join public.embedding_spaces as s on s.id = j.space_id and s.state <> 'retiring'
        cross join lateral private.pictured_pages(j.version_id, s.kind) as w
        left join private.page_codebooks as b on b.space_id = s.id and b.state = 'active'
        where n.purged_at is null
            and j.stage = 'embed_pages'
            and j.state = 'done'
            and not exists (
                select 1 from private.page_vectors as t
                where t.file_id = n.id
                    and t.page = w.page
                    and t.space_id = s.id
                    and t.codebook_id is not distinct from b.id
            )
        order by 1
    );
    if fix then
        for v_version in
            select v.id, v.file_id, n.owner_id
            from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
            where v.id = any(v_found::uuid[])
            order by n.id
        loop
            continue when not private.lock_if_free(array[v_version.file_id], '{}')
                or not private.lock_statistics_if_free(v_version.owner_id);
            -- vectors that are lost for good are computed again
            perform private.enqueue(v_version.id, 'embed_pages', j.space_id)
            from public.ingest_jobs as j
            where j.version_id = v_version.id
                and j.stage = 'embed_pages'
                and j.state = 'done'
                and exists (select 1 from private.missing_pages(j));
            perform private.serve_pictures(v_version.id);
            v_fixed := v_fixed + 1;
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_unserved_pages(boolean) is
'Head versions with pages that search does not find though it should, or by an old codebook; put in service again.';

create function private.reconcile_pictures(fix boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_found text[];
    v_owner_id uuid;
    v_hashes bytea[];
    v_fixed integer := 0;
begin
    v_found := array(
        select distinct x.owner_id || ' ' || encode(x.picture_hash, 'hex')
        from private.picture_vectors as x
        where not exists (
            select 1
            from private.page_pictures as p inner join public.nodes as n on n.id = p.file_id
            where p.picture_hash = x.picture_hash and n.owner_id = x.owner_id
        )
        order by 1
    );
    if fix then
        for v_owner_id, v_hashes in
            select split_part(f.text, ' ', 1)::uuid, array_agg(decode(split_part(f.text, ' ', 2), 'hex'))
            from unnest(v_found) as f (text)
            group by 1
            order by 1
        loop
            -- whoever finishes pages that need a picture holds the statistics
            continue when not private.lock_statistics_if_free(v_owner_id);
            perform private.forget_pictures(array[v_owner_id], v_hashes);
            v_fixed := v_fixed + cardinality(v_hashes);
        end loop;
    end if;
    return private.finding(v_found, v_fixed);
end;
$$;
comment on function private.reconcile_pictures(boolean) is 'Stored vectors of pictures that no page has; deleted.';
