//! `traceparent` and `tracestate` (W3C Trace Context): which trace a request is part of.

use http::HeaderMap;
use http::header::HeaderName;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-<32 digits>-<16 digits>-<2 digits>`.
const TRACEPARENT_CHARS: usize = 55;

/// The longest that has to be passed on.
const TRACESTATE_BYTES_MAX: usize = 512;

const SAMPLED: u8 = 1;

/// Where a request stands in its caller's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceContext {
    /// Not 0.
    pub(super) trace_id: u128,
    /// The caller's span; not 0.
    pub(super) parent_id: u64,
    /// The caller records its part.
    pub(super) sampled: bool,
    /// What vendors add, for whoever the spans go to; empty for nothing.
    pub(super) state: String,
}

/// That of a request. A header that is not as the standard has it is as good as none, and so are two.
pub(super) fn read(headers: &HeaderMap) -> Option<TraceContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (trace_id, parent_id, flags) = parse(value.as_bytes())?;
    let sampled = flags & SAMPLED != 0;
    Some(TraceContext { trace_id, parent_id, sampled, state: state(headers) })
}

/// Trace id, parent id and flags.
fn parse(value: &[u8]) -> Option<(u128, u64, u8)> {
    let (known, rest) = value.split_at_checked(TRACEPARENT_CHARS)?;
    let mut parts = known.split(|&b| b == b'-');
    let mut next = |digits| number(parts.next()?, digits);
    let (version, trace_id, parent_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    // Later versions may say more, but not less, and not without a dash.
    let as_long = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    let parent_id = u64::try_from(parent_id).ok()?;
    let flags = u8::try_from(flags).ok()?;
    (as_long && trace_id != 0 && parent_id != 0).then_some((trace_id, parent_id, flags))
}

/// So many hexadecimal digits, none of them a capital.
fn number(digits: &[u8], count: usize) -> Option<u128> {
    let fit =
        digits.len() == count && digits.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| fit)?, 16).ok()
}

/// All headers of that name as one list. One that is too long, or no visible ASCII, is left out: the trace goes
/// on without it.
fn state(headers: &HeaderMap) -> String {
    let values: Option<Vec<&str>> =
        headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect();
    let state = values.unwrap_or_default().join(",");
    if state.len() <= TRACESTATE_BYTES_MAX { state } else { String::new() }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_standard_allows_is_read() {
        let (trace, parent) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);
        assert_eq!(parse(GOOD.as_bytes()), Some((trace, parent, 1)));
        let later = GOOD.replacen("00", "cc", 1);
        for (text, flags) in [
            (GOOD.replace("-01", "-00"), 0),
            (GOOD.replace("-01", "-ff"), 0xff),
            (later.clone(), 1),
            (format!("{later}-what-will-be"), 1),
            (format!("{later}-"), 1),
        ] {
            assert_eq!(parse(text.as_bytes()), Some((trace, parent, flags)), "{text}");
        }
    }

    #[test]
    fn nothing_else_is() {
        let later = GOOD.replacen("00", "cc", 1);
        for text in [
            String::new(),
            "00".into(),
            GOOD.to_uppercase(),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0", 1),
            GOOD.replacen('-', "_", 1),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("b7ad", "b7ag"),
            GOOD.replace("b7ad", "+7ad"),
            GOOD.replace("b7ad", "é7a"),
            GOOD[..54].into(),
            format!("{GOOD}-"),
            format!("{GOOD}0"),
            format!(" {GOOD}"),
            format!("{later}0"),
            "-".repeat(55),
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    fn context(pairs: &[(HeaderName, &str)]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        read(&headers)
    }

    #[test]
    fn one_parent_and_all_states_count() {
        assert_eq!(context(&[]), None);
        assert_eq!(context(&[(TRACESTATE, "a=1")]), None);
        assert_eq!(context(&[(TRACEPARENT, GOOD), (TRACEPARENT, GOOD)]), None);
        let state = |pairs: &[(HeaderName, &str)]| {
            context(&[&[(TRACEPARENT, GOOD)], pairs].concat()).unwrap().state
        };
        assert_eq!(state(&[]), "");
        assert_eq!(state(&[(TRACESTATE, "a=1,b=2"), (TRACESTATE, "c=3")]), "a=1,b=2,c=3");
        assert_eq!(state(&[(TRACESTATE, &format!("a={}", "1".repeat(510)))]).len(), 512);
        assert_eq!(state(&[(TRACESTATE, &format!("a={}", "1".repeat(511)))]), "");
        assert_eq!(state(&[(TRACESTATE, "a=é")]), "");
    }
}
