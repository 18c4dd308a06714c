-- The extensions that are in another schema than those of the other database ($1: names, $2: their schemas
-- there, quoted), as the names of their members: schema and name here, schema there, all quoted.
select o.schema, o.name, t.schema as other_schema
  from unnest($1::text[], $2::text[]) as t (extension, schema)
  join pg_catalog.pg_extension e on quote_ident(e.extname) = t.extension
  join pg_catalog.pg_depend d
    on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
   and d.refobjid = e.oid
   and d.deptype = 'e'
 cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) as i
 cross join lateral (
   select i.schema,
          coalesce(i.name,
                   -- Functions and operators have no name that is theirs alone.
                   (select quote_ident(p.proname) from pg_catalog.pg_proc p
                     where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = d.objid),
                   (select p.oprname::text from pg_catalog.pg_operator p
                     where d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass and p.oid = d.objid)) as name) as o
 where o.schema <> t.schema
   and o.name is not null;
