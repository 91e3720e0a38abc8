//! The cluster of the year: its nodes, its applications and their pods.

use crate::{
    random::Random,
    world::{DAY, Happening, ImageId, NodeId, Why, World},
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Service,
    DaemonSet,
    /// It runs so many times a day.
    Cron(u32),
}

pub struct App {
    pub repository: usize,
    /// The pool that it runs in; a DaemonSet runs in all.
    pub pool: usize,
    pub kind: Kind,
    pub is_continuous: bool,
    pub replicas: usize,
    pub image: ImageId,
    pub pods: Vec<(NodeId, ImageId)>,
    pub has_ended: bool,
}

pub struct Node {
    pub pool: usize,
    pub is_ready: bool,
    pods: usize,
    /// Its pods of each application.
    of_app: Vec<u8>,
}

#[derive(Default)]
pub struct Cluster {
    pub world: World,
    pub apps: Vec<App>,
    pub nodes: Vec<Node>,
    pub ready: Vec<NodeId>,
    pub now: u32,
}

impl Cluster {
    pub fn happens(&mut self, happening: Happening) {
        self.world.happened.push((self.now, happening));
    }

    pub fn node_up(&mut self, pool: usize, launched: bool) -> NodeId {
        let node = self.nodes.len();
        self.nodes.push(Node {
            pool,
            is_ready: true,
            pods: 0,
            of_app: Vec::new(),
        });
        self.ready.push(node);
        self.happens(Happening::NodeUp { node, pool, launched });
        let why = if launched { Why::NewNode } else { Why::Before };
        for app in 0..self.apps.len() {
            if self.apps[app].kind == Kind::DaemonSet {
                self.start(app, node, why);
            }
        }
        node
    }

    /// Drains a node: pods of which there are more than by night end, the others start elsewhere.
    pub fn drain(&mut self, node: NodeId, random: &mut Random) {
        if !std::mem::take(&mut self.nodes[node].is_ready) {
            return;
        }
        self.ready.retain(|ready| *ready != node);
        for app in 0..self.apps.len() {
            while let Some(pod) = self.apps[app].pods.iter().position(|(on, _)| *on == node) {
                self.stop(app, pod);
                let App {
                    kind,
                    replicas,
                    ref pods,
                    ..
                } = self.apps[app];
                if kind == Kind::Service && pods.len() < replicas {
                    self.start_anywhere(app, Why::Moved, random);
                }
            }
        }
        self.happens(Happening::NodeDown(node));
    }

    /// Starts a pod where its application has fewest, then where there are fewest pods at all.
    pub fn start_anywhere(&mut self, app: usize, why: Why, random: &mut Random) {
        let first = random.place(self.ready.len());
        let (before, after) = self.ready.split_at(first);
        let of_pool = after
            .iter()
            .chain(before)
            .filter(|node| self.nodes[**node].pool == self.apps[app].pool);
        let node = of_pool.min_by_key(|node| (self.pods_of(**node, app), self.nodes[**node].pods));
        let node = *node.expect("no pool is ever empty");
        self.start(app, node, why);
    }

    pub fn start(&mut self, app: usize, node: NodeId, why: Why) {
        let image = self.apps[app].image;
        self.apps[app].pods.push((node, image));
        let on = &mut self.nodes[node];
        on.pods += 1;
        on.of_app.resize(on.of_app.len().max(app + 1), 0);
        on.of_app[app] += 1;
        self.world.runs(image, self.now);
        self.happens(Happening::Started { node, image, why });
    }

    pub fn stop(&mut self, app: usize, pod: usize) {
        let (node, image) = self.apps[app].pods.swap_remove(pod);
        self.nodes[node].pods -= 1;
        self.nodes[node].of_app[app] -= 1;
        self.world.runs(image, self.now);
        // A job's last three pods stay until others come (Kubernetes, successfulJobsHistoryLimit); others are deleted.
        let stays = match self.apps[app].kind {
            Kind::Cron(times) => 3 * DAY / times,
            Kind::Service | Kind::DaemonSet => 0,
        };
        self.happens(Happening::Stopped { node, image, stays });
    }

    /// Replaces a pod that does not run its application's image.
    pub fn step(&mut self, app: usize, why: Why, random: &mut Random) {
        let App {
            ref pods,
            image,
            kind,
            has_ended,
            ..
        } = self.apps[app];
        let Some(pod) = pods.iter().position(|(_, runs)| *runs != image) else {
            return;
        };
        if has_ended {
            return;
        }
        let node = pods[pod].0;
        self.stop(app, pod);
        if kind == Kind::DaemonSet {
            self.start(app, node, why);
        } else {
            self.start_anywhere(app, why, random);
        }
    }

    fn pods_of(&self, node: NodeId, app: usize) -> u8 {
        self.nodes[node].of_app.get(app).copied().unwrap_or(0)
    }
}
