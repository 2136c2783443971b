-- The chunks of some versions, in order.
select
    c.id, c.file_id, c.content, c.language
from public.chunks as c
where c.version_id = any(%(version_ids)s::uuid[])
order by c.version_id, c.idx
