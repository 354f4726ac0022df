//! The parts of a run that measure no speed: memory and instructions. Each is printed as soon as it is known.

use crate::charts;
use crate::crowd;
use crate::failure::Failure;
use crate::group;
use crate::instructions;
use crate::members;
use crate::memory;
use crate::options::Options;
use crate::plot::Chart;
use crate::rejoin;
use crate::replicated;
use crate::report;
use crate::rounds::Programs;
use crate::sections;

/// What these parts add to the file.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) sections: Vec<String>,
    pub(crate) charts: Vec<Chart>,
}

/// Measures what was asked for.
pub(crate) fn measure(options: &Options, programs: &Programs) -> Result<Extras, Failure> {
    let mut extras = Extras::default();
    if options.wants_memory() {
        compare_memory(programs, &mut extras)?;
    }
    if options.wants_group() {
        extras.add(sections::group(&group::compare(programs, options.pace())?));
    }
    if options.wants_replicated() {
        extras.add(sections::replicated(&replicated::compare(programs, options.pace())?));
        extras.add(sections::members(&members::measure(programs, options.pace())?));
    }
    if options.wants_rejoin() {
        extras.add(sections::rejoin(&rejoin::measure(&programs.sessiond, options.quick)?));
    }
    if options.wants_instructions() {
        count_instructions(programs, &mut extras)?;
    }
    Ok(extras)
}

fn compare_memory(programs: &Programs, extras: &mut Extras) -> Result<(), Failure> {
    let filled = memory::compare(programs)?;
    extras.add(sections::memory(&filled));
    extras.charts.push(charts::of_memory(&filled));
    let crowd = crowd::compare(programs)?;
    extras.add(sections::crowd(&crowd));
    extras.add(sections::kept_promises(&filled, &crowd));
    Ok(())
}

fn count_instructions(programs: &Programs, extras: &mut Extras) -> Result<(), Failure> {
    if !instructions::is_possible() {
        let because = "valgrind was not found (Debian: apt-get install valgrind)";
        extras.add(format!("instructions were not counted: {because}\n"));
        return Ok(());
    }
    let counted = instructions::compare(programs)?;
    extras.add(sections::instructions(&counted));
    extras.charts.push(charts::of_instructions(&counted));
    Ok(())
}

impl Extras {
    fn add(&mut self, section: String) {
        report::print_section(&section);
        self.sections.push(section);
    }
}
