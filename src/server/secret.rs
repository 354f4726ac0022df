//! How two nodes without certificates prove to each other that they know the same secret, without
//! saying it: each signs, with HMAC-SHA256, all that both have said, which begins with a fresh
//! random number from each.
//!
//! A proof is therefore good for one connection, one direction, and these two nodes, their cluster
//! and their purpose, all of which are in what was said. What follows the proofs is not protected.

use std::sync::Arc;

use ring::hmac::{self, HMAC_SHA256, Key};
use ring::rand::{SecureRandom, SystemRandom};

use crate::replication::message::{self, Message, Nonce, Proof};

/// Below, it could be guessed by trying.
const LENGTH_MIN: usize = 16;
/// Two, so that one can be replaced while the group runs.
const SECRETS_MAX: usize = 2;

/// The side of a connection. The labels differ, so that a proof can't be sent back to its maker.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Dialer,
    Host,
}

impl Side {
    fn label(self) -> &'static [u8] {
        match self {
            Self::Dialer => b"sessiond peers 1: who has dialed",
            Self::Host => b"sessiond peers 1: who was dialed",
        }
    }
}

/// The secrets of a file: the first is used, all are accepted.
pub(super) struct Secrets(Vec<Key>);

impl Secrets {
    /// One a line.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        if lines.iter().any(|line| line.len() < LENGTH_MIN) {
            return Err(format!(
                "a secret has less than {LENGTH_MIN} bytes; head -c 32 /dev/urandom | base64 makes one"
            ));
        }
        match lines.len() {
            1..=SECRETS_MAX => {
                Ok(Self(lines.into_iter().map(|line| Key::new(HMAC_SHA256, line)).collect()))
            }
            0 => Err("there is no secret in it".into()),
            count => Err(format!("{count} lines; expected one secret, or the new and the old one")),
        }
    }
}

/// A number that was never used before.
pub(super) fn fresh() -> std::io::Result<Nonce> {
    let mut nonce = Nonce::default();
    SystemRandom::new()
        .fill(&mut nonce.0)
        .map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
    Ok(nonce)
}

/// All that both sides of a connection have said so far.
pub(super) struct Talk {
    secrets: Arc<Secrets>,
    /// The one that the dialer has used.
    used: usize,
    said: Vec<u8>,
}

impl Talk {
    pub(super) fn new(secrets: Arc<Secrets>, of_dialer: Nonce, of_host: Nonce) -> Self {
        let said = [of_dialer.0, of_host.0].concat();
        Self { secrets, used: 0, said }
    }

    /// This was said.
    pub(super) fn add(&mut self, message: &Message) {
        message::encode(message, &mut self.said);
    }

    /// That this side knows the secret.
    pub(super) fn prove(&self, side: Side) -> Proof {
        let signed = hmac::sign(&self.secrets.0[self.used], &self.signed(side));
        let mut proof = Proof::default();
        proof.0.copy_from_slice(signed.as_ref());
        proof
    }

    /// Whether the other side, which is that one, knows it. Takes the same time for all that are
    /// wrong.
    pub(super) fn accepts(&mut self, side: Side, proof: &Proof) -> bool {
        let signed = self.signed(side);
        let fits = |key: &Key| hmac::verify(key, &signed, &proof.0).is_ok();
        match side {
            Side::Host => fits(&self.secrets.0[self.used]),
            Side::Dialer => match self.secrets.0.iter().position(fits) {
                Some(used) => {
                    self.used = used;
                    true
                }
                None => false,
            },
        }
    }

    fn signed(&self, side: Side) -> Vec<u8> {
        [side.label(), &self.said].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &[u8] = b"the older secret";
    const NEW: &[u8] = b"the newer secret";

    fn secrets(text: &[u8]) -> Arc<Secrets> {
        Arc::new(Secrets::parse(text).unwrap())
    }

    /// What both sides have said, as each of them knows it.
    fn talks(of_dialer: &[u8], of_host: &[u8]) -> (Talk, Talk) {
        let (one, other) = (fresh().unwrap(), fresh().unwrap());
        let talk = |text| {
            let mut talk = Talk::new(secrets(text), one, other);
            talk.add(&Message::Refuse("stands for a Hello".into()));
            talk
        };
        (talk(of_dialer), talk(of_host))
    }

    #[test]
    fn those_who_know_the_secret_accept_each_other() {
        let (mut dialer, mut host) = talks(NEW, NEW);
        assert!(host.accepts(Side::Dialer, &dialer.prove(Side::Dialer)));
        let answer = Message::Refuse("stands for a HelloOk".into());
        host.add(&answer);
        dialer.add(&answer);
        assert!(dialer.accepts(Side::Host, &host.prove(Side::Host)));
    }

    #[test]
    fn another_secret_proves_nothing() {
        let (dialer, mut host) = talks(NEW, OLD);
        assert!(!host.accepts(Side::Dialer, &dialer.prove(Side::Dialer)));
        let (mut dialer, host) = talks(NEW, OLD);
        assert!(!dialer.accepts(Side::Host, &host.prove(Side::Host)));
    }

    #[test]
    fn a_proof_is_good_for_one_connection_and_one_side() {
        let (dialer, mut host) = talks(NEW, NEW);
        let proof = dialer.prove(Side::Dialer);
        let (_, mut next) = talks(NEW, NEW);
        assert!(!next.accepts(Side::Dialer, &proof), "replayed");
        assert!(!host.accepts(Side::Host, &proof), "reflected");
        host.add(&Message::Refuse("said in between".into()));
        assert!(!host.accepts(Side::Dialer, &proof), "reordered");
    }

    #[test]
    fn while_a_secret_is_replaced_both_are_accepted() {
        let both = [OLD, b"\n", NEW].concat();
        for (of_dialer, of_host) in [(&both[..], OLD), (OLD, &both), (NEW, &both)] {
            let (mut dialer, mut host) = talks(of_dialer, of_host);
            assert!(host.accepts(Side::Dialer, &dialer.prove(Side::Dialer)));
            assert!(dialer.accepts(Side::Host, &host.prove(Side::Host)));
        }
    }

    #[test]
    fn a_file_that_is_no_secret_is_refused() {
        for (text, why) in [
            (&b"\n \n"[..], "no secret"),
            (b"short", "16 bytes"),
            (b"the first secret\nthe other secret\nand another secret\n", "3 lines"),
        ] {
            let refused = Secrets::parse(text).err().unwrap_or_default();
            assert!(refused.contains(why), "{refused}");
        }
    }
}
