-- Rendering: the pictures by which people see what a file is. A thumbnail of the whole, and its pages as images, are
-- drawn once its text is read; a file is ready without them. Each is stored as soon as it is drawn, so a worker that is
-- lost costs one page.

insert into private.settings (key, value, description) values
('render.pages', '100', 'Pages of a file that are drawn, from the first.'),
('render.frames', '6', 'Frames of a film that are drawn as its pages, evenly spaced.'),
('render.dpi', '144', 'Pixels per inch of a drawn page.'),
('render.most_pixels', '4000000', 'Pixels of a drawn page at most; a larger one is drawn smaller.'),
('render.time_limit_s', '180', 'Wall time, and CPU time, for drawing one file, in seconds.'),
('render.memory_limit_mb', '1024', 'Memory for drawing one file, in MiB.');

create function private.is_drawn(format text) returns boolean
language sql immutable
security invoker
set search_path = ''
as $$ select format in ('pdf', 'image', 'video'); $$;
comment on function private.is_drawn(text) is 'Whether files of a format have pages, or frames, that can be drawn.';

create function private.may_hold_images(format text) returns boolean
language sql immutable
security invoker
set search_path = ''
as $$ select format in ('pdf', 'image', 'video', 'docx', 'pptx', 'epub', 'html', 'eml'); $$;
comment on function private.may_hold_images(text) is 'Whether the render stage finds images in files of a format.';

create function private.enqueue_render(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if private.may_hold_images(
        (select v.format from public.file_versions as v where v.id = enqueue_render.version_id)
    ) then
        perform private.enqueue(version_id, 'render');
    else
        delete from public.ingest_jobs as j -- an earlier run
        where j.version_id = enqueue_render.version_id and j.stage = 'render';
        delete from public.renditions as r where r.version_id = enqueue_render.version_id;
        delete from public.images as i where i.version_id = enqueue_render.version_id;
    end if;
end;
$$;
comment on function private.enqueue_render(uuid) is 'Queues render for a version of a format that has pictures.';

create function private.pages_to_draw(version_id uuid) returns integer
language sql stable
security invoker
set search_path = ''
as $$
    select case
        when v.format = 'video' then (private.setting('render.frames'))::integer -- at most
        when private.is_drawn(v.format) then least(v.page_count, (private.setting('render.pages'))::integer)
        else 0
    end
    from public.file_versions as v
    where v.id = pages_to_draw.version_id;
$$;
comment on function private.pages_to_draw(uuid) is 'How many pages of a version are drawn, from the first.';

create function private.job_renditions(job_id uuid, lease_token uuid) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_total integer := private.pages_to_draw(v_job.version_id);
    v_left integer[] := array(
        select g.page
        from generate_series(1, v_total) as g (page)
        where not exists (
            select 1 from public.renditions as r
            where r.version_id = v_job.version_id
                and r.kind = 'page' and r.page = g.page and r.created_at >= v_job.started_at
        )
        order by g.page
    );
begin
    update public.ingest_jobs as j set pages_total = v_total, pages_done = v_total - cardinality(v_left)
    where j.id = job_id;
    return jsonb_build_object(
        'left', to_jsonb(v_left),
        'thumbnail', not exists (
            select 1 from public.renditions as r
            where r.version_id = v_job.version_id and r.kind = 'thumbnail' and r.created_at >= v_job.started_at
        ),
        'images', (
            select coalesce(jsonb_agg(i.idx order by i.idx), '[]')
            from public.images as i
            where i.version_id = v_job.version_id and i.created_at >= v_job.started_at
        )
    );
end;
$$;
comment on function private.job_renditions(uuid, uuid) is
'What the render stage has to do: {left: numbers of pages, thumbnail: whether it is to be made, images: numbers of those
that are there}. What an earlier run of the stage has made is made anew.';

create function private.promise_rendition(job_id uuid, lease_token uuid, key text) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    insert into private.object_deletions (bucket, key, run_after)
    values ('derived', promise_rendition.key, now() + interval '1 hour');
end;
$$;
comment on function private.promise_rendition(uuid, uuid, text) is
'Before a picture is written to the bucket derived: it is removed in an hour, unless store_rendition takes it. So a
worker that is lost between the two leaves nothing for ever.';

create function private.store_rendition(
    job_id uuid, lease_token uuid, kind text, page integer, key text, size bigint, width integer, height integer,
    image integer default null
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs;
    v_owner_id uuid;
begin
    -- the owner before the job, as everywhere
    perform private.hold_spaces();
    perform private.lock_file((select j.file_id from public.ingest_jobs as j where j.id = job_id));
    v_job := private.own_job(job_id, lease_token);
    delete from private.object_deletions as d
    where d.bucket = 'derived' and d.key = store_rendition.key and d.attempts = 0;
    if not found then -- its removal has begun
        perform private.raise_error(
            'CONFLICT_STATE', 'The picture was not promised, or too long ago.', jsonb_build_object('key', key)
        );
    end if;
    select n.owner_id into v_owner_id from public.nodes as n where n.id = v_job.file_id;
    delete from public.renditions as r -- of an earlier run, of another size perhaps; its bytes make room
    where r.version_id = v_job.version_id
        and r.kind = store_rendition.kind
        and r.page is not distinct from store_rendition.page
        and r.image is not distinct from store_rendition.image;
    perform private.require_quota(v_owner_id, size);
    perform private.add_rendition(v_job.version_id, kind, page, key, size, width, height, image);
    if kind = 'page' then
        update public.ingest_jobs as j
        set
            pages_done = least(j.pages_done + 1, j.pages_total),
            progress = greatest(j.progress, least(1, (j.pages_done + 1)::real / greatest(j.pages_total, 1)))
        where j.id = job_id;
    end if;
end;
$$;
comment on function private.store_rendition(uuid, uuid, text, integer, text, bigint, integer, integer, integer) is
'Records a picture that is in the bucket derived as promised, instead of the one before. Raises QUOTA_EXCEEDED,
CONFLICT_STATE.';

create function private.finish_render(job_id uuid, lease_token uuid) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs;
begin
    perform private.hold_spaces();
    perform private.lock_file((select j.file_id from public.ingest_jobs as j where j.id = job_id));
    v_job := private.own_job(job_id, lease_token);
    delete from public.renditions as r
    where r.version_id = v_job.version_id and r.created_at < v_job.started_at;
    delete from public.images as i
    where i.version_id = v_job.version_id and i.created_at < v_job.started_at;
    perform private.finish_job(job_id);
end;
$$;
comment on function private.finish_render(uuid, uuid) is
'Ends the render stage; pictures of an earlier run that were not made again are gone.';

grant execute on function
private.job_renditions(uuid, uuid),
private.promise_rendition(uuid, uuid, text),
private.store_rendition(uuid, uuid, text, integer, text, bigint, integer, integer, integer),
private.finish_render(uuid, uuid)
to narwhal_worker;

-- What clients look at ------------------------------------------------------------------------------

create function private.list_pictures(file_ids uuid[], kind text, pages integer[]) returns jsonb
language plpgsql stable
security definer -- the keys of objects are not in the API
set search_path = ''
as $$
declare
    v_owner_ids uuid[] := private.my_owner_ids();
    v_roots uuid[] := private.granted_roots();
begin
    perform private.require_reader();
    if cardinality(file_ids) > 1000 then
        perform private.raise_invalid(
            'file_ids', 'Ask for at most 1,000 files at once.', jsonb_build_object('expected', 'at most 1000')
        );
    end if;
    if kind is null or kind not in ('thumbnail', 'page', 'image') then
        perform private.raise_invalid(
            'kind', 'Kinds of pictures are thumbnail, page and image.',
            jsonb_build_object('expected', jsonb_build_array('thumbnail', 'page', 'image'))
        );
    end if;
    return jsonb_build_object(
        'items', (
            select coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'file_id', r.file_id, 'version_id', r.version_id, 'kind', r.kind, 'page', r.page,
                        'image', r.image, 'bucket', b.bucket, 'key', b.key, 'width', r.width, 'height', r.height
                    )
                    order by f.place, r.page, r.image
                ), '[]'
            )
            from (
                select i.id, min(i.place) as place from unnest(file_ids) with ordinality as i (id, place) group by i.id
            ) as f
            inner join public.nodes as n on n.id = f.id
            inner join public.renditions as r on r.file_id = n.id and r.version_id = coalesce(
                n.head_version_id, (
                    select v.id from public.file_versions as v where v.file_id = n.id order by v.no desc limit 1
                )
            )
            inner join private.blobs as b on b.id = r.blob_id
            where r.kind = list_pictures.kind
                and (list_pictures.pages is null or r.page = any(list_pictures.pages))
                and private.is_readable(n.owner_id, n.path, n.trashed_at, v_owner_ids, v_roots)
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.list_pictures(uuid[], text, integer[]) is 'Behind public.list_pictures.';
grant execute on function private.list_pictures(uuid[], text, integer[]) to anon, authenticated;

create function public.list_pictures(file_ids uuid[], kind text default 'thumbnail', pages integer[] default null)
returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_pictures(file_ids, kind, pages); $$;
comment on function public.list_pictures(uuid[], text, integer[]) is
'Where the pictures of files are: {items: [{file_id, version_id, kind, page, image, bucket, key, width, height}],
next_cursor}.

kind: thumbnail (one a file, at most 300 by 300 pixels), page (pages drawn at 144 dpi, by number, of a film some of its
frames; pages: only these) or image (what stands in a document, by its number in the table images).
Download them from Storage, or make signed URLs of their keys. Files that the caller cannot see, or that have none (yet),
are left out. They are of the version in service. Raises INVALID_ARGUMENT,
NOT_AUTHENTICATED.';
grant execute on function public.list_pictures(uuid[], text, integer[]) to anon, authenticated;
