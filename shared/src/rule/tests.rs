use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    parse_rules(text).unwrap_err().to_string()
}

#[test]
fn a_rule_needs_only_a_name() {
    let rules = parse_rules(r#"[{"name": "default"}]"#).unwrap();
    assert!(rules[0].wants("any/repository", "any-tag"));
    assert!(rules[0].nodes.is_empty());
    assert_eq!((rules[0].newest, rules[0].keep, rules[0].pin), (1, 0, false));
    assert_eq!(rules[0].order, Order::Pushed);
    assert!(rules[0].used && rules[0].neighbours && rules[0].registries.matches("registry.example:5000"));
    assert_eq!(rules[0].max_image_gib, 0);
    assert_eq!(
        (rules[0].max_concurrency.as_str(), rules[0].max_errors.as_str()),
        ("50", "100%")
    );
}

#[test]
fn a_registry_is_named_with_its_port() {
    let rules = parse_rules(r#"[{"name": "a", "registries": ["*.example.com:5000", "!quay.io"]}]"#).unwrap();
    let takes = |host| rules[0].registries.matches(host);
    assert!(takes("registry.example.com:5000"));
    assert!(!takes("registry.example.com") && !takes("quay.io"));
}

#[test]
fn an_unusable_field_of_what_is_used_is_named() {
    for (fields, expected) in [
        (
            r#""used": "yes""#,
            "field used: \"yes\" is not accepted: it takes true or false",
        ),
        (r#""neighbours": 1"#, "field neighbours: 1 is not accepted"),
        (r#""registries": []"#, "field registries: [] is not accepted"),
        (
            r#""registries": ["https://quay.io"]"#,
            "it takes a list of at least one glob over host names",
        ),
        (r#""registries": ["quay.io/team"]"#, "glob over host names"),
        (r#""registries": ["Quay.io"]"#, "glob over host names"),
    ] {
        let error = error(&format!(r#"[{{"name": "a", {fields}}}]"#));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_unusable_field_names_rule_field_value_and_what_is_accepted() {
    let cases = [
        (
            r#"[{"name": "ok"}, {"name": "Bad"}]"#,
            "rule Bad: field name: \"Bad\" is not accepted: it takes 1 to 32",
        ),
        (
            r#"[{"tags": ["*"]}]"#,
            "rule number 1: field name: nothing is not accepted",
        ),
        (
            r#"[{"name": "a"}, {"name": "a"}]"#,
            "takes a name that no other rule has",
        ),
        (
            r#"[{"name": "a", "tags": "v*"}]"#,
            r#"rule a: field tags: "v*" is not accepted: it takes a list"#,
        ),
        (r#"[{"name": "a", "tags": []}]"#, "field tags: [] is not accepted"),
        (r#"[{"name": "a", "tags": ["[z"]}]"#, "it takes globs that can be read"),
        (
            r#"[{"name": "a", "tags": ["{v1,v2}"]}]"#,
            "field tags: [\"{v1,v2}\"] is not accepted",
        ),
        (
            r#"[{"name": "a", "nodes": {"team": ["ml"], "team": ["web"]}}]"#,
            "the key \"team\" stands twice",
        ),
        (
            r#"[{"name": "a", "nodes": {"a":["1"],"b":["1"],"c":["1"],"d":["1"],"e":["1"]}}]"#,
            "at most 4 EC2 tag keys",
        ),
        (
            r#"[{"name": "a", "nodes": {"team": "ml"}}]"#,
            "field nodes: {\"team\":\"ml\"} is not accepted",
        ),
        (r#"[{"name": "a", "newest": 0}]"#, "a whole number from 1 to 50"),
        (
            r#"[{"name": "a", "order": "semver"}]"#,
            r#"rule a: field order: "semver" is not accepted: it takes "pushed" or "version""#,
        ),
        (
            r#"[{"name": "a", "keep": 51}]"#,
            "rule a: field keep: 51 is not accepted: it takes a whole number from 0 to 50",
        ),
        (
            r#"[{"name": "a", "keep": "3"}]"#,
            "field keep: \"3\" is not accepted: it takes a whole number",
        ),
        (
            r#"[{"name": "a", "newest": 3, "keep": 2}]"#,
            "field keep: 2 is not accepted: it takes 0, or from newest, which is 3, to 50",
        ),
        (
            r#"[{"name": "a", "pin": true}]"#,
            "field pin: true is not accepted: it takes false, or true where keep is 1 or more",
        ),
        (
            r#"[{"name": "a", "keep": 1, "pin": "true"}]"#,
            "field pin: \"true\" is not accepted",
        ),
        (
            r#"[{"name": "a", "maxImageGiB": 10000}]"#,
            "field maxImageGiB: 10000 is not accepted: it takes a whole number from 0 to 9999",
        ),
        (
            r#"[{"name": "a", "maxImageGiB": 0.5}]"#,
            "field maxImageGiB: 0.5 is not accepted",
        ),
        (
            r#"[{"name": "a", "maxErrors": "101%"}]"#,
            "field maxErrors: \"101%\" is not accepted",
        ),
        (
            r#"[{"name": "a", "maxConcurrency": 0}]"#,
            "field maxConcurrency: 0 is not accepted",
        ),
        (
            r#"[{"name": "a", "repos": ["x"]}]"#,
            "field repos: [\"x\"] is not accepted: it takes nothing, for there is no such field",
        ),
        (
            r#"[{"name": "a", "kep": 5, "pin": true}]"#,
            "field kep: 5 is not accepted: it takes nothing, for there is no such field",
        ),
        ("{}", "the rules are no list"),
        ("[]", "the rules are an empty list"),
        ("[1]", "something that is no object"),
        ("nonsense", "the rules are no JSON list"),
    ];
    for (text, expected) in cases {
        assert!(error(text).contains(expected), "{text}: {}", error(text));
    }
}

#[test]
fn a_list_that_is_not_accepted_is_told_in_full_however_long_it_is() {
    let many: Vec<String> = (0..100)
        .map(|k| format!("team/application-{k}"))
        .chain(["{a}".to_owned()])
        .collect();
    let rules = serde_json::json!([{"name": "a", "repositories": many}]).to_string();
    assert!(error(&rules).contains(r#""team/application-0","#) && error(&rules).contains(r#""{a}"] is not accepted"#));
}

#[test]
fn exclusion_wins_over_inclusion_and_only_exclusions_take_the_rest() {
    let both = Globs::new(["app-*", "!app-debug"]).unwrap();
    assert!(both.matches("app-web") && !both.matches("app-debug") && !both.matches("other"));
    let rest = Globs::new(["!*-debug"]).unwrap();
    assert!(rest.matches("app") && !rest.matches("app-debug"));
}

#[test]
fn globs_are_told_with_what_they_exclude() {
    assert_eq!(
        Globs::new(["!app-debug", "app-*", "x"]).unwrap().to_string(),
        "app-* x !app-debug"
    );
    assert_eq!(Globs::new(["!x"]).unwrap().to_string(), "* !x");
}

#[test]
fn only_plain_texts_can_be_told_without_a_listing() {
    assert_eq!(Globs::new(["a/b", "c", "!c"]).unwrap().literals(), Some(vec!["a/b"]));
    assert_eq!(Globs::new(["a/*"]).unwrap().literals(), None);
    assert_eq!(Globs::new(["!c"]).unwrap().literals(), None);
}

proptest! {
    #[test]
    fn a_repository_name_is_a_glob_that_takes_exactly_itself(name in "[a-z0-9]{1,8}(/[a-z0-9._-]{1,8}){0,3}", other in "[a-z0-9/._-]{1,20}") {
        let globs = Globs::new([name.as_str()]).unwrap();
        prop_assert!(globs.matches(&name));
        prop_assert_eq!(globs.matches(&other), other == name);
    }

    #[test]
    fn a_trailing_star_takes_every_continuation(prefix in "[a-z0-9/-]{1,10}", rest in "[a-z0-9/._-]{0,20}") {
        let globs = Globs::new([format!("{prefix}*").as_str()]).unwrap();
        let text = format!("{prefix}{rest}");
        prop_assert!(globs.matches(&text));
    }

    #[test]
    fn what_is_excluded_is_never_taken(pattern in "(\\*|[a-z?]){0,1}([a-z?]\\*?){1,3}", text in "[a-z]{1,6}") {
        let globs = Globs::new([pattern.as_str(), &format!("!{pattern}")]).unwrap();
        prop_assert!(!globs.matches(&text));
    }

    #[test]
    fn a_node_never_keeps_less_than_it_is_sent_and_pins_nothing_for_ever(
        newest in 1..=51_usize,
        keep in 0..=51_usize,
        pin: bool,
    ) {
        let text = format!(r#"[{{"name": "a", "newest": {newest}, "keep": {keep}, "pin": {pin}}}]"#);
        let usable = newest <= 50 && (keep == 0 && !pin || (newest..=50).contains(&keep));
        let parsed = parse_rules(&text).map(|rules| (rules[0].newest, rules[0].keep, rules[0].pin));
        prop_assert_eq!(parsed.ok(), usable.then_some((newest, keep, pin)));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,200}") {
        if let Err(error) = parse_rules(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_field_value_is_parsed_or_refused_by_name(
        field in prop::sample::select(&reader::FIELDS[..]),
        value in prop_oneof![Just("null".to_owned()), Just("[]".to_owned()), Just("{}".to_owned()), Just("-1".to_owned()), "\"[a-z*!?]{0,5}\"", "[0-9]{1,9}".prop_map(|n| format!("{}", n.parse::<u64>().unwrap()))],
    ) {
        let text = format!("[{{\"name\": \"a\", \"{field}\": {value}}}]");
        if let Err(error) = parse_rules(&text) {
            prop_assert!(error.to_string().contains(field), "{}", error);
        }
    }
}

#[test]
fn a_rule_names_images_of_a_registry_by_whichever_of_its_endpoints() {
    let own = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
    let central = "210987654321.dkr.ecr.us-east-1.amazonaws.com";
    let names = |image: &str, registry: &str| {
        let rules = parse_rules(&format!(r#"[{{"name": "a", "images": ["{image}"]}}]"#)).unwrap();
        rules[0].names(registry, "team/app", own)
    };
    for host in [central, "210987654321.dkr-ecr.us-east-1.on.aws"] {
        assert!(names(&format!("{host}/team/app:v1"), central), "{host}");
        assert!(!names(&format!("{host}/team/app:v1"), own), "{host}");
    }
    assert!(names("team/app:v1", own) && !names("team/app:v1", central));
}
