-- Searches as of a moment: what the caller could find then, of what they can still read now.
--
-- Only what was is kept, with the moment until which it was so; what is, is in the tables themselves. The state at a
-- moment is the one that lasted least beyond it, today's being without end. So nothing is written when something is
-- made. A subtree that moves, or goes to the trash, leaves one row, its root's: where a node was, whose it was and
-- whether it was in the trash follows from the folders above it. What is deleted for good takes its past along.

insert into private.settings (key, value, description) values
('search.keep_history_days', '365', 'How many days searches look back (options.as_of); null: without end.'),
('search.history_chunks', '1000', 'Most passages of earlier versions that a search of the past reads, 1 to 2 ms each.');

create table private.past_nodes (
    node_id uuid not null references public.nodes on delete cascade,
    until timestamptz not null,
    parent_id uuid,
    owner_id uuid,
    head_version_id uuid references public.file_versions on delete set null,
    is_trash_root boolean not null,
    primary key (node_id, until)
);
comment on table private.past_nodes is
'What nodes were before a change of their own: their folder, owner, head, and whether they were trashed themselves.';
comment on column private.past_nodes.until is
'When it changed, by the clock: when a transaction began, others may have changed the same before it.';
comment on column private.past_nodes.owner_id is
'Right where nothing is above it; below, that of the highest folder counts. null once the owner is deleted.';
comment on column private.past_nodes.head_version_id is 'null before the first version, and once it is purged.';
create index past_nodes_head_version_id_idx on private.past_nodes (head_version_id);
create index past_nodes_owner_id_idx on private.past_nodes (owner_id);
create index past_nodes_until_idx on private.past_nodes using brin (until);
alter table private.past_nodes enable row level security;

create table private.past_shares (
    id bigint generated always as identity primary key,
    share_id uuid not null,
    node_id uuid not null references public.nodes on delete cascade,
    user_id uuid,
    group_id uuid,
    expires_at timestamptz,
    since timestamptz not null,
    until timestamptz not null,
    check (num_nonnulls(user_id, group_id) = 1)
);
comment on table private.past_shares is
'What shares opened before they ended, or expired at another time: to a group, or to whom the row meant then.';
comment on column private.past_shares.since is 'When the share was made, not when it became so.';
create index past_shares_node_id_idx on private.past_shares (node_id);
create index past_shares_user_id_idx on private.past_shares (user_id, until);
create index past_shares_group_id_idx on private.past_shares (group_id, until);
alter table private.past_shares enable row level security;

create table private.past_members (
    id bigint generated always as identity primary key,
    team_id uuid not null,
    user_id uuid not null,
    since timestamptz not null,
    until timestamptz not null
);
comment on table private.past_members is 'Who was in a group or a workspace and is not any more.';
create index past_members_team_id_idx on private.past_members (team_id);
create index past_members_user_id_idx on private.past_members (user_id, until);
alter table private.past_members enable row level security;

-- Remembering ----------------------------------------------------------------------------------

create function private.tg_nodes__remember() returns trigger
language plpgsql volatile
security definer -- runs for whoever changes a node
set search_path = ''
as $$
begin
    insert into private.past_nodes (node_id, until, parent_id, owner_id, head_version_id, is_trash_root)
    values (
        old.id, clock_timestamp(), old.parent_id, old.owner_id,
        (select v.id from public.file_versions as v where v.id = old.head_version_id),
        coalesce(old.trash_root_id = old.id, false)
    )
    on conflict do nothing;
    return null; -- after trigger
end;
$$;
comment on function private.tg_nodes__remember() is 'Keeps what a node was.';

-- by row, since the condition is far cheaper than comparing two transition tables: of a subtree hardly a row meets it
create trigger _700_remember
after update of parent_id, owner_id, head_version_id, trash_root_id on public.nodes
for each row
when (
    old.parent_id is distinct from new.parent_id
    or old.head_version_id is distinct from new.head_version_id
    or coalesce(old.trash_root_id = old.id, false) <> coalesce(new.trash_root_id = new.id, false)
    or (old.owner_id <> new.owner_id and new.parent_id is null)
)
execute function private.tg_nodes__remember();

create function private.living_users(user_id uuid, email text) returns setof uuid
language sql stable
security definer -- auth.users is closed to clients
set search_path = ''
as $$
    select u.id
    from unnest(private.users_named(living_users.user_id, living_users.email)) as n (id)
    inner join auth.users as u on u.id = n.id;
$$;
comment on function private.living_users(uuid, text) is 'users_named without accounts that are being deleted.';

create function private.tg_shares__remember() returns trigger
language plpgsql volatile
security definer -- runs for whoever ends a share, or changes when it ends
set search_path = ''
as $$
begin
    -- it may go together with its node
    perform from public.nodes as n where n.id = old.node_id and n.purged_at is null for key share;
    if found then
        insert into private.past_shares (share_id, node_id, user_id, group_id, expires_at, since, until)
        select old.id, old.node_id, t.user_id, t.group_id, old.expires_at, old.created_at, clock_timestamp()
        from (
            select u.id as user_id, null::uuid as group_id
            from private.living_users(old.grantee_id, old.grantee_email) as u (id)
            union all
            select null, old.group_id where old.group_id is not null
        ) as t;
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_shares__remember() is
'Keeps what a share opened to whom. Whom an address means that nobody had, nothing was open to.';

create trigger _700_remember_deleted
after delete on public.shares
for each row execute function private.tg_shares__remember();

create trigger _700_remember_updated
after update of expires_at on public.shares
for each row when (old.expires_at is distinct from new.expires_at)
execute function private.tg_shares__remember();

create function private.tg__remember_member() returns trigger
language plpgsql volatile
security definer -- runs for whoever takes somebody out of a team
set search_path = ''
as $$
begin
    insert into private.past_members (team_id, user_id, since, until)
    select (to_jsonb(old) ->> tg_argv[0])::uuid, u.id, old.created_at, clock_timestamp()
    from private.living_users(old.user_id, old.email) as u (id);
    return null; -- after trigger
end;
$$;
comment on function private.tg__remember_member() is
'Keeps who was in a team. Argument: the column that has the team''s id.';

create trigger _700_remember
after delete on public.group_members
for each row execute function private.tg__remember_member('group_id');

create trigger _700_remember
after delete on public.workspace_members
for each row execute function private.tg__remember_member('workspace_id');

-- Forgetting -----------------------------------------------------------------------------------

create function private.tg_owners__forget() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes an account or a workspace
set search_path = ''
as $$
begin
    -- no foreign keys: they would lock accounts late, behind nodes. What somebody holds is left to prune_history
    delete from private.past_shares as s
    where s.id in (select p.id from private.past_shares as p where p.user_id = old.id for update skip locked);
    delete from private.past_members as m
    where m.id in (
        select p.id from private.past_members as p where old.id in (p.user_id, p.team_id) for update skip locked
    );
    update private.past_nodes as n
    set owner_id = null
    from (
        select p.node_id, p.until from private.past_nodes as p where p.owner_id = old.id for update skip locked
    ) as p
    where n.node_id = p.node_id
        and n.until = p.until
        and exists (select 1 from public.nodes as e where e.id = p.node_id); -- else it goes with its node
    return null; -- after trigger
end;
$$;
comment on function private.tg_owners__forget() is 'An account, or a workspace, takes along what was its past.';

create trigger _700_forget
after delete on public.owners
for each row execute function private.tg_owners__forget();

create function private.history_start() returns timestamptz
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(
        now() - make_interval(days => nullif(private.setting('search.keep_history_days'), 'null')::integer), '-infinity'
    );
$$;
comment on function private.history_start() is 'How far searches can look back.';

create function private.prune_history() returns bigint
language sql volatile
security invoker
set search_path = ''
as $$
    with nodes as (
        delete from private.past_nodes as p where p.until < private.history_start()
        returning p.node_id
    ), shares as (
        delete from private.past_shares as p
        where p.until < private.history_start()
            or (p.user_id is not null and not exists (select 1 from public.owners as o where o.id = p.user_id))
        returning p.id
    ), members as (
        delete from private.past_members as p
        where p.until < private.history_start()
            or not exists (select 1 from public.owners as o where o.id = p.user_id)
        returning p.id
    ), owners as (
        update private.past_nodes as p
        set owner_id = null
        where p.until >= private.history_start()
            and p.owner_id is not null
            and not exists (select 1 from public.owners as o where o.id = p.owner_id)
        returning p.node_id
    )
    select
        (select count(*) from nodes) + (select count(*) from shares) + (select count(*) from members)
        + (select count(*) from owners);
$$;
comment on function private.prune_history() is
'Deletes what was so longer than search.keep_history_days ago, and what deleted accounts have left; returns how much.';

-- What could be read then ----------------------------------------------------------------------

create function private.email_then(user_id uuid, moment timestamptz) returns text
language sql stable
security definer -- auth.users is closed to clients
set search_path = ''
as $$
    select lower(u.email) from auth.users as u where u.id = email_then.user_id and u.email_confirmed_at <= moment;
$$;
comment on function private.email_then(uuid, timestamptz) is
'A user''s address, if it was confirmed by then; addresses that they had before are not known.';

create function private.team_ids_then(user_id uuid, moment timestamptz) returns uuid[]
language sql stable
security definer -- decides what could be read, so it must not depend on what the caller may read
set search_path = ''
as $$
    with mine as (
        select m.group_id as team_id, m.created_at from public.group_members as m
        where m.user_id = team_ids_then.user_id
        union all
        select m.group_id, m.created_at from public.group_members as m
        where m.user_id is null and m.email = private.email_then(team_ids_then.user_id, moment)
        union all
        select m.workspace_id, m.created_at from public.workspace_members as m
        where m.user_id = team_ids_then.user_id
        union all
        select m.workspace_id, m.created_at from public.workspace_members as m
        where m.user_id is null and m.email = private.email_then(team_ids_then.user_id, moment)
        union all
        select m.team_id, m.since from private.past_members as m
        where m.user_id = team_ids_then.user_id and m.until > moment
    )
    select coalesce(array_agg(distinct m.team_id), '{}') from mine as m where m.created_at <= moment;
$$;
comment on function private.team_ids_then(uuid, timestamptz) is 'The groups and workspaces that a user was in.';

create function private.roots_then(user_id uuid, moment timestamptz) returns uuid[]
language sql stable
security definer -- decides what could be read, so it must not depend on what the caller may read
set search_path = ''
as $$
    with teams as materialized (
        select private.team_ids_then(roots_then.user_id, moment) as ids
    ), states as (
        select s.id, s.node_id, s.expires_at, s.created_at, 'infinity'::timestamptz as until
        from public.shares as s
        where s.grantee_id = roots_then.user_id
        union all
        select s.id, s.node_id, s.expires_at, s.created_at, 'infinity'
        from public.shares as s
        where s.grantee_id is null and s.grantee_email = private.email_then(roots_then.user_id, moment)
        union all
        select s.id, s.node_id, s.expires_at, s.created_at, 'infinity'
        from public.shares as s
        where s.group_id = any((select t.ids from teams as t)::uuid[])
        union all
        select s.share_id, s.node_id, s.expires_at, s.since, s.until
        from private.past_shares as s
        where s.user_id = roots_then.user_id and s.until > moment
        union all
        select s.share_id, s.node_id, s.expires_at, s.since, s.until
        from private.past_shares as s
        where s.group_id = any((select t.ids from teams as t)::uuid[]) and s.until > moment
    ), shares as (
        select distinct on (s.id) s.* from states as s order by s.id, s.until
    )
    select coalesce(array_agg(distinct s.node_id), '{}')
    from shares as s
    where s.created_at <= moment and (s.expires_at is null or s.expires_at > moment);
$$;
comment on function private.roots_then(uuid, timestamptz) is 'The nodes that shares opened to a user.';

create function private.nodes_then(ids uuid[], moment timestamptz)
returns table (
    id uuid, parent_id uuid, owner_id uuid, head_version_id uuid, is_trash_root boolean, until timestamptz
)
language sql stable
security invoker
set search_path = ''
as $$
    select s.*
    from unnest(nodes_then.ids) as i (id)
    -- "limit": looked up one by one, so that nobody's search reads other owners' rows
    cross join lateral (
        select
            n.id, case when p.node_id is null then n.parent_id else p.parent_id end,
            case when p.node_id is null then n.owner_id else p.owner_id end,
            case when p.node_id is null then n.head_version_id else p.head_version_id end,
            coalesce(p.is_trash_root, n.trash_root_id = n.id, false), coalesce(p.until, 'infinity')
        from public.nodes as n
        left join lateral (
            select p.*
            from private.past_nodes as p
            where p.node_id = n.id and p.until > moment
            order by p.until
            limit 1
        ) as p on true
        where n.id = i.id and n.created_at <= moment
        limit 1
    ) as s;
$$;
comment on function private.nodes_then(uuid[], timestamptz) is
'These nodes as they were, without those that were not there yet or are deleted; until: infinity when they still are.';

create function private.files_then(ids uuid[], owner_ids uuid[], roots uuid[], moment timestamptz)
returns table (file_id uuid, version_id uuid, until timestamptz)
language sql stable
security invoker
set search_path = ''
as $$
    with recursive files as materialized (
        select f.* from private.nodes_then(files_then.ids, moment) as f
    ), folders as (
        select a.*
        from private.nodes_then(array(select distinct f.parent_id from files as f), moment) as a
        union
        select p.*
        from folders as a
        cross join lateral private.nodes_then(array[a.parent_id], moment) as p
    ), ways (id, is_open, is_trashed) as (
        -- from above: who could read a folder could read what was in it
        select a.id, a.owner_id = any(files_then.owner_ids) or a.id = any(files_then.roots), a.is_trash_root
        from folders as a
        where not exists (select 1 from folders as p where p.id = a.parent_id)
        union all
        select a.id, w.is_open or a.id = any(files_then.roots), w.is_trashed or a.is_trash_root
        from ways as w
        inner join folders as a on a.parent_id = w.id
    )
    select f.id, f.head_version_id, f.until
    from files as f
    left join ways as w on w.id = f.parent_id
    where f.head_version_id is not null
        and not (f.is_trash_root or coalesce(w.is_trashed, false))
        and (coalesce(w.is_open, f.owner_id = any(files_then.owner_ids)) or f.id = any(files_then.roots));
$$;
comment on function private.files_then(uuid[], uuid[], uuid[], timestamptz) is
'Those of the files that could be found then by who had these owners and granted roots, and their heads.';

create function private.scope_then(scope private.search_scope, moment timestamptz) returns private.search_scope
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_mergejoin = off
as $$
declare
    v_scope private.search_scope := scope;
    v_user_id uuid := auth.uid();
    v_file_ids uuid[] := (scope).file_ids;
    v_gone uuid[];
begin
    if v_file_ids is null then
        v_file_ids := array(
            select n.id from public.nodes as n
            where n.owner_id = any((scope).owner_ids) and n.kind = 'file' and n.trashed_at is null
        ) || (scope).shared_file_ids;
    end if;
    with found as materialized (
        select f.*
        from private.files_then(
            v_file_ids, private.team_ids_then(v_user_id, moment) || v_user_id,
            private.roots_then(v_user_id, moment), moment
        ) as f
    ), changed as (
        -- "limit": by key
        select f.file_id, f.version_id, f.until
        from found as f
        cross join lateral (select n.head_version_id from public.nodes as n where n.id = f.file_id limit 1) as n
        where f.until <> 'infinity' and f.version_id is distinct from n.head_version_id
    )
    select
        array(select i.id from unnest(v_file_ids) as i (id) except select f.file_id from found as f),
        array_agg(c.file_id order by c.until desc, c.file_id), array_agg(c.version_id order by c.until desc, c.file_id)
    into v_gone, v_scope.past_file_ids, v_scope.past_version_ids
    from changed as c;
    v_scope.as_of := moment;
    v_scope.hidden_file_ids := (scope).hidden_file_ids || v_gone || v_scope.past_file_ids;
    select coalesce(array_agg(s.owner_id), '{}'), coalesce(array_agg(s.id), '{}')
    into v_scope.shared_owner_ids, v_scope.shared_file_ids
    from unnest((scope).shared_owner_ids, (scope).shared_file_ids) as s (owner_id, id)
    where (s.id in (select unnest(v_gone))) is not true;
    return v_scope;
end;
$$;
comment on function private.scope_then(private.search_scope, timestamptz) is
'A scope without what the caller could not find at that moment. Files whose head was another version are hidden from the
indexes, which have the head of today; they are listed apart, those that changed last first.';

create function private.name_scope(scope private.search_scope) returns private.search_scope
language plpgsql immutable
security invoker
set search_path = ''
as $$
begin
    if (scope).past_file_ids is not null then
        scope.hidden_file_ids := array(
            select h.id from unnest((scope).hidden_file_ids) as h (id)
            except
            select p.id from unnest((scope).past_file_ids) as p (id)
        );
    end if;
    return scope;
end;
$$;
comment on function private.name_scope(private.search_scope) is
'The scope of names: files whose head was another version are found by them.';

create function private.past_moment(options jsonb) returns timestamptz
language plpgsql stable
security invoker
set search_path = ''
set timezone = 'UTC' -- of what does not name its own
as $$
declare
    v_value jsonb := coalesce(options -> 'as_of', 'null');
    v_moment timestamptz;
begin
    if v_value = 'null' then
        return null;
    end if;
    if auth.uid() is null then
        perform private.raise_invalid('options.as_of', 'Whoever holds a link cannot look back: sign in.');
    end if;
    begin
        if jsonb_typeof(v_value) = 'string' and v_value #>> '{}'
            ~ '^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.]\d+)?)? ?(Z|[-+]\d\d(:?\d\d)?)?)?$' then
            v_moment := (v_value #>> '{}')::timestamptz;
        end if;
    exception when data_exception then
        null; -- 31 February
    end;
    if v_moment is null or v_moment > clock_timestamp() or v_moment < private.history_start() then
        perform private.raise_invalid(
            'options.as_of',
            case
                when v_moment is null then 'as_of must be a moment, such as 2026-05-03T12:00:00Z.'
                when v_moment > clock_timestamp() then 'as_of must not be in the future.'
                else 'So long ago nothing is known any more.'
            end,
            jsonb_build_object('expected', jsonb_build_object(
                'from', nullif(private.history_start(), '-infinity'), 'to', clock_timestamp()
            ))
        );
    end if;
    return v_moment;
end;
$$;
comment on function private.past_moment(jsonb) is
'The option as_of of a search, UTC where it does not say; null without. Raises INVALID_ARGUMENT.';

-- Versions of then -----------------------------------------------------------------------------

create function private.past_chunks(scope private.search_scope) returns setof public.chunks
language sql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
    select c.*
    from unnest((scope).past_version_ids) with ordinality as v (id, place)
    cross join lateral (
        select c.*
        from public.chunks as c
        where c.version_id = v.id
            and ((scope).languages is null or c.language = any((scope).languages))
            and ((scope).page_from is null or c.page >= (scope).page_from)
            and ((scope).page_to is null or c.page <= (scope).page_to)
        order by c.idx
        limit (private.setting('search.history_chunks'))::integer
    ) as c
    order by v.place, c.idx
    limit (private.setting('search.history_chunks'))::integer;
$$;
comment on function private.past_chunks(private.search_scope) is
'The chunks of the versions that were heads then and are not now, which pass the filters; only so many, those that
changed last first.';

create function private.past_weights(
    q private.search_query, languages text[], owner_id uuid, owner_ids uuid[], file_ids uuid[],
    weighted private.weighted_query
) returns table (lexeme text, is_beginning boolean, weight float8, bits integer)
language sql stable
security invoker
set search_path = ''
as $$
    -- as weigh_query; a word that nothing has any more counts, too
    with terms as (
        select f.term, sum(f.chunk_count) as chunk_count
        from private.find_terms(
            past_weights.q, past_weights.languages, past_weights.owner_id, past_weights.owner_ids, past_weights.file_ids
        ) as f
        group by f.term
    )
    select a.lexeme, a.is_beginning, sum(a.weight * i.idf * 2.2), bit_or(a.bits)
    from private.query_terms(past_weights.q, past_weights.languages) as a
    left join terms as t on t.term = a.term
    cross join lateral (
        select least(coalesce(t.chunk_count, 0), (past_weights.weighted).chunk_count)::float8 as df
    ) as d
    cross join lateral (
        select ln(1 + ((past_weights.weighted).chunk_count - d.df + 0.5) / (d.df + 0.5)) as idf
    ) as i
    group by a.lexeme, a.is_beginning;
$$;
comment on function private.past_weights(
    private.search_query, text[], uuid, uuid[], uuid[], private.weighted_query
) is
'What the words of a query weigh in chunks that are not in the index, by the statistics of those that are.';

create function private.search_past_keyword(query text, scope private.search_scope, chunks public.chunks[])
returns table (chunk_id uuid, score real)
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
set plan_cache_mode = auto -- the words of a text come three times as fast out of a plan for its language
as $$
declare
    v_query private.search_query := private.parse_query(query);
    v_languages text[] := array(select distinct coalesce(c.language, '') from unnest(chunks) as c);
    v_weighted private.weighted_query;
    v_owner_id uuid;
begin
    -- owner by owner, and what is shared, as search_keyword
    for v_owner_id in
        select distinct case when n.owner_id = any((scope).owner_ids) then n.owner_id end
        from (select distinct c.file_id from unnest(chunks) as c) as f
        inner join public.nodes as n on n.id = f.file_id
    loop
        v_weighted := case
            when v_owner_id is not null then private.weigh_query(v_query, v_owner_id)
            else private.weigh_query(v_query, null, (scope).shared_owner_ids, (scope).shared_file_ids)
        end;
        return query
        with words as materialized (
            select w.*
            from private.past_weights(
                v_query,
                array(
                    select distinct l
                    from (
                        select unnest(s.languages) as l from private.owner_statistics as s where s.owner_id = v_owner_id
                        union all
                        select unnest(f.languages)
                        from private.indexed_files as f
                        where v_owner_id is null and f.file_id = any((scope).shared_file_ids)
                        union all
                        select unnest(v_languages)
                    ) as l
                ),
                v_owner_id, (scope).shared_owner_ids, (scope).shared_file_ids, v_weighted
            ) as w
        )
        select c.id, s.score::real
        from (
            select c.*
            from unnest(chunks) as c
            inner join public.nodes as n on n.id = c.file_id
            where (v_owner_id is null and not n.owner_id = any((scope).owner_ids)) or n.owner_id = v_owner_id
        ) as c
        cross join lateral (
            with lexemes as materialized ( -- once, not for each word
                select t.lexeme, least(t.frequency, 65535) as frequency
                from private.lexemes(concat_ws(e'\n', c.context, c.content), c.language) as t
            ), size as (
                select least(sum(l.frequency), 16777215)::float8 as length from lexemes as l
            )
            select
                sum(w.weight / (1 + (0.3 + z.length * 0.9 / v_weighted.average) / l.frequency)) as score,
                bit_or(w.bits) as bits
            from lexemes as l
            inner join words as w
                on w.lexeme = l.lexeme or (w.is_beginning and starts_with(l.lexeme, w.lexeme))
            cross join size as z
        ) as s
        where s.score > 0
            and (v_query.phrases = '{}' or s.bits & (select bit_or(w.bits) from words as w)
                = (select bit_or(w.bits) from words as w))
            and private.passes_query(c.content, c.language, v_query);
    end loop;
end;
$$;
comment on function private.search_past_keyword(text, private.search_scope, public.chunks[]) is
'BM25 of chunks that are not in the index: their words are taken out of their text, as the index does.';

create function private.search_past_dense(
    space_id smallint, embedding extensions.halfvec, chunks public.chunks[], threshold real
) returns table (chunk_id uuid, score real)
language sql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
set enable_seqscan = off -- only ever look-ups by key, so that nobody's search reads other owners' rows
set enable_hashjoin = off
set enable_mergejoin = off
as $$
    select c.id, s.score
    from unnest(search_past_dense.chunks) as c
    inner join public.nodes as n on n.id = c.file_id
    inner join private.text_vectors as t
        on t.owner_id = n.owner_id and t.space_id = search_past_dense.space_id and t.text_hash = c.text_hash
    cross join lateral (
        select (-(t.embedding operator(extensions.<#>) extensions.l2_normalize(search_past_dense.embedding)))::real
            as score
    ) as s
    where threshold is null or s.score >= threshold;
$$;
comment on function private.search_past_dense(smallint, extensions.halfvec, public.chunks[], real) is
'The cosine of chunks that are not in service, as far as the space has vectors of their texts.';

create function private.ask_past(request private.search_call) returns private.leg_hits
language plpgsql stable
security invoker -- called by hybrid_search, as its owner
set search_path = ''
as $$
declare
    v_scope private.search_scope := (request).scope;
    v_options private.search_options := (request).options;
    v_began timestamptz := clock_timestamp();
    v_chunks public.chunks[];
    v_hits private.leg_hits;
begin
    if v_scope.as_of is null then
        return null;
    end if;
    v_chunks := array(select c from private.past_chunks(v_scope) as c);
    if v_options.keyword_weight > 0 then
        v_hits.keyword := array(
            select (k.chunk_id, k.score, null)::private.leg_hit
            from private.search_past_keyword((request).query, v_scope, v_chunks) as k
        );
    end if;
    if v_options.vector_weight > 0 and (request).embedding is not null then
        v_hits.vector := array(
            select (d.chunk_id, d.score, null)::private.leg_hit
            from private.search_past_dense(
                (request).space_id, (request).embedding, v_chunks, v_options.threshold
            ) as d
        );
    end if;
    v_hits.plan := jsonb_build_object(
        'moment', v_scope.as_of,
        'hidden_files', cardinality(v_scope.hidden_file_ids),
        'past_versions', coalesce(cardinality(v_scope.past_version_ids), 0),
        'passages', cardinality(v_chunks),
        'is_cut', cardinality(v_chunks) = (private.setting('search.history_chunks'))::integer,
        'ms', round(1000 * extract(epoch from clock_timestamp() - v_began), 1)
    );
    return v_hits;
end;
$$;
comment on function private.ask_past(private.search_call) is
'What the legs say of passages of versions that were heads then and are not now, in no order; null without as_of.';

create function private.with_past(hits private.leg_hit[], past private.leg_hit[], max_hits integer)
returns private.leg_hit[]
language sql immutable
security invoker
set search_path = ''
as $$
    select case when cardinality(with_past.past) > 0 then array(
        select (h.id, h.score, row_number() over (order by h.score desc, h.id))::private.leg_hit
        from unnest(with_past.hits || with_past.past) as h
        order by h.score desc, h.id
        limit max_hits
    ) else with_past.hits end;
$$;
comment on function private.with_past(private.leg_hit[], private.leg_hit[], integer) is
'What a leg finds in its index and in the past, as one ranking.';
