//! Points in time as HL7 writes them (HL7 2.5 2.A.79, TS and DTM).
//!
//! The text is kept as it came; what it means stands beside it, with its precision. A text that
//! means nothing (`Aug 15, 1942`) is kept and means nothing: an order does not fail for a date.

use jiff::civil;
use jiff::tz::{Offset, TimeZone};

/// A point in time, as written and as understood.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeStamp {
    text: String,
    when: Option<When>,
}

/// What a time stamp means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// Local time of the sender; what is not stated is the smallest it can be.
    pub local: civil::DateTime,
    /// How much of it is stated.
    pub precision: Precision,
    /// Offset from UTC, where the sender states it.
    pub offset: Option<Offset>,
}

/// How much of a time is stated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// `YYYY`
    Year,
    /// `YYYYMM`
    Month,
    /// `YYYYMMDD`
    Day,
    /// `YYYYMMDDHH`
    Hour,
    /// `YYYYMMDDHHMM`
    Minute,
    /// `YYYYMMDDHHMMSS`
    Second,
    /// `YYYYMMDDHHMMSS.S` and finer
    Fraction,
}

impl TimeStamp {
    /// Takes a text as it stands.
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), when: read(text.trim()) }
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it means, if anything.
    pub fn when(&self) -> Option<When> {
        self.when
    }

    /// Whether nothing is stated.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// A moment as HL7 writes it, to the second, in `zone` and with its offset.
pub fn written(at: jiff::Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y%m%d%H%M%S%z").to_string()
}

fn read(text: &str) -> Option<When> {
    if !text.is_ascii() {
        return None;
    }
    let (text, offset) = match text.rfind(['+', '-']) {
        Some(sign) => (&text[..sign], Some(read_offset(&text[sign..])?)),
        None => (text, None),
    };
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let part = |from: usize, to: usize, least: i8| -> Option<i8> {
        if whole.len() < to { Some(least) } else { digits(&whole[from..to])?.try_into().ok() }
    };
    let precision = match (whole.len(), fraction) {
        (4, None) => Precision::Year,
        (6, None) => Precision::Month,
        (8, None) => Precision::Day,
        (10, None) => Precision::Hour,
        (12, None) => Precision::Minute,
        (14, None) => Precision::Second,
        (14, Some(_)) => Precision::Fraction,
        _ => return None,
    };
    let year = digits(&whole[..4])?.try_into().ok()?;
    let date = civil::Date::new(year, part(4, 6, 1)?, part(6, 8, 1)?).ok()?;
    let nanoseconds = fraction.map_or(Some(0), |f| {
        let stated = f.len().min(9);
        let scale = 10_i32.pow(9 - u32::try_from(stated).ok()?);
        digits(f).and(Some(i32::try_from(digits(&f[..stated])?).ok()? * scale))
    })?;
    let time =
        civil::Time::new(part(8, 10, 0)?, part(10, 12, 0)?, part(12, 14, 0)?, nanoseconds).ok()?;
    Some(When { local: date.to_datetime(time), precision, offset })
}

/// `+0900`, `-0330`.
fn read_offset(text: &str) -> Option<Offset> {
    let (sign, number) = text.split_at_checked(1)?;
    let (hours, minutes) = number.split_at_checked(2)?;
    if number.len() != 4 {
        return None;
    }
    let seconds = i32::try_from(digits(hours)? * 3600 + digits(minutes)? * 60).ok()?;
    Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).ok()
}

/// A number of at most fifteen digits and nothing else.
fn digits(text: &str) -> Option<u64> {
    let plain = (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_understood_as_far_as_it_is_stated() {
        for (text, local, precision) in [
            ("1982", "1982-01-01T00:00:00", Precision::Year),
            ("198209", "1982-09-01T00:00:00", Precision::Month),
            ("19820911", "1982-09-11T00:00:00", Precision::Day),
            ("2011070100", "2011-07-01T00:00:00", Precision::Hour),
            ("201107011230", "2011-07-01T12:30:00", Precision::Minute),
            ("20110701123015", "2011-07-01T12:30:15", Precision::Second),
            ("20110701113813.225", "2011-07-01T11:38:13.225", Precision::Fraction),
            (" 20111220224447.3399 ", "2011-12-20T22:44:47.3399", Precision::Fraction),
        ] {
            let when = TimeStamp::new(text).when().expect(text);
            assert_eq!((when.local, when.precision), (local.parse().unwrap(), precision));
            assert_eq!(when.offset, None);
        }
        let when = TimeStamp::new("20110701123015-0330").when().unwrap();
        assert_eq!(when.offset, Some(Offset::from_seconds(-12_600).unwrap()));
    }

    #[test]
    fn a_text_that_is_no_time_is_kept_and_means_nothing() {
        for text in [
            "",
            "Aug 15, 1942",
            "20",
            "20111",
            "20111301",
            "20110230",
            "2011020125",
            "2011.5",
            "20110701123060.",
            "+0900",
            "2011+",
            "2011+09:0",
            "2011+9900",
            "２０１１",
            "2011-08-01",
        ] {
            let time = TimeStamp::new(text);
            assert_eq!((time.as_str(), time.when()), (text, None), "{text}");
        }
    }
}
