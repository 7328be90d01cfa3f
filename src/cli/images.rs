//! `hikyaku waive`, `hikyaku reinstate`: a person decides about images of a study.

use clap::Args;
use hyper::Method;
use serde_json::{Value, json};

use super::ask::{ask, cell};
use super::table::say;
use super::{Outcome, Target, print_json};

/// `hikyaku waive`, `hikyaku reinstate`
#[derive(Debug, Args)]
pub(super) struct Images {
    /// Study Instance UID
    study: String,
    /// SOP Instance UIDs; without any, all that are missing, or all that are withdrawn
    images: Vec<String>,
    /// Why; recorded with the system user
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

impl Images {
    pub(super) fn waive(self) -> Outcome {
        self.decide("/waive", "will not come")
    }

    pub(super) fn reinstate(self) -> Outcome {
        self.decide("/reinstate", "expected again")
    }

    fn decide(self, path: &str, done: &str) -> Outcome {
        let Self { study, images, reason, target } = self;
        let body = json!({ "study": study, "images": images, "reason": reason });
        let answer: Value = ask(&target, Method::POST, path, Some(&body))?;
        match target.json {
            true => print_json(&answer),
            false => say(&format!("{done}: {}", cell(&answer["now"]))),
        }
    }
}
