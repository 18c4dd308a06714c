//! Rows as they came, without a copy.

use std::fmt;

use bytes::Bytes;

use super::error::Problem;
use super::reader::{self, Reader};
use crate::limits;

/// A row: a window into the frame that brought it, and where each column begins in it.
///
/// Cloning it doesn't copy the row's bytes, but copies 4 bytes per column.
#[derive(Clone, PartialEq, Eq)]
pub struct Tuple {
    /// The tuple as it was sent: the number of columns, then the columns.
    data: Bytes,
    /// Where in `data` each column begins. `column` has accepted what is there, and neither field
    /// ever changes.
    starts: Box<[u32]>,
}

/// One column's value, borrowed from the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL's NULL; also what stands in for the columns that are not part of an [`OldTuple::Key`].
    ///
    /// [`OldTuple::Key`]: super::OldTuple::Key
    Null,
    /// An out-of-line (TOAST) value that the UPDATE didn't touch, and that was not sent.
    Unchanged,
    /// What the type's output function wrote. Not checked to be UTF-8.
    Text(&'a [u8]),
    /// What the type's send function wrote.
    Binary(&'a [u8]),
}

impl Tuple {
    /// How many columns it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether it has no columns: a table can have none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The value of the column with that index, from 0; `None` beyond the last.
    #[must_use]
    pub fn value(&self, index: usize) -> Option<Value<'_>> {
        self.starts.get(index).map(|&start| self.value_from(start))
    }

    /// The values of all columns, in the order of the relation's.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'_>> {
        self.starts.iter().map(|&start| self.value_from(start))
    }

    /// How many bytes of memory it keeps alive beyond its own size: its part of the frame, and 4
    /// bytes per column. The two tuples of an Update add up to their frame. What it can't know is
    /// whether the frame is a part of a larger buffer.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.data.len() + size_of_val(&*self.starts)
    }

    fn value_from(&self, start: u32) -> Value<'_> {
        match column(&self.data[start as usize..]) {
            Ok((value, _)) => value,
            Err(_) => unreachable!("the columns of a tuple are checked when it is decoded"),
        }
    }

    /// Reads a tuple.
    pub(super) fn read(reader: &mut Reader<'_>) -> reader::Result<Self> {
        let begin = reader.offset();
        let count = usize::from(reader.u16()?);
        // A column is at least the byte that says its kind.
        if count > limits::COLUMNS || count > reader.remaining() {
            return Err(reader.fail_at(begin, Problem::ColumnCount(count)));
        }
        let mut starts = Vec::with_capacity(count);
        for _ in 0..count {
            let at = reader.offset();
            let start = u32::try_from(at - begin).map_err(|_| reader.fail_at(at, Problem::FrameTooLong))?;
            let (_, length) = column(reader.rest()).map_err(|problem| reader.fail_at(at, problem))?;
            starts.push(start);
            reader.take(length)?;
        }
        Ok(Self { data: reader.window(begin..reader.offset()), starts: starts.into_boxed_slice() })
    }
}

/// Reads the column at the beginning of `bytes`: its value, and how many bytes it takes.
fn column(bytes: &[u8]) -> Result<(Value<'_>, usize), Problem> {
    let (kind, rest) = bytes.split_first().ok_or(Problem::Ends)?;
    match kind {
        b'n' => Ok((Value::Null, 1)),
        b'u' => Ok((Value::Unchanged, 1)),
        b't' => counted(rest).map(|value| (Value::Text(value), 5 + value.len())),
        b'b' => counted(rest).map(|value| (Value::Binary(value), 5 + value.len())),
        &other => Err(Problem::Unexpected { expected: "a column's kind: n, u, t or b", found: other }),
    }
}

/// Reads a length of 4 bytes and as many bytes.
fn counted(bytes: &[u8]) -> Result<&[u8], Problem> {
    let (length, rest) = bytes.split_first_chunk().ok_or(Problem::Ends)?;
    rest.get(..u32::from_be_bytes(*length) as usize).ok_or(Problem::Ends)
}

impl fmt::Debug for Tuple {
    /// Shows kinds and lengths: the values are somebody's data, and logs are read by others.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for value in self.values() {
            match value {
                Value::Null => list.entry(&format_args!("null")),
                Value::Unchanged => list.entry(&format_args!("unchanged")),
                Value::Text(text) => list.entry(&format_args!("text of {} bytes", text.len())),
                Value::Binary(binary) => list.entry(&format_args!("binary of {} bytes", binary.len())),
            };
        }
        list.finish()
    }
}

#[cfg(test)]
impl Tuple {
    /// A tuple with these values, as if it had been decoded.
    pub(crate) fn of(values: &[Value<'_>]) -> Self {
        let mut data = Vec::new();
        data.extend(u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            let (kind, bytes) = match value {
                Value::Null => (b'n', None),
                Value::Unchanged => (b'u', None),
                Value::Text(bytes) => (b't', Some(bytes)),
                Value::Binary(bytes) => (b'b', Some(bytes)),
            };
            data.push(kind);
            if let Some(bytes) = bytes {
                data.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
                data.extend_from_slice(bytes);
            }
        }
        let frame = Bytes::from(data);
        Self::read(&mut Reader::new(&frame)).unwrap()
    }

    /// The tuple as it is sent.
    pub(super) fn as_sent(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tuple_gives_back_its_values_in_order() {
        let values =
            [Value::Text(b"a"), Value::Null, Value::Unchanged, Value::Binary(&[0, 255]), Value::Text(b"")];
        let tuple = Tuple::of(&values);
        assert_eq!(tuple.values().collect::<Vec<_>>(), values);
        assert_eq!((0..5).map(|i| tuple.value(i).unwrap()).collect::<Vec<_>>(), values);
        assert_eq!(tuple.value(5), None);
        assert_eq!((tuple.len(), tuple.is_empty()), (5, false));
        assert!(Tuple::of(&[]).is_empty());
    }

    #[test]
    fn a_tuple_knows_what_it_keeps_alive() {
        let tuple = Tuple::of(&[Value::Text(&[b'x'; 100]), Value::Null]);
        assert_eq!(tuple.heap_bytes(), (2 + 1 + 4 + 100 + 1) + 2 * 4);
    }

    #[test]
    fn a_tuple_keeps_its_values_out_of_logs() {
        let tuple = Tuple::of(&[Value::Text(b"s3cret"), Value::Null, Value::Unchanged, Value::Binary(b"x")]);
        assert_eq!(format!("{tuple:?}"), "[text of 6 bytes, null, unchanged, binary of 1 bytes]");
    }
}
