//! Images of other registries by tag, which a node resolves.

use prefetch::{rows::Key, settings::Mode};
use serde_json::{Value, json};

use crate::tests::cloud::{Cloud, digest, image, node_id};

/// Takes whatever repository and registry, also what no node uses.
const EVERYTHING: &str = r#"[{"name": "default", "used": false, "neighbours": false}]"#;
const PAUSE: &str = "public.ecr.aws/eks-distro/kubernetes/pause:3.2";

fn at(tag: &str) -> String {
    format!("{tag}@{}", digest(tag))
}

/// Makes a cloud where registries have an image under each of these tags.
fn cloud(rules: &'static str, tags: &[&str]) -> Cloud {
    let cloud = Cloud::with(rules, "false");
    for tag in tags {
        cloud.tags.lock().unwrap().push(tag, &digest(tag));
    }
    cloud
}

fn asked(cloud: &Cloud) -> Vec<(String, String)> {
    cloud.tags.lock().unwrap().asked.clone()
}

#[tokio::test]
async fn a_tag_of_another_registry_is_asked_of_one_node_and_goes_to_all_by_its_digest() {
    let cloud = cloud(EVERYTHING, &[PAUSE]);
    let body = json!({"images": [PAUSE, "team/app:v1"], "sameDigest": true});
    let (status, answer) = cloud.post(body).await;
    let images =
        json!([{"asked": PAUSE, "image": at(PAUSE)}, {"asked": "team/app:v1", "image": image("team/app", "v1")}]);
    assert_eq!((status, &answer["images"]), (202, &images));
    assert_eq!(asked(&cloud), [(node_id(1), PAUSE.to_owned())]);
    assert_eq!(cloud.sent()[0].1, [at(PAUSE), image("team/app", "v1")]);
    // A job by ids asks one of these.
    let body = json!({"images": [PAUSE], "nodes": {"ids": [node_id(2)]}});
    assert_eq!(cloud.post(body).await.0, 202);
    assert_eq!(asked(&cloud)[1].0, node_id(2));
}

#[tokio::test]
async fn whatever_kubernetes_reads_is_read_as_it_reads_it() {
    for (reference, tag) in [
        (
            "public.ecr.aws/amazonlinux/amazonlinux:2",
            "public.ecr.aws/amazonlinux/amazonlinux:2",
        ),
        (
            "133129065110.dkr.ecr.ap-southeast-1.amazonaws.com/bigimage:3",
            "133129065110.dkr.ecr.ap-southeast-1.amazonaws.com/bigimage:3",
        ),
        (
            "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/kube-proxy:v1.34.0-minimal-eksbuild.2",
            "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/kube-proxy:v1.34.0-minimal-eksbuild.2",
        ),
        ("nginx", "docker.io/library/nginx:latest"),
        ("python:3.8.10-alpine", "docker.io/library/python:3.8.10-alpine"),
        ("bitnami/redis:7.4", "docker.io/bitnami/redis:7.4"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        (
            "quay.io/prometheus/node-exporter",
            "quay.io/prometheus/node-exporter:latest",
        ),
        (
            "registry.example.com:5000/team/app:1.0",
            "registry.example.com:5000/team/app:1.0",
        ),
        (
            "123456789012.dkr-ecr.eu-west-1.on.aws/shop/api:4.2.0",
            "123456789012.dkr-ecr.eu-west-1.on.aws/shop/api:4.2.0",
        ),
    ] {
        let cloud = cloud(EVERYTHING, &[tag]);
        let (status, answer) = cloud.post(json!({"images": [reference]})).await;
        let images = json!([{"asked": reference, "image": at(tag)}]);
        assert_eq!((status, &answer["images"]), (202, &images), "{reference}");
    }
}

#[tokio::test]
async fn a_name_without_a_registry_is_this_accounts_image_where_it_has_the_repository() {
    let cloud = cloud(EVERYTHING, &["docker.io/team/app:v1"]);
    let (status, answer) = cloud.post(json!({"images": ["team/app:v1"]})).await;
    assert_eq!(
        (status, &answer["images"][0]["image"]),
        (202, &json!(image("team/app", "v1")))
    );
    // It is not looked for elsewhere where this account's repository lacks it.
    let (status, answer) = cloud.post(json!({"images": ["team/app"]})).await;
    assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("images[0]")));
    assert!(asked(&cloud).is_empty());
}

#[tokio::test]
async fn a_rule_takes_an_image_without_a_registry_by_where_it_is_in_the_end() {
    const RULES: &str = r#"[{"name": "own", "repositories": ["team/*"], "registries": ["!*"], "used": false},
        {"name": "hub", "repositories": ["library/*"], "registries": ["docker.io"], "used": false}]"#;
    let cloud = cloud(RULES, &["docker.io/library/nginx:1"]);
    let (_, answer) = cloud.post(json!({"images": ["nginx:1", "team/app:v1"]})).await;
    let rules: Vec<&Value> = answer["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| &job["rule"])
        .collect();
    assert_eq!(rules, ["own", "hub"]);
    let (status, answer) = cloud.post(json!({"images": ["team/none:1"]})).await;
    assert_eq!(
        (status, &answer["errors"][0]["field"]),
        (400, &json!("images[0]")),
        "{answer}"
    );
    assert!(
        answer["errors"][0]["accepted"].as_str().unwrap().contains("docker.io"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_no_node_can_tell_is_refused_and_nothing_is_sent() {
    let refused = async |change: &dyn Fn(&mut Cloud)| {
        let mut cloud = cloud(EVERYTHING, &[]);
        change(&mut cloud);
        let (status, answer) = cloud.post(json!({"images": ["team/app:v1", PAUSE, "nginx"]})).await;
        assert!(cloud.sent().is_empty());
        (status, answer.to_string())
    };
    let (status, answer) = refused(&|_| {}).await;
    assert!(
        status == 400 && answer.contains("images[1]") && answer.contains("not-found: it is so"),
        "{answer}"
    );
    let (status, answer) = refused(&|cloud| {
        let failure = Err("registry".to_owned());
        cloud.tags.lock().unwrap().known.insert(PAUSE.to_owned(), failure);
    })
    .await;
    assert!(status == 503 && answer.contains("registry: it is so"), "{answer}");
    // What nodes left out of their answer another time may tell.
    let (status, answer) = refused(&|cloud| {
        let mut tags = cloud.tags.lock().unwrap();
        tags.push(NGINX, &digest(NGINX));
        tags.untold.insert(PAUSE.to_owned());
    })
    .await;
    assert!(status == 503 && answer.contains("no node has told in time"), "{answer}");
    let (status, answer) = refused(&|cloud| cloud.tags.lock().unwrap().nodes.clear()).await;
    assert!(
        status == 503 && answer.contains("name the image by its digest"),
        "{answer}"
    );
    let (status, answer) = refused(&|cloud| cloud.turn(Mode::Observe)).await;
    assert!(status == 400 && answer.contains("the stack observes"), "{answer}");
}

#[tokio::test]
async fn all_nodes_get_one_digest_and_no_job_can_ask_for_less() {
    let cloud = cloud(EVERYTHING, &[PAUSE]);
    for value in [json!(false), json!("true"), json!(null)] {
        let (status, answer) = cloud.post(json!({"images": [PAUSE], "sameDigest": value})).await;
        assert_eq!((status, &answer["errors"][0]["field"]), (400, &json!("sameDigest")));
    }
}

const NAMING: &str = r#"[{"name": "default", "repositories": ["team/web"], "used": false, "neighbours": false,
    "images": ["public.ecr.aws/eks-distro/kubernetes/pause:3.2", "team/app:v1", "nginx"]}]"#;
const NGINX: &str = "docker.io/library/nginx:latest";

async fn reconcile(cloud: &Cloud, seconds: i64) -> (Option<Value>, Vec<String>) {
    let before = cloud.sent().len();
    let answer = cloud.invoke(json!({"reconcile": true}), seconds).await.ok();
    let sent = cloud.sent().into_iter().skip(before);
    (answer, sent.flat_map(|(_, images, _)| images).collect())
}

#[tokio::test]
async fn a_reconcile_brings_the_images_that_a_rule_names_itself_and_jobs_by_the_rule_do() {
    let cloud = cloud(NAMING, &[PAUSE, NGINX]);
    let expected = [at(PAUSE), image("team/app", "v1"), at(NGINX), image("team/web", "v1")];
    let (answer, sent) = reconcile(&cloud, 0).await;
    assert_eq!(
        (answer.unwrap()["rules"][0]["decision"].as_str(), sent),
        (Some("sent"), expected.to_vec())
    );
    let (_, answer) = cloud.post(json!({"rule": "default"})).await;
    assert_eq!(answer["jobs"][0]["images"], json!(expected));
}

#[tokio::test]
async fn what_a_tag_was_stays_while_no_node_tells_and_goes_once_the_tag_is_gone() {
    let cloud = cloud(NAMING, &[PAUSE, NGINX]);
    let rest = [image("team/app", "v1"), at(NGINX), image("team/web", "v1")];
    let all = [&[at(PAUSE)], &rest[..]].concat();
    assert_eq!(reconcile(&cloud, 0).await.1, all);
    cloud.tags.lock().unwrap().nodes.clear();
    let (answer, sent) = reconcile(&cloud, 5000).await;
    assert!(answer.is_some());
    assert_eq!(sent, all);
    cloud.tags.lock().unwrap().nodes.push(node_id(1));
    for (seconds, reason) in [(10_000, "registry"), (15_000, "denied")] {
        let failed = Err(reason.to_owned());
        cloud.tags.lock().unwrap().known.insert(PAUSE.to_owned(), failed);
        let (answer, sent) = reconcile(&cloud, seconds).await;
        assert!(answer.is_none());
        assert_eq!(sent, all, "{reason}");
    }
    cloud.tags.lock().unwrap().known.remove(PAUSE);
    let (answer, sent) = reconcile(&cloud, 20_000).await;
    assert!(answer.is_none());
    assert_eq!(sent, rest);
}

#[tokio::test]
async fn what_a_rule_names_comes_although_it_is_not_known_yet_what_its_nodes_run() {
    const RULES: &str = r#"[{"name": "default", "repositories": ["team/*"], "images": ["public.ecr.aws/eks-distro/kubernetes/pause:3.2"]}]"#;
    let cloud = cloud(RULES, &[PAUSE]);
    let (_, sent) = reconcile(&cloud, 0).await;
    assert_eq!(sent.last(), Some(&at(PAUSE)));
    assert!(!sent.contains(&image("team/app", "v2")));
    assert!(
        cloud
            .sent()
            .iter()
            .any(|(comment, _, _)| comment == "reconcile rule=default attempt=1")
    );
}

#[tokio::test]
async fn what_rules_name_is_asked_for_all_of_them_at_once_so_that_one_registry_holds_up_no_other_rule() {
    const RULES: &str = r#"[
        {"name": "a", "repositories": ["none"], "used": false, "neighbours": false, "images": ["nginx"]},
        {"name": "b", "repositories": ["none"], "used": false, "neighbours": false, "images": ["nginx"]},
        {"name": "c", "repositories": ["none"], "used": false, "neighbours": false, "images": ["nginx"]}]"#;
    let cloud = cloud(RULES, &[NGINX]);
    // No node answers before each of the rules has asked.
    cloud.tags.lock().unwrap().together = 3;
    let (answer, sent) = reconcile(&cloud, 0).await;
    assert!(answer.is_some());
    assert_eq!(sent, [at(NGINX), at(NGINX), at(NGINX)]);
}

#[tokio::test]
async fn what_a_reconcile_found_stays_known_however_long_no_other_comes() {
    let cloud = cloud(NAMING, &[PAUSE, NGINX]);
    reconcile(&cloud, 0).await;
    let row = cloud.row(&Key::named_images("default")).unwrap();
    assert_eq!(row["images"].as_object().unwrap().len(), 3);
    assert_eq!(row["expires_at"], Value::Null);
}
