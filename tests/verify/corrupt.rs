//! Single corruptions of the target: each is found and named with key and column, and nothing else is.

use std::time::Instant;

use cdc::demo::data::Example;
use cdc::demo::writer::Writer;
use tokio_postgres::Client;

use super::support::pair::Pair;
use super::{assert_same, differences, verify};

/// Types with two values that are easily taken for the same.
const ALIKE: &[(&str, &str, &str)] = &[
    ("numeric", "1.00", "1.0"),
    ("text", "''", "NULL"),
    ("text", "'a'", "'a '"),
    ("text", r"'é'", r"E'e\u0301'"),
    ("varchar(5)", "'a'", "'A'"),
    ("bpchar", "'a'", "'a '"),
    ("float8", "0", "'-0'"),
    ("float8", "0.1", "0.10000000000000002"),
    ("float4", "'NaN'", "'Infinity'"),
    ("json", r#"'{"a":1}'"#, r#"'{"a": 1}'"#),
    ("jsonb", r#"'{"a": 1.0}'"#, r#"'{"a": 1.00}'"#),
    ("jsonb", r#"'{"a": "x"}'"#, r#"'{"a": "y"}'"#),
    ("jsonb", "'null'", "NULL"),
    ("int[]", "'{1,2}'", "'{2,1}'"),
    ("int[]", "'{1,NULL}'", "'[0:1]={1,NULL}'"),
    ("text[]", r#"'{NULL,""}'"#, r#"'{"NULL",""}'"#),
    ("timestamptz", "'2024-03-31 02:30:00.000001+00'", "'2024-03-31 02:30:00+00'"),
    ("timestamp", "'infinity'", "'294276-12-31 23:59:59.999999'"),
    ("date", "'0044-03-15 BC'", "'0044-03-15'"),
    ("interval", "'1 day'", "'24 hours'"),
    ("timetz", "'12:00+00'", "'13:00+01'"),
    ("bytea", r"'\x00'", r"'\x0000'"),
    ("bytea", r"decode(repeat('5c', 30000), 'hex')", r"decode(repeat('5c', 29999) || '5d', 'hex')"),
    ("uuid", "'00000000-0000-0000-0000-000000000000'", "'00000000-0000-0000-0000-000000000001'"),
    ("bool", "true", "NULL"),
    ("money", "'1.00'", "'1.01'"),
    ("\"char\"", "'a'", "''"),
    ("bit varying", "B'1'", "B'10'"),
    ("point", "'(0,2)'", "'(-0,2)'"),
    ("box", "'(0,0),(1,1)'", "'(0,0),(2,0.5)'"),
    ("tsvector", "'a:1'", "'a:1A'"),
    ("numrange", "'[1.0,2)'", "'[1.00,2)'"),
    ("tstzrange", "'empty'", "'(,)'"),
    ("xml", "'<a/>'", "'<a></a>'"),
    ("inet", "'10.0.0.1'", "'10.0.0.1/24'"),
    ("mood", "'so so'", "'sad'"),
    ("mood[]", r#"'{"so so"}'"#, "'{sad}'"),
    ("pair", "'(1.0,a)'", "'(1.00,a)'"),
    ("regclass", "'pg_class'", "'pg_type'"),
    ("name", "'a'", "'b'"),
];

/// The examples' schemas, whose copies nobody writes to while the writer is at the first of them.
const EXAMPLES: [Example; 3] = [Example::Salon, Example::Shop, Example::Agent];

/// How many values of the examples' tables are corrupted, besides those of the types.
const VALUES: usize = 160;

/// A statement for the target, and what the report is to say of it.
struct Corruption {
    sql: String,
    expected: String,
}

/// A column that a value can be corrupted in.
struct Column {
    table: String,
    name: String,
    /// What makes another value of it.
    other: String,
    /// `'id=' || id`, and the condition that finds the same row.
    key: String,
    order: String,
}

async fn types(pair: &Pair) -> Vec<Corruption> {
    let declare: String = ALIKE.iter().enumerate().map(|(i, (name, ..))| format!(", c{i} {name}")).collect();
    pair.both(&format!(
        "CREATE TYPE mood AS ENUM ('sad', 'so so'); CREATE TYPE pair AS (n numeric, t text);
         CREATE TABLE types (id int PRIMARY KEY{declare})"
    ))
    .await;
    let values: String = ALIKE.iter().map(|(_, value, _)| format!(", {value}")).collect();
    pair.write(&format!("INSERT INTO types SELECT i{values} FROM generate_series(1, 100) i")).await;
    let corrupt = |(i, (_, _, other)): (usize, &(&str, &str, &str))| Corruption {
        sql: format!("UPDATE types SET c{i} = {other} WHERE id = {}", i + 1),
        expected: format!("different public.types id={}: c{i}", i + 1),
    };
    ALIKE.iter().enumerate().map(corrupt).collect()
}

/// The columns of the copies that aren't of the key.
async fn columns(client: &Client) -> Vec<Column> {
    let sql = "
        SELECT n.nspname || '.' || c.relname, a.attname, t.typname, t.typcategory::text, t.typtype::text,
               a.atttypmod, k.key, k.columns
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
          JOIN pg_type t ON t.oid = a.atttypid
          JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
         CROSS JOIN LATERAL (
           SELECT string_agg(format('%L || %I::text', '=' , kc.attname), ', '),
                  string_agg(format('%L || %I', kc.attname || '=', kc.attname), ' || '', '' || ' ORDER BY o),
                  string_agg(quote_ident(kc.attname), ', ' ORDER BY o)
             FROM unnest(i.indkey) WITH ORDINALITY AS u (attnum, o)
             JOIN pg_attribute kc ON kc.attrelid = c.oid AND kc.attnum = u.attnum) AS k (unused, key, columns)
         WHERE n.nspname LIKE 'quiet%' AND c.relkind = 'r' AND a.attnum <> ALL (i.indkey) AND a.attgenerated = '' AND a.attidentity <> 'a'
         ORDER BY 1, a.attnum";
    let mut columns = Vec::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let name: String = row.get(1);
        let (typname, category, kind): (&str, &str, &str) = (row.get(2), row.get(3), row.get(4));
        let has_length = row.get::<_, i32>(5) >= 0;
        let other = match (typname, category, kind) {
            (_, _, "e") => continue,
            ("jsonb", ..) => format!("jsonb_build_array({name}, 'x')"),
            ("bytea", ..) => format!("coalesce({name}, '') || '\\x00'"),
            ("numeric", ..) if !has_length => format!("coalesce(round({name}, scale({name}) + 1), 0)"),
            (_, "S", _) if !has_length => {
                format!("CASE WHEN {name} = '' THEN NULL ELSE coalesce({name} || ' ', '') END")
            }
            (_, "N", _) => format!("coalesce({name} + 1, 0)"),
            ("timestamptz", ..) => format!("coalesce({name} + interval '1 microsecond', now())"),
            ("bool", ..) => format!("coalesce(NOT {name}, false)"),
            (_, "A", _) => {
                format!("CASE WHEN array_ndims({name}) > 1 THEN NULL ELSE array_append({name}, NULL) END")
            }
            _ => continue,
        };
        columns.push(Column { table: row.get(0), name, other, key: row.get(6), order: row.get(7) });
    }
    columns
}

/// Corruptions of values, each of another row of its table; and of each table a row that is gone and one that
/// is there too often... under another key.
async fn values(client: &Client) -> Vec<Corruption> {
    let columns = columns(client).await;
    let mut corruptions = Vec::new();
    let mut taken = std::collections::BTreeMap::<&str, i64>::new();
    for column in columns.iter().cycle().take(columns.len() * 4) {
        if corruptions.len() >= VALUES {
            break;
        }
        let offset = taken.entry(&column.table).or_default();
        let Column { table, name, other, key, order } = column;
        let sql = format!("SELECT {key}, ctid::text FROM {table} ORDER BY {order} LIMIT 1 OFFSET {offset}");
        *offset += 1;
        let Some(row) = client.query_opt(&sql, &[]).await.unwrap() else { continue };
        let (key, ctid): (&str, &str) = (row.get(0), row.get(1));
        corruptions.push(Corruption {
            sql: format!("UPDATE {table} SET {name} = {other} WHERE ctid = '{ctid}'"),
            expected: format!("different {table} {key}: {name}"),
        });
    }
    for (table, offset) in taken {
        let Some(column) = columns.iter().find(|column| column.table == table) else { continue };
        let Column { key, order, .. } = column;
        let sql = format!("SELECT {key}, ctid::text FROM {table} ORDER BY {order} LIMIT 1 OFFSET {offset}");
        if let Some(row) = client.query_opt(&sql, &[]).await.unwrap() {
            corruptions.push(Corruption {
                sql: format!("DELETE FROM {table} WHERE ctid = '{}'", row.get::<_, &str>(1)),
                expected: format!("missing {table} {}: ", row.get::<_, &str>(0)),
            });
        }
    }
    corruptions
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_corruptions_are_found_named_and_repaired_while_a_writer_goes_on() {
    let pair = Pair::new("corrupt").await;
    for example in EXAMPLES {
        // Three databases in one: each is made and filled in `public`, and then moved away.
        let name = format!("quiet_{}", example.name());
        pair.both(example.schema()).await;
        example.load(&pair.source, 1).await.unwrap();
        pair.both(&format!("ALTER SCHEMA public RENAME TO {name}; CREATE SCHEMA public")).await;
    }
    pair.both(Example::Salon.schema()).await;
    Example::Salon.load(&pair.source, 1).await.unwrap();
    let mut corruptions = types(&pair).await;
    pair.both("CREATE TABLE added (tenant int, id uuid, v text, PRIMARY KEY (tenant, id))").await;
    pair.write("INSERT INTO added SELECT i % 3, md5(i::text)::uuid, 'v' FROM generate_series(1, 50) i").await;
    let daemon = pair.streaming().await;
    let writer = Writer::start(&pair.source_url, Example::Salon, 500, 3);
    corruptions.extend(values(&pair.target).await);
    for i in 1..=15 {
        let id = format!("00000000-0000-0000-0000-0000000000{i:02}");
        corruptions.push(Corruption {
            sql: format!("INSERT INTO added VALUES ({i}, '{id}', 'v')"),
            expected: format!("extra public.added tenant={i}, id={id}: "),
        });
    }
    assert_same(&pair, &[]);
    pair.target.batch_execute("SET session_replication_role = replica").await.unwrap();
    let mut expected = Vec::new();
    for Corruption { sql, expected: this } in corruptions {
        match pair.target.execute(&sql, &[]).await {
            Ok(rows) => {
                assert_eq!(rows, 1, "{sql}");
                expected.push(this);
            }
            // The table's own constraints keep some values out.
            Err(error) => assert!(error.code().unwrap().code().starts_with("23"), "{sql}: {error:?}"),
        }
    }
    println!("corruptions: {}", expected.len());
    assert!(expected.len() >= 200, "{}", expected.len());
    let began = Instant::now();
    let (status, report) = verify(&pair, &["--show-values"]);
    println!("found in {:.1} s", began.elapsed().as_secs_f64());
    expected.sort();
    let found = differences(&report);
    assert_eq!(found, expected, "{report:#}");
    assert_eq!((status, report["outcome"].as_str()), (1, Some("different")));
    let repaired = pair.run(&["repair", "--yes"]);
    let said = String::from_utf8_lossy(&repaired.stdout);
    assert!(repaired.status.success() && said.contains("what was copied again is the same now"), "{said}");
    writer.stop().await;
    pair.ends_equal(daemon).await;
}
