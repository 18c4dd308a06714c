-- The sizes of the source's selected tables ($1: their oids) and the bounds of partitions. Apart from what else is
-- asked, as it waits for locks on the tables.
select c.oid,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bounds,
       case when c.relkind = 'p' then 0 else pg_catalog.pg_table_size(c.oid) end as bytes,
       case when c.relkind = 'p' then 0 else pg_catalog.pg_total_relation_size(c.oid) end as total_bytes
  from pg_catalog.pg_class c
 where c.oid = any ($1::oid[]);
