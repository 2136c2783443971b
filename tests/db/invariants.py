"""Queries that find nothing as long as the books are right."""

# owners whose sums are wrong, bytes that nothing refers to or that are lost, or wrongly released,
# files that wait for no upload
UNBALANCED = """
select 'used', o.id::text from public.owners as o
where o.storage_used <> (
    select coalesce(sum(b.size), 0) from private.blobs as b
    where b.owner_id = o.id and b.released_at is null
)
union all
select 'reserved', o.id::text from public.owners as o
where o.storage_reserved <> (
    select coalesce(sum(u.size), 0) from public.uploads as u
    where u.owner_id = o.id and u.state in ('open', 'uploading')
)
union all
select 'ledger', o.id::text from public.owners as o
where (o.storage_used, o.storage_reserved) <> (
    select coalesce(sum(l.used), 0), coalesce(sum(l.reserved), 0)
    from private.quota_ledger as l where l.owner_id = o.id
)
union all
select 'limit', o.id::text from public.owners as o
where o.storage_used + o.storage_reserved > o.storage_limit
union all
select 'profile', p.id::text from public.user_profiles as p
inner join public.owners as o on o.id = p.id
where (p.storage_used, p.storage_limit) <> (o.storage_used, o.storage_limit)
union all
select 'blob', b.key from private.blobs as b
where not exists (select from private.blob_uses as u where u.blob_id = b.id)
union all
select 'object', b.key from private.blobs as b
where not exists (
    select from storage.objects as o where o.bucket_id = b.bucket and o.name = b.key
)
union all
select 'released', b.key from private.blobs as b
where (b.released_at is null) <> exists (
    select from private.blob_uses as u
    inner join public.nodes as n on n.id = u.file_id and n.purged_at is null
    where u.blob_id = b.id
)
union all
select 'waiting', n.id::text from public.nodes as n
where n.status = 'uploading' and n.trashed_at is null and not exists (
    select from public.uploads as u where u.file_id = n.id and u.state in ('open', 'uploading')
)
"""

# every owner's keyword index and statistics, computed again from the chunks of head versions
UNEQUAL = """
with found as (
    select n.owner_id, n.id as file_id, c.idx, l.lexeme, l.frequency
    from public.nodes as n
    inner join public.chunks as c on c.file_id = n.id and c.version_id = n.head_version_id
    cross join lateral private.lexemes(concat_ws(e'\n', c.context, c.content), c.language) as l
), sized as (
    select *, sum(frequency) over (partition by file_id, idx) as length from found
), stored as (
    select
        t.owner_id, t.file_id, e >> 40 as idx, t.lexeme, (e >> 24) & 65535 as frequency,
        e & 16777215 as length, t.part
    from private.chunk_terms as t cross join lateral unnest(t.entries) as e
), files as (
    select
        owner_id, file_id,
        count(distinct idx) as chunk_count, sum(frequency)::bigint as total_length
    from found group by owner_id, file_id
), totals as (
    select owner_id, sum(chunk_count) as chunk_count, sum(total_length) as total_length
    from files group by owner_id
)
select 'terms', coalesce(a.lexeme, b.lexeme)
from sized as a
full join stored as b
    on b.owner_id = a.owner_id and b.file_id = a.file_id and b.idx = a.idx and b.lexeme = a.lexeme
    and b.frequency = a.frequency and b.length = a.length and b.part = a.idx / 128
where a.idx is null or b.idx is null
union all
select 'files', coalesce(a.file_id, b.file_id)::text
from files as a full join private.indexed_files as b on b.file_id = a.file_id
where (coalesce(a.chunk_count, 0), coalesce(a.total_length, 0)) <> (b.chunk_count, b.total_length)
    or b.file_id is null or b.owner_id <> a.owner_id
union all
select 'totals', ''
from totals as a full join private.owner_statistics as b on b.owner_id = a.owner_id
where (coalesce(a.chunk_count, 0), coalesce(a.total_length, 0)) <> (b.chunk_count, b.total_length)
    or b.owner_id is null
"""

# vectors of what is not in service, texts whose vector nobody needs
UNNEEDED = """
select 'vector', v.chunk_id::text
from private.chunk_vectors as v
left join public.chunks as c on c.id = v.chunk_id
left join public.nodes as n on n.id = c.file_id and n.head_version_id = c.version_id
where n.id is null
union all
select 'text', t.text_hash::text
from private.text_vectors as t
where not exists (
    select from public.chunks as c inner join public.nodes as n on n.id = c.file_id
    where c.text_hash = t.text_hash and n.owner_id = t.owner_id
)
"""

# blocks that do not hold exactly the vectors in service
UNPACKED = """
select 'block', coalesce(v.chunk_id, b.chunk_id)::text
from private.chunk_vectors as v
full join (
    select b.space_id, b.owner_id, b.file_id, c.chunk_id, c.embedding, c.mark
    from private.vector_blocks as b
    cross join lateral unnest(b.chunk_ids, b.embeddings, b.marks) as c (chunk_id, embedding, mark)
) as b
    on b.space_id = v.space_id and b.chunk_id = v.chunk_id
left join public.chunks as c on c.id = v.chunk_id
where (v.owner_id, v.file_id) is distinct from (b.owner_id, b.file_id)
    or v.embedding::text is distinct from b.embedding::text
    or b.mark <> private.chunk_mark(c.page, c.language)
union all
select 'order', b.id::text
from private.vector_blocks as b
where b.chunk_ids <> array(select c from unnest(b.chunk_ids) as c order by c)
    or cardinality(b.chunk_ids) > private.block_size(extensions.vector_dims(b.embeddings[1]))
union all
select 'twice', c.chunk_id::text
from private.vector_blocks as b
cross join lateral unnest(b.chunk_ids) as c (chunk_id)
group by b.space_id, c.chunk_id
having count(*) > 1
"""

# and chunks of head versions that only one leg finds, although their ingestion has ended well
UNSERVED = f"""
{UNPACKED}
union all
select 'chunk', c.id::text
from public.nodes as n
inner join public.file_versions as f on f.id = n.head_version_id and f.status = 'ready'
inner join public.chunks as c on c.version_id = f.id
left join private.chunk_vectors as v on v.chunk_id = c.id
where v.chunk_id is null
"""

# nodes whose path is not their parent's and their own id, or whose owner is not their parent's
PATHS_ARE_WRONG = """
select 'path', n.id::text
from public.nodes as n
left join public.nodes as p on p.id = n.parent_id
where n.path <> coalesce(p.path, '{}') || n.id
union all
select 'owner', n.id::text
from public.nodes as n
inner join public.nodes as p on p.id = n.parent_id
where n.owner_id <> p.owner_id
union all
select 'loop', n.id::text
from public.nodes as n
where cardinality(n.path) <> (select count(distinct a) from unnest(n.path) as a)
union all
select 'living below trash', n.id::text
from public.nodes as n
inner join public.nodes as p on p.id = n.parent_id
where n.trashed_at is null and p.trashed_at is not null
"""
