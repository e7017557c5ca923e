//! The exercises of step 7: limits.

use tests::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![]
}
