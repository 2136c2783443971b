-- Administration: roles, quotas and accounts. Two ways lead here, the RPCs of people who may manage users and the
-- command line of who holds the database; both end in the change_… functions, where the rules are.

create function private.require_administrator() returns uuid
language plpgsql stable
security definer -- reads the caller's profile, whatever they may read
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_user();
begin
    if not private.has_permission('manage_users') then
        perform private.raise_error(
            'FORBIDDEN', 'Your role does not allow this.', '{"permission": "manage_users"}', 'Ask an administrator.'
        );
    end if;
    return v_user_id;
end;
$$;
comment on function private.require_administrator() is
'The id of a caller who may manage users. Raises NOT_AUTHENTICATED or FORBIDDEN.';

-- There is always an administrator -------------------------------------------------------------

create function private.require_another_admin(user_id uuid) returns void
language plpgsql volatile
security definer -- also asked when Auth deletes an account
set search_path = ''
as $$
begin
    -- of two administrators who go at the same moment, the second sees that the first has gone
    perform pg_advisory_xact_lock(hashtextextended('narwhal.administrators', 0));
    if not exists (
        select 1
        from public.user_profiles as p
        where p.role = 'admin' and p.is_active and p.id <> require_another_admin.user_id
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'This is the last active administrator.', jsonb_build_object('id', user_id),
            'Make somebody else an administrator first.'
        );
    end if;
end;
$$;
comment on function private.require_another_admin(uuid) is
'Raises CONFLICT_STATE when nobody else is an active administrator; until the transaction ends nobody else goes.';

create function private.tg_user_profiles__keep_admin() returns trigger
language plpgsql volatile
security definer -- also when Auth deletes an account
set search_path = ''
as $$
begin
    perform private.require_another_admin(old.id);
    return case tg_op when 'DELETE' then old else new end;
end;
$$;
comment on function private.tg_user_profiles__keep_admin() is
'Refuses, whoever asks, what would leave nobody to administrate.';

create trigger _100_keep_admin
before update of role, is_active on public.user_profiles
for each row when (old.role = 'admin' and old.is_active and not (new.role = 'admin' and new.is_active))
execute function private.tg_user_profiles__keep_admin();

create trigger _110_keep_admin
before delete on public.user_profiles
for each row when (old.role = 'admin' and old.is_active)
execute function private.tg_user_profiles__keep_admin();

-- The rules ------------------------------------------------------------------------------------

create function private.describe_user(user_id uuid) returns jsonb
language sql stable
security definer -- auth.users is closed to clients
set search_path = ''
as $$
    select jsonb_build_object(
        'id', p.id,
        'email', p.email,
        'full_name', p.full_name,
        'role', p.role,
        'is_active', p.is_active,
        'plan', p.subscription ->> 'plan',
        'storage_used', p.storage_used,
        'storage_limit', p.storage_limit,
        'created_at', p.created_at,
        'last_sign_in_at', u.last_sign_in_at
    )
    from public.user_profiles as p
    inner join auth.users as u on u.id = p.id
    where p.id = describe_user.user_id;
$$;
comment on function private.describe_user(uuid) is 'An account as administrators see it; nothing of its content.';

create function private.lock_profile(user_id uuid) returns public.user_profiles
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_profile public.user_profiles;
begin
    select p.* into v_profile from public.user_profiles as p where p.id = lock_profile.user_id for no key update;
    if v_profile.id is null then
        perform private.raise_error(
            'NOT_FOUND', 'No such user.', jsonb_build_object('id', user_id), 'List the users to see valid ids.'
        );
    end if;
    return v_profile;
end;
$$;
comment on function private.lock_profile(uuid) is 'A profile, locked until the transaction ends. Raises NOT_FOUND.';

create function private.refuse_self(user_id uuid, changed_by uuid, what text) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if user_id = changed_by then
        perform private.raise_error(
            'FORBIDDEN', format('Nobody changes their own %s.', what), jsonb_build_object('id', user_id),
            'Ask another administrator.'
        );
    end if;
end;
$$;
comment on function private.refuse_self(uuid, uuid, text) is 'Raises FORBIDDEN when somebody means themselves.';

create function private.change_role(user_id uuid, role text, changed_by uuid default null) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_profile public.user_profiles;
begin
    if role is null or role not in ('viewer', 'user', 'admin') then
        perform private.raise_invalid('role', 'Roles are viewer, user and admin.');
    end if;
    v_profile := private.lock_profile(user_id);
    if v_profile.role = 'admin' and v_profile.is_active and role <> 'admin' then
        perform private.require_another_admin(user_id); -- the more helpful of two refusals
    end if;
    perform private.refuse_self(user_id, changed_by, 'role');
    update public.user_profiles as p
    set role = change_role.role, updated_at = now()
    where p.id = change_role.user_id;
    return private.describe_user(user_id);
end;
$$;
comment on function private.change_role(uuid, text, uuid) is
'Gives a user a role; changed_by is null for the command line. Raises INVALID_ARGUMENT, NOT_FOUND, CONFLICT_STATE for
the last active administrator, FORBIDDEN for oneself.';

create function private.change_active(user_id uuid, is_active boolean) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if is_active is null then
        perform private.raise_invalid('is_active', 'is_active must be true or false.');
    end if;
    if not is_active then
        -- nodes, owners and tickets before profiles, the order in which an upload ends
        perform private.abort_uploads_of(user_id);
    end if;
    perform private.lock_profile(user_id);
    update public.user_profiles as p
    set is_active = change_active.is_active, updated_at = now()
    where p.id = change_active.user_id;
    return private.describe_user(user_id);
end;
$$;
comment on function private.change_active(uuid, boolean) is
'Closes or opens an account: from the next statement on a closed one reaches nothing. Its open tickets end. Raises
NOT_FOUND, CONFLICT_STATE for the last active administrator.';

create function private.change_quota(user_id uuid, storage_limit bigint, changed_by uuid default null) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if storage_limit is null or storage_limit < 0 then
        perform private.raise_invalid('storage_limit', 'The limit must be a number of bytes, 0 or more.');
    end if;
    perform private.refuse_self(user_id, changed_by, 'quota');
    -- the owner before the profile, the order in which an upload ends
    update public.owners as o
    set storage_limit = change_quota.storage_limit
    where o.id = change_quota.user_id and o.kind = 'user';
    perform private.lock_profile(user_id);
    return private.describe_user(user_id);
end;
$$;
comment on function private.change_quota(uuid, bigint, uuid) is
'Sets how many bytes a user may store. Below what is stored nothing is lost, and nothing more can be uploaded. Raises
INVALID_ARGUMENT, NOT_FOUND, FORBIDDEN for oneself.';

create function private.change_setting(key text, value jsonb) returns private.settings
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_setting private.settings;
    v_type text;
begin
    select s.* into v_setting from private.settings as s where s.key = change_setting.key for update;
    if v_setting.key is null then
        perform private.raise_error(
            'NOT_FOUND', format('There is no setting "%s".', key), jsonb_build_object('key', key),
            'List the settings to see their names.'
        );
    end if;
    -- how long or how many are kept: null is for ever, or all
    v_type := case when key like '%.keep\_%' then 'number' else jsonb_typeof(v_setting.value) end;
    if value is null
        or not (jsonb_typeof(value) = v_type or (value = 'null' and key like '%.keep\_%'))
        or (jsonb_typeof(value) = 'number' and value::numeric < 0) then
        perform private.raise_invalid(
            'value', format('"%s" is a JSON %s, such as %s.', key, v_type, v_setting.value)
        );
    end if;
    update private.settings as s
    set value = change_setting.value, updated_at = now()
    where s.key = change_setting.key
    returning * into v_setting;
    return v_setting;
end;
$$;
comment on function private.change_setting(text, jsonb) is
'For the command line: gives a setting another value of the same kind. Raises NOT_FOUND, INVALID_ARGUMENT.';

-- What administrators call ---------------------------------------------------------------------

create function private.set_user_role(user_id uuid, role text) returns jsonb
language plpgsql volatile
security definer -- clients only read profiles, and only their own
set search_path = ''
as $$
begin
    return private.change_role(user_id, role, private.require_administrator());
end;
$$;
comment on function private.set_user_role(uuid, text) is 'Behind public.set_user_role.';
grant execute on function private.set_user_role(uuid, text) to anon, authenticated;

create function public.set_user_role(user_id uuid, role text) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.set_user_role(user_id, role); $$;
comment on function public.set_user_role(uuid, text) is
'Give a user the role viewer, user or admin; returns the account as list_users shows it.

Takes effect at the user''s next statement. Needs the permission manage_users. Raises FORBIDDEN (also for your own
role), NOT_FOUND, INVALID_ARGUMENT (field role), CONFLICT_STATE for the last active administrator.';
grant execute on function public.set_user_role(uuid, text) to anon, authenticated;

create function private.set_user_active(user_id uuid, is_active boolean) returns jsonb
language plpgsql volatile
security definer -- clients only read profiles, and only their own
set search_path = ''
as $$
begin
    perform private.require_administrator();
    return private.change_active(user_id, is_active);
end;
$$;
comment on function private.set_user_active(uuid, boolean) is 'Behind public.set_user_active.';
grant execute on function private.set_user_active(uuid, boolean) to anon, authenticated;

create function public.set_user_active(user_id uuid, is_active boolean) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.set_user_active(user_id, is_active); $$;
comment on function public.set_user_active(uuid, boolean) is
'Close an account, or open it again; returns it as list_users shows it.

From the next statement on a closed account reaches no table, function or object, and its uploads under way end; its
files stay. Needs the permission manage_users. Raises FORBIDDEN, NOT_FOUND, INVALID_ARGUMENT (field is_active),
CONFLICT_STATE for the last active administrator.';
grant execute on function public.set_user_active(uuid, boolean) to anon, authenticated;

create function private.set_user_quota(user_id uuid, storage_limit bigint) returns jsonb
language plpgsql volatile
security definer -- clients only read profiles, and only their own
set search_path = ''
as $$
begin
    return private.change_quota(user_id, storage_limit, private.require_administrator());
end;
$$;
comment on function private.set_user_quota(uuid, bigint) is 'Behind public.set_user_quota.';
grant execute on function private.set_user_quota(uuid, bigint) to anon, authenticated;

create function public.set_user_quota(user_id uuid, storage_limit bigint) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.set_user_quota(user_id, storage_limit); $$;
comment on function public.set_user_quota(uuid, bigint) is
'Set how many bytes a user may store; returns the account as list_users shows it.

Below what is stored already nothing is lost, and nothing more can be uploaded. Needs the permission manage_users.
Raises FORBIDDEN (also for your own quota), NOT_FOUND, INVALID_ARGUMENT (field storage_limit).';
grant execute on function public.set_user_quota(uuid, bigint) to anon, authenticated;

create function private.list_users(query text, page_size integer, cursor text) returns jsonb
language plpgsql stable
security definer -- clients only read their own profile
set search_path = ''
as $$
declare
    v_after jsonb;
    v_pattern text := '%' || regexp_replace(lower(trim(query)), '([\\%_])', '\\\1', 'g') || '%';
    v_ids uuid[];
    v_last public.user_profiles;
begin
    perform private.require_administrator();
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    begin
        v_after := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
        if cursor is not null and num_nulls((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid) > 0 then
            raise data_exception;
        end if;
    exception when others then
        perform private.raise_invalid('cursor', 'This cursor is not one that list_users gave.');
    end;

    -- one more than asked tells whether there is a next page
    v_ids := array(
        select p.id
        from public.user_profiles as p
        where (query is null or lower(p.email) like v_pattern or lower(p.full_name) like v_pattern)
            and (
                v_after is null
                or (p.created_at, p.id) > ((v_after ->> 0)::timestamptz, (v_after ->> 1)::uuid)
            )
        order by p.created_at, p.id
        limit page_size + 1
    );
    if cardinality(v_ids) > page_size then
        select p.* into v_last from public.user_profiles as p where p.id = v_ids[page_size];
    end if;
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(private.describe_user(i.id) order by i.position), '[]')
            from unnest(v_ids) with ordinality as i (id, position)
            where i.position <= page_size
        ),
        'next_cursor', case when v_last.id is not null then replace(encode(convert_to(
            jsonb_build_array(v_last.created_at, v_last.id)::text, 'UTF8'
        ), 'base64'), e'\n', '') end
    );
end;
$$;
comment on function private.list_users(text, integer, text) is 'Behind public.list_users.';
grant execute on function private.list_users(text, integer, text) to anon, authenticated;
create index user_profiles_created_at_id_idx on public.user_profiles (created_at, id);
create index user_profiles_role_idx on public.user_profiles (role) where role = 'admin';

create function public.list_users(
    query text default null, page_size integer default 100, cursor text default null
) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_users(query, page_size, cursor); $$;
comment on function public.list_users(text, integer, text) is
'List accounts, the oldest first: {items, next_cursor}; an item is {id, email, full_name, role, is_active, plan,
storage_used, storage_limit, created_at, last_sign_in_at}.

query: part of the address or the name. page_size: 1 to 1000. cursor: the next_cursor of the page before. Shows nothing
of what is stored. Needs the permission manage_users. Raises FORBIDDEN, INVALID_ARGUMENT (field page_size or cursor).';
grant execute on function public.list_users(text, integer, text) to anon, authenticated;

-- The token ------------------------------------------------------------------------------------

create function private.custom_access_token_hook(event jsonb) returns jsonb
language sql stable
security definer -- Auth's own role has no rights on profiles
set search_path = ''
as $$
    select jsonb_build_object('claims', (event -> 'claims') || jsonb_build_object('app_role', (
        select p.role from public.user_profiles as p where p.id = (event ->> 'user_id')::uuid
    )));
$$;
comment on function private.custom_access_token_hook(jsonb) is
'Auth''s custom access token hook: writes the role of the profile into the claim app_role, for frontends to read. Rules
never do: they read the profile.';
grant usage on schema private to supabase_auth_admin;
grant execute on function private.custom_access_token_hook(jsonb) to supabase_auth_admin;
