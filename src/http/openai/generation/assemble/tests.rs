use proptest::prelude::*;

use super::*;

const VOCAB: usize = 270;

fn rules(stops: &[&str]) -> Arc<Rules> {
    Arc::new(Rules {
        stops: (!stops.is_empty()).then(|| StopSet::new(stops).unwrap()),
        logprobs: Some(5),
        ..Rules::plain(Text::fake(VOCAB))
    })
}

fn fresh(rules: Arc<Rules>) -> ChoiceState {
    ChoiceState::new(rules, [5].into(), None)
}

fn echoing(rules: Arc<Rules>, ids: &[TokenId]) -> ChoiceState {
    let echo = Arc::new(Echo::new(&rules.text, ids.into(), false));
    ChoiceState::new(rules, ids.into(), Some(echo))
}

/// The token that stands for exactly these bytes.
fn id(bytes: &[u8]) -> TokenId {
    let text = Text::fake(VOCAB);
    (0..VOCAB as TokenId).find(|&id| text.token_bytes(id) == bytes).unwrap()
}

fn logprobs(own: f32, top: &[(TokenId, f32)]) -> Logprobs {
    Logprobs { own, rank: 1, top: top.to_vec() }
}

fn token(token: TokenId) -> TokenEvent {
    TokenEvent { choice: 0, token, logprobs: Some(logprobs(-1.0, &[])), is_end: false }
}

fn offsets(delta: &Delta) -> Vec<usize> {
    delta.scored.iter().map(|s| s.offset).collect()
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
    let mut choice = fresh(rules(&[]));
    let ids = [id(b"\xf0\x9f"), id(b"\x98"), id(b"\x80"), id(b"a")];
    let texts: Vec<Delta> = ids.iter().map(|&t| choice.token(token(t))).collect();
    let pieces: Vec<&str> = texts.iter().map(|d| d.text.as_str()).collect();
    assert_eq!(pieces, ["", "", "😀", "a"]);
    let all = joined(texts);
    assert_eq!(offsets(&all), [0, 0, 0, 1]);
    assert_eq!(rules(&[]).label(all.scored[0].token), "bytes:\\xf0\\x9f");
    assert_eq!(choice.generated, 4);
}

#[test]
fn what_was_cut_off_is_flushed_at_the_end_only() {
    let mut choice = fresh(rules(&[]));
    assert_eq!(choice.token(token(id(b"\xf0\x9f"))).text, "");
    let end = choice.finish(FinishReason::Length);
    assert_eq!((end.text.as_str(), end.finish), ("\u{fffd}", Some(FinishReason::Length)));
}

#[test]
fn a_stop_string_never_shows_and_its_tokens_keep_their_offsets() {
    let mut choice = fresh(rules(&["END"]));
    let ids = [id(b"x"), id(b"E"), id(b"N"), id(b"D")];
    let deltas: Vec<Delta> = ids.iter().map(|&t| choice.token(token(t))).collect();
    assert_eq!(deltas[0].text, "x");
    assert!(deltas[1..].iter().all(|d| d.text.is_empty()));
    assert_eq!(choice.finish(FinishReason::Stop).text, "");
    assert_eq!(offsets(&joined(deltas)), [0, 1, 2, 3]);
    // A beginning that came to nothing is text after all.
    let mut choice = fresh(rules(&["END"]));
    let deltas = [id(b"E"), id(b"N")].map(|t| choice.token(token(t)));
    assert!(deltas.iter().all(|d| d.text.is_empty()));
    assert_eq!(choice.finish(FinishReason::Length).text, "EN");
}

#[test]
fn min_tokens_protects_what_comes_before() {
    let rules = Arc::new(Rules { min_tokens: 2, ..(*rules(&["x"])).clone() });
    let mut choice = fresh(rules);
    let texts = [id(b"x"), id(b"x")].map(|t| choice.token(token(t)).text);
    assert_eq!(texts, ["x", ""]);
}

#[test]
fn the_end_token_counts_and_is_listed_but_has_no_text() {
    let mut choice = fresh(rules(&[]));
    let mut all = choice.token(token(id(b"a")));
    all.append(choice.token(TokenEvent { is_end: true, ..token(0) }));
    all.append(choice.finish(FinishReason::Stop));
    assert_eq!(all.text, "a");
    assert_eq!(all.scored.iter().map(|s| s.token).collect::<Vec<_>>(), [id(b"a"), 0]);
    assert_eq!(offsets(&all), [0, 1]);
    assert_eq!(choice.generated, 2);
}

#[test]
fn an_echoed_prompt_comes_first_and_moves_the_offsets() {
    let rules = rules(&[]);
    let ids: Arc<[TokenId]> = [id("é".as_bytes()), id(b"b"), id(b"\xf0\x9f")].into();
    assert_eq!(Echo::new(&rules.text, ids.clone(), false).text, "éb");
    let mut choice = echoing(rules, &ids);
    let first = choice.prompt(vec![None, Some(logprobs(-1.5, &[]))]);
    assert_eq!(first.text, "éb");
    let own = first.scored.iter().map(|s| s.logprobs.as_ref().map(|l| l.own));
    assert_eq!(own.collect::<Vec<_>>(), [None, Some(-1.5)]);
    let second = choice.prompt(vec![Some(logprobs(-2.5, &[]))]);
    assert_eq!(second.text, "", "it may go on");
    let last = choice.token(token(id(b"c")));
    assert_eq!(last.text, "\u{fffd}c");
    assert_eq!(offsets(&joined([first, second, last])), [0, 1, 2, 3]);
}

#[test]
fn an_echo_without_scores_comes_with_whatever_comes_first() {
    let plain = Arc::new(Rules::plain(Text::fake(VOCAB)));
    let ids = [id(b"a"), id(b"b")];
    let mut choice = echoing(plain.clone(), &ids);
    let delta = choice.token(token(id(b"c")));
    assert_eq!((delta.text.as_str(), delta.scored.is_empty()), ("abc", true));
    assert_eq!(choice.token(token(id(b"d"))).text, "d");
    let mut choice = echoing(plain, &ids);
    assert_eq!(choice.finish(FinishReason::Length).text, "ab");
}

#[test]
fn a_character_that_the_prompt_begins_is_whole_when_the_answer_ends_it() {
    let rules = rules(&["😀!"]);
    let ids = [id(b"b"), id(b"\xf0\x9f")];
    let mut choice = echoing(rules.clone(), &ids);
    let mut all = choice.prompt(vec![None, None]);
    for t in [id(b"\x98"), id(b"\x80"), id(b"?")] {
        all.append(choice.token(token(t)));
    }
    assert_eq!(all.text, "b😀?");
    assert_eq!(offsets(&all), [0, 1, 1, 1, 2]);
    // The prompt alone.
    let mut choice = echoing(rules.clone(), &ids);
    assert_eq!(choice.finish(FinishReason::Length).text, "b\u{fffd}");
    // A stop string may end the character too.
    let mut choice = echoing(rules.clone(), &ids);
    let echo = Echo::new(&rules.text, ids.into(), false);
    let detokenizer = Echo::detokenizer(Some(&echo), true);
    let mut watch = rules.stops.as_ref().unwrap().watch(&rules.text, detokenizer);
    let ids = [id(b"\x98"), id(b"\x80"), id(b"!")];
    let text: String = ids.iter().map(|&t| choice.token(token(t)).text).collect();
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

#[test]
fn what_ended_an_answer_is_shown_if_asked_for() {
    let shown = |skip_special| {
        let base = rules(&[]);
        let stops = Some(StopSet::new(&["END"]).unwrap().shown(true));
        Arc::new(Rules { stops, shows_stop: true, skip_special, ..(*base).clone() })
    };
    let text = |rules: Arc<Rules>, events: Vec<TokenEvent>| {
        let mut choice = fresh(rules);
        let deltas: Vec<Delta> = events.into_iter().map(|e| choice.token(e)).collect();
        joined(deltas.into_iter().chain([choice.finish(FinishReason::Stop)])).text
    };
    let ids = [id(b"x"), id(b"E"), id(b"N"), id(b"D")].map(token);
    assert_eq!(text(shown(true), ids.to_vec()), "xEND");
    // Token 0 is special, `a` is not.
    let end = |t| vec![token(id(b"x")), TokenEvent { is_end: true, ..token(t) }];
    assert_eq!(text(shown(true), end(0)), "x");
    assert_eq!(text(shown(false), end(0)), "x<|end|>");
    assert_eq!(text(shown(true), end(id(b"a"))), "xa");
    assert_eq!(text(rules(&[]), end(id(b"a"))), "x");
}

#[test]
fn ids_and_scores_of_the_prompt_are_told_once() {
    let rules = Arc::new(Rules {
        prompt_logprobs: Some(1),
        return_token_ids: true,
        ..Rules::plain(Text::fake(VOCAB))
    });
    let mut choice = ChoiceState::new(rules, [7, 8].into(), None);
    let scores = logprobs(-1.5, &[(9, -0.5), (10, -0.75)]);
    let deltas = [
        choice.prompt(vec![None]),
        choice.prompt(vec![Some(scores.clone())]),
        choice.token(token(id(b"a"))),
        choice.token(TokenEvent { is_end: true, ..token(0) }),
        choice.finish(FinishReason::Stop),
    ];
    let told = deltas.each_ref().map(|d| d.prompt_token_ids.as_deref());
    assert_eq!(told, [Some(&[7, 8][..]), None, None, None, None]);
    assert!(deltas[..4].iter().all(|d| !d.is_empty()), "each says something");
    let all = joined(deltas);
    assert_eq!(all.text, "a");
    assert_eq!(all.prompt_logprobs, [(7, None), (8, Some(scores.best(1)))]);
    assert_eq!(all.token_ids, [id(b"a"), 0]);
    assert!(all.scored.is_empty());
    assert!((choice.mean_logprob() + 1.0).abs() < 1e-9);
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
        let mut choice = echoing(rules.clone(), &prompt);
        let cut = cut.min(prompt.len());
        let scores = vec![None; prompt.len()];
        let mut all = choice.prompt(scores[..cut].to_vec());
        all.append(choice.prompt(scores[cut..].to_vec()));
        for &t in &generated {
            all.append(choice.token(token(t)));
        }
        all.append(choice.finish(FinishReason::Length));
        let bytes: Vec<&[u8]> =
            prompt.iter().chain(&generated).map(|&t| rules.text.token_bytes(t)).collect();
        let bytes = bytes.concat();
        prop_assert_eq!(&all.text, &String::from_utf8_lossy(&bytes));
        let offsets = offsets(&all);
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
