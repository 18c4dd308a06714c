//! What can't be put back is told, and the rest is put back all the same.

use cdc::connect::Mode;
use cdc::schema::{Until, held, put_back};

use super::{NAME, Target, key, table, words};
use crate::support::pair::number;

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_break_a_constraint_are_told_and_the_others_come_back() {
    let target = Target::new(
        "broken",
        "CREATE EXTENSION btree_gist;
         CREATE TABLE parent (id int PRIMARY KEY, code text CONSTRAINT code UNIQUE, v int CONSTRAINT v UNIQUE);
         CREATE TABLE child (id int PRIMARY KEY, code text CONSTRAINT to_code REFERENCES parent (code),
           parent int CONSTRAINT to_parent REFERENCES parent, v int CONSTRAINT to_v REFERENCES parent (v), during int4range,
           EXCLUDE USING gist (during WITH &&));
         CREATE TABLE t (id int PRIMARY KEY, u int) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         ALTER TABLE t ADD CONSTRAINT pair UNIQUE (u, id);
         CREATE UNIQUE INDEX u ON p2 (u)",
    )
    .await;
    let before = target.schema().await;
    let hold_all = async || {
        for name in ["parent", "child", "p1", "p2"] {
            target.hold_back(&table(name), &key(&["id"])).await.unwrap();
        }
    };
    hold_all().await;
    target
        .admin
        .batch_execute(
            "INSERT INTO public.parent VALUES (1, 'a', 1), (2, 'a', 2);
             INSERT INTO public.child VALUES (1, 'a', 7, 1, '[1,5)'), (2, 'a', 1, 2, '[3,4)');
             INSERT INTO public.t VALUES (1, 1), (11, 5), (12, 5)",
        )
        .await
        .unwrap();
    let session = target.session().await;
    for _ in 0..2 {
        let missing = put_back(&session, &[], NAME, Until::Cutover).await.unwrap();
        let faults: Vec<_> = missing.into_iter().map(|missing| missing.fault).collect();
        let mut told: Vec<String> = faults
            .iter()
            .map(|f| {
                let code = f.code().unwrap().code();
                format!("{} {code} {}", f.table_name().unwrap(), f.row_key().unwrap_or("-"))
            })
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "public.child 23503 parent=7",
                "public.child 23P01 during=[1,5)",
                "public.child 42830 -",
                "public.p2 23505 u=5",
                "public.parent 23505 code=a",
            ]
        );
        assert_eq!(
            words(&held(&*session, NAME).await.unwrap()),
            [
                "foreign key to_code of public.child",
                "constraint code of public.parent",
                "foreign key to_parent of public.child",
                "constraint child_during_excl of public.child",
                "index u of public.p2",
            ]
        );
        // What is left of a failed attempt would refuse rows.
        assert_eq!(number(&target.admin, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 0);
    }
    // One fault, whole.
    let missing = put_back(&session, &[], NAME, Until::Cutover).await.unwrap();
    let faults: Vec<_> = missing.into_iter().map(|missing| missing.fault).collect();
    let fault = faults.iter().find(|fault| fault.table_name() == Some("public.parent")).unwrap();
    assert_eq!(
        fault.to_string(),
        "target: putting back the constraint \"code\": could not create unique index \"code\" (Key (code)=(a) is duplicated.) \
         [table public.parent, key code=a, SQLSTATE 23505]\n  what to do: change or delete one of the two rows on the source, \
         which allows both, or give it up: DELETE FROM cdc.held_back WHERE id = 3"
    );
    // The tables are copied anew: what came back in part goes again, and is recorded as it was first.
    hold_all().await;
    target
        .admin
        .batch_execute(
            "DELETE FROM public.parent WHERE id = 2; DELETE FROM public.child; DELETE FROM public.t WHERE id = 12",
        )
        .await
        .unwrap();
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_fails_keeps_its_whole_back() {
    let target = Target::new(
        "part",
        "CREATE TABLE t (id int PRIMARY KEY, u int, k int) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (10) TO (20);
         ALTER TABLE t ADD CONSTRAINT pair UNIQUE (k, id);
         CREATE TABLE o (id int PRIMARY KEY);
         ALTER TABLE t ADD CONSTRAINT to_o FOREIGN KEY (k) REFERENCES o",
    )
    .await;
    let before = target.schema().await;
    target.hold_back(&table("p1"), &key(&["id"])).await.unwrap();
    target
        .admin
        .batch_execute("INSERT INTO public.o VALUES (1); INSERT INTO public.t VALUES (1, 1, 1), (11, 1, 2)")
        .await
        .unwrap();
    let session = target.session().await;
    let missing = put_back(&session, &[], NAME, Until::Cutover).await.unwrap();
    let faults: Vec<_> = missing.into_iter().map(|missing| missing.fault).collect();
    assert_eq!(faults.iter().map(|f| f.row_key().unwrap()).collect::<Vec<_>>(), ["k=2"]);
    assert_eq!(
        words(&held(&*session, NAME).await.unwrap()),
        ["foreign key to_o of public.t", "foreign key to_o of public.p2"]
    );
    target.admin.batch_execute("INSERT INTO public.o VALUES (2)").await.unwrap();
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_owner_takes_off_only_what_he_can_put_back() {
    let target = Target::new(
        "owner",
        "CREATE ROLE ordinary LOGIN; GRANT ordinary TO postgres; CREATE SCHEMA theirs;
         CREATE TABLE theirs.parent (id int PRIMARY KEY);
         GRANT USAGE ON SCHEMA theirs TO ordinary; GRANT REFERENCES ON theirs.parent TO ordinary;
         GRANT CREATE ON SCHEMA public TO ordinary; GRANT CREATE ON TABLESPACE elsewhere TO ordinary;
         SET ROLE ordinary;
         CREATE TABLE t (id int PRIMARY KEY, u int, parent int CONSTRAINT to_parent REFERENCES theirs.parent);
         CREATE UNIQUE INDEX u ON t (u) TABLESPACE elsewhere;
         COMMENT ON INDEX u IS 'mine';
         RESET ROLE",
    )
    .await;
    target
        .admin
        .batch_execute(
            "GRANT USAGE ON SCHEMA cdc TO ordinary; GRANT ALL ON ALL TABLES IN SCHEMA cdc TO ordinary",
        )
        .await
        .unwrap();
    let before = target.schema().await;
    for (revoke, grant) in [
        ("REVOKE CREATE ON SCHEMA public FROM ordinary", "GRANT CREATE ON SCHEMA public TO ordinary"),
        (
            "REVOKE CREATE ON TABLESPACE elsewhere FROM ordinary",
            "GRANT CREATE ON TABLESPACE elsewhere TO ordinary",
        ),
        ("REVOKE REFERENCES ON theirs.parent FROM ordinary", "GRANT REFERENCES ON theirs.parent TO ordinary"),
        ("REVOKE USAGE ON SCHEMA theirs FROM ordinary", "GRANT USAGE ON SCHEMA theirs TO ordinary"),
        ("ALTER TABLE public.t DISABLE TRIGGER ALL", "ALTER TABLE public.t ENABLE TRIGGER ALL"),
        ("ALTER TABLE public.t OWNER TO postgres", "GRANT postgres TO ordinary"),
    ] {
        target.admin.batch_execute(revoke).await.unwrap();
        let fault =
            target.hold_back_as("ordinary", Mode::Replica, &table("t"), &key(&["id"])).await.unwrap_err();
        assert!(fault.advice().is_some_and(|advice| advice.contains(grant)), "{fault}");
        let mend = if grant.starts_with("GRANT postgres") {
            "ALTER TABLE public.t OWNER TO ordinary"
        } else {
            grant
        };
        target.admin.batch_execute(mend).await.unwrap();
        target.assert_schema(&before).await;
    }
    assert_eq!(
        target.hold_back_as("ordinary", Mode::Replica, &table("t"), &key(&["id"])).await.unwrap().len(),
        2
    );
    let session = target.session_of("ordinary").await;
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_something_else_depends_on_is_refused_and_what_took_a_name_is_told() {
    let target = Target::new(
        "depends",
        "CREATE TABLE t (id int NOT NULL, n int PRIMARY KEY, v text, u int CONSTRAINT u UNIQUE);
         CREATE VIEW grouped AS SELECT n, v FROM t GROUP BY n",
    )
    .await;
    let before = target.schema().await;
    let fault = target.hold_back(&table("t"), &key(&["id"])).await.unwrap_err();
    assert_eq!(fault.code().unwrap().code(), "2BP01", "{fault}");
    assert!(fault.what().contains("view public.grouped depends on constraint t_pkey"), "{fault}");
    target.assert_schema(&before).await;
    target.hold_back(&table("t"), &key(&["n"])).await.unwrap();
    let session = target.session().await;
    for (take, free) in [
        ("CREATE TABLE public.u ()", "DROP TABLE public.u"),
        (
            "CREATE TABLE public.o (u int); CREATE INDEX u ON public.o (u)",
            "DROP INDEX public.u; DROP TABLE public.o",
        ),
    ] {
        target.admin.batch_execute(take).await.unwrap();
        let missing = put_back(&session, &[], NAME, Until::Cutover).await.unwrap();
        let faults: Vec<_> = missing.into_iter().map(|missing| missing.fault).collect();
        assert_eq!(faults.iter().map(|f| f.code().unwrap().code()).collect::<Vec<_>>(), ["42P07"]);
        assert!(faults[0].advice().unwrap().starts_with("rename what has taken its name"), "{}", faults[0]);
        // It is still there.
        target.admin.batch_execute(free).await.unwrap();
    }
    assert_eq!(put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_has_put_back_by_hand_stays_as_it_is() {
    let target = Target::new(
        "by_hand",
        "CREATE EXTENSION btree_gist;
         CREATE TABLE a (id int PRIMARY KEY, u int CONSTRAINT u UNIQUE, i int, e int, CONSTRAINT e EXCLUDE USING gist (e WITH =));
         CREATE UNIQUE INDEX i ON a (i);
         CREATE TABLE t (id int PRIMARY KEY, u int CONSTRAINT to_u REFERENCES a (u), v int CONSTRAINT to_v REFERENCES a (u))
           PARTITION BY RANGE (id);
         CREATE TABLE p PARTITION OF t DEFAULT;
         CREATE UNIQUE INDEX pair ON t (u, id);
         CREATE TABLE o (id int PRIMARY KEY, u int CONSTRAINT of_o REFERENCES a (u))",
    )
    .await;
    let before = target.schema().await;
    for name in ["a", "p", "o"] {
        target.hold_back(&table(name), &key(&["id"])).await.unwrap();
    }
    target
        .admin
        .batch_execute(
            "SET search_path = public;
             ALTER TABLE a ADD CONSTRAINT u UNIQUE (u); ALTER TABLE a ADD CONSTRAINT e EXCLUDE USING gist (e WITH =);
             CREATE UNIQUE INDEX i ON a (i); CREATE UNIQUE INDEX pair ON t (u, id);
             ALTER TABLE t ADD CONSTRAINT to_u FOREIGN KEY (u) REFERENCES a (u);
             ALTER TABLE o ADD CONSTRAINT of_o FOREIGN KEY (u) REFERENCES a (u) NOT VALID;
             SET search_path = ''",
        )
        .await
        .unwrap();
    let session = target.session().await;
    let faults = put_back(&session, &[], NAME, Until::Cutover).await.unwrap();
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(held(&*session, NAME).await.unwrap(), []);
    target.assert_schema(&before).await;
}
