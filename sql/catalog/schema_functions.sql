-- The functions, procedures and aggregates of the schemas $1; see schema_extensions.sql for the columns.
with own as (
  select p.*, format('%I.%I', n.nspname, p.proname) as plain_name,
         format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)) as name,
         -- Its signature or its body names a table, so that it can't be made before that.
         exists (select
                   from pg_catalog.pg_depend d
                   left join pg_catalog.pg_type t on d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass and t.oid = d.refobjid
                   left join pg_catalog.pg_type e on e.oid = t.typelem
                   join pg_catalog.pg_class c
                     on c.relkind <> 'c'
                    and c.oid = case d.refclassid
                                  when 'pg_catalog.pg_class'::pg_catalog.regclass then d.refobjid
                                  else coalesce(nullif(t.typrelid, 0), e.typrelid)
                                end
                  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                    and d.objid = p.oid) as names_a_table
    from pg_catalog.pg_proc p
    join pg_catalog.pg_namespace n on n.oid = p.pronamespace
   where n.nspname = any ($1::text[])
     and not exists (select
                       from pg_catalog.pg_depend d
                      where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
                        and d.objid = p.oid
                        -- 'i': the constructors of a range type.
                        and d.deptype in ('e', 'i'))
), aggregates as (
  select p.oid,
         concat_ws(', ',
           'SFUNC = ' || a.aggtransfn::text,
           'STYPE = ' || pg_catalog.format_type(a.aggtranstype, null),
           'SSPACE = ' || nullif(a.aggtransspace, 0),
           'FINALFUNC = ' || nullif(a.aggfinalfn, 0)::pg_catalog.regproc::text,
           case when a.aggfinalextra then 'FINALFUNC_EXTRA' end,
           'COMBINEFUNC = ' || nullif(a.aggcombinefn, 0)::pg_catalog.regproc::text,
           'SERIALFUNC = ' || nullif(a.aggserialfn, 0)::pg_catalog.regproc::text,
           'DESERIALFUNC = ' || nullif(a.aggdeserialfn, 0)::pg_catalog.regproc::text,
           'INITCOND = ' || quote_literal(a.agginitval),
           'MSFUNC = ' || nullif(a.aggmtransfn, 0)::pg_catalog.regproc::text,
           'MINVFUNC = ' || nullif(a.aggminvtransfn, 0)::pg_catalog.regproc::text,
           'MSTYPE = ' || pg_catalog.format_type(nullif(a.aggmtranstype, 0), null),
           'MFINALFUNC = ' || nullif(a.aggmfinalfn, 0)::pg_catalog.regproc::text,
           'MINITCOND = ' || quote_literal(a.aggminitval),
           (select format('SORTOP = OPERATOR(%I.%s)', o.nspname, s.oprname)
              from pg_catalog.pg_operator s
              join pg_catalog.pg_namespace o on o.oid = s.oprnamespace
             where s.oid = a.aggsortop),
           case p.proparallel when 's' then 'PARALLEL = SAFE' when 'r' then 'PARALLEL = RESTRICTED' end,
           case a.aggkind when 'h' then 'HYPOTHETICAL' end) as definition
    from own p
    join pg_catalog.pg_aggregate a on a.aggfnoid = p.oid
)
select case p.prokind when 'p' then 'procedure' else 'function' end as kind,
       p.name,
       null::text[] as table_name,
       p.oid,
       jsonb_strip_nulls(jsonb_build_object(
         'definition', pg_catalog.pg_get_functiondef(p.oid),
         -- What CREATE OR REPLACE can't change.
         'signature', concat_ws(' ', p.prokind, pg_catalog.pg_get_function_arguments(p.oid),
                                'RETURNS ' || pg_catalog.pg_get_function_result(p.oid)),
         'names a table', case when p.names_a_table then 'yes' end)) as facets,
       -- What its body names is looked for when it is called.
       array['SET check_function_bodies = off', rtrim(pg_catalog.pg_get_functiondef(p.oid), E'\n')] as make,
       format('DROP %s %s', case p.prokind when 'p' then 'PROCEDURE' else 'FUNCTION' end, p.name) as take
  from own p
 where p.prokind <> 'a'
union all
select 'aggregate',
       p.name,
       null,
       p.oid,
       jsonb_build_object('definition', a.definition),
       array[format('CREATE AGGREGATE %s(%s) (%s)', p.plain_name, pg_catalog.pg_get_function_arguments(p.oid),
                    a.definition)],
       format('DROP AGGREGATE %s', p.name)
  from own p
  join aggregates a on a.oid = p.oid;
