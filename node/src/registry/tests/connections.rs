//! Connections: how many, by whose certificates, and through which proxy.

use prefetch::outcome::NodeReason;
use tokio::net::TcpListener;

use super::{
    MANIFEST, failure, get,
    internet::{self, Internet, says},
    pair,
};
use crate::registry::{DocumentKind, question::sha256};

#[tokio::test]
async fn many_questions_share_a_few_connections() {
    let internet = Internet::start(|_| says(200, MANIFEST)).await;
    let registries = internet.registries();
    let questions = (0..40).map(|_| get(&registries, "reg.example", DocumentKind::Manifest));
    for answer in futures_util::future::join_all(questions).await {
        assert_eq!(answer.unwrap(), MANIFEST);
    }
    assert_eq!(internet.received().len(), 40);
    assert!(internet.connections() <= 8, "{}", internet.connections());
}

#[tokio::test]
async fn certificates_are_verified_as_gos_programs_do() {
    let (certificate, tls) = internet::self_signed();
    let port = internet::serve_by_tls(tls, MANIFEST).await;
    let registry = format!("127.0.0.1:{port}");
    let folder = format!("certs.d/127.0.0.1_{port}_");
    let server = format!("server = 'https://{registry}'");
    for (files, is_taken) in [
        (
            vec![
                ("hosts.toml", format!("{server}\nca = 'ca.pem'")),
                ("ca.pem", certificate.clone()),
            ],
            true,
        ),
        (vec![("hosts.toml", server.clone())], false),
        (vec![("hosts.toml", format!("{server}\nca = 'none.pem'"))], false),
        (vec![("hosts.toml", format!("{server}\nskip_verify = true"))], true),
        (vec![("ca.crt", certificate)], true),
        (vec![], true),
    ] {
        let internet = Internet::start(|_| says(404, "")).await;
        let internet = files.iter().fold(internet, |internet, (name, text)| {
            internet.with(&format!("{folder}/{name}"), text)
        });
        let answer = get(&internet.registries(), &registry, DocumentKind::Manifest).await;
        assert_eq!(answer.is_ok(), is_taken, "{files:?}: {answer:?}");
        if let Err(failure) = answer {
            assert_eq!(failure.reason, NodeReason::Registry);
            assert!(
                failure.detail.starts_with(&registry) && failure.detail.len() < 200,
                "{failure}"
            );
        }
    }
}

#[tokio::test]
async fn a_registry_on_the_machine_itself_may_speak_without_tls() {
    let internet = Internet::start(|_| says(200, MANIFEST)).await;
    let registry = format!("localhost:{}", internet.port);
    assert_eq!(
        get(&internet.registries(), &registry, DocumentKind::Manifest)
            .await
            .unwrap(),
        MANIFEST
    );
    assert_eq!(
        internet.logins(),
        [pair(&registry, "")],
        "without TLS there is no login"
    );
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let internet = Internet::start(|_| says(404, "")).await;
    let (reason, detail) = failure(&internet.registries(), &format!("127.0.0.1:{port}")).await;
    assert_eq!(reason, NodeReason::Registry);
    assert!(
        detail.starts_with(&format!("127.0.0.1:{port} cannot be asked: ")),
        "{detail}"
    );
}

#[tokio::test]
async fn a_proxy_is_asked_itself_for_what_has_no_tls() {
    let internet = Internet::start(|_| says(200, MANIFEST)).await;
    let drop_in = "[Service]\nEnvironment=HTTP_PROXY=http://user:pass@127.0.0.1:PORT\n";
    let internet = internet
        .with("etc/systemd/system/kubelet.service.d/proxy.conf", drop_in)
        .with("certs.d/_default/hosts.toml", "server = 'http://mirror.example:8080'");
    assert_eq!(
        get(&internet.registries(), "reg.example", DocumentKind::Manifest)
            .await
            .unwrap(),
        MANIFEST
    );
    let received = internet.received();
    assert_eq!(
        received[0].target,
        format!(
            "http://mirror.example:8080/v2/team/app/manifests/{}?ns=reg.example",
            sha256(MANIFEST)
        )
    );
    assert_eq!(
        (received[0].other.as_str(), received[0].authorization.as_str()),
        ("Basic dXNlcjpwYXNz", "")
    );
}
