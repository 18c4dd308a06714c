-- Which of these parts of a provider ($1: what each is, $2: its name, as references.sql has it) are there.
select case k.kind
         when 'role' then exists (select from pg_catalog.pg_roles r where quote_ident(r.rolname) = k.name)
         when 'extension' then exists (select from pg_catalog.pg_extension e where quote_ident(e.extname) = k.name)
         when 'publication' then exists (select from pg_catalog.pg_publication p where quote_ident(p.pubname) = k.name)
         when 'type' then pg_catalog.to_regtype(k.name) is not null
         when 'function' then exists (
           select
             from pg_catalog.pg_proc p
             join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            where format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)) = k.name)
         -- A name in the body of a function: a table, a view, or a function with whatever arguments.
         when 'name' then pg_catalog.to_regclass(k.name) is not null or exists (
           select
             from pg_catalog.pg_proc p
             join pg_catalog.pg_namespace n on n.oid = p.pronamespace
            where format('%s.%s', n.nspname, p.proname) = k.name)
         else pg_catalog.to_regclass(k.name) is not null
       end
  from unnest($1::text[], $2::text[]) with ordinality as k (kind, name, place)
 order by k.place
