//! `hikyaku order`, `orders`, `missing`, `link`: what is known of orders, and what lacks.

use std::collections::{BTreeSet, HashMap};

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Value, json};

use super::ask::{Keeps, ask, cell};
use super::reports;
use super::table::{say, table};
use super::{Failure, Outcome, Target, print_json};

/// In which language sentences are told.
#[derive(Debug, Args)]
pub(super) struct Tongue {
    /// Language of the sentences: en or ja. Default: that of the environment
    #[arg(long, value_name = "LANGUAGE", value_parser = ["en", "ja"])]
    language: Option<String>,
}

impl Tongue {
    /// The key of a sentence's text in answers of the node.
    pub(super) fn key(&self) -> &'static str {
        let environment = || {
            let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
            ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().find_map(set)
        };
        match self.language.clone().or_else(environment) {
            Some(language) if language.starts_with("ja") => "ja",
            _ => "en",
        }
    }
}

/// `hikyaku order …`
#[derive(Debug, Subcommand)]
pub(super) enum Order {
    /// Enter an order, or change one
    ///
    /// For what comes by telephone or on paper. What is not given stays as it was. Recorded with the
    /// system user.
    ///
    /// Example: hikyaku order add P4711 --accession A1 --patient-id 12345 --modality CT
    Add(Box<Add>),
    /// Cancel an order of this node: its images are not expected any more
    Cancel(Cancel),
    /// List open orders and how far their images are
    List(Orders),
    /// Show everything that is known of an order, in the order of time
    Show(Show),
}

/// `hikyaku order add`
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Order number
    number: String,
    /// Accession number
    #[arg(long, default_value = "", hide_default_value = true)]
    accession: String,
    /// Study Instance UID
    #[arg(long, value_name = "UID", default_value = "", hide_default_value = true)]
    study: String,
    /// Patient ID
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    patient_id: String,
    /// Who gives the patient ID; without it, this site
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    patient_issuer: String,
    /// Patient's name as DICOM writes it, such as YAMADA^TARO
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    patient_name: String,
    /// Birth date, YYYYMMDD
    #[arg(long, value_name = "DATE", default_value = "", hide_default_value = true)]
    birth_date: String,
    /// M, F or O
    #[arg(long, default_value = "", hide_default_value = true)]
    sex: String,
    /// Modality, such as CT
    #[arg(long, default_value = "", hide_default_value = true)]
    modality: String,
    /// What is to be done
    #[arg(long, default_value = "", hide_default_value = true)]
    procedure: String,
    /// When, such as 2026-11-22T13:00:00+09:00
    #[arg(long, value_name = "TIME", default_value = "", hide_default_value = true)]
    scheduled: String,
    /// How soon
    #[arg(long, value_parser = ["stat", "urgent", "routine", "bulk"])]
    urgency: Option<String>,
    /// Why it is asked for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// What the reader should know
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    history: String,
    /// Allergies
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    allergies: String,
    /// The department that asks
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    department: String,
    /// Whom to call
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    contact: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku order cancel`
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// Order number
    number: String,
    /// Why; recorded with the system user
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku order show`
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Order number
    number: String,
    #[command(flatten)]
    tongue: Tongue,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku orders`
#[derive(Debug, Args)]
pub(super) struct Orders {
    /// Only those that stand so: due, arriving, short, overdue, presumed-complete, complete,
    /// reopened, patient-mismatch, accession-mismatch
    #[arg(long, value_name = "WORD")]
    state: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    tongue: Tongue,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku missing`
#[derive(Debug, Args)]
pub(super) struct Missing {
    /// At most this many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    tongue: Tongue,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku link`
#[derive(Debug, Args)]
pub(super) struct Link {
    /// Study Instance UID
    study: String,
    /// Order number; `none`: it belongs to no order, whatever its numbers say
    order: String,
    #[command(flatten)]
    target: Target,
}

/// `hikyaku recall`
#[derive(Debug, Args)]
pub(super) struct Recall {
    /// Study Instance UID
    study: String,
    #[command(flatten)]
    target: Target,
}

impl Recall {
    pub(super) fn run(self) -> Outcome {
        let body = json!({ "study": self.study });
        let answer: Value = ask(&self.target, Method::POST, "/recall", Some(&body))?;
        match self.target.json {
            true => print_json(&answer),
            false => say(&cell(&answer["now"])),
        }
    }
}

impl Order {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Add(add) => add.run(),
            Self::Cancel(cancel) => cancel.run(),
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
        }
    }
}

impl Add {
    fn run(self) -> Outcome {
        let order = json!({
            "number": self.number,
            "accession": self.accession,
            "study": self.study,
            "patient_id": self.patient_id,
            "patient_issuer": self.patient_issuer,
            "patient_name": self.patient_name,
            "birth_date": self.birth_date,
            "sex": self.sex,
            "modality": self.modality,
            "procedure": self.procedure,
            "scheduled": self.scheduled,
            "urgency": self.urgency,
            "reason": self.reason,
            "history": self.history,
            "allergies": self.allergies,
            "department": self.department,
            "contact": self.contact,
            // A person who enters it wants it, also when it was cancelled before.
            "again": true,
        });
        let answer: Value = ask(&self.target, Method::POST, "/order/add", Some(&order))?;
        match self.target.json {
            true => print_json(&answer),
            false => say(&format!("order {} is entered", cell(&answer["number"]))),
        }
    }
}

impl Cancel {
    fn run(self) -> Outcome {
        let body = json!({ "number": self.number, "reason": self.reason });
        let answer: Value = ask(&self.target, Method::POST, "/order/cancel", Some(&body))?;
        match self.target.json {
            true => print_json(&answer),
            false => say(&format!("order {} is cancelled", cell(&answer["number"]))),
        }
    }
}

impl Show {
    fn run(self) -> Outcome {
        let body = json!({ "number": self.number });
        let orders: Vec<Value> = ask(&self.target, Method::POST, "/order", Some(&body))?;
        if orders.is_empty() {
            return Err(Failure::Failed(format!("no order {} is known here", self.number)));
        }
        if self.target.json {
            return print_json(&orders);
        }
        let stories = match Keeps::of(&self.target)?.reports() {
            true => reports::stories(&self.target, &self.number)?,
            false => Vec::new(),
        };
        let told = orders.iter().map(|order| {
            let of = |s: &&Value| s["row"]["target"]["origin"] == order["key"]["origin"];
            let mut order = order.clone();
            order["story"] = reports::joined(&order["story"], stories.iter().filter(of));
            order_words(&order, self.tongue.key())
        });
        say(&told.collect::<Vec<_>>().join("\n\n"))
    }
}

fn order_words(order: &Value, tongue: &str) -> String {
    let (key, c) = (&order["key"], &order["content"]);
    let mut out = format!(
        "order {} of {}: {}\n",
        cell(&key["number"]),
        cell(&key["origin"]),
        cell(&order["state"])
    );
    let patient = &c["patient"];
    let list = |values: &Value, field: Option<&str>| {
        let values = values.as_array().map_or(&[][..], Vec::as_slice);
        let shown = values.iter().map(|v| cell(field.map_or(v, |f| &v[f])));
        shown.collect::<Vec<_>>().join(", ")
    };
    for (name, value) in [
        ("accession", cell(&c["accession"]["id"])),
        (
            "patient",
            format!("{} {}", list(&patient["ids"], Some("id")), list(&patient["names"], None)),
        ),
        ("modality", cell(&c["modality"])),
        ("scheduled", cell(&c["scheduled"])),
        ("urgency", cell(&c["urgency"])),
        ("studies", list(&c["studies"], None)),
        ("reason", cell(&c["clinical"]["reason"])),
        ("history", cell(&c["clinical"]["history"])),
        ("allergies", cell(&c["clinical"]["allergies"])),
        ("department", cell(&c["clinical"]["department"])),
        ("contact", cell(&c["clinical"]["contact"])),
    ] {
        if !value.trim().is_empty() && value != "-" {
            out.push_str(&format!("  {name}: {}\n", value.replace('\n', "\n    ")));
        }
    }
    for part in c["parts"].as_array().into_iter().flatten() {
        let shown = [&part["number"], &part["accession"]["id"], &part["state"]];
        let shown = shown.map(cell).join("  ");
        let procedure = cell(&part["procedures"][0]["code"]["meaning"]);
        out.push_str(&format!("  part {shown}  {procedure}\n"));
    }
    if order["standing"].is_object() {
        out.push_str(&told(&order["standing"], tongue));
    }
    for study in order["studies"].as_array().into_iter().flatten() {
        out.push_str(&format!("  study {}:\n{}", cell(&study["study"]), told(study, tongue)));
    }
    for prior in order["priors"].as_array().into_iter().flatten() {
        out.push_str(&format!("  prior study {}:\n{}", cell(&prior["study"]), told(prior, tongue)));
    }
    out.push_str(&events(&order["story"]));
    out.trim_end().to_owned()
}

/// How the source was asked for what lacks; empty when it was not.
fn asked(source: &Value, tongue: &str) -> String {
    if !source.is_object() {
        return String::new();
    }
    let (name, at) = (cell(&source["source"]), cell(&source["answered_at"]));
    let answer = source["answer"].is_object().then(|| cell(&source["answer"][tongue]));
    let rounds = source["rounds"].as_u64().unwrap_or(0);
    let given_up = source["given_up"] == true;
    let next = source["next_at"].is_string().then(|| cell(&source["next_at"]));
    if tongue == "ja" {
        let answer = answer.map(|answer| format!("（{at}）：{answer}"));
        let next = match next {
            _ if given_up => "打ち切り。".into(),
            Some(next) => format!("次回 {next}。"),
            None => String::new(),
        };
        return format!("送信元 {name}{} {rounds} 回照会。{next}", answer.unwrap_or_default());
    }
    let mut out = match answer {
        Some(answer) => format!("the source {name} answered at {at}: {answer}"),
        None => format!("the source {name} is asked for what lacks."),
    };
    match rounds {
        0 => {}
        1 => out.push_str(" Tried once"),
        n => out.push_str(&format!(" Tried {n} times")),
    }
    match next {
        _ if given_up => out.push_str(", given up."),
        Some(next) => out.push_str(&format!(", next at {next}.")),
        None if rounds > 0 => out.push('.'),
        None => {}
    }
    out
}

/// Why it is so, and what to do next.
fn told(of: &Value, tongue: &str) -> String {
    let (reason, action) = (cell(&of["reason"][tongue]), cell(&of["action"][tongue]));
    format!("  {reason}\n    -> {action}\n")
}

/// What happened, one line each.
pub(super) fn events(story: &Value) -> String {
    let line = |e: &Value| {
        let by = cell(&e["by"]);
        let by = if by.is_empty() { String::new() } else { format!(" ({by})") };
        format!("  {}  {}{by}\n", cell(&e["at"]), cell(&e["what"]))
    };
    story.as_array().into_iter().flatten().map(line).collect()
}

/// The story of a study, for `hikyaku study`.
pub(super) fn case_words(case: &Value, tongue: &str) -> String {
    let mut out = format!("study {} of {}\n", cell(&case["study"]), cell(&case["origin"]));
    if case["prior_of"].is_object() {
        out.push_str(&format!("  prior of order {}\n", cell(&case["prior_of"]["number"])));
    }
    for finding in case["findings"].as_array().into_iter().flatten() {
        let what = cell(&finding["what"]);
        out.push_str(&format!("  {what}: {}", told(finding, tongue).trim_start_matches(' ')));
    }
    let source = asked(&case["standing"]["source"], tongue);
    if !source.is_empty() {
        out.push_str(&format!("  {source}\n"));
    }
    for missing in case["missing"].as_array().into_iter().flatten() {
        out.push_str(&format!("  lacks {} ({})\n", cell(&missing["sop"]), cell(&missing["by"])));
    }
    out.push_str(&events(&case["story"]));
    out.trim_end().to_owned()
}

impl Orders {
    pub(super) fn run(self) -> Outcome {
        let state = self.state.as_ref().map(|s| format!("&state={s}")).unwrap_or_default();
        let path = format!("/orders?limit={}{state}", self.limit);
        let rows: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        if self.target.json {
            return print_json(&rows);
        }
        if rows.is_empty() {
            return say("no open orders");
        }
        let loops: Option<Vec<Value>> = match Keeps::of(&self.target)?.reports() {
            true => Some(ask(&self.target, Method::GET, "/loops?limit=100000", None)?),
            false => None,
        };
        say(&of_rows(&rows, loops.as_deref(), self.tongue.key()))
    }
}

impl Missing {
    pub(super) fn run(self) -> Outcome {
        let path = format!("/missing?limit={}", self.limit);
        let rows: Vec<Value> = ask(&self.target, Method::GET, &path, None)?;
        match self.target.json {
            true => print_json(&rows)?,
            false if rows.is_empty() => return say("nothing is missing"),
            false => say(&of_rows(&rows, None, self.tongue.key()))?,
        }
        match rows.len() {
            0 => Ok(()),
            n => Err(Failure::Found(format!("{n} studies or orders need attention"))),
        }
    }
}

/// A table of orders and studies; with `loops`, also how far the report of each is.
fn of_rows(rows: &[Value], loops: Option<&[Value]>, tongue: &str) -> String {
    let far = loops.map(|loops| {
        let by = |field: &str| -> HashMap<(String, String), String> {
            let known = loops.iter().filter(|l| l[field].as_str().is_some_and(|v| !v.is_empty()));
            known.map(|l| ((cell(&l["hospital"]), cell(&l[field])), reports::how_far(l))).collect()
        };
        (by("study"), by("order"))
    });
    let row = |r: &Value| {
        let n = match r["expected"].as_u64() {
            Some(m) => format!("{}/{m}", cell(&r["arrived"])),
            None => format!("{}/?", cell(&r["held"])),
        };
        let report = far.as_ref().map(|(studies, orders)| {
            let found = studies.get(&(cell(&r["origin"]), cell(&r["study"])));
            let found = found.or_else(|| orders.get(&(cell(&r["origin"]), cell(&r["order"]))));
            found.cloned().unwrap_or_else(|| "-".into())
        });
        let front = [Some(cell(&r["headline"])), Some(n), report].into_iter().flatten();
        let rest = [
            cell(&r["origin"]),
            match r["prior_of"].is_string() {
                true => format!("prior of {}", cell(&r["prior_of"])),
                false => cell(&r["order"]),
            },
            cell(&r["accession"]),
            cell(&r["modality"]),
            cell(&r["since"]),
            cell(&r["study"]),
            cell(&r["reason"][tongue]),
        ];
        front.chain(rest).collect()
    };
    let rest = ["ORIGIN", "ORDER", "ACCESSION", "MOD", "SINCE", "STUDY", "WHY"];
    let report = if far.is_some() { &["REPORT"][..] } else { &[] };
    let head = [&["STATE", "IMAGES"], report, &rest[..]].concat();
    let mut out = table(&head, &rows.iter().map(row).collect::<Vec<_>>());
    // The same for all that stand alike: below the table, once.
    let next: BTreeSet<String> = rows
        .iter()
        .map(|r| format!("{}: {}", cell(&r["headline"]), cell(&r["action"][tongue])))
        .collect();
    for r in rows {
        let asked = asked(&r["source"], tongue);
        if !asked.is_empty() {
            out.push_str(&format!("\n{}: {asked}", cell(&r["study"])));
        }
    }
    out.push_str("\n\n");
    out.push_str(&next.into_iter().collect::<Vec<_>>().join("\n"));
    out
}

impl Link {
    pub(super) fn run(self) -> Outcome {
        let order = Some(&self.order).filter(|order| *order != "none");
        let body = json!({ "study": self.study, "order": order });
        let answer: Value = ask(&self.target, Method::POST, "/link", Some(&body))?;
        match self.target.json {
            true => print_json(&answer),
            false => say(&format!("linked; {}", cell(&answer["now"]))),
        }
    }
}
