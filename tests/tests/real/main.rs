//! `final run` with real input: images that other tools made, servers that answer, and limits that hold.

mod images;
mod isolation;
mod running;
mod semantics;
mod server;
#[path = "../ladder/snapshot.rs"]
mod snapshot;
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
    let all = files.into_iter().flatten().collect();
    scenario::main(&snapshot::with_list("real", all))
}
