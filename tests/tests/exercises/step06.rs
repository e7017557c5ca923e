//! The exercises of step 6: message queues of its own.

use tests::scenario::Scenario;

pub fn scenarios() -> Vec<Scenario> {
    vec![]
}
