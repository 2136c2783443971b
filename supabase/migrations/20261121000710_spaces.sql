-- Embedding spaces over their life: added (building), filled beside the active one (shadow), activated in one
-- statement, rolled back, retired. Searches run throughout: each reads its space once and stays in it.
--
-- All of it belongs to whoever holds the database: the command line calls these functions, clients none.

insert into private.settings (key, value, description) values
(
    'spaces.retire_grace_s', '10',
    'How long the vectors of a retired space are kept, for searches under way, in seconds; none takes longer.'
);

create table private.space_flips (
    id bigint generated always as identity primary key,
    kind text not null,
    from_space_id smallint references public.embedding_spaces on delete cascade,
    to_space_id smallint not null references public.embedding_spaces on delete cascade,
    flipped_at timestamptz not null default now(),
    rolled_back_at timestamptz
);
comment on table private.space_flips is 'Which space was activated after which: what a rollback goes back along.';
create index space_flips_from_space_id_idx on private.space_flips (from_space_id);
create index space_flips_to_space_id_idx on private.space_flips (to_space_id);
alter table private.space_flips enable row level security;

-- What there is --------------------------------------------------------------------------------

create function private.active_space_id(kind text) returns smallint
language sql stable
security invoker
set search_path = ''
as $$
    select s.id from public.embedding_spaces as s where s.kind = active_space_id.kind and s.state = 'active';
$$;
comment on function private.active_space_id(text) is 'The active space of a kind; null when there is none.';

create function private.space_gaps(space public.embedding_spaces, beside smallint default null) returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_files bigint;
    v_chunks bigint;
begin
    if (space).kind = 'text' then
        select count(distinct c.file_id), count(*) into v_files, v_chunks
        from public.nodes as n
        inner join public.chunks as c on c.version_id = n.head_version_id
        where n.purged_at is null
            and not exists (
                select 1 from private.chunk_vectors as e where e.space_id = (space).id and e.chunk_id = c.id
            )
            and (
                beside is null
                or exists (select 1 from private.chunk_vectors as b where b.space_id = beside and b.chunk_id = c.id)
            );
    else
        select count(distinct n.id), count(*) into v_files, v_chunks
        from public.nodes as n
        inner join public.file_versions as v
            on v.id = n.head_version_id and private.is_pictured((space).kind, v.mime)
        -- what was never read, such as a broken file, has no pictures
        inner join public.ingest_jobs as j on j.version_id = v.id and j.stage = 'chunk' and j.state = 'done'
        cross join lateral private.pictured_pages(v.id, (space).kind) as p
        where n.purged_at is null
            and not exists (
                select 1 from private.page_vectors as e
                where e.space_id = (space).id and e.file_id = n.id and e.page = p.page and e.version_id = v.id
            )
            and (
                beside is null
                or exists (
                    select 1 from private.page_vectors as b
                    where b.space_id = beside and b.file_id = n.id and b.page = p.page and b.version_id = v.id
                )
            );
    end if;
    return jsonb_build_object('missing_files', v_files, 'missing_chunks', v_chunks);
end;
$$;
comment on function private.space_gaps(public.embedding_spaces, smallint) is
'What a space lacks of the head versions: {missing_files, missing_chunks} (pages, for other kinds than text). beside:
only what is in service in that space. Files in the trash count: they may be restored.';

create function private.space_tables(space_id smallint) returns setof regclass
language sql stable
security invoker
set search_path = ''
as $$
    -- all that refers to a space but its history; a partitioned table by the partition of that space
    select coalesce(p.inhrelid, k.conrelid)::regclass
    from pg_catalog.pg_constraint as k
    inner join pg_catalog.pg_class as c on c.oid = k.conrelid
    left join lateral (
        select i.inhrelid
        from pg_catalog.pg_inherits as i inner join pg_catalog.pg_class as l on l.oid = i.inhrelid
        where i.inhparent = c.oid
            and pg_get_expr(l.relpartbound, l.oid) = format('FOR VALUES IN (''%s'')', space_tables.space_id)
    ) as p on true
    where k.contype = 'f'
        and k.confrelid = 'public.embedding_spaces'::regclass
        and not c.relispartition
        and (c.relkind = 'r' or p.inhrelid is not null)
        and k.conrelid not in ('private.space_flips'::regclass, 'private.space_evaluations'::regclass);
$$;
comment on function private.space_tables(smallint) is 'The tables and partitions that hold what belongs to a space.';

create function private.space_jobs(space_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'queued', count(*) filter (where j.state = 'queued'),
        'running', count(*) filter (where j.state = 'running'),
        'failed', count(*) filter (where j.state in ('failed', 'dead', 'cancelled')),
        'done', count(*) filter (where j.state = 'done')
    )
    from public.ingest_jobs as j
    where j.space_id = space_jobs.space_id;
$$;
comment on function private.space_jobs(smallint) is 'A space''s jobs by state: {queued, running, failed, done}.';

create function private.space_counts(space public.embedding_spaces) returns jsonb
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if (space).kind = 'text' then
        return jsonb_build_object(
            'vectors', (select count(*) from private.chunk_vectors as e where e.space_id = (space).id),
            'texts', (select count(*) from private.text_vectors as t where t.space_id = (space).id)
        );
    end if;
    return jsonb_build_object(
        'vectors', (select count(*) from private.page_vectors as e where e.space_id = (space).id),
        'texts', (select count(*) from private.picture_vectors as t where t.space_id = (space).id)
    );
end;
$$;
comment on function private.space_counts(public.embedding_spaces) is
'What a space holds: {vectors, texts}: chunks in service and texts embedded, or pages and pictures.';

create function private.describe_space(space public.embedding_spaces) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select to_jsonb(space)
        || private.space_gaps(space)
        || private.space_counts(space)
        || jsonb_build_object(
            'bytes', (
                select coalesce(sum(pg_total_relation_size(t.name)), 0)
                from private.space_tables((space).id) as t (name)
                inner join pg_catalog.pg_class as c on c.oid = t.name and c.relispartition
            ),
            'jobs', private.space_jobs((space).id),
            'evaluations', private.latest_evaluations((space).id),
            'flips', (
                select coalesce(jsonb_agg(jsonb_build_object(
                    'activated_at', f.flipped_at, 'rolled_back_at', f.rolled_back_at,
                    'before', (select s.name from public.embedding_spaces as s where s.id = f.from_space_id)
                ) order by f.id), '[]')
                from private.space_flips as f where f.to_space_id = (space).id
            )
        );
$$;
comment on function private.describe_space(public.embedding_spaces) is
'All about a space: its columns, vectors in service, texts embedded (or pictures), missing_files, missing_chunks (or
pages), bytes of what search reads, jobs, evaluations, flips.';

create function private.list_spaces() returns setof jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select private.describe_space(s) from public.embedding_spaces as s order by s.kind, s.id;
$$;
comment on function private.list_spaces() is 'All spaces, as describe_space shows them.';

-- Adding ---------------------------------------------------------------------------------------

create function private.claim_spaces() returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_key bigint := hashtextextended('narwhal.spaces', 0);
begin
    -- tried and never queued for: whoever holds spaces may wait for others of its kind, which must not wait for us
    for v_try in 1..500 loop
        if pg_try_advisory_xact_lock(v_key) then
            return;
        end if;
        perform pg_sleep(0.01);
    end loop;
    perform private.raise_error(
        'LOCKED', 'Files are being finished all the time; there was no moment between them.', '{}', 'Try again.'
    );
end;
$$;
comment on function private.claim_spaces() is
'The other side of hold_spaces: until the transaction ends no file is finished, so that a change of spaces sees all
files or none of them. Whoever holds it waits for nothing. Raises LOCKED after five seconds.';

create function private.check_space(
    name text, model text, revision text, dimension integer, kind text, max_tokens integer, languages text[]
) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if name is null or name !~ '^[a-z0-9][a-z0-9._-]{0,62}$' or name = 'active' then
        perform private.raise_invalid(
            'name', 'A name has 1 to 63 of a-z, 0-9, ".", "_", "-", starts with a letter or digit, and is not "active".'
        );
    end if;
    if coalesce(model, '') = '' then
        perform private.raise_invalid('model', 'The model must be named.');
    end if;
    if coalesce(revision, '') = '' then
        perform private.raise_invalid('revision', 'The revision of the weights must be pinned.');
    end if;
    if dimension is null or dimension not between 1 and 4000 then
        perform private.raise_invalid(
            'dimension', 'The dimension must be between 1 and 4000.', '{"expected": {"min": 1, "max": 4000}}'
        );
    end if;
    if kind is null or kind not in ('text', 'page', 'image') then
        perform private.raise_invalid(
            'kind', 'kind must be text, page or image.', '{"expected": ["text", "page", "image"]}'
        );
    end if;
    if max_tokens is null or max_tokens < 1 then
        perform private.raise_invalid('max_tokens', 'max_tokens must be at least 1.');
    end if;
    if languages = '{}' or exists (select 1 from unnest(languages) as l where (l ~ '^[a-z]{2,3}$') is not true) then
        perform private.raise_invalid(
            'languages', 'languages are codes of two or three letters, at least one; null stands for any language.'
        );
    end if;
end;
$$;
comment on function private.check_space(text, text, text, integer, text, integer, text[]) is
'Raises INVALID_ARGUMENT (field, expected) for what no space can have.';

create function private.add_space(
    name text, model text, revision text, dimension integer, kind text default 'text', max_tokens integer default 512,
    languages text[] default null
) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
begin
    perform private.check_space(name, model, revision, dimension, kind, max_tokens, languages);
    perform private.claim_spaces();
    select s.* into v_space from public.embedding_spaces as s where s.name = add_space.name;
    if v_space.state = 'retiring' and not private.holds_rows(v_space.id) then
        delete from public.embedding_spaces as s where s.id = v_space.id; -- gone but for its name
    elsif v_space.id is not null then
        perform private.raise_error(
            'CONFLICT_NAME', format('There is a space "%s".', name),
            jsonb_build_object('space', name, 'state', v_space.state), 'Choose another name, or retire that one.'
        );
    end if;
    -- a partition is locked against all who search and write: rather give up than let them queue behind us
    perform set_config('lock_timeout', '200ms', true);
    begin
        perform private.create_space(name, model, revision, dimension, kind, 'building', max_tokens, languages);
    exception when lock_not_available or deadlock_detected then
        perform private.raise_error(
            'LOCKED', 'The tables of vectors are in use.', jsonb_build_object('space', name), 'Try again.'
        );
    end;
    select s.* into v_space from public.embedding_spaces as s where s.name = add_space.name;
    perform private.write_audit('add_space', null, null, to_jsonb(v_space));
    return private.describe_space(v_space);
end;
$$;
comment on function private.add_space(text, text, text, integer, text, integer, text[]) is
'Registers a space: from now on new and changed files are embedded in it too; a back-fill brings the others. Raises
INVALID_ARGUMENT (field), CONFLICT_NAME, LOCKED while its tables cannot be made.';

-- Activating -----------------------------------------------------------------------------------

create function private.refuse_gaps(space public.embedding_spaces) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_gaps jsonb := private.space_gaps(space, private.active_space_id((space).kind));
begin
    if v_gaps ->> 'missing_chunks' <> '0' then
        perform private.raise_error(
            'CONFLICT_STATE',
            format(
                'The space "%s" lacks %s chunks of %s files.',
                (space).name, v_gaps ->> 'missing_chunks', v_gaps ->> 'missing_files'
            ),
            v_gaps || jsonb_build_object('space', (space).name),
            format('Fill it first: narwhal spaces backfill %s', (space).name)
        );
    end if;
end;
$$;
comment on function private.refuse_gaps(public.embedding_spaces) is
'Raises CONFLICT_STATE (missing_files, missing_chunks) when a space lacks something that the active one has.';

create function private.flip_space(from_id smallint, to_id smallint) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    update public.embedding_spaces as s
    set state = case when s.id = to_id then 'active' else 'shadow' end
    where s.id in (from_id, to_id);
$$;
comment on function private.flip_space(smallint, smallint) is
'The flip, in one statement: searches before it are answered from one space, those after it from the other.';

create function private.activate_space(name text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces := private.space_named(name);
    v_active_id smallint := private.active_space_id(v_space.kind);
    v_lost jsonb := private.lost_evaluations(v_space.id, v_active_id);
begin
    if v_space.state = 'active' then
        return jsonb_build_object('space', name, 'previous', null, 'changed', false);
    end if;
    if v_space.state = 'retiring' then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" is retired.', name), jsonb_build_object('state', v_space.state)
        );
    end if;
    perform private.refuse_gaps(v_space);
    if v_lost <> '[]' then
        perform private.raise_error(
            'CONFLICT_STATE',
            format('The space "%s" finds worse on %s collections.', name, jsonb_array_length(v_lost)),
            jsonb_build_object('space', name, 'failed', jsonb_array_length(v_lost), 'evaluations', v_lost),
            'See what it lost: narwhal spaces show ' || name
        );
    end if;
    -- again, now that no file can be finished meanwhile
    perform private.claim_spaces();
    v_space := private.space_named(name);
    v_active_id := private.active_space_id(v_space.kind);
    if v_space.state in ('active', 'retiring') then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" was changed meanwhile.', name),
            jsonb_build_object('state', v_space.state)
        );
    end if;
    perform private.refuse_gaps(v_space);
    perform private.flip_space(v_active_id, v_space.id);
    insert into private.space_flips (kind, from_space_id, to_space_id)
    values (v_space.kind, v_active_id, v_space.id);
    perform private.write_audit(
        'activate_space', null, jsonb_build_object('space_id', v_active_id), jsonb_build_object('space_id', v_space.id)
    );
    return jsonb_build_object(
        'space', name, 'changed', true,
        'previous', (select s.name from public.embedding_spaces as s where s.id = v_active_id)
    );
end;
$$;
comment on function private.activate_space(text) is
'Makes a space the one that is searched: {space, previous, changed}. The one before stays written, so that a rollback
finds it complete. Raises NOT_FOUND, CONFLICT_STATE (missing_files, missing_chunks) while its back-fill is incomplete,
CONFLICT_STATE (failed, evaluations) when its evaluations are worse, LOCKED.';

create function private.rollback_space(kind text default 'text') returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_flip private.space_flips;
    v_before public.embedding_spaces;
    v_active public.embedding_spaces;
begin
    perform private.claim_spaces();
    select s.* into v_active
    from public.embedding_spaces as s
    where s.kind = rollback_space.kind and s.state = 'active';
    select f.* into v_flip
    from private.space_flips as f
    where f.kind = rollback_space.kind and f.rolled_back_at is null
    order by f.id desc
    limit 1;
    select s.* into v_before from public.embedding_spaces as s where s.id = v_flip.from_space_id;
    if v_before.id is null or v_before.state = 'retiring' then
        perform private.raise_error(
            'CONFLICT_STATE', format('There is no earlier %s space to go back to.', kind),
            jsonb_build_object('active', v_active.name, 'before', v_before.name),
            'Activate one instead: narwhal spaces activate NAME'
        );
    end if;
    perform private.flip_space(v_active.id, v_before.id);
    update private.space_flips as f set rolled_back_at = now() where f.id = v_flip.id;
    perform private.write_audit(
        'rollback_space', null, jsonb_build_object('space_id', v_active.id), jsonb_build_object('space_id', v_before.id)
    );
    return jsonb_build_object('space', v_before.name, 'previous', v_active.name, 'changed', true)
        || private.space_gaps(v_before, v_active.id);
end;
$$;
comment on function private.rollback_space(text) is
'Undoes the last activation: {space, previous, changed, missing_files, missing_chunks}. The space that was active before
it is searched again, at once and without a gate; the other stays written. Raises CONFLICT_STATE when there is none.';

create function private.settle_space(space_id smallint, max_files integer default 1000) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_version record;
    v_count integer := 0;
begin
    update public.ingest_jobs as j
    set priority = 1
    where j.id = any(array(
        select q.id from public.ingest_jobs as q
        where q.space_id = settle_space.space_id and q.state = 'queued' and q.priority > 1
        limit max_files
        for update skip locked
    ));
    for v_version in
        select v.id, v.status, exists (
            select 1 from public.ingest_jobs as j
            where j.version_id = v.id and j.state <> 'done' and private.is_required(j.stage, j.space_id)
        ) as is_waiting
        from public.ingest_jobs as o
        inner join public.file_versions as v on v.id = o.version_id
        inner join public.nodes as n on n.id = v.file_id
        where o.space_id = settle_space.space_id
            and (
                (o.state = 'done' and v.status in ('processing', 'failed'))
                or (o.state in ('queued', 'running') and v.status = 'ready')
            )
        limit max_files
        for no key update of n skip locked
    loop
        if v_version.is_waiting and v_version.status = 'ready' then
            perform private.set_version_status(v_version.id, 'processing');
            v_count := v_count + 1;
        elsif not v_version.is_waiting and v_version.status <> 'ready' then
            perform private.hold_spaces();
            perform private.advance_version(v_version.id);
            v_count := v_count + 1;
        end if;
    end loop;
    return v_count;
end;
$$;
comment on function private.settle_space(smallint, integer) is
'After a flip, in a transaction of its own: files that waited only for the space before are ready, files that the new
one still lacks are processing and come first; how many were changed. Call again until it is 0.';

-- Retiring -------------------------------------------------------------------------------------

create function private.retire_space(name text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces := private.space_named(name);
begin
    perform private.claim_spaces();
    v_space := private.space_named(name);
    if v_space.state = 'active' then
        perform private.raise_error(
            'CONFLICT_STATE', format('The space "%s" is active.', name), jsonb_build_object('state', v_space.state),
            'Activate another one first, or roll back.'
        );
    end if;
    if v_space.state <> 'retiring' then
        update public.embedding_spaces as s
        set state = 'retiring', retired_at = clock_timestamp()
        where s.id = v_space.id
        returning s.* into v_space;
        perform private.write_audit('retire_space', null, null, jsonb_build_object('space_id', v_space.id));
    end if;
    return to_jsonb(v_space) || jsonb_build_object(
        'wait_s', greatest(0, extract(
            epoch from v_space.retired_at
            + make_interval(secs => (private.setting('spaces.retire_grace_s'))::float8) - clock_timestamp()
        ))
    );
end;
$$;
comment on function private.retire_space(text) is
'Takes a space out of use for good: nothing is written to it any more and no search can name it. Its vectors go with
empty_space, after wait_s seconds. Raises NOT_FOUND, CONFLICT_STATE for the active one, LOCKED.';

create function private.empty_space(space_id smallint, max_rows integer default 10000) returns bigint
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_table regclass;
    v_count bigint;
    v_total bigint := 0;
begin
    if not exists (
        select 1 from public.embedding_spaces as s
        where s.id = space_id
            and s.state = 'retiring'
            and s.retired_at + make_interval(secs => (private.setting('spaces.retire_grace_s'))::float8)
            <= clock_timestamp()
    ) then
        perform private.raise_error(
            'CONFLICT_STATE', 'Only a space that was retired a while ago is emptied.',
            jsonb_build_object('space_id', space_id)
        );
    end if;
    for v_table in select t.name from private.space_tables(space_id) as t (name) order by t.name::oid desc loop
        execute format(
            $statement$
                delete from %s
                where ctid = any(array(
                    select ctid from %s where space_id = $1 limit $2 for update skip locked
                ))
            $statement$, v_table, v_table
        ) using space_id, max_rows - v_total;
        get diagnostics v_count = row_count;
        v_total := v_total + v_count;
        exit when v_total >= max_rows;
    end loop;
    return v_total;
end;
$$;
comment on function private.empty_space(smallint, integer) is
'Deletes at most so many rows of a retired space, its jobs among them; how many. Call again until holds_rows says no:
what somebody has locked is left for the next time. Raises CONFLICT_STATE while searches may still be under way in it.';

create function private.holds_rows(space_id smallint) returns boolean
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_table regclass;
    v_found boolean;
begin
    for v_table in select t.name from private.space_tables(space_id) as t (name) loop
        execute format('select exists (select from %s where space_id = $1)', v_table) into v_found using space_id;
        if v_found then
            return true;
        end if;
    end loop;
    return false;
end;
$$;
comment on function private.holds_rows(smallint) is 'Whether anything is left of what belongs to a space.';

create function private.shrink_space(space_id smallint) returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_table regclass;
begin
    if private.holds_rows(space_id) or not exists (
        select 1 from public.embedding_spaces as s where s.id = space_id and s.state = 'retiring'
    ) then
        return false;
    end if;
    -- Emptied partitions stay: to drop one locks nodes against everybody. One a call, and rather give up than let
    -- others queue behind us.
    perform set_config('lock_timeout', '200ms', true);
    for v_table in
        select t.name
        from private.space_tables(space_id) as t (name)
        inner join pg_catalog.pg_class as c on c.oid = t.name and c.relispartition
        where pg_table_size(t.name) + pg_indexes_size(t.name) > 65536
            and not exists ( -- those cannot be truncated
                select 1 from pg_catalog.pg_constraint as k where k.contype = 'f' and k.confrelid = t.name
            )
    loop
        begin
            execute format('truncate %s', v_table);
            return true;
        exception when lock_not_available or deadlock_detected then
            null; -- vacuum will do
        end;
    end loop;
    return false;
end;
$$;
comment on function private.shrink_space(smallint) is
'Gives back the disk of one emptied partition of a retired space; false when there is nothing to give back.';
