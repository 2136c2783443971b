-- The tree: names, folders, listing, details.

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
    perform private.require_reader();
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
            when folder is null then 'n.parent_id is null and n.owner_id = (select auth.uid())'
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
