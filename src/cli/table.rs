//! Tables and lists of fields, aligned by what shows and not by bytes.
//!
//! Invariant: everything that goes into a cell is made harmless and put on one line here, so a
//! payload's text cannot break a table or move the cursor.

use std::io::{self, Write};

use super::style::{Look, Style, look};
use crate::domain::text::printable;

/// Narrower than this a column says nothing.
const COLUMN_CHARS_MIN: usize = 7;

/// Columns that may be left out are, before others get narrower than this.
const COLUMN_CHARS_EASY: usize = 12;

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

/// Rows below a heading. Where the terminal is too narrow, columns are left out or get narrower.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug)]
struct Column {
    heading: &'static str,
    may_shrink: bool,
    may_go: bool,
}

impl Table {
    /// A column whose heading ends with `…` may be cut to fit the terminal, one that ends with `?`
    /// may be left out, the last ones first.
    pub(super) fn new(headings: &[&'static str]) -> Table {
        let column = |heading: &&'static str| Column {
            heading: heading.trim_end_matches(['…', '?']),
            may_shrink: heading.ends_with('…'),
            may_go: heading.ends_with('?'),
        };
        Table { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub(super) fn write(
        &self,
        out: &mut dyn Write,
        style: Style,
        width: Option<usize>,
    ) -> io::Result<()> {
        let shown = self.shown(width);
        let headings = self.columns.iter().map(|column| Cell::dim(column.heading)).collect();
        for cells in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            let mut owed = 0;
            for (column, width) in &shown {
                line.extend(std::iter::repeat_n(' ', owed));
                let cell = &cells[*column];
                let text = fitted(&cell.text, *width);
                line.push_str(&style.paint(cell.look, &text));
                owed = width - text.chars().count() + GAP;
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// The columns that are shown, by index, with their widths.
    fn shown(&self, width: Option<usize>) -> Vec<(usize, usize)> {
        let natural = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].text.chars().count());
            cells.max().unwrap_or(0).max(self.columns[column].heading.chars().count())
        };
        let mut shown: Vec<(usize, usize)> =
            (0..self.columns.len()).map(|column| (column, natural(column))).collect();
        let Some(width) = width else {
            return shown;
        };
        let may_shrink = |column: usize| self.columns[column].may_shrink;
        let easy = |shown: &[(usize, usize)]| {
            total(shown.iter().map(|(column, width)| match may_shrink(*column) {
                true => COLUMN_CHARS_EASY.min(*width),
                false => *width,
            }))
        };
        while easy(&shown) > width
            && let Some(at) = shown.iter().rposition(|(column, _)| self.columns[*column].may_go)
        {
            shown.remove(at);
        }
        while total(shown.iter().map(|(_, width)| *width)) > width {
            let wide = shown
                .iter_mut()
                .filter(|(column, width)| may_shrink(*column) && *width > COLUMN_CHARS_MIN);
            match wide.max_by_key(|(_, width)| *width) {
                Some((_, width)) => *width -= 1,
                None => break,
            }
        }
        shown
    }
}

/// Columns of these widths beside each other.
fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
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
        let mut table = Table::new(&["ID", "EVENT…", "TRIES?", "STATUS"]);
        let (first, second) = (Cell::new("invoice.paid"), Cell::new("größer\n\u{1b}[31m"));
        table.row(vec![Cell::new("dlv_1"), first, Cell::new("2"), Cell::badge("accepted")]);
        table.row(vec![Cell::new("dlv_22"), second, Cell::default(), Cell::badge("")]);
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
                ID      EVENT              TRIES  STATUS
                dlv_1   invoice.paid       2      accepted
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
                ESC[2mIDESC[0m      ESC[2mEVENTESC[0m    ESC[2mSTATUSESC[0m
                dlv_1   invoic…  ESC[32macceptedESC[0m
                dlv_22  größer…
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
