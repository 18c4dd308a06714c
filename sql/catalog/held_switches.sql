-- What would act on rows that are written to these tables of the target ($1: schemas, $2: names) and to their
-- partitions, and can be switched off: triggers, rules, and row security that holds for the owner, too. A
-- replica's rows ($3) are met only by what is ENABLE ALWAYS or ENABLE REPLICA.
with own as (
  select c.oid, c.relkind
    from unnest($1::text[], $2::text[]) as w (schema_name, table_name)
    join pg_catalog.pg_namespace n on n.nspname = w.schema_name
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = w.table_name
   where c.relkind in ('r', 'p')
), tables as (
  select c.oid,
         n.nspname,
         c.relname,
         format('%I.%I', n.nspname, c.relname) as name,
         c.relrowsecurity and c.relforcerowsecurity as is_forced,
         case
           when not pg_catalog.pg_has_role(c.relowner, 'USAGE')
           then format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(c.relowner), current_user)
         end as lacks
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
   where c.oid in (select oid from own)
      or c.oid in (select p.relid from own o, pg_catalog.pg_partition_tree(o.oid) as p where o.relkind = 'p')
), firing (state, enable) as (
  values ('O', 'ENABLE'), ('R', 'ENABLE REPLICA'), ('A', 'ENABLE ALWAYS')
), switches as (
  -- The parts of a partitioned table's trigger are switched one by one.
  select t.oid as relation,
         g.oid,
         'trigger' as kind,
         g.tgname::text as object_name,
         format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', t.name, g.tgname) as take_off,
         format('ALTER TABLE ONLY %s %s TRIGGER %I', t.name, f.enable, g.tgname) as put_back
    from tables t
    join pg_catalog.pg_trigger g on g.tgrelid = t.oid and not g.tgisinternal
    join firing f on f.state = g.tgenabled::text
    join pg_catalog.pg_proc p on p.oid = g.tgfoid
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
   where n.nspname <> 'cdc'
     and (g.tgenabled <> 'O' or not $3)
  union all
  -- The others are made for SELECT.
  select t.oid,
         r.oid,
         'rule',
         r.rulename::text,
         format('ALTER TABLE %s DISABLE RULE %I', t.name, r.rulename),
         format('ALTER TABLE %s %s RULE %I', t.name, f.enable, r.rulename)
    from tables t
    join pg_catalog.pg_rewrite r on r.ev_class = t.oid and r.ev_type in ('2', '3', '4')
    join firing f on f.state = r.ev_enabled::text
   where r.ev_enabled <> 'O' or not $3
  union all
  -- It would make an error of every statement, as our sessions have row_security = off.
  select t.oid,
         t.oid,
         'setting',
         'FORCE ROW LEVEL SECURITY',
         format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', t.name),
         format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', t.name)
    from tables t
   where t.is_forced
     and not (select rolsuper or rolbypassrls from pg_catalog.pg_roles where rolname = current_user)
)
select s.oid,
       null::oid as parent,
       t.nspname::text as schema_name,
       t.relname::text as table_name,
       s.kind,
       s.object_name,
       null::text as refers_to,
       '' as tablespace,
       null::text as build,
       array[s.put_back] as put_back,
       null::text as validate,
       s.take_off,
       t.lacks
  from switches s
  join tables t on t.oid = s.relation
 order by s.kind, s.relation, s.object_name;
