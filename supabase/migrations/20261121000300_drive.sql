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
    created_by uuid references auth.users on delete set null,
    created_at timestamptz not null default now(),
    unique (file_id, no)
);
comment on table public.file_versions is 'The contents a file has had. Versions are immutable; the head is in nodes.';
comment on column public.file_versions.blob_id is 'Its bytes; null once they are purged (a rejected version).';
comment on column public.file_versions.format is 'What a worker recognised: pdf, docx, …; null when nothing reads it.';
comment on column public.file_versions.error_code is
'Why it is not searchable: encrypted_pdf, corrupt, unsupported_media, magic_mismatch, limit_…, no_text.';
comment on column public.file_versions.is_paged is
'Whether page numbers are real pages, slides or sheets; null until it was read.';
comment on column public.file_versions.language is 'Main language of the text, ISO 639-1; null when unclear.';
create index file_versions_blob_id_idx on public.file_versions (blob_id);
create index file_versions_created_by_idx on public.file_versions (created_by);

alter table public.nodes
add constraint nodes_head_version_id_fkey
foreign key (head_version_id) references public.file_versions on delete set null;

alter table public.workspaces
add foreign key (root_id) references public.nodes on delete set null;
