-- What the target has of a foreign key: $1, $2: its table; $3: its columns; $4, $5: the table that it refers to;
-- $6: the columns there. No row if it has none.
select k.convalidated as is_valid,
       -- conenforced came with 18.
       coalesce((to_jsonb(k) ->> 'conenforced')::boolean, true) as is_enforced
  from pg_catalog.pg_constraint k
 where k.contype = 'f'
   and k.conrelid = pg_catalog.to_regclass(format('%I.%I', $1::text, $2::text))::oid
   and k.confrelid = pg_catalog.to_regclass(format('%I.%I', $4::text, $5::text))::oid
   and array(select a.attname::text
               from unnest(k.conkey) with ordinality as u (attnum, place)
               join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = u.attnum
              order by u.place) = $3::text[]
   and array(select a.attname::text
               from unnest(k.confkey) with ordinality as u (attnum, place)
               join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum
              order by u.place) = $6::text[]
 order by 2 desc, 1 desc
 limit 1;
