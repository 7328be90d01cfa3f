//! Who may call, from where, and as whom. Pure.
//!
//! The allow-list names AE titles and networks together, because an AE title alone is a claim
//! that anyone can make. Addresses are compared in canonical form: an IPv4 peer on a dual-stack
//! socket is an IPv4 peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dicom_ul::pdu::{
    AssociationRJ, AssociationRJResult, AssociationRJServiceProviderASCEReason as AcseReason,
    AssociationRJServiceProviderPresentationReason as PresentationReason,
    AssociationRJServiceUserReason as UserReason, AssociationRJSource as Source, AssociationRQ,
};

use super::Config;
use crate::dicom::{APPLICATION_CONTEXT, AeTitle, trim_uid};

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not an address, with or without a prefix length.
    #[error("not an address or network; write 10.1.2.3, 10.1.0.0/16 or 2001:db8::/32")]
    Syntax,
    /// A prefix longer than the address.
    #[error("the prefix length is at most {0}")]
    Prefix(u8),
    /// Bits set beyond the prefix: one of the two is a slip of the pen.
    #[error("the address has bits beyond its prefix length; the network is {0}")]
    HostBits(Network),
}

/// An IP network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let same_family = address.is_ipv4() == self.address.is_ipv4();
        same_family && mask(address, self.prefix) == self.address
    }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(a.to_bits() & mask).into()
        }
        IpAddr::V6(a) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(a.to_bits() & mask).into()
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(s: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match s.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (s, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Syntax)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(p) => p.parse().map_err(|_| NetworkError::Syntax)?,
        };
        if prefix > width {
            return Err(NetworkError::Prefix(width));
        }
        let network = Self { address: mask(address, prefix), prefix };
        if network.address != address {
            return Err(NetworkError::HostBits(network));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// One entry of the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    /// The calling AE title; absent: any.
    pub ae_title: Option<AeTitle>,
    /// Where it may call from.
    pub network: Network,
}

impl Allow {
    fn matches(&self, calling: &AeTitle, address: IpAddr) -> bool {
        self.ae_title.as_ref().is_none_or(|ae| ae == calling) && self.network.contains(address)
    }
}

/// Why an association is rejected (PS3.8 9.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Bit 0 of the protocol version is not set.
    #[error("protocol version not supported")]
    ProtocolVersion,
    /// Another application context than DICOM's.
    #[error("application context not supported")]
    ApplicationContext,
    /// Not one of our AE titles.
    #[error("called AE title not recognized")]
    CalledAe,
    /// Not on the allow-list from this address.
    #[error("calling AE title not allowed from this address")]
    CallingAe,
    /// The node has as many connections as it may.
    #[error("too many associations")]
    Full,
    /// This address has as many connections as it may.
    #[error("too many associations from this address")]
    AddressFull,
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl Refusal {
    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::ProtocolVersion => "protocol-version",
            Self::ApplicationContext => "application-context",
            Self::CalledAe => "called-ae",
            Self::CallingAe => "calling-ae",
            Self::Full => "associations",
            Self::AddressFull => "associations-per-address",
            Self::Stopping => "stopping",
        }
    }

    /// The answer on the wire: (result, source, reason) as STANDARDS and PS3.8 9.3.4 have them.
    pub fn reject(self) -> AssociationRJ {
        use AssociationRJResult::{Permanent, Transient};
        let (result, source) = match self {
            Self::ProtocolVersion => {
                (Permanent, Source::ServiceProviderASCE(AcseReason::ProtocolVersionNotSupported))
            }
            Self::ApplicationContext => {
                (Permanent, Source::ServiceUser(UserReason::ApplicationContextNameNotSupported))
            }
            Self::CalledAe => {
                (Permanent, Source::ServiceUser(UserReason::CalledAETitleNotRecognized))
            }
            Self::CallingAe => {
                (Permanent, Source::ServiceUser(UserReason::CallingAETitleNotRecognized))
            }
            Self::Full | Self::Stopping => (
                Transient,
                Source::ServiceProviderPresentation(PresentationReason::TemporaryCongestion),
            ),
            Self::AddressFull => (
                Transient,
                Source::ServiceProviderPresentation(PresentationReason::LocalLimitExceeded),
            ),
        };
        AssociationRJ { result, source }
    }
}

/// The two ends of an admitted association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Who calls.
    pub calling: AeTitle,
    /// As whom we answer.
    pub called: AeTitle,
}

/// Whether a peer at `address` that asks for `rq` may have an association. A title that is no AE
/// title is on no list.
pub fn admit(rq: &AssociationRQ, address: IpAddr, config: &Config) -> Result<Admitted, Refusal> {
    if rq.protocol_version & 1 == 0 {
        return Err(Refusal::ProtocolVersion);
    }
    if trim_uid(&rq.application_context_name) != APPLICATION_CONTEXT {
        return Err(Refusal::ApplicationContext);
    }
    let title = |text: &str| text.trim_matches(['\0', ' ']).parse::<AeTitle>().ok();
    let called = title(&rq.called_ae_title)
        .filter(|called| config.ae_titles.contains(called))
        .ok_or(Refusal::CalledAe)?;
    let calling = title(&rq.calling_ae_title)
        .filter(|calling| config.allow.iter().any(|a| a.matches(calling, address)))
        .ok_or(Refusal::CallingAe)?;
    Ok(Admitted { calling, called })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::intake::Limits;

    pub(in crate::intake) fn config() -> Config {
        Config {
            listen: None,
            tls_listen: None,
            ae_titles: vec!["HIKYAKU".parse().unwrap(), "TELE_STAT".parse().unwrap()],
            allow: vec![Allow {
                ae_title: Some("CT1".parse().unwrap()),
                network: "10.1.0.0/16".parse().unwrap(),
            }],
            refuse_sop_classes: [].into(),
            limits: Limits::default(),
        }
    }

    pub(in crate::intake) fn request() -> AssociationRQ {
        AssociationRQ {
            protocol_version: 1,
            calling_ae_title: "CT1".into(),
            called_ae_title: "TELE_STAT".into(),
            application_context_name: APPLICATION_CONTEXT.into(),
            presentation_contexts: vec![],
            user_variables: vec![],
        }
    }

    const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));

    #[test]
    fn a_network_holds_the_addresses_that_share_its_prefix() {
        let n: Network = "10.1.0.0/16".parse().unwrap();
        assert!(n.contains(INSIDE) && !n.contains("10.2.0.1".parse().unwrap()));
        assert!(n.contains("::ffff:10.1.9.9".parse().unwrap()));
        let n: Network = "2001:db8::/32".parse().unwrap();
        assert!(n.contains("2001:db8:1::1".parse().unwrap()) && !n.contains(INSIDE));
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains(INSIDE) && !all.contains("::1".parse().unwrap()));
        let one: Network = "10.1.2.3".parse().unwrap();
        assert!(one.contains(INSIDE) && !one.contains("10.1.2.4".parse().unwrap()));
    }

    #[test]
    fn a_network_with_a_slip_of_the_pen_is_refused() {
        let host = "10.1.0.1/16".parse::<Network>().unwrap_err();
        assert_eq!(host, NetworkError::HostBits("10.1.0.0/16".parse().unwrap()));
        assert_eq!("10.1.0.0/33".parse::<Network>(), Err(NetworkError::Prefix(32)));
        for bad in ["", "10.1", "10.1.0.0/", "10.1.0.0/-1", "host/8"] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError::Syntax), "{bad:?}");
        }
    }

    #[test]
    fn title_and_address_must_both_be_on_the_list() {
        let c = config();
        let a = admit(&request(), INSIDE, &c).unwrap();
        assert_eq!((a.calling.as_str(), a.called.as_str()), ("CT1", "TELE_STAT"));
        let outside = "10.2.2.3".parse().unwrap();
        assert_eq!(admit(&request(), outside, &c), Err(Refusal::CallingAe));
        let rq = AssociationRQ { calling_ae_title: "CT2".into(), ..request() };
        assert_eq!(admit(&rq, INSIDE, &c), Err(Refusal::CallingAe));
    }

    #[test]
    fn hostile_titles_versions_and_contexts_are_refused_for_the_right_reason() {
        let c = config();
        let called = |t: &str| AssociationRQ { called_ae_title: t.into(), ..request() };
        for title in ["", "../../etc", "A\u{1b}[2J", "HIKYAKU\\X", "hikyaku"] {
            assert_eq!(admit(&called(title), INSIDE, &c), Err(Refusal::CalledAe), "{title:?}");
        }
        assert!(admit(&called("HIKYAKU\0\0"), INSIDE, &c).is_ok());
        let rq = AssociationRQ { protocol_version: 2, ..request() };
        assert_eq!(admit(&rq, INSIDE, &c), Err(Refusal::ProtocolVersion));
        let rq = AssociationRQ { application_context_name: "1.2".into(), ..request() };
        assert_eq!(admit(&rq, INSIDE, &c), Err(Refusal::ApplicationContext));
    }

    #[test]
    fn every_refusal_is_written_with_the_standards_three_numbers() {
        let wire = |r: Refusal| {
            let mut out = vec![];
            crate::dicom::pdata::put_pdu(&mut out, &r.reject().into());
            (out[7], out[8], out[9])
        };
        assert_eq!(wire(Refusal::ProtocolVersion), (1, 2, 2));
        assert_eq!(wire(Refusal::ApplicationContext), (1, 1, 2));
        assert_eq!(wire(Refusal::CallingAe), (1, 1, 3));
        assert_eq!(wire(Refusal::CalledAe), (1, 1, 7));
        assert_eq!(wire(Refusal::Full), (2, 3, 1));
        assert_eq!(wire(Refusal::Stopping), (2, 3, 1));
        assert_eq!(wire(Refusal::AddressFull), (2, 3, 2));
    }
}
