//! A table of text: aligned by columns of the terminal, the widest column cut when the line would be too long.

use super::human::{one_line, pad};
use super::printer::{Printer, Tone};
use std::io;
use unicode_width::UnicodeWidthStr as _;

/// No column is wider than this, terminal or not.
const COLUMN_WIDTH_MAX: usize = 120;
/// A column is not cut below this.
const COLUMN_WIDTH_MIN: usize = 8;
const GAP: usize = 2;

#[derive(Debug)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub fn new(head: &[&'static str]) -> Table {
        Table {
            head: head.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells beyond the head are ignored.
    pub fn row(&mut self, cells: Vec<(String, Tone)>) {
        let cells = cells.into_iter().take(self.head.len());
        self.rows
            .push(cells.map(|(text, tone)| (one_line(&text), tone)).collect());
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn print(&self, printer: &mut Printer) -> io::Result<()> {
        let widths = self.widths(printer.width());
        let head = self
            .head
            .iter()
            .map(|title| (title.to_owned(), Tone::Title));
        let head: Vec<_> = head.collect();
        printer.line(line(&widths, head.into_iter(), printer))?;
        for row in &self.rows {
            let cells = row.iter().map(|(text, tone)| (text.as_str(), *tone));
            printer.line(line(&widths, cells, printer))?;
        }
        Ok(())
    }

    fn widths(&self, line_width: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|title| title.width()).collect();
        for row in &self.rows {
            for (width, (text, _)) in widths.iter_mut().zip(row) {
                *width = (*width).max(text.width()).min(COLUMN_WIDTH_MAX);
            }
        }
        let Some(line_width) = line_width else {
            return widths;
        };
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > line_width {
            match widths.iter_mut().max_by_key(|width| **width) {
                Some(widest) if *widest > COLUMN_WIDTH_MIN => *widest -= 1,
                _ => break,
            }
        }
        widths
    }
}

fn line<'a>(
    widths: &[usize],
    cells: impl Iterator<Item = (&'a str, Tone)>,
    printer: &Printer,
) -> String {
    let mut out = String::new();
    // A column without a title shows only when a row has something in it.
    let shown = widths.iter().zip(cells).filter(|(width, _)| **width > 0);
    for (width, (text, tone)) in shown {
        if !out.is_empty() {
            out.push_str("  ");
        }
        out.push_str(&printer.paint(&pad(text, *width), tone));
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_column_gives_way_until_the_line_fits() {
        let mut table = Table::new(&["ID", "NAME", "NOTE"]);
        table.row(vec![
            ("1".into(), Tone::Plain),
            ("portrait".into(), Tone::Plain),
            ("x".repeat(300), Tone::Plain),
        ]);
        assert_eq!(table.widths(Some(80)), [2, 8, 66]);
        assert_eq!(table.widths(None), [2, 8, COLUMN_WIDTH_MAX]);
    }
}
