select
    j.id,
    j.file_id,
    j.version_id,
    n.name,
    j.stage,
    j.state,
    j.progress,
    j.pages_done,
    j.pages_total,
    j.attempts,
    j.error_code,
    j.error_message,
    j.created_at,
    j.updated_at
from public.ingest_jobs as j
join public.nodes as n on n.id = j.file_id
where %(state)s::text is null or j.state::text = %(state)s::text
order by j.updated_at desc, j.id
limit %(limit)s
