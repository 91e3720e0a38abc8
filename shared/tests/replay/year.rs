//! The year as it is generated from the seed: what is planned, day by day, and what comes of it.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    cluster::{App, Cluster, Kind},
    random::{Random, whole},
    world::{
        ADD_ONS, CRON, DAEMON_SETS, DAY, DAYS, HOUR, Happening, IMAGE_MB, ImageId, LARGE_IMAGE_MB, MINUTE,
        NEW_PER_MONTH, NodeId, ON_FREE_DAYS, OTHER_REGISTRIES, PODS_OF_MORNING, POOLS, PUSHES, RECLAIMED, REGISTRY,
        RENEWED, REPLICAS, REPOSITORIES, ROLL_OUT_AFTER, ROLLED_OUT, RUN, Repository, STEP, Why, World, YEAR,
    },
};

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Plan {
    Push(usize),
    RollOut(usize, ImageId),
    Step(usize, Why),
    ScaleUp(usize),
    ScaleDown(usize),
    Reclaim,
    /// All nodes of a pool are replaced, by a new AMI.
    Amis(usize),
    Replace(NodeId),
    Cron(usize),
    CronEnd(usize),
    Begin,
    End,
}

struct Year {
    cluster: Cluster,
    random: Random,
    /// Each with its time, and with its number among all.
    plans: BinaryHeap<Reverse<(u32, usize, Plan)>>,
    planned: usize,
    continuous: f64,
}

/// Generates the world of a seed; of its services so many are delivered continuously.
pub fn generate(seed: u64, continuous: f64) -> World {
    let mut year = Year {
        cluster: Cluster::default(),
        random: Random::new(seed),
        plans: BinaryHeap::new(),
        planned: 0,
        continuous,
    };
    year.found();
    (0..DAYS).for_each(|day| year.plan_day(day));
    while let Some(Reverse((at, _, plan))) = year.plans.pop() {
        if at < YEAR {
            year.cluster.now = at;
            year.carry_out(&plan);
        }
    }
    let Cluster {
        mut world, apps, nodes, ..
    } = year.cluster;
    for (_, image) in apps.iter().flat_map(|app| &app.pods) {
        world.runs(*image, YEAR);
    }
    world.nodes = nodes.len();
    world
}

impl Year {
    /// Makes what there is when the year begins.
    fn found(&mut self) {
        for place in 0..REPOSITORIES + DAEMON_SETS + ADD_ONS {
            self.add_repository(place);
        }
        for app in 0..RUN {
            let pool = usize::from(app >= POOLS[0].services);
            self.add_app(app, pool, kind_of(app));
        }
        for foreign in 0..DAEMON_SETS + ADD_ONS {
            let kind = if foreign < DAEMON_SETS {
                Kind::DaemonSet
            } else {
                Kind::Service
            };
            self.add_app(REPOSITORIES + foreign, 0, kind);
        }
        for (pool, of_pool) in POOLS.iter().enumerate() {
            for _ in 0..of_pool.nodes.0 {
                self.cluster.node_up(pool, false);
            }
        }
        for app in 0..self.cluster.apps.len() {
            self.fill(app, Why::Before);
        }
    }

    fn add_repository(&mut self, place: usize) {
        let foreign = place.checked_sub(REPOSITORIES);
        let is_large = (POOLS[0].services..RUN).contains(&place);
        let size = if is_large { LARGE_IMAGE_MB } else { IMAGE_MB };
        let pushes = self.random.skewed(PUSHES);
        // Their names do not tell which are run.
        let name = self.random.below(u32::MAX);
        self.cluster.world.repositories.push(Repository {
            registry: foreign.map_or(REGISTRY, |foreign| OTHER_REGISTRIES[foreign % OTHER_REGISTRIES.len()]),
            name: format!("team-{}/service-{name:08x}", name % 12),
            pushes: if foreign.is_some() { 0.0 } else { pushes },
            bytes: u64::from(whole(self.random.skewed(size).max(5.0))) * 1_000_000,
            below: 0,
        });
        self.cluster.world.renew_below(place);
        self.cluster.world.build(place);
    }

    fn add_app(&mut self, repository: usize, pool: usize, kind: Kind) {
        let is_foreign = repository >= REPOSITORIES;
        let replicas = match kind {
            Kind::Service if is_foreign => 2,
            Kind::Service => whole(self.random.skewed(REPLICAS)).clamp(1, POOLS[pool].nodes.0) as usize,
            Kind::DaemonSet | Kind::Cron(_) => 0,
        };
        let images = &self.cluster.world.images;
        let image = images.iter().rposition(|image| image.repository == repository);
        self.cluster.apps.push(App {
            repository,
            pool,
            kind,
            is_continuous: self.random.happens(self.continuous),
            replicas,
            image: image.expect("each repository has an image"),
            pods: Vec::new(),
            has_ended: false,
        });
    }

    /// Starts an application's pods.
    fn fill(&mut self, app: usize, why: Why) {
        for _ in 0..self.cluster.apps[app].replicas {
            self.cluster.start_anywhere(app, why, &mut self.random);
        }
    }

    fn plan(&mut self, at: u32, plan: Plan) {
        self.planned += 1;
        self.plans.push(Reverse((at, self.planned, plan)));
    }

    fn plan_between(&mut self, day: u32, (from, hours): (u32, u32), plan: Plan) {
        let at = day * DAY + from * HOUR + self.random.below(hours * HOUR);
        self.plan(at, plan);
    }

    fn plan_day(&mut self, day: u32) {
        let is_working_day = day % 7 < 5;
        for repository in 0..REPOSITORIES {
            let share = if is_working_day { 1.0 } else { ON_FREE_DAYS };
            let average = self.cluster.world.repositories[repository].pushes * share;
            for _ in 0..self.random.times(average) {
                self.plan_between(day, (8, 11), Plan::Push(repository));
            }
        }
        for (pool, of_pool) in POOLS.iter().enumerate().filter(|_| is_working_day) {
            for _ in of_pool.nodes.0..of_pool.nodes.1 {
                self.plan_between(day, (6, 3), Plan::ScaleUp(pool));
                self.plan_between(day, (19, 3), Plan::ScaleDown(pool));
            }
        }
        for _ in 0..self.random.times(RECLAIMED * self.cluster.ready.len() as f64) {
            self.plan_between(day, (0, 24), Plan::Reclaim);
        }
        self.plan_cron(day);
        self.plan_month(day);
    }

    fn plan_cron(&mut self, day: u32) {
        for app in 0..RUN {
            if let Kind::Cron(times) = kind_of(app) {
                let every = DAY / times;
                (0..times).for_each(|time| self.plan(day * DAY + time * every + app as u32, Plan::Cron(app)));
            }
        }
    }

    /// Plans what happens once a month: each on its own day.
    fn plan_month(&mut self, day: u32) {
        match day % 28 {
            8 => (0..POOLS.len()).for_each(|pool| self.plan_between(day, (10, 1), Plan::Amis(pool))),
            15 => (0..NEW_PER_MONTH).for_each(|_| self.plan_between(day, (9, 8), Plan::Begin)),
            22 => (0..NEW_PER_MONTH).for_each(|_| self.plan_between(day, (9, 8), Plan::End)),
            _ => {}
        }
        for foreign in 0..DAEMON_SETS + ADD_ONS {
            if day as usize % 28 == foreign * 2 {
                let (app, repository) = (RUN + foreign, REPOSITORIES + foreign);
                self.cluster.world.renew_below(repository);
                let image = self.cluster.world.build(repository);
                self.plan_between(day, (9, 8), Plan::RollOut(app, image));
            }
        }
    }

    fn carry_out(&mut self, plan: &Plan) {
        match *plan {
            Plan::Push(repository) => self.push(repository),
            Plan::RollOut(app, image) => self.roll_out(app, image),
            Plan::Step(app, why) => self.cluster.step(app, why, &mut self.random),
            Plan::ScaleUp(pool) => self.scale_up(pool),
            Plan::ScaleDown(pool) => {
                let node = self.some_node(|of| of == pool);
                self.cluster.drain(node, &mut self.random);
            }
            Plan::Reclaim => {
                let node = self.some_node(|_| true);
                self.replace(node);
            }
            Plan::Amis(pool) => self.replace_all(pool),
            Plan::Replace(node) => self.replace(node),
            Plan::Cron(app) => {
                self.cluster.start_anywhere(app, Why::Cron, &mut self.random);
                self.plan(self.cluster.now + 5 * MINUTE, Plan::CronEnd(app));
            }
            Plan::CronEnd(app) if !self.cluster.apps[app].pods.is_empty() => self.cluster.stop(app, 0),
            Plan::CronEnd(_) => {}
            Plan::Begin => self.begin(),
            Plan::End => self.end(),
        }
    }

    fn push(&mut self, repository: usize) {
        if self.random.happens(RENEWED) {
            self.cluster.world.renew_below(repository);
        }
        let image = self.cluster.world.build(repository);
        self.cluster.happens(Happening::Pushed(image));
        let of_repository = |app: &App| app.repository == repository && !app.has_ended;
        let Some(app) = self.cluster.apps.iter().position(of_repository) else {
            return;
        };
        let (share, after) = if self.cluster.apps[app].is_continuous {
            (ROLLED_OUT.0, ROLL_OUT_AFTER.0)
        } else {
            (ROLLED_OUT.1, ROLL_OUT_AFTER.1)
        };
        if self.random.happens(share) {
            let after = whole(self.random.skewed(after)).clamp(2 * MINUTE, DAY);
            self.plan(self.cluster.now + after, Plan::RollOut(app, image));
        }
    }

    fn roll_out(&mut self, app: usize, image: ImageId) {
        let App {
            image: ref mut runs,
            kind,
            ref pods,
            repository,
            ..
        } = self.cluster.apps[app];
        // An older one that comes late is not rolled out over a newer.
        *runs = image.max(*runs);
        let at_once = if kind == Kind::DaemonSet {
            1
        } else {
            pods.len().div_ceil(4)
        };
        let why = if repository < REPOSITORIES {
            Why::RollOut
        } else {
            Why::AddOn
        };
        for pod in 0..pods.len() {
            let at = self.cluster.now + STEP * (pod / at_once) as u32;
            self.plan(at, Plan::Step(app, why));
        }
    }

    fn scale_up(&mut self, pool: usize) {
        let node = self.cluster.node_up(pool, true);
        let scales = |app: &App| {
            app.pool == pool && app.kind == Kind::Service && !app.has_ended && app.repository < REPOSITORIES
        };
        let apps: Vec<usize> = (0..self.cluster.apps.len())
            .filter(|app| scales(&self.cluster.apps[*app]))
            .collect();
        // What has many replicas scales most.
        let pods: Vec<usize> = apps
            .iter()
            .flat_map(|app| vec![*app; self.cluster.apps[*app].replicas])
            .collect();
        for _ in 0..PODS_OF_MORNING {
            let app = pods[self.random.place(pods.len())];
            self.cluster.start(app, node, Why::NewNode);
        }
    }

    fn some_node(&mut self, of: impl Fn(usize) -> bool) -> NodeId {
        let nodes = self.cluster.ready.iter().copied();
        let nodes: Vec<NodeId> = nodes.filter(|node| of(self.cluster.nodes[*node].pool)).collect();
        nodes[self.random.place(nodes.len())]
    }

    fn replace(&mut self, node: NodeId) {
        if self.cluster.nodes[node].is_ready {
            self.cluster.node_up(self.cluster.nodes[node].pool, true);
            self.cluster.drain(node, &mut self.random);
        }
    }

    fn replace_all(&mut self, pool: usize) {
        let nodes = self.cluster.ready.clone();
        let of_pool = nodes.into_iter().filter(|node| self.cluster.nodes[*node].pool == pool);
        for (place, node) in of_pool.collect::<Vec<_>>().into_iter().enumerate() {
            self.plan(self.cluster.now + 6 * MINUTE * place as u32, Plan::Replace(node));
        }
    }

    fn begin(&mut self) {
        let is_run = |repository: usize| self.cluster.apps.iter().any(|app| app.repository == repository);
        let free: Vec<usize> = (0..REPOSITORIES).filter(|repository| !is_run(*repository)).collect();
        let repository = free[self.random.place(free.len())];
        self.add_app(repository, 0, Kind::Service);
        self.fill(self.cluster.apps.len() - 1, Why::FirstRollOut);
    }

    fn end(&mut self) {
        let runs =
            |app: &App| app.kind == Kind::Service && app.repository < REPOSITORIES && !app.has_ended && app.pool == 0;
        let apps: Vec<usize> = (0..self.cluster.apps.len())
            .filter(|app| runs(&self.cluster.apps[*app]))
            .collect();
        let app = apps[self.random.place(apps.len())];
        self.cluster.apps[app].has_ended = true;
        while !self.cluster.apps[app].pods.is_empty() {
            self.cluster.stop(app, 0);
        }
    }
}

/// Tells what kind of application it is of those that there are when the year begins: the first ones are jobs.
fn kind_of(app: usize) -> Kind {
    let mut jobs = CRON.iter().flat_map(|(apps, times)| vec![Kind::Cron(*times); *apps]);
    jobs.nth(app).unwrap_or(Kind::Service)
}
