//! Reading one value: text to a bounded type. An error is the accepted form, as the end of the
//! sentence "… is not …".

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::layers::Raw;
use super::nearest::nearest;

/// What a parser says: the value, or what would have been accepted.
pub(crate) type Parsed<T> = Result<T, String>;

pub(crate) fn text(raw: &Raw) -> Parsed<&str> {
    match raw {
        Raw::Text(text) => Ok(text.trim()),
        Raw::List(_) => Err("a single value".to_owned()),
    }
}

/// `true` or `false`; `1` and `0` too, which container files like.
pub(crate) fn switch(raw: &Raw) -> Parsed<bool> {
    match text(raw)? {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// An IP address, or `localhost`.
pub(crate) fn host(raw: &Raw) -> Parsed<Option<IpAddr>> {
    let text = text(raw)?;
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let form = "an IP address such as 127.0.0.1, 0.0.0.0 or ::1, or localhost";
    bare.parse().map(Some).map_err(|_| form.to_owned())
}

/// An IP address or `localhost`, and a port; nothing for none.
pub(crate) fn listen(raw: &Raw) -> Parsed<Option<SocketAddr>> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    let form = || "an address and a port such as 127.0.0.1:9000".to_owned();
    let (ip, port) = text.rsplit_once(':').ok_or_else(form)?;
    // Without brackets, the last part of an IPv6 address would be taken for a port.
    if ip.contains(':') && !ip.starts_with('[') {
        return Err(form());
    }
    let ip = host(&Raw::Text(ip.to_owned())).map_err(|_| form())?.ok_or_else(form)?;
    Ok(Some(SocketAddr::new(ip, port.parse().map_err(|_| form())?)))
}

/// A port number.
pub(crate) fn port(raw: &Raw) -> Parsed<u16> {
    text(raw)?.parse().map_err(|_| "a port number from 0 to 65535".to_owned())
}

/// A whole number; `_` may part its digits.
pub(crate) fn count(bounds: RangeInclusive<u64>) -> impl Fn(&Raw) -> Parsed<u64> {
    move |raw| {
        let form = || format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let digits = text(raw)?.replace('_', "");
        let number: u64 = digits.parse().map_err(|_| form())?;
        if bounds.contains(&number) { Ok(number) } else { Err(form()) }
    }
}

/// `auto` for none, else what `inner` reads.
pub(crate) fn auto<T>(inner: impl Fn(&Raw) -> Parsed<T>) -> impl Fn(&Raw) -> Parsed<Option<T>> {
    move |raw| {
        if text(raw)? == "auto" {
            return Ok(None);
        }
        inner(raw).map(Some).map_err(|form| format!("auto or {form}"))
    }
}

/// Bytes: a number and a unit, `KiB MiB GiB TiB` by 1,024 (`K M G T` mean the same), `kB MB GB TB` by
/// 1,000; a bare number is bytes.
pub(crate) fn size(raw: &Raw) -> Parsed<u64> {
    let form = || "a size such as 2GiB, 512MB or 1048576 (bytes)".to_owned();
    let text = text(raw)?.replace('_', "");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(form()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).filter(|&n| n > 0).ok_or_else(form);
    }
    let bytes = number.parse::<f64>().map_err(|_| form())? * unit as f64;
    if (1.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(form()) }
}

/// Seconds, with a fraction if need be.
pub(crate) fn seconds(bounds: RangeInclusive<f64>) -> impl Fn(&Raw) -> Parsed<Duration> {
    move |raw| {
        let form = || format!("a number of seconds from {} to {}", bounds.start(), bounds.end());
        let number: f64 = text(raw)?.parse().map_err(|_| form())?;
        if bounds.contains(&number) { Ok(Duration::from_secs_f64(number)) } else { Err(form()) }
    }
}

/// A path; empty for none.
pub(crate) fn path(raw: &Raw) -> Parsed<Option<PathBuf>> {
    let text = text(raw)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// Any non-empty text.
pub(crate) fn non_empty(raw: &Raw) -> Parsed<String> {
    let text = text(raw)?;
    if text.is_empty() { Err("a non-empty text".to_owned()) } else { Ok(text.to_owned()) }
}

/// One of a few words.
pub(crate) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Raw) -> Parsed<T> {
    move |raw| {
        let text = text(raw)?;
        let known = || words.iter().map(|(word, _)| *word);
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let list = known().collect::<Vec<_>>().join(", ");
        match nearest(text, known()) {
            Some(near) => Err(format!("one of {list}; the nearest is {near}")),
            None => Err(format!("one of {list}")),
        }
    }
}

/// Strings, parted by commas where they come as one text.
fn list(raw: &Raw) -> Vec<String> {
    match raw {
        Raw::List(items) => items.iter().map(|i| i.trim().to_owned()).collect(),
        Raw::Text(text) if text.trim().is_empty() => Vec::new(),
        Raw::Text(text) => text.split(',').map(|i| i.trim().to_owned()).collect(),
    }
}

/// Names that a model answers to, without repetitions.
pub(crate) fn names(raw: &Raw) -> Parsed<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in list(raw) {
        if name.is_empty() || name.len() > 256 || name.chars().any(char::is_control) {
            return Err("a list of names, each of 1 to 256 bytes without control characters".into());
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// As [`names`]; the one word `none` is no names.
pub(crate) fn names_or_none(raw: &Raw) -> Parsed<Vec<String>> {
    let names = names(raw)?;
    Ok(if names == ["none"] { Vec::new() } else { names })
}

/// Origins: `*`, or scheme, host and maybe port, with nothing behind.
pub(crate) fn origins(raw: &Raw) -> Parsed<Vec<String>> {
    let origins = list(raw);
    let fine = |origin: &String| {
        let Some((scheme, rest)) = origin.split_once("://") else { return origin == "*" };
        !scheme.is_empty()
            && !rest.is_empty()
            && !rest.contains(['/', '?', '#', '@', ' '])
            && origin.bytes().all(|b| b.is_ascii_graphic())
    };
    if origins.iter().all(fine) {
        return Ok(origins);
    }
    Err("a list of origins such as https://app.example.com or http://localhost:3000, or *"
        .to_owned())
}

/// An address of the web without a name and password in it; empty for none.
pub(crate) fn url(raw: &Raw) -> Parsed<Option<String>> {
    let text = text(raw)?;
    if text.is_empty() {
        return Ok(None);
    }
    let fine = |uri: http::Uri| {
        let authority = uri.authority()?;
        let web = matches!(uri.scheme_str(), Some("http" | "https"));
        // Anything behind the host is a port, and none is above 65535.
        let port =
            authority.as_str().len() == authority.host().len() || authority.port_u16().is_some();
        (web && port && uri.query().is_none() && !authority.as_str().contains('@')).then_some(())
    };
    text.parse().ok().and_then(fine).map(|()| Some(text.to_owned())).ok_or_else(|| {
        "an address such as http://127.0.0.1:4318, without a name or password in it".to_owned()
    })
}

const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A level, or directives `target=level` with commas between.
pub(crate) fn log_level(raw: &Raw) -> Parsed<String> {
    let text = text(raw)?;
    for directive in text.split(',') {
        let (target, level) = match directive.trim().split_once('=') {
            Some((target, level)) => (target, level),
            None => ("any", directive.trim()),
        };
        if target.is_empty() || !LEVELS.contains(&level) {
            let near = nearest(level, LEVELS.into_iter());
            let near = near.map(|n| format!("; the nearest is {n}")).unwrap_or_default();
            return Err(format!("a level ({}) or target=level{near}", LEVELS.join(", ")));
        }
    }
    Ok(text.to_owned())
}
