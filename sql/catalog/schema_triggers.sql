-- The triggers, rules and policies of the tables and views of the schemas $1; see schema_extensions.sql for the
-- columns.
with own as (
  select c.oid, c.relname, n.nspname, format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where n.nspname = any ($1::text[])
     and c.relkind in ('r', 'p', 'v', 'm')
     and c.relpersistence <> 't'
), firing (state, sql) as (
  values ('O', 'ENABLE'), ('D', 'DISABLE'), ('R', 'ENABLE REPLICA'), ('A', 'ENABLE ALWAYS')
)
select 'trigger' as kind,
       format('%s.%I', c.name, t.tgname) as name,
       array[c.nspname, c.relname]::text[] as table_name,
       t.oid,
       jsonb_build_object('definition', pg_catalog.pg_get_triggerdef(t.oid), 'fires', f.sql) as facets,
       case
         -- A partition has it from its parent.
         when t.tgparentid <> 0 then null
         else array[pg_catalog.pg_get_triggerdef(t.oid)]
              || case when f.state = 'O' then '{}' else array[format('ALTER TABLE %s %s TRIGGER %I', c.name, f.sql, t.tgname)] end
       end as make,
       format('DROP TRIGGER %I ON %s', t.tgname, c.name) as take
  from own c
  join pg_catalog.pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
  join firing f on f.state = t.tgenabled::text
  join pg_catalog.pg_proc p on p.oid = t.tgfoid
  join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
 where pn.nspname <> 'cdc'
union all
select 'rule',
       format('%s.%I', c.name, r.rulename),
       array[c.nspname, c.relname]::text[],
       r.oid,
       jsonb_build_object('definition', rtrim(pg_catalog.pg_get_ruledef(r.oid), ';'), 'fires', f.sql),
       array[rtrim(pg_catalog.pg_get_ruledef(r.oid), ';')]
         || case when f.state = 'O' then '{}' else array[format('ALTER TABLE %s %s RULE %I', c.name, f.sql, r.rulename)] end,
       format('DROP RULE %I ON %s', r.rulename, c.name)
  from own c
  join pg_catalog.pg_rewrite r on r.ev_class = c.oid and r.rulename <> '_RETURN'
  join firing f on f.state = r.ev_enabled::text
union all
select 'policy',
       format('%s.%I', c.name, p.polname),
       array[c.nspname, c.relname]::text[],
       p.oid,
       jsonb_build_object('definition', d.definition),
       array[format('CREATE POLICY %I ON %s %s', p.polname, c.name, d.definition)],
       format('DROP POLICY %I ON %s', p.polname, c.name)
  from own c
  join pg_catalog.pg_policy p on p.polrelid = c.oid
 cross join lateral (
   select concat_ws(' ',
            case when p.polpermissive then 'AS PERMISSIVE' else 'AS RESTRICTIVE' end,
            case p.polcmd when 'r' then 'FOR SELECT' when 'a' then 'FOR INSERT' when 'w' then 'FOR UPDATE'
                          when 'd' then 'FOR DELETE' else 'FOR ALL' end,
            'TO ' || (select string_agg(case o.role when 0 then 'PUBLIC' else quote_ident(pg_catalog.pg_get_userbyid(o.role)) end,
                                        ', ' order by o.role <> 0, pg_catalog.pg_get_userbyid(o.role) collate "C")
                        from unnest(p.polroles) as o (role)),
            'USING (' || pg_catalog.pg_get_expr(p.polqual, c.oid) || ')',
            'WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, c.oid) || ')') as definition) as d;
