-- What the user of such a project has made, as the role postgres: something of everything that refers to what is
-- Supabase's.
create type public.plan as enum ('free', 'pro');
create table public.profiles (
  id uuid primary key references auth.users on delete cascade,
  handle extensions.citext not null unique,
  plan public.plan not null default 'free',
  settings jsonb not null default '{}',
  updated_at timestamptz not null default now()
);
create table public.notes (
  id uuid primary key default extensions.uuid_generate_v4(),
  owner uuid not null default auth.uid() references public.profiles,
  title text not null,
  body text,
  token text default encode(extensions.gen_random_bytes(16), 'hex'),
  created_at timestamptz not null default now()
);
create index notes_owner on public.notes (owner, created_at desc);
create table public.audit (id bigint generated always as identity primary key, at timestamptz default now(), what text);
alter table public.profiles enable row level security;
alter table public.notes enable row level security;
create policy "own profile" on public.profiles for all to authenticated using (id = auth.uid()) with check (id = auth.uid());
create policy "own notes" on public.notes using (owner = (select auth.uid()));
create policy "service sees all" on public.notes to service_role using (true);
create policy "admins" on public.notes for delete using (auth.jwt() ->> 'app_role' = 'admin' and auth.role() = 'authenticated');
create function public.touch() returns trigger language plpgsql as $$
begin
  new.updated_at := now();
  return new;
end
$$;
create trigger touch before update on public.profiles for each row execute function public.touch();
create trigger "tell the shop" after insert on public.notes
  for each row execute function supabase_functions.http_request('https://example.com/hook', 'POST');
create function public.my_email() returns text language plpgsql security definer set search_path = '' as $$
begin
  return (select email from auth.users where id = auth.uid());
end
$$;
create function public.ping() returns bigint language sql as $$ select net.http_post('https://example.com/ping') $$;
create view public.people with (security_invoker = true) as
  select p.handle, u.email from public.profiles p join auth.users u using (id);
create view public.note_counts as select owner, count(*) as notes from public.notes group by owner;
create materialized view public.busy as select owner, count(*) as notes from public.notes group by owner;
create unique index on public.busy (owner);
create schema private;
create table private.keys (name text primary key, value bytea default extensions.digest('x', 'sha256'));
create function private.helper() returns int language sql as $$ select 1 $$;
revoke all on function private.helper() from public;
grant select on public.note_counts to anon;
insert into cron.job (schedule, command, jobname) values ('0 3 * * *', 'delete from public.audit', 'cleanup');
alter publication supabase_realtime add table public.notes;
insert into public.profiles (id, handle) select id, split_part(email, '@', 1) from auth.users;
insert into public.notes (owner, title, body) select id, 'note ' || i, repeat('x', i) from public.profiles, generate_series(1, 20) as i;
insert into public.audit (what) select 'started' from generate_series(1, 10);
insert into private.keys values ('a', '\x01');
refresh materialized view public.busy;
