mod connections;
mod internet;

use std::time::Duration;

use prefetch::outcome::NodeReason;
use tokio::time::Instant;

use self::internet::{Does, Internet, Received, says};
use super::{DocumentKind, Registries, question::sha256, registries::MIRROR_LIMIT};
use crate::{failure::Failure, login::Login};

const MANIFEST: &[u8] = br#"{"schemaVersion":2,"layers":[]}"#;
const WITHIN: Duration = Duration::from_secs(20);
/// `AWS:secret`, as a header says it.
const BASIC: &str = "Basic QVdTOnNlY3JldA==";

fn login() -> Login {
    Login {
        user: "AWS".to_owned(),
        password: "secret".to_owned(),
    }
}

async fn get(registries: &Registries, registry: &str, kind: DocumentKind) -> Result<Vec<u8>, Failure> {
    let digest = sha256(MANIFEST);
    registries
        .get(registry, "team/app", kind, &digest, Some(&login()), WITHIN)
        .await
}

async fn failure(registries: &Registries, registry: &str) -> (NodeReason, String) {
    let failure = get(registries, registry, DocumentKind::Manifest).await.unwrap_err();
    (failure.reason, failure.detail)
}

fn with_header(status: u16, name: &'static str, value: &str, body: &[u8]) -> Does {
    Does::Say(status, vec![(name, value.to_owned())], body.to_owned())
}

fn pair(host: &str, authorization: &str) -> (String, String) {
    (host.to_owned(), authorization.to_owned())
}

#[tokio::test]
async fn a_manifest_is_asked_for_by_the_proxy_of_the_units_with_the_login_at_once() {
    let internet = Internet::start(|_| says(200, MANIFEST)).await;
    let registries = internet.registries();
    assert_eq!(
        get(&registries, "reg.example", DocumentKind::Manifest).await.unwrap(),
        MANIFEST
    );
    let received = internet.received();
    assert_eq!(received.len(), 1);
    assert_eq!(
        received[0].target,
        format!("/v2/team/app/manifests/{}", sha256(MANIFEST))
    );
    assert_eq!(internet.logins(), [pair("reg.example", BASIC)]);
    assert_eq!(internet.tunnels(), ["CONNECT reg.example:443 Basic dXNlcjpwYXNz"]);
}

#[tokio::test]
async fn a_layers_bucket_never_sees_the_login_and_is_named_where_it_refuses() {
    let to_bucket = |request: &Received| match request.host.as_str() {
        "reg.example" => with_header(307, "Location", "https://bucket.example/x?X-Amz-Signature=abc", b""),
        _ if request.target.contains("abc") => says(200, MANIFEST),
        _ => says(400, ""),
    };
    let internet = Internet::start(to_bucket).await;
    assert_eq!(
        get(&internet.registries(), "reg.example", DocumentKind::Blob)
            .await
            .unwrap(),
        MANIFEST
    );
    assert_eq!(
        internet.logins(),
        [pair("reg.example", BASIC), pair("bucket.example", "")]
    );

    let internet = Internet::start(|request| match request.host.as_str() {
        "reg.example" => with_header(307, "Location", "https://bucket.example/x?X-Amz-Signature=abc", b""),
        _ => says(403, "<Error><Code>AccessDenied</Code></Error>"),
    })
    .await;
    assert_eq!(
        failure(&internet.registries(), "reg.example").await,
        (NodeReason::Denied, "bucket.example answers 403 Forbidden".to_owned())
    );
}

#[tokio::test]
async fn redirects_end_and_never_leave_tls() {
    for (location, detail) in [
        ("https://reg.example/again", "reg.example leads on for ever"),
        (
            "http://bucket.example/x",
            "reg.example leads on to an address without TLS",
        ),
        ("x y", "reg.example leads on to no address"),
    ] {
        let internet = Internet::start(move |_| with_header(302, "Location", location, b"")).await;
        assert_eq!(
            failure(&internet.registries(), "reg.example").await,
            (NodeReason::Registry, detail.to_owned())
        );
    }
}

#[tokio::test]
async fn the_login_goes_to_its_registry_and_to_nobody_else_whatever_the_file_looks_like() {
    for file in [
        "server = 'https://mirror.example/v2/ecr'\n[host.'https://mirror.example/v2/ecr']\noverride_path = true",
        "server='https://mirror.example'",
        "server = \"\"\"https://mirror.example\"\"\" # https://reg.example",
        "[host.\"https://mirror.example\"]\n",
        "[host]\n[host.'https://mirror.example'.header]\nx-other = 'y'\n",
        "server = 'https://user@mirror.example:443'",
        "server = 'https://MIRROR.example/reg.example'",
        "\"server\" = 'mirror.example'",
    ] {
        let internet = Internet::start(|request| match request.host.as_str() {
            "mirror.example" => with_header(401, "WWW-Authenticate", "Bearer realm=\"https://auth.example/t\"", b""),
            "auth.example" => says(200, r#"{"token":"t"}"#),
            _ => says(200, MANIFEST),
        })
        .await
        .with("certs.d/reg.example/hosts.toml", file);
        get(&internet.registries(), "reg.example", DocumentKind::Manifest)
            .await
            .ok();
        let received = internet.received();
        assert!(
            received.iter().any(|request| request.host == "mirror.example"),
            "{file}: {received:?}"
        );
        for request in received {
            let is_its = request.host == "reg.example";
            assert!(
                is_its || !request.authorization.contains("Basic"),
                "{file}: {request:?}"
            );
            assert!(
                is_its || request.host == "auth.example" || request.target.ends_with("?ns=reg.example"),
                "{request:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_file_may_bring_a_login_of_its_own() {
    let file =
        "[host.'https://mirror.example'.header]\nAuthorization = 'Basic own'\n[header]\nauthorization = 'Basic too'";
    let internet = Internet::start(|_| says(404, ""))
        .await
        .with("certs.d/_default/hosts.toml", file);
    assert_eq!(
        failure(&internet.registries(), "reg.example").await.0,
        NodeReason::NotFound
    );
    assert_eq!(
        internet.logins(),
        [pair("mirror.example", "Basic own"), pair("reg.example", "Basic too")]
    );
}

#[tokio::test]
async fn tokens_are_fetched_where_the_registry_says_and_kept() {
    let challenge = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:team/app:pull""#;
    let internet = Internet::start(
        |request| match (request.host.as_str(), request.authorization.as_str()) {
            ("auth.example", _) => says(200, r#"{"access_token":"tok"}"#),
            (_, "Bearer tok") => says(200, MANIFEST),
            _ => with_header(401, "WWW-Authenticate", challenge, b""),
        },
    )
    .await;
    let registries = internet.registries();
    for _ in 0..2 {
        assert_eq!(
            get(&registries, "reg.example", DocumentKind::Manifest).await.unwrap(),
            MANIFEST
        );
    }
    assert_eq!(
        internet.logins(),
        [
            pair("reg.example", BASIC),
            pair("auth.example", BASIC),
            pair("reg.example", "Bearer tok"),
            pair("reg.example", "Bearer tok")
        ]
    );
    assert_eq!(
        internet.received()[1].target,
        "/token?service=reg&scope=repository:team/app:pull"
    );
}

#[tokio::test]
async fn a_token_given_without_a_login_does_not_stand_for_one() {
    let challenge = r#"Bearer realm="https://auth.example/token""#;
    let internet = Internet::start(
        |request| match (request.host.as_str(), request.authorization.as_str()) {
            ("auth.example", "") => says(200, r#"{"token":"anybody"}"#),
            ("auth.example", _) => says(200, r#"{"token":"us"}"#),
            (_, "Bearer us") => says(200, MANIFEST),
            (_, "Bearer anybody") => says(403, ""),
            _ => with_header(401, "WWW-Authenticate", challenge, b""),
        },
    )
    .await;
    let registries = internet.registries();
    let digest = sha256(MANIFEST);
    let answer = registries.get("reg.example", "team/app", DocumentKind::Manifest, &digest, None, WITHIN);
    assert_eq!(answer.await.unwrap_err().reason, NodeReason::Denied);
    assert_eq!(
        get(&registries, "reg.example", DocumentKind::Manifest).await.unwrap(),
        MANIFEST
    );
}

#[tokio::test]
async fn a_mirror_that_has_no_such_image_does_not_speak_for_a_silent_registry() {
    let internet = Internet::start(|request| match request.host.as_str() {
        "mirror.example" => says(404, ""),
        _ => Does::Nothing,
    });
    let internet = internet
        .await
        .with("certs.d/reg.example/hosts.toml", "[host.'https://mirror.example']")
        .with("certs.d/docker.io/hosts.toml", "server = 'https://mirror.example'");
    let within = Duration::from_secs(1);
    let registries = internet.registries();
    let of = async |registry| registries.digest_of_tag(registry, "app", "tag", None, within).await;
    assert_eq!(of("reg.example").await.unwrap_err().reason, NodeReason::Timeout);
    assert_eq!(of("docker.io").await, Ok(None), "it stands for the registry");
}

#[tokio::test]
async fn a_host_that_gives_tokens_gets_the_login_by_verified_tls_alone() {
    let plain = r#"Bearer realm="http://127.0.0.1:1/token""#;
    let internet = Internet::start(move |_| with_header(401, "WWW-Authenticate", plain, b"")).await;
    assert_eq!(
        failure(&internet.registries(), "reg.example").await.0,
        NodeReason::Registry
    );

    let other = r#"Bearer realm="https://auth.example/token""#;
    let internet = Internet::start(|request| match request.host.as_str() {
        "auth.example" => says(401, ""),
        _ => with_header(401, "WWW-Authenticate", other, b""),
    });
    let internet = internet
        .await
        .with("certs.d/reg.example/hosts.toml", "skip_verify = true");
    assert_eq!(
        failure(&internet.registries(), "reg.example").await,
        (NodeReason::Denied, "auth.example answers 401 Unauthorized".to_owned())
    );
    assert_eq!(
        internet.logins(),
        [pair("reg.example", BASIC), pair("auth.example", "")]
    );
}

#[tokio::test]
async fn statuses_have_the_reasons_of_the_report() {
    for (status, reason) in [
        (401, NodeReason::Denied),
        (403, NodeReason::Denied),
        (404, NodeReason::NotFound),
        (429, NodeReason::Registry),
        (500, NodeReason::Registry),
        (204, NodeReason::Registry),
        (304, NodeReason::Registry),
    ] {
        let body = if matches!(status, 204 | 304) {
            ""
        } else {
            r#"{"errors":[{"code":"X","message":"why"}]}"#
        };
        let internet = Internet::start(move |_| says(status, body)).await;
        let (told, detail) = failure(&internet.registries(), "reg.example").await;
        assert_eq!(told, reason, "{status}");
        assert!(detail.starts_with(&format!("reg.example answers {status}")), "{detail}");
        assert_eq!(detail.ends_with(": X: why"), !body.is_empty(), "{detail}");
    }
}

#[tokio::test]
async fn what_is_not_the_digests_is_not_taken_and_a_page_is_named() {
    let page: &[u8] = b"\n<!DOCTYPE html><html>sign in</html>";
    for (answer, detail) in [
        (page, "reg.example answers with a page of HTML"),
        (
            b"{}".as_slice(),
            "reg.example answers with something else than the digest stands for",
        ),
        (
            b"",
            "reg.example answers with something else than the digest stands for",
        ),
    ] {
        let internet = Internet::start(move |_| says(200, answer)).await;
        assert_eq!(
            failure(&internet.registries(), "reg.example").await,
            (NodeReason::Registry, detail.to_owned())
        );
    }
    let internet = Internet::start(|_| Does::NeverEnd).await;
    let (reason, detail) = failure(&internet.registries(), "reg.example").await;
    assert_eq!(
        (reason, detail.as_str()),
        (NodeReason::Registry, "reg.example answers more than 8388608 bytes")
    );
}

#[tokio::test]
async fn a_mirrors_page_does_not_hide_the_registry() {
    let internet = Internet::start(|request| match request.host.as_str() {
        "mirror.example" => with_header(200, "Content-Type", "text/html; charset=utf-8", b"sign in"),
        _ => says(200, MANIFEST),
    });
    let internet = internet
        .await
        .with("certs.d/_default/hosts.toml", "[host.'https://mirror.example']");
    assert_eq!(
        get(&internet.registries(), "reg.example", DocumentKind::Manifest)
            .await
            .unwrap(),
        MANIFEST
    );
}

#[tokio::test]
async fn a_mirror_that_swallows_packets_is_waited_for_once() {
    let internet = Internet::start(|request| match request.host.as_str() {
        "reg.example" => says(200, MANIFEST),
        _ => Does::Nothing,
    });
    let internet = internet
        .await
        .with("certs.d/_default/hosts.toml", "[host.'http://127.0.0.1:PORT']");
    let registries = internet.registries();
    let begin = Instant::now();
    assert_eq!(
        get(&registries, "reg.example", DocumentKind::Manifest).await.unwrap(),
        MANIFEST
    );
    assert!(begin.elapsed() >= MIRROR_LIMIT);
    assert_eq!(
        get(&registries, "reg.example", DocumentKind::Manifest).await.unwrap(),
        MANIFEST
    );
    assert!(begin.elapsed() < 2 * MIRROR_LIMIT);
    assert_eq!(internet.received().len(), 3);
}

#[tokio::test]
async fn a_registry_that_says_nothing_ends_in_time() {
    let internet = Internet::start(|_| Does::Nothing).await;
    let within = Duration::from_millis(200);
    let answer = internet
        .registries()
        .get("reg.example", "app", DocumentKind::Blob, &sha256(b""), None, within)
        .await;
    let failure = answer.unwrap_err();
    assert_eq!(failure.to_string(), "timeout: reg.example does not answer in time");
}

#[tokio::test]
async fn a_tags_digest_is_asked_for_by_its_header_or_counted() {
    let digest = sha256(b"other");
    let named = digest.clone();
    let internet = Internet::start(move |request| match request.target.as_str() {
        "/v2/app/manifests/named" => with_header(200, "Docker-Content-Digest", &named, b""),
        "/v2/app/manifests/unnamed" if request.method == "HEAD" => says(200, ""),
        "/v2/app/manifests/unnamed" => says(200, MANIFEST),
        "/v2/app/manifests/page" => says(200, if request.method == "HEAD" { "" } else { "<html>" }),
        "/v2/app/manifests/denied" => says(403, ""),
        _ => says(404, ""),
    })
    .await;
    let registries = internet.registries();
    let of = async |tag| registries.digest_of_tag("reg.example", "app", tag, None, WITHIN).await;
    assert_eq!(of("named").await, Ok(Some(digest)));
    assert_eq!(of("unnamed").await, Ok(Some(sha256(MANIFEST))));
    assert_eq!(of("gone").await, Ok(None));
    assert_eq!(of("denied").await.unwrap_err().reason, NodeReason::Denied);
    assert_eq!(of("page").await.unwrap_err().reason, NodeReason::Registry);
}
