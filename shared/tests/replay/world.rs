//! A world of a year: repositories, what is pushed to them, and which pods start where, whatever is prefetched.

use std::sync::OnceLock;

use prefetch::image::Image;

// Every number of the world that is assumed stands here; those of the nodes' reports and pulls in `replay.rs`.

pub const SEED: u64 = 18;
pub const DAYS: u32 = 365;
/// The repositories of the account's registry, and how many of them the cluster runs when the year begins.
pub const REPOSITORIES: usize = 200;
pub const RUN: usize = 40;
/// Applications that begin and that end in each month; one that begins runs a repository that was pushed to for long.
pub const NEW_PER_MONTH: u32 = 2;
/// Pushes to a repository on a working day: half have fewer than 0.4, a few several. On a free day there are few.
pub const PUSHES: (f64, f64) = (0.4, 1.1);
pub const ON_FREE_DAYS: f64 = 0.05;
/// So many of the services are delivered continuously: nearly each push is rolled out, after minutes. The others are rolled
/// out by hand, after hours and up to a day, and half of their pushes never are.
pub const CONTINUOUS: f64 = 0.7;
pub const ROLLED_OUT: (f64, f64) = (0.95, 0.5);
pub const ROLL_OUT_AFTER: ((f64, f64), (f64, f64)) = ((12.0 * MINUTE_F, 0.8), (180.0 * MINUTE_F, 1.0));
/// Compressed bytes of an image, in MB: a service's, and one of the large ones that the pool for data runs.
pub const IMAGE_MB: (f64, f64) = (180.0, 0.8);
pub const LARGE_IMAGE_MB: (f64, f64) = (2_000.0, 0.5);
/// One of so many parts of an image is made anew by each push; the rest is layers below, which every 25th push renews.
pub const OWN_PARTS: u64 = 5;
pub const RENEWED: f64 = 0.04;
/// Replicas of a service: half have three at most, a few some twenty; add-ons that are no DaemonSets have two.
pub const REPLICAS: (f64, f64) = (3.0, 0.9);
/// DaemonSets and add-ons of other registries, each renewed once a month.
pub const DAEMON_SETS: usize = 6;
pub const ADD_ONS: usize = 4;
/// Services that run for five minutes at a time on some node: how many, and how often a day.
pub const CRON: [(usize, u32); 3] = [(1, 96), (3, 24), (2, 1)];
/// Two pools, the second for data: nodes by night and on a working day, and services that run there in the beginning.
pub const POOLS: [Pool; 2] = [
    Pool {
        nodes: (16, 28),
        services: 35,
    },
    Pool {
        nodes: (3, 6),
        services: 5,
    },
];
/// Pods of services that a node of the morning gets because these scale with it.
pub const PODS_OF_MORNING: usize = 8;
/// Nodes that fail or are reclaimed in a day, of all.
pub const RECLAIMED: f64 = 0.01;
/// A roll-out starts a quarter of the pods at a time, each step so many seconds after the other; a DaemonSet's one node.
pub const STEP: u32 = 30;

pub const MINUTE: u32 = 60;
const MINUTE_F: f64 = 60.0;
pub const HOUR: u32 = 60 * MINUTE;
pub const DAY: u32 = 24 * HOUR;
pub const YEAR: u32 = DAYS * DAY;
pub const REGISTRY: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
pub const OTHER_REGISTRIES: [&str; 3] = [
    "602401143452.dkr.ecr.eu-central-1.amazonaws.com",
    "public.ecr.aws",
    "docker.io",
];

pub struct Pool {
    pub nodes: (u32, u32),
    pub services: usize,
}

pub struct Repository {
    pub registry: &'static str,
    pub name: String,
    pub pushes: f64,
    pub bytes: u64,
    /// The layers below, which the next image is made on.
    pub below: usize,
}

/// An image, by its place among all.
pub type ImageId = usize;
pub type NodeId = usize;

pub struct Built {
    pub repository: usize,
    /// The layers below, and the image's own.
    pub layers: [usize; 2],
    name: OnceLock<Image>,
}

pub struct Layer {
    pub bytes: u64,
    /// Tells when a pod first and last ran an image that has it; the last is before the first where none did.
    pub ran: (u32, u32),
}

/// Tells why a pod starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It ran before the stack was deployed: not counted.
    Before,
    /// The first roll-out of a repository that the cluster did not run.
    FirstRollOut,
    RollOut,
    /// A DaemonSet or an add-on was renewed.
    AddOn,
    /// Its node is new.
    NewNode,
    /// Its node has gone.
    Moved,
    Cron,
}

pub enum Happening {
    Pushed(ImageId),
    /// A node becomes Ready: one that was launched, or that the cluster had before.
    NodeUp {
        node: NodeId,
        pool: usize,
        launched: bool,
    },
    NodeDown(NodeId),
    Started {
        node: NodeId,
        image: ImageId,
        why: Why,
    },
    /// A pod ends; its container stays for so many seconds.
    Stopped {
        node: NodeId,
        image: ImageId,
        stays: u32,
    },
}

#[derive(Default)]
pub struct World {
    /// Those of the account first, then those of other registries.
    pub repositories: Vec<Repository>,
    pub images: Vec<Built>,
    pub layers: Vec<Layer>,
    pub nodes: usize,
    pub happened: Vec<(u32, Happening)>,
}

impl World {
    pub fn bytes(&self, image: ImageId) -> u64 {
        self.images[image]
            .layers
            .map(|layer| self.layers[layer].bytes)
            .iter()
            .sum()
    }

    pub fn image(&self, id: ImageId) -> &Image {
        let built = &self.images[id];
        built.name.get_or_init(|| {
            let repository = &self.repositories[built.repository];
            let digest = format!("sha256:{id:064x}");
            Image::new(repository.registry, &repository.name, Some(&format!("v{id}")), &digest).unwrap()
        })
    }

    /// Returns which image it is that [`World::image`] named.
    pub fn id_of(image: &Image) -> ImageId {
        let (_, digits) = image.digest().split_once(':').unwrap();
        ImageId::from_str_radix(digits, 16).unwrap()
    }

    /// Adds layers below, of a repository's usual size.
    pub fn renew_below(&mut self, repository: usize) {
        let bytes = self.repositories[repository].bytes;
        self.repositories[repository].below = self.add_layer(bytes - bytes / OWN_PARTS);
    }

    pub fn build(&mut self, repository: usize) -> ImageId {
        let Repository { bytes, below, .. } = self.repositories[repository];
        let own = self.add_layer(bytes / OWN_PARTS);
        self.images.push(Built {
            repository,
            layers: [below, own],
            name: OnceLock::new(),
        });
        self.images.len() - 1
    }

    fn add_layer(&mut self, bytes: u64) -> usize {
        self.layers.push(Layer { bytes, ran: (YEAR, 0) });
        self.layers.len() - 1
    }

    /// Takes note of when an image runs.
    pub fn runs(&mut self, image: ImageId, at: u32) {
        for layer in self.images[image].layers {
            let (first, last) = &mut self.layers[layer].ran;
            (*first, *last) = (at.min(*first), at.max(*last));
        }
    }
}
