-- A table of the target, by schema and name ($1, $2), with its topmost parent if it is a partition, and its bounds
-- if these are wanted ($3).
select c.oid,
       c.relkind::text as kind,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       case when $3::bool then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end as bounds
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 where n.nspname = $1
   and c.relname = $2
   and c.relkind in ('r', 'p', 'v', 'm', 'f');
