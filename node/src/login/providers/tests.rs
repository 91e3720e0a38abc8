use proptest::prelude::*;

use super::*;
use crate::host::Folder;

const TOKEN: &str = include_str!("tests/credential-provider-with-token-attributes.json");
const ECR: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app";

/// As Bottlerocket writes it.
const BOTTLEROCKET: &str = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr-credential-provider
    matchImages:
      - "*.dkr.ecr.*.amazonaws.com"
      - "public.ecr.aws"
    defaultCacheDuration: "12h"
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    env:
      - name: HOME
        value: "/root"
      - name: AWS_PROFILE
        value: default
"#;

fn logins(auth: &serde_json::Value, image: &str) -> Result<String, &'static str> {
    let answer = json!({"kind": "CredentialProviderResponse", "cacheKeyType": "Image", "auth": auth});
    login(answer.to_string().as_bytes(), image).map(|login| login.password)
}

#[test]
fn bottlerockets_configuration_is_read_whole() {
    let providers = parse(BOTTLEROCKET).unwrap();
    let [provider] = &providers[..] else {
        panic!("one provider")
    };
    assert!(provider.is_for(ECR) && provider.is_for("public.ecr.aws/a") && !provider.is_for("docker.io/library/nginx"));
    assert_eq!(provider.obstacle(), None);
    let environment = provider.environment(BTreeMap::from([("HOME".to_owned(), "/".to_owned())]));
    assert_eq!(
        (&environment["HOME"][..], &environment["AWS_PROFILE"][..]),
        ("/root", "default")
    );
    let words = provider.words(
        &Host::around_host_container(),
        "/usr/libexec/kubernetes/kubelet/plugins",
    );
    assert_eq!(
        words.last().unwrap(),
        "/usr/libexec/kubernetes/kubelet/plugins/ecr-credential-provider"
    );
    assert_eq!(words[0], "nsenter");
}

#[test]
fn a_provider_that_wants_a_pods_token_is_not_asked_and_one_that_may_do_without_is() {
    let provider = &parse(TOKEN).unwrap()[0];
    assert!(provider.obstacle().unwrap().contains("service account"));
    let optional = TOKEN.replace("\"requireServiceAccount\": true", "\"requireServiceAccount\": false");
    assert_eq!(parse(&optional).unwrap()[0].obstacle(), None);
}

#[test]
fn providers_are_where_kubelets_command_line_says_and_folders_are_read_by_name() {
    let config = |name: &str| {
        let version = VERSIONS[1];
        json!({"providers": [{"name": name, "apiVersion": version, "matchImages": ["*.io"], "args": null, "env": null}]}).to_string()
    };
    let folder = Folder::new()
        .with("etc/other/2.yaml", &config("second"))
        .with("etc/other/1.json", &config("first"))
        .with("etc/other/3.json", "{\"providers\": 1}")
        .with("etc/other/4.txt", &config("none"));
    let kubelet = ServiceUnit {
        command_line: [
            "kubelet",
            "--image-credential-provider-config=/etc/other",
            "--image-credential-provider-bin-dir",
            "/opt",
        ]
        .map(str::to_owned)
        .into(),
        ..ServiceUnit::default()
    };
    let providers = Providers::of(&folder.host(), &kubelet);
    let names: Vec<_> = providers
        .of_image("a.io/b")
        .map(|provider| provider.name.as_str())
        .collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(
        (providers.folder.as_str(), &providers.unreadable[..]),
        ("/opt", &["/etc/other/3.json".to_owned()][..])
    );
}

#[test]
fn a_name_that_leads_elsewhere_or_another_protocol_is_not_started() {
    for (name, version, is_asked) in [
        ("ecr", VERSIONS[0], true),
        ("ecr", VERSIONS[2], true),
        ("ecr", "credentialprovider.kubelet.k8s.io/v2", false),
        ("../ecr", VERSIONS[0], false),
        ("..", VERSIONS[0], false),
        ("", VERSIONS[0], false),
    ] {
        let text = json!({"providers": [{"name": name, "apiVersion": version, "matchImages": []}]}).to_string();
        assert_eq!(
            parse(&text).unwrap()[0].obstacle().is_none(),
            is_asked,
            "{name} {version}"
        );
    }
}

#[test]
fn the_login_is_the_first_that_matches_in_reverse_order() {
    let entry = |password: &str| json!({"username": "AWS", "password": password});
    let auth = json!({
        "zzz.example.com": entry("theirs"),
        "*.dkr.ecr.*.amazonaws.com": entry("any"),
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com": entry("ours"),
        "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/v2/team": entry("the team's"),
    });
    assert_eq!(logins(&auth, ECR), Ok("the team's".to_owned()));
    assert_eq!(logins(&auth, &ECR.replace("team", "others")), Ok("ours".to_owned()));
    assert_eq!(
        logins(&auth, &ECR.replace("eu-west-1", "eu-west-2")),
        Ok("any".to_owned())
    );
    assert_eq!(
        logins(&auth, "docker.io/library/nginx"),
        Err("its answer has nothing for this image")
    );
    let hub = json!({"https://index.docker.io/v1/": entry("hub")});
    assert_eq!(logins(&hub, "docker.io/library/nginx"), Ok("hub".to_owned()));
}

#[test]
fn an_answer_without_a_login_says_so_and_nothing_of_itself() {
    assert_eq!(logins(&json!(null), ECR), Err("its answer has nothing for this image"));
    assert_eq!(
        logins(&json!({"*.dkr.ecr.*.amazonaws.com": {"username": "AWS"}}), ECR),
        Err("its answer has no password")
    );
    for answer in [
        &b""[..],
        b"secret",
        b"[]",
        b"\xff",
        b"{\"auth\": {\"a\": 1}}",
        "[".repeat(1 << 20).as_bytes(),
    ] {
        assert_eq!(login(answer, ECR), Err("its answer is no CredentialProviderResponse"));
    }
}

proptest! {
    #[test]
    fn whatever_a_provider_answers_is_read_to_its_end(answer in prop::collection::vec(any::<u8>(), 0..200), key in "\\PC{0,30}") {
        drop(login(&answer, ECR));
        drop(logins(&json!({key: {"username": "a", "password": "b"}}), ECR));
    }
}
