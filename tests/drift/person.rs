//! What only a person may do: the stream stops where it must, says the statement, and goes on when it was run.

use crate::scene::{Scene, assert_same_schema, is_quiet};
use crate::support::pair::Pair;

/// Runs on the target what an incident of this table asks for, one that hasn't been run before. Gives that.
async fn run_what_is_asked(pair: &Pair, asked: &mut Vec<String>, tables: &[&str], severity: &str) -> String {
    let sql = "SELECT EXISTS (SELECT FROM cdc.incident WHERE severity = $1 AND table_name = ANY ($2)
                                 AND resolved_at IS NULL AND remedy ~ '^on the target: ' AND remedy <> ALL ($3))";
    pair.target_is("told what to run", sql, &[&severity, &tables, asked]).await;
    let sql = "SELECT remedy FROM cdc.incident WHERE severity = $1 AND table_name = ANY ($2) AND resolved_at IS NULL
                  AND remedy ~ '^on the target: ' AND remedy <> ALL ($3) ORDER BY id DESC LIMIT 1";
    let remedy: String = pair.target.query_one(sql, &[&severity, &tables, asked]).await.unwrap().get(0);
    let statements = remedy.strip_prefix("on the target: ").expect("it begins so");
    let statements = statements.split("; it goes on").next().expect("it ends so").to_owned();
    pair.target.batch_execute(&statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    asked.push(remedy);
    statements
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ddl_none_each_statement_is_asked_for() {
    let mut scene = Scene::new("none", "ddl = \"none\"\n").await;
    scene.pair.both("CREATE TYPE mood AS ENUM ('good'); CREATE TABLE u (id int PRIMARY KEY, m mood, s varchar(3), must int NOT NULL)").await;
    let daemon = scene.pair.streaming().await;
    scene.write();
    let pair = &scene.pair;
    let asked = &mut Vec::new();
    for (change, table) in [
        (
            "ALTER TABLE t ADD c int DEFAULT 5; ALTER TABLE t ALTER c SET DEFAULT 7; UPDATE t SET c = 6 WHERE id = 1",
            "public.t",
        ),
        (
            "ALTER TYPE mood ADD VALUE 'bad' BEFORE 'good'; INSERT INTO u VALUES (1, 'bad', 'abc', 1)",
            "public.u",
        ),
        ("ALTER TABLE u ALTER s TYPE text; UPDATE u SET s = 'longer'", "public.u"),
        ("ALTER TABLE u ALTER must DROP NOT NULL; UPDATE u SET must = NULL", "public.u"),
        ("ALTER TABLE u DROP must; INSERT INTO u VALUES (2, 'good', 'new')", "public.u"),
    ] {
        for statement in change.split("; ") {
            pair.write(statement).await;
        }
        if change.contains("DROP must") {
            // It takes NULL by now, so nothing stops.
            run_what_is_asked(pair, asked, &[table], "warning").await;
        } else {
            run_what_is_asked(pair, asked, &[table], "blocked").await;
        }
        pair.caught_up().await;
    }
    // A default is made when nothing of before can come any more, and nobody has to know of that.
    let default = run_what_is_asked(pair, asked, &["public.t"], "warning").await;
    assert_eq!(default, "ALTER TABLE \"public\".\"t\" ALTER COLUMN \"c\" SET DEFAULT 7");
    is_quiet(pair).await;
    let pair = scene.ends_equal(daemon).await;
    assert_same_schema(&pair);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_renamed_retyped_or_swapped_is_a_person_s() {
    let mut scene = Scene::new("renamed", "").await;
    scene
        .pair
        .both(
            "CREATE TABLE one (id int PRIMARY KEY, a text, b text, n text, must int NOT NULL);
             CREATE TABLE left_one (id int PRIMARY KEY, v text); CREATE TABLE right_one (id int PRIMARY KEY, v text)",
        )
        .await;
    let pair = &scene.pair;
    pair.write(
        "INSERT INTO one SELECT i, 'a' || i, 'b' || i, i, i FROM generate_series(1, 100) i;
         INSERT INTO left_one SELECT i, 'left' FROM generate_series(1, 20) i;
         INSERT INTO right_one SELECT i, 'right' FROM generate_series(11, 30) i",
    )
    .await;
    let daemon = scene.pair.streaming().await;
    scene.write();
    let pair = &scene.pair;
    let asked = &mut Vec::new();
    let one: &[&str] = &["public.one"];
    // Rows before and after, in one transaction.
    pair.write(
        "BEGIN; UPDATE one SET a = 'before' WHERE id = 1; ALTER TABLE one RENAME a TO c;
                UPDATE one SET c = 'after' WHERE id = 2; COMMIT",
    )
    .await;
    let rename = run_what_is_asked(pair, asked, one, "blocked").await;
    assert_eq!(rename, "ALTER TABLE \"public\".\"one\" RENAME COLUMN \"a\" TO \"c\"");
    pair.caught_up().await;
    pair.write("BEGIN; UPDATE one SET b = 'before' WHERE id = 3; ALTER TABLE one RENAME b TO x; ALTER TABLE one RENAME c TO b;
                ALTER TABLE one RENAME x TO c; UPDATE one SET b = 'b', c = 'c' WHERE id = 4; COMMIT").await;
    run_what_is_asked(pair, asked, one, "blocked").await;
    pair.caught_up().await;
    // Where rows would be taken as they come, nothing stops.
    pair.write("ALTER TABLE one ALTER n TYPE int USING n::int + 1; UPDATE one SET n = 7 WHERE id = 7").await;
    run_what_is_asked(pair, asked, one, "warning").await;
    is_quiet(pair).await;
    pair.write("ALTER TABLE one DROP must; INSERT INTO one VALUES (200, 'b', 'c', 1)").await;
    let drop = run_what_is_asked(pair, asked, one, "warning").await;
    assert_eq!(drop, "ALTER TABLE \"public\".\"one\" DROP COLUMN \"must\"");
    pair.write("ALTER TABLE one ALTER b SET NOT NULL").await;
    run_what_is_asked(pair, asked, one, "warning").await;
    // A column that is dropped and comes again with another type.
    pair.write("ALTER TABLE one DROP n; ALTER TABLE one ADD n jsonb; UPDATE one SET n = '[1]' WHERE id = 3")
        .await;
    run_what_is_asked(pair, asked, one, "blocked").await;
    is_quiet(pair).await;
    // Two tables trade names.
    pair.write("BEGIN; UPDATE left_one SET v = 'before' WHERE id = 1; ALTER TABLE left_one RENAME TO x;
                ALTER TABLE right_one RENAME TO left_one; ALTER TABLE x RENAME TO right_one;
                UPDATE left_one SET v = 'was right' WHERE id = 12; UPDATE right_one SET v = 'was left' WHERE id = 12; COMMIT").await;
    for _ in 0..2 {
        run_what_is_asked(pair, asked, &["public.left_one", "public.right_one"], "blocked").await;
    }
    pair.caught_up().await;
    let pair = scene.ends_equal(daemon).await;
    assert_same_schema(&pair);
}
