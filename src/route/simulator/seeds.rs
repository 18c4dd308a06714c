//! The seeds: many, with all rules; and for each rule one that fails without it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::rules::{self, Rule};
use super::world::{Failure, Kind, World};

/// How many seeds `cargo test` runs, if `CDC_SIMULATOR_SEEDS` doesn't say otherwise.
const SEEDS: u64 = 5_000;

/// Runs a seed, with all rules or without one of them.
fn run(seed: u64, without: Option<Rule>, is_traced: bool) -> Result<(), Failure> {
    rules::leave_out(without);
    let outcome = catch_unwind(AssertUnwindSafe(|| World::new(seed, is_traced).run()));
    rules::leave_out(None);
    outcome.unwrap_or_else(|_| Err(Kind::Bug.because("a panic")))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.replace('_', "").parse().unwrap())
}

/// What a failure says: what is wrong, and how to see it happen again.
fn report(seed: u64, without: Option<Rule>, failure: &Failure) -> String {
    let without = without.map_or_else(String::new, |rule| format!("CDC_SIMULATOR_WITHOUT={rule:?} "));
    let Failure { kind, detail } = failure;
    format!(
        "seed {seed}: {kind:?}: {detail}\nstep by step: CDC_SIMULATOR_SEED={seed} {without}\
         cargo test --lib simulator::seeds::replay -- --ignored --nocapture"
    )
}

#[test]
fn every_seed_ends_with_the_target_equal_to_the_source() {
    let seeds = number("CDC_SIMULATOR_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut failures = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds || failures.len() > 10 {
                return failures;
            }
            failures.extend(run(seed, None, false).err().map(|failure| report(seed, None, &failure)));
        }
    };
    let started = std::time::Instant::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    println!("{seeds} seeds in {:.1} s", started.elapsed().as_secs_f32());
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n\n"));
}

#[test]
#[ignore = "shows the seed of CDC_SIMULATOR_SEED step by step, without the rule of CDC_SIMULATOR_WITHOUT"]
fn replay() {
    let seed = number("CDC_SIMULATOR_SEED").expect("CDC_SIMULATOR_SEED");
    let without = std::env::var("CDC_SIMULATOR_WITHOUT").ok();
    let rule = without.map(|name| Rule::named(&name).expect("CDC_SIMULATOR_WITHOUT"));
    if let Err(failure) = run(seed, rule, true) {
        panic!("{}", report(seed, rule, &failure));
    }
}

#[test]
#[ignore = "looks for seeds that fail without a rule, among CDC_SIMULATOR_SEEDS: for the list below"]
fn which_seeds_fail() {
    let seeds = number("CDC_SIMULATOR_SEEDS").unwrap_or(SEEDS);
    let only = std::env::var("CDC_SIMULATOR_WITHOUT").ok().and_then(|name| Rule::named(&name));
    for rule in Rule::ALL.into_iter().filter(|rule| only.is_none_or(|only| only == *rule)) {
        let mut kinds = BTreeMap::<Kind, Vec<u64>>::new();
        for seed in 0..seeds {
            if let Err(failure) = run(seed, Some(rule), false) {
                kinds.entry(failure.kind).or_default().push(seed);
            }
        }
        let show = |(kind, seeds): (&Kind, &Vec<u64>)| {
            format!("{kind:?} {} {:?}", seeds.len(), &seeds[..seeds.len().min(4)])
        };
        println!("{rule:?}: {}", kinds.iter().map(show).collect::<Vec<_>>().join(", "));
    }
}

#[test]
fn chunks_that_send_each_other_back_come_to_an_end_while_rows_move() {
    let copies = |rule| {
        rules::leave_out(rule);
        let copies = |seed| World::new(seed, false).move_to_and_fro().unwrap();
        let most = (0..150).map(copies).max();
        rules::leave_out(None);
        most
    };
    // Two chunks, each sent back once alone, then both together.
    assert_eq!(copies(None), Some(5));
    assert!(copies(Some(Rule::Together)) > Some(5));
}

/// The seed passes with all rules, and fails in this way without that one.
fn fails_only_without(rule: Rule, seed: u64, kind: Kind) {
    if let Err(failure) = run(seed, None, false) {
        panic!("{}", report(seed, None, &failure));
    }
    let found = run(seed, Some(rule), false).err().map(|failure| failure.kind);
    assert_eq!(found, Some(kind), "seed {seed} shows it no more: which_seeds_fail finds another");
}

macro_rules! holes {
    ($($name:ident: $rule:ident, $seed:literal, $kind:ident;)*) => {
        $(#[test]
        fn $name() {
            fails_only_without(Rule::$rule, $seed, Kind::$kind);
        })*

        #[test]
        fn every_rule_has_a_seed() {
            let shown = [$(Rule::$rule),*];
            let others = [Rule::Together, Rule::PositionIsInsert];
            assert!(Rule::ALL.iter().all(|rule| shown.contains(rule) || others.contains(rule)));
        }
    };
}

holes! {
    if_a_snapshot_need_not_see_what_was_routed_a_row_is_lost: RoutedAreSeen, 115, Lost;
    if_a_transaction_is_counted_at_its_end_a_row_is_lost: CountedFromBegin, 302, Lost;
    if_a_snapshot_may_be_older_than_the_pruning_a_row_is_lost: NotOlderThanSeen, 2_303, Lost;
    without_the_fence_at_the_start_a_row_is_lost: FenceAtStart, 195, Lost;
    without_the_fence_of_a_late_table_a_row_is_lost: FenceAtAdoption, 1_089, Lost;
    with_an_xmax_as_the_fence_a_row_is_lost: FenceIsAssigned, 202, Lost;
    if_transaction_ids_have_32_bits_a_row_is_lost: Widened, 8, Lost;
    if_changes_of_a_pending_chunk_are_applied_the_stream_stops: DroppedWhilePending, 1, Stopped;
    if_changes_of_a_pending_chunk_are_applied_copy_and_stream_wait_for_each_other: DroppedWhilePending, 4_146, Deadlock;
    if_what_the_copy_has_is_applied_a_row_is_there_twice: DroppedIfCopied, 9, TooMany;
    if_changes_do_not_wait_for_a_copy_a_row_is_lost: WaitsWhileCopied, 57, Lost;
    if_no_chunk_is_sent_back_a_value_is_wrong: SentBack, 60, Wrong;
    if_a_chunk_sent_back_is_copied_at_once_the_stream_stops: WaitsAfterSendBack, 657, Stopped;
    if_a_chunk_sent_back_is_copied_at_once_copy_and_stream_wait_for_each_other: WaitsAfterSendBack, 58_329, Deadlock;
    if_what_is_asked_for_is_copied_at_once_the_stream_stops: WaitsAfterRepair, 431, Stopped;
    if_what_is_asked_for_is_copied_at_once_copy_and_stream_wait_for_each_other: WaitsAfterRepair, 27_254, Deadlock;
    if_a_repair_is_not_recorded_first_a_row_is_lost: RepairRecordedFirst, 3_186, Lost;
    if_a_truncate_empties_the_whole_table_a_row_is_lost: TruncatedByChunk, 2, Lost;
    if_the_snapshot_comes_before_the_lock_a_row_is_lost: LockedFirst, 114, Lost;
    if_the_range_is_not_emptied_a_row_is_there_twice: RangeEmptied, 125, TooMany;
    if_the_range_is_not_emptied_it_can_not_be_copied_again: RangeEmptied, 60, NotCopied;
    if_the_message_is_not_flushed_a_row_is_wrong: MessageFlushed, 371, Wrong;
    if_the_position_is_read_before_the_snapshot_a_row_is_there_twice: PositionAfterSnapshot, 502, TooMany;
    if_the_filter_ends_with_the_copy_a_row_is_there_twice: FilterUntilPosition, 18, TooMany;
    if_a_chunk_is_done_before_its_rows_they_are_lost: DoneWithRows, 0, Lost;
    if_a_lost_answer_counts_as_a_failure_a_value_is_wrong: LostAnswerReadAgain, 2_370, Wrong;
    if_the_checkpoint_comes_after_the_rows_a_row_is_there_twice: CheckpointWithRows, 8, TooMany;
    if_what_is_sent_again_is_applied_again_the_stream_stops: BelowIsDropped, 673, Stopped;
    if_what_is_at_the_checkpoint_is_dropped_a_row_is_lost: StrictlyBelow, 367, Lost;
    if_a_chunk_is_sent_back_after_the_batch_a_row_is_lost: SendBackWithBatch, 40, Lost;
    without_the_epoch_a_row_is_lost: EpochChecked, 606, Lost;
    if_the_ledger_is_read_before_the_epoch_a_row_is_wrong: EpochFirst, 1_483, Wrong;
    if_the_begin_is_compared_with_the_checkpoint_a_row_is_lost: CommitOrder, 40, Lost;
    if_more_than_the_checkpoint_is_confirmed_the_next_start_is_refused: ConfirmedIsCheckpoint, 9, Refused;
    if_more_than_is_flushed_is_confirmed_the_next_start_is_refused: ConfirmedIsFlushed, 54, Refused;
}

/// The position could as well be up to where the source has flushed: the message has been flushed
/// before it is read, and what the snapshot sees was committed before the message.
#[test]
fn after_the_message_the_flush_position_would_do() {
    for seed in 0..500 {
        if let Err(failure) = run(seed, Some(Rule::PositionIsInsert), false) {
            panic!("{}", report(seed, Some(Rule::PositionIsInsert), &failure));
        }
    }
}
