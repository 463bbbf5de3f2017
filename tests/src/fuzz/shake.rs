//! Inputs changed at random, without looking at what they reach: many times faster than a fuzzer that does.

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

/// No input becomes longer.
const LONGEST: usize = 4096;

/// Changes inputs of a corpus.
#[derive(Debug)]
pub struct Shaker {
    corpus: Vec<Vec<u8>>,
    random: StdRng,
}

impl Shaker {
    /// Of a corpus; the same seed makes the same inputs.
    #[must_use]
    pub fn new(corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self { corpus, random: StdRng::seed_from_u64(seed) }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.any();
        if self.random.random_ratio(1, 4) {
            let other = self.any();
            input.truncate(self.random.random_range(0..=input.len()));
            input.extend_from_slice(&other[self.random.random_range(0..=other.len())..]);
        }
        for _ in 0..self.random.random_range(1..=6) {
            self.change(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn any(&mut self) -> Vec<u8> {
        let count = self.corpus.len().max(1);
        self.corpus.get(self.random.random_range(0..count)).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let random = &mut self.random;
        let at = random.random_range(0..=input.len());
        let end = at + random.random_range(0..=(input.len() - at).min(16));
        match random.random_range(0..8) {
            0..3 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.random_range(0..8);
                }
            }
            3 => random.fill_bytes(&mut input[at..end]),
            4 => drop(input.drain(at..end)),
            5 => {
                let mut new = vec![0; random.random_range(1..=8)];
                random.fill_bytes(&mut new);
                input.splice(at..at, new);
            }
            6 => {
                let part = input[at..end].to_vec();
                let to = random.random_range(0..=input.len());
                input.splice(to..to, part);
            }
            _ => {
                let edges = [0, 1, 2, 16, 31, 32, 63, 64, 127, 128, 254, 255];
                let edge = edges[random.random_range(0..edges.len())];
                if let Some(byte) = input.get_mut(at) {
                    *byte = edge;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_differ_from_the_corpus_and_are_told_by_the_seed() {
        let corpus = vec![vec![7; 40], vec![9; 4000]];
        let inputs = |seed| {
            let mut shaker = Shaker::new(corpus.clone(), seed);
            (0..200).map(|_| shaker.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let new = inputs(1).into_iter().filter(|input| !corpus.contains(input)).count();
        assert!(new > 150, "{new} of 200");
        assert!(inputs(1).iter().all(|input| input.len() <= LONGEST));
        let mut nothing = Shaker::new(Vec::new(), 1);
        assert!((0..100).any(|_| !nothing.next_input().is_empty()));
    }
}
