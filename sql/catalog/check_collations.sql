-- The collations that columns and indexes of the user's tables are sorted by, but the database's own, and with
-- which version of the operating system's or ICU's rules each was made and is read now.
-- $1: schemas that are the provider's.
select format('%I.%I', n.nspname, co.collname) as name,
       n.nspname = 'pg_catalog' as is_builtin,
       co.collname::text as bare_name,
       co.collversion as recorded,
       pg_catalog.pg_collation_actual_version(co.oid) as actual
  from pg_catalog.pg_collation co
  join pg_catalog.pg_namespace n on n.oid = co.collnamespace
 where co.collprovider <> 'd'
   and co.collname not in ('C', 'POSIX')
   and co.oid in (select a.attcollation
                    from pg_catalog.pg_attribute a
                    join pg_catalog.pg_class c on c.oid = a.attrelid
                    join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
                   where a.attnum > 0
                     and not a.attisdropped
                     and c.relkind in ('r', 'p', 'm', 'i')
                     and cn.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
                     and cn.nspname <> all ($1::text[]))
 order by 1;
