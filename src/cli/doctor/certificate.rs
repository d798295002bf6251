//! From when to when a certificate holds. rustls does not tell, and the rest of X.509 is not needed for it.

use time::OffsetDateTime;
use time::PrimitiveDateTime;
use time::macros::format_description;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first and last moment of a certificate in DER form; `None` for what is none.
pub(super) fn validity(der: &[u8]) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let (certificate, _) = of(SEQUENCE, der)?;
    let (mut rest, _) = of(SEQUENCE, certificate)?;
    if let Some((_, behind)) = of(VERSION, rest) {
        rest = behind;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (validity, _) = of(SEQUENCE, rest)?;
    let (first, behind) = moment(validity)?;
    Some((first, moment(behind)?.0))
}

/// Tag, content, and what comes behind it (X.690 section 8.1, the definite forms).
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let mut len = usize::from(short);
    if short & 0x80 != 0 {
        let (long, behind) = rest.split_at_checked(usize::from(short & 0x7f))?;
        len =
            long.iter().try_fold(0_usize, |len, &b| len.checked_mul(256)?.checked_add(b.into()))?;
        rest = behind;
    }
    let (content, behind) = rest.split_at_checked(len)?;
    Some((tag, content, behind))
}

fn of(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes)
        .filter(|(found, _, _)| *found == tag)
        .map(|(_, content, behind)| (content, behind))
}

/// A time (RFC 5280 section 4.1.2.5): years of two digits are 1950 to 2049.
fn moment(bytes: &[u8]) -> Option<(OffsetDateTime, &[u8])> {
    let (tag, content, behind) = element(bytes)?;
    let text = std::str::from_utf8(content).ok()?;
    let full = match tag {
        UTC_TIME => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let form = format_description!("[year][month][day][hour][minute][second]Z");
    Some((PrimitiveDateTime::parse(&full, form).ok()?.assume_utc(), behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moments_are_those_of_the_certificate() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2061, 3, 4);
        let key = rcgen::KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let (first, last) = validity(&der).unwrap();
        assert_eq!((first.year(), first.ordinal()), (2024, 60));
        assert_eq!((last.year(), last.month() as u8, last.day()), (2061, 3, 4));
        // Cut or changed anywhere, it is a certificate or none, and no panic.
        for i in 0..der.len() {
            let _ = validity(&der[..i]);
            let mut broken = der.clone();
            broken[i] ^= 0x85;
            let _ = validity(&broken);
        }
        assert_eq!(validity(&der[..200]), None);
    }
}
