//! Reading a frame from its first byte to its last.

use std::ops::Range;

use bytes::Bytes;

use super::error::Problem;
use super::message::PgTimestamp;
use crate::lsn::Lsn;

/// What is wrong, and at which byte of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Malformed {
    pub(super) offset: usize,
    pub(super) problem: Problem,
}

pub(super) type Result<T> = std::result::Result<T, Malformed>;

/// A frame and how far it is read.
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    /// Never beyond the frame's end.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a Bytes) -> Self {
        Self { frame, at: 0 }
    }

    /// How many bytes are read.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// How many bytes are left.
    pub(super) fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.frame[self.at..]
    }

    /// A part of the frame that shares its memory.
    pub(super) fn window(&self, range: Range<usize>) -> Bytes {
        self.frame.slice(range)
    }

    /// The problem, placed at the next byte.
    pub(super) fn fail(&self, problem: Problem) -> Malformed {
        self.fail_at(self.at, problem)
    }

    /// The problem, placed at a byte that was already read.
    pub(super) fn fail_at(&self, offset: usize, problem: Problem) -> Malformed {
        Malformed { offset, problem }
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.rest().get(..count).ok_or_else(|| self.fail(Problem::Ends))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let array = *self.rest().first_chunk().ok_or_else(|| self.fail(Problem::Ends))?;
        self.at += N;
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// A position that may be `Lsn::ZERO`.
    pub(super) fn any_lsn(&mut self) -> Result<Lsn> {
        self.array().map(|bytes| Lsn::from(u64::from_be_bytes(bytes)))
    }

    /// A position that must be one.
    pub(super) fn lsn(&mut self) -> Result<Lsn> {
        let at = self.at;
        let lsn = self.any_lsn()?;
        if lsn == Lsn::ZERO { Err(self.fail_at(at, Problem::NoLsn)) } else { Ok(lsn) }
    }

    pub(super) fn timestamp(&mut self) -> Result<PgTimestamp> {
        self.array().map(|bytes| PgTimestamp::from(i64::from_be_bytes(bytes)))
    }

    /// The id of a transaction; 0 is none (`InvalidTransactionId`).
    pub(super) fn xid(&mut self) -> Result<u32> {
        let at = self.at;
        let xid = self.u32()?;
        if xid == 0 { Err(self.fail_at(at, Problem::NoXid)) } else { Ok(xid) }
    }

    /// A byte of flags of which only those in `known` may be set.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8> {
        let at = self.at;
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(self.fail_at(at, Problem::UnknownFlags(flags))) }
    }

    /// Text that ends with a zero byte.
    pub(super) fn string(&mut self) -> Result<String> {
        let at = self.at;
        let rest = self.rest();
        let length = rest.iter().position(|&b| b == 0).ok_or_else(|| self.fail(Problem::Ends))?;
        let text = std::str::from_utf8(&rest[..length])
            .map_err(|error| self.fail_at(at + error.valid_up_to(), Problem::NotUtf8))?;
        self.at += length + 1;
        Ok(text.to_owned())
    }

    /// The name of a schema; the server says nothing for `pg_catalog`.
    pub(super) fn schema(&mut self) -> Result<String> {
        self.string().map(|name| if name.is_empty() { "pg_catalog".to_owned() } else { name })
    }

    /// Checks that nothing is left.
    pub(super) fn finish(&self) -> Result<()> {
        match self.remaining() {
            0 => Ok(()),
            bytes => Err(self.fail(Problem::Trailing(bytes))),
        }
    }
}
