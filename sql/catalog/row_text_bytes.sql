-- An expression for about how many bytes of text a row of the table $1 has, in its columns $2. What a value
-- takes outside the row is known without reading it, for bytea and text even before it was compressed; other
-- types count as they are stored.
select coalesce(string_agg(case a.atttypid
                             when 'pg_catalog.bytea'::regtype then format('coalesce(2 * octet_length(%I)::int8, 0)', a.attname)
                             when 'pg_catalog.text'::regtype then format('coalesce(octet_length(%I)::int8, 0)', a.attname)
                             when 'pg_catalog.varchar'::regtype then format('coalesce(octet_length(%I)::int8, 0)', a.attname)
                             else format('coalesce(pg_catalog.pg_column_size(%I)::int8, 0)', a.attname)
                           end, ' + '), '0')
  from pg_catalog.pg_attribute a
 where a.attrelid = $1
   and a.attname::text = any ($2::text[])
   and a.attlen = -1;
