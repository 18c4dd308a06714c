-- The constraints of the tables of the schemas $1, and the indexes that are no constraint's; see
-- schema_extensions.sql for the columns. What is part of a parent's comes and goes with that. NOT NULL is the
-- column's (schema_tables.sql).
with own as (
  select c.oid, c.relkind, c.relname, n.nspname, format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where n.nspname = any ($1::text[])
     and c.relkind in ('r', 'p', 'm')
     and c.relpersistence <> 't'
), constraints as (
  select k.*,
         pg_catalog.pg_get_constraintdef(k.oid) as definition,
         -- conenforced came with 18.
         to_jsonb(k) ->> 'conenforced' = 'false' as is_not_enforced
    from own c
    join pg_catalog.pg_constraint k on k.conrelid = c.oid
   where k.contype in ('p', 'u', 'x', 'c', 'f')
), indexes as (
  select x.oid, c.oid as relid, format('%I.%I', c.nspname, x.relname) as name, x.relname, x.relispartition, i.indisunique, i.indisvalid, i.indisreplident,
         -- A partitioned table's is printed with ONLY, with which it would not be made on the partitions.
         substr(pg_catalog.pg_get_indexdef(x.oid),
                length(format('CREATE %sINDEX %I ON %s', case when i.indisunique then 'UNIQUE ' else '' end, x.relname,
                              case when c.relkind = 'p' then 'ONLY ' else '' end)) + 1) as definition
    from own c
    join pg_catalog.pg_index i on i.indrelid = c.oid
    join pg_catalog.pg_class x on x.oid = i.indexrelid
   where i.indislive
     and not exists (select
                       from pg_catalog.pg_constraint k
                      where k.conindid = x.oid
                        and k.contype in ('p', 'u', 'x'))
)
select case k.contype
         when 'p' then 'primary key'
         when 'u' then 'unique constraint'
         when 'x' then 'exclusion constraint'
         when 'c' then 'check constraint'
         else 'foreign key'
       end as kind,
       format('%s.%I', c.name, k.conname) as name,
       array[c.nspname, c.relname]::text[] as table_name,
       k.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'definition', regexp_replace(k.definition, ' NOT VALID$', ''),
         'valid', case when not k.convalidated and k.is_not_enforced is not true then 'NOT VALID' end)) as facets,
       case
         when k.conparentid = 0 and k.conislocal then
           array_remove(array[
             format('ALTER TABLE %s ADD CONSTRAINT %I %s', c.name, k.conname, k.definition),
             case when ri.indisreplident then
               format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', c.name, k.conname) end], null)
       end as make,
       format('ALTER TABLE %s DROP CONSTRAINT %I', c.name, k.conname) as take
  from own c
  join constraints k on k.conrelid = c.oid
  left join pg_catalog.pg_index ri on ri.indexrelid = k.conindid and ri.indrelid = c.oid
union all
select case when x.indisunique then 'unique index' else 'index' end,
       x.name,
       array[c.nspname, c.relname]::text[],
       x.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'definition', concat(case when x.indisunique then 'UNIQUE ' end, 'ON ', x.definition),
         'valid', case when not x.indisvalid then 'INVALID' end)),
       case
         when not x.relispartition then
           array_remove(array[
             format('CREATE %sINDEX %I ON %s', case when x.indisunique then 'UNIQUE ' else '' end, x.relname, x.definition),
             case when x.indisreplident then
               format('ALTER TABLE %s REPLICA IDENTITY USING INDEX %I', c.name, x.relname) end], null)
       end,
       format('DROP INDEX %s', x.name)
  from own c
  join indexes x on x.relid = c.oid;
