//! # What the tests share
//!
//! The tests ask a real kernel and drive the built programs; nothing is mocked. What makes that
//! safe, repeatable and quick stands here:
//!
//! - [`scenario`] runs what is to be tested, each scenario in a process and a place of its own:
//!   the lab, or this machine itself. A scenario that can't run says so and isn't counted as passed.
//! - [`programs`] builds the steps, and the static `probe` that looks around inside of them.
//! - [`run`](mod@run) runs a program with a time limit: a hang is a failure that says what hung.
//! - [`terminal`] gives a program a terminal, and presses Ctrl-C on it.
//! - [`machine`] lists what a program could leave behind on a machine.
//! - [`view`] takes out of an output what belongs to this machine, so that it can be a snapshot.
//! - [`exercises`] reads the manifest of what there is to solve.
//! - [`held`] starts what holds something until it is told to end, [`network`] looks into a network
//!   namespace, [`groups`] at control groups, and [`answers`] compares what a student predicted with what the kernel said.
//! - [`chance`] makes the needles and the moments that no answer can know in advance.

pub mod answers;
pub mod chance;
pub mod exercises;
pub mod groups;
pub mod held;
pub mod machine;
pub mod network;
pub mod programs;
pub mod run;
pub mod scenario;
pub mod terminal;
pub mod view;
