//! The rules by which a job's images are brought, as far as the settings tell.

use std::collections::BTreeSet;

use prefetch::{
    fields::FieldError,
    requested_image::{Registry, RequestedImage},
    rule::Rule,
};
use serde_json::Value;

use crate::{
    http::problem::Problem,
    settings::Settings,
    submit::request::{JobRequest, NodeSelection},
};

/// Selects a rule by which images of a job are brought.
#[derive(Clone, Debug)]
pub struct RuleSelection<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// The places of the images in the request; none where the rule's newest are wanted.
    pub images: Vec<usize>,
}

/// Checks a request against the settings.
///
/// # Errors
/// A 400 that names every field that is not accepted.
pub fn check(request: &JobRequest, settings: &Settings) -> Result<(), Problem> {
    select_rules(request, settings).map(drop)
}

/// Selects the rules by which the images of a request are brought, in the rules' order.
///
/// That is the one it names, else every rule that takes an image's repository, or the first of those where the request
/// selects the nodes itself.
///
/// # Errors
/// A 400 that names every field that is not accepted.
pub fn select_rules<'a>(request: &JobRequest, settings: &'a Settings) -> Result<Vec<RuleSelection<'a>>, Problem> {
    let mut errors = cluster_tag_errors(request, settings);
    let named = named_rule(request, settings)
        .map_err(|error| errors.push(error))
        .ok()
        .flatten();
    if !errors.is_empty() {
        return Err(Problem::fields(errors));
    }
    let selected = images_of_rules(request, named, settings)?;
    let is_selected = |rule: &Rule, images: &BTreeSet<usize>| match named {
        Some(named) => named.name == rule.name,
        None => !images.is_empty(),
    };
    let rules = settings.shared.rules.iter().zip(selected);
    let selections = rules.filter(|(rule, images)| is_selected(rule, images));
    let selections = selections.map(|(rule, images)| RuleSelection {
        rule,
        images: images.into_iter().collect(),
    });
    Ok(selections.collect())
}

/// Tells for each rule the places of the images that it brings.
fn images_of_rules(
    request: &JobRequest,
    named: Option<&Rule>,
    settings: &Settings,
) -> Result<Vec<BTreeSet<usize>>, Problem> {
    let rules = &settings.shared.rules;
    let first_only = request.nodes.is_some();
    let mut selected: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); rules.len()];
    let mut errors = Vec::new();
    for (place, image) in request.images.iter().enumerate() {
        let takes = |rule: &Rule| match named {
            Some(named) => named.name == rule.name && (settings.allow_any_repository || is_taken(rule, image)),
            None => is_taken(rule, image),
        };
        let taking = (0..rules.len()).filter(|rule| takes(&rules[*rule]));
        let taking: Vec<usize> = taking.take(if first_only { 1 } else { rules.len() }).collect();
        if taking.is_empty() {
            let text = Value::String(image.reference.clone());
            let accepted = outside(named, settings);
            errors.push(FieldError::new(format!("images[{place}]"), Some(text), accepted));
        }
        for rule in taking {
            selected[rule].insert(place);
        }
    }
    if errors.is_empty() {
        Ok(selected)
    } else {
        Err(Problem::fields(errors))
    }
}

/// Returns true where a rule takes an image, or may, as long as it is not known whether that is this account's or Docker Hub's.
fn is_taken(rule: &Rule, image: &RequestedImage) -> bool {
    let is_of_registry = match &image.registry {
        Registry::Other(host) => rule.registries.matches(host),
        Registry::Own | Registry::Unnamed => true,
    };
    is_of_registry && rule.repositories.matches(&image.repository)
        || image.registry == Registry::Unnamed && is_taken(rule, &image.clone().on_docker_hub())
}

fn named_rule<'a>(request: &JobRequest, settings: &'a Settings) -> Result<Option<&'a Rule>, FieldError> {
    let Some(name) = &request.rule else {
        return Ok(None);
    };
    let rule = settings.shared.rules.iter().find(|rule| rule.name == *name);
    rule.map(Some)
        .ok_or_else(|| FieldError::new("rule", Some(Value::String(name.clone())), settings.rule_names()))
}

/// Refuses the cluster's own tag in a request: it is always selected, and a request could only take it away.
fn cluster_tag_errors(request: &JobRequest, settings: &Settings) -> Vec<FieldError> {
    let key = &settings.shared.cluster.tag_key;
    match &request.nodes {
        Some(NodeSelection::Tags(tags)) if tags.contains_key(key) => {
            let accepted = "tag keys other than the cluster's own, which every node has already";
            vec![FieldError::new(format!("nodes.tags.{key}"), None, accepted)]
        }
        _ => Vec::new(),
    }
}

/// Tells which images are accepted where one is of no repository that may be requested.
fn outside(named: Option<&Rule>, settings: &Settings) -> String {
    let repositories = |rule: &Rule| match rule.registries.to_string().as_str() {
        "*" => format!("{} of rule {}", rule.repositories, rule.name),
        registries => format!(
            "{} of rule {}, in the registries {registries}",
            rule.repositories, rule.name
        ),
    };
    let all = || {
        let rules = settings.shared.rules.iter();
        rules.map(repositories).collect::<Vec<_>>().join(", ")
    };
    match named {
        Some(rule) => format!("an image of the repositories {}", repositories(rule)),
        None if settings.allow_any_repository => format!(
            "an image of the repositories {}; or, with the rule by which it is to be brought, of any",
            all()
        ),
        None => format!("an image of the repositories {}", all()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::cloud::{REGISTRY, settings_with};

    const RULES: &str = r#"[{"name": "all", "repositories": ["team/*"]}, {"name": "gpu", "repositories": ["team/ml-*"], "tags": ["v*"]}]"#;

    fn selected(body: Value, allow_any: &'static str) -> Result<Vec<(String, Vec<usize>)>, Problem> {
        let settings = settings_with(RULES, allow_any);
        let request = JobRequest::parse(body, REGISTRY).unwrap();
        let selections = select_rules(&request, &settings)?.into_iter();
        Ok(selections
            .map(|selection| (selection.rule.name.clone(), selection.images))
            .collect())
    }

    fn pairs(pairs: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        pairs
            .iter()
            .map(|(rule, images)| ((*rule).to_owned(), images.to_vec()))
            .collect()
    }

    #[test]
    fn each_image_goes_by_every_rule_that_takes_its_repository_whatever_its_tag() {
        let body = json!({"images": ["team/app:v1", "team/ml-a:latest"]});
        assert_eq!(
            selected(body, "false").unwrap(),
            pairs(&[("all", &[0, 1]), ("gpu", &[1])])
        );
    }

    #[test]
    fn where_the_request_selects_the_nodes_each_image_goes_by_the_first_rule_only() {
        let body = json!({"images": ["team/app:v1", "team/ml-a:v1"], "nodes": {"tags": {"a": ["b"]}}});
        assert_eq!(selected(body, "false").unwrap(), pairs(&[("all", &[0, 1])]));
    }

    #[test]
    fn a_rule_that_is_named_is_the_only_one() {
        let body = json!({"images": ["team/ml-a:v1"], "rule": "gpu"});
        assert_eq!(selected(body, "false").unwrap(), pairs(&[("gpu", &[0])]));
        assert_eq!(
            selected(json!({"rule": "gpu"}), "false").unwrap(),
            pairs(&[("gpu", &[])])
        );
    }

    #[test]
    fn an_image_of_another_registry_goes_by_the_rules_that_take_its_registry_and_its_repository() {
        const RULES: &str = r#"[{"name": "all"}, {"name": "own", "registries": ["!*"]},
            {"name": "nvidia", "registries": ["nvcr.io"], "repositories": ["nvidia/*"]}]"#;
        let digest = format!("sha256:{}", "0".repeat(64));
        let names = |image: &str, allow_any| {
            let body = json!({"images": [format!("{image}@{digest}")]});
            let settings = settings_with(RULES, allow_any);
            let request = JobRequest::parse(body, REGISTRY).unwrap();
            let selections = select_rules(&request, &settings).unwrap().into_iter();
            selections
                .map(|selection| selection.rule.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names("nvcr.io/nvidia/pytorch:25.01-py3", "false"), ["all", "nvidia"]);
        assert_eq!(names("docker.io/nvidia/cuda", "false"), ["all"]);
        assert_eq!(names("app:v1", "false"), ["all", "own"]);
        let settings = settings_with(r#"[{"name": "own", "registries": ["!*"]}]"#, "false");
        let body = json!({"images": [format!("docker.io/library/nginx@{digest}")]});
        let refused = select_rules(&JobRequest::parse(body, REGISTRY).unwrap(), &settings).unwrap_err();
        assert!(refused.line().contains("in the registries * !*"), "{}", refused.line());
    }

    #[test]
    fn what_no_rule_takes_is_refused_unless_the_stack_allows_it_and_a_rule_is_named() {
        let outside = json!({"images": ["team/app:v1", "other/app:v1"]});
        let by_rule = json!({"images": ["other/app:v1"], "rule": "gpu"});
        for (body, allow_any, field, accepted) in [
            (
                &outside,
                "false",
                "images[1]",
                "team/* of rule all, team/ml-* of rule gpu",
            ),
            (&outside, "true", "images[1]", "with the rule by which"),
            (&by_rule, "false", "images[0]", "team/ml-* of rule gpu"),
            (&json!({"rule": "none"}), "false", "rule", "all, gpu"),
            (
                &json!({"rule": "gpu", "nodes": {"tags": {"aws:eks:cluster-name": ["test"]}}}),
                "false",
                "nodes.tags.aws:eks:cluster-name",
                "other than the cluster's own",
            ),
        ] {
            let told = selected(body.clone(), allow_any).unwrap_err().line();
            assert!(told.contains(field) && told.contains(accepted), "{told}");
        }
        assert_eq!(selected(by_rule, "true").unwrap(), pairs(&[("gpu", &[0])]));
    }
}
