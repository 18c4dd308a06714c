-- Where on the target the source's tables go, and whether we could work there.
--
-- $1, $2: schema and name of each table; $3, $4: those of its topmost parent (itself if it is no partition);
-- $5: its columns as a JSON array. `is_there` and `root_is_there` are about tables; `other_kind` is what else
-- has the name. The rest is about the table, or the parent that takes its rows.
with wanted as (
  select *
    from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
         as w (schema, name, root_schema, root_name, columns)
), found as (
  select w.*,
         t.oid as own,
         r.oid as root,
         coalesce(t.oid, r.oid) as oid,
         (select x.relkind::text
            from pg_catalog.pg_class x
            join pg_catalog.pg_namespace xn on xn.oid = x.relnamespace
           where xn.nspname = w.schema and x.relname = w.name and x.relkind not in ('r', 'p')) as other_kind
    from wanted w
    left join (pg_catalog.pg_class t join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace)
           on tn.nspname = w.schema and t.relname = w.name and t.relkind in ('r', 'p')
    left join (pg_catalog.pg_class r join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace)
           on rn.nspname = w.root_schema and r.relname = w.root_name and r.relkind in ('r', 'p')
)
select f.schema,
       f.name,
       f.own is not null as is_there,
       f.root is not null as root_is_there,
       f.other_kind,
       coalesce(pg_catalog.pg_has_role(c.relowner, 'USAGE'), false) as is_owner,
       coalesce(quote_ident(o.rolname), '') as owner,
       array(select p
               from unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) as p
              where not pg_catalog.has_table_privilege(c.oid, p)) as lacking,
       coalesce(pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE'), true) as has_usage,
       coalesce(pg_catalog.row_security_active(c.oid), false) as is_hidden_by_policies,
       coalesce(c.relpersistence = 'u', false) as is_unlogged,
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bounds,
       -- What is taken off the table while rows are copied.
       exists (select
                 from pg_catalog.pg_index i
                where i.indrelid = c.oid and (i.indisunique and not i.indisprimary or i.indisexclusion)) as has_unique,
       exists (select
                 from pg_catalog.pg_constraint k
                where k.conrelid = c.oid and k.contype = 'f') as has_foreign_keys,
       exists (select
                 from pg_catalog.pg_trigger t
                where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled = 'O') as has_triggers,
       array(select format('%s %I', x.kind, x.name)
               from (select 'trigger' as kind, t.tgname as name
                       from pg_catalog.pg_trigger t
                      where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled in ('A', 'R')
                      union all
                     select 'rule', w.rulename
                       from pg_catalog.pg_rewrite w
                      where w.ev_class = c.oid and w.ev_enabled in ('A', 'R')) as x
              order by 1) as firing,
       array(select a.attname::text
               from pg_catalog.pg_attribute a
              where a.attrelid = c.oid
                and not a.attisdropped
                and a.attgenerated <> ''
                and f.columns::jsonb ? a.attname::text
              order by a.attnum) as generated,
       -- Foreign keys of tables that are not replicated, which keep this one from being emptied.
       array(select k.conrelid::pg_catalog.regclass::text
               from pg_catalog.pg_constraint k
              where k.confrelid = c.oid
                and k.contype = 'f'
                and k.conrelid <> all (select x.oid from found x where x.oid is not null)
              order by 1) as referenced_by,
       array(select s.subname::text
               from pg_catalog.pg_subscription_rel l
               join pg_catalog.pg_subscription s on s.oid = l.srsubid
              where l.srrelid = c.oid
              order by 1) as subscriptions
  from found f
  left join (pg_catalog.pg_class c
             join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             join pg_catalog.pg_roles o on o.oid = c.relowner) on c.oid = f.oid
 order by 1, 2;
