-- Rows as if every owner had a folder of 20 files of 10 chunks, ingested: for test_plans.py.
-- Runs with triggers off, so what they count is counted at the end.

create temporary table vectors as
select
    v.no,
    extensions.l2_normalize(array_agg(random() - 0.5)::real[]::extensions.halfvec(384)) as embedding
from generate_series(0, 49) as v (no)
cross join generate_series(1, 384)
group by v.no;

insert into public.nodes (id, kind, name, owner_id, path, created_by)
select f.id, 'folder', 'shared', f.owner_id, array[f.id], f.owner_id
from (select gen_random_uuid() as id, o.id as owner_id from public.owners as o) as f;

create temporary table files as
select
    gen_random_uuid() as file_id, gen_random_uuid() as version_id, n.id as folder_id, n.owner_id, i
from public.nodes as n
cross join generate_series(1, 20) as i;

insert into public.nodes (id, kind, name, parent_id, owner_id, path, size, created_by)
select file_id, 'file', i || '.txt', folder_id, owner_id, array[folder_id, file_id], 10, owner_id
from files;
insert into private.blobs (id, owner_id, key, size)
select version_id, owner_id, 'key/' || version_id, 10 from files;
insert into public.file_versions (id, file_id, no, blob_id, size, status)
select version_id, file_id, 1, version_id, 10, 'ready' from files;
update public.nodes as n set head_version_id = f.version_id from files as f where f.file_id = n.id;
insert into public.uploads (
    owner_id, file_id, version_id, key, mode, size, state, created_by, expires_at
)
select
    owner_id, file_id, version_id, 'key/' || version_id, 'standard', 10, 'completed', owner_id, now()
from files;
insert into storage.objects (bucket_id, name, metadata)
select 'files', 'key/' || version_id, '{}' from files;
insert into public.ingest_jobs (file_id, version_id, owner_id, stage, state)
select f.file_id, f.version_id, f.owner_id, s, 'done'
from files as f
cross join unnest(array['detect', 'extract', 'chunk', 'embed_text']) as s;

create temporary table texts as
select
    gen_random_uuid() as chunk_id, f.*, p, (f.i + p) % 50 as vector,
    array(
        select 'word' || (f.i * 7 + p * 3 + k * k) % 400 from generate_series(1, 20) as k
        union
        select 'alpha'
        order by 1
    ) as terms
from files as f
cross join generate_series(1, 10) as p;

insert into public.pages (file_id, version_id, page, text)
select file_id, version_id, p, 'alpha bravo' from texts;
insert into public.chunks (
    id, file_id, version_id, idx, page, content, char_start, char_end, language, text_hash
)
select
    chunk_id, file_id, version_id, p, p, 'alpha bravo', 0, 11, 'en', sha256(chunk_id::text::bytea)
from texts;
insert into private.indexed_files (
    file_id, owner_id, version_id, chunk_count, total_length, languages, last_page, sketches
)
select file_id, owner_id, version_id, count(*), sum(20), '{en}', max(p), '{}'
from texts
group by file_id, owner_id, version_id;
insert into private.chunk_terms (owner_id, lexeme, file_id, part, entries)
select t.owner_id, u.lexeme, t.file_id, 0, array_agg((t.p::bigint << 40) | (1 << 24) | 20 order by t.p)
from texts as t
cross join lateral unnest(t.terms) as u (lexeme)
group by t.owner_id, u.lexeme, t.file_id;
insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)
select 1, t.owner_id, t.file_id, t.chunk_id, v.embedding
from texts as t
inner join vectors as v on v.no = t.vector;
select private.repack_vectors(1::smallint);
insert into private.text_vectors (owner_id, space_id, text_hash, embedding)
select t.owner_id, 1, sha256(t.chunk_id::text::bytea), v.embedding
from texts as t
inner join vectors as v on v.no = t.vector;

insert into private.owner_statistics (owner_id, chunk_count, total_length, languages)
select owner_id, count(*), count(*) * 20, '{en}'
from texts
group by owner_id;

analyze public.nodes, public.file_versions, public.chunks, public.pages, public.uploads,
public.ingest_jobs, public.owners, public.user_profiles, private.blobs, private.chunk_terms,
private.chunk_vectors, private.vector_blocks, private.text_vectors, private.indexed_files, private.owner_statistics,
storage.objects;
