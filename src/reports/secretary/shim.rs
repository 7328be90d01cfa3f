//! Temporary.
use crate::clock::Timestamp;
use crate::cargo::{NodeName, Urgency};
use crate::orders::registrar::{Desk, StudyRef};
use crate::reports::turnaround::{Moment, Owed};
use crate::reports::report::Status;
pub enum Hint { Study(StudyRef), Some }
pub struct Whole { pub at: Timestamp, pub images: u64 }
pub struct Wholes;
impl Wholes { pub async fn next(&mut self) -> Hint { std::future::pending().await } }
pub trait Pending {
    async fn wholes(&self) -> Wholes { Wholes }
    async fn whole(&self, _: &NodeName, _: &str) -> Result<Option<Whole>, ()> { Ok(None) }
    async fn is_wanted(&self, _: &NodeName, _: &str) -> Result<bool, ()> { Ok(true) }
}
impl Pending for Desk {}
pub struct Late; impl Late { pub fn inc(&self) {} }
pub struct R { pub late: Late }
impl R {
    pub fn taken(&self, _: Status) {}
    pub fn turnaround(&self, _: &str, _: Urgency, _: (Moment, Moment), _: u64) {}
    pub fn show(&self, _: usize, _: std::collections::BTreeMap<Owed, i64>, _: usize) {}
    pub fn show_people(&self, _: usize, _: u64, _: usize) {}
}
pub static R_: R = R { late: Late };
pub struct ReportFacts { pub status: String, pub report: String, pub version: u32, pub replaces: String }
impl ReportFacts { pub fn write(&self, _: &mut crate::cargo::Envelope) {} }
pub trait PendingLetter { fn of_report(rule: &str, what: crate::orders::verdict::What, s: crate::orders::letter::Subject, seed: &[u8], at: Timestamp) -> crate::orders::letter::Letter; }
impl PendingLetter for crate::orders::letter::Letter { fn of_report(_: &str, _: crate::orders::verdict::What, _: crate::orders::letter::Subject, _: &[u8], _: Timestamp) -> crate::orders::letter::Letter { unimplemented!() } }
