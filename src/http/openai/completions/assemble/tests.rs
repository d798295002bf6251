use proptest::prelude::*;

use super::*;

const VOCAB: usize = 270;

fn rules(stops: &[&str]) -> Arc<Rules> {
    Arc::new(Rules {
        text: Text::fake(VOCAB),
        stops: (!stops.is_empty()).then(|| StopSet::new(stops).unwrap()),
        logprobs: true,
        tokens_as_ids: false,
        min_tokens: 0,
    })
}

/// The token that stands for exactly these bytes.
fn id(bytes: &[u8]) -> TokenId {
    let text = Text::fake(VOCAB);
    (0..VOCAB as TokenId).find(|&id| text.token_bytes(id) == bytes).unwrap()
}

fn logprobs(own: f32, top: &[(TokenId, f32)]) -> Logprobs {
    Logprobs { own, top: top.to_vec() }
}

fn token(token: TokenId) -> TokenEvent {
    TokenEvent { choice: 0, token, logprobs: Some(logprobs(-1.0, &[])), is_end: false }
}

/// All deltas as one.
fn joined(deltas: impl IntoIterator<Item = Delta>) -> Delta {
    deltas.into_iter().fold(Delta::default(), |mut all, delta| {
        all.append(delta);
        all
    })
}

#[test]
fn a_character_in_three_tokens_has_one_offset() {
    let mut choice = ChoiceState::new(rules(&[]), None);
    let ids = [id(b"\xf0\x9f"), id(b"\x98"), id(b"\x80"), id(b"a")];
    let texts: Vec<Delta> = ids.iter().map(|&t| choice.token(&token(t))).collect();
    let pieces: Vec<&str> = texts.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(pieces, ["", "", "😀", "a"]);
    let all = joined(texts);
    assert_eq!(all.logprobs.text_offset, [0, 0, 0, 1]);
    assert_eq!(all.logprobs.tokens[0], "bytes:\\xf0\\x9f");
    assert_eq!(choice.generated, 4);
}

#[test]
fn what_was_cut_off_is_flushed_at_the_end_only() {
    let mut choice = ChoiceState::new(rules(&[]), None);
    assert_eq!(choice.token(&token(id(b"\xf0\x9f"))).text, "");
    let end = choice.finish(FinishReason::Length);
    assert_eq!((end.text.as_str(), end.finish), ("\u{fffd}", Some(FinishReason::Length)));
}

#[test]
fn a_stop_string_never_shows_and_its_tokens_keep_their_offsets() {
    let mut choice = ChoiceState::new(rules(&["END"]), None);
    let ids = [id(b"x"), id(b"E"), id(b"N"), id(b"D")];
    let deltas: Vec<Delta> = ids.iter().map(|&t| choice.token(&token(t))).collect();
    assert_eq!(deltas[0].text, "x");
    assert!(deltas[1..].iter().all(|d| d.text.is_empty()));
    assert_eq!(choice.finish(FinishReason::Stop).text, "");
    assert_eq!(joined(deltas).logprobs.text_offset, [0, 1, 2, 3]);
    // A beginning that came to nothing is text after all.
    let mut choice = ChoiceState::new(rules(&["END"]), None);
    let deltas = [id(b"E"), id(b"N")].map(|t| choice.token(&token(t)));
    assert!(deltas.iter().all(|d| d.text.is_empty()));
    assert_eq!(choice.finish(FinishReason::Length).text, "EN");
}

#[test]
fn min_tokens_protects_what_comes_before() {
    let rules = Arc::new(Rules { min_tokens: 2, ..(*rules(&["x"])).clone() });
    let mut choice = ChoiceState::new(rules, None);
    let texts = [id(b"x"), id(b"x")].map(|t| choice.token(&token(t)).text);
    assert_eq!(texts, ["x", ""]);
}

#[test]
fn the_end_token_counts_and_is_listed_but_has_no_text() {
    let mut choice = ChoiceState::new(rules(&[]), None);
    let mut all = choice.token(&token(id(b"a")));
    all.append(choice.token(&TokenEvent { is_end: true, ..token(0) }));
    all.append(choice.finish(FinishReason::Stop));
    assert_eq!(all.text, "a");
    assert_eq!(all.logprobs.tokens.len(), 2);
    assert_eq!(all.logprobs.tokens[1], Text::fake(VOCAB).token_label(0));
    assert_eq!(all.logprobs.text_offset, [0, 1]);
    assert_eq!(choice.generated, 2);
}

#[test]
fn the_tokens_own_entry_is_always_there_with_the_same_bits() {
    let rules = rules(&[]);
    let (a, b, c) = (id(b"a"), id(b"b"), id(b"c"));
    let own = -1.234_567_9;
    // Among the top, the value of the position wins over a rounded twin.
    let inside = rules.top(a, &logprobs(own, &[(a, own), (b, -2.0)]));
    assert_eq!(inside.0, [("a".to_owned(), own), ("b".to_owned(), -2.0)]);
    let outside = rules.top(c, &logprobs(-9.5, &[(a, -0.5), (b, -2.0)]));
    assert_eq!(outside.0.len(), 3);
    assert_eq!(outside.0[2], ("c".to_owned(), -9.5));
    let none = rules.top(c, &logprobs(-9.5, &[]));
    assert_eq!(none.0, [("c".to_owned(), -9.5)]);
    let infinite = rules.top(c, &logprobs(f32::NEG_INFINITY, &[]));
    assert_eq!(infinite.0, [("c".to_owned(), LOGPROB_MIN)]);
    let json = serde_json::to_value(&inside).unwrap();
    let body = LogprobsBody { token_logprobs: vec![Some(own)], ..LogprobsBody::default() };
    assert_eq!(json["a"], serde_json::to_value(&body).unwrap()["token_logprobs"][0]);
}

#[test]
fn tokens_can_be_shown_as_ids() {
    let rules = Rules { tokens_as_ids: true, ..(*rules(&[])).clone() };
    let top = rules.top(7, &logprobs(-1.0, &[(9, -0.5)]));
    assert_eq!(top.0, [("token_id:9".to_owned(), -0.5), ("token_id:7".to_owned(), -1.0)]);
}

#[test]
fn an_echoed_prompt_comes_first_and_moves_the_offsets() {
    let rules = rules(&[]);
    let ids: Arc<[TokenId]> = [id("é".as_bytes()), id(b"b"), id(b"\xf0\x9f")].into();
    let echo = Arc::new(Echo::new(&rules.text, ids, false));
    assert_eq!(echo.text, "éb");
    let mut choice = ChoiceState::new(rules, Some(echo));
    let first = choice.prompt(&[None, Some(logprobs(-1.5, &[]))]);
    assert_eq!(first.text, "éb");
    assert_eq!(first.logprobs.token_logprobs, [None, Some(-1.5)]);
    assert_eq!(first.logprobs.top_logprobs[0], None);
    let second = choice.prompt(&[Some(logprobs(-2.5, &[]))]);
    assert_eq!(second.text, "", "it may go on");
    let last = choice.token(&token(id(b"c")));
    assert_eq!(last.text, "\u{fffd}c");
    assert_eq!(joined([first, second, last]).logprobs.text_offset, [0, 1, 2, 3]);
}

#[test]
fn an_echo_without_scores_comes_with_whatever_comes_first() {
    let plain = Arc::new(Rules { logprobs: false, ..(*rules(&[])).clone() });
    let ids: Arc<[TokenId]> = [id(b"a"), id(b"b")].into();
    let echo = Arc::new(Echo::new(&plain.text, ids, false));
    let mut choice = ChoiceState::new(plain.clone(), Some(echo.clone()));
    let delta = choice.token(&token(id(b"c")));
    assert_eq!((delta.text.as_str(), delta.logprobs.is_empty()), ("abc", true));
    assert_eq!(choice.token(&token(id(b"d"))).text, "d");
    let mut choice = ChoiceState::new(plain, Some(echo));
    assert_eq!(choice.finish(FinishReason::Length).text, "ab");
}

#[test]
fn a_character_that_the_prompt_begins_is_whole_when_the_answer_ends_it() {
    let rules = rules(&["😀!"]);
    let ids: Arc<[TokenId]> = [id(b"b"), id(b"\xf0\x9f")].into();
    let echo = || Some(Arc::new(Echo::new(&rules.text, ids.clone(), false)));
    let mut choice = ChoiceState::new(rules.clone(), echo());
    let mut all = choice.prompt(&[None, None]);
    for t in [id(b"\x98"), id(b"\x80"), id(b"?")] {
        all.append(choice.token(&token(t)));
    }
    assert_eq!(all.text, "b😀?");
    assert_eq!(all.logprobs.text_offset, [0, 1, 1, 1, 2]);
    // The prompt alone.
    let mut choice = ChoiceState::new(rules.clone(), echo());
    assert_eq!(choice.finish(FinishReason::Length).text, "b\u{fffd}");
    // A stop string may end the character too.
    let mut choice = ChoiceState::new(rules.clone(), echo());
    let mut watch =
        rules.stops.as_ref().unwrap().watch(&rules.text, Echo::detokenizer(echo().as_deref()));
    let ids = [id(b"\x98"), id(b"\x80"), id(b"!")];
    let text: String = ids.iter().map(|&t| choice.token(&token(t)).text).collect();
    assert_eq!(text, "b");
    assert_eq!(ids.map(|t| watch.is_stop(t)), [false, false, true]);
}

#[test]
fn a_bos_that_we_added_is_listed_but_not_echoed() {
    let text = Text::fake(VOCAB);
    let echo = Echo::new(&text, [1, id(b"a"), id(b"b")].into(), true);
    assert_eq!((echo.text.as_str(), &echo.offsets[..]), ("ab", &[0, 0, 1][..]));
    let sent = Echo::new(&text, [1, id(b"a")].into(), false);
    assert!(sent.text.ends_with('a') && sent.text.len() > 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However a prompt is cut into events, its pieces are its text, and every token's offset points
    /// at its text in what was returned.
    #[test]
    fn pieces_and_offsets_agree(
        prompt in prop::collection::vec(0..VOCAB as TokenId, 1..12),
        cut in 0usize..12,
        generated in prop::collection::vec(3..VOCAB as TokenId, 0..12),
    ) {
        let rules = rules(&[]);
        let echo = Arc::new(Echo::new(&rules.text, prompt.clone().into(), false));
        let mut choice = ChoiceState::new(rules.clone(), Some(echo.clone()));
        let cut = cut.min(prompt.len());
        let scores = vec![None; prompt.len()];
        let mut all = choice.prompt(&scores[..cut]);
        all.append(choice.prompt(&scores[cut..]));
        for &t in &generated {
            all.append(choice.token(&token(t)));
        }
        all.append(choice.finish(FinishReason::Length));
        let bytes: Vec<&[u8]> =
            prompt.iter().chain(&generated).map(|&t| rules.text.token_bytes(t)).collect();
        let bytes = bytes.concat();
        prop_assert_eq!(&all.text, &String::from_utf8_lossy(&bytes));
        let offsets = &all.logprobs.text_offset;
        prop_assert_eq!(offsets.len(), prompt.len() + generated.len());
        prop_assert!(offsets.is_sorted());
        let chars: Vec<char> = all.text.chars().collect();
        let ids = prompt.iter().chain(&generated);
        for (&offset, &t) in offsets.iter().zip(ids) {
            prop_assert!(offset <= chars.len());
            if let Ok(own) = std::str::from_utf8(rules.text.token_bytes(t)) {
                let there: String = chars[offset..].iter().take(own.chars().count()).collect();
                prop_assert_eq!(there, own);
            }
        }
    }
}
