-- A table of the target, by schema and name ($1, $2).
select c.oid,
       c.relkind::text as kind,
       array(select t.tgname::text
               from pg_catalog.pg_trigger t
              where t.tgrelid = c.oid
                and not t.tgisinternal
                and t.tgenabled in ('A', 'R')
              order by t.tgname) as firing_triggers
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 where n.nspname = $1
   and c.relname = $2
   and c.relkind in ('r', 'p', 'v', 'm', 'f');
