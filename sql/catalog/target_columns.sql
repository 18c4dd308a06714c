-- The columns of a table of the target ($1: its oid), in their order.
--
-- `type` is without a length: a value cast to it is not cut, and a value that is too long is refused
-- by the assignment that follows. `equality_schema` is where the type's own equality lives; with an
-- empty search_path an operator of an extension (citext) is not found by its name alone.
select a.attname::text as name,
       pg_catalog.format_type(a.atttypid, -1) as type,
       a.atttypid as type_oid,
       a.attgenerated <> '' as is_generated,
       a.attidentity <> '' as is_identity,
       a.attidentity = 'a' as is_identity_always,
       coalesce(co.collisdeterministic, true) as is_deterministic,
       coalesce((select n.nspname::text
                   from pg_catalog.pg_opclass oc
                   join pg_catalog.pg_am am on am.oid = oc.opcmethod and am.amname = 'btree'
                   join pg_catalog.pg_amop ao
                     on ao.amopfamily = oc.opcfamily
                    and ao.amopstrategy = 3
                    and ao.amoplefttype = oc.opcintype
                    and ao.amoprighttype = oc.opcintype
                   join pg_catalog.pg_operator o on o.oid = ao.amopopr
                   join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
                  where oc.opcdefault
                    and oc.opcintype = case when t.typtype = 'd' then t.typbasetype else t.oid end
                  limit 1), 'pg_catalog') as equality_schema
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type t on t.oid = a.atttypid
  left join pg_catalog.pg_collation co on co.oid = a.attcollation
 where a.attrelid = $1
   and a.attnum > 0
   and not a.attisdropped
 order by a.attnum;
