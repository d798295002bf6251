//! What shells and `man` make of what the binary prints for them.

use std::process::{Command, Output, Stdio};

use tempfile::tempdir;

use crate::support::millrace;

const COMMANDS: [&str; 6] = ["serve", "pull", "keys", "check-config", "healthcheck", "doctor"];

fn printed(args: &[&str]) -> String {
    let home = tempdir().unwrap();
    let Output { status, stdout, stderr } = millrace(home.path()).args(args).output().unwrap();
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn bash(script: &str, more: &str) -> String {
    let folder = tempdir().unwrap();
    let file = folder.path().join("millrace.bash");
    std::fs::write(&file, script).unwrap();
    let whole = format!("set -eu\nbash -n \"$0\"\nset +u\nsource \"$0\"\n{more}");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile", "-c", &whole]).arg(&file).stdin(Stdio::null());
    let Output { status, stdout, stderr } = bash.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

#[test]
fn bash_completes_commands_and_options() {
    let script = printed(&["completions", "bash"]);
    assert!(bash(&script, "complete -p millrace").contains("millrace"));
    // As bash itself calls it, with the cursor behind the last word.
    let completed = |words: &[&str]| {
        let call = format!(
            "COMP_WORDS=({}); COMP_CWORD={}; _millrace millrace \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1
        );
        bash(&script, &call)
    };
    let commands = completed(&["millrace", "''"]);
    for command in COMMANDS {
        assert!(commands.lines().any(|l| l == command), "{command} not in\n{commands}");
    }
    let options = completed(&["millrace", "serve", "--max-num"]);
    assert!(options.lines().any(|l| l == "--max-num-seqs"), "{options}");
    assert!(completed(&["millrace", "keys", "a"]).contains("add"));
}

#[test]
fn there_is_a_script_for_each_usual_shell() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
    let home = tempdir().unwrap();
    let out = millrace(home.path()).args(["completions", "csh"]).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
fn pages_have_their_sections_and_man_shows_them() {
    let main = printed(&["man"]);
    for heading in [".TH millrace 1", ".SH NAME", ".SH SYNOPSIS", ".SH SUBCOMMANDS"] {
        assert!(main.contains(heading), "{heading} not in\n{main}");
    }
    let serve = printed(&["man", "serve"]);
    assert!(
        serve.contains(".SH OPTIONS") && serve.contains("MILLRACE\\_MAX\\_NUM\\_SEQS")
            || serve.contains("MILLRACE_MAX_NUM_SEQS"),
        "{serve}"
    );
    assert!(printed(&["man", "keys", "add"]).contains("millrace"), "a command below a command");
    let home = tempdir().unwrap();
    let all = millrace(home.path()).args(["man", "--dir", "pages/man1"]).output().unwrap();
    assert!(all.status.success() && all.stderr.is_empty());
    for command in COMMANDS.into_iter().chain(["keys-add"]) {
        let page = home.path().join(format!("pages/man1/millrace-{command}.1"));
        assert!(std::fs::read_to_string(page).unwrap().contains(".SH SYNOPSIS"), "{command}");
    }
    let out = millrace(home.path()).args(["man", "serf"]).output().unwrap();
    let err = String::from_utf8(out.stderr).unwrap();
    assert!(out.status.code() == Some(2) && err.contains("serve"), "{err}");
    // Not every machine has it.
    if Command::new("man").arg("--version").output().is_ok_and(|out| out.status.success()) {
        let page = home.path().join("millrace.1");
        std::fs::write(&page, &serve).unwrap();
        let mut man = Command::new("man");
        man.args(["--warnings", "-E", "ascii", "-l"])
            .arg(&page)
            .env("MANPAGER", "cat")
            .env("MANWIDTH", "100");
        let Output { stdout, stderr, .. } = man.output().unwrap();
        let (text, warnings) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        // A man that is there in name only, as in images without documentation, shows nothing.
        if !text.contains("has been minimized") && !text.is_empty() {
            assert!(text.contains("--max-num-seqs") && warnings.is_empty(), "{warnings}\n{text}");
        }
    }
}
