-- Audit: who did what to what, from where. Triggers write it, so that no operation can forget to; nobody changes it.

create table public.audit_logs (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    actor_id uuid,
    actor text not null,
    on_behalf_of uuid,
    action text not null,
    node_id uuid,
    owner_id uuid,
    before jsonb,
    after jsonb,
    details jsonb not null default '{}',
    ip inet,
    user_agent text,
    request_id text
);
comment on table public.audit_logs is
'Every operation, one row for each node that it was called for, however much was below. Append-only: rows outlive what
they tell about, so nothing here is a foreign key.

Who reads it: everybody their own acts (actor or on_behalf_of); those with level manage or owner on an owner everything
about its nodes, by whomever and from where; the permission view_analytics everything. So administrators see names, in
before and after, of nodes that they cannot open: an audit that hid them could not be searched. It never holds content,
passwords, tokens or hashes of either.';
comment on column public.audit_logs.actor is
'user:<id>, agent:<id>, link:<id> (an anonymous holder), anonymous, service (the service key, a schedule, the command
line) or worker.';
comment on column public.audit_logs.actor_id is 'The id in actor, if it has one.';
comment on column public.audit_logs.on_behalf_of is 'The user for whom an agent, the service or a worker acted.';
comment on column public.audit_logs.action is
'create_folder, create_file, copy, rename, set_metadata, move, transfer, trash, restore, purge; create_version,
restore_version, reject_version, purge_version; begin_upload, abort_upload, expire_upload, download; share,
change_share, unshare; create_link, open_link, refuse_link (a wrong password), change_link, revoke_link; and so on: list_audit takes it as a
filter.';
comment on column public.audit_logs.owner_id is
'The owner of the node when it happened; the user or workspace for what concerns them without a node.';
comment on column public.audit_logs.before is 'The changed columns as they were; null for what was made.';
comment on column public.audit_logs.after is 'The changed columns as they are; null for what was removed.';
comment on column public.audit_logs.details is
'What else identifies it: ids of the share, link, version or upload, kind and nodes (how many changed with it).';
comment on column public.audit_logs.request_id is 'x-request-id, else what hosted projects call the request.';
comment on column public.audit_logs.ip is 'First address of x-forwarded-for: as true as the gateway before the API.';
create index audit_logs_at_idx on public.audit_logs (at);
create index audit_logs_actor_id_idx on public.audit_logs (actor_id, id);
create index audit_logs_on_behalf_of_idx on public.audit_logs (on_behalf_of, id);
create index audit_logs_node_id_idx on public.audit_logs (node_id, id);
create index audit_logs_owner_id_idx on public.audit_logs (owner_id, id);
create index audit_logs_action_idx on public.audit_logs (action, id);

insert into private.settings (key, value, description) values
('audit.keep_days', 'null', 'Days before audit rows are deleted, at least 30; null keeps them for ever.');

-- Who reads it ---------------------------------------------------------------------------------

alter table public.audit_logs enable row level security;

create policy parties_can_select on public.audit_logs
for select to authenticated
using (
    (select private.is_active())
    and (
        actor_id = (select auth.uid())
        or on_behalf_of = (select auth.uid())
        or owner_id = any((select private.my_managed_owner_ids())::uuid[])
        or (select private.has_permission('view_analytics'))
    )
);

grant select on public.audit_logs to authenticated, service_role; -- nobody writes but the triggers below

-- Append-only ----------------------------------------------------------------------------------

create function private.audit_keep_from() returns timestamptz
language sql stable
security invoker
set search_path = ''
as $$
    -- the floor holds for whoever may change settings, too
    select now() - make_interval(days => greatest((private.setting('audit.keep_days'))::integer, 30))
    where jsonb_typeof(private.setting('audit.keep_days')) = 'number';
$$;
comment on function private.audit_keep_from() is 'Audit rows from then on are kept; null when all of them are.';

create function private.tg_audit_logs__refuse() returns trigger
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    perform private.raise_error('FORBIDDEN', 'The audit log is append-only.');
    return null;
end;
$$;
comment on function private.tg_audit_logs__refuse() is 'Refuses to change audit rows, whoever asks.';

create function private.tg_audit_logs__keep() returns trigger
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_keep_from timestamptz := private.audit_keep_from();
begin
    -- the setting only tells a mistake from maintenance; what it may delete is decided by the age of the rows
    if coalesce(current_setting('narwhal.prune_audit', true), '') <> 'on'
        or v_keep_from is null
        or exists (select 1 from gone as g where g.at >= v_keep_from) then
        perform private.raise_error(
            'FORBIDDEN', 'The audit log is append-only.', '{}',
            'private.prune_audit removes what audit.keep_days lets go.'
        );
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_audit_logs__keep() is
'Refuses to delete audit rows, whoever asks, but for private.prune_audit and rows older than audit.keep_days.';

create trigger _100_refuse_update
before update on public.audit_logs
for each statement execute function private.tg_audit_logs__refuse();

create trigger _100_refuse_truncate
before truncate on public.audit_logs
for each statement execute function private.tg_audit_logs__refuse();

create trigger _100_keep
after delete on public.audit_logs
referencing old table as gone
for each statement execute function private.tg_audit_logs__keep();

-- also in sessions that replay changes of another database
alter table public.audit_logs enable always trigger _100_refuse_update;
alter table public.audit_logs enable always trigger _100_refuse_truncate;
alter table public.audit_logs enable always trigger _100_keep;

create function private.prune_audit() returns integer
language plpgsql volatile
security definer -- the only way to delete audit rows; called by schedules
set search_path = ''
as $$
declare
    v_keep_from timestamptz := private.audit_keep_from();
    v_count integer;
begin
    if v_keep_from is null then
        return 0;
    end if;
    perform set_config('narwhal.prune_audit', 'on', true);
    delete from public.audit_logs as a where a.at < v_keep_from;
    get diagnostics v_count = row_count;
    perform set_config('narwhal.prune_audit', '', true);
    if v_count > 0 then
        perform private.write_audit(
            'prune_audit', null, null, null, jsonb_build_object('rows', v_count, 'before', v_keep_from)
        );
    end if;
    return v_count;
end;
$$;
comment on function private.prune_audit() is
'Deletes audit rows older than the setting audit.keep_days; how many. Says so in the audit log.';

-- Who is acting --------------------------------------------------------------------------------

create function private.request_header(name text, max_length integer) returns text
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    return left(nullif(current_setting('request.headers', true), '')::json ->> name, max_length);
exception when data_exception then
    return null; -- what a client sends in headers must not make its request fail here
end;
$$;
comment on function private.request_header(text, integer) is
'A header of the request, cut to a length; null when there is none, or no request.';

create function private.client_ip() returns inet
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_text text := btrim(split_part(private.request_header('x-forwarded-for', 1000), ',', 1));
begin
    v_text := coalesce(substring(v_text from '^\[([0-9A-Fa-f:.]+)\](?::\d+)?$'), v_text);
    v_text := coalesce(substring(v_text from '^(\d+\.\d+\.\d+\.\d+):\d+$'), v_text);
    if v_text ~ '^[0-9A-Fa-f:.]{2,45}$' and pg_input_is_valid(v_text, 'inet') then
        return v_text::inet;
    end if;
    return null;
end;
$$;
comment on function private.client_ip() is 'The first address of x-forwarded-for; null when it is none.';

create function private.audit_context(
    out actor_id uuid, out actor text, out on_behalf_of uuid, out ip inet, out user_agent text, out request_id text
) returns record
language plpgsql stable
security definer -- knows the caller's link, which callers cannot read
set search_path = ''
as $$
declare
    v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
    v_role text := coalesce(v_claims ->> 'role', 'none');
    -- RFC 8693: the token is the user's, `act` says who uses it
    v_agent text := substring(v_claims #>> '{act,sub}' from '^agent:([0-9a-f-]{36})$');
begin
    if v_role in ('service_role', 'none') then
        actor := case session_user when 'narwhal_worker' then 'worker' else 'service' end;
        on_behalf_of := auth.uid();
    elsif auth.uid() is null then
        actor_id := (private.my_link()).id;
        actor := coalesce('link:' || actor_id, 'anonymous');
    elsif pg_input_is_valid(v_agent, 'uuid') then
        actor_id := v_agent::uuid;
        actor := 'agent:' || actor_id;
        on_behalf_of := auth.uid();
    else
        actor_id := auth.uid();
        actor := 'user:' || actor_id;
    end if;
    ip := private.client_ip();
    user_agent := private.request_header('user-agent', 500);
    request_id := coalesce(
        private.request_header('x-request-id', 200),
        private.request_header('sb-request-id', 200), -- what hosted projects add
        private.request_header('cf-ray', 200)
    );
end;
$$;
comment on function private.audit_context() is
'Who is acting, for whom and from where, by the token and the headers of the request.';

create function private.insert_audit(
    action text, node_id uuid, owner_id uuid, before jsonb, after jsonb, details jsonb,
    on_behalf_of uuid default null, link_id uuid default null
) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into public.audit_logs (
        actor_id, actor, on_behalf_of, action, node_id, owner_id, before, after, details, ip, user_agent, request_id
    )
    select
        case c.actor when 'anonymous' then insert_audit.link_id else c.actor_id end,
        case c.actor when 'anonymous' then coalesce('link:' || insert_audit.link_id, c.actor) else c.actor end,
        coalesce(
            c.on_behalf_of, case when c.actor in ('service', 'worker') then insert_audit.on_behalf_of end
        ),
        insert_audit.action, insert_audit.node_id, insert_audit.owner_id,
        nullif(insert_audit.before, '{}'), nullif(insert_audit.after, '{}'), insert_audit.details,
        c.ip, c.user_agent, c.request_id
    from private.audit_context() as c;
$$;
comment on function private.insert_audit(text, uuid, uuid, jsonb, jsonb, jsonb, uuid, uuid) is
'Writes one audit row. on_behalf_of: for whom, when the service or a worker acts; link_id: the link that an anonymous
caller opens.';

create function private.write_audit(
    action text, node_id uuid, before jsonb, after jsonb, details jsonb default '{}'
) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    select private.insert_audit(
        write_audit.action,
        write_audit.node_id,
        (select n.owner_id from public.nodes as n where n.id = write_audit.node_id),
        write_audit.before,
        write_audit.after,
        write_audit.details
    );
$$;
comment on function private.write_audit(text, uuid, jsonb, jsonb, jsonb) is
'Writes an audit row for what leaves no trace in a table that is watched below, such as a download.';

-- Nodes: one row for each root of an operation --------------------------------------------------

create function private.differing(one jsonb, other jsonb) returns jsonb
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(e.key, e.value), '{}')
    from jsonb_each(one) as e
    where other -> e.key is distinct from e.value;
$$;
comment on function private.differing(jsonb, jsonb) is 'The keys of one object whose values the other has not.';

create function private.differing_keys(before jsonb, after jsonb) returns jsonb
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(jsonb_agg(distinct k.key), '[]')
    from (select jsonb_object_keys(before) union select jsonb_object_keys(after)) as k (key)
    where before -> k.key is distinct from after -> k.key;
$$;
comment on function private.differing_keys(jsonb, jsonb) is 'The keys whose values two objects do not share.';

create function private.tg_nodes__audit() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_context record;
    v_acts text;
begin
    -- what ingestion does, one node at a time, is most of what happens to nodes
    if tg_op = 'UPDATE' then
        if (select count(*) from (select from made limit 2) as m) = 1 and not exists (
            select 1
            from gone as o cross join made as n
            where (o.name, o.parent_id, o.owner_id, o.trashed_at, o.purged_at, o.metadata, o.source)
                is distinct from (n.name, n.parent_id, n.owner_id, n.trashed_at, n.purged_at, n.metadata, n.source)
        ) then
            return null;
        end if;
    end if;
    v_context := private.audit_context();
    v_acts := case tg_op
        when 'INSERT' then $query$
            select
                'create' as act, n.id, n.parent_id, n.kind, n.owner_id, n.created_by,
                null as old_name, null::uuid as old_parent_id, null::uuid as old_owner_id, n.name, true as is_nested,
                null as old_source, n.source, null::jsonb as keys
            from made as n
        $query$
        when 'UPDATE' then $query$
            select
                a.act, n.id, n.parent_id, n.kind,
                -- who has it now reads of the transfer, who had it of the move
                case a.act when 'transfer' then n.owner_id else o.owner_id end as owner_id,
                null::uuid as created_by,
                o.name as old_name, o.parent_id as old_parent_id, o.owner_id as old_owner_id, n.name,
                a.act not in ('move', 'rename', 'set_metadata') as is_nested, o.source as old_source, n.source,
                case when a.act = 'set_metadata' then private.differing_keys(o.metadata, n.metadata) end as keys
            from gone as o
            inner join made as n on n.id = o.id
            cross join lateral (values
                (case
                    when o.purged_at is null and n.purged_at is not null then 'purge'
                    when o.trashed_at is null and n.trashed_at is not null then 'trash'
                    when o.trashed_at is not null and n.trashed_at is null then 'restore'
                    when o.parent_id is distinct from n.parent_id then 'move'
                    when o.name <> n.name then 'rename'
                end),
                (case when o.owner_id <> n.owner_id then 'transfer' end),
                (case when (o.metadata, o.source) is distinct from (n.metadata, n.source) then 'set_metadata' end)
            ) as a (act)
            where a.act is not null
        $query$
        when 'DELETE' then $query$
            select
                'purge' as act, o.id, o.parent_id, o.kind, o.owner_id, null::uuid as created_by,
                o.name as old_name, o.parent_id as old_parent_id, o.owner_id as old_owner_id, o.name, true as is_nested,
                o.source as old_source, null as source, null::jsonb as keys
            from gone as o
            -- those were purged before; a file that only waited for its bytes was never there
            where o.purged_at is null and o.status <> 'uploading'
        $query$
    end;
    -- planned each time, since one row and 10^5 rows need different joins and a kept plan knows only the first
    execute format(
        $query$
        with acts as materialized (
            %s
        ), roots as (
            select a.*, count(*) over (partition by a.act) as nodes
            from acts as a
        )
        insert into public.audit_logs (
            actor_id, actor, on_behalf_of, ip, user_agent, request_id, action, node_id, owner_id, before, after, details
        )
        select
            $1, $2, coalesce($3, case when $2 in ('service', 'worker') then r.created_by end), $4, $5, $6,
            case r.act when 'create' then 'create_' || r.kind else r.act end, r.id, r.owner_id,
            case
                when r.act = 'transfer' then jsonb_build_object('owner_id', r.old_owner_id)
                when r.act in ('move', 'rename') then private.differing(v.before, v.after)
                when r.act = 'set_metadata' then private.differing(v.source_before, v.source_after)
                when r.act in ('trash', 'purge') then v.before
            end,
            case
                when r.act = 'transfer' then jsonb_build_object('owner_id', r.owner_id)
                when r.act in ('move', 'rename') then private.differing(v.after, v.before)
                when r.act = 'set_metadata' then private.differing(v.source_after, v.source_before)
                when r.act not in ('trash', 'purge') then v.after
            end,
            jsonb_build_object('kind', r.kind)
            || case when r.is_nested and r.nodes > 1 then jsonb_build_object('nodes', r.nodes) else '{}' end
            || case when r.act = 'set_metadata' then jsonb_build_object('keys', r.keys) else '{}' end
        from roots as r
        left join acts as p on p.id = r.parent_id and p.act = r.act and r.is_nested
        cross join lateral (
            select
                jsonb_build_object('name', r.old_name, 'parent_id', r.old_parent_id) as before,
                jsonb_build_object('name', r.name, 'parent_id', r.parent_id) as after,
                jsonb_build_object('source', r.old_source) as source_before,
                jsonb_build_object('source', r.source) as source_after
        ) as v
        where p.id is null
        order by r.id
        $query$,
        v_acts
    ) using
        v_context.actor_id, v_context.actor, v_context.on_behalf_of,
        v_context.ip, v_context.user_agent, v_context.request_id;
    return null; -- after trigger
end;
$$;
comment on function private.tg_nodes__audit() is
'Records what happens to nodes, one row for each node that is not below another one of the same statement.';

create trigger _900_audit_insert
after insert on public.nodes
referencing new table as made
for each statement execute function private.tg_nodes__audit();

create trigger _900_audit_update
after update on public.nodes
referencing old table as gone new table as made
for each statement execute function private.tg_nodes__audit();

create trigger _900_audit_delete
after delete on public.nodes
referencing old table as gone
for each statement execute function private.tg_nodes__audit();

-- Versions -------------------------------------------------------------------------------------

create function private.tg_file_versions__audit() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
begin
    if tg_op = 'INSERT' then
        perform private.insert_audit(
            case when e.id is null then 'create_version' else 'restore_version' end,
            n.id, n.owner_id, null,
            jsonb_build_object('no', v.no, 'size', v.size),
            jsonb_build_object('version_id', v.id)
            || case when e.id is null then '{}' else jsonb_build_object('source_version_id', e.id) end,
            v.created_by
        )
        from made as v
        inner join public.nodes as n on n.id = v.file_id
        left join lateral (
            select s.id
            from public.file_versions as s
            where s.file_id = v.file_id and s.no < v.no and s.blob_id = v.blob_id
            order by s.no desc
            limit 1
        ) as e on true
        where v.no > 1 or n.status = 'uploading'; -- the first version of a copy comes with its file
    elsif tg_op = 'UPDATE' then
        perform private.insert_audit(
            'reject_version', n.id, n.owner_id,
            jsonb_build_object('status', old.status), jsonb_build_object('status', new.status),
            jsonb_build_object('version_id', new.id, 'error_code', new.error_code)
        )
        from public.nodes as n
        where n.id = new.file_id;
    else
        -- a version that goes with its file is told by the file
        perform private.insert_audit(
            'purge_version', n.id, n.owner_id, jsonb_build_object('no', v.no, 'size', v.size), null,
            jsonb_build_object('version_id', v.id)
        )
        from gone as v
        inner join public.nodes as n on n.id = v.file_id and n.purged_at is null;
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_file_versions__audit() is
'Records new, restored (with the bytes of an earlier one), rejected and purged versions. Their ingestion is told by
ingest_jobs.';

create trigger _900_audit_insert
after insert on public.file_versions
referencing new table as made
for each statement execute function private.tg_file_versions__audit();

create trigger _900_audit_reject
after update of status on public.file_versions
for each row when (old.status <> 'rejected' and new.status = 'rejected')
execute function private.tg_file_versions__audit();

create trigger _900_audit_delete
after delete on public.file_versions
referencing old table as gone
for each statement execute function private.tg_file_versions__audit();

-- Everything else: few rows at a time ------------------------------------------------------------

create function private.tg__audit() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
declare
    v_action text := tg_argv[0];
    v_before jsonb := to_jsonb(old);
    v_after jsonb := to_jsonb(new);
    v_row jsonb := coalesce(v_after, v_before);
    v_columns text[] := string_to_array(tg_argv[1], ' ');
    v_link_id uuid := case tg_table_name when 'share_links' then v_row ->> 'id' else v_row ->> 'link_id' end;
    v_node_id uuid := coalesce(v_row ->> 'node_id', v_row ->> 'file_id');
    v_node public.nodes;
begin
    if v_node_id is null and v_link_id is not null then
        select l.node_id into v_node_id from public.share_links as l where l.id = v_link_id;
    end if;
    if v_node_id is not null then
        select n.* into v_node from public.nodes as n where n.id = v_node_id;
        -- what goes with its node, or with the trip of its node to the trash, is told by the node
        if (tg_op = 'DELETE' and (v_node.id is null or v_node.purged_at is not null))
            or (tg_table_name = 'uploads' and v_node.trashed_at is not null) then
            return null;
        end if;
    end if;
    if tg_op = 'DELETE' and (
        not exists (select 1 from public.groups as g where g.id = (v_row ->> 'group_id')::uuid)
            and tg_table_name = 'group_members'
        or not exists (select 1 from public.workspaces as w where w.id = (v_row ->> 'workspace_id')::uuid)
            and tg_table_name = 'workspace_members'
    ) then
        return null; -- likewise by the group or workspace
    end if;
    perform private.insert_audit(
        v_action,
        v_node.id,
        coalesce(
            v_node.owner_id,
            (v_row ->> 'owner_id')::uuid,
            (v_row ->> 'workspace_id')::uuid,
            case when tg_table_name in ('owners', 'workspaces', 'user_profiles') then (v_row ->> 'id')::uuid end
        ),
        (
            select jsonb_object_agg(c.name, v_before -> c.name)
            from unnest(v_columns) as c (name)
            where v_before -> c.name is distinct from coalesce(v_after -> c.name, 'null')
        ),
        (
            select jsonb_object_agg(c.name, v_after -> c.name)
            from unnest(v_columns) as c (name)
            where v_after -> c.name is distinct from coalesce(v_before -> c.name, 'null')
        ),
        coalesce((
            select jsonb_object_agg(tg_argv[i.no], v_row -> tg_argv[i.no + 1])
            from generate_series(2, tg_nargs - 2, 2) as i (no)
        ), '{}'),
        (v_row ->> 'created_by')::uuid,
        v_link_id
    );
    return null; -- after trigger
end;
$$;
comment on function private.tg__audit() is
'Records one row of any table. Arguments: the action, the columns to tell (by spaces), and for details pairs of a key
and the column that it takes.';

create trigger _900_audit_insert
after insert on public.uploads
for each row execute function private.tg__audit('begin_upload', 'size mime', 'upload_id', 'id');

create trigger _900_audit_abort
after update of state on public.uploads
for each row when (old.state in ('open', 'uploading') and new.state = 'aborted')
execute function private.tg__audit('abort_upload', 'state', 'upload_id', 'id');

create trigger _900_audit_expire
after update of state on public.uploads
for each row when (old.state in ('open', 'uploading') and new.state in ('expired', 'refused'))
execute function private.tg__audit('expire_upload', 'state', 'upload_id', 'id');

create trigger _900_audit_insert
after insert on public.shares
for each row execute function private.tg__audit(
    'share', 'grantee_id grantee_email group_id level expires_at', 'share_id', 'id'
);

create trigger _900_audit_update
after update of level, expires_at on public.shares
for each row when ((old.level, old.expires_at) is distinct from (new.level, new.expires_at))
execute function private.tg__audit('change_share', 'level expires_at', 'share_id', 'id');

create trigger _900_audit_delete
after delete on public.shares
for each row execute function private.tg__audit(
    'unshare', 'grantee_id grantee_email group_id level expires_at', 'share_id', 'id'
);

create trigger _900_audit_insert
after insert on public.share_links
for each row execute function private.tg__audit(
    'create_link', 'level has_password expires_at max_downloads', 'link_id', 'id'
);

create trigger _900_audit_open
after update of opens on public.share_links
for each row when (old.opens < new.opens)
execute function private.tg__audit('open_link', 'opens', 'link_id', 'id');

-- reads of objects, and URLs signed for them; the counter on the link would not tell which file
create trigger _900_audit_download
after insert on private.link_events
for each row when (new.kind in ('downloaded', 'signed'))
execute function private.tg__audit('download', '', 'link_id', 'link_id', 'kind', 'kind');

create trigger _900_audit_refuse
after insert on private.link_events
for each row when (new.kind = 'refused')
execute function private.tg__audit('refuse_link', '', 'link_id', 'link_id');

create trigger _900_audit_revoke
after update of revoking_at on public.share_links
for each row when (old.revoking_at is null and new.revoking_at is not null)
execute function private.tg__audit('revoke_link', 'revoking_at revoked_at', 'link_id', 'id');

create trigger _900_audit_update
after update of level, has_password, expires_at, max_downloads on public.share_links
for each row when (
    (old.level, old.has_password, old.expires_at, old.max_downloads)
    is distinct from (new.level, new.has_password, new.expires_at, new.max_downloads)
)
execute function private.tg__audit('change_link', 'level has_password expires_at max_downloads', 'link_id', 'id');

create trigger _900_audit_insert
after insert on public.node_tags
for each row execute function private.tg__audit('tag', 'tag');

create trigger _900_audit_delete
after delete on public.node_tags
for each row execute function private.tg__audit('untag', 'tag');

-- never what a comment says
create trigger _900_audit_insert
after insert on public.comments
for each row execute function private.tg__audit('add_comment', 'parent_id', 'comment_id', 'id');

create trigger _900_audit_edit
after update of body on public.comments
for each row when (old.body is distinct from new.body and new.body is not null)
execute function private.tg__audit('edit_comment', 'edited_at', 'comment_id', 'id');

create trigger _900_audit_resolve
after update of resolved_at on public.comments
for each row when (old.resolved_at is distinct from new.resolved_at)
execute function private.tg__audit('resolve_comment', 'resolved_at', 'comment_id', 'id');

create trigger _900_audit_blank
after update of deleted_at on public.comments
for each row when (old.deleted_at is null and new.deleted_at is not null)
execute function private.tg__audit('delete_comment', 'author_id deleted_at', 'comment_id', 'id');

create trigger _900_audit_delete
after delete on public.comments
for each row when (old.deleted_at is null)
execute function private.tg__audit('delete_comment', 'author_id', 'comment_id', 'id');

create trigger _900_audit_insert
after insert on public.groups
for each row execute function private.tg__audit('create_group', 'name', 'group_id', 'id');

create trigger _900_audit_update
after update of name on public.groups
for each row when (old.name <> new.name)
execute function private.tg__audit('rename_group', 'name', 'group_id', 'id');

create trigger _900_audit_delete
after delete on public.groups
for each row execute function private.tg__audit('delete_group', 'name', 'group_id', 'id');

create trigger _900_audit_insert
after insert on public.group_members
for each row execute function private.tg__audit(
    'add_group_member', 'user_id email is_manager', 'group_id', 'group_id'
);

create trigger _900_audit_update
after update of is_manager on public.group_members
for each row when (old.is_manager <> new.is_manager)
execute function private.tg__audit(
    'change_group_member', 'is_manager', 'group_id', 'group_id', 'user_id', 'user_id', 'email', 'email'
);

create trigger _900_audit_delete
after delete on public.group_members
for each row execute function private.tg__audit(
    'remove_group_member', 'user_id email is_manager', 'group_id', 'group_id'
);

create trigger _900_audit_insert
after insert on public.workspaces
for each row execute function private.tg__audit('create_workspace', 'root_id');

create trigger _900_audit_delete
after delete on public.workspaces
for each row execute function private.tg__audit('delete_workspace', 'root_id');

create trigger _900_audit_insert
after insert on public.workspace_members
for each row execute function private.tg__audit('add_workspace_member', 'user_id email level');

create trigger _900_audit_update
after update of level on public.workspace_members
for each row when (old.level <> new.level)
execute function private.tg__audit('change_workspace_member', 'level', 'user_id', 'user_id', 'email', 'email');

create trigger _900_audit_delete
after delete on public.workspace_members
for each row execute function private.tg__audit('remove_workspace_member', 'user_id email level');

create trigger _900_audit_insert
after insert on public.user_profiles
for each row execute function private.tg__audit('create_account', 'role');

create trigger _900_audit_role
after update of role on public.user_profiles
for each row when (old.role <> new.role)
execute function private.tg__audit('change_role', 'role');

create trigger _900_audit_activity
after update of is_active on public.user_profiles
for each row when (old.is_active <> new.is_active)
execute function private.tg__audit('change_activity', 'is_active');

create trigger _900_audit_delete
after delete on public.user_profiles
for each row execute function private.tg__audit('delete_account', 'role');

create trigger _900_audit_plan
after update of subscription on public.user_profiles
for each row when (old.subscription is distinct from new.subscription)
execute function private.tg__audit('change_plan', 'subscription');

create trigger _900_audit_quota
after update of storage_limit on public.owners
for each row when (old.storage_limit <> new.storage_limit)
execute function private.tg__audit('change_quota', 'storage_limit');

create trigger _900_audit
after insert or update of value or delete on private.settings
for each row execute function private.tg__audit('change_setting', 'value', 'key', 'key');

-- Reading it -----------------------------------------------------------------------------------

create function public.list_audit(
    actor uuid default null,
    action text default null,
    node uuid default null,
    owner uuid default null,
    date_from timestamptz default null,
    date_to timestamptz default null,
    page_size integer default 100,
    cursor text default null
) returns jsonb
language plpgsql stable
security invoker -- the policy of audit_logs decides what is listed
set search_path = ''
set plan_cache_mode = 'force_custom_plan' -- each filter that is not given falls away, and an index remains
as $$
declare
    v_user_id uuid := private.require_user();
    v_sees_all boolean := private.has_permission('view_analytics');
    v_owner_ids uuid[] := private.my_managed_owner_ids();
    v_before bigint;
    v_answer jsonb;
begin
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    if cursor is not null then
        begin
            v_before := (convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb ->> 0)::bigint;
        exception when data_exception then
            v_before := null;
        end;
        if v_before is null then
            perform private.raise_invalid('cursor', 'This cursor is not one that list_audit gave.');
        end if;
    end if;
    with found as not materialized (
        select a.*
        from public.audit_logs as a
        where (
            v_sees_all -- what the policy says, in a form that indexes can answer
            or a.actor_id = v_user_id
            or a.on_behalf_of = v_user_id
            or a.owner_id = any(v_owner_ids)
        )
        and (list_audit.actor is null or a.actor_id = list_audit.actor or a.on_behalf_of = list_audit.actor)
        and (list_audit.action is null or a.action = list_audit.action)
        and (list_audit.node is null or a.node_id = list_audit.node)
        and (list_audit.owner is null or a.owner_id = list_audit.owner)
        and (list_audit.date_from is null or a.at >= list_audit.date_from)
        and (list_audit.date_to is null or a.at < list_audit.date_to)
    ), page as (
        select f.*
        from found as f
        where v_before is null or f.id < v_before
        order by f.id desc
        limit page_size + 1
    ), numbered as (
        select to_jsonb(p) as item, p.id, row_number() over (order by p.id desc) as no from page as p
    )
    select jsonb_build_object(
        'items', coalesce(jsonb_agg(n.item order by n.no) filter (where n.no <= page_size), '[]'),
        'total', (select count(*) from found),
        'next_cursor', case when count(*) > page_size then replace(encode(convert_to(
            jsonb_build_array(min(n.id) filter (where n.no <= page_size))::text, 'UTF8'
        ), 'base64'), e'\n', '') end
    ) into v_answer
    from numbered as n;
    return v_answer;
end;
$$;
comment on function public.list_audit(uuid, text, uuid, uuid, timestamptz, timestamptz, integer, text) is
'List what was done, newest first: {items, total, next_cursor}; items are rows of audit_logs.

You see your own acts, everything about the nodes of owners on which you have level manage, and with the permission
view_analytics everything. actor: a user, agent or link, also the user on whose behalf it was. action: such as trash or
download. node, owner: ids. date_from (included), date_to (excluded). total counts all that the filters find. page_size:
1 to 1000. cursor: the next_cursor of the page before. Raises NOT_AUTHENTICATED, INVALID_ARGUMENT (field page_size or
cursor).';
grant execute on function public.list_audit(uuid, text, uuid, uuid, timestamptz, timestamptz, integer, text)
to anon, authenticated;
