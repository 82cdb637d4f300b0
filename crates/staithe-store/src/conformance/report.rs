use std::fmt;

/// How one case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The store keeps the promise.
    Passed,
    /// The store says that it cannot do this; why.
    Skipped(&'static str),
    /// The store breaks the promise; how, in a sentence.
    Failed(String),
}

/// What a run of the suite found. `Display` prints one case a line.
#[derive(Debug, Clone, Default)]
pub struct Report {
    cases: Vec<(&'static str, Outcome)>,
}

impl Report {
    pub(super) fn add(&mut self, case: &'static str, outcome: Outcome) {
        self.cases.push((case, outcome));
    }

    /// Every case in order, by name.
    pub fn cases(&self) -> &[(&'static str, Outcome)] {
        &self.cases
    }

    /// The cases that failed, and how.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.cases.iter().filter_map(|(case, outcome)| match outcome {
            Outcome::Failed(how) => Some((*case, how.as_str())),
            Outcome::Passed | Outcome::Skipped(_) => None,
        })
    }

    /// How many cases passed.
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|(_, outcome)| *outcome == Outcome::Passed).count()
    }

    /// The last line of a test.
    ///
    /// # Panics
    /// If a case failed; the message is the whole report.
    pub fn assert_passed(&self) {
        assert!(self.failures().next().is_none(), "the store does not conform:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, outcome) in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "pass  {case}")?,
                Outcome::Skipped(why) => writeln!(f, "skip  {case}: {why}")?,
                Outcome::Failed(how) => writeln!(f, "FAIL  {case}: {how}")?,
            }
        }
        let failed = self.failures().count();
        writeln!(f, "{} cases, {} passed, {failed} failed", self.cases.len(), self.passed())
    }
}
