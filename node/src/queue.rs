//! Commands that found two others on the node: what they asked for waits here for whoever has nobody behind.
//!
//! An entry is the parameters, as a file of its own: it appears whole and goes when it is done, so that a process that dies
//! loses none.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest, Sha256};

use crate::parameters::Parameters;

/// Bounds the entries; a command beyond them is only reported as not done, and tried again by whoever sent it.
const MAX_ENTRIES: usize = 64;
/// Bounds the age of an entry that is still wanted: after that the hourly reconcile has sent the same again.
const MAX_AGE: Duration = Duration::from_hours(24);
/// Bounds the entry that is read, in bytes: a command document's parameters are smaller (SSM's limit for both is 64 KB).
const MAX_BYTES: u64 = 64 << 10;

/// The folder with the entries.
#[derive(Clone, Debug)]
pub struct Queue {
    folder: PathBuf,
}

/// One command that waits.
#[derive(Debug)]
pub struct Entry {
    /// Its parameters.
    pub parameters: Parameters,
    file: PathBuf,
    since: SystemTime,
}

impl Queue {
    /// Names the queue in the folder that commands keep.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.join("queue"),
        }
    }

    /// Adds a command; one that asks for the same as another takes its place. Returns false where the queue is full.
    ///
    /// # Errors
    /// The operating system's.
    pub fn add(&self, parameters: &Parameters) -> io::Result<bool> {
        let text = serde_json::to_vec(&parameters.variables())?;
        fs::create_dir_all(&self.folder)?;
        let name = name_of(&text);
        let file = self.folder.join(&name);
        if !file.exists() && self.files()?.len() >= MAX_ENTRIES {
            return Ok(false);
        }
        let new = self.folder.join(format!(".{name}.{}", std::process::id()));
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut to| to.write_all(&text))
            .and_then(|()| fs::rename(&new, &file));
        if written.is_err() && new.exists() {
            fs::remove_file(&new)?;
        }
        written.map(|()| true)
    }

    /// Removes a command, which has its turn after all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self, parameters: &Parameters) -> io::Result<()> {
        let text = serde_json::to_vec(&parameters.variables())?;
        remove(&self.folder.join(name_of(&text)))
    }

    /// Returns the entry that has waited longest, of those that are not `done_with`; what has expired or cannot be read goes.
    ///
    /// # Errors
    /// The operating system's.
    pub fn next(&self, done_with: &[PathBuf], now: SystemTime) -> io::Result<Option<Entry>> {
        let mut entries = Vec::new();
        for file in self.files()? {
            match read(&file, now) {
                Some(entry) if !done_with.contains(&entry.file) => entries.push(entry),
                Some(_) => {}
                None => remove(&file)?,
            }
        }
        Ok(entries.into_iter().min_by_key(|entry| entry.since))
    }

    /// Removes what a command that was killed left half written.
    ///
    /// # Errors
    /// The operating system's.
    pub fn clear_unfinished(&self) -> io::Result<()> {
        for file in self.names()?.into_iter().filter(|file| is_hidden(file)) {
            let is_old = fs::metadata(&file)
                .and_then(|about| about.modified())
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > Duration::from_mins(1)));
            if is_old {
                remove(&file)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let names = self.names()?.into_iter();
        Ok(names.filter(|file| !is_hidden(file)).collect())
    }

    fn names(&self) -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&self.folder) {
            Ok(folder) => folder.map(|entry| Ok(entry?.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

impl Entry {
    /// Removes an entry that is done.
    ///
    /// # Errors
    /// The operating system's.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.file)
    }

    /// Returns its file, by which it is known.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

fn read(file: &Path, now: SystemTime) -> Option<Entry> {
    let from = fs::File::open(file).ok()?;
    let since = from.metadata().and_then(|about| about.modified()).ok()?;
    let mut text = Vec::new();
    from.take(MAX_BYTES).read_to_end(&mut text).ok()?;
    let variables: BTreeMap<String, String> = serde_json::from_slice(&text).ok()?;
    let parameters = Parameters::read(|name| variables.get(name).cloned()).ok()?;
    let is_wanted = now.duration_since(since).is_ok_and(|age| age <= MAX_AGE) || since > now;
    is_wanted.then(|| Entry {
        parameters,
        file: file.to_owned(),
        since,
    })
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the name of an entry: what asks for the same has the same.
#[must_use]
pub fn name_of(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    digest
        .iter()
        .take(16)
        .fold(String::new(), |name, byte| name + &format!("{byte:02x}"))
}

fn is_hidden(file: &Path) -> bool {
    file.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(keep: usize) -> Parameters {
        let digest = "0123456789abcdef".repeat(4);
        Parameters {
            images: vec![format!("registry.example/app:v1@sha256:{digest}").parse().unwrap()],
            execution_timeout: Duration::from_mins(1),
            image_gc_high_threshold_percent: 85,
            max_parallel_image_pulls: 1,
            max_connections: 3,
            bandwidth: None,
            max_image_bytes: None,
            keep,
            pin: false,
            report_only: false,
        }
    }

    fn queue(test: &str) -> Queue {
        let folder = std::env::temp_dir().join(format!("prefetch-images-queue-{test}-{}", std::process::id()));
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        Queue::in_folder(&folder)
    }

    #[test]
    fn what_waits_comes_back_in_order_until_it_is_done() {
        let queue = queue("order");
        let now = SystemTime::now();
        assert!(queue.next(&[], now).unwrap().is_none());
        assert!(queue.add(&parameters(1)).unwrap() && queue.add(&parameters(2)).unwrap());
        assert!(queue.add(&parameters(1)).unwrap(), "again");

        let first = queue.next(&[], now).unwrap().unwrap();
        let other = queue.next(&[first.file().to_owned()], now).unwrap().unwrap();
        assert_ne!(first.parameters.keep, other.parameters.keep);
        first.remove().unwrap();
        first.remove().unwrap();
        assert_eq!(queue.next(&[], now).unwrap().unwrap().parameters, other.parameters);
        other.remove().unwrap();
        assert!(queue.next(&[], now).unwrap().is_none());
    }

    #[test]
    fn what_is_old_or_nothing_that_a_command_wrote_goes() {
        let queue = queue("old");
        assert!(queue.add(&parameters(1)).unwrap());
        fs::write(queue.folder.join("x"), "no JSON").unwrap();
        let later = SystemTime::now() + MAX_AGE + Duration::from_mins(1);
        assert!(queue.next(&[], later).unwrap().is_none());
        assert_eq!(queue.files().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_full_queue_takes_only_what_it_has() {
        let queue = queue("full");
        let mut queued = parameters(0);
        for number in 0..MAX_ENTRIES {
            queued.execution_timeout = Duration::from_secs(100 + number as u64);
            assert!(queue.add(&queued).unwrap());
        }
        assert!(queue.add(&queued).unwrap());
        assert!(!queue.add(&parameters(0)).unwrap());
    }
}
