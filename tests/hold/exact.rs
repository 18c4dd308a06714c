//! What is put back is what was held back, whatever it was.

use cdc::catalog::TableName;
use cdc::connect::Mode;
use cdc::demo::data::Example;
use cdc::ledger::Ledger;
use cdc::schema::{Hold, Until, builders, held, hold_back_now, put_back, silence_now};

use super::{NAME, Target, key, server, table, words};

/// The key that the source would have for the tables of `nasty.sql`.
fn nasty_key(table: &TableName) -> Vec<String> {
    match table.name.as_str() {
        "event_old" | "event_first" | "event_rest" => key(&["day", "id"]),
        _ => key(&["id"]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_made_by_hand_comes_back_as_it_was() {
    let mut schema = include_str!("nasty.sql").to_owned();
    if server().await.binaries().major() < 15 {
        schema = schema.replace("NULLS NOT DISTINCT", "");
    }
    let target = Target::new("nasty", &schema).await;
    // What the database and the role prefer doesn't matter.
    target.admin.batch_execute("ALTER DATABASE nasty SET default_tablespace = elsewhere").await.unwrap();
    let before = target.schema().await;
    target.hold_back_all(Mode::Replica, nasty_key).await;
    let rows = target
        .admin
        .query(
            "SELECT what FROM (
                SELECT conrelid::regclass || ' ' || conname AS what FROM pg_constraint
                 WHERE contype = 'f' AND connamespace <> 'cdc'::regnamespace
                UNION ALL
                SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indrelid
                 WHERE (indisunique OR indisexclusion)
                   AND relnamespace::regnamespace::text NOT IN ('cdc', 'pg_catalog', 'pg_toast')) AS w
              ORDER BY what COLLATE \"C\"",
            &[],
        )
        .await
        .unwrap();
    let left: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        left,
        [
            "\"Odd.\"\"one\".\"Par ent_pkey\"",
            "\"Odd.\"\"one\".also_the_key",
            "public.\"old key\"",
            "public.bystander bystander_parent_fkey",
            "public.child_pkey",
            "public.event_2026_pkey",
            "public.event_first_pkey",
            "public.event_key",
            "public.event_rest_pkey",
            "public.other_key_id_key",
            "public.third_key_id_key",
        ]
    );
    // Nothing that is held back is recorded again.
    let session = target.session().await;
    let all = held(&*session, NAME).await.unwrap();
    target.hold_back_all(Mode::Replica, nasty_key).await;
    assert_eq!(held(&*session, NAME).await.unwrap(), all);
    session.batch_execute("SET session_replication_role = replica").await.unwrap();
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    assert_eq!(held(&*session, NAME).await.unwrap(), []);
    target.assert_schema(&before).await;
    // And a second time, from what was put back.
    target.hold_back_all(Mode::Replica, nasty_key).await;
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_schemas_come_back_as_they_were() {
    for example in [Example::Salon, Example::Shop, Example::Agent] {
        let target = Target::new(&format!("example_{}", example.name()), example.schema()).await;
        target.admin.batch_execute("SET search_path = public").await.unwrap();
        example.load(&target.admin, 1).await.unwrap();
        target.admin.batch_execute("SET search_path = ''").await.unwrap();
        let before = target.schema().await;
        for table in target.tables().await {
            let rows = target
                .admin
                .query(
                    "SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
                      WHERE i.indisprimary AND i.indrelid = pg_catalog.to_regclass($1)",
                    &[&table.to_sql()],
                )
                .await
                .unwrap();
            let key: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            target.hold_back(&table, &key).await.unwrap();
        }
        let session = target.session().await;
        assert!(held(&*session, NAME).await.unwrap().len() > 5);
        assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
        target.assert_schema(&before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_one_chunk_keeps_what_is_unique_and_loses_its_foreign_keys() {
    let target = Target::new(
        "one_chunk",
        "CREATE TABLE a (x int UNIQUE); CREATE TABLE b (y int UNIQUE, x int REFERENCES a (x));
         CREATE TABLE bystander (y int REFERENCES b (y))",
    )
    .await;
    assert_eq!(words(&target.hold_back(&table("a"), &[]).await.unwrap()), [""; 0]);
    assert_eq!(
        words(&target.hold_back(&table("b"), &[]).await.unwrap()),
        ["foreign key b_x_fkey of public.b"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_go_to_a_partitioned_table_take_what_its_partitions_have_too() {
    let target = Target::new(
        "whole",
        "CREATE TABLE t (id int PRIMARY KEY, u int) PARTITION BY RANGE (id);
         CREATE TABLE p PARTITION OF t DEFAULT; CREATE UNIQUE INDEX ON p (u);
         CREATE TABLE other (id int PRIMARY KEY); ALTER TABLE p ADD FOREIGN KEY (u) REFERENCES other",
    )
    .await;
    let before = target.schema().await;
    assert_eq!(
        words(&target.hold_back(&table("t"), &key(&["id"])).await.unwrap()),
        ["foreign key p_u_fkey of public.p", "index p_u_idx of public.p"]
    );
    assert_eq!(put_back(&target.session().await, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_while_their_index_is_away() {
    let target = Target::new(
        "partitions",
        "CREATE TABLE t (id int, u int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         CREATE TABLE p3 PARTITION OF t FOR VALUES FROM (20) TO (30);
         CREATE UNIQUE INDEX pair ON t (u, id)",
    )
    .await;
    target.hold_back(&table("p1"), &key(&["id"])).await.unwrap();
    target
        .admin
        .batch_execute(
            "DROP TABLE public.p1; ALTER TABLE public.t DETACH PARTITION public.p2;
             CREATE TABLE public.p4 PARTITION OF public.t FOR VALUES FROM (30) TO (40)",
        )
        .await
        .unwrap();
    let session = target.session().await;
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    assert_eq!(held(&*session, NAME).await.unwrap(), []);
    let rows = session
        .query(
            "SELECT i.indexrelid::regclass || ' ' || coalesce(h.inhparent::regclass::text, '-') || ' ' || i.indisvalid
               FROM pg_index i LEFT JOIN pg_inherits h ON h.inhrelid = i.indexrelid
              WHERE i.indnatts = 2 AND indrelid::regclass::text LIKE 'public.%' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let indexes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        indexes,
        [
            "public.p2_u_id_idx - true",
            "public.p3_u_id_idx public.pair true",
            "public.p4_u_id_idx public.pair true",
            "public.pair - true",
        ]
    );
}

/// What acts on rows, on and off in every way.
const ACTING: &str = "
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TABLE a (id int PRIMARY KEY, u int UNIQUE);
    CREATE TRIGGER \"On; it's\" BEFORE UPDATE OF u ON a FOR EACH ROW WHEN (new.u > 0) EXECUTE FUNCTION f('x');
    CREATE TRIGGER always AFTER DELETE ON a EXECUTE FUNCTION f();
    ALTER TABLE a ENABLE ALWAYS TRIGGER always;
    CREATE TRIGGER for_replicas AFTER TRUNCATE ON a EXECUTE FUNCTION f();
    ALTER TABLE a ENABLE REPLICA TRIGGER for_replicas;
    CREATE TRIGGER off AFTER DELETE ON a EXECUTE FUNCTION f();
    ALTER TABLE a DISABLE TRIGGER off;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON a DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();
    CREATE RULE \"R; 1\" AS ON DELETE TO a DO ALSO NOTHING;
    CREATE RULE r_always AS ON UPDATE TO a DO ALSO NOTHING; ALTER TABLE a ENABLE ALWAYS RULE r_always;
    CREATE RULE r_off AS ON INSERT TO a DO ALSO NOTHING; ALTER TABLE a DISABLE RULE r_off;
    CREATE TABLE t (id int PRIMARY KEY, a int CONSTRAINT to_a REFERENCES a ON DELETE CASCADE) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (10);
    CREATE TABLE p2 PARTITION OF t DEFAULT;
    CREATE TRIGGER parts AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
    ALTER TABLE ONLY p2 ENABLE ALWAYS TRIGGER parts;
    CREATE TABLE bystander (a int CONSTRAINT from_outside REFERENCES a (u) ON DELETE SET NULL DEFERRABLE);
    ALTER TABLE bystander ADD CONSTRAINT not_valid FOREIGN KEY (a) REFERENCES a NOT VALID;
    CREATE TRIGGER of_bystander AFTER INSERT ON bystander EXECUTE FUNCTION f();
    ALTER TABLE a ENABLE ROW LEVEL SECURITY; ALTER TABLE a FORCE ROW LEVEL SECURITY;
    CREATE POLICY everyone ON a USING (true)";

#[tokio::test(flavor = "multi_thread")]
async fn what_acts_on_rows_stays_off_until_the_cutover_and_comes_back_as_it_was() {
    let mut schema =
        "CREATE ROLE acting LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO acting; SET ROLE acting;"
            .to_owned();
    schema += ACTING;
    let target = Target::new("acting", &format!("{schema}; RESET ROLE")).await;
    let grant = "GRANT USAGE ON SCHEMA cdc TO acting; GRANT ALL ON ALL TABLES IN SCHEMA cdc TO acting";
    target.admin.batch_execute(grant).await.unwrap();
    let before = target.schema().await;
    let session = target.session_of("acting").await;
    let hold = async |mode| {
        for name in ["a", "p1", "p2"] {
            target.hold_back_as("acting", mode, &table(name), &key(&["id"])).await.unwrap();
        }
    };

    hold(Mode::Replica).await;
    assert_eq!(put_back(&session, &[], NAME, Until::Copy).await.unwrap().len(), 0);
    assert_eq!(
        words(&held(&*session, NAME).await.unwrap()),
        [
            "rule r_always of public.a",
            "setting FORCE ROW LEVEL SECURITY of public.a",
            "trigger always of public.a",
            "trigger for_replicas of public.a",
            "trigger parts of public.p2",
        ]
    );
    // The role is allowed less from now on.
    hold(Mode::Owner).await;
    let of_owner = [
        "rule r_always of public.a",
        "setting FORCE ROW LEVEL SECURITY of public.a",
        "trigger always of public.a",
        "trigger for_replicas of public.a",
        "trigger parts of public.p2",
        "rule R; 1 of public.a",
        "trigger On; it's of public.a",
        "trigger late of public.a",
        "foreign key from_outside of public.bystander",
        "foreign key to_a of public.t",
        "foreign key not_valid of public.bystander",
        "foreign key to_a of public.p1",
        "foreign key to_a of public.p2",
        "trigger parts of public.p1",
    ];
    assert_eq!(put_back(&session, &[], NAME, Until::Copy).await.unwrap().len(), 0);
    let mut held_now = words(&held(&*session, NAME).await.unwrap());
    let mut wanted = of_owner.map(str::to_owned).to_vec();
    held_now.sort();
    wanted.sort();
    assert_eq!(held_now, wanted);
    // Somebody wants it on in another way.
    target
        .admin
        .batch_execute("ALTER TABLE public.a ENABLE ALWAYS TRIGGER late; DROP TRIGGER parts ON public.t")
        .await
        .unwrap();
    hold(Mode::Owner).await;
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    assert_eq!(held(&*session, NAME).await.unwrap(), []);
    target
        .admin
        .batch_execute(
            "ALTER TABLE public.a ENABLE TRIGGER late;
             CREATE TRIGGER parts AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();
             ALTER TABLE ONLY public.p2 ENABLE ALWAYS TRIGGER parts",
        )
        .await
        .unwrap();
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_made_by_hand_comes_back_to_an_ordinary_owner() {
    let mut schema = include_str!("nasty.sql").to_owned();
    if server().await.binaries().major() < 15 {
        schema = schema.replace("NULLS NOT DISTINCT", "");
    }
    let target = Target::new("nasty_owner", &schema).await;
    let before = target.schema().await;
    target.hold_back_all(Mode::Owner, nasty_key).await;
    let left = "SELECT count(*) FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(
        crate::support::pair::number(
            &target.admin,
            &format!("{left} AND connamespace <> 'cdc'::regnamespace")
        )
        .await,
        0
    );
    let session = target.session().await;
    for until in [Until::Copy, Until::Cutover] {
        assert_eq!(put_back(&session, &[], NAME, until).await.unwrap().len(), 0);
    }
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_migrations_put_back_what_is_theirs() {
    let target = Target::new("two", ACTING).await;
    let before = target.schema().await;
    let session = target.session().await;
    Ledger::new(target.session().await.into(), "other").create().await.unwrap();
    silence_now(&session, NAME, &table("a"), Mode::Owner).await.unwrap();
    let others = silence_now(&session, "other", &table("p1"), Mode::Owner).await.unwrap();
    // What refers from the one's table to the other's was off already.
    assert_eq!(words(&others), ["trigger parts of public.p1"]);
    assert_eq!(put_back(&session, &[], "other", Until::Cutover).await.unwrap().len(), 0);
    assert!(
        words(&held(&*session, NAME).await.unwrap()).contains(&"foreign key to_a of public.t".to_owned())
    );
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_of_several_large_tables_are_built_at_a_time_and_come_back_as_they_were() {
    let target = Target::new(
        "large",
        "CREATE TABLE a (id int PRIMARY KEY, u int UNIQUE, v text, j jsonb);
         CREATE INDEX placed ON a (v DESC NULLS LAST) INCLUDE (u) WITH (fillfactor = 70) TABLESPACE elsewhere;
         CREATE INDEX j ON a USING gin (j); COMMENT ON INDEX j IS 'a comment';
         CREATE INDEX \"Part; ial\" ON a (lower(v)) WHERE u > 0;
         ALTER INDEX \"Part; ial\" ALTER COLUMN 1 SET STATISTICS 77; ALTER TABLE a CLUSTER ON placed;
         CREATE INDEX finds_rows ON a (id, v);
         CREATE TABLE b (id int PRIMARY KEY, v text); CREATE INDEX ON b (v); CREATE UNIQUE INDEX ON b (lower(v));
         CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF t DEFAULT;
         CREATE INDEX of_t ON t (v) WITH (fillfactor = 60); ALTER INDEX p1_v_idx RENAME TO \"of p1\";
         CREATE INDEX only_p1 ON p1 (upper(v))",
    )
    .await;
    let before = target.schema().await;
    let session = target.session().await;
    for name in ["a", "b", "p1", "p2"] {
        let key = key(&["id"]);
        let hold = Hold { key: &key, others_than: Some(&key), mode: Mode::Replica };
        hold_back_now(&session, NAME, &table(name), hold).await.unwrap();
    }
    let left =
        "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index
                 WHERE indrelid::regclass::text LIKE 'public.%'";
    let left: String = target.admin.query_one(left, &[]).await.unwrap().get(0);
    assert_eq!(
        left,
        "public.a_pkey public.b_pkey public.finds_rows public.p1_pkey public.p2_pkey public.t_pkey"
    );
    target.admin.batch_execute("INSERT INTO public.b VALUES (1, 'same'), (2, 'SAME')").await.unwrap();
    let others = builders(&target.info("postgres"), NAME).await;
    assert_eq!(others.len(), 2);
    // One that fails is told once, and keeps no other one back.
    let missing = put_back(&session, &others, NAME, Until::Copy).await.unwrap();
    assert_eq!(missing.iter().map(|missing| missing.object.as_str()).collect::<Vec<_>>(), ["b_lower_idx"]);
    assert_eq!(words(&held(&*session, NAME).await.unwrap()), ["index b_lower_idx of public.b"]);
    target.admin.batch_execute("DELETE FROM public.b WHERE id = 2").await.unwrap();
    assert_eq!(put_back(&session, &others, NAME, Until::Copy).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}
