//! Settings in words: which images the rules bring to which nodes.

use prefetch::{
    rule::{Globs, Order, Rule},
    rule_images::{brings_from, wants_a_listing},
    settings::{CentralRegistry, Mode, Settings},
};

/// Tells on one line what the rules bring to the cluster's nodes, of this account's registry and of central ones.
pub fn words(settings: &Settings, own: &str, central: &[CentralRegistry]) -> String {
    let rules: Vec<String> = settings.rules.iter().map(rule).collect();
    let observed = match settings.mode {
        Mode::Send => "",
        Mode::Observe => " (observed only, nothing is sent)",
    };
    let central = of_central(&settings.rules, own, central);
    format!(
        "cluster {}{observed}: {}{central}",
        settings.cluster.name,
        rules.join("; ")
    )
}

/// Tells from where else images come, and which rules get less of it than they might seem to.
fn of_central(rules: &[Rule], own: &str, central: &[CentralRegistry]) -> String {
    let hosts = central.iter().map(|registry| registry.host.as_str());
    let is_brought = |host: &&str| rules.iter().any(|rule| brings_from(rule, own, host));
    let (hosts, others): (Vec<&str>, Vec<&str>) = hosts.partition(is_brought);
    let is_unlisted = |rule: &&Rule| wants_a_listing(rule) && hosts.iter().any(|host| brings_from(rule, own, host));
    let unlisted: Vec<&str> = rules
        .iter()
        .filter(is_unlisted)
        .map(|rule| rule.name.as_str())
        .collect();
    let told = if unlisted.is_empty() {
        String::new()
    } else {
        format!(
            ", whose repositories are not listed: new nodes of {} get the newest images only of those that nodes use",
            unlisted.join(", ")
        )
    };
    let named = |words: &str, hosts: &[&str]| match hosts {
        [] => String::new(),
        hosts => format!("; {words} {}", hosts.join(", ")),
    };
    let excluded = named("no rule's registries take", &others);
    format!("{}{told}{excluded}", named("also of", &hosts))
}

fn rule(rule: &Rule) -> String {
    let newest = match rule.newest {
        1 => "the newest image".to_owned(),
        newest => format!("the {newest} newest images"),
    };
    let order = match rule.order {
        Order::Pushed => "",
        Order::Version => " by version",
    };
    let repositories = if takes_all(&rule.repositories) {
        "every repository".to_owned()
    } else {
        format!("repositories {}", rule.repositories)
    };
    let used = if rule.used { " that its nodes use" } else { "" };
    let tags = if takes_all(&rule.tags) {
        String::new()
    } else {
        format!(" with tags {}", rule.tags)
    };
    let name = &rule.name;
    format!(
        "rule {name}: {}every push and {newest}{order} of {repositories}{used}{tags}, to {}{}{}",
        named(rule),
        nodes(rule),
        neighbours(rule),
        limits(rule)
    )
}

fn named(rule: &Rule) -> String {
    if rule.images.is_empty() {
        return String::new();
    }
    format!("{}, and ", rule.images.join(", "))
}

fn takes_all(globs: &Globs) -> bool {
    globs.to_string() == "*"
}

fn nodes(rule: &Rule) -> String {
    if rule.nodes.is_empty() {
        return "every node".to_owned();
    }
    let tags = rule
        .nodes
        .iter()
        .map(|(key, values)| format!("{key}={}", values.join("|")));
    format!("nodes with {}", tags.collect::<Vec<_>>().join(" and "))
}

fn neighbours(rule: &Rule) -> String {
    match rule.neighbours {
        false => String::new(),
        true if takes_all(&rule.registries) => "; to a new node what its neighbours run".to_owned(),
        true => format!("; to a new node what its neighbours run of {}", rule.registries),
    }
}

fn limits(rule: &Rule) -> String {
    let limits: Vec<String> = [
        (rule.keep > 0).then(|| format!("keeps {}", rule.keep)),
        rule.pin.then(|| "pins".to_owned()),
        (rule.max_image_gib > 0).then(|| format!("up to {} GiB", rule.max_image_gib)),
    ]
    .into_iter()
    .flatten()
    .collect();
    if limits.is_empty() {
        String::new()
    } else {
        format!(" ({})", limits.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use prefetch::{rule::parse_rules, settings::Variables};

    #[test]
    fn central_registries_are_told_and_of_which_rules_they_cannot_tell_all() {
        let look_up = |name: &str| match name {
            "ACCOUNT_ID" => Some("123456789012"),
            "AWS_REGION" => Some("eu-west-1"),
            "CENTRAL_REGISTRIES" => Some("210987654321,210987654321/us-east-1"),
            _ => None,
        };
        let variables = Variables::new(|name: &str| look_up(name).map(str::to_owned));
        let (own, central) = (variables.registry().unwrap(), variables.central_registries().unwrap());
        let both =
            "; also of 210987654321.dkr.ecr.eu-west-1.amazonaws.com, 210987654321.dkr.ecr.us-east-1.amazonaws.com";
        for (rules, told) in [
            (
                r#"[{"name": "a"}, {"name": "b", "used": false, "repositories": ["app"]}]"#,
                "",
            ),
            (
                r#"[{"name": "a", "used": false}, {"name": "b", "used": false, "repositories": ["team/*"]},
                    {"name": "c", "used": false, "registries": ["public.ecr.aws"]}]"#,
                ", whose repositories are not listed: new nodes of a, b get the newest images only of those that nodes use",
            ),
        ] {
            let rules = parse_rules(rules).unwrap();
            assert_eq!(super::of_central(&rules, &own, &central), format!("{both}{told}"));
            assert_eq!(super::of_central(&rules, &own, &[]), "");
        }
        let rules = parse_rules(r#"[{"name": "a", "registries": ["!*.us-east-1.*"]}]"#).unwrap();
        assert_eq!(
            super::of_central(&rules, &own, &central),
            "; also of 210987654321.dkr.ecr.eu-west-1.amazonaws.com; no rule's registries take \
             210987654321.dkr.ecr.us-east-1.amazonaws.com"
        );
    }

    #[test]
    fn a_rule_says_which_images_go_where_and_what_limits_there_are() {
        for (text, expected) in [
            (
                r#"[{"name": "default"}]"#,
                "rule default: every push and the newest image of every repository that its nodes use, to every node; to a new node what its neighbours run",
            ),
            (
                r#"[{"name": "db", "order": "version", "used": false, "neighbours": false}]"#,
                "rule db: every push and the newest image by version of every repository, to every node",
            ),
            (
                r#"[{"name": "gpu", "repositories": ["ml/*", "!ml/*-debug"], "tags": ["v*"], "newest": 2, "keep": 3, "pin": true,
                    "maxImageGiB": 20, "nodes": {"team": ["ml"], "size": ["big", "huge"]}, "used": false,
                    "registries": ["public.ecr.aws"], "images": ["nginx:1.27", "quay.io/a/b:c"]}]"#,
                "rule gpu: nginx:1.27, quay.io/a/b:c, and every push and the 2 newest images of repositories ml/* !ml/*-debug with tags v*, to nodes with size=big|huge and team=ml; to a new node what its neighbours run of public.ecr.aws (keeps 3, pins, up to 20 GiB)",
            ),
        ] {
            let rules = parse_rules(text).unwrap();
            assert_eq!(super::rule(&rules[0]), expected);
        }
    }
}
