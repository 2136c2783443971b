-- Files with their only version and its pages, each with its chunk stage running under a lease of ours.
with files as (
    select *
    from jsonb_to_recordset(%(files)s::jsonb) as f (
        id uuid, version_id uuid, folder_id uuid, name text, language text, is_paged boolean, pages jsonb
    )
),

nodes as (
    insert into public.nodes (id, kind, name, parent_id, owner_id, path, created_by, status)
    select
        f.id, 'file', f.name, p.id, p.owner_id, p.path || f.id, p.owner_id, 'processing'
    from files as f
    inner join public.nodes as p on p.id = f.folder_id
    returning nodes.id
),

versions as (
    insert into public.file_versions (id, file_id, no, size, status, language, is_paged, page_count)
    select
        f.version_id, f.id, 1, 0, 'processing', f.language, f.is_paged, jsonb_array_length(f.pages)
    from files as f
    inner join nodes as n on n.id = f.id
    returning file_versions.id
),

pages as (
    insert into public.pages (file_id, version_id, page, text, width, height, source, layout)
    select
        f.id, v.id, r.page, r.text, r.width, r.height, r.source, r.layout
    from files as f
    inner join versions as v on v.id = f.version_id
    cross join lateral jsonb_to_recordset(f.pages) as r (
        page integer, text text, width real, height real, source text, layout jsonb
    )
)

insert into public.ingest_jobs (file_id, version_id, stage, state, lease_token, lease_expires_at)
select
    f.id, v.id, 'chunk', 'running', gen_random_uuid(), now() + interval '1 day'
from files as f
inner join versions as v on v.id = f.version_id
returning id, lease_token, version_id
