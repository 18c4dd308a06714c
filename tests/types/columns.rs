//! Tables that are not built alike, and names that have to be quoted.

use super::situation::Situation;

fn list(f: impl Fn(usize) -> String) -> String {
    (1..=300).map(f).collect::<Vec<_>>().join(", ")
}

/// Names with capitals, quotes, spaces, dots, backslashes and letters beyond ASCII; keywords; 62 bytes.
pub fn names() -> Situation {
    let long = "ü".repeat(31);
    let mut situation = Situation::new(
        r#"CREATE SCHEMA "Select"; CREATE SCHEMA "with ""quotes"" and 'these'"; CREATE SCHEMA "a.b";
           CREATE TYPE "a.b"."My Type" AS ENUM ('A a', 'b"b');
           CREATE TABLE "Select"."From" ("Id" int PRIMARY KEY, "where" text, " " text, "a""b" "a.b"."My Type", "ä;--" text);
           CREATE TABLE "with ""quotes"" and 'these'"."t"" 't'" ("x'y" int, "$1" text, "x y" "a.b"."My Type"[]);
           ALTER TABLE "with ""quotes"" and 'these'"."t"" 't'" REPLICA IDENTITY FULL;
           CREATE TABLE "a.b"."c.d" ("e.f" text PRIMARY KEY, "%s" text, "user" int GENERATED ALWAYS AS IDENTITY);
           CREATE TABLE "back\slash" ("\" int PRIMARY KEY, "\n" text);"#,
        r#"INSERT INTO "Select"."From" SELECT i, 'w', ' ', 'b"b', ';' FROM generate_series(1, 9) i;
           INSERT INTO "with ""quotes"" and 'these'"."t"" 't'" SELECT i, 'w', '{"A a"}' FROM generate_series(1, 9) i;
           INSERT INTO "a.b"."c.d" SELECT i, 'w' FROM generate_series(1, 9) i;
           INSERT INTO "back\slash" SELECT i, 'w' FROM generate_series(1, 9) i;"#,
        &[
            r#"UPDATE "Select"."From" SET " " = 'x', "a""b" = 'A a' WHERE "Id" < 5; DELETE FROM "Select"."From" WHERE "Id" = 9;
               UPDATE "with ""quotes"" and 'these'"."t"" 't'" SET "$1" = '$1' WHERE "x'y" < 5"#,
            r#"DELETE FROM "with ""quotes"" and 'these'"."t"" 't'" WHERE "x'y" = 9;
               UPDATE "a.b"."c.d" SET "%s" = '%s', "user" = DEFAULT WHERE "e.f" < '5'; DELETE FROM "a.b"."c.d" WHERE "e.f" = '9';
               UPDATE "back\slash" SET "\n" = '\' WHERE "\" < 5; DELETE FROM "back\slash" WHERE "\" = 9"#,
            r#"TRUNCATE "a.b"."c.d", "Select"."From"; INSERT INTO "a.b"."c.d" VALUES ('z')"#,
        ],
    );
    situation.schema.push_str(&format!(r#"CREATE TABLE "{long}" ("{long}" int PRIMARY KEY, v text)"#));
    situation.rows.push_str(&format!(r#"INSERT INTO "{long}" SELECT i, 'w' FROM generate_series(1, 9) i"#));
    situation
        .changes
        .push(format!(r#"UPDATE "{long}" SET v = 'x'; UPDATE "{long}" SET "{long}" = -"{long}""#));
    situation
}

/// Generated columns are computed by the target or left to it.
pub fn generated() -> Situation {
    Situation {
        // The computed values of the source are not in the stream (before PostgreSQL 18): 7 is the target's own.
        source_schema: "CREATE TABLE plain_there (id int PRIMARY KEY, a int, b int GENERATED ALWAYS AS (a * 0 + 7) STORED)"
            .to_owned(),
        target_schema: "CREATE TABLE plain_there (id int PRIMARY KEY, a int, b int DEFAULT 7, c text DEFAULT 'c',
                                                  d text GENERATED ALWAYS AS (upper(c)) STORED)"
            .to_owned(),
        checks: vec!["SELECT string_agg(DISTINCT c || d, ',') = 'cC' FROM plain_there".to_owned()],
        ..Situation::new(
            "CREATE TABLE same (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED, z text)",
            "INSERT INTO same (id, a) SELECT i, i FROM generate_series(1, 9) i;
             INSERT INTO plain_there (id, a) SELECT i, i FROM generate_series(1, 9) i",
            &[
                "UPDATE same SET a = a + 1 WHERE id > 5; UPDATE same SET z = 'z'; DELETE FROM same WHERE twice = 2",
                "UPDATE plain_there SET a = 6; DELETE FROM plain_there WHERE id = 9",
            ],
        )
    }
}

/// Generated columns of tables whose identity is the whole row; a source of PostgreSQL 18 can't change these.
pub fn generated_in_full() -> Situation {
    Situation::new(
        "CREATE TABLE same_full (a int, twice int GENERATED ALWAYS AS (a * 2) STORED, z numeric);
         ALTER TABLE same_full REPLICA IDENTITY FULL;
         CREATE TABLE only_generated (a int GENERATED ALWAYS AS (1) STORED);
         ALTER TABLE only_generated REPLICA IDENTITY FULL",
        "INSERT INTO same_full (a, z) SELECT i % 2, i FROM generate_series(1, 9) i;
         INSERT INTO only_generated SELECT FROM generate_series(1, 5)",
        &[
            "UPDATE same_full SET a = 5 WHERE z < 4; DELETE FROM same_full WHERE twice = 2",
            "DELETE FROM only_generated WHERE ctid IN (SELECT ctid FROM only_generated LIMIT 1)",
        ],
    )
}

/// Identity columns keep the source's values, also those that are GENERATED ALWAYS and change. The target's
/// identity can be of another kind, and what only the target has stays where a row has to be replaced.
pub fn identities() -> Situation {
    Situation {
        target_schema: "ALTER TABLE by_default ALTER id SET GENERATED ALWAYS;
                        ALTER TABLE beside ADD mine text DEFAULT 'mine'"
            .to_owned(),
        on_target: "UPDATE beside SET mine = 'kept ' || k".to_owned(),
        checks: vec![
            "SELECT array_agg(mine ORDER BY k) = '{kept k1,kept k2,kept k3,kept k4,kept k6,kept k7,kept k8,kept k9}'
               FROM beside"
                .to_owned(),
        ],
        ..Situation::new(
            "CREATE TABLE always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
             CREATE TABLE by_default (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text);
             CREATE TABLE beside (k text PRIMARY KEY, n bigint GENERATED ALWAYS AS IDENTITY, v text, big text);
             ALTER TABLE beside ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE all_of_it (n int GENERATED ALWAYS AS IDENTITY, v varchar(9), c \"char\", b bit(3), p char(4),
                                     f numeric(6, 2)[]);
             ALTER TABLE all_of_it REPLICA IDENTITY FULL;
             CREATE TABLE serial (id serial PRIMARY KEY, v text)",
            "INSERT INTO always (v) SELECT 'v' FROM generate_series(1, 9);
             INSERT INTO by_default (v) SELECT 'v' FROM generate_series(1, 9);
             INSERT INTO serial (v) SELECT 'v' FROM generate_series(1, 9);
             INSERT INTO beside (k, big) SELECT 'k' || i, repeat(md5(i::text), 200) FROM generate_series(1, 9) i;
             INSERT INTO all_of_it (v, c, b, p, f)
             SELECT 'v', 'c', B'101', 'p', '{1.5,NULL}' FROM generate_series(1, 9) i",
            &[
                "UPDATE always SET v = 'w' WHERE id < 4; UPDATE always SET id = DEFAULT WHERE id = 5",
                "UPDATE by_default SET id = id + 100 WHERE id > 5; DELETE FROM by_default WHERE id < 3",
                "UPDATE beside SET v = 'v'; UPDATE beside SET n = DEFAULT, k = k || '!' WHERE n = 3",
                "UPDATE beside SET n = DEFAULT WHERE n = 4; DELETE FROM beside WHERE n = 5",
                "UPDATE all_of_it SET v = 'w', p = 'pppp' WHERE n < 5; UPDATE all_of_it SET n = DEFAULT WHERE n = 8",
                "UPDATE serial SET id = id + 50; DELETE FROM all_of_it WHERE n = 9; DELETE FROM always WHERE id = 1",
            ],
        )
    }
}

/// Columns are matched by name, whatever their order, whatever was dropped and whatever else there is.
pub fn order() -> Situation {
    Situation {
        source_schema: "CREATE TABLE shuffled (gone1 int, id int, a text, gone2 text, b int, PRIMARY KEY (id, b));
             ALTER TABLE shuffled DROP gone1, DROP gone2;
             CREATE TABLE shuffled_full (a text, gone int, b json, c int);
             ALTER TABLE shuffled_full REPLICA IDENTITY FULL; ALTER TABLE shuffled_full DROP gone"
            .to_owned(),
        target_schema: "CREATE SEQUENCE s;
             CREATE TABLE shuffled (b int, extra1 text NOT NULL DEFAULT 'x', gone int, a text, id int,
                                    extra2 bigint DEFAULT nextval('s'), \"when\" timestamptz DEFAULT now(),
                                    PRIMARY KEY (b, id));
             ALTER TABLE shuffled DROP gone;
             CREATE TABLE shuffled_full (c int, extra int, b json, gone int, a text);
             ALTER TABLE shuffled_full DROP gone"
            .to_owned(),
        on_target: "UPDATE shuffled SET extra1 = 'kept' || id; UPDATE shuffled_full SET extra = c".to_owned(),
        checks: vec![
            "SELECT count(*) FILTER (WHERE extra1 = 'kept' || id % 100) = 19 FROM shuffled".to_owned(),
            "SELECT count(*) FILTER (WHERE extra = c) = 19 FROM shuffled_full".to_owned(),
            "SELECT count(DISTINCT extra2) = 19 AND count(\"when\") = 19 FROM shuffled".to_owned(),
        ],
        ..Situation::new(
            "",
            "INSERT INTO shuffled SELECT i, 'a' || i, i * 2 FROM generate_series(1, 20) i;
             INSERT INTO shuffled_full SELECT i::text, '[1]', i FROM generate_series(1, 20) i",
            &[
                "UPDATE shuffled SET a = 'new' WHERE id < 10; UPDATE shuffled SET id = id + 100 WHERE id > 15;
                 DELETE FROM shuffled WHERE id = 5",
                "UPDATE shuffled_full SET a = NULL WHERE c < 10; DELETE FROM shuffled_full WHERE c = 15",
            ],
        )
    }
}

/// Values go into other types that can hold them.
pub fn other_types() -> Situation {
    Situation {
        source_schema: "CREATE TYPE fine_or_sad AS ENUM ('fine', 'sad');
             CREATE TABLE wider (id int PRIMARY KEY, v varchar(10), n int, e fine_or_sad, j json, u uuid, s smallint,
                                 m fine_or_sad[], c char(3));
             CREATE TABLE wider_full (id int, v varchar(10), e fine_or_sad, r real, j json);
             ALTER TABLE wider_full REPLICA IDENTITY FULL"
            .to_owned(),
        target_schema: "CREATE TABLE wider (id bigint PRIMARY KEY, v text, n numeric, e text, j jsonb, u text, s int,
                                            m text[], c varchar(3));
             CREATE TABLE wider_full (id bigint, v text, e varchar, r text, j text)"
            .to_owned(),
        ..Situation::new(
            "",
            "INSERT INTO wider SELECT i, 'v' || i, i, 'sad', '[1, 2]', md5(i::text)::uuid, i, '{fine,NULL}', 'ccc'
               FROM generate_series(1, 20) i;
             INSERT INTO wider_full SELECT i % 5, 'v', 'fine', 1.5, '{\"a\":1}' FROM generate_series(1, 20) i",
            &[
                "UPDATE wider SET v = NULL, m = '{sad}' WHERE id < 5; UPDATE wider SET id = id + 100 WHERE id > 15",
                "UPDATE wider_full SET e = 'sad', r = 0.1 WHERE id = 1; DELETE FROM wider_full WHERE id = 2",
                "DELETE FROM wider WHERE id = 10",
            ],
        )
    }
}

/// A table can have no columns, or three hundred.
pub fn counts() -> Situation {
    let columns = list(|i| format!("c{i} {}", ["int", "text", "numeric", "jsonb"][i % 4]));
    let values = list(|i| match i % 5 {
        0 => "NULL".to_owned(),
        _ => "n".to_owned() + ["", "::text", "", "::text::jsonb"][i % 4],
    });
    Situation::new(
        &format!(
            "CREATE TABLE none (); ALTER TABLE none REPLICA IDENTITY FULL;
             CREATE TABLE wide (id int PRIMARY KEY, {columns});
             CREATE TABLE wide_full ({columns}); ALTER TABLE wide_full REPLICA IDENTITY FULL"
        ),
        &format!(
            "INSERT INTO none SELECT FROM generate_series(1, 5);
             INSERT INTO wide SELECT n, {values} FROM generate_series(1, 20) n;
             INSERT INTO wide_full SELECT {values} FROM generate_series(1, 20) n"
        ),
        &[
            "DELETE FROM none WHERE ctid IN (SELECT ctid FROM none LIMIT 2)",
            "UPDATE wide SET c300 = 0, c5 = 'x' WHERE id < 10; DELETE FROM wide WHERE id > 15",
            "UPDATE wide_full SET c1 = 'x', c300 = 7 WHERE c4 < 10; DELETE FROM wide_full WHERE c4 > 15",
        ],
    )
}
