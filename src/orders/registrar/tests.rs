//! The registrar from the outside, over a custody of its own: a hospital and a reading centre
//! between which cargo is carried by hand.

use std::path::Path;

use super::*;
use crate::cargo::{Assignment, CargoKind, Envelope, Identity, Sha256, Urgency};
use crate::custody::{Config as CustodyConfig, Draft, Follower};
use crate::orders::identifier::{Agreement, Identifier};

const HOSPITAL: &str = "st-elsewhere";
const CENTRE: &str = "centre";

/// All goes to the reading centre.
struct ToCentre;

impl Ways for ToCentre {
    fn assign(&self, envelope: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Vec<Assignment> {
        let destination = CENTRE.parse().unwrap();
        vec![Assignment { destination, urgency: envelope.urgency, hold: None }]
    }

    fn tell(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Vec<Assignment> {
        Vec::new()
    }

    fn route(&self, _: &Envelope, _: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        Some("to-the-centre".into())
    }

    fn receivers(&self) -> Arc<Receivers> {
        Arc::default()
    }
}

struct Site {
    custody: Custody,
    desk: Desk,
    stop: CancellationToken,
}

impl Site {
    fn open(data: &Path, node: &str, peers: &[&str], rules: Rules) -> Self {
        let node: NodeName = node.parse().unwrap();
        let metrics = Metrics::new();
        let mut config = CustodyConfig::new(node.clone(), data.into());
        config.followed = [Follower::Orders].into();
        config.room.reserve = 1 << 20;
        config.room.capacity = Some(4 << 30);
        let custody = Custody::open(config, metrics.clone()).unwrap();
        let config = Config {
            node,
            peers: peers.iter().map(|p| p.parse().unwrap()).collect(),
            rules,
            until_matched: false,
            patient_issuer: "SITE".into(),
            hl7: Default::default(),
            zone: TimeZone::UTC,
            sources: Vec::new(),
            priors: Vec::new(),
            notices: Vec::new(),
            pass_on: Door::default(),
        };
        let ways: (Arc<dyn Ways>, HeldStudies) = (Arc::new(ToCentre), HeldStudies::default());
        let asks = (mpsc::channel(1).0, PriorStudies::default());
        let stop = CancellationToken::new();
        let (desk, _) = start(config, custody.clone(), ways, asks, metrics, stop.clone());
        Self { custody, desk, stop }
    }

    async fn hear(&self, id: &str, rest: &str) {
        let text = format!("MSH|^~\\&|RIS|EAST|H|X|20260101080000||ORM^O01|{id}|P|2.3.1\r{rest}\r");
        let answers = self.desk.message(text.into()).await;
        assert!(answers.iter().any(|a| a.windows(6).any(|w| w == b"MSA|AA")), "{answers:?}");
    }

    /// Takes an image of a study of this site: its number, accession number and patient number.
    async fn image(&self, study: &str, n: u32, accession: &str, patient: &str) {
        let key = format!("{study}.1.{n}");
        let envelope = Envelope {
            kind: CargoKind::Image,
            identity: Identity {
                origin: self.custody.node().clone(),
                sha256: Sha256::of(key.as_bytes()),
                key: key.clone(),
            },
            length: key.len() as u64,
            urgency: Urgency::Urgent,
            received_at: Timestamp(0),
            calling_ae: "CT1".into(),
            called_ae: "HIKYAKU".into(),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax: "1.2.840.10008.1.2.1".into(),
            study: study.into(),
            series: format!("{study}.1"),
            modality: "CT".into(),
            accession: accession.into(),
            patient_id: patient.into(),
            flags: Vec::new(),
        };
        self.take(envelope, key.as_bytes()).await;
    }

    async fn take(&self, envelope: Envelope, body: &[u8]) {
        let mut assembly = self.custody.assemble();
        assembly.push(body).await.unwrap();
        let draft = Draft { envelope, body: assembly.finish(), assignments: Vec::new() };
        self.custody.take(draft).await.unwrap();
    }

    /// Carries what has come here since `after` to another site; where to go on.
    async fn carry(&self, to: &Self, after: CargoId) -> CargoId {
        let mut last = after;
        for arrival in self.custody.arrivals(after, 1_000).await.unwrap() {
            last = arrival.cargo;
            let body = arrival.body.reader(0).next(1 << 20).await.unwrap().unwrap_or_default();
            to.take(arrival.envelope, &body).await;
        }
        last
    }

    /// Waits until a question is answered as expected.
    async fn until<T>(&self, mut ask: impl AsyncFnMut(&Desk) -> Option<T>) -> T {
        for _ in 0..300 {
            if let Some(answer) = ask(&self.desk).await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("never so");
    }

    async fn close(self) {
        self.stop.cancel();
        self.custody.close().await;
    }
}

fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| (*s).to_owned()).collect()
}

/// Study, order's number, and the instances asked for.
fn brief(all: &[Candidate]) -> Vec<(String, String, usize)> {
    let number = |c: &Candidate| c.order.as_ref().map(|o| o.key.number.clone()).unwrap_or_default();
    all.iter().map(|c| (c.study.clone(), number(c), c.instances.len())).collect()
}

const ORDER: &str = "PID|||77^^^SITE||Yamada^Taro||19500101|M\r\
    ORC|NW|P1|F1||||^^^203501010900^^S\rOBR|1|P1|F1|CT^CT||||||||||||||A1\r\
    ZDS|1.2.9.1^RIS^Application^DICOM";

#[tokio::test]
async fn a_report_finds_study_and_order_by_each_number_and_by_an_instance_at_either_node() {
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hospital = Site::open(east.path(), HOSPITAL, &[CENTRE], Rules::default());
    let centre = Site::open(west.path(), CENTRE, &[HOSPITAL], Rules::default());
    hospital.hear("M1", ORDER).await;
    hospital.image("1.2.9.1", 1, "A1", "77").await;
    hospital.image("1.2.9.1", 2, "A1", "77").await;
    hospital.image("1.2.9.2", 1, "A2", "78").await;
    let one = [("1.2.9.1".to_owned(), "P1".to_owned(), 0)];
    let by_study = Wanted { studies: words(&["1.2.9.1"]), ..Wanted::default() };
    hospital
        .until(async |desk| {
            let found = desk.candidates(by_study.clone()).await.unwrap();
            (brief(&found) == one).then_some(())
        })
        .await;
    let mut after = CargoId(0);
    for site in [&hospital, &centre] {
        let asks = [
            by_study.clone(),
            Wanted { accessions: words(&["A1"]), ..Wanted::default() },
            Wanted { fillers: words(&["F1"]), ..Wanted::default() },
            Wanted { placers: words(&["P1"]), ..Wanted::default() },
        ];
        for asked in asks {
            let found = site
                .until(async |desk| {
                    after = hospital.carry(&centre, after).await;
                    let found = desk.candidates(asked.clone()).await.unwrap();
                    (brief(&found) == one).then_some(found)
                })
                .await;
            let found = &found[0];
            assert_eq!(found.origin.as_str(), HOSPITAL);
            assert_eq!(found.urgency, Urgency::Stat);
            let here = site.custody.node().as_str() == HOSPITAL;
            assert_eq!(found.route, if here { "to-the-centre" } else { "" });
            let ids = |all: &[Identifier]| all.iter().map(|i| i.id.clone()).collect::<Vec<_>>();
            assert!(ids(&found.accessions).contains(&"A1".to_owned()));
            assert_eq!(ids(&found.placers), ["P1"]);
            assert_eq!(ids(&found.fillers), ["F1"]);
            assert!(found.patient.ids.contains(&Identifier::of("77", "SITE")));
            assert_eq!(found.patient.birth_date, "19500101");
        }
        let instances = words(&["1.2.9.1.1.2", "1.2.9.1.1.1", "1.2.9.2.1.1", "1.2.9.9"]);
        let asked = Wanted { instances, ..Wanted::default() };
        let found = site.desk.candidates(asked).await.unwrap();
        let both = [one[0].clone(), ("1.2.9.2".to_owned(), String::new(), 1)];
        assert_eq!(brief(&found).len(), 2, "{found:?}");
        assert_eq!((&brief(&found)[1], found[0].instances.len()), (&both[1], 2));
        let nothing = Wanted { accessions: words(&["", "A9"]), ..Wanted::default() };
        assert_eq!(site.desk.candidates(nothing).await.unwrap(), []);
    }
    hospital.close().await;
    centre.close().await;
}

#[tokio::test]
async fn an_order_without_images_is_found_alone_and_a_part_by_its_own_number_and_accession() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::open(data.path(), HOSPITAL, &[], Rules::default());
    let parts = "PID|||77^^^SITE||Yamada^Taro||19500101|M\r\
        ORC|PA|P1|F1\rOBR|1|P1|F1|X^X\r\
        ORC|CH|P1-1|F1-1|||||P1\rOBR|2|P1-1|F1-1|CT^CT||||||||||||||A11\r\
        ORC|CH|P1-2|F1-2|||||P1\rOBR|3|P1-2|F1-2|CR^CR||||||||||||||A12";
    site.hear("M1", parts).await;
    let ask = async |asked: Wanted| site.desk.candidates(asked).await.unwrap();
    let by_part = Wanted { placers: words(&["P1-2"]), ..Wanted::default() };
    let alone = [(String::new(), "P1".to_owned(), 0)];
    assert_eq!(brief(&ask(by_part.clone()).await), alone);
    let by_accession = Wanted { accessions: words(&["A12"]), ..Wanted::default() };
    assert_eq!(brief(&ask(by_accession.clone()).await), alone);
    // With images, each study bears the numbers of its own part alone.
    site.image("1.2.9.11", 1, "A11", "77").await;
    site.image("1.2.9.12", 1, "A12", "77").await;
    let of_order = Wanted { fillers: words(&["F1"]), ..Wanted::default() };
    let found = site
        .until(async |_| {
            let found = ask(of_order.clone()).await;
            (found.len() == 2 && found.iter().all(|c| !c.study.is_empty())).then_some(found)
        })
        .await;
    for candidate in found {
        let (own, other) = match candidate.study.as_str() {
            "1.2.9.11" => ("1", "2"),
            _ => ("2", "1"),
        };
        let bears = |all: &[Identifier], id: String| all.iter().any(|i| i.id == id);
        assert!(bears(&candidate.accessions, format!("A1{own}")), "{candidate:?}");
        assert!(!bears(&candidate.accessions, format!("A1{other}")), "{candidate:?}");
        assert!(bears(&candidate.placers, format!("P1-{own}")));
        assert!(!bears(&candidate.placers, format!("P1-{other}")));
        assert!(bears(&candidate.placers, "P1".into()));
    }
    site.close().await;
}

#[tokio::test]
async fn images_of_another_patient_stand_apart_from_their_order_until_a_person_links_them() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::open(data.path(), HOSPITAL, &[], Rules::default());
    site.hear("M1", ORDER).await;
    site.image("1.2.9.1", 1, "A1", "4711").await;
    let asked = Wanted { studies: words(&["1.2.9.1"]), ..Wanted::default() };
    let ask = async || site.desk.candidates(asked.clone()).await.unwrap();
    let apart = site
        .until(async |_| {
            let found = ask().await;
            (found.len() == 2).then_some(found)
        })
        .await;
    let images = apart.iter().find(|c| c.order.is_none()).expect("the study");
    let order = apart.iter().find(|c| c.study.is_empty()).expect("the order");
    assert_eq!(images.patient.agrees(&order.patient), Agreement::Different);
    site.desk.link("1.2.9.1".into(), Some("P1".into()), "anna".into()).await.unwrap();
    let linked = ask().await;
    assert_eq!(brief(&linked), [("1.2.9.1".to_owned(), "P1".to_owned(), 0)]);
    assert!(linked[0].patient.ids.iter().any(|i| i.id == "4711"));
    assert!(linked[0].patient.ids.iter().any(|i| i.id == "77"));
    // A retired number is found by the one in force.
    let merge = "MSH|^~\\&|RIS|EAST|H|X|20260101090000||ADT^A40|M2|P|2.3.1\rEVN|A40\r\
        PID|||88^^^SITE||Yamada^Taro||19500101|M\rMRG|77^^^SITE\r";
    assert_eq!(site.desk.message(merge.into()).await.len(), 1);
    let found = ask().await;
    assert!(found[0].patient.ids.iter().any(|i| i.id == "88"), "{found:?}");
    site.close().await;
}

#[tokio::test]
async fn one_more_than_can_be_told_apart_is_given_and_a_study_uid_is_not_drowned_by_weak_numbers() {
    let data = tempfile::tempdir().unwrap();
    let site = Site::open(data.path(), HOSPITAL, &[], Rules::default());
    for n in 0..20 {
        site.image(&format!("1.2.8.{n}"), 1, "SAME", &n.to_string()).await;
    }
    let weak = Wanted { accessions: words(&["SAME"]), ..Wanted::default() };
    let found = site
        .until(async |desk| {
            let found = desk.candidates(weak.clone()).await.unwrap();
            (found.len() > CANDIDATES_MAX).then_some(found)
        })
        .await;
    assert_eq!(found.len(), CANDIDATES_MAX + 1);
    let study = words(&["1.2.8.19"]);
    let sure = Wanted { studies: study, ..weak };
    let found = site
        .until(async |desk| {
            let found = desk.candidates(sure.clone()).await.unwrap();
            (!found.is_empty() && found[0].study == "1.2.8.19").then_some(found)
        })
        .await;
    assert_eq!(found.len(), 1, "{found:?}");
    site.close().await;
}

#[tokio::test]
async fn a_study_is_whole_at_the_reading_node_once_the_hospital_says_so_and_all_is_there() {
    let (east, west) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rules = Rules {
        settle: Duration::from_millis(300),
        quiet: Duration::from_millis(600),
        ..Rules::default()
    };
    let hospital = Site::open(east.path(), HOSPITAL, &[CENTRE], rules.clone());
    let centre = Site::open(west.path(), CENTRE, &[HOSPITAL], rules);
    let mut hints = centre.desk.wholes().expect("the first taker");
    assert!(centre.desk.wholes().is_none());
    assert_eq!(hints.next().await, Hint::SomeLost);
    let node: NodeName = HOSPITAL.parse().unwrap();
    hospital.hear("M1", ORDER).await;
    hospital.image("1.2.9.1", 1, "A1", "77").await;
    hospital.image("1.2.9.1", 2, "A1", "77").await;
    assert_eq!(centre.desk.whole(&node, "1.2.9.1").await.unwrap(), None, "nothing is known");
    let mut after = CargoId(0);
    let whole = centre
        .until(async |desk| {
            after = hospital.carry(&centre, after).await;
            desk.whole(&node, "1.2.9.1").await.unwrap()
        })
        .await;
    assert_eq!(whole.images, 2);
    assert!(whole.at > Timestamp::default());
    let study = StudyRef { origin: node.clone(), study: "1.2.9.1".into() };
    let hint = tokio::time::timeout(Duration::from_secs(5), hints.next()).await.unwrap();
    assert_eq!(hint, Hint::Study(study.clone()));
    // What is cancelled is not waited for.
    assert!(hospital.desk.is_wanted(study.clone()).await.unwrap());
    let other = StudyRef { study: "1.2.9.77".into(), ..study.clone() };
    assert!(hospital.desk.is_wanted(other).await.unwrap(), "nothing says that it is not");
    hospital.desk.cancel("P1".into(), "twice".into(), "anna".into()).await.unwrap();
    assert!(!hospital.desk.is_wanted(study).await.unwrap());
    hospital.close().await;
    centre.close().await;
}
