-- What makes the rows of a table of the target ($1: schema, $2: name) or of its partitions exclude one
-- another, apart from the key that its chunks are ranges of ($3: columns; with none, nothing): unique
-- and exclusion indexes with their constraints; its other indexes, too, unless they begin with one of the
-- columns $4 or that is null; and how to take them off and put them back.
--
-- An index that is part of a partitioned one goes with all of that, parents first. One that excludes
-- (from 17 on) can't be attached to a new whole, which makes parts of its own: it is no row here, and
-- its whole's statements give the new part its name and marks.
with tables as (
  select c.oid
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where n.nspname = $1
     and c.relname = $2
), own as (
  select i.indexrelid as oid
    from pg_catalog.pg_index i
   where (i.indrelid in (select oid from tables)
          or i.indrelid in (select p.relid from tables t, pg_catalog.pg_partition_tree(t.oid) as p))
     and case
           when i.indisunique or i.indisexclusion then cardinality($3::text[]) > 0
           else i.indisvalid
                and $4::text[] is not null
                and not exists (select
                                  from pg_catalog.pg_attribute a
                                 where a.attrelid = i.indrelid
                                   and a.attnum = i.indkey[0]
                                   and a.attname::text = any ($4::text[]))
         end
     and not (i.indisunique
              and not i.indisexclusion
              and i.indpred is null
              and i.indexprs is null
              and array(select a.attname::text
                          from pg_catalog.pg_attribute a
                         where a.attrelid = i.indrelid
                           and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                         order by 1)
                  = array(select k from unnest($3::text[]) as k order by 1))
), tops as (
  select distinct coalesce(pg_catalog.pg_partition_root(oid)::oid, oid) as oid from own
), trees as (
  select coalesce(p.relid::oid, t.oid) as oid, p.parentrelid::oid as parent, coalesce(p.level, 0) as level,
         t.oid as top
    from tops t
    left join lateral pg_catalog.pg_partition_tree(t.oid) as p on true
), facts as (
  select t.level,
         t.oid,
         t.parent,
         t.top,
         n.nspname as schema_name,
         r.relname as table_name,
         x.relname as name,
         format('%I.%I', n.nspname, r.relname) as table_sql,
         format('%I.%I', n.nspname, x.relname) as index_sql,
         r.relkind = 'p' as is_partitioned,
         i.indisexclusion as is_exclusion,
         i.indisclustered,
         i.indisreplident,
         x.reloptions,
         coalesce(s.spcname, '') as tablespace,
         k.oid as constraint_oid,
         k.contype,
         case when i.indisunique then 'UNIQUE ' else '' end as is_unique,
         -- What follows CREATE [UNIQUE] INDEX name ON [ONLY].
         substr(pg_catalog.pg_get_indexdef(t.oid),
                length(format('CREATE %sINDEX %I ON %s', case when i.indisunique then 'UNIQUE ' else '' end, x.relname,
                              case when r.relkind = 'p' then 'ONLY ' else '' end)) + 1) as definition,
         -- A constraint is deparsed without its index's storage parameters, unless it excludes; after
         -- its last parenthesis is only when it is checked.
         regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), '[^)]*$', '') as constraint_what,
         substring(pg_catalog.pg_get_constraintdef(k.oid) from '[^)]*$') as constraint_when,
         concat_ws('; ',
           case when not pg_catalog.pg_has_role(r.relowner, 'USAGE') then
             format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(r.relowner), current_user) end,
           case when not pg_catalog.has_schema_privilege(n.oid, 'CREATE') then
             format('GRANT CREATE ON SCHEMA %I TO %I', n.nspname, current_user) end,
           case when not pg_catalog.has_tablespace_privilege(s.oid, 'CREATE') then
             format('GRANT CREATE ON TABLESPACE %I TO %I', s.spcname, current_user) end) as lacks
    from trees t
    join pg_catalog.pg_class x on x.oid = t.oid
    join pg_catalog.pg_index i on i.indexrelid = t.oid
    join pg_catalog.pg_class r on r.oid = i.indrelid
    join pg_catalog.pg_namespace n on n.oid = r.relnamespace
    left join pg_catalog.pg_tablespace s on s.oid = x.reltablespace
    left join pg_catalog.pg_constraint k on k.conindid = t.oid and k.contype in ('p', 'u', 'x')
), marks as (
  -- What follows the statement that makes it.
  select f.oid,
         array_remove(array[
           (select format($do$DO $cdc$
DECLARE
  made name;
BEGIN
  SELECT k.conname INTO STRICT made
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_constraint w ON w.oid = k.conparentid
   WHERE k.conrelid = %L::pg_catalog.regclass AND w.conrelid = %L::pg_catalog.regclass AND w.conname = %L;
  IF made <> %L THEN
    EXECUTE pg_catalog.format('ALTER TABLE ONLY %%s RENAME CONSTRAINT %%I TO %%I', %L, made, %L);
  END IF;
END $cdc$$do$, f.table_sql, w.table_sql, w.name, f.name, f.table_sql, f.name)
              from facts w
             where w.oid = f.parent
               and f.is_exclusion),
           (select format('COMMENT ON INDEX %s IS %L', f.index_sql, d.description)
              from pg_catalog.pg_description d
             where d.objoid = f.oid
               and d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass
               and d.objsubid = 0),
           (select format('COMMENT ON CONSTRAINT %I ON %s IS %L', f.name, f.table_sql, d.description)
              from pg_catalog.pg_description d
             where d.objoid = f.constraint_oid
               and d.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass),
           case when f.indisclustered then
             format('ALTER TABLE %s CLUSTER ON %I', f.table_sql, f.name) end,
           case when f.indisreplident then
             format('ALTER TABLE ONLY %s REPLICA IDENTITY USING INDEX %I', f.table_sql, f.name) end
         ], null)
         || array(select format('ALTER INDEX %s ALTER COLUMN %s SET STATISTICS %s', f.index_sql, a.attnum,
                                a.attstattarget)
                    from pg_catalog.pg_attribute a
                   where a.attrelid = f.oid
                     and a.attstattarget >= 0
                   order by a.attnum)
         || array(select format('ALTER INDEX %s DEPENDS ON EXTENSION %I', f.index_sql, e.extname)
                    from pg_catalog.pg_depend d
                    join pg_catalog.pg_extension e on e.oid = d.refobjid
                   where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                     and d.objid = f.oid
                     and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                     and d.deptype = 'x'
                   order by e.extname) as statements
    from facts f
)
select f.oid,
       f.parent,
       f.schema_name::text as schema_name,
       f.table_name::text as table_name,
       case when f.constraint_oid is null then 'index' else 'constraint' end as kind,
       f.name::text as object_name,
       null::text as refers_to,
       f.tablespace::text as tablespace,
       case
         when f.is_partitioned or f.is_exclusion then null
         else format('CREATE %sINDEX CONCURRENTLY %I ON %s', f.is_unique, f.name, f.definition)
       end as build,
       array_remove(array[
         case
           when f.contype = 'x' then
             format('ALTER TABLE %s ADD CONSTRAINT %I %s%s', f.table_sql, f.name, f.constraint_what,
                    f.constraint_when)
           when f.is_partitioned and f.constraint_oid is null then
             format('CREATE %sINDEX %I ON %s', f.is_unique, f.name, f.definition)
           -- A key WITHOUT OVERLAPS (18) excludes, and its index can't be built apart from it.
           when f.is_partitioned or f.is_exclusion then
             format('ALTER TABLE %s ADD CONSTRAINT %I %s%s%s', f.table_sql, f.name, f.constraint_what,
                    (select ' WITH (' || string_agg(format('%I=%L', o.option_name, o.option_value), ', ') || ')'
                       from pg_catalog.pg_options_to_table(f.reloptions) as o),
                    f.constraint_when)
           when f.constraint_oid is not null then
             format('ALTER TABLE ONLY %1$s ADD CONSTRAINT %2$I %3$s USING INDEX %2$I%4$s', f.table_sql, f.name,
                    case f.contype when 'p' then 'PRIMARY KEY' else 'UNIQUE' end, f.constraint_when)
         end
       ], null)
       || case
            when f.is_exclusion then array(select u.statement
                                             from facts p
                                             join marks m on m.oid = p.oid
                                            cross join unnest(m.statements) with ordinality as u (statement, place)
                                            where p.top = f.oid
                                            order by p.level, p.oid, u.place)
            else (select m.statements from marks m where m.oid = f.oid)
          end as put_back,
       null::text as validate,
       case
         when f.level > 0 then null
         when f.constraint_oid is null then format('DROP INDEX %s', f.index_sql)
         else format('ALTER TABLE %s DROP CONSTRAINT %I', f.table_sql, f.name)
       end as take_off,
       nullif(f.lacks, '') as lacks
  from facts f
 where f.level = 0 or not f.is_exclusion
 order by f.level, f.oid;
