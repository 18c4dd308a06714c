-- The relations that these publications ($1) carry in the stream: leaves of partitioned tables, or their
-- root if a publication has publish_via_partition_root.
--
-- `key_columns` are those of the replica identity's index; without one (REPLICA IDENTITY FULL or NOTHING)
-- those of the primary key. The sizes are the files' own, as the statistics may be missing or stale:
-- `bytes` includes TOAST but no index, `pages` are those of the heap. `rows` is what the last VACUUM or
-- ANALYZE found on a page, for as many pages as there are now; null if there was none.
with entry as (
  -- PostgreSQL 14 has neither column lists nor row filters, and its view no columns for them.
  select c.oid,
         to_jsonb(t) -> 'attnames' as columns,
         to_jsonb(t) ->> 'rowfilter' as row_filter
    from pg_catalog.pg_publication_tables t
    join pg_catalog.pg_namespace n on n.nspname = t.schemaname
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
   where t.pubname = any ($1::text[])
), relation as (
  select e.oid,
         -- The stream refuses a table with several column lists.
         (array_agg(e.columns))[1] as columns,
         -- The stream has the rows that one of the filters lets pass: all of them if there is one without.
         case
           when count(e.row_filter) = count(*)
           then string_agg(distinct e.row_filter, ' OR ')
         end as row_filter
    from entry e
   group by e.oid
)
select c.oid,
       n.nspname::text as schema,
       c.relname::text as name,
       c.relkind = 'p' as is_partitioned,
       {digest} as digest,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bounds,
       case
         when c.relreplident = 'f' then 'full'
         when k.is_identity then 'key'
         else 'none'
       end as identity,
       array(select a.attname::text
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid
                and a.attnum > 0
                and not a.attisdropped
                and a.attgenerated = ''
                and coalesce(relation.columns ? a.attname::text, true)
              order by a.attnum) as columns,
       relation.row_filter,
       coalesce(k.columns, '{}') as key_columns,
       coalesce(k.types, '{}') as key_types,
       m.membership,
       s.rows,
       s.bytes,
       s.pages
  from relation
  join pg_catalog.pg_class c on c.oid = relation.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
  left join lateral (select i.is_identity,
                            array_agg(a.attname::text order by u.place) as columns,
                            array_agg(a.atttypid order by u.place) as types
                       from (select x.indexrelid,
                                    (x.indkey::int2[])[0:x.indnkeyatts - 1] as attnums,
                                    x.indimmediate
                                and coalesce(case c.relreplident
                                               when 'd' then x.indisprimary
                                               when 'i' then x.indisreplident
                                             end, false) as is_identity
                               from pg_catalog.pg_index x
                              where x.indrelid = c.oid
                                and x.indisvalid
                                and (x.indisprimary or x.indisreplident)
                              order by is_identity desc, x.indisprimary desc
                              limit 1) as i
                      cross join lateral unnest(i.attnums) with ordinality as u (attnum, place)
                       join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum
                      group by i.indexrelid, i.is_identity
                     -- The stream leaves a generated column out.
                     having bool_and(a.attgenerated = '')) as k on true
 -- The publications' entries that bring it there: others, once it was taken out and put back.
 cross join lateral (select coalesce(string_agg(r.oid::text, ',' order by r.oid), '') as membership
                       from pg_catalog.pg_publication_rel r
                       join pg_catalog.pg_publication p on p.oid = r.prpubid
                      where p.pubname = any ($1::text[])
                        and r.prrelid = any (array(select a.relid
                                                     from pg_catalog.pg_partition_ancestors(c.oid) as a) || c.oid)) as m
 cross join lateral (select sum(z.rows)::bigint as rows,
                            coalesce(sum(z.bytes), 0)::bigint as bytes,
                            coalesce(sum(z.pages), 0)::bigint as pages
                       from (select pg_catalog.pg_table_size(l.oid) as bytes,
                                    p.pages,
                                    case when l.relpages > 0 then l.reltuples * p.pages / l.relpages end as rows
                               from (select c.oid as leaf
                                      where c.relkind <> 'p'
                                     union all
                                     select t.relid
                                       from pg_catalog.pg_partition_tree(c.oid) as t
                                      where c.relkind = 'p'
                                        and t.isleaf) as f
                               join pg_catalog.pg_class l on l.oid = f.leaf
                              cross join lateral (select pg_catalog.pg_relation_size(l.oid)
                                                         / current_setting('block_size')::bigint as pages) as p
                            ) as z) as s
 -- Where one publication has the root and another its leaves, the stream has the root.
 where not exists (select
                     from pg_catalog.pg_partition_ancestors(c.oid) as a
                     join relation as listed on listed.oid = a.relid
                    where c.relispartition
                      and a.relid <> c.oid)
 order by 2, 3;
