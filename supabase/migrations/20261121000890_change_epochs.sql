-- Change epochs: whether anything that an answer depends on has changed since it was computed.
--
-- Each transaction that changes what somebody finds, or what somebody may read, leaves a row for whom it concerns: an
-- owner, a user, a group, or everybody. Rows are only inserted, one per transaction, so writers never wait for one
-- another. The epoch of some ids is the sum over their rows. What is committed only grows, so whoever sees an answer
-- that was kept sees at least the changes that it knew; equal sums then mean equal changes, and equal data.

create unlogged table private.epochs (
    scope_id uuid not null,
    xid xid8 not null,
    edits bigint not null,
    primary key (scope_id, xid)
);
comment on table private.epochs is
'What has changed for an owner, a user, a group or everybody (the nil id), by transaction. Unlogged, as are the answers
that depend on it: a crash empties both.';
comment on column private.epochs.xid is 'The transaction; 0 for the sum of those that were folded.';
comment on column private.epochs.edits is
'How many statements changed something; an answer may be computed in between.';
alter table private.epochs enable row level security;

create function private.advance_epochs(scope_ids uuid[]) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    -- nobody else writes the rows of this transaction
    insert into private.epochs (scope_id, xid, edits)
    select distinct s.id, pg_current_xact_id(), 1
    from unnest(scope_ids) as s (id)
    where s.id is not null
    on conflict on constraint epochs_pkey do update set edits = epochs.edits + 1;
$$;
comment on function private.advance_epochs(uuid[]) is
'Tells that something has changed for these owners, users or groups; the nil id stands for everybody.';

create function private.epoch(scope_ids uuid[]) returns bigint
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(sum(e.edits), 0)::bigint from private.epochs as e where e.scope_id = any(epoch.scope_ids);
$$;
comment on function private.epoch(uuid[]) is 'How much has changed so far for these ids.';

create function private.fold_epochs() returns bigint
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_count bigint;
begin
    -- sums stay what they are, whichever of both a snapshot sees; only the schedule folds, never two at once
    with gone as (
        delete from private.epochs as e where e.xid <> '0' returning e.scope_id, e.edits
    ), folded as (
        insert into private.epochs (scope_id, xid, edits)
        select g.scope_id, '0', sum(g.edits) from gone as g group by g.scope_id
        on conflict on constraint epochs_pkey do update set edits = epochs.edits + excluded.edits
    )
    select count(*) into v_count from gone;
    -- whoever is gone concerns nobody's search any more
    delete from private.epochs as e
    where e.xid = '0'
        and e.scope_id <> '00000000-0000-0000-0000-000000000000'
        and not exists (select 1 from public.owners as o where o.id = e.scope_id)
        and not exists (select 1 from public.user_profiles as u where u.id = e.scope_id)
        and not exists (select 1 from public.groups as g where g.id = e.scope_id);
    return v_count;
end;
$$;
comment on function private.fold_epochs() is
'Makes one row of all that are committed of an id, and drops those of ids that are gone; returns how many were folded.';

-- What is found --------------------------------------------------------------------------------

create function private.tg__advance_owners() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
begin
    if tg_op in ('INSERT', 'UPDATE') then
        perform private.advance_epochs(array(select distinct i.owner_id from inserted as i));
    end if;
    if tg_op in ('DELETE', 'UPDATE') then
        perform private.advance_epochs(array(select distinct d.owner_id from deleted as d));
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg__advance_owners() is 'Advances the epochs of the owners whose rows have changed.';

create function private.tg__advance_owners_of_files() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
begin
    -- a file that is gone has advanced its owner's epoch by itself
    if tg_op in ('INSERT', 'UPDATE') then
        perform private.advance_epochs(array(
            select distinct n.owner_id
            from (select distinct i.file_id from inserted as i) as f
            inner join public.nodes as n on n.id = f.file_id
        ));
    end if;
    if tg_op in ('DELETE', 'UPDATE') then
        perform private.advance_epochs(array(
            select distinct n.owner_id
            from (select distinct d.file_id from deleted as d) as f
            inner join public.nodes as n on n.id = f.file_id
        ));
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg__advance_owners_of_files() is
'Advances the epochs of the owners of the files whose rows have changed.';

create function private.tg__advance_all() returns trigger
language plpgsql volatile
security definer -- runs for whoever writes
set search_path = ''
as $$
begin
    perform private.advance_epochs(array['00000000-0000-0000-0000-000000000000'::uuid]);
    return null; -- after trigger
end;
$$;
comment on function private.tg__advance_all() is 'Advances the epoch of everybody.';

do $$
declare
    v_table text;
    v_function text;
begin
    -- the same three triggers for each of them; terms go with the statistics of their owner
    for v_table, v_function in values
        ('public.nodes', 'tg__advance_owners'),
        ('private.owner_statistics', 'tg__advance_owners'),
        ('private.chunk_vectors', 'tg__advance_owners'),
        ('public.file_versions', 'tg__advance_owners_of_files'),
        ('public.chunks', 'tg__advance_owners_of_files')
    loop
        execute format(
            'create trigger _800_advance_inserted after insert on %s referencing new table as inserted '
            'for each statement execute function private.%I()', v_table, v_function
        );
        execute format(
            'create trigger _800_advance_updated after update on %s '
            'referencing old table as deleted new table as inserted '
            'for each statement execute function private.%I()', v_table, v_function
        );
        execute format(
            'create trigger _800_advance_deleted after delete on %s referencing old table as deleted '
            'for each statement execute function private.%I()', v_table, v_function
        );
    end loop;
end;
$$;

create trigger _800_advance
after insert or update or delete on public.embedding_spaces
for each statement execute function private.tg__advance_all();

create trigger _800_advance
after insert or update or delete on private.settings
for each statement execute function private.tg__advance_all();

-- Who may read ---------------------------------------------------------------------------------

create trigger _800_advance
after insert or update or delete on private.role_permissions
for each statement execute function private.tg__advance_all();

create function private.tg_user_profiles__advance() returns trigger
language plpgsql volatile
security definer -- runs for whoever changes an account
set search_path = ''
as $$
begin
    perform private.advance_epochs(array[new.id]);
    return null; -- after trigger
end;
$$;
comment on function private.tg_user_profiles__advance() is
'Advances the epoch of a user whose role, state or address changes.';

create trigger _800_advance
after update of role, is_active, email on public.user_profiles
for each row execute function private.tg_user_profiles__advance();

create function private.tg_shares__advance() returns trigger
language plpgsql volatile
security definer -- runs for whoever shares
set search_path = ''
as $$
declare
    v_share public.shares;
begin
    foreach v_share in array case tg_op
        when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new]
    end loop
        perform private.advance_epochs(
            array[v_share.group_id, (select n.owner_id from public.nodes as n where n.id = v_share.node_id)]
            || private.users_named(v_share.grantee_id, v_share.grantee_email)
        );
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_shares__advance() is
'Advances the epochs of the owner of what is shared, and of the person or group that it is shared with.';

create trigger _800_advance
after insert or update or delete on public.shares
for each row execute function private.tg_shares__advance();

create function private.tg_share_links__advance() returns trigger
language plpgsql volatile
security definer -- runs for whoever makes or opens a link
set search_path = ''
as $$
begin
    perform private.advance_epochs(array(
        select n.owner_id
        from public.nodes as n
        where n.id = case tg_op when 'DELETE' then old.node_id else new.node_id end
    ));
    return null; -- after trigger
end;
$$;
comment on function private.tg_share_links__advance() is 'Advances the epoch of the owner of what a link opens.';

create trigger _800_advance
after insert or update of level, expires_at, max_downloads, revoking_at, revoked_at or delete on public.share_links
for each row execute function private.tg_share_links__advance();

create function private.tg_group_members__advance() returns trigger
language plpgsql volatile
security definer -- runs for whoever changes a group
set search_path = ''
as $$
declare
    v_member public.group_members;
begin
    foreach v_member in array case tg_op
        when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new]
    end loop
        perform private.advance_epochs(
            array[v_member.group_id] || private.users_named(v_member.user_id, v_member.email)
        );
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_group_members__advance() is 'Advances the epochs of a group and of its member.';

create trigger _800_advance
after insert or update or delete on public.group_members
for each row execute function private.tg_group_members__advance();

create function private.tg_workspace_members__advance() returns trigger
language plpgsql volatile
security definer -- runs for whoever changes a workspace
set search_path = ''
as $$
declare
    v_member public.workspace_members;
begin
    foreach v_member in array case tg_op
        when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new]
    end loop
        perform private.advance_epochs(
            array[v_member.workspace_id] || private.users_named(v_member.user_id, v_member.email)
        );
    end loop;
    return null; -- after trigger
end;
$$;
comment on function private.tg_workspace_members__advance() is 'Advances the epochs of a workspace and of its member.';

create trigger _800_advance
after insert or update or delete on public.workspace_members
for each row execute function private.tg_workspace_members__advance();

-- One search -----------------------------------------------------------------------------------

create type private.search_request as (
    started_at timestamptz,
    query text,
    mode text,
    space text,
    is_degraded boolean,
    asked jsonb,
    key bytea,
    scope_ids uuid [],
    epoch bigint,
    state bytea,
    hits jsonb
);
comment on type private.search_request is
'One search under way: what was asked (asked: {filters, top_k, candidates, options}); its name among kept answers (null:
it is not kept), whose changes concern it and their epoch when it began, a short name for what the caller could read,
and the hits that were kept of the same search (null: none).';
