//! Whose turn it is: among tenants, within one, and for whom.

use super::*;

#[test]
fn a_flood_of_one_tenant_does_not_move_another() {
    let quiet = |flood: usize| {
        let mut bench = Bench::new(limits(8, 64, 64), 200);
        for _ in 0..flood {
            bench.add_of(1, 0, 500, 400);
        }
        for _ in 0..50 {
            bench.step();
        }
        let waited = (0..5).map(|_| {
            let short = bench.add_of(2, 0, 40, 3);
            let steps = bench.steps_to_first_token(short);
            while bench.scheduler.get(short).is_some() {
                bench.step();
            }
            steps
        });
        waited.max().unwrap()
    };
    assert_eq!(quiet(0), 1);
    let waited = quiet(100);
    assert!(waited <= 3, "{waited} steps behind a hundred long ones");
}

#[test]
fn tenants_share_by_tokens_and_nobody_saves_up() {
    let mut bench = Bench::new(limits(1, 64, 64), 200);
    let given = |bench: &Bench, tenant| bench.scheduler.fairness.served(Tenant(tenant)) >> 8;
    for _ in 0..300 {
        bench.add_of(1, 0, 30, 10);
    }
    for _ in 0..500 {
        bench.step();
    }
    let before = given(&bench, 1);
    for _ in 0..300 {
        bench.add_of(2, 0, 10, 30);
    }
    assert!(given(&bench, 2).abs_diff(before) <= 50, "it starts where the other one stands");
    let start = (given(&bench, 1), given(&bench, 2));
    for _ in 0..1000 {
        bench.step();
    }
    let (first, second) = (given(&bench, 1) - start.0, given(&bench, 2) - start.1);
    assert!(first > 500 && first.abs_diff(second) <= 150, "{first} and {second}");
}

#[test]
fn a_tenants_priority_is_its_share_and_nobody_starves() {
    let mut bench = Bench::new(limits(1, 64, 64), 200);
    for _ in 0..600 {
        for (tenant, points) in [(1, -2), (2, 0), (3, 20)] {
            let choice = choice(20, 20, Sampling::default());
            bench.add_choice(choice, Tenant(tenant), Priority { request: 0, tenant: points });
        }
    }
    let mut given = BTreeMap::new();
    for _ in 0..6000 {
        for (n, tokens) in bench.step() {
            *given.entry(n % 3 + 1).or_insert(0) += tokens;
        }
    }
    let share = |tenant: u64| *given.get(&tenant).unwrap_or(&0) as f64;
    let ratio = share(1) / share(2);
    assert!((3.5..4.5).contains(&ratio), "{ratio} times as much: {given:?}");
    assert!(share(3) > 0.0, "{given:?}");
}

#[test]
fn a_priority_puts_first_and_wears_off() {
    let mut bench = Bench::new(limits(1, 64, 64), 200);
    bench.add_of(1, 0, 5, 5);
    bench.step();
    let (late, soon) = (bench.add_of(1, 1, 5, 5), bench.add_of(1, -1, 5, 5));
    for _ in 0..6 {
        bench.step();
    }
    assert!(bench.scheduler.get(soon).is_some());
    // Others of priority 0 keep coming, and cannot hold it up for ever.
    let mut steps = 0;
    while bench.scheduler.get(late).is_none() {
        bench.add_of(1, 0, 5, 5);
        bench.step();
        steps += 1;
        assert!(steps < 400, "it starves");
    }
    assert!(steps > 10, "{steps}");
}

#[test]
fn who_computes_the_prefix_of_a_prior_request_is_as_prior() {
    let waits = |priority: i32| {
        let mut bench = Bench::caching(limits(8, 64, 64), 2000, Some(HASHING));
        let of = |n: u32, prompt: usize| {
            let tokens: Vec<u32> = (0..prompt as u32).map(|i| n * 100_000 + i).collect();
            Choice { prompt: tokens.into(), ..choice(1, 3, Sampling::default()) }
        };
        // Sorted by length, the one that computes the prefix would be the last.
        for n in 1..5 {
            bench.add_choice(of(n, 2000), Tenant(1), Priority::default());
        }
        bench.step();
        bench.add_choice(of(9, 2500), Tenant(1), Priority::default());
        bench.step();
        let priority = Priority { request: priority, tenant: 0 };
        let prior = bench.add_choice(of(9, 2400), Tenant(1), priority);
        bench.steps_to_first_token(prior)
    };
    // Alone it would take 2400 / 64 steps; it gets half of each from the first on.
    let (prior, other) = (waits(-100), waits(0));
    assert!(prior <= 2 * 2500 / 64 + 5, "{prior} steps");
    assert!(other > 100, "{other} steps");
}

#[test]
fn a_look_for_the_next_does_not_grow_with_those_who_wait() {
    // Of 40 tenants, half of each one's share one prefix.
    let looks = |waiting: u32| {
        let mut bench = Bench::caching(limits(4, 64, 64), 4000, Some(HASHING));
        for n in 0..waiting {
            let first = if n.is_multiple_of(2) { 0 } else { n * 1000 };
            let prompt: Vec<u32> = (first..first + 200).collect();
            let choice = Choice { prompt: prompt.into(), ..choice(1, 40, Sampling::default()) };
            bench.add_choice(choice, Tenant(1 + n / 2 % 40), Priority::default());
        }
        (0..20).for_each(|_| drop(bench.step()));
        bench.scheduler.waiting.looks
    };
    let (few, many) = (looks(8000), looks(40_000));
    assert!(many <= few + few / 2, "{few} looks among 8,000, {many} among 40,000");
}
