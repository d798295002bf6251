//! Metadata by key, with typed access whose errors name the key and what was found there.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::shown;
use crate::model::load::Origins;

/// A metadata value. Arrays are homogeneous, as the format has it. Narrow integers and floats are
/// widened: what a file calls u32 or u64 makes no difference to those who read it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U64(u64),
    I64(i64),
    F64(f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    U64s(Vec<u64>),
    I64s(Vec<i64>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    /// A string, or an array with a string, that is not UTF-8. It may lie there, but nobody can use it.
    NotUtf8,
    /// An array of arrays: the format allows them, no model needs them.
    Nested,
}

impl Value {
    /// What an error says was found.
    fn describe(&self) -> &'static str {
        match self {
            Self::U64(_) | Self::I64(_) => "an integer",
            Self::F64(_) => "a float",
            Self::Bool(_) => "a boolean",
            Self::String(_) => "a string",
            Self::Strings(_) => "an array of strings",
            Self::U64s(_) | Self::I64s(_) => "an array of integers",
            Self::F32s(_) => "an array of floats",
            Self::Bools(_) => "an array of booleans",
            Self::NotUtf8 => "text that is not UTF-8",
            Self::Nested => "an array of arrays",
        }
    }
}

/// A key that is missing, or holds something else than was needed. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub String);

impl KeyError {
    fn missing(key: &str) -> Self {
        Self(format!("metadata key {} is missing", shown(key)))
    }

    fn found(key: &str, value: &Value, wanted: &str) -> Self {
        Self(format!("metadata key {} is {}, not {wanted}", shown(key), value.describe()))
    }

    fn range(key: &str, number: i128, wanted: &str) -> Self {
        Self(format!("metadata key {} is {number}, not {wanted}", shown(key)))
    }
}

/// Metadata by key. Each getter comes in two forms: the plain one needs the key, `opt_` takes its
/// absence for an answer. A value of another type is an error in both.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    pub values: BTreeMap<String, Value>,
    /// What errors call keys and tensors.
    pub origins: Origins,
}

/// Makes the needed form of a getter out of the optional one.
macro_rules! needed {
    ($($(#[$doc:meta])* $name:ident, $opt:ident -> $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Result<$type, KeyError> {
            self.$opt(key)?.ok_or_else(|| KeyError::missing(key))
        }
    )*};
}

impl Metadata {
    needed! {
        /// A string.
        str, opt_str -> &str;
        /// An integer of 64 bits without a sign; a signed one serves if it is not negative.
        u64, opt_u64 -> u64;
        /// An integer below 2^32.
        u32, opt_u32 -> u32;
        /// An integer that counts or measures something in memory.
        usize, opt_usize -> usize;
        /// A float.
        f32, opt_f32 -> f32;
        /// A boolean.
        bool, opt_bool -> bool;
        /// An array of strings.
        strings, opt_strings -> &[String];
        /// An array of floats.
        f32s, opt_f32s -> &[f32];
        /// An array of integers, each within i32.
        i32s, opt_i32s -> Vec<i32>;
        /// An array of integers without a sign.
        u64s, opt_u64s -> Cow<'_, [u64]>;
    }

    /// The value as it stands in the file.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, KeyError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(KeyError::found(key, other, "a string")),
        }
    }

    pub fn opt_u64(&self, key: &str) -> Result<Option<u64>, KeyError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::U64(n)) => Ok(Some(*n)),
            Some(Value::I64(n)) => u64::try_from(*n)
                .map(Some)
                .map_err(|_| KeyError::range(key, (*n).into(), "zero or above")),
            Some(other) => Err(KeyError::found(key, other, "an integer")),
        }
    }

    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, KeyError> {
        self.narrowed(key, "below 2^32")
    }

    pub fn opt_usize(&self, key: &str) -> Result<Option<usize>, KeyError> {
        self.narrowed(key, "addressable")
    }

    fn narrowed<T: TryFrom<u64>>(&self, key: &str, wanted: &str) -> Result<Option<T>, KeyError> {
        let Some(wide) = self.opt_u64(key)? else { return Ok(None) };
        T::try_from(wide).map(Some).map_err(|_| KeyError::range(key, wide.into(), wanted))
    }

    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, KeyError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F64(x)) => Ok(Some(*x as f32)),
            Some(other) => Err(KeyError::found(key, other, "a float")),
        }
    }

    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, KeyError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(KeyError::found(key, other, "a boolean")),
        }
    }

    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, KeyError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Strings(all)) => Ok(Some(all)),
            Some(other) => Err(KeyError::found(key, other, "an array of strings")),
        }
    }

    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>, KeyError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32s(all)) => Ok(Some(all)),
            Some(other) => Err(KeyError::found(key, other, "an array of floats")),
        }
    }

    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>, KeyError> {
        let narrow = |n: i128| {
            i32::try_from(n).map_err(|_| KeyError::range(key, n, "an array of 32-bit integers"))
        };
        match self.get(key) {
            None => Ok(None),
            Some(Value::I64s(all)) => {
                all.iter().map(|&n| narrow(n.into())).collect::<Result<Vec<_>, _>>().map(Some)
            }
            Some(Value::U64s(all)) => {
                all.iter().map(|&n| narrow(n.into())).collect::<Result<Vec<_>, _>>().map(Some)
            }
            Some(other) => Err(KeyError::found(key, other, "an array of integers")),
        }
    }

    pub fn opt_u64s(&self, key: &str) -> Result<Option<Cow<'_, [u64]>>, KeyError> {
        let widen = |&n: &i64| {
            u64::try_from(n).map_err(|_| KeyError::range(key, n.into(), "zero or above"))
        };
        match self.get(key) {
            None => Ok(None),
            Some(Value::U64s(all)) => Ok(Some(Cow::Borrowed(all))),
            Some(Value::I64s(all)) => {
                Ok(Some(Cow::Owned(all.iter().map(widen).collect::<Result<_, _>>()?)))
            }
            Some(other) => Err(KeyError::found(key, other, "an array of integers")),
        }
    }
}
