//! `hikyaku critical`: results of which a person must know, until one has said that he or she does.

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::ask::{ask, cell};
use super::orders::Tongue;
use super::reports::{actions, decide};
use super::table::{say, table};
use super::{Failure, Outcome, Target, print_json};

/// `hikyaku critical`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Critical {
    #[command(subcommand)]
    decision: Option<Decision>,
    #[command(flatten)]
    list: List,
}

/// `hikyaku critical` alone.
#[derive(Debug, Args)]
struct List {
    /// Those that were dealt with too
    #[arg(long)]
    all: bool,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    tongue: Tongue,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku critical …`
#[derive(Debug, Subcommand)]
enum Decision {
    /// Say that a person knows of the result: notices stop
    ///
    /// At the hospital. Recorded with the system user, and the name where one is given.
    Ack(Ack),
    /// Say that the result was dealt with, and how
    ///
    /// At the hospital, after it was acknowledged.
    Close(Close),
    /// Call a report critical
    Flag(Flag),
}

/// `hikyaku critical ack`
#[derive(Debug, Args)]
struct Ack {
    /// Report, as `hikyaku critical` lists it
    #[arg(value_name = "ID")]
    report: String,
    /// Who knows; without it, the system user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    by: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku critical close`
#[derive(Debug, Args)]
struct Close {
    /// Report, as `hikyaku critical` lists it
    #[arg(value_name = "ID")]
    report: String,
    /// What was done
    #[arg(long, value_name = "TEXT")]
    done: String,
    /// Who says so; without it, the system user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    by: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku critical flag`
#[derive(Debug, Args)]
struct Flag {
    /// Report, as `hikyaku reports` lists it
    #[arg(value_name = "ID")]
    report: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    why: String,
    /// Who says so; without it, the system user
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    by: String,
    #[command(flatten)]
    target: Target,
}

impl Critical {
    pub(super) fn run(self) -> Outcome {
        match self.decision {
            None => self.list.run(),
            Some(Decision::Ack(a)) => {
                let body = json!({ "report": a.report, "name": a.by });
                decide(&a.target, "/critical/acknowledge", &body)
            }
            Some(Decision::Close(c)) => {
                let body = json!({ "report": c.report, "done": c.done, "name": c.by });
                decide(&c.target, "/critical/close", &body)
            }
            Some(Decision::Flag(f)) => {
                let body = json!({ "report": f.report, "reason": f.why, "name": f.by });
                decide(&f.target, "/critical/flag", &body)
            }
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let path = format!("/criticals?limit={}&all={}", self.limit, self.all);
        let rows: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        match (self.target.json, rows.is_empty()) {
            (true, _) => print_json(&rows)?,
            (false, true) => return say("no critical result waits for a person"),
            (false, false) => say(&words(&rows, self.tongue.key()))?,
        }
        match rows.iter().filter(|r| r["state"] == "open").count() {
            0 => Ok(()),
            n => Err(Failure::Found(format!("{n} critical results are open"))),
        }
    }
}

fn words(rows: &[Value], tongue: &str) -> String {
    let row = |r: &Value| {
        let target = &r["target"];
        vec![
            cell(&r["report"]),
            cell(&r["state"]),
            cell(&r["since"]),
            cell(&r["notices"]),
            cell(&target["origin"]),
            cell(&target["order"]["number"]),
            cell(&target["study"]),
            reasons(&r["reasons"]),
        ]
    };
    let head = ["REPORT", "STATE", "SINCE", "NOTICES", "HOSPITAL", "ORDER", "STUDY", "WHY"];
    let out = table(&head, &rows.iter().map(row).collect::<Vec<_>>());
    out + &actions(rows, tongue)
}

/// `{"flag": ["AA", "Mass"]}` as `flag AA Mass`.
fn reasons(all: &Value) -> String {
    let one = |reason: &Value| -> String {
        let Some((kind, values)) = reason.as_object().and_then(|r| r.iter().next()) else {
            return cell(reason);
        };
        let values = match values.as_array() {
            Some(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
            None => cell(values),
        };
        format!("{kind} {values}")
    };
    all.as_array().into_iter().flatten().map(one).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::critical::Reason;

    #[test]
    fn every_reason_of_a_critical_result_is_told_as_words() {
        let all = [
            Reason::Flag("AA".into(), "Mass".into()),
            Reason::Code("RID49480".into(), "RadLex".into()),
            Reason::Title("至急".into()),
            Reason::Said("reader".into()),
        ];
        let all = serde_json::to_value(all).expect("JSON");
        assert_eq!(reasons(&all), "flag AA Mass; code RID49480 RadLex; title 至急; said reader");
    }
}
