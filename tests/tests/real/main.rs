//! `final run` with real input: images that other tools made, servers that answer, and limits that hold.

mod images;
mod isolation;
mod running;
mod semantics;
mod server;
mod terminals;
mod trouble;

use std::process::ExitCode;

use tests::scenario;

fn main() -> ExitCode {
    let files = [
        semantics::scenarios(),
        isolation::scenarios(),
        terminals::scenarios(),
        trouble::scenarios(),
        server::scenarios(),
    ];
    scenario::main(&files.into_iter().flatten().collect::<Vec<_>>())
}
