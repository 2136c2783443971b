-- People as others name them, by id or address, and what ends with somebody's access.

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
