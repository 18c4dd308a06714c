//! Data directories in a tenth of a second.
//!
//! `initdb` takes about a second, so it runs once per server version and arguments; its result is
//! kept in the temporary directory and copied. A copy gets a system identifier of its own, because
//! two servers that share one look like the same database to everything that replicates.

use std::env;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;

use super::account::{Account, cannot};
use super::{Binaries, random};
use crate::fault::{Fault, Result};

/// Where `xlp_sysid` is in the long header of a WAL segment's first page (`xlog_internal.h`).
const WAL_SYSTEM_IDENTIFIER: u64 = 24;

/// The most bytes of `pg_control` that are in use (`PG_CONTROL_MAX_SAFE_SIZE`, `pg_control.h`).
const CONTROL_BYTES: usize = 512;

/// Held while a template is made, so that the threads of one process make it once.
static MAKING: Mutex<()> = Mutex::const_new(());

/// Makes `data` a fresh data directory for a server that runs as `account`.
pub(super) async fn instantiate(
    binaries: &Binaries,
    initdb_args: &[String],
    account: Account,
    data: &Path,
) -> Result<()> {
    let template = template(binaries, initdb_args, account).await?;
    account.run("cp", &["-a".as_ref(), template.as_os_str(), data.as_os_str()]).await?;
    // initdb makes identifiers that are positive as a bigint; so do we.
    change_identity(data, random() >> 1).map_err(|e| cannot("give a system identifier to", data, &e))
}

/// Makes `data` a fresh data directory with `initdb`, and leaves nothing else behind.
pub(super) async fn initialize(
    binaries: &Binaries,
    initdb_args: &[String],
    account: Account,
    data: &Path,
) -> Result<()> {
    let fixed = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"];
    let mut args: Vec<String> = fixed.iter().map(ToString::to_string).collect();
    args.extend_from_slice(initdb_args);
    args.push(format!("--pgdata={}", data.display()));
    account.run(binaries.program("initdb"), &args).await
}

/// The template for this version and these arguments; made now if it isn't there.
async fn template(binaries: &Binaries, initdb_args: &[String], account: Account) -> Result<PathBuf> {
    let cache = cache(account).await?;
    let mut hasher = DefaultHasher::new();
    (binaries.program("initdb"), binaries.version(), initdb_args).hash(&mut hasher);
    let template = cache.join(format!("{}-{:016x}", binaries.major(), hasher.finish()));

    let _making = MAKING.lock().await;
    // A cleaner of old temporary files leaves directories without files behind.
    if template.join("PG_VERSION").is_file() {
        return Ok(template);
    }
    let fresh = cache.join(format!("new-{:016x}", random()));
    initialize(binaries, initdb_args, account, &fresh).await?;

    let Err(error) = fs::rename(&fresh, &template) else { return Ok(template) };
    if template.join("PG_VERSION").is_file() {
        // Another process was quicker; its template is as good as ours.
        fs::remove_dir_all(&fresh).map_err(|e| cannot("remove", &fresh, &e))?;
        return Ok(template);
    }
    Err(cannot("write", &template, &error).remedy(format!("remove the directory {}", template.display())))
}

/// The directory of the templates. The temporary directory is everybody's: what somebody else
/// could have put there isn't used.
async fn cache(account: Account) -> Result<PathBuf> {
    let cache = env::temp_dir().join(format!("cdc-templates-{}", account.uid));
    // Made by the account itself, so that it has the right owner from its first moment on.
    account.run("mkdir", &["-p".as_ref(), "-m".as_ref(), "0700".as_ref(), cache.as_os_str()]).await?;
    let found = fs::symlink_metadata(&cache).map_err(|e| cannot("read", &cache, &e))?;
    if found.is_dir() && found.uid() == account.uid && found.mode() & 0o077 == 0 {
        return Ok(cache);
    }
    Err(Fault::person(format!("{} belongs to somebody else, or is open to others", cache.display()))
        .remedy("remove it, or set $TMPDIR to a directory of your own"))
}

/// Changes the system identifier of a server that isn't running: the first field of the control
/// file, which ends in a CRC-32C, and a field of the WAL segment that recovery starts from.
fn change_identity(data: &Path, identifier: u64) -> io::Result<()> {
    let path = data.join("global/pg_control");
    let mut control = fs::read(&path)?;
    change_control(&mut control, identifier)
        .ok_or_else(|| io::Error::other("the control file has no checksum where one is expected"))?;
    OpenOptions::new().write(true).open(path)?.write_all_at(&control, 0)?;

    for entry in fs::read_dir(data.join("pg_wal"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            let segment = OpenOptions::new().write(true).open(entry.path())?;
            segment.write_all_at(&identifier.to_ne_bytes(), WAL_SYSTEM_IDENTIFIER)?;
        }
    }
    Ok(())
}

/// Puts an identifier into the bytes of a control file. Where its checksum is depends on the
/// version, and is found by looking for the one place that holds the checksum of all before it.
fn change_control(control: &mut [u8], identifier: u64) -> Option<()> {
    let is_checksum = |at: &usize| {
        control.get(*at..at + 4).is_some_and(|stored| stored == crc32c(&control[..*at]).to_ne_bytes())
    };
    let at = (8..CONTROL_BYTES).step_by(4).find(is_checksum)?;
    control[..8].copy_from_slice(&identifier.to_ne_bytes());
    let checksum = crc32c(&control[..at]);
    control[at..at + 4].copy_from_slice(&checksum.to_ne_bytes());
    Some(())
}

/// CRC-32C (Castagnoli), bit by bit: a few hundred bytes, once per server.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // The check value of CRC-32/ISCSI.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_control_file_gets_another_identifier_and_the_checksum_that_fits() {
        let mut control = vec![0; 8192];
        for (byte, value) in control.iter_mut().zip(1..=96) {
            *byte = value;
        }
        let checksum = crc32c(&control[..96]);
        control[96..100].copy_from_slice(&checksum.to_ne_bytes());

        let mut changed = control.clone();
        change_control(&mut changed, 7).unwrap();
        assert_eq!(changed[..8], 7_u64.to_ne_bytes());
        assert_eq!(changed[8..96], control[8..96]);
        assert_eq!(changed[96..100], crc32c(&changed[..96]).to_ne_bytes());
        assert_eq!(changed[100..], control[100..]);

        assert!(change_control(&mut vec![1; 8192], 7).is_none());
        assert!(change_control(&mut [1; 9], 7).is_none());
    }
}
