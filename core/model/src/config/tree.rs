//! The spanned tree of a RON text: the only place that knows `ron2`.
//!
//! Nothing is judged here but syntax. Every node keeps its byte offset, so that whoever judges it can say where it is.

use ron2::ErrorKind;
use ron2::ast::{Expr, NumberKind, StructBody, StructField, parse_document_lossy};

/// A value and where it starts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) offset: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `(field: value, ...)`
    Struct(Vec<Field>),
    /// `Name(field: value, ...)`
    Call {
        name: String,
        fields: Vec<Field>,
    },
    /// `Name("value")`, `Name(1, 2)`
    PositionalCall {
        name: String,
    },
    /// A bare word.
    Word(String),
    /// `{ key: value, ... }`
    Map(Vec<(Node, Node)>),
    List(Vec<Node>),
    Text(String),
    Integer(i128),
    Float(f64),
    Bool(bool),
    /// What RON has and we have no use for; in words.
    Other(&'static str),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) offset: usize,
    pub(super) name: String,
    pub(super) value: Node,
}

impl Node {
    /// The node at a path such as `sources[0].config`, or the last one on the way there.
    pub(super) fn descend(&self, path: &str) -> &Node {
        let steps = path
            .split(['.', '['])
            .map(|step| step.trim_end_matches(']'));
        let mut node = self;
        for step in steps {
            let next = match &node.kind {
                Kind::Struct(fields) | Kind::Call { fields, .. } => (fields.iter())
                    .find(|field| field.name == step)
                    .map(|field| &field.value),
                Kind::List(items) => step.parse().ok().and_then(|n: usize| items.get(n)),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

/// A mistake in the syntax, in our words.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SyntaxError {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// Reads the text. Where only commas are missing the tree is whole and comes along; else the first mistake is the only
/// one told, since what follows it is guesswork.
pub(super) fn read(text: &str) -> (Option<Node>, Vec<SyntaxError>) {
    let (document, errors) = parse_document_lossy(text);
    let fatal = errors.iter().find(|error| !is_missing_comma(error.kind()));
    let whole = fatal.is_none();
    let mut syntax_errors: Vec<_> = errors
        .iter()
        .take_while(|error| is_missing_comma(error.kind()))
        // A comma alone does not help where what follows it cannot stand there either.
        .filter(|error| {
            fatal.is_none_or(|fatal| fatal.span().start_offset != error.span().start_offset)
        })
        .chain(fatal)
        .map(|error| in_our_words(text, error))
        .collect();
    if !whole {
        return (None, syntax_errors);
    }
    let node = document.value.as_ref().map(node);
    if node.is_none() {
        syntax_errors.push(SyntaxError {
            offset: text.len(),
            message: "the file holds no configuration".into(),
            help: Some("write at least `()`".into()),
        });
    }
    (node, syntax_errors)
}

fn is_missing_comma(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Expected { expected, .. } if expected == "comma")
}

fn in_our_words(text: &str, error: &ron2::Error) -> SyntaxError {
    let offset = error.span().start_offset.min(text.len());
    let rest = text.get(offset..).unwrap_or_default();
    let found = match rest.chars().next() {
        None => "the end of the file".to_owned(),
        Some(c) => quoted(c),
    };
    let (message, help) = match error.kind() {
        ErrorKind::Eof => ("a value is missing: the file ends here".to_owned(), None),
        ErrorKind::UnexpectedChar(c) => (
            format!("unexpected character {}", quoted(*c)),
            character_help(*c),
        ),
        ErrorKind::UnclosedBlockComment => (
            "this comment is never closed".to_owned(),
            Some("end it with `*/`"),
        ),
        ErrorKind::ExpectedStringEnd => (
            "this string is never closed".to_owned(),
            Some("end it with `\"`"),
        ),
        ErrorKind::InvalidEscape(_) => (
            "this is no escape that strings know".to_owned(),
            Some("write `\\\\` for a backslash, or r\"...\" for a string without escapes"),
        ),
        ErrorKind::TrailingCharacters => (
            format!("expected the end of the file, found {found}"),
            Some("the configuration is one `( ... )`; is there a `)` too many before this?"),
        ),
        ErrorKind::ExceededRecursionLimit => ("nested too deeply".to_owned(), None),
        _ if rest.starts_with('#') => (
            "unexpected character `#`".to_owned(),
            Some("comments start with `//`"),
        ),
        ErrorKind::Expected { expected, .. } => expected_in_our_words(expected, &found),
        _ => (format!("this is not RON, found {found}"), None),
    };
    if let Some((start, quantity)) = bare_quantity(text, offset) {
        return SyntaxError {
            offset: start,
            message: format!("unexpected `{quantity}`"),
            help: Some(format!(
                "durations and sizes stand in quotes: \"{quantity}\""
            )),
        };
    }
    let mut help = help.map(str::to_owned);
    if let Some(help) = help.as_mut().filter(|help| help.contains("not closed?"))
        && let Some((bracket, at)) = open_bracket(text, offset)
    {
        let (line, column) = Lines::new(text).position(at);
        help.push_str(&format!(
            "; the innermost open one is the `{bracket}` at {line}:{column}"
        ));
    }
    SyntaxError {
        offset,
        message,
        help,
    }
}

/// `2s` or `32MiB` without quotes, with its place, where a mistake was found at its number, its unit or right behind it.
fn bare_quantity(text: &str, offset: usize) -> Option<(usize, &str)> {
    const UNITS: [&str; 10] = ["ms", "s", "m", "h", "d", "w", "B", "KiB", "MiB", "GiB"];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '.';
    let before = text.get(..offset)?.trim_end();
    let start = before.trim_end_matches(word).len();
    let rest = &text[start..];
    let rest = &rest[..rest.find(|c| !word(c)).unwrap_or(rest.len())];
    let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    (unit.len() < rest.len() && UNITS.contains(&unit)).then_some((start, rest))
}

/// The innermost bracket that is still open at `end`, and where it is. Strings and comments hold none.
fn open_bracket(text: &str, end: usize) -> Option<(char, usize)> {
    let mut open = Vec::new();
    let mut rest = text.get(..end)?;
    while let Some(c) = rest.chars().next() {
        let at = end - rest.len();
        let skip = match c {
            '"' => quoted_len(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            _ => c.len_utf8(),
        };
        match c {
            '(' | '[' | '{' => open.push((c, at)),
            ')' | ']' | '}' => drop(open.pop()),
            _ => {}
        }
        rest = &rest[skip..];
    }
    open.pop()
}

/// Bytes of the string that the text begins with, its quotes included.
fn quoted_len(text: &str) -> usize {
    let mut escaped = true;
    let end = text.char_indices().find(|(_, c)| {
        let is_end = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

fn quoted(c: char) -> String {
    match c {
        _ if c.is_control() => format!("`{}`", c.escape_default()),
        _ => format!("`{c}`"),
    }
}

fn character_help(c: char) -> Option<&'static str> {
    match c {
        '\'' => Some("strings stand in double quotes"),
        ':' => Some("is a bracket before this not closed? And field names stand without quotes"),
        '=' => Some("write `name: value`"),
        _ => None,
    }
}

fn expected_in_our_words(expected: &str, found: &str) -> (String, Option<&'static str>) {
    match expected {
        "comma" => (format!("expected `,` before this, found {found}"), None),
        "`:` after map key" => (
            format!("expected `name: value`, found {found}"),
            Some("is there a `:` or a `,` missing?"),
        ),
        "value" => ("a value is missing".to_owned(), None),
        "identifier" => (
            format!("expected the name of a field, found {found}"),
            Some("field names are not quoted"),
        ),
        closing if closing.starts_with("closing ") => {
            let bracket = ["`)`", "`]`", "`}`"]
                .into_iter()
                .find(|b| closing.contains(*b))
                .unwrap_or("`)`");
            (
                format!("expected `,` or {bracket}, found {found}"),
                Some("is a bracket before this not closed?"),
            )
        }
        other => (format!("expected {other}, found {found}"), None),
    }
}

fn node(expr: &Expr<'_>) -> Node {
    let kind = match expr {
        Expr::Unit(_) => Kind::Struct(Vec::new()),
        Expr::Bool(value) => Kind::Bool(value.value),
        Expr::Number(number) => number_kind(&number.raw, &number.kind),
        Expr::String(value) => Kind::Text(value.value.clone()),
        Expr::Option(option) => match &option.value {
            // `Some(x)` is what serde's habit makes people write; it means x.
            Some(value) => return node(&value.expr),
            None => Kind::Word("None".into()),
        },
        Expr::Seq(list) => Kind::List(list.items.iter().map(|item| node(&item.expr)).collect()),
        Expr::Map(map) => Kind::Map(
            map.entries
                .iter()
                .map(|entry| (node(&entry.key), node(&entry.value)))
                .collect(),
        ),
        Expr::AnonStruct(value) => Kind::Struct(fields(&value.fields)),
        Expr::Struct(value) => {
            let name = plain(&value.name.name);
            match &value.body {
                None => Kind::Word(name),
                Some(StructBody::Fields(body)) => Kind::Call {
                    name,
                    fields: fields(&body.fields),
                },
                Some(StructBody::Tuple(body)) if body.elements.is_empty() => Kind::Call {
                    name,
                    fields: Vec::new(),
                },
                Some(StructBody::Tuple(_)) => Kind::PositionalCall { name },
            }
        }
        Expr::Char(_) => Kind::Other("a character in single quotes"),
        Expr::Byte(_) | Expr::Bytes(_) => Kind::Other("bytes"),
        Expr::Tuple(_) => Kind::Other("values in parentheses without names"),
        Expr::Error(_) => Kind::Other("an unreadable value"),
    };
    Node {
        offset: expr.span().start_offset,
        kind,
    }
}

fn fields(fields: &[StructField<'_>]) -> Vec<Field> {
    fields
        .iter()
        .map(|field| Field {
            offset: field.name.span.start_offset,
            name: plain(&field.name.name),
            value: node(&field.value),
        })
        .collect()
}

/// `r#for` is `for`.
fn plain(name: &str) -> String {
    name.strip_prefix("r#").unwrap_or(name).to_owned()
}

fn number_kind(raw: &str, kind: &NumberKind) -> Kind {
    let digits = raw.replace('_', "");
    let parsed = match kind {
        NumberKind::Integer | NumberKind::NegativeInteger => integer(&digits).map(Kind::Integer),
        NumberKind::Float => digits
            .parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .map(Kind::Float),
        NumberKind::SpecialFloat => None,
    };
    parsed.unwrap_or(Kind::Other("a number out of range"))
}

fn integer(digits: &str) -> Option<i128> {
    let (sign, magnitude) = match digits.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, digits.strip_prefix('+').unwrap_or(digits)),
    };
    let radix = match magnitude.get(..2) {
        Some("0x" | "0X") => 16,
        Some("0o" | "0O") => 8,
        Some("0b" | "0B") => 2,
        _ => 10,
    };
    let magnitude = if radix == 10 {
        magnitude
    } else {
        &magnitude[2..]
    };
    i128::from_str_radix(magnitude, radix)
        .ok()
        .map(|value| sign * value)
}

/// Turns byte offsets into lines and columns.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Offset of the first byte of each line.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    /// Line and column, both from 1; the column counts characters.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        let before = self
            .text
            .as_bytes()
            .get(start..offset.min(self.text.len()))
            .unwrap_or_default();
        // Bytes that start a character, so that an offset in the middle of one is no trouble.
        let column = before.iter().filter(|byte| (**byte as i8) >= -0x40).count() + 1;
        (line, column)
    }
}
