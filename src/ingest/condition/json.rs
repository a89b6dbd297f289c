//! JSON as a value of CEL, where it lies: nothing is copied before an expression asks for it.

use std::{fmt, sync::OnceLock};

use cel::{
    ExecutionError,
    common::{
        traits::{self, Container, Indexer, Iterable, Sizer},
        types::{
            CelBool, CelDouble, CelInt, CelNull, CelString, CelUInt, LIST_TYPE, MAP_TYPE, Type,
        },
        value::{CowVal, Val},
    },
};
use serde_json::Value;

use super::steps::{same, take};

pub(super) fn value<'v>(value: &'v Value) -> Box<dyn Val + 'v> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(flag) => Box::new(CelBool::from(*flag)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Box::new(CelInt::from(number)),
            (None, Some(number)) => Box::new(CelUInt::from(number)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.as_str())),
        Value::Array(_) | Value::Object(_) => Box::new(Json { value, parts: OnceLock::new() }),
    }
}

/// A list or an object.
struct Json<'v> {
    value: &'v Value,
    /// What a loop goes over: a list's elements, an object's keys. Made with the first loop.
    parts: OnceLock<Vec<Box<dyn Val + 'v>>>,
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<'v> Json<'v> {
    fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    fn parts(&self) -> &[Box<dyn Val + 'v>] {
        self.parts.get_or_init(|| {
            if !take(self.len()) {
                return Vec::new();
            }
            match self.value {
                Value::Array(list) => list.iter().map(value).collect(),
                Value::Object(map) => {
                    let key = |key: &'v String| Box::new(CelString::from(key.as_str())) as _;
                    map.keys().map(key).collect()
                }
                _ => Vec::new(),
            }
        })
    }

    fn at(&self, index: &dyn Val) -> Result<&'v Value, ExecutionError> {
        let wrong = |want: &str| ExecutionError::UnexpectedType {
            got: index.get_type().name().to_owned(),
            want: want.to_owned(),
        };
        match self.value {
            Value::Object(map) => {
                let key = index.downcast_ref::<CelString>().ok_or_else(|| wrong("string"))?;
                map.get(key.inner()).ok_or_else(|| ExecutionError::no_such_key(key.inner()))
            }
            Value::Array(list) => {
                let n = place(index).ok_or_else(|| wrong("int"))?;
                let outside = || ExecutionError::IndexOutOfBounds(cel::Value::Null);
                usize::try_from(n).ok().and_then(|n| list.get(n)).ok_or_else(outside)
            }
            _ => Err(wrong("list or map")),
        }
    }
}

/// A whole number, whatever its type.
fn place(index: &dyn Val) -> Option<i64> {
    if let Some(n) = index.downcast_ref::<CelInt>() {
        return Some(*n.inner());
    }
    if let Some(n) = index.downcast_ref::<CelUInt>() {
        return Some(i64::try_from(*n.inner()).unwrap_or(i64::MAX));
    }
    let n = *index.downcast_ref::<CelDouble>()?.inner();
    (n.fract() == 0.0 && n.abs() < 1e15).then_some(n as i64)
}

impl<'v> Val for Json<'v> {
    fn get_type(&self) -> &Type {
        if self.value.is_array() { &LIST_TYPE } else { &MAP_TYPE }
    }

    fn cel_type() -> &'static Type {
        &cel::common::types::DYN_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'w>(&'b self) -> Option<&'b (dyn Indexer + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_iterable<'b, 'w>(&'b self) -> Option<&'b (dyn Iterable + 'w)>
    where
        Self: 'w,
    {
        Some(self)
    }

    fn as_sizer(&self) -> Option<&dyn Sizer> {
        Some(self)
    }

    fn equals(&self, other: &dyn Val) -> bool {
        same(self, other).unwrap_or(false)
    }

    fn clone_as_boxed<'w>(&self) -> Box<dyn Val + 'w>
    where
        Self: 'w,
    {
        Box::new(Json { value: self.value, parts: OnceLock::new() })
    }
}

impl Container for Json<'_> {
    fn contains(&self, wanted: &dyn Val) -> Result<bool, ExecutionError> {
        match self.value {
            Value::Array(list) => {
                for element in list {
                    if same(value(element).as_ref(), wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => match self.at(wanted) {
                Ok(_) => Ok(true),
                Err(ExecutionError::NoSuchKey(_)) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }
}

impl Indexer for Json<'_> {
    fn get<'b, 'w>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'w>, ExecutionError>
    where
        Self: 'w,
    {
        Ok(CowVal::Owned(value(self.at(index)?)))
    }

    fn steal<'w>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'w>, ExecutionError>
    where
        Self: 'w,
    {
        Ok(value(self.at(index)?))
    }
}

impl Iterable for Json<'_> {
    fn iter<'b, 'w>(&'b self) -> Box<dyn traits::Iterator<'b, 'w> + 'b>
    where
        Self: 'w,
    {
        Box::new(Parts(self.parts().iter()))
    }
}

struct Parts<'b, 'v>(std::slice::Iter<'b, Box<dyn Val + 'v>>);

impl<'b, 'v: 'w, 'w> traits::Iterator<'b, 'w> for Parts<'b, 'v> {
    fn next(&mut self) -> Option<&'b (dyn Val + 'w)> {
        self.0.next().map(|part| part.as_ref() as &(dyn Val + 'w))
    }
}

impl Sizer for Json<'_> {
    fn size(&self) -> CelInt {
        CelInt::from(i64::try_from(self.len()).unwrap_or(i64::MAX))
    }
}
