-- Object deletions: bytes that nothing refers to any more, and the worker that removes them.

create table private.object_deletions (
    id bigint generated always as identity primary key,
    bucket text not null,
    key text not null,
    attempts integer not null default 0,
    run_after timestamptz not null default now()
);
comment on table private.object_deletions is
'Objects that a worker must remove through the Storage API, since SQL may not delete from storage.objects.';
create index object_deletions_run_after_idx on private.object_deletions (run_after);
alter table private.object_deletions enable row level security;

create function private.tg_file_versions__delete_blobs() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    delete from private.blobs as b
    using gone as g
    where b.id = g.blob_id
        and not exists (select 1 from public.file_versions as v where v.blob_id = b.id);
    return null; -- after trigger
end;
$$;
comment on function private.tg_file_versions__delete_blobs() is 'Deletes blobs whose last version went.';

create trigger _500_delete_blobs
after delete on public.file_versions
referencing old table as gone
for each statement execute function private.tg_file_versions__delete_blobs();

create function private.tg_blobs__release() returns trigger
language plpgsql volatile
security definer -- runs for whoever deletes
set search_path = ''
as $$
begin
    insert into private.object_deletions (bucket, key) select g.bucket, g.key from gone as g;
    return null; -- after trigger
end;
$$;
comment on function private.tg_blobs__release() is 'Queues the objects of deleted blobs.';

create trigger _500_release
after delete on private.blobs
referencing old table as gone
for each statement execute function private.tg_blobs__release();

create function private.claim_object_deletions(max_objects integer) returns setof jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_ids bigint[] := array(
        select q.id from private.object_deletions as q
        where q.run_after <= now()
        order by q.run_after
        limit max_objects
        for update skip locked
    );
begin
    -- another owner has the same object: it goes with the last one
    delete from private.object_deletions as d
    where d.id = any(v_ids)
        and exists (select 1 from private.blobs as b where b.bucket = d.bucket and b.key = d.key);
    return query
    update private.object_deletions as d
    set attempts = d.attempts + 1, run_after = now() + make_interval(secs => 60 * 2 ^ least(d.attempts, 10))
    where d.id = any(v_ids)
    returning jsonb_build_object('id', d.id, 'bucket', d.bucket, 'key', d.key);
end;
$$;
comment on function private.claim_object_deletions(integer) is
'Objects to remove now, those apart that another blob still has; each comes again, later and later, until
finish_object_deletions is called.';

create function private.finish_object_deletions(ids bigint[]) returns void
language sql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$ delete from private.object_deletions as d where d.id = any(ids); $$;
comment on function private.finish_object_deletions(bigint[]) is 'These objects are gone from Storage.';

grant execute on function
private.claim_object_deletions(integer),
private.finish_object_deletions(bigint[])
to narwhal_worker;
