use std::fs;
use std::path::Path;

use http::{HeaderValue, Uri};

use super::cache::Cache;
use super::choice::{Choice, choose};
use super::client::{Fault, redirected};
use super::download::full;
use super::folder;
use super::name::{HubName, Wanted, is_commit, is_etag, is_plain_path};
use super::place::{Origin, Place};

fn name(text: &str) -> HubName {
    HubName::parse(text).unwrap()
}

#[test]
fn names_have_an_owner_and_maybe_a_revision_and_a_file() {
    let plain = name("bartowski/Qwen2.5-0.5B_Instruct-GGUF");
    assert_eq!((plain.owner.as_str(), plain.revision.as_str()), ("bartowski", "main"));
    assert_eq!(plain.wanted, Wanted::Usual);
    assert_eq!(name("a/b:Q4_K_M").wanted, Wanted::Quantization("Q4_K_M".to_owned()));
    let full = name("a/b@refs/pr/1:sub/x@2:y.GGUF");
    assert_eq!((full.name.as_str(), full.revision.as_str()), ("b", "refs/pr/1"));
    assert_eq!(full.wanted, Wanted::File("sub/x@2:y.GGUF".to_owned()));
    for text in ["a/b", "a/b@v1", "a/b:x.gguf", "a/b@v1:Q8_0"] {
        assert_eq!(name(text).to_string(), text);
    }
}

#[test]
fn row_32_hostile_names_are_none() {
    for text in [
        "a",
        "/b",
        "a/",
        "a/b/c",
        "../b",
        "a/..",
        "a/b..c",
        "a/b--c",
        "-a/b",
        ".a/b",
        "a/b c",
        "a/b\n",
        "a/b?x=1",
        "a/b%2e",
        "a/b@",
        "a/b@../x",
        "a/b@x/../y",
        "a/b@/x",
        "a/b@x?y",
        "a/b:",
        "a/b:../x.gguf",
        "a/b:/x.gguf",
        "a/b:x//y.gguf",
        "a/b:x\\y.gguf",
        "a/b:x\u{1b}.gguf",
        "a/b:x.bin/y",
    ] {
        let e = HubName::parse(text).unwrap_err();
        assert!(e.contains("owner/name:FILE.gguf") && !e.contains(['\n', '\u{1b}']), "{e}");
    }
    let long = format!("a/{}", "b".repeat(97));
    assert!(HubName::parse(&long).is_err());
    assert!(is_plain_path("sub/a b.gguf") && !is_plain_path("") && !is_plain_path("a/./b"));
    assert!(is_commit("0123abcd") && !is_commit("") && !is_commit("../x") && !is_commit("a/b"));
    assert!(is_etag("ab-12.x") && !is_etag(".x") && !is_etag("a/b") && !is_etag(""));
}

#[test]
fn the_file_is_the_only_one_or_the_usual_one_or_the_named_one() {
    let all = |files: &[&str]| files.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
    let several = all(&["README.md", "m-Q8_0.gguf", "m-q4_k_m.gguf", "m-IQ4_XS.gguf"]);
    let quantization = |q: &str| Wanted::Quantization(q.to_owned());
    let file = |f: &str| Wanted::File(f.to_owned());
    let split = all(&["m-Q4_K_M-00002-of-00002.gguf", "m-Q4_K_M-00001-of-00002.gguf"]);
    let part = |n: usize| format!("m-Q4_K_M-{n:05}-of-00002.gguf");
    let both = [split.clone(), all(&["m-Q8_0.gguf"])].concat();
    let half = all(&["m-Q4_K_M-00002-of-00002.gguf", "m-Q8_0.gguf"]);
    let doubled = all(&["a/m-Q4_K_M.gguf", "b/m-Q4_K_M.gguf", "m-Q6_K.gguf"]);
    let folder = all(&["config.json", "tokenizer.json", "model.safetensors"]);
    let [first, second] = [part(1), part(2)];
    let parts = &[first.as_str(), second.as_str()][..];
    for (files, wanted, chosen) in [
        (all(&["x.bin", "only.gguf"]), Wanted::Usual, &["only.gguf"][..]),
        (all(&["mmproj-f16.gguf", "only.gguf"]), Wanted::Usual, &["only.gguf"]),
        (several.clone(), Wanted::Usual, &["m-q4_k_m.gguf"]),
        (several.clone(), quantization("q8_0"), &["m-Q8_0.gguf"]),
        (several.clone(), file("m-IQ4_XS.gguf"), &["m-IQ4_XS.gguf"]),
        (all(&["Q8_0/m.gguf", "F16/m.gguf"]), quantization("F16"), &["F16/m.gguf"]),
        (all(&["m.BF16.gguf", "m.F16.gguf"]), quantization("F16"), &["m.F16.gguf"]),
        (all(&["mmproj.gguf"]), file("mmproj.gguf"), &["mmproj.gguf"]),
        (split.clone(), Wanted::Usual, parts),
        (both.clone(), Wanted::Usual, parts),
        (both.clone(), quantization("Q4_K_M"), parts),
        (both.clone(), file(&part(1)), parts),
        (both.clone(), file(&part(2)), parts),
        (half.clone(), Wanted::Usual, &["m-Q8_0.gguf"]),
        (doubled.clone(), Wanted::Usual, &["m-Q6_K.gguf"]),
        (all(&["m-00001-of-00000.gguf"]), Wanted::Usual, &["m-00001-of-00000.gguf"]),
        ([folder.clone(), all(&["m-Q8_0.gguf"])].concat(), Wanted::Usual, &["m-Q8_0.gguf"]),
    ] {
        let chosen = chosen.iter().map(|&file| file.to_owned()).collect();
        assert_eq!(choose(&files, &wanted), Ok(Choice::Gguf(chosen)), "{wanted:?}");
    }
    let unusual = [folder.clone(), all(&["a.gguf", "b.gguf"])].concat();
    for files in [folder.clone(), unusual] {
        assert_eq!(choose(&files, &Wanted::Usual), Ok(Choice::Folder));
    }
    for (files, wanted, part) in [
        (
            all(&["x.bin"]),
            Wanted::Usual,
            "neither a .gguf file nor model.safetensors, but PyTorch's",
        ),
        (all(&["x.txt"]), Wanted::Usual, "neither a .gguf file nor config.json"),
        (folder.clone(), quantization("Q4_K_M"), "but a folder with safetensors: leave out"),
        (
            all(&["a.gguf", "b.gguf"]),
            Wanted::Usual,
            "name one as owner/name:FILE.gguf: a.gguf, b.gguf",
        ),
        (several.clone(), quantization("Q4_K"), "it has m-IQ4_XS.gguf, m-Q8_0.gguf, m-q4_k_m.gguf"),
        (several.clone(), quantization("Q4_XS"), "no .gguf file of \"Q4_XS\""),
        (several.clone(), file("none.gguf"), "no file \"none.gguf\"; it has m-IQ4_XS.gguf"),
        (half.clone(), quantization("Q4_K_M"), "but not its part m-Q4_K_M-00001-of-00002.gguf"),
        (doubled.clone(), quantization("q4_k_m"), "name one: a/m-Q4_K_M.gguf, b/"),
        ((0..20).map(|i| format!("{i}.gguf")).collect(), Wanted::Usual, "19.gguf and 8 more"),
    ] {
        let e = choose(&files, &wanted).unwrap_err();
        assert!(e.contains(part), "{part} not in {e}");
    }
}

#[test]
fn a_folder_is_what_the_loader_reads_of_it() {
    let files = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
    let all = files(&[
        "README.md",
        "chat_template.jinja",
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "other.safetensors",
        "tokenizer.json",
        "tokenizer.model",
    ]);
    let index = |file: &str| {
        format!("{{\"weight_map\": {{\"a\": \"model-1.safetensors\", \"b\": \"{file}\"}}}}")
    };
    let parts = folder::parts(&all, Some(&index("model-2.safetensors"))).unwrap();
    assert!(parts.shards.keys().eq(["model-1.safetensors", "model-2.safetensors"]));
    let small =
        ["config.json", "tokenizer.json", "model.safetensors.index.json", "chat_template.jinja"];
    assert_eq!(parts.small, small);
    for (index, said) in [
        (Some(index("model-3.safetensors")), "has no model-3.safetensors, that its"),
        (Some(index("../../etc/passwd")), "names the file ../../etc/passwd"),
        (Some(index("sub/x.safetensors")), "names the file sub/x.safetensors"),
        (Some(index("..")), "names the file .."),
        (Some(index("pytorch_model.bin")), "names the file pytorch_model.bin"),
        (Some("{}".to_owned()), "cannot be understood"),
        (Some("{\"weight_map\": {}}".to_owned()), "names no file"),
        (None, "has no model.safetensors, without which"),
    ] {
        let e = folder::parts(&all, index.as_deref()).unwrap_err();
        assert!(e.contains(said), "{said} not in {e}");
    }
}

fn place(variables: &[(&str, &str)]) -> Result<Place, String> {
    let get = |name: &str| {
        variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
    };
    Place::from_variables(get)
}

#[test]
fn the_variables_are_those_of_the_hubs_own_tools() {
    let usual = place(&[("HOME", "/u")]).unwrap();
    assert_eq!(usual.cache, Path::new("/u/.cache/huggingface/hub"));
    assert_eq!(usual.endpoint.url, "https://huggingface.co");
    assert!(!usual.is_offline);
    let cache = |variables: &[(&str, &str)]| place(variables).unwrap().cache;
    let caches = ("XDG_CACHE_HOME", "/c");
    assert_eq!(cache(&[("HOME", "/u"), caches]), Path::new("/c/huggingface/hub"));
    assert_eq!(cache(&[("HOME", "/u"), caches, ("HF_HOME", "~/h")]), Path::new("/u/h/hub"));
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/x")]), Path::new("/x"));
    assert!(place(&[("HF_HUB_OFFLINE", "Yes")]).unwrap().is_offline);
    assert!(!place(&[("HF_HUB_OFFLINE", "0")]).unwrap().is_offline);
    let mirror = place(&[("HF_ENDPOINT", "http://[::1]:8080/hub/")]).unwrap().endpoint;
    assert_eq!(mirror.url, "http://[::1]:8080/hub");
    assert!(mirror.origin.is_loopback());
    let plain = ["huggingface.co", "ftp://x", "https://", "https://x/?a", "https://x/#a", "/x"];
    let ports = ["http://h:65536", "https://h:0", "http://[::1]:99999/x"];
    for wrong in plain.into_iter().chain(ports) {
        assert!(place(&[("HF_ENDPOINT", wrong)]).unwrap_err().contains("HF_ENDPOINT"), "{wrong}");
    }
    let at_home = |path: &str| cache(&[("HOME", "/u/"), ("X_1", "x"), ("HF_HUB_CACHE", path)]);
    for (path, there) in [
        ("~", "/u"),
        ("~/~/c", "/u/~/c"),
        ("/$X_1/${X_1}y/$X_1.z", "/x/xy/x.z"),
        ("/$/$-/${}/${X_1/$NO/${NO}", "/$/$-/${}/${X_1/$NO/${NO}"),
        ("$X_1~", "x~"),
    ] {
        assert_eq!(at_home(path), Path::new(there), "{path}");
    }
    for wrong in ["~", "~/c", "~root/c"] {
        assert!(place(&[("HF_HOME", wrong)]).unwrap_err().starts_with("HF_HOME: "), "{wrong}");
    }
    let secret = place(&[("HF_ENDPOINT", "https://me:canary@mirror.example")]).unwrap_err();
    assert!(!secret.contains("canary"), "{secret}");
}

#[test]
fn row_32_a_token_goes_over_plain_http_to_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "hf_canary\n").unwrap();
    let file = file.to_str().unwrap();
    let at = |endpoint: &str| {
        place(&[("HF_TOKEN_PATH", file), ("HF_ENDPOINT", endpoint)]).unwrap().authorization()
    };
    for fine in ["https://mirror.example", "http://127.0.0.1:1", "http://localhost", "http://[::1]"]
    {
        assert!(at(fine).unwrap().unwrap().is_sensitive(), "{fine}");
    }
    for open in ["http://mirror.example", "http://localhost.example", "http://128.0.0.1"] {
        let e = at(open).unwrap_err().to_string();
        assert!(e.contains("in clear") && !e.contains("canary"), "{e}");
    }
    fs::write(file, "hf canary").unwrap();
    let e = at("https://mirror.example").unwrap_err().to_string();
    assert!(e.contains("visible ASCII") && !e.contains("canary"), "{e}");
    fs::write(file, " \n").unwrap();
    assert_eq!(at("http://mirror.example").unwrap(), None);
}

#[test]
fn row_32_redirects_lead_to_the_web_and_never_out_of_encryption() {
    let lead = |from: &str, to: &str| {
        let from: Uri = from.parse().unwrap();
        let location = HeaderValue::from_str(to).unwrap();
        redirected(&from, &Origin::of(&from).unwrap(), Some(&location))
    };
    for (from, to, there) in [
        ("https://h/a", "/b?c=d", "https://h/b?c=d"),
        ("http://h:81/a", "/b", "http://h:81/b"),
        ("https://h/a", "//s/b", "https://s/b"),
        ("https://h/a", "https://s:1/b", "https://s:1/b"),
        ("http://h/a", "https://h/b", "https://h/b"),
    ] {
        assert_eq!(lead(from, to).unwrap(), there);
    }
    for (from, to, part) in [
        ("https://h/a", "http://h/a", "encrypted connection to a plain one"),
        ("http://h/a", "file:///etc/passwd", "no address of the web"),
        ("http://h/a", "ftp://h/a", "no address of the web"),
        ("http://h/a", "http://me:pw@h/a", "no address of the web"),
        ("http://h/a", "b", "no address of the web"),
        ("http://h/a", "", "no address of the web"),
    ] {
        let Fault::Final(e) = lead(from, to).unwrap_err() else { panic!("{to} may pass") };
        assert!(e.to_string().contains(part), "{e}");
    }
    let origin = |uri: &str| Origin::of(&uri.parse().unwrap()).unwrap();
    assert_eq!(origin("https://H.example/a"), origin("https://h.example:443/b"));
    assert_ne!(origin("https://h.example"), origin("https://h.example:444"));
    assert_ne!(origin("https://h.example:80"), origin("http://h.example:80"));
}

#[test]
fn the_cache_is_that_of_the_hubs_own_tools() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path(), &name("a/b"));
    let root = folder.path().join("models--a--b");
    assert_eq!(cache.commit("main"), None);
    fs::write(cache.blobs().unwrap().join("e1"), "one").unwrap();
    let path = cache.link("c1", "sub/m.gguf", "e1").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    assert_eq!(
        fs::read_link(root.join("snapshots/c1/sub/m.gguf")).unwrap(),
        Path::new("../../../blobs/e1")
    );
    // Whose content is gone, or no model.
    cache.link("c1", "gone.gguf", "e2").unwrap();
    fs::write(root.join("snapshots/c1/README.md"), "x").unwrap();
    assert_eq!(cache.files("c1"), ["sub/m.gguf"]);
    fs::write(root.join("blobs/e2"), "two").unwrap();
    cache.link("c1", "sub/m.gguf", "e2").unwrap();
    assert_eq!(fs::read_to_string(cache.find("c1", "sub/m.gguf").unwrap()).unwrap(), "two");
    for commit in ["c1", "c2"] {
        cache.note("refs/pr/1", commit).unwrap();
        assert_eq!(fs::read_to_string(root.join("refs/refs/pr/1")).unwrap(), commit);
        assert_eq!(cache.commit("refs/pr/1").as_deref(), Some(commit));
    }
    // A file in the cache may be as hostile as anything else.
    fs::write(root.join("refs/main"), "../../..").unwrap();
    assert_eq!(cache.commit("main"), None);
    assert_eq!(cache.commit("c1").as_deref(), Some("c1"));
    let left: Vec<_> = fs::read_dir(root.join("snapshots/c1/sub")).unwrap().collect();
    assert_eq!(left.len(), 1);
}

#[test]
fn row_32_a_full_disk_is_said_with_what_is_kept() {
    let of = |e| full(Path::new("/c/x.incomplete"), 1_500_000, 9_000_000, &std::io::Error::from(e));
    let e = of(std::io::ErrorKind::StorageFull).unwrap().to_string();
    assert!(e.contains("no space left on the disk at 2 of 9 MB"), "{e}");
    assert!(e.contains("/c/x.incomplete"), "{e}");
    assert!(of(std::io::ErrorKind::QuotaExceeded).is_some());
    assert_eq!(of(std::io::ErrorKind::PermissionDenied), None);
}
