//! Tables and lists of fields, aligned by what shows and not by bytes.
//!
//! Invariant: everything that goes into a cell is made harmless and put on one line here, so a
//! payload's text cannot break a table or move the cursor.

use std::io::{self, Write};

use super::style::{Look, Style, look};
use crate::domain::text::printable;

/// Narrower than this a column says nothing.
const COLUMN_CHARS_MIN: usize = 8;

/// Between columns.
const GAP: usize = 2;

#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    look: Look,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>) -> Cell {
        Cell { text: one_line(text.as_ref()), look: Look::Plain }
    }

    /// A state, in its colour. Nothing for a state that is not there.
    pub(super) fn badge(state: &str) -> Cell {
        Cell { text: one_line(state), look: look(state) }
    }

    pub(super) fn dim(text: impl AsRef<str>) -> Cell {
        Cell { look: Look::Dim, ..Cell::new(text) }
    }

    pub(super) fn strong(text: impl AsRef<str>) -> Cell {
        Cell { look: Look::Strong, ..Cell::new(text) }
    }
}

/// Printable, and without line breaks.
pub(super) fn one_line(text: &str) -> String {
    printable(text).replace(['\n', '\t'], " ")
}

/// Rows below a heading. Where the terminal is too narrow, the columns that may shrink do.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    /// By index: whether the column may be cut.
    shrinks: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Columns whose heading ends with `…` may be cut to fit the terminal.
    pub(super) fn new(headings: &[&'static str]) -> Table {
        Table {
            headings: headings.iter().map(|it| it.trim_end_matches('…')).collect(),
            shrinks: headings.iter().map(|it| it.ends_with('…')).collect(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    pub(super) fn write(
        &self,
        out: &mut dyn Write,
        style: Style,
        width: Option<usize>,
    ) -> io::Result<()> {
        let widths = self.widths(width);
        let headings = self.headings.iter().map(Cell::dim).collect();
        for cells in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            let mut owed = 0;
            for (cell, width) in cells.iter().zip(&widths) {
                line.extend(std::iter::repeat_n(' ', owed));
                let text = fitted(&cell.text, *width);
                line.push_str(&style.paint(cell.look, &text));
                owed = width - text.chars().count() + GAP;
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn widths(&self, width: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.headings.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| row[column].text.chars().count());
                cells.max().unwrap_or(0).max(self.headings[column].chars().count())
            })
            .collect();
        let Some(width) = width else {
            return widths;
        };
        let gaps = GAP * widths.len().saturating_sub(1);
        loop {
            let total: usize = widths.iter().sum::<usize>() + gaps;
            let shrinkable = (0..widths.len())
                .filter(|column| self.shrinks[*column] && widths[*column] > COLUMN_CHARS_MIN);
            match shrinkable.max_by_key(|column| widths[*column]) {
                Some(column) if total > width => widths[column] -= 1,
                _ => return widths,
            }
        }
    }
}

/// The text, or its beginning and a mark that there is more.
pub(super) fn fitted(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// Names and values below each other; a field without a value is left out.
#[derive(Debug, Default)]
pub(super) struct Fields {
    rows: Vec<(&'static str, Cell, String)>,
}

impl Fields {
    pub(super) fn add(&mut self, name: &'static str, cell: Cell) -> &mut Fields {
        self.with(name, cell, "")
    }

    /// With a remark behind the value.
    pub(super) fn with(&mut self, name: &'static str, cell: Cell, remark: &str) -> &mut Fields {
        if !cell.text.is_empty() {
            self.rows.push((name, cell, one_line(remark)));
        }
        self
    }

    pub(super) fn write(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let width = self.rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
        for (name, cell, remark) in &self.rows {
            let name = style.dim(&format!("{name:width$}"));
            let value = style.paint(cell.look, &cell.text);
            match remark.as_str() {
                "" => writeln!(out, "{name}  {value}")?,
                remark => writeln!(out, "{name}  {value}  {}", style.dim(remark))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn example() -> Table {
        let mut table = Table::new(&["ID", "EVENT…", "STATUS"]);
        table.row(vec![Cell::new("dlv_1"), Cell::new("invoice.paid"), Cell::badge("accepted")]);
        table.row(vec![Cell::new("dlv_22"), Cell::new("größer\n\u{1b}[31m"), Cell::badge("")]);
        table
    }

    fn check(width: Option<usize>, color: bool, expected: &Expect) {
        let mut out = Vec::new();
        example().write(&mut out, Style { color }, width).unwrap();
        expected.assert_eq(&String::from_utf8(out).unwrap().replace('\u{1b}', "ESC"));
    }

    #[test]
    fn columns_are_aligned_and_cells_are_harmless() {
        check(
            None,
            false,
            &expect![[r#"
                ID      EVENT              STATUS
                dlv_1   invoice.paid       accepted
                dlv_22  größer \u{1b}[31m
            "#]],
        );
    }

    #[test]
    fn a_narrow_terminal_cuts_what_may_be_cut() {
        check(
            Some(28),
            false,
            &expect![[r#"
            ID      EVENT       STATUS
            dlv_1   invoice.p…  accepted
            dlv_22  größer \u…
        "#]],
        );
        check(
            Some(3),
            true,
            &expect![[r#"
            ESC[2mIDESC[0m      ESC[2mEVENTESC[0m     ESC[2mSTATUSESC[0m
            dlv_1   invoice…  ESC[32macceptedESC[0m
            dlv_22  größer …
        "#]],
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let mut fields = Fields::default();
        fields.add("id", Cell::new("dlv_1")).add("reason", Cell::new(""));
        fields.with("session", Cell::new("sesn_1"), "bellpull tail sesn_1");
        let mut out = Vec::new();
        fields.write(&mut out, Style { color: false }).unwrap();
        expect![[r#"
            id       dlv_1
            session  sesn_1  bellpull tail sesn_1
        "#]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }
}
