//! `hikyaku demo`: a hospital, a reading centre and everybody around them on this machine, with real
//! keys, real configuration files, real sockets and real images: an order, its images, their
//! completeness, a report, and its acknowledgement.

mod circle;
mod images;
mod players;
mod scene;
mod step;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::table::say;
use super::{Failure, Outcome};
use crate::clock;
use scene::{HOSPITAL, READING, Scene};

/// How long any step may take before the demo says that it failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// `hikyaku demo`
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Keep running, for orders, images and reports of your own
    #[arg(long)]
    stay: bool,
    /// Folder to work in; made when missing, a new temporary one when not given
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Demo {
    pub(super) fn run(self) -> Outcome {
        let dir = match &self.dir {
            Some(dir) => dir.clone(),
            None => std::env::temp_dir().join(format!("hikyaku-demo-{}", std::process::id())),
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        let dir = fs::canonicalize(dir).map_err(failed)?;
        if dir.join("hospital.toml").exists() {
            let dir = dir.display();
            let words =
                format!("{dir} has a demo in it already: take another folder, or delete it");
            return Err(Failure::Usage(words));
        }
        let runtime = tokio::runtime::Runtime::new().map_err(failed)?;
        runtime.block_on(self.show(&dir))
    }

    async fn show(&self, dir: &Path) -> Outcome {
        let begun = clock::now();
        say(&format!("Working in {}\n", dir.display()))?;
        let mut scene = Scene::set(dir).await?;
        let images = images::images()?;
        let study = circle::study(&images)?;
        circle::order(&scene, &study).await?;
        say(&format!("5. A scanner sends {} MR images by C-STORE:", images.len()))?;
        let (sent, dicom) = (images.clone(), scene.dicom()?);
        step::begin(dicom, &study).await?;
        tokio::task::spawn_blocking(move || images::scan(dicom, &sent)).await.map_err(failed)??;
        step::end(dicom, &images).await?;
        images::receipts(&scene, &images).await?;
        circle::complete(&scene, &study, images.len()).await?;
        let report = circle::report(&scene, &study).await?;
        circle::home(&mut scene, &study).await?;
        circle::acknowledge(&scene, &study, &report.row.report).await?;
        say(&format!(
            "\nIn {:.0} s one order, {} images and one report went their ways, bit for bit.\n\
             The images: {}\nThe report: {}",
            clock::now().since(begun).as_secs_f64(),
            images.len(),
            dir.join("delivered").display(),
            circle::folder(&scene).display()
        ))?;
        if self.stay {
            return stay(scene).await;
        }
        scene.hospital.stop().await;
        scene.reading.stop().await;
        Ok(())
    }
}

fn failed(e: impl std::fmt::Display) -> Failure {
    Failure::Failed(e.to_string())
}

fn too_late(what: &str) -> Failure {
    failed(format!("waited {} s for {what}, in vain", PATIENCE.as_secs()))
}

/// Asks until there is an answer.
async fn soon<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> Result<T, Failure> {
    let deadline = clock::now() + PATIENCE;
    while clock::now() < deadline {
        if let Some(found) = ask().await {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(too_late(what))
}

/// As daemons, until Ctrl-C: they can be asked, and told to reload.
async fn stay(scene: Scene) -> Outcome {
    invite(&scene)?;
    let Scene { hospital, reading, mut his, .. } = scene;
    let hears = tokio::spawn(async move {
        while let Some(told) = his.told.recv().await {
            let (id, order) = (players::field(&told, "MSH", 10), players::field(&told, "OBR", 2));
            let _ = say(&format!("The HIS has got a report: message {id}, order {order}."));
        }
    });
    let (hospital, reading) = tokio::join!(hospital.run(), reading.run());
    hears.abort();
    hospital.and(reading).map(drop).map_err(failed)
}

fn invite(scene: &Scene) -> Outcome {
    let dir = scene.dir.display();
    let (dicom, orders, reports) = (scene.dicom()?, scene.orders()?, scene.reports()?);
    say(&format!(
        "\nBoth nodes keep running. Send an order, images and a report of your own; STUDY and PATIENT are \
         the\nStudy Instance UID and the Patient ID of your images:\n\n    \
         hikyaku order add MINE --study STUDY --patient-id PATIENT --config {dir}/{HOSPITAL}.toml\n    \
         storescu -aec HIKYAKU {} {} FILE.dcm\n    \
         echo '{{\"study\": \"STUDY\", \"status\": \"final\", \"text\": \"所見なし\", \"signed_by\": \"ME\"}}' \
         > {dir}/reporting/mine.json\n\n\
         or by HL7 over MLLP: orders to {orders}, reports to {reports}. Then look at them:\n\n    \
         hikyaku status --config {dir}/{HOSPITAL}.toml\n    \
         hikyaku studies --config {dir}/{READING}.toml\n    \
         hikyaku order show MINE --config {dir}/{READING}.toml\n    \
         hikyaku reports --config {dir}/{HOSPITAL}.toml\n    \
         ls {dir}/home/reports/*\n\nCtrl-C ends it.",
        dicom.ip(),
        dicom.port()
    ))
}
