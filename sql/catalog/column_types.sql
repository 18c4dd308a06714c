-- The types of these columns ($2: their names) of a table ($1: its name), in that order: a domain counts as the
-- type that it is made of, and every enum as anyenum, since its values travel as their labels.
with recursive own as (
  select w.place, a.atttypid as oid
    from unnest($2) with ordinality as w (name, place)
    join pg_catalog.pg_attribute a on a.attname = w.name
   where a.attrelid = pg_catalog.to_regclass($1)
   union all
  select own.place, d.typbasetype
    from own
    join pg_catalog.pg_type d on d.oid = own.oid and d.typtype = 'd'
)
select coalesce(array_agg(case t.typtype when 'e' then 'pg_catalog.anyenum'::regtype::oid else t.oid end
                          order by own.place), '{}')
  from own
  join pg_catalog.pg_type t on t.oid = own.oid and t.typtype <> 'd';
