-- Stand-ins for the functions of Supabase's schema auth that policies and defaults call. They read what PostgREST
-- sets for each request: request.jwt.claims, or, before its version 9, request.jwt.claim.<name>. A service that is
-- no PostgREST can set the same: set_config('request.jwt.claims', '{"sub": "...", "role": "authenticated"}', true).
-- It only makes what is missing, needs CREATE on the database, and can be run again, by psql too.
do $$
begin
  if pg_catalog.to_regnamespace('auth') is null then
    create schema auth;
    grant usage on schema auth to public;
  end if;

  if pg_catalog.to_regprocedure('auth.jwt()') is null then
    create function auth.jwt() returns jsonb language sql stable set search_path = '' as $body$
      select nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb
    $body$;
    comment on function auth.jwt() is 'A stand-in for Supabase''s: the claims of the request''s token.';
  end if;

  if pg_catalog.to_regprocedure('auth.uid()') is null then
    create function auth.uid() returns uuid language sql stable set search_path = '' as $body$
      select coalesce(nullif(pg_catalog.current_setting('request.jwt.claim.sub', true), ''),
                      nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'sub')::uuid
    $body$;
    comment on function auth.uid() is 'A stand-in for Supabase''s: the id of the user of the request.';
  end if;

  if pg_catalog.to_regprocedure('auth.role()') is null then
    create function auth.role() returns text language sql stable set search_path = '' as $body$
      select coalesce(nullif(pg_catalog.current_setting('request.jwt.claim.role', true), ''),
                      nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'role')
    $body$;
    comment on function auth.role() is 'A stand-in for Supabase''s: the role of the request.';
  end if;

  if pg_catalog.to_regprocedure('auth.email()') is null then
    create function auth.email() returns text language sql stable set search_path = '' as $body$
      select coalesce(nullif(pg_catalog.current_setting('request.jwt.claim.email', true), ''),
                      nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb ->> 'email')
    $body$;
    comment on function auth.email() is 'A stand-in for Supabase''s: the e-mail address of the user of the request.';
  end if;
end
$$;
