-- The views and materialized views of the schemas $1; see schema_extensions.sql for the columns.
select case c.relkind when 'v' then 'view' else 'materialized view' end as kind,
       d.name,
       array[n.nspname, c.relname]::text[] as table_name,
       c.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'definition', d.definition,
         'options', d.options,
         'columns', (select string_agg(format('%I %s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)), ', '
                                       order by a.attnum)
                       from pg_catalog.pg_attribute a
                      where a.attrelid = c.oid
                        and a.attnum > 0
                        and not a.attisdropped))) as facets,
       array[case c.relkind
         when 'v' then concat('CREATE OR REPLACE VIEW ', d.name, ' WITH (' || d.options || ')', E' AS\n', d.definition)
         else concat('CREATE MATERIALIZED VIEW ', d.name, E' AS\n', d.definition, E'\n  WITH NO DATA')
       end] as make,
       case c.relkind
         when 'v' then format('DROP VIEW %s', d.name)
         else format('DROP MATERIALIZED VIEW %s', d.name)
       end as take
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 cross join lateral (
   select format('%I.%I', n.nspname, c.relname) as name,
          rtrim(pg_catalog.pg_get_viewdef(c.oid), ';') as definition,
          (select string_agg(format('%s=%s', o.option_name, quote_literal(o.option_value)), ', ' order by o.option_name collate "C")
             from pg_catalog.pg_options_to_table(c.reloptions) as o
            where c.relkind = 'v') as options) as d
 where n.nspname = any ($1::text[])
   and c.relkind in ('v', 'm')
   and c.relpersistence <> 't'
   and not exists (select
                     from pg_catalog.pg_depend e
                    where e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      and e.objid = c.oid
                      and e.deptype = 'e');
