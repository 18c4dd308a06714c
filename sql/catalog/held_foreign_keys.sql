-- The foreign keys of these tables of the target ($1: schemas, $2: names) and of their partitions, and
-- those of any table that refer to them through one of the unique indexes $3 (oids), or ($4) at all, and
-- how to take them off and put them back.
--
-- A foreign key that is part of a partitioned table's goes with all of that, parents first.
with recursive own as (
  select c.oid, c.relkind
    from unnest($1::text[], $2::text[]) as w (schema_name, table_name)
    join pg_catalog.pg_namespace n on n.nspname = w.schema_name
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.table_name
), tables as (
  select oid from own
   union
  select p.relid from own, pg_catalog.pg_partition_tree(own.oid) as p where own.relkind = 'p'
), up as (
  select k.oid, k.conparentid
    from pg_catalog.pg_constraint k
   where k.contype = 'f'
     and (k.conrelid in (select oid from tables)
          or k.conindid = any ($3::oid[])
          or $4 and k.confrelid in (select oid from tables))
   union
  select k.oid, k.conparentid
    from up
    join pg_catalog.pg_constraint k on k.oid = up.conparentid
), trees as (
  select k.oid, null::oid as parent, 0 as level, k.conrelid, k.confrelid
    from up
    join pg_catalog.pg_constraint k on k.oid = up.oid
   where up.conparentid = 0
   union all
  -- What belongs to the partitions of the table that is referred to comes and goes by itself.
  select k.oid, t.oid, t.level + 1, k.conrelid, k.confrelid
    from trees t
    join pg_catalog.pg_constraint k
      on k.conparentid = t.oid
     and k.confrelid = t.confrelid
     and k.conrelid <> t.conrelid
), facts as (
  select t.oid,
         t.parent,
         t.level,
         n.nspname as schema_name,
         r.relname as table_name,
         r.relkind = 'p' as is_partitioned,
         format('%s%I.%I', case when r.relkind = 'p' then '' else 'ONLY ' end, n.nspname, r.relname)
           as only_table,
         format('%I.%I', n.nspname, r.relname) as table_sql,
         format('%I.%I', fn.nspname, f.relname) as refers_to,
         k.conname as name,
         k.convalidated,
         pg_catalog.pg_get_constraintdef(k.oid) as definition,
         concat_ws('; ',
           case when not pg_catalog.pg_has_role(r.relowner, 'USAGE') then
             format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(r.relowner), current_user) end,
           case when not pg_catalog.has_schema_privilege(fn.oid, 'USAGE') then
             format('GRANT USAGE ON SCHEMA %I TO %I', fn.nspname, current_user) end,
           case when not pg_catalog.has_table_privilege(f.oid, 'REFERENCES')
                 and exists (select
                               from unnest(k.confkey) as c (attnum)
                              where not pg_catalog.has_column_privilege(f.oid, c.attnum, 'REFERENCES')) then
             format('GRANT REFERENCES ON %I.%I TO %I', fn.nspname, f.relname, current_user) end,
           -- Only a superuser can switch such triggers off again.
           case when not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
             (select string_agg(distinct format('ALTER TABLE %s ENABLE TRIGGER ALL', g.tgrelid::pg_catalog.regclass),
                                '; ')
                from pg_catalog.pg_trigger g
               where g.tgconstraint = k.oid
                 and g.tgenabled <> 'O') end) as lacks
    from trees t
    join pg_catalog.pg_constraint k on k.oid = t.oid
    join pg_catalog.pg_class r on r.oid = t.conrelid
    join pg_catalog.pg_namespace n on n.oid = r.relnamespace
    join pg_catalog.pg_class f on f.oid = t.confrelid
    join pg_catalog.pg_namespace fn on fn.oid = f.relnamespace
)
select f.oid,
       f.parent,
       f.schema_name::text as schema_name,
       f.table_name::text as table_name,
       'foreign key' as kind,
       f.name::text as object_name,
       f.refers_to,
       '' as tablespace,
       null::text as build,
       array_remove(array[
         format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', f.only_table, f.name, f.definition,
                case when f.convalidated and not f.is_partitioned then ' NOT VALID' else '' end),
         (select format('COMMENT ON CONSTRAINT %I ON %s IS %L', f.name, f.table_sql, d.description)
            from pg_catalog.pg_description d
           where d.objoid = f.oid
             and d.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass)
       ], null)
       -- Its triggers have other names each time.
       || array(select format($do$DO $cdc$
DECLARE
  trigger_name name;
BEGIN
  SELECT g.tgname INTO STRICT trigger_name
    FROM pg_catalog.pg_trigger g
    JOIN pg_catalog.pg_constraint k ON k.oid = g.tgconstraint
   WHERE k.conrelid = %L::pg_catalog.regclass AND k.conname = %L
     AND g.tgrelid = %L::pg_catalog.regclass AND g.tgfoid = %L::pg_catalog.regproc;
  EXECUTE pg_catalog.format(%L, trigger_name);
END $cdc$$do$, f.table_sql, f.name, g.tgrelid::pg_catalog.regclass, g.tgfoid::pg_catalog.regproc,
                              format('ALTER TABLE ONLY %s %s TRIGGER %%I', g.tgrelid::pg_catalog.regclass,
                                     case g.tgenabled
                                       when 'D' then 'DISABLE'
                                       when 'R' then 'ENABLE REPLICA'
                                       when 'A' then 'ENABLE ALWAYS'
                                     end))
                  from pg_catalog.pg_trigger g
                 where g.tgconstraint = f.oid
                   and g.tgenabled <> 'O'
                 order by g.tgname) as put_back,
       case when f.convalidated and not f.is_partitioned then
         format('ALTER TABLE %s VALIDATE CONSTRAINT %I', f.only_table, f.name)
       end as validate,
       case when f.level = 0 then format('ALTER TABLE %s DROP CONSTRAINT %I', f.only_table, f.name) end
         as take_off,
       nullif(f.lacks, '') as lacks
  from facts f
 order by f.level, f.oid;
