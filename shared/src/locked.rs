//! Locks what the tasks of a process share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, whatever became of who held it before: what is remembered is whole between two lines.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
