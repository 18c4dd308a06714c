-- The source's extensions, and which of the selected tables ($1: their oids) are made with each: columns of
-- its types, defaults that call its functions, indexes of its operator classes or access methods.
with member as (
  select e.oid as extension, m.classid, m.objid
    from pg_catalog.pg_extension e
    join pg_catalog.pg_depend m
      on m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
     and m.refobjid = e.oid
     and m.deptype = 'e'
), type as (
  -- Arrays, and domains over a type.
  select m.extension, m.objid as oid
    from member m
   where m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
   union
  select m.extension, t.oid
    from member m
    join pg_catalog.pg_type t on m.objid in (t.typelem, t.typbasetype)
   where m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
), needs as (
  select t.extension, a.attrelid as relid
    from type t
    join pg_catalog.pg_attribute a on a.atttypid = t.oid and not a.attisdropped
   where a.attrelid = any ($1::oid[])
   union
  select m.extension, coalesce(f.adrelid, i.indrelid)
    from member m
    join pg_catalog.pg_depend d on d.refclassid = m.classid and d.refobjid = m.objid and d.deptype in ('n', 'a')
    left join pg_catalog.pg_attrdef f
      on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and f.oid = d.objid
    left join pg_catalog.pg_index i
      on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and i.indexrelid = d.objid
   where coalesce(f.adrelid, i.indrelid) = any ($1::oid[])
)
select e.extname::text as name,
       e.extversion as version,
       n.nspname::text as schema,
       array(select format('%s.%s', cn.nspname, c.relname)
               from needs x
               join pg_catalog.pg_class c on c.oid = x.relid
               join pg_catalog.pg_namespace cn on cn.oid = c.relnamespace
              where x.extension = e.oid
              order by 1) as tables
  from pg_catalog.pg_extension e
  join pg_catalog.pg_namespace n on n.oid = e.extnamespace
 where e.extname <> 'plpgsql'
 order by 1;
