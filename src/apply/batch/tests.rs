//! Batches of transactions that come, go on, and never end.

use super::*;
use crate::pgoutput::{ReplicaIdentity, Value};

fn lsn(lsn: u64) -> Lsn {
    Lsn::from(lsn)
}

fn time(lsn: u64) -> PgTimestamp {
    PgTimestamp::from(i64::try_from(lsn).unwrap())
}

fn begin(at: u64) -> Begin {
    Begin { commit_lsn: lsn(at), commit_time: time(at), xid: 7 }
}

/// A commit record of 8 bytes.
fn commit(at: u64) -> Commit {
    Commit { commit_lsn: lsn(at), end_lsn: lsn(at + 8), commit_time: time(at) }
}

fn change() -> Change {
    let relation = Relation {
        oid: 1,
        schema: "public".into(),
        name: "t".into(),
        replica_identity: ReplicaIdentity::Default,
        columns: Vec::new(),
    };
    Change::Insert { relation: Arc::new(relation), new: Tuple::of(&[Value::Text(b"1")]) }
}

fn transaction(batcher: &mut Batcher, at: u64, changes: usize) {
    batcher.begin(&begin(at)).unwrap();
    for _ in 0..changes {
        batcher.change(change()).unwrap();
    }
    batcher.commit(&commit(at)).unwrap();
}

/// Commit LSN and number of changes of each transaction, and the checkpoint.
fn summary(batch: &Batch) -> (Vec<(u64, usize)>, Option<u64>) {
    let transactions = batch.transactions.iter().map(|t| (t.commit_lsn.as_u64(), t.changes.len())).collect();
    (transactions, batch.end.map(|end| end.lsn.as_u64()))
}

#[test]
fn a_transaction_below_the_checkpoint_is_dropped_and_one_exactly_at_it_is_not() {
    let mut batcher = Batcher::new(lsn(100), Vec::new());
    transaction(&mut batcher, 92, 1);
    transaction(&mut batcher, 100, 2);
    assert_eq!(summary(&batcher.take().unwrap()), (vec![(100, 2)], Some(108)));
}

#[test]
fn the_next_transaction_can_begin_where_a_keepalive_ended() {
    let mut batcher = Batcher::new(lsn(100), Vec::new());
    batcher.advance(lsn(150));
    assert_eq!(summary(&batcher.take_position().unwrap()), (vec![], Some(150)));
    let mut batcher = Batcher::new(lsn(150), Vec::new());
    transaction(&mut batcher, 150, 1);
    assert_eq!(summary(&batcher.take().unwrap()), (vec![(150, 1)], Some(158)));
}

#[test]
fn whole_transactions_are_taken_together_and_an_open_one_stays() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    transaction(&mut batcher, 10, 1);
    transaction(&mut batcher, 20, 2);
    batcher.begin(&begin(30)).unwrap();
    batcher.change(change()).unwrap();
    assert_eq!(summary(&batcher.take().unwrap()), (vec![(10, 1), (20, 2)], Some(28)));
    assert!(batcher.take().is_none());
    batcher.commit(&commit(30)).unwrap();
    assert_eq!(summary(&batcher.take().unwrap()), (vec![(30, 1)], Some(38)));
}

#[test]
fn a_keepalive_inside_a_transaction_moves_nothing() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    batcher.begin(&begin(30)).unwrap();
    batcher.advance(lsn(500));
    assert!(!batcher.only_moved());
    assert!(batcher.take_position().is_none());
    batcher.change(change()).unwrap();
    batcher.commit(&commit(30)).unwrap();
    assert_eq!(summary(&batcher.take().unwrap()), (vec![(30, 1)], Some(38)));
}

#[test]
fn a_keepalive_behind_waiting_transactions_goes_with_them() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    transaction(&mut batcher, 10, 1);
    batcher.advance(lsn(99));
    assert!(batcher.take_position().is_none());
    assert_eq!(summary(&batcher.take().unwrap()), (vec![(10, 1)], Some(99)));
    assert!(!batcher.only_moved());
}

#[test]
fn an_empty_transaction_only_moves_the_position() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    transaction(&mut batcher, 10, 0);
    assert!(batcher.take().is_none());
    assert!(batcher.only_moved());
    let batch = batcher.take_position().unwrap();
    assert_eq!(summary(&batch), (vec![], Some(18)));
    assert_eq!(batch.end.unwrap().commit_time, None);
}

#[test]
fn a_huge_transaction_is_taken_in_pieces_and_the_next_one_rides_with_its_last() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    transaction(&mut batcher, 10, 1);
    batcher.begin(&begin(20)).unwrap();
    while batcher.has_room() {
        batcher.change(change()).unwrap();
    }
    let whole = batcher.take().unwrap();
    assert_eq!((whole.continues, summary(&whole)), (false, (vec![(10, 1)], Some(18))));
    while batcher.has_room() {
        batcher.change(change()).unwrap();
    }
    let piece = batcher.take().unwrap();
    assert_eq!((piece.continues, summary(&piece)), (false, (vec![(20, limits::BATCH_CHANGES)], None)));
    while batcher.has_room() {
        batcher.change(change()).unwrap();
    }
    let piece = batcher.take().unwrap();
    assert_eq!((piece.continues, summary(&piece)), (true, (vec![(20, limits::BATCH_CHANGES)], None)));
    // Nothing is left of it but its commit, which still has to be told to the target.
    batcher.commit(&commit(20)).unwrap();
    transaction(&mut batcher, 40, 3);
    let last = batcher.take().unwrap();
    assert_eq!((last.continues, summary(&last)), (true, (vec![(20, 0), (40, 3)], Some(48))));
    assert!(last.before(1).is_none(), "its earlier pieces are gone with the open transaction");
    transaction(&mut batcher, 60, 1);
    assert!(!batcher.take().unwrap().continues);
}

#[test]
fn a_transaction_that_is_to_be_skipped_has_no_changes_and_those_around_it_are_whole() {
    let mut batcher = Batcher::new(lsn(15), vec![lsn(10), lsn(20)]);
    transaction(&mut batcher, 10, 1);
    transaction(&mut batcher, 18, 1);
    batcher.begin(&begin(20)).unwrap();
    *batcher.skipped().unwrap().entry("public.t".to_owned()).or_default() += 1;
    assert!(batcher.has_room() && !batcher.is_idle());
    batcher.commit(&commit(20)).unwrap();
    batcher.begin(&begin(30)).unwrap();
    assert!(batcher.skipped().is_none());
    batcher.change(change()).unwrap();
    batcher.commit(&commit(30)).unwrap();
    let batch = batcher.take().unwrap();
    assert_eq!(summary(&batch), (vec![(18, 1), (20, 0), (30, 1)], Some(38)));
    let skipped: Vec<_> = batch.transactions.iter().map(|t| t.skipped.clone()).collect();
    assert_eq!(skipped, [None, Some(Skipped::Counted([("public.t".to_owned(), 1)].into())), None]);
}

#[test]
fn of_a_transaction_that_never_comes_whole_nothing_is_taken_and_one_to_be_skipped_is_passed() {
    let mut batcher = Batcher::new(lsn(1), vec![lsn(30)]);
    for (at, is_passed) in [(20, false), (30, true)] {
        transaction(&mut batcher, at - 10, 1);
        batcher.begin(&begin(at)).unwrap();
        if batcher.skipped().is_none() {
            batcher.change(change()).unwrap();
        }
        assert_eq!(batcher.give_up(), is_passed);
        let batch = batcher.take().unwrap();
        let wanted = if is_passed { (vec![(20, 1), (30, 0)], Some(31)) } else { (vec![(10, 1)], Some(18)) };
        assert_eq!(summary(&batch), wanted);
        assert!(batcher.take().is_none() && batcher.is_idle());
        batcher.last_commit = Lsn::ZERO;
    }
    assert!(!batcher.give_up(), "there is none");
}

#[test]
fn what_comes_before_a_culprit_has_a_checkpoint_of_its_own() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    for at in [10, 20, 30] {
        transaction(&mut batcher, at, 1);
    }
    let batch = batcher.take().unwrap();
    assert_eq!(summary(&batch.before(2).unwrap()), (vec![(10, 1), (20, 1)], Some(28)));
    assert!(batch.before(0).is_none());
}

#[test]
fn transactions_out_of_order_and_changes_out_of_place_are_refused() {
    let mut batcher = Batcher::new(lsn(1), Vec::new());
    assert_eq!(batcher.change(change()), Err(OutOfOrder::OutsideTransaction("change")));
    assert_eq!(batcher.commit(&commit(5)), Err(OutOfOrder::OutsideTransaction("COMMIT")));
    transaction(&mut batcher, 20, 1);
    assert_eq!(batcher.begin(&begin(20)), Err(OutOfOrder::CommitOrder { commit: lsn(20), last: lsn(20) }));
    batcher.begin(&begin(30)).unwrap();
    assert_eq!(batcher.begin(&begin(40)), Err(OutOfOrder::BeginInside(lsn(30))));
    assert_eq!(
        batcher.commit(&commit(31)),
        Err(OutOfOrder::CommitMismatch { begin: lsn(30), commit: lsn(31) })
    );
}
