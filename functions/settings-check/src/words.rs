//! Settings in words: which images the rules bring to which nodes.

use prefetch::{
    rule::{Globs, Order, Rule},
    settings::{Mode, Settings},
};

/// Tells on one line what the rules bring to the cluster's nodes.
pub fn words(settings: &Settings) -> String {
    let rules: Vec<String> = settings.rules.iter().map(rule).collect();
    let observed = match settings.mode {
        Mode::Send => "",
        Mode::Observe => " (observed only, nothing is sent)",
    };
    format!("cluster {}{observed}: {}", settings.cluster.name, rules.join("; "))
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
    use prefetch::rule::parse_rules;

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
