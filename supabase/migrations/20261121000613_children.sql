-- Children: files inside of files. The attachments of a mail become files of their own, whose parent is the mail, so
-- whoever reads, moves, shares, trashes or purges the mail does so with them. A worker takes them out, under tickets.

insert into private.settings (key, value, description) values
('unpack.max_count', '200', 'Files that are taken out of one mail; further ones stay in it.'),
('unpack.max_bytes', '104857600', 'Largest file, in bytes, that is taken out of another; larger ones stay in it.'),
('unpack.max_total_bytes', '1073741824', 'So many bytes are taken out of one file.'),
('unpack.max_depth', '3', 'So deep, mail in mail, files are taken out.'),
('unpack.time_limit_s', '120', 'Wall time, and CPU time, for taking one file apart, in seconds.'),
('unpack.memory_limit_mb', '1024', 'Memory for taking one file apart, in MiB.');

create table private.file_members (
    file_id uuid primary key references public.nodes on delete cascade,
    container_id uuid not null references public.nodes on delete cascade,
    member text not null check (char_length(member) between 1 and 500),
    sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
    unique (container_id, member)
);
comment on table private.file_members is
'Which file came out of which, so that taking it apart again doubles nothing, whatever people did with what came out.';
comment on column private.file_members.member is 'What it is called in there, made distinct.';
comment on column private.file_members.sha256 is
'Of the bytes that were taken out last, hex; null until Storage has them. The file may hold others by now.';
alter table private.file_members enable row level security;

create function private.enqueue_unpack(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if exists (
        select 1
        from public.file_versions as v inner join public.nodes as n on n.id = v.file_id
        where v.id = enqueue_unpack.version_id
            and v.format in ('eml', 'msg')
            and (private.setting('unpack.max_depth'))::integer > (
                select count(*) from public.nodes as a
                where a.id = any(n.path) and a.id <> n.id and a.kind = 'file'
            )
    ) then
        perform private.enqueue(version_id, 'unpack');
    else
        delete from public.ingest_jobs as j -- an earlier run
        where j.version_id = enqueue_unpack.version_id and j.stage = 'unpack';
    end if;
end;
$$;
comment on function private.enqueue_unpack(uuid) is
'Queues unpack for a version that is mail, unless it came out of others so deep already.';

create function private.copy_members(old_ids uuid[], new_ids uuid[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.file_members (file_id, container_id, member, sha256)
    select f.new_id, c.new_id, m.member, m.sha256
    from unnest(old_ids, new_ids) as f (old_id, new_id)
    inner join private.file_members as m on m.file_id = f.old_id
    inner join unnest(old_ids, new_ids) as c (old_id, new_id) on c.old_id = m.container_id;
$$;
comment on function private.copy_members(uuid[], uuid[]) is
'Notes of copied files which of them came out of which other one.';

create function private.members_of(container public.nodes) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'id', n.id, 'name', n.name, 'size', n.size, 'mime', n.mime, 'status', n.status
    ) order by n.name), '[]')
    from public.nodes as n
    where n.parent_id = (container).id and n.trashed_at is null and (container).kind = 'file';
$$;
comment on function private.members_of(public.nodes) is
'The living files inside of a file, for file_details: [{id, name, size, mime, status}]. Who reads it reads them.';

-- What workers do ------------------------------------------------------------------------------

create function private.member_author(version public.file_versions, container public.nodes) returns uuid
language sql stable
security invoker
set search_path = ''
as $$
    select p.user_id
    from (
        select (version).created_by as user_id, 1 as place
        union all
        select (container).owner_id, 2
        union all
        select m.user_id, 3 from public.workspace_members as m where m.workspace_id = (container).owner_id
    ) as p
    where private.user_has_permission(p.user_id, 'edit_documents')
        and private.level_rank(private.user_level(p.user_id, container)) >= private.level_rank('edit')
    order by p.place, p.user_id
    limit 1;
$$;
comment on function private.member_author(public.file_versions, public.nodes) is
'In whose name files are taken out of a version: whoever uploaded it, or when they may not write there any more its
owner, or somebody of the workspace; null for nobody.';

create function private.own_unpacking(job_id uuid, lease_token uuid) returns public.ingest_jobs
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_container_id uuid;
begin
    select j.file_id into v_container_id from public.ingest_jobs as j where j.id = job_id;
    -- account, nodes, owner, job: the order in which everything locks
    perform private.hold_account(private.member_author(v, n))
    from public.ingest_jobs as j
    inner join public.file_versions as v on v.id = j.version_id
    inner join public.nodes as n on n.id = j.file_id
    where j.id = job_id;
    perform private.hold_spaces();
    perform from public.nodes as n
    where n.id = v_container_id
        or n.id in (select m.file_id from private.file_members as m where m.container_id = v_container_id)
    order by n.id for no key update;
    perform private.lock_file(v_container_id);
    return private.own_job(job_id, lease_token);
end;
$$;
comment on function private.own_unpacking(uuid, uuid) is
'own_job for whoever takes a file apart: locks it, what came out of it, and its owner.';

create function private.reserve_member(
    file public.nodes, size bigint, mime text, sha256 text, reading jsonb, created_by uuid
) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_blob private.blobs;
    v_upload public.uploads;
begin
    select b.* into v_blob
    from private.blobs as b
    where b.owner_id = (file).owner_id and b.bucket = 'files' and b.released_at is null
        and b.sha256 = reserve_member.sha256 and b.size = reserve_member.size
    limit 1;
    if v_blob.id is not null then
        perform private.add_version((file).id, gen_random_uuid(), v_blob, mime, created_by, reading);
        update private.file_members as m set sha256 = reserve_member.sha256 where m.file_id = (file).id;
        return null;
    end if;
    perform private.require_quota((file).owner_id, size);
    v_upload.version_id := gen_random_uuid();
    insert into public.uploads (
        owner_id, file_id, version_id, key, mode, size, mime, sha256, reading, created_by, expires_at
    )
    values (
        (file).owner_id, (file).id, v_upload.version_id,
        format('%s/%s/%s', (file).owner_id, (file).id, v_upload.version_id), 'worker', size, mime, sha256, reading,
        created_by, now() + make_interval(secs => (private.setting('uploads.ticket_ttl_s'))::double precision)
    )
    returning * into v_upload;
    perform private.charge((file).owner_id, 0, size, 'reserve', v_upload.id);
    return jsonb_build_object('bucket', v_upload.bucket, 'key', v_upload.key);
end;
$$;
comment on function private.reserve_member(public.nodes, bigint, text, text, jsonb, uuid) is
'A ticket for a file''s next version: {bucket, key}, where a worker writes it. null when the owner has these bytes: they
are the next version already. Raises QUOTA_EXCEEDED.';

create function private.begin_member(
    job_id uuid, lease_token uuid, member text, name text, size bigint, mime text, sha256 text
) returns jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_unpacking(job_id, lease_token);
    v_container public.nodes;
    v_version public.file_versions;
    v_author_id uuid;
    v_known private.file_members;
    v_file public.nodes;
    v_upload public.uploads;
begin
    select n.* into v_container from public.nodes as n where n.id = v_job.file_id;
    select v.* into v_version from public.file_versions as v where v.id = v_job.version_id;
    v_author_id := private.member_author(v_version, v_container);
    if v_author_id is null then
        perform private.raise_error('FORBIDDEN', 'Nobody is left who may write there.');
    end if;

    -- one of an earlier version that is still on its way would come too late
    perform private.close_upload(u, 'aborted')
    from private.file_members as m
    inner join public.uploads as u on u.file_id = m.file_id
    where m.container_id = v_container.id and m.member = begin_member.member
        and u.mode = 'worker' and u.state in ('open', 'uploading') and u.sha256 <> begin_member.sha256;

    select m.* into v_known
    from private.file_members as m
    where m.container_id = v_container.id and m.member = begin_member.member;
    select n.* into v_file from public.nodes as n where n.id = v_known.file_id;
    if v_file.id is not null then
        if v_known.sha256 = begin_member.sha256
            or v_file.trashed_at is not null
            or v_file.parent_id is distinct from v_container.id then
            return null; -- it is there, or people put it elsewhere
        end if;
        select u.* into v_upload
        from public.uploads as u
        where u.file_id = v_file.id and u.mode = 'worker' and u.state in ('open', 'uploading');
        if v_upload.id is not null then
            return jsonb_build_object('bucket', v_upload.bucket, 'key', v_upload.key);
        end if;
    end if;

    perform private.check_upload(name, size, mime, sha256, 'rename');
    perform private.check_plan(v_container.owner_id, name, size);
    if v_file.id is null then
        perform private.check_depth(cardinality(v_container.path) + 1);
        v_file.id := gen_random_uuid();
        insert into public.nodes (id, kind, name, parent_id, owner_id, path, mime, status, created_by)
        values (
            v_file.id, 'file', private.free_name(v_container.owner_id, v_container.id, begin_member.name),
            v_container.id, v_container.owner_id, v_container.path || v_file.id, begin_member.mime, 'uploading',
            v_author_id
        )
        returning * into v_file;
        insert into private.file_members (file_id, container_id, member)
        values (v_file.id, v_container.id, begin_member.member);
    end if;
    return private.reserve_member(v_file, size, mime, sha256, v_version.reading, v_author_id);
end;
$$;
comment on function private.begin_member(uuid, uuid, text, text, bigint, text, text) is
'Makes a file of what is inside of the job''s: {bucket, key}, where the worker writes its bytes, or null when nothing is
to be written: it is there, the owner has these bytes, or people have moved or trashed it. Other bytes under the same
member become its next version. Raises what an upload would: INVALID_ARGUMENT, TYPE_NOT_ALLOWED, FILE_TOO_LARGE,
QUOTA_EXCEEDED.';

create function private.job_members(job_id uuid, lease_token uuid) returns boolean
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    return not exists (
        select 1
        from public.file_versions as v
        inner join public.file_versions as l on l.file_id = v.file_id and l.no > v.no
        where v.id = v_job.version_id
    );
end;
$$;
comment on function private.job_members(uuid, uuid) is
'Whether files are to be taken out of the job''s version: only out of the newest.';

create function private.stale_members(container_id uuid, members text[]) returns uuid[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(n.id order by n.id), '{}')
    from private.file_members as m
    inner join public.nodes as n
        on n.id = m.file_id and n.parent_id = m.container_id and n.trashed_at is null
    where m.container_id = stale_members.container_id
        and m.member <> all(members)
        and not exists ( -- what people have changed is theirs
            select 1 from public.file_versions as v
            where v.file_id = n.id and v.id = private.current_version_id(n) and v.sha256 <> m.sha256
        );
$$;
comment on function private.stale_members(uuid, text[]) is
'Files that came out of an earlier version of a file and are none of these members, unless people have changed or moved
them.';

create function private.finish_unpack(
    job_id uuid, lease_token uuid, members text[] default null, refused text default null
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_container_id uuid;
    v_stale_ids uuid[];
    v_job public.ingest_jobs;
begin
    select j.file_id into v_container_id
    from public.ingest_jobs as j
    where j.id = job_id and j.lease_token = finish_unpack.lease_token;
    v_stale_ids := private.stale_members(v_container_id, members);
    if v_stale_ids <> '{}' then
        perform private.lock_subtrees(v_stale_ids, array[v_container_id]);
        v_stale_ids := private.stale_members(v_container_id, members);
    end if;
    v_job := private.own_job(job_id, lease_token);
    if v_stale_ids <> '{}' then
        perform private.trash_trees(v_stale_ids);
        delete from private.file_members as m where m.file_id = any(v_stale_ids); -- they would come anew
    end if;
    perform private.finish_job(job_id);
    update public.ingest_jobs as j
    set error_code = 'members_refused', error_message = left(refused, 1000)
    where j.id = job_id and refused is not null;
end;
$$;
comment on function private.finish_unpack(uuid, uuid, text[], text) is
'Ends the stage. members: all that are in there; what came out of an earlier version and is not goes to the trash. null:
nothing was looked at. refused: a sentence about what stays inside, for ingest_jobs.error_message.';

create function private.tg_uploads__note_member() returns trigger
language plpgsql volatile
security definer -- runs for whoever ends the ticket
set search_path = ''
as $$
begin
    update private.file_members as m set sha256 = new.sha256 where m.file_id = new.file_id;
    return null; -- after trigger
end;
$$;
comment on function private.tg_uploads__note_member() is 'Notes which bytes of a member Storage has.';

create trigger _500_note_member
after update of state on public.uploads
for each row when (new.mode = 'worker' and new.state = 'completed')
execute function private.tg_uploads__note_member();

grant execute on function
private.begin_member(uuid, uuid, text, text, bigint, text, text),
private.job_members(uuid, uuid),
private.finish_unpack(uuid, uuid, text[], text)
to narwhal_worker;
