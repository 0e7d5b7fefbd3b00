//! Small pieces of HTML. Everything that comes from outside goes through [`escape`].

use std::fmt::{self, Display, Write};

/// Text as HTML shows it, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> impl Display + '_ {
    Escaped(text)
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// How something is, as colour; the word beside it says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Ok,
    Warn,
    Bad,
    Off,
}

impl Tone {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Off => "off",
        }
    }
}

/// A state by name and colour.
pub(super) fn pill(tone: Tone, word: &str) -> String {
    format!("<span class=\"pill {}\">{}</span>", tone.class(), escape(word))
}

/// A small label.
pub(super) fn chip(tone: Tone, text: &str) -> String {
    format!("<span class=\"chip {}\">{}</span>", tone.class(), escape(text))
}

/// A bar of a share of its whole with its text; a dash where there is no value.
pub(super) fn meter(name: &str, share: Option<f64>, text: &str, beside: &str, tone: Tone) -> String {
    let Some(share) = share else { return NONE.to_owned() };
    let percent = (share.clamp(0.0, 1.0) * 100.0).round();
    let class = if tone == Tone::Ok { "" } else { tone.class() };
    format!(
        "<div class=\"meter {class}\" role=\"meter\" aria-label=\"{}\" aria-valuemin=\"0\" aria-valuemax=\"100\" \
         aria-valuenow=\"{percent}\"><span class=\"sub\">{}</span>{}<div class=\"track\"><i style=\"--v:{percent}%\"></i></div></div>",
        escape(name),
        escape(beside),
        escape(text),
    )
}

/// What stands where there is no value.
pub(super) const NONE: &str = "<span class=\"none\" title=\"no value\">–</span>";

/// A value's text, or the dash.
pub(super) fn or_none(value: Option<String>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| escape(&value).to_string())
}

/// Rows of a definition list; those without a value show a dash.
pub(super) fn facts(title: &str, rows: &[(&str, Option<String>)]) -> String {
    let mut html = format!("<section><h3>{}</h3><dl>", escape(title));
    for (name, value) in rows {
        // Writing to a String cannot fail.
        let _ = write!(html, "<dt>{}</dt><dd>{}</dd>", escape(name), or_none(value.clone()));
    }
    html.push_str("</dl></section>");
    html
}

/// Bytes with a binary prefix.
pub(super) fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// Bytes a second with a decimal prefix, as links are rated.
pub(super) fn rate(n: u64) -> String {
    scaled(n as f64, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
}

/// GiB, for many of them in a row.
pub(super) fn gib(n: u64) -> String {
    format!("{:.1}", n as f64 / f64::from(1 << 30))
}

/// A length of time in the two largest units that matter.
pub(super) fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0);
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(17 << 20), "17.0 MiB");
        assert_eq!(bytes(85_520_809_984), "79.6 GiB");
        assert_eq!(rate(26_562_000_000), "26.6 GB/s");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(93_600), "1 d 2 h");
    }

    #[test]
    fn nothing_breaks_out_of_an_attribute() {
        assert_eq!(escape("<a href='x'>\"&").to_string(), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
    }

    #[test]
    fn a_missing_value_is_a_dash_and_not_an_empty_bar() {
        assert_eq!(meter("power", None, "0 W", "", Tone::Ok), NONE);
        assert!(meter("power", Some(1.7), "900 W", "", Tone::Warn).contains("--v:100%"));
    }
}
