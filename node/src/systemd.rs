//! A service's unit as systemd reads it: the environment of its process, and its command line.
//!
//! The files are read, not the environment of a process that is called kubelet: a pod may have one of that name, and before
//! kubelet's first start there is none.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

mod line;

pub use line::environment_file;

use crate::{glob, host::Host};

/// Names the folders of units and their drop-ins, the stronger first (systemd.unit(5), without generators' and transient ones).
const FOLDERS: [&str; 6] = [
    "/etc/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Bounds the files that one `EnvironmentFile=` names by its wildcards.
const MAX_FILES: usize = 64;

/// Holds what a unit says of its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceUnit {
    /// Its environment, beyond what systemd gives to all.
    pub environment: BTreeMap<String, String>,
    /// The words of `ExecStart=`, with the environment's values in place of `$NAME` and `${NAME}`.
    pub command_line: Vec<String>,
}

impl ServiceUnit {
    /// Reads a service's unit and its drop-ins; one that is not there says nothing.
    #[must_use]
    pub fn of(host: &Host, name: &str) -> Self {
        let mut lines = Lines::default();
        for file in files(host, name) {
            if let Some(text) = host.read(&file) {
                lines.add(&text);
            }
        }
        lines.finish(host)
    }

    /// Returns the value of a flag on the command line, `--name=value` or `--name value`; the last one counts.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&str> {
        let words = &self.command_line;
        words.iter().enumerate().rev().find_map(|(at, word)| {
            let rest = word.strip_prefix("--")?.strip_prefix(name)?;
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None if rest.is_empty() => words.get(at + 1).map(String::as_str),
                None => None,
            }
        })
    }
}

/// Returns the unit's own file and then its drop-ins by file name, of equal names only the one in the strongest folder.
fn files(host: &Host, name: &str) -> Vec<PathBuf> {
    let own = FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|file| host.path(file).exists());
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS {
        let folder = Path::new(folder).join(format!("{name}.d"));
        for file in host.list(&folder) {
            if glob::matches("*.conf", &file) {
                let path = folder.join(&file);
                drop_ins.entry(file).or_insert(path);
            }
        }
    }
    own.into_iter().chain(drop_ins.into_values()).collect()
}

/// The settings of a unit's files so far.
#[derive(Debug, Default)]
struct Lines {
    set: BTreeMap<String, String>,
    files: Vec<String>,
    unset: Vec<String>,
    exec_start: String,
}

impl Lines {
    fn add(&mut self, text: &str) {
        let mut is_service = false;
        for line in line::logical(text) {
            if line.starts_with('[') {
                is_service = line == "[Service]";
            } else if is_service && let Some((key, value)) = line.split_once('=') {
                self.take(key.trim_end(), value.trim_start());
            }
        }
    }

    fn take(&mut self, key: &str, value: &str) {
        match (key, value) {
            ("Environment", "") => self.set.clear(),
            ("EnvironmentFile", "") => self.files.clear(),
            ("UnsetEnvironment", "") => self.unset.clear(),
            ("Environment", _) => self
                .set
                .extend(line::words(value).iter().filter_map(|word| line::assignment(word))),
            ("EnvironmentFile", _) => self.files.push(value.to_owned()),
            ("UnsetEnvironment", _) => self.unset.extend(line::words(value)),
            ("ExecStart", _) => value.clone_into(&mut self.exec_start),
            _ => {}
        }
    }

    fn finish(self, host: &Host) -> ServiceUnit {
        let mut environment = self.set;
        for file in self
            .files
            .iter()
            .flat_map(|file| expand(host, file.strip_prefix('-').unwrap_or(file)))
        {
            environment.extend(line::environment_file(&host.read(&file).unwrap_or_default()));
        }
        for word in self.unset {
            match word.split_once('=') {
                Some((name, value)) if environment.get(name).is_none_or(|own| own != value) => {}
                Some((name, _)) => drop(environment.remove(name)),
                None => drop(environment.remove(&word)),
            }
        }
        let command_line = line::words(&self.exec_start)
            .iter()
            .flat_map(|word| line::expand(word, &environment))
            .collect();
        ServiceUnit {
            environment,
            command_line,
        }
    }
}

/// Returns the files that a path stands for, whose last part may have wildcards.
fn expand(host: &Host, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (true, Some(folder)) = (name.contains(['*', '?', '[']), path.parent()) else {
        return vec![path.to_owned()];
    };
    let found = host.list(folder).into_iter();
    found
        .filter(|file| glob::matches(&name, file))
        .take(MAX_FILES)
        .map(|file| folder.join(file))
        .collect()
}

#[cfg(test)]
mod tests;
