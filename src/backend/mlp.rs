//! MLPs, alone and as experts: what a backend is given of them, and which experts compute a row.

use super::cpu::vocab::exp;
use super::{Backend, Post, Pre};

/// What stands between the two products of an MLP. But for the last one they have a gate: the first product
/// yields gate, then up, each as wide as the second product's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `silu(gate) up`
    SiluGate,
    /// `gelu(gate) up`, with `gelu(x) = 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`
    GeluGate,
    /// `(up + 1) gate sigmoid(1.702 gate)`, the gate cut above 7, up beyond 7 on both sides: gpt-oss.
    ClampedGate,
    /// `gelu(up)`
    Gelu,
}

impl Activation {
    /// How many times as wide as its output its input is.
    pub fn inputs(self) -> usize {
        if self == Self::Gelu { 1 } else { 2 }
    }
}

/// The two products of an MLP.
#[derive(Debug)]
pub struct MlpWeights<L> {
    /// Gate and up, stacked, where there is a gate.
    pub up: L,
    pub down: L,
}

/// The MLP of a layer, or of those that have one for all rows.
#[derive(Debug)]
pub struct Mlp<'a, B: Backend> {
    pub pre: Pre<'a, B::Vector>,
    pub weights: &'a MlpWeights<B::Linear>,
    pub activation: Activation,
    pub post: Post<'a, B::Vector>,
}

/// The MLPs of a layer of which a router chooses a few for each row.
#[derive(Debug)]
pub struct Experts<'a, B: Backend> {
    pub pre: Pre<'a, B::Vector>,
    pub weights: &'a ExpertWeights<B::Linear>,
    pub routing: Routing,
    pub activation: Activation,
    pub post: Post<'a, B::Vector>,
}

#[derive(Debug)]
pub struct ExpertWeights<L> {
    /// One output an expert.
    pub router: L,
    pub experts: Vec<MlpWeights<L>>,
    pub shared: Option<SharedExpert<L>>,
}

/// An expert of all rows, whose result is multiplied by the sigmoid of the one output of `gate`.
#[derive(Debug)]
pub struct SharedExpert<L> {
    pub gate: L,
    pub mlp: MlpWeights<L>,
}

/// How a router's scores are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routing {
    /// Experts a row.
    pub used: usize,
    /// The weights of the chosen ones sum to one, not those of all.
    pub sums_to_one: bool,
}

/// An expert of a row, and its weight.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Choice {
    pub expert: usize,
    pub weight: f32,
}

impl Routing {
    /// Chooses the experts with the highest scores, the first of equals, and fills `chosen`, which is `used`
    /// long: the softmax of all scores, or of those chosen.
    pub fn choose(self, scores: &[f32], chosen: &mut [Choice]) {
        for i in 0..chosen.len() {
            let (before, rest) = chosen.split_at_mut(i);
            let free = |&expert: &usize| before.iter().all(|choice| choice.expert != expert);
            let best = (0..scores.len())
                .filter(free)
                .reduce(|best, expert| if scores[expert] > scores[best] { expert } else { best });
            rest[0].expert = best.unwrap_or(0);
        }
        let highest = chosen.first().map_or(0.0, |choice| scores[choice.expert]);
        for choice in &mut *chosen {
            choice.weight = exp(scores[choice.expert] - highest);
        }
        let sum: f32 = if self.sums_to_one {
            chosen.iter().map(|choice| choice.weight).sum()
        } else {
            scores.iter().map(|score| exp(score - highest)).sum()
        };
        for choice in chosen {
            choice.weight /= sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(scores: &[f32], sums_to_one: bool) -> Vec<Choice> {
        let mut chosen = vec![Choice::default(); 2];
        Routing { used: 2, sums_to_one }.choose(scores, &mut chosen);
        chosen
    }

    #[test]
    fn the_highest_are_chosen_and_weighted_by_their_softmax() {
        let scores = [0.5_f32, 2.0, -1.0, 1.0];
        let softmax = |i: usize, of: &[usize]| {
            scores[i].exp() / of.iter().map(|&i| scores[i].exp()).sum::<f32>()
        };
        for (sums_to_one, of) in [(true, &[1, 3][..]), (false, &[0, 1, 2, 3])] {
            let got = chosen(&scores, sums_to_one);
            assert_eq!(got.iter().map(|c| c.expert).collect::<Vec<_>>(), [1, 3]);
            for choice in got {
                assert!((choice.weight - softmax(choice.expert, of)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn equals_and_what_is_no_number_choose_without_a_panic() {
        let experts =
            |scores: &[f32]| chosen(scores, true).iter().map(|c| c.expert).collect::<Vec<_>>();
        assert_eq!(experts(&[1.0, 1.0, 1.0]), [0, 1]);
        assert_eq!(experts(&[f32::NAN; 3]), [0, 1]);
        assert!(chosen(&[f32::NAN; 3], true)[0].weight.is_nan());
    }
}
