-- The schema `storage` as a hosted project has it after Storage's own migrations: buckets, objects,
-- listing functions, protection against direct deletes. The gateway's Storage API works on it as
-- supabase_storage_admin, and always switches to the caller's role.

create type storage.buckettype as enum ('STANDARD', 'ANALYTICS', 'VECTOR');

create table storage.migrations (
    id integer primary key,
    name varchar(100) unique not null,
    hash varchar(40) not null,
    executed_at timestamp default current_timestamp
);

create table storage.buckets (
    id text primary key,
    name text not null,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    public boolean default false,
    avif_autodetection boolean default false,
    file_size_limit bigint,
    allowed_mime_types text [],
    owner_id text,
    type storage.buckettype not null default 'STANDARD'
);
create unique index bname on storage.buckets (name);
comment on column storage.buckets.owner is 'Field is deprecated, use owner_id instead';

create table storage.objects (
    id uuid primary key default gen_random_uuid(),
    bucket_id text,
    name text,
    owner uuid,
    created_at timestamptz default now(),
    updated_at timestamptz default now(),
    last_accessed_at timestamptz default now(),
    metadata jsonb,
    path_tokens text [] generated always as (string_to_array(name, '/')) stored,
    version text,
    owner_id text,
    user_metadata jsonb,
    constraint "objects_bucketId_fkey" foreign key (bucket_id) references storage.buckets (id)
);
create unique index bucketid_objname on storage.objects (bucket_id, name);
create index name_prefix_search on storage.objects (name text_pattern_ops);
create index idx_objects_bucket_id_name on storage.objects (bucket_id, (name collate "C"));
create index idx_objects_bucket_id_name_lower
on storage.objects (bucket_id, (lower(name) collate "C"));
comment on column storage.objects.owner is 'Field is deprecated, use owner_id instead';

create table storage.s3_multipart_uploads (
    id text primary key,
    in_progress_size bigint not null default 0,
    upload_signature text not null,
    bucket_id text not null references storage.buckets (id),
    key text collate "C" not null,
    version text not null,
    owner_id text,
    created_at timestamptz not null default now(),
    user_metadata jsonb,
    metadata jsonb
);
create index idx_multipart_uploads_list
on storage.s3_multipart_uploads (bucket_id, (key collate "C"), created_at asc);

create table storage.s3_multipart_uploads_parts (
    id uuid primary key default gen_random_uuid(),
    upload_id text not null references storage.s3_multipart_uploads (id) on delete cascade,
    size bigint not null default 0,
    part_number int not null,
    bucket_id text not null references storage.buckets (id),
    key text collate "C" not null,
    etag text not null,
    owner_id text,
    version text not null,
    created_at timestamptz not null default now()
);

alter table storage.migrations enable row level security;
alter table storage.buckets enable row level security;
alter table storage.objects enable row level security;
alter table storage.s3_multipart_uploads enable row level security;
alter table storage.s3_multipart_uploads_parts enable row level security;

-- Parts of a name, for policies: 'a/b/c.pdf' is in folders {a,b}, its file name is c.pdf.

create function storage.foldername(name text) returns text []
language plpgsql
immutable
as $$
declare
    _parts text[] := string_to_array(name, '/');
begin
    return _parts[1 : array_length(_parts, 1) - 1];
end
$$;

create function storage.filename(name text) returns text
language plpgsql
immutable
as $$
declare
    _parts text[] := string_to_array(name, '/');
begin
    return _parts[array_length(_parts, 1)];
end
$$;

create function storage.extension(name text) returns text
language plpgsql
immutable
as $$
declare
    _parts text[] := string_to_array(name, '/');
begin
    return reverse(split_part(reverse(_parts[array_length(_parts, 1)]), '.', 1));
end
$$;

create function storage.get_size_by_bucket() returns table (size bigint, bucket_id text)
language plpgsql
stable
as $$
begin
    return query
        select sum((obj.metadata ->> 'size')::bigint)::bigint, obj.bucket_id
        from storage.objects as obj
        group by obj.bucket_id;
end
$$;

-- Which operation of the Storage API is running, e.g. 'storage.object.upload'.

create function storage.operation() returns text
language plpgsql
stable
as $$
begin
    return current_setting('storage.operation', true);
end
$$;

create function storage.allow_any_operation(expected_operations text []) returns boolean
language sql
stable
as $$
    select exists (
        select 1
        from unnest(expected_operations) as expected
        where expected <> ''
          and regexp_replace(expected, '^storage\.', '')
              = regexp_replace(storage.operation(), '^storage\.', '')
    );
$$;

create function storage.allow_only_operation(expected_operation text) returns boolean
language sql
stable
as $$
    select storage.allow_any_operation(array[expected_operation]);
$$;

-- Would the caller be allowed to insert this object? It raises PT200 when so: nothing is kept.

create function storage.can_insert_object(bucketid text, name text, owner uuid, metadata jsonb)
returns void
language plpgsql
as $$
begin
    insert into storage.objects (bucket_id, name, owner, metadata)
    values (bucketid, name, owner, metadata);
    raise sqlstate 'PT200' using
        message = 'ROLLBACK',
        detail = 'rollback successful insert';
end
$$;

-- Listing. A "folder" is whatever stands before the next delimiter in the names of several objects.

create function storage.get_common_prefix(p_key text, p_prefix text, p_delimiter text) returns text
language sql
immutable
as $$
    select case
        when position(p_delimiter in substring(p_key from length(p_prefix) + 1)) > 0
            then left(
                p_key,
                length(p_prefix)
                + position(p_delimiter in substring(p_key from length(p_prefix) + 1))
            )
    end;
$$;

create function storage.search(
    prefix text,
    bucketname text,
    limits int default 100,
    levels int default 1,
    offsets int default 0,
    search text default '',
    sortcolumn text default 'name',
    sortorder text default 'asc'
) returns table (
    name text,
    id uuid,
    updated_at timestamptz,
    created_at timestamptz,
    last_accessed_at timestamptz,
    metadata jsonb
)
language plpgsql
stable
as $$
declare
    -- the match ignores case; `levels` is kept for the signature, both ends follow from the prefix
    v_start text := lower(coalesce(prefix, '') || coalesce(search, ''));
    v_end text := case
        when v_start <> '' then left(v_start, -1) || chr(ascii(right(v_start, 1)) + 1)
    end;
    v_column text := case
        when sortcolumn in ('updated_at', 'created_at', 'last_accessed_at') then sortcolumn
        else 'name'
    end;
    v_order text := case when lower(sortorder) = 'desc' then 'desc' else 'asc' end;
    v_sort text;
begin
    -- by name folders and objects are mixed; by time the folders, which have none, come first
    if v_column = 'name' then
        v_sort := format('lower(entry.sort_name) collate "C" %s', v_order);
    else
        v_sort := format(
            'entry.is_folder desc, entry.%I %s, lower(entry.sort_name) collate "C" %s',
            v_column, v_order, v_order
        );
    end if;
    return query execute format(
        $sql$
        with hit as (
            select o.*, storage.get_common_prefix(o.name, $1, '/') as folder
            from storage.objects as o
            where o.bucket_id = $2
              and lower(o.name) collate "C" >= $1
              and ($3 is null or lower(o.name) collate "C" < $3)
        ),
        entry as (
            select
                min(folder) as sort_name, true as is_folder, null::uuid as id,
                null::timestamptz as updated_at, null::timestamptz as created_at,
                null::timestamptz as last_accessed_at, null::jsonb as metadata
            from hit
            where folder is not null
            group by lower(folder)
            union all
            select
                hit.name, false, hit.id, hit.updated_at, hit.created_at,
                hit.last_accessed_at, hit.metadata
            from hit
            where folder is null
        )
        select
            substring(
                case when entry.is_folder then left(entry.sort_name, -1) else entry.sort_name end
                from $4 + 1
            ),
            entry.id, entry.updated_at, entry.created_at, entry.last_accessed_at, entry.metadata
        from entry
        order by %s
        limit $5 offset $6
        $sql$,
        v_sort
    )
    using
        v_start, bucketname, v_end, length(coalesce(prefix, '')),
        least(coalesce(limits, 100), 1500), coalesce(offsets, 0);
end
$$;

create function storage.search_v2(
    prefix text,
    bucket_name text,
    limits int default 100,
    levels int default 1,
    start_after text default '',
    sort_order text default 'asc',
    sort_column text default 'name',
    sort_column_after text default ''
) returns table (
    key text,
    name text,
    id uuid,
    updated_at timestamptz,
    created_at timestamptz,
    last_accessed_at timestamptz,
    metadata jsonb
)
language plpgsql
stable
as $$
declare
    v_prefix text := coalesce(prefix, '');
    v_end text := case
        when v_prefix <> '' then left(v_prefix, -1) || chr(ascii(right(v_prefix, 1)) + 1)
    end;
    v_column text := case
        when lower(sort_column) in ('updated_at', 'created_at') then lower(sort_column)
    end;
    v_order text := case when lower(sort_order) = 'desc' then 'desc' else 'asc' end;
    v_after text := case when v_order = 'asc' then '>' else '<' end;
    v_page text;
    v_sort text;
begin
    -- a page starts after the last entry of the one before: its name, a folder's with its slash,
    -- and its time when sorted by time; a folder's times are those of its oldest object
    if v_column is null then
        v_page := format('entry.sort_name collate "C" %s $4', v_after);
        v_sort := format('entry.sort_name collate "C" %s', v_order);
    else
        v_page := format(
            '(date_trunc(''milliseconds'', entry.%I), entry.sort_name collate "C") %s ($5, $4)',
            v_column, v_after
        );
        v_sort := format(
            'date_trunc(''milliseconds'', entry.%I) %s, entry.sort_name collate "C" %s',
            v_column, v_order, v_order
        );
    end if;
    return query execute format(
        $sql$
        with hit as (
            select o.*, storage.get_common_prefix(o.name, $1, '/') as folder
            from storage.objects as o
            where o.bucket_id = $2
              and o.name collate "C" >= $1
              and ($3 is null or o.name collate "C" < $3)
        ),
        entry as (
            select
                folder as sort_name, left(folder, -1) as name, null::uuid as id,
                min(hit.created_at) as updated_at, min(hit.created_at) as created_at,
                null::timestamptz as last_accessed_at, null::jsonb as metadata
            from hit
            where folder is not null
            group by folder
            union all
            select
                hit.name, hit.name, hit.id, hit.updated_at, hit.created_at,
                hit.last_accessed_at, hit.metadata
            from hit
            where folder is null
        )
        select
            split_part(entry.name, '/', $6), entry.name, entry.id, entry.updated_at,
            entry.created_at, entry.last_accessed_at, entry.metadata
        from entry
        where $4 = '' or %s
        order by %s
        limit $7
        $sql$,
        v_page, v_sort
    )
    using
        v_prefix, bucket_name, v_end, coalesce(start_after, ''),
        coalesce(nullif(sort_column_after, '')::timestamptz, 'epoch'::timestamptz),
        levels, least(coalesce(limits, 100), 1500);
end
$$;

-- Triggers

create function storage.update_updated_at_column() returns trigger
language plpgsql
as $$
begin
    new.updated_at = now();
    return new;
end
$$;

create function storage.enforce_bucket_name_length() returns trigger
language plpgsql
as $$
begin
    if length(new.name) > 100 then
        raise exception 'bucket name "%" is too long (% characters). Max is 100.',
            new.name, length(new.name);
    end if;
    return new;
end
$$;

-- A row deleted in SQL would leave its bytes behind; only the API, which removes both, lifts this.
create function storage.protect_delete() returns trigger
language plpgsql
as $$
begin
    if coalesce(current_setting('storage.allow_delete_query', true), 'false') <> 'true' then
        raise exception
            'Direct deletion from storage tables is not allowed. Use the Storage API instead.'
            using
                hint = 'This prevents accidental data loss from orphaned objects.',
                errcode = '42501';
    end if;
    return null;
end
$$;

create trigger update_objects_updated_at
before update on storage.objects
for each row execute function storage.update_updated_at_column();

create trigger enforce_bucket_name_length_trigger
before insert or update of name on storage.buckets
for each row execute function storage.enforce_bucket_name_length();

create trigger protect_buckets_delete
before delete on storage.buckets
for each statement execute function storage.protect_delete();

create trigger protect_objects_delete
before delete on storage.objects
for each statement execute function storage.protect_delete();

-- Rights: the API roles hold everything on the tables and row security decides; postgres writes
-- policies and triggers but owns nothing here.

grant all on storage.buckets, storage.objects to postgres with grant option;
grant all on storage.buckets, storage.objects to anon, authenticated, service_role;
grant all on storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts to service_role;
grant select on storage.s3_multipart_uploads, storage.s3_multipart_uploads_parts
to anon, authenticated;

alter type storage.buckettype owner to supabase_storage_admin;
alter table storage.migrations owner to supabase_storage_admin;
alter table storage.buckets owner to supabase_storage_admin;
alter table storage.objects owner to supabase_storage_admin;
alter table storage.s3_multipart_uploads owner to supabase_storage_admin;
alter table storage.s3_multipart_uploads_parts owner to supabase_storage_admin;
alter function storage.foldername(text) owner to supabase_storage_admin;
alter function storage.filename(text) owner to supabase_storage_admin;
alter function storage.extension(text) owner to supabase_storage_admin;
alter function storage.get_size_by_bucket() owner to supabase_storage_admin;
alter function storage.operation() owner to supabase_storage_admin;
alter function storage.allow_any_operation(text []) owner to supabase_storage_admin;
alter function storage.allow_only_operation(text) owner to supabase_storage_admin;
alter function storage.can_insert_object(text, text, uuid, jsonb) owner to supabase_storage_admin;
alter function storage.get_common_prefix(text, text, text) owner to supabase_storage_admin;
alter function storage.search(text, text, int, int, int, text, text, text)
owner to supabase_storage_admin;
alter function storage.search_v2(text, text, int, int, text, text, text, text)
owner to supabase_storage_admin;
alter function storage.update_updated_at_column() owner to supabase_storage_admin;
alter function storage.enforce_bucket_name_length() owner to supabase_storage_admin;
alter function storage.protect_delete() owner to supabase_storage_admin;
