-- How these tables ($1: their oids) are built, one row a column, in their order. Asked on either side.
--
-- `digest` changes with anything that is done to a column: each leaves another version of the column's row in
-- the catalog, also where it looks the same afterwards (ALTER COLUMN ... TYPE int USING n * 2). `filenode` changes
-- when the table is rewritten. `missing` is what rows have for a column that was added after them.
select c.oid,
       n.nspname::text as schema,
       c.relname::text as name,
       rn.nspname::text as root_schema,
       r.relname::text as root_name,
       c.relfilenode as filenode,
       {digest} as digest,
       coalesce((select i.indkey::text
                   from pg_catalog.pg_index i
                  where i.indrelid = c.oid
                    and i.indisvalid
                    and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident end
                  limit 1), c.relreplident::text) as identity_key,
       a.attnum as number,
       a.attname::text as column_name,
       -- A partition has its columns from its topmost parent; some tables have none.
       format('%I.%I', coalesce(rn.nspname, n.nspname), coalesce(r.relname, c.relname))
         || '.' || quote_ident(a.attname) as object,
       pg_catalog.format_type(a.atttypid, a.atttypmod) as type,
       a.attnotnull as is_not_null,
       a.attgenerated <> '' as is_generated,
       a.attidentity <> '' as is_identity,
       a.atthasdef and a.attgenerated = '' as has_default,
       concat(a.xmin, ' ', d.xmin) as version,
       -- One element, whatever its type is.
       case when a.atthasmissing then (a.attmissingval::text::text[])[1] end as missing
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  left join pg_catalog.pg_class r on c.relispartition and r.oid = pg_catalog.pg_partition_root(c.oid)
  left join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
  left join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
  left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum and a.attgenerated <> ''
 where c.oid = any ($1::oid[])
 order by c.oid, a.attnum;
