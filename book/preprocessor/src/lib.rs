//! # What makes the book
//!
//! The book's pages hold text and directives such as `{{#item FILE NAME}}`. What a directive shows
//! comes from the compiled and tested workspace, so it can't go stale; and what is missing fails
//! the build, as does what no page shows.
//!
//! - [`source`] finds a function or a type in a source file by its name.
//! - [`pages`] makes the pages, a directive at a time; what a directive shows is made by a module
//!   named for it.
//! - [`workspace`] reads what pages show, and knows what they have not shown yet.

pub mod block;
pub mod diff;
pub mod directive;
pub mod exercises;
pub mod explorer;
pub mod figure;
pub mod functions;
pub mod item;
pub mod matrix;
pub mod pages;
pub mod question;
pub mod scenario;
pub mod snapshot;
pub mod source;
pub mod workspace;
