//! What an expression may cost, and the functions that count it.
//!
//! The library evaluates without a bound, so [`super::prepare`] puts these functions into each
//! expression: around everything that grows with the payload and into every round of a loop.

use std::cell::Cell;

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        traits::Sizer,
        types::{CelBool, CelList, CelString, DYN_TYPE, Kind, STRING_TYPE},
        value::{CowVal, Val},
    },
};

/// Counts its argument and hands it back.
pub(super) const COUNTED: &str = "@counted";
/// `==`, also between lists and maps of the payload and lists of the expression.
pub(super) const SAME: &str = "@same";
/// `in`, likewise.
pub(super) const AMONG: &str = "@among";

thread_local! {
    /// What is left for the expression that this thread works out; `None` when it took more.
    static LEFT: Cell<Option<u64>> = const { Cell::new(None) };
}

/// The steps of one evaluation.
pub(super) struct Steps;

impl Steps {
    pub(super) fn allow(n: u64) -> Steps {
        LEFT.set(Some(n));
        Steps
    }

    /// Whatever came out then counts for nothing: errors are swallowed by `||` and `&&`.
    pub(super) fn are_used_up(&self) -> bool {
        LEFT.get().is_none()
    }
}

/// Takes steps; false when there are not enough.
pub(super) fn take(n: usize) -> bool {
    let left = LEFT.get().and_then(|left| left.checked_sub(u64::try_from(n).unwrap_or(u64::MAX)));
    LEFT.set(left);
    left.is_some()
}

fn taken(n: usize) -> Result<(), ExecutionError> {
    match take(n) {
        true => Ok(()),
        false => Err(ExecutionError::InternalError("no steps are left".to_owned())),
    }
}

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload(COUNTED, "counted", vec![DYN_TYPE], counted)?;
    env.add_overload(SAME, "same", vec![DYN_TYPE, DYN_TYPE], |args| {
        truth(same(args[0].as_ref(), args[1].as_ref())?)
    })?;
    env.add_overload(AMONG, "among", vec![DYN_TYPE, DYN_TYPE], among)?;
    env.add_member_overload("lowerAscii", "string_lower", STRING_TYPE, vec![], |args| {
        let text = args[0].downcast_ref::<CelString>().map(|it| it.inner().to_ascii_lowercase());
        Ok(CowVal::owned(CelString::from(text.unwrap_or_default())))
    })
}

/// A text costs a step for each of these.
const TEXT_BYTES: usize = 1024;

fn counted<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = args.pop().ok_or_else(ExecutionError::missing_argument_or_target)?;
    taken(1 + size(value.as_ref()))?;
    Ok(value)
}

fn size(value: &dyn Val) -> usize {
    if let Some(text) = value.downcast_ref::<CelString>() {
        return text.inner().len() / TEXT_BYTES;
    }
    value.downcast_ref::<CelList>().map_or(0, |list| list.inner().len())
}

fn truth<'b, 'v>(answer: bool) -> Result<CowVal<'b, 'v>, ExecutionError> {
    Ok(CowVal::owned(CelBool::from(answer)))
}

/// Lists and maps are compared by what they hold, wherever they come from.
pub(super) fn same(a: &dyn Val, b: &dyn Val) -> Result<bool, ExecutionError> {
    taken(1 + size(a).min(size(b)))?;
    match (a.get_type().kind(), b.get_type().kind()) {
        (Kind::List, Kind::List) => {
            let (Some(left), Some(right)) = (a.as_iterable(), b.as_iterable()) else {
                return Ok(false);
            };
            let (mut left, mut right) = (left.iter(), right.iter());
            loop {
                match (left.next(), right.next()) {
                    (Some(left), Some(right)) if same(left, right)? => {}
                    (None, None) => return Ok(true),
                    _ => return Ok(false),
                }
            }
        }
        (Kind::Map, Kind::Map) => {
            let sizes = (a.as_sizer().map(Sizer::size), b.as_sizer().map(Sizer::size));
            let (Some(keys), Some(left), Some(right)) =
                (a.as_iterable(), a.as_indexer(), b.as_indexer())
            else {
                return Ok(false);
            };
            let mut keys = keys.iter();
            while let Some(key) = keys.next() {
                let (Ok(left), Ok(right)) = (left.get(key), right.get(key)) else {
                    return Ok(false);
                };
                if !same(left.as_ref(), right.as_ref())? {
                    return Ok(false);
                }
            }
            Ok(sizes.0 == sizes.1)
        }
        // Asking a list or map of the payload would come back here.
        (Kind::List | Kind::Map, _) => Ok(false),
        _ => Ok(a.equals(b)),
    }
}

fn among<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let (wanted, container) = (args[0].as_ref(), args[1].as_ref());
    if let Some(list) = container.downcast_ref::<CelList>() {
        for element in list.inner() {
            if same(element.as_ref(), wanted)? {
                return truth(true);
            }
        }
        return truth(false);
    }
    let overload = || {
        let types = [wanted, container].map(|it| it.get_type().name().to_owned());
        ExecutionError::no_such_overload("in", types.into())
    };
    truth(container.as_container().ok_or_else(overload)?.contains(wanted)?)
}
