//! # final: a runtime that one would use
//!
//! The eight steps, put together: [`images`] says what to run and where its layers are, [`store`]
//! keeps the layers, [`spec`] writes down what the container shall be, and [`container`] makes it
//! so. A spec of the Open Container Initiative stands in the middle, so that a container can come
//! from elsewhere, too.
//!
//! ```text
//!   image ──▶ config ┐
//!                    ├──▶ spec ──▶ container: the six namespaces, a control group, an overlay
//!   options ─────────┘
//! ```

pub mod accounts;
pub mod cli;
pub mod console;
pub mod container;
pub mod images;
pub mod mounts;
pub mod resources;
pub mod run;
pub mod security;
pub mod spec;
pub mod store;
