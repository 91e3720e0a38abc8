//! Pulls that were begun: where a command is killed between a pull's end and its naming, the next knows the image for ours.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use prefetch::image::Image;

use crate::host::{Host, RUN};

/// The file with a reference per line, for whoever has the lock.
const FILE: &str = "begun";

/// Notes that an image's pull begins.
///
/// # Errors
/// The operating system's.
pub fn note(host: &Host, image: &Image) -> io::Result<()> {
    let folder = host.path(RUN);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join(FILE))?
        .write_all(format!("{image}\n").as_bytes())
}

/// Returns the images whose pulls a command began that did not come to its end.
#[must_use]
pub fn read(host: &Host) -> Vec<Image> {
    let text = host.read(Path::new(RUN).join(FILE)).unwrap_or_default();
    let images = text.lines().filter_map(|line| line.parse().ok());
    images.collect()
}

/// Forgets them: the command has come to its end.
pub fn forget(host: &Host) {
    fs::remove_file(host.path(RUN).join(FILE)).ok(); // most have begun none
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Folder;

    #[test]
    fn what_was_begun_is_known_until_the_command_ends() {
        let folder = Folder::new();
        let host = folder.host();
        assert_eq!(read(&host), []);
        let images: Vec<Image> = ["a", "b"]
            .map(|digit| format!("registry.example/app:v1@sha256:{}", digit.repeat(64)))
            .map(|text| text.parse().unwrap())
            .into();
        for image in &images {
            note(&host, image).unwrap();
        }
        assert_eq!(read(&host), images);
        forget(&host);
        assert_eq!(read(&host), []);
        forget(&host);
    }

    #[test]
    fn a_line_that_was_cut_off_is_none() {
        let folder = Folder::new().with("run/prefetch-images/begun", "registry.example/app:v1@sha2");
        assert_eq!(read(&folder.host()), []);
    }
}
