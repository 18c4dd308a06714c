//! File systems that a test can fill.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Tells that something could not be tested here, past the capture of a test's output.
pub fn say_loudly(what: &str) {
    let _ = writeln!(std::io::stderr(), "\n!!! NOT TESTED HERE: {what}\n");
}

fn runs(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A file system of its own, of so many bytes; unmounted when it is dropped.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounted there, if that is possible here (it takes root), and owned as `like` is.
    pub fn mount(at: &Path, size: &str, like: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = runs(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "tmpfs"])
                .arg(at),
        );
        if !mounted {
            say_loudly("a full disk, as nothing can be mounted");
            return None;
        }
        let disk = Self(at.to_owned());
        assert!(runs(Command::new("chown").arg(format!("--reference={}", like.display())).arg(at)));
        Some(disk)
    }

    /// Gives it another size.
    pub fn resize(&self, size: &str) {
        assert!(runs(Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0)));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = runs(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
