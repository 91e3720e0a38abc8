use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    ecr::{Registries, Registry},
    mocks::{
        self, Calls, Table, dynamodb,
        ecr::{RegistryImage, ecr},
        note_named, note_use, ran,
        settings::{settings, usage_settings},
    },
    rule_images::RuleImages,
    usage::{Usage, day},
};

const OWN: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";
const CENTRAL: &str = "210987654321.dkr.ecr.us-east-1.amazonaws.com";

/// An account's registry, and the calls to it.
type Fake = Arc<Mutex<(Calls, mocks::ecr::Registry)>>;

/// The registries of this account and of a central one, and what nodes of the rule `a` run.
struct Cloud {
    own: Fake,
    central: Fake,
    table: Arc<Mutex<(Calls, Table)>>,
}

impl Cloud {
    /// Makes both registries with these repositories, each with one image; a node runs what is told.
    fn new(repositories: &[&str], running: &[&str]) -> Self {
        let cloud = Self {
            own: Fake::default(),
            central: Fake::default(),
            table: Arc::default(),
        };
        cloud.central.lock().unwrap().1.account = Some("210987654321".to_owned());
        for (fake, tag) in [(&cloud.own, "own"), (&cloud.central, "central")] {
            let held = &mut fake.lock().unwrap().1.repositories;
            held.extend(repositories.iter().map(|name| ((*name).to_owned(), vec![image(tag)])));
        }
        for name in running {
            let row = ran(&format!("{name}@{}", image("v0").digest), 1, day(now()));
            note_use(&mut cloud.table.lock().unwrap().1, "a", &row);
        }
        cloud
    }

    async fn newest(&self, rule: &str) -> Result<Newest, ImagesError> {
        let settings = settings(&format!(r#"[{{"name": "a"{rule}}}]"#));
        let registries = Registries::with(
            (OWN.to_owned(), Registry::own(client(&self.own))),
            usage_settings("210987654321/us-east-1")
                .central
                .into_iter()
                .map(|central| (central, Registry::central(client(&self.central), "210987654321")))
                .collect(),
        );
        let newest = NewestImages::of(registries.own().clone(), "eu-central-1".to_owned(), &settings);
        let usage = Usage::with_client(dynamodb(&self.table, |(calls, table)| (calls, table)), "outcomes", 14);
        let images = RuleImages::with(newest, usage, OWN.to_owned()).and_central(&settings, &registries);
        let rule = &settings.rules[0];
        let used = images.known_use(rule, now()).await.unwrap();
        images.newest(rule, &used, now()).await
    }

    /// Names the rule's newest images, which ECR tells whole.
    async fn names(&self, rule: &str) -> Vec<String> {
        let images = self.newest(rule).await.and_then(Newest::whole).unwrap();
        images.iter().map(|image| image.name_by_tag().unwrap()).collect()
    }
}

fn fail(fake: &Fake, call: &'static str) {
    fake.lock().unwrap().0.fail(call, 0, "ThrottlingException");
}

fn client(fake: &Fake) -> aws_sdk_ecr::Client {
    ecr(fake, |(calls, registry)| (calls, registry))
}

fn image(tag: &str) -> RegistryImage {
    RegistryImage::new(&format!("sha256:{:0<64}", tag.len()), &[tag], 0)
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(498_912)
}

fn of(host: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{host}/{name}")).collect()
}

#[tokio::test]
async fn the_newest_images_of_repositories_that_nodes_use_come_after_this_accounts() {
    let running = of(CENTRAL, &["team/web:v0", "team/app:v0"]);
    let running = [running[0].as_str(), &running[1], &format!("{OWN}/team/web:v0")].map(str::to_owned);
    let cloud = Cloud::new(&["team/app", "team/web"], &running.each_ref().map(String::as_str));
    let both = [
        of(OWN, &["team/web:own"]),
        of(CENTRAL, &["team/app:central", "team/web:central"]),
    ];
    assert_eq!(cloud.names("").await, both.concat());
    assert_eq!(
        cloud.names(r#", "repositories": ["team/web"]"#).await,
        [of(OWN, &["team/web:own"]), of(CENTRAL, &["team/web:central"])].concat()
    );
    assert_eq!(
        cloud.names(r#", "registries": ["public.ecr.aws"]"#).await,
        of(OWN, &["team/web:own"])
    );
}

#[tokio::test]
async fn where_nothing_is_known_of_use_or_it_does_not_count_repositories_are_named_by_the_rule_or_in_use() {
    for (rule, running, expected) in [
        (r#", "repositories": ["app"]"#, vec![], vec!["app:central"]),
        (
            r#", "repositories": ["web", "a*"], "used": false"#,
            vec![format!("{CENTRAL}/app:v0"), format!("{CENTRAL}/other:v0")],
            vec!["app:central", "web:central"],
        ),
        (r#", "used": false"#, vec![], vec![]),
        (r#", "repositories": ["app", "!app"], "used": false"#, vec![], vec![]),
    ] {
        let running: Vec<&str> = running.iter().map(String::as_str).collect();
        let cloud = Cloud::new(&["app", "web", "other"], &running);
        let names = cloud.names(rule).await;
        let central: Vec<&String> = names.iter().filter(|name| name.starts_with(CENTRAL)).collect();
        assert_eq!(central, of(CENTRAL, &expected).iter().collect::<Vec<_>>(), "{rule}");
        // Without a repository to ask for, a central registry is not asked at all.
        let calls = cloud.central.lock().unwrap().0.take();
        assert_eq!(calls.len(), expected.len(), "{rule}");
    }
}

#[tokio::test]
async fn a_repository_that_is_not_there_or_that_its_policy_keeps_to_itself_takes_nothing_from_the_others() {
    let cloud = Cloud::new(&["app"], &[]);
    cloud.central.lock().unwrap().1.unreadable.insert("closed".to_owned());
    let names = cloud.names(r#", "repositories": ["closed", "gone", "app"]"#).await;
    assert_eq!(names, [of(OWN, &["app:own"]), of(CENTRAL, &["app:central"])].concat());
    // In this account's registry it is the function's own role that lacks a right: that is told.
    let cloud = Cloud::new(&["app"], &[]);
    cloud.own.lock().unwrap().1.unreadable.insert("app".to_owned());
    let newest = cloud.newest(r#", "repositories": ["app"]"#).await.unwrap();
    assert!(newest.missing.is_some());
}

#[tokio::test]
async fn a_registry_that_does_not_answer_leaves_the_images_of_the_others() {
    let rule = r#", "repositories": ["app"]"#;
    let cloud = Cloud::new(&["app"], &[]);
    fail(&cloud.central, "DescribeImages");
    let newest = cloud.newest(rule).await.unwrap();
    assert_eq!((newest.images.len(), newest.missing.is_some()), (1, true));
    let cloud = Cloud::new(&["app"], &[]);
    fail(&cloud.own, "DescribeImages");
    let newest = cloud.newest(rule).await.unwrap();
    assert_eq!(newest.images[0].registry(), CENTRAL);
    assert!(newest.missing.is_some());
    // Where this account's repositories cannot even be listed, an error says so, but for what others name.
    for (running, is_told) in [(vec![], false), (vec![format!("{CENTRAL}/app:v0")], true)] {
        let running: Vec<&str> = running.iter().map(String::as_str).collect();
        let cloud = Cloud::new(&["app"], &running);
        cloud
            .own
            .lock()
            .unwrap()
            .0
            .fail("DescribeRepositories", 0, "ThrottlingException");
        let newest = cloud.newest(r#", "used": false"#).await;
        assert_eq!(newest.is_ok_and(|newest| newest.missing.is_some()), is_told);
    }
}

#[tokio::test]
async fn what_a_rule_names_itself_comes_although_ecr_does_not_list_the_repositories() {
    let cloud = Cloud::new(&["app"], &[]);
    let (tag, named) = (
        "quay.io/team/tool:v1",
        format!("quay.io/team/tool:v1@{}", image("v1").digest),
    );
    note_named(&mut cloud.table.lock().unwrap().1, "a", tag, &named);
    fail(&cloud.own, "DescribeRepositories");
    let rule = format!(r#", "used": false, "images": ["{tag}"]"#);
    let newest = cloud.newest(&rule).await.unwrap();
    assert_eq!(newest.images, [named.parse().unwrap()]);
    assert!(matches!(newest.missing, Some(ImagesError::Repositories(_))));
}
