//! Describes what a rule's newest images are, whatever ECR answers.

mod registry;

use aws_sdk_ecr::types::ImageFailureCode;

use super::*;
use registry::{Refusal, Registry, RegistryImage, Rules, names};

const IMAGES: &str = r#"{"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json"}]}"#;
const CACHE: &str = r#"{"manifests": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip"},
    {"mediaType": "application/vnd.buildkit.cacheconfig.v0"}]}"#;

const ONE_LAYER: &str = r#"{"layers": [{"digest": "sha256:1"}]}"#;
const MANY_LAYERS: &str = r#"{"layers": [{"digest": "sha256:1"}, {"digest": "sha256:2"}]}"#;
const HEX: &str = "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451";
const OTHER_HEX: &str = "8013700cf53d9b9f570ccc5612837628f97c33d67b290a8736b7eb5a192c3562";

#[tokio::test]
async fn an_index_of_a_caches_layers_is_never_newest_and_is_asked_for_once_in_a_listing() {
    let registry = Registry::of(&[
        (1, 1, &["v1"], Some(IMAGES)),
        (2, 2, &["buildcache"], Some(CACHE)),
        (3, 3, &["other-cache"], Some(CACHE)),
    ]);
    let newest = registry.newest(r#"[{"name": "a"}]"#);
    assert_eq!(names(&newest.whole("a").await.unwrap()), ["app:v1"]);
    assert_eq!(
        registry.calls(),
        [
            "DescribeRepositories",
            "DescribeImages",
            "BatchGetImage",
            "BatchGetImage",
            "BatchGetImage"
        ]
    );
    newest.whole("a").await.unwrap();
    assert!(registry.calls().is_empty());
    // What an index leads to is known from then on.
    let anew = Rules(newest.0.anew(PATIENCE), newest.1);
    assert_eq!(names(&anew.whole("a").await.unwrap()), ["app:v1"]);
    assert_eq!(registry.calls(), ["DescribeRepositories", "DescribeImages"]);
}

#[tokio::test]
async fn only_active_and_tagged_images_are_asked_for_once_for_all_rules() {
    let registry = Registry::of(&[(1, 1, &["v1"], None), (2, 2, &["main"], None)]);
    let newest = registry.newest(r#"[{"name": "a", "tags": ["v*"]}, {"name": "b"}, {"name": "c", "tags": ["x"]}]"#);
    assert_eq!(names(&newest.whole("a").await.unwrap()), ["app:v1"]);
    assert_eq!(names(&newest.whole("b").await.unwrap()), ["app:main"]);
    assert_eq!(registry.calls(), ["DescribeRepositories", "DescribeImages"]);
    // A repository that has images, none of them for this rule, is remembered as well.
    assert!(newest.whole("c").await.unwrap().is_empty());
    assert!(newest.known("c", 29).await.images.is_empty());
    assert!(registry.calls().is_empty());
}

#[tokio::test]
async fn that_a_repository_is_empty_is_known_for_one_invocation_only() {
    let registry = Registry::of(&[]);
    let newest = registry.newest(r#"[{"name": "a", "repositories": ["app"]}, {"name": "b", "repositories": ["app"]}]"#);
    assert!(newest.known("a", 7).await.images.is_empty());
    assert!(newest.known("b", 7).await.images.is_empty());
    assert_eq!(registry.calls(), ["DescribeImages"]);
    newest.known("a", 8).await;
    assert_eq!(registry.calls(), ["DescribeImages"]);
}

#[tokio::test]
async fn that_no_repository_is_the_rules_is_known_for_one_invocation_only() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    let newest = registry.newest(r#"[{"name": "a", "repositories": ["a*"]}]"#);
    registry.set_repositories(["stack-nodeprograms-1"]);
    assert!(newest.known("a", 7).await.images.is_empty());
    registry.set_repositories(["stack-nodeprograms-1", "app"]);
    assert_eq!(names(&newest.known("a", 8).await.images), ["app:v1"]);
}

#[tokio::test]
async fn what_is_done_between_two_scans_leaves_the_second_its_time() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    let newest =
        registry.newest(r#"[{"name": "a", "repositories": ["app"]}, {"name": "b", "repositories": ["web", "api"]}]"#);
    registry.set_repositories(["app", "web", "api"]);
    let patience = Duration::from_secs(1);
    let newest = Rules(newest.0.anew(patience), newest.1);
    assert_eq!(names(&newest.whole("a").await.unwrap()), ["app:v1"]);
    // The first rule's commands are sent.
    tokio::time::sleep(patience).await;
    assert!(newest.0.spent(SystemTime::UNIX_EPOCH) < patience);
    assert_eq!(newest.whole("b").await.unwrap().len(), 2);
}

#[tokio::test]
async fn sixty_four_hexadecimal_digits_are_a_caches_where_the_manifest_has_one_layer() {
    let registry = Registry::of(&[
        (1, 1, &["v1"], None),
        (2, 2, &[HEX], Some(MANY_LAYERS)),
        (3, 3, &[OTHER_HEX], Some(ONE_LAYER)),
    ]);
    let rules = format!(r#"[{{"name": "a"}}, {{"name": "named", "tags": ["v*", "{OTHER_HEX}"]}}]"#);
    let newest = registry.newest(&rules);
    assert_eq!(names(&newest.whole("a").await.unwrap()), [format!("app:{HEX}")]);
    // What a rule names literally is no cache, whatever another rule takes it for.
    assert_eq!(
        names(&newest.whole("named").await.unwrap()),
        [format!("app:{OTHER_HEX}")]
    );
    for (repository, tag, asked) in [
        (
            "cdk-hnb659fds-container-assets-123456789012-eu-central-1",
            OTHER_HEX,
            false,
        ),
        ("ci/kaniko-cache", "v1", false),
        ("team/app", HEX, true),
    ] {
        registry.set_repositories([repository]);
        registry.calls();
        let newest = registry.newest(r#"[{"name": "a"}]"#);
        assert_eq!(
            names(&newest.whole("a").await.unwrap()),
            [format!("{repository}:{tag}")]
        );
        assert_eq!(registry.calls().contains(&"BatchGetImage"), asked, "{repository}");
    }
}

#[tokio::test]
async fn a_manifest_that_ecr_refuses_to_give_is_taken_for_an_images() {
    for (refusal, is_error) in [
        (Refusal::All("AccessDeniedException"), false),
        (Refusal::All("UnableToGetUpstreamImageException"), false),
        (Refusal::One(ImageFailureCode::KmsError), false),
        (Refusal::One(ImageFailureCode::UpstreamAccessDenied), false),
        (Refusal::All("ThrottlingException"), true),
        (Refusal::All("ServerException"), true),
    ] {
        let registry = Registry::of(&[(1, 1, &["v1"], None), (2, 2, &["v2"], Some(CACHE))]);
        registry.refuse(Some(refusal.clone()));
        let newest = registry.newest(r#"[{"name": "a"}]"#);
        match newest.whole("a").await {
            Ok(images) => assert!(!is_error && names(&images) == ["app:v2"], "{refusal:?}"),
            Err(error) => assert!(is_error, "{refusal:?}: {error}"),
        }
        // That is not remembered as if it had been read.
        registry.refuse(None);
        let anew = Rules(newest.0.anew(PATIENCE), newest.1);
        assert_eq!(names(&anew.whole("a").await.unwrap()), ["app:v1"]);
    }
}

#[tokio::test]
async fn images_are_named_under_the_endpoint_by_which_nodes_pull() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    let mut newest = registry.newest(r#"[{"name": "a"}]"#);
    newest.0.endpoint = RegistryEndpoint::Dualstack;
    let image = newest.whole("a").await.unwrap()[0].to_string();
    assert!(
        image.starts_with("123456789012.dkr-ecr.eu-central-1.on.aws/app:v1@sha256:"),
        "{image}"
    );
}

#[tokio::test]
async fn what_a_throttled_scan_was_answered_is_used_and_the_next_ones_end_it() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    registry.set_repositories((0..400).map(|k| format!("team/app-{k:03}")));
    // Every fifth call is throttled, three times in a row.
    registry.throttle(|call| call % 15 >= 12);
    let newest = registry.newest(r#"[{"name": "a"}]"#);
    let mut known = Vec::new();
    for scan in 0..10 {
        // Deliveries come every 31 seconds, when no answer is remembered any more.
        let Newest { images, missing } = newest.known("a", 31 * scan).await;
        assert!(images.len() > known.len());
        known = names(&images);
        if missing.is_none() {
            break;
        }
        let error = error_text(&missing.unwrap());
        assert!(error.contains("ThrottlingException"), "{error}");
    }
    assert_eq!(known.len(), 400);
    let sorted: Vec<String> = (0..400).map(|k| format!("team/app-{k:03}:v1")).collect();
    assert_eq!(known, sorted);
    let calls = registry
        .calls()
        .iter()
        .filter(|call| **call == "DescribeImages")
        .count();
    // Those that are two minutes old once the others are known are asked for a second time.
    assert!(calls < 900, "{calls} calls for 400 repositories");
}

#[tokio::test]
async fn half_an_answer_is_an_error_for_who_wants_the_whole() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    registry.set_repositories(["app", "web"]);
    registry.throttle(|call| call == 1);
    let newest = registry.newest(r#"[{"name": "a"}]"#);
    let error = newest.whole("a").await.unwrap_err();
    assert!(matches!(error, ImagesError::Images(..)), "{error}");
    // Whoever asks anew has the other half of it.
    let anew = Rules(newest.0.anew(PATIENCE), newest.1);
    assert_eq!(anew.whole("a").await.unwrap().len(), 2);
    let calls = registry.calls();
    assert_eq!(calls.iter().filter(|call| **call == "DescribeImages").count(), 3);
}

#[tokio::test]
async fn what_an_unfinished_scan_was_answered_is_no_longer_true_after_ten_minutes() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    registry.set_repositories(["app", "web"]);
    registry.throttle(|call| call == 1);
    let newest = registry.newest(r#"[{"name": "a"}]"#);
    newest.known("a", 0).await;
    registry.calls();
    newest.known("a", 601).await;
    assert_eq!(
        registry
            .calls()
            .iter()
            .filter(|call| **call == "DescribeImages")
            .count(),
        2
    );
}

#[tokio::test]
async fn old_answers_of_an_unfinished_scan_are_asked_for_again_once_the_others_are_known() {
    for (seconds, calls, tags) in [(100, 1, ["v1", "v2"]), (130, 2, ["v2", "v2"])] {
        let registry = Registry::of(&[(1, 1, &["v1"], None)]);
        registry.set_repositories(["app", "web"]);
        registry.throttle(|call| call == 1);
        let newest = registry.newest(r#"[{"name": "a"}]"#);
        let first = names(&newest.known("a", 0).await.images);
        assert_eq!(first, ["app:v1"]);
        registry.calls();
        registry.set_images(&[(2, 2, &["v2"], None)]);
        let Newest { images, missing } = newest.known("a", seconds).await;
        assert!(missing.is_none());
        assert_eq!(names(&images), [format!("app:{}", tags[0]), format!("web:{}", tags[1])]);
        let described = registry.calls();
        let described = described.iter().filter(|call| **call == "DescribeImages");
        assert_eq!(described.count(), calls);
    }
}

#[tokio::test]
async fn that_a_repository_was_empty_is_not_kept_of_an_unfinished_scan() {
    let registry = Registry::of(&[]);
    registry.set_repositories(["app", "web"]);
    registry.throttle(|call| call == 1);
    let newest = registry.newest(r#"[{"name": "a"}]"#);
    assert!(newest.known("a", 0).await.missing.is_some());
    registry.set_images(&[(1, 1, &["v1"], None)]);
    assert_eq!(names(&newest.known("a", 40).await.images), ["app:v1", "web:v1"]);
}

#[tokio::test]
async fn a_listing_that_was_cut_off_goes_on_where_it_stopped() {
    let tags = |k: usize| match k {
        3 => &["prod"][..],
        99 => &["v2"],
        _ => &["v1"],
    };
    let images: Vec<RegistryImage> = (0..100).zip(0..).map(|(k, hour)| (k, hour, tags(k), None)).collect();
    let registry = Registry::of(&images);
    registry.set_page(10);
    registry.throttle(|call| call % 4 == 3);
    let newest = registry.newest(r#"[{"name": "a", "tags": ["v*", "prod"]}]"#);
    assert!(newest.known("a", 0).await.missing.is_some());
    assert!(newest.known("a", 31).await.missing.is_some());
    assert!(newest.known("a", 62).await.missing.is_some());
    let Newest { images, missing } = newest.known("a", 93).await;
    assert!(missing.is_none());
    assert_eq!(names(&images), ["app:v2", "app:prod"]);
    let calls = registry.calls();
    assert_eq!(calls.iter().filter(|call| **call == "DescribeImages").count(), 10 + 3);
    // The next one begins at the first page.
    assert!(newest.known("a", 130).await.missing.is_some());
    assert!(newest.0.listings.begun.lock().unwrap()["app"].since > SystemTime::UNIX_EPOCH + Duration::from_secs(93));
}

#[tokio::test]
async fn a_listing_that_goes_on_minutes_later_is_asked_for_again_once_it_is_whole() {
    let mut images: Vec<RegistryImage> = (0..20).zip(0..).map(|(k, hour)| (k, hour, &["v1"][..], None)).collect();
    let registry = Registry::of(&images);
    registry.set_page(10);
    registry.throttle(|call| call == 1);
    let newest = registry.newest(r#"[{"name": "a", "tags": ["v*"]}]"#);
    assert!(newest.known("a", 0).await.missing.is_some());
    // What was pushed meanwhile stands on the page that was read before.
    images.insert(0, (99, 99, &["v2"], None));
    registry.set_images(&images);
    let Newest { images, missing } = newest.known("a", 150).await;
    assert!(missing.is_none());
    assert_eq!(names(&images), ["app:v2"]);
}

#[tokio::test]
async fn a_scan_ends_in_time_with_what_it_was_answered() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    let newest = registry.newest(r#"[{"name": "a"}]"#);
    let hurried = Rules(newest.0.anew(Duration::ZERO), newest.1);
    let Newest { images, missing } = hurried.known("a", 0).await;
    assert!(matches!(missing, Some(ImagesError::Slow(1, 0))) || images.len() == 1);
}

#[tokio::test]
async fn registries_take_turns_so_that_the_pages_of_all_together_have_room() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    let one = registry.newest(r#"[{"name": "a"}]"#);
    let other = registry.newest(r#"[{"name": "a"}]"#);
    let hurried = other.0.beside(&one.0).anew(Duration::from_millis(50));
    let other = Rules(hurried, other.1);
    let pages = one.0.turns.acquire_many(8).await.unwrap();
    assert!(matches!(
        other.known("a", 0).await.missing,
        Some(ImagesError::Slow(1, _))
    ));
    drop(pages);
    assert_eq!(names(&other.known("a", 60).await.images), ["app:v1"]);
}

#[tokio::test]
async fn a_repository_that_does_not_exist_has_no_images() {
    let registry = Registry::of(&[(1, 1, &["v1"], None)]);
    let newest = registry.newest(r#"[{"name": "a", "repositories": ["gone", "app"]}]"#);
    assert_eq!(names(&newest.whole("a").await.unwrap()), ["app:v1"]);
}
