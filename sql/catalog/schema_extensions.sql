-- The schemas $1 themselves, and the extensions of the database but those that every database has.
--
-- This and the other queries schema_*.sql give one row an object, all of the same shape:
--   kind, name   what it is; both together are unique, and the same on every server
--   table_name   the table or view that it is part of, as schema and name; null if of none
--   oid          in the order in which they were made, more or less
--   facets       what is compared, by name: {"type": "integer", "default": "0"}; what is null is not there
--   make         the statements that make it; null if it comes and goes with something else
--   take         the statement that takes it away; null if there is none that loses no rows
-- Nothing in them is an extension's. The session's search_path is empty, so that every name is qualified.
select 'schema' as kind,
       quote_ident(n.nspname) as name,
       null::text[] as table_name,
       n.oid,
       '{}'::jsonb as facets,
       array[format('CREATE SCHEMA %I', n.nspname)] as make,
       null::text as take
  from pg_catalog.pg_namespace n
 where n.nspname = any ($1::text[])
union all
select 'extension',
       quote_ident(e.extname),
       null,
       e.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'version', e.extversion,
         'schema', quote_ident(n.nspname),
         -- Something in these schemas is made with it.
         'used', case when n.nspname = any ($1::text[]) or exists (
           select
             from pg_catalog.pg_depend m
             join pg_catalog.pg_depend d on d.refclassid = m.classid and d.refobjid = m.objid and d.deptype in ('n', 'a')
            cross join lateral pg_catalog.pg_identify_object_as_address(d.classid, d.objid, d.objsubid) as o
            where m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
              and m.refobjid = e.oid
              and m.deptype = 'e'
              and (o.object_names[1] = any ($1::text[])
                   or d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                  and (select tn.nspname
                         from pg_catalog.pg_type t
                         join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
                        where t.oid = d.objid) = any ($1::text[]))) then 'yes' end)),
       case n.nspname
         when 'public' then '{}'::text[]
         else array[format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname)]
       end || format('CREATE EXTENSION %I WITH SCHEMA %I', e.extname, n.nspname),
       null
  from pg_catalog.pg_extension e
  join pg_catalog.pg_namespace n on n.oid = e.extnamespace
 where e.extname <> 'plpgsql';
