//! Images that commands named lately: a pod that wants one may be about to start.
//!
//! Each command adds its images to the file of the minute. Nothing is written anew, so that commands need not wait for each
//! other; a file that is too old is removed as a whole. Time is the machine's uptime: a clock may be set, as after a boot.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use prefetch::image::Image;

use crate::host::Host;

/// Names the folder of the files, on the host; a boot empties it.
const FOLDER: &str = "/run/prefetch-images/named";
/// Bounds the time for which a named image is left: as long as kubelet takes to start a pod, and a little more.
const MINUTES: u64 = 5;

/// Remembers that a command named these images.
///
/// # Errors
/// The operating system's.
pub fn note(host: &Host, images: &[Image]) -> io::Result<()> {
    let Some(minute) = minute(host) else {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the machine's uptime cannot be read",
        ));
    };
    let folder = host.path(FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let lines: String = images.iter().map(|image| image.name_by_digest() + "\n").collect();
    let file = folder.join(minute.to_string());
    // One write is appended whole.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(file)?
        .write_all(lines.as_bytes())
}

/// Returns the names by digest that commands named within the last minutes, and removes what is older; none where that cannot
/// be told.
#[must_use]
pub fn read(host: &Host) -> Option<HashSet<String>> {
    let now = minute(host)?;
    let mut named = HashSet::new();
    for file in host.list(FOLDER) {
        let path = Path::new(FOLDER).join(&file);
        if file.parse().is_ok_and(|minute| is_recent(minute, now)) {
            named.extend(host.read(&path)?.lines().map(str::to_owned));
        } else {
            remove(&host.path(&path));
        }
    }
    Some(named)
}

fn is_recent(minute: u64, now: u64) -> bool {
    minute <= now && now - minute <= MINUTES
}

/// Removes a file; another command may just have done so, and what stays is not looked at.
fn remove(file: &PathBuf) {
    fs::remove_file(file).ok();
}

/// Reads the minutes since the machine was started.
fn minute(host: &Host) -> Option<u64> {
    let uptime = host.read("/proc/uptime")?;
    let seconds: u64 = uptime.split(['.', ' ']).next()?.parse().ok()?;
    Some(seconds / 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Folder;

    fn image(tag: &str) -> Image {
        format!("registry.example.com/app:{tag}@sha256:{}", "a".repeat(64))
            .parse()
            .unwrap()
    }

    fn at(folder: Folder, seconds: u64) -> Folder {
        folder.with("proc/uptime", &format!("{seconds}.07 999.00\n"))
    }

    #[test]
    fn what_commands_named_is_known_for_five_minutes_and_then_forgotten() {
        let folder = at(Folder::new(), 1000);
        let host = folder.host();
        assert_eq!(read(&host), Some(HashSet::new()));
        note(&host, &[image("one"), image("two")]).unwrap();
        note(&host, &[image("one")]).unwrap();
        let expected = HashSet::from([image("one").name_by_digest()]);
        assert_eq!(read(&host), Some(expected.clone()));
        let folder = at(folder, 1000 + 5 * 60);
        assert_eq!(read(&host), Some(expected));
        let folder = at(folder, 1000 + 6 * 60);
        assert_eq!(read(&host), Some(HashSet::new()));
        assert!(host.list(FOLDER).is_empty());
        drop(folder);
    }

    #[test]
    fn without_an_uptime_or_with_a_record_that_cannot_be_read_it_is_not_known() {
        let host = Folder::new();
        assert_eq!(read(&host.host()), None);
        assert!(note(&host.host(), &[image("one")]).is_err());
        let folder = at(Folder::new(), 60).with("run/prefetch-images/named/1", &"a".repeat(1 << 21));
        assert_eq!(read(&folder.host()), None);
    }

    #[test]
    fn what_is_no_record_of_a_minute_goes() {
        let folder = at(Folder::new(), 60)
            .with("run/prefetch-images/named/9", "later\n")
            .with("run/prefetch-images/named/x", "");
        assert_eq!(read(&folder.host()), Some(HashSet::new()));
        assert!(folder.host().list(FOLDER).is_empty());
    }
}
