//! Claims: a launch of which several messages tell is served once.

use std::{collections::BTreeMap, time::SystemTime};

use futures_util::future;
use prefetch::{
    instance::launched_at,
    launch::{Claim, Launches, SentParts},
    rows::Key,
};

use crate::{
    decision::{Decision, DecisionReason, Why},
    message::{Look, Request},
    requests::{Decisions, Instances, RequestWithRules},
};

/// A launch that is served now, and the commands of it that went.
pub struct Claimed {
    pub launch: Key,
    pub went: SentParts,
}

/// Claims the launches among the requests, and decides of those that another message has served, or has served now.
pub async fn claim(
    launches: &Launches,
    requests: &[RequestWithRules<'_>],
    looks: &BTreeMap<Request, Look>,
    instances: &Instances,
    now: SystemTime,
    decisions: &mut Decisions,
) -> BTreeMap<Request, Claimed> {
    let of_requests = requests.iter().filter_map(|(request, _)| match request {
        Request::Newest(node) => Some((Key::launch(node, launched_at(instances.get(node)?)), request.clone())),
        Request::Retry(_) => None,
    });
    let mut of_launches: BTreeMap<Key, Request> = of_requests.collect();
    let keys: Vec<Key> = of_launches.keys().cloned().collect();
    let mut claimed = BTreeMap::new();
    for (launch, claim) in launches.claim(&keys, now.into()).await {
        let Some(request) = of_launches.remove(&launch) else {
            continue;
        };
        let decision = match claim {
            Claim::Ours(went) => {
                claimed.insert(request, Claimed { launch, went });
                continue;
            }
            Claim::UnderWay => under_way(looks[&request]),
            Claim::Sent(commands) => {
                let message = format!("another message of its launch had it sent {}", commands.join(", "));
                Decision::dropped(DecisionReason::AlreadySent, message)
            }
        };
        decisions.insert(request, decision);
    }
    claimed
}

/// Decides of a message while another of its launch is being served.
fn under_way(look: Look) -> Decision {
    let why = Why::new(
        DecisionReason::UnderWay,
        "another message of its launch is being served",
    );
    // The other comes back by itself where it fails, and this one would be a dead letter.
    if look == Look::Last {
        Decision::Dropped(why)
    } else {
        Decision::HandedBack(why)
    }
}

/// Remembers what was sent for launches, and lets those go for which that is not all.
pub async fn settle(launches: &Launches, claimed: BTreeMap<Request, Claimed>, decisions: &Decisions, now: SystemTime) {
    let (mut sent, mut unsent) = (Vec::new(), Vec::new());
    for (request, Claimed { launch, went }) in claimed {
        match &decisions[&request] {
            Decision::Sent { .. } | Decision::Observed { .. } => sent.push((launch, went.commands())),
            Decision::HandedBack(_) | Decision::Dropped(_) => unsent.push((launch, went)),
        }
    }
    let (sent, unsent) = (launches.sent(&sent, now.into()), launches.release(&unsent, now.into()));
    future::join(sent, unsent).await;
}
