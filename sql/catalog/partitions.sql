-- The partitions without partitions of their own among these relations ($2: oids) that have the same topmost
-- parent as one of them ($1: its oid), with their bounds.
select n.nspname::text as schema,
       c.relname::text as name,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bounds
  from pg_catalog.pg_partition_tree(pg_catalog.pg_partition_root($1::oid)) as t
  join pg_catalog.pg_class c on c.oid = t.relid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where t.isleaf
   and c.oid = any ($2::oid[])
 order by 1, 2;
