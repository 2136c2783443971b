-- A drive at size, set-based, with triggers off: for drive.py. Reads bench.nodes; the users are there already,
-- in bench_owners (no, id, files, folders): how many files and folders below their top folder.

create function bench_id(kind text, owner_no integer, no integer) returns uuid
language sql immutable
return md5(kind || owner_no || '/' || no)::uuid;

-- folders hang in chains of 17 below the top folder, so files are up to 19 deep
create temporary table bench_folders as
select
    o.no as owner_no, o.id as owner_id, f.no, bench_id('d', o.no, f.no) as id,
    case when f.no = 0 then null when f.no % 17 = 1 then bench_id('d', o.no, 0) else bench_id('d', o.no, f.no - 1) end
        as parent_id,
    bench_id('d', o.no, 0) || array(
        select bench_id('d', o.no, a.no)
        from generate_series(f.no - (f.no + 16) % 17, f.no) as a (no)
        where f.no > 0
        order by a.no
    ) as path
from bench_owners as o
cross join lateral generate_series(0, o.folders) as f (no);
create unique index on bench_folders (owner_no, no);

insert into public.nodes (id, kind, name, parent_id, owner_id, path, created_by)
select id, 'folder', 'folder ' || no, parent_id, owner_id, path, owner_id
from bench_folders;

create temporary table bench_files as
select
    o.no as owner_no, o.id as owner_id, f.no, bench_id('f', o.no, f.no) as id, bench_id('v', o.no, f.no) as version_id,
    p.id as parent_id, p.path
from bench_owners as o
cross join lateral generate_series(1, o.files) as f (no)
inner join bench_folders as p on p.owner_no = o.no and p.no = 1 + f.no % o.folders;

insert into public.nodes (id, kind, name, parent_id, owner_id, path, size, mime, head_version_id, created_by)
select id, 'file', 'file ' || no || '.txt', parent_id, owner_id, path || id, 10, 'text/plain', version_id, owner_id
from bench_files;
insert into private.blobs (id, owner_id, key, size)
select version_id, owner_id, version_id, 10
from bench_files;
insert into public.file_versions (id, file_id, no, blob_id, size, status)
select version_id, id, 1, version_id, 10, 'ready'
from bench_files;

-- a chunk of each file, two of each eighth
create temporary table bench_chunks as
select
    md5(f.version_id || '/' || c.idx)::uuid as id, f.owner_id, f.id as file_id, f.version_id, c.idx,
    array(
        select t.term
        from unnest(array['alpha', 'bravo' || f.no % 1999, 'charlie' || f.no % 499]) as t (term)
        order by t.term
    ) as terms,
    (f.no % 50) as vector
from bench_files as f
cross join lateral generate_series(0, (f.no % 8 = 0)::integer) as c (idx);

insert into public.chunks (id, file_id, version_id, idx, content, char_start, char_end, language, text_hash)
select id, file_id, version_id, idx, 'alpha', 0, 5, 'en', sha256(id::text::bytea)
from bench_chunks;
insert into private.indexed_files (file_id, owner_id, version_id, chunk_count, total_length, languages, sketches)
select file_id, owner_id, version_id, count(*), count(*) * 3, '{en}', '{}'
from bench_chunks
group by file_id, owner_id, version_id;
insert into private.chunk_terms (owner_id, lexeme, file_id, part, entries)
select c.owner_id, t.term, c.file_id, 0, array_agg((c.idx::bigint << 40) | (1 << 24) | 3 order by c.idx)
from bench_chunks as c
cross join lateral unnest(c.terms) as t (term)
group by c.owner_id, t.term, c.file_id;

insert into private.owner_statistics (owner_id, chunk_count, total_length, languages)
select owner_id, count(*), count(*) * 3, '{en}'
from bench_chunks
group by owner_id;

create temporary table bench_vectors as
select
    v.no,
    extensions.l2_normalize(array_agg(random() - 0.5)::real[]::extensions.halfvec(8)) as embedding
from generate_series(0, 49) as v (no)
cross join generate_series(1, 8)
group by v.no;
insert into private.chunk_vectors (space_id, owner_id, file_id, chunk_id, embedding)
select (select s.id from public.embedding_spaces as s where s.name = 'bench'), c.owner_id, c.file_id, c.id, v.embedding
from bench_chunks as c
inner join bench_vectors as v on v.no = c.vector;
select private.repack_vectors(s.id) from public.embedding_spaces as s where s.name = 'bench';

update public.owners as o
set storage_used = u.used
from (select owner_id, count(*) * 10 as used from bench_files group by owner_id) as u
where u.owner_id = o.id;

-- 100 shares for owner 3, the others among the rest: folders in the middle of a chain
insert into public.shares (node_id, grantee_id, level)
select bench_id('d', o.no, 1 + (s.no * 5) % o.folders), g.id, 'edit'
from generate_series(0, 99) as s (no)
inner join bench_owners as o on o.no = 4 + s.no % (select count(*)::integer - 3 from bench_owners)
inner join bench_owners as g on g.no = 3
on conflict do nothing;
insert into public.shares (node_id, grantee_id, level)
select bench_id('d', o.no, 1 + (s.no / n.owners * 7) % o.folders), g.id, 'view'
from (select count(*)::integer - 3 as owners from bench_owners) as n
cross join lateral generate_series(1, current_setting('bench.nodes')::integer / 50 - 100) as s (no)
inner join bench_owners as o on o.no = 4 + s.no % n.owners
inner join bench_owners as g on g.no = 4 + (s.no * 13 + s.no / n.owners + 1) % n.owners and g.no <> o.no
on conflict do nothing;
