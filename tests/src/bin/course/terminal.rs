//! Colours, where somebody sees them.

use std::{
    fmt::Display,
    io::{IsTerminal, stdout},
};

/// Whether standard output takes colours.
fn coloured() -> bool {
    stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn paint(code: u8, text: impl Display) -> String {
    if coloured() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

pub fn bold(text: impl Display) -> String {
    paint(1, text)
}

pub fn red(text: impl Display) -> String {
    paint(31, text)
}

pub fn green(text: impl Display) -> String {
    paint(32, text)
}

pub fn yellow(text: impl Display) -> String {
    paint(33, text)
}

pub fn faint(text: impl Display) -> String {
    paint(2, text)
}
