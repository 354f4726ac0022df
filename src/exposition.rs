//! Figures in Prometheus' text format (version 0.0.4), as its server scrapes them.
//!
//! Knows how a figure is written, not what it means. Durations are in seconds and sizes in bytes,
//! as Prometheus has it.

use std::fmt::{Display, Write};

use crate::stats::{WAIT_BOUNDS_US, WaitTotals};

/// What the format is called in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A text that grows by one family after the other.
#[derive(Debug, Default)]
pub struct Exposition(String);

/// The samples of one family: to be written before the next family begins.
#[derive(Debug)]
pub struct Samples<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// What only grows, until the process ends or somebody resets it.
    pub fn counter(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, "counter", help)
    }

    /// What goes up and down.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> Samples<'_> {
        self.family(name, "gauge", help)
    }

    /// How long things took.
    pub fn histogram(&mut self, name: &'static str, help: &str, waits: &WaitTotals) {
        let samples = self.family(name, "histogram", help);
        let mut below = 0;
        for (count, bound_us) in waits.buckets.iter().zip(WAIT_BOUNDS_US) {
            below += count;
            let bound_s = seconds(bound_us);
            write(samples.text, format_args!("{name}_bucket{{le=\"{bound_s}\"}} {below}\n"));
        }
        let (sum_s, count) = (seconds(waits.sum_us), waits.count());
        write(samples.text, format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
        write(samples.text, format_args!("{name}_sum {sum_s}\n{name}_count {count}\n"));
    }

    /// All that was written.
    pub fn into_text(self) -> String {
        self.0
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Samples<'_> {
        let text = &mut self.0;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        write(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Samples { text, name }
    }
}

impl Samples<'_> {
    /// The only one of its family.
    pub fn value(&mut self, value: impl Display) {
        write(self.text, format_args!("{} {value}\n", self.name));
    }

    /// One of several, told apart by their labels.
    pub fn labelled(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (place, (label, of)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            write(self.text, format_args!("{before}{label}=\"{}\"", escaped(of)));
        }
        write(self.text, format_args!("}} {value}\n"));
    }
}

/// Microseconds as Prometheus wants them, without a loss.
pub fn seconds(us: u64) -> impl Display {
    us as f64 / 1e6
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_or_a_line_is_escaped() {
        let mut out = Exposition::default();
        let mut samples = out.gauge("peer_up", "One \\ two\nthree.");
        samples.labelled(&[("peer", "a\"b\\c\nd"), ("kind", "x")], 1);
        let expected = "# HELP peer_up One \\\\ two\\nthree.\n# TYPE peer_up gauge\n\
            peer_up{peer=\"a\\\"b\\\\c\\nd\",kind=\"x\"} 1\n";
        assert_eq!(out.into_text(), expected);
    }

    #[test]
    fn buckets_add_up_and_end_at_infinity() {
        let mut totals = crate::stats::Totals::default();
        let counters = crate::stats::Counters::default();
        [40, 60, 60, 99_000_000].into_iter().for_each(|us| counters.commit_waits.note(us));
        totals.add(&counters);
        let mut out = Exposition::default();
        out.histogram("wait_seconds", "How long.", &totals.commit_waits);
        let text = out.into_text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            lines[..2],
            ["wait_seconds_bucket{le=\"0.00005\"} 1", "wait_seconds_bucket{le=\"0.0001\"} 3",]
        );
        assert_eq!(
            lines[lines.len() - 4..],
            [
                "wait_seconds_bucket{le=\"30\"} 3",
                "wait_seconds_bucket{le=\"+Inf\"} 4",
                "wait_seconds_sum 99.00016",
                "wait_seconds_count 4",
            ]
        );
    }
}
