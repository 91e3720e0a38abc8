//! The deletion of snapshots, and of their details in SSM's parameters.

use std::collections::BTreeSet;

use aws_sdk_ec2::error::ProvideErrorMetadata;
use prefetch::{bake::Architecture, error_text::error_text};
use tracing::info;

use crate::{settings::Settings, snapshot::Snapshot, swept::Swept};

/// Bounds the parameters of one DeleteParameters (SSM service model).
const MAX_PARAMETERS: usize = 10;

/// Tells what became of a snapshot that was to be deleted.
enum Deleted {
    /// It is no more.
    Gone,
    /// It is in use.
    InUse(String),
}

/// Deletes snapshots of the stack.
pub struct Deletion<'a> {
    pub ec2: &'a aws_sdk_ec2::Client,
    pub ssm: &'a aws_sdk_ssm::Client,
    pub settings: &'a Settings,
}

impl Deletion<'_> {
    /// Deletes snapshots, and before them what is said of them: were they gone first, nothing would name it any more.
    pub async fn delete(&self, snapshots: Vec<&Snapshot>, swept: &mut Swept) {
        let described = self.delete_details(&snapshots, swept).await;
        for snapshot in snapshots {
            if !described.contains(&snapshot.id) {
                self.delete_snapshot(snapshot, swept).await;
            }
        }
    }

    /// Deletes a snapshot, a pending one as well; EC2 disables fast restore with it (EBS user guide).
    async fn delete_snapshot(&self, snapshot: &Snapshot, swept: &mut Swept) {
        let id = &snapshot.id;
        let deleted = match self.ec2.delete_snapshot().snapshot_id(id).send().await {
            Ok(_) => Ok(Deleted::Gone),
            Err(error) => match error.code() {
                Some("InvalidSnapshot.NotFound") => Ok(Deleted::Gone),
                Some("InvalidSnapshot.InUse") => {
                    let message = error.message().unwrap_or("EC2 does not say by what");
                    Ok(Deleted::InUse(format!("it is in use: {message}")))
                }
                _ => Err(error_text(&error)),
            },
        };
        match deleted {
            Ok(Deleted::Gone) => {
                info!(snapshot.id = id, "snapshot {id} is deleted");
                swept.deleted.push(id.clone());
            }
            Ok(Deleted::InUse(because)) => swept.keep(snapshot, because),
            Err(why) => swept.fail(id, &format!("it could not be deleted: {why}")),
        }
    }

    /// Deletes the details of snapshots, and names the snapshots of which some may still be there.
    async fn delete_details(&self, snapshots: &[&Snapshot], swept: &mut Swept) -> BTreeSet<String> {
        let names = self.details(snapshots);
        let mut described = BTreeSet::new();
        for names in names.chunks(MAX_PARAMETERS) {
            let texts: Vec<String> = names.iter().map(|(_, name)| name.clone()).collect();
            let request = self.ssm.delete_parameters().set_names(Some(texts.clone()));
            match request.send().await {
                Ok(answer) => {
                    // SSM says which there are not, too.
                    let gone = [answer.deleted_parameters(), answer.invalid_parameters()].concat();
                    for (snapshot, name) in names.iter().filter(|(_, name)| !gone.contains(name)) {
                        swept.fail(name, "SSM does not say that the parameter is deleted");
                        described.insert((*snapshot).clone());
                    }
                }
                Err(error) => {
                    let why = format!("the parameters could not be deleted: {}", error_text(&error));
                    swept.fail(&texts.join(", "), &why);
                    described.extend(names.iter().map(|(snapshot, _)| (*snapshot).clone()));
                }
            }
        }
        described
    }

    /// Names the parameters with the details of snapshots; of one whose architecture nobody knows, those for each.
    fn details<'a>(&self, snapshots: &[&'a Snapshot]) -> Vec<(&'a String, String)> {
        let names = snapshots.iter().flat_map(|snapshot| {
            let architectures = snapshot
                .architecture
                .map_or(Architecture::ALL.to_vec(), |one| vec![one]);
            let name = |architecture| self.settings.details(architecture, &snapshot.id);
            architectures
                .into_iter()
                .map(move |architecture| (&snapshot.id, name(architecture)))
        });
        names.collect()
    }
}
