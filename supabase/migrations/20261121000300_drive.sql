-- The drive: one tree of folders and files, their versions and bytes, shares, and the one rule of who may read.

create table public.nodes (
    id uuid primary key default gen_random_uuid(),
    kind text not null check (kind in ('file', 'folder')),
    name text not null,
    parent_id uuid references public.nodes on delete cascade,
    owner_id uuid not null references public.owners on delete cascade,
    path uuid[] not null,
    size bigint not null default 0 check (size >= 0),
    mime text,
    status text not null default 'ready' check (
        status in ('uploading', 'queued', 'processing', 'ready', 'failed', 'skipped', 'rejected')
    ),
    head_version_id uuid,
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    trashed_at timestamptz,
    check (path[cardinality(path)] = id),
    check (kind = 'file' or (size = 0 and status = 'ready' and head_version_id is null))
);
comment on table public.nodes is 'Files and folders. Clients read it; they write through the RPCs.';
comment on column public.nodes.path is 'Ids of the ancestors from the root, its own id last. Path names are derived.';
comment on column public.nodes.size is 'Bytes of the newest complete version; 0 for folders.';
comment on column public.nodes.status is
'Where the newest version is: uploading, queued, processing, then ready, failed, skipped (kept, not readable) or
rejected.';
comment on column public.nodes.head_version_id is
'The version that is searchable and downloaded; null before the first.';
comment on column public.nodes.trashed_at is 'Set on every node of a trashed subtree; nobody reads it through the API.';

-- living siblings differ in more than case and Unicode composition
create unique index nodes_sibling_name_key on public.nodes (
    owner_id, parent_id, lower(normalize(name, nfc) collate pg_c_utf8)
) nulls not distinct where trashed_at is null;
create index nodes_parent_id_idx on public.nodes (parent_id);
create index nodes_path_idx on public.nodes using gin (path);
create index nodes_created_by_idx on public.nodes (created_by);
create index nodes_head_version_id_idx on public.nodes (head_version_id);
create index nodes_owner_id_idx on public.nodes (owner_id);
create index nodes_trashed_idx on public.nodes (owner_id, id) where trashed_at is not null;
create index nodes_pending_idx on public.nodes (owner_id, id)
where status in ('queued', 'processing') and trashed_at is null;

create table private.blobs (
    id uuid primary key default gen_random_uuid(),
    owner_id uuid not null references public.owners on delete cascade,
    bucket text not null default 'files',
    key text not null unique,
    size bigint not null check (size >= 0),
    sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz not null default now()
);
comment on table private.blobs is 'Stored bytes. `key` is the only truth about where they are; nothing parses it.';
comment on column private.blobs.sha256 is 'Computed by a worker from the stored bytes, hex; null until then.';
create index blobs_owner_id_sha256_idx on private.blobs (owner_id, sha256);
alter table private.blobs enable row level security;

create table public.file_versions (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    no integer not null check (no > 0),
    blob_id uuid references private.blobs on delete set null,
    size bigint not null,
    sha256 text,
    mime text,
    format text,
    status text not null default 'queued' check (
        status in ('queued', 'processing', 'ready', 'failed', 'skipped', 'rejected')
    ),
    error_code text,
    error_message text,
    language text,
    is_paged boolean,
    page_count integer,
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    unique (file_id, no)
);
comment on table public.file_versions is 'The contents a file has had. Versions are immutable; the head is in nodes.';
comment on column public.file_versions.blob_id is 'Its bytes; null once they are purged (a rejected version).';
comment on column public.file_versions.format is 'What a worker recognised: pdf, docx, …; null when nothing reads it.';
comment on column public.file_versions.error_code is
'Why it is not searchable: encrypted_pdf, corrupt, unsupported_media, magic_mismatch, limit_…, no_text.';
comment on column public.file_versions.is_paged is
'Whether page numbers are real pages, slides or sheets; null until it was read.';
comment on column public.file_versions.language is 'Main language of the text, ISO 639-1; null when unclear.';
create index file_versions_blob_id_idx on public.file_versions (blob_id);
create index file_versions_created_by_idx on public.file_versions (created_by);

alter table public.nodes
add constraint nodes_head_version_id_fkey
foreign key (head_version_id) references public.file_versions on delete set null;

create table public.shares (
    id uuid primary key default gen_random_uuid(),
    node_id uuid not null references public.nodes on delete cascade,
    grantee_id uuid not null references auth.users on delete cascade,
    level text not null check (level in ('view', 'comment', 'edit', 'manage')),
    granted_by uuid references auth.users on delete set null,
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    unique (node_id, grantee_id)
);
comment on table public.shares is 'A node, and all below it, opened to one user up to a level.';
create index shares_grantee_id_idx on public.shares (grantee_id);
create index shares_granted_by_idx on public.shares (granted_by);

-- Who may read ---------------------------------------------------------------------------------

create function private.granted_roots() returns uuid[]
language sql stable
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$
    select coalesce(array_agg(s.node_id), '{}')
    from public.shares as s
    where s.grantee_id = auth.uid()
        and (s.expires_at is null or s.expires_at > now())
        and private.is_active();
$$;
comment on function private.granted_roots() is
'The nodes shared with the caller, expiry checked. Call it as (select private.granted_roots()).';
grant execute on function private.granted_roots() to anon, authenticated, service_role;

create function private.is_readable(
    owner_id uuid, path uuid[], trashed_at timestamptz, owner_ids uuid[], roots uuid[]
) returns boolean
language sql immutable parallel safe
return trashed_at is null and (owner_id = any(owner_ids) or path && roots);
comment on function private.is_readable(uuid, uuid[], timestamptz, uuid[], uuid[]) is
'The one rule of who may read a node. owner_ids and roots are the caller''s: (select private.my_owner_ids()) and
(select private.granted_roots()), computed once a statement. Inlined by the planner, so it can use the indexes.';
grant execute on function private.is_readable(uuid, uuid[], timestamptz, uuid[], uuid[])
to anon, authenticated, service_role;

create function private.level_rank(level text) returns integer
language sql immutable parallel safe
return case level
    when 'view' then 1
    when 'comment' then 2
    when 'edit' then 3
    when 'manage' then 4
    when 'owner' then 5
end;
comment on function private.level_rank(text) is 'Order of the levels: view < comment < edit < manage < owner.';

create function private.my_level(node public.nodes, include_trashed boolean default false) returns text
language sql stable
security definer -- sees the shares of every ancestor
set search_path = ''
as $$
    select case
        when not private.is_readable(
            (node).owner_id, (node).path, case when not include_trashed then (node).trashed_at end,
            private.my_owner_ids(), private.granted_roots()
        ) then null
        when (node).owner_id = any(private.my_owner_ids()) then 'owner'
        else (
            select s.level
            from public.shares as s
            where s.grantee_id = auth.uid()
                and s.node_id = any((node).path)
                and (s.expires_at is null or s.expires_at > now())
            order by private.level_rank(s.level) desc
            limit 1
        )
    end;
$$;
comment on function private.my_level(public.nodes, boolean) is
'The caller''s level on a node; null when it is not readable.';

create function private.require_level(
    node_id uuid, level text, include_trashed boolean default false
) returns public.nodes
language plpgsql stable
security definer -- tells absent from forbidden only to those who can see the node
set search_path = ''
as $$
declare
    v_node public.nodes;
    v_level text;
begin
    if level = 'view' then
        perform private.require_user();
    else
        perform private.require_writer();
    end if;
    select n.* into v_node from public.nodes as n where n.id = require_level.node_id;
    v_level := private.my_level(v_node, include_trashed);
    if v_level is null then -- absent and not-yours look alike on purpose
        perform private.raise_error(
            'NOT_FOUND', 'No such file or folder.', jsonb_build_object('id', node_id), 'List a folder to see valid ids.'
        );
    end if;
    if private.level_rank(v_level) < private.level_rank(level) then
        perform private.raise_error(
            'FORBIDDEN',
            format('This needs the level %s; yours is %s.', level, v_level),
            jsonb_build_object('id', node_id, 'level', v_level, 'required', level),
            'Ask the owner for a higher level.'
        );
    end if;
    return v_node;
end;
$$;
comment on function private.require_level(uuid, text, boolean) is
'The node, when the caller has at least this level on it. Raises NOT_AUTHENTICATED, NOT_FOUND or FORBIDDEN. Every
writing RPC calls it.';

-- Row security ---------------------------------------------------------------------------------

alter table public.nodes enable row level security;
alter table public.file_versions enable row level security;
alter table public.shares enable row level security;

create policy readers_can_select on public.nodes
for select to anon, authenticated
using (
    private.is_readable(
        owner_id, path, trashed_at, (select private.my_owner_ids()), (select private.granted_roots())
    )
);

create policy readers_can_select on public.file_versions
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

create policy parties_can_select on public.shares
for select to authenticated
using (
    (grantee_id = (select auth.uid()) and (select private.is_active()))
    or exists (
        select 1 from public.nodes as n
        where n.id = node_id and n.owner_id = any((select private.my_owner_ids())::uuid[])
    )
);

grant select on public.nodes, public.file_versions to anon, authenticated, service_role;
grant select on public.shares to authenticated, service_role;

-- Names ----------------------------------------------------------------------------------------

create function private.check_name(name text) returns text
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    -- also of spaces that are not U+0020, and of characters that show nothing
    if name is null or name !~ '[^\u0020\u00a0\u1680\u2000-\u200f\u202f\u205f-\u2064\u3000\ufeff]' then
        perform private.raise_invalid('name', 'A name cannot be empty.');
    end if;
    if octet_length(name) > 255 then
        perform private.raise_invalid(
            'name', 'A name may have at most 255 bytes in UTF-8.', jsonb_build_object('bytes', octet_length(name))
        );
    end if;
    if name in ('.', '..') or name ~ '[/\\]' then
        perform private.raise_invalid('name', 'A name cannot be "." or "..", or contain a slash or backslash.');
    end if;
    -- control characters, line separators, and the overrides that show "exe.pdf" for "fdp.exe"
    if name ~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]' then
        perform private.raise_invalid('name', 'A name cannot contain control characters or direction overrides.');
    end if;
    return name;
end;
$$;
comment on function private.check_name(text) is 'The name itself, as given. Raises INVALID_ARGUMENT (field name).';

create function private.name_key(name text) returns text
language sql immutable parallel safe
return lower(normalize(name, nfc) collate pg_c_utf8);
comment on function private.name_key(text) is 'Siblings may not share it: case and Unicode composition folded.';
grant execute on function private.name_key(text) to anon, authenticated; -- list_folder sorts by it

create function private.split_name(name text, out stem text, out extension text) returns record
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(parts.m[1], split_name.name), coalesce(parts.m[2], '')
    from (select regexp_match(split_name.name, '^(.+?)(\.(?:tar\.)?[^.\s]{1,16})$') as m) as parts;
$$;
comment on function private.split_name(text) is
'A file name as stem and extension with its dot ("" when it has none).';

create function private.find_sibling(owner_id uuid, parent_id uuid, name text) returns public.nodes
language sql stable
security invoker
set search_path = ''
as $$
    select n.*
    from public.nodes as n
    where n.owner_id = find_sibling.owner_id
        and n.parent_id is not distinct from find_sibling.parent_id
        and lower(normalize(n.name, nfc) collate pg_c_utf8) = private.name_key(find_sibling.name)
        and n.trashed_at is null;
$$;
comment on function private.find_sibling(uuid, uuid, text) is 'The living node that has this name in a folder.';

create function private.free_name(owner_id uuid, parent_id uuid, name text) returns text
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_stem text;
    v_extension text;
    v_candidate text := name;
    v_suffix text;
begin
    select s.stem, s.extension into v_stem, v_extension from private.split_name(name) as s;
    v_stem := regexp_replace(v_stem, ' \(\d{1,6}\)$', ''); -- suffixes never stack
    for v_no in 2..100000 loop
        exit when private.find_sibling(owner_id, parent_id, v_candidate) is null;
        v_suffix := format(' (%s)', v_no) || v_extension;
        v_candidate := v_stem || v_suffix;
        while octet_length(v_candidate) > 255 loop
            v_stem := left(v_stem, -1);
            v_candidate := v_stem || v_suffix;
        end loop;
    end loop;
    return v_candidate;
end;
$$;
comment on function private.free_name(uuid, uuid, text) is
'The name, or "name (2).ext" and so on, that no sibling has.';

create function private.raise_name_conflict(sibling public.nodes, name text) returns void
language sql stable
security invoker
set search_path = ''
as $$
    select private.raise_error(
        'CONFLICT_NAME',
        format('"%s" already exists here.', (sibling).name),
        jsonb_build_object(
            'existing_id', (sibling).id,
            'suggested', private.free_name((sibling).owner_id, (sibling).parent_id, raise_name_conflict.name)
        ),
        'Use the suggested name, or another on_conflict.'
    );
$$;
comment on function private.raise_name_conflict(public.nodes, text) is 'Raises CONFLICT_NAME with a free name.';

-- Folders --------------------------------------------------------------------------------------

create function private.create_folder(parent uuid, name text) returns public.nodes
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_parent public.nodes;
    v_node public.nodes;
begin
    perform private.check_name(name);
    if parent is not null then
        -- the folder may be on its way to the trash: wait for that, then look
        perform from public.nodes as n where n.id = parent for share;
        v_parent := private.require_level(parent, 'edit');
        if v_parent.kind <> 'folder' then
            perform private.raise_invalid('parent', 'Only a folder can contain others.');
        end if;
    end if;
    -- names of one owner are given out one at a time
    perform from public.owners as o where o.id = coalesce(v_parent.owner_id, v_user_id) for no key update;
    v_node.id := gen_random_uuid();
    begin
        insert into public.nodes (id, kind, name, parent_id, owner_id, path, created_by)
        values (
            v_node.id, 'folder', create_folder.name, parent, coalesce(v_parent.owner_id, v_user_id),
            coalesce(v_parent.path, '{}') || v_node.id, v_user_id
        )
        returning * into v_node;
    exception when unique_violation then
        perform private.raise_name_conflict(
            private.find_sibling(coalesce(v_parent.owner_id, v_user_id), parent, name), name
        );
    end;
    return v_node;
end;
$$;
comment on function private.create_folder(uuid, text) is 'Behind public.create_folder.';
grant execute on function private.create_folder(uuid, text) to anon, authenticated;

create function public.create_folder(name text, parent uuid default null) returns public.nodes
language sql volatile
security invoker
set search_path = ''
as $$ select private.create_folder(parent, name); $$;
comment on function public.create_folder(text, uuid) is
'Make a folder and return it.

parent: the folder to put it in (level edit), null for your own root. Raises INVALID_ARGUMENT (field name or parent),
CONFLICT_NAME with existing_id and suggested, NOT_FOUND, FORBIDDEN.';
grant execute on function public.create_folder(text, uuid) to anon, authenticated;

create function public.list_folder(
    folder uuid default null, sort text default 'name', page_size integer default 100, cursor text default null
) returns jsonb
language plpgsql stable
security invoker -- the policy of nodes decides what is listed
set search_path = ''
as $$
declare
    v_key text;
    v_is_descending boolean := sort like '-%';
    v_after jsonb;
    v_rows jsonb;
begin
    perform private.require_user();
    v_key := case regexp_replace(sort, '^-', '')
        when 'name' then 'private.name_key(n.name)'
        when 'updated_at' then 'to_char(n.updated_at at time zone ''utc'', ''YYYYMMDDHH24MISSUS'')'
        when 'created_at' then 'to_char(n.created_at at time zone ''utc'', ''YYYYMMDDHH24MISSUS'')'
        when 'size' then 'lpad(n.size::text, 20, ''0'')'
    end;
    if v_key is null then
        perform private.raise_invalid(
            'sort', 'Sort by name, updated_at, created_at or size; a leading "-" reverses.'
        );
    end if;
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    if folder is not null and not exists (
        select 1 from public.nodes as n where n.id = folder and n.kind = 'folder'
    ) then
        perform private.raise_error('NOT_FOUND', 'No such folder.', jsonb_build_object('id', folder));
    end if;
    begin
        v_after := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
        if cursor is not null and (
            num_nulls(v_after ->> 0, (v_after ->> 1)::uuid) > 0 or v_after ->> 2 is distinct from sort
        ) then
            raise data_exception;
        end if;
    exception when others then
        perform private.raise_invalid('cursor', 'This cursor is not one that list_folder gave.');
    end;

    -- the pieces are the constants above; one row more than asked tells whether there is a next page
    execute format(
        $query$
        select coalesce(jsonb_agg(to_jsonb(p) - 'path' order by p.sort_key %3$s, p.id %3$s), '[]')
        from (
            select n.*, %1$s collate "C" as sort_key
            from public.nodes as n
            where %4$s and ($2 is null or (%1$s collate "C", n.id) %2$s ($2 ->> 0, ($2 ->> 1)::uuid))
            order by %1$s collate "C" %3$s, n.id %3$s
            limit $3 + 1
        ) as p
        $query$,
        v_key,
        case when v_is_descending then '<' else '>' end,
        case when v_is_descending then 'desc' else 'asc' end,
        case
            when folder is null then 'n.parent_id is null and n.owner_id = any((select private.my_owner_ids())::uuid[])'
            else 'n.parent_id = $1'
        end
    ) into v_rows using folder, v_after, page_size;

    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(r.item - 'sort_key' order by r.position), '[]')
            from jsonb_array_elements(v_rows) with ordinality as r (item, position)
            where r.position <= page_size
        ),
        'next_cursor', case when jsonb_array_length(v_rows) > page_size then replace(encode(convert_to(
            jsonb_build_array(
                v_rows -> (page_size - 1) -> 'sort_key', v_rows -> (page_size - 1) -> 'id', sort
            )::text, 'UTF8'
        ), 'base64'), e'\n', '') end
    );
end;
$$;
comment on function public.list_folder(uuid, text, integer, text) is
'List what is in a folder: {items, next_cursor}.

folder: null for your own root. sort: name, updated_at, created_at, size; "-name" and so on reverse. page_size: 1 to
1000. cursor: the next_cursor of the page before; pages have no gaps or doubles while others insert. Raises NOT_FOUND,
INVALID_ARGUMENT (field sort, page_size or cursor).';
grant execute on function public.list_folder(uuid, text, integer, text) to anon, authenticated;

-- Details --------------------------------------------------------------------------------------

create function private.path_name(node public.nodes) returns text
language sql stable
security definer -- walks up to the highest ancestor that the caller may see, and no further
set search_path = ''
as $$
    select '/' || string_agg(a.name, '/' order by cardinality(a.path))
    from public.nodes as a
    where a.id = any((node).path)
        and private.is_readable(
            a.owner_id, a.path, a.trashed_at, private.my_owner_ids(), private.granted_roots()
        );
$$;
comment on function private.path_name(public.nodes) is
'Names from the highest ancestor that the caller can see, such as /Projects/Plan.pdf.';

create function private.file_details(file_id uuid) returns jsonb
language plpgsql stable
security definer -- reads the blob's place, which the API does not show otherwise
set search_path = ''
as $$
declare
    v_node public.nodes := private.require_level(file_id, 'view');
    v_level text := private.my_level(v_node);
    v_details jsonb;
begin
    select to_jsonb(v_node) || jsonb_build_object(
        'path', private.path_name(v_node),
        'level', v_level,
        'bucket', b.bucket,
        'key', b.key,
        'quota', case when v_level = 'owner' then jsonb_build_object(
            'used', o.storage_used, 'reserved', o.storage_reserved, 'limit', o.storage_limit
        ) end,
        'versions', coalesce((
            select jsonb_agg(to_jsonb(v) - 'blob_id' order by v.no desc)
            from public.file_versions as v
            where v.file_id = v_node.id
        ), '[]'),
        'shares', case when private.level_rank(v_level) >= 4 then coalesce((
            select jsonb_agg(to_jsonb(s) order by s.created_at)
            from public.shares as s
            where s.node_id = any(v_node.path)
        ), '[]') else '[]' end,
        'problem', case when n.status in ('failed', 'skipped', 'rejected', 'ready') and n.error_code is not null then
            jsonb_build_object(
                'error_code', n.error_code,
                'error_message', n.error_message,
                'new_version_failed', v_node.head_version_id is not null and v_node.head_version_id <> n.id
            )
        end
    ) into v_details
    from public.owners as o
    left join public.file_versions as h on h.id = v_node.head_version_id
    left join lateral (
        select v.id, v.status, v.error_code, v.error_message, v.blob_id
        from public.file_versions as v
        where v.file_id = v_node.id
        order by v.no desc
        limit 1
    ) as n on true
    left join private.blobs as b on b.id = coalesce(h.blob_id, n.blob_id)
    where o.id = v_node.owner_id;
    return v_details;
end;
$$;
comment on function private.file_details(uuid) is 'Behind public.file_details.';
grant execute on function private.file_details(uuid) to anon, authenticated;

create function public.file_details(file_id uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.file_details(file_id); $$;
comment on function public.file_details(uuid) is
'One file or folder with all that a frontend shows of it: the node and path, level, bucket and key of its bytes,
quota {used, reserved, limit} in bytes (to its owner), versions (newest first), shares (level manage and above),
problem {error_code, error_message, new_version_failed} or null. Raises NOT_FOUND.';
grant execute on function public.file_details(uuid) to anon, authenticated;

-- Trash and purge ------------------------------------------------------------------------------

create function private.trash_nodes(ids uuid[]) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_id uuid;
    v_count integer;
begin
    perform private.require_writer();
    for v_id in select distinct unnest(ids) order by 1 loop
        perform private.require_level(v_id, 'edit');
    end loop;
    -- nodes, owners, jobs: the order in which everything locks
    perform from public.nodes as n where n.path && ids order by n.id for update;
    perform from public.owners as o
    where o.id in (select n.owner_id from public.nodes as n where n.path && ids)
    order by o.id for no key update;
    update public.nodes as n set trashed_at = now() where n.path && ids and n.trashed_at is null;
    get diagnostics v_count = row_count;
    perform private.stop_work(ids);
    return v_count;
end;
$$;
comment on function private.trash_nodes(uuid[]) is 'Behind public.trash_nodes.';
grant execute on function private.trash_nodes(uuid[]) to anon, authenticated;

create function public.trash_nodes(ids uuid[]) returns integer
language sql volatile
security invoker
set search_path = ''
as $$ select private.trash_nodes(ids); $$;
comment on function public.trash_nodes(uuid[]) is
'Move files and folders, with all below them, to the trash; returns how many nodes. All or nothing.

From the commit on nothing returns them; uploads and ingestion under way are stopped. Needs level edit. Raises
NOT_FOUND, FORBIDDEN.';
grant execute on function public.trash_nodes(uuid[]) to anon, authenticated;

create function private.purge_nodes(ids uuid[]) returns integer
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_id uuid;
    v_count integer;
    v_owner_ids uuid[];
    v_texts bytea[];
begin
    perform private.require_writer();
    for v_id in select distinct unnest(ids) order by 1 loop
        perform private.require_level(v_id, 'manage', true);
    end loop;
    -- nodes, owners, jobs, statistics: the order in which everything locks
    perform from public.nodes as n where n.path && ids order by n.id for update;
    get diagnostics v_count = row_count;
    v_owner_ids := array(select distinct n.owner_id from public.nodes as n where n.path && ids);
    -- two purges at once must not each leave a shared blob to the other
    perform from public.owners as o where o.id = any(v_owner_ids) order by o.id for no key update;
    perform private.stop_work(ids);
    foreach v_id in array array(select o.id from unnest(v_owner_ids) as o (id) order by o.id) loop
        perform private.lock_statistics(v_id);
    end loop;
    v_texts := array(
        select distinct c.text_hash
        from public.nodes as n inner join public.chunks as c on c.file_id = n.id
        where n.path && ids
    );
    -- tickets outlive files that never came, not files that are purged
    delete from public.uploads as u
    using public.nodes as n
    where n.path && ids and u.file_id = n.id;
    delete from public.nodes as n where n.id = any(ids);
    perform private.forget_texts(v_owner_ids, v_texts);
    return v_count;
end;
$$;
comment on function private.purge_nodes(uuid[]) is 'Behind public.purge_nodes.';
grant execute on function private.purge_nodes(uuid[]) to anon, authenticated;

create function public.purge_nodes(ids uuid[]) returns integer
language sql volatile
security invoker
set search_path = ''
as $$ select private.purge_nodes(ids); $$;
comment on function public.purge_nodes(uuid[]) is
'Delete files and folders for good, trashed or not, with all below them; returns how many nodes. All or nothing.

Rows, text and vectors go and the quota returns in the same transaction; the objects follow through a worker. Needs
level manage. Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.purge_nodes(uuid[]) to anon, authenticated;

-- Bytes that nothing refers to any more ---------------------------------------------------------

create table private.object_deletions (
    id bigint generated always as identity primary key,
    bucket text not null,
    key text not null,
    attempts integer not null default 0,
    run_after timestamptz not null default now()
);
comment on table private.object_deletions is
'Objects that a worker must remove through the Storage API, since SQL may not delete from storage.objects.';
create index object_deletions_run_after_idx on private.object_deletions (run_after);
alter table private.object_deletions enable row level security;

create function private.tg_file_versions__delete_blobs() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    delete from private.blobs as b
    using gone as g
    where b.id = g.blob_id
        and not exists (select 1 from public.file_versions as v where v.blob_id = b.id);
    return null; -- after trigger
end;
$$;
comment on function private.tg_file_versions__delete_blobs() is 'Deletes blobs whose last version went.';

create trigger _500_delete_blobs
after delete on public.file_versions
referencing old table as gone
for each statement execute function private.tg_file_versions__delete_blobs();

create function private.tg_blobs__release() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    update public.owners as o
    set storage_used = o.storage_used - freed.size
    from (select g.owner_id, sum(g.size) as size from gone as g group by g.owner_id) as freed
    where o.id = freed.owner_id;
    insert into private.object_deletions (bucket, key) select g.bucket, g.key from gone as g;
    return null; -- after trigger
end;
$$;
comment on function private.tg_blobs__release() is 'Returns the quota of deleted blobs and queues their objects.';

create trigger _500_release
after delete on private.blobs
referencing old table as gone
for each statement execute function private.tg_blobs__release();
