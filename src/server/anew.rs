//! The operator's end of an order that replaces the server: waits until the new one stands where the
//! old one stood, so that a script may go on to the next node.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::clock;
use super::ctl::{ask, ask_within};

/// The order that may fail although the node goes on.
const UPGRADE: &str = "upgrade";
/// How often it is looked how the node stands.
const LOOK: Duration = Duration::from_millis(50);
/// A node that does not say by then how it stands is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Says this line to the node with that state directory, and waits until another server of the node
/// has its place in the group. Returns what is to be told, or why that has not come about.
pub fn ask_and_wait(folder: &Path, line: &str, patience: Duration) -> Result<String, String> {
    let before = Standing::parse(&ask(folder, "status")?);
    ask(folder, line)?;
    let since = clock::local();
    loop {
        sleep(LOOK);
        let mut now = ask_within(folder, "status", ANSWER_MAX)
            .map_or_else(|_| Standing::nobody(), |text| Standing::parse(&text));
        // A program that failed some time ago is no matter to any other order.
        now.has_upgrade_failed &= line == UPGRADE;
        let age_ms = clock::local().since(since);
        match now.judge(&before) {
            Progress::Done => return Ok(format!("{} after {age_ms} ms\n", now.place())),
            Progress::Failed => return Err(now.failure(&before)),
            Progress::None if u128::from(age_ms) >= patience.as_millis() => {
                return Err(now.lateness(&before, age_ms));
            }
            Progress::None => {}
        }
    }
}

/// What the status of a node says of its server.
#[derive(Clone, Debug, Default, PartialEq)]
struct Standing {
    name: String,
    state: String,
    /// Empty where nobody answers, or by a version that does not say it.
    life: String,
    is_voter: bool,
    is_seated: bool,
    has_upgrade_failed: bool,
}

/// How far an order has come.
#[derive(Debug, PartialEq)]
enum Progress {
    None,
    Done,
    Failed,
}

impl Standing {
    fn parse(status: &str) -> Self {
        let value = |wanted: &str| {
            let mut words = status.lines().filter_map(|line| line.split_once(' '));
            words.find(|(name, _)| *name == wanted).map_or("", |(_, value)| value)
        };
        let name = value("node_name");
        Self {
            name: name.into(),
            state: value("state").into(),
            life: value("life").into(),
            is_voter: value("log_voters").split(',').any(|voter| voter == name),
            is_seated: value("log_seated") == "1",
            has_upgrade_failed: value("upgrade") == "failed",
        }
    }

    /// Between two servers nobody answers.
    fn nobody() -> Self {
        Self::default()
    }

    fn judge(&self, before: &Self) -> Progress {
        let is_placed = match &*self.state {
            // With its vote, or it would be one short when the next node goes.
            "member" => self.is_seated || !self.is_voter,
            "witness" => self.is_seated,
            _ => false,
        };
        let is_anew = !self.life.is_empty() && self.life != before.life;
        match self.has_upgrade_failed {
            // The former one may only just have begun again.
            true if is_placed || !is_anew => Progress::Failed,
            false if is_placed && is_anew => Progress::Done,
            _ => Progress::None,
        }
    }

    fn place(&self) -> String {
        match &*self.state {
            "witness" => format!("{} votes again", self.name),
            _ => format!("{} is a member again", self.name),
        }
    }

    fn failure(&self, before: &Self) -> String {
        let who = if self.life == before.life { "goes on" } else { "serves again" };
        format!("not upgraded: the former program {who}; its log says why")
    }

    fn lateness(&self, before: &Self, age_ms: u64) -> String {
        let which = if self.life == before.life { "old" } else { "new" };
        let how = match &*self.life {
            "" => "no server answers".to_owned(),
            _ => format!("the state of the {which} server is {:?}", self.state),
        };
        format!(
            "not done after {age_ms} ms, and goes on: {how}; see its log, and sessiond ctl status"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(state: &str, life: &str, more: &str) -> Standing {
        Standing::parse(&format!(
            "node_name n1\nstate {state}\nlife {life}\n{more}log_voters n1,n2\nlog_seated 1\n"
        ))
    }

    #[test]
    fn an_order_is_done_when_another_life_is_a_member() {
        let before = standing("member", "1", "");
        assert_eq!(before.judge(&before), Progress::None);
        for state in ["waiting", "joining", "fenced"] {
            assert_eq!(standing(state, "2", "").judge(&before), Progress::None, "{state}");
        }
        assert_eq!(Standing::default().judge(&before), Progress::None);
        assert_eq!(standing("member", "2", "").judge(&before), Progress::Done);
        assert_eq!(standing("witness", "2", "").judge(&before), Progress::Done);
        let voteless = Standing { is_seated: false, ..standing("member", "2", "") };
        assert_eq!(voteless.judge(&before), Progress::None);
        let no_voter = Standing { is_voter: false, ..voteless };
        assert_eq!(no_voter.judge(&before), Progress::Done);
    }

    #[test]
    fn a_program_from_before_lives_were_shown_is_waited_for_too() {
        let before = Standing::parse("node_name n1\nstate member\n");
        assert_eq!(before.judge(&before), Progress::None);
        assert_eq!(standing("member", "1", "").judge(&before), Progress::Done);
    }

    #[test]
    fn a_former_program_that_serves_again_is_no_success() {
        let before = standing("member", "1", "");
        let refused = standing("member", "1", "upgrade failed\n");
        assert_eq!(refused.judge(&before), Progress::Failed);
        assert!(refused.failure(&before).contains("goes on"));
        assert_eq!(standing("joining", "3", "upgrade failed\n").judge(&before), Progress::None);
        let back = standing("member", "3", "upgrade failed\n");
        assert_eq!(back.judge(&before), Progress::Failed);
        assert!(back.failure(&before).contains("serves again"));
    }
}
