//! A sample's labels: found and checked once, read on demand.

use std::borrow::Cow;

use super::error::Fault;

/// The labels of one sample, borrowed from the page. Cheap to copy; every look walks the text again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    /// What stands between the braces; [`scan`] has checked it.
    raw: &'a str,
}

impl<'a> Labels<'a> {
    /// The labels in the order of the page.
    pub fn iter(self) -> impl Iterator<Item = Label<'a>> {
        let mut at = 0;
        std::iter::from_fn(move || match next(self.raw, at) {
            Ok(Some(found)) => {
                at = found.end;
                Some(found.label(self.raw))
            }
            _ => None,
        })
    }

    /// The value of the label with this name.
    #[must_use]
    pub fn get(self, name: &str) -> Option<LabelValue<'a>> {
        self.iter().find(|label| label.name == name).map(|label| label.value)
    }

    /// The text between the braces, as the page has it.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.raw
    }

    /// The text between the braces without one label: what stands before it and what stands after it. All of the text
    /// and nothing where there is no such label.
    #[must_use]
    pub fn around(self, name: &str) -> (&'a str, &'a str) {
        let mut at = 0;
        while let Ok(Some(found)) = next(self.raw, at) {
            if self.raw[found.name.0..found.name.1] == *name {
                return (&self.raw[..found.name.0], &self.raw[found.end..]);
            }
            at = found.end;
        }
        (self.raw, "")
    }
}

/// One label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: LabelValue<'a>,
}

/// A label's value as the page has it, escapes unresolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelValue<'a> {
    raw: &'a str,
}

impl<'a> LabelValue<'a> {
    /// The value with its escapes as they stand on the page.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.raw
    }

    /// The value with `\\`, `\"` and `\n` resolved; allocates only where there are any. A backslash before anything
    /// else stands for itself.
    #[must_use]
    pub fn text(self) -> Cow<'a, str> {
        if memchr::memchr(b'\\', self.raw.as_bytes()).is_none() {
            return Cow::Borrowed(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut chars = self.raw.chars().peekable();
        while let Some(c) = chars.next() {
            let resolved = match (c, chars.peek()) {
                ('\\', Some('\\')) => '\\',
                ('\\', Some('"')) => '"',
                ('\\', Some('n')) => '\n',
                _ => {
                    text.push(c);
                    continue;
                }
            };
            text.push(resolved);
            chars.next();
        }
        Cow::Owned(text)
    }
}

impl PartialEq<str> for LabelValue<'_> {
    fn eq(&self, other: &str) -> bool {
        self.text() == other
    }
}

impl PartialEq<&str> for LabelValue<'_> {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

/// Reads the labels at the start of `text`, which is what follows `{`. Gives them and where the text goes on behind
/// the closing brace. `names` is scratch space.
pub(super) fn scan<'a>(
    text: &'a str,
    limit: usize,
    names: &mut Vec<&'a str>,
) -> Result<(Labels<'a>, usize), Fault> {
    names.clear();
    let mut at = 0;
    while let Some(found) = next(text, at)? {
        if names.len() == limit {
            return Err(Fault::TooManyLabels);
        }
        let name = &text[found.name.0..found.name.1];
        if names.contains(&name) {
            return Err(Fault::LabelTwice);
        }
        names.push(name);
        at = found.end;
    }
    let close = skip_blanks(text.as_bytes(), at);
    match text.as_bytes().get(close) {
        Some(b'}') => Ok((Labels { raw: &text[..close] }, close + 1)),
        _ => Err(Fault::LabelsOpen),
    }
}

/// Where a label lies in its text.
struct Found {
    name: (usize, usize),
    value: (usize, usize),
    /// Behind the comma that follows the label, or behind the label where none follows.
    end: usize,
}

impl Found {
    fn label<'a>(&self, text: &'a str) -> Label<'a> {
        let value = LabelValue { raw: &text[self.value.0..self.value.1] };
        Label { name: &text[self.name.0..self.name.1], value }
    }
}

/// The label at `at`; `None` at the closing brace or at the end of the text.
fn next(text: &str, at: usize) -> Result<Option<Found>, Fault> {
    let bytes = text.as_bytes();
    let start = skip_blanks(bytes, at);
    match bytes.get(start) {
        None | Some(b'}') => return Ok(None),
        _ => {}
    }
    let name_end = start + bytes[start..].iter().take_while(|byte| is_label_byte(**byte)).count();
    if name_end == start || bytes[start].is_ascii_digit() {
        return Err(Fault::LabelName);
    }
    let equals = skip_blanks(bytes, name_end);
    if bytes.get(equals) != Some(&b'=') {
        return Err(if equals < bytes.len() { Fault::LabelEquals } else { Fault::LabelsOpen });
    }
    let quote = skip_blanks(bytes, equals + 1);
    if bytes.get(quote) != Some(&b'"') {
        return Err(if quote < bytes.len() { Fault::LabelQuote } else { Fault::LabelsOpen });
    }
    let value_end = closing_quote(bytes, quote + 1).ok_or(Fault::LabelsOpen)?;
    let behind = skip_blanks(bytes, value_end + 1);
    let end = match bytes.get(behind) {
        Some(b',') => behind + 1,
        Some(b'}') | None => behind,
        Some(_) => return Err(Fault::LabelSeparator),
    };
    Ok(Some(Found { name: (start, name_end), value: (quote + 1, value_end), end }))
}

/// The first quotation mark at or behind `at` that no backslash escapes.
fn closing_quote(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let found = at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[found] == b'"' {
            return Some(found);
        }
        at = found + 2;
    }
}

/// Blanks are spaces and tabs.
pub(super) fn skip_blanks(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

const fn is_label_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names with resolved values, and what follows the closing brace.
    type Scanned<'a> = (Vec<(&'a str, String)>, &'a str);

    fn scanned(text: &str) -> Result<Scanned<'_>, Fault> {
        let (labels, end) = scan(text, 4, &mut Vec::new())?;
        let pairs = labels.iter().map(|label| (label.name, label.value.text().into_owned())).collect();
        Ok((pairs, &text[end..]))
    }

    #[test]
    fn values_may_hold_anything() {
        let (pairs, rest) = scanned(r#"a="}",b=",",c="\"\\\n\x",d="{ü"} 1"#).unwrap();
        let expected = [("a", "}"), ("b", ","), ("c", "\"\\\n\\x"), ("d", "{ü")];
        assert_eq!(pairs, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(rest, " 1");
    }

    #[test]
    fn blanks_and_a_last_comma_are_allowed() {
        assert_eq!(scanned("}").unwrap().0, []);
        assert_eq!(scanned(" \t} 1").unwrap(), (vec![], " 1"));
        assert_eq!(scanned("\ta = \"x\" , }").unwrap(), (vec![("a", "x".to_owned())], ""));
    }

    #[test]
    fn faults_are_told_apart() {
        for (text, fault) in [
            ("", Fault::LabelsOpen),
            ("a", Fault::LabelsOpen),
            ("a=", Fault::LabelsOpen),
            ("a=\"", Fault::LabelsOpen),
            ("a=\"x\\", Fault::LabelsOpen),
            ("a=\"x\\\"", Fault::LabelsOpen),
            ("a=\"x\"", Fault::LabelsOpen),
            ("a=\"x\",", Fault::LabelsOpen),
            (",a=\"x\"}", Fault::LabelName),
            ("1a=\"x\"}", Fault::LabelName),
            ("a:b=\"x\"}", Fault::LabelEquals),
            ("\"a.b\"=\"x\"}", Fault::LabelName),
            ("a=x}", Fault::LabelQuote),
            ("a=\"x\"b=\"y\"}", Fault::LabelSeparator),
            ("a=\"x\",a=\"y\"}", Fault::LabelTwice),
            ("a=\"\",b=\"\",c=\"\",d=\"\",e=\"\"}", Fault::TooManyLabels),
        ] {
            assert_eq!(scanned(text), Err(fault), "{text:?}");
        }
    }

    #[test]
    fn one_label_can_be_cut_out() {
        let around = |text: &'static str| scan(text, 9, &mut Vec::new()).unwrap().0.around("le");
        assert_eq!(around(r#"engine="0",le="1.0",model="m"}"#), (r#"engine="0","#, r#"model="m""#));
        assert_eq!(around(r#"engine="0",le="1.0"}"#), (r#"engine="0","#, ""));
        assert_eq!(around(r#"le="1.0"}"#), ("", ""));
        assert_eq!(around(r#"file="x"}"#), (r#"file="x""#, ""));
    }
}
