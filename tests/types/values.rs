//! Every type, with values that are easily spoiled.

use super::situation::Situation;
use super::support::pair::Pair;

/// The type, and its values: each is copied, inserted, updated to, found by (in a whole old row), and deleted.
const VALUES: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("int2", &["-32768", "32767"]),
    ("int4", &["-2147483648", "0"]),
    ("int8", &["-9223372036854775808", "9223372036854775807"]),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1.00",
            "0.000",
            "1e131000",
            "-1e-16000",
            "12345678901234567890.12345678901234567890",
        ],
    ),
    ("numeric(10, 2)", &["1.5", "-0.01"]),
    ("float4", &["'NaN'", "'-Infinity'", "0.1", "1e-45", "'-0'", "3.4028235e38"]),
    (
        "float8",
        &["'NaN'", "'Infinity'", "0.1", "5e-324", "'-0'", "0.30000000000000004", "1.7976931348623157e308"],
    ),
    ("money", &["'-92233720368547758.08'", "1234567.89"]),
    (
        "text",
        &[
            "''",
            "'NULL'",
            r"'\N'",
            r"'a\b'",
            "E'tab\\t\\n\\r\\x01'",
            "'äöü€😀\u{301}'",
            "' both '",
            "'''quotes\"'",
            "'{}'",
        ],
    ),
    ("varchar(5)", &["'abc  '", "''"]),
    ("char(5)", &["'ab'", "''"]),
    ("name", &["'n'", "'Ünïcode name'"]),
    ("\"char\"", &["'x'", "''", r"'\351'"]),
    ("bytea", &[r"'\x'", r"'\x00ff5c27'", r"decode(repeat('5c', 3000), 'hex')"]),
    ("date", &["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'5874897-12-31'", "'1900-02-28'"]),
    ("time", &["'24:00:00'", "'00:00:00'", "'12:34:56.789012'"]),
    ("timetz", &["'12:34:56.789+15:59:59'", "'24:00:00-12'"]),
    (
        "timestamp",
        &[
            "'infinity'",
            "'4713-01-01 00:00:00 BC'",
            "'294276-12-31 23:59:59.999999'",
            "'2024-02-29 01:02:03.000004'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'-infinity'",
            "'4713-11-24 00:00:00+00 BC'",
            "'2024-03-31 02:30:00.5+02'",
            "'1883-11-18 12:03:57-04:56:02'",
            "'infinity'",
        ],
    ),
    (
        "interval",
        &["'-1 year 2 mons -3 days 04:05:06.000007'", "'178000000 years'", "'0'", "'24:00'", "'1 day'"],
    ),
    ("interval day to second(2)", &["'1 day 00:00:01.239'"]),
    ("uuid", &["'00000000-0000-0000-0000-000000000000'"]),
    ("json", &[r#"'{"b": 1,  "a":1.0, "a":[null]}'"#, "'null'", r#"'"\u00e9\\"'"#]),
    ("jsonb", &[r#"'{"b": 1,  "a":1.00, "c":[null, "\u00e9", "\\"]}'"#, "'null'", "'1e400'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    (
        "xml",
        &[
            "'<?xml version=\"1.1\" standalone=\"yes\"?><a b=\"c\">ä</a>'",
            "'two <b/> parts'",
            "''",
            "'<?xml version=\"1.0\" encoding=\"UTF-8\"?><a/>'",
        ],
    ),
    ("inet", &["'192.168.0.1/24'", "'::1'", "'::ffff:1.2.3.4/128'"]),
    ("cidr", &["'10.0.0.0/8'", "'2001:db8::/32'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("bit(5)", &["B'10101'"]),
    ("bit varying", &["B''", "B'1'", "repeat('10', 500)::bit varying"]),
    ("point", &["'(1e-300,-0)'", "'(NaN,Infinity)'"]),
    ("line", &["'{1,-1,0.1}'"]),
    ("lseg", &["'[(0,0),(0.1,0.2)]'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    ("polygon", &["'((0,0),(1,1),(0.1,0))'"]),
    ("circle", &["'<(0.1,0.2),0.3>'"]),
    ("tsvector", &[r"$$'a b':1A,2 'c''d':3B '\\':4$$", "''"]),
    ("tsquery", &[r"$$'a b' & !('c':*A | 'd' <2> 'e')$$", "''"]),
    ("pg_lsn", &["'FFFFFFFF/FFFFFFFF'", "'0/0'"]),
    ("oid", &["4294967295"]),
    ("xid8", &["'18446744073709551615'"]),
    ("xid", &["'4294967295'"]),
    ("tid", &["'(4294967295,65535)'"]),
    ("pg_snapshot", &["'10:20:10,14,15'"]),
    ("regclass", &["'pg_class'"]),
    ("regtype", &["'timestamp with time zone'", "'mood'"]),
    ("int4range", &["'[1,10)'", "'empty'", "'(,)'"]),
    ("numrange", &["'[1.0,1.10]'", "'(NaN,)'"]),
    ("tstzrange", &["'[2024-03-31 02:30:00+02,infinity)'", "'(,\"0044-03-15 00:00:00+00 BC\"]'"]),
    ("daterange", &["'[2024-01-01,2024-01-31]'"]),
    ("int8multirange", &["'{}'", "'{[1,2), [5,)}'"]),
    ("datemultirange", &["'{[2024-01-01,2024-02-01),[2025-01-01,)}'"]),
    ("int[]", &["'{}'", "'{NULL}'", "'{{1,2},{3,NULL}}'", "'[-1:1]={1,2,3}'"]),
    (
        "text[]",
        &[
            r#"'{NULL,"NULL","",null,"nUlL"}'"#,
            r#"'{"a,b","{x}","\"q\"","back\\slash"," sp ","ä\n"}'"#,
            r#"ARRAY[E'\n', E'\t', '''', '€']"#,
        ],
    ),
    ("float8[]", &["'{0.1,NaN,-0,Infinity,NULL}'"]),
    ("timestamptz[]", &["'{infinity,\"2024-03-31 02:30:00.5+02\",NULL}'"]),
    ("bytea[]", &[r#"'{"\\x00","\\x","\\x5c27"}'"#]),
    ("date[]", &["'{\"0044-03-15 BC\",infinity}'"]),
    ("interval[]", &["'{\"-1 mons 2 days\",\"04:05:06\"}'"]),
    ("jsonb[]", &[r#"'{"{\"a\": [1, null]}",NULL,"null"}'"#]),
    ("box[]", &["'{(1,1),(0,0);(2,2),(0,0)}'"]),
    ("mood", &["'so so'", r#"'a,"b"'"#]),
    ("mood[]", &[r#"'{"so so",NULL,"a,\"b\""}'"#]),
    ("address", &[r#"'("a, ""b""",12,"{x,NULL}")'"#, "'(,,)'", "ROW('', NULL, '{}')::address"]),
    ("address[]", &[r#"'{"(\"a b\",1,\"{\"\"c,d\"\"}\")",NULL}'"#]),
    ("nested", &[r#"ROW(ROW('x', 1, '{"y z",NULL}')::address, '[1.0,2)', '-0')::nested"#]),
    ("positive", &["1.50"]),
    ("emails", &["'{a@b,NULL}'"]),
    ("float_range", &["'[0.1,0.30000000000000004)'"]),
    ("hstore", &[r#"'"a b"=>"c\"d", n=>NULL, e=>""'"#, "''"]),
    ("citext", &["'MiXed'", "'mixed'"]),
    ("ltree", &["'Top.a_1.B'", "''"]),
    ("lquery", &["'*.a@*|b{1,2}'"]),
    ("cube", &["'(0.1,0.2),(1,-0)'"]),
    ("isbn", &["'978-0-393-04002-9'"]),
    ("interval", &["'infinity'", "'-infinity'"]),
    ("interval", &["'-1 day -02:03'", "'-1 mons'", "'1 year -2 mons'"]),
    ("text[]", &[r#"'[2:3][-1:0]={{a,NULL},{"",b}}'"#]),
    ("mood[]", &[r#"'[5:6]={sad,NULL}'"#]),
    ("positive[]", &["'{1.50,NULL}'"]),
    ("contact", &["ROW('s', 1, NULL)::address"]),
    ("address[]", &[r#"'[0:0][1:2]={{"(a,1,)",NULL}}'"#]),
    ("holey", &["ROW(1, '2024-02-29')::holey", "'(,infinity)'"]),
    ("holey[]", &[r#"'{"(1,)"}'"#]),
    ("row_of", &["ROW(7, '{1,NULL}')::row_of"]),
    ("float_multirange", &["'{[0.1,0.30000000000000004),[7,)}'"]),
    ("int4range[]", &[r#"'{"[1,2)",empty,NULL}'"#]),
    ("text COLLATE \"C\"", &["'a'", "'A'"]),
    ("numeric(4, -2)", &["123456"]),
    ("seg", &["'1.50 .. 2.00'", "'~6.50'"]),
    ("query_int", &["'1&(2|3)'"]),
    ("lo", &["4294967295"]),
    ("earth", &["ll_to_earth(10, 20)"]),
    ("ltree[]", &["'{a.b,NULL,\"\"}'"]),
    ("hstore[]", &[r#"'{"a=>NULL","\"b c\"=>\"\""}'"#]),
    ("vector(3)", &["'[0.1,-0,1e-40]'"]),
    ("vector", &["'[1]'"]),
    ("halfvec(2)", &["'[0.1,65504]'"]),
    ("sparsevec(5)", &["'{1:0.1,5:-3}/5'"]),
    ("vector(2)[]", &[r#"'{"[1,2]",NULL}'"#]),
];

/// Pairs of values that a type's own `=` can't tell apart, or of types that have no `=` at all.
const ALIKE: &[(&str, &str, &str)] = &[
    ("json", r#"'{"a":1}'"#, r#"'{"a": 1}'"#),
    ("xml", "'<a/>'", "'<a></a>'"),
    ("xml", r#"'<?xml version="1.0" standalone="yes"?><a/>'"#, r#"'<?xml version="1.1"?><a/>'"#),
    ("point", "'(1,2)'", "'(1,3)'"),
    ("point", "'(0,2)'", "'(-0,2)'"),
    ("box", "'(0,0),(1,1)'", "'(0,0),(2,0.5)'"),
    ("circle", "'<(0,0),1>'", "'<(5,0),1>'"),
    ("polygon", "'((0,0),(1,1))'", "'((0,0),(2,1))'"),
    ("path", "'((0,0),(1,1))'", "'[(0,0),(1,1)]'"),
    ("numeric", "1.0", "1.00"),
    ("float8", "0", "'-0'"),
    ("float4", "0.1", "0.10000001"),
    ("citext", "'a'", "'A'"),
    ("ci_text", "'a'", "'A'"),
    ("text COLLATE public.ci", "'b'", "'B'"),
    ("text[] COLLATE public.ci", "'{b}'", "'{B}'"),
    ("bpchar", "'a'", "'a '"),
    ("char(5)", "'a'", "'b'"),
    ("bytea", r"'\x00'", r"'\x0000'"),
    ("int[]", "'{1,NULL}'", "'[0:1]={1,NULL}'"),
    ("numeric[]", "'{1.0}'", "'{1.00}'"),
    ("jsonb", r#"'{"a": 1.0}'"#, r#"'{"a": 1.00}'"#),
    ("tsvector", "'a:1'", "'a:1A'"),
    ("interval", "'1 day'", "'24 hours'"),
    ("timetz", "'12:00+00'", "'13:00+01'"),
    ("numrange", "'[1.0,2)'", "'[1.00,2)'"),
    ("pair", "'(1.0,a)'", "'(1.00,a)'"),
    ("money", "'1.00'", "'1.01'"),
    ("\"char\"", "'a'", "''"),
    ("name", "'a'", "'b'"),
    ("ltree", "'a.b'", "'a.B'"),
    ("hstore", "'a=>1'", "'a=>NULL'"),
    ("aclitem", "'postgres=r/postgres'", "'postgres=w/postgres'"),
    ("refcursor", "'a'", "'b'"),
    // NULL is neither an empty value nor a row of NULLs.
    ("citext", "NULL", "''"),
    ("citext", "''", "NULL"),
    ("xml", "NULL", "''"),
    ("tsvector", "NULL", "''"),
    ("hstore", "NULL", "''"),
    ("text", "NULL", "''"),
    ("pair", "NULL", "'(,)'"),
    ("pair", "'(,)'", "NULL"),
    ("contact_or_not", "'(,,)'", "NULL"),
    ("pair[]", "'{NULL}'", "'{\"(,)\"}'"),
];

const TYPES: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'a,"b"');
    CREATE TYPE address AS (street text, number int, tags text[]);
    CREATE TYPE nested AS (a address, r numrange, f float8);
    CREATE TYPE holey AS (a int, gone text, d date); ALTER TYPE holey DROP ATTRIBUTE gone;
    CREATE TABLE row_of (gone text, id int PRIMARY KEY, n int[]); ALTER TABLE row_of DROP gone;
    CREATE DOMAIN positive AS numeric CHECK (value > 0);
    CREATE DOMAIN emails AS text[] CHECK (cardinality(value) > 0);
    CREATE DOMAIN contact_or_not AS address;
    CREATE DOMAIN contact AS address CHECK ((value).number > 0);
    CREATE TYPE float_range AS RANGE (subtype = float8);
    CREATE TYPE pair AS (n numeric, t text)"#;

/// What a server may lack.
const OPTIONAL_TYPES: &[&str] = &[
    "CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    "CREATE DOMAIN ci_text AS citext",
];

/// What Debian's PostgreSQL 15 lacks: a newer one, and pgvector.
const NOT_IN_DEBIAN_15: &[&str] = &[
    "interval 'infinity'",
    "interval '-infinity'",
    "vector(3) '[0.1,-0,1e-40]'",
    "vector '[1]'",
    "halfvec(2) '[0.1,65504]'",
    "sparsevec(5) '{1:0.1,5:-3}/5'",
    "vector(2)[] '{\"[1,2]\",NULL}'",
];

/// One table with a key and one with REPLICA IDENTITY FULL for each type, and one for each pair of values.
/// What one of the servers doesn't know is left out, and printed.
pub async fn every_type(pair: &Pair) -> Situation {
    pair.both(TYPES).await;
    for sql in OPTIONAL_TYPES {
        // What needs it is left out below.
        let _ = (pair.source.batch_execute(sql).await, pair.target.batch_execute(sql).await);
    }
    let mut situation = Situation::default();
    let mut left_out = Vec::new();
    for (i, (ty, values)) in VALUES.iter().enumerate() {
        let mut known = Vec::new();
        for value in *values {
            if is_known(pair, ty, value).await {
                known.push(*value)
            } else {
                left_out.push(format!("{ty} {value}"))
            }
        }
        if !known.is_empty() {
            of_a_type(&mut situation, i, ty, &known);
        }
    }
    for (i, (ty, one, other)) in ALIKE.iter().enumerate() {
        if is_known(pair, ty, one).await && is_known(pair, ty, other).await {
            of_a_pair(&mut situation, i, ty, one, other);
        } else {
            left_out.push(format!("{ty} {one}"));
        }
    }
    println!("{}: left out: {}", pair.name, left_out.join("; "));
    if is_debian_15(pair).await {
        assert_eq!(left_out, NOT_IN_DEBIAN_15);
    }
    situation
}

/// Both servers know this value.
pub async fn is_known(pair: &Pair, ty: &str, value: &str) -> bool {
    let sql = format!("SELECT ({value})::{ty}");
    pair.source.batch_execute(&sql).await.is_ok() && pair.target.batch_execute(&sql).await.is_ok()
}

/// Debian's own build has everything of PostgreSQL 15.
pub async fn is_debian_15(pair: &Pair) -> bool {
    let sql = "SELECT version() LIKE 'PostgreSQL 15%Debian%'";
    let mut answers = Vec::new();
    for client in [&pair.source, &pair.target] {
        answers.push(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    }
    answers == vec![true, true]
}

fn of_a_type(situation: &mut Situation, i: usize, ty: &str, values: &[&str]) {
    situation.schema.push_str(&format!(
        "CREATE TABLE by_id_{i} (id int PRIMARY KEY, v {ty}); CREATE TABLE whole_{i} (n int, v {ty});
         ALTER TABLE whole_{i} REPLICA IDENTITY FULL;"
    ));
    let mut changes = String::new();
    for (n, value) in values.iter().enumerate() {
        situation.rows.push_str(&format!(
            "INSERT INTO by_id_{i} VALUES ({n}, {value}), (100 + {n}, NULL);
             INSERT INTO whole_{i} VALUES ({n}, {value}), (100 + {n}, {value}), (200 + {n}, {value});"
        ));
        let next = values[(n + 1) % values.len()];
        changes.push_str(&format!(
            "UPDATE by_id_{i} SET v = {value} WHERE id = 100 + {n}; UPDATE by_id_{i} SET v = {next} WHERE id = {n};
             UPDATE whole_{i} SET v = {next} WHERE n = 200 + {n};"
        ));
    }
    changes.push_str(&format!(
        "UPDATE by_id_{i} SET id = -1 - id WHERE id < 100; UPDATE by_id_{i} SET v = NULL WHERE id = -1;
         DELETE FROM by_id_{i} WHERE id = 100; UPDATE whole_{i} SET n = -n WHERE n < 100;
         UPDATE whole_{i} SET v = NULL WHERE n = 200; DELETE FROM whole_{i} WHERE n BETWEEN 100 AND 199"
    ));
    situation.changes.push(changes);
}

/// The value that must go or change is the other one, not that which seems equal and comes first. Nothing
/// touches the rows with n = 0 afterwards: an UPDATE writes every column and would hide the mistake.
fn of_a_pair(situation: &mut Situation, i: usize, ty: &str, one: &str, other: &str) {
    situation.schema.push_str(&format!(
        "CREATE TABLE alike_{i} (n int, v {ty}); ALTER TABLE alike_{i} REPLICA IDENTITY FULL;"
    ));
    situation
        .rows
        .push_str(&format!("INSERT INTO alike_{i} VALUES (0, {one}), (0, {other}), (0, {one}), (0, NULL);"));
    situation.changes.push(format!(
        "DELETE FROM alike_{i} WHERE ctid = (SELECT ctid FROM alike_{i} ORDER BY ctid LIMIT 1 OFFSET 1);
         INSERT INTO alike_{i} VALUES (1, {one}); UPDATE alike_{i} SET v = {other} WHERE n = 1;
         UPDATE alike_{i} SET n = 2 WHERE v IS NOT DISTINCT FROM NULL"
    ));
}
