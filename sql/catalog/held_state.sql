-- What is there of an object that was held back: $1, $2: its table; $3: its kind; $4: its name.
-- `index_is_valid`, `constraint_is_valid` and `is_on` are null if it has none.
select t.oid is not null as table_exists,
       (select i.indisvalid
          from pg_catalog.pg_index i
          join pg_catalog.pg_class x on x.oid = i.indexrelid
         where i.indrelid = t.oid
           and x.relname = $4) as index_is_valid,
       (select k.convalidated
          from pg_catalog.pg_constraint k
         where k.conrelid = t.oid
           and k.conname = $4
           and case when $3 = 'foreign key' then k.contype = 'f' else k.contype in ('p', 'u', 'x') end)
         as constraint_is_valid,
       case $3
         when 'trigger' then (select g.tgenabled <> 'D'
                                from pg_catalog.pg_trigger g
                               where g.tgrelid = t.oid and g.tgname = $4 and not g.tgisinternal)
         when 'rule' then (select r.ev_enabled <> 'D'
                             from pg_catalog.pg_rewrite r
                            where r.ev_class = t.oid and r.rulename = $4)
         when 'setting' then (select c.relforcerowsecurity from pg_catalog.pg_class c where c.oid = t.oid)
       end as is_on
  from (select pg_catalog.to_regclass(format('%I.%I', $1::text, $2::text))::oid as oid) as t;
