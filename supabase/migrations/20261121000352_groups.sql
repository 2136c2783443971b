-- Groups: people who are granted something together.

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
