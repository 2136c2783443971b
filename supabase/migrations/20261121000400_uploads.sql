-- Uploads: a ticket decides everything before bytes move, the completion trigger decides what they become.

create table public.uploads (
    id uuid primary key default gen_random_uuid(),
    owner_id uuid not null references public.owners on delete cascade,
    file_id uuid references public.nodes on delete set null,
    version_id uuid not null default gen_random_uuid(),
    bucket text not null default 'files',
    key text not null unique,
    mode text not null check (mode in ('standard', 'tus', 'worker')),
    size bigint not null check (size >= 0),
    bytes_received bigint not null default 0,
    mime text,
    sha256 text,
    base_version uuid,
    reading jsonb not null default '{}',
    state text not null default 'open' check (
        state in ('open', 'uploading', 'completed', 'aborted', 'expired', 'refused')
    ),
    created_by uuid not null references auth.users on delete cascade,
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    completed_at timestamptz
);
comment on table public.uploads is 'Upload tickets: the right, the place and the quota for one version of one file.';
comment on column public.uploads.file_id is
'The file; null once an upload that ended without bytes took along the file that waited for it.';
comment on column public.uploads.mode is
'How the bytes come: in one request, in parts, or by a worker that takes them out of another file.';
comment on column public.uploads.size is 'Promised size in bytes; as much quota is reserved while the ticket is open.';
comment on column public.uploads.bytes_received is '0 until completion: Storage''s permission tests are rolled back.';
comment on column public.uploads.sha256 is 'What the client says the bytes hash to, hex; a worker checks it.';
comment on column public.uploads.base_version is
'The version that this one is based on: completion is refused when there is a newer one by then.';
comment on column public.uploads.reading is 'Options that the version will be read with.';
create index uploads_file_id_idx on public.uploads (file_id);
create index uploads_owner_id_idx on public.uploads (owner_id, expires_at) where state in ('open', 'uploading');
create index uploads_owner_id_all_idx on public.uploads (owner_id);
create index uploads_created_by_idx on public.uploads (created_by);

alter table public.uploads enable row level security;

create policy uploaders_can_select on public.uploads
for select to authenticated
using (
    (
        (created_by = (select auth.uid()) and (select private.is_active()))
        or owner_id = any((select private.my_owner_ids())::uuid[])
    )
    and not private.is_trashed(file_id)
);

grant select on public.uploads to authenticated, service_role;

-- Ending tickets -------------------------------------------------------------------------------

create function private.close_upload(upload public.uploads, state text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    update public.uploads as u set state = close_upload.state where u.id = (upload).id;
    perform private.charge(
        (upload).owner_id, 0, -(upload).size, case close_upload.state when 'completed' then 'settle' else 'release' end,
        (upload).id
    );
    if close_upload.state <> 'completed' then
        -- a file that never got a version was only a place held for this upload
        delete from public.nodes as n
        where n.id = (upload).file_id
            and n.status = 'uploading'
            and not exists (select 1 from public.file_versions as v where v.file_id = n.id)
            and not exists (
                select 1 from public.uploads as u where u.file_id = n.id and u.state in ('open', 'uploading')
            );
    end if;
end;
$$;
comment on function private.close_upload(public.uploads, text) is
'Ends an open ticket and returns its reservation. The caller holds the lock on the owner.';

create function private.tg_uploads__release() returns trigger
language plpgsql volatile
security definer -- tickets go with the account that holds them
set search_path = ''
as $$
begin
    -- only accounts take open tickets along: everything else closes them first
    delete from public.nodes as n
    using gone as g
    where n.id = g.file_id
        and g.state in ('open', 'uploading')
        and n.status = 'uploading'
        and not exists (select 1 from public.file_versions as v where v.file_id = n.id)
        and not exists (
            select 1 from public.uploads as u where u.file_id = n.id and u.state in ('open', 'uploading')
        );
    perform private.charge(c.owner_id, 0, c.reserved, 'release', case when c.count = 1 then c.ids[1] end)
    from (
        select g.owner_id, -sum(g.size)::bigint as reserved, count(*) as count, array_agg(g.id) as ids
        from gone as g
        where g.state in ('open', 'uploading')
        group by g.owner_id
        order by g.owner_id
    ) as c;
    return null; -- after trigger
end;
$$;
comment on function private.tg_uploads__release() is
'Returns the reservations of open tickets that are deleted, and removes the files that only waited for them.';

create trigger _500_release
after delete on public.uploads
referencing old table as gone
for each statement execute function private.tg_uploads__release();

create function private.is_overdue(upload public.uploads) returns boolean
language sql stable
security invoker
set search_path = ''
as $$
    select (upload).expires_at < now() or exists (
        select 1 from public.user_profiles as p where p.id = (upload).created_by and not p.is_active
    );
$$;
comment on function private.is_overdue(public.uploads) is
'Whether an open ticket is good for nothing any more: its time is over, or its holder''s account is closed.';

create function private.expire_uploads(owner_id uuid default null) returns integer
language plpgsql volatile
security definer -- called by workers and schedules for every owner
set search_path = ''
as $$
declare
    v_owner_id uuid;
    v_upload public.uploads;
    v_count integer := 0;
begin
    for v_owner_id in
        select distinct u.owner_id
        from public.uploads as u
        where u.state in ('open', 'uploading')
            and private.is_overdue(u)
            and (expire_uploads.owner_id is null or u.owner_id = expire_uploads.owner_id)
        order by 1
    loop
        perform from public.owners as o where o.id = v_owner_id for no key update;
        for v_upload in
            select u.*
            from public.uploads as u inner join public.nodes as n on n.id = u.file_id
            where u.owner_id = v_owner_id and u.state in ('open', 'uploading') and private.is_overdue(u)
            -- whoever holds the node (trash, purge) will end its tickets; waiting here could deadlock
            for update of u, n skip locked
        loop
            perform private.close_upload(v_upload, 'expired');
            v_count := v_count + 1;
        end loop;
    end loop;
    return v_count;
end;
$$;
comment on function private.expire_uploads(uuid) is
'Ends overdue tickets, of one owner or of all, and returns their reservations; how many it ended.';
grant execute on function private.expire_uploads(uuid) to narwhal_worker;

create function private.abort_uploads(node_ids uuid[], keep_documents boolean default false) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_upload public.uploads;
begin
    perform from public.owners as o
    where o.id in (
        select u.owner_id
        from public.uploads as u inner join public.nodes as n on n.id = u.file_id
        where n.path && node_ids and u.state in ('open', 'uploading')
            and not (keep_documents and private.is_document(u))
    )
    order by o.id for no key update;
    for v_upload in
        select u.*
        from public.uploads as u inner join public.nodes as n on n.id = u.file_id
        where n.path && node_ids and u.state in ('open', 'uploading')
            and not (keep_documents and private.is_document(u))
        for update of u
    loop
        perform private.close_upload(v_upload, 'aborted');
    end loop;
end;
$$;
comment on function private.abort_uploads(uuid[], boolean) is
'Ends the open tickets of all files under these nodes; keep_documents: not those of saved documents, whose bytes are
here and nowhere else.';

create function private.abort_uploads_of(user_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_upload public.uploads;
begin
    -- nodes, owners, tickets: the order in which everything locks
    perform from public.nodes as n
    where n.id in (
        select u.file_id from public.uploads as u
        where u.created_by = abort_uploads_of.user_id and u.state in ('open', 'uploading')
    )
    order by n.id for no key update;
    perform from public.owners as o
    where o.id in (
        select u.owner_id from public.uploads as u
        where u.created_by = abort_uploads_of.user_id and u.state in ('open', 'uploading')
    )
    order by o.id for no key update;
    for v_upload in
        select u.* from public.uploads as u
        where u.created_by = abort_uploads_of.user_id and u.state in ('open', 'uploading')
        order by u.id for update skip locked
    loop
        perform private.close_upload(v_upload, 'aborted');
    end loop;
end;
$$;
comment on function private.abort_uploads_of(uuid) is
'Ends the open tickets of one user, whose account is closed. One that opens at the same moment opens nothing any more,
and ends with the next sweep.';

create function private.abort_upload(upload_id uuid) returns void
language plpgsql volatile
security definer -- clients only read tickets
set search_path = ''
as $$
declare
    v_upload public.uploads;
begin
    perform private.require_actor();
    select u.* into v_upload from public.uploads as u where u.id = upload_id and u.created_by = auth.uid();
    if v_upload.id is null then
        perform private.raise_error('NOT_FOUND', 'No such upload.', jsonb_build_object('id', upload_id));
    end if;
    perform from public.nodes as n where n.id = v_upload.file_id for no key update;
    perform from public.owners as o where o.id = v_upload.owner_id for no key update;
    select u.* into v_upload from public.uploads as u where u.id = upload_id for update;
    if v_upload.state not in ('open', 'uploading') then
        perform private.raise_error(
            'CONFLICT_STATE', 'This upload has ended.', jsonb_build_object('state', v_upload.state)
        );
    end if;
    perform private.close_upload(v_upload, 'aborted');
end;
$$;
comment on function private.abort_upload(uuid) is 'Behind public.abort_upload.';
grant execute on function private.abort_upload(uuid) to anon, authenticated;

create function public.abort_upload(upload_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$ select private.abort_upload(upload_id); $$;
comment on function public.abort_upload(uuid) is
'Give up an upload of your own: its reservation returns at once. Raises NOT_FOUND, CONFLICT_STATE.';
grant execute on function public.abort_upload(uuid) to anon, authenticated;

-- Asking for a ticket --------------------------------------------------------------------------

create function private.check_upload(name text, size bigint, mime text, sha256 text, on_conflict text) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    perform private.check_name(name);
    if size is null or size < 0 then
        perform private.raise_invalid('size', 'The size must be the file''s length in bytes.');
    end if;
    if octet_length(mime) > 255 or mime ~ '[[:cntrl:]]' then
        perform private.raise_invalid('mime', 'A media type has at most 255 characters, such as text/plain.');
    end if;
    if sha256 is not null and sha256 !~ '^[0-9a-f]{64}$' then
        perform private.raise_invalid('sha256', 'sha256 must be 64 lower-case hexadecimal digits.');
    end if;
    perform private.check_conflict_policy(on_conflict);
    perform private.check_type(name);
end;
$$;
comment on function private.check_upload(text, bigint, text, text, text) is
'Raises what is wrong with an upload whoever asks, and wherever: INVALID_ARGUMENT, TYPE_NOT_ALLOWED.';

create function private.check_base_version(node public.nodes, base_version uuid) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_current_id uuid := private.current_version_id(node);
begin
    if base_version is not null and base_version is distinct from v_current_id then
        perform private.raise_error(
            'CONFLICT_STATE',
            'The file has changed since the version that this one is based on.',
            jsonb_build_object('head', v_current_id, 'base_version', base_version),
            'Look at the newest version, then upload with base_version = head.'
        );
    end if;
end;
$$;
comment on function private.check_base_version(public.nodes, uuid) is 'Raises CONFLICT_STATE for a stale base.';

create function private.begin_upload(
    name text,
    folder_id uuid,
    size bigint,
    mime text,
    sha256 text,
    on_conflict text,
    file_id uuid,
    base_version uuid,
    options jsonb default '{}'
) returns jsonb
language plpgsql volatile
security definer -- clients only read nodes, owners and uploads
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_file public.nodes; -- the file that gets a new version, if there is one
    v_folder public.nodes;
    v_sibling_id uuid;
    v_owner_id uuid := v_user_id;
    v_name text := name;
    v_blob private.blobs;
    v_upload public.uploads;
    v_reading jsonb := private.check_reading_options(options);
begin
    if file_id is not null then
        v_file := private.require_level(file_id, 'edit');
        if v_file.kind <> 'file' then
            perform private.raise_invalid('file_id', 'Only a file can have versions.');
        end if;
        v_owner_id := v_file.owner_id;
        v_name := coalesce(v_name, v_file.name);
        perform private.check_upload(v_name, size, mime, sha256, 'version');
    else
        perform private.check_upload(v_name, size, mime, sha256, on_conflict);
        if folder_id is not null then
            v_folder := private.require_level(folder_id, 'edit');
            if v_folder.kind <> 'folder' then
                perform private.raise_invalid('folder_id', 'Only a folder can contain files.');
            end if;
            v_owner_id := v_folder.owner_id;
        end if;
        perform private.check_depth(coalesce(cardinality(v_folder.path), 0) + 1);
        v_sibling_id := (private.find_sibling(v_owner_id, folder_id, v_name)).id;
    end if;

    perform private.check_plan(v_owner_id, v_name, size);

    -- nodes before owners, the order in which everything locks
    perform from public.nodes as n
    where n.id in (begin_upload.file_id, begin_upload.folder_id, v_sibling_id)
    order by n.id for no key update;
    -- one ticket at a time for an owner: names, blobs and quota are then decided on what is true
    perform from public.owners as o where o.id = v_owner_id for no key update;
    perform private.expire_uploads(v_owner_id);

    -- what was waited for may have been a trash, or the end of what only waited for its bytes
    if folder_id is not null and file_id is null then
        v_folder := private.require_level(folder_id, 'edit');
    end if;
    if file_id is not null then
        v_file := private.require_level(file_id, 'edit');
    end if;
    if coalesce(v_file.owner_id, v_folder.owner_id, v_user_id) <> v_owner_id then
        perform private.raise_error('LOCKED', 'This was being moved to another owner.', '{}', 'Try again.');
    end if;
    if file_id is null then
        v_file := private.find_sibling(v_owner_id, folder_id, v_name);
        if v_file.id <> v_sibling_id or v_sibling_id is null then
            -- it has come since; waiting for it out of order could deadlock
            perform from public.nodes as n where n.id = v_file.id for no key update skip locked;
            if v_file.id is not null and not found then
                perform private.raise_error(
                    'LOCKED', 'A file of this name is being written.', jsonb_build_object('id', v_file.id), 'Try again.'
                );
            end if;
        end if;
        if v_file.id is not null and on_conflict = 'skip' then
            return jsonb_build_object('skipped', true, 'file_id', v_file.id, 'name', v_file.name);
        elsif v_file.id is not null and on_conflict in ('rename', 'keep_both') then
            v_name := private.free_name(v_owner_id, folder_id, v_name);
            v_file := null;
        elsif v_file.id is not null and (on_conflict = 'fail' or v_file.kind = 'folder') then
            perform private.raise_name_conflict(v_file, v_name);
        end if;
    end if;
    if v_file.id is not null then
        perform private.check_base_version(v_file, base_version);
    else
        v_file.id := gen_random_uuid();
        insert into public.nodes (id, kind, name, parent_id, owner_id, path, mime, status, created_by)
        values (
            v_file.id, 'file', v_name, folder_id, v_owner_id, coalesce(v_folder.path, '{}') || v_file.id,
            begin_upload.mime, 'uploading', v_user_id
        );
    end if;

    perform private.keep_password(v_file.id, options ->> 'password');
    select b.* into v_blob
    from private.blobs as b
    where b.owner_id = v_owner_id and b.sha256 = begin_upload.sha256 and b.size = begin_upload.size
        and b.released_at is null
        -- a hash alone must not open a file to whoever may only write elsewhere in this drive
        and (v_owner_id = any(private.my_owner_ids()) or private.can_read_object(b.bucket, b.key))
    limit 1;
    if v_blob.id is not null then
        return jsonb_build_object(
            'deduplicated', true,
            'file_id', v_file.id,
            'version_id', private.add_version(
                v_file.id, gen_random_uuid(), v_blob, begin_upload.mime, v_user_id, v_reading
            ),
            'name', v_name
        );
    end if;

    perform private.require_quota(v_owner_id, size);
    v_upload.version_id := gen_random_uuid();
    insert into public.uploads (
        owner_id, file_id, version_id, key, mode, size, mime, sha256, base_version, reading, created_by, expires_at
    )
    values (
        v_owner_id, v_file.id, v_upload.version_id,
        format('%s/%s/%s', v_owner_id, v_file.id, v_upload.version_id),
        case when size > (private.setting('uploads.tus_threshold'))::bigint then 'tus' else 'standard' end,
        size, begin_upload.mime, begin_upload.sha256, begin_upload.base_version, v_reading, v_user_id,
        now() + make_interval(secs => (private.setting('uploads.ticket_ttl_s'))::double precision)
    )
    returning * into v_upload;
    perform private.charge(v_owner_id, 0, size, 'reserve', v_upload.id);

    return jsonb_build_object(
        'deduplicated', false,
        'upload_id', v_upload.id,
        'file_id', v_upload.file_id,
        'version_id', v_upload.version_id,
        'name', v_name,
        'bucket', v_upload.bucket,
        'key', v_upload.key,
        'mode', v_upload.mode,
        'chunk_size', (private.setting('uploads.tus_threshold'))::bigint,
        'mime', v_upload.mime,
        'expires_at', v_upload.expires_at
    );
end;
$$;
comment on function private.begin_upload(text, uuid, bigint, text, text, text, uuid, uuid, jsonb) is
'Behind public.begin_upload.';
grant execute on function private.begin_upload(text, uuid, bigint, text, text, text, uuid, uuid, jsonb)
to anon, authenticated;

create function public.begin_upload(
    name text default null,
    folder_id uuid default null,
    size bigint default null,
    mime text default null,
    sha256 text default null,
    on_conflict text default 'fail',
    file_id uuid default null,
    base_version uuid default null,
    options jsonb default '{}'
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$
    select private.begin_upload(name, folder_id, size, mime, sha256, on_conflict, file_id, base_version, options);
$$;
comment on function public.begin_upload(text, uuid, bigint, text, text, text, uuid, uuid, jsonb) is
'Ask for the right to upload one file: {upload_id, file_id, version_id, name, bucket, key, mode, chunk_size, mime,
expires_at, deduplicated}.

Upload the bytes with the Storage SDK to that bucket and key: mode standard in one request, tus in parts of chunk_size
bytes. folder_id: null for your own root. size in bytes, at most what will be sent. sha256 (hex) of bytes that the owner
already has answers {deduplicated: true, file_id, version_id} and needs no upload. on_conflict, when the name exists:
fail, rename (also keep_both), version or replace (both a new version: what the file held stays in its history), or skip,
which answers {skipped: true, file_id, name} and reserves nothing. file_id: a new version of that file, base_version the
version it is based on. options: how to read it, as reprocess_file takes them, the password of a locked document among
them. Raises INVALID_ARGUMENT, NOT_FOUND, FORBIDDEN, CONFLICT_NAME {existing_id, suggested}, CONFLICT_STATE {head},
TYPE_NOT_ALLOWED, FILE_TOO_LARGE, QUOTA_EXCEEDED {used, reserved, limit, requested}.';
grant execute on function public.begin_upload(text, uuid, bigint, text, text, text, uuid, uuid, jsonb)
to anon, authenticated;

-- Versions -------------------------------------------------------------------------------------

create function private.add_version(
    file_id uuid, version_id uuid, blob private.blobs, mime text, created_by uuid, reading jsonb default '{}'
) returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    insert into public.file_versions (id, file_id, no, blob_id, size, sha256, mime, reading, created_by)
    select
        add_version.version_id, add_version.file_id, coalesce(max(v.no), 0) + 1,
        (blob).id, (blob).size, (blob).sha256, add_version.mime, add_version.reading, add_version.created_by
    from public.file_versions as v
    where v.file_id = add_version.file_id;

    update public.nodes as n
    set status = 'queued', size = (blob).size, mime = coalesce(add_version.mime, n.mime), updated_at = now()
    where n.id = add_version.file_id;

    perform private.enqueue(add_version.version_id, private.first_stage());
    return add_version.version_id;
end;
$$;
comment on function private.add_version(uuid, uuid, private.blobs, text, uuid, jsonb) is
'Gives a file its next version and queues its ingestion. The caller holds the lock on the owner.';

-- What Storage does ----------------------------------------------------------------------------

create function private.find_ticket(key text, user_id uuid) returns public.uploads
language sql stable
security definer -- the caller may have been deactivated, and policies ask before the row exists
set search_path = ''
as $$
    select u.*
    from public.uploads as u
    where u.key = find_ticket.key
        and u.created_by = find_ticket.user_id
        -- whoever became a viewer since, or lost the account, writes no more
        and private.user_has_permission(find_ticket.user_id, 'edit_documents')
        -- a completed ticket stays good, so that a repeated upload meets Storage's own 409
        and (u.state = 'completed' or (u.state in ('open', 'uploading') and u.expires_at > now()));
$$;
comment on function private.find_ticket(text, uuid) is 'The ticket that lets a user write this key, or nothing.';

create function private.holds_ticket(key text) returns boolean
language sql stable
security definer -- policies on storage.objects run as the caller
set search_path = ''
as $$ select (private.find_ticket(key, auth.uid())).id is not null; $$;
comment on function private.holds_ticket(text) is 'May the caller write this key of the bucket files?';
grant execute on function private.holds_ticket(text) to authenticated;

create function private.complete_upload(object_key text, user_id text, size bigint) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_upload public.uploads;
    v_owner public.owners;
    v_blob private.blobs;
begin
    -- account, node, owner, ticket: the order in which everything locks
    perform private.hold_account(u.created_by) from public.uploads as u where u.key = object_key;
    perform from public.nodes as n
    where n.id = (select u.file_id from public.uploads as u where u.key = object_key)
    for no key update;
    select o.* into v_owner
    from public.owners as o
    where o.id = (select u.owner_id from public.uploads as u where u.key = object_key)
    for no key update;
    select u.* into v_upload from public.uploads as u where u.key = object_key for update;

    if v_upload.id is null or v_upload.created_by::text is distinct from user_id
        or v_upload.state not in ('open', 'uploading') or v_upload.expires_at <= now() then
        perform private.raise_storage_error('NO_TICKET', 'there is no open ticket for this key');
    end if;
    if complete_upload.size > v_upload.size then
        perform private.raise_storage_error('FILE_TOO_LARGE', 'more bytes than the ticket was made for');
    end if;
    -- the limit may have shrunk since the ticket
    if v_owner.storage_used + complete_upload.size > v_owner.storage_limit then
        perform private.raise_storage_error('QUOTA_EXCEEDED', 'there is not enough space left');
    end if;

    if v_upload.base_version is not null and v_upload.base_version is distinct from (
        select private.current_version_id(n) from public.nodes as n where n.id = v_upload.file_id
    ) then
        perform private.raise_storage_error(
            'CONFLICT_STATE', 'the file has changed since the version that this one is based on'
        );
    end if;

    insert into private.blobs (owner_id, bucket, key, size)
    values (v_upload.owner_id, v_upload.bucket, v_upload.key, complete_upload.size)
    returning * into v_blob;
    perform private.close_upload(v_upload, 'completed');
    update public.uploads as u
    set bytes_received = complete_upload.size, completed_at = now()
    where u.id = v_upload.id;
    perform private.add_version(
        v_upload.file_id, v_upload.version_id, v_blob, v_upload.mime, v_upload.created_by, v_upload.reading
    );
end;
$$;
comment on function private.complete_upload(text, text, bigint) is
'Turns stored bytes into a version: checks size and quota, settles the reservation, queues ingestion, all in the
upload''s own transaction. Raises narwhal/NO_TICKET, FILE_TOO_LARGE, QUOTA_EXCEEDED, CONFLICT_STATE (a stale base).';

create function private.tg_objects__guard_upload() returns trigger
language plpgsql volatile
security definer -- the uploader may not read tickets of deactivated accounts, nor settings
set search_path = ''
as $$
declare
    -- Storage's permission test runs as the caller; its real write as the service, with the caller in owner_id
    v_user_id uuid := coalesce(auth.uid(), nullif(new.owner_id, '')::uuid, private.document_writer(new.name));
    v_upload public.uploads := private.find_ticket(new.name, v_user_id);
    v_file public.nodes;
    v_level text;
begin
    if v_upload.id is null then
        perform private.raise_storage_error(
            'NO_TICKET', 'call begin_upload first, and upload to the key it returns before it expires'
        );
    end if;
    -- contentLength counts the multipart envelope too; the exact check is at completion
    if (new.metadata ->> 'contentLength')::bigint > v_upload.size + 65536
        or (new.metadata ->> 'size')::bigint > v_upload.size then
        perform private.raise_storage_error('FILE_TOO_LARGE', 'more bytes than the ticket was made for');
    end if;
    select n.* into v_file from public.nodes as n where n.id = v_upload.file_id;
    v_level := case
        when auth.uid() is not null then private.my_level(v_file)
        -- also with a signed upload URL, long after the permission test; a link's grant is not sent then
        when exists (
            select 1 from public.share_links as l
            where l.node_id = any(v_file.path)
                and l.level = 'edit'
                and coalesce(private.link_problem(l), 'used_up') = 'used_up'
        ) then 'edit'
        else private.user_level(v_user_id, v_file)
    end;
    if v_upload.state <> 'completed' and coalesce(private.level_rank(v_level), 0) < private.level_rank('edit') then
        perform private.raise_storage_error('FORBIDDEN', 'you may no longer write here');
    end if;
    return new;
end;
$$;
comment on function private.tg_objects__guard_upload() is
'Refuses early, with a text that survives Storage, whatever has no ticket or exceeds it.';

create function private.tg_objects__guard_version() returns trigger
language plpgsql volatile
security definer -- Storage writes as its service role, which has no rights in private
set search_path = ''
as $$
begin
    perform private.raise_storage_error('CONFLICT_STATE', 'the bytes of this ticket are already stored');
    return new;
end;
$$;
comment on function private.tg_objects__guard_version() is
'Refuses to replace the bytes of a version: of two uploads at once with one ticket, the second would.';

create function private.tg_objects__complete_upload() returns trigger
language plpgsql volatile
security definer -- Storage writes as its service role, which has no rights in private
set search_path = ''
as $$
declare
    v_writer_id uuid := private.document_writer(new.name);
begin
    perform private.complete_upload(
        new.name, coalesce(nullif(new.owner_id, ''), v_writer_id::text), (new.metadata ->> 'size')::bigint
    );
    -- its ticket stays open in the trash; the lock on the file is held by now
    if v_writer_id is not null and exists (
        select 1 from public.uploads as u inner join public.nodes as n on n.id = u.file_id
        where u.key = new.name and n.trashed_at is not null
    ) then
        perform private.raise_storage_error('NO_TICKET', 'the file is in the trash');
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_objects__complete_upload() is
'Fires on Storage''s real write only (its permission test has no size), so it runs once per stored object.';
