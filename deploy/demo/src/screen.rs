//! Where the text goes: in place on a terminal, line after line elsewhere.

use std::io::{self, IsTerminal as _, Write as _};

use crate::{frame::Frame, table};

/// Standard output.
#[derive(Debug)]
pub struct Screen {
    /// Whether frames replace each other.
    in_place: bool,
    /// Lines of the frame that stands there.
    drawn: usize,
}

impl Screen {
    /// In place where standard output is a terminal, unless `plain` is asked for.
    #[must_use]
    pub fn new(plain: bool) -> Self {
        Self { in_place: !plain && io::stdout().is_terminal(), drawn: 0 }
    }

    /// Writes lines that stay.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn say(&mut self, lines: &[String]) -> io::Result<()> {
        self.drawn = 0;
        let mut out = io::stdout().lock();
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        out.flush()
    }

    /// Shows a frame, in the place of the last one on a terminal.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub fn show(&mut self, frame: &Frame) -> io::Result<()> {
        let size = self.in_place.then(size).flatten();
        let Some((width, height)) = size else { return self.say(&table::plain(frame)) };
        let mut lines = table::table(frame);
        // What does not fit can't be replaced: the cursor does not go above the screen.
        lines.truncate(height.saturating_sub(1));
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in &lines {
            text.extend(line.chars().take(width));
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// Columns and rows of the terminal.
fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 1).then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}
