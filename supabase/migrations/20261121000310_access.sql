-- Access: shares and links, and the one rule of who may read and who may do what.
--
-- What is computed once a statement is the caller's few grants (owners, granted roots), never the readable rows.

create table public.shares (
    id uuid primary key default gen_random_uuid(),
    node_id uuid not null references public.nodes on delete cascade,
    grantee_id uuid references auth.users on delete cascade,
    grantee_email text check (grantee_email = lower(grantee_email)),
    group_id uuid references public.groups on delete cascade,
    level text not null check (level in ('view', 'comment', 'edit', 'manage')),
    granted_by uuid references auth.users on delete set null,
    expires_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique nulls not distinct (node_id, grantee_id, grantee_email, group_id),
    check ((group_id is null) = (num_nonnulls(grantee_id, grantee_email) > 0))
);
comment on table public.shares is 'A node, and all below it, opened to one person or one group up to a level.';
comment on column public.shares.grantee_id is
'The grantee, when named by id (or when their address has changed since).';
comment on column public.shares.grantee_email is
'The grantee, when named by address: whoever has confirmed it, now or later. The row never tells whether anybody has.';
create index shares_grantee_id_idx on public.shares (grantee_id);
create index shares_grantee_email_idx on public.shares (grantee_email) where grantee_id is null;
create index shares_group_id_idx on public.shares (group_id);
create index shares_granted_by_idx on public.shares (granted_by);

create table public.share_links (
    id uuid primary key default gen_random_uuid(),
    node_id uuid not null references public.nodes on delete cascade,
    level text not null check (level in ('view', 'comment', 'edit')),
    created_by uuid not null references auth.users on delete cascade,
    has_password boolean not null default false,
    expires_at timestamptz,
    max_downloads integer check (max_downloads > 0),
    downloads integer not null default 0,
    opens integer not null default 0,
    last_opened_at timestamptz,
    created_at timestamptz not null default now(),
    revoking_at timestamptz,
    is_hard boolean not null default false,
    revoked_at timestamptz,
    revoked_by uuid references auth.users on delete set null,
    check (downloads <= max_downloads)
);
comment on table public.share_links is
'Links that open a node, and all below it, to whoever holds the token. Ended ones stay listed.';
comment on column public.share_links.level is 'For signed-in holders; anonymous ones only look.';
comment on column public.share_links.downloads is 'Files read through it; at max_downloads it is used up.';
comment on column public.share_links.revoking_at is 'When it was revoked: it opens nothing from then on.';
comment on column public.share_links.is_hard is 'Whether it was revoked together with the signed URLs made before.';
comment on column public.share_links.revoked_at is
'When the revocation was complete: at once if soft; if hard, when every object had moved to a new key.';
create index share_links_node_id_idx on public.share_links (node_id);
create index share_links_created_by_idx on public.share_links (created_by);
create index share_links_revoked_by_idx on public.share_links (revoked_by);

create table private.link_secrets (
    link_id uuid primary key references public.share_links on delete cascade,
    token_hash bytea not null unique,
    password_salt bytea,
    password_hash bytea,
    failures integer not null default 0,
    last_failure_at timestamptz
);
comment on table private.link_secrets is 'What a link is opened with: sha256 of the token, the salted password hash.';
alter table private.link_secrets enable row level security;

create table private.link_grants (
    grant_hash bytea primary key,
    link_id uuid not null references public.share_links on delete cascade,
    expires_at timestamptz not null,
    user_id uuid references auth.users on delete cascade
);
comment on table private.link_grants is 'What opening a link gives, by sha256: sent back in the header x-share-grant.';
comment on column private.link_grants.user_id is
'Who opened it, when somebody was signed in: their uploads end with it.';
create index link_grants_user_id_idx on private.link_grants (user_id);
create index link_grants_link_id_idx on private.link_grants (link_id);
create index link_grants_expires_at_idx on private.link_grants (expires_at);
alter table private.link_grants enable row level security;

-- Levels ---------------------------------------------------------------------------------------

create function private.shares_of(user_id uuid) returns setof public.shares
language sql stable rows 20
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$
    select s.* from public.shares as s
    where s.grantee_id = shares_of.user_id and (s.expires_at is null or s.expires_at > now())
    union all
    select s.* from public.shares as s
    where s.grantee_id is null
        and s.grantee_email = private.email_of(shares_of.user_id)
        and (s.expires_at is null or s.expires_at > now())
    union all
    select s.* from public.shares as s
    where s.group_id = any(private.group_ids_of(shares_of.user_id))
        and (s.expires_at is null or s.expires_at > now());
$$;
comment on function private.shares_of(uuid) is 'The shares that open something to a user now, whatever their role.';

create function private.my_share_ids() returns uuid[]
language sql stable
security definer -- policies on shares ask it
set search_path = ''
as $$
    select coalesce(array_agg(s.id), '{}')
    from private.shares_of(auth.uid()) as s
    inner join public.nodes as n on n.id = s.node_id and n.trashed_at is null
    where private.is_active();
$$;
comment on function private.my_share_ids() is
'The shares of living nodes that name the caller. Call it as (select private.my_share_ids()).';
grant execute on function private.my_share_ids() to authenticated;

create function private.user_level(user_id uuid, node public.nodes) returns text
language sql stable
security definer -- sees the shares of every ancestor
set search_path = ''
as $$
    select l.level
    from (
        select private.owner_level(user_level.user_id, (user_level.node).owner_id) as level
        union all
        select s.level from private.shares_of(user_level.user_id) as s where s.node_id = any((user_level.node).path)
    ) as l
    where l.level is not null and private.user_has_permission(user_level.user_id, 'view_documents')
    order by private.level_rank(l.level) desc
    limit 1;
$$;
comment on function private.user_level(uuid, public.nodes) is
'A user''s level on a node by ownership, membership and shares, trashed or not; null when they have none.';

create function private.link_problem(link public.share_links) returns text
language sql stable
security definer -- looks at the node and its shares, whoever asks
set search_path = ''
as $$
    select case
        when (link).revoking_at is not null then 'revoked'
        when (link).expires_at <= now() then 'expired'
        when n.id is null or n.purged_at is not null then 'deleted'
        when n.trashed_at is not null then 'trashed'
        -- a link is worth what its maker may still give
        when coalesce(private.level_rank(private.user_level((link).created_by, n)), 0) < private.level_rank('manage')
            then 'not_permitted'
        when (link).downloads >= (link).max_downloads then 'used_up'
    end
    from (select (link).node_id as id) as wanted
    left join public.nodes as n on n.id = wanted.id;
$$;
comment on function private.link_problem(public.share_links) is
'Why a link opens nothing now: revoked, expired, deleted, trashed, not_permitted (its maker does not manage the node any
more), used_up; null when it is good.';

create function private.my_link() returns public.share_links
language sql stable
security definer -- grants and links are closed to those who hold them
set search_path = ''
as $$
    select l.*
    from private.link_grants as g
    inner join public.share_links as l on l.id = g.link_id
    where g.grant_hash = sha256(convert_to(
            nullif(current_setting('request.headers', true), '')::json ->> 'x-share-grant', 'UTF8'
        ))
        and g.expires_at > now()
        -- the last download itself goes on; further ones are refused one by one
        and coalesce(private.link_problem(l), 'used_up') = 'used_up';
$$;
comment on function private.my_link() is
'The link whose grant the caller sends in the header x-share-grant, while it is good; else a null row.';

create function private.shared_roots() returns uuid[]
language sql stable
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$
    select coalesce(array_agg(s.node_id), '{}')
    from private.shares_of(auth.uid()) as s
    where private.user_has_permission(auth.uid(), 'view_documents');
$$;
comment on function private.shared_roots() is 'The nodes opened to the caller by shares.';

create function private.granted_roots() returns uuid[]
language sql stable
security definer -- decides readability, so it must not depend on what the caller may read
set search_path = ''
as $$
    select private.shared_roots() || coalesce((
        select array[l.node_id]
        from private.my_link() as l
        where l.id is not null and private.is_active()
    ), '{}');
$$;
comment on function private.granted_roots() is
'The nodes opened to the caller by shares, or by the link whose grant they send. Call it as
(select private.granted_roots()).';
grant execute on function private.granted_roots() to anon, authenticated, service_role;

create function private.is_readable(
    owner_id uuid, path uuid[], trashed_at timestamptz, owner_ids uuid[], roots uuid[]
) returns boolean
language sql immutable parallel safe
return trashed_at is null and (owner_id = any(owner_ids) or path && roots);
comment on function private.is_readable(uuid, uuid[], timestamptz, uuid[], uuid[]) is
'The one rule of who may read a node. owner_ids and roots are the caller''s: (select private.my_owner_ids()) and
(select private.granted_roots()), computed once a statement. Inlined by the planner, so it can use the indexes.';
grant execute on function private.is_readable(uuid, uuid[], timestamptz, uuid[], uuid[])
to anon, authenticated, service_role;

create function private.my_level(node public.nodes, include_trashed boolean default false) returns text
language sql stable
security definer -- sees the shares of every ancestor
set search_path = ''
as $$
    select l.level
    from (
        select private.user_level(auth.uid(), my_level.node) as level
        union all
        select case when auth.uid() is null then 'view' else k.level end
        from private.my_link() as k
        where k.node_id = any((my_level.node).path) and private.is_active()
    ) as l
    where l.level is not null
        and (include_trashed or (my_level.node).trashed_at is null)
        and (my_level.node).purged_at is null
    order by private.level_rank(l.level) desc
    limit 1;
$$;
comment on function private.my_level(public.nodes, boolean) is
'The caller''s level on a node; null when it is not readable. Anonymous holders of a link only look.';

create function private.require_reader() returns void
language plpgsql stable
security definer -- grants are closed to those who hold them
set search_path = ''
as $$
begin
    if auth.uid() is null and (private.my_link()).id is not null then
        return;
    end if;
    perform private.require_user();
end;
$$;
comment on function private.require_reader() is
'Passes signed-in, active callers and holders of a good link. Raises NOT_AUTHENTICATED.';
grant execute on function private.require_reader() to anon, authenticated, service_role;

create function private.require_permission(permission text) returns void
language plpgsql stable
security definer -- reads the role's rows
set search_path = ''
as $$
begin
    perform private.require_reader();
    if auth.uid() is not null and not private.has_permission(permission) then
        perform private.raise_error(
            'FORBIDDEN', 'Your role does not allow this.',
            jsonb_build_object('permission', require_permission.permission)
        );
    end if;
end;
$$;
comment on function private.require_permission(text) is
'Passes callers whose role has the permission, and holders of a good link. Raises NOT_AUTHENTICATED, FORBIDDEN.';

create function private.require_writer() returns uuid
language plpgsql volatile
security definer -- reads the role's rows
set search_path = ''
as $$
declare
    v_user_id uuid;
begin
    if auth.uid() is null and (private.my_link()).id is not null then
        perform private.raise_error(
            'FORBIDDEN', 'A link only lets you look.', '{"level": "view"}', 'Sign in to change something.'
        );
    end if;
    v_user_id := private.require_actor();
    if not private.has_permission('edit_documents') then
        perform private.raise_error(
            'FORBIDDEN', 'Your role cannot change anything.',
            jsonb_build_object('permission', 'edit_documents', 'role', (
                select p.role from public.user_profiles as p where p.id = v_user_id
            ))
        );
    end if;
    return v_user_id;
end;
$$;
comment on function private.require_writer() is
'The id of a caller who may write at all, and who stays until the transaction ends. Raises NOT_AUTHENTICATED, or
FORBIDDEN for a role without edit_documents (viewer) and for anonymous holders of a link.';

create function private.find_node(
    node_id uuid, level text, include_trashed boolean default false
) returns public.nodes
language plpgsql stable
security definer -- tells absent from forbidden only to those who can see the node
set search_path = ''
as $$
declare
    v_node public.nodes;
    v_level text;
begin
    perform private.require_reader();
    select n.* into v_node from public.nodes as n where n.id = find_node.node_id;
    v_level := private.my_level(v_node, include_trashed);
    if v_level is null then -- absent and not-yours look alike on purpose
        perform private.raise_error(
            'NOT_FOUND', 'No such file or folder.', jsonb_build_object('id', node_id), 'List a folder to see valid ids.'
        );
    end if;
    if private.level_rank(v_level) < private.level_rank(level) then
        perform private.raise_error(
            'FORBIDDEN',
            format('This needs the level %s; yours is %s.', level, v_level),
            jsonb_build_object('id', node_id, 'level', v_level, 'required', level),
            'Ask the owner for a higher level.'
        );
    end if;
    return v_node;
end;
$$;
comment on function private.find_node(uuid, text, boolean) is
'The node, when the caller has at least this level on it, whatever their role: for RPCs that only read. Raises
NOT_AUTHENTICATED, NOT_FOUND or FORBIDDEN.';

create function private.require_level(
    node_id uuid, level text, include_trashed boolean default false
) returns public.nodes
language plpgsql stable
security definer -- reads the role's rows
set search_path = ''
as $$
begin
    if level <> 'view' then
        perform private.require_writer();
    end if;
    return private.find_node(node_id, level, include_trashed);
end;
$$;
comment on function private.require_level(uuid, text, boolean) is
'The node, when the caller has at least this level on it. Raises NOT_AUTHENTICATED, NOT_FOUND or FORBIDDEN. Every
writing RPC calls it: levels above view also need a role that writes.';

create function private.require_not_root(node public.nodes) returns void
language plpgsql stable
security definer -- workspaces are visible to their members only
set search_path = ''
as $$
begin
    if (node).parent_id is null and exists (select 1 from public.workspaces as w where w.root_id = (node).id) then
        perform private.raise_error(
            'CONFLICT_STATE',
            'The root folder of a workspace stays where it is; it goes only with its workspace.',
            jsonb_build_object('id', (node).id),
            'Use delete_workspace to delete the workspace.'
        );
    end if;
end;
$$;
comment on function private.require_not_root(public.nodes) is
'Raises CONFLICT_STATE for the root folder of a workspace, which cannot be trashed, moved or purged.';

create function private.my_managed_owner_ids() returns uuid[]
language sql stable
security definer -- decides what is visible, so it must not depend on it
set search_path = ''
as $$
    select coalesce(array_agg(o.id), '{}')
    from unnest(private.my_owner_ids()) as o (id)
    where private.level_rank(private.owner_level(auth.uid(), o.id)) >= private.level_rank('manage');
$$;
comment on function private.my_managed_owner_ids() is
'The owners all of whose files the caller manages. Call it as (select private.my_managed_owner_ids()).';
grant execute on function private.my_managed_owner_ids() to anon, authenticated, service_role;

create function private.my_managed_roots() returns uuid[]
language sql stable
security definer -- decides what is visible, so it must not depend on it
set search_path = ''
as $$
    select coalesce(array_agg(s.node_id), '{}')
    from private.shares_of(auth.uid()) as s
    where s.level = 'manage' and private.user_has_permission(auth.uid(), 'view_documents');
$$;
comment on function private.my_managed_roots() is
'The nodes that shares let the caller manage. Call it as (select private.my_managed_roots()).';
grant execute on function private.my_managed_roots() to authenticated;

-- Row security ---------------------------------------------------------------------------------

alter table public.nodes enable row level security;
alter table public.file_versions enable row level security;
alter table public.shares enable row level security;
alter table public.share_links enable row level security;

create policy readers_can_select on public.nodes
for select to anon, authenticated
using (
    private.is_readable(
        owner_id, path, trashed_at, (select private.my_owner_ids()), (select private.granted_roots())
    )
);

create policy readers_can_select on public.file_versions
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

-- asked in sets: a function called for each row would take seconds at tens of thousands of shares
create policy parties_can_select on public.shares
for select to authenticated
using (
    id = any((select private.my_share_ids())::uuid[])
    or exists ( -- through the policy of nodes
        select 1 from public.nodes as n
        where n.id = node_id and (
            n.owner_id = any((select private.my_managed_owner_ids())::uuid[])
            or n.path && (select private.my_managed_roots())
        )
    )
);

create policy managers_can_select on public.share_links
for select to authenticated
using (
    (created_by = (select auth.uid()) and (select private.is_active()))
    or exists ( -- through the policy of nodes
        select 1 from public.nodes as n
        where n.id = node_id and (
            n.owner_id = any((select private.my_managed_owner_ids())::uuid[])
            or n.path && (select private.my_managed_roots())
        )
    )
);

grant select on public.nodes, public.file_versions to anon, authenticated, service_role;
grant select on public.shares, public.share_links to authenticated, service_role;
