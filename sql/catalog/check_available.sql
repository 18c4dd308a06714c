-- Which of these extensions ($1) the target has, or could have.
select a.name::text as name,
       a.default_version as available,
       e.extversion as installed,
       n.nspname::text as schema,
       coalesce(v.trusted, false) as is_trusted
  from pg_catalog.pg_available_extensions a
  left join pg_catalog.pg_available_extension_versions v on v.name = a.name and v.version = a.default_version
  left join pg_catalog.pg_extension e on e.extname = a.name
  left join pg_catalog.pg_namespace n on n.oid = e.extnamespace
 where a.name = any ($1::text[]);
