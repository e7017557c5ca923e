//! When something is so: the few of the six namespaces that it depends on.

use super::NAMESPACES;

/// Some namespaces that are on and some that are off; the others don't matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    matters: usize,
    on: usize,
}

impl Case {
    fn has(self, number: usize) -> bool {
        number & self.matters == self.on
    }

    fn parts(self) -> impl Iterator<Item = (&'static str, bool)> {
        let matters = NAMESPACES.into_iter().enumerate();
        let matters = matters.filter(move |(bit, _)| self.matters >> bit & 1 == 1);
        matters.map(move |(bit, name)| (name, self.on >> bit & 1 == 1))
    }

    /// For a program: `+uts -user`.
    pub fn code(&self) -> String {
        let sign = |on| if on { '+' } else { '-' };
        let parts: Vec<String> = self.parts().map(|(n, on)| format!("{}{n}", sign(on))).collect();
        parts.join(" ")
    }

    /// For people: "with uts, without user".
    pub fn words(&self) -> String {
        let word = |on| if on { "with" } else { "without" };
        let parts: Vec<String> = self.parts().map(|(n, on)| format!("{} {n}", word(on))).collect();
        parts.join(", ")
    }
}

/// The cases in which `is_so`, few and each as wide as can be. `is_so` takes the number of a combination.
pub fn cases(is_so: impl Fn(usize) -> bool) -> Vec<Case> {
    let mut all: Vec<Case> = (0..64)
        .flat_map(|matters| (0..64).map(move |on| Case { matters, on }))
        .filter(|case| case.on & !case.matters == 0)
        .filter(|case| (0..64).filter(|number| case.has(*number)).all(&is_so))
        .collect();
    all.sort_by_key(|case| (case.matters.count_ones(), *case));
    let mut found: Vec<Case> = vec![];
    for case in all {
        let known = |number| found.iter().any(|case: &Case| case.has(number));
        if (0..64).any(|number| case.has(number) && !known(number)) {
            found.push(case);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::cases;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let words = |is_so: fn(usize) -> bool| {
            cases(is_so).iter().map(|case| case.words()).collect::<Vec<_>>()
        };
        assert_eq!(words(|number| number & 1 == 1), ["with uts"]);
        assert_eq!(words(|number| number & 3 == 2), ["without uts, with pid"]);
        assert_eq!(words(|number| number & 3 != 0), ["with uts", "with pid"]);
        assert_eq!(words(|_| true), [""]);
        assert_eq!(words(|_| false), [""; 0]);
    }

    #[test]
    fn a_case_for_a_program() {
        assert_eq!(cases(|number| number & 0b1001 == 1)[0].code(), "+uts -user");
    }
}
