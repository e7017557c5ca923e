//! The exercises of step 3: a root file system of its own.

use tests::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![]
}
