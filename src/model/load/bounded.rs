//! What of a JSON file is kept, and shown, no longer than files of models have it: what a list takes in memory is a multiple
//! of what it takes in the file.

use std::fmt::{self, Write};
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// At most `MAX` elements; `null` is none.
#[derive(Debug)]
pub struct Few<T, const MAX: usize>(pub Vec<T>);

impl<T, const MAX: usize> Default for Few<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Few<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
            type Value = Few<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Few::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == MAX {
                        return Err(A::Error::custom(format_args!("more than {MAX} elements")));
                    }
                    elements.push(element);
                }
                Ok(Few(elements))
            }
        }
        deserializer.deserialize_any(Elements(PhantomData))
    }
}

/// What the reader of JSON says, which may have any text of the file in it: as much of that as people read.
pub fn told(error: &serde_json::Error) -> String {
    struct Beginning(String);
    impl Write for Beginning {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            const BYTES: usize = 200;
            for c in text.chars().flat_map(char::escape_debug) {
                if self.0.len() >= BYTES {
                    self.0.push('…');
                    return Err(fmt::Error);
                }
                self.0.push(c);
            }
            Ok(())
        }
    }
    let mut told = Beginning(String::new());
    // It fails where it is cut.
    let _ = write!(told, "{error}");
    told.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_kept_than_there_may_be() {
        let read = |text: &str| serde_json::from_str::<Few<u8, 2>>(text).map(|few| few.0);
        assert_eq!(read("[1, 2]").unwrap(), [1, 2]);
        assert_eq!(read("null").unwrap(), [0; 0]);
        assert!(read("[1, 2, 3]").unwrap_err().to_string().starts_with("more than 2 elements"));
        assert!(read("{}").unwrap_err().to_string().contains("expected an array"));
    }
}
