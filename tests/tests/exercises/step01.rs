//! The exercises of step 1: a host name of its own.

use tests::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![]
}
