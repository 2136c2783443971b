-- Teams: groups to share with, workspaces that own files together, and who the caller acts as.
--
-- A member, like a grantee, may be named by an e-mail address: the row then keeps the address only, whether or not
-- there is an account, so that nobody learns who has one. Whoever has confirmed the address is meant.

create function private.email_of(user_id uuid) returns text
language sql stable
security definer -- auth.users is closed to clients
set search_path = ''
as $$
    select lower(u.email)
    from auth.users as u
    where u.id = email_of.user_id and u.email_confirmed_at is not null;
$$;
comment on function private.email_of(uuid) is 'A user''s confirmed e-mail address in lower case, or null.';

create function private.is_person(
    person_id uuid, person_email text, user_id uuid, user_email text
) returns boolean
language sql immutable parallel safe
return case when person_id is null then person_email = user_email else person_id = user_id end;
comment on function private.is_person(uuid, text, uuid, text) is
'Whether a row that names somebody, by id or else by address, means this user.';

create table public.groups (
    id uuid primary key default gen_random_uuid(),
    name text not null check (char_length(name) between 1 and 200),
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now()
);
comment on table public.groups is 'People to share with at once. Members see it; managers change it.';
create index groups_created_by_idx on public.groups (created_by);

create table public.group_members (
    id uuid primary key default gen_random_uuid(),
    group_id uuid not null references public.groups on delete cascade,
    user_id uuid references auth.users on delete cascade,
    email text check (email = lower(email)),
    is_manager boolean not null default false,
    added_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    unique nulls not distinct (group_id, user_id, email),
    check (num_nonnulls(user_id, email) > 0)
);
comment on table public.group_members is 'Who is in a group, by user id or by e-mail address.';
create index group_members_user_id_idx on public.group_members (user_id);
create index group_members_email_idx on public.group_members (email) where user_id is null;
create index group_members_added_by_idx on public.group_members (added_by);

create table public.workspaces (
    id uuid primary key references public.owners on delete cascade,
    root_id uuid,
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now()
);
comment on table public.workspaces is
'An owner that several people share. Its files are below its root folder, whose name is the workspace''s.';
create index workspaces_created_by_idx on public.workspaces (created_by);
create index workspaces_root_id_idx on public.workspaces (root_id);

create table public.workspace_members (
    id uuid primary key default gen_random_uuid(),
    workspace_id uuid not null references public.workspaces on delete cascade,
    user_id uuid references auth.users on delete cascade,
    email text check (email = lower(email)),
    level text not null check (level in ('view', 'comment', 'edit', 'manage', 'owner')),
    added_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    unique nulls not distinct (workspace_id, user_id, email),
    check (num_nonnulls(user_id, email) > 0)
);
comment on table public.workspace_members is 'Who is in a workspace, and their level on everything in it.';
create index workspace_members_user_id_idx on public.workspace_members (user_id);
create index workspace_members_email_idx on public.workspace_members (email) where user_id is null;
create index workspace_members_added_by_idx on public.workspace_members (added_by);

-- Who the caller acts as -----------------------------------------------------------------------

create function private.group_ids_of(user_id uuid) returns uuid[]
language sql stable
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$
    select coalesce(array_agg(m.group_id), '{}')
    from (
        select g.group_id from public.group_members as g where g.user_id = group_ids_of.user_id
        union
        select g.group_id
        from public.group_members as g
        where g.user_id is null and g.email = private.email_of(group_ids_of.user_id)
    ) as m;
$$;
comment on function private.group_ids_of(uuid) is 'The groups that a user is in.';

create function private.owner_ids_of(user_id uuid) returns uuid[]
language sql stable
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$
    select coalesce(array_agg(m.id), '{}')
    from (
        select o.id from public.owners as o where o.id = owner_ids_of.user_id
        union
        select w.workspace_id from public.workspace_members as w where w.user_id = owner_ids_of.user_id
        union
        select w.workspace_id
        from public.workspace_members as w
        where w.user_id is null and w.email = private.email_of(owner_ids_of.user_id)
    ) as m
    where private.user_has_permission(owner_ids_of.user_id, 'view_documents');
$$;
comment on function private.owner_ids_of(uuid) is
'The owners whose files a user reads as of right: their own and their workspaces''; empty while inactive.';

create function private.my_owner_ids() returns uuid[]
language sql stable
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$ select private.owner_ids_of(auth.uid()); $$;
comment on function private.my_owner_ids() is
'The owners whose files the caller reads as of right; empty for anon and inactive users. Call it as
(select private.my_owner_ids()).';
grant execute on function private.my_owner_ids() to anon, authenticated, service_role;

create function private.my_group_ids() returns uuid[]
language sql stable
security definer -- decides what is visible, so it must not depend on it
set search_path = ''
as $$ select case when private.is_active() then private.group_ids_of(auth.uid()) else '{}' end; $$;
comment on function private.my_group_ids() is 'The groups that the caller is in; empty for anon and inactive users.';
grant execute on function private.my_group_ids() to authenticated;

create function private.level_rank(level text) returns integer
language sql immutable parallel safe
return case level
    when 'view' then 1
    when 'comment' then 2
    when 'edit' then 3
    when 'manage' then 4
    when 'owner' then 5
end;
comment on function private.level_rank(text) is 'Order of the levels: view < comment < edit < manage < owner.';

create function private.owner_level(user_id uuid, owner_id uuid) returns text
language sql stable
security definer -- decides levels, so it must not depend on what the caller may read
set search_path = ''
as $$
    select case
        when owner_level.user_id = owner_level.owner_id then 'owner'
        else (
            select w.level
            from public.workspace_members as w
            where w.workspace_id = owner_level.owner_id
                and private.is_person(w.user_id, w.email, owner_level.user_id, private.email_of(owner_level.user_id))
            order by private.level_rank(w.level) desc
            limit 1
        )
    end;
$$;
comment on function private.owner_level(uuid, uuid) is
'A user''s level on all that an owner has: owner of their own, the member''s level in a workspace, else null.';

-- Row security ---------------------------------------------------------------------------------

alter table public.groups enable row level security;
alter table public.group_members enable row level security;
alter table public.workspaces enable row level security;
alter table public.workspace_members enable row level security;

create policy members_can_select on public.owners
for select to authenticated
using (id = any((select private.my_owner_ids())::uuid[]));

create policy members_can_select on public.groups
for select to authenticated
using (id = any((select private.my_group_ids())::uuid[]));

create policy members_can_select on public.group_members
for select to authenticated
using (group_id = any((select private.my_group_ids())::uuid[]));

create policy members_can_select on public.workspaces
for select to authenticated
using (id = any((select private.my_owner_ids())::uuid[]));

create policy members_can_select on public.workspace_members
for select to authenticated
using (workspace_id = any((select private.my_owner_ids())::uuid[]));

grant select on public.groups, public.group_members, public.workspaces, public.workspace_members
to authenticated, service_role;
