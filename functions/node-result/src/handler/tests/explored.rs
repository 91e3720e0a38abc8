//! All orders of events: every state that a job can come to, each once, and every step from it.
//!
//! What ships is the whole function, from the message to its answer: a step is a call of it, before the mocked services. What
//! is modelled is around it: commands run and end on nodes, SSM's events come in any order, late, again and again, or never,
//! queues hand out what was put into them at any time, and the sweep runs at any time. A call is alone, or dies at any of its
//! writes, before or after that is done, or another call is settled between its reads and its writes.
//!
//! Nodes meet in the rows of their job and of all jobs alone. So a node's steps are taken in a table where it is its job's
//! only one, for every state of what the job's row says besides its counters; counters are checked after each step to be
//! those of the node, and a job's are their sum. Nodes are alike: states are told apart by how many nodes are how far.
//!
//! Three nodes and three images without retries have 19,840 states and 830,304 steps. With a retry a node among any number of
//! others has 2,524 states and 64,054 steps, which take minutes: a test explores the first of them, `make orders` all.

mod check;
mod node;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    env,
    rc::Rc,
};

use self::{
    check::Checks,
    node::{Node, Shared, Steps},
    world::World,
};

/// Numbers a node's state, and that of what it shares.
type Numbers = (u16, u16);
/// Is a state of the job: what its nodes share, and how far each is, in their order.
type State = (u16, Vec<u16>);

/// Numbers things in the order in which they are met.
struct Numbered<T> {
    all: Vec<Rc<T>>,
    numbers: BTreeMap<Rc<T>, u16>,
}

impl<T: Ord> Numbered<T> {
    fn new() -> Self {
        let (all, numbers) = (Vec::new(), BTreeMap::new());
        Self { all, numbers }
    }

    fn get(&self, number: u16) -> Rc<T> {
        Rc::clone(&self.all[usize::from(number)])
    }

    fn number(&mut self, thing: T) -> u16 {
        if let Some(number) = self.numbers.get(&thing) {
            return *number;
        }
        let number = u16::try_from(self.all.len()).expect("there are fewer");
        let thing = Rc::new(thing);
        self.all.push(Rc::clone(&thing));
        self.numbers.insert(thing, number);
        number
    }
}

/// Tells where a node, and what it shares, come by one step.
struct Next {
    /// Lists what is not as before, each once.
    to: Vec<Numbers>,
    /// Counts the steps, those that change nothing included.
    steps: usize,
    /// The next step where nothing fails any more.
    calm: Option<Numbers>,
    /// True where the node's part of the job is done.
    is_done: bool,
}

/// Explores the states of a job.
struct Explorer {
    world: World,
    checks: Checks,
    nodes: Numbered<Node>,
    shared: Numbered<Shared>,
    next: HashMap<Numbers, Rc<Next>>,
    /// The states from which the job is known to end.
    ending: HashSet<State>,
}

/// Counts what was explored.
#[derive(Debug, Default)]
struct Figures {
    states: usize,
    steps: usize,
}

impl Explorer {
    fn new(max_retries: usize) -> Self {
        Self {
            world: World::new(["0", "1", "2"][max_retries]),
            checks: Checks::new(max_retries.try_into().unwrap()),
            nodes: Numbered::new(),
            shared: Numbered::new(),
            next: HashMap::new(),
            ending: HashSet::new(),
        }
    }

    /// Explores every state of a job of so many nodes.
    fn explore(&mut self, nodes: usize) -> Figures {
        let (node, shared) = (self.nodes.number(Node::new()), self.shared.number(Shared::default()));
        let first = (shared, vec![node; nodes]);
        let mut figures = Figures::default();
        let (mut seen, mut left) = (HashSet::from([first.clone()]), vec![first]);
        while let Some(state) = left.pop() {
            figures.states += 1;
            for place in 0..nodes {
                let next = self.next((state.1[place], state.0));
                figures.steps += next.steps;
                let to = next.to.iter().map(|to| moved(&state, place, *to));
                left.extend(to.filter(|to| seen.insert(to.clone())));
            }
            self.check_end(state);
        }
        figures
    }

    /// Explores so many states of a node, or all there are, whatever the others of its job, be they ever so many, do to what
    /// they share.
    fn explore_among_others(&mut self, most: usize) -> Figures {
        let first = (self.nodes.number(Node::new()), self.shared.number(Shared::default()));
        let mut figures = Figures::default();
        let (mut seen, mut left) = (BTreeSet::from([first]), vec![first]);
        let mut by_others: BTreeSet<(u16, u16)> = BTreeSet::new();
        while let Some(from) = left.pop().filter(|_| figures.states < most) {
            figures.states += 1;
            let next = self.next(from);
            figures.steps += next.steps;
            let mut to = next.to.clone();
            by_others.extend(to.iter().map(|to| (from.1, to.1)));
            for (before, after) in &by_others {
                let there = seen.iter().filter(|(_, shared)| shared == before);
                to.extend(there.map(|(node, _)| (*node, *after)));
            }
            left.extend(to.into_iter().filter(|to| seen.insert(*to)));
            self.check_end((from.1, vec![from.0]));
        }
        figures
    }

    /// Checks that the job ends where nothing fails any more.
    fn check_end(&mut self, mut state: State) {
        while self.ending.insert(state.clone()) {
            let next: Vec<_> = state
                .1
                .clone()
                .into_iter()
                .map(|node| self.next((node, state.0)))
                .collect();
            let Some(place) = next.iter().position(|next| next.calm.is_some()) else {
                assert!(next.iter().all(|next| next.is_done), "{:?}", self.told(&state));
                return;
            };
            state = moved(&state, place, next[place].calm.unwrap());
        }
    }

    fn told(&self, (shared, nodes): &State) -> (Rc<Shared>, Vec<Rc<Node>>) {
        let nodes = nodes.iter().map(|node| self.nodes.get(*node));
        (self.shared.get(*shared), nodes.collect())
    }

    fn next(&mut self, from: Numbers) -> Rc<Next> {
        if let Some(next) = self.next.get(&from) {
            return Rc::clone(next);
        }
        let (node, shared) = (self.nodes.get(from.0), self.shared.get(from.1));
        let is_done = shared.is_cancelled || shared.has_targets() && self.checks.is_done(&node);
        let mut steps = Steps::new(&self.world, &self.checks, &node, &shared);
        steps.all();
        let (count, taken) = (steps.count, steps.taken);
        let calm = Steps::new(&self.world, &self.checks, &node, &shared).calm();
        let mut number = |(node, shared)| (self.nodes.number(node), self.shared.number(shared));
        let to: HashSet<Numbers> = taken.into_iter().map(&mut number).collect();
        let next = Rc::new(Next {
            to: to.into_iter().filter(|to| *to != from).collect(),
            steps: count,
            calm: calm.map(number),
            is_done,
        });
        self.next.insert(from, Rc::clone(&next));
        next
    }
}

/// Returns a state after a step of one of its nodes.
fn moved((_, nodes): &State, place: usize, (node, shared): Numbers) -> State {
    let mut nodes = nodes.clone();
    nodes[place] = node;
    nodes.sort_unstable();
    (shared, nodes)
}

/// Reads a bound, where the environment has one.
fn bound(name: &str, usual: usize) -> usize {
    env::var(name).map_or(usual, |bound| bound.parse().expect(name))
}

fn tell(explorer: &Explorer, what: &str, Figures { states, steps }: &Figures) {
    let (images, calls) = (node::IMAGES, explorer.world.calls.get());
    let (nodes, shared) = (explorer.nodes.all.len(), explorer.shared.all.len());
    println!(
        "{what} of {images} images: {states} states, {steps} steps; \
         {nodes} states of a node, {shared} of what nodes share, {calls} different calls"
    );
}

#[test]
fn every_order_of_events_counts_each_outcome_once_and_every_job_ends() {
    let (nodes, retries) = (bound("ORDERS_NODES", 3), bound("ORDERS_RETRIES", 0));
    let mut explorer = Explorer::new(retries);
    let figures = explorer.explore(nodes);
    tell(&explorer, &format!("{nodes} nodes with {retries} retries"), &figures);
    assert!(figures.steps > figures.states && figures.states > 100);
}

#[test]
fn orders_of_a_nodes_retries_among_any_others_count_each_outcome_once_and_the_node_ends() {
    let retries = bound("ORDERS_RETRIES_OF_A_NODE", 1);
    let mut explorer = Explorer::new(retries);
    let figures = explorer.explore_among_others(bound("ORDERS_STATES", 300));
    tell(
        &explorer,
        &format!("a node among others with {retries} retries"),
        &figures,
    );
    assert!(figures.steps > figures.states && figures.states > 100);
}
