-- The schemas of the user's own; $1 are the provider's.
select n.nspname::text as name,
       quote_ident(n.nspname) as quoted,
       n.nspname = any ($1::text[]) as is_providers
  from pg_catalog.pg_namespace n
 where n.nspname !~ '^pg_'
   and n.nspname not in ('information_schema', 'cdc')
   and not exists (select
                     from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                      and d.objid = n.oid
                      and d.deptype = 'e')
 order by 1
