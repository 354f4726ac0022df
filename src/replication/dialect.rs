//! What of the peer protocol two nodes speak with each other, and what a whole group does.
//!
//! Versions are for what an old node would misread: two nodes go by the newest that both speak, or
//! do not get together. Features are for what may be left out: what is said of lanes goes by the
//! view, which has those that all in it know; so all its nodes change over with it, at once.

use serde::{Deserialize, Serialize};

/// The oldest version of the peer protocol that is spoken here.
const PROTOCOL_OLDEST: u16 = 3;
/// The newest.
const PROTOCOL_NEWEST: u16 = 3;

/// What a node says that it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    /// The oldest version.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
    /// What it knows beyond that.
    pub features: Features,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { oldest: PROTOCOL_OLDEST, newest: PROTOCOL_NEWEST, features: Features::ALL }
    }
}

impl Dialect {
    /// The version that both speak; `None`: they do not understand each other.
    pub fn version_with(&self, other: &Self) -> Option<u16> {
        let (oldest, newest) = (self.oldest.max(other.oldest), self.newest.min(other.newest));
        (oldest <= newest).then_some(newest)
    }
}

/// Parts of the protocol that not every node knows, a bit each. Those that nobody here has heard of
/// are kept as they are, and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features(pub u64);

impl Features {
    /// None.
    pub const NONE: Self = Self(0);
    /// A forwarded request says until when it may be carried out.
    pub const LIFETIMES: Self = Self(1);
    /// All that this version knows.
    pub const ALL: Self = Self::LIFETIMES;

    /// What they are called.
    pub const NAMES: [(Self, &str); 1] = [(Self::LIFETIMES, "lifetimes")];

    /// Whether all of those are among them.
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those that are among both.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Those that are among either.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// One of that name.
    pub fn named(name: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|&(feature, _)| feature)
    }
}

/// By their names; those that have none here are left out.
impl std::fmt::Display for Features {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = Self::NAMES.iter().filter(|(feature, _)| self.has(*feature));
        let names: Vec<&str> = known.map(|&(_, name)| name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_nodes_go_by_the_newest_version_that_both_speak() {
        let speaks = |oldest, newest| Dialect { oldest, newest, ..Dialect::default() };
        let common = |one: Dialect, other: Dialect| {
            assert_eq!(one.version_with(&other), other.version_with(&one));
            one.version_with(&other)
        };
        assert_eq!(common(speaks(3, 3), speaks(3, 3)), Some(3));
        assert_eq!(common(speaks(3, 5), speaks(2, 4)), Some(4));
        assert_eq!(common(speaks(3, 3), speaks(4, 5)), None);
        assert_eq!(common(speaks(3, 3), speaks(5, 2)), None, "that is no range at all");
    }

    #[test]
    fn a_feature_that_nobody_here_knows_is_kept_and_means_nothing() {
        let newer = Features(Features::ALL.0 | 1 << 63);
        assert!(newer.has(Features::LIFETIMES));
        assert_eq!(newer.and(Features::ALL), Features::ALL);
        assert_eq!(newer.to_string(), "lifetimes");
        assert_eq!(Features(1 << 63).to_string(), "none");
    }

    #[test]
    fn each_feature_has_a_name_and_a_bit_of_its_own() {
        let all = Features::NAMES.iter().fold(0, |sum, (feature, name)| {
            assert_eq!((feature.0.count_ones(), sum & feature.0), (1, 0), "{name}");
            assert_eq!(Features::named(name), Some(*feature));
            sum | feature.0
        });
        assert_eq!(Features(all), Features::ALL);
    }
}
