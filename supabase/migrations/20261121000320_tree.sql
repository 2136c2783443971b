-- The tree: names, folders, listing, details; batches, and the locks that changes of the tree take.

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
        for no key update
    );
    -- what came below them while we waited; waiting for it out of order could deadlock
    loop
        v_late := array(
            select n.id from public.nodes as n where n.path && root_ids or n.id = any(lock_nodes.ids)
            except -- "<> all" would compare each with each once the plan is a generic one
            select l.id from unnest(v_locked) as l (id)
        );
        exit when v_late = '{}';
        if (
            select count(*) < cardinality(v_late)
            from (select n.id from public.nodes as n where n.id = any(v_late) for no key update skip locked) as l
        ) then
            perform private.raise_error('LOCKED', 'Something in there is being changed.', '{}', 'Try again.');
        end if;
        v_locked := v_locked || v_late;
    end loop;
end;
$$;
comment on function private.lock_nodes(uuid[], uuid[]) is
'Locks everything below root_ids, and the nodes ids, in order of id. Raises LOCKED when somebody else is at what came
there meanwhile. Read again after it. Foreign keys do not wait for it: when a statement writes a row of its own
transaction again, Postgres looks at the parents anew, whoever has them, out of order.';

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

create function private.check_filter(name text, value jsonb, type jsonb) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_is_list boolean := jsonb_typeof(type) = 'array' or type in ('"texts"', '"uuids"');
    v_expected text := case
        when v_is_list then 'array' when type = '"number"' then 'number' when type = '"object"' then 'object'
        else 'string'
    end;
begin
    if jsonb_typeof(value) <> v_expected then
        perform private.raise_invalid(
            'filters.' || name, format('%s must be null or a JSON %s.', name, v_expected),
            jsonb_build_object('expected', v_expected)
        );
    end if;
    if octet_length(value #>> '{}') > 1000000 or v_is_list and jsonb_array_length(value) > 10000 then
        perform private.raise_invalid('filters.' || name, format('%s is too long.', name), '{"limit": 10000}');
    end if;
    if v_is_list and exists (
        select 1 from jsonb_array_elements(value) as e
        where jsonb_typeof(e) <> 'string' or jsonb_typeof(type) = 'array' and not type @> e
    ) then
        perform private.raise_invalid(
            'filters.' || name, format('%s has a value that cannot be meant.', name),
            jsonb_build_object('expected', case when jsonb_typeof(type) = 'array' then type else '"texts"' end)
        );
    end if;
    case type
        when '"uuid"' then perform (value #>> '{}')::uuid;
        when '"uuids"' then perform e::uuid from jsonb_array_elements_text(value) as e;
        when '"timestamp"' then perform (value #>> '{}')::timestamptz;
        when '"number"' then perform (value #>> '{}')::integer;
        else null;
    end case;
exception when data_exception then
    perform private.raise_invalid(
        'filters.' || name, format('%s has a value that cannot be read.', name), jsonb_build_object('expected', type)
    );
end;
$$;
comment on function private.check_filter(text, jsonb, jsonb) is
'Raises INVALID_ARGUMENT when the value of a filter is not of its type: text, texts, timestamp, number, object, uuid,
uuids, or a list of the texts that it may have.';

create function private.check_filters(filters jsonb, types jsonb) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_key text;
    v_value jsonb;
begin
    if jsonb_typeof(filters) <> 'object' then
        perform private.raise_invalid('filters', 'filters must be an object.');
    end if;
    for v_key, v_value in select f.key, f.value from jsonb_each(filters) as f loop
        if not types ? v_key then
            perform private.raise_invalid(
                'filters.' || left(v_key, 100),
                format('There is no filter "%s".', regexp_replace(left(v_key, 100), '[[:cntrl:]]', ' ', 'g')),
                jsonb_build_object('expected', (select jsonb_agg(k) from jsonb_object_keys(types) as k))
            );
        end if;
        if v_value <> 'null' then
            perform private.check_filter(v_key, v_value, types -> v_key);
        end if;
    end loop;
end;
$$;
comment on function private.check_filters(jsonb, jsonb) is
'Raises INVALID_ARGUMENT naming the filter that is not among types ({name: type, as for check_filter}), or malformed.';

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
            with recursive below (id, size) as (
                select n.id, n.size
                from public.nodes as n
                where n.parent_id = f.id and n.trashed_at is null
                union all
                select c.id, c.size
                from below as b
                cross join lateral ( -- by the index, node for node, however many they might be: mails hold files, too
                    select n.id, n.size
                    from public.nodes as n
                    where n.parent_id = b.id and n.trashed_at is null
                    offset 0
                ) as c
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
    perform private.raise_invalid('cursor', 'This cursor is not one that this list gave.');
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
        perform private.check_filters(
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

-- Details --------------------------------------------------------------------------------------

create function private.readable_path(node public.nodes, owner_ids uuid[], roots uuid[]) returns text
language sql stable
security invoker -- called as the owner, with what the caller may read
set search_path = ''
as $$
    select '/' || string_agg(a.name, '/' order by cardinality(a.path))
    from public.nodes as a
    where a.id = any((node).path)
        and private.is_readable(
            a.owner_id, a.path, a.trashed_at, readable_path.owner_ids, readable_path.roots
        );
$$;
comment on function private.readable_path(public.nodes, uuid[], uuid[]) is
'path_name for many nodes at once: for whoever knows already which owners and granted roots the caller has.';

create function private.path_name(node public.nodes) returns text
language sql stable
security definer -- walks up to the highest ancestor that the caller may see, and no further
set search_path = ''
as $$ select private.readable_path(node, private.my_owner_ids(), private.granted_roots()); $$;
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
        'members', private.members_of(v_node),
        'truncated', coalesce(h.truncated, n.truncated, false),
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
        select v.id, v.status, v.error_code, v.error_message, v.blob_id, v.truncated
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
quota {used, reserved, limit} in bytes (to its owner), versions (newest first), shares (level manage and above), members
(files that were taken out of it, such as attachments: {id, name, size, mime, status}),
truncated (a limit ended reading it: its beginning is found), problem {error_code, error_message, new_version_failed} or
null; of a folder also child_count and total_size, the bytes of all files below it. Raises NOT_FOUND.';
grant execute on function public.file_details(uuid) to anon, authenticated;
