//! Requests: one SendCommand for images, nodes and a reason.

use aws_sdk_ssm::operation::send_command::builders::SendCommandInputBuilder;

use crate::{
    command::{Comment, Destination, Handling, Trigger, parameters},
    image::Image,
    rule::{IMAGES_MAX, Rule},
    settings::Settings,
};

/// Sets on how many nodes an inventory runs at once, and after how many failing ones it is sent to no further: it takes
/// milliseconds, and a rule's own limits are for pulls.
const INVENTORY_RATE: (&str, &str) = ("10%", "100%");

/// Builds the request that brings images to nodes under a rule's rate control, or has them tell what they run.
///
/// The newest version of the document is named, so that a version that lags behind as default is never run.
#[must_use]
pub fn send_command_input(
    settings: &Settings,
    rule: &Rule,
    comment: &Comment,
    images: &[Image],
    destination: Destination,
) -> SendCommandInputBuilder {
    let (max_concurrency, max_errors) = match comment.trigger {
        Trigger::Inventory => INVENTORY_RATE,
        _ => (rule.max_concurrency.as_str(), rule.max_errors.as_str()),
    };
    let input = SendCommandInputBuilder::default()
        .document_name(&settings.document)
        .document_version("$LATEST")
        .set_parameters(Some(parameters(settings, handling(rule, comment.trigger), images)))
        .timeout_seconds(settings.delivery_timeout)
        .max_concurrency(max_concurrency)
        .max_errors(max_errors)
        .comment(comment.to_string());
    match destination {
        Destination::Selected(selector) => input.set_targets(Some(selector.targets())),
        Destination::Instances(ids) => input.set_instance_ids(Some(ids)),
    }
}

/// Tells how a rule has images treated.
///
/// What somebody asks for, or has asked for at set times, need not be a repository's newest: it displaces nothing, and is not
/// pinned; nor is what only neighbours run, which is none of the rule's. Pushes, launches and reconciles tidy up. What a
/// launch or a reconcile names comes beside `keep`, for a push may have promoted an image that is none of the newest. A push
/// knows only its own image: it leaves room beside `keep` for as many as the rule names of those that were not pushed last.
pub(crate) fn handling(rule: &Rule, trigger: Trigger) -> Handling {
    let beside = match trigger {
        Trigger::Push => Some(rule.most_beside_pushes()),
        Trigger::Launch | Trigger::Reconcile => Some(rule.most_named()),
        Trigger::Neighbours | Trigger::Job | Trigger::Schedule | Trigger::Boot | Trigger::Inventory => None,
    };
    let keep = beside
        .filter(|_| rule.keep > 0)
        .map_or(0, |beside| IMAGES_MAX.min(rule.keep + beside));
    Handling {
        max_image_gib: rule.max_image_gib,
        keep,
        pin: rule.pin && beside.is_some(),
        is_starting: trigger.is_of_launch(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use regex_lite::Regex;
    use serde_json::Value;

    use super::*;
    use crate::{image::RegistryEndpoint, node::Cluster, rule::parse_rules, settings::Mode};

    const IMAGE: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    proptest! {
        #[test]
        fn whatever_settings_and_rule_say_reaches_the_document_in_words_it_accepts(
            seconds in 5..=172_800,
            percent in 1..=100,
            pulls in 1..=16,
            gib in 0..=9999_usize,
            keep in 1..=50_usize,
            pin: bool,
        ) {
            let rules = format!(r#"[{{"name": "a", "maxImageGiB": {gib}, "keep": {keep}, "pin": {pin}}}]"#);
            let sent = sent(&settings(&rules, seconds, percent, pulls));
            for (name, value) in [
                ("images", IMAGE.to_owned()),
                ("executionTimeout", seconds.to_string()),
                ("imageGCHighThresholdPercent", percent.to_string()),
                ("maxParallelImagePulls", pulls.to_string()),
                ("maxConnections", "3".to_owned()),
                ("maxBandwidthMiB", "100".to_owned()),
                ("maxImageGiB", gib.to_string()),
                ("keep", keep.to_string()),
                ("pin", pin.to_string()),
            ] {
                prop_assert_eq!(&sent[name], &[value]);
            }
            prop_assert_eq!(sent.len(), 9);
            for (name, values) in &sent {
                prop_assert!(accepted_by_the_document(name, &values[0]), "{} {}", name, values[0]);
            }
        }
    }

    /// Returns what the document does with a repository's images, the one pulled last first: the latest `keep` stay, and
    /// those that the command names, of which it pulls what is not there.
    fn tidied(held: &[u8], named: &[u8], keep: usize) -> Vec<u8> {
        let pulled = named.iter().filter(|image| !held.contains(image));
        let all: Vec<u8> = pulled.chain(held).copied().collect();
        let stays = |(place, image): &(usize, &u8)| keep == 0 || *place < keep || named.contains(image);
        let stay = all.iter().enumerate().filter(stays).map(|(_, image)| *image);
        stay.collect()
    }

    fn rule(order: &str, newest: usize, extra: usize) -> Rule {
        let keep = newest + extra;
        let rules = format!(
            r#"[{{"name": "a", "tags": ["*", "prod", "stable"], "order": "{order}", "newest": {newest}, "keep": {keep}}}]"#
        );
        parse_rules(&rules).unwrap().remove(0)
    }

    proptest! {
        #[test]
        fn no_launch_or_reconcile_removes_what_the_latest_pushes_promoted(
            order in prop::sample::select(vec!["pushed", "version"]),
            newest in 1..=5_usize,
            extra in 0..=5_usize,
            pushed in prop::collection::vec(0..20_u8, 1..40),
            named in prop::collection::btree_set(0..20_u8, 0..=7),
            times in 1..4_usize,
        ) {
            let rule = rule(order, newest, extra);
            let named: Vec<u8> = named.into_iter().take(rule.most_named()).collect();
            let keep = |trigger| handling(&rule, trigger).keep;
            let promoted = pushed.iter().fold(Vec::new(), |held, image| {
                tidied(&held, &[*image], keep(Trigger::Push))
            });
            let mut held = promoted.clone();
            for _ in 0..times {
                held = tidied(&held, &named, keep(Trigger::Reconcile));
                prop_assert!(promoted.iter().take(rule.keep).all(|image| held.contains(image)));
                prop_assert!(named.iter().all(|image| held.contains(image)));
                prop_assert!(held.len() <= rule.keep + 2 * rule.most_named());
            }
        }

        #[test]
        fn what_the_rule_names_beside_outlives_as_many_pushes_as_are_kept(
            order in prop::sample::select(vec!["pushed", "version"]),
            newest in 1..=5_usize,
            extra in 0..=5_usize,
            before in prop::collection::vec(20..40_u8, 0..20),
            beside in prop::collection::btree_set(0..20_u8, 0..=7),
            after in prop::collection::vec(40..80_u8, 0..=10),
        ) {
            let rule = rule(order, newest, extra);
            let beside: Vec<u8> = beside.into_iter().take(rule.most_beside_pushes()).collect();
            let keep = |trigger| handling(&rule, trigger).keep;
            let push = |held: Vec<u8>, image: &u8| tidied(&held, &[*image], keep(Trigger::Push));
            let held = before.iter().fold(Vec::new(), push);
            let held = tidied(&held, &beside, keep(Trigger::Launch));
            let held = after.iter().take(rule.keep).fold(held, push);
            prop_assert!(beside.iter().all(|image| held.contains(image)), "{:?}", held);
        }

        #[test]
        fn a_push_leaves_exactly_keep_where_the_rule_names_nothing_beside(keep in 0..=50_usize) {
            let rule = parse_rules(&format!(r#"[{{"name": "a", "keep": {keep}}}]"#)).unwrap().remove(0);
            prop_assert_eq!(handling(&rule, Trigger::Push).keep, keep);
        }
    }

    #[test]
    fn a_rule_that_says_nothing_of_them_sends_no_limit_no_removal_and_no_pin() {
        let sent = sent(&settings(r#"[{"name": "a"}]"#, 3600, 85, 2));
        for (name, value) in [("maxImageGiB", "0"), ("keep", "0"), ("pin", "false")] {
            assert_eq!(sent[name], [value]);
            assert!(accepted_by_the_document(name, value));
        }
    }

    fn accepted_by_the_document(name: &str, value: &str) -> bool {
        let document: Value = serde_json::from_str(include_str!("../../../ssm/document.json")).unwrap();
        let pattern = document["parameters"][name]["allowedPattern"].as_str().unwrap();
        Regex::new(pattern).unwrap().is_match(value)
    }

    fn sent(settings: &Settings) -> HashMap<String, Vec<String>> {
        let images = [IMAGE.parse().unwrap()];
        let nodes = Destination::Instances(vec!["i-0123456789abcdef0".to_owned()]);
        let rule = &settings.rules[0];
        let input = send_command_input(settings, rule, &Comment::first(Trigger::Push, rule), &images, nodes);
        input.get_parameters().clone().unwrap()
    }

    #[test]
    fn what_somebody_asks_for_or_only_neighbours_run_displaces_nothing_and_is_not_pinned() {
        let settings = settings(r#"[{"name": "a", "keep": 3, "pin": true}]"#, 600, 85, 2);
        let rule = &settings.rules[0];
        for (trigger, keep, pin) in [
            (Trigger::Push, "3", "true"),
            (Trigger::Launch, "4", "true"),
            (Trigger::Reconcile, "4", "true"),
            (Trigger::Neighbours, "0", "false"),
            (Trigger::Job, "0", "false"),
            (Trigger::Schedule, "0", "false"),
        ] {
            let sent = parameters(&settings, handling(rule, trigger), &[IMAGE.parse().unwrap()]);
            assert_eq!(
                (sent["keep"][0].as_str(), sent["pin"][0].as_str()),
                (keep, pin),
                "{trigger}"
            );
        }
    }

    fn settings(rules: &str, seconds: i32, percent: i32, pulls: i32) -> Settings {
        Settings {
            mode: Mode::Send,
            cluster: Cluster {
                name: "prod".to_owned(),
                tag_key: "aws:eks:cluster-name".to_owned(),
            },
            document: "prefetch-images".to_owned(),
            rules: parse_rules(rules).unwrap(),
            registry_endpoint: RegistryEndpoint::Standard,
            delivery_timeout: 600,
            execution_timeout: seconds,
            image_gc_high_threshold: percent,
            max_parallel_image_pulls: pulls,
            max_connections: 3,
            launch_max_connections: 20,
            max_bandwidth_mib: 100,
        }
    }
}
