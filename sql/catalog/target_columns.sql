-- The columns of a table of the target ($1: its oid), in their order.
--
-- `type` is what values are cast to: without a length, so that a value is not cut (one that is too
-- long is refused by the assignment that follows), and a domain's base type. `equality_schema` is
-- where the type's own equality lives; with an empty search_path an operator of an extension
-- (citext) is not found by its name alone.
with recursive own as (
  select a.attnum, a.atttypid as oid
    from pg_catalog.pg_attribute a
   where a.attrelid = $1
     and a.attnum > 0
     and not a.attisdropped
   union all
  select own.attnum, d.typbasetype
    from own
    join pg_catalog.pg_type d on d.oid = own.oid and d.typtype = 'd'
)
select a.attname::text as name,
       pg_catalog.format_type(t.oid, -1) as type,
       t.oid as type_oid,
       a.attnotnull as is_not_null,
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
                    and oc.opcintype = t.oid
                  limit 1), 'pg_catalog') as equality_schema
  from own
  join pg_catalog.pg_type t on t.oid = own.oid and t.typtype <> 'd'
  join pg_catalog.pg_attribute a on a.attrelid = $1 and a.attnum = own.attnum
  left join pg_catalog.pg_collation co on co.oid = a.attcollation
 order by a.attnum;
