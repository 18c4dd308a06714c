(select pg_catalog.md5(pg_catalog.string_agg(concat(v.attnum, ' ', v.xmin, ' ', vd.xmin), ',' order by v.attnum))
   from pg_catalog.pg_attribute v
   left join pg_catalog.pg_attrdef vd on vd.adrelid = v.attrelid and vd.adnum = v.attnum and v.attgenerated <> ''
  where v.attrelid = c.oid
    and v.attnum > 0)
