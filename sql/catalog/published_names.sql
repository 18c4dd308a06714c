-- The relations that these publications ($1) carry in the stream, and nothing else of them: a question
-- that is asked all the time.
with entry as (
  select distinct c.oid, c.relispartition, t.schemaname, t.tablename
    from pg_catalog.pg_publication_tables t
    join pg_catalog.pg_namespace n on n.nspname = t.schemaname
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = t.tablename
   where t.pubname = any ($1::text[])
)
select e.oid,
       e.schemaname::text as schema,
       e.tablename::text as name,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       m.membership
  from entry e
  left join pg_catalog.pg_class r on e.relispartition and r.oid = pg_catalog.pg_partition_root(e.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 -- The publications' entries that bring it there: others, once it was taken out and put back.
 cross join lateral (select coalesce(string_agg(r.oid::text, ',' order by r.oid), '') as membership
                       from pg_catalog.pg_publication_rel r
                       join pg_catalog.pg_publication p on p.oid = r.prpubid
                      where p.pubname = any ($1::text[])
                        and r.prrelid = any (array(select a.relid
                                                     from pg_catalog.pg_partition_ancestors(e.oid) as a) || e.oid)) as m
 -- Where one publication has the root and another its leaves, the stream has the root.
 where not exists (select
                     from pg_catalog.pg_partition_ancestors(e.oid) as a
                     join entry as listed on listed.oid = a.relid
                    where e.relispartition
                      and a.relid <> e.oid)
 order by e.oid;
