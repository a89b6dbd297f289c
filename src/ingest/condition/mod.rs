//! A condition on a delivery: an expression in CEL that comes to true or false.
//!
//! It is read once, with its source, and asked with every delivery. Invariants: whatever a sender
//! writes, asking ends within [`STEPS_MAX`] and comes to true, false or a reason in words, never to
//! a panic; a reason quotes names of fields and types, never values. Left out: what follows from the
//! answer; that is `route`'s.

mod json;
mod prepare;
mod steps;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Program, Value,
    common::{
        types::{CelBool, CelString},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};

use self::steps::Steps;
use super::Facts;
use crate::domain::text::{first_chars, printable};

/// Longer expressions are refused.
const BYTES_MAX: usize = 4096;

/// Enough for an expression of [`BYTES_MAX`] that is nothing but brackets or signs.
const READ_STACK_BYTES: usize = 64 * 1024 * 1024;

/// Steps that one delivery may cost: a step is an operation, an element that is looked at, or a
/// kibibyte of text.
const STEPS_MAX: u64 = 100_000;

/// What an expression may name.
pub(super) const NAMES: [&str; 7] =
    ["body", "headers", "event_type", "source", "content_type", "delivery_id", "received_at"];

/// The functions of CEL's standard library that need no time and no regular expressions, and ours.
fn environment() -> Arc<Env> {
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
        let mut env = Env::stdlib();
        steps::declare(&mut env).expect("the names are not taken");
        Arc::new(env)
    });
    ENVIRONMENT.clone()
}

pub(super) struct Condition {
    expression: IdedExpr,
    /// What of [`NAMES`] it names.
    names: Vec<&'static str>,
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition")
    }
}

impl Condition {
    /// Reads an expression; what is wrong with it is said with its place.
    pub(super) fn read(text: &str) -> Result<Condition, String> {
        if text.trim().is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > BYTES_MAX {
            return Err(format!("is longer than {BYTES_MAX} bytes"));
        }
        let read = || -> Result<Condition, String> {
            let program =
                environment().compile(text).map_err(|errors| match errors.errors.first() {
                    Some(error) => {
                        let (line, column) = error.pos;
                        format!("line {line}, column {column}: {}", first_line(&error.msg))
                    }
                    None => "is not an expression in CEL".to_owned(),
                })?;
            prepare(text, &program)
        };
        // The library's reader recurses, more than once for a sign.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(READ_STACK_BYTES);
            let reading = thread.spawn_scoped(scope, read).map_err(|error| error.to_string())?;
            reading.join().unwrap_or_else(|_| Err("cannot be read".to_owned()))
        })
    }

    /// Whether a delivery fulfils it, or what kept it from being asked.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Result<bool, String> {
        let ask = || {
            let names = Names::of(facts, &self.names);
            let mut context = Context::with_env(environment());
            context.set_variable_resolver(&names);
            let steps = Steps::allow(STEPS_MAX);
            let answer = Value::resolve_val(&self.expression, &context);
            if steps.are_used_up() {
                return Err(format!("takes more than {STEPS_MAX} steps for this delivery"));
            }
            let answer = answer.map_err(|error| in_words(&error))?;
            answer.downcast_ref::<CelBool>().map(|it| *it.inner()).ok_or_else(|| {
                format!(
                    "comes to a value of type {}, not to true or false",
                    answer.get_type().name()
                )
            })
        };
        catch_unwind(AssertUnwindSafe(ask))
            .unwrap_or_else(|_| Err("cannot be worked out for this delivery".to_owned()))
    }
}

fn prepare(text: &str, program: &Program) -> Result<Condition, String> {
    let mut expression = program.expression().clone();
    let names = prepare::prepare(&mut expression).map_err(|wrong| {
        match program.source_info().offset_for(wrong.at) {
            Some((start, _)) => {
                let (line, column) = place(text, start as usize);
                format!("line {line}, column {column}: {}", wrong.message)
            }
            None => wrong.message,
        }
    })?;
    Ok(Condition { expression, names })
}

/// Line and column of a character, from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.chars().take(at);
    let line = before.clone().filter(|char| *char == '\n').count() + 1;
    let column =
        before.collect::<Vec<_>>().rsplit(|char| *char == '\n').next().map_or(0, <[_]>::len);
    (line, column + 1)
}

/// Without the list of everything else that could have stood there.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(" expecting ").next().unwrap_or_default();
    printable(first_chars(line, WORDS_CHARS_MAX).0)
}

const WORDS_CHARS_MAX: usize = 200;

/// What went wrong, in words that quote no value of the delivery.
fn in_words(error: &ExecutionError) -> String {
    let name = |name: &str| printable(first_chars(name, 64).0);
    match error {
        ExecutionError::NoSuchKey(key) => {
            let key = name(key);
            format!("there is no field `{key}`; ask whether it is there with has(…) first")
        }
        ExecutionError::NoSuchOverload(overload) => {
            let types = overload.argument_types().join(", ");
            format!("`{}` cannot be used on: {types}", operator(overload.function()))
        }
        ExecutionError::UndeclaredReference(what) => format!("`{}` is not known", name(what)),
        ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
            format!("the operation `{operator}` cannot be used on these types")
        }
        ExecutionError::IndexOutOfBounds(_) => {
            "a list has fewer elements than asked for".to_owned()
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number becomes too large".to_owned(),
        ExecutionError::UnexpectedType { got, want } => format!("a {want} is wanted, not a {got}"),
        ExecutionError::FunctionError { function, .. } => {
            format!("`{}` cannot make anything of its value", operator(function))
        }
        _ => "it cannot be worked out for this delivery".to_owned(),
    }
}

/// An operator as it is written.
fn operator(function: &str) -> &str {
    match function {
        "_._" => ".",
        "_[_]" => "[…]",
        "_?_:_" => "? :",
        name => name.trim_matches(['_', '@']),
    }
}

/// What the names stand for that an expression has; nothing is made for the others.
struct Names<'a>(Vec<(&'static str, Known<'a>)>);

enum Known<'a> {
    Json(&'a serde_json::Value),
    Text(Option<&'a str>),
}

impl<'a> Names<'a> {
    fn of(facts: &'a Facts<'_>, names: &[&'static str]) -> Names<'a> {
        let known = |name: &&'static str| {
            let known = match *name {
                "body" => Known::Json(facts.body()),
                "headers" => Known::Json(facts.headers()),
                "event_type" => Known::Text(facts.event_type),
                "source" => Known::Text(Some(facts.source)),
                "content_type" => Known::Text(facts.content_type()),
                "delivery_id" => Known::Text(Some(facts.delivery_id())),
                "received_at" => Known::Text(Some(facts.received_at())),
                _ => return None,
            };
            Some((*name, known))
        };
        Names(names.iter().filter_map(known).collect())
    }
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let (_, known) = self.0.iter().find(|(known, _)| *known == name)?;
        let value: Box<dyn Val + 'b> = match known {
            Known::Json(value) => json::value(value),
            Known::Text(Some(text)) => Box::new(CelString::from(*text)),
            Known::Text(None) => json::value(&serde_json::Value::Null),
        };
        Some(CowVal::Owned(value))
    }
}

#[cfg(test)]
mod tests;
