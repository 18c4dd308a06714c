//! The rules, each of which a run can leave out.

use std::cell::Cell;

/// A rule of the copy, the stream or the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::route) enum Rule {
    /// An accepted snapshot sees every transaction that was routed.
    RoutedAreSeen,
    /// A transaction counts as routed from its Begin on, not only when it has ended.
    CountedFromBegin,
    /// An accepted snapshot sees what the bare snapshot saw that routed transactions were pruned with.
    NotOlderThanSeen,
    /// Everything that had begun at the start has ended in an accepted snapshot.
    FenceAtStart,
    /// Everything that had begun when a table came into the stream has ended in its snapshots.
    FenceAtAdoption,
    /// The fence is a transaction id taken for it, not the xmax of a snapshot.
    FenceIsAssigned,
    /// Transaction ids are compared in 64 bits.
    Widened,
    /// A change is dropped while its chunk is pending.
    DroppedWhilePending,
    /// A change is dropped if the copy of its chunk has it.
    DroppedIfCopied,
    /// A change that the snapshot doesn't see waits while its chunk is being copied.
    WaitsWhileCopied,
    /// A chunk goes back to pending when a row moves in with a value that wasn't sent.
    SentBack,
    /// A chunk that was sent back is copied again only after the batch that did it is committed.
    WaitsAfterSendBack,
    /// A chunk that is to be copied again is copied only after everything that was routed before is committed.
    WaitsAfterRepair,
    /// The ledger says that a chunk is to be copied again before changes of it are dropped.
    RepairRecordedFirst,
    /// Chunks that send each other back are copied under one snapshot.
    Together,
    /// A TRUNCATE empties the chunks whose snapshot doesn't see it, and no others.
    TruncatedByChunk,
    /// The source's table is locked before the snapshot is taken.
    LockedFirst,
    /// A chunk's range is emptied before its rows are copied in.
    RangeEmptied,
    /// What the snapshot sees is flushed on the source before a chunk is done.
    MessageFlushed,
    /// A chunk's position is read after its snapshot was taken.
    PositionAfterSnapshot,
    /// A chunk's position is where the source inserts, not up to where it has flushed.
    PositionIsInsert,
    /// A chunk's filter holds until the checkpoint has passed its position.
    FilterUntilPosition,
    /// A chunk is recorded as done together with its rows.
    DoneWithRows,
    /// When the answer to `done` is lost, the ledger is read again.
    LostAnswerReadAgain,
    /// Rows and checkpoint are committed together.
    CheckpointWithRows,
    /// A transaction that is sent again is dropped if it is below the checkpoint.
    BelowIsDropped,
    /// A transaction that begins its commit record at the checkpoint is not dropped.
    StrictlyBelow,
    /// A chunk is sent back in the batch's own transaction.
    SendBackWithBatch,
    /// A transaction of an earlier life can't commit once its successor has read the ledger.
    EpochChecked,
    /// A start increments the epoch before it reads the ledger.
    EpochFirst,
    /// Transactions are known by their commit records: where they began is never compared.
    CommitOrder,
    /// Only what the checkpoint holds is confirmed.
    ConfirmedIsCheckpoint,
    /// Only what the target has flushed is confirmed.
    ConfirmedIsFlushed,
}

impl Rule {
    /// All of them.
    pub(super) const ALL: [Self; 33] = [
        Self::RoutedAreSeen,
        Self::CountedFromBegin,
        Self::NotOlderThanSeen,
        Self::FenceAtStart,
        Self::FenceAtAdoption,
        Self::FenceIsAssigned,
        Self::Widened,
        Self::DroppedWhilePending,
        Self::DroppedIfCopied,
        Self::WaitsWhileCopied,
        Self::SentBack,
        Self::WaitsAfterSendBack,
        Self::WaitsAfterRepair,
        Self::RepairRecordedFirst,
        Self::Together,
        Self::TruncatedByChunk,
        Self::LockedFirst,
        Self::RangeEmptied,
        Self::MessageFlushed,
        Self::PositionAfterSnapshot,
        Self::PositionIsInsert,
        Self::FilterUntilPosition,
        Self::DoneWithRows,
        Self::LostAnswerReadAgain,
        Self::CheckpointWithRows,
        Self::BelowIsDropped,
        Self::StrictlyBelow,
        Self::SendBackWithBatch,
        Self::EpochChecked,
        Self::EpochFirst,
        Self::CommitOrder,
        Self::ConfirmedIsCheckpoint,
        Self::ConfirmedIsFlushed,
    ];

    /// The rule of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| format!("{rule:?}") == name)
    }
}

thread_local! {
    static LEFT_OUT: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// False for the rule that this thread's run leaves out.
pub(in crate::route) fn keeps(rule: Rule) -> bool {
    LEFT_OUT.get() != Some(rule)
}

/// Leaves a rule out of what this thread does from now on, or none.
pub(super) fn leave_out(rule: Option<Rule>) {
    LEFT_OUT.set(rule);
}
