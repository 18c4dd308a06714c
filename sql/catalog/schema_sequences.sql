-- The sequences of the schemas $1, but for those of identity columns, and the columns that own them; see
-- schema_extensions.sql for the columns.
with own as (
  select c.oid, n.nspname, format('%I.%I', n.nspname, c.relname) as name, s.*
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_sequence s on s.seqrelid = c.oid
   where n.nspname = any ($1::text[])
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        and d.objid = c.oid
                        and d.deptype in ('e', 'i'))
), owners as (
  select s.oid, s.name, array[s.nspname, t.relname]::text[] as table_name,
         format('%I.%I.%I', s.nspname, t.relname, a.attname) as column_name
    from own s
    join pg_catalog.pg_depend d
      on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
     and d.objid = s.oid
     and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
     and d.deptype = 'a'
    join pg_catalog.pg_class t on t.oid = d.refobjid
    join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
)
select 'sequence' as kind,
       s.name,
       (select o.table_name from owners o where o.oid = s.oid) as table_name,
       s.oid,
       jsonb_build_object(
         'options', format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s%s', s.seqtypid::pg_catalog.regtype, s.seqincrement,
                           s.seqmin, s.seqmax, case when s.seqcycle then ' CYCLE' else ' NO CYCLE' end)) as facets,
       array[format('CREATE SEQUENCE %s AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s%s', s.name,
                    s.seqtypid::pg_catalog.regtype, s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache,
                    case when s.seqcycle then ' CYCLE' else '' end)] as make,
       null::text as take
  from own s
union all
select 'sequence owner',
       o.name,
       o.table_name,
       o.oid,
       jsonb_build_object('column', o.column_name),
       array[format('ALTER SEQUENCE %s OWNED BY %s', o.name, o.column_name)],
       format('ALTER SEQUENCE %s OWNED BY NONE', o.name)
  from owners o;
