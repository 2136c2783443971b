-- Managing teams: groups, workspaces and their members, and what ends with the access of whoever leaves.

insert into private.settings (key, value, description) values
('workspaces.storage_limit', '5368709120', 'Quota of a new workspace, in bytes (5 GiB).'),
('workspaces.per_user', '20', 'Workspaces that one person may make, since each has a quota of its own.');

-- People ---------------------------------------------------------------------------------------

create index user_profiles_email_idx on public.user_profiles (lower(email)); -- who is meant by an address

create function private.public_facts(user_id uuid) returns jsonb
language sql stable
security definer -- profiles show everyone only their own row
set search_path = ''
as $$
    select jsonb_build_object('id', p.id, 'full_name', p.full_name, 'avatar_url', p.avatar_url)
    from public.user_profiles as p
    where p.id = public_facts.user_id;
$$;
comment on function private.public_facts(uuid) is 'What others may know of somebody: {id, full_name, avatar_url}.';

create function private.users_named(user_id uuid, email text, group_id uuid default null) returns uuid[]
language sql stable
security definer -- auth.users is closed to clients
set search_path = ''
as $$
    with named as (
        select users_named.user_id as id, users_named.email as address
        union all
        select g.user_id, g.email from public.group_members as g where g.group_id = users_named.group_id
    )
    select coalesce(array_agg(distinct u.id), '{}')
    from (
        select n.id from named as n where n.id is not null
        union all
        select p.id
        from named as n
        inner join public.user_profiles as p on lower(p.email) = n.address
        where n.id is null and private.email_of(p.id) = n.address
    ) as u;
$$;
comment on function private.users_named(uuid, text, uuid) is
'The accounts that a row means which names somebody by id, else by address, or a group. Its answer never reaches a
client: it would tell who has an account.';

create function private.parse_person(person jsonb, field text, out user_id uuid, out email text) returns record
language plpgsql volatile
security definer -- looks up whether there is such an account, by id only
set search_path = ''
as $$
begin
    if jsonb_typeof(person) is distinct from 'object' or (
        select count(*) from jsonb_object_keys(person)
    ) <> 1 or jsonb_typeof(coalesce(person -> 'email', person -> 'user_id')) is distinct from 'string' then
        perform private.raise_invalid(field, 'Name one person: {"email": …} or {"user_id": …}.');
    end if;
    if person ? 'email' then
        email := lower(btrim(person ->> 'email'));
        if char_length(email) > 254 or email !~ '^[^@\s[:cntrl:]]{1,64}@[^@\s[:cntrl:]]+\.[^@\s.[:cntrl:]]+$' then
            perform private.raise_invalid(field || '.email', 'This is not an e-mail address.');
        end if;
        return; -- whether anybody has it must not be looked up
    end if;
    begin
        user_id := person ->> 'user_id';
    exception when invalid_text_representation then
        perform private.raise_invalid(field || '.user_id', 'This is not the id of a user.');
    end;
    perform private.hold_account(user_id);
    if not exists (select 1 from public.user_profiles as p where p.id = parse_person.user_id) then
        perform private.raise_error('NOT_FOUND', 'No such person.', jsonb_build_object('user_id', user_id));
    end if;
end;
$$;
comment on function private.parse_person(jsonb, text) is
'Reads {email} or {user_id}. Raises INVALID_ARGUMENT (the field), NOT_FOUND for an id that nobody has.';

create function private.is_me(user_id uuid, email text) returns boolean
language sql stable
security definer -- auth.users is closed to clients
set search_path = ''
as $$ select coalesce(private.is_person(user_id, email, auth.uid(), private.email_of(auth.uid())), false); $$;
comment on function private.is_me(uuid, text) is 'Whether a row that names somebody means the caller.';

create function private.person_json(user_id uuid, email text) returns jsonb
language sql stable
security definer -- profiles show everyone only their own row
set search_path = ''
as $$
    select case
        when person_json.email is not null then jsonb_build_object('email', person_json.email)
        else jsonb_build_object('user', private.public_facts(person_json.user_id))
    end;
$$;
comment on function private.person_json(uuid, text) is
'Somebody as they were named: {email} or {user: {id, full_name, avatar_url}}. An address stays an address, so that
nobody learns who has it.';

create function private.tg_users__pin_address() returns trigger
language plpgsql volatile
security definer -- Auth's own role changes addresses
set search_path = ''
as $$
declare
    v_email text := lower(old.email);
begin
    -- a newer row for the same address takes the place of what an earlier change has pinned
    delete from public.shares as s
    using public.shares as newer
    where s.grantee_id = new.id and s.grantee_email = v_email
        and newer.grantee_id is null and newer.grantee_email = v_email and newer.node_id = s.node_id;
    update public.shares as s set grantee_id = new.id where s.grantee_id is null and s.grantee_email = v_email;

    delete from public.group_members as m
    using public.group_members as newer
    where m.user_id = new.id and m.email = v_email
        and newer.user_id is null and newer.email = v_email and newer.group_id = m.group_id;
    update public.group_members as m set user_id = new.id where m.user_id is null and m.email = v_email;

    delete from public.workspace_members as m
    using public.workspace_members as newer
    where m.user_id = new.id and m.email = v_email
        and newer.user_id is null and newer.email = v_email and newer.workspace_id = m.workspace_id;
    update public.workspace_members as m set user_id = new.id where m.user_id is null and m.email = v_email;
    return null; -- after trigger
end;
$$;
comment on function private.tg_users__pin_address() is
'What was given to somebody by their confirmed address stays theirs when the address changes, and does not pass to
whoever confirms it next.';

create trigger _520_pin_address
after update of email on auth.users
for each row when (old.email_confirmed_at is not null and lower(old.email) is distinct from lower(new.email))
execute function private.tg_users__pin_address();

-- What ends with somebody's access -------------------------------------------------------------

create function private.working_level(user_id uuid, node public.nodes) returns text
language sql stable
security definer -- sees the shares of every ancestor, and who holds which link
set search_path = ''
as $$
    select l.level
    from (
        select private.user_level(working_level.user_id, working_level.node) as level
        union all
        select k.level
        from private.link_grants as g
        inner join public.share_links as k on k.id = g.link_id
        where g.user_id = working_level.user_id
            and g.expires_at > now()
            and k.node_id = any((working_level.node).path)
            and private.link_problem(k) is null
    ) as l
    order by private.level_rank(l.level) desc nulls last
    limit 1;
$$;
comment on function private.working_level(uuid, public.nodes) is
'A user''s level on a node, also by the links that they have opened within the life of a grant.';

create function private.lock_work(user_ids uuid[], node_ids uuid[] default '{}') returns uuid[]
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_file_ids uuid[] := array(
        select u.file_id from public.uploads as u
        where u.created_by = any(user_ids) and u.state in ('open', 'uploading')
    );
    v_upload_ids uuid[];
begin
    -- nodes, owners: the order in which everything locks
    perform from public.nodes as n where n.id = any(v_file_ids || node_ids) order by n.id for no key update;
    -- tickets given while we waited; waiting for their files out of order could deadlock
    v_file_ids := v_file_ids || array(
        select n.id from public.nodes as n
        where n.id <> all(v_file_ids) and n.id in (
            select u.file_id from public.uploads as u
            where u.created_by = any(user_ids) and u.state in ('open', 'uploading')
        )
        order by n.id
        for no key update skip locked
    );
    v_upload_ids := array(
        select u.id from public.uploads as u
        where u.created_by = any(user_ids) and u.state in ('open', 'uploading') and u.file_id = any(v_file_ids)
    );
    perform from public.owners as o
    where o.id in (select u.owner_id from public.uploads as u where u.id = any(v_upload_ids))
    order by o.id for no key update;
    return v_upload_ids;
end;
$$;
comment on function private.lock_work(uuid[], uuid[]) is
'Locks what settle_access may end: the files and owners of these users'' open tickets, which it returns, and more nodes.
Call it before access is taken away, since whoever purges locks nodes before shares.';

create function private.settle_access(user_ids uuid[], upload_ids uuid[]) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    -- nothing of a closed account works; it is judged when something of it changes after it was opened again
    v_user_ids uuid[] := array(
        select p.id from public.user_profiles as p where p.id = any(user_ids) and p.is_active
    );
    v_upload_id uuid;
    v_count integer;
begin
    for v_upload_id in
        select u.id
        from public.uploads as u inner join public.nodes as n on n.id = u.file_id
        where u.id = any(upload_ids)
            and u.created_by = any(v_user_ids)
            and u.state in ('open', 'uploading')
            and coalesce(private.level_rank(private.working_level(u.created_by, n)), 0) < private.level_rank('edit')
        order by u.id
        for update of u
    loop
        perform private.close_upload(u, 'aborted') from public.uploads as u where u.id = v_upload_id;
    end loop;

    update public.share_links as l
    set revoking_at = now(), revoked_at = now(), revoked_by = auth.uid()
    from public.nodes as n
    where n.id = l.node_id
        and l.created_by = any(v_user_ids)
        and l.revoking_at is null
        and coalesce(private.level_rank(private.user_level(l.created_by, n)), 0) < private.level_rank('manage');
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;
comment on function private.settle_access(uuid[], uuid[]) is
'After access was taken away: aborts those of the locked tickets whose makers may no longer edit, and revokes the links
of these users to what they no longer manage; how many links.';

-- Groups ---------------------------------------------------------------------------------------

create function private.check_team_name(name text) returns text
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    perform private.check_name(replace(replace(name, '/', '-'), '\', '-'));
    if char_length(name) > 200 then
        perform private.raise_invalid('name', 'A name may have at most 200 characters.');
    end if;
    return name;
end;
$$;
comment on function private.check_team_name(text) is
'The name itself; a slash is allowed, since no path shows it. Raises INVALID_ARGUMENT (field name).';

create function private.require_group(group_id uuid) returns public.groups
language plpgsql volatile
security definer -- tells absent from forbidden only to members
set search_path = ''
as $$
declare
    v_group public.groups;
    v_is_manager boolean;
begin
    -- members come and go one at a time, so that the last manager is certain
    select g.* into v_group from public.groups as g where g.id = require_group.group_id for no key update;
    select bool_or(m.is_manager) into v_is_manager
    from public.group_members as m
    where m.group_id = v_group.id and private.is_me(m.user_id, m.email);
    if v_is_manager is null then
        perform private.raise_error('NOT_FOUND', 'No such group.', jsonb_build_object('id', group_id));
    end if;
    if not v_is_manager then
        perform private.raise_error(
            'FORBIDDEN', 'Only managers of the group can do this.', jsonb_build_object('id', group_id),
            'Ask one of its managers.'
        );
    end if;
    return v_group;
end;
$$;
comment on function private.require_group(uuid) is
'The group, locked, when the caller manages it. Raises NOT_FOUND to everybody who is not in it, else FORBIDDEN.';

create function private.require_other_manager(member public.group_members) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if (member).is_manager and not exists (
        select 1 from public.group_members as m
        where m.group_id = (member).group_id and m.is_manager and m.id <> (member).id
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'A group keeps at least one manager.', jsonb_build_object('group_id', (member).group_id),
            'Make somebody else a manager first, or delete the group.'
        );
    end if;
end;
$$;
comment on function private.require_other_manager(public.group_members) is
'Raises CONFLICT_STATE when this member is the group''s last manager.';

create function private.create_group(name text) returns public.groups
language plpgsql volatile
security definer -- clients only read groups
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_group public.groups;
begin
    insert into public.groups (name, created_by)
    values (private.check_team_name(create_group.name), v_user_id)
    returning * into v_group;
    insert into public.group_members (group_id, user_id, is_manager, added_by)
    values (v_group.id, v_user_id, true, v_user_id);
    return v_group;
end;
$$;
comment on function private.create_group(text) is 'Behind public.create_group.';
grant execute on function private.create_group(text) to anon, authenticated;

create function public.create_group(name text) returns public.groups
language sql volatile
security invoker
set search_path = ''
as $$ select private.create_group(name); $$;
comment on function public.create_group(text) is
'Make a group of people to share with, and return it; you are its first manager. Raises INVALID_ARGUMENT (field name).';
grant execute on function public.create_group(text) to anon, authenticated;

create function private.rename_group(id uuid, name text) returns public.groups
language plpgsql volatile
security definer -- clients only read groups
set search_path = ''
as $$
declare
    v_group public.groups;
begin
    perform private.require_writer();
    v_group := private.require_group(id);
    update public.groups as g
    set name = private.check_team_name(rename_group.name)
    where g.id = v_group.id
    returning g.* into v_group;
    return v_group;
end;
$$;
comment on function private.rename_group(uuid, text) is 'Behind public.rename_group.';
grant execute on function private.rename_group(uuid, text) to anon, authenticated;

create function public.rename_group(id uuid, name text) returns public.groups
language sql volatile
security invoker
set search_path = ''
as $$ select private.rename_group(id, name); $$;
comment on function public.rename_group(uuid, text) is
'Rename a group that you manage, and return it. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT (field name).';
grant execute on function public.rename_group(uuid, text) to anon, authenticated;

create function private.delete_group(id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read groups
set search_path = ''
as $$
declare
    v_group public.groups;
    v_user_ids uuid[];
    v_upload_ids uuid[];
    v_links integer;
begin
    perform private.require_writer();
    v_group := private.require_group(id);
    v_user_ids := private.users_named(null, null, v_group.id);
    v_upload_ids := private.lock_work(v_user_ids);
    delete from public.groups as g where g.id = v_group.id; -- takes its members and its shares along
    v_links := private.settle_access(v_user_ids, v_upload_ids);
    return jsonb_build_object('deleted', true, 'links_revoked', v_links);
end;
$$;
comment on function private.delete_group(uuid) is 'Behind public.delete_group.';
grant execute on function private.delete_group(uuid) to anon, authenticated;

create function public.delete_group(id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.delete_group(id); $$;
comment on function public.delete_group(uuid) is
'Delete a group that you manage: {deleted, links_revoked}. What was shared with it closes to its members at once. Raises
NOT_FOUND, FORBIDDEN.';
grant execute on function public.delete_group(uuid) to anon, authenticated;

create function private.group_member_json(member public.group_members) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'id', (member).id, 'group_id', (member).group_id, 'is_manager', (member).is_manager,
        'is_me', private.is_me((member).user_id, (member).email), 'created_at', (member).created_at
    ) || private.person_json((member).user_id, (member).email);
$$;
comment on function private.group_member_json(public.group_members) is 'A row of group_members as clients get it.';

create function private.add_group_member(group_id uuid, member jsonb, is_manager boolean) returns jsonb
language plpgsql volatile
security definer -- clients only read groups
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_group public.groups := private.require_group(group_id);
    v_member public.group_members;
    v_person record;
begin
    v_person := private.parse_person(member, 'member');
    if is_manager is null then
        perform private.raise_invalid('is_manager', 'is_manager must be true or false.');
    end if;
    select m.* into v_member
    from public.group_members as m
    where m.group_id = v_group.id
        and case when v_person.email is null then m.user_id = v_person.user_id else m.email = v_person.email end
    order by m.user_id is not null
    limit 1;
    if v_member.id is null then
        insert into public.group_members (group_id, user_id, email, is_manager, added_by)
        values (v_group.id, v_person.user_id, v_person.email, add_group_member.is_manager, v_user_id)
        returning * into v_member;
    elsif v_member.is_manager <> add_group_member.is_manager then
        if not add_group_member.is_manager then
            perform private.require_other_manager(v_member);
        end if;
        update public.group_members as m
        set is_manager = add_group_member.is_manager
        where m.id = v_member.id
        returning m.* into v_member;
    end if;
    return private.group_member_json(v_member);
end;
$$;
comment on function private.add_group_member(uuid, jsonb, boolean) is 'Behind public.add_group_member.';
grant execute on function private.add_group_member(uuid, jsonb, boolean) to anon, authenticated;

create function public.add_group_member(group_id uuid, member jsonb, is_manager boolean default false) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.add_group_member(group_id, member, is_manager); $$;
comment on function public.add_group_member(uuid, jsonb, boolean) is
'Add somebody to a group that you manage: {id, group_id, is_manager, user or email, …}.

member: {"email": …} or {"user_id": …}; an address means whoever has confirmed it, now or later. Adding somebody again
changes is_manager. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT (field member or is_manager), CONFLICT_STATE for the
last manager.';
grant execute on function public.add_group_member(uuid, jsonb, boolean) to anon, authenticated;

create function private.remove_group_member(id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read groups
set search_path = ''
as $$
declare
    v_member public.group_members;
    v_user_ids uuid[];
    v_upload_ids uuid[];
    v_links integer;
begin
    perform private.require_actor();
    select m.* into v_member from public.group_members as m where m.id = remove_group_member.id;
    if not private.is_me(v_member.user_id, v_member.email) then -- leaving is always possible
        perform private.require_writer();
        perform private.require_group(v_member.group_id);
    else
        perform from public.groups as g where g.id = v_member.group_id for no key update;
    end if;
    select m.* into v_member from public.group_members as m where m.id = remove_group_member.id;
    if v_member.id is null then -- removed meanwhile
        perform private.raise_error('NOT_FOUND', 'No such member.', jsonb_build_object('id', id));
    end if;
    perform private.require_other_manager(v_member);
    v_user_ids := private.users_named(v_member.user_id, v_member.email);
    v_upload_ids := private.lock_work(v_user_ids);
    delete from public.group_members as m where m.id = v_member.id;
    v_links := private.settle_access(v_user_ids, v_upload_ids);
    -- the count would tell managers whether an address has an account
    return jsonb_build_object('removed', true)
        || case when private.is_me(v_member.user_id, v_member.email)
            then jsonb_build_object('links_revoked', v_links) else '{}' end;
end;
$$;
comment on function private.remove_group_member(uuid) is 'Behind public.remove_group_member.';
grant execute on function private.remove_group_member(uuid) to anon, authenticated;

create function public.remove_group_member(id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.remove_group_member(id); $$;
comment on function public.remove_group_member(uuid) is
'Remove a member from a group that you manage, or leave it, by the id of the membership: {removed}.

What was shared with the group closes to them at once. Raises NOT_FOUND, FORBIDDEN, CONFLICT_STATE for the last
manager.';
grant execute on function public.remove_group_member(uuid) to anon, authenticated;

create function private.list_group_members(group_id uuid) returns jsonb
language plpgsql stable
security definer -- shows the public facts of other people
set search_path = ''
as $$
begin
    perform private.require_user();
    if not coalesce(group_id = any(private.my_group_ids()), false) then
        perform private.raise_error('NOT_FOUND', 'No such group.', jsonb_build_object('id', group_id));
    end if;
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(private.group_member_json(m) order by m.created_at, m.id), '[]')
            from public.group_members as m
            where m.group_id = list_group_members.group_id
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.list_group_members(uuid) is 'Behind public.list_group_members.';
grant execute on function private.list_group_members(uuid) to anon, authenticated;

create function public.list_group_members(group_id uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_group_members(group_id); $$;
comment on function public.list_group_members(uuid) is
'Who is in a group that you are in: {items: [{id, is_manager, is_me, user {id, full_name, avatar_url} or email, …}],
next_cursor}. Raises NOT_FOUND.';
grant execute on function public.list_group_members(uuid) to anon, authenticated;

-- Workspaces -----------------------------------------------------------------------------------

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

create function private.tg_group_members__hand_over() returns trigger
language plpgsql volatile
security definer -- members go with accounts, deleted by Auth's own role
set search_path = ''
as $$
begin
    update public.group_members as m
    set is_manager = true
    where m.id in (
        select distinct on (c.group_id) c.id
        from public.group_members as c
        where c.group_id in (select g.group_id from gone as g where g.is_manager)
            and not exists (
                select 1 from public.group_members as o where o.group_id = c.group_id and o.is_manager
            )
        order by c.group_id, c.created_at, c.id
    );
    delete from public.groups as g
    where g.id in (select x.group_id from gone as x)
        and not exists (select 1 from public.group_members as m where m.group_id = g.id);
    return null; -- after trigger
end;
$$;
comment on function private.tg_group_members__hand_over() is
'When the account of the last manager goes, the oldest member becomes manager; a group without members is deleted.';

create trigger _500_hand_over
after delete on public.group_members
referencing old table as gone
for each statement execute function private.tg_group_members__hand_over();
