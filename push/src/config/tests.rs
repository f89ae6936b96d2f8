//! The configuration of push, read from TOML as a gateway does.

use super::*;

fn parse(text: &str) -> PushConfig {
    toml::from_str(text).expect("legal")
}

fn refused(text: &str) -> String {
    parse(text).validate().expect_err("refused").to_string()
}

#[test]
fn without_providers_nothing_is_needed() {
    let config = PushConfig::default();
    config.validate().expect("valid");
    assert_eq!(parse(""), config);
}

#[test]
fn every_kind_survives_a_file() {
    let text = include_str!("every_kind.toml");
    let config = parse(text);
    config.validate().expect("valid");
    assert_eq!(config.providers.len(), 9);
    let again = toml::to_string(&config).expect("it is TOML");
    assert_eq!(parse(&again), config);
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    for (text, key) in [
        ("provider = 1", "provider"),
        ("[dispatch]\nthreads = 1", "threads"),
        ("[providers.a]\nkind = \"log\"\nlevel = 1", "level"),
        ("[providers.a]\nkind = \"log\"\n[providers.a.lane]\nwidth = 1", "width"),
        ("[providers.a]\nkind = \"apns\"\npassword = 1", "password"),
    ] {
        let refused = toml::from_str::<PushConfig>(text).expect_err("unknown").to_string();
        assert!(refused.contains(&format!("unknown field `{key}`")), "{refused}");
    }
    let kind = toml::from_str::<PushConfig>("[providers.a]\nkind = \"pigeon\"");
    assert!(kind.expect_err("unknown").to_string().contains("unknown variant `pigeon`"));
}

#[test]
fn a_value_that_cannot_be_is_refused_by_name() {
    for (text, what) in [
        ("[dispatch]\nin_hand = 0", "dispatch.in_hand: 1 to 65536"),
        ("[dispatch]\npoll_ms = 1", "dispatch.poll_ms: 10 to 60000"),
        ("[dispatch]\ndrain_ms = 30001", "dispatch.drain_ms: at most a lease (30000)"),
        ("[providers.Log]\nkind = \"log\"", "providers.Log: a name of 1 to 32 of a-z, 0-9 and -"),
        (
            "[providers.a]\nkind = \"log\"\nlane = { concurrency = 0 }",
            "providers.a.lane.concurrency: 1 to 1000",
        ),
        (
            "[providers.a]\nkind = \"webhook\"\nendpoint = \"http://example.com/\"",
            "providers.a.endpoint: an https URL, or an http one on loopback",
        ),
        (
            "[providers.a]\nkind = \"webhook\"\nendpoint = \"https://example.com/\"",
            "providers.a.secrets: required",
        ),
        (
            "[providers.a]\nkind = \"mpns\"\norigins = [\"http://10.0.0.1\"]",
            "providers.a.origins: https://host[:port] each, or http on loopback, without a path",
        ),
    ] {
        assert_eq!(refused(text), what);
    }
    let mut lines: Vec<_> = (0..=PROVIDERS_MAX).map(|n| format!("[providers.a{n}]")).collect();
    lines.iter_mut().for_each(|line| line.push_str("\nkind = \"log\"\n"));
    assert_eq!(refused(&lines.concat()), "providers: at most 64");
}
