-- Images: the pictures in documents, and what picture files say of themselves. The render stage finds them. Where a
-- photo was taken is kept apart, for its owner alone.

create table public.images (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    version_id uuid not null references public.file_versions on delete cascade,
    idx integer not null check (idx >= 0),
    page integer check (page > 0),
    box real[] check (cardinality(box) = 4),
    context text not null default '',
    description text not null default '',
    mime text,
    width integer not null check (width > 0),
    height integer not null check (height > 0),
    sha256 text not null check (sha256 ~ '^[0-9a-f]{64}$'),
    facts jsonb not null default '{}' check (jsonb_typeof(facts) = 'object'),
    created_at timestamptz not null default clock_timestamp(),
    unique (version_id, idx)
);
comment on table public.images is
'Pictures in a version: those in a document, or the picture that the file is. Seen by its readers.';
comment on column public.images.idx is 'Order in the version, with gaps. Its rendition has the same number.';
comment on column public.images.page is 'Page, slide or sheet from 1; null where the format has none.';
comment on column public.images.box is '[x0, y0, x1, y1], 0..1 of the page from the top left; null where unknown.';
comment on column public.images.context is 'The text around it.';
comment on column public.images.description is 'What the document says that it shows; empty where it says nothing.';
comment on column public.images.width is 'In pixels, as in the file, turned as it is shown.';
comment on column public.images.sha256 is 'Of its bytes in the file: the same picture in two documents has the same.';
comment on column public.images.facts is
'What a photo says of itself: {make, model, lens, software, taken_at, exposure_s, f_number, iso, focal_length_mm}, as
far as known. Not where it was taken: see image_locations.';
create index images_file_id_idx on public.images (file_id);
create index images_sha256_idx on public.images (sha256);

create table public.image_locations (
    image_id uuid primary key references public.images on delete cascade,
    file_id uuid not null references public.nodes on delete cascade,
    latitude double precision not null check (latitude between -90 and 90),
    longitude double precision not null check (longitude between -180 and 180),
    altitude_m real
);
comment on table public.image_locations is
'Where photos were taken. Only their owner reads this, whoever else may read the file.';
comment on column public.image_locations.latitude is 'In degrees, north positive (WGS 84).';
comment on column public.image_locations.longitude is 'In degrees, east positive.';
create index image_locations_file_id_idx on public.image_locations (file_id);

alter table public.images enable row level security;
alter table public.image_locations enable row level security;

create policy readers_can_select on public.images
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

create policy owners_can_select on public.image_locations
for select to authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id and n.owner_id = any((select private.my_owner_ids())::uuid[])
));

grant select on public.images to anon, authenticated, service_role;
grant select on public.image_locations to authenticated, service_role;

create function private.store_image(job_id uuid, lease_token uuid, image jsonb) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
    v_id uuid;
begin
    delete from public.images as i where i.version_id = v_job.version_id and i.idx = (image ->> 'idx')::integer;
    insert into public.images (
        file_id, version_id, idx, page, box, context, description, mime, width, height, sha256, facts
    )
    select
        v_job.file_id, v_job.version_id, r.idx, r.page, r.box, r.context, r.description, r.mime, r.width, r.height,
        r.sha256, r.facts
    from jsonb_to_record(image) as r (
        idx integer, page integer, box real[], context text, description text, mime text, width integer,
        height integer, sha256 text, facts jsonb
    )
    returning id into v_id;
    insert into public.image_locations (image_id, file_id, latitude, longitude, altitude_m)
    select v_id, v_job.file_id, r.latitude, r.longitude, r.altitude_m
    from jsonb_to_record(image -> 'location') as r (
        latitude double precision, longitude double precision, altitude_m real
    )
    where image -> 'location' is distinct from 'null';
end;
$$;
comment on function private.store_image(uuid, uuid, jsonb) is
'Records an image of the version: {idx, page, box, context, description, mime, width, height, sha256, facts, location
{latitude, longitude, altitude_m}}, instead of the one with its number.';
grant execute on function private.store_image(uuid, uuid, jsonb) to narwhal_worker;

create function private.copy_images(source_version_id uuid, target_version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into public.images (
        file_id, version_id, idx, page, box, context, description, mime, width, height, sha256, facts
    )
    select
        t.file_id, t.id, i.idx, i.page, i.box, i.context, i.description, i.mime, i.width, i.height, i.sha256, i.facts
    from public.images as i cross join public.file_versions as t
    where i.version_id = source_version_id and t.id = target_version_id;

    insert into public.image_locations (image_id, file_id, latitude, longitude, altitude_m)
    select c.id, c.file_id, l.latitude, l.longitude, l.altitude_m
    from public.images as i
    inner join public.image_locations as l on l.image_id = i.id
    inner join public.images as c on c.version_id = target_version_id and c.idx = i.idx
    inner join public.nodes as f on f.id = i.file_id
    inner join public.nodes as n on n.id = c.file_id
    -- a copy for somebody else does not tell them
    where i.version_id = source_version_id and n.owner_id = f.owner_id;
$$;
comment on function private.copy_images(uuid, uuid) is 'Gives a version the images of another one with the same bytes.';
