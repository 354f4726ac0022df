//! One chart as SVG: for each workload a ratio, sessiond / memcached, and its spread over the rounds.
//!
//! The same numbers give the same bytes. It brings its own background, in light and in dark, so it
//! is readable wherever it is shown.

use std::fmt::Write;

use crate::rounds::Ratio;

/// Which side of 1 is the good one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

/// What is drawn.
#[derive(Debug)]
pub(crate) struct Chart {
    /// The end of the file's name.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) better: Better,
    pub(crate) rows: Vec<(String, Ratio)>,
}

// In pixels.
const WIDTH: f64 = 760.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 64.0;
const ROW: f64 = 24.0;
const BOTTOM: f64 = 34.0;

/// Green for what is at least as good as memcached, orange for the rest: also told apart by the colour-blind.
const STYLE: &str = "\
.back{fill:#fff}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d1d9e0}.one{stroke:#59636e}\
.good{stroke:#0f766e;fill:#0f766e}.bad{stroke:#c2410c;fill:#c2410c}\
@media(prefers-color-scheme:dark){.back{fill:#0d1117}.text{fill:#f0f6fc}.faint{fill:#9198a1}\
.grid{stroke:#30363d}.one{stroke:#9198a1}\
.good{stroke:#2dd4bf;fill:#2dd4bf}.bad{stroke:#fb923c;fill:#fb923c}}";

/// Ratios lie on a logarithmic axis: half and double are equally far from 1.
struct Axis {
    lowest: f64,
    highest: f64,
}

impl Axis {
    const MARKS: [f64; 13] = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 10.0, 20.0];

    /// Reaches over all spreads, to a mark on both sides; 1 is always on it.
    fn over(rows: &[(String, Ratio)]) -> Self {
        let lowest = rows.iter().map(|(_, ratio)| ratio.lowest).fold(0.7, f64::min);
        let highest = rows.iter().map(|(_, ratio)| ratio.highest).fold(1.4, f64::max);
        let below = Self::MARKS.into_iter().rfind(|mark| *mark <= lowest);
        let above = Self::MARKS.into_iter().find(|mark| *mark >= highest);
        Self { lowest: below.unwrap_or(lowest), highest: above.unwrap_or(highest) }
    }

    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio / self.lowest).ln() / (self.highest / self.lowest).ln();
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let axis = Axis::over(&self.rows);
        let height = TOP + self.rows.len() as f64 * ROW + BOTTOM;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"system-ui,sans-serif\" font-size=\"13\" role=\"img\">\n\
             <title>{0}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
            self.title
        );
        svg += &text(16.0, 24.0, "text\" font-size=\"15\" font-weight=\"600", self.title);
        svg += &text(16.0, 44.0, "faint", self.explanation());
        svg += &grid(&axis, height);
        for (number, (name, ratio)) in self.rows.iter().enumerate() {
            let y = TOP + (number as f64 + 0.5) * ROW;
            svg += &self.row(&axis, y, name, *ratio);
        }
        svg + "</svg>\n"
    }

    fn explanation(&self) -> &'static str {
        match self.better {
            Better::Lower => "sessiond / memcached, median and spread; left of 1 is better",
            Better::Higher => "sessiond / memcached, median and spread; right of 1 is better",
        }
    }

    fn row(&self, axis: &Axis, y: f64, name: &str, ratio: Ratio) -> String {
        let is_good = match self.better {
            Better::Lower => ratio.median <= 1.0,
            Better::Higher => ratio.median >= 1.0,
        };
        let class = if is_good { "good" } else { "bad" };
        let [lowest, median, highest] =
            [ratio.lowest, ratio.median, ratio.highest].map(|value| axis.x(value));
        let mut row = text(LEFT - 12.0, y + 4.5, "text\" text-anchor=\"end", name);
        let _ = writeln!(
            row,
            "<path class=\"{class}\" d=\"M{lowest:.1} {y:.1}H{highest:.1}\" stroke-width=\"3\" \
             stroke-linecap=\"round\" stroke-opacity=\"0.5\"/>\n\
             <circle class=\"{class}\" cx=\"{median:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>",
        );
        let Ratio { median, lowest, highest } = ratio;
        let numbers = if lowest < highest {
            format!("{median:.2} ({lowest:.2}..{highest:.2})")
        } else {
            format!("{median:.2}")
        };
        row + &text(WIDTH - RIGHT + 14.0, y + 4.5, "text", &numbers)
    }
}

/// A line and a number at each mark.
fn grid(axis: &Axis, height: f64) -> String {
    let mut grid = String::new();
    let bottom = height - BOTTOM;
    for mark in Axis::MARKS.into_iter().filter(|mark| (axis.lowest..=axis.highest).contains(mark)) {
        let class = if mark == 1.0 { "one" } else { "grid" };
        let x = axis.x(mark);
        let _ = writeln!(grid, "<path class=\"{class}\" d=\"M{x:.1} {TOP}V{bottom}\"/>");
        grid += &text(x, bottom + 18.0, "faint\" text-anchor=\"middle", &mark.to_string());
    }
    grid
}

/// Names are ours: nothing in them needs escaping.
fn text(x: f64, y: f64, class: &str, content: &str) -> String {
    format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{content}</text>\n")
}
