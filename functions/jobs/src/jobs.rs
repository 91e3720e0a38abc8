//! Every client of the function, and which of them each call gets.

use std::sync::Arc;

use prefetch::{boot::BootLists, rule_images::RuleImages, sender::Sender, tags::TagResolver, usage::Usage};

use crate::{
    nodes::sources::NodeSources,
    reconcile::{Reconciler, names::NamedImageFinder, rule::RuleReconciler},
    schedule::scheduler::Scheduler,
    settings::Settings,
    status::sources::JobSources,
    store::Store,
    submit::{Submitter, planner::Planner},
};

/// Holds every client, which are made once; only the handler has all of them.
pub struct Jobs {
    pub ssm: aws_sdk_ssm::Client,
    pub sender: Sender,
    pub ec2: aws_sdk_ec2::Client,
    pub ecr: aws_sdk_ecr::Client,
    /// Asks nodes what tags of other registries are.
    pub tags: TagResolver,
    pub images: RuleImages,
    /// The boot lists, where the stack keeps them.
    pub boot: Option<BootLists>,
    pub store: Store,
    /// Tells which images the nodes of each rule run.
    pub usage: Arc<Usage>,
    pub scheduler: aws_sdk_scheduler::Client,
    pub settings: Settings,
}

impl Jobs {
    /// Gives what POST /jobs works with.
    pub fn submitter(&self) -> Submitter<'_> {
        Submitter {
            planner: Planner {
                ecr: &self.ecr,
                images: &self.images,
                ec2: &self.ec2,
                ssm: &self.ssm,
                tags: &self.tags,
                settings: &self.settings,
            },
            sender: &self.sender,
            store: &self.store,
        }
    }

    /// Gives what a job is read from.
    pub fn job_sources(&self) -> JobSources<'_> {
        JobSources {
            ssm: &self.ssm,
            store: &self.store,
            settings: &self.settings,
        }
    }

    /// Gives what nodes are read from.
    pub fn node_sources(&self) -> NodeSources<'_> {
        NodeSources {
            ec2: &self.ec2,
            ssm: &self.ssm,
            images: &self.images,
            store: &self.store,
            settings: &self.settings.shared,
        }
    }

    /// Gives what schedules are kept in.
    pub fn scheduler(&self) -> Scheduler<'_> {
        Scheduler {
            client: &self.scheduler,
            settings: &self.settings,
        }
    }

    /// Gives what a reconcile works with.
    pub fn reconciler(&self) -> Reconciler<'_> {
        Reconciler {
            ec2: &self.ec2,
            images: &self.images,
            boot: self.boot.as_ref(),
            rules: RuleReconciler {
                sender: &self.sender,
                ssm: &self.ssm,
                store: &self.store,
                settings: &self.settings.shared,
                names: NamedImageFinder {
                    ecr: &self.ecr,
                    tags: &self.tags,
                    images: &self.images,
                    store: &self.store,
                    cluster: &self.settings.shared.cluster,
                    registry: &self.settings.registry,
                },
            },
        }
    }
}
