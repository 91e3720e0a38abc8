use proptest::prelude::*;

use super::*;
use crate::{node::Cluster, settings::Mode};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const LONGEST_REGISTRY: &str = "123456789012.dkr-ecr-fips.ap-southeast-99.on.amazonwebservices.com.cn";
const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";

#[test]
fn a_comment_says_why_the_command_was_sent() {
    let first = Comment {
        trigger: Trigger::Push,
        rule: "gpu".to_owned(),
        attempt: 1,
        job: None,
    };
    assert_eq!(first.to_string(), "push rule=gpu attempt=1");
    let second = Comment {
        attempt: 2,
        job: Some(JOB.to_owned()),
        ..first
    };
    assert_eq!(second.to_string(), format!("push rule=gpu attempt=2 job={JOB}"));
}

/// Whoever lets the document grow leaves less to the images of a command.
#[test]
fn the_document_and_the_largest_parameters_are_within_what_ssm_takes() {
    const MAX_BYTES: usize = 65_536;
    let written = include_str!("../../../ssm/prefetch-images.json");
    let document: serde_json::Value = serde_json::from_str(written).unwrap();
    // CloudFormation writes it anew, and does not say how.
    let indented = serde_json::to_string_pretty(&document).unwrap();
    let document = written.len().max(indented.len());
    let settings = Settings {
        mode: Mode::Observe,
        cluster: Cluster {
            name: "prod".to_owned(),
            tag_key: "aws:eks:cluster-name".to_owned(),
        },
        document: "prefetch-images".to_owned(),
        rules: Vec::new(),
        registry_endpoint: crate::image::RegistryEndpoint::Standard,
        delivery_timeout: 2_592_000,
        execution_timeout: 172_800,
        image_gc_high_threshold: 100,
        max_parallel_image_pulls: 16,
        max_connections: 20,
        launch_max_connections: 20,
        max_bandwidth_mib: 9999,
    };
    let handling = Handling {
        max_image_gib: 9999,
        keep: 50,
        pin: false,
        is_starting: false,
    };
    let parameters = serde_json::to_string(&parameters(&settings, handling, &[])).unwrap();
    let bytes = document + parameters.len() + MAX_IMAGES_BYTES;
    assert!(bytes <= MAX_BYTES, "{bytes} of {MAX_BYTES}");
}

#[test]
fn a_command_takes_as_many_images_with_the_longest_names_as_with_the_shortest() {
    let registry = format!("{}.example:65535", "r".repeat(240));
    let longest = Image::new(&registry, &"a".repeat(255), Some(&"t".repeat(128)), DIGEST).unwrap();
    let of_many = vec![longest; 2 * MAX_IMAGES + 1];
    assert_eq!(
        images_of_commands(&of_many).map(<[Image]>::len).collect::<Vec<_>>(),
        [MAX_IMAGES, MAX_IMAGES, 1]
    );
    assert_eq!(images_of_commands(&[]).count(), 0);
}

#[test]
fn the_id_of_an_observed_job_is_none_of_ssms() {
    assert!(is_unsent_id("e8d3c0e4-71f7-8491-898f-c9b35bee5f3b"));
    for id in [JOB, "e8d3c0e4-71f7-8491-898f-c9b35bee5f3", "8", ""] {
        assert!(!is_unsent_id(id), "{id}");
    }
}

#[test]
fn a_destination_is_told_by_its_tags_or_ids() {
    let cluster = crate::node::Cluster {
        name: "prod".to_owned(),
        tag_key: "aws:eks:cluster-name".to_owned(),
    };
    let tags = [("team".to_owned(), vec!["ml".to_owned(), "ai".to_owned()])].into();
    for (destination, text, json) in [
        (
            Destination::Selected(NodeSelector::of_tags(&cluster, tags)),
            "nodes with the tags aws:eks:cluster-name=prod, team=ml|ai",
            r#"{"tags":{"aws:eks:cluster-name":["prod"],"team":["ml","ai"]}}"#,
        ),
        (
            Destination::Instances(vec!["i-1".to_owned(), "i-2".to_owned()]),
            "the nodes i-1, i-2",
            r#"{"ids":["i-1","i-2"]}"#,
        ),
    ] {
        assert_eq!(destination.to_string(), text);
        assert_eq!(serde_json::to_string(&destination).unwrap(), json);
    }
}

#[test]
fn what_is_no_comment_of_ours_is_refused() {
    for text in [
        "",
        "Push rule=gpu attempt=1",
        "push",
        "push rule=GPU attempt=1",
        "push rule=gpu attempt=0",
        "push rule=gpu attempt=10",
        "push rule=gpu attempt=+1",
        "push  rule=gpu attempt=1",
        "push rule=gpu attempt=1 ",
        "push rule=gpu attempt=2 job=x",
        "push rule=gpu attempt=1 job=e8d3c0e4-71f7-4491-898f-c9b35bee5f3b more",
        "prefetch trigger=push rule=gpu attempt=1",
    ] {
        assert_eq!(text.parse::<Comment>(), Err(CommentError(text.to_owned())));
    }
}

proptest! {
    #[test]
    fn every_comment_fits_and_is_read_as_it_was_written(
        trigger in prop::sample::select(&Trigger::ALL[..]),
        rule in "[a-z0-9-]{1,32}",
        attempt in 1..=9_u8,
        job in prop::option::of(Just(JOB.to_owned())),
    ) {
        let comment = Comment { trigger, rule, attempt, job };
        let text = comment.to_string();
        prop_assert!(text.len() <= MAX_COMMENT, "{}", text);
        prop_assert_eq!(text.parse(), Ok(comment));
    }

    #[test]
    fn every_command_fits_and_no_image_is_lost_or_moved(
        names in prop::collection::vec(("[a-z]{1,255}", prop::option::of("[a-z]{1,128}")), 0..40),
    ) {
        let image = |(repository, tag): &(String, Option<String>)| {
            Image::new(LONGEST_REGISTRY, repository, tag.as_deref(), DIGEST).unwrap()
        };
        let images: Vec<Image> = names.iter().map(image).collect();
        let cut: Vec<&[Image]> = images_of_commands(&images).collect();
        prop_assert_eq!(&cut.concat(), &images);
        for images in &cut {
            prop_assert!((1..=MAX_IMAGES).contains(&images.len()));
            prop_assert!(images_text(images).len() <= MAX_IMAGES_BYTES);
        }
        for both in cut.windows(2) {
            let more = [both[0], &both[1][..1]].concat();
            prop_assert!(more.len() > MAX_IMAGES || images_text(&more).len() > MAX_IMAGES_BYTES);
        }
    }

    #[test]
    fn any_text_is_a_comment_or_refused(text in "(push|job)? ?(rule=)?.{0,8} ?(attempt=)?[0-9]{0,2}.{0,8}") {
        if let Ok(comment) = text.parse::<Comment>() {
            prop_assert_eq!(comment.to_string(), text);
        }
    }
}
