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
'Changes what an owner has used or reserved, by these bytes, and writes the ledger: the only way beside settle_account.
It checks no limit: see require_quota.';

create function private.settle_account(owner_id uuid) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_used bigint;
    v_reserved bigint;
    v_ledger record;
begin
    select coalesce(sum(b.size), 0) into v_used
    from private.blobs as b
    where b.owner_id = settle_account.owner_id and b.released_at is null;
    select coalesce(sum(u.size), 0) into v_reserved
    from public.uploads as u
    where u.owner_id = settle_account.owner_id and u.state in ('open', 'uploading');
    select coalesce(sum(l.used), 0) as used, coalesce(sum(l.reserved), 0) as reserved into v_ledger
    from private.quota_ledger as l
    where l.owner_id = settle_account.owner_id;
    if (v_ledger.used, v_ledger.reserved) <> (v_used, v_reserved) then
        insert into private.quota_ledger (owner_id, used, reserved, reason)
        values (settle_account.owner_id, v_used - v_ledger.used, v_reserved - v_ledger.reserved, 'reconcile');
    end if;
    update public.owners as o
    set storage_used = v_used, storage_reserved = v_reserved
    where o.id = settle_account.owner_id and (o.storage_used, o.storage_reserved) <> (v_used, v_reserved);
end;
$$;
comment on function private.settle_account(uuid) is
'Makes an owner''s sums and the ledger those of the real blobs and tickets. The caller holds the lock on the owner.';

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

-- Plans ----------------------------------------------------------------------------------------

create table public.plans (
    name text primary key check (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    storage_limit bigint check (storage_limit >= 0),
    max_file_size bigint check (max_file_size >= 0),
    allowed_extensions text[] check (allowed_extensions::text = lower(allowed_extensions::text)),
    blocked_extensions text[] not null default '{}' check (
        blocked_extensions::text = lower(blocked_extensions::text)
    ),
    created_at timestamptz not null default now()
);
comment on table public.plans is
'What a subscription allows. A profile names its plan in subscription.plan; without one, or where a plan says nothing,
the settings count.';
comment on column public.plans.storage_limit is
'Bytes in all, given to the owner when the plan is; an administrator may then set another limit. null: the setting
owners.storage_limit.';
comment on column public.plans.max_file_size is 'Bytes of one file; never more than the setting uploads.max_size.';
comment on column public.plans.allowed_extensions is 'Only these, in lower case without the dot; null: any.';
comment on column public.plans.blocked_extensions is 'Not these, beside the setting uploads.blocked_extensions.';

insert into public.plans (name) values ('free');

alter table public.plans enable row level security;

create policy users_can_select on public.plans
for select to authenticated
using ((select private.is_active()));

grant select on public.plans to authenticated, service_role;

create function private.plan_of(owner_id uuid) returns public.plans
language sql stable
security invoker
set search_path = ''
as $$
    select p.*
    from public.user_profiles as u inner join public.plans as p on p.name = u.subscription ->> 'plan'
    where u.id = plan_of.owner_id;
$$;
comment on function private.plan_of(uuid) is 'The plan of a personal owner; a null row when there is none.';

create function private.extension_of(name text) returns text
language sql immutable parallel safe
-- as an operating system would see it: without dots, spaces and invisible characters at the end
return substring(
    lower(normalize(name, nfkc)) from '\.([^.]*?)[.\u0020\u1680\u2000-\u200f\u202f\u205f-\u2064\ufeff]*$'
);
comment on function private.extension_of(text) is 'What follows the last dot of a name, in lower case; null without.';

create function private.check_plan(owner_id uuid, name text, size bigint) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_plan public.plans := private.plan_of(owner_id);
    v_max_size bigint := least((private.setting('uploads.max_size'))::bigint, v_plan.max_file_size);
    v_extension text := private.extension_of(name);
begin
    if v_extension = any(v_plan.blocked_extensions) or not v_extension = any(v_plan.allowed_extensions)
        or (v_extension is null and v_plan.allowed_extensions is not null) then
        perform private.raise_error(
            'TYPE_NOT_ALLOWED',
            format('The plan "%s" does not accept files of this type.', v_plan.name),
            jsonb_build_object(
                'extension', v_extension, 'plan', v_plan.name,
                'allowed', v_plan.allowed_extensions, 'blocked', v_plan.blocked_extensions
            )
        );
    end if;
    if size > v_max_size then
        perform private.raise_error(
            'FILE_TOO_LARGE',
            'The file is larger than this service accepts.',
            (
                select jsonb_build_object(
                    'used', o.storage_used, 'reserved', o.storage_reserved, 'limit', v_max_size, 'requested', size
                )
                from public.owners as o
                where o.id = check_plan.owner_id
            )
        );
    end if;
end;
$$;
comment on function private.check_plan(uuid, text, bigint) is
'Raises what an owner''s plan says against one file: TYPE_NOT_ALLOWED, FILE_TOO_LARGE. The limit on all files together
is on the owner: see require_quota.';

create function private.tg_user_profiles__apply_plan() returns trigger
language plpgsql volatile
security definer -- sign-ups run as Auth's own role
set search_path = ''
as $$
declare
    v_limit bigint := coalesce(
        (private.plan_of(new.id)).storage_limit, (private.setting('owners.storage_limit'))::bigint
    );
begin
    update public.owners as o
    set storage_limit = v_limit
    where o.id = new.id and o.storage_limit <> v_limit;
    return null; -- after trigger
end;
$$;
comment on function private.tg_user_profiles__apply_plan() is 'Gives an owner the limit of their new plan.';

create trigger _500_apply_first_plan
after insert on public.user_profiles
for each row execute function private.tg_user_profiles__apply_plan();

create trigger _500_apply_plan
after update of subscription on public.user_profiles
for each row when (old.subscription ->> 'plan' is distinct from new.subscription ->> 'plan')
execute function private.tg_user_profiles__apply_plan();

create function private.change_plan(user_id uuid, plan text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
begin
    if not exists (select 1 from public.plans as p where p.name = change_plan.plan) then
        perform private.raise_invalid(
            'plan', format('There is no plan "%s".', plan),
            jsonb_build_object('expected', (select jsonb_agg(p.name order by p.name) from public.plans as p))
        );
    end if;
    -- the owner before the profile, the order in which an upload ends
    perform from public.owners as o where o.id = user_id for no key update;
    perform private.lock_profile(user_id);
    update public.user_profiles as p
    set subscription = p.subscription || jsonb_build_object('plan', change_plan.plan), updated_at = now()
    where p.id = user_id;
    return private.describe_user(user_id);
end;
$$;
comment on function private.change_plan(uuid, text) is
'Gives a user a plan, and its limit. Raises INVALID_ARGUMENT (field plan), NOT_FOUND.';

-- What it is used for --------------------------------------------------------------------------

create function private.usage_of(owner_ids uuid[])
returns table (owner_id uuid, live bigint, versions bigint, trash bigint, derived bigint)
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    return query
    select
        b.owner_id,
        coalesce(sum(b.size) filter (where b.use = 1), 0)::bigint,
        coalesce(sum(b.size) filter (where b.use = 2), 0)::bigint,
        coalesce(sum(b.size) filter (where b.use = 3), 0)::bigint,
        coalesce(sum(b.size) filter (where b.use = 4), 0)::bigint
    from (
        -- several versions may share a blob: it counts once, where it is needed most
        select a.owner_id, a.size, case when a.bucket = 'derived' then 4 else coalesce(min(
            case
                when n.trashed_at is not null then 3
                -- what a download gives; the newest before the first is read
                when v.id = coalesce(n.head_version_id, (
                    select w.id from public.file_versions as w where w.file_id = n.id order by w.no desc limit 1
                )) then 1
                else 2
            end
        ), 2) end as use
        from private.blobs as a
        left join public.file_versions as v on v.blob_id = a.id
        left join public.nodes as n on n.id = v.file_id
        where a.owner_id = any(owner_ids) and a.released_at is null
        group by a.id
    ) as b
    group by b.owner_id;
end;
$$;
comment on function private.usage_of(uuid[]) is
'What owners have used, in four parts that add up to it: live, versions, trash, derived. No row for who has nothing.';

create function private.storage_usage(owner uuid) returns jsonb
language plpgsql stable
security definer -- blobs are not in the API
set search_path = ''
as $$
declare
    v_owner_id uuid := coalesce(owner, private.require_user());
begin
    perform private.require_user();
    if not v_owner_id = any(private.my_owner_ids()) then -- absent and not-yours look alike on purpose
        perform private.raise_error('NOT_FOUND', 'No such owner.', jsonb_build_object('id', v_owner_id));
    end if;
    return (
        select jsonb_build_object(
            'used', o.storage_used, 'reserved', o.storage_reserved, 'limit', o.storage_limit,
            'live', coalesce(u.live, 0), 'versions', coalesce(u.versions, 0), 'trash', coalesce(u.trash, 0),
            'derived', coalesce(u.derived, 0)
        )
        from public.owners as o
        left join private.usage_of(array[v_owner_id]) as u on u.owner_id = o.id
        where o.id = v_owner_id
    );
end;
$$;
comment on function private.storage_usage(uuid) is 'Behind public.storage_usage.';
grant execute on function private.storage_usage(uuid) to anon, authenticated;

create function public.storage_usage(owner uuid default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.storage_usage(owner); $$;
comment on function public.storage_usage(uuid) is
'How much is stored, and as what: {used, reserved, limit, live, versions, trash, derived} in bytes.

owner: null for yourself, or a workspace of yours. live, versions (earlier ones of living files), trash and derived
(pictures and the like made from files) add up to used; bytes that several versions share count once. reserved is
promised to uploads under way. Raises NOT_FOUND.';
grant execute on function public.storage_usage(uuid) to anon, authenticated;

create table public.usage_daily (
    owner_id uuid not null references public.owners on delete cascade,
    day date not null,
    used bigint not null,
    reserved bigint not null,
    storage_limit bigint not null,
    live bigint not null,
    versions bigint not null,
    trash bigint not null,
    derived bigint not null,
    primary key (owner_id, day)
);
comment on table public.usage_daily is 'What each owner stored on each day, in bytes: one row a day (UTC), for trends.';

alter table public.usage_daily enable row level security;

create policy members_can_select on public.usage_daily
for select to authenticated
using (owner_id = any((select private.my_owner_ids())::uuid[]));

grant select on public.usage_daily to authenticated, service_role;

create function private.record_usage(max_owners integer default 200) returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_day date := (now() at time zone 'utc')::date;
    v_owner_ids uuid[] := array(
        select o.id
        from public.owners as o
        where not exists (select 1 from public.usage_daily as d where d.owner_id = o.id and d.day = v_day)
        limit max_owners
    );
    v_count integer;
begin
    insert into public.usage_daily (owner_id, day, used, reserved, storage_limit, live, versions, trash, derived)
    select
        o.id, v_day, o.storage_used, o.storage_reserved, o.storage_limit,
        coalesce(u.live, 0), coalesce(u.versions, 0), coalesce(u.trash, 0), coalesce(u.derived, 0)
    from public.owners as o
    left join private.usage_of(v_owner_ids) as u on u.owner_id = o.id
    where o.id = any(v_owner_ids)
    on conflict do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;
comment on function private.record_usage(integer) is
'Writes the day''s row of usage_daily for owners who have none yet; how many it wrote.';
