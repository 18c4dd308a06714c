//! Chunks, snapshots and visibility: the words of the copy. Pure.
//!
//! A *chunk* is a range of a table's key, or a whole table, read under one snapshot. A change belongs
//! to the chunk that its key is in; whether the chunk's rows have it already is a question to the
//! snapshot that they were read under.

use std::fmt;
use std::str::FromStr;

use postgres_protocol::escape::escape_identifier;
use serde::{Deserialize, Serialize};

/// A transaction id of the source in 64 bits: the epoch, and the 32 bits that the stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xid(u64);

impl Xid {
    /// The transaction id of this number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The 64-bit id nearest to `near` that ends in these 32 bits: ids that are alive at the same time
    /// are less than 2^31 apart (PostgreSQL documentation, 25.1.5).
    #[must_use]
    pub const fn widen(xid: u32, near: Self) -> Self {
        const HALF: u64 = 1 << 31;
        const EPOCH: u64 = 1 << 32;
        let candidate = (near.0 & !(EPOCH - 1)) | xid as u64;
        if candidate > near.0 + HALF && candidate >= EPOCH {
            Self(candidate - EPOCH)
        } else if candidate + HALF < near.0 {
            Self(candidate + EPOCH)
        } else {
            Self(candidate)
        }
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A snapshot as `pg_current_snapshot()` prints it: `xmin:xmax:xip,xip` (PostgreSQL documentation,
/// 9.27.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Every transaction before it had ended.
    xmin: Xid,
    /// No transaction from it on had ended.
    xmax: Xid,
    /// Those in between that were in progress, in their order.
    in_progress: Vec<Xid>,
}

impl Snapshot {
    /// Every transaction before it had ended.
    #[must_use]
    pub fn xmin(&self) -> Xid {
        self.xmin
    }

    /// No transaction from it on had ended.
    #[must_use]
    pub fn xmax(&self) -> Xid {
        self.xmax
    }

    /// True if what this transaction has committed is in what the snapshot reads. Asked only of
    /// transactions that are known to have been committed.
    #[must_use]
    pub fn sees(&self, xid: Xid) -> bool {
        xid < self.xmin || (xid < self.xmax && self.in_progress.binary_search(&xid).is_err())
    }

    /// A transaction that had ended in the other snapshot and not yet in this one: `None` unless the
    /// other one was taken later.
    #[must_use]
    pub fn lacks(&self, other: &Self) -> Option<Xid> {
        let ended_since = self.in_progress.iter().copied().find(|xid| other.sees(*xid));
        // The last one below an xmax has always ended: that is what xmax is.
        ended_since.or_else(|| (self.xmax < other.xmax).then(|| Xid(other.xmax.0 - 1)))
    }
}

/// The text is not a snapshot of the form `10:20:10,14,15`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot (expected xmin:xmax:xip,xip)")]
pub struct InvalidSnapshot;

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let xid = |digits: &str| digits.parse().map(Xid).map_err(|_| InvalidSnapshot);
        let mut parts = text.split(':');
        let (Some(xmin), Some(xmax), Some(list), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(InvalidSnapshot);
        };
        let (xmin, xmax) = (xid(xmin)?, xid(xmax)?);
        let in_progress: Vec<Xid> =
            list.split(',').filter(|digits| !digits.is_empty()).map(xid).collect::<Result<_, _>>()?;
        let in_range = in_progress.iter().all(|xid| (xmin..xmax).contains(xid));
        if xmin > xmax || !in_range || !in_progress.is_sorted() {
            return Err(InvalidSnapshot);
        }
        Ok(Self { xmin, xmax, in_progress })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.xmin, self.xmax)?;
        for (i, xid) in self.in_progress.iter().enumerate() {
            write!(f, "{}{xid}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The types that a chunk's range can be of: those whose order is the same here as in the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// smallint, integer or bigint.
    Integer,
    /// uuid, compared byte by byte.
    Uuid,
}

impl KeyType {
    /// Reads a value as the type's output function writes it; `None` if it is something else.
    #[must_use]
    pub fn parse(self, text: &[u8]) -> Option<KeyValue> {
        let text = std::str::from_utf8(text).ok()?;
        match self {
            Self::Integer => text.parse().ok().map(KeyValue::Integer),
            Self::Uuid => {
                let digits: String = text.chars().filter(|c| *c != '-').collect();
                let is_uuid = text.len() == 36 && digits.len() == 32 && !digits.starts_with('+');
                is_uuid.then(|| u128::from_str_radix(&digits, 16).ok())?.map(KeyValue::Uuid)
            }
        }
    }
}

/// A value of a key column. In the ledger integers are JSON numbers and uuids JSON strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyValue {
    /// An integer of any width.
    Integer(i64),
    /// The uuid's bytes as a big-endian number: its order is that of the bytes.
    Uuid(u128),
}

impl KeyValue {
    /// Its type.
    #[must_use]
    pub fn key_type(self) -> KeyType {
        match self {
            Self::Integer(_) => KeyType::Integer,
            Self::Uuid(_) => KeyType::Uuid,
        }
    }

    /// As SQL, with its type: an index on the column can be used whatever width it has.
    #[must_use]
    pub fn to_sql(self) -> String {
        match self {
            Self::Integer(_) => format!("'{self}'::pg_catalog.int8"),
            Self::Uuid(_) => format!("'{self}'::pg_catalog.uuid"),
        }
    }
}

impl fmt::Display for KeyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Uuid(value) => {
                let hex = format!("{value:032x}");
                write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    }
}

impl Serialize for KeyValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Integer(value) => serializer.serialize_i64(*value),
            Self::Uuid(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for KeyValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Json {
            Integer(i64),
            Text(String),
        }
        match Json::deserialize(deserializer)? {
            Json::Integer(value) => Ok(Self::Integer(value)),
            Json::Text(text) => KeyType::Uuid
                .parse(text.as_bytes())
                .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no uuid"))),
        }
    }
}

/// The values of the leading key columns that a table's chunks are ranges of.
pub type Key = Vec<KeyValue>;

/// A range of a table's key, from `lower` on and below `upper`; `None` is open. A table whose key has
/// no such columns is one chunk, open on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key in it.
    pub lower: Option<Key>,
    /// The first key after it.
    pub upper: Option<Key>,
}

impl KeyRange {
    /// Every key.
    pub const ALL: Self = Self { lower: None, upper: None };

    /// True if the key is in it.
    #[must_use]
    pub fn contains(&self, key: &[KeyValue]) -> bool {
        self.lower.as_deref().is_none_or(|lower| lower <= key)
            && self.upper.as_deref().is_none_or(|upper| key < upper)
    }

    /// The types of its bounds; `None` if it is open on both sides.
    #[must_use]
    pub fn key_types(&self) -> Option<Vec<KeyType>> {
        let key = self.lower.as_ref().or(self.upper.as_ref())?;
        Some(key.iter().map(|value| value.key_type()).collect())
    }

    /// As a condition on these columns, which a row comparison lets use their index; `None` if every
    /// row meets it.
    #[must_use]
    pub fn to_sql(&self, columns: &[String]) -> Option<String> {
        let columns: Vec<String> = columns.iter().map(|name| escape_identifier(name)).collect();
        let bound = |operator: &str, key: &Key| {
            let values: Vec<String> = key.iter().map(|value| value.to_sql()).collect();
            format!("({}) {operator} ({})", columns.join(", "), values.join(", "))
        };
        let lower = self.lower.as_ref().map(|key| bound(">=", key));
        let upper = self.upper.as_ref().map(|key| bound("<", key));
        let conditions: Vec<String> = lower.into_iter().chain(upper).collect();
        (!conditions.is_empty()).then(|| conditions.join(" AND "))
    }
}

/// A chunk: one of a table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    /// The table's oid on the source.
    pub relation: u32,
    /// Its place in the order of the table's ranges, from 0.
    pub ordinal: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_reads_back_what_it_prints_and_sees_what_had_ended() {
        for text in ["10:10:", "10:20:10,14,15", "4294967297:4294967300:4294967298"] {
            assert_eq!(text.parse::<Snapshot>().unwrap().to_string(), text);
        }
        let snapshot: Snapshot = "10:20:10,14".parse().unwrap();
        let sees = |xid| snapshot.sees(Xid::new(xid));
        assert!(sees(9) && sees(11) && sees(19));
        assert!(!sees(10) && !sees(14) && !sees(20) && !sees(21));
        for text in ["", "10", "10:20", "10:20:1", "20:10:", "10:20:15,14", "a:b:", "10:20::"] {
            assert_eq!(text.parse::<Snapshot>(), Err(InvalidSnapshot), "{text:?}");
        }
    }

    #[test]
    fn a_snapshot_lacks_what_had_ended_in_a_later_one() {
        let lacks = |this: &str, other: &str| {
            this.parse::<Snapshot>().unwrap().lacks(&other.parse().unwrap()).map(|xid| xid.to_string())
        };
        assert_eq!(lacks("10:20:10,14", "10:20:10,14"), None);
        assert_eq!(lacks("10:20:10,14", "14:20:14").as_deref(), Some("10"));
        assert_eq!(lacks("10:20:10", "10:23:10,21").as_deref(), Some("22"));
        assert_eq!(lacks("14:23:14,21", "10:20:10,14"), None);
    }

    #[test]
    fn a_transaction_id_is_widened_to_the_nearest() {
        let epoch = 1_u64 << 32;
        for (xid, near, expected) in [
            (745, 750, 745),
            (3, epoch - 2, epoch + 3),
            (u32::MAX, epoch + 3, epoch - 1),
            (7, 5 * epoch + 9, 5 * epoch + 7),
            (u32::MAX, 3, u64::from(u32::MAX)),
        ] {
            assert_eq!(Xid::widen(xid, Xid::new(near)), Xid::new(expected), "{xid} near {near}");
        }
    }

    #[test]
    fn keys_are_ordered_as_the_server_orders_them() {
        let uuid = |text: &str| KeyType::Uuid.parse(text.as_bytes()).unwrap();
        let (low, high) =
            (uuid("0fffffff-ffff-ffff-ffff-ffffffffffff"), uuid("f0000000-0000-0000-0000-000000000000"));
        assert!(low < high);
        assert_eq!(high.to_string(), "f0000000-0000-0000-0000-000000000000");
        assert!(KeyType::Integer.parse(b"-5") < KeyType::Integer.parse(b"3"));
        assert_eq!(KeyType::Integer.parse(b"x"), None);
        assert_eq!(KeyType::Uuid.parse(b"12"), None);
        let range = KeyRange {
            lower: Some(vec![KeyValue::Integer(5), low]),
            upper: Some(vec![KeyValue::Integer(7)]),
        };
        assert!(range.contains(&[KeyValue::Integer(5), low]) && range.contains(&[KeyValue::Integer(6), low]));
        assert!(
            !range.contains(&[KeyValue::Integer(4), high]) && !range.contains(&[KeyValue::Integer(7), low])
        );
    }

    #[test]
    fn ranges_are_kept_as_json() {
        let range =
            KeyRange { lower: Some(vec![KeyValue::Integer(i64::MIN), KeyValue::Uuid(1)]), upper: None };
        let json = serde_json::to_string(&range).unwrap();
        assert_eq!(
            json,
            r#"{"lower":[-9223372036854775808,"00000000-0000-0000-0000-000000000001"],"upper":null}"#
        );
        assert_eq!(serde_json::from_str::<KeyRange>(&json).unwrap(), range);
    }
}
