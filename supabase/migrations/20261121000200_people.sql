-- People: who owns storage, profiles made at sign-up, deactivation.

create table public.owners (
    id uuid primary key,
    kind text not null check (kind in ('user', 'workspace')),
    storage_used bigint not null default 0 check (storage_used >= 0),
    storage_reserved bigint not null default 0 check (storage_reserved >= 0),
    storage_limit bigint not null check (storage_limit >= 0),
    created_at timestamptz not null default now()
);
comment on table public.owners is
'Whom files belong to, and who pays for their bytes. A personal owner has the id of its user.';
comment on column public.owners.storage_used is 'Bytes of all stored blobs, trash and old versions included.';
comment on column public.owners.storage_reserved is 'Bytes promised to open upload tickets.';
comment on column public.owners.storage_limit is 'Quota in bytes: used + reserved never exceed it.';

create function private.default_preferences() returns jsonb
language sql immutable parallel safe
return jsonb_build_object(
    'theme', 'system',
    'language', 'en',
    'notifications', jsonb_build_object('email', true, 'push', true, 'desktop', true),
    'autoAnalyze', true
);
comment on function private.default_preferences() is 'Preferences of a new profile; also the list of known keys.';

create function private.notification_kinds() returns text[]
language sql immutable parallel safe
return array[
    'share_given', 'share_changed', 'share_revoked',
    'group_added', 'group_removed',
    'workspace_added', 'workspace_changed', 'workspace_removed',
    'comment_added', 'comment_replied', 'comment_mentioned',
    'version_added'
];
comment on function private.notification_kinds() is 'What people are notified of; preferences can mute each kind.';
grant execute on function private.notification_kinds() to authenticated; -- their preferences are checked with it

create table public.user_profiles (
    id uuid primary key references auth.users on delete cascade,
    email text,
    full_name text check (char_length(full_name) <= 200),
    avatar_url text check (char_length(avatar_url) <= 2048),
    role text not null default 'user' check (role in ('viewer', 'user', 'admin')),
    storage_used bigint not null default 0,
    storage_limit bigint not null default 0,
    preferences jsonb not null default private.default_preferences(),
    subscription jsonb not null default '{"plan": "free", "status": "active"}',
    is_active boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
comment on table public.user_profiles is 'One row a user, made at sign-up. Everyone sees only their own.';
comment on column public.user_profiles.role is
'viewer (never writes), user, admin. Rules read this row, not the token.';
comment on column public.user_profiles.storage_used is 'Copy of owners.storage_used, in bytes.';
comment on column public.user_profiles.storage_limit is 'Copy of owners.storage_limit, in bytes.';
comment on column public.user_profiles.is_active is 'False closes every table, RPC and object at the next statement.';

-- Roles ----------------------------------------------------------------------------------------

create table private.role_permissions (
    role text not null check (role in ('viewer', 'user', 'admin')),
    permission text not null check (permission in (
        'query', 'view_documents', 'edit_documents', 'delete_documents', 'view_analytics', 'manage_users', 'admin'
    )),
    primary key (role, permission)
);
comment on table private.role_permissions is
'What each role may do at all; levels on nodes decide where. admin implies everything, but nobody''s content.';
alter table private.role_permissions enable row level security;

insert into private.role_permissions (role, permission) values
('viewer', 'query'),
('viewer', 'view_documents'),
('user', 'query'),
('user', 'view_documents'),
('user', 'edit_documents'),
('admin', 'admin');

create function private.user_has_permission(user_id uuid, permission text) returns boolean
language sql stable
security definer -- decides what callers may do, so it must not depend on what they may read
set search_path = ''
as $$
    select exists (
        select 1
        from public.user_profiles as p
        inner join private.role_permissions as r on r.role = p.role
        where p.id = user_has_permission.user_id
            and p.is_active
            and r.permission in (user_has_permission.permission, 'admin')
    );
$$;
comment on function private.user_has_permission(uuid, text) is
'Whether an active user''s role has a permission; read from the rows, never from the token.';

create function private.has_permission(permission text) returns boolean
language sql stable
security definer -- reads the caller's profile, whatever they may read
set search_path = ''
as $$ select private.user_has_permission(auth.uid(), has_permission.permission); $$;
comment on function private.has_permission(text) is
'Whether the caller''s role has a permission; false for anon and inactive users. Call it as
(select private.has_permission(...)).';
grant execute on function private.has_permission(text) to anon, authenticated, service_role;

-- Who is asking --------------------------------------------------------------------------------

create function private.is_active() returns boolean
language sql stable
security definer -- callers may not read other people's profiles, and theirs only while active
set search_path = ''
as $$
    select auth.uid() is null or exists (
        select 1 from public.user_profiles as p where p.id = auth.uid() and p.is_active
    );
$$;
comment on function private.is_active() is
'False for a deactivated or deleted user whose token is still valid. True for anon and the service.';
grant execute on function private.is_active() to anon, authenticated, service_role;

create function private.require_user() returns uuid
language plpgsql stable
security definer -- reads the caller's profile whatever its state
set search_path = ''
as $$
begin
    if auth.uid() is null or not private.is_active() then
        perform private.raise_error(
            'NOT_AUTHENTICATED', 'You are not signed in, or your account is not active.', '{}', 'Sign in again.'
        );
    end if;
    return auth.uid();
end;
$$;
comment on function private.require_user() is 'The id of the signed-in, active caller. Raises NOT_AUTHENTICATED.';
grant execute on function private.require_user() to anon, authenticated, service_role;

create function private.hold_account(user_id uuid) returns void
language sql volatile
security definer -- Auth's table
set search_path = ''
as $$
    select 1 from auth.users as u where u.id = hold_account.user_id for key share;
$$;
comment on function private.hold_account(uuid) is
'Keeps an account until the transaction ends. Whoever writes does so first, for each account that they will refer to:
a foreign key would wait for a deletion of the account while it holds nodes that the deletion waits for.';

create function private.require_actor() returns uuid
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    perform private.hold_account(auth.uid());
    return private.require_user();
end;
$$;
comment on function private.require_actor() is
'The id of the signed-in, active caller, who stays until the transaction ends. Raises NOT_AUTHENTICATED.';

create function private.pre_request() returns void
language plpgsql stable
security definer -- runs before every API request, as whatever role it has
set search_path = ''
as $$
begin
    if not private.is_active() then
        perform private.raise_error('NOT_AUTHENTICATED', 'This account is not active.');
    end if;
end;
$$;
comment on function private.pre_request() is
'PostgREST''s db-pre-request: refuses inactive users everywhere. Only reads, since GET runs read-only.';
grant execute on function private.pre_request() to anon, authenticated, service_role;

do $$
begin
    -- hosted projects allow it for pgrst.*; the local stack passes it to PostgREST itself
    alter role authenticator set pgrst.db_pre_request = 'private.pre_request';
    notify pgrst, 'reload config';
exception when insufficient_privilege then
    raise notice 'set db-pre-request = private.pre_request in PostgREST''s own configuration';
end;
$$;

-- Row security ---------------------------------------------------------------------------------

alter table public.owners enable row level security;
alter table public.user_profiles enable row level security;

create policy users_can_select on public.user_profiles
for select to authenticated
using (id = (select auth.uid()) and (select private.is_active()));

create policy users_can_update on public.user_profiles
for update to authenticated
using (id = (select auth.uid()) and (select private.is_active()));

grant select on public.owners to authenticated, service_role;
grant select on public.user_profiles to anon, authenticated, service_role;
grant update (full_name, avatar_url, preferences) on public.user_profiles to authenticated;

-- Triggers -------------------------------------------------------------------------------------

create function private.tg_users__create_profile() returns trigger
language plpgsql volatile
security definer -- Auth's own role signs people up
set search_path = ''
as $$
begin
    insert into public.owners (id, kind, storage_limit)
    values (new.id, 'user', (private.setting('owners.storage_limit'))::bigint);

    insert into public.user_profiles (id, email, full_name, avatar_url, storage_limit)
    values (
        new.id,
        new.email,
        left(coalesce(new.raw_user_meta_data ->> 'full_name', new.raw_user_meta_data ->> 'name'), 200),
        left(coalesce(new.raw_user_meta_data ->> 'avatar_url', new.raw_user_meta_data ->> 'picture'), 2048),
        (private.setting('owners.storage_limit'))::bigint
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg_users__create_profile() is 'Gives a new user a profile and a personal owner.';

create trigger _500_create_profile
after insert on auth.users
for each row execute function private.tg_users__create_profile();

create function private.tg_users__copy_email() returns trigger
language plpgsql volatile
security definer -- Auth's own role changes addresses
set search_path = ''
as $$
begin
    update public.user_profiles as p set email = new.email where p.id = new.id;
    return null; -- after trigger
end;
$$;
comment on function private.tg_users__copy_email() is 'Keeps the profile''s e-mail equal to the account''s.';

create trigger _510_copy_email
after update of email on auth.users
for each row when (old.email is distinct from new.email)
execute function private.tg_users__copy_email();

create function private.tg_user_profiles__delete_owner() returns trigger
language plpgsql volatile
security definer -- cascades from auth.users, deleted by Auth's own role
set search_path = ''
as $$
begin
    perform from public.nodes as n where n.owner_id = old.id order by n.id for update; -- nodes before owners
    delete from public.owners as o where o.id = old.id; -- takes nodes, versions, chunks and vectors along
    return null; -- after trigger
end;
$$;
comment on function private.tg_user_profiles__delete_owner() is 'A deleted account leaves no files behind.';

create trigger _500_delete_owner
after delete on public.user_profiles
for each row execute function private.tg_user_profiles__delete_owner();

create function private.tg_owners__copy_quota() returns trigger
language plpgsql volatile
security definer -- clients may not write these columns
set search_path = ''
as $$
begin
    update public.user_profiles as p
    set storage_used = new.storage_used, storage_limit = new.storage_limit
    where p.id = new.id;
    return null; -- after trigger
end;
$$;
comment on function private.tg_owners__copy_quota() is 'Shows the personal owner''s quota in the profile.';

create trigger _500_copy_quota
after update of storage_used, storage_limit on public.owners
for each row when ((old.storage_used, old.storage_limit) is distinct from (new.storage_used, new.storage_limit))
execute function private.tg_owners__copy_quota();

create function private.tg_user_profiles__check_preferences() returns trigger
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_key text;
begin
    if char_length(new.full_name) > 200 then
        perform private.raise_invalid('full_name', 'A name has at most 200 characters.');
    end if;
    if char_length(new.avatar_url) > 2048 then
        perform private.raise_invalid('avatar_url', 'An address has at most 2048 characters.');
    end if;
    if jsonb_typeof(new.preferences) <> 'object' or pg_column_size(new.preferences) > 16384 then
        perform private.raise_invalid('preferences', 'Preferences must be a JSON object of at most 16 KiB.');
    end if;
    if coalesce(new.preferences -> 'theme', '"system"') not in ('"light"', '"dark"', '"system"') then
        perform private.raise_invalid('preferences.theme', 'The theme must be light, dark or system.');
    end if;
    if coalesce(new.preferences -> 'language', '"en"')::text !~ '^"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*"$' then
        perform private.raise_invalid('preferences.language', 'The language must be a tag such as en or pt-BR.');
    end if;
    if jsonb_typeof(coalesce(new.preferences -> 'autoAnalyze', 'true')) <> 'boolean' then
        perform private.raise_invalid('preferences.autoAnalyze', 'autoAnalyze must be true or false.');
    end if;
    if jsonb_typeof(coalesce(new.preferences -> 'searchHistory', 'true')) <> 'boolean' then
        perform private.raise_invalid('preferences.searchHistory', 'searchHistory must be true or false.');
    end if;
    perform private.check_ocr_languages('preferences.ocrLanguages', new.preferences -> 'ocrLanguages');
    if jsonb_typeof(coalesce(new.preferences -> 'notifications', '{}')) <> 'object' then
        perform private.raise_invalid('preferences.notifications', 'notifications must be an object.');
    end if;
    foreach v_key in array array['email', 'push', 'desktop'] loop
        if jsonb_typeof(coalesce(new.preferences -> 'notifications' -> v_key, 'true')) <> 'boolean' then
            perform private.raise_invalid(
                'preferences.notifications.' || v_key, format('notifications.%s must be true or false.', v_key)
            );
        end if;
    end loop;
    if jsonb_typeof(coalesce(new.preferences #> '{notifications,muted}', '[]')) <> 'array'
        or not coalesce(new.preferences #> '{notifications,muted}', '[]') <@ to_jsonb(private.notification_kinds()) then
        perform private.raise_invalid(
            'preferences.notifications.muted',
            'notifications.muted must be a list of kinds of notifications.',
            jsonb_build_object('expected', private.notification_kinds())
        );
    end if;
    new.updated_at := now();
    return new;
end;
$$;
comment on function private.tg_user_profiles__check_preferences() is
'Refuses preferences that a frontend could not read. Unknown keys are the frontend''s own and are kept.';

create trigger _100_check_preferences
before update of preferences, full_name, avatar_url on public.user_profiles
for each row execute function private.tg_user_profiles__check_preferences();
