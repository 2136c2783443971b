-- Insights: what a worker finds out about a text without a model: its languages, key phrases, a summary of its own
-- sentences, names of things that have a form, what kind of document it is; and which files are much alike. Each says
-- how it was found and where. A file is ready without them.

create table public.insights (
    version_id uuid not null references public.file_versions on delete cascade,
    kind text not null check (kind in ('languages', 'key_phrases', 'summary', 'entities', 'category')),
    file_id uuid not null references public.nodes on delete cascade,
    items jsonb not null check (jsonb_typeof(items) = 'array'),
    method text not null,
    method_version text not null,
    created_at timestamptz not null default now(),
    primary key (version_id, kind)
);
comment on table public.insights is 'What was found out about the text of a version; read by whoever reads the file.';
comment on column public.insights.items is
'The best first, of a summary in the order of the text: [{text, page, start, end, …}], offsets in characters of
pages.text. languages: {code, share}; key_phrases: {score, count}; entities: {kind, value, count}, kind one of email,
phone, iban, card, date, amount; category: {score}.';
comment on column public.insights.method is 'How: patterns, phrases, sentences and words need no model.';
comment on column public.insights.method_version is 'Which release of the method, or which weights of a model.';
create index insights_file_id_idx on public.insights (file_id);

alter table public.insights enable row level security;

create policy readers_can_select on public.insights
for select to anon, authenticated
using (exists ( -- through the policy of nodes
    select 1 from public.nodes as n
    where n.id = file_id
));

grant select on public.insights to anon, authenticated, service_role;

create table private.text_sketches (
    version_id uuid primary key references public.file_versions on delete cascade,
    sketch integer[] not null check (cardinality(sketch) = 64),
    bands bigint[] not null
);
comment on table private.text_sketches is
'MinHash of the text of a version (Broder 1997): the share of equal places tells how much of two texts is the same.';
comment on column private.text_sketches.bands is
'A hash of each four places: texts that are alike have one in common, others hardly ever.';
create index text_sketches_bands_idx on private.text_sketches using gin (bands);
alter table private.text_sketches enable row level security;

create function private.enqueue_insights(version_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if (private.setting('insights.automatic'))::boolean
        and exists (select 1 from private.pages_in_work(version_id) as p where p.text <> '')
        and not exists (
            select 1
            from public.file_versions as v
            inner join public.nodes as n on n.id = v.file_id
            inner join public.user_profiles as u on u.id = n.owner_id
            where v.id = enqueue_insights.version_id and u.preferences -> 'autoAnalyze' = 'false'
        ) then
        perform private.enqueue(version_id, 'insights');
    else -- of an earlier run
        delete from public.ingest_jobs as j where j.version_id = enqueue_insights.version_id and j.stage = 'insights';
        delete from public.insights as i where i.version_id = enqueue_insights.version_id;
        delete from private.text_sketches as s where s.version_id = enqueue_insights.version_id;
    end if;
end;
$$;
comment on function private.enqueue_insights(uuid) is
'Queues insights for a version with text, unless its owner''s preference autoAnalyze is false.';

create function private.finish_insights(
    job_id uuid, lease_token uuid, insights jsonb, sketch integer[], bands bigint[]
) returns void
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_job public.ingest_jobs := private.own_job(job_id, lease_token);
begin
    delete from public.insights as i where i.version_id = v_job.version_id;
    insert into public.insights (version_id, file_id, kind, items, method, method_version)
    select v_job.version_id, v_job.file_id, r.kind, r.items, r.method, r.method_version
    from jsonb_to_recordset(finish_insights.insights) as r (
        kind text, items jsonb, method text, method_version text
    );
    delete from private.text_sketches as s where s.version_id = v_job.version_id;
    insert into private.text_sketches (version_id, sketch, bands)
    select v_job.version_id, finish_insights.sketch, finish_insights.bands
    where finish_insights.sketch is not null;
    perform private.finish_job(job_id);
end;
$$;
comment on function private.finish_insights(uuid, uuid, jsonb, integer[], bigint[]) is
'Stores [{kind, items, method, method_version}] in the place of what was found before, and the sketch of the text, null
when it is too short to be compared.';
grant execute on function private.finish_insights(uuid, uuid, jsonb, integer[], bigint[]) to narwhal_worker;

create function private.copy_insights(source_version_id uuid, target_version_id uuid) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into public.insights (version_id, file_id, kind, items, method, method_version, created_at)
    select v.id, v.file_id, i.kind, i.items, i.method, i.method_version, i.created_at
    from public.insights as i cross join public.file_versions as v
    where i.version_id = source_version_id and v.id = target_version_id;

    insert into private.text_sketches (version_id, sketch, bands)
    select target_version_id, s.sketch, s.bands
    from private.text_sketches as s
    where s.version_id = source_version_id;
$$;
comment on function private.copy_insights(uuid, uuid) is
'Gives a version the insights of another one with the same bytes.';

-- Files that are alike -------------------------------------------------------------------------

create function private.find_duplicates(file_id uuid, threshold double precision, top_k integer) returns jsonb
language plpgsql stable
security definer -- hashes and sketches are not in the API
set search_path = ''
as $$
declare
    v_file public.nodes;
    v_owner_ids uuid[] := private.my_owner_ids();
    v_roots uuid[] := private.granted_roots();
begin
    perform private.require_reader();
    v_file := private.require_level(file_id, 'view');
    if v_file.kind <> 'file' then
        perform private.raise_invalid('file_id', 'Only files are compared.');
    end if;
    if threshold is null or not threshold between 0.5 and 1 then
        perform private.raise_invalid('threshold', 'The threshold is 0.5 to 1.', '{"expected": "0.5 to 1"}');
    end if;
    if top_k is null or not top_k between 1 and 100 then
        perform private.raise_invalid('top_k', 'top_k is 1 to 100.', '{"expected": "1 to 100"}');
    end if;
    return (
        with mine as (
            select v.id, v.sha256, s.sketch, s.bands
            from public.file_versions as v
            left join private.text_sketches as s on s.version_id = v.id
            where v.id = v_file.head_version_id
        ), alike as (
            select v.id as version_id, 1::real as similarity, 'exact' as kind
            from mine as m
            inner join private.blobs as b on b.owner_id = v_file.owner_id and b.sha256 = m.sha256
            inner join public.file_versions as v on v.blob_id = b.id
            union all
            select s.version_id, e.share, 'near'
            from mine as m
            inner join private.text_sketches as s on s.bands operator(pg_catalog.&&) m.bands
            cross join lateral (
                select count(*) filter (where a = b)::real / 64 as share
                from unnest(m.sketch, s.sketch) as u (a, b)
            ) as e
            where e.share >= threshold
        ), found as (
            select distinct on (n.id) n.id, n.name, n.size, n.updated_at, a.similarity, a.kind
            from alike as a
            inner join public.nodes as n on n.head_version_id = a.version_id
            where n.owner_id = v_file.owner_id
                and n.id <> v_file.id
                and private.is_readable(n.owner_id, n.path, n.trashed_at, v_owner_ids, v_roots)
            order by n.id, a.kind, a.similarity desc
        )
        select jsonb_build_object(
            'items', coalesce(
                jsonb_agg(
                    jsonb_build_object(
                        'file_id', f.id, 'name', f.name, 'size', f.size, 'updated_at', f.updated_at,
                        'similarity', round(f.similarity::numeric, 3), 'kind', f.kind
                    )
                    order by f.kind, f.similarity desc, f.id
                ), '[]'
            ),
            'next_cursor', null
        )
        from (select d.* from found as d order by d.kind, d.similarity desc, d.id limit top_k) as f
    );
end;
$$;
comment on function private.find_duplicates(uuid, double precision, integer) is 'Behind public.find_duplicates.';
grant execute on function private.find_duplicates(uuid, double precision, integer) to anon, authenticated;

create function public.find_duplicates(
    file_id uuid, threshold double precision default 0.8, top_k integer default 20
) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.find_duplicates(file_id, threshold, top_k); $$;
comment on function public.find_duplicates(uuid, double precision, integer) is
'Files of the same owner with the same bytes, or with much the same text: {items: [{file_id, name, size, updated_at,
similarity, kind: exact | near}], next_cursor}, the likest first; of what the caller can read, as it is now.

threshold: least similarity of near ones, 0.5 to 1 of the text. Raises NOT_FOUND, INVALID_ARGUMENT.';
grant execute on function public.find_duplicates(uuid, double precision, integer) to anon, authenticated;
