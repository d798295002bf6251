//! The settings as a page of the documentation: `docs/configuration.md`.

use std::fmt::Write as _;

use super::show::toml_default;
use super::table::{ALL, Form, Setting};

/// Groups, each from the setting that it begins with, in the order of the table.
const GROUPS: &[(&str, &str)] = &[
    ("model", "The model"),
    ("host", "Addresses and TLS"),
    ("api-key-file", "Keys, and what browsers may do"),
    ("served-model-name", "Names"),
    ("max-model-len", "The engine: how much at once"),
    ("threads", "The processor"),
    ("shutdown-delay-s", "Times"),
    ("max-connections", "Limits of requests"),
    ("log-format", "Logs and output"),
];

const INTRODUCTION: &str = "\
# Configuration

Every setting of `millrace serve`, with its flag, its variable in the environment, its key in the file, its default and its meaning.
`check-config` and `doctor` take the same ones. (Made from `src/cli/settings/table.rs`; a test compares this page with it. To make
it anew: `UPDATE_DOCS=1 cargo test --release --locked --features fake-model --lib settings`.)

## Where values come from

From the weakest to the strongest:

1. the defaults of this page;
2. the file: that of `--config` or `MILLRACE_CONFIG`, else `config/millrace.toml` if there is one. It is TOML without tables, and
   `config/millrace.toml` in the repository has every key at its default, as a comment (`millrace check-config --template` prints it);
3. the environment: `MILLRACE_` and the key in capitals. A variable that is set to nothing counts as not set;
4. flags. The model is the first argument, without a flag.

`millrace check-config` prints what is in force, and for each value where it came from. A key, variable or flag that does not exist, and
a value that cannot be read, is an error that names the nearest right one; all of them are told at once, and the exit code is 2.

Three variables are no settings: `MILLRACE_API_KEY` is one key besides those of the key file (in the environment only, since others can
read flags), `MILLRACE_CONFIG` names the file, and `MILLRACE_PYTHON` is the Python with which `pull` fetches. Models of a hub follow
`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`, `HF_HUB_CACHE` and `HF_HUB_OFFLINE`; `NO_COLOR` is honoured.

## Units

- Sizes: a number and `KiB`, `MiB`, `GiB` or `TiB` (by 1,024; `K`, `M`, `G`, `T` mean the same) or `kB`, `MB`, `GB`, `TB` (by 1,000).
  A number alone is bytes.
- Times end in `-s` and are seconds, with a fraction if need be.
- Lengths are tokens where nothing else is said. `_` may part the digits of a number: `1_000_000`.
- Switches are `true` or `false` (or `1` or `0`); on the command line the flag alone is `true`, and `--flag=false` overrules the file.
- Lists have commas between their items, on the command line and in the environment; in the file they are lists of strings.
- `auto` leaves the choice to the server.
";

/// The text of `docs/configuration.md`.
pub(super) fn document() -> String {
    let mut out = INTRODUCTION.to_owned();
    for setting in ALL {
        if let Some((_, title)) = GROUPS.iter().find(|(first, _)| *first == setting.name) {
            let _ = write!(out, "\n## {title}\n\n{HEAD}");
        }
        let _ = writeln!(out, "{}", row(setting));
    }
    out
}

const HEAD: &str = "| flag | environment | key | default | meaning |\n|---|---|---|---|---|\n";

fn row(setting: &Setting) -> String {
    let flag = match setting.form {
        _ if setting.name == "model" => "the first argument".to_owned(),
        Form::Switch => format!("`--{}`", setting.name),
        Form::Text(value) | Form::Number(value) | Form::Url(value) | Form::List(value) => {
            format!("`--{} {value}`", setting.name)
        }
    };
    let default = match setting.default {
        "" => "none".to_owned(),
        _ => format!("`{}`", toml_default(setting)),
    };
    let mut chars = setting.help.chars();
    let capital: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    let why = setting.why.split_whitespace().collect::<Vec<_>>().join(" ");
    let meaning = format!("{capital}{}. {why}", chars.as_str()).trim_end().replace('|', "\\|");
    let flag = flag.replace('|', "\\|");
    format!("| {flag} | `{}` | `{}` | {default} | {meaning} |", setting.variable(), setting.key())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_setting_below_a_heading() {
        let page = document();
        for (first, title) in GROUPS {
            assert!(Setting::by_name(first).is_some(), "no setting {first} begins a group");
            assert_eq!(page.matches(&format!("\n## {title}\n")).count(), 1);
        }
        let order = GROUPS.iter().map(|(first, _)| ALL.iter().position(|s| s.name == *first));
        assert!(order.is_sorted() && ALL[0].name == GROUPS[0].0);
        for setting in ALL {
            assert_eq!(page.matches(&format!("| `{}` |", setting.variable())).count(), 1);
        }
        let rows = page.lines().filter(|l| l.starts_with("| "));
        assert!(rows.clone().all(|l| l.replace("\\|", "").matches('|').count() == 6));
    }

    #[test]
    fn the_page_in_the_documentation_is_the_present_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == document(),
            "docs/configuration.md is out of date: UPDATE_DOCS=1 cargo test --release --locked --features fake-model --lib settings"
        );
    }
}
