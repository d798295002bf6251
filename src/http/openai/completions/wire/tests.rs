use super::*;
use crate::text::Text;

fn rules(tokens_as_ids: bool) -> Rules {
    Rules { tokens_as_ids, ..Rules::plain(Text::fake(270)) }
}

fn logprobs(own: f32, top: &[(TokenId, f32)]) -> Logprobs {
    Logprobs { own, rank: 5, top: top.to_vec() }
}

#[test]
fn the_tokens_own_entry_is_always_there_with_the_same_bits() {
    let rules = rules(false);
    let [a, b, c] = ["a", "b", "c"].map(|t| rules.text.encode(t, false, false)[0]);
    let own = -1.234_567_9;
    // Among the top, the value of the position wins over a rounded twin.
    let inside = top(&rules, a, &logprobs(own, &[(a, own), (b, -2.0)]));
    assert_eq!(inside.0, [("a".to_owned(), own), ("b".to_owned(), -2.0)]);
    let outside = top(&rules, c, &logprobs(-9.5, &[(a, -0.5), (b, -2.0)]));
    assert_eq!(outside.0.len(), 3);
    assert_eq!(outside.0[2], ("c".to_owned(), -9.5));
    let none = top(&rules, c, &logprobs(-9.5, &[]));
    assert_eq!(none.0, [("c".to_owned(), -9.5)]);
    let infinite = top(&rules, c, &logprobs(f32::NEG_INFINITY, &[]));
    assert_eq!(infinite.0, [("c".to_owned(), LOGPROB_MIN)]);
    let json = serde_json::to_value(&inside).unwrap();
    let body = LogprobsBody { token_logprobs: vec![Some(own)], ..LogprobsBody::default() };
    assert_eq!(json["a"], serde_json::to_value(&body).unwrap()["token_logprobs"][0]);
}

#[test]
fn tokens_can_be_shown_as_ids() {
    let top = top(&rules(true), 7, &logprobs(-1.0, &[(9, -0.5)]));
    assert_eq!(top.0, [("token_id:9".to_owned(), -0.5), ("token_id:7".to_owned(), -1.0)]);
}
