-- A target's schema as somebody may have made it by hand: every mark that an index or a constraint can
-- carry. The key of each table is `id`, of the partitioned ones `(id, day)`.
CREATE EXTENSION btree_gist;
CREATE COLLATION public.german (provider = icu, locale = 'de-u-ks-level1', deterministic = false);
CREATE SCHEMA "Odd.""one";

CREATE TABLE "Odd.""one"."Par ent" (
    id int PRIMARY KEY,
    "Co)de" text NOT NULL,
    a int NOT NULL, b int, c text, during tstzrange,
    CONSTRAINT "Code; is 'unique'" UNIQUE ("Co)de") WITH (fillfactor = 60),
    CONSTRAINT pair UNIQUE NULLS NOT DISTINCT (a, b) INCLUDE (c) WITH (deduplicate_items = off) DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT late UNIQUE (b) DEFERRABLE,
    CONSTRAINT apart EXCLUDE USING gist (a WITH =, during WITH &&) WITH (fillfactor = 50, buffering = on)
      WHERE (b > 0) DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX just_an_index ON "Odd.""one"."Par ent" (b);
CREATE UNIQUE INDEX partial ON "Odd.""one"."Par ent" (id) WHERE b IS NULL;
CREATE UNIQUE INDEX expressions ON "Odd.""one"."Par ent" (lower(c) DESC NULLS LAST, (a + 1), "Co)de" COLLATE public.german);
ALTER INDEX "Odd.""one".expressions ALTER COLUMN 1 SET STATISTICS 123;
ALTER INDEX "Odd.""one".expressions ALTER COLUMN 2 SET STATISTICS 0;
ALTER INDEX "Odd.""one".expressions DEPENDS ON EXTENSION btree_gist;
CREATE UNIQUE INDEX placed ON "Odd.""one"."Par ent" (c, a) NULLS NOT DISTINCT WITH (fillfactor = 70) TABLESPACE elsewhere WHERE c <> 'CREATE UNIQUE INDEX placed ON ONLY';
CREATE UNIQUE INDEX many ON "Odd.""one"."Par ent" USING btree (c varchar_pattern_ops, b NULLS FIRST) INCLUDE (a);
CREATE UNIQUE INDEX also_the_key ON "Odd.""one"."Par ent" (id DESC) INCLUDE (a);
COMMENT ON CONSTRAINT "Code; is 'unique'" ON "Odd.""one"."Par ent" IS E'it''s; a \\ comment $$ on\n a constraint';
COMMENT ON INDEX "Odd.""one"."Code; is 'unique'" IS 'a comment on its index';
COMMENT ON CONSTRAINT apart ON "Odd.""one"."Par ent" IS 'apart';
COMMENT ON INDEX "Odd.""one".apart IS 'also apart';
COMMENT ON INDEX "Odd.""one".placed IS 'placed';
ALTER TABLE "Odd.""one"."Par ent" CLUSTER ON many;
ALTER TABLE "Odd.""one"."Par ent" REPLICA IDENTITY USING INDEX "Code; is 'unique'";

-- The primary key is not the key: it goes.
CREATE TABLE other_key (
    number int CONSTRAINT "the primary one" PRIMARY KEY DEFERRABLE,
    id int NOT NULL UNIQUE
) TABLESPACE elsewhere;
CREATE TABLE third_key (number int PRIMARY KEY USING INDEX TABLESPACE elsewhere, id int NOT NULL UNIQUE);
ALTER TABLE third_key CLUSTER ON third_key_pkey;

-- Not replicated, but it refers to what goes; and inherits from a table that does the same.
CREATE TABLE bystander (code text REFERENCES "Odd.""one"."Par ent" ("Co)de"), number int, parent int REFERENCES "Odd.""one"."Par ent");
CREATE TABLE bystander_heir () INHERITS (bystander);
ALTER TABLE bystander_heir ADD CONSTRAINT of_heir FOREIGN KEY (number) REFERENCES third_key;
ALTER TABLE bystander ADD CONSTRAINT to_third FOREIGN KEY (number) REFERENCES third_key NOT VALID;

-- A foreign key can refer to a mere unique index.
CREATE UNIQUE INDEX code_and_id ON "Odd.""one"."Par ent" ("Co)de", id);

CREATE TABLE child (
    id int PRIMARY KEY, parent int, code text, self int, third int,
    CONSTRAINT "to parent" FOREIGN KEY (parent) REFERENCES "Odd.""one"."Par ent" ON DELETE SET NULL (parent) ON UPDATE CASCADE
      DEFERRABLE INITIALLY DEFERRED,
    CONSTRAINT to_code FOREIGN KEY (code, parent) REFERENCES "Odd.""one"."Par ent" ("Co)de", id) MATCH FULL
);
ALTER TABLE child ADD CONSTRAINT itself FOREIGN KEY (self) REFERENCES child NOT VALID;
ALTER TABLE child ADD CONSTRAINT itself_too FOREIGN KEY (self) REFERENCES child DEFERRABLE;
ALTER TABLE child ADD CONSTRAINT off FOREIGN KEY (third) REFERENCES third_key;
COMMENT ON CONSTRAINT "to parent" ON child IS 'to its parent';
COMMENT ON CONSTRAINT itself ON child IS 'not valid';
ALTER TABLE child ENABLE ROW LEVEL SECURITY;
ALTER TABLE child FORCE ROW LEVEL SECURITY;
CREATE VIEW grouped AS SELECT id, code FROM child GROUP BY id;
-- The triggers of the foreign key `off`: the one that checks is off, one of the others is always on.
DO $$
DECLARE
    t record;
BEGIN
    FOR t IN
        SELECT g.tgname, g.tgrelid::regclass AS relation, g.tgfoid::regproc::text AS function
          FROM pg_trigger g JOIN pg_constraint k ON k.oid = g.tgconstraint WHERE k.conname = 'off'
    LOOP
        IF t.function LIKE '%check_ins%' THEN
            EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', t.relation, t.tgname);
        ELSIF t.function LIKE '%noaction_del%' THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.relation, t.tgname);
        END IF;
    END LOOP;
END $$;

-- Partitions of partitions, with names of their own, one of them attached with what it had.
CREATE TABLE event (
    id int, day date NOT NULL, code text, company int NOT NULL, parent_id int, parent_day date,
    CONSTRAINT event_key PRIMARY KEY (id, day)
) PARTITION BY RANGE (day);
CREATE TABLE event_2026 PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01') PARTITION BY LIST (day);
CREATE TABLE event_first PARTITION OF event_2026 FOR VALUES IN ('2026-01-01');
CREATE TABLE event_rest PARTITION OF event_2026 DEFAULT TABLESPACE elsewhere;
CREATE TABLE event_old (id int NOT NULL, day date NOT NULL, code text, company int NOT NULL, parent_id int, parent_day date);
ALTER TABLE event_old ADD CONSTRAINT "old key" PRIMARY KEY (id, day);
CREATE UNIQUE INDEX "old code" ON event_old (code, day) WITH (fillfactor = 40);
ALTER TABLE event_old ADD CONSTRAINT "old pair" UNIQUE (company, day);
CREATE UNIQUE INDEX only_old ON event_old (lower(code));
ALTER TABLE event_old ADD CONSTRAINT "old company" FOREIGN KEY (company) REFERENCES other_key (id);
CREATE UNIQUE INDEX event_code ON event (code, day) WITH (fillfactor = 80);
ALTER TABLE event ADD CONSTRAINT event_pair UNIQUE (company, day) WITH (fillfactor = 30) DEFERRABLE;
CREATE UNIQUE INDEX event_both ON event (day, company, id);
CREATE UNIQUE INDEX event_placed ON event (company, code DESC, day) TABLESPACE elsewhere;
ALTER TABLE event ADD CONSTRAINT event_company FOREIGN KEY (company) REFERENCES other_key (id) ON DELETE CASCADE;
ALTER TABLE event_rest ADD CONSTRAINT rest_third FOREIGN KEY (company) REFERENCES third_key NOT VALID;
ALTER TABLE event ADD CONSTRAINT event_parent FOREIGN KEY (parent_id, parent_day) REFERENCES event;
ALTER TABLE event ATTACH PARTITION event_old FOR VALUES FROM ('2020-01-01') TO ('2026-01-01');
ALTER INDEX event_first_code_day_idx RENAME TO "first; code";
ALTER TABLE event_rest RENAME CONSTRAINT event_rest_company_day_key TO "rest pair";
ALTER TABLE event_first RENAME CONSTRAINT event_company TO "first company";
COMMENT ON INDEX event_2026_code_day_idx IS 'in the middle';
COMMENT ON INDEX "first; code" IS 'a leaf';
COMMENT ON CONSTRAINT "rest pair" ON event_rest IS 'a leaf''s constraint';
COMMENT ON CONSTRAINT event_company ON event_2026 IS 'in the middle';
COMMENT ON CONSTRAINT event_company ON event IS 'at the top';
ALTER TABLE ONLY event REPLICA IDENTITY USING INDEX event_both;
ALTER TABLE event_first CLUSTER ON "first; code";
CREATE TABLE event_note (event_id int, day date, code text,
    FOREIGN KEY (code, day) REFERENCES event (code, day), FOREIGN KEY (event_id, day) REFERENCES event);
COMMENT ON CONSTRAINT event_note_code_day_fkey ON event_note IS 'refers to a partitioned table';
