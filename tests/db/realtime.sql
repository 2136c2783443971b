-- What Realtime puts into a hosted database, as far as migrations, triggers and policies meet it: the schema, its role,
-- messages by day under row security, send and topic. Runs as the superuser.

do $$
begin
    -- roles belong to the cluster, which has several databases
    if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
        create role supabase_realtime_admin nologin noinherit;
    end if;
end;
$$;
-- policies on its table are an owner's to create; hosted, supautils lets postgres
grant supabase_realtime_admin to postgres with inherit true, set false;

create schema realtime;
grant usage on schema realtime to postgres, anon, authenticated, service_role;
grant all on schema realtime to supabase_realtime_admin;

create table realtime.messages (
    topic text not null,
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    updated_at timestamp not null default now(),
    inserted_at timestamp not null default now(),
    id uuid not null default gen_random_uuid(),
    primary key (id, inserted_at)
) partition by range (inserted_at);
create table realtime.messages_now partition of realtime.messages
for values from ('2000-01-01') to ('2100-01-01');
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant all on realtime.messages to postgres;
alter table realtime.messages owner to supabase_realtime_admin;

create function realtime.topic() returns text
language sql stable
as $$ select nullif(current_setting('realtime.topic', true), ''); $$;

create function realtime.send(payload jsonb, event text, topic text, private boolean default true) returns void
language plpgsql
as $$
declare
    message_id uuid := gen_random_uuid();
begin
    begin
        execute format('set local realtime.topic to %L', topic);
        insert into realtime.messages (id, payload, event, topic, private, extension)
        values (message_id, jsonb_build_object('id', message_id) || payload, event, topic, private, 'broadcast');
    exception when others then
        raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
    end;
end;
$$;
alter function realtime.topic() owner to supabase_realtime_admin;
alter function realtime.send(jsonb, text, text, boolean) owner to supabase_realtime_admin;
