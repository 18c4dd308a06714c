-- What pg_dump doesn't tell of indexes and constraints, a line each. (PostgreSQL 14 has no NULLS NOT DISTINCT.)
SELECT pg_catalog.concat_ws(' ', 'index', i.indexrelid::pg_catalog.regclass, 'of', i.indrelid::pg_catalog.regclass, 'in',
         (SELECT h.inhparent::pg_catalog.regclass FROM pg_catalog.pg_inherits h WHERE h.inhrelid = i.indexrelid),
         'unique', i.indisunique, 'nulls', pg_catalog.to_jsonb(i) -> 'indnullsnotdistinct', 'primary', i.indisprimary, 'exclusion', i.indisexclusion,
         'immediate', i.indimmediate, 'clustered', i.indisclustered, 'valid', i.indisvalid, 'ready', i.indisready,
         'live', i.indislive, 'identity', i.indisreplident, i.indkey, i.indcollation, i.indclass, i.indoption,
         x.reloptions, x.reltablespace, x.relispartition,
         (SELECT pg_catalog.array_agg(a.attstattarget ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
           WHERE a.attrelid = x.oid),
         pg_catalog.obj_description(x.oid, 'pg_class'), pg_catalog.pg_get_indexdef(x.oid))
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
 WHERE x.relnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'cdc'::pg_catalog.regnamespace, 'pg_toast'::pg_catalog.regnamespace)
UNION ALL
SELECT pg_catalog.concat_ws(' ', 'constraint', k.conname, 'on', k.conrelid::pg_catalog.regclass, 'to', k.confrelid::pg_catalog.regclass,
         pg_catalog.pg_get_constraintdef(k.oid), k.contype, k.condeferrable, k.condeferred, k.convalidated,
         k.conindid::pg_catalog.regclass, 'of', p.conname, p.conrelid::pg_catalog.regclass, k.conislocal, k.coninhcount,
         pg_catalog.obj_description(k.oid, 'pg_constraint'))
  FROM pg_catalog.pg_constraint k
  LEFT JOIN pg_catalog.pg_constraint p ON p.oid = k.conparentid
 WHERE k.connamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'cdc'::pg_catalog.regnamespace)
   AND k.contype IN ('f', 'p', 'u', 'x')
   -- Made by the server, with names of its choice.
   AND NOT (k.contype = 'f' AND k.conparentid <> 0 AND p.conrelid = k.conrelid)
UNION ALL
SELECT pg_catalog.concat_ws(' ', 'trigger', pg_catalog.regexp_replace(g.tgname, '[0-9]+$', ''), g.tgrelid::pg_catalog.regclass,
         g.tgfoid::pg_catalog.regproc, k.conname, k.conrelid::pg_catalog.regclass, k.confrelid::pg_catalog.regclass, g.tgenabled,
         g.tgdeferrable, g.tginitdeferred,
         (SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger p WHERE p.oid = g.tgparentid))
  FROM pg_catalog.pg_trigger g
  JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint
 WHERE k.conparentid = 0 OR k.contype <> 'f' OR (SELECT p.conrelid FROM pg_catalog.pg_constraint p WHERE p.oid = k.conparentid) <> k.conrelid
UNION ALL
SELECT pg_catalog.concat_ws(' ', 'table', c.oid::pg_catalog.regclass, c.relreplident, c.relhasindex)
  FROM pg_catalog.pg_class c
 WHERE c.relkind IN ('r', 'p') AND c.relnamespace NOT IN ('pg_catalog'::pg_catalog.regnamespace, 'cdc'::pg_catalog.regnamespace)
