//! The node's own file system and programs, as seen from this process.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// Bounds the file of settings that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Names the folder with what commands keep until the node is started anew, on the host.
pub const RUN: &str = "/run/prefetch-images";

/// The machine: itself on most nodes; on Bottlerocket, seen from a host container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Stands before every path of the host: nothing, or `/proc/1/root` in a host container of Bottlerocket.
    root: PathBuf,
}

impl Host {
    /// Takes this file system for the host's.
    #[must_use]
    pub fn here() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }

    /// Takes what process 1 sees for the host's file system: its mounts as they are now.
    #[must_use]
    pub fn around_host_container() -> Self {
        Self {
            root: PathBuf::from("/proc/1/root"),
        }
    }

    /// Takes a folder for the host's file system, for tests.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Returns a path of the host as this process reaches it: `/run/x` is `/proc/1/root/run/x` in a host container.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads a file of settings of the host; none where it cannot be read, is no text, or is longer than a mebibyte.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = self.path(path);
        let mut text = String::new();
        // What is no file, such as a pipe, might never be read to its end.
        let is_file = fs::metadata(&path).is_ok_and(|found| found.is_file());
        let file = is_file.then(|| File::open(&path).ok()).flatten()?;
        file.take(MAX_FILE + 1).read_to_string(&mut text).ok()?;
        (text.len() as u64 <= MAX_FILE).then_some(text)
    }

    /// Lists the names in a folder of the host, sorted; none where it cannot be read.
    #[must_use]
    pub fn list(&self, folder: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort_unstable();
        names
    }

    /// Returns true in a host container of Bottlerocket, where programs of the host run by nsenter.
    #[must_use]
    pub fn is_bottlerocket(&self) -> bool {
        self.root == Path::new("/proc/1/root")
    }

    /// Returns the words that a program of the host is started with: its own, behind `nsenter --target 1 --mount --` in a
    /// host container. The arguments of the program follow.
    #[must_use]
    pub fn program(&self, program: &str) -> Vec<String> {
        let enter: &[&str] = if self.is_bottlerocket() {
            &["nsenter", "--target", "1", "--mount", "--"]
        } else {
            &[]
        };
        enter.iter().copied().chain([program]).map(str::to_owned).collect()
    }
}

#[cfg(test)]
pub(crate) use tests::Folder;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{Host, PathBuf, fs};

    /// A folder that stands for a machine's file system, and goes with the test.
    pub(crate) struct Folder(PathBuf);

    impl Folder {
        pub(crate) fn new() -> Self {
            static NUMBER: AtomicUsize = AtomicUsize::new(0);
            let name = format!(
                "prefetch-images-{}-{}",
                std::process::id(),
                NUMBER.fetch_add(1, Ordering::Relaxed)
            );
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        pub(crate) fn with(self, file: &str, text: &str) -> Self {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        pub(crate) fn host(&self) -> Host {
            Host::at(&self.0)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn files_of_settings_are_read_and_nothing_else_is() {
        let folder = Folder::new()
            .with("etc/a", "text")
            .with("etc/long", &"a".repeat(1 << 21));
        let host = folder.host();
        assert_eq!(host.read("/etc/a").as_deref(), Some("text"));
        for other in ["/etc", "/etc/none", "/etc/long"] {
            assert_eq!(host.read(other), None);
        }
        assert_eq!(Host::here().read("/dev/zero"), None);
        assert_eq!(host.list("/etc"), ["a", "long"]);
        assert!(host.list("/none").is_empty());
    }
}
