//! The replay of a year: what happens, and what one way of prefetching makes of it.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use prefetch::{boot::BootList, rows::UsageDay, settings::Settings, usage::day};

use crate::{
    node::{Line, Node},
    random::Random,
    rows::{Rows, time},
    tally::{By, Tally},
    world::{DAY, HOUR, Happening, ImageId, MINUTE, NodeId, POOLS, SEED, World},
};

/// The reconcile comes so long after each full hour.
const RECONCILED_AT: u32 = 17 * MINUTE;
/// A command reaches nodes so long after a push, and a node so long after it is Ready.
const AFTER_PUSH: u32 = MINUTE;
const AFTER_READY: u32 = MINUTE;
/// Compressed bytes that a node pulls and unpacks in a second.
const PULLED_PER_SECOND: u64 = 50_000_000;
/// Reports of an inventory that come hours late, at most so many; and those that come twice.
const LATE: (f64, u32) = (0.02, 6);
const TWICE: f64 = 0.02;

/// Tells what a new node has before its first pod starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// It has what a boot list has room for; the rest comes by a command.
    List,
    /// It has nothing: all comes by a command.
    Nothing,
}

#[derive(Clone, Debug)]
pub struct Way {
    /// The rules, none where nothing is prefetched; one for all nodes, or one for each pool.
    pub rules: String,
    pub within: u32,
    /// The share of reports that never come.
    pub lost: f64,
    pub boot: Boot,
}

pub struct Replay<'a> {
    world: &'a World,
    way: &'a Way,
    settings: Settings,
    rules: Vec<Rows>,
    rule_by_pool: [Option<usize>; POOLS.len()],
    random: Random,
    newest: Vec<Option<ImageId>>,
    nodes: BTreeMap<NodeId, Node>,
    /// Images that are on their way, by when they come.
    coming: BTreeMap<u32, Vec<Coming>>,
    /// Reports that are on their way, by the hour in which they come.
    reports: BTreeMap<u32, Vec<Report>>,
    prepared: Prepared,
    /// Counts pushes and reconciles.
    changes: u32,
    tally: Tally,
}

/// An image that is on its way.
#[derive(Clone, Copy)]
struct Coming {
    by: By,
    image: ImageId,
    rule: usize,
    to: To,
}

#[derive(Clone, Copy)]
enum To {
    Node(NodeId),
    /// All nodes of the rule that there were at that time.
    All(u32),
}

/// The images of a new node, and how many of them it has before its first pod starts.
#[derive(Default)]
struct Prepared {
    /// The rule, the changes until then, and the day.
    of: Option<(usize, u32, u32)>,
    images: Vec<ImageId>,
    fits: usize,
}

#[derive(Clone)]
struct Report {
    rule: usize,
    at: u32,
    lines: Vec<Line>,
    itself: UsageDay,
}

/// Replays a year.
pub fn replay(world: &World, way: &Way) -> Tally {
    let mut replay = Replay::new(world, way);
    let mut next = RECONCILED_AT;
    for (at, happening) in &world.happened {
        while next <= *at {
            replay.images_come(next);
            replay.reconcile(next);
            next += HOUR;
        }
        replay.images_come(*at);
        replay.happens(*at, happening);
    }
    replay.tally
}

impl<'a> Replay<'a> {
    fn new(world: &'a World, way: &'a Way) -> Self {
        let settings = settings(&way.rules);
        let rules = settings.rules.iter().filter(|_| way.rules != "[]");
        let rules: Vec<Rows> = rules.map(|rule| Rows::new(rule.clone(), way.within, world)).collect();
        let mut newest = vec![None; world.repositories.len()];
        for (id, built) in world.images.iter().enumerate().take(newest.len()) {
            newest[built.repository] = Some(id);
        }
        Self {
            world,
            way,
            settings,
            rule_by_pool: std::array::from_fn(|pool| rule_of(rules.len(), pool)),
            rules,
            random: Random::new(SEED),
            newest,
            nodes: BTreeMap::new(),
            coming: BTreeMap::new(),
            reports: BTreeMap::new(),
            prepared: Prepared::default(),
            changes: 0,
            tally: Tally::default(),
        }
    }

    fn happens(&mut self, at: u32, happening: &Happening) {
        match *happening {
            Happening::Pushed(image) => self.pushed(image, at),
            Happening::NodeUp { node, pool, launched } => {
                self.nodes.insert(node, Node::new(node, pool, at, self.world));
                if launched {
                    self.launched(node, pool, at);
                }
            }
            Happening::NodeDown(node) => drop(self.nodes.remove(&node)),
            Happening::Started { node, image, why } => {
                let on = self.nodes.get_mut(&node).expect("it is up");
                let is_there = on.start(self.world, image, at, &mut self.tally);
                self.tally.started(why, is_there);
            }
            Happening::Stopped { node, image, stays } => {
                self.nodes.get_mut(&node).expect("it is up").stop(image, at + stays);
            }
        }
    }

    fn pushed(&mut self, image: ImageId, at: u32) {
        let repository = self.world.images[image].repository;
        self.newest[repository] = Some(image);
        self.changes += 1;
        let comes = at + AFTER_PUSH + pull_seconds(self.world, image);
        for (rule, rows) in self.rules.iter().enumerate() {
            if rows.repositories().contains(&repository) {
                let (by, to) = (By::Push, To::All(at));
                let coming = self.coming.entry(comes).or_default();
                coming.push(Coming { by, image, rule, to });
            }
        }
    }

    fn launched(&mut self, node: NodeId, pool: usize, at: u32) {
        let Some(rule) = self.rule_by_pool[pool] else {
            return;
        };
        self.prepare(rule, at);
        let (before, after) = self.prepared.images.split_at(self.prepared.fits);
        let on = self.nodes.get_mut(&node).expect("it is up");
        for image in before {
            on.bring(self.world, *image, (at, By::Launch), &mut self.tally);
        }
        let mut comes = at + AFTER_READY;
        for image in after.iter().copied() {
            comes += pull_seconds(self.world, image);
            let (by, to) = (By::Launch, To::Node(node));
            let coming = self.coming.entry(comes).or_default();
            coming.push(Coming { by, image, rule, to });
        }
    }

    /// Names the images of a new node, unless that was done for another one and nothing has changed since.
    fn prepare(&mut self, rule: usize, at: u32) {
        let of = (rule, self.changes, at / DAY);
        if self.prepared.of == Some(of) {
            return;
        }
        let images = self.rules[rule].of_new_node(self.world, &self.newest, at);
        let fits = match self.way.boot {
            Boot::List => BootList::new(&self.settings, &self.rules[rule].rule, &images).images,
            Boot::Nothing => 0,
        };
        self.prepared = Prepared {
            of: Some(of),
            images: images.iter().map(World::id_of).collect(),
            fits,
        };
    }

    fn images_come(&mut self, until: u32) {
        while let Some(next) = self.coming.first_entry().filter(|next| *next.key() <= until) {
            let (at, coming) = next.remove_entry();
            for coming in &coming {
                self.image_comes(at, coming);
            }
        }
    }

    fn image_comes(&mut self, at: u32, coming: &Coming) {
        let Coming { by, image, rule, to } = *coming;
        match to {
            To::Node(node) => {
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.bring(self.world, image, (at, by), &mut self.tally);
                }
            }
            To::All(sent) => {
                let nodes = self.nodes.values_mut();
                for node in nodes.filter(|node| node.since <= sent && self.rule_by_pool[node.pool] == Some(rule)) {
                    node.bring(self.world, image, (at, by), &mut self.tally);
                }
            }
        }
    }

    fn reconcile(&mut self, at: u32) {
        if at % DAY == RECONCILED_AT {
            self.rules.iter_mut().for_each(|rows| rows.expire(at));
        }
        self.send_newest(at);
        self.take_inventories(at);
        self.fold(at);
        self.changes += 1;
    }

    /// Sends nodes the newest images that they lack. Pushes reach all nodes that there are; what they may lack is of repositories
    /// that the rule takes since the last hour, and new nodes may lack more.
    fn send_newest(&mut self, at: u32) {
        for (rule, rows) in self.rules.iter_mut().enumerate().filter(|(_, rows)| rows.reconciles()) {
            let added = rows.added();
            for (id, node) in self
                .nodes
                .iter()
                .filter(|(_, node)| self.rule_by_pool[node.pool] == Some(rule))
            {
                let is_new = node.since + 2 * HOUR > at;
                let mut comes = at + AFTER_PUSH;
                let repositories = if is_new { rows.repositories() } else { &added };
                for image in repositories.iter().filter_map(|repository| self.newest[*repository]) {
                    if !node.has(self.world, image) {
                        comes += pull_seconds(self.world, image);
                        let (by, to) = (By::Reconcile, To::Node(*id));
                        let coming = self.coming.entry(comes).or_default();
                        coming.push(Coming { by, image, rule, to });
                    }
                }
            }
        }
    }

    /// Asks each node what it runs; what rows have heard of it today is left out, for it changes nothing.
    fn take_inventories(&mut self, at: u32) {
        for node in self.nodes.values_mut() {
            let Some(rule) = self.rule_by_pool[node.pool].filter(|rule| self.rules[*rule].asks()) else {
                continue;
            };
            let [lost, late, twice] = [self.way.lost, LATE.0, TWICE].map(|share| self.random.happens(share));
            let hours = u32::from(late) * (1 + self.random.below(LATE.1));
            let lines = node.untold(at);
            if lost || lines.is_empty() {
                continue;
            }
            if !late {
                node.has_told(&lines);
            }
            let itself = node.itself.clone();
            let report = Report {
                rule,
                at,
                lines,
                itself,
            };
            let comes = at / HOUR + hours;
            if twice {
                self.reports.entry(comes + 1).or_default().push(report.clone());
            }
            self.reports.entry(comes).or_default().push(report);
        }
    }

    /// Takes in the reports that come in an hour.
    fn fold(&mut self, at: u32) {
        let reports = self.reports.remove(&(at / HOUR)).unwrap_or_default();
        for rule in 0..self.rules.len() {
            let mut told: BTreeMap<(ImageId, NaiveDate), UsageDay> = BTreeMap::new();
            for report in reports.iter().filter(|report| report.rule == rule) {
                for (image, runs) in &report.lines {
                    let nodes = told.entry((*image, day(time(report.at)))).or_default();
                    if *runs {
                        nodes.running.merge(&report.itself.running);
                    }
                }
            }
            self.rules[rule].fold(self.world, told);
        }
    }
}

fn pull_seconds(world: &World, image: ImageId) -> u32 {
    u32::try_from(world.bytes(image) / PULLED_PER_SECOND).expect("no image is that large")
}

/// Returns the rule of a pool's nodes: there is one for all or one for each pool.
fn rule_of(rules: usize, pool: usize) -> Option<usize> {
    let rule = if rules == POOLS.len() { pool } else { 0 };
    (rule < rules).then_some(rule)
}

fn settings(rules: &str) -> Settings {
    Settings::read(|name| {
        let value = match name {
            "MODE" => "send",
            "RULES" if rules == "[]" => r#"[{"name": "none"}]"#,
            "RULES" => rules,
            "DELIVERY_TIMEOUT_SECONDS" | "EXECUTION_TIMEOUT_SECONDS" => "600",
            "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => "85",
            "MAX_PARALLEL_IMAGE_PULLS" => "1",
            "MAX_CONNECTIONS" | "LAUNCH_MAX_CONNECTIONS" => "20",
            "MAX_BANDWIDTH_MIB" => "0",
            "REGISTRY_ENDPOINT" => return None,
            _ => "prod",
        };
        Some(value.to_owned())
    })
    .unwrap()
}
