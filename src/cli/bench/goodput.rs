//! Goodput: requests that kept to what was promised, per second.

use serde::{Deserialize, Serialize};

use super::answer::Answer;

/// Longest times, in milliseconds. A request is good if it keeps to all that are there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names in the saved file")]
pub(super) struct Targets {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ttft_ms: Option<f64>,
    /// Of each gap in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) itl_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tpot_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) e2e_ms: Option<f64>,
}

impl Targets {
    /// `ttft=500,itl=50`; vLLM's colons and `e2el` are taken, too.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut targets = Self::default();
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let form = || format!("{part:?} is not like ttft=500 (milliseconds)");
            let (name, limit) = part.split_once(['=', ':']).ok_or_else(form)?;
            let limit = limit.parse().ok().filter(|l: &f64| l.is_finite() && *l > 0.0);
            let limit = limit.ok_or_else(form)?;
            let place = match name {
                "ttft" => &mut targets.ttft_ms,
                "itl" => &mut targets.itl_ms,
                "tpot" => &mut targets.tpot_ms,
                "e2e" | "e2el" => &mut targets.e2e_ms,
                _ => return Err(format!("{name:?} is none of ttft, itl, tpot and e2e")),
            };
            if place.replace(limit).is_some() {
                return Err(format!("{name} has two targets"));
            }
        }
        if targets == Self::default() {
            return Err("give at least one target, such as ttft=500".to_owned());
        }
        Ok(targets)
    }

    pub(super) fn is_met(&self, answer: &Answer) -> bool {
        let keeps = |limit_ms: Option<f64>, s: f64| limit_ms.is_none_or(|limit| s * 1e3 <= limit);
        keeps(self.ttft_ms, answer.ttft_s)
            && keeps(self.itl_ms, answer.gap_max_s())
            && keeps(self.tpot_ms, answer.tpot_s().unwrap_or(0.0))
            && keeps(self.e2e_ms, answer.e2e_s)
    }
}

impl std::fmt::Display for Targets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [
            ("TTFT", self.ttft_ms),
            ("ITL", self.itl_ms),
            ("TPOT", self.tpot_ms),
            ("E2E", self.e2e_ms),
        ];
        let parts = all.iter().filter_map(|(name, ms)| ms.map(|ms| format!("{name} <= {ms} ms")));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Targets};

    #[test]
    fn a_request_is_good_if_it_keeps_to_all() {
        // Five tokens: TTFT 100 ms, then 10, 40 and 10 ms, and the end with the last.
        let gaps_s = vec![0.010, 0.040, 0.010];
        let answer = Answer { ttft_s: 0.1, e2e_s: 0.16, gaps_s, chunks: 4, usage: None };
        let is_met = |text: &str| Targets::parse(text).unwrap().is_met(&answer);
        assert!(is_met("ttft=100"));
        assert!(!is_met("ttft=99"));
        assert!(
            is_met("itl=40,ttft=100") && !is_met("itl=39,ttft=100") && !is_met("itl=40,ttft=9")
        );
        // The mean of the three.
        assert!(is_met("tpot:20.1 e2el:160") && !is_met("tpot:19.9") && !is_met("e2e=159"));
    }

    #[test]
    fn targets_have_a_form() {
        for wrong in
            ["", "ttft", "ttft=", "ttft=-1", "ttft=nan", "speed=3", "ttft=1,,itl=x", "e2e=1,e2el=2"]
        {
            assert!(Targets::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(
            Targets::parse("ttft=500,itl=50").unwrap().to_string(),
            "TTFT <= 500 ms, ITL <= 50 ms"
        );
    }
}
