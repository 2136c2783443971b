-- Workspaces: owners that several people share; and who takes over when accounts go.

insert into private.settings (key, value, description) values
('workspaces.storage_limit', '5368709120', 'Quota of a new workspace, in bytes (5 GiB).'),
('workspaces.per_user', '20', 'Workspaces that one person may make, since each has a quota of its own.');

create function private.require_workspace(workspace_id uuid, level text) returns public.workspaces
language plpgsql volatile
security definer -- tells absent from forbidden only to members
set search_path = ''
as $$
declare
    v_workspace public.workspaces;
    v_level text := private.owner_level(auth.uid(), workspace_id);
begin
    -- members come and go one at a time, so that the last owner is certain
    if v_level is not null then
        select w.* into v_workspace from public.workspaces as w where w.id = workspace_id for no key update;
        v_level := private.owner_level(auth.uid(), workspace_id);
    end if;
    if v_workspace.id is null or v_level is null then
        perform private.raise_error('NOT_FOUND', 'No such workspace.', jsonb_build_object('id', workspace_id));
    end if;
    if private.level_rank(v_level) < private.level_rank(level) then
        perform private.raise_error(
            'FORBIDDEN',
            format('This needs the level %s in the workspace; yours is %s.', level, v_level),
            jsonb_build_object('id', workspace_id, 'level', v_level, 'required', level),
            'Ask an owner of the workspace.'
        );
    end if;
    return v_workspace;
end;
$$;
comment on function private.require_workspace(uuid, text) is
'The workspace, locked, when the caller has at least this level in it. Raises NOT_FOUND or FORBIDDEN.';

create function private.create_workspace(name text) returns jsonb
language plpgsql volatile
security definer -- clients only read owners, nodes and workspaces
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_limit integer := (private.setting('workspaces.per_user'))::integer;
    v_id uuid := gen_random_uuid();
    v_root_id uuid := gen_random_uuid();
begin
    perform private.check_name(name);
    -- one at a time, so that the count is certain
    perform from public.user_profiles as p where p.id = v_user_id for no key update;
    if (select count(*) from public.workspaces as w where w.created_by = v_user_id) >= v_limit then
        perform private.raise_error(
            'CONFLICT_STATE', format('You have made %s workspaces, as many as one person may.', v_limit),
            jsonb_build_object('limit', v_limit), 'Delete one that nobody needs.'
        );
    end if;
    insert into public.owners (id, kind, storage_limit)
    values (v_id, 'workspace', (private.setting('workspaces.storage_limit'))::bigint);
    insert into public.workspaces (id, created_by) values (v_id, v_user_id);
    insert into public.nodes (id, kind, name, owner_id, path, created_by)
    values (v_root_id, 'folder', create_workspace.name, v_id, array[v_root_id], v_user_id);
    update public.workspaces as w set root_id = v_root_id where w.id = v_id;
    insert into public.workspace_members (workspace_id, user_id, level, added_by)
    values (v_id, v_user_id, 'owner', v_user_id);
    return jsonb_build_object('id', v_id, 'root_id', v_root_id, 'name', name);
end;
$$;
comment on function private.create_workspace(text) is 'Behind public.create_workspace.';
grant execute on function private.create_workspace(text) to anon, authenticated;

create function public.create_workspace(name text) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.create_workspace(name); $$;
comment on function public.create_workspace(text) is
'Make a workspace, whose files belong to all its members, with a quota of its own: {id, root_id, name}.

Everything in it is below the folder root_id; rename that to rename the workspace. You are its first owner. Raises
INVALID_ARGUMENT (field name), CONFLICT_STATE {limit} for one workspace too many.';
grant execute on function public.create_workspace(text) to anon, authenticated;

create function private.delete_workspace(id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read owners, nodes and workspaces
set search_path = ''
as $$
declare
    v_workspace public.workspaces;
    v_count integer;
begin
    perform private.require_writer();
    v_workspace := private.require_workspace(id, 'owner');
    perform private.lock_subtrees(array[v_workspace.root_id]);
    v_count := private.purge_trees(array[v_workspace.root_id]);
    -- takes its members along; the owner goes with the last of its rows, by the worker that purges them
    delete from public.workspaces as w where w.id = v_workspace.id;
    return jsonb_build_object('deleted', true, 'nodes', v_count);
end;
$$;
comment on function private.delete_workspace(uuid) is 'Behind public.delete_workspace.';
grant execute on function private.delete_workspace(uuid) to anon, authenticated;

create function public.delete_workspace(id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
set statement_timeout = '120s' -- a workspace of any size is one transaction
as $$ select private.delete_workspace(id); $$;
comment on function public.delete_workspace(uuid) is
'Delete a workspace for good, with everything in it and in its trash: {deleted, nodes}. Needs level owner.

From the commit on it is gone for all its members; rows, text, vectors and objects follow through a worker. Raises
NOT_FOUND, FORBIDDEN, LOCKED while something in it is being changed.';
grant execute on function public.delete_workspace(uuid) to anon, authenticated;

create function private.list_workspaces() returns jsonb
language plpgsql stable
security definer -- counts members, and shows the quota
set search_path = ''
as $$
begin
    perform private.require_user();
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(
                jsonb_build_object(
                    'id', w.id,
                    'root_id', w.root_id,
                    'name', n.name,
                    'level', private.owner_level(auth.uid(), w.id),
                    'members', (select count(*) from public.workspace_members as m where m.workspace_id = w.id),
                    'storage_used', o.storage_used,
                    'storage_limit', o.storage_limit,
                    'created_at', w.created_at
                )
                order by lower(n.name), w.id
            ), '[]')
            from public.workspaces as w
            inner join public.owners as o on o.id = w.id
            inner join public.nodes as n on n.id = w.root_id and n.trashed_at is null
            where w.id = any(private.my_owner_ids())
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.list_workspaces() is 'Behind public.list_workspaces.';
grant execute on function private.list_workspaces() to anon, authenticated;

create function public.list_workspaces() returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_workspaces(); $$;
comment on function public.list_workspaces() is
'The workspaces that you are in: {items: [{id, root_id, name, level, members, storage_used, storage_limit, created_at}],
next_cursor}.';
grant execute on function public.list_workspaces() to anon, authenticated;

create function private.workspace_member_json(member public.workspace_members) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'id', (member).id, 'workspace_id', (member).workspace_id, 'level', (member).level,
        'is_me', private.is_me((member).user_id, (member).email), 'created_at', (member).created_at
    ) || private.person_json((member).user_id, (member).email);
$$;
comment on function private.workspace_member_json(public.workspace_members) is
'A row of workspace_members as clients get it.';

create function private.require_member_level(member public.workspace_members, level text) returns void
language plpgsql stable
security definer -- reads the caller's level in the workspace
set search_path = ''
as $$
declare
    v_own integer := private.level_rank(private.owner_level(auth.uid(), (member).workspace_id));
begin
    if v_own < greatest(private.level_rank((member).level), private.level_rank(level)) then
        perform private.raise_error(
            'FORBIDDEN', 'Nobody gives, or takes, a level above their own.',
            jsonb_build_object('id', (member).workspace_id, 'required', case
                when private.level_rank((member).level) > private.level_rank(level) then (member).level
                else coalesce(level, (member).level)
            end)
        );
    end if;
    if (member).level = 'owner' and level is distinct from 'owner' and not exists (
        select 1 from public.workspace_members as m
        where m.workspace_id = (member).workspace_id and m.level = 'owner' and m.id <> (member).id
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'A workspace keeps at least one owner.',
            jsonb_build_object('workspace_id', (member).workspace_id),
            'Make somebody else an owner first, or delete the workspace.'
        );
    end if;
end;
$$;
comment on function private.require_member_level(public.workspace_members, text) is
'Passes when the caller may change this membership to that level (null: end it). Raises FORBIDDEN above their own level,
CONFLICT_STATE for the last owner.';

create function private.set_workspace_level(member public.workspace_members, level text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_member public.workspace_members;
    v_user_ids uuid[] := private.users_named((member).user_id, (member).email);
    v_upload_ids uuid[];
begin
    perform private.require_member_level(member, level);
    v_upload_ids := private.lock_work(v_user_ids);
    update public.workspace_members as m
    set level = set_workspace_level.level
    where m.id = (member).id
    returning m.* into v_member;
    perform private.settle_access(v_user_ids, v_upload_ids);
    return private.workspace_member_json(v_member);
end;
$$;
comment on function private.set_workspace_level(public.workspace_members, text) is
'Changes the level of a member; the caller holds the lock on the workspace.';

create function private.check_member_level(level text) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if private.level_rank(level) is null then
        perform private.raise_invalid('level', 'Levels are view, comment, edit, manage and owner.');
    end if;
end;
$$;
comment on function private.check_member_level(text) is 'Raises INVALID_ARGUMENT (field level) for anything else.';

create function private.add_workspace_member(workspace_id uuid, member jsonb, level text) returns jsonb
language plpgsql volatile
security definer -- clients only read workspaces
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_workspace public.workspaces := private.require_workspace(workspace_id, 'manage');
    v_member public.workspace_members;
    v_person record;
begin
    v_person := private.parse_person(member, 'member');
    perform private.check_member_level(level);
    select m.* into v_member
    from public.workspace_members as m
    where m.workspace_id = v_workspace.id
        and case when v_person.email is null then m.user_id = v_person.user_id else m.email = v_person.email end
    order by m.user_id is not null
    limit 1;
    if v_member.id is not null then
        return private.set_workspace_level(v_member, level);
    end if;
    v_member.workspace_id := v_workspace.id;
    perform private.require_member_level(v_member, level);
    insert into public.workspace_members (workspace_id, user_id, email, level, added_by)
    values (v_workspace.id, v_person.user_id, v_person.email, add_workspace_member.level, v_user_id)
    returning * into v_member;
    return private.workspace_member_json(v_member);
end;
$$;
comment on function private.add_workspace_member(uuid, jsonb, text) is 'Behind public.add_workspace_member.';
grant execute on function private.add_workspace_member(uuid, jsonb, text) to anon, authenticated;

create function public.add_workspace_member(workspace_id uuid, member jsonb, level text default 'view') returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.add_workspace_member(workspace_id, member, level); $$;
comment on function public.add_workspace_member(uuid, jsonb, text) is
'Add somebody to a workspace: {id, workspace_id, level, user or email, …}. Needs level manage in it.

member: {"email": …} or {"user_id": …}; an address means whoever has confirmed it, now or later. level: view, comment,
edit, manage or owner, at most your own. Adding somebody again changes their level. Raises NOT_FOUND, FORBIDDEN,
INVALID_ARGUMENT (field member or level), CONFLICT_STATE for the last owner.';
grant execute on function public.add_workspace_member(uuid, jsonb, text) to anon, authenticated;

create function private.update_workspace_member(id uuid, level text) returns jsonb
language plpgsql volatile
security definer -- clients only read workspaces
set search_path = ''
as $$
declare
    v_member public.workspace_members;
begin
    perform private.require_writer();
    select m.* into v_member from public.workspace_members as m where m.id = update_workspace_member.id;
    perform private.require_workspace(v_member.workspace_id, 'manage');
    perform private.check_member_level(level);
    select m.* into v_member from public.workspace_members as m where m.id = update_workspace_member.id;
    if v_member.id is null then -- removed meanwhile
        perform private.raise_error('NOT_FOUND', 'No such member.', jsonb_build_object('id', id));
    end if;
    return private.set_workspace_level(v_member, level);
end;
$$;
comment on function private.update_workspace_member(uuid, text) is 'Behind public.update_workspace_member.';
grant execute on function private.update_workspace_member(uuid, text) to anon, authenticated;

create function public.update_workspace_member(id uuid, level text) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.update_workspace_member(id, level); $$;
comment on function public.update_workspace_member(uuid, text) is
'Change the level of a member, by the id of the membership, and return it. Needs level manage, and at least the levels
before and after. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT (field level), CONFLICT_STATE for the last owner.';
grant execute on function public.update_workspace_member(uuid, text) to anon, authenticated;

create function private.remove_workspace_member(id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read workspaces
set search_path = ''
as $$
declare
    v_member public.workspace_members;
    v_user_ids uuid[];
    v_upload_ids uuid[];
    v_is_me boolean;
begin
    perform private.require_actor();
    select m.* into v_member from public.workspace_members as m where m.id = remove_workspace_member.id;
    v_is_me := private.is_me(v_member.user_id, v_member.email);
    if not v_is_me then -- leaving is always possible
        perform private.require_writer();
    end if;
    perform private.require_workspace(v_member.workspace_id, case when v_is_me then 'view' else 'manage' end);
    select m.* into v_member from public.workspace_members as m where m.id = remove_workspace_member.id;
    if v_member.id is null then -- removed meanwhile
        perform private.raise_error('NOT_FOUND', 'No such member.', jsonb_build_object('id', id));
    end if;
    perform private.require_member_level(v_member, null);
    v_user_ids := private.users_named(v_member.user_id, v_member.email);
    v_upload_ids := private.lock_work(v_user_ids);
    delete from public.workspace_members as m where m.id = v_member.id;
    perform private.settle_access(v_user_ids, v_upload_ids);
    return jsonb_build_object('removed', true);
end;
$$;
comment on function private.remove_workspace_member(uuid) is 'Behind public.remove_workspace_member.';
grant execute on function private.remove_workspace_member(uuid) to anon, authenticated;

create function public.remove_workspace_member(id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.remove_workspace_member(id); $$;
comment on function public.remove_workspace_member(uuid) is
'Remove a member from a workspace (level manage, and at least theirs), or leave it, by the id of the membership:
{removed}.

The files that they brought stay with the workspace; their access ends at once. Raises NOT_FOUND, FORBIDDEN,
CONFLICT_STATE for the last owner.';
grant execute on function public.remove_workspace_member(uuid) to anon, authenticated;

create function private.list_workspace_members(workspace_id uuid) returns jsonb
language plpgsql stable
security definer -- shows the public facts of other people
set search_path = ''
as $$
begin
    perform private.require_user();
    if not coalesce(workspace_id = any(private.my_owner_ids()), false) or not exists (
        select 1 from public.workspaces as w where w.id = list_workspace_members.workspace_id
    ) then
        perform private.raise_error('NOT_FOUND', 'No such workspace.', jsonb_build_object('id', workspace_id));
    end if;
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(private.workspace_member_json(m) order by m.created_at, m.id), '[]')
            from public.workspace_members as m
            where m.workspace_id = list_workspace_members.workspace_id
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.list_workspace_members(uuid) is 'Behind public.list_workspace_members.';
grant execute on function private.list_workspace_members(uuid) to anon, authenticated;

create function public.list_workspace_members(workspace_id uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_workspace_members(workspace_id); $$;
comment on function public.list_workspace_members(uuid) is
'Who is in a workspace that you are in: {items: [{id, level, is_me, user {id, full_name, avatar_url} or email, …}],
next_cursor}. Raises NOT_FOUND.';
grant execute on function public.list_workspace_members(uuid) to anon, authenticated;

-- Accounts that go -----------------------------------------------------------------------------

create function private.lone_workspace_ids(user_id uuid) returns uuid[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(m.workspace_id), '{}')
    from public.workspace_members as m
    where m.user_id = lone_workspace_ids.user_id
        and not exists (
            select 1 from public.workspace_members as o where o.workspace_id = m.workspace_id and o.id <> m.id
        );
$$;
comment on function private.lone_workspace_ids(uuid) is
'Workspaces that have no other member: they go with the account.';

create function private.tg_users__lock_files() returns trigger
language plpgsql volatile
security definer -- Auth's own role deletes accounts
set search_path = ''
as $$
declare
    v_owner_ids uuid[] := private.lone_workspace_ids(old.id) || old.id;
begin
    -- in the order of everybody else, before the foreign keys do so in theirs
    perform private.lock_tree(v_owner_ids);
    perform from public.nodes as n
    where n.owner_id = any(v_owner_ids) or n.created_by = old.id or n.trashed_by = old.id
    order by n.id for update;
    return old;
end;
$$;
comment on function private.tg_users__lock_files() is
'Locks the files that deleting an account deletes or changes.';

create trigger _100_lock_files
before delete on auth.users
for each row execute function private.tg_users__lock_files();

create function private.tg_workspace_members__hand_over() returns trigger
language plpgsql volatile
security definer -- members go with accounts, deleted by Auth's own role
set search_path = ''
as $$
declare
    v_workspace public.workspaces;
begin
    for v_workspace in
        select w.*
        from public.workspaces as w
        where w.id in (select g.workspace_id from gone as g where g.level = 'owner')
            and not exists (
                select 1 from public.workspace_members as m where m.workspace_id = w.id and m.level = 'owner'
            )
        order by w.id
    loop
        update public.workspace_members as m
        set level = 'owner'
        where m.id = (
            select c.id
            from public.workspace_members as c
            where c.workspace_id = v_workspace.id
            order by private.level_rank(c.level) desc, c.created_at, c.id
            limit 1
        );
        if not found then
            perform private.purge_trees(array[v_workspace.root_id]);
            delete from public.workspaces as w where w.id = v_workspace.id;
        end if;
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_workspace_members__hand_over() is
'When the account of the last owner goes, the member with the highest level, the oldest of them, becomes owner; a
workspace without any other member is deleted.';

create trigger _500_hand_over
after delete on public.workspace_members
referencing old table as gone
for each statement execute function private.tg_workspace_members__hand_over();
