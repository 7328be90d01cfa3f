//! `hikyaku notice`: try whether notices arrive, and list those that do not.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::ask::{ask, cell};
use super::table::{say, table};
use super::{Failure, Outcome, Target, print_json};

/// `hikyaku notice …`
#[derive(Debug, Subcommand)]
pub(super) enum Notice {
    /// Send a test by every channel of a rule, once, and say what became of it
    ///
    /// The receiver sees a notice of the kind `test` that is about no study. Exit code 0: every channel
    /// has taken it; 1: one has not, and why.
    Test(Test),
    /// List notices that are not delivered, and those that were given up in the last week
    ///
    /// Exit code 0: there is none; 4: there is one.
    List(List),
}

/// `hikyaku notice test`
#[derive(Debug, Args)]
pub(super) struct Test {
    /// Name of the rule: `name` of an `[[orders.notice]]`
    rule: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku notice list`
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    target: Target,
}

impl Notice {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Test(test) => test.run(),
            Self::List(list) => list.run(),
        }
    }
}

impl Test {
    fn run(self) -> Outcome {
        let body = json!({ "rule": self.rule });
        let tried: Vec<Value> = ask(&self.target, Method::POST, "/notice/test", Some(&body))?;
        if self.target.json {
            print_json(&tried)?;
        } else {
            for one in &tried {
                let channel = cell(&one["channel"]);
                match one["failure"].as_str() {
                    Some(why) => say(&format!("{channel}: NOT taken: {why}"))?,
                    None => say(&format!("{channel}: taken"))?,
                }
            }
        }
        match tried.iter().filter(|one| one["failure"].is_string()).count() {
            0 => Ok(()),
            n => Err(Failure::Failed(format!("{n} of {} channels failed", tried.len()))),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let all: Vec<Value> = ask(&self.target, Method::GET, "/notices", None)?;
        if self.target.json {
            print_json(&all)?;
        } else if all.is_empty() {
            return say("all notices are delivered");
        } else {
            let channels = |of: &Value| {
                let all = of.as_array().into_iter().flatten().map(cell);
                all.collect::<Vec<_>>().join(", ")
            };
            let row = |n: &Value| {
                let given_up = &n["given_up_at"];
                vec![
                    cell(&n["at"]),
                    cell(&n["rule"]),
                    cell(&n["about"]),
                    channels(&n["channels"]),
                    if given_up.is_null() { "being tried".into() } else { "GIVEN UP".into() },
                    cell(&n["study"]),
                    cell(&n["last_error"]),
                ]
            };
            let head = ["MADE", "RULE", "ABOUT", "WAITS FOR", "STATE", "STUDY", "LAST ERROR"];
            say(&table(&head, &all.iter().map(row).collect::<Vec<_>>()))?;
        }
        match all.len() {
            0 => Ok(()),
            n => Err(Failure::Found(format!("{n} notices are not delivered"))),
        }
    }
}
