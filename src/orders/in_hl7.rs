//! Numbers, names and times of orders in the words of HL7 version 2. Pure.

use jiff::tz::TimeZone;

use super::identifier::{Authority, Identifier, Patient, representation};
use crate::clock::Timestamp;
use crate::hl7::datatype::{Authority as Hl7Authority, Identifier as Hl7Identifier};
use crate::hl7::datatype::{Name, PatientIdentifier, Person};
use crate::hl7::patient::Patient as Hl7Patient;
use crate::hl7::time::TimeStamp;

/// Who gave a number.
pub fn authority(authority: &Authority) -> Hl7Authority {
    let Authority { namespace, universal } = authority.clone();
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_oid = universal.contains('.') && universal.split('.').all(digits);
    let universal_id_type = if is_oid { "ISO".to_owned() } else { String::new() };
    Hl7Authority { namespace, universal_id: universal, universal_id_type }
}

/// A number with who gave it, as far as that is known.
pub fn identifier(id: &Identifier) -> Hl7Identifier {
    Hl7Identifier { id: id.id.clone(), issuer: authority(&id.authority) }
}

/// A patient, each number with what `issuer` says of it.
pub fn patient(patient: &Patient, issuer: impl Fn(&Identifier) -> Hl7Authority) -> Hl7Patient {
    let id = |id: &Identifier| PatientIdentifier {
        id: id.id.clone(),
        authority: issuer(id),
        type_code: String::new(),
    };
    Hl7Patient {
        identifiers: patient.ids.iter().map(id).collect(),
        // DICOM may have written all representations as one.
        names: patient.names.iter().flat_map(|n| n.split('=')).filter_map(name).collect(),
        birth_date: TimeStamp::new(&patient.birth_date),
        sex: patient.sex.clone(),
        ..Hl7Patient::default()
    }
}

/// A name of one representation. Prefix and suffix have changed places since DICOM.
pub fn name(name: &str) -> Option<Name> {
    let mut parts = name.splitn(5, '^').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let [family, given, middle, prefix, suffix] = [(); 5].map(|()| next());
    let representation = representation(name).to_owned();
    let type_code = "L".to_owned();
    let written = !name.trim_matches(['^', ' ']).is_empty();
    written.then_some(Name { family, given, middle, prefix, suffix, type_code, representation })
}

/// A person by name; one of whom only a number is known is called by it.
pub fn person(known_as: &str) -> Option<Person> {
    // Of several representations the first is enough to know whom to ask.
    let name = name(known_as.split('=').next()?)?;
    Some(Person { name, ..Person::default() })
}

/// A point in time, with its offset from UTC.
pub fn time(at: Timestamp, zone: &TimeZone) -> String {
    let at = jiff::Timestamp::from_millisecond(at.0).unwrap_or_default();
    crate::hl7::time::written(at, zone)
}
