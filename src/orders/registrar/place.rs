//! Where a row stands in a listing: from there the next page goes on, though rows have come and
//! gone in between. Pure.

use std::fmt;
use std::str::FromStr;

use super::record::{CaseId, StudyRef};
use super::roll::word;
use crate::clock::Timestamp;
use crate::orders::order::OrderKey;
use crate::orders::verdict::What;

/// The place of a row. Its text is the cursor that other systems hand back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub(super) headline: What,
    pub(super) since: Timestamp,
    pub(super) id: CaseId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, origin, key) = match &self.id {
            CaseId::Order(OrderKey { origin, number }) => ("order", origin, number),
            CaseId::Study(StudyRef { origin, study }) => ("study", origin, study),
        };
        write!(f, "{}/{}/{kind}/{origin}/{key}", word(self.headline), self.since.0)
    }
}

/// A cursor that was not given out by a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is what the listing before gave")]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(s: &str) -> Result<Self, NoPlace> {
        let parts: Vec<&str> = s.splitn(5, '/').collect();
        let [headline, since, kind, origin, key] = parts[..] else { return Err(NoPlace) };
        let origin = origin.parse().map_err(|_| NoPlace)?;
        let id = match kind {
            "order" => CaseId::Order(OrderKey { origin, number: key.to_owned() }),
            "study" => CaseId::Study(StudyRef { origin, study: key.to_owned() }),
            _ => return Err(NoPlace),
        };
        Ok(Self {
            headline: What::named(headline).ok_or(NoPlace)?,
            since: Timestamp(since.parse().map_err(|_| NoPlace)?),
            id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_the_same_whatever_stands_in_a_number() {
        for number in ["P1", "a/b//c", "", "受付 1"] {
            let origin = "st.elsewhere".parse().unwrap();
            let id = CaseId::Order(OrderKey { origin, number: number.into() });
            let place = Place { headline: What::Short, since: Timestamp(-5), id };
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for odd in ["", "short", "short/1/order/x", "short/x/order/x/1", "short/1/thing/x/1"] {
            assert_eq!(odd.parse::<Place>(), Err(NoPlace), "{odd}");
        }
    }
}
