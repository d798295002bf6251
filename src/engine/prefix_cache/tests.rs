use std::sync::Arc;

use super::*;
use crate::engine::block_manager::BlockManager;
use crate::engine::message::{CacheSalt, Choice, RequestId, Sampling, Tenant};
use crate::engine::sequence::tests::choice;

const HASHING: Hashing = Hashing { secret: [1; 32], bits: 128 };

fn pool(blocks: usize) -> BlockManager {
    BlockManager::new(blocks, Some(HASHING))
}

/// A sequence that waits, with `tokens` as its prompt.
fn waiting(arrival: u64, tokens: &[TokenId]) -> Sequence {
    let choice = Choice { prompt: tokens.into(), ..choice(1, 50, Sampling::default()) };
    Sequence::new(arrival, RequestId(arrival), 0, choice, 10_000)
}

fn start(pool: &mut BlockManager, mut s: Sequence) -> Sequence {
    pool.prepare(&mut s);
    assert!(pool.can_start(&s, 0));
    pool.start(&mut s);
    s
}

/// As a step does that computes all that is known of `s`.
fn compute(pool: &mut BlockManager, s: &mut Sequence) {
    s.computed = s.tokens.len();
    pool.publish(s);
}

/// Runs a prompt to its end, and says how many of its tokens were cached.
fn run(pool: &mut BlockManager, arrival: u64, tokens: &[TokenId]) -> usize {
    let mut s = start(pool, waiting(arrival, tokens));
    let cached = s.computed;
    compute(pool, &mut s);
    pool.check_integrity(std::slice::from_ref(&s)).unwrap();
    pool.take_back(&mut s);
    pool.check_integrity(&[]).unwrap();
    cached
}

fn numbers(count: u32) -> Vec<TokenId> {
    (0..count).collect()
}

#[test]
fn full_blocks_are_found_and_the_last_token_is_not() {
    let mut pool = pool(20);
    assert_eq!(run(&mut pool, 0, &numbers(100)), 0);
    assert_eq!(pool.held(), 0);
    for (length, cached) in [(100, 96), (97, 96), (96, 64), (65, 64), (33, 32), (32, 0), (200, 96)]
    {
        assert_eq!(run(&mut pool, 1, &numbers(length)), cached, "{length}");
    }
    let mut other = numbers(100);
    other[40] = 0;
    assert_eq!(run(&mut pool, 2, &other), 32, "the second block differs");
    assert_eq!(run(&mut pool, 3, &[&[7], &other[..]].concat()), 0);
    assert_eq!(pool.counts().queried_tokens, 100 + 623 + 100 + 101);
    assert_eq!(pool.counts().hit_tokens, 96 + 96 + 64 + 64 + 32 + 96 + 32);
}

#[test]
fn namespaces_share_nothing() {
    let mut pool = pool(40);
    let tenant = |tenant, salt: Option<u8>| Namespace {
        tenant: Tenant(tenant),
        salt: salt.map(|salt| CacheSalt([salt; 32])),
    };
    let all = [tenant(0, None), tenant(1, None), tenant(0, Some(0)), tenant(0, Some(1))];
    for round in [0, 64] {
        for namespace in all {
            let mut s = waiting(0, &numbers(70));
            s.namespace = namespace;
            let mut s = start(&mut pool, s);
            assert_eq!(s.computed, round);
            compute(&mut pool, &mut s);
            pool.take_back(&mut s);
        }
    }
}

#[test]
fn prefixes_of_one_key_are_told_apart() {
    let mut pool = BlockManager::new(64, Some(Hashing { bits: 1, ..HASHING }));
    for round in 0..3 {
        for n in 0..10 {
            let prompt: Vec<TokenId> = numbers(70).iter().map(|t| t + n / 2).collect();
            let tenant = Namespace { tenant: Tenant(n % 2), salt: None };
            let mut s = waiting(0, &prompt);
            s.namespace = tenant;
            let mut s = start(&mut pool, s);
            let cached = s.computed / BLOCK_TOKENS;
            let right = s.blocks.iter().take(cached).enumerate();
            for (at, &block) in right {
                let node = pool.cache().node(block).unwrap();
                assert_eq!(node.namespace, tenant);
                assert_eq!(node.tokens, tokens_of(&prompt, at), "round {round}, prompt {n}");
            }
            compute(&mut pool, &mut s);
            pool.check_integrity(std::slice::from_ref(&s)).unwrap();
            pool.take_back(&mut s);
        }
    }
    assert!(pool.counts().hit_tokens > 0, "one of two keys finds somebody");
}

#[test]
fn the_longest_unused_goes_first_and_leaves_before_what_they_follow() {
    let mut pool = pool(6);
    run(&mut pool, 0, &numbers(96));
    let other: Vec<TokenId> = (500..596).collect();
    run(&mut pool, 1, &other);
    assert_eq!(run(&mut pool, 2, &numbers(65)), 64, "used again: newer than the other now");
    // Four blocks: what was free after that, and the end of what is oldest.
    pool.take_released().for_each(drop);
    let mut large = start(&mut pool, waiting(3, &(900..1028).collect::<Vec<_>>()));
    assert_eq!(pool.counts().evicted_blocks, 4);
    assert_eq!(pool.take_released().count(), 3, "the model is told of what went just now");
    pool.take_back(&mut large);
    assert_eq!(run(&mut pool, 4, &numbers(97)), 64);
    assert_eq!(run(&mut pool, 5, &other), 0);
}

#[test]
fn what_two_computed_is_kept_once() {
    let mut pool = pool(10);
    let mut a = start(&mut pool, waiting(0, &numbers(70)));
    let mut b = start(&mut pool, waiting(1, &numbers(70)));
    assert_eq!(pool.held(), 6);
    compute(&mut pool, &mut a);
    compute(&mut pool, &mut b);
    assert_eq!(a.blocks[..2], b.blocks[..2]);
    assert_ne!(a.blocks[2], b.blocks[2]);
    assert_eq!(pool.held(), 4);
    let mut both = [a, b];
    pool.check_integrity(&both).unwrap();
    for s in &mut both {
        pool.take_back(s);
    }
    pool.check_integrity(&[]).unwrap();
}

#[test]
fn a_promise_is_kept_or_withdrawn() {
    let mut pool = pool(20);
    let mut a = start(&mut pool, waiting(4, &numbers(100)));
    let mut same = waiting(5, &numbers(100));
    let mut begins_alike = waiting(6, &[&numbers(40)[..], &[9; 60]].concat());
    let mut other = waiting(7, &[9; 100]);
    for s in [&mut same, &mut begins_alike, &mut other] {
        pool.prepare(s);
    }
    let mut awaited =
        |pool: &BlockManager| [&mut same, &mut begins_alike, &mut other].map(|s| pool.awaited(s));
    assert_eq!(awaited(&pool), [Some(4), Some(4), None]);
    a.computed = 64;
    pool.publish(&mut a);
    assert_eq!(awaited(&pool), [Some(4), None, None]);
    pool.take_back(&mut a);
    assert_eq!(awaited(&pool), [None; 3]);
    assert_eq!(pool.cache().hits(&same).count(), 2);
}

#[test]
fn who_leaves_withdraws_no_promise_of_another() {
    let mut pool = pool(20);
    let mut first = start(&mut pool, waiting(1, &numbers(100)));
    let mut second = start(&mut pool, waiting(2, &numbers(100)));
    let mut third = waiting(3, &numbers(100));
    pool.prepare(&mut third);
    pool.take_back(&mut first);
    assert_eq!(pool.awaited(&mut third), Some(2));
    pool.take_back(&mut second);
    assert_eq!(pool.awaited(&mut third), None);
}

#[test]
fn a_scored_prompt_reads_only_what_was_scored() {
    let mut pool = pool(20);
    run(&mut pool, 0, &numbers(100));
    let mut s = waiting(1, &numbers(100));
    s.sampling = Arc::new(Sampling { prompt_logprobs: Some(0), ..Sampling::default() });
    let mut s = start(&mut pool, s);
    assert_eq!(s.computed, 0);
    for (scored, cached) in [(64, 32), (65, 64)] {
        s.scored = scored;
        pool.take_back(&mut s);
        pool.start(&mut s);
        assert_eq!(s.computed, cached, "row {} tells position {scored}", scored - 1);
    }
    pool.take_back(&mut s);
    assert_eq!(pool.counts().queried_tokens, 100);
}

#[test]
fn what_follows_the_doubtful_is_not_taken_in() {
    let mut pool = pool(20);
    let mut a = start(&mut pool, waiting(0, &numbers(70)));
    compute(&mut pool, &mut a);
    let mut b = start(&mut pool, waiting(1, &numbers(100)));
    pool.forget(&a);
    compute(&mut pool, &mut b);
    for s in [&mut a, &mut b] {
        pool.take_back(s);
    }
    assert_eq!(run(&mut pool, 2, &numbers(100)), 0);
    assert_eq!(run(&mut pool, 3, &numbers(100)), 96, "its keys were free");
}

#[test]
fn who_waited_is_counted_once() {
    let mut pool = pool(20);
    run(&mut pool, 0, &numbers(100));
    let mut s = waiting(1, &numbers(100));
    s.awaited = true;
    let mut s = start(&mut pool, s);
    pool.take_back(&mut s);
    pool.start(&mut s);
    assert_eq!(pool.counts().awaited, 1);
    assert_eq!(pool.counts().queried_tokens, 200, "and looked once");
    pool.take_back(&mut s);
}

#[test]
fn what_is_in_doubt_is_found_by_nobody() {
    let mut pool = pool(20);
    let mut a = start(&mut pool, waiting(0, &numbers(70)));
    compute(&mut pool, &mut a);
    let mut b = start(&mut pool, waiting(1, &numbers(100)));
    compute(&mut pool, &mut b);
    pool.forget(&a);
    pool.take_back(&mut a);
    pool.check_integrity(std::slice::from_ref(&b)).unwrap();
    pool.take_back(&mut b);
    assert_eq!(run(&mut pool, 2, &numbers(100)), 0);
    assert_eq!(run(&mut pool, 3, &numbers(100)), 64, "what followed the doubtful stays refused");
}

#[test]
fn without_a_cache_nothing_is_kept() {
    let mut pool = BlockManager::new(20, None);
    for arrival in 0..2 {
        assert_eq!(run(&mut pool, arrival, &numbers(100)), 0);
    }
    assert_eq!(pool.counts().queried_tokens, 0);
}

#[test]
fn a_cached_block_is_not_room_twice() {
    let mut pool = pool(4);
    run(&mut pool, 0, &numbers(70));
    let mut s = waiting(1, &numbers(128));
    pool.prepare(&mut s);
    assert!(pool.can_start(&s, 0) && !pool.can_start(&s, 1), "two of its four are cached");
    let mut s = start(&mut pool, s);
    assert_eq!((s.blocks.len(), s.computed), (4, 64));
    let mut same = waiting(2, &numbers(70));
    pool.prepare(&mut same);
    assert!(!pool.can_start(&same, 0), "two are shared, the third is nowhere");
    pool.take_back(&mut s);
    assert!(pool.can_start(&same, 1));
}

/// What the memory of a model is planned with. Tables are as large as they are just after they have grown.
#[test]
fn a_block_takes_no_more_beside_the_cache_than_is_planned() {
    let of_manager = 3 * size_of::<BlockId>();
    let of_table = 2 * (size_of::<(Key, BlockId)>() + 1) * 8 / 7;
    // Nodes of a B-tree are half full at least.
    let of_line = 2 * (size_of::<(u64, BlockId)>() + 2);
    let of_sequence = 2 * (size_of::<Key>() + size_of::<BlockId>());
    let bytes = of_manager + size_of::<Option<Node>>() + of_table + of_line + of_sequence;
    assert!(bytes as u64 <= crate::model::BLOCK_BOOKKEEPING_BYTES, "{bytes}");
}
