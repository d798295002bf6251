use std::ffi::OsString;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::layers::{CommandLine, Layers, Raw};
use super::table::{ALL, Setting};
use super::{config, effective, template, values};
use crate::config::{Device, Kernels};

fn line(flags: &[(&str, &str)]) -> CommandLine {
    let flags = flags
        .iter()
        .map(|(name, value)| (Setting::by_name(name).unwrap(), (*value).to_owned()))
        .collect();
    CommandLine { flags, ..CommandLine::default() }
}

/// Layers of a file, an environment and flags.
fn layers(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let line = CommandLine { config: Some(on_disk.path().to_owned()), ..line(flags) };
    let env = env.iter().map(|(n, v)| (OsString::from(n), OsString::from(v)));
    Layers::from_parts(&line, env)
}

fn faults(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Vec<String> {
    config(&layers(file, env, flags)).unwrap_err()
}

fn source_of(layers: &Layers, name: &str) -> String {
    let text = layers.values[name].source.to_string();
    // The file is a temporary one.
    text.rsplit_once('/')
        .map_or(text.clone(), |(_, last)| format!("FILE{}", &last[last.len() - 2..]))
}

#[test]
fn defaults_alone_are_valid() {
    let layers = layers("", &[], &[]);
    let config = config(&layers).unwrap();
    assert_eq!(config.http.host, IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_eq!(config.http.port, 8000);
    assert_eq!(config.http.max_body_bytes, 8 << 20);
    assert_eq!(config.engine.max_num_seqs, 64);
    assert_eq!(config.engine.max_queue_tokens, 1 << 20);
    assert!(config.engine.prefix_caching);
    assert!(config.engine.kv_cache_bytes > 0 && config.engine.kv_cache_bytes <= 2 << 30);
    assert_eq!(config.names.instruct.len(), 3);
    assert_eq!(config.backend.device, Device::Auto);
    assert!(layers.values.values().all(|g| g.source.to_string() == "default"));
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "port = 1\nmax_num_seqs = 1\nthreads = 1\nserved_model_name = [\"a\", \"b\"]\n";
    let env = [("MILLRACE_PORT", "2"), ("MILLRACE_MAX_NUM_SEQS", "2"), ("HOME", "/")];
    let layers = layers(file, &env, &[("port", "3")]);
    let config = config(&layers).unwrap();
    assert_eq!(config.http.port, 3);
    assert_eq!(config.engine.max_num_seqs, 2);
    assert_eq!(config.backend.threads, Some(1));
    assert_eq!(config.names.served, ["a", "b"]);
    assert_eq!(source_of(&layers, "port"), "--port");
    assert_eq!(source_of(&layers, "max-num-seqs"), "MILLRACE_MAX_NUM_SEQS");
    assert_eq!(source_of(&layers, "threads"), "FILE:3");
    assert_eq!(source_of(&layers, "host"), "default");
}

#[test]
fn every_fault_is_named_with_its_key_its_source_and_what_is_right() {
    let file = "prot = 1\nmax_num_seqs = \"many\"\n[http]\nhost = \"::1\"\n";
    let env =
        [("MILLRACE_KERNEL", "avx2"), ("MILLRACE_DEVICE", "cdua"), ("MILLRACE_PORT", "70000")];
    let all = faults(file, &env, &[("kv-cache-memory", "2 potatoes"), ("log-level", "inof")]);
    let text = all.join("\n");
    assert_eq!(all.len(), 8, "{text}");
    for part in [
        ":1: unknown key \"prot\"; the nearest is port",
        ":2: max_num_seqs: \"many\" is not a whole number from 1 to 4096",
        ":3: unknown key \"http\"",
        "MILLRACE_KERNEL: unknown variable; the nearest is MILLRACE_KERNELS",
        "MILLRACE_DEVICE: \"cdua\" is not one of auto, cpu, cuda, metal; the nearest is cuda",
        "MILLRACE_PORT: \"70000\" is not a port number from 0 to 65535",
        "--kv-cache-memory: \"2 potatoes\" is not auto or a size such as 2GiB",
        "--log-level: \"inof\" is not a level",
    ] {
        assert!(text.contains(part), "{part}\nnot in\n{text}");
    }
}

#[test]
fn a_file_that_is_not_toml_or_not_there_is_a_fault() {
    let text = faults("port = 1\nhost = = 2\n", &[], &[]).join("\n");
    assert!(text.contains(":2: "), "{text}");
    let gone = CommandLine { config: Some(PathBuf::from("/nowhere/x.toml")), ..line(&[]) };
    let text = config(&Layers::from_parts(&gone, std::iter::empty())).unwrap_err().join("\n");
    assert!(text.starts_with("/nowhere/x.toml: cannot read the file"), "{text}");
    let text = faults("port = 1\nport = 2\n", &[], &[]).join("\n");
    assert!(text.contains(":2: "), "{text}");
}

#[test]
fn a_key_in_the_environment_is_hashed_and_never_shown() {
    let secret = "sk-canary0123456789";
    let layers = layers("", &[("MILLRACE_API_KEY", secret)], &[]);
    let config = config(&layers).unwrap();
    let digest = config.auth.env_key_digest.unwrap();
    assert_eq!(digest[..2], <sha2::Sha256 as sha2::Digest>::digest(secret)[..2]);
    let shown = effective(&layers);
    assert!(shown.contains("MILLRACE_API_KEY (redacted)"));
    assert!(!format!("{shown}{config:?}").contains("canary"));
    // Neither are the values of a misnamed variable and of a malformed key.
    let env = [("MILLRACE_APIKEY", secret), ("MILLRACE_API_KEY", "sk canary")];
    let text = faults("", &env, &[]).join("\n");
    assert!(text.contains("nearest is MILLRACE_API_KEY"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    // Nor may it stand in the file.
    let text = faults("api_key = \"sk-canary\"", &[], &[]).join("\n");
    assert!(text.contains("api_key_file") && !text.contains("canary"), "{text}");
}

#[cfg(feature = "redis")]
#[test]
fn a_password_of_a_store_is_never_shown_and_no_flag() {
    let (url, key) = ("redis://me:hunter2@host:1/0", "rate-limit-store");
    let variable = ("MILLRACE_RATE_LIMIT_STORE", url);
    let layers = |value: &str| layers("", &[("MILLRACE_RATE_LIMIT_STORE", value)], &[]);
    let shown = |value| {
        let layers = layers(value);
        format!("{}{:?}", effective(&layers), config(&layers).map_err(|f| f.join("\n")))
    };
    assert_eq!(config(&layers(url)).unwrap().rate_limit_store.unwrap().secret(), url);
    assert!(effective(&layers(url)).contains("rate_limit_store = \"redis://redacted@host:1/0\""));
    // Of a user alone nobody has to know either; what is no URL may be one with a slip.
    for value in [url, "rediss://:hunter2@host", "redis://hunter2@host", "redis://a:b@hunter2@h"] {
        assert!(!shown(value).contains("hunter2"), "{}", shown(value));
    }
    for value in ["redis:/:hunter2@host", "redis://host:hunter2", "hunter2", "redis://:hunter2"] {
        let faults = faults("", &[("MILLRACE_RATE_LIMIT_STORE", value)], &[]).join("\n");
        assert!(faults.contains("MILLRACE_RATE_LIMIT_STORE: not a URL"), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    let in_file = faults("rate_limit_store = \"http://a\"", &[], &[]).join("\n");
    assert!(in_file.contains(":1: rate_limit_store: not a URL"), "{in_file}");
    let on_line = faults("", &[], &[(key, url)]).join("\n");
    assert!(on_line.starts_with("--rate-limit-store: others can read"), "{on_line}");
    assert!(!on_line.contains("hunter2"), "{on_line}");
    // What counts is what holds: a flag without one wins over the variable.
    let both = super::tests::layers("", &[variable], &[(key, "redis://127.0.0.1/0")]);
    assert_eq!(config(&both).unwrap().rate_limit_store.unwrap().secret(), "redis://127.0.0.1/0");
    for refused in [
        "unix:///run/redis",
        "rediss://host/#insecure",
        "redis://host/x",
        "redis://host/-1",
        "redis://host/2147483648",
        "redis://a b",
    ] {
        assert!(config(&layers(refused)).is_err(), "{refused}");
    }
}

#[cfg(not(feature = "redis"))]
#[test]
fn a_build_without_a_store_says_so() {
    let faults = faults("", &[], &[("rate-limit-store", "redis://:hunter2@host")]).join("\n");
    assert!(faults.contains("this build shares no limits"), "{faults}");
    assert!(!faults.contains("hunter2"), "{faults}");
}

#[test]
fn an_empty_variable_is_no_variable_and_kubernetes_may_set_its_own() {
    let env = [
        ("MILLRACE_API_KEY", ""),
        ("MILLRACE_PORT", "tcp://10.0.0.1:8000"),
        ("MILLRACE_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("MILLRACE_SERVICE_HOST", "10.0.0.1"),
        ("MILLRACE_SERVICE_PORT_HTTP", "8000"),
        ("MILLRACE_PYTHON", "/usr/bin/python3"),
    ];
    let config = config(&layers("", &env, &[])).unwrap();
    assert_eq!(config.http.port, 8000);
    assert!(config.auth.env_key_digest.is_none());
}

#[test]
fn an_open_server_on_a_real_address_wants_both_flags() {
    let open = [("host", "0.0.0.0"), ("allow-unauthenticated", "true")];
    let text = faults("", &[], &open).join("\n");
    assert!(text.contains("i-know-this-is-open"), "{text}");
    let both = [open[0], open[1], ("i-know-this-is-open", "true")];
    assert!(config(&layers("", &[], &both)).is_ok());
    assert!(config(&layers("", &[], &[("host", "::1"), open[1]])).is_ok());
}

#[test]
fn a_key_beside_an_open_door_is_a_fault() {
    let open = [("allow-unauthenticated", "true")];
    let text = faults("", &[("MILLRACE_API_KEY", "sk-0123456789")], &open).join("\n");
    assert!(text.contains("beside a key"), "{text}");
    let text = faults("api_key_file = \"keys\"", &[], &open).join("\n");
    assert!(text.contains("beside a key"), "{text}");
}

#[test]
fn values_take_the_forms_they_promise() {
    let text = |t: &str| Raw::Text(t.to_owned());
    let size = |t: &str| values::size(&text(t)).ok();
    assert_eq!(size("2GiB"), Some(2 << 30));
    assert_eq!(size("2g"), Some(2 << 30));
    assert_eq!(size("512MB"), Some(512_000_000));
    assert_eq!(size("1.5 KiB"), Some(1536));
    assert_eq!(size("1_048_576"), Some(1 << 20));
    for wrong in ["", "0", "-1", "GiB", "1.2.3MB", "1e3", "2 potatoes", "99999999999TiB", "nan"] {
        assert_eq!(size(wrong), None, "{wrong}");
    }
    let seconds = values::seconds(0.1..=10.0);
    assert_eq!(seconds(&text("0.5")), Ok(Duration::from_millis(500)));
    for wrong in ["0", "-1", "nan", "inf", "11", "5s"] {
        assert!(seconds(&text(wrong)).is_err(), "{wrong}");
    }
    assert_eq!(values::host(&text("localhost")), Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))));
    assert!(values::host(&text("[::1]")).is_ok());
    assert!(values::host(&text("example.com")).is_err());
    let listen = |value: &str| values::listen(&text(value));
    assert_eq!(listen(""), Ok(None));
    assert_eq!(listen("localhost:9000"), Ok(Some(([127, 0, 0, 1], 9000).into())));
    assert_eq!(listen("[::1]:0").unwrap().unwrap().to_string(), "[::1]:0");
    for wrong in ["9000", ":9000", "::1", "::1:9000", "127.0.0.1", "127.0.0.1:70000", "a.b:1"] {
        assert!(listen(wrong).is_err(), "{wrong}");
    }
    assert_eq!(values::names_or_none(&text("none")), Ok(vec![]));
    assert_eq!(values::names(&text("a, b,a")), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert!(values::names(&text("a,,b")).is_err());
    assert!(values::origins(&text("https://a.b,http://localhost:3000")).is_ok());
    assert!(values::origins(&text("https://a.b/")).is_err());
    assert_eq!(values::url(&text("http://h:4318/x")), Ok(Some("http://h:4318/x".to_owned())));
    assert_eq!(values::url(&text("")), Ok(None));
    for bad in ["h:4318", "grpc://h:4317", "http://", "http://me:secret@h", "http://h/?a=1", "/v1"]
    {
        assert!(values::url(&text(bad)).is_err(), "{bad}");
    }
    assert!(values::log_level(&text("warn,millrace::http=debug")).is_ok());
    assert_eq!(values::switch(&text("1")), Ok(true));
    let kernels = config(&layers("", &[], &[("kernels", "avxvnni")])).unwrap().backend.kernels;
    assert_eq!(kernels, Kernels::AvxVnni);
}

#[cfg(not(feature = "otel"))]
#[test]
fn a_collector_that_would_hear_of_nothing_is_a_fault() {
    let faults = faults("", &[], &[("otlp-endpoint", "http://127.0.0.1:4318")]);
    assert!(faults[0].contains("this build has no feature otel"), "{faults:?}");
}

#[test]
fn the_address_of_a_collector_is_checked_and_never_shown() {
    for wrong in ["http://127.0.0.1:99999", "http://u:secret@h", "secret"] {
        let faults = faults("", &[], &[("otlp-endpoint", wrong)]);
        assert!(faults[0].contains("is not an address such as"), "{faults:?}");
        assert!(!faults[0].contains("secret") && !faults[0].contains("99999"), "{faults:?}");
    }
}

#[test]
fn the_shipped_file_is_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/millrace.toml");
    let shipped = std::fs::read_to_string(path).unwrap_or_default();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, template()).unwrap();
        return;
    }
    assert!(
        shipped == template(),
        "config/millrace.toml is not what the table says: UPDATE_DOCS=1 writes it anew"
    );
}

#[test]
fn the_shipped_file_with_every_key_set_means_the_defaults() {
    let set: String = template()
        .lines()
        .map(|l| l.strip_prefix('#').filter(|l| !l.starts_with(' ')).unwrap_or(l).to_owned() + "\n")
        .collect();
    let all = layers(&set, &[], &[]);
    assert!(all.values.values().all(|g| g.source.to_string() != "default"));
    let by_file = format!("{:?}", config(&all).unwrap());
    assert_eq!(by_file, format!("{:?}", config(&layers("", &[], &[])).unwrap()));
}

#[test]
fn what_check_config_prints_is_a_configuration_that_means_the_same() {
    let flags =
        [("served-model-name", "a,b"), ("seed", "7"), ("offline", "1"), ("model-dir", "/m \"q\"")];
    let first = layers("", &[("MILLRACE_API_KEY_FILE", "/k")], &flags);
    let again = layers(&effective(&first), &[], &[]);
    assert_eq!(format!("{:?}", config(&first).unwrap()), format!("{:?}", config(&again).unwrap()));
}

#[test]
fn each_setting_has_a_sentence_and_no_two_share_a_name() {
    let mut names: Vec<_> = ALL.iter().map(Setting::key).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), ALL.len());
    for setting in ALL {
        assert!(!setting.help.is_empty() && !setting.help.ends_with('.'), "{}", setting.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_panics(which in 0..ALL.len(), value in ".{0,40}") {
        let setting = &ALL[which];
        let line = CommandLine {
            config: Some(PathBuf::from("/dev/null")),
            flags: vec![(setting, value)],
            ..CommandLine::default()
        };
        let layers = Layers::from_parts(&line, std::iter::empty());
        if let Err(faults) = config(&layers) {
            prop_assert!(!faults.is_empty());
        }
        effective(&layers);
    }
}
