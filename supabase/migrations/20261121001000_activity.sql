-- Activity: favourites, what was opened last, views and downloads, tags, comments.
--
-- Favourites and the list of what was opened are a person's own state: the role viewer may change them. Tags and
-- comments belong to the node: whoever can read it sees them, with an account; anonymous holders of a link do not.

-- Pages ----------------------------------------------------------------------------------------

create function private.make_cursor(list text, at timestamptz, id uuid) returns text
language sql stable
security invoker
set search_path = ''
as $$
    select replace(encode(convert_to(jsonb_build_array(list, at, id)::text, 'UTF8'), 'base64'), e'\n', '');
$$;
comment on function private.make_cursor(text, timestamptz, uuid) is
'The cursor after a row of a list that is ordered by a time and an id.';
grant execute on function private.make_cursor(text, timestamptz, uuid) to authenticated;

create function private.read_cursor(cursor text, list text, out at timestamptz, out id uuid) returns record
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_parts jsonb;
begin
    if cursor is null then
        return;
    end if;
    begin
        v_parts := convert_from(decode(cursor, 'base64'), 'UTF8')::jsonb;
        at := (v_parts ->> 1)::timestamptz;
        id := (v_parts ->> 2)::uuid;
    exception when data_exception then
        v_parts := null;
    end;
    if v_parts ->> 0 is distinct from list or num_nulls(at, id) > 0 then
        perform private.raise_invalid('cursor', format('This cursor is not one that %s gave.', list));
    end if;
end;
$$;
comment on function private.read_cursor(text, text) is
'What make_cursor put into a cursor of this list. Raises INVALID_ARGUMENT (field cursor).';
grant execute on function private.read_cursor(text, text) to authenticated;

-- One's own state of a node --------------------------------------------------------------------

create table public.node_user_state (
    user_id uuid not null references auth.users on delete cascade,
    node_id uuid not null references public.nodes on delete cascade,
    favourited_at timestamptz,
    is_favourite boolean not null generated always as (favourited_at is not null) stored,
    last_opened_at timestamptz,
    primary key (user_id, node_id)
);
comment on table public.node_user_state is
'What a file or folder is to one person. It stays while the node is in the trash, and goes when that is purged.';
comment on column public.node_user_state.last_opened_at is 'When this person last looked at it or downloaded it.';
create index node_user_state_node_id_idx on public.node_user_state (node_id);
create index node_user_state_favourites_idx on public.node_user_state (user_id, favourited_at, node_id)
where favourited_at is not null;
create index node_user_state_recent_idx on public.node_user_state (user_id, last_opened_at, node_id)
where last_opened_at is not null;

create table public.node_stats (
    node_id uuid primary key references public.nodes on delete cascade,
    views bigint not null default 0,
    downloads bigint not null default 0,
    last_accessed_at timestamptz not null default now()
);
comment on table public.node_stats is
'How often a file or folder was looked at and downloaded, by anybody. No row: never.';

alter table public.node_user_state enable row level security;
alter table public.node_stats enable row level security;

create policy users_can_select on public.node_user_state
for select to authenticated
using (user_id = (select auth.uid()) and exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = node_id
));

create policy readers_can_select on public.node_stats
for select to authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = node_id
));

grant select on public.node_user_state, public.node_stats to authenticated, service_role;

create function private.set_favourite(node uuid, is_favourite boolean) returns public.node_user_state
language plpgsql volatile
security definer -- clients only read the state
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_actor();
    v_state public.node_user_state;
begin
    if is_favourite is null then
        perform private.raise_invalid('is_favourite', 'is_favourite must be true or false.');
    end if;
    -- it may be on its way out: wait for that, then look
    perform from public.nodes as n where n.id = node for key share;
    perform private.require_level(node, 'view');
    insert into public.node_user_state as s (user_id, node_id, favourited_at)
    values (v_user_id, node, case when set_favourite.is_favourite then now() end)
    on conflict (user_id, node_id) do update
    set favourited_at = case when set_favourite.is_favourite then coalesce(s.favourited_at, now()) end
    returning * into v_state;
    return v_state;
end;
$$;
comment on function private.set_favourite(uuid, boolean) is 'Behind public.set_favourite.';
grant execute on function private.set_favourite(uuid, boolean) to anon, authenticated;

create function public.set_favourite(node uuid, is_favourite boolean default true) returns public.node_user_state
language sql volatile
security invoker
set search_path = ''
as $$ select private.set_favourite(node, is_favourite); $$;
comment on function public.set_favourite(uuid, boolean) is
'Mark a file or folder as a favourite of your own, or no longer; returns your state of it.

Needs level view only, and any role, since nobody else sees it. Raises NOT_FOUND, INVALID_ARGUMENT.';
grant execute on function public.set_favourite(uuid, boolean) to anon, authenticated;

create function private.list_states(list text, ordered_by text, page_size integer, cursor text) returns jsonb
language plpgsql stable
security invoker -- the policies decide what is listed
set search_path = ''
as $$
declare
    v_after record;
    v_rows jsonb;
    v_last jsonb;
begin
    perform private.require_user();
    if page_size is null or page_size not between 1 and 1000 then
        perform private.raise_invalid('page_size', 'A page has 1 to 1000 items.');
    end if;
    v_after := private.read_cursor(cursor, list);
    -- one row more than asked tells whether there is a next page
    execute format(
        $query$
        select coalesce(jsonb_agg(p.item order by p.at desc, p.id desc), '[]')
        from (
            select s.%1$I as at, n.id, to_jsonb(n) - 'path' || jsonb_build_object(
                'is_favourite', s.is_favourite,
                'favourited_at', s.favourited_at,
                'last_opened_at', s.last_opened_at
            ) as item
            from public.node_user_state as s inner join public.nodes as n on n.id = s.node_id
            where s.user_id = (select auth.uid())
                and s.%1$I is not null
                and ($1 is null or (s.%1$I, s.node_id) < ($1, $2))
            order by s.%1$I desc, s.node_id desc
            limit $3 + 1
        ) as p
        $query$, ordered_by
    ) into v_rows using v_after.at, v_after.id, page_size;
    if jsonb_array_length(v_rows) > page_size then
        v_rows := v_rows - page_size;
        v_last := v_rows -> -1;
    end if;
    return jsonb_build_object(
        'items', v_rows,
        'next_cursor', case when v_last is not null then
            private.make_cursor(list, (v_last ->> ordered_by)::timestamptz, (v_last ->> 'id')::uuid)
        end
    );
end;
$$;
comment on function private.list_states(text, text, integer, text) is
'Behind public.list_favourites and list_recent: nodes by one of the times in the caller''s state, newest first.';
grant execute on function private.list_states(text, text, integer, text) to anon, authenticated;

create function public.list_favourites(page_size integer default 100, cursor text default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_states('list_favourites', 'favourited_at', page_size, cursor); $$;
comment on function public.list_favourites(integer, text) is
'List your favourites, the newest first: {items, next_cursor}.

Items are nodes with is_favourite, favourited_at and last_opened_at. What is in the trash, or no longer shared with you,
is left out, and comes back with it. page_size: 1 to 1000. cursor: the next_cursor of the page before. Raises
INVALID_ARGUMENT (field page_size or cursor).';
grant execute on function public.list_favourites(integer, text) to anon, authenticated;

create function public.list_recent(page_size integer default 50, cursor text default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_states('list_recent', 'last_opened_at', page_size, cursor); $$;
comment on function public.list_recent(integer, text) is
'List what you looked at or downloaded, the latest first: {items, next_cursor}.

Items are nodes with is_favourite, favourited_at and last_opened_at. What is opened again while you turn pages moves to
the front. page_size: 1 to 1000. cursor: the next_cursor of the page before. Raises INVALID_ARGUMENT (field page_size or
cursor).';
grant execute on function public.list_recent(integer, text) to anon, authenticated;

-- Looking and downloading ----------------------------------------------------------------------

create function private.count_access(node_id uuid, views integer, downloads integer)
returns public.node_user_state
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_state public.node_user_state;
begin
    if auth.uid() is not null then
        insert into public.node_user_state as s (user_id, node_id, last_opened_at)
        values (auth.uid(), count_access.node_id, now())
        on conflict on constraint node_user_state_pkey do update
        set last_opened_at = greatest(s.last_opened_at, now())
        returning * into v_state;
    end if;
    -- last, because everybody who opens it at this moment waits here
    insert into public.node_stats as s (node_id, views, downloads, last_accessed_at)
    values (count_access.node_id, count_access.views, count_access.downloads, now())
    on conflict on constraint node_stats_pkey do update
    set views = s.views + excluded.views,
        downloads = s.downloads + excluded.downloads,
        last_accessed_at = greatest(s.last_accessed_at, now());
    return v_state;
end;
$$;
comment on function private.count_access(uuid, integer, integer) is
'Adds to the counters of a node, which the caller has locked, and remembers that the user opened it; returns their state
of it, null for anonymous holders of a link.';

create function private.record_view(node uuid) returns public.node_user_state
language plpgsql volatile
security definer -- clients only read counters and state
set search_path = ''
as $$
begin
    perform private.hold_account(auth.uid());
    -- it may be on its way out: wait for that, then look
    perform from public.nodes as n where n.id = node for key share;
    perform private.require_level(node, 'view');
    return private.count_access(node, 1, 0);
end;
$$;
comment on function private.record_view(uuid) is 'Behind public.record_view.';
grant execute on function private.record_view(uuid) to anon, authenticated;

create function public.record_view(node uuid) returns public.node_user_state
language sql volatile
security invoker
set search_path = ''
as $$ select private.record_view(node); $$;
comment on function public.record_view(uuid) is
'Say that a file or folder was opened: counts a view, and puts it first in list_recent; returns your state of it.

Holders of a link may call it without an account; they get null. Raises NOT_FOUND.';
grant execute on function public.record_view(uuid) to anon, authenticated;

create function private.begin_download(file_id uuid, version_id uuid) returns jsonb
language plpgsql volatile
security definer -- reads the blob's place, which the API does not show otherwise
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_version public.file_versions;
    v_blob private.blobs;
begin
    perform private.hold_account(auth.uid());
    -- it may be on its way out: wait for that, then look
    perform from public.nodes as n where n.id = begin_download.file_id for key share;
    v_file := private.require_level(file_id, 'view');
    if v_file.kind <> 'file' then
        perform private.raise_invalid('file_id', 'A folder has no bytes of its own; download the files in it.');
    end if;
    -- the head; before there is one, what was uploaded
    select v.* into v_version
    from public.file_versions as v
    where v.file_id = v_file.id
        and v.id = coalesce(begin_download.version_id, v_file.head_version_id, v.id)
    order by v.no desc
    limit 1;
    if v_version.id is null and begin_download.version_id is not null then
        perform private.raise_error(
            'NOT_FOUND', 'This file has no such version.',
            jsonb_build_object('id', file_id, 'version_id', begin_download.version_id)
        );
    end if;
    select b.* into v_blob from private.blobs as b where b.id = v_version.blob_id and b.released_at is null;
    if v_blob.id is null then
        perform private.raise_error(
            'CONFLICT_STATE',
            case when v_version.id is null then 'Nothing has been uploaded yet.' else 'The bytes are gone.' end,
            jsonb_build_object(
                'id', file_id, 'version_id', v_version.id, 'status', coalesce(v_version.status, v_file.status)
            )
        );
    end if;
    perform private.count_access(v_file.id, 0, 1);
    perform private.write_audit(
        'download', v_file.id, null, null, jsonb_build_object('version_id', v_version.id)
    );
    return jsonb_build_object(
        'bucket', v_blob.bucket,
        'key', v_blob.key,
        'name', v_file.name,
        'size', v_blob.size,
        'mime', v_version.mime,
        'sha256', v_version.sha256,
        'version_id', v_version.id
    );
end;
$$;
comment on function private.begin_download(uuid, uuid) is 'Behind public.begin_download.';
grant execute on function private.begin_download(uuid, uuid) to anon, authenticated;

create function public.begin_download(file_id uuid, version_id uuid default null) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.begin_download(file_id, version_id); $$;
comment on function public.begin_download(uuid, uuid) is
'Where the bytes of a file are, to download or sign: {bucket, key, name, size, mime, sha256, version_id}.

version_id: null for the current one. Counts a download and writes it to the audit log. Holders of a link may call it
without an account. Ask each time: a key may change. Raises NOT_FOUND, INVALID_ARGUMENT for a folder, CONFLICT_STATE
while nothing is uploaded, or when the bytes are gone.';
grant execute on function public.begin_download(uuid, uuid) to anon, authenticated;

-- Tags -----------------------------------------------------------------------------------------

create table public.node_tags (
    node_id uuid not null references public.nodes on delete cascade,
    tag text not null check (char_length(tag) between 1 and 64),
    tag_key text not null generated always as (private.name_key(tag)) stored,
    owner_id uuid not null references public.owners on delete cascade,
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    primary key (node_id, tag_key)
);
comment on table public.node_tags is
'Words that people put on files and folders. Each counts for its own node, not for what is below a folder.';
comment on column public.node_tags.tag_key is 'Two spellings of one tag share it: case and Unicode composition folded.';
comment on column public.node_tags.owner_id is 'The node''s owner, so that nobody''s search reads other owners'' tags.';
create index node_tags_owner_id_idx on public.node_tags (owner_id, tag_key, node_id);
create index node_tags_created_by_idx on public.node_tags (created_by);

alter table public.node_tags enable row level security;

create policy readers_can_select on public.node_tags
for select to authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = node_id
));

grant select on public.node_tags to authenticated, service_role;

create trigger _800_advance_inserted
after insert on public.node_tags
referencing new table as inserted
for each statement execute function private.tg__advance_owners();

create trigger _800_advance_updated
after update on public.node_tags
referencing old table as deleted new table as inserted
for each statement execute function private.tg__advance_owners();

create trigger _800_advance_deleted
after delete on public.node_tags
referencing old table as deleted
for each statement execute function private.tg__advance_owners();

create function private.tg_nodes__move_tags() returns trigger
language plpgsql volatile
security definer -- runs for whoever moves
set search_path = ''
as $$
begin
    update public.node_tags as t set owner_id = new.owner_id where t.node_id = new.id;
    return null; -- after trigger
end;
$$;
comment on function private.tg_nodes__move_tags() is 'Takes the tags along when a node gets another owner.';

create trigger _510_move_tags
after update of owner_id on public.nodes
for each row when (old.owner_id is distinct from new.owner_id)
execute function private.tg_nodes__move_tags();

create function private.clean_tags(field text, tags text[]) returns text[]
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_tag text;
    v_tags text[] := '{}';
begin
    foreach v_tag in array coalesce(tags, '{}') loop
        v_tag := normalize(regexp_replace(
            v_tag, '^[\s\u00a0\u1680\u2000-\u200f\u3000\ufeff]+|[\s\u00a0\u1680\u2000-\u200f\u3000\ufeff]+$', '', 'g'
        ), nfc);
        if v_tag is null or char_length(v_tag) not between 1 and 64 then
            perform private.raise_invalid(field, 'A tag has 1 to 64 characters.');
        end if;
        if v_tag ~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]' then
            perform private.raise_invalid(
                field, 'A tag cannot contain control characters or direction overrides.'
            );
        end if;
        v_tags := v_tags || v_tag;
    end loop;
    return v_tags;
end;
$$;
comment on function private.clean_tags(text, text[]) is
'Tags as they are stored: trimmed, composed. Raises INVALID_ARGUMENT naming the field.';

create function private.tag_keys(tags text[]) returns text[]
language sql immutable parallel safe
set search_path = ''
as $$
    select coalesce(array_agg(private.name_key(btrim(t.tag))), '{}') from unnest(tag_keys.tags) as t (tag);
$$;
comment on function private.tag_keys(text[]) is 'What to compare node_tags.tag_key with.';

create function private.tag_node(node_id uuid, add text[], remove text[]) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_node public.nodes := private.require_level(tag_node.node_id, 'edit');
begin
    delete from public.node_tags as t
    where t.node_id = v_node.id and t.tag_key = any(private.tag_keys(remove));
    insert into public.node_tags (node_id, tag, owner_id, created_by)
    select v_node.id, a.tag, v_node.owner_id, auth.uid()
    from unnest(add) as a (tag)
    on conflict do nothing;
    if (select count(*) from public.node_tags as t where t.node_id = v_node.id) > 50 then
        perform private.raise_invalid('add', 'A file or folder has at most 50 tags.', '{"limit": 50}');
    end if;
end;
$$;
comment on function private.tag_node(uuid, text[], text[]) is
'Takes tags from one node, then gives it others. The caller holds the lock on the node.';

create function private.tag_nodes(ids uuid[], add text[], remove text[]) returns jsonb
language plpgsql volatile
security definer -- clients only read tags
set search_path = ''
as $$
declare
    v_id uuid;
    v_add text[];
    v_remove text[];
    v_detail text;
    v_problems jsonb := '[]';
begin
    perform private.require_writer();
    if ids is null or cardinality(ids) not between 1 and 1000 then
        perform private.raise_invalid('ids', 'Name 1 to 1000 files or folders.');
    end if;
    v_add := private.clean_tags('add', add);
    v_remove := private.clean_tags('remove', remove);
    -- one change at a time for a node, so that its tags can be counted
    perform from public.nodes as n where n.id = any(ids) order by n.id for no key update;
    for v_id in select distinct i.id from unnest(ids) as i (id) order by i.id loop
        begin
            perform private.tag_node(v_id, v_add, v_remove);
        exception when others then
            get stacked diagnostics v_detail = pg_exception_detail;
            v_problems := v_problems || private.batch_item(v_id, sqlstate, sqlerrm, v_detail);
        end;
    end loop;
    perform private.raise_batch(v_problems);
    return jsonb_build_object('items', (
        select jsonb_agg(
            jsonb_build_object('id', i.id, 'tags', array(
                select t.tag from public.node_tags as t where t.node_id = i.id order by t.tag_key
            )) order by i.id
        )
        from (select distinct u.id from unnest(ids) as u (id)) as i
    ));
end;
$$;
comment on function private.tag_nodes(uuid[], text[], text[]) is 'Behind public.tag_nodes.';
grant execute on function private.tag_nodes(uuid[], text[], text[]) to anon, authenticated;

create function public.tag_nodes(ids uuid[], add text[] default '{}', remove text[] default '{}') returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.tag_nodes(ids, add, remove); $$;
comment on function public.tag_nodes(uuid[], text[], text[]) is
'Put tags on files and folders, take others off: {items: [{id, tags}]}. All or nothing.

A tag has 1 to 64 characters and is kept as it was first written; case and composition make no difference. A node has at
most 50. `remove` comes before `add`, so both together change the spelling. Needs level edit. Raises INVALID_ARGUMENT
(field ids, add or remove), NOT_FOUND or FORBIDDEN with details.items.';
grant execute on function public.tag_nodes(uuid[], text[], text[]) to anon, authenticated;

create function private.list_tags() returns jsonb
language plpgsql stable
security definer -- reads through the one predicate, by index, which row security would apply without
set search_path = ''
as $$
declare
    v_owner_ids uuid[] := private.my_owner_ids();
    v_roots uuid[] := private.granted_roots();
begin
    perform private.require_user();
    return jsonb_build_object('items', (
        select coalesce(
            jsonb_agg(jsonb_build_object('tag', g.tag, 'count', g.count) order by g.count desc, g.tag_key), '[]'
        )
        from (
            -- the spelling that most have
            select r.tag_key, mode() within group (order by r.tag) as tag, count(*) as count
            from (
                select t.tag_key, t.tag
                from public.node_tags as t inner join public.nodes as n on n.id = t.node_id
                where t.owner_id = any(v_owner_ids)
                    and private.is_readable(n.owner_id, n.path, n.trashed_at, v_owner_ids, v_roots)
                union all
                select t.tag_key, t.tag
                from public.nodes as n inner join public.node_tags as t on t.node_id = n.id
                where n.path && v_roots
                    and not n.owner_id = any(v_owner_ids)
                    and private.is_readable(n.owner_id, n.path, n.trashed_at, v_owner_ids, v_roots)
            ) as r
            group by r.tag_key
            order by count desc, r.tag_key
            limit 1000
        ) as g
    ), 'next_cursor', null);
end;
$$;
comment on function private.list_tags() is 'Behind public.list_tags.';
grant execute on function private.list_tags() to anon, authenticated;

create function public.list_tags() returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_tags(); $$;
comment on function public.list_tags() is
'The tags of all that you can read, the most used first: {items: [{tag, count}], next_cursor}.

At most 1000, in one page. Tags in the trash do not count.';
grant execute on function public.list_tags() to anon, authenticated;

create function private.tagged_ids(tags text[], owner_ids uuid[], shared_ids uuid[]) returns uuid[]
language sql stable
security invoker -- called by search, as its owner
set search_path = ''
as $$
    select coalesce(array_agg(f.node_id), '{}')
    from (
        select t.node_id
        from public.node_tags as t
        where t.owner_id = any(tagged_ids.owner_ids) and t.tag_key = any(private.tag_keys(tagged_ids.tags))
        union
        select t.node_id
        from public.node_tags as t
        where t.node_id = any(tagged_ids.shared_ids) and t.tag_key = any(private.tag_keys(tagged_ids.tags))
    ) as f;
$$;
comment on function private.tagged_ids(text[], uuid[], uuid[]) is
'The nodes of these owners, and those of some others, that have any of the tags.';

-- Comments -------------------------------------------------------------------------------------

create table public.comments (
    id uuid primary key default gen_random_uuid(),
    node_id uuid not null references public.nodes on delete cascade,
    author_id uuid references auth.users on delete set null,
    body text check (char_length(body) between 1 and 10000),
    parent_id uuid references public.comments on delete cascade,
    created_at timestamptz not null default now(),
    edited_at timestamptz,
    deleted_at timestamptz,
    resolved_at timestamptz,
    resolved_by uuid references auth.users on delete set null,
    check ((body is null) = (deleted_at is not null)),
    check (parent_id is null or resolved_at is null)
);
comment on table public.comments is
'What people say about a file or folder. All with an account who can read the node read them; level comment writes.';
comment on column public.comments.author_id is 'Who wrote it; null once that account is deleted.';
comment on column public.comments.parent_id is 'The comment that it answers; answers are one level deep.';
comment on column public.comments.deleted_at is 'Set, and the body taken, when a comment with answers was deleted.';
comment on column public.comments.resolved_at is 'When somebody said that it is settled; never on an answer.';
create index comments_node_id_idx on public.comments (node_id, created_at);
create index comments_author_id_idx on public.comments (author_id);
create index comments_parent_id_idx on public.comments (parent_id);
create index comments_resolved_by_idx on public.comments (resolved_by);

alter table public.comments enable row level security;

create policy readers_can_select on public.comments
for select to authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = node_id
));

grant select on public.comments to authenticated, service_role;

create function private.check_body(body text) returns text
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if body is null or body !~ '[^\s\u00a0\u1680\u2000-\u200f\u202f\u205f-\u2064\u3000\ufeff]' then
        perform private.raise_invalid('body', 'A comment cannot be empty.');
    end if;
    if char_length(body) > 10000 then
        perform private.raise_invalid('body', 'A comment has at most 10000 characters.', '{"limit": 10000}');
    end if;
    return body;
end;
$$;
comment on function private.check_body(text) is 'The body itself, as given. Raises INVALID_ARGUMENT (field body).';

create function private.require_comment(id uuid, level text) returns public.comments
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_comment public.comments;
    v_node public.nodes;
begin
    perform private.require_writer();
    select c.* into v_comment from public.comments as c where c.id = require_comment.id;
    -- it may be on its way out: wait for that, then look
    perform from public.nodes as n where n.id = v_comment.node_id for key share;
    select n.* into v_node from public.nodes as n where n.id = v_comment.node_id;
    if private.my_level(v_node) is not null then
        perform private.require_level(v_node.id, level);
        select c.* into v_comment from public.comments as c where c.id = require_comment.id for update;
        if v_comment.deleted_at is null and v_comment.id is not null then
            return v_comment;
        end if;
    end if;
    -- absent, deleted and not-yours look alike on purpose
    perform private.raise_error('NOT_FOUND', 'No such comment.', jsonb_build_object('id', require_comment.id));
end;
$$;
comment on function private.require_comment(uuid, text) is
'A comment that stands, locked, when the caller may write and has this level on its node. Raises NOT_AUTHENTICATED,
NOT_FOUND or FORBIDDEN.';

create function private.add_comment(node uuid, body text, reply_to uuid, mentions uuid[]) returns public.comments
language plpgsql volatile
security definer -- clients only read comments
set search_path = ''
as $$
declare
    v_answered public.comments;
    v_comment public.comments;
begin
    perform private.require_writer();
    -- it may be on its way out: wait for that, then look
    perform from public.nodes as n where n.id = node for key share;
    perform private.require_level(node, 'comment');
    perform private.check_body(body);
    if cardinality(mentions) > 50 then
        perform private.raise_invalid('mentions', 'A comment mentions at most 50 people.', '{"limit": 50}');
    end if;
    if reply_to is not null then
        v_answered := private.require_comment(reply_to, 'comment');
        if v_answered.node_id <> node then
            perform private.raise_invalid('reply_to', 'That comment is about something else.');
        end if;
    end if;
    insert into public.comments (node_id, author_id, body, parent_id)
    -- an answer to an answer joins the others
    values (node, auth.uid(), add_comment.body, coalesce(v_answered.parent_id, v_answered.id))
    returning * into v_comment;
    perform private.notify_of_comment(v_comment, v_answered.author_id, mentions);
    return v_comment;
end;
$$;
comment on function private.add_comment(uuid, text, uuid, uuid[]) is 'Behind public.add_comment.';
grant execute on function private.add_comment(uuid, text, uuid, uuid[]) to anon, authenticated;

create function public.add_comment(
    node uuid, body text, reply_to uuid default null, mentions uuid[] default '{}'
) returns public.comments
language sql volatile
security invoker
set search_path = ''
as $$ select private.add_comment(node, body, reply_to, mentions); $$;
comment on function public.add_comment(uuid, text, uuid, uuid[]) is
'Say something about a file or folder; returns the comment.

body: 1 to 10000 characters. reply_to: the comment that it answers. mentions: ids of people to notify, at most 50; who
cannot read the node is passed over in silence. Needs level comment. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT
(field body, reply_to or mentions).';
grant execute on function public.add_comment(uuid, text, uuid, uuid[]) to anon, authenticated;

create function private.edit_comment(id uuid, body text) returns public.comments
language plpgsql volatile
security definer -- clients only read comments
set search_path = ''
as $$
declare
    v_comment public.comments := private.require_comment(id, 'comment');
begin
    if v_comment.author_id is distinct from auth.uid() then
        perform private.raise_error(
            'FORBIDDEN', 'Only its author can change a comment.', jsonb_build_object('id', v_comment.id)
        );
    end if;
    perform private.check_body(body);
    update public.comments as c
    set body = edit_comment.body, edited_at = now()
    where c.id = v_comment.id
    returning * into v_comment;
    return v_comment;
end;
$$;
comment on function private.edit_comment(uuid, text) is 'Behind public.edit_comment.';
grant execute on function private.edit_comment(uuid, text) to anon, authenticated;

create function public.edit_comment(id uuid, body text) returns public.comments
language sql volatile
security invoker
set search_path = ''
as $$ select private.edit_comment(id, body); $$;
comment on function public.edit_comment(uuid, text) is
'Change a comment of your own; returns it, with edited_at.

Needs level comment, still. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT (field body).';
grant execute on function public.edit_comment(uuid, text) to anon, authenticated;

create function private.delete_comment(id uuid) returns void
language plpgsql volatile
security definer -- clients only read comments
set search_path = ''
as $$
declare
    v_comment public.comments := private.require_comment(id, 'view');
begin
    if v_comment.author_id is distinct from auth.uid() then
        perform private.require_level(v_comment.node_id, 'manage');
    end if;
    if exists (select 1 from public.comments as c where c.parent_id = v_comment.id) then
        update public.comments as c set body = null, deleted_at = now() where c.id = v_comment.id;
        return;
    end if;
    delete from public.comments as c where c.id = v_comment.id;
    -- what stayed only for its answers goes with the last of them
    perform from public.comments as c where c.id = v_comment.parent_id for update;
    delete from public.comments as c
    where c.id = v_comment.parent_id
        and c.deleted_at is not null
        and not exists (select 1 from public.comments as r where r.parent_id = c.id);
end;
$$;
comment on function private.delete_comment(uuid) is 'Behind public.delete_comment.';
grant execute on function private.delete_comment(uuid) to anon, authenticated;

create function public.delete_comment(id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$ select private.delete_comment(id); $$;
comment on function public.delete_comment(uuid) is
'Take back a comment of your own, or, with level manage, remove anybody''s.

One that has answers stays without its body, with deleted_at, until they are deleted as well. Raises NOT_FOUND,
FORBIDDEN.';
grant execute on function public.delete_comment(uuid) to anon, authenticated;

create function private.resolve_comment(id uuid, is_resolved boolean) returns public.comments
language plpgsql volatile
security definer -- clients only read comments
set search_path = ''
as $$
declare
    v_comment public.comments := private.require_comment(id, 'comment');
begin
    if v_comment.parent_id is not null then
        perform private.raise_invalid('id', 'An answer is settled with the comment that it answers.');
    end if;
    if is_resolved is null then
        perform private.raise_invalid('is_resolved', 'is_resolved must be true or false.');
    end if;
    update public.comments as c
    set resolved_at = case when is_resolved then coalesce(c.resolved_at, now()) end,
        resolved_by = case when is_resolved then coalesce(c.resolved_by, auth.uid()) end
    where c.id = v_comment.id
    returning * into v_comment;
    return v_comment;
end;
$$;
comment on function private.resolve_comment(uuid, boolean) is 'Behind public.resolve_comment.';
grant execute on function private.resolve_comment(uuid, boolean) to anon, authenticated;

create function public.resolve_comment(id uuid, is_resolved boolean default true) returns public.comments
language sql volatile
security invoker
set search_path = ''
as $$ select private.resolve_comment(id, is_resolved); $$;
comment on function public.resolve_comment(uuid, boolean) is
'Say that the matter of a comment is settled, or open again; returns the comment.

Needs level comment. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT (field id) for an answer.';
grant execute on function public.resolve_comment(uuid, boolean) to anon, authenticated;
