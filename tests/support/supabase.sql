-- What a Supabase project has before its user makes anything: run by its superuser in the database postgres.
-- Written from Supabase's public description; only what a migration meets is here.
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator noinherit login;
create role dashboard_user createdb createrole replication;
create role pgbouncer login;
create role supabase_auth_admin noinherit createrole login;
create role supabase_storage_admin noinherit createrole login;
create role supabase_realtime_admin noinherit nologin;
create role supabase_replication_admin login replication;
create role supabase_read_only_user login bypassrls;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to postgres with admin option;
grant pg_monitor, pg_signal_backend to postgres;
alter role postgres set search_path to '$user', public, extensions;
alter role anon set statement_timeout to '3s';
alter role authenticated set statement_timeout to '8s';
alter database postgres set search_path to '$user', public, extensions;

create schema extensions authorization postgres;
grant usage on schema extensions to public;
create extension "uuid-ossp" with schema extensions;
create extension pgcrypto with schema extensions;
create extension citext with schema extensions;
create extension pg_stat_statements with schema extensions;
grant execute on all functions in schema extensions to postgres;

create schema auth authorization supabase_auth_admin;
grant usage on schema auth to anon, authenticated, service_role, postgres;
set role supabase_auth_admin;
create table auth.users (
  id uuid primary key,
  email text unique,
  encrypted_password text,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  created_at timestamptz default now()
);
create table auth.sessions (id uuid primary key, user_id uuid not null references auth.users on delete cascade);
create table auth.refresh_tokens (id bigserial primary key, token text);
create function auth.jwt() returns jsonb language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim', true), ''),
                  nullif(current_setting('request.jwt.claims', true), ''))::jsonb
$$;
create function auth.uid() returns uuid language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
$$;
create function auth.role() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.role', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
$$;
create function auth.email() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.email', true), ''),
                  nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
$$;
reset role;
grant select, insert, update, delete, references, trigger, truncate on all tables in schema auth to postgres;
insert into auth.users (id, email)
select extensions.uuid_generate_v4(), format('user%s@example.com', i) from generate_series(1, 7) as i;

create schema storage authorization supabase_storage_admin;
grant usage on schema storage to anon, authenticated, service_role, postgres;
create table storage.buckets (id text primary key, name text not null);
create table storage.objects (id uuid primary key, bucket_id text references storage.buckets, name text);
alter table storage.objects enable row level security;
grant all on all tables in schema storage to postgres, anon, authenticated, service_role;
insert into storage.buckets values ('avatars', 'avatars');
insert into storage.objects
select extensions.uuid_generate_v4(), 'avatars', format('%s.png', i) from generate_series(1, 3) as i;
create function storage.foldername(name text) returns text[] language sql as $$ select string_to_array(name, '/') $$;

create schema realtime authorization supabase_realtime_admin;
create table realtime.messages (id bigint, inserted_at timestamp not null, payload jsonb, primary key (id, inserted_at))
  partition by range (inserted_at);
create publication supabase_realtime;
alter publication supabase_realtime owner to postgres;
create schema vault;
create table vault.secrets (id uuid primary key, name text, secret text);
grant select on vault.secrets to postgres;
create schema graphql;
create schema graphql_public;
create function graphql_public.graphql(query text) returns jsonb language sql as $$ select '{}'::jsonb $$;
create schema supabase_functions;
create function supabase_functions.http_request() returns trigger language plpgsql security definer as $$
begin
  return new;
end
$$;
create table supabase_functions.hooks (id bigserial primary key, hook_name text);
grant usage on schema supabase_functions, graphql_public, vault to postgres, anon, authenticated, service_role;
create schema supabase_migrations authorization postgres;
create table supabase_migrations.schema_migrations (version text primary key, statements text[]);

-- As pg_net and pg_cron have them; the extensions themselves are in few distributions.
create schema net;
create function net.http_post(url text, body jsonb default '{}'::jsonb) returns bigint language sql as $$ select 1::bigint $$;
create schema cron;
create table cron.job (
  jobid bigserial primary key, schedule text not null, command text not null, database text not null default 'postgres',
  username text not null default current_user, active boolean not null default true, jobname text
);
alter table cron.job enable row level security;
create policy cron_job_policy on cron.job using (username = current_user);
grant usage on schema cron, net to postgres;
grant all on cron.job to postgres;
grant all on all sequences in schema cron to postgres;

alter schema public owner to postgres;
grant usage on schema public to anon, authenticated, service_role;
set role postgres;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
reset role;
create function extensions.pgrst_ddl_watch() returns event_trigger language plpgsql as $$
begin
  notify pgrst, 'reload schema';
end
$$;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.pgrst_ddl_watch();
