-- What of the source's relations no publication can carry: unlogged and foreign tables, materialized views.
-- $1: schemas that are the provider's.
select n.nspname::text as schema,
       c.relname::text as name,
       case c.relkind when 'f' then 'foreign' when 'm' then 'materialized' else 'unlogged' end as kind
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where (c.relkind in ('f', 'm') or c.relkind = 'r' and c.relpersistence = 'u')
   and n.nspname not in ('pg_catalog', 'information_schema', 'cdc')
   and n.nspname <> all ($1::text[])
   and not exists (select
                     from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      and d.objid = c.oid
                      and d.deptype = 'e')
 order by 1, 2;
