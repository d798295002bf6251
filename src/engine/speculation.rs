//! Drafts of what comes next, looked up in what was said already.
//!
//! Prompt lookup (Saxena, "Prompt Lookup Decoding", 2023; vLLM's n-gram speculation): where the last
//! few tokens stood before, what followed them then is computed together with the last token, one row
//! each. The sampler then goes through the rows as it would have one step after another, and stops
//! at the first token that is not the draft's: the text is the same, only sooner.

use super::message::TokenId;

/// Tokens that must agree, at least and at most, for what followed them to be a draft.
const MATCH_MIN: usize = 2;
const MATCH_MAX: usize = 4;

/// Drafted tokens a step: at first, and at most.
const LENGTH_FIRST: usize = 2;
const LENGTH_MAX: usize = 8;

/// Longest pause after drafts of which nothing was right: wrong ones are then computed in one step of
/// 64 at most.
const PAUSE_MAX: u32 = 64;

/// One sequence's drafts, and how well they did.
#[derive(Debug, Clone)]
pub(super) struct Drafter {
    /// The last token, then what may follow it.
    tokens: Vec<TokenId>,
    /// Tokens that the next draft may have.
    length: usize,
    /// Steps without a draft after the next failure, and still to go of this one's.
    pause: u32,
    pausing: u32,
}

impl Drafter {
    pub(super) fn new() -> Self {
        Self { tokens: Vec::new(), length: LENGTH_FIRST, pause: 1, pausing: 0 }
    }

    /// Drafts at most `most` tokens to follow `history`, and returns how many.
    pub(super) fn draft(&mut self, history: &[TokenId], most: usize) -> usize {
        self.tokens.clear();
        if self.pausing > 0 {
            self.pausing -= 1;
            return 0;
        }
        let length = self.length.min(most);
        let Some(from) = follows(history).filter(|_| length > 0) else { return 0 };
        // A repetition that reaches the end goes on with its own beginning.
        let repeated = history[from..].iter().cycle().take(length);
        self.tokens.extend(history.last().into_iter().chain(repeated));
        length
    }

    /// Takes `tokens`, which will follow `history` for certain, and returns how many they are.
    pub(super) fn force(&mut self, history: &[TokenId], tokens: &[TokenId]) -> usize {
        self.tokens.clear();
        if !tokens.is_empty() {
            self.tokens.extend(history.last().into_iter().chain(tokens));
        }
        tokens.len()
    }

    /// The last token of the history, and the draft of it.
    pub(super) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// So many tokens of the draft were what was said then.
    pub(super) fn judge(&mut self, accepted: usize) {
        let drafted = self.tokens.len().saturating_sub(1);
        if accepted == 0 {
            self.length = LENGTH_FIRST;
            self.pausing = self.pause;
            self.pause = (2 * self.pause).min(PAUSE_MAX);
        } else {
            self.pause = 1;
            let next = if accepted == drafted { 2 * self.length } else { accepted + 1 };
            self.length = next.clamp(LENGTH_FIRST, LENGTH_MAX);
        }
    }
}

/// Where the longest of the last few tokens' repetitions ended, the newest of equal ones.
fn follows(history: &[TokenId]) -> Option<usize> {
    let (mut longest, mut found) = (MATCH_MIN - 1, None);
    for end in (MATCH_MIN..history.len()).rev() {
        let pairs = history[..end].iter().rev().zip(history.iter().rev());
        let agree = pairs.take(MATCH_MAX).take_while(|(a, b)| a == b).count();
        if agree > longest {
            (longest, found) = (agree, Some(end));
            if agree == MATCH_MAX {
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(history: &[TokenId], most: usize) -> Vec<TokenId> {
        let mut drafter = Drafter { length: LENGTH_MAX, ..Drafter::new() };
        let drafted = drafter.draft(history, most);
        assert_eq!(drafter.tokens().len(), if drafted > 0 { drafted + 1 } else { 0 });
        drafter.tokens().iter().skip(1).copied().collect()
    }

    #[test]
    fn a_draft_is_what_followed_before() {
        assert_eq!(draft(&[1, 2, 3, 4, 5, 1, 2], 3), [3, 4, 5]);
        assert_eq!(draft(&[7, 2, 1, 2, 3, 4, 9, 1, 2], 1), [3]);
        assert_eq!(draft(&[1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 1), [9], "the longer match");
        assert_eq!(draft(&[2, 3, 9, 2, 3, 8, 2, 3], 1), [8], "the newer of equal ones");
        assert_eq!(draft(&[5, 5, 5], 4), [5, 5, 5, 5], "a period goes on");
        assert!(draft(&[1, 2, 3, 4, 5, 2], 4).is_empty(), "one token is no repetition");
        assert!(draft(&[1, 2, 1, 2], 0).is_empty());
        for short in [&[][..], &[1], &[1, 1]] {
            assert!(draft(short, 4).is_empty());
        }
    }

    #[test]
    fn drafts_grow_while_they_are_right_and_pause_when_they_are_not() {
        let history = [5; 40];
        let mut drafter = Drafter::new();
        let mut lengths = Vec::new();
        for _ in 0..4 {
            lengths.push(drafter.draft(&history, 100));
            drafter.judge(lengths[lengths.len() - 1]);
        }
        assert_eq!(lengths, [2, 4, 8, 8]);
        let mut wrong = 0;
        for _ in 0..1000 {
            if drafter.draft(&history, 100) > 0 {
                wrong += 1;
                drafter.judge(0);
            }
        }
        assert!((10..25).contains(&wrong), "{wrong} of 1000 steps had a draft");
        while drafter.draft(&history, 100) == 0 {}
        drafter.judge(1);
        assert_eq!(drafter.draft(&history, 100), LENGTH_FIRST, "one that is right ends the pauses");
    }
}
