-- Which of the source's tables and columns the target lacks.
--
-- $1, $2: schema and name of each table; $3, $4: those of its topmost parent (itself if it is no
-- partition); $5: its columns as a JSON array. A partition that is missing is looked for as its
-- topmost parent, where its rows will go.
with wanted as (
  select *
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
         as w (schema, name, root_schema, root_name, columns)
), found as (
  select w.*, coalesce(t.oid, r.oid) as oid
    from wanted w
    left join (pg_catalog.pg_class t join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace)
           on tn.nspname = w.schema and t.relname = w.name and t.relkind in ('r', 'p')
    left join (pg_catalog.pg_class r join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace)
           on rn.nspname = w.root_schema and r.relname = w.root_name and r.relkind in ('r', 'p')
)
select f.schema, f.name, null::text as column_name
  from found f
 where f.oid is null
union all
select f.schema, f.name, c.name
  from found f
 cross join lateral jsonb_array_elements_text(f.columns::jsonb) as c (name)
 where f.oid is not null
   and not exists (select
                     from pg_catalog.pg_attribute a
                    where a.attrelid = f.oid
                      and a.attname = c.name
                      and a.attnum > 0
                      and not a.attisdropped)
 order by 1, 2, 3;
