-- Links: whoever holds the token sees one node and all below it, within the limits that its maker set.

insert into private.settings (key, value, description) values
('auth.password_attempts', '5', 'Wrong passwords for one link before it waits for 15 minutes.');

create table private.link_events (
    id uuid primary key default gen_random_uuid(),
    link_id uuid not null references public.share_links on delete cascade,
    kind text not null check (kind in ('created', 'opened', 'refused', 'downloaded', 'signed', 'revoked')),
    grant_hash bytea,
    node_id uuid,
    bucket text,
    key text,
    at timestamptz not null default clock_timestamp()
);
comment on table private.link_events is 'The history of links. refused: a wrong password; signed: a URL was made.';
comment on column private.link_events.key is 'The object that was read, or that a URL was made for.';
create index link_events_link_id_idx on private.link_events (link_id, at desc, id desc);
create index link_events_grant_hash_idx on private.link_events (grant_hash) where kind = 'downloaded';
alter table private.link_events enable row level security;

create table private.key_rotations (
    id bigint generated always as identity primary key,
    link_id uuid references public.share_links on delete set null,
    bucket text not null,
    key text not null,
    attempts integer not null default 0,
    run_after timestamptz not null default now()
);
comment on table private.key_rotations is
'Objects that a worker must move to a new key through the Storage API, so that signed URLs made earlier die: what a hard
revoke leaves to do. A row goes when its object has moved, or is gone.';
create index key_rotations_run_after_idx on private.key_rotations (run_after);
create index key_rotations_link_id_idx on private.key_rotations (link_id);
create index key_rotations_key_idx on private.key_rotations (bucket, key);
alter table private.key_rotations enable row level security;

create function private.hash_password(password text, salt bytea) returns bytea
language plpgsql immutable
security invoker
set search_path = ''
as $$
declare
    v_hash bytea := sha256(salt || convert_to(password, 'UTF8'));
begin
    for v_round in 2..100000 loop -- about 36 ms
        v_hash := sha256(salt || v_hash);
    end loop;
    return v_hash;
end;
$$;
comment on function private.hash_password(text, bytea) is
'100,000 rounds of salted sha256: pgcrypto is not everywhere.';

create function private.random_token() returns text
language sql volatile
security invoker
set search_path = ''
as $$ select replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''); $$;
comment on function private.random_token() is '64 hexadecimal digits, 244 of their bits random.';

create function private.hash_token(token text) returns bytea
language sql immutable parallel safe
return sha256(convert_to(token, 'UTF8'));
comment on function private.hash_token(text) is 'How tokens and grants are stored.';

create function private.link_json(link public.share_links) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$
    select jsonb_build_object(
        'id', (link).id,
        'node_id', (link).node_id,
        'level', (link).level,
        'has_password', (link).has_password,
        'expires_at', (link).expires_at,
        'max_downloads', (link).max_downloads,
        'downloads', (link).downloads,
        'opens', (link).opens,
        'last_opened_at', (link).last_opened_at,
        'created_at', (link).created_at,
        'created_by', private.public_facts((link).created_by),
        'revoking_at', (link).revoking_at,
        'revoked_at', (link).revoked_at,
        'state', case
            when (link).revoked_at is not null then 'revoked'
            when (link).revoking_at is not null then 'revoking'
            else coalesce(private.link_problem(link), 'active')
        end
    );
$$;
comment on function private.link_json(public.share_links) is 'A link as those who manage it get it, without its token.';

-- Making links ---------------------------------------------------------------------------------

create function private.check_link(
    level text, password text, expires_at timestamptz, max_downloads integer
) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
begin
    if level is null or level not in ('view', 'comment', 'edit') then
        perform private.raise_invalid('level', 'A link has the level view, comment or edit.');
    end if;
    if char_length(password) not between 1 and 200 then
        perform private.raise_invalid('password', 'A password has 1 to 200 characters; null for none.');
    end if;
    perform private.check_expiry(expires_at);
    if max_downloads < 1 then
        perform private.raise_invalid('max_downloads', 'A link allows at least one download; null for any number.');
    end if;
end;
$$;
comment on function private.check_link(text, text, timestamptz, integer) is
'Raises INVALID_ARGUMENT (field level, password, expires_at or max_downloads).';

create function private.create_share_link(
    node uuid, level text, password text, expires_at timestamptz, max_downloads integer
) returns jsonb
language plpgsql volatile
security definer -- clients only read links, and nobody their secrets
set search_path = ''
as $$
declare
    v_user_id uuid := private.require_writer();
    v_token text := private.random_token();
    v_salt bytea;
    v_hash bytea;
    v_link public.share_links;
begin
    perform private.require_level(node, 'manage');
    perform private.check_link(level, password, expires_at, max_downloads);
    if password is not null then
        v_salt := uuid_send(gen_random_uuid());
        v_hash := private.hash_password(password, v_salt);
    end if;
    -- the node may be on its way to the trash: wait for that, then look
    perform from public.nodes as n where n.id = node for share;
    perform private.require_level(node, 'manage');
    insert into public.share_links (node_id, level, created_by, has_password, expires_at, max_downloads)
    values (
        node, create_share_link.level, v_user_id, password is not null, create_share_link.expires_at,
        create_share_link.max_downloads
    )
    returning * into v_link;
    insert into private.link_secrets (link_id, token_hash, password_salt, password_hash)
    values (v_link.id, private.hash_token(v_token), v_salt, v_hash);
    insert into private.link_events (link_id, kind) values (v_link.id, 'created');
    return private.link_json(v_link) || jsonb_build_object('token', v_token);
end;
$$;
comment on function private.create_share_link(uuid, text, text, timestamptz, integer) is
'Behind public.create_share_link.';
grant execute on function private.create_share_link(uuid, text, text, timestamptz, integer) to anon, authenticated;

create function public.create_share_link(
    node uuid,
    level text default 'view',
    password text default null,
    expires_at timestamptz default null,
    max_downloads integer default null
) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.create_share_link(node, level, password, expires_at, max_downloads); $$;
comment on function public.create_share_link(uuid, text, text, timestamptz, integer) is
'Make a link to a file or folder: {id, token, node_id, level, expires_at, max_downloads, has_password, state, …}. Needs
level manage.

The token is shown only now; whoever holds it calls open_share_link. level: view, comment or edit, for people who are
signed in; anonymous holders only look. password: 1 to 200 characters. max_downloads counts reads of a file''s bytes,
and the making of signed URLs. The link is good only as long as you manage the node. Raises NOT_FOUND, FORBIDDEN,
INVALID_ARGUMENT (field level, password, expires_at or max_downloads).';
grant execute on function public.create_share_link(uuid, text, text, timestamptz, integer) to anon, authenticated;

-- Opening links --------------------------------------------------------------------------------

create function private.raise_gone(link public.share_links) returns void
language plpgsql stable
security invoker
set search_path = ''
as $$
declare
    v_problem text := private.link_problem(link);
begin
    if v_problem is not null then
        perform private.raise_error(
            'GONE',
            case v_problem
                when 'expired' then 'This link has expired.'
                when 'revoked' then 'This link was revoked.'
                when 'used_up' then 'This link has been used as often as it may be.'
                else 'This link does not work any more.'
            end,
            jsonb_build_object('reason', v_problem),
            'Ask whoever sent it for a new one.'
        );
    end if;
end;
$$;
comment on function private.raise_gone(public.share_links) is
'Raises GONE with details.reason unless the link is good.';

create function private.check_link_password(secret private.link_secrets, password text) returns jsonb
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_failures integer := case
        when (secret).last_failure_at > now() - interval '15 minutes' then (secret).failures else 0
    end;
begin
    if (secret).password_hash is null then
        return null;
    end if;
    if v_failures >= (private.setting('auth.password_attempts'))::integer then
        perform private.raise_error(
            'RATE_LIMITED', 'Too many wrong passwords; this link waits.',
            jsonb_build_object('retry_after', ceil(extract(
                epoch from (secret).last_failure_at + interval '15 minutes' - now()
            ))),
            'Try again later.'
        );
    end if;
    if password is not null
        and private.hash_password(left(password, 201), (secret).password_salt) = (secret).password_hash then
        update private.link_secrets as s set failures = 0 where s.link_id = (secret).link_id and s.failures > 0;
        return null;
    end if;
    if password is not null then -- asking without one is no guess
        update private.link_secrets as s
        set failures = v_failures + 1, last_failure_at = now()
        where s.link_id = (secret).link_id;
        insert into private.link_events (link_id, kind) values ((secret).link_id, 'refused');
    end if;
    -- raising would undo the count
    perform set_config('response.status', '401', true);
    return jsonb_build_object(
        'code', 'PT401',
        'message', case when password is null then 'This link asks for a password.' else 'Wrong password.' end,
        'details', jsonb_build_object(
            'error', 'NOT_AUTHENTICATED',
            'reason', case when password is null then 'password_required' else 'wrong_password' end
        )::text,
        'hint', 'Open the link with the password that came with it.'
    );
end;
$$;
comment on function private.check_link_password(private.link_secrets, text) is
'null when the link may be opened; else the error as an object, with the HTTP status set. Raises RATE_LIMITED after
auth.password_attempts failures, until 15 minutes after the last one. The caller holds the lock on the secret.';

create function private.open_share_link(token text, password text) returns jsonb
language plpgsql volatile
security definer -- anybody may open a link, and nobody may read secrets or grants
set search_path = ''
as $$
declare
    v_secret private.link_secrets;
    v_link public.share_links;
    v_refusal jsonb;
    v_grant text := private.random_token();
    v_expires_at timestamptz := now() + interval '15 minutes';
begin
    if auth.uid() is not null then
        perform private.require_actor();
    end if;
    -- guesses come one at a time, so that no more are tried than counted; the link before its secret, as it is deleted
    select l.* into v_link
    from public.share_links as l
    where l.id = (select s.link_id from private.link_secrets as s where s.token_hash = private.hash_token(token))
    for no key update;
    select s.* into v_secret
    from private.link_secrets as s
    where s.link_id = v_link.id
    for update;
    if v_secret.link_id is null then
        perform private.raise_error('NOT_FOUND', 'No such link.', '{}', 'Check that the link is complete.');
    end if;
    perform private.raise_gone(v_link);
    v_refusal := private.check_link_password(v_secret, password);
    if v_refusal is not null then
        return v_refusal;
    end if;

    update public.share_links as l
    set opens = l.opens + 1, last_opened_at = now()
    where l.id = v_link.id;
    v_expires_at := least(v_expires_at, v_link.expires_at);
    insert into private.link_grants (grant_hash, link_id, user_id, expires_at)
    values (private.hash_token(v_grant), v_link.id, auth.uid(), v_expires_at);
    insert into private.link_events (link_id, kind, grant_hash, node_id)
    values (v_link.id, 'opened', private.hash_token(v_grant), v_link.node_id);
    return jsonb_build_object(
        'node', (
            select jsonb_build_object(
                'id', n.id, 'kind', n.kind, 'name', n.name, 'size', n.size, 'mime', n.mime, 'status', n.status,
                'created_at', n.created_at, 'updated_at', n.updated_at
            )
            from public.nodes as n
            where n.id = v_link.node_id
        ),
        'grant', v_grant,
        'expires_at', v_expires_at,
        'level', case when auth.uid() is null then 'view' else v_link.level end,
        'downloads_left', v_link.max_downloads - v_link.downloads
    );
end;
$$;
comment on function private.open_share_link(text, text) is 'Behind public.open_share_link.';
grant execute on function private.open_share_link(text, text) to anon, authenticated;

create function public.open_share_link(token text, password text default null) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.open_share_link(token, password); $$;
comment on function public.open_share_link(text, text) is
'Open a link, signed in or not: {node {id, kind, name, …}, grant, expires_at, level, downloads_left}.

Send the grant in the header x-share-grant, to the Data API and to Storage: until expires_at (15 minutes) the node and
all below it are visible as if shared. Open the link again for a new one. Raises NOT_FOUND for a token that there is
not, GONE with details.reason (expired, revoked, used_up, trashed, deleted, not_permitted), RATE_LIMITED {retry_after}
after too many wrong passwords. A wrong or missing password answers 401 with error NOT_AUTHENTICATED.';
grant execute on function public.open_share_link(text, text) to anon, authenticated;

create function private.expire_link_grants() returns integer
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_count integer;
begin
    delete from private.link_grants as g where g.expires_at <= now();
    get diagnostics v_count = row_count;
    return v_count;
end;
$$;
comment on function private.expire_link_grants() is 'Forgets grants that have run out; how many.';

-- Counting downloads ---------------------------------------------------------------------------

create function private.count_download(link public.share_links, bucket text, key text, is_signing boolean)
returns boolean
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_headers json := nullif(current_setting('request.headers', true), '')::json;
    v_grant_hash bytea := private.hash_token(v_headers ->> 'x-share-grant');
    v_file_id uuid;
begin
    -- the rest of what this grant has begun to read; If-Range may turn a rest into the whole
    if not is_signing
        and v_headers ->> 'range' ~ '^bytes=[1-9][0-9]*-[0-9]*$'
        and v_headers ->> 'if-range' is null
        and exists (
            select 1 from private.link_events as e
            where e.grant_hash = v_grant_hash
                and e.kind = 'downloaded'
                and e.bucket = count_download.bucket
                and e.key = count_download.key
        ) then
        return true;
    end if;
    -- of many readers at once at the last download, the row lock lets one through
    update public.share_links as l
    set downloads = l.downloads + 1
    where l.id = (link).id
        and l.revoking_at is null
        and (l.max_downloads is null or l.downloads < l.max_downloads);
    if not found then
        return false;
    end if;
    select v.file_id into v_file_id
    from private.blobs as b
    inner join public.file_versions as v on v.blob_id = b.id
    inner join public.nodes as n on n.id = v.file_id
    where b.bucket = count_download.bucket
        and b.key = count_download.key
        and n.path && array[(link).node_id]
        and n.trashed_at is null
    limit 1;
    insert into private.link_events (link_id, kind, grant_hash, node_id, bucket, key)
    values (
        (link).id, case when is_signing then 'signed' else 'downloaded' end, v_grant_hash, v_file_id,
        count_download.bucket, count_download.key
    );
    return true;
end;
$$;
comment on function private.count_download(public.share_links, text, text, boolean) is
'Counts one read of an object through a link; false when the link is used up. A range that does not start at the first
byte is the rest of an earlier read, when the same grant has begun one.';

-- Revoking -------------------------------------------------------------------------------------

create function private.own_link(link_id uuid, level text) returns public.share_links
language plpgsql stable
security definer -- tells absent from forbidden only to those who can see the node
set search_path = ''
as $$
declare
    v_link public.share_links;
    v_node public.nodes;
begin
    perform private.require_user();
    select l.* into v_link from public.share_links as l where l.id = own_link.link_id;
    if v_link.created_by = auth.uid() and level is null then
        return v_link;
    end if;
    select n.* into v_node from public.nodes as n where n.id = v_link.node_id;
    if private.my_level(v_node, true) is null then
        perform private.raise_error('NOT_FOUND', 'No such link.', jsonb_build_object('id', link_id));
    end if;
    perform private.find_node(v_link.node_id, 'manage', true);
    return v_link;
end;
$$;
comment on function private.own_link(uuid, text) is
'The link, when the caller manages its node or (level null) made it. Raises NOT_FOUND or FORBIDDEN.';

create function private.revoke_share_link(id uuid, hard boolean) returns jsonb
language plpgsql volatile
security definer -- clients only read links
set search_path = ''
as $$
declare
    v_link public.share_links;
    v_user_ids uuid[];
    v_upload_ids uuid[];
begin
    perform private.require_writer();
    v_link := private.own_link(id, case when hard then 'manage' end);
    v_user_ids := array(
        select distinct g.user_id from private.link_grants as g
        where g.link_id = v_link.id and g.user_id is not null and g.expires_at > now()
    );
    v_upload_ids := private.lock_work(v_user_ids);
    select l.* into v_link from public.share_links as l where l.id = v_link.id for update;
    if v_link.id is null then -- its node was purged while we waited
        perform private.raise_error('NOT_FOUND', 'No such link.', jsonb_build_object('id', revoke_share_link.id));
    end if;
    if v_link.revoking_at is null or (hard and v_link.revoked_at is not null and not v_link.is_hard) then
        update public.share_links as l
        set
            revoking_at = coalesce(l.revoking_at, now()), revoked_by = auth.uid(),
            is_hard = coalesce(hard, false), revoked_at = case when not coalesce(hard, false) then now() end
        where l.id = v_link.id
        returning l.* into v_link;
        insert into private.link_events (link_id, kind) values (v_link.id, 'revoked');
        if v_link.is_hard then
            perform private.queue_key_rotations(v_link);
            update public.share_links as l
            set revoked_at = now()
            where l.id = v_link.id
                and not exists (select 1 from private.key_rotations as r where r.link_id = l.id);
        end if;
        perform private.settle_access(v_user_ids, v_upload_ids);
        select l.* into v_link from public.share_links as l where l.id = v_link.id;
    end if;
    return private.link_json(v_link);
end;
$$;
comment on function private.revoke_share_link(uuid, boolean) is 'Behind public.revoke_share_link.';
grant execute on function private.revoke_share_link(uuid, boolean) to anon, authenticated;

create function private.queue_key_rotations(link public.share_links) returns void
language sql volatile
security invoker
set search_path = ''
as $$
    insert into private.key_rotations (link_id, bucket, key)
    select (link).id, b.bucket, b.key
    from public.nodes as n
    inner join public.file_versions as v on v.file_id = n.id
    inner join private.blobs as b on b.id = v.blob_id
    where n.path && array[(link).node_id] and n.purged_at is null
    union
    select (link).id, b.bucket, b.key
    from public.nodes as n
    inner join public.renditions as r on r.file_id = n.id
    inner join private.blobs as b on b.id = r.blob_id
    where n.path && array[(link).node_id] and n.purged_at is null
    union
    -- what has left the folder since may have been signed while it was there
    select (link).id, b.bucket, b.key
    from private.link_events as e
    inner join private.blobs as b on b.bucket = e.bucket and b.key = e.key
    where e.link_id = (link).id and e.kind = 'signed';
$$;
comment on function private.queue_key_rotations(public.share_links) is
'Queues every object that a holder of this link can have made a signed URL for.';

create function public.revoke_share_link(id uuid, hard boolean default false) returns jsonb
language sql volatile
security invoker
set search_path = ''
as $$ select private.revoke_share_link(id, hard); $$;
comment on function public.revoke_share_link(uuid, boolean) is
'Revoke a link and return it. Needs level manage, or (not hard) that you made it. It opens nothing from the commit on.

Soft: a signed URL that a holder has made before keeps working until the expiry that the holder chose when making it,
however late that is; nothing else does. hard: every object below the node also moves to a new key, so that all signed
URLs made before, by anybody, are dead within 60 seconds while Storage works; until then state is revoking and
revoked_at null, and the owner''s own URLs are to be made again. Revoking a soft-revoked link hard does the rest.
Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.revoke_share_link(uuid, boolean) to anon, authenticated;

create function private.finish_key_rotation(bucket text, key text) returns void
language plpgsql volatile
security invoker
set search_path = ''
as $$
declare
    v_link_ids uuid[];
begin
    -- of two objects of one link, the second waits here and then sees that the first is done
    perform from public.share_links as l
    where l.id in (
        select r.link_id from private.key_rotations as r
        where r.bucket = finish_key_rotation.bucket and r.key = finish_key_rotation.key
    )
    order by l.id for no key update;
    with done as (
        delete from private.key_rotations as r
        where r.bucket = finish_key_rotation.bucket and r.key = finish_key_rotation.key
        returning r.link_id
    )
    select array_agg(d.link_id) into v_link_ids from done as d;
    update public.share_links as l
    set revoked_at = now()
    where l.id = any(v_link_ids)
        and l.revoked_at is null
        and not exists (select 1 from private.key_rotations as r where r.link_id = l.id);
end;
$$;
comment on function private.finish_key_rotation(text, text) is
'Nothing is at this key any more: ends what waits for that, and so perhaps the revocation of links.';

create function private.claim_key_rotations(max_objects integer) returns setof jsonb
language plpgsql volatile
security definer -- workers have no rights on tables
set search_path = ''
as $$
declare
    v_rotation private.key_rotations;
begin
    -- purged, or moved by somebody else
    for v_rotation in
        select r.* from private.key_rotations as r
        where r.run_after <= now() and not exists (
            select 1 from storage.objects as o where o.bucket_id = r.bucket and o.name = r.key
        )
        order by r.id
        limit max_objects
    loop
        perform private.finish_key_rotation(v_rotation.bucket, v_rotation.key);
    end loop;
    return query
        update private.key_rotations as r
        set attempts = r.attempts + 1, run_after = now() + interval '30 s' -- also the time that one move may take
        where r.id = any(array( -- made once; the planner may run a subquery again, and claim more
            select q.id from private.key_rotations as q
            where q.run_after <= now() and not exists ( -- once for a key, however many links wait for it
                select 1 from private.key_rotations as first
                where first.bucket = q.bucket and first.key = q.key and first.id < q.id
            )
            order by q.run_after, q.id
            limit max_objects
            for update skip locked
        ))
        returning jsonb_build_object(
            'bucket', r.bucket, 'key', r.key,
            'new_key', regexp_replace(r.key, '[^/]*$', gen_random_uuid()::text)
        );
end;
$$;
comment on function private.claim_key_rotations(integer) is
'Objects to move now: {bucket, key, new_key}; each comes again after 30 s, with another new key, until it has moved.';
grant execute on function private.claim_key_rotations(integer) to narwhal_worker;

create function private.tg_objects__follow_move() returns trigger
language plpgsql volatile
security definer -- Storage writes as its service role, which has no rights in private
set search_path = ''
as $$
begin
    update private.blobs as b
    set bucket = new.bucket_id, key = new.name
    where b.bucket = old.bucket_id and b.key = old.name;
    -- a removal that is under way finds nothing at the old key
    insert into private.object_deletions (bucket, key)
    select distinct new.bucket_id, new.name
    from private.object_deletions as d
    where d.bucket = old.bucket_id and d.key = old.name;
    perform private.finish_key_rotation(old.bucket_id, old.name);
    return null; -- after trigger
end;
$$;
comment on function private.tg_objects__follow_move() is
'Keeps blobs.key true when an object gets another key, and what is to be removed on the list; ends the rotation.';

-- Links of a node ------------------------------------------------------------------------------

create function private.list_share_links(node uuid) returns jsonb
language plpgsql stable
security definer -- shows the public facts of whoever made them
set search_path = ''
as $$
begin
    perform private.require_user();
    perform private.find_node(node, 'manage');
    return jsonb_build_object(
        'items', (
            select coalesce(jsonb_agg(private.link_json(l) order by l.created_at desc, l.id), '[]')
            from public.share_links as l
            where l.node_id = list_share_links.node
        ),
        'next_cursor', null
    );
end;
$$;
comment on function private.list_share_links(uuid) is 'Behind public.list_share_links.';
grant execute on function private.list_share_links(uuid) to anon, authenticated;

create function public.list_share_links(node uuid) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.list_share_links(node); $$;
comment on function public.list_share_links(uuid) is
'The links to a file or folder, ended ones too, the newest first: {items, next_cursor}. Needs level manage.

An item is a link as create_share_link returns it, without its token, with downloads, opens, last_opened_at, created_by
and state: active, expired, used_up, revoking, revoked, or not_permitted when its maker does not manage the node any
more. Raises NOT_FOUND, FORBIDDEN.';
grant execute on function public.list_share_links(uuid) to anon, authenticated;

create function private.link_history(id uuid, page_size integer, cursor text) returns jsonb
language plpgsql stable
security definer -- the history is not in the API otherwise
set search_path = ''
as $$
declare
    v_link public.share_links := private.own_link(id, null);
    v_after record;
    v_answer jsonb;
begin
    perform private.check_page_size(page_size);
    v_after := private.read_timed_cursor(cursor);
    with page as (
        select e.*, row_number() over (order by e.at desc, e.id desc) as position
        from private.link_events as e
        where e.link_id = v_link.id and (v_after.at is null or (e.at, e.id) < (v_after.at, v_after.id))
        order by e.at desc, e.id desc
        limit page_size + 1
    )
    select jsonb_build_object(
        'items', coalesce(jsonb_agg(
            jsonb_build_object(
                'kind', p.kind, 'at', p.at,
                'node', case when p.node_id is not null then private.visible_name(p.node_id) end
            )
            order by p.position
        ) filter (where p.position <= page_size), '[]'),
        'next_cursor', case when count(*) > page_size then (
            select private.timed_cursor(l.at, l.id) from page as l where l.position = page_size
        ) end
    ) into v_answer
    from page as p;
    return v_answer;
end;
$$;
comment on function private.link_history(uuid, integer, text) is 'Behind public.link_history.';
grant execute on function private.link_history(uuid, integer, text) to anon, authenticated;

create function public.link_history(id uuid, page_size integer default 100, cursor text default null) returns jsonb
language sql stable
security invoker
set search_path = ''
as $$ select private.link_history(id, page_size, cursor); $$;
comment on function public.link_history(uuid, integer, text) is
'What happened to a link, the newest first: {items: [{kind, at, node}], next_cursor}.

kind: created, opened, refused (a wrong password), downloaded, signed (a URL was made), revoked; node {id, name} for
what was opened or read. Needs level manage, or that you made it. Raises NOT_FOUND, FORBIDDEN, INVALID_ARGUMENT (field
page_size or cursor).';
grant execute on function public.link_history(uuid, integer, text) to anon, authenticated;
