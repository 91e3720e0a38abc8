//! Where the node's own file system and programs are, as seen from this process.

use std::path::{Path, PathBuf};

/// The machine: itself on most nodes; on Bottlerocket, seen from the admin container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What stands before every path of the host: nothing, or `/proc/1/root` in Bottlerocket's admin container.
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
    pub fn around_admin_container() -> Self {
        Self {
            root: PathBuf::from("/proc/1/root"),
        }
    }

    /// Takes a folder for the host's file system, for tests.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Returns a path of the host as this process reaches it: `/run/x` is `/proc/1/root/run/x` in an admin container.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns true in Bottlerocket's admin container, where programs of the host run by nsenter.
    #[must_use]
    pub fn is_bottlerocket(&self) -> bool {
        self.root == Path::new("/proc/1/root")
    }

    /// Returns the words that a program of the host is started with: its own, behind `nsenter --target 1 --mount --` in an
    /// admin container. The arguments of the program follow.
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
