-- The foreign keys of the source that hold for every row, both of whose tables are in the stream ($1: oids of its
-- tables). A partitioned table's is one key; its parts are no rows here.
with members as (
  select c.oid
    from pg_catalog.pg_class c
   where c.oid = any ($1::oid[])
      or c.relispartition and pg_catalog.pg_partition_root(c.oid)::oid = any ($1::oid[])
      or c.relkind = 'p' and exists (select
                                       from pg_catalog.pg_partition_tree(c.oid) as p
                                      where p.relid::oid = any ($1::oid[]))
)
select n.nspname::text as schema,
       r.relname::text as table_name,
       k.conname::text as name,
       fn.nspname::text as referenced_schema,
       f.relname::text as referenced_table,
       array(select a.attname::text
               from unnest(k.conkey) with ordinality as u (attnum, place)
               join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum
              order by u.place) as columns,
       array(select a.attname::text
               from unnest(k.confkey) with ordinality as u (attnum, place)
               join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum
              order by u.place) as referenced_columns,
       k.confmatchtype = 'f' as is_full,
       -- PERIOD came with 18.
       coalesce((to_jsonb(k) ->> 'conperiod')::boolean, false) as has_period
  from pg_catalog.pg_constraint k
  join pg_catalog.pg_class r on r.oid = k.conrelid
  join pg_catalog.pg_namespace n on n.oid = r.relnamespace
  join pg_catalog.pg_class f on f.oid = k.confrelid
  join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
 where k.contype = 'f'
   and k.conparentid = 0
   and k.convalidated
   and k.conrelid in (select oid from members)
   and k.confrelid in (select oid from members)
 order by 1, 2, 3;
