-- The enums, composite types, ranges and domains of the schemas $1, and the domains' constraints;
-- see schema_extensions.sql for the columns.
with own as (
  select t.*, format('%I.%I', n.nspname, t.typname) as name
    from pg_catalog.pg_type t
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    left join pg_catalog.pg_class c on c.oid = t.typrelid
   where n.nspname = any ($1::text[])
     and (t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and c.relkind = 'c')
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                        and d.objid = t.oid
                        and d.deptype = 'e')
), described as (
  select t.oid,
         t.name,
         t.typtype,
         t.typnotnull,
         pg_catalog.format_type(t.typbasetype, t.typtypmod) as base,
         t.typdefault,
         co.oid::pg_catalog.regcollation::text as collation,
         (select string_agg(quote_literal(l.enumlabel), ', ' order by l.enumsortorder)
            from pg_catalog.pg_enum l
           where l.enumtypid = t.oid) as labels,
         (select string_agg(format('%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                                   case when a.attcollation <> at.typcollation then
                                     ' COLLATE ' || a.attcollation::pg_catalog.regcollation::text else '' end),
                            ', ' order by a.attnum)
            from pg_catalog.pg_attribute a
            join pg_catalog.pg_type at on at.oid = a.atttypid
           where a.attrelid = t.typrelid
             and a.attnum > 0
             and not a.attisdropped) as attributes,
         (select concat_ws(', ',
                   'SUBTYPE = ' || pg_catalog.format_type(r.rngsubtype, null),
                   'SUBTYPE_OPCLASS = ' || case when not oc.opcdefault then format('%I.%I', ocn.nspname, oc.opcname) end,
                   'COLLATION = ' || nullif(r.rngcollation, 0)::pg_catalog.regcollation::text,
                   'CANONICAL = ' || nullif(r.rngcanonical, 0)::pg_catalog.regproc::text,
                   'SUBTYPE_DIFF = ' || nullif(r.rngsubdiff, 0)::pg_catalog.regproc::text)
            from pg_catalog.pg_range r
            join pg_catalog.pg_opclass oc on oc.oid = r.rngsubopc
            join pg_catalog.pg_namespace ocn on ocn.oid = oc.opcnamespace
           where r.rngtypid = t.oid) as range
    from own t
    left join pg_catalog.pg_type b on b.oid = t.typbasetype
    left join pg_catalog.pg_collation co on co.oid = t.typcollation and t.typtype = 'd' and t.typcollation <> b.typcollation
)
select case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range type' else 'composite type' end as kind,
       t.name,
       null::text[] as table_name,
       t.oid,
       jsonb_strip_nulls(case t.typtype
         when 'e' then jsonb_build_object('labels', t.labels)
         when 'd' then jsonb_build_object('type', t.base, 'collation', t.collation, 'default', t.typdefault,
                                          'not null', case when t.typnotnull then 'NOT NULL' end)
         when 'r' then jsonb_build_object('definition', t.range)
         else jsonb_build_object('attributes', t.attributes)
       end) as facets,
       array[case t.typtype
         when 'e' then format('CREATE TYPE %s AS ENUM (%s)', t.name, t.labels)
         when 'd' then concat_ws(' ', format('CREATE DOMAIN %s AS %s', t.name, t.base), 'COLLATE ' || t.collation,
                                 'DEFAULT ' || t.typdefault, case when t.typnotnull then 'NOT NULL' end)
         when 'r' then format('CREATE TYPE %s AS RANGE (%s)', t.name, t.range)
         else format('CREATE TYPE %s AS (%s)', t.name, t.attributes)
       end] as make,
       null::text as take
  from described t
union all
select 'domain constraint',
       format('%s.%I', t.name, k.conname),
       null,
       k.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'definition', regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
         'valid', case when not k.convalidated then 'NOT VALID' end)),
       array[format('ALTER DOMAIN %s ADD CONSTRAINT %I %s', t.name, k.conname, pg_catalog.pg_get_constraintdef(k.oid))],
       format('ALTER DOMAIN %s DROP CONSTRAINT %I', t.name, k.conname)
  from own t
  join pg_catalog.pg_constraint k on k.contypid = t.oid and k.contype = 'c';
