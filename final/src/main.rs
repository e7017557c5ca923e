//! final: a container runtime made of the eight steps.
#![cfg_attr(target_env = "gnu", no_main)]

use std::process::ExitCode;

use runtime::{
    cli::{Cli, Verb},
    run,
};
use uts::process;

#[cfg(target_env = "gnu")]
mod start;

#[cfg(not(target_env = "gnu"))]
fn main() -> ExitCode {
    final_main()
}

fn final_main() -> ExitCode {
    process::main(|cli: Cli| match cli.verb {
        Verb::Run(options) => run::run(&options, cli.store),
    })
}
