-- One text that is another when anything was done to a table, a column, a key or an enum of the database: asked
-- all the time.
select concat(
  (select pg_catalog.md5(string_agg(concat(c.oid, ' ', n.nspname, '.', c.relname, ' ', c.relreplident, ' ', {digest}, ' ',
                                           (select string_agg(i.indexrelid::text, ' ' order by i.indexrelid)
                                              from pg_catalog.pg_index i
                                             where i.indrelid = c.oid
                                               and i.indisvalid
                                               and (i.indisprimary or i.indisreplident))), ',' order by c.oid))
     from pg_catalog.pg_class c
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p')
      and c.relpersistence <> 't'
      and n.nspname not in ('pg_catalog', 'information_schema', 'cdc')),
  (select pg_catalog.md5(string_agg(concat(e.oid, ' ', e.xmin), ',' order by e.oid)) from pg_catalog.pg_enum e));
