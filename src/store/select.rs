//! The text of a list: what is selected, conditions that may be there, an order and a limit.
//!
//! Invariant: what comes from outside is a parameter and never part of the text. Left out: what leads
//! to which index, which the callers know.

use std::collections::HashMap;

use super::{
    Result,
    driver::{Row, Tx, Value},
};
use crate::{domain::session::Session, id::SessionId};

/// `$1, $2, …` for a list of so many.
pub(super) fn marks(n: usize) -> String {
    let marks: Vec<String> = (1..=n).map(|n| format!("${n}")).collect();
    marks.join(", ")
}

/// Marks and values for a list of ids, the last of them more than once: in as many marks as the next power
/// of two, so that the texts are few and stay prepared.
pub(super) fn padded<'a, T>(ids: &'a [T]) -> (String, Vec<Value<'a>>)
where
    Value<'a>: From<&'a T>,
{
    let n = ids.len().next_power_of_two();
    let values: Vec<Value> =
        ids.iter().chain(ids.last().into_iter().cycle()).take(n).map(Value::from).collect();
    (marks(values.len()), values)
}

/// For `like`, whose signs stand for themselves here.
fn pattern(text: &str) -> String {
    format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"))
}

/// What each of these sessions has of a table, in its order; `columns` names the table, too.
pub(super) fn of_sessions<T>(
    tx: &mut Tx<'_>,
    columns: &str,
    sessions: &[Session],
    from_row: impl Fn(Row) -> Result<(SessionId, T)>,
) -> Result<HashMap<SessionId, Vec<T>>> {
    let mut found: HashMap<SessionId, Vec<T>> = HashMap::new();
    if sessions.is_empty() {
        return Ok(found);
    }
    let ids: Vec<Value> = sessions.iter().map(|session| (&session.id).into()).collect();
    let marks = marks(ids.len());
    let sql = format!("select {columns} where session_id in ({marks}) order by id");
    for row in tx.query(&sql, &ids)? {
        let (session, one) = from_row(row)?;
        found.entry(session).or_default().push(one);
    }
    Ok(found)
}

/// A statement that grows condition by condition.
#[derive(Debug)]
pub(super) struct Select<'a> {
    sql: String,
    values: Vec<Value<'a>>,
}

impl<'a> Select<'a> {
    /// Begins with a text that has a condition already, and its parameters.
    pub(super) fn new(sql: impl Into<String>, values: impl Into<Vec<Value<'a>>>) -> Select<'a> {
        Select { sql: sql.into(), values: values.into() }
    }

    /// A column and a mark, such as `id <`, and what it is compared with.
    pub(super) fn and(&mut self, text: &str, value: impl Into<Value<'a>>) {
        let mark = self.mark(value);
        self.and_text(&format!("{text} {mark}"));
    }

    /// As [`Select::and`], where there is something to compare with.
    pub(super) fn and_some(&mut self, text: &str, value: Option<impl Into<Value<'a>>>) {
        if let Some(value) = value {
            self.and(text, value);
        }
    }

    /// Whether a column is one of these; any of them where there is none.
    pub(super) fn and_among(
        &mut self,
        column: &str,
        values: impl IntoIterator<Item = impl Into<Value<'a>>>,
    ) {
        let marks: Vec<String> = values.into_iter().map(|value| self.mark(value)).collect();
        if !marks.is_empty() {
            self.and_text(&format!("{column} in ({})", marks.join(", ")));
        }
    }

    /// A condition of constants: only so the text leads to an index that is for some rows alone.
    pub(super) fn and_text(&mut self, text: &str) {
        self.sql.push_str(" and ");
        self.sql.push_str(text);
    }

    /// Makes a value a parameter, and answers how the text names it.
    pub(super) fn mark(&mut self, value: impl Into<Value<'a>>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// Whether one of these columns has a text in it: in the letters as given, or, as far as a database
    /// knows their small forms, in others.
    pub(super) fn has(&mut self, columns: &[&str], text: &str) -> String {
        let (given, lower) = (pattern(text), pattern(&text.to_lowercase()));
        // What has no capitals is found by the second.
        let given = (given != lower).then(|| self.mark(given));
        let lower = self.mark(lower);
        let of = |column: &&str| {
            let given = given
                .as_ref()
                .map_or_else(String::new, |given| format!("{column} like {given} escape '\\' or "));
            format!("{given}lower({column}) like {lower} escape '\\'")
        };
        format!("({})", columns.iter().map(of).collect::<Vec<_>>().join(" or "))
    }

    pub(super) fn into_parts(self) -> (String, Vec<Value<'a>>) {
        (self.sql, self.values)
    }

    /// In an order, such as `id desc`, and one more than wanted: that row tells of a next page.
    pub(super) fn page(mut self, order: &str, limit: usize) -> (String, Vec<Value<'a>>) {
        let mark = self.mark(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1));
        self.sql.push_str(&format!(" order by {order} limit {mark}"));
        self.into_parts()
    }
}
