-- Notifications: what others did that concerns somebody, as rows that only that person sees.
--
-- They hold ids and states, never names or text: whoever may no longer read a node learns nothing more of it.

insert into private.settings (key, value, description) values
('notifications.keep_days', '90', 'Notifications are deleted after this many days, read or not.');

create table public.notifications (
    id uuid primary key default gen_random_uuid(),
    user_id uuid not null references public.user_profiles on delete cascade,
    kind text not null check (kind = any(private.notification_kinds())),
    node_id uuid references public.nodes on delete cascade,
    actor_id uuid references auth.users on delete set null,
    data jsonb not null default '{}',
    channels text[] not null default '{}',
    created_at timestamptz not null default now(),
    read_at timestamptz
);
comment on table public.notifications is
'What others did that concerns somebody. Everyone sees and deletes only their own, and calls mark_notifications_read.';
comment on column public.notifications.node_id is 'What it is about; the row stays when that is no longer readable.';
comment on column public.notifications.actor_id is 'Who did it; null when unknown, or their account is deleted.';
comment on column public.notifications.data is 'Ids and states that belong to the kind, such as share_id and level.';
comment on column public.notifications.channels is
'Where else its user wants to hear of it: of email, push, desktop, those that their preferences do not turn off.';
create index notifications_user_id_idx on public.notifications (user_id, created_at, id);
create index notifications_unread_idx on public.notifications (user_id, id) where read_at is null;
create index notifications_node_id_idx on public.notifications (node_id);
create index notifications_actor_id_idx on public.notifications (actor_id);
create index notifications_created_at_idx on public.notifications (created_at);

alter table public.notifications enable row level security;

create policy users_can_select on public.notifications
for select to authenticated
using (user_id = (select auth.uid()) and (select private.is_active()));

create policy users_can_delete on public.notifications
for delete to authenticated
using (user_id = (select auth.uid()) and (select private.is_active()));

grant select, delete on public.notifications to authenticated;
grant select on public.notifications to service_role;

-- Whom to tell ---------------------------------------------------------------------------------

create function private.readers_among(user_ids uuid[], node public.nodes) returns uuid[]
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(array_agg(distinct u.id), '{}')
    from unnest(readers_among.user_ids) as u (id)
    where u.id is not null
        and (readers_among.node).trashed_at is null
        and private.user_level(u.id, readers_among.node) is not null;
$$;
comment on function private.readers_among(uuid[], public.nodes) is 'Those of some people who can read a node.';

create function private.responsible_for(node public.nodes) returns uuid
language sql stable
security invoker
set search_path = ''
as $$
    select case o.kind when 'user' then o.id else (responsible_for.node).created_by end
    from public.owners as o
    where o.id = (responsible_for.node).owner_id;
$$;
comment on function private.responsible_for(public.nodes) is
'Who hears of what happens to a node: its owner; in a workspace, who made it.';

create function private.notify(user_ids uuid[], kind text, actor_id uuid, node_id uuid, data jsonb) returns uuid[]
language sql volatile
security invoker
set search_path = ''
as $$
    with people as (
        select p.id, p.preferences -> 'notifications' as wishes
        from public.user_profiles as p
        where p.id = any(notify.user_ids)
            and p.id is distinct from notify.actor_id -- nobody is told what they did themselves
        order by p.id
        -- an account that is being deleted needs none, and waiting for it could deadlock
        for key share skip locked
    ),

    made as (
        insert into public.notifications (user_id, kind, node_id, actor_id, data, channels)
        select
            p.id, notify.kind, notify.node_id, notify.actor_id, notify.data,
            array(
                select c.channel
                from unnest(array['email', 'push', 'desktop']) with ordinality as c (channel, position)
                where p.wishes -> c.channel is distinct from 'false'
                order by c.position
            )
        from people as p
        where not coalesce(p.wishes -> 'muted' ? notify.kind, false)
        returning user_id
    )

    select coalesce(array_agg(m.user_id), '{}') from made as m;
$$;
comment on function private.notify(uuid[], text, uuid, uuid, jsonb) is
'Notifies people of what somebody (null: nobody in particular) did, as far as their preferences go; who got a row.';

-- Shares, groups, workspaces -------------------------------------------------------------------

create function private.tg_shares__notify() returns trigger
language plpgsql volatile
security definer -- clients only read notifications
set search_path = ''
as $$
declare
    v_share public.shares := case when tg_op = 'DELETE' then old else new end;
    v_was_open boolean := tg_op <> 'INSERT' and coalesce(old.expires_at > now(), true);
    v_is_open boolean := tg_op <> 'DELETE' and coalesce(new.expires_at > now(), true);
    v_kind text := case
        when v_is_open and not v_was_open then 'share_given'
        when v_was_open and not v_is_open and tg_op = 'DELETE' then 'share_revoked'
        when v_was_open and v_is_open and new.level <> old.level then 'share_changed'
    end;
begin
    -- what goes with its node or group, or for a newer row of the same meaning, is nobody's decision about the share
    if v_kind is null
        or pg_trigger_depth() > 1
        or not exists (select 1 from public.nodes as n where n.id = v_share.node_id and n.purged_at is null)
        or (v_share.group_id is not null and not exists (
            select 1 from public.groups as g where g.id = v_share.group_id
        )) then
        return null; -- after trigger
    end if;
    perform private.notify(
        private.users_named(v_share.grantee_id, v_share.grantee_email, v_share.group_id),
        v_kind,
        coalesce(auth.uid(), case when tg_op = 'INSERT' then new.granted_by end),
        v_share.node_id,
        jsonb_strip_nulls(jsonb_build_object(
            'share_id', v_share.id, 'level', v_share.level, 'group_id', v_share.group_id
        ))
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg_shares__notify() is
'Tells people what was shared with them, up to another level, or no longer; members, when it is a group.';

create trigger _600_notify
after insert or update of level, expires_at or delete on public.shares
for each row execute function private.tg_shares__notify();

create function private.tg_group_members__notify() returns trigger
language plpgsql volatile
security definer -- clients only read notifications
set search_path = ''
as $$
declare
    v_member public.group_members := case when tg_op = 'DELETE' then old else new end;
begin
    -- as above
    if pg_trigger_depth() > 1 or not exists (select 1 from public.groups as g where g.id = v_member.group_id) then
        return null; -- after trigger
    end if;
    perform private.notify(
        private.users_named(v_member.user_id, v_member.email),
        case when tg_op = 'DELETE' then 'group_removed' else 'group_added' end,
        coalesce(auth.uid(), case when tg_op = 'INSERT' then new.added_by end),
        null,
        jsonb_build_object('group_id', v_member.group_id)
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg_group_members__notify() is
'Tells people that they are in a group, or no longer; not when the whole group goes.';

create trigger _600_notify
after insert or delete on public.group_members
for each row execute function private.tg_group_members__notify();

create function private.tg_workspace_members__notify() returns trigger
language plpgsql volatile
security definer -- clients only read notifications
set search_path = ''
as $$
declare
    v_member public.workspace_members := case when tg_op = 'DELETE' then old else new end;
    v_workspace public.workspaces;
begin
    select w.* into v_workspace from public.workspaces as w where w.id = v_member.workspace_id;
    -- as above
    if pg_trigger_depth() > 1 or v_workspace.id is null or (tg_op = 'UPDATE' and new.level = old.level) then
        return null; -- after trigger
    end if;
    perform private.notify(
        private.users_named(v_member.user_id, v_member.email),
        case tg_op
            when 'INSERT' then 'workspace_added'
            when 'UPDATE' then 'workspace_changed'
            else 'workspace_removed'
        end,
        coalesce(auth.uid(), case when tg_op = 'INSERT' then new.added_by end),
        v_workspace.root_id,
        jsonb_build_object('workspace_id', v_member.workspace_id, 'level', v_member.level)
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg_workspace_members__notify() is
'Tells people that they are in a workspace, up to another level, or no longer; not when the whole workspace goes.';

create trigger _600_notify
after insert or update of level or delete on public.workspace_members
for each row execute function private.tg_workspace_members__notify();

create function private.tg_users__notify_of_waiting() returns trigger
language plpgsql volatile
security definer -- Auth's own role confirms addresses
set search_path = ''
as $$
declare
    v_email text := lower(new.email);
begin
    perform private.notify(
        array[new.id], 'share_given', s.granted_by, s.node_id,
        jsonb_build_object('share_id', s.id, 'level', s.level)
    )
    from public.shares as s inner join public.nodes as n on n.id = s.node_id
    where s.grantee_id is null
        and s.grantee_email = v_email
        and coalesce(s.expires_at > now(), true)
        and n.trashed_at is null
    order by s.created_at;
    perform private.notify(
        array[new.id], 'group_added', m.added_by, null, jsonb_build_object('group_id', m.group_id)
    )
    from public.group_members as m
    where m.user_id is null and m.email = v_email
    order by m.created_at;
    perform private.notify(
        array[new.id], 'workspace_added', m.added_by, w.root_id,
        jsonb_build_object('workspace_id', m.workspace_id, 'level', m.level)
    )
    from public.workspace_members as m inner join public.workspaces as w on w.id = m.workspace_id
    where m.user_id is null and m.email = v_email
    order by m.created_at;
    return null; -- after trigger
end;
$$;
comment on function private.tg_users__notify_of_waiting() is
'Tells whoever confirms an address what was shared with it before.';

create trigger _600_notify_of_waiting
after insert on auth.users
for each row when (new.email_confirmed_at is not null)
execute function private.tg_users__notify_of_waiting();

create trigger _610_notify_of_waiting
after update of email, email_confirmed_at on auth.users
for each row when (
    new.email_confirmed_at is not null
    and (old.email_confirmed_at is null or lower(old.email) is distinct from lower(new.email))
)
execute function private.tg_users__notify_of_waiting();

-- Comments and versions ------------------------------------------------------------------------

create function private.notify_of_comment(comment public.comments, answered_id uuid, mentioned_ids uuid[])
returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_node public.nodes;
    v_data jsonb := jsonb_strip_nulls(jsonb_build_object(
        'comment_id', (comment).id, 'parent_id', (comment).parent_id
    ));
    v_told uuid[] := '{}';
    v_people uuid[];
    v_kind text;
begin
    select n.* into v_node from public.nodes as n where n.id = (comment).node_id;
    -- one row for each person, of the kind that concerns them most among those they have not muted
    foreach v_kind in array array['comment_mentioned', 'comment_replied', 'comment_added'] loop
        v_people := case v_kind
            when 'comment_mentioned' then mentioned_ids
            when 'comment_replied' then answered_id || array(
                select c.author_id from public.comments as c where c.id = (comment).parent_id
            )
            else array[private.responsible_for(v_node)]
        end;
        v_people := array(select unnest(private.readers_among(v_people, v_node)) except select unnest(v_told));
        v_told := v_told || private.notify(v_people, v_kind, (comment).author_id, v_node.id, v_data);
    end loop;
end;
$$;
comment on function private.notify_of_comment(public.comments, uuid, uuid[]) is
'Tells who is mentioned, who is answered and whose node it is of a comment, once each, as far as they can read it.';

create function private.tg_file_versions__notify() returns trigger
language plpgsql volatile
security definer -- runs for whoever uploads
set search_path = ''
as $$
declare
    v_node public.nodes;
begin
    select n.* into v_node from public.nodes as n where n.id = new.file_id;
    perform private.notify(
        private.readers_among(
            private.responsible_for(v_node) || array(
                select s.user_id from public.node_user_state as s
                where s.node_id = new.file_id and s.favourited_at is not null
            ), v_node
        ),
        'version_added',
        new.created_by,
        new.file_id,
        jsonb_build_object('version_id', new.id, 'no', new.no)
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg_file_versions__notify() is
'Tells whose file it is, and whose favourite, that somebody else gave it a new version.';

create trigger _600_notify
after insert on public.file_versions
for each row when (new.no > 1)
execute function private.tg_file_versions__notify();

-- Reading and forgetting -----------------------------------------------------------------------

create function private.mark_notifications_read(ids uuid[]) returns jsonb
language plpgsql volatile
security definer -- clients only read and delete notifications
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_actor();
    v_marked integer;
begin
    with unread as (
        select n.id
        from public.notifications as n
        where n.user_id = v_user_id
            and n.read_at is null
            and (mark_notifications_read.ids is null or n.id = any(mark_notifications_read.ids))
        -- others are marking or deleting those, and wait for ours in an order of their own
        for update skip locked
    )

    update public.notifications as n
    set read_at = now()
    from unread as u
    where n.id = u.id;
    get diagnostics v_marked = row_count;
    return jsonb_build_object('marked', v_marked, 'unread', (
        select count(*) from public.notifications as n where n.user_id = v_user_id and n.read_at is null
    ));
end;
$$;
comment on function private.mark_notifications_read(uuid[]) is 'Behind public.mark_notifications_read.';
grant execute on function private.mark_notifications_read(uuid[]) to anon, authenticated;

create function public.mark_notifications_read(ids uuid[] default null) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.mark_notifications_read(ids); $$;
comment on function public.mark_notifications_read(uuid[]) is
'Mark some of your notifications as read, or all of them: {marked, unread}, unread being what is left.

ids: null for all; those that are not yours are passed over. Any role may.';
grant execute on function public.mark_notifications_read(uuid[]) to anon, authenticated;

create function private.expire_notifications() returns integer
language plpgsql volatile
security definer -- called by workers and schedules for everybody
set search_path = ''
as $$
declare
    v_count integer;
begin
    delete from public.notifications as n
    where n.id in (
        select o.id
        from public.notifications as o
        where o.created_at < now() - make_interval(days => (private.setting('notifications.keep_days'))::integer)
        for update skip locked
    );
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;
comment on function private.expire_notifications() is
'Deletes notifications older than the setting notifications.keep_days; how many.';
grant execute on function private.expire_notifications() to narwhal_worker;
