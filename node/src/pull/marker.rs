//! Markers of pulls: where a command is killed between the end of a pull and its naming, the next knows the image for ours.
//!
//! There is a file for each while it goes on, which is touched every second. What containerd has named later than a file was
//! touched, somebody else has pulled.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use prefetch::image::Image;

use crate::{
    host::{Host, RUN},
    queue::name_of,
};

/// Names the folder, in that of all commands.
const FOLDER: &str = "begun";
/// Bounds the time between a file's last touch and the end of its pull.
const TOUCHED_WITHIN: Duration = Duration::from_secs(2);

/// A pull that goes on. Its file goes with it, unless the command is killed.
#[derive(Debug)]
pub struct PullMarker {
    path: PathBuf,
    file: File,
}

/// A pull whose command was killed.
#[derive(Debug)]
pub struct KilledPull {
    /// The image.
    pub image: Image,
    /// Tells until when the pull may have gone on.
    pub until: SystemTime,
    path: PathBuf,
}

impl PullMarker {
    /// Notes that an image's pull begins.
    ///
    /// # Errors
    /// The operating system's.
    pub fn note(host: &Host, image: &Image) -> io::Result<Self> {
        let folder = host.path(RUN).join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join(name_of(image.to_string().as_bytes()));
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(image.to_string().as_bytes())?;
        Ok(Self { path, file })
    }

    /// Notes that it still goes on.
    pub fn touch(&self) {
        self.file.set_modified(SystemTime::now()).ok(); // then it is nobody's, as without a file
    }
}

impl Drop for PullMarker {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}

impl KilledPull {
    /// Tells whether there is a file: of a killed command, or of one that is at work.
    #[must_use]
    pub fn may_be_there(host: &Host) -> bool {
        !host.list(Path::new(RUN).join(FOLDER)).is_empty()
    }

    /// Returns what commands that were killed have left, for one that has the lock.
    #[must_use]
    pub fn all(host: &Host) -> Vec<Self> {
        let folder = Path::new(RUN).join(FOLDER);
        let files = host.list(&folder).into_iter();
        files.filter_map(|name| Self::read(host, &folder.join(name))).collect()
    }

    fn read(host: &Host, path: &Path) -> Option<Self> {
        let touched = fs::metadata(host.path(path)).ok()?.modified().ok()?;
        let Some(image) = host.read(path).and_then(|text| text.parse().ok()) else {
            fs::remove_file(host.path(path)).ok(); // half written
            return None;
        };
        Some(Self {
            image,
            until: touched + TOUCHED_WITHIN,
            path: host.path(path),
        })
    }

    /// Forgets it.
    pub fn forget(self) {
        fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Folder;

    fn image(digit: &str) -> Image {
        let reference = format!("registry.example/app:v1@sha256:{}", digit.repeat(64));
        reference.parse().unwrap()
    }

    fn left(host: &Host) -> Vec<Image> {
        KilledPull::all(host).into_iter().map(|left| left.image).collect()
    }

    #[test]
    fn what_was_begun_is_known_while_it_goes_on_and_where_its_end_is_never_seen() {
        let folder = Folder::new();
        let host = folder.host();
        let began = SystemTime::now();
        let (ended, killed) = (
            PullMarker::note(&host, &image("a")).unwrap(),
            PullMarker::note(&host, &image("b")).unwrap(),
        );
        assert_eq!(KilledPull::all(&host).len(), 2);
        drop(ended);
        killed.touch();
        std::mem::forget(killed);
        let [left_over] = KilledPull::all(&host).try_into().unwrap();
        assert_eq!(left_over.image, image("b"));
        assert!(left_over.until >= began && left_over.until <= SystemTime::now() + TOUCHED_WITHIN);
        left_over.forget();
        assert_eq!(left(&host), []);
    }

    #[test]
    fn a_file_that_is_half_written_is_none_and_goes() {
        let folder = Folder::new().with("run/prefetch-images/begun/x", "registry.example/app:v1@sha2");
        assert_eq!(left(&folder.host()), []);
        assert!(folder.host().list("/run/prefetch-images/begun").is_empty());
    }
}
