use super::*;
use crate::config::RequestLimits;
use crate::http::openai::completions::types::KNOWN_BY_PATH;
use crate::http::openai::generation::fields::Bounds;
use crate::http::openai::json::parse;
use crate::model::load::SamplingDefaults;

fn prepare(body: &str, candidates: u32, prompts: Vec<Tokens>) -> Result<Prepared, ApiError> {
    let text = Text::fake(270);
    let bounds =
        Bounds { vocab: 270, limits: RequestLimits::default(), defaults: SamplingDefaults::OPENAI };
    let fields = parse(body.as_bytes(), KNOWN_BY_PATH).unwrap();
    let shared = Shared::check(&fields, bounds, 16).unwrap();
    let plan = Plan {
        shared: &shared,
        text: &text,
        max_model_len: 10_000,
        max_tokens: (Some(1), 16),
        candidates,
        echo: false,
        grammar: None,
        seed: 0,
        param: "prompt",
    };
    plan.prepare(prompts)
}

fn prompt(length: u32, added_bos: bool) -> Tokens {
    Tokens { ids: (0..length).map(|i| i % 270).collect(), added_bos }
}

#[test]
fn a_bos_of_ours_stays_where_a_prompt_is_cut() {
    for (keep, added_bos, wanted) in [
        (2, false, &[3, 4][..]),
        (2, true, &[0, 4]),
        (1, true, &[4]),
        (4, true, &[0, 2, 3, 4]),
        (5, true, &[0, 1, 2, 3, 4]),
    ] {
        let body = format!("{{\"truncate_prompt_tokens\": {keep}}}");
        let prepared = prepare(&body, 1, vec![prompt(5, added_bos)]).unwrap();
        assert_eq!(*prepared.choices[0].prompt, *wanted);
        assert_eq!(prepared.prompt_tokens, wanted.len());
    }
}

#[test]
fn scores_of_prompts_have_one_bound() {
    // 5,000 times 6 times 69 is below it, times 70 above.
    let prompts = |count| (0..count).map(|_| prompt(5_000, false)).collect::<Vec<_>>();
    let body = r#"{"prompt_logprobs": 5}"#;
    assert!(prepare(body, 1, prompts(69)).is_ok());
    let error = prepare(body, 1, prompts(70)).unwrap_err();
    assert_eq!((error.status().as_u16(), error.param()), (400, Some("prompt_logprobs")));
    assert!(error.message().contains("350000 prompt tokens"), "{}", error.message());
    assert!(prepare(body, 10, prompts(7)).is_err(), "each sample counts");
    assert!(prepare("{}", 10, prompts(70)).is_ok(), "nothing is scored");
}
