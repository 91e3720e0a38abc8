//! One command at a time on a node, and one that waits: more would hold the SSM agent's few workers.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// Separates two looks of a command that waits for its turn.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The locks of a node: whoever holds the first works, whoever holds the second waits for the first. They end with the
/// process: no program that it starts inherits them.
#[derive(Clone, Debug)]
pub struct Locks {
    working: PathBuf,
    waiting: PathBuf,
}

/// A lock that is held while it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Locks {
    /// Names the locks in the folder that commands keep.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            working: folder.join("lock"),
            waiting: folder.join("waiting"),
        }
    }

    /// Takes the lock of the command that works; none where another has it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_work(&self) -> io::Result<Option<Lock>> {
        Lock::try_take(&self.working)
    }

    /// Takes the lock of the command that waits; none where another has it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn try_wait(&self) -> io::Result<Option<Lock>> {
        Lock::try_take(&self.waiting)
    }

    /// Waits for the lock of the command that works. It is asked for again and again, for a thread that waits cannot be called
    /// back.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn work(&self) -> io::Result<Lock> {
        loop {
            if let Some(lock) = self.try_work()? {
                return Ok(lock);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells whether a command waits.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        matches!(self.try_wait(), Ok(None))
    }
}

impl Lock {
    fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_works_and_one_waits_until_the_first_is_done() {
        let folder = std::env::temp_dir().join(format!("prefetch-images-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let locks = Locks::in_folder(&folder);

        let first = locks.try_work().unwrap().unwrap();
        assert!(locks.try_work().unwrap().is_none());
        assert!(!locks.is_waited_for());
        let second = locks.try_wait().unwrap().unwrap();
        assert!(locks.try_wait().unwrap().is_none() && locks.is_waited_for());
        drop((first, second));
        locks.work().await.unwrap();
        assert!(!locks.is_waited_for());

        std::fs::remove_dir_all(folder).unwrap();
    }
}
