//! Calls that a grammar makes: certain from the first character on, so their arguments are told as they
//! come.

use super::scan::Scan;
use super::{Part, signature};

/// Goes through calls in tags.
#[derive(Debug, Default)]
pub(super) struct Forced {
    place: Place,
    /// A call up to its arguments.
    head: String,
}

#[derive(Debug, Default)]
enum Place {
    /// Before a call, or behind one.
    #[default]
    Between,
    /// Before its arguments.
    Head,
    Arguments(Scan),
    /// Between its arguments and its end.
    Tail,
}

impl Forced {
    /// The arguments of a call that has begun are not whole.
    pub(super) fn is_in_arguments(&self) -> bool {
        matches!(self.place, Place::Arguments(_))
    }

    pub(super) fn push(&mut self, text: &str, parts: &mut Vec<Part>) {
        let mut rest = text;
        while !rest.is_empty() {
            rest = self.step(rest, parts);
        }
    }

    /// Takes the beginning of `text`, and gives what is left of it.
    fn step<'t>(&mut self, text: &'t str, parts: &mut Vec<Part>) -> &'t str {
        match &mut self.place {
            Place::Between => {
                let Some(at) = text.find('{') else { return "" };
                self.place = Place::Head;
                &text[at..]
            }
            Place::Head => {
                // One bracket opens the call, the next one its arguments: names have none.
                let from = usize::from(self.head.is_empty());
                let Some(at) = text[from..].find('{').map(|at| at + from) else {
                    self.head.push_str(text);
                    return "";
                };
                self.head.push_str(&text[..at]);
                let name = signature::name_in(&std::mem::take(&mut self.head));
                parts.push(Part::Begin(name.unwrap_or_default()));
                self.place = Place::Arguments(Scan::default());
                &text[at..]
            }
            Place::Arguments(scan) => {
                let end = text.bytes().position(|byte| scan.step(byte)).map(|at| at + 1);
                let (arguments, rest) = text.split_at(end.unwrap_or(text.len()));
                match parts.last_mut() {
                    Some(Part::Arguments(before)) => before.push_str(arguments),
                    _ => parts.push(Part::Arguments(arguments.to_owned())),
                }
                if end.is_some() {
                    self.place = Place::Tail;
                }
                rest
            }
            Place::Tail => {
                let Some(at) = text.find('}') else { return "" };
                self.place = Place::Between;
                &text[at + 1..]
            }
        }
    }
}
