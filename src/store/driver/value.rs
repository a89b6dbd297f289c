//! Values, rows and the one SQL text: what both databases have in common.
//!
//! Four types cross the border: text, bigint, bytes and null. A statement is written once, with
//! `$1` parameters and a few placeholders that differ: `{lock}` and `{wait}` (row locks, PostgreSQL
//! only), `{bytes}` (the type of a blob), `{within}` (where in bytes others are, from 1 on), `{c}`
//! (order by bytes), `{keyed}` (a table that is the index of its key) and `{rows:…}` (the rows of
//! [`Tx::insert`](super::Tx::insert)).

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    id::Id,
    store::{Error, Result},
};

/// A parameter, which need not own its text, or a column, which does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Text(Cow<'a, str>),
    Int(i64),
    Bytes(Bytes),
}

impl Value<'_> {
    /// The same without whatever it borrowed from.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::Null => Value::Null,
            Value::Int(int) => Value::Int(int),
            Value::Bytes(bytes) => Value::Bytes(bytes),
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            Value::Null | Value::Int(_) | Value::Bytes(_) => None,
        }
    }
}

macro_rules! value_from {
    ($($type:ty => |$it:ident| $value:expr;)*) => {$(
        impl<'a> From<$type> for Value<'a> {
            fn from($it: $type) -> Value<'a> {
                $value
            }
        }
    )*};
}

value_from! {
    &'a str => |it| Value::Text(Cow::Borrowed(it));
    String => |it| Value::Text(Cow::Owned(it));
    &'a String => |it| Value::Text(Cow::Borrowed(it));
    i64 => |it| Value::Int(it);
    bool => |it| Value::Int(i64::from(it));
    Timestamp => |it| Value::Int(it.0);
    Bytes => |it| Value::Bytes(it);
    Vec<u8> => |it| Value::Bytes(it.into());
}

impl<'a, T: Id> From<&'a T> for Value<'a> {
    fn from(id: &'a T) -> Value<'a> {
        Value::Text(Cow::Borrowed(id.as_str()))
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(it: Option<T>) -> Value<'a> {
        it.map_or(Value::Null, Into::into)
    }
}

/// The parameters of a statement, in order.
macro_rules! params {
    ($($value:expr),* $(,)?) => { [$($crate::store::driver::Value::from($value)),*] };
}
pub(crate) use params;

/// One row of an answer. Columns are taken by position, in the order of the statement's text.
#[derive(Debug)]
pub(crate) struct Row(pub(crate) Vec<Value<'static>>);

impl Row {
    fn take(&mut self, index: usize) -> Result<Value<'static>> {
        match self.0.get_mut(index) {
            Some(value) => Ok(std::mem::replace(value, Value::Null)),
            None => Err(corrupt(index, "a column")),
        }
    }

    pub(crate) fn text(&mut self, index: usize) -> Result<String> {
        match self.take(index)? {
            Value::Text(text) => Ok(text.into_owned()),
            _ => Err(corrupt(index, "text")),
        }
    }

    pub(crate) fn text_or_null(&mut self, index: usize) -> Result<Option<String>> {
        match self.take(index)? {
            Value::Text(text) => Ok(Some(text.into_owned())),
            Value::Null => Ok(None),
            Value::Int(_) | Value::Bytes(_) => Err(corrupt(index, "text or null")),
        }
    }

    pub(crate) fn int(&mut self, index: usize) -> Result<i64> {
        self.int_or_null(index)?.ok_or_else(|| corrupt(index, "a number"))
    }

    pub(crate) fn int_or_null(&mut self, index: usize) -> Result<Option<i64>> {
        match self.take(index)? {
            Value::Int(int) => Ok(Some(int)),
            Value::Null => Ok(None),
            Value::Text(_) | Value::Bytes(_) => Err(corrupt(index, "a number or null")),
        }
    }

    pub(crate) fn flag(&mut self, index: usize) -> Result<bool> {
        Ok(self.int(index)? != 0)
    }

    pub(crate) fn time(&mut self, index: usize) -> Result<Timestamp> {
        self.int(index).map(Timestamp)
    }

    pub(crate) fn time_or_null(&mut self, index: usize) -> Result<Option<Timestamp>> {
        Ok(self.int_or_null(index)?.map(Timestamp))
    }

    pub(crate) fn bytes_or_null(&mut self, index: usize) -> Result<Option<Bytes>> {
        match self.take(index)? {
            Value::Bytes(bytes) => Ok(Some(bytes)),
            Value::Null => Ok(None),
            Value::Text(_) | Value::Int(_) => Err(corrupt(index, "bytes or null")),
        }
    }

    pub(crate) fn id<T: Id>(&mut self, index: usize) -> Result<T> {
        self.text(index)?.parse().map_err(|_| corrupt(index, T::PREFIX))
    }

    pub(crate) fn id_or_null<T: Id>(&mut self, index: usize) -> Result<Option<T>> {
        self.text_or_null(index)?
            .map(|text| text.parse().map_err(|_| corrupt(index, T::PREFIX)))
            .transpose()
    }

    pub(crate) fn json<T: serde::de::DeserializeOwned>(&mut self, index: usize) -> Result<T> {
        let text = self.text(index)?;
        serde_json::from_str(&text).map_err(Error::corrupt)
    }

    pub(crate) fn json_or_null<T: serde::de::DeserializeOwned>(
        &mut self,
        index: usize,
    ) -> Result<Option<T>> {
        self.text_or_null(index)?
            .map(|text| serde_json::from_str(&text).map_err(Error::corrupt))
            .transpose()
    }
}

fn corrupt(index: usize, wanted: &str) -> Error {
    Error::corrupt(anyhow::anyhow!("column {index} is not {wanted}"))
}

/// By a statement as the store writes it. These texts are long, there are sixty of them in a turn, and
/// no sender has a say in them, so nobody needs the hash that resists somebody who has.
pub(super) type ByText<T> = HashMap<String, T, foldhash::fast::RandomState>;

/// Which database a statement is put into words for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Rewrites the one text for a database.
pub(crate) fn rewrite(sql: &str, dialect: Dialect) -> String {
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(at) = rest.find(['$', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('$') {
            // SQLite numbers `$1` by first appearance; `?1` it numbers as written.
            out.push(if dialect == Dialect::Sqlite { '?' } else { '$' });
            rest = after;
        } else {
            let end = rest.find('}').map_or(rest.len(), |end| end + 1);
            out.push_str(&placeholder(&rest[1..end - 1], dialect));
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

fn placeholder(name: &str, dialect: Dialect) -> String {
    match (name, dialect) {
        ("lock", Dialect::Sqlite) => String::new(),
        ("lock", Dialect::Postgres) => "for update skip locked".to_owned(),
        ("wait", Dialect::Sqlite) => String::new(),
        ("wait", Dialect::Postgres) => "for update".to_owned(),
        ("bytes", Dialect::Sqlite) => "blob".to_owned(),
        ("bytes", Dialect::Postgres) => "bytea".to_owned(),
        // Small rows live in the tree of their key, where SQLite would else have two.
        ("keyed", Dialect::Sqlite) => "without rowid".to_owned(),
        ("keyed", Dialect::Postgres) => String::new(),
        ("within", Dialect::Sqlite) => "instr".to_owned(),
        // The function: the word without quotes has a syntax of its own.
        ("within", Dialect::Postgres) => "\"position\"".to_owned(),
        // PostgreSQL sorts text by locale unless told otherwise; SQLite always by bytes.
        ("c", Dialect::Sqlite) => String::new(),
        ("c", Dialect::Postgres) => "collate \"C\"".to_owned(),
        (name, dialect) => match name.strip_prefix("rows:") {
            Some(types) => rows(types, dialect),
            None => unreachable!("unknown placeholder {{{name}}} in an SQL text"),
        },
    }
}

/// The text of an insert with `{rows:…}` for so many rows at once: the letters of its columns, once for
/// each row.
pub(crate) fn repeated(sql: &str, n: usize) -> String {
    let Some((before, rest)) = sql.split_once("{rows:") else { return sql.to_owned() };
    let (types, after) = rest.split_once('}').unwrap_or((rest, ""));
    format!("{before}{{rows:{}}}{after}", vec![types; n].join(","))
}

fn rows(types: &str, dialect: Dialect) -> String {
    match dialect {
        Dialect::Sqlite => {
            // Numbered by appearance, which is their order.
            let row = |types: &str| format!("({})", vec!["?"; types.len()].join(", "));
            let rows: Vec<String> = types.split(',').map(row).collect();
            format!("values {}", rows.join(", "))
        }
        Dialect::Postgres => {
            let columns = types.chars().enumerate().map(|(index, kind)| {
                let n = index + 1;
                match kind {
                    't' => format!("${n}::text[]"),
                    'i' => format!("${n}::bigint[]"),
                    _ => format!("${n}::bytea[]"),
                }
            });
            format!("select * from unnest({})", columns.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_for_both() {
        let sql = "insert into t (a, b) {rows:ti} returning a -- $2 {lock}";
        assert_eq!(
            rewrite(sql, Dialect::Sqlite),
            "insert into t (a, b) values (?, ?) returning a -- ?2 "
        );
        assert_eq!(
            rewrite(
                &repeated("insert into t (a, b) {rows:ti} on conflict do nothing", 3),
                Dialect::Sqlite
            ),
            "insert into t (a, b) values (?, ?), (?, ?), (?, ?) on conflict do nothing"
        );
        assert_eq!(
            rewrite(sql, Dialect::Postgres),
            "insert into t (a, b) select * from unnest($1::text[], $2::bigint[]) returning a \
             -- $2 for update skip locked"
        );
    }
}
