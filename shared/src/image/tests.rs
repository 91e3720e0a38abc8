use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn image(tag: &str) -> Result<Image, ImageError> {
    Image::new(
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "team/app",
        Some(tag),
        DIGEST,
    )
}

#[test]
fn an_image_prints_as_registry_repository_tag_and_digest() {
    let text = format!("123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@{DIGEST}");
    assert_eq!(image("v1").unwrap().to_string(), text);
}

#[test]
fn a_tag_with_shell_metacharacters_is_refused() {
    for tag in [
        "$(id)", "a;b", "a b", "a`b", "a\nb", "a|b", "a&b", "a'b", "a\"b", ".a", "-a", "", "a\0", "täg",
    ] {
        assert!(image(tag).is_err(), "{tag:?}");
    }
}

#[test]
fn a_tag_of_128_characters_is_the_longest() {
    assert!(image(&"x".repeat(128)).is_ok());
    assert!(image(&"x".repeat(129)).is_err());
}

#[test]
fn what_containerd_refuses_as_repository_is_refused() {
    for repository in [
        "",
        "App",
        "a//b",
        "/a",
        "a/",
        "a..b",
        "a___b",
        "-a",
        "a_",
        "a:b",
        "a@b",
        &"a".repeat(256),
    ] {
        assert!(
            Image::new("host", repository, Some("v1"), DIGEST).is_err(),
            "{repository:?}"
        );
    }
}

#[test]
fn a_reference_without_a_digest_says_so() {
    assert_eq!(
        "host/app:v1".parse::<Image>(),
        Err(ImageError::NoDigest("host/app:v1".to_owned()))
    );
}

#[test]
fn the_registry_lies_in_its_regions_partition() {
    let host = |region| ecr_registry("123456789012", region, RegistryEndpoint::Standard).unwrap();
    assert_eq!(host("eu-west-1"), "123456789012.dkr.ecr.eu-west-1.amazonaws.com");
    assert_eq!(host("cn-north-1"), "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn");
    assert_eq!(
        host("us-gov-west-1"),
        "123456789012.dkr.ecr.us-gov-west-1.amazonaws.com"
    );
    assert!(ecr_registry("12345", "eu-west-1", RegistryEndpoint::Standard).is_err());
    assert!(ecr_registry("123456789012", "eu west", RegistryEndpoint::Standard).is_err());
}

#[test]
fn a_registry_has_a_host_for_each_endpoint_and_all_are_the_same_registry() {
    let standard = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    for (endpoint, host) in [
        (RegistryEndpoint::Standard, standard),
        (
            RegistryEndpoint::Fips,
            "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        ),
        (RegistryEndpoint::Dualstack, "123456789012.dkr-ecr.us-east-1.on.aws"),
        (
            RegistryEndpoint::DualstackFips,
            "123456789012.dkr-ecr-fips.us-east-1.on.aws",
        ),
    ] {
        assert_eq!(ecr_registry("123456789012", "us-east-1", endpoint).unwrap(), host);
        assert!(
            is_same_registry(host, standard) && is_same_registry(standard, host),
            "{host}"
        );
        assert_eq!(ecr_region(host).as_deref(), Some("us-east-1"));
        assert_eq!(ecr_account(host).as_deref(), Some("123456789012"));
    }
    assert_eq!(ecr_region("registry.example.com"), None);
    assert_eq!(ecr_account("public.ecr.aws"), None);
    assert_eq!(
        ecr_registry("123456789012", "cn-north-1", RegistryEndpoint::Dualstack).unwrap(),
        "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn"
    );
    assert!(ecr_registry("123456789012", "us-iso-east-1", RegistryEndpoint::Dualstack).is_err());
}

#[test]
fn another_accounts_or_regions_or_nobodys_host_is_another_registry() {
    let standard = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
    for other in [
        "123456789012.dkr.ecr.us-west-2.amazonaws.com",
        "210987654321.dkr-ecr.us-east-1.on.aws",
        "123456789012.dkr-ecr.us-east-1.amazonaws.com",
        "123456789012.dkr.ecr.us-east-1.on.aws",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com.example.com",
        "123456789012.dkr-ecr.cn-north-1.on.aws",
        "public.ecr.aws",
        "docker.io",
    ] {
        assert!(!is_same_registry(other, standard), "{other}");
    }
}

#[test]
fn signatures_and_referrers_are_known_by_their_tags_whatever_words_are_around() {
    let hex = "a".repeat(64);
    for tag in [
        format!("sha256-{hex}.sig"),
        format!("sha256-{hex}"),
        format!("signature-sha256-{hex}.sig"),
        format!("v1.sha256-{hex}.att"),
        format!("sbom_sha256-{hex}-cyclonedx"),
    ] {
        assert!(not_an_image_tag(&tag).is_some(), "{tag}");
    }
    for tag in [
        "sha256-short.sig".to_owned(),
        "v1.sig".to_owned(),
        "a".repeat(40),
        format!("sha256-{hex}a"),
        format!("v1-{hex}"),
        "a".repeat(65),
        hex,
    ] {
        assert_eq!(not_an_image_tag(&tag), None);
    }
}

#[test]
fn sixty_four_hexadecimal_digits_may_be_a_cached_layers_and_never_are_in_cdks_repositories() {
    let hex = "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451";
    let assets = "cdk-hnb659fds-container-assets-123456789012-eu-west-1";
    for (repository, tag, told) in [
        ("ci/kaniko-cache", hex, CachedLayer::Yes),
        ("ci/app/cache", hex, CachedLayer::Yes),
        ("cache/app", hex, CachedLayer::Maybe),
        ("app", hex, CachedLayer::Maybe),
        (assets, hex, CachedLayer::No),
        ("ci/kaniko-cache", "v1", CachedLayer::No),
        ("app", &hex[1..], CachedLayer::No),
    ] {
        assert_eq!(CachedLayer::of(repository, tag), told, "{repository}:{tag}");
    }
}

#[test]
fn media_types_tell_an_image_from_an_artifact_and_say_where_they_do_not_know() {
    let oci = "application/vnd.oci.image.manifest.v1+json";
    let index = "application/vnd.oci.image.index.v1+json";
    let image = "application/vnd.oci.image.config.v1+json";
    assert_eq!(Kind::of(Some(oci), Some(image)), Kind::Image);
    assert_eq!(Kind::of(Some(index), None), Kind::Index);
    assert_eq!(Kind::of(Some(index), Some("")), Kind::Index);
    for (manifest, artifact) in [(None, None), (Some(oci), None), (None, Some(image))] {
        assert_eq!(Kind::of(manifest, artifact), Kind::Unknown);
    }
    for (manifest, artifact) in [
        (Some(oci), Some("application/vnd.cncf.helm.config.v1+json")),
        (Some(oci), Some("application/vnd.buildkit.cacheconfig.v0")),
        (Some(index), Some("application/vnd.amazon.soci.index.v2+json")),
        (Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), None),
    ] {
        assert!(matches!(Kind::of(manifest, artifact), Kind::Other(_)));
    }
}

#[test]
fn an_index_of_a_caches_layers_or_of_artifacts_leads_to_no_image() {
    let index = |manifests: &str| format!(r#"{{"schemaVersion": 2, "manifests": [{manifests}]}}"#);
    let image = r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "sha256:0", "platform": {"os": "linux"}}"#;
    let layer = r#"{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": "sha256:1"}"#;
    let config = r#"{"mediaType": "application/vnd.buildkit.cacheconfig.v0", "digest": "sha256:2"}"#;
    let chart = r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": "application/vnd.cncf.helm.config.v1+json"}"#;
    let attestation = r#"{"mediaType": "application/vnd.oci.image.manifest.v1+json", "platform": {"os": "unknown"}}"#;
    assert!(is_image(&index(image)));
    assert!(is_image(&index(&[attestation, image].join(","))));
    for manifests in [
        String::new(),
        [layer, config].join(","),
        chart.to_owned(),
        attestation.to_owned(),
    ] {
        assert!(!is_image(&index(&manifests)), "{manifests}");
    }
    for nothing in ["", "[]", "{}", "null"] {
        assert!(!is_image(nothing));
    }
}

#[test]
fn an_image_of_one_layer_may_be_a_caches_and_one_of_more_is_none() {
    let image = |layers: &str| format!(r#"{{"config": {{"digest": "sha256:0"}}, "layers": [{layers}]}}"#);
    let layer = r#"{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": "sha256:1"}"#;
    assert!(is_image(&image(&[layer, layer].join(","))));
    assert!(!is_image(&image(layer)));
}

proptest! {
    #[test]
    fn what_prints_parses_to_the_same(
        registry in "[a-z0-9]{1,10}(\\.[a-z0-9]{1,5}){0,3}(:[0-9]{2,5})?",
        repository in "[a-z0-9]{1,8}([._/-][a-z0-9]{1,8}){0,4}",
        tag in prop::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"),
        hex in "[a-f0-9]{64}",
    ) {
        let image = Image::new(&registry, &repository, tag.as_deref(), &format!("sha256:{hex}")).unwrap();
        prop_assert_eq!(image.to_string().parse::<Image>(), Ok(image));
    }

    #[test]
    fn whatever_parses_is_free_of_everything_a_shell_reads(text in "\\PC{0,60}") {
        let text = format!("{text}@{DIGEST}");
        if let Ok(image) = text.parse::<Image>() {
            prop_assert!(image.to_string().bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b)));
            prop_assert_eq!(image.to_string(), text);
        }
    }
}
