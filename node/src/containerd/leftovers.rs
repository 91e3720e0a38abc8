//! Leftovers of commands and containerds that were killed, and garbage.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tonic::Status;

use super::{
    client::Containerd,
    config::write,
    inventory::Inventory,
    leases::{EXPIRE, Lease, OURS},
    start::Start,
};
use crate::host::{Host, RUN};

/// Names the file with the start of containerd after which leases were looked at.
const CHECKED: &str = "leases-checked";
/// Bounds the time for which a lease of ours holds where nobody removes it.
const LEASE_ENDS: Duration = Duration::from_secs(30);

/// Makes a name for a lease or a snapshot: of this process, and used once.
#[must_use]
pub fn own_name() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{OURS}{}.{number}", std::process::id())
}

/// Returns the process that a name of ours is of.
fn process(name: &str) -> Option<u32> {
    let (process, _) = name
        .strip_prefix(OURS)?
        .split_once('.')
        .unwrap_or((name.strip_prefix(OURS)?, ""));
    process.parse().ok()
}

/// Tells whether a process is gone.
fn is_gone(process: u32) -> bool {
    !Path::new("/proc").join(process.to_string()).exists()
}

/// Removes what commands that were killed left behind in containerd: leases and snapshots of theirs; and, once after each
/// start of containerd, the leases of pulls that died with the one before. Returns the latter's names.
///
/// It is for the command that has the node to itself.
///
/// # Errors
/// containerd's; what is left is for the next command.
pub async fn remove_leftovers(
    containerd: &Containerd,
    host: &Host,
    inventory: &Inventory,
) -> Result<BTreeSet<String>, Status> {
    let mut removed = Ok(()); // what cannot be removed keeps nothing else
    let names = inventory.snapshots.keys();
    for name in names.filter(|name| process(name).is_some_and(is_gone)) {
        removed = removed.and(containerd.remove_snapshot(&inventory.snapshotter, name).await);
    }
    let leases = containerd.leases().await?;
    let of_ours = leases.iter().map(|lease| &lease.id);
    for id in of_ours.filter(|id| process(id).is_some_and(is_gone)) {
        removed = removed.and(containerd.remove_lease(id, false).await);
    }
    let Some(start) = Start::of(host).filter(|start| !is_checked(host, *start)) else {
        return removed.map(|()| BTreeSet::new());
    };
    let stale: BTreeSet<_> = start.moment().map(|start| stale(&leases, start)).unwrap_or_default();
    for id in &stale {
        removed = removed.and(containerd.remove_lease(id, false).await);
    }
    removed?;
    write(&host.path(RUN), CHECKED, start.to_string().as_bytes()).ok(); // the next command looks again
    Ok(stale)
}

fn is_checked(host: &Host, start: Start) -> bool {
    fs::read_to_string(host.path(RUN).join(CHECKED)).is_ok_and(|checked| checked == start.to_string())
}

/// Returns the leases that are older than the containerd that runs and made for a pull: such have a made-up name and nothing
/// but an end.
fn stale(leases: &[Lease], start: DateTime<Utc>) -> BTreeSet<String> {
    let is_of_pull = |lease: &&Lease| {
        let (number, rest) = lease.id.split_once('-').unwrap_or_default();
        let is_made_up = |character: u8| character.is_ascii_alphanumeric() || b"_=-".contains(&character);
        !number.is_empty()
            && number.bytes().all(|digit| digit.is_ascii_digit())
            && !rest.is_empty()
            && rest.bytes().all(is_made_up)
            && lease.labels.len() == 1
            && lease.labels.contains_key(EXPIRE)
    };
    let is_older = |lease: &&Lease| lease.created_at.is_some_and(|created_at| created_at < start);
    let stale = leases.iter().filter(is_of_pull).filter(is_older);
    stale.map(|lease| lease.id.clone()).collect()
}

/// Removes the files and folders of processes that are gone from what commands keep: `<process>` and `<name>.<process>`.
pub fn remove_files(host: &Host) {
    for entry in fs::read_dir(host.path(RUN)).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.rsplit('.').next()?.parse().ok());
        if process.is_some_and(is_gone) {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let remove = if is_folder { fs::remove_dir_all } else { fs::remove_file };
            remove(entry.path()).ok(); // the next command tries again
        }
    }
}

/// Makes containerd collect what no name and no lease holds, now: it does so whenever a lease goes. What it could not remove
/// from a snapshotter on a full disk it tries again only once a snapshot has been removed there.
///
/// # Errors
/// containerd's.
pub async fn collect_garbage(containerd: &Containerd, full_snapshotter: Option<&str>) -> Result<(), Status> {
    let name = own_name();
    containerd.create_lease(&name, LEASE_ENDS).await?;
    if let Some(snapshotter) = full_snapshotter
        && containerd.prepare_snapshot(snapshotter, &name).await.is_ok()
    {
        containerd.remove_snapshot(snapshotter, &name).await.ok(); // it is not held by anything
    }
    containerd.remove_lease(&name, true).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::host::Folder;

    fn moment(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a moment")
    }

    fn lease(id: &str, created_at: i64, labels: &[&str]) -> Lease {
        Lease {
            id: id.to_owned(),
            created_at: Some(moment(created_at)),
            labels: labels
                .iter()
                .map(|label| ((*label).to_owned(), String::new()))
                .collect(),
        }
    }

    #[test]
    fn leases_of_pulls_before_the_start_are_stale_and_no_others() {
        let leases = [
            lease("402381-aB_-=", 99, &[EXPIRE]),
            lease("402382-aBcD", 101, &[EXPIRE]),
            lease("402383-aBcD", 99, &[EXPIRE, "of/somebody"]),
            lease("402384-aBcD", 99, &["containerd.io/gc.flat"]),
            lease("by-hand", 99, &[EXPIRE]),
            lease("prefetch-images-7", 99, &[EXPIRE]),
            lease("12-", 99, &[EXPIRE]),
            lease("12", 99, &[EXPIRE]),
            Lease {
                created_at: None,
                ..lease("402385-aBcD", 0, &[EXPIRE])
            },
        ];
        assert_eq!(stale(&leases, moment(100)), BTreeSet::from(["402381-aB_-=".to_owned()]));
    }

    #[test]
    fn names_of_ours_tell_their_process_whichever_version_made_them() {
        assert_eq!(process("prefetch-images-17"), Some(17));
        assert_eq!(process("prefetch-images-17.3"), Some(17));
        assert_eq!(process(&own_name()), Some(std::process::id()));
        assert_ne!(own_name(), own_name());
        for name in [
            "prefetch-images-",
            "prefetch-images-x",
            "17",
            "prefetch-images--1",
            "sha256:17",
        ] {
            assert_eq!(process(name), None, "{name}");
        }
    }

    #[test]
    fn files_of_processes_that_are_gone_go_and_others_stay() {
        let (gone, own) = (u32::MAX, std::process::id());
        let (kept, left) = (format!("config.{own}"), format!("config.{gone}"));
        let files = [
            "lock",
            "config",
            "leases-checked",
            &kept,
            &left,
            &format!("{gone}/file"),
        ];
        let folder = files.iter().fold(Folder::new(), |folder, file| {
            folder.with(&format!("run/prefetch-images/{file}"), "")
        });

        remove_files(&folder.host());

        assert_eq!(
            folder.host().list(RUN).into_iter().collect::<BTreeSet<_>>(),
            ["config", "leases-checked", "lock", &kept].map(str::to_owned).into()
        );
    }

    proptest! {
        #[test]
        fn any_lease_is_read(id in "\\PC{0,40}", labels in proptest::collection::btree_map("\\PC{0,10}", "\\PC{0,10}", 0..3)) {
            let lease = Lease { id: id.clone(), created_at: None, labels: BTreeMap::clone(&labels) };
            prop_assert!(stale(&[lease], moment(0)).is_empty());
            process(&id);
        }
    }
}
