//! A node of the replay: which layers it has, which of them prefetch brought, and what runs there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use prefetch::rows::UsageDay;

use crate::{
    tally::{By, Tally},
    world::{DAY, ImageId, NodeId, World},
};

/// A line of a report: an image, and whether a container runs it.
pub type Line = (ImageId, bool);

pub struct Node {
    pub pool: usize,
    /// Tells when it became Ready.
    pub since: u32,
    layers: Vec<u64>,
    /// The layers that prefetch brought and no pod has used yet, and when.
    unused: HashMap<usize, (u32, By)>,
    running: BTreeMap<ImageId, u32>,
    /// A set of this node alone.
    pub itself: UsageDay,
    /// The images that kubelet pulled, and until when ended containers stay of others.
    not_running: BTreeMap<ImageId, u32>,
    /// The day and what rows have heard from it.
    told: (u32, BTreeSet<Line>),
    /// Tells that nothing has changed since rows have heard all.
    has_told_all: bool,
    bytes: u64,
}

impl Node {
    pub fn new(id: NodeId, pool: usize, since: u32, world: &World) -> Self {
        let mut itself = UsageDay::default();
        itself.running.add(&format!("i-{id:017x}"));
        Self {
            pool,
            since,
            layers: vec![0; world.layers.len().div_ceil(64)],
            unused: HashMap::new(),
            running: BTreeMap::new(),
            not_running: BTreeMap::new(),
            itself,
            told: (0, BTreeSet::new()),
            has_told_all: false,
            bytes: 0,
        }
    }

    pub fn has(&self, world: &World, image: ImageId) -> bool {
        world.images[image].layers.iter().all(|layer| self.has_layer(*layer))
    }

    fn has_layer(&self, layer: usize) -> bool {
        self.layers[layer / 64] & (1 << (layer % 64)) != 0
    }

    fn add(&mut self, world: &World, layer: usize, tally: &mut Tally) {
        self.layers[layer / 64] |= 1 << (layer % 64);
        self.bytes += world.layers[layer].bytes;
        tally.fullest_node = tally.fullest_node.max(self.bytes);
    }

    /// Has prefetch bring what the node lacks of an image.
    pub fn bring(&mut self, world: &World, image: ImageId, (at, by): (u32, By), tally: &mut Tally) {
        for layer in world.images[image].layers {
            if !self.has_layer(layer) {
                self.add(world, layer, tally);
                self.unused.insert(layer, (at, by));
                tally.brought(&world.layers[layer], at, by);
            }
        }
    }

    /// Starts a pod; returns true where its image was there.
    pub fn start(&mut self, world: &World, image: ImageId, at: u32, tally: &mut Tally) -> bool {
        let is_there = self.has(world, image);
        for layer in world.images[image].layers {
            if let Some((since, by)) = self.unused.remove(&layer) {
                tally.uses(&world.layers[layer], (since, by), at);
            }
            if !self.has_layer(layer) {
                self.add(world, layer, tally);
            }
        }
        if !is_there {
            self.not_running.insert(image, u32::MAX);
        }
        *self.running.entry(image).or_default() += 1;
        self.has_told_all = false;
        is_there
    }

    /// Lists what a report says and rows have not heard today.
    pub fn untold(&mut self, at: u32) -> Vec<Line> {
        let today = at / DAY;
        if self.told.0 != today {
            self.told = (today, BTreeSet::new());
            self.has_told_all = false;
        }
        if self.has_told_all {
            return Vec::new();
        }
        self.not_running.retain(|_, until| *until >= at);
        let running = self.running.keys().map(|image| (*image, true));
        let others = self
            .not_running
            .keys()
            .filter(|image| !self.running.contains_key(image));
        let all = running.chain(others.map(|image| (*image, false)));
        all.filter(|line| !self.told.1.contains(line)).collect()
    }

    /// Notes that rows have heard all that there is to tell.
    pub fn has_told(&mut self, lines: &[Line]) {
        self.told.1.extend(lines);
        self.has_told_all = true;
    }

    /// Ends a pod, whose container stays until then.
    pub fn stop(&mut self, image: ImageId, stays: u32) {
        self.has_told_all = false;
        let running = self.running.get_mut(&image).expect("it runs here");
        *running -= 1;
        if *running == 0 {
            self.running.remove(&image);
        }
        let until = self.not_running.entry(image).or_default();
        *until = stays.max(*until);
    }
}
