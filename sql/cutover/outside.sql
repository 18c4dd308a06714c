-- The user's own tables with rows in them ($1: schemas that are the provider's) that aren't replicated ($2: the oids of
-- those that are), partitions by themselves; unlogged ones, too, which can't be.
select c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r'
   and c.relpersistence in ('p', 'u')
   and c.oid <> all ($2::oid[])
   and n.nspname not in ('pg_catalog', 'information_schema', 'cdc')
   and n.nspname <> all ($1::text[])
   and not exists (select
                     from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      and d.objid = c.oid
                      and d.deptype = 'e')
 order by 2, 3;
