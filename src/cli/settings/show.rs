//! Settings as TOML: the shipped file, and what `check-config` prints.

use std::fmt::Write as _;

use super::layers::{Layers, Raw};
use super::table::{ALL, Form, Setting};
use crate::config::StoreUrl;

/// The text of `config/millrace.toml`: every key with its default, as a comment.
pub(crate) fn template() -> String {
    let mut out = String::from(
        "# Millrace's settings, every key with its default. Take the # off those that you change.\n\
         # The environment (MILLRACE_ and the key in capitals) wins over this file, flags win over both;\n\
         # `millrace check-config` prints what holds and where it came from.\n",
    );
    for setting in ALL {
        out.push('\n');
        for line in std::iter::once(setting.help).chain(setting.why.lines()) {
            let mut chars = line.chars();
            let capital: String =
                chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
            let line =
                if line == setting.help { capital + chars.as_str() + "." } else { line.to_owned() };
            let _ = writeln!(out, "# {line}");
        }
        let _ = writeln!(out, "#{} = {}", setting.key(), toml_default(setting));
    }
    out
}

/// The default as the file would have it.
pub(super) fn toml_default(setting: &Setting) -> String {
    toml_value(setting, &Raw::Text(setting.default.to_owned()))
}

/// The effective configuration, each value with where it came from. Holds no secret.
pub(crate) fn effective(layers: &Layers) -> String {
    let mut out = String::new();
    for setting in ALL {
        let Some(given) = layers.values.get(setting.name) else { continue };
        let line = format!("{} = {}", setting.key(), toml_value(setting, &given.raw));
        let _ = writeln!(out, "{line:<48} # {}", given.source);
    }
    if layers.key_digest.is_some() {
        out.push_str("# and one key from MILLRACE_API_KEY (redacted)\n");
    }
    out
}

fn toml_value(setting: &Setting, raw: &Raw) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |items: &mut dyn Iterator<Item = &str>| {
        format!("[{}]", items.map(quoted).collect::<Vec<_>>().join(", "))
    };
    match (raw, setting.form) {
        (Raw::List(items), _) => list(&mut items.iter().map(String::as_str)),
        (Raw::Text(text), Form::List(_)) => {
            list(&mut text.split(',').map(str::trim).filter(|i| !i.is_empty()))
        }
        (Raw::Text(text), Form::Number(_)) if text.parse::<f64>().is_ok() => text.clone(),
        (Raw::Text(text), Form::Switch) if text == "true" || text == "1" => "true".to_owned(),
        (Raw::Text(text), Form::Switch) if text == "false" || text == "0" => "false".to_owned(),
        (Raw::Text(text), Form::Url(_)) => quoted(&StoreUrl::new(text).to_string()),
        (Raw::Text(text), _) => quoted(text),
    }
}
