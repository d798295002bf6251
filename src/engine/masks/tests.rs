use super::*;

/// Allows the tokens after the last one, up to a step of 3; complete at 9.
#[derive(Debug, Default)]
struct Rising {
    said: Vec<TokenId>,
    /// Panics when it is asked behind this token.
    trap: Option<TokenId>,
}

impl Constraint for Rising {
    fn allowed(&mut self) -> Result<TokenSet, OutOfBounds> {
        let last = self.said.last().copied().unwrap_or(0);
        assert!(self.trap != Some(last), "the trap");
        Ok((last + 1..=last + 3).collect())
    }

    fn accept(&mut self, token: TokenId) -> Result<Stage, OutOfBounds> {
        self.said.push(token);
        Ok(if token == 9 { Stage::Complete } else { Stage::Open })
    }

    fn take_back(&mut self, count: usize) -> Result<(), OutOfBounds> {
        self.said.truncate(self.said.len() - count);
        Ok(())
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, OutOfBounds> {
        Ok(Vec::new())
    }
}

fn job(said: &[TokenId], drafts: &[TokenId], forced: usize) -> Job {
    let constraint = Box::new(Rising { said: said.to_vec(), trap: Some(100) });
    Job { constraint, drafts: drafts.to_vec(), forced }
}

fn firsts(done: &Done) -> Vec<TokenId> {
    let sets = &done.masks.as_ref().unwrap().sets;
    sets.iter().map(|set| set.iter().next().unwrap()).collect()
}

#[test]
fn drafts_get_masks_as_far_as_they_are_allowed() {
    let mut masker = Masker::default();
    for round in 0..50 {
        let jobs = vec![
            job(&[2], &[], 0),
            job(&[2], &[4, 5, 6], 0),
            job(&[2], &[4, 8, 9], 0),
            job(&[2], &[4, 6], 2),
            job(&[6], &[8, 9, 10], 0),
            job(&[100], &[], 0),
            job(&[], &[1], 0),
            job(&[3], &[6, 9], 2),
        ];
        let under_way = masker.start(jobs);
        if round % 2 == 0 {
            std::thread::yield_now();
        }
        let done = under_way.finish();
        assert!(done[5].is_none(), "a panic is the end of a constraint, and of no thread");
        let known: Vec<_> = done.iter().flatten().map(firsts).collect();
        let expected: [&[TokenId]; 7] = [&[3], &[3, 5, 6, 7], &[3, 5], &[7], &[7, 9], &[1, 2], &[]];
        assert_eq!(known, expected);
    }
    assert!(masker.start(Vec::new()).finish().is_empty());
}
