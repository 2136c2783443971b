-- Quota: who has how much, and the ledger of every byte promised, stored and returned.

create table private.quota_ledger (
    id bigint generated always as identity primary key,
    at timestamptz not null default now(),
    owner_id uuid not null,
    used bigint not null,
    reserved bigint not null,
    reason text not null check (
        reason in ('reserve', 'settle', 'release', 'store', 'delete', 'purge', 'restore', 'transfer', 'reconcile')
    ),
    reference uuid,
    check (used <> 0 or reserved <> 0)
);
comment on table private.quota_ledger is
'Every change of an owner''s used and reserved bytes, never changed itself: its sums are the columns of owners. It
outlives the owner.';
comment on column private.quota_ledger.used is 'Bytes that blobs took (or, negative, returned).';
comment on column private.quota_ledger.reserved is 'Bytes promised to a ticket (or, negative, returned).';
comment on column private.quota_ledger.reason is
'reserve: a ticket was made; settle: its bytes came; release: it ended without. store, delete: blobs came or went;
purge: only purged files have them; restore: used again; transfer: they changed hands; reconcile: an error corrected.';
comment on column private.quota_ledger.reference is 'The ticket or the blob; null when one statement changed several.';
create index quota_ledger_owner_id_idx on private.quota_ledger (owner_id) include (used, reserved);
alter table private.quota_ledger enable row level security;

create function private.tg_quota_ledger__refuse() returns trigger
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    perform private.raise_error(
        'FORBIDDEN', 'The ledger only grows.', '{}', 'Correct an error with an entry of its own.'
    );
    return null;
end;
$$;
comment on function private.tg_quota_ledger__refuse() is 'Nobody changes or removes what is in the ledger.';

create trigger _100_refuse
before update or delete or truncate on private.quota_ledger
for each statement execute function private.tg_quota_ledger__refuse();

create function private.charge(
    owner_id uuid, used bigint, reserved bigint, reason text, reference uuid default null
) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if coalesce(used, 0) = 0 and coalesce(reserved, 0) = 0 then
        return;
    end if;
    update public.owners as o
    set
        storage_used = o.storage_used + coalesce(charge.used, 0),
        storage_reserved = o.storage_reserved + coalesce(charge.reserved, 0)
    where o.id = charge.owner_id;
    if found then -- an owner who is being deleted takes the account along
        insert into private.quota_ledger (owner_id, used, reserved, reason, reference)
        values (
            charge.owner_id, coalesce(charge.used, 0), coalesce(charge.reserved, 0), charge.reason, charge.reference
        );
    end if;
end;
$$;
comment on function private.charge(uuid, bigint, bigint, text, uuid) is
'The only way to change what an owner has used or reserved, by these bytes; it writes the ledger. It checks no limit:
see require_quota.';

create function private.require_quota(owner_id uuid, size bigint) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_owner public.owners;
begin
    -- the row lock makes parallel requests of one owner queue up here, so the sum is exact
    select o.* into v_owner from public.owners as o where o.id = require_quota.owner_id for no key update;
    if v_owner.storage_used + v_owner.storage_reserved + size > v_owner.storage_limit then
        perform private.raise_error(
            'QUOTA_EXCEEDED',
            'There is not enough space left.',
            jsonb_build_object(
                'used', v_owner.storage_used, 'reserved', v_owner.storage_reserved,
                'limit', v_owner.storage_limit, 'requested', size
            ),
            'Delete something, or ask for more space.'
        );
    end if;
end;
$$;
comment on function private.require_quota(uuid, bigint) is
'Locks the owner and raises QUOTA_EXCEEDED unless so many more bytes fit.';
