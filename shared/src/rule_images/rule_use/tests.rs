use chrono::Days;
use proptest::prelude::*;

use super::*;
use crate::{rows::UsageDay, rule::parse_rules};

const OWN: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
const OWN_ELSEWHERE: &str = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
const PUBLIC: &str = "public.ecr.aws";
const OTHER: &str = "registry.example.com:5000";
const REGISTRIES: [&str; 4] = [OWN, OWN_ELSEWHERE, PUBLIC, OTHER];

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_hours(498_912)
}

fn rule(fields: &str) -> Rule {
    parse_rules(&format!(r#"[{{"name": "a"{fields}}}]"#)).unwrap().remove(0)
}

/// Makes the row of an image that so many nodes ran so many days ago.
fn row(name: &str, nodes: usize, ago: u64) -> UsageRow {
    let image = format!("{name}@sha256:{}", "0".repeat(64)).parse().unwrap();
    let seen = day(now()) - Days::new(ago);
    let mut row = UsageRow::new(image, seen, 1);
    let mut of_day = UsageDay::default();
    (0..nodes).for_each(|node| of_day.running.add(&format!("i-{node:017x}")));
    row.days.insert(seen, of_day);
    row
}

fn used(rows: impl IntoIterator<Item = UsageRow>) -> RuleUse {
    RuleUse::new(Arc::new(rows.into_iter().collect()), now())
}

fn names(rows: &[&UsageRow]) -> Vec<String> {
    let name = |row: &&UsageRow| row.image.name_by_tag().unwrap();
    rows.iter().map(name).collect()
}

#[test]
fn only_repositories_of_this_registry_that_the_rule_takes_are_named_each_once_in_the_rules_order() {
    let rows = [
        format!("{OWN}/team/web:v1"),
        format!("{OWN}/team/app:v1"),
        format!("{OWN}/team/app:v2"),
        format!("{OWN}/other:v1"),
        format!("{OWN_ELSEWHERE}/team/far:v1"),
        format!("{PUBLIC}/team/public:v1"),
    ];
    let used = used(rows.iter().map(|name| row(name, 0, 9)));
    for (fields, expected) in [
        (r#", "repositories": ["team/*"]"#, vec!["team/app", "team/web"]),
        (
            r#", "repositories": ["team/web", "none", "team/app"]"#,
            vec!["team/web", "team/app"],
        ),
        (r#", "repositories": ["none"]"#, vec![]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(used.repositories(&rule(fields), OWN), Some(expected));
    }
    assert_eq!(used.repositories(&rule(r#", "used": false"#), OWN), None);
    assert_eq!(RuleUse::default().repositories(&rule(""), OWN), None);
}

#[test]
fn a_new_node_gets_what_runs_today_or_ran_yesterday_and_not_what_ran_before_or_nowhere() {
    let rows = [
        row(&format!("{PUBLIC}/few:v1"), 1, 0),
        row(&format!("{OTHER}/many:v1"), 9, 1),
        row(&format!("{OWN}/some:v2"), 2, 0),
        row(&format!("{OWN}/some:v1"), 2, 0),
        row(&format!("{OWN}/older:v1"), 50, 2),
        row(&format!("{OWN}/pulled:v1"), 0, 0),
    ];
    let used = used(rows);
    let expected = [
        format!("{OTHER}/many:v1"),
        format!("{OWN}/some:v1"),
        format!("{OWN}/some:v2"),
        format!("{PUBLIC}/few:v1"),
    ];
    assert_eq!(names(&used.neighbours(&rule(""), OWN, now())), expected);
    let none = rule(r#", "neighbours": false"#);
    assert!(used.neighbours(&none, OWN, now()).is_empty());
}

#[test]
fn what_ran_yesterday_is_not_brought_where_its_repository_runs_another_image_today() {
    let mut pulled = row(&format!("{OWN}/app:v2"), 9, 1);
    pulled.merge(&row(&format!("{OWN}/app:v2"), 0, 0));
    let used = used([
        row(&format!("{OWN}/app:v1"), 9, 1),
        pulled,
        row(&format!("{OWN}/app:v3"), 1, 0),
        row(&format!("{OWN}/app:v4"), 5, 0),
        row(&format!("{OWN_ELSEWHERE}/app:v1"), 6, 1),
    ]);
    let expected = [
        format!("{OWN_ELSEWHERE}/app:v1"),
        format!("{OWN}/app:v4"),
        format!("{OWN}/app:v3"),
    ];
    assert_eq!(names(&used.neighbours(&rule(""), OWN, now())), expected);
}

#[test]
fn what_ran_yesterday_is_brought_until_more_than_half_as_many_nodes_have_told_today() {
    let names = |today: usize| -> Vec<String> {
        let used = used([
            row(&format!("{OWN}/app:v1"), 3, 1),
            row(&format!("{OWN}/app:v2"), 2, 1),
            row(&format!("{OWN}/app:v3"), 1, 0),
            row(&format!("{OTHER}/agent:v1"), 9, 1),
            row(&format!("{OTHER}/agent:v2"), today, 0),
        ]);
        names(&used.neighbours(&rule(""), OWN, now()))
    };
    let listed = |names: &[&str]| {
        names
            .iter()
            .map(|name| name.replace("OWN", OWN).replace("OTHER", OTHER))
            .collect::<Vec<_>>()
    };
    // Nine nodes told yesterday, of which some ran several.
    let all = [
        "OTHER/agent:v1",
        "OTHER/agent:v2",
        "OWN/app:v1",
        "OWN/app:v2",
        "OWN/app:v3",
    ];
    assert_eq!(names(4), listed(&all));
    assert_eq!(names(5), listed(&["OTHER/agent:v2", "OWN/app:v3"]));
}

#[test]
fn a_rule_says_from_which_registries_what_runs_is_brought_and_those_of_this_account_always_may() {
    let used = used(REGISTRIES.map(|registry| row(&format!("{registry}/app:v1"), 1, 0)));
    for (registries, expected) in [
        (r#"["*"]"#, vec![OWN, OWN_ELSEWHERE, PUBLIC, OTHER]),
        (r#"["public.ecr.aws"]"#, vec![OWN, OWN_ELSEWHERE, PUBLIC]),
        (
            r#"["*", "!*.amazonaws.com", "!registry.*"]"#,
            vec![OWN, OWN_ELSEWHERE, PUBLIC],
        ),
        (r#"["none"]"#, vec![OWN, OWN_ELSEWHERE]),
    ] {
        let rule = rule(&format!(r#", "registries": {registries}"#));
        let rows = used.neighbours(&rule, OWN, now());
        let mut brought: Vec<&str> = rows.iter().map(|row| row.image.registry()).collect();
        brought.sort_by_key(|registry| REGISTRIES.iter().position(|known| known == registry));
        assert_eq!(brought, expected, "{registries}");
    }
}

/// Describes a row: its registry by place, its name, its nodes and how many days ago they were seen.
type Told = ((usize, String), (usize, u64));

fn row_of(((registry, name), (nodes, ago)): &Told) -> UsageRow {
    row(&format!("{}/{name}:v1", REGISTRIES[*registry]), *nodes, *ago)
}

proptest! {
    #[test]
    fn what_a_new_node_gets_of_its_neighbours_is_the_same_in_whatever_order_the_rows_come(
        (rows, shuffled) in prop::collection::btree_map((0..4_usize, "[a-d]{1,2}"), (0..5_usize, 0..4_u64), 0..20)
            .prop_map(|rows| rows.into_iter().collect::<Vec<_>>())
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        takes_public: bool,
    ) {
        let registries = if takes_public { PUBLIC } else { "none" };
        let rule = rule(&format!(r#", "registries": ["{registries}"]"#));
        let (one, other) = (used(rows.iter().map(row_of)), used(shuffled.iter().map(row_of)));
        let chosen = one.neighbours(&rule, OWN, now());
        prop_assert_eq!(&chosen, &other.neighbours(&rule, OWN, now()));
        let expected = rows.iter().filter(|((registry, _), (nodes, ago))| {
            *nodes > 0 && *ago < 2 && (*registry < 2 || takes_public && *registry == 2)
        });
        prop_assert_eq!(chosen.len(), expected.count());
        let today = day(now());
        for both in chosen.windows(2) {
            let rank = |row: &UsageRow| (Reverse(row.running_nodes(today)), row.image.clone());
            prop_assert!(rank(both[0]) < rank(both[1]));
        }
    }
}
