use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::*;
use crate::host::Folder;

const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const LONG: Duration = Duration::from_secs(20);

/// Makes a machine with these providers, each a shell script, and an AWS CLI as a script.
fn machine(providers: &[(&str, &str)], aws: Option<&str>) -> Folder {
    let place = "etc/eks/image-credential-provider";
    let provider = |name: &str| {
        json!({"name": name, "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "matchImages": ["*.dkr.ecr.*.amazonaws.com", "*.example.com"], "args": ["one"], "env": [{"name": "OWN", "value": "two"}]})
    };
    let list: Vec<_> = providers.iter().map(|(name, _)| provider(name)).collect();
    let mut folder = Folder::new().with(&format!("{place}/config.json"), &json!({"providers": list}).to_string());
    for (name, script) in providers {
        folder = folder.with(&format!("{place}/{name}"), &format!("#!/bin/sh\n{script}\n"));
        executable(&folder, &format!("/{place}/{name}"));
    }
    if let Some(aws) = aws {
        folder = folder.with("bin/aws", &format!("#!/bin/sh\n{aws}\n"));
        executable(&folder, "/bin/aws");
    }
    folder
}

fn executable(folder: &Folder, file: &str) {
    std::fs::set_permissions(folder.host().path(file), std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Reads the logins of a machine whose programs are started where they are.
fn logins(folder: &Folder) -> Logins {
    let mut logins = Logins::on(&folder.host());
    let place = |path: &str| folder.host().path(path).to_string_lossy().into_owned();
    logins.providers.folder = place(&logins.providers.folder);
    logins
        .environment
        .insert("PATH".to_owned(), format!("{}:/usr/bin:/bin", place("/bin")));
    logins
}

fn given(user: &str, password: &str) -> Answer {
    Answer::Given(Login {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

#[tokio::test]
async fn a_provider_is_asked_as_kubelet_asks_it() {
    let script = r#"read -r request; echo "$request" | grep -q '"image":"'registry.example.com/team/app'"' || exit 1
        echo "{\"auth\": {\"*.example.com\": {\"username\": \"$1\", \"password\": \"$OWN\"}}}""#;
    let folder = machine(&[("provider", script)], None);
    assert_eq!(
        logins(&folder).get("registry.example.com", "team/app", LONG).await,
        given("one", "two")
    );
}

#[tokio::test]
async fn the_next_provider_and_then_the_aws_cli_are_asked_where_one_fails() {
    let good = r#"echo '{"auth": {"*.dkr.ecr.*.amazonaws.com": {"username": "AWS", "password": "second"}}}'"#;
    let folder = machine(&[("first", "exit 1"), ("second", good)], Some("echo third"));
    assert_eq!(logins(&folder).get(ECR, "app", LONG).await, given("AWS", "second"));
    let folder = machine(&[("first", "exit 1")], Some(r#"echo "$4""#));
    assert_eq!(logins(&folder).get(ECR, "app", LONG).await, given("AWS", "eu-west-1"));
}

#[tokio::test]
async fn what_every_helper_failed_at_is_said() {
    let folder = machine(&[("first", "echo no role >&2; exit 1")], Some("exit 255"));
    let expected = format!(
        "first gave no login for {ECR}: exit status: 1: no role; the AWS CLI gave no login for {ECR}: exit status: 255"
    );
    assert_eq!(logins(&folder).get(ECR, "app", LONG).await, Answer::Failed(expected));
}

#[tokio::test]
async fn a_registry_that_no_helper_is_for_is_asked_without() {
    let folder = machine(&[("first", "exit 1")], Some("echo password"));
    assert_eq!(
        logins(&folder).get("docker.io", "library/nginx", LONG).await,
        Answer::None
    );
    let folder = machine(&[], None);
    assert_eq!(logins(&folder).get(ECR, "app", LONG).await, Answer::None);
}

#[tokio::test]
async fn a_provider_that_hangs_is_ended_and_its_name_is_said() {
    let folder = machine(&[("first", "sleep 300; true")], None);
    let Answer::Failed(cause) = logins(&folder).get(ECR, "app", Duration::from_secs(1)).await else {
        panic!("it gave no login");
    };
    assert!(
        cause.starts_with(&format!("first gave no login for {ECR}: it was ended after ")),
        "{cause}"
    );
}

#[test]
fn nothing_of_a_login_or_a_proxy_is_in_what_is_printed_for_debugging() {
    let folder = machine(&[("first", "exit 1")], None).with(
        "etc/systemd/system/kubelet.service",
        "[Service]\nEnvironment=HTTPS_PROXY=http://me:secret@proxy:3128\n",
    );
    let printed = format!("{:?} {:?}", logins(&folder), given("AWS", "secret"));
    assert!(!printed.contains("secret") && !printed.contains("two"), "{printed}");
}
