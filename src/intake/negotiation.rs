//! Presentation contexts and the answer to A-ASSOCIATE-RQ (PS3.8 9.3.3, PS3.7 D.3). Pure.
//!
//! Accepted: Verification, everything that is not a known service of another kind, and, where the
//! node has somebody to perform them, the four [`SERVICES`]. A SOP class that the dictionary does
//! not know is a storage class to us: private, or newer than this program. One transfer syntax is
//! chosen per context:
//!
//! 1. the first proposed one that is none of the five native ones: compressed, private, unknown;
//!    who proposes it holds such objects, and nothing here ever decodes them;
//! 2. Explicit VR Little Endian: a sender that is given Implicit re-encodes explicit files and
//!    loses the VR of private elements;
//! 3. Implicit VR Little Endian, which every destination takes;
//! 4. Deflated, then Big Endian: some toolkits propose these by default without meaning it, and
//!    many destinations refuse them.
//!
//! The data sets of the services are read here, so for them only Explicit, then Implicit VR
//! Little Endian will do.

use std::collections::BTreeMap;

use dicom_core::dictionary::{UidDictionary, UidDictionaryEntry};
use dicom_dictionary_std::StandardSopClassDictionary;
use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, PresentationContextProposed, PresentationContextResult,
    PresentationContextResultReason as Reason, RequestorRoles, UserVariableItem,
};

use super::access::Admitted;
use crate::dicom::command::Operation;
use crate::dicom::pdata::write_length;
use crate::dicom::{
    APPLICATION_CONTEXT, DEFLATED_EXPLICIT_VR_LE, EXPLICIT_VR_BE, EXPLICIT_VR_LE,
    IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, IMPLICIT_VR_LE, INSTANCE_AVAILABILITY,
    MODALITY_WORKLIST, PERFORMED_STEP, STORAGE_COMMITMENT, VERIFICATION, is_uid, trim_uid,
};

/// Most presentation contexts that are answered: there are 128 odd numbers in a byte.
pub const CONTEXTS_MAX: usize = 128;

/// Meta SOP classes of notification, print and worklist services (PS3.6 A), which the dictionary
/// of SOP classes does not hold.
const META_SOP_CLASSES: [&str; 9] = [
    "1.2.840.10008.3.1.2.1.4",
    "1.2.840.10008.3.1.2.5.4",
    "1.2.840.10008.3.1.2.5.5",
    "1.2.840.10008.5.1.1.9",
    "1.2.840.10008.5.1.1.9.1",
    "1.2.840.10008.5.1.1.18",
    "1.2.840.10008.5.1.1.18.1",
    "1.2.840.10008.5.1.1.32",
    "1.2.840.10008.5.1.4.32",
];

/// The services that are performed by [`Services`](super::services::Services).
pub const SERVICES: [&str; 4] =
    [PERFORMED_STEP, STORAGE_COMMITMENT, INSTANCE_AVAILABILITY, MODALITY_WORKLIST];

/// Whether this operation is one of a service's, in a context of `abstract_syntax`.
pub fn serves(abstract_syntax: &str, operation: &Operation) -> bool {
    match abstract_syntax {
        PERFORMED_STEP => matches!(operation, Operation::Create | Operation::Set),
        STORAGE_COMMITMENT => matches!(operation, Operation::Action(_)),
        INSTANCE_AVAILABILITY => matches!(operation, Operation::Create),
        MODALITY_WORKLIST => matches!(operation, Operation::Find(_)),
        _ => false,
    }
}

/// An accepted presentation context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Presentation context ID.
    pub id: u8,
    /// SOP class.
    pub abstract_syntax: String,
    /// The transfer syntax in which its data sets come.
    pub transfer_syntax: String,
}

/// The accepted presentation contexts of an association, by ID.
pub type Contexts = BTreeMap<u8, Context>;

/// An association that both sides agree on.
#[derive(Debug, Clone, PartialEq)]
pub struct Negotiated {
    /// The answer.
    pub accept: AssociationAC,
    /// What may come.
    pub contexts: Contexts,
    /// Longest P-DATA-TF to write to this peer, in bytes.
    pub write_length: u32,
}

/// Whether objects of this SOP class are taken into custody.
pub fn is_storage(sop_class: &str) -> bool {
    if !is_uid(sop_class) {
        return false;
    }
    match StandardSopClassDictionary.by_uid(sop_class) {
        None => !META_SOP_CLASSES.contains(&sop_class),
        Some(known) => {
            // PS3.6 A names every storage class so; these two are the exceptions.
            let name = known.name();
            name.contains("Storage")
                && !name.starts_with("Storage Commitment")
                && name != "Media Storage Directory Storage"
        }
    }
}

/// The answer to an admitted peer. `pdu_length` is the Maximum Length to announce (PS3.8 D.1),
/// `services` whether anybody performs the [`SERVICES`].
///
/// A context ID that is even or was used before is not answered: it cannot be used afterwards
/// either, which is what the peer would learn from a refusal.
pub fn negotiate(
    rq: &AssociationRQ,
    admitted: &Admitted,
    pdu_length: u32,
    services: bool,
) -> Negotiated {
    let mut results = BTreeMap::new();
    let mut contexts = Contexts::new();
    for proposed in &rq.presentation_contexts {
        if proposed.id % 2 == 0 || results.contains_key(&proposed.id) {
            continue;
        }
        let (reason, transfer_syntax) = match judge(proposed, services) {
            Ok(context) => {
                let transfer_syntax = context.transfer_syntax.clone();
                contexts.insert(proposed.id, context);
                (Reason::Acceptance, transfer_syntax)
            }
            // The field is not significant in a refusal but must be there (PS3.8 9.3.3.2).
            Err(reason) => (reason, IMPLICIT_VR_LE.to_owned()),
        };
        let result = PresentationContextResult { id: proposed.id, reason, transfer_syntax };
        results.insert(proposed.id, result);
    }
    debug_assert!(results.len() <= CONTEXTS_MAX);
    let accept = AssociationAC {
        protocol_version: 1,
        calling_ae_title: admitted.calling.to_string(),
        called_ae_title: admitted.called.to_string(),
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: results.into_values().collect(),
        user_variables: user_variables(rq, &contexts, pdu_length),
    };
    let named = rq.user_variables.iter().find_map(|v| match v {
        UserVariableItem::MaxLength(length) => Some(*length),
        _ => None,
    });
    Negotiated { accept, contexts, write_length: write_length(named) }
}

fn judge(proposed: &PresentationContextProposed, services: bool) -> Result<Context, Reason> {
    let abstract_syntax = trim_uid(&proposed.abstract_syntax);
    let service = SERVICES.contains(&abstract_syntax);
    if abstract_syntax != VERIFICATION && !is_storage(abstract_syntax) && !(service && services) {
        return Err(Reason::AbstractSyntaxNotSupported);
    }
    let choose = if service { choose_readable } else { choose };
    let transfer_syntax =
        choose(&proposed.transfer_syntaxes).ok_or(Reason::TransferSyntaxesNotSupported)?;
    Ok(Context {
        id: proposed.id,
        abstract_syntax: abstract_syntax.to_owned(),
        transfer_syntax: transfer_syntax.to_owned(),
    })
}

fn choose(proposed: &[String]) -> Option<&str> {
    let rank = |uid: &str| match uid {
        EXPLICIT_VR_LE => 1,
        IMPLICIT_VR_LE => 2,
        DEFLATED_EXPLICIT_VR_LE => 3,
        EXPLICIT_VR_BE => 4,
        _ => 0,
    };
    // `min_by_key` gives the first of several equals: the peer's own order.
    proposed.iter().map(|uid| trim_uid(uid)).filter(|uid| is_uid(uid)).min_by_key(|uid| rank(uid))
}

fn choose_readable(proposed: &[String]) -> Option<&str> {
    let readable = [EXPLICIT_VR_LE, IMPLICIT_VR_LE];
    readable.into_iter().find(|uid| proposed.iter().any(|p| trim_uid(p) == *uid))
}

fn user_variables(
    rq: &AssociationRQ,
    contexts: &Contexts,
    pdu_length: u32,
) -> Vec<UserVariableItem> {
    let mut out = vec![
        UserVariableItem::MaxLength(pdu_length),
        UserVariableItem::ImplementationClassUID(IMPLEMENTATION_CLASS_UID.to_owned()),
        UserVariableItem::ImplementationVersionName(IMPLEMENTATION_VERSION_NAME.to_owned()),
    ];
    // PS3.7 D.3.3.4: the requestor stores and asks, we provide; we never use a service of its on
    // an association that it has asked for. The events of a commitment go the other way in these
    // very roles: it is the SCP that reports them.
    let mut roles = BTreeMap::new();
    for item in &rq.user_variables {
        if let UserVariableItem::ScuScpRoleSelectionSubItem(uid, proposed) = item {
            let uid = trim_uid(uid);
            if contexts.values().any(|c| c.abstract_syntax == uid) {
                roles.entry(uid).or_insert(RequestorRoles { scu: proposed.scu, scp: false });
            }
        }
    }
    out.extend(
        roles.into_iter().map(|(uid, roles)| {
            UserVariableItem::ScuScpRoleSelectionSubItem(uid.to_owned(), roles)
        }),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::access::tests::request;

    const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
    const J2K: &str = "1.2.840.10008.1.2.4.90";
    const JLS: &str = "1.2.840.10008.1.2.4.80";

    fn admitted() -> Admitted {
        Admitted { calling: "CT1".parse().unwrap(), called: "HIKYAKU".parse().unwrap() }
    }

    fn proposed(id: u8, uid: &str, syntaxes: &[&str]) -> PresentationContextProposed {
        PresentationContextProposed {
            id,
            abstract_syntax: uid.into(),
            transfer_syntaxes: syntaxes.iter().map(|s| (*s).to_owned()).collect(),
        }
    }

    fn negotiated(contexts: Vec<PresentationContextProposed>) -> Negotiated {
        let rq = AssociationRQ { presentation_contexts: contexts, ..request() };
        negotiate(&rq, &admitted(), 131_072, false)
    }

    fn chosen(syntaxes: &[&str]) -> Option<String> {
        let n = negotiated(vec![proposed(1, CT, syntaxes)]);
        n.contexts.get(&1).map(|c| c.transfer_syntax.clone())
    }

    #[test]
    fn compressed_comes_before_explicit_before_implicit_and_the_peers_order_counts() {
        let all = [IMPLICIT_VR_LE, EXPLICIT_VR_BE, EXPLICIT_VR_LE, JLS, J2K];
        assert_eq!(chosen(&all).as_deref(), Some(JLS));
        assert_eq!(chosen(&all[..3]).as_deref(), Some(EXPLICIT_VR_LE));
        assert_eq!(chosen(&all[..2]).as_deref(), Some(IMPLICIT_VR_LE));
        assert_eq!(chosen(&[EXPLICIT_VR_BE]).as_deref(), Some(EXPLICIT_VR_BE));
        assert_eq!(chosen(&[]), None);
        assert_eq!(chosen(&["not a uid"]), None);
    }

    #[test]
    fn a_private_transfer_syntax_is_accepted_as_proposed() {
        let private = "1.2.840.113619.5.2";
        assert_eq!(chosen(&[private, IMPLICIT_VR_LE]).as_deref(), Some(private));
    }

    #[test]
    fn the_default_proposal_of_pynetdicom_gets_explicit_little_endian() {
        let default = [IMPLICIT_VR_LE, EXPLICIT_VR_LE, DEFLATED_EXPLICIT_VR_LE, EXPLICIT_VR_BE];
        assert_eq!(chosen(&default).as_deref(), Some(EXPLICIT_VR_LE));
    }

    #[test]
    fn storage_known_and_private_is_accepted_and_other_services_are_not() {
        let unknown_private = "1.3.12.2.1107.5.9.1";
        for uid in [CT, unknown_private, "1.2.840.10008.5.1.4.1.1.66", "2.25.1"] {
            assert!(is_storage(uid), "{uid}");
        }
        let others = [
            VERIFICATION,
            "1.2.840.10008.1.20.1",
            "1.2.840.10008.1.3.10",
            "1.2.840.10008.3.1.2.3.3",
            "1.2.840.10008.5.1.1.9",
            "1.2.840.10008.5.1.1.18",
            "1.2.840.10008.5.1.4.1.2.1.1",
            "1.2.840.10008.5.1.4.1.2.2.2",
            "1.2.840.10008.5.1.4.1.2.2.3",
            "1.2.840.10008.5.1.4.31",
            "1.2.840.10008.5.1.4.33",
            "../../etc/passwd",
            "",
        ];
        for uid in others {
            assert!(!is_storage(uid), "{uid}");
        }
        let n = negotiated(vec![
            proposed(1, VERIFICATION, &[IMPLICIT_VR_LE]),
            proposed(3, "1.2.840.10008.5.1.4.31", &[IMPLICIT_VR_LE]),
            proposed(5, CT, &[]),
        ]);
        let reasons: Vec<_> =
            n.accept.presentation_contexts.iter().map(|r| r.reason.clone()).collect();
        let expected = [
            Reason::Acceptance,
            Reason::AbstractSyntaxNotSupported,
            Reason::TransferSyntaxesNotSupported,
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn a_flood_of_contexts_with_even_and_repeated_ids_is_capped() {
        let flood = (0..2000u32).map(|n| {
            let syntaxes = vec![EXPLICIT_VR_LE; 20];
            proposed(n as u8, if n < 256 { CT } else { "1.2.3" }, &syntaxes)
        });
        let n = negotiated(flood.collect());
        assert_eq!(n.contexts.len(), CONTEXTS_MAX);
        assert_eq!(n.accept.presentation_contexts.len(), CONTEXTS_MAX);
        assert!(n.contexts.iter().all(|(id, c)| id % 2 == 1 && c.abstract_syntax == CT));
        let mut out = vec![];
        crate::dicom::pdata::put_pdu(&mut out, &n.accept.into());
        assert!(out.len() < 16 * 1024);
    }

    #[test]
    fn the_scp_role_is_never_given_and_a_role_for_a_refused_class_is_not_answered() {
        let role = |uid: &str| {
            let both = RequestorRoles { scu: true, scp: true };
            UserVariableItem::ScuScpRoleSelectionSubItem(uid.to_owned(), both)
        };
        let rq = AssociationRQ {
            presentation_contexts: vec![proposed(1, CT, &[EXPLICIT_VR_LE])],
            user_variables: vec![role(CT), role("1.2.3"), UserVariableItem::MaxLength(0)],
            ..request()
        };
        let n = negotiate(&rq, &admitted(), 131_072, false);
        assert_eq!(n.accept.user_variables.len(), 4);
        assert_eq!(
            n.accept.user_variables[3],
            UserVariableItem::ScuScpRoleSelectionSubItem(
                CT.into(),
                RequestorRoles { scu: true, scp: false }
            )
        );
        assert_eq!(n.write_length, crate::dicom::pdata::PDATA_WRITE_LENGTH_MAX);
    }

    #[test]
    fn services_are_accepted_where_somebody_performs_them_and_only_uncompressed() {
        let deflated = DEFLATED_EXPLICIT_VR_LE;
        let contexts = || {
            vec![
                proposed(1, PERFORMED_STEP, &[J2K, IMPLICIT_VR_LE, EXPLICIT_VR_LE]),
                proposed(3, STORAGE_COMMITMENT, &[EXPLICIT_VR_BE, IMPLICIT_VR_LE]),
                proposed(5, INSTANCE_AVAILABILITY, &[deflated]),
                proposed(7, MODALITY_WORKLIST, &[EXPLICIT_VR_LE]),
                proposed(9, crate::dicom::STUDY_ROOT_FIND, &[EXPLICIT_VR_LE]),
            ]
        };
        assert!(negotiated(contexts()).contexts.is_empty());
        let rq = AssociationRQ { presentation_contexts: contexts(), ..request() };
        let n = negotiate(&rq, &admitted(), 131_072, true);
        let chosen: Vec<_> =
            n.contexts.iter().map(|(id, c)| (*id, c.transfer_syntax.as_str())).collect();
        assert_eq!(chosen, [(1, EXPLICIT_VR_LE), (3, IMPLICIT_VR_LE), (7, EXPLICIT_VR_LE)]);
        let reasons: Vec<_> =
            n.accept.presentation_contexts[2..].iter().map(|r| r.reason.clone()).collect();
        let expected = [
            Reason::TransferSyntaxesNotSupported,
            Reason::Acceptance,
            Reason::AbstractSyntaxNotSupported,
        ];
        assert_eq!(reasons, expected);
    }
}
