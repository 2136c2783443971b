-- What one search may look at: the caller's readable set, narrowed by filters.
--
-- The legs of search run in definer functions over covering indexes, because under row security `@@`, `&&` and
-- distances lose theirs. What is readable comes from the same predicate as the policies, never from an argument, and
-- the hits are checked against it once more before they are shown.

create type private.search_scope as (
    owner_ids uuid [],
    roots uuid [],
    shared_owner_ids uuid [],
    shared_file_ids uuid [],
    file_ids uuid [],
    hidden_file_ids uuid [],
    languages text [],
    page_from integer,
    page_to integer,
    as_of timestamptz,
    past_file_ids uuid [],
    past_version_ids uuid []
);
comment on type private.search_scope is
'What one search may look at: the caller''s owners and granted roots, files shared with them (and, in the same order,
whose they are), the files that pass the filters (null: all), those among all of them that the indexes must not show
(their own in the trash), filters on chunks (null: none). Of searches as of a moment also that, and files that had
another head then (in the same order, which); null otherwise.';

create function private.version_then(scope private.search_scope, file_id uuid, head_version_id uuid) returns uuid
language sql immutable
set search_path = ''
return case
    when (scope).past_file_ids is null then head_version_id
    else coalesce((scope).past_version_ids[array_position((scope).past_file_ids, file_id)], head_version_id)
end;
comment on function private.version_then(private.search_scope, uuid, uuid) is
'The head that a file had at the moment of a search; without as_of its head.';

create function private.filter_types() returns jsonb
language sql immutable parallel safe
return '{
    "folder_id": "uuid", "file_ids": "uuids", "types": "texts", "tags": "texts", "date_from": "timestamp",
    "date_to": "timestamp", "owner_ids": "uuids", "languages": "texts", "source": "text", "metadata": "object",
    "page_from": "number", "page_to": "number", "kinds": ["text", "image", "audio", "video"]
}'::jsonb;
comment on function private.filter_types() is 'The filters of a search, as check_filters takes them.';

create function private.check_filters(filters jsonb) returns void
language sql stable
security invoker
set search_path = ''
as $$ select private.check_filters(filters, private.filter_types()); $$;
comment on function private.check_filters(jsonb) is
'Raises INVALID_ARGUMENT naming the filter of a search that is unknown or malformed.';

create function private.json_texts(value jsonb) returns text[]
language sql immutable
set search_path = ''
as $$
    select case when jsonb_typeof(value) = 'array' then array(select jsonb_array_elements_text(value)) end;
$$;
comment on function private.json_texts(jsonb) is 'A JSON array as text[]; null for null.';

create function private.file_kind(mime text) returns text
language sql immutable parallel safe
return case
    when mime like 'image/%' then 'image' when mime like 'audio/%' then 'audio' when mime like 'video/%' then 'video'
    else 'text'
end;
comment on function private.file_kind(text) is 'What a file is for the filter kinds: text, image, audio or video.';

create function private.filtered_ids(filters jsonb, scope private.search_scope) returns uuid[]
language plpgsql stable
security invoker -- called by search_scope, as its owner
set search_path = ''
set enable_seqscan = off -- whatever the size of the table: never over the rows of others
as $$
declare
    v_types text[] := case when jsonb_typeof(filters -> 'types') = 'array' then
        array(select lower(ltrim(t, '.')) from jsonb_array_elements_text(filters -> 'types') as t)
    end;
    v_tags text[] := nullif(private.json_texts(filters -> 'tags'), '{}');
    v_metadata jsonb := nullif(nullif(filters -> 'metadata', 'null'), '{}');
    v_ids uuid[] := private.json_texts(filters -> 'file_ids')::uuid[];
    v_folder_id uuid := (filters ->> 'folder_id')::uuid;
    v_conditions text;
    v_source text;
begin
    if v_folder_id is not null then
        perform private.require_level(v_folder_id, 'view');
    end if;
    if v_tags is not null then
        perform private.require_user(); -- tags are for people, not for whoever holds a link
    end if;
    v_conditions := concat(
        ' and n.kind = ''file'' and n.trashed_at is null',
        case when v_folder_id is not null then ' and n.path @> array[$5]' end,
        -- what follows the last dot
        case when v_types is not null then
            ' and strpos(n.name, ''.'') > 0 and lower(split_part(n.name, ''.'', -1)) = any($6)'
        end,
        case when filters ->> 'date_from' is not null then ' and n.updated_at >= $7' end,
        case when filters ->> 'date_to' is not null then ' and n.updated_at <= $8' end,
        case when filters ->> 'owner_ids' is not null then ' and n.owner_id = any($9)' end,
        case when filters ->> 'source' is not null then ' and n.source = $10' end,
        -- what the index of them says, so that it is used
        case when v_metadata is not null then ' and n.metadata <> ''{}'' and n.metadata @> $11' end,
        case when filters ->> 'kinds' is not null then ' and private.file_kind(n.mime) = any($12)' end
    );
    if v_conditions = ' and n.kind = ''file'' and n.trashed_at is null' and num_nonnulls(v_ids, v_tags) = 0 then
        return null;
    end if;
    -- from the fewest: some files, what has a tag, a folder; else all that the caller can read
    if v_tags is not null then -- any of them
        v_ids := case
            when v_ids is null then private.tagged_ids(v_tags, (scope).owner_ids, (scope).shared_file_ids)
            else array(
                select i.id from unnest(v_ids) as i (id)
                intersect
                select t.id
                from unnest(private.tagged_ids(v_tags, (scope).owner_ids, (scope).shared_file_ids)) as t (id)
            )
        end;
    end if;
    if v_ids is not null then
        v_source := 'select n.id from (select distinct i.id from unnest($1) as i (id)) as f '
            || 'inner join public.nodes as n on n.id = f.id '
            || 'where private.is_readable(n.owner_id, n.path, n.trashed_at, $2, $3)' || v_conditions;
    elsif v_folder_id is not null then
        -- who sees a folder sees what is in it
        v_source := 'select n.id from public.nodes as n where true' || v_conditions;
    else
        v_source := 'select n.id from public.nodes as n where n.owner_id = any($2)' || v_conditions
            || ' union all select n.id from unnest($4) as f (id) inner join public.nodes as n on n.id = f.id where true'
            || v_conditions;
    end if;
    execute format('select coalesce(array_agg(f.id), ''{}'') from (%s) as f', v_source)
    into v_ids
    using v_ids, (scope).owner_ids, (scope).roots, (scope).shared_file_ids, v_folder_id, v_types,
        (filters ->> 'date_from')::timestamptz, (filters ->> 'date_to')::timestamptz,
        private.json_texts(filters -> 'owner_ids')::uuid[], filters ->> 'source', v_metadata,
        private.json_texts(filters -> 'kinds');
    return v_ids;
end;
$$;
comment on function private.filtered_ids(jsonb, private.search_scope) is
'The readable files that pass the filters on files; null when there are none of these filters. Raises NOT_FOUND for a
folder that is not visible.';

create function private.search_scope(filters jsonb) returns private.search_scope
language plpgsql stable
security definer -- collects files through the one predicate, which row security would apply without indexes
set search_path = ''
set enable_seqscan = off -- whatever the size of the table: never over the rows of others
as $$
declare
    v_scope private.search_scope;
begin
    v_scope.owner_ids := private.my_owner_ids();
    v_scope.roots := private.granted_roots();
    v_scope.languages := private.json_texts(filters -> 'languages');
    v_scope.page_from := (filters ->> 'page_from')::integer;
    v_scope.page_to := (filters ->> 'page_to')::integer;
    select coalesce(array_agg(n.owner_id), '{}'), coalesce(array_agg(n.id), '{}')
    into v_scope.shared_owner_ids, v_scope.shared_file_ids
    from public.nodes as n
    where n.path && v_scope.roots
        and not n.owner_id = any(v_scope.owner_ids)
        and n.kind = 'file'
        and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots);
    v_scope.hidden_file_ids := array(
        select n.id from public.nodes as n
        where n.owner_id = any(v_scope.owner_ids) and n.trashed_at is not null and n.kind = 'file'
    );
    v_scope.file_ids := private.filtered_ids(filters, v_scope);
    return v_scope;
end;
$$;
comment on function private.search_scope(jsonb) is
'The scope of a search by the caller. Raises NOT_FOUND for a folder that is not visible.';

create function private.passes_chunk_filters(chunk_id uuid, scope private.search_scope) returns boolean
language sql stable
security invoker
set search_path = ''
as $$
    select exists (
        select 1 from public.chunks as c
        where c.id = passes_chunk_filters.chunk_id
            and ((scope).languages is null or c.language = any((scope).languages))
            and ((scope).page_from is null or c.page >= (scope).page_from)
            and ((scope).page_to is null or c.page <= (scope).page_to)
    );
$$;
comment on function private.passes_chunk_filters(uuid, private.search_scope) is 'Language and page filters.';

create function private.has_chunk_filters(scope private.search_scope) returns boolean
language sql immutable
set search_path = ''
return num_nonnulls((scope).languages, (scope).page_from, (scope).page_to) > 0;
comment on function private.has_chunk_filters(private.search_scope) is
'Whether chunks must pass passes_chunk_filters.';

create function private.chunk_clause(scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    select concat(
        case when (scope).languages is not null then ' and c.language = any(($5).languages)' end,
        case when (scope).page_from is not null then ' and c.page >= ($5).page_from' end,
        case when (scope).page_to is not null then ' and c.page <= ($5).page_to' end
    );
$$;
comment on function private.chunk_clause(private.search_scope) is
'passes_chunk_filters as constant SQL text about a chunk c. Parameter: $5 the scope.';

create function private.file_clause(scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    -- few files are looked up, many are hashed; the subselects keep them from being planned one by one, and "is true"
    -- from being joined
    select concat(
        case when cardinality((scope).file_ids) <= 5000 then ' and t.file_id = any((select $3)::uuid[])'
            when (scope).file_ids is not null then ' and (t.file_id in (select unnest($3))) is true'
        end,
        case when cardinality((scope).hidden_file_ids) > 0
            then ' and (t.file_id in (select unnest($4))) is not true' end
    );
$$;
comment on function private.file_clause(private.search_scope) is
'The conditions of a scope on the file of a serving table t, as constant SQL text; only those that are needed, so that
each plan uses its index. Parameters: $3 file_ids, $4 hidden_file_ids.';

create function private.freshness(scope private.search_scope) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'pending_files', count(*),
        'index_lag', coalesce(extract(epoch from now() - min(v.created_at)), 0)
    )
    from (
        select n.id
        from public.nodes as n
        where n.status in ('queued', 'processing') and n.trashed_at is null and n.owner_id = any((scope).owner_ids)
        union all
        select n.id
        from unnest((scope).shared_owner_ids, (scope).shared_file_ids) as s (owner_id, id)
        inner join public.nodes as n on n.owner_id = s.owner_id and n.id = s.id -- in the index of what is pending
        where n.status in ('queued', 'processing') and n.trashed_at is null
    ) as p
    left join lateral (
        select max(f.created_at) as created_at from public.file_versions as f where f.file_id = p.id
    ) as v on true;
$$;
comment on function private.freshness(private.search_scope) is
'{pending_files: readable files that are not fully searchable yet, index_lag: age of the oldest of them in seconds}.';
