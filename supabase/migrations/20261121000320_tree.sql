-- The tree: names, folders, renaming, moving, copying, listing, details.

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

create function private.check_type(name text) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_extension text := private.extension_of(name);
begin
    if private.setting('uploads.blocked_extensions') ? v_extension then
        perform private.raise_error(
            'TYPE_NOT_ALLOWED',
            format('Files of the type .%s are not accepted.', v_extension),
            jsonb_build_object('extension', v_extension)
        );
    end if;
end;
$$;
comment on function private.check_type(text) is 'Raises TYPE_NOT_ALLOWED for the name of an executable.';

create function private.name_key(name text) returns text
language sql immutable parallel safe
return lower(normalize(name, nfc) collate pg_c_utf8);
comment on function private.name_key(text) is 'Siblings may not share it: case and Unicode composition folded.';

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
    -- two branches, since `is not distinct from` uses no index
    select n.*
    from public.nodes as n
    where n.owner_id = find_sibling.owner_id
        and n.parent_id = find_sibling.parent_id
        and lower(normalize(n.name, nfc) collate pg_c_utf8) = private.name_key(find_sibling.name)
        and n.trashed_at is null
    union all
    select n.*
    from public.nodes as n
    where find_sibling.parent_id is null
        and n.owner_id = find_sibling.owner_id
        and n.parent_id is null
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
    -- who reaches a node through a share of its own may not see what is beside it
    select private.raise_error(
        'CONFLICT_NAME',
        format('"%s" already exists here.', case
            when private.my_level(sibling) is null then raise_name_conflict.name else (sibling).name
        end),
        jsonb_build_object(
            'existing_id', case when private.my_level(sibling) is not null then (sibling).id end,
            'suggested', private.free_name((sibling).owner_id, (sibling).parent_id, raise_name_conflict.name)
        ),
        'Use the suggested name, or another on_conflict.'
    );
$$;
comment on function private.raise_name_conflict(public.nodes, text) is
'Raises CONFLICT_NAME with a free name, and the id of what has the name for those who may see it.';

-- Batches and locks ----------------------------------------------------------------------------

create function private.batch_item(id uuid, state text, message text, detail text) returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if state not like 'PT%' then
        -- not an answer for the caller, such as a deadlock: the whole statement fails with it
        raise exception using errcode = state, message = message, detail = detail;
    end if;
    return detail::jsonb || jsonb_build_object('id', id, 'message', message);
end;
$$;
comment on function private.batch_item(uuid, text, text, text) is
'What went wrong with one id of a batch, for raise_batch: {id, error, message} and the error''s own details. Takes
sqlstate, sqlerrm and pg_exception_detail of the exception; raises again what is not of the catalogue.';

create function private.raise_batch(items jsonb) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if jsonb_array_length(items) > 0 then
        perform private.raise_error(
            items -> 0 ->> 'error',
            items -> 0 ->> 'message',
            (items -> 0) - 'error' - 'message' || jsonb_build_object('items', items),
            'Nothing was changed. Leave out the items listed, or put them right.'
        );
    end if;
end;
$$;
comment on function private.raise_batch(jsonb) is
'Ends a batch in which something went wrong, as [{id, error, message, …}]: raises the first item''s error with its
details and all of them in details.items. Does nothing when the list is empty.';

create function private.lock_tree(owner_ids uuid[]) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner_id uuid;
    -- of this transaction: it ends with it, and with a savepoint that is rolled back
    v_held text := coalesce(current_setting('narwhal.locked_trees', true), '');
    v_is_first boolean := v_held = '';
begin
    for v_owner_id in
        select distinct o.id from unnest(owner_ids) as o (id)
        where o.id is not null and strpos(v_held, o.id::text) = 0
        order by o.id
    loop
        if v_is_first then
            perform pg_advisory_xact_lock(hashtextextended('tree:' || v_owner_id, 0));
        elsif not pg_try_advisory_xact_lock(hashtextextended('tree:' || v_owner_id, 0)) then
            -- something changed hands since the first call; waiting out of order could deadlock
            perform private.raise_error('LOCKED', 'Something in there is being moved.', '{}', 'Try again.');
        end if;
        v_held := v_held || ' ' || v_owner_id;
    end loop;
    perform set_config('narwhal.locked_trees', v_held, true);
end;
$$;
comment on function private.lock_tree(uuid[]) is
'Lets one transaction at a time change who is below whom in these owners'' trees; taken before any row. Waits in the
first call of a transaction only: raises LOCKED when a later one finds another tree taken.';

create function private.lock_nodes(root_ids uuid[], ids uuid[] default '{}') returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_locked uuid[];
    v_late uuid[];
begin
    v_locked := array(
        select n.id from public.nodes as n
        where n.path && root_ids or n.id = any(lock_nodes.ids)
        order by n.id
        for update
    );
    -- what came below them while we waited; waiting for it out of order could deadlock
    loop
        v_late := array(
            select n.id from public.nodes as n
            where (n.path && root_ids or n.id = any(lock_nodes.ids)) and n.id <> all(v_locked)
        );
        exit when v_late = '{}';
        if (
            select count(*) < cardinality(v_late)
            from (select n.id from public.nodes as n where n.id = any(v_late) for update skip locked) as l
        ) then
            perform private.raise_error('LOCKED', 'Something in there is being changed.', '{}', 'Try again.');
        end if;
        v_locked := v_locked || v_late;
    end loop;
end;
$$;
comment on function private.lock_nodes(uuid[], uuid[]) is
'Locks everything below root_ids, and the nodes ids, in order of id. Raises LOCKED when somebody else is at what came
there meanwhile. Read again after it.';

create function private.check_depth(depth integer) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_limit integer := (private.setting('drive.max_depth'))::integer;
begin
    if depth > v_limit then
        perform private.raise_invalid(
            'depth', format('Folders may be at most %s levels deep.', v_limit),
            jsonb_build_object('depth', depth, 'limit', v_limit)
        );
    end if;
end;
$$;
comment on function private.check_depth(integer) is
'Raises INVALID_ARGUMENT (field depth) when a path would have more nodes than drive.max_depth.';

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
    perform private.check_depth(coalesce(cardinality(v_parent.path), 0) + 1);
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

parent: the folder to put it in (level edit), null for your own root. Raises INVALID_ARGUMENT (field name, parent or
depth), CONFLICT_NAME with existing_id and suggested, NOT_FOUND, FORBIDDEN.';
grant execute on function public.create_folder(text, uuid) to anon, authenticated;

create function private.check_filter_types(filters jsonb, types jsonb) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_key text;
    v_value jsonb;
    v_type text;
begin
    if jsonb_typeof(filters) <> 'object' then
        perform private.raise_invalid('filters', 'filters must be an object.');
    end if;
    for v_key, v_value in select f.key, f.value from jsonb_each(filters) as f loop
        v_type := types ->> v_key;
        if v_type is null then
            perform private.raise_invalid(
                'filters.' || v_key,
                format('There is no filter "%s".', v_key),
                jsonb_build_object('expected', (select jsonb_agg(k) from jsonb_object_keys(types) as k))
            );
        end if;
        continue when v_value = 'null';
        if jsonb_typeof(v_value) <> (case when v_type = 'texts' then 'array' else 'string' end) then
            perform private.raise_invalid(
                'filters.' || v_key,
                format('%s must be null or a %s.', v_key, case when v_type = 'texts' then 'list' else 'text' end)
            );
        end if;
        begin
            if v_type = 'timestamp' then
                perform (filters ->> v_key)::timestamptz;
            end if;
        exception when data_exception then
            perform private.raise_invalid('filters.' || v_key, format('%s is no date or time.', v_key));
        end;
    end loop;
end;
$$;
comment on function private.check_filter_types(jsonb, jsonb) is
'Raises INVALID_ARGUMENT naming the filter that is not among types ({name: texts | text | timestamp}), or malformed.';

create function private.filter_conditions(filters jsonb) returns text
language sql stable
security invoker
set search_path = ''
as $$
    select concat(
        case when filters ->> 'kinds' is not null then
            format(' and n.kind = any(%L)', array(select jsonb_array_elements_text(filters -> 'kinds')))
        end,
        case when filters ->> 'statuses' is not null then
            format(' and n.status = any(%L)', array(select jsonb_array_elements_text(filters -> 'statuses')))
        end,
        case when filters ->> 'types' is not null then format(
            ' and n.kind = ''file'' and lower(substring(n.name from ''\.([^.]+)$'')) = any(%L)',
            array(select lower(ltrim(t, '.')) from jsonb_array_elements_text(filters -> 'types') as t)
        ) end,
        case when filters ->> 'name_contains' is not null then
            format(' and strpos(private.name_key(n.name), %L) > 0', private.name_key(filters ->> 'name_contains'))
        end,
        case when filters ->> 'updated_from' is not null then
            format(' and n.updated_at >= %L', (filters ->> 'updated_from')::timestamptz)
        end,
        case when filters ->> 'updated_to' is not null then
            format(' and n.updated_at <= %L', (filters ->> 'updated_to')::timestamptz)
        end
    );
$$;
comment on function private.filter_conditions(jsonb) is
'The filters of list_folder as conditions on nodes n, every value quoted; only those that are asked for cost anything.';

create function private.folder_totals(folder_ids uuid[], max_nodes bigint default null)
returns table (folder_id uuid, child_count bigint, total_size bigint)
language sql stable
security definer -- counts below a folder without testing the policy on each node: who reads it may read them all
set search_path = ''
as $$
    select
        f.id,
        (select count(*) from public.nodes as n where n.parent_id = f.id and n.trashed_at is null),
        (
            with recursive below (id, kind, size) as (
                select n.id, n.kind, n.size
                from public.nodes as n
                where n.parent_id = f.id and n.trashed_at is null
                union all
                select c.id, c.kind, c.size
                from below as b
                cross join lateral ( -- by the index, folder for folder, however many they might be
                    select n.id, n.kind, n.size
                    from public.nodes as n
                    where n.parent_id = b.id and n.trashed_at is null
                    offset 0
                ) as c
                where b.kind = 'folder'
            )
            select case when max_nodes is null or count(*) <= max_nodes then coalesce(sum(l.size), 0)::bigint end
            -- level by level, so that it ends where the limit is reached
            from (select b.size from below as b limit max_nodes + 1) as l
        )
    from public.nodes as f
    where f.id = any(folder_ids)
        and f.kind = 'folder'
        and private.is_readable(
            f.owner_id, f.path, f.trashed_at, (select private.my_owner_ids()), (select private.granted_roots())
        );
$$;
comment on function private.folder_totals(uuid[], bigint) is
'How many living nodes each of these folders holds directly, and the bytes of all below it; no bytes when there are more
nodes than max_nodes. Leaves out what the caller may not read.';

create function private.decode_cursor(cursor text, sort text) returns jsonb
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_after jsonb;
begin
    v_after := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
    if cursor is not null and (
        num_nulls(v_after ->> 0, (v_after ->> 1)::uuid) > 0 or v_after ->> 2 is distinct from sort
    ) then
        raise data_exception;
    end if;
    return v_after;
exception when others then
    perform private.raise_invalid('cursor', 'This cursor is not one that list_folder gave.');
end;
$$;
comment on function private.decode_cursor(text, text) is
'Where the page before ended, as [sort key, id, sort]; null for the first. Raises INVALID_ARGUMENT (field cursor).';

create function private.list_folder(
    folder uuid, sort text, page_size integer, cursor text, recursive boolean, filters jsonb
) returns jsonb
language plpgsql stable
security definer -- who reads a folder reads all that lives below it: asked once, so that a page is read by its index
set search_path = ''
as $$
declare
    v_owner_id uuid := auth.uid();
    v_key text;
    v_is_descending boolean := sort like '-%';
    v_after jsonb := private.decode_cursor(cursor, sort);
    v_tag_keys text[];
    v_rows jsonb;
begin
    perform private.require_reader();
    -- by name in the collation of the index that keeps names apart: the keys come in its order
    v_key := case regexp_replace(sort, '^-', '')
        when 'name' then 'lower(normalize(n.name, nfc) collate pg_c_utf8)'
        when 'updated_at' then 'to_char(n.updated_at at time zone ''utc'', ''YYYYMMDDHH24MISSUS'') collate pg_c_utf8'
        when 'created_at' then 'to_char(n.created_at at time zone ''utc'', ''YYYYMMDDHH24MISSUS'') collate pg_c_utf8'
        when 'size' then 'lpad(n.size::text, 20, ''0'') collate pg_c_utf8'
    end;
    if v_key is null then
        perform private.raise_invalid(
            'sort', 'Sort by name, updated_at, created_at or size; a leading "-" reverses.'
        );
    end if;
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    if recursive is null then
        perform private.raise_invalid('recursive', 'recursive is true or false.');
    end if;
    if filters is not null then
        perform private.check_filter_types(
            filters, '{"kinds": "texts", "types": "texts", "statuses": "texts", "tags": "texts", "name_contains": "text",
                       "updated_from": "timestamp", "updated_to": "timestamp"}'
        );
        v_tag_keys := nullif(private.tag_keys(array(
            select jsonb_array_elements_text(nullif(filters -> 'tags', 'null'))
        )), '{}');
    end if;
    if v_tag_keys is not null then
        perform private.require_user(); -- tags are for people, not for whoever holds a link
    end if;
    if folder is not null then
        select n.owner_id into v_owner_id
        from public.nodes as n
        where n.id = folder
            and n.kind = 'folder'
            and private.is_readable(
                n.owner_id, n.path, n.trashed_at, private.my_owner_ids(), private.granted_roots()
            );
        if not found then
            perform private.raise_error('NOT_FOUND', 'No such folder.', jsonb_build_object('id', folder));
        end if;
    end if;

    -- the pieces are constants, and quoted values; one row more than asked tells whether there is a next page
    execute format(
        $query$
        select coalesce(jsonb_agg(to_jsonb(p) - 'path' order by p.sort_key %3$s, p.id %3$s), '[]')
        from (
            select n.*, %1$s as sort_key
            from public.nodes as n
            where n.owner_id = $4 and n.trashed_at is null and %4$s %5$s %6$s %7$s
            order by %1$s %3$s, n.id %3$s
            limit $3 + 1
        ) as p
        $query$,
        v_key,
        case when v_is_descending then '<' else '>' end,
        case when v_is_descending then 'desc' else 'asc' end,
        case
            when folder is null and recursive then 'true'
            when folder is null then 'n.parent_id is null'
            when recursive then 'n.path @> array[$1] and n.id <> $1'
            else 'n.parent_id = $1'
        end,
        case when v_after is not null then format(
            'and (%1$s, n.id) %2$s ($2 ->> 0, ($2 ->> 1)::uuid)', v_key, case when v_is_descending then '<' else '>' end
        ) end,
        -- by the owner's tags only
        case when v_tag_keys is not null then
            'and n.id in (select t.node_id from public.node_tags as t where t.owner_id = $4 and t.tag_key = any($5))'
        end,
        private.filter_conditions(filters)
    ) into v_rows using folder, v_after, page_size, v_owner_id, v_tag_keys;

    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(
                r.item - 'sort_key' || coalesce(to_jsonb(t) - 'folder_id', '{}') order by r.position
            ), '[]')
            from jsonb_array_elements(v_rows) with ordinality as r (item, position)
            left join private.folder_totals(array(
                select (f.item ->> 'id')::uuid
                from jsonb_array_elements(v_rows) with ordinality as f (item, position)
                where f.position <= page_size and f.item ->> 'kind' = 'folder'
            ), 1000) as t on t.folder_id = (r.item ->> 'id')::uuid
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
comment on function private.list_folder(uuid, text, integer, text, boolean, jsonb) is 'Behind public.list_folder.';
grant execute on function private.list_folder(uuid, text, integer, text, boolean, jsonb) to anon, authenticated;

create function public.list_folder(
    folder uuid default null,
    sort text default 'name',
    page_size integer default 100,
    cursor text default null,
    recursive boolean default false,
    filters jsonb default null
) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_folder(folder, sort, page_size, cursor, recursive, filters); $$;
comment on function public.list_folder(uuid, text, integer, text, boolean, jsonb) is
'List what is in a folder: {items, next_cursor}.

folder: null for your own root. sort: name, updated_at, created_at, size; "-name" and so on reverse. page_size: 1 to
1000. cursor: the next_cursor of the page before; pages have no gaps or doubles while others insert. recursive: all that
is below it, not only in it. filters: kinds (file, folder), types (extensions), statuses, tags (any of them),
name_contains (any case), updated_from, updated_to; anything else is refused. A folder among the items has child_count,
and total_size, the bytes of all files below it: null when there are more than 1,000 nodes to add up (file_details
always has it). Raises NOT_FOUND, INVALID_ARGUMENT (field sort, page_size, cursor, recursive or filters.…).';
grant execute on function public.list_folder(uuid, text, integer, text, boolean, jsonb) to anon, authenticated;

-- Renaming -------------------------------------------------------------------------------------

create function private.rename_node(id uuid, name text) returns public.nodes
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_node public.nodes;
    v_sibling public.nodes;
begin
    perform private.require_writer();
    perform private.check_name(name);
    -- nodes before owners; then look, since it may have been on its way elsewhere
    perform from public.nodes as n where n.id = rename_node.id for no key update;
    v_node := private.require_level(id, 'edit');
    if exists (select 1 from public.workspaces as w where w.root_id = v_node.id) then
        v_node := private.require_level(id, 'manage');
    end if;
    if v_node.kind = 'file' then
        perform private.check_type(name);
    end if;
    if v_node.name = name then
        return v_node;
    end if;
    if v_node.kind = 'file' and private.extension_of(name) is distinct from private.extension_of(v_node.name) then
        perform private.check_plan(v_node.owner_id, name, 0);
    end if;
    -- names of one owner are given out one at a time
    perform from public.owners as o where o.id = v_node.owner_id for no key update;
    v_sibling := private.find_sibling(v_node.owner_id, v_node.parent_id, name);
    if v_sibling.id <> v_node.id then
        perform private.raise_name_conflict(v_sibling, name);
    end if;
    update public.nodes as n
    set name = rename_node.name, updated_at = now()
    where n.id = rename_node.id
    returning * into v_node;
    return v_node;
end;
$$;
comment on function private.rename_node(uuid, text) is 'Behind public.rename_node.';
grant execute on function private.rename_node(uuid, text) to anon, authenticated;

create function public.rename_node(id uuid, name text) returns public.nodes
language sql volatile
security invoker
set search_path = ''
as $$ select private.rename_node(id, name); $$;
comment on function public.rename_node(uuid, text) is
'Give a file or folder another name and return it.

Needs level edit; the root folder of a workspace, whose name is the workspace''s, level manage. A change of case alone
works. Raises INVALID_ARGUMENT (field name), TYPE_NOT_ALLOWED, CONFLICT_NAME with existing_id and suggested, NOT_FOUND,
FORBIDDEN.';
grant execute on function public.rename_node(uuid, text) to anon, authenticated;

-- Moving ---------------------------------------------------------------------------------------

create function private.check_conflict_policy(on_conflict text) returns text
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if on_conflict is null or on_conflict not in ('fail', 'rename', 'keep_both', 'version', 'replace', 'skip') then
        perform private.raise_invalid(
            'on_conflict', 'on_conflict must be fail, rename (keep_both), version, replace or skip.'
        );
    end if;
    return case on_conflict when 'keep_both' then 'rename' else on_conflict end;
end;
$$;
comment on function private.check_conflict_policy(text) is
'What to do when a name is taken, the alias keep_both as rename. Raises INVALID_ARGUMENT (field on_conflict).';

create function private.require_move(node public.nodes, target public.nodes, target_owner_id uuid) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    perform private.require_not_root(node);
    if (target).path @> array[(node).id] then
        perform private.raise_error(
            'CYCLE', 'A folder cannot be put into itself.',
            jsonb_build_object('id', (node).id, 'target', (target).id)
        );
    end if;
    -- who reaches a node through a share, or as a member, may not carry it out of there with edit alone
    if (node).owner_id <> target_owner_id
        or not (
            coalesce(private.level_rank(private.owner_level(auth.uid(), (node).owner_id)), 0)
            >= private.level_rank('edit')
            or (target).path && array(
                select unnest((node).path) intersect select unnest(private.granted_roots())
            )
        ) then
        perform private.require_level((node).id, 'manage');
    end if;
    perform private.check_depth(
        coalesce(cardinality((target).path), 0) + 1 - cardinality((node).path)
        + (select max(cardinality(n.path)) from public.nodes as n where n.path @> array[(node).id])
    );
end;
$$;
comment on function private.require_move(public.nodes, public.nodes, uuid) is
'Raises why a node may not go into a folder, names aside: CONFLICT_STATE, CYCLE, FORBIDDEN, INVALID_ARGUMENT (depth).';

create function private.move_node(
    node_id uuid, target public.nodes, target_owner_id uuid, on_conflict text, ids uuid[]
) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_node public.nodes := private.require_level(node_id, 'edit');
    v_sibling public.nodes;
    v_name text := v_node.name;
    v_is_there boolean := v_node.parent_id is not distinct from (target).id and v_node.owner_id = target_owner_id;
    v_is_skipped boolean := false;
    v_version_id uuid;
begin
    if not v_is_there then
        perform private.require_move(v_node, target, target_owner_id);
        v_sibling := private.find_sibling(target_owner_id, (target).id, v_name);
        if v_sibling.id is null then
            perform private.place_node(v_node, target, target_owner_id, v_name);
        elsif on_conflict = 'rename' then
            v_name := private.free_name(target_owner_id, (target).id, v_name);
            perform private.place_node(v_node, target, target_owner_id, v_name);
        elsif on_conflict = 'replace' and not private.holds_any(v_sibling.id, ids) then
            perform private.trash_trees(array[v_sibling.id]);
            perform private.place_node(v_node, target, target_owner_id, v_name);
        elsif on_conflict = 'version' and v_node.kind = 'file' and v_sibling.kind = 'file'
            and v_sibling.id <> all(ids) then
            if private.content_version_id(v_node) is null then
                perform private.raise_error(
                    'CONFLICT_STATE', 'This file has no content yet.', jsonb_build_object('id', node_id)
                );
            end if;
            v_version_id := private.append_version(v_sibling.id, private.content_version_id(v_node), auth.uid());
            perform private.trash_trees(array[v_node.id]);
        elsif on_conflict = 'skip' then
            v_is_skipped := true;
        else
            perform private.raise_name_conflict(v_sibling, v_name);
        end if;
    end if;
    return jsonb_build_object(
        'id', node_id,
        'name', coalesce(case when v_version_id is not null then v_sibling.name end, v_name),
        'parent_id', case when v_is_skipped then v_node.parent_id else (target).id end,
        'skipped', v_is_skipped,
        'replaced_id', case when on_conflict = 'replace' then v_sibling.id end,
        'version_of', case when v_version_id is not null then v_sibling.id end,
        'version_id', v_version_id
    );
end;
$$;
comment on function private.move_node(uuid, public.nodes, uuid, text, uuid[]) is
'Moves one node of the batch ids, everything being locked; the item of the answer.';

create function private.place_node(node public.nodes, target public.nodes, owner_id uuid, name text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    -- trashed nodes below it too: they return to where their parent is
    update public.nodes as n
    set
        owner_id = place_node.owner_id,
        path = coalesce((target).path, '{}') || n.path[cardinality((node).path):],
        parent_id = case when n.id = (node).id then (target).id else n.parent_id end,
        name = case when n.id = (node).id then place_node.name else n.name end,
        updated_at = case when n.id = (node).id then now() else n.updated_at end
    where n.path @> array[(node).id];
    if (node).owner_id <> place_node.owner_id then
        perform private.transfer_nodes((node).id, (node).owner_id, place_node.owner_id);
        -- nobody brings others in through a folder shared beforehand where they may not share
        if private.level_rank(private.my_level(target)) < private.level_rank('manage') then
            delete from public.shares as s
            using public.nodes as n
            where s.node_id = n.id and n.path @> array[(node).id];
        end if;
    end if;
end;
$$;
comment on function private.place_node(public.nodes, public.nodes, uuid, text) is
'Puts a node, and with it all below it, into a folder (a null row: the caller''s root) of an owner under a name. Its
shares end when the owner is another one and the caller may not share there.';

create function private.check_ids(ids uuid[]) returns uuid[]
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if ids is null or array_ndims(ids) > 1 or array_position(ids, null) is not null then
        perform private.raise_invalid('ids', 'ids must be a list of ids, without null.');
    end if;
    if cardinality(ids) > 1000 then
        perform private.raise_invalid(
            'ids', 'At most 1000 ids at once.', jsonb_build_object('count', cardinality(ids), 'limit', 1000)
        );
    end if;
    return array(
        select i.id from unnest(ids) with ordinality as i (id, position) group by i.id order by min(i.position)
    );
end;
$$;
comment on function private.check_ids(uuid[]) is
'The ids of a batch, each once, in the order given. Raises INVALID_ARGUMENT (field ids).';

create function private.require_target(target_id uuid) returns public.nodes
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_target public.nodes;
begin
    if target_id is not null then
        v_target := private.require_level(target_id, 'edit');
        if v_target.kind <> 'folder' then
            perform private.raise_invalid('target', 'Only a folder can contain others.');
        end if;
    end if;
    return v_target;
end;
$$;
comment on function private.require_target(uuid) is
'The folder to put something into, a null row for the caller''s own root. Raises as require_level, and INVALID_ARGUMENT
(field target).';

create function private.lock_placing(
    ids uuid[], target public.nodes, target_owner_id uuid, on_conflict text, level text
) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_in_the_way uuid[];
    v_owner_ids uuid[];
begin
    -- nobody locks what they may not use
    v_ids := array(
        select n.id from public.nodes as n
        where n.id = any(lock_placing.ids)
            and private.level_rank(private.my_level(n)) >= private.level_rank(lock_placing.level)
    );
    v_owner_ids := array(select n.owner_id from public.nodes as n where n.id = any(v_ids)) || target_owner_id;
    perform private.lock_tree(v_owner_ids);
    v_in_the_way := private.nodes_in_the_way(v_ids, (target).id, target_owner_id, on_conflict);
    -- the ancestors of the target as they are now that the tree is locked
    perform private.lock_nodes(
        v_ids || v_in_the_way, array(select unnest(n.path) from public.nodes as n where n.id = (target).id)
    );
    perform from public.owners as o where o.id = any(v_owner_ids) order by o.id for no key update;
    if exists (
        select 1 from public.nodes as n
        where n.id = any(v_ids) and n.owner_id <> all(v_owner_ids)
            or n.id = (target).id and n.owner_id <> target_owner_id
    ) or not private.nodes_in_the_way(v_ids, (target).id, target_owner_id, on_conflict) <@ v_in_the_way then
        -- locking what came since would be out of order
        perform private.raise_error('LOCKED', 'Something there was changed at the same time.', '{}', 'Try again.');
    end if;
end;
$$;
comment on function private.lock_placing(uuid[], public.nodes, uuid, text, text) is
'Locks all that moving or copying these nodes into a folder can touch, as far as the caller has this level on them: the
trees, then the nodes in order of id, then the owners. Read again after it. Raises LOCKED.';

create function private.holds_any(folder_id uuid, ids uuid[]) returns boolean
language sql stable
security invoker
set search_path = ''
as $$
    select exists (
        select 1 from public.nodes as n where n.id = any(holds_any.ids) and n.path @> array[folder_id]
    );
$$;
comment on function private.holds_any(uuid, uuid[]) is 'Whether a node is, or has below it, one of these.';

create function private.nodes_in_the_way(ids uuid[], target_id uuid, target_owner_id uuid, on_conflict text)
returns uuid[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(s.id), '{}')
    from public.nodes as n
    cross join lateral private.find_sibling(target_owner_id, target_id, n.name) as s
    where on_conflict in ('replace', 'version')
        and n.id = any(ids)
        and s.id <> n.id;
$$;
comment on function private.nodes_in_the_way(uuid[], uuid, uuid, text) is
'What moving or copying these nodes by this policy would replace, or give a version to.';

create function private.move_nodes(ids uuid[], target uuid, on_conflict text) returns jsonb
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_policy text := private.check_conflict_policy(on_conflict);
    v_ids uuid[] := private.check_ids(ids);
    v_target public.nodes := private.require_target(target);
    v_owner_id uuid := coalesce(v_target.owner_id, v_user_id);
    v_id uuid;
    v_items jsonb[] := '{}';
    v_errors jsonb[] := '{}';
    v_detail text;
begin
    perform private.lock_placing(v_ids, v_target, v_owner_id, v_policy, 'edit');
    v_target := private.require_target(target);
    foreach v_id in array v_ids loop
        begin
            v_items := v_items || private.move_node(v_id, v_target, v_owner_id, v_policy, v_ids);
        exception when others then
            get stacked diagnostics v_detail = pg_exception_detail;
            v_errors := v_errors || private.batch_item(v_id, sqlstate, sqlerrm, v_detail);
        end;
    end loop;
    perform private.raise_batch(to_jsonb(v_errors));
    -- whoever uploads there may have had the right from where it was
    perform private.settle_access(array_agg(distinct u.created_by), array_agg(u.id))
    from public.uploads as u inner join public.nodes as n on n.id = u.file_id
    where n.path && v_ids and u.state in ('open', 'uploading')
    having count(*) > 0;
    return jsonb_build_object('items', to_jsonb(v_items));
end;
$$;
comment on function private.move_nodes(uuid[], uuid, text) is 'Behind public.move_nodes.';
grant execute on function private.move_nodes(uuid[], uuid, text) to anon, authenticated;

create function public.move_nodes(ids uuid[], target uuid default null, on_conflict text default 'fail') returns jsonb
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- a subtree of any size is one transaction
as $$ select private.move_nodes(ids, target, on_conflict); $$;
comment on function public.move_nodes(uuid[], uuid, text) is
'Move files and folders, with all below them, into a folder: {items: [{id, name, parent_id, skipped, replaced_id,
version_of, version_id}]}. All or nothing.

target: a folder, null for your own root. on_conflict, when a name is taken there: fail, rename (keep_both), version
(the file there gets the content as its next version, version_of and version_id; the source goes to the trash), replace
(what is there goes to the trash, replaced_id) or skip. What is already there stays. Each id goes to the target itself,
one below another of them too. Needs level edit on both ends, and manage where the target lies outside of what was
shared with the caller, or belongs to somebody else; shares end where it belongs to somebody else for whom the caller
may not share. Raises CYCLE, CONFLICT_NAME {existing_id, suggested},
CONFLICT_STATE, INVALID_ARGUMENT (field ids, target, on_conflict or depth), QUOTA_EXCEEDED, NOT_FOUND, FORBIDDEN,
LOCKED; details.items has every id that cannot be moved.';
grant execute on function public.move_nodes(uuid[], uuid, text) to anon, authenticated;

-- Changing owners ------------------------------------------------------------------------------

create function private.transfer_blobs(node_id uuid, from_owner_id uuid, to_owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_copy_ids uuid[];
    v_size bigint;
begin
    -- what becomes of each blob that is used below the node: another one that the new owner has already, a second row
    -- when it is used elsewhere as well, itself otherwise; what only purged files have is paid for by nobody
    select
        array_agg(u.id),
        array_agg(coalesce(k.id, case when u.is_shared then gen_random_uuid() else u.id end)),
        sum(u.size) filter (where k.id is null and u.is_paid)
    into v_ids, v_copy_ids, v_size
    from (
        select
            b.id, b.bucket, b.key, b.sha256, b.size,
            bool_or(not n.path @> array[node_id]) as is_shared,
            bool_or(n.path @> array[node_id] and n.purged_at is null) as is_paid
        from private.blobs as b
        inner join private.blob_uses as v on v.blob_id = b.id
        inner join public.nodes as n on n.id = v.file_id
        where b.owner_id = from_owner_id
            and b.id in (
                select i.blob_id
                from public.nodes as f inner join private.blob_uses as i on i.file_id = f.id
                where f.path @> array[node_id]
            )
        group by b.id
    ) as u
    left join lateral (
        select o.id
        from private.blobs as o
        where o.owner_id = to_owner_id
            and o.released_at is null
            and o.bucket = u.bucket
            and (o.key = u.key or (o.sha256 = u.sha256 and o.size = u.size))
        order by o.key = u.key desc, o.created_at, o.id
        limit 1
    ) as k on true;
    if v_size > 0 then
        perform private.require_quota(to_owner_id, v_size);
    end if;

    insert into private.blobs (id, owner_id, bucket, key, size, sha256, released_at)
    select
        c.copy_id, to_owner_id, b.bucket, b.key, b.size, b.sha256,
        case when not exists (
            select 1
            from private.blob_uses as v inner join public.nodes as n on n.id = v.file_id
            where v.blob_id = b.id and n.path @> array[node_id] and n.purged_at is null
        ) then now() end
    from unnest(v_ids, v_copy_ids) as c (id, copy_id)
    inner join private.blobs as b on b.id = c.id
    where not exists (select 1 from private.blobs as o where o.id = c.copy_id);
    update public.file_versions as v
    set blob_id = c.copy_id
    from unnest(v_ids, v_copy_ids) as c (id, copy_id), public.nodes as n
    where v.blob_id = c.id and c.copy_id <> c.id and n.id = v.file_id and n.path @> array[node_id];
    update public.renditions as r
    set blob_id = c.copy_id
    from unnest(v_ids, v_copy_ids) as c (id, copy_id), public.nodes as n
    where r.blob_id = c.id and c.copy_id <> c.id and n.id = r.file_id and n.path @> array[node_id];
    update private.blobs as b set owner_id = to_owner_id where b.id = any(v_copy_ids) and b.owner_id = from_owner_id;
    -- what is left behind may have no use any more, or that of purged files only
    delete from private.blobs as b
    where b.id = any(v_ids) and not exists (select 1 from private.blob_uses as v where v.blob_id = b.id);
    update private.blobs as b
    set released_at = now()
    where b.id = any(v_ids)
        and b.released_at is null
        and not exists (
            select 1
            from private.blob_uses as v inner join public.nodes as n on n.id = v.file_id
            where v.blob_id = b.id and n.purged_at is null
        );
end;
$$;
comment on function private.transfer_blobs(uuid, uuid, uuid) is
'Gives the bytes of all below a node to another owner, within their quota. No object moves. Raises QUOTA_EXCEEDED.';

create function private.transfer_index(node_id uuid, from_owner_id uuid, to_owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_file_ids uuid[] := array(select n.id from public.nodes as n where n.path @> array[node_id] and n.kind = 'file');
    v_texts bytea[];
    v_average real;
begin
    -- statistics last, in the order of their owners
    perform private.lock_statistics(o.id)
    from (select unnest(array[from_owner_id, to_owner_id]) as id order by 1) as o;
    v_texts := array(select distinct c.text_hash from public.chunks as c where c.file_id = any(v_file_ids));
    insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
    select to_owner_id, t.space_id, t.text_hash, t.embedding
    from private.text_vectors as t
    where t.owner_id = from_owner_id and t.text_hash = any(v_texts)
    order by t.text_hash -- as whoever stores vectors
    on conflict do nothing;
    update private.chunk_vectors as e set owner_id = to_owner_id where e.file_id = any(v_file_ids);

    -- as index_chunks would weigh them
    select (
        (s.total_length + coalesce(sum(t.length), 0))::real / nullif(s.chunk_count + count(t.chunk_id), 0)
    )::real into v_average
    from private.owner_statistics as s
    left join private.chunk_terms as t on t.file_id = any(v_file_ids) and t.part = 0
    where s.owner_id = to_owner_id
    group by s.total_length, s.chunk_count;
    -- not an update: deleting and inserting is what keeps both owners' statistics
    with gone as (
        delete from private.chunk_terms as t where t.file_id = any(v_file_ids) returning t.*
    )
    insert into private.chunk_terms (
        chunk_id, part, owner_id, file_id, language, length, terms, frequencies, weights
    )
    select
        g.chunk_id, g.part, to_owner_id, g.file_id, g.language, g.length, g.terms, g.frequencies,
        private.bm25_weights(g.terms, g.frequencies, g.length, v_average)
    from gone as g;
    perform private.renew_weights(o.id)
    from (select unnest(array[from_owner_id, to_owner_id]) as id order by 1) as o;
    perform private.forget_texts(array[from_owner_id], v_texts);
end;
$$;
comment on function private.transfer_index(uuid, uuid, uuid) is
'Makes the text and the vectors of all below a node another owner''s, in both their statistics. Embeds nothing.';

create function private.transfer_nodes(node_id uuid, from_owner_id uuid, to_owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if exists (
        select 1
        from public.uploads as u inner join public.nodes as n on n.id = u.file_id
        where n.path @> array[node_id] and u.state in ('open', 'uploading')
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'Something in there is being uploaded.', jsonb_build_object('id', node_id),
            'Wait for the upload to end, or abort it.'
        );
    end if;
    update public.uploads as u
    set owner_id = to_owner_id
    from public.nodes as n
    where n.path @> array[node_id] and u.file_id = n.id;
    perform private.transfer_blobs(node_id, from_owner_id, to_owner_id);
    perform private.transfer_index(node_id, from_owner_id, to_owner_id);
end;
$$;
comment on function private.transfer_nodes(uuid, uuid, uuid) is
'What else changes hands with the nodes at and below this one, whose owner_id is new already: quota, bytes, text,
vectors, statistics. The caller holds the locks on the nodes and on both owners. Raises CONFLICT_STATE while an upload
is open there, QUOTA_EXCEEDED.';

-- Copying --------------------------------------------------------------------------------------

create function private.content_version_id(node public.nodes) returns uuid
language sql stable
security invoker
set search_path = ''
as $$
    select v.id
    from public.file_versions as v
    where v.file_id = (node).id and v.blob_id is not null
    order by v.id = (node).head_version_id desc nulls last, v.no desc
    limit 1;
$$;
comment on function private.content_version_id(public.nodes) is
'What a file holds: its head, or before it has one the newest version with bytes; null while there are none.';

create function private.copy_node(
    node_id uuid, target public.nodes, target_owner_id uuid, on_conflict text, ids uuid[], before uuid[]
) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_node public.nodes := private.require_level(node_id, 'view');
    v_sibling public.nodes := private.find_sibling(target_owner_id, (target).id, v_node.name);
    v_name text := v_node.name;
    v_copy_id uuid;
    v_version_id uuid;
begin
    -- a copy could be downloaded without end
    if private.user_level(auth.uid(), v_node) is null and (private.my_link()).max_downloads is not null then
        perform private.raise_error(
            'FORBIDDEN', 'A link with a limited number of downloads does not let you copy.',
            jsonb_build_object('id', node_id), 'Download the file instead.'
        );
    end if;
    if v_node.kind = 'file' and private.content_version_id(v_node) is null then
        perform private.raise_error(
            'CONFLICT_STATE', 'This file has no content yet.', jsonb_build_object('id', node_id)
        );
    end if;
    if v_sibling.id is null or on_conflict = 'rename' then
        v_name := private.free_name(target_owner_id, (target).id, v_name);
        v_copy_id := private.copy_subtree(v_node, target, target_owner_id, v_name, before);
    elsif on_conflict = 'replace' and not private.holds_any(v_sibling.id, ids) then
        perform private.trash_trees(array[v_sibling.id]);
        v_copy_id := private.copy_subtree(v_node, target, target_owner_id, v_name, before);
    elsif on_conflict = 'version' and v_node.kind = 'file' and v_sibling.kind = 'file' and v_sibling.id <> all(ids) then
        v_copy_id := v_sibling.id;
        v_name := v_sibling.name;
        v_version_id := private.append_version(v_sibling.id, private.content_version_id(v_node), auth.uid());
    elsif on_conflict <> 'skip' then
        perform private.raise_name_conflict(v_sibling, v_name);
    end if;
    return jsonb_build_object(
        'id', v_copy_id,
        'source_id', node_id,
        'name', v_name,
        'parent_id', case when v_copy_id is not null then (target).id end,
        'skipped', v_copy_id is null,
        'replaced_id', case when on_conflict = 'replace' then v_sibling.id end,
        'version_of', case when v_version_id is not null then v_sibling.id end,
        'version_id', v_version_id
    );
end;
$$;
comment on function private.copy_node(uuid, public.nodes, uuid, text, uuid[], uuid[]) is
'Copies one node of the batch ids, of which the nodes `before` were there when it began; the item of the answer.';

create function private.copy_subtree(
    node public.nodes, target public.nodes, owner_id uuid, name text, before uuid[]
) returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_depth integer := cardinality((node).path);
    v_old_ids uuid[];
    v_new_ids uuid[];
begin
    -- what lived and has content; whoever may read the top of it may read all of it
    v_old_ids := array(
        select n.id
        from public.nodes as n
        where n.path @> array[(node).id]
            and n.id = any(before)
            and (n.kind = 'folder' or private.content_version_id(n) is not null)
        order by cardinality(n.path) desc
    );
    v_new_ids := array(select gen_random_uuid() from generate_subscripts(v_old_ids, 1));
    perform private.check_depth(
        coalesce(cardinality((target).path), 0) + 1 - v_depth
        + (select cardinality(n.path) from public.nodes as n where n.id = v_old_ids[1]) -- the deepest
    );
    insert into public.nodes (id, kind, name, parent_id, owner_id, path, mime, status, created_by)
    select
        c.new_id, n.kind, case when n.id = (node).id then copy_subtree.name else n.name end,
        case when n.id = (node).id then (target).id else p.new_id end,
        copy_subtree.owner_id, coalesce((target).path, '{}') || c.path, n.mime,
        case n.kind when 'file' then 'queued' else 'ready' end, auth.uid()
    from (
        select o.old_id, o.new_id, array_agg(m.new_id order by a.depth) as path
        from unnest(v_old_ids, v_new_ids) as o (old_id, new_id)
        inner join public.nodes as n on n.id = o.old_id
        cross join lateral unnest(n.path[v_depth:]) with ordinality as a (id, depth)
        inner join unnest(v_old_ids, v_new_ids) as m (old_id, new_id) on m.old_id = a.id
        group by o.old_id, o.new_id
    ) as c
    inner join public.nodes as n on n.id = c.old_id
    left join unnest(v_old_ids, v_new_ids) as p (old_id, new_id) on p.old_id = n.parent_id;

    perform private.append_version(c.new_id, private.content_version_id(n), auth.uid())
    from unnest(v_old_ids, v_new_ids) as c (old_id, new_id)
    inner join public.nodes as n on n.id = c.old_id
    where n.kind = 'file';
    -- the source's owner learns of it too
    perform private.write_audit('copy', c.old_id, null, null, jsonb_build_object('copy_id', c.new_id))
    from unnest(v_old_ids, v_new_ids) as c (old_id, new_id)
    where c.old_id = (node).id;
    return (select c.new_id from unnest(v_old_ids, v_new_ids) as c (old_id, new_id) where c.old_id = (node).id);
end;
$$;
comment on function private.copy_subtree(public.nodes, public.nodes, uuid, text, uuid[]) is
'Copies a node and what lives below it into a folder of an owner under a name; the id of the copy. Bytes, text and
vectors are taken over, not made again.';

create function private.copy_nodes(ids uuid[], target uuid, on_conflict text) returns jsonb
language plpgsql volatile
security definer -- clients only read nodes
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_policy text := private.check_conflict_policy(on_conflict);
    v_ids uuid[] := private.check_ids(ids);
    v_target public.nodes := private.require_target(target);
    v_owner_id uuid := coalesce(v_target.owner_id, v_user_id);
    v_before uuid[];
    v_id uuid;
    v_items jsonb[] := '{}';
    v_errors jsonb[] := '{}';
    v_detail text;
begin
    perform private.lock_placing(v_ids, v_target, v_owner_id, v_policy, 'view');
    v_target := private.require_target(target);
    -- a folder that is copied into itself holds what it held before
    v_before := array(select n.id from public.nodes as n where n.path && v_ids and n.trashed_at is null);
    foreach v_id in array v_ids loop
        begin
            v_items := v_items || private.copy_node(v_id, v_target, v_owner_id, v_policy, v_ids, v_before);
        exception when others then
            get stacked diagnostics v_detail = pg_exception_detail;
            v_errors := v_errors || private.batch_item(v_id, sqlstate, sqlerrm, v_detail);
        end;
    end loop;
    perform private.raise_batch(to_jsonb(v_errors));
    return jsonb_build_object('items', to_jsonb(v_items));
end;
$$;
comment on function private.copy_nodes(uuid[], uuid, text) is 'Behind public.copy_nodes.';
grant execute on function private.copy_nodes(uuid[], uuid, text) to anon, authenticated;

create function public.copy_nodes(ids uuid[], target uuid default null, on_conflict text default 'fail') returns jsonb
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- as many files as there are below a folder
as $$ select private.copy_nodes(ids, target, on_conflict); $$;
comment on function public.copy_nodes(uuid[], uuid, text) is
'Copy files and folders, with all that lives below them, into a folder: {items: [{id, source_id, name, parent_id,
skipped, replaced_id, version_of, version_id}]}, id being the copy''s. All or nothing.

A copy has the content that the file has now, without older versions, shares, tags or comments. Its bytes are shared
with the source until either changes; they count on the quota only of an owner who did not have them. Nothing is read or
embedded again. Files whose first upload has not ended are left out. target and on_conflict as for move_nodes, except
that version leaves the source where it is. Needs level view on what is copied, not only through a link that limits
downloads, and edit on the target. Raises
CONFLICT_NAME {existing_id, suggested}, CONFLICT_STATE, INVALID_ARGUMENT (field ids, target, on_conflict or depth),
QUOTA_EXCEEDED, NOT_FOUND, FORBIDDEN, LOCKED; details.items has every id that cannot be copied.';
grant execute on function public.copy_nodes(uuid[], uuid, text) to anon, authenticated;

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
            a.owner_id, a.path, a.trashed_at, (select private.my_owner_ids()), (select private.granted_roots())
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
    select to_jsonb(v_node) || case when v_node.kind = 'folder' then (
        select to_jsonb(t) - 'folder_id' from private.folder_totals(array[v_node.id]) as t
    ) else '{}' end || jsonb_build_object(
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
problem {error_code, error_message, new_version_failed} or null; of a folder also child_count and total_size, the bytes
of all files below it. Raises NOT_FOUND.';
grant execute on function public.file_details(uuid) to anon, authenticated;
