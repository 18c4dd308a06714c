-- What a table of the target ($1, $2) allows to be done in sets of rows.
--
-- `tells_rows_apart`: a unique index makes sure that a key ($3, the names of its columns) is that of one row
-- at most. In a replica's session a deferrable one doesn't.
-- `reads_text`: a cast from text to each type ($4) calls the type's input function, and not a function
-- that reads the text in its own way.
select exists (select
                 from pg_catalog.pg_index i
                where i.indrelid = c.oid
                  and i.indisunique
                  and i.indisvalid
                  and i.indimmediate
                  and i.indpred is null
                  and i.indexprs is null
                  and not exists (select
                                    from pg_catalog.pg_attribute a
                                   where a.attrelid = c.oid
                                     and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                                     and a.attname::text <> all ($3))) as tells_rows_apart,
       not exists (select
                     from pg_catalog.pg_cast x
                    where x.castsource = 'pg_catalog.text'::pg_catalog.regtype
                      and x.castmethod = 'f'
                      and x.casttarget = any (array(select t.name::pg_catalog.regtype::oid
                                                      from pg_catalog.unnest($4::text[]) as t(name)))) as reads_text
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1
   and c.relname = $2;
