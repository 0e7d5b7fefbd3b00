//! A question about a capacity with what the formula says of it.

use super::Question;

/// A question, and what the formula says of it: worked out once, since each step asks for it several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Posed {
    question: Question,
    on_the_mean: f64,
    throughput: f64,
}

impl Posed {
    /// Works out the formula's answers.
    #[must_use]
    pub fn new(question: Question) -> Self {
        let (on_the_mean, throughput) = (question.on_the_mean(), question.throughput());
        Self { question, on_the_mean, throughput }
    }

    /// What is asked.
    #[must_use]
    pub const fn question(&self) -> &Question {
        &self.question
    }

    /// See [`Question::on_the_mean`].
    #[must_use]
    pub const fn on_the_mean(&self) -> f64 {
        self.on_the_mean
    }

    /// See [`Question::throughput`].
    #[must_use]
    pub const fn throughput(&self) -> f64 {
        self.throughput
    }
}
