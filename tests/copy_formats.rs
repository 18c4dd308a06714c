//! Rows travel in binary where that means the same on both sides, and as text elsewhere.

mod support;

use support::pair::{Pair, connect};

/// Every type that travels in binary, with values at its edges; and each of these in an array.
const BINARY: [(&str, &str); 24] = [
    ("bool", "'t', 'f'"),
    ("int2", "'-32768', '32767'"),
    ("int4", "'-2147483648', '2147483647'"),
    ("int8", "'-9223372036854775808', '9223372036854775807'"),
    ("float4", "'-0', 'NaN', 'Infinity', '1e-45', '3.4028235e+38'"),
    ("float8", "'-0', 'NaN', '-Infinity', '5e-324', '0.1'"),
    ("numeric", "'NaN', '-Infinity', '0.000', '-1234567890123456789.000000001', '1e1000'"),
    ("text", r"'', E'tab\t\\N\\.\n', 'ä€😀', repeat('long ', 3000)"),
    ("varchar(9)", r"'', E'\\', 'ä€😀'"),
    ("bpchar(5)", "'', 'ab ', 'ä€'"),
    ("bytea", r"'', '\x00ff0a', convert_to(repeat('bytes', 3000), 'UTF8')"),
    ("uuid", "'00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff'"),
    ("json", r#"'{"b": 1.0,  "a": [null, "\u00e4"], "b": 2}', '  null'"#),
    ("jsonb", r#"'{"b": 1.00, "a": [null, "\u00e4", 1e400]}', 'null', '"x"'"#),
    ("date", "'infinity', '-infinity', '4713-01-01 BC', '5874897-12-31'"),
    ("time(3)", "'00:00', '24:00:00', '23:59:59.999'"),
    ("timetz", "'00:00+15:59', '24:00:00-15:59', '12:34:56.789012+02'"),
    ("timestamp", "'infinity', '4713-01-01 BC', '294276-12-31 23:59:59.999999'"),
    ("timestamptz", "'-infinity', '4713-01-02 BC', '2026-03-29 01:59:59.999999+01'"),
    ("inet", "'10.1.2.3/8', '::1', '::ffff:1.2.3.4/128'"),
    ("cidr", "'10.0.0.0/8', '2001:db8::/32'"),
    ("macaddr", "'08:00:2b:01:02:03'"),
    ("bit(11)", "B'10101010101', B'00000000000'"),
    ("varbit", "B'', B'1', B'0000000011111111'"),
];

/// A table with all of them, a domain on a domain, and an enum whose labels aren't in the order of their oids.
fn every_type() -> (String, String) {
    let columns: Vec<String> =
        (BINARY.iter().enumerate()).map(|(i, (ty, _))| format!("v{i} {ty}, a{i} {ty}[]")).collect();
    let table = format!(
        "CREATE DOMAIN number AS numeric(12, 3) CHECK (VALUE > 0); CREATE DOMAIN price AS number NOT NULL;
         CREATE TYPE mood AS ENUM ('sad', 'it''s \\ ok'); ALTER TYPE mood ADD VALUE 'Über' BEFORE 'sad';
         CREATE TABLE everything (made int GENERATED ALWAYS AS (id * 2) STORED, price price, mood mood, {}, id int PRIMARY KEY)",
        columns.join(", ")
    );
    // Row by row through the values, NULL after the last; the arrays have all of them, or begin elsewhere.
    let of = |(_, (ty, values)): (usize, &(&str, &str))| {
        let all = format!("ARRAY[{values}, NULL]::{ty}[]");
        format!(
            "({all})[1 + i % (cardinality({all}) + 1)], CASE i % 4 WHEN 0 THEN {all} WHEN 1 THEN '{{}}'
                 WHEN 2 THEN array_fill(({all})[1], ARRAY[2, 1], ARRAY[-3, 7]) END"
        )
    };
    let values: Vec<String> = BINARY.iter().enumerate().map(of).collect();
    let rows = format!(
        "INSERT INTO everything (price, mood, {}, id)
         SELECT i / 7.0, (enum_range(NULL::mood))[1 + i % 4], {}, i FROM generate_series(1, 200) i",
        (0..BINARY.len()).map(|i| format!("v{i}, a{i}")).collect::<Vec<_>>().join(", "),
        values.join(", ")
    );
    (table, rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_travel_in_binary_where_that_means_the_same_on_both_sides() {
    let mut pair = Pair::new("formats").await;
    pair.config = "[copy]\nreaders = 8\n".to_owned();
    let (table, rows) = every_type();
    pair.both(&table).await;
    pair.both(
        "CREATE TYPE pair AS (a int, b text); CREATE TYPE span AS RANGE (subtype = int8);
         CREATE TABLE by_interval (id int PRIMARY KEY, v interval);
         CREATE TABLE by_oid (id int PRIMARY KEY, v regclass);
         CREATE TABLE refused (id int PRIMARY KEY, v text);
         CREATE TABLE by_user (id int PRIMARY KEY, v pair, s span, m mood[])",
    )
    .await;
    pair.write("CREATE TABLE widened (id int PRIMARY KEY, v int, w mood)").await;
    let elsewhere = "CREATE TABLE widened (w text, v bigint, id int PRIMARY KEY);
                     ALTER TABLE refused ADD CONSTRAINT strict CHECK (v <> 'row 123')";
    pair.target.batch_execute(elsewhere).await.unwrap();
    pair.write(&rows).await;
    pair.write(
        "INSERT INTO by_interval SELECT i, i * interval '1 month -1 day 0.1 s' FROM generate_series(1, 200) i;
         INSERT INTO by_oid SELECT i, 'everything'::regclass FROM generate_series(1, 200) i;
         INSERT INTO by_user SELECT i, ROW(i, 'a,b')::pair, span(i, NULL), enum_range(NULL::mood) FROM generate_series(1, 200) i;
         INSERT INTO refused SELECT i, 'row ' || i FROM generate_series(1, 200) i;
         INSERT INTO widened SELECT i, -i, 'sad' FROM generate_series(1, 200) i",
    )
    .await;

    // Each of them waits for a row that may be there, and the server tells how it is copied.
    let gate = connect(&pair.target_url).await;
    gate.batch_execute(
        "BEGIN; INSERT INTO everything (id, price) VALUES (50, 1); INSERT INTO widened (id) VALUES (50);
         INSERT INTO by_interval VALUES (50); INSERT INTO by_oid VALUES (50); INSERT INTO by_user VALUES (50)",
    )
    .await
    .unwrap();
    let daemon = pair.daemon();
    let copies = "FROM pg_stat_activity WHERE query LIKE 'COPY %' AND wait_event = 'transactionid'
                   AND datname = current_database()";
    pair.target_is("held up", &format!("SELECT count(*) = 5 {copies}"), &[]).await;
    let told = format!(
        "SELECT string_agg(split_part(query, '\"', 4) || split_part(query, 'FROM STDIN', 2), ', ' ORDER BY query) {copies}"
    );
    let row = pair.target.query_one(&told, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "by_interval, by_oid, by_user, everything (FORMAT binary), widened");
    gate.batch_execute("ROLLBACK").await.unwrap();

    // A row that the target refuses in the middle is named in binary, too.
    let is_refused = |status: &serde_json::Value| status["incidents"][0]["severity"] == "failing";
    let status = pair.status_is("failing", is_refused).await;
    let incident = &status["incidents"][0];
    assert_eq!((&incident["table"], &incident["key"]), (&"public.refused".into(), &"id=123".into()));
    assert_eq!(incident["sqlstate"], "23514", "{status:#}");
    pair.target.batch_execute("ALTER TABLE refused DROP CONSTRAINT strict").await.unwrap();
    // One that is started anew doesn't wait for 30 s.
    daemon.kill();
    let daemon = pair.streaming().await;
    pair.ends_equal(daemon).await;
}
