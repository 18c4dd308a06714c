-- The ordinary and partitioned tables of the source that can be replicated at all: permanent, the
-- user's own ($1: schemas that are the provider's), no part of an extension.
--
-- `identity` is how an UPDATE or DELETE names its row in the stream: 'key', 'full', or 'none' (then
-- publishing the table would make its UPDATEs fail; PostgreSQL documentation, 31.1 "Publication").
-- A key with a generated column is 'none' too: the stream leaves that column out. So is, from 18 on,
-- a full identity with one (CheckCmdReplicaIdentity() in execReplication.c); `mend` is the
-- identity that it could have instead, null if it needs another primary key for that.
-- A partition is listed with its topmost parent in `root_schema` and `root_name`.
select n.nspname::text as schema,
       c.relname::text as name,
       c.oid,
       c.relkind = 'p' as is_partitioned,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       case
         when c.relreplident = 'f' and can.be_full then 'full'
         when c.relreplident = 'd' and can.use_primary or c.relreplident = 'i' and can.use_index then 'key'
         else 'none'
       end as identity,
       case
         when can.be_full then 'FULL'
         when can.use_primary then 'DEFAULT'
       end as mend,
       array(select a.attname::text
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid
                and a.attnum > 0
                and not a.attisdropped
                and a.attgenerated = ''
              order by a.attnum) as columns
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 cross join lateral (select coalesce(bool_or(i.indisprimary), false) as use_primary,
                            coalesce(bool_or(i.indisreplident), false) as use_index,
                            current_setting('server_version_num')::int < 180000
                            or not exists (select
                                             from pg_catalog.pg_attribute g
                                            where g.attrelid = c.oid
                                              and g.attgenerated <> '') as be_full
                       from pg_catalog.pg_index i
                      where i.indrelid = c.oid
                        and i.indisvalid
                        and i.indimmediate
                        and not exists (select
                                          from pg_catalog.pg_attribute g
                                         where g.attrelid = c.oid
                                           and g.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                                           and g.attgenerated <> '')) as can
 where c.relkind in ('r', 'p')
   and c.relpersistence = 'p'
   and n.nspname not in ('pg_catalog', 'information_schema', 'cdc')
   and n.nspname <> all ($1::text[])
   and not exists (select
                     from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      and d.objid = c.oid
                      and d.deptype = 'e')
 order by 1, 2;
