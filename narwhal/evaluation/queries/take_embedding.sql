-- Of the stages that follow the chunks of these versions: that of the evaluated space, running under a lease of ours.
-- The others are dropped; no worker has seen them, since their transaction is still open.
with dropped as (
    delete from public.ingest_jobs as j
    where j.version_id = any(%(version_ids)s::uuid[])
        and j.state = 'queued'
        and not (j.stage = 'embed_text' and j.space_id = %(space_id)s)
)

update public.ingest_jobs as j
set state = 'running', lease_token = gen_random_uuid(), lease_expires_at = now() + interval '1 day'
where j.version_id = any(%(version_ids)s::uuid[]) and j.stage = 'embed_text' and j.space_id = %(space_id)s
returning j.id, j.lease_token, j.version_id
