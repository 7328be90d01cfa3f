//! From an instance to its study.

use super::*;

#[tokio::test]
async fn an_instance_tells_its_study_of_its_own_origin_only_and_after_a_restart_too() {
    let data = tempfile::tempdir().unwrap();
    let custody = open(data.path());
    give(&custody, "1.2.3.1", b"one", to("pacs")).await;
    give(&custody, "1.2.3.2", b"two", to("pacs")).await;
    let note = Draft {
        envelope: Envelope {
            kind: CargoKind::Note,
            ..envelope("st-elsewhere", "1.2.3", "said-1", b"note")
        },
        body: {
            let mut assembly = custody.assemble();
            assembly.push(b"note").await.unwrap();
            assembly.finish()
        },
        assignments: to("centre"),
    };
    custody.take(note).await.unwrap();
    let asked: Vec<String> = ["1.2.3.2", "said-1", "1.2.3.9", "1.2.3.1"].map(str::to_owned).into();
    let both = [("1.2.3.1", "1.2.3"), ("1.2.3.2", "1.2.3")];
    let both = both.map(|(instance, study)| (instance.to_owned(), study.to_owned()));
    let found = custody.studies_of(name("st-elsewhere"), asked.clone()).await.unwrap();
    assert_eq!(found, both, "a note is no instance");
    assert_eq!(custody.studies_of(name("north"), asked.clone()).await.unwrap(), []);
    let mut many = vec![String::from("1.9"); INSTANCES_ASKED_MAX];
    many.push("1.2.3.1".into());
    assert_eq!(custody.studies_of(name("st-elsewhere"), many).await.unwrap(), [], "a limit");
    custody.close().await;
    let custody = open(data.path());
    while !custody.summary().ready {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(custody.studies_of(name("st-elsewhere"), asked).await.unwrap(), both);
    custody.close().await;
}
