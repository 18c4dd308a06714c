-- What the generators share. All of it is a function of its arguments: the same scale gives the same rows.
-- The scale is the setting demo.scale.

CREATE OR REPLACE FUNCTION pg_temp.scale() RETURNS integer LANGUAGE sql STABLE AS
    $$ SELECT current_setting('demo.scale')::integer $$;

-- A number from 0 to n - 1.
CREATE OR REPLACE FUNCTION pg_temp.dice(i bigint, salt integer, n integer) RETURNS integer LANGUAGE sql IMMUTABLE AS
    $$ SELECT ((hashint8extended(i, salt) & 2147483647) % n)::integer $$;

-- True once in n times.
CREATE OR REPLACE FUNCTION pg_temp.rarely(i bigint, salt integer, n integer) RETURNS boolean LANGUAGE sql IMMUTABLE AS
    $$ SELECT (hashint8extended(i, salt) & 2147483647) % n = 0 $$;

CREATE OR REPLACE FUNCTION pg_temp.key(i bigint, salt integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT md5(salt || '/' || i)::uuid $$;

-- A moment of the seven months before May 2026.
CREATE OR REPLACE FUNCTION pg_temp.moment(i bigint, salt integer) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
    $$ SELECT to_timestamp(1759276800 + pg_temp.dice(i, salt, 18230400) * 1.000217) $$;

-- Short texts with everything in them that scripts have broken on.
CREATE OR REPLACE FUNCTION pg_temp.phrase(i bigint, salt integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY[
        'Запишите меня на завтра в 15:00', 'haircut & colour', 'O''Brien said "hello"', E'two\nlines, one\ttab',
        'C:\new\table', '', ' ', 'NULL', '\N', '\.', '{a,"b",NULL}', '{"json": "in a text"}', '日本語 テスト',
        'emoji 💇‍♀️ 👍🏽 🇩🇪', 'naïve café — “quotes”', '100% $1 :name ?', E'bell\x07 and \x7F', 'Ёлка №5; -- drop',
        'يوم الجمعة', 'e' || U&'\0301' || ' combining', '''', '"', '\\', '$1 or $x'
    ])[1 + pg_temp.dice(i, salt, 24)]
$$;

CREATE OR REPLACE FUNCTION pg_temp.person(i bigint, salt integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT (ARRAY['Анна', 'Мария', 'Olena', 'Zoë', 'Ingeborg', 'Łucja', 'Björk', 'Наталья', 'Chloé', 'D''Arcy'])
                [1 + pg_temp.dice(i, salt, 10)] || ' ' ||
           (ARRAY['Иванова', 'Smith', 'O''Neill', 'Müller-Lüdenscheidt', 'Ковальчук', 'de la Cruz', 'Ng', 'Ążewska'])
                [1 + pg_temp.dice(i, salt + 1, 8)]
$$;

-- Text that doesn't compress, so that it is stored out of line from about 2 kB on.
CREATE OR REPLACE FUNCTION pg_temp.noise(i bigint, salt integer, bytes integer) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(string_agg(encode(sha256(convert_to(salt || '/' || i || '/' || k, 'UTF8')), 'base64'), ''), bytes)
      FROM generate_series(0, bytes / 44) k
$$;

CREATE OR REPLACE FUNCTION pg_temp.floats(i bigint, salt integer, n integer) RETURNS real[] LANGUAGE sql IMMUTABLE AS $$
    SELECT array_agg((pg_temp.dice(i * 1024 + k, salt, 2000001) - 1000000) / 1000000.0::real ORDER BY k)
      FROM generate_series(1, n) k
$$;

-- Sets the sequences behind the columns of all tables to the highest value there is.
CREATE OR REPLACE FUNCTION pg_temp.advance_sequences() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    c record;
    highest bigint;
BEGIN
    FOR c IN
        SELECT attrelid::regclass AS tab, attname, pg_get_serial_sequence(attrelid::regclass::text, attname) AS seq
          FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
           AND attnum > 0 AND NOT attisdropped
    LOOP
        IF c.seq IS NOT NULL THEN
            EXECUTE format('SELECT max(%I) FROM %s', c.attname, c.tab) INTO highest;
            PERFORM setval(c.seq, coalesce(highest, 1), highest IS NOT NULL);
        END IF;
    END LOOP;
END $$;
