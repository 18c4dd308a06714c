-- Stand-ins for the roles of Supabase that policies and grants name. Nobody can log in as one of them. It only
-- makes what is missing, needs CREATEROLE, and can be run again, by psql too.
--
-- On Supabase, service_role has BYPASSRLS as well, which only a superuser (from 16 on, a role that has it) can
-- give: ALTER ROLE service_role BYPASSRLS. A role of one's own that takes its place had better own the tables.
do $$
declare
  role text;
begin
  foreach role in array '{anon,authenticated,service_role}'::text[] loop
    if not exists (select from pg_catalog.pg_roles where rolname = role) then
      execute format('create role %I nologin noinherit', role);
    end if;
  end loop;
end
$$;
