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
    page_to integer
);
comment on type private.search_scope is
'What one search may look at: the caller''s owners and granted roots, files shared with them (and, in the same order,
whose they are), the files that pass the filters (null: all), their own files in the trash, and filters on chunks (null: none).';

create function private.check_filters(filters jsonb) returns void
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_key text;
    v_value jsonb;
    v_kind text;
begin
    if jsonb_typeof(filters) <> 'object' then
        perform private.raise_invalid('filters', 'filters must be an object.');
    end if;
    for v_key, v_value in select f.key, f.value from jsonb_each(filters) as f loop
        v_kind := case
            when v_key in ('file_ids', 'types', 'tags', 'owner_ids', 'languages', 'kinds') then 'array'
            when v_key in ('folder_id', 'date_from', 'date_to', 'source') then 'string'
            when v_key in ('page_from', 'page_to') then 'number'
            when v_key = 'metadata' then 'object'
        end;
        if v_kind is null then
            perform private.raise_invalid(
                'filters.' || v_key,
                format('There is no filter "%s".', v_key),
                '{"expected": ["folder_id", "file_ids", "types", "tags", "date_from", "date_to", "owner_ids", "languages",
                  "source", "metadata", "page_from", "page_to", "kinds"]}'
            );
        end if;
        if v_value <> 'null' and jsonb_typeof(v_value) <> v_kind then
            perform private.raise_invalid('filters.' || v_key, format('%s must be null or a JSON %s.', v_key, v_kind));
        end if;
        begin
            if v_key in ('file_ids', 'owner_ids') then
                perform private.json_texts(v_value)::uuid[];
            elsif v_key = 'folder_id' then
                perform (filters ->> v_key)::uuid;
            elsif v_key in ('date_from', 'date_to') then
                perform (filters ->> v_key)::timestamptz;
            elsif v_key in ('page_from', 'page_to') then
                perform (filters ->> v_key)::integer;
            end if;
        exception when data_exception then
            perform private.raise_invalid('filters.' || v_key, format('%s has a value that cannot be read.', v_key));
        end;
    end loop;
end;
$$;
comment on function private.check_filters(jsonb) is
'Raises INVALID_ARGUMENT naming the filter that is unknown or malformed.';

create function private.json_texts(value jsonb) returns text[]
language sql immutable
set search_path = ''
as $$
    select case when jsonb_typeof(value) = 'array' then array(select jsonb_array_elements_text(value)) end;
$$;
comment on function private.json_texts(jsonb) is 'A JSON array as text[]; null for null.';

create function private.search_scope(filters jsonb) returns private.search_scope
language plpgsql stable
security definer -- collects files through the one predicate, which row security would apply without indexes
set search_path = ''
as $$
declare
    v_scope private.search_scope;
    v_types text[] := case when jsonb_typeof(filters -> 'types') = 'array' then
        array(select lower(ltrim(t, '.')) from jsonb_array_elements_text(filters -> 'types') as t)
    end;
    v_file_ids uuid[] := private.json_texts(filters -> 'file_ids')::uuid[];
    v_owner_ids uuid[] := private.json_texts(filters -> 'owner_ids')::uuid[];
    v_folder_id uuid := (filters ->> 'folder_id')::uuid;
    v_date_from timestamptz := (filters ->> 'date_from')::timestamptz;
    v_date_to timestamptz := (filters ->> 'date_to')::timestamptz;
    v_tags text[] := nullif(private.json_texts(filters -> 'tags'), '{}');
    v_tagged_ids uuid[];
    -- no file carries a source or metadata so far, and all that is searched is text
    v_asks_for_more boolean := filters ->> 'source' is not null
        or coalesce(nullif(filters -> 'metadata', 'null'), '{}') <> '{}'
        or not coalesce(nullif(filters -> 'kinds', 'null') ? 'text', true);
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
    if v_folder_id is not null then
        perform private.require_level(v_folder_id, 'view');
    end if;
    if v_tags is not null then -- any of them
        v_tagged_ids := private.tagged_ids(v_tags, v_scope.owner_ids, v_scope.shared_file_ids);
    end if;
    if num_nonnulls(v_types, v_file_ids, v_owner_ids, v_folder_id, v_date_from, v_date_to, v_tags) > 0
        or v_asks_for_more then
        v_scope.file_ids := array(
            select n.id from public.nodes as n
            where n.kind = 'file'
                and private.is_readable(n.owner_id, n.path, n.trashed_at, v_scope.owner_ids, v_scope.roots)
                and (v_folder_id is null or n.path && array[v_folder_id])
                and (v_file_ids is null or n.id = any(v_file_ids))
                and (v_tags is null or n.id = any(v_tagged_ids))
                and (v_owner_ids is null or n.owner_id = any(v_owner_ids))
                and (v_types is null or lower(substring(n.name from '\.([^.]+)$')) = any(v_types))
                and (v_date_from is null or n.updated_at >= v_date_from)
                and (v_date_to is null or n.updated_at <= v_date_to)
                and not v_asks_for_more
        );
    end if;
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

create function private.file_clause(scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    select concat(
        case when (scope).file_ids is not null then ' and t.file_id = any($3)' end,
        case when cardinality((scope).hidden_file_ids) > 0 then ' and not t.file_id = any($4)' end
    );
$$;
comment on function private.file_clause(private.search_scope) is
'The conditions of a scope on the file of a serving table t, as constant SQL text; only those that are needed, so that
each plan uses its index. Parameters: $3 file_ids, $4 hidden_file_ids.';

create function private.scope_clause(scope private.search_scope) returns text
language sql immutable
set search_path = ''
as $$
    select private.file_clause(scope)
        || case when private.has_chunk_filters(scope)
            then ' and private.passes_chunk_filters(t.chunk_id, $5)' else '' end;
$$;
comment on function private.scope_clause(private.search_scope) is
'file_clause, and the filters on chunks. Parameter: $5 the scope.';

create function private.freshness(scope private.search_scope) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'pending_files', count(*),
        'index_lag', coalesce(extract(epoch from now() - min(v.created_at)), 0)
    )
    from public.nodes as n
    left join lateral (
        select max(f.created_at) as created_at from public.file_versions as f where f.file_id = n.id
    ) as v on true
    where n.status in ('queued', 'processing')
        and n.trashed_at is null
        and (n.owner_id = any((scope).owner_ids) or n.id = any((scope).shared_file_ids));
$$;
comment on function private.freshness(private.search_scope) is
'{pending_files: readable files that are not fully searchable yet, index_lag: age of the oldest of them in seconds}.';
