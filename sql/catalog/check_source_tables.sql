-- What is to be known of the source's selected tables ($1: their oids) before they are published and read.
--
-- `fitting` is a replica identity that the table could be given: its primary key, or another index that is unique,
-- valid, immediate, of whole rows, and of ordinary columns that are NOT NULL. `is_one_chunk`: the copy can't divide
-- the table, as the leading column of its key is no integer and no uuid.
select c.oid,
       c.relreplident = 'f' as is_full,
       c.relreplident = 'i' as is_by_index,
       p.indexrelid is not null as has_primary_key,
       coalesce(not p.indimmediate, false) as has_deferrable_key,
       (select case when i.indisprimary then 'DEFAULT' else format('USING INDEX %I', x.relname) end
          from pg_catalog.pg_index i
          join pg_catalog.pg_class x on x.oid = i.indexrelid
         where i.indrelid = c.oid
           and i.indisunique
           and i.indisvalid
           and i.indimmediate
           and i.indpred is null
           and i.indexprs is null
           and not exists (select
                             from pg_catalog.pg_attribute a
                            where a.attrelid = c.oid
                              and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1])
                              and (not a.attnotnull or a.attgenerated <> ''))
         order by i.indisprimary desc, x.relname
         limit 1) as fitting,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') as is_owner,
       format('%I', o.rolname) as owner,
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') as has_usage,
       pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
       and pg_catalog.has_table_privilege(c.oid, 'SELECT') as can_select,
       pg_catalog.row_security_active(c.oid) as is_hidden_by_policies,
       c.relforcerowsecurity as is_forced,
       c.relkind <> 'p'
       and not coalesce((select a.atttypid = any (array['int2', 'int4', 'int8', 'uuid']::pg_catalog.regtype[])
                           from pg_catalog.pg_index i
                           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
                          where i.indrelid = c.oid
                            and (i.indisreplident or i.indisprimary and c.relreplident <> 'i')), false) as is_one_chunk,
       pg_catalog.pg_stat_get_tuples_updated(c.oid) + pg_catalog.pg_stat_get_tuples_deleted(c.oid) as updated,
       not c.relispartition and exists (select
                                          from pg_catalog.pg_inherits h
                                         where (h.inhrelid = c.oid or h.inhparent = c.oid)
                                           and c.relkind <> 'p') as is_inherited,
       exists (select
                 from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and not a.attisdropped and a.attgenerated <> '') as has_generated,
       exists (select
                 from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and not a.attisdropped and a.attidentity <> '') as has_identity,
       array(select format('%I.%I', sn.nspname, s.relname)
               from pg_catalog.pg_depend d
               join pg_catalog.pg_class s on s.oid = d.objid and s.relkind = 'S'
               join pg_catalog.pg_namespace sn on sn.oid = s.relnamespace
              where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                and d.refobjid = c.oid
                and d.deptype in ('a', 'i')
                and not (pg_catalog.has_schema_privilege(s.relnamespace, 'USAGE')
                         and pg_catalog.has_sequence_privilege(s.oid, 'SELECT'))) as hidden_sequences
  from pg_catalog.pg_class c
  join pg_catalog.pg_roles o on o.oid = c.relowner
  left join pg_catalog.pg_index p on p.indrelid = c.oid and p.indisprimary
 where c.oid = any ($1::oid[]);
