-- Live: what clients hear through Realtime, on private channels, as ids, states and numbers. Names and text stay where
-- row security guards them: who may listen is asked when a channel is joined and when the token is renewed, not for
-- each message, so somebody who lost access may hear ids until then.
--
-- node:<id>  created, renamed, moved, trashed, restored, purged, status, version, comment: of the node and of what is
--            directly in it. {nodes: [{node_id, kind, status | version_id}], count}, at most 100 nodes in one message;
--            when count is larger, or a message was missed, list the folder again.
-- file:<id>  ingest: {job_id, version_id, stage, space_id, state, progress, pages_done, pages_total, error_code}.
-- user:<id>  what is in nobody's folder (the events of node:<id> for the own root), notification, shared,
--            share_changed, unshared, quota.
--
-- Realtime may be absent, or come later: nothing here names its schema but in text that is run when it is there.

create function private.is_live() returns boolean
language sql stable
security invoker
set search_path = ''
as $$ select to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null; $$;
comment on function private.is_live() is 'Whether this database has Realtime.';

create function private.broadcast(topic text, event text, payload jsonb) returns void
language plpgsql volatile
security definer -- writes to Realtime's table, whoever caused it
set search_path = ''
as $$
begin
    if not private.is_live() then
        return;
    end if;
    begin
        -- in the transaction of the write: what is rolled back is never heard
        execute 'select realtime.send($1, $2, $3, true)' using payload, event, topic;
    exception when others then
        -- realtime.send keeps its own errors to itself; whatever else, nobody's write fails for want of listeners
        raise log 'broadcast to % failed: % (%)', topic, sqlerrm, sqlstate;
    end;
end;
$$;
comment on function private.broadcast(text, text, jsonb) is
'Sends one message to a private channel when the transaction commits. Does nothing without Realtime, and never fails.';

-- Nodes ----------------------------------------------------------------------------------------

create function private.tg_nodes__broadcast() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_events text;
    v_message record;
begin
    if not private.is_live() then
        return null;
    end if;
    v_events := case tg_op
        when 'INSERT' then $query$
            select 'created' as event, n.id, n.kind, n.status, null::uuid as version_id, n.parent_id,
                n.parent_id as old_parent_id, n.owner_id, n.owner_id as old_owner_id, true as is_nested
            from made as n
        $query$
        when 'UPDATE' then $query$
            select e.event, n.id, n.kind, case e.event when 'version' then null else n.status end as status,
                case e.event when 'version' then n.head_version_id end as version_id, n.parent_id,
                o.parent_id as old_parent_id, n.owner_id, o.owner_id as old_owner_id,
                e.event in ('purged', 'trashed', 'restored') as is_nested
            from gone as o
            inner join made as n on n.id = o.id
            cross join lateral (values
                (case
                    when o.trashed_at is null and n.purged_at is not null then 'purged'
                    when o.trashed_at is null and n.trashed_at is not null then 'trashed'
                    when o.trashed_at is not null and n.trashed_at is null then 'restored'
                    when n.trashed_at is not null then null -- nobody listens there
                    when o.parent_id is distinct from n.parent_id then 'moved'
                    when o.name <> n.name then 'renamed'
                end),
                (case when o.status <> n.status then 'status' end),
                (case when o.head_version_id is distinct from n.head_version_id then 'version' end)
            ) as e (event)
            where e.event in ('purged', 'trashed', 'restored', 'moved', 'renamed')
                -- what was made in this transaction nobody has seen yet, and a copy may be of thousands of files
                or e.event in ('status', 'version') and n.created_at < now() and num_nulls(o.trashed_at, n.trashed_at) = 2
        $query$
        when 'DELETE' then $query$
            select 'purged' as event, o.id, o.kind, o.status, null::uuid as version_id, o.parent_id,
                o.parent_id as old_parent_id, o.owner_id, o.owner_id as old_owner_id, true as is_nested
            from gone as o
            where o.trashed_at is null
        $query$
    end;
    -- planned each time, since one row and 10^5 rows need different joins and a kept plan knows only the first
    for v_message in execute format(
        $query$
        with events as materialized (
            %s
        ), roots as (
            select e.*
            from events as e
            left join events as p on p.id = e.parent_id and p.event = e.event and e.is_nested
            where p.id is null
        ), told as (
            select t.topic, t.is_own, r.*, row_number() over (partition by t.topic, r.event order by r.id) as no
            from roots as r
            cross join lateral (
                select 'node:' || r.id as topic, true as is_own where r.event <> 'created'
                union
                select coalesce('node:' || r.parent_id, 'user:' || r.owner_id), false
                union
                select coalesce('node:' || r.old_parent_id, 'user:' || r.old_owner_id), false
            ) as t
        )
        select
            t.topic, t.event,
            jsonb_build_object(
                'nodes', jsonb_agg(
                    jsonb_strip_nulls(jsonb_build_object(
                        'node_id', t.id, 'kind', t.kind, 'status', t.status, 'version_id', t.version_id
                    ))
                    order by t.no
                ) filter (where t.no <= 100),
                'count', count(*)
            ) as payload
        from told as t
        group by t.topic, t.event, t.is_own
        order by t.is_own, t.topic, t.event -- folders first: they are listed
        limit 200
        $query$,
        v_events
    ) loop
        perform private.broadcast(v_message.topic, v_message.event, v_message.payload);
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_nodes__broadcast() is
'Tells who listens to a node or its folder. One statement sends at most 200 messages, whatever it changes: what is below
a node that comes or goes is not told, and many nodes of one folder share a message.';

create trigger _950_broadcast_insert
after insert on public.nodes
referencing new table as made
for each statement execute function private.tg_nodes__broadcast();

create trigger _950_broadcast_update
after update on public.nodes
referencing old table as gone new table as made
for each statement execute function private.tg_nodes__broadcast();

create trigger _950_broadcast_delete
after delete on public.nodes
referencing old table as gone
for each statement execute function private.tg_nodes__broadcast();

create function private.tg_comments__broadcast() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
begin
    perform private.broadcast(
        'node:' || n.id, 'comment',
        jsonb_build_object(
            'nodes', jsonb_build_array(jsonb_build_object('node_id', n.id, 'kind', n.kind)), 'count', 1,
            'comment_id', coalesce(new.id, old.id)
        )
    )
    from public.nodes as n
    where private.is_live() and n.id = coalesce(new.node_id, old.node_id) and n.trashed_at is null;
    return null; -- after trigger
end;
$$;
comment on function private.tg_comments__broadcast() is 'Tells who listens to a node that its comments changed.';

create trigger _950_broadcast
after insert or update or delete on public.comments
for each row execute function private.tg_comments__broadcast();

-- Ingestion ------------------------------------------------------------------------------------

create function private.tg_ingest_jobs__broadcast() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_message record;
begin
    if not private.is_live() then
        return null;
    end if;
    -- planned each time, as for nodes; a lease that is only renewed is not told
    for v_message in execute format(
        $query$
        select
            'file:' || n.file_id as topic,
            jsonb_build_object(
                'job_id', n.id, 'version_id', n.version_id, 'stage', n.stage, 'space_id', n.space_id, 'state', n.state,
                'progress', n.progress, 'pages_done', n.pages_done, 'pages_total', n.pages_total,
                'error_code', n.error_code
            ) as payload
        from made as n
        inner join public.nodes as f on f.id = n.file_id and f.trashed_at is null and f.created_at < now()
        %s
        order by n.id
        limit 200
        $query$,
        case tg_op when 'UPDATE' then $query$
            inner join gone as o on o.id = n.id
            where (o.state, o.progress, o.pages_done, o.pages_total, o.error_code)
                is distinct from (n.state, n.progress, n.pages_done, n.pages_total, n.error_code)
        $query$ else '' end
    ) loop
        perform private.broadcast(v_message.topic, 'ingest', v_message.payload);
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_ingest_jobs__broadcast() is
'Tells who listens to a file where its ingestion is: at each change of state, and of progress at each heartbeat.';

create trigger _950_broadcast_insert
after insert on public.ingest_jobs
referencing new table as made
for each statement execute function private.tg_ingest_jobs__broadcast();

create trigger _950_broadcast_update
after update on public.ingest_jobs
referencing old table as gone new table as made
for each statement execute function private.tg_ingest_jobs__broadcast();

-- People ---------------------------------------------------------------------------------------

create function private.tg_notifications__broadcast() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
begin
    perform private.broadcast(
        'user:' || new.user_id, 'notification',
        jsonb_build_object('notification_id', new.id, 'kind', new.kind, 'node_id', new.node_id)
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg_notifications__broadcast() is
'Shows a notification at once to whoever wants them on the desktop.';

create trigger _950_broadcast
after insert on public.notifications
for each row when ('desktop' = any(new.channels))
execute function private.tg_notifications__broadcast();

create function private.tg_shares__broadcast() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_share public.shares := coalesce(new, old);
begin
    if not private.is_live() or not exists (
        select 1 from public.nodes as n where n.id = v_share.node_id and n.trashed_at is null
    ) then
        return null;
    end if;
    perform private.broadcast(
        'user:' || p.id,
        case tg_op when 'INSERT' then 'shared' when 'UPDATE' then 'share_changed' else 'unshared' end,
        jsonb_build_object('share_id', v_share.id, 'node_id', v_share.node_id, 'level', v_share.level)
    )
    from unnest(
        private.users_named(v_share.grantee_id, v_share.grantee_email, v_share.group_id)
    ) as p (id);
    return null; -- after trigger
end;
$$;
comment on function private.tg_shares__broadcast() is 'Tells those whom a share names that it came, changed or went.';

create trigger _950_broadcast
after insert or update of level, expires_at or delete on public.shares
for each row execute function private.tg_shares__broadcast();

create function private.tg_owners__broadcast() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_told text := coalesce(current_setting('narwhal.quota_told', true), '');
begin
    -- once a transaction, which may charge thousands of times; the numbers are read when it has ended
    if strpos(v_told, new.id::text) = 0 and private.is_live() then
        perform set_config('narwhal.quota_told', v_told || new.id, true);
        perform private.broadcast('user:' || new.id, 'quota', jsonb_build_object('owner_id', new.id));
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_owners__broadcast() is
'Tells a user that their quota changed: what is used, reserved or allowed.';

create trigger _950_broadcast
after update of storage_used, storage_reserved, storage_limit on public.owners
for each row when (
    new.kind = 'user'
    and (old.storage_used, old.storage_reserved, old.storage_limit)
    is distinct from (new.storage_used, new.storage_reserved, new.storage_limit)
)
execute function private.tg_owners__broadcast();

-- Who may listen -------------------------------------------------------------------------------

create function private.can_watch(topic text) returns boolean
language plpgsql stable
security definer -- policies on realtime.messages run as the caller
set search_path = ''
as $$
declare
    v_id uuid := substring(topic from
        '^(?:node|file|user):([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})$');
begin
    if v_id is null or not private.is_active() then
        return false;
    elsif topic like 'user:%' then
        return v_id = auth.uid();
    end if;
    return exists (
        select 1
        from public.nodes as n
        where n.id = v_id
            and (n.kind = 'file' or topic like 'node:%')
            and private.is_readable(
                n.owner_id, n.path, n.trashed_at, private.my_owner_ids(), private.granted_roots()
            )
    );
end;
$$;
comment on function private.can_watch(text) is
'May the caller listen to this channel? node:<id> and file:<id>: of what they can read; user:<id>: their own.';
grant execute on function private.can_watch(text) to authenticated;

create function private.create_live_policies() returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_policy record;
    v_count integer := 0;
begin
    if to_regclass('realtime.messages') is null then
        return 0;
    end if;
    for v_policy in
        select p.name, p.definition
        from (values
            (
                'narwhal_watchers_can_select',
                $policy$
                for select to authenticated
                using (
                    extension in ('broadcast', 'presence')
                    and topic = (select realtime.topic())
                    and (select private.can_watch((select realtime.topic())))
                )
                $policy$
            ),
            (
                -- presence is the clients' to say; events are sent by the triggers alone
                'narwhal_watchers_can_insert',
                $policy$
                for insert to authenticated
                with check (
                    extension = 'presence'
                    and topic = (select realtime.topic())
                    and topic ~ '^(node|file):'
                    and (select private.can_watch((select realtime.topic())))
                )
                $policy$
            ),
            (
                'narwhal_inactive_cannot',
                $policy$
                as restrictive
                for all to authenticated
                using ((select private.is_active()))
                $policy$
            )
        ) as p (name, definition)
        where not exists (
            select 1
            from pg_catalog.pg_policies as e
            where e.schemaname = 'realtime' and e.tablename = 'messages' and e.policyname = p.name
        )
    loop
        execute format('create policy %I on realtime.messages %s', v_policy.name, v_policy.definition);
        v_count := v_count + 1;
    end loop;
    return v_count;
end;
$$;
comment on function private.create_live_policies() is
'Creates those of our policies on realtime.messages that are missing; how many. Call it, as the role of the migrations,
when a project gets Realtime after them. Locks that table until the transaction ends.';

-- last, and not for long: it locks a table that Realtime is using
set local lock_timeout = '5s';

select private.create_live_policies();
