-- The roles, schemas and grants that a hosted Supabase project starts with.
--
-- Runs as the superuser supabase_admin. Our migrations run later, as `postgres`, which is no
-- superuser here either: what is refused on a hosted project is refused by this database.

-- Roles (of the whole cluster, so a second database finds them) --------------------------------

do $$
declare
    v_role text;
begin
    foreach v_role in array array[
        'postgres', 'anon', 'authenticated', 'service_role', 'authenticator',
        'supabase_auth_admin', 'supabase_storage_admin', 'dashboard_user'
    ] loop
        if not exists (select from pg_roles where rolname = v_role) then
            execute format('create role %I', v_role);
        end if;
    end loop;
end;
$$;

alter role postgres login nosuperuser createdb createrole replication bypassrls;
alter role anon nologin noinherit;
alter role authenticated nologin noinherit;
alter role service_role nologin noinherit bypassrls;
alter role authenticator login noinherit;
alter role supabase_auth_admin login noinherit createrole;
alter role supabase_storage_admin login noinherit createrole;
alter role dashboard_user nologin createdb createrole replication;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator to postgres with admin option;
-- Storage answers every request under its caller's role
grant authenticator to supabase_storage_admin;
grant pg_monitor, pg_signal_backend, pg_checkpoint, pg_read_all_data to postgres;

alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role postgres set search_path = '$user', public, extensions;
alter role supabase_admin set search_path = '$user', public, extensions;
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = '60s';
alter role supabase_storage_admin set search_path = storage;

-- hosted, supautils lets `postgres` configure PostgREST through its role
grant set on parameter
"pgrst.db_pre_request", "pgrst.db_schemas", "pgrst.db_max_rows", "pgrst.db_aggregates_enabled"
to postgres;

-- The database and its schemas ------------------------------------------------------------------

do $$
begin
    execute format('alter database %I owner to postgres', current_database());
end;
$$;

grant usage on schema public to anon, authenticated, service_role;
grant all on schema public to postgres;
alter default privileges for role postgres in schema public
grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
grant all on sequences to postgres, anon, authenticated, service_role;

create schema extensions authorization postgres;
grant usage on schema extensions to anon, authenticated, service_role;
-- hosted projects let `postgres` create it; the embedded build does not mark it as trusted
create extension vector with schema extensions;

-- The admin roles own what is inside, not the schemas: nobody but the superuser adds to them.
create schema auth authorization supabase_admin;
grant usage on schema auth
to supabase_auth_admin, postgres, anon, authenticated, service_role, dashboard_user;
alter default privileges for role supabase_auth_admin in schema auth
grant all on tables to postgres, dashboard_user;

create schema storage authorization supabase_admin;
grant usage on schema storage
to supabase_storage_admin, postgres, anon, authenticated, service_role, dashboard_user;

create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;

-- What `postgres` may do to Auth's and Storage's tables ------------------------------------------
--
-- Hosted, supautils lets `postgres` keep policies on tables that it does not own. Without that
-- library only an owner can, so here it inherits the owning roles, and the two event triggers
-- take back what ownership gives beyond policies and triggers.

grant supabase_auth_admin, supabase_storage_admin to postgres with inherit true, set false;

create function narwhal_local.tg__guard_services() returns event_trigger
language plpgsql
security invoker
set search_path = ''
as $$
declare
    v_command record;
begin
    if current_user <> 'postgres' then
        return;
    end if;
    for v_command in
        select c.command_tag, c.object_type, c.object_identity
        from pg_catalog.pg_event_trigger_ddl_commands() as c
        where
            (c.schema_name in ('auth', 'storage') or c.object_identity ~ ' on (auth|storage)\.')
            and c.command_tag not in ('CREATE POLICY', 'ALTER POLICY', 'CREATE TRIGGER')
            and c.command_tag not in ('GRANT', 'REVOKE')
    loop
        raise exception using
            errcode = '42501',
            message = format('must be owner of %s %s', v_command.object_type, v_command.object_identity);
    end loop;
end;
$$;
comment on function narwhal_local.tg__guard_services() is
'Refuses what a hosted project refuses `postgres`: changing tables and functions of Auth and Storage.';

create function narwhal_local.tg__guard_services_drop() returns event_trigger
language plpgsql
security invoker
set search_path = ''
as $$
declare
    v_object record;
begin
    if current_user <> 'postgres' then
        return;
    end if;
    for v_object in
        select d.object_type, d.object_identity
        from pg_catalog.pg_event_trigger_dropped_objects() as d
        where
            d.original -- what falls with a dropped function may fall
            and (d.schema_name in ('auth', 'storage') or d.object_identity ~ ' on (auth|storage)\.')
            and d.object_type <> 'policy'
    loop
        raise exception using
            errcode = '42501',
            message = format('must be owner of %s %s', v_object.object_type, v_object.object_identity);
    end loop;
end;
$$;
comment on function narwhal_local.tg__guard_services_drop() is
'Refuses `postgres` to drop what belongs to Auth and Storage, as a hosted project does.';

create event trigger narwhal_guard_services on ddl_command_end
execute function narwhal_local.tg__guard_services();
create event trigger narwhal_guard_services_drop on sql_drop
execute function narwhal_local.tg__guard_services_drop();
