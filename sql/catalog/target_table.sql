-- A table of the target, by schema and name ($1, $2), with its topmost parent if it is a partition.
--
-- `firing` is what would fire for rows of a replica, as the SQL that stops it: triggers and rules, also
-- those of the partitions that the rows end up in.
select c.oid,
       c.relkind::text as kind,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bounds,
       array(select format('ALTER TABLE %I.%I DISABLE %s %I', fn.nspname, f.relname, x.kind, x.name)
               from (select t.tgrelid as relid, 'TRIGGER' as kind, t.tgname as name
                       from pg_catalog.pg_trigger t
                      where not t.tgisinternal
                        and t.tgenabled in ('A', 'R')
                      union all
                     select w.ev_class, 'RULE', w.rulename
                       from pg_catalog.pg_rewrite w
                      where w.ev_enabled in ('A', 'R')) as x
               join pg_catalog.pg_class f on f.oid = x.relid
               join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
              where x.relid = c.oid
                 or x.relid in (select p.relid from pg_catalog.pg_partition_tree(c.oid) as p)
              order by 1) as firing
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
 where n.nspname = $1
   and c.relname = $2
   and c.relkind in ('r', 'p', 'v', 'm', 'f');
