//! The decoder: from a spanned tree to values, collecting every mistake on the way instead of stopping at the first.

use std::collections::BTreeSet;

use super::ParseContext;
use super::check::References;
use super::diagnostic::{Diagnostic, Severity, did_you_mean, suggest};
use super::tree::{Field, Kind, Lines, Node};

/// More findings than anybody reads.
const DIAGNOSTICS_MAX: usize = 100;

/// Collects diagnostics while values are taken out of the tree. A `None` from any method means: it was reported.
pub(super) struct Decoder<'t> {
    pub(super) ctx: ParseContext<'t>,
    pub(super) references: References,
    lines: Lines<'t>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
}

/// One finding in the making: reported when `at` is called.
pub(super) struct Finding {
    pub(super) message: String,
    pub(super) found: Option<String>,
    pub(super) help: Option<String>,
}

impl Finding {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            found: None,
            help: None,
        }
    }

    pub(super) fn found(mut self, found: impl Into<String>) -> Self {
        self.found = Some(found.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

impl<'t> Decoder<'t> {
    pub(super) fn new(text: &'t str, ctx: &ParseContext<'t>) -> Self {
        Self {
            ctx: *ctx,
            references: References::default(),
            lines: Lines::new(text),
            diagnostics: Vec::new(),
            errors: 0,
        }
    }

    pub(super) fn error(&mut self, offset: usize, path: &str, finding: Finding) {
        self.report(Severity::Error, offset, path, finding);
    }

    pub(super) fn warning(&mut self, offset: usize, path: &str, finding: Finding) {
        self.report(Severity::Warning, offset, path, finding);
    }

    fn report(&mut self, severity: Severity, offset: usize, path: &str, finding: Finding) {
        self.errors += usize::from(severity == Severity::Error);
        let (line, column) = self.lines.position(offset);
        let Finding {
            message,
            found,
            help,
        } = finding;
        self.diagnostics.push(Diagnostic {
            severity,
            line,
            column,
            path: path.to_owned(),
            message,
            found,
            help,
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.error_count() > 0
    }

    pub(super) fn error_count(&self) -> usize {
        self.errors
    }

    /// Everything found, in order of place, errors kept when there is too much.
    pub(super) fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        let total = self.diagnostics.len();
        if total > DIAGNOSTICS_MAX {
            self.diagnostics
                .sort_by_key(|it| (it.severity != Severity::Error, it.line, it.column));
            self.diagnostics.truncate(DIAGNOSTICS_MAX);
        }
        self.diagnostics.sort_by_key(|it| (it.line, it.column));
        if total > DIAGNOSTICS_MAX {
            let last = self
                .diagnostics
                .last()
                .map_or((1, 1), |it| (it.line, it.column));
            self.diagnostics.push(Diagnostic {
                severity: Severity::Error,
                line: last.0,
                column: last.1,
                path: String::new(),
                message: format!("and {} more", total - DIAGNOSTICS_MAX),
                found: None,
                help: None,
            });
        }
        self.diagnostics
    }

    /// The line of an offset, for a message that points elsewhere.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.position(offset).0
    }

    pub(super) fn wrong<T>(&mut self, node: &Node, path: &str, expected: &str) -> Option<T> {
        self.error(
            node.offset,
            path,
            Finding::new(format!("expected {expected}")).found(describe(node)),
        );
        None
    }

    /// Opens `( ... )`.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, path: &str) -> Option<Fields<'n>> {
        match &node.kind {
            Kind::Struct(fields) => Some(self.open(node.offset, path, fields)),
            Kind::Call { name, .. } | Kind::PositionalCall { name } => {
                let finding =
                    Finding::new("expected `(field: value, ...)`").found(format!("`{name}(...)`"));
                self.error(
                    node.offset,
                    path,
                    finding.help(format!("leave `{name}` out")),
                );
                None
            }
            Kind::Map(_) => {
                let finding =
                    Finding::new("expected `(field: value, ...)`").found("a map in `{ }`");
                self.error(
                    node.offset,
                    path,
                    finding.help("write `(` `)`, and the field names without quotes"),
                );
                None
            }
            _ => self.wrong(node, path, "`(field: value, ...)`"),
        }
    }

    /// Opens the `( ... )` after a name.
    pub(super) fn open<'n>(
        &mut self,
        offset: usize,
        path: &str,
        fields: &'n [Field],
    ) -> Fields<'n> {
        let mut names = BTreeSet::new();
        for field in fields {
            if !names.insert(field.name.as_str()) {
                let path = join(path, &field.name);
                self.error(
                    field.offset,
                    &path,
                    Finding::new("this field is given twice"),
                );
            }
        }
        Fields {
            path: path.to_owned(),
            offset,
            fields,
            known: Vec::new(),
            missing: Vec::new(),
        }
    }

    /// The elements of a list that decode; the others are reported.
    pub(super) fn list<T>(
        &mut self,
        node: &Node,
        path: &str,
        mut element: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Kind::List(nodes) = &node.kind else {
            return self.wrong(node, path, "a list `[ ... ]`");
        };
        Some(
            nodes
                .iter()
                .enumerate()
                .filter_map(|(index, node)| element(self, node, &format!("{path}[{index}]")))
                .collect(),
        )
    }

    /// The entries of a map with string keys; duplicates and other keys are reported.
    pub(super) fn entries<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
    ) -> Option<Vec<(usize, String, &'n Node)>> {
        let Kind::Map(nodes) = &node.kind else {
            return match node.kind {
                Kind::Struct(_) => {
                    let finding =
                        Finding::new("expected a map `{ \"key\": value, ... }`").found("`( ... )`");
                    self.error(
                        node.offset,
                        path,
                        finding.help("write `{` `}`, and the keys in quotes"),
                    );
                    None
                }
                _ => self.wrong(node, path, "a map `{ \"key\": value, ... }`"),
            };
        };
        let mut keys = BTreeSet::new();
        let mut entries: Vec<(usize, String, &Node)> = Vec::new();
        for (key, value) in nodes {
            match &key.kind {
                Kind::Text(text) => {
                    if !keys.insert(text.as_str()) {
                        self.error(
                            key.offset,
                            &key_path(path, text),
                            Finding::new("this key is given twice"),
                        );
                    }
                    entries.push((key.offset, text.clone(), value));
                }
                Kind::Word(word) => {
                    let finding = Finding::new("expected a key in quotes")
                        .found(format!("the bare word `{word}`"));
                    self.error(
                        key.offset,
                        path,
                        finding.help(format!("quote it: \"{word}\"")),
                    );
                }
                _ => self
                    .wrong::<()>(key, path, "a key in quotes")
                    .unwrap_or_default(),
            }
        }
        Some(entries)
    }

    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.kind {
            Kind::Text(text) => Some(text.clone()),
            Kind::Word(word) => {
                let finding =
                    Finding::new("expected a string").found(format!("the bare word `{word}`"));
                self.error(
                    node.offset,
                    path,
                    finding.help(format!("quote it: \"{word}\"")),
                );
                None
            }
            _ => self.wrong(node, path, "a string"),
        }
    }

    pub(super) fn bool(&mut self, node: &Node, path: &str) -> Option<bool> {
        match &node.kind {
            Kind::Bool(value) => Some(*value),
            _ => self.wrong(node, path, "`true` or `false`"),
        }
    }

    /// One of a few words; quotes around it are forgiven.
    pub(super) fn word<T: Copy>(
        &mut self,
        node: &Node,
        path: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let all = words
            .iter()
            .map(|(name, _)| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
        let (Kind::Word(word) | Kind::Text(word)) = &node.kind else {
            return self.wrong(node, path, &format!("one of {all}"));
        };
        let value = words
            .iter()
            .find(|(name, _)| name == word)
            .map(|(_, value)| *value);
        if value.is_none() {
            let finding = Finding::new(format!("expected one of {all}"))
                .found(format!("`{}`", shortened(word)));
            let help = did_you_mean(word, words.iter().map(|(name, _)| *name));
            self.error(node.offset, path, finding.maybe_help(help));
        }
        value
    }
}

/// The fields of one `( ... )`, each asked for once by name; `finish` reports those nobody asked for.
pub(super) struct Fields<'n> {
    pub(super) path: String,
    pub(super) offset: usize,
    fields: &'n [Field],
    known: Vec<&'static str>,
    missing: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// The value of a field, if it is there.
    pub(super) fn node(&mut self, name: &'static str) -> Option<(&'n Node, String)> {
        self.known.push(name);
        // The last one wins where a field is given twice; that was reported.
        let field = self.fields.iter().rev().find(|field| field.name == name)?;
        Some((&field.value, join(&self.path, name)))
    }

    pub(super) fn optional<'t, T>(
        &mut self,
        decoder: &mut Decoder<'t>,
        name: &'static str,
        decode: impl FnOnce(&mut Decoder<'t>, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        let (node, path) = self.node(name)?;
        if let Kind::Word(word) = &node.kind
            && word == "None"
        {
            decoder.error(
                node.offset,
                &path,
                Finding::new("expected a value")
                    .found("`None`")
                    .help("leave the field out"),
            );
            return None;
        }
        decode(decoder, node, &path)
    }

    pub(super) fn required<'t, T>(
        &mut self,
        decoder: &mut Decoder<'t>,
        name: &'static str,
        decode: impl FnOnce(&mut Decoder<'t>, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        if !self.fields.iter().any(|field| field.name == name) {
            self.missing.push(name);
        }
        self.optional(decoder, name, decode)
    }

    /// Where a field stands, or its struct where it is left out.
    pub(super) fn offset_of(&self, name: &str) -> usize {
        self.fields
            .iter()
            .rev()
            .find(|field| field.name == name)
            .map_or(self.offset, |field| field.value.offset)
    }

    /// The text of a field that somebody else asks for.
    pub(super) fn text_of(&self, name: &str) -> Option<&str> {
        let field = self.fields.iter().rev().find(|field| field.name == name)?;
        match &field.value.kind {
            Kind::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name == name)
    }

    /// Reports fields that nobody asked for, and required ones that nobody gave.
    pub(super) fn finish(self, decoder: &mut Decoder<'_>) {
        let mut missing = self.missing;
        let given: BTreeSet<&str> = self
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        let free: Vec<&str> = self
            .known
            .iter()
            .copied()
            .filter(|name| !given.contains(name))
            .collect();
        for field in self.fields {
            if self.known.contains(&field.name.as_str()) {
                continue;
            }
            let meant = suggest(&field.name, free.iter().copied());
            // A misspelt required field is one mistake, not two.
            missing.retain(|name| Some(*name) != meant);
            let help = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if self.known.is_empty() => "there are no fields here".to_owned(),
                None => format!("there are {}", listed(&self.known)),
            };
            let path = join(&self.path, &shortened(&field.name));
            decoder.error(
                field.offset,
                &path,
                Finding::new("unknown field").help(help),
            );
        }
        for name in missing {
            decoder.error(
                self.offset,
                &self.path,
                Finding::new(format!("the field `{name}` is missing")),
            );
        }
    }
}

/// `a, b and c`, in backticks.
pub(super) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let quoted: Vec<_> = names
        .iter()
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// `a.b`, or `b` at the top.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// `a["key"]`.
pub(super) fn key_path(path: &str, key: &str) -> String {
    format!("{path}[\"{}\"]", shortened(key))
}

/// What stands there, short and on one line.
pub(super) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::Struct(_) => "`( ... )`".to_owned(),
        Kind::Call { name, .. } | Kind::PositionalCall { name } => {
            format!("`{}(...)`", shortened(name))
        }
        Kind::Word(word) => format!("the bare word `{}`", shortened(word)),
        Kind::Map(_) => "a map".to_owned(),
        Kind::List(_) => "a list".to_owned(),
        Kind::Text(text) => format!("\"{}\"", shortened(text)),
        Kind::Integer(value) => format!("the number {value}"),
        Kind::Float(value) => format!("the number {value}"),
        Kind::Bool(value) => format!("`{value}`"),
        Kind::Other(words) => (*words).to_owned(),
    }
}

/// At most 60 characters, control characters escaped: it goes to a terminal.
pub(super) fn shortened(text: &str) -> String {
    let escape = |c: char| -> String {
        if c.is_control() {
            c.escape_default().collect()
        } else {
            c.to_string()
        }
    };
    let mut short: String = text.chars().take(60).map(escape).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}
