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
begin
    for v_owner_id in select distinct o.id from unnest(owner_ids) as o (id) where o.id is not null order by o.id loop
        perform pg_advisory_xact_lock(hashtextextended('tree:' || v_owner_id, 0));
    end loop;
end;
$$;
comment on function private.lock_tree(uuid[]) is
'Lets one transaction at a time change who is below whom in these owners'' trees; taken before any row.';

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
    v_late := array(
        select n.id from public.nodes as n
        where (n.path && root_ids or n.id = any(lock_nodes.ids)) and n.id <> all(v_locked)
    );
    if (
        select count(*) < cardinality(v_late)
        from (select n.id from public.nodes as n where n.id = any(v_late) for update skip locked) as l
    ) then
        perform private.raise_error('LOCKED', 'Something in there is being changed.', '{}', 'Try again.');
    end if;
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

-- Renaming -------------------------------------------------------------------------------------

create function private.is_workspace_root(node public.nodes) returns boolean
language sql stable
security invoker
set search_path = ''
as $$
    select (node).parent_id is null and exists (
        select 1 from public.owners as o where o.id = (node).owner_id and o.kind = 'workspace'
    );
$$;
comment on function private.is_workspace_root(public.nodes) is 'Whether a node is the root folder of a workspace.';

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
    if private.is_workspace_root(v_node) then
        v_node := private.require_level(id, 'manage');
    end if;
    if v_node.kind = 'file' then
        perform private.check_type(name);
    end if;
    if v_node.name = name then
        return v_node;
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
    if private.is_workspace_root(node) then
        perform private.raise_error(
            'CONFLICT_STATE', 'The root folder of a workspace stays where it is.', jsonb_build_object('id', (node).id)
        );
    end if;
    if (target).path @> array[(node).id] then
        perform private.raise_error(
            'CYCLE', 'A folder cannot be put into itself.',
            jsonb_build_object('id', (node).id, 'target', (target).id)
        );
    end if;
    -- who reaches a node through a share, or as a member, may not carry it out of there with edit alone
    if (node).owner_id <> target_owner_id
        or not (
            (node).owner_id = any(private.my_owner_ids())
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
        elsif on_conflict = 'replace' and not exists ( -- neither is what is moved, nor holds it
            select 1 from public.nodes as n where n.id = any(ids) and n.path @> array[v_sibling.id]
        ) then
            perform private.trash_nodes(array[v_sibling.id]);
            perform private.place_node(v_node, target, target_owner_id, v_name);
        elsif on_conflict = 'version' and v_node.kind = 'file' and v_sibling.kind = 'file'
            and v_sibling.id <> all(ids) then
            v_version_id := private.append_version(v_sibling.id, private.content_version_id(v_node), auth.uid());
            perform private.trash_nodes(array[v_node.id]);
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
    if (node).owner_id <> place_node.owner_id then
        perform private.transfer_nodes((node).id, place_node.owner_id);
    end if;
    -- trashed nodes below it too: they return to where their parent is
    update public.nodes as n
    set
        owner_id = place_node.owner_id,
        path = coalesce((target).path, '{}') || n.path[cardinality((node).path):],
        parent_id = case when n.id = (node).id then (target).id else n.parent_id end,
        name = case when n.id = (node).id then place_node.name else n.name end,
        updated_at = case when n.id = (node).id then now() else n.updated_at end
    where n.path @> array[(node).id];
end;
$$;
comment on function private.place_node(public.nodes, public.nodes, uuid, text) is
'Puts a node, and with it all below it, into a folder (a null row: the root) of an owner under a name.';

create function private.transfer_nodes(node_id uuid, owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    perform private.raise_error(
        'CONFLICT_STATE', 'Files cannot change owners yet.', jsonb_build_object('id', node_id, 'owner_id', owner_id)
    );
end;
$$;
comment on function private.transfer_nodes(uuid, uuid) is 'Gives all below a node to another owner.';

create function private.check_ids(ids uuid[]) returns uuid[]
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if ids is null or array_position(ids, null) is not null then
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
'The folder to put something into, a null row for the caller''s own root. Raises as require_level, or INVALID_ARGUMENT.';

create function private.lock_move(ids uuid[], target public.nodes, target_owner_id uuid, on_conflict text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_ids uuid[];
    v_in_the_way uuid[];
    v_owner_ids uuid[];
begin
    -- nobody locks what they may not write
    v_ids := array(
        select n.id from public.nodes as n
        where n.id = any(lock_move.ids) and private.level_rank(private.my_level(n)) >= private.level_rank('edit')
    );
    v_owner_ids := array(select n.owner_id from public.nodes as n where n.id = any(v_ids)) || target_owner_id;
    perform private.lock_tree(v_owner_ids);
    v_in_the_way := private.nodes_in_the_way(v_ids, (target).id, target_owner_id, on_conflict);
    -- the ancestors of the target as they are now, the tree being locked
    perform private.lock_nodes(
        v_ids || v_in_the_way, array(select unnest(n.path) from public.nodes as n where n.id = (target).id)
    );
    perform from public.owners as o where o.id = any(v_owner_ids) order by o.id for no key update;
    if exists (
        select 1 from public.nodes as n
        where n.id = any(v_ids || (target).id) and n.owner_id <> all(v_owner_ids)
    ) or not private.nodes_in_the_way(v_ids, (target).id, target_owner_id, on_conflict) <@ v_in_the_way then
        -- locking what came since would be out of order
        perform private.raise_error('LOCKED', 'Something there was changed at the same time.', '{}', 'Try again.');
    end if;
end;
$$;
comment on function private.lock_move(uuid[], public.nodes, uuid, text) is
'Locks all that moving these nodes into a folder can change: the trees, then the nodes in order of id, then the owners.
Read again after it. Raises LOCKED.';

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
'What a move by this policy would replace, or give a version to.';

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
    perform private.lock_move(v_ids, v_target, v_owner_id, v_policy);
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
shared with the caller, or belongs to somebody else. Raises CYCLE, CONFLICT_NAME {existing_id, suggested},
CONFLICT_STATE, INVALID_ARGUMENT (field ids, target, on_conflict or depth), QUOTA_EXCEEDED, NOT_FOUND, FORBIDDEN,
LOCKED; details.items has every id that cannot be moved.';
grant execute on function public.move_nodes(uuid[], uuid, text) to anon, authenticated;

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
