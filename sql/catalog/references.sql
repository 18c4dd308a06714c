-- What of the user's own refers to a part of the provider's, which stays behind ($1: the schemas of the provider,
-- $2: its roles): one row for each object and each part that it refers to. Names are quoted, within a table with
-- the table's before them, as in schema_*.sql.
--
-- What PostgreSQL records as a dependency is exact. The bodies of functions in PL/pgSQL and in text are searched
-- for names qualified with those schemas; a comment can be taken for a reference there.
with providers (schema) as (
  select unnest($1::text[])
), dependency as (
  select d.classid, d.objid, d.objsubid, d.refclassid, d.refobjid
    from pg_catalog.pg_depend d
   where d.deptype in ('n', 'a')
     and d.refclassid in ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                          'pg_catalog.pg_type'::pg_catalog.regclass)
     and d.classid in ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass,
                       'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass,
                       'pg_catalog.pg_attrdef'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass,
                       'pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_trigger'::pg_catalog.regclass)
), referred as (
  select c.oid, 'pg_catalog.pg_class'::pg_catalog.regclass as class, n.nspname as schema,
         case c.relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end as kind,
         format('%I.%I', n.nspname, c.relname) as name
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join providers p on p.schema = n.nspname
   where c.relkind in ('r', 'p', 'f', 'v', 'm', 'S', 'c')
  union all
  select f.oid, 'pg_catalog.pg_proc'::pg_catalog.regclass, n.nspname, 'function',
         format('%I.%I(%s)', n.nspname, f.proname, pg_catalog.pg_get_function_identity_arguments(f.oid))
    from pg_catalog.pg_proc f
    join pg_catalog.pg_namespace n on n.oid = f.pronamespace
    join providers p on p.schema = n.nspname
  union all
  select t.oid, 'pg_catalog.pg_type'::pg_catalog.regclass, n.nspname, 'type', format('%I.%I', n.nspname, t.typname)
    from pg_catalog.pg_type t
    join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    join providers p on p.schema = n.nspname
), extension as (
  select d.classid, d.objid, e.extname
    from pg_catalog.pg_depend d
    join pg_catalog.pg_extension e
      on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
     and e.oid = d.refobjid
   where d.deptype = 'e'
), dependent as (
  select d.classid, d.objid, d.objsubid,
         -- An extension comes along, wherever it is.
         case when e.extname is null then r.kind else 'extension' end as refers_to_kind,
         coalesce(quote_ident(e.extname), r.name) as refers_to
    from dependency d
    join referred r on r.class = d.refclassid and r.oid = d.refobjid
    left join extension e on e.classid = d.refclassid and e.objid = d.refobjid
  union
  select s.classid, s.objid, s.objsubid, 'role', quote_ident(r.rolname)
    from pg_catalog.pg_shdepend s
    join pg_catalog.pg_roles r on s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and r.oid = s.refobjid
   where s.dbid = (select oid from pg_catalog.pg_database where datname = current_database())
     and s.deptype = 'r'
     and s.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
     and r.rolname = any ($2::text[])
), named as (
  select distinct
         case when o.type = 'trigger' and d.refers_to like 'supabase\_functions.http\_request(%' then 'webhook'
              when o.type = 'rule' then case c.relkind when 'm' then 'materialized view' when 'v' then 'view' else 'rule' end
              when o.type = 'table constraint' then case k.contype when 'f' then 'foreign key' else 'constraint' end
              when o.type = 'default value' then 'default'
              when o.type in ('table column', 'composite type column') then 'column'
              else o.type end as kind,
         a.object_names[1] as schema,
         case
           when o.type in ('function', 'procedure', 'aggregate') then
             (select format('%I.%I(%s)', a.object_names[1], f.proname, pg_catalog.pg_get_function_identity_arguments(f.oid))
                from pg_catalog.pg_proc f
               where f.oid = d.objid)
           else (select string_agg(quote_ident(part), '.' order by place)
                   from unnest(a.object_names) with ordinality as n (part, place)
                  where part <> '_RETURN')
         end as name,
         case when cardinality(a.object_names) > 2 and o.type <> 'rule' or c.relkind in ('r', 'p')
              then a.object_names[1:2] end as table_name,
         d.refers_to_kind,
         d.refers_to
    from dependent d
   cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid) as o
   cross join lateral pg_catalog.pg_identify_object_as_address(d.classid, d.objid, d.objsubid) as a
    left join pg_catalog.pg_rewrite w on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and w.oid = d.objid
    left join pg_catalog.pg_class c on c.oid = w.ev_class
    left join pg_catalog.pg_constraint k
      on d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and k.oid = d.objid
   where o.type not in ('view column', 'materialized view column', 'index column')
     and not exists (select from extension e where e.classid = d.classid and e.objid = d.objid)
  union
  select case f.prokind when 'p' then 'procedure' else 'function' end,
         n.nspname,
         format('%I.%I(%s)', n.nspname, f.proname, pg_catalog.pg_get_function_identity_arguments(f.oid)),
         null,
         'name',
         m.found[1] || '.' || m.found[2]
    from pg_catalog.pg_proc f
    join pg_catalog.pg_namespace n on n.oid = f.pronamespace
    join pg_catalog.pg_language l on l.oid = f.prolang and l.lanname not in ('c', 'internal')
   cross join lateral pg_catalog.regexp_matches(
     f.prosrc,
     '(?:^|[^[:alnum:]_."])"?(' || (select string_agg(schema, '|') from providers where schema <> 'extensions')
       || ')"?\s*\.\s*"?([[:alpha:]_][[:alnum:]_]*)', 'g') as m (found)
   where not exists (select
                       from extension e
                      where e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                        and e.objid = f.oid)
  union
  -- Whoever listens to Supabase Realtime hears of these tables.
  select 'table', t.schemaname, format('%I.%I', t.schemaname, t.tablename), array[t.schemaname, t.tablename]::text[],
         'publication', quote_ident(t.pubname)
    from pg_catalog.pg_publication_tables t
   where t.pubname like 'supabase\_realtime%'
  union
  select 'grants', 'public', format('%s objects', count(*)), null, 'role', quote_ident(r.rolname)
    from pg_catalog.pg_shdepend s
    join pg_catalog.pg_roles r on s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and r.oid = s.refobjid
   cross join lateral pg_catalog.pg_identify_object(s.classid, s.objid, 0) as o
   where s.dbid = (select oid from pg_catalog.pg_database where datname = current_database())
     and s.deptype = 'a'
     and r.rolname = any ($2::text[])
     and not exists (select from providers p where p.schema = coalesce(o.schema, o.name))
   group by r.rolname
)
select n.kind,
       n.name,
       n.table_name,
       n.refers_to_kind,
       n.refers_to
  from named n
 where n.schema not in ('pg_catalog', 'information_schema', 'pg_toast', 'cdc')
   and not exists (select from providers p where p.schema = n.schema)
 order by n.kind = 'grants', n.schema, coalesce(n.table_name[2], n.name), n.kind, n.name, n.refers_to;
