-- Versions: what a file has held. A restored or copied version takes over bytes, text and vectors from another one.

insert into private.settings (key, value, description) values
('versions.keep_count', '100', 'Versions of a file that are kept, the newest first; null keeps all.'),
('versions.keep_days', 'null', 'Days that versions before the current one are kept; null keeps them for ever.');

create function private.current_version_id(node public.nodes) returns uuid
language sql stable
security invoker
set search_path = ''
as $$
    select v.id
    from public.file_versions as v
    where v.file_id = (node).id
        and ((node).head_version_id is null or v.id = (node).head_version_id or v.status in ('queued', 'processing'))
    order by v.no desc
    limit 1;
$$;
comment on function private.current_version_id(public.nodes) is
'What a change is based on: the newest version, those that failed after the head apart; null before the first.';

-- Taking over ----------------------------------------------------------------------------------

create function private.take_blob(blob_id uuid, owner_id uuid) returns private.blobs
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_source private.blobs;
    v_blob private.blobs;
begin
    select b.* into v_source from private.blobs as b where b.id = take_blob.blob_id and b.released_at is null;
    if v_source.id is null then
        perform private.raise_error(
            'CONFLICT_STATE', 'The bytes of this version are gone.', '{}', 'Choose another version.'
        );
    end if;
    if v_source.owner_id = take_blob.owner_id then
        return v_source;
    end if;
    -- the same bytes are paid for once
    select b.* into v_blob
    from private.blobs as b
    where b.owner_id = take_blob.owner_id
        and b.released_at is null
        and b.bucket = v_source.bucket
        and (b.key = v_source.key or (b.sha256 = v_source.sha256 and b.size = v_source.size))
    order by b.key = v_source.key desc, b.created_at, b.id
    limit 1;
    if v_blob.id is null then
        perform private.require_quota(take_blob.owner_id, v_source.size);
        insert into private.blobs (owner_id, bucket, key, size, sha256)
        values (take_blob.owner_id, v_source.bucket, v_source.key, v_source.size, v_source.sha256)
        returning * into v_blob;
    end if;
    return v_blob;
end;
$$;
comment on function private.take_blob(uuid, uuid) is
'The blob itself for its own owner; for another one a row of theirs over the same object, charged to them. The caller
holds the lock on that owner. Raises CONFLICT_STATE when the bytes are gone, QUOTA_EXCEEDED.';

create function private.copy_index(source_version_id uuid, target_version_id uuid) returns void
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

    insert into public.pages (file_id, version_id, page, text, width, height, source, layout)
    select t.file_id, t.id, p.page, p.text, p.width, p.height, p.source, p.layout
    from public.pages as p cross join public.file_versions as t
    where p.version_id = source_version_id and t.id = target_version_id;

    insert into public.chunks (
        file_id, version_id, idx, page, content, char_start, char_end, bboxes, heading, context, language,
        time_range_ms, boost, text_hash
    )
    select
        t.file_id, t.id, c.idx, c.page, c.content, c.char_start, c.char_end, c.bboxes, c.heading, c.context,
        c.language, c.time_range_ms, c.boost, c.text_hash
    from public.chunks as c cross join public.file_versions as t
    where c.version_id = source_version_id and t.id = target_version_id;

    insert into public.renditions (file_id, version_id, kind, page, image, blob_id, width, height)
    select t.file_id, t.id, r.kind, r.page, r.image, (private.take_blob(r.blob_id, v_owner_id)).id, r.width, r.height
    from public.renditions as r cross join public.file_versions as t
    where r.version_id = source_version_id and t.id = target_version_id;
    perform private.copy_images(source_version_id, target_version_id);

    if v_source_owner_id <> v_owner_id then
        insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
        select v_owner_id, e.space_id, e.text_hash, e.embedding
        from private.text_vectors as e
        inner join public.embedding_spaces as s on s.id = e.space_id and s.state <> 'retiring'
        where e.owner_id = v_source_owner_id
            and e.text_hash in (select c.text_hash from public.chunks as c where c.version_id = target_version_id)
        order by e.text_hash -- as whoever stores vectors
        on conflict do nothing;
    end if;

    -- what a file does not need may not be done yet
    insert into public.ingest_jobs (
        file_id, version_id, stage, priority, state, progress, pages_done, pages_total, started_at, finished_at
    )
    select
        t.file_id, t.id, j.stage, j.priority, case when d.is_done then 'done' else 'queued' end, d.is_done::integer,
        case when d.is_done then j.pages_done else 0 end, j.pages_total, case when d.is_done then now() end,
        case when d.is_done then now() end
    from public.ingest_jobs as j
    cross join lateral (select j.state = 'done' as is_done) as d
    cross join public.file_versions as t
    where j.version_id = source_version_id and j.space_id is null and j.stage <> 'unpack' and t.id = target_version_id;
    perform private.enqueue_unpack(target_version_id); -- what is inside of this file may be of another version

    -- a space that came since, or whose vectors are gone, is computed; no other
    insert into public.ingest_jobs (
        file_id, version_id, stage, space_id, priority, state, progress, started_at, finished_at
    )
    select
        t.file_id, t.id, 'embed_text', s.id, case when private.is_required('embed_text', s.id) then 0 else 2 end,
        case when s.is_complete then 'done' else 'queued' end, s.is_complete::integer, case when s.is_complete then now() end, case when s.is_complete then now() end
    from public.file_versions as t
    cross join (
        select e.id, not exists (
            select 1
            from public.chunks as c
            where c.version_id = target_version_id
                and not exists (
                    select 1 from private.text_vectors as x
                    where x.owner_id = v_owner_id and x.space_id = e.id and x.text_hash = c.text_hash
                )
        ) as is_complete
        from public.embedding_spaces as e
        where e.kind = 'text' and e.state <> 'retiring'
    ) as s
    where t.id = target_version_id
        and exists (select 1 from public.chunks as c where c.version_id = target_version_id);
    perform private.copy_pictures(source_version_id, target_version_id);
    perform private.copy_transcript(source_version_id, target_version_id);
    perform private.copy_insights(source_version_id, target_version_id);
    perform pg_notify('narwhal_jobs', '');
end;
$$;
comment on function private.copy_index(uuid, uuid) is
'Gives a version the pages, pictures, chunks, vectors and finished jobs of another one with the same bytes. What has no
vector yet is queued. The caller holds the locks on the statistics of the owner.';

create function private.copy_terms(source_version_id uuid, target_version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_source record;
    v_target public.nodes;
begin
    select f.* into v_source
    from public.file_versions as v
    inner join private.indexed_files as f on f.file_id = v.file_id and f.version_id = v.id
    where v.id = source_version_id;
    if v_source.file_id is null then
        return; -- it is not in service: its text is read again
    end if;
    select n.* into v_target
    from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
    where v.id = target_version_id;
    if v_target.id = v_source.file_id then
        update private.indexed_files as f set version_id = target_version_id where f.file_id = v_target.id;
        return;
    end if;

    perform private.unserve_version(v_target.head_version_id);
    insert into private.indexed_files (
        file_id, owner_id, version_id, chunk_count, total_length, languages, last_page, sketches
    )
    values (
        v_target.id, v_target.owner_id, target_version_id, v_source.chunk_count, v_source.total_length,
        v_source.languages, v_source.last_page, v_source.sketches
    );
    insert into private.chunk_terms (owner_id, lexeme, file_id, part, entries)
    select v_target.owner_id, t.lexeme, v_target.id, t.part, t.entries
    from private.chunk_terms as t
    where t.file_id = v_source.file_id and t.part >= 0;
end;
$$;
comment on function private.copy_terms(uuid, uuid) is
'Puts a version into the keyword index with the terms of another one, when that is in service, without reading its
text; the chunks of both are the same.';

create function private.append_version(file_id uuid, source_version_id uuid, created_by uuid) returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_source public.file_versions;
    v_version public.file_versions;
    v_blob private.blobs;
begin
    select n.* into v_file from public.nodes as n where n.id = append_version.file_id;
    select v.* into v_source from public.file_versions as v where v.id = source_version_id;
    v_blob := private.take_blob(v_source.blob_id, v_file.owner_id);
    insert into private.file_passwords (file_id, password, given_at)
    select append_version.file_id, p.password, p.given_at
    from private.file_passwords as p
    where p.file_id = v_source.file_id
    on conflict do nothing;

    if v_source.status not in ('ready', 'skipped') or exists (
        select 1 from public.ingest_jobs as j
        where j.version_id = v_source.id
            and j.space_id is null and j.state <> 'done' and private.is_required(j.stage, null)
    ) then
        return private.add_version(
            file_id, gen_random_uuid(), v_blob, v_source.mime, append_version.created_by, v_source.reading
        );
    end if;

    -- texts are not forgotten between the look for their vectors and the chunks that need them
    perform private.lock_statistics(v_file.owner_id);
    perform private.hold_spaces();
    insert into public.file_versions (
        file_id, no, blob_id, size, sha256, mime, format, status, error_code, error_message, language, is_paged,
        page_count, reading, truncated_by, created_by
    )
    select
        append_version.file_id, coalesce(max(v.no), 0) + 1, v_blob.id, v_blob.size, v_source.sha256, v_source.mime,
        v_source.format, 'processing', v_source.error_code, v_source.error_message, v_source.language,
        v_source.is_paged, v_source.page_count, v_source.reading, v_source.truncated_by, append_version.created_by
    from public.file_versions as v
    where v.file_id = append_version.file_id
    returning * into v_version;
    update public.nodes as n
    set status = 'processing', size = v_version.size, mime = coalesce(v_version.mime, n.mime), updated_at = now()
    where n.id = append_version.file_id;

    perform private.copy_index(v_source.id, v_version.id);
    if v_source.status = 'skipped' then
        perform private.serve_unread(v_version.id);
        perform private.set_version_status(v_version.id, 'skipped', v_source.error_code, v_source.error_message);
    else
        if v_file.head_version_id is null or not exists (
            select 1 from public.ingest_jobs as j
            where j.version_id = v_version.id and j.state <> 'done' and private.is_required(j.stage, j.space_id)
        ) then
            perform private.copy_terms(v_source.id, v_version.id);
        end if;
        perform private.advance_version(v_version.id);
    end if;
    return v_version.id;
end;
$$;
comment on function private.append_version(uuid, uuid, uuid) is
'Gives a file its next version with the bytes and the index of another version, of this or of another file: it becomes
the head at once, without reading or embedding anything. A source that was never completely read is read again. The
caller holds the locks on both files and on the owner. Raises CONFLICT_STATE when the bytes are gone, QUOTA_EXCEEDED.';

-- Restoring ------------------------------------------------------------------------------------

create function private.lock_file(file_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    perform from public.nodes as n where n.id = lock_file.file_id for no key update;
    perform from public.owners as o
    where o.id = (select n.owner_id from public.nodes as n where n.id = lock_file.file_id)
    for no key update;
end;
$$;
comment on function private.lock_file(uuid) is 'Locks a file and its owner. Read again after it.';

create function private.require_version(file_id uuid, version_id uuid) returns public.file_versions
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_version public.file_versions;
begin
    select v.* into v_version
    from public.file_versions as v
    where v.id = require_version.version_id and v.file_id = require_version.file_id;
    if v_version.id is null then
        perform private.raise_error(
            'NOT_FOUND', 'The file has no such version.', jsonb_build_object('id', version_id),
            'file_details lists the versions.'
        );
    end if;
    return v_version;
end;
$$;
comment on function private.require_version(uuid, uuid) is 'A version of this file. Raises NOT_FOUND.';

create function private.restore_version(file_id uuid, version_id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read versions
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_version public.file_versions;
begin
    perform private.require_writer();
    perform private.require_unpurged(file_id);
    perform private.require_level(file_id, 'edit');
    perform private.lock_file(file_id);
    v_file := private.require_level(file_id, 'edit');
    v_version := private.require_version(file_id, version_id);
    if not exists (
        select 1 from public.file_versions as v where v.file_id = v_file.id and v.no > v_version.no
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'This is the newest version already.', jsonb_build_object('head', v_file.head_version_id)
        );
    end if;
    v_version.id := private.append_version(v_file.id, v_version.id, auth.uid());
    return (select to_jsonb(v) - 'blob_id' from public.file_versions as v where v.id = v_version.id);
end;
$$;
comment on function private.restore_version(uuid, uuid) is 'Behind public.restore_version.';
grant execute on function private.restore_version(uuid, uuid) to anon, authenticated;

create function public.restore_version(file_id uuid, version_id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.restore_version(file_id, version_id); $$;
comment on function public.restore_version(uuid, uuid) is
'Make an earlier version of a file its newest again, as a version of its own, and return that.

It takes no space, and nothing is read or embedded again: searches find it at once. Shares and links stay. Needs level
edit. Raises CONFLICT_STATE for the newest version and for one whose bytes are gone (rejected), NOT_FOUND, FORBIDDEN,
LOCKED.';
grant execute on function public.restore_version(uuid, uuid) to anon, authenticated;

-- Removing -------------------------------------------------------------------------------------

create function private.delete_version(version public.file_versions) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_id uuid;
    v_texts bytea[];
    v_pictures bytea[];
begin
    select n.owner_id into v_owner_id from public.nodes as n where n.id = (version).file_id;
    -- a worker that reads it has lost its lease from here on
    update public.ingest_jobs as j
    set state = 'cancelled', lease_token = null, lease_expires_at = null, finished_at = now()
    where j.version_id = (version).id and j.state in ('queued', 'running');
    perform private.lock_statistics(v_owner_id);
    v_texts := array(select private.text_hashes(array[(version).id]));
    v_pictures := array(select p.picture_hash from private.page_pictures as p where p.version_id = (version).id);
    delete from public.uploads as u where u.version_id = (version).id;
    delete from public.file_versions as v where v.id = (version).id;
    perform private.forget_texts(array[v_owner_id], v_texts);
    perform private.forget_pictures(array[v_owner_id], v_pictures);
end;
$$;
comment on function private.delete_version(public.file_versions) is
'Removes a version that is not the head, with its text and, unless another version has them, its bytes. The caller has
called lock_file.';

create function private.purge_version(file_id uuid, version_id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read versions
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_version public.file_versions;
    v_newest public.file_versions;
begin
    perform private.require_writer();
    perform private.require_purge(file_id, false);
    perform private.lock_file(file_id);
    v_file := private.require_purge(file_id, false);
    v_version := private.require_version(file_id, version_id);
    if v_version.id = v_file.head_version_id then
        perform private.raise_error(
            'CONFLICT_STATE', 'This is the version that the file has now.',
            jsonb_build_object('head', v_file.head_version_id), 'Restore another version first, or purge the file.'
        );
    end if;
    select v.* into v_newest
    from public.file_versions as v
    where v.file_id = v_file.id and v.id <> v_version.id
    order by v.no desc
    limit 1;
    if v_newest.id is null then
        perform private.raise_error(
            'CONFLICT_STATE', 'This is the only version.', jsonb_build_object('head', null), 'Purge the file instead.'
        );
    end if;

    perform private.delete_version(v_version);
    if v_newest.no < v_version.no then
        update public.nodes as n
        set size = v_newest.size, mime = coalesce(v_newest.mime, n.mime), updated_at = now()
        where n.id = v_file.id;
        perform private.set_version_status(
            v_newest.id, v_newest.status, v_newest.error_code, v_newest.error_message
        );
    end if;
    return to_jsonb(v_version) - 'blob_id';
end;
$$;
comment on function private.purge_version(uuid, uuid) is 'Behind public.purge_version.';
grant execute on function private.purge_version(uuid, uuid) to anon, authenticated;

create function public.purge_version(file_id uuid, version_id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.purge_version(file_id, version_id); $$;
comment on function public.purge_version(uuid, uuid) is
'Delete one version of a file for good and return what it was. Its text goes and its quota returns at once, unless
another version has the same bytes; the object follows through a worker.

Needs level manage, or level edit and the permission delete_documents. Raises CONFLICT_STATE {head} for the version that
the file has now and for its only one, NOT_FOUND, FORBIDDEN, LOCKED.';
grant execute on function public.purge_version(uuid, uuid) to anon, authenticated;

create function private.expired_versions(owner_id uuid default null) returns setof public.file_versions
language sql stable
security invoker
set search_path = ''
as $$
    select v.*
    from public.nodes as n
    inner join public.file_versions as h on h.id = n.head_version_id
    inner join public.file_versions as v on v.file_id = n.id and v.no < h.no
    where n.purged_at is null
        and (expired_versions.owner_id is null or n.owner_id = expired_versions.owner_id)
        and (
            v.created_at < now() - make_interval(days => (private.setting('versions.keep_days') #>> '{}')::integer)
            or (private.setting('versions.keep_count') #>> '{}')::integer <= (
                select count(*) from public.file_versions as l where l.file_id = n.id and l.no > v.no
            )
        );
$$;
comment on function private.expired_versions(uuid) is
'Versions before the current one that are older than versions.keep_days, or not among the newest versions.keep_count.';

create function private.expire_versions(max_versions integer) returns integer
language plpgsql volatile
security definer -- called by schedules for every owner
set search_path = ''
as $$
declare
    v_owner_id uuid;
    v_file_ids uuid[];
    v_version public.file_versions;
    v_count integer := 0;
begin
    -- one owner a transaction: locks of several would have to be taken in order
    select n.owner_id into v_owner_id
    from private.expired_versions() as v inner join public.nodes as n on n.id = v.file_id
    limit 1;
    v_file_ids := array(
        select n.id from public.nodes as n
        where n.id in (select v.file_id from private.expired_versions(v_owner_id) as v limit max_versions)
        order by n.id
        for no key update skip locked
    );
    perform from public.owners as o where o.id = v_owner_id for no key update;
    for v_version in
        select v.*
        from private.expired_versions(v_owner_id) as v
        where v.file_id = any(v_file_ids)
        order by v.file_id, v.no
        limit max_versions
    loop
        perform private.delete_version(v_version);
        v_count := v_count + 1;
    end loop;
    return v_count;
end;
$$;
comment on function private.expire_versions(integer) is
'Removes expired_versions of one owner, at most max_versions at once; how many. Call it until it returns 0.';
