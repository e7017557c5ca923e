//! final: a container runtime made of the eight steps.

use std::process::ExitCode;

use runtime::{
    cli::{Cli, Verb},
    run,
};
use uts::process;

fn main() -> ExitCode {
    process::main(|cli: Cli| match cli.verb {
        Verb::Run(options) => run::run(&options, cli.store),
    })
}
