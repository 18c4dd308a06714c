//! Which chunks a table has when parts of it are to be copied again. Pure.

use std::collections::BTreeSet;

use crate::chunk::{Key, KeyRange};

/// A chunk of the table from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The keys in it.
    pub(super) range: KeyRange,
    /// Which of the chunks of before its first key was in.
    pub(super) was: usize,
    /// It is to be copied again; if not, it is as that one was.
    pub(super) is_asked: bool,
}

/// Lays the ranges that are asked for over the chunks that are there, which together are every key. What is
/// asked for is cut at `boundaries`, which are in their order, and nothing else is. The pieces are every key
/// again, in their order.
pub(super) fn overlay(chunks: &[KeyRange], asked: &[KeyRange], boundaries: &[Key]) -> Vec<Piece> {
    let mut to_come: Vec<&KeyRange> = asked.iter().collect();
    to_come.sort_by(|a, b| begins(b).cmp(&begins(a)));
    let mut open: Vec<&KeyRange> = Vec::new();
    let mut pieces: Vec<Piece> = Vec::new();
    let mut was = 0;
    let bounds = chunks.iter().map(begins).chain(asked.iter().map(begins));
    let ends = asked.iter().filter_map(|range| range.upper.as_ref()).chain(boundaries);
    for start in bounds.chain(ends.map(Some)).collect::<BTreeSet<_>>() {
        while let Some(range) = to_come.pop_if(|range| begins(range) <= start) {
            open.push(range);
        }
        open.retain(|range| range.upper.is_none() || range.upper.as_ref() > start);
        while chunks.get(was + 1).is_some_and(|next| begins(next) <= start) {
            was += 1;
        }
        let is_asked = !open.is_empty();
        let is_cut = match start {
            Some(key) if is_asked => boundaries.binary_search(key).is_ok(),
            Some(_) | None => chunks.get(was).map(begins) == Some(start),
        };
        if is_cut || pieces.last().is_none_or(|last| last.is_asked != is_asked) {
            if let Some(last) = pieces.last_mut() {
                last.range.upper = start.cloned();
            }
            pieces.push(Piece { range: KeyRange { lower: start.cloned(), upper: None }, was, is_asked });
        }
    }
    pieces
}

/// Where a range begins: before every key, if it has no lower bound.
fn begins(range: &KeyRange) -> Option<&Key> {
    range.lower.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::KeyValue;
    use proptest::prelude::*;

    fn key(value: i64) -> Key {
        vec![KeyValue::Integer(value)]
    }

    fn range(lower: impl Into<Option<i64>>, upper: impl Into<Option<i64>>) -> KeyRange {
        KeyRange { lower: lower.into().map(key), upper: upper.into().map(key) }
    }

    fn shown(pieces: &[Piece]) -> Vec<String> {
        let bound = |key: &Option<Key>| key.as_ref().map_or("..".to_owned(), |key| key[0].to_string());
        let show = |piece: &Piece| {
            let mark = if piece.is_asked { "!" } else { "" };
            format!("{} {} {}{mark}", bound(&piece.range.lower), bound(&piece.range.upper), piece.was)
        };
        pieces.iter().map(show).collect()
    }

    #[test]
    fn what_is_asked_for_is_cut_out_and_the_rest_stays_as_it_was() {
        let chunks = [range(None, 10), range(10, 20), range(20, None)];
        let over = |asked: &[KeyRange], boundaries: &[i64]| {
            let boundaries: Vec<Key> = boundaries.iter().map(|value| key(*value)).collect();
            shown(&overlay(&chunks, asked, &boundaries))
        };
        assert_eq!(over(&[], &[5]), [".. 10 0", "10 20 1", "20 .. 2"]);
        assert_eq!(over(&[range(10, 20)], &[]), [".. 10 0", "10 20 1!", "20 .. 2"]);
        assert_eq!(over(&[range(12, 15)], &[]), [".. 10 0", "10 12 1", "12 15 1!", "15 20 1", "20 .. 2"]);
        // Over a bound of before, and two that meet or overlap.
        assert_eq!(
            over(&[range(14, 17), range(5, 12), range(12, 15)], &[]),
            [".. 5 0", "5 17 0!", "17 20 1", "20 .. 2"]
        );
        assert_eq!(over(&[KeyRange::ALL], &[8, 30]), [".. 8 0!", "8 30 0!", "30 .. 2!"]);
        assert_eq!(
            over(&[range(20, None)], &[8, 30, 40]),
            [".. 10 0", "10 20 1", "20 30 2!", "30 40 2!", "40 .. 2!"]
        );
        // Nothing is in a range that ends where it begins, or before.
        assert_eq!(over(&[range(12, 12), range(18, 13)], &[]), [".. 10 0", "10 20 1", "20 .. 2"]);
        assert_eq!(shown(&overlay(&[KeyRange::ALL], &[KeyRange::ALL], &[])), [".. .. 0!"]);
    }

    proptest! {
        #[test]
        fn every_key_is_in_one_piece_which_says_whether_it_was_asked_for(
            bounds in proptest::collection::btree_set(0..40_i64, 0..6),
            asked in proptest::collection::vec((proptest::option::of(0..40_i64), proptest::option::of(0..40_i64)), 0..6),
            boundaries in proptest::collection::btree_set(0..40_i64, 0..6),
        ) {
            let bounds: Vec<Option<i64>> = bounds.into_iter().map(Some).collect();
            let lowers = std::iter::once(None).chain(bounds.clone());
            let uppers = bounds.iter().copied().chain([None]);
            let chunks: Vec<_> = lowers.zip(uppers).map(|(lower, upper)| range(lower, upper)).collect();
            let asked: Vec<_> = asked.into_iter().map(|(lower, upper)| range(lower, upper)).collect();
            let boundaries: Vec<Key> = boundaries.into_iter().map(key).collect();
            let pieces = overlay(&chunks, &asked, &boundaries);
            prop_assert!(pieces[0].range.lower.is_none() && pieces.last().unwrap().range.upper.is_none());
            prop_assert!(pieces.windows(2).all(|two| two[0].range.upper == two[1].range.lower));
            for value in -1..41 {
                let key = key(value);
                let held: Vec<_> = pieces.iter().filter(|piece| piece.range.contains(&key)).collect();
                prop_assert_eq!(held.len(), 1);
                prop_assert_eq!(held[0].is_asked, asked.iter().any(|range| range.contains(&key)));
                prop_assert!(held[0].is_asked || chunks[held[0].was].contains(&key));
                let is_boundary = held[0].is_asked && boundaries.contains(&key);
                prop_assert!(!is_boundary || held[0].range.lower == Some(key));
            }
        }
    }
}
