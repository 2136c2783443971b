-- Storage: the bucket of all files, the bucket of what workers derive from them, policies and triggers. Short and
-- alone, because each statement on storage.objects locks it until commit.

set local lock_timeout = '5s';

insert into storage.buckets (id, name, public) values ('files', 'files', false), ('derived', 'derived', false);

create policy narwhal_ticket_holders_can_insert on storage.objects
for insert to authenticated
with check (bucket_id = 'files' and private.holds_ticket(name));

create policy narwhal_readers_can_select on storage.objects
for select to anon, authenticated
using (
    bucket_id in ('files', 'derived')
    and private.open_object(
        bucket_id, name, (select private.my_owner_ids())::uuid[], (select private.granted_roots())::uuid[]
    )
);

-- no update or delete policy: versions are immutable, and only the worker removes objects

create policy narwhal_inactive_cannot on storage.objects
as restrictive
for all to authenticated
using ((select private.is_active()));

create or replace trigger narwhal_100_guard_upload
before insert on storage.objects
for each row when (new.bucket_id = 'files')
execute function private.tg_objects__guard_upload();

-- Storage's real write is an upsert; moving an object to another key stays possible
create or replace trigger narwhal_100_guard_version
before update on storage.objects
for each row when (
    old.bucket_id = 'files' and new.bucket_id = 'files' and new.name = old.name
    and new.version is distinct from old.version
)
execute function private.tg_objects__guard_version();

create or replace trigger narwhal_500_complete_upload
after insert on storage.objects
for each row when (new.bucket_id = 'files' and new.metadata ? 'size')
execute function private.tg_objects__complete_upload();

-- permission tests of a move are rolled back, and this with them
create or replace trigger narwhal_500_follow_move
after update on storage.objects
for each row when (
    old.bucket_id in ('files', 'derived') and (old.bucket_id, old.name) is distinct from (new.bucket_id, new.name)
)
execute function private.tg_objects__follow_move();
