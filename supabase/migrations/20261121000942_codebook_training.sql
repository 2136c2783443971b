-- Training codebooks: when one is due, and the steps that a worker takes.

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
