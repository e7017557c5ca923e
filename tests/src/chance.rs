//! Random numbers that can be repeated: all come from one seed, which every run prints.

use std::{
    env,
    hash::{BuildHasher, Hasher, RandomState},
};

/// The environment variable that sets the seed, to repeat a run.
pub const SEED: &str = "CONTAINERS_SEED";

/// The seed of this run: that of [`SEED`], or a new one.
pub fn seed() -> u64 {
    let given = env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| RandomState::new().build_hasher().finish())
}

/// A sequence of random numbers.
///
/// Source: SplitMix64, by S. Vigna, <https://prng.di.unimi.it/splitmix64.c>.
pub struct Chance(u64);

impl Chance {
    /// The sequence that belongs to the run's seed and to `name`.
    pub fn new(name: &str) -> Self {
        let start = name.bytes().fold(seed(), |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        Chance(start)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, from 0 up to but not including `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// A name that nobody can have guessed: `needle-` and 8 hexadecimal digits.
    pub fn needle(&mut self) -> String {
        format!("needle-{:08x}", self.number() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    #[test]
    fn needles_differ() {
        let mut chance = Chance::new("a");
        assert_ne!(chance.needle(), chance.needle());
        assert_ne!(Chance(1).number(), Chance(2).number());
    }
}
