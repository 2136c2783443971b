-- Sharing: who else may see a node and all below it, and why.

create function private.timed_cursor(at timestamptz, id uuid) returns text
language sql stable
security invoker
set search_path = ''
as $$ select replace(encode(convert_to(jsonb_build_array(at, id)::text, 'UTF8'), 'base64'), e'\n', ''); $$;
comment on function private.timed_cursor(timestamptz, uuid) is 'An opaque cursor of a list that is ordered by time.';

create function private.read_timed_cursor(cursor text, out at timestamptz, out id uuid) returns record
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_after jsonb;
begin
    if cursor is null then
        return;
    end if;
    begin
        v_after := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
        at := v_after ->> 0;
        id := v_after ->> 1;
        if num_nulls(at, id) > 0 then
            raise data_exception;
        end if;
    exception when others then
        perform private.raise_invalid('cursor', 'This cursor is not one that this list gave.');
    end;
end;
$$;
comment on function private.read_timed_cursor(text) is
'What timed_cursor wrote; nulls for the first page. Raises INVALID_ARGUMENT (field cursor).';

create function private.check_page_size(page_size integer) returns integer
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    return page_size;
end;
$$;
comment on function private.check_page_size(integer) is 'The size itself. Raises INVALID_ARGUMENT (field page_size).';

create function private.grantee_json(share public.shares) returns jsonb
language sql stable
security definer -- names a group to managers who are not in it
set search_path = ''
as $$
    select case
        when (share).group_id is not null then jsonb_build_object(
            'group_id', (share).group_id,
            'name', (select g.name from public.groups as g where g.id = (share).group_id)
        )
        when (share).grantee_email is not null then jsonb_build_object('email', (share).grantee_email)
        else jsonb_build_object('user_id', (share).grantee_id)
    end;
$$;
comment on function private.grantee_json(public.shares) is
'Whom a share names, as they were named: {email}, {user_id} or {group_id, name}.';

create function private.share_json(share public.shares) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'id', (share).id,
        'node_id', (share).node_id,
        'level', (share).level,
        'expires_at', (share).expires_at,
        'grantee', private.grantee_json(share),
        'shared_by', private.public_facts((share).granted_by),
        'created_at', (share).created_at,
        'updated_at', (share).updated_at
    );
$$;
comment on function private.share_json(public.shares) is 'A share as clients get it.';

-- Sharing and unsharing ------------------------------------------------------------------------

create function private.parse_grantee(
    grantee jsonb, node public.nodes, out user_id uuid, out email text, out group_id uuid
) returns record
language plpgsql volatile
security definer -- compares with the caller's own address
set search_path = ''
as $$
begin
    if jsonb_typeof(grantee) = 'object' and grantee ? 'group_id' and (
        select count(*) from jsonb_object_keys(grantee)
    ) = 1 then
        begin
            group_id := grantee ->> 'group_id';
        exception when invalid_text_representation then
            perform private.raise_invalid('grantee.group_id', 'This is not the id of a group.');
        end;
        if not coalesce(group_id = any(private.my_group_ids()), false) then
            perform private.raise_error('NOT_FOUND', 'No such group.', jsonb_build_object('group_id', group_id));
        end if;
        return;
    end if;
    select p.user_id, p.email into user_id, email from private.parse_person(grantee, 'grantee') as p;
    -- the address of anybody but the caller is not looked up: the answer would tell who has an account
    if user_id = (node).owner_id or private.is_me(user_id, email) then
        perform private.raise_invalid('grantee', 'Share with somebody else than yourself or the owner.');
    end if;
end;
$$;
comment on function private.parse_grantee(jsonb, public.nodes) is
'Reads {email}, {user_id} or {group_id}. Raises INVALID_ARGUMENT (field grantee…), NOT_FOUND for a group that the caller
is not in or an id that nobody has.';

create function private.check_share_level(level text, own_level text) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if private.level_rank(level) > private.level_rank(own_level) then
        perform private.raise_error(
            'FORBIDDEN', format('Nobody gives a level above their own; yours is %s.', own_level),
            jsonb_build_object('level', own_level, 'required', level)
        );
    end if;
    if level is null or level not in ('view', 'comment', 'edit', 'manage') then
        perform private.raise_invalid('level', 'Share with the level view, comment, edit or manage.');
    end if;
end;
$$;
comment on function private.check_share_level(text, text) is
'Raises FORBIDDEN above the own level, INVALID_ARGUMENT (field level) for what cannot be given: owner is not.';

create function private.check_expiry(expires_at timestamptz) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if expires_at <= now() or expires_at = 'infinity' then
        perform private.raise_invalid('expires_at', 'The expiry must be in the future; null for none.');
    end if;
end;
$$;
comment on function private.check_expiry(timestamptz) is 'Raises INVALID_ARGUMENT (field expires_at).';

create function private.share_node(node uuid, grantee jsonb, level text, expires_at timestamptz) returns jsonb
language plpgsql volatile
security definer -- clients only read shares
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_node public.nodes := private.require_level(node, 'manage');
    v_grantee record;
    v_share public.shares;
    v_user_ids uuid[] := '{}';
    v_upload_ids uuid[];
begin
    perform private.check_share_level(level, private.my_level(v_node));
    v_grantee := private.parse_grantee(grantee, v_node);
    perform private.check_expiry(expires_at);

    select s.* into v_share
    from public.shares as s
    where s.node_id = share_node.node
        and (s.grantee_id, s.grantee_email, s.group_id) is not distinct from
            (v_grantee.user_id, v_grantee.email, v_grantee.group_id);
    if v_share.id is not null then -- it may become less
        v_user_ids := private.users_named(v_share.grantee_id, v_share.grantee_email, v_share.group_id);
    end if;
    v_upload_ids := private.lock_work(v_user_ids, array[share_node.node]);
    v_node := private.require_level(node, 'manage'); -- what was waited for may have been a trash, or an unshare
    perform private.check_share_level(level, private.my_level(v_node));

    insert into public.shares (node_id, grantee_id, grantee_email, group_id, level, granted_by, expires_at)
    values (
        v_node.id, v_grantee.user_id, v_grantee.email, v_grantee.group_id, share_node.level, v_user_id,
        share_node.expires_at
    )
    on conflict on constraint shares_node_id_grantee_id_grantee_email_group_id_key do update
    set
        level = excluded.level, expires_at = excluded.expires_at, granted_by = excluded.granted_by, updated_at = now()
    returning * into v_share;
    perform private.settle_access(v_user_ids, v_upload_ids);
    return private.share_json(v_share);
end;
$$;
comment on function private.share_node(uuid, jsonb, text, timestamptz) is 'Behind public.share_node.';
grant execute on function private.share_node(uuid, jsonb, text, timestamptz) to anon, authenticated;

create function public.share_node(
    node uuid, grantee jsonb, level text default 'view', expires_at timestamptz default null
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.share_node(node, grantee, level, expires_at); $$;
comment on function public.share_node(uuid, jsonb, text, timestamptz) is
'Open a file or folder, with all below it, to somebody: {id, node_id, level, expires_at, grantee, …}.

Needs level manage. grantee: {"email": …}, {"user_id": …} or {"group_id": …} of a group that you are in. An address means whoever has
confirmed it, now or later; the answer is the same whether or not anybody has. level: view, comment, edit or manage, at
most your own. expires_at: null for never. Sharing again changes level and expiry. Raises NOT_FOUND, FORBIDDEN,
INVALID_ARGUMENT (field grantee, level or expires_at).';
grant execute on function public.share_node(uuid, jsonb, text, timestamptz) to anon, authenticated;

create function private.unshare_node(share_id uuid) returns jsonb
language plpgsql volatile
security definer -- clients only read shares
set search_path = ''
as $$
declare
    v_share public.shares;
    v_node public.nodes;
    v_user_ids uuid[];
    v_upload_ids uuid[];
    v_links integer;
begin
    perform private.require_actor();
    select s.* into v_share from public.shares as s where s.id = unshare_node.share_id;
    if not private.is_me(v_share.grantee_id, v_share.grantee_email) then -- leaving is always possible
        perform private.require_writer();
        select n.* into v_node from public.nodes as n where n.id = v_share.node_id;
        if private.my_level(v_node, true) is null then
            perform private.raise_error('NOT_FOUND', 'No such share.', jsonb_build_object('id', share_id));
        end if;
        perform private.find_node(v_share.node_id, 'manage', true);
    end if;
    v_user_ids := private.users_named(v_share.grantee_id, v_share.grantee_email, v_share.group_id);
    v_upload_ids := private.lock_work(v_user_ids, array[v_share.node_id]);
    delete from public.shares as s where s.id = v_share.id;
    if not found then -- removed meanwhile
        perform private.raise_error('NOT_FOUND', 'No such share.', jsonb_build_object('id', share_id));
    end if;
    v_links := private.settle_access(v_user_ids, v_upload_ids);
    return jsonb_build_object('revoked', true, 'links_revoked', v_links);
end;
$$;
comment on function private.unshare_node(uuid) is 'Behind public.unshare_node.';
grant execute on function private.unshare_node(uuid) to anon, authenticated;

create function public.unshare_node(share_id uuid) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.unshare_node(share_id); $$;
comment on function public.unshare_node(uuid) is
'End a share: {revoked, links_revoked}. Needs level manage, or that it names you: leaving is always possible.

From the commit on the grantee sees nothing through it. In the same transaction their uploads to where they may no
longer write are aborted, and their links to what they no longer manage are revoked. Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.unshare_node(uuid) to anon, authenticated;

-- What is shared -------------------------------------------------------------------------------

create function private.visible_name(node_id uuid) returns jsonb
language sql stable
security definer -- a manager of a folder may not see those above it
set search_path = ''
as $$
    select jsonb_build_object('id', n.id, 'name', case
        when private.is_readable(
            n.owner_id, n.path, n.trashed_at, private.my_owner_ids(), private.granted_roots()
        ) then n.name
    end)
    from public.nodes as n
    where n.id = visible_name.node_id;
$$;
comment on function private.visible_name(uuid) is 'A node as {id, name}; name is null when the caller cannot see it.';

create function private.list_shares(node uuid) returns jsonb
language plpgsql stable
security definer -- shows the shares of every ancestor
set search_path = ''
as $$
declare
    v_node public.nodes;
begin
    perform private.require_user();
    v_node := private.find_node(node, 'manage');
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(
                private.share_json(s) || jsonb_build_object(
                    'is_expired', coalesce(s.expires_at <= now(), false),
                    'inherited_from', case when s.node_id <> v_node.id then private.visible_name(s.node_id) end
                )
                order by array_position(v_node.path, s.node_id) desc, s.created_at, s.id
            ), '[]')
            from public.shares as s
            where s.node_id = any(v_node.path)
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.list_shares(uuid) is 'Behind public.list_shares.';
grant execute on function private.list_shares(uuid) to anon, authenticated;

create function public.list_shares(node uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_shares(node); $$;
comment on function public.list_shares(uuid) is
'Who a file or folder is shared with: {items, next_cursor}; an item is a share as share_node returns it, with is_expired
and inherited_from {id, name} (null for its own). Its own come first. Needs level manage. Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.list_shares(uuid) to anon, authenticated;

create function private.shared_with_me(page_size integer, cursor text) returns jsonb
language plpgsql stable
security definer -- shows the public facts of whoever shared
set search_path = ''
as $$
declare
    v_after record;
    v_owner_ids uuid[] := private.my_owner_ids();
    v_roots uuid[] := private.shared_roots();
    v_answer jsonb;
begin
    perform private.require_user();
    perform private.check_page_size(page_size);
    v_after := private.read_timed_cursor(cursor);
    with opened as (
        -- one a node: the highest level, then what lasts longest
        select distinct on (s.node_id) s.node_id, s.id, s.level, s.granted_by, s.created_at, s.expires_at
        from private.shares_of(auth.uid()) as s
        where s.node_id = any(v_roots)
        order by s.node_id, private.level_rank(s.level) desc, s.expires_at desc nulls first, s.created_at
    ), page as (
        select n, o.*
        from opened as o
        inner join public.nodes as n on n.id = o.node_id
        where n.trashed_at is null
            and not n.owner_id = any(v_owner_ids)
            and not n.path[:cardinality(n.path) - 1] && v_roots -- the topmost only
            and (v_after.at is null or (o.created_at, n.id) < (v_after.at, v_after.id))
        order by o.created_at desc, n.id desc
        limit page_size + 1
    ), numbered as (
        select p.*, row_number() over (order by p.created_at desc, p.node_id desc) as position from page as p
    )
    select jsonb_build_object(
        'items', coalesce(jsonb_agg(
            to_jsonb(p.n) - 'path' || jsonb_build_object(
                'level', p.level,
                'shared_by', private.public_facts(p.granted_by),
                'shared_at', p.created_at,
                'expires_at', p.expires_at,
                'share_id', p.id
            )
            order by p.position
        ) filter (where p.position <= page_size), '[]'),
        'next_cursor', case when count(*) > page_size then (
            select private.timed_cursor(l.created_at, l.node_id) from numbered as l where l.position = page_size
        ) end
    ) into v_answer
    from numbered as p;
    return v_answer;
end;
$$;
comment on function private.shared_with_me(integer, text) is 'Behind public.shared_with_me.';
grant execute on function private.shared_with_me(integer, text) to anon, authenticated;

create function public.shared_with_me(page_size integer default 100, cursor text default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.shared_with_me(page_size, cursor); $$;
comment on function public.shared_with_me(integer, text) is
'What others have shared with you, or with a group that you are in, the newest first: {items, next_cursor}.

An item is a node with level, shared_by {id, full_name, avatar_url}, shared_at, expires_at and share_id; of nested ones
only the topmost. page_size: 1 to 1000. cursor: the next_cursor of the page before. Raises INVALID_ARGUMENT (field
page_size or cursor).';
grant execute on function public.shared_with_me(integer, text) to anon, authenticated;

-- Who may, and why -----------------------------------------------------------------------------

create function private.effective_access(node uuid) returns jsonb
language plpgsql stable
security definer -- shows the shares of every ancestor
set search_path = ''
as $$
declare
    v_node public.nodes := private.find_node(node, 'view');
    v_level text := private.my_level(v_node);
begin
    if auth.uid() is null or private.level_rank(v_level) < private.level_rank('manage') then
        return jsonb_build_object('level', v_level);
    end if;
    return jsonb_build_object('level', v_level, 'items', (
        with ways as (
            select jsonb_build_object('user', private.public_facts(o.id)) as who, 'owner' as level, 'owner' as via,
                null::uuid as node_id
            from public.owners as o
            where o.id = v_node.owner_id and o.kind = 'user'
            union all
            select private.person_json(m.user_id, m.email), m.level, 'workspace', null
            from public.workspace_members as m
            where m.workspace_id = v_node.owner_id
            union all
            select
                case
                    when s.group_id is null then private.person_json(s.grantee_id, s.grantee_email)
                    else jsonb_build_object('group', jsonb_build_object('id', g.id, 'name', g.name))
                end,
                s.level, 'share', s.node_id
            from public.shares as s
            left join public.groups as g on g.id = s.group_id
            where s.node_id = any(v_node.path) and (s.expires_at is null or s.expires_at > now())
        ), best as (
            select distinct on (w.who) w.*
            from ways as w
            order by w.who, private.level_rank(w.level) desc, w.node_id = v_node.id desc nulls first
        )
        select coalesce(jsonb_agg(
            b.who || jsonb_build_object(
                'level', b.level,
                'via', b.via,
                'inherited_from', case when b.node_id <> v_node.id then private.visible_name(b.node_id) end
            )
            order by private.level_rank(b.level) desc, b.who
        ), '[]')
        from best as b
    ));
end;
$$;
comment on function private.effective_access(uuid) is 'Behind public.effective_access.';
grant execute on function private.effective_access(uuid) to anon, authenticated;

create function public.effective_access(node uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.effective_access(node); $$;
comment on function public.effective_access(uuid) is
'Your level on a file or folder, and for managers who else has one: {level, items: [{user or email or group, level, via,
inherited_from}]}.

Everybody is listed once, with the highest level; via is owner, workspace or share. Below level manage the answer is
{level}. Raises NOT_FOUND.';
grant execute on function public.effective_access(uuid) to anon, authenticated;

create function private.why_access("user" uuid, node uuid) returns jsonb
language plpgsql stable
security definer -- shows the shares of every ancestor
set search_path = ''
as $$
declare
    v_user_id uuid := coalesce("user", private.require_user());
    v_email text := private.email_of(v_user_id);
    v_node public.nodes;
    v_level text;
begin
    perform private.require_user();
    v_node := private.find_node(node, case when v_user_id = auth.uid() then 'view' else 'manage' end);
    v_level := private.user_level(v_user_id, v_node);
    return jsonb_build_object(
        'user', case
            when v_level is null then jsonb_build_object('id', v_user_id)
            else private.public_facts(v_user_id)
        end,
        'node_id', v_node.id,
        'level', v_level,
        'chain', (
            select coalesce(jsonb_agg(w.way order by private.level_rank(w.way ->> 'level') desc, w.depth desc), '[]')
            from (
                select jsonb_build_object('via', 'owner', 'level', 'owner') as way, 0 as depth
                where v_user_id = v_node.owner_id
                union all
                select jsonb_build_object(
                    'via', 'workspace', 'level', m.level, 'workspace', private.visible_name(w.root_id)
                        || jsonb_build_object('id', w.id)
                ), 0
                from public.workspace_members as m
                inner join public.workspaces as w on w.id = m.workspace_id
                where w.id = v_node.owner_id and private.is_person(m.user_id, m.email, v_user_id, v_email)
                union all
                select jsonb_build_object(
                    'via', 'share', 'level', s.level, 'share_id', s.id, 'expires_at', s.expires_at,
                    'node', private.visible_name(s.node_id), 'is_inherited', s.node_id <> v_node.id,
                    'grantee', private.grantee_json(s), 'shared_by', private.public_facts(s.granted_by)
                ), array_position(v_node.path, s.node_id)
                from private.shares_of(v_user_id) as s
                where s.node_id = any(v_node.path)
            ) as w
            where v_level is not null -- a closed account has no access, whatever names it
        )
    );
end;
$$;
comment on function private.why_access(uuid, uuid) is 'Behind public.why_access.';
grant execute on function private.why_access(uuid, uuid) to anon, authenticated;

create function public.why_access("user" uuid, node uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.why_access("user", node); $$;
comment on function public.why_access(uuid, uuid) is
'Why somebody has access to a file or folder: {user, node_id, level, chain}; about others it needs level manage.

chain has every way, the strongest first: {via: owner}, {via: workspace, workspace} or {via: share, share_id, node,
is_inherited, grantee, expires_at, shared_by}, each with its level; a share with a group names the group. It is empty,
and level null, for those without access. Links are not listed: whoever holds one is nobody in particular. Raises
NOT_FOUND, FORBIDDEN.';
grant execute on function public.why_access(uuid, uuid) to anon, authenticated;

create function private.shares_something(user_id uuid, other_id uuid) returns boolean
language sql stable
security definer -- compares what two people may see
set search_path = ''
as $$
    with owned as (
        select u.id as user_id, u.id as owner_id
        from unnest(array[shares_something.user_id, shares_something.other_id]) as u (id)
        union all
        select u.id, m.workspace_id
        from unnest(array[shares_something.user_id, shares_something.other_id]) as u (id)
        inner join public.workspace_members as m on m.user_id = u.id
        union all
        select u.id, m.workspace_id
        from unnest(array[shares_something.user_id, shares_something.other_id]) as u (id)
        inner join public.workspace_members as m on m.user_id is null and m.email = private.email_of(u.id)
    ), opened as (
        select u.id as user_id, n.id as node_id, n.owner_id, n.path
        from unnest(array[shares_something.user_id, shares_something.other_id]) as u (id)
        cross join lateral private.shares_of(u.id) as s
        inner join public.nodes as n on n.id = s.node_id and n.purged_at is null
    )
    select shares_something.user_id = shares_something.other_id
        or private.group_ids_of(shares_something.user_id) && private.group_ids_of(shares_something.other_id)
        or exists (
            select 1 from owned as a inner join owned as b on b.owner_id = a.owner_id
            where a.user_id = shares_something.user_id and b.user_id = shares_something.other_id
        )
        or exists (
            select 1 from owned as a inner join opened as b on b.owner_id = a.owner_id
            where a.user_id <> b.user_id
        )
        or exists (
            select 1 from opened as a inner join opened as b on a.node_id = any(b.path) or b.node_id = any(a.path)
            where a.user_id = shares_something.user_id and b.user_id = shares_something.other_id
        );
$$;
comment on function private.shares_something(uuid, uuid) is
'Whether two people meet anywhere: in a group or workspace, or in what one of them or a third shares with the other.';

create function private.people(ids uuid[]) returns jsonb
language plpgsql stable
security definer -- shows the public facts of other people
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_user();
begin
    if ids is null or cardinality(ids) > 200 then
        perform private.raise_invalid('ids', 'Ask for at most 200 people at once.');
    end if;
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(private.public_facts(p.id) order by p.full_name, p.id), '[]')
            from public.user_profiles as p
            where p.id = any(ids) and private.shares_something(v_user_id, p.id)
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.people(uuid[]) is 'Behind public.people.';
grant execute on function private.people(uuid[]) to anon, authenticated;

create function public.people(ids uuid[]) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.people(ids); $$;
comment on function public.people(uuid[]) is
'Who is behind these ids: {items: [{id, full_name, avatar_url}], next_cursor}.

Only of people with whom you share something (a group, a workspace, a file or folder); the others are left out, as if
there were nobody. At most 200 ids. Raises INVALID_ARGUMENT (field ids).';
grant execute on function public.people(uuid[]) to anon, authenticated;
