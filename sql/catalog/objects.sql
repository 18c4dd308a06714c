-- Every object that somebody has made in this database and no extension brings along, by what pg_dump knows it by
-- (catalog and oid) and by what is the same on every server: its type, its name and what else tells it apart
-- (pg_identify_object_as_address).
--
-- Besides, a row of type 'attached' for each partition, table or index, that is one.
with objects (classid, objid) as (
  select tableoid, oid from pg_catalog.pg_namespace where nspname = 'public' or oid >= 16384
  union all
  select tableoid, oid from pg_catalog.pg_class
   where oid >= 16384 and relpersistence <> 't' and relkind in ('r', 'p', 'f', 'v', 'm', 'S', 'i', 'I')
     -- A killed CREATE INDEX CONCURRENTLY has left it behind, and it is none. (On a parent: a partition lacks it.)
     and not (relkind = 'i'
              and exists (select from pg_catalog.pg_index i where i.indexrelid = pg_class.oid and not i.indisvalid))
  union all
  -- Not those that come with a table, nor arrays.
  select tableoid, oid from pg_catalog.pg_type t
   where oid >= 16384 and (typtype in ('e', 'd', 'r') or typtype = 'b' and typcategory <> 'A'
          or exists (select from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind = 'c'))
  union all select tableoid, oid from pg_catalog.pg_proc where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_attrdef where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_constraint where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_trigger where oid >= 16384 and not tgisinternal
  union all select tableoid, oid from pg_catalog.pg_rewrite where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_policy
  union all select tableoid, oid from pg_catalog.pg_statistic_ext
  union all select tableoid, oid from pg_catalog.pg_extension where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_default_acl
  union all select tableoid, oid from pg_catalog.pg_operator where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_opclass where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_opfamily where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_cast where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_collation where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_conversion where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_ts_config where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_ts_dict where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_ts_parser where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_ts_template where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_language where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_transform
  union all select tableoid, oid from pg_catalog.pg_am where oid >= 16384
  union all select tableoid, oid from pg_catalog.pg_event_trigger
  union all select tableoid, oid from pg_catalog.pg_foreign_data_wrapper
  union all select tableoid, oid from pg_catalog.pg_foreign_server
)
select o.classid, o.objid, a.type, a.object_names as names, a.object_args as args
  from objects o
 cross join lateral pg_catalog.pg_identify_object_as_address(o.classid, o.objid, 0) as a
 where a.type is not null
   and not exists (select
                     from pg_catalog.pg_depend d
                    where d.classid = o.classid
                      and d.objid = o.objid
                      and d.deptype = 'e')
union all
select 0, 0, 'attached', array[n.nspname, c.relname]::text[], '{}'
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relispartition;
