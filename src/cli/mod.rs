//! Commands and exit codes.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage or configuration |
//! | 3 | the daemon cannot be reached |
//! | 4 | found what it warns about (`check-config`, `missing`, `overdue`, `critical`, `notice list`, `spool verify`, `spool export`) |
//!
//! A running daemon is asked over its control socket; nothing here opens its ledger. Listings
//! print a table for people and, with `--json`, one JSON document.

mod api;
mod ask;
mod critical;
mod demo;
mod explain;
mod images;
mod notices;
mod offline;
mod orders;
mod pki;
mod queue;
mod reports;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::cargo::NodeName;

/// Where the configuration is looked for when `--config` is not given.
const CONFIG_FILE: &str = "/etc/hikyaku/hikyaku.toml";

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Exit code 3.
    #[error("{0}")]
    Unreachable(String),
    /// Exit code 4.
    #[error("{0}")]
    Found(String),
}

impl Failure {
    const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Found(_) => 4,
        }
    }
}

/// What a command comes to.
type Outcome = Result<(), Failure>;

/// hikyaku carries medical images from scanners to the reading centre: it answers yes only once an
/// image would survive a power cut, and that yes means it will arrive.
#[derive(Debug, Parser)]
#[command(name = "hikyaku", version, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, \
    3 the node cannot be reached, 4 found what it warns about.\n\n\
    `hikyaku COMMAND --help` tells more than `-h`. To see it work: `hikyaku demo`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    ///
    /// Runs in the foreground until SIGTERM or SIGINT, then drains within `[drain] timeout`. SIGHUP
    /// reads certificates and configuration again. Tells systemd when it is ready and feeds its
    /// watchdog. Logs to standard error; HIKYAKU_LOG overrides the level, such as
    /// `info,hikyaku::tunnel=debug`.
    ///
    /// Ends with 0 after a stop, with 1 when custody cannot go on (start it again: nothing accepted
    /// is lost), with 2 when the configuration is not usable.
    Run(run::Run),
    /// Say everything that is wrong with a configuration, and what it would do
    ///
    /// Reads the file and all files that it names, names every fault with its line, its key and what
    /// to do, and then tells in plain words what the node would do. Changes nothing.
    ///
    /// Exit code 0: good; 4: good, but with warnings; 2: not usable.
    CheckConfig(run::CheckConfig),
    /// Show the whole circle on this machine: an order, its images, a report, its acknowledgement
    ///
    /// Makes keys, starts a hospital node and a reading node in a temporary folder, and plays a RIS, a
    /// scanner, a reporting system and a HIS: real sockets, a real study, every receipt shown. The
    /// folder stays, for whoever wants to look into it.
    Demo(demo::Demo),
    /// Make a private certificate authority and node certificates
    ///
    /// Every node has a certificate with its name, signed by an authority that the others trust.
    /// Any authority will do; this is one in two steps.
    #[command(subcommand)]
    Pki(pki::Pki),
    /// Show how a running node stands
    ///
    /// Whether it is ready and what stands in the way; the spool; each destination with what it is
    /// owed, since when, and what went wrong last; each tunnel with the reason when it is down.
    Status(ask::Status),
    /// List the studies in custody, the most recent first
    ///
    /// One line for each study of each origin, with how many of its duties are in which state.
    /// With --json also patient ID, times and bytes.
    Studies(ask::Studies),
    /// Show the story of one study: what lacks, what happened, its duties and receipts
    ///
    /// Where orders are kept, first how the study stands and why, and what happened in the order of
    /// time. Then every piece: its duties, receipts, and what became of it beyond.
    ///
    /// One line for each duty. WHY shows tries, causes, reasons, who decided, and after `beyond:`
    /// what the next node tells. With --json also receipts, digests and what was odd about the
    /// image.
    Study(ask::Study),
    /// List what is missing: studies that lack images, orders without images, images without order
    ///
    /// Gravest first, the oldest of a kind first: what lacks, since when, and why that is known.
    /// With --json also the SOP Instance UIDs, the grade of the evidence and the next action.
    ///
    /// Exit code 0: nothing is missing; 4: something is.
    Missing(orders::Missing),
    /// List open orders and how far their images are
    ///
    /// Orders come by HL7, from other nodes, or by `hikyaku order add`. What is complete is not
    /// listed any more; `hikyaku order show` still knows it.
    Orders(orders::Orders),
    /// Enter, cancel and show orders
    ///
    /// Needs an `[orders]` section in the configuration.
    #[command(subcommand)]
    Order(orders::Order),
    /// Say to which order a study belongs
    ///
    /// For images that came under another order's number, or under none. Changes nothing in the
    /// images; recorded with the system user. A later link counts.
    Link(orders::Link),
    /// Ask the source for what a study lacks, at once
    ///
    /// For when something was set right at the source, or to see what it has now. Begins with all
    /// patience again, whatever was given up. Needs an [[orders.source]] in the configuration.
    Recall(orders::Recall),
    /// Try whether notices arrive, and list those that do not
    ///
    /// A notice tells the station that sent a study that something needs attention, and again when
    /// it is settled, by the rules of `[[orders.notice]]`.
    #[command(subcommand)]
    Notice(notices::Notice),
    /// Decide that missing images will not come
    ///
    /// For images that evidence names and nobody can send any more. The study is then judged without
    /// them, and says that a person has decided so; what is named later and lacks is missing as
    /// before, and an image that comes after all counts. Recorded with the system user and --reason.
    ///
    /// Example: hikyaku waive 1.2.392.999.1 1.2.392.999.1.1.7 --reason "deleted at the console"
    Waive(images::Images),
    /// Decide that withdrawn images are expected after all
    ///
    /// For images that a rejection note or `hikyaku waive` took out of the expectation. Recorded with
    /// the system user and --reason.
    Reinstate(images::Images),
    /// List reports, or documents that wait for a person
    ///
    /// A report is known by its id of 32 hexadecimal digits; each of its versions has documents, the
    /// latest counts. `--held` lists documents that are not matched, or whose signer is not on the
    /// list, each with why and what to do. No text of a report is shown.
    Reports(reports::Reports),
    /// Show reports and decide about them
    ///
    /// Needs a `[reports]` section in the configuration. Decisions are recorded with the system user.
    #[command(subcommand)]
    Report(reports::Report),
    /// List studies whose report, receipt or acknowledgement is overdue
    ///
    /// By the promises of `[reports]`, the most pressing first. With --json also when each moment of
    /// the loop was: sent, received, preliminary, final, delivered, acknowledged.
    ///
    /// Exit code 0: nothing is overdue; 4: something is.
    Overdue(reports::Overdue),
    /// List critical results that wait for a person, acknowledge and close them
    ///
    /// A critical result is open until a person at the hospital has said that he or she knows, and
    /// listed until somebody has said what was done. With --json also all that happened.
    ///
    /// Exit code 0: none is open; 4: one is.
    Critical(critical::Critical),
    /// Ask the other side about a study, or answer
    ///
    /// The reading centre asks for priors, the hospital answers. It is carried like images are, and
    /// survives outages of either side.
    ///
    /// Example: hikyaku note 1.2.392.999.1 "please send the CT of last year"
    Note(reports::Note),
    /// List what was asked and answered about a study, or all open questions
    ///
    /// The oldest first, with the id that `hikyaku note --answers` takes.
    Notes(reports::Notes),
    /// List duties and decide about them
    ///
    /// A duty is one image owed to one destination: owed, held, receipted, quarantined or
    /// dismissed. Decisions are recorded with the system user who asks, and with --reason.
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Say which rules apply to a study, or to a file not yet sent, and why the others do not
    ///
    /// For a study the running node is asked, by the rules in force now; for a file the
    /// configuration alone is read, and no node need run. Values that identify the patient are
    /// masked unless --patient is given.
    Explain(explain::Explain),
    /// Make tokens for other systems
    ///
    /// Who may call the HTTP API, and what each may do, stands in [api] of the configuration.
    #[command(subcommand)]
    Api(api::Api),
    /// Have a running node read its certificates and configuration again
    ///
    /// Says of every changed setting whether it counts now or waits for a restart. When anything is
    /// wrong nothing changes, and the exit code is not 0.
    Reload(ask::Reload),
    /// Look after the spool
    ///
    /// The spool below `[node] data` holds every accepted byte and every durable fact; the ledger
    /// is a view of it.
    #[command(subcommand)]
    Spool(offline::Spool),
}

/// Which node is asked.
#[derive(Debug, Clone, Args)]
struct Target {
    /// Configuration file of the node
    #[arg(long, value_name = "FILE", default_value = CONFIG_FILE)]
    config: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Runs the command line and says how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return if e.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match cli.command {
        Command::Run(c) => c.run(),
        Command::CheckConfig(c) => c.run(),
        Command::Demo(c) => c.run(),
        Command::Pki(c) => c.run(),
        Command::Status(c) => c.run(),
        Command::Studies(c) => c.run(),
        Command::Study(c) => c.run(),
        Command::Missing(c) => c.run(),
        Command::Orders(c) => c.run(),
        Command::Order(c) => c.run(),
        Command::Link(c) => c.run(),
        Command::Recall(c) => c.run(),
        Command::Notice(c) => c.run(),
        Command::Waive(c) => c.waive(),
        Command::Reinstate(c) => c.reinstate(),
        Command::Reports(c) => c.run(),
        Command::Report(c) => c.run(),
        Command::Overdue(c) => c.run(),
        Command::Critical(c) => c.run(),
        Command::Note(c) => c.run(),
        Command::Notes(c) => c.run(),
        Command::Queue(c) => c.run(),
        Command::Explain(c) => c.run(),
        Command::Api(c) => c.run(),
        Command::Reload(c) => c.run(),
        Command::Spool(c) => c.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hikyaku: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn node_name(s: &str) -> Result<NodeName, String> {
    s.parse().map_err(|e: crate::cargo::NameError| e.to_string())
}

fn print_json<T: serde::Serialize>(value: &T) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::Failed(e.to_string()))?;
    table::say(&text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn look(command: &clap::Command, path: &str, missing: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        if command.get_about().is_none() {
            missing.push(path.clone());
        }
        for argument in command.get_arguments() {
            if argument.get_help().is_none() {
                missing.push(format!("{path} {}", argument.get_id()));
            }
        }
        command.get_subcommands().for_each(|sub| look(sub, &path, missing));
    }

    #[test]
    fn every_command_and_every_option_has_help() {
        let mut command = Cli::command();
        command.build();
        let mut missing = Vec::new();
        look(&command, "", &mut missing);
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn every_command_that_does_something_tells_more_than_one_line() {
        let mut command = Cli::command();
        command.build();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            assert!(sub.get_long_about().is_some(), "{}", sub.get_name());
        }
    }
}
