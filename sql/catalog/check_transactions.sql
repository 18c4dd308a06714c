-- Transactions that have written, and so hold back the making of a slot, and every snapshot of the copy:
-- those of sessions but our own ($1: how their application names begin), and prepared ones. A role that may
-- not see another one's sessions has no times.
select a.backend_xid::text as xid,
       a.pid,
       null::text as gid,
       a.usename::text as role,
       a.datname::text as database,
       a.application_name as application,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as age,
       to_char(a.query_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') as query_start
  from pg_catalog.pg_stat_activity a
 where a.backend_xid is not null
   and a.pid <> pg_catalog.pg_backend_pid()
   and not starts_with(a.application_name, $1)
union all
select p.transaction::text,
       null,
       p.gid,
       p.owner::text,
       p.database::text,
       null,
       extract(epoch from clock_timestamp() - p.prepared)::float8,
       null
  from pg_catalog.pg_prepared_xacts p
 order by 7 desc nulls last, 1;
