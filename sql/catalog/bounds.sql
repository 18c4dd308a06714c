-- The bounds of these tables ($1: schemas, $2: names), in the same order; a null row for one that isn't there.
select c.oid is not null as is_there,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bounds
  from unnest($1::text[], $2::text[]) with ordinality as w (schema, name, place)
  left join (pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace)
         on n.nspname = w.schema and c.relname = w.name and c.relkind in ('r', 'p')
 order by w.place;
