-- How well a space finds, beside another one: what evaluations found and whether it may be activated, and how far two
-- spaces agree. Told to whoever holds the database, by the command line; clients call none of it.

insert into private.settings (key, value, description) values
(
    'spaces.gate_tolerance', '0.01',
    'How much less nDCG@10 than the active space, on the same collection, a space may have to be activated.'
);

create table private.space_evaluations (
    id bigint generated always as identity primary key,
    space_id smallint not null references public.embedding_spaces on delete cascade,
    collection text not null check (collection <> ''),
    ndcg real not null check (ndcg between 0 and 1),
    recall real check (recall between 0 and 1),
    mrr real check (mrr between 0 and 1),
    query_count integer not null check (query_count > 0),
    has_passed boolean not null default true,
    details jsonb not null default '{}',
    created_at timestamptz not null default clock_timestamp()
);
comment on table private.space_evaluations is
'What evaluations found, per space and collection; the latest of each counts when a space is activated.';
comment on column private.space_evaluations.ndcg is 'nDCG@10 through hybrid search.';
comment on column private.space_evaluations.recall is 'recall@100.';
comment on column private.space_evaluations.has_passed is 'False when it lost against the stored baseline.';
create index space_evaluations_space_id_idx on private.space_evaluations (space_id, collection, created_at);
alter table private.space_evaluations enable row level security;

create function private.space_named(name text) returns public.embedding_spaces
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_space public.embedding_spaces;
begin
    select s.* into v_space from public.embedding_spaces as s where s.name = space_named.name;
    if v_space.id is null then
        perform private.raise_error(
            'NOT_FOUND', format('There is no space "%s".', name),
            jsonb_build_object('space', name, 'spaces', (
                select coalesce(jsonb_agg(s.name order by s.name), '[]') from public.embedding_spaces as s
            )),
            'See them all: narwhal spaces list'
        );
    end if;
    return v_space;
end;
$$;
comment on function private.space_named(text) is 'A space in any state. Raises NOT_FOUND (spaces: their names).';

create function private.record_evaluation(
    space text, collection text, ndcg real, recall real, mrr real, query_count integer,
    has_passed boolean default true, details jsonb default '{}'
) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.space_evaluations (
        space_id, collection, ndcg, recall, mrr, query_count, has_passed, details
    )
    values (
        (private.space_named(space)).id, record_evaluation.collection, record_evaluation.ndcg,
        record_evaluation.recall, record_evaluation.mrr, record_evaluation.query_count,
        coalesce(record_evaluation.has_passed, true), coalesce(record_evaluation.details, '{}')
    );
$$;
comment on function private.record_evaluation(text, text, real, real, real, integer, boolean, jsonb) is
'Keeps what an evaluation found for a space. has_passed: false when it lost against the stored baseline. Raises
NOT_FOUND.';

create function private.latest_evaluations(space_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(jsonb_object_agg(e.collection, jsonb_build_object(
        'ndcg', e.ndcg, 'recall', e.recall, 'mrr', e.mrr, 'query_count', e.query_count, 'has_passed', e.has_passed,
        'details', e.details, 'created_at', e.created_at
    )), '{}')
    from (
        select distinct on (v.collection) v.*
        from private.space_evaluations as v
        where v.space_id = latest_evaluations.space_id
        order by v.collection, v.created_at desc, v.id desc
    ) as e;
$$;
comment on function private.latest_evaluations(smallint) is
'The latest evaluation of a space of each collection: {collection: {ndcg, recall, mrr, query_count, has_passed,
details, created_at}}.';

create function private.lost_evaluations(space_id smallint, active_id smallint) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'collection', e.key, 'ndcg', e.value -> 'ndcg', 'active', a.value -> 'ndcg',
        'has_passed', e.value -> 'has_passed'
    ) order by e.key), '[]')
    from jsonb_each(private.latest_evaluations(lost_evaluations.space_id)) as e (key, value)
    left join jsonb_each(private.latest_evaluations(lost_evaluations.active_id)) as a (key, value)
        on a.key = e.key
            -- a collection of the same name may have been changed
            and a.value #> '{details,fingerprint}' is not distinct from e.value #> '{details,fingerprint}'
    where not (e.value ->> 'has_passed')::boolean
        or (e.value ->> 'ndcg')::float8
        < (a.value ->> 'ndcg')::float8 - (private.setting('spaces.gate_tolerance'))::float8;
$$;
comment on function private.lost_evaluations(smallint, smallint) is
'Collections on which a space failed its gate, or is worse than the active one by more than spaces.gate_tolerance:
[{collection, ndcg, active, has_passed}].';

-- Comparing ------------------------------------------------------------------------------------

create function private.nearest_chunks(space_id smallint, owner_id uuid, embedding extensions.halfvec, top_k integer)
returns uuid[]
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    return array(
        select d.chunk_id
        from private.search_dense(
            space_id, embedding,
            jsonb_populate_record(
                null::private.search_scope,
                jsonb_build_object(
                    'owner_ids', jsonb_build_array(owner_id), 'roots', '[]'::jsonb, 'shared_owner_ids', '[]'::jsonb,
                    'shared_file_ids', '[]'::jsonb, 'hidden_file_ids', '[]'::jsonb
                )
            ),
            top_k, null
        ) as d
        order by d.score desc, d.chunk_id
        limit top_k
    );
end;
$$;
comment on function private.nearest_chunks(smallint, uuid, extensions.halfvec, integer) is
'An owner''s chunks nearest to a vector of a space, the nearest first.';

create function private.compare_spaces(
    space_id smallint, other_id smallint, max_samples integer default 100, top_k integer default 10
) returns jsonb
language plpgsql volatile -- another sample each time
security invoker
set search_path = ''
as $$
declare
    v_answer jsonb;
begin
    if max_samples not between 1 and 10000 or top_k not between 1 and 100 then
        perform private.raise_invalid('samples', 'Samples are 1 to 10000, and top_k is 1 to 100.');
    end if;
    if exists (
        select 1 from public.embedding_spaces as s where s.id in (space_id, other_id) and s.kind <> 'text'
    ) then
        perform private.raise_invalid('space', 'Only text spaces are compared by the neighbours of their passages.');
    end if;
    with samples as materialized (
        select e.chunk_id, e.owner_id, e.embedding, o.embedding as other_embedding
        from private.chunk_vectors as e
        inner join private.chunk_vectors as o on o.chunk_id = e.chunk_id and o.space_id = other_id
        where e.space_id = compare_spaces.space_id
        order by random()
        limit max_samples
    ), found as (
        select
            array_remove(
                private.nearest_chunks(compare_spaces.space_id, s.owner_id, s.embedding, top_k + 1), s.chunk_id
            ) as ids,
            array_remove(private.nearest_chunks(other_id, s.owner_id, s.other_embedding, top_k + 1), s.chunk_id)
            as other_ids
        from samples as s
    ), shared as (
        select
            cardinality(array(select unnest(f.ids[:top_k]) intersect select unnest(f.other_ids[:top_k])))::float8
            / nullif(least(top_k, cardinality(f.ids), cardinality(f.other_ids)), 0) as part,
            f.ids[1] = f.other_ids[1] as is_same_first
        from found as f
    )
    select jsonb_build_object(
        'samples', count(h.part),
        'top_k', top_k,
        'overlap', round(avg(h.part)::numeric, 4),
        'least', round(min(h.part)::numeric, 4),
        'same_first', round(avg(h.is_same_first::integer)::numeric, 4)
    )
    into v_answer
    from shared as h;
    return v_answer;
end;
$$;
comment on function private.compare_spaces(smallint, smallint, integer, integer) is
'How far two spaces agree, without any model: passages picked at random ask for the nearest others of their owner in
both: {samples, top_k, overlap (mean share of the top_k that both find), least, same_first}.';
