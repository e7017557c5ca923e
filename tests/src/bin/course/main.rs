//! `cargo course`: what learners and instructors use beside the steps themselves.

mod lab;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use uts::process;

/// Helps along the course: a throw-away host to try things in.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Lab(lab::Lab),
}

fn main() -> ExitCode {
    process::main(|args: Args| match args.verb {
        Verb::Lab(lab) => lab::enter(&lab),
    })
}
