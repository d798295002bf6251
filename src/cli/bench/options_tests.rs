use std::time::Duration;

use clap::Parser;

use super::{Arrivals, Options};

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn parse(line: &str) -> Result<Options, clap::Error> {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.options)
}

#[test]
fn a_plan_has_an_end() {
    let plan = |line: &str, lines| parse(&format!("--url u {line}")).unwrap().plan(lines, 1);
    let bare = plan("", None);
    assert_eq!((bare.requests, bare.duration), (Some(100), None));
    assert_eq!(bare.arrivals, Arrivals::Closed { clients: 8 });
    assert_eq!(plan("--prompts f", Some(3)).requests, Some(3));
    assert_eq!(plan("--prompts f --num-prompts 7", Some(3)).requests, Some(7));
    let timed = plan("--duration-s 1.5", Some(3));
    assert_eq!((timed.requests, timed.duration), (None, Some(Duration::from_millis(1500))));
    let open = plan("--request-rate 2 --max-concurrency 4", None).arrivals;
    assert_eq!(open, Arrivals::Open { rate: 2.0, burstiness: 1.0, at_once: Some(4) });
}

#[test]
fn the_names_of_vllm_are_known() {
    let line =
        "--base-url u --random-input-len 5 --random-output-len 6 --random-prefix-len 7 --warmup 2";
    let options = parse(line).unwrap();
    let tokens = (options.input_tokens(), options.output_tokens(), options.prefix_len);
    assert_eq!((tokens, options.num_warmups), ((5, 6, 7), 2));
}

#[test]
fn what_goes_with_nothing_is_refused() {
    for line in [
        "m --url u",
        "--url u -- --threads 1",
        "--url u --burstiness 2",
        "--url u --save-detailed",
        "--url u --prompts f --input-len 3",
        "--url u --prompts f --prefix-len 3",
        "--url u --num-prefixes 2",
        "--url u --request-rate 0",
        "--url u --request-rate inf",
        "--url u --num-prompts 0",
        "--url u --goodput ttft",
        "--url u --extra-body []",
        "--url u --compare a b",
        "--compare a",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
    let options = parse("m -- --threads 1").unwrap();
    assert_eq!(options.for_server, ["--threads", "1"]);
    assert_eq!(parse("--compare a b").unwrap().compare.unwrap().len(), 2);
}
