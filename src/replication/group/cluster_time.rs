//! Cluster time: which of the members' times this node goes by.
//!
//! One of them, the decider's, so that all follow the same and rounding pulls nowhere; but only as
//! far as most agree with it. What one clock says alone moves nobody.

use super::*;

/// Who is further behind than this takes the others' time at once, if most of them agree.
const STEP_MS: i64 = 1000;
/// A decider leaves its time alone while the others' is that close: they follow it.
const TOLERANCE_MS: i64 = 20;

impl<W> Group<W> {
    /// What follows from a beat of that node for the time here. A member's never goes back, and
    /// goes slower or faster by 1 ms per beat at most, but for a step after those that are ahead.
    pub(super) fn follow_time(&self, from: Incarnation, now: Now) -> Option<Todo> {
        if !self.view.has_member(from) {
            return None;
        }
        let (own, median) = (lead(now), self.median_lead(now)?);
        if !self.is_member() || median.saturating_sub(own) > STEP_MS {
            return (median != own).then(|| take(median, now));
        }
        let mut others = self.view.others(self.me()).filter(|&other| self.is_up(other, now));
        if others.next() != Some(from) {
            return None;
        }
        let goal = match self.decider(now) {
            Some(decider) if decider != self.me() => {
                let its = self.peers.lead_ms(decider)?;
                if its.abs_diff(median) <= STEP_MS.unsigned_abs() { its } else { median }
            }
            _ if median.abs_diff(own) <= TOLERANCE_MS.unsigned_abs() => own,
            _ => median,
        };
        (goal != own).then(|| Todo::SlewTime(goal.saturating_sub(own).signum()))
    }

    /// Whoever becomes a member takes the time of most of them.
    pub(super) fn join_time(&self, now: Now) -> Option<Todo> {
        let median = self.median_lead(now)?;
        (median != lead(now)).then(|| take(median, now))
    }

    /// How far cluster time is ahead of this node's clock, as most members have it.
    fn median_lead(&self, now: Now) -> Option<i64> {
        let others = self.view.others(self.me()).filter(|&other| self.is_up(other, now));
        let mut leads: Vec<i64> = others.filter_map(|other| self.peers.lead_ms(other)).collect();
        if self.is_member() {
            leads.push(lead(now));
        }
        median_of_most(leads, self.view.members.len())
    }
}

/// The median, if these are most of so many. Of two in the middle the earlier: what lives too long
/// does less harm than what ends too soon.
fn median_of_most(mut leads: Vec<i64>, members: usize) -> Option<i64> {
    leads.sort_unstable();
    (2 * leads.len() > members).then(|| leads[(leads.len() - 1) / 2])
}

fn lead(now: Now) -> i64 {
    now.cluster.0.cast_signed().wrapping_sub(now.local.0.cast_signed())
}

fn take(lead: i64, now: Now) -> Todo {
    Todo::TakeTime(Millis(now.local.0.wrapping_add_signed(lead)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_wrong_is_outvoted_on_either_side() {
        assert_eq!(median_of_most(vec![0, 60_000, 5], 3), Some(5));
        assert_eq!(median_of_most(vec![0, -60_000, 5], 3), Some(0));
    }

    #[test]
    fn less_than_most_say_nothing() {
        assert_eq!(median_of_most(vec![7], 2), None);
        assert_eq!(median_of_most(vec![7, 8], 5), None);
        assert_eq!(median_of_most(vec![], 0), None);
    }

    #[test]
    fn of_two_the_earlier_counts() {
        assert_eq!(median_of_most(vec![9, 4], 2), Some(4));
    }
}
