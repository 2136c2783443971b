-- Renditions: pictures that workers make of a version; and who may read which object of Storage.

create table public.renditions (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    version_id uuid not null references public.file_versions on delete cascade,
    kind text not null check (kind in ('thumbnail', 'page', 'image')),
    page integer check (page > 0),
    image integer check (image >= 0),
    blob_id uuid not null references private.blobs on delete cascade,
    width integer not null check (width > 0),
    height integer not null check (height > 0),
    created_at timestamptz not null default clock_timestamp(),
    unique nulls not distinct (version_id, kind, page, image, width),
    check ((kind = 'page') = (page is not null)),
    check ((kind = 'image') = (image is not null))
);
comment on table public.renditions is
'Pictures of a version, in the bucket derived. They belong to the version: seen by its readers, gone with it.';
comment on column public.renditions.page is 'From 1; null for a thumbnail of the whole.';
comment on column public.renditions.image is 'Number of one of the version''s images; null for the other kinds.';
comment on column public.renditions.width is 'In pixels.';
create index renditions_file_id_idx on public.renditions (file_id);
create index renditions_blob_id_idx on public.renditions (blob_id);

alter table public.renditions enable row level security;

create policy readers_can_select on public.renditions
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

grant select on public.renditions to anon, authenticated, service_role;

create function private.add_rendition(
    version_id uuid, kind text, page integer, key text, size bigint, width integer, height integer,
    image integer default null
) returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_id uuid;
    v_file_id uuid;
    v_blob_id uuid;
begin
    select v.file_id into v_file_id from public.file_versions as v where v.id = add_rendition.version_id;
    delete from public.renditions as r -- of an earlier run
    where r.version_id = add_rendition.version_id
        and r.kind = add_rendition.kind
        and r.page is not distinct from add_rendition.page
        and r.image is not distinct from add_rendition.image
        and r.width = add_rendition.width;
    insert into private.blobs (owner_id, bucket, key, size)
    select n.owner_id, 'derived', add_rendition.key, add_rendition.size
    from public.nodes as n
    where n.id = v_file_id
    returning id into v_blob_id;
    insert into public.renditions (file_id, version_id, kind, page, image, blob_id, width, height)
    values (
        v_file_id, add_rendition.version_id, add_rendition.kind, add_rendition.page, add_rendition.image, v_blob_id,
        add_rendition.width, add_rendition.height
    )
    returning id into v_id;
    return v_id;
end;
$$;
comment on function private.add_rendition(uuid, text, integer, text, bigint, integer, integer, integer) is
'Records a picture that a worker has stored in the bucket derived; its bytes count for the owner. The caller holds the
locks on the file and its owner.';

create function private.tg_renditions__delete_blobs() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    delete from private.blobs as b
    using gone as g
    where b.id = g.blob_id
        and not exists (select 1 from public.renditions as r where r.blob_id = b.id);
    return null; -- after trigger
end;
$$;
comment on function private.tg_renditions__delete_blobs() is 'Deletes blobs whose last rendition went.';

create trigger _500_delete_blobs
after delete on public.renditions
referencing old table as gone
for each statement execute function private.tg_renditions__delete_blobs();

-- Who may read which object --------------------------------------------------------------------

create function private.reads_object(bucket text, key text, owner_ids uuid[], roots uuid[]) returns boolean
language sql stable
security definer -- policies on storage.objects run as the caller, who cannot read blobs
set search_path = ''
as $$
    select exists (
        select 1
        from private.blobs as b
        inner join public.file_versions as v on v.blob_id = b.id
        inner join public.nodes as n on n.id = v.file_id
        where b.bucket = reads_object.bucket
            and b.key = reads_object.key
            and private.is_readable(n.owner_id, n.path, n.trashed_at, owner_ids, roots)
    ) or exists (
        select 1
        from private.blobs as b
        inner join public.renditions as r on r.blob_id = b.id
        inner join public.nodes as n on n.id = r.file_id
        where b.bucket = reads_object.bucket
            and b.key = reads_object.key
            and private.is_readable(n.owner_id, n.path, n.trashed_at, owner_ids, roots)
    );
$$;
comment on function private.reads_object(text, text, uuid[], uuid[]) is
'Whether an object belongs to a file that is readable with these owners and roots.';

create function private.can_read_object(bucket text, key text) returns boolean
language sql stable
security definer -- blobs are not in the API
set search_path = ''
as $$ select private.reads_object(bucket, key, private.my_owner_ids(), private.granted_roots()); $$;
comment on function private.can_read_object(text, text) is
'May the caller read this object? True when it belongs to a readable file, as its bytes or as a picture of it.';

create function private.open_object(bucket text, key text, owner_ids uuid[], roots uuid[]) returns boolean
language plpgsql volatile
security definer -- blobs, links and grants are closed to those who ask
set search_path = ''
as $$
declare
    v_operation text := coalesce(current_setting('storage.operation', true), '');
    v_link public.share_links;
begin
    if not private.reads_object(bucket, key, owner_ids, roots) then
        return false;
    end if;
    v_link := private.my_link();
    if v_link.id is null
        or bucket = 'derived' -- looking at a picture is no download
        -- names, sizes and permission tests, as supabase/storage calls them; all else may read bytes
        or v_operation in (
            'storage.object.list', 'storage.object.list_v2', 'storage.object.info_authenticated',
            'object.get_authenticated_info', 'object.head_authenticated_info',
            'storage.object.upload', 'storage.object.upload_update', 'storage.object.move',
            'storage.object.delete', 'storage.object.delete_many',
            'storage.s3.object.list', 'storage.s3.object.info', 'storage.s3.object.get_tagging'
        )
        or v_operation like 'storage.tus.%'
        -- not through the link
        or private.reads_object(bucket, key, owner_ids, private.shared_roots()) then
        return true;
    end if;
    return private.count_download(
        v_link, bucket, key, v_operation in ('storage.object.sign', 'storage.object.sign_many')
    );
end;
$$;
comment on function private.open_object(text, text, uuid[], uuid[]) is
'May the caller read this object, here and now? What can_read_object says, and for holders of a link a download that is
left: the policy of storage.objects asks when Storage reads a row, and storage.operation() tells what for. VOLATILE,
since it counts. owner_ids and roots are the caller''s, computed once a statement: computing them for each object would
make a list of a few hundred take seconds.';
grant execute on function private.open_object(text, text, uuid[], uuid[]) to anon, authenticated;
