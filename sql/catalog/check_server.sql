-- What a server is, and what it has left for us: one row. The same on both sides.
--
-- A setting is what a session of this role in this database gets by default (`reset_val`), as our own
-- sessions set some of them. Sessions and walsenders are counted in views that everybody may read.
select current_setting('server_version_num')::int as version_num,
       split_part(current_setting('server_version'), ' ', 1) as version,
       pg_catalog.pg_is_in_recovery() as is_standby,
       extract(epoch from pg_catalog.clock_timestamp())::float8 as clock,
       coalesce((select s.ssl from pg_catalog.pg_stat_ssl s where s.pid = pg_catalog.pg_backend_pid()), false) as is_encrypted,
       d.datname::text as database,
       r.rolname::text as role,
       r.rolsuper as is_superuser,
       r.rolsuper or r.rolreplication as can_replicate,
       pg_catalog.has_database_privilege(d.oid, 'CREATE') as can_create,
       current_setting('wal_level') as wal_level,
       current_setting('fsync')::bool as fsync,
       current_setting('transaction_read_only')::bool as is_read_only,
       (select reset_val = 'on' from pg_catalog.pg_settings where name = 'default_transaction_read_only') as is_read_only_by_default,
       (select setting::bigint from pg_catalog.pg_settings where name = 'wal_sender_timeout') as wal_sender_timeout_ms,
       -- In megabytes; -1 is no limit.
       (select setting::bigint from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size') as slot_keep_mb,
       -- From 18 on.
       coalesce(current_setting('idle_replication_slot_timeout', true), '0') as idle_slot_timeout,
       current_setting('max_replication_slots')::bigint as slots,
       current_setting('max_replication_slots')::bigint
       - (select count(*) from pg_catalog.pg_replication_slots) as slots_free,
       current_setting('max_wal_senders')::bigint as walsenders,
       current_setting('max_wal_senders')::bigint - w.used as walsenders_free,
       current_setting('max_connections')::bigint as connections,
       least(current_setting('max_connections')::bigint
             - case
                 when r.rolsuper then 0
                 else current_setting('superuser_reserved_connections')::bigint
                      + coalesce(current_setting('reserved_connections', true)::bigint, 0)
               end
             - (a.all_used - w.used),
             case when d.datconnlimit >= 0 and not r.rolsuper then d.datconnlimit - a.of_database end,
             case when r.rolconnlimit >= 0 and not r.rolsuper then r.rolconnlimit - a.of_role end) as connections_free,
       pg_catalog.pg_encoding_to_char(d.encoding)::text as encoding,
       d.datcollate::text as "collate",
       d.datctype::text as ctype,
       coalesce(to_jsonb(d) ->> 'datlocprovider', 'c') as locale_provider,
       -- Named `daticulocale` before 17.
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') as locale
  from pg_catalog.pg_database d
  join pg_catalog.pg_roles r on r.rolname = current_user
 cross join (select count(*) as used from pg_catalog.pg_stat_replication) as w
 cross join lateral (select count(*) as all_used,
                            count(*) filter (where s.datid = d.oid) as of_database,
                            count(*) filter (where s.usesysid = r.oid) as of_role
                       from pg_catalog.pg_stat_activity s
                      where s.datid is not null) as a
 where d.datname = current_database();
