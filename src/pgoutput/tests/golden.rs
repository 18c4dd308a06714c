//! Frames that real servers sent, each file with the SQL that they came from.
//!
//! Version 1 and the two-phase frames are from `pg_logical_slot_get_binary_changes`, the streamed
//! ones from a walsender that sent while the transaction was open; `logical_decoding_work_mem` was
//! 64 kB. What they say is in `snapshots/`.

use std::fmt::Write as _;

use bytes::Bytes;

use super::encode;
use crate::pgoutput::{Decoder, Message, OldTuple, ProtoVersion, Relation, Relations, Tuple, Value};

/// One line per message, with the values in it.
fn shown(message: &Message) -> String {
    match message {
        Message::Relation(relation) => format!("Relation {}", shown_relation(relation)),
        Message::Insert { relation, new } => format!("Insert {relation} {}", shown_tuple(new)),
        Message::Update { relation, old, new } => {
            let old = old.as_ref().map_or("-".to_owned(), shown_old);
            format!("Update {relation} {old} -> {}", shown_tuple(new))
        }
        Message::Delete { relation, old } => format!("Delete {relation} {}", shown_old(old)),
        Message::Streamed { xid, message } => format!("  of {xid}: {}", shown(message)),
        Message::Logical(logical) => format!("{message:?} {:?}", logical.content),
        other => format!("{other:?}"),
    }
}

fn shown_relation(relation: &Relation) -> String {
    let mut text =
        format!("{} {}.{} {:?} (", relation.oid, relation.schema, relation.name, relation.replica_identity);
    for (i, column) in relation.columns.iter().enumerate() {
        let comma = if i == 0 { "" } else { ", " };
        let key = if column.is_key { " key" } else { "" };
        write!(text, "{comma}{} {}/{}{key}", column.name, column.type_oid, column.type_modifier).unwrap();
    }
    text + ")"
}

fn shown_old(old: &OldTuple) -> String {
    match old {
        OldTuple::Key(tuple) => format!("key {}", shown_tuple(tuple)),
        OldTuple::Full(tuple) => format!("full {}", shown_tuple(tuple)),
    }
}

fn shown_tuple(tuple: &Tuple) -> String {
    let value = |value: Value<'_>| match value {
        Value::Null => "null".to_owned(),
        Value::Unchanged => "unchanged".to_owned(),
        Value::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
        Value::Binary(bytes) => format!("{bytes:02x?}"),
    };
    format!("({})", tuple.values().map(value).collect::<Vec<_>>().join(", "))
}

fn bytes_of(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn version_of(header: &str) -> ProtoVersion {
    *super::VERSIONS
        .iter()
        .find(|version| header.contains(&format!("proto_version {}", version.number())))
        .expect("a golden file names its version")
}

/// Decodes a file's frames as one session, checks that every tuple fits its relation and that the
/// encoder of these tests writes the same bytes, and gives back what the frames say.
fn decoded(file: &str) -> String {
    let mut decoder = Decoder::new(version_of(file.lines().next().unwrap()));
    let mut relations = Relations::new();
    let mut text = String::new();
    for line in file.lines().filter(|line| !line.starts_with(['#', '-'])) {
        let frame = bytes_of(line);
        let message = decoder.decode(frame.clone()).unwrap();
        assert_eq!(encode(&message), frame, "{message:?}");
        check(&mut relations, &message);
        writeln!(text, "{}", shown(&message)).unwrap();
    }
    text
}

fn check(relations: &mut Relations, message: &Message) {
    let fits = |oid: u32, tuple: &Tuple| Relations::check(tuple, relations.get(oid).unwrap()).unwrap();
    match message {
        Message::Relation(relation) => drop(relations.update(relation.clone())),
        Message::Insert { relation, new } | Message::Update { relation, old: None, new } => {
            fits(*relation, new)
        }
        Message::Update { relation, old: Some(OldTuple::Key(old) | OldTuple::Full(old)), new } => {
            fits(*relation, old);
            fits(*relation, new);
        }
        Message::Delete { relation, old: OldTuple::Key(old) | OldTuple::Full(old) } => fits(*relation, old),
        Message::Streamed { message, .. } => check(relations, message),
        _ => {}
    }
}

macro_rules! golden {
    ($($test:ident: $file:literal),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                let text = decoded(include_str!(concat!("golden/", $file, ".txt")));
                insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!($file, text) });
            }
        )+
    };
}

golden! {
    rows_come_with_what_their_replica_identity_says: "identities",
    an_untouched_out_of_line_value_is_unchanged: "toast",
    a_truncate_names_all_its_relations_and_options: "truncate",
    logical_messages_are_inside_and_outside_of_transactions: "logical_messages",
    a_row_filter_turns_updates_into_inserts_and_deletes: "row_filter",
    types_that_are_not_built_in_are_named: "types",
    values_can_be_binary: "binary",
    a_partitioned_table_is_published_through_its_root: "partition_root",
    a_transaction_from_elsewhere_names_its_origin: "origin",
    a_prepared_transaction_is_committed_or_rolled_back: "two_phase",
    an_open_transaction_is_streamed_and_its_subtransaction_rolled_back: "streamed",
    a_streamed_transaction_from_elsewhere_names_its_origin: "streamed_origin",
    a_streamed_transaction_is_prepared: "two_phase_streamed",
    version_4_streams_like_version_2: "streamed_on_v4",
    version_4_in_parallel_says_where_a_rollback_was: "streamed_parallel",
}
