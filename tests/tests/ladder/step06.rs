//! Step 6: message queues, semaphores and shared memory of its own. What is seen inside is proven
//! with the probe: the host has objects then that it must not see.

use anyhow::Result;
use tests::{
    machine::Machine,
    programs::program,
    run::finish,
    scenario::{EVERYWHERE, Scenario},
    view,
};

use crate::snapshot;

pub fn scenarios() -> Vec<Scenario> {
    vec![Scenario::new("step06::demo", EVERYWHERE, demo)]
}

fn demo() -> Result<()> {
    let before = Machine::now();
    finish(program("step06-ipc").arg("--demo"))?.success()?; // Fills the cache.
    let before = before.with_files();
    let demo = finish(program("step06-ipc").arg("--demo"))?.success()?;
    snapshot::check("step06-demo", &view::story(&demo.stdout));
    before.is_back()
}
