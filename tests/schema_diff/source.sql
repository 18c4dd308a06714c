-- What is changed on the source only.
ALTER TYPE mood ADD VALUE 'first' BEFORE 'sad';
ALTER TYPE mood ADD VALUE 'be''tween' AFTER 'sad';
ALTER TYPE mood ADD VALUE 'last';
ALTER TYPE unused ADD ATTRIBUTE "z, z" numeric(4, 2);
ALTER TABLE cols ALTER g DROP EXPRESSION;
CREATE OR REPLACE VIEW young AS
    SELECT name, max(years) AS years, count(*) FILTER (WHERE serial > 3), min(serial) AS least FROM people WHERE years < 20 GROUP BY name;

DO $$ BEGIN CREATE ROLE "Only there" NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
GRANT SELECT ON keyless TO "Only there";
GRANT DELETE ON people TO reader;
GRANT SELECT (years) ON people TO reader;
REVOKE ALL ON FUNCTION put() FROM PUBLIC;
