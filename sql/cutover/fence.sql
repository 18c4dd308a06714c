-- What a fence is made of, in the database that it fences.

create schema if not exists cdc;

-- One row for each migration that has fences here; whoever changes the triggers changes it in the same transaction.
create table if not exists cdc.fence (
  name       text primary key,
  -- Who has changed it last; nobody of an earlier term may change it any more.
  term       bigint not null,
  -- 'closed': nobody may write. 'watched': everybody may, and that somebody does is noted.
  state      text not null default 'open' check (state in ('open', 'closed', 'watched')),
  -- The switch that it was made ready for last (cdc.cutover.id), and whether it was closed then: the applications had
  -- left this database before.
  switch     bigint not null,
  was_closed boolean not null default false,
  -- What cdc.written was when the watch began.
  written    bigint not null default 0,
  -- We have made read-only the default of this database.
  read_only  boolean not null default false,
  changed_at timestamptz not null default pg_catalog.clock_timestamp()
);

-- Counts the statements that were seen by a watch, whether their transactions are committed or not.
create sequence if not exists cdc.written;
