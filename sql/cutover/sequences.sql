-- The user's own sequences ($1: schemas that are the provider's), those of identity columns included, with the column
-- that each is for.
select n.nspname::text as schema,
       c.relname::text as name,
       (select format('%I.%I.%I', tn.nspname, t.relname, a.attname)
          from pg_catalog.pg_depend d
          join pg_catalog.pg_class t on t.oid = d.refobjid
          join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
          join pg_catalog.pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
         where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           and d.objid = c.oid
           and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
           and d.deptype in ('a', 'i')
         limit 1) as owner,
       s.seqincrement as increment,
       s.seqmin as min_value,
       s.seqmax as max_value
  from pg_catalog.pg_sequence s
  join pg_catalog.pg_class c on c.oid = s.seqrelid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where c.relpersistence = 'p'
   and n.nspname not in ('pg_catalog', 'information_schema', 'cdc')
   and n.nspname <> all ($1::text[])
   and not exists (select
                     from pg_catalog.pg_depend d
                    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                      and d.objid = c.oid
                      and d.deptype = 'e')
 order by 1, 2;
