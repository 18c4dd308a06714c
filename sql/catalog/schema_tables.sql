-- The tables of the schemas $1, and their columns; see schema_extensions.sql for the columns of the answer.
--
-- Foreign tables are left out: what they show is somewhere else.
-- A column that a table has from its parent comes and goes with that, and only what can differ is compared.
with own as (
  select c.*, n.nspname, format('%I.%I', n.nspname, c.relname) as name,
         (select array_agg(format('%I.%I', pn.nspname, p.relname) order by h.inhseqno)
            from pg_catalog.pg_inherits h
            join pg_catalog.pg_class p on p.oid = h.inhparent
            join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
           where h.inhrelid = c.oid) as parents
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where n.nspname = any ($1::text[])
     and c.relkind in ('r', 'p')
     and c.relpersistence <> 't'
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        and d.objid = c.oid
                        and d.deptype = 'e')
), columns as (
  select c.oid as relid,
         a.attnum,
         a.attname,
         a.attinhcount > 0 as is_inherited,
         a.attislocal,
         pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
         case when a.attcollation <> t.typcollation then a.attcollation::pg_catalog.regcollation::text end as collation,
         case
           when not a.attnotnull then null
           -- 18 has constraints for it, which can be NOT VALID; convalidated is always there.
           when exists (select
                          from pg_catalog.pg_constraint k
                         where k.conrelid = c.oid
                           and k.contype = 'n'
                           and k.conkey = array[a.attnum]
                           and not k.convalidated) then 'NOT NULL NOT VALID'
           else 'NOT NULL'
         end as not_null,
         case a.attgenerated when '' then pg_catalog.pg_get_expr(f.adbin, f.adrelid) end as value,
         -- A partition's own default.
         (select pg_catalog.pg_get_expr(pf.adbin, pf.adrelid)
            from pg_catalog.pg_inherits h
            join pg_catalog.pg_attribute pa on pa.attrelid = h.inhparent and pa.attname = a.attname
            join pg_catalog.pg_attrdef pf on pf.adrelid = pa.attrelid and pf.adnum = pa.attnum
           where h.inhrelid = c.oid
             and c.relispartition) as parents_value,
         case a.attgenerated
           when 's' then format('(%s) STORED', pg_catalog.pg_get_expr(f.adbin, f.adrelid))
           when 'v' then format('(%s) VIRTUAL', pg_catalog.pg_get_expr(f.adbin, f.adrelid))
         end as generated,
         case a.attidentity when 'a' then 'ALWAYS' when 'd' then 'BY DEFAULT' end as identity,
         q.options,
         q.start
    from own c
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_catalog.pg_type t on t.oid = a.atttypid
    left join pg_catalog.pg_attrdef f on f.adrelid = c.oid and f.adnum = a.attnum
    left join lateral (
      select format('INCREMENT BY %s, MINVALUE %s, MAXVALUE %s, %s', s.seqincrement, s.seqmin, s.seqmax,
                    case when s.seqcycle then 'CYCLE' else 'NO CYCLE' end) as options,
             s.seqstart as start
        from pg_catalog.pg_depend d
        join pg_catalog.pg_sequence s on s.seqrelid = d.objid
       where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
         and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
         and d.refobjid = c.oid
         and d.refobjsubid = a.attnum
         and d.deptype = 'i') as q on a.attidentity <> ''
), defined as (
  select m.*,
         concat_ws(' ', quote_ident(m.attname), m.type, 'COLLATE ' || m.collation, 'DEFAULT ' || m.value,
                   'GENERATED ALWAYS AS ' || m.generated,
                   'GENERATED ' || m.identity || ' AS IDENTITY (' || replace(m.options, ',', '') || ' START WITH ' || m.start || ')',
                   case when m.not_null is not null then 'NOT NULL' end) as definition
    from columns m
)
select 'table' as kind,
       c.name,
       array[c.nspname, c.relname]::text[] as table_name,
       c.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'kind', case c.relkind when 'p' then 'partitioned table' else 'table' end,
         'persistence', case c.relpersistence when 'u' then 'UNLOGGED' else 'LOGGED' end,
         'partitioned by', pg_catalog.pg_get_partkeydef(c.oid),
         'partition of', case when c.relispartition then c.parents[1] end,
         'bound', case when c.relispartition then pg_catalog.pg_get_expr(c.relpartbound, c.oid) end,
         'inherits', case when not c.relispartition then array_to_string(c.parents, ', ') end,
         'row security', case when c.relrowsecurity then 'ENABLE' end,
         'row security of the owner', case when c.relforcerowsecurity then 'FORCE' end,
         'replica identity', case c.relreplident
           when 'd' then 'DEFAULT'
           when 'n' then 'NOTHING'
           when 'f' then 'FULL'
           else coalesce((select format('USING INDEX %I', x.relname)
                            from pg_catalog.pg_index i
                            join pg_catalog.pg_class x on x.oid = i.indexrelid
                           where i.indrelid = c.oid
                             and i.indisreplident), 'NOTHING')
         end)) as facets,
       array_remove(array[
         concat(case c.relpersistence when 'u' then 'CREATE UNLOGGED TABLE ' else 'CREATE TABLE ' end, c.name,
                case
                  when c.relispartition then
                    concat(' PARTITION OF ', c.parents[1],
                           (select ' (' || string_agg(format('%I WITH OPTIONS DEFAULT %s', d.attname, d.value), ', ') || ')'
                              from defined d
                             where d.relid = c.oid
                               and d.value is not null
                               and d.is_inherited
                               and d.value is distinct from d.parents_value),
                           ' ', pg_catalog.pg_get_expr(c.relpartbound, c.oid))
                  else format(E' (\n    %s\n)', (select string_agg(d.definition, E',\n    ' order by d.attnum)
                                           from defined d
                                          where d.relid = c.oid
                                            and d.attislocal))
                end,
                case when not c.relispartition then ' INHERITS (' || array_to_string(c.parents, ', ') || ')' end,
                ' PARTITION BY ' || pg_catalog.pg_get_partkeydef(c.oid)),
         case when c.relrowsecurity then format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', c.name) end,
         case when c.relforcerowsecurity then format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', c.name) end,
         case c.relreplident
           when 'f' then format('ALTER TABLE %s REPLICA IDENTITY FULL', c.name)
           when 'n' then format('ALTER TABLE %s REPLICA IDENTITY NOTHING', c.name)
         end], null) as make,
       null::text as take
  from own c
union all
select 'column',
       format('%s.%I', c.name, d.attname),
       array[c.nspname, c.relname]::text[],
       c.oid,
       jsonb_strip_nulls(
         case
           when d.is_inherited then jsonb_build_object('default', d.value)
           else jsonb_build_object('type', d.type, 'collation', d.collation, 'default', d.value,
                                   'generated', d.generated, 'identity', d.identity, 'identity options', d.options)
         end || jsonb_build_object('not null', d.not_null)),
       case when not d.is_inherited then array[format('ALTER TABLE %s ADD COLUMN %s', c.name, d.definition)] end,
       null
  from own c
  join defined d on d.relid = c.oid;
