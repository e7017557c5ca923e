//! The exercises' own tests: they take anyone's solution, and their messages teach. What is asked
//! for is in `tests/exercises.toml`; see `tests::scenario` for how this runs.

mod slow_parent;
#[path = "../ladder/snapshot.rs"]
mod snapshot;
mod step01;
mod step02;
mod step03;
mod step04;
mod step05;
mod step06;
mod step07;
mod step08;

use std::process::ExitCode;

use tests::scenario;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = slow_parent::run_if_asked(&args) {
        return code;
    }
    let files = [
        step01::scenarios(),
        step02::scenarios(),
        step03::scenarios(),
        step04::scenarios(),
        step05::scenarios(),
        step06::scenarios(),
        step07::scenarios(),
        step08::scenarios(),
    ];
    let all = files.into_iter().flatten().collect();
    scenario::main(&snapshot::with_list("exercises", all))
}
