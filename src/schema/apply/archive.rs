//! What `pg_dump --format=custom` writes, as far as a schema goes: the table of contents.
//!
//! Each entry has its SQL whole, so nothing has to be cut out of a script, and a function's body may say whatever it
//! likes. The layout is that of `WriteHead`, `WriteToc` (`pg_backup_archiver.c`) and `_WriteExtraToc`
//! (`pg_backup_custom.c`); versions 1.14 to 1.16 are those of `pg_dump` 12 to 18.

/// An entry of the table of contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number, by which others refer to it.
    pub(super) id: i64,
    /// The catalog that the object is in, and its oid there, on the source; 0 where it is none of its own.
    pub(super) object: (u32, u32),
    /// What it is: `TABLE`, `FK CONSTRAINT`, `COMMENT`, ...
    pub(super) kind: String,
    /// The schema that it is in; empty if in none.
    pub(super) schema: String,
    /// Its name, as `pg_dump` puts it: a function's with its arguments, a constraint's after that of its table.
    pub(super) tag: String,
    /// Who owns it on the source.
    pub(super) owner: String,
    /// What makes it.
    pub(super) sql: String,
    /// What it needs.
    pub(super) needs: Vec<i64>,
}

/// Reads an archive.
///
/// # Errors
/// With what is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut reader = Reader { rest: bytes, version: (0, 0), int_bytes: 4, offset_bytes: 8 };
    reader.head()?;
    let count = reader.int()?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(reader.entry()?);
    }
    Ok(entries)
}

struct Reader<'a> {
    rest: &'a [u8],
    version: (u8, u8),
    int_bytes: usize,
    offset_bytes: usize,
}

impl<'a> Reader<'a> {
    fn head(&mut self) -> Result<(), String> {
        if self.bytes(5)? != b"PGDMP" {
            return Err("it is no archive".to_owned());
        }
        self.version = (self.byte()?, self.byte()?);
        self.byte()?; // the revision
        if !((1, 14)..=(1, 16)).contains(&self.version) {
            return Err(format!("its version is {}.{}", self.version.0, self.version.1));
        }
        self.int_bytes = usize::from(self.byte()?);
        self.offset_bytes = usize::from(self.byte()?);
        self.byte()?; // the format
        // The compression of the rows.
        if self.version < (1, 15) {
            self.int()?;
        } else {
            self.byte()?;
        }
        // When it was made, of what, and by which versions.
        for _ in 0..7 {
            self.int()?;
        }
        for _ in 0..3 {
            self.text()?;
        }
        Ok(())
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let id = self.int()?;
        self.int()?; // whether it has rows
        let object = (self.oid()?, self.oid()?);
        let (tag, kind) = (self.text()?, self.text()?);
        self.int()?; // the section
        let sql = self.text()?;
        self.text()?; // what drops it
        self.text()?; // what copies its rows
        let schema = self.text()?;
        self.text()?; // the tablespace
        self.text()?; // the access method
        if self.version >= (1, 16) {
            self.int()?; // the kind of relation
        }
        let owner = self.text()?;
        self.text()?; // whether rows have oids
        let mut needs = Vec::new();
        while let Some(id) = self.optional_text()? {
            needs.push(id.parse().map_err(|_| format!("{id:?} is no entry's number"))?);
        }
        self.bytes(1 + self.offset_bytes)?; // where its rows are
        Ok(Entry { id, object, kind, schema, tag, owner, sql, needs })
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or("it ends too early")?;
        self.rest = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    /// A sign, then the number, its lowest byte first.
    fn int(&mut self) -> Result<i64, String> {
        let is_negative = self.byte()? != 0;
        let bytes = self.bytes(self.int_bytes)?;
        let number = bytes.iter().rev().fold(0, |number: i64, byte| (number << 8) | i64::from(*byte));
        Ok(if is_negative { -number } else { number })
    }

    /// None has the length -1.
    fn optional_text(&mut self) -> Result<Option<String>, String> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(None) };
        let text = std::str::from_utf8(self.bytes(length)?).map_err(|_| "a text in it is not UTF-8")?;
        Ok(Some(text.to_owned()))
    }

    fn text(&mut self) -> Result<String, String> {
        Ok(self.optional_text()?.unwrap_or_default())
    }

    fn oid(&mut self) -> Result<u32, String> {
        let text = self.text()?;
        text.parse().map_err(|_| format!("{text:?} is no oid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive as `pg_dump` writes it.
    fn archive(version: u8, entries: &[(&str, &str)]) -> Vec<u8> {
        let mut bytes = b"PGDMP".to_vec();
        bytes.extend([1, version, 0, 4, 8, 1]);
        let int = |number: i32| {
            let sign = u8::from(number < 0);
            [&[sign][..], &number.unsigned_abs().to_le_bytes()].concat()
        };
        let text = |text: &str| [int(i32::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat();
        bytes.extend(if version < 15 { int(-1) } else { vec![0] });
        (0..7).for_each(|_| bytes.extend(int(1)));
        ["db", "15.1", "18.1"].iter().for_each(|name| bytes.extend(text(name)));
        bytes.extend(int(i32::try_from(entries.len()).unwrap()));
        for (id, (tag, sql)) in (1..).zip(entries) {
            bytes.extend([int(id), int(0), text("1259"), text("16384")].concat());
            bytes.extend([text(tag), text("TABLE"), int(2), text(sql), text("DROP"), int(-1)].concat());
            bytes.extend([text("public"), text(""), text("heap")].concat());
            bytes.extend(if version < 16 { Vec::new() } else { int(114) });
            bytes.extend([text("me"), text("false"), text("7"), text("12"), int(-1)].concat());
            bytes.extend([3; 9]);
        }
        bytes
    }

    #[test]
    fn every_version_is_read_and_a_text_may_say_anything() {
        let sql = "CREATE TABLE -- TOC entry 7\n\\restrict $$ ü";
        for version in [14, 15, 16] {
            let entries = read(&archive(version, &[("t", sql), ("u", "")])).unwrap();
            let wanted = Entry {
                id: 1,
                object: (1259, 16384),
                kind: "TABLE".to_owned(),
                schema: "public".to_owned(),
                tag: "t".to_owned(),
                owner: "me".to_owned(),
                sql: sql.to_owned(),
                needs: vec![7, 12],
            };
            assert_eq!(
                entries,
                [wanted.clone(), Entry { id: 2, tag: "u".to_owned(), sql: String::new(), ..wanted }]
            );
        }
    }

    #[test]
    fn what_is_no_archive_or_only_half_of_one_is_refused() {
        assert!(read(b"-- SQL").is_err());
        assert!(read(&archive(17, &[])).unwrap_err().contains("1.17"));
        let whole = archive(16, &[("t", "CREATE")]);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end}");
        }
    }
}
