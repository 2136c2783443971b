-- Moves: renaming, moving, giving to another owner, copying. No object is touched, and nothing is embedded again.

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
begin
    -- statistics last, in the order of their owners
    perform private.lock_statistics(o.id)
    from (select unnest(array[from_owner_id, to_owner_id]) as id order by 1) as o;
    v_texts := array(
        select private.text_hashes(array(select v.id from public.file_versions as v where v.file_id = any(v_file_ids)))
    );
    insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
    select to_owner_id, t.space_id, t.text_hash, t.embedding
    from private.text_vectors as t
    where t.owner_id = from_owner_id and t.text_hash = any(v_texts)
    order by t.text_hash -- as whoever stores vectors
    on conflict do nothing;
    update private.chunk_vectors as e set owner_id = to_owner_id where e.file_id = any(v_file_ids);

    update private.chunk_terms as t set owner_id = to_owner_id where t.file_id = any(v_file_ids) and t.part >= 0;
    update private.indexed_files as f set owner_id = to_owner_id where f.file_id = any(v_file_ids);
    perform private.forget_texts(array[from_owner_id], v_texts);
    perform private.transfer_pictures(v_file_ids, from_owner_id, to_owner_id);
end;
$$;
comment on function private.transfer_index(uuid, uuid, uuid) is
'Makes the text and the vectors of all below a node another owner''s, in both their statistics. Embeds nothing.';

create function private.check_plan_for_tree(owner_id uuid, node_id uuid) returns void
language sql stable
security invoker
set search_path = ''
as $$
    select private.check_plan(check_plan_for_tree.owner_id, min(n.name), max(n.size))
    from public.nodes as n
    where n.path @> array[node_id] and n.kind = 'file' and n.trashed_at is null
    group by private.extension_of(n.name);
$$;
comment on function private.check_plan_for_tree(uuid, uuid) is
'Raises what an owner''s plan says against the living files at and below a node: TYPE_NOT_ALLOWED, FILE_TOO_LARGE.';

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
    perform private.check_plan_for_tree(to_owner_id, node_id);
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
is open there, QUOTA_EXCEEDED, and what the new owner''s plan says.';

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
    if v_node.owner_id <> target_owner_id then
        perform private.check_plan_for_tree(target_owner_id, v_node.id);
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
    insert into public.nodes (id, kind, name, parent_id, owner_id, path, mime, metadata, source, status, created_by)
    select
        c.new_id, n.kind, case when n.id = (node).id then copy_subtree.name else n.name end,
        case when n.id = (node).id then (target).id else p.new_id end,
        copy_subtree.owner_id, coalesce((target).path, '{}') || c.path, n.mime, n.metadata, n.source,
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

    perform private.copy_members(v_old_ids, v_new_ids);
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
QUOTA_EXCEEDED, TYPE_NOT_ALLOWED and FILE_TOO_LARGE by another owner''s plan, NOT_FOUND, FORBIDDEN, LOCKED; details.items has every id that cannot be copied.';
grant execute on function public.copy_nodes(uuid[], uuid, text) to anon, authenticated;
