//! Reads scripts; main.rs says what their lines mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::text::{Captured, Text};

/// One file.
#[derive(Debug)]
pub(crate) struct Script {
    /// The file's name without its `.txt`.
    pub(crate) name: String,
    /// What the server is started with.
    pub(crate) flags: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) enum Step {
    Connect(Connect),
    Exchange(Exchange),
}

#[derive(Clone, Debug)]
pub(crate) enum Connect {
    /// In place of the one in use.
    New,
    /// Open already, or opened now.
    Named(String),
    /// To node 2.
    OtherNode,
}

/// What is sent in one piece, and what comes back.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Where it starts in the file.
    pub(crate) line: usize,
    /// Repeated this long, until it fits.
    pub(crate) within: Option<Duration>,
    /// As written, for messages.
    pub(crate) source: Vec<String>,
    pub(crate) sent: Vec<Text>,
    pub(crate) answers: Vec<Answer>,
}

/// One thing that has to happen, or what happens instead elsewhere.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) line: usize,
    pub(crate) usual: Expected,
    /// By memcached release.
    stock: Vec<(String, Expected)>,
    differs: Vec<Expected>,
}

#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// As written, and what it means.
    Line(String, Text),
    Bytes(String, Text),
    /// Lines that don't matter, up to one that fits what follows.
    Skip,
    Closed,
    Open,
    Nothing,
}

/// Whose answers are expected.
#[derive(Clone, Debug)]
pub(crate) enum Expecting {
    Sessiond,
    /// memcached, this release.
    Stock(String),
}

impl Answer {
    pub(crate) fn expected(&self, of: &Expecting) -> Vec<Expected> {
        let instead: Vec<Expected> = match of {
            Expecting::Sessiond => self.differs.clone(),
            Expecting::Stock(release) => self
                .stock
                .iter()
                .filter(|(other, _)| other == release)
                .map(|(_, expected)| expected.clone())
                .collect(),
        };
        if instead.is_empty() { vec![self.usual.clone()] } else { instead }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(source, _) => write!(f, "< {source}"),
            Self::Bytes(source, _) => write!(f, "<< {source}"),
            Self::Skip => write!(f, "< ..."),
            Self::Closed => write!(f, "= closed"),
            Self::Open => write!(f, "= open"),
            Self::Nothing => write!(f, "(nothing)"),
        }
    }
}

/// The folder of the scripts.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire")
}

/// Every script, in the order of their names.
pub(crate) fn all() -> Vec<Script> {
    let entries = std::fs::read_dir(folder()).expect("a readable folder of scripts");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths.iter().map(|path| Script::read(path)).collect()
}

impl Script {
    pub(crate) fn exchanges(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Exchange(_))).count()
    }

    fn read(path: &Path) -> Self {
        let name = path.file_stem().expect("a name before .txt").to_string_lossy().into_owned();
        let source = std::fs::read_to_string(path).expect("a readable script");
        let mut script = Self { name, flags: Vec::new(), steps: Vec::new() };
        let mut within = None;
        for (at, line) in source.lines().enumerate() {
            let number = at + 1;
            if let Err(wrong) = script.add(number, line, &mut within) {
                panic!("{}:{number}: {wrong}: {line}", path.display());
            }
        }
        script
    }

    fn add(
        &mut self,
        number: usize,
        line: &str,
        within: &mut Option<Duration>,
    ) -> Result<(), String> {
        let (mark, argument) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" => return Ok(()),
            "$" if self.steps.is_empty() => {
                let expand = |flag: &str| Text::parse(flag)?.bytes(&Captured::new());
                for flag in argument.split(' ') {
                    self.flags.push(String::from_utf8_lossy(&expand(flag)?).into_owned());
                }
            }
            "!" | "@" => match (mark, argument.split_once(' ').unwrap_or((argument, ""))) {
                ("!", ("new", "connection")) => self.steps.push(Step::Connect(Connect::New)),
                ("!", ("connection", name)) => {
                    self.steps.push(Step::Connect(Connect::Named(name.into())));
                }
                ("@", ("other", "node")) => self.steps.push(Step::Connect(Connect::OtherNode)),
                ("@", ("within", time)) => {
                    let seconds = time.strip_suffix('s').and_then(|time| time.parse().ok());
                    *within = Some(Duration::from_secs(seconds.ok_or("expected e.g. 4s")?));
                }
                _ => return Err("unknown order".into()),
            },
            ">" => self.sending(number, line, within).push(Text::parse(argument)?.into_sent_line()),
            ">>" => self.sending(number, line, within).push(Text::parse(argument)?),
            "<" | "<<" | "=" => {
                let usual = expected(mark, argument)?;
                let answer = Answer { line: number, usual, stock: Vec::new(), differs: Vec::new() };
                self.receiving(number).answers.push(answer);
            }
            "~" => self.otherwise(argument)?,
            _ => return Err("unknown mark".into()),
        }
        Ok(())
    }

    /// The exchange that still sends, or a new one.
    fn sending(
        &mut self,
        number: usize,
        line: &str,
        within: &mut Option<Duration>,
    ) -> &mut Vec<Text> {
        let is_sending = match self.steps.last() {
            Some(Step::Exchange(exchange)) => exchange.answers.is_empty(),
            _ => false,
        };
        if !is_sending {
            let exchange = Exchange { line: number, within: within.take(), ..Exchange::default() };
            self.steps.push(Step::Exchange(exchange));
        }
        let exchange = self.receiving(number);
        exchange.source.push(line.into());
        &mut exchange.sent
    }

    /// The last exchange; one that sends nothing when a connection was just opened.
    fn receiving(&mut self, number: usize) -> &mut Exchange {
        if !matches!(self.steps.last(), Some(Step::Exchange(_))) {
            self.steps.push(Step::Exchange(Exchange { line: number, ..Exchange::default() }));
        }
        match self.steps.last_mut() {
            Some(Step::Exchange(exchange)) => exchange,
            _ => unreachable!("the last step is an exchange: one was just added"),
        }
    }

    fn otherwise(&mut self, argument: &str) -> Result<(), String> {
        let (who, what) = argument.split_once(':').ok_or("expected WHO: LINE")?;
        let what = what.strip_prefix(' ').unwrap_or(what);
        let expected = match what {
            "(nothing)" => Expected::Nothing,
            "= closed" | "= open" => expected("=", &what[2..])?,
            line => expected("<", line)?,
        };
        let answer = match self.steps.last_mut() {
            Some(Step::Exchange(exchange)) => exchange.answers.last_mut(),
            _ => None,
        };
        let answer = answer.ok_or("nothing is expected above")?;
        match who.strip_prefix("stock-") {
            Some(release) => answer.stock.push((release.into(), expected)),
            None if who == "differs" => answer.differs.push(expected),
            None => return Err(format!("{who} is unknown")),
        }
        Ok(())
    }
}

fn expected(mark: &str, argument: &str) -> Result<Expected, String> {
    let text = Text::parse(argument)?;
    Ok(match (mark, argument) {
        ("<", "...") => Expected::Skip,
        ("<", source) => Expected::Line(source.into(), text.into_line()),
        ("<<", source) => Expected::Bytes(source.into(), text),
        ("=", "closed") => Expected::Closed,
        ("=", "open") => Expected::Open,
        _ => return Err("expected closed or open".into()),
    })
}
