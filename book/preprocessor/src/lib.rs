//! # What makes the book
//!
//! The book's pages hold text and directives such as `{{#item FILE NAME}}`. What a directive shows
//! comes from the compiled and tested workspace, so it can't go stale; and what is missing fails
//! the build.
//!
//! - [`source`] finds a function or a type in a source file by its name.

pub mod source;
