//! The ladder, step by step, asked of a real kernel: see `tests::scenario` for how this runs.

mod combinations;
mod commands;
mod every_step;
mod leftovers;
mod mistakes;
mod snapshot;
mod step01;
mod step02;
mod step03;
mod step04;
mod step05;
mod step06;
mod step07;
mod step08;
mod steps;
mod transcripts;

use std::process::ExitCode;

use tests::scenario;

fn main() -> ExitCode {
    let files = [
        every_step::scenarios(),
        step01::scenarios(),
        step02::scenarios(),
        step03::scenarios(),
        step04::scenarios(),
        step05::scenarios(),
        step06::scenarios(),
        step07::scenarios(),
        step08::scenarios(),
        mistakes::scenarios(),
        combinations::scenarios(),
        leftovers::scenarios(),
        transcripts::scenarios(),
        commands::scenarios(),
    ];
    let all = files.into_iter().flatten().collect();
    scenario::main(&snapshot::with_list("ladder", all))
}
