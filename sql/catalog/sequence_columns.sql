-- The columns of these tables ($1: schemas, $2: names) whose values come from a sequence: one that they own, that
-- their identity is, or that their default names.
select c.schema_name as schema,
       c.table_name,
       a.attname::text as column_name,
       n.nspname::text as sequence_schema,
       s.relname::text as sequence_name,
       q.seqincrement as increment,
       q.seqmin as min_value,
       q.seqmax as max_value,
       t.typcategory = 'N' and t.typname in ('int2', 'int4', 'int8', 'numeric') as is_number
  from (select w.schema_name, w.table_name,
               pg_catalog.to_regclass(format('%I.%I', w.schema_name, w.table_name))::oid as oid
          from unnest($1::text[], $2::text[]) as w (schema_name, table_name)) as c
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 cross join lateral (
   select d.objid as oid
     from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      and d.refobjid = a.attrelid
      and d.refobjsubid = a.attnum
      and d.deptype in ('a', 'i')
    union
   select d.refobjid
     from pg_catalog.pg_attrdef f
     join pg_catalog.pg_depend d
       on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
      and d.objid = f.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    where f.adrelid = a.attrelid
      and f.adnum = a.attnum) as used
  join pg_catalog.pg_sequence q on q.seqrelid = used.oid
  join pg_catalog.pg_class s on s.oid = used.oid
  join pg_catalog.pg_namespace n on n.oid = s.relnamespace
  join pg_catalog.pg_type t on t.oid = a.atttypid
 order by 1, 2, a.attnum, 4, 5;
