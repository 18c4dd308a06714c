//! The backlogs.

/// A kind of backlog.
pub struct Workload {
    pub name: &'static str,
    pub what: &'static str,
    /// `events` has as many rows before as the backlogs of all turns have changes.
    pub is_filled: bool,
    /// What is there besides.
    pub prepare: &'static str,
    /// Does the changes numbered from `FIRST` to `LAST`.
    pub write: &'static str,
    /// Is it measured over a long line, too?
    pub is_far: bool,
}

/// In the order in which they are measured.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "w1",
        what: "inserts, 10 a transaction",
        is_filled: false,
        prepare: "",
        write: "FOR i IN FIRST / 10 .. (LAST - 1) / 10 LOOP
                    INSERT INTO events SELECT * FROM new_events(i * 10 + 1, i * 10 + 10);
                    COMMIT;
                END LOOP",
        is_far: true,
    },
    Workload {
        name: "w2",
        what: "inserts, 10 transactions",
        is_filled: false,
        prepare: "",
        write: "FOR i IN 0 .. 9 LOOP
                    INSERT INTO events SELECT * FROM new_events(FIRST + (LAST + 1 - FIRST) * i / 10,
                                                                FIRST + (LAST + 1 - FIRST) * (i + 1) / 10 - 1);
                    COMMIT;
                END LOOP",
        is_far: false,
    },
    Workload {
        name: "w3",
        what: "TPC-B-like (pgbench, scale 10), 4 a transaction",
        is_filled: false,
        prepare: "CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
                  CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
                  CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
                  CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
                  INSERT INTO pgbench_branches SELECT i, 0, '' FROM generate_series(1, 10) i;
                  INSERT INTO pgbench_tellers SELECT i, 1 + (i - 1) / 10, 0, '' FROM generate_series(1, 100) i;
                  INSERT INTO pgbench_accounts SELECT i, 1 + (i - 1) / 100000, 0, '' FROM generate_series(1, 1000000) i",
        write: "DECLARE
                    account int; teller int; branch int; delta int;
                BEGIN
                    FOR i IN 1 .. (LAST - FIRST + 1) / 4 LOOP
                        account := 1 + floor(random() * 1000000); teller := 1 + floor(random() * 100);
                        branch := 1 + floor(random() * 10); delta := -5000 + floor(random() * 10001);
                        UPDATE pgbench_accounts SET abalance = abalance + delta WHERE aid = account;
                        UPDATE pgbench_tellers SET tbalance = tbalance + delta WHERE tid = teller;
                        UPDATE pgbench_branches SET bbalance = bbalance + delta WHERE bid = branch;
                        INSERT INTO pgbench_history VALUES (teller, branch, account, delta, clock_timestamp());
                        COMMIT;
                    END LOOP;
                END",
        is_far: false,
    },
    Workload {
        name: "w4u",
        what: "updates, one a transaction",
        is_filled: true,
        prepare: "",
        write: "FOR i IN FIRST .. LAST LOOP
                    UPDATE events SET price = i, title = 'changed ' || i WHERE id = 1 + (i::bigint * 7919) % ALL_ROWS;
                    COMMIT;
                END LOOP",
        is_far: true,
    },
    Workload {
        name: "w4d",
        what: "deletes, 10 a transaction",
        is_filled: true,
        prepare: "",
        write: "FOR i IN FIRST / 10 .. (LAST - 1) / 10 LOOP
                    DELETE FROM events WHERE id BETWEEN i * 10 + 1 AND i * 10 + 10;
                    COMMIT;
                END LOOP",
        is_far: false,
    },
];
