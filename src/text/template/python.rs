//! Where Python writes values in another way than Jinja's Rust twin does.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};
use time::OffsetDateTime;

/// How an expression is printed: `None`, `True` and `False`, not `none`, `true` and `false`.
pub(super) fn write(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let name = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(output, state, value),
    };
    output.write_str(name).map_err(Error::from)
}

/// Deepest nesting that [`tojson`] writes; requests have no more than 128.
const DEPTH: usize = 256;

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
#[expect(clippy::needless_pass_by_value, reason = "a filter's signature")]
pub(super) fn tojson(
    state: &mut State<'_, '_>,
    value: &Value,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    // Given by some templates, and what is done anyway.
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut dump = Dump { state, indent: indent.map(|i| i.min(16)), depth: 0, json: String::new() };
    dump.value(value)?;
    Ok(Value::from(dump.json))
}

/// Writes a value as JSON.
struct Dump<'a, 'vm, 'env> {
    state: &'a mut State<'vm, 'env>,
    indent: Option<usize>,
    depth: usize,
    json: String,
}

impl Dump<'_, '_, '_> {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        self.state.consume_fuel(1)?;
        match value.kind() {
            ValueKind::None => self.json.push_str("null"),
            ValueKind::Bool => self.json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number if value.is_integer() => self.json.push_str(&value.to_string()),
            ValueKind::Number => self.json.push_str(&float(f64::try_from(value.clone())?)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                self.nested('[', ']', value, Self::value)?;
            }
            ValueKind::Map => self.nested('{', '}', value, |this, key| {
                match key.as_str() {
                    Some(name) => this.string(name),
                    None => this.string(&key.to_string()),
                }
                this.json.push_str(": ");
                this.value(&value.get_item(key)?)
            })?,
            other => {
                let what = format!("cannot write {other} as JSON");
                return Err(Error::new(ErrorKind::BadSerialization, what));
            }
        }
        Ok(())
    }

    /// Python escapes what `serde_json` escapes.
    fn string(&mut self, text: &str) {
        self.json.push_str(&serde_json::Value::from(text).to_string());
    }

    fn nested(
        &mut self,
        open: char,
        close: char,
        of: &Value,
        mut item: impl FnMut(&mut Self, &Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Error::new(ErrorKind::BadSerialization, "nested too deeply for JSON"));
        }
        self.json.push(open);
        let mut empty = true;
        for element in of.try_iter()? {
            match (empty, self.indent) {
                (false, None) => self.json.push_str(", "),
                (false, Some(_)) => self.json.push(','),
                (true, _) => {}
            }
            self.new_line();
            empty = false;
            item(self, &element)?;
        }
        self.depth -= 1;
        if !empty {
            self.new_line();
        }
        self.json.push(close);
        Ok(())
    }

    /// Only with indentation.
    fn new_line(&mut self) {
        if let Some(indent) = self.indent {
            self.json.push('\n');
            self.json.extend(std::iter::repeat_n(' ', indent * self.depth));
        }
    }
}

/// Python's `repr` of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
fn float(value: f64) -> String {
    if !value.is_finite() {
        let sign = if value.is_sign_negative() { "-" } else { "" };
        return if value.is_nan() { "NaN".to_owned() } else { format!("{sign}Infinity") };
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if value != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{value:?}"),
    }
}

/// `datetime.strftime` in English, for the directives that templates use; others are left as they
/// stand.
pub(super) fn strftime(now: OffsetDateTime, format: &str) -> String {
    let mut text = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let plain = chars.next_if_eq(&'-').is_some();
        match chars.next() {
            Some(directive) => match field(now, directive) {
                Some(field) if plain => text.push_str(field.trim_start_matches(['0', ' '])),
                Some(field) => text.push_str(&field),
                None => text.extend(['%', directive]),
            },
            None => text.push('%'),
        }
    }
    text
}

fn field(now: OffsetDateTime, directive: char) -> Option<String> {
    let month = now.month().to_string();
    let weekday = now.weekday().to_string();
    let hour = match now.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    Some(match directive {
        'Y' => now.year().to_string(),
        'y' => format!("{:02}", now.year().rem_euclid(100)),
        'm' => format!("{:02}", u8::from(now.month())),
        'd' => format!("{:02}", now.day()),
        'e' => format!("{:2}", now.day()),
        'j' => format!("{:03}", now.ordinal()),
        'H' => format!("{:02}", now.hour()),
        'I' => format!("{hour:02}"),
        'M' => format!("{:02}", now.minute()),
        'S' => format!("{:02}", now.second()),
        'p' => if now.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        'B' => month,
        'b' | 'h' => month.chars().take(3).collect(),
        'A' => weekday,
        'a' => weekday.chars().take(3).collect(),
        'F' => strftime(now, "%Y-%m-%d"),
        'T' => strftime(now, "%H:%M:%S"),
        'D' => strftime(now, "%m/%d/%y"),
        'R' => strftime(now, "%H:%M"),
        'Z' => "UTC".to_owned(),
        'z' => "+0000".to_owned(),
        '%' => "%".to_owned(),
        _ => return None,
    })
}
