//! Single value and range matching of dates and times (PS3.4 C.2.2.2.5, K.6.1.2.2; PS3.5 6.2). Pure.
//!
//! Where both date and time are ranges they are one: 10 o'clock on the first day to 6 o'clock on the
//! last. A time is as long as it says: `10` is the whole hour. A step of which only the day is known
//! matches every time of that day.

use jiff::civil::{Date, DateTime, Time};

/// Days that match; an end that is open has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dates {
    /// The first.
    pub from: Option<Date>,
    /// The last.
    pub to: Option<Date>,
}

/// Times of a day that match; an end that is open has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The first.
    pub from: Option<Time>,
    /// The last.
    pub to: Option<Time>,
    /// Whether it is a range, and not one value.
    pub is_range: bool,
}

/// `YYYYMMDD`, and `YYYY.MM.DD` as it was written before DICOM 3.
pub(super) fn date(text: &str) -> Option<Date> {
    let digits: String = text.trim().chars().filter(|c| *c != '.').collect();
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits[from..to].parse::<i16>().ok();
    let (month, day) = (i8::try_from(number(4, 6)?).ok()?, i8::try_from(number(6, 8)?).ok()?);
    Date::new(number(0, 4)?, month, day).ok()
}

/// The first and the last instant of a time of the precision that it has: `HH`, `HHMM`, `HHMMSS`,
/// `HHMMSS.FFFFFF`, with or without colons.
pub(super) fn time(text: &str) -> Option<(Time, Time)> {
    let text = text.trim().replace(':', "");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !matches!(whole.len(), 2 | 4 | 6) || !digits(whole) || !digits(fraction) {
        return None;
    }
    if !fraction.is_empty() && (whole.len() != 6 || fraction.len() > 6) {
        return None;
    }
    let part = |at: usize| whole.get(at..at + 2).map(|s| s.parse::<i8>().unwrap_or(-1));
    let of = |minute: i8, second: i8, nanos: i32| {
        // A leap second is the end of its minute.
        let second = part(4).unwrap_or(second).min(59);
        Time::new(part(0)?, part(2).unwrap_or(minute), second, nanos).ok()
    };
    let (first, last) = (format!("{fraction:0<9}"), format!("{fraction:9<9}"));
    Some((of(0, 0, first.parse().ok()?)?, of(59, 59, last.parse().ok()?)?))
}

/// The two ends of a range; a single value is both.
fn ends(text: &str) -> (&str, &str, bool) {
    match text.split_once('-') {
        Some((from, to)) => (from.trim(), to.trim(), true),
        None => (text.trim(), text.trim(), false),
    }
}

impl Dates {
    /// A value of a key; `None` when it is no date and no range of dates.
    pub fn read(text: &str) -> Option<Self> {
        let (from, to, _) = ends(text);
        let end = |text: &str| match text {
            "" => Some(None),
            text => date(text).map(Some),
        };
        let dates = Self { from: end(from)?, to: end(to)? };
        (dates != Self::default()).then_some(dates)
    }

    fn is_range(&self) -> bool {
        self.from.is_none() || self.from != self.to
    }

    fn holds(&self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

impl Times {
    /// A value of a key; `None` when it is no time and no range of times.
    pub fn read(text: &str) -> Option<Self> {
        let (from, to, is_range) = ends(text);
        let end = |text: &str| match text {
            "" => Some(None),
            text => time(text).map(Some),
        };
        let (from, to) = (end(from)?, end(to)?);
        let times = Self { from: from.map(|t| t.0), to: to.map(|t| t.1), is_range };
        (times.from.is_some() || times.to.is_some()).then_some(times)
    }

    fn holds(&self, time: Time) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time <= to)
    }
}

/// Whether a step that is scheduled then matches; `whole_day`: only its day is known.
pub(super) fn holds(
    dates: Option<&Dates>,
    times: Option<&Times>,
    at: DateTime,
    whole_day: bool,
) -> bool {
    let on_days = dates.is_none_or(|dates| dates.holds(at.date()));
    let Some(times) = times.filter(|_| !whole_day) else { return on_days };
    match dates.filter(|dates| dates.is_range() && times.is_range) {
        None => on_days && times.holds(at.time()),
        Some(dates) => {
            let from = dates.from.map(|day| day.to_datetime(times.from.unwrap_or(Time::MIN)));
            let to = dates.to.map(|day| day.to_datetime(times.to.unwrap_or(Time::MAX)));
            from.is_none_or(|from| from <= at) && to.is_none_or(|to| at <= to)
        }
    }
}
