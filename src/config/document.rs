//! The TOML file as a source for the crate `config`: each value carries the number of its line as its origin.
//!
//! `config` reads TOML by itself but forgets where a value stood, so the file is parsed here and handed over as values.

use std::collections::HashMap;

use config::{ConfigError, Map, Source, Value, ValueKind};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::report::{Place, Report};

/// A parsed file.
#[derive(Clone, Debug)]
pub(super) struct Document {
    root: Map<String, Value>,
    lines: HashMap<String, usize>,
    end: usize,
}

/// Turns byte offsets into line numbers.
struct Lines(Vec<usize>);

impl Document {
    /// Parses `text`. Syntax errors are all reported; then there is nothing to go on with.
    pub(super) fn parse(text: &str, report: &mut Report) -> Option<Self> {
        let lines = Lines::of(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let place = error.span().map_or(Place::File, |span| Place::Line(lines.number(span.start)));
            report.mistake(place, "", format!("not TOML: {}", error.message()));
        }
        if !errors.is_empty() {
            return None;
        }
        let mut root = convert_table(table.get_ref(), &lines);
        let mut sections = HashMap::new();
        for (key, _) in table.get_ref() {
            let (name, line) = (key.get_ref().to_string(), lines.number(key.span().start));
            // `config` would read a quoted key such as "sip.domain" as a path.
            if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                root.remove(&name);
                report.mistake(Place::Line(line), name, "is not a known section; sections have no quotes");
                continue;
            }
            sections.insert(name, line);
        }
        Some(Self { root, lines: sections, end: text.lines().count().max(1) })
    }

    /// The lines of the keys at the top level. Merging keeps the origin of values, but not of tables.
    pub(super) fn lines(&self) -> &HashMap<String, usize> {
        &self.lines
    }

    /// The last line: where what is missing would have to be added.
    pub(super) fn end(&self) -> usize {
        self.end
    }
}

impl Source for Document {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.root.clone())
    }
}

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n').map(|(offset, _)| offset).collect())
    }

    fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|&newline| newline < offset) + 1
    }
}

fn convert_table(table: &DeTable<'_>, lines: &Lines) -> Map<String, Value> {
    let entry = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let line = match value.get_ref() {
            // A table's span is its header; the key of `[[tenant]]` would name the first of them for all.
            DeValue::Table(_) => value.span().start,
            _ => key.span().start,
        };
        (key.get_ref().to_string(), convert(value, lines.number(line), lines))
    };
    table.iter().map(entry).collect()
}

fn convert_array(array: &DeArray<'_>, lines: &Lines) -> Vec<Value> {
    array.iter().map(|value| convert(value, lines.number(value.span().start), lines)).collect()
}

fn convert(value: &Spanned<DeValue<'_>>, line: usize, lines: &Lines) -> Value {
    let kind = match value.get_ref() {
        DeValue::String(text) => ValueKind::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => ValueKind::I64(number),
            // No key takes a number this large; as a float it is refused like any other wrong type.
            Err(_) => ValueKind::Float(f64::INFINITY),
        },
        DeValue::Float(number) => ValueKind::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => ValueKind::Boolean(*flag),
        // No key takes a date, so none may pass as text.
        DeValue::Datetime(_) => ValueKind::Nil,
        DeValue::Array(array) => ValueKind::Array(convert_array(array, lines)),
        DeValue::Table(table) => ValueKind::Table(convert_table(table, lines)),
    };
    Value::new(Some(&line.to_string()), kind)
}
