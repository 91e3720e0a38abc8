use super::*;
use crate::error_text::error_text;

fn read(name: &str, value: Option<&str>) -> Result<Settings, SettingsError> {
    Settings::read(|asked| match asked {
        _ if asked == name => value.map(str::to_owned),
        "MODE" => Some("send".to_owned()),
        "RULES" => Some(r#"[{"name": "default"}]"#.to_owned()),
        "DELIVERY_TIMEOUT_SECONDS" | "EXECUTION_TIMEOUT_SECONDS" => Some("600".to_owned()),
        "IMAGE_GC_HIGH_THRESHOLD_PERCENT" => Some("85".to_owned()),
        "MAX_PARALLEL_IMAGE_PULLS" => Some("2".to_owned()),
        "MAX_CONNECTIONS" => Some("3".to_owned()),
        "LAUNCH_MAX_CONNECTIONS" => Some("20".to_owned()),
        "MAX_BANDWIDTH_MIB" => Some("0".to_owned()),
        "REGISTRY_ENDPOINT" => None,
        _ => Some("text".to_owned()),
    })
}

#[test]
fn an_unusable_setting_names_itself_its_value_and_what_is_accepted() {
    let cases = [
        (
            "CLUSTER_NAME",
            None,
            "CLUSTER_NAME: \"\" is not accepted: it takes a text that is not empty",
        ),
        ("DOCUMENT_NAME", Some(" "), "DOCUMENT_NAME: \" \" is not accepted"),
        ("MODE", None, "MODE: \"\" is not accepted: it takes send or observe"),
        (
            "MODE",
            Some("Observe"),
            "MODE: \"Observe\" is not accepted: it takes send or observe",
        ),
        (
            "DELIVERY_TIMEOUT_SECONDS",
            Some("29"),
            "\"29\" is not accepted: it takes a whole number from 30",
        ),
        ("EXECUTION_TIMEOUT_SECONDS", Some("1h"), "\"1h\" is not accepted"),
        (
            "IMAGE_GC_HIGH_THRESHOLD_PERCENT",
            Some("101"),
            "\"101\" is not accepted: it takes a whole number from 1 to 100",
        ),
        (
            "MAX_PARALLEL_IMAGE_PULLS",
            Some("0"),
            "\"0\" is not accepted: it takes a whole number from 1 to 16",
        ),
        (
            "LAUNCH_MAX_CONNECTIONS",
            Some("21"),
            "\"21\" is not accepted: it takes a whole number from 0 to 20",
        ),
        (
            "REGISTRY_ENDPOINT",
            Some("FIPS"),
            "\"FIPS\" is not accepted: it takes standard, fips, dualstack or dualstack-fips",
        ),
        (
            "RULES",
            Some("[{}]"),
            "RULES cannot be used: rule number 1: field name: nothing is not accepted",
        ),
        (
            "RULES",
            Some(r#"[{"name": "a", "nodes": {"text": ["x"]}}]"#),
            "tag keys other than the cluster's own",
        ),
    ];
    for (name, value, expected) in cases {
        let error = error_text(&read(name, value).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn boot_lists_are_below_the_stacks_own_path_where_they_are_kept() {
    let path = |boot_list: &'static str, document: &'static str| {
        boot_list_path(|name| {
            (name == "BOOT_LIST")
                .then_some(boot_list)
                .or(Some(document))
                .map(str::to_owned)
        })
    };
    assert_eq!(path("Disabled", "x").unwrap(), None);
    let kept = path("Enabled", "eks-image-prefetch-prefetch-images").unwrap();
    assert_eq!(kept.as_deref(), Some("/eks-image-prefetch/boot"));
    for (boot_list, document, expected) in [
        ("Enabled", "-prefetch-images", "it takes <stack>-prefetch-images"),
        ("Enabled", "x", "DOCUMENT_NAME: \"x\" is not accepted"),
        (
            "true",
            "x",
            "BOOT_LIST: \"true\" is not accepted: it takes Enabled or Disabled",
        ),
    ] {
        let error = error_text(&path(boot_list, document).unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn usable_settings_are_read() {
    assert_eq!(read("MODE", Some("observe")).unwrap().mode, Mode::Observe);
    let settings = read("EXECUTION_TIMEOUT_SECONDS", Some("172800")).unwrap();
    assert_eq!(settings.mode, Mode::Send);
    assert_eq!(settings.registry_endpoint, RegistryEndpoint::Standard);
    let settings_of = |endpoint| read("REGISTRY_ENDPOINT", Some(endpoint)).unwrap();
    assert_eq!(
        settings_of("dualstack-fips").registry_endpoint,
        RegistryEndpoint::DualstackFips
    );
    assert_eq!((settings.delivery_timeout, settings.execution_timeout), (600, 172_800));
    assert_eq!(
        (settings.image_gc_high_threshold, settings.max_parallel_image_pulls),
        (85, 2)
    );
}

fn central(registries: &'static str) -> Result<Vec<CentralRegistry>, SettingsError> {
    let look_up = |name: &str| match name {
        "CENTRAL_REGISTRIES" => Some(registries.to_owned()),
        "ACCOUNT_ID" => Some("123456789012".to_owned()),
        "AWS_REGION" => Some("eu-central-1".to_owned()),
        "REGISTRY_ENDPOINT" => Some("dualstack".to_owned()),
        other => panic!("{other}"),
    };
    Variables::new(look_up).central_registries()
}

#[test]
fn a_registry_is_named_by_its_account_and_where_it_is_another_by_its_region() {
    assert_eq!(central("").unwrap(), []);
    let registries = central("210987654321,210987654321/eu-west-1,123456789012/us-east-1").unwrap();
    let hosts: Vec<&str> = registries.iter().map(|registry| registry.host.as_str()).collect();
    assert_eq!(
        hosts,
        [
            "210987654321.dkr-ecr.eu-central-1.on.aws",
            "210987654321.dkr-ecr.eu-west-1.on.aws",
            "123456789012.dkr-ecr.us-east-1.on.aws"
        ]
    );
    assert_eq!(
        (registries[1].account.as_str(), registries[1].region.as_str()),
        ("210987654321", "eu-west-1")
    );
}

#[test]
fn what_names_no_other_registry_is_refused_with_what_is_accepted() {
    for registries in [
        "21098765432",
        "210987654321,",
        "210987654321/",
        "210987654321/Frankfurt",
        "210987654321/us-iso-east-1",
        "210987654321, 310987654321",
        "210987654321,210987654321/eu-central-1",
        "123456789012",
        "123456789012/eu-central-1",
        "110987654321,210987654321,310987654321,410987654321,510987654321,610987654321",
    ] {
        let error = error_text(&central(registries).unwrap_err());
        let expected = format!("CENTRAL_REGISTRIES: \"{registries}\" is not accepted: it takes up to 5 different");
        assert!(error.contains(&expected), "{error}");
    }
}
