-- The tables that a fence around these ($1: schemas, $2: names) needs a trigger on, as a statement's triggers are those
-- of the table that it names: the tables, their partitions and whatever inherits from them, and their parents; with
-- how the trigger $3 is switched, null if there is none.
with recursive given as (
  select c.oid
    from unnest($1::text[], $2::text[]) as g (schema_name, table_name)
    join pg_catalog.pg_namespace n on n.nspname = g.schema_name
    join pg_catalog.pg_class c on c.relnamespace = n.oid and c.relname = g.table_name
), up as (
  select oid from given
   union
  select i.inhparent from up join pg_catalog.pg_inherits i on i.inhrelid = up.oid
), down as (
  select oid from given
   union
  select i.inhrelid from down join pg_catalog.pg_inherits i on i.inhparent = down.oid
)
select c.oid,
       n.nspname::text as schema_name,
       c.relname::text as table_name,
       (select t.tgenabled::text from pg_catalog.pg_trigger t where t.tgrelid = c.oid and t.tgname = $3) as trigger,
       case
         when not pg_catalog.pg_has_role(c.relowner, 'USAGE')
         then format('GRANT %I TO %I', pg_catalog.pg_get_userbyid(c.relowner), current_user)
       end as lacks
  from (select oid from up union select oid from down) as a
  join pg_catalog.pg_class c on c.oid = a.oid and c.relkind in ('r', 'p')
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
 order by 2, 3;
