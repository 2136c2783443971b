-- The drive: one tree of folders and files, their versions and their bytes.

create table public.nodes (
    id uuid primary key default gen_random_uuid(),
    kind text not null check (kind in ('file', 'folder')),
    name text not null,
    parent_id uuid references public.nodes on delete cascade,
    owner_id uuid not null references public.owners on delete cascade,
    path uuid[] not null,
    size bigint not null default 0 check (size >= 0),
    mime text,
    status text not null default 'ready' check (
        status in ('uploading', 'queued', 'processing', 'ready', 'failed', 'skipped', 'rejected')
    ),
    head_version_id uuid,
    metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    source text check (char_length(source) between 1 and 255),
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    trashed_at timestamptz,
    trash_root_id uuid,
    trashed_by uuid references auth.users on delete set null,
    purged_at timestamptz,
    check (path[cardinality(path)] = id),
    check (kind = 'file' or (size = 0 and status = 'ready' and head_version_id is null)),
    check ((trashed_at is null) = (trash_root_id is null)),
    check (purged_at is null or trashed_at is not null)
);
comment on table public.nodes is 'Files and folders. Clients read it; they write through the RPCs.';
comment on column public.nodes.path is 'Ids of the ancestors from the root, its own id last. Path names are derived.';
comment on column public.nodes.size is 'Bytes of the newest complete version; 0 for folders.';
comment on column public.nodes.status is
'Where the newest version is: uploading, queued, processing, then ready, failed, skipped (kept, not readable) or
rejected.';
comment on column public.nodes.head_version_id is
'The version that is searchable and downloaded; null before the first.';
comment on column public.nodes.metadata is 'What people and programs note about a file; searches can ask for it.';
comment on column public.nodes.source is 'Where a file came from, such as a connector; null when it was uploaded.';
comment on column public.nodes.trashed_at is 'Set on every node of a trashed subtree; nobody reads it through the API.';
comment on column public.nodes.trash_root_id is
'The node that was trashed and took this one along; itself for that node. null while it lives.';
comment on column public.nodes.purged_at is
'Deleted for good: its quota is returned, a worker removes the rows and bytes. Always trashed as well.';

-- living siblings differ in more than case and Unicode composition
create unique index nodes_sibling_name_key on public.nodes (
    owner_id, parent_id, lower(normalize(name, nfc) collate pg_c_utf8)
) nulls not distinct where trashed_at is null;
create index nodes_parent_id_idx on public.nodes (parent_id);
create index nodes_path_idx on public.nodes using gin (path);
create index nodes_created_by_idx on public.nodes (created_by);
create index nodes_head_version_id_idx on public.nodes (head_version_id);
create index nodes_owner_id_idx on public.nodes (owner_id);
create index nodes_trashed_idx on public.nodes (owner_id, id) where trashed_at is not null;
create index nodes_trashed_by_idx on public.nodes (trashed_by);
create index nodes_trash_root_id_idx on public.nodes (trash_root_id) where trashed_at is not null;
-- list_trash: what is in an owner's trash, what somebody trashed
create index nodes_trash_idx on public.nodes (owner_id, trashed_at, id)
where trash_root_id = id and purged_at is null;
create index nodes_my_trash_idx on public.nodes (trashed_by, trashed_at, id)
where trash_root_id = id and purged_at is null;
-- purge_batch: children before parents
create index nodes_purged_idx on public.nodes (cardinality(path) desc, id) where purged_at is not null;
-- filters of search: the few that have them, owner by owner
create index nodes_metadata_idx on public.nodes (owner_id, id) where metadata <> '{}';
create index nodes_source_idx on public.nodes (owner_id, source, id) where source is not null;
create index nodes_pending_idx on public.nodes (owner_id, id)
where status in ('queued', 'processing') and trashed_at is null;

create table private.blobs (
    id uuid primary key default gen_random_uuid(),
    owner_id uuid not null references public.owners on delete cascade,
    bucket text not null default 'files',
    key text not null,
    size bigint not null check (size >= 0),
    sha256 text check (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz not null default now(),
    released_at timestamptz
);
comment on table private.blobs is
'Bytes that an owner pays for. `key` is the only truth about where they are; nothing parses it. Two owners may hold the
same object after a copy or move between them, each with a row of their own; the object goes with the last row.';
comment on column private.blobs.released_at is
'Set when only purged files refer to it: its quota is returned already, and nobody may refer to it any more.';
comment on column private.blobs.sha256 is 'Computed by a worker from the stored bytes, hex; null until then.';
create index blobs_key_idx on private.blobs (key);
create index blobs_owner_id_sha256_idx on private.blobs (owner_id, sha256);
alter table private.blobs enable row level security;

create function private.tg_blobs__charge() returns trigger
language plpgsql volatile
security definer -- runs for whoever stores or deletes
set search_path = ''
as $$
begin
    -- owners in the order in which everything locks them; what is released weighs nothing
    if tg_op = 'INSERT' then
        perform private.charge(c.owner_id, c.used, 0, 'store', case when c.count = 1 then c.ids[1] end)
        from (
            select i.owner_id, sum(i.size)::bigint as used, count(*) as count, array_agg(i.id) as ids
            from inserted as i
            where i.released_at is null
            group by i.owner_id
            order by i.owner_id
        ) as c;
    elsif tg_op = 'DELETE' then
        perform private.charge(c.owner_id, c.used, 0, 'delete', case when c.count = 1 then c.ids[1] end)
        from (
            select d.owner_id, -sum(d.size)::bigint as used, count(*) as count, array_agg(d.id) as ids
            from deleted as d
            where d.released_at is null
            group by d.owner_id
            order by d.owner_id
        ) as c;
    else
        perform private.charge(c.owner_id, c.used, 0, c.reason, case when c.count = 1 then c.ids[1] end)
        from (
            select w.owner_id, r.reason, sum(w.used)::bigint as used, count(*) as count, array_agg(i.id) as ids
            from deleted as d
            inner join inserted as i on i.id = d.id
            cross join lateral (values (case
                when d.owner_id <> i.owner_id then 'transfer'
                when d.released_at is null and i.released_at is not null then 'purge'
                when d.released_at is not null and i.released_at is null then 'restore'
            end)) as r (reason)
            cross join lateral (values
                (d.owner_id, case when d.released_at is null then -d.size else 0 end),
                (i.owner_id, case when i.released_at is null then i.size else 0 end)
            ) as w (owner_id, used)
            where r.reason is not null
            group by w.owner_id, r.reason
            order by w.owner_id, r.reason
        ) as c;
    end if;
    return null; -- after trigger
end;
$$;
comment on function private.tg_blobs__charge() is
'Charges owners for the blobs they have: what an owner has used is the sum over the rows that are not released.';

create trigger _400_charge_inserted
after insert on private.blobs
referencing new table as inserted
for each statement execute function private.tg_blobs__charge();

create trigger _400_charge_deleted
after delete on private.blobs
referencing old table as deleted
for each statement execute function private.tg_blobs__charge();

create trigger _400_charge_updated
after update on private.blobs
referencing old table as deleted new table as inserted
for each statement execute function private.tg_blobs__charge();

create table public.file_versions (
    id uuid primary key default gen_random_uuid(),
    file_id uuid not null references public.nodes on delete cascade,
    no integer not null check (no > 0),
    blob_id uuid references private.blobs on delete set null,
    size bigint not null,
    sha256 text,
    mime text,
    format text,
    status text not null default 'queued' check (
        status in ('queued', 'processing', 'ready', 'failed', 'skipped', 'rejected')
    ),
    error_code text,
    error_message text,
    language text,
    is_paged boolean,
    page_count integer,
    reading jsonb not null default '{}',
    truncated_by text,
    truncated boolean not null generated always as (truncated_by is not null) stored,
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    unique (file_id, no)
);
comment on table public.file_versions is 'The contents a file has had. Versions are immutable; the head is in nodes.';
comment on column public.file_versions.blob_id is 'Its bytes; null once they are purged (a rejected version).';
comment on column public.file_versions.format is 'What a worker recognised: pdf, docx, …; null when nothing reads it.';
comment on column public.file_versions.error_code is
'Why it is not searchable: encrypted_pdf, encrypted (an Office document), corrupt, unsupported_media, magic_mismatch,
limit_…, no_text, no_speech.';
comment on column public.file_versions.is_paged is
'Whether page numbers are real pages, slides or sheets; null until it was read.';
comment on column public.file_versions.reading is
'Options that it is read with, beside what is set for all: ocr_languages, chunk_size, chunk_overlap.';
comment on column public.file_versions.truncated is
'Whether a limit ended reading: what was read until then is there, the rest is not.';
comment on column public.file_versions.truncated_by is
'Which limit: limit_time, limit_memory, limit_output; corrupt for pages that crashed OCR; null for a version that was
read to its end.';
comment on column public.file_versions.language is 'Main language of the text, ISO 639-1; null when unclear.';
create index file_versions_blob_id_idx on public.file_versions (blob_id);
create index file_versions_created_by_idx on public.file_versions (created_by);

alter table public.nodes
add constraint nodes_head_version_id_fkey
foreign key (head_version_id) references public.file_versions on delete set null;

alter table public.workspaces
add foreign key (root_id) references public.nodes on delete set null;
