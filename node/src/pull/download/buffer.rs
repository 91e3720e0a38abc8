//! Chunks that wait for those before them: files in memory (`/run` is a tmpfs), so that a command that is killed leaves what
//! it has downloaded to the next.

use std::{
    cell::{Cell, RefCell},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use prefetch::outcome::NodeReason;

use super::chunks::{Chunk, IN_FLIGHT};
use crate::{
    failure::Failure,
    host::{Host, RUN},
    registry::byte_range::ByteRange,
};

/// Names the folder, in that of all commands.
const FOLDER: &str = "download";
/// Bounds the time for which the chunks of an earlier command are kept.
pub const KEPT: Duration = Duration::from_hours(1);

/// The files of chunks, each named by its layer and by the place of its first byte: `<sha256>.<place>`.
#[derive(Clone, Debug)]
pub struct Files {
    folder: PathBuf,
}

/// A chunk that is downloaded and handed to containerd; its file is open meanwhile.
#[derive(Debug)]
pub struct Buffer {
    /// Its bytes.
    pub part: ByteRange,
    /// True where it counts among those that are in memory.
    pub has_place: Cell<bool>,
    is_left: bool,
    file: RefCell<Option<File>>,
    path: PathBuf,
    /// The place of the file's first byte in the layer.
    begins: u64,
    /// Up to where its bytes are here.
    filled: Cell<u64>,
}

impl Files {
    /// Makes the folder, and removes from it what nobody wants any more, and the oldest beyond [`IN_FLIGHT`].
    ///
    /// # Errors
    /// The operating system's.
    pub fn on(host: &Host) -> io::Result<Self> {
        let folder = host.path(RUN).join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let files = Self { folder };
        let mut all: Vec<_> = files
            .list("")?
            .into_iter()
            .filter_map(|(path, _)| with_age(path))
            .collect();
        all.sort_unstable();
        let mut bytes = 0;
        for (age, length, path) in all {
            bytes += length;
            if age > KEPT || bytes > IN_FLIGHT {
                fs::remove_file(&path).ok(); // the next command tries again
            }
        }
        Ok(files)
    }

    /// Returns the bytes that are here of a layer: their places and lengths.
    ///
    /// # Errors
    /// The operating system's.
    pub fn kept(&self, digest: &str) -> io::Result<Vec<(u64, u64)>> {
        let files = self.list(digest)?.into_iter();
        Ok(files
            .filter_map(|(path, from)| Some((from, fs::metadata(path).ok()?.len())))
            .collect())
    }

    /// Names the file of a chunk.
    #[must_use]
    pub fn buffer(&self, digest: &str, chunk: Chunk) -> Buffer {
        let begins = chunk.kept_from.unwrap_or(chunk.part.from);
        Buffer {
            part: chunk.part,
            has_place: Cell::new(false),
            is_left: chunk.kept_from.is_some(),
            file: RefCell::default(),
            path: self.folder.join(format!("{}.{begins}", hex(digest))),
            begins,
            filled: Cell::new(chunk.kept_from.map_or(chunk.part.from, |_| chunk.part.to)),
        }
    }

    /// Removes what is here of a layer.
    pub fn remove(&self, digest: &str) {
        for (path, _) in self.list(digest).unwrap_or_default() {
            fs::remove_file(path).ok(); // they are old in an hour
        }
    }

    /// Lists the files of a layer, or of all, with the places of their first bytes.
    fn list(&self, digest: &str) -> io::Result<Vec<(PathBuf, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some((layer, from)) = name.split_once('.')
                && (digest.is_empty() || layer == hex(digest))
                && let Ok(from) = from.parse()
            {
                files.push((path.clone(), from));
            }
        }
        Ok(files)
    }
}

impl Buffer {
    /// Returns what is not here yet.
    #[must_use]
    pub fn left(&self) -> ByteRange {
        ByteRange {
            from: self.filled.get(),
            to: self.part.to,
        }
    }

    /// Tells whether all of it is here.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.filled.get() >= self.part.to
    }

    /// Adds what comes next; what is beyond the chunk is not taken.
    ///
    /// # Errors
    /// The operating system's.
    pub fn add(&self, data: &[u8]) -> io::Result<()> {
        let left = usize::try_from(self.part.to - self.filled.get()).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(left)];
        self.with_file(|file| file.write_all_at(data, self.filled.get() - self.begins))?;
        self.filled.set(self.filled.get() + data.len() as u64);
        Ok(())
    }

    /// Reads what is here from a place on, at most so many bytes; nothing where nothing is.
    ///
    /// # Errors
    /// The operating system's.
    pub fn read(&self, from: u64, at_most: usize) -> io::Result<Vec<u8>> {
        let here = self.filled.get().saturating_sub(from);
        let mut data = vec![0; usize::try_from(here).unwrap_or(usize::MAX).min(at_most)];
        if !data.is_empty() {
            self.with_file(|file| file.read_exact_at(&mut data, from - self.begins))?;
        }
        Ok(data)
    }

    /// Removes its file: containerd has all of it.
    pub fn remove(&self) {
        self.file.take();
        fs::remove_file(&self.path).ok(); // it is old in an hour
    }

    fn with_file<T>(&self, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        let mut file = self.file.borrow_mut();
        if let Some(file) = &*file {
            return work(file);
        }
        let opened = OpenOptions::new()
            .create(true)
            .truncate(!self.is_left)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&self.path)?;
        work(file.insert(opened))
    }
}

/// Returns a file's age and length beside it.
fn with_age(path: PathBuf) -> Option<(Duration, u64, PathBuf)> {
    let about = fs::metadata(&path).ok()?;
    let age = SystemTime::now()
        .duration_since(about.modified().ok()?)
        .unwrap_or_default();
    Some((age, about.len(), path))
}

/// Returns a digest without what says that it is one by sha256.
fn hex(digest: &str) -> &str {
    Path::new(digest.strip_prefix("sha256:").unwrap_or(digest))
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// Makes a failure of a file that cannot be written or read.
pub fn of_file(error: &io::Error) -> Failure {
    Failure::new(
        NodeReason::Interrupted,
        format!("a chunk of a layer cannot be kept: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{host::Folder, pull::download::chunks::chunks};

    #[test]
    fn what_a_killed_command_had_downloaded_is_there_for_the_next() {
        let folder = Folder::new();
        let files = Files::on(&folder.host()).unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        let [first, second] = chunks(0, 8, &[], 4).try_into().unwrap();
        let (first, second) = (files.buffer(&digest, first), files.buffer(&digest, second));
        first.add(b"0123").unwrap();
        second.add(b"45").unwrap();
        assert!(first.is_filled() && !second.is_filled());
        assert_eq!(first.read(1, 2).unwrap(), b"12");
        first.remove();

        assert_eq!(files.kept(&digest).unwrap(), [(4, 2)]);
        let [kept, rest] = chunks(5, 8, &[(4, 2)], 4).try_into().unwrap();
        let kept = files.buffer(&digest, kept);
        assert!(kept.is_filled());
        assert_eq!(kept.read(5, 9).unwrap(), b"5");
        assert_eq!(files.buffer(&digest, rest).left(), ByteRange { from: 6, to: 8 });
        files.remove(&digest);
        assert_eq!(files.kept(&digest).unwrap(), []);
    }

    #[test]
    fn a_chunk_takes_no_more_than_its_bytes() {
        let folder = Folder::new();
        let files = Files::on(&folder.host()).unwrap();
        let [chunk] = chunks(0, 3, &[], 4).try_into().unwrap();
        let buffer = files.buffer("sha256:b", chunk);
        buffer.add(b"0123456").unwrap();
        assert_eq!(buffer.read(0, 9).unwrap(), b"012");
    }
}
