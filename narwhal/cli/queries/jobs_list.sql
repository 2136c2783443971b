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
    j.lease_losses,
    j.error_code,
    j.error_message,
    j.created_at,
    j.started_at,
    j.finished_at
from public.ingest_jobs as j
inner join public.nodes as n on n.id = j.file_id
where %(state)s::text is null or j.state = %(state)s::text
order by coalesce(j.finished_at, j.started_at, j.created_at) desc, j.id
limit %(limit)s
