//! Where a mistake stands, and all mistakes together.

use std::fmt;
use std::path::{Path, PathBuf};

use super::settings::Settings;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// A line of the file, counted from one.
    Line(usize),
    /// An environment variable.
    Variable(String),
}

/// One thing that is wrong, or worth a second look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Where it stands.
    pub place: Place,
    /// The key's path, `sip.listen[1].transport`; empty for the file itself.
    pub key: String,
    /// What is wrong and what is allowed. Never repeats a secret.
    pub problem: String,
}

/// Everything that is wrong with a configuration, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    file: PathBuf,
    list: Vec<Mistake>,
}

/// Collects mistakes and warnings while a configuration is read.
pub(super) struct Report {
    file: PathBuf,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes, in the order of their lines.
    #[must_use]
    pub fn list(&self) -> &[Mistake] {
        &self.list
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write_mistake(f, &self.file, mistake)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

impl Mistake {
    /// The mistake as one line of text, with the name of the `file` it stands in.
    #[must_use]
    pub fn describe(&self, file: &Path) -> String {
        struct Line<'a>(&'a Mistake, &'a Path);
        impl fmt::Display for Line<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_mistake(f, self.1, self.0)
            }
        }
        Line(self, file).to_string()
    }
}

fn write_mistake(f: &mut fmt::Formatter<'_>, file: &Path, mistake: &Mistake) -> fmt::Result {
    match &mistake.place {
        Place::File => write!(f, "{}: ", file.display())?,
        Place::Line(line) => write!(f, "{}:{line}: ", file.display())?,
        Place::Variable(name) => write!(f, "environment variable {name}: ")?,
    }
    if !mistake.key.is_empty() {
        write!(f, "{}: ", mistake.key)?;
    }
    f.write_str(&mistake.problem)
}

impl Report {
    pub(super) fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), mistakes: Vec::new(), warnings: Vec::new() }
    }

    /// Notes something that is wrong; the configuration will not be used.
    pub(super) fn mistake(&mut self, place: Place, key: impl Into<String>, problem: impl Into<String>) {
        self.mistakes.push(Mistake { place, key: key.into(), problem: problem.into() });
    }

    /// Notes something that works and is worth a second look.
    pub(super) fn warning(&mut self, place: Place, key: impl Into<String>, problem: impl Into<String>) {
        self.warnings.push(Mistake { place, key: key.into(), problem: problem.into() });
    }

    /// The settings with the warnings, if nothing is wrong.
    pub(super) fn conclude(mut self, settings: Option<Settings>) -> Result<Settings, Mistakes> {
        match settings {
            Some(mut settings) if self.mistakes.is_empty() => {
                self.warnings.sort();
                settings.warnings = self.warnings;
                settings.file = self.file;
                Ok(settings)
            }
            _ => Err(self.into_mistakes()),
        }
    }

    pub(super) fn into_mistakes(mut self) -> Mistakes {
        self.mistakes.sort();
        self.mistakes.dedup();
        Mistakes { file: self.file, list: self.mistakes }
    }
}
