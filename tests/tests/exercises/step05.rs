//! The exercises of step 5: a network with one cable to the host.

use tests::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![]
}
