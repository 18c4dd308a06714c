-- What is granted on the schemas $1 and on what is in them; see schema_extensions.sql for the columns.
--
-- One row an object (or column) and role. What an object's owner may do is one too, so that a role which owns the
-- object on the other database lacks nothing there. Objects without a list of grants have those that CREATE gives.
with relations as (
  select c.oid, c.relname, n.nspname, c.relowner, c.relacl, c.relkind, format('%I.%I', n.nspname, c.relname) as name,
         case when c.relkind <> 'S' then array[n.nspname, c.relname]::text[] end as table_name
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where n.nspname = any ($1::text[])
     and c.relkind in ('r', 'p', 'v', 'm', 'S')
     and c.relpersistence <> 't'
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                        and d.objid = c.oid
                        and d.deptype = 'e')
), granted (kind, on_what, table_name, owner, acl) as (
  select 'SCHEMA ', quote_ident(n.nspname), null::text[], n.nspowner,
         coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))
    from pg_catalog.pg_namespace n
   where n.nspname = any ($1::text[])
  union all
  select case c.relkind when 'S' then 'SEQUENCE ' else '' end, c.name, c.table_name, c.relowner,
         coalesce(c.relacl, pg_catalog.acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner))
    from relations c
  union all
  select '(' || quote_ident(a.attname) || ') ', c.name, c.table_name, c.relowner, a.attacl
    from relations c
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attacl is not null
  union all
  select case p.prokind when 'p' then 'PROCEDURE ' else 'FUNCTION ' end,
         format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), null, p.proowner,
         coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
   where n.nspname = any ($1::text[])
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                        and d.objid = p.oid
                        and d.deptype in ('e', 'i'))
  union all
  select case t.typtype when 'd' then 'DOMAIN ' else 'TYPE ' end, format('%I.%I', n.nspname, t.typname), null, t.typowner,
         coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
    from pg_catalog.pg_type t
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    left join pg_catalog.pg_class c on c.oid = t.typrelid
   where n.nspname = any ($1::text[])
     and (t.typtype in ('e', 'd', 'r') or c.relkind = 'c')
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass
                        and d.objid = t.oid
                        and d.deptype = 'e')
), privileges as (
  select g.kind, g.on_what, g.table_name, x.grantee, x.grantee = g.owner as is_owner,
         case x.grantee when 0 then 'PUBLIC' else quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) end as role,
         x.is_grantable, x.privilege_type
    from granted g
   cross join lateral (select e.grantee, e.privilege_type, bool_or(e.is_grantable) as is_grantable
                         from pg_catalog.aclexplode(g.acl) as e
                        -- 17 has one more, which no older server takes.
                        where e.privilege_type <> 'MAINTAIN'
                          -- Everybody could create something in it before 15.
                          and not (g.kind = 'SCHEMA ' and g.on_what = 'public' and e.grantee = 0)
                        group by e.grantee, e.privilege_type) as x
  union all
  -- What CREATE has given to everybody was taken back.
  select g.kind, g.on_what, g.table_name, 0, false, 'PUBLIC', false, null
    from granted g
   where g.kind ~ '^(FUNCTION|PROCEDURE|TYPE|DOMAIN)'
     and not exists (select from pg_catalog.aclexplode(g.acl) as e where e.grantee = 0)
)
select 'grant' as kind,
       concat(p.kind, p.on_what, ' TO ', p.role) as name,
       p.table_name,
       p.grantee as oid,
       jsonb_strip_nulls(jsonb_build_object(
         'privileges', string_agg(p.privilege_type, ', ' order by p.privilege_type) filter (where not p.is_grantable),
         'with grant option', string_agg(p.privilege_type, ', ' order by p.privilege_type) filter (where p.is_grantable),
         'on', p.kind || p.on_what,
         'role', p.role,
         -- CREATE gives it to everybody.
         'by itself', case when p.grantee = 0 and p.kind ~ '^(FUNCTION|PROCEDURE|TYPE|DOMAIN)' and count(p.privilege_type) > 0
                           then 'yes' end,
         'owner', case when p.is_owner then 'yes' end)) as facets,
       array_remove(array[
         case when count(p.privilege_type) = 0 then concat('REVOKE ALL ON ', p.kind, p.on_what, ' FROM ', p.role) end,
         'GRANT ' || string_agg(p.privilege_type || case when p.kind like '(%' then ' ' || rtrim(p.kind) else '' end, ', '
                                order by p.privilege_type) filter (where not p.is_grantable)
           || concat(' ON ', case when p.kind not like '(%' then p.kind end, p.on_what, ' TO ', p.role),
         'GRANT ' || string_agg(p.privilege_type || case when p.kind like '(%' then ' ' || rtrim(p.kind) else '' end, ', '
                                order by p.privilege_type) filter (where p.is_grantable)
           || concat(' ON ', case when p.kind not like '(%' then p.kind end, p.on_what, ' TO ', p.role, ' WITH GRANT OPTION')
       ], null) as make,
       concat('REVOKE ALL ', case when p.kind like '(%' then p.kind end, 'ON ', case when p.kind not like '(%' then p.kind end,
              p.on_what, ' FROM ', p.role) as take
  from privileges p
 group by p.kind, p.on_what, p.table_name, p.grantee, p.is_owner, p.role
